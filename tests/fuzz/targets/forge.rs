//! Objects as somebody would make them who has the keys and means harm: sealed rightly around any bytes. Sealing is written here once more, from
//! `docs/format.md`, because the engine seals only what is sound.

use std::sync::{Arc, LazyLock};

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};
use holdfast_store::chance::Chance;
use holdfast_store::format::{Header, ObjectKind};
use holdfast_store::id::{ObjectId, VaultId};
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::{BlockKind, BlockPlace, Compression, Sealer};

pub const VAULT: VaultId = VaultId([7; 16]);
pub const MASTER: [u8; 32] = [0x42; 32];
pub const OBJECT: ObjectId = ObjectId([9; 16]);
pub const GENERATION: u32 = 1;

/// The sealer of the store that all forged objects are of. Chance is always the same, and so is what is sealed.
pub static SEALER: LazyLock<Sealer> = LazyLock::new(|| {
    let sealer =
        Sealer::new(VAULT, &KeyRing::fixed(MASTER), GENERATION).expect("the ring has the generation");
    sealer.with_chance(Arc::new(NoChance))
});

#[derive(Debug)]
struct NoChance;

impl Chance for NoChance {
    fn id(&self) -> [u8; 16] {
        OBJECT.0
    }

    fn hedge(&self) -> [u8; 32] {
        [5; 32]
    }

    fn part(&self) -> f64 {
        0.5
    }
}

/// Takes from the front of the input; what is not there is zero, or empty.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// Bytes after a length of two bytes.
    pub fn part(&mut self) -> &'a [u8] {
        let n = self.u16();
        self.take(usize::from(n))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The other direction of [`Input::part`], for seeds.
pub fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend(u16::try_from(part.len()).expect("a short part").to_le_bytes());
    out.extend(part);
}

pub fn header(kind: ObjectKind, object_id: ObjectId) -> Vec<u8> {
    Header { kind, object_id, generation: GENERATION }.encode(&VAULT).to_vec()
}

/// Appends a sealed block of any content.
pub fn seal(out: &mut Vec<u8>, kind: BlockKind, object_id: ObjectId, content: &[u8]) {
    let place = BlockPlace { kind, object_id, generation: GENERATION, position: out.len() as u64 };
    SEALER.seal(&place, content, Compression::Zstd(1), 0, out);
}

/// An object of a header and one block of any content.
pub fn object(kind: ObjectKind, block: BlockKind, object_id: ObjectId, content: &[u8]) -> Vec<u8> {
    let mut out = header(kind, object_id);
    seal(&mut out, block, object_id, content);
    out
}

/// The subkey of the one master key.
pub fn subkey(purpose: &str) -> [u8; 32] {
    blake3::derive_key(&format!("holdfast v1 {purpose}"), &[&MASTER[..], &VAULT.0[..]].concat())
}

/// A sealed block of any bytes: encoding, lengths, payload and padding are what `inner` says. It is made longer to a multiple of 64.
pub fn seal_inner(
    key: &[u8; 32],
    object_id: ObjectId,
    kind: u8,
    generation: u32,
    position: u64,
    inner: &[u8],
) -> Vec<u8> {
    let len = (24 + inner.len() + 16).next_multiple_of(64);
    let mut plain = inner.to_vec();
    plain.resize(len - 40, 0);
    let mut additional = b"holdfast block 1".to_vec();
    additional.extend(VAULT.0);
    additional.extend(object_id.0);
    additional.extend([kind, 1, 0, 0]);
    additional.extend(generation.to_le_bytes());
    additional.extend(position.to_le_bytes());
    additional.extend((len as u32).to_le_bytes());
    additional.extend([0; 4]);
    let nonce = [0x33; 24];
    [&nonce[..], &xaes_seal(key, &nonce, &plain, &additional)].concat()
}

/// XAES-256-GCM as C2SP specifies it.
fn xaes_seal(key: &[u8; 32], nonce: &[u8; 24], plain: &[u8], additional: &[u8]) -> Vec<u8> {
    let (first, second) = nonce.split_at(12);
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
        message[4..].copy_from_slice(first);
        encrypt((u128::from_be_bytes(message) ^ mask).to_be_bytes())
    };
    let derived: Vec<u8> = [half(1), half(2)].concat();
    let derived: [u8; 32] = derived.try_into().expect("two halves");
    let second: [u8; 12] = second.try_into().expect("the rest of the nonce");
    Aes256Gcm::new(&derived.into())
        .encrypt(&second.into(), Payload { msg: plain, aad: additional })
        .expect("a short text is encrypted")
}
