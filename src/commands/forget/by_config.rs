//! `forget` by the configuration: each tier of each group by its own rules, and by no other's. What a tier lets go is removed from
//! that tier alone; one that fails, or that would let go of much, keeps nothing from the others.

use std::collections::BTreeSet;

use holdfast_backup::agenda::{Task, Work};
use holdfast_backup::config::{Group, TierName};
use holdfast_backup::ledger::Ledger;
use holdfast_backup::retention::RetentionPlan;
use holdfast_store::StoreError;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::store::{Store, StoreLock, StoredPoint};

use super::{ForgetArgs, GroupBy, as_json, consent, prune_then, removal, remove_due, render, still_so};
use crate::commands::Context;
use crate::commands::configured;
use crate::commands::judged;
use crate::commands::key::owner::{self, Act};
use crate::delay::{self, Delay};
use crate::deleted::Deleted;
use crate::expiring;
use crate::json::ForgetGroup;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Failures, Outcome};

/// What to give when there is no configuration.
const OTHERWISE: &str = "give --keep options, name the points to remove";

/// What is to become of a tier of a group.
struct Planned<'a> {
    group: &'a Group,
    tier: TierName,
    plan: RetentionPlan,
}

impl Planned<'_> {
    fn name(&self) -> String {
        format!("{} {}", self.group.name, self.tier.as_str())
    }
}

/// Plans, shows, asks, removes.
pub(super) fn run(context: &Context<'_>, args: &ForgetArgs) -> Outcome {
    if args.scope.host.is_some() || args.group_by != GroupBy::Source {
        let failure = Failure::usage("the configuration is of this machine, and counts by data source");
        return Err(failure.hint("--host and --group-by go with --keep options"));
    }
    let groups = configured::groups(context, args.scope.group.as_deref(), OTHERWISE)?;
    let store = open_store(context)?;
    let points = args.scope.select(Deleted::load(store.dir()).leave_out(store.points()?));
    let plans = make_plans(context, &store, &points, &groups, args.tier)?;
    show(context, &points, &plans)?;
    if args.dry_run {
        return Ok(Done::Whole);
    }
    // For as long as is said now people rely on it, whatever is said later.
    delay::holding(store.dir(), Delay::said(Some(context.settings.config()?)))?;
    let mut failures = Failures::default();
    let (mut agreed, mut many) = (Vec::new(), false);
    for planned in plans {
        let of = Some((planned.group.name.as_str(), planned.tier));
        let much = removes_much(&store, &planned);
        let consented = failures.note(consent(&planned.plan, much, of, args.yes))?.map(|()| planned);
        many |= much && consented.is_some();
        agreed.extend(consented);
    }
    if many {
        owner::agrees(context, store.dir(), Act::RemoveMany)?;
    }
    let mut done = remove(context, &store, args, (&groups, &agreed), &mut failures)?;
    let due = remove_due(context, &store, args.tier == Some(TierName::Local));
    if failures.note(due)? == Some(Done::Partial) {
        done = Done::Partial;
    }
    let pruned = match args.prune {
        true => failures.note(prune_then(context, &store, args.tier == Some(TierName::Local)))?,
        false => None,
    };
    failures.or(pruned.filter(|pruned| *pruned != Done::Whole).unwrap_or(done))
}

/// Whether so much would go that somebody should be asked. What a daemon brought into the tier since it last expired it lets as much go:
/// after a vault was away many points come at once, and local copies that waited for it wait no more.
fn removes_much(store: &Store, planned: &Planned<'_>) -> bool {
    let (expiry, works): (_, &[Work]) = match planned.tier {
        TierName::Local => (Work::ExpireLocal, &[Work::Take, Work::Push]),
        TierName::Online => (Work::ExpireOnline, &[Work::Push]),
    };
    let expiry = Task { work: expiry, group: Some(planned.group.name.clone()) };
    // Who knows of no news asks sooner.
    let news = Ledger::look(store.dir()).ok().flatten().and_then(|ledger| ledger.news(&expiry, works).ok());
    let news = news.unwrap_or_default();
    planned.plan.removes_much_for(|id| news.contains(&id.hex()))
}

fn make_plans<'a>(
    context: &Context<'_>,
    store: &Store,
    points: &[StoredPoint],
    groups: &[&'a Group],
    wanted: Option<TierName>,
) -> Result<Vec<Planned<'a>>, Failure> {
    let tiers = judged::tiers(context, store, points, groups)?;
    let plan = |group: &&'a Group, tier| Some(Planned { group, tier, plan: tiers.plan(group, tier)? });
    let names = || TierName::ALL.into_iter().filter(|name| wanted.is_none_or(|wanted| wanted == *name));
    Ok(groups.iter().flat_map(|group| names().filter_map(|tier| plan(group, tier))).collect())
}

fn show(context: &Context<'_>, points: &[StoredPoint], plans: &[Planned<'_>]) -> Result<(), Failure> {
    if context.terminal.json() {
        let of_tier = |planned: &Planned<'_>| -> Vec<ForgetGroup> {
            let tier = Some(planned.tier.as_str());
            let groups = as_json(points, &planned.plan).into_iter();
            groups.map(|group| ForgetGroup { tier, ..group }).collect()
        };
        return context.terminal.json_line(&plans.iter().flat_map(of_tier).collect::<Vec<_>>());
    }
    let zone = configured::zone_of(context.settings.config()?);
    for planned in plans {
        let table = render(points, &planned.plan, &zone);
        context.terminal.say(&format!("{}:\n{table}\n", planned.name()))?;
    }
    Ok(())
}

/// Each tier under the lock that its places have, if there is something to remove: whoever takes points waits for no vault. Staging first,
/// for it needs none; but where vaults are to be asked anyway, they are asked before that what is held there.
fn remove(
    context: &Context<'_>,
    store: &Store,
    args: &ForgetArgs,
    (groups, agreed): (&[&Group], &[Planned<'_>]),
    failures: &mut Failures,
) -> Outcome {
    let mut in_vaults = going(agreed, TierName::Online);
    let mut in_staging = going(agreed, TierName::Local);
    if in_vaults.is_empty() {
        failures.note(note_locked(store, agreed, &[]))?;
    }
    let vaults = lock_for(&in_vaults, || store.lock_vault_removals(), failures)?;
    // What another machine holds is known then in both tiers. Nobody who takes points waits for it.
    let asked = match &vaults {
        Some(lock) => failures.note(removal::ask(context, store, lock, &in_vaults))?,
        None => None,
    };
    removal::leave_held(store, &mut in_vaults, failures)?;
    removal::leave_held(store, &mut in_staging, failures)?;
    let staging = lock_for(&in_staging, || store.lock(), failures)?;
    let points = args.scope.select(Deleted::load(store.dir()).leave_out(store.points()?));
    let held = store.holds()?;
    for now in make_plans(context, store, &points, groups, args.tier)? {
        let (is_locked, going) = match now.tier {
            TierName::Local => (staging.is_some(), &mut in_staging),
            TierName::Online => (vaults.is_some(), &mut in_vaults),
        };
        if let Some(before) = agreed.iter().find(|planned| is_locked && planned.name() == now.name()) {
            let mut before = before.plan.clone();
            before.remove.retain(|decision| !held.contains_key(&decision.id));
            leave_changed(&before, &now, going, failures)?;
        }
    }
    if let Some(lock) = staging {
        let removed = removal::remove_from_staging(context, store, &lock, &mut in_staging, failures);
        failures.note(removed)?;
    }
    let removed = match asked {
        Some(asked) => {
            let removed = removal::remove_from_vaults(context, store, &asked, &mut in_vaults, failures);
            let removed = failures.note(removed)?;
            if let Some((_, locked)) = &removed {
                failures.note(note_locked(store, agreed, locked))?;
            }
            removed.map(|(done, _)| done)
        }
        None => None,
    };
    Ok(removed.unwrap_or(Done::Whole))
}

/// What is locked in a vault goes by the same rules later, and is not locked anew until then.
fn note_locked(store: &Store, agreed: &[Planned<'_>], locked: &[removal::Locked]) -> Result<(), Failure> {
    let plans = agreed.iter().filter(|planned| planned.tier == TierName::Online).map(|planned| &planned.plan);
    let decisions = plans.flat_map(|plan| plan.keep.iter().chain(&plan.remove));
    let mut judged: BTreeSet<_> = decisions.map(|decision| decision.id).collect();
    // Others may have removed some.
    let noted: BTreeSet<_> = expiring::load(store.dir()).into_iter().collect();
    let known: BTreeSet<_> = store.catalog().known_of(&noted)?.into_iter().map(|row| row.id).collect();
    judged.extend(noted.difference(&known));
    expiring::note(store.dir(), &judged, locked.iter().map(|(id, _)| *id))
}

/// Leaves out what was to go of a tier whose plan is another one now than that which somebody agreed to, and names the tier.
fn leave_changed(
    agreed: &RetentionPlan,
    now: &Planned<'_>,
    going: &mut BTreeSet<RecoveryPointId>,
    failures: &mut Failures,
) -> Result<(), Failure> {
    let of_tier =
        |failure: Failure| Failure { message: format!("{}: {}", now.name(), failure.message), ..failure };
    if failures.note(still_so(agreed, &now.plan).map_err(of_tier))?.is_none() {
        going.retain(|id| !agreed.remove.iter().any(|decision| decision.id == *id));
    }
    Ok(())
}

/// What is to be removed of a tier.
fn going(agreed: &[Planned<'_>], tier: TierName) -> BTreeSet<RecoveryPointId> {
    let of_tier = agreed.iter().filter(|planned| planned.tier == tier);
    of_tier.flat_map(|planned| &planned.plan.remove).map(|decision| decision.id).collect()
}

/// The lock of a tier of which something goes; one that another process has keeps nothing from the other tier.
fn lock_for(
    ids: &BTreeSet<RecoveryPointId>,
    lock: impl FnOnce() -> Result<StoreLock, StoreError>,
    failures: &mut Failures,
) -> Result<Option<StoreLock>, Failure> {
    if ids.is_empty() {
        return Ok(None);
    }
    failures.note(lock().map_err(Failure::from))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_backup::config::Config;
    use holdfast_backup::expire::facts_of_source;
    use holdfast_backup::retention::plan_named;

    use super::*;
    use crate::commands::testing::stored_point;

    /// That the points of these numbers go.
    fn plan_of(numbers: &[u8]) -> RetentionPlan {
        let facts: Vec<_> = (1..=9).map(|n| facts_of_source(&stored_point(n, "docs", n.into()))).collect();
        plan_named(&facts, &ids(numbers).into_iter().collect::<Vec<_>>(), true)
    }

    fn ids(numbers: &[u8]) -> BTreeSet<RecoveryPointId> {
        numbers.iter().map(|n| RecoveryPointId([*n; 16])).collect()
    }

    #[test]
    fn a_tier_whose_points_changed_meanwhile_is_named_and_keeps_nothing_from_the_others() {
        let text = "[group.db]\nsources = [\"/d\"]\nlocal.schedule = \"daily\"\n[group.web]\nsources = [\"/w\"]\nlocal.schedule = \"daily\"";
        let config = Config::parse(&[("a.toml".into(), text.to_owned())]).unwrap();
        let (mut going, mut failures) = (ids(&[1, 2, 3]), Failures::default());
        // Of the first group another process removed a point.
        for (group, agreed, now) in [(0, &[1, 2][..], &[2][..]), (1, &[3], &[3])] {
            let planned = Planned { group: &config.groups[group], tier: TierName::Local, plan: plan_of(now) };
            leave_changed(&plan_of(agreed), &planned, &mut going, &mut failures).unwrap();
        }
        assert_eq!(going, ids(&[3]));
        let message = failures.or(Done::Whole).unwrap_err().message;
        assert!(message.starts_with("db local: the recovery points changed meanwhile"), "{message}");
    }
}
