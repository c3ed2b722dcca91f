//! One epoll loop over all client connections.
use crate::http::{self, Ev};
use crate::{sse, ws};
use std::collections::VecDeque;
use std::io;

pub fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: plain out parameter.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Proto {
    Http,
    Sse,
    Ws,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum St {
    Connecting,
    /// Request sent, response head not there yet.
    Waiting,
    Open,
    Closed,
}

pub struct Conn {
    pub fd: i32,
    pub st: St,
    pub proto: Proto,
    /// Free for the mode: publisher or subscriber, channel, last sequence number, in flight…
    pub role: u8,
    pub ch: u32,
    pub last: u32,
    pub aux: u32,
    pub t: u64,
    pub vars: Vec<Vec<u8>>,
    /// WebSocket: hand out pieces (`ws_part`) instead of whole messages.
    pub stream: bool,
    /// It polls, again and again.
    pub polls: bool,
    dead: bool,
    dirty: bool,
    want_w: bool,
    pub out: Vec<u8>,
    pos: usize,
    status: u16,
    body: Vec<u8>,
    http: http::Decoder,
    ws: ws::Decoder,
    sse: sse::Parser,
    src: u32,
}

pub struct Spec {
    pub addr: libc::sockaddr_in,
    pub proto: Proto,
    pub role: u8,
    pub ch: u32,
    pub stream: bool,
    pub polls: bool,
    /// First request; empty when the mode sends its own after `connected`.
    pub req: Vec<u8>,
    /// Counts as established once connected (long poll: no head until a message).
    pub ready_on_connect: bool,
}

pub struct Engine {
    ep: i32,
    evs: Vec<libc::epoll_event>,
    rbuf: Vec<u8>,
    pub conns: Vec<Conn>,
    pub to_open: VecDeque<Spec>,
    pub opening: usize,
    pub max_opening: usize,
    pub established: u64,
    pub failed: u64,
    pub closed: u64,
    pub errors: Vec<String>,
    pub bytes_in: u64,
    pub reads: u64,
    dirty: Vec<usize>,
    srcs: u32,
    next_src: u32,
    free: Vec<usize>,
    pub rst: bool,
    /// Never sleep in epoll_wait: the server then pays no wake-up of an idle CPU per send.
    pub spin: bool,
    pub t: u64,
}

pub trait Handler {
    fn established(&mut self, _e: &mut Engine, _i: usize) {}
    /// One SSE event or one whole WebSocket message.
    fn message(&mut self, _e: &mut Engine, _i: usize, _m: &[u8]) {}
    fn response(&mut self, _e: &mut Engine, _i: usize, _status: u16, _head: &[u8], _body: &[u8]) {}
    fn ws_part(&mut self, _e: &mut Engine, _i: usize, _p: &ws::Part) {}
    fn closed(&mut self, _e: &mut Engine, _i: usize) {}
}

impl Engine {
    pub fn new(srcs: u32, max_opening: usize) -> Engine {
        // SAFETY: no arguments to get wrong.
        let ep = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(ep >= 0, "epoll_create1");
        Engine {
            ep,
            evs: vec![libc::epoll_event { events: 0, u64: 0 }; 1024],
            rbuf: vec![0; 1 << 20],
            conns: vec![],
            to_open: VecDeque::new(),
            opening: 0,
            max_opening,
            established: 0,
            failed: 0,
            closed: 0,
            errors: vec![],
            bytes_in: 0,
            reads: 0,
            dirty: vec![],
            srcs,
            next_src: 0,
            free: vec![],
            rst: false,
            spin: false,
            t: now(),
        }
    }

    pub fn error(&mut self, s: String) {
        if self.errors.len() < 20 {
            self.errors.push(s);
        }
    }

    fn open_one(&mut self, s: Spec) {
        // SAFETY: ordinary socket calls with valid pointers and lengths.
        unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                self.failed += 1;
                self.error(format!("socket: {}", io::Error::last_os_error()));
                return;
            }
            let one = 1i32;
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&one as *const i32).cast(), 4);
            let src = self.next_src;
            if self.srcs > 1 {
                libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, (&one as *const i32).cast(), 4);
                let mut a: libc::sockaddr_in = std::mem::zeroed();
                a.sin_family = libc::AF_INET as _;
                a.sin_addr.s_addr = u32::from_ne_bytes([127, 0, (src / 250) as u8, (src % 250) as u8 + 2]);
                if libc::bind(fd, (&a as *const libc::sockaddr_in).cast(), 16) != 0 {
                    self.error(format!("bind: {}", io::Error::last_os_error()));
                }
                self.next_src = (src + 1) % self.srcs;
            }
            let r = libc::connect(fd, (&s.addr as *const libc::sockaddr_in).cast(), 16);
            if r != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINPROGRESS) {
                self.failed += 1;
                self.error(format!("connect: {}", io::Error::last_os_error()));
                libc::close(fd);
                return;
            }
            let c = Conn {
                fd,
                st: St::Connecting,
                proto: s.proto,
                role: s.role,
                ch: s.ch,
                last: 0,
                aux: s.ready_on_connect as u32,
                t: 0,
                vars: vec![],
                stream: s.stream,
                polls: s.polls,
                dead: false,
                dirty: false,
                want_w: true,
                out: s.req,
                pos: 0,
                status: 0,
                body: vec![],
                http: Default::default(),
                ws: Default::default(),
                sse: Default::default(),
                src,
            };
            let i = match self.free.pop() {
                Some(i) => {
                    self.conns[i] = c;
                    i
                }
                None => {
                    self.conns.push(c);
                    self.conns.len() - 1
                }
            };
            let mut ev = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLOUT) as u32, u64: i as u64 };
            libc::epoll_ctl(self.ep, libc::EPOLL_CTL_ADD, fd, &mut ev);
            self.opening += 1;
        }
    }

    /// Queue bytes on a connection; they leave after the current event was handled.
    pub fn queue(&mut self, i: usize, b: &[u8]) {
        self.queue_with(i, |o| o.extend_from_slice(b));
    }

    pub fn queue_with(&mut self, i: usize, f: impl FnOnce(&mut Vec<u8>)) {
        let c = &mut self.conns[i];
        f(&mut c.out);
        if !c.dirty {
            c.dirty = true;
            self.dirty.push(i);
        }
    }

    /// Close from our side; the slot is reused after this loop turn.
    pub fn close(&mut self, i: usize) {
        let c = &mut self.conns[i];
        if c.dead {
            return;
        }
        c.dead = true;
        if matches!(c.st, St::Connecting | St::Waiting) && self.opening > 0 {
            self.opening -= 1;
        }
        c.st = St::Closed;
        // SAFETY: fd is ours and open.
        unsafe {
            if self.rst {
                let l = libc::linger { l_onoff: 1, l_linger: 0 };
                libc::setsockopt(
                    c.fd,
                    libc::SOL_SOCKET,
                    libc::SO_LINGER,
                    (&l as *const libc::linger).cast(),
                    std::mem::size_of::<libc::linger>() as u32,
                );
            }
            libc::close(c.fd);
        }
        c.out = vec![];
        c.pos = 0;
    }

    /// Forget a closed connection's slot (mode `churn`).
    pub fn recycle(&mut self, i: usize) {
        self.free.push(i);
    }

    fn flush(&mut self, h: &mut impl Handler) {
        while let Some(i) = self.dirty.pop() {
            self.conns[i].dirty = false;
            if self.conns[i].st != St::Connecting && !self.conns[i].dead {
                self.write(i, h);
            }
        }
    }

    fn write(&mut self, i: usize, h: &mut impl Handler) {
        let c = &mut self.conns[i];
        while c.pos < c.out.len() {
            // SAFETY: the range is inside `out`.
            let n =
                unsafe { libc::send(c.fd, c.out[c.pos..].as_ptr().cast(), c.out.len() - c.pos, libc::MSG_NOSIGNAL) };
            if n < 0 {
                let e = io::Error::last_os_error();
                if e.raw_os_error() == Some(libc::EAGAIN) {
                    break;
                }
                self.gone(i, h, &format!("send: {e}"));
                return;
            }
            c.pos += n as usize;
        }
        let done = c.pos == c.out.len();
        if done {
            c.out.clear();
            c.pos = 0;
            if c.out.capacity() > 1 << 16 && !c.stream {
                c.out = vec![];
            }
        } else if c.pos > 1 << 20 {
            c.out.drain(..c.pos);
            c.pos = 0;
        }
        if c.want_w == done {
            c.want_w = !done;
            let w = if done { 0 } else { libc::EPOLLOUT };
            let mut ev = libc::epoll_event { events: (libc::EPOLLIN | w) as u32, u64: i as u64 };
            // SAFETY: fd is registered.
            unsafe { libc::epoll_ctl(self.ep, libc::EPOLL_CTL_MOD, c.fd, &mut ev) };
        }
    }

    fn gone(&mut self, i: usize, h: &mut impl Handler, why: &str) {
        if self.conns[i].dead {
            return;
        }
        let c = &self.conns[i];
        let mid = match c.st {
            St::Connecting | St::Waiting => true,
            _ => c.http.mid_message() || c.ws.mid_message() || c.sse.mid_message(),
        };
        let was = c.st;
        if matches!(was, St::Connecting | St::Waiting) {
            self.failed += 1;
        } else {
            self.closed += 1;
        }
        self.error(format!("{:?} {:?}{}: {why}", c.proto, was, if mid { " mid-message" } else { "" }));
        self.close(i);
        h.closed(self, i);
    }

    fn estab(&mut self, i: usize, h: &mut impl Handler) {
        let c = &mut self.conns[i];
        if matches!(c.st, St::Connecting | St::Waiting) {
            c.st = St::Open;
            self.opening -= 1;
            self.established += 1;
            h.established(self, i);
        }
    }

    fn process(&mut self, i: usize, mut b: &[u8], h: &mut impl Handler) -> Result<(), String> {
        if !self.conns[i].http.upgraded() {
            let mut d = std::mem::take(&mut self.conns[i].http);
            loop {
                let ev = match d.next(&mut b) {
                    Ok(Some(e)) => e,
                    Ok(None) => break,
                    Err(e) => return Err(e),
                };
                let c = &mut self.conns[i];
                match ev {
                    Ev::Head(s) => {
                        c.status = s;
                        match c.proto {
                            Proto::Sse if s == 200 => self.estab(i, h),
                            Proto::Ws if s == 101 => {
                                if http::header(&d.head, "sec-websocket-accept") != Some(ws::ACCEPT) {
                                    return Err("wrong Sec-WebSocket-Accept".into());
                                }
                                self.estab(i, h)
                            }
                            Proto::Http if s != 101 => {}
                            _ => {
                                return Err(format!(
                                    "unexpected status {s}: {}",
                                    String::from_utf8_lossy(&d.head[..d.head.len().min(200)])
                                ));
                            }
                        }
                    }
                    Ev::Body(x) => match c.proto {
                        Proto::Sse => {
                            let mut p = std::mem::take(&mut c.sse);
                            p.feed(x, &mut |m| h.message(self, i, m));
                            self.conns[i].sse = p;
                        }
                        _ => c.body.extend_from_slice(x),
                    },
                    Ev::End => {
                        if c.proto == Proto::Sse {
                            return Err("event stream ended".into());
                        }
                        let s = c.status;
                        let mut body = std::mem::take(&mut c.body);
                        self.estab(i, h);
                        h.response(self, i, s, &d.head, &body);
                        body.clear();
                        self.conns[i].body = body;
                    }
                }
                if self.conns[i].dead {
                    return Ok(());
                }
            }
            self.conns[i].http = d;
            if b.is_empty() {
                return Ok(());
            }
        }
        let mut d = std::mem::take(&mut self.conns[i].ws);
        while let Some(p) = d.next(&mut b)? {
            let c = &mut self.conns[i];
            match p.op {
                8 => return Err(format!("close frame {:?}", String::from_utf8_lossy(p.data))),
                9 | 10 => {
                    if p.op == 9 && p.last && p.off == 0 {
                        let mut f = vec![];
                        ws::encode(10, p.data, [1, 2, 3, 4], &mut f);
                        self.queue(i, &f);
                    }
                }
                _ if c.stream => h.ws_part(self, i, &p),
                _ => {
                    if p.last && p.fin && c.body.is_empty() && p.off == 0 {
                        h.message(self, i, p.data);
                    } else {
                        c.body.extend_from_slice(p.data);
                        if p.last && p.fin {
                            let mut m = std::mem::take(&mut c.body);
                            h.message(self, i, &m);
                            m.clear();
                            self.conns[i].body = m;
                        }
                    }
                }
            }
            if self.conns[i].dead {
                return Ok(());
            }
        }
        self.conns[i].ws = d;
        Ok(())
    }

    fn readable(&mut self, i: usize, h: &mut impl Handler) {
        let mut rb = std::mem::take(&mut self.rbuf);
        loop {
            let fd = self.conns[i].fd;
            // SAFETY: rb is a valid buffer.
            let n = unsafe { libc::recv(fd, rb.as_mut_ptr().cast(), rb.len(), 0) };
            self.reads += 1;
            if n < 0 {
                let e = io::Error::last_os_error();
                if e.raw_os_error() != Some(libc::EAGAIN) {
                    self.gone(i, h, &format!("recv: {e}"));
                }
                break;
            }
            if n == 0 {
                self.gone(i, h, "end of stream");
                break;
            }
            let n = n as usize;
            self.bytes_in += n as u64;
            self.t = now();
            if let Err(e) = self.process(i, &rb[..n], h) {
                self.gone(i, h, &e);
                break;
            }
            if n < rb.len() || self.conns[i].dead {
                break;
            }
        }
        self.rbuf = rb;
    }

    /// One turn; waits at most `ms`.
    pub fn turn(&mut self, ms: i32, h: &mut impl Handler) {
        while self.opening < self.max_opening {
            let Some(s) = self.to_open.pop_front() else { break };
            self.open_one(s);
        }
        self.flush(h);
        let mut evs = std::mem::take(&mut self.evs);
        // SAFETY: evs is a valid buffer of that many events.
        let n =
            unsafe { libc::epoll_wait(self.ep, evs.as_mut_ptr(), evs.len() as i32, if self.spin { 0 } else { ms }) };
        for e in evs.iter().take(n.max(0) as usize) {
            let (i, f) = (e.u64 as usize, e.events as i32);
            if self.conns[i].dead {
                continue;
            }
            if self.conns[i].st == St::Connecting {
                let mut err = 0i32;
                let mut l = 4u32;
                // SAFETY: out parameters of the right size.
                unsafe {
                    libc::getsockopt(
                        self.conns[i].fd,
                        libc::SOL_SOCKET,
                        libc::SO_ERROR,
                        (&mut err as *mut i32).cast(),
                        &mut l,
                    )
                };
                if err != 0 {
                    let s = format!("connect: {} (source {})", io::Error::from_raw_os_error(err), self.conns[i].src);
                    self.gone(i, h, &s);
                    continue;
                }
                if f & libc::EPOLLOUT != 0 {
                    self.conns[i].st = St::Waiting;
                    if self.conns[i].aux == 1 {
                        self.estab(i, h);
                    }
                    self.write(i, h);
                }
            } else if f & libc::EPOLLOUT != 0 {
                self.write(i, h);
            }
            if f & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) != 0 && !self.conns[i].dead {
                self.readable(i, h);
            }
            if !self.dirty.is_empty() {
                self.flush(h);
            }
        }
        self.evs = evs;
    }

    /// Open everything queued; false when `secs` passed first.
    pub fn open_all(&mut self, h: &mut impl Handler, secs: f64) -> bool {
        let end = now() + (secs * 1e9) as u64;
        while !self.to_open.is_empty() || self.opening > 0 {
            self.turn(100, h);
            if now() > end {
                self.error(format!("timed out opening: {} queued, {} opening", self.to_open.len(), self.opening));
                return false;
            }
        }
        true
    }

    pub fn idle(&mut self, h: &mut impl Handler, secs: f64) {
        let end = now() + (secs * 1e9) as u64;
        loop {
            let t = now();
            if t >= end {
                return;
            }
            self.turn((((end - t) / 1_000_000) as i32).clamp(1, 100), h);
        }
    }
}
