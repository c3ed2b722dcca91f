//! Bugs that the simulation found, each with its story: what was wrong, and what a client saw.
//!
//! A seed finds its bug only while the simulation is what it was; a few steps of a script, for as long
//! as the contract stands. So nearly every story is a test: those below, and those that
//! `TOLD_ELSEWHERE` names. Each was seen to fail with the mend undone.

mod clients;
mod kernel;
mod peers;
mod world;

use std::time::Duration;

use clients::{Format, Heard, Place, Reader, Transport};
use kernel::Wire;
use peers::{KIB, Server, healthz};
use tidings::internals::{Command, Config, Os};

/// Seeds that find their bug again if its mend is undone. The form: the seed, then its story in one
/// sentence.
///
/// `(4711, "A reader paused by its answers' limit never read again: its edge had been told."),`
///
/// When the simulation changes so that a seed is another run, which finds nothing, its line goes, and
/// its story becomes a test.
const SEEDS: &[(u64, &str)] =
    &[(15, "Who published and then subscribed in one read was never sent older messages of the new channel.")];

/// Stories that are told where their subject is: the file, the test, the story.
const TOLD_ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "accept.rs",
        "who_is_told_that_there_are_too_many_keeps_nobody_out",
        "Clients that came again at once after a refusal kept each other out for ever, with all places free.",
    ),
    ("sets.rs", "a_subscribe_behind_a_publish_starts_where_the_answer_says", "What seed 15 found, step by step."),
    (
        "times.rs",
        "a_publish_in_the_turn_of_the_deadline_is_answered",
        "A publish read in the turn of its connection's idle deadline was accepted, and its answer cut off.",
    ),
    (
        "times.rs",
        "a_websocket_is_not_taken_for_silent_by_a_server_that_stood_still",
        "A server that had stood still closed healthy WebSockets as silent, which it had not pinged meanwhile.",
    ),
    (
        "revoking.rs",
        "who_waits_for_its_turn_longer_than_the_close_timeout_is_told",
        "A closing client waited for its turn to be written to, and was cut off without its close frame.",
    ),
];

#[test]
fn seeds_that_failed_once() {
    for &(seed, story) in SEEDS {
        println!("seed {seed}: {story}");
        world::run_reporting(seed);
    }
}

#[test]
fn every_seed_stands_once_and_has_a_story() {
    for (nth, (seed, story)) in SEEDS.iter().enumerate() {
        assert!(story.ends_with('.'), "seed {seed} needs its story");
        assert!(SEEDS[..nth].iter().all(|(other, _)| other != seed), "seed {seed} stands twice");
    }
}

#[test]
fn what_is_told_elsewhere_is_there() {
    for (file, test, story) in TOLD_ELSEWHERE {
        let path = format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("a file of tests");
        assert!(text.contains(&format!("#[test]\nfn {test}() {{")), "{file} has no {test}, which told: {story}");
    }
}

// What unsubscribe and subscribe say.

/// The answer to `unsubscribe` named the head to a client whose messages were still to be written. Who
/// took that cursor elsewhere never heard of them.
#[test]
fn who_leaves_a_channel_is_told_a_cursor_before_what_it_has_not_heard() {
    let mut server = Server::start(one_write_a_turn);
    let mut client = Client::of(&mut server, "a,b");
    let publisher = server.send(&clients::post("a", "", "", b"unheard"));
    server.turn(0);
    assert_eq!(server.statuses(publisher), ["200"], "the one write of this turn");
    client.say(&mut server, &["unsubscribe a"]);
    server.turn(0);
    let heard = client.heard(&mut server);
    let [Heard::Subscribed { channels, cursor }] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(channels, &["b"]);
    let elsewhere = server.send(&clients::get("a", &format!("?wait=0&after={cursor}"), ""));
    server.turn_for(100);
    let answer = server.receive(elsewhere);
    assert!(answer.contains("\"data\":\"unheard\""), "{answer}");
}

/// What a new channel had lost was told before the answer that named the channel: the client heard of
/// a gap in what it did not read yet.
#[test]
fn what_a_new_channel_has_lost_is_told_behind_the_answer_that_names_it() {
    let mut server = Server::start(|config| {
        one_write_a_turn(config);
        config.history_messages = 1;
    });
    let mut client = Client::of(&mut server, "a");
    let publisher = server.send(&clients::post("new", "", "", b"x").repeat(3));
    server.turn_for(100);
    assert_eq!(server.statuses(publisher), ["200"; 3]);
    // A client that is behind goes on from where it stands: here before what is lost.
    server.kernel().send(publisher, &clients::post("a", "", "", b"x"));
    server.turn(0);
    assert_eq!(server.statuses(publisher), ["200"], "the one write of this turn");
    client.say(&mut server, &["subscribe new"]);
    server.turn_for(100);
    let heard = client.heard(&mut server);
    let [Heard::Subscribed { channels, cursor }, Heard::Gap(gap), Heard::Message(_), Heard::Message(_)] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!(channels, &["a", "new"]);
    assert_eq!(gap.after, cursor.to_string());
}

/// After a `subscribe` that was refused a gap began at a cursor that the client had never been told.
#[test]
fn a_refused_subscribe_moves_no_cursor() {
    let mut server = Server::start(|config| {
        config.channels_max = 2;
        config.history_messages = 1;
    });
    let mut client = Client::with_room(KIB, &mut server, "a");
    let publisher = server.send(&clients::post("b", "", "", b"x"));
    server.turn_for(100);
    // There is no room for so many refusals: what comes waits behind them.
    client.say(&mut server, &["subscribe c"; 20]);
    server.turn_for(100);
    server.kernel().send(publisher, &clients::post("a", "", "", b"x").repeat(3));
    server.turn_for(100);
    assert_eq!(server.statuses(publisher), ["200"; 4]);
    let mut heard = Vec::new();
    for _ in 0..20 {
        heard.extend(client.heard(&mut server));
        server.turn_for(100);
    }
    let [refused @ .., Heard::Gap(gap), Heard::Message(_)] = &heard[..] else { panic!("{heard:?}") };
    let is_refusal = |heard: &Heard| matches!(heard, Heard::CommandFailed { code, .. } if code == "channels_full");
    assert!(refused.len() == 20 && refused.iter().all(is_refusal), "{refused:?}");
    assert_eq!(gap.after, client.cursor.to_string());
}

// Bursts.

/// The log gave up a burst that one large read had brought, before a healthy subscriber was visited: it
/// was told a gap, though it had not been slow.
#[test]
fn what_one_read_brings_is_kept_until_a_healthy_subscriber_is_visited() {
    let mut server = Server::start(|config| {
        one_write_a_turn(config);
        config.publish_bytes_per_turn_max = KIB;
        config.history_bytes = 0;
    });
    let mut client = Client::of(&mut server, "a");
    let publisher = server.send(&clients::post("a", "", "", &[b'x'; 100 * KIB]));
    server.turn(0);
    assert_eq!(server.statuses(publisher), ["200"], "the one write of this turn");
    server.turn_for(100);
    let heard = client.heard(&mut server);
    assert!(matches!(heard[..], [Heard::Message(_)]), "{heard:?}");
}

/// A subscriber that had everything did not count as healthy while a heartbeat waited to be written to it:
/// what came meanwhile was trimmed before its turn, and it was told a gap.
#[test]
fn a_heartbeat_that_waits_makes_no_subscriber_slow() {
    let mut server = Server::start(|config| {
        one_write_a_turn(config);
        config.heartbeat = Duration::from_secs(2);
        config.history_messages = 0;
    });
    let streams = [(); 2].map(|()| server.send(&clients::get("a", "?transport=sse", "")));
    let publisher = server.send(b"");
    server.turn_for(100);
    // The process stands still until both heartbeats are due.
    server.kernel().wait(Some(Duration::from_secs(3)), &mut Vec::new()).expect("no fault");
    server.kernel().send(publisher, &clients::post("a", "", "", b"x"));
    server.turn_for(100);
    for stream in streams {
        let told = server.receive(stream);
        assert!(told.contains("data: x\n") && !told.contains("event: gap"), "{told}");
    }
}

// Whose turn it is, and whose place.

/// Input held behind an unanswered publish was looked at again and again, until the turn's budget was
/// spent: what another thread published had to wait for the next turn.
#[test]
fn input_that_waits_for_an_answer_is_not_looked_at_meanwhile() {
    let mut server = Server::start(|config| config.publish_bytes_per_turn_max = 10 * KIB);
    let wire = server.send(&[clients::post("a", "", "", b"x"), healthz()].concat());
    for _ in 0..50 {
        server.commands.push(Command::Publish("a".into(), "x".into(), None)).expect("room in the queue");
    }
    server.turn(0);
    assert_eq!(server.turns.engine().stats().head, 51, "all this is half of what a turn may do");
    server.turn_for(100);
    assert_eq!(server.statuses(wire), ["200", "200"]);
}

/// The ticket of a client that had gone was given to another, who was then told of the first one's
/// message.
#[test]
fn a_publisher_is_told_of_its_own_message() {
    let mut server = Server::start(|config| config.output_bytes_max = KIB);
    let publisher = server.send(b"");
    let client = Client::with_room(KIB, &mut server, "quiet");
    // The 33rd waits for the answers to the others, and is appended as these are made: so the log decides
    // on it in the next turn. The answers are more than may wait for a client that does not read.
    client.say(&mut server, &["publish a\ntheirs"; 33]);
    server.turn(0);
    assert!(server.kernel().is_released(client.wire), "it is gone before that");
    server.kernel().send(publisher, &clients::post("a", "", "", b"mine"));
    server.turn_for(100);
    let answer = server.receive(publisher);
    assert!(answer.contains("-34\",\"channel\":\"a\""), "{answer}");
}

/// Slots of the dead that a queue still named counted as connections: a client was told of too many.
#[test]
fn the_dead_take_no_place_while_a_queue_names_them() {
    let mut server = Server::start(|config| {
        one_write_a_turn(config);
        config.connections_max = 4;
    });
    let streams = [(); 3].map(|()| server.send(&clients::get("a", "?transport=sse", "")));
    let publisher = server.send(b"");
    server.turn_for(100);
    server.kernel().send(publisher, &clients::post("a", "", "", b"x"));
    server.turn(0);
    assert_eq!(server.statuses(publisher), ["200"], "the one write of this turn: all three wait");
    server.kernel().reset(streams[2]);
    server.turn(0);
    assert!(server.kernel().is_released(streams[2]), "in the turn of the first of them");
    let newcomer = server.send(&healthz());
    server.turn_for(100);
    assert_eq!(server.statuses(newcomer), ["200"]);
}

/// A WebSocket that read slowly was not pinged meanwhile, and closed as silent once it read again.
#[test]
fn who_reads_again_is_not_silent() {
    const PING_MS: u64 = 10_000;
    let mut server = Server::start(|config| config.ping = Duration::from_millis(PING_MS));
    let mut client = Client::with_room(1500, &mut server, "a");
    let publisher = server.send(&clients::post("a", "", "", &[b'1'; KIB]));
    // Behind the first message comes a ping, and behind that there is no room for all of the second.
    server.turn_for(PING_MS * 14 / 10);
    server.kernel().send(publisher, &clients::post("a", "", "", &[b'2'; KIB]));
    server.turn_for(3 * PING_MS);
    // It takes most of the first message, so that all is written, and a while later the rest.
    let mut heard = client.heard_in(KIB, &mut server);
    server.turn_for(PING_MS * 14 / 10);
    heard.extend(client.heard(&mut server));
    assert_eq!(server.kernel().ending(client.wire), None, "{heard:?}");
    use Heard::{Message, Ping};
    assert!(matches!(heard[..], [Message(_), Ping(_), Message(_), Ping(_)]), "{heard:?}");
}

/// Whoever is not written to in a turn waits for the next.
fn one_write_a_turn(config: &mut Config) {
    config.writes_per_turn_max = 1;
}

/// A client of `tidings.v1`.
struct Client {
    wire: Wire,
    reader: Reader,
    /// Where its first frame said that it stands.
    cursor: Place,
}

impl Client {
    /// One that reads at once what is written to it.
    fn of(server: &mut Server, set: &str) -> Client {
        let wire = server.kernel().connect_reliably();
        Client::over(wire, server, set)
    }

    /// One that reads when the test asks what it heard; its kernel takes so many bytes until then.
    fn with_room(bytes: usize, server: &mut Server, set: &str) -> Client {
        server.kernel().send_buffer = bytes;
        let wire = server.kernel().connect();
        Client::over(wire, server, set)
    }

    fn over(wire: Wire, server: &mut Server, set: &str) -> Client {
        server.kernel().send(wire, &clients::upgrade(set, "", Some("tidings.v1")));
        server.turn_for(100);
        let reader = Reader::new(Transport::WebSocket, Format::Json);
        let mut client = Client { wire, reader, cursor: Place::default() };
        let heard = client.heard(server);
        let [Heard::Cursor(cursor)] = heard[..] else { panic!("{heard:?}") };
        Client { cursor, ..client }
    }

    /// Sends these commands in one piece; the server does not turn yet.
    fn say(&self, server: &mut Server, commands: &[&str]) {
        let frames = commands.iter().flat_map(|command| clients::client_frame(clients::TEXT, command.as_bytes()));
        server.kernel().send(self.wire, &frames.collect::<Vec<u8>>());
    }

    fn heard(&mut self, server: &mut Server) -> Vec<Heard> {
        self.heard_in(usize::MAX, server)
    }

    /// What it hears in so many bytes, at most.
    fn heard_in(&mut self, bytes_max: usize, server: &mut Server) -> Vec<Heard> {
        let bytes = server.kernel().receive(self.wire, bytes_max);
        self.reader.receive(&bytes).expect("the server speaks the protocol")
    }
}
