//! The Azure vault against a real emulator, straight and through a proxy that spoils what passes.
//!
//! Needs `HOLDFAST_AZURITE`, the path of `dist/src/blob/main.js` in the npm package `azurite`; without it each test says
//! SKIP and proves nothing. Each test has a vault of its own name in a shared emulator.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_store::clock::{Clock, Deadline, ManualClock, SystemClock, Timestamp};
use holdfast_store::id::RecoveryPointId;
use holdfast_store::transfer::{Probed, Transfer, TransferPolicy};
use holdfast_store::vault::address::{Credentials, Secret, VaultAddress, open};
use holdfast_store::vault::azure::{AzureCredential, AzureVault};
use holdfast_store::vault::conformance::conformance;
use holdfast_store::vault::testing::{Azurite, HttpFault, HttpProxy, Verb};
use holdfast_store::vault::{ObjectName, PutNew, Vault, VaultError};

/// The emulator's program, or nothing and a line that says so.
fn main_js() -> Option<PathBuf> {
    let found = std::env::var_os("HOLDFAST_AZURITE").map(PathBuf::from);
    if found.is_none() {
        // Not by `println!`, which is swallowed when a test succeeds.
        let _ = writeln!(std::io::stderr(), "SKIP: HOLDFAST_AZURITE is not set, nothing was tested");
    }
    found
}

fn azurite() -> Option<Arc<Azurite>> {
    Some(Azurite::shared(&main_js()?).unwrap())
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// A vault of a new name, at a port.
fn vault_at(port: u16, credential: AzureCredential) -> AzureVault {
    let name = format!("t{}", RecoveryPointId::random().hex());
    named_vault_at(port, &name, credential)
}

fn named_vault_at(port: u16, name: &str, credential: AzureCredential) -> AzureVault {
    let VaultAddress::Azure(address) = Azurite::address(name, port).unwrap() else { unreachable!() };
    AzureVault::new(&address, &credential).unwrap()
}

fn body(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn quick() -> TransferPolicy {
    TransferPolicy {
        backoff_first: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        retry_budget: Duration::from_secs(60),
        ..TransferPolicy::default()
    }
}

/// A prepared vault behind a proxy.
struct Spoilt {
    _azurite: Arc<Azurite>,
    proxy: HttpProxy,
    vault: Arc<AzureVault>,
    transfer: Arc<Transfer>,
}

fn spoilt(policy: TransferPolicy, clock: Arc<dyn Clock>) -> Option<Spoilt> {
    let azurite = azurite()?;
    let proxy = HttpProxy::start(azurite.port()).unwrap();
    let vault = Arc::new(vault_at(proxy.port(), Azurite::credential()));
    let transfer = Transfer::new(vault.clone(), clock, policy).unwrap();
    transfer.prepare().unwrap();
    Some(Spoilt { _azurite: azurite, proxy, vault, transfer })
}

fn spoilt_quickly() -> Option<Spoilt> {
    spoilt(quick(), Arc::new(SystemClock))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_keeps_every_promise() {
    let Some(azurite) = azurite() else { return };
    conformance(Arc::new(vault_at(azurite.port(), Azurite::credential()))).await.unwrap();
    conformance(Arc::new(vault_at(azurite.port(), Azurite::credential()).with_page_len(3))).await.unwrap();
}

#[tokio::test]
async fn an_emulator_that_checks_the_service_version_knows_ours() {
    let Some(main_js) = main_js() else { return };
    let azurite = Azurite::start(&main_js, &[]).unwrap();
    conformance(Arc::new(vault_at(azurite.port(), Azurite::credential()))).await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_spoils_nothing_changes_nothing() {
    let Some(azurite) = azurite() else { return };
    let proxy = HttpProxy::start(azurite.port()).unwrap();
    conformance(Arc::new(vault_at(proxy.port(), Azurite::credential()))).await.unwrap();
}

#[tokio::test]
async fn connection_strings_and_signatures_open_a_vault() {
    let Some(azurite) = azurite() else { return };
    let text = format!(
        "DefaultEndpointsProtocol=http;AccountName={};AccountKey={};BlobEndpoint=http://127.0.0.1:{}/{};",
        Azurite::ACCOUNT,
        Azurite::KEY,
        azurite.port(),
        Azurite::ACCOUNT
    );
    let by_string = AzureCredential::ConnectionString(Secret::new(text));
    conformance(Arc::new(vault_at(azurite.port(), by_string))).await.unwrap();
    conformance(Arc::new(vault_at(azurite.port(), AzureCredential::Sas(sas("rwdlac"))))).await.unwrap();
}

fn sas(rights: &str) -> Secret {
    Secret::new(Azurite::sas(rights))
}

#[test]
fn a_writer_that_may_only_create_and_read_is_enough() {
    let Some(azurite) = azurite() else { return };
    let vault = format!("t{}", RecoveryPointId::random().hex());
    let owner = named_vault_at(azurite.port(), &vault, Azurite::credential());
    let policy = quick();
    Transfer::new(Arc::new(owner), Arc::new(SystemClock), policy).unwrap().prepare().unwrap();
    let pair = AzureCredential::SasPair { data: sas("rcl"), control: sas("rl") };
    let writer = named_vault_at(azurite.port(), &vault, pair);
    let writer = Transfer::new(Arc::new(writer), Arc::new(SystemClock), policy).unwrap();
    writer.prepare().unwrap();
    assert_eq!(writer.probe().unwrap(), Probed { may_delete: false });
    let first = writer.put_new(&name("pack/aa/1"), body(1000)).unwrap();
    assert!(!first.already());
    assert!(writer.put_new(&name("pack/aa/1"), body(1000)).unwrap().already());
    assert!(matches!(writer.put_new(&name("config"), body(10)), Err(VaultError::Denied { .. })));
    assert!(matches!(writer.delete(&name("pack/aa/1")), Err(VaultError::Denied { .. })));
}

#[tokio::test]
async fn a_wrong_key_and_a_wrong_signature_are_denied_without_being_shown() {
    let Some(azurite) = azurite() else { return };
    let wrong_key = AzureCredential::SharedKey(Secret::new("Z2VoZWlt"));
    let wrong_sas =
        AzureCredential::Sas(Secret::new("sv=2022-11-02&ss=b&srt=sco&sp=rwdlac&se=2090-01-01&sig=Z2VoZWlt"));
    for credential in [wrong_key, wrong_sas] {
        let vault = vault_at(azurite.port(), credential);
        for error in [vault.prepare().await.unwrap_err(), vault.stat(&name("a")).await.unwrap_err()] {
            assert!(matches!(error, VaultError::Denied { .. }), "{error}");
            assert!(!format!("{error} {error:?} {vault:?}").contains("Z2VoZWlt"));
        }
    }
}

#[tokio::test]
async fn a_container_that_is_missing_is_not_an_empty_vault() {
    let Some(azurite) = azurite() else { return };
    let vault = vault_at(azurite.port(), Azurite::credential());
    assert!(matches!(vault.stat(&name("pack/x")).await, Err(VaultError::NotFound { .. })));
    assert!(matches!(vault.list("pack/", None).await, Err(VaultError::NotFound { .. })));
    assert!(matches!(vault.delete(&name("pack/x")).await, Err(VaultError::NotFound { .. })));
    assert!(matches!(vault.put_new(&name("pack/x"), body(1)).await, Err(VaultError::NotFound { .. })));
}

#[tokio::test]
async fn a_machine_that_does_not_answer_is_unavailable() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sas = AzureCredential::Sas(Secret::new("sig=Z2VoZWlt"));
    let error = vault_at(unused, sas).stat(&name("a")).await.unwrap_err();
    assert!(matches!(error, VaultError::Unavailable { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("Z2VoZWlt"), "{error:?}");
}

#[test]
fn an_address_and_credentials_open_a_vault() {
    let Some(azurite) = azurite() else { return };
    let address = Azurite::address(&format!("t{}", RecoveryPointId::random().hex()), azurite.port()).unwrap();
    let vault = open(&address, &Credentials { azure: Some(Azurite::credential()) }).unwrap();
    assert_eq!(vault.address(), address.to_string());
    let transfer = Transfer::new(vault, Arc::new(SystemClock), quick()).unwrap();
    transfer.prepare().unwrap();
    assert_eq!(transfer.probe().unwrap(), Probed { may_delete: true });
    assert!(transfer.list_all("").unwrap().is_empty(), "a probe leaves nothing");
}

#[test]
fn answers_that_are_too_short_or_cut_are_never_handed_out() {
    use HttpFault::{CutAnswer, NoRange, OtherRange, ShortHonest, ShortLying};
    let Some(s) = spoilt_quickly() else { return };
    let (object, whole) = (name("pack/aa/1"), body(300_000));
    s.transfer.put_new(&object, whole.clone()).unwrap();
    for fault in [ShortHonest, ShortLying, OtherRange, NoRange, CutAnswer] {
        for range in [0..whole.len(), 100_000..100_001, 1_000..263_144] {
            let wanted = whole.slice(range.clone());
            s.proxy.spoil(Verb::Get, 2, fault);
            let got = s.transfer.get_range(&object, range.start as u64..range.end as u64, Deadline::NEVER);
            assert_eq!(got.unwrap(), wanted, "{fault:?} {range:?}");
            // A short honest answer is completed by a second request, which meets the second fault.
            assert_eq!(s.proxy.left(), 0, "{fault:?} {range:?}");
        }
    }
    assert!(s.transfer.stats().retries > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_answer_is_an_error_of_its_own_kind() {
    let Some(s) = tokio::task::spawn_blocking(spoilt_quickly).await.unwrap() else { return };
    let object = name("pack/aa/1");
    s.vault.put_new(&object, body(1000)).await.unwrap();
    for fault in [HttpFault::ShortLying, HttpFault::OtherRange, HttpFault::NoRange] {
        s.proxy.spoil(Verb::Get, 1, fault);
        let read = s.vault.get_range(&object, 0..1000).await;
        assert!(matches!(read, Err(VaultError::WrongAnswer { .. })), "{fault:?}: {read:?}");
    }
    s.proxy.spoil(Verb::Get, 1, HttpFault::CutAnswer);
    assert!(s.vault.get_range(&object, 0..1000).await.unwrap_err().is_transient());
}

#[test]
fn a_put_whose_answer_is_lost_is_a_success() {
    let Some(s) = spoilt_quickly() else { return };
    for object in ["pack/aa/1", "idx/1", "rp/aa/1", "config"] {
        let object = name(object);
        s.proxy.spoil(Verb::Put, 2, HttpFault::LoseAnswer);
        let receipt = s.transfer.put_new(&object, body(50_000)).unwrap();
        assert_eq!((receipt.len(), receipt.already()), (50_000, true));
        assert_eq!(s.transfer.get(&object, 50_000).unwrap(), body(50_000));
    }
}

#[test]
fn a_put_that_meets_other_bytes_is_a_conflict_also_after_a_lost_answer() {
    let Some(s) = spoilt_quickly() else { return };
    let object = name("rp/aa/1");
    s.transfer.put_new(&object, body(100)).unwrap();
    let other = Bytes::from(vec![7; 100]);
    assert!(matches!(s.transfer.put_new(&object, other.clone()), Err(VaultError::Conflict { .. })));
    assert!(matches!(s.transfer.put_new(&object, body(99)), Err(VaultError::Conflict { .. })));
    s.proxy.spoil(Verb::Put, 1, HttpFault::LoseAnswer);
    assert!(matches!(s.transfer.put_new(&object, other), Err(VaultError::Conflict { .. })));
    assert_eq!(s.transfer.get(&object, 100).unwrap(), body(100));
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing_and_succeeds_when_tried_again() {
    let Some(s) = spoilt_quickly() else { return };
    let object = name("pack/aa/1");
    s.proxy.spoil(Verb::Put, 2, HttpFault::CutRequest);
    let receipt = s.transfer.put_new(&object, body(2_000_000)).unwrap();
    assert!(!receipt.already(), "the broken uploads made no object");
    assert_eq!(s.proxy.count(Verb::Put), 3);
    assert_eq!(s.transfer.get(&object, 2_000_000).unwrap(), body(2_000_000));
}

#[test]
fn a_bit_that_flips_on_the_way_up_is_refused_by_the_service() {
    let Some(s) = spoilt_quickly() else { return };
    let object = name("pack/aa/1");
    s.proxy.spoil(Verb::Put, 1, HttpFault::FlipRequest);
    let receipt = s.transfer.put_new(&object, body(100_000)).unwrap();
    assert!(!receipt.already());
    assert_eq!((s.proxy.count(Verb::Put), s.transfer.stats().retries), (2, 1));
    assert_eq!(s.transfer.get(&object, 100_000).unwrap(), body(100_000));
}

/// The service has no checksum for ranges of any length, so the seal of a frame or the hash of an object has to see it.
#[test]
fn a_bit_that_flips_on_the_way_down_is_for_the_seal_to_see() {
    let Some(s) = spoilt_quickly() else { return };
    let object = name("pack/aa/1");
    s.transfer.put_new(&object, body(1000)).unwrap();
    s.proxy.spoil(Verb::Get, 1, HttpFault::FlipAnswer);
    let got = s.transfer.get_range(&object, 0..1000, Deadline::NEVER).unwrap();
    let differ: Vec<_> = (0..1000).filter(|at| got[*at] != body(1000)[*at]).collect();
    assert_eq!(differ, [500]);
}

#[test]
fn a_service_that_asks_to_be_left_alone_is() {
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let Some(s) = spoilt(quick(), clock.clone()) else { return };
    let object = name("pack/aa/1");
    s.proxy.spoil(Verb::Put, 2, HttpFault::Refuse(503, "ServerBusy", 7));
    s.transfer.put_new(&object, body(1000)).unwrap();
    assert_eq!(clock.now().seconds, 14);
    s.proxy.spoil(Verb::Get, 2, HttpFault::Refuse(429, "", 3));
    s.proxy.spoil(Verb::Get, 1, HttpFault::Refuse(500, "InternalError", 0));
    s.transfer.get_range(&object, 0..1000, Deadline::NEVER).unwrap();
    // Who reads sees every two seconds; as asked it would be 20.
    assert!((17..20).contains(&clock.now().seconds), "{:?}", clock.now());
}

#[test]
fn a_service_that_stays_away_is_given_up_within_the_budget() {
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let Some(s) = spoilt(TransferPolicy::default(), clock.clone()) else { return };
    s.proxy.spoil(Verb::Stat, 1000, HttpFault::Refuse(503, "ServerBusy", 0));
    assert!(matches!(s.transfer.stat(&name("a")), Err(VaultError::Unavailable { .. })));
    assert!(clock.now().seconds <= 300, "{:?}", clock.now());
    assert!((10..40).contains(&s.proxy.count(Verb::Stat)), "{}", s.proxy.count(Verb::Stat));
}

#[test]
fn silence_is_bounded_by_the_limit_and_by_the_deadline() {
    let policy = TransferPolicy { request_limit: Duration::from_millis(400), ..quick() };
    let Some(s) = spoilt(policy, Arc::new(SystemClock)) else { return };
    let object = name("pack/aa/1");
    s.transfer.put_new(&object, body(1000)).unwrap();
    s.proxy.spoil(Verb::Get, 1, HttpFault::Hang);
    assert_eq!(s.transfer.get_range(&object, 0..1000, Deadline::NEVER).unwrap(), body(1000));
    s.proxy.spoil(Verb::Get, 100, HttpFault::Hang);
    let begun = SystemClock.monotonic();
    let deadline = Deadline::after(&SystemClock, Duration::from_millis(700));
    assert!(matches!(s.transfer.get_range(&object, 0..1000, deadline), Err(VaultError::Timeout)));
    assert!(SystemClock.monotonic() - begun < Duration::from_secs(5));
}

#[test]
fn a_read_that_stalls_is_tried_again_on_a_new_connection() {
    let Some(spoilt) = spoilt_quickly() else { return };
    let (name, bytes) = (name("pack/aa/stalls"), body(1000));
    spoilt.transfer.put_new(&name, bytes.clone()).unwrap();
    spoilt.proxy.spoil(Verb::Get, 1, HttpFault::Hang);
    let begin = SystemClock.monotonic();
    let deadline = Deadline::after(&SystemClock, Duration::from_secs(50));
    assert_eq!(spoilt.transfer.get_range(&name, 0..1000, deadline).unwrap(), bytes);
    assert!(SystemClock.monotonic() - begin < Duration::from_secs(30), "not the limit of a request");
}

#[test]
fn a_slow_uplink_that_moves_finishes() {
    let policy = TransferPolicy { request_limit: Duration::from_millis(500), ..quick() };
    let Some(s) = spoilt(policy, Arc::new(SystemClock)) else { return };
    let object = name("pack/aa/1");
    s.proxy.spoil(Verb::Put, 1, HttpFault::SlowRequest(64 * 1024));
    let begun = SystemClock.monotonic();
    s.transfer.put_new(&object, body(128 * 1024)).unwrap();
    assert!(SystemClock.monotonic() - begun > policy.request_limit, "the line was slow");
    assert_eq!((s.proxy.count(Verb::Put), s.transfer.stats().retries), (1, 0), "the first try did it");
}

#[test]
fn reads_run_side_by_side_and_keep_their_order() {
    let Some(s) = spoilt_quickly() else { return };
    let whole = body(100_000);
    s.transfer.put_new(&name("pack/aa/1"), whole.clone()).unwrap();
    s.proxy.spoil(Verb::Get, 10, HttpFault::CutAnswer);
    let mut wanted: Vec<_> = (0..40u64).map(|i| (name("pack/aa/1"), i * 2000..i * 2000 + 1500)).collect();
    wanted.push((name("pack/aa/none"), 0..1));
    let mut answers = s.transfer.get_many(wanted.clone(), Deadline::NEVER);
    assert!(matches!(answers.pop(), Some(Err(VaultError::NotFound { .. }))));
    for ((_, range), answer) in wanted.iter().zip(answers) {
        assert_eq!(answer.unwrap(), whole.slice(range.start as usize..range.end as usize));
    }
}

#[tokio::test]
async fn put_if_absent_is_asked_of_the_service_in_one_request() {
    let Some(s) = tokio::task::spawn_blocking(spoilt_quickly).await.unwrap() else { return };
    let object = name("pack/aa/1");
    assert_eq!(s.vault.put_new(&object, body(9 << 20)).await.unwrap(), PutNew::Created);
    assert_eq!(s.vault.put_new(&object, body(10)).await.unwrap(), PutNew::AlreadyThere);
    assert_eq!((s.proxy.count(Verb::Put), s.proxy.count(Verb::Stat)), (2, 0));
}
