//! A server in ten lines: its own thread turns it, another tells the time.
//!
//!     cargo run --example embed
//!     curl -N 'http://127.0.0.1:8080/channels/clock?transport=sse'

use std::time::{Duration, SystemTime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = tidings::Server::bind(address, tidings::Config::default())?;
    println!("listening on http://{}", server.local_addrs()[0]);
    let handle = server.handle();
    std::thread::spawn(move || {
        while let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)
            && handle.publish("clock", now.as_secs().to_string()).is_ok()
        {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    Ok(server.run()?)
}
