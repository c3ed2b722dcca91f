//! The targets, for the fuzzers in `fuzz_targets`. How to run one is told in CONTRIBUTING.md.

#[path = "../tests/fuzz_targets/mod.rs"]
mod fuzz_targets;

pub use fuzz_targets::run;
