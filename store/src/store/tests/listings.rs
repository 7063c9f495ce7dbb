//! Tests of listings of a vault that others change while it is listed: only what was there before, and still is said to be, can be
//! missing.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;

use async_trait::async_trait;

use super::hostile::{data_packs, delete_catalog, prepared, push, recovered, reopened};
use super::losses::{faulty, only_in_vault, open_on};
use super::pack_rows::damage;
use super::*;
use crate::catalog::Mark;
use crate::check::{self, Depth};
use crate::vault::testing::{Fault as VaultFault, FaultyVault};
use crate::vault::{ListPage, PutNew, Vault, VaultError, Verb};

type Meanwhile = Box<dyn FnOnce() + Send>;

/// A vault that does something once, when a listing of a prefix was made and is not yet answered.
pub(super) struct Slow {
    inner: Arc<MemoryVault>,
    prefix: &'static str,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Slow {
    pub(super) fn doing(
        inner: &Arc<MemoryVault>,
        prefix: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self { inner: inner.clone(), prefix, meanwhile: Mutex::new(Some(Box::new(work))) }
    }
}

#[async_trait]
impl Vault for Slow {
    fn address(&self) -> String {
        self.inner.address()
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        self.inner.prepare().await
    }

    async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError> {
        self.inner.put_new(name, body).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError> {
        self.inner.get_range(name, range).await
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        self.inner.stat(name).await
    }

    async fn list(&self, prefix: &str, from: Option<&str>) -> Result<ListPage, VaultError> {
        let page = self.inner.list(prefix, from).await;
        if prefix == self.prefix {
            let meanwhile = self.meanwhile.lock().unwrap().take();
            // On a thread of its own: another process, which waits for its vault.
            if let Some(work) = meanwhile {
                std::thread::spawn(work).join().unwrap();
            }
        }
        page
    }

    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        self.inner.delete(name).await
    }

    async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError> {
        self.inner.delete_exactly(name, bytes).await
    }
}

/// Refreshes the vault on a second handle of the store while `work` is done with the first, as soon as `prefix` was listed.
/// What was told.
fn refresh_beside(
    home: &Home,
    vault: &Arc<MemoryVault>,
    prefix: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> RecordingMonitor {
    let slow = Arc::new(Slow::doing(vault, prefix, work));
    let beside = open_on(home, &home.path(), slow.clone());
    let (no, _, way) = beside.vaults()[0].clone();
    // Both met the vault when they were opened, which casts doubt of its own.
    beside.catalog().set_mark(Mark::Doubtful, false).unwrap();
    let monitor = RecordingMonitor::default();
    copy::refresh_vault(&beside, no, &way, &monitor).unwrap();
    assert!(slow.meanwhile.lock().unwrap().is_none(), "{prefix} was not listed");
    monitor
}

fn has_in_vault(store: &Store, point: &StoredPoint) -> bool {
    let row = store.catalog().point(&point.point.id).unwrap().unwrap();
    row.vaults.contains(&store.vaults()[0].0)
}

#[test]
fn a_vault_that_is_met_keeps_nobody_from_the_lock_and_who_has_it_keeps_nobody_from_meeting() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (dir, there) = recovered(&home, &vault);
    let path = dir.path().join("new");
    drop(there);
    delete_catalog(&path);
    let (watched, is_free) = (faulty(&vault), Arc::new(Mutex::new(true)));
    let (of, seen) = (path.clone(), is_free.clone());
    watched.watch(move || *seen.lock().unwrap() &= StoreLock::take(&of, "lock", true).is_ok());
    drop(open_on(&home, &path, watched.clone()));
    assert!(*is_free.lock().unwrap() && watched.count(Verb::Get) > 0);

    let there = Home::options(Vec::new());
    let other = Store::open(&path, &home.ring, there, &VoidMonitor).unwrap();
    other.catalog().forget_vault(other.catalog().vaults().unwrap()[0].0).unwrap();
    let _lock = other.lock().unwrap();
    assert_eq!(reopened(&home, &vault, &path).points().unwrap().len(), 1);
}

#[test]
fn a_vault_that_takes_nothing_holds_up_a_backup_for_no_longer_than_one_that_lists_nothing() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    push(&store, &take_point(&store, &sample(1)).unwrap(), &RecordingMonitor::default()).unwrap();
    let (dir, there) = recovered(&home, &vault);
    drop((store, there));
    let clock = Arc::new(ManualClock::default());
    let hanging = Arc::new(FaultyVault::new(vault, clock.clone()));
    let transfer = Transfer::new(hanging.clone(), clock.clone(), TransferPolicy::default()).unwrap();
    let options = StoreOptions { clock: clock.clone(), ..Home::options(vec![("memory:v".into(), transfer)]) };
    let store = Store::open(&dir.path().join("new"), &home.ring, options, &VoidMonitor).unwrap();
    hanging.forget();
    hanging.fail_from(Verb::Put, 1, VaultFault::Hang(Duration::from_secs(31)));
    let before = clock.monotonic();
    drop(begin_online(&store, &VoidMonitor).unwrap());
    let took = clock.monotonic() - before;
    assert!(hanging.count(Verb::Put) > 0 && took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn what_a_push_confirms_while_the_vault_is_listed_is_not_taken_for_lost() {
    for prefix in [names::PACKS, names::POINTS] {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let one = take_point(&store, &sample(1)).unwrap();
        push(&store, &one, &RecordingMonitor::default()).unwrap();
        let two = take_point(&store, &sample(2)).unwrap();
        let (other, id) = (home.open_with(&vault), two.point.id);
        let told = refresh_beside(&home, &vault, prefix, move || {
            let (no, _, way) = other.vaults()[0].clone();
            assert!(copy::push_point(&other, no, &way, &id, &VoidMonitor).unwrap().packs > 0);
        });
        assert_eq!(told.events(), [], "{prefix}");
        assert!(has_in_vault(&store, &one) && has_in_vault(&store, &two), "{prefix}");
        assert!(!store.catalog().has_mark(Mark::Doubtful).unwrap(), "{prefix}");
        let no = store.vaults()[0].0;
        assert!(store.catalog().packs().unwrap().iter().all(|row| row.vaults.contains(&no)), "{prefix}");
    }
}

#[test]
fn what_is_removed_on_purpose_while_the_vault_is_listed_is_not_taken_for_lost() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (other, row) = (home.open_with(&vault), data_packs(&store).remove(0));
    let name = names::pack(&row.entry.id);
    // The file goes before it is listed, the row while it is.
    assert!(transfer(&vault).delete(&name).unwrap());
    let told = refresh_beside(&home, &vault, names::PACKS, move || {
        other.catalog().set_confirmed(row.no, other.vaults()[0].0, false).unwrap();
    });
    assert_eq!(told.events(), []);
    assert!(has_in_vault(&store, &one));
}

#[test]
fn a_point_that_a_push_confirms_while_a_loss_is_found_is_put_again() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let lost = data_packs(&store).remove(0);
    assert!(transfer(&vault).delete(&names::pack(&lost.entry.id)).unwrap());
    let two = take_point(&store, &sample(1)).unwrap();
    let (other, id) = (home.open_with(&vault), two.point.id);
    let told = refresh_beside(&home, &vault, names::PACKS, move || {
        let (no, _, way) = other.vaults()[0].clone();
        copy::push_point(&other, no, &way, &id, &VoidMonitor).unwrap();
    });
    assert!(format!("{:?}", told.events()).contains("the pack is missing from vault"));
    assert!(!has_in_vault(&store, &two), "it relies on what is lost");
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    assert!(vault.object(&names::pack(&lost.entry.id)).is_some());
}

#[test]
fn a_row_that_is_found_damaged_while_a_vault_is_listed_is_not_blamed_on_the_vault() {
    let (home, vault, dir, there) = only_in_vault();
    let path = dir.path().join("new");
    let pack = data_packs(&there).remove(0).no;
    drop(there);
    let other = reopened(&home, &vault, &path);
    let slow = Slow::doing(&vault, names::PACKS, move || damage(&other, "len = len + 1", pack));
    let store = open_on(&home, &path, Arc::new(slow));
    let e = begin_online(&store, &VoidMonitor).unwrap_err();
    assert!(e.to_string().contains("the catalog's row of pack"), "{e}");
    drop(begin_online(&store, &VoidMonitor).unwrap());
    assert!(restore(&store, &store.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn a_point_that_comes_while_a_check_begins_is_whole_in_its_vault() {
    let home = Home::new();
    let (vault, writer) = prepared(&home);
    let push_one = |writer: &Store, version| {
        let point = take_point(writer, &sample(version)).unwrap();
        push(writer, &point, &RecordingMonitor::default()).unwrap();
    };
    push_one(&writer, 1);
    let watched = faulty(&vault);
    let beside = open_on(&home, &home.path(), watched.clone());
    let writer = Mutex::new(Some(writer));
    // The first thing that the check asks of the vault; what the catalog said before that it has read.
    watched.watch(move || {
        let writer = writer.lock().unwrap().take();
        if let Some(writer) = writer {
            std::thread::spawn(move || push_one(&writer, 2)).join().unwrap();
        }
    });
    let report = check::check(&beside, Depth::Structure, &VoidMonitor).unwrap();
    assert_eq!(beside.points().unwrap().len(), 2);
    // The slots of these stores are none.
    assert!(report.findings.iter().all(|f| f.object.starts_with("keys/")), "{:?}", report.findings);
}
