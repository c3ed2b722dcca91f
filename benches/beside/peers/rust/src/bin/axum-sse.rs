//! axum SSE over tokio broadcast, current-thread runtime: `GET /sse/<ch>`, `POST /pub/<ch>`, `GET /`.
use axum::{
    Router,
    extract::{Path, State},
    response::sse::{Event, Sse},
    routing::{get, post},
};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::sync::broadcast;
use tokio_stream::{StreamExt, wrappers::BroadcastStream};

type Map = Arc<Mutex<HashMap<String, broadcast::Sender<Arc<str>>>>>;

fn main() {
    let (addr, _) = rust_peers::ports(9131);
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async move {
        let map: Map = Default::default();
        let app = Router::new()
            .route("/", get(|| async { "hello world\n" }))
            .route(
                "/sse/{ch}",
                get(|Path(ch): Path<String>, State(m): State<Map>| async move {
                    let rx = m.lock().unwrap().entry(ch).or_insert_with(|| broadcast::channel(4096).0).subscribe();
                    Sse::new(
                        BroadcastStream::new(rx)
                            .filter_map(|r| r.ok().map(|s| Ok::<Event, Infallible>(Event::default().data(&*s)))),
                    )
                }),
            )
            .route(
                "/pub/{ch}",
                post(|Path(ch): Path<String>, State(m): State<Map>, body: String| async move {
                    if let Some(tx) = m.lock().unwrap().get(&ch) {
                        let _ = tx.send(Arc::from(body));
                    }
                    "ok"
                }),
            )
            .with_state(map);
        let l = tokio::net::TcpSocket::new_v4().unwrap();
        l.set_reuseaddr(true).unwrap();
        l.bind(addr.parse().unwrap()).unwrap();
        let l = l.listen(4096).unwrap();
        let l = axum::serve::ListenerExt::tap_io(l, |s| {
            let _ = s.set_nodelay(true);
        });
        axum::serve(l, app).await.unwrap();
    });
}
