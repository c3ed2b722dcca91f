//! Log-linear histogram of nanoseconds, about 3 % wide buckets.
pub struct Hist {
    b: Vec<u64>,
    pub n: u64,
    pub max: u64,
}

fn idx(v: u64) -> usize {
    let v = v.max(1);
    let e = 63 - v.leading_zeros() as usize;
    if e < 5 { v as usize } else { ((e - 4) << 5) + ((v >> (e - 5)) & 31) as usize }
}

fn low(i: usize) -> u64 {
    if i < 32 {
        i as u64
    } else {
        let e = (i >> 5) + 4;
        (32 + (i as u64 & 31)) << (e - 5)
    }
}

impl Default for Hist {
    fn default() -> Self {
        Hist { b: vec![0; 64 * 32], n: 0, max: 0 }
    }
}

impl Hist {
    pub fn add(&mut self, v: u64) {
        self.b[idx(v)] += 1;
        self.n += 1;
        self.max = self.max.max(v);
    }
    pub fn q(&self, q: f64) -> u64 {
        let want = (self.n as f64 * q).ceil().max(1.0) as u64;
        let mut c = 0;
        for (i, n) in self.b.iter().enumerate() {
            c += n;
            if c >= want {
                return low(i).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn quantiles_are_close() {
        let mut h = Hist::default();
        for v in 1..=100_000u64 {
            h.add(v);
        }
        for (q, w) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.01, 1000.0)] {
            let r = h.q(q) as f64 / w;
            assert!((0.96..1.01).contains(&r), "{q}: {r}");
        }
        assert_eq!(h.q(1.0) as f64 / 1e5 > 0.96, true);
        for i in 32..1500 {
            assert_eq!(idx(low(i)), i);
        }
    }
}
