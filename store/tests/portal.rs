//! Whoever sits on the way to Azure and answers in its place: captive portals, proxies, and their pages. None of it says
//! anything of what is stored.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;

use bytes::Bytes;
use holdfast_store::vault::address::VaultAddress;
use holdfast_store::vault::azure::AzureVault;
use holdfast_store::vault::testing::Azurite;
use holdfast_store::vault::{ObjectName, Vault, VaultError};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn vault_at(port: u16) -> AzureVault {
    let VaultAddress::Azure(address) = Azurite::address("portal", port).unwrap() else { unreachable!() };
    AzureVault::new(&address, &Azurite::credential()).unwrap()
}

/// Answers every request with the same page, its head beginning with `status` and whatever headers come after that.
fn portal(status: &'static str, page: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The requests have no bodies and fit into one read.
            let _ = stream.read(&mut [0; 16 << 10]);
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close");
            let _ = stream
                .write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{page}", page.len()).as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn a_page_that_is_no_listing_of_this_container_is_a_wrong_answer_and_not_an_empty_vault() {
    let other = "<?xml version=\"1.0\"?><EnumerationResults ServiceEndpoint=\"http://x/\" ContainerName=\"other\">\
                 <Blobs/><NextMarker/></EnumerationResults>";
    for page in ["<html><body><p>Log in</p></body></html>", "<EnumerationResults/>", other, ""] {
        let vault = vault_at(portal("200 OK", page));
        let listed = vault.list("keys/", None).await;
        let error = listed.expect_err(page);
        assert!(error.is_transient(), "{page:?}: {error}");
    }
}

/// What a vault says to each kind of request, none of which sends a body.
async fn failures(vault: &AzureVault) -> [(&'static str, VaultError); 6] {
    let object = name("pack/aa/1");
    [
        ("get", vault.get_range(&object, 0..10).await.map(drop).unwrap_err()),
        ("stat", vault.stat(&object).await.map(drop).unwrap_err()),
        ("delete", vault.delete(&object).await.map(drop).unwrap_err()),
        ("put", vault.put_new(&object, Bytes::new()).await.map(drop).unwrap_err()),
        ("list", vault.list("pack/", None).await.map(drop).unwrap_err()),
        ("prepare", vault.prepare().await.unwrap_err()),
    ]
}

#[tokio::test]
async fn only_the_service_says_that_something_is_missing() {
    for (status, page) in [
        ("404 Not Found", "<html>no such page</html>"),
        ("404 Not Found", ""),
        ("404 Not Found\r\nx-ms-error-code: ShareNotFound", "<Error/>"),
    ] {
        let vault = vault_at(portal(status, page));
        for (verb, error) in failures(&vault).await {
            assert!(matches!(error, VaultError::WrongAnswer { .. }), "{status} {page} {verb}: {error:?}");
        }
    }
    let vault = vault_at(portal("404\r\nx-ms-error-code: BlobNotFound", ""));
    assert_eq!(vault.stat(&name("pack/aa/1")).await.unwrap(), None);
    assert!(!vault.delete(&name("pack/aa/1")).await.unwrap());
}

#[tokio::test]
async fn whoever_wants_a_login_first_is_an_outage() {
    for status in [
        "302 Found",
        "301 Moved",
        "307 Elsewhere",
        "407 Proxy Authentication Required",
        "511 Network Authentication Required",
        "501 Not Implemented",
        "520 Unknown",
        "530 Frozen",
    ] {
        for page in ["", "<html>log in</html>"] {
            let vault = vault_at(portal(status, page));
            for (verb, error) in failures(&vault).await {
                assert!(matches!(error, VaultError::Unavailable { .. }), "{status} {page} {verb}: {error:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_success_that_is_not_the_services_is_a_wrong_answer_whatever_was_asked() {
    for status in ["200 OK", "203 Changed"] {
        let vault = vault_at(portal(status, "<html>log in</html>"));
        for (verb, error) in failures(&vault).await {
            assert!(matches!(error, VaultError::WrongAnswer { .. }), "{status} {verb}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let to = format!("302 Found\r\nLocation: http://{}/login", elsewhere.local_addr().unwrap());
    let (tell, came) = std::sync::mpsc::channel();
    std::thread::spawn(move || elsewhere.incoming().for_each(|_| tell.send(()).unwrap_or_default()));
    let vault = vault_at(portal(to.leak(), ""));
    for (verb, error) in failures(&vault).await {
        assert!(matches!(error, VaultError::Unavailable { .. }), "{verb}: {error:?}");
    }
    assert!(came.try_recv().is_err(), "somebody was sent there and went");
}
