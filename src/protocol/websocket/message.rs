//! A client's frames become messages, pings, pongs and a close.
//!
//! RFC 6455 5.4 to 5.6, 8.1; RFC 7692 6. Knows nothing of the connection: it is lent what was read, and lends
//! what is whole in it; what was gathered it hands over. What happens to a data frame:
//!
//! | message under way | whole frame is here | what happens |
//! | --- | --- | --- |
//! | no | yes, with FIN | unmasked in place and lent from the input: nothing is kept |
//! | no | otherwise | a message begins; what is here is gathered |
//! | yes | either | what is here is gathered; after the last byte of the FIN frame it is handed over |
//!
//! A compressed message goes the same ways; at its end it is inflated and lent from the inflater.
//! A control frame is small: it waits in the input until it is whole, and may stand between fragments.
//! Invariant: `message` holds bytes of one message, all received, all unmasked; `left` is not 0 only
//! between two reads inside a frame of that message, or inside one that is skipped.

use super::close::decode_close;
use super::frame::FrameHead;
use super::mask::unmask;
use super::{CloseCode, Error, Gathered, Inflater, Opcode};
use crate::buffer::Spares;

/// What a client sent.
#[derive(Debug)]
pub enum Received<'a> {
    /// A whole text message: its bytes are UTF-8.
    Text(&'a [u8]),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A whole message of either kind that came in pieces. If it is text, its bytes are.
    Gathered(Gathered),
    /// To be answered with a pong of the same payload. Of several, the latest is enough.
    Ping(&'a [u8]),
    /// A sign of life.
    Pong(&'a [u8]),
    /// To be answered with a close frame. Nothing after it may be decoded (RFC 6455 5.5.1).
    Close(Option<CloseCode>, &'a str),
}

/// What one message may cost.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Bytes of a message over all its fragments. Beyond it, as announced: 1009.
    pub message_bytes_max: usize,
    /// Frames of a message. It bounds empty fragments, which no limit of bytes does: 1008.
    pub fragments_max: u32,
}

impl Limits {
    /// How many bytes a message may have before it is inflated. What cannot be compressed grows:
    /// by 5 bytes a block that is stored, which in zlib may be as short as 127.
    fn received_bytes_max(self, compressed: bool) -> usize {
        let overhead = if compressed { self.message_bytes_max / 16 + 16 } else { 0 };
        self.message_bytes_max.saturating_add(overhead)
    }
}

/// Decodes the frames of one client.
///
/// It knows something only while a message is incomplete. Whenever it is [`idle`](Decoder::idle),
/// a new one is as good: an idle connection needs none.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The message under way.
    message: Option<Gathered>,
    /// It is compressed: to be inflated at its end.
    compressed: bool,
    /// How many frames of it have begun.
    fragments: u32,
    /// Of its newest frame: payload bytes to come, the mask from there on, whether it is the last.
    left: usize,
    mask: [u8; 4],
    fin: bool,
}

impl Decoder {
    /// Takes one thing out of the front of `bytes`, and tells how many bytes of it are consumed.
    ///
    /// Call it again with what is behind those until it answers `None`, need more: the bytes not
    /// consumed (never more than 130) belong in front of what is read next. Even then some may be
    /// consumed: they belong to a message that is not complete.
    ///
    /// With an inflater, permessage-deflate is agreed. What is gathered takes one of the spares.
    pub fn decode<'a>(
        &mut self,
        bytes: &'a mut [u8],
        limits: Limits,
        inflater: Option<&'a mut Inflater>,
        spares: &mut Spares,
    ) -> Result<(Option<Received<'a>>, usize), Error> {
        let mut at = 0;
        // Every turn but the last consumes a fragment.
        loop {
            if self.left == 0 {
                let Some((head, head_len)) = FrameHead::decode(&bytes[at..], inflater.is_some())? else {
                    return Ok((None, at));
                };
                let start = at + head_len;
                let here = bytes.len() - start;
                if head.opcode.is_control() {
                    let length = head.length as usize;
                    if length > here {
                        return Ok((None, at));
                    }
                    let payload = &mut bytes[start..start + length];
                    unmask(payload, head.mask);
                    return Ok((Some(control(head.opcode, payload)?), start + length));
                }
                let length = self.admit(&head, limits)?;
                if self.message.is_none() && head.fin && length <= here {
                    let payload = &mut bytes[start..start + length];
                    let is_ascii = unmask(payload, head.mask);
                    let binary = head.opcode == Opcode::Binary;
                    let received = match inflater.filter(|_| head.compressed) {
                        Some(inflater) => whole(inflater.inflate(payload, limits.message_bytes_max)?, binary)?,
                        None if is_ascii && !binary => Received::Text(payload),
                        None => whole(payload, binary)?,
                    };
                    return Ok((Some(received), start + length));
                }
                self.begin(&head, length, here, spares);
                at = start;
            }

            at += self.gather(&mut bytes[at..])?;
            if self.left > 0 {
                return Ok((None, at));
            }
            if self.fin
                && let Some(message) = self.message.take()
            {
                let Some(inflater) = inflater.filter(|_| self.compressed) else {
                    message.check_end()?;
                    return Ok((Some(Received::Gathered(message)), at));
                };
                let payload = inflater.inflate(message.payload(), limits.message_bytes_max)?;
                let received = whole(payload, message.is_binary())?;
                spares.give(message.into_buffer());
                return Ok((Some(received), at));
            }
        }
    }

    /// May this data frame come now? If so, its length.
    fn admit(&self, head: &FrameHead, limits: Limits) -> Result<usize, Error> {
        // RFC 6455 5.4: the fragments of a message follow each other; only control frames may
        // come between them.
        match (head.opcode, &self.message) {
            (Opcode::Continuation, None) => return Err(Error::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Error::MessageUnfinished),
            _ => {}
        }
        // As announced, before a byte of it is taken.
        let compressed = if self.idle() { head.compressed } else { self.compressed };
        let room = limits.received_bytes_max(compressed).saturating_sub(self.buffered());
        let length = usize::try_from(head.length).map_err(|_| Error::MessageTooBig)?;
        if length > room {
            return Err(Error::MessageTooBig);
        }
        let fragments = if self.idle() { 0 } else { self.fragments };
        if fragments >= limits.fragments_max {
            return Err(Error::TooManyFragments);
        }
        Ok(length)
    }

    /// From here on the payload of this frame is gathered.
    fn begin(&mut self, head: &FrameHead, length: usize, here: usize, spares: &mut Spares) {
        if self.message.is_none() {
            let binary = head.opcode == Opcode::Binary;
            self.message = Some(Gathered::begin(length, here, binary, !binary && !head.compressed, spares));
            self.compressed = head.compressed;
            self.fragments = 0;
        }
        self.fragments += 1;
        self.left = length;
        self.mask = head.mask;
        self.fin = head.fin;
    }

    /// Takes what is there of the newest frame's payload, and tells how much that is.
    fn gather(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        if let Some(message) = &mut self.message {
            message.append(&mut bytes[..taken], self.mask, self.left)?;
        }
        self.mask.rotate_left(taken % 4);
        Ok(taken)
    }

    /// Looks for a close frame and at nothing else: true once a whole one is there, and how many
    /// bytes are consumed. For a connection that we have closed: what comes before the peer's close
    /// frame is not wanted any more, and not kept.
    pub fn skip_to_close(&mut self, bytes: &[u8]) -> Result<(bool, usize), Error> {
        self.message = None;
        let mut at = 0;
        // Every turn but the last consumes the head of a frame.
        loop {
            let skipped = self.left.min(bytes.len() - at);
            self.left -= skipped;
            at += skipped;
            // Compressed or not: it is thrown away.
            let Some((head, head_len)) = FrameHead::decode(&bytes[at..], true)? else { return Ok((false, at)) };
            let length = usize::try_from(head.length).map_err(|_| Error::MessageTooBig)?;
            if head.opcode == Opcode::Close {
                let here = bytes.len() - at - head_len;
                return Ok(if length <= here { (true, at + head_len + length) } else { (false, at) });
            }
            at += head_len;
            self.left = length;
        }
    }

    /// Bytes received of an incomplete message.
    pub fn buffered(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.payload().len())
    }

    /// The memory of the message it gathers.
    pub fn room(&self) -> usize {
        self.message.as_ref().map_or(0, Gathered::capacity)
    }

    /// True if no message is incomplete, nor a frame that is skipped. The decoder may then be dropped.
    pub fn idle(&self) -> bool {
        self.message.is_none() && self.left == 0
    }
}

/// The message with this payload.
fn whole(payload: &[u8], binary: bool) -> Result<Received<'_>, Error> {
    Ok(match binary {
        true => Received::Binary(payload),
        false => Received::Text(str::from_utf8(payload).map_err(|_| Error::NotUtf8)?.as_bytes()),
    })
}

/// The control frame with this payload.
fn control(opcode: Opcode, payload: &[u8]) -> Result<Received<'_>, Error> {
    Ok(match opcode {
        Opcode::Ping => Received::Ping(payload),
        Opcode::Pong => Received::Pong(payload),
        // Of the opcodes of control frames, close is left.
        _ => {
            let (code, reason) = decode_close(payload)?;
            Received::Close(code, reason)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::frame::FRAME_HEAD_MAX;
    use super::super::gathered::tests::could_become_text;
    use super::*;

    const LIMITS: Limits = Limits { message_bytes_max: 1000, fragments_max: 5 };

    /// A message prints the same however it came.
    fn show(received: &Received<'_>) -> String {
        match received {
            Received::Gathered(message) if message.is_binary() => format!("{:?}", Received::Binary(message.payload())),
            Received::Gathered(message) => show(&Received::Text(message.payload())),
            Received::Text(text) => format!("Text({:?})", str::from_utf8(text).unwrap()),
            other => format!("{other:?}"),
        }
    }

    /// What a stream of bytes decodes to: everything received, as it prints, and the error that ends it.
    type Outcome = (Vec<String>, Option<Error>);

    /// A masked frame, its first byte given.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=65_535 => bytes.extend([0xfe, (len >> 8) as u8, len as u8]),
            len => {
                bytes.push(0xff);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let mask = [0x37, 0xfa, 0x21, first];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// Reads the pieces with one decoder, and with a new one whenever it is idle: both say the same.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]> + Clone, limits: Limits) -> Outcome {
        let kept = decode_with(pieces.clone(), limits, None, |_| {});
        let dropped = decode_with(pieces, limits, None, |decoder| *decoder = Decoder::default());
        assert_eq!(kept, dropped);
        kept
    }

    /// The same with permessage-deflate agreed.
    #[cfg(feature = "deflate")]
    fn decode_agreed<'a>(pieces: impl IntoIterator<Item = &'a [u8]> + Clone) -> Outcome {
        let mut inflater = Inflater::default();
        let kept = decode_with(pieces.clone(), LIMITS, Some(&mut inflater), |_| {});
        let dropped = decode_with(pieces, LIMITS, Some(&mut inflater), |decoder| *decoder = Decoder::default());
        assert_eq!(kept, dropped);
        kept
    }

    /// Reads the pieces as a connection does: what is not consumed stays in front of the next piece.
    fn decode_with<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        limits: Limits,
        mut inflater: Option<&mut Inflater>,
        when_idle: impl Fn(&mut Decoder),
    ) -> Outcome {
        let mut decoder = Decoder::default();
        let mut spares = Spares::default();
        let mut input = Vec::new();
        let mut out = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                let decoded = decoder.decode(&mut input, limits, inflater.as_deref_mut(), &mut spares);
                let (received, consumed) = match decoded {
                    Ok((received, consumed)) => (received.map(|what| show(&what)), consumed),
                    Err(error) => return (out, Some(error)),
                };
                input.drain(..consumed);
                assert!(decoder.buffered() <= limits.received_bytes_max(inflater.is_some()));
                if decoder.idle() {
                    assert_eq!(decoder.buffered(), 0);
                    when_idle(&mut decoder);
                }
                match received {
                    Some(received) => out.push(received),
                    None => break,
                }
            }
            assert!(input.len() <= 130, "{} bytes left in the input", input.len());
        }
        (out, None)
    }

    /// Whole, byte by byte, and cut in two at every place.
    fn decodes_to(bytes: &[u8], limits: Limits, want: &Outcome) {
        assert_eq!(&decode([bytes], limits), want, "whole: {bytes:02x?}");
        assert_eq!(&decode(bytes.chunks(1), limits), want, "byte by byte: {bytes:02x?}");
        for cut in (0..=bytes.len()).step_by(crate::stride(97)) {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(&decode([front, back], limits), want, "cut at {cut}: {bytes:02x?}");
        }
    }

    fn expect(frames: &[Vec<u8>], received: &[Received<'_>], error: Option<Error>) {
        let received = received.iter().map(show).collect();
        decodes_to(&frames.concat(), LIMITS, &(received, error));
    }

    #[test]
    fn whole_messages_and_control_frames() {
        use Received::{Binary, Close, Ping, Pong, Text};
        let long = "é".repeat(200);
        expect(
            &[
                frame(0x81, b"Hello"),
                frame(0x81, b""),
                frame(0x82, b"\x00\xff"),
                frame(0x82, b""),
                frame(0x81, long.as_bytes()),
                frame(0x89, b""),
                frame(0x89, &[7; 125]),
                frame(0x8a, b"pong"),
                frame(0x88, b""),
                frame(0x88, b"\x03\xe8bye"),
            ],
            &[
                Text(b"Hello"),
                Text(b""),
                Binary(b"\x00\xff"),
                Binary(b""),
                Text(long.as_bytes()),
                Ping(b""),
                Ping(&[7; 125]),
                Pong(b"pong"),
                Close(None, ""),
                Close(Some(CloseCode::NORMAL), "bye"),
            ],
            None,
        );
    }

    #[test]
    fn fragments() {
        use Received::{Binary, Ping, Pong, Text};
        expect(&[frame(0x01, b"Hel"), frame(0x80, b"lo")], &[Text(b"Hello")], None);
        expect(&[frame(0x02, b""), frame(0x00, b""), frame(0x80, b"")], &[Binary(b"")], None);
        expect(&[frame(0x02, b"\xff"), frame(0x80, b"\xfe")], &[Binary(b"\xff\xfe")], None);
        // Characters cut between fragments: e2 82 ac is the euro.
        expect(
            &[frame(0x01, b"\xe2"), frame(0x00, b""), frame(0x00, b"\x82"), frame(0x80, b"\xac!")],
            &[Text("€!".as_bytes())],
            None,
        );
        // Control frames between fragments come at once.
        expect(
            &[
                frame(0x01, b"a"),
                frame(0x89, b"1"),
                frame(0x00, b"b"),
                frame(0x8a, b"2"),
                frame(0x80, b"c"),
                frame(0x81, b"d"),
            ],
            &[Ping(b"1"), Pong(b"2"), Text(b"abc"), Text(b"d")],
            None,
        );
        expect(&[frame(0x01, b"a"), frame(0x88, b"")], &[Received::Close(None, "")], None);
    }

    #[test]
    fn frames_out_of_place() {
        use Received::{Ping, Text};
        expect(&[frame(0x80, b"a")], &[], Some(Error::NothingToContinue));
        expect(&[frame(0x00, b"a")], &[], Some(Error::NothingToContinue));
        expect(&[frame(0x81, b"a"), frame(0x80, b"b")], &[Text(b"a")], Some(Error::NothingToContinue));
        expect(
            &[frame(0x01, b"a"), frame(0x80, b"b"), frame(0x80, b"c")],
            &[Text(b"ab")],
            Some(Error::NothingToContinue),
        );
        expect(&[frame(0x01, b"a"), frame(0x81, b"b")], &[], Some(Error::MessageUnfinished));
        expect(&[frame(0x02, b"a"), frame(0x89, b""), frame(0x02, b"b")], &[Ping(b"")], Some(Error::MessageUnfinished));
        expect(&[frame(0x81, b"a"), vec![0xc1]], &[Text(b"a")], Some(Error::ReservedBits));
        expect(&[frame(0x01, b"a"), vec![0x80, 0x01]], &[], Some(Error::NotMasked));
    }

    #[test]
    fn bad_close_frames() {
        for (payload, error) in [
            (&b"\x03"[..], Error::CloseCodeCut),
            (b"\x03\xed", Error::CloseCodeInvalid),
            (b"\x03\xe8\xff", Error::NotUtf8),
        ] {
            expect(&[frame(0x88, payload)], &[], Some(error));
        }
    }

    /// What these frames decode to with permessage-deflate agreed: whole, byte by byte, cut in two
    /// at every place.
    #[cfg(feature = "deflate")]
    fn expect_agreed(frames: &[Vec<u8>], received: &[Received<'_>], error: Option<Error>) {
        let bytes = frames.concat();
        let want = (received.iter().map(show).collect(), error);
        assert_eq!(decode_agreed([&bytes[..]]), want, "whole: {bytes:02x?}");
        assert_eq!(decode_agreed(bytes.chunks(1)), want, "byte by byte: {bytes:02x?}");
        for cut in (0..=bytes.len()).step_by(crate::stride(97)) {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(decode_agreed([front, back]), want, "cut at {cut}: {bytes:02x?}");
        }
    }

    /// RFC 7692 7.2.3.1
    #[cfg(feature = "deflate")]
    const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";

    #[cfg(feature = "deflate")]
    #[test]
    fn compressed_messages() {
        use Received::{Binary, Ping, Text};
        expect_agreed(
            &[
                frame(0xc1, HELLO),
                // One that is not compressed may stand between them.
                frame(0x81, b"plain"),
                frame(0xc2, HELLO),
                frame(0xc1, b"\x00"),
                frame(0xc1, b""),
                // In fragments: of one byte, empty ones, and with a ping between them.
                frame(0x41, &HELLO[..1]),
                frame(0x00, b""),
                frame(0x89, b"?"),
                frame(0x80, &HELLO[1..]),
                frame(0x02, b"not "),
                frame(0x80, b"compressed"),
                // Cut inside a character of two bytes, which the fragments do not show.
                frame(0x41, b"\x00\x02\x00\xfd\xff\xc3"),
                frame(0x80, b"\xa9\x00"),
            ],
            &[
                Text(b"Hello"),
                Text(b"plain"),
                Binary(b"Hello"),
                Text(b""),
                Text(b""),
                Ping(b"?"),
                Text(b"Hello"),
                Binary(b"not compressed"),
                Text("\u{e9}".as_bytes()),
            ],
            None,
        );
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn rsv1_is_for_the_first_frame_of_a_message_only() {
        for (frames, error) in [
            (vec![frame(0x41, &HELLO[..1]), frame(0xc0, &HELLO[1..])], Error::ReservedBits),
            (vec![frame(0x41, &HELLO[..1]), frame(0x40, b"")], Error::ReservedBits),
            (vec![frame(0xc9, b"")], Error::ReservedBits),
            (vec![frame(0xca, b"")], Error::ReservedBits),
            (vec![frame(0xc8, b"")], Error::ReservedBits),
            (vec![frame(0xa1, b"")], Error::ReservedBits),
            (vec![frame(0xd1, b"")], Error::ReservedBits),
            (vec![frame(0xf2, b"")], Error::ReservedBits),
            (vec![frame(0xc3, b"")], Error::ReservedBits),
            (vec![frame(0x01, b"a"), frame(0xc1, HELLO)], Error::MessageUnfinished),
        ] {
            expect_agreed(&frames, &[], Some(error));
        }
        // And for nobody who did not agree.
        expect(&[frame(0xc1, HELLO)], &[], Some(Error::ReservedBits));
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn compressed_messages_that_are_none() {
        for (payload, error) in [
            (&b"\x07"[..], Error::NotDeflate),
            (&HELLO[..3], Error::NotDeflate),
            // Text that is not UTF-8, and text that ends inside a character.
            (b"\x00\x01\x00\xfe\xff\xff\x00", Error::NotUtf8),
            (b"\x00\x01\x00\xfe\xff\xc3\x00", Error::NotUtf8),
        ] {
            expect_agreed(&[frame(0xc1, payload)], &[], Some(error));
            expect_agreed(&[frame(0x41, &payload[..1]), frame(0x80, &payload[1..])], &[], Some(error));
        }
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn a_compressed_message_is_bounded_by_what_it_inflates_to() {
        let compressed = |payload: &[u8]| {
            let mut out = Vec::new();
            assert!(crate::protocol::websocket::Deflater::default().deflate(payload, &mut out));
            out
        };
        let most = [b'x'; 1000];
        let more = [b'x'; 1001];
        let huge = vec![0; 1 << 20];
        expect_agreed(&[frame(0xc2, &compressed(&most))], &[Received::Binary(&most)], None);
        expect_agreed(&[frame(0xc2, &compressed(&more))], &[], Some(Error::MessageTooBig));
        expect_agreed(&[frame(0xc2, &compressed(&huge))], &[], Some(Error::MessageTooBig));
        // What cannot be compressed is a little longer than it was; much longer is refused as announced.
        let stored = [&b"\x00\xe8\x03\x17\xfc"[..], &most, b"\x00"].concat();
        expect_agreed(&[frame(0xc2, &stored)], &[Received::Binary(&most)], None);
        expect_agreed(&[frame(0xc2, &[0; 1000 + 62 + 16])[..8].to_vec()], &[], None);
        expect_agreed(&[frame(0xc2, &[0; 1000 + 62 + 17])[..8].to_vec()], &[], Some(Error::MessageTooBig));
    }

    #[test]
    fn a_message_is_too_big_as_soon_as_it_is_announced() {
        let most = [b'x'; 1000];
        let whole = [Received::Binary(&most)];
        expect(&[frame(0x82, &most)], &whole, None);
        expect(&[frame(0x02, &most[..999]), frame(0x80, b"x")], &whole, None);
        // Of the payload not a byte is there.
        let head = |first, len: usize| frame(first, &vec![b'x'; len])[..8].to_vec();
        expect(&[head(0x82, 1001)], &[], Some(Error::MessageTooBig));
        expect(&[head(0x02, 1001)], &[], Some(Error::MessageTooBig));
        expect(&[frame(0x02, &most[..999]), frame(0x80, b"xx")[..6].to_vec()], &[], Some(Error::MessageTooBig));
        // A length that does not fit into 32 bits.
        let huge = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04";
        expect(&[huge.to_vec()], &[], Some(Error::MessageTooBig));
    }

    #[test]
    fn fragments_are_counted_empty_ones_too() {
        let mut frames = vec![frame(0x02, b"")];
        frames.extend(vec![frame(0x00, b""); 3]);
        expect(&[frames.concat(), frame(0x80, b"x")], &[Received::Binary(b"x")], None);
        expect(&[frames.concat(), frame(0x00, b""), frame(0x80, b"x")], &[], Some(Error::TooManyFragments));
        // Each message has its own count, and control frames do not count.
        frames.extend(vec![frame(0x89, b""); 9]);
        frames.push(frame(0x80, b""));
        frames.push(frame(0x02, b""));
        frames.push(frame(0x80, b""));
        let mut want: Vec<_> = (0..9).map(|_| Received::Ping(b"")).collect();
        want.extend([Received::Binary(b""), Received::Binary(b"")]);
        expect(&frames, &want, None);
    }

    #[test]
    fn text_fails_at_the_first_byte_that_cannot_be_utf8() {
        for (text, good) in [
            (&b"\xff"[..], 0),
            (b"abc\x80", 3),
            (b"\xc0\x80", 0),
            (b"\xe0\x9f\xbf", 1),
            (b"\xed\xa0\x80", 1),
            (b"\xf0\x8f\xbf\xbf", 1),
            (b"\xf4\x90\x80\x80", 1),
            (b"\xf5\x80", 0),
            (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited", 12),
            (b"\xe2\x82x", 2),
        ] {
            // The payload of one frame, a byte at a time.
            let bytes = frame(0x81, &[text, b" and more"].concat());
            assert_eq!(decode(bytes[..6 + good].chunks(1), LIMITS), (vec![], None), "{text:02x?}");
            assert_eq!(decode(bytes[..7 + good].chunks(1), LIMITS), (vec![], Some(Error::NotUtf8)), "{text:02x?}");
            // In the first of several frames, whole: the end of the message is not waited for.
            expect(&[frame(0x01, text)], &[], Some(Error::NotUtf8));
            // Each byte in a fragment of its own.
            let limits = Limits { fragments_max: 100, ..LIMITS };
            let mut bytes = frame(0x01, b"");
            for &byte in text {
                bytes.extend(frame(0x00, &[byte]));
            }
            assert_eq!(decode([&bytes[..6 + 7 * good]], limits), (vec![], None), "{text:02x?}");
            assert_eq!(decode([&bytes[..13 + 7 * good]], limits), (vec![], Some(Error::NotUtf8)), "{text:02x?}");
        }
    }

    #[test]
    fn text_that_ends_inside_a_character_fails_at_its_end() {
        for text in [&b"\xc3"[..], b"ab\xe2\x82", b"\xf0\x9f\x98"] {
            expect(&[frame(0x81, text)], &[], Some(Error::NotUtf8));
            expect(&[frame(0x01, text), frame(0x80, b"")], &[], Some(Error::NotUtf8));
            expect(&[frame(0x01, text)], &[], None);
        }
    }

    #[test]
    fn a_whole_frame_is_lent_from_the_input_and_nothing_is_kept() {
        let mut bytes = Vec::new();
        for _ in 0..1000 / crate::stride(20) {
            bytes.extend(frame(0x89, b""));
            bytes.extend(frame(0x82, &[1; 200]));
            bytes.extend(frame(0x81, b"tick"));
        }
        let place = bytes.as_ptr_range();
        let mut decoder = Decoder::default();
        let mut at = 0;
        for _ in 0..1000 / crate::stride(20) {
            for _ in 0..3 {
                let (received, consumed) =
                    decoder.decode(&mut bytes[at..], LIMITS, None, &mut Spares::default()).unwrap();
                let payload = match received.unwrap() {
                    Received::Text(payload) | Received::Binary(payload) | Received::Ping(payload) => payload,
                    other => panic!("{other:?}"),
                };
                assert!(place.contains(&payload.as_ptr()) || payload.is_empty());
                at += consumed;
            }
        }
        assert_eq!((at, decoder.room()), (bytes.len(), 0));
    }

    #[test]
    fn memory_follows_what_was_received() {
        let limits = Limits { message_bytes_max: 1 << 40, fragments_max: 5 };
        let mut decoder = Decoder::default();
        // One GiB is announced.
        let mut head = *b"\x82\xff\x00\x00\x00\x00\x40\x00\x00\x00\x01\x02\x03\x04";
        let mut spares = Spares::default();
        assert!(matches!(decoder.decode(&mut head, limits, None, &mut spares), Ok((None, 14))));
        assert_eq!((decoder.buffered(), decoder.idle()), (0, false));
        for received in 0..=10_000 / crate::stride(100) {
            assert_eq!(decoder.buffered(), received);
            assert!(decoder.room() <= 4 * received + 2 * FRAME_HEAD_MAX, "{} for {received}", decoder.room());
            assert!(matches!(decoder.decode(&mut [0], limits, None, &mut spares), Ok((None, 1))));
        }
    }

    #[test]
    fn a_large_spare_is_only_for_a_message_of_which_much_has_come() {
        let mut spares = Spares::default();
        let mut large = spares.take();
        large.append(&[0; 100_000]);
        spares.give(large);
        let limits = Limits { message_bytes_max: 100_000, fragments_max: 5 };
        for (length, here, takes_it) in
            [(4095_u16, 4094, false), (65_535, 0, false), (65_535, 6000, false), (65_535, 6300, true)]
        {
            let mut bytes = [&[0x82, 0xfe][..], &length.to_be_bytes(), &[0; 4], &vec![7; here]].concat();
            let mut decoder = Decoder::default();
            assert!(matches!(decoder.decode(&mut bytes, limits, None, &mut spares), Ok((None, _))));
            assert_eq!(decoder.room() >= 100_000, takes_it, "{here} of {length}");
        }
    }

    #[test]
    fn behind_our_close_only_the_close_of_the_peer_is_looked_for() {
        let frames = [
            frame(0x01, &[b'x'; 200]),
            frame(0x89, b"ping"),
            frame(0x00, b"\xff"),
            frame(0xc2, b"\x07"),
            frame(0x88, b"\x03\xe8bye"),
        ];
        let end = frames.concat().len();
        let bytes = [&frames.concat()[..], b"more"].concat();
        // So many bytes came before, of a head, of a payload, of a message.
        for before in [0, 7, 8, 100, 208] {
            for cut in (before..=bytes.len()).step_by(crate::stride(31)) {
                let mut decoder = Decoder::default();
                let (_, begun) =
                    decoder.decode(&mut bytes[..before].to_vec(), LIMITS, None, &mut Spares::default()).unwrap();
                let (found, skipped) = decoder.skip_to_close(&bytes[begun..cut]).unwrap();
                assert_eq!(found, cut >= end, "{before} bytes, then {cut}");
                assert_eq!((decoder.buffered(), decoder.room()), (0, 0));
                let at = begun + skipped;
                assert!(cut.min(end) - at < 11, "no more than a head waits, or the close frame");
                let rest = if found { (true, end) } else { decoder.skip_to_close(&bytes[at..]).unwrap() };
                assert_eq!(rest, (true, if found { end } else { end - at }));
                assert!(!found || at == end);
            }
        }
        for (bytes, error) in [
            (&b"\x81\x05Hello"[..], Error::NotMasked),
            (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", Error::LengthNegative),
        ] {
            assert_eq!(Decoder::default().skip_to_close(bytes), Err(error));
        }
    }

    /// The same as `decode` in the simplest way: one byte after the other, everything copied,
    /// every text checked from its start.
    fn decode_naively(stream: &[u8], limits: Limits) -> Outcome {
        let mut out = Vec::new();
        let error = naive_frames(&mut stream.iter().copied(), limits, &mut out).err();
        (out, error)
    }

    fn naive_frames(bytes: &mut impl Iterator<Item = u8>, limits: Limits, out: &mut Vec<String>) -> Result<(), Error> {
        // The next byte, or the end.
        macro_rules! next {
            () => {
                match bytes.next() {
                    Some(byte) => byte,
                    None => return Ok(()),
                }
            };
        }
        let mut message: Option<(u8, Vec<u8>)> = None;
        let mut fragments = 0;
        loop {
            let first = next!();
            let opcode = first % 16;
            let fin = first >= 128;
            if first % 128 / 16 != 0 {
                return Err(Error::ReservedBits);
            }
            if ![0, 1, 2, 8, 9, 10].contains(&opcode) {
                return Err(Error::ReservedOpcode);
            }
            if opcode >= 8 && !fin {
                return Err(Error::ControlFragmented);
            }
            let second = next!();
            if second < 128 {
                return Err(Error::NotMasked);
            }
            let mut len = u128::from(second - 128);
            if opcode >= 8 && len > 125 {
                return Err(Error::ControlTooLong);
            }
            let (more, least) =
                [(2, 126), (8, 65_536)].get((len as usize).wrapping_sub(126)).copied().unwrap_or((0, 0));
            if more > 0 {
                len = 0;
                for _ in 0..more {
                    len = len * 256 + u128::from(next!());
                }
            }
            if len < least {
                return Err(Error::LengthNotMinimal);
            }
            if len >= 1 << 63 {
                return Err(Error::LengthNegative);
            }
            let mask = [next!(), next!(), next!(), next!()];
            if opcode >= 8 {
                let payload: Vec<u8> =
                    bytes.take(len as usize).zip(mask.into_iter().cycle()).map(|(a, b)| a ^ b).collect();
                if payload.len() < len as usize {
                    return Ok(());
                }
                let received = match opcode {
                    9 => Received::Ping(&payload),
                    10 => Received::Pong(&payload),
                    _ => decode_close(&payload).map(|(code, reason)| Received::Close(code, reason))?,
                };
                out.push(format!("{received:?}"));
                continue;
            }
            let (kind, mut payload) = match (opcode, message.take()) {
                (0, None) => return Err(Error::NothingToContinue),
                (0, Some(message)) => message,
                (_, Some(_)) => return Err(Error::MessageUnfinished),
                (kind, None) => {
                    fragments = 0;
                    (kind, Vec::new())
                }
            };
            let end = payload.len() as u128 + len;
            if end > limits.message_bytes_max as u128 {
                return Err(Error::MessageTooBig);
            }
            fragments += 1;
            if fragments > limits.fragments_max {
                return Err(Error::TooManyFragments);
            }
            payload.extend(bytes.take(len as usize).zip(mask.into_iter().cycle()).map(|(a, b)| a ^ b));
            if kind == 1 && !could_become_text(&payload) {
                return Err(Error::NotUtf8);
            }
            if (payload.len() as u128) < end {
                return Ok(());
            }
            if !fin {
                message = Some((kind, payload));
            } else if kind == 2 {
                out.push(format!("{:?}", Received::Binary(&payload)));
            } else {
                let text = str::from_utf8(&payload).map_err(|_| Error::NotUtf8)?;
                out.push(show(&Received::Text(text.as_bytes())));
            }
        }
    }

    /// Marsaglia's xorshift64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    /// A few frames, mostly right, sometimes with one byte changed or the end cut off.
    fn random_stream(random: &mut Random) -> Vec<u8> {
        let text = "tick κόσμε € \u{1f600} ".repeat(200);
        let text = text.as_bytes();
        let mut bytes = Vec::new();
        let mut at = 0;
        let mut open = false;
        for _ in 0..1 + random.below(8) {
            let fin = random.below(2) as u8 * 0x80;
            let opcode = match (random.below(12), open) {
                (0..3, _) => 8 + random.below(3) as u8,
                (3, _) => random.below(3) as u8,
                (_, true) => 0,
                (_, false) => 1 + random.below(2) as u8,
            };
            if opcode < 8 {
                open = fin == 0;
            }
            let len = [0, 1, 2, 3, 5, 8, 125, 126, 300, 600][random.below(if opcode < 8 { 10 } else { 7 })];
            match opcode {
                8 => bytes.extend(frame(0x88, [&b""[..], b"\x03\xe8", b"\x0f\xa8lost", b"\x03\xee"][random.below(4)])),
                9.. => bytes.extend(frame(0x80 | opcode, &text[..len])),
                // The text of a message goes on where its last fragment ended, perhaps in a character.
                _ => {
                    let from = if opcode == 0 { at } else { 0 };
                    at = from + len;
                    bytes.extend(frame(fin | opcode, &text[from..at]));
                }
            }
        }
        match random.below(4) {
            0 => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            1 => bytes.truncate(random.below(bytes.len())),
            _ => {}
        }
        bytes
    }

    #[test]
    fn random_streams_in_random_pieces_decode_as_naively() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut messages = 0;
        let mut errors = std::collections::BTreeSet::new();
        for round in (0..3000).step_by(crate::stride(500)) {
            let bytes = random_stream(&mut random);
            let want = decode_naively(&bytes, LIMITS);
            messages += want.0.len();
            errors.extend(want.1.map(|error| format!("{error:?}")));
            for longest in [1, 7, 100, usize::MAX] {
                let mut pieces = Vec::new();
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (piece, more) = rest.split_at(1 + random.below(longest.min(rest.len())));
                    pieces.push(piece);
                    rest = more;
                }
                assert_eq!(decode(pieces.iter().copied(), LIMITS), want, "round {round}, {pieces:02x?}");
            }
        }
        // The streams are neither all good nor all bad.
        assert!(messages > 3000 / crate::stride(500), "{messages} messages");
        assert!(errors.len() >= 10 / crate::stride(10), "{errors:?}");
    }

    #[test]
    fn noise_never_panics_and_decodes_as_naively() {
        let mut random = Random(1);
        for _ in (0..20_000).step_by(crate::stride(1000)) {
            let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
            // Most noise ends at its first byte; so half of it gets the beginning of a frame.
            let start = [0x82, 0x80 | random.below(128) as u8];
            let bytes = [&start[..2 * random.below(2)], &bytes].concat();
            let want = decode_naively(&bytes, LIMITS);
            assert_eq!(decode([&bytes[..]], LIMITS), want, "{bytes:02x?}");
            assert_eq!(decode(bytes.chunks(1), LIMITS), want, "{bytes:02x?}");
        }
    }
}
