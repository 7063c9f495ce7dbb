//! Who made it: each machine signs its recovery points and sessions with a key of its own, which the store's owner admitted
//! (`docs/format.md`, section 14; `docs/decisions/signed-writers.md`).
//!
//! The ring is everybody's: it says that something was made by a machine of the store, and not by which. These keys are in no ring. That of the
//! owner lies in slots that people open, and that of a machine in a file beside its machine key. A machine that has the ring alone
//! can make neither.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::keys::Key;
use crate::error::StoreError;
use crate::format::{FormatError, Parser, Put};
use crate::id::{VaultId, WriterId, random_bytes};

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];
/// Length of an Ed25519 signature in bytes.
pub const SIGNATURE_LEN: usize = 64;
/// Length of a secret key in bytes: the seed of Ed25519.
pub const SEED_LEN: usize = 32;
/// Longest admission in bytes.
pub const ADMISSION_MAX: usize = 8 << 10;
/// Most hosts that a writer may write.
pub const HOSTS_MAX: usize = 16;
/// Longest name of a machine or host in bytes.
const NAME_MAX: usize = 255;
const VERSION: u8 = 1;

/// What is signed. Each has an introduction of its own, so that a signature of one kind is none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// That a machine may write: by the owner.
    Admission,
    /// A recovery point: by a writer.
    Point,
    /// A session: by a writer.
    Session,
}

impl Signed {
    fn introduction(self) -> &'static [u8; 16] {
        match self {
            Self::Admission => b"holdfast admit 1",
            Self::Point => b"holdfast point 1",
            Self::Session => b"holdfast begin 1",
        }
    }

    /// The bytes that go into the signature: what it is, of which store, and the hash of the content.
    fn message(self, vault: &VaultId, content: &[u8]) -> [u8; 64] {
        let mut message = [0; 64];
        message[..16].copy_from_slice(self.introduction());
        message[16..32].copy_from_slice(&vault.0);
        message[32..].copy_from_slice(blake3::hash(content).as_bytes());
        message
    }

    fn sign(self, seed: &[u8; SEED_LEN], vault: &VaultId, content: &[u8]) -> [u8; SIGNATURE_LEN] {
        SigningKey::from_bytes(seed).sign(&self.message(vault, content)).to_bytes()
    }

    /// Whether who has the secret half of `key` signed this content as this, of this store. Strict: keys and signatures that
    /// fit several messages are refused.
    pub fn is_by(self, key: &PublicKey, vault: &VaultId, content: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        let key = VerifyingKey::from_bytes(key);
        key.is_ok_and(|key| key.verify_strict(&self.message(vault, content), &signature).is_ok())
    }
}

fn public_of(seed: &[u8; SEED_LEN]) -> PublicKey {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// The secret of the store's owner: who has it says which machines may write. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnerKey(Key);

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerKey(…)")
    }
}

impl OwnerKey {
    /// A new random one.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random_bytes()))
    }

    /// The one with this seed.
    pub fn from_seed(seed: [u8; SEED_LEN]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// Its seed. Whoever asks must wipe it.
    pub(super) fn seed(&self) -> &[u8; SEED_LEN] {
        &self.0
    }

    /// What everybody may know of it.
    pub fn public(&self) -> PublicKey {
        public_of(&self.0)
    }

    /// Makes a key for a machine and admits it: it may write sources of these hosts. Names that are too long are cut, and of too many
    /// hosts the first are taken.
    pub fn admit(&self, vault: &VaultId, machine: &str, hosts: &[String], now: i64) -> WriterKey {
        let seed: Key = Zeroizing::new(random_bytes());
        let cut = |name: &str| {
            let mut name: String = name.chars().filter(|c| !c.is_control()).collect();
            while name.len() > NAME_MAX {
                name.pop();
            }
            name
        };
        let mut admission = Admission {
            owner: self.public(),
            key: public_of(&seed),
            admitted: now,
            machine: cut(machine),
            hosts: hosts.iter().take(HOSTS_MAX).map(|host| cut(host)).collect(),
            signature: [0; SIGNATURE_LEN],
        };
        admission.signature = Signed::Admission.sign(&self.0, vault, &admission.unsigned());
        WriterKey { seed, vault: *vault, encoded: admission.encode(), admission }
    }
}

/// What the owner says of a machine: its key, and what it may write. It stands in every point and session that the machine makes, so that nobody
/// can withhold it from who reads those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The owner who signed it.
    pub owner: PublicKey,
    /// The machine's key.
    pub key: PublicKey,
    /// When it was admitted, by the clock of where that was, in seconds since 1970.
    pub admitted: i64,
    /// Name of the machine, for people.
    pub machine: String,
    /// Hosts whose sources it may write.
    pub hosts: Vec<String>,
    signature: [u8; SIGNATURE_LEN],
}

impl Admission {
    fn unsigned(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.u8(VERSION);
        out.raw(&self.owner);
        out.raw(&self.key);
        out.i64(self.admitted);
        out.bytes8(self.machine.as_bytes());
        out.u8(self.hosts.len() as u8);
        self.hosts.iter().for_each(|host| out.bytes8(host.as_bytes()));
        out
    }

    /// The bytes that stand in points and sessions as their writer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.unsigned();
        out.raw(&self.signature);
        out
    }

    /// Reads them. Whether the owner signed it is for [`Self::is_by`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > ADMISSION_MAX {
            return Err(FormatError::damaged(format!("an admission of {} bytes", bytes.len())));
        }
        let mut p = Parser::new(bytes);
        let version = p.u8()?;
        if version != VERSION {
            return Err(FormatError::TooNew(format!("admission of version {version}")));
        }
        let (owner, key, admitted, machine) = (p.array()?, p.array()?, p.i64()?, name(&mut p)?);
        let count = usize::from(p.u8()?);
        if count > HOSTS_MAX {
            return Err(FormatError::damaged(format!("an admission for {count} hosts")));
        }
        let hosts = (0..count).map(|_| name(&mut p)).collect::<Result<_, _>>()?;
        let admission = Self { owner, key, admitted, machine, hosts, signature: p.array()? };
        p.end()?;
        Ok(admission)
    }

    /// The writer's id.
    pub fn id(&self) -> WriterId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"holdfast writer").update(&self.key);
        let mut id = [0; WriterId::LEN];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..WriterId::LEN]);
        WriterId(id)
    }

    /// Whether this owner signed it, for this store.
    pub fn is_by(&self, owner: &PublicKey, vault: &VaultId) -> bool {
        self.owner == *owner && Signed::Admission.is_by(owner, vault, &self.unsigned(), &self.signature)
    }

    /// Whether a host of this name can stand in an admission.
    pub fn can_name(host: &str) -> bool {
        host.len() <= NAME_MAX && !host.chars().any(char::is_control)
    }

    /// Whether it may write sources of a host.
    pub fn may_write(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| known == host)
    }
}

fn name(p: &mut Parser<'_>) -> Result<String, FormatError> {
    let bytes = p.bytes8()?;
    // It is shown to people, and anybody may have written it.
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control));
    text.map(str::to_owned).ok_or_else(|| FormatError::damaged("a name that is no plain text"))
}

/// A machine's key with its admission. Wiped when dropped.
#[derive(PartialEq, Eq)]
pub struct WriterKey {
    seed: Key,
    vault: VaultId,
    encoded: Vec<u8>,
    admission: Admission,
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterKey({} of store {})", self.admission.id(), self.vault)
    }
}

impl WriterKey {
    /// Puts a key and its admission together.
    ///
    /// # Errors
    /// `Invalid` if the admission is of another key or store, or nobody signed it.
    pub fn new(vault: VaultId, seed: Key, admission: Admission) -> Result<Self, StoreError> {
        if public_of(&seed) != admission.key || !admission.is_by(&admission.owner, &vault) {
            return Err(StoreError::invalid("the admission is not of this key and store"));
        }
        Ok(Self { seed, vault, encoded: admission.encode(), admission })
    }

    /// The store.
    pub fn vault(&self) -> &VaultId {
        &self.vault
    }

    /// What the owner said of it.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The same as it stands in what it signs.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Signs.
    pub fn sign(&self, what: Signed, content: &[u8]) -> Vec<u8> {
        what.sign(&self.seed, &self.vault, content).to_vec()
    }

    /// Its seed, to be kept in a file.
    pub(super) fn seed(&self) -> &[u8; SEED_LEN] {
        &self.seed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const VAULT: VaultId = VaultId([7; 16]);

    fn writer() -> (OwnerKey, WriterKey) {
        let owner = OwnerKey::from_seed([1; 32]);
        let writer = owner.admit(&VAULT, "alpha", &["alpha".into(), "beta".into()], 5);
        (owner, writer)
    }

    #[test]
    fn an_admission_is_as_documented_and_survives_a_round_trip() {
        let (owner, writer) = writer();
        let bytes = writer.encoded();
        let admission = Admission::decode(bytes).unwrap();
        assert_eq!(&admission, writer.admission());
        let expected = [
            &[1][..],
            &owner.public(),
            &admission.key,
            &5_i64.to_le_bytes(),
            b"\x05alpha\x02\x05alpha\x04beta",
        ]
        .concat();
        assert_eq!(bytes[..bytes.len() - SIGNATURE_LEN], expected);
        assert!(admission.may_write("beta") && !admission.may_write("bet") && !admission.may_write(""));
        // The public key of the seed of the first test of RFC 8032.
        let seed =
            crate::id::from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let public =
            crate::id::from_hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        assert_eq!(OwnerKey::from_seed(seed.try_into().unwrap()).public().to_vec(), public);
    }

    #[test]
    fn no_flipped_bit_and_no_truncation_of_an_admission_is_the_owners() {
        let (owner, writer) = writer();
        let is_admitted = |bytes: &[u8]| {
            Admission::decode(bytes).is_ok_and(|admission| admission.is_by(&owner.public(), &VAULT))
        };
        let good = writer.encoded();
        assert!(is_admitted(good));
        for len in 0..good.len() {
            assert!(!is_admitted(&good[..len]), "{len} bytes");
        }
        assert!(!is_admitted(&[good, &[0]].concat()));
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_admitted(&bad), "bit {bit}");
        }
        assert!(!writer.admission().is_by(&owner.public(), &VaultId([8; 16])), "another store's");
        let other = OwnerKey::generate();
        assert!(!writer.admission().is_by(&other.public(), &VAULT));
        // Whoever is not the owner can only sign with another key, also if he says whose it is.
        let forged =
            Admission { owner: owner.public(), ..other.admit(&VAULT, "a", &[], 0).admission().clone() };
        assert!(!forged.is_by(&owner.public(), &VAULT));
    }

    #[test]
    fn a_signature_holds_for_one_kind_one_store_and_one_content() {
        let (owner, writer) = writer();
        let signature = writer.sign(Signed::Point, b"content");
        let key = &writer.admission().key;
        let holds = |what: Signed, vault, content: &[u8]| what.is_by(key, vault, content, &signature);
        assert!(holds(Signed::Point, &VAULT, b"content"));
        assert!(!holds(Signed::Session, &VAULT, b"content"));
        assert!(!holds(Signed::Point, &VaultId([8; 16]), b"content"));
        assert!(!holds(Signed::Point, &VAULT, b"Content"));
        assert!(!Signed::Point.is_by(&owner.public(), &VAULT, b"content", &signature));
        for len in [0, 63, 65] {
            assert!(!Signed::Point.is_by(key, &VAULT, b"content", &vec![0; len]), "{len} bytes");
        }
        assert!(!Signed::Point.is_by(&[0; 32], &VAULT, b"content", &[0; 64]), "a key of small order");
    }

    /// Both were computed by another implementation of Ed25519 than ours, over bytes that were put together by hand as `docs/format.md` says, with the
    /// published BLAKE3 hash of "abc".
    #[test]
    fn signatures_of_a_point_and_of_a_session_are_those_of_another_implementation() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed = crate::id::from_hex(seed).unwrap().try_into().unwrap();
        let vectors = [
            (
                Signed::Point,
                "1b394decc34641c42fb2fc91bb17e56a7a222a516972fc2f3bb456d1e4646f249c06000860a8303cca0f57cca90aa4fb0fc31f52b7e152e8291fd3f1896f3a08",
            ),
            (
                Signed::Session,
                "5e5272aee407285b8eb7db2d43a310551821268a0492609379150aecdb59cff44ace1dbd099e1e560fe964124a1903a19c7d84708140d3d3d701eebcd9b4f608",
            ),
        ];
        for (what, signature) in vectors {
            assert_eq!(crate::id::to_hex(&what.sign(&seed, &VAULT, b"abc")), signature, "{what:?}");
        }
    }

    #[test]
    fn names_are_cut_between_characters_and_hosts_are_bounded() {
        let (owner, _) = writer();
        let long = "ä".repeat(200);
        let hosts = vec![long.clone(); HOSTS_MAX + 5];
        let writer = owner.admit(&VAULT, &long, &hosts, 0);
        let admission = Admission::decode(writer.encoded()).unwrap();
        assert_eq!((admission.machine.len(), admission.hosts.len()), (254, HOSTS_MAX));
        assert!(!Admission::can_name(&long) && !Admission::can_name("a\nb") && !admission.may_write(&long));
        assert!(Admission::can_name(&"a".repeat(255)) && !Admission::can_name(&"a".repeat(256)));
        assert!(writer.encoded().len() <= ADMISSION_MAX && admission.is_by(&owner.public(), &VAULT));
        let mut many = writer.encoded().to_vec();
        many[1 + 32 + 32 + 8 + 255] = HOSTS_MAX as u8 + 1;
        assert!(Admission::decode(&many).unwrap_err().is_damage());
        assert!(Admission::decode(&vec![1; ADMISSION_MAX + 1]).unwrap_err().is_damage());
        assert!(matches!(Admission::decode(&[2; 200]), Err(FormatError::TooNew(_))));
        assert_eq!(owner.admit(&VAULT, "a\x1b[2J", &[], 0).admission().machine, "a[2J");
        let mut shown = owner.admit(&VAULT, "abc", &[], 0).encoded().to_vec();
        shown[1 + 32 + 32 + 8 + 2] = 0x1b;
        assert!(Admission::decode(&shown).unwrap_err().is_damage());
    }

    #[test]
    fn a_key_and_the_admission_of_another_do_not_go_together() {
        let (owner, writer) = writer();
        let other = owner.admit(&VAULT, "b", &[], 0);
        let put_together = |vault, seed: [u8; 32], admission: &Admission| {
            WriterKey::new(vault, Zeroizing::new(seed), admission.clone())
        };
        assert_eq!(put_together(VAULT, *writer.seed(), writer.admission()).unwrap(), writer);
        assert!(put_together(VAULT, *other.seed(), writer.admission()).is_err());
        assert!(put_together(VaultId([8; 16]), *writer.seed(), writer.admission()).is_err());
        assert_ne!(writer.admission().id(), other.admission().id());
    }

    #[test]
    fn printed_keys_show_no_secret() {
        let owner = OwnerKey::from_seed([0xab; 32]);
        let writer = owner.admit(&VAULT, "a", &[], 0);
        let seed = crate::id::to_hex(writer.seed());
        assert_eq!(format!("{owner:?}"), "OwnerKey(…)");
        assert!(!format!("{writer:?}").contains(&seed[..8]));
    }
}
