//! `holdfast staging`: the directories in which the store keeps packs on this machine.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use holdfast_store::StoreError;
use holdfast_store::id::VaultId;
use holdfast_store::store::{self, Settings as StoreSettings, StagingPlace, Store};
use serde::Serialize;

use super::Context;
use super::key::owner::{self, Act};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::places::{is_same_directory, lies_in, share_disk};
use crate::terminal::text::{self, Table};

mod remove;

/// Where the unit of the daemon is put (`docs/operations.md`).
const UNITS: &str = "/etc/systemd/system";

/// Spread the store's packs over several directories or disks
///
/// A store keeps everything in its own directory. An annex is a further directory, on another disk say, that takes packs, which are nearly
/// all of a store's bytes: each new one goes where most room is. Annexes come and go while backups run and recovery points are mounted.
/// One whose disk is not mounted is away: backups go on without it, what it alone holds cannot be read until it is back, and `holdfast status` says so.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast staging add /mnt/disk2/holdfast
  holdfast staging list
  holdfast staging remove /mnt/disk2/holdfast          its packs move into the other directories first
  holdfast staging remove --lost /mnt/disk2/holdfast   the disk is broken: do without what was on it")]
pub struct StagingArgs {
    #[command(subcommand)]
    action: StagingAction,
}

impl StagingArgs {
    /// Whether the store changes.
    pub fn writes(&self) -> bool {
        !matches!(self.action, StagingAction::List)
    }
}

/// What to do with directories.
#[derive(Debug, Subcommand)]
enum StagingAction {
    /// Let packs go into a directory as well, from now on
    ///
    /// The directory is made if it is missing, and has to be empty if not. Nothing waits for this: a backup that runs uses it at once, a mount
    /// finds what comes there. One that is an annex already, and leaving, stays; one whose disk is mounted elsewhere now is used there.
    Add {
        /// The directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Also if it is the annex of another copy of this store, or of one whose settings are lost
        ///
        /// A store that was recovered from a vault is a copy, and so is the first one to it. To the other copy the annex is away from then on, and what
        /// only the annex has is missing there: `prune` here removes of it what no point of this copy needs. Taking it over from there again
        /// brings back what is left. With `[soft-delete]` in the configuration it asks for a passphrase or the words of the recovery sheet.
        #[arg(long)]
        take_over: bool,
    },
    /// Show the directories, what each holds, and how much room it has
    List,
    /// Move the packs of an annex into the other directories, and use it no more
    ///
    /// Each pack is proven on its way, and goes only when it is safe in its new place. Whatever interrupts this, the same command goes on, and
    /// `staging add` keeps the annex after all. If the others have not enough room, that is said before anything is moved.
    Remove {
        /// The annex
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// It is away and will not come back: what only it held is lost, but for what vaults have. With `[soft-delete]` in the configuration it asks
        /// for a passphrase or the words of the recovery sheet
        #[arg(long)]
        lost: bool,
    },
}

/// A directory as the list and `status` show it.
#[derive(Debug, Serialize)]
pub struct DirectoryLine {
    /// Where it is.
    pub directory: String,
    /// `main`, which is the store's own, or `annex`.
    pub kind: &'static str,
    /// `present`, `leaving` or `away`.
    pub state: &'static str,
    /// Why it is away, or takes no packs although it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Packs in it; of one that is away, those that were last known to be.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes free on its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_free: Option<u64>,
    /// All bytes of its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
}

/// An annex that was added.
#[derive(Serialize)]
struct Added {
    /// Always `annex_added`.
    message_type: &'static str,
    directory: String,
    id: String,
}

/// Does it.
pub fn run(context: &Context<'_>, args: &StagingArgs) -> Outcome {
    match &args.action {
        StagingAction::Add { dir, take_over } => add(context, dir, *take_over),
        StagingAction::List => list(context),
        StagingAction::Remove { dir, lost } => remove::remove(context, dir, *lost),
    }
}

/// Needs no key and no lock: what an annex is stands in its marker and in the settings, both of which are replaced as a whole.
fn add(context: &Context<'_>, dir: &Path, take_over: bool) -> Outcome {
    let (store_dir, path) = (context.settings.store()?, absolute(dir)?);
    let store = Store::head(store_dir)?.vault;
    let settings = StoreSettings::load(store_dir)?;
    let path = known_as(&settings, path);
    refuse_overlap(store_dir, &settings, &path)?;
    if take_over {
        owner::agrees(context, store_dir, Act::TakeAnnex)?;
    }
    let added = store::add_annex(store_dir, &store, &path, take_over);
    let id = added.map_err(|error| refused(error, &path, &store))?;
    if let Some(other) = same_disk(store_dir, &settings, &path) {
        context.terminal.warn(&format!(
            "{} is on the same disk as {}, so there is no more room than before; if another disk was to be mounted there: \
             `holdfast staging remove` it, mount the disk, add it again",
            path.display(),
            other.display()
        ));
    }
    if unit_may_not_write(Path::new(UNITS), &path) {
        context.terminal.warn(&format!(
            "the daemon's unit may not write there: `systemctl edit holdfast`, add the lines `[Service]` and `ReadWritePaths=-{}` \
             (of a disk that comes and goes its mount point), then `systemctl restart holdfast`",
            path.display()
        ));
    }
    let directory = path.display().to_string();
    context.terminal.say(&format!("new packs go into {directory} as well, wherever most room is"))?;
    if context.terminal.json() {
        context.terminal.json_line(&Added { message_type: "annex_added", directory, id: id.hex() })?;
    }
    Ok(Done::Whole)
}

fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(dir).map_err(|e| Failure::usage(format!("the directory {dir:?}: {e}")))?;
    match path.to_str() {
        Some(_) => Ok(path.components().collect()),
        None => Err(Failure::usage(format!("the directory {dir:?}: its path is not UTF-8"))),
    }
}

/// The path under which a directory is an annex already, or its own.
fn known_as(settings: &StoreSettings, path: PathBuf) -> PathBuf {
    let known = settings.staging.iter().map(|annex| &annex.path);
    known.into_iter().find(|known| is_same(known, &path)).cloned().unwrap_or(path)
}

fn is_same(one: &Path, other: &Path) -> bool {
    is_same_directory(&one.to_string_lossy(), &other.to_string_lossy())
}

/// An annex shares no directory with the store, with another annex or with a vault: what one of them removes would be missing in the other.
fn refuse_overlap(store: &Path, settings: &StoreSettings, path: &Path) -> Result<(), Failure> {
    let annexes = settings.staging.iter().map(|annex| &*annex.path).filter(|annex| *annex != path);
    let vaults =
        settings.vaults.iter().map(|vault| &*vault.url).filter(|url| url.starts_with('/')).map(Path::new);
    let others = std::iter::once((store, "the store's own directory"))
        .chain(annexes.map(|annex| (annex, "the annex")))
        .chain(vaults.map(|vault| (vault, "the vault")));
    for (other, what) in others {
        let how = match (lies_in(path, other), lies_in(other, path)) {
            (true, true) => "is",
            (true, false) => "is within",
            (false, true) => "contains",
            (false, false) => continue,
        };
        let message = format!("{} {how} {what} {}", path.display(), other.display());
        return Err(Failure::failed(message).hint("an annex is a directory of its own, on another disk"));
    }
    Ok(())
}

fn refused(error: StoreError, path: &Path, store: &VaultId) -> Failure {
    let hint = match &error {
        StoreError::AlreadyThere { what } if what.contains("is away") => {
            let lost = format!("`holdfast staging remove --lost {}`", path.display());
            format!("mount its disk there; if it will not come back, {lost} first")
        }
        StoreError::AlreadyThere { .. } => {
            "an annex has a directory of its own: name one that is empty or not there yet".to_owned()
        }
        StoreError::NotOurs { .. } => {
            format!("this is store {store}; name another directory, or --store the other store")
        }
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

/// Another directory of staging on the disk of this one.
fn same_disk(store: &Path, settings: &StoreSettings, path: &Path) -> Option<PathBuf> {
    let annexes = settings.staging.iter().map(|annex| &*annex.path).filter(|annex| *annex != path);
    let mut others = std::iter::once(store).chain(annexes);
    others.find(|other| share_disk(other, path)).map(Path::to_path_buf)
}

/// Whether there is a unit of the daemon that may not write to a directory: it, or a drop-in, says to which it may.
fn unit_may_not_write(units: &Path, dir: &Path) -> bool {
    let drop_ins = std::fs::read_dir(units.join("holdfast.service.d")).into_iter().flatten().flatten();
    let files = std::iter::once(units.join("holdfast.service")).chain(drop_ins.map(|entry| entry.path()));
    let text: Vec<String> = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    let lines = || text.iter().flat_map(|text| text.lines()).map(str::trim);
    let may = lines().filter_map(|line| line.strip_prefix("ReadWritePaths=")).flat_map(str::split_whitespace);
    let mut may = may.map(|path| path.trim_start_matches(['-', '+']));
    lines().any(|line| line == "ProtectSystem=strict") && !may.any(|path| dir.starts_with(path))
}

fn list(context: &Context<'_>) -> Outcome {
    let lines = directories(&open_store(context)?)?;
    if context.terminal.json() {
        context.terminal.json_line(&lines)?;
    } else {
        context.terminal.line(&render(&lines))?;
    }
    Ok(Done::Whole)
}

/// The directories of a store's staging, its own first.
pub fn directories(store: &Store) -> Result<Vec<DirectoryLine>, Failure> {
    Ok(store.staging_places()?.into_iter().map(DirectoryLine::from).collect())
}

impl DirectoryLine {
    /// Why it takes no packs, if it is an annex that is there and cannot be written.
    pub fn refuses(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| self.state != "away")
    }
}

impl From<StagingPlace> for DirectoryLine {
    fn from(place: StagingPlace) -> Self {
        let refuses = place.room.and_then(|room| room.refuses).filter(|_| place.annex);
        let refuses = refuses.map(|kind| {
            format!("it cannot be written ({kind}), so packs are read from it, and new ones go elsewhere; mount it writable again")
        });
        Self {
            directory: place.path.display().to_string(),
            kind: if place.annex { "annex" } else { "main" },
            state: match (&place.away, place.leaving) {
                (Some(_), _) => "away",
                (None, true) => "leaving",
                (None, false) => "present",
            },
            reason: place.away.map(|absence| absence.to_string()).or(refuses),
            packs: place.packs,
            bytes: place.bytes,
            bytes_free: place.room.map(|room| room.free),
            bytes_total: place.room.map(|room| room.total),
        }
    }
}

fn render(lines: &[DirectoryLine]) -> String {
    let mut table = Table::new(&["Directory", ">Packs", ">Size", ">Free", ">Of", "State"]);
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), text::size);
    for line in lines {
        let reason = line.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        table.row([
            line.directory.clone(),
            line.packs.to_string(),
            text::size(line.bytes),
            size(line.bytes_free),
            size(line.bytes_total),
            format!("{}{reason}", line.state),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_store::id::AnnexId;
    use holdfast_store::store::{AnnexSetting, VaultSetting};

    use super::*;

    #[test]
    fn a_directory_that_is_away_is_listed_with_the_reason_and_what_was_in_it() {
        let line = |state, reason: Option<&str>| DirectoryLine {
            directory: "/mnt/b".into(),
            kind: "annex",
            state,
            reason: reason.map(str::to_owned),
            packs: 3,
            bytes: 2048,
            bytes_free: reason.is_none().then_some(1024),
            bytes_total: reason.is_none().then_some(4096),
        };
        let text = render(&[line("present", None), line("away", Some("no marker"))]);
        let rows: Vec<String> =
            text.lines().skip(2).map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            rows,
            ["/mnt/b 3 2.000 KiB 1.000 KiB 4.000 KiB present", "/mnt/b 3 2.000 KiB ? ? away: no marker"]
        );
    }

    #[test]
    fn it_is_known_whether_the_unit_may_write_to_a_directory() {
        let units = tempfile::tempdir().unwrap();
        let may_not = |dir: &str| unit_may_not_write(units.path(), Path::new(dir));
        assert!(!may_not("/mnt/b"), "there is none");
        let unit = include_str!("../../docs/systemd/holdfast.service");
        std::fs::write(units.path().join("holdfast.service"), unit).unwrap();
        assert!(
            may_not("/mnt/b") && may_not("/srv/holdfast2") && may_not("/mnt/usb"),
            "a comment names the last one"
        );
        assert!(!may_not("/srv/holdfast/b"));
        std::fs::create_dir(units.path().join("holdfast.service.d")).unwrap();
        let drop_in = units.path().join("holdfast.service.d/override.conf");
        std::fs::write(drop_in, "[Service]\nReadWritePaths=/mnt/a -/mnt/b\n").unwrap();
        assert!(!may_not("/mnt/b") && !may_not("/mnt/b/holdfast") && may_not("/mnt/c"));
    }

    #[test]
    fn an_annex_shares_no_directory_with_anything_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let settings = StoreSettings {
            vaults: vec![VaultSetting::new(at("vault").to_str().unwrap()), VaultSetting::new("azure://a/b")],
            staging: vec![AnnexSetting { path: at("annex"), id: AnnexId([1; 16]), leaving: false }],
            ..StoreSettings::default()
        };
        for name in ["store", "store/pack", "vault", "vault/x", "annex/x", ""] {
            let refused = refuse_overlap(&at("store"), &settings, &at(name));
            assert!(refused.is_err(), "{name:?}");
        }
        for name in ["annex", "annex2", "other"] {
            refuse_overlap(&at("store"), &settings, &at(name)).unwrap();
        }
    }
}
