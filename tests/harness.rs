//! The simulation's own parts, tested by themselves: the kernel's edges, the clients' parsers.

mod clients;
mod kernel;

use std::io::ErrorKind;
use std::time::Duration;

use clients::json::Json;
use clients::{EventStream, Format, Frame, Frames, Heard, Part, Place, Reader, Responses, SseItem, Transport};
use kernel::{Ending, Fault, Kernel, Wire};
use tidings::internals::{Event, Os};

// The kernel.

fn events(kernel: &mut Kernel, ms: u64) -> Vec<Event> {
    let mut events = Vec::new();
    kernel.wait(Some(Duration::from_millis(ms)), &mut events).expect("no fault");
    events
}

fn socket(index: u32, readable: bool, writable: bool, read_closed: bool) -> Event {
    Event::Socket { index, readable, writable, read_closed }
}

fn accepted(kernel: &mut Kernel) -> Wire {
    let wire = kernel.connect();
    assert_eq!(events(kernel, 0), [Event::Listener(0)]);
    kernel.accept(0, 0).expect("one waits");
    assert_eq!(events(kernel, 0), [socket(0, false, true, false)], "a new socket is writable");
    wire
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn an_edge_comes_once_for_what_newly_arrives() {
    let mut kernel = Kernel::new(1);
    let wire = accepted(&mut kernel);
    assert_eq!(events(&mut kernel, 5), [], "nothing arrived");
    kernel.send(wire, b"abc");
    assert_eq!(events(&mut kernel, 5), [socket(0, true, true, false)]);
    assert_eq!(events(&mut kernel, 5), [], "unread bytes are no new edge");
    let mut buffer = [0; 2];
    assert_eq!(kernel.read(0, &mut buffer).ok(), Some(2));
    assert_eq!(events(&mut kernel, 5), [], "nor is what a read left");
    kernel.send(wire, b"d");
    assert_eq!(events(&mut kernel, 5), [socket(0, true, true, false)]);
    assert_eq!(kernel.read(0, &mut buffer).ok(), Some(2));
    assert_eq!(kind(kernel.read(0, &mut buffer)), Some(ErrorKind::WouldBlock));
}

#[test]
fn the_end_is_told_with_the_bytes_before_it_and_never_again() {
    let mut kernel = Kernel::new(1);
    let wire = accepted(&mut kernel);
    kernel.send(wire, b"abc");
    kernel.half_close(wire);
    assert_eq!(events(&mut kernel, 0), [socket(0, true, true, true)]);
    let mut buffer = [0; 9];
    assert_eq!(kernel.read(0, &mut buffer).ok(), Some(3));
    assert_eq!(events(&mut kernel, 0), []);
    assert_eq!(kernel.read(0, &mut buffer).ok(), Some(0));
}

#[test]
fn space_is_told_when_a_third_is_free_to_who_met_a_full_buffer() {
    let mut kernel = Kernel::new(1);
    kernel.send_buffer = 9;
    let wire = accepted(&mut kernel);
    assert_eq!(kernel.write(0, b"12345678").ok(), Some(8));
    kernel.receive(wire, 8);
    assert_eq!(events(&mut kernel, 0), [], "nobody waited for space");
    assert_eq!(kernel.write(0, b"1234567890").ok(), Some(9));
    assert_eq!(kind(kernel.write(0, b"0")), Some(ErrorKind::WouldBlock));
    kernel.receive(wire, 2);
    assert_eq!(events(&mut kernel, 0), []);
    kernel.receive(wire, 1);
    assert_eq!(events(&mut kernel, 0), [socket(0, false, true, false)]);
}

#[test]
fn a_close_with_unread_input_resets_and_loses_the_answer() {
    for (input, ending, answer) in [("", None, "sorry"), ("more", Some(Ending::Reset), "")] {
        let mut kernel = Kernel::new(1);
        let wire = accepted(&mut kernel);
        kernel.send(wire, input.as_bytes());
        kernel.write(0, b"sorry").expect("there is room");
        kernel.close(0);
        assert_eq!(kernel.ending(wire), ending);
        assert_eq!(kernel.receive(wire, 9), answer.as_bytes());
    }
}

#[test]
fn a_write_to_a_client_that_is_gone_succeeds_once() {
    let mut kernel = Kernel::new(1);
    let wire = accepted(&mut kernel);
    kernel.close_client(wire);
    assert_eq!(kernel.write(0, b"lost").ok(), Some(4));
    assert_eq!(kind(kernel.write(0, b"more")), Some(ErrorKind::ConnectionReset));
    assert_eq!(kind(kernel.read(0, &mut [0; 1])), Some(ErrorKind::ConnectionReset));
}

#[test]
fn time_passes_only_when_nothing_is_due() {
    let mut kernel = Kernel::new(1);
    let start = kernel.now_ms();
    kernel.connect();
    assert_eq!(events(&mut kernel, 1000), [Event::Listener(0)]);
    assert_eq!(kernel.now_ms(), start);
    assert_eq!(events(&mut kernel, 1000), [], "an unaccepted connection is no new edge");
    assert_eq!(kernel.now_ms(), start + 1000);
}

#[test]
fn after_a_short_call_and_a_false_would_block_an_edge_follows() {
    for fault in [Fault::ShortRead, Fault::ReadWouldBlock, Fault::ShortWrite, Fault::WriteWouldBlock] {
        let mut kernel = Kernel::new(3);
        let wire = accepted(&mut kernel);
        kernel.send(wire, b"abcdef");
        events(&mut kernel, 0);
        kernel.faults.odds[fault as usize] = 1;
        let is_read = matches!(fault, Fault::ShortRead | Fault::ReadWouldBlock);
        let done = if is_read { kernel.read(0, &mut [0; 64]) } else { kernel.write(0, b"abcdef") };
        assert!(done.unwrap_or(0) < 6, "{fault:?}");
        assert_eq!(kernel.faults.counts[fault as usize], 1, "{fault:?}");
        kernel.faults.stop();
        let [Event::Socket { readable, writable, .. }] = events(&mut kernel, 1000)[..] else { panic!("{fault:?}") };
        assert!(if is_read { readable } else { writable }, "{fault:?}");
    }
}

// The clients.

/// Feeds these bytes whole, byte by byte, and in two parts at every place.
fn in_every_way<T: PartialEq + std::fmt::Debug>(bytes: &[u8], read: impl Fn(&[&[u8]]) -> T) -> T {
    let whole = read(&[bytes]);
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    for split in 0..=bytes.len() {
        assert_eq!(read(&[&bytes[..split], &bytes[split..]]), whole, "split at {split}");
    }
    whole
}

/// All parts, neighbouring body parts joined.
fn responses(pieces: &[&[u8]]) -> clients::Result<Vec<Part>> {
    let mut reader = Responses::default();
    let mut parts: Vec<Part> = Vec::new();
    for piece in pieces {
        reader.receive(piece);
        while let Some(part) = reader.next_part()? {
            match (parts.last_mut(), part) {
                (Some(Part::Body(body)), Part::Body(more)) => body.extend(more),
                (_, part) => parts.push(part),
            }
        }
    }
    Ok(parts)
}

#[test]
fn responses_follow_each_other() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi\
                  HTTP/1.1 204 No Content\r\nTidings-Cursor: 1-2\r\n\r\n\
                  HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n";
    let parts = in_every_way(bytes, responses).expect("well-formed");
    let statuses: Vec<u16> =
        parts.iter().filter_map(|part| if let Part::Head(head) = part { Some(head.status) } else { None }).collect();
    assert_eq!(statuses, [200, 204, 200]);
    let bodies = parts.iter().filter(|part| matches!(part, Part::Body(_))).cloned().collect::<Vec<_>>();
    assert_eq!(bodies, [Part::Body(b"hi".to_vec()), Part::Body(b"abc0123456789".to_vec())]);
    assert_eq!(parts.last(), Some(&Part::End));
}

#[test]
fn malformed_responses_are_refused() {
    for bytes in [
        &b"HTTP/1.1 2x0 OK\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\nDate: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ] {
        assert!(responses(&[bytes]).is_err(), "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn event_streams_are_read_as_the_standard_says() {
    let event =
        |id: &str, event: &str, data: &str| SseItem::Event { id: id.into(), event: event.into(), data: data.into() };
    let cases: [(&str, Vec<SseItem>); 8] = [
        ("retry: 2000\nid: 1-5\n\n", vec![SseItem::Retry(2000), SseItem::Id("1-5".into())]),
        ("id: 1-6\ndata: a\n\n", vec![event("1-6", "message", "a")]),
        ("id: 1-6\revent: price\rdata: a\rdata:  b\r\r", vec![event("1-6", "price", "a\n b")]),
        ("data: a\r\n\r\ndata\n\n", vec![event("", "message", "a"), event("", "message", "")]),
        (":\n\n: ping\n\n", vec![SseItem::Comment(String::new()), SseItem::Comment("ping".into())]),
        ("event: gap\n\nretry: x\nnonsense: 1\nid: a\0b\n\n", vec![]),
        ("\u{feff}data: \u{feff}a\n\n", vec![event("", "message", "\u{feff}a")]),
        ("id: 1-7\n\ndata: b\n\ndata: unfinished", vec![SseItem::Id("1-7".into()), event("1-7", "message", "b")]),
    ];
    for (text, expected) in cases {
        let items = in_every_way(text.as_bytes(), |pieces| {
            let mut stream = EventStream::default();
            pieces.iter().flat_map(|piece| stream.receive(piece).expect("UTF-8")).collect::<Vec<_>>()
        });
        assert_eq!(items, expected, "{text:?}");
    }
}

fn frames(pieces: &[&[u8]]) -> clients::Result<Vec<Frame>> {
    let mut reader = Frames::default();
    let mut frames = Vec::new();
    for piece in pieces {
        reader.receive(piece);
        while let Some(frame) = reader.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn frames_of_a_server() {
    // The samples of RFC 6455 5.7, and a close.
    let bytes = b"\x81\x05Hello\x89\x05Hello\x8a\x00\x82\x01\xff\x88\x05\x03\xf4bye";
    let expected = [
        Frame::Text("Hello".into()),
        Frame::Ping(b"Hello".to_vec()),
        Frame::Pong(Vec::new()),
        Frame::Binary(vec![0xff]),
        Frame::Close(Some(1012), "bye".into()),
    ];
    assert_eq!(in_every_way(bytes, frames).expect("well-formed"), expected);
    let long = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
    assert_eq!(frames(&[&long]), Ok(vec![Frame::Binary(vec![7; 256])]));
    for wrong in [
        &b"\x01\x05Hello"[..],
        b"\xc1\x05Hello",
        b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        b"\x81\x7e\x00\x05Hello",
        b"\x81\x01\xff",
        b"\x88\x01\x03",
        b"\x83\x00",
    ] {
        assert!(frames(&[wrong]).is_err(), "{wrong:02x?}");
    }
    // RFC 6455 5.7: "a single-frame masked text message".
    assert_eq!(clients::client_frame(clients::TEXT, b"Hello"), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
}

#[test]
fn deflate_both_ways() {
    use clients::deflate::{WAYS, deflate, inflate};
    // RFC 7692 7.2.3, and a block with codes of its own, by zlib.
    for (payload, text) in [
        (&b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..], "Hello"),
        (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello"),
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello"),
        (b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello"),
        (b"\x00", ""),
        (DYNAMIC, DYNAMIC_TEXT),
    ] {
        assert_eq!(inflate(payload, 1 << 15).as_deref(), Ok(text.as_bytes()), "{payload:02x?}");
    }
    for wrong in [&b""[..], b"\x07", b"\xf2\x48", b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff", b"\x02\x13\x00\x00"]
    {
        assert!(inflate(wrong, 1 << 15).is_err(), "{wrong:02x?}");
    }
    let message: Vec<u8> = (0..5000u32).map(|nth| (nth * nth / 7) as u8).collect();
    for length in (0..300).chain([999, 1000, 1001, 5000]) {
        for way in 0..WAYS {
            assert_eq!(inflate(&deflate(&message[..length], way), 1).as_deref(), Ok(&message[..length]), "{way}");
        }
    }
    let (payload, length) = clients::deflate::bomb(10);
    assert_eq!(inflate(&payload, 1), Ok(vec![0; length]));
    // "Hello" twice, by a reference 5 bytes back.
    let twice = b"\xf2\x48\xcd\xc9\xc9\xf7\x00\x11\x00\x00";
    assert_eq!(inflate(twice, 5).as_deref(), Ok(&b"HelloHello"[..]));
    assert!(inflate(twice, 4).is_err(), "farther back than the window");
}

/// zlib, level 9, raw, sync flush.
const DYNAMIC: &[u8] = b"\xc4\x4e\xb9\x0d\xc0\x40\x0c\x5a\xe5\x56\xe3\x69\xa2\x14\x69\x6e\x7f\x05\x9c\xec\x70\x2e\x30\x02\x8c\x0c\x4a\x42\x26\x40\x0c\x73\x69\x44\x76\x05\x5d\x91\xdd\x55\xbe\x14\xf1\xc7\x63\xca\x74\x1d\x8e\x6e\x92\x49\xca\x13\x31\xc4\xb6\x4c\xd5\xdc\x9b\x4a\x17\xd6\xbe\x74\xaf\xfd\x04\x70\xfe\x85\x17";
const DYNAMIC_TEXT: &str = "abcccaaaacaabacaaaadcaabccabaabcabadaaaabbadabaababacaabaaabacaadaacdbdbaabbcaabadbbbdabcdbaaabdacbabcaaabcaabaabdbcbbaa tick tock abcccaaaacaabacaaaadcaabccabaabcabadaaaabbadabaababacaabaaabacaadaacdbdbaabbcaabadbbbdabcdbaaabdacbabcaaabcaabaabdbcbbaa tick tock ";

#[test]
fn json() {
    let text = r#"{"a":[1,-2.5e3,"\u00e4\ud83d\ude00\n\"\\/"],"b":{},"c":[],"d":null,"e":true,"f":[0,0.250,-0.5]}"#;
    let json = Json::parse(text).expect("well-formed");
    assert_eq!(json.member("a").expect("a").list().expect("a list")[2].as_text(), Ok("\u{e4}\u{1f600}\n\"\\/"));
    assert_eq!(json.member("d"), Some(&Json::Null));
    for wrong in
        ["", "{", "[1,]", "{\"a\"}", "01", "-01", "\"\n\"", "\"\\x\"", "\"\\ud800\"", "1 2", "nul", "{\"a\":1,}"]
    {
        assert!(Json::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn cursors_and_base64() {
    assert_eq!(Place::parse("1766-42"), Ok(Place { epoch: 1766, seq: 42 }));
    for wrong in ["", "1", "1-", "-1", "01-1", "1-01", "+1-1", "1-2-3", "4294967296-1"] {
        assert!(Place::parse(wrong).is_err(), "{wrong}");
    }
    for (text, bytes) in [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("/+8A", b"\xff\xef\0")] {
        assert_eq!(clients::base64_decoded(text), Ok(bytes.to_vec()));
    }
    assert!(clients::base64_decoded("Zg=").is_err() && clients::base64_decoded("Z!==").is_err());
}

#[test]
fn a_reader_hears_the_same_from_every_transport() {
    let head = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Content-Type-Options: nosniff\r\n";
    let object = r#"{"id":"9-2","channel":"a","time":1,"data":"x"}"#;
    let gap = r#"{"after":"9-0","through":"9-1","cursor":"9-1","reason":"evicted"}"#;
    let body = format!(r#"{{"cursor":"9-2","gap":{gap},"messages":[{object}]}}"#);
    let poll =
        format!("{head}Cache-Control: no-store\r\nTidings-Cursor: 9-2\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let block = format!("event: gap\nid: 9-1\ndata: {gap}\n\nid: 9-2\ndata: {object}\n\n");
    let sse = format!(
        "{head}Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\nContent-Type: text/event-stream\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{block}\r\n",
        block.len()
    );
    for (transport, bytes) in [(Transport::Poll, poll), (Transport::Sse, sse)] {
        let heard = in_every_way(bytes.as_bytes(), |pieces| {
            let mut reader = Reader::new(transport, Format::Json);
            pieces.iter().flat_map(|piece| reader.receive(piece).expect("well-formed")).collect::<Vec<_>>()
        });
        assert!(matches!(&heard[0], Heard::Gap(gap) if gap.reason == "evicted"), "{heard:?}");
        assert!(matches!(&heard[1], Heard::Message(message) if message.payload == b"x"), "{heard:?}");
    }
}
