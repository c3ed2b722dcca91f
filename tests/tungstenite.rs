//! The server and `tungstenite`, a client that others wrote, over sockets: publish and subscribe,
//! commands, a cut and a resumption, and the closing handshake from either side.

mod common;

use std::net::TcpStream;

use common::{PATIENCE, TestServer, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

type Client = WebSocket<TcpStream>;

/// A connection with these offers; what the server chose.
fn open(server: &TestServer, target: &str, protocols: &str) -> (Client, Option<String>) {
    let mut request = format!("ws://{}{target}", server.address).into_client_request().expect("a URL");
    if !protocols.is_empty() {
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().expect("a list"));
    }
    let stream = TcpStream::connect(server.address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let (client, response) = tungstenite::client(request, stream).expect("101");
    let chosen = response.headers().get("Sec-WebSocket-Protocol");
    (client, chosen.map(|name| name.to_str().expect("ASCII").to_owned()))
}

/// The next message, as JSON.
fn next(client: &mut Client) -> json::Value {
    json::parse(client.read().expect("a message").to_text().expect("a text frame"))
}

/// Closes from this side; the server answers with the same code, and ends.
fn close(mut client: Client) {
    let frame = tungstenite::protocol::CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    client.close(Some(frame)).expect("an open connection");
    let answer = client.read().expect("the server's close frame");
    assert!(matches!(answer, Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
    assert!(matches!(client.read(), Err(Error::ConnectionClosed)), "the server ends its side first");
}

#[test]
fn payloads_are_heard_as_they_were_sent() {
    let server = TestServer::start();
    let (mut client, chosen) = open(&server, "/channels/a", "tidings.raw");
    assert_eq!(chosen.as_deref(), Some("tidings.raw"));
    for length in [0, 1, 125, 126, 65_535, 65_536, 262_144] {
        for message in [Message::text("x".repeat(length)), Message::binary(vec![0xff; length])] {
            client.send(message.clone()).expect("sent");
            assert!(client.read().expect("a message") == message, "{length} bytes");
        }
    }
    close(client);
}

#[test]
fn commands_are_answered() {
    let server = TestServer::start();
    let (mut client, chosen) = open(&server, "/channels/a", "tidings.raw, tidings.v1");
    assert_eq!(chosen.as_deref(), Some("tidings.v1"));
    next(&mut client);
    let mut ask = |command: &str| {
        client.send(Message::text(command)).expect("sent");
        next(&mut client)
    };
    assert_eq!(ask("subscribe b ref=1")["subscribed"].array().len(), 2);
    assert_eq!(ask("unsubscribe a ref=2")["ref"], "2");
    assert_eq!(ask("publish a ref=3\nx")["published"]["channel"], "a");
    assert_eq!(ask("publish a,b ref=4\nx")["error"]["code"], "bad_channel");
    close(client);
}

/// Cut again and again, it resumes after the last message it has, and has each once.
#[test]
fn a_client_that_was_cut_resumes() {
    let server = TestServer::start();
    let mut cursor = server.now();
    let mut heard = Vec::new();
    for round in 0..10 {
        for nth in 0..10 {
            server.publish("a", format!("{}", 10 * round + nth));
        }
        let (mut client, _) = open(&server, &format!("/channels/a?after={cursor}"), "");
        next(&mut client);
        // What is on its way when it is dropped is lost with the connection, and comes again.
        while heard.len() < 10 * round + 5 {
            let message = next(&mut client);
            cursor = message["id"].str().to_owned();
            heard.push(message["data"].str().to_owned());
        }
    }
    let want: Vec<String> = (0..95).map(|nth| nth.to_string()).collect();
    assert_eq!(heard, want);
}

#[test]
fn the_server_closes_and_waits_for_the_answer() {
    let server = TestServer::start();
    let (mut client, _) = open(&server, "/channels/a,b", "");
    next(&mut client);
    client.send(Message::text("to which?")).expect("sent");
    let closed = client.read().expect("the server's close frame");
    assert!(matches!(closed, Message::Close(Some(frame)) if frame.code == CloseCode::Policy));
    // It answers by itself; then the server ends its side.
    assert!(matches!(client.read(), Err(Error::ConnectionClosed)));
}
