//! Is everything there that the recovery points need, and is it whole? Names the damaged packs and the files they touch.

mod objects;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::catalog::{Mark, PackNo, PackRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{ChunkId, PackId, RecoveryPointId};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::{self, PACK_LIMIT};
use crate::store::Store;
use crate::tree::Node;
use crate::tree::reach::reachable;
use crate::tree::walk::{Visit, visit};

/// How thorough a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every pack is there with its length, every chunk of every point lies in one.
    Structure,
    /// Besides, every byte of every pack is read, opened and hashed.
    ReadData,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Pack, point or other object.
    pub object: String,
    /// What is wrong with it.
    pub detail: String,
}

/// A file that cannot be restored whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffectedFile {
    /// The point.
    pub point: RecoveryPointId,
    /// Path below its root, raw bytes.
    pub path: Vec<u8>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Points looked at.
    pub points: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Bytes read and proven.
    pub bytes_read: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Files that some finding touches; at most [`FILES_LISTED`].
    pub files: Vec<AffectedFile>,
}

/// Files named in a report.
pub const FILES_LISTED: usize = 10_000;

/// Checks the whole store, all tiers that can be reached.
pub fn check(store: &Store, depth: Depth, monitor: &dyn Monitor) -> Result<Report, StoreError> {
    let mut check = Check { store, monitor, report: Report::default(), bad_chunks: HashSet::new() };
    let packs = store.catalog().packs()?;
    check.existence(&packs, depth)?;
    if depth == Depth::ReadData {
        check.read_data(&packs)?;
    }
    check.points()?;
    check.point_objects(depth)?;
    check.slots()?;
    if check.report.findings.is_empty() {
        // Every chunk of every point was looked up: nothing that a new point may rely on is missing.
        store.catalog().set_mark(Mark::Doubtful, false)?;
    }
    Ok(check.report)
}

struct Check<'a> {
    store: &'a Store,
    monitor: &'a dyn Monitor,
    report: Report,
    /// Chunks that no tier can give.
    bad_chunks: HashSet<ChunkId>,
}

impl Check<'_> {
    fn find(&mut self, object: impl Into<String>, detail: impl Into<String>) {
        let (object, detail) = (object.into(), detail.into());
        self.monitor.event(Event::Problem { path: object.clone().into_bytes(), reason: detail.clone() });
        self.report.findings.push(Finding { object, detail });
    }

    /// Compares the catalog with listings of all tiers.
    fn existence(&mut self, packs: &[PackRow], depth: Depth) -> Result<(), StoreError> {
        self.report.packs = packs.len() as u64;
        let staged: BTreeMap<PackId, u64> = self
            .store
            .staging()
            .list("pack")?
            .iter()
            .filter_map(|o| Some((names::pack_of(&o.name)?, o.len)))
            .collect();
        let mut nowhere: BTreeMap<PackNo, usize> = BTreeMap::new();
        for row in packs.iter().filter(|row| row.staged) {
            if let Some(wrong) = wrong_length(&staged, row) {
                self.find(names::pack(&row.entry.id).as_str(), format!("staging: {wrong}"));
                *nowhere.entry(row.no).or_default() += 1;
            }
        }
        for (no, address, transfer) in self.store.vaults() {
            let listed = match transfer.list_all(names::PACKS) {
                Ok(listed) => listed,
                Err(e) => {
                    // What it holds is not known; the other tiers are looked at all the same.
                    self.find(address.as_str(), format!("it cannot be looked at: {e}"));
                    continue;
                }
            };
            let listed = listed.iter().filter_map(|o| Some((names::pack_of(&o.name)?, o.len))).collect();
            for row in packs.iter().filter(|row| row.vaults.contains(no)) {
                if let Some(wrong) = wrong_length(&listed, row) {
                    self.find(names::pack(&row.entry.id).as_str(), format!("{address}: {wrong}"));
                    *nowhere.entry(row.no).or_default() += 1;
                }
            }
        }
        // Reading tells more: of a pack that is too short, the beginning is there.
        if depth == Depth::Structure {
            let tiers = |row: &PackRow| usize::from(row.staged) + row.vaults.len();
            let gone = packs.iter().filter(|row| nowhere.get(&row.no).copied().unwrap_or(0) >= tiers(row));
            let gone: BTreeSet<PackNo> = gone.map(|row| row.no).collect();
            gone.iter().try_for_each(|no| self.lose(*no, &gone))?;
        }
        Ok(())
    }

    /// A pack that no tier can give: its chunks count as lost unless a pack that is not `gone` has them.
    fn lose(&mut self, no: PackNo, gone: &BTreeSet<PackNo>) -> Result<(), StoreError> {
        for chunk in self.store.catalog().chunks_of(no)? {
            let elsewhere =
                self.store.catalog().locate_all(&chunk.id)?.iter().any(|l| !gone.contains(&l.pack));
            if !elsewhere {
                self.bad_chunks.insert(chunk.id);
            }
        }
        Ok(())
    }

    fn read_data(&mut self, packs: &[PackRow]) -> Result<(), StoreError> {
        let bytes_total = packs.iter().map(|p| p.entry.len).sum();
        self.monitor.event(Event::Stage { name: "read packs", files_total: packs.len() as u64, bytes_total });
        for row in packs {
            if self.monitor.cancelled() {
                return Err(StoreError::Cancelled);
            }
            self.read_pack(row)?;
            self.monitor.event(Event::Done { files: 1, bytes: row.entry.len });
        }
        Ok(())
    }

    /// Proves a pack in staging and in each vault; it is lost only when no tier gives it whole.
    fn read_pack(&mut self, row: &PackRow) -> Result<(), StoreError> {
        let name = names::pack(&row.entry.id);
        let mut whole = false;
        if row.staged && self.store.staging().len(&name)? == Some(row.entry.len) {
            let bytes = self.store.staging().read_all(&name, PACK_LIMIT);
            let proof = bytes.map(Option::unwrap_or_default).map_err(|e| e.to_string()).and_then(|bytes| {
                pack::verify(self.store.sealer(), row.entry.id, &bytes).map(drop).map_err(|e| e.to_string())
            });
            whole = proof.is_ok();
            match proof {
                Ok(()) => self.report.bytes_read += row.entry.len,
                Err(detail) => {
                    self.store.catalog().set_bad(row.no, true)?;
                    self.find(name.as_str(), format!("staging: {detail}"));
                }
            }
        }
        for no in &row.vaults {
            let Some((_, address, _)) = self.store.vaults().iter().find(|vault| vault.0 == *no) else {
                continue;
            };
            match self.prove_in_vault(row, *no) {
                Ok(()) => {
                    whole = true;
                    self.report.bytes_read += row.entry.len;
                }
                Err(detail) => self.find(name.as_str(), format!("{address}: {detail}")),
            }
        }
        if whole { Ok(()) } else { self.lose_unreadable(row) }
    }

    /// Of a damaged pack, the chunks that are not in the damaged part can still be read.
    fn lose_unreadable(&mut self, row: &PackRow) -> Result<(), StoreError> {
        for chunk in self.store.catalog().chunks_of(row.no)? {
            if self.store.reader().whole_chunk(row.entry.kind, &chunk.id).is_err() {
                self.bad_chunks.insert(chunk.id);
            }
        }
        Ok(())
    }

    /// Twice if need be: the way from the vault may have flipped a bit.
    fn prove_in_vault(&self, row: &PackRow, no: VaultNo) -> Result<(), String> {
        let here = PackRow { vaults: vec![no], ..row.clone() };
        let prove = || {
            let bytes = self.store.fetch_pack(&here).map_err(|e| e.to_string())?;
            pack::verify(self.store.sealer(), row.entry.id, &bytes).map(drop).map_err(|e| e.to_string())
        };
        prove().or_else(|_| prove())
    }

    fn points(&mut self) -> Result<(), StoreError> {
        let points = self.store.points()?;
        self.monitor.event(Event::Stage { name: "points", files_total: points.len() as u64, bytes_total: 0 });
        let (mut seen, mut missing) = (HashSet::new(), BTreeSet::new());
        for stored in &points {
            self.report.points += 1;
            let name = names::point(&stored.point.source_tag, &stored.point.id);
            let catalog = self.store.catalog();
            let bad = &self.bad_chunks;
            let reader = self.store.reader().as_ref();
            let walked = reachable(reader, &stored.point.root, &mut seen, &mut |_, id| {
                if bad.contains(id) || catalog.locate_all(id)?.is_empty() {
                    missing.insert(*id);
                }
                Ok(())
            });
            if let Err(e) = walked {
                self.find(name.as_str(), format!("its directories cannot be read: {e}"));
                // What was walked of it must be walked again for the next point that shares it.
                seen.clear();
            }
            self.monitor.event(Event::Done { files: 1, bytes: 0 });
        }
        self.bad_chunks.extend(missing.iter().copied());
        if !self.bad_chunks.is_empty() {
            let lost = self.bad_chunks.len();
            self.find("recovery points", format!("{lost} chunks that they need are lost"));
            self.name_files();
        }
        Ok(())
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

fn wrong_length(listed: &BTreeMap<PackId, u64>, row: &PackRow) -> Option<String> {
    match listed.get(&row.entry.id) {
        None => Some("the pack is missing".into()),
        Some(len) if *len != row.entry.len => Some(format!("{len} bytes instead of {}", row.entry.len)),
        Some(_) => None,
    }
}
