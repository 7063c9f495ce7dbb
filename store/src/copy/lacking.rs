//! What of a point a vault lacks, and in which packs that goes there.
//!
//! A chunk is there if any pack has it that the vault confirmed and that was not found damaged there: the same chunk may lie in several
//! packs, of which the vault has another one than staging.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::catalog::{Catalog, Location, PackNo, PackRow, PointRow, Seen, VaultNo};
use crate::error::{ErrorClass, StoreError};
use crate::id::{ChunkId, RecoveryPointId};
use crate::seal::ChunkType;
use crate::store::Store;
use crate::tree::reach::reachable;

/// A pack goes as it is if the point needs this part of its raw bytes. What goes in vain is less than 2 % then, whatever a store lives
/// through; and what a session stored for the point itself goes without being written anew, though a file may have been read twice.
const NEARLY_ALL_PERCENT: u64 = 98;

/// What of a point a vault lacks.
pub(super) struct Lacking {
    /// Packs that go as they are.
    pub(super) whole: Vec<PackRow>,
    /// Packs of which only a part goes, in new packs; ascending by number.
    pub(super) thin: Vec<Thin>,
    /// How many packs of the point the vault has already.
    pub(super) packs_there: u64,
}

/// A pack of which a point needs a part.
pub(super) struct Thin {
    /// The pack.
    pub(super) pack: PackRow,
    needed: Needed,
}

/// Chunks of a pack by where they begin in its raw stream: as few bytes for each as will do, for of a first point there are millions.
#[derive(Default)]
struct Needed {
    chunks: BTreeMap<u32, ChunkType>,
    len: u64,
}

impl Needed {
    fn add(&mut self, of: ChunkType, at: &Location) {
        if self.chunks.insert(at.start, of).is_none() {
            self.len += u64::from(at.len);
        }
    }
}

impl Thin {
    /// What goes of it, in the order of the pack.
    pub(super) fn chunks(&self, catalog: &Catalog) -> Result<Vec<(ChunkType, ChunkId)>, StoreError> {
        let (mut start, mut found) = (0, Vec::new());
        for chunk in catalog.chunks_of(self.pack.no)? {
            found.extend(self.needed.chunks.get(&start).map(|of| (*of, chunk.id)));
            start += chunk.len;
        }
        match found.len() == self.needed.chunks.len() {
            true => Ok(found),
            false => Err(freed(&self.pack.entry.id.to_string())),
        }
    }

    /// About how many bytes go of it.
    pub(super) fn len(&self) -> u64 {
        let part = u128::from(self.pack.entry.len) * u128::from(self.needed.len);
        u64::try_from(part / u128::from(self.pack.entry.raw_len().max(1))).unwrap_or(self.pack.entry.len)
    }
}

/// The packs that a vault has.
struct InVault {
    no: VaultNo,
    /// Those that may be relied on.
    sound: HashSet<PackNo>,
    /// Found damaged there.
    damaged: HashSet<PackNo>,
}

impl InVault {
    fn of(store: &Store, no: VaultNo, began: Seen) -> Result<Self, StoreError> {
        let catalog = store.catalog();
        let (mut sound, mut damaged) = (catalog.packs_in(no)?, HashSet::new());
        for id in catalog.bad_in(no)? {
            // Also of one that the vault does not count as there, because it is cut: something lies under its name.
            if let Some(row) = catalog.pack_by_id(&id)? {
                sound.remove(&row.no);
                damaged.insert(row.no);
            }
        }
        for condemned in store.condemned_for(no, began)? {
            sound.remove(&condemned);
        }
        Ok(Self { no, sound, damaged })
    }
}

/// Looks for all that a point needs. Directories that the last point of the same source that this store pushed has as
/// well need no look: that point is whole there, unless the vault lost something since. `began`: what its session saw.
pub(super) fn lacking(
    store: &Store,
    no: VaultNo,
    row: &PointRow,
    began: Seen,
) -> Result<Lacking, StoreError> {
    let catalog = store.catalog();
    let mut seen = HashSet::new();
    let base = catalog.proven_point(no, &row.tag)?.map(|id| catalog.point(&id)).transpose()?.flatten();
    // While something is condemned, what that point relies on may be.
    if let Some(base) = base.filter(|base| base.vaults.contains(&no) && !began.unfinished) {
        match all_of(store, &base.id) {
            // It only spares a look.
            Err(e) if matches!(e.class(), ErrorClass::NotFound | ErrorClass::Corrupt) => {
                tracing::debug!("recovery point {}: {e}; a new one relies on nothing of it", base.id.short());
            }
            all => seen = all?,
        }
    }
    let in_vault = InVault::of(store, no, began)?;
    let (mut there, mut needed) = (HashSet::new(), HashMap::<PackNo, Needed>::new());
    let point = store.point(&row.id)?;
    reachable(store.reader().as_ref(), &point.point.root, &mut seen, &mut |of, id| {
        let places = catalog.locate_all(id)?;
        if let Some(at) = places.iter().find(|at| in_vault.sound.contains(&at.pack)) {
            there.insert(at.pack);
            return Ok(());
        }
        // What is damaged there is the last choice. Chosen nevertheless, it is replaced, or named if nobody has it whole.
        let at = places.iter().find(|at| !in_vault.damaged.contains(&at.pack)).or(places.first());
        let at = at.ok_or_else(|| StoreError::NotFound { what: format!("chunk {id}") })?;
        needed.entry(at.pack).or_default().add(of, at);
        Ok(())
    })?;
    sort_out(catalog, &in_vault, needed, there.len() as u64)
}

/// Directories of a point, and what it needs.
fn all_of(store: &Store, id: &RecoveryPointId) -> Result<HashSet<ChunkId>, StoreError> {
    let (point, mut all) = (store.point(id)?, HashSet::new());
    reachable(store.reader().as_ref(), &point.point.root, &mut all, &mut |_, _| Ok(()))?;
    Ok(all)
}

fn sort_out(
    catalog: &Catalog,
    in_vault: &InVault,
    needed: HashMap<PackNo, Needed>,
    packs_there: u64,
) -> Result<Lacking, StoreError> {
    let bad = catalog.bad_packs()?;
    let mut lacking = Lacking { whole: Vec::new(), thin: Vec::new(), packs_there };
    let mut needed: Vec<_> = needed.into_iter().collect();
    needed.sort_unstable_by_key(|(pack, _)| *pack);
    let mut rows = Vec::with_capacity(needed.len());
    for (pack, needed) in needed {
        rows.push((catalog.pack(pack)?.ok_or_else(|| freed(&format!("number {}", pack.0)))?, needed));
    }
    // A name that was condemned there once is never used again.
    let names = rows.iter().map(|(row, _)| row.entry.id).collect();
    let condemned = catalog.condemned_of(in_vault.no, u64::MAX, &names)?;
    for (row, needed) in rows {
        let pack = row.no;
        let nearly_all = needed.len * 100 >= row.entry.raw_len() * NEARLY_ALL_PERCENT;
        // Other points in the vault need the rest of a pack that is damaged there. One that is damaged here has parts that are not.
        let whole = in_vault.damaged.contains(&pack) || nearly_all && !bad.contains(&pack);
        if whole && !condemned.contains(&row.entry.id) {
            lacking.whole.push(row);
        } else {
            lacking.thin.push(Thin { pack: row, needed });
        }
    }
    Ok(lacking)
}

/// Another process wrote the pack anew and removed it, since it was looked up: what was needed of it lies elsewhere.
fn freed(pack: &str) -> StoreError {
    StoreError::NotFound { what: format!("pack {pack}, which was freed meanwhile; push again") }
}
