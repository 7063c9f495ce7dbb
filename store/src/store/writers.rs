//! Whether recovery points and sessions are by whom they say: each is held against what the store's owner said of its writer
//! (`docs/decisions/signed-writers.md`).
//!
//! What the owner said stands in the point itself, so that no vault can withhold it. Whose word counts, this machine knows from the secret
//! that a person gave, or from the file with its own key. Nothing of it keeps a point from being read.

use std::collections::{BTreeMap, HashMap};

use super::{Alarm, AlarmKind, Store};
use crate::catalog::{PointLine, VaultNo};
use crate::error::StoreError;
use crate::id::{Attempt, RecoveryPointId, SourceTag, VaultId};
use crate::point::RecoveryPoint;
use crate::point::object::{Signature, open_signed_point};
use crate::seal::writer::{Admission, PublicKey, WriterKey};

/// What is to be thought of who made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The owner admitted its writer, whose signature holds.
    Holds,
    /// Nobody signed it, and nothing says that somebody should have.
    Unsigned,
    /// Its writer's signature holds, and this machine does not know the owner who admitted him.
    Unproven,
    /// The owner did not admit its writer.
    Unknown,
    /// The signature does not hold or is missing, or its writer may not write this source.
    Forged,
}

impl Trust {
    /// A word that programs can rely on.
    pub fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Unsigned => "unsigned",
            Self::Unproven => "unproven",
            Self::Unknown => "unknown",
            Self::Forged => "forged",
        }
    }

    /// The alarm that it is.
    pub fn alarm(self) -> Option<AlarmKind> {
        match self {
            Self::Unknown => Some(AlarmKind::WriterUnknown),
            Self::Forged => Some(AlarmKind::WriterForged),
            Self::Holds | Self::Unsigned | Self::Unproven => None,
        }
    }
}

/// Who made something, and what is to be thought of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// That.
    pub trust: Trust,
    /// Who says to have made it, as far as that can be read. Only if its signature holds is it true.
    pub writer: Option<Admission>,
    /// What is wrong, for people, as the end of a sentence about it; empty if nothing is.
    pub why: String,
}

impl Judged {
    fn new(trust: Trust, writer: Option<Admission>, why: impl Into<String>) -> Self {
        Self { trust, writer, why: why.into() }
    }
}

/// Holds signatures against the word of one owner. What an owner said of a writer is looked at once.
struct Judge {
    vault: VaultId,
    owner: Option<PublicKey>,
    admitted: HashMap<Vec<u8>, bool>,
}

impl Judge {
    /// What is to be thought of something by itself; `host` is that of its source, if it has one.
    fn of(&mut self, signed: &Signature, host: Option<&str>) -> Judged {
        if signed.signature.is_empty() {
            return Judged::new(Trust::Unsigned, None, "");
        }
        let writer = match Admission::decode(&signed.writer) {
            Ok(writer) => writer,
            Err(e) => {
                return Judged::new(Trust::Forged, None, format!("is signed by nobody who could be: {e}"));
            }
        };
        let name = format!("{:?} (writer {})", writer.machine, writer.id().short());
        if !signed.what.is_by(&writer.key, &self.vault, &signed.content, &signed.signature) {
            let why = format!("says that it is by {name}, whose signature it does not bear");
            return Judged::new(Trust::Forged, Some(writer), why);
        }
        let Some(owner) = self.owner else {
            return Judged::new(Trust::Unproven, Some(writer), "");
        };
        let vault = self.vault;
        let is_admitted =
            *self.admitted.entry(signed.writer.clone()).or_insert_with(|| writer.is_by(&owner, &vault));
        if !is_admitted {
            let by = match writer.owner == owner {
                true => "whom the owner of this store did not admit",
                false => "whom somebody admitted who is not the owner that this machine knows",
            };
            let why = format!("is signed by {name}, {by}");
            return Judged::new(Trust::Unknown, Some(writer), why);
        }
        match host.filter(|host| !writer.may_write(host)) {
            None => Judged::new(Trust::Holds, Some(writer), ""),
            Some(host) => {
                let why = format!("is signed by {name}, who may not write sources of host {host:?}");
                Judged::new(Trust::Forged, Some(writer), why)
            }
        }
    }
}

/// A point with what is thought of it.
struct OfSource {
    line: PointLine,
    judged: Judged,
}

impl Store {
    /// This machine's key to sign with, if it has one.
    pub fn writer(&self) -> Option<&WriterKey> {
        self.writer.as_deref()
    }

    /// The owner whose word counts here, if this machine knows one.
    pub fn owner(&self) -> Option<&PublicKey> {
        self.owner.as_ref()
    }

    fn the_judge(&self) -> Judge {
        Judge { vault: *self.id(), owner: self.owner, admitted: HashMap::new() }
    }

    /// What is to be thought of points, by their ids. Those that cannot be read now are left out.
    pub fn judge(
        &self,
        wanted: impl Fn(&RecoveryPointId) -> bool,
    ) -> Result<HashMap<RecoveryPointId, Judged>, StoreError> {
        let mut by_source: BTreeMap<SourceTag, Vec<PointLine>> = BTreeMap::new();
        for line in self.catalog.point_lines()? {
            by_source.entry(line.tag).or_default().push(line);
        }
        let (mut judge, mut all) = (self.the_judge(), HashMap::new());
        for lines in by_source.into_values() {
            let judged = self.judge_source(&mut judge, &lines, &wanted)?;
            all.extend(judged.into_iter().map(|one| (one.line.id, one.judged)));
        }
        Ok(all)
    }

    /// Of one source. Whether an unsigned one should have been signed, the others tell.
    fn judge_source(
        &self,
        judge: &mut Judge,
        lines: &[PointLine],
        wanted: impl Fn(&RecoveryPointId) -> bool,
    ) -> Result<Vec<OfSource>, StoreError> {
        let (asked, others): (Vec<_>, Vec<_>) = lines.iter().partition(|line| wanted(&line.id));
        let mut judged = self.judge_each(judge, &asked)?;
        if judge.owner.is_some() && judged.iter().any(|one| one.judged.trust == Trust::Unsigned) {
            let others = self.judge_each(judge, &others)?;
            refuse_unsigned(&mut judged, &others);
        }
        Ok(judged)
    }

    fn judge_each(&self, judge: &mut Judge, lines: &[&PointLine]) -> Result<Vec<OfSource>, StoreError> {
        let mut judged = Vec::with_capacity(lines.len());
        for line in lines {
            let row = match self.catalog.point(&line.id) {
                // It was forgotten meanwhile, or who mends the catalog tells.
                Ok(None) => continue,
                Err(e) if e.is_of_changed_catalog() => continue,
                row => row?,
            };
            let opened = row.map(|row| open_signed_point(&row.object, &self.sealer, &row.tag, &row.id));
            let Some(Ok((point, signature))) = opened else { continue };
            let judgement = judge.of(&signature, Some(&point.source.host));
            let judgement = self.refuse_misplaced(judgement, &point);
            judged.push(OfSource { line: **line, judged: name_point(judgement, &point) });
        }
        Ok(judged)
    }

    /// A point under another tag than that of its names is no machine's: by the tag it would be held against the points of another source than the
    /// one as which it would be recovered.
    fn refuse_misplaced(&self, judged: Judged, point: &RecoveryPoint) -> Judged {
        let source = &point.source;
        let is_placed =
            self.sealer.source_tag(&source.host, &source.group, &source.source) == point.source_tag;
        match is_placed || judged.trust.alarm().is_some() {
            true => judged,
            false => Judged::new(
                Trust::Forged,
                judged.writer,
                format!("lies under the tag {} of another source", point.source_tag),
            ),
        }
    }

    /// Which of the points in a vault are not by whom they say.
    pub(crate) fn writer_alarms(
        &self,
        no: VaultNo,
        wanted: impl Fn(&RecoveryPointId) -> bool,
    ) -> Result<Vec<Alarm>, StoreError> {
        let there = self.catalog.lines_in(no)?;
        let there: BTreeMap<RecoveryPointId, SourceTag> =
            there.into_iter().map(|(line, _)| (line.id, line.tag)).filter(|(id, _)| wanted(id)).collect();
        if there.is_empty() {
            return Ok(Vec::new());
        }
        let judged = self.judge(|id| there.contains_key(id))?;
        let alarm = |(id, judged): (RecoveryPointId, Judged)| {
            Some(Alarm::read(judged.trust.alarm()?, id.hex(), judged.why))
        };
        Ok(judged.into_iter().filter_map(alarm).collect())
    }

    /// Whether a session is not by whom it says.
    pub(super) fn session_alarm(&self, attempt: &Attempt, signature: &Signature) -> Option<Alarm> {
        let judged = self.the_judge().of(signature, None);
        let detail = format!("the session of recovery point {} {}", attempt.point.short(), judged.why);
        Some(Alarm::read(judged.trust.alarm()?, format!("session {attempt}"), detail))
    }

    /// What can be said of who made the points of a vault, for people.
    pub(super) fn who_made_them(&self, no: VaultNo) -> Result<&'static str, StoreError> {
        let mut is_signed = false;
        for (line, _) in self.catalog.lines_in(no)? {
            is_signed |= self.point(&line.id).is_ok_and(|stored| !stored.point.writer.is_empty());
        }
        Ok(match (is_signed, self.owner) {
            (false, _) => "Nothing says which machines made them: they are not signed",
            (true, Some(_)) => {
                "Who made them was looked at: what is not signed by a machine of the owner's is named"
            }
            (true, None) => {
                "Whether machines of the owner's made them cannot be told here: what opened the store does not know its owner, which a \
                 passphrase or the words do"
            }
        })
    }
}

/// An unsigned point is no point of before if a signed one of its source is older, by its number or by its time: else who forges would leave
/// the signature out.
fn refuse_unsigned(judged: &mut [OfSource], others: &[OfSource]) {
    let signed = |one: &&OfSource| one.judged.trust == Trust::Holds;
    let all = || judged.iter().chain(others).filter(signed).map(|one| one.line);
    let (first, earliest) = (all().min_by_key(|line| line.sequence), all().min_by_key(|line| line.started));
    let (Some(first), Some(earliest)) = (first, earliest) else { return };
    for one in judged.iter_mut().filter(|one| one.judged.trust == Trust::Unsigned) {
        let older = match one.line {
            line if line.sequence > first.sequence => first,
            line if line.started > earliest.started => earliest,
            _ => continue,
        };
        one.judged.trust = Trust::Forged;
        one.judged.why = format!(
            "{} not signed, and recovery point {}, which is older, is",
            one.judged.why,
            older.id.short()
        );
    }
}

/// Says which point is meant: a person has to know what not to recover from.
fn name_point(judged: Judged, point: &RecoveryPoint) -> Judged {
    let (source, id) = (&point.source, point.id.short());
    let subject = format!(
        "recovery point {id} (number {} of {}/{}/{})",
        point.sequence, source.host, source.group, source.source
    );
    let why = match judged.trust {
        Trust::Unsigned => format!("{subject} is"),
        _ => format!("{subject} {}", judged.why),
    };
    Judged { why, ..judged }
}
