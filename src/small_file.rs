//! Small files in the store's directory that are the program's and no part of a store: JSON, replaced as a whole by one process at a time. That one
//! is lost or cannot be read costs no data.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::outcome::Failure;

/// A file of more bytes is something else.
pub const FILE_MAX: u64 = 256 << 10;

/// One of them.
pub struct SmallFile {
    /// Its name.
    pub name: &'static str,
    /// That of the file which is locked while it is replaced.
    pub lock: &'static str,
}

impl SmallFile {
    /// What is in it; nothing if it is not there or cannot be read.
    pub fn load<T: DeserializeOwned>(&self, store: &Path) -> Option<T> {
        let mut bytes = Vec::new();
        // A pipe in its place would wait for a writer.
        let flags = OFlag::O_NONBLOCK.bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(store.join(self.name)).ok()?;
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= FILE_MAX).then(|| serde_json::from_slice(&bytes).ok())?
    }

    /// Changes what is in it, beginning with the default where there is nothing.
    ///
    /// # Errors
    /// What `f` says, nothing being changed then, and what the disk says.
    pub fn change<T: DeserializeOwned + Serialize + Default>(
        &self,
        store: &Path,
        f: impl FnOnce(&mut T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io("write", &store.join(self.name), &error);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // Whoever may write there could have it lead elsewhere, or wait for ever.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let lock = options.custom_flags(flags.bits()).open(store.join(self.lock)).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut value = self.load(store).unwrap_or_default();
        f(&mut value)?;
        let text = serde_json::to_vec_pretty(&value).map_err(|e| Failure::failed(e.to_string()))?;
        self.replace(store, &text).map_err(failed)
    }

    fn replace(&self, store: &Path, text: &[u8]) -> std::io::Result<()> {
        let (path, temp) = (store.join(self.name), store.join(format!("{}.new", self.name)));
        // Whatever lies there is of a run that was cut off.
        match std::fs::remove_file(&temp) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&temp, &path)?;
        File::open(store)?.sync_all()
    }
}
