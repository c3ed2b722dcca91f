//! `--stdin CHANNEL`: each line of standard input becomes a message.
//!
//! A line ends with LF or CRLF, which is no part of it; the last may end with the input. Bytes
//! are published as they are. Waits for each message to be taken before the next is read, so that
//! the pipe's writer is slowed down and not we filled up. At the end of input the server goes on.

use std::io::{self, BufRead};
use std::thread;
use std::time::Duration;

use tidings::{Handle, Publication, PublishError};

/// Reads and publishes on a thread of its own.
pub(crate) fn spawn(handle: Handle, channel: String, message_bytes_max: usize) -> io::Result<()> {
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let publish = |line: Vec<u8>| match handle.publish_wait(&channel, Publication::from(line), PATIENCE) {
            Ok(_) => Taken::Yes,
            Err(PublishError::Closed) => Taken::Closed,
            Err(error) => Taken::No(error.to_string()),
        };
        match publish_lines(io::stdin().lock(), message_bytes_max, publish) {
            Ok(Read { lines, published }) => {
                log::info!("standard input has ended; lines: {lines}, published: {published}; serving goes on");
            }
            Err(error) => log::error!("standard input cannot be read any more: {error}; serving goes on"),
        }
    })?;
    Ok(())
}

/// How long a full server may take for one line. Longer than any turn; it bounds only a hang.
const PATIENCE: Duration = Duration::from_secs(60);

enum Taken {
    Yes,
    No(String),
    /// The server has left: reading on is in vain.
    Closed,
}

/// What became of the lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    lines: u64,
    /// The others were too long, or refused.
    published: u64,
}

/// Publishes each line.
fn publish_lines(
    mut input: impl BufRead,
    message_bytes_max: usize,
    mut publish: impl FnMut(Vec<u8>) -> Taken,
) -> io::Result<Read> {
    let mut read = Read::default();
    let mut refused_before = false;
    while let Some(line) = next_line(&mut input, message_bytes_max)? {
        read.lines += 1;
        let number = read.lines;
        let bytes = match line {
            Line::Whole(bytes) => bytes,
            Line::TooLong(length) => {
                log::warn!(
                    "standard input, line {number}: {length} bytes, the limit is {message_bytes_max}: skipped \
                     (--message-bytes-max)"
                );
                continue;
            }
        };
        refused_before = match publish(bytes) {
            Taken::Yes => {
                read.published += 1;
                false
            }
            Taken::No(why) => {
                // Said once per run of them: a server that drains refuses all of a fast pipe.
                if !refused_before {
                    log::warn!("standard input, line {number} and perhaps more: not published: {why}");
                }
                true
            }
            Taken::Closed => break,
        };
    }
    Ok(read)
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    /// Its length; the bytes are gone.
    TooLong(usize),
}

/// The next line without its end; never holds more than `bytes_max` + 1 bytes of it.
fn next_line(input: &mut impl BufRead, bytes_max: usize) -> io::Result<Option<Line>> {
    // One byte more than allowed, for the CR that may turn out to be part of the end.
    let held_max = bytes_max.saturating_add(1);
    let mut held = Vec::new();
    let mut length = 0;
    loop {
        let available = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let input_ended = available.is_empty();
        held.extend_from_slice(&part[..part.len().min(held_max - held.len())]);
        length += part.len();
        let consumed = part.len() + usize::from(end.is_some());
        input.consume(consumed);

        if input_ended && length == 0 {
            return Ok(None);
        }
        if end.is_some() && held.len() == length && held.last() == Some(&b'\r') {
            held.pop();
            length -= 1;
        }
        if end.is_some() || input_ended {
            return Ok(Some(if length > bytes_max { Line::TooLong(length) } else { Line::Whole(held) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn lines(input: &[u8], bytes_max: usize, read_at_once: usize) -> Vec<Line> {
        let mut input = BufReader::with_capacity(read_at_once, input);
        std::iter::from_fn(|| next_line(&mut input, bytes_max).unwrap()).collect()
    }

    fn whole(text: &[u8]) -> Line {
        Line::Whole(text.to_vec())
    }

    #[test]
    fn lines_end_with_lf_crlf_or_the_input() {
        for (input, want) in [
            (&b""[..], vec![]),
            (b"a", vec![whole(b"a")]),
            (b"a\n", vec![whole(b"a")]),
            (b"a\r\nb\n", vec![whole(b"a"), whole(b"b")]),
            (b"\n\n", vec![whole(b""), whole(b"")]),
            (b"a\rb\r\r\nc\r", vec![whole(b"a\rb\r"), whole(b"c\r")]),
            (b"\xff\0\xfe\nz", vec![whole(b"\xff\0\xfe"), whole(b"z")]),
            (b"12345\n12345\r\nx", vec![whole(b"12345"), whole(b"12345"), whole(b"x")]),
            (b"123456\n1234567890\r\nx", vec![Line::TooLong(6), Line::TooLong(11), whole(b"x")]),
            (b"12345\r", vec![Line::TooLong(6)]),
            (b"12345\r6\n", vec![Line::TooLong(7)]),
        ] {
            for read_at_once in 1..=input.len() + 1 {
                assert_eq!(lines(input, 5, read_at_once), want, "{input:?} by {read_at_once}");
            }
        }
    }

    #[test]
    fn a_limit_of_zero_leaves_only_empty_lines() {
        assert_eq!(lines(b"\na\n\r\n", 0, 2), [whole(b""), Line::TooLong(1), whole(b"")]);
    }

    #[test]
    fn each_line_is_offered_once_until_the_server_has_left() {
        let mut offered = Vec::new();
        let read = publish_lines(&b"one\ntoo long\ntwo\nbye\nlate"[..], 5, |line| {
            offered.push(line.clone());
            match line.as_slice() {
                b"two" => Taken::No("busy".into()),
                b"bye" => Taken::Closed,
                _ => Taken::Yes,
            }
        });
        assert_eq!(offered, [b"one", b"two", b"bye"]);
        assert_eq!(read.unwrap(), Read { lines: 4, published: 1 });
    }
}
