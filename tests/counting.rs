//! What things cost, counted: sends and allocations of a delivery, allocations of a request, bytes
//! of whoever waits. No time is measured, so the figures are the same on every machine.
//!
//! The whole event loop runs over a system that is a table: its reads give prepared bytes, its writes
//! are counted and thrown away, and while it is measured it allocates nothing. Bytes are what the
//! server asks its allocator for. What that takes on top is in docs/performance.md, with the
//! kernel's time.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use allocation_counter::measure;
use tidings::internals::{Config, Event, EventLoop, Now, Os, Parts, Process};
use tidings::{Access, App, Inbound, Operation, Reaction, Request};

/// The first connection publishes; what it gets is counted apart.
const PUBLISHER: usize = 0;
const PAYLOAD: [u8; 128] = [b'x'; 128];
/// So many, for a table that doubles as it grows is nearly full then, as on the whole it is in resident
/// memory: room that was never touched does not count there.
const CROWD: usize = 16_000;

macro_rules! upgrade {
    ($lines:literal) => {
        concat!(
            "GET /channels/{set} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            $lines,
            "\r\n"
        )
    };
}

/// What each kind of stream first says.
const STREAMS: [(&str, &str); 5] = [
    ("SSE raw", "GET /channels/{set}?transport=sse HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("SSE json", "GET /channels/{set}?transport=sse&format=json HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("WebSocket json", upgrade!("")),
    ("WebSocket raw", upgrade!("Sec-WebSocket-Protocol: tidings.raw\r\n")),
    ("WebSocket tidings.v1", upgrade!("Sec-WebSocket-Protocol: tidings.v1\r\n")),
];
const POLL: &str = "GET /channels/{set}?wait=120 HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";

// Sends.

#[test]
fn a_message_is_one_send_for_each_subscriber() {
    for (name, request) in STREAMS.into_iter().chain([("long poll", POLL)]) {
        let mut server = audience(request, 1000);
        let before = server.os_ref().sends;
        publish(&mut server, 1);
        assert_eq!(server.os_ref().sends - before, 1000, "{name}: sends for 1000 deliveries");
    }
}

#[test]
fn ten_messages_of_one_turn_are_one_send_for_each_subscriber() {
    for (name, request) in STREAMS.into_iter().chain([("long poll", POLL)]) {
        let mut server = audience(request, 1000);
        let before = server.os_ref().sends;
        publish(&mut server, 10);
        assert_eq!(server.os_ref().sends - before, 1000, "{name}: sends for 10,000 deliveries");
    }
}

// Allocations.

#[test]
fn a_delivery_to_a_stream_allocates_nothing() {
    for (name, request) in STREAMS {
        let few = allocations_of_a_publish(request, 1);
        let many = allocations_of_a_publish(request, 1000);
        assert_eq!(many, few, "{name}: allocations of a publish to 1000 subscribers, and to one");
        eprintln!("{name}: a publish allocates {many} times");
        assert!(many <= 4, "{name}: a publish allocates {many} times");
    }
}

/// The tenth publish, when buffers and tables have grown.
fn allocations_of_a_publish(request: &str, subscribers: usize) -> u64 {
    let mut server = audience(request, subscribers);
    (0..9).for_each(|_| publish(&mut server, 1));
    measure(|| publish(&mut server, 1)).count_total
}

#[test]
fn a_request_on_a_connection_that_is_kept_allocates_nothing() {
    let mut server = empty(Config::default(), None);
    (0..10).for_each(|_| say(&mut server, HEALTH.as_bytes()));
    let (before, counted) = (
        server.os_ref().sends_to_publisher,
        measure(|| {
            (0..100).for_each(|_| say(&mut server, HEALTH.as_bytes()));
        }),
    );
    assert_eq!(server.os_ref().sends_to_publisher - before, 100);
    assert_eq!(counted.count_total, 0, "allocations of 100 requests");
}

#[test]
fn echoes_allocate_nothing_and_those_of_one_read_are_one_send() {
    struct Echo;
    impl App for Echo {
        fn upgrade(&mut self, _: &Request<'_>) -> Option<Access> {
            Some(Access::Allow)
        }
        fn message(&mut self, _: &Inbound<'_>) -> Reaction {
            Reaction::Echo
        }
    }
    let parts = Parts { app: Some(Box::new(Echo)), ..Parts::default() };
    let mut server = EventLoop::new(Table::default(), Config::default(), parts).expect("the policy is empty");
    let (_, websocket) = STREAMS[2];
    arrive(&mut server, vec![websocket.replace("/channels/{set}", "/echo").into_bytes()]);
    // Masked, by a mask that changes nothing.
    let small = [&[0x81, 0x80 | 125, 0, 0, 0, 0][..], &[b'x'; 125]].concat();
    let large = [&[0x81, 0x80 | 126, 0x40, 0, 0, 0, 0, 0][..], &[b'x'; 16 * 1024]].concat();
    for (said, echoed) in [(small, 127), (large.repeat(8), 8 * (4 + 16 * 1024))] {
        (0..10).for_each(|_| say(&mut server, &said));
        let table = server.os_ref();
        let before = (table.sends_to_publisher, table.bytes_to_publisher);
        let counted = measure(|| {
            (0..100).for_each(|_| say(&mut server, &said));
        });
        let table = server.os_ref();
        assert_eq!(table.bytes_to_publisher - before.1, 100 * echoed, "every echo was written");
        assert_eq!(table.sends_to_publisher - before.0, 100, "sends for 100 reads of {} bytes", said.len());
        assert_eq!(counted.count_total, 0, "allocations of 100 reads of {} bytes", said.len());
    }
}

// Bytes.

#[test]
fn whoever_waits_for_messages_takes_160_bytes() {
    for (name, request) in STREAMS.into_iter().chain([("long poll", POLL)]) {
        let bytes = bytes_of_each(vec![with_set(request, "a"); CROWD]);
        eprintln!("{name}: {bytes:.1} bytes");
        assert!(bytes <= 160.0, "{name}: {bytes:.1} bytes");
    }
}

#[test]
fn whoever_is_kept_between_requests_takes_128_bytes() {
    let bytes = bytes_of_each(vec![HEALTH.into(); CROWD]);
    eprintln!("kept alive: {bytes:.1} bytes");
    assert!(bytes <= 128.0, "{bytes:.1} bytes");
}

#[test]
fn a_further_channel_of_a_subscriber_takes_24_bytes() {
    let set = |further: usize| (0..=further).map(|nth| format!("a{nth}")).collect::<Vec<_>>().join(",");
    for (name, request) in STREAMS.into_iter().chain([("long poll", POLL)]) {
        let bytes = |further| bytes_of_each(vec![with_set(request, &set(further)); CROWD]);
        let each = (bytes(9) - bytes(1)) / 8.0;
        eprintln!("{name}, a further channel: {each:.1} bytes");
        assert!(each <= 24.0, "{name}: {each:.1} bytes");
    }
}

/// Who it is by the embedder's word; whoever is just let in pays nothing for the others.
#[test]
fn a_number_of_the_embedders_takes_8_bytes() {
    struct Knows(Access);
    impl App for Knows {
        fn authorize(&mut self, _: &Request<'_>, _: Operation, _: &[&str]) -> Access {
            self.0.clone()
        }
    }
    for (name, request) in STREAMS.into_iter().chain([("long poll", POLL)]) {
        let bytes = |access| {
            let server = empty(Config::default(), Some(Box::new(Knows(access))));
            bytes_of_each_in(server, vec![with_set(request, "a"); CROWD])
        };
        let (unknown, known) = (bytes(Access::Allow), bytes(Access::AllowAs(7)));
        eprintln!("{name}: {:.1} bytes more", known - unknown);
        assert!(unknown <= 160.0 && known - unknown <= 9.0, "{name}: {unknown:.1} and {known:.1} bytes");
    }
}

#[test]
fn a_kept_message_takes_96_bytes_beyond_its_payload() {
    let mut config = Config::default();
    config.history_messages = CROWD;
    let mut server = empty(config, None);
    // A turn's room is not a message's.
    publish(&mut server, 10);
    let counted = measure(|| (0..CROWD / 10 - 1).for_each(|_| publish(&mut server, 10)));
    let each = counted.bytes_current as f64 / (CROWD - 10) as f64 - PAYLOAD.len() as f64;
    eprintln!("a kept message: {each:.1} bytes");
    assert!(each <= 96.0, "{each:.1} bytes");
}

/// With a name of 16 bytes, and one subscriber, who has 64 of them; a 64th of who that is is among it.
#[test]
fn a_quiet_channel_takes_300_bytes() {
    let (_, request) = STREAMS[0];
    let names = |nth: usize| (0..64).map(|of| format!("quiet-{:010}", 64 * nth + of)).collect::<Vec<_>>().join(",");
    let each = bytes_of_each((0..CROWD / 64).map(|nth| with_set(request, &names(nth))).collect()) / 64.0;
    eprintln!("a quiet channel: {each:.1} bytes");
    assert!(each <= 300.0, "{each:.1} bytes");
}

/// What is still allocated for each of them when they have all arrived, a message after them, and
/// the polls that it answered have come again.
fn bytes_of_each(requests: Vec<Vec<u8>>) -> f64 {
    bytes_of_each_in(empty(Config::default(), None), requests)
}

fn bytes_of_each_in(mut server: EventLoop<Table>, requests: Vec<Vec<u8>>) -> f64 {
    let count = requests.len();
    let is_poll = requests[0].windows(5).any(|bytes| bytes == b"wait=");
    server.os().prepare(requests);
    let counted = measure(|| {
        rest(&mut server);
        publish(&mut server, 1);
        if is_poll {
            server.os().say_again();
            rest(&mut server);
        }
    });
    counted.bytes_current as f64 / count as f64
}

// The server, and the system under it.

/// A server with a publisher.
fn empty(config: Config, app: Option<Box<dyn App>>) -> EventLoop<Table> {
    let parts = Parts { app, ..Parts::default() };
    let mut server = EventLoop::new(Table::default(), config, parts).expect("the policy is empty");
    arrive(&mut server, vec![HEALTH.into()]);
    server
}

/// A server with a publisher and so many subscribers of channel `a`.
fn audience(request: &str, subscribers: usize) -> EventLoop<Table> {
    let mut server = empty(Config::default(), None);
    arrive(&mut server, vec![with_set(request, "a"); subscribers]);
    server
}

fn with_set(request: &str, set: &str) -> Vec<u8> {
    request.replace("{set}", set).into_bytes()
}

fn arrive(server: &mut EventLoop<Table>, requests: Vec<Vec<u8>>) {
    server.os().prepare(requests);
    rest(server);
}

/// So many messages to channel `a`, in one turn.
fn publish(server: &mut EventLoop<Table>, messages: usize) {
    let post = b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 128\r\n\r\n";
    let table = server.os();
    for _ in 0..messages {
        table.said.extend_from_slice(post);
        table.said.extend_from_slice(&PAYLOAD);
    }
    table.events.push(readable(PUBLISHER));
    rest(server);
}

/// The publisher says this.
fn say(server: &mut EventLoop<Table>, bytes: &[u8]) {
    server.os().said.extend_from_slice(bytes);
    server.os().events.push(readable(PUBLISHER));
    rest(server);
}

/// Turns until nothing is left to do.
fn rest(server: &mut EventLoop<Table>) {
    loop {
        let turn = server.turn(Some(Duration::ZERO)).expect("a table waits for nothing");
        let table = server.os_ref();
        if !turn.more && table.events.is_empty() && table.is_unread.len() == table.requests.len() {
            return;
        }
    }
}

fn readable(index: usize) -> Event {
    Event::Socket { index: index as u32, readable: true, writable: true, read_closed: false }
}

/// Sockets whose other ends say one thing each, take every byte at once, and stay.
#[derive(Default)]
struct Table {
    /// By index, what each says; those beyond `is_unread` are not accepted yet.
    requests: Vec<Vec<u8>>,
    is_unread: Vec<bool>,
    /// What the publisher says besides.
    said: Vec<u8>,
    events: Vec<Event>,
    sends: u64,
    sends_to_publisher: u64,
    bytes_to_publisher: u64,
}

impl Table {
    /// More connections come. All room that they need here is there afterwards.
    fn prepare(&mut self, requests: Vec<Vec<u8>>) {
        self.requests.extend(requests);
        self.is_unread.reserve(self.requests.len());
        self.events.reserve(2 * self.requests.len());
        self.said.reserve(10 * 256);
        self.events.push(Event::Listener(0));
    }

    /// All but the publisher say it once more.
    fn say_again(&mut self) {
        for index in PUBLISHER + 1..self.requests.len() {
            self.is_unread[index] = true;
            self.events.push(readable(index));
        }
    }
}

impl Os for Table {
    fn wait(&mut self, _: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        // As many as the real system tells of at once.
        events.extend(self.events.drain(..self.events.len().min(1024)));
        Ok(())
    }

    /// Time stands still: no heartbeat, no ping, no end of a message's age.
    fn now(&mut self) -> Now {
        Now { monotonic_ms: 1000, wall_ms: 1_764_000_000_000 }
    }

    fn elapsed_us(&mut self) -> u64 {
        0
    }

    fn process(&mut self) -> Process {
        Process::default()
    }

    fn random(&mut self) -> u64 {
        0x9e37_79b9_7f4a_7c15
    }

    fn accept(&mut self, _: usize, index: u32) -> io::Result<Option<IpAddr>> {
        if self.is_unread.len() == self.requests.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        assert_eq!(index as usize, self.is_unread.len(), "nobody leaves, so indexes are dense");
        self.is_unread.push(true);
        self.events.push(readable(index as usize));
        Ok(None)
    }

    fn refuse(&mut self, _: usize, _: &[u8]) -> io::Result<()> {
        unreachable!("there is no end of descriptors");
    }

    fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        let index = index as usize;
        let is_first = std::mem::take(&mut self.is_unread[index]);
        let bytes = match index {
            _ if is_first => &self.requests[index],
            PUBLISHER if !self.said.is_empty() => &self.said,
            _ => return Err(io::ErrorKind::WouldBlock.into()),
        };
        let length = bytes.len();
        buffer[..length].copy_from_slice(bytes);
        if !is_first {
            self.said.clear();
        }
        Ok(length)
    }

    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<usize> {
        if index as usize == PUBLISHER {
            self.sends_to_publisher += 1;
            self.bytes_to_publisher += bytes.len() as u64;
        } else {
            self.sends += 1;
        }
        Ok(bytes.len())
    }

    fn shutdown_write(&mut self, index: u32) {
        panic!("{index} has nothing to be refused for");
    }

    fn close(&mut self, index: u32) {
        panic!("{index} has nothing to be refused for");
    }

    fn close_listeners(&mut self) {}
}
