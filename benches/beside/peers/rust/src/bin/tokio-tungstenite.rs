//! tokio-tungstenite, current-thread runtime: `/echo`, `/ws/<ch>`; publish port = port + 1.
use futures_util::{SinkExt, StreamExt};
use rust_peers::*;
use tokio_tungstenite::tungstenite::{
    Message, Utf8Bytes,
    handshake::server::{Request, Response},
};

fn main() {
    let (addr, pubaddr) = ports(9111);
    run(async move {
        let chans: Chans<Utf8Bytes> = Default::default();
        tokio::task::spawn_local(publish_listener(pubaddr, chans.clone(), |b| {
            Utf8Bytes::from(String::from_utf8_lossy(b).into_owned())
        }));
        let l = tokio::net::TcpSocket::new_v4().unwrap();
        l.set_reuseaddr(true).unwrap();
        l.bind(addr.parse().unwrap()).unwrap();
        let l = l.listen(4096).unwrap();
        loop {
            let Ok((s, _)) = l.accept().await else { continue };
            let _ = s.set_nodelay(true);
            let chans = chans.clone();
            tokio::task::spawn_local(async move {
                let mut path = String::new();
                #[allow(clippy::result_large_err)]
                let cb = |r: &Request, resp: Response| {
                    path = r.uri().path().to_string();
                    Ok(resp)
                };
                let Ok(mut ws) = tokio_tungstenite::accept_hdr_async(s, cb).await else { return };
                if let Some(ch) = path.strip_prefix("/ws/") {
                    let mut rx = subscribe(&chans, ch);
                    loop {
                        tokio::select! {
                            m = rx.recv() => match m {
                                Ok(t) => if ws.send(Message::Text(t)).await.is_err() { return },
                                Err(_) => return,
                            },
                            i = ws.next() => match i { Some(Ok(_)) => {}, _ => return },
                        }
                    }
                }
                while let Some(Ok(m)) = ws.next().await {
                    if (m.is_text() || m.is_binary()) && ws.send(m).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}
