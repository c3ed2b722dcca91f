//! The contract's rules of tokens: who needs one, where it may stand, what it is good for, and
//! what becomes of those who came in by one that is taken away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::http::{Request, Response};
use common::trace::refusal;
use common::websocket::{Frame, WebSocket};
use common::{PATIENCE, TestServer};
use tidings::Tokens;

/// All tokens of these lines, as in a token file.
fn tokens(lines: &str) -> Tokens {
    let mut tokens = Tokens::default();
    if !lines.is_empty() {
        tokens.allow_lines(lines.as_bytes()).unwrap();
    }
    tokens
}

fn server(lines: &str) -> TestServer {
    TestServer::start_with(|config| config.tokens = tokens(lines))
}

/// Changes the tokens of a running server; returns when it has.
fn set_tokens(server: &TestServer, lines: &str) {
    server.handle.set_tokens(tokens(lines));
    server.stats();
}

const BOTH: &str = "publish p\nsubscribe s";

/// What a request with this token in `Authorization` gets: its status, or the refusal.
fn ask(server: &TestServer, request: &str, token: &str) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    let request = server.request(method, target);
    let request = if token.is_empty() { request } else { request.header("Authorization", format!("Bearer {token}")) };
    told(&request.send(), method)
}

fn told(answer: &Response, method: &str) -> String {
    let challenge = answer.header("WWW-Authenticate");
    match answer.status {
        401 => assert_eq!(challenge, Some("Bearer")),
        403 => assert_eq!(challenge, Some("Bearer error=\"invalid_token\"")),
        _ => assert_eq!(challenge, None),
    }
    if answer.status < 400 || method == "HEAD" { answer.status.to_string() } else { refusal(answer) }
}

const REQUIRED: &str = "401 token_required";
const WRONG: &str = "403 token_wrong";

/// protocol: 401 `token_required` (with `WWW-Authenticate: Bearer`) without, 403 `token_wrong` (with `WWW-Authenticate: Bearer error="invalid_token"`) with a wrong one.
/// protocol: Publish tokens guard POST, DELETE and inbound messages
/// protocol: token_required, token_wrong, origin_not_allowed
#[test]
fn what_each_kind_of_token_guards() {
    let writes = ["POST /channels/a", "DELETE /channels/a"];
    let reads = ["GET /channels/a?wait=0", "GET /channels/a,b?wait=0", "GET /channels/a?transport=view"];
    let sums = ["GET /channels", "GET /metrics"];
    // For each kind of request: what it gets without a token, with p, with s, with another.
    for (lines, write, read, sum) in [
        ("", ["ok"; 4], ["ok"; 4], ["ok"; 4]),
        ("publish p", [REQUIRED, "ok", WRONG, WRONG], ["ok"; 4], [REQUIRED, "ok", WRONG, WRONG]),
        ("subscribe s", ["ok"; 4], [REQUIRED, WRONG, "ok", WRONG], [REQUIRED, WRONG, "ok", WRONG]),
        (BOTH, [REQUIRED, "ok", WRONG, WRONG], [REQUIRED, "ok", "ok", WRONG], [REQUIRED, "ok", "ok", WRONG]),
    ] {
        let server = server(lines);
        for (requests, wants) in [(&writes[..], write), (&reads[..], read), (&sums[..], sum)] {
            for (token, want) in ["", "p", "s", "x"].into_iter().zip(wants) {
                for request in requests {
                    let got = ask(&server, request, token);
                    let is_right = if want == "ok" { !got.contains("token") } else { got == want };
                    assert!(is_right, "{request} with {token:?} where {lines:?}: {got}, not {want}");
                }
                let head = ask(&server, "HEAD /channels/a", token);
                let want = if requests[0] == reads[0] { want } else { continue };
                assert_eq!(head, if want == "ok" { "200" } else { &want[..3] }, "HEAD with {token:?} where {lines:?}");
            }
        }
    }
}

/// protocol: a browser whose `Accept` prefers `text/html` is told 401 and 403 by the viewer page, which asks for a token, in the place of JSON
#[test]
fn a_person_is_asked_for_a_token_by_the_page() {
    let server = server(BOTH);
    let get = |target: &str, accept: &str| server.request("GET", target).header("Accept", accept).send();
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = get("/channels/a?token=s", browser);
    assert_eq!(page.status, 200);
    for (target, status, challenge) in [
        ("/channels/a", 401, "Bearer"),
        ("/channels/a?transport=view", 401, "Bearer"),
        ("/channels/a?token=x", 403, "Bearer error=\"invalid_token\""),
    ] {
        let answer = get(target, browser);
        assert_eq!((answer.status, answer.header("WWW-Authenticate")), (status, Some(challenge)), "{target}");
        assert_eq!(answer.text(), page.text(), "{target}");
        for name in ["Content-Type", "Content-Security-Policy", "Referrer-Policy", "Cache-Control", "Vary"] {
            assert_eq!(answer.header(name), page.header(name), "{target}: {name}");
        }
    }
    for (target, accept, want) in [
        ("/channels/a", "*/*", REQUIRED),
        ("/channels/a", "text/html, application/json", REQUIRED),
        ("/channels/a?transport=view", "*/*", REQUIRED),
        ("/channels/a?transport=poll", browser, REQUIRED),
        ("/channels/a?token=x", "application/json", WRONG),
        ("/channels", browser, REQUIRED),
        ("/metrics", browser, REQUIRED),
        ("/channels/a?after=x", browser, "400 bad_cursor"),
    ] {
        assert_eq!(told(&get(target, accept), "GET"), want, "{target} {accept}");
    }
}

/// protocol: A preflight, `/`, `/tidings.js`, `/healthz` and `/readyz` need none
#[test]
fn what_never_needs_a_token() {
    let server = server(BOTH);
    for request in ["OPTIONS /channels/a", "OPTIONS /channels", "OPTIONS *", "GET /", "GET /healthz", "GET /readyz"] {
        for token in ["", "x"] {
            let got = ask(&server, request, token);
            assert!(matches!(got.as_str(), "200" | "204"), "{request} with {token:?}: {got}");
        }
    }
    // Built or not, it is no question of tokens.
    assert!(!ask(&server, "GET /tidings.js", "").contains("token"));
    assert_eq!(ask(&server, "GET /nothing", ""), "404 not_found");
}

/// protocol: taken from `Authorization: Bearer T`, else `?token=T`, else the WebSocket subprotocol
/// protocol: bearer token, for clients that cannot set headers; never logged.
/// protocol: The `Authorization` header wins
/// protocol: The scheme is read in any case; another scheme, and an empty token, count as none.
/// protocol: Two `Authorization` lines are 400 `bad_request` where a token is looked at.
#[test]
fn where_a_token_may_stand() {
    let server = server(BOTH);
    let get = |query: &str, headers: &[&str]| {
        let request = server.request("GET", &format!("/channels/a?wait=0{query}"));
        let request = headers.iter().fold(request, |request, value| request.header("Authorization", value));
        told(&request.send(), "GET")
    };
    for (query, headers, want) in [
        ("", &["Bearer s"][..], "200"),
        ("", &["bearer s"], "200"),
        ("", &["BEARER   s"], "200"),
        ("&token=s", &[], "200"),
        ("&%74oken=%73", &[], "200"),
        ("&token=s", &["Bearer x"], WRONG),
        ("&token=x", &["Bearer s"], "200"),
        ("&token=s", &["Basic czpz"], "200"),
        ("&token=s", &["Bearer"], "200"),
        ("", &["Basic s"], REQUIRED),
        ("", &["Bearer"], REQUIRED),
        ("", &["Bearer "], REQUIRED),
        ("", &["s"], REQUIRED),
        ("", &["Bearers s"], REQUIRED),
        ("&token=", &[], REQUIRED),
        ("&token", &[], REQUIRED),
        ("&Token=s", &[], REQUIRED),
        ("", &["Bearer S"], WRONG),
        ("", &["Bearer s s"], WRONG),
        ("", &["Bearer \"s\""], WRONG),
        ("", &["Bearer s,"], WRONG),
        ("", &["Bearer s="], WRONG),
        ("&token=%20s", &[], WRONG),
        ("&token=s%00", &[], WRONG),
        ("&token=%ff", &[], WRONG),
        ("&token=*", &[], WRONG),
        ("", &["Bearer s", "Bearer s"], "400 bad_request"),
        ("", &["Basic czpz", "Bearer s"], "400 bad_request"),
        ("&token=s&token=s", &[], "400 bad_query"),
    ] {
        assert_eq!(get(query, headers), want, "{query} {headers:?}");
    }
    let long = "s".repeat(10_000);
    assert_eq!(get("", &[&format!("Bearer {long}")]), WRONG);
    let cookie = server.request("GET", "/channels/a?wait=0").header("Cookie", "token=s").send();
    assert_eq!(refusal(&cookie), REQUIRED);

    let open = |target: &str, protocols: &[&str]| match WebSocket::open(server.request("GET", target), protocols) {
        Ok(socket) => socket.head.status.to_string(),
        Err(answer) => told(&answer, "GET"),
    };
    for (target, protocols, want) in [
        ("/channels/a", &["tidings.bearer.s", "tidings.v1"][..], "101"),
        ("/channels/a", &["tidings.bearer.s"], "101"),
        ("/channels/a", &["tidings.bearer.s", "tidings.bearer.x"], "101"),
        ("/channels/a", &["tidings.bearer.x", "tidings.bearer.s"], WRONG),
        ("/channels/a?token=s", &["tidings.bearer.x"], "101"),
        ("/channels/a?token=x", &["tidings.bearer.s"], WRONG),
        ("/channels/a", &["tidings.bearer."], REQUIRED),
        ("/channels/a", &["tidings.bearer.x"], WRONG),
        ("/channels/a", &["tidings.v1"], REQUIRED),
    ] {
        assert_eq!(open(target, protocols), want, "{target} {protocols:?}");
    }
}

/// protocol: 1 to 128 bytes of `A-Z a-z 0-9 - . _ ~` (the server refuses to start with another)
/// protocol: compared in constant time
#[test]
fn only_the_whole_token_is_the_token() {
    let longest = format!("{}-._~", "aZ09".repeat(31));
    assert_eq!(longest.len(), 128);
    let server = server(&format!("publish {longest}"));
    assert_eq!(ask(&server, "POST /channels/a", &longest), "200");
    for nth in 0..longest.len() {
        let (before, after) = longest.split_at(nth);
        let other = format!("{before}{}{}", if after.starts_with('b') { "c" } else { "b" }, &after[1..]);
        assert_eq!(ask(&server, "POST /channels/a", &other), WRONG, "another byte {nth}");
        if nth > 0 {
            assert_eq!(ask(&server, "POST /channels/a", before), WRONG, "the first {nth} bytes");
        }
    }
    assert_eq!(ask(&server, "POST /channels/a", &format!("{longest}a")), WRONG);
    for wrong in ["", "a b", "a:b", "ä", "a\n", &format!("{longest}a")] {
        let error = Tokens::default().allow_publish(wrong, "").unwrap_err();
        assert_eq!(error.to_string(), "the token must have 1 to 128 bytes of A-Z a-z 0-9 - . _ ~", "{wrong:?}");
    }
}

/// protocol: except a wrong one at a WebSocket handshake when tokens are set; no error ever shows a token
#[test]
fn a_handshake_looks_at_its_token_also_where_none_is_needed() {
    let server = server("publish p");
    for (token, want) in [("", 101), ("p", 101), ("x", 403)] {
        let target = format!("/channels/a?token={token}");
        let status = match WebSocket::open(server.request("GET", &target), &[]) {
            Ok(socket) => socket.head.status,
            Err(answer) => {
                assert_eq!(answer.code(), "token_wrong");
                answer.status
            }
        };
        assert_eq!(status, want, "{token:?}");
        assert_eq!(server.get(&format!("/channels/a?wait=0&token={token}")).status, 200, "a poll ignores it");
    }
}

#[test]
fn no_refusal_shows_a_token() {
    let server = server("publish secret-p a.\nsubscribe secret-s b.");
    for token in ["secret-p", "secret-s", "secret-x"] {
        for request in ["POST /channels/c", "GET /channels/c", "GET /channels", "DELETE /channels/c", "GET /metrics"] {
            for place in ["header", "query"] {
                let (method, target) = request.split_once(' ').unwrap();
                let answer = match place {
                    "header" => {
                        server.request(method, target).header("Authorization", format!("Bearer {token}")).send()
                    }
                    _ => server.request(method, &format!("{target}?token={token}")).send(),
                };
                let shown = format!("{:?} {}", answer.headers, answer.text());
                assert!(!shown.contains("secret"), "{request}: {shown}");
            }
        }
        let refused = WebSocket::open(server.request("GET", "/channels/c"), &[&format!("tidings.bearer.{token}")]);
        let refused = refused.err().unwrap();
        assert!(!format!("{:?} {}", refused.headers, refused.text()).contains("secret"));
    }
}

/// protocol: A token may be for channels whose names begin with a prefix, and for several such: where one of the channels asked for has none of them it is a wrong one.
/// protocol: It may ask for the list with a `?prefix=` that begins so, and for `/metrics`
#[test]
fn a_token_may_be_for_some_channels() {
    let server = server("publish p news.\nsubscribe s news.\nsubscribe s sport.\nsubscribe all");
    for (request, token, want) in [
        ("POST /channels/news.a", "p", "200"),
        ("POST /channels/%6eews.a", "p", "200"),
        ("POST /channels/news", "p", WRONG),
        ("POST /channels/sport.a", "p", WRONG),
        ("DELETE /channels/news.a", "p", "204"),
        ("DELETE /channels/sport.a", "p", WRONG),
        ("POST /channels/news.a", "s", WRONG),
        ("GET /channels/news.a?wait=0", "p", "200"),
        ("GET /channels/news.a?wait=0", "s", "200"),
        ("GET /channels/news.a,sport.b?wait=0", "s", "200"),
        ("GET /channels/news.a,sport.b?wait=0", "p", WRONG),
        ("GET /channels/news.a,other?wait=0", "s", WRONG),
        ("HEAD /channels/other", "s", "403"),
        ("GET /channels/other?wait=0", "all", "200"),
        ("GET /channels?prefix=news.", "p", "200"),
        ("GET /channels?prefix=news.a", "s", "200"),
        ("GET /channels?prefix=sport.", "s", "200"),
        ("GET /channels?prefix=news", "s", WRONG),
        ("GET /channels?prefix=", "s", WRONG),
        ("GET /channels", "s", WRONG),
        ("GET /channels?after=news.", "s", WRONG),
        ("GET /channels", "all", "200"),
    ] {
        assert_eq!(ask(&server, request, token), want, "{request} with {token}");
    }
    assert!(!ask(&server, "GET /metrics", "p").contains("token"));
    let answer = server.get("/channels/other?token=s");
    assert!(answer.message().contains("news. or sport."), "{}", answer.message());
    // The kept messages of a channel that is not allowed are no concern of the answer.
    server.post("/channels/news.a?token=p", "hidden");
    let [kept, none] = ["news.a", "news.b"].map(|channel| {
        let request = server.request("GET", &format!("/channels/{channel}?after=earliest&wait=0"));
        let answer = request.header("Authorization", "Bearer x").send();
        (answer.status, answer.body)
    });
    assert_eq!(kept, none);
}

/// protocol: does what its handshake's token may do: a message or command it may not send is answered as above, 1008 or an error frame, with 401 if it came without a token and 403 otherwise
#[test]
fn an_open_websocket_does_what_its_token_may() {
    let server = server("publish p a\nsubscribe s");
    for (channel, token, may) in [("a", "p", true), ("ab", "p", true), ("a", "s", false)] {
        for protocols in [&[][..], &["tidings.raw"]] {
            let mut socket = server.websocket(&format!("/channels/{channel}?token={token}"), protocols);
            if protocols.is_empty() {
                socket.next_json();
            }
            socket.send_text("hello");
            match socket.next_frame() {
                Some(Frame::Text(text)) => assert!(may && text.contains("hello"), "{token}: {text}"),
                Some(Frame::Close(Some(1008), why)) => {
                    assert!(!may && why.contains("for reading"), "{token}: {why}");
                }
                other => panic!("{channel} {token}: {other:?}"),
            }
        }
    }

    let commands = |token: &str, lines: &[(&str, &str)]| {
        let mut socket = server.websocket(&format!("/channels/a?token={token}"), &["tidings.v1"]);
        socket.next_json();
        for (line, want) in lines {
            socket.send_text(line);
            let answer = socket.next_json();
            let code = if !answer.has("error") { "ok" } else { answer["error"]["code"].str() };
            assert_eq!(code, *want, "{line:?} with {token}");
            if !answer.has("published") {
                continue;
            }
            socket.next_json();
        }
    };
    commands(
        "p",
        &[
            ("publish a\nx", "ok"),
            ("publish b\nx", "token_wrong"),
            ("subscribe ab", "ok"),
            ("subscribe ab,b", "token_wrong"),
            ("unsubscribe b", "ok"),
        ],
    );
    commands("s", &[("publish a\nx", "token_wrong"), ("subscribe b", "ok")]);

    // Where reading is free, who came without a token is told that one is needed.
    let server = self::server("publish p");
    let mut socket = server.websocket("/channels/a", &["tidings.v1"]);
    socket.next_json();
    socket.send_text("publish a ref=1\nx");
    let answer = socket.next_json();
    assert_eq!((answer["error"]["code"].str(), answer["error"]["status"].number()), ("token_required", 401.0));
    let mut socket = server.websocket("/channels/a", &[]);
    socket.next_json();
    socket.send_text("x");
    socket.assert_closed(1008);
    assert_eq!(server.stats().messages, 0);
}

/// Lets nobody publish, in words longer than a close frame takes.
struct Silence;

impl tidings::App for Silence {
    fn authorize(&mut self, _: &tidings::Request<'_>, operation: tidings::Operation, _: &[&str]) -> tidings::Access {
        match operation {
            tidings::Operation::Publish => tidings::Access::Deny("é".repeat(100)),
            _ => tidings::Access::Allow,
        }
    }
}

/// protocol: Several channels or no right: close 1008, with the reason why, cut to 123 bytes at a character
#[test]
fn the_embedders_reason_reaches_the_client() {
    let server = tidings::Server::bind_app("127.0.0.1:0", tidings::Config::default(), |_| Silence).unwrap();
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let thread = std::thread::spawn(move || server.run());
    let mut socket = WebSocket::open(Request::new(address, "GET", "/channels/a"), &[]).ok().unwrap();
    socket.next_json();
    socket.send_text("x");
    assert_eq!(socket.next_frame(), Some(Frame::Close(Some(1008), "é".repeat(61))));
    handle.stop();
    thread.join().unwrap().unwrap();
}

// Other tokens for a running server.

/// protocol: Whoever reads by a token that is no longer good for it is ended at once: WebSocket close 1008, SSE `retry:` and the end of the body, a held poll 401 or 403
#[test]
fn revoked_access_does_not_live_on() {
    for after in ["subscribe other", "publish other", "subscribe s b.\npublish p"] {
        let server = server(BOTH);
        let mut socket = server.websocket("/channels/a?token=s", &["tidings.v1"]);
        socket.next_json();
        let mut empty = server.websocket("/channels/a?token=s", &["tidings.v1"]);
        empty.next_json();
        empty.send_text("unsubscribe a");
        empty.next_json();
        let mut raw = server.websocket("/channels/a?token=s", &["tidings.raw"]);
        let mut stream = server.sse("/channels/a?token=s");
        stream.next_block();
        let mut poll = server.request("GET", "/channels/a?token=s").start();
        let mut kept = server.websocket("/channels/b.1?token=p", &[]);
        kept.next_json();
        server.until("all are attached", || {
            let stats = server.stats();
            (stats.websockets, stats.event_streams, stats.polls) == (4, 1, 1)
        });

        set_tokens(&server, after);
        for socket in [&mut socket, &mut raw] {
            match socket.next_frame() {
                Some(Frame::Close(Some(1008), why)) => assert!(why.contains("token") && !why.is_empty(), "{why}"),
                other => panic!("{after:?}: {other:?}"),
            }
            socket.send_close(1008, "");
            socket.client.assert_closed();
        }
        let last = stream.next_block().expect("a retry first");
        assert!(last.lines.iter().all(|line| line.starts_with("retry:")), "{last:?}");
        assert!(stream.next_block().is_none());
        let answer = poll.response("GET");
        assert_eq!(told(&answer, "GET"), WRONG, "{after:?}");
        // It reads nothing; but a token that is gone opens nothing any more.
        if after.contains("subscribe s") {
            empty.send_text("subscribe a");
            assert_eq!(empty.next_json()["error"]["code"], "token_wrong");
        } else {
            empty.assert_closed(1008);
        }
        if after.contains("publish p") {
            kept.send_text("x");
            assert_eq!(kept.next_json()["data"], "x", "who may go on goes on");
        } else {
            kept.assert_closed(1008);
        }
        for (token, want) in [("s", WRONG), ("", REQUIRED)] {
            assert_eq!(ask(&server, "GET /channels/a?wait=0", token), want);
        }
    }
}

/// protocol: What needed a token before needs one still, also if there is none left.
#[test]
fn other_tokens_close_doors_and_open_none() {
    let server = server(BOTH);
    for lines in ["subscribe s", "publish p", ""] {
        set_tokens(&server, lines);
        assert_eq!(ask(&server, "POST /channels/a", ""), REQUIRED, "{lines:?}");
        assert_eq!(ask(&server, "GET /channels/a?wait=0", ""), REQUIRED, "{lines:?}");
    }
    assert_eq!(ask(&server, "POST /channels/a", "p"), WRONG);
    set_tokens(&server, "publish again");
    assert_eq!(ask(&server, "POST /channels/a", "again"), "200");

    // Who came in when everybody might read may not stay when that ends.
    let server = self::server("");
    let mut stream = server.sse("/channels/a");
    stream.next_block();
    let mut poll = server.request("GET", "/channels/a").start();
    server.until_subscribed("a", "poll", 1);
    set_tokens(&server, "publish p");
    server.post("/channels/a?token=p", "reading is still free");
    assert_eq!(stream.next_block().unwrap().event.unwrap().data, "reading is still free");
    assert_eq!(poll.response("GET").status, 200);
    set_tokens(&server, BOTH);
    stream.next_block();
    assert!(stream.next_block().is_none());
}

/// A held poll's connection may be used again after its 403, and what is in flight is not mixed up.
#[test]
fn a_revoked_polls_connection_goes_on() {
    let server = server(BOTH);
    let mut client = server.request("GET", "/channels/a?token=s").start();
    server.until("the poll is held", || server.stats().polls == 1);
    set_tokens(&server, "subscribe t\npublish p");
    assert_eq!(client.response("GET").status, 403);
    client.send(server.request("GET", "/channels/a?token=t&wait=0").bytes());
    assert_eq!(client.response("GET").status, 200);
    assert_eq!(server.handle.stats(PATIENCE).unwrap().polls, 0);
}

/// The same token with a new place in the file is the same token.
#[test]
fn a_token_that_stays_keeps_its_readers() {
    let server = server("subscribe one\nsubscribe two\npublish three");
    let mut streams = ["one", "two", "three"].map(|token| server.sse(&format!("/channels/a?token={token}")));
    for stream in &mut streams {
        stream.next_block();
    }
    set_tokens(&server, "publish three\nsubscribe new\nsubscribe two a\n");
    server.post("/channels/a?token=three", "x");
    let [one, two, three] = &mut streams;
    one.next_block();
    assert!(one.next_block().is_none());
    assert_eq!(two.next_block().unwrap().event.unwrap().data, "x");
    assert_eq!(three.next_block().unwrap().event.unwrap().data, "x");
}

/// protocol: a non-loopback address without a publish token | refuses to start, unless `--allow-anyone-to-publish`
#[test]
fn a_publish_token_lets_it_listen_to_other_hosts() {
    let with = |lines: &str| {
        let mut config = tidings::Config::default();
        config.tokens = tokens(lines);
        config
    };
    assert!(tidings::Server::bind("0.0.0.0:0", with("publish p news.")).is_ok());
    for lines in ["", "subscribe s"] {
        let refused = tidings::Server::bind("0.0.0.0:0", with(lines));
        assert!(matches!(refused, Err(tidings::Error::Exposed(_))), "{lines}: {refused:?}");
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let handed_over = tidings::Server::from_listener(listener, with(lines));
        assert!(matches!(handed_over, Err(tidings::Error::Exposed(_))), "{lines}: {handed_over:?}");
    }
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    assert!(tidings::Server::from_listener(listener, with("publish p")).is_ok());
}

/// An EventSource may be told 401 and 403: to come back would not help it.
#[test]
fn refusals_of_tokens_are_errors_for_sse_too() {
    let server = server(BOTH);
    for (target, want) in [("/channels/a", REQUIRED), ("/channels/a?token=x", WRONG)] {
        let answer = server.request("GET", target).header("Accept", "text/event-stream").send();
        assert_eq!(told(&answer, "GET"), want);
    }
}

/// A body is not waited for, and not asked for, where it may not be published.
#[test]
fn a_body_without_a_right_is_refused_by_its_head() {
    let server = server(BOTH);
    let mut client = server.connect();
    client.send("POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    let answer = client.response("POST");
    assert_eq!((told(&answer, "POST").as_str(), answer.header("Connection")), (REQUIRED, Some("close")));
    // Rights come before the size.
    let huge = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n";
    let mut client = server.connect();
    client.send(huge);
    assert_eq!(told(&client.response("POST"), "POST"), REQUIRED);
}
