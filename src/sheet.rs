//! The file of a recovery sheet: text, or a page to print with a square code on it. It is opened before a key is made, and goes again
//! unless the sheet was written to it.

mod page;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use holdfast_store::seal::sheet::RecoverySheet;
use zeroize::Zeroizing;

use crate::outcome::Failure;

/// A new file for the recovery sheet.
pub struct SheetFile<'a> {
    path: &'a Path,
    file: File,
    written: bool,
}

impl<'a> SheetFile<'a> {
    /// An empty file that only its owner can read is what a run left that was killed before it had a sheet, and is taken.
    pub fn create(path: &'a Path) -> Result<Self, Failure> {
        let left = std::fs::symlink_metadata(path).is_ok_and(|meta| {
            meta.is_file() && meta.len() == 0 && meta.permissions().mode() & 0o777 == 0o600
        });
        let mut options = OpenOptions::new();
        options.write(true).create_new(!left).mode(0o600).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits());
        let file = options.open(path).map_err(|error| {
            let failure = Failure::io("create the recovery sheet", path, &error);
            match error.kind() {
                ErrorKind::AlreadyExists => failure.hint(
                    "name another file; if this is the sheet of a run that was cut off, `holdfast key verify` with its words tells \
                     whether they open anything: then give them, and no --sheet",
                ),
                _ => failure,
            }
        })?;
        Ok(Self { path, file, written: false })
    }

    /// Where it is.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Writes the sheet, as a page to print if the file's name ends with `.pdf`, and makes it durable.
    pub fn write(mut self, sheet: &RecoverySheet) -> Result<(), Failure> {
        let bytes = if is_pdf(self.path) { page::pdf(sheet)? } else { text(sheet) };
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_all());
        let written = written.and_then(|()| sync_directory_of(self.path));
        self.written = written.is_ok();
        written.map_err(|error| Failure::io("write the recovery sheet to", self.path, &error))
    }
}

impl Drop for SheetFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            // An empty page is only in the way of the next try; that it stays is no reason to say more.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn is_pdf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pdf"))
}

fn text(sheet: &RecoverySheet) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(sheet.render().as_bytes().to_vec())
}

fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A directory that cannot be opened or synced was no reason to refuse the file in it.
    File::open(dir).and_then(|dir| dir.sync_all()).or(Ok(()))
}

#[cfg(test)]
mod tests;
