//! Stores in a storage account that keeps what it has: what is locked stays and hurts nothing, what stays is locked anew, and what somebody removed
//! or replaced without a word comes back.

use super::fenced::{advance, at_once, files, forget, push_all};
use super::hostile::{data_packs, forget_and_free};
use super::*;
use crate::ErrorClass;
use crate::check::{self, Depth};
use crate::clock::SystemClock;
use crate::regain::{Regained, regain};
use crate::vault::Vault;
use crate::vault::address::VaultAddress;
use crate::vault::azure::AzureVault;
use crate::vault::keeper::{DAY, LockTerms};
use crate::vault::testing::{Azurite, Features, StorageAccount};

const NOW: i64 = 1_798_718_400;
const DATA: &str = "v-data";
const LOCKS: Features =
    Features { soft_delete_days: 14, versions: true, immutability: true, default_lock_days: 0 };
const SOFT: Features =
    Features { soft_delete_days: 14, versions: false, immutability: false, default_lock_days: 0 };

fn way(account: &StorageAccount, lock: Option<LockTerms>) -> Arc<Transfer> {
    let VaultAddress::Azure(address) = Azurite::address("v", account.port()).unwrap() else { unreachable!() };
    let vault = AzureVault::new(&address, &Azurite::credential()).unwrap().with_lock(lock);
    Transfer::new(Arc::new(vault) as Arc<dyn Vault>, Arc::new(SystemClock), TransferPolicy::default())
        .unwrap()
}

/// One clock for both: what has a deadline is asked by the way's.
fn options(way: Arc<Transfer>) -> StoreOptions {
    StoreOptions { vaults: vec![("azure:v".into(), way)], ..StoreOptions::local(Arc::new(SystemClock)) }
}

/// A store with a vault in an account.
struct There {
    account: StorageAccount,
    home: Home,
    store: Store,
}

impl There {
    fn new(features: Features, lock_days: u16) -> Self {
        let account = StorageAccount::start(features, NOW).unwrap();
        let home = Home::new();
        let lock = (lock_days > 0).then_some(LockTerms { days: lock_days, for_good: false });
        let store =
            Store::open(&home.path(), &home.ring, options(way(&account, lock)), &VoidMonitor).unwrap();
        let slots = Store::head(&home.path()).unwrap().slots;
        let transfer = store.vaults()[0].2.clone();
        transfer.prepare().unwrap();
        copy::prepare_vault(&store, &slots, &transfer).unwrap();
        Self { account, home, store }
    }

    fn take(&self, word: &str) -> StoredPoint {
        let point = take_point(&self.store, &files(word)).unwrap();
        push_all(&self.store, &point);
        point
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        self.account.names(DATA).into_iter().filter(|name| name.starts_with(prefix)).collect()
    }

    /// Whoever has the account and the keys alone reads these points.
    fn assert_recovers(&self, expected: &[(&StoredPoint, &str)]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let transfer = way(&self.account, None);
        Store::adopt(&path, &copy::vault_head(&transfer).unwrap()).unwrap();
        let there = Store::open(&path, &self.home.ring, options(transfer), &VoidMonitor).unwrap();
        // Opening waits for seconds only.
        let (no, _, transfer) = &there.vaults()[0];
        copy::load_catalog(&there, *no, transfer, &VoidMonitor).unwrap();
        assert_eq!(there.points().unwrap().len(), expected.len());
        for (point, word) in expected {
            assert!(restore(&there, &there.point(&point.point.id).unwrap()).unwrap() == files(word));
        }
    }

    fn regain(&self) -> Regained {
        let (no, _, transfer) = &self.store.vaults()[0];
        let regained = regain(&self.store, *no, &VoidMonitor).unwrap();
        copy::load_catalog(&self.store, *no, transfer, &VoidMonitor).unwrap();
        regained
    }

    fn assert_whole(&self) {
        let mut report = check::check(&self.store, Depth::ReadData, &VoidMonitor).unwrap();
        // The slots of these stores are not real ones.
        report.findings.retain(|finding| !finding.object.starts_with("keys/"));
        assert_eq!(report.findings, []);
    }
}

#[test]
fn what_may_go_and_is_locked_stays_is_counted_and_goes_when_the_lock_ran_out() {
    // Locked by us when it was put, or whatever it is, heartbeats and sessions too, by a policy of the container.
    for (features, lock_days) in [(LOCKS, 30), (Features { default_lock_days: 30, ..LOCKS }, 0)] {
        let there = There::new(features, lock_days);
        let (old, new) = (there.take("old"), there.take("new"));
        there.account.pass_days(1);
        let refused = {
            let row = there.store.catalog().point(&old.point.id).unwrap().unwrap();
            there.store.remove_point_from_vault(there.store.vaults()[0].0, &row).unwrap_err()
        };
        assert!(refused.to_string().contains("locked until 2027-01-30T"), "{refused}");
        assert_eq!(refused.class(), ErrorClass::Denied);
        there.assert_recovers(&[(&old, "old"), (&new, "new")]);
        // Somebody with all rights takes the lock of the point away, and it is forgotten: its packs are locked all the same.
        there.account.unlock(DATA, "rp/");
        forget(&there.store, &old);
        let packs = there.names("pack/");
        let begun = advance(&there.store, &at_once());
        assert_eq!((begun.removed.packs, begun.still_locked.packs), (0, begun.condemned.0), "{begun:?}");
        assert!(begun.condemned.0 > 1 && begun.still_locked.first.is_some(), "{begun:?}");
        assert_eq!(there.names("pack/"), packs);
        // The next run asks the account once for all of them.
        let before = there.account.asked().len();
        let again = advance(&there.store, &at_once());
        assert_eq!(again.still_locked, begun.still_locked);
        let deletes =
            there.account.asked()[before..].iter().filter(|it| it.starts_with("DELETE v-data/pack/")).count();
        assert_eq!(deletes, 1);
        there.assert_recovers(&[(&new, "new")]);
        there.assert_whole();
        there.account.pass_days(60);
        let gone = advance(&there.store, &at_once());
        assert_eq!((gone.removed.packs, gone.still_locked.packs), (begun.condemned.0, 0), "{gone:?}");
        there.assert_recovers(&[(&new, "new")]);
    }
}

#[test]
fn a_locked_pack_that_lies_in_the_vault_alone_stays_known_until_it_goes() {
    let there = There::new(LOCKS, 30);
    let (old, new) = (there.take("old"), there.take("new"));
    // As `prune` does: staging first.
    forget_and_free(&there.store, &old);
    there.account.unlock(DATA, "rp/");
    forget(&there.store, &old);
    let (known, indexes) = (there.store.catalog().packs().unwrap().len(), there.names("idx/"));
    let begun = advance(&there.store, &at_once());
    assert_eq!((begun.removed.packs, begun.still_locked.packs), (0, begun.condemned.0), "{begun:?}");
    assert!(begun.condemned.0 > 1, "{begun:?}");
    assert_eq!(there.store.catalog().packs().unwrap().len(), known);
    assert!(!there.store.catalog().misses_packs().unwrap());
    there.account.unlock(DATA, "idx/");
    assert_eq!(advance(&there.store, &at_once()).still_locked, begun.still_locked);
    assert_eq!(there.names("idx/"), indexes, "each still covers packs that are there");
    // Nothing new relies on them.
    let again = take_point(&there.store, &files("old")).unwrap();
    assert!(again.point.counts.bytes_new > 0);
    there.assert_whole();
    there.account.pass_days(60);
    let gone = advance(&there.store, &at_once());
    assert_eq!((gone.removed.packs, gone.still_locked.packs), (begun.condemned.0, 0), "{gone:?}");
    assert!(
        there
            .store
            .catalog()
            .packs_ever_seen()
            .unwrap()
            .iter()
            .all(|row| row.staged || !row.vaults.is_empty())
    );
    there.assert_recovers(&[(&new, "new")]);
}

#[test]
fn what_stays_is_locked_anew_before_its_lock_runs_out_and_what_goes_is_not() {
    let there = There::new(LOCKS, 30);
    let (old, new) = (there.take("old"), there.take("new"));
    assert_eq!(advance(&there.store, &at_once()).locks_set, 0, "they are all new");
    there.account.pass_days(10);
    assert_eq!(advance(&there.store, &at_once()).locks_set, 0, "they hold for 20 days more");
    there.account.unlock(DATA, "rp/");
    forget(&there.store, &old);
    let begun = advance(&there.store, &at_once());
    let going = begun.condemned.0 as usize;
    there.account.pass_days(10);
    let set = advance(&there.store, &at_once());
    assert!(set.locks_set > 0 && set.locks_left == 0, "{set:?}");
    let days = |name: &String| {
        there.account.locked_until(DATA, name).map(|until| (until - there.account.now()) / DAY)
    };
    let of = |prefix: &str, most: i64| {
        let names = there.names(prefix);
        names.iter().filter(|name| days(name).is_some_and(|days| days >= most)).count()
    };
    let packs = there.names("pack/").len();
    assert_eq!(of("pack/", 29), packs - going, "those that go keep the lock that they had");
    assert_eq!(of("idx/", 29), there.names("idx/").len());
    // Those had none any more ten days ago, and were locked again then.
    assert_eq!(of("rp/", 19), there.names("rp/").len());
    assert_eq!(advance(&there.store, &at_once()).locks_set, 0, "once is enough");
    there.account.pass_days(60);
    assert_eq!(advance(&there.store, &at_once()).removed.packs as usize, going);
    there.assert_recovers(&[(&new, "new")]);
}

#[test]
fn a_point_that_is_to_go_and_its_packs_go_though_space_is_freed_every_few_days() {
    let there = There::new(LOCKS, 30);
    let (old, new) = (there.take("old"), there.take("new"));
    forget_and_free(&there.store, &old);
    let no = there.store.vaults()[0].0;
    let (mut leaving, mut gone_after, mut freed) = (HashSet::new(), None, 0);
    let free = |leaving: &HashSet<RecoveryPointId>| {
        reclaim::advance(&there.store, no, &at_once(), leaving, &VoidMonitor).unwrap()
    };
    // Long enough for the lock of the point to be short when expiry first comes upon it.
    for _ in 0..2 {
        there.account.pass_days(7);
        free(&leaving);
    }
    for day in (0..100).step_by(3) {
        if gone_after.is_none() {
            let row = there.store.catalog().point(&old.point.id).unwrap().unwrap();
            match there.store.remove_point_from_vault(no, &row) {
                Ok(()) => gone_after = Some(day),
                Err(e) => assert!(e.to_string().contains("locked until"), "{e}"),
            }
            leaving.insert(old.point.id);
        }
        freed += free(&leaving).removed.packs;
        there.account.pass_days(3);
        let stays = names::point(&new.point.source_tag, &new.point.id);
        let until = there.account.locked_until(DATA, stays.as_str()).unwrap();
        assert!(until > there.account.now(), "what stays is never without a lock");
    }
    assert!(gone_after.is_some_and(|days| days <= 30), "{gone_after:?}");
    assert!(freed > 1, "{freed}");
    assert!(there.names("idx/").len() < 4, "indexes of what went go, too: {:?}", there.names("idx/"));
    there.assert_recovers(&[(&new, "new")]);
    there.assert_whole();
}

/// An intruder with all rights in the account, and nothing left on this machine but what the vault had.
fn robbed(features: Features, overwrites: bool) -> (There, StoredPoint, StoredPoint) {
    let there = There::new(features, 0);
    let (gone, stays) = (there.take("gone"), there.take("stays"));
    forget(&there.store, &gone);
    advance(&there.store, &at_once());
    forget_and_free(&there.store, &stays);
    for prefix in ["pack/", "idx/", "rp/"] {
        for name in there.names(prefix) {
            // What stands where the forgotten point was, too.
            if overwrites {
                assert!(there.account.overwrite(DATA, &name, bytes::Bytes::from("evil")));
            }
            assert!(there.account.delete(DATA, &name), "{name}");
        }
    }
    for name in there.account.names("v-control").into_iter().filter(|name| name.starts_with("gen/")) {
        assert!(there.account.delete("v-control", &name));
    }
    (there, gone, stays)
}

#[test]
fn all_that_somebody_deleted_without_a_word_comes_back_and_nothing_that_went_on_purpose() {
    let versions = Features { soft_delete_days: 0, immutability: false, ..LOCKS };
    let both = Features { immutability: false, ..LOCKS };
    for features in [SOFT, versions, both] {
        for overwrites in [false, true] {
            let (there, gone, stays) = robbed(features, overwrites);
            let regained = there.regain();
            assert!(regained.packs > 0 && regained.points > 0 && regained.generations == 2, "{regained:?}");
            assert_eq!(regained.lost, 0, "{features:?} {overwrites}");
            there.assert_recovers(&[(&stays, "stays")]);
            let row = there.store.catalog().point(&gone.point.id).unwrap().unwrap();
            assert!(row.vaults.is_empty(), "it was forgotten there");
            there.assert_whole();
            assert!(regained.points_removed <= 1 && regained.packs_removed > 0, "{regained:?}");
            let again = there.regain();
            let Regained { points_removed, packs_removed, .. } = again;
            let nothing = Regained { points_removed, packs_removed, ..Regained::default() };
            assert_eq!(again, nothing, "there is nothing left to do");
        }
    }
}

#[test]
fn a_pack_that_was_replaced_comes_back_once_a_check_has_read_it() {
    for features in [SOFT, LOCKS] {
        let there = There::new(features, 0);
        let point = there.take("stays");
        let name = names::pack(&data_packs(&there.store).remove(0).entry.id);
        let good = there.account.blob(DATA, name.as_str()).unwrap();
        forget_and_free(&there.store, &point);
        let mut evil = good.to_vec();
        evil[good.len() / 2] ^= 1;
        assert!(there.account.overwrite(DATA, name.as_str(), evil.into()));
        assert!(!check::check(&there.store, Depth::ReadData, &VoidMonitor).unwrap().findings.is_empty());
        assert_eq!(there.regain().packs, 1);
        assert_eq!(there.account.blob(DATA, name.as_str()), Some(good));
        there.assert_recovers(&[(&point, "stays")]);
        there.assert_whole();
    }
}

#[test]
fn what_is_kept_and_is_not_what_it_was_does_not_come_back_and_is_told() {
    let there = There::new(SOFT, 0);
    let point = there.take("stays");
    forget_and_free(&there.store, &point);
    let name = names::pack(&data_packs(&there.store).remove(0).entry.id);
    // While nothing is kept, somebody replaces it; then it is deleted softly.
    there.account.switch(Features { soft_delete_days: 0, ..SOFT });
    assert!(there.account.overwrite(DATA, name.as_str(), bytes::Bytes::from("evil")));
    there.account.switch(SOFT);
    assert!(there.account.delete(DATA, name.as_str()));
    let monitor = RecordingMonitor::default();
    let regained = regain(&there.store, there.store.vaults()[0].0, &monitor).unwrap();
    assert_eq!((regained.packs, regained.lost), (0, 1));
    assert!(format!("{:?}", monitor.events()).contains("nothing that is kept of it is what it was"));
    assert_eq!(there.account.blob(DATA, name.as_str()), None, "whoever has it sends it again");
    let aside = there.account.names(DATA).into_iter().filter(|name| name.starts_with("bad/")).count();
    assert_eq!(aside, 1);
}

#[test]
fn what_was_there_first_comes_back_however_often_somebody_replaced_it() {
    let there = There::new(Features { immutability: false, ..LOCKS }, 0);
    let point = there.take("stays");
    forget_and_free(&there.store, &point);
    let name = names::pack(&data_packs(&there.store).remove(0).entry.id);
    let good = there.account.blob(DATA, name.as_str());
    for n in 0..150 {
        assert!(there.account.overwrite(DATA, name.as_str(), format!("evil {n}").into()));
    }
    assert!(there.account.delete(DATA, name.as_str()));
    let regained = there.regain();
    assert_eq!((regained.packs, regained.lost), (1, 0));
    assert_eq!(there.account.blob(DATA, name.as_str()), good);
}

#[test]
fn an_object_that_cannot_be_moved_aside_keeps_nothing_from_the_others() {
    let there = There::new(LOCKS, 0);
    let point = there.take("stays");
    forget_and_free(&there.store, &point);
    let stuck = names::pack(&data_packs(&there.store).remove(0).entry.id);
    let other = there.names("pack/").into_iter().find(|name| name != stuck.as_str()).unwrap();
    let good = there.account.blob(DATA, stuck.as_str()).unwrap();
    assert!(there.account.overwrite(DATA, stuck.as_str(), vec![7; good.len()].into()));
    there.account.hold(DATA, stuck.as_str(), true);
    check::check(&there.store, Depth::ReadData, &VoidMonitor).unwrap();
    assert!(there.account.delete(DATA, &other));
    let regained = there.regain();
    assert_eq!((regained.packs, regained.lost), (1, 1), "{regained:?}");
    assert!(there.account.blob(DATA, &other).is_some());
}

#[test]
fn an_object_that_is_only_as_long_as_the_word_that_a_point_was_removed_is_none() {
    let there = There::new(LOCKS, 0);
    let point = there.take("stays");
    let name = there.names("rp/").into_iter().find(|name| name.contains(&point.point.id.hex())).unwrap();
    let (tag, attempt) = names::outcome_of(&ObjectName::new(&name).unwrap()).unwrap();
    let behind = names::outcome(&tag, &attempt.next().unwrap());
    let garbage = vec![7; usize::try_from(crate::fence::Revocation::LEN).unwrap()];
    assert!(there.account.overwrite(DATA, behind.as_str(), garbage.into()));
    assert!(there.account.delete(DATA, &name));
    let regained = there.regain();
    assert_eq!((regained.points, regained.points_removed), (1, 0), "{regained:?}");
    assert!(there.account.blob(DATA, &name).is_some());
}

#[test]
fn a_vault_that_keeps_nothing_is_said_to() {
    let home = Home::new();
    let (_vault, store) = super::hostile::prepared(&home);
    let refused = regain(&store, store.vaults()[0].0, &VoidMonitor).unwrap_err();
    assert!(refused.to_string().contains("keeps nothing"), "{refused}");
}
