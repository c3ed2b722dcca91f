//! The server at its real work: thousands of real sockets, and many threads beside the loop.
//!
//! Reading is blocking and one client after the other: what a client has not read yet waits in
//! the kernel, so it takes no thread or poll of its own.

mod common;

use std::sync::mpsc;

use common::http::Client;
use common::sse::EventStream;
use common::websocket::WebSocket;
use common::{PATIENCE, TestServer};

/// An id and its data.
type Message = (String, String);

/// Five thousand subscribers need ten thousand descriptors: both ends are in this process.
fn allow_descriptors() {
    #[cfg(all(unix, feature = "cli"))]
    {
        let limit = rlimit::increase_nofile_limit(20_000).expect("a limit of descriptors");
        assert!(limit >= 12_000, "these tests need 12,000 descriptors (ulimit -n), there are {limit}");
    }
}

#[test]
fn five_thousand_over_three_transports_get_the_same_messages_once_and_in_order() {
    const EACH: usize = 1667;
    allow_descriptors();
    let server = TestServer::start();
    let mut streams: Vec<EventStream> = (0..EACH).map(|_| server.sse("/channels/c")).collect();
    let mut sockets: Vec<WebSocket> = (0..EACH).map(|_| server.websocket("/channels/c", &[])).collect();
    let held = server.request("GET", "/channels/c?wait=120");
    let mut polls: Vec<Client> = (0..EACH).map(|_| held.start()).collect();
    for (kind, count) in [("sse", EACH), ("websocket", EACH), ("poll", EACH)] {
        server.until_subscribed("c", kind, count);
    }

    let expected: Vec<Message> = (0..20)
        .map(|nth| {
            let data = format!("message {nth}");
            (server.publish("c", &data), data)
        })
        .collect();

    for stream in &mut streams {
        let received: Vec<Message> = expected
            .iter()
            .map(|_| stream.next_event().expect("an event"))
            .map(|event| (event.id, event.data))
            .collect();
        assert_eq!(received, expected, "SSE");
    }
    for socket in &mut sockets {
        assert!(!socket.next_json()["cursor"].str().is_empty(), "the first frame");
        let received: Vec<Message> = expected.iter().map(|_| message(&socket.next_json())).collect();
        assert_eq!(received, expected, "WebSocket");
    }
    for poll in &mut polls {
        let mut received = Vec::new();
        loop {
            let answer = poll.response("GET").json();
            received.extend(answer["messages"].array().iter().map(message));
            if received.len() >= expected.len() {
                break;
            }
            let again = format!("/channels/c?wait=120&after={}", answer["cursor"].str());
            poll.send(server.request("GET", &again).bytes());
        }
        assert_eq!(received, expected, "long poll");
    }
    // Whoever got a message twice would have it in front of this one.
    let last = (server.publish("c", "last"), "last".to_owned());
    for (stream, socket) in streams.iter_mut().zip(&mut sockets) {
        let event = stream.next_event().expect("an event");
        assert_eq!((event.id, event.data), last);
        assert_eq!(message(&socket.next_json()), last);
    }
}

fn message(object: &common::json::Value) -> Message {
    (object["id"].str().to_owned(), object["data"].str().to_owned())
}

/// A slow reader has no queue of its own, only its cursor: memory is the history's, however many
/// stall.
#[cfg(all(target_os = "linux", feature = "cli"))]
#[test]
fn a_thousand_stalled_readers_cost_no_memory_and_harm_nobody() {
    use common::http::Request;
    use common::websocket::Frame;

    const STALLED: usize = 1000;
    const MESSAGES: usize = 40;
    const MESSAGE_BYTES: usize = 256 * 1024;
    allow_descriptors();
    let server = common::program::Program::start(&["--history-bytes", "8MiB", "--stall-timeout", "10m"]);
    let request = |target: &str| Request::new(server.address, "GET", target);
    let sse = request("/channels/c?transport=sse");
    let upgrade = WebSocket::handshake(request("/channels/c"));
    let mut stalled: Vec<Client> =
        (0..STALLED).map(|nth| if nth % 2 == 0 { sse.start() } else { upgrade.start() }).collect();
    for client in &mut stalled {
        assert!(matches!(client.response_head().status, 200 | 101));
    }

    // Those that read: they have each message before the next is published.
    let mut stream = EventStream::open(request("/channels/c?transport=sse"));
    let mut socket = WebSocket::open(request("/channels/c"), &["tidings.raw"]).expect("101");
    let tip = Request::new(server.address, "HEAD", "/channels/c").send();
    let mut cursor = tip.header("Tidings-Cursor").expect("HEAD tells the cursor").to_owned();
    let mut poll = Client::connect(server.address);
    let mut publisher = Client::connect(server.address);
    let before = server.resident_bytes();
    for nth in 0..MESSAGES {
        let payload = format!("{nth:08}").repeat(MESSAGE_BYTES / 8);
        poll.send(request(&format!("/channels/c?format=raw&wait=120&after={cursor}")).bytes());
        publisher.send(Request::new(server.address, "POST", "/channels/c").body(&payload).bytes());
        let answer = publisher.response("POST").json();
        let id = answer["id"].str();
        assert!(answer["subscribers"].number() >= (STALLED + 2) as f64, "nobody was closed: {nth}");

        let event = stream.next_event().expect("an event");
        assert_eq!((event.name.as_str(), event.id.as_str()), ("message", id), "no gap");
        assert!(event.data == payload, "{id} is damaged");
        assert!(socket.next_frame() == Some(Frame::Text(payload.clone())), "{id} is damaged or late");
        let polled = poll.response("GET");
        assert_eq!((polled.status, polled.header("Tidings-Gap"), polled.header("Tidings-Id")), (200, None, Some(id)));
        assert!(polled.body == payload.as_bytes(), "{id} is damaged");
        cursor = polled.header("Tidings-Cursor").expect("a cursor").to_owned();
    }
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < 32 * 1024 * 1024, "{growth} bytes for {STALLED} stalled readers");
}

/// Five thousand stalled readers beside a healthy one, and the same without them, in turns. How long
/// a delivery takes is printed, for people; what is asserted is that all arrive and none is a gap.
#[cfg(all(target_os = "linux", feature = "cli"))]
#[test]
fn five_thousand_stalled_readers_and_what_a_delivery_takes_beside_them() {
    use std::time::{Duration, Instant};

    use common::http::Request;
    use common::program::Program;

    const STALLED: usize = 5000;
    const PAIRS: usize = 5;
    const DELIVERIES: usize = 100;
    allow_descriptors();
    let start = || Program::start(&["--history-bytes=4MiB", "--stall-timeout=10m", "--send-buffer-bytes=4KiB"]);
    let programs = [start(), start()];
    let stream = |program: &Program| Request::new(program.address, "GET", "/channels/c?transport=sse");
    let post = |program: &Program, body: &[u8]| Request::new(program.address, "POST", "/channels/c").body(body).bytes();

    let request = stream(&programs[1]);
    let mut stalled: Vec<Client> = (0..STALLED).map(|_| request.start()).collect();
    for client in &mut stalled {
        assert_eq!(client.response_head().status, 200);
    }
    let mut healthy: Vec<EventStream> = programs.iter().map(|program| EventStream::open(stream(program))).collect();
    let mut publishers: Vec<Client> = programs.iter().map(|program| Client::connect(program.address)).collect();
    // More than all buffers of the kernel take: from here on they are blocked.
    let large = vec![b'x'; 200 * 1024];
    for _ in 0..40 {
        for nth in 0..2 {
            publishers[nth].send(post(&programs[nth], &large));
            assert_eq!(publishers[nth].response("POST").status, 200);
            assert_eq!(healthy[nth].next_event().expect("an event").data.len(), large.len());
        }
    }
    let before = programs[1].resident_bytes();

    let mut ratios = Vec::new();
    for _ in 0..PAIRS {
        let mut medians = [Duration::ZERO; 2];
        for nth in 0..2 {
            let mut times: Vec<Duration> = (0..DELIVERIES)
                .map(|count| {
                    let begin = Instant::now();
                    publishers[nth].send(post(&programs[nth], count.to_string().as_bytes()));
                    let event = healthy[nth].next_event().expect("an event");
                    let took = begin.elapsed();
                    assert_eq!((event.name.as_str(), event.data), ("message", count.to_string()));
                    assert_eq!(publishers[nth].response("POST").status, 200);
                    took
                })
                .collect();
            times.sort_unstable();
            medians[nth] = times[DELIVERIES / 2];
        }
        ratios.push(medians[1].as_secs_f64() / medians[0].as_secs_f64());
        println!("median delivery: {:?} alone, {:?} beside {STALLED} stalled", medians[0], medians[1]);
    }
    println!("ratios: {ratios:.2?}");
    let growth = programs[1].resident_bytes().saturating_sub(before);
    assert!(growth < 8 * 1024 * 1024, "{growth} bytes more for {STALLED} stalled readers");
}

const THREADS: usize = 8;

/// One wake however many commands, and not one lost: a loop that sleeps on a lost wake would
/// sleep for `PATIENCE`.
#[test]
fn ten_thousand_publishes_wake_a_sleeping_loop_ten_times() {
    const ROUNDS: usize = 10;
    const EACH: usize = 125;
    let mut server = tidings::Server::bind("127.0.0.1:0", tidings::Config::default()).expect("a free port");
    let handle = server.handle();
    let (sender, published) = mpsc::channel();
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (handle, sender) = (&handle, &sender);
                scope.spawn(move || {
                    for nth in round * EACH..(round + 1) * EACH {
                        let sender = sender.clone();
                        let told = move |result| sender.send((thread, nth, result)).expect("the test listens");
                        handle.publish_then("c", "x", told).expect("room in the queue");
                    }
                });
            }
        });
        assert!(server.turn(Some(PATIENCE)).expect("the loop turns"));
    }
    assert_eq!(wakes(&mut server), ROUNDS as u64);

    let mut next = [0; THREADS];
    for seq in 1..=(ROUNDS * THREADS * EACH) as u64 {
        let (thread, nth, result) = published.try_recv().expect("none missed");
        assert_eq!(nth, next[thread], "the order of one thread is kept");
        next[thread] += 1;
        assert_eq!(result.expect("accepted").id.seq, seq);
    }
    assert!(published.try_recv().is_err(), "each is told once");
}

/// Wakes before those of this question.
fn wakes(server: &mut tidings::Server) -> u64 {
    let handle = server.handle();
    std::thread::scope(|scope| {
        let asked = scope.spawn(move || handle.stats(PATIENCE));
        while !asked.is_finished() {
            server.turn(Some(std::time::Duration::from_millis(1))).expect("the loop turns");
        }
        asked.join().expect("no panic").expect("the loop turns").wakes - 1
    })
}

/// The same while the loop runs and falls asleep between bursts, when it likes.
#[test]
fn no_publish_is_missed_however_the_threads_meet_the_loop() {
    const ROUNDS: usize = 100;
    const EACH: usize = 13;
    let server = TestServer::start();
    let (sender, published) = mpsc::channel();
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                let (handle, sender) = (&server.handle, &sender);
                scope.spawn(move || {
                    for _ in 0..EACH {
                        let sender = sender.clone();
                        let told = move |result| sender.send(result).expect("the test listens");
                        handle.publish_then("c", "x", told).expect("room in the queue");
                    }
                });
            }
        });
        for seq in 1..=(THREADS * EACH) as u64 {
            let result = published.recv_timeout(PATIENCE).expect("no wake is lost");
            assert_eq!(result.expect("accepted").id.seq, (round * THREADS * EACH) as u64 + seq);
        }
    }
    let stats = server.stats();
    assert_eq!(stats.head, (ROUNDS * THREADS * EACH) as u64);
    assert!(stats.wakes <= stats.head + 1, "{stats:?}");
}

/// The queue has room for four: the threads wait for the loop, and for each other.
#[test]
fn whoever_waits_for_a_publish_learns_its_id() {
    const EACH: usize = 250;
    let server = TestServer::start_with(|config| config.commands_max = 4);
    let mut stream = server.sse("/channels/c");
    let mut ids: Vec<(u64, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let handle = &server.handle;
                scope.spawn(move || {
                    let publish = |nth| {
                        let data = format!("{thread}.{nth}");
                        let published = handle.publish_wait("c", data.as_str(), PATIENCE).expect("accepted");
                        assert_eq!(published.subscribers, 1);
                        (published.id.seq, data)
                    };
                    (0..EACH).map(publish).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    ids.sort();
    assert!(ids.iter().map(|(seq, _)| *seq).eq(1..=(THREADS * EACH) as u64), "each number once");
    for (seq, data) in ids {
        let event = stream.next_event().expect("an event");
        assert_eq!((common::parts(&event.id).1, event.data), (seq, data));
    }
}

/// Ctrl-Z and `fg`. SIGCONT interrupts the wait (signal(7)), which then tells nothing; by the clock the
/// connection was idle for too long, and it was ended with a whole request in the kernel.
#[cfg(all(target_os = "linux", feature = "cli"))]
#[test]
fn a_request_that_comes_while_the_process_is_stopped_is_answered() {
    use std::time::Duration;
    const IDLE: Duration = Duration::from_millis(500);
    let program = common::program::Program::start(&["--idle-timeout", "500ms", "--drain", "0"]);
    let request = common::http::Request::new(program.address, "GET", "/healthz");
    loop {
        let mut client = request.start();
        assert_eq!(client.response("GET").status, 200);
        program.wait_for_state('S');
        program.signal("STOP");
        program.wait_for_state('T');
        // It was ended before, if this test itself stood still.
        let is_there = client.is_silent_for(Duration::from_millis(1));
        if is_there {
            client.send(request.bytes());
            assert!(client.is_silent_for(2 * IDLE), "nobody answers");
        }
        program.signal("CONT");
        if is_there {
            assert_eq!(client.response("GET").status, 200);
            break;
        }
    }
    assert_eq!(program.leave().code(), Some(0));
}
