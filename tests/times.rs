//! Every time limit, by virtual time: what the client sees, and at which moment.
//!
//! A limit is met neither early nor late: ticks of 50 ms are all that may be between.

mod clients;
mod kernel;
mod peers;

use std::time::Duration;

use kernel::{Fault, Wire};
use peers::{KIB, Server, healthz};
use tidings::internals::{Config, Os};

/// Two ticks: one to round up, one for the turn to come.
const LATE_MS: u64 = 150;

/// When the server lets go of this connection, after how many milliseconds from now, and what it
/// said before.
fn end_of(server: &mut Server, wire: Wire) -> (u64, String) {
    let begin = server.kernel().now_ms();
    let mut said = String::new();
    while !server.kernel().is_released(wire) {
        assert!(server.kernel().now_ms() - begin < 1_000_000, "it never ends; it said {said:?}");
        server.turn(100_000);
        said.push_str(&server.receive(wire));
        // A client that has seen the end ends its own side.
        if server.kernel().ending(wire).is_some() {
            server.kernel().half_close(wire);
        }
    }
    (server.kernel().now_ms() - begin, said)
}

fn start() -> Server {
    Server::start(|config| {
        config.head_timeout = Duration::from_secs(4);
        config.body_timeout = Duration::from_secs(7);
        config.body_bytes_per_second_min = 10 * KIB;
        config.idle_timeout = Duration::from_secs(20);
        config.stall_timeout = Duration::from_secs(30);
        config.close_timeout = Duration::from_secs(2);
        config.ping = Duration::from_secs(40);
        config.message_bytes_max = 100 * KIB;
    })
}

#[track_caller]
fn assert_ends(server: &mut Server, wire: Wire, ms: u64, words: &str) {
    let (after, said) = end_of(server, wire);
    assert!((ms..=ms + LATE_MS).contains(&after), "after {after} ms, not {ms}: {said}");
    assert!(if words.is_empty() { said.is_empty() } else { said.contains(words) }, "{said}");
}

#[test]
fn who_says_nothing_is_ended_without_a_word() {
    let mut server = start();
    let wire = server.send(b"");
    assert_ends(&mut server, wire, 4000, "");
}

/// The deadline passes and the request comes in one turn, which reads first and answers a publish last.
/// The connection was ended in between, and what did not fit of the answer was lost.
#[test]
fn a_publish_in_the_turn_of_the_deadline_is_answered() {
    for (asks_before, limit_ms) in [(0, 4000), (1, 20_000)] {
        let mut server = start();
        server.kernel().send_buffer = 100;
        let wire = server.send(b"");
        let publish = clients::post("a", "", "", b"in time");
        for _ in 0..asks_before {
            server.kernel().send(wire, &publish);
            server.turn_for(100);
            while !server.receive(wire).is_empty() {
                server.turn_for(100);
            }
        }
        server.turn_for(100);
        stands_still(&mut server, limit_ms + 1000);
        server.kernel().send(wire, &publish);
        let mut said = String::new();
        for _ in 0..10 {
            server.turn(10);
            said.push_str(&server.receive(wire));
        }
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("}\n"), "{said}");
        assert!(server.kernel().ending(wire).is_none(), "and it may ask again");
    }
}

/// Byte by byte, however quickly or slowly: the head's time runs from accept and is not prolonged.
#[test]
fn a_head_has_its_time_from_accept_however_its_bytes_come() {
    for every_ms in [100, 1000, 3900] {
        let mut server = start();
        let wire = server.send(b"");
        for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n".iter().cycle().take(4000 / every_ms as usize) {
            server.turn_for(every_ms);
            server.kernel().send(wire, &[*byte]);
        }
        let begin = server.kernel().now_ms();
        let (_, said) = end_of(&mut server, wire);
        let after = server.kernel().now_ms();
        assert!(said.contains("HTTP/1.1 408") && said.contains("request_timeout"), "{said}");
        assert!(said.contains("Connection: close"), "{said}");
        assert!(after - begin <= 4000 % every_ms + 100 + LATE_MS, "{every_ms}: {} ms late", after - begin);
    }
}

/// The next head has its time from its first byte.
#[test]
fn a_later_head_has_its_time_from_its_first_byte() {
    let mut server = start();
    let wire = server.send(&healthz());
    server.turn_for(6000);
    assert_eq!(server.statuses(wire), ["200"]);
    server.kernel().send(wire, b"GET");
    assert_ends(&mut server, wire, 4000, "request_timeout");
}

#[test]
fn a_connection_between_requests_is_ended_when_it_was_idle_for_long_enough() {
    let mut server = start();
    let wire = server.send(&healthz());
    server.turn_for(100);
    assert_eq!(server.statuses(wire), ["200"]);
    assert_ends(&mut server, wire, 19_900, "");
}

/// 7 s and a second for each 10 KiB that it announced; of chunks nobody knows, so the largest.
#[test]
fn a_body_has_the_time_that_its_length_is_given() {
    let post = |length: &str| format!("POST /channels/a HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n").into_bytes();
    for (request, seconds) in [
        (post("Content-Length: 100"), 7),
        (post("Content-Length: 51200"), 12),
        (post("Content-Length: 102400"), 17),
        (post("Transfer-Encoding: chunked"), 17),
    ] {
        for trickled in [0, 1] {
            let mut server = start();
            let wire = server.send(&request);
            server.turn(0);
            let begin = server.kernel().now_ms();
            for _ in 0..seconds * trickled {
                server.kernel().send(wire, if request.ends_with(b"chunked\r\n\r\n") { b"1\r\nx\r\n" } else { b"x" });
                server.turn_for(999);
            }
            let (_, said) = end_of(&mut server, wire);
            let after = server.kernel().now_ms() - begin;
            assert!(said.contains("HTTP/1.1 408") && said.contains("request_timeout"), "{said}");
            assert!((seconds * 1000..=seconds * 1000 + LATE_MS).contains(&after), "{after} ms, not {seconds} s");
        }
    }
}

/// protocol: A message that has begun must be whole in the time of a body, whatever pings are answered: otherwise close 1008.
#[test]
fn a_websocket_message_has_the_time_of_a_body() {
    // One frame that never ends; fragments that never end; half the head of a frame.
    for (first, next) in [
        (&b"\x82\xff\0\0\0\0\0\x01\x80\0\0\0\0\0x"[..], &b"x"[..]),
        (b"\x01\x81\0\0\0\0x", b"\x00\x81\0\0\0\0x"),
        (b"\x82", b""),
    ] {
        let mut server = start();
        let wire = server.send(&clients::upgrade("a", "", None));
        server.turn_for(1000);
        server.receive(wire);
        server.kernel().send(wire, first);
        server.turn(0);
        let begin = server.kernel().now_ms();
        for _ in 0..16 {
            server.kernel().send(wire, next);
            server.turn_for(1000);
        }
        let mut said = String::new();
        while said.is_empty() {
            assert!(server.kernel().now_ms() - begin < 100_000, "it never ends");
            server.turn(100_000);
            said = server.receive(wire);
        }
        let after = server.kernel().now_ms() - begin;
        assert!(said.contains("\u{3}\u{fffd}the message did not end in time"), "1008: {said:?}");
        assert!((17_000..=17_000 + LATE_MS).contains(&after), "{after} ms, not 17 s");
    }
}

/// Whose messages do end may send for ever, also if each read ends inside one.
#[test]
fn a_websocket_that_never_pauses_is_not_cut_off() {
    let mut server = start();
    let wire = server.send(&clients::upgrade("a", "", None));
    let frame = clients::client_frame(clients::TEXT, b"again and again");
    let (first, rest) = frame.split_at(9);
    server.turn_for(100);
    server.kernel().send(wire, first);
    for _ in 0..100 {
        server.turn_for(500);
        assert!(!server.kernel().is_released(wire));
        let said = server.receive(wire);
        assert!(!said.contains("in time"), "{said}");
        server.kernel().send(wire, &[rest, first].concat());
    }
    server.turn_for(100);
    assert_eq!(server.stats().head, 100);
}

#[test]
fn a_reader_that_takes_nothing_is_ended_after_the_stall_timeout() {
    let mut server = start();
    let publisher = server.send(b"");
    let stalled = server.kernel().connect();
    server.kernel().send(stalled, &clients::get("a", "?transport=sse", ""));
    server.turn(0);
    server.kernel().send(publisher, &clients::post("a", "", "", &[b'x'; 90 * KIB]));
    let begin = server.kernel().now_ms();
    while !server.kernel().is_released(stalled) {
        server.turn(100_000);
        // Its own connection is idle in between.
        server.kernel().send(publisher, &healthz());
    }
    let after = server.kernel().now_ms() - begin;
    assert!((30_000..=30_000 + LATE_MS).contains(&after), "{after} ms");
}

/// It was answered `Connection: close`, has its answer, and does not go.
#[test]
fn who_does_not_end_its_side_is_ended_after_the_close_timeout() {
    let mut server = start();
    let wire = server.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    server.turn(0);
    let begin = server.kernel().now_ms();
    while !server.kernel().is_released(wire) {
        server.turn(100_000);
    }
    let after = server.kernel().now_ms() - begin;
    assert!((2000..=2000 + LATE_MS).contains(&after), "{after} ms");
    assert_eq!(server.statuses(wire), ["200"]);
}

#[test]
fn a_poll_is_answered_when_its_wait_is_over() {
    let mut server = start();
    let wire = server.send(&clients::get("a", "?wait=9", ""));
    let begin = server.kernel().now_ms();
    while server.kernel().ending(wire).is_none() && server.statuses(wire).is_empty() {
        server.turn(100_000);
    }
    let after = server.kernel().now_ms() - begin;
    assert!((9000..=9000 + LATE_MS).contains(&after), "{after} ms");
}

/// Each within its interval, never later: proxies count from the last byte.
#[test]
fn heartbeats_and_pings_come_within_their_interval() {
    let adjust = |config: &mut Config| {
        config.heartbeat = Duration::from_secs(5);
        config.ping = Duration::from_secs(6);
    };
    for (request, interval_ms) in
        [(clients::get("a", "?transport=sse", ""), 5000), (clients::upgrade("a", "", None), 6000)]
    {
        let mut server = Server::start(adjust);
        let wire = server.send(&request);
        server.turn_for(100);
        server.receive(wire);
        let mut last = server.kernel().now_ms();
        for beat in 0..10 {
            while server.receive(wire).is_empty() {
                server.turn(100_000);
                assert!(server.kernel().now_ms() - last <= interval_ms + 400, "beat {beat} is late");
            }
            last = server.kernel().now_ms();
            server.kernel().send(wire, &clients::client_frame(clients::PONG, b""));
        }
    }
}

#[test]
fn a_websocket_that_is_silent_for_two_pings_is_ended() {
    let mut server = start();
    let wire = server.send(&clients::upgrade("a", "", None));
    server.turn(0);
    let (after, _) = end_of(&mut server, wire);
    assert!((80_000..=120_000 + 400).contains(&after), "{after} ms of 40 s pings");
}

/// It was well when the process was stopped, or its machine put to sleep, and was asked nothing since.
#[test]
fn a_websocket_is_not_taken_for_silent_by_a_server_that_stood_still() {
    let mut server = start();
    let wire = server.send(&clients::upgrade("a", "", None));
    server.turn(0);
    server.receive(wire);
    stands_still(&mut server, 200_000);
    server.turn(0);
    let ping = server.receive(wire);
    assert_eq!(server.kernel().ending(wire), None);
    assert_eq!(ping.as_bytes().last_chunk(), Some(b"\x00"), "{ping:?}");
    // Now it was asked: the answer has the whole interval, and no more.
    let (after, _) = end_of(&mut server, wire);
    assert!((40_000..=40_000 + 400).contains(&after), "{after} ms of a ping of 40 s");
}

/// protocol: a peer silent for two intervals is closed, none before it has had one to answer a ping that was written.
///
/// A turn writes to so many and no more. Whose ping waits for its turn, for most of an interval or for
/// more than two, was not asked yet; once it was, the answer has the whole interval.
#[test]
fn a_websocket_is_not_silent_before_its_ping_is_written() {
    for still_ms in [35_000, 100_000] {
        let mut server = Server::start(|config| {
            config.ping = Duration::from_secs(40);
            config.writes_per_turn_max = 1;
        });
        let wires = [(); 2].map(|()| server.send(&clients::upgrade("a", "", None)));
        server.turn_for(100);
        let _ = wires.map(|wire| server.receive(wire));
        stands_still(&mut server, 50_000);
        server.turn(0);
        let unasked: Vec<Wire> = wires.into_iter().filter(|&wire| server.receive(wire).is_empty()).collect();
        assert_eq!(unasked.len(), 1, "one of them is written to");
        stands_still(&mut server, still_ms);
        server.turn(0);
        let (after, said) = end_of(&mut server, unasked[0]);
        assert!((40_000..=40_000 + 400).contains(&after), "{after} ms, and it was asked {said:?}");
    }
}

/// A turn reads so many bytes and no more: a pong that waits to be read is no silence.
#[test]
fn a_websocket_is_not_silent_whose_pong_is_not_read_yet() {
    let mut server = Server::start(|config| {
        config.ping = Duration::from_secs(40);
        config.publish_bytes_per_turn_max = 1000;
    });
    let [busy, well] = [(); 2].map(|()| server.send(&clients::upgrade("a", "", None)));
    server.turn_for(100);
    stands_still(&mut server, 50_000);
    server.turn(0);
    stands_still(&mut server, 100_000);
    server.kernel().send(busy, &clients::client_frame(clients::TEXT, &[b'x'; 2 * KIB]));
    server.kernel().send(well, &clients::client_frame(clients::PONG, b""));
    server.turn(0);
    assert!(!server.kernel().is_released(well), "the other one's message was all that this turn read");
    let (after, _) = end_of(&mut server, well);
    assert!((80_000..=120_000 + 400).contains(&after), "{after} ms since it was heard, with pings of 40 s");
}

/// A turn writes to so many and no more. The idle deadline of a client passed before its answer was written:
/// it was ended behind it, without a word, and what it asked next was thrown away.
#[test]
fn a_connection_is_not_idle_while_its_answer_waits_to_be_written() {
    let mut server = Server::start(|config| {
        config.idle_timeout = Duration::from_secs(20);
        config.head_timeout = Duration::from_secs(20);
        config.writes_per_turn_max = 1;
    });
    let wires = [(); 2].map(|()| server.send(b""));
    for wire in wires {
        server.kernel().send(wire, &clients::post("a", "", "", b"first"));
    }
    server.turn(0);
    let [first, other] = wires.map(|wire| server.receive(wire));
    assert!(first.starts_with("HTTP/1.1 200") && other.is_empty(), "one of them is written to: {other}");
    stands_still(&mut server, 30_000);
    server.turn(0);
    server.kernel().send(wires[1], &clients::post("a", "", "", b"second"));
    server.turn_for(100);
    assert_eq!(server.statuses(wires[1]), ["200", "200"]);
    assert_eq!(server.stats().head, 3);
}

/// A turn reads so much and no more. The idle deadline of a client passed before its next request was read:
/// it had asked, and was not idle.
#[test]
fn a_connection_is_not_idle_while_its_request_waits_to_be_read() {
    let mut server = Server::start(|config| {
        config.idle_timeout = Duration::from_secs(20);
        config.publish_bytes_per_turn_max = 1;
    });
    let wires = [(); 2].map(|()| server.send(&clients::post("a", "", "", b"first")));
    server.turn_for(100);
    stands_still(&mut server, 30_000);
    for wire in wires {
        assert_eq!(server.statuses(wire), ["200"]);
        server.kernel().send(wire, &clients::post("a", "", "", b"second"));
    }
    server.turn(0);
    assert_eq!(server.stats().head, 3, "one of them is read");
    server.turn_for(100);
    for wire in wires {
        assert_eq!(server.statuses(wire), ["200"]);
    }
}

/// Ctrl-Z and `fg`: the wait is interrupted and tells nothing, and by the clock everybody's time is over. So
/// it told of no more than 1024 before. Connections were ended with whole requests in the kernel.
#[test]
fn what_came_while_the_process_was_stopped_came_in_time() {
    let publish = clients::post("a", "", "", b"in time");
    for tells_few in [false, true] {
        for cut in [0, 1, 20, publish.len() - 7, publish.len() - 1] {
            let mut server = start();
            let wires = [(); 10].map(|()| server.send(&healthz()));
            server.turn_for(100);
            for wire in wires {
                assert_eq!(server.statuses(wire), ["200"]);
                server.kernel().send(wire, &publish[..cut]);
            }
            server.turn_for(100);
            for wire in wires {
                server.kernel().send(wire, &publish[cut..]);
            }
            server.kernel().faults.odds[Fault::FewEvents as usize] = u32::from(tells_few);
            server.kernel().stops.push_back(60_000);
            server.turn(100);
            server.turn_for(100);
            for wire in wires {
                assert_eq!(server.statuses(wire), ["200"], "{cut} bytes came before; tells few: {tells_few}");
            }
        }
    }
}

/// Nor is a message late whose rest has come.
#[test]
fn a_message_that_came_while_the_process_was_stopped_came_in_time() {
    let mut server = start();
    let wire = server.send(&clients::upgrade("a", "", None));
    server.turn_for(100);
    let message = clients::client_frame(clients::TEXT, b"in time");
    server.kernel().send(wire, &message[..9]);
    server.turn_for(100);
    server.kernel().send(wire, &message[9..]);
    server.kernel().stops.push_back(60_000);
    server.turn(100);
    server.turn_for(100);
    let said = server.receive(wire);
    assert!(!server.kernel().is_released(wire) && said.contains("in time\""), "{said}");
}

/// A turn reads so much and no more. Whose rest waits for its turn is not late; but it has no more time than
/// that takes.
#[test]
fn nobody_is_late_whose_rest_waits_to_be_read() {
    let start = || {
        Server::start(|config| {
            config.body_timeout = Duration::from_secs(7);
            config.publish_bytes_per_turn_max = 1;
        })
    };
    let publish = clients::post("a", "", "", b"in time");
    for cut in [1, 20, publish.len() - 1] {
        let mut server = start();
        let wires = [(); 3].map(|()| server.send(&publish[..cut]));
        server.turn_for(100);
        stands_still(&mut server, 60_000);
        for (nth, &wire) in wires.iter().enumerate() {
            // The last one's is not all.
            server.kernel().send(wire, &publish[cut..][..if nth < 2 { publish.len() - cut } else { 0 }]);
        }
        let incomplete = wires[2];
        server.turn(0);
        assert!(server.stats().head < 2, "a turn reads one");
        server.turn_for(200);
        assert_eq!(wires.map(|wire| server.statuses(wire)), [["200"], ["200"], ["408"]], "{cut}");
        assert!(server.kernel().ending(incomplete).is_some());
    }

    let message = clients::client_frame(clients::TEXT, b"in time");
    let mut server = start();
    let wires = [(); 3].map(|()| server.send(&clients::upgrade("a", "", None)));
    server.turn_for(100);
    for wire in wires {
        server.kernel().send(wire, &message[..9]);
    }
    server.turn_for(100);
    stands_still(&mut server, 60_000);
    for (nth, &wire) in wires.iter().enumerate() {
        server.kernel().send(wire, &message[9..][..if nth < 2 { message.len() - 9 } else { 1 }]);
    }
    server.turn_for(200);
    let said = wires.map(|wire| server.receive(wire).contains("the message did not end in time"));
    assert_eq!(said, [false, false, true]);
    assert_eq!(server.stats().head, 2);
}

/// RFC 9112 2.2: an empty line before a request is ignored. Clients that end a body with one were told 408,
/// ten seconds later, of a request that they had not begun.
#[test]
fn an_empty_line_begins_no_request() {
    let publish = clients::post("a", "", "", b"x");
    for behind in ["\r", "\r\n"] {
        let mut server = start();
        let wire = server.send(&[&publish, behind.as_bytes()].concat());
        server.turn_for(100);
        assert_eq!(server.statuses(wire), ["200"]);
        assert_ends(&mut server, wire, 19_900, "");

        // The first head has its time from accept.
        let wire = server.send(behind.as_bytes());
        assert_ends(&mut server, wire, 4000, "");

        // What comes behind it is one, with its time from its first byte.
        let wire = server.send(&[&publish, behind.as_bytes()].concat());
        server.turn_for(6000);
        server.kernel().send(wire, &[&b"\r\n"[behind.len()..], &publish].concat());
        server.turn_for(100);
        assert_eq!(server.statuses(wire), ["200", "200"]);
        server.kernel().send(wire, b"\r\nP");
        assert_ends(&mut server, wire, 4000, "request_timeout");
    }
}

/// The process is stopped: time passes, and no turn.
fn stands_still(server: &mut Server, ms: u64) {
    let end_ms = server.kernel().now_ms() + ms;
    while server.kernel().now_ms() < end_ms {
        let left_ms = end_ms - server.kernel().now_ms();
        server.kernel().wait(Some(Duration::from_millis(left_ms)), &mut Vec::new()).expect("no fault");
    }
}
