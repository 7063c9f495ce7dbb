//! Names that were given since a mount began: none of them comes to mean anything else, also when what had it is gone.
//!
//! A source has its directory as long as the mount runs. Of points that would have the same name each has a number: the first has the
//! name as it is, the others have it behind theirs. Both are remembered, sources all of them, for they are few, and
//! of points those that are there and up to [`GONE_MAX`] numbers of those that are not. Beyond these the earliest are not remembered one
//! by one, but by the second of the last of them: whoever comes of that second or an earlier one gets a number that was
//! given nowhere yet. That is rare, since what comes is mostly new.

use std::collections::{BTreeMap, HashMap, HashSet};

use holdfast_store::id::{RecoveryPointId, to_hex};
use holdfast_store::point::SourceName;
use holdfast_store::store::PointBrief;

use super::clean_name;
use super::names::numbered;

/// Numbers of points that are gone: a point has two, of some 60 bytes each.
pub(super) const GONE_MAX: usize = if cfg!(test) { 12 } else { 16_384 };

/// Directory of the group and directory of the source.
pub(super) type SourcePath = (String, String);

/// A number is given in a directory (by a hash of its name: two that share one only share their numbers), among the points of a second, to one of them.
type Place = (u64, i64, RecoveryPointId);

#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    sources: BTreeMap<SourceName, SourcePath>,
    numbers: BTreeMap<Place, u32>,
    /// Points of this second, and of those before it, may be gone without being remembered.
    forgotten: Option<i64>,
    /// The highest number that was given.
    highest: u32,
}

impl Given {
    /// The directory of a source that was seen.
    pub(super) fn path(&self, source: &SourceName) -> Option<&SourcePath> {
        self.sources.get(source)
    }

    /// Gives a directory to each source that has none. Where another one has or had such a name, or comes at the same time and would
    /// have it, it gets `@<host>`: a path that meant one machine must never come to mean another. Where that does not tell them apart
    /// it gets its tag.
    pub(super) fn add_sources(&mut self, points: &[PointBrief]) {
        let new = points.iter().filter(|p| !self.sources.contains_key(&*p.source));
        let new: BTreeMap<_, _> = new.map(|p| (&*p.source, p.tag)).collect();
        if new.is_empty() {
            return;
        }
        let mut taken: HashSet<_> = self.sources.values().cloned().collect();
        let plain_uses = count(self.sources.keys().chain(new.keys().copied()).map(plain));
        let first = |source: &SourceName| match plain(source) {
            path if plain_uses.get(&path) == Some(&1) => path,
            _ => hosted(source),
        };
        let first: Vec<_> = new.into_iter().map(|(source, tag)| (source, tag, first(source))).collect();
        let uses = count(first.iter().map(|(.., path)| path.clone()).chain(taken.iter().cloned()));
        let (told_apart, others): (Vec<_>, Vec<_>) =
            first.into_iter().partition(|(.., path)| uses.get(path) == Some(&1));
        for (source, _, path) in told_apart {
            taken.insert(path.clone());
            self.sources.insert(source.clone(), path);
        }
        for (source, tag, (group, name)) in others {
            let name = format!("{name}~{}", to_hex(&tag.0));
            // Somebody may have called a source like that.
            let path =
                (1..).map(|n| (group.clone(), numbered(&name, n))).find(|path| taken.insert(path.clone()));
            self.sources.extend(path.map(|path| (source.clone(), path)));
        }
    }

    /// Which of the points of its second in the directory `folder` this one is, from 1 on.
    pub(super) fn number(&mut self, folder: u64, point: &PointBrief) -> u32 {
        let place = (folder, point.started, point.id);
        if let Some(number) = self.numbers.get(&place) {
            return *number;
        }
        let least = (folder, point.started, RecoveryPointId([0; 16]));
        let most = (folder, point.started, RecoveryPointId([u8::MAX; 16]));
        let others = self.numbers.range(least..=most).map(|(_, number)| *number).max().unwrap_or(0);
        let is_sure = self.forgotten.is_none_or(|forgotten| forgotten < point.started);
        let number = if is_sure { others } else { self.highest }.saturating_add(1);
        self.highest = self.highest.max(number);
        self.numbers.insert(place, number);
        number
    }

    /// Of the points that are not there no more than `most` numbers are kept, those of the latest seconds.
    pub(super) fn let_go_above(&mut self, most: usize, points: &[PointBrief]) {
        if self.numbers.len() <= most {
            return;
        }
        let there: HashSet<_> = points.iter().map(|point| point.id).collect();
        let mut gone: Vec<_> = self.numbers.keys().filter(|(.., id)| !there.contains(id)).copied().collect();
        gone.sort_unstable_by_key(|(_, second, _)| *second);
        for place in gone.iter().take(gone.len().saturating_sub(most)) {
            self.numbers.remove(place);
            self.forgotten = self.forgotten.max(Some(place.1));
        }
    }
}

fn plain(source: &SourceName) -> SourcePath {
    (clean_name(&source.group), clean_name(&source.source))
}

fn hosted(source: &SourceName) -> SourcePath {
    let (group, name) = plain(source);
    (group, format!("{name}@{}", clean_name(&source.host)))
}

fn count(paths: impl Iterator<Item = SourcePath>) -> HashMap<SourcePath, usize> {
    paths.fold(HashMap::new(), |mut uses, path| {
        *uses.entry(path).or_default() += 1;
        uses
    })
}
