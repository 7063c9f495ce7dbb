//! zstd as the format allows it: one frame, no dictionary, no checksum, content size present, window at most 8 MiB.
//!
//! Contexts are kept per thread, because making one costs more than compressing a small block.

use std::cell::RefCell;

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, compress_bound, find_frame_compressed_size, get_frame_content_size,
};

use crate::format::FormatError;

/// Biggest window that a reader must be able to hold.
const WINDOW_MAX: u64 = 8 << 20;
/// The highest level whose window is not above [`WINDOW_MAX`].
const LEVEL_MAX: i32 = 19;
/// The first bytes of a zstd frame (RFC 8878, section 3.1.1).
const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

thread_local! {
    static PRESS: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static UNPRESS: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// Appends the compressed `content` to `out` and returns its length, or leaves `out` alone and returns `None`
/// when less than 3 % would be gained.
pub(super) fn compress(content: &[u8], level: i32, out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    out.resize(start + compress_bound(content.len()), 0);
    let len = PRESS.with_borrow_mut(|slot| {
        let context = slot.get_or_insert_with(CCtx::create);
        context.set_parameter(CParameter::CompressionLevel(level.min(LEVEL_MAX))).ok()?;
        context.set_parameter(CParameter::ContentSizeFlag(true)).ok()?;
        context.set_parameter(CParameter::ChecksumFlag(false)).ok()?;
        context.compress2(&mut out[start..], content).ok()
    });
    let len = len.filter(|len| len.saturating_mul(100) <= content.len().saturating_mul(97));
    out.truncate(start + len.unwrap_or(0));
    len
}

/// Replaces what is in `out` by the `raw_len` bytes that `payload` decodes to. The caller has checked `raw_len`
/// against its limit; nothing bigger is allocated.
pub(super) fn decompress(payload: &[u8], raw_len: usize, out: &mut Vec<u8>) -> Result<(), FormatError> {
    check_frame(payload, raw_len)?;
    out.clear();
    out.reserve_exact(raw_len);
    let written =
        UNPRESS.with_borrow_mut(|slot| slot.get_or_insert_with(DCtx::create).decompress(out, payload));
    if written != Ok(raw_len) {
        out.clear();
        return Err(FormatError::damaged("compressed content does not decode"));
    }
    Ok(())
}

/// Holds a frame to the rules. Decoding into a buffer of the full length needs no window and so would accept any:
/// the header is read here, or else another reader could not open what this one does.
fn check_frame(payload: &[u8], raw_len: usize) -> Result<(), FormatError> {
    let bad = |what: &str| Err(FormatError::damaged(format!("compressed content {what}")));
    let (Some(&descriptor), true) = (payload.get(4), payload.starts_with(&FRAME_MAGIC)) else {
        return bad("is not a zstd frame");
    };
    if descriptor & 0b11 != 0 {
        return bad("needs a dictionary");
    }
    if !matches!(get_frame_content_size(payload), Ok(Some(len)) if len == raw_len as u64) {
        return bad("is not of the length it should have");
    }
    let single_segment = descriptor & 0b10_0000 != 0;
    let window =
        if single_segment { raw_len as u64 } else { window_of(payload.get(5).copied().unwrap_or(u8::MAX)) };
    if window > WINDOW_MAX {
        return bad("needs a window above 8 MiB");
    }
    match find_frame_compressed_size(payload) {
        Ok(len) if len == payload.len() => Ok(()),
        _ => bad("is not exactly one zstd frame"),
    }
}

/// Window size from its descriptor byte (RFC 8878, section 3.1.1.1.2).
fn window_of(descriptor: u8) -> u64 {
    let base = 1u64 << (10 + (descriptor >> 3));
    base + (base >> 3) * u64::from(descriptor & 7)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|i| b"the quick brown fox "[i % 20] ^ (i >> 12) as u8).collect()
    }

    #[test]
    fn every_level_and_length_survives_a_round_trip_within_the_window() {
        for len in [100, 4096, 128 << 10, 9 << 20] {
            for level in if len < 1 << 20 { vec![-5, 1, 3, 9, 19, 22] } else { vec![1, 22] } {
                let content = text(len);
                let mut packed = vec![7];
                let packed_len = compress(&content, level, &mut packed).unwrap();
                assert_eq!((packed[0], packed.len()), (7, 1 + packed_len), "length {len}, level {level}");
                let mut back = vec![9; 3];
                decompress(&packed[1..], len, &mut back).unwrap();
                assert_eq!(back, content, "length {len}, level {level}");
            }
        }
    }

    #[test]
    fn what_gains_under_three_percent_is_left_out() {
        let noise: Vec<u8> = blake3::hash(b"noise").as_bytes().iter().cycle().take(32).copied().collect();
        let mut out = vec![1, 2];
        assert_eq!(compress(&noise, 3, &mut out), None);
        assert_eq!(out, [1, 2]);
    }

    #[test]
    fn frames_against_the_rules_are_refused() {
        let content = text(10_000);
        let mut good = Vec::new();
        compress(&content, 3, &mut good).unwrap();
        let refuse = |payload: &[u8], raw_len: usize, why: &str| {
            let mut out = Vec::new();
            let error = decompress(payload, raw_len, &mut out).unwrap_err().to_string();
            assert!(error.contains(why), "{error} instead of {why}");
        };
        refuse(&good, content.len() + 1, "length");
        refuse(&good[..good.len() - 1], content.len(), "exactly one");
        refuse(&[good.as_slice(), &[0]].concat(), content.len(), "exactly one");
        refuse(&[good.as_slice(), good.as_slice()].concat(), content.len(), "exactly one");
        refuse(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], 0, "not a zstd frame");
        refuse(b"", 0, "not a zstd frame");
        let mut with_dictionary = good.clone();
        with_dictionary[4] |= 1;
        refuse(&with_dictionary, content.len(), "dictionary");
    }

    #[test]
    fn a_window_above_eight_mebibytes_is_refused() {
        // Magic, descriptor (content size of 4 bytes, no single segment), window, content size, one empty raw block.
        let frame = |window: u8| [&FRAME_MAGIC[..], &[0b1000_0000, window, 0, 0, 0, 0, 1, 0, 0]].concat();
        assert_eq!(check_frame(&frame(13 << 3), 0), Ok(()));
        assert!(check_frame(&frame(13 << 3 | 1), 0).unwrap_err().to_string().contains("window"));
    }

    #[test]
    fn a_context_that_met_damage_works_again() {
        let content = text(5000);
        let mut good = Vec::new();
        compress(&content, 3, &mut good).unwrap();
        for bit in 40..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut out = Vec::new();
            let _either = decompress(&bad, content.len(), &mut out);
            decompress(&good, content.len(), &mut out).unwrap();
            assert_eq!(out, content, "after bit {bit}");
        }
    }
}
