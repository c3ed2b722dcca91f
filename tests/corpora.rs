//! Replays what the fuzzers found and were given: every file of `fuzz/corpus`, and changed copies.
//!
//! The same targets as `cargo fuzz`, without a fuzzer: so each build keeps the properties on all
//! inputs that once mattered. The changes come from a seed; what fails prints as a Rust literal.

mod fuzz_targets;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use fuzz_targets::{TARGETS, Target};

/// Changed copies of each file.
const COPIES: usize = 60;

/// Bytes that mean something to one parser or another.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\x7f",
    b"\xff",
    b"\x80",
    b"\xe2\x82\xac",
    b"\xed\xa0\x80",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"=",
    b"\"",
    b"%",
    b"%2",
    b"+",
    b"-",
    b"#",
    b"0",
    b"1",
    b"ffffffff",
    b"9223372036854775807",
    b"\x88\x80",
    b"\x89\x80",
    b"\x01\x80",
    b"\x80\x80",
    b"\x82\xfe",
    b"\xc1",
    b"HTTP/1.0",
    b"chunked",
    b"close",
];

#[test]
fn corpora() {
    for &(name, target) in TARGETS {
        let files = files(&corpus().join(name));
        assert!(files.len() >= 3, "fuzz/corpus/{name} has {} files", files.len());
        let contents: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("a file")).collect();
        let mut random = Random(name.bytes().map(u64::from).sum());
        for (file, bytes) in files.iter().zip(&contents) {
            check(target, bytes, &file.display().to_string());
            for copy in 0..COPIES {
                let changed = change(&mut random, bytes, &contents);
                check(target, &changed, &format!("{name}: copy {copy} of {}", file.display()));
            }
        }
    }
    // A target has no input that is too short for it.
    for &(name, target) in TARGETS {
        check(target, b"", name);
        (0..=u8::MAX).for_each(|byte| check(target, &[byte], name));
    }
}

#[test]
fn each_target_has_a_fuzzer_and_each_fuzzer_a_target() {
    let mut names: Vec<String> = TARGETS.iter().map(|&(name, _)| name.to_owned()).collect();
    names.sort();
    let stems = |folder: &str| -> Vec<String> {
        let files = files(&fuzz().join(folder));
        files.iter().map(|file| file.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
    };
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("corpus"), names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("the manifest");
    for name in names {
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&path), "fuzz/Cargo.toml has no [[bin]] with {path}");
        let source = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).expect("a fuzzer");
        assert!(source.contains(&format!("run(\"{name}\", bytes)")), "{name}.rs calls another target:\n{source}");
    }
}

/// A corpus is to be read, and to be checked out by everybody.
#[test]
fn corpora_are_small() {
    let all: Vec<PathBuf> = TARGETS.iter().flat_map(|(name, _)| files(&corpus().join(name))).collect();
    let bytes: u64 = all.iter().map(|file| fs::metadata(file).expect("a file").len()).sum();
    assert!(all.len() <= 250 && bytes <= 300 * 1024, "{} files, {bytes} bytes", all.len());
}

fn check(target: Target, bytes: &[u8], what: &str) {
    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        eprintln!("{what}: b\"{}\"", bytes.escape_ascii());
        panic::resume_unwind(panic);
    }
}

/// A copy with one to four changes: a byte, a word, a cut, a repeat, a splice with another file.
fn change(random: &mut Random, bytes: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below((bytes.len() - at).min(64) + 1);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => drop(bytes.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            _ => {
                let other = &others[random.below(others.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    bytes.truncate(4096);
    bytes
}

/// The files of a folder by name, or the folders in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn corpus() -> PathBuf {
    fuzz().join("corpus")
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }
}
