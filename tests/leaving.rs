//! A server that leaves spreads its clients' return: no second of the drain time ends more than
//! twice the mean, or the next server meets a herd. In virtual time, over the fake kernel.

mod clients;
mod kernel;

use std::sync::Arc;
use std::time::Duration;

use clients::{Format, Heard, Reader, Transport};
use kernel::{Kernel, Wire};
use tidings::internals::{Command, Commands, Config, EventLoop, Parts};

const EACH: usize = 5_000;
const DRAIN_SECONDS: usize = 10;

#[test]
fn the_ends_are_spread_over_the_drain_time() {
    let mut config = Config::default();
    config.drain = Duration::from_secs(DRAIN_SECONDS as u64);
    let mut server =
        EventLoop::new(Kernel::new(1), config, Parts::default()).expect("the names of the configuration are names");
    let requests = [
        clients::get("a", "?wait=120", ""),
        clients::get("a", "", "Accept: text/event-stream\r\n"),
        clients::upgrade("a", "", None),
    ];
    let mut wires: Vec<(usize, Wire)> = Vec::new();
    for (transport, request) in requests.iter().enumerate() {
        for _ in 0..EACH {
            let wire = server.os().connect();
            assert_eq!(server.os().send(wire, request), request.len());
            wires.push((transport, wire));
        }
    }
    let subscribed = |server: &mut EventLoop<Kernel>| {
        let stats = server.engine().stats();
        [stats.polls, stats.event_streams, stats.websockets]
    };
    while subscribed(&mut server) != [EACH; 3] {
        server.turn(Some(Duration::ZERO)).expect("the kernel has no faults");
        assert!(server.engine().stats().turns < 10_000, "everybody is subscribed soon");
    }

    server.drain();
    let start_ms = server.os().now_ms();
    let mut bins = [[0; DRAIN_SECONDS + 1]; 3];
    let mut left = wires;
    let mut stopped = false;
    while !stopped {
        stopped = server.turn(Some(Duration::from_millis(50))).expect("the kernel has no faults").stopped;
        let second = ((server.os().now_ms() - start_ms) / 1000) as usize;
        left.retain(|&(transport, wire)| {
            let bytes = server.os().receive(wire, usize::MAX);
            // A WebSocket's end is its close frame: the server waits for the client's.
            let told = transport == 2 && bytes.windows(2).any(|bytes| bytes == 1012_u16.to_be_bytes());
            let ended = told || server.os().ending(wire).is_some();
            if ended {
                bins[transport][second.min(DRAIN_SECONDS)] += 1;
                server.os().close_client(wire);
            }
            !ended
        });
    }
    println!("ends per second, long poll, SSE, WebSocket: {bins:?}");
    assert_eq!(left.len(), 0, "everybody was told to go");
    for bins in bins {
        assert_eq!(bins.iter().sum::<usize>(), EACH);
        let mean = EACH / DRAIN_SECONDS;
        assert!(bins.iter().all(|&count| count <= 2 * mean), "{bins:?}");
        // A spread that uses a part of the time only is none.
        assert!(bins[..DRAIN_SECONDS].iter().all(|&count| count >= mean / 2), "{bins:?}");
    }
}

/// protocol: What was answered 200 before is first written to every subscriber that reads in time
///
/// A publish and the wish to leave may come in one turn, in this order. The subscriber whose moment to go
/// was that very turn was sent away before the publish was committed, and it was answered 200.
#[test]
fn what_came_in_the_turn_of_the_wish_to_leave_is_still_delivered() {
    for transport in [Transport::Poll, Transport::Sse, Transport::WebSocket] {
        let commands = Arc::new(Commands::new(16, 1 << 20, Box::new(|| {})));
        let parts = Parts { commands: Arc::clone(&commands), ..Parts::default() };
        // Everybody's moment is at once.
        let mut config = Config::default();
        config.drain = Duration::ZERO;
        config.drain_grace = Duration::from_secs(1);
        let mut server =
            EventLoop::new(Kernel::new(1), config, parts).expect("the names of the configuration are names");
        let request = match transport {
            Transport::Poll => clients::get("a", "?wait=120", ""),
            Transport::Sse => clients::get("a", "?format=json", "Accept: text/event-stream\r\n"),
            Transport::WebSocket => clients::upgrade("a", "", None),
        };
        let wire = server.os().connect();
        server.os().send(wire, &request);
        for _ in 0..3 {
            server.turn(Some(Duration::ZERO)).expect("the kernel has no faults");
        }
        commands.push(Command::Publish("a".into(), "the last".into(), None)).expect("there is room");
        commands.push(Command::Drain).expect("there is room");
        for _ in 0..3 {
            server.turn(Some(Duration::from_millis(10))).expect("the kernel has no faults");
        }
        let bytes = server.os().receive(wire, usize::MAX);
        let heard = Reader::new(transport, Format::Json).receive(&bytes).expect("as the standards have it");
        let is_the_last = |heard: &Heard| matches!(heard, Heard::Message(message) if message.payload == b"the last");
        let message = heard.iter().position(is_the_last);
        let end = heard.iter().position(|heard| matches!(heard, Heard::Done(_)));
        assert!(message.is_some_and(|message| end.is_some_and(|end| message < end)), "{transport:?}: {heard:?}");
    }
}
