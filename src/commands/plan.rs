//! `holdfast plan`: what the configuration will do, and what it keeps of the points that there are, and why.

use std::iter::successors;

use clap::Args;
use holdfast_backup::config::{Group, Stopped, TierName};
use holdfast_backup::expire::{Tiers, lateness};
use holdfast_backup::retention::{Decision, RetentionPlan};
use holdfast_store::clock::Timestamp;
use holdfast_store::store::StoredPoint;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::configured;
use super::judged;
use crate::deleted::Deleted;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text::{self, Table};

/// Show what the configuration will do, and what it keeps
///
/// For each group and each of its two tiers: when the next recovery points are taken, and which of the points that there are
/// would be kept or expire, with the reason, as `forget` will do it. Nothing is done.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast plan                             all groups
  holdfast plan --group web --next 10
  holdfast plan --json | jq -r 'select(.tier == \"online\") | .next[0]'")]
pub struct PlanArgs {
    /// One group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// How many moments to show
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(..=1000))]
    next: u16,
}

/// A tier of a group.
#[derive(Debug, Serialize)]
struct TierPlan {
    /// Always `plan`.
    message_type: &'static str,
    group: String,
    /// `local` or `online`.
    tier: &'static str,
    schedule: String,
    /// What becomes of its points, if the group takes no more: `keep` or `until-expiry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'static str>,
    /// RFC 3339, in UTC, with the jitter of this machine.
    next: Vec<String>,
    points: Vec<PointPlan>,
    #[serde(skip)]
    moments: Vec<Timestamp>,
}

/// A point in a tier.
#[derive(Debug, Serialize)]
struct PointPlan {
    id: String,
    time: String,
    source: String,
    /// `keep` or `expire`.
    action: &'static str,
    reason: String,
    #[serde(skip)]
    started: Timestamp,
}

/// Shows it.
pub fn run(context: &Context<'_>, args: &PlanArgs) -> Outcome {
    let groups = configured::groups(context, args.group.as_deref(), "")?;
    let store = open_store(context)?;
    let points = Deleted::load(store.dir()).leave_out(store.points()?);
    let tiers = judged::tiers(context, &store, &points, &groups)?;
    for (group, name) in groups.iter().flat_map(|group| TierName::ALL.map(|name| (group, name))) {
        if let Some(plan) = plan_tier(&tiers, group, name, args.next) {
            show(context, &plan, &tiers.zone)?;
        }
    }
    Ok(Done::Whole)
}

fn plan_tier(tiers: &Tiers<'_>, group: &Group, name: TierName, next: u16) -> Option<TierPlan> {
    let (tier, plan) = (group.tier(name)?, tiers.plan(group, name)?);
    let later = i64::from(lateness(tiers.host, &group.name, tier));
    let following = |last: &Timestamp| tier.schedule.next_after(*last, &tiers.zone);
    let first = following(&tiers.now).filter(|_| group.stopped.is_none());
    let moments: Vec<Timestamp> = successors(first, following)
        .take(next.into())
        .map(|moment| Timestamp::from_seconds(moment.seconds.saturating_add(later)))
        .collect();
    Some(TierPlan {
        message_type: "plan",
        group: group.name.clone(),
        tier: name.as_str(),
        schedule: tier.schedule.to_string(),
        stopped: group.stopped.map(Stopped::as_str),
        next: moments.iter().map(|moment| text::rfc3339(*moment)).collect(),
        points: plan_points(tiers.points, &plan),
        moments,
    })
}

fn plan_points(points: &[StoredPoint], plan: &RetentionPlan) -> Vec<PointPlan> {
    let line = |action: &'static str, decision: &Decision| {
        let point = &points.iter().find(|stored| stored.point.id == decision.id)?.point;
        Some(PointPlan {
            id: point.id.to_string(),
            time: text::rfc3339(point.started),
            source: point.source.source.clone(),
            action,
            reason: decision.why(),
            started: point.started,
        })
    };
    let keep = plan.keep.iter().filter_map(|decision| line("keep", decision));
    let mut lines: Vec<_> = keep.chain(plan.remove.iter().filter_map(|d| line("expire", d))).collect();
    lines.sort_by(|a, b| (&a.source, a.started).cmp(&(&b.source, b.started)));
    lines
}

fn show(context: &Context<'_>, plan: &TierPlan, zone: &TimeZone) -> Result<(), Failure> {
    if context.terminal.json() {
        return context.terminal.json_line(plan);
    }
    context.terminal.line(&render(plan, zone))
}

fn render(plan: &TierPlan, zone: &TimeZone) -> String {
    let next: Vec<String> = plan.moments.iter().map(|moment| text::local_time(*moment, zone)).collect();
    let next = if next.is_empty() { "never".to_owned() } else { next.join(", ") };
    let head = match plan.stopped {
        Some(how) => format!("{} {}: stopped ({how})", plan.group, plan.tier),
        None => format!("{} {}: {}; next {next}", plan.group, plan.tier, plan.schedule),
    };
    if plan.points.is_empty() {
        return format!("{head}\nno recovery points yet\n");
    }
    let mut table = Table::new(&["", "ID", "Time", "Source", "Why"]);
    for point in &plan.points {
        table.row([
            point.action.to_owned(),
            point.id.chars().take(8).collect(),
            text::local_time(point.started, zone),
            point.source.clone(),
            point.reason.clone(),
        ]);
    }
    format!("{head}\n{}\n", table.render())
}
