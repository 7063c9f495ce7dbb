//! What programs read: the shapes that restic's `--json` has, with fields of ours beside them.
//!
//! Field names are a contract. A name that is not UTF-8 stands as `path` with replacement characters and whole, in
//! base64, as `path_b64`; so a reader that ignores the second still shows something and one that needs the bytes has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::hold::Hold;
use holdfast_store::point::{Consistency, PointState, SourceName};
use holdfast_store::store::{DoubtfulPoint, StoredPoint};
use holdfast_store::tree::{Node, NodeKind};
use serde::Serialize;

use crate::terminal::text::rfc3339;

/// A raw path as JSON can carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathText {
    /// The path, with replacement characters for what is not UTF-8.
    pub path: String,
    /// All bytes of a path that is not UTF-8, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
}

impl PathText {
    /// Takes raw bytes.
    pub fn of(raw: &[u8]) -> Self {
        match std::str::from_utf8(raw) {
            Ok(path) => Self { path: path.to_owned(), path_b64: None },
            Err(_) => {
                Self { path: String::from_utf8_lossy(raw).into_owned(), path_b64: Some(STANDARD.encode(raw)) }
            }
        }
    }
}

/// A recovery point, as in restic's `snapshots --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Begin of the point.
    pub time: String,
    /// Root page of its tree.
    pub tree: String,
    /// The path of its source.
    pub paths: Vec<String>,
    /// The same in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths_b64: Option<Vec<String>>,
    /// Machine.
    pub hostname: String,
    /// Words of the user's.
    pub tags: Vec<String>,
    /// Tool and version.
    pub program_version: String,
    /// What was counted.
    pub summary: SnapshotSummary,
    /// Protection group.
    pub group: String,
    /// Name of the data source.
    pub source: String,
    /// 1 for the first point of its source.
    pub sequence: u64,
    /// `complete` or `partial`.
    pub state: &'static str,
    /// `fuzzy`, `snapshot` or `application`.
    pub consistency: &'static str,
    /// Whether the staging directory holds it.
    pub local: bool,
    /// Addresses of the vaults that hold it.
    pub vaults: Vec<String>,
    /// Addresses of vaults where it was and lacks something, as far as is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<String>,
    /// Number of things that could not be read.
    pub errors: u64,
    /// From when on it may expire whatever the rules say, if it has a time of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Since when and why it stays whatever happens, if it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// From when on it goes, if a person deleted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_until: Option<String>,
    /// When files of it last came back right in a drill, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drilled: Option<String>,
    /// Which machine says to have made it, if it is signed. True only if the signature holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
    /// Whether that is so: `holds`, `unsigned`, `unproven`, `unknown` or `forged`; nothing if it cannot be told now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<&'static str>,
    /// Full id.
    pub id: String,
    /// Its first eight digits.
    pub short_id: String,
}

/// A machine that signs.
#[derive(Clone, Debug, Serialize)]
pub struct Writer {
    /// Its id as a writer.
    pub id: String,
    /// Its name.
    pub machine: String,
}

/// A hold.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// When it was placed.
    pub since: String,
    /// Why; may be empty.
    pub reason: String,
}

impl From<&Hold> for Held {
    fn from(hold: &Hold) -> Self {
        Self { since: rfc3339(Timestamp::from_seconds(hold.placed)), reason: hold.reason.clone() }
    }
}

/// Counts of a recovery point, as in restic's snapshots.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotSummary {
    /// Begin.
    pub backup_start: String,
    /// End.
    pub backup_end: String,
    /// Bytes of new chunks before compression.
    pub data_added: u64,
    /// Bytes that the new packs take.
    pub data_added_packed: u64,
    /// Regular files.
    pub total_files_processed: u64,
    /// Bytes of all files.
    pub total_bytes_processed: u64,
}

impl From<&StoredPoint> for Snapshot {
    fn from(stored: &StoredPoint) -> Self {
        let point = &stored.point;
        let path = PathText::of(&point.path);
        Self {
            time: rfc3339(point.started),
            tree: point.root.subtree.map(|subtree| subtree.tree.hex()).unwrap_or_default(),
            paths: vec![path.path],
            paths_b64: path.path_b64.map(|path| vec![path]),
            hostname: point.source.host.clone(),
            tags: point.tags.clone(),
            program_version: point.tool.clone(),
            summary: SnapshotSummary {
                backup_start: rfc3339(point.started),
                backup_end: rfc3339(point.ended),
                data_added: point.counts.bytes_new,
                data_added_packed: point.counts.bytes_stored,
                total_files_processed: point.counts.files,
                total_bytes_processed: point.counts.bytes,
            },
            group: point.source.group.clone(),
            source: point.source.source.clone(),
            sequence: point.sequence,
            state: state_word(point.state),
            consistency: consistency_word(point.consistency),
            local: stored.local,
            vaults: stored.vaults.clone(),
            incomplete: stored.incomplete.clone(),
            errors: point.errors_total,
            expires: point.expires().map(|seconds| rfc3339(Timestamp::from_seconds(seconds))),
            held: stored.held.as_ref().map(Held::from),
            deleted_until: None,
            drilled: None,
            writer: None,
            signature: None,
            id: point.id.hex(),
            short_id: point.id.short(),
        }
    }
}

/// A recovery point of which no whole copy can be had now, among those of `snapshots --json`.
#[derive(Clone, Debug, Serialize)]
pub struct DoubtfulSnapshot {
    /// Always true; other points do not have it.
    pub in_doubt: bool,
    /// Why.
    pub message: String,
    /// Machine, protection group and name of the data source, if another point tells them.
    #[serde(flatten)]
    pub source: Option<SourceFields>,
    /// Full id.
    pub id: String,
    /// Its first eight digits.
    pub short_id: String,
}

/// The source of a recovery point, named as in [`Snapshot`].
#[derive(Clone, Debug, Serialize)]
pub struct SourceFields {
    /// Machine.
    pub hostname: String,
    /// Protection group.
    pub group: String,
    /// Name of the data source.
    pub source: String,
}

impl DoubtfulSnapshot {
    /// Of this point, which is of this source.
    pub fn of(doubt: &DoubtfulPoint, source: Option<&SourceName>) -> Self {
        let fields =
            |name: SourceName| SourceFields { hostname: name.host, group: name.group, source: name.source };
        Self {
            in_doubt: true,
            message: doubt.error.to_string(),
            source: source.cloned().map(fields),
            id: doubt.id.hex(),
            short_id: doubt.id.short(),
        }
    }
}

/// `complete` or `partial`.
pub fn state_word(state: PointState) -> &'static str {
    match state {
        PointState::Complete => "complete",
        PointState::Partial => "partial",
    }
}

fn consistency_word(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Fuzzy => "fuzzy",
        Consistency::Snapshot => "snapshot",
        Consistency::Application => "application",
    }
}

/// A node of a tree, as in restic's `ls --json`.
#[derive(Clone, Debug, Serialize)]
pub struct NodeLine {
    /// Always `node`.
    pub message_type: &'static str,
    /// Last part of the path.
    pub name: String,
    /// `file`, `dir`, `symlink`, `fifo`, `socket`, `chardev`, `dev`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whole path within the point.
    #[serde(flatten)]
    pub path: PathText,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Bytes of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: u16,
    /// As `ls -l` shows them.
    pub permissions: String,
    /// Last change of content.
    pub mtime: String,
    /// Last change of the inode.
    pub ctime: String,
    /// Inode number at the source.
    pub inode: u64,
    /// Target of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linktarget: Option<String>,
}

impl NodeLine {
    /// A node at a path.
    pub fn of(path: &[u8], node: &Node) -> Self {
        let lossy = |raw: &Vec<u8>| String::from_utf8_lossy(raw).into_owned();
        Self {
            message_type: "node",
            name: lossy(&node.name),
            kind: kind_word(node.kind),
            path: PathText::of(path),
            uid: node.uid,
            gid: node.gid,
            user: node.user.as_ref().map(lossy),
            group: node.group.as_ref().map(lossy),
            size: (node.kind == NodeKind::File).then_some(node.size),
            mode: node.mode,
            permissions: permissions(node.kind, node.mode),
            mtime: rfc3339(node.mtime),
            ctime: rfc3339(node.ctime),
            inode: node.inode,
            linktarget: node.target.as_ref().map(lossy),
        }
    }
}

fn kind_word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
        NodeKind::CharDevice => "chardev",
        NodeKind::BlockDevice => "dev",
    }
}

/// Ten characters as `ls -l` shows them: `drwxr-sr-t`.
pub fn permissions(kind: NodeKind, mode: u16) -> String {
    let first = match kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
    };
    let mut text = String::from(first);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// The last line of `backup --json`, as restic writes it.
#[derive(Clone, Debug, Serialize)]
pub struct BackupSummary {
    /// Always `summary`.
    pub message_type: &'static str,
    /// Regular files that are not in the point before.
    pub files_new: u64,
    /// Regular files that were read again.
    pub files_changed: u64,
    /// Regular files that were not read.
    pub files_unmodified: u64,
    /// Bytes of new chunks before compression.
    pub data_added: u64,
    /// Bytes that the new packs take.
    pub data_added_packed: u64,
    /// Regular files.
    pub total_files_processed: u64,
    /// Bytes of all files.
    pub total_bytes_processed: u64,
    /// Seconds it took.
    pub total_duration: f64,
    /// Begin.
    pub backup_start: String,
    /// End.
    pub backup_end: String,
    /// Id of the new point.
    pub snapshot_id: String,
    /// Name of the data source.
    pub source: String,
    /// `complete` or `partial`.
    pub state: &'static str,
    /// Number of things that could not be read.
    pub errors: u64,
    /// From when on the point may expire whatever the rules say, if it has a time of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// The last line of `restore --json`, as restic writes it.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreSummary {
    /// Always `summary`.
    pub message_type: &'static str,
    /// Seconds it took.
    pub seconds_elapsed: u64,
    /// Files and directories to restore.
    pub total_files: u64,
    /// Of these, restored.
    pub files_restored: u64,
    /// Of these, left as they are: identical, or as --overwrite says.
    pub files_skipped: u64,
    /// Of those skipped, identical already.
    pub files_identical: u64,
    /// Of those restored, in the place of something.
    pub files_replaced: u64,
    /// Entries whose content was there already and whose attributes were set.
    pub attributes_set: u64,
    /// Files of which content is missing; none of them counts as restored.
    pub files_incomplete: u64,
    /// Bytes to restore.
    pub total_bytes: u64,
    /// Of these, restored.
    pub bytes_restored: u64,
    /// Of these, not.
    pub bytes_skipped: u64,
    /// Number of things that could not be restored.
    pub errors: u64,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// With --verify: entries that were compared with the point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries_verified: Option<u64>,
    /// With --verify: differences that were found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<u64>,
}

/// What `restore --json -v` says of one entry, as restic writes it.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreEntry {
    /// Always `verbose_status`.
    pub message_type: &'static str,
    /// What was done, or in a dry run would be: `create`, `replace`, `keep both`, `link`, `same`, `attributes`, `keep`, `incomplete`.
    pub action: &'static str,
    /// The path below the target.
    pub item: String,
    /// The same in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_b64: Option<String>,
    /// Length of a file.
    pub size: u64,
}

impl RestoreEntry {
    /// An entry by its raw path.
    pub fn new(path: &[u8], action: &'static str, size: u64) -> Self {
        let PathText { path: item, path_b64: item_b64 } = PathText::of(path);
        Self { message_type: "verbose_status", action, item, item_b64, size }
    }
}

/// The last line of `check --json`, as restic writes it.
#[derive(Clone, Debug, Serialize)]
pub struct CheckSummary {
    /// Always `summary`.
    pub message_type: &'static str,
    /// Number of damages, and of what could not be looked at.
    pub num_errors: u64,
    /// Packs that are damaged or missing.
    pub broken_packs: Vec<String>,
    /// Always false: an index is made anew without being asked.
    pub suggest_repair_index: bool,
    /// Whether unused data could be removed.
    pub suggest_prune: bool,
    /// Recovery points that were looked at.
    pub points: u64,
    /// Bytes that were read back and proven.
    pub bytes_read: u64,
    /// Files that cannot be restored whole.
    pub broken_files: Vec<BrokenFile>,
}

/// A file that damage touches.
#[derive(Clone, Debug, Serialize)]
pub struct BrokenFile {
    /// The point.
    pub snapshot_id: String,
    /// Path in it.
    #[serde(flatten)]
    pub path: PathText,
}

impl BrokenFile {
    /// A file of a point by its raw path.
    pub fn new(point: &RecoveryPointId, path: &[u8]) -> Self {
        Self { snapshot_id: point.hex(), path: PathText::of(path) }
    }
}

/// The line of `stats --json`, with restic's names.
#[derive(Clone, Debug, Serialize)]
pub struct StatsLine {
    /// Bytes of all files of all points.
    pub total_size: u64,
    /// Files of all points.
    pub total_file_count: u64,
    /// Recovery points.
    pub snapshots_count: u64,
    /// Bytes of all chunks before compression.
    pub total_uncompressed_size: u64,
    /// Bytes that packs take.
    pub total_stored_size: u64,
    /// Chunks.
    pub total_blob_count: u64,
    /// Packs.
    pub total_pack_count: u64,
    /// `total_size` by `total_stored_size`.
    pub saving_ratio: f64,
    /// Requests that this run made to vaults.
    pub vault_requests: u64,
    /// Bytes that this run sent to vaults and fetched from them.
    pub vault_bytes: u64,
    /// Frames that this run decoded.
    pub frames_decoded: u64,
    /// Frames that one place could not give and another could.
    pub failovers: u64,
}

/// A change between two points, as in restic's `diff --json`.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeLine {
    /// Always `change`.
    pub message_type: &'static str,
    /// What changed.
    #[serde(flatten)]
    pub path: PathText,
    /// `+` added, `-` removed, `M` content, `T` type, `U` attributes.
    pub modifier: &'static str,
}

/// Matches of `find --json` in one point, with restic's names.
#[derive(Clone, Debug, Serialize)]
pub struct FindLine {
    /// What was found.
    pub matches: Vec<NodeLine>,
    /// How many.
    pub hits: u64,
    /// Id of the point.
    pub snapshot: String,
}

/// What `forget --json` says of one series of points, with restic's names.
#[derive(Clone, Debug, Serialize)]
pub struct ForgetGroup {
    /// Machine.
    pub host: String,
    /// Protection group.
    pub group: String,
    /// Data source.
    pub source: String,
    /// `local` or `online`, where each tier expires by its own rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<&'static str>,
    /// Points that stay.
    pub keep: Vec<ForgetPoint>,
    /// Points that go.
    pub remove: Vec<ForgetPoint>,
}

/// A point in a [`ForgetGroup`].
#[derive(Clone, Debug, Serialize)]
pub struct ForgetPoint {
    /// Full id.
    pub id: String,
    /// Begin of the point.
    pub time: String,
    /// Why it stays or goes.
    pub reasons: Vec<String>,
}

/// Seconds between two moments, for `total_duration`.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.seconds.saturating_sub(from.seconds)) as f64 + (f64::from(to.nanos) - f64::from(from.nanos)) / 1e9
}

#[cfg(test)]
mod tests;
