//! What drills came to: what came back, what did not, and what nobody looked at, which is told as loudly.

use std::collections::BTreeSet;

use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::{Event, Monitor};

use super::{DrillArgs, MissingPoint, WrongFile};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// What drills with all vaults came to.
#[derive(Debug, Default)]
pub struct Totals {
    pub points: BTreeSet<RecoveryPointId>,
    pub bad: BTreeSet<RecoveryPointId>,
    pub files: u64,
    pub bytes: u64,
    pub like_source: u64,
    pub mounted: u64,
    /// Vaults of which nothing could be mounted.
    pub unmounted: Vec<String>,
    pub whole: u64,
    pub wrong: Vec<WrongFile>,
    pub missing: Vec<MissingPoint>,
    /// Vaults that have no point in scope, and in which none is known to be.
    pub without: Vec<String>,
    /// Vaults that have points, and of which no file was read: none that was met is short enough.
    pub unread: Vec<String>,
    /// Vaults from which nothing could be recovered, and why.
    pub failures: Vec<(String, Failure)>,
    pub said: String,
}

impl Totals {
    /// Nothing could be recovered from a vault.
    pub fn fail(&mut self, address: &str, failure: Failure) {
        let message =
            format!("nothing can be recovered from {address} by this machine now: {}", failure.message);
        self.said += &format!("{message}\n");
        self.failures.push((address.to_owned(), Failure { message, ..failure }));
    }

    /// A point that did not come from a vault in which it is known to be.
    pub fn miss(&mut self, address: &str, id: &RecoveryPointId, monitor: &dyn Monitor) {
        let reason = format!("point {} is known to be there, and did not come from there", id.short());
        self.said += &format!("vault {address}: {reason}\n");
        monitor.event(Event::Problem { path: format!("vault {address}").into_bytes(), reason });
        self.missing.push(MissingPoint { vault: address.to_owned(), snapshot_id: id.hex() });
    }

    /// How much did not come back as it should.
    pub fn problems(&self) -> u64 {
        (self.wrong.len() + self.missing.len() + self.failures.len()) as u64
    }

    /// Why nothing was read, if nothing was and nothing is known that should have been: that is no success.
    pub fn nothing(&self, args: &DrillArgs, vaults: &[String]) -> Option<Failure> {
        if self.problems() > 0 || self.files > 0 {
            return None;
        }
        let vaults_named = vaults.join(" and ");
        let failure = if self.without.len() < vaults.len() {
            let most = text::size(args.max_bytes);
            Failure::failed(format!("nothing was read: of the entries that were met in {vaults_named} none is a file of at most {most}"))
                .hint("--max-bytes allows longer ones, --files looks at more")
        } else if args.scope.is_empty() {
            Failure::failed(format!("nothing was read: no recovery point is in {vaults_named}, and none is known to have been left there"))
                .hint("`holdfast vault push` brings some there")
        } else {
            let scope = args.scope.words();
            Failure::failed(format!("nothing was read: no recovery point of {scope} is in {vaults_named}"))
                .hint("`holdfast snapshots` names the sources, groups and machines that there are")
        };
        Some(failure)
    }

    /// Of drills of which files were read, or that failed.
    pub fn outcome(mut self) -> Outcome {
        if !self.wrong.is_empty() {
            let files = text::count(self.wrong.len() as u64, "file");
            return Err(Failure::failed(format!("the drill failed: {files} did not come back as they were"))
                .hint("`holdfast check --read-data` finds what is damaged, and `holdfast scrub` heals what another place has whole"));
        }
        if let Some(MissingPoint { vault, .. }) = self.missing.first() {
            let points = text::count(self.missing.len() as u64, "recovery point");
            let message = format!(
                "the drill failed: {points} did not come from {vault}, where this machine knows them to be"
            );
            return Err(Failure::failed(message).hint(
                "`holdfast check` says what became of them; `holdfast vault push` sends again what is still here, `holdfast vault undelete` brings \
                 back what the storage account keeps, and `holdfast vault accept` does without them",
            ));
        }
        if self.failures.is_empty() { Ok(Done::Whole) } else { Err(self.failures.swap_remove(0).1) }
    }

    /// Vaults of which no file was read.
    fn silent(&self) -> Vec<&str> {
        self.without.iter().chain(&self.unread).map(String::as_str).collect()
    }
}

/// What it came to, in a line for people.
pub fn sentence(seed: u64, vaults: &[String], totals: &Totals) -> String {
    let silent = totals.silent();
    let verdict = match (totals.problems(), totals.files) {
        (0, 0) => "NOTHING WAS READ".to_owned(),
        (0, _) if !silent.is_empty() => {
            format!("all of it came back right; NOTHING WAS READ from {}", silent.join(" and "))
        }
        (0, _) if !totals.unmounted.is_empty() => {
            format!(
                "all of it came back right; NOT READ THROUGH A MOUNT from {}",
                totals.unmounted.join(" and ")
            )
        }
        (0, _) => "all of it came back right".to_owned(),
        _ => "NOT ALL OF IT CAME BACK".to_owned(),
    };
    let whole = match totals.whole {
        0 => String::new(),
        n => format!(", {n} of them whole"),
    };
    // Of the others it is told that nothing came from there; where there is none at all, of all of them.
    let is_read =
        |vault: &&str| !silent.contains(vault) && totals.failures.iter().all(|(failed, _)| failed != vault);
    let all: Vec<&str> = vaults.iter().map(String::as_str).collect();
    let read: Vec<&str> = all.iter().copied().filter(is_read).collect();
    format!(
        "recovered from {} with nothing but the key: {} of {}{whole} ({}), {} of them through a mount, {} like their source; seed {seed}: {verdict}",
        if read.is_empty() { all } else { read }.join(" and "),
        text::count(totals.files, "file"),
        text::count(totals.points.len() as u64, "recovery point"),
        text::size(totals.bytes),
        totals.mounted,
        totals.like_source,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of_two(totals: &Totals) -> String {
        sentence(7, &["/a".to_owned(), "/b".to_owned()], totals)
    }

    #[test]
    fn a_vault_of_which_no_file_was_read_is_told_and_is_none_from_which_anything_came() {
        let totals = || Totals { files: 3, whole: 1, ..Totals::default() };
        let both = of_two(&totals());
        assert!(both.starts_with("recovered from /a and /b with"), "{both}");
        assert!(both.contains("1 of them whole") && both.ends_with("all of it came back right"), "{both}");
        for field in ["unread", "without"] {
            let mut one = totals();
            let silent = if field == "unread" { &mut one.unread } else { &mut one.without };
            silent.push("/b".to_owned());
            let told = of_two(&one);
            assert!(told.starts_with("recovered from /a with"), "{told}");
            assert!(told.ends_with("all of it came back right; NOTHING WAS READ from /b"), "{told}");
        }
        let mut failed = totals();
        failed.fail("/a", Failure::failed("it is gone"));
        let told = of_two(&failed);
        assert!(told.starts_with("recovered from /b with"), "{told}");
        assert!(told.ends_with("NOT ALL OF IT CAME BACK"), "{told}");
        let none = Totals { unread: vec!["/a".into(), "/b".into()], ..Totals::default() };
        let told = of_two(&none);
        assert!(
            told.starts_with("recovered from /a and /b with") && told.ends_with(": NOTHING WAS READ"),
            "{told}"
        );
    }
}
