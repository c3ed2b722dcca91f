//! The `tidings` program: options in, a server running until it is told to leave.
//!
//! Knows nothing of the protocol: everything it does with a server, an embedder can do as well.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
