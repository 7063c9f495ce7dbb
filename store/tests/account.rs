//! What a storage account keeps: soft delete, versions, and locks of single blobs. Against an account of the tests that answers as the service documents
//! (`vault::testing::StorageAccount`), and against the emulator, which has none of it. A real account was not tried.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::vault::address::{Secret, VaultAddress};
use holdfast_store::vault::azure::{AzureCredential, AzureVault};
use holdfast_store::vault::conformance::conformance;
use holdfast_store::vault::keeper::{DAY, Keeps, Lock, LockTerms};
use holdfast_store::vault::testing::{Azurite, Features, StorageAccount};
use holdfast_store::vault::{ObjectName, PutNew, Vault, VaultError};

const NOW: i64 = 1_798_718_400;
const ALL: Features =
    Features { soft_delete_days: 14, versions: true, immutability: true, default_lock_days: 0 };
const SOFT: Features =
    Features { soft_delete_days: 7, versions: false, immutability: false, default_lock_days: 0 };
const NONE: Features =
    Features { soft_delete_days: 0, versions: false, immutability: false, default_lock_days: 0 };
const MONTH: LockTerms = LockTerms { days: 30, for_good: false };

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn vault_at(port: u16, name: &str, credential: &AzureCredential) -> AzureVault {
    let VaultAddress::Azure(address) = Azurite::address(name, port).unwrap() else { unreachable!() };
    AzureVault::new(&address, credential).unwrap()
}

/// An account, and a prepared vault in it.
async fn account(features: Features) -> (StorageAccount, AzureVault) {
    let account = StorageAccount::start(features, NOW).unwrap();
    let vault = vault_at(account.port(), "v", &Azurite::credential());
    vault.prepare().await.unwrap();
    (account, vault)
}

async fn put(vault: &AzureVault, object: &str, body: &'static str) {
    assert_eq!(vault.put_new(&name(object), Bytes::from(body)).await.unwrap(), PutNew::Created);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_keeps_every_promise_whatever_it_keeps_besides() {
    for features in [NONE, SOFT, ALL] {
        let (_account, vault) = account(features).await;
        conformance(std::sync::Arc::new(vault)).await.unwrap();
    }
}

#[tokio::test]
async fn an_account_is_asked_what_it_keeps() {
    for features in [NONE, SOFT, Features { versions: true, ..NONE }, ALL] {
        let (_account, vault) = account(features).await;
        put(&vault, "config", "config").await;
        let keeps = vault.keeper().unwrap().keeps().await.unwrap();
        let expected = Keeps {
            removed_days: Some(features.soft_delete_days),
            versions: features.versions.then_some(true),
            locks: Some(features.immutability),
        };
        assert_eq!(keeps, expected, "{features:?}");
    }
}

#[tokio::test]
async fn what_a_signature_may_not_ask_for_is_not_known_and_no_error() {
    let (account, vault) = account(ALL).await;
    put(&vault, "config", "config").await;
    let keeps = async |signature: &str| {
        let vault = vault_at(account.port(), "v", &AzureCredential::Sas(Secret::new(signature)));
        vault.keeper().unwrap().keeps().await.unwrap()
    };
    let objects_alone = keeps("sv=1&ss=b&srt=o&sp=rcl&sig=x").await;
    assert_eq!(objects_alone, Keeps { removed_days: None, versions: Some(true), locks: None });
    assert_eq!(keeps("sv=1&ss=b&srt=co&sp=c&sig=x").await, Keeps::default());
    let all = keeps("sv=1&ss=b&srt=sco&sp=rl&sig=x").await;
    assert_eq!(all, Keeps { removed_days: Some(14), versions: Some(true), locks: Some(true) });
}

#[tokio::test]
async fn packs_points_and_indexes_are_locked_when_they_are_put_and_nothing_else_is() {
    let (account, vault) = account(ALL).await;
    let vault = vault.with_lock(Some(MONTH));
    for lasting in ["pack/aa/1", "idx/1", "rp/00/1"] {
        put(&vault, lasting, "body").await;
        let until = account.locked_until("v-data", lasting).unwrap();
        assert!((29 * DAY..=30 * DAY + 60).contains(&(until - NOW)), "{lasting}: {}", until - NOW);
        let refused = vault.delete(&name(lasting)).await.unwrap_err();
        assert!(
            matches!(&refused, VaultError::Locked { lock: Lock::Until(at), .. } if *at == until),
            "{refused:?}"
        );
        assert!(!refused.is_transient());
        // Again, as after a lost answer: it is there, and nothing is an error.
        assert_eq!(vault.put_new(&name(lasting), Bytes::from("body")).await.unwrap(), PutNew::AlreadyThere);
    }
    for passing in ["hb/1.0", "sess/1", "hold/00/1", "bad/pack/aa/1", "config", "keys/1", "gen/1"] {
        put(&vault, passing, "body").await;
        assert!(vault.delete(&name(passing)).await.unwrap(), "{passing}");
    }
    account.pass_days(31);
    assert!(vault.delete(&name("pack/aa/1")).await.unwrap(), "it ran out");
}

#[tokio::test]
async fn a_lock_is_reckoned_by_the_clock_of_the_account() {
    // Some years ahead of this machine, or behind.
    for now in [NOW + 3650 * DAY, 1_500_000_000] {
        let account = StorageAccount::start(ALL, now).unwrap();
        let vault = vault_at(account.port(), "v", &Azurite::credential()).with_lock(Some(MONTH));
        vault.prepare().await.unwrap();
        put(&vault, "pack/aa/1", "body").await;
        let until = account.locked_until("v-data", "pack/aa/1").unwrap();
        assert!((29 * DAY..=30 * DAY + 60).contains(&(until - now)), "{}", until - now);
    }
}

#[tokio::test]
async fn a_lock_that_an_account_does_not_take_is_an_error_that_says_what_lacks() {
    let (_account, vault) = account(SOFT).await;
    let refused =
        vault.with_lock(Some(MONTH)).put_new(&name("pack/aa/1"), Bytes::from("x")).await.unwrap_err();
    assert!(refused.to_string().contains("v-data needs version-level immutability"), "{refused}");
    let (account, _) = self::account(ALL).await;
    let writer = AzureCredential::Sas(Secret::new("sv=1&ss=b&srt=co&sp=rcl&sig=x"));
    let vault = vault_at(account.port(), "v", &writer).with_lock(Some(MONTH));
    let refused = vault.put_new(&name("pack/aa/1"), Bytes::from("x")).await.unwrap_err();
    assert!(
        matches!(&refused, VaultError::Denied { detail } if detail.contains("the right to set")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_legal_hold_and_a_policy_of_the_container_keep_an_object_as_a_lock_does() {
    let (account, vault) = account(Features { default_lock_days: 3, ..ALL }).await;
    put(&vault, "hb/1.0", "body").await;
    let refused = vault.delete(&name("hb/1.0")).await.unwrap_err();
    assert!(matches!(refused, VaultError::Locked { lock: Lock::Until(_), .. }), "{refused:?}");
    account.pass_days(4);
    account.hold("v-data", "hb/1.0", true);
    let refused = vault.delete(&name("hb/1.0")).await.unwrap_err();
    assert_eq!(refused.to_string(), "hb/1.0 is under a legal hold");
    account.hold("v-data", "hb/1.0", false);
    assert!(vault.delete(&name("hb/1.0")).await.unwrap());
}

#[tokio::test]
async fn locks_are_listed_and_made_to_hold_for_longer() {
    for for_good in [false, true] {
        let (account, vault) = account(ALL).await;
        let vault = vault.with_lock(Some(LockTerms { for_good, ..MONTH })).with_page_len(2);
        let names = ["pack/aa/1", "pack/aa/2", "pack/bb/3"];
        for object in names {
            put(&vault, object, "body").await;
        }
        let keeper = vault.keeper().unwrap();
        account.pass_days(20);
        // The service's time is that of its last answer.
        vault.stat(&name(names[1])).await.unwrap();
        keeper.lock(&name(names[1]), for_good).await.unwrap();
        let (mut listed, mut from) = (Vec::new(), None);
        loop {
            let page = keeper.locked("pack/", from.as_deref()).await.unwrap();
            listed.extend(page.items);
            let Some(next) = page.next else { break };
            from = Some(next);
        }
        assert_eq!(listed.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), names);
        assert!(listed.iter().all(|l| l.for_good == for_good));
        let days = |at: usize| match listed[at].lock {
            Lock::Until(until) => (until - account.now() + DAY / 2) / DAY,
            other => panic!("{other:?}"),
        };
        assert_eq!([days(0), days(1), days(2)], [10, 30, 10]);
    }
}

/// What of an object can still be had, newest first.
async fn formers(vault: &AzureVault, object: &str) -> Vec<Bytes> {
    let (keeper, name) = (vault.keeper().unwrap(), name(object));
    let mut bodies = Vec::new();
    for former in keeper.formers(&name).await.unwrap() {
        bodies.push(keeper.get_former(&name, &former).await.unwrap());
    }
    bodies
}

async fn now(vault: &AzureVault, object: &str) -> Option<Bytes> {
    let len = vault.stat(&name(object)).await.unwrap()?;
    Some(vault.get_range(&name(object), 0..len).await.unwrap())
}

#[tokio::test]
async fn what_was_deleted_softly_is_back_as_it_was() {
    let (account, vault) = account(SOFT).await;
    put(&vault, "pack/aa/1", "good").await;
    assert!(account.overwrite("v-data", "pack/aa/1", Bytes::from("evil")));
    assert!(account.delete("v-data", "pack/aa/1"));
    assert_eq!(now(&vault, "pack/aa/1").await, None);
    let kept = vault.keeper().unwrap().kept("pack/", None).await.unwrap();
    assert!(kept.items.contains(&name("pack/aa/1")));
    assert_eq!(formers(&vault, "pack/aa/1").await, ["good"]);
    assert_eq!(
        now(&vault, "pack/aa/1").await.unwrap(),
        "evil",
        "what was deleted last is back, whatever it is"
    );
    put(&vault, "pack/aa/2", "other").await;
    account.delete("v-data", "pack/aa/2");
    account.pass_days(8);
    assert_eq!(
        (formers(&vault, "pack/aa/2").await.len(), now(&vault, "pack/aa/2").await),
        (0, None),
        "too late"
    );
}

#[tokio::test]
async fn versions_of_what_was_replaced_or_deleted_are_read_oldest_first_also_those_that_were_deleted_themselves()
 {
    let (account, vault) = account(Features { immutability: false, ..ALL }).await;
    put(&vault, "pack/aa/1", "one").await;
    for body in ["two", "three"] {
        assert!(account.overwrite("v-data", "pack/aa/1", Bytes::from(body)));
    }
    assert_eq!(formers(&vault, "pack/aa/1").await, ["one", "two"]);
    account.delete("v-data", "pack/aa/1");
    assert_eq!(formers(&vault, "pack/aa/1").await, ["one", "two", "three"]);
    assert_eq!(now(&vault, "pack/aa/1").await, None, "with versions nothing comes back by itself");
    // A signature that reads and lists needs no more, as long as nothing was deleted softly.
    let reader = AzureCredential::Sas(Secret::new("sv=1&ss=b&srt=co&sp=rl&sig=x"));
    assert_eq!(formers(&vault_at(account.port(), "v", &reader), "pack/aa/1").await.len(), 3);
    put(&vault, "pack/aa/1", "one").await;
    assert_eq!(now(&vault, "pack/aa/1").await.unwrap(), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_emulator_keeps_nothing_and_says_so_or_nothing_at_all() {
    let Some(main_js) = std::env::var_os("HOLDFAST_AZURITE").map(PathBuf::from) else {
        let _ = writeln!(std::io::stderr(), "SKIP: HOLDFAST_AZURITE is not set, nothing was tested");
        return;
    };
    let azurite = tokio::task::spawn_blocking(move || Azurite::shared(&main_js).unwrap()).await.unwrap();
    let named = format!("t{}", RecoveryPointId::random().hex());
    let vault = vault_at(azurite.port(), &named, &Azurite::credential());
    vault.prepare().await.unwrap();
    put(&vault, "config", "config").await;
    put(&vault, "pack/aa/1", "body").await;
    let keeper = vault.keeper().unwrap();
    let keeps = keeper.keeps().await.unwrap();
    assert!(keeps.removed_days.is_none_or(|days| days == 0), "{keeps:?}");
    assert!(keeps.versions.is_none() && keeps.locks != Some(true), "{keeps:?}");
    assert_eq!(keeper.lock_of(&name("pack/aa/1")).await.unwrap(), None);
    assert_eq!(keeper.locked("pack/", None).await.unwrap().items, []);
    assert!(keeper.kept("pack/", None).await.unwrap().items.is_empty());
    assert!(keeper.formers(&name("pack/aa/1")).await.unwrap().is_empty());
    assert!(vault.delete(&name("pack/aa/1")).await.unwrap());
    assert!(keeper.formers(&name("pack/aa/1")).await.unwrap().is_empty());
    let vault = vault.with_lock(Some(MONTH));
    put(&vault, "pack/aa/2", "body").await;
    let refused = vault.keeper().unwrap().lock(&name("pack/aa/2"), false).await.unwrap_err();
    assert!(!refused.is_transient() && refused.to_string().contains("APINotImplemented"), "{refused:?}");
}
