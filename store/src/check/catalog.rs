//! Are the catalog's rows of chunks what was written? What one of them hides is not lost: the catalog is made anew without it.

use super::Check;
use crate::error::StoreError;

impl Check<'_> {
    pub(super) fn catalog(&mut self) -> Result<(), StoreError> {
        let damaged = self.store.catalog().damaged_chunks()?;
        for no in damaged.packs {
            self.hidden.extend(self.store.catalog().places_in(no)?.into_iter().map(|(id, _)| id));
        }
        if damaged.rows > 0 {
            let rows = damaged.rows;
            self.find(
                "catalog.db",
                format!(
                    "damaged rows of chunks: {rows}; nothing is lost by that: move it away when nothing else runs, \
                     and it is made anew"
                ),
            );
        }
        Ok(())
    }
}
