//! `holdfast forget`: retention carried out, after it was shown.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use clap::{Args, ValueEnum};
use holdfast_backup::config::TierName;
use holdfast_backup::expire::{self, JudgedPoints};
use holdfast_backup::retention::{Decision, PointFacts, Retention, RetentionPlan, plan_and_keep, plan_named};
use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::hold::Hold;
use holdfast_store::store::{Store, StoreLock, StoredPoint};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::hold;
use super::judged::Judging;
use super::key::owner::{self, Act};
use super::prune::{Manner, prune};
use super::scope::{Points, ScopeArgs, parse_spec};
use crate::args::values;
use crate::delay::{self, Delay};
use crate::deleted::{self, Deleted};
use crate::json::{ForgetGroup, ForgetPoint};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Failures, Kind, Outcome};
use crate::point_spec::PointSpec;
use crate::terminal::text::{self, Table};

mod by_config;
mod removal;

/// Remove recovery points by the configuration, by a retention policy or by name
///
/// Without --keep options and names, each tier of each group of the configuration keeps what its `keep` says (--group: one
/// group, --tier: one tier): the local tier removes copies in the store's directory and no others, the online tier those in
/// vaults; a copy that a vault is still to be given stays. `plan` shows the same. With --keep options, each series of points keeps what any of the rules names: so many hours, days, weeks, months and
/// years, each by its newest complete point. The newest complete point of a data source and its last three points always
/// stay, and so do points that are held (`hold`). With names, exactly these points go. If the configuration has `[soft-delete]`, what is named here or chosen by --keep
/// options is deleted softly: it stays for so many days, in which `undelete` brings it back. Space is freed by `prune`, or at once with --prune. A run that would remove
/// more than 30 % of more than ten points, or five or more of ten or fewer, asks first.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast forget --dry-run                 what the configuration lets go
  holdfast forget --group web --tier local --prune
  holdfast forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  holdfast forget --keep-within 30d --keep-yearly unlimited --prune
  holdfast forget 1f2e3d4c latest~5")]
pub struct ForgetArgs {
    /// Points to remove by name
    #[arg(value_name = "POINT", conflicts_with = "policy")]
    points: Vec<OsString>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Which points are one series
    #[arg(long, value_name = "BY", default_value = "source")]
    group_by: GroupBy,
    #[command(flatten)]
    scope: ScopeArgs,
    /// By the configuration: only this tier
    #[arg(long, value_name = "TIER", value_parser = values::tier, conflicts_with_all = ["points", "policy"])]
    tier: Option<TierName>,
    /// Free the space at once; in vaults unless --tier local or the configuration (`vaults = false`) leaves them as they are
    #[arg(long)]
    prune: bool,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Do not ask; with `[soft-delete]`, many that the configuration lets go take a passphrase or the words all the same
    #[arg(long)]
    yes: bool,
    /// Remove the points at once, and not after the days of `[soft-delete]`; asks for a passphrase or the words of the recovery sheet
    #[arg(long)]
    now: bool,
    /// Let the newest complete point of a data source go, if it is named; with `[soft-delete]` it asks for a passphrase or the words as well
    #[arg(long, requires = "points", conflicts_with = "policy")]
    allow_newest: bool,
}

/// What to keep.
#[derive(Clone, Debug, Default, Args)]
#[group(id = "policy", multiple = true)]
pub struct PolicyArgs {
    /// The newest N points
    #[arg(short = 'l', long, value_name = "N", value_parser = values::keep_count)]
    keep_last: Option<u32>,
    /// One point for each of the newest N hours that have any
    #[arg(short = 'H', long, value_name = "N", value_parser = values::keep_count)]
    keep_hourly: Option<u32>,
    /// One point for each of the newest N days that have any
    #[arg(short = 'd', long, value_name = "N", value_parser = values::keep_count)]
    keep_daily: Option<u32>,
    /// One point for each of the newest N weeks that have any
    #[arg(short = 'w', long, value_name = "N", value_parser = values::keep_count)]
    keep_weekly: Option<u32>,
    /// One point for each of the newest N months that have any
    #[arg(short = 'm', long, value_name = "N", value_parser = values::keep_count)]
    keep_monthly: Option<u32>,
    /// One point for each of the newest N years that have any
    #[arg(short = 'y', long, value_name = "N", value_parser = values::keep_count)]
    keep_yearly: Option<u32>,
    /// Every point within this span before the newest, as in 1y6m2w3d12h
    #[arg(long, value_name = "SPAN", value_parser = values::span)]
    keep_within: Option<jiff::Span>,
}

impl PolicyArgs {
    fn is_not_given(&self) -> bool {
        let counts = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        counts.iter().all(Option::is_none) && self.keep_within.is_none()
    }
}

impl From<&PolicyArgs> for Retention {
    fn from(args: &PolicyArgs) -> Self {
        Self {
            last: args.keep_last.unwrap_or(0),
            hourly: args.keep_hourly.unwrap_or(0),
            daily: args.keep_daily.unwrap_or(0),
            weekly: args.keep_weekly.unwrap_or(0),
            monthly: args.keep_monthly.unwrap_or(0),
            yearly: args.keep_yearly.unwrap_or(0),
            within: args.keep_within,
            ends: false,
        }
    }
}

/// Which points are one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupBy {
    /// Those of one data source (machine, group and name)
    Source,
    /// Those of one protection group
    Group,
    /// Those of one machine
    Host,
    /// All of them
    None,
}

/// Plans, shows, asks, removes.
pub fn run(context: &Context<'_>, args: &ForgetArgs) -> Outcome {
    let specs = args.points.iter().map(|point| parse_spec(point)).collect::<Result<Vec<_>, _>>()?;
    let policy = Retention::from(&args.policy);
    if specs.is_empty() && args.policy.is_not_given() {
        return by_config::run(context, args);
    }
    if specs.is_empty() && policy.is_empty() {
        let failure = Failure::usage("the --keep options keep nothing");
        return Err(failure.hint("name the points to remove"));
    }
    if args.prune {
        // It says how: one that cannot be had ends this before anything is removed.
        context.settings.config_if_any()?;
    }
    let store = open_store(context)?;
    let points = Points::of(&store)?;
    let now = context.terminal.clock().now();
    let plan = judged_plan(&store, &points, &specs, &policy, args, now)?;
    let all: Vec<StoredPoint> = points.readable.iter().chain(&points.deleted).cloned().collect();
    show(context, &all, &plan)?;
    if args.dry_run {
        return Ok(Done::Whole);
    }
    consent(&plan, plan.removes_much(), None, args.yes)?;
    let act = args.now.then_some(Act::RemoveNow).or(args.allow_newest.then_some(Act::RemoveNewest));
    let days = soft_delete_days(context, &store, act, args.now)?;
    if days > 0 {
        delete(context, &store, plan.remove.iter().map(|decision| &decision.id), days)?;
        return if args.prune { prune_then(context, &store, false) } else { Ok(Done::Whole) };
    }
    let vaults = store.lock_vault_removals()?;
    let lock = store.lock()?;
    still_so(&plan, &judged_plan(&store, &Points::of(&store)?, &specs, &policy, args, now)?)?;
    // Vaults may let wait: nobody who takes a point waits with us.
    drop(lock);
    let ids = plan.remove.iter().map(|decision| decision.id).collect();
    let done = remove(context, &store, &vaults, &ids)?;
    drop(vaults);
    if !args.prune {
        return Ok(done);
    }
    prune_then(context, &store, false).map(|pruned| if pruned == Done::Whole { done } else { pruned })
}

/// How many days what a person deletes can be brought back; `now`: not at all. If the owner agrees, where it takes that.
pub fn soft_delete_days(
    context: &Context<'_>,
    store: &Store,
    act: Option<Act>,
    now: bool,
) -> Result<u16, Failure> {
    let said = Delay::said(context.settings.config_if_any()?);
    let days = delay::holding(store.dir(), said)?.days;
    if let Some(act) = act {
        owner::agrees(context, store.dir(), act)?;
    }
    if now {
        return Ok(0);
    }
    if days > said.days {
        context.terminal.warn(&format!(
            "what is deleted stays for {days} days, as it did before, though the configuration says {} now: `holdfast config accept`, with the \
             owner's word, agrees to that",
            said.days
        ));
    }
    Ok(days)
}

/// What a soft deletion prints with `--json`.
#[derive(Serialize)]
struct DeletedLine {
    /// Always `deleted`.
    message_type: &'static str,
    ids: Vec<String>,
    until: String,
}

/// Deletes points, which go after so many days.
pub fn delete<'a>(
    context: &Context<'_>,
    store: &Store,
    ids: impl Iterator<Item = &'a RecoveryPointId> + Clone,
    days: u16,
) -> Result<(), Failure> {
    if ids.clone().next().is_none() {
        return Ok(());
    }
    // What went meanwhile, by another command say, takes no room in the file.
    forget_deleted(store, &Deleted::load(store.dir()).ids().collect())?;
    let going = deleted::delete(store.dir(), ids, days, context.terminal.clock().now())?;
    for (until, ids) in going {
        if context.terminal.json() {
            let ids = ids.iter().map(RecoveryPointId::hex).collect();
            let line = DeletedLine { message_type: "deleted", ids, until: text::rfc3339(until) };
            context.terminal.json_line(&line)?;
            continue;
        }
        let goes = text::local_time(until, &TimeZone::system());
        let count = text::count(ids.len() as u64, "recovery point");
        context
            .terminal
            .say(&format!("{count} deleted, to go {goes}; until then `holdfast undelete ID` brings back"))?;
    }
    Ok(())
}

/// Removes points from every place that holds them, whatever rules and guards say. Held ones are not to be among them.
pub fn remove_all(context: &Context<'_>, store: &Store, ids: &BTreeSet<RecoveryPointId>) -> Outcome {
    if ids.is_empty() {
        return Ok(Done::Whole);
    }
    remove(context, store, &store.lock_vault_removals()?, ids)
}

fn remove(
    context: &Context<'_>,
    store: &Store,
    lock: &StoreLock,
    ids: &BTreeSet<RecoveryPointId>,
) -> Outcome {
    let done = removal::remove_everywhere(context, store, lock, ids)?;
    forget_deleted(store, ids)?;
    Ok(done)
}

/// Removes what was deleted and whose time is over, unless somebody holds it since. `local`: from the store's directory alone, by who leaves
/// vaults as they are.
pub fn remove_due(context: &Context<'_>, store: &Store, local: bool) -> Outcome {
    let now = context.terminal.clock().now();
    deleted::look(store.dir(), now)?;
    let deleted = Deleted::load(store.dir());
    let count = deleted.due(now).count();
    tell_what_waits(context, deleted.count_over(now).saturating_sub(count))?;
    if count == 0 {
        return Ok(Done::Whole);
    }
    // Nobody brings one back meanwhile.
    let vaults = store.lock_vault_removals()?;
    let mut due: BTreeSet<_> = Deleted::load(store.dir()).due(now).collect();
    let held = store.holds()?;
    due.retain(|id| !held.contains_key(id));
    let done = if local && !store.vaults().is_empty() {
        let staged = store.catalog().known_of(&due)?.into_iter().filter(|row| row.staged);
        due = staged.map(|row| row.id).collect();
        let mut failures = Failures::default();
        if !due.is_empty() {
            removal::remove_from_staging(context, store, &store.lock()?, &mut due, &mut failures)?;
        }
        forget_deleted(store, &due)?;
        failures.or(Done::Whole)?
    } else {
        remove(context, store, &vaults, &due)?
    };
    if !due.is_empty() && !context.terminal.json() {
        let count = text::count(due.len() as u64, "recovery point");
        context.terminal.say(&format!("{count} went that had been deleted"))?;
    }
    Ok(done)
}

/// What only this run found to be due goes with another one.
fn tell_what_waits(context: &Context<'_>, count: usize) -> Result<(), Failure> {
    if count == 0 || context.terminal.json() {
        return Ok(());
    }
    let count = text::count(count as u64, "recovery point");
    context.terminal.say(&format!(
        "{count} deleted before, whose time is over: to go with a run a day from now, if the clock still says so"
    ))
}

/// Of those that are nowhere any more nobody has to know that they were deleted.
fn forget_deleted(store: &Store, ids: &BTreeSet<RecoveryPointId>) -> Result<(), Failure> {
    let there: BTreeSet<_> = store.catalog().known_of(ids)?.into_iter().map(|row| row.id).collect();
    let known = Deleted::load(store.dir());
    let gone: Vec<_> =
        ids.iter().filter(|id| known.goes(id).is_some() && !there.contains(id)).copied().collect();
    if gone.is_empty() {
        return Ok(());
    }
    deleted::take_back(store.dir(), &gone).map(drop)
}

/// `--prune`: in vaults only where this machine frees space there by its configuration, and something may have gone.
fn prune_then(context: &Context<'_>, store: &Store, local: bool) -> Outcome {
    let config = context.settings.config_if_any()?;
    let local = local || config.is_some_and(|config| !config.reclaim_vaults);
    prune(context, store, Manner { local, ..Manner::default() })
}

/// The plan, with what is to be thought of the points of sources of which something is to go, or was named.
fn judged_plan(
    store: &Store,
    points: &Points,
    specs: &[PointSpec],
    policy: &Retention,
    args: &ForgetArgs,
    now: Timestamp,
) -> Result<RetentionPlan, Failure> {
    let mut judging = Judging::begin(store, &points.readable)?;
    let named = specs.iter().filter_map(|spec| points.find(&spec.point, &args.scope.scope()).ok());
    judging.look_at(&named.collect())?;
    loop {
        let plan = make_plan(points, specs, policy, args, now, &judging.judged)?;
        if !judging.look_at(&plan.remove.iter().map(|decision| decision.id).collect())? {
            return Ok(plan);
        }
    }
}

/// A rule keeps no less for a point in doubt; a name may mean another without it, and is then refused.
fn make_plan(
    points: &Points,
    specs: &[PointSpec],
    policy: &Retention,
    args: &ForgetArgs,
    now: Timestamp,
    judged: &JudgedPoints,
) -> Result<RetentionPlan, Failure> {
    let scope = args.scope.scope();
    let facts = |stored: &StoredPoint| judged.of(facts(stored, args.group_by));
    if specs.is_empty() {
        let points = args.scope.select(points.readable.clone());
        let facts: Vec<PointFacts> = points.iter().map(facts).collect();
        return Ok(plan_and_keep(&facts, policy, &TimeZone::system(), now, &judged.kept(&facts)));
    }
    let resolve = |spec: &PointSpec| {
        if spec.path.is_empty() {
            return points.find(&spec.point, &scope);
        }
        Err(Failure::usage("only whole recovery points can be removed, without :PATH"))
    };
    let named = specs.iter().map(resolve).collect::<Result<Vec<RecoveryPointId>, Failure>>()?;
    let deleted = points.deleted.iter().filter(|stored| named.contains(&stored.point.id));
    let facts: Vec<PointFacts> = points.readable.iter().chain(deleted).map(facts).collect();
    let plan = plan_named(&facts, &named, args.allow_newest);
    let refused = plan.keep.iter().find(|decision| named.contains(&decision.id));
    if let Some(hold) = refused.and_then(|decision| find(&points.readable, decision.id)?.held.as_ref()) {
        return Err(is_held(hold));
    }
    match refused {
        Some(decision) => {
            let id = decision.id.short();
            let failure = Failure::failed(format!("{id} is the newest complete point of its data source"));
            Err(failure.hint("--allow-newest removes it nevertheless"))
        }
        None => Ok(plan),
    }
}

/// Of a point that was to go.
fn is_held(hold: &Hold) -> Failure {
    let failure = Failure::failed(format!("recovery point {}", hold::sentence(hold, &TimeZone::system())));
    failure.hint(format!("`holdfast release {}` lets it go", hold.point.short()))
}

fn facts(stored: &StoredPoint, group_by: GroupBy) -> PointFacts {
    let name = &stored.point.source;
    match group_by {
        GroupBy::Source => expire::facts_of_source(stored),
        GroupBy::Group => expire::facts(stored, name.group.clone()),
        GroupBy::Host => expire::facts(stored, name.host.clone()),
        GroupBy::None => expire::facts(stored, String::new()),
    }
}

/// The brake: a policy that suddenly removes much is more often a mistake than a wish. `of` names a group and its tier, if it is of one.
fn consent(
    plan: &RetentionPlan,
    removes_much: bool,
    of: Option<(&str, TierName)>,
    yes: bool,
) -> Result<(), Failure> {
    if yes || !removes_much {
        return Ok(());
    }
    let (removed, total) = (plan.remove.len(), plan.remove.len() + plan.keep.len());
    let hint = match of {
        None => "look at the list with --dry-run, then say --yes".to_owned(),
        Some((group, tier)) => {
            let command = format!("holdfast forget --tier {tier} --group {group}");
            format!("`{command} --dry-run` shows which; if that is as it should be, `{command} --yes`")
        }
    };
    let of = of.map_or_else(String::new, |(group, tier)| format!(" of {group} {tier}"));
    let refuse = || {
        let what = format!("{removed} of {total} recovery points{of} would go; nothing was removed");
        Failure::failed(what).hint(hint.clone())
    };
    has_typed(&format!("remove {removed} of {total} recovery points{of}? Type yes: "), "yes", refuse)
}

/// Whether the person at the terminal types what is wanted; where there is none nobody does.
pub fn has_typed(question: &str, wanted: &str, refuse: impl Fn() -> Failure) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(refuse());
    }
    let mut err = io::stderr();
    let asked = write!(err, "{question}").and_then(|()| err.flush());
    let mut answer = String::new();
    asked
        .and_then(|()| io::stdin().read_line(&mut answer).map(drop))
        .map_err(|_| Failure::new(Kind::Interrupted, "no answer"))?;
    if answer.trim() == wanted { Ok(()) } else { Err(refuse()) }
}

/// What a person agreed to is what is done: between plan and lock another process may have changed the points.
fn still_so(agreed: &RetentionPlan, now: &RetentionPlan) -> Result<(), Failure> {
    let ids = |plan: &RetentionPlan| plan.remove.iter().map(|d| d.id).collect::<BTreeSet<_>>();
    if ids(agreed) == ids(now) {
        return Ok(());
    }
    Err(Failure::failed("the recovery points changed meanwhile; nothing was removed").hint("run it again"))
}

fn show(context: &Context<'_>, points: &[StoredPoint], plan: &RetentionPlan) -> Result<(), Failure> {
    if context.terminal.json() {
        return context.terminal.json_line(&as_json(points, plan));
    }
    context.terminal.say(&render(points, plan, &TimeZone::system()))
}

fn find(points: &[StoredPoint], id: RecoveryPointId) -> Option<&StoredPoint> {
    points.iter().find(|stored| stored.point.id == id)
}

fn render(points: &[StoredPoint], plan: &RetentionPlan, zone: &TimeZone) -> String {
    let mut table = Table::new(&["", "ID", "Time", "Source", "Why"]);
    let rows =
        plan.keep.iter().map(|decision| ("keep", decision)).chain(plan.remove.iter().map(|d| ("remove", d)));
    for (word, decision) in rows {
        if let Some(stored) = find(points, decision.id) {
            table.row([
                word.to_owned(),
                decision.id.short(),
                text::local_time(stored.point.started, zone),
                stored.point.source.source.clone(),
                decision.why(),
            ]);
        }
    }
    format!("{}\nkeep {}, remove {}", table.render(), plan.keep.len(), plan.remove.len())
}

fn as_json(points: &[StoredPoint], plan: &RetentionPlan) -> Vec<ForgetGroup> {
    let mut groups = std::collections::BTreeMap::new();
    for (keep, decision) in plan.keep.iter().map(|d| (true, d)).chain(plan.remove.iter().map(|d| (false, d)))
    {
        let Some(stored) = find(points, decision.id) else { continue };
        let name = &stored.point.source;
        let group = groups.entry(name.clone()).or_insert_with(|| ForgetGroup {
            host: name.host.clone(),
            group: name.group.clone(),
            source: name.source.clone(),
            tier: None,
            keep: Vec::new(),
            remove: Vec::new(),
        });
        if keep { &mut group.keep } else { &mut group.remove }.push(forget_point(stored, decision));
    }
    groups.into_values().collect()
}

fn forget_point(stored: &StoredPoint, decision: &Decision) -> ForgetPoint {
    ForgetPoint {
        id: decision.id.hex(),
        time: text::rfc3339(stored.point.started),
        reasons: decision.reasons.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests;
