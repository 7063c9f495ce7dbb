//! The object header, the key ring's subkeys and the sealed block (sections 3 and 4 of the format).

use std::collections::BTreeMap;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};

use super::fields::{Fields, Read, Refused, must};

pub const CONFIG: u8 = 1;
pub const SLOT: u8 = 2;
pub const PACK: u8 = 3;
pub const INDEX: u8 = 4;
pub const POINT: u8 = 5;
pub const SESSION: u8 = 6;
pub const REVOCATION: u8 = 9;

/// Longest content of a data or tree frame.
pub const FRAME_LIMIT: usize = 4 << 20;
/// Longest content of any other block.
pub const BLOCK_LIMIT: usize = 64 << 20;
const WINDOW_LIMIT: u64 = 8 << 20;
const HEADER_LEN: usize = 64;

/// What the 64 plain bytes at the beginning of an object say.
pub struct Header {
    pub object_id: [u8; 16],
    pub generation: u32,
}

impl Header {
    /// Reads the header of an object that must be of `kind` and belong to `vault`.
    pub fn read(object: &[u8], kind: u8, vault: &[u8; 16]) -> Read<Self> {
        let mut plain = Fields::new(object);
        let head = plain.take(HEADER_LEN)?;
        must(&head[..8] == b"HOLDFAST", "the magic is ours")?;
        let mut tail = Fields::new(&head[60..]);
        must(tail.u32()? == crc32c::crc32c(&head[..60]), "the header's CRC is right")?;
        let mut fields = Fields::new(&head[8..60]);
        let [found, version, suite, _reserved] = fields.array()?;
        must(version == 1, "the format version is 1")?;
        let features = fields.u32()?;
        if features != 0 {
            return Err(Refused::new(format!("unknown feature bit {}", features.trailing_zeros())));
        }
        must(suite == 1, "the suite is 1")?;
        must(found == kind, "the object is of the kind its name says")?;
        must(fields.array()? == vault_tag(vault), "the object is of this vault")?;
        Ok(Self { object_id: fields.array()?, generation: fields.u32()? })
    }
}

fn vault_tag(vault: &[u8; 16]) -> [u8; 16] {
    let mut tag = [0; 16];
    let hash = blake3::hash(&[b"holdfast vault tag", &vault[..]].concat());
    tag.copy_from_slice(&hash.as_bytes()[..16]);
    tag
}

/// What a sealed block is bound to besides the vault and the object's header.
pub struct Place {
    pub kind: u8,
    pub position: u64,
}

/// The master keys of a vault by generation.
pub struct Ring {
    pub vault: [u8; 16],
    pub keys: BTreeMap<u32, [u8; 32]>,
}

impl Ring {
    pub fn subkey(&self, generation: u32, purpose: &str) -> Read<[u8; 32]> {
        let Some(master) = self.keys.get(&generation) else {
            return Err(Refused::new(format!("the ring has no generation {generation}")));
        };
        let material = [&master[..], &self.vault[..]].concat();
        Ok(blake3::derive_key(&format!("holdfast v1 {purpose}"), &material))
    }

    /// The content of a block sealed with the ring.
    pub fn open(&self, object: &Header, place: Place, sealed: &[u8]) -> Read<Vec<u8>> {
        let purpose = match place.kind {
            1 => "data",
            2 => "tree",
            3..=8 => "index",
            9 | 10 | 13..=15 => "point",
            _ => "config",
        };
        let key = self.subkey(object.generation, purpose)?;
        open_block(&key, &self.vault, object, place, sealed)
    }
}

/// The content of a sealed block.
pub fn open_block(
    key: &[u8; 32],
    vault: &[u8; 16],
    object: &Header,
    place: Place,
    sealed: &[u8],
) -> Read<Vec<u8>> {
    must(
        !sealed.is_empty() && sealed.len().is_multiple_of(64),
        "a sealed block's length is a multiple of 64",
    )?;
    let len = u32::try_from(sealed.len()).map_err(|_| Refused::new("a block of 4 GiB or more"))?;
    let mut additional = b"holdfast block 1".to_vec();
    additional.extend(vault);
    additional.extend(object.object_id);
    additional.extend([place.kind, 1, 0, 0]);
    additional.extend(object.generation.to_le_bytes());
    additional.extend(place.position.to_le_bytes());
    additional.extend(len.to_le_bytes());
    additional.extend([0; 4]);
    let limit = if place.kind <= 2 { FRAME_LIMIT } else { BLOCK_LIMIT };
    decode(&xaes_open(key, sealed, &additional)?, limit)
}

/// XAES-256-GCM as C2SP specifies it: `nonce[24] ‖ ciphertext ‖ tag[16]`.
fn xaes_open(key: &[u8; 32], sealed: &[u8], additional: &[u8]) -> Read<Vec<u8>> {
    let mut fields = Fields::new(sealed);
    let (first, second) = (fields.array::<12>()?, fields.array::<12>()?);
    let cipher = Aes256::new(&(*key).into());
    let encrypt = |block: [u8; 16]| {
        let mut block = block.into();
        cipher.encrypt_block(&mut block);
        <[u8; 16]>::from(block)
    };
    let zero = u128::from_be_bytes(encrypt([0; 16]));
    let mask = (zero << 1) ^ (if zero >> 127 == 1 { 0x87 } else { 0 });
    let half = |counter: u8| {
        let mut message = [0, counter, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        message[4..].copy_from_slice(&first);
        encrypt((u128::from_be_bytes(message) ^ mask).to_be_bytes())
    };
    let mut derived = [0; 32];
    derived[..16].copy_from_slice(&half(1));
    derived[16..].copy_from_slice(&half(2));
    Aes256Gcm::new(&derived.into())
        .decrypt(&second.into(), Payload { msg: &sealed[24..], aad: additional })
        .map_err(|_| Refused::new("a sealed block does not open: damaged, moved or of another key"))
}

/// The content in what was sealed: payload, decoded, without the padding.
fn decode(plain: &[u8], limit: usize) -> Read<Vec<u8>> {
    let mut fields = Fields::new(plain);
    let [encoding, ..] = fields.array::<4>()?;
    let (payload_len, raw_len) = (fields.u32()? as usize, fields.u32()? as usize);
    must(raw_len <= limit, "a block's content is within its limit")?;
    let payload = fields.take(payload_len)?;
    let padding = fields.take(plain.len() - 12 - payload_len)?;
    must(padding.iter().all(|b| *b == 0), "padding is zero")?;
    match encoding {
        0 => {
            must(payload_len == raw_len, "raw payload has the raw length")?;
            Ok(payload.to_vec())
        }
        1 => unsqueeze(payload, raw_len),
        _ => Err(Refused::new(format!("unknown encoding {encoding}"))),
    }
}

/// Decodes a zstd payload after the checks on its frame header (RFC 8878, 3.1.1.1).
fn unsqueeze(payload: &[u8], raw_len: usize) -> Read<Vec<u8>> {
    use zstd::zstd_safe;
    let mut fields = Fields::new(payload);
    must(fields.array()? == [0x28, 0xb5, 0x2f, 0xfd], "a zstd payload is a zstd frame")?;
    let single_segment = fields.u8()? & 0x20 != 0;
    let descriptor = u64::from(fields.u8()?);
    let base = 1 << (10 + (descriptor >> 3));
    let window = if single_segment { raw_len as u64 } else { base + base / 8 * (descriptor & 7) };
    must(window <= WINDOW_LIMIT, "a zstd window is at most 8 MiB")?;
    must(zstd_safe::get_dict_id_from_frame(payload).is_none(), "a zstd frame needs no dictionary")?;
    must(zstd_safe::find_frame_compressed_size(payload) == Ok(payload.len()), "a payload is one zstd frame")?;
    let content = zstd_safe::get_frame_content_size(payload).ok().flatten();
    must(content == Some(raw_len as u64), "a zstd frame's content size is there and is the raw length")?;
    let raw = zstd::bulk::decompress(payload, raw_len)
        .map_err(|e| Refused::new(format!("a zstd frame does not decode: {e}")))?;
    must(raw.len() == raw_len, "a decoded payload has the raw length")?;
    Ok(raw)
}

#[test]
fn a_sealed_text_of_the_specification_of_xaes_opens() {
    let ciphertext = "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271";
    let sealed =
        [b"ABCDEFGHIJKLMNOPQRSTUVWX".to_vec(), super::fields::from_hex(ciphertext).unwrap()].concat();
    assert_eq!(xaes_open(&[1; 32], &sealed, b"").unwrap(), b"XAES-256-GCM");
    let ciphertext = "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d";
    let sealed =
        [b"ABCDEFGHIJKLMNOPQRSTUVWX".to_vec(), super::fields::from_hex(ciphertext).unwrap()].concat();
    assert_eq!(xaes_open(&[3; 32], &sealed, b"c2sp.org/XAES-256-GCM").unwrap(), b"XAES-256-GCM");
}
