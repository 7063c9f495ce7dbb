//! Names of a store's objects (`docs/format.md`, section 2), made from ids and read back into them.
//!
//! One place for both directions, so that what one part of the program puts another finds, and so that
//! whatever else lies in a vault is recognised as not ours instead of half understood.

use std::cell::Cell;

use crate::clock::Deadline;
use crate::id::{Attempt, IndexId, PackId, RecoveryPointId, SlotId, SourceTag};
use crate::transfer::Transfer;
use crate::vault::{ObjectInfo, ObjectName, VaultError};

/// All packs begin with this.
pub const PACKS: &str = "pack/";
/// All index objects begin with this.
pub const INDEXES: &str = "idx/";
/// All sessions begin with this.
pub const SESSIONS: &str = "sess/";
/// All recovery points begin with this.
pub const POINTS: &str = "rp/";
/// All heartbeats begin with this.
pub const HEARTBEATS: &str = "hb/";
/// All generations of reclaim begin with this.
pub const GENERATIONS: &str = "gen/";
/// What the name of a generation ends with that says which packs may go.
const FINAL: &str = ".final";
/// All holds begin with this.
pub const HOLDS: &str = "hold/";
/// All key slots begin with this.
pub const SLOTS: &str = "keys/";

/// What is under a name whose bytes are others is moved here: it may still be good for something, and stands in nobody's way.
pub const BAD: &str = "bad/";
/// Packs that were moved there, and marks of packs that stay where they are.
pub const BAD_PACKS: &str = "bad/pack/";

/// What an object is, by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    /// The one config.
    Config,
    /// A key slot.
    Slot(SlotId),
    /// A pack.
    Pack(PackId),
    /// An index object.
    Index(IndexId),
    /// The session of an attempt.
    Session(Attempt),
    /// How an attempt ended: the recovery point, or the revocation that stands in its place.
    Point(SourceTag, Attempt),
    /// A sign of life of a session; several bear different numbers.
    Heartbeat(Attempt, u64),
    /// Packs that a generation of reclaim condemns.
    Condemned(u64),
    /// Those of them that may go.
    Final(u64),
    /// A hold of a recovery point.
    Hold(SourceTag, RecoveryPointId),
}

impl Named {
    /// Reads a name; nothing if it is not exactly one that [`Named::name`] makes.
    pub fn parse(name: &str) -> Option<Self> {
        let (first, rest) = match name.split_once('/') {
            None => return (name == "config").then_some(Self::Config),
            Some(parts) => parts,
        };
        match first {
            "keys" => SlotId::from_hex(rest).map(Self::Slot),
            "pack" => parse_pack(rest).map(Self::Pack),
            "idx" => IndexId::from_hex(rest).map(Self::Index),
            "sess" => Attempt::from_text(rest).map(Self::Session),
            "rp" => {
                let (tag, attempt) = rest.split_once('/')?;
                Some(Self::Point(SourceTag::from_hex(tag)?, Attempt::from_text(attempt)?))
            }
            "hold" => {
                let (tag, id) = rest.split_once('/')?;
                Some(Self::Hold(SourceTag::from_hex(tag)?, RecoveryPointId::from_hex(id)?))
            }
            "hb" => {
                let (session, beat) = rest.split_once('-')?;
                Some(Self::Heartbeat(Attempt::from_text(session)?, parse_number(beat)?))
            }
            "gen" => match rest.strip_suffix(FINAL) {
                Some(number) => parse_number(number).map(Self::Final),
                None => parse_number(rest).map(Self::Condemned),
            },
            _ => None,
        }
    }

    /// The object's name.
    pub fn name(&self) -> ObjectName {
        let text = match self {
            Self::Config => "config".to_owned(),
            Self::Slot(id) => format!("{SLOTS}{id}"),
            Self::Pack(id) => {
                let hex = id.hex();
                format!("{PACKS}{}/{hex}", &hex[..2])
            }
            Self::Index(id) => format!("{INDEXES}{id}"),
            Self::Session(attempt) => format!("{SESSIONS}{attempt}"),
            Self::Point(tag, attempt) => format!("{POINTS}{tag}/{attempt}"),
            Self::Heartbeat(session, beat) => format!("{HEARTBEATS}{session}-{beat:016x}"),
            Self::Condemned(number) => format!("{GENERATIONS}{number:016x}"),
            Self::Final(number) => format!("{GENERATIONS}{number:016x}{FINAL}"),
            Self::Hold(tag, id) => format!("{HOLDS}{tag}/{id}"),
        };
        ObjectName::new(text).expect("hexadecimal digits and fixed words are always a name")
    }
}

/// Sixteen lower-case hexadecimal digits, so that names ascend with numbers.
fn parse_number(hex: &str) -> Option<u64> {
    let ours = hex.len() == 16 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    ours.then(|| u64::from_str_radix(hex, 16).ok())?
}

fn parse_pack(rest: &str) -> Option<PackId> {
    let (folder, hex) = rest.split_once('/')?;
    (folder == hex.get(..2)?).then_some(())?;
    PackId::from_hex(hex)
}

/// Name of the config.
pub fn config() -> ObjectName {
    Named::Config.name()
}

/// Name of a key slot.
pub fn slot(id: &SlotId) -> ObjectName {
    Named::Slot(*id).name()
}

/// Name of a pack.
pub fn pack(id: &PackId) -> ObjectName {
    Named::Pack(*id).name()
}

/// Name of an index object.
pub fn index(id: &IndexId) -> ObjectName {
    Named::Index(*id).name()
}

/// Name of a session.
pub fn session(attempt: &Attempt) -> ObjectName {
    Named::Session(*attempt).name()
}

/// Name of a recovery point in staging, and in a vault where the first attempt brought it.
pub fn point(tag: &SourceTag, id: &RecoveryPointId) -> ObjectName {
    outcome(tag, &Attempt::first(*id))
}

/// Name of what an attempt at a point of a source ends with in a vault: the point, or a revocation.
pub fn outcome(tag: &SourceTag, attempt: &Attempt) -> ObjectName {
    Named::Point(*tag, *attempt).name()
}

/// Name of the hold of a recovery point.
pub fn hold(tag: &SourceTag, id: &RecoveryPointId) -> ObjectName {
    Named::Hold(*tag, *id).name()
}

/// The pack of this name, if it is one's.
pub fn pack_of(name: &ObjectName) -> Option<PackId> {
    match Named::parse(name.as_str())? {
        Named::Pack(id) => Some(id),
        _ => None,
    }
}

/// The index object of this name, if it is one's.
pub fn index_of(name: &ObjectName) -> Option<IndexId> {
    match Named::parse(name.as_str())? {
        Named::Index(id) => Some(id),
        _ => None,
    }
}

/// The key slot of this name, if it is one's.
pub fn slot_of(name: &ObjectName) -> Option<SlotId> {
    match Named::parse(name.as_str())? {
        Named::Slot(id) => Some(id),
        _ => None,
    }
}

/// Source and id of the recovery point of this name, if it is one's, whichever attempt brought it.
pub fn point_of(name: &ObjectName) -> Option<(SourceTag, RecoveryPointId)> {
    outcome_of(name).map(|(tag, attempt)| (tag, attempt.point))
}

/// Source and attempt of which this is the outcome, if it is one's.
pub fn outcome_of(name: &ObjectName) -> Option<(SourceTag, Attempt)> {
    match Named::parse(name.as_str())? {
        Named::Point(tag, attempt) => Some((tag, attempt)),
        _ => None,
    }
}

/// Source and id of the point that the hold of this name holds, if it is one's.
pub fn hold_of(name: &ObjectName) -> Option<(SourceTag, RecoveryPointId)> {
    match Named::parse(name.as_str())? {
        Named::Hold(tag, id) => Some((tag, id)),
        _ => None,
    }
}

/// Where an object with wrong bytes is moved. Two with the same name and other bytes are kept apart by a hash of theirs.
pub fn bad(name: &ObjectName, bytes_hash: &[u8; 32]) -> ObjectName {
    let sum = crate::id::to_hex(&bytes_hash[..8]);
    ObjectName::new(format!("{BAD}{name}.{sum}")).expect("a name, and hexadecimal digits, are always a name")
}

/// Name of the empty object that says of a pack in staging that its bytes there are damaged.
pub fn bad_mark(id: &PackId) -> ObjectName {
    ObjectName::new(format!("{BAD}{}", pack(id)))
        .expect("a name with a fixed word before it is always a name")
}

/// Which pack such an object speaks of.
pub fn marked_bad(name: &ObjectName) -> Option<PackId> {
    match Named::parse(name.as_str().strip_prefix(BAD)?)? {
        Named::Pack(id) => Some(id),
        _ => None,
    }
}

/// So many names that are none are shown to who lists names: who takes offence at one hears of it, and who put any number fills no memory.
const STRANGE_MAX: usize = 100;

/// All objects of a vault whose names begin with `prefix`, ascending by name, and of those that have no name of a store the first few.
///
/// # Errors
/// Those of [`Transfer::list_some`].
pub fn list(transfer: &Transfer, prefix: &str, deadline: Deadline) -> Result<Vec<ObjectInfo>, VaultError> {
    let strange = Cell::new(0);
    transfer.list_some(prefix, deadline, |object| {
        let is_ours = Named::parse(object.name.as_str()).is_some();
        strange.set(strange.get() + usize::from(!is_ours));
        is_ours || strange.get() <= STRANGE_MAX
    })
}

/// What the names of all recovery points of one source begin with.
pub fn points_of(tag: &SourceTag) -> String {
    format!("{POINTS}{tag}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    mod properties;

    #[test]
    fn every_name_leads_back_to_its_id() {
        let id = RecoveryPointId([0xab; 16]);
        let tag = SourceTag([1; 16]);
        let (first, later) = (Attempt::first(id), Attempt { point: id, number: 12 });
        let all = [
            Named::Config,
            Named::Slot(SlotId([2; 16])),
            Named::Pack(PackId([0xfe; 32])),
            Named::Index(IndexId([3; 32])),
            Named::Session(first),
            Named::Session(later),
            Named::Point(tag, first),
            Named::Point(tag, later),
            Named::Heartbeat(first, 0xfedc),
            Named::Heartbeat(later, 0xfedc),
            Named::Condemned(7),
            Named::Final(u64::MAX),
            Named::Hold(tag, id),
        ];
        for named in all {
            assert_eq!(Named::parse(named.name().as_str()), Some(named));
        }
        assert_eq!(pack(&PackId([0xfe; 32])).as_str(), format!("pack/fe/{}", "fe".repeat(32)));
        assert_eq!(point(&tag, &id).as_str(), format!("rp/{}/{}", "01".repeat(16), "ab".repeat(16)));
        assert!(point(&tag, &id).as_str().starts_with(&points_of(&tag)));
        assert_eq!(outcome(&tag, &first), point(&tag, &id));
        assert_eq!(outcome(&tag, &later).as_str(), format!("{}.12", point(&tag, &id)));
        assert_eq!(session(&later).as_str(), format!("sess/{}.12", "ab".repeat(16)));
        assert_eq!(Named::Heartbeat(later, 1).name().as_str(), format!("hb/{id}.12-{:016x}", 1));
        assert_eq!(point_of(&outcome(&tag, &later)), Some((tag, id)));
        assert_eq!(outcome_of(&outcome(&tag, &later)), Some((tag, later)));
        let aside = bad(&pack(&PackId([0xfe; 32])), &[7; 32]);
        assert_eq!(aside.as_str(), format!("bad/pack/fe/{}.{}", "fe".repeat(32), "07".repeat(8)));
        let mark = bad_mark(&PackId([0xfe; 32]));
        assert_eq!(mark.as_str(), format!("bad/pack/fe/{}", "fe".repeat(32)));
        assert_eq!((marked_bad(&mark), marked_bad(&aside)), (Some(PackId([0xfe; 32])), None));
        assert_eq!(Named::parse(aside.as_str()), None);
        assert!(
            slot(&SlotId([2; 16])).is_control() && config().is_control() && !session(&first).is_control()
        );
    }

    #[test]
    fn a_name_that_is_not_exactly_ours_is_nothing() {
        let hex = "fe".repeat(32);
        let bad = [
            "".to_owned(),
            "config/".to_owned(),
            "config2".to_owned(),
            "pack".to_owned(),
            format!("pack/{hex}"),
            format!("pack/fd/{hex}"),
            format!("pack/fe/{hex}/"),
            format!("pack/fe/{}", hex.to_uppercase()),
            format!("idx/{}", &hex[2..]),
            format!("idx/{hex}00"),
            format!("rp/{hex}"),
            format!("rp//{}", "ab".repeat(16)),
            format!("rp/{0}/{0}.0", "ab".repeat(16)),
            format!("sess/{}.256", "ab".repeat(16)),
            format!("hb/{}.07-0000000000000001", "ab".repeat(16)),
            format!("hold/{}", "ab".repeat(16)),
            format!("hold/{0}/{0}.1", "ab".repeat(16)),
            "pack/\u{e9}/x".to_owned(),
            "keys/xyz".to_owned(),
            "trash/00".to_owned(),
            "gen/7".to_owned(),
            "gen/000000000000000A".to_owned(),
            "gen/+00000000000000a".to_owned(),
            "gen/000000000000000a.finally".to_owned(),
            "hb/0000000000000001".to_owned(),
        ];
        for name in bad {
            assert_eq!(Named::parse(&name), None, "{name:?}");
        }
    }
}
