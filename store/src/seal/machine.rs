//! The machine key file: what lets a backup run without a person (`docs/format.md`, section 6).
//!
//! One line of text in a file that only its owner may read, outside the store. Where such files lie is the caller's.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use super::slots::Secret;
use crate::error::StoreError;
use crate::id::{VaultId, to_hex};

/// First word of the line.
const INTRODUCTION: &str = "holdfast-machine-key-1";
/// The line and its end are 121 bytes; a file of more than this is something else.
const FILE_MAX: u64 = 256;

/// A machine key and the store that it is for. Wiped when dropped.
#[derive(PartialEq, Eq)]
pub struct MachineKey {
    /// The store.
    pub vault: VaultId,
    /// The secret of its machine slot.
    pub key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MachineKey(vault {})", self.vault)
    }
}

impl MachineKey {
    /// As what opens a slot.
    pub fn secret(&self) -> Secret {
        Secret::Machine(self.key.clone())
    }

    /// The file of a store's machine key in `directory`.
    pub fn path_in(directory: &Path, vault: &VaultId) -> PathBuf {
        directory.join(format!("{vault}.key"))
    }

    /// The line, with its end.
    pub fn encode(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(to_hex(&*self.key));
        Zeroizing::new(format!("{INTRODUCTION} {} {}\n", self.vault, *key))
    }

    /// Reads the line; blanks around it and between its words do not matter. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some(INTRODUCTION) {
            return Err(format!("it does not begin with {INTRODUCTION}"));
        }
        let vault =
            words.next().and_then(VaultId::from_hex).ok_or("the vault id is not 32 hexadecimal digits")?;
        let mut key = Zeroizing::new([0; 32]);
        decode_hex(words.next().unwrap_or_default(), &mut key)
            .ok_or("the key is not 64 hexadecimal digits")?;
        match words.next() {
            None => Ok(Self { vault, key }),
            Some(_) => Err("there is more than one line in it".into()),
        }
    }

    /// Writes a new file into `directory`, readable by its owner alone, and makes it durable. Returns its path.
    ///
    /// # Errors
    /// `AlreadyExists` (as `Io`) when there is a key of this store; nothing is ever overwritten.
    pub fn create_in(&self, directory: &Path) -> Result<PathBuf, StoreError> {
        let path = Self::path_in(directory, &self.vault);
        self.create_at(&path)?;
        Ok(path)
    }

    /// The same at a path of the caller's choice.
    pub fn create_at(&self, path: &Path) -> Result<(), StoreError> {
        create_private(path, self.encode().as_bytes())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// `Invalid` when others than its owner may read or write it, `Corrupt` when it is not a machine key, `Io`.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        Self::read_open(open_private(path, "the machine key")?, path)
    }

    /// Reads what the service manager decrypted for this process: in a directory of its own, which no other user can enter. The mode of the
    /// file tells nothing there, for rights are given by an access list.
    ///
    /// # Errors
    /// `Corrupt` when it is not a machine key, `Io`.
    pub fn read_credential(path: &Path) -> Result<Self, StoreError> {
        Self::read_open(open(path)?, path)
    }

    fn read_open(file: File, path: &Path) -> Result<Self, StoreError> {
        let named = |detail| StoreError::corrupt(format!("machine key {}", path.display()), detail);
        Self::parse(&read_text(file, path, FILE_MAX)?.map_err(named)?).map_err(named)
    }
}

/// Writes a new file that its owner alone may read, and makes it durable. Half a key would be worse than none, and stand in the way of the next
/// attempt: it has another name until it is whole.
pub(super) fn create_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut half = path.as_os_str().to_owned();
    half.push(".half");
    let half = PathBuf::from(half);
    match std::fs::remove_file(&half) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove", &half)(e));
        }
        _ => {}
    }
    let write = |path: &Path| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes).and_then(|()| file.sync_all())
    };
    // A link is refused where there is a file, as a rename would not be.
    let named = write(&half).and_then(|()| std::fs::hard_link(&half, path));
    let _ignored = std::fs::remove_file(&half);
    match named {
        // Not every file system has links.
        Err(e)
            if e.raw_os_error().is_some_and(|e| [nix::libc::EPERM, nix::libc::EOPNOTSUPP].contains(&e)) =>
        {
            write(path).map_err(|e| {
                let _ignored = std::fs::remove_file(path);
                StoreError::io("write", path)(e)
            })?;
        }
        named => named.map_err(StoreError::io("create", path))?,
    }
    sync_directory_of(path)
}

/// Opens a file to read. A pipe in its place would wait for a writer, and has nothing.
fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(StoreError::io("open", path))
}

/// Makes it durable that a file is there under its name.
pub(super) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|d| d.sync_all()).map_err(StoreError::io("sync", directory))
}

/// Opens a file that nobody but its owner may read or write; `what` it is, for people.
pub(super) fn open_private(path: &Path, what: &str) -> Result<File, StoreError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(StoreError::io("examine", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let shown = path.display();
        return Err(StoreError::invalid(format!(
            "{what} {shown} is open to others (mode {mode:04o}); close it with: chmod 600 {shown}"
        )));
    }
    Ok(file)
}

/// Its text, of `max` bytes at most; or what is wrong with it. Wiped when dropped.
pub(super) fn read_text(
    file: File,
    path: &Path,
    max: u64,
) -> Result<Result<Zeroizing<String>, String>, StoreError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(max as usize + 1));
    file.take(max + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    Ok(match std::str::from_utf8(&bytes) {
        Ok(_) if bytes.len() as u64 > max => Err("it is too long".into()),
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("it is not text".into()),
    })
}

/// Lower-case hexadecimal into `key`, with what lies in between wiped.
pub(super) fn decode_hex(text: &str, key: &mut [u8; 32]) -> Option<()> {
    let mut bytes = crate::id::from_hex(text)?;
    let fits = bytes.len() == key.len();
    if fits {
        key.copy_from_slice(&bytes);
    }
    bytes.zeroize();
    fits.then_some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::ErrorClass;

    fn sample() -> MachineKey {
        MachineKey { vault: VaultId([7; 16]), key: Zeroizing::new([0xab; 32]) }
    }

    fn line() -> String {
        format!("holdfast-machine-key-1 {} {}\n", "07".repeat(16), "ab".repeat(32))
    }

    #[test]
    fn the_line_is_as_documented_and_survives_a_round_trip() {
        assert_eq!(*sample().encode(), line());
        assert_eq!(MachineKey::parse(&line()).unwrap(), sample());
        assert_eq!(MachineKey::parse(&format!("  {}  ", line().trim())).unwrap(), sample());
    }

    #[test]
    fn lines_against_the_rules_are_refused_with_a_reason() {
        let good = line();
        let cases = [
            (String::new(), "begin"),
            (good.replace("-1 ", "-2 "), "begin"),
            (good.replace("07", "0"), "vault id"),
            (good.replace("abab", "ABAB"), "the key"),
            (good.trim_end().trim_end_matches('b').to_owned(), "the key"),
            (format!("{good}{good}"), "more than one"),
        ];
        for (text, why) in cases {
            let error = MachineKey::parse(&text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_written_key_is_for_its_owner_alone_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample().create_in(dir.path()).unwrap();
        assert_eq!(path, MachineKey::path_in(dir.path(), &sample().vault));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(MachineKey::read(&path).unwrap(), sample());
        let other = MachineKey { key: Zeroizing::new([1; 32]), ..sample() };
        assert_eq!(other.create_in(dir.path()).unwrap_err().class(), ErrorClass::AlreadyThere);
        assert_eq!(MachineKey::read(&path).unwrap(), sample());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample().create_in(dir.path()).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = MachineKey::read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert!(MachineKey::read(&path).is_ok());
    }

    #[test]
    fn a_file_that_is_no_key_or_is_missing_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.key");
        assert_eq!(MachineKey::read(&path).unwrap_err().class(), ErrorClass::NotFound);
        for bytes in [b"".to_vec(), vec![0xff; 10], vec![b' '; 10_000], vec![b'x'; 200]] {
            std::fs::write(&path, &bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(
                MachineKey::read(&path).unwrap_err().class(),
                ErrorClass::Corrupt,
                "{} bytes",
                bytes.len()
            );
        }
    }

    #[test]
    fn a_printed_key_shows_no_secret() {
        assert!(!format!("{:?}", sample()).contains("ab"));
    }
}
