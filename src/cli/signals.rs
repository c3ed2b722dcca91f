//! Signals: the first SIGTERM or SIGINT drains, the second leaves at once; SIGHUP reads the token
//! files again. Without any it drains too: its terminal is gone, or somebody reloads what cannot be.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tidings::Handle;

use super::tokens::Sources;

/// From here on the signals wait for `spawn` instead of ending the process.
pub(crate) fn register(tokens: &Sources) -> io::Result<Signals> {
    let signals = Signals::new([SIGTERM, SIGINT])?;
    if tokens.can_change() || !is_hangup_ignored() {
        signals.add_signal(SIGHUP)?;
    }
    Ok(signals)
}

/// Who starts us by nohup(1) wants us to outlive the terminal. Only Linux tells.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// Listens to them on a thread of its own.
pub(crate) fn spawn(mut signals: Signals, handle: Handle, tokens: Sources) -> io::Result<()> {
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut is_leaving = false;
        for signal in signals.forever() {
            if signal == SIGHUP && tokens.can_change() {
                reload(&handle, &tokens);
            } else if signal == SIGHUP && is_leaving {
                // A terminal that closes says so twice: by its shell, and by the system.
            } else if is_leaving {
                log::info!("{}: leaving at once", name(signal));
                // Not `Handle::stop`: who asks twice does not want to wait for any loop.
                std::process::exit(0);
            } else {
                log::info!("{}: draining; another SIGTERM or SIGINT leaves at once", name(signal));
                handle.shutdown();
                is_leaving = true;
            }
        }
    })?;
    Ok(())
}

/// The server says how many tokens it has taken.
fn reload(handle: &Handle, tokens: &Sources) {
    match tokens.read() {
        Ok(tokens) => {
            log::info!("SIGHUP: the token files were read again");
            handle.set_tokens(tokens);
        }
        Err(why) => log::error!("SIGHUP: the tokens stay as they were: {why}"),
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGHUP => "SIGHUP",
        SIGINT => "SIGINT",
        _ => "SIGTERM",
    }
}
