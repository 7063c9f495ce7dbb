//! A service that lies: whatever the Azure vault asks, the answer never ends. What is taken of it is counted.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use holdfast_store::clock::{Clock, Deadline, SystemClock};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::vault::address::VaultAddress;
use holdfast_store::vault::azure::AzureVault;
use holdfast_store::vault::testing::Azurite;
use holdfast_store::vault::{ObjectName, Vault, VaultError};
use tokio::sync::RwLock;

/// Whoever counts the memory of this process runs alone.
static ALONE: RwLock<()> = RwLock::const_new(());

/// What the buffers of two sockets on one machine may hold besides what was read.
const SOCKETS: u64 = 24 << 20;
/// Most of a refusal or of an answer that says hardly anything.
const LITTLE: u64 = 64 << 10;
/// Most of a page of a listing.
const PAGE: u64 = 5000 * (3 << 10);

/// A vault whose every answer has this head, and a body of chunks without end; and how many bytes of each were sent.
fn liar(head: &'static str) -> (AzureVault, Receiver<u64>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let VaultAddress::Azure(address) =
        Azurite::address("endless", listener.local_addr().unwrap().port()).unwrap()
    else {
        unreachable!()
    };
    let (tell, sent) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                // The requests fit into one read.
                let _ = stream.read(&mut [0; 16 << 10]);
                let head = format!("HTTP/1.1 {head}\r\ntransfer-encoding: chunked\r\n\r\n");
                let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
                let mut sent = 0;
                let mut answer = stream.write_all(head.as_bytes());
                while answer.is_ok() {
                    answer = stream.write_all(&chunk);
                    sent += chunk.len() as u64;
                }
                let _ = tell.send(sent);
            });
        }
    });
    (AzureVault::new(&address, &Azurite::credential()).unwrap(), sent)
}

fn object() -> ObjectName {
    ObjectName::new("pack/aa/1").unwrap()
}

/// Ends the vault, so that its connections end, and looks at what each of `answers` cost.
fn assert_taken(vault: AzureVault, sent: &Receiver<u64>, answers: usize, most: u64) {
    drop(vault);
    for _ in 0..answers {
        let sent = sent.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(sent <= most + SOCKETS, "{sent} bytes were sent of an answer that may have {most}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_does_not_end_is_what_its_status_says_whatever_was_asked() {
    let _beside = ALONE.read().await;
    let (vault, sent) = liar("503 Busy\r\nx-ms-error-code: ServerBusy\r\nretry-after: 7");
    let errors = [
        vault.get_range(&object(), 0..100_000).await.map(drop).unwrap_err(),
        vault.list("pack/", None).await.map(drop).unwrap_err(),
        vault.put_new(&object(), Bytes::from_static(b"bytes")).await.map(drop).unwrap_err(),
        vault.delete(&object()).await.map(drop).unwrap_err(),
        vault.prepare().await.unwrap_err(),
        // An answer to HEAD has no body: what comes after its head may be taken for the answer to the next request, which
        // is then none of HTTP's. So this one is the last.
        vault.stat(&object()).await.map(drop).unwrap_err(),
    ];
    for error in &errors {
        let VaultError::Unavailable { detail, retry_after } = error else { panic!("{error}") };
        assert_eq!(*retry_after, Some(Duration::from_secs(7)), "{detail}");
        assert!(detail.starts_with("status 503 (ServerBusy)"), "{detail}");
    }
    assert!(errors[0].to_string().contains("with a text that does not end"), "{}", errors[0]);
    assert_taken(vault, &sent, errors.len(), LITTLE);
    let (vault, sent) = liar("404 Not Found\r\nx-ms-error-code: BlobNotFound");
    assert!(matches!(vault.get_range(&object(), 0..9).await, Err(VaultError::NotFound { .. })));
    assert_taken(vault, &sent, 1, LITTLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_does_not_end_is_a_wrong_answer() {
    let _beside = ALONE.read().await;
    let (vault, sent) = liar("200 OK\r\ncontent-type: application/xml");
    let error = vault.list("pack/", None).await.unwrap_err();
    assert!(
        matches!(&error, VaultError::WrongAnswer { detail } if detail.contains("goes on after")),
        "{error}"
    );
    assert_taken(vault, &sent, 1, PAGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_does_not_end_is_a_wrong_answer() {
    let _beside = ALONE.read().await;
    let (vault, sent) = liar("206 Partial Content\r\ncontent-range: bytes 0-999/5000\r\netag: \"1\"");
    let error = vault.get_range(&object(), 0..1000).await.unwrap_err();
    assert!(
        matches!(&error, VaultError::WrongAnswer { detail } if detail.contains("the 1000 bytes")),
        "{error}"
    );
    assert_taken(vault, &sent, 1, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_successes_that_do_not_end_are_no_successes() {
    let _beside = ALONE.read().await;
    let (vault, sent) = liar("201 Created");
    let put = vault.put_new(&object(), Bytes::from_static(b"bytes")).await.map(drop);
    for outcome in [put, vault.prepare().await] {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, VaultError::WrongAnswer { detail } if detail.contains("65536")), "{error}");
    }
    assert_taken(vault, &sent, 2, LITTLE);
    let (vault, sent) = liar("202 Accepted");
    assert!(matches!(vault.delete(&object()).await, Err(VaultError::WrongAnswer { .. })));
    assert_taken(vault, &sent, 1, LITTLE);
    // There is no body in an answer to HEAD, and here no length either.
    let (vault, sent) = liar("200 OK");
    assert!(matches!(vault.stat(&object()).await, Err(VaultError::WrongAnswer { .. })));
    assert_taken(vault, &sent, 1, 0);
}

#[test]
fn readers_of_a_vault_whose_errors_do_not_end_take_no_memory_for_them() {
    let _alone = ALONE.blocking_write();
    let (vault, sent) = liar("503 Busy");
    let vault = Arc::new(vault);
    let policy = TransferPolicy::default();
    let transfer = Transfer::new(vault.clone(), Arc::new(SystemClock), policy).unwrap();
    // The most begins anew from what it is now (proc_pid_clear_refs(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = most_memory();
    let deadline = Deadline::after(&SystemClock, Duration::from_secs(4));
    let begin = SystemClock.monotonic();
    let answers = transfer.get_many(vec![(object(), 0..4096); 32], deadline);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Err(VaultError::Unavailable { .. } | VaultError::Timeout))),
        "{answers:?}"
    );
    assert!(SystemClock.monotonic() - begin < Duration::from_secs(10));
    let grown = most_memory() - before;
    assert!(grown < 100 << 20, "{grown} bytes");
    let requests = transfer.stats().gets;
    assert!(requests > 32, "they were tried again: {requests}");
    drop(transfer);
    assert_taken(Arc::into_inner(vault).unwrap(), &sent, 32, LITTLE);
}

/// Most bytes of memory that this process had since that began anew.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
