//! Every class of engine error has its exit code and, where there is one, a way out.

#![allow(clippy::unwrap_used)]

use std::io;
use std::path::{Path, PathBuf};

use holdfast_backup::restore::{RestoreSummary, Waiting};

use super::*;

fn store(error: StoreError) -> Failure {
    error.into()
}

fn path() -> PathBuf {
    PathBuf::from("/srv/store")
}

fn io_error(kind: io::ErrorKind) -> StoreError {
    StoreError::io("write", Path::new("/srv/store/pack"))(io::Error::from(kind))
}

#[test]
fn every_store_error_has_its_exit_code() {
    let vault = |source| StoreError::Vault { vault: "azure://a/b".into(), source };
    let table = [
        (StoreError::NoStore { path: path() }, 10),
        (StoreError::AlreadyThere { what: "store".into() }, 1),
        (StoreError::Locked { path: path(), holder: Some(7) }, 11),
        (StoreError::NotFound { what: "point".into() }, 1),
        (StoreError::WrongKey { detail: "3 slots".into() }, 12),
        (StoreError::corrupt("pack 1", "seal"), 1),
        (StoreError::TooNew { object: "config".into(), detail: "version 9".into() }, 1),
        (StoreError::NotOurs { object: "config".into(), detail: "magic".into() }, 1),
        (io_error(io::ErrorKind::StorageFull), 1),
        (StoreError::Catalog { detail: "busy".into(), class: ErrorClass::Locked }, 11),
        (StoreError::Catalog { detail: "malformed".into(), class: ErrorClass::Corrupt }, 1),
        (vault(VaultError::Denied { detail: "403".into() }), 1),
        (vault(VaultError::Cancelled), 130),
        (StoreError::Timeout { what: "a range".into() }, 1),
        (StoreError::Cancelled, 130),
        (StoreError::invalid("no"), 1),
    ];
    for (error, code) in table {
        let text = error.to_string();
        assert_eq!(store(error).exit_code(), code, "{text}");
    }
}

#[test]
fn hints_name_the_way_out() {
    let table = [
        (StoreError::NoStore { path: path() }, "holdfast init"),
        (StoreError::NoStore { path: path() }, "--store"),
        (StoreError::Locked { path: path(), holder: Some(7) }, "process 7"),
        (StoreError::WrongKey { detail: String::new() }, "HOLDFAST_PASSWORD"),
        (StoreError::corrupt("key slot 0f", "checksum"), "recovery sheet"),
        (StoreError::corrupt("keys/0f", "checksum"), "recovery sheet"),
        (StoreError::corrupt("pack 0f", "seal"), "check --read-data"),
        (StoreError::NotFound { what: "recovery point 0f".into() }, "holdfast snapshots"),
        (StoreError::NotFound { what: "a store in vault /v".into() }, "disk is mounted"),
        (StoreError::TooNew { object: "config".into(), detail: String::new() }, "newer holdfast"),
        (io_error(io::ErrorKind::StorageFull), "disk is full"),
        (io_error(io::ErrorKind::NotADirectory), "should be"),
        (io_error(io::ErrorKind::PermissionDenied), "root"),
        (
            StoreError::Vault { vault: "v".into(), source: VaultError::Denied { detail: String::new() } },
            "credentials",
        ),
        (
            StoreError::Vault { vault: "/v".into(), source: VaultError::Denied { detail: String::new() } },
            "owner",
        ),
    ];
    for (error, word) in table {
        let text = error.to_string();
        let hint = store(error).hint.unwrap_or_default();
        assert!(hint.contains(word), "{text}: {hint:?} does not say {word:?}");
    }
}

#[test]
fn what_is_read_only_is_no_matter_of_rights_and_in_a_unit_one_of_its_paths() {
    let detail = format!("cannot make /v/sess: {}", io::Error::from_raw_os_error(nix::libc::EROFS));
    let vault = |vault: &str| StoreError::Vault {
        vault: vault.into(),
        source: VaultError::Denied { detail: detail.clone() },
    };
    let failures = [
        store(vault("/v")),
        VaultError::Denied { detail: detail.clone() }.into(),
        store(io_error(io::ErrorKind::ReadOnlyFilesystem)),
        Failure::io("open", &path(), &io::ErrorKind::ReadOnlyFilesystem.into()),
    ];
    for failure in failures {
        let hint = failure.hint.unwrap();
        assert!(hint.contains("dmesg") && !hint.contains("owner"), "{}: {hint}", failure.message);
    }
    assert!(read_only(true).contains("ReadWritePaths=") && read_only(true).contains("systemctl edit"));
    assert!(!read_only(false).contains("systemctl"));
}

#[test]
fn a_cause_that_the_message_already_says_is_not_said_twice() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer: {source}")]
    struct Outer {
        source: Middle,
    }
    #[derive(Debug, thiserror::Error)]
    #[error("middle")]
    struct Middle {
        #[source]
        source: io::Error,
    }
    let error = Outer { source: Middle { source: io::Error::other("inner") } };
    let failure = Failure::failed(error.to_string()).caused_by(&error);
    assert_eq!(failure.message, "outer: middle");
    assert_eq!(failure.causes, ["inner"]);
}

#[test]
fn being_asked_to_stop_is_told_as_that_whoever_heard_it_last() {
    let cancelled = StoreError::Vault { vault: "v".into(), source: VaultError::Cancelled };
    let target = RestoreError::Target(TargetError::Cancelled);
    for failure in [store(cancelled), VaultError::Cancelled.into(), target.into()] {
        assert_eq!((failure.kind, failure.message.as_str()), (Kind::Interrupted, "interrupted"));
    }
}

#[test]
fn a_restore_that_a_vault_left_names_it_and_says_how_to_go_on() {
    let source = StoreError::Vault { vault: "azure://a/b".into(), source: VaultError::Timeout };
    let waiting = Waiting { source, entries: 1, done: RestoreSummary::default() };
    let failure = Failure::from(RestoreError::Away(Box::new(waiting)));
    assert_eq!(failure.message, "vault azure://a/b: no answer in time; without it 1 entry could not be had");
    assert_eq!(failure.exit_code(), 1);
    assert!(failure.hint.unwrap().contains("the same command goes on"));
}

#[test]
fn partial_work_is_told_from_whole_work_by_its_exit_code() {
    assert_eq!(Done::Whole.exit_code(), 0);
    assert_eq!(Done::Partial.exit_code(), 3);
}

#[test]
fn of_several_failures_each_is_named_once_and_one_alone_stays_as_it_is() {
    let away = |vault: &str| Failure::failed(format!("vault {vault}: not found")).hint("look");
    let mut one = Failures::default();
    assert_eq!(one.note(Ok(7)).unwrap(), Some(7));
    assert_eq!(one.note::<()>(Err(away("a"))).unwrap(), None);
    assert_eq!(one.note::<()>(Err(away("a"))).unwrap(), None);
    assert_eq!(one.or(Done::Whole).unwrap_err(), away("a"));
    let mut two = Failures::default();
    for vault in ["a", "b"] {
        two.note::<()>(Err(away(vault))).unwrap();
    }
    let failure = two.or(Done::Partial).unwrap_err();
    assert_eq!((failure.exit_code(), failure.hint.as_deref()), (1, Some("look")));
    assert_eq!(failure.causes, ["vault a: not found", "vault b: not found"]);
    assert_eq!(Failures::default().or(Done::Partial), Ok(Done::Partial));
    let stop = Failure::new(Kind::Interrupted, "stop");
    assert_eq!(Failures::default().note::<()>(Err(stop.clone())).unwrap_err(), stop);
}
