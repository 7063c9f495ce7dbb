//! Tests of proving a place without a key: what is right is counted, what is wrong is named, and what no key-less look can tell is
//! not claimed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::ManualClock;
use crate::fence::{Step, generation_id};
use crate::format::config::StoreConfig;
use crate::format::{HEADER_LEN, Header, ObjectKind};
use crate::id::{Attempt, IndexId, ObjectId, PackId, RecoveryPointId, SourceTag, VaultId};
use crate::monitor::{RecordingMonitor, VoidMonitor};
use crate::names;
use crate::seal::Sealer;
use crate::seal::keys::KeyRing;
use crate::seal::slots::{KdfParams, KeySlot, Secret};
use crate::transfer::TransferPolicy;
use crate::vault::directory::DirectoryVault;
use crate::vault::memory::MemoryVault;
use crate::vault::testing::{Fault, FaultyVault};
use crate::vault::{Vault, Verb};

const VAULT: VaultId = VaultId([7; 16]);
/// Longer than what is asked for at once, and not a multiple of a request.
const LONG: usize = (20 << 20) + 4096 + 64;

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut out);
    out
}

fn object(kind: ObjectKind, id: ObjectId, sealed: usize) -> Vec<u8> {
    let mut bytes = Header { kind, object_id: id, generation: 1 }.encode(&VAULT).to_vec();
    bytes.extend(noise(&format!("{kind:?}{id}"), sealed));
    bytes
}

fn pack(n: u8, len: usize) -> (Named, Vec<u8>) {
    let bytes = object(ObjectKind::Pack, ObjectId([n; 16]), len - HEADER_LEN);
    (Named::Pack(PackId(*blake3::hash(&bytes).as_bytes())), bytes)
}

/// One object of each kind, and two of those that could be taken for each other.
fn objects() -> Vec<(Named, Vec<u8>)> {
    let ring = KeyRing::generate(0);
    let config = StoreConfig::new(VAULT, 0).encode(&Sealer::new(VAULT, &ring, 1).unwrap()).unwrap();
    let slot = || {
        let secret = Secret::new_recovery();
        let bytes = KeySlot::create(&VAULT, &ring, &secret, "x", &KdfParams::floor(), 0).unwrap();
        (Named::Slot(KeySlot::read(&bytes, &VAULT).unwrap().id), bytes)
    };
    let index = object(ObjectKind::Index, ObjectId([9; 16]), 640);
    let attempt = |n: u8| Attempt::first(RecoveryPointId([n; 16]));
    let (id, tag) = (|n: u8| ObjectId([n; 16]), SourceTag([5; 16]));
    let generation = |step| object(ObjectKind::Generation, generation_id(3, step), 128);
    vec![
        (Named::Config, config),
        slot(),
        slot(),
        pack(1, 4096),
        pack(2, LONG),
        (Named::Index(IndexId(*blake3::hash(&index).as_bytes())), index),
        (Named::Point(tag, attempt(1)), object(ObjectKind::Point, id(1), 256)),
        (Named::Point(tag, attempt(2)), object(ObjectKind::Revocation, id(2), 128)),
        (Named::Session(attempt(1)), object(ObjectKind::Session, id(1), 128)),
        (Named::Hold(tag, attempt(1).point), object(ObjectKind::Hold, id(1), 128)),
        (Named::Condemned(3), generation(Step::Condemned)),
        (Named::Final(3), generation(Step::Final)),
        (Named::Heartbeat(attempt(1), 4), Vec::new()),
    ]
}

struct Place {
    memory: Arc<MemoryVault>,
    faulty: Arc<FaultyVault>,
    clock: Arc<dyn Clock>,
    transfer: Arc<Transfer>,
    objects: Vec<(Named, Vec<u8>)>,
}

fn place() -> Place {
    let clock = ManualClock::at(crate::clock::Timestamp::from_seconds(1000));
    let memory = Arc::new(MemoryVault::with_page_len(3));
    let faulty = Arc::new(FaultyVault::new(memory.clone(), Arc::new(clock.clone())));
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let vault: Arc<dyn Vault> = faulty.clone();
    let transfer = Transfer::new(vault, Arc::clone(&clock), TransferPolicy::default()).unwrap();
    let objects = objects();
    for (named, bytes) in &objects {
        memory.replace(&named.name(), Bytes::from(bytes.clone()));
    }
    Place { memory, faulty, clock, transfer, objects }
}

impl Place {
    fn verify_as(&self, scope: &Scope, monitor: &dyn Monitor) -> Report {
        verify(&self.transfer, &self.clock, scope, monitor).unwrap()
    }

    fn verify(&self) -> Report {
        self.verify_as(&Scope::default(), &VoidMonitor)
    }

    fn put(&self, named: &Named, bytes: &[u8]) {
        self.memory.replace(&named.name(), Bytes::copy_from_slice(bytes));
    }
}

/// What is said of each object that is wrong.
fn said(report: &Report) -> BTreeMap<String, String> {
    report.findings.iter().map(|f| (f.object.clone(), f.detail.clone())).collect()
}

#[test]
fn all_that_is_right_is_counted_and_what_only_a_key_could_prove_is_told_apart() {
    let place = place();
    place.memory.replace(&names::bad(&names::config(), &[1; 32]), Bytes::from_static(b"x"));
    let report = place.verify();
    assert_eq!(said(&report), BTreeMap::new());
    let index = place.objects[5].1.len();
    assert_eq!((report.proven, report.bytes_proven), (3, (4096 + LONG + index) as u64));
    assert_eq!((report.formed, report.aside, report.is_cut_short), (10, 1, false));
    // Each byte once, and no more in memory than a few requests have.
    let most = place.faulty.requests().into_iter().map(|r| r.range.end.saturating_sub(r.range.start)).max();
    assert_eq!(most, Some(4 << 20));
    assert!(report.bytes_read >= report.bytes_proven && report.bytes_read < report.bytes_proven + 10_000);
    assert!(place.faulty.bytes(Verb::Get) < report.bytes_read + 2000);
}

#[test]
fn what_has_the_name_of_an_object_and_is_no_file_is_named_and_neither_opened_nor_followed() {
    use std::fs;
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("vault"), dir.path().join("outside"));
    for (named, bytes) in objects() {
        let path = root.join(named.name().as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let vault = DirectoryVault::new(&root);
    let transfer = Transfer::new(Arc::new(vault), Arc::clone(&clock), TransferPolicy::default()).unwrap();
    let verified = || verify(&transfer, &clock, &Scope::default(), &VoidMonitor).unwrap();
    assert_eq!(said(&verified()), BTreeMap::new());
    let (named, bytes) = pack(1, 4096);
    let (name, path) = (named.name().to_string(), root.join(named.name().as_str()));
    fs::remove_file(&path).unwrap();
    fs::write(&outside, bytes).unwrap();
    // As right as it is where it leads to.
    std::os::unix::fs::symlink(&outside, &path).unwrap();
    let is_named = |what: &str| {
        let report = verified();
        assert_eq!(
            said(&report),
            BTreeMap::from([(name.clone(), format!("{what} lies here, which is no object"))])
        );
        assert_eq!((report.problems, report.unseen, report.proven), (1, 0, 2));
    };
    is_named("a symbolic link");
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    is_named("a FIFO");
    fs::remove_file(&path).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    fs::rename(dir.path().join("socket"), &path).unwrap();
    is_named("a socket");
    drop(socket);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    is_named("a directory");
    // Each part tells its own.
    let parts = (1..=5).map(|number| Scope { part: Part { number, of: 5 }, ..Scope::default() });
    let told = parts.map(|scope| verify(&transfer, &clock, &scope, &VoidMonitor).unwrap().problems);
    assert_eq!(told.sum::<u64>(), 1);
}

#[test]
fn an_object_that_is_cut_flipped_grown_replaced_or_swapped_is_named_and_no_other() {
    let place = place();
    for (at, (named, good)) in place.objects.iter().enumerate() {
        let name = named.name().to_string();
        let named_alone = |how: &str, bytes: &[u8]| {
            place.put(named, bytes);
            let report = place.verify();
            let said = said(&report);
            // Without a config nobody can tell whose the others are, and those are not blamed.
            assert_eq!(said.keys().collect::<Vec<_>>(), [&name], "{how}: {said:?}");
            assert_eq!((report.problems, report.unseen), (1, 0), "{how}");
            place.put(named, good);
        };
        named_alone("grown", &[&good[..], b"x"].concat());
        if good.is_empty() {
            continue;
        }
        named_alone("cut", &good[..good.len() / 2 + 1]);
        named_alone("empty", b"");
        for bit in [0, 8 * 20, 8 * 40, 8 * 62] {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            named_alone("flipped in the header", &flipped);
        }
        named_alone("replaced", &noise("junk", good.len()));
        let other = &place.objects[(at + 1) % place.objects.len()].1;
        named_alone("swapped", other);
        let by_hash = matches!(named, Named::Pack(_) | Named::Index(_));
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        place.put(named, &flipped);
        // The last byte of all others is sealed: only a key tells.
        assert_eq!(place.verify().problems, u64::from(by_hash), "{name}");
        place.put(named, good);
    }
    assert_eq!(place.verify().problems, 0);
}

#[test]
fn an_object_of_another_store_and_a_name_that_is_nobodys_are_told() {
    let place = place();
    let foreign = Header { kind: ObjectKind::Pack, object_id: ObjectId([1; 16]), generation: 1 };
    let bytes = [&foreign.encode(&VaultId([8; 16]))[..], &[1; 128]].concat();
    let name = names::pack(&PackId(*blake3::hash(&bytes).as_bytes()));
    place.memory.replace(&name, bytes.into());
    place.memory.replace(&ObjectName::new("pack/00/left-over").unwrap(), Bytes::from_static(b"x"));
    let said = said(&place.verify());
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[name.as_str()].contains("another store"), "{said:?}");
    assert!(said["pack/00/left-over"].contains("no name"), "{said:?}");
}

#[test]
fn a_place_without_its_config_says_so_and_is_proven_as_far_as_it_goes() {
    let place = place();
    place.transfer.delete(&names::config()).unwrap();
    let report = place.verify();
    assert_eq!(said(&report).into_keys().collect::<Vec<_>>(), ["config"]);
    assert_eq!((report.proven, report.formed), (3, 9));
    // An annex has a marker instead.
    let marker = format!("{{\"store\":\"{VAULT}\",\"annex\":\"{}\"}}", "01".repeat(16));
    let at = ObjectName::new(crate::staging::MARKER).unwrap();
    place.memory.replace(&at, marker.into());
    assert_eq!(place.verify().problems, 0);
    place.memory.replace(&at, Bytes::from_static(b"{}"));
    assert_eq!(place.verify().problems, 1);
}

#[test]
fn the_parts_are_all_of_it_and_none_overlaps() {
    let place = place();
    (10..60).for_each(|n| {
        let (named, bytes) = pack(n, 1024);
        place.put(&named, &bytes);
    });
    let whole = place.verify();
    let parts: Vec<Report> = (1..=7)
        .map(|n| {
            let part = format!("{n}/7").parse().unwrap();
            place.verify_as(&Scope { part, ..Scope::default() }, &VoidMonitor)
        })
        .collect();
    let sum = |of: fn(&Report) -> u64| parts.iter().map(of).sum::<u64>();
    assert_eq!(sum(|r| r.bytes_proven), whole.bytes_proven);
    assert_eq!(sum(|r| r.proven), 53);
    // Config and slots each time.
    assert_eq!(sum(|r| r.formed), 7 + 6 * 3 + 3);
    assert!(
        parts.iter().all(|part| part.proven >= 2),
        "{:?}",
        parts.iter().map(|p| p.proven).collect::<Vec<_>>()
    );
    for bad in ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/2/3", ""] {
        assert!(bad.parse::<Part>().is_err(), "{bad}");
    }
    assert_eq!("7/30".parse::<Part>().unwrap().to_string(), "7/30");
}

#[test]
fn a_bound_of_bytes_ends_it_early_and_the_next_one_goes_on_from_there() {
    let place = place();
    (10..40).for_each(|n| {
        let (named, bytes) = pack(n, 100 << 10);
        place.put(&named, &bytes);
    });
    let whole = place.verify();
    let (mut scope, mut proven, mut runs) = (Scope { bytes_max: Some(1 << 20), ..Scope::default() }, 0, 0);
    loop {
        let report = place.verify_as(&scope, &VoidMonitor);
        assert_eq!(report.problems, 0);
        proven += report.bytes_proven;
        runs += 1;
        // The long pack alone is more, and is read when it is its turn.
        assert!(report.bytes_read <= 1 << 20 || report.proven <= 1, "{report:?}");
        if !report.is_cut_short {
            break;
        }
        assert!(report.goes_on_after > scope.after, "{report:?}");
        scope.after = report.goes_on_after;
    }
    assert_eq!(proven, whole.bytes_proven);
    assert!(runs > 3, "{runs}");
}

#[test]
fn what_the_way_spoils_once_is_read_again_and_is_no_damage() {
    let place = place();
    let monitor = RecordingMonitor::default();
    let gets = place.faulty.count(Verb::Get);
    assert_eq!(gets, 0);
    place.verify();
    let n = place.faulty.count(Verb::Get);
    let mut noted = 0;
    for nth in 1..=n {
        place.faulty.forget();
        place.faulty.heal();
        place.faulty.fail(Verb::Get, nth, Fault::Flip);
        let report = place.verify_as(&Scope::default(), &monitor);
        // Small objects are small enough to be read right, and a header that is not has a checksum.
        let packs =
            report.findings.iter().filter(|f| f.object.starts_with("pack") || f.object.starts_with("idx"));
        assert_eq!(packs.count(), 0, "{nth}: {report:?}");
        noted += monitor
            .events()
            .iter()
            .filter(|e| matches!(e, Event::Note(n) if n.contains("read wrong once")))
            .count();
    }
    assert!(noted > 0);
}

#[test]
fn what_goes_while_it_is_looked_at_is_no_damage_and_a_vault_that_goes_is_told() {
    let place = place();
    let name = place.objects[3].0.name();
    place.faulty.fail_object(&name, Fault::Gone);
    let report = place.verify();
    // It says that not even the vault is there: that is no word about the object.
    assert_eq!((report.problems, report.unseen, report.proven), (1, 1, 2));
    place.faulty.heal();
    place.faulty.forget();
    let (memory, vault) = (Arc::clone(&place.memory), Arc::downgrade(&place.faulty));
    place.faulty.watch(move || {
        // By then all was listed.
        if vault.upgrade().is_some_and(|vault| vault.count(Verb::Get) > 1) {
            memory.lose(&name);
        }
    });
    let report = place.verify();
    assert_eq!((report.problems, report.gone, report.proven), (0, 1, 2), "{report:?}");
    for fault in [Fault::FailBefore, Fault::Deny] {
        place.faulty.forget();
        place.faulty.heal();
        place.faulty.fail_from(Verb::Get, 3, fault);
        let report = place.verify();
        assert!(report.is_cut_short && report.problems >= 3, "{report:?}");
        assert_eq!(report.problems, report.unseen);
    }
}

#[test]
fn it_reads_no_faster_than_it_may_and_stops_when_it_is_told() {
    let place = place();
    let before = place.clock.monotonic();
    let report = place.verify_as(&Scope { rate: Some(1 << 20), ..Scope::default() }, &VoidMonitor);
    let took = place.clock.monotonic() - before;
    assert_eq!(report.problems, 0);
    assert!(took > Duration::from_secs(19) && took < Duration::from_secs(22), "{took:?}");
    place.transfer.cancel();
    let cancelled = verify(&place.transfer, &place.clock, &Scope::default(), &VoidMonitor);
    assert!(matches!(cancelled, Err(VaultError::Cancelled)), "{cancelled:?}");
}
