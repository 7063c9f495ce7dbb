//! Can each recovery point be walked, is each chunk that it needs somewhere, and, for those in a vault, in that vault?

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::{AffectedFile, Check, FILES_LISTED, Finding};
use crate::cache::GRID;
use crate::catalog::{Mark, PackNo, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::fence::Revocation;
use crate::id::ChunkId;
use crate::monitor::{Event, VoidMonitor};
use crate::names;
use crate::point::object::open_point;
use crate::store::{NEWER_KEY, Outcomes, POINT_LIMIT, StoredPoint, load_catalog, of_vault};
use crate::transfer::Transfer;
use crate::tree::Node;
use crate::tree::reach::reachable;
use crate::tree::walk::{Visit, visit};
use crate::vault::{ObjectInfo, VaultError};

/// How many chunks a point lacks in a vault, besides those that no place has.
#[derive(Default)]
struct Lacks {
    here: usize,
    everywhere: usize,
}

impl Check<'_> {
    pub(super) fn points(&mut self) -> Result<(), StoreError> {
        let (points, doubtful) = self.store.look_at_points()?;
        for doubt in doubtful {
            let (object, detail) = (format!("recovery point {}", doubt.id), doubt.error.to_string());
            let unseen = matches!(doubt.error, StoreError::NoKey { .. });
            self.tell(Finding { object, detail, unseen });
        }
        self.monitor.event(Event::Stage { name: "points", files_total: points.len() as u64, bytes_total: 0 });
        let (mut seen, mut missing) = (HashSet::new(), BTreeSet::new());
        let (mut waited, mut unreadable) = (false, false);
        for stored in &points {
            self.goes_on()?;
            self.report.points += 1;
            let name = names::point(&stored.point.source_tag, &stored.point.id);
            if waited && !stored.local {
                self.pass_over(
                    name.as_str(),
                    "it is not looked at: a vault that holds its directories does not answer",
                );
                continue;
            }
            let mut lost = BTreeSet::new();
            let walked = self.walk(&stored.point.root, &mut seen, &mut |check, id| {
                if check.bad_chunks.contains(id) || !check.is_somewhere(id)? {
                    lost.insert(*id);
                }
                Ok(())
            });
            // One that was forgotten meanwhile needs nothing any more.
            let forgotten = (walked.is_err() || !lost.is_empty())
                && self.store.catalog().point(&stored.point.id)?.is_none();
            match forgotten {
                // What others have in common with it was not told, and is looked at again.
                true => seen.clear(),
                false => missing.append(&mut lost),
            }
            if let Err(e) = walked {
                match forgotten {
                    true => {}
                    // Sealed by who rotated the keys since this check began.
                    false if matches!(e, StoreError::NoKey { .. }) || self.is_away(stored, &e) => {
                        self.pass_over(name.as_str(), format!("it is not looked at: {e}"));
                    }
                    false => {
                        unreadable = true;
                        self.find(name.as_str(), format!("its directories cannot be read: {e}"));
                    }
                }
                waited |= e.class() == ErrorClass::Unavailable;
            }
            self.monitor.event(Event::Done { files: 1, bytes: 0 });
        }
        let needed = missing.len();
        // Nobody knows what else lies in an annex that is away, or in a vault that this catalog has not met.
        let mut unmet = false;
        for no in &self.away {
            unmet |= !self.store.catalog().has_mark(Mark::FilledFrom(*no))?;
        }
        let is_unknown = self.annexes_away || unmet;
        missing.retain(|id| !is_unknown || self.bad_chunks.contains(id));
        if missing.len() < needed {
            let away = needed - missing.len();
            self.pass_over(
                "recovery points",
                format!("{away} chunks that they need may be in an annex or a vault that is away"),
            );
        }
        let lost = missing.len();
        self.bad_chunks.extend(missing);
        // What a damaged pack held besides is nobody's loss.
        if lost > 0 {
            self.find("recovery points", format!("{lost} chunks that they need are lost"));
            self.name_files();
        }
        self.goes_on()?;
        if unreadable || !self.bad_chunks.is_empty() {
            // Whatever stood before: a new point relies on none of this unseen, and so the source heals what it still has.
            self.store.catalog().set_mark(Mark::Doubtful, true)?;
        }
        Ok(())
    }

    fn is_somewhere(&self, id: &ChunkId) -> Result<bool, StoreError> {
        Ok(self.hidden.contains(id) || !self.store.catalog().locate_all(id)?.is_empty())
    }

    /// Whether the directories of a point may be whole all the same: where a vault cannot be looked at, as a disk that is not
    /// mounted, it has nothing either.
    fn is_away(&self, point: &StoredPoint, e: &StoreError) -> bool {
        match e.class() {
            ErrorClass::Unavailable => true,
            ErrorClass::NotFound => self.annexes_away || !point.local && !self.away.is_empty(),
            _ => false,
        }
    }

    fn walk(
        &self,
        root: &Node,
        seen: &mut HashSet<ChunkId>,
        look: &mut dyn FnMut(&Self, &ChunkId) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        reachable(self.store.reader().as_ref(), root, seen, &mut |_, id| {
            self.goes_on()?;
            look(self, id)
        })
    }

    /// Whoever recovers from a vault sees the points that it lists: each needs all its chunks there, whatever other tiers have.
    pub(super) fn vaulted_points(&mut self) -> Result<(), StoreError> {
        for (no, address, transfer) in self.store.vaults() {
            let Some(listing) = self.listings.remove(no) else { continue };
            self.learn_who_needs_what_is_damaged(*no, transfer)?;
            let (outcomes, mut incomplete) = (Outcomes::of(&listing.points), Vec::new());
            let (mut seen, mut in_the_way) = (HashSet::new(), BTreeSet::new());
            for object in &listing.points {
                let mut packs = BTreeSet::new();
                match self.not_in(&listing.packs, transfer, object, (&mut seen, &mut packs)) {
                    Ok(Lacks { here: 0, everywhere: 0 }) => {}
                    wrong => {
                        seen.clear();
                        let (detail, unseen) = match wrong {
                            // What is nowhere was told above, and the point is not whole here, either.
                            Ok(Lacks { here: 0, .. }) => {
                                incomplete.extend(names::point_of(&object.name).map(|(_, id)| id));
                                continue;
                            }
                            Ok(Lacks { here, .. }) => {
                                (format!("{here} chunks that it needs are not whole in this vault"), false)
                            }
                            // Of one that the catalog knows this was told above.
                            Err(e) if self.is_known(object)? => {
                                let is_lost = matches!(e.class(), ErrorClass::NotFound | ErrorClass::Corrupt);
                                incomplete
                                    .extend(self.point_at(&object.name, &outcomes)?.filter(|_| is_lost));
                                continue;
                            }
                            Err(StoreError::NoKey { generation, .. }) => {
                                (format!("it is sealed with key generation {generation}; {NEWER_KEY}"), true)
                            }
                            Err(e) => (e.to_string(), e.class() == ErrorClass::Unavailable),
                        };
                        in_the_way.append(&mut packs);
                        // Another process may have forgotten it since it was listed.
                        if transfer.stat(&object.name).is_ok_and(|there| there.is_some()) {
                            incomplete.extend(self.point_at(&object.name, &outcomes)?.filter(|_| !unseen));
                            let (object, detail) = (object.name.to_string(), format!("{address}: {detail}"));
                            self.tell(Finding { object, detail, unseen });
                        }
                    }
                }
            }
            self.missing_points((*no, address, transfer), &listing.points)?;
            self.listings.insert(*no, listing);
            self.store.doubt_points(*no, &incomplete)?;
            self.name_what_is_in_the_way(address, transfer, &in_the_way)?;
        }
        Ok(())
    }

    /// What is damaged in a vault this store may have whole, and points of other machines may need it: it keeps and sends it for those that
    /// it knows. What there is to tell of them is told where they are looked at.
    fn learn_who_needs_what_is_damaged(&self, no: VaultNo, transfer: &Transfer) -> Result<(), StoreError> {
        if self.store.catalog().bad_in(no)?.is_empty() && self.store.incomplete_in(no)?.is_empty() {
            return Ok(());
        }
        match load_catalog(self.store, no, transfer, &VoidMonitor) {
            Err(e @ StoreError::Catalog { .. }) => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Points that were in a vault, do not count as there any more, and are not.
    fn missing_points(
        &mut self,
        (no, address, transfer): (VaultNo, &str, &Transfer),
        listed: &[ObjectInfo],
    ) -> Result<(), StoreError> {
        let (listed, mut now) = (Outcomes::of(listed), HashMap::new());
        for row in self.store.catalog().known_of(&self.store.incomplete_in(no)?)? {
            if row.vaults.contains(&no) || self.is_accounted_for(no, &row, &listed)? {
                continue;
            }
            // It may have come since.
            if let Entry::Vacant(of_source) = now.entry(row.tag) {
                match names::list(transfer, &names::points_of(&row.tag), Deadline::NEVER) {
                    Err(e) if e.is_transient() => {
                        self.leave_out(no, &of_vault(transfer)(e));
                        return Ok(());
                    }
                    shown => drop(of_source.insert(Outcomes::of(&shown.map_err(of_vault(transfer))?))),
                }
            }
            if !self.is_accounted_for(no, &row, &now[&row.tag])? {
                let name = names::point(&row.tag, &row.id);
                self.find(name.as_str(), format!("{address}: the recovery point is missing"));
            }
        }
        Ok(())
    }

    /// Where a link or a directory has the name of a pack that a point lacks, no push can put it there.
    fn name_what_is_in_the_way(
        &mut self,
        address: &str,
        transfer: &Transfer,
        packs: &BTreeSet<PackNo>,
    ) -> Result<(), StoreError> {
        for no in packs {
            let Some(row) = self.store.catalog().pack(*no)? else { continue };
            let name = names::pack(&row.entry.id);
            if let Err(VaultError::Invalid { detail }) =
                transfer.get_range(&name, 0..row.entry.len.min(GRID), Deadline::NEVER)
            {
                let detail = format!("{address}: {detail}; remove it by hand, then push");
                self.find(name.as_str(), detail);
            }
        }
        Ok(())
    }

    /// How many chunks of a point that a vault lists are in none of these packs, without those that are lost everywhere; and which packs
    /// elsewhere hold them.
    fn not_in(
        &self,
        packs: &HashSet<PackNo>,
        transfer: &Transfer,
        object: &ObjectInfo,
        (seen, lacking): (&mut HashSet<ChunkId>, &mut BTreeSet<PackNo>),
    ) -> Result<Lacks, StoreError> {
        let Some((tag, attempt)) = names::outcome_of(&object.name) else { return Ok(Lacks::default()) };
        let id = attempt.point;
        let row = self.store.catalog().point(&id)?;
        let bytes = match row.filter(|row| row.object.len() as u64 == object.len) {
            Some(row) => row.object,
            None => self.fetch_point(transfer, object)?,
        };
        match Revocation::open(self.store.sealer(), (&tag, &attempt), &bytes) {
            Ok(_) => return Ok(Lacks::default()),
            Err(e) if e.is_newer_key() => return Err(e.of(object.name.as_str())),
            Err(_) => {}
        }
        let point =
            open_point(&bytes, self.store.sealer(), &tag, &id).map_err(|e| e.of(object.name.as_str()))?;
        let (mut here, mut everywhere) = (HashSet::new(), HashSet::new());
        self.walk(&point.root, seen, &mut |check, id| {
            if check.hidden.contains(id) {
                return Ok(());
            }
            let places = check.store.catalog().locate_all(id)?;
            if check.bad_chunks.contains(id) {
                everywhere.insert(*id);
            } else if !places.iter().any(|l| packs.contains(&l.pack)) {
                here.insert(*id);
                lacking.extend(places.iter().map(|at| at.pack));
            }
            Ok(())
        })?;
        Ok(Lacks { here: here.len(), everywhere: everywhere.len() })
    }

    fn is_known(&self, object: &ObjectInfo) -> Result<bool, StoreError> {
        let Some((_, id)) = names::point_of(&object.name) else { return Ok(true) };
        Ok(self.store.catalog().damaged_point(&id)?.is_some())
    }

    fn fetch_point(&self, transfer: &Transfer, object: &ObjectInfo) -> Result<Vec<u8>, StoreError> {
        let failed = |source: VaultError| StoreError::Vault { vault: transfer.address(), source };
        transfer.get(&object.name, POINT_LIMIT).map(|bytes| bytes.to_vec()).map_err(failed)
    }

    fn name_files(&mut self) {
        let Ok(points) = self.store.points() else { return };
        for stored in points {
            let (point, mut files) = (stored.point.id, Vec::new());
            let Some(root) = stored.point.root.subtree else { continue };
            let room = FILES_LISTED.saturating_sub(self.report.files.len());
            // A directory that cannot be read ends the naming for its point; that was found above.
            let _ = visit(self.store.pages(), &root.tree, u64::MAX, Deadline::NEVER, &mut |path, node| {
                if files.len() >= room {
                    return Ok(Visit::Stop);
                }
                if self.touches(node) {
                    files.push(AffectedFile { point, path: path.to_vec() });
                }
                Ok(Visit::Continue)
            });
            self.report.files.append(&mut files);
        }
    }

    fn touches(&self, node: &Node) -> bool {
        let Some(content) = &node.content else { return false };
        let file = Node { subtree: None, content: Some(content.clone()), ..node.clone() };
        let mut bad = false;
        let walked = reachable(self.store.reader().as_ref(), &file, &mut HashSet::new(), &mut |_, id| {
            bad |= self.bad_chunks.contains(id);
            Ok(())
        });
        bad || walked.is_err()
    }
}
