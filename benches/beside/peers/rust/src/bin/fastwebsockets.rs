//! fastwebsockets over hyper, current-thread runtime: `/echo`, `/ws/<ch>`; publish port = port + 1.
use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, upgrade};
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rust_peers::*;

fn main() {
    let (addr, pubaddr) = ports(9121);
    run(async move {
        let chans: Chans<Bytes> = Default::default();
        tokio::task::spawn_local(publish_listener(pubaddr, chans.clone(), Bytes::copy_from_slice));
        let l = tokio::net::TcpSocket::new_v4().unwrap();
        l.set_reuseaddr(true).unwrap();
        l.bind(addr.parse().unwrap()).unwrap();
        let l = l.listen(4096).unwrap();
        loop {
            let Ok((s, _)) = l.accept().await else { continue };
            let _ = s.set_nodelay(true);
            let chans = chans.clone();
            tokio::task::spawn_local(async move {
                let svc = service_fn(move |mut req: Request<Incoming>| {
                    let chans = chans.clone();
                    async move {
                        let path = req.uri().path().to_string();
                        let (resp, fut) = upgrade::upgrade(&mut req)?;
                        tokio::task::spawn_local(async move {
                            let Ok(mut ws) = fut.await else { return };
                            ws.set_writev(false);
                            ws.set_auto_close(true);
                            ws.set_auto_pong(true);
                            ws.set_max_message_size(16 << 20);
                            if let Some(ch) = path.strip_prefix("/ws/") {
                                let mut rx = subscribe(&chans, ch);
                                while let Ok(b) = rx.recv().await {
                                    if ws.write_frame(Frame::text(Payload::Borrowed(&b))).await.is_err() {
                                        return;
                                    }
                                }
                                return;
                            }
                            while let Ok(f) = ws.read_frame().await {
                                match f.opcode {
                                    OpCode::Close => return,
                                    OpCode::Text | OpCode::Binary => {
                                        let f = Frame::new(true, f.opcode, None, f.payload);
                                        if ws.write_frame(f).await.is_err() {
                                            return;
                                        }
                                    }
                                    _ => {}
                                }
                            }
                        });
                        Ok::<Response<Empty<Bytes>>, fastwebsockets::WebSocketError>(resp)
                    }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(s), svc).with_upgrades().await;
            });
        }
    });
}
