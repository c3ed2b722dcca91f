//! What is fuzzed: each target takes any bytes and asserts what must hold of them.
//!
//! A target is a plain function, so that both libFuzzer (`fuzz/`) and an ordinary test
//! (`tests/corpora.rs`) call it. It panics if something is wrong and knows nothing of its caller.
//! What the server makes is read by parsers that share no code with it (`tests/clients`).
//!
//! To add one: a function, its line in `TARGETS`, a file in `fuzz/fuzz_targets` with its `[[bin]]`
//! in `fuzz/Cargo.toml`, and some seeds in `fuzz/corpus`.

#![allow(dead_code, unreachable_pub, reason = "each fuzzer uses one of them")]

#[path = "../clients/mod.rs"]
mod clients;
mod http;
mod output;
mod server;
mod websocket;
mod words;

/// Any bytes in; a panic if something is wrong.
pub type Target = fn(&[u8]);

/// Every target by the name of its fuzzer and its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("head", http::head),
    ("body", http::body),
    ("chunked", http::chunked),
    ("query", http::query),
    ("route", http::route_any),
    ("handshake", websocket::handshake),
    ("frame", websocket::frame),
    ("message", websocket::message),
    ("close", websocket::close),
    ("deflate", websocket::deflate),
    ("command", words::command),
    ("cursor", words::cursor),
    ("options", words::options),
    ("sse", output::sse),
    ("json", output::json),
    ("form", output::form),
    ("connection", server::connection),
    ("server", server::script),
];

/// Calls the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a line in TARGETS");
    target(bytes);
}

/// Reads a stream whole, byte by byte, and cut as the input says: all three must tell the same.
///
/// The first byte of the input, modulo 8, is the number of cuts; so many bytes follow, each the
/// length of a piece; then comes the stream. So a corpus file that begins with `0` is `0` and a
/// stream in plain sight.
fn in_every_way<T: PartialEq + std::fmt::Debug>(input: &[u8], read: impl Fn(&[&[u8]]) -> T) -> T {
    let (cuts, stream) = cut(input);
    let whole = read(&[stream]);
    assert_eq!(read(&stream.chunks(1).collect::<Vec<_>>()), whole, "byte by byte, and whole");
    assert_eq!(read(&cuts), whole, "cut, and whole");
    whole
}

/// The pieces an input asks for, and the stream they are cut from.
fn cut(input: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut input = Input(input);
    let count = input.number(8);
    let lengths = input.take(count);
    let stream = input.0;
    let mut pieces: Vec<&[u8]> = lengths.iter().map(|&length| input.take(length.into())).collect();
    pieces.push(input.0);
    (pieces, stream)
}

/// What is left of an input that is read as instructions: zeros without end behind its last byte.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// 0 to `bound - 1`, `bound` being at most 256.
    fn number(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    fn bits(&mut self) -> u64 {
        (0..8).fold(0, |bits, _| bits << 8 | u64::from(self.byte()))
    }

    /// At most so many bytes.
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// At most as many bytes as the next byte says.
    fn some(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.take(length.into())
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}
