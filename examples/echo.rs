//! A WebSocket echo server on every path but the server's own, for suites that test servers by
//! their echoes.
//!
//!     cargo run --release --example echo 127.0.0.1:9001

use tidings::{Access, App, Config, Inbound, Reaction, Request, Server};

/// What the largest case of such suites sends, and some more.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Large messages deserve large buffers of the kernel. The server's own defaults are for small ones.
const SOCKET_BUFFER_BYTES: usize = 1024 * 1024;

struct Echo;

impl App for Echo {
    fn upgrade(&mut self, _request: &Request<'_>) -> Option<Access> {
        Some(Access::Allow)
    }

    fn message(&mut self, _message: &Inbound<'_>) -> Reaction {
        Reaction::Echo
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(address) = std::env::args().nth(1) else { return Err("usage: echo ADDRESS:PORT".into()) };
    let mut config = Config::default();
    config.message_bytes_max = MESSAGE_BYTES_MAX;
    config.receive_buffer_bytes = SOCKET_BUFFER_BYTES;
    config.send_buffer_bytes = SOCKET_BUFFER_BYTES;
    let server = Server::bind_app(address, config, |_| Echo)?;
    println!("listening on http://{}", server.local_addrs()[0]);
    Ok(server.run()?)
}
