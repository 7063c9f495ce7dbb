//! Bringing recovery points into the vaults, for the verbs that do. What fails in one vault keeps nothing from the others, and a point
//! that is damaged here none of the points after it.

use std::collections::HashSet;
use std::sync::Arc;

use holdfast_backup::bandwidth::Rate;
use holdfast_backup::config::Group;
use holdfast_store::catalog::VaultNo;
use holdfast_store::copy::Sending;
use holdfast_store::error::ErrorClass;
use holdfast_store::fence::Why;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::store::{Store, StoredPoint};
use holdfast_store::transfer::Transfer;
use holdfast_store::vault::VaultError;
use holdfast_store::{StoreError, copy};
use serde::Serialize;

use super::Context;
use super::configured;
use crate::deleted::Deleted;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::{WorkMonitor, text};

/// Points whose sessions are open in a vault at once: it lists what it has once for all of them.
const POINTS_AT_ONCE: usize = 16;
/// So often a point begins again in a run whose way into a vault was revoked. Each time takes a day of silence.
const ROUNDS: usize = 3;

/// What a push did.
#[derive(Debug, Serialize)]
pub struct Pushed {
    /// Always `summary`.
    message_type: &'static str,
    /// Points that came into a vault, counted for each.
    pub points: u64,
    /// Packs that were sent.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of all that was sent, for points that came into no vault, too; each try counts.
    pub bytes_sent: u64,
    /// The points that came into a vault, each once.
    #[serde(skip)]
    pub vaulted: Vec<RecoveryPointId>,
}

/// What is to be in the vaults.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// What is pending of these groups, as the configuration has it.
    pub pending: Vec<&'a Group>,
    /// These points in any case.
    pub also: Vec<StoredPoint>,
    /// Whether nobody asked for just these: what was forgotten in a vault, or cannot come there any more, is passed over.
    pub all: bool,
    /// How fast, if that was said and is not for the configuration to say.
    pub limit: Option<Rate>,
}

impl Wanted<'_> {
    /// Whether a vault is to have a point that was named: not if its group names other vaults.
    fn is_for(&self, stored: &StoredPoint, vault: &str) -> bool {
        let of_group = |group: &&&Group| group.name == stored.point.source.group;
        let online = self.pending.iter().find(of_group).and_then(|group| group.online.as_ref());
        online.is_none_or(|tier| tier.is_for(vault))
    }

    /// Whether a vault may be given anything.
    fn has_any_for(&self, vault: &str) -> bool {
        let is_for = |group: &&Group| group.online.as_ref().is_some_and(|tier| tier.is_for(vault));
        self.pending.iter().any(is_for) || self.also.iter().any(|stored| self.is_for(stored, vault))
    }

    /// A vault that a group names and the store does not have.
    fn missing(&self, store: &Store) -> Option<Failure> {
        let has = |address: &&String| store.vaults().iter().any(|(_, known, _)| known == *address);
        self.pending.iter().find_map(|group| {
            let address = group.online.as_ref()?.vaults.iter().find(|address| !has(address))?;
            let what =
                format!("the group {} is to go into {address}, which is no vault of this store", group.name);
            Some(Failure::failed(what).hint(format!("`holdfast vault add {address}` makes it one")))
        })
    }
}

/// A push to all vaults.
pub struct Upload<'a> {
    context: &'a Context<'a>,
    store: &'a Store,
    monitor: &'a WorkMonitor,
    /// What was done so far.
    pub pushed: Pushed,
    /// What failed so far.
    pub failures: Vec<Failure>,
    /// Points that somebody asked for by name: they come although they were forgotten, and are told if they cannot.
    pub named: HashSet<RecoveryPointId>,
    /// What each vault was to be given.
    asked: Vec<(VaultNo, Vec<RecoveryPointId>)>,
}

impl<'a> Upload<'a> {
    /// One that did nothing yet.
    pub fn new(context: &'a Context<'a>, store: &'a Store, monitor: &'a WorkMonitor) -> Self {
        let message_type = "summary";
        let pushed =
            Pushed { message_type, points: 0, packs: 0, bytes: 0, bytes_sent: 0, vaulted: Vec::new() };
        let (failures, named, asked) = Default::default();
        Self { context, store, monitor, pushed, failures, named, asked }
    }

    /// Puts into every vault what it is to have. Stops only when it is asked to.
    pub fn push(&mut self, wanted: &Wanted<'_>) -> Result<(), Failure> {
        self.failures.extend(wanted.missing(self.store));
        let also = wanted.also.iter().filter(|_| !wanted.all);
        self.named.extend(also.map(|stored| stored.point.id));
        self.pace(wanted.limit)?;
        for (no, address, transfer) in self.store.vaults().iter().filter(|vault| wanted.has_any_for(&vault.1))
        {
            self.push_into(*no, transfer, |upload| upload.chosen(address, wanted))?;
        }
        Ok(())
    }

    /// What was done, and what failed.
    pub fn told(mut self) -> (Pushed, Vec<Failure>) {
        self.pushed.bytes_sent =
            self.store.vaults().iter().map(|(_, _, transfer)| transfer.stats().bytes_up).sum();
        (self.pushed, self.failures)
    }

    /// Sends no faster than was said, or than the configuration has it.
    pub fn pace(&self, limit: Option<Rate>) -> Result<(), Failure> {
        if let Some(pace) = configured::pace(self.context, limit)? {
            self.store.vaults().iter().for_each(|(_, _, transfer)| transfer.pace_uploads(Arc::clone(&pace)));
        }
        Ok(())
    }

    /// Puts what `choose` says into one vault.
    pub fn push_into(
        &mut self,
        no: VaultNo,
        transfer: &Transfer,
        choose: impl FnOnce(&Self) -> Result<Vec<RecoveryPointId>, Failure>,
    ) -> Result<(), Failure> {
        let seen = copy::refresh_vault(self.store, no, transfer, self.monitor);
        // What the vault is believed to hold may be less than before it was asked.
        let mut chosen = Vec::new();
        for id in choose(self)? {
            chosen.extend(self.may_come(no, &id)?.then_some(id));
        }
        match seen {
            Ok(()) => {
                self.push_to(no, transfer, &chosen)?;
                self.store.bring_holds(no).map(drop).or_else(|e| self.failed(e))?;
            }
            Err(e) => self.failed(e)?,
        }
        for id in chosen.iter().filter(|id| self.named.contains(id)) {
            if self.store.catalog().point(id)?.is_none() {
                let what = format!("recovery point {} is not there any more: it was forgotten", id.short());
                self.failures.push(Failure::failed(what));
            }
        }
        self.asked.push((no, chosen));
        Ok(())
    }

    /// Points that are now in each vault that was to have them.
    pub fn arrived(&self) -> Result<Vec<RecoveryPointId>, Failure> {
        let mut arrived = Vec::new();
        for id in self.asked.iter().flat_map(|(_, ids)| ids) {
            let Some(row) = self.store.catalog().point(id)? else { continue };
            let mut everywhere = true;
            for (no, _) in self.asked.iter().filter(|(_, ids)| ids.contains(id)) {
                everywhere &= !self.store.is_lacking(*no, &row)?;
            }
            if everywhere && !arrived.contains(id) {
                arrived.push(*id);
            }
        }
        Ok(arrived)
    }

    /// Oldest first: a vault that is lost on the way goes on there the next time.
    fn chosen(&self, vault: &str, wanted: &Wanted<'_>) -> Result<Vec<RecoveryPointId>, Failure> {
        let id = |stored: &StoredPoint| stored.point.id;
        let mut chosen: Vec<RecoveryPointId> = Vec::new();
        if !wanted.pending.is_empty() {
            let (points, _) = self.store.look_at_points()?;
            let points = Deleted::load(self.store.dir()).leave_out(points);
            let tiers = configured::tiers(self.context, self.store, &points)?;
            chosen.extend(wanted.pending.iter().flat_map(|group| tiers.pending(group, vault)).map(id));
        }
        // One that was just taken is the newest.
        let also = wanted.also.iter().filter(|stored| wanted.is_for(stored, vault));
        let also: Vec<_> = also.map(id).filter(|id| !chosen.contains(id)).collect();
        chosen.extend(also);
        Ok(chosen)
    }

    fn push_to(
        &mut self,
        no: VaultNo,
        transfer: &Transfer,
        chosen: &[RecoveryPointId],
    ) -> Result<(), Failure> {
        let (mut lacking, mut away) = (Vec::new(), Vec::new());
        for id in chosen {
            lacking.extend(self.lacks(no, id)?.then_some(*id));
        }
        self.leave_lost(no, transfer, &mut lacking)?;
        for round in 1..=ROUNDS {
            let mut revoked = Vec::new();
            for some in lacking.chunks(POINTS_AT_ONCE) {
                if let Some(e) = self.push_some((no, transfer), some, &mut away, &mut revoked)? {
                    return self.failed(e);
                }
            }
            if round == ROUNDS {
                return revoked.into_iter().try_for_each(|(_, e)| self.failed(e));
            }
            lacking = revoked.into_iter().map(|(id, _)| id).collect();
        }
        Ok(())
    }

    /// Leaves out what the vault lost of points that no place has any more, unless they were named: thousands of points may share it, and each try
    /// takes a session.
    fn leave_lost(
        &mut self,
        no: VaultNo,
        transfer: &Transfer,
        lacking: &mut Vec<RecoveryPointId>,
    ) -> Result<(), Failure> {
        let incomplete = self.store.incomplete_in(no)?;
        let is_doubted = |id: &&RecoveryPointId| incomplete.contains(id) && !self.named.contains(id);
        let mut lost: Vec<_> = lacking.iter().filter(is_doubted).copied().collect();
        let whole = self.store.not_lost(&lost)?;
        lost.retain(|id| !whole.contains(id));
        lacking.retain(|id| !lost.contains(id));
        // Of those that only the vault has a check tells.
        let told = self.store.catalog().known_of(&lost)?.into_iter().filter(|row| !row.vaults.contains(&no));
        let told: Vec<_> = told.map(|row| row.id.short()).collect();
        if let Some(first) = told.first() {
            let (count, address) = (text::count(told.len() as u64, "recovery point"), transfer.address());
            let what = format!("vault {address} lost something of {count} that no other place has: {first}");
            let more = if told.len() > 1 { " and others" } else { "" };
            self.failures.push(Failure::failed(format!("{what}{more}")).hint(
                "`holdfast check` names what is lost; what is not worth keeping without it goes with `holdfast forget`",
            ));
        }
        Ok(())
    }

    /// What keeps all other points from being sent as well, if something does. Those that were `revoked` meanwhile may begin again.
    fn push_some(
        &mut self,
        (no, transfer): (VaultNo, &Transfer),
        some: &[RecoveryPointId],
        away: &mut Vec<String>,
        revoked: &mut Vec<(RecoveryPointId, StoreError)>,
    ) -> Result<Option<StoreError>, Failure> {
        let begun = Sending::begin(self.store, no, transfer, some, &self.named, self.monitor);
        let mut sending = match begun {
            Ok(sending) => sending,
            Err(e) => return Ok(Some(e)),
        };
        for (id, e) in std::mem::take(&mut sending.turned_away) {
            match self.named.contains(&id) {
                true => self.failed(e)?,
                // Nobody asked for it: the next ones come.
                false => tracing::info!("{e}"),
            }
        }
        for id in some.iter().filter(|id| sending.brings(id)) {
            match self.push_one(&sending, (no, transfer), id, away)? {
                Some(e @ StoreError::Revoked { .. }) => revoked.push((*id, e)),
                None => {}
                failed => return Ok(failed),
            }
        }
        Ok(None)
    }

    /// `away` are other vaults that were to give something and did not. What keeps all other points from being sent as well, if something
    /// does.
    fn push_one(
        &mut self,
        sending: &Sending<'_>,
        (no, transfer): (VaultNo, &Transfer),
        id: &RecoveryPointId,
        away: &mut Vec<String>,
    ) -> Result<Option<StoreError>, Failure> {
        // It may have been forgotten meanwhile.
        let Some(row) = self.store.catalog().point(id)? else { return Ok(None) };
        if !self.store.is_lacking(no, &row)? {
            return Ok(None);
        }
        let place = |vault| self.store.catalog().vault_address(vault);
        if !row.staged && row.vaults.iter().all(|vault| away.contains(&place(*vault))) {
            let what = format!("recovery point {} lies in {} alone", id.short(), away.join(" and "));
            self.failures.push(Failure::failed(what));
            return Ok(None);
        }
        match sending.push(id, self.monitor) {
            Ok(done) => {
                self.pushed.points += 1;
                if !self.pushed.vaulted.contains(id) {
                    self.pushed.vaulted.push(*id);
                }
                self.pushed.packs += done.packs;
                self.pushed.bytes += done.bytes;
            }
            // The point is damaged here; others are not. Or it was forgotten meanwhile.
            Err(e) if matches!(e, StoreError::Corrupt { .. } | StoreError::NotFound { .. }) => {
                let point = format!("recovery point {}", id.short());
                // Of one that is there a check tells what it lacks.
                if self.store.catalog().point(id)?.is_some_and(|row| !row.vaults.contains(&no)) {
                    self.failed(StoreError::corrupt(point, e.to_string()))?;
                }
            }
            // So it is with what another vault does not give, and with what is in the way of this point alone.
            Err(e) if is_of_another(&e, transfer) || is_in_the_way(&e) => {
                away.extend(address_if_away(&e));
                let failure = Failure::from(e);
                let message = format!("recovery point {}: {}", id.short(), failure.message);
                self.failures.push(Failure { message, ..failure });
            }
            Err(e) => return Ok(Some(e)),
        }
        Ok(None)
    }

    fn lacks(&self, no: VaultNo, id: &RecoveryPointId) -> Result<bool, Failure> {
        let row = self.store.catalog().point(id)?;
        Ok(row.map(|row| self.store.is_lacking(no, &row)).transpose()?.unwrap_or_default())
    }

    /// Not if it was forgotten there, as far as is known here, and nobody asked for it.
    fn may_come(&self, no: VaultNo, id: &RecoveryPointId) -> Result<bool, Failure> {
        let is_forgotten =
            || Ok::<_, StoreError>(self.store.catalog().why_revoked(no, id)? == Some(Why::Forgotten));
        Ok(self.named.contains(id) || !self.lacks(no, id)? || !is_forgotten()?)
    }

    fn failed(&mut self, e: StoreError) -> Result<(), Failure> {
        if e.class() == ErrorClass::Cancelled {
            return Err(e.into());
        }
        self.failures.push(e.into());
        Ok(())
    }
}

/// Whether another vault is to blame than the one that is sent to.
fn is_of_another(e: &StoreError, transfer: &Transfer) -> bool {
    match e {
        StoreError::Vault { source: VaultError::Cancelled, .. } => false,
        StoreError::Vault { vault, .. } => *vault != transfer.address(),
        StoreError::NoWay { .. } => true,
        _ => false,
    }
}

/// Whether something in a vault has a name that is to be put there, and says nothing of other names.
fn is_in_the_way(e: &StoreError) -> bool {
    matches!(e, StoreError::Vault { source: VaultError::Conflict { .. } | VaultError::Invalid { .. }, .. })
}

/// A vault that need not be asked again: each question may take minutes.
fn address_if_away(e: &StoreError) -> Option<String> {
    match e {
        StoreError::NoWay { address } => Some(address.clone()),
        StoreError::Vault { vault, .. } if e.is_vault_away() => Some(vault.clone()),
        _ => None,
    }
}

/// Whole, unless something failed: the first failure, after the others were told.
pub fn end(context: &Context<'_>, failures: Vec<Failure>) -> Outcome {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(Done::Whole) };
    failures.for_each(|failure| context.terminal.warn(&failure.message));
    Err(first)
}
