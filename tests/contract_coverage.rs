//! Every rule of `docs/protocol.md` has a test that quotes it.
//!
//! The document is split into its rules: each sentence of a paragraph, a list item or a table row,
//! outside code fences. A test says which of them it proves in its doc comment:
//!
//! ```text
//! /// protocol: A cursor of another epoch or from the future: 412.
//! #[test]
//! fn ...
//! ```
//!
//! A quote is words of the contract, letter by letter, that it has only once; words of several
//! sentences prove them all. What asks nothing of a server, and what is not built yet, is listed
//! below, each with its reason. So a changed rule, a lost test and a forgotten rule all fail here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Sentences that no test could hold against a server.
const NO_RULE: &[(&str, &str)] = &[
    ("What a client sees.", "says what the page is"),
    ("This page is the contract", "says what the page is"),
    ("Where it is silent, do what a user of", "asks it of those who build the server"),
    ("The numbers tell any subscriber how busy", "names a consequence of the sequence"),
    ("RFC 6455.", "names the standard, whose rules the codec's own tests prove"),
    ("Common parameters:", "introduces the table, whose rows are tested"),
];

/// Rules, or parts of rules, that are still to be built.
const NOT_BUILT: &[(&str, &str)] = &[("With a durable or shared log: kept", "memory is the only log")];

#[test]
fn every_rule_of_the_contract_has_a_test() {
    let rules = rules(&read(&root().join("docs/protocol.md")));
    let quotes = quotes();
    let lists = [("NO_RULE", NO_RULE), ("NOT_BUILT", NOT_BUILT)];
    let mut covered = BTreeSet::new();
    let mut report = String::new();

    let mut cover = |place: &str, words: &str| match places(&rules, words)[..] {
        [(first, last)] => covered.extend(first..=last),
        [] => _ = writeln!(report, "{place}: the contract does not have these words: {words}"),
        _ => _ = writeln!(report, "{place}: the contract has these words several times: {words}"),
    };
    quotes.iter().for_each(|quote| cover(&quote.place, &quote.words));
    for (list, entries) in lists {
        entries.iter().for_each(|(words, _)| cover(list, words));
    }

    // Who builds a rule takes it off the list.
    for (list, entries) in lists {
        for (words, reason) in entries {
            assert!(!reason.is_empty(), "{words} is listed without a reason");
            for quote in quotes.iter().filter(|quote| words.contains(&quote.words) || quote.words.contains(words)) {
                _ = writeln!(report, "{}: has a test now; take it off {list}: {words}", quote.place);
            }
        }
    }

    for (_, rule) in rules.iter().enumerate().filter(|(nth, _)| !covered.contains(nth)) {
        _ = writeln!(report, "docs/protocol.md:{}: has no test: {}", rule.line, rule.text);
    }
    assert!(report.is_empty(), "\n{report}");
}

/// One sentence of the contract.
#[derive(Debug)]
struct Rule {
    /// Where its paragraph, item or row begins.
    line: usize,
    /// With single spaces.
    text: String,
}

/// Where the contract has these words: the first and the last rule, of one paragraph, that they
/// are part of. Several places if it has them several times.
fn places(rules: &[Rule], words: &str) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let mut first = 0;
    for block in rules.chunk_by(|rule, next| rule.line == next.line) {
        let mut text = String::new();
        // The number of the rule that each byte of the paragraph belongs to.
        let mut owners = Vec::new();
        for (nth, rule) in block.iter().enumerate() {
            text.push_str(&rule.text);
            text.push(' ');
            owners.resize(text.len(), first + nth);
        }
        places.extend(text.match_indices(words).map(|(at, _)| (owners[at], owners[at + words.len() - 1])));
        first += block.len();
    }
    places
}

/// Splits a document into its rules.
fn rules(document: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (line, block) in blocks(document) {
        for text in sentences(&block) {
            rules.push(Rule { line, text });
        }
    }
    rules
}

/// The paragraphs, list items and table rows, each as one line without its mark, with the number
/// of its first line. Headings, the heads of tables and what is fenced are left out.
fn blocks(document: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    let mut fenced = false;
    let lines: Vec<&str> = document.lines().collect();
    for (nth, line) in lines.iter().enumerate() {
        let text = line.trim();
        let is_table_head = |nth: usize| lines.get(nth + 1).is_some_and(|below| below.starts_with("| ---"));
        if text.starts_with("```") {
            fenced = !fenced;
        }
        if fenced || text.is_empty() || text.starts_with("```") || text.starts_with('#') {
            open = false;
        } else if let Some(row) = text.strip_prefix('|') {
            if !text.starts_with("| ---") && !is_table_head(nth) {
                blocks.push((nth + 1, row.trim_end_matches('|').trim().to_owned()));
            }
            open = false;
        } else if let Some(item) = item(text) {
            blocks.push((nth + 1, item.to_owned()));
            open = true;
        } else if let Some((_, block)) = blocks.last_mut().filter(|_| open) {
            block.push(' ');
            block.push_str(text);
        } else {
            blocks.push((nth + 1, text.to_owned()));
            open = true;
        }
    }
    blocks
}

/// What a list item says, without its bullet or number.
fn item(line: &str) -> Option<&str> {
    let digits = line.len() - line.trim_start_matches(|first: char| first.is_ascii_digit()).len();
    let numbered = line[digits..].strip_prefix(". ").filter(|_| digits > 0);
    numbered.or_else(|| line.strip_prefix("- "))
}

/// Splits behind each full stop that stands before a space, but not within `code`.
fn sentences(block: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    let mut code = false;
    for word in block.split_whitespace() {
        let sentence = sentences.last_mut().expect("never empty");
        if !sentence.is_empty() {
            sentence.push(' ');
        }
        sentence.push_str(word);
        code ^= word.matches('`').count() % 2 == 1;
        if !code && word.trim_end_matches([')', '"', '*']).ends_with('.') {
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// What one test says that it proves.
struct Quote {
    /// File and line.
    place: String,
    words: String,
}

/// The quotes above all tests in `tests/`.
fn quotes() -> Vec<Quote> {
    let mut quotes = Vec::new();
    for file in test_files() {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let text = read(&file);
        let mut waiting: Vec<Quote> = Vec::new();
        let mut is_test = false;
        for (nth, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(words) = line.strip_prefix("/// protocol:") {
                waiting.push(Quote { place: format!("tests/{name}:{}", nth + 1), words: words.trim().to_owned() });
            } else if line == "#[test]" {
                is_test = true;
            } else if !line.starts_with("///") && !line.starts_with("#[") {
                if let Some(lost) = waiting.first().filter(|_| !is_test) {
                    panic!("{}: a quote must stand above a test", lost.place);
                }
                quotes.append(&mut waiting);
                is_test = false;
            }
        }
    }
    assert!(quotes.iter().all(|quote| quote.words.len() >= QUOTE_BYTES_MIN), "a quote is some words, not a syllable");
    quotes
}

/// So that a quote names its rule to a reader too.
const QUOTE_BYTES_MIN: usize = 8;

fn test_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests")).expect("the directory of this file");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn a_document_is_split_at_rows_items_and_full_stops() {
    let document = "# Heading\n\nOne `a. b` two\nthree. Four (five). **Six.**\n\n1. item. Two\n   lines\n- other\n\n\
                    | a | b |\n| --- | --- |\n| x | 1. 2 |\n| y | `.` or `..`. Else |\n```\ncode. more\n```\nlast";
    let texts: Vec<String> = rules(document).into_iter().map(|rule| rule.text).collect();
    let want = [
        "One `a. b` two three.",
        "Four (five).",
        "**Six.**",
        "item.",
        "Two lines",
        "other",
        "x | 1.",
        "2",
        "y | `.` or `..`.",
        "Else",
        "last",
    ];
    assert_eq!(texts, want);
}

#[test]
fn a_quote_is_found_with_all_the_sentences_it_touches() {
    let rules = rules("One two. Three four.\n\nFive two. Six.");
    for (words, want) in [
        ("One", &[(0, 0)][..]),
        ("two. Three", &[(0, 1)]),
        ("One two. Three four.", &[(0, 1)]),
        ("Six", &[(3, 3)]),
        ("two", &[(0, 0), (2, 2)]),
        ("four. Five", &[]),
        ("one", &[]),
    ] {
        assert_eq!(places(&rules, words), want, "{words}");
    }
}
