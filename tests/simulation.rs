//! Whole runs from seeds: `cargo test --test simulation`.
//!
//! `TIDINGS_SEEDS=N` runs N seeds, `TIDINGS_SEED=S` runs one and shows its last system calls when
//! it fails. A seed that found something becomes a line in `regressions.rs`, with its story.

mod clients;
mod kernel;
mod world;

use world::actors::Coverage;

/// About 20 s unoptimised.
const SEEDS: u64 = 100;

#[test]
fn seeds() {
    if let Some(seed) = number("TIDINGS_SEED") {
        let outcome = world::run(seed, true);
        println!("seed {seed}: {outcome:#?}");
        return;
    }
    let seeds = number("TIDINGS_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::new();
    let first = number("TIDINGS_FIRST_SEED").unwrap_or(0);
    for seed in first..first + seeds {
        for (what, times) in world::run_reporting(seed).coverage {
            *coverage.entry(what).or_default() += times;
        }
    }
    for (what, times) in &coverage {
        println!("{times:>9}  {what}");
    }
    if first == 0 && seeds >= SEEDS {
        must_cover(&coverage);
    }
}

/// What the seeds together must have met; a test that meets nothing proves nothing.
fn must_cover(coverage: &Coverage) {
    let mut expected: Vec<String> = kernel::Fault::ALL.iter().map(|fault| format!("fault {fault:?}")).collect();
    for transport in ["Poll", "Sse", "WebSocket"] {
        expected.extend(["Json", "Raw"].map(|format| format!("heard by {transport} {format}")));
        expected.extend(["evicted", "epoch", "future"].map(|reason| format!("gap {reason} by {transport}")));
    }
    expected.extend(["Post", "Commands"].map(|how| format!("published by {how}")));
    if cfg!(feature = "deflate") {
        expected.extend(["Commands", "Frames"].map(|how| format!("published compressed by {how}")));
        let heard = ["Eager Json", "Eager Raw", "Slow Json", "Slow Raw"];
        expected.extend(heard.map(|how| format!("heard compressed by {how}")));
    }
    expected.extend(
        [
            "a stranger came",
            "a thread found the queue full",
            "channels full",
            "client half-closed in the middle of a request",
            "client reset in the middle of a request",
            "closed 1008",
            "gap unknown by Sse",
            "gap unknown by Poll",
            "closed 4008",
            "closed by the client",
            "deleted",
            "herd",
            "left halfway",
            "publish refused: draining",
            "published by a thread",
            "published to a passing channel",
            "refused: channels_full",
            "refused: draining",
            "refused: token_wrong",
            "refused: too_many_connections",
            "replayed",
            "restarted",
            "resumed",
            "set changed",
            "set widened",
            "tokens: one added",
            "tokens: one replaced",
            "transport switched with its cursor",
        ]
        .map(String::from),
    );
    for what in expected {
        assert!(coverage.get(&what).is_some_and(|&times| times > 0), "no seed met: {what}");
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let runs = [1, 2, 3].map(|seed| (world::run(seed, false).trace_hash, world::run(seed, true).trace_hash));
    for (first, second) in runs {
        assert_eq!(first, second);
    }
    assert_ne!(runs[0].0, runs[1].0, "two seeds are two runs");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
