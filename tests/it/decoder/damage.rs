//! The decoder verifies: every flipped byte of every object of the golden store is refused, also where the name of the
//! object was made to fit, and so is every object that is missing, exchanged or cut short.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::fields::{Read, Refused, from_hex, must};
use super::golden::{copy_objects, golden, machine_key};
use super::pack::{Index, Pack};
use super::point::Point;
use super::seal::Ring;
use super::slot::{Config, Secret, Slot};
use super::store::{Store, open_ring};

static RING: LazyLock<Ring> = LazyLock::new(|| open_ring(&golden().join("store"), &machine_key()).unwrap());
const IDENTITY: u32 = 1;

/// The objects of the golden store whose names begin with `part`, with their names.
fn objects(part: &str) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut left) = (Vec::new(), vec![golden().join("store").join(part)]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            found.push((name, fs::read(&path).unwrap()));
        }
    }
    assert!(!found.is_empty());
    found
}

fn renamed(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

fn read_pack(bytes: &[u8]) -> Read<()> {
    Pack::read(renamed(bytes), bytes, &RING, IDENTITY).map(drop)
}

/// Flips one bit of each byte, another from byte to byte, and wants each refused.
fn refuses_each_flip(bytes: &[u8], read: impl Fn(&[u8]) -> Read<()>) {
    read(bytes).unwrap();
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        assert!(read(&bytes).is_err(), "byte {at}");
        bytes[at] ^= 1 << (at % 8);
    }
}

#[test]
fn each_flipped_byte_of_a_pack_is_refused() {
    for (name, bytes) in objects("pack") {
        let name: [u8; 32] = from_hex(&name).unwrap().try_into().unwrap();
        refuses_each_flip(&bytes, |bytes| Pack::read(name, bytes, &RING, IDENTITY).map(drop));
    }
}

#[test]
fn each_flipped_byte_of_a_pack_is_refused_by_what_is_in_it() {
    for (_, bytes) in objects("pack") {
        refuses_each_flip(&bytes, read_pack);
    }
}

#[test]
fn each_flipped_byte_of_an_index_is_refused_by_what_is_in_it() {
    for (_, bytes) in objects("idx") {
        refuses_each_flip(&bytes, |bytes| Index::read(renamed(bytes), bytes, &RING).map(drop));
    }
}

#[test]
fn each_flipped_byte_of_a_recovery_point_is_refused() {
    let store = Store::read(&golden().join("store"), &machine_key()).unwrap();
    for point in &store.points {
        let path = golden()
            .join("store/rp")
            .join(super::fields::hex(&point.tag))
            .join(super::fields::hex(&point.id));
        let read = |bytes: &[u8]| Point::read(point.tag, point.id, bytes, &RING, IDENTITY).map(drop);
        refuses_each_flip(&fs::read(path).unwrap(), read);
    }
}

#[test]
fn each_flipped_byte_of_config_and_slots_is_refused() {
    let config = fs::read(golden().join("store/config")).unwrap();
    refuses_each_flip(&config, |bytes| Config::read(bytes, &RING).map(drop));
    let words = Secret::Words(fs::read_to_string(golden().join("words.txt")).unwrap());
    let secrets = [words, machine_key()];
    let slots = objects("keys");
    assert_eq!(slots.len(), 3);
    for (_, bytes) in &slots {
        // A wrong commitment is no damage, so the CRC must find what was flipped before it.
        refuses_each_flip(&bytes[..180], |bytes| Slot::read(bytes).map(drop));
        let opens = |secret: &&Secret| Slot::read(bytes).unwrap().open(secret).unwrap().is_some();
        let Some(secret) = secrets.iter().find(opens) else { continue };
        let read = |bytes: &[u8]| match Slot::read(bytes)?.open(secret)? {
            Some(_) => Ok(()),
            None => Err(Refused::new("not opened")),
        };
        refuses_each_flip(bytes, read);
    }
}

/// The header with a byte changed and its CRC made to fit.
fn with_header_byte(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_changed_field_of_a_header_is_refused_even_with_the_right_crc() {
    let (_, pack) = objects("pack").remove(0);
    let reserved = |at: &usize| *at == 11 || (52..60).contains(at);
    for at in (0..60).filter(|at| !reserved(at)) {
        assert!(read_pack(&with_header_byte(&pack, at)).is_err(), "byte {at}");
    }
    for at in (0..60).filter(reserved) {
        read_pack(&with_header_byte(&pack, at)).unwrap();
    }
}

#[test]
fn a_shortened_or_lengthened_object_is_refused() {
    for (_, bytes) in objects("pack") {
        for len in [0, 1, 63, 64, 128, 191, 192, bytes.len() - 128, bytes.len() - 64, bytes.len() - 1] {
            assert!(read_pack(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(read_pack(&[&bytes[..], &[0; 64]].concat()).is_err());
    }
    for (_, bytes) in objects("idx") {
        for len in [0, 63, 64, 128, 191, 192, bytes.len() - 128, bytes.len() - 1] {
            assert!(Index::read(renamed(&bytes[..len]), &bytes[..len], &RING).is_err(), "{len} bytes");
        }
    }
}

/// A copy of the golden store after `harm`, read.
fn read_after(harm: impl FnOnce(&Path)) -> Read<()> {
    let dir = tempfile::tempdir().unwrap();
    copy_objects(&golden().join("store"), dir.path());
    harm(dir.path());
    let mut store = Store::read(dir.path(), &machine_key())?;
    let points = std::mem::take(&mut store.points);
    must(!points.is_empty(), "there are points")?;
    points.into_iter().try_for_each(|point| store.listing(point).map(drop))
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_lost_pack_is_noticed_and_a_lost_index_can_be_done_without() {
    let packs = objects("pack");
    for (name, _) in &packs {
        let lose = |dir: &Path| fs::remove_file(dir.join("pack").join(&name[..2]).join(name)).unwrap();
        let refused = read_after(lose).unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
        let lose_all = |dir: &Path| {
            lose(dir);
            fs::remove_dir_all(dir.join("idx")).unwrap();
        };
        assert!(read_after(lose_all).is_err(), "points too say which packs and chunks there are");
    }
    read_after(|dir| fs::remove_dir_all(dir.join("idx")).unwrap()).unwrap();
}

#[test]
fn exchanged_objects_are_refused() {
    let exchange = |dir: PathBuf| {
        let files = files_in(&dir);
        assert!(files.len() > 1);
        let bytes = fs::read(&files[0]).unwrap();
        fs::rename(&files[1], &files[0]).unwrap();
        fs::write(&files[1], bytes).unwrap();
    };
    assert!(read_after(|dir| exchange(dir.join("keys"))).is_err());
    assert!(read_after(|dir| exchange(dir.join("idx"))).is_err());
    assert!(read_after(|dir| exchange(files_in(&dir.join("rp")).remove(0))).is_err());
    read_after(|_| {}).unwrap();
}
