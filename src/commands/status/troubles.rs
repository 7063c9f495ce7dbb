//! What somebody has to see to that does not follow from points and jobs: it is seen by asking.

use holdfast_backup::alert::Alert;
use holdfast_backup::config::Config;

use super::vaults::Answered;
use crate::commands::staging::DirectoryLine;
use crate::terminal::text;

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

/// Directories of staging that are not there, or take nothing.
pub fn annexes_in_trouble(staging: &[DirectoryLine]) -> Vec<Alert> {
    staging.iter().filter_map(|line| annex_away(line).or_else(|| annex_read_only(line))).collect()
}

fn annex_read_only(line: &DirectoryLine) -> Option<Alert> {
    let what = format!("the annex takes no packs: {}", line.refuses()?);
    let next_step = "see whether its disk fails (`dmesg` tells), or who may write there; a unit of systemd needs the directory in ReadWritePaths=";
    Some(alert("annex-read-only", &line.directory, what, next_step))
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

/// Nobody who collects figures sees new ones.
pub fn metrics_fail(why: &str) -> Alert {
    let what = format!("the file of figures cannot be written: {why}");
    let next_step = "see to its directory, or name another `file` in [metrics]; a unit of systemd needs the directory in ReadWritePaths=";
    alert("metrics-fail", "metrics", what, next_step)
}

/// The same, if there is no directory for them.
pub fn no_room_for_metrics(config: &Config) -> Option<Alert> {
    let dir = config.metrics_file.as_ref()?.parent()?;
    let error = std::fs::read_dir(dir).err()?;
    Some(metrics_fail(&format!("{}: {error}", dir.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        let told = annexes_in_trouble(&lines);
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
