//! Incremental HTTP/1.1 response decoder (pull style, zero copy for bodies).

#[derive(Debug, PartialEq, Clone, Copy, Default)]
enum St {
    #[default]
    Head,
    Fixed(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    UntilClose,
    EndPending,
    Upgraded,
}

#[derive(Debug, PartialEq)]
pub enum Ev<'a> {
    /// Status line and headers are complete; the raw bytes are in `Decoder::head`.
    Head(u16),
    Body(&'a [u8]),
    End,
}

#[derive(Debug, Default)]
pub struct Decoder {
    st: St,
    pub head: Vec<u8>,
    line: Vec<u8>,
}

pub fn find(h: &[u8], n: &[u8]) -> Option<usize> {
    if n.is_empty() || h.len() < n.len() {
        return None;
    }
    // SAFETY: both ranges are valid slices.
    let p = unsafe { libc::memmem(h.as_ptr().cast(), h.len(), n.as_ptr().cast(), n.len()) };
    (!p.is_null()).then(|| p as usize - h.as_ptr() as usize)
}

pub fn memchr(c: u8, h: &[u8]) -> Option<usize> {
    if h.is_empty() {
        return None;
    }
    // SAFETY: `h` is a valid slice.
    let p = unsafe { libc::memchr(h.as_ptr().cast(), c as i32, h.len()) };
    (!p.is_null()).then(|| p as usize - h.as_ptr() as usize)
}

/// Value of the first header called `name` (ASCII case ignored) in a raw head.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    for l in head.split(|&b| b == b'\n').skip(1) {
        let Some(c) = memchr(b':', l) else { continue };
        if l[..c].eq_ignore_ascii_case(name.as_bytes()) {
            return Some(l[c + 1..].trim_ascii());
        }
    }
    None
}

impl Decoder {
    pub fn upgraded(&self) -> bool {
        self.st == St::Upgraded
    }

    /// True while a response is unfinished in a way that end of stream would break.
    pub fn mid_message(&self) -> bool {
        !(matches!(self.st, St::UntilClose | St::Upgraded) || self.st == St::Head && self.line.is_empty())
    }

    /// The next event, taking bytes off the front of `b`; `None` when more input is needed.
    pub fn next<'a>(&mut self, b: &mut &'a [u8]) -> Result<Option<Ev<'a>>, String> {
        loop {
            match self.st {
                St::Head => {
                    if b.is_empty() {
                        return Ok(None);
                    }
                    // `line` holds an unfinished head
                    let old = self.line.len();
                    let used;
                    if old == 0 {
                        match find(b, b"\r\n\r\n") {
                            Some(i) => {
                                self.head.clear();
                                self.head.extend_from_slice(&b[..i + 4]);
                                used = i + 4;
                            }
                            None => {
                                self.line.extend_from_slice(b);
                                *b = &[];
                                return Ok(None);
                            }
                        }
                    } else {
                        self.line.extend_from_slice(b);
                        match find(&self.line[old.saturating_sub(3)..], b"\r\n\r\n") {
                            Some(i) => {
                                let end = old.saturating_sub(3) + i + 4;
                                used = end - old;
                                self.line.truncate(end);
                                std::mem::swap(&mut self.head, &mut self.line);
                                self.line.clear();
                            }
                            None => {
                                *b = &[];
                                if self.line.len() > 1 << 16 {
                                    return Err("response head too long".into());
                                }
                                return Ok(None);
                            }
                        }
                    }
                    *b = &b[used..];
                    let h = &self.head;
                    if h.len() < 12 || !h.starts_with(b"HTTP/1.") {
                        return Err(format!("bad status line: {:?}", String::from_utf8_lossy(&h[..h.len().min(40)])));
                    }
                    let status: u16 =
                        std::str::from_utf8(&h[9..12]).ok().and_then(|s| s.parse().ok()).ok_or("bad status")?;
                    self.st = match status {
                        101 => St::Upgraded,
                        100..=199 => continue,
                        204 | 304 => St::EndPending,
                        _ => {
                            if header(h, "transfer-encoding")
                                .is_some_and(|v| v.to_ascii_lowercase().ends_with(b"chunked"))
                            {
                                St::ChunkSize
                            } else if let Some(v) = header(h, "content-length") {
                                match std::str::from_utf8(v)
                                    .ok()
                                    .and_then(|s| s.parse().ok())
                                    .ok_or("bad content-length")?
                                {
                                    0 => St::EndPending,
                                    n => St::Fixed(n),
                                }
                            } else {
                                St::UntilClose
                            }
                        }
                    };
                    return Ok(Some(Ev::Head(status)));
                }
                St::EndPending => {
                    self.st = St::Head;
                    return Ok(Some(Ev::End));
                }
                St::Fixed(n) => {
                    if b.is_empty() {
                        return Ok(None);
                    }
                    let k = (n.min(b.len() as u64)) as usize;
                    let (d, r) = b.split_at(k);
                    *b = r;
                    self.st = if n == k as u64 { St::EndPending } else { St::Fixed(n - k as u64) };
                    return Ok(Some(Ev::Body(d)));
                }
                St::UntilClose => {
                    if b.is_empty() {
                        return Ok(None);
                    }
                    let d = *b;
                    *b = &[];
                    return Ok(Some(Ev::Body(d)));
                }
                St::ChunkData(n) => {
                    if b.is_empty() {
                        return Ok(None);
                    }
                    let k = (n.min(b.len() as u64)) as usize;
                    let (d, r) = b.split_at(k);
                    *b = r;
                    self.st = if n == k as u64 { St::ChunkEnd } else { St::ChunkData(n - k as u64) };
                    return Ok(Some(Ev::Body(d)));
                }
                St::ChunkSize | St::ChunkEnd | St::Trailer => {
                    let Some(i) = memchr(b'\n', b) else {
                        self.line.extend_from_slice(b);
                        *b = &[];
                        if self.line.len() > 4096 {
                            return Err("chunk line too long".into());
                        }
                        return Ok(None);
                    };
                    self.line.extend_from_slice(&b[..i]);
                    *b = &b[i + 1..];
                    if self.line.last() != Some(&b'\r') {
                        return Err("chunk line without CR".into());
                    }
                    self.line.pop();
                    match self.st {
                        St::ChunkEnd => {
                            if !self.line.is_empty() {
                                return Err("bytes after chunk data".into());
                            }
                            self.st = St::ChunkSize;
                        }
                        St::Trailer => {
                            if self.line.is_empty() {
                                self.st = St::EndPending;
                            }
                        }
                        _ => {
                            let s = self.line.split(|&c| c == b';').next().unwrap_or(b"").trim_ascii();
                            let n = std::str::from_utf8(s)
                                .ok()
                                .and_then(|s| u64::from_str_radix(s, 16).ok())
                                .ok_or("bad chunk size")?;
                            self.st = if n == 0 { St::Trailer } else { St::ChunkData(n) };
                        }
                    }
                    self.line.clear();
                }
                St::Upgraded => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feed `input` cut in pieces of `step`; heads as status, bodies joined.
    fn run(input: &[u8], step: usize) -> Result<Vec<(u16, Vec<u8>, bool)>, String> {
        let mut d = Decoder::default();
        let mut out: Vec<(u16, Vec<u8>, bool)> = vec![];
        for c in input.chunks(step) {
            let mut b = c;
            while let Some(e) = d.next(&mut b)? {
                match e {
                    Ev::Head(s) => out.push((s, vec![], false)),
                    Ev::Body(x) => out.last_mut().unwrap().1.extend_from_slice(x),
                    Ev::End => out.last_mut().unwrap().2 = true,
                }
            }
            assert!(b.is_empty() || d.upgraded());
        }
        Ok(out)
    }

    #[test]
    fn pipelined_responses_at_every_cut() {
        let s = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\nHTTP/1.1 404 NF\r\ncontent-length:0\r\n\r\n";
        for step in 1..s.len() + 1 {
            let r = run(s, step).unwrap();
            assert_eq!(
                r,
                vec![
                    (200, b"hello".to_vec(), true),
                    (204, vec![], true),
                    (200, b"abc0123456789".to_vec(), true),
                    (404, vec![], true)
                ],
                "step {step}"
            );
        }
    }

    #[test]
    fn until_close_and_upgrade() {
        let r = run(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n", 7).unwrap();
        assert_eq!(r, vec![(200, b"data: x\n\n".to_vec(), false)]);
        let mut d = Decoder::default();
        let mut b: &[u8] = b"HTTP/1.1 101 S\r\n\r\n\x81\x01x";
        assert_eq!(d.next(&mut b).unwrap(), Some(Ev::Head(101)));
        assert!(d.upgraded());
        assert_eq!(d.next(&mut b).unwrap(), None);
        assert_eq!(b, b"\x81\x01x");
    }

    #[test]
    fn header_lookup_ignores_case() {
        let h = b"HTTP/1.1 200 OK\r\nETag: \"7\"\r\nlast-modified:  Sun \r\n\r\n";
        assert_eq!(header(h, "etag"), Some(&b"\"7\""[..]));
        assert_eq!(header(h, "Last-Modified"), Some(&b"Sun"[..]));
        assert_eq!(header(h, "x"), None);
    }

    #[test]
    fn errors() {
        assert!(run(b"SSH-2.0\r\n\r\n", 100).is_err());
        assert!(run(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 3).is_err());
        assert!(run(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX\r\n", 3).is_err());
        assert!(run(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 100).is_err());
    }
}
