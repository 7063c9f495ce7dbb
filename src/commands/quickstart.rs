//! `holdfast quickstart`: everything once, so that the first recovery happens in the first minute.

use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_store::format::config::ChunkerKind;

use super::mount::{MountArgs, in_background};
use super::{Context, backup};
use crate::create::{NewStore, hand_out_in, make_private_dir, make_store};
use crate::open::open_store;
use crate::outcome::{Failure, Outcome};
use crate::sheet::SheetFile;

/// Try everything at once: store, vault, recovery point, mount
///
/// Makes a store and a vault in your data directory (the vault is a directory here; a real one is elsewhere), takes a
/// recovery point of DIR, puts it into the vault, mounts all points and prints where to `cd`. Run again, it takes another
/// point. The store is opened by this machine's key and by the words on the recovery sheet, which it prints; `holdfast key add`
/// adds a passphrase.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast quickstart ~/Documents
  holdfast quickstart ~/Documents --store /tmp/try/store --mount /tmp/try/recovery")]
pub struct QuickstartArgs {
    /// What to protect
    dir: PathBuf,
    /// Where to mount; by default `recovery` beside the store
    #[arg(long, value_name = "MNT")]
    mount: Option<PathBuf>,
    /// The vault; by default `vault` beside the store
    #[arg(long, value_name = "URL")]
    vault: Option<String>,
    /// Write the recovery sheet to a new file instead of the terminal: a page with a QR code if its name ends with .pdf, else text
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
}

/// Where a trial puts things.
#[derive(Debug, PartialEq, Eq)]
pub struct Places {
    /// The store.
    pub store: PathBuf,
    /// The vault's address.
    pub vault: String,
    /// The mount point.
    pub mount: PathBuf,
}

fn places(store: PathBuf, args: &QuickstartArgs) -> Places {
    let beside = |name: &str| store.with_file_name(name);
    Places {
        vault: args.vault.clone().unwrap_or_else(|| beside("vault").display().to_string()),
        mount: args.mount.clone().unwrap_or_else(|| beside("recovery")),
        store,
    }
}

/// Does it all.
pub fn run(context: &Context<'_>, args: &QuickstartArgs) -> Outcome {
    if !args.dir.is_dir() {
        return Err(Failure::failed(format!("{} is no directory", args.dir.display())));
    }
    let store = context.settings.named_store().map(Path::to_path_buf);
    let store = store.or_else(|| context.settings.data_dir.as_ref().map(|dir| dir.join("store")));
    let store = store.map_or_else(|| context.settings.store().map(Path::to_path_buf), Ok)?;
    let store = std::path::absolute(&store).map_err(|error| Failure::io("find", &store, &error))?;
    let places = places(store, args);
    let new = !places.store.join("config").exists();
    let here = context.at_store(places.store.clone());
    if new {
        make(&here, &places, args.sheet.as_deref())?;
    }
    let store = open_store(&here)?;
    let done = backup::usual(&here, &store, &args.dir)?;
    mount_if_not_mounted(&here, &places)?;
    if new {
        next_steps(&here, &places)?;
    }
    Ok(done)
}

fn make(context: &Context<'_>, places: &Places, sheet: Option<&Path>) -> Result<(), Failure> {
    let above = places.store.parent().unwrap_or(&places.store);
    make_private_dir(above)?;
    let file = sheet.map(SheetFile::create).transpose()?;
    let vaults = [places.vault.clone()];
    let new = NewStore {
        dir: &places.store,
        passphrase: None,
        machine_key: true,
        vaults: &vaults,
        chunker: ChunkerKind::FastCdc,
    };
    let made = make_store(context, &new)?;
    hand_out_in(context.terminal, &made, &places.store, file)??;
    context.terminal.say(&format!("vault {}", made.vaults.join(", ")))?;
    if places.vault.starts_with('/') {
        let note =
            "      a vault on the same disk is lost with it: `holdfast vault add` takes one elsewhere\n";
        context.terminal.say(note)?;
    }
    made.add_vaults(context, &places.store)
}

fn mount_if_not_mounted(context: &Context<'_>, places: &Places) -> Result<(), Failure> {
    if is_mounted(&places.mount) {
        return context
            .terminal
            .say(&format!("mounted at {}; the new point is there", places.mount.display()));
    }
    // A mount whose process died is in the way of `exists` as well, and is replaced by mounting.
    if std::fs::symlink_metadata(&places.mount).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        make_private_dir(&places.mount)?;
    }
    in_background(context, &MountArgs::at(places.mount.clone())).map(drop)
}

/// Whether a living mount is there.
fn is_mounted(place: &Path) -> bool {
    place.join("by-id").is_dir()
}

fn next_steps(context: &Context<'_>, places: &Places) -> Result<(), Failure> {
    let (mount, store) = (places.mount.display(), places.store.display());
    context.terminal.say(&format!(
        "\nLook at what was saved, and copy out of it with cp:\n    ls {mount}/by-group/default/*/latest/\n\
         Go on:\n    holdfast --store {store} snapshots\n    holdfast --store {store} backup DIR --online\n    \
         holdfast umount {mount}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_stands_beside_the_store() {
        let args = QuickstartArgs { dir: "/d".into(), mount: None, vault: None, sheet: None };
        let places = places("/tmp/try/store".into(), &args);
        assert_eq!(places.mount, Path::new("/tmp/try/recovery"));
        assert_eq!(places.vault, "/tmp/try/vault");
    }
}
