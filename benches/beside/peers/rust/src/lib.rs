//! Shared by the Rust peers: a channel map over tokio's broadcast and a very small
//! keep-alive HTTP publish listener (`POST /pub/<ch>`), so that the WebSocket
//! peers measure the WebSocket library and not an HTTP framework.
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

pub type Chans<T> = Rc<RefCell<HashMap<String, broadcast::Sender<T>>>>;

pub fn subscribe<T: Clone>(c: &Chans<T>, ch: &str) -> broadcast::Receiver<T> {
    c.borrow_mut().entry(ch.to_string()).or_insert_with(|| broadcast::channel(4096).0).subscribe()
}

pub async fn publish_listener<T: Clone + 'static>(
    addr: String,
    chans: Chans<T>,
    mk: impl Fn(&[u8]) -> T + Clone + 'static,
) {
    let l = TcpListener::bind(&addr).await.expect("bind publish port");
    loop {
        let (mut s, _) = match l.accept().await {
            Ok(x) => x,
            Err(_) => continue,
        };
        let _ = s.set_nodelay(true);
        let chans = chans.clone();
        let mk = mk.clone();
        tokio::task::spawn_local(async move {
            let mut buf: Vec<u8> = Vec::with_capacity(16384);
            let mut out: Vec<u8> = Vec::new();
            loop {
                let mut used = 0;
                out.clear();
                while let Some(h) = find(&buf[used..], b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&buf[used..used + h]).to_ascii_lowercase();
                    let path = head.split(' ').nth(1).unwrap_or("").to_string();
                    let cl: usize = head
                        .split("\r\n")
                        .find_map(|l| l.strip_prefix("content-length:"))
                        .and_then(|v| v.trim().parse().ok())
                        .unwrap_or(0);
                    if buf.len() < used + h + 4 + cl {
                        break;
                    }
                    let body = &buf[used + h + 4..used + h + 4 + cl];
                    if let Some(ch) = path.strip_prefix("/pub/") {
                        if let Some(tx) = chans.borrow().get(ch) {
                            let _ = tx.send(mk(body));
                        }
                    }
                    used += h + 4 + cl;
                    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
                buf.drain(..used);
                if !out.is_empty() && s.write_all(&out).await.is_err() {
                    return;
                }
                match s.read_buf(&mut buf).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        });
    }
}

fn find(h: &[u8], n: &[u8]) -> Option<usize> {
    h.windows(n.len()).position(|w| w == n)
}

pub fn run<F: std::future::Future<Output = ()> + 'static>(f: F) {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&rt, f);
}

/// `ADDR PORT` of the command line: the listen port and, one above, the publish port.
pub fn ports(default: u16) -> (String, String) {
    let p: u16 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(default);
    (format!("127.0.0.1:{p}"), format!("127.0.0.1:{}", p + 1))
}
