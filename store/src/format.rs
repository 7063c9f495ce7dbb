//! Reading and writing the fixed structures of `docs/format.md`: little-endian, bounded, nothing guessed.

pub mod config;

use std::fmt;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{ObjectId, VaultId};

/// Length of the header that every object begins with.
pub const HEADER_LEN: usize = 64;
/// First bytes of every object.
pub const MAGIC: &[u8; 8] = b"HOLDFAST";
/// Format version written and read.
pub const VERSION: u8 = 1;
/// The one suite: XAES-256-GCM and zstd.
pub const SUITE: u8 = 1;
/// Sealed blocks are multiples of this long.
pub const STEP: usize = 64;

/// Why bytes do not parse. Whoever knows which object they are of turns it into a [`StoreError`] by [`FormatError::of`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Bytes break a rule of the format.
    #[error("{0}")]
    Damaged(String),
    /// Version, suite or feature that this program does not know.
    #[error("{0}")]
    TooNew(String),
    /// Not an object of ours, or of another store.
    #[error("{0}")]
    NotOurs(String),
    /// Sealed with a key generation that the ring at hand does not have: whole, as far as can be told, and not for this ring.
    #[error("it is sealed with key generation {0}, which is not in the ring that opened this store")]
    NoKey(u32),
}

impl FormatError {
    /// A broken rule.
    pub fn damaged(detail: impl Into<String>) -> Self {
        Self::Damaged(detail.into())
    }

    /// Whether it is no object of a newer program or of a newer key: those are whole for who knows them.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::TooNew(_) | Self::NoKey(_))
    }

    /// Whether it is what another machine, or another process, sealed after it rotated the keys.
    pub fn is_newer_key(&self) -> bool {
        matches!(self, Self::NoKey(_))
    }

    /// The same, with the object named.
    pub fn of(self, object: impl Into<String>) -> StoreError {
        let object = object.into();
        match self {
            Self::Damaged(detail) => StoreError::Corrupt { object, detail },
            Self::TooNew(detail) => StoreError::TooNew { object, detail },
            Self::NotOurs(detail) => StoreError::NotOurs { object, detail },
            Self::NoKey(generation) => StoreError::NoKey { object, generation },
        }
    }
}

/// Takes fields from the front of a slice; every method fails rather than read past the end.
#[derive(Clone)]
pub struct Parser<'a> {
    rest: &'a [u8],
}

impl fmt::Debug for Parser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parser({} bytes left)", self.rest.len())
    }
}

type Parsed<T> = Result<T, FormatError>;

impl<'a> Parser<'a> {
    /// Begins at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet taken.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let (head, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or_else(|| FormatError::damaged(format!("ends {} bytes early", n - self.rest.len())))?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Parsed<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Parsed<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Parsed<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Seconds and nanoseconds.
    pub fn time(&mut self) -> Parsed<Timestamp> {
        let (seconds, nanos) = (self.i64()?, self.u32()?);
        if nanos >= 1_000_000_000 {
            return Err(FormatError::damaged(format!("{nanos} nanoseconds in a second")));
        }
        Ok(Timestamp { seconds, nanos })
    }

    /// Bytes after a `u8` length.
    pub fn bytes8(&mut self) -> Parsed<&'a [u8]> {
        let n = self.u8()?;
        self.take(usize::from(n))
    }

    /// Bytes after a `u16` length.
    pub fn bytes16(&mut self) -> Parsed<&'a [u8]> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }

    /// Bytes after a `u32` length.
    pub fn bytes32(&mut self) -> Parsed<&'a [u8]> {
        let n = self.u32()?;
        self.take(n as usize)
    }

    /// UTF-8 after a `u16` length.
    pub fn text16(&mut self) -> Parsed<String> {
        let bytes = self.bytes16()?;
        Ok(std::str::from_utf8(bytes).map_err(|_| FormatError::damaged("text is not UTF-8"))?.to_owned())
    }

    /// A `u32` count of items of at least `item_len` bytes each, at most `limit`, and no more than can be left.
    pub fn count(&mut self, what: &str, item_len: usize, limit: usize) -> Parsed<usize> {
        let n = self.u32()? as usize;
        if n > limit || n.saturating_mul(item_len) > self.left() {
            return Err(FormatError::damaged(format!("{n} {what} cannot be")));
        }
        Ok(n)
    }

    /// Nothing may be left.
    pub fn end(&self) -> Parsed<()> {
        match self.left() {
            0 => Ok(()),
            n => Err(FormatError::damaged(format!("{n} bytes too many"))),
        }
    }
}

/// Appends fields to a vector; the mirror of [`Parser`].
pub trait Put {
    /// One byte.
    fn u8(&mut self, v: u8);
    /// Two bytes.
    fn u16(&mut self, v: u16);
    /// Four bytes.
    fn u32(&mut self, v: u32);
    /// Eight bytes.
    fn u64(&mut self, v: u64);
    /// Eight bytes, signed.
    fn i64(&mut self, v: i64);
    /// Seconds and nanoseconds.
    fn time(&mut self, t: Timestamp);
    /// Raw bytes.
    fn raw(&mut self, bytes: &[u8]);
    /// Bytes after a `u8` length; the caller keeps them below 256.
    fn bytes8(&mut self, bytes: &[u8]);
    /// Bytes after a `u16` length; the caller keeps them below 65,536.
    fn bytes16(&mut self, bytes: &[u8]);
    /// Bytes after a `u32` length.
    fn bytes32(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn u8(&mut self, v: u8) {
        self.push(v);
    }
    fn u16(&mut self, v: u16) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn i64(&mut self, v: i64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn time(&mut self, t: Timestamp) {
        self.i64(t.seconds);
        self.u32(t.nanos);
    }
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn bytes8(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= usize::from(u8::MAX), "a field of at most 255 bytes");
        self.push(bytes.len() as u8);
        self.raw(bytes);
    }
    fn bytes16(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= usize::from(u16::MAX), "a field of at most 65535 bytes");
        self.u16(bytes.len() as u16);
        self.raw(bytes);
    }
    fn bytes32(&mut self, bytes: &[u8]) {
        assert!(u32::try_from(bytes.len()).is_ok(), "a field below 4 GiB");
        self.u32(bytes.len() as u32);
        self.raw(bytes);
    }
}

/// Kind of an object, in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Vault id and parameters.
    Config = 1,
    /// A way to the key ring.
    KeySlot = 2,
    /// Frames.
    Pack = 3,
    /// Which pack holds which chunk.
    Index = 4,
    /// A recovery point.
    Point = 5,
    /// The beginning of one.
    Session = 6,
    /// That a recovery point stays.
    Hold = 7,
    /// Packs that are to go, or that may go.
    Generation = 8,
    /// Stands under the name of a point that is not to be there.
    Revocation = 9,
}

/// The plain header of an object (`docs/format.md`, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: ObjectKind,
    /// Its random id.
    pub object_id: ObjectId,
    /// Generation of the master key that seals it.
    pub generation: u32,
}

/// First half of the tagged hash of the vault id: shows foreign objects without a key.
pub fn vault_tag(vault: &VaultId) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"holdfast vault tag").update(&vault.0);
    let mut tag = [0; 16];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    tag
}

impl Header {
    /// The 64 bytes.
    pub fn encode(&self, vault: &VaultId) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.raw(MAGIC);
        out.raw(&[self.kind as u8, VERSION, SUITE, 0]);
        out.u32(0);
        out.raw(&vault_tag(vault));
        out.raw(&self.object_id.0);
        out.u32(self.generation);
        out.u64(0);
        out.u32(crc32c::crc32c(&out));
        out.try_into().expect("the fields add up to 64 bytes")
    }

    /// Reads a header of the expected kind and store from the front of an object. `vault` is `None` only where
    /// the vault id is not known yet.
    pub fn decode(bytes: &[u8], kind: ObjectKind, vault: Option<&VaultId>) -> Result<Self, FormatError> {
        let mut p = Parser::new(bytes);
        if p.array::<8>()? != *MAGIC {
            return Err(FormatError::NotOurs("it does not begin with HOLDFAST".into()));
        }
        let [got_kind, version, suite, _] = p.array::<4>()?;
        let features = p.u32()?;
        let tag = p.array::<16>()?;
        let object_id = ObjectId(p.array()?);
        let generation = p.u32()?;
        p.take(8)?;
        let crc = p.u32()?;
        if crc != crc32c::crc32c(&bytes[..HEADER_LEN - 4]) {
            return Err(FormatError::damaged("checksum of the header"));
        }
        if version != VERSION || suite != SUITE {
            return Err(FormatError::TooNew(format!("format version {version}, suite {suite}")));
        }
        if features != 0 {
            return Err(FormatError::TooNew(format!("feature bit {}", features.trailing_zeros())));
        }
        if got_kind != kind as u8 {
            return Err(FormatError::damaged(format!("object of kind {got_kind} where {kind:?} should be")));
        }
        if vault.is_some_and(|v| vault_tag(v) != tag) {
            return Err(FormatError::NotOurs("it carries the tag of another store".into()));
        }
        Ok(Self { kind, object_id, generation })
    }
}

#[cfg(test)]
mod tests;
