//! `holdfast status`: whether all is well, on one page.

mod metrics;
mod places;
mod sheet;
mod troubles;
mod vaults;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_backup::agenda::{Agenda, Task, TierName, Work};
use holdfast_backup::alert::{Alert, Newest, alerts};
use holdfast_backup::config::{Config, Group, Stopped, Tier};
use holdfast_backup::expire::is_in;
use holdfast_backup::ledger::{JobState, Ledger};
use holdfast_store::clock::Timestamp;
use holdfast_store::point::{PointState, SourceName};
use holdfast_store::store::StoredPoint;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::configured::{NamedSource, named_sources, zone_of};
use super::jobs::present;
use super::staging::{DirectoryLine, directories};
use crate::daemon::talk::Present;
use crate::deleted::Deleted;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::settings::is_job;
use crate::telling::Way;
use crate::terminal::text::{self, Table};
pub use places::PlaceLine;
use places::Scrubs;
use sheet::SheetLine;
pub use troubles::{VAULT_AWAY, drills, metrics_fail, no_room_for_metrics, vaults_changed};
use troubles::{
    annexes_in_trouble, bad_configuration, damage, groups_gone, no_daemon, unwritten_metrics, vaults_away,
};
pub use vaults::Answered;

/// Show on one page whether all is well
///
/// For each group and tier the newest good recovery point and when the next one is taken; for the store's directory and each vault since
/// when all of it was read back and proven (`check --read-data`), what this machine may do there, and whether the vault answers; what the daemon does, the room that
/// is left, and what somebody has to see to, with its cause and what to do.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast status
  holdfast status --json | jq '.alerts[]'
  holdfast status --metrics                 figures for Prometheus")]
pub struct StatusArgs {
    /// Print figures in the text format of Prometheus instead of the page
    #[arg(long)]
    metrics: bool,
    /// Write these figures into FILE as well, whole or not at all
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

/// The page.
#[derive(Debug, Serialize)]
struct Page {
    /// Always `status`.
    message_type: &'static str,
    store: String,
    /// Bytes free on the disk of the store, and all of them.
    bytes_free: u64,
    bytes_total: u64,
    /// The directories of staging, the store's own first.
    staging: Vec<DirectoryLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<Present>,
    tiers: Vec<TierLine>,
    places: Vec<PlaceLine>,
    recovery_sheet: SheetLine,
    alerts: Vec<AlertLine>,
    /// Ways by which somebody was not told yet of alerts, and of how many.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    untold: BTreeMap<&'static str, usize>,
}

/// A tier of a source.
#[derive(Debug, Serialize)]
struct TierLine {
    group: String,
    source: String,
    /// `local` or `online`.
    tier: String,
    schedule: String,
    /// The newest good point; `newest` is when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<String>,
    points: usize,
    /// When the next point is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip)]
    newest_at: Option<Timestamp>,
    #[serde(skip)]
    next_at: Option<Timestamp>,
}

/// What somebody has to see to.
#[derive(Debug, Serialize)]
struct AlertLine {
    name: String,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip)]
    since_at: Option<Timestamp>,
    /// What that is, for people.
    #[serde(skip)]
    since_word: &'static str,
    what: String,
    next_step: String,
}

/// Shows it.
pub fn run(context: &Context<'_>, args: &StatusArgs) -> Outcome {
    if args.metrics && context.terminal.json() {
        return Err(Failure::usage("--metrics and --json are two forms of the same: one of them is enough"));
    }
    let context = &context.at_store(context.settings.store_despite_mistakes()?);
    let store = open_store(context)?;
    let daemon = present(context)?;
    // What the daemon itself asks for knows that there is one, also when that has no time to answer.
    let is_served = daemon.is_some() || is_job();
    let (config, mistakes) = config_and_mistakes(context, store.dir(), is_served)?;
    let points = Deleted::load(store.dir()).leave_out(store.points()?);
    let (now, zone) = (context.terminal.clock().now(), zone_of(&config));
    let agenda = Agenda::new(&config, &context.settings.host, zone.clone(), now);
    let ledger = Ledger::look(store.dir()).map_err(|error| Failure::failed(error.to_string()))?;
    let tiers = tiers(&config, &context.settings.host, &agenda, &points, now);
    let mut told = told(&agenda, &tiers, ledger.as_ref(), now)?;
    if mistakes.is_none() || is_served {
        told.extend(groups_gone(&config, ledger.as_ref(), &points, &context.settings.host));
    }
    let refused = daemon.as_ref().and_then(|daemon| daemon.trouble.clone());
    told.splice(0..0, refused.or(mistakes).map(|mistakes| bad_configuration(&mistakes, is_served)));
    told.splice(0..0, (!is_served).then(no_daemon));
    let beside_daemon = daemon.is_some() && !is_job();
    let answered = vaults::answers(store.vaults(), &**context.terminal.clock(), beside_daemon);
    if context.terminal.cancelled() {
        return Err(Failure::interrupted());
    }
    let places = places::places(&store, &context.settings.credentials, &answered)?;
    let staging = directories(&store)?;
    if let Some(damage) = damage(ledger.as_ref()) {
        // That the check fails is the same.
        told.retain(|alert| ![Work::Check, Work::Scrub].iter().any(|work| alert.is_of_failing(*work)));
        told.push(damage);
    }
    told.extend(annexes_in_trouble(&staging, ledger.as_ref(), beside_daemon));
    told.extend(vaults_away(&config, &answered));
    told.extend(vaults_changed(&store)?);
    told.extend(places::alerts(&places, Scrubs::of(&config, ledger.as_ref()).as_ref(), now, &zone));
    let drills = drills(&config, ledger.as_ref(), !store.vaults().is_empty(), now);
    if drills.is_some() {
        told.retain(|alert| !alert.is_of_failing(Work::Drill));
    }
    told.extend(drills);
    told.extend(unwritten_metrics(&config, ledger.as_ref(), beside_daemon));
    let page = Page {
        message_type: "status",
        store: store.dir().display().to_string(),
        bytes_free: staging[0].bytes_free.unwrap_or_default(),
        bytes_total: staging[0].bytes_total.unwrap_or_default(),
        staging,
        daemon,
        tiers,
        places,
        recovery_sheet: SheetLine::of(store.dir())?,
        alerts: told.into_iter().map(AlertLine::from).collect(),
        untold: untold(ledger.as_ref()),
    };
    show(context, args, &page, now, &zone)?;
    let figures =
        || Ok::<_, Failure>(metrics::render(&page, &metrics::Jobs::of(&agenda, ledger.as_ref())?, now));
    if args.metrics {
        context.terminal.bytes(figures()?.as_bytes())?;
    }
    // Last, so that whoever reads the page has it also where the file cannot be written. A look of the daemon takes a failure after the page
    // for just that.
    if let Some(path) = &args.metrics_file {
        metrics::write(path, &figures()?)?;
    }
    Ok(Done::Whole)
}

fn show(
    context: &Context<'_>,
    args: &StatusArgs,
    page: &Page,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<(), Failure> {
    match (args.metrics, context.terminal.json()) {
        (true, _) => Ok(()),
        (_, true) => context.terminal.json_line(page),
        (_, false) => context.terminal.line(&render(page, now, zone)),
    }
}

fn untold(ledger: Option<&Ledger>) -> BTreeMap<&'static str, usize> {
    let waiting = |way| Some((way, ledger?.untold(way).ok().filter(|untold| !untold.is_empty())?.len()));
    Way::NAMES.into_iter().filter_map(waiting).collect()
}

/// What the page goes by, and what is wrong with the configuration as it lies there now. Where that has mistakes a daemon goes by the one
/// before; without one nobody knows what there should be.
fn config_and_mistakes(
    context: &Context<'_>,
    store: &Path,
    is_served: bool,
) -> Result<(Config, Option<String>), Failure> {
    let mistakes = context.settings.mistakes();
    let said = mistakes.as_ref().map(|mistakes| mistakes.message.clone());
    match (context.settings.config(), mistakes) {
        (Ok(config), _) => Ok((config.clone(), said)),
        (Err(_), Some(_)) if !is_served => Ok((Config::default(), said)),
        (Err(failure), _) => {
            let accepted = context.settings.accepted(store).filter(|_| is_served);
            accepted.map(|config| (config, said.or(Some(failure.message.clone())))).ok_or(failure)
        }
    }
}

fn tiers(
    config: &Config,
    host: &str,
    agenda: &Agenda,
    points: &[StoredPoint],
    now: Timestamp,
) -> Vec<TierLine> {
    let mut lines = Vec::new();
    for group in &config.groups {
        let mut of_source = HashMap::<&str, Vec<&StoredPoint>>::new();
        let ours = |name: &SourceName| name.host == host && name.group == group.name;
        for stored in points.iter().filter(|stored| ours(&stored.point.source)) {
            of_source.entry(&stored.point.source.source).or_default().push(stored);
        }
        for NamedSource { name, .. } in named_sources(points, host, group) {
            let points = of_source.get(&*name).map(Vec::as_slice).unwrap_or_default();
            let line = |tier| Some(tier_line(group, tier, group.tier(tier)?, &name, points, agenda, now));
            lines.extend(TierName::ALL.into_iter().filter_map(line));
        }
    }
    lines
}

/// In the place of a schedule.
fn stopped_word(stopped: Stopped) -> String {
    format!("stopped ({})", stopped.as_str())
}

fn tier_line(
    group: &Group,
    name: TierName,
    tier: &Tier,
    source: &str,
    points: &[&StoredPoint],
    agenda: &Agenda,
    now: Timestamp,
) -> TierLine {
    let there = || points.iter().filter(|stored| is_in(stored, name));
    let good = there().filter(|stored| stored.point.state == PointState::Complete);
    let newest_at = good.max_by_key(|stored| stored.point.sequence).map(|stored| stored.point.started);
    let next_at = agenda.moment_after(&group.name, name, now);
    TierLine {
        group: group.name.clone(),
        source: source.to_owned(),
        tier: name.to_string(),
        schedule: group.stopped.map_or_else(|| tier.schedule.to_string(), stopped_word),
        newest: newest_at.map(text::rfc3339),
        points: there().count(),
        next: next_at.map(text::rfc3339),
        newest_at,
        next_at,
    }
}

/// Without what a ledger tells nobody knows which alerts are over: one that cannot be read is no page at all.
fn told(
    agenda: &Agenda,
    tiers: &[TierLine],
    ledger: Option<&Ledger>,
    now: Timestamp,
) -> Result<Vec<Alert>, Failure> {
    let newest: Vec<Newest> = tiers
        .iter()
        .map(|line| Newest {
            group: line.group.clone(),
            source: line.source.clone(),
            tier: if line.tier == "local" { TierName::Local } else { TierName::Online },
            started: line.newest_at,
        })
        .collect();
    let tasks = agenda.tasks();
    let past = ledger.map(|ledger| ledger.pasts(&tasks)).transpose();
    let past = past.map_err(|error| Failure::failed(error.to_string()))?.unwrap_or_default();
    let said = |task: &Task| {
        let last = ledger?
            .last(task, &[JobState::Done, JobState::Partial, JobState::Failed, JobState::Lost])
            .ok()??;
        (last.state != JobState::Done && !last.said.is_empty()).then_some(last.said)
    };
    Ok(alerts(agenda, &newest, &past, &said, now))
}

impl From<Alert> for AlertLine {
    fn from(alert: Alert) -> Self {
        let since_word = alert.word_for_since();
        let Alert { name, subject, since: since_at, what, next_step } = alert;
        Self {
            name,
            subject,
            since: since_at.map(text::rfc3339_short),
            since_at,
            since_word,
            what,
            next_step,
        }
    }
}

fn render(page: &Page, now: Timestamp, zone: &TimeZone) -> String {
    let time = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| text::local_time(at, zone));
    let mut lines = vec![format!(
        "{}: {} of {} free",
        page.store,
        text::size(page.bytes_free),
        text::size(page.bytes_total)
    )];
    for line in page.staging.iter().filter(|line| line.kind == "annex") {
        let room = match (line.bytes_free, line.bytes_total) {
            (Some(free), Some(total)) => format!("{} of {} free", text::size(free), text::size(total)),
            _ => line.state.to_owned(),
        };
        let leaving = if line.state == "leaving" { ", leaving" } else { "" };
        let refuses = if line.refuses().is_some() { ", cannot be written" } else { "" };
        lines.push(format!("{}: {room}{leaving}{refuses}", line.directory));
    }
    let mut table = Table::new(&["Group", "Source", "Tier", "Schedule", "Points", "Newest good", "Next"]);
    for line in &page.tiers {
        table.row([
            line.group.clone(),
            line.source.clone(),
            line.tier.clone(),
            line.schedule.clone(),
            line.points.to_string(),
            time(line.newest_at),
            time(line.next_at),
        ]);
    }
    if !page.tiers.is_empty() {
        lines.push(table.render());
    }
    lines.push(places::render(&page.places, now, zone));
    lines.push(page.recovery_sheet.render(zone));
    if let Some(daemon) = &page.daemon {
        lines.push(daemon_line(daemon, zone));
    }
    for alert in &page.alerts {
        let since = |at| format!(", {} {}", alert.since_word, text::local_time(at, zone));
        let since = alert.since_at.map_or_else(String::new, since);
        let what = text::printable_text(&alert.what);
        lines.push(format!(
            "ALERT {} ({}{since}): {what}\n      {}",
            alert.name, alert.subject, alert.next_step
        ));
    }
    for (way, alerts) in &page.untold {
        let alerts = text::count(*alerts as u64, "alert");
        lines.push(format!(
            "not told by {way} yet: {alerts} (`holdfast alerts`; the log of the daemon says why)"
        ));
    }
    if page.alerts.is_empty() {
        lines.push("all is well".to_owned());
    }
    lines.join("\n") + "\n"
}

fn daemon_line(daemon: &Present, zone: &TimeZone) -> String {
    let since = text::local_time(Timestamp::from_seconds(daemon.since), zone);
    let mut line = format!("daemon: process {} since {since}", daemon.process);
    for running in &daemon.running {
        line += &format!(
            "\n  job {}: {} {} {:.0} %",
            running.job,
            running.task,
            running.stage,
            running.part_done * 100.0
        );
    }
    for waiting in &daemon.waiting {
        line += &format!("\n  waits: {waiting}");
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_backup::agenda::Work;
    use holdfast_backup::ledger::Ended;

    use super::*;

    #[test]
    fn a_ledger_that_cannot_be_read_closes_no_alert() {
        let dir = tempfile::tempdir().unwrap();
        let at = Timestamp::from_seconds(1);
        let text = "[group.web]\nsources = [\"/s\"]\nlocal.schedule = \"daily\"\n";
        let config = Config::parse(&[("a.toml".into(), text.to_owned())]).unwrap();
        let agenda = Agenda::new(&config, "host", TimeZone::UTC, at);
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let said = "damaged-in-a-moment";
        for _ in 0..3 {
            let no = ledger.begin(&Task { work: Work::Take, group: Some("web".into()) }, false, at).unwrap();
            let (state, said) = (JobState::Failed, said.to_owned());
            ledger.end(no, &Ended { at, state, said, points: Vec::new(), sent: None }).unwrap();
        }
        drop(ledger);
        let told = || told(&agenda, &[], Ledger::look(dir.path()).unwrap().as_ref(), at);
        assert_eq!(told().unwrap().len(), 1, "it fails");
        let path = dir.path().join("ledger.db");
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(said.as_bytes())).collect();
        // No text is of such bytes.
        places.iter().for_each(|at| bytes[*at..*at + said.len()].fill(0xff));
        std::fs::write(&path, bytes).unwrap();
        assert!(told().is_err_and(|failure| failure.message.contains("cannot read the ledger")));
    }
}
