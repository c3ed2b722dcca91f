//! Messages of WebSocket clients, RFC 6455 5.4 to 5.6 and 8.1, as the whole server takes them: up to
//! the largest, in however many fragments, and refused as early as the bytes allow.

mod clients;
mod kernel;
mod wire;

use clients::{TEXT, client_frame};
use tidings::{App, Inbound, Reaction};
use wire::{Server, frame};

const MIB: usize = 1024 * 1024;

fn server(message_bytes_max: usize) -> Server {
    Server::start_with(|config| config.message_bytes_max = message_bytes_max, None)
}

/// A payload whose bytes tell their place.
fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + ((at + at / 65_536) % 26) as u8).collect()
}

/// A message in fragments of this size.
fn fragments(first: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let count = payload.len().div_ceil(size);
    let frames = payload.chunks(size).enumerate().map(|(nth, part)| {
        let opcode = if nth == 0 { first } else { 0 };
        frame(if nth + 1 == count { 0x80 } else { 0 } | opcode, part)
    });
    frames.flatten().collect()
}

/// The largest message arrives whole, in one frame and in many, at the default limit and at 16 MiB.
#[test]
fn the_largest_message_arrives_whole() {
    for (limit, sizes) in [(256 * 1024, &[usize::MAX, 65_536, 1000, 256][..]), (16 * MIB, &[usize::MAX, MIB, 65_535])] {
        let mut server = server(limit);
        let want = payload(limit);
        for &size in sizes {
            let mut reader = server.websocket("/channels/a", Some("tidings.raw"));
            let writer = server.websocket("/channels/a", Some("tidings.raw"));
            for piece in fragments(TEXT, &want, size.min(limit)).chunks(3_000_000) {
                server.send(writer.wire, piece);
            }
            let mut heard = reader.heard(&mut server);
            // What the pipe has no room for comes when the first of it is read.
            server.settle();
            heard.extend(reader.heard(&mut server));
            assert_eq!(heard.len(), 1, "{limit} in fragments of {size}");
            assert!(heard[0].as_bytes()[5..] == want, "{limit} in fragments of {size}: damaged");
            assert_eq!(server.turns.engine().stats().intake_bytes, 0, "nothing is kept");
            for wire in [reader.wire, writer.wire] {
                server.turns.os().close_client(wire);
            }
            server.settle();
        }
        let mut writer = server.websocket("/channels/a", None);
        server.send(writer.wire, &frame(0x82, &payload(limit + 1))[..14]);
        assert_eq!(writer.codes(&mut server), ["close 1009", "end"], "one byte more, of which none has come");
    }
}

/// Echoes everything.
struct Echo;

impl App for Echo {
    fn message(&mut self, _: &Inbound<'_>) -> Reaction {
        Reaction::Echo
    }
}

/// What came in pieces is handed on as its own echo: one whole frame of the same kind, however it was
/// cut, and in its place behind what waits.
#[test]
fn what_came_in_pieces_is_echoed_whole_and_in_order() {
    let mut server = Server::start_with(|_| {}, Some(Box::new(Echo)));
    for (opcode, kind) in [(TEXT, "text"), (2, "binary")] {
        for length in [1, 125, 126, 65_535, 65_536, 200_000] {
            let message = payload(length);
            let want = match opcode {
                TEXT => format!("{kind} {}", String::from_utf8_lossy(&message)),
                _ => format!("{kind} {message:?}"),
            };
            let whole = frame(0x80 | opcode, &message);
            let mut socket = server.websocket("/channels/a", Some("tidings.raw"));
            let cut = fragments(opcode, &message, length.div_ceil(3));
            for (bytes, count) in [(whole.clone(), 1), (cut, 1), (whole.repeat(3), 3)] {
                let mut heard = Vec::new();
                for piece in bytes.chunks(bytes.len().div_ceil(5)) {
                    server.send(socket.wire, piece);
                    heard.extend(socket.heard(&mut server));
                }
                // What the pipe has no room for comes when the first of it is read.
                for _ in 0..3 {
                    server.settle();
                    heard.extend(socket.heard(&mut server));
                }
                assert_eq!(heard.len(), count, "{kind} of {length}");
                assert!(heard.iter().all(|heard| *heard == want), "{kind} of {length}: damaged");
            }
            assert_eq!(server.turns.engine().stats().intake_bytes, 0, "nothing is kept");
            server.turns.os().close_client(socket.wire);
            server.settle();
        }
    }
}

/// One byte after the other, in two fragments with a ping between: what arrives is what was sent.
#[test]
fn a_message_may_come_byte_by_byte() {
    let text = "κόσμε \u{1F600} €".as_bytes();
    let (front, back) = text.split_at(7);
    let bytes = [frame(0x01, front), client_frame(9, b"?"), frame(0x80, back)].concat();
    let mut server = server(100);
    let mut reader = server.websocket("/channels/a", Some("tidings.raw"));
    let mut writer = server.websocket("/channels/b,a", Some("tidings.v1"));
    assert_eq!(reader.heard(&mut server), [""; 0]);
    let sender = server.websocket("/channels/a", None);
    bytes.chunks(1).for_each(|byte| server.send(sender.wire, byte));
    assert_eq!(reader.heard(&mut server), ["text κόσμε \u{1F600} €"]);
    assert_eq!(writer.heard(&mut server).len(), 1);
}

/// RFC 6455 8.1 asks to fail a text that is not UTF-8; the byte that shows it is enough, though the
/// frame announces more, and the message more frames.
#[test]
fn a_bad_byte_fails_before_the_frame_ends() {
    for (what, good, bad) in [
        ("a lone continuation", &b"abc"[..], 0x80),
        ("too long a form", b"abc\xe0", 0x9f),
        ("a surrogate", b"abc\xed", 0xa0),
        ("beyond Unicode", b"abc\xf4", 0x90),
        ("no continuation", b"abc\xe2\x82", b'x'),
        ("a byte that is never there", b"", 0xff),
    ] {
        for fin in [0x80, 0] {
            // The frame announces 1000 bytes.
            let mut bytes = frame(fin | TEXT, &[good, &[bad], &[b'x'; 1000]].concat()[..1000]);
            bytes.truncate(8 + good.len() + 1);
            let mut server = Server::start();
            let mut socket = server.websocket("/channels/a", None);
            server.send(socket.wire, &bytes[..8 + good.len()]);
            assert_eq!(socket.heard(&mut server), [""; 0], "{what}: what has come may be the beginning of text");
            server.send(socket.wire, &bytes[8 + good.len()..]);
            assert_eq!(socket.codes(&mut server), ["close 1007", "end"], "{what}");
        }
        // In a later fragment.
        let mut server = Server::start();
        let mut socket = server.websocket("/channels/a", None);
        server.send(socket.wire, &[frame(TEXT, good), frame(0, b"")].concat());
        assert_eq!(socket.heard(&mut server), [""; 0], "{what}");
        server.send(socket.wire, &frame(0, &[bad, b'x', b'x'])[..7]);
        assert_eq!(socket.codes(&mut server), ["close 1007", "end"], "{what}, in a fragment of its own");
    }
    // Of a binary message nothing is asked.
    let mut server = Server::start();
    let mut socket = server.websocket("/channels/a", Some("tidings.raw"));
    server.send(socket.wire, &client_frame(2, b"\xff\xc0\x80"));
    assert_eq!(socket.heard(&mut server), ["binary [255, 192, 128]"]);
}

/// Fragments are bounded in number, empty ones too: 1024, and one for each 64 bytes of the limit.
#[test]
fn fragments_are_bounded_in_number() {
    for (limit, most) in [(0, 1024), (64 * 100, 1124), (256 * 1024, 5120)] {
        let mut server = server(limit);
        let mut socket = server.websocket("/channels/a", Some("tidings.raw"));
        let empty = |count: usize| [frame(0x01, b""), frame(0, b"").repeat(count - 2), frame(0x80, b"")].concat();
        server.send(socket.wire, &empty(most));
        assert_eq!(socket.heard(&mut server), ["text "], "{most} with a limit of {limit}");
        server.send(socket.wire, &empty(most + 1));
        assert_eq!(socket.codes(&mut server), ["close 1008", "end"], "{most} and one with a limit of {limit}");
    }
}
