//! Clients that mean harm, each with the story of what it once did to others.
//!
//! The kernel is the tests' own, time is virtual: what is measured is what one turn does.

mod clients;
mod kernel;
mod peers;

use std::time::Duration;

use kernel::Wire;
use peers::{Healthy, Hostile, KIB, Kind, Publisher, Server, healthz};
use tidings::internals::Command;

/// A turn's budget counted the bytes read only. Pipelined requests of forty bytes each, from a
/// client that reads its answers, made one turn of 100,000 requests: nobody else was served for
/// seconds.
#[test]
fn a_flood_of_short_requests_is_spread_over_turns() {
    let mut server = Server::start(|config| config.publish_bytes_per_turn_max = 128 * KIB);
    let other = server.send(b"");
    let flood = server.send(&healthz().repeat(2000));
    server.turns.os().send(other, &healthz());
    let mut answered = Vec::new();
    let mut others = 0;
    while answered.len() < 2000 {
        server.turn(1);
        let news = server.statuses(flood);
        assert!(news.len() <= 300, "{} answers in one turn", news.len());
        assert!(!news.is_empty(), "each turn gets on");
        answered.extend(news);
        others += server.statuses(other).len();
        assert!(others == 1 || answered.len() < 600, "the other does not wait for the flood's end");
    }
    assert!(answered.iter().all(|status| status == "200"));
}

/// The same with short requests for long answers.
#[test]
fn a_flood_of_long_answers_is_spread_over_turns() {
    let mut server = Server::start(|config| config.publish_bytes_per_turn_max = 256 * KIB);
    let publisher = server.send(&clients::post("a", "", "", &[b'x'; 100 * KIB]));
    while server.statuses(publisher) != ["200"] {
        server.turn(1);
    }
    let polls = server.send(&clients::get("a", "?after=earliest&wait=0", "").repeat(20));
    let mut answered = 0;
    while answered < 20 {
        server.turn(1);
        let news = server.statuses(polls).len();
        assert!((1..=3).contains(&news), "{news} answers in one turn");
        answered += news;
    }
}

/// The same with lists of channels that are not in them: a name that has no message and no
/// subscriber any more was passed over for nothing. Over 100,000 such, one connection's pipelined
/// lists made one turn of seconds, in which nobody was served and no signal was heard.
#[test]
fn a_flood_of_lists_of_nothing_is_spread_over_turns() {
    let mut server = Server::start(|config| config.publish_bytes_per_turn_max = 64 * KIB);
    let traces: Vec<u8> = (0..1000).flat_map(|nth| clients::post(&format!("n{nth}"), "", "", b"")).collect();
    let deletes: Vec<u8> = (0..1000)
        .flat_map(|nth| format!("DELETE /channels/n{nth} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes())
        .collect();
    for (requests, status) in [(traces, "200"), (deletes, "204")] {
        let wire = server.send(&requests);
        let mut answered = 0;
        while answered < 1000 {
            server.turn(1);
            let news = server.statuses(wire);
            assert!(news.iter().all(|news| news == status), "{news:?}");
            answered += news.len();
        }
    }
    let lists = server.send(&b"GET /channels HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50));
    let mut answered = 0;
    while answered < 50 {
        server.turn(1);
        let news = server.receive(lists).matches("{\"channels\":[]}\n").count();
        // Each looks at 1000 channels.
        assert!((1..=5).contains(&news), "{news} lists in one turn");
        answered += news;
    }
}

/// The same with sets: attaching to 64 channels cost ten times a request, and counted as one.
#[test]
fn a_flood_of_polls_of_many_channels_is_spread_over_turns() {
    let mut server = Server::start(|config| config.publish_bytes_per_turn_max = 64 * KIB);
    let set: Vec<String> = (0..64).map(|nth| format!("a{nth}")).collect();
    let polls = server.send(&clients::get(&set.join(","), "?wait=0", "").repeat(50));
    let mut answered = 0;
    while answered < 50 {
        server.turn(1);
        let news = server.statuses(polls).len();
        assert!((1..=8).contains(&news), "{news} answers in one turn");
        answered += news;
    }
}

/// Whose turn it was could spend the budget of a whole turn, and those behind it waited for one
/// such turn of each flood.
#[test]
fn many_floods_do_not_make_the_others_wait_for_a_turn_of_each() {
    let mut server = Server::start(|config| config.publish_bytes_per_turn_max = 128 * KIB);
    let floods: Vec<Wire> = (0..8).map(|_| server.send(b"")).collect();
    let other = server.send(b"");
    for &flood in &floods {
        server.turns.os().send(flood, &healthz().repeat(1000));
    }
    server.turns.os().send(other, &healthz());
    let mut answered = 0;
    loop {
        server.turn(1);
        answered += floods.iter().map(|&flood| server.statuses(flood).len()).sum::<usize>();
        // A visit is a sixteenth of 128 KiB, a request counts half a KiB at least.
        assert!(answered <= 2 * 8 * 16, "{answered} answers while another waited for its one");
        if server.statuses(other) == ["200"] {
            break;
        }
    }
    assert!(answered > 0, "the floods came before it");
}

/// The same with frames: each `unsubscribe` is answered with the whole set.
#[test]
fn a_flood_of_commands_is_spread_over_turns() {
    let mut server = Server::start(|config| config.publish_bytes_per_turn_max = 64 * KIB);
    let set: Vec<String> = (10..74).map(|nth| format!("{}{nth}", "x".repeat(60))).collect();
    let socket = server.send(&clients::upgrade(&set.join(","), "", Some("tidings.v1")));
    server.turn(1);
    server.receive(socket);
    let frame = b"\x81\x8d\0\0\0\0unsubscribe q";
    assert!(server.turns.os().send(socket, &frame.repeat(500)) > 0);
    let mut answered = 0;
    while answered < 500 {
        server.turn(1);
        let news = server.receive(socket).matches("{\"subscribed\"").count();
        assert!((1..=40).contains(&news), "{news} answers in one turn");
        answered += news;
    }
}

/// Commands of other threads came after the reads of a turn and out of the same budget. Peers that
/// never stopped sending spent it all, and the server could not be told to leave.
#[test]
fn a_flood_does_not_keep_the_server_from_leaving() {
    let mut server = Server::start(|config| {
        config.publish_bytes_per_turn_max = 4 * KIB;
        config.drain = Duration::ZERO;
    });
    let streams: Vec<Wire> = (0..4).map(|_| server.send(&clients::get("a", "?transport=sse", ""))).collect();
    server.turn(1);
    server.commands.push(Command::Drain).expect("the loop turns");
    for _ in 0..4 {
        for &wire in &streams {
            server.turns.os().send(wire, &[b'x'; 16 * KIB]);
        }
        server.turn(1);
    }
    for &wire in &streams {
        assert!(server.receive(wire).ends_with("0\r\n\r\n"), "the streams are ended");
    }
}

/// A burst to one channel wakes its subscribers once. A command that waited for the answers of the
/// burst subscribes somebody in its middle, and what follows is for them as well.
#[test]
fn who_subscribes_inside_a_burst_hears_the_rest_of_it() {
    let mut server = Server::start(|_| {});
    let socket = server.send(&clients::upgrade("other", "", Some("tidings.v1")));
    let publisher = server.send(b"");
    server.turn_for(100);
    server.receive(socket);
    // One turn: a publish whose answer lets `subscribe a` in, then a burst to `a`.
    let frames = [&b"\x81\x8a\0\0\0\0publish a\n"[..], b"\x81\x8b\0\0\0\0subscribe a"].concat();
    server.turns.os().send(socket, &frames);
    server.turns.os().send(publisher, &clients::post("a", "", "", b"behind").repeat(3));
    server.turn_for(100);
    let heard = server.receive(socket);
    assert_eq!(heard.matches("\"published\"").count(), 1, "{heard}");
    assert_eq!(heard.matches("\"data\":\"behind\"").count(), 3, "{heard}");
}

/// The answer to a publish did not look at what had come behind it. A publisher whose reads each
/// ended inside a head was watched by the deadline of its first one, and cut off in mid-stream.
#[test]
fn a_publisher_that_never_pauses_is_not_cut_off() {
    let mut server = Server::start(|config| {
        config.head_timeout = Duration::from_secs(1);
        config.idle_timeout = Duration::from_secs(1);
    });
    let request = clients::post("a", "", "", b"x");
    let (first, rest) = request.split_at(20);
    let publisher = server.send(first);
    for nth in 0..30 {
        let bytes = [rest, first].concat();
        assert_eq!(server.turns.os().send(publisher, &bytes), bytes.len(), "after {nth} publishes");
        server.turn_for(200);
        assert_eq!(server.statuses(publisher), ["200"], "publish {nth}");
    }
    // Half a head is still half a head.
    server.turn_for(2000);
    assert_eq!(server.statuses(publisher), ["408"]);
}

/// The refusal of input that was too much for the server went out before the answers to the
/// publishes ahead of it: the client took each answer for that of another request.
#[test]
fn input_over_the_limit_is_refused_after_the_answers_ahead_of_it() {
    let mut server = Server::start(|config| config.intake_bytes_max = KIB);
    let large = clients::post("a", "", "", &[b'x'; 10 * KIB]);
    let mut bytes = clients::post("a", "", "", b"small");
    bytes.extend_from_slice(&large[..5 * KIB]);
    let client = server.send(&bytes);
    server.turn_for(100);
    assert_eq!(server.statuses(client), ["200", "503"]);
}

/// A connection has one deadline, and whatever it was set for, it closed a reader that was blocked
/// just then: a stream behind a large answer was cut off at its first heartbeat.
#[test]
fn a_blocked_reader_has_the_whole_stall_timeout() {
    let mut server = Server::start(|config| {
        config.stall_timeout = Duration::from_secs(60);
        config.heartbeat = Duration::from_secs(2);
    });
    let publisher = server.send(&clients::post("a", "", "", &[b'x'; 90 * KIB]));
    server.turn_for(100);
    assert_eq!(server.statuses(publisher), ["200"]);
    let reader = server.turns.os().connect();
    let mut requests = clients::get("a", "?after=earliest&wait=0", "");
    server.turns.os().send(reader, &requests);
    server.turn_for(100);
    requests = clients::get("a", "?transport=sse", "");
    server.turns.os().send(reader, &requests);
    server.turn_for(30_000);
    assert!(!server.turns.os().is_released(reader), "30 s of 60");
    server.turn_for(40_000);
    assert!(server.turns.os().is_released(reader), "it has taken nothing for more than 60 s");
}

/// Each kind of hostile peer, thirty at a time, for two minutes of virtual time, beside a client of
/// each transport that hears everything in order. All of them are ended, and nothing is left of what
/// they held.
#[test]
fn beside_every_kind_of_hostile_peer_the_healthy_hear_everything_in_order() {
    const SECONDS: usize = 120;
    for kind in Kind::all() {
        let mut server = Server::start(|_| {});
        // So little that who does not read is blocked soon.
        server.kernel().send_buffer = 4 * KIB;
        let mut healthy = Healthy::of_each_kind(&mut server);
        let mut publisher = Publisher::start(&mut server);
        let mut hostile: Vec<Hostile> = (0..30).map(|_| Hostile::new(kind.clone())).collect();
        let mut answered = 0;
        for _ in 0..SECONDS {
            hostile.iter_mut().for_each(|peer| peer.step(&mut server));
            publisher.step(&mut server);
            server.turn_for(1000);
            answered += publisher.answered(&mut server);
            for client in &mut healthy {
                client.step(&mut server);
                assert_eq!(client.heard, publisher.published, "{kind:?}");
            }
            let stats = server.stats();
            assert!(
                stats.intake_bytes <= 30 * 512 * KIB && stats.output_bytes <= 30 * 512 * KIB,
                "{kind:?}: {stats:?}"
            );
        }
        assert_eq!(answered, SECONDS, "{kind:?}");
        for _ in 0..SECONDS {
            server.turn_for(1000);
            healthy.iter_mut().for_each(|client| client.step(&mut server));
        }
        let left = hostile.iter().filter(|peer| !peer.is_ended(&mut server)).count();
        assert_eq!(left, 0, "of {kind:?}");
        let stats = server.stats();
        assert_eq!((stats.intake_bytes, stats.output_bytes, stats.connections), (0, 0, healthy.len()), "{kind:?}");
    }
}
