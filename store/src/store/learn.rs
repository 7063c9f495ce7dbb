//! Reading into the catalog what a vault holds and nobody here knows: all of it when the vault is first met, later what
//! came there in other ways or was away.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{MutexGuard, PoisonError};

use super::disputed::fills;
use super::listing::{Listed, listed_packs};
use super::mend::row_of;
use super::on_grid::OnGrid;
use super::vaults::{of_vault, prove_ours};
use super::witness::SESSIONS_OF_NEWEST;
use super::{Alarm, Before, Evidence, POINT_LIMIT, Store, what_is_another};
use crate::catalog::{Mark, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::fence::Revocation;
use crate::format::FormatError;
use crate::id::{Attempt, IndexId, PackId, RecoveryPointId, SourceTag};
use crate::index::{INDEX_LIMIT, Index};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::{self, PackEntry, PackedChunk};
use crate::point;
use crate::transfer::Transfer;
use crate::vault::{ObjectInfo, ObjectName, VaultError};

/// Packs that vaults list and that do not open there, with the lengths that were listed.
pub(crate) type Unopened = BTreeMap<(VaultNo, PackId), u64>;

impl Store {
    /// Tells, once for each vault and generation, that somebody rotated the keys and this ring is the older one. What it does not open is no
    /// damage: it is left alone.
    pub(super) fn tell_newer_key(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        generation: u32,
        monitor: &dyn Monitor,
    ) {
        if self.newer_keys().insert((no, generation)) {
            let reason = format!(
                "it holds objects sealed with key generation {generation}, which this machine's ring has not: they are left alone; {NEWER_KEY}"
            );
            monitor.event(Event::Problem { path: transfer.address().into_bytes(), reason });
        }
    }

    /// Of which vault that was told, and which generations.
    pub(crate) fn newer_keys(&self) -> MutexGuard<'_, BTreeSet<(VaultNo, u32)>> {
        self.newer_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packs of vaults that were found not to open since the store was opened: each is told once.
    pub(crate) fn unopened(&self) -> MutexGuard<'_, Unopened> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Objects that are asked for at once …
const BATCH: usize = 64;
/// … and bytes of them, but for one that is larger by itself.
const BATCH_BYTES: u64 = 16 << 20;

/// Of what another machine sealed with a key that this one has not.
pub(crate) const NEWER_KEY: &str =
    "the keys were rotated elsewhere, and `holdfast key refresh` brings them here";
/// Of a pack that does not open.
const WAY_OUT: &str =
    "a push sends it again where it is whole, a prune removes it if no recovery point needs it";

/// Fills the catalog with what a vault holds: index objects first, packs that none covers by their own
/// directories, then the points. What does not open is told and left out, and looked at again when the store is opened the next
/// time: it may be the way from the vault that damages it.
pub fn load_catalog(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let _lock = store.lock_learning()?;
    prove_ours(store, transfer, Deadline::NEVER)?;
    let remembered = store.before(no)?;
    let listed = listed_packs(transfer, Deadline::NEVER)?;
    let all_packs = learn_packs(store, no, transfer, &listed, Deadline::NEVER, monitor)?;
    let loaded = load_points(store, no, transfer, all_packs, monitor)?;
    let all_points = loaded.all;
    // Before the vault is asked for anything more: should it fail, the next look knows these points already.
    store.note_alarms(no, store.writer_alarms(no, |id| loaded.learned.contains(id))?)?;
    look_back(store, (no, transfer), &remembered, loaded, monitor)?;
    store.end_adoption();
    store.learn_holds(no, transfer, Deadline::NEVER)?;
    let filled = store.catalog().has_mark(Mark::FilledFrom(no))?;
    // Whether all that the points need that are here was found, nobody has looked.
    if !filled && !store.catalog().point_ids()?.is_empty() {
        store.catalog().set_mark(Mark::Doubtful, true)?;
    }
    if all_packs && all_points {
        store.catalog().set_mark(Mark::FilledFrom(no), true)?;
        store.catalog().set_mark(Mark::Reread(no), false)?;
    }
    Ok(())
}

/// Makes the catalog know the packs that a vault lists: by its index objects, and those that none covers, or of which two say different things,
/// by their own directories. Asks the vault nothing if all are known. `false` if one could not be read.
pub(super) fn learn_packs(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    listed: &Listed,
    deadline: Deadline,
    monitor: &dyn Monitor,
) -> Result<bool, StoreError> {
    let confirmed: HashSet<PackId> = store
        .catalog()
        .packs()?
        .into_iter()
        .filter(|row| row.vaults.contains(&no))
        .map(|row| row.entry.id)
        .collect();
    if listed.keys().all(|id| confirmed.contains(id)) {
        return Ok(true);
    }
    let known: HashSet<_> = store.catalog().index_objects(Some(no))?.into_iter().collect();
    let objects = names::list(transfer, names::INDEXES, deadline).map_err(of_vault(transfer))?;
    monitor.event(Event::Stage { name: "index", files_total: objects.len() as u64, bytes_total: 0 });
    let named = objects.into_iter().filter_map(|object| Some((names::index_of(&object.name)?, object)));
    let (new, too_long): (Vec<_>, Vec<_>) =
        named.filter(|(id, _)| !known.contains(id)).partition(|(_, object)| object.len <= INDEX_LIMIT);
    for (_, object) in too_long {
        monitor.event(problem(
            transfer,
            &object.name,
            &format!("{} bytes are no index object's", object.len),
        ));
    }
    let mut disputed = BTreeSet::new();
    for some in batches(&new, |(_, object)| object.len) {
        // Many at once: each is small, and a vault may be far away.
        let wanted = some.iter().map(|(_, o)| (o.name.clone(), 0..o.len)).collect();
        for ((id, object), bytes) in some.iter().zip(transfer.get_many(wanted, deadline)) {
            let opened = match bytes.ok().map(|bytes| Index::open(store.sealer(), *id, &bytes)) {
                Some(Err(FormatError::NoKey(generation))) => {
                    store.tell_newer_key(no, transfer, generation, monitor);
                    continue;
                }
                Some(Ok(index)) => Ok(index),
                _ => open_index(store, transfer, &object.name, *id, deadline)?,
            };
            match opened {
                Ok(index) => disputed.extend(adopt_index(store, no, id, &index, listed)?),
                Err(e) => {
                    // One that covers nothing: the next push writes another one for its packs, and a prune removes it.
                    if e.is_damage() {
                        store.catalog().add_index(id, &[], Some(no))?;
                    }
                    monitor.event(problem(transfer, &object.name, &e.to_string()));
                }
            }
            monitor.event(Event::Done { files: 1, bytes: object.len });
        }
    }
    store.settle((no, transfer), (&disputed, listed), deadline, monitor)?;
    load_uncovered_packs(store, no, transfer, listed, deadline, monitor)
}

/// In their order, as many together as may be in memory, and asked for, at once.
fn batches<T>(items: &[T], len: impl Fn(&T) -> u64) -> impl Iterator<Item = &[T]> {
    let mut left = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |item: &&T| {
            bytes = len(item).saturating_add(bytes);
            bytes <= BATCH_BYTES
        };
        let count = left.iter().take(BATCH).take_while(fits).count().max(1).min(left.len());
        let (batch, rest) = left.split_at(count);
        left = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Twice if need be: the way from the vault may have flipped a bit. One that cannot be had is damaged: packs tell the same.
pub(crate) fn open_index(
    store: &Store,
    transfer: &Transfer,
    name: &ObjectName,
    id: IndexId,
    deadline: Deadline,
) -> Result<Result<Index, FormatError>, StoreError> {
    let open = || match transfer.get_by(name, INDEX_LIMIT, deadline) {
        Ok(bytes) => Ok(Index::open(store.sealer(), id, &bytes)),
        Err(e @ (VaultError::NotFound { .. } | VaultError::TooShort { .. } | VaultError::Invalid { .. })) => {
            Ok(Err(FormatError::damaged(e.to_string())))
        }
        Err(e) => Err(of_vault(transfer)(e)),
    };
    match open()? {
        Err(_) => open(),
        opened => Ok(opened),
    }
}

/// The packs of which the catalog knows something else. They do not count as covered by this index object.
fn adopt_index(
    store: &Store,
    no: VaultNo,
    id: &IndexId,
    index: &Index,
    listed: &Listed,
) -> Result<Vec<PackId>, StoreError> {
    let packs = index.packs_with_chunks();
    let there: Vec<(&PackEntry, &[PackedChunk])> = packs
        .iter()
        .filter(|(entry, chunks)| listed.get(&entry.id) == Some(&entry.len) && fills(entry, chunks))
        .map(|(entry, chunks)| (*entry, chunks.as_slice()))
        .collect();
    store.catalog().add_packs(&there, false, Some(no))?;
    let (mut covered, mut disputed) = (Vec::new(), Vec::new());
    for (entry, chunks) in there {
        match store.is_disputed(entry, chunks)? {
            true => disputed.push(entry.id),
            false => covered.push(entry.id),
        }
    }
    store.catalog().add_index(id, &covered, Some(no))?;
    Ok(disputed)
}

fn load_uncovered_packs(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    listed: &Listed,
    deadline: Deadline,
    monitor: &dyn Monitor,
) -> Result<bool, StoreError> {
    let (mut all, mut owners) = (true, None);
    for (id, len) in listed {
        if store.catalog().pack_by_id(id)?.is_some_and(|row| row.vaults.contains(&no)) {
            continue;
        }
        // That takes a look at all rows, and mostly every pack is known.
        let owners = match &mut owners {
            Some(owners) => owners,
            none => none.insert(store.catalog().object_ids()?),
        };
        match store.read_as_named((no, transfer), (id, *len), owners, deadline) {
            Ok((entry, chunks)) => {
                store.correct(&entry, &chunks, no)?;
                store.catalog().set_mark(Mark::BadIn(no, *id), false)?;
                store.unopened().remove(&(no, *id));
                if let Some(namesake) = owners.insert(entry.object_id, Some(*id)).flatten()
                    && namesake != *id
                {
                    all &= store.proves_namesake((no, transfer), (&namesake, listed), deadline, monitor)?;
                }
            }
            Err(PackError::Store(e)) => return Err(e),
            Err(PackError::Format(FormatError::NoKey(generation))) => {
                all = false;
                store.tell_newer_key(no, transfer, generation, monitor);
            }
            Err(PackError::Format(e)) => {
                all = false;
                // Another place may have it whole, and this one lists it with the right length: that is no copy.
                store.catalog().set_mark(Mark::BadIn(no, *id), true)?;
                if store.unopened().insert((no, *id), *len).is_none() {
                    let reason = format!("{e}; {WAY_OUT}");
                    monitor.event(problem(transfer, &names::pack(id), &reason));
                }
            }
        }
    }
    Ok(all)
}

pub(super) fn problem(transfer: &Transfer, name: &ObjectName, reason: &str) -> Event {
    let reason = format!("vault {}: {reason}", transfer.address());
    Event::Problem { path: name.as_str().into(), reason }
}

/// What a pack in a vault says that it holds. Twice if need be: the way from the vault may have flipped a bit.
pub(crate) fn read_pack_entry(
    store: &Store,
    transfer: &Transfer,
    id: &PackId,
    len: u64,
    deadline: Deadline,
) -> Result<(PackEntry, Vec<PackedChunk>), PackError> {
    let name = names::pack(id);
    let fetch = |range| {
        let fetched = transfer.get_range(&name, range, deadline);
        fetched.map_err(|e| PackError::Store(of_vault(transfer)(e)))
    };
    let open = || {
        let mut blocks = OnGrid::new(len, fetch);
        pack::read_entry(store.sealer(), *id, len, |offset, n| blocks.read(offset, n))
    };
    match open() {
        Err(PackError::Format(_)) => open(),
        opened => opened,
    }
}

/// Why a pack does not say what it holds: a damaged one is told and left out; a vault that fails ends the loading.
pub(crate) enum PackError {
    Format(FormatError),
    Store(StoreError),
}

impl From<FormatError> for PackError {
    fn from(e: FormatError) -> Self {
        Self::Format(e)
    }
}

/// Makes sure that the catalog knows every point that a vault shows, also those that came there in other ways. One that
/// cannot be opened is an error: what it needs is unknown. What the vault shows.
pub fn learn_points(store: &Store, no: VaultNo, transfer: &Transfer) -> Result<Vec<ObjectInfo>, StoreError> {
    let _lock = store.lock_learning()?;
    prove_ours(store, transfer, Deadline::NEVER)?;
    let known = known_points(store, no)?;
    let revoked = store.catalog().revoked_in(no)?;
    let listed = names::list(transfer, names::POINTS, Deadline::NEVER).map_err(of_vault(transfer))?;
    let mut learned = HashSet::new();
    for object in &listed {
        let outcome = names::outcome_of(&object.name).filter(|(_, attempt)| !known.contains(&attempt.point));
        let Some((tag, attempt)) = outcome else { continue };
        // A vault that was put back from an older copy may have the point again.
        if object.len == Revocation::LEN && revoked.contains(&attempt) {
            continue;
        }
        let bytes = transfer.get(&object.name, POINT_LIMIT).map_err(of_vault(transfer))?;
        if store.note_revocation(no, (&tag, &attempt), &bytes)?.is_some() {
            continue;
        }
        let point = point::object::open_point(&bytes, store.sealer(), &tag, &attempt.point);
        let point = point.map_err(|e| match Revocation::is_meant_by(&bytes, store.sealer()) {
            true => StoreError::corrupt(object.name.as_str(), REVOCATION),
            false => e.of(object.name.as_str()),
        })?;
        learn_point(store, (no, &attempt), &point, bytes.to_vec(), false)?;
        learned.insert(attempt.point);
    }
    // The next look at the vault knows them already.
    store.note_alarms(no, store.writer_alarms(no, |id| learned.contains(id))?)?;
    Ok(listed)
}

/// What is under the name of a point that says by its kind that the point is not to be there, and does not open.
const REVOCATION: &str =
    "it is a revocation, and damaged: remove it by hand, and forget the point once more should it come back";

/// A point of staging counts as one of the vault as well if all packs that the vault lists were read, and it was never met before. Any other that
/// the vault shows may lack something there, as one that was said to: it is whole when it is put again.
fn learn_point(
    store: &Store,
    (no, attempt): (VaultNo, &Attempt),
    point: &point::RecoveryPoint,
    object: Vec<u8>,
    all_packs: bool,
) -> Result<(), StoreError> {
    let known = match store.catalog().point(&point.id) {
        // A damaged row is no knowledge: this is what puts it right.
        Err(e) if e.is_of_changed_catalog() => None,
        known => known?,
    };
    let is_first = all_packs && !store.catalog().has_mark(Mark::FilledFrom(no))?;
    let is_doubted = store.catalog().has_mark(Mark::Incomplete(no, point.id))?;
    if is_doubted && known.is_some() {
        return Ok(());
    }
    if known.is_some_and(|row| row.staged) && !is_first {
        return store.doubt_points(no, &[point.id]);
    }
    // That the attempt was revoked there, if it was, stays known: it never comes back by right.
    store.catalog().set_seen_at(no, attempt)?;
    let row = row_of(point, object, false, vec![no]);
    if is_doubted { store.catalog().add_doubted(&row, no) } else { store.catalog().add_point(&row) }
}

/// The points that the catalog says to be in this vault.
pub(super) fn known_points(store: &Store, no: VaultNo) -> Result<HashSet<RecoveryPointId>, StoreError> {
    // A damaged row is no knowledge: the point is read again.
    let known = store.catalog().sound_points()?.into_iter().filter(|row| row.vaults.contains(&no));
    Ok(known.map(|row| row.id).collect())
}

/// What came of reading the points of a vault.
struct Loaded {
    /// Points that it learned.
    learned: HashSet<RecoveryPointId>,
    /// Whether all that it did not know could be read.
    all: bool,
    /// What the vault lists.
    listed: Vec<ObjectInfo>,
    /// What lies under the name of another.
    swapped: Vec<Alarm>,
}

/// Whoever has no memory of a vault asks the sessions of its newest points what their writers saw there, and says what that is worth.
fn look_back(
    store: &Store,
    (no, transfer): (VaultNo, &Transfer),
    before: &Before,
    loaded: Loaded,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let Loaded { listed, swapped: alarms, .. } = loaded;
    let mut evidence = Evidence { alarms, ..Evidence::default() };
    if before.is_fresh() {
        let (heads, replayed) = store.read_sessions(no, transfer, &listed, SESSIONS_OF_NEWEST)?;
        evidence.alarms.extend(replayed);
        let there = store.catalog().lines_in(no)?.len();
        if there > 0 {
            let told = first_look(&transfer.address(), there, heads.len(), store.who_made_them(no)?);
            monitor.event(Event::Note(told.clone()));
            store.first_looks.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        }
        evidence.witnessed = heads;
    }
    store.look_back(no, transfer, before, &listed, evidence, monitor).map(drop)
}

fn first_look(address: &str, points: usize, witnessed: usize, writers: &str) -> String {
    let so = match witnessed {
        0 => "nothing there tells what was there before".to_owned(),
        n => format!("they were held against {n} statements of their writers about what was there before"),
    };
    format!(
        "vault {address} shows {points} recovery points, and this machine never saw it before: {so}. An older state of all of it, put back \
         together, cannot be told from here: see that the newest points are as new as they should be, or ask another vault. {writers}"
    )
}

/// Learns points that somebody else brought there of sources of this machine. What does not open is left to who reads all.
pub(super) fn learn_strangers(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    strangers: &[(SourceTag, Attempt)],
) -> Result<(), StoreError> {
    if strangers.is_empty() || store.read_only {
        return Ok(());
    }
    // Somebody removes points there: the next look learns these.
    let Ok(_lock) = store.lock_learning() else { return Ok(()) };
    for (tag, attempt) in strangers {
        let bytes = match transfer.get(&names::outcome(tag, attempt), POINT_LIMIT) {
            Err(VaultError::NotFound { .. }) => continue,
            bytes => bytes.map_err(of_vault(transfer))?,
        };
        if let Ok(point) = point::object::open_point(&bytes, store.sealer(), tag, &attempt.point) {
            learn_point(store, (no, attempt), &point, bytes.to_vec(), false)?;
        }
    }
    Ok(())
}

/// The points that the catalog did not know to be in this vault.
fn load_points(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    all_packs: bool,
    monitor: &dyn Monitor,
) -> Result<Loaded, StoreError> {
    let known = known_points(store, no)?;
    let objects = names::list(transfer, names::POINTS, Deadline::NEVER).map_err(of_vault(transfer))?;
    let points: Vec<_> = objects.iter().filter_map(|o| Some((names::outcome_of(&o.name)?, o))).collect();
    let revoked = store.catalog().revoked_in(no)?;
    let news = points.into_iter().filter(|((_, attempt), object)| {
        !(known.contains(&attempt.point) || object.len == Revocation::LEN && revoked.contains(attempt))
    });
    let points: Vec<_> = news.collect();
    if !points.is_empty() {
        // Whether all that they need was found, nobody has looked.
        store.catalog().set_mark(Mark::Doubtful, true)?;
    }
    monitor.event(Event::Stage { name: "points", files_total: points.len() as u64, bytes_total: 0 });
    let (mut new, mut learned, mut swapped, total) = (0, HashSet::new(), Vec::new(), points.len());
    for some in batches(&points, |(_, object)| object.len) {
        let wanted = some.iter().map(|(_, o)| (o.name.clone(), 0..o.len.min(POINT_LIMIT))).collect();
        let answers = transfer.get_many(wanted, Deadline::NEVER);
        for (((tag, attempt), object), bytes) in some.iter().zip(answers) {
            let bytes = bytes.map_err(of_vault(transfer))?;
            match store.note_revocation(no, (tag, attempt), &bytes) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    new += 1;
                    continue;
                }
                Err(StoreError::NoKey { generation, .. }) => {
                    store.tell_newer_key(no, transfer, generation, monitor);
                    continue;
                }
                Err(e) => return Err(e),
            }
            let open = |bytes: &[u8]| point::object::open_point(bytes, store.sealer(), tag, &attempt.point);
            let opened = open(&bytes).map(|point| (point, bytes.clone())).or_else(|_| {
                let again = transfer.get(&object.name, POINT_LIMIT).unwrap_or_else(|_| bytes.clone());
                open(&again).map(|point| (point, again))
            });
            match opened {
                Ok((point, bytes)) => {
                    learn_point(store, (no, attempt), &point, bytes.to_vec(), all_packs)?;
                    learned.insert(point.id);
                    new += 1;
                }
                Err(FormatError::NoKey(generation)) => {
                    store.tell_newer_key(no, transfer, generation, monitor);
                }
                Err(_) if Revocation::is_meant_by(&bytes, store.sealer()) => {
                    monitor.event(problem(transfer, &object.name, REVOCATION));
                }
                Err(e) => {
                    swapped.extend(what_is_another(store.sealer(), (tag, attempt), &bytes));
                    monitor.event(problem(transfer, &object.name, &e.to_string()));
                }
            }
            monitor.event(Event::Done { files: 1, bytes: object.len });
        }
    }
    Ok(Loaded { learned, all: new == total, listed: objects, swapped })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_number_and_bytes_and_leave_nothing_out() {
        let counts = |lens: &[u64]| batches(lens, |len| *len).map(<[u64]>::len).collect::<Vec<_>>();
        assert_eq!(counts(&[]), [0_usize; 0]);
        assert_eq!(counts(&[1; 130]), [64, 64, 2]);
        assert_eq!(counts(&[BATCH_BYTES, 1, BATCH_BYTES - 1, 1]), [1, 2, 1]);
        assert_eq!(counts(&[u64::MAX / 4, 1, u64::MAX / 4]), [1, 1, 1]);
    }
}
