//! RFC 6455 frames, client side: masked encoder, incremental decoder of server frames.

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Append one final masked frame.
pub fn encode(op: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    out.push(0x80 | op);
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=65535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i & 3]));
}

/// One piece of one frame.
#[derive(Debug, PartialEq)]
pub struct Part<'a> {
    pub op: u8,
    /// FIN of the frame.
    pub fin: bool,
    pub frame_len: u64,
    /// Offset of `data` within the frame.
    pub off: u64,
    pub data: &'a [u8],
    /// `data` ends the frame.
    pub last: bool,
}

#[derive(Debug, Default)]
pub struct Decoder {
    hdr: [u8; 10],
    have: u8,
    in_frame: bool,
    len: u64,
    off: u64,
    /// A fragmented message is open.
    cont: bool,
}

impl Decoder {
    pub fn mid_message(&self) -> bool {
        self.have > 0 || self.in_frame || self.cont
    }

    pub fn next<'a>(&mut self, b: &mut &'a [u8]) -> Result<Option<Part<'a>>, String> {
        if !self.in_frame {
            loop {
                let need: u8 = if self.have < 2 {
                    2
                } else {
                    match self.hdr[1] & 127 {
                        126 => 4,
                        127 => 10,
                        _ => 2,
                    }
                };
                if self.have >= need {
                    break;
                }
                let Some((&c, r)) = b.split_first() else { return Ok(None) };
                self.hdr[self.have as usize] = c;
                self.have += 1;
                *b = r;
            }
            let h = &self.hdr;
            if h[0] & 0x70 != 0 {
                return Err("reserved bits set".into());
            }
            if h[1] & 0x80 != 0 {
                return Err("server frame is masked".into());
            }
            let (op, fin) = (h[0] & 15, h[0] & 0x80 != 0);
            self.len = match h[1] & 127 {
                126 => {
                    let n = u16::from_be_bytes([h[2], h[3]]) as u64;
                    if n < 126 {
                        return Err("length is not minimal".into());
                    }
                    n
                }
                127 => {
                    let n = u64::from_be_bytes([h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9]]);
                    if n < 65536 || n >> 63 != 0 {
                        return Err("bad 64-bit length".into());
                    }
                    n
                }
                n => n as u64,
            };
            match op {
                8..=10 if !fin || self.len > 125 => return Err("bad control frame".into()),
                8..=10 => {}
                0 if !self.cont => return Err("continuation of nothing".into()),
                1 | 2 if self.cont => return Err("new message inside a fragmented one".into()),
                0..=2 => self.cont = !fin,
                _ => return Err(format!("opcode {op}")),
            }
            self.in_frame = true;
            self.off = 0;
        }
        let left = self.len - self.off;
        if left > 0 && b.is_empty() {
            return Ok(None);
        }
        let k = left.min(b.len() as u64) as usize;
        let (data, r) = b.split_at(k);
        *b = r;
        let p = Part {
            op: self.hdr[0] & 15,
            fin: self.hdr[0] & 0x80 != 0,
            frame_len: self.len,
            off: self.off,
            data,
            last: left == k as u64,
        };
        self.off += k as u64;
        if p.last {
            self.in_frame = false;
            self.have = 0;
        }
        Ok(Some(p))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(b0: u8, p: &[u8]) -> Vec<u8> {
        let mut v = vec![b0];
        match p.len() {
            n @ 0..=125 => v.push(n as u8),
            n @ 126..=65535 => {
                v.push(126);
                v.extend_from_slice(&(n as u16).to_be_bytes())
            }
            n => {
                v.push(127);
                v.extend_from_slice(&(n as u64).to_be_bytes())
            }
        }
        v.extend_from_slice(p);
        v
    }

    fn run(s: &[u8], step: usize) -> Result<Vec<(u8, bool, Vec<u8>)>, String> {
        let mut d = Decoder::default();
        let mut out: Vec<(u8, bool, Vec<u8>)> = vec![];
        for c in s.chunks(step) {
            let mut b = c;
            while let Some(p) = d.next(&mut b)? {
                if p.off == 0 {
                    out.push((p.op, p.fin, vec![]));
                }
                let l = out.last_mut().unwrap();
                assert_eq!(p.off as usize, l.2.len());
                l.2.extend_from_slice(p.data);
                assert_eq!(p.last, l.2.len() as u64 == p.frame_len);
            }
            assert!(b.is_empty());
        }
        Ok(out)
    }

    #[test]
    fn frames_at_every_cut() {
        let big = vec![7u8; 70000];
        let mid = vec![9u8; 300];
        let mut s = server_frame(0x81, b"hi");
        s.extend(server_frame(0x82, b""));
        s.extend(server_frame(0x01, b"a"));
        s.extend(server_frame(0x89, b"ping"));
        s.extend(server_frame(0x80, b"b"));
        s.extend(server_frame(0x82, &mid));
        let want = vec![
            (1, true, b"hi".to_vec()),
            (2, true, vec![]),
            (1, false, b"a".to_vec()),
            (9, true, b"ping".to_vec()),
            (0, true, b"b".to_vec()),
            (2, true, mid),
        ];
        for step in 1..s.len() + 1 {
            assert_eq!(run(&s, step).unwrap(), want, "step {step}");
        }
        let s = server_frame(0x82, &big);
        assert_eq!(run(&s, 1000).unwrap(), vec![(2, true, big)]);
    }

    #[test]
    fn rejects_what_the_rfc_forbids() {
        for bad in [
            &[0x81u8, 0x80, 0, 0, 0, 0][..],      // masked
            &[0xc1, 0x00],                        // RSV1
            &[0x80, 0x00],                        // stray continuation
            &[0x09, 0x00],                        // fragmented ping
            &[0x89, 126, 0, 126],                 // long ping
            &[0x82, 126, 0, 5],                   // not minimal
            &[0x82, 127, 0, 0, 0, 0, 0, 0, 1, 0], // not minimal
            &[0x83, 0x00],                        // reserved opcode
            &[0x01, 0x00, 0x01, 0x00],            // text inside text
        ] {
            assert!(run(bad, 1).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn encoder_masks() {
        let mut v = vec![];
        encode(1, b"Hello", [0x37, 0xfa, 0x21, 0x3d], &mut v);
        assert_eq!(v, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        v.clear();
        encode(2, &[0; 126], [1, 2, 3, 4], &mut v);
        assert_eq!(&v[..9], [0x82, 0xfe, 0, 126, 1, 2, 3, 4, 1]);
        v.clear();
        encode(2, &vec![0; 65536], [1, 2, 3, 4], &mut v);
        assert_eq!(v.len(), 65536 + 14);
        assert_eq!(&v[..10], [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
