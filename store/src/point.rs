//! A recovery point: one data source at one moment, as one object (`docs/format.md`, section 10).

pub mod codec;
pub mod hold;
pub mod object;
mod signing;
pub mod testing;
#[cfg(test)]
mod tests;

use crate::clock::Timestamp;
use crate::id::{ObjectHash, PackId, RecoveryPointId, SourceTag};
use crate::tree::Node;

/// Whether everything of the source could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointState {
    /// All of it.
    Complete = 1,
    /// Some source data could not be read; `errors` names it.
    Partial = 2,
}

/// How the source's files relate to each other in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Read one after the other while in use.
    Fuzzy = 1,
    /// Read from an atomic snapshot.
    Snapshot = 2,
    /// The application was made to take part.
    Application = 3,
}

/// Which data source a point is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName {
    /// Machine.
    pub host: String,
    /// Protection group.
    pub group: String,
    /// Name of the source within the group.
    pub source: String,
}

/// What a point counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything else.
    pub others: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files whose content was read for this point.
    pub files_read: u64,
    /// Bytes read for this point.
    pub bytes_read: u64,
    /// Bytes of chunks that were new, before compression (trees included).
    pub bytes_new: u64,
    /// Bytes that the new packs take.
    pub bytes_stored: u64,
}

pub use crate::pack::PagePlace;

/// Something of the source that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointError {
    /// Path relative to the source's root, raw bytes.
    pub path: Vec<u8>,
    /// Why, for people.
    pub reason: String,
}

/// Newest point of another source when this one was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The other source.
    pub source: SourceTag,
    /// Its newest sequence number.
    pub sequence: u64,
    /// Hash of its newest point object.
    pub hash: [u8; 32],
}

/// A recovery point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPoint {
    /// Identity; also that of the session that made it.
    pub id: RecoveryPointId,
    /// Keyed name of the source.
    pub source_tag: SourceTag,
    /// The source.
    pub source: SourceName,
    /// Absolute path of the source, raw bytes.
    pub path: Vec<u8>,
    /// 1 for the first point of the source, then one more each time.
    pub sequence: u64,
    /// Hash of the previous point object of the source, or zeros.
    pub previous: [u8; 32],
    /// Begin, by the source machine's clock.
    pub started: Timestamp,
    /// End, by the source machine's clock.
    pub ended: Timestamp,
    /// Complete or partial.
    pub state: PointState,
    /// Fuzzy, snapshot or application.
    pub consistency: Consistency,
    /// The root directory: a node called `root` with its subtree.
    pub root: Node,
    /// What was counted.
    pub counts: Counts,
    /// Where the topmost pages lie; the root's first.
    pub summary: Vec<PagePlace>,
    /// Packs first used by this point, as far as they are listed.
    pub packs: Vec<PackId>,
    /// Number of all errors, listed or not.
    pub errors_total: u64,
    /// The first errors, at most 10,000.
    pub errors: Vec<PointError>,
    /// Newest points of other sources.
    pub witness: Vec<Witness>,
    /// Words of the user's.
    pub tags: Vec<String>,
    /// What the owner said of who made it, as [`crate::seal::writer::Admission`] reads it; empty if nobody signed it.
    pub writer: Vec<u8>,
    /// Tool and version.
    pub tool: String,
    /// Fields of later versions: tag and value.
    pub extensions: Vec<(u16, Vec<u8>)>,
    /// Signature of the writer, or empty.
    pub signature: Vec<u8>,
}

/// Tag of the extension that says from when on a point may expire.
pub const EXPIRES_TAG: u16 = 0x0200;

impl RecoveryPoint {
    /// From when on the point may expire, in seconds since 1970, if it has a time of its own: rules keep it no longer, and no shorter.
    pub fn expires(&self) -> Option<i64> {
        let (_, value) = self.extensions.iter().find(|(tag, _)| *tag == EXPIRES_TAG)?;
        Some(i64::from_le_bytes(value.as_slice().try_into().ok()?))
    }

    /// Gives a new point such a time.
    pub fn set_expires(&mut self, seconds: i64) {
        self.extensions.retain(|(tag, _)| *tag != EXPIRES_TAG);
        self.extensions.push((EXPIRES_TAG, seconds.to_le_bytes().to_vec()));
        self.extensions.sort_by_key(|(tag, _)| *tag);
    }
}

/// The beginning of a recovery point, told to a vault before the first pack of the point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSession {
    /// Identity; the point that ends the session has the same.
    pub id: RecoveryPointId,
    /// Keyed name of the source.
    pub source_tag: SourceTag,
    /// Begin, by the source machine's clock, in seconds since 1970.
    pub started: i64,
    /// The same as in a point, of who put it.
    pub writer: Vec<u8>,
    /// What it says of the vault; sessions of before, and of the first point in a vault, say nothing of it.
    pub sight: Option<Sight>,
    /// Signature of the writer, or empty.
    pub signature: Vec<u8>,
}

/// What a session says of the vault that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Number of the attempt whose session this is: one under the name of another is no session of it.
    pub attempt: u8,
    /// The newest point of each source, also of the session's own, that the writer ever saw there. At most [`codec::MAX_HEADS`].
    pub heads: Vec<Head>,
}

/// The newest point of a source that was seen in a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The source.
    pub source: SourceTag,
    /// The point.
    pub point: RecoveryPointId,
    /// Its sequence number.
    pub sequence: u64,
    /// Hash of its object.
    pub hash: ObjectHash,
}
