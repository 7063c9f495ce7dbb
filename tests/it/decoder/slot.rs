//! Key slots and the config (sections 5 and 6 of the format).

use std::collections::BTreeMap;

use argon2::{Algorithm, Argon2, Params, Version};

use super::fields::{Fields, Read, Refused, from_hex, must};
use super::seal::{CONFIG, Header, Place, Ring, SLOT, open_block};

const OBJECT_LIMIT: usize = 64 << 10;
const PASSPHRASE: u8 = 1;
const RECOVERY: u8 = 2;
const MACHINE: u8 = 3;
const KEYS_LIMIT: u16 = 1024;

/// What a person or a machine keeps outside the store.
pub enum Secret {
    /// As typed.
    Passphrase(String),
    /// The 24 words of the recovery sheet.
    Words(String),
    /// The text of a machine key file.
    MachineKeyFile(String),
}

impl Secret {
    fn kind(&self) -> u8 {
        match self {
            Self::Passphrase(_) => PASSPHRASE,
            Self::Words(_) => RECOVERY,
            Self::MachineKeyFile(_) => MACHINE,
        }
    }

    fn bytes(&self, vault: &[u8; 16]) -> Read<Vec<u8>> {
        match self {
            Self::Passphrase(typed) => Ok(typed.clone().into_bytes()),
            Self::Words(words) => entropy(words),
            Self::MachineKeyFile(line) => machine_key(line, vault),
        }
    }
}

fn entropy(words: &str) -> Read<Vec<u8>> {
    let mnemonic = bip39::Mnemonic::parse_in_normalized(bip39::Language::English, words)
        .map_err(|e| Refused::new(format!("not a recovery key: {e}")))?;
    must(mnemonic.word_count() == 24, "a recovery key has 24 words")?;
    Ok(mnemonic.to_entropy())
}

fn machine_key(line: &str, vault: &[u8; 16]) -> Read<Vec<u8>> {
    let fields: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
    let ["holdfast-machine-key-1", of, key] = fields[..] else {
        return Err(Refused::new("not a machine key file"));
    };
    must(from_hex(of)? == vault, "the machine key is of this vault")?;
    let key = from_hex(key)?;
    must(key.len() == 32, "a machine key has 32 bytes")?;
    Ok(key)
}

/// A key slot whose plain part was read and checked.
pub struct Slot<'a> {
    bytes: &'a [u8],
    pub header: Header,
    pub vault: [u8; 16],
    kind: u8,
    costs: [u32; 3],
    salt: [u8; 32],
    commitment: [u8; 32],
    has_owner: bool,
}

impl<'a> Slot<'a> {
    pub fn read(bytes: &'a [u8]) -> Read<Self> {
        must(bytes.len() <= OBJECT_LIMIT, "a key slot has at most 64 KiB")?;
        let mut fields = Fields::new(bytes);
        fields.take(64)?;
        let [kind, derivation, _, _] = fields.array()?;
        let costs = [fields.u32()?, fields.u32()?, fields.u32()?];
        let _created = fields.i64()?;
        let (salt, vault) = (fields.array()?, fields.array()?);
        let (_newest, flags) = (fields.u32()?, fields.u32()?);
        let commitment = fields.array()?;
        let header = Header::read(bytes, SLOT, &vault)?;
        must(fields.u32()? == crc32c::crc32c(&bytes[..176]), "the slot's CRC is right")?;
        must(header.generation == 0, "a slot is of generation 0")?;
        match (kind, derivation) {
            (PASSPHRASE, 1) => {
                let [memory, passes, lanes] = costs;
                must((65_536..=4_194_304).contains(&memory), "Argon2's memory is within bounds")?;
                must((3..=64).contains(&passes), "Argon2's passes are within bounds")?;
                must((1..=16).contains(&lanes), "Argon2's lanes are within bounds")?;
            }
            (RECOVERY | MACHINE, 2) => must(costs == [0; 3], "only a passphrase has costs")?,
            _ => return Err(Refused::new(format!("no slot of kind {kind} has derivation {derivation}"))),
        }
        Ok(Self { bytes, header, vault, kind, costs, salt, commitment, has_owner: flags & 1 == 1 })
    }

    /// The key ring, or nothing where the slot is for another secret.
    pub fn open(&self, secret: &Secret) -> Read<Option<Ring>> {
        if secret.kind() != self.kind {
            return Ok(None);
        }
        let key = self.slot_key(&secret.bytes(&self.vault)?)?;
        let check = blake3::derive_key("holdfast v1 slot check", &key);
        // Hash against array: this comparison takes the same time whatever differs.
        if blake3::keyed_hash(&check, &self.bytes[..144]) != self.commitment {
            return Ok(None);
        }
        let sealing = blake3::derive_key("holdfast v1 slot seal", &key);
        let place = Place { kind: 12, position: 180 };
        let content = open_block(&sealing, &self.vault, &self.header, place, &self.bytes[180..])?;
        let (keys, owner) = read_ring(&content)?;
        let has_owner = self.kind != MACHINE && owner.is_some();
        must(has_owner || !self.has_owner, "a slot that says so has the owner's key")?;
        Ok(Some(Ring { vault: self.vault, keys }))
    }

    fn slot_key(&self, secret: &[u8]) -> Read<[u8; 32]> {
        if self.kind != PASSPHRASE {
            let kind = if self.kind == RECOVERY { "recovery" } else { "machine" };
            let material = [secret, &self.salt].concat();
            return Ok(blake3::derive_key(&format!("holdfast v1 slot {kind}"), &material));
        }
        let [memory, passes, lanes] = self.costs;
        let bad = |e: argon2::Error| Refused::new(format!("Argon2: {e}"));
        let params = Params::new(memory, passes, lanes, Some(32)).map_err(bad)?;
        let mut key = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(secret, &self.salt, &mut key)
            .map_err(bad)?;
        Ok(key)
    }
}

/// The keys by generation, and the owner's key.
type Opened = (BTreeMap<u32, [u8; 32]>, Option<[u8; 32]>);

fn read_ring(content: &[u8]) -> Read<Opened> {
    let mut fields = Fields::new(content);
    let count = fields.u16()?;
    must((1..=KEYS_LIMIT).contains(&count), "a ring has 1 to 1,024 keys")?;
    let mut keys = BTreeMap::new();
    for _ in 0..count {
        let generation = fields.u32()?;
        let newest = keys.last_key_value().map_or(0, |(generation, _)| *generation);
        must(generation > newest, "generations ascend from 1")?;
        keys.insert(generation, fields.array()?);
        let _created = fields.i64()?;
    }
    let _label = fields.text16()?;
    let owner = fields.bytes16()?.try_into().ok();
    fields.end()?;
    Ok((keys, owner))
}

/// The parameters of the store.
pub struct Config {
    pub identity: u32,
    pub normalization: u8,
    pub min: u32,
    pub average: u32,
    pub max: u32,
    pub pack_len: u32,
}

impl Config {
    pub fn read(bytes: &[u8], ring: &Ring) -> Read<Self> {
        must(bytes.len() <= OBJECT_LIMIT, "a config has at most 64 KiB")?;
        let header = Header::read(bytes, CONFIG, &ring.vault)?;
        let mut plain = Fields::new(bytes);
        plain.take(64)?;
        must(plain.array()? == ring.vault, "the config is of this vault")?;
        must(plain.u32()? == 0, "the config asks a reader for no unknown feature")?;
        let (_write, _reclaim, identity, created) = (plain.u32()?, plain.u32()?, plain.u32()?, plain.i64()?);
        plain.take(84)?;
        must(plain.u32()? == crc32c::crc32c(&bytes[64..188]), "the config's CRC is right")?;
        must(identity >= 1, "the identity generation is at least 1")?;
        let content = ring.open(&header, Place { kind: 11, position: 192 }, &bytes[192..])?;
        let mut fields = Fields::new(&content);
        must(fields.u8()? == 1, "the chunker is keyed FastCDC")?;
        let normalization = fields.u8()?;
        fields.u16()?;
        let [min, average, max] = [fields.u32()?, fields.u32()?, fields.u32()?];
        let (frame, pack) = (fields.u32()?, fields.u32()?);
        must(fields.i64()? == created, "the two creation times are equal")?;
        fields.bytes16()?;
        must(fields.take(124)? == &bytes[64..188], "the plain part is what was sealed")?;
        fields.end()?;
        must(normalization <= 3, "normalization is at most 3")?;
        must(
            4 << 10 <= min && min < average && average < max && max <= 16 << 20,
            "chunk lengths are in bounds",
        )?;
        must((16 << 10..=4 << 20).contains(&frame), "the frame length is in bounds")?;
        must((1 << 20..=256 << 20).contains(&pack), "the pack length is in bounds")?;
        Ok(Self { identity, normalization, min, average, max, pack_len: pack })
    }
}
