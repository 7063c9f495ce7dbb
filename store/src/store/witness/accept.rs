//! Taking a vault as it is now, with what is lost named: whoever keeps it put it back from an older copy, say, and said so. From then on what was
//! missing is not missed any more; what is found wrong later is told as ever.

use std::collections::{BTreeSet, HashSet};

use super::{Alarm, AlarmKind, Before, Evidence};
use crate::catalog::{Mark, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{Attempt, RecoveryPointId, SlotId};
use crate::monitor::{Monitor, VoidMonitor};
use crate::names;
use crate::store::vaults::is_elsewhere;
use crate::store::{Outcomes, Store, of_vault, prove_ours, see_vault};

/// A point that a vault does not have any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its id.
    pub id: RecoveryPointId,
    /// Whether staging or another vault has it: a push sends it again.
    pub is_elsewhere: bool,
}

/// What was accepted of a vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// What stood of it.
    pub alarms: Vec<Alarm>,
    /// What cannot be accepted, and is told again by the next look: it is to be put right.
    pub stays: Vec<Alarm>,
    /// Points that were seen there and are not there.
    pub lost: Vec<Lost>,
}

impl Accepted {
    /// Whether there was nothing to accept.
    pub fn is_empty(&self) -> bool {
        self.alarms.is_empty() && self.stays.is_empty() && self.lost.is_empty()
    }
}

/// Key under which it is accepted that a revocation is gone.
pub(super) fn mark_key(attempt: &str) -> String {
    format!("mark {attempt}")
}

fn missing_keys(id: &RecoveryPointId) -> [String; 2] {
    [AlarmKind::PointWithheld, AlarmKind::PointRemoved].map(|kind| Alarm::new(kind, id.hex(), "").key())
}

/// Whether it is accepted that a point is missing.
pub(super) fn is_accepted(accepted: &BTreeSet<String>, id: &RecoveryPointId) -> bool {
    missing_keys(id).iter().any(|key| accepted.contains(key))
}

/// Whether somebody may go on with it. What lies under the name of another, and a config that is another, help nobody.
fn can_be_accepted(kind: AlarmKind) -> bool {
    !matches!(kind, AlarmKind::ConfigSwapped | AlarmKind::PointSwapped)
}

impl Store {
    /// Looks at a vault and takes it as it is. The caller has the store's lock.
    ///
    /// # Errors
    /// Those of a vault that does not answer, or is another store's: nothing is accepted of what cannot be seen.
    pub fn accept_vault(&self, no: VaultNo, monitor: &dyn Monitor) -> Result<Accepted, StoreError> {
        let transfer = self.vault(no)?.clone();
        prove_ours(self, &transfer, Deadline::NEVER)?;
        let before = self.before(no)?;
        let shown = names::list(&transfer, names::POINTS, Deadline::NEVER).map_err(of_vault(&transfer))?;
        let mut alarms = self.look_back(no, &transfer, &before, &shown, Evidence::default(), &VoidMonitor)?;
        let standing =
            before.memory.alarms.iter().filter(|old| !alarms.iter().any(|new| new.key() == old.key()));
        // That generations are gone is not seen by this look.
        alarms.extend(
            standing.filter(|old| old.kind == AlarmKind::VaultRolledBack).cloned().collect::<Vec<_>>(),
        );
        alarms.sort_by_key(|alarm| alarm.kind);
        let generations_gone = self.accept_generations(no, &shown_generations(self, no)?)?;
        let (alarms, stays): (Vec<_>, Vec<_>) =
            alarms.into_iter().partition(|alarm| can_be_accepted(alarm.kind));
        let missing = self.recall(no)?.missing;
        let mut lost = Vec::new();
        for id in missing.keys() {
            let row = self.catalog.point(id)?;
            let is_elsewhere = row.as_ref().is_some_and(|row| is_elsewhere(row, no));
            match row {
                // What is somewhere else is sent again.
                Some(row) if is_elsewhere && self.vaults_of(&row)?.contains(&no) => {
                    self.doubt_points(no, &[*id])?;
                }
                _ => self.catalog.remove_point(id, Some(no))?,
            }
            lost.push(Lost { id: *id, is_elsewhere });
        }
        let accepted = Accepted { alarms, stays, lost };
        self.keep_accepted(no, &before, &shown, &accepted)?;
        if generations_gone || !accepted.is_empty() {
            self.catalog.set_mark(Mark::Reread(no), true)?;
            self.catalog.set_mark(Mark::Doubtful, true)?;
            // What else is gone with it is taken note of, and not told.
            see_vault(self, no, &transfer, Deadline::NEVER, &VoidMonitor)?;
            self.meet_vaults(monitor)?;
        }
        Ok(accepted)
    }

    fn keep_accepted(
        &self,
        no: VaultNo,
        before: &Before,
        shown: &[crate::vault::ObjectInfo],
        accepted: &Accepted,
    ) -> Result<(), StoreError> {
        let outcomes: HashSet<Attempt> =
            shown.iter().filter_map(|object| Some(names::outcome_of(&object.name)?.1)).collect();
        let listed = Outcomes::of(shown);
        let gone = before.revoked.difference(&outcomes);
        let marks: BTreeSet<String> = gone.map(ToString::to_string).collect();
        let of_kind = |kind| accepted.alarms.iter().filter(move |alarm| alarm.kind == kind);
        let replayed: BTreeSet<String> =
            of_kind(AlarmKind::PointReplayed).map(|alarm| alarm.subject.clone()).collect();
        for attempt in marks.iter().chain(&replayed).filter_map(|text| Attempt::from_text(text)) {
            self.catalog.set_revoked(no, &attempt, None)?;
        }
        let slots: BTreeSet<SlotId> =
            of_kind(AlarmKind::SlotReplayed).filter_map(|alarm| SlotId::from_hex(&alarm.subject)).collect();
        let lost: HashSet<RecoveryPointId> = accepted.lost.iter().map(|lost| lost.id).collect();
        let keys = accepted.alarms.iter().filter(|alarm| {
            // Of these each thing is accepted for itself, lest all that is ever wrong in the same way is.
            !matches!(alarm.kind, AlarmKind::VaultRolledBack | AlarmKind::SlotReplayed)
        });
        let keys: Vec<String> = keys.map(Alarm::key).collect();
        self.remember(no, |memory| {
            memory
                .heads
                .retain(|_, known| !lost.contains(&known.id) && !listed.at(&known.tag, &known.id).is_empty());
            memory.missing.clear();
            memory.forget_revoked(&marks);
            memory.forget_revoked(&replayed);
            memory.slots.extend(slots.into_iter().map(|slot| (slot, false)));
            memory.accepted.extend(lost.iter().flat_map(missing_keys));
            memory.accepted.extend(marks.iter().map(|text| mark_key(text)));
            memory.accepted.extend(keys);
            memory.alarms.clone_from(&accepted.stays);
        })
    }

    /// Forgets the generations of a vault if it does not show all of them any more. Those that it shows are read again.
    fn accept_generations(&self, no: VaultNo, shown: &HashSet<(u64, bool)>) -> Result<bool, StoreError> {
        let known = self.catalog.listed_generations(no)?;
        let is_gone = known.keys().any(|generation| !shown.contains(generation));
        if is_gone {
            self.catalog.forget_generations(no)?;
        }
        Ok(is_gone)
    }
}

fn shown_generations(store: &Store, no: VaultNo) -> Result<HashSet<(u64, bool)>, StoreError> {
    let transfer = store.vault(no)?;
    let listed = names::list(transfer, names::GENERATIONS, Deadline::NEVER).map_err(of_vault(transfer))?;
    let number = |name: &str| match names::Named::parse(name)? {
        names::Named::Condemned(number) => Some((number, false)),
        names::Named::Final(number) => Some((number, true)),
        _ => None,
    };
    Ok(listed.iter().filter_map(|object| number(object.name.as_str())).collect())
}
