//! Thousands that trickle or do not read, beside one that is well. What is counted is turns and
//! writes until the healthy one has what it wants: the same number with them as without.

mod clients;
mod kernel;
mod peers;

use std::time::Duration;

use kernel::Wire;
use peers::{KIB, Server, healthz};

/// What a trickler sends at once, and then byte by byte.
fn tricklers() -> Vec<(&'static str, Vec<u8>, &'static [u8])> {
    let upgrade = clients::upgrade("x", "", None);
    let with = |behind: &[u8]| [&upgrade[..], behind].concat();
    let post = "POST /channels/x HTTP/1.1\r\nHost: localhost\r\n";
    vec![
        ("heads", b"GET /healthz HTTP/1.1\r\nX: ".to_vec(), b"x"),
        ("bodies", format!("{post}Content-Length: 50000\r\n\r\n").into_bytes(), b"x"),
        ("chunks", format!("{post}Transfer-Encoding: chunked\r\n\r\n").into_bytes(), b"1\r\nx\r\n"),
        ("frames", with(b"\x82\xfe\xff\xff\0\0\0\0"), b"x"),
        ("fragments", with(b"\x02\x80\0\0\0\0"), b"\x00\x81\0\0\0\0x"),
        ("handshakes", upgrade[..upgrade.len() - 30].to_vec(), b"x"),
    ]
}

#[test]
fn two_thousand_tricklers_do_not_delay_a_healthy_client() {
    const TRICKLERS: usize = 2000;
    for (name, begin, rest) in tricklers() {
        let mut server = Server::start(|_| {});
        let healthy = server.send(&healthz());
        let mut subscriber = server.send(&clients::get("a", "?transport=sse", ""));
        server.turn_for(100);
        server.receive(healthy);
        let mut turns = Vec::new();
        let mut slow: Vec<Wire> = Vec::new();
        for round in 0..10 {
            // Without them, then with them, each sending in the same moment.
            if round == 1 {
                slow = (0..TRICKLERS).map(|_| server.kernel().connect()).collect();
                for &wire in &slow {
                    server.kernel().send(wire, &begin);
                }
                server.turn_for(1000);
            }
            for &wire in &slow {
                let nth = (round - 1) % rest.len();
                server.kernel().send(wire, &rest[nth..=nth]);
            }
            server.kernel().send(healthy, &clients::post("a", "", "", b"news"));
            let answered = server.turns_until(healthy, "\"id\"");
            let delivered = if server.receive(subscriber).contains("data: news") { answered } else { usize::MAX };
            turns.push((answered, delivered));
            server.turn_for(500);
        }
        assert!(turns.iter().all(|turn| *turn == turns[0]), "{name}: (answered, delivered) in turns: {turns:?}");

        // Each is ended by its own deadline, though it goes on.
        for second in 0..120 {
            for &wire in &slow {
                let nth = (9 + second) % rest.len();
                server.kernel().send(wire, &rest[nth..=nth]);
                server.kernel().receive(wire, usize::MAX);
                if server.kernel().ending(wire).is_some() {
                    server.kernel().half_close(wire);
                }
            }
            server.turn_for(1000);
            if server.kernel().is_released(subscriber) {
                subscriber = server.send(&clients::get("a", "?transport=sse", ""));
            }
        }
        let left = slow.iter().filter(|&&wire| !server.kernel().is_released(wire)).count();
        assert_eq!(left, 0, "{name} are still there");
        assert_eq!(server.stats().intake_bytes, 0, "{name}");
    }
}

/// 5,000 that subscribe and never read. The healthy one is written to as soon and as often; the
/// stalled ones cost what their cursors cost, and each ends by a gap or by the stall timeout.
#[test]
fn five_thousand_stalled_readers_do_not_delay_a_healthy_one() {
    const STALLED: usize = 5000;
    let mut counted = Vec::new();
    for stalled in [0, STALLED] {
        let mut server = Server::start(|config| {
            config.history_messages = 20;
            config.stall_timeout = Duration::from_secs(20);
        });
        let healthy = server.send(&clients::get("a", "?transport=sse", ""));
        let publisher = server.send(b"");
        server.kernel().send_buffer = 4 * KIB;
        let requests = [clients::get("a", "?transport=sse&format=json", ""), clients::upgrade("a", "", None)];
        let slow: Vec<Wire> = (0..stalled).map(|_| server.kernel().connect()).collect();
        for (&wire, request) in slow.iter().zip(requests.iter().cycle()) {
            server.kernel().send(wire, request);
        }
        server.turn_for(2000);
        server.receive(healthy);
        // Until every one of them is blocked.
        for _ in 0..8 {
            server.kernel().send(publisher, &clients::post("a", "", "", &[b'x'; KIB]));
            server.turn_for(500);
        }
        server.receive(healthy);
        server.receive(publisher);
        let before = server.kernel().writes(healthy);
        let writes_to_slow =
            |server: &mut Server| -> u64 { slow.iter().map(|&wire| server.kernel().writes(wire)).sum() };
        let slow_before = writes_to_slow(&mut server);
        let mut turns = Vec::new();
        for nth in 0..20 {
            let payload = format!("message {nth}");
            server.kernel().send(publisher, &clients::post("a", "", "", payload.as_bytes()));
            turns.push(server.turns_until(healthy, &payload));
        }
        counted.push((turns, server.kernel().writes(healthy) - before));
        assert_eq!(writes_to_slow(&mut server), slow_before, "nobody writes to who is blocked");
        let stats = server.stats();
        assert!(stats.output_bytes <= 64 * KIB, "own bytes and evicted halves: {stats:?}");

        // A tenth of them read on, and are told what they lost; the others are ended.
        let (awake, asleep) = slow.split_at(stalled / 10);
        let mut gaps = 0;
        for _ in 0..40 {
            for &wire in awake {
                gaps += server.receive(wire).matches("\"reason\":\"evicted\"").count();
            }
            server.turn_for(500);
        }
        assert_eq!(gaps, awake.len(), "each is told once");
        assert!(asleep.iter().all(|&wire| server.kernel().is_released(wire)), "the others are ended");
        assert_eq!(server.stats().output_bytes, 0);
    }
    assert_eq!(counted[0], counted[1], "(turns until each delivery, writes), without and with {STALLED} stalled");
}

/// A held poll's answer is made when its turn comes, and what its reader does not take is kept for
/// it. So many large ones are made over several turns, in whichever way they are made.
#[test]
fn large_answers_that_nobody_reads_share_a_turn_out() {
    const POLLS: usize = 300;
    const MADE_PER_TURN_MAX: usize = 16 << 20;
    for (name, query) in [("shared", ""), ("alone", "?format=raw")] {
        let mut server = Server::start(|config| config.output_bytes_max = 1 << 30);
        let subscriber = server.send(&clients::get("a", "?transport=sse", ""));
        for _ in 0..POLLS {
            let poll = server.kernel().connect();
            server.turn(0);
            server.kernel().send(poll, &clients::get("a", query, ""));
        }
        let publisher = server.send(b"");
        server.turn_for(100);
        server.receive(subscriber);
        let before = server.stats();
        assert_eq!(before.polls, POLLS);
        server.kernel().send(publisher, &clients::post("a", "", "", &[b'x'; 200 * KIB]));
        // One answer may go over the share.
        let made_max = MADE_PER_TURN_MAX / (100 * KIB);
        let (mut held, mut turns) = (POLLS, 0);
        while held > 0 {
            server.turn(50);
            server.turns.check_invariants();
            turns += 1;
            let left = server.turns.engine().stats().polls;
            assert!(held - left <= made_max, "{name}: {} answers in one turn", held - left);
            assert!(turns < 100, "{name}: {left} wait for ever");
            held = left;
        }
        assert!(server.receive(publisher).contains("\"id\""), "{name}");
        assert!(turns > 2, "{name}: {turns}");
        server.turn_for(1000);
        assert!(server.receive(subscriber).contains("data: x"), "{name}: the others are served too");
    }
}
