//! The first words on standard error: where the server is, how to try it, how much it takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tidings::Tokens;

use super::descriptors::Limits;

/// What `--version` prints.
pub(crate) fn version() -> String {
    let features: Vec<&str> = FEATURES.iter().filter(|(_, built_in)| *built_in).map(|(name, _)| *name).collect();
    format!("tidings {}\nfeatures: {}\n", env!("CARGO_PKG_VERSION"), features.join(", "))
}

/// The crate's features and whether this program has them.
const FEATURES: &[(&str, bool)] = &[("cli", cfg!(feature = "cli")), ("deflate", cfg!(feature = "deflate"))];

/// What a client has to show to publish, and to subscribe, as curl takes it; nothing where no token is needed.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Shown {
    publish: &'static str,
    subscribe: &'static str,
}

impl Shown {
    pub(crate) fn of(tokens: &Tokens) -> Shown {
        let if_any = |count| if count > 0 { " -H \"Authorization: Bearer $TOKEN\"" } else { "" };
        Shown { publish: if_any(tokens.publish_count()), subscribe: if_any(tokens.subscribe_count()) }
    }
}

/// What is said once the addresses are bound.
pub(crate) fn text(
    bound: &[SocketAddr],
    stdin: Option<&str>,
    shown: Shown,
    limits: &Limits,
    memory_bound: usize,
) -> String {
    let mut out = format!("tidings {}\n", env!("CARGO_PKG_VERSION"));
    for address in bound {
        out.push_str(&format!("listening on http://{address}\n"));
    }
    if let Some(&address) = bound.first() {
        let channel = stdin.unwrap_or("news");
        let url = format!("http://{}/channels/{channel}", reachable(address));
        out.push_str(&format!("subscribe:   curl -N{} '{url}?transport=sse'\n", shown.subscribe));
        out.push_str(&format!("publish:     curl -d 'hello'{} '{url}'\n", shown.publish));
    }
    if let Some(channel) = stdin {
        out.push_str(&format!("each line of standard input goes to the channel {channel}\n"));
    }
    out.push_str(&room(limits));
    // Rounded up: it is a bound.
    let mib = memory_bound.div_ceil(1 << 20);
    out + &format!(
        "memory: at most {mib} MiB by these limits (see --print-config); sockets' buffers are the kernel's\n"
    )
}

/// How many connections there is room for, and why no more.
fn room(limits: &Limits) -> String {
    let connections = format!("connections: at most {}", limits.connections);
    let because = match limits.descriptors {
        None => String::new(),
        Some((before, now)) if before == now => format!("; descriptors: {now}, the hard limit (ulimit -Hn)"),
        Some((before, now)) => format!("; descriptors: {now}, raised from {before}"),
    };
    let too_few = if limits.connections < limits.wished {
        format!(", too few for connections-max {}", limits.wished)
    } else {
        String::new()
    };
    format!("{connections}{because}{too_few}\n")
}

/// An address that a client on this host can use: "all addresses" is not one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_address_and_a_way_to_try() {
        let limits = Limits { connections: 100_000, wished: 100_000, descriptors: Some((1024, 1_048_576)) };
        assert_eq!(
            text(&addresses(&["127.0.0.1:8080", "[::1]:8080"]), None, Shown::default(), &limits, (700 << 20) + 1),
            format!(
                "tidings {}\n\
                 listening on http://127.0.0.1:8080\n\
                 listening on http://[::1]:8080\n\
                 subscribe:   curl -N 'http://127.0.0.1:8080/channels/news?transport=sse'\n\
                 publish:     curl -d 'hello' 'http://127.0.0.1:8080/channels/news'\n\
                 connections: at most 100000; descriptors: 1048576, raised from 1024\n\
                 memory: at most 701 MiB by these limits (see --print-config); sockets' buffers are the kernel's\n",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    #[test]
    fn all_addresses_are_tried_by_the_loopback_one() {
        let limits = Limits { connections: 960, wished: 100_000, descriptors: Some((1024, 1024)) };
        let shown = text(&addresses(&["[::]:99"]), Some("log"), Shown::default(), &limits, 0);
        assert!(shown.contains("listening on http://[::]:99\n"));
        assert!(shown.contains("curl -d 'hello' 'http://[::1]:99/channels/log'\n"));
        assert!(shown.contains("each line of standard input goes to the channel log\n"));
        assert!(shown.contains(
            "connections: at most 960; descriptors: 1024, the hard limit (ulimit -Hn), too few for connections-max \
             100000\n"
        ));
        assert_eq!(reachable(addresses(&["0.0.0.0:1"])[0]).to_string(), "127.0.0.1:1");
        assert_eq!(reachable(addresses(&["10.0.0.1:1"])[0]).to_string(), "10.0.0.1:1");
    }

    #[test]
    fn a_token_is_shown_where_one_is_needed() {
        let limits = Limits { connections: 1, wished: 1, descriptors: None };
        let header = "-H \"Authorization: Bearer $TOKEN\"";
        for (lines, subscribe, publish) in [
            ("publish t", "-N".into(), format!("'hello' {header}")),
            ("subscribe t", format!("-N {header}"), "'hello'".into()),
            ("publish t\nsubscribe u", format!("-N {header}"), format!("'hello' {header}")),
        ] {
            let mut tokens = Tokens::default();
            tokens.allow_lines(lines.as_bytes()).unwrap();
            let banner = text(&addresses(&["[::1]:99"]), None, Shown::of(&tokens), &limits, 0);
            for line in [
                format!("subscribe:   curl {subscribe} 'http://[::1]:99/channels/news?transport=sse'\n"),
                format!("publish:     curl -d {publish} 'http://[::1]:99/channels/news'\n"),
            ] {
                assert!(banner.contains(&line), "{lines}: {banner}");
            }
        }
    }
}
