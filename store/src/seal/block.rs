//! The one kind of encrypted block that everything is made of (`docs/format.md`, section 4): built, sealed, opened.

use crate::chance::Chance;
use crate::format::{FormatError, Parser, Put, STEP, SUITE};
use crate::id::{ObjectId, VaultId};

use super::xaes::{NONCE_LEN, TAG_LEN, Xaes256Gcm};
use super::{Compression, squeeze};

/// Encoding, reserved, payload length, raw length.
const INNER_HEADER_LEN: usize = 12;
/// What a block has beside payload and padding.
const OVERHEAD: usize = NONCE_LEN + INNER_HEADER_LEN + TAG_LEN;

/// Payload is the content.
const RAW: u8 = 0;
/// Payload is one zstd frame.
const ZSTD: u8 = 1;

/// Everything a block is bound to but its length.
#[derive(Clone, Copy)]
pub(super) struct Binding<'a> {
    pub vault: &'a VaultId,
    pub object_id: ObjectId,
    pub kind: u8,
    pub generation: u32,
    pub position: u64,
}

impl Binding<'_> {
    /// The 72 bytes that are authenticated with the block.
    fn additional_data(&self, sealed_len: u32) -> Vec<u8> {
        let mut aad = Vec::with_capacity(72);
        aad.raw(b"holdfast block 1");
        aad.raw(&self.vault.0);
        aad.raw(&self.object_id.0);
        aad.raw(&[self.kind, SUITE, 0, 0]);
        aad.u32(self.generation);
        aad.u64(self.position);
        aad.u32(sealed_len);
        aad.u32(0);
        aad
    }
}

/// What a block is sealed with.
#[derive(Clone, Copy)]
pub(super) struct With<'a> {
    pub cipher: &'a Xaes256Gcm,
    pub nonce_key: &'a [u8; 32],
    pub chance: &'a dyn Chance,
}

/// Appends the sealed block of `content` to `out` and returns its length.
pub(super) fn seal(
    with: With<'_>,
    binding: &Binding<'_>,
    content: &[u8],
    compression: Compression,
    min_len: usize,
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    let smallest = STEP.max(min_len);
    out.reserve(smallest.max(content.len() + OVERHEAD + STEP));
    out.resize(start + NONCE_LEN, 0);
    put_inner(content, compression, smallest, out);
    let inner_len = out.len() - start - NONCE_LEN;
    let sealed_len = (NONCE_LEN + inner_len + TAG_LEN).max(smallest).next_multiple_of(STEP);
    out.resize(start + sealed_len, 0);
    encrypt(with, binding, &mut out[start..]);
    sealed_len
}

/// Content made ready for sealing before its place is known: compressed, with the inner header before it.
#[derive(Debug)]
pub struct Prepared {
    inner: Vec<u8>,
    raw_len: u32,
    min_len: usize,
}

impl Prepared {
    /// Length of the content.
    pub fn raw_len(&self) -> u32 {
        self.raw_len
    }

    /// Length of the block that it will become.
    pub fn block_len(&self) -> usize {
        (self.inner.len() + NONCE_LEN + TAG_LEN).max(self.min_len).next_multiple_of(STEP)
    }

    /// The same, to become a block of at least `len` bytes.
    pub fn lengthened(self, len: usize) -> Self {
        Self { min_len: len, ..self }
    }
}

/// Length of the block that `len` bytes of content become if they are not compressed.
pub fn uncompressed_len(len: usize) -> usize {
    (len + OVERHEAD).next_multiple_of(STEP)
}

/// Compresses `content` (kept raw when zstd gains under 3 %), which is the work; sealing it is little.
pub fn prepare(content: &[u8], compression: Compression) -> Prepared {
    let mut inner = Vec::with_capacity(content.len() / 2 + OVERHEAD);
    put_inner(content, compression, STEP, &mut inner);
    inner.shrink_to_fit();
    Prepared { inner, raw_len: len32(content.len()), min_len: 0 }
}

/// Appends the sealed block of what was prepared to `out` and returns its length.
pub(super) fn seal_prepared(
    with: With<'_>,
    binding: &Binding<'_>,
    prepared: &Prepared,
    out: &mut Vec<u8>,
) -> usize {
    let (start, sealed_len) = (out.len(), prepared.block_len());
    out.reserve(sealed_len);
    out.resize(start + NONCE_LEN, 0);
    out.raw(&prepared.inner);
    out.resize(start + sealed_len, 0);
    encrypt(with, binding, &mut out[start..]);
    sealed_len
}

/// Appends inner header and payload to `out`; no attempt to compress what fits a block of `smallest` bytes as it is.
fn put_inner(content: &[u8], compression: Compression, smallest: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + INNER_HEADER_LEN, 0);
    let worth_trying = content.len() + OVERHEAD > smallest;
    let compressed = match compression {
        Compression::Zstd(level) if worth_trying => squeeze::compress(content, level, out),
        _ => None,
    };
    let (encoding, payload_len) = match compressed {
        Some(len) => (ZSTD, len),
        None => {
            out.raw(content);
            (RAW, content.len())
        }
    };
    let mut header = Vec::with_capacity(INNER_HEADER_LEN);
    header.raw(&[encoding, 0, 0, 0]);
    header.u32(len32(payload_len));
    header.u32(len32(content.len()));
    out[start..][..INNER_HEADER_LEN].copy_from_slice(&header);
}

/// Encrypts a block whose plaintext stands between the room for its nonce and the room for its tag.
fn encrypt(with: With<'_>, binding: &Binding<'_>, block: &mut [u8]) {
    let aad = binding.additional_data(len32(block.len()));
    let (front, rest) = block.split_at_mut(NONCE_LEN);
    let (plain, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
    let nonce = hedged_nonce(with, &aad, plain);
    front.copy_from_slice(&nonce);
    tag.copy_from_slice(&with.cipher.seal_in_place(&nonce, &aad, plain));
}

/// A nonce that repeats only for an identical block, even if the system's random source repeats itself.
fn hedged_nonce(with: With<'_>, aad: &[u8], plain: &[u8]) -> [u8; NONCE_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(with.nonce_key);
    hasher.update(&with.chance.hedge()).update(aad).update(plain);
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_LEN]);
    nonce
}

/// Lengths in a block are of 32 bits; section 12 keeps every content far below that.
fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("a block is shorter than 4 GiB")
}

/// Opens a block where it stands and replaces what is in `out` by its content of at most `limit` bytes. `block` holds the
/// plaintext afterwards: whoever seals secrets passes one that is wiped.
pub(super) fn open(
    cipher: &Xaes256Gcm,
    binding: &Binding<'_>,
    block: &mut [u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), FormatError> {
    out.clear();
    let mut inner = Parser::new(decrypt(cipher, binding, block)?);
    let [encoding, ..] = inner.array::<4>()?;
    let (payload_len, raw_len) = (inner.u32()? as usize, inner.u32()? as usize);
    if raw_len > limit {
        return Err(FormatError::damaged(format!("a block of {raw_len} bytes where {limit} are the limit")));
    }
    let payload = inner.take(payload_len)?;
    if inner.take(inner.left())?.iter().any(|&byte| byte != 0) {
        return Err(FormatError::damaged("padding of a block is not zero"));
    }
    match encoding {
        RAW if payload_len == raw_len => out.raw(payload),
        RAW => return Err(FormatError::damaged("lengths of an uncompressed block differ")),
        ZSTD => squeeze::decompress(payload, raw_len, out)?,
        other => return Err(FormatError::damaged(format!("block encoding {other}"))),
    }
    Ok(())
}

/// The plaintext of a block, decrypted where it stands.
fn decrypt<'a>(
    cipher: &Xaes256Gcm,
    binding: &Binding<'_>,
    block: &'a mut [u8],
) -> Result<&'a [u8], FormatError> {
    let len = block.len();
    let bad_len = || FormatError::damaged(format!("a sealed block of {len} bytes"));
    if len == 0 || !len.is_multiple_of(STEP) {
        return Err(bad_len());
    }
    let aad = binding.additional_data(u32::try_from(len).map_err(|_| bad_len())?);
    let (nonce, rest) = block.split_first_chunk_mut().ok_or_else(bad_len)?;
    let (body, tag) = rest.split_last_chunk_mut().ok_or_else(bad_len)?;
    cipher
        .open_in_place(nonce, &aad, body, tag)
        .map_err(|_| FormatError::damaged("the seal of a block does not hold"))?;
    Ok(body)
}

/// Seals hand-made plaintext, header and padding included, for tests of what a reader refuses.
#[cfg(test)]
pub(super) fn seal_inner(with: With<'_>, binding: &Binding<'_>, inner: &[u8]) -> Vec<u8> {
    let mut block = vec![0; NONCE_LEN];
    block.raw(inner);
    block.resize((NONCE_LEN + inner.len() + TAG_LEN).next_multiple_of(STEP), 0);
    encrypt(with, binding, &mut block);
    block
}
