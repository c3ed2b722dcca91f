//! Test messages: a 16-byte marker `@@cccc` + `ssssssss` + `@@` (hex channel and sequence
//! number) and a fixed filler, so that a receiver finds and checks them in any wrapping.
use crate::http::find;

pub const MIN: usize = 16;

pub fn marker(ch: u32, seq: u32) -> [u8; 16] {
    let mut m = *b"@@000000000000@@";
    const H: &[u8; 16] = b"0123456789abcdef";
    for i in 0..4 {
        m[2 + i] = H[(ch >> (12 - 4 * i) & 15) as usize];
    }
    for i in 0..8 {
        m[6 + i] = H[(seq >> (28 - 4 * i) & 15) as usize];
    }
    m
}

pub fn filler(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i % 23) as u8).collect()
}

pub fn parse(m: &[u8]) -> Option<(u32, u32)> {
    if m.len() < MIN || &m[..2] != b"@@" || &m[14..16] != b"@@" {
        return None;
    }
    let hex = |b: &[u8]| {
        b.iter().try_fold(0u32, |a, c| {
            Some(
                a << 4
                    | match c {
                        b'0'..=b'9' => c - b'0',
                        b'a'..=b'f' => c - b'a' + 10,
                        _ => return None,
                    } as u32,
            )
        })
    };
    Some((hex(&m[2..6])?, hex(&m[6..14])?))
}

/// Every message in `b`: channel, sequence number, and whether its filler is whole.
pub fn scan(mut b: &[u8], fill: &[u8], mut f: impl FnMut(u32, u32, bool)) -> usize {
    let mut n = 0;
    while let Some(i) = find(b, b"@@") {
        b = &b[i..];
        match parse(b) {
            Some((c, s)) => {
                b = &b[MIN..];
                let ok = b.starts_with(fill);
                if ok {
                    b = &b[fill.len()..];
                }
                f(c, s, ok);
                n += 1;
            }
            None => b = &b[1..],
        }
    }
    n
}

/// Order, loss and duplication of one subscriber's stream.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Check {
    pub ok: u64,
    pub gaps: u64,
    pub dups: u64,
    pub bad: u64,
}

impl Check {
    pub fn see(&mut self, last: &mut u32, seq: u32, whole: bool) {
        if !whole {
            self.bad += 1;
        }
        if seq == *last + 1 {
            self.ok += 1;
            *last = seq;
        } else if seq <= *last {
            self.dups += 1;
        } else {
            self.gaps += (seq - *last - 1) as u64;
            self.ok += 1;
            *last = seq;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_inside_json() {
        let fill = filler(30);
        let mut s = b"[{\"d\":\"".to_vec();
        s.extend_from_slice(&marker(0xbeef, 0x12345678));
        s.extend_from_slice(&fill);
        s.extend_from_slice(b"\"},{\"d\":\"@@@");
        s.extend_from_slice(&marker(1, 2));
        s.extend_from_slice(&fill[..29]);
        let mut got = vec![];
        assert_eq!(scan(&s, &fill, |c, q, ok| got.push((c, q, ok))), 2);
        assert_eq!(got, [(0xbeef, 0x12345678, true), (1, 2, false)]);
    }

    #[test]
    fn counts_gaps_and_dups() {
        let (mut c, mut last) = (Check::default(), 0);
        for s in [1, 2, 2, 5, 4, 6] {
            c.see(&mut last, s, true);
        }
        assert_eq!(c, Check { ok: 4, gaps: 2, dups: 2, bad: 0 });
    }
}
