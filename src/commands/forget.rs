//! `holdfast forget`: retention carried out, after it was shown.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use clap::{Args, ValueEnum};
use holdfast_backup::retention::{Decision, PointFacts, Retention, RetentionPlan, plan, plan_named};
use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::PointState;
use holdfast_store::store::StoredPoint;
use jiff::tz::TimeZone;

use super::Context;
use super::prune::prune;
use super::scope::{ScopeArgs, parse_spec, refuse_doubt};
use crate::args::values;
use crate::json::{ForgetGroup, ForgetPoint};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::point_spec::{Candidate, PointSpec};
use crate::terminal::text::{self, Table};

mod removal;

/// Remove recovery points by a retention policy or by name
///
/// With --keep options, each series of points keeps what any of the rules names: so many hours, days, weeks, months and
/// years, each by its newest complete point. The newest complete point of a data source and its last three points always
/// stay. With names, exactly these points go. Space is freed by `prune`, or at once with --prune. A run that would remove
/// more than 30 % of more than ten points, or five or more of ten or fewer, asks first.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
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
    /// Free the space at once
    #[arg(long)]
    prune: bool,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Let the newest complete point of a data source go, if it is named
    #[arg(long, conflicts_with = "policy")]
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
    if specs.is_empty() && policy.is_empty() {
        let failure = Failure::usage("nothing says what to keep");
        return Err(failure.hint("give --keep options, or name the points to remove"));
    }
    let store = open_store(context)?;
    let (points, mut doubtful) = store.points_and_doubtful()?;
    let now = context.terminal.clock().now();
    let plan = make_plan(&points, &specs, &policy, args, now)?;
    // A rule keeps no less for a point that cannot be read; a name may mean another without it.
    for spec in &specs {
        for decision in &plan.remove {
            refuse_doubt(spec, &points, &mut doubtful, decision.id)?;
        }
    }
    show(context, &points, &plan)?;
    if args.dry_run {
        return Ok(Done::Whole);
    }
    consent(&plan, args.yes)?;
    let lock = store.lock()?;
    still_so(&plan, &make_plan(&store.points()?, &specs, &policy, args, now)?)?;
    let done = removal::remove(context, &store, &lock, &plan)?;
    if !args.prune {
        return Ok(done);
    }
    prune(context, &store, &lock, false, false)
        .map(|pruned| if pruned == Done::Whole { done } else { pruned })
}

fn make_plan(
    points: &[StoredPoint],
    specs: &[PointSpec],
    policy: &Retention,
    args: &ForgetArgs,
    now: Timestamp,
) -> Result<RetentionPlan, Failure> {
    let scope = args.scope.scope();
    if specs.is_empty() {
        let points = args.scope.select(points.to_vec());
        let facts: Vec<PointFacts> = points.iter().map(|stored| facts(stored, args.group_by)).collect();
        return Ok(plan(&facts, policy, &TimeZone::system(), now));
    }
    let candidates: Vec<Candidate> = points.iter().map(Candidate::from).collect();
    let resolve = |spec: &PointSpec| {
        if spec.path.is_empty() {
            return Ok(spec.point.resolve(&candidates, &scope)?);
        }
        Err(Failure::usage("only whole recovery points can be removed, without :PATH"))
    };
    let named = specs.iter().map(resolve).collect::<Result<Vec<RecoveryPointId>, Failure>>()?;
    let facts: Vec<PointFacts> = points.iter().map(|stored| facts(stored, args.group_by)).collect();
    let plan = plan_named(&facts, &named, args.allow_newest);
    let refused = plan.keep.iter().find(|decision| named.contains(&decision.id));
    match refused {
        Some(decision) => {
            let id = decision.id.short();
            let failure = Failure::failed(format!("{id} is the newest complete point of its data source"));
            Err(failure.hint("--allow-newest removes it nevertheless"))
        }
        None => Ok(plan),
    }
}

/// What retention needs to know of a point.
pub fn facts(stored: &StoredPoint, group_by: GroupBy) -> PointFacts {
    let point = &stored.point;
    let name = &point.source;
    let series = match group_by {
        GroupBy::Source => format!("{}\0{}\0{}", name.host, name.group, name.source),
        GroupBy::Group => name.group.clone(),
        GroupBy::Host => name.host.clone(),
        GroupBy::None => String::new(),
    };
    PointFacts {
        id: point.id,
        source: name.clone(),
        series,
        sequence: point.sequence,
        started: point.started,
        complete: point.state == PointState::Complete,
        held: false,
    }
}

/// The brake: a policy that suddenly removes much is more often a mistake than a wish.
fn consent(plan: &RetentionPlan, yes: bool) -> Result<(), Failure> {
    if yes || !plan.removes_much() {
        return Ok(());
    }
    let (removed, total) = (plan.remove.len(), plan.remove.len() + plan.keep.len());
    let refuse = || {
        let failure =
            Failure::failed(format!("{removed} of {total} recovery points would go; nothing was removed"));
        failure.hint("look at the list with --dry-run, then say --yes")
    };
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(refuse());
    }
    let mut err = io::stderr();
    let asked =
        write!(err, "remove {removed} of {total} recovery points? Type yes: ").and_then(|()| err.flush());
    let mut answer = String::new();
    asked
        .and_then(|()| io::stdin().read_line(&mut answer).map(drop))
        .map_err(|_| Failure::new(Kind::Interrupted, "no answer"))?;
    if answer.trim() == "yes" { Ok(()) } else { Err(refuse()) }
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
