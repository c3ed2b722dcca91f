//! Sets that change while something is under way: a publish of one's own or of others in the same turn, or
//! a message that is half out. Over the fake kernel, where a turn and a write are what the test makes them.

mod clients;
mod kernel;
mod wire;

use clients::json::Json;
use clients::{TEXT, client_frame, close_frame};
use kernel::Wire;
use wire::{Server, WebSocket};

fn command(words: &str) -> Vec<u8> {
    client_frame(TEXT, words.as_bytes())
}

fn post(server: &mut Server, wire: Wire, channel: &str) {
    server.put(wire, &clients::post(channel, "", "", b"x"));
}

/// What a client heard, in words: `published 6`, `subscribed after 5`, `a 6`, `gap`.
fn words(heard: &[String]) -> Vec<String> {
    let seq = |place: &str| place.rsplit_once('-').expect("a cursor").1.to_owned();
    let say = |frame: &String| {
        let Some(text) = frame.strip_prefix("text ") else { return frame.clone() };
        let json = Json::parse(text).expect("JSON");
        if let Some(published) = json.member("published") {
            return format!("published {}", seq(published.text("id").expect("an id")));
        }
        match (json.member("subscribed"), json.member("id")) {
            (Some(_), _) => format!("subscribed after {}", seq(json.text("cursor").expect("a cursor"))),
            (_, Some(_)) => {
                let id = seq(json.text("id").expect("an id"));
                format!("{} {id}", json.text("channel").expect("a channel"))
            }
            _ => text.to_owned(),
        }
    };
    heard.iter().map(say).collect()
}

/// A server whose log stands at 5: message 1 is of `a`, 2 to 5 are of `b`. The client reads `a` since
/// before the first and has everything.
fn at_five() -> (Server, WebSocket, Wire) {
    let mut server = Server::start();
    let publisher = server.connect();
    let mut socket = server.websocket("/channels/a", Some("tidings.v1"));
    for channel in ["a", "b", "b", "b", "b"] {
        post(&mut server, publisher, channel);
        server.settle();
    }
    assert_eq!(words(&socket.heard(&mut server)), ["a 1"]);
    server.receive(publisher);
    (server, socket, publisher)
}

/// protocol: new channels start after that cursor, which is the head unless this connection is behind.
///
/// A subscribe behind a publish is acted on in the middle of the commit: what has been settled by then is
/// still to be delivered, and what came to the new channel before must be behind the cursor.
#[test]
fn a_subscribe_behind_a_publish_starts_where_the_answer_says() {
    type Others = &'static [&'static str];
    let table: &[(Others, &str, &[&str])] = &[
        (&[], "a", &["published 6", "subscribed after 5", "a 6"]),
        (&[], "b", &["published 6", "subscribed after 6"]),
        (&[], "c", &["published 6", "subscribed after 6"]),
        (&["a"], "c", &["published 7", "subscribed after 5", "a 6"]),
        (&["b"], "c", &["published 7", "subscribed after 7"]),
        (&["a", "b"], "c", &["published 8", "subscribed after 5", "a 6", "b 7"]),
        (&["b", "a"], "c", &["published 8", "subscribed after 5", "b 6", "a 7"]),
        (&["b"], "a", &["published 7", "subscribed after 5", "b 6", "a 7"]),
    ];
    for (others, own, want) in table {
        let (mut server, mut socket, publisher) = at_five();
        for channel in *others {
            post(&mut server, publisher, channel);
        }
        let both = [command(&format!("publish {own} ref=p\nx")), command("subscribe b")].concat();
        server.send(socket.wire, &both);
        let mut want = want.to_vec();
        assert_eq!(words(&socket.heard(&mut server)), want, "{others:?}, then {own}");
        // Nothing is left behind, and nothing comes twice.
        want.clear();
        let next = 6 + others.len() + 1;
        post(&mut server, publisher, "b");
        server.settle();
        assert_eq!(words(&socket.heard(&mut server)), [format!("b {next}")], "{others:?}, then {own}");
    }
}

/// The same of a channel that is left: the cursor says no more than what was delivered.
#[test]
fn an_unsubscribe_behind_a_publish_says_where_the_connection_stands() {
    let (mut server, mut socket, _) = at_five();
    server.send(socket.wire, &command("subscribe b"));
    assert_eq!(words(&socket.heard(&mut server)), ["subscribed after 5"]);
    let both = [command("publish a\nx"), command("publish b\nx"), command("unsubscribe a")].concat();
    server.send(socket.wire, &both);
    let heard = words(&socket.heard(&mut server));
    assert_eq!(heard, ["published 6", "published 7", "subscribed after 5", "b 7"]);
}

/// A channel faster than its reader: whenever the kernel takes a byte, a message is half out again. The
/// reader can leave it, and is answered behind the message that was half out.
#[test]
fn who_reads_slowly_is_answered_behind_the_message_that_is_half_out() {
    let payload = "x".repeat(5000);
    let start = || {
        let mut server = Server::start();
        server.turns.os().send_buffer = 1000;
        let wire = server.turns.os().connect();
        server.settle();
        let mut socket = server.upgrade(wire, "/channels/fast", Some("tidings.v1"));
        socket.heard(&mut server);
        server.turns.os().send_buffer = 1 << 20;
        let publisher = server.connect();
        for _ in 0..10 {
            server.send(publisher, &clients::post("fast", "", "", payload.as_bytes()));
        }
        (server, socket)
    };
    // What it hears in so many reads of what the kernel holds.
    let reads = |server: &mut Server, socket: &mut WebSocket, times: usize| {
        let mut heard = Vec::new();
        for _ in 0..times {
            heard.extend(socket.heard(server));
            server.settle();
        }
        // The end is told whenever it is asked for.
        heard.dedup();
        words(&heard)
    };
    let (mut server, mut socket) = start();
    server.send(socket.wire, &[command("publish other ref=p\nx"), command("unsubscribe fast")].concat());
    let heard = reads(&mut server, &mut socket, 100);
    assert_eq!(heard, ["fast 1", "published 11", "subscribed after 1"]);

    // New channels start after the message that is half out.
    let (mut server, mut socket) = start();
    server.send(socket.wire, &command("subscribe other"));
    let heard = reads(&mut server, &mut socket, 100);
    assert_eq!(heard[..3], ["fast 1", "subscribed after 1", "fast 2"]);
    assert_eq!(heard.len(), 11);

    let (mut server, mut socket) = start();
    server.send(socket.wire, &close_frame(1000));
    let heard = reads(&mut server, &mut socket, 100);
    assert_eq!(heard, ["fast 1", "close 1000", "end"]);
}
