//! How people name recovery points: `latest`, `latest~2`, an id or its beginning, `NAME@TIME`, each with `:PATH`.
//!
//! Pure: a name is parsed without a store, and resolved against a list. `NAME@TIME` means the newest point of a source
//! at or before a time, where a time given to the minute or the day reaches to its end; so the name that a point's
//! directory has in the mount (`2026-11-20T12.00.00Z`) names that point although it began within that second.

mod time;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::SourceName;
use holdfast_store::store::StoredPoint;
use jiff::tz::TimeZone;

use crate::outcome::Failure;
pub use time::parse_time;

/// A point, and perhaps a path within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointSpec {
    /// Which point.
    pub point: PointName,
    /// Raw bytes of the path within the point, without `/` at its ends; empty for the whole point.
    pub path: Vec<u8>,
}

/// The name of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointName {
    /// The newest, or one of the `back` newest before it.
    Latest {
        /// How many to go back.
        back: usize,
    },
    /// A point of one source.
    OfSource {
        /// Name of the source.
        source: String,
        /// Which of its points.
        when: When,
    },
    /// An id or its beginning: lower-case hexadecimal digits.
    Id(String),
}

/// Which of a source's points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The newest, or one before it.
    Latest {
        /// How many to go back.
        back: usize,
    },
    /// The newest that began before this moment.
    Before(Timestamp),
}

/// What a name is resolved against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The point.
    pub id: RecoveryPointId,
    /// Machine.
    pub host: String,
    /// Protection group.
    pub group: String,
    /// Name of the source.
    pub source: String,
    /// Its number within its source: the order in which points were taken, whatever the clock said.
    pub sequence: u64,
    /// Begin.
    pub started: Timestamp,
}

impl From<&StoredPoint> for Candidate {
    fn from(stored: &StoredPoint) -> Self {
        let name = stored.point.source.clone();
        let (id, sequence, started) = (stored.point.id, stored.point.sequence, stored.point.started);
        Self { id, host: name.host, group: name.group, source: name.source, sequence, started }
    }
}

/// Which points are meant at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only of this machine.
    pub host: Option<String>,
    /// Only of this protection group.
    pub group: Option<String>,
    /// Only of this source.
    pub source: Option<String>,
}

impl Scope {
    /// Whether the point is meant.
    pub fn holds(&self, point: &Candidate) -> bool {
        self.holds_name(&point.host, &point.group, &point.source)
    }

    /// Whether points of this source are.
    pub fn holds_source(&self, name: &SourceName) -> bool {
        self.holds_name(&name.host, &name.group, &name.source)
    }

    fn holds_name(&self, host: &str, group: &str, source: &str) -> bool {
        let same =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        same(&self.host, host) && same(&self.group, group) && same(&self.source, source)
    }
}

/// Why a name names no point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointSpecError {
    /// Not a name of any kind.
    #[error("{text:?} is not the name of a recovery point: {detail}")]
    Malformed {
        /// What was given.
        text: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// There is no point at all in scope.
    #[error("there is no recovery point{0}")]
    NoPoints(String),
    /// Going back further than there are points.
    #[error("{name} goes back further than the {} there are", crate::terminal::text::count(*found as u64, "recovery point"))]
    TooFarBack {
        /// The name.
        name: String,
        /// Points in scope.
        found: usize,
    },
    /// All points of the source are younger.
    #[error("{source_name} has no recovery point that early; its first began at {first}")]
    TooEarly {
        /// Name of the source.
        source_name: String,
        /// Begin of its first point.
        first: String,
    },
    /// No id begins so.
    #[error("no recovery point's id begins with {0}")]
    NoSuchId(String),
    /// The only id that begins so is that of a point that cannot be read now.
    #[error(
        "recovery point {} is in doubt: its row in the catalog is damaged, and no whole copy of it can be reached now",
        _0.hex()
    )]
    InDoubt(RecoveryPointId),
    /// Several ids begin so.
    #[error("{prefix} is the beginning of several ids: {}", candidates.join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// The ids, shortened, with source, or that they are in doubt.
        candidates: Vec<String>,
    },
    /// The source's name exists on several machines or in several groups.
    #[error("{name} is the name of several sources: {}", candidates.join(", "))]
    SeveralSources {
        /// The name.
        name: String,
        /// `host/group/name` of each.
        candidates: Vec<String>,
    },
}

impl From<PointSpecError> for Failure {
    fn from(error: PointSpecError) -> Self {
        let failure = match error {
            PointSpecError::Malformed { .. } => Failure::usage(error.to_string()),
            _ => Failure::failed(error.to_string()),
        };
        failure.hint(match error {
            PointSpecError::Malformed { .. } => {
                "a point is `latest`, `latest~N`, an id or its beginning, or NAME@TIME as in docs@2026-11-20T12.00.00Z"
            }
            PointSpecError::Ambiguous { .. } => "give more digits",
            PointSpecError::InDoubt(_) => {
                "see to the vaults that may have it; it is looked for again by each command"
            }
            PointSpecError::SeveralSources { .. } => "say which with --host or --group",
            _ => "`holdfast snapshots` lists what there is",
        })
    }
}

impl PointSpec {
    /// Parses `POINT[:PATH]`; times without a zone are of `zone`.
    pub fn parse(text: &OsStr, zone: &TimeZone) -> Result<Self, PointSpecError> {
        let bytes = text.as_bytes();
        let malformed =
            |detail| PointSpecError::Malformed { text: text.to_string_lossy().into_owned(), detail };
        let (name, path) = split_path(bytes);
        let name = std::str::from_utf8(name).map_err(|_| malformed("it is not UTF-8 text"))?;
        let point = PointName::parse(name, zone).map_err(malformed)?;
        Ok(Self { point, path: trim_slashes(path).to_vec() })
    }
}

impl PointName {
    fn parse(name: &str, zone: &TimeZone) -> Result<Self, &'static str> {
        if let Some(back) = parse_latest(name) {
            return Ok(Self::Latest { back: back? });
        }
        if let Some((source, when)) = name.split_once('@') {
            if source.is_empty() {
                return Err("the source's name before the @ is missing");
            }
            let when = match parse_latest(when) {
                Some(back) => When::Latest { back: back? },
                None => When::Before(parse_time(when, zone).ok_or("what follows the @ is no time")?),
            };
            return Ok(Self::OfSource { source: source.to_owned(), when });
        }
        let digits = name.to_ascii_lowercase();
        match digits.len() {
            0 => Err("it is empty"),
            len if len > 2 * RecoveryPointId::LEN => Err("it is longer than an id"),
            _ if digits.bytes().all(|c| c.is_ascii_hexdigit()) => Ok(Self::Id(digits)),
            _ => Err("it is neither an id nor a word that is known"),
        }
    }

    /// Finds the point among `points`, of which only those in `scope` count. An id is looked for everywhere, also among those that are
    /// `doubtful`: its beginning means none of them, and no other one that begins so.
    pub fn resolve(
        &self,
        points: &[Candidate],
        doubtful: &[RecoveryPointId],
        scope: &Scope,
    ) -> Result<RecoveryPointId, PointSpecError> {
        let mut found = in_order(points.iter().filter(|point| scope.holds(point)).collect());
        match self {
            Self::Id(prefix) => by_id(prefix, points, doubtful),
            Self::Latest { back } => back_from_newest(&found, *back, "latest"),
            Self::OfSource { source, when } => {
                found.retain(|point| point.source == *source);
                of_source(&found, source, *when)
            }
        }
    }
}

/// Oldest first: within a source by sequence, across sources by time. A point whose clock had fallen back stands with the
/// newest time before it.
fn in_order(mut points: Vec<&Candidate>) -> Vec<&Candidate> {
    points.sort_by_key(|point| (source_of(point), point.sequence, point.started, point.id));
    let mut placed: Vec<(Timestamp, &Candidate)> = Vec::with_capacity(points.len());
    for point in points {
        let before = placed.last().filter(|(_, before)| source_of(before) == source_of(point));
        placed.push((before.map_or(point.started, |(time, _)| point.started.max(*time)), point));
    }
    placed.sort_by_key(|(time, _)| *time);
    placed.into_iter().map(|(_, point)| point).collect()
}

fn source_of(point: &Candidate) -> (&str, &str, &str) {
    (&point.host, &point.group, &point.source)
}

/// `latest` or `latest~N`; `None` if it is something else.
fn parse_latest(text: &str) -> Option<Result<usize, &'static str>> {
    match text.strip_prefix("latest")? {
        "" => Some(Ok(0)),
        rest => {
            let number = rest.strip_prefix('~')?;
            let all_digits = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
            Some(number.parse().ok().filter(|_| all_digits).ok_or("what follows the ~ is no number"))
        }
    }
}

/// Cuts at the colon that ends the name of the point. A time may hold colons itself, so after an `@` the longest
/// beginning that could be a time comes first.
fn split_path(bytes: &[u8]) -> (&[u8], &[u8]) {
    let first_colon = bytes.iter().position(|&byte| byte == b':').unwrap_or(bytes.len());
    let at = bytes.iter().take(first_colon).position(|&byte| byte == b'@');
    let end = match at {
        Some(at) => {
            let time_end = at + 1 + time::extent(&bytes[at + 1..]);
            let colon = bytes[time_end..].iter().position(|&byte| byte == b':');
            colon.map_or(bytes.len(), |colon| time_end + colon)
        }
        None => first_colon,
    };
    let (name, rest) = bytes.split_at(end);
    (name, rest.strip_prefix(b":").unwrap_or(rest))
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let begin = path.iter().position(|&byte| byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(begin, |last| last + 1);
    &path[begin..end]
}

fn by_id(
    prefix: &str,
    points: &[Candidate],
    doubtful: &[RecoveryPointId],
) -> Result<RecoveryPointId, PointSpecError> {
    let found: Vec<&Candidate> = points.iter().filter(|point| point.id.hex().starts_with(prefix)).collect();
    let in_doubt: Vec<_> = doubtful.iter().filter(|id| id.hex().starts_with(prefix)).collect();
    match (found.as_slice(), in_doubt.as_slice()) {
        ([], []) => Err(PointSpecError::NoSuchId(prefix.to_owned())),
        ([only], []) => Ok(only.id),
        ([], [only]) => Err(PointSpecError::InDoubt(**only)),
        (several, in_doubt) => {
            let several = several.iter().map(|point| describe(&point.id, &point.source, prefix.len()));
            let in_doubt = in_doubt.iter().map(|id| describe(id, "in doubt", prefix.len()));
            let candidates = several.chain(in_doubt).collect();
            Err(PointSpecError::Ambiguous { prefix: prefix.to_owned(), candidates })
        }
    }
}

/// As many digits as tell, with the source: `0123456789 (docs)`.
fn describe(id: &RecoveryPointId, source: &str, prefix_len: usize) -> String {
    let hex = id.hex();
    let digits = hex.get(..(prefix_len + 4).max(8)).unwrap_or(&hex);
    format!("{digits} ({source})")
}

fn back_from_newest(
    sorted: &[&Candidate],
    back: usize,
    name: &str,
) -> Result<RecoveryPointId, PointSpecError> {
    if sorted.is_empty() {
        return Err(PointSpecError::NoPoints(if name == "latest" {
            String::new()
        } else {
            format!(" of {name}")
        }));
    }
    let too_far = || PointSpecError::TooFarBack { name: format!("{name}~{back}"), found: sorted.len() };
    sorted.iter().rev().nth(back).map(|point| point.id).ok_or_else(too_far)
}

fn of_source(sorted: &[&Candidate], name: &str, when: When) -> Result<RecoveryPointId, PointSpecError> {
    let mut homes: Vec<String> =
        sorted.iter().map(|point| format!("{}/{}/{}", point.host, point.group, point.source)).collect();
    homes.sort();
    homes.dedup();
    if homes.len() > 1 {
        return Err(PointSpecError::SeveralSources { name: name.to_owned(), candidates: homes });
    }
    // What a time means is a matter of times alone.
    match (when, sorted.iter().min_by_key(|point| point.started)) {
        (When::Latest { back }, _) => back_from_newest(sorted, back, name),
        (When::Before(_), None) => Err(PointSpecError::NoPoints(format!(" of {name}"))),
        (When::Before(end), Some(first)) => {
            let earlier = sorted.iter().filter(|point| point.started < end);
            let newest = earlier.max_by_key(|point| (point.started, point.sequence, point.id));
            newest.map(|point| point.id).ok_or_else(|| PointSpecError::TooEarly {
                source_name: name.to_owned(),
                first: crate::terminal::text::rfc3339(first.started),
            })
        }
    }
}

#[cfg(test)]
mod tests;
