//! Every answer arrives: a client that is still sending when it is refused reads why.
//!
//! A socket that is closed with bytes unread resets the connection, and what was written before may
//! be lost to the peer (RFC 1122 4.2.2.13; RFC 9112 9.6). So the server reads on, and throws away,
//! until the peer has ended its side. Only real sockets show it. The client sends everything before
//! it reads a byte; any error while it sends or reads fails the test.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use common::{PATIENCE, TestServer};

const TRIES: usize = 100;

/// Sends the head and `times` this piece, ends its side, and reads to the end.
fn answer(address: SocketAddr, head: &str, piece: &[u8], times: usize) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(head.as_bytes())?;
    for _ in 0..times {
        socket.write_all(piece)?;
    }
    socket.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Each try is answered with this status and code, and the answer is the last one.
fn arrives(server: &TestServer, status: u16, code: &str, head: &str, piece: &[u8], times: usize) {
    let head = head.replace("HOST", &format!("Host: {}\r\n", server.address));
    for nth in 0..TRIES {
        let answer = answer(server.address, &head, piece, times)
            .unwrap_or_else(|error| panic!("{status} {code}: try {nth} of {TRIES} is lost: {error}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
        assert_eq!(answer.matches("\r\nDate: ").count(), 1, "{answer}");
    }
}

/// A server that gives a busy machine time to send what it has.
fn patient() -> TestServer {
    TestServer::start_with(|config| config.close_timeout = PATIENCE)
}

const MIB: usize = 1024 * 1024;

#[test]
fn a_body_too_large_by_its_length() {
    let server = patient();
    let head = format!("POST /channels/a HTTP/1.1\r\nHOSTContent-Length: {}\r\n\r\n", 20 * MIB);
    arrives(&server, 413, "message_too_large", &head, &vec![b'x'; MIB], 20);
}

#[test]
fn a_body_too_large_by_its_chunks() {
    let chunk = [b"100000\r\n", &vec![b'x'; MIB][..], b"\r\n"].concat();
    let head = "POST /channels/a HTTP/1.1\r\nHOSTTransfer-Encoding: chunked\r\n\r\n";
    arrives(&patient(), 413, "message_too_large", head, &chunk, 20);
}

#[test]
fn a_head_too_large() {
    let head = "GET /channels/a HTTP/1.1\r\nHOSTX: ";
    arrives(&patient(), 431, "head_too_large", head, &[b'x'; 64 * 1024], 32);
}

#[test]
fn bytes_that_are_no_http() {
    let server = patient();
    arrives(&server, 400, "bad_request", "GET / HTTP/1.1\nHOST", b"X: y\r\n", 10_000);
    let head = "POST /channels/a HTTP/1.1\r\nHOSTTransfer-Encoding: chunked\r\n\r\nx";
    arrives(&server, 400, "bad_request", head, &[b'x'; 64 * 1024], 32);
}

/// Each of these is refused by its head, while the body is on its way.
#[test]
fn what_is_refused_by_its_head() {
    let server = patient();
    let body = "Content-Length: 262144\r\n\r\n";
    let piece = [b'x'; 64 * 1024];
    for (status, code, head) in [
        (400, "bad_channel", format!("POST /channels/! HTTP/1.1\r\nHOST{body}")),
        (403, "origin_not_allowed", format!("POST /channels/a HTTP/1.1\r\nHOSTOrigin: https://b.example\r\n{body}")),
        (405, "method_not_allowed", format!("PUT /channels/a HTTP/1.1\r\nHOST{body}")),
        (417, "expectation_failed", format!("POST /channels/a HTTP/1.1\r\nHOSTExpect: x\r\n{body}")),
        (421, "wrong_host", format!("POST /channels/a HTTP/1.1\r\nHost: b.example\r\n{body}")),
        (505, "version_not_supported", format!("POST /channels/a HTTP/2.0\r\nHOST{body}")),
    ] {
        arrives(&server, status, code, &head, &piece, 4);
    }
    // Of a path that may be an app's the body is read first.
    let head = format!("POST /nowhere HTTP/1.1\r\nHOSTConnection: close\r\n{body}");
    arrives(&server, 404, "not_found", &head, &piece, 4);
}

#[test]
fn a_connection_too_many() {
    let server = TestServer::start_with(|config| {
        config.connections_max = 1;
        config.close_timeout = PATIENCE;
    });
    let _the_one = server.request("GET", "/channels/a?wait=120").start();
    server.until("it holds the one place", || server.connect_and_get().is_some_and(|answer| answer.status == 503));
    let head = "POST /channels/a HTTP/1.1\r\nHOSTContent-Length: 262144\r\n\r\n";
    arrives(&server, 503, "too_many_connections", head, &[b'x'; 64 * 1024], 4);
}

/// Bytes that never become a request, of clients that wait.
#[test]
fn a_request_that_did_not_end_in_time() {
    let server = TestServer::start_with(|config| config.head_timeout = std::time::Duration::from_millis(50));
    let sockets: Vec<TcpStream> = (0..TRIES)
        .map(|_| {
            let mut socket = TcpStream::connect(server.address).expect("the server listens");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
            socket.write_all(b"GET /channels/a HTTP/1.1\r\nHost: loc").expect("room for a line");
            socket
        })
        .collect();
    for mut socket in sockets {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("no reset");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}
