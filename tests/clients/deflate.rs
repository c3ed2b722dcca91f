//! DEFLATE (RFC 1951) as permessage-deflate (RFC 7692 7.2) uses it, in the simplest way.
//!
//! It inflates bit by bit, and holds the server to the window that was agreed. What it makes of a
//! message is valid and no smaller: blocks of every kind a client might send.

use super::Result;

/// The message of a payload whose sender may refer back so many bytes.
pub fn inflate(payload: &[u8], window: usize) -> Result<Vec<u8>> {
    // 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end".
    let bytes = [payload, b"\x00\x00\xff\xff"].concat();
    let mut bits = Bits { bytes: &bytes, at: 0 };
    let mut out = Vec::new();
    while bits.at < 8 * bytes.len() {
        let last = bits.take(1)?;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out)?,
            1 => {
                let lengths: Vec<u8> = (0..288)
                    .map(|symbol| match symbol {
                        0..144 => 8,
                        144..256 => 9,
                        256..280 => 7,
                        _ => 8,
                    })
                    .collect();
                compressed(&mut bits, &mut out, window, &Code::new(&lengths), &Code::new(&[5; 30]))?;
            }
            2 => {
                let (literals, distances) = codes(&mut bits)?;
                compressed(&mut bits, &mut out, window, &literals, &distances)?;
            }
            _ => return Err("a block of type 3".into()),
        }
        if last == 1 {
            bits.align();
        }
    }
    Ok(out)
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next bits, the lowest first.
    fn take(&mut self, count: usize) -> Result<usize> {
        let mut value = 0;
        for nth in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or("a block that does not end")?;
            value |= usize::from(byte >> (self.at % 8) & 1) << nth;
            self.at += 1;
        }
        Ok(value)
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

/// RFC 1951 3.2.2: a canonical Huffman code, by the lengths of its symbols.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Code {
    fn new(lengths: &[u8]) -> Code {
        let mut counts = [0; 16];
        lengths.iter().for_each(|&length| counts[usize::from(length)] += 1);
        counts[0] = 0;
        let of = |length| lengths.iter().enumerate().filter(move |&(_, &other)| other == length).map(|(nth, _)| nth);
        Code { counts, symbols: (1..16).flat_map(of).collect() }
    }

    fn read(&self, bits: &mut Bits<'_>) -> Result<usize> {
        let (mut code, mut first, mut nth) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return Ok(self.symbols[nth + code - first]);
            }
            nth += count;
            first = (first + count) * 2;
            code *= 2;
        }
        Err("a code that stands for nothing".into())
    }
}

fn stored(bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Result<()> {
    bits.align();
    let length = bits.take(16)?;
    if bits.take(16)? != length ^ 0xffff {
        return Err("a length and another complement".into());
    }
    for _ in 0..length {
        out.push(bits.take(8)? as u8);
    }
    Ok(())
}

/// RFC 1951 3.2.7.
fn codes(bits: &mut Bits<'_>) -> Result<(Code, Code)> {
    let literals = bits.take(5)? + 257;
    let distances = bits.take(5)? + 1;
    let mut lengths = [0; 19];
    for nth in 0..bits.take(4)? + 4 {
        lengths[[16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15][nth]] = bits.take(3)? as u8;
    }
    let code = Code::new(&lengths);
    let mut lengths: Vec<u8> = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match code.read(bits)? {
            16 => (*lengths.last().ok_or("a repeat of nothing")?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            18 => (0, bits.take(7)? + 11),
            length => (length as u8, 1),
        };
        lengths.resize(lengths.len() + times, length);
    }
    let (literals, distances) = lengths.split_at(literals);
    Ok((Code::new(literals), Code::new(distances)))
}

fn compressed(bits: &mut Bits<'_>, out: &mut Vec<u8>, window: usize, literals: &Code, distances: &Code) -> Result<()> {
    loop {
        let length = match literals.read(bits)? {
            literal @ 0..256 => {
                out.push(literal as u8);
                continue;
            }
            256 => return Ok(()),
            symbol @ 257..265 => symbol - 254,
            symbol @ 265..285 => {
                let extra = (symbol - 261) / 4;
                3 + ((4 + (symbol - 265) % 4) << extra) + bits.take(extra)?
            }
            285 => 258,
            symbol => return Err(format!("the symbol {symbol}")),
        };
        let distance = match distances.read(bits)? {
            symbol @ 0..4 => symbol + 1,
            symbol => {
                let extra = symbol / 2 - 1;
                1 + ((2 + symbol % 2) << extra) + bits.take(extra)?
            }
        };
        if distance > window || distance > out.len() {
            return Err(format!("{distance} bytes back, of {} and in a window of {window}", out.len()));
        }
        for _ in 0..length {
            out.push(out[out.len() - distance]);
        }
    }
}

/// The ways of `deflate`.
pub const WAYS: usize = 4;

/// A payload that inflates to this message, in one of several ways.
pub fn deflate(message: &[u8], way: usize) -> Vec<u8> {
    let mut out = Vec::new();
    match way {
        // Blocks without compression.
        0 => {
            for block in message.chunks(1000) {
                out.push(0);
                out.extend((block.len() as u16).to_le_bytes());
                out.extend((!(block.len() as u16)).to_le_bytes());
                out.extend_from_slice(block);
            }
        }
        // A block of literals, then the empty block.
        1 => literals(&mut out, message, 0),
        // The same with BFINAL, 7.2.3.4.
        2 => literals(&mut out, message, 1),
        // Two blocks, 7.2.3.5.
        _ => {
            let (front, back) = message.split_at(message.len() / 2);
            literals(&mut out, front, 0);
            out.extend(b"\x00\x00\xff\xff");
            literals(&mut out, back, 0);
            return out;
        }
    }
    if way != 1 {
        out.push(0);
    }
    out
}

/// A payload of so many bytes, and some, that inflates to a thousand times as many zeros; and how
/// many: codes of one bit for 258 more of the same and for one byte back, after zlib.
pub fn bomb(bytes: usize) -> (Vec<u8>, usize) {
    let head = b"\xec\xc1\x01\x01\x00\x00\x00\x82\x20\xff\xaf\x6e\x48\x40\x01";
    ([&head[..], &vec![0; bytes], b"\xf7\x06"].concat(), 1032 * bytes + 1033)
}

/// RFC 1951 3.2.6: a block of the fixed code; unless it is the last one, the first three bits of
/// the empty block follow.
fn literals(out: &mut Vec<u8>, message: &[u8], last: u32) {
    let (mut bits, mut count) = (0u64, 0);
    let mut put = |value: u32, length: u32| {
        bits |= u64::from(value) << count;
        count += length;
        while count >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            count -= 8;
        }
    };
    put(last | 1 << 1, 3);
    for &byte in message {
        // Codes go in by their highest bit.
        match u32::from(byte) {
            byte @ 0..144 => put((byte + 0x30).reverse_bits() >> 24, 8),
            byte => put((byte - 144 + 0x190).reverse_bits() >> 23, 9),
        }
    }
    put(0, 7);
    if last == 0 {
        put(0, 3);
    }
    put(0, 7);
}
