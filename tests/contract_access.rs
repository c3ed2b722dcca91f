//! The contract's section "Who may do what", but for tokens, which are in `contract_tokens.rs`.

mod common;

use common::TestServer;
use common::http::{Request, Response};
use common::websocket::WebSocket;

// What is open and what is not.

/// protocol: `127.0.0.1:8080`; everything allowed from there
#[test]
fn on_loopback_everything_is_allowed() {
    let server = TestServer::start();
    for (method, target, status) in [
        ("POST", "/channels/a", 200),
        ("GET", "/channels/a?wait=0", 200),
        ("HEAD", "/channels/a", 200),
        ("GET", "/channels", 200),
        ("GET", "/", 200),
        ("DELETE", "/channels/a", 204),
        ("OPTIONS", "/channels/a", 204),
    ] {
        assert_eq!(server.request(method, target).send().status, status, "{method} {target}");
    }
    server.websocket("/channels/a", &[]);
}

/// protocol: a non-loopback address without a publish token | refuses to start, unless `--allow-anyone-to-publish`
#[test]
fn other_hosts_are_let_in_only_on_purpose() {
    for address in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0", "192.0.2.1:0"] {
        let refused = tidings::Server::bind(address, tidings::Config::default());
        assert!(matches!(refused, Err(tidings::Error::Exposed(_))), "{address}: {refused:?}");
    }
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    let handed_over = tidings::Server::from_listener(listener, tidings::Config::default());
    assert!(matches!(handed_over, Err(tidings::Error::Exposed(_))), "{handed_over:?}");

    let mut config = tidings::Config::default();
    config.allow_anyone_to_publish = true;
    assert!(tidings::Server::bind("0.0.0.0:0", config).is_ok());
    assert!(tidings::Server::bind("127.0.0.2:0", tidings::Config::default()).is_ok(), "loopback too");
}

/// protocol: Where none is needed a token is ignored
#[test]
fn a_token_nobody_asked_for_is_ignored() {
    let server = TestServer::start();
    for header in ["Bearer x", "Basic eDp5", "nonsense"] {
        for (method, target) in [("POST", "/channels/a"), ("GET", "/channels/a?wait=0"), ("GET", "/channels")] {
            let answer = server.request(method, target).header("Authorization", header).send();
            assert_eq!(answer.status, 200, "{method} {target} {header}");
        }
    }
    assert_eq!(server.post("/channels/a?token=x", "").status, 200);
    assert_eq!(server.get("/channels?token=x").status, 200);
    let socket = server.websocket("/channels/a?token=x", &["tidings.bearer.x", "tidings.raw"]);
    assert_eq!(socket.head.header("Sec-WebSocket-Protocol"), Some("tidings.raw"));
}

// Host.

/// protocol: `Host` | listening on loopback: only `localhost`, `127.0.0.1`, `[::1]` and `--host` names, any port: otherwise 421
#[test]
fn on_loopback_the_host_must_be_one_of_ours() {
    let server = TestServer::start_with(|config| config.hosts = vec!["push.example".into()]);
    for host in [
        "localhost",
        "LocalHost:1",
        "127.0.0.1",
        "127.0.0.1:99",
        "[::1]",
        "[::1]:8080",
        "push.example",
        "PUSH.example:443",
    ] {
        assert_eq!(server.request("GET", "/healthz").host(host).send().status, 200, "{host}");
        assert_eq!(server.request("POST", "/channels/a").host(host).send().status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "xpush.example",
        "push.example.evil",
        "127.0.0.2",
        "[::2]",
        "0.0.0.0",
    ] {
        for (method, target) in [
            ("GET", "/"),
            ("GET", "/healthz"),
            ("GET", "/channels"),
            ("POST", "/channels/a"),
            ("DELETE", "/channels/a"),
            ("GET", "/nothing"),
        ] {
            let answer = server.request(method, target).host(host).send();
            assert_eq!((answer.status, answer.code().as_str()), (421, "wrong_host"), "{method} {target} at {host}");
        }
        let stream = server.request("GET", "/channels/a").host(host).header("Accept", "text/event-stream").send();
        assert_eq!((stream.status, stream.code().as_str()), (421, "wrong_host"), "SSE at {host}");
        let socket = WebSocket::open(server.request("GET", "/channels/a").host(host), &[]);
        assert!(socket.is_err_and(|answer| answer.status == 421), "WebSocket at {host}");
    }
    // RFC 9112 3.2.2: the absolute form wins over the Host header.
    assert_eq!(server.request("GET", "http://evil.example/").host("localhost").send().status, 421);
    assert_eq!(server.request("GET", "http://localhost/").host("evil.example").send().status, 200);

    let open = TestServer::listen("0.0.0.0:0", |config| config.allow_anyone_to_publish = true);
    assert_eq!(open.request("GET", "/healthz").host("any.example").send().status, 200, "not on loopback");
}

/// A page whose own name was made to lead to 127.0.0.1 is of one origin with us to its browser: its
/// `Origin` and its `Host` agree, and it may have learnt a token. All that tells it is the name.
#[test]
fn a_rebound_name_gets_nothing() {
    let server = TestServer::start_with(|config| {
        config.origins = vec!["http://evil.example".into()];
        config.tokens.allow_publish("t", "").expect("a token");
    });
    let hosts = ["evil.example", "localhost.", "localhost.evil.example:80", "127.0.0.1.evil.example", "127.1", "[::]"];
    for host in hosts {
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT"] {
            for path in ["/", "/channels", "/channels/a", "/healthz", "/readyz", "/metrics", "/tidings.js", "/nothing"]
            {
                let request = server.request(method, &format!("{path}?token=t")).host(host);
                let answer = request.header("Origin", format!("http://{host}")).send();
                assert_eq!(answer.status, 421, "{method} {path} at {host}");
            }
        }
        let request =
            server.request("GET", "/channels/a?token=t").host(host).header("Origin", format!("http://{host}"));
        assert!(WebSocket::open(request, &["tidings.bearer.t"]).is_err_and(|answer| answer.status == 421));
    }
}

/// A token opens no door to a page that may not come in, and its absence is told only to who may.
#[test]
fn a_foreign_page_is_refused_before_its_token_is_looked_at() {
    let server = TestServer::start_with(|config| {
        config.tokens.allow_publish("t", "").expect("a token");
        config.tokens.allow_subscribe("s", "").expect("a token");
    });
    for token in ["", "?token=t", "?token=x"] {
        let target = format!("/channels/a{token}");
        assert_eq!(writes(&server, "localhost", "http://evil.example"), REFUSED);
        // A form of another site, which needs no preflight.
        let form = server.request("POST", &target).header("Content-Type", "text/plain");
        let form = form.header("Sec-Fetch-Site", "cross-site").header("Origin", "http://evil.example").body("a=b");
        assert_eq!(form.send().code(), "origin_not_allowed", "{token}");
        let frame = server.request("POST", &target).header("Origin", "null").body("a=b");
        assert_eq!(frame.send().code(), "origin_not_allowed", "{token}");
        let read = server.request("GET", &target).header("Sec-Fetch-Site", "cross-site").send();
        assert_eq!(read.code(), "origin_not_allowed", "{token}");
    }
}

// Origin.

/// What a page of this origin gets for publishing, deleting, and opening a WebSocket.
fn writes(server: &TestServer, host: &str, origin: &str) -> [u16; 3] {
    let request = |method: &str| server.request(method, "/channels/a").host(host).header("Origin", origin);
    let checked = |answer: Response| {
        if answer.status == 403 {
            assert_eq!(answer.code(), "origin_not_allowed");
        }
        answer.status
    };
    let socket = match WebSocket::open(request("GET"), &[]) {
        Ok(socket) => socket.head.status,
        Err(answer) => checked(*answer),
    };
    [checked(request("POST").send()), checked(request("DELETE").send()), socket]
}

const ALLOWED: [u16; 3] = [200, 204, 101];
const REFUSED: [u16; 3] = [403; 3];

/// protocol: `Origin` | on WebSocket, POST, DELETE: absent, or equal to the Host
#[test]
fn a_foreign_page_can_not_write() {
    let server = TestServer::start_with(|config| {
        config.hosts = vec!["push.example".into()];
        config.origins = vec!["https://listed.example".into(), "http://port.example:81".into()];
    });
    for (host, origin) in [
        ("localhost:8080", "http://localhost:8080"),
        ("localhost:8080", "https://LOCALHOST:8080"),
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:80", "https://localhost:443"),
        ("localhost:443", "http://localhost"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("localhost", "https://push.example"),
        ("localhost", "https://push.example:8443"),
        ("localhost", "https://listed.example"),
        ("localhost", "http://port.example:81"),
    ] {
        assert_eq!(writes(&server, host, origin), ALLOWED, "{origin} at {host}");
    }
    for (host, origin) in [
        ("localhost:8080", "http://localhost:8081"),
        ("localhost:8080", "http://localhost"),
        ("localhost", "http://localhost:8080"),
        ("localhost", "http://127.0.0.1"),
        ("localhost", "http://localhost.evil.example"),
        ("localhost", "http://evil.example"),
        ("localhost", "https://a.listed.example"),
        ("localhost", "http://listed.example"),
        ("localhost", "https://listed.example:444"),
        ("localhost", "https://listed.example.evil"),
        ("localhost", "http://port.example"),
        ("localhost", "https://xpush.example"),
        ("localhost", "localhost"),
        ("localhost", "*"),
        ("localhost", ""),
        ("localhost", "http://localhost."),
        ("localhost", "http://localhost/"),
        ("localhost", "http://localhost#"),
        ("localhost", "http://evil.example@localhost"),
        ("localhost", "http://localhost:80@evil.example"),
        ("localhost", "http://localhost:0"),
        ("localhost", "http://localhost http://localhost"),
        ("localhost", "http://localhost, http://evil.example"),
        ("localhost", "://localhost"),
        ("localhost", "//localhost"),
        ("localhost:8080", "https://localhost:443"),
        ("localhost", "https://listed.example/"),
        ("localhost", "https://listed.example:"),
        ("localhost", "https://listed.example."),
        ("localhost", "https://listed%2eexample"),
        ("localhost", "null, https://listed.example"),
    ] {
        assert_eq!(writes(&server, host, origin), REFUSED, "{origin} at {host}");
    }
    // Two origins are none.
    let twice =
        server.request("POST", "/channels/a").header("Origin", "http://localhost").header("Origin", "http://localhost");
    assert_eq!(twice.host("localhost").send().status, 403);
    assert_eq!(server.post("/channels/a", "").status, 200, "absent");
}

/// protocol: `null` never equals.
#[test]
fn the_origin_null_is_nobody() {
    let server = TestServer::start_with(|config| config.hosts = vec!["null".into()]);
    for host in ["localhost", "null"] {
        assert_eq!(writes(&server, host, "null"), REFUSED, "at {host}");
    }
    for origin in ["null", "*", "https://a.example/path", "a.example"] {
        let mut config = tidings::Config::default();
        config.origins = vec![origin.into()];
        assert!(tidings::Server::bind("127.0.0.1:0", config).is_err(), "{origin} can not be listed");
    }
}

/// protocol: `X-Forwarded-*` is never believed
#[test]
fn forwarded_names_are_not_believed() {
    let server = TestServer::start();
    let forwarded = |request: Request| {
        request
            .header("X-Forwarded-Host", "evil.example")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-For", "127.0.0.1")
            .header("X-Forwarded-Port", "443")
            .header("Forwarded", "host=evil.example;proto=https")
    };
    let page = server.request("POST", "/channels/a").header("Origin", "https://evil.example");
    assert_eq!(forwarded(page).send().code(), "origin_not_allowed");
    let rebound = server.request("GET", "/channels").host("evil.example").header("X-Forwarded-Host", "localhost");
    assert_eq!(rebound.send().code(), "wrong_host");
    assert_eq!(forwarded(server.request("POST", "/channels/a")).send().status, 200);
}

// Reading across sites.

/// protocol: cross-site reads | GET of channels, their list and `/metrics` with `Sec-Fetch-Site: cross-site` only with a listed Origin, or as a navigation: otherwise 403
#[test]
fn another_site_reads_only_with_a_listed_origin_or_as_a_navigation() {
    let server = TestServer::start_with(|config| config.origins = vec!["https://listed.example".into()]);
    for target in ["/channels/a?wait=0", "/channels/a,b?wait=0", "/channels", "/metrics"] {
        let ask = |headers: &[(&str, &str)]| {
            let request = server.request("GET", target);
            let answer = headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send();
            if answer.status == 403 {
                assert_eq!(answer.code(), "origin_not_allowed");
            }
            answer.status
        };
        let cross = ("Sec-Fetch-Site", "cross-site");
        for (headers, status) in [
            (&[][..], 200),
            (&[("Origin", "https://evil.example")], 200),
            (&[("Sec-Fetch-Site", "same-origin")], 200),
            (&[("Sec-Fetch-Site", "same-site")], 200),
            (&[("Sec-Fetch-Site", "none")], 200),
            (&[cross], 403),
            (&[cross, ("Sec-Fetch-Mode", "no-cors")], 403),
            (&[cross, ("Sec-Fetch-Mode", "cors"), ("Origin", "https://evil.example")], 403),
            (&[cross, ("Sec-Fetch-Mode", "cors"), ("Origin", "null")], 403),
            (&[cross, ("Sec-Fetch-Mode", "cors"), ("Origin", "https://listed.example")], 200),
            (&[cross, ("Sec-Fetch-Mode", "navigate")], 200),
        ] {
            assert_eq!(ask(headers), status, "{target} {headers:?}");
        }
    }
    let stream = server
        .request("GET", "/channels/a")
        .header("Accept", "text/event-stream")
        .header("Sec-Fetch-Site", "cross-site");
    assert_eq!(stream.send().status, 403, "an EventSource too");
    assert_eq!(server.request("GET", "/healthz").header("Sec-Fetch-Site", "cross-site").send().status, 200);
}

// CORS.

fn names(list: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> =
        list.unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    names.sort();
    names
}

/// protocol: CORS | only for listed origins: exact echo, never `*`, no credentials
#[test]
fn listed_origins_may_read_answers() {
    let server = TestServer::start_with(|config| {
        config.origins = vec!["https://one.example".into(), "http://two.example:8080".into()];
    });
    let requests = |origin: Option<&str>| {
        [
            server.request("POST", "/channels/a"),
            server.request("GET", "/channels/a?wait=0"),
            server.request("GET", "/channels/a?wait=0&format=raw"),
            server.request("GET", "/channels/a").header("Accept", "text/event-stream"),
            server.request("HEAD", "/channels/a"),
            server.request("GET", "/channels"),
            server.request("DELETE", "/channels/a"),
            server.request("OPTIONS", "/channels/a"),
            server.request("GET", "/healthz"),
            server.request("GET", "/nothing"),
            server.request("GET", "/channels/a?wait=x"),
            server.request("PUT", "/channels/a"),
            server.request("GET", "/").host("evil.example"),
        ]
        .map(|request| match origin {
            Some(origin) => request.header("Origin", origin),
            None => request,
        })
        .map(|request| {
            (
                String::from_utf8_lossy(&request.bytes()).lines().next().map(str::to_owned),
                request.start().response_head(),
            )
        })
    };
    for origin in ["https://one.example", "http://two.example:8080"] {
        for (asked, answer) in requests(Some(origin)) {
            assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(origin), "{asked:?}");
            assert_eq!(answer.header("Access-Control-Allow-Credentials"), None, "{asked:?}");
            assert!(answer.lists("Vary", "Origin"), "{asked:?}: {answer:?}");
            let want = names(Some(
                "Tidings-Cursor, Tidings-Id, Tidings-Channel, Tidings-Event, Tidings-Gap, Idempotent-Replayed, Retry-After",
            ));
            assert_eq!(names(answer.header("Access-Control-Expose-Headers")), want, "{asked:?}");
        }
    }
    for origin in [None, Some("https://evil.example"), Some("null"), Some("https://one.example:444")] {
        for (asked, answer) in requests(origin) {
            assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{asked:?} from {origin:?}");
            assert!(answer.lists("Vary", "Origin"), "{asked:?} from {origin:?}: {answer:?}");
        }
    }
}

/// protocol: preflight allows Authorization, Content-Type, Idempotency-Key, If-Match, Last-Event-ID, for 600 s
#[test]
fn a_preflight_is_answered_for_listed_origins_only() {
    let server = TestServer::start_with(|config| config.origins = vec!["https://one.example".into()]);
    let preflight = |origin: &str| {
        server
            .request("OPTIONS", "/channels/a")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "idempotency-key, x-other")
            .send()
    };
    let answer = preflight("https://one.example");
    assert_eq!((answer.status, answer.header("Access-Control-Max-Age")), (204, Some("600")));
    let want = names(Some("Authorization, Content-Type, Idempotency-Key, If-Match, Last-Event-ID"));
    assert_eq!(names(answer.header("Access-Control-Allow-Headers")), want);
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        assert!(answer.lists("Access-Control-Allow-Methods", method), "{method}: {answer:?}");
    }

    // What is allowed owes nothing to what is asked for, nor to a token.
    for (name, value) in [
        ("Access-Control-Request-Method", "PROPFIND"),
        ("Access-Control-Request-Headers", &*"x-very-long-name, ".repeat(400)),
        ("Access-Control-Request-Headers", "*"),
        ("Access-Control-Request-Private-Network", "true"),
        ("Authorization", "Bearer x"),
    ] {
        let asked = server.request("OPTIONS", "/channels/a").header("Origin", "https://one.example");
        let odd = asked.header(name, value).send();
        assert_eq!(odd.status, 204, "{name}: {value}");
        let told = |answer: &Response| {
            let mut told = answer.headers.clone();
            told.retain(|(name, _)| !name.eq_ignore_ascii_case("Date"));
            told
        };
        assert_eq!(told(&odd), told(&answer), "{name}: {value}");
    }

    let stranger = preflight("https://evil.example");
    assert_eq!(stranger.status, 204);
    let told = stranger.headers.iter().find(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
    assert_eq!(told, None);
}

/// protocol: `Vary: Origin` on every answer once origins are listed
#[test]
fn without_listed_origins_there_is_no_cors() {
    let server = TestServer::start();
    for method in ["GET", "OPTIONS"] {
        let answer = server.request(method, "/channels").header("Origin", "https://one.example").send();
        assert!(!answer.lists("Vary", "Origin"), "{answer:?}");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
    }
}

/// A server on loopback and elsewhere holds each listener to its own rule.
#[test]
fn each_listener_has_its_own_host_rule() {
    let mut config = tidings::Config::default();
    config.allow_anyone_to_publish = true;
    let addresses: [std::net::SocketAddr; 2] = ["127.0.0.1:0", "0.0.0.0:0"].map(|text| text.parse().unwrap());
    let server = tidings::Server::bind(&addresses[..], config).expect("free ports");
    let [local, open] = [0, 1].map(|nth| server.local_addrs()[nth].port());
    let handle = server.handle();
    let thread = std::thread::spawn(move || server.run());
    let ask = |port: u16| Request::new(([127, 0, 0, 1], port).into(), "GET", "/healthz").host("push.example").send();
    assert_eq!((ask(local).status, ask(open).status), (421, 200));
    handle.stop();
    thread.join().expect("no panic").expect("the loop turns");
}
