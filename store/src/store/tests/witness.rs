//! Tests of what is remembered of a vault, and of what sessions say there. What comes of it is seen from outside (`tests/it/witness.rs`).

use super::fenced::forget;
use super::hostile::{delete_catalog, forget_and_free, prepared, push, recovered, reopened};
use super::losses::{faulty, open_on};
use super::*;
use crate::check::{Depth, check};
use crate::fence::{Revocation, Why};
use crate::id::{Attempt, RecoveryPointId, SourceTag};
use crate::point::Head;
use crate::point::object::open_session;
use crate::vault::Verb;
use crate::vault::testing::Fault;

fn heads_said(store: &Store, vault: &MemoryVault, point: &StoredPoint) -> Option<Vec<Head>> {
    let attempt = Attempt::first(point.point.id);
    let bytes = vault.object(&names::session(&attempt)).unwrap();
    let session = open_session(&bytes, store.sealer(), &attempt.point).unwrap();
    session.sight.map(|sight| sight.heads)
}

#[test]
fn a_session_says_what_its_writer_saw_in_the_vault_and_the_first_one_says_nothing() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let quiet = RecordingMonitor::default();
    let one = take_point(&store, &sample(1)).unwrap();
    let local = take_point(&store, &sample(2)).unwrap();
    push(&store, &one, &quiet).unwrap();
    assert_eq!(heads_said(&store, &vault, &one), None, "as sessions were before");
    push(&store, &local, &quiet).unwrap();
    let head = |point: &StoredPoint| Head {
        source: point.point.source_tag,
        point: point.point.id,
        sequence: point.point.sequence,
        hash: crate::id::ObjectHash(point.hash),
    };
    assert_eq!(heads_said(&store, &vault, &local), Some(vec![head(&one)]), "not what no vault has");
    let (_dir, other) = recovered(&home, &vault);
    let third = take_point(&other, &sample(3)).unwrap();
    push(&other, &third, &quiet).unwrap();
    assert_eq!(heads_said(&other, &vault, &third), Some(vec![head(&local)]));
}

#[test]
fn a_number_is_not_given_again_when_the_catalog_is_lost_and_the_vault_away() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let seen = (one.point.sequence, one.hash);
    let tag = one.point.source_tag;
    store.staging().remove(&names::point(&tag, &one.point.id)).unwrap();
    drop(store);
    delete_catalog(&home.path());
    let alone = home.open();
    assert!(alone.newest_point(&tag).unwrap().is_none());
    assert_eq!(alone.newest_remembered(&tag), Some(seen));
}

#[test]
fn a_store_whose_recovery_was_cut_off_numbers_no_source_until_the_vault_was_read() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (tag, dir) = (one.point.source_tag, tempfile::tempdir().unwrap());
    let path = dir.path().join("bare");
    Store::adopt(&path, &copy::vault_head(&transfer(&vault)).unwrap()).unwrap();
    let way = faulty(&vault);
    way.fail_from(Verb::List, 1, Fault::Deny);
    let bare = open_on(&home, &path, way);
    assert!(bare.newest_point(&tag).unwrap().is_none());
    let refused = bare.prove_numbered(&tag).unwrap_err().to_string();
    assert!(refused.contains("memory:v") && refused.contains("were never read to their end"), "{refused}");
    drop(bare);
    let whole = reopened(&home, &vault, &path);
    for tag in [tag, SourceTag([7; 16])] {
        whole.prove_numbered(&tag).unwrap();
    }
}

#[test]
fn a_vault_that_was_never_reached_keeps_a_store_that_was_made_here_from_no_first_point() {
    let home = Home::new();
    let way = faulty(&Arc::new(MemoryVault::new()));
    way.fail_from(Verb::List, 1, Fault::Deny);
    open_on(&home, &home.path(), way).prove_numbered(&SourceTag([7; 16])).unwrap();
}

#[test]
fn a_number_is_not_given_again_when_its_point_is_forgotten_while_it_is_on_its_way_to_a_vault() {
    let home = Home::new();
    let store = home.open();
    let one = take_point(&store, &sample(1)).unwrap();
    let row = store.catalog().point(&one.point.id).unwrap().unwrap();
    store.remove_staged_point(&row).unwrap();
    assert!(store.newest_point(&row.tag).unwrap().is_none());
    assert_eq!(store.newest_remembered(&row.tag), Some((one.point.sequence, one.hash)));
}

#[test]
fn an_honest_vault_is_asked_for_no_point_and_no_session() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    for version in 1..4 {
        let point = take_point(&store, &sample(version)).unwrap();
        push(&store, &point, &RecordingMonitor::default()).unwrap();
    }
    drop(store);
    let watched = faulty(&vault);
    let store = open_on(&home, &home.path(), watched.clone());
    watched.forget();
    let (no, _, transfer) = store.vaults()[0].clone();
    let monitor = RecordingMonitor::default();
    copy::refresh_vault(&store, no, &transfer, &monitor).unwrap();
    let asked = watched.requests();
    let reads = |verb| asked.iter().filter(move |request| request.verb == verb);
    let names: Vec<&str> = reads(Verb::Get).map(|request| request.name.as_str()).collect();
    assert_eq!(names, ["config"]);
    let looks: Vec<&str> = reads(Verb::Stat).map(|request| request.name.as_str()).collect();
    assert_eq!(looks, ["config"], "how long it is");
    let lists: Vec<&str> = reads(Verb::List).map(|request| request.name.as_str()).collect();
    assert!(!lists.contains(&names::SESSIONS), "{lists:?}");
    assert_eq!(store.alarms(no).unwrap(), []);
}

#[test]
fn a_catalog_that_was_put_back_does_not_take_back_what_was_seen() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let quiet = RecordingMonitor::default();
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &quiet).unwrap();
    let no = store.vaults()[0].0;
    let old = store.catalog().remembered(no).unwrap().unwrap();
    let two = take_point(&store, &sample(2)).unwrap();
    push(&store, &two, &quiet).unwrap();
    store.catalog().set_remembered(no, &old).unwrap();
    store.catalog().remove_point(&two.point.id, Some(no)).unwrap();
    assert!(transfer(&vault).delete(&names::point(&two.point.source_tag, &two.point.id)).unwrap());
    copy::refresh_vault(&store, no, &store.vaults()[0].2, &quiet).unwrap();
    let alarms = store.alarms(no).unwrap();
    let kinds: Vec<_> = alarms.iter().map(|alarm| (alarm.kind, alarm.subject.clone())).collect();
    assert_eq!(kinds, [(AlarmKind::PointWithheld, two.point.id.hex())]);
    // It is told as long as it lasts.
    copy::refresh_vault(&store, no, &store.vaults()[0].2, &quiet).unwrap();
    assert_eq!(store.alarms(no).unwrap(), alarms);
    copy::push_point(&store, no, &store.vaults()[0].2, &two.point.id, &quiet).unwrap();
    copy::refresh_vault(&store, no, &store.vaults()[0].2, &quiet).unwrap();
    assert_eq!(store.alarms(no).unwrap(), []);
}

/// What stands of the first vault of a store, after a look at it.
pub(super) fn stands(store: &Store) -> Vec<(AlarmKind, String)> {
    let (no, _, way) = store.vaults()[0].clone();
    copy::refresh_vault(store, no, &way, &RecordingMonitor::default()).unwrap();
    standing(store)
}

/// The same without a look.
pub(super) fn standing(store: &Store) -> Vec<(AlarmKind, String)> {
    let alarms = store.alarms(store.vaults()[0].0).unwrap();
    alarms.into_iter().map(|alarm| (alarm.kind, alarm.subject)).collect()
}

#[test]
fn a_config_that_opens_and_is_another_is_told_and_stays_until_somebody_puts_the_right_one_there() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    push(&store, &take_point(&store, &sample(1)).unwrap(), &RecordingMonitor::default()).unwrap();
    let ours = Bytes::copy_from_slice(store.config_object());
    let config = StoreConfig::decode(&ours, store.sealer()).unwrap();
    let other = Bytes::from(config.encode(store.sealer()).unwrap());
    assert_ne!(other, ours);
    vault.replace(&names::config(), other.clone());
    let swapped = [(AlarmKind::ConfigSwapped, String::new())];
    assert_eq!(stands(&store), swapped);
    assert_eq!(vault.object(&names::config()).unwrap(), other, "it is whole, and no damage");
    let accepted = store.accept_vault(store.vaults()[0].0, &VoidMonitor).unwrap();
    assert_eq!((accepted.alarms.len(), accepted.stays.len()), (0, 1), "{accepted:?}");
    assert_eq!(standing(&store), swapped);
    vault.replace(&names::config(), ours);
    assert_eq!(stands(&store), []);
}

/// A point that says of itself where it is in its source.
fn take_point_after(store: &Store, version: u32, sequence: u64, previous: [u8; 32]) -> StoredPoint {
    let session = store.begin(Compression::Zstd(1), &VoidMonitor).unwrap();
    let (id, source_tag) = (session.id(), tag_of(store));
    let root = ingest_tree(&session, &sample(version)).unwrap();
    let bare = bare_point(["host", "group", "source"], i64::from(version), root);
    session.commit(|_| RecoveryPoint { id, source_tag, sequence, previous, ..bare }).unwrap()
}

#[test]
fn a_point_that_was_made_after_another_than_the_one_before_it_is_told_by_a_check() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    let quiet = RecordingMonitor::default();
    let one = take_point(&store, &sample(1)).unwrap();
    // What is between was never there.
    let after_a_gap = take_point_after(&store, 2, one.point.sequence + 5, [8; 32]);
    let after_it = take_point_after(&store, 3, after_a_gap.point.sequence + 1, after_a_gap.hash);
    for point in [&one, &after_a_gap, &after_it] {
        push(&store, point, &quiet).unwrap();
    }
    let told = || {
        let report = check(&store, Depth::Structure, &VoidMonitor).unwrap();
        let is_of_it = |finding: &&crate::check::Finding| finding.detail.contains("chain-broken");
        report.findings.iter().filter(is_of_it).count()
    };
    assert_eq!((told(), standing(&store)), (0, vec![]));
    let wrong = take_point_after(&store, 4, after_it.point.sequence + 1, [9; 32]);
    push(&store, &wrong, &quiet).unwrap();
    let broken = [(AlarmKind::ChainBroken, wrong.point.id.hex())];
    assert_eq!(told(), 1);
    assert_eq!(standing(&store), broken);
    assert_eq!(stands(&store), broken, "a look that does not read ends nothing");
    store.accept_vault(store.vaults()[0].0, &VoidMonitor).unwrap();
    assert_eq!((told(), standing(&store)), (0, vec![]));
}

/// What becomes of a file, and how.
type Spoilt<'a> = (&'static str, &'a dyn Fn(&std::path::Path));

#[test]
fn a_file_of_memory_that_is_damaged_foreign_or_gone_stops_nothing_and_the_catalog_remembers() {
    let quiet = RecordingMonitor::default();
    let stranger = Home::new();
    let (_, store) = prepared(&stranger);
    push(&store, &take_point(&store, &sample(1)).unwrap(), &quiet).unwrap();
    let of_another_store = std::fs::read(stranger.path().join("witness.json")).unwrap();
    let text = b"{\"store\":1}";
    let of_a_newer_program = [blake3::hash(text).to_hex().as_bytes(), b"\n", text].concat();
    let spoil: [Spoilt<'_>; 6] = [
        ("none", &|file| std::fs::remove_file(file).unwrap()),
        ("empty", &|file| std::fs::write(file, b"").unwrap()),
        ("noise", &|file| std::fs::write(file, noise("witness", 5000)).unwrap()),
        ("another store's", &|file| std::fs::write(file, &of_another_store).unwrap()),
        ("a newer program's", &|file| std::fs::write(file, &of_a_newer_program).unwrap()),
        ("beyond the limit", &|file| std::fs::File::create(file).unwrap().set_len(1 << 40).unwrap()),
    ];
    let as_directory: Spoilt<'_> = ("a directory", &|file| {
        std::fs::remove_file(file).unwrap();
        std::fs::create_dir(file).unwrap();
    });
    for (what, spoil) in spoil.into_iter().chain([as_directory]) {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let one = take_point(&store, &sample(1)).unwrap();
        push(&store, &one, &quiet).unwrap();
        drop(store);
        spoil(&home.path().join("witness.json"));
        let store = home.open_with(&vault);
        assert_eq!(stands(&store), [], "{what}");
        let two = take_point(&store, &sample(2)).unwrap();
        push(&store, &two, &quiet).unwrap();
        for hidden in [&two, &one] {
            transfer(&vault).delete(&names::point(&hidden.point.source_tag, &hidden.point.id)).unwrap();
        }
        // Of the catalog's points none is needed for that.
        for hidden in [&two, &one] {
            store.catalog().remove_point(&hidden.point.id, Some(store.vaults()[0].0)).unwrap();
        }
        assert_eq!(stands(&store), [(AlarmKind::PointWithheld, two.point.id.hex())], "{what}");
    }
}

#[test]
fn a_revocation_that_was_seen_and_is_gone_is_an_older_state_though_no_point_is_missing() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let points = [1, 2].map(|version| take_point(&store, &sample(version)).unwrap());
    for point in &points {
        push(&store, point, &RecordingMonitor::default()).unwrap();
    }
    let no = store.vaults()[0].0;
    let row = store.catalog().point(&points[0].point.id).unwrap().unwrap();
    store.remove_point_from_vault(no, &row).unwrap();
    assert_eq!(stands(&store), []);
    assert!(transfer(&vault).delete(&names::point(&row.tag, &row.id)).unwrap(), "the word is there");
    let older = [(AlarmKind::VaultRolledBack, String::new())];
    assert_eq!(stands(&store), older);
    assert_eq!(stands(&store), older, "as long as it lasts");
    store.accept_vault(no, &VoidMonitor).unwrap();
    assert_eq!(stands(&store), []);
}

/// A point that went from the vault and from here on purpose, its name there, and its bytes.
fn gone(store: &Store, vault: &MemoryVault) -> (ObjectName, Bytes) {
    let one = take_point(store, &sample(1)).unwrap();
    push(store, &one, &RecordingMonitor::default()).unwrap();
    let name = names::point(&one.point.source_tag, &one.point.id);
    let bytes = vault.object(&name).unwrap();
    forget_and_free(store, &one);
    forget(store, &one);
    assert_ne!(vault.object(&name).unwrap(), bytes);
    (name, bytes)
}

/// That it is there again, as an alarm.
fn replayed(name: &ObjectName) -> [(AlarmKind, String); 1] {
    [(AlarmKind::PointReplayed, names::outcome_of(name).unwrap().1.to_string())]
}

#[test]
fn a_point_that_comes_back_is_told_by_what_the_catalog_alone_knows_as_long_as_it_is_there() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let (name, bytes) = gone(&store, &vault);
    assert_eq!(stands(&store), []);
    let word = vault.object(&name).unwrap();
    let (no, _, way) = store.vaults()[0].clone();
    std::fs::remove_file(home.path().join("witness.json")).unwrap();
    store.catalog().set_remembered(no, b"none").unwrap();
    vault.replace(&name, bytes);
    // Who frees space learns of the point, and needs what it needs.
    copy::learn_points(&store, no, &way).unwrap();
    let expected = replayed(&name);
    assert_eq!(stands(&store), expected);
    assert_eq!(stands(&store), expected, "as long as it lasts");
    vault.replace(&name, word);
    assert_eq!(stands(&store), []);
    assert!(transfer(&vault).delete(&name).unwrap());
    std::fs::remove_file(home.path().join("witness.json")).unwrap();
    store.catalog().set_remembered(no, b"none").unwrap();
    let older = [(AlarmKind::VaultRolledBack, String::new())];
    assert_eq!(stands(&store), older, "the word is gone");
    store.accept_vault(no, &VoidMonitor).unwrap();
    assert_eq!(stands(&store), []);
}

#[test]
fn one_of_the_last_of_five_thousand_removed_points_is_told_when_it_comes_back() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    // Whoever has the ring makes words of low ids.
    for n in 0..5_000_u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let (tag, attempt) = (SourceTag([9; 16]), Attempt::first(RecoveryPointId(id)));
        let word = Revocation { attempt, tag, why: Why::Forgotten, at: 0 }.seal(store.sealer());
        vault.replace(&names::outcome(&tag, &attempt), word.into());
    }
    let (no, _, way) = store.vaults()[0].clone();
    copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
    assert_eq!(store.catalog().revoked_in(no).unwrap().len(), 5_000);
    let (name, bytes) = gone(&store, &vault);
    assert_eq!((stands(&store), store.first_looks().len()), (vec![], 0));
    let word = vault.object(&name).unwrap();
    vault.replace(&name, bytes);
    assert_eq!(stands(&store), replayed(&name));
    assert_eq!(stands(&store), replayed(&name), "as long as it lasts");
    vault.replace(&name, word);
    assert_eq!(stands(&store), []);
    assert!(transfer(&vault).delete(&name).unwrap());
    assert_eq!(stands(&store), [(AlarmKind::VaultRolledBack, String::new())]);
}

#[test]
fn revocations_that_the_catalog_alone_remembers_are_told() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    let no = store.vaults()[0].0;
    assert_eq!((stands(&store), store.first_looks()), (vec![], vec![]));
    let words = format!(
        "WITH RECURSIVE word(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM word WHERE n < 20000)
         INSERT INTO meta(key, value) SELECT printf('revoked {} %032x 0', n), 1 FROM word",
        no.0
    );
    assert_eq!(store.catalog().writer().execute(&words, []).unwrap(), 20_000);
    stands(&store);
    let told = store.first_looks();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("3616 revocations are beyond"), "{told:?}");
    stands(&store);
    assert_eq!(store.first_looks(), told, "once");
}
