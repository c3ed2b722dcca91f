//! A server that leaves spreads its clients' return: no second of the drain time ends more than
//! twice the mean, or the next server meets a herd. In virtual time, over the fake kernel.

mod clients;
mod kernel;

use std::time::Duration;

use kernel::{Kernel, Wire};
use tidings::internals::{Config, EventLoop, Parts};

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
