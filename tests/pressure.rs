//! Each limit that all clients share, spent by some: what they are told, that the others go on as
//! if nothing were, and that everything comes back by itself when the pressure ends.
//!
//! `history-*` is in `gaps.rs` and `bursts.rs`, connections in `accept.rs`, memory in `memory.rs`.

mod clients;
mod kernel;
mod peers;

use std::time::Duration;

use kernel::Wire;
use peers::{Healthy, KIB, Publisher, Server};
use tidings::internals::{Command, Config};
use tidings::{Publication, PublishError};

/// A server, one healthy client over each transport, and their publisher.
struct Scene {
    server: Server,
    healthy: Vec<Healthy>,
    publisher: Publisher,
}

impl Scene {
    fn start(adjust: impl FnOnce(&mut Config)) -> Scene {
        let mut server = Server::start(adjust);
        let healthy = Healthy::of_each_kind(&mut server);
        let publisher = Publisher::start(&mut server);
        server.turn_for(100);
        Scene { server, healthy, publisher }
    }

    /// The healthy hear the next message, all of them.
    #[track_caller]
    fn assert_well(&mut self) {
        self.publisher.step(&mut self.server);
        self.server.turn_for(300);
        assert_eq!(self.publisher.answered(&mut self.server), 1);
        for client in &mut self.healthy {
            client.step(&mut self.server);
            assert_eq!(client.heard, self.publisher.published);
        }
    }
}

/// Unfinished WebSocket messages and waiting commands spend the same budget as requests.
#[test]
fn intake_is_shared_by_requests_messages_and_commands() {
    let mut scene = Scene::start(|config| config.intake_bytes_max = 300 * KIB);
    let large = clients::client_frame(clients::BINARY, &[b'x'; 120 * KIB]);
    let server = &mut scene.server;
    let mut unfinished: Vec<Wire> = Vec::new();
    for _ in 0..2 {
        let wire = server.send(&clients::upgrade("x", "", None));
        server.turn_for(50);
        server.kernel().send(wire, &large[..110 * KIB]);
        server.turn_for(50);
        unfinished.push(wire);
    }
    let request = server.send(&clients::post("x", "", "", &[b'x'; 120 * KIB])[..110 * KIB]);
    server.turn_for(50);
    let answer = server.receive(request);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"busy\""), "{answer}");
    let socket = server.send(&clients::upgrade("x", "", None));
    server.turn_for(50);
    server.receive(socket);
    server.kernel().send(socket, &large[..110 * KIB]);
    server.turn_for(50);
    assert!(server.receive(socket).contains("\u{3}\u{fffd}the server holds too many"), "1013");
    scene.assert_well();

    // One of them is finished, and there is room for one.
    let server = &mut scene.server;
    server.kernel().send(unfinished[0], &large[110 * KIB..]);
    server.turn_for(50);
    let request = server.send(&clients::post("x", "", "", &[b'x'; 100 * KIB])[..90 * KIB]);
    server.turn_for(50);
    assert_eq!(server.receive(request), "", "it is let in");
    for wire in [request, unfinished[1], socket] {
        server.kernel().reset(wire);
    }
    server.turn_for(50);
    assert_eq!(server.stats().intake_bytes, 0);
    scene.assert_well();
}

/// What a client sends behind a poll that is held is kept; if it may not be, the poll says so.
#[test]
fn a_held_poll_is_told_that_what_stands_behind_it_is_too_much() {
    let mut scene = Scene::start(|config| config.intake_bytes_max = 8 * KIB);
    let server = &mut scene.server;
    let poll = server.send(&clients::get("x", "", ""));
    server.turn_for(50);
    server.kernel().send(poll, &clients::post("x", "", "", &[b'x'; 12 * KIB]));
    server.turn_for(50);
    let answer = server.receive(poll);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"busy\""), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert_eq!(server.stats().intake_bytes, 0);
    scene.assert_well();
}

/// A command behind a publish that is not settled waits; it used to be counted nowhere.
#[test]
fn a_command_that_waits_is_counted() {
    let mut scene = Scene::start(|config| config.intake_bytes_max = 64 * KIB);
    let server = &mut scene.server;
    let socket = server.send(&clients::upgrade("x", "", Some("tidings.v1")));
    server.turn_for(50);
    server.receive(socket);
    // `unsubscribe` may not overtake the publish before it, and waits with all its bytes.
    let mut frames = clients::client_frame(clients::TEXT, b"publish x\nfirst");
    let long = ["unsubscribe ", &"y".repeat(100 * KIB)].concat();
    frames.extend(clients::client_frame(clients::TEXT, long.as_bytes()));
    assert_eq!(server.kernel().send(socket, &frames), frames.len());
    server.turn_for(50);
    let heard = server.receive(socket);
    assert!(heard.contains("the server holds too many"), "1013: {heard:?}");
    assert_eq!(server.stats().intake_bytes, 0);
    scene.assert_well();
}

/// Polls with large answers that nobody reads: the longest-blocked end, newer ones stay, and whoever
/// is blocked without holding anything stays however long it has been.
#[test]
fn output_is_taken_back_from_who_holds_it_for_longest() {
    let mut scene = Scene::start(|config| {
        config.output_bytes_max = 512 * KIB;
        config.stall_timeout = Duration::from_secs(600);
        config.poll_bytes_max = 128 * KIB;
    });
    let server = &mut scene.server;
    server.kernel().send_buffer = 4 * KIB;
    // Streams in the middle of a message that is kept: blocked first of all, and they hold nothing.
    let innocent: Vec<Wire> = (0..20).map(|_| server.kernel().connect()).collect();
    for &wire in &innocent {
        server.kernel().send(wire, &clients::get("big", "?transport=sse", ""));
    }
    server.turn_for(50);
    let publisher = server.send(&clients::post("big", "", "", &[b'x'; 100 * KIB]));
    server.turn_for(50);
    assert_eq!(server.statuses(publisher), ["200"]);
    let mut greedy: Vec<Wire> = Vec::new();
    for _ in 0..10 {
        let wire = server.kernel().connect();
        server.kernel().send(wire, &clients::get("big", "?after=earliest&wait=0", ""));
        server.turn_for(200);
        assert!(server.stats().output_bytes <= 512 * KIB);
        greedy.push(wire);
    }
    let ended = |server: &mut Server, wires: &[Wire]| -> Vec<bool> {
        wires.iter().map(|&wire| server.kernel().is_released(wire)).collect()
    };
    assert!(ended(server, &innocent).iter().all(|ended| !ended), "to end them would free nothing");
    let ends = ended(server, &greedy);
    let count = ends.iter().filter(|ended| **ended).count();
    assert!((5..=8).contains(&count), "{count} of 10");
    assert!(ends.is_sorted_by(|a, b| a >= b), "the longest-blocked: {ends:?}");
    scene.assert_well();

    // Those that were blocked read on and get the rest; then nothing is held.
    let server = &mut scene.server;
    for &wire in greedy.iter().chain(&innocent) {
        let mut bytes = 0;
        for _ in 0..200 {
            bytes += server.kernel().receive(wire, usize::MAX).len();
            server.turn(1);
        }
        assert!(server.kernel().is_released(wire) || bytes > 100 * KIB, "{bytes} bytes");
    }
    assert_eq!(server.stats().output_bytes, 0);
    scene.assert_well();
}

/// What one read brought may be answered by one write, 256 KiB; but of who takes nothing 64 KiB wait.
#[test]
fn a_websocket_that_takes_nothing_is_read_no_further() {
    let mut scene = Scene::start(|_| {});
    let server = &mut scene.server;
    server.kernel().send_buffer = 4 * KIB;
    let wire = server.kernel().connect();
    server.kernel().send(wire, &clients::upgrade("news", "", Some("tidings.v1")));
    server.turn_for(50);
    // Each is answered by an error of more than a hundred bytes.
    let wrong = [0x81, 0x80 | 2, 0, 0, 0, 0, b'{', b'}'];
    let commands = 10_000;
    let said = wrong.repeat(commands);
    let mut sent = 0;
    for length in [KIB].into_iter().chain([4 * KIB; 15]) {
        sent += server.kernel().send(wire, &said[sent..sent + length]);
        server.turn_for(50);
    }
    let waiting = server.stats().output_bytes;
    // The room they wait in doubles as it fills.
    assert!((64 * KIB..128 * KIB).contains(&waiting), "{waiting} bytes");
    scene.assert_well();

    let server = &mut scene.server;
    let mut told = Vec::new();
    for _ in 0..10_000 {
        sent += server.kernel().send(wire, &said[sent..]);
        server.turn_for(1);
        told.extend(server.kernel().receive(wire, usize::MAX));
    }
    let answers = told.windows(9).filter(|window| *window == b"\"error\":{").count();
    assert_eq!(answers, commands, "in the end each is answered");
}

/// Messages that are evicted while somebody is in the middle of them count too.
#[test]
fn halves_of_evicted_messages_are_output() {
    let mut scene = Scene::start(|config| {
        config.output_bytes_max = 300 * KIB;
        config.stall_timeout = Duration::from_secs(600);
        config.history_messages = 1;
    });
    let server = &mut scene.server;
    server.kernel().send_buffer = 4 * KIB;
    let publisher = server.send(b"");
    let mut readers: Vec<Wire> = Vec::new();
    // Each is in the middle of a message of its own.
    for _ in 0..8 {
        let wire = server.kernel().connect();
        server.kernel().send(wire, &clients::get("big", "?transport=sse", ""));
        server.turn_for(50);
        server.kernel().send(publisher, &clients::post("big", "", "", &[b'x'; 90 * KIB]));
        server.turn_for(100);
        assert!(server.stats().output_bytes <= 300 * KIB);
        readers.push(wire);
    }
    let ended: Vec<bool> = readers.iter().map(|&wire| server.kernel().is_released(wire)).collect();
    assert_eq!(ended, [true, true, true, true, false, false, false, false], "the longest-blocked go");
    scene.assert_well();
    let server = &mut scene.server;
    readers.iter().for_each(|&wire| server.kernel().reset(wire));
    server.turn_for(50);
    assert_eq!(server.stats().output_bytes, 0);
}

/// protocol: bounded in number (oldest go first
#[test]
fn the_oldest_idempotency_keys_go_first() {
    let mut scene = Scene::start(|config| config.idempotency_keys_max = 3);
    let server = &mut scene.server;
    let client = server.send(b"");
    let mut publish = |key: usize| {
        server.kernel().send(client, &clients::post("x", "", &format!("Idempotency-Key: k{key}\r\n"), b"same"));
        server.turn_for(50);
        let answer = server.receive(client);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.contains("Idempotent-Replayed: true")
    };
    for key in 0..5 {
        assert!(!publish(key), "{key} is new");
    }
    for (key, known) in [(4, true), (3, true), (2, true), (1, false), (1, true), (2, false)] {
        assert_eq!(publish(key), known, "{key}");
    }
    scene.assert_well();
}

/// Another thread that publishes faster than the loop turns is told so, and may go on after a turn.
#[test]
fn commands_of_other_threads_wait_in_a_bounded_queue() {
    for (commands_max, bytes, room) in [(4, 10, 4), (1000, 100 * KIB, 5)] {
        let mut scene = Scene::start(|config| {
            config.commands_max = commands_max;
            config.intake_bytes_max = 512 * KIB;
        });
        let push = |scene: &Scene| {
            let publication = Publication::from(vec![b'x'; bytes]);
            scene.server.commands.push(Command::Publish("x".into(), publication, None))
        };
        for _ in 0..3 {
            for nth in 0..room {
                assert!(push(&scene).is_ok(), "{nth} of {room}");
            }
            assert_eq!(push(&scene), Err(PublishError::Full));
            scene.server.turn_for(50);
        }
        assert_eq!(scene.server.stats().head, 3 * room as u64);
        scene.assert_well();
    }
}

/// Every channel has a subscriber: a stream is asked to come back, a WebSocket's command and message
/// are refused; all of it works once one has gone.
#[test]
fn channels_that_are_all_in_use_are_refused_in_the_way_of_each_transport() {
    let mut scene = Scene::start(|config| config.channels_max = 3);
    let server = &mut scene.server;
    let holder = server.send(&clients::get("b", "?transport=sse", ""));
    let commands = server.send(&clients::upgrade("c", "", Some("tidings.v1")));
    server.turn_for(50);
    server.receive(commands);
    let stream = server.send(&clients::get("d", "?transport=sse", ""));
    server.kernel().send(commands, &clients::client_frame(clients::TEXT, b"subscribe d ref=1"));
    server.kernel().send(commands, &clients::client_frame(clients::TEXT, b"publish d ref=2\nx"));
    server.turn_for(50);
    let answer = server.receive(stream);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("retry: ") && answer.ends_with("0\r\n\r\n"));
    let heard = server.receive(commands);
    assert_eq!(heard.matches("\"channels_full\"").count(), 2, "{heard}");
    scene.assert_well();
    let server = &mut scene.server;
    server.kernel().reset(holder);
    server.turn_for(50);
    server.kernel().send(commands, &clients::client_frame(clients::TEXT, b"subscribe d ref=3"));
    server.turn_for(50);
    let heard = server.receive(commands);
    assert!(heard.contains("\"subscribed\":[\"c\",\"d\"]"), "{heard}");
    scene.assert_well();
}
