//! A check of some packs of some places, byte by byte, for whoever reads all of it little by little.
//!
//! It tells of all damage that is known in these places, also of what it does not read itself this time: so who finds none has nothing
//! to see to there. Which files are touched is looked up only where something is damaged, or where something may be missing since a loss was
//! learned: what was lost in every place is in no listing that could be compared. Of a vault in which points are known to lack something it is
//! looked up what they lack.

use std::collections::{HashMap, HashSet};

use super::packs::NOTED_TOGETHER;
use super::{Check, Depth, Place, Report};
use crate::catalog::{Mark, PackNo, PackRow, VaultNo};
use crate::error::StoreError;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::scrub::ciphertext::Part;
use crate::store::Store;

/// What is read of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Staging (`None`), or a vault.
    pub place: Option<VaultNo>,
    /// Packs, in the order in which they are read.
    pub packs: Vec<PackNo>,
}

/// Reads and proves packs of places, each of which is listed first; `part` says which of the points of vaults are read as well.
/// What is read is noted as proven as it goes, so that one that is cut off leaves less for the next one.
pub fn scrub(store: &Store, turns: &[Turn], part: Part, monitor: &dyn Monitor) -> Result<Report, StoreError> {
    store.mend_packs(monitor)?;
    store.follow_reclaim(monitor)?;
    let (points, packs) = (store.catalog().sound_points()?, store.catalog().packs()?);
    let mut check = Check::of(store, monitor)?;
    check.only = Some(turns.iter().map(|turn| turn.place).collect());
    check.part = part;
    check.existence(&packs, Depth::ReadData)?;
    check.read_turns(&packs, turns)?;
    check.known_in(&packs, turns)?;
    check.point_objects(&points, Depth::ReadData)?;
    check.slots()?;
    let places: Vec<_> = turns.iter().map(|turn| turn.place).collect();
    let lacks = store.lacks_something_in(&places)?;
    let is_damaged = check.report.findings.iter().any(|finding| !finding.unseen);
    // Of some places it cannot be told what all of them lack.
    if lacks || is_damaged || check.looks_at_all() && store.catalog().has_mark(Mark::Doubtful)? {
        check.points()?;
    }
    if lacks {
        check.vaulted_points()?;
    }
    check.newer_keys();
    check.goes_on()?;
    Ok(check.report)
}

impl Check<'_> {
    fn read_turns(&mut self, packs: &[PackRow], turns: &[Turn]) -> Result<(), StoreError> {
        let rows: HashMap<PackNo, &PackRow> = packs.iter().map(|row| (row.no, row)).collect();
        let wanted: Vec<(Option<VaultNo>, &PackRow)> = turns
            .iter()
            .flat_map(|turn| turn.packs.iter().filter_map(|no| Some((turn.place, *rows.get(no)?))))
            .collect();
        let bytes_total = wanted.iter().map(|(_, row)| row.entry.len).sum();
        self.report.packs = wanted.len() as u64;
        let name = "read packs";
        self.monitor.event(Event::Stage { name, files_total: self.report.packs, bytes_total });
        for (place, row) in wanted {
            if self.monitor.cancelled() {
                self.note_proven()?;
                return Err(StoreError::Cancelled);
            }
            self.read_copy(place, row)?;
            if self.proven.len() >= NOTED_TOGETHER {
                self.note_proven()?;
            }
            self.monitor.event(Event::Done { files: 1, bytes: row.entry.len });
        }
        self.note_proven()
    }

    /// Proves one copy. What no tier can give is lost.
    fn read_copy(&mut self, place: Option<VaultNo>, row: &PackRow) -> Result<(), StoreError> {
        let whole = match place {
            None => self.out_of_sight.contains(&row.entry.id) || row.staged && self.read_staged(row)?,
            Some(no) => self.away.contains(&no) || !row.vaults.contains(&no) || self.read_vaulted(row, no)?,
        };
        // What another place has that cannot be looked at is not lost.
        let is_elsewhere = row.vaults.iter().any(|no| self.away.contains(no));
        if whole || is_elsewhere { Ok(()) } else { self.lose_unreadable(row) }
    }

    /// Copies that were found damaged before, and that were not read now.
    fn known_in(&mut self, packs: &[PackRow], turns: &[Turn]) -> Result<(), StoreError> {
        for turn in turns {
            let read: HashSet<PackNo> = turn.packs.iter().copied().collect();
            let unread: Vec<PackRow> = packs.iter().filter(|row| !read.contains(&row.no)).cloned().collect();
            match turn.place {
                None => self.known_here(&unread)?,
                Some(no) => {
                    let Some(there) = self.listings.get(&no).map(|listing| listing.packs.clone()) else {
                        continue;
                    };
                    self.known_damage(no, &self.store.catalog().vault_address(no), &unread, &there)?;
                }
            }
        }
        Ok(())
    }

    fn known_here(&mut self, unread: &[PackRow]) -> Result<(), StoreError> {
        let bad = self.bad.clone();
        for row in unread.iter().filter(|row| row.staged && bad.contains(&row.no)) {
            if self.pack_still_in(row, Place::Staging)? {
                self.find(names::pack(&row.entry.id).as_str(), "staging: it was read before and is damaged");
            }
        }
        // Whoever compared staging with the catalog before has written it off.
        for row in self.store.missed_here()? {
            self.find(names::pack(&row.entry.id).as_str(), "staging: the pack is missing");
        }
        Ok(())
    }
}
