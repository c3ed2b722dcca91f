//! The server as a guest in a loop that somebody else wrote: here `poll(2)` over two descriptors,
//! the server's and standard input, whose lines the host publishes. The end of input ends it.
//!
//!     cargo run --example nested_loop
//!
//! The contract is three steps, numbered below. `rustix` because it is `poll(2)` and nothing more,
//! without `unsafe` here; `polling` would bring `rustix` too, and asks for `unsafe` to register.

use std::io::stdin;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let mut server = tidings::Server::bind(address, tidings::Config::default())?;
    println!("listening on http://{}", server.local_addrs()[0]);
    let mut line = Vec::new();
    loop {
        // 1. Wait for its descriptor, but no longer than it says. Asked anew after every turn:
        //    work that is left over does not make the descriptor readable; it makes this zero.
        let timeout = server.next_timeout().map(timespec);
        let input = stdin();
        let mut descriptors = [PollFd::new(&server, PollFlags::IN), PollFd::new(&input, PollFlags::IN)];
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let input_is_ready = !descriptors[1].revents().is_empty();

        // 2. Let it do what there is to do, and not wait itself.
        // 3. It says when it has left.
        if !server.turn(Some(Duration::ZERO))? {
            return Ok(());
        }

        // The host's own business.
        if input_is_ready && !publish_lines(&mut server, &mut line)? {
            server.handle().stop();
        }
    }
}

/// Reads once, so that it never blocks, and publishes what lines are complete. False at the end.
fn publish_lines(server: &mut tidings::Server, line: &mut Vec<u8>) -> Result<bool, Box<dyn std::error::Error>> {
    // At most 512 lines: fewer than `Config::commands_max`, which may wait for a turn.
    let mut bytes = [0; 512];
    let read = rustix::io::read(stdin(), &mut bytes)?;
    for &byte in &bytes[..read] {
        if byte == b'\n' {
            server.publish("input", std::mem::take(line))?;
        } else {
            line.push(byte);
        }
    }
    Ok(read > 0)
}

/// `poll(2)` counts in nanoseconds; a time it cannot count to is as good as none.
fn timespec(timeout: Duration) -> Timespec {
    Timespec { tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: timeout.subsec_nanos().into() }
}
