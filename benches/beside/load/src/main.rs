//! A load generator and checker for push servers: long polling, Server-Sent Events, WebSocket, and
//! their HTTP publishing. One thread, one epoll set; one process drives 19,000 connections. It knows
//! no server: paths, headers and the way a poller's cursor travels are templates.
//!
//! ```text
//! load hold|fanout|longpoll|pubrate|echo|churn|reqs --addr IP:PORT [--pid P] [--cpu K] [--json] ...
//! ```
//!
//! Ends with 0 if all was clean; 1 if a connection failed, or a message was lost, doubled, reordered
//! or damaged, or a status was not 2xx; 2 if the run could not start. The decoders are strict, so a
//! run is a small check of conformance as well.
mod engine;
mod hist;
mod http;
mod msg;
mod opts;
mod procstat;
mod sse;
mod ws;

use engine::{Engine, Handler, Proto, Spec, St, now};
use hist::Hist;
use opts::{Cursor, Opts, Report, V, addr, fill};

const PUB: u8 = 1;
const SUB: u8 = 2;
/// Above this bit of a message's number stands which of its channel's publishers sent it.
const SHARE_SHIFT: u32 = 24;

const USAGE: &str = "usage: load hold|fanout|longpoll|pubrate|echo|churn|reqs --addr IP:PORT [options]";

fn main() {
    if let Err(e) = run() {
        eprintln!("load: {e}");
        std::process::exit(2);
    }
}

fn run() -> Result<(), String> {
    let o = Opts::parse(std::env::args().skip(1)).map_err(|e| format!("{e}\n{USAGE}"))?;
    if let Some(c) = o.get("cpu") {
        let c: usize = c.parse().map_err(|_| "bad --cpu")?;
        // SAFETY: a zeroed cpu_set_t is an empty set.
        unsafe {
            let mut s: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(c, &mut s);
            libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &s);
        }
    }
    // SAFETY: plain in/out parameter.
    unsafe {
        let mut r = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut r);
        r.rlim_cur = r.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &r);
    }
    let ctx = Ctx::new(&o)?;
    let mut e = Engine::new(o.num("sources", 16), o.num("opening", 128));
    e.rst = o.flag("rst");
    e.spin = o.flag("spin");
    let mut r = Report::default();
    r.s("mode", &o.mode);
    r.s("addr", ctx.addr_s.clone());
    let t0 = now();
    let bad = match o.mode.as_str() {
        "hold" => hold(&o, &ctx, &mut e, &mut r)?,
        "fanout" | "longpoll" | "pubrate" => fanout(&o, &ctx, &mut e, &mut r)?,
        "echo" => echo(&o, &ctx, &mut e, &mut r)?,
        "churn" => churn(&o, &ctx, &mut e, &mut r)?,
        "reqs" => reqs(&o, &ctx, &mut e, &mut r)?,
        m => return Err(format!("no mode {m}\n{USAGE}")),
    };
    r.n("wall_s", (now() - t0) as f64 / 1e9);
    if !e.errors.is_empty() {
        r.s("errors", e.errors.join(" | "));
    }
    let json = o.flag("json");
    for u in o.unknown() {
        eprintln!("load: warning: option --{u} has no effect in mode {}", o.mode);
    }
    if json {
        println!("{}", r.json());
    } else {
        print!("{}", r.text(0));
    }
    if bad || e.failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

struct Ctx {
    addr_s: String,
    addr: libc::sockaddr_in,
    pub_addr: libc::sockaddr_in,
    pids: Vec<u32>,
    host: String,
    extra: String,
    prefix: String,
}

impl Ctx {
    fn new(o: &Opts) -> Result<Ctx, String> {
        let addr_s = o.get("addr").ok_or("--addr IP:PORT is needed")?.to_string();
        let a = addr(&addr_s)?;
        Ok(Ctx {
            pub_addr: o.get("pub-addr").map(addr).transpose()?.unwrap_or(a),
            addr: a,
            pids: o.list("pid", ""),
            host: o.str("host", "load.test").to_string(),
            extra: o.all("header").iter().map(|h| format!("{h}\r\n")).collect(),
            prefix: o.get("channel").map(String::from).unwrap_or(format!("c{:x}", now() / 1_000_000 % 0xfffffff)),
            addr_s,
        })
    }
    /// Name of channel number `k`.
    fn chan(&self, k: u32) -> String {
        format!("{}-{k}", self.prefix)
    }
    fn get(&self, path: &str, more: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{}{more}\r\n", self.host, self.extra).into_bytes()
    }
    fn ws(&self, path: &str) -> Vec<u8> {
        self.get(
            path,
            &format!(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
                ws::KEY
            ),
        )
    }
    fn spec(&self, proto: Proto, role: u8, ch: u32, req: Vec<u8>) -> Spec {
        Spec { addr: self.addr, proto, role, ch, stream: false, polls: false, req, ready_on_connect: false }
    }
    fn sub_spec(&self, o: &Opts, transport: &str, ch: u32, i: usize) -> Result<Spec, String> {
        let name = self.chan(ch);
        let path = |k: &str, d: &str| fill(o.str("sub-path", o.str(k, d)), &name, i);
        Ok(match transport {
            "sse" => self.spec(
                Proto::Sse,
                SUB,
                ch,
                self.get(&path("sse-path", "/sse/{ch}"), "Accept: text/event-stream\r\n"),
            ),
            "ws" => self.spec(Proto::Ws, SUB, ch, self.ws(&path("ws-path", "/ws/{ch}"))),
            "longpoll" => {
                let mut s = self.spec(Proto::Http, SUB, ch, vec![]);
                Cursor::new(o)?.request(&path("lp-path", "/lp/{ch}"), &self.host, &self.extra, &[], &mut s.req);
                s.ready_on_connect = true;
                s.polls = true;
                s
            }
            "http" => self.spec(Proto::Http, SUB, ch, self.get(&path("get-path", "/"), "")),
            t => return Err(format!("no transport {t} (sse, ws, longpoll, http)")),
        })
    }
}

/// Connections that wait. Each may be sent messages, so that what the first one costs is in the figures.
struct Waiting<'a> {
    hello: Option<String>,
    c: &'a Ctx,
    cursor: Cursor,
    path: String,
    got: usize,
    published: usize,
}
impl Handler for Waiting<'_> {
    fn message(&mut self, _e: &mut Engine, _i: usize, _m: &[u8]) {
        self.got += 1;
    }
    fn response(&mut self, e: &mut Engine, i: usize, status: u16, head: &[u8], body: &[u8]) {
        if !(200..300).contains(&status) {
            e.error(format!("status {status}"));
            e.failed += 1;
        }
        if e.conns[i].role == PUB {
            self.published += 1;
        } else if e.conns[i].polls {
            let mut vars = std::mem::take(&mut e.conns[i].vars);
            self.cursor.take(head, body, &mut vars);
            e.queue_with(i, |b| self.cursor.request(&self.path, &self.c.host, &self.c.extra, &vars, b));
            e.conns[i].vars = vars;
            self.got += 1;
        }
    }
    fn established(&mut self, e: &mut Engine, i: usize) {
        if let (Some(h), Proto::Ws) = (&self.hello, e.conns[i].proto) {
            let mut f = vec![];
            ws::encode(1, h.as_bytes(), [5, 6, 7, 8], &mut f);
            e.queue(i, &f);
        }
    }
}

fn cpu_report(r: &mut Report, a: procstat::Cpu, b: procstat::Cpu, units: f64, per: &str) {
    r.n("server_cpu_s", (b.ns - a.ns) as f64 / 1e9);
    r.n("server_user_s", (b.ut - a.ut) as f64 / 100.0);
    r.n("server_sys_s", (b.st - a.st) as f64 / 100.0);
    r.n(&format!("cpu_us_per_{per}"), (b.ns - a.ns) as f64 / 1e3 / units);
    r.n("server_ctx_switches", (b.vcs + b.ics - a.vcs - a.ics) as f64);
}

/// Open N connections in steps, wait, look at the server's memory after each step.
fn hold(o: &Opts, c: &Ctx, e: &mut Engine, r: &mut Report) -> Result<bool, String> {
    let steps: Vec<usize> = o.list("n", "1000");
    let transport = o.str("transport", "sse").to_string();
    let settle: f64 = o.num("settle", 2.0);
    let messages: usize = o.num("messages", 0);
    let path = fill(o.str("sub-path", o.str("lp-path", "/lp/{ch}")), &c.chan(0), 0);
    let hello = o.get("ws-hello").map(String::from);
    let mut h = Waiting { hello, c, cursor: Cursor::new(o)?, path, got: 0, published: 0 };
    let mut publisher = None;
    if messages > 0 && transport != "http" {
        let mut s = c.spec(Proto::Http, PUB, 0, vec![]);
        s.addr = c.pub_addr;
        s.ready_on_connect = true;
        e.to_open.push_back(s);
        e.open_all(&mut h, 10.0);
        publisher = Some(0);
    }
    r.s("transport", transport.clone());
    let m0 = procstat::mem(&c.pids);
    let k0 = procstat::kernel();
    r.n("rss_before", m0.rss as f64);
    r.n("anon_before", m0.anon as f64);
    r.n("pss_before", m0.pss as f64);
    let mut list = vec![];
    let mut open = 0;
    for n in steps {
        let before = (e.established, now(), procstat::cpu(&c.pids));
        for i in open..n {
            e.to_open.push_back(c.sub_spec(o, &transport, 0, i)?);
        }
        e.open_all(&mut h, o.num("timeout", 120.0));
        let dt = (now() - before.1) as f64 / 1e9;
        let c1 = procstat::cpu(&c.pids);
        let made = (e.established - before.0) as f64;
        if let Some(publisher) = publisher {
            // A poll that has only just been sent is not held yet.
            e.idle(&mut h, 0.3);
            publish_to_all(o, c, e, &mut h, publisher, messages, n)?;
        }
        e.idle(&mut h, settle);
        let m = procstat::mem(&c.pids);
        let k = procstat::kernel();
        let live = e.conns.iter().filter(|c| c.st == St::Open && c.role == SUB).count() as f64;
        let mut s = Report::default();
        s.n("n", live);
        s.n("connects_per_s", made / dt);
        s.n("cpu_us_per_connect", (c1.ns - before.2.ns) as f64 / 1e3 / made);
        s.n("rss", m.rss as f64);
        s.n("anon", m.anon as f64);
        s.n("pss", m.pss as f64);
        s.n("shmem", m.shmem as f64);
        s.n("rss_per_conn", (m.rss as f64 - m0.rss as f64) / live);
        s.n("anon_per_conn", (m.anon as f64 - m0.anon as f64) / live);
        s.n("pss_per_conn", (m.pss as f64 - m0.pss as f64) / live);
        s.n("kernel_tcp_per_conn", (k.0 as f64 - k0.0 as f64) / live);
        s.n("slab_both_ends_per_conn", (k.1 as f64 - k0.1 as f64) / live);
        list.push(s);
        open = n;
    }
    if list.len() > 1 {
        let (a, b) = (&list[0], &list[list.len() - 1]);
        let d = b.get("n") - a.get("n");
        for k in ["rss", "anon", "pss"] {
            r.n(&format!("slope_{k}_per_conn"), (b.get(k) - a.get(k)) / d);
        }
    }
    r.0.push(("step".into(), V::L(list)));
    let hs: f64 = o.num("hold-secs", 0.0);
    if hs > 0.0 {
        let c0 = procstat::cpu(&c.pids);
        e.idle(&mut h, hs);
        let c1 = procstat::cpu(&c.pids);
        r.n("idle_cpu_ms_per_s", (c1.ns - c0.ns) as f64 / 1e6 / hs);
        r.n("idle_wakeups_per_s", (c1.vcs - c0.vcs) as f64 / hs);
    }
    r.n("closed_by_server", e.closed as f64);
    r.n("failed", e.failed as f64);
    Ok(e.closed > 0)
}

/// Publishes, one message after the other, each once everybody has had the one before.
fn publish_to_all(
    o: &Opts,
    c: &Ctx,
    e: &mut Engine,
    h: &mut Waiting<'_>,
    publisher: usize,
    messages: usize,
    subscribers: usize,
) -> Result<(), String> {
    let path = fill(o.str("pub-path", "/pub/{ch}"), &c.chan(0), 0);
    let (host, extra, body) = (&c.host, &c.extra, msg::filler(o.num("size", 128)));
    let head = format!(
        "{} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        o.str("pub-method", "POST"),
        body.len()
    );
    for _ in 0..messages {
        let (got, published) = (h.got + subscribers, h.published + 1);
        e.queue(publisher, &[head.as_bytes(), &body].concat());
        let end = now() + 30_000_000_000;
        while h.got < got || h.published < published {
            e.turn(20, h);
            if now() > end {
                return Err(format!("of {subscribers}, {} did not get the message", got - h.got));
            }
        }
    }
    Ok(())
}

struct Fan<'a> {
    o: &'a Opts,
    c: &'a Ctx,
    cursor: Cursor,
    hello: Option<String>,
    paths: Vec<String>,
    polls: u64,
    /// Subscribers per channel.
    subs: u32,
    channels: u32,
    size: usize,
    fill: Vec<u8>,
    check: msg::Check,
    lat: Hist,
    lat_last: Hist,
    lat_first: Hist,
    /// How many publishers share a channel. Each has numbers of its own, for the order of messages
    /// is promised for each publisher alone.
    shares: u32,
    /// Per subscriber and share: the last number seen.
    last: Vec<u32>,
    /// Per channel and share: posts sent, and for each its time and how many got it.
    sent: Vec<u32>,
    tpost: Vec<Vec<u64>>,
    count: Vec<Vec<u32>>,
    delivered: u64,
    complete: u64,
    pubs: Vec<usize>,
    pub_down: bool,
    responses: u64,
    bad_status: u64,
    other: u64,
    /// Closed loop: messages in flight allowed in total.
    posted: u64,
    target: u64,
    closed_loop: bool,
    depth: u32,
    next_ch: Vec<u32>,
    tlast: u64,
}

impl Fan<'_> {
    fn post(&mut self, e: &mut Engine, p: usize, ch: u32, t: u64) {
        let i = self.pubs[p];
        let share = p as u32 / self.channels % self.shares;
        let stream = (ch * self.shares + share) as usize;
        self.sent[stream] += 1;
        let seq = share << SHARE_SHIFT | self.sent[stream];
        self.tpost[stream].push(t);
        self.count[stream].push(0);
        let path = fill(self.o.str("pub-path", "/pub/{ch}"), &self.c.chan(ch), 0);
        let (size, host, extra, fill) = (self.size, &self.c.host, &self.c.extra, &self.fill);
        let ct = self.o.str("pub-type", "text/plain");
        let method = self.o.str("pub-method", "POST");
        e.queue_with(i, |b| {
            b.extend_from_slice(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}Content-Type: {ct}\r\nContent-Length: {size}\r\n\r\n").as_bytes());
            b.extend_from_slice(&msg::marker(ch, seq));
            b.extend_from_slice(fill);
        });
        e.conns[i].aux += 1;
        self.posted += 1;
    }

    /// Fill the publisher connections up to their depth, round robin over their channels.
    fn pump(&mut self, e: &mut Engine, p: usize) {
        let i = self.pubs[p];
        while self.posted < self.target && e.conns[i].aux < self.depth && e.conns[i].st == St::Open {
            let np = self.pubs.len() as u32;
            let ch = self.next_ch[p];
            self.next_ch[p] = if ch + np < self.channels { ch + np } else { p as u32 % self.channels };
            let t = now();
            self.post(e, p, ch, t);
        }
    }

    fn got(&mut self, e: &mut Engine, i: usize, m: &[u8]) {
        let (ch, t) = (e.conns[i].ch, e.t);
        let Fan { check, fill, lat, tpost, count, subs, shares, last, .. } = self;
        if last.len() < (i + 1) * *shares as usize {
            last.resize((i + 1) * *shares as usize, 0);
        }
        let (mut seen, mut done, mut firsts) = (0, 0, 0);
        let (mut ll, mut lf) = (0, 0);
        let n = msg::scan(m, fill, |c, seq, ok| {
            if c != ch & 0xffff {
                check.bad += 1;
                return;
            }
            let (share, seq) = (seq >> SHARE_SHIFT, seq & ((1 << SHARE_SHIFT) - 1));
            if share >= *shares || seq == 0 {
                check.bad += 1;
                return;
            }
            check.see(&mut last[i * *shares as usize + share as usize], seq, ok);
            seen += 1;
            let (stream, k) = ((ch * *shares + share) as usize, seq as usize - 1);
            if let Some(tp) = tpost[stream].get(k) {
                lat.add(t.saturating_sub(*tp));
                let cnt = &mut count[stream][k];
                *cnt += 1;
                if *cnt == 1 {
                    firsts += 1;
                    lf = t.saturating_sub(*tp);
                }
                if *cnt == *subs {
                    done += 1;
                    ll = t.saturating_sub(*tp);
                }
            } else {
                check.bad += 1;
            }
        });
        self.delivered += seen;
        if firsts > 0 {
            self.lat_first.add(lf);
        }
        if done > 0 {
            self.lat_last.add(ll);
            self.complete += done;
            self.tlast = t;
        }
        if n == 0 {
            self.other += 1;
        }
        if done > 0 && self.closed_loop {
            self.advance(e);
        }
    }

    /// Closed loop over one channel: next message when all have the previous and the POST is answered.
    fn advance(&mut self, e: &mut Engine) {
        if self.complete == self.posted && self.posted < self.target && e.conns[self.pubs[0]].aux == 0 {
            let t = now();
            for ch in 0..self.channels {
                self.post(e, ch as usize % self.pubs.len(), ch, t);
            }
        }
    }
}

impl Handler for Fan<'_> {
    fn established(&mut self, e: &mut Engine, i: usize) {
        if let (Some(h), Proto::Ws) = (&self.hello, e.conns[i].proto) {
            let h = fill(h, &self.c.chan(e.conns[i].ch), i);
            let mut f = vec![];
            ws::encode(1, h.as_bytes(), [5, 6, 7, 8], &mut f);
            e.queue(i, &f);
        }
    }
    fn message(&mut self, e: &mut Engine, i: usize, m: &[u8]) {
        self.got(e, i, m);
    }
    fn response(&mut self, e: &mut Engine, i: usize, status: u16, head: &[u8], body: &[u8]) {
        if e.conns[i].role == PUB {
            self.responses += 1;
            if !(200..300).contains(&status) {
                self.bad_status += 1;
                e.error(format!("publish status {status}"));
            }
            e.conns[i].aux = e.conns[i].aux.saturating_sub(1);
            if self.closed_loop {
                self.advance(e);
            } else if self.depth > 0 {
                let p = self.pubs.iter().position(|&x| x == i).unwrap_or(0);
                self.pump(e, p);
            }
            return;
        }
        // a poller's answer: check, then poll again at once
        if !(200..300).contains(&status) && !matches!(status, 304 | 408) {
            self.bad_status += 1;
            e.error(format!("poll status {status}"));
        }
        let mut vars = std::mem::take(&mut e.conns[i].vars);
        self.cursor.take(head, body, &mut vars);
        let ch = e.conns[i].ch as usize;
        e.queue_with(i, |b| self.cursor.request(&self.paths[ch], &self.c.host, &self.c.extra, &vars, b));
        e.conns[i].vars = vars;
        self.polls += 1;
        if !body.is_empty() {
            self.got(e, i, body);
        }
    }
    fn closed(&mut self, e: &mut Engine, i: usize) {
        if e.conns[i].role == PUB {
            self.pub_down = true;
        }
    }
}

fn fanout(o: &Opts, c: &Ctx, e: &mut Engine, r: &mut Report) -> Result<bool, String> {
    let pubrate = o.mode == "pubrate";
    let transport = o.str("transport", if o.mode == "longpoll" { "longpoll" } else { "sse" }).to_string();
    let channels: u32 = o.num("channels", if pubrate { 1000 } else { 1 });
    let n: u32 = if pubrate { channels * o.num::<u32>("subs", 5) } else { o.num("n", 1000) };
    let subs = n / channels;
    if subs == 0 || subs * channels != n {
        return Err("the number of subscribers must be a multiple of --channels".into());
    }
    let m: u64 = o.num("messages", if pubrate { 20000 } else { 100 });
    let warm: u64 = o.num("warmup", if pubrate { channels as u64 } else { 3 });
    let size: usize = o.num("size", 128);
    if size < msg::MIN {
        return Err(format!("--size must be at least {}", msg::MIN));
    }
    let rate: f64 = o.num("rate", 0.0);
    let npub: u32 = if pubrate { o.num("publishers", 4) } else { 1 };
    let shares = npub.div_ceil(channels);
    let timeout: f64 = o.num("timeout", 60.0);
    let mut f = Fan {
        o,
        c,
        cursor: Cursor::new(o)?,
        hello: o.get("ws-hello").map(String::from),
        paths: (0..channels).map(|k| fill(o.str("sub-path", o.str("lp-path", "/lp/{ch}")), &c.chan(k), 0)).collect(),
        polls: 0,
        subs,
        channels,
        size,
        fill: msg::filler(size - msg::MIN),
        check: Default::default(),
        lat: Hist::default(),
        lat_last: Hist::default(),
        lat_first: Hist::default(),
        shares,
        last: vec![],
        sent: vec![0; (channels * shares) as usize],
        tpost: vec![vec![]; (channels * shares) as usize],
        count: vec![vec![]; (channels * shares) as usize],
        delivered: 0,
        complete: 0,
        pubs: vec![],
        pub_down: false,
        responses: 0,
        bad_status: 0,
        other: 0,
        posted: 0,
        target: 0,
        closed_loop: !pubrate && rate == 0.0,
        depth: 0,
        next_ch: (0..npub).map(|p| p % channels).collect(),
        tlast: 0,
    };
    for i in 0..n {
        e.to_open.push_back(c.sub_spec(o, &transport, i % channels, i as usize)?);
    }
    let t = now();
    if !e.open_all(&mut f, timeout) || e.failed > 0 {
        return Err(format!("subscribers failed: {} ({})", e.failed, e.errors.join(" | ")));
    }
    let open_s = (now() - t) as f64 / 1e9;
    for p in 0..npub {
        let mut s = c.spec(Proto::Http, PUB, p, vec![]);
        s.addr = c.pub_addr;
        s.ready_on_connect = true;
        e.to_open.push_back(s);
    }
    e.open_all(&mut f, timeout);
    // publishers sit in the last slots
    f.pubs = e.conns.iter().enumerate().filter(|(_, c)| c.role == PUB).map(|(i, _)| i).collect();
    for &i in &f.pubs {
        e.conns[i].aux = 0;
    }
    e.idle(&mut f, o.num("settle", 1.0));
    if e.closed > 0 || f.pub_down {
        return Err(format!("connections closed before the run: {} ({})", e.closed, e.errors.join(" | ")));
    }

    let phase = |f: &mut Fan, e: &mut Engine, count: u64, rate: f64| {
        let start = now();
        f.target = f.posted + count;
        let base = f.posted;
        let end = start + (timeout * 1e9) as u64;
        if rate == 0.0 {
            if f.closed_loop {
                f.advance(e);
            } else {
                f.depth = o.num("depth", 8);
                for p in 0..f.pubs.len() {
                    f.pump(e, p);
                }
            }
        }
        let gap = if rate > 0.0 { (1e9 / rate) as u64 } else { 0 };
        if gap > 0 {
            f.depth = 0; // answers must not trigger posts: only the schedule does
        }
        while f.complete < f.target && !f.pub_down {
            let t = now();
            if t > end {
                break;
            }
            let mut wait = 20;
            if gap > 0 {
                while f.posted < f.target {
                    let due = start + (f.posted - base) * gap;
                    if now() < due {
                        wait = ((due - now()) / 1_000_000).min(20) as i32;
                        break;
                    }
                    // timed from when it was due: a slow server does not slow the schedule
                    let ch = (f.posted % f.channels as u64) as u32;
                    let p = ch as usize % f.pubs.len();
                    f.post(e, p, ch, due);
                }
            }
            e.turn(wait, f);
        }
        start
    };
    phase(&mut f, e, warm.div_ceil(channels as u64) * channels as u64, 0.0);
    // in closed loop the last POST may still be unanswered
    e.idle(&mut f, 0.05);
    f.lat = Hist::default();
    f.lat_last = Hist::default();
    f.lat_first = Hist::default();
    let (d0, p0, polls0, reads0, bytes0) = (f.delivered, f.posted, f.polls, e.reads, e.bytes_in);
    let cpu0 = procstat::cpu(&c.pids);
    let own0 = procstat::cpu(&[std::process::id()]);
    let start = phase(&mut f, e, m, rate);
    let cpu1 = procstat::cpu(&c.pids);
    let own1 = procstat::cpu(&[std::process::id()]);
    let dt = (f.tlast.max(start + 1) - start) as f64 / 1e9;
    // anything late or doubled shows here
    e.idle(&mut f, o.num("drain", 0.3));
    let deliveries = (f.delivered - d0) as f64;
    let expected = (f.posted) * subs as u64;
    r.s("transport", transport);
    r.n("subscribers", n as f64);
    r.n("channels", channels as f64);
    r.n("size", size as f64);
    r.n("messages", (f.posted - p0) as f64);
    r.n("open_s", open_s);
    r.n("run_s", dt);
    r.n("deliveries", deliveries);
    r.n("deliveries_per_s", deliveries / dt);
    r.n("publishes_per_s", (f.posted - p0) as f64 / dt);
    cpu_report(r, cpu0, cpu1, deliveries, "delivery");
    r.n("client_cpu_us_per_delivery", (own1.ns - own0.ns) as f64 / 1e3 / deliveries);
    // The publisher's answers among them.
    r.n("bytes_per_delivery", (e.bytes_in - bytes0) as f64 / deliveries);
    r.n("reads_per_delivery", (e.reads - reads0) as f64 / deliveries);
    if f.polls > polls0 {
        r.n("polls", (f.polls - polls0) as f64);
    }
    for (k, h) in [("first", &f.lat_first), ("each", &f.lat), ("last", &f.lat_last)] {
        for (q, s) in [(0.5, "p50"), (0.99, "p99"), (1.0, "max")] {
            r.n(&format!("{k}_{s}_us"), h.q(q) as f64 / 1e3);
        }
    }
    r.n("lost", expected as f64 - f.check.ok as f64);
    r.n("gaps", f.check.gaps as f64);
    r.n("dups_or_reordered", f.check.dups as f64);
    r.n("damaged", f.check.bad as f64);
    r.n("unrecognised", f.other as f64);
    r.n("bad_status", f.bad_status as f64);
    r.n("closed_by_server", e.closed as f64);
    Ok(expected != f.check.ok || f.check.gaps + f.check.dups + f.check.bad + f.bad_status + e.closed > 0)
}

struct Echo<'a> {
    o: &'a Opts,
    depth: u32,
    size: usize,
    frame: Vec<u8>,
    at: usize,
    mask: [u8; 4],
    fill: Vec<u8>,
    verify: bool,
    heads: Vec<[u8; 16]>,
    n: u64,
    bad: u64,
    go: bool,
    lat: Hist,
    times: Vec<std::collections::VecDeque<u64>>,
}

impl Echo<'_> {
    fn send(&mut self, e: &mut Engine, i: usize) {
        let c = &mut e.conns[i];
        c.aux += 1;
        let m = msg::marker(i as u32, c.aux);
        for (k, b) in m.iter().enumerate() {
            self.frame[self.at + k] = b ^ self.mask[k & 3];
        }
        if self.times.len() <= i {
            self.times.resize(i + 1, Default::default());
        }
        self.times[i].push_back(e.t);
        e.queue(i, &self.frame);
    }
}

impl Handler for Echo<'_> {
    fn ws_part(&mut self, e: &mut Engine, i: usize, p: &ws::Part) {
        if self.heads.len() <= i {
            self.heads.resize(i + 1, [0; 16]);
        }
        // fragments of an echo would need more state than is worth it
        if p.frame_len as usize != self.size || !p.fin {
            self.bad += 1;
        } else {
            let off = p.off as usize;
            if off < 16 {
                let k = p.data.len().min(16 - off);
                self.heads[i][off..off + k].copy_from_slice(&p.data[..k]);
            }
            if self.verify && off + p.data.len() > 16 {
                let from = off.max(16);
                let d = &p.data[from - off..];
                if self.fill[from - 16..from - 16 + d.len()] != *d {
                    self.bad += 1;
                }
            }
        }
        if p.last {
            e.conns[i].last += 1;
            if msg::parse(&self.heads[i]) != Some((i as u32 & 0xffff, e.conns[i].last)) {
                self.bad += 1;
            }
            if let Some(t) = self.times[i].pop_front() {
                self.lat.add(e.t.saturating_sub(t));
            }
            self.n += 1;
            if self.go {
                self.send(e, i);
            }
        }
    }
    fn closed(&mut self, _e: &mut Engine, _i: usize) {
        self.bad += 1;
    }
}

fn echo(o: &Opts, c: &Ctx, e: &mut Engine, r: &mut Report) -> Result<bool, String> {
    let sizes: Vec<usize> = o.list("sizes", o.str("size", "16,128,1024,16384,1048576"));
    let conns: u32 = o.num("c", 16);
    let secs: f64 = o.num("secs", 3.0);
    let depth0: u32 = o.num("depth", 8);
    let mut list = vec![];
    let mut any_bad = false;
    for size in sizes {
        if size < msg::MIN {
            return Err(format!("sizes must be at least {}", msg::MIN));
        }
        // keep what is in flight within reason
        let depth = depth0.min((o.num("inflight-bytes", 8usize << 20) / size / conns as usize).max(1) as u32);
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let fill = msg::filler(size - 16);
        let mut payload = msg::marker(0, 0).to_vec();
        payload.extend_from_slice(&fill);
        let mut frame = vec![];
        ws::encode(if o.flag("binary") { 2 } else { 1 }, &payload, mask, &mut frame);
        let at = frame.len() - size;
        let base = e.conns.len();
        let mut h = Echo {
            o,
            depth,
            size,
            frame,
            at,
            mask,
            fill,
            verify: o.flag("verify-body"),
            heads: vec![],
            n: 0,
            bad: 0,
            go: true,
            lat: Hist::default(),
            times: vec![],
        };
        for i in 0..conns {
            let mut s = c.spec(Proto::Ws, SUB, 0, c.ws(&opts::fill(h.o.str("echo-path", "/echo"), "echo", i as usize)));
            s.stream = true;
            e.to_open.push_back(s);
        }
        if !e.open_all(&mut h, 30.0) || e.failed > 0 {
            return Err(format!("echo connections failed: {}", e.errors.join(" | ")));
        }
        e.t = now();
        let idx: Vec<usize> = (base..e.conns.len()).collect();
        for &i in &idx {
            e.conns[i].aux = 0;
            for _ in 0..h.depth {
                h.send(e, i);
            }
        }
        let run = |e: &mut Engine, h: &mut Echo, s: f64| {
            let end = now() + (s * 1e9) as u64;
            while now() < end {
                e.turn(5, h);
            }
        };
        run(e, &mut h, o.num("warmup-secs", 0.3));
        h.lat = Hist::default();
        let (n0, t0, c0) = (h.n, now(), procstat::cpu(&c.pids));
        let own0 = procstat::cpu(&[std::process::id()]);
        run(e, &mut h, secs);
        let (n1, t1, c1) = (h.n, now(), procstat::cpu(&c.pids));
        let own1 = procstat::cpu(&[std::process::id()]);
        h.go = false;
        let end = now() + 3_000_000_000;
        let want: u64 = idx.iter().map(|&i| e.conns[i].aux as u64).sum();
        while h.n < want && now() < end {
            e.turn(20, &mut h);
        }
        let mut s = Report::default();
        let n = (n1 - n0) as f64;
        s.n("size", size as f64);
        s.n("connections", conns as f64);
        s.n("depth", depth as f64);
        s.n("echoes_per_s", n / ((t1 - t0) as f64 / 1e9));
        s.n("mib_per_s", n * size as f64 / ((t1 - t0) as f64 / 1e9) / 1048576.0);
        cpu_report(&mut s, c0, c1, n, "echo");
        s.n("client_cpu_us_per_echo", (own1.ns - own0.ns) as f64 / 1e3 / n);
        s.n("p50_us", h.lat.q(0.5) as f64 / 1e3);
        s.n("p99_us", h.lat.q(0.99) as f64 / 1e3);
        s.n("missing", want as f64 - h.n as f64);
        s.n("bad", h.bad as f64);
        any_bad |= h.bad > 0 || want != h.n;
        list.push(s);
        for i in idx {
            e.close(i);
        }
    }
    r.0.push(("echo".into(), V::L(list)));
    Ok(any_bad)
}

struct Churn<'a> {
    o: &'a Opts,
    c: &'a Ctx,
    transport: String,
    n: u64,
    go: bool,
    k: usize,
    failed: u64,
}

impl Churn<'_> {
    fn again(&mut self, e: &mut Engine, i: usize) {
        e.close(i);
        e.recycle(i);
        self.n += 1;
        self.more(e);
    }
    fn more(&mut self, e: &mut Engine) {
        if self.go {
            self.k += 1;
            if let Ok(s) = self.c.sub_spec(self.o, &self.transport, 0, self.k) {
                e.to_open.push_back(s);
            }
        }
    }
}

impl Handler for Churn<'_> {
    fn established(&mut self, e: &mut Engine, i: usize) {
        if e.conns[i].proto != Proto::Http {
            self.again(e, i);
        }
    }
    fn response(&mut self, e: &mut Engine, i: usize, _s: u16, _h: &[u8], _b: &[u8]) {
        self.again(e, i);
    }
    fn closed(&mut self, e: &mut Engine, i: usize) {
        self.failed += 1;
        e.recycle(i);
        self.more(e);
    }
}

/// Connect, handshake, close, as fast as `--c` at a time allow.
fn churn(o: &Opts, c: &Ctx, e: &mut Engine, r: &mut Report) -> Result<bool, String> {
    let secs: f64 = o.num("secs", 5.0);
    let conc: usize = o.num("c", 64);
    e.max_opening = conc;
    let mut h = Churn { o, c, transport: o.str("transport", "ws").to_string(), n: 0, go: true, k: 0, failed: 0 };
    for _ in 0..conc {
        h.more(e);
    }
    let (t0, c0) = (now(), procstat::cpu(&c.pids));
    let end = t0 + (secs * 1e9) as u64;
    while now() < end {
        e.turn(5, &mut h);
    }
    let (n, t1, c1) = (h.n as f64, now(), procstat::cpu(&c.pids));
    h.go = false;
    r.s("transport", h.transport.clone());
    r.n("connects", n);
    r.n("connects_per_s", n / ((t1 - t0) as f64 / 1e9));
    cpu_report(r, c0, c1, n, "connect");
    r.n("failed", h.failed as f64);
    Ok(h.failed > 0)
}

struct Reqs {
    req: Vec<u8>,
    n: u64,
    bad: u64,
    lat: Hist,
    one: bool,
}

impl Handler for Reqs {
    fn response(&mut self, e: &mut Engine, i: usize, status: u16, _h: &[u8], _b: &[u8]) {
        self.n += 1;
        if status != 200 {
            self.bad += 1;
        }
        let t = e.t;
        if self.one && e.conns[i].t > 0 {
            self.lat.add(t - e.conns[i].t);
        }
        e.conns[i].t = t;
        e.queue(i, &self.req);
    }
}

fn reqs(o: &Opts, c: &Ctx, e: &mut Engine, r: &mut Report) -> Result<bool, String> {
    let (conns, depth, secs): (u32, usize, f64) = (o.num("c", 64), o.num("depth", 1), o.num("secs", 3.0));
    let mut h = Reqs {
        req: c.get(&fill(o.str("get-path", "/"), &c.chan(0), 0), ""),
        n: 0,
        bad: 0,
        lat: Hist::default(),
        one: depth == 1,
    };
    for _ in 0..conns {
        e.to_open.push_back(c.spec(Proto::Http, SUB, 0, h.req.repeat(depth)));
    }
    if !e.open_all(&mut h, 30.0) || e.failed > 0 {
        return Err(format!("connections failed: {}", e.errors.join(" | ")));
    }
    e.idle(&mut h, 0.3);
    h.lat = Hist::default();
    let (n0, t0, c0) = (h.n, now(), procstat::cpu(&c.pids));
    let own0 = procstat::cpu(&[std::process::id()]);
    let end = t0 + (secs * 1e9) as u64;
    while now() < end {
        e.turn(5, &mut h);
    }
    let (n, t1, c1) = ((h.n - n0) as f64, now(), procstat::cpu(&c.pids));
    let own1 = procstat::cpu(&[std::process::id()]);
    r.n("connections", conns as f64);
    r.n("depth", depth as f64);
    r.n("requests_per_s", n / ((t1 - t0) as f64 / 1e9));
    cpu_report(r, c0, c1, n, "request");
    r.n("client_cpu_us_per_request", (own1.ns - own0.ns) as f64 / 1e3 / n);
    if h.one {
        r.n("p50_us", h.lat.q(0.5) as f64 / 1e3);
        r.n("p99_us", h.lat.q(0.99) as f64 / 1e3);
    }
    r.n("bad_status", h.bad as f64);
    r.n("closed_by_server", e.closed as f64);
    Ok(h.bad > 0 || e.closed > 0)
}
