//! Tests of what the way from a vault, and others who write there at the same time, do to a store: nothing that lasts.

use super::hostile::{data_packs, delete_catalog, prepared, push, recovered};
use super::losses::faulty;
use super::*;
use crate::catalog::Mark;
use crate::check::{self, Depth};
use crate::vault::testing::Fault;
use crate::vault::{ListPage, PutNew, VaultError, Verb};

/// Whether everything the vault showed was read.
fn is_filled(store: &Store) -> bool {
    store.catalog().has_mark(Mark::FilledFrom(store.vaults()[0].0)).unwrap()
}

#[test]
fn what_a_vault_may_have_that_a_catalog_has_not_met_is_not_called_lost() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let point = take_point(&store, &sample(1)).unwrap();
    push(&store, &point, &RecordingMonitor::default()).unwrap();
    let lost = home.path().join(names::pack(&data_packs(&store).remove(0).entry.id).as_str());
    drop(store);
    std::fs::remove_file(lost).unwrap();
    delete_catalog(&home.path());
    let away = faulty(&vault);
    away.fail_any_from(1, Fault::Deny);
    let way = Transfer::new(away, Arc::new(ManualClock::default()), TransferPolicy::default()).unwrap();
    let options = Home::options(vec![("memory:v".into(), way)]);
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    let report = check::check(&store, Depth::Structure, &VoidMonitor).unwrap();
    let of_chunks: Vec<_> = report.findings.iter().filter(|f| f.object == "recovery points").collect();
    assert!(of_chunks.len() == 1 && of_chunks[0].unseen, "{:?}", report.findings);
}

#[test]
fn a_point_that_came_damaged_from_its_vault_is_looked_at_again() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let point = take_point(&store, &sample(1)).unwrap();
    push(&store, &point, &RecordingMonitor::default()).unwrap();
    let name = names::point(&point.point.source_tag, &point.point.id);
    let whole = transfer(&vault).get(&name, POINT_LIMIT).unwrap();
    let mut damaged = whole.to_vec();
    damaged[100] ^= 1;
    vault.replace(&name, damaged.into());
    let (dir, store) = recovered(&home, &vault);
    assert!(store.points().unwrap().is_empty() && !is_filled(&store));
    drop(store);
    vault.replace(&name, whole);
    let options = Home::options(vec![("memory:v".into(), transfer(&vault))]);
    let store = Store::open(&dir.path().join("new"), &home.ring, options, &VoidMonitor).unwrap();
    assert!(store.points().unwrap().len() == 1 && is_filled(&store));
}

#[test]
fn a_session_that_another_push_of_the_same_point_made_just_now_is_no_conflict() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let point = take_point(&store, &sample(1)).unwrap();
    let race =
        Arc::new(Raced { inner: vault, name: names::session(&crate::id::Attempt::first(point.point.id)) });
    let raced = Transfer::new(race, Arc::new(ManualClock::default()), TransferPolicy::default()).unwrap();
    let no = store.vaults()[0].0;
    copy::push_point(&store, no, &raced, &point.point.id, &VoidMonitor).unwrap();
}

/// A vault in which somebody puts other bytes of the same length under a name just before we do.
#[derive(Debug)]
struct Raced {
    inner: Arc<MemoryVault>,
    name: ObjectName,
}

#[async_trait::async_trait]
impl crate::vault::Vault for Raced {
    fn address(&self) -> String {
        self.inner.address()
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        self.inner.prepare().await
    }

    async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError> {
        if *name == self.name {
            self.inner.put_new(name, vec![7; body.len()].into()).await?;
        }
        self.inner.put_new(name, body).await
    }

    async fn get_range(&self, name: &ObjectName, range: std::ops::Range<u64>) -> Result<Bytes, VaultError> {
        self.inner.get_range(name, range).await
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        self.inner.stat(name).await
    }

    async fn list(&self, prefix: &str, from: Option<&str>) -> Result<ListPage, VaultError> {
        self.inner.list(prefix, from).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        self.inner.delete(name).await
    }

    async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError> {
        self.inner.delete_exactly(name, bytes).await
    }
}

#[test]
fn a_slot_in_a_vault_that_is_too_long_to_be_one_closes_no_vault() {
    let home = Home::new();
    let (vault, _store) = prepared(&home);
    vault.replace(&names::slot(&SlotId([9; 16])), vec![0; SMALL_OBJECT as usize + 1].into());
    let slots = copy::vault_head(&transfer(&vault)).unwrap().slots;
    assert!(slots.len() == 2 && slots.contains(&(SlotId([9; 16]), Vec::new())), "{slots:?}");
}

#[test]
fn a_slot_that_the_way_from_its_vault_spoils_once_is_kept_as_it_lies_there() {
    let home = Home::new();
    let (vault, _store) = prepared(&home);
    let there = copy::vault_head(&transfer(&vault)).unwrap();
    // The config twice, and the slot twice: so with that.
    for nth in 1..=4 {
        let way = faulty(&vault);
        way.fail(Verb::Get, nth, Fault::Flip);
        let transfer =
            Transfer::new(way, Arc::new(ManualClock::default()), TransferPolicy::default()).unwrap();
        let head = copy::vault_head(&transfer).unwrap();
        assert_eq!((head.config, head.slots), (there.config.clone(), there.slots.clone()), "reading {nth}");
    }
}
