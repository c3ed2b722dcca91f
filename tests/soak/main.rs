//! Delivery, and flatness, on real sockets against the program itself in a process of its own: a
//! few seconds in `cargo test`, and as many minutes as one likes.
//!
//! ```text
//! TIDINGS_SOAK_MINUTES=10 cargo test --release --test soak every_chain -- --nocapture
//! TIDINGS_SOAK_MINUTES=20 cargo test --release --test soak nothing_grows -- --nocapture
//! ```
//!
//! The seed is printed; `TIDINGS_SEED` sets it. The kernel's timing is not in it, so the same seed
//! makes the same choices and not the same run.

#![cfg(all(target_os = "linux", feature = "cli"))]

#[path = "../clients/mod.rs"]
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod delivery;
mod guests;
mod lines;
mod measure;
#[path = "../kernel/rng.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod rng;
mod truth;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::http::Request;

/// The server listens on some more loopback addresses, so that there are ports enough for
/// thousands of connections a second: each stays taken for a minute after its end.
const ADDRESSES: [&str; 7] =
    ["127.0.0.2:0", "127.0.0.3:0", "127.0.0.4:0", "127.0.0.5:0", "127.0.0.6:0", "127.0.0.7:0", "127.0.0.8:0"];

/// Between the cursors of every client lies exactly what was published there, or a gap names it.
#[test]
fn every_chain_is_whole() {
    let scale = match minutes() {
        None => delivery::Scale {
            each: 200,
            seconds: 6,
            publishes_per_second: 200,
            long_one_in: 8,
            history_messages: 20,
            calm_ms: 1000,
            away_ms: 3000,
            heartbeat_ms: 2000,
            catch_up: common::PATIENCE,
        },
        Some(minutes) => delivery::Scale {
            each: 5000,
            seconds: minutes * 60,
            publishes_per_second: 12,
            long_one_in: 60,
            history_messages: 20,
            calm_ms: 40_000,
            away_ms: 25_000,
            heartbeat_ms: 15_000,
            catch_up: Duration::from_secs(30),
        },
    };
    allow_descriptors(3 * scale.each as u64 + 100);
    let seed = seed();
    match delivery::run(scale, seed) {
        Ok(counts) => {
            println!("{counts:#?}");
            assert_eq!(counts.unseen(), [""; 0], "it tested too little");
        }
        Err(why) => panic!("seed {seed}: {why}"),
    }
}

/// However many come and go, the server keeps nothing of them: its figures are flat.
#[test]
fn nothing_grows_while_guests_come_and_go() {
    let scale = match minutes() {
        None => guests::Scale {
            seconds: 5,
            guests_per_second: 100,
            connections_min: 0,
            channels_max: 600,
            history_bytes: 64 * 1024,
            idempotency_keys_max: 50,
            linger_ms: 100,
            sample_ms: 50,
            warm_up_ms: 2500,
        },
        Some(minutes) => guests::Scale {
            seconds: minutes * 60,
            guests_per_second: 520,
            connections_min: minutes * 60 * 2500,
            channels_max: 100_000,
            history_bytes: 8 * 1024 * 1024,
            idempotency_keys_max: 10_000,
            linger_ms: 1000,
            sample_ms: 2000,
            warm_up_ms: minutes * 15_000,
        },
    };
    allow_descriptors(10_000);
    let seed = seed();
    match guests::run(scale, seed) {
        Ok(counts) => {
            assert_eq!(counts.unseen(), [""; 0], "it tested too little");
        }
        Err(why) => panic!("seed {seed}: {why}"),
    }
}

fn minutes() -> Option<u64> {
    let minutes = std::env::var("TIDINGS_SOAK_MINUTES").ok()?;
    Some(minutes.parse().expect("TIDINGS_SOAK_MINUTES is a number"))
}

fn seed() -> u64 {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seed = std::env::var("TIDINGS_SEED").map_or_else(|_| clock(), |seed| seed.parse().expect("a number"));
    println!("seed {seed}");
    seed
}

fn allow_descriptors(needed: u64) {
    let limit = rlimit::increase_nofile_limit(20_000).expect("a limit of descriptors");
    assert!(limit >= needed, "this needs {needed} descriptors (ulimit -n), there are {limit}");
}

fn metrics(address: SocketAddr) -> String {
    let answer = Request::new(address, "GET", "/metrics").send();
    assert_eq!(answer.status, 200, "{answer:?}");
    String::from_utf8(answer.body).expect("metrics are text")
}

/// The figure, over all its labels.
fn sum(metrics: &str, name: &str) -> f64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.as_bytes().first()? {
            b' ' => rest,
            b'{' => rest.rsplit_once('}')?.1,
            _ => return None,
        };
        Some(value.trim().parse::<f64>().expect("a number"))
    });
    values.sum()
}
