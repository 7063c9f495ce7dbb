//! Packs of staging that were found damaged. The catalog says which, and so does an empty object beside them: a catalog that is made anew
//! learns of most packs from index objects, reads none of them, and would have new points rely on what is known to be damaged.

use super::Store;
use crate::catalog::{Mark, PackRow};
use crate::error::StoreError;
use crate::monitor::{Event, Monitor};
use crate::names;

impl Store {
    /// Notes that a pack was found damaged in staging, or is whole there.
    pub(crate) fn mark_staged(&self, row: &PackRow, bad: bool) -> Result<(), StoreError> {
        self.catalog.set_bad(row.no, bad)?;
        if self.read_only {
            return Ok(());
        }
        let mark = names::bad_mark(&row.entry.id);
        let marked = match bad {
            true if self.staging.len(&mark)?.is_some() => Ok(()),
            true => self.staging.put(&mark, &[]),
            false => self.staging.remove(&mark).map(drop),
        };
        // The disk is full, or dies: that is no reason to keep what was found from who asked.
        marked.or_else(|e| {
            tracing::warn!("{mark}: {e}; a catalog that is made anew will not know that the pack is damaged");
            Ok(())
        })
    }

    /// The same of a pack that goes.
    pub(crate) fn unmark_gone(&self, row: &PackRow) -> Result<(), StoreError> {
        self.staging.remove(&names::bad_mark(&row.entry.id)).map(drop)
    }

    /// Tells a catalog that is filled anew what was found damaged before.
    pub(super) fn adopt_marks(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        for object in self.staging.list(names::BAD_PACKS.trim_end_matches('/'))? {
            let Some(id) = names::marked_bad(&object.name) else { continue };
            match self.catalog.pack_by_id(&id)?.filter(|row| row.staged) {
                Some(row) => {
                    self.catalog.set_bad(row.no, true)?;
                    let reason = "staging: it was read before and is damaged".to_owned();
                    monitor.event(Event::Problem { path: names::pack(&id).as_str().into(), reason });
                }
                // It may lie in an annex that is away.
                None => self.catalog.set_mark(Mark::BadAway(id), true)?,
            }
        }
        Ok(())
    }
}
