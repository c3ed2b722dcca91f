//! A token that a browser puts among its subprotocols is in no line of the log, however much is
//! logged and whatever becomes of the handshake.

#![cfg(feature = "cli")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use common::http::Request;
use common::websocket::WebSocket;

const TOKEN: &str = "sesame-0pen.Y0u";

#[test]
fn a_token_among_the_subprotocols_is_never_logged() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["--listen", "127.0.0.1:0", "--log", "trace"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stderr = BufReader::new(program.stderr.take().expect("a pipe"));
    let mut log = String::new();
    let address = loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).expect("a line") > 0, "it ended before it listened: {log}");
        log.push_str(&line);
        if let Some(address) = line.trim_end().strip_prefix("listening on http://") {
            break address.parse().expect("an address");
        }
    };
    let bearer = format!("tidings.bearer.{TOKEN}");
    let request = |method: &str, target: &str| Request::new(address, method, target);
    let mut said = String::new();
    // Opened, and ended by a broken frame, which is logged.
    for protocols in [&[&*bearer][..], &[&bearer, "tidings.v1"], &["tidings.raw", &bearer]] {
        let mut socket = WebSocket::open(request("GET", "/channels/a"), protocols).expect("101");
        socket.send_frame(0xff, b"");
        while let Some(frame) = socket.next_frame() {
            said.push_str(&format!("{frame:?}"));
        }
    }
    // Refused in many ways.
    for (target, protocols) in [
        ("/channels/a/b", bearer.clone()),
        ("/channels/a?after=x", bearer.clone()),
        ("/nowhere", bearer.clone()),
        ("/channels/a", format!("{bearer}, not a token")),
        ("/channels/a", format!("{bearer};q=1")),
    ] {
        let answer = WebSocket::handshake(request("GET", target)).header("Sec-WebSocket-Protocol", protocols).send();
        assert!(answer.status >= 400, "{answer:?}");
        said.push_str(&format!("{answer:?}"));
    }
    program.kill().expect("it runs");
    stderr.read_to_string(&mut log).expect("text");
    program.wait().expect("it ended");
    assert!(log.contains("the peer broke the protocol"), "the log says what happened: {log}");
    for text in [log, said] {
        assert!(!text.contains("sesame"), "{text}");
    }
}
