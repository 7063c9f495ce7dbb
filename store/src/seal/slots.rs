//! Key slots: ways from a passphrase, a recovery key or a machine key to the key ring (`docs/format.md`, section 6).
//!
//! AES-GCM does not commit to its key, so a slot carries a commitment that is compared first. It and a plain checksum
//! tell a mistyped passphrase from a damaged slot: with the checksum right and the commitment wrong, it was the secret.

mod kdf;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::Zeroizing;

pub use kdf::KdfParams;

use super::Compression;
use super::block::{self, Binding};
use super::keys::{Key, KeyRing};
use super::writer::{OwnerKey, SEED_LEN};
use super::xaes::Xaes256Gcm;
use crate::chance::SystemChance;
use crate::error::StoreError;
use crate::format::{FormatError, Header, ObjectKind, Parser, Put};
use crate::id::{ObjectId, SlotId, VaultId, random_bytes};

/// Block kind of the key ring in a slot.
const KEY_RING_BLOCK: u8 = 12;
/// What the commitment covers: the header and the fields before the commitment.
const COMMITTED_LEN: usize = 144;
/// What the checksum covers: all before it.
const CHECKED_LEN: usize = 176;
/// Where the sealed key ring begins.
pub(crate) const BLOCK_AT: usize = 180;
/// Lengths of sealed blocks are multiples of this.
const BLOCK_STEP: usize = 64;
/// Longest slot object, and so the limit of its content.
const SLOT_MAX: usize = 64 << 10;
/// The generation that a ring begins with.
pub const FIRST_GENERATION: u32 = 1;
/// Of the flags of a slot: the owner's key is in it.
const HAS_OWNER: u32 = 1;
/// Longest label that is written, in bytes.
const LABEL_MAX: usize = 255;

/// What opens a slot. Wiped when dropped.
pub enum Secret {
    /// What a person typed, as typed.
    Passphrase(Zeroizing<String>),
    /// The key on the recovery sheet.
    Recovery(Zeroizing<[u8; 32]>),
    /// The key in a file of the machine.
    Machine(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.kind())
    }
}

impl Secret {
    /// A new random recovery key.
    pub fn new_recovery() -> Self {
        Self::Recovery(Zeroizing::new(random_bytes()))
    }

    /// A new random machine key.
    pub fn new_machine() -> Self {
        Self::Machine(Zeroizing::new(random_bytes()))
    }

    /// The kind of slot that it opens.
    pub fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
            Self::Recovery(_) => SlotKind::Recovery,
            Self::Machine(_) => SlotKind::Machine,
        }
    }

    /// The slot key, from which the slot's other keys come. `params` only where the secret is a passphrase.
    fn slot_key(&self, salt: &[u8; 32], params: Option<&KdfParams>) -> Result<Key, SlotError> {
        let random = |purpose: &str, secret: &[u8; 32]| {
            let mut material = Zeroizing::new([0; 64]);
            material[..32].copy_from_slice(secret);
            material[32..].copy_from_slice(salt);
            Zeroizing::new(blake3::derive_key(&format!("holdfast v1 slot {purpose}"), &*material))
        };
        match self {
            Self::Passphrase(text) => params.unwrap_or(&KdfParams::floor()).derive(text.as_bytes(), salt),
            Self::Recovery(secret) => Ok(random("recovery", secret)),
            Self::Machine(secret) => Ok(random("machine", secret)),
        }
    }
}

/// What a slot is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// A passphrase, through Argon2id.
    Passphrase = 1,
    /// The 24 words of the recovery sheet.
    Recovery = 2,
    /// A machine key file.
    Machine = 3,
}

impl SlotKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Passphrase, Self::Recovery, Self::Machine].into_iter().find(|k| *k as u8 == byte)
    }

    /// 1 for Argon2id, 2 for BLAKE3.
    fn derivation(self) -> u8 {
        if self == Self::Passphrase { 1 } else { 2 }
    }
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase => "passphrase",
            Self::Recovery => "recovery key",
            Self::Machine => "machine key",
        })
    }
}

/// Why a slot does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The slot is whole, the secret is not the right one.
    #[error("the {0} does not fit this slot")]
    WrongKey(SlotKind),
    /// The slot opens with another kind of secret.
    #[error("this slot opens with a {slot}, not with a {given}")]
    WrongKind {
        /// Kind of the slot.
        slot: SlotKind,
        /// Kind of the secret.
        given: SlotKind,
    },
    /// The slot's bytes are not what they must be.
    #[error("{0}")]
    Damaged(String),
    /// Made by a newer program.
    #[error("{0}")]
    TooNew(String),
    /// Not a slot of this store.
    #[error("{0}")]
    NotOurs(String),
    /// Deriving the key failed: most likely there was not enough memory.
    #[error("deriving a key with {memory_mib} MiB of memory failed: {detail}")]
    Derivation {
        /// Memory it asked for, in MiB.
        memory_mib: u32,
        /// What Argon2 said.
        detail: String,
    },
    /// The label of a new slot is too long.
    #[error("a label has at most {LABEL_MAX} bytes")]
    LabelTooLong,
}

impl From<FormatError> for SlotError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Damaged(detail) => Self::Damaged(detail),
            FormatError::TooNew(detail) => Self::TooNew(detail),
            FormatError::NotOurs(detail) => Self::NotOurs(detail),
            // A slot is sealed with its own key.
            e @ FormatError::NoKey(_) => Self::Damaged(e.to_string()),
        }
    }
}

impl SlotError {
    /// The same, with the slot's object named.
    pub fn of(self, object: impl Into<String>) -> StoreError {
        let object = object.into();
        match self {
            Self::Damaged(detail) => StoreError::Corrupt { object, detail },
            Self::TooNew(detail) => StoreError::TooNew { object, detail },
            Self::NotOurs(detail) => StoreError::NotOurs { object, detail },
            Self::WrongKey(_) | Self::WrongKind { .. } => {
                StoreError::WrongKey { detail: format!("{object}: {self}") }
            }
            Self::Derivation { .. } | Self::LabelTooLong => StoreError::invalid(format!("{object}: {self}")),
        }
    }
}

/// What a slot says of itself without a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySlot {
    /// Its id; the object's name is `keys/<hex>`.
    pub id: SlotId,
    /// What opens it.
    pub kind: SlotKind,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Of a passphrase slot: how much work opening it is.
    pub params: Option<KdfParams>,
    /// The newest generation of the ring in it, as it says itself; 0 in slots of before, which do not.
    generation: u32,
    /// Whether it says that the owner's key is in it, which what opens it proves.
    pub has_owner: bool,
    salt: [u8; 32],
}

impl KeySlot {
    /// The bytes of a new slot object that opens to `ring`. Its id is random: [`KeySlot::read`] tells it. `params`
    /// matter only for a passphrase; `now` is in seconds since 1970.
    pub fn create(
        vault: &VaultId,
        ring: &KeyRing,
        secret: &Secret,
        label: &str,
        params: &KdfParams,
        now: i64,
    ) -> Result<Vec<u8>, SlotError> {
        if label.len() > LABEL_MAX {
            return Err(SlotError::LabelTooLong);
        }
        let kind = secret.kind();
        let params = (kind == SlotKind::Passphrase).then_some(*params);
        let (id, generation) = (SlotId::random(), ring.newest());
        let has_owner = kind != SlotKind::Machine && ring.owner().is_some();
        let slot = Self { id, kind, created: now, params, generation, has_owner, salt: random_bytes() };
        let keys = SlotKeys::derive(&*secret.slot_key(&slot.salt, params.as_ref())?);
        let mut out = slot.encode_fields(vault);
        out.raw(keys.commitment(&out).as_bytes());
        out.u32(crc32c::crc32c(&out));
        let content = encode_content(ring, label, kind);
        let with = block::With { cipher: &keys.seal, nonce_key: &keys.nonce, chance: &SystemChance };
        block::seal(with, &slot.binding(vault), &content, Compression::None, 0, &mut out);
        Ok(out)
    }

    /// Reads what a slot says of itself. All bytes but those of the sealed ring are checked.
    pub fn read(bytes: &[u8], vault: &VaultId) -> Result<Self, SlotError> {
        let header = Header::decode(bytes, ObjectKind::KeySlot, Some(vault))?;
        // A sealed block is padded to 64 bytes: one that was cut shows it, most often.
        let is_cut = bytes.len() <= BLOCK_AT || !(bytes.len() - BLOCK_AT).is_multiple_of(BLOCK_STEP);
        if is_cut || bytes.len() > SLOT_MAX {
            return Err(SlotError::Damaged(format!("a key slot of {} bytes", bytes.len())));
        }
        let crc = Parser::new(&bytes[CHECKED_LEN..]).u32()?;
        if crc != crc32c::crc32c(&bytes[..CHECKED_LEN]) {
            return Err(SlotError::Damaged("checksum of the key slot".into()));
        }
        Self::decode_fields(&header, &bytes[crate::format::HEADER_LEN..], vault)
    }

    /// The newest generation of the ring in it, as it says to everybody; what opens it proves it. Slots that do not say were made when there
    /// was only the first.
    pub fn newest(&self) -> u32 {
        self.generation.max(FIRST_GENERATION)
    }

    /// Opens a slot: the key ring, with the owner's key if a person opens it and it has that, and the slot's label. Bounds are checked before any work is done.
    pub fn open(bytes: &[u8], vault: &VaultId, secret: &Secret) -> Result<(KeyRing, String), SlotError> {
        let slot = Self::read(bytes, vault)?;
        if slot.kind != secret.kind() {
            return Err(SlotError::WrongKind { slot: slot.kind, given: secret.kind() });
        }
        let keys = SlotKeys::derive(&*secret.slot_key(&slot.salt, slot.params.as_ref())?);
        let stored: [u8; 32] = Parser::new(&bytes[COMMITTED_LEN..]).array()?;
        // Equality of BLAKE3 hashes takes constant time.
        if keys.commitment(&bytes[..COMMITTED_LEN]) != blake3::Hash::from_bytes(stored) {
            return Err(SlotError::WrongKey(slot.kind));
        }
        let mut block = Zeroizing::new(bytes[BLOCK_AT..].to_vec());
        let mut content = Zeroizing::new(Vec::with_capacity(bytes.len()));
        block::open(&keys.seal, &slot.binding(vault), &mut block, SLOT_MAX, &mut content)?;
        let (ring, label) = decode_content(&content, slot.kind)?;
        if slot.generation != 0 && slot.generation != ring.newest() {
            return Err(SlotError::Damaged(format!("it says generation {} of its ring", slot.generation)));
        }
        if slot.has_owner && ring.owner().is_none() {
            return Err(SlotError::Damaged("it says that it has the owner's key, and has none".into()));
        }
        Ok((ring, label))
    }

    /// Header and fields before the commitment.
    fn encode_fields(&self, vault: &VaultId) -> Vec<u8> {
        let header = Header { kind: ObjectKind::KeySlot, object_id: ObjectId(self.id.0), generation: 0 };
        let mut out = header.encode(vault).to_vec();
        out.raw(&[self.kind as u8, self.kind.derivation(), 0, 0]);
        KdfParams::encode(self.params.as_ref(), &mut out);
        out.i64(self.created);
        out.raw(&self.salt);
        out.raw(&vault.0);
        out.u32(self.generation);
        out.u32(if self.has_owner { HAS_OWNER } else { 0 });
        out
    }

    /// Reads the fields after the header, whose checksum holds.
    fn decode_fields(header: &Header, fields: &[u8], vault: &VaultId) -> Result<Self, SlotError> {
        let mut p = Parser::new(fields);
        let [kind, derivation, ..] = p.array::<4>()?;
        let kind = SlotKind::from_byte(kind).ok_or_else(|| SlotError::TooNew(format!("slot kind {kind}")))?;
        if derivation != kind.derivation() {
            return Err(SlotError::TooNew(format!("derivation {derivation} of a {kind}")));
        }
        let params = KdfParams::decode(&mut p, kind == SlotKind::Passphrase)?;
        let (created, salt) = (p.i64()?, p.array()?);
        if p.array()? != vault.0 {
            return Err(SlotError::NotOurs("the slot names another store".into()));
        }
        let (generation, flags) = (p.u32()?, p.u32()?);
        if header.generation != 0 {
            return Err(SlotError::Damaged(format!("key generation {} in a slot", header.generation)));
        }
        let has_owner = flags & HAS_OWNER != 0;
        Ok(Self { id: SlotId(header.object_id.0), kind, created, params, generation, has_owner, salt })
    }

    fn binding<'a>(&self, vault: &'a VaultId) -> Binding<'a> {
        Binding {
            vault,
            object_id: ObjectId(self.id.0),
            kind: KEY_RING_BLOCK,
            generation: 0,
            position: BLOCK_AT as u64,
        }
    }
}

/// What the slot key is used for, each with a key of its own.
struct SlotKeys {
    check: Key,
    seal: Xaes256Gcm,
    nonce: Key,
}

impl SlotKeys {
    fn derive(slot_key: &[u8; 32]) -> Self {
        let key = |context| Zeroizing::new(blake3::derive_key(context, slot_key));
        Self {
            check: key("holdfast v1 slot check"),
            seal: Xaes256Gcm::new(&key("holdfast v1 slot seal")),
            nonce: key("holdfast v1 slot nonce"),
        }
    }

    fn commitment(&self, committed: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.check, committed)
    }
}

/// A machine's slot never has the owner's key: a machine that has the ring alone admits nobody.
fn encode_content(ring: &KeyRing, label: &str, kind: SlotKind) -> Zeroizing<Vec<u8>> {
    let owner = ring.owner().filter(|_| kind != SlotKind::Machine).map_or(&[][..], |owner| owner.seed());
    let mut content = Zeroizing::new(Vec::with_capacity(ring.encoded_len() + label.len() + 4 + SEED_LEN));
    ring.encode(&mut content);
    content.bytes16(label.as_bytes());
    content.bytes16(owner);
    content
}

fn decode_content(content: &[u8], kind: SlotKind) -> Result<(KeyRing, String), FormatError> {
    let mut p = Parser::new(content);
    let ring = KeyRing::decode(&mut p)?;
    let label = p.text16()?;
    // What a later program put there in other lengths is not for this one.
    let seed: Option<[u8; SEED_LEN]> = p.bytes16()?.try_into().ok();
    p.end()?;
    Ok(match seed.filter(|_| kind != SlotKind::Machine) {
        Some(seed) => (ring.owned_by(OwnerKey::from_seed(seed)), label),
        None => (ring, label),
    })
}
