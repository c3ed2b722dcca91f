//! What an embedder sees of its server: the app's own answers, why a server cannot start or go on,
//! and what a publish says when nothing came of it.

mod common;

use std::error::Error as _;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::http::Request;
use tidings::{App, Code, Config, Error, PublishError, Response, Server};

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
