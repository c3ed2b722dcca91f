//! A burst of one turn reaches every healthy subscriber whole, however short the history.
//!
//! History is trimmed after the flush, never before: with `history-messages` 0 nothing outlives
//! its turn, and still nobody who keeps up is told a gap.

mod clients;
mod kernel;

use std::time::Duration;

use clients::{Format, Heard, Reader, Transport};
use kernel::{Kernel, Wire};
use tidings::internals::{Config, EventLoop, Parts};

const BURST: usize = 32;

struct Subscriber {
    name: &'static str,
    wire: Wire,
    reader: Reader,
    payloads: Vec<String>,
}

fn subscribe(
    kernel: &mut Kernel,
    name: &'static str,
    transport: Transport,
    format: Format,
    bytes: &[u8],
) -> Subscriber {
    let wire = kernel.connect();
    kernel.send(wire, bytes);
    Subscriber { name, wire, reader: Reader::new(transport, format), payloads: Vec::new() }
}

fn subscribers(kernel: &mut Kernel) -> Vec<Subscriber> {
    use Format::{Json, Raw};
    use Transport::{Poll, Sse, WebSocket};
    let sse = "Accept: text/event-stream\r\n";
    vec![
        subscribe(kernel, "SSE raw", Sse, Raw, &clients::get("a", "", sse)),
        subscribe(kernel, "SSE json", Sse, Json, &clients::get("a", "?format=json", sse)),
        subscribe(kernel, "WebSocket", WebSocket, Json, &clients::upgrade("a", "", None)),
        subscribe(kernel, "WebSocket, two channels", WebSocket, Json, &clients::upgrade("b,a", "", None)),
        subscribe(kernel, "WebSocket tidings.v1", WebSocket, Json, &clients::upgrade("a", "", Some("tidings.v1"))),
        subscribe(kernel, "WebSocket tidings.raw", WebSocket, Raw, &clients::upgrade("a", "", Some("tidings.raw"))),
        // One held answer takes the whole burst: all messages after its cursor.
        subscribe(kernel, "long poll", Poll, Json, &clients::get("a", "", "")),
        subscribe(kernel, "long poll, two channels", Poll, Json, &clients::get("a,b", "", "")),
    ]
}

/// Publishes the burst as one read of pipelined requests, and turns until all is quiet.
fn burst(history_messages: usize, adjust: impl Fn(&mut Config)) -> (EventLoop<Kernel>, Vec<Subscriber>) {
    let mut config = Config::default();
    config.history_messages = history_messages;
    adjust(&mut config);
    let mut engine =
        EventLoop::new(Kernel::new(1), config, Parts::default()).expect("the names of the configuration are names");
    let mut subscribers = subscribers(engine.os());
    turn(&mut engine, &mut subscribers);
    assert!(subscribers.iter().all(|subscriber| subscriber.payloads.is_empty()));

    let publisher = engine.os().connect();
    let requests: Vec<u8> =
        (0..BURST).flat_map(|nth| clients::post("a", "", "", format!("m{nth}").as_bytes())).collect();
    assert_eq!(engine.os().send(publisher, &requests), requests.len());
    turn(&mut engine, &mut subscribers);

    let answers = engine.os().receive(publisher, usize::MAX);
    let accepted = answers.windows(15).filter(|window| window == b"HTTP/1.1 200 OK").count();
    assert_eq!(accepted, BURST, "{}", String::from_utf8_lossy(&answers));
    (engine, subscribers)
}

/// Turns until nothing is left to do; everybody reads everything after every turn.
fn turn(engine: &mut EventLoop<Kernel>, subscribers: &mut [Subscriber]) {
    for _ in 0..200 {
        engine.turn(Some(Duration::from_millis(1))).expect("the kernel has no faults");
        engine.check_invariants();
        for subscriber in &mut *subscribers {
            let bytes = engine.os().receive(subscriber.wire, usize::MAX);
            for heard in subscriber.reader.receive(&bytes).expect("the server speaks the protocol") {
                match heard {
                    Heard::Message(message) => {
                        subscriber.payloads.push(String::from_utf8(message.payload).expect("the payloads are text"));
                    }
                    Heard::Cursor(_) | Heard::Alive | Heard::Ping(_) | Heard::Done(None) => {}
                    other => panic!("{} heard {other:?}", subscriber.name),
                }
            }
        }
    }
}

fn assert_all_have_all(subscribers: &[Subscriber]) {
    let expected: Vec<String> = (0..BURST).map(|nth| format!("m{nth}")).collect();
    for subscriber in subscribers {
        assert_eq!(subscriber.payloads, expected, "{}", subscriber.name);
    }
}

#[test]
fn every_subscriber_gets_the_whole_burst() {
    for history_messages in [0, 1, 31, 32] {
        let (_, subscribers) = burst(history_messages, |_| {});
        assert_all_have_all(&subscribers);
    }
}

#[test]
fn also_if_each_turn_may_write_to_one_connection_only() {
    for history_messages in [0, 1] {
        let (_, subscribers) = burst(history_messages, |config| config.writes_per_turn_max = 1);
        assert_all_have_all(&subscribers);
    }
}

#[test]
fn also_if_history_may_hold_no_byte() {
    let (_, subscribers) = burst(1000, |config| config.history_bytes = 0);
    assert_all_have_all(&subscribers);
}

#[test]
fn a_burst_is_one_write_per_subscriber() {
    let (mut engine, subscribers) = burst(1000, |_| {});
    for subscriber in &subscribers {
        // The answer's head or first frame, and the burst.
        let writes = engine.os().writes(subscriber.wire);
        assert!(writes <= 3, "{}: {writes} writes for {BURST} messages of one turn", subscriber.name);
    }
}

#[test]
fn a_message_that_nobody_waits_for_is_gone_after_its_turn() {
    let (mut engine, _) = burst(0, |_| {});
    let mut late = [subscribe(
        engine.os(),
        "late",
        Transport::Poll,
        Format::Json,
        &clients::get("a", "?after=earliest&wait=0", ""),
    )];
    turn(&mut engine, &mut late);
    assert_eq!(late[0].payloads, Vec::<String>::new());
}
