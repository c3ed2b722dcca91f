//! The contract's section "Other resources": the list, DELETE, OPTIONS, pages, health; errors and
//! the header fields of all answers.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::http::{Client, Request, Response};
use common::websocket::WebSocket;
use common::{TestServer, other_epoch, shifted};

// The list of channels.

/// protocol: `GET /channels` | `{"channels":[{"name","subscribers":{"websocket","sse","poll"}
#[test]
fn the_list_tells_who_reads_and_what_is_kept() {
    let server = TestServer::start();
    let empty = server.get("/channels").json();
    assert_eq!(empty.keys(), ["channels"]);
    assert!(empty["channels"].array().is_empty());

    let first = server.publish("b", "12345");
    let last = server.publish("b", "67");
    server.publish("a", "");
    let mut stream = server.sse("/channels/b");
    stream.next_block();
    let mut sockets = [server.websocket("/channels/b,c", &[]), server.websocket("/channels/b", &[])];
    sockets.iter_mut().for_each(|socket| _ = socket.next_json());
    let _poll = server.request("GET", "/channels/c").start();
    server.until_subscribed("c", "poll", 1);

    let list = server.get("/channels").json();
    assert!(!list.has("next"));
    assert_eq!(list["channels"].each("name"), ["a", "b", "c"]);
    let [a, b, c] = list["channels"].array() else { panic!("three channels") };
    assert_eq!(b.keys(), ["name", "subscribers", "messages", "bytes", "oldest", "newest"]);
    assert_eq!(b["subscribers"].keys(), ["websocket", "sse", "poll"]);
    for (entry, websocket, sse, poll, messages) in
        [(a, 0.0, 0.0, 0.0, 1.0), (b, 2.0, 1.0, 0.0, 2.0), (c, 1.0, 0.0, 1.0, 0.0)]
    {
        let got = ["websocket", "sse", "poll"].map(|kind| entry["subscribers"][kind].number());
        assert_eq!((got, entry["messages"].number()), ([websocket, sse, poll], messages), "{entry:?}");
    }
    assert_eq!((b["oldest"].str(), b["newest"].str()), (&*first, &*last));
    assert!(b["bytes"].number() >= 7.0, "{b:?}");
    assert!(!c.has("oldest") && !c.has("newest"), "nothing is kept of it: {c:?}");
}

/// protocol: sorted by name, at most 1000, `?prefix=`, `?after=NAME` for more; what is empty is left out
#[test]
fn the_list_comes_in_sorted_pages() {
    let server = TestServer::start();
    let mut client = server.connect();
    // Published in another order than sorted.
    for nth in (0..1001).rev() {
        client.send(server.request("POST", &format!("/channels/p{nth:04}")).bytes());
    }
    for _ in 0..1001 {
        assert_eq!(client.response("POST").status, 200);
    }
    for name in ["P", "p~", "q"] {
        server.publish(name, "");
    }

    let all: Vec<String> = ["P".into()]
        .into_iter()
        .chain((0..1001).map(|nth| format!("p{nth:04}")))
        .chain(["p~".into(), "q".into()])
        .collect();
    let first = server.get("/channels").json();
    assert_eq!(first["channels"].each("name"), all[..1000]);
    let second = server.get(&format!("/channels?after={}", first["next"].str())).json();
    assert_eq!(second["channels"].each("name"), all[1000..]);
    assert!(!second.has("next"));

    let page = |query: &str| server.get(&format!("/channels?{query}")).json();
    let names = |query: &str| page(query)["channels"].each("name").into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names("prefix=p000"), all[1..11]);
    assert_eq!(names("prefix=p000&after=p0007"), all[9..11]);
    assert_eq!(names("prefix=q&after=a"), ["q"]);
    assert_eq!(names("prefix=p&after=p1"), ["p1000", "p~"]);
    assert_eq!(names("prefix=%70%7e"), ["p~"]);
    assert!(names("prefix=x").is_empty() && names("after=q").is_empty());
    let exactly_one_page = page("prefix=p&after=p0000");
    assert_eq!(exactly_one_page["channels"].array().len(), 1000);
    assert_eq!(exactly_one_page["next"], "p1000");
    assert!(!page("prefix=p0").has("next"), "exactly 1000, and no more");

    server.delete("/channels/P");
    assert_eq!(names("")[0], "p0000", "empty, and nobody reads it");
}

/// protocol: `DELETE /channels/{name}` | forgets its kept messages: 204, also if there are none.
/// protocol: Subscribers stay; numbers are not reused
#[test]
fn delete_forgets_messages_and_nothing_else() {
    let server = TestServer::start();
    server.publish("other", "kept");
    let mut stream = server.sse("/channels/a");
    stream.next_block();
    let last = server.publish("a", "old");
    assert_eq!(stream.next_event().expect("a message").data, "old");

    let answer = server.delete("/channels/a");
    assert_eq!((answer.status, answer.body.len(), answer.header("Content-Length")), (204, 0, None));
    assert!(server.poll("a", "earliest")["messages"].array().is_empty());
    assert_eq!(server.poll("other", "earliest")["messages"].each("data"), ["kept"]);

    let next = server.publish("a", "new");
    assert_eq!(next, shifted(&last, 1));
    assert_eq!(stream.next_event().expect("the subscriber stayed").data, "new");
    for channel in ["a", "a", "never-seen"] {
        assert_eq!(server.delete(&format!("/channels/{channel}")).status, 204, "{channel}");
    }
}

/// protocol: `OPTIONS` | CORS preflight
#[test]
fn options_names_the_methods() {
    let server = TestServer::start();
    for (target, allow) in [
        ("/channels/a", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("/channels/a,b", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("/channels", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, POST, DELETE, OPTIONS"),
    ] {
        let answer = server.request("OPTIONS", target).send();
        assert_eq!((answer.status, answer.header("Allow")), (204, Some(allow)), "{target}");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{target}");
    }
}

/// protocol: `GET /healthz`, `/readyz`, `/metrics` | the loop turns; accepting work (503 while draining
#[test]
fn health_and_readiness() {
    let server = TestServer::start_with(|config| config.drain_grace = Duration::from_secs(60));
    for target in ["/healthz", "/readyz"] {
        assert_eq!(server.get(target).status, 200, "{target}");
        let head = server.head(target);
        assert_eq!((head.status, head.body.len()), (200, 0), "{target}");
    }
    server.drain();
    assert_eq!(server.get("/healthz").status, 200, "the loop still turns");
    let answer = server.get("/readyz");
    assert_eq!((answer.status, answer.code().as_str()), (503, "draining"));
}

/// protocol: Prometheus text, version 0.0.4, with no label that names a channel
#[test]
fn metrics_are_answered_as_prometheus_asks_for_them() {
    let server = TestServer::start_with(|config| config.drain_grace = Duration::from_secs(60));
    server.publish("a.channel", "x");
    // What Prometheus sends.
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let answer = server.request("GET", "/metrics").header("Accept", accept).send();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let text = answer.text();
    for line in ["# TYPE tidings_head gauge", "tidings_head 1", "tidings_messages_published_total 1"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("a.channel"), "{text}");
    let head = server.head("/metrics");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("Content-Type"), answer.header("Content-Type"));
    assert_eq!(server.post("/metrics", "").status, 405);
    server.drain();
    assert!(server.get("/metrics").text().lines().any(|line| line == "tidings_draining 1"), "also while leaving");
}

// Errors.

/// protocol: Errors are JSON: `{"error":{"status":413,"code":"message_too_large"
#[test]
fn an_error_is_a_json_object() {
    let server = TestServer::start();
    let answer = server.post("/channels/a", vec![b'x'; 300_000]);
    assert_eq!(answer.status, 413);
    let want = r#"{"error":{"status":413,"code":"message_too_large","message":"the message has 300000 bytes, the limit is 262144"}}"#;
    assert_eq!(answer.text().trim_end(), want);
    assert_eq!(answer.json()["error"].keys(), ["status", "code", "message"]);
}

/// protocol: one stable code per cause: bad_request, bad_channel, too_many_channels
#[test]
fn every_cause_has_its_code() {
    let server = TestServer::start();
    let now = server.now();
    let stale = format!("\"{}\"", other_epoch(&now));
    let keyed = |body: &str| server.request("POST", "/channels/keyed").header("Idempotency-Key", "k").body(body);
    assert_eq!(keyed("x").send().status, 200);
    let get = |target: &str| server.request("GET", target);
    let post = |target: &str| server.request("POST", target);
    let many: Vec<String> = (0..65).map(|nth| format!("n{nth}")).collect();

    for (request, status, code) in [
        (get("/").header("Bad Name", "x"), 400, "bad_request"),
        (get("/").header("Content-Length", "1, 1"), 400, "bad_request"),
        (get("/channels/a/b"), 400, "bad_channel"),
        (get(&format!("/channels/{}", many.join(","))), 400, "too_many_channels"),
        (post("/channels/a?event=gap"), 400, "bad_event"),
        (post("/channels/a").header("Content-Type", "x"), 400, "bad_type"),
        (get("/channels/a?after=x"), 400, "bad_cursor"),
        (get("/channels/a?wait=121"), 400, "bad_wait"),
        (get("/channels/a?format=xml"), 400, "bad_format"),
        (get("/channels/a?transport=pigeon"), 400, "bad_transport"),
        (post("/channels/a").header("If-Match", "*"), 400, "bad_condition"),
        (post("/channels/a").header("Idempotency-Key", ""), 400, "bad_key"),
        (get("/channels/a?wait=0&wait=0"), 400, "bad_query"),
        (get("/").header("X", "x".repeat(17 * 1024)), 431, "head_too_large"),
        (post("/channels/a").body(vec![0; 256 * 1024 + 1]), 413, "message_too_large"),
        (keyed("y"), 422, "idempotency_mismatch"),
        (post("/channels/a").header("If-Match", &stale), 412, "channel_moved"),
        (post("/channels/a").header("Origin", "https://evil.example"), 403, "origin_not_allowed"),
        (get("/").host("evil.example"), 421, "wrong_host"),
        (get("/nothing"), 404, "not_found"),
        (server.request("PUT", "/channels/a"), 405, "method_not_allowed"),
        (get("/channels/a?transport=websocket"), 426, "upgrade_required"),
    ] {
        let answer = request.send();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
    }
}

/// protocol: Errors are JSON:
#[test]
fn the_contract_names_every_code() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md")).expect("the contract");
    let (_, list) = page.split_once("one stable code per cause:").expect("the list of codes");
    let (list, _) = list.split_once(". From one address").expect("its end");
    let named: Vec<&str> = list.split(|c: char| !c.is_ascii_lowercase() && c != '_').collect();
    for code in tidings::Code::ALL {
        assert!(named.contains(&code.name()), "{}", code.name());
    }
}

/// protocol: method_not_allowed (with `Allow`), upgrade_required
#[test]
fn an_error_says_in_header_fields_what_machines_need() {
    let server = TestServer::start();
    for (method, target, allow) in [
        ("PUT", "/channels/a", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("PATCH", "/channels/a,b", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("post", "/channels/a", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("POST", "/channels", "GET, HEAD, OPTIONS"),
        ("DELETE", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
    ] {
        let answer = server.request(method, target).send();
        assert_eq!((answer.status, answer.header("Allow")), (405, Some(allow)), "{method} {target}");
    }
    // RFC 9110 15.5.22 and RFC 6455 4.4.
    let mut wrong_version = server.request("GET", "/channels/a");
    for (name, value) in [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "8")] {
        wrong_version = wrong_version.header(name, value);
    }
    for request in [server.request("GET", "/channels/a?transport=websocket"), wrong_version] {
        let answer = request.send();
        assert_eq!((answer.status, answer.code().as_str()), (426, "upgrade_required"));
        assert!(answer.lists("Upgrade", "websocket") && answer.lists("Connection", "upgrade"), "{answer:?}");
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    }
}

/// protocol: too_many_connections (a small reserve of connections over the limit is read and answered, the rest closed)
#[test]
fn a_connection_too_many_is_told_so() {
    let server = TestServer::start_with(|config| {
        config.connections_max = 2;
        // Whoever is closed here is closed for the limit.
        config.head_timeout = Duration::from_secs(3600);
    });
    let mut kept = [server.connect(), server.connect()];
    for client in &mut kept {
        client.send(server.request("GET", "/healthz").bytes());
        assert_eq!(client.response("GET").status, 200);
    }
    let refused = server.get("/healthz");
    assert_eq!((refused.status, refused.code().as_str()), (503, "too_many_connections"));
    assert!(refused.header("Retry-After").is_some() && refused.lists("Connection", "close"), "{refused:?}");

    // The reserve is small: of many silent ones, most are closed at once.
    let mut over: Vec<Client> = (0..64).map(|_| server.connect()).collect();
    over.last_mut().expect("64").assert_closed();
    drop(over);
    server.until("a place is free", || server.connect_and_get().is_some_and(|answer| answer.status == 503));

    let [first, second] = kept;
    drop(first);
    server.until("a place is free", || server.connect_and_get().is_some_and(|answer| answer.status == 200));
    drop(second);
}

/// protocol: channels_full (503: every channel keeps a message or has a subscriber; others are forgotten first)
#[test]
fn channels_are_bounded_and_idle_ones_make_room() {
    let server = TestServer::start_with(|config| config.channels_max = 2);
    server.publish("a", "kept");
    let stream = server.sse("/channels/b");
    for request in [
        server.request("POST", "/channels/c"),
        server.request("GET", "/channels/c?wait=0"),
        WebSocket::handshake(server.request("GET", "/channels/c")),
    ] {
        let answer = request.send();
        assert_eq!((answer.status, answer.code().as_str()), (503, "channels_full"), "{answer:?}");
    }
    server.delete("/channels/a");
    server.publish("c", "in the place of a");
    assert_eq!(server.post("/channels/a", "x").code(), "channels_full");
    drop(stream);
    server.until("b is forgotten", || server.post("/channels/a", "x").status == 200);
}

/// protocol: busy (503: a server-wide byte budget is spent)
#[test]
fn unfinished_requests_share_a_budget() {
    let server = TestServer::start_with(|config| config.intake_bytes_max = 64 * 1024);
    let unfinished = |bytes: usize| {
        let whole = server.request("POST", "/channels/a").body(vec![b'x'; 200 * 1024]).bytes();
        let mut client = server.connect();
        client.send(&whole[..bytes]);
        client
    };
    let mut first = unfinished(40 * 1024);
    let mut second = unfinished(40 * 1024);
    // One of them is over the budget, whichever came last.
    server.until("one is refused", || server.stats().connections > 1 && server.stats().intake_bytes <= 64 * 1024);
    let mut third = unfinished(100 * 1024);
    let answer = third.response("POST");
    assert_eq!((answer.status, answer.code().as_str()), (503, "busy"));
    assert!(answer.header("Retry-After").is_some());
    // What is held for others is given back, and small requests are served all the while.
    assert_eq!(server.post("/channels/a", "small").status, 200);
    first.half_close();
    second.half_close();
    server.until("the budget is whole again", || server.stats().intake_bytes == 0);
    assert_eq!(server.post("/channels/a", vec![b'x'; 60 * 1024]).status, 200);
}

/// protocol: request_timeout (408), expectation_failed (417), version_not_supported (505)
#[test]
fn what_breaks_http_is_refused_and_ends_the_connection() {
    let server = TestServer::start_with(|config| config.head_timeout = Duration::from_millis(100));
    for (bytes, status, code) in [
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
        ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "version_not_supported"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nExpect: coffee\r\n\r\n", 417, "expectation_failed"),
        (
            "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "bad_request",
        ),
        ("GET / HTTP/1.1\r\nHost: loc", 408, "request_timeout"),
    ] {
        let mut client = server.connect();
        client.send(bytes);
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{bytes:?}");
        assert!(answer.lists("Connection", "close"), "{bytes:?}: {answer:?}");
        client.assert_closed();
    }
}

/// protocol: The message says what was wrong, what would be right, and for 403 and 421 the option to set.
#[test]
fn an_error_helps() {
    let server = TestServer::start();
    let get = |target: &str| server.request("GET", target);
    for (request, words) in [
        (get("/channels/a?wait=x"), &["wait", "0 to 120"][..]),
        (get("/channels/a?after=x"), &["after", "cursor", "1766-42", "now", "earliest"]),
        (get("/channels/a?format=x"), &["json", "raw"]),
        (get("/channels/a%20b"), &["0x20", "A-Z a-z 0-9"]),
        (get("/channels/a?transport=x"), &["sse", "poll", "view", "websocket"]),
        (get("/nothing"), &["/channels"]),
        (server.request("PUT", "/channels"), &["GET, HEAD, OPTIONS"]),
        (get("/").host("push.example"), &["push.example", "--host"]),
        (
            server.request("POST", "/channels/a").header("Origin", "https://a.example"),
            &["https://a.example", "--origin"],
        ),
        (get("/channels/a").header("Sec-Fetch-Site", "cross-site"), &["--origin"]),
    ] {
        let message = request.send().message();
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
    }
}

// Header fields.

/// protocol: Every answer has `Date`; every dynamic one `Cache-Control: no-store`
#[test]
fn every_answer_has_a_date_and_is_not_to_be_stored() {
    let server = TestServer::start();
    server.publish("a", "x");
    let get = |target: &str| server.request("GET", target);
    let requests: Vec<(Request, u16)> = vec![
        (server.request("POST", "/channels/a"), 200),
        (get("/channels/a?after=earliest"), 200),
        (get("/channels/a?after=earliest&format=raw"), 200),
        (get("/channels/a?wait=0&format=raw"), 204),
        (server.request("HEAD", "/channels/a"), 200),
        (get("/channels"), 200),
        (server.request("DELETE", "/channels/a"), 204),
        (server.request("OPTIONS", "/channels/a"), 204),
        (get("/healthz"), 200),
        (get("/readyz"), 200),
        (get("/nothing"), 404),
        (get("/channels/a?wait=x"), 400),
        (get("/").host("evil.example"), 421),
        (get("/").header("Bad Name", "x"), 400),
        (server.request("PUT", "/"), 405),
        (get("/channels/a").header("Accept", "text/event-stream"), 200),
        (WebSocket::handshake(get("/channels/a")), 101),
    ];
    for (request, status) in requests {
        let answer = request.start().response_head();
        let asked = String::from_utf8_lossy(&request.bytes()).lines().next().map(str::to_owned);
        assert_eq!(answer.status, status, "{asked:?}");
        let date = answer.header("Date").unwrap_or_else(|| panic!("{asked:?} has no Date"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert!(unix_seconds(date).abs_diff(now) <= 5, "{asked:?}: {date}");
        if status != 101 {
            assert!(answer.lists("Cache-Control", "no-store"), "{asked:?}: {answer:?}");
            assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{asked:?}");
        }
    }
}

/// protocol: Every JSON body of an HTTP answer, errors and polls included, ends in one newline.
#[test]
fn json_ends_in_one_newline() {
    let server = TestServer::start();
    let post = || server.request("POST", "/channels/a").header("Idempotency-Key", "k").body("x");
    for answer in [
        post().send(),
        post().send(),
        server.get("/channels/a?after=earliest"),
        server.get("/channels/a?wait=0"),
        server.get("/channels"),
        server.get("/nothing"),
    ] {
        assert!(answer.text().ends_with("}\n") && answer.text().lines().count() == 1, "{answer:?}");
    }
    // A payload is the publisher's, byte for byte.
    server.post("/channels/b", "{}");
    assert_eq!(server.get("/channels/b?after=earliest&format=raw").text(), "{}");
}

/// protocol: `X-Content-Type-Options: nosniff` and, where negotiated, `Vary`
#[test]
fn what_was_chosen_by_accept_says_so() {
    let server = TestServer::start();
    let get =
        |accept: &str| server.request("GET", "/channels/a?wait=0").header("Accept", accept).start().response_head();
    for accept in ["*/*", "application/json", "text/event-stream", "text/html"] {
        let answer = get(accept);
        assert!(answer.lists("Vary", "Accept"), "{accept}: {answer:?}");
    }
    assert!(!server.get("/channels").lists("Vary", "Accept"), "there is nothing to choose from");
    assert!(!server.post("/channels/a", "").lists("Vary", "Accept"));
}

/// protocol: pages have a strict Content-Security-Policy and `Referrer-Policy: no-referrer`.
#[test]
fn pages_are_strict() {
    let server = TestServer::start();
    let pages: [Response; 3] = [
        server.get("/"),
        server.get("/channels/a?transport=view"),
        server.request("GET", "/channels/a").header("Accept", "text/html,application/json;q=0.9,*/*;q=0.8").send(),
    ];
    for page in pages {
        assert_eq!(page.status, 200);
        assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("Referrer-Policy"), Some("no-referrer"));
        let policy = page.header("Content-Security-Policy").expect("a policy");
        let directives: BTreeSet<&str> = policy.split(';').map(str::trim).collect();
        assert!(directives.contains("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe-") && !policy.contains('*'), "{policy}");
        assert!(page.text().starts_with("<!doctype html>"));
    }
}

/// protocol: `GET /` | the playground
#[test]
fn the_playground_reads_by_each_transport() {
    let server = TestServer::start();
    let page = server.get("/");
    assert!(page.text().contains("import { connect } from '/tidings.js';"));
    for transport in ["websocket", "sse", "poll"] {
        assert!(page.text().contains(&format!("{transport}: '")), "{transport}");
    }
    let policy = page.header("Content-Security-Policy").expect("a policy");
    assert!(policy.contains("script-src 'self' 'sha256-"), "the client, and the page's own script: {policy}");
}

/// protocol: `GET /tidings.js` | the browser client, one ES module, with a strong `ETag`: `If-None-Match` with it is answered 304
#[test]
fn the_browser_client_is_loaded_once() {
    let server = TestServer::start();
    let client = server.get("/tidings.js");
    assert_eq!(client.status, 200);
    assert_eq!(client.header("Content-Type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(client.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(client.header("Cache-Control"), Some("no-cache"), "kept, and asked about each time");
    assert!(client.text().contains("export const connect"));
    assert!(!client.text().contains("http://") && !client.text().contains("https://"));
    let etag = client.header("ETag").expect("an ETag").to_owned();
    assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "strong: {etag}");
    let head = server.request("HEAD", "/tidings.js").send();
    assert_eq!((head.status, head.header("ETag"), head.text()), (200, Some(&*etag), ""));

    for (tags, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"other\", {etag}"), 304),
        (format!("\"a,b\" ,{etag},\"c\""), 304),
        ("*".to_owned(), 304),
        ("\"other\"".to_owned(), 200),
        (etag.replace('"', ""), 200),
        (String::new(), 200),
    ] {
        let answer = server.request("GET", "/tidings.js").header("If-None-Match", &tags).send();
        assert_eq!(answer.status, status, "{tags}");
        assert_eq!(answer.header("ETag"), Some(&*etag), "{tags}");
        assert_eq!(answer.text().is_empty(), status == 304, "{tags}");
        assert_eq!(answer.header("Cache-Control"), Some("no-cache"), "{tags}");
    }
}

/// RFC 9110 5.6.7: `IMF-fixdate = day-name "," SP date1 SP time-of-day SP GMT`.
fn unix_seconds(date: &str) -> u64 {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    assert!(date.len() == 29 && date.is_ascii() && date.ends_with(" GMT"), "{date:?}");
    let number = |range: std::ops::Range<usize>| date[range].parse::<u64>().unwrap_or_else(|_| panic!("{date:?}"));
    let is_leap = |year: u64| year.is_multiple_of(if year.is_multiple_of(100) { 400 } else { 4 });
    let month = MONTHS.iter().position(|month| *month == &date[8..11]).unwrap_or_else(|| panic!("{date:?}")) as u64;
    let year = number(12..16);
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let days = before + lengths[..month as usize].iter().sum::<u64>() + number(5..7) - 1;
    assert_eq!(&date[..5], format!("{}, ", DAYS[days as usize % 7]), "{date:?}");
    assert_eq!((&date[7..8], &date[11..12], &date[16..17], &date[19..20], &date[22..23]), (" ", " ", " ", ":", ":"));
    days * 86_400 + number(17..19) * 3600 + number(20..22) * 60 + number(23..25)
}
