//! Holds, in every tier: one that is damaged or gone holds its point as long as the catalog remembers it, and not on the day when there
//! is none.

use super::Check;
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
                Ok(Some(bytes)) => self.look_at_hold("staging", &name, Ok(&bytes)),
                // Unless it was released meanwhile.
                Ok(None) if !self.still_holds(&name)? => {}
                Ok(None) => self.find(name.as_str(), "staging: the hold is missing"),
                Err(e) => self.look_at_hold("staging", &name, Err(e.to_string())),
            }
        }
        for (no, address, transfer) in self.store.vaults() {
            if self.away.contains(no) {
                continue;
            }
            let listed = match transfer.list_all(names::HOLDS) {
                Ok(listed) => listed,
                Err(e) => {
                    self.leave_out(*no, &of_vault(transfer)(e));
                    continue;
                }
            };
            for object in listed {
                match transfer.get(&object.name, SMALL_OBJECT) {
                    Ok(bytes) => self.look_at_hold(address, &object.name, Ok(&bytes)),
                    Err(VaultError::NotFound { .. }) => {}
                    Err(e) if e.is_transient() => {
                        self.leave_out(*no, &of_vault(transfer)(e));
                        break;
                    }
                    Err(e) => self.look_at_hold(address, &object.name, Err(e.to_string())),
                }
            }
        }
        Ok(())
    }

    fn still_holds(&self, name: &ObjectName) -> Result<bool, StoreError> {
        let holds = self.store.catalog().holds()?;
        Ok(holds.iter().any(|row| row.staged && names::hold(&row.tag, &row.point) == *name))
    }

    fn look_at_hold(&mut self, place: &str, name: &ObjectName, bytes: Result<&[u8], String>) {
        let Some((_, point)) = names::hold_of(name) else { return };
        match bytes.map(|bytes| open_hold(bytes, self.store.sealer(), &point)) {
            Ok(Ok(_)) => {}
            Ok(Err(e @ FormatError::NoKey(_))) => self.pass_over(name.as_str(), format!("{place}: {e}")),
            Ok(Err(wrong)) => self.find(name.as_str(), format!("{place}: {wrong}")),
            Err(wrong) => self.find(name.as_str(), format!("{place}: {wrong}")),
        }
    }
}
