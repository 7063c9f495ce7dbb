//! What somebody has to see to that does not follow from points and jobs: it is seen by asking.

use holdfast_backup::agenda::Work;
use holdfast_backup::alert::Alert;
use holdfast_backup::config::Config;
use holdfast_backup::ledger::{DAMAGED, JobState, Ledger};
use holdfast_store::clock::Timestamp;
use holdfast_store::store::StoredPoint;

use super::vaults::Answered;
use crate::commands::configured::zone_of;
use crate::commands::staging::DirectoryLine;
use crate::terminal::text;

/// Name of the alert of figures that nobody can have.
const METRICS_FAIL: &str = "metrics-fail";
/// Name of the alert of damage that a check found.
const DAMAGE: &str = "damage";
/// What alerts of drills are about.
const DRILL: &str = "drill";
/// Name of the alert of an annex that takes nothing.
const READ_ONLY: &str = "annex-read-only";
/// Name of the alert of a vault that does not answer.
pub const VAULT_AWAY: &str = "vault-away";

pub(super) fn alert(name: &str, subject: &str, what: String, next_step: &str) -> Alert {
    let (name, subject, next_step) = (name.to_owned(), subject.to_owned(), next_step.to_owned());
    Alert { name, subject, since: None, what, next_step }
}

/// Nobody does what is due.
pub fn no_daemon() -> Alert {
    let what = "no daemon serves this store: nothing is done by itself".to_owned();
    alert("no-daemon", "daemon", what, "`systemctl enable --now holdfast`, or `holdfast daemon`")
}

/// The configuration cannot be used as it lies there.
pub fn bad_configuration(trouble: &str, is_served: bool) -> Alert {
    let so = match is_served {
        true => "the daemon goes by the one before",
        false => "nobody can tell which points there should be",
    };
    let what = format!("it cannot be used, and {so}: {trouble}");
    let next_step = "`holdfast config check` names them; `systemctl reload holdfast` has it read again";
    alert("bad-configuration", "configuration", what, next_step)
}

/// Vaults that are to be given points and cannot be used.
pub fn vaults_away(config: &Config, answered: &[Answered]) -> Vec<Alert> {
    let goes_there = |place: &str| {
        let online = config
            .groups
            .iter()
            .filter(|group| group.stopped.is_none())
            .filter_map(|group| group.online.as_ref());
        online.into_iter().any(|tier| tier.is_for(place))
    };
    let away = |answered: &Answered| {
        let what = format!("the vault does not answer as it should: {}", answered.trouble.as_ref()?);
        let next_step = "see that its disk is mounted, or that its service can be reached with these credentials (`holdfast vault list` asks \
                         again); what it is to have is kept here and goes there when it is back";
        Some(alert(VAULT_AWAY, &answered.place, what, next_step))
    };
    answered.iter().filter(|answered| goes_there(&answered.place)).filter_map(away).collect()
}

/// Directories of staging that are not there, or take nothing: of the daemon, beside which this looks, as its last look found it.
pub fn annexes_in_trouble(
    staging: &[DirectoryLine],
    ledger: Option<&Ledger>,
    beside_daemon: bool,
) -> Vec<Alert> {
    let told = staging.iter().filter_map(|line| annex_away(line).or_else(|| annex_read_only(line)));
    let mut told: Vec<Alert> = told.collect();
    if beside_daemon {
        let refused = open(ledger, READ_ONLY).into_iter().filter(|alert| {
            let is_of = |line: &DirectoryLine| line.directory == alert.subject;
            staging.iter().any(is_of) && !told.iter().any(|told| told.subject == alert.subject)
        });
        told.extend(refused.collect::<Vec<_>>());
    }
    told
}

/// What the daemon's last look found under this name. It may be another user, and see another file system, as a unit does.
fn open(ledger: Option<&Ledger>, name: &str) -> Vec<Alert> {
    let open = ledger.and_then(|ledger| ledger.open_alerts().ok()).unwrap_or_default();
    open.into_iter().map(|known| known.alert).filter(|alert| alert.name == name).collect()
}

fn annex_read_only(line: &DirectoryLine) -> Option<Alert> {
    let what = format!("the annex takes no packs: {}", line.refuses()?);
    let next_step = "a daemon that is a unit of systemd needs the directory in ReadWritePaths= of a drop-in (`systemctl edit holdfast`); else see who \
                     may write there, and whether the disk fails (`dmesg`)";
    Some(alert(READ_ONLY, &line.directory, what, next_step))
}

fn annex_away(line: &DirectoryLine) -> Option<Alert> {
    let (packs, bytes) = (text::count(line.packs, "pack"), text::size(line.bytes));
    let what = format!(
        "the annex is away: {}; backups go on without it, and what only it has of its {packs} ({bytes}) cannot be read",
        line.reason.as_ref().filter(|_| line.state == "away")?
    );
    let dir = &line.directory;
    let next_step = format!(
        "mount its disk; if it will not come back, `holdfast staging remove --lost {dir}` does without it"
    );
    Some(alert("annex-away", dir, what, &next_step))
}

/// What a check found and no later one took back.
pub fn damage(ledger: Option<&Ledger>) -> Option<Alert> {
    let check = ledger?.damage().ok()??;
    let reason = check.said.lines().rev().find_map(|line| line.find(DAMAGED).map(|at| &line[at..]));
    // What the daemon puts down has the hint in the same line, and that is the next step here.
    let reason = reason.and_then(|line| line.split(". Hint: ").next()).unwrap_or(DAMAGED);
    let first = check.said.lines().next().filter(|line| !line.contains(DAMAGED));
    let first = first.map_or_else(String::new, |line| format!(", first {line}"));
    let verb = match check.task.work {
        Work::CheckData => "check --read-data",
        Work::Scrub => "scrub",
        _ => "check",
    };
    let next_step = format!(
        "`holdfast jobs --failed` names all of it; `holdfast vault push`, or `holdfast backup` where the source is unchanged, may heal it, \
         and `holdfast prune` puts what is whole elsewhere in the place of a damaged local pack; `holdfast {verb}` sees whether they did"
    );
    Some(alert(DAMAGE, "store", format!("`holdfast {verb}` found that {reason}{first}"), &next_step))
}

/// What the last drill found, or that there was none for longer than there should be.
pub fn drills(config: &Config, ledger: Option<&Ledger>, has_vaults: bool, now: Timestamp) -> Option<Alert> {
    let last = ledger?.last_drill().ok().flatten().filter(|_| has_vaults)?;
    if last.state == JobState::Failed {
        let first = last.said.lines().next().unwrap_or("it says no reason");
        let what = format!("files could not be had back from a vault alone: {first}");
        let next_step = "`holdfast jobs --failed` shows all of it; `holdfast check --read-data` finds damage, and `holdfast drill` sees \
                         whether all is well";
        return Some(alert("drill-fails", DRILL, what, next_step));
    }
    // Two moments of its schedule have passed, and a day.
    let schedule = config.drill.as_ref()?;
    let due = schedule.next_after(schedule.next_after(last.begun, &zone_of(config))?, &zone_of(config))?;
    let age = now.seconds.saturating_sub(last.begun.seconds);
    let is_late = now.seconds > due.seconds.saturating_add(86_400);
    let what = format!("the last drill was {} ago", text::count(age.max(0).unsigned_abs() / 86_400, "day"));
    let next_step = "`holdfast drill` does one now; `holdfast jobs` shows why the daemon did none";
    is_late.then(|| alert("drill-late", DRILL, what, next_step))
}

/// Groups that were taken by the daemon, of which there are points, and which the configuration does not name any more.
pub fn groups_gone(
    config: &Config,
    ledger: Option<&Ledger>,
    points: &[StoredPoint],
    host: &str,
) -> Vec<Alert> {
    let taken = ledger.and_then(|ledger| ledger.groups().ok()).unwrap_or_default();
    let gone = |group: &String| {
        let is_named = config.groups.iter().any(|named| named.name == *group);
        let of_group =
            |stored: &&StoredPoint| stored.point.source.group == *group && stored.point.source.host == host;
        let left = points.iter().filter(of_group).count() as u64;
        (!is_named && left > 0).then(|| group_gone(group, left))
    };
    taken.iter().filter_map(gone).collect()
}

fn group_gone(group: &str, left: u64) -> Alert {
    let what = format!(
        "the configuration does not name the group any more: no further points of it are taken, and {} of it {} by nothing",
        text::count(left, "recovery point"),
        if left == 1 { "expires" } else { "expire" }
    );
    let next_step = format!(
        "put the group back (`holdfast protect PATH --group {group} --local daily`); if it is to end, `holdfast protect stop {group} --keep` \
         (or --until-expiry, --delete) says then what becomes of its points"
    );
    alert("group-gone", group, what, &next_step)
}

/// Nobody who collects figures sees new ones.
pub fn metrics_fail(why: &str) -> Alert {
    let what = format!("the file of figures cannot be written: {why}");
    let next_step = "see to its directory, or name another `file` in [metrics]; a unit of systemd needs the directory in ReadWritePaths=";
    alert(METRICS_FAIL, "metrics", what, next_step)
}

/// What is wrong with the file of figures. Beside a daemon, which writes it, that is what its last look found.
pub fn unwritten_metrics(config: &Config, ledger: Option<&Ledger>, beside_daemon: bool) -> Option<Alert> {
    if !beside_daemon {
        return no_room_for_metrics(config);
    }
    config.metrics_file.as_ref()?;
    open(ledger, METRICS_FAIL).pop()
}

/// That, if there is no directory for them.
pub fn no_room_for_metrics(config: &Config) -> Option<Alert> {
    let dir = config.metrics_file.as_ref()?.parent()?;
    let error = std::fs::read_dir(dir).err()?;
    Some(metrics_fail(&format!("{}: {error}", dir.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_backup::agenda::Task;
    use holdfast_backup::alert::telling::{Found, follow};
    use holdfast_backup::ledger::Ended;

    use super::*;
    use crate::commands::testing::stored_point;

    fn config(text: &str) -> Config {
        Config::parse(&[("a.toml".into(), text.to_owned())]).unwrap()
    }

    #[test]
    fn beside_a_daemon_the_file_of_figures_is_as_its_look_found_it() {
        let dir = tempfile::tempdir().unwrap();
        let metrics_in = |dir: &str| config(&format!("[metrics]\nfile = \"{dir}/a.prom\""));
        let (there, missing) = (metrics_in("/"), metrics_in("/nonexistent"));
        let told = |config, is_beside| {
            let ledger = Ledger::look(dir.path()).unwrap();
            unwritten_metrics(config, ledger.as_ref(), is_beside).map(|alert| alert.what)
        };
        assert!(told(&missing, false).unwrap().contains("/nonexistent"));
        assert_eq!((told(&there, false), told(&there, true), told(&missing, true)), (None, None, None));
        let found = Found { alerts: vec![metrics_fail("read-only")], whole: true, passed_over: None };
        let followed = follow(Vec::new(), &found, Timestamp::from_seconds(1));
        Ledger::open(dir.path()).unwrap().0.follow(&followed, &[]).unwrap();
        assert!(told(&there, true).unwrap().ends_with(": read-only"));
        assert_eq!((told(&there, false), told(&config(""), true)), (None, None));
    }

    #[test]
    fn a_group_that_is_gone_from_the_configuration_is_told_while_there_are_points_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let points = [stored_point(1, "www", 5)];
        let told = |text: &str, points: &[StoredPoint], host: &str| {
            let told = groups_gone(&config(text), Some(&ledger), points, host);
            told.into_iter().map(|alert| (alert.name, alert.subject)).collect::<Vec<_>>()
        };
        assert_eq!(told("", &points, "host"), [], "it was never in the configuration");
        let task = Task { work: Work::Take, group: Some("group".into()) };
        ledger.begin(&task, false, Timestamp::from_seconds(1)).unwrap();
        assert_eq!(told("", &points, "host"), [("group-gone".to_owned(), "group".to_owned())]);
        assert_eq!(told("", &[], "host"), []);
        assert_eq!(told("", &points, "other"), []);
        let back = "[group.group]\nsources = [\"/s\"]\nlocal.schedule = \"daily\"\n";
        assert_eq!(told(back, &points, "host"), []);
        assert_eq!(told(&format!("{back}stopped = \"keep\""), &points, "host"), []);
        let step = &groups_gone(&config(""), Some(&ledger), &points, "host")[0].next_step;
        assert!(step.contains("`holdfast protect stop group --keep`"), "{step}");
    }

    #[test]
    fn damage_is_told_with_its_reason_and_the_check_that_sees_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let at = Timestamp::from_seconds(1);
        // As a person's check puts it down, and as a job of the daemon.
        for (work, end, verb) in [
            (Work::Check, "", "`holdfast check`"),
            (Work::Scrub, "", "`holdfast scrub`"),
            (Work::CheckData, ". Hint: h", "`holdfast check --read-data`"),
        ] {
            let said =
                format!("pack/1: staging: the pack is missing\nthe store is damaged: 1 problem{end}\n");
            let ended = Ended { at, state: JobState::Failed, said, points: Vec::new(), sent: None };
            Ledger::note_check(dir.path(), work, at, &ended).unwrap();
            let alert = damage(Ledger::look(dir.path()).unwrap().as_ref()).unwrap();
            let what =
                "found that the store is damaged: 1 problem, first pack/1: staging: the pack is missing";
            assert_eq!((alert.name.as_str(), alert.what), ("damage", format!("{verb} {what}")));
            assert!(
                alert.next_step.ends_with(&format!("{verb} sees whether they did")),
                "{}",
                alert.next_step
            );
        }
    }

    #[test]
    fn a_drill_that_failed_is_told_until_one_is_well_and_one_that_is_overdue_as_well() {
        const DAY: i64 = 86_400;
        let dir = tempfile::tempdir().unwrap();
        let at = |day: i64| Timestamp::from_seconds(1_795_176_000 + day * DAY);
        let told = |day: i64, text: &str, has_vaults| {
            let ledger = Ledger::look(dir.path()).unwrap();
            drills(&config(text), ledger.as_ref(), has_vaults, at(day)).map(|alert| (alert.name, alert.what))
        };
        let drilled = |day: i64, state, said: &str| {
            let ended = Ended { at: at(day), state, said: said.to_owned(), points: Vec::new(), sent: None };
            Ledger::note_run(dir.path(), Work::Drill, at(day), &ended).unwrap();
        };
        let name = |told: Option<(String, String)>| told.map(|told| told.0);
        assert_eq!(told(0, "", true), None, "none was due yet");
        drilled(0, JobState::Failed, "point ab: a: gone\nmore");
        assert!(told(0, "", true).unwrap().1.ends_with("point ab: a: gone"));
        assert_eq!(told(0, "", false), None, "there is nothing to recover from");
        drilled(1, JobState::Cancelled, "");
        assert_eq!(name(told(1, "", true)).as_deref(), Some("drill-fails"));
        drilled(2, JobState::Done, "");
        assert_eq!((told(2, "", true), told(9, "", true)), (None, None));
        assert_eq!(name(told(19, "", true)).as_deref(), Some("drill-late"));
        assert_eq!(told(19, "drill.schedule = \"never\"", true), None);
    }

    #[test]
    fn an_annex_that_is_away_is_told_with_a_command_that_can_be_typed() {
        let line = |directory: &str, state, reason: Option<&str>| DirectoryLine {
            directory: directory.into(),
            kind: "annex",
            state,
            reason: reason.map(str::to_owned),
            packs: 3,
            bytes: 2048,
            bytes_free: None,
            bytes_total: None,
        };
        let lines = [
            line("/srv", "present", None),
            line("/mnt/b", "away", Some("no marker")),
            line("/mnt/c", "leaving", Some("read-only")),
        ];
        let told = annexes_in_trouble(&lines, None, false);
        let [told, other] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((other.name.as_str(), other.subject.as_str()), ("annex-read-only", "/mnt/c"));
        assert!(other.what.contains("read-only"), "{}", other.what);
        assert_eq!((told.name.as_str(), told.subject.as_str()), ("annex-away", "/mnt/b"));
        assert!(
            told.what.contains("no marker") && told.what.contains("3 packs (2.000 KiB)"),
            "{}",
            told.what
        );
        assert!(told.next_step.contains("`holdfast staging remove --lost /mnt/b`"), "{}", told.next_step);
        // The daemon may not write where this process may.
        let dir = tempfile::tempdir().unwrap();
        let refused =
            ["/srv", "/gone"].map(|at| alert(READ_ONLY, at, "the annex takes no packs".into(), "see to it"));
        let found = Found { alerts: refused.to_vec(), whole: true, passed_over: None };
        let followed = follow(Vec::new(), &found, Timestamp::from_seconds(1));
        Ledger::open(dir.path()).unwrap().0.follow(&followed, &[]).unwrap();
        let ledger = Ledger::look(dir.path()).unwrap();
        let beside = annexes_in_trouble(&lines, ledger.as_ref(), true);
        assert_eq!(
            beside.iter().map(|alert| alert.subject.as_str()).collect::<Vec<_>>(),
            ["/mnt/b", "/mnt/c", "/srv"]
        );
        assert_eq!(annexes_in_trouble(&lines, ledger.as_ref(), false).len(), 2);
    }

    #[test]
    fn a_vault_is_missed_by_groups_that_go_there() {
        let answered = |place: &str, trouble: Option<&str>| Answered {
            place: place.into(),
            trouble: trouble.map(str::to_owned),
        };
        let all =
            [answered("/a", Some("not found")), answered("/b", Some("no answer")), answered("/c", None)];
        let of = |online: &str| {
            let text = format!("[group.g]\nsources = [\"/s\"]\nlocal.schedule = \"daily\"\n{online}");
            let config = Config::parse(&[("a.toml".into(), text)]).unwrap();
            let told = vaults_away(&config, &all);
            assert!(told.iter().all(|alert| alert.name == "vault-away"), "{told:?}");
            told.into_iter().map(|alert| alert.subject).collect::<Vec<_>>()
        };
        assert_eq!(of(""), [""; 0]);
        assert_eq!(of("online.schedule = \"daily\""), ["/a", "/b"]);
        assert_eq!(of("online = { schedule = \"daily\", vaults = [\"/b\", \"/c\"] }"), ["/b"]);
        assert_eq!(of("online.schedule = \"daily\"\nstopped = \"keep\""), [""; 0]);
    }
}
