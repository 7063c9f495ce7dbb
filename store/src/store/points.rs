//! Recovery points out of the catalog, decoded once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use super::look::Look;
use super::mend::DoubtfulPoint;
use super::{Store, StoredPoint};
use crate::catalog::{PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::id::{ChunkId, RecoveryPointId, SourceTag};
use crate::names;
use crate::seal::ChunkType;
use crate::tree::reach::reachable;

impl Store {
    /// All points, ascending by start. Decoded points are kept as long as the catalog knows them. Those that cannot be had are told in
    /// the log and left out.
    pub fn points(&self) -> Result<Vec<StoredPoint>, StoreError> {
        Ok(self.points_and_doubtful()?.0)
    }

    /// The same with those that are told.
    pub fn points_and_doubtful(&self) -> Result<(Vec<StoredPoint>, Vec<DoubtfulPoint>), StoreError> {
        let (points, doubtful) = self.look_at_points()?;
        doubtful.iter().for_each(|doubt| tracing::error!("{}", doubt.error));
        Ok((points, doubtful))
    }

    /// The same, untold: who asks which is the newest must not pass over those that cannot be had.
    pub fn look_at_points(&self) -> Result<(Vec<StoredPoint>, Vec<DoubtfulPoint>), StoreError> {
        let ids = self.catalog.point_ids()?;
        let known: HashSet<_> = ids.iter().map(|(id, _)| *id).collect();
        self.decoded.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| known.contains(id));
        let (mut points, mut doubtful) = (Vec::with_capacity(ids.len()), Vec::new());
        let mut look = Look::far(self, Deadline::NEVER);
        let (mut holds, mut incomplete) = (self.holds()?, self.incomplete()?);
        let going: HashSet<_> = self.catalog.going_here()?.into_iter().collect();
        for (id, _) in ids {
            match self.load(&id, &mut look, |row| self.stored(row)) {
                Ok(point) => {
                    let local = point.local && !(going.contains(&id) && self.went_here(&point)?);
                    let (held, incomplete) = (holds.remove(&id), incomplete.remove(&id).unwrap_or_default());
                    let point = StoredPoint { local, held, incomplete, ..point };
                    // What a removal that was cut off left of one is no point.
                    points.extend(
                        (local || !point.vaults.is_empty() || !point.incomplete.is_empty()).then_some(point),
                    );
                }
                // It was forgotten meanwhile.
                Err(StoreError::NotFound { .. }) => {}
                Err(e @ (StoreError::Corrupt { .. } | StoreError::NoKey { .. })) => {
                    doubtful.push(self.doubtful(id, e)?);
                }
                Err(e) => return Err(e),
            }
        }
        // The catalog knows full seconds only.
        points.sort_by_key(|stored| (stored.point.started, stored.point.id));
        Ok((points, doubtful))
    }

    /// Points of which the catalog says that they are in staging, and whose objects are not there, or of which something is nowhere, as far as is
    /// known. Objects are put again when staging is compared, and what they need may be gone: a catalog that lost its last commits knows
    /// points again that somebody forgot.
    pub fn points_that_staging_lacks(&self) -> Result<HashSet<RecoveryPointId>, StoreError> {
        // In this order: a point that comes meanwhile is no absent one.
        let (known, listed) = (self.points_known_here()?, self.points_listed_here()?);
        let mut lacking: HashSet<_> = known.difference(&listed).copied().collect();
        if self.catalog.misses_any_here()? {
            let ids: Vec<_> = known.into_iter().collect();
            let whole = self.not_lost(&ids)?;
            lacking.extend(ids.into_iter().filter(|id| !whole.contains(id)));
        }
        Ok(lacking)
    }

    /// Those of these points of which all that they need is somewhere, as far as is known. What they have in common is looked at once.
    ///
    /// # Errors
    /// `Cancelled`. Of a point of which something cannot be reached now, or that the catalog cannot tell of, nobody knows: it is among them.
    pub fn not_lost(&self, ids: &[RecoveryPointId]) -> Result<HashSet<RecoveryPointId>, StoreError> {
        let (mut seen, mut found) = (HashSet::new(), HashSet::new());
        // Nobody knows what else lies in an annex that is away.
        let annexes_away = self.staging.first_away().is_some();
        let mut is_somewhere =
            |_: ChunkType, id: &ChunkId| match self.catalog.locate_all(id)?.is_empty() && !annexes_away {
                true => Err(StoreError::NotFound { what: format!("chunk {id}") }),
                false => Ok(()),
            };
        for id in ids {
            let looked = self.point(id).and_then(|stored| {
                reachable(self.reader.as_ref(), &stored.point.root, &mut seen, &mut is_somewhere)
            });
            match looked {
                Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => {}
                Err(e) if e.class() == ErrorClass::Cancelled => return Err(e),
                _ => drop(found.insert(*id)),
            }
        }
        Ok(found)
    }

    /// Whether the catalog tells of every point in staging. One that lost its last commits, with the file of its log say, does not.
    pub(super) fn knows_staged_points(&self) -> Result<bool, StoreError> {
        // In this order: one that goes meanwhile is no unknown one.
        Ok(self.points_listed_here()?.is_subset(&self.points_known_here()?))
    }

    fn points_known_here(&self) -> Result<HashSet<RecoveryPointId>, StoreError> {
        let known = self.catalog.point_ids()?.into_iter().filter(|(_, staged)| *staged);
        Ok(known.map(|(id, _)| id).collect())
    }

    fn points_listed_here(&self) -> Result<HashSet<RecoveryPointId>, StoreError> {
        let listed = self.staging.list("rp")?;
        Ok(listed.iter().filter_map(|object| Some(names::point_of(&object.name)?.1)).collect())
    }

    /// One point.
    pub fn point(&self, id: &RecoveryPointId) -> Result<StoredPoint, StoreError> {
        let point = self.load(id, &mut Look::far(self, Deadline::NEVER), |row| self.stored(row))?;
        let incomplete = self.lacking_in(id)?.into_iter().map(|no| self.address(no)).collect();
        Ok(StoredPoint { held: self.holds()?.remove(id), incomplete, ..point })
    }

    /// Whether the object of a point is not in staging any more, of which the catalog says that it is there and to go: it does not count as there
    /// until whoever reconciles says so.
    fn went_here(&self, point: &StoredPoint) -> Result<bool, StoreError> {
        Ok(self.staging.len(&names::point(&point.point.source_tag, &point.point.id))?.is_none())
    }

    /// Which points lack something in which vaults.
    fn incomplete(&self) -> Result<HashMap<RecoveryPointId, Vec<String>>, StoreError> {
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for (no, id) in self.catalog.incomplete()? {
            found.entry(id).or_default().push(self.address(no));
        }
        Ok(found)
    }

    /// As who uses the store knows a vault.
    fn address(&self, no: VaultNo) -> String {
        let known = self.vaults.iter().find(|vault| vault.0 == no).map(|vault| vault.1.clone());
        known.unwrap_or_else(|| self.catalog.vault_address(no))
    }

    /// The newest point of a source. An error if it cannot be told which that is: what comes after would be numbered wrongly for good.
    pub fn newest_point(&self, tag: &SourceTag) -> Result<Option<StoredPoint>, StoreError> {
        let mut look = Look::far(self, Deadline::NEVER);
        for damaged in self.catalog.damaged_points(false)? {
            let Some(id) = damaged.id() else {
                let row = "the catalog's row of a recovery point without a name";
                return Err(StoreError::corrupt(row, "it may be of any source"));
            };
            match self.sound_row(&id, &mut look) {
                Err(e @ StoreError::Corrupt { .. }) => {
                    let doubt = self.doubtful(id, e)?;
                    if doubt.tag.is_none_or(|of| of == *tag) {
                        return Err(doubt.error);
                    }
                }
                row => drop(row?),
            }
        }
        let newest = self.catalog.newest_id(tag)?;
        newest.map(|id| self.point(&id)).transpose()
    }

    /// Of a point that is not held, and lacks nothing.
    pub(super) fn stored(&self, row: PointRow) -> Result<StoredPoint, StoreError> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        let point = match decoded.get(&row.id) {
            Some(point) => point.clone(),
            None => {
                let point = Arc::new(self.open_row(&row)?);
                decoded.insert(row.id, point.clone());
                point
            }
        };
        let vaults = row.vaults.iter().map(|no| self.address(*no)).collect();
        let incomplete = Vec::new();
        Ok(StoredPoint { point, hash: row.hash, local: row.staged, vaults, incomplete, held: None })
    }
}
