//! `/metrics`: the text is what Prometheus reads, and its numbers are exact.
//!
//! The server runs over the fake kernel, so everything that happens to it is known: what the
//! clients sent and heard is counted here too, and both counts have to agree. The checker of the
//! format is written from Prometheus' "Exposition formats" and "Metric and label naming".

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clients;
mod kernel;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clients::{Format, Heard, Reader, Transport};
use kernel::{Fault, Faults, Kernel, PROCESS, Rng, Wire};
use tidings::Tokens;
use tidings::internals::{Command, Commands, Config, EventLoop, Parts};

// The format.

/// What a scrape says: each series with its value.
#[derive(Debug, Default)]
struct Scrape {
    samples: BTreeMap<String, String>,
    /// Each family with its type and its help, in order.
    families: Vec<(String, String, String)>,
}

impl Scrape {
    /// Reads the text and holds it to every rule of the format.
    fn read(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        assert!(text.ends_with('\n'), "the last line ends too");
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            check_name(name, kind);
            assert!(help.ends_with('.') && !help.contains('\\'), "{help}");
            assert!(scrape.families.iter().all(|(other, ..)| other != name), "{name} comes twice");
            scrape.families.push((name.into(), kind.into(), help.into()));
            let mut samples = Vec::new();
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                let (series, value) = sample.rsplit_once(' ').unwrap();
                let (full, labels) = series_parts(series);
                let suffix = full.strip_prefix(name).unwrap();
                let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.contains(&suffix), "{sample} is no sample of {name}");
                assert!(value.parse::<f64>().unwrap() >= 0.0, "{sample}");
                assert!(scrape.samples.insert(series.into(), value.into()).is_none(), "{series} comes twice");
                samples.push((suffix.to_owned(), labels, value.to_owned()));
            }
            assert!(!samples.is_empty(), "{name} has no sample");
            if kind == "histogram" {
                check_histogram(&samples);
            }
        }
        scrape
    }

    fn get(&self, series: &str) -> u64 {
        let value = self.samples.get(series).unwrap_or_else(|| panic!("there is no {series}"));
        value.parse().unwrap_or_else(|_| panic!("{series} is {value}"))
    }

    /// The sum over all labels.
    fn sum(&self, name: &str) -> u64 {
        self.samples.keys().filter(|series| series_parts(series).0 == name).map(|series| self.get(series)).sum()
    }

    /// What is not 0, of these names.
    fn told(&self, name: &str) -> Vec<(&str, u64)> {
        let of_name = self.samples.keys().filter(|series| series_parts(series).0 == name);
        of_name.map(|series| (series.as_str(), self.get(series))).filter(|&(_, value)| value > 0).collect()
    }
}

fn check_name(name: &str, kind: &str) {
    let legal = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    assert!(name.chars().all(legal) && name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
    assert!(name.starts_with("tidings_") || name.starts_with("process_"), "{name}");
    assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
    assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    for (unit, others) in [("_bytes", ["_kilobytes", "_mib"]), ("_seconds", ["_ms", "_milliseconds"])] {
        assert!(others.iter().all(|other| !name.contains(other)), "{name}: base units only");
        if name.contains(unit) {
            assert!(name.trim_end_matches("_total").ends_with(unit), "{name}: the unit comes last");
        }
    }
}

/// The name of a series and its labels.
fn series_parts(series: &str) -> (&str, Vec<(String, String)>) {
    let Some((name, labels)) = series.split_once('{') else { return (series, Vec::new()) };
    let labels = labels.strip_suffix('}').unwrap().split(',').map(|pair| {
        let (label, value) = pair.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(label.chars().all(|c| c.is_ascii_lowercase()), "{series}");
        assert!(value.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c)), "{series}: a name of ours");
        (label.to_owned(), value.to_owned())
    });
    (name, labels.collect())
}

/// The end of the name, the labels, the value.
type Sample = (String, Vec<(String, String)>, String);

fn check_histogram(samples: &[Sample]) {
    let value = |suffix: &str| &samples.iter().find(|(other, ..)| other == suffix).unwrap().2;
    let mut before = (f64::NEG_INFINITY, 0);
    for (_, labels, count) in samples.iter().filter(|(suffix, ..)| suffix == "_bucket") {
        let [(label, bound)] = &labels[..] else { panic!("{labels:?}") };
        let (bound, count): (f64, u64) = (bound.parse().unwrap(), count.parse().unwrap());
        assert!(label == "le" && bound > before.0 && count >= before.1, "buckets are cumulative: {samples:?}");
        before = (bound, count);
    }
    assert_eq!(before.0, f64::INFINITY, "the last bucket holds everything");
    assert_eq!(before.1.to_string(), *value("_count"));
    assert!(value("_sum").parse::<f64>().unwrap() >= 0.0);
}

// The server.

struct Server {
    event_loop: EventLoop<Kernel>,
    clients: Vec<Client>,
    commands: Arc<Commands>,
    /// What the clients have sent, and what they have got.
    sent: u64,
    got: u64,
    turns: u64,
}

struct Client {
    wire: Wire,
    reader: Option<Reader>,
    messages: u64,
    bytes: Vec<u8>,
    reads: bool,
}

impl Server {
    fn start(adjust: impl FnOnce(&mut Config)) -> Server {
        Server::over(Kernel::new(1), adjust)
    }

    fn over(kernel: Kernel, adjust: impl FnOnce(&mut Config)) -> Server {
        let mut config = Config::default();
        adjust(&mut config);
        let commands = Arc::new(Commands::new(config.commands_max, config.intake_bytes_max, Box::new(|| {})));
        let parts = Parts { commands: Arc::clone(&commands), ..Parts::default() };
        let event_loop = EventLoop::new(kernel, config, parts).unwrap();
        Server { event_loop, clients: Vec::new(), commands, sent: 0, got: 0, turns: 0 }
    }

    fn connect(&mut self) -> usize {
        let wire = self.event_loop.os().connect();
        self.attach(wire)
    }

    fn attach(&mut self, wire: Wire) -> usize {
        self.clients.push(Client { wire, reader: None, messages: 0, bytes: Vec::new(), reads: true });
        self.clients.len() - 1
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        assert_eq!(self.event_loop.os().send(self.clients[client].wire, bytes), bytes.len());
        self.sent += bytes.len() as u64;
    }

    /// Sends a request over a connection of its own and waits until all is quiet.
    fn ask(&mut self, bytes: &[u8]) -> usize {
        let client = self.connect();
        self.send(client, bytes);
        self.settle();
        client
    }

    fn subscribe(&mut self, transport: Transport, bytes: &[u8]) -> usize {
        let client = self.connect();
        self.clients[client].reader = Some(Reader::new(transport, Format::Json));
        self.send(client, bytes);
        self.settle();
        client
    }

    /// Turns until all is quiet; everybody reads.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let more = self.turn(1);
            quiet = if more { 0 } else { quiet + 1 };
        }
    }

    /// One turn that waits at most this long; true if there was something to do.
    fn turn(&mut self, ms: u64) -> bool {
        let mut more = self.event_loop.turn(Some(Duration::from_millis(ms))).unwrap().more;
        self.turns += 1;
        self.event_loop.check_invariants();
        for client in self.clients.iter_mut().filter(|client| client.reads) {
            let bytes = self.event_loop.os().receive(client.wire, usize::MAX);
            more |= !bytes.is_empty();
            self.got += bytes.len() as u64;
            if let Some(reader) = &mut client.reader {
                let heard = reader.receive(&bytes).unwrap();
                client.messages += heard.iter().filter(|heard| matches!(heard, Heard::Message(_))).count() as u64;
            }
            client.bytes.extend(bytes);
        }
        more
    }

    /// Lets virtual time pass.
    fn pass(&mut self, ms: u64) {
        let end = self.event_loop.os().now_ms() + ms;
        while self.event_loop.os().now_ms() < end {
            let left = end - self.event_loop.os().now_ms();
            self.turn(left);
        }
    }

    fn answer(&self, client: usize) -> String {
        String::from_utf8(self.clients[client].bytes.clone()).unwrap()
    }

    /// `GET /metrics`, over a connection of its own that stays.
    fn scrape(&mut self) -> Scrape {
        let client = self.ask(GET);
        self.scraped(client)
    }

    /// What the one answer of a client says.
    fn scraped(&self, client: usize) -> Scrape {
        let answer = self.answer(client);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        Scrape::read(body)
    }
}

fn keyed(key: &str, body: &[u8]) -> Vec<u8> {
    clients::post("a", "", &format!("Idempotency-Key: {key}\r\n"), body)
}

fn id(answer: &str) -> (u64, u64) {
    let (_, rest) = answer.split_once("{\"id\":\"").unwrap();
    let (epoch, seq) = rest.split_once('"').unwrap().0.split_once('-').unwrap();
    (epoch.parse().unwrap(), seq.parse().unwrap())
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SSE: &str = "Accept: text/event-stream\r\n";

/// protocol: `/metrics` | the loop turns; accepting work (503 while draining or the log is away); Prometheus text
#[test]
fn a_known_run_has_known_numbers() {
    let mut server = Server::start(|config| config.idempotency_keys_max = 1);
    server.event_loop.os().reading_us = 70;
    let websocket = server.subscribe(Transport::WebSocket, &clients::upgrade("a", "", None));
    let sse = server.subscribe(Transport::Sse, &clients::get("a", "?format=json", SSE));
    let poll = server.subscribe(Transport::Poll, &clients::get("a", "", ""));
    let before = server.scrape();
    assert_eq!(
        before.told("tidings_connections"),
        [
            ("tidings_connections{transport=\"none\"}", 1),
            ("tidings_connections{transport=\"poll\"}", 1),
            ("tidings_connections{transport=\"sse\"}", 1),
            ("tidings_connections{transport=\"websocket\"}", 1),
        ]
    );

    // Five messages; the poll hears the first, and asks for the rest once they are there.
    let publisher = server.connect();
    for nth in 0..5 {
        server.send(publisher, &clients::post("a", "", "", format!("message {nth}").as_bytes()));
        server.settle();
    }
    let (epoch, first) = id(&server.answer(publisher));
    server.send(poll, &clients::get("a", &format!("?after={epoch}-{first}"), ""));
    server.settle();
    for client in [websocket, sse, poll] {
        assert_eq!(server.clients[client].messages, 5);
    }
    // One gap, of a cursor from the future: everything kept follows.
    let lost = server.subscribe(Transport::Sse, &clients::get("a", &format!("?format=json&after={epoch}-99"), SSE));
    assert_eq!(server.clients[lost].messages, 5);
    // A poll from the oldest on; and two refusals.
    server.ask(&clients::get("a", "?after=earliest&wait=0", ""));
    server.ask(&clients::post("a%20b", "", "", b""));
    server.ask(&clients::get("a", "?wait=x", ""));
    // A key that is replayed, and one that drops it before its time.
    server.ask(&keyed("one", b"again"));
    server.ask(&keyed("one", b"again"));
    server.ask(&keyed("two", b"other"));
    // A client that leaves.
    server.event_loop.os().close_client(server.clients[publisher].wire);
    server.settle();

    let (sent, got, turns) = (server.sent, server.got, server.turns);
    let scrape = server.scrape();
    for (name, want) in [
        ("tidings_messages_published_total", 7),
        ("tidings_messages_replayed_total", 1),
        ("tidings_messages_kept", 7),
        ("tidings_head", 7),
        ("tidings_epoch", epoch),
        ("tidings_channels", 1),
        ("tidings_channels_max", 100_000),
        ("tidings_history_max_bytes", 64 << 20),
        ("tidings_intake_bytes", 0),
        ("tidings_output_bytes", 0),
        ("tidings_intake_max_bytes", 64 << 20),
        ("tidings_output_max_bytes", 64 << 20),
        ("tidings_connections_accepted_total", 13),
        ("tidings_connections_max", 100_000),
        ("tidings_idempotency_keys", 1),
        ("tidings_idempotency_keys_max", 1),
        ("tidings_idempotency_keys_dropped_total", 1),
        ("tidings_draining", 0),
        ("tidings_wakes_total", 0),
        ("process_resident_memory_bytes", PROCESS.resident_bytes.unwrap()),
        ("process_open_fds", PROCESS.descriptors.unwrap()),
        ("process_max_fds", PROCESS.descriptors_max.unwrap()),
        // Every byte; of the scrape itself, the request is read and the answer not written yet.
        ("tidings_sent_bytes_total", got),
        ("tidings_received_bytes_total", sent + GET.len() as u64),
    ] {
        assert_eq!(scrape.get(name), want, "{name}");
    }
    for (name, want) in [
        ("tidings_build_info", vec![(concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1)]),
        (
            "tidings_connections",
            vec![("{transport=\"none\"}", 9), ("{transport=\"sse\"}", 2), ("{transport=\"websocket\"}", 1)],
        ),
        ("tidings_connections_closed_total", vec![("{reason=\"peer_closed\"}", 1)]),
        ("tidings_requests_total", vec![("", 18)]),
        ("tidings_refusals_total", vec![("{code=\"bad_channel\"}", 1), ("{code=\"bad_wait\"}", 1)]),
        (
            "tidings_subscriptions_total",
            vec![
                ("{transport=\"poll\",start=\"earliest\"}", 1),
                ("{transport=\"poll\",start=\"exact\"}", 1),
                ("{transport=\"poll\",start=\"new\"}", 1),
                ("{transport=\"sse\",start=\"gap\"}", 1),
                ("{transport=\"sse\",start=\"new\"}", 1),
                ("{transport=\"websocket\",start=\"new\"}", 1),
            ],
        ),
        ("tidings_gaps_total", vec![("{reason=\"future\"}", 1)]),
        (
            "tidings_deliveries_total",
            vec![("{transport=\"poll\"}", 10), ("{transport=\"sse\"}", 14), ("{transport=\"websocket\"}", 7)],
        ),
        ("tidings_limit_reached_total", vec![]),
    ] {
        let want: Vec<(String, u64)> =
            want.into_iter().map(|(labels, value)| (format!("{name}{labels}"), value)).collect();
        let told: Vec<(String, u64)> =
            scrape.told(name).into_iter().map(|(series, value)| (series.into(), value)).collect();
        assert_eq!(told, want);
    }
    // The clock of this kernel makes every turn 70 microseconds long. The turn of the scrape is
    // not over when it is answered.
    let finished = scrape.get("tidings_turn_seconds_count");
    assert!((turns..turns + 3).contains(&finished), "{turns} turns, {finished} counted");
    assert_eq!(scrape.get("tidings_turn_seconds_bucket{le=\"0.00005\"}"), 0);
    assert_eq!(scrape.get("tidings_turn_seconds_bucket{le=\"0.0001\"}"), finished);
    assert_eq!(scrape.samples["tidings_turn_seconds_sum"], format!("0.{:06}", finished * 70));
    assert_eq!(scrape.samples["tidings_turn_longest_seconds"], "0.000070");
    assert_eq!(scrape.samples["process_cpu_seconds_total"], "1.234567");
    assert_eq!(scrape.samples["process_start_time_seconds"], "1763999999.500000");

    let series = |scrape: &Scrape| scrape.samples.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(series(&Server::start(|_| {}).scrape()), series(&scrape), "every series is there from the start");
}

#[test]
fn no_label_names_a_channel() {
    let mut server = Server::start(|_| {});
    server.subscribe(Transport::Sse, &clients::get("a.secret.name", "?format=json", SSE));
    server.ask(&clients::post("a.secret.name", "?event=another.secret", "Content-Type: text/third\r\n", b"x"));
    let scrape = server.scrape();
    assert_eq!(scrape.get("tidings_deliveries_total{transport=\"sse\"}"), 1);
    for series in scrape.samples.keys() {
        assert!(!series.contains("secret") && !series.contains("third"), "{series}");
    }
}

/// Once for all who read it: by whatever windows, and in a form of its own for those who want only
/// the payload. What is short is not compressed, and nothing is for who did not offer it.
#[cfg(feature = "deflate")]
#[test]
fn a_compressed_message_is_counted_once_for_all() {
    let mut server = Server::start(|_| {});
    let offer = |window_bits| Some(clients::Offer { window_bits });
    for (protocol, offer) in [(None, offer(None)), (None, offer(Some(15))), (None, None), (Some("tidings.raw"), None)] {
        server.ask(&clients::upgrade_with("a", "", protocol, offer));
    }
    for (length, want) in [(511, 0), (512, 1), (5000, 2)] {
        server.ask(&clients::post("a", "", "", &vec![b'x'; length]));
        assert_eq!(server.scrape().get("tidings_messages_compressed_total"), want, "{length} bytes");
    }
    server.ask(&clients::upgrade_with("a", "", Some("tidings.raw"), offer(None)));
    server.ask(&clients::post("a", "", "", &[b'x'; 512]));
    assert_eq!(server.scrape().get("tidings_messages_compressed_total"), 4, "as an object, and alone");
}

/// protocol: bounded in number (oldest go first, counted in the metrics)
#[test]
fn keys_that_go_before_their_time_are_counted() {
    let mut server = Server::start(|config| config.idempotency_keys_max = 2);
    for nth in 0..5 {
        server.ask(&keyed(&format!("key {nth}").replace(' ', "-"), b"x"));
    }
    let scrape = server.scrape();
    assert_eq!(scrape.get("tidings_idempotency_keys"), 2);
    assert_eq!(scrape.get("tidings_idempotency_keys_dropped_total"), 3);
    // The oldest has gone: the same again is published again.
    server.ask(&keyed("key-0", b"x"));
    assert_eq!(server.scrape().get("tidings_messages_published_total"), 6);
    server.ask(&keyed("key-4", b"x"));
    assert_eq!(server.scrape().get("tidings_messages_published_total"), 6);
}

/// By whatever way it came, and whoever is told.
#[test]
fn each_message_that_is_refused_is_counted() {
    let mut server = Server::start(|config| {
        config.tokens.allow_publish("publish", "").unwrap();
        config.drain = Duration::from_secs(3600);
        config.drain_grace = Duration::from_secs(3600);
    });
    let scrape = |server: &mut Server, code: &str| {
        let client = server.ask(b"GET /metrics?token=publish HTTP/1.1\r\nHost: localhost\r\n\r\n");
        server.scraped(client).get(&format!("tidings_refusals_total{{code=\"{code}\"}}"))
    };
    let message = |bytes: &[u8]| clients::client_frame(clients::TEXT, bytes);
    for (nth, (protocol, bytes)) in
        [(None, &b"x"[..]), (Some("tidings.raw"), b"x"), (Some("tidings.v1"), b"publish a\nx")].into_iter().enumerate()
    {
        let client = server.ask(&clients::upgrade("a", "", protocol));
        server.send(client, &message(bytes));
        server.settle();
        assert_eq!(scrape(&mut server, "token_required"), nth as u64 + 1, "{protocol:?}");
    }

    let publisher = server.ask(&clients::upgrade("a", "?token=publish", None));
    server.event_loop.drain();
    let commands = Arc::clone(&server.commands);
    let publish = move |callback| commands.push(Command::Publish("a".into(), "x".into(), callback)).unwrap();
    publish(None);
    server.settle();
    assert_eq!(scrape(&mut server, "draining"), 1, "of a thread that does not ask");
    publish(Some(Box::new(|result| assert!(result.is_err()))));
    server.settle();
    assert_eq!(scrape(&mut server, "draining"), 2, "of one that does");
    server.send(publisher, &message(b"x"));
    server.settle();
    assert_eq!(scrape(&mut server, "draining"), 3, "of a WebSocket");
}

#[test]
fn a_scrape_keeps_its_place_among_the_requests() {
    let get = GET;
    let head = b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let close = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let post = clients::post("a", "", "", b"x");
    let poll = clients::get("a", "?after=earliest&wait=0", "");
    let cases: [(&[&[u8]], &[&str]); 6] = [
        (&[&post, get, &post], &["id", "metrics 1", "id"]),
        (&[get, &post, &post, get], &["metrics 0", "id", "id", "metrics 2"]),
        (&[get, get, &poll], &["metrics 0", "metrics 0", "poll"]),
        (&[head, &post, head, get], &["head", "id", "head", "metrics 1"]),
        (&[&post, close, &post], &["id", "metrics 1"]),
        (&[b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n"], &["metrics 0"]),
    ];
    for (requests, want) in cases {
        let whole = requests.concat();
        // At once, and cut at every byte of it.
        for cut in (0..whole.len()).step_by(7) {
            let mut server = Server::start(|_| {});
            let client = server.connect();
            server.send(client, &whole[..cut]);
            server.settle();
            // Behind the last answer of a connection nothing is taken in.
            let wire = server.clients[client].wire;
            server.event_loop.os().send(wire, &whole[cut..]);
            server.settle();
            let answer = server.answer(client);
            let answers: Vec<String> = answer
                .split("HTTP/1.1 ")
                .skip(1)
                .map(|answer| {
                    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                    assert!(head.starts_with("200 "), "{head}");
                    match body.split_once("\ntidings_messages_published_total ") {
                        Some((_, rest)) => format!("metrics {}", rest.lines().next().unwrap()),
                        None if body.starts_with("{\"id\"") => "id".into(),
                        None if body.starts_with("{\"cursor\"") => "poll".into(),
                        None if body.is_empty() => "head".into(),
                        None => panic!("{body}"),
                    }
                })
                .collect();
            assert_eq!(answers, want, "cut at {cut}");
        }
    }
}

#[test]
fn a_client_that_is_gone_before_its_answer_harms_nobody() {
    for gone in [Kernel::reset, Kernel::close_client, Kernel::half_close] {
        let mut server = Server::start(|_| {});
        let client = server.connect();
        server.send(client, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\nGET /metrics");
        let wire = server.clients[client].wire;
        gone(server.event_loop.os(), wire);
        server.settle();
        assert_eq!(server.scrape().sum("tidings_connections_closed_total"), 1);
    }
}

/// Clients come, ask, half-send and go while the kernel does what it does on a bad day.
#[test]
fn counters_never_fall_and_add_up_whatever_fails() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let mut kernel = Kernel::new(seed);
        kernel.faults = Faults::drawn(&mut rng);
        (kernel.send_buffer, kernel.receive_buffer) = (rng.pick(&[300, 64 * 1024]), 64 * 1024);
        let mut server = Server::over(kernel, |config| {
            (config.history_messages, config.connections_max) = (rng.pick(&[1, 1000]), rng.pick(&[5, 1000]));
            config.log_connections = rng.one_in(2);
        });
        let mut before = Scrape::default();
        for _ in 0..10 {
            for _ in 0..20 {
                let client = server.connect();
                let requests: [&[u8]; 7] = [
                    GET,
                    &clients::post("a", "", "", b"x"),
                    &clients::get("a", "", SSE),
                    &clients::get("a", "?after=earliest&wait=0", ""),
                    &clients::get("a", "?after=1-1&format=raw", SSE),
                    &clients::upgrade("a", "", None),
                    b"GET / HTTP/9\r\n\r\n",
                ];
                let bytes: Vec<u8> = (0..3).flat_map(|_| rng.pick(&requests)).copied().collect();
                let cut = rng.below(bytes.len() as u64) as usize;
                let wire = server.clients[client].wire;
                server.event_loop.os().send(wire, &bytes[..cut]);
                server.turn(rng.below(20));
                if rng.one_in(3) {
                    let gone = rng.below(server.clients.len() as u64) as usize;
                    let wire = server.clients[gone].wire;
                    server.event_loop.os().close_client(wire);
                }
            }
            // Whoever is over the limit is not answered: wait until there is room.
            server.pass(rng.pick(&[1, 30_000]));
            let wire = server.event_loop.os().connect_reliably();
            let client = server.attach(wire);
            assert_eq!(server.event_loop.os().send(wire, GET), GET.len());
            server.pass(500);
            if !server.clients[client].bytes.starts_with(b"HTTP/1.1 200 ") {
                continue;
            }
            let scrape = server.scraped(client);
            let counters = scrape.families.iter().filter(|(_, kind, _)| kind != "gauge").map(|(name, ..)| name);
            for name in counters {
                for (series, value) in scrape.samples.iter().filter(|(series, _)| series.starts_with(name.as_str())) {
                    let earlier = before.samples.get(series).map_or(0.0, |value| value.parse::<f64>().unwrap());
                    assert!(value.parse::<f64>().unwrap() >= earlier, "seed {seed}: {series} fell from {earlier}");
                }
            }
            let accepted = scrape.get("tidings_connections_accepted_total");
            let closed = scrape.sum("tidings_connections_closed_total");
            assert_eq!(accepted - closed, scrape.sum("tidings_connections"), "seed {seed}");
            before = scrape;
        }
        assert!(!before.families.is_empty(), "seed {seed}: nobody was ever answered");
    }
}

// What the log says.

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps each thread's lines apart, so that tests may run beside each other.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Info {
            let line = format!("{} {}", record.level(), record.args());
            LINES.with_borrow_mut(|lines| lines.push(line));
        }
    }

    fn flush(&self) {}
}

fn hear_the_log() {
    // Whichever test is first sets it.
    let _ = log::set_logger(&Lines);
    log::set_max_level(log::LevelFilter::Info);
}

fn lines() -> Vec<String> {
    LINES.with_borrow_mut(std::mem::take)
}

#[test]
fn a_limit_that_is_reached_is_told_at_once_and_then_once_a_minute() {
    hear_the_log();
    let mut server = Server::start(|config| config.connections_max = 2);
    server.connect();
    server.connect();
    server.settle();
    assert_eq!(lines(), [""; 0]);
    for _ in 0..3 {
        server.connect();
    }
    server.settle();
    assert_eq!(lines(), ["WARN connections-max reached: 1 connection refused"]);
    // Beyond the reserve too: sixteen are answered, the rest is closed at once.
    for _ in 0..121 {
        server.connect();
    }
    server.settle();
    assert_eq!(lines(), [""; 0]);
    server.pass(60_000);
    assert_eq!(lines(), ["WARN connections-max reached: 123 connections refused in the last 60 s"]);
    server.pass(600_000);
    assert_eq!(lines(), [""; 0], "silence when it is over");
    let scrape = server.scrape();
    assert_eq!(
        scrape.told("tidings_limit_reached_total"),
        [("tidings_limit_reached_total{limit=\"connections-max\"}", 124)]
    );
    assert_eq!(scrape.get("tidings_connections_accepted_total"), 2 + 124 + 1);
    assert_eq!(scrape.sum("tidings_connections_closed_total"), 2 + 124);
}

#[test]
fn each_limit_is_told_by_its_name() {
    hear_the_log();
    type Case = (&'static str, fn(&mut Config), fn(&mut Server));
    let cases: [Case; 6] = [
        (
            "channels-max reached: 1 request refused",
            |config| config.channels_max = 1,
            |server| {
                server.ask(&clients::post("a", "", "", b"x"));
                server.ask(&clients::post("b", "", "", b"x"));
            },
        ),
        (
            "intake-bytes-max reached: 1 request refused",
            |config| config.intake_bytes_max = 1000,
            |server| {
                let unfinished = clients::post("a", "", "", &[b'x'; 5000]);
                server.ask(&unfinished[..4000]);
            },
        ),
        (
            "output-bytes-max reached: 1 slow reader closed",
            |config| (config.output_bytes_max, config.history_messages) = (1000, 1),
            |server| {
                server.event_loop.os().send_buffer = 500;
                let slow = server.connect();
                server.clients[slow].reads = false;
                server.send(slow, &clients::get("a", "", SSE));
                server.event_loop.os().send_buffer = 64 * 1024;
                server.settle();
                server.ask(&clients::post("a", "", "", &[b'x'; 5000]));
                server.ask(&clients::post("a", "", "", b"x"));
            },
        ),
        (
            "commands-max reached: 3 publishes of other threads refused",
            |config| config.commands_max = 1,
            |server| {
                for nth in 0..4 {
                    let pushed = server.commands.push(Command::Publish("a".into(), "x".into(), None));
                    assert_eq!(pushed.is_ok(), nth == 0);
                }
                server.settle();
            },
        ),
        (
            "descriptors reached: 1 accept failed",
            |config| config.accepts_per_turn_max = 1,
            |server| {
                server.connect();
                server.event_loop.os().faults.odds[Fault::AcceptNoDescriptors as usize] = 1;
                server.turn(1);
                server.event_loop.os().faults.stop();
                server.pass(200);
            },
        ),
        (
            "burst-bytes-max reached: 1 message evicted before everybody was offered it",
            // A burst may have three turns' bytes, a message and 4 MiB: fourteen of these messages.
            |config| {
                (config.history_bytes, config.message_bytes_max) = (0, 512 << 10);
                (config.publish_bytes_per_turn_max, config.writes_per_turn_max) = (1 << 20, 1);
            },
            |server| {
                // Of so many one is served in each turn, and the fifteenth message comes before all
                // are.
                for _ in 0..20 {
                    server.subscribe(Transport::Sse, &clients::get("a", "?format=json", SSE));
                }
                for _ in 0..15 {
                    let publisher = server.event_loop.os().connect_reliably();
                    let post = clients::post("a", "", "", &vec![b'x'; 512 << 10]);
                    assert_eq!(server.event_loop.os().send(publisher, &post), post.len());
                }
                server.settle();
            },
        ),
    ];
    for (line, adjust, act) in cases {
        let mut server = Server::start(adjust);
        act(&mut server);
        assert_eq!(lines(), [format!("WARN {line}")]);
        let (limit, rest) = line.split_once(" reached: ").unwrap();
        let count: u64 = rest.split(' ').next().unwrap().parse().unwrap();
        let want = format!("tidings_limit_reached_total{{limit=\"{limit}\"}}");
        assert_eq!(server.scrape().told("tidings_limit_reached_total"), [(want.as_str(), count)]);
    }
}

#[test]
fn a_connection_has_one_line_at_its_end_if_that_is_wished() {
    hear_the_log();
    for wished in [false, true] {
        let mut server = Server::start(|config| config.log_connections = wished);
        let publisher = server.connect();
        let sse = server.subscribe(Transport::Sse, &clients::get("secret", "?token=secret&format=json", SSE));
        server
            .send(publisher, &[clients::post("secret", "", "", b"12"), clients::post("secret", "", "", b"3")].concat());
        server.settle();
        assert_eq!(server.clients[sse].messages, 2);
        for client in [publisher, sse] {
            let wire = server.clients[client].wire;
            server.pass(1000);
            server.event_loop.os().close_client(wire);
            server.settle();
        }
        let lines = lines();
        if !wished {
            assert_eq!(lines, [""; 0]);
            continue;
        }
        let of = |client: usize, start: &str| {
            let got = server.clients[client].bytes.len();
            let line = lines.iter().find(|line| line.contains(start)).unwrap_or_else(|| panic!("{lines:?}"));
            assert!(line.contains(&format!(" sent_bytes={got} ")), "{line}: {got}");
            line.clone()
        };
        assert_eq!(lines.len(), 2);
        let asked = clients::post("secret", "", "", b"12").len() + clients::post("secret", "", "", b"3").len();
        let line = of(publisher, "INFO connection ended: transport=none seconds=1.");
        assert!(line.contains(&format!(" requests=2 publishes=2 deliveries=0 received_bytes={asked} ")), "{line}");
        assert!(line.ends_with(" reason=peer_closed"), "{line}");
        let line = of(sse, "INFO connection ended: transport=sse seconds=2.");
        assert!(line.contains(" requests=1 publishes=0 deliveries=2 received_bytes="), "{line}");
        assert!(!lines.concat().contains("secret"), "{lines:?}");
    }
}

/// A connection that ends has the reason it was ended for, however it went from there: read or not,
/// answered or not.
#[test]
fn each_end_has_its_reason() {
    hear_the_log();
    fn tokens(lines: &str) -> Tokens {
        let mut tokens = Tokens::default();
        tokens.allow_lines(lines.as_bytes()).unwrap();
        tokens
    }
    fn revoke(server: &mut Server, request: &[u8], reads: bool) {
        // Half of its head is taken: it is blocked.
        server.event_loop.os().send_buffer = if reads { 1 << 16 } else { 64 };
        let client = server.connect();
        server.clients[client].reads = reads;
        server.send(client, request);
        server.settle();
        assert!(server.commands.push(Command::SetTokens(tokens("publish p"))).is_ok());
        server.pass(10_000);
        if reads {
            server.event_loop.os().close_client(server.clients[client].wire);
        }
    }
    type Case = (&'static str, fn(&mut Config), fn(&mut Server));
    let cases: [Case; 14] = [
        (
            "peer_closed",
            |_| {},
            |server| {
                let client = server.ask(&clients::get("a", "", SSE));
                server.event_loop.os().close_client(server.clients[client].wire);
            },
        ),
        (
            "reset",
            |_| {},
            |server| {
                let client = server.ask(&clients::get("a", "", SSE));
                server.event_loop.os().reset(server.clients[client].wire);
            },
        ),
        ("finished", |_| {}, |server| _ = server.ask(&clients::get("a", "?wait=0", "Connection: close\r\n"))),
        ("idle", |_| {}, |server| _ = server.connect()),
        ("request_timeout", |_| {}, |server| _ = server.ask(b"GET /")),
        (
            "silent",
            |config| config.ping = Duration::from_secs(1),
            |server| _ = server.ask(&clients::upgrade("a", "", None)),
        ),
        (
            "protocol",
            |_| {},
            |server| {
                let client = server.ask(&clients::upgrade("a", "", None));
                server.send(client, b"\x81\x00");
            },
        ),
        (
            "closed",
            |_| {},
            |server| {
                let client = server.ask(&clients::upgrade("a,b", "", None));
                server.send(client, &clients::client_frame(clients::TEXT, b"to which?"));
            },
        ),
        ("too_many", |config| config.connections_max = 0, |server| _ = server.ask(GET)),
        // Refused by its head: the body never comes.
        (
            "too_many",
            |config| config.connections_max = 0,
            |server| {
                server.ask(&clients::post("a", "", "", &[b'x'; 100])[..120]);
            },
        ),
        (
            "revoked",
            |config| config.tokens = tokens("subscribe s"),
            |server| {
                revoke(server, &clients::get("a", "?token=s", SSE), true);
            },
        ),
        (
            "revoked",
            |config| config.tokens = tokens("subscribe s"),
            |server| {
                revoke(server, &clients::get("a", "?token=s", SSE), false);
            },
        ),
        (
            "revoked",
            |config| config.tokens = tokens("subscribe s"),
            |server| {
                revoke(server, &clients::upgrade("a", "?token=s", None), false);
            },
        ),
        // It sends without end, and is cut.
        (
            "closed",
            |config| config.close_timeout = Duration::from_secs(3600),
            |server| {
                let client = server.ask(&clients::upgrade("a,b", "", None));
                server.send(client, &clients::client_frame(clients::TEXT, b"to which?"));
                for _ in 0..600 {
                    server
                        .event_loop
                        .os()
                        .send(server.clients[client].wire, &clients::client_frame(2, &[b'x'; 60_000]));
                    server.turn(1);
                }
            },
        ),
    ];
    for (nth, (reason, adjust, act)) in cases.into_iter().enumerate() {
        let mut server = Server::start(|config| {
            config.log_connections = true;
            adjust(config);
        });
        act(&mut server);
        server.pass(200_000);
        let lines = lines();
        let ended: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once(" reason=")?.1)).collect();
        assert_eq!(ended, [reason], "case {nth}: {lines:?}");
    }
}

// The page.

/// The page lists each metric once, in the words of the metric itself.
#[test]
fn the_page_of_the_docs_lists_every_metric_once() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows: Vec<[String; 3]> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|row| {
            let mut cells = row.split(" | ");
            let mut cell = || cells.next().unwrap().trim().to_owned();
            let (name, kind, help) = (cell(), cell(), cell());
            assert!(!cell().is_empty(), "{name}: what to watch, or why nothing");
            [name.split(['`', '{']).next().unwrap().to_owned(), kind, help]
        })
        .collect();
    let scrape = Server::start(|_| {}).scrape();
    let families: Vec<[String; 3]> = scrape.families.into_iter().map(|(name, kind, help)| [name, kind, help]).collect();
    assert_eq!(rows, families, "the page has these, in this order");
}
