//! What the contract says of corners: several faults at once, and inputs that few clients send.

mod common;

use std::time::Duration;

use common::TestServer;
use common::http::{Client, Request, Response};
use common::trace::{Server, UPGRADE, refusal};
use tidings::{Access, App, Operation};

/// Lets nobody do anything to the channel `denied`.
struct Doorkeeper;

impl App for Doorkeeper {
    fn authorize(&mut self, _: &tidings::Request<'_>, _: Operation, channels: &[&str]) -> Access {
        if channels.contains(&"denied") { Access::Deny("not here".to_owned()) } else { Access::Allow }
    }
}

/// protocol: Of several faults the first is told, in this order: framing, `Host`, method, query and transport, `Origin`, names, other inputs, rights, the size of the body, draining, what the log decides.
#[test]
fn of_several_faults_the_first_is_told() {
    let mut config = tidings::Config::default();
    config.message_bytes_max = 4;
    (config.drain, config.drain_grace) = (Duration::from_secs(60), Duration::from_secs(60));
    let server = tidings::Server::bind_app("127.0.0.1:0", config, |_| Doorkeeper).expect("a free port");
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let thread = std::thread::spawn(move || server.run().expect("the loop turns"));
    let moved = "\"1-0\"";
    let first = Request::new(address, "POST", "/channels/a").header("If-Match", moved).send();
    assert_eq!(refusal(&first), "412 channel_moved", "the last fault, before the server drains");
    handle.shutdown();
    handle.stats(common::PATIENCE);

    // Each request has the fault it is told and all that come later.
    for (method, target, headers, body, want) in [
        (
            "PUT",
            "/channels/a%20b?event=%zz",
            "Host: evil.example|Origin: http://evil.example",
            "12345",
            "400 bad_request",
        ),
        ("PUT", "/channels/a%20b?event=%zz", "Origin: http://evil.example", "12345", "421 wrong_host"),
        ("PUT", "/channels/a%20b?event=%zz", "Origin: http://evil.example", "12345", "405 method_not_allowed"),
        ("POST", "/channels/a%20b?event=%zz", "Origin: http://evil.example", "12345", "400 bad_query"),
        (
            "POST",
            "/channels/a%20b",
            "Origin: http://evil.example|Idempotency-Key: a b",
            "12345",
            "403 origin_not_allowed",
        ),
        ("POST", "/channels/a%20b", "Idempotency-Key: a b", "12345", "400 bad_channel"),
        ("POST", "/channels/denied", "Idempotency-Key: a b", "12345", "400 bad_key"),
        ("POST", "/channels/denied", "", "12345", "403 not_allowed"),
        ("POST", "/channels/a", "", "12345", "413 message_too_large"),
        ("POST", "/channels/a", "", "1234", "503 draining"),
    ] {
        let host = if want.starts_with("421") { "evil.example".to_owned() } else { address.to_string() };
        let mut request = Request::new(address, method, target).host(&host).header("If-Match", moved).body(body);
        for (name, value) in headers.split_terminator('|').filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        assert_eq!(refusal(&request.send()), want);
    }

    // A transport that is none stands with the query, before the page that asks.
    let read = |target: &str| Request::new(address, "GET", target).header("Sec-Fetch-Site", "cross-site").send();
    assert_eq!(refusal(&read("/channels/a%20b?transport=carrier-pigeon&wait=x")), "400 bad_transport");
    assert_eq!(refusal(&read("/channels/a%20b?wait=x")), "403 origin_not_allowed");
    handle.stop();
    thread.join().expect("the server's thread ended without a panic");
}

/// protocol: HTTP/1.0 without a `Host` is 421 too.
#[test]
fn on_loopback_somebody_must_be_named() {
    let ask = |server: &TestServer, request: &str| -> Response {
        let mut client = Client::connect(server.address);
        client.send(request);
        client.response("GET")
    };
    let server = TestServer::start();
    assert_eq!(refusal(&ask(&server, "GET /healthz HTTP/1.0\r\n\r\n")), "421 wrong_host");
    assert_eq!(ask(&server, "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").status, 200);
    assert_eq!(ask(&server, "GET http://localhost/healthz HTTP/1.0\r\n\r\n").status, 200, "by the target");

    let open = TestServer::listen("0.0.0.0:0", |config| config.allow_anyone_to_publish = true);
    assert_eq!(ask(&open, "GET /healthz HTTP/1.0\r\n\r\n").status, 200, "not on loopback");
}

/// protocol: A `#` in the type would begin the URL's fragment: such a type counts as none there.
#[test]
fn a_type_cannot_end_a_data_url() {
    let server = Server::start();
    server.publish_with("/channels/a", "Content-Type: image/x#y\r\n", b"\xff");
    server.publish_with("/channels/a", "Content-Type: image/xy\r\n", b"\xff");
    let mut stream = server.inner.sse("/channels/a?after=earliest");
    for want in ["data:application/octet-stream;base64,/w==", "data:image/xy;base64,/w=="] {
        assert_eq!(stream.next_event().expect("a message").data, want);
    }
    let mut stream = server.inner.sse("/channels/a?after=earliest&format=json");
    assert_eq!(stream.next_json()["type"].str(), "image/x#y", "elsewhere it stays");
}

/// protocol: image, audio or video type other than SVG and `+xml`
#[test]
fn an_image_made_of_xml_is_an_attachment() {
    let server = Server::start();
    for (media_type, want) in [
        ("image/x+xml", Some("attachment")),
        ("Video/X+XML; a=b", Some("attachment")),
        ("audio/xml", None),
        ("image/png", None),
    ] {
        let id = server.publish_with("/channels/a", &format!("Content-Type: {media_type}\r\n"), b"x");
        let number: u64 = id["E-".len()..].parse().expect("a number");
        let answer = server.get(&format!("/channels/a?after=E-{}&format=raw", number - 1));
        assert_eq!(answer.header("Content-Disposition"), want, "{media_type}");
    }
}

/// protocol: A channel with subscribers alone has no `oldest` and no `newest`.
#[test]
fn who_keeps_nothing_has_no_ends() {
    let server = TestServer::start();
    let _poll = server.request("GET", "/channels/a").start();
    server.until_subscribed("a", "poll", 1);
    let entry = &server.get("/channels").json()["channels"].array()[0].clone();
    assert_eq!(entry.keys(), ["name", "subscribers", "messages", "bytes"]);
}

/// protocol: `heartbeat` is the ping's interval in seconds, with milliseconds behind a point if it has any (`0.250`).
#[test]
fn the_heartbeat_may_have_a_fraction() {
    for (ping, want) in [(250, "0.250"), (25_000, "25"), (61_005, "61.005")] {
        let server = Server::start_with(|config| config.ping = Duration::from_millis(ping));
        let mut client = server.request("GET /channels/a", UPGRADE).start();
        let head = client.response_head();
        let mut websocket = common::websocket::WebSocket { head, client };
        let frame = format!("{:?}", websocket.next_frame());
        assert!(frame.contains(&format!("\\\"heartbeat\\\":{want}}}")), "{frame}");
    }
}
