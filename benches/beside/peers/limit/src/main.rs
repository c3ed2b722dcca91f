//! The physical limit: what this kernel costs when the server does (almost) nothing.
//!
//! One thread, one epoll set (level triggered, added once per connection, never modified),
//! a flat table indexed by fd, no allocation per connection, almost no parsing:
//!   GET with `Upgrade:`  -> canned 101, `/ws/…` joins the one ws list, `/echo` echoes frames
//!   GET /sse/…           -> canned event-stream head, joins the one sse list
//!   GET /lp/…            -> parked; one complete response at the next publish, then off the list
//!   POST                 -> frame is built once, then send(2) to every fd of every list
//!   GET /bytes/N         -> N bytes, as fast as the socket takes them, 64 KiB a send
//!   other GET            -> canned response (pipelining honoured by counting blank lines)
//! With a second argument it also sends each of its connections a heartbeat every so many
//! milliseconds, spread over steps of 250 ms.
//! Partial sends are not kept: a short or failed send is counted and reported at exit (SIGTERM)
//! and is fatal to the figures. It is a lower bound and not a server.
use std::io::Write;

const ACCEPT: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const SSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// A comment in a chunk, as a stream without a length has it; a ping.
const SSE_HEARTBEAT: &[u8] = b"3\r\n:\n\n\r\n";
const WS_HEARTBEAT: &[u8] = b"\x89\x00";
static BYTES: [u8; 64 << 10] = [b'x'; 64 << 10];
const STEP_MS: u64 = 250;
const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello world\n";

#[derive(Clone, Copy, PartialEq)]
enum K {
    New,
    Ws,
    Echo,
    Sse,
    Lp,
}

static mut SHORT: u64 = 0;

fn send(fd: i32, b: &[u8]) {
    let n = unsafe { libc::send(fd, b.as_ptr().cast(), b.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    if n != b.len() as isize {
        unsafe { SHORT += 1 };
    }
}

/// Waits for this one connection, whoever else there is.
fn send_all(fd: i32, mut b: &[u8]) {
    while !b.is_empty() {
        let n = unsafe { libc::send(fd, b.as_ptr().cast(), b.len(), libc::MSG_NOSIGNAL) };
        if n > 0 {
            b = &b[n as usize..];
            continue;
        }
        let mut p = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        if unsafe { libc::poll(&mut p, 1, 2000) } <= 0 {
            return;
        }
    }
}

fn find(h: &[u8], n: &[u8]) -> Option<usize> {
    if h.len() < n.len() {
        return None;
    }
    let p = unsafe { libc::memmem(h.as_ptr().cast(), h.len(), n.as_ptr().cast(), n.len()) };
    if p.is_null() { None } else { Some(p as usize - h.as_ptr() as usize) }
}

fn ws_frame(out: &mut Vec<u8>, op: u8, p: &[u8]) {
    out.push(0x80 | op);
    if p.len() < 126 {
        out.push(p.len() as u8)
    } else if p.len() < 65536 {
        out.push(126);
        out.extend_from_slice(&(p.len() as u16).to_be_bytes())
    } else {
        out.push(127);
        out.extend_from_slice(&(p.len() as u64).to_be_bytes())
    }
    out.extend_from_slice(p);
}

/// Echo every complete client frame of `b` into `out`; returns the bytes used.
fn echo(b: &mut [u8], out: &mut Vec<u8>) -> usize {
    let mut at = 0;
    loop {
        let r = &mut b[at..];
        if r.len() < 6 {
            return at;
        }
        let (len, h) = match r[1] & 127 {
            126 => {
                if r.len() < 8 {
                    return at;
                }
                (u16::from_be_bytes([r[2], r[3]]) as usize, 4)
            }
            127 => {
                if r.len() < 14 {
                    return at;
                }
                (u64::from_be_bytes(r[2..10].try_into().unwrap()) as usize, 10)
            }
            n => (n as usize, 2),
        };
        if r.len() < h + 4 + len {
            return at;
        }
        let key = u32::from_ne_bytes(r[h..h + 4].try_into().unwrap());
        let k8 = (key as u64) << 32 | key as u64;
        let p = &mut r[h + 4..h + 4 + len];
        let mut ch = p.chunks_exact_mut(8);
        for c in &mut ch {
            let v = u64::from_ne_bytes((&*c).try_into().unwrap()) ^ k8;
            c.copy_from_slice(&v.to_ne_bytes());
        }
        let kb = key.to_ne_bytes();
        for (i, x) in ch.into_remainder().iter_mut().enumerate() {
            *x ^= kb[i & 3];
        }
        let op = r[0] & 15;
        let (a, z) = (h + 4, h + 4 + len);
        ws_frame(out, op, &r[a..z]);
        at += z;
    }
}

extern "C" fn term(_: i32) {
    let n = unsafe { SHORT };
    let s = format!("short or failed sends: {n}\n");
    unsafe {
        libc::write(2, s.as_ptr().cast(), s.len());
        libc::_exit(0)
    }
}

fn main() {
    let port: u16 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(9191);
    let heartbeat: Option<u64> = std::env::args().nth(2).and_then(|s| s.parse().ok());
    let begin = std::time::Instant::now();
    let mut steps = 0;
    unsafe {
        libc::signal(libc::SIGTERM, term as *const () as usize);
        let ls = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        let one = 1i32;
        libc::setsockopt(ls, libc::SOL_SOCKET, libc::SO_REUSEADDR, (&one as *const i32).cast(), 4);
        let mut sa: libc::sockaddr_in = std::mem::zeroed();
        sa.sin_family = libc::AF_INET as _;
        sa.sin_port = port.to_be();
        sa.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        if libc::bind(ls, (&sa as *const libc::sockaddr_in).cast(), 16) != 0 || libc::listen(ls, 4096) != 0 {
            eprintln!("cannot listen");
            std::process::exit(1);
        }
        // inherited by accepted sockets: saves one syscall per connection
        libc::setsockopt(ls, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&one as *const i32).cast(), 4);
        let ep = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let mut ev = libc::epoll_event { events: libc::EPOLLIN as u32, u64: ls as u64 };
        libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, ls, &mut ev);
        let mut kind = vec![K::New; 20000];
        let mut lists: [Vec<i32>; 3] = Default::default(); // ws, sse, lp
        let mut evs: Vec<libc::epoll_event> = vec![std::mem::zeroed(); 1024];
        let mut buf = vec![0u8; 4 << 20];
        // one carry buffer per echo connection only
        let mut carry: std::collections::HashMap<i32, Vec<u8>> = Default::default();
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        // long poll: every complete response so far, by number (bounded by the test)
        let mut hist: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut wait = -1;
            if let Some(heartbeat) = heartbeat {
                let phases = (heartbeat / STEP_MS).max(1) as usize;
                while begin.elapsed().as_millis() as u64 >= (steps + 1) * STEP_MS {
                    steps += 1;
                    let phase = steps as usize % phases;
                    for &s in lists[0].iter().skip(phase).step_by(phases) {
                        send(s, WS_HEARTBEAT);
                    }
                    for &s in lists[1].iter().skip(phase).step_by(phases) {
                        send(s, SSE_HEARTBEAT);
                    }
                }
                wait = ((steps + 1) * STEP_MS).saturating_sub(begin.elapsed().as_millis() as u64).max(1) as i32;
            }
            let n = libc::epoll_wait(ep, evs.as_mut_ptr(), 1024, wait);
            for e in evs.iter().take(n.max(0) as usize) {
                let fd = e.u64 as i32;
                if fd == ls {
                    loop {
                        let c = libc::accept4(
                            ls,
                            std::ptr::null_mut(),
                            std::ptr::null_mut(),
                            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                        );
                        if c < 0 {
                            break;
                        }
                        kind[c as usize] = K::New;
                        let mut ev = libc::epoll_event { events: libc::EPOLLIN as u32, u64: c as u64 };
                        libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, c, &mut ev);
                    }
                    continue;
                }
                let k = kind[fd as usize];
                let mut have = 0;
                if k == K::Echo {
                    if let Some(c) = carry.get_mut(&fd) {
                        have = c.len();
                        buf[..have].copy_from_slice(c);
                        c.clear();
                    }
                }
                let r = libc::recv(fd, buf[have..].as_mut_ptr().cast(), buf.len() - have, 0);
                if r <= 0 {
                    if r < 0 && *libc::__errno_location() == libc::EAGAIN {
                        continue;
                    }
                    for l in lists.iter_mut() {
                        if k != K::New && k != K::Echo {
                            l.retain(|&x| x != fd)
                        }
                    }
                    carry.remove(&fd);
                    libc::close(fd);
                    continue;
                }
                let mut b = &mut buf[..have + r as usize];
                if k == K::Echo {
                    out.clear();
                    let used = echo(b, &mut out);
                    if used < b.len() {
                        carry.entry(fd).or_default().extend_from_slice(&b[used..]);
                    }
                    send_all(fd, &out);
                    continue;
                }
                if k == K::Ws || k == K::Sse {
                    continue;
                }
                out.clear();
                while !b.is_empty() {
                    let Some(h) = find(b, b"\r\n\r\n") else { break };
                    let (head, rest) = b.split_at_mut(h + 4);
                    b = rest;
                    if head.starts_with(b"POST") {
                        let cl: usize = find(head, b"ontent-Length: ")
                            .map(|i| {
                                head[i + 15..]
                                    .iter()
                                    .take_while(|c| c.is_ascii_digit())
                                    .fold(0, |a, c| a * 10 + (*c - b'0') as usize)
                            })
                            .unwrap_or(0);
                        let (body, rest) = b.split_at_mut(cl.min(b.len()));
                        b = rest;
                        if !lists[0].is_empty() {
                            frame.clear();
                            ws_frame(&mut frame, 1, body);
                            for &s in &lists[0] {
                                send(s, &frame);
                            }
                        }
                        if !lists[1].is_empty() {
                            frame.clear();
                            frame.extend_from_slice(b"data: ");
                            frame.extend_from_slice(body);
                            frame.extend_from_slice(b"\n\n");
                            for &s in &lists[1] {
                                send(s, &frame);
                            }
                        }
                        if lists[0].is_empty() && lists[1].is_empty() {
                            frame.clear();
                            let _ = write!(
                                frame,
                                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nEtag: {}\r\n\r\n",
                                body.len(),
                                hist.len() + 1
                            );
                            frame.extend_from_slice(body);
                            let mut l = std::mem::take(&mut lists[2]);
                            for &s in &l {
                                send(s, &frame);
                                kind[s as usize] = K::New;
                            }
                            l.clear();
                            lists[2] = l;
                            hist.push(frame.clone());
                        }
                        out.extend_from_slice(OK);
                    } else if head.starts_with(b"GET /ws/") {
                        kind[fd as usize] = K::Ws;
                        lists[0].push(fd);
                        out.extend_from_slice(ACCEPT);
                    } else if head.starts_with(b"GET /echo") {
                        kind[fd as usize] = K::Echo;
                        out.extend_from_slice(ACCEPT);
                    } else if head.starts_with(b"GET /sse/") {
                        kind[fd as usize] = K::Sse;
                        lists[1].push(fd);
                        out.extend_from_slice(SSE);
                    } else if head.starts_with(b"GET /lp/") {
                        let at: usize = find(head, b"None-Match: ")
                            .map(|i| {
                                head[i + 12..]
                                    .iter()
                                    .take_while(|c| c.is_ascii_digit())
                                    .fold(0, |a, c| a * 10 + (*c - b'0') as usize)
                            })
                            .unwrap_or(0);
                        match hist.get(at) {
                            Some(f) => out.extend_from_slice(f),
                            None => {
                                kind[fd as usize] = K::Lp;
                                lists[2].push(fd);
                            }
                        }
                    } else if head.starts_with(b"GET /bytes/") {
                        let mut left = head[11..]
                            .iter()
                            .take_while(|c| c.is_ascii_digit())
                            .fold(0, |a, c| a * 10 + (*c - b'0') as usize);
                        let _ = write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n");
                        send_all(fd, &out);
                        out.clear();
                        while left > 0 {
                            let n = left.min(64 << 10);
                            send_all(fd, &BYTES[..n]);
                            left -= n;
                        }
                    } else {
                        out.extend_from_slice(HELLO);
                    }
                }
                if !out.is_empty() {
                    send(fd, &out);
                }
            }
        }
    }
}
