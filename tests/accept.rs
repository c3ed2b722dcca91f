//! When connections cannot be accepted: no descriptors, no memory, a failing network, too many of
//! one address, slots taken by the silent. The rest is served, nothing spins, and it mends itself.

mod clients;
mod kernel;
mod peers;

use std::net::IpAddr;
use std::time::Duration;

use kernel::{Ending, Wire};
use peers::{Server, healthz};

/// Each error of accept(2) and accept4(2), with Linux's number; those the page lists for other
/// systems and "various Linux kernels" too. EAGAIN is no error: nobody waits.
const ERRORS: &[(&str, i32)] = &[
    ("EPERM", 1),
    ("EINTR", 4),
    ("EBADF", 9),
    ("ENOMEM", 12),
    ("EFAULT", 14),
    ("EINVAL", 22),
    ("ENFILE", 23),
    ("EMFILE", 24),
    ("ENOSR", 63),
    ("ENONET", 64),
    ("EPROTO", 71),
    ("ENOTSOCK", 88),
    ("ENOPROTOOPT", 92),
    ("EPROTONOSUPPORT", 93),
    ("ESOCKTNOSUPPORT", 94),
    ("EOPNOTSUPP", 95),
    ("ENETDOWN", 100),
    ("ENETUNREACH", 101),
    ("ECONNABORTED", 103),
    ("ECONNRESET", 104),
    ("ENOBUFS", 105),
    ("ETIMEDOUT", 110),
    ("EHOSTDOWN", 112),
    ("EHOSTUNREACH", 113),
    ("ERESTARTSYS", 512),
];

fn connect(server: &mut Server, bytes: &[u8]) -> Wire {
    let wire = server.kernel().connect_reliably();
    server.kernel().send(wire, bytes);
    wire
}

/// The refused keep their sockets open for as long as they may; a place that is free is free.
#[test]
fn who_is_told_that_there_are_too_many_keeps_nobody_out() {
    let mut server = Server::start(|config| config.connections_max = 2);
    let poll = clients::get("a", "?wait=0", "");
    let ask = |server: &mut Server| {
        let wire = server.send(&poll);
        server.turn_for(100);
        (wire, server.statuses(wire))
    };
    let held = [(); 2].map(|()| ask(&mut server));
    for _ in 0..3 {
        assert_eq!(ask(&mut server).1, ["503"]);
    }
    for (wire, statuses) in held {
        assert_eq!(statuses, ["200"]);
        server.kernel().close_client(wire);
        server.turn_for(100);
        assert_eq!(ask(&mut server).1, ["200"]);
        assert_eq!(ask(&mut server).1, ["503"], "no more than two");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_accept_that_fails_once_delays_nobody_for_long() {
    for &(name, errno) in ERRORS {
        let mut server = Server::start(|_| {});
        let other = server.send(b"");
        server.kernel().accept_errors.push_back(errno);
        let newcomer = connect(&mut server, &healthz());
        server.kernel().send(other, &healthz());
        assert_eq!(server.turns_until(other, "200 OK"), 1, "{name}");
        server.turn_for(150);
        assert_eq!(server.statuses(newcomer), ["200"], "{name}");
    }
}

/// For ten seconds: others are served in the very turn, the listener is asked ten times a second,
/// and who waited is served when it ends, without a new connection.
#[cfg(target_os = "linux")]
#[test]
fn an_accept_that_fails_for_ever_costs_next_to_nothing() {
    for &(name, errno) in ERRORS {
        let mut server = Server::start(|_| {});
        let other = server.send(b"");
        server.turn_for(100);
        server.kernel().accept_errors = std::iter::repeat_n(errno, 100_000).collect();
        let waiting: Vec<Wire> = (0..5).map(|_| connect(&mut server, &healthz())).collect();
        let (accepts, waits) = (server.kernel().accepts(), server.kernel().waits());
        for _ in 0..10 {
            server.kernel().send(other, &healthz());
            assert_eq!(server.turns_until(other, "200 OK"), 1, "{name}");
            server.turn_for(999);
        }
        let (accepts, waits) = (server.kernel().accepts() - accepts, server.kernel().waits() - waits);
        assert!(accepts <= 120, "{name}: {accepts} accepts in ten seconds");
        assert!(waits <= 150, "{name}: {waits} turns in ten seconds");
        assert!(accepts >= 90, "{name}: it keeps trying");

        server.kernel().accept_errors.clear();
        server.turn_for(200);
        for wire in waiting {
            assert_eq!(server.statuses(wire), ["200"], "{name}");
        }
    }
}

/// Without a descriptor: told so, and why, in the place of the one held in reserve.
#[test]
fn who_comes_when_descriptors_are_spent_is_told() {
    let mut server = Server::start(|_| {});
    let keep: Vec<Wire> = (0..3).map(|_| server.send(&healthz())).collect();
    server.turn_for(100);
    server.kernel().descriptors = 3;
    server.kernel().has_reserve = true;
    let late: Vec<Wire> = (0..20).map(|_| connect(&mut server, &healthz())).collect();
    server.turn_for(100);
    for &wire in &late {
        let answer = server.receive(wire);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        for line in ["\r\nRetry-After: 5\r\n", "\r\nConnection: close\r\n", "\"code\":\"too_many_connections\""] {
            assert!(answer.contains(line), "{line:?} is not in {answer}");
        }
        let length = answer.split("Content-Length: ").nth(1).and_then(|rest| rest.split('\r').next());
        let body = answer.split_once("\r\n\r\n").expect("a head").1;
        assert_eq!(length, Some(&*body.len().to_string()));
        assert_eq!(server.kernel().ending(wire), Some(Ending::Closed));
    }
    let waits = server.kernel().waits();
    server.turn_for(5000);
    assert!(server.kernel().waits() - waits <= 3, "nobody waits, and so nobody is asked for");
    // Those who were there are served, and a place that comes free is given away.
    for &wire in &keep {
        server.kernel().send(wire, &healthz());
        server.turn_for(100);
        assert_eq!(server.statuses(wire).last().map(String::as_str), Some("200"));
    }
    server.kernel().close_client(keep[0]);
    server.turn_for(100);
    let next = connect(&mut server, &healthz());
    server.turn_for(100);
    assert_eq!(server.statuses(next), ["200"]);
}

/// No descriptor and none in reserve: they wait in the backlog, and no edge tells of them again.
/// Whoever leaves makes room in that very turn; without that, the listener is asked ten times a
/// second.
#[test]
fn who_waits_for_a_descriptor_gets_the_next_that_is_free() {
    let mut server = Server::start(|_| {});
    let keep: Vec<Wire> = (0..3).map(|_| server.send(b"")).collect();
    server.turn_for(100);
    server.kernel().descriptors = 3;
    let waiting: Vec<Wire> = (0..2).map(|_| connect(&mut server, &healthz())).collect();
    server.turn_for(1000);
    assert!(waiting.iter().all(|&wire| server.receive(wire).is_empty()), "there is no room");
    server.kernel().close_client(keep[0]);
    assert!(server.turns_until(waiting[0], "200 OK") <= 4);
    assert!(server.receive(waiting[1]).is_empty());
    server.kernel().descriptors = 4;
    server.turn_for(150);
    assert_eq!(server.statuses(waiting[1]), ["200"]);
}

// Limits of the number.

/// All slots are taken by peers that say nothing. Their time is over before long, and the server is
/// there for others, without anybody's help.
#[test]
fn silent_peers_do_not_keep_the_slots() {
    let mut server = Server::start(|config| {
        config.connections_max = 100;
        config.head_timeout = Duration::from_secs(10);
    });
    for _ in 0..100 {
        server.send(b"");
    }
    let early = server.send(&healthz());
    server.turn_for(100);
    assert!(server.receive(early).contains("too_many_connections"));
    server.turn_for(10_200);
    // They were told that nothing follows, and have the close timeout to end their side.
    server.turn_for(3200);
    let late = server.send(&healthz());
    server.turn_for(100);
    assert_eq!(server.statuses(late), ["200"]);
    assert_eq!(server.stats().connections, 1);
}

/// Its slot is freed at the end of the turn, or later.
#[test]
fn who_is_gone_is_no_connection_any_more() {
    let mut server = Server::start(|_| {});
    let wires = [(); 2].map(|()| server.send(&healthz()));
    server.turn_for(100);
    server.kernel().reset(wires[0]);
    assert_eq!(server.stats().connections, 1);
}

fn from(server: &mut Server, address: &str, bytes: &[u8]) -> Wire {
    server.kernel().peer = address.parse::<IpAddr>().expect("an address");
    server.send(bytes)
}

/// protocol: From one address at most `--connections-per-address-max` connections are let in (default: no limit; an IPv6 address counts by its first 64 bits), and those over it are answered likewise.
#[test]
fn one_address_has_so_many_connections_and_is_told_of_the_limit() {
    let mut server = Server::start(|config| config.connections_per_address_max = 2);
    let first = from(&mut server, "2001:db8:0:1::1", &healthz());
    let second = from(&mut server, "2001:db8:0:1::2", &healthz());
    let third = from(&mut server, "2001:db8:0:1::3", &healthz());
    let stream = from(&mut server, "2001:db8:0:1::3", &clients::get("a", "?transport=sse", ""));
    let other = from(&mut server, "2001:db8:0:2::1", &healthz());
    server.turn_for(100);
    for wire in [first, second, other] {
        assert_eq!(server.statuses(wire), ["200"]);
    }
    let refused = server.receive(third);
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too_many_connections"), "{refused}");
    assert!(refused.contains("--connections-per-address-max") && refused.contains("Retry-After"), "{refused}");
    assert!(server.receive(stream).contains("retry: "), "an EventSource is asked to come back");
    // More of them than are told are closed, and the address costs the others nothing.
    let flood: Vec<Wire> = (0..50).map(|_| from(&mut server, "2001:db8:0:1::4", b"")).collect();
    server.turn_for(100);
    let closed = flood.iter().filter(|&&wire| server.kernel().is_released(wire)).count();
    assert!((44..=48).contains(&closed), "{closed} of 50 are closed at once");

    server.kernel().close_client(first);
    server.turn_for(20_000);
    let again = from(&mut server, "2001:db8:0:1::5", &healthz());
    server.turn_for(100);
    assert_eq!(server.statuses(again), ["200"], "a place is free again");
}

#[test]
fn by_default_one_address_may_have_all_connections() {
    let mut server = Server::start(|_| {});
    let wires: Vec<Wire> = (0..300).map(|_| from(&mut server, "192.0.2.7", &healthz())).collect();
    server.turn_for(100);
    assert!(wires.iter().all(|&wire| server.statuses(wire) == ["200"]));
}
