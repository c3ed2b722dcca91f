//! Being told to leave: the first SIGTERM or SIGINT drains, the second leaves at once.

use std::io;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tidings::Handle;

/// From here on the signals wait for `spawn` instead of ending the process.
pub(crate) fn register() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT])
}

/// Listens to them on a thread of its own.
pub(crate) fn spawn(mut signals: Signals, handle: Handle) -> io::Result<()> {
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut signals = signals.forever();
        if let Some(signal) = signals.next() {
            log::info!("{}: draining; a second signal leaves at once", name(signal));
            handle.shutdown();
        }
        if let Some(signal) = signals.next() {
            log::info!("{}: leaving at once", name(signal));
            // Not `Handle::stop`: who asks twice does not want to wait for any loop.
            std::process::exit(0);
        }
    })?;
    Ok(())
}

fn name(signal: i32) -> &'static str {
    if signal == SIGINT { "SIGINT" } else { "SIGTERM" }
}
