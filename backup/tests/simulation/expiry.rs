//! Points that go by rules, and points that somebody holds: what `forget` without names and `hold` do.

use std::collections::BTreeSet;

use holdfast_backup::config::{Group, Stopped, Tier, TierName};
use holdfast_backup::expire::{JudgedPoints, KnownVault, Tiers};
use holdfast_backup::retention::RetentionPlan;
use holdfast_store::clock::Clock;
use holdfast_store::fence::Revocation;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::store::{Store, StoredPoint};
use holdfast_store::{StoreError, copy, names};
use jiff::tz::TimeZone;

use crate::doors::Time;
use crate::machine::{GROUP, Worker};
use crate::policy::Policy;

/// What is to go from where.
#[derive(Clone, Debug)]
pub struct Expiry {
    /// The tier.
    pub tier: TierName,
    /// Its rules.
    pub policy: Policy,
    /// Whether somebody agrees to many at once.
    pub agrees: bool,
}

impl Worker {
    fn host(&self) -> String {
        format!("m{}", self.machine)
    }

    /// Removes what the rules let go: planned, and planned once more under the lock.
    pub(crate) fn expire(&self, store: &Store, expiry: &Expiry) -> Result<(), StoreError> {
        let (no, _, transfer) = &store.vaults()[0];
        let shown = self.in_vault();
        if expiry.tier == TierName::Online {
            // As the push before it does: what another machine removed by name stands for nothing.
            copy::refresh_vault(store, *no, transfer, &VoidMonitor)?;
        }
        let before = self.plan(store, expiry)?;
        if before.removes_much() && !expiry.agrees {
            return Ok(());
        }
        let _lock = match expiry.tier {
            TierName::Local => store.lock()?,
            TierName::Online => store.lock_vault_removals()?,
        };
        if expiry.tier == TierName::Online {
            store.learn_holds(*no, transfer, holdfast_store::clock::Deadline::NEVER)?;
        }
        let plan = self.plan(store, expiry)?;
        let ids = |plan: &RetentionPlan| plan.remove.iter().map(|went| went.id).collect::<BTreeSet<_>>();
        if ids(&plan) != ids(&before) {
            return Ok(());
        }
        let there = match expiry.tier {
            TierName::Local => self.in_staging(),
            TierName::Online => shown.into_iter().chain(self.in_vault()).collect(),
        };
        self.judge(store, expiry, &plan, &there)?;
        for went in &plan.remove {
            let Some(row) = store.catalog().point(&went.id)? else { continue };
            self.life().world().tell(|| {
                format!("{} goes from {} of {} by rules", row.id.short(), expiry.tier, self.machine)
            });
            match expiry.tier {
                TierName::Local => {
                    self.truth(|truth| truth.goes_locally(self.machine, row.id));
                    store.remove_staged_point(&row)?;
                }
                TierName::Online => {
                    self.truth(|truth| truth.goes(row.id));
                    store.remove_point_from_vault(*no, &row)?;
                }
            }
        }
        Ok(())
    }

    fn plan(&self, store: &Store, expiry: &Expiry) -> Result<RetentionPlan, StoreError> {
        let (points, host) = (store.points()?, self.host());
        let tier = Tier {
            schedule: "hourly".parse().expect("a schedule"),
            jitter: 0,
            keep: expiry.policy.rules(),
            vaults: Vec::new(),
        };
        let group = Group {
            name: GROUP.into(),
            sources: Vec::new(),
            local: Some(tier.clone()),
            online: Some(tier),
            hooks: None,
            stopped: expiry.policy.ends().then_some(Stopped::UntilExpiry),
        };
        let no = store.vaults()[0].0;
        let vault = KnownVault { address: &store.vaults()[0].1, is_known: store.catalog().knows_all_in(no)? };
        let forged = self.truth(|truth| truth.forged().collect());
        let tiers = Tiers {
            points: &points,
            vaults: vec![vault],
            host: &host,
            zone: TimeZone::UTC,
            now: Time(self.process.clone()).now(),
            judged: JudgedPoints { forged, ..JudgedPoints::default() },
            absent: store.points_that_staging_lacks()?,
        };
        Ok(tiers.plan(&group, expiry.tier).unwrap_or_default())
    }

    /// Holds the plan against what the oracle lets go of each source. It goes by what lies in the tier, and not by what is believed to.
    fn judge(
        &self,
        store: &Store,
        expiry: &Expiry,
        plan: &RetentionPlan,
        there: &BTreeSet<RecoveryPointId>,
    ) -> Result<(), StoreError> {
        let (points, host, now) = (store.points()?, self.host(), Time(self.process.clone()).now().seconds);
        let is_in = |stored: &&StoredPoint| match expiry.tier {
            TierName::Local => stored.local,
            TierName::Online => !stored.vaults.is_empty() || !stored.incomplete.is_empty(),
        };
        let ours = points.iter().filter(|stored| stored.point.source.host == host).filter(is_in);
        let (known, sources): (Vec<_>, BTreeSet<_>) = ours
            .filter(|stored| there.contains(&stored.point.id))
            .map(|stored| (stored, &stored.point.source.source))
            .unzip();
        let is_whole = |stored: &StoredPoint| expiry.tier == TierName::Local || stored.incomplete.is_empty();
        let mut may_go = BTreeSet::new();
        for source in sources {
            let of_source = || known.iter().filter(|stored| stored.point.source.source == *source);
            let let_go = |stored: Vec<&&StoredPoint>| {
                let ids =
                    stored.iter().map(|stored| (stored.point.id, stored.point.started.seconds)).collect();
                expiry.policy.may_go(&self.truth(|truth| truth.known(self.machine, ids, expiry.tier)), now)
            };
            // One that lacks something stands for none that is whole.
            may_go.extend(let_go(of_source().filter(|stored| is_whole(stored)).collect()));
            let of_all = let_go(of_source().collect());
            let doubted = of_source().filter(|stored| !is_whole(stored)).map(|stored| stored.point.id);
            may_go.extend(doubted.filter(|id| of_all.contains(id)));
        }
        for went in plan.remove.iter().filter(|went| there.contains(&went.id) && !may_go.contains(&went.id)) {
            let why = format!("point {} goes from {}: {}", went.id.short(), expiry.tier, went.why());
            self.truth(|truth| truth.is_wrong(format!("{why}; not by {:?}", expiry.policy)));
        }
        Ok(())
    }

    /// Points that lie in the vault.
    pub(crate) fn in_vault(&self) -> BTreeSet<RecoveryPointId> {
        let is_point = |name: &&holdfast_store::vault::ObjectName| {
            self.vault.object(name).is_some_and(|bytes| bytes.len() as u64 != Revocation::LEN)
        };
        let names = self.vault.names();
        names.iter().filter(is_point).filter_map(|name| Some(names::point_of(name)?.1)).collect()
    }

    fn in_staging(&self) -> BTreeSet<RecoveryPointId> {
        self.life().points().into_iter().collect()
    }

    /// Holds a point, of those that are known the n-th, and tells the vault.
    pub(crate) fn hold(&self, store: &Store, n: u64) -> Result<(), StoreError> {
        let no = store.vaults()[0].0;
        let points = store.points()?;
        let Some(stored) = points.get((n % points.len().max(1) as u64) as usize) else { return Ok(()) };
        let id = stored.point.id;
        store.place_hold(&id, "for a trial")?;
        self.truth(|truth| truth.is_held_here(self.machine, id));
        self.life().world().tell(|| format!("{} is held", id.short()));
        store.bring_holds(no)?;
        if store.catalog().holds()?.iter().any(|row| row.point == id && row.vaults.contains(&no)) {
            self.truth(|truth| truth.is_held(id));
        }
        Ok(())
    }

    /// Lets go of all points that are held.
    pub(crate) fn release(&self, store: &Store) -> Result<(), StoreError> {
        let (no, _, transfer) = &store.vaults()[0];
        store.learn_holds(*no, transfer, holdfast_store::clock::Deadline::NEVER)?;
        for row in store.catalog().holds()? {
            self.truth(|truth| truth.is_released(row.point));
            store.release_in_vault(*no, &row.tag, &row.point)?;
            if row.staged {
                store.release_here(&row)?;
            }
        }
        Ok(())
    }
}
