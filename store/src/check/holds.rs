//! Holds, in every tier: one that is damaged or gone holds its point as long as the catalog remembers it, and not on the day when there
//! is none.

use super::Check;
use crate::catalog::{HoldRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::format::FormatError;
use crate::names;
use crate::point::object::open_hold;
use crate::store::{SMALL_OBJECT, of_vault};
use crate::vault::{ObjectName, VaultError};

impl Check<'_> {
    /// Every hold opens, and those of staging are there.
    pub(super) fn holds(&mut self) -> Result<(), StoreError> {
        let staging = self.store.staging();
        for row in self.store.catalog().holds()?.into_iter().filter(|row| row.staged) {
            let name = names::hold(&row.tag, &row.point);
            match staging.read_all(&name, SMALL_OBJECT) {
                Ok(Some(bytes)) => drop(self.look_at_hold("staging", &name, Ok(&bytes))),
                // Unless it was released meanwhile.
                Ok(None) if !self.still_holds(&name)? => {}
                Ok(None) => self.find(name.as_str(), "staging: the hold is missing"),
                Err(e) => drop(self.look_at_hold("staging", &name, Err(e.to_string()))),
            }
        }
        for (no, address, transfer) in self.store.vaults() {
            if self.away.contains(no) {
                continue;
            }
            let listed = match names::list(transfer, names::HOLDS, Deadline::NEVER) {
                Ok(listed) => listed,
                Err(e) => {
                    self.leave_out(*no, &of_vault(transfer)(e));
                    continue;
                }
            };
            for object in listed {
                match transfer.get(&object.name, SMALL_OBJECT) {
                    Ok(bytes) => {
                        if !self.look_at_hold(address, &object.name, Ok(&bytes)) {
                            self.bring_again(*no, &object.name)?;
                        }
                    }
                    Err(VaultError::NotFound { .. }) => {}
                    Err(e) if e.is_transient() => {
                        self.leave_out(*no, &of_vault(transfer)(e));
                        break;
                    }
                    Err(e) => drop(self.look_at_hold(address, &object.name, Err(e.to_string()))),
                }
            }
        }
        Ok(())
    }

    fn still_holds(&self, name: &ObjectName) -> Result<bool, StoreError> {
        let holds = self.store.catalog().holds()?;
        Ok(holds.iter().any(|row| row.staged && names::hold(&row.tag, &row.point) == *name))
    }

    /// The next push puts the hold there again that is here.
    fn bring_again(&self, no: VaultNo, name: &ObjectName) -> Result<(), StoreError> {
        let catalog = self.store.catalog();
        let is_here = |row: &HoldRow| row.staged && names::hold(&row.tag, &row.point) == *name;
        match catalog.holds()?.into_iter().find(is_here) {
            Some(row) => catalog.remove_hold(&row.point, Some(no)),
            None => Ok(()),
        }
    }

    /// Whether nothing is wrong with it, as far as this ring can tell.
    fn look_at_hold(&mut self, place: &str, name: &ObjectName, bytes: Result<&[u8], String>) -> bool {
        let Some((_, point)) = names::hold_of(name) else { return true };
        let wrong = match bytes.map(|bytes| open_hold(bytes, self.store.sealer(), &point)) {
            Ok(Ok(_)) => return true,
            Ok(Err(e @ FormatError::NoKey(_))) => {
                self.pass_over(name.as_str(), format!("{place}: {e}"));
                return true;
            }
            Ok(Err(wrong)) => wrong.to_string(),
            Err(wrong) => wrong,
        };
        self.find(name.as_str(), format!("{place}: {wrong}"));
        false
    }
}
