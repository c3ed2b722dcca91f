//! What the program does from its start to its end, and how it fails.
//!
//! Exit codes: 0 asked to leave or only asked a question, 1 could not run, 2 told something wrong;
//! a mistake of ours that panics ends it by SIGABRT.
//! Standard output carries answers (`--help`, `--version`, `--print-config`) and nothing else;
//! the banner, the log and every error go to standard error.

mod banner;
mod descriptors;
mod help;
mod log_lines;
mod options;
mod signals;
mod stdin;
mod tokens;
mod values;

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use descriptors::Limits;
use options::{Request, Settings, UsageError};
use tidings::Server;
use tokens::Sources;

/// Runs the program with the arguments and the environment of this process.
pub(crate) fn run() -> ExitCode {
    let (message, code) = match answer_or_serve() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (format!("{message}\nTry: tidings --help"), 2),
        Err(Failure::Runtime(message)) => (message, 1),
    };
    say(&format!("tidings: {message}\n"));
    ExitCode::from(code)
}

enum Failure {
    /// What we were told cannot be right: exit code 2.
    Usage(String),
    /// The system says no: exit code 1.
    Runtime(String),
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

fn answer_or_serve() -> Result<(), Failure> {
    match options::read(std::env::args_os().skip(1), |name| std::env::var_os(name))? {
        Request::Help => answer(&help::text()),
        Request::Version => answer(&banner::version()),
        Request::PrintConfig(mut chosen) => {
            // Only what would serve is shown, and as it would serve.
            let (_, limits) = prepare(&mut chosen.settings)?;
            answer(&help::config(chosen, &limits))
        }
        Request::Serve(settings) => serve(settings),
    }
}

/// Makes the settings what will hold: tokens read, connections cut to the limit of descriptors. Says what
/// is doubtful, and where to listen, if that is allowed.
fn prepare(settings: &mut Settings) -> Result<(Vec<SocketAddr>, Limits), Failure> {
    log_lines::start(settings.log);
    options::warn_of_unknown_variables(std::env::vars_os().map(|(name, _)| name));
    settings.config.tokens = Sources::of(settings).read().map_err(Failure::Usage)?;
    let limits = descriptors::raise(settings.config.connections_max);
    settings.config.connections_max = limits.connections;

    let is_meant = settings.config.tokens.publish_count() > 0 || settings.config.allow_anyone_to_publish;
    let addresses = resolve(&settings.listen)?;
    refuse_open_door(&addresses, is_meant)?;
    if let Some(host) = settings.config.hosts.iter().find(|host| !is_meant && !values::is_local_host(host)) {
        log::warn!(
            "--host {host}: behind a proxy everybody counts as this host, so anyone may publish: set a token with \
             --token-file, or add --allow-anyone-to-publish if that is meant"
        );
    }
    Ok((addresses, limits))
}

fn serve(mut settings: Settings) -> Result<(), Failure> {
    // Before anything is announced: whoever reads the banner may send a signal at once.
    let tokens = Sources::of(&settings);
    let signals =
        signals::register(&tokens).map_err(|error| Failure::Runtime(format!("cannot receive signals: {error}")))?;

    let (addresses, limits) = prepare(&mut settings)?;
    let message_bytes_max = settings.config.message_bytes_max;
    let memory_bound = settings.config.memory_bound();
    let shown = banner::Shown::of(&settings.config.tokens);
    let server = Server::bind(&addresses[..], settings.config).map_err(|error| match error {
        tidings::Error::Bind(address, error) => {
            Failure::Runtime(format!("cannot listen on {address}: {}", explain(&error)))
        }
        error => Failure::Runtime(error.to_string()),
    })?;

    say(&banner::text(server.local_addrs(), settings.stdin.as_deref(), shown, &limits, memory_bound));
    let started = signals::spawn(signals, server.handle(), tokens).and_then(|()| match settings.stdin {
        Some(channel) => stdin::spawn(server.handle(), channel, message_bytes_max),
        None => Ok(()),
    });
    started.map_err(|error| Failure::Runtime(format!("cannot start a thread: {error}")))?;
    server.run().map_err(|error| Failure::Runtime(format!("the server stopped: {error}")))
}

/// The addresses behind what `--listen` says; a name may stand for several.
fn resolve(listen: &[String]) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = Vec::new();
    for text in listen {
        let found = text.to_socket_addrs().map_err(|error| {
            Failure::Runtime(format!("--listen {text}: the name does not lead to an address: {error}"))
        })?;
        for address in found {
            if address.port() == 0 || !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

/// The server refuses this as well; here it can be said in the words of the options.
fn refuse_open_door(addresses: &[SocketAddr], is_meant: bool) -> Result<(), Failure> {
    let open = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
    match open {
        Some(address) if !is_meant => Err(Failure::Usage(format!(
            "--listen {address}: other hosts can reach this address, and anyone there could publish.\n\
             Set a token with --token-file or --publish-token, or listen on 127.0.0.1 behind a proxy, or \
             add --allow-anyone-to-publish if that is meant."
        ))),
        _ => Ok(()),
    }
}

/// Why an address cannot be listened on, and what would help.
fn explain(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use: stop who has it, or choose another (0 takes a free one)",
        io::ErrorKind::PermissionDenied => {
            "no permission: ports below 1024 need a right (on Linux CAP_NET_BIND_SERVICE); 8080 needs none"
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is not one of this host's: 127.0.0.1 is only this host, 0.0.0.0 is all addresses"
        }
        _ => return error.to_string(),
    };
    format!("{advice} ({error})")
}

/// Answers a question on standard output. A reader who has seen enough (`| head`) is no error.
fn answer(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says something on standard error. If nobody can hear it, there is nobody to tell that either.
fn say(text: &str) {
    let _ = io::stderr().lock().write_all(log_lines::printable(text, &['\n']).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(addresses: &[&str], anyone: bool) -> bool {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        refuse_open_door(&addresses, anyone).is_err()
    }

    #[test]
    fn other_hosts_are_let_in_only_on_purpose() {
        assert!(!refused(&["127.0.0.1:80", "[::1]:80", "127.9.9.9:0", "[::ffff:127.0.0.1]:0"], false));
        for open in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
            assert!(refused(&["127.0.0.1:80", open], false), "{open}");
            assert!(!refused(&["127.0.0.1:80", open], true), "{open}");
        }
    }

    #[test]
    fn the_same_address_is_bound_once_but_each_port_0_is_another() {
        let resolved = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|&text| text.into()).collect();
            resolve(&texts).map_err(|_| ()).unwrap().len()
        };
        assert_eq!(resolved(&["127.0.0.1:80", "127.0.0.1:80", "[::1]:80"]), 2);
        assert_eq!(resolved(&["127.0.0.1:0", "127.0.0.1:0"]), 2);
    }
}
