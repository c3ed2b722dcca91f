//! Whole runs from seeds: `cargo test --test simulation`.
//!
//! `TIDINGS_SEEDS=N` runs N seeds, from `TIDINGS_FIRST_SEED=S` on, and prints what they met.
//! `TIDINGS_SEED=S` runs one and shows its system calls when it fails. What a seed found becomes a
//! test in `regressions.rs`, or if few steps do not show it a line there, with its story.

mod clients;
mod kernel;
mod world;

use world::Outcome;
use world::actors::Coverage;

/// About 5 s of one core.
const SEEDS: u64 = 100;
/// Enough to meet also what is rare: each errno of each call.
const MANY_SEEDS: u64 = 1000;

#[test]
fn seeds() {
    if let Some(seed) = number("TIDINGS_SEED") {
        let Outcome { trace_hash, coverage, steps, ms, .. } = world::run(seed, true);
        println!("seed {seed}: {steps} steps, {ms} ms, trace {trace_hash:016x}");
        return print(&coverage);
    }
    let seeds = number("TIDINGS_SEEDS").unwrap_or(SEEDS);
    let first = number("TIDINGS_FIRST_SEED").unwrap_or(0);
    let mut coverage = Coverage::new();
    let (mut steps, mut ms) = (0, 0);
    let began = std::time::Instant::now();
    for seed in first..first + seeds {
        let outcome = world::run_reporting(seed);
        excuses_have_their_cause(seed, &outcome.coverage);
        steps += outcome.steps;
        ms += outcome.ms;
        for (what, times) in outcome.coverage {
            *coverage.entry(what).or_default() += times;
        }
    }
    print(&coverage);
    let per_second = steps as f64 / began.elapsed().as_secs_f64();
    println!("{seeds} seeds from {first}: {steps} steps, {per_second:.0} a second; {} simulated seconds", ms / 1000);
    let neglects: u64 = NEGLECTS.iter().filter_map(|neglect| coverage.get(&neglected(neglect))).sum();
    assert!(neglects <= 5 + seeds / 10, "{neglects} times a client's neglect excused an end; that should be rare");
    if first == 0 && seeds >= SEEDS {
        must_cover(&coverage, seeds >= MANY_SEEDS);
    }
}

fn print(coverage: &Coverage) {
    for (what, times) in coverage {
        println!("{times:>9}  {what}");
    }
}

/// What a client has failed to do when its connection ends without a word. Clients are slow and
/// mute in many seeds; so slow that it costs them the connection in few.
const NEGLECTS: [&str; 3] =
    ["it took nothing for stall-timeout", "it was silent for two pings", "it did not read why in close-timeout"];

fn neglected(neglect: &str) -> String {
    format!("excused: ended, {neglect}")
}

/// Where nothing causes it, nothing is excused by it: only hard worlds have tokens, crowds, few descriptors
/// and channels, short timeouts, and a server that leaves before the end.
fn excuses_have_their_cause(seed: u64, coverage: &Coverage) {
    let causes = [
        "its token was revoked",
        "no descriptor was left",
        "beyond connections-max",
        "no room for its channel",
        "the server was leaving",
        "it took nothing for stall-timeout",
    ];
    let is_strange = |what: &&String| what.starts_with("excused: ") && causes.iter().any(|cause| what.ends_with(cause));
    if !world::is_hard(seed)
        && let Some(what) = coverage.keys().find(is_strange)
    {
        panic!("seed {seed} is not hard, and met {what:?}");
    }
}

/// What the seeds together must have met; a test that meets nothing proves nothing.
fn must_cover(coverage: &Coverage, also_what_is_rare: bool) {
    let mut expected: Vec<String> = kernel::Fault::ALL.iter().map(|fault| format!("fault {fault:?}")).collect();
    for transport in ["Poll", "Sse", "WebSocket"] {
        expected.extend(["Json", "Raw"].map(|format| format!("heard by {transport} {format}")));
        expected.extend(["evicted", "epoch", "future"].map(|reason| format!("gap {reason} by {transport}")));
    }
    expected.extend(["Post", "Commands"].map(|how| format!("published by {how}")));
    if cfg!(feature = "deflate") {
        expected.extend(["Commands", "Frames"].map(|how| format!("published compressed by {how}")));
        let heard = ["Eager Json", "Eager Raw", "Slow Json"];
        expected.extend(heard.map(|how| format!("heard compressed by {how}")));
    }
    let closes =
        ["peer_closed", "reset", "finished", "idle", "request_timeout", "protocol", "closed", "revoked", "too_many"];
    expected.extend(closes.map(|reason| format!("server closed: {reason}")));
    expected.extend(
        [
            "a crowd came",
            "a stranger came",
            "a thread found the queue full",
            "a thread found the server gone",
            "channel forgotten",
            "channels full, to a thread",
            "client half-closed in the middle of a request",
            "client reset in the middle of a request",
            "deleted",
            "draining, to a thread",
            "excused: channels_full, no room for its channel",
            "excused: closed 1000, it closed",
            "excused: closed 1008, its token was revoked",
            "excused: closed 1012, the server was leaving",
            "excused: closed 4008, a loss, which raw cannot tell",
            "excused: draining, the server was leaving",
            "excused: ended, a fault",
            "excused: ended, it was idle",
            "excused: ended, it was told",
            "excused: ended, its client ended it",
            "excused: ended, the process had ended",
            "excused: ended, the server was leaving",
            "excused: request_timeout, sent too slowly",
            "excused: stream ended, its token was revoked",
            "excused: stream ended, the server was leaving",
            "excused: token_wrong, its token was revoked",
            "excused: ended, beyond connections-max",
            "excused: too_many_connections, no descriptor was left",
            "gap unknown by Sse",
            "gap unknown by Poll",
            "herd",
            "left halfway",
            "published by a thread",
            "published to a passing channel",
            "publisher half-closed behind its requests",
            "replayed",
            "restarted",
            "resumed",
            "scraped",
            "set changed",
            "set widened",
            "tokens: one added",
            "tokens: one replaced",
            "transport switched with its cursor",
        ]
        .map(String::from),
    );
    if also_what_is_rare {
        let errnos =
            kernel::faults::ERRNOS.iter().flat_map(|(call, errnos)| errnos.iter().map(move |errno| (call, errno)));
        expected.extend(errnos.map(|(call, errno)| format!("errno {call} {errno}")));
        expected.extend(["silent", "stalled"].map(|reason| format!("server closed: {reason}")));
        // The third is rarer still.
        expected.extend(NEGLECTS[..2].iter().map(|neglect| neglected(neglect)));
    }
    let missing: Vec<&String> =
        expected.iter().filter(|what| coverage.get(*what).is_none_or(|&times| times == 0)).collect();
    assert!(missing.is_empty(), "no seed met {missing:?}");
}

/// The trace has every system call, its arguments, the bytes it read or wrote, what it answered, and
/// what each client heard.
#[test]
fn a_seed_is_the_same_run_every_time() {
    // An easy one and three hard ones, of which two compress.
    let runs = [1, 10, 9, 20].map(|seed| [(); 2].map(|()| world::run(seed, true)));
    for [first, second] in &runs {
        assert!(first.trace.len() > 100_000, "a whole run");
        assert!(first.trace == second.trace, "two traces of one seed");
        assert_eq!((first.steps, first.ms, first.trace_hash), (second.steps, second.ms, second.trace_hash));
        assert_eq!(first.coverage, second.coverage);
    }
    assert_ne!(runs[0][0].trace_hash, runs[1][0].trace_hash, "two seeds are two runs");
    // Whether somebody looks changes nothing.
    assert_eq!(runs[2][0].trace_hash, world::run(9, false).trace_hash);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
