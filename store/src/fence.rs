//! What keeps those who write to a vault and those who free space there apart: generations and revocations as objects
//! (`docs/format.md`, section 12; `docs/decisions/fenced-generations.md`).
//!
//! Opening checks that an object is the one its name promises, so that none counts for another.

use crate::format::{FormatError, HEADER_LEN, Header, ObjectKind, Parser, Put};
use crate::id::{Attempt, ObjectId, PackId, RecoveryPointId, SourceTag};
use crate::names::Named;
use crate::seal::{BlockKind, BlockPlace, Compression, Sealer};

/// Most packs of a generation: what is above waits for the next one.
const PACKS_MAX: usize = 1_000_000;
/// Longest content of a generation: what these packs take.
const CONTENT_MAX: usize = 19 + PACKS_MAX * PACK_LEN;
/// Bytes of a pack in it.
const PACK_LEN: usize = 40;
const VERSION: u16 = 1;
/// Of a revocation that says which attempt it revokes; the version before is of the first one.
const WITH_ATTEMPT: u16 = 2;
/// Names of packs are random.
const COMPRESSION: Compression = Compression::None;

/// What a generation says of its packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing new may rely on them.
    Condemned = 1,
    /// They may go; their names are never used again.
    Final = 2,
}

/// Packs of a vault that are to go, or may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// 1 for the first of a vault, then one more each time.
    pub number: u64,
    /// What it says of its packs.
    pub step: Step,
    /// Names and lengths in bytes, ascending by name.
    pub packs: Vec<(PackId, u64)>,
}

/// Why a point is not to be in a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was removed there on purpose.
    Forgotten = 1,
    /// Its session gave no sign of life for too long.
    Silent = 2,
}

/// Stands where an attempt would put its point, so that the point cannot come to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The attempt.
    pub attempt: Attempt,
    /// Source of its point.
    pub tag: SourceTag,
    /// Why.
    pub why: Why,
    /// When, by the clock of who put it, in seconds since 1970.
    pub at: i64,
}

impl Why {
    /// The one of this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Forgotten, Self::Silent].into_iter().find(|why| *why as u8 == number)
    }

    /// Whether this word at an attempt says that a point which was there at the attempt `seen` was removed on purpose. Behind the last attempt
    /// no word finds room, so any at the last one does.
    pub(crate) fn removes(self, attempt: &Attempt, seen: u8) -> bool {
        attempt.number >= seen && (self == Self::Forgotten || attempt.next().is_none())
    }
}

impl Step {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Condemned, Self::Final].into_iter().find(|step| *step as u8 == number)
    }
}

impl Generation {
    /// One of these packs in any order: a pack that is to go for more than one reason is named once, and what is beyond the most that one can name
    /// is left to the next.
    pub fn of(number: u64, step: Step, mut packs: Vec<(PackId, u64)>) -> Self {
        packs.sort_unstable();
        packs.dedup_by_key(|(id, _)| *id);
        packs.truncate(PACKS_MAX);
        Self { number, step, packs }
    }

    /// Its name.
    pub fn name(&self) -> Named {
        match self.step {
            Step::Condemned => Named::Condemned(self.number),
            Step::Final => Named::Final(self.number),
        }
    }

    /// The object's bytes.
    pub fn seal(&self, sealer: &Sealer) -> Vec<u8> {
        let mut out = Vec::with_capacity(19 + self.packs.len() * PACK_LEN);
        out.u16(VERSION);
        out.u64(self.number);
        out.raw(&[self.step as u8]);
        out.u64(self.packs.len() as u64);
        for (id, len) in &self.packs {
            out.raw(&id.0);
            out.u64(*len);
        }
        seal(
            sealer,
            (ObjectKind::Generation, BlockKind::Generation),
            generation_id(self.number, self.step),
            &out,
        )
    }

    /// Opens the object found under a name; `Damaged` also if it is another.
    pub fn open(sealer: &Sealer, (number, step): (u64, Step), bytes: &[u8]) -> Result<Self, FormatError> {
        let kinds = (ObjectKind::Generation, BlockKind::Generation);
        let content = open(sealer, kinds, generation_id(number, step), bytes, CONTENT_MAX)?;
        let mut p = Parser::new(&content);
        version(&mut p, VERSION)?;
        let (inside, [said]) = (p.u64()?, p.array()?);
        if inside != number || Step::from_number(said) != Some(step) {
            return Err(FormatError::damaged("it is another generation than its name says"));
        }
        let count = p.u64()?;
        if count.checked_mul(PACK_LEN as u64) != Some(p.left() as u64) {
            return Err(FormatError::damaged(format!("{count} packs in {} bytes", p.left())));
        }
        let mut packs = Vec::with_capacity(p.left() / PACK_LEN);
        while p.left() > 0 {
            packs.push((PackId(p.array()?), p.u64()?));
        }
        if !packs.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(FormatError::damaged("its packs do not ascend"));
        }
        Ok(Self { number, step, packs })
    }
}

impl Revocation {
    /// Length of the object.
    pub const LEN: u64 = 192;

    /// The object's bytes.
    pub fn seal(&self, sealer: &Sealer) -> Vec<u8> {
        let (point, number) = (self.attempt.point, self.attempt.number);
        let mut out = Vec::with_capacity(48);
        out.u16(if number == 0 { VERSION } else { WITH_ATTEMPT });
        out.raw(&point.0);
        out.raw(&self.tag.0);
        out.raw(&[self.why as u8]);
        out.i64(self.at);
        if number > 0 {
            out.raw(&[number]);
        }
        seal(sealer, (ObjectKind::Revocation, BlockKind::Revocation), ObjectId(point.0), &out)
    }

    /// Whether the object says by its kind that it is one, which proves nothing.
    pub fn is_meant_by(bytes: &[u8], sealer: &Sealer) -> bool {
        Header::decode(bytes, ObjectKind::Revocation, Some(sealer.vault())).is_ok()
    }

    /// Opens the object found where an attempt at a point of the source `tag` puts its point; `Damaged` also if it is of another: a vault
    /// that copies one revokes nothing with it.
    pub fn open(
        sealer: &Sealer,
        (tag, attempt): (&SourceTag, &Attempt),
        bytes: &[u8],
    ) -> Result<Self, FormatError> {
        let kinds = (ObjectKind::Revocation, BlockKind::Revocation);
        let content = open(sealer, kinds, ObjectId(attempt.point.0), bytes, 64)?;
        let mut p = Parser::new(&content);
        let version = version(&mut p, WITH_ATTEMPT)?;
        let (point, of) = (RecoveryPointId(p.array()?), SourceTag(p.array()?));
        let [why] = p.array()?;
        let why = Why::from_number(why);
        let why = why.ok_or_else(|| FormatError::TooNew("a revocation for an unknown reason".into()))?;
        let at = p.i64()?;
        let [number] = if version == VERSION { [0] } else { p.array()? };
        p.end()?;
        let revocation = Self { attempt: Attempt { point, number }, tag: of, why, at };
        if revocation.attempt != *attempt || revocation.tag != *tag {
            return Err(FormatError::damaged("it revokes another attempt than its name says"));
        }
        Ok(revocation)
    }
}

/// Up to the newest that is known.
fn version(p: &mut Parser<'_>, newest: u16) -> Result<u16, FormatError> {
    match p.u16()? {
        known if (VERSION..=newest).contains(&known) => Ok(known),
        other => Err(FormatError::TooNew(format!("an object of reclaim of version {other}"))),
    }
}

/// Id in the header of a generation: one for each name, so that no object opens under another's.
pub fn generation_id(number: u64, step: Step) -> ObjectId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    id[8] = step as u8;
    ObjectId(id)
}

fn seal(
    sealer: &Sealer,
    (kind, block): (ObjectKind, BlockKind),
    object_id: ObjectId,
    content: &[u8],
) -> Vec<u8> {
    let header = Header { kind, object_id, generation: sealer.generation() };
    let mut out = header.encode(sealer.vault()).to_vec();
    sealer.seal(&place(block, &header), content, COMPRESSION, 0, &mut out);
    out
}

fn open(
    sealer: &Sealer,
    (kind, block): (ObjectKind, BlockKind),
    object_id: ObjectId,
    bytes: &[u8],
    most: usize,
) -> Result<Vec<u8>, FormatError> {
    let header = Header::decode(bytes, kind, Some(sealer.vault()))?;
    if header.object_id != object_id {
        return Err(FormatError::damaged("its header is that of another object"));
    }
    sealer.open(&place(block, &header), bytes.get(HEADER_LEN..).unwrap_or_default(), most)
}

fn place(kind: BlockKind, header: &Header) -> BlockPlace {
    let (object_id, generation) = (header.object_id, header.generation);
    BlockPlace { kind, object_id, generation, position: HEADER_LEN as u64 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::id::VaultId;
    use crate::seal::keys::KeyRing;

    const GENERATION: (ObjectKind, BlockKind) = (ObjectKind::Generation, BlockKind::Generation);
    const POINT: RecoveryPointId = RecoveryPointId([6; 16]);
    const TAG: SourceTag = SourceTag([5; 16]);

    fn sealer(vault: u8) -> Sealer {
        Sealer::new(VaultId([vault; 16]), &KeyRing::fixed([1; 32]), 1).unwrap()
    }

    fn revocation(number: u8) -> Revocation {
        Revocation { attempt: Attempt { point: POINT, number }, tag: TAG, why: Why::Silent, at: 7 }
    }

    #[test]
    fn what_says_by_its_kind_that_it_is_a_revocation_is_meant_by_it_and_nothing_else() {
        let (sealer, other) = (sealer(1), sealer(2));
        let revoked = revocation(0).seal(&sealer);
        let mut spoilt = revoked.clone();
        spoilt[HEADER_LEN + 1] ^= 1;
        let generation = Generation { number: 1, step: Step::Final, packs: Vec::new() }.seal(&sealer);
        for (bytes, is_meant) in [
            (&revoked[..], true),
            (&spoilt[..], true),
            (&revoked[..HEADER_LEN], true),
            (&revoked[..HEADER_LEN - 1], false),
            (&generation[..], false),
            (&[][..], false),
        ] {
            assert_eq!(Revocation::is_meant_by(bytes, &sealer), is_meant, "{} bytes", bytes.len());
        }
        assert!(!Revocation::is_meant_by(&revoked, &other), "it is of another store");
    }

    /// A generation under the third number, as whoever has the keys could forge one.
    fn forged(number: u64, step: u8, count: u64, packs: &[u8]) -> Result<Generation, FormatError> {
        let mut content = Vec::new();
        content.u16(VERSION);
        content.u64(number);
        content.raw(&[step]);
        content.u64(count);
        packs.iter().for_each(|pack| {
            content.raw(&[*pack; 32]);
            content.u64(9);
        });
        let sealer = sealer(1);
        let bytes = seal(&sealer, GENERATION, generation_id(3, Step::Condemned), &content);
        Generation::open(&sealer, (3, Step::Condemned), &bytes)
    }

    #[test]
    fn a_generation_that_is_another_one_inside_or_whose_packs_are_not_what_it_says_is_refused() {
        let packs = [1, 2].map(|n| (PackId([n; 32]), 9)).to_vec();
        assert_eq!(forged(3, 1, 2, &[1, 2]), Ok(Generation { number: 3, step: Step::Condemned, packs }));
        for (what, opened) in [
            ("another number", forged(4, 1, 2, &[1, 2])),
            ("the end of it", forged(3, 2, 2, &[1, 2])),
            ("no step", forged(3, 9, 2, &[1, 2])),
            ("fewer packs than it says", forged(3, 1, 3, &[1, 2])),
            ("more packs than it says", forged(3, 1, 1, &[1, 2])),
            ("more packs than can be", forged(3, 1, u64::MAX, &[1, 2])),
            ("a pack twice", forged(3, 1, 2, &[1, 1])),
            ("packs in another order", forged(3, 1, 2, &[2, 1])),
        ] {
            assert!(matches!(opened, Err(FormatError::Damaged(_))), "{what}: {opened:?}");
        }
    }

    #[test]
    fn objects_of_a_later_version_and_for_a_reason_of_tomorrow_are_too_new() {
        let sealer = sealer(1);
        let opened = |version: u16, why: u8, number: &[u8]| {
            let mut content = Vec::new();
            content.u16(version);
            content.raw(&POINT.0);
            content.raw(&TAG.0);
            content.raw(&[why]);
            content.i64(7);
            content.raw(number);
            let kinds = (ObjectKind::Revocation, BlockKind::Revocation);
            let bytes = seal(&sealer, kinds, ObjectId(POINT.0), &content);
            let number = number.first().copied().unwrap_or(0);
            Revocation::open(&sealer, (&TAG, &Attempt { point: POINT, number }), &bytes)
        };
        assert_eq!(opened(1, 2, &[]), Ok(revocation(0)));
        assert_eq!(opened(2, 2, &[4]), Ok(revocation(4)));
        for (version, why, number) in [(0, 2, &[][..]), (3, 2, &[4]), (1, 3, &[]), (1, 0, &[])] {
            let too_new = opened(version, why, number);
            assert!(matches!(too_new, Err(FormatError::TooNew(_))), "{version} {why}: {too_new:?}");
        }
        assert!(matches!(opened(1, 2, &[4]), Err(FormatError::Damaged(_))), "a byte too many");
        assert!(matches!(opened(2, 2, &[]), Err(FormatError::Damaged(_))), "a byte is missing");
    }
}
