//! Signals: the first SIGTERM or SIGINT drains, the second leaves at once; SIGHUP reads the token
//! files again. Without any, SIGHUP ends the process as ever: its terminal is gone.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tidings::Handle;

use super::tokens::Sources;

/// From here on the signals wait for `spawn` instead of ending the process.
pub(crate) fn register(tokens: &Sources) -> io::Result<Signals> {
    let signals = Signals::new([SIGTERM, SIGINT])?;
    if tokens.can_change() {
        signals.add_signal(SIGHUP)?;
    }
    Ok(signals)
}

/// Listens to them on a thread of its own.
pub(crate) fn spawn(mut signals: Signals, handle: Handle, tokens: Sources) -> io::Result<()> {
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut is_leaving = false;
        for signal in signals.forever() {
            if signal == SIGHUP {
                reload(&handle, &tokens);
            } else if is_leaving {
                log::info!("{}: leaving at once", name(signal));
                // Not `Handle::stop`: who asks twice does not want to wait for any loop.
                std::process::exit(0);
            } else {
                log::info!("{}: draining; a second signal leaves at once", name(signal));
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
    if signal == SIGINT { "SIGINT" } else { "SIGTERM" }
}
