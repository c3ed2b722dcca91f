//! What an embedder sees of its server: the app's own answers, why a server cannot start or go on,
//! and what a publish says when nothing came of it.

mod clients;
mod common;
mod kernel;
mod wire;

use std::error::Error as _;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clients::{BINARY, TEXT, client_frame};
use common::http::Request;
use tidings::{
    Access, App, Code, Config, Error, Inbound, NoApp, Operation, Publication, PublishError, Published, Reaction,
    Response, Server, Transport,
};

/// Answers some paths, and panics at one.
struct Site;

impl App for Site {
    fn request(&mut self, request: &tidings::Request<'_>) -> Option<Response> {
        match request.path() {
            "/own" => {
                let own = request.header("x-own").map(String::from_utf8_lossy);
                let (method, query, length) = (request.method(), request.query(), request.body().len());
                let mut response = Response::new("text/plain", format!("{method} {query:?} {own:?} {length}"));
                for (name, value) in [("X-Own", "yes"), ("Content-Length", "999"), ("Not a name", "x"), ("", "x")] {
                    response.headers.push((name.to_owned(), value.to_owned()));
                }
                Some(response.with_status(201))
            }
            "/no-status" => Some(Response::new("text/plain", "x").with_status(99)),
            "/panic" => panic!("on purpose"),
            _ => None,
        }
    }
}

#[test]
fn an_app_answers_what_is_no_path_of_the_server() {
    let server = Server::bind_app("127.0.0.1:0", Config::default(), Site).expect("a free port");
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let thread = std::thread::spawn(move || server.run().expect("the loop turns"));
    let answer = Request::new(address, "GET", "/own?a=b").header("X-Own", "1").send();
    assert_eq!((answer.status, answer.header("Content-Type")), (201, Some("text/plain")));
    assert_eq!(String::from_utf8_lossy(&answer.body), "GET Some(\"a=b\") Some(\"1\") 0");
    assert_eq!(answer.header("X-Own"), Some("yes"));
    assert_eq!((answer.header("Not a name"), answer.header("Content-Length")), (None, Some("27")));
    assert_eq!(Request::new(address, "GET", "/no-status").send().status, 500);
    assert_eq!(Request::new(address, "GET", "/nothing").send().status, 404);
    handle.stop();
    thread.join().expect("the server's thread ended without a panic");
}

/// Says of each request what it was asked about, and denies it.
struct Wall;

impl App for Wall {
    fn authorize(&mut self, request: &tidings::Request<'_>, operation: Operation, channels: &[&str]) -> Access {
        Access::Deny(format!("{} {operation:?} {}", request.method(), channels.join("+")))
    }
}

/// protocol: not_allowed (403: the program that embeds the server says no)
#[test]
fn an_app_is_asked_about_each_request_to_channels() {
    let mut server = wire::Server::start_with(|_| {}, Some(Box::new(Wall)));
    for (method, target, asked) in [
        ("POST", "/channels/b", "POST Publish b"),
        ("DELETE", "/channels/b", "DELETE Delete b"),
        ("GET", "/channels/b,a", "GET Subscribe a+b"),
        ("GET", "/channels/a?transport=sse", "GET Subscribe a"),
        ("GET", "/channels/a?transport=view", "GET Subscribe a"),
        ("GET", "/channels", "GET Subscribe "),
        ("GET", "/healthz", ""),
        ("GET", "/metrics", ""),
    ] {
        let wire = server.connect();
        server.send(wire, format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let answer = String::from_utf8(server.receive(wire)).expect("text");
        let denied = format!(r#"{{"error":{{"status":403,"code":"not_allowed","message":"{asked}"}}}}"#);
        match asked {
            "" => assert!(answer.starts_with("HTTP/1.1 200 "), "{method} {target}: {answer}"),
            _ => assert!(answer.ends_with(&format!("\r\n\r\n{denied}\n")), "{method} {target}: {answer}"),
        }
    }
    let wire = server.connect();
    server.send(wire, b"HEAD /channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(server.receive(wire).starts_with(b"HTTP/1.1 403 "));
}

/// Lets commands do what they like with channels whose names begin with `open`, and says of whom it
/// hears.
struct Doorman(Arc<Mutex<Vec<String>>>);

impl Doorman {
    fn note(&self, what: &str, channels: &[&str], transport: Transport) {
        self.0.lock().expect("nobody panicked").push(format!("{what} {} {transport:?}", channels.join(",")));
    }
}

impl App for Doorman {
    fn authorize_command(&mut self, operation: Operation, channels: &[&str]) -> Access {
        match channels.iter().find(|name| !name.starts_with("open")) {
            None => Access::Allow,
            Some(name) => Access::Deny(format!("{operation:?} in {name}: ask the doorman")),
        }
    }

    fn subscribed(&mut self, channels: &[&str], transport: Transport) {
        self.note("+", channels, transport);
    }

    fn unsubscribed(&mut self, channels: &[&str], transport: Transport) {
        self.note("-", channels, transport);
    }
}

/// protocol: not_allowed (403: the program that embeds the server says no)
#[test]
fn an_app_decides_on_each_command() {
    let mut server = wire::Server::start_with(|_| {}, Some(Box::new(Doorman(Arc::default()))));
    let mut socket = server.websocket("/channels/lobby", Some("tidings.v1"));
    let denied = |words: &str| {
        format!(
            r#"text {{"error":{{"status":403,"code":"not_allowed","message":"{words}: ask the doorman"}},"ref":"r"}}"#
        )
    };
    for (command, answer) in [
        ("subscribe open.a,vault ref=r", denied("Subscribe in vault")),
        ("publish vault ref=r\nx", denied("Publish in vault")),
        ("subscribe open.a ref=r", r#"text {"subscribed":["lobby","open.a"]"#.to_owned()),
        ("publish open.b ref=r\nx", r#"text {"published":{"id":"#.to_owned()),
        // What it no longer wants to hear, nobody has to allow.
        ("unsubscribe lobby ref=r", r#"text {"subscribed":["open.a"]"#.to_owned()),
    ] {
        server.send(socket.wire, &client_frame(TEXT, command.as_bytes()));
        let heard = socket.heard(&mut server);
        assert!(heard.len() == 1 && heard[0].starts_with(&answer), "{command}: {heard:?}");
    }
    assert_eq!((server.kept("vault"), server.kept("open.b")), (vec![], vec!["x".to_owned()]));
}

/// An app that says nothing of commands was not written for them.
#[test]
fn an_app_that_says_nothing_of_commands_allows_none() {
    let mut server = wire::Server::start_with(|_| {}, Some(Box::new(NoApp)));
    let mut socket = server.websocket("/channels/a", Some("tidings.v1"));
    for command in ["subscribe b", "publish a\nx"] {
        server.send(socket.wire, &client_frame(TEXT, command.as_bytes()));
        let denied = r#"text {"error":{"status":403,"code":"not_allowed","message":"commands are not allowed here"}}"#;
        assert_eq!(socket.heard(&mut server), [denied], "{command}");
    }
    assert_eq!(server.kept("a"), [""; 0]);
}

/// Each channel of a subscriber comes once and goes once, however it came and went.
#[test]
fn an_app_hears_who_comes_and_who_goes() {
    let heard = Arc::default();
    let mut server = wire::Server::start_with(|_| {}, Some(Box::new(Doorman(Arc::clone(&heard)))));
    let news = move || std::mem::take(&mut *heard.lock().expect("nobody panicked"));

    let socket = server.websocket("/channels/open.b,open.a", Some("tidings.v1"));
    assert_eq!(news(), ["+ open.a,open.b WebSocket"]);
    for (command, heard) in [
        ("subscribe open.c,open.a", &["+ open.c WebSocket"][..]),
        ("subscribe open.a", &[]),
        ("subscribe vault", &[]),
        ("unsubscribe open.a,open.d", &["- open.a WebSocket"]),
        ("unsubscribe open.a", &[]),
        ("publish open.a\nx", &[]),
    ] {
        server.send(socket.wire, &client_frame(TEXT, command.as_bytes()));
        assert_eq!(news(), heard, "{command}");
    }
    server.turns.os().reset(socket.wire);
    server.settle();
    let mut gone = news();
    assert_eq!(gone.len(), 1);
    let gone = gone.remove(0);
    assert!(["- open.b,open.c WebSocket", "- open.c,open.b WebSocket"].contains(&gone.as_str()), "{gone}");

    let poll = server.connect();
    server.send(poll, &clients::get("open.a", "", ""));
    assert_eq!(news(), ["+ open.a Poll"]);
    let publisher = server.connect();
    server.send(publisher, &clients::post("open.a", "", "", b"y"));
    assert_eq!(news(), ["- open.a Poll"]);
    for at_once in ["?after=earliest", "?wait=0"] {
        server.send(poll, &clients::get("open.a", at_once, ""));
        assert_eq!(news(), ["+ open.a Poll", "- open.a Poll"], "{at_once}");
    }

    let stream = server.connect();
    server.send(stream, &clients::get("open.a", "?transport=sse", ""));
    assert_eq!(news(), ["+ open.a Sse"]);
    server.turns.os().close_client(stream);
    server.settle();
    assert_eq!(news(), ["- open.a Sse"]);
}

/// Does with a message what its first word says.
struct Reacts;

impl App for Reacts {
    fn message(&mut self, message: &Inbound<'_>) -> Reaction {
        let (word, rest) = message.payload.split_at(message.payload.iter().position(|&b| b == b' ').unwrap_or(0));
        match word {
            b"to" => {
                let rest = String::from_utf8_lossy(rest).trim().to_owned();
                Reaction::PublishTo(rest, "told".into())
            }
            b"reply" => Reaction::Reply(rest.to_vec()),
            b"bytes" => Reaction::ReplyBinary(rest.to_vec()),
            b"echo" => Reaction::Echo,
            b"ignore" => Reaction::Ignore,
            b"close" => Reaction::Close(1005, format!("{:?} {}", message.channels, message.binary)),
            _ => Reaction::Publish,
        }
    }
}

#[test]
fn an_app_decides_what_becomes_of_a_message() {
    let mut server =
        wire::Server::start_with(|config| config.drain = Duration::from_secs(3600), Some(Box::new(Reacts)));
    let mut socket = server.websocket("/channels/a", Some("tidings.raw"));
    let mut ask = |server: &mut wire::Server, opcode, message: &[u8]| {
        server.send(socket.wire, &client_frame(opcode, message));
        socket.heard(server)
    };
    let table: &[(u8, &[u8], &str)] = &[
        (TEXT, b"publish", "text publish"),
        (TEXT, b"to a", "text told"),
        (TEXT, b"to b", ""),
        // It is no channel's name: the log says so, and the client did nothing wrong.
        (TEXT, b"to /b", ""),
        (TEXT, b"ignore me", ""),
        (TEXT, b"reply \xc3\xa9", "text  \u{e9}"),
        (BINARY, b"reply \xff", "binary [32, 255]"),
        (TEXT, b"bytes a", "binary [32, 97]"),
        (TEXT, b"echo a", "text echo a"),
        (BINARY, b"echo a", "binary [101, 99, 104, 111, 32, 97]"),
    ];
    for &(opcode, message, answer) in table {
        let want: Vec<&str> = Some(answer).filter(|answer| !answer.is_empty()).into_iter().collect();
        assert_eq!(ask(&mut server, opcode, message), want, "{}", String::from_utf8_lossy(message));
    }
    assert_eq!((server.kept("a"), server.kept("b")), (vec!["publish".into(), "told".into()], vec!["told".to_owned()]));

    // Who leaves takes no messages, not even the app's own.
    server.turns.drain();
    assert_eq!(ask(&mut server, TEXT, b"to b"), [""; 0]);
    assert_eq!(server.turns.engine().stats().head, 3);
    assert_eq!(ask(&mut server, BINARY, b"close 1"), [r#"close 1000 ["a"] true"#]);
}

#[test]
fn a_server_whose_app_panicked_stays_failed_and_says_why() {
    let mut server = Server::bind_app("127.0.0.1:0", Config::default(), Site).expect("a free port");
    let mut client = TcpStream::connect(server.local_addrs()[0]).expect("it listens");
    client.write_all(b"GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("there is room");
    let error = loop {
        match server.turn(Some(common::PATIENCE)) {
            Ok(goes_on) => assert!(goes_on, "nobody asked it to leave"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the app panicked: on purpose");
    assert!(error.source().is_none());
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Other);
    let again = server.turn(None).expect_err("what it left half-done is not looked at again");
    assert_eq!(format!("{again:?}"), "the app panicked: on purpose");
    let refused = server.publish("a", "x").expect_err("it has failed");
    assert_eq!(refused.to_string(), "the server has stopped");
}

/// The panic comes after a publish was taken out of the queue, and before the log decides on it.
#[test]
fn whoever_waits_for_a_server_whose_app_panics_is_told() {
    let mut config = Config::default();
    config.channels_max = 1;
    let mut server = Server::bind("127.0.0.1:0", config).expect("a free port");
    let (sender, told) = std::sync::mpsc::channel();
    let tells = move || {
        let sender = sender.clone();
        move |result| sender.send(result).expect("the test listens")
    };
    let handle = server.handle();
    handle.publish_then("a", "taken", tells()).expect("there is room");
    handle.publish_then("b", "refused", |_| panic!("on purpose")).expect("there is room");
    handle.publish_then("a", "waits", tells()).expect("there is room");
    let error = server.turn(Some(common::PATIENCE)).expect_err("a callback panicked");
    assert_eq!(error.to_string(), "the app panicked: on purpose");
    drop(server);
    let told: Vec<Result<Published, PublishError>> = told.try_iter().collect();
    assert_eq!(told, [Err(PublishError::Closed), Err(PublishError::Closed)], "each once");
}

/// More is counted in fewer bits than it would take: it counts as what fits.
#[test]
fn no_message_is_larger_than_the_largest() {
    let mut config = Config::default();
    config.message_bytes_max = usize::MAX;
    let mut server = Server::bind("127.0.0.1:0", config.clone()).expect("a free port");
    let refused = server.publish("a", vec![0; Config::LARGEST_MESSAGE + 1]).expect_err("it is too large");
    assert_eq!(refused.to_string(), "message_too_large: the message has 268435457 bytes, the limit is 268435456");

    let mut server = wire::Server::start_with(|limits| *limits = config, None);
    let wire = server.connect();
    for (bytes, answer) in [(Config::LARGEST_MESSAGE, ""), (Config::LARGEST_MESSAGE + 1, "HTTP/1.1 413 ")] {
        let wire = if answer.is_empty() { wire } else { server.connect() };
        let head = format!("POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n");
        server.send(wire, head.as_bytes());
        let said = String::from_utf8(server.receive(wire)).expect("text");
        assert!(if answer.is_empty() { said.is_empty() } else { said.starts_with(answer) }, "{bytes}: {said}");
    }
}

#[test]
fn why_a_server_cannot_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let error = Server::bind(address, Config::default()).expect_err("the port is taken");
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
    assert!(error.source().is_some());
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);

    let error = Server::bind("0.0.0.0:0", Config::default()).expect_err("anyone could publish");
    assert!(matches!(error, Error::Exposed(_)) && error.to_string().contains("--publish-token"), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);

    let mut config = Config::default();
    config.hosts = vec!["a b".to_owned()];
    let error = Server::bind("127.0.0.1:0", config).expect_err("no name of a host");
    assert!(matches!(error, Error::Name(_)), "{error}");
}

#[test]
fn a_publish_says_why_nothing_came_of_it() {
    let mut config = Config::default();
    config.message_bytes_max = 4;
    let mut server = Server::bind("127.0.0.1:0", config).expect("a free port");
    let handle = server.handle();
    assert!(format!("{server:?} {handle:?}").contains(&server.local_addrs()[0].to_string()));
    for (channel, message, code) in [("a b", "x", Code::BadChannel), ("a", "12345", Code::MessageTooLarge)] {
        match server.publish(channel, message) {
            Err(PublishError::Refused(refusal)) => assert_eq!(refusal.code, code),
            other => panic!("{other:?}"),
        }
    }
    let refused = handle.publish("a", "12345").expect_err("it is too long").to_string();
    assert_eq!(refused, "message_too_large: the message has 5 bytes, the limit is 4");
    server.publish("a", "1234").expect("there is room");
    assert_eq!(server.next_timeout(), Some(Duration::ZERO), "something waits for the next turn");
    let late = handle.publish_wait("a", "1", Duration::ZERO).expect_err("nobody turns the server");
    assert_eq!(late.to_string(), "the server's loop did not answer in time");
    handle.stop();
    while server.turn(Some(common::PATIENCE)).expect("the loop turns") {}
    let closed = handle.publish("a", "1").expect_err("it has left");
    assert_eq!(closed.to_string(), "the server has stopped");
}

/// What a running server finds only when it comes to the message.
#[test]
fn a_publish_of_the_program_is_refused_like_any_other() {
    let server = common::TestServer::start_with(|config| {
        config.channels_max = 1;
        config.drain = Duration::from_secs(3600);
    });
    let publish = |channel, message: Publication| server.handle.publish_wait(channel, message, common::PATIENCE);
    let code = |result: Result<Published, PublishError>| match result {
        Err(PublishError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    let mut message = Publication::from("x");
    message.event = Some("price".to_owned());
    message.media_type = Some("text/csv".to_owned());
    let published = publish("a", message).expect("there is room");
    let answer = server.poll("a", "earliest");
    let kept = &answer["messages"][0];
    assert_eq!((kept["event"].str(), kept["type"].str()), ("price", "text/csv"));
    assert_eq!(kept["id"].str(), published.id.to_string());

    assert_eq!(code(publish("b", "x".into())), Code::ChannelsFull);
    let mut stays = server.request("GET", "/channels/a?wait=120").start();
    server.until_subscribed("a", "poll", 1);
    server.handle.shutdown();
    assert_eq!(code(publish("a", "x".into())), Code::Draining);
    server.handle.stop();
    assert!(stays.at_end());
}
