//! The writer file: this machine's key to sign with, and what the owner said of it (`docs/format.md`, section 14).
//!
//! One line of text in a file that only its owner may read, beside the machine key and outside the store. The owner who stands in it is the one
//! that this machine believes: no vault and no other machine can change that.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::machine::{create_private, decode_hex, open_private, read_text, sync_directory_of};
use super::writer::{ADMISSION_MAX, Admission, SEED_LEN, WriterKey};
use crate::error::StoreError;
use crate::id::{VaultId, from_hex, to_hex};

/// First word of the line.
const INTRODUCTION: &str = "holdfast-writer-1";
/// Longest line that is read.
const FILE_MAX: u64 = 2 * ADMISSION_MAX as u64 + 256;

/// The file of a store's writer key in `directory`.
pub fn path_in(directory: &Path, vault: &VaultId) -> PathBuf {
    directory.join(format!("{vault}.writer"))
}

/// Puts a writer key into `directory`, in the place of the one before if there is one, and makes it durable. Returns its path.
pub fn save_in(directory: &Path, writer: &WriterKey) -> Result<PathBuf, StoreError> {
    let path = path_in(directory, writer.vault());
    let new = directory.join(format!("{}.writer.new", writer.vault()));
    // Of a run that was cut off.
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(StoreError::io("remove", &new)(e)),
        _ => {}
    }
    create_private(&new, encode(writer).as_bytes())?;
    std::fs::rename(&new, &path).map_err(StoreError::io("rename", &new))?;
    sync_directory_of(&path)?;
    Ok(path)
}

/// The writer key of a store in `directory`, if there is one.
///
/// # Errors
/// `Invalid` when others than its owner may read or write it, `Corrupt` when it is none of this store, `Io`.
pub fn read_in(directory: &Path, vault: &VaultId) -> Result<Option<WriterKey>, StoreError> {
    let path = path_in(directory, vault);
    if !path.try_exists().map_err(StoreError::io("look for", &path))? {
        return Ok(None);
    }
    let named = |detail: String| StoreError::corrupt(format!("writer key {}", path.display()), detail);
    let text = read_text(open_private(&path, "the writer key")?, &path, FILE_MAX)?.map_err(named)?;
    let writer = parse(&text).map_err(named)?;
    match writer.vault() == vault {
        true => Ok(Some(writer)),
        false => Err(named(format!("it is of store {}", writer.vault()))),
    }
}

fn encode(writer: &WriterKey) -> Zeroizing<String> {
    let seed = Zeroizing::new(to_hex(writer.seed()));
    let admission = to_hex(writer.encoded());
    Zeroizing::new(format!("{INTRODUCTION} {} {} {admission}\n", writer.vault(), *seed))
}

fn parse(text: &str) -> Result<WriterKey, String> {
    let mut words = text.split_ascii_whitespace();
    if words.next() != Some(INTRODUCTION) {
        return Err(format!("it does not begin with {INTRODUCTION}"));
    }
    let vault =
        words.next().and_then(VaultId::from_hex).ok_or("the vault id is not 32 hexadecimal digits")?;
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    decode_hex(words.next().unwrap_or_default(), &mut seed).ok_or("the key is not 64 hexadecimal digits")?;
    let admission = words.next().and_then(from_hex).ok_or("the admission is not hexadecimal digits")?;
    if words.next().is_some() {
        return Err("there is more than one line in it".into());
    }
    let admission = Admission::decode(&admission).map_err(|e| e.to_string())?;
    WriterKey::new(vault, seed, admission).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::ErrorClass;
    use crate::seal::writer::OwnerKey;

    const VAULT: VaultId = VaultId([7; 16]);

    fn writer(machine: &str) -> WriterKey {
        OwnerKey::from_seed([1; 32]).admit(&VAULT, machine, &[machine.into()], 5)
    }

    #[test]
    fn a_written_key_is_for_its_owner_alone_and_the_next_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_in(dir.path(), &VAULT).unwrap(), None);
        // What a run left that was cut off.
        std::fs::write(dir.path().join(format!("{VAULT}.writer.new")), "half").unwrap();
        for writer in [writer("a"), writer("b")] {
            let path = save_in(dir.path(), &writer).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(read_in(dir.path(), &VAULT).unwrap().unwrap(), writer);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let path = path_in(dir.path(), &VAULT);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_in(dir.path(), &VAULT).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_looked_for_is_none_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        // Also for who may look everywhere.
        let error = read_in(&file, &VAULT).unwrap_err().to_string();
        assert!(error.contains(".writer"), "{error}");
    }

    #[test]
    fn lines_against_the_rules_are_refused_with_a_reason() {
        let (good, other) = (encode(&writer("a")), encode(&writer("b")));
        let [good_words, other_words] = [&good, &other].map(|text| text.split(' ').collect::<Vec<_>>());
        let cases = [
            (String::new(), "begin"),
            (good.replace("-1 ", "-2 "), "begin"),
            (good.replace(&"07".repeat(16), "07"), "vault id"),
            (good.replace(&"07".repeat(16), &"08".repeat(16)), "not of this key"),
            (good.replace(good_words[2], &good_words[2][2..]), "the key"),
            (good.replace(good_words[2], other_words[2]), "not of this key"),
            (good.replace(good_words[3], "xy"), "the admission"),
            (good.replace(good_words[3], "01"), ""),
            (format!("{}{}", *good, *other), "more than one"),
        ];
        for (text, why) in cases {
            let error = parse(&text).map(drop).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        assert_eq!(parse(&good).unwrap(), writer_of(&good));
        let dir = tempfile::tempdir().unwrap();
        for bytes in [b"".to_vec(), vec![0xff; 10], vec![b' '; 40_000]] {
            let path = path_in(dir.path(), &VAULT);
            let _ = std::fs::remove_file(&path);
            create_private(&path, &bytes).unwrap();
            assert_eq!(read_in(dir.path(), &VAULT).unwrap_err().class(), ErrorClass::Corrupt);
        }
    }

    fn writer_of(line: &str) -> WriterKey {
        let dir = tempfile::tempdir().unwrap();
        create_private(&path_in(dir.path(), &VAULT), line.as_bytes()).unwrap();
        read_in(dir.path(), &VAULT).unwrap().unwrap()
    }
}
