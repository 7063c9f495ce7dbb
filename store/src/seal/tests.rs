//! Blocks and names: round trips, damage, wrong places, hostile plaintexts, and the bytes that must never change.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::format::STEP;
use crate::id::{from_hex, to_hex};

const LIMIT: usize = 4 << 20;

fn sealer() -> Sealer {
    let ring = KeyRing::fixed([0x42; 32]);
    Sealer::new(VaultId([7; 16]), &ring, 1).unwrap()
}

fn place() -> BlockPlace {
    BlockPlace { kind: BlockKind::DataFrame, object_id: ObjectId([9; 16]), generation: 1, position: 64 }
}

fn sealed(content: &[u8], compression: Compression, min_len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let len = sealer().seal(&place(), content, compression, min_len, &mut out);
    assert_eq!(len, out.len());
    out
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes that do.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| b"all that is gold does not glitter "[i % 34]).collect()
}

#[test]
fn a_generation_is_known_if_its_key_is_at_hand() {
    assert!(sealer().has_generation(1));
    assert!([0, 2, u32::MAX].iter().all(|generation| !sealer().has_generation(*generation)));
}

#[test]
fn content_of_every_kind_and_length_survives_a_round_trip() {
    let sealer = sealer();
    let mut again = Vec::new();
    for len in [0, 1, 11, 12, 13, 63, 64, 65, 1000, 128 << 10, LIMIT] {
        for content in [text(len), noise(len)] {
            for compression in [Compression::None, Compression::Zstd(1), Compression::Zstd(3)] {
                for min_len in [0, 64, 100, 4096] {
                    let block = sealed(&content, compression, min_len);
                    assert!(block.len() >= min_len && block.len().is_multiple_of(STEP));
                    assert_eq!(sealer.open(&place(), &block, len).unwrap(), content);
                    sealer.open_in_place(&place(), &mut block.clone(), LIMIT, &mut again).unwrap();
                    assert_eq!(again, content);
                }
            }
        }
    }
}

#[test]
fn blocks_are_appended_and_no_longer_than_they_need_be() {
    let sealer = sealer();
    let mut out = b"before".to_vec();
    let len = sealer.seal(&place(), &[5; 12], Compression::Zstd(3), 0, &mut out);
    assert_eq!((len, out.len(), &out[..6]), (64, 70, &b"before"[..]));
    assert_eq!(sealer.open(&place(), &out[6..], 12).unwrap(), [5; 12]);
    assert_eq!(sealed(&[5; 13], Compression::None, 0).len(), 128);
    assert_eq!(sealed(&[5; 64], Compression::Zstd(3), 128).len(), 128);
    assert_eq!(sealed(&noise(100_000), Compression::Zstd(3), 0).len(), 100_096);
    assert!(sealed(&text(100_000), Compression::Zstd(3), 0).len() < 1024);
}

#[test]
fn a_flipped_bit_or_another_length_is_damage() {
    let sealer = sealer();
    let block = sealed(b"a small content that takes two steps", Compression::None, 0);
    for bit in 0..block.len() * 8 {
        let mut bad = block.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(sealer.open(&place(), &bad, LIMIT), Err(FormatError::Damaged(_))), "bit {bit}");
    }
    for len in (0..block.len()).chain([block.len() + 1, block.len() + STEP]) {
        let mut bad = block.clone();
        bad.resize(len, 0);
        assert!(matches!(sealer.open(&place(), &bad, LIMIT), Err(FormatError::Damaged(_))), "length {len}");
    }
}

#[test]
fn a_block_opens_only_in_its_place() {
    let mut ring = KeyRing::fixed([0x42; 32]);
    let second = ring.add_generation(0).unwrap();
    let two = Sealer::new(VaultId([7; 16]), &ring, 1).unwrap();
    let block = sealed(b"here", Compression::None, 0);
    assert_eq!(two.open(&place(), &block, LIMIT).unwrap(), b"here");
    let elsewhere = [
        BlockPlace { position: 128, ..place() },
        BlockPlace { object_id: ObjectId([8; 16]), ..place() },
        BlockPlace { kind: BlockKind::TreeFrame, ..place() },
        BlockPlace { generation: second, ..place() },
    ];
    for wrong in elsewhere {
        assert!(matches!(two.open(&wrong, &block, LIMIT), Err(FormatError::Damaged(_))), "{wrong:?}");
    }
    let other_vault = Sealer::new(VaultId([8; 16]), &ring, 1).unwrap();
    assert!(matches!(other_vault.open(&place(), &block, LIMIT), Err(FormatError::Damaged(_))));
}

#[test]
fn kinds_that_share_a_key_are_still_told_apart() {
    let sealer = sealer();
    let directory = BlockPlace { kind: BlockKind::PackDirectory, ..place() };
    let mut block = Vec::new();
    sealer.seal(&directory, b"names", Compression::None, 0, &mut block);
    assert!(sealer.open(&directory, &block, LIMIT).is_ok());
    let footer = BlockPlace { kind: BlockKind::PackFooter, ..place() };
    assert!(matches!(sealer.open(&footer, &block, LIMIT), Err(FormatError::Damaged(_))));
}

#[test]
fn a_generation_that_is_not_in_the_ring_is_named() {
    let block = sealed(b"here", Compression::None, 0);
    let later = BlockPlace { generation: 5, ..place() };
    let error = sealer().open(&later, &block, LIMIT).unwrap_err();
    assert_eq!(error, FormatError::NoKey(5));
    assert!(matches!(Sealer::new(VaultId([7; 16]), &KeyRing::generate(0), 2), Err(FormatError::NoKey(2))));
}

#[test]
fn two_seals_of_one_content_differ() {
    let (a, b) = (sealed(b"same", Compression::None, 0), sealed(b"same", Compression::None, 0));
    assert_ne!(a[..24], b[..24]);
    assert_ne!(a[24..], b[24..]);
}

/// Inner plaintext: header, payload, padding.
fn inner(encoding: u8, payload_len: u32, raw_len: u32, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![encoding, 0, 0, 0];
    out.u32(payload_len);
    out.u32(raw_len);
    out.raw(rest);
    out
}

fn open_hostile(plain: &[u8], limit: usize) -> Result<Vec<u8>, FormatError> {
    let sealer = sealer();
    let mut block = block::seal_inner(sealer.with(&place()), &sealer.binding(&place()), plain);
    let mut out = Vec::new();
    let opened = sealer.open_in_place(&place(), &mut block, limit, &mut out);
    assert!(out.capacity() <= limit.max(64), "{} bytes allocated where {limit} are allowed", out.capacity());
    opened.map(|()| out)
}

#[test]
fn hostile_plaintexts_are_refused_within_the_limit() {
    let frame = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
    let len = frame.len() as u32;
    let unsized_frame = [&frame[..4], &[0b0000_0000, 0, 1, 0, 0]].concat();
    let cases: [(&str, Vec<u8>, usize, &str); 10] = [
        ("raw length of 2 GiB", inner(0, 4, 1 << 31, b"abcd"), 1000, "limit"),
        ("compressed content of 2 GiB", inner(1, len, 1 << 31, &frame), 1000, "limit"),
        ("content above the limit", inner(1, len, 1 << 20, &frame), (1 << 20) - 1, "limit"),
        ("bomb that says it is small", inner(1, len, 1000, &frame), 1000, "length"),
        ("frame that hides its length", inner(1, 9, 0, &unsized_frame), 1000, "length"),
        ("payload longer than the block", inner(0, 1 << 31, 4, b"abcd"), 1000, "early"),
        ("garbage after the payload", inner(0, 4, 4, b"abcd\0\0x"), 1000, "padding"),
        (
            "garbage after a frame",
            inner(1, len + 1, 1 << 20, &[&frame[..], b"x"].concat()),
            1 << 20,
            "exactly one",
        ),
        ("raw lengths that differ", inner(0, 4, 3, b"abcd"), 1000, "differ"),
        ("unknown encoding", inner(2, 4, 4, b"abcd"), 1000, "encoding 2"),
    ];
    for (what, plain, limit, why) in cases {
        match open_hostile(&plain, limit) {
            Err(FormatError::Damaged(detail)) => assert!(detail.contains(why), "{what}: {detail}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(open_hostile(&inner(0, 4, 4, b"abcd"), 4).unwrap(), b"abcd");
    assert_eq!(open_hostile(&inner(1, len, 1 << 20, &frame), 1 << 20).unwrap(), vec![0; 1 << 20]);
}

#[test]
fn padding_is_held_to_zero_in_every_byte() {
    for at in 0..100 {
        let mut padding = vec![0; 100];
        padding[at] = 1;
        let plain = inner(0, 2, 2, &[b"ab".as_slice(), &padding].concat());
        assert!(matches!(open_hostile(&plain, 10), Err(FormatError::Damaged(_))), "byte {at}");
    }
}

#[test]
fn reserved_bytes_of_a_block_are_ignored() {
    let mut plain = inner(0, 2, 2, b"ab");
    plain[1..4].fill(0xff);
    assert_eq!(open_hostile(&plain, 10).unwrap(), b"ab");
}

/// Computed from `docs/format.md` by another program.
#[test]
fn subkeys_and_names_are_the_bytes_they_have_always_been() {
    let (vault, master) = (VaultId([7; 16]), [0x42; 32]);
    let golden = [
        ("chunk id", "9a8c622c5cec1b8b16490eabb8f0a12528d5949f33ccabc128d16651f908cbb3"),
        ("chunker", "8fe9f400b28dd73d8179d0c0f888ba622f559250fe3deb49326bd95370114aba"),
        ("names", "e7fd7c93396b9ac476912d6ce0c3b943d6716adabe609aaf081d6fbc979b245c"),
        ("data", "680cb5de3dfd735c0867bc6f9c54b97ed8ef33e7a8e300da32bbdb753faf0982"),
        ("tree", "471aa55a3aaa9aa7a4f821b17df0b514a6bbdce53847340ae529d84c21523af4"),
        ("index", "d4d87775b7b281c62cc4a08c303611322c5ff8177bb7fe0760eddbe40ee05803"),
        ("point", "75d5d603e09f430cbe2c8e2e9947f714fb75a4a3565aff57ba1c97be805a7481"),
        ("config", "d5ae03288ede3d48226692d2e5fa1e4caafd897200a939df96bf4f9204444fff"),
        ("nonce", "37893ba2c6655d66b7b4aca14490f4373a5e6db600b3e25a7d580cb141cb3c1e"),
    ];
    for (purpose, bytes) in golden {
        assert_eq!(to_hex(&*subkey(&vault, &master, purpose)), bytes, "{purpose}");
    }
    let s = sealer();
    assert_eq!(
        s.chunk_id(ChunkType::Data, b"holdfast").hex(),
        "c1cb95fcc1fd1d8d8337750ba5973bb31cb33a9d9b117fde6fc2064af3d62fad"
    );
    assert_eq!(s.source_tag("host", "group", "source").hex(), "2f0022f46cc5182e26509cd8f4299a08");
    let gear = s.gear_table();
    assert_eq!(
        [gear[0], gear[1], gear[255]],
        [0x1968_d487_2447_f657, 0xcb58_9435_8383_d78e, 0xb1e5_331b_c040_7c68]
    );
}

/// Made from `docs/format.md` by another program, with another AES.
#[test]
fn a_block_that_another_implementation_sealed_opens() {
    let block = concat!(
        "000102030405060708090a0b0c0d0e0f101112131415161798097285b72324a6",
        "223a71f738bb5e165b6d1dc30aee227011cac3e0d20aaa89613a8bbc04cd6575"
    );
    let block = from_hex(block).unwrap();
    assert_eq!(sealer().open(&place(), &block, 6).unwrap(), b"golden");
}

#[test]
fn a_name_depends_on_each_of_its_parts() {
    let s = sealer();
    assert_ne!(s.chunk_id(ChunkType::Data, b"x"), s.chunk_id(ChunkType::Tree, b"x"));
    assert_ne!(s.chunk_id(ChunkType::Data, b"x"), s.chunk_id(ChunkType::Data, b"y"));
    assert_ne!(s.source_tag("ab", "c", "d"), s.source_tag("a", "bc", "d"));
    assert_ne!(s.source_tag("a", "b", "c"), s.source_tag("a", "b", "d"));
    let other = Sealer::new(VaultId([8; 16]), &KeyRing::fixed([0x42; 32]), 1).unwrap();
    assert_ne!(s.chunk_id(ChunkType::Data, b"x"), other.chunk_id(ChunkType::Data, b"x"));
    assert_ne!(s.gear_table(), other.gear_table());
}

#[test]
fn a_new_generation_seals_and_keeps_all_names() {
    let mut ring = KeyRing::fixed([0x42; 32]);
    let second = ring.add_generation(1).unwrap();
    let (one, two) = (sealer(), Sealer::new(VaultId([7; 16]), &ring, 1).unwrap());
    assert_eq!((one.generation(), two.generation()), (1, second));
    assert_eq!(one.chunk_id(ChunkType::Data, b"x"), two.chunk_id(ChunkType::Data, b"x"));
    assert_eq!(one.source_tag("a", "b", "c"), two.source_tag("a", "b", "c"));
    assert_eq!(one.gear_table(), two.gear_table());
}

#[test]
fn a_printed_sealer_shows_no_key() {
    let text = format!("{:?}", sealer());
    assert_eq!(text, format!("Sealer(vault {}, generation 1)", "07".repeat(16)));
}
