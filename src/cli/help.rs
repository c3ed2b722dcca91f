//! The table of options, told: `--help`, `--print-config`, and the page of the docs.
//!
//! Invariant: no line of the help is wider than 80 columns.

use super::descriptors::Limits;
use super::options::{self, Chosen, Settings, Source, Spec};

/// What `--help` prints.
pub(crate) fn text() -> String {
    let mut out = String::from(INTRODUCTION);
    for group in options::GROUPS {
        out.push_str(&format!("\n{}:\n", group.title));
        for spec in group.options {
            describe(&mut out, spec);
        }
    }
    out + CONCLUSION
}

const INTRODUCTION: &str = "\
tidings: a push server for long polling, Server-Sent Events and WebSocket

Usage: tidings [OPTION]...

Examples:
  tidings                                   serve this host on port 8080
  tidings -l '[::1]:8080' -l 127.0.0.1:8080 serve what a browser calls localhost
  tidings -l 0.0.0.0:8080 --allow-anyone-to-publish
                                            serve a network that can be trusted
  tail -f access.log | tidings --stdin log  publish each new line to a channel
  tidings --print-config                    show every value and its source
";

const CONCLUSION: &str = "
Each option has a variable, TIDINGS_ and its name: TIDINGS_HISTORY_AGE=15m.
Options win over variables. Lists are joined by commas in a variable.
A TIME is in seconds or has a unit: 250ms, 15s, 5m, 1h.
A SIZE is in bytes or has a unit: 64KiB, 16MiB, 1GiB.
SIGTERM or SIGINT: end the connections gently and leave; twice: leave at once.
SIGHUP: read the token files again; if there are none, leave as at SIGTERM.
Exit codes: 0 asked to leave, 1 could not run, 2 an option is wrong.
";

fn describe(out: &mut String, spec: &Spec) {
    let left = match spec.short {
        Some(letter) => format!("  -{letter}, {}", usage(spec)),
        None => format!("      {}", usage(spec)),
    };
    let help = match default(spec) {
        Some(default) => format!("{} [{default}]", spec.help),
        None => spec.help.into(),
    };
    // A name too long for its column has a line for itself.
    let mut line = if left.len() + 2 > COLUMN {
        out.push_str(&format!("{left}\n"));
        String::new()
    } else {
        left
    };
    let mut width = COLUMN;
    line = format!("{line:<COLUMN$}");
    for word in help.split(' ') {
        if width > COLUMN && width + 1 + word.len() > WIDTH {
            line.push_str(&format!("\n{:COLUMN$}", ""));
            width = COLUMN;
        }
        if width > COLUMN {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += word.len();
    }
    out.push_str(&format!("{line}\n"));
}

/// Where the descriptions begin, and where every line ends.
const COLUMN: usize = 32;
const WIDTH: usize = 80;

fn usage(spec: &Spec) -> String {
    match spec.value_name() {
        Some(value) => format!("--{} {value}", spec.long),
        None => format!("--{}", spec.long),
    }
}

/// The default, where it says anything: not for a flag.
fn default(spec: &Spec) -> Option<String> {
    spec.value_name().and_then(|_| spec.show(&mut Settings::default()))
}

/// What `--print-config` prints: name, value, source; and what was asked for, if that is not what holds.
pub(crate) fn config(Chosen { mut settings, sources }: Chosen, limits: &Limits) -> String {
    let mut out = String::new();
    for (spec, source) in sources {
        let mut source = match source {
            Source::Default => "default".into(),
            Source::Environment => format!("environment {}", spec.variable().expect("it came from there")),
            Source::Option => format!("option --{}", spec.long),
        };
        if spec.long == "connections-max" && limits.connections < limits.wished {
            source.push_str(&format!(": {}, but descriptors allow no more (ulimit -Hn)", limits.wished));
        }
        let value = spec.show(&mut settings).unwrap_or_else(|| "-".into());
        out.push_str(&format!("{:<27} {value:<20} {source}\n", spec.long));
    }
    out + &memory(&settings)
}

/// What the limits above come to, and of what: with `#`, so that no line looks like an option's.
fn memory(settings: &Settings) -> String {
    let config = &settings.config;
    // As the banner has it: rounded up, for it is a bound.
    let bound = config.memory_bound().div_ceil(1 << 20);
    let mut out = format!("# memory, at most            {bound} MiB, the sum of\n");
    for (part, bytes) in config.memory_parts() {
        out.push_str(&format!("#   {part:<24} {} MiB\n", mib(bytes)));
    }
    out
}

/// To a tenth, and by whole numbers: nothing else in the program prints others, which takes 21 KB of code.
fn mib(bytes: usize) -> String {
    let tenths = ((bytes as u128 * 10 + (1 << 19)) >> 20) as u64;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::options::Request;

    #[test]
    fn help_fits_a_terminal_and_names_every_option() {
        let help = text();
        for line in help.lines() {
            assert!(line.len() <= WIDTH, "{line}");
            assert!(line.is_ascii() && line.trim_end() == line, "{line:?}");
        }
        for spec in options::specs() {
            assert!(help.contains(&usage(spec)), "{}", spec.long);
            assert!(default(spec).is_none_or(|default| help.contains(&format!("[{default}]"))), "{}", spec.long);
        }
        assert!(help.contains("      --history-age TIME        How long a message is kept. [1h]\n"), "{help}");
        assert!(help.contains("  -h, --help                    Print this, and exit.\n"));
    }

    #[test]
    fn a_long_description_goes_on_below_itself() {
        let help = text();
        let at = help.find("      --stall-timeout TIME").unwrap();
        let shown: Vec<&str> = help[at..].lines().take(3).collect();
        assert_eq!(
            shown,
            [
                "      --stall-timeout TIME      A reader that takes nothing although something",
                "                                waits is closed after this; it resumes by its",
                "                                cursor. [1m]",
            ]
        );
    }

    #[test]
    fn each_value_is_printed_with_its_source() {
        let environment = |name: &str| (name == "TIDINGS_HISTORY_AGE").then(|| "900".into());
        let arguments = ["--print-config", "--host=a", "--host=b"].map(Into::into);
        let Ok(Request::PrintConfig(chosen)) = options::read(arguments, environment) else { panic!() };
        let limits = Limits { connections: 100_000, wished: 100_001, descriptors: None };
        let printed = config(chosen, &limits);
        for line in [
            "connections-max             100000               default: 100001, but descriptors allow no more (ulimit -Hn)",
            "listen                      127.0.0.1:8080       default",
            "host                        a,b                  option --host",
            "origin                      -                    default",
            "history-age                 15m                  environment TIDINGS_HISTORY_AGE",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
        }
        let options = printed.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(options.count(), options::specs().filter(|spec| spec.variable().is_some()).count());
        assert!(printed.contains("\n# memory, at most "), "{printed}");
    }

    /// The page is a product of the table: run this test with `BLESS=1` to write it again.
    #[test]
    fn the_page_of_the_docs_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/options.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written == page(), "docs/options.md is old: BLESS=1 cargo test --bin tidings the_page");
    }

    fn page() -> String {
        let mut out = String::from(PAGE_INTRODUCTION);
        for group in options::GROUPS {
            out.push_str(&format!("\n## {}\n\n", group.title));
            out.push_str("| option | variable | default | what it does |\n| --- | --- | --- | --- |\n");
            for spec in group.options {
                let code = |text: Option<String>| text.map(|text| format!("`{text}`")).unwrap_or_default();
                let short = code(spec.short.map(|letter| format!("-{letter}")));
                let example = match spec.value_name() {
                    Some(_) => format!(" Example: `--{} {}`", spec.long, spec.example),
                    None => String::new(),
                };
                out.push_str(&format!(
                    "| `{}`{}{short} | {} | {} | {}{example} |\n",
                    usage(spec),
                    if short.is_empty() { "" } else { ", " },
                    code(spec.variable()),
                    code(spec.show(&mut Settings::default())),
                    spec.help,
                ));
            }
        }
        out
    }

    const PAGE_INTRODUCTION: &str = "\
# Options

Written by a test from the table in `src/cli/options.rs`; `tidings --help` prints the same.

An option wins over its variable, and that over the default; `tidings --print-config` shows every
value and where it comes from, and refuses what a start would refuse, but binds nothing. An empty variable counts as not set. A flag is
`yes` or `no` in a variable, and `--flag=no` takes one back. A list is repeated as an option and
joined by commas in a variable; of anything else given twice the last counts.

A TIME is a whole number of seconds or has a unit: `250ms`, `15s`, `5m`, `1h`. A SIZE is a whole
number of bytes or has a unit: `64KiB`, `16MiB`, `1GiB`.

Answers to `--help`, `--version` and `--print-config` go to standard output, all else to standard
error, without colour. Exit codes: 0 asked to leave, 1 could not run, 2 an option is wrong.

SIGTERM or SIGINT ends the connections gently and leaves, a second one at once. SIGHUP has the token
files read again; without any it leaves as at SIGTERM, unless it was ignored at the start, as
nohup(1) has it.
";
}
