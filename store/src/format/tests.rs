//! Headers and fields: round trips, every flipped bit, what is told apart, bounds.
#![allow(clippy::unwrap_used)]

use super::*;

fn sample() -> (VaultId, [u8; HEADER_LEN]) {
    let vault = VaultId([7; 16]);
    let header = Header { kind: ObjectKind::Pack, object_id: ObjectId([9; 16]), generation: 3 };
    (vault, header.encode(&vault))
}

#[test]
fn a_header_survives_a_round_trip() {
    let (vault, bytes) = sample();
    let header = Header::decode(&bytes, ObjectKind::Pack, Some(&vault)).expect("a good header");
    assert_eq!((header.object_id, header.generation), (ObjectId([9; 16]), 3));
}

#[test]
fn every_flipped_bit_of_a_header_is_seen() {
    let (vault, bytes) = sample();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&bad, ObjectKind::Pack, Some(&vault)).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(Header::decode(&bytes[..len], ObjectKind::Pack, Some(&vault)).is_err(), "length {len}");
    }
}

#[test]
fn foreign_newer_and_damaged_headers_are_told_apart() {
    let (vault, bytes) = sample();
    let other = VaultId([8; 16]);
    assert!(matches!(Header::decode(&bytes, ObjectKind::Pack, Some(&other)), Err(FormatError::NotOurs(_))));
    let reseal = |at: usize, value: u8| {
        let mut b = bytes;
        b[at] = value;
        let crc = crc32c::crc32c(&b[..60]);
        b[60..].copy_from_slice(&crc.to_le_bytes());
        Header::decode(&b, ObjectKind::Pack, Some(&vault))
    };
    assert!(matches!(reseal(9, 2), Err(FormatError::TooNew(_))));
    assert!(matches!(reseal(10, 2), Err(FormatError::TooNew(_))));
    assert!(matches!(reseal(12, 4), Err(FormatError::TooNew(m)) if m.contains("bit 2")));
    assert!(matches!(reseal(8, 4), Err(FormatError::Damaged(_))));
}

#[test]
fn a_count_that_cannot_be_is_refused_before_anything_is_allocated() {
    let mut p = Parser::new(&[0xff, 0xff, 0xff, 0x7f, 1, 2, 3]);
    assert!(p.count("frames", 8, usize::MAX).is_err());
}

#[test]
fn what_a_newer_program_or_a_newer_key_made_is_no_damage() {
    let table = [
        (FormatError::damaged("x"), true, false),
        (FormatError::NotOurs("x".into()), true, false),
        (FormatError::TooNew("x".into()), false, false),
        (FormatError::NoKey(2), false, true),
    ];
    for (error, is_damage, is_newer_key) in table {
        assert_eq!((error.is_damage(), error.is_newer_key()), (is_damage, is_newer_key), "{error:?}");
    }
}

#[test]
fn fields_up_to_their_bounds_come_back() {
    let time = Timestamp { seconds: i64::MIN, nanos: 999_999_999 };
    let mut out = Vec::new();
    out.time(time);
    out.bytes8(&[8; 255]);
    out.bytes16(&[16; 65_535]);
    out.bytes32(&[32; 70_000]);
    out.u32(3);
    out.raw(&[1; 6]);
    let mut p = Parser::new(&out);
    assert_eq!(p.time().unwrap(), time);
    assert_eq!((p.bytes8().unwrap(), p.bytes16().unwrap()), (&[8; 255][..], &[16; 65_535][..]));
    assert_eq!(p.bytes32().unwrap(), [32; 70_000]);
    // As many as there may be, and as there is room for.
    assert_eq!(p.count("pairs", 2, 3).unwrap(), 3);
    assert_eq!((p.left(), p.take(6).unwrap(), p.end()), (6, &[1; 6][..], Ok(())));
}

#[test]
fn fields_beyond_their_bounds_are_refused_and_what_is_wrong_is_said() {
    let mut late = Vec::new();
    late.time(Timestamp { seconds: 0, nanos: 1_000_000_000 });
    assert!(Parser::new(&late).time().is_err());
    let three = [3, 0, 0, 0, 1, 1, 1, 1, 1, 1];
    for (item_len, limit) in [(2, 2), (3, 3)] {
        assert!(Parser::new(&three).count("pairs", item_len, limit).is_err(), "{item_len} {limit}");
    }
    assert!(Parser::new(&[2, 0, 0xc3, 0x28]).text16().is_err());
    assert_eq!(Parser::new(&[1, 2]).take(5), Err(FormatError::damaged("ends 3 bytes early")));
    assert_eq!(Parser::new(&[1, 2]).end(), Err(FormatError::damaged("2 bytes too many")));
}
