//! permessage-deflate: one message's payload compressed, one inflated.
//!
//! RFC 7692 7.2, RFC 1951. Knows nothing of frames and connections: each message stands for
//! itself, so one [`Deflater`] and one [`Inflater`] serve all connections. Without the feature
//! `deflate` nothing is ever compressed, and nothing agreed.
//!
//! ```text
//! payload --DEFLATE, sync flush--> blocks | 00 00 ff ff     7.2.1: the four bytes are taken off
//! blocks | 00 00 ff ff --INFLATE--> payload                 7.2.2: and put back
//! ```
//! Invariant: what comes out of a message is bounded while it comes out, not after it.

#[cfg(feature = "deflate")]
pub use codec::{Deflater, Inflater};
#[cfg(not(feature = "deflate"))]
pub use nothing::{Deflater, Inflater};

#[cfg(feature = "deflate")]
mod codec {
    use miniz_oxide::deflate::core::{
        CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
    };
    use miniz_oxide::inflate::TINFLStatus;
    use miniz_oxide::inflate::core::inflate_flags::{
        TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    };
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

    use super::super::Error;

    /// The end of a sync flush: an empty block without compression, but for its first byte.
    const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

    /// Everything waits for the one thread, so the fastest level. Measured with JSON of 256 KiB:
    /// level 1 takes 0.7 ms and leaves 22 %, level 2 2.1 ms and 19 %, level 6 6.6 ms and 16 %.
    /// With 512 bytes each takes 15 us, most of it for a clean table, and leaves 37 %.
    const LEVEL: i32 = 1;
    /// No header and no checksum of zlib.
    const RAW: i32 = -15;

    /// Compresses messages, each for itself.
    #[derive(Default)]
    pub struct Deflater {
        /// Some 300 KiB, made when the first message is compressed.
        core: Option<Box<CompressorOxide>>,
    }

    impl Deflater {
        /// Appends the compressed payload, if it is smaller; otherwise nothing, and `false`.
        pub fn deflate(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
            let core = self.core.get_or_insert_with(|| {
                Box::new(CompressorOxide::new(create_comp_flags_from_zip_params(LEVEL, RAW, 0)))
            });
            core.reset();
            let start = out.len();
            let room = payload.len() + TAIL.len();
            out.resize(start + room, 0);
            let (status, read, written) = compress(core, payload, &mut out[start..], TDEFLFlush::Sync);
            out.truncate(start + written);
            // What filled all the room may have been cut.
            let is_smaller = status == TDEFLStatus::Okay && read == payload.len() && written < room;
            // RFC 7692 7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
            if is_smaller && out.ends_with(&TAIL) {
                out.truncate(out.len() - TAIL.len());
                return true;
            }
            out.truncate(start);
            false
        }
    }

    /// Inflates messages, each for itself.
    #[derive(Default)]
    pub struct Inflater {
        /// Some 11 KiB, made when the first message is inflated.
        core: Option<Box<DecompressorOxide>>,
        /// What came out of the last message, and room behind it.
        bytes: Vec<u8>,
        len: usize,
        spent: usize,
    }

    /// The first room for a message. It doubles as it fills: nobody says how much will come.
    const ROOM_FIRST: usize = 4096;
    /// More room than this is given back.
    const ROOM_KEPT: usize = 256 * 1024;

    const FLAGS: u32 = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;

    impl Inflater {
        /// The message of this compressed payload, which may have so many bytes.
        pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<&[u8], Error> {
            self.core.get_or_insert_default().init();
            self.len = 0;
            // No payload at all, or one whose last block has BFINAL, lacks the octet 0x00 that a
            // sender owes (7.2.3.4, 7.2.3.6). There is one thing only that it can mean.
            // 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload": they must
            // complete a block, or the message was cut.
            let is_whole = payload.is_empty()
                || self.feed(payload, FLAGS, bytes_max)?
                || self.feed(&TAIL, FLAGS | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, bytes_max)?;
            if is_whole { Ok(&self.bytes[..self.len]) } else { Err(Error::NotDeflate) }
        }

        /// Inflates this part; true if it ends with a block that has BFINAL or, where a stop at each
        /// block is asked for, with any.
        fn feed(&mut self, mut part: &[u8], flags: u32, bytes_max: usize) -> Result<bool, Error> {
            let core = self.core.get_or_insert_default();
            loop {
                // One byte over the limit shows that there are more.
                let room_max = bytes_max.saturating_add(1);
                if self.len == self.bytes.len() {
                    self.bytes.resize((2 * self.len).max(ROOM_FIRST).min(room_max), 0);
                }
                let room = self.bytes.len().min(room_max);
                let (status, read, written) = decompress(core, part, &mut self.bytes[..room], self.len, flags);
                part = &part[read..];
                self.len += written;
                self.spent += written;
                if self.len > bytes_max {
                    return Err(Error::MessageTooBig);
                }
                match status {
                    TINFLStatus::HasMoreOutput => {}
                    TINFLStatus::NeedsMoreInput => return Ok(false),
                    TINFLStatus::BlockBoundary if part.is_empty() => {
                        // Bits that are left begin a block, which does not end.
                        return Ok(core.block_boundary_state().is_some_and(|state| state.num_bits == 0));
                    }
                    TINFLStatus::Done => {
                        if part.is_empty() {
                            return Ok(true);
                        }
                        // 7.2.1: "An endpoint MAY use both DEFLATE blocks with the "BFINAL" bit set
                        // to 0 and DEFLATE blocks with the "BFINAL" bit set to 1." What follows one
                        // may refer back to what came before.
                        core.init();
                    }
                    // Also a block that ends within the tail: what is left of that is no whole block.
                    _ => return Err(Error::NotDeflate),
                }
            }
        }

        /// How much room it has for a message.
        #[cfg(test)]
        pub fn room(&self) -> usize {
            self.bytes.capacity()
        }

        /// How many bytes came out since this was asked last.
        pub fn take_spent(&mut self) -> usize {
            if self.bytes.capacity() > ROOM_KEPT {
                self.bytes = Vec::new();
            }
            std::mem::take(&mut self.spent)
        }
    }
}

#[cfg(not(feature = "deflate"))]
mod nothing {
    use super::super::Error;

    /// Compresses nothing.
    #[derive(Default)]
    pub struct Deflater {}

    impl Deflater {
        /// Appends nothing, ever.
        pub fn deflate(&mut self, _payload: &[u8], _out: &mut Vec<u8>) -> bool {
            false
        }
    }

    /// Inflates nothing.
    #[derive(Default)]
    pub struct Inflater {}

    impl Inflater {
        /// An error, ever: nothing was agreed.
        pub fn inflate(&mut self, _payload: &[u8], _bytes_max: usize) -> Result<&[u8], Error> {
            Err(Error::NotDeflate)
        }

        /// Nothing came out.
        pub fn take_spent(&mut self) -> usize {
            0
        }
    }
}

#[cfg(feature = "deflate")]
#[cfg(test)]
mod tests {
    use super::super::Error;
    use super::*;

    /// What a payload inflates to, with this limit; each time with a new inflater, with one that
    /// has just inflated something else, and with one that has just failed: all say the same.
    fn inflate_within(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Error> {
        let mut used = Inflater::default();
        used.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 100).unwrap();
        let mut failed = Inflater::default();
        failed.inflate(b"\x07", 100).unwrap_err();
        let [new, used, failed] = [Inflater::default(), used, failed]
            .map(|mut inflater| inflater.inflate(payload, bytes_max).map(<[u8]>::to_vec));
        assert_eq!(new, used);
        assert_eq!(new, failed);
        new
    }

    fn inflate(payload: &[u8]) -> Result<Vec<u8>, Error> {
        inflate_within(payload, 1 << 20)
    }

    /// The zeros of the tail must not be taken for the end of a block that was cut. Here they fill a byte:
    /// RFC 1951 3.2.6, a header of 3 bits, literals of 9, and 7 zeros for the end of the block.
    #[test]
    fn the_tail_ends_no_block_that_was_cut() {
        let header = [0, 1, 0];
        let literal = [1, 1, 0, 0, 1, 0, 0, 0, 0];
        let bits: Vec<u8> = header.into_iter().chain(literal.repeat(6)).chain([0; 7]).collect();
        let bytes: Vec<u8> =
            bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |byte, bit| byte << 1 | bit)).collect();
        assert_eq!((bits.len(), bytes.len()), (64, 8));
        let whole = [&bytes[..], b"\0"].concat();
        assert_eq!(inflate(&whole), Ok(vec![0x90; 6]));
        assert_eq!(inflate(&bytes[..7]), Err(Error::NotDeflate), "its last byte is the tail's");
    }

    fn deflate(payload: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let is_smaller = Deflater::default().deflate(payload, &mut out);
        assert_eq!(out.len() > 6, is_smaller);
        is_smaller.then(|| out.split_off(6))
    }

    /// RFC 7692 7.2.3, byte for byte.
    #[test]
    fn the_examples_of_the_standard() {
        for (payload, want) in [
            // 7.2.3.1: one block.
            (&b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..], &b"Hello"[..]),
            // 7.2.3.3: a block without compression.
            (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", b"Hello"),
            // 7.2.3.4: a block with BFINAL.
            (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello"),
            // 7.2.3.5: two blocks in one message.
            (b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello"),
            // 7.2.3.6: an empty fragment.
            (b"\x00", b""),
        ] {
            assert_eq!(inflate(payload).as_deref(), Ok(want), "{payload:02x?}");
        }
        // 7.2.3.2: the second message of a shared window refers back to the first. Here there is
        // no such window, and nothing to refer to.
        assert_eq!(inflate(b"\xf2\x00\x11\x00\x00"), Err(Error::NotDeflate));
    }

    #[test]
    fn what_else_is_whole() {
        for (payload, want) in [
            // A last block, and nothing behind it; nothing at all.
            (&b"\xf3\x48\xcd\xc9\xc9\x07\x00"[..], &b"Hello"[..]),
            (b"", b""),
            // Blocks after a last block, which begin at the next whole byte and may refer back.
            (b"\xf3\x48\xcd\xc9\xc9\x07\x00\xf2\x48\xcd\xc9\xc9\x07\x00", b"HelloHello"),
            (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x02\x13\x00\x00", b"HelloHello"),
            // The tail that should have been taken off, and the next message's beginning.
            (b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x00", b"Hello"),
            // A block that lacks as many bytes as are put back: 7.2.2 tells them apart by nothing.
            (b"\x00\x05\x00\xfa\xff\x48", b"H\x00\x00\xff\xff"),
        ] {
            assert_eq!(inflate(payload).as_deref(), Ok(want), "{payload:02x?}");
        }
    }

    #[test]
    fn what_is_not_deflate() {
        for payload in [
            // The block type that does not exist.
            &b"\x07"[..],
            b"\xff\xff\xff\xff",
            // A length that is not its complement's.
            b"\x00\x05\x00\xfa\xfe\x48\x65\x6c\x6c\x6f\x00",
            // Cut inside a block.
            b"\xf2\x48\xcd",
            b"\x00\x05\x00\xfa\xff",
            // Cut inside a last block, whose codes the four bytes are taken for: one is left over.
            b"\xeb\xeb\xeb\xeb\xeb\xeb\x48\xcc\xff\xff\x7f",
            // The tail was left on: what is put behind it begins a block of 0xff00 bytes.
            b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff",
            // Garbage behind the last block.
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\xff",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00garbage",
            // A reference to before the beginning.
            b"\x02\x13\x00\x00",
        ] {
            assert_eq!(inflate(payload), Err(Error::NotDeflate), "{payload:02x?}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_an_answer() {
        let text = r#"{"id":"1766-42","channel":"news","data":"aaaaaaaaaaaaaaaaaaaa"}"#.repeat(20);
        let payload = deflate(text.as_bytes()).unwrap();
        for end in (1..payload.len()).step_by(crate::stride(30)) {
            assert_ne!(inflate(&payload[..end]).as_deref(), Ok(text.as_bytes()), "cut at {end}");
        }
        for at in (0..payload.len()).step_by(crate::stride(50)) {
            for bit in 0..8 {
                let mut changed = payload.clone();
                changed[at] ^= 1 << bit;
                let _ = inflate_within(&changed, 10_000);
            }
        }
    }

    #[test]
    fn what_goes_in_comes_out_and_is_the_same_each_time() {
        let mut deflater = Deflater::default();
        let mut inflater = Inflater::default();
        for length in (0..300).chain([511, 512, 513, 4095, 4096, 65_535, 65_536, 262_144]) {
            let payload: Vec<u8> = (0..length).map(|at: usize| b"tick, tock; "[at % 12] ^ (at / 700) as u8).collect();
            let mut out = Vec::new();
            if !deflater.deflate(&payload, &mut out) {
                assert!(length < 100 && out.is_empty(), "{length} bytes");
                continue;
            }
            assert!(out.len() < payload.len());
            assert_eq!(Some(&out), deflate(&payload).as_ref(), "{length} bytes: nothing is remembered");
            assert_eq!(inflater.inflate(&out, length), Ok(&payload[..]));
            assert_eq!(inflater.inflate(&out, length - 1), Err(Error::MessageTooBig));
            assert!((length..2 * length + 1).contains(&inflater.take_spent()));
        }
    }

    #[test]
    fn noise_is_not_made_larger() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::from_fn(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some((state >> 56) as u8)
        })
        .take(100_000)
        .collect();
        for length in [1, 10, 100, 1000, 10_000, 100_000] {
            assert_eq!(deflate(&noise[..length]), None, "{length} bytes");
        }
        assert_eq!(deflate(b""), None);
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let zeros = vec![0; 10 << 20];
        let bomb = deflate(&zeros).unwrap();
        assert!(bomb.len() * 200 < zeros.len(), "{} bytes", bomb.len());
        assert_eq!(inflate_within(&bomb, zeros.len()), Ok(zeros.clone()));
        let mut inflater = Inflater::default();
        for limit in [0, 1, 100, 4095, 4096, 4097, 262_144, zeros.len() - 1] {
            assert_eq!(inflater.inflate(&bomb, limit), Err(Error::MessageTooBig), "{limit}");
            assert_eq!(inflater.take_spent(), limit + 1);
        }
    }

    #[test]
    fn room_doubles_with_what_comes_out_and_what_was_large_is_given_back() {
        let zeros = vec![0; 300 * 1024];
        let mut inflater = Inflater::default();
        for (length, room) in [(1000, 4096), (4095, 4096), (4096, 8192), (256 * 1024 - 1, 256 * 1024)] {
            assert!(inflater.inflate(&deflate(&zeros[..length]).unwrap(), 1 << 40).is_ok());
            assert_eq!((inflater.room(), inflater.take_spent()), (room, length));
        }
        assert_eq!(inflater.room(), 256 * 1024, "is kept");
        assert!(inflater.inflate(&deflate(&zeros).unwrap(), 1 << 40).is_ok());
        assert_eq!((inflater.room(), inflater.take_spent()), (512 * 1024, zeros.len()));
        assert_eq!(inflater.room(), 0);
    }
}
