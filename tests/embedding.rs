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
    Access, App, Code, Config, Error, Handle, Inbound, NoApp, Operation, Publication, PublishError, Published,
    Reaction, Response, Server, Transport,
};

/// Answers some paths, and panics at one.
struct Site;

impl App for Site {
    fn request(&mut self, request: &tidings::Request<'_>) -> Option<Response> {
        match request.path() {
            "/own" => {
                let own = request.header("x-own").map(String::from_utf8_lossy);
                let (method, query, length) = (request.method(), request.query(), request.body().len());
                let response = Response::new("text/plain", format!("{method} {query:?} {own:?} {length}"));
                Some(response.with_status(201).with_header("X-Own", "yes"))
            }
            "/panic" => panic!("on purpose"),
            _ => None,
        }
    }
}

#[test]
fn an_app_answers_what_is_no_path_of_the_server() {
    let server = Server::bind_app("127.0.0.1:0", Config::default(), |_| Site).expect("a free port");
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let thread = std::thread::spawn(move || server.run().expect("the loop turns"));
    let answer = Request::new(address, "GET", "/own?a=b").header("X-Own", "1").send();
    assert_eq!((answer.status, answer.header("Content-Type")), (201, Some("text/plain")));
    assert_eq!(String::from_utf8_lossy(&answer.body), "GET Some(\"a=b\") Some(\"1\") 0");
    assert_eq!(answer.header("X-Own"), Some("yes"));
    assert_eq!(Request::new(address, "GET", "/nothing").send().status, 404);
    handle.stop();
    thread.join().expect("the server's thread ended without a panic");
}

/// Answers everything with this.
struct Gives(Response);

impl App for Gives {
    fn request(&mut self, _: &tidings::Request<'_>) -> Option<Response> {
        Some(self.0.clone())
    }
}

/// What its answer holds may come from a client. It stays one answer, in every build; and the first
/// of a server that was none is told in the log.
#[test]
fn whatever_an_app_gives_is_one_answer() {
    struct Lines(Mutex<Vec<String>>);
    static LINES: Lines = Lines(Mutex::new(Vec::new()));
    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().expect("nobody panicked").push(record.args().to_string());
        }
        fn flush(&self) {}
    }
    log::set_logger(&LINES).expect("no other test of this file listens");
    log::set_max_level(log::LevelFilter::Warn);

    let text = |body| Response::new("text/plain", body);
    let body = "Content-Type: text/plain|Content-Length: 1||b";
    let with = |name: &str, value: &str| text("b").with_header(name, value);
    let mut lines_heard = 0;
    for (given, want, is_told) in [
        (text("b"), format!("200 OK|{body}"), false),
        (
            Response::new("text/plain; a=\u{e9}", "b"),
            format!("200 OK|{}", body.replace("plain", "plain; a=\u{e9}")),
            false,
        ),
        (with("X-A", "a\tb \u{e9}"), format!("200 OK|X-A: a\tb \u{e9}|{body}"), false),
        (with("X-A", ""), format!("200 OK|X-A: |{body}"), false),
        (with("content-LENGTH", "9"), format!("200 OK|{body}"), false),
        (with("Transfer-Encoding", "chunked").with_header("X-A", "1"), format!("200 OK|X-A: 1|{body}"), false),
        (with("cache-control", "max-age=9"), format!("200 OK|cache-control: max-age=9|{body}"), false),
        // What would be another line, or another answer.
        (with("X-A", "1\r\n\r\nHTTP/1.1 200 OK"), format!("200 OK|{body}"), true),
        (with("X-A", "1\nX-B: 2").with_header("X-C", "3"), format!("200 OK|X-C: 3|{body}"), true),
        (with("X-A", "\0"), format!("200 OK|{body}"), true),
        (with("X-A", "\x7f"), format!("200 OK|{body}"), true),
        (with("X-A: 1\r\nX-B", "2"), format!("200 OK|{body}"), true),
        (with("", "2"), format!("200 OK|{body}"), true),
        (with("X\u{e9}", "2"), format!("200 OK|{body}"), true),
        (Response::new("text/plain\r\nX: y", "b"), format!("200 OK|{}", body.replace("text/plain", OCTETS)), true),
        (Response::new("", "b"), format!("200 OK|{}", body.replace("text/plain", OCTETS)), true),
        // What is no status of an answer, and what has no body.
        (text("b").with_status(99), format!("500 Internal Server Error|{body}"), true),
        (text("b").with_status(101), format!("500 Internal Server Error|{body}"), true),
        (text("b").with_status(600), format!("500 Internal Server Error|{body}"), true),
        (text("b").with_status(599), format!("599 |{body}"), false),
        (Response::new("", "HTTP/1.1 200 OK\r\n").with_status(204), "204 No Content||".to_owned(), false),
        (Response::new("", "HTTP/1.1 200 OK\r\n").with_status(205), "205 |Content-Length: 0||".to_owned(), false),
        (Response::new("", "HTTP/1.1 200 OK\r\n").with_status(304), "304 Not Modified||".to_owned(), false),
    ] {
        let mut server = wire::Server::start_with(|_| {}, Some(Box::new(Gives(given.clone()))));
        let wire = server.connect();
        // Twice: what follows an answer is the next, and told once is enough.
        server.send(wire, &b"GET /own HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2));
        let answers = String::from_utf8(server.receive(wire)).expect("the app gives text");
        let own = ["Date: ", "Cache-Control: no-store", "X-Content-Type-Options: nosniff"];
        let lines = answers.split("\r\n").filter(|line| !own.iter().any(|name| line.starts_with(name)));
        let seen = lines.collect::<Vec<_>>().join("|");
        assert_eq!(seen, format!("HTTP/1.1 {want}").repeat(2), "{given:?}");
        let may_be_kept = given.headers.iter().any(|(name, _)| name == "cache-control");
        assert_eq!(answers.contains("no-store"), !may_be_kept, "{given:?}");

        let mut heard = LINES.0.lock().expect("nobody panicked");
        heard.retain(|line| line.starts_with("an app's answer has "));
        assert_eq!(heard.len(), lines_heard + usize::from(is_told), "{given:?}: {heard:?}");
        lines_heard = heard.len();
        assert!(heard.iter().all(|line| !line.contains(char::is_control)), "{heard:?}");
    }
}

const OCTETS: &str = "application/octet-stream";

/// RFC 9110 9.3.2: "The HEAD method is identical to GET except that the server MUST NOT send content in
/// the response."
#[test]
fn head_is_get_without_the_body() {
    struct Heads;
    impl App for Heads {
        fn request(&mut self, request: &tidings::Request<'_>) -> Option<Response> {
            match (request.method(), request.path()) {
                ("GET", "/page" | "/both") => Some(Response::new("text/plain", "a page")),
                ("HEAD", "/both") => Some(Response::new("text/plain", "short")),
                _ => None,
            }
        }
    }
    let mut server = wire::Server::start_with(|_| {}, Some(Box::new(Heads)));
    for (target, status, length) in [("/page", 200, "6\r\n"), ("/both", 200, "5\r\n"), ("/nothing", 404, "1")] {
        let wire = server.connect();
        server.send(wire, format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let answer = String::from_utf8(server.receive(wire)).expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains(&format!("\r\nContent-Length: {length}")), "{target}: {answer}");
    }
}

/// protocol: the playground, unless the program that embeds the server has an answer of its own
#[test]
fn an_app_may_have_a_page_of_its_own_at_the_root() {
    struct Home(bool);
    impl App for Home {
        fn request(&mut self, request: &tidings::Request<'_>) -> Option<Response> {
            let home = Response::new("text/html", format!("{} {:?}", request.path(), request.query()));
            self.0.then_some(home)
        }
    }
    for has_one in [true, false] {
        let mut server = wire::Server::start_with(|_| {}, Some(Box::new(Home(has_one))));
        let mut ask = |request: &str| {
            let wire = server.connect();
            server.send(wire, format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
            String::from_utf8(server.receive(wire)).expect("text")
        };
        assert_eq!(ask("GET /?a").ends_with("\r\n\r\n/ Some(\"a\")"), has_one);
        assert_eq!(ask("GET /").contains("<!doctype html>"), !has_one);
        assert_eq!(ask("HEAD /").contains("\r\nContent-Length: 6\r\n"), has_one);
        // The rest is the server's own, whatever an app would say.
        assert!(ask("POST /").starts_with("HTTP/1.1 405 "));
        for target in ["/channels", "/channels/a?wait=0", "/tidings.js", "/healthz", "/readyz", "/metrics"] {
            assert!(!ask(&format!("GET {target}")).contains("text/html"), "{target}");
        }
    }
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
    fn authorize_command(&mut self, _user: u64, operation: Operation, channels: &[&str]) -> Access {
        match channels.iter().find(|name| !name.starts_with("open")) {
            None => Access::Allow,
            Some(name) => Access::Deny(format!("{operation:?} in {name}: ask the doorman")),
        }
    }

    fn subscribed(&mut self, _user: u64, channels: &[&str], transport: Transport) {
        self.note("+", channels, transport);
    }

    fn unsubscribed(&mut self, _user: u64, channels: &[&str], transport: Transport) {
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

/// Knows people by the number of `?user=`, and hears which it is told.
struct Counter(Arc<Mutex<Vec<String>>>);

impl Counter {
    fn note(&self, what: &str, user: u64) {
        self.0.lock().expect("nobody panicked").push(format!("{what} {user}"));
    }

    fn access(request: &tidings::Request<'_>) -> Access {
        let user = request.query().and_then(|query| query.rsplit_once("user="));
        match user.map(|(_, number)| number.parse()) {
            None => Access::Allow,
            Some(Ok(user)) => Access::AllowAs(user),
            Some(Err(_)) => Access::Deny("user must be a number".to_owned()),
        }
    }
}

impl App for Counter {
    fn authorize(&mut self, request: &tidings::Request<'_>, operation: Operation, _: &[&str]) -> Access {
        match operation {
            Operation::Subscribe => Counter::access(request),
            // Who it is was said for reading.
            _ => Access::AllowAs(99),
        }
    }

    fn authorize_command(&mut self, user: u64, operation: Operation, _: &[&str]) -> Access {
        self.note(&format!("{operation:?}"), user);
        Access::AllowAs(98)
    }

    fn upgrade(&mut self, request: &tidings::Request<'_>) -> Option<Access> {
        (request.path() != "/none").then(|| Counter::access(request))
    }

    fn message(&mut self, message: &Inbound<'_>) -> Reaction {
        self.note("message", message.user);
        if message.payload == b"publish" { Reaction::Publish } else { Reaction::Ignore }
    }

    fn subscribed(&mut self, user: u64, _: &[&str], _: Transport) {
        self.note("+", user);
    }

    fn unsubscribed(&mut self, user: u64, _: &[&str], _: Transport) {
        self.note("-", user);
    }
}

/// Every hook is told who it is that speaks, comes or goes.
#[test]
fn an_app_knows_a_connection_by_a_number_of_its_own() {
    let heard = Arc::default();
    let mut server = wire::Server::start_with(|_| {}, Some(Box::new(Counter(Arc::clone(&heard)))));
    let news = move || std::mem::take(&mut *heard.lock().expect("nobody panicked"));

    let ann = server.websocket(&format!("/channels/a?user={}", u64::MAX), Some("tidings.v1"));
    let ben = server.websocket("/channels/a?user=7", None);
    let nobody = server.websocket("/channels/a", None);
    assert_eq!(news(), [format!("+ {}", u64::MAX).as_str(), "+ 7", "+ 0"]);
    for (command, told) in
        [("subscribe b", &["Subscribe", "+"][..]), ("publish a\nx", &["Publish"]), ("unsubscribe b", &["-"])]
    {
        server.send(ann.wire, &client_frame(TEXT, command.as_bytes()));
        assert_eq!(news(), told.iter().map(|what| format!("{what} {}", u64::MAX)).collect::<Vec<_>>(), "{command}");
    }
    server.send(ben.wire, &client_frame(TEXT, b"x"));
    server.send(nobody.wire, &client_frame(TEXT, b"x"));
    assert_eq!(news(), ["message 7", "message 0"]);
    // The next on a slot that came free is somebody else.
    for wire in [ben.wire, nobody.wire, ann.wire] {
        server.turns.os().reset(wire);
        server.settle();
    }
    assert_eq!(news(), ["- 7".to_owned(), "- 0".to_owned(), format!("- {}", u64::MAX)]);
    let next: Vec<_> = (0..3).map(|_| server.websocket("/channels/a", None)).collect();
    assert_eq!(news(), ["+ 0"; 3]);
    server.send(next[0].wire, &client_frame(TEXT, b"x"));
    assert_eq!(news(), ["message 0"]);

    // Each poll of a connection says it anew.
    let poll = server.connect();
    for (query, user) in [("?wait=0&user=5", "5"), ("?wait=0", "0"), ("?wait=0&user=6", "6")] {
        server.send(poll, &clients::get("a", query, ""));
        assert_eq!(news(), [format!("+ {user}"), format!("- {user}")]);
    }
    let stream = server.connect();
    server.send(stream, &clients::get("a", "?transport=sse&user=8", ""));
    server.turns.os().close_client(stream);
    server.settle();
    assert_eq!(news(), ["+ 8", "- 8"]);
}

/// A WebSocket of the app's own: none, one, one of somebody, or the reason why not.
#[test]
fn an_app_opens_websockets_on_its_own_paths() {
    let heard = Arc::default();
    let mut server = wire::Server::start_with(|_| {}, Some(Box::new(Counter(Arc::clone(&heard)))));
    let news = move || std::mem::take(&mut *heard.lock().expect("nobody panicked"));
    for (target, told) in [("/", "message 0"), ("/x?user=1", "message 1"), ("/y?user=2", "message 2")] {
        let mut socket = server.websocket(target, None);
        server.send(socket.wire, &client_frame(TEXT, b"hello"));
        assert_eq!((news(), socket.heard(&mut server)), (vec![told.to_owned()], vec![]), "{target}");
        server.send(socket.wire, &client_frame(TEXT, b"publish"));
        let closed = "close 1008 this connection reads no channel, so there is none to publish to";
        assert_eq!((news(), socket.heard(&mut server)), (vec![told.to_owned()], vec![closed.to_owned()]), "{target}");
    }
    let upgrade = String::from_utf8(clients::upgrade("a", "", None)).expect("ASCII");
    let foreign = upgrade.replacen("\r\n", "\r\nOrigin: https://evil.example\r\n", 1);
    for (request, target, want) in [
        (&upgrade, "/x?user=me", "HTTP/1.1 403 Forbidden\r\n"),
        (&upgrade, "/none", "HTTP/1.1 404 Not Found\r\n"),
        (&upgrade, "/tidings.js", "HTTP/1.1 200 OK\r\n"),
        (&upgrade, "/healthz", "HTTP/1.1 200 OK\r\n"),
        (&foreign, "/x", "HTTP/1.1 403 Forbidden\r\n"),
        (&foreign, "/", "HTTP/1.1 403 Forbidden\r\n"),
        (&foreign, "/tidings.js", "HTTP/1.1 200 OK\r\n"),
    ] {
        let wire = server.connect();
        server.send(wire, request.replacen("/channels/a", target, 1).as_bytes());
        let answer = String::from_utf8_lossy(&server.receive(wire)).into_owned();
        assert!(answer.starts_with(want), "{target}: {answer}");
        let says_why = r#""code":"not_allowed","message":"user must be a number""#;
        assert_eq!(answer.contains(says_why), target.ends_with("=me"), "{answer}");
    }
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
    let mut server = Server::bind_app("127.0.0.1:0", Config::default(), |_| Site).expect("a free port");
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

/// An app publishes by itself, with the handle it was made with.
#[test]
fn an_app_is_made_with_a_handle_to_its_server() {
    struct Porter(Handle);
    impl App for Porter {
        fn subscribed(&mut self, _: u64, channels: &[&str], _: Transport) {
            if channels != ["door"] {
                self.0.publish("door", channels.join(",")).expect("there is room");
            }
        }
    }
    let listener = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    for server in [
        Server::bind_app("127.0.0.1:0", Config::default(), Porter),
        Server::from_listener_app(listener(), Config::default(), Porter),
    ] {
        let server = server.expect("a free port");
        let (address, handle) = (server.local_addrs()[0], server.handle());
        let thread = std::thread::spawn(move || server.run().expect("the loop turns"));
        Request::new(address, "GET", "/channels/a,b?wait=0").send();
        let told = Request::new(address, "GET", "/channels/door?after=earliest").send().json();
        assert_eq!(told["messages"][0]["data"].str(), "a,b");
        handle.stop();
        thread.join().expect("the server's thread ended without a panic");
    }
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
    for (error, begins) in [
        (Server::bind("127.0.0.1", Config::default()), "no address to listen on: invalid socket address; right is "),
        (Server::bind("no such host:80", Config::default()), "no address to listen on: "),
        (Server::bind(&[][..], Config::default()), "no address to listen on: the list of them is empty; right is "),
    ] {
        let error = error.expect_err("there is no address");
        assert!(matches!(error, Error::Address(_)) && error.source().is_some(), "{error}");
        assert!(error.to_string().starts_with(begins), "{error}");
        assert!(error.to_string().ends_with("one like 127.0.0.1:8080"), "{error}");
    }

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
    let message = Publication::from("x").with_event("price").with_media_type("text/csv");
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
