//! Tests of who made a point: what another machine, a stolen machine key or the keeper of a vault makes up is told by its word, and what honest
//! machines make never is. What comes of it is seen from outside (`tests/it/writers.rs`).

use super::hostile::{prepared, push, recovered, reopened};
use super::witness::{standing, stands};
use super::*;
use crate::check::{Depth, check};
use crate::id::{Attempt, ObjectHash};
use crate::point::object::{open_session, open_signed_session, seal_point, seal_session};
use crate::point::{Head, Sight};
use crate::seal::writer::Signed;

/// A machine with a key to sign with, on a vault.
struct Bed {
    home: Home,
    owner: OwnerKey,
    vault: Arc<MemoryVault>,
}

impl Bed {
    fn new() -> Self {
        let home = Home::new();
        let (vault, _) = prepared(&home);
        Self { home, owner: OwnerKey::from_seed([3; 32]), vault }
    }

    fn id(&self) -> VaultId {
        Store::head(&self.home.path()).unwrap().vault
    }

    fn writer(&self, machine: &str, host: &str) -> Arc<WriterKey> {
        Arc::new(self.owner.admit(&self.id(), machine, &[host.to_owned()], 9))
    }

    /// The machine's store, with its key or without.
    fn store(&self, writer: Option<Arc<WriterKey>>) -> Store {
        let options = Home::options(vec![("memory:v".into(), transfer(&self.vault))]);
        Store::open(&self.home.path(), &self.home.ring, StoreOptions { writer, ..options }, &VoidMonitor)
            .unwrap()
    }

    /// What a machine that had nothing recovers by a secret that has the owner's key, or by one that has not.
    fn recovered(&self, knows_owner: bool) -> (tempfile::TempDir, Store) {
        let ring = self.home.ring.clone();
        let ring = if knows_owner { ring.owned_by(self.owner.clone()) } else { ring };
        let home = Home { dir: tempfile::tempdir().unwrap(), ring };
        recovered(&home, &self.vault)
    }

    fn put(&self, store: &Store, point: &RecoveryPoint) {
        let object = seal_point(point, store.sealer()).unwrap();
        let name = names::point(&point.source_tag, &point.id);
        transfer(&self.vault).put_new(&name, object.into()).unwrap();
    }
}

fn small(version: u32) -> Tree {
    Tree::from([("file".to_owned(), noise(&format!("{version}"), 6000))])
}

fn taken(store: &Store, version: u32) -> StoredPoint {
    let point = take_point(store, &small(version)).unwrap();
    push(store, &point, &RecordingMonitor::default()).unwrap();
    point
}

fn trust(store: &Store, point: &RecoveryPoint) -> Trust {
    store.judge(|id| *id == point.id).unwrap()[&point.id].trust
}

/// The next point of the source of `newest`, as somebody who has the ring makes it up.
fn next(store: &Store, newest: &StoredPoint) -> RecoveryPoint {
    RecoveryPoint {
        id: store.sealer().new_point(),
        sequence: newest.point.sequence + 1,
        previous: newest.hash,
        started: Timestamp::from_seconds(newest.point.started.seconds + 1),
        writer: Vec::new(),
        signature: Vec::new(),
        ..(*newest.point).clone()
    }
}

#[test]
fn a_machine_signs_its_points_and_sessions_and_whoever_knows_the_owner_sees_whose_they_are() {
    let bed = Bed::new();
    let writer = bed.writer("alpha", "host");
    let store = bed.store(Some(writer.clone()));
    let point = taken(&store, 1);
    let attempt = Attempt::first(point.point.id);
    let session = bed.vault.object(&names::session(&attempt)).unwrap();
    let (session, signature) = open_signed_session(&session, store.sealer(), &attempt.point).unwrap();
    assert_eq!(
        (session.writer.as_slice(), point.point.writer.as_slice()),
        (writer.encoded(), writer.encoded())
    );
    let key = &writer.admission().key;
    assert!(Signed::Session.is_by(key, store.id(), &signature.content, &session.signature));
    let unsigned = point.point.encode_unsigned().unwrap();
    assert!(Signed::Point.is_by(key, store.id(), &unsigned, &point.point.signature));
    let judged = store.judge(|_| true).unwrap().remove(&point.point.id).unwrap();
    assert_eq!((judged.trust, judged.writer.as_ref()), (Trust::Holds, Some(writer.admission())));
    // Also of a second one that was admitted for the same host, and after the first was left without its key.
    let second = taken(&bed.store(Some(bed.writer("beta", "host"))), 2);
    for (knows_owner, expected) in [(true, Trust::Holds), (false, Trust::Unproven)] {
        let (_dir, other) = bed.recovered(knows_owner);
        assert_eq!((trust(&other, &point.point), trust(&other, &second.point)), (expected, expected));
        assert_eq!(standing(&other), []);
        let said = other.first_looks().concat();
        assert_eq!(said.contains("does not know its owner"), !knows_owner, "{said}");
        assert!(
            !check(&other, Depth::Structure, &VoidMonitor)
                .unwrap()
                .findings
                .iter()
                .any(|f| f.detail.contains("writer-"))
        );
    }
    assert_eq!(stands(&store), []);
}

#[test]
fn a_point_that_is_not_by_whom_it_says_is_told_by_every_look_until_it_is_accepted_and_stays_readable() {
    type Forge = Box<dyn Fn(&Bed, &Store, &StoredPoint, &mut RecoveryPoint)>;
    let sign_with = |point: &mut RecoveryPoint, writer: &WriterKey| {
        point.writer = writer.encoded().to_vec();
        point.signature = writer.sign(Signed::Point, &point.encode_unsigned().unwrap());
    };
    let cases: Vec<(&str, AlarmKind, Forge)> = vec![
        ("unsigned", AlarmKind::WriterForged, Box::new(|_, _, _, _| {})),
        (
            "the signature of the point before",
            AlarmKind::WriterForged,
            Box::new(|_, _, newest, point| {
                point.writer.clone_from(&newest.point.writer);
                point.signature.clone_from(&newest.point.signature);
            }),
        ),
        (
            "another writer named than the one who signed",
            AlarmKind::WriterForged,
            Box::new(move |bed, _, newest, point| {
                sign_with(point, &bed.writer("own", "host"));
                point.writer.clone_from(&newest.point.writer);
            }),
        ),
        (
            "a flipped bit of the signature",
            AlarmKind::WriterForged,
            Box::new(move |bed, _, _, point| {
                sign_with(point, &bed.writer("alpha", "host"));
                point.signature[10] ^= 1;
            }),
        ),
        (
            "a signature that was cut",
            AlarmKind::WriterForged,
            Box::new(move |bed, _, _, point| {
                sign_with(point, &bed.writer("alpha", "host"));
                point.signature.pop();
            }),
        ),
        (
            "no signature by a writer",
            AlarmKind::WriterForged,
            Box::new(|_, _, newest, point| point.writer.clone_from(&newest.point.writer)),
        ),
        (
            "a signature by nobody",
            AlarmKind::WriterForged,
            Box::new(|_, _, newest, point| point.signature.clone_from(&newest.point.signature)),
        ),
        (
            "a writer that is none",
            AlarmKind::WriterForged,
            Box::new(|_, _, _, point| point.writer = vec![1; 300]),
        ),
        (
            "signed before its number was changed",
            AlarmKind::WriterForged,
            Box::new(move |bed, _, _, point| {
                point.sequence += 7;
                sign_with(point, &bed.writer("alpha", "host"));
                point.sequence -= 7;
            }),
        ),
        (
            "signed before its id was changed",
            AlarmKind::WriterForged,
            Box::new(move |bed, store, _, point| {
                sign_with(point, &bed.writer("alpha", "host"));
                point.id = store.sealer().new_point();
            }),
        ),
        (
            "signed as a point of another source",
            AlarmKind::WriterForged,
            Box::new(move |bed, store, _, point| {
                let tag =
                    std::mem::replace(&mut point.source_tag, store.sealer().source_tag("host", "g", "s"));
                sign_with(point, &bed.writer("alpha", "host"));
                point.source_tag = tag;
            }),
        ),
        (
            "unsigned, under a tag that nothing has",
            AlarmKind::WriterForged,
            Box::new(|_, store, _, point| point.source_tag = store.sealer().source_tag("host", "g", "s")),
        ),
        (
            "signed by a machine for a host of its own, under the tag of another",
            AlarmKind::WriterForged,
            Box::new(move |bed, _, _, point| {
                point.source.host = "beta".into();
                sign_with(point, &bed.writer("beta", "beta"));
            }),
        ),
        (
            "signed for another store",
            AlarmKind::WriterForged,
            Box::new(move |bed, _, _, point| {
                let elsewhere = bed.owner.admit(&VaultId([1; 16]), "alpha", &["host".into()], 9);
                sign_with(point, &elsewhere);
            }),
        ),
        (
            "signed by a machine of another host",
            AlarmKind::WriterForged,
            Box::new(move |bed, _, _, point| sign_with(point, &bed.writer("beta", "beta"))),
        ),
        (
            "signed by whom another owner admitted",
            AlarmKind::WriterUnknown,
            Box::new(move |bed, _, _, point| {
                sign_with(point, &OwnerKey::generate().admit(&bed.id(), "alpha", &["host".into()], 9));
            }),
        ),
        (
            "signed by whom somebody admitted in the name of the owner",
            AlarmKind::WriterUnknown,
            Box::new(move |bed, _, _, point| {
                sign_with(point, &OwnerKey::generate().admit(&bed.id(), "alpha", &["host".into()], 9));
                point.writer[1..33].copy_from_slice(&bed.owner.public());
                // The writer's own signature is over that.
                let writer = OwnerKey::generate().admit(&bed.id(), "alpha", &["host".into()], 9);
                point.writer[33..65].copy_from_slice(&writer.admission().key);
                point.signature = writer.sign(Signed::Point, &point.encode_unsigned().unwrap());
            }),
        ),
    ];
    for (what, kind, forge) in cases {
        let bed = Bed::new();
        let writer = bed.writer("alpha", "host");
        let store = bed.store(Some(writer.clone()));
        let newest = taken(&store, 1);
        let mut forged = next(&store, &newest);
        forge(&bed, &store, &newest, &mut forged);
        bed.put(&store, &forged);
        let expected = [(kind, forged.id.hex())];
        if forged.source_tag != newest.point.source_tag {
            // A push reads what is new of its own sources; who frees space, or recovers, learns of all.
            assert_eq!(stands(&store), [], "{what}");
            let (no, _, way) = store.vaults()[0].clone();
            copy::learn_points(&store, no, &way).unwrap();
        }
        assert_eq!(stands(&store), expected, "{what}");
        // It stands as long as it is there, also for who did not read it.
        assert_eq!(stands(&bed.store(Some(writer.clone()))), expected, "{what}");
        let finds = |store: &Store| {
            let found = check(store, Depth::Structure, &VoidMonitor).unwrap().findings;
            found.iter().any(|finding| finding.detail.contains(kind.word()))
        };
        assert!(finds(&store), "{what}");
        assert_eq!(standing(&store), expected, "{what}");
        let (_dir, other) = bed.recovered(true);
        assert_eq!(standing(&other), expected, "{what}");
        assert!(restore(&other, &other.point(&forged.id).unwrap()).unwrap() == small(1), "{what}");
        let no = store.vaults()[0].0;
        let accepted = store.accept_vault(no, &VoidMonitor).unwrap();
        assert_eq!(accepted.alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [kind], "{what}");
        assert!(!finds(&store), "{what}");
        assert_eq!(stands(&store), [], "{what}");
    }
}

#[test]
fn points_from_before_stay_unsigned_and_one_that_is_newer_than_a_signed_one_is_forged() {
    let bed = Bed::new();
    let before = bed.store(None);
    let old = [taken(&before, 1), taken(&before, 2)];
    drop(before);
    let store = bed.store(Some(bed.writer("alpha", "host")));
    let signed = taken(&store, 3);
    let trusts = |store: &Store| old.each_ref().map(|point| trust(store, &point.point));
    assert_eq!((trusts(&store), trust(&store, &signed.point)), ([Trust::Unsigned; 2], Trust::Holds));
    assert_eq!(stands(&store), []);
    let (_dir, other) = bed.recovered(true);
    assert_eq!((trusts(&other), standing(&other)), ([Trust::Unsigned; 2], vec![]));
    // By its number it is older than all, and by its time the newest, as which it would be recovered.
    let late = Timestamp::from_seconds(signed.point.started.seconds + 5);
    let backdated = RecoveryPoint { sequence: 1, previous: [0; 32], started: late, ..next(&store, &signed) };
    bed.put(&store, &backdated);
    assert!(stands(&store).contains(&(AlarmKind::WriterForged, backdated.id.hex())));
    assert_eq!(trusts(&store), [Trust::Unsigned; 2]);
    // One that is signed by nobody of the owner's makes no honest point forged.
    let stranger = OwnerKey::generate().admit(&bed.id(), "x", &["host".into()], 0);
    let mut first =
        RecoveryPoint { sequence: 1, started: Timestamp::from_seconds(0), ..next(&store, &signed) };
    first.sign(Some(&stranger)).unwrap();
    bed.put(&store, &first);
    assert!(stands(&store).contains(&(AlarmKind::WriterUnknown, first.id.hex())));
    assert_eq!(trusts(&store), [Trust::Unsigned; 2]);
}

#[test]
fn a_forged_point_that_was_learned_by_who_frees_space_is_told_by_the_next_look() {
    let bed = Bed::new();
    let store = bed.store(Some(bed.writer("alpha", "host")));
    let newest = taken(&store, 1);
    let forged = next(&store, &newest);
    bed.put(&store, &forged);
    let (no, _, way) = store.vaults()[0].clone();
    copy::learn_points(&store, no, &way).unwrap();
    let expected = [(AlarmKind::WriterForged, forged.id.hex())];
    assert_eq!(standing(&store), expected);
    assert_eq!(stands(&store), expected);
    store.accept_vault(no, &VoidMonitor).unwrap();
    copy::learn_points(&store, no, &way).unwrap();
    assert_eq!((standing(&store), stands(&store)), (vec![], vec![]));
}

#[test]
fn a_forged_session_of_another_attempt_is_told_as_both() {
    let bed = Bed::new();
    let store = bed.store(Some(bed.writer("alpha", "host")));
    let point = taken(&store, 1);
    let attempt = Attempt::first(point.point.id);
    let bytes = bed.vault.object(&names::session(&attempt)).unwrap();
    let mut session = open_session(&bytes, store.sealer(), &attempt.point).unwrap();
    let later = Attempt { number: 3, ..attempt };
    session.sight = Some(Sight { attempt: 2, heads: Vec::new() });
    let forged = seal_session(&session, store.sealer()).unwrap();
    transfer(&bed.vault).put_new(&names::session(&later), forged.into()).unwrap();
    let (_, alarms) = store.open_those_sessions(&transfer(&bed.vault), &[later]).unwrap();
    let kinds: Vec<_> = alarms.iter().map(|alarm| alarm.kind).collect();
    assert_eq!(kinds, [AlarmKind::PointReplayed, AlarmKind::WriterForged]);
}

#[test]
fn a_machine_signs_no_point_of_a_host_that_it_was_not_admitted_for() {
    let bed = Bed::new();
    let store = bed.store(Some(bed.writer("alpha", "elsewhere")));
    let point = taken(&store, 1);
    assert_eq!((point.point.writer.len(), trust(&store, &point.point)), (0, Trust::Unsigned));
    assert_eq!(stands(&store), []);
}

#[test]
fn what_a_session_says_that_is_not_by_whom_it_says_is_told_and_not_believed() {
    let bed = Bed::new();
    let store = bed.store(Some(bed.writer("alpha", "host")));
    let point = taken(&store, 1);
    let attempt = Attempt::first(point.point.id);
    let name = names::session(&attempt);
    let mut session =
        open_session(&bed.vault.object(&name).unwrap(), store.sealer(), &attempt.point).unwrap();
    // As if a newer point had been there.
    let head = Head {
        source: point.point.source_tag,
        point: store.sealer().new_point(),
        sequence: 9,
        hash: ObjectHash([1; 32]),
    };
    session.sight = Some(Sight { attempt: 0, heads: vec![head] });
    let missing = (AlarmKind::PointWithheld, head.point.hex());
    let forged = (AlarmKind::WriterForged, format!("session {attempt}"));
    let unknown = (AlarmKind::WriterUnknown, forged.1.clone());
    let stranger = Arc::new(OwnerKey::generate().admit(&bed.id(), "x", &[], 0));
    for (signer, expected) in
        [(None, forged), (Some(stranger), unknown), (Some(bed.writer("beta", "beta")), missing)]
    {
        if let Some(signer) = signer {
            session.sign(Some(&signer)).unwrap();
        }
        let way = transfer(&bed.vault);
        way.delete(&name).unwrap();
        way.put_new(&name, seal_session(&session, store.sealer()).unwrap().into()).unwrap();
        let (_dir, other) = bed.recovered(true);
        assert_eq!(standing(&other), [expected]);
    }
}

#[test]
fn the_owner_who_admitted_the_machine_counts_before_that_of_the_secret_that_was_given() {
    let bed = Bed::new();
    let store = bed.store(Some(bed.writer("alpha", "host")));
    assert_eq!(store.owner(), Some(&bed.owner.public()));
    let point = taken(&store, 1);
    drop(store);
    let other = OwnerKey::generate();
    let ring = bed.home.ring.clone().owned_by(other.clone());
    let home = Home { dir: tempfile::tempdir().unwrap(), ring };
    let store = reopened(&home, &bed.vault, &bed.home.path());
    assert_eq!((store.owner(), trust(&store, &point.point)), (Some(&other.public()), Trust::Unknown));
    assert!(store.writer().is_none());
    drop(store);
    // Where an owner admitted the machine, no secret that is typed changes whom it believes.
    let options = Home::options(vec![("memory:v".into(), transfer(&bed.vault))]);
    let options = StoreOptions { writer: Some(bed.writer("alpha", "host")), ..options };
    let store = Store::open(&bed.home.path(), &home.ring, options, &VoidMonitor).unwrap();
    assert_eq!((store.owner(), trust(&store, &point.point)), (Some(&bed.owner.public()), Trust::Holds));
}
