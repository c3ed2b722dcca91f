//! A WebSocket echo server on `/channels/echo`, for suites that test servers by their echoes.
//!
//!     cargo run --release --example echo 127.0.0.1:9001
//!
//! A suite must offer the subprotocol `tidings.raw`: without it the first frame is a cursor, which
//! no echo suite expects.

use tidings::{App, Config, Inbound, Reaction, Server};

/// What the largest case of such suites sends, and some more.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

struct Echo;

impl App for Echo {
    fn message(&mut self, _message: &Inbound<'_>) -> Reaction {
        Reaction::Echo
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(address) = std::env::args().nth(1) else { return Err("usage: echo ADDRESS:PORT".into()) };
    let mut config = Config::default();
    config.message_bytes_max = MESSAGE_BYTES_MAX;
    let server = Server::bind_app(address, config, Echo)?;
    println!("listening on http://{}", server.local_addrs()[0]);
    Ok(server.run()?)
}
