//! `holdfast init`: a new store, its keys, its vaults, and the page that can bring all of it back.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use crate::create::{NewStore, hand_out, make_store};
use crate::outcome::{Done, Failure, Outcome};
use crate::places::on_same_disk;

/// Make a new store and its recovery sheet
///
/// Makes a store in the directory of --store, secured by a passphrase, and prints the recovery sheet: the page with 24
/// words that opens the store when passphrase and machine are lost. Print it; it is shown once. This machine gets a key
/// of its own outside the store (mode 0600), so that unattended backups ask for nothing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast init --store /srv/holdfast
  holdfast init --vault azure://ACCOUNT/NAME --sheet sheet.txt
  holdfast init --vault file:///mnt/usb/vault --no-machine-key")]
pub struct InitArgs {
    /// A vault that keeps copies far away; may be repeated
    #[arg(long = "vault", value_name = "URL")]
    vaults: Vec<String>,
    /// Write the recovery sheet to a new file instead of the terminal
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Make no key for this machine
    #[arg(long)]
    no_machine_key: bool,
}

/// Makes it. The file of the sheet is opened first, and written before a vault is asked for anything: a store whose sheet nobody
/// has would be worth less.
pub fn run(context: &Context<'_>, args: &InitArgs) -> Outcome {
    let path = context.settings.store()?;
    let file = args.sheet.as_deref().map(SheetFile::create).transpose()?;
    let passphrase = context.settings.secrets.new_passphrase(context.terminal)?;
    let new = NewStore {
        dir: path,
        passphrase: Some(&passphrase),
        machine_key: !args.no_machine_key,
        vaults: &args.vaults,
    };
    let made = make_store(context, &new)?;
    let told = match file.map(|file| file.write(&made.sheet.render())) {
        None => Ok(hand_out(context.terminal, &made, path, None)?),
        // Nobody may be listening; the sheet is safe, and the vaults are wanted.
        Some(Ok(())) => hand_out(context.terminal, &made, path, args.sheet.as_deref()),
        Some(Err(failure)) => {
            // The store is there and its sheet is in no file: the terminal is what is left.
            hand_out(context.terminal, &made, path, None)?;
            return Err(failure);
        }
    };
    made.add_vaults(context, path)?;
    made.vaults
        .iter()
        .filter_map(|vault| on_same_disk(path, vault))
        .for_each(|told| context.terminal.warn(&told));
    told.map(|()| Done::Whole)
}

/// A new file for the recovery sheet, which goes again unless the sheet was written to it.
struct SheetFile<'a> {
    path: &'a Path,
    file: File,
    written: bool,
}

impl<'a> SheetFile<'a> {
    /// An empty file that only its owner can read is what a run left that was killed before it had a sheet, and is taken.
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let left = std::fs::symlink_metadata(path).is_ok_and(|meta| {
            meta.is_file() && meta.len() == 0 && meta.permissions().mode() & 0o777 == 0o600
        });
        let mut options = OpenOptions::new();
        options.write(true).create_new(!left).mode(0o600).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits());
        let file =
            options.open(path).map_err(|error| Failure::io("create the recovery sheet", path, &error))?;
        Ok(Self { path, file, written: false })
    }

    fn write(mut self, page: &str) -> Result<(), Failure> {
        let written = self.file.write_all(page.as_bytes()).and_then(|()| self.file.sync_all());
        let written = written.and_then(|()| sync_directory_of(self.path));
        self.written = written.is_ok();
        written.map_err(|error| Failure::io("write the recovery sheet to", self.path, &error))
    }
}

fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A directory that cannot be opened or synced was no reason to refuse the file in it.
    File::open(dir).and_then(|dir| dir.sync_all()).or(Ok(()))
}

impl Drop for SheetFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            // An empty page is only in the way of the next try; that it stays is no reason to say more.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_sheet_is_for_its_owner_and_never_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet.txt");
        let file = SheetFile::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        file.write("words").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"words");
        let failure = SheetFile::create(&path).err().unwrap();
        assert!(failure.message.contains("exists"), "{failure:?}");
    }

    #[test]
    fn the_empty_file_of_a_run_that_was_killed_is_taken_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("sheet.txt"), dir.path().join("link"));
        std::mem::forget(SheetFile::create(&path).unwrap());
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(SheetFile::create(&link).is_err());
        SheetFile::create(&path).unwrap().write("words").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"words");
        let shared = dir.path().join("shared");
        std::fs::write(&shared, "").unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(SheetFile::create(&shared).is_err(), "others could read it");
    }

    #[test]
    fn a_sheet_that_was_never_written_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet.txt");
        drop(SheetFile::create(&path).unwrap());
        assert!(!path.exists());
    }
}
