//! `--key value` options, presets, templates of what pollers send, and the report.
use std::collections::BTreeMap;

pub struct Opts {
    pub mode: String,
    m: BTreeMap<String, Vec<String>>,
    used: std::cell::RefCell<std::collections::BTreeSet<String>>,
}

const FLAGS: &[&str] = &["json", "rst", "spin", "verify-body", "binary"];

/// Options a preset puts in where the command line has none.
fn preset(name: &str) -> Option<&'static [(&'static str, &'static str)]> {
    Some(match name {
        "plain" => &[
            ("pub-path", "/pub/{ch}"),
            ("sse-path", "/sse/{ch}"),
            ("ws-path", "/ws/{ch}"),
            ("lp-path", "/lp/{ch}"),
            ("echo-path", "/echo"),
            ("get-path", "/"),
        ],
        "nchan" => &[
            ("pub-path", "/pub/{ch}"),
            ("sse-path", "/sse/{ch}"),
            ("ws-path", "/ws/{ch}"),
            ("lp-path", "/lp/{ch}"),
            ("get-path", "/"),
            ("capture", "lm=header:Last-Modified"),
            ("capture", "et=header:Etag"),
            ("poll-header", "If-Modified-Since: {lm}"),
            ("poll-header", "If-None-Match: {et}"),
        ],
        "etag" => &[
            ("lp-path", "/lp/{ch}"),
            ("pub-path", "/pub/{ch}"),
            ("capture", "et=header:Etag"),
            ("poll-header", "If-None-Match: {et}"),
        ],
        _ => return None,
    })
}

impl Opts {
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Opts, String> {
        let mut it = args;
        let mode = it.next().ok_or("no mode given")?;
        let mut m: BTreeMap<String, Vec<String>> = BTreeMap::new();
        while let Some(a) = it.next() {
            let k = a.strip_prefix("--").ok_or(format!("unexpected argument {a}"))?;
            let (k, v) = match k.split_once('=') {
                Some((k, v)) => (k.to_string(), v.to_string()),
                None if FLAGS.contains(&k) => (k.to_string(), "1".into()),
                None => (k.to_string(), it.next().ok_or(format!("--{k} needs a value"))?),
            };
            m.entry(k).or_default().push(v);
        }
        let name = m.get("preset").map(|v| v[0].clone()).unwrap_or("plain".into());
        let p = preset(&name).ok_or(format!("no preset {name}"))?;
        let given: Vec<String> = m.keys().cloned().collect();
        for (k, v) in p {
            if !given.iter().any(|g| g == k) {
                m.entry(k.to_string()).or_default().push(v.to_string());
            }
        }
        let used = std::cell::RefCell::new(["preset".to_string()].into());
        Ok(Opts { mode, m, used })
    }
    pub fn all(&self, k: &str) -> &[String] {
        self.used.borrow_mut().insert(k.to_string());
        self.m.get(k).map(|v| &v[..]).unwrap_or(&[])
    }
    pub fn get(&self, k: &str) -> Option<&str> {
        self.all(k).last().map(|s| s.as_str())
    }
    pub fn str<'a>(&'a self, k: &str, d: &'a str) -> &'a str {
        self.get(k).unwrap_or(d)
    }
    pub fn flag(&self, k: &str) -> bool {
        self.get(k).is_some()
    }
    pub fn num<T: std::str::FromStr>(&self, k: &str, d: T) -> T {
        match self.get(k) {
            None => d,
            Some(s) => s.parse().unwrap_or_else(|_| {
                eprintln!("--{k}: bad value {s}");
                std::process::exit(2)
            }),
        }
    }
    pub fn list<T: std::str::FromStr>(&self, k: &str, d: &str) -> Vec<T> {
        self.str(k, d).split(',').filter_map(|s| s.trim().parse().ok()).collect()
    }
    /// Options nobody asked for; presets may set more than a mode needs.
    pub fn unknown(&self) -> Vec<String> {
        const KNOWN: &[&str] = &[
            "pub-path",
            "sse-path",
            "ws-path",
            "lp-path",
            "echo-path",
            "get-path",
            "capture",
            "poll-header",
            "poll-query",
        ];
        let u = self.used.borrow();
        self.m.keys().filter(|k| !u.contains(*k) && !KNOWN.contains(&k.as_str())).cloned().collect()
    }
}

pub fn addr(s: &str) -> Result<libc::sockaddr_in, String> {
    let a: std::net::SocketAddrV4 = s.parse().map_err(|_| format!("bad address {s} (want IPv4:PORT)"))?;
    // SAFETY: all-zero is a valid sockaddr_in.
    let mut sa: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    sa.sin_family = libc::AF_INET as _;
    sa.sin_port = a.port().to_be();
    sa.sin_addr.s_addr = u32::from_ne_bytes(a.ip().octets());
    Ok(sa)
}

pub fn fill(t: &str, ch: &str, i: usize) -> String {
    t.replace("{ch}", ch).replace("{i}", &i.to_string())
}

pub enum Src {
    Header(String),
    Body(Vec<u8>),
}

/// How a poller's cursor travels: captured from responses, put into the next request.
#[derive(Default)]
pub struct Cursor {
    pub names: Vec<String>,
    pub srcs: Vec<Src>,
    pub headers: Vec<String>,
    pub query: Option<String>,
}

impl Cursor {
    pub fn new(o: &Opts) -> Result<Cursor, String> {
        let mut c = Cursor::default();
        for s in o.all("capture") {
            let (n, r) = s.split_once('=').ok_or("capture wants NAME=header:H or NAME=body:PREFIX")?;
            let src = match r.split_once(':') {
                Some(("header", h)) => Src::Header(h.to_string()),
                Some(("body", p)) => Src::Body(p.as_bytes().to_vec()),
                _ => return Err(format!("bad capture {s}")),
            };
            c.names.push(n.to_string());
            c.srcs.push(src);
        }
        c.headers = o.all("poll-header").to_vec();
        c.query = o.get("poll-query").map(String::from);
        Ok(c)
    }

    /// Update `vars` from one response.
    pub fn take(&self, head: &[u8], body: &[u8], vars: &mut Vec<Vec<u8>>) {
        vars.resize(self.names.len(), vec![]);
        for (s, v) in self.srcs.iter().zip(vars) {
            let x = match s {
                Src::Header(h) => crate::http::header(head, h),
                Src::Body(p) => {
                    let (mut at, mut last) = (0, None);
                    while let Some(i) = crate::http::find(&body[at..], p) {
                        at += i + p.len();
                        last = Some(at);
                    }
                    last.map(|a| {
                        let r = &body[a..];
                        &r[..r
                            .iter()
                            .position(|c| !(c.is_ascii_alphanumeric() || b"_.:-".contains(c)))
                            .unwrap_or(r.len())]
                    })
                }
            };
            if let Some(x) = x {
                v.clear();
                v.extend_from_slice(x);
            }
        }
    }

    fn subst(&self, t: &str, vars: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
        let at = out.len();
        let mut r = t;
        while let Some(i) = r.find('{') {
            out.extend_from_slice(&r.as_bytes()[..i]);
            let Some(e) = r[i..].find('}') else { break };
            let name = &r[i + 1..i + e];
            match self.names.iter().position(|n| n == name).and_then(|k| vars.get(k)) {
                Some(v) if !v.is_empty() => out.extend_from_slice(v),
                _ => {
                    out.truncate(at);
                    return false;
                }
            }
            r = &r[i + e + 1..];
        }
        out.extend_from_slice(r.as_bytes());
        true
    }

    /// Append the next poll: templates whose variables are not known yet are left out.
    pub fn request(&self, path: &str, host: &str, extra: &str, vars: &[Vec<u8>], out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(path.as_bytes());
        if let Some(q) = &self.query {
            self.subst(q, vars, out);
        }
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(host.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(extra.as_bytes());
        for h in &self.headers {
            if self.subst(h, vars, out) {
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[derive(Clone)]
pub enum V {
    N(f64),
    S(String),
    L(Vec<Report>),
}

#[derive(Clone, Default)]
pub struct Report(pub Vec<(String, V)>);

impl Report {
    pub fn n(&mut self, k: &str, v: f64) {
        self.0.push((k.into(), V::N(v)));
    }
    pub fn s(&mut self, k: &str, v: impl Into<String>) {
        self.0.push((k.into(), V::S(v.into())));
    }
    pub fn get(&self, k: &str) -> f64 {
        self.0.iter().find(|(n, _)| n == k).map_or(f64::NAN, |(_, v)| if let V::N(x) = v { *x } else { f64::NAN })
    }
    pub fn json(&self) -> String {
        let f: Vec<String> = self
            .0
            .iter()
            .map(|(k, v)| {
                format!(
                    "{}:{}",
                    quote(k),
                    match v {
                        V::N(x) => num(*x, true),
                        V::S(s) => quote(s),
                        V::L(l) => format!("[{}]", l.iter().map(Report::json).collect::<Vec<_>>().join(",")),
                    }
                )
            })
            .collect();
        format!("{{{}}}", f.join(","))
    }
    pub fn text(&self, ind: usize) -> String {
        let mut s = String::new();
        for (k, v) in &self.0 {
            let p = " ".repeat(ind);
            match v {
                V::N(x) => s += &format!("{p}{k:<24} {}\n", num(*x, false)),
                V::S(x) => s += &format!("{p}{k:<24} {x}\n"),
                V::L(l) => {
                    for r in l {
                        s += &format!("{p}{k}\n{}", r.text(ind + 2));
                    }
                }
            }
        }
        s
    }
}

fn num(x: f64, json: bool) -> String {
    if !x.is_finite() {
        if json { "null".into() } else { "-".into() }
    } else if x == x.trunc() && x.abs() < 1e15 {
        format!("{}", x as i64)
    } else if x.abs() >= 100.0 {
        format!("{x:.1}")
    } else {
        format!("{x:.4}")
    }
}

fn quote(s: &str) -> String {
    let mut o = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => o += "\\\"",
            '\\' => o += "\\\\",
            c if (c as u32) < 32 => o += &format!("\\u{:04x}", c as u32),
            c => o.push(c),
        }
    }
    o + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opts(s: &str) -> Opts {
        Opts::parse(s.split(' ').map(String::from)).unwrap()
    }

    #[test]
    fn presets_yield_to_the_command_line() {
        let o = opts("fanout --preset nchan --ws-path /w/{ch} --json --n=5");
        assert_eq!(o.get("ws-path"), Some("/w/{ch}"));
        assert_eq!(o.all("capture").len(), 2);
        assert!(o.flag("json"));
        assert_eq!(o.num("n", 0usize), 5);
        assert_eq!(opts("x --bogus 1").unknown(), ["bogus"]);
        assert!(Opts::parse(["x", "--n"].into_iter().map(String::from)).is_err());
    }

    #[test]
    fn cursor_from_headers_and_body() {
        let o = opts("longpoll --preset nchan");
        let c = Cursor::new(&o).unwrap();
        let mut vars = vec![];
        let mut r = vec![];
        c.request("/lp/a", "load.test", "", &vars, &mut r);
        assert_eq!(r, b"GET /lp/a HTTP/1.1\r\nHost: load.test\r\n\r\n");
        c.take(b"HTTP/1.1 200 OK\r\nLast-Modified: Sun\r\nEtag: 4\r\n\r\n", b"", &mut vars);
        r.clear();
        c.request("/lp/a", "load.test", "X: y\r\n", &vars, &mut r);
        assert_eq!(
            r,
            b"GET /lp/a HTTP/1.1\r\nHost: load.test\r\nX: y\r\nIf-Modified-Since: Sun\r\nIf-None-Match: 4\r\n\r\n"
        );
        let c = Cursor {
            names: vec!["id".into()],
            srcs: vec![Src::Body(b"\"id\":".to_vec())],
            headers: vec![],
            query: Some("?after={id}".into()),
        };
        c.take(b"", b"[{\"id\":4},{\"id\":17}]", &mut vars);
        r.clear();
        c.request("/p", "load.test", "", &vars, &mut r);
        assert!(r.starts_with(b"GET /p?after=17 HTTP/1.1\r\n"));
    }

    #[test]
    fn json_report() {
        let mut r = Report::default();
        r.n("a", 1.5);
        r.s("b", "x\"\n");
        r.n("c", f64::NAN);
        r.0.push(("l".into(), V::L(vec![Report(vec![("d".into(), V::N(2.0))])])));
        assert_eq!(r.json(), "{\"a\":1.5000,\"b\":\"x\\\"\\u000a\",\"c\":null,\"l\":[{\"d\":2}]}");
    }

    #[test]
    fn addresses() {
        assert_eq!(addr("127.0.0.1:80").unwrap().sin_port, 80u16.to_be());
        assert!(addr("localhost:80").is_err());
    }
}
