//! Tests of the directory vault: the shared suite, and what only a directory can get wrong.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::vault::conformance::conformance;
use tempfile::TempDir;

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn written(tmp: &Path, bytes: &[u8]) -> Unfinished {
    Unfinished::create(tmp).unwrap().add(bytes, true).unwrap()
}

async fn vault() -> (TempDir, DirectoryVault) {
    let dir = tempfile::tempdir().unwrap();
    let vault = DirectoryVault::with_page_len(dir.path(), 4);
    vault.prepare().await.unwrap();
    (dir, vault)
}

#[tokio::test]
async fn a_directory_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    conformance(Arc::new(DirectoryVault::with_page_len(dir.path().join("new/deep"), 4))).await.unwrap();
    conformance(Arc::new(DirectoryVault::new(dir.path()))).await.unwrap();
}

#[tokio::test]
async fn pages_are_bounded_and_in_the_order_of_full_names() {
    let (_dir, vault) = vault().await;
    let mut wanted: Vec<_> =
        ["a/b", "a-b", "a.b", "a0", "a/b-c", "a/b.d/e", "b/1", "b/2", "b/3", "b/4", "b/5", "c"]
            .map(name)
            .into();
    for name in &wanted {
        vault.put_new(name, Bytes::new()).await.unwrap();
    }
    wanted.sort();
    let (mut seen, mut from) = (Vec::new(), None);
    loop {
        let page = vault.list("", from.as_deref()).await.unwrap();
        assert!(page.objects.len() <= 4);
        seen.extend(page.objects.into_iter().map(|object| object.name));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn what_is_no_object_is_not_listed() {
    let (dir, vault) = vault().await;
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("lost+found/x"), "x").unwrap();
    fs::write(dir.path().join("README.TXT"), "x").unwrap();
    fs::write(dir.path().join(".tmp/x"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    assert!(vault.list("", None).await.unwrap().objects.is_empty());
    assert_eq!(vault.stat(&name("link")).await.unwrap(), None);
    assert!(matches!(vault.get_range(&name("link"), 0..1).await, Err(VaultError::Invalid { .. })));
}

#[tokio::test]
async fn names_below_tmp_are_refused() {
    let (_dir, vault) = vault().await;
    for text in [".tmp", ".tmp/x"] {
        assert!(matches!(vault.put_new(&name(text), Bytes::new()).await, Err(VaultError::Invalid { .. })));
        assert!(matches!(vault.stat(&name(text)).await, Err(VaultError::Invalid { .. })));
        assert!(matches!(vault.delete(&name(text)).await, Err(VaultError::Invalid { .. })));
    }
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_is_not_an_empty_vault() {
    let dir = tempfile::tempdir().unwrap();
    let vault = DirectoryVault::new(dir.path().join("usb"));
    let object = name("pack/ab/x");
    assert!(matches!(vault.stat(&object).await, Err(VaultError::NotFound { .. })));
    assert!(matches!(vault.list("", None).await, Err(VaultError::NotFound { .. })));
    assert!(matches!(vault.list("pack/", None).await, Err(VaultError::NotFound { .. })));
    assert!(matches!(vault.delete(&object).await, Err(VaultError::NotFound { .. })));
    assert!(
        matches!(vault.get_range(&object, 0..1).await, Err(VaultError::NotFound { what }) if what.ends_with("usb"))
    );
    assert!(matches!(vault.put_new(&object, Bytes::new()).await, Err(VaultError::NotFound { .. })));
    assert!(!dir.path().join("usb").exists(), "nothing is written where the disk is not");
}

#[tokio::test]
async fn a_file_where_a_directory_should_be_is_said_so() {
    let (dir, vault) = vault().await;
    fs::write(dir.path().join("pack"), "x").unwrap();
    let put = vault.put_new(&name("pack/ab/x"), Bytes::new()).await.unwrap_err();
    assert!(put.to_string().contains("is a file where a directory should be"), "{put}");
    assert_eq!(vault.stat(&name("pack/ab/x")).await.unwrap(), None);
    fs::create_dir(dir.path().join("idx")).unwrap();
    assert!(matches!(vault.put_new(&name("idx"), Bytes::new()).await, Err(VaultError::Invalid { .. })));
    let root_is_file = DirectoryVault::new(dir.path().join("pack"));
    assert!(root_is_file.prepare().await.is_err());
    assert!(root_is_file.stat(&name("a")).await.is_err());
}

#[tokio::test]
async fn prepare_removes_what_nobody_writes_any_more_and_nothing_else() {
    let (dir, vault) = vault().await;
    let tmp = dir.path().join(TMP);
    fs::write(tmp.join("abandoned"), "half").unwrap();
    let held = written(&tmp, b"being written");
    vault.prepare().await.unwrap();
    assert!(!tmp.join("abandoned").exists());
    assert!(held.path.exists());
    drop(held);
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
}

#[tokio::test]
async fn a_pipe_in_the_place_of_an_object_or_among_unfinished_ones_holds_nobody_up() {
    let (dir, vault) = vault().await;
    for path in [dir.path().join("pipe"), dir.path().join(TMP).join("pipe")] {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }
    let soon = std::time::Duration::from_secs(20);
    let object = name("pipe");
    let read = tokio::time::timeout(soon, vault.get_range(&object, 0..5)).await;
    assert!(matches!(read, Ok(Err(VaultError::Invalid { .. }))), "{read:?}");
    assert_eq!(vault.stat(&object).await.unwrap(), None);
    tokio::time::timeout(soon, vault.prepare()).await.expect("it waits for a writer").unwrap();
}

#[tokio::test]
async fn nothing_unfinished_stays_behind_a_put() {
    let (dir, vault) = vault().await;
    for _ in 0..2 {
        vault.put_new(&name("pack/ab/x"), Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(fs::read_dir(dir.path().join(TMP)).unwrap().count(), 0);
    fs::remove_dir(dir.path().join(TMP)).unwrap();
    assert_eq!(vault.put_new(&name("a"), Bytes::new()).await.unwrap(), PutNew::Created);
}

#[test]
fn without_hard_links_the_rename_does_not_replace_either() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("object");
    assert_eq!(written(dir.path(), b"one").rename(&target).unwrap(), PutNew::Created);
    assert_eq!(written(dir.path(), b"two").rename(&target).unwrap(), PutNew::AlreadyThere);
    assert_eq!(fs::read(&target).unwrap(), b"one");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_link_whose_answer_was_lost_is_known_as_ours() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("object");
    let unfinished = written(dir.path(), b"one");
    assert_eq!(unfinished.take_name(&target).unwrap(), PutNew::Created);
    assert_eq!(
        unfinished.take_name(&target).unwrap(),
        PutNew::Created,
        "asked again by a server that lost the answer"
    );
}

#[test]
fn errors_of_the_file_system_are_classified_by_what_can_be_done() {
    use crate::error::ErrorClass as C;
    let cases = [
        (Errno::ENOSPC, C::Full),
        (Errno::EDQUOT, C::Full),
        (Errno::EACCES, C::Denied),
        (Errno::EPERM, C::Denied),
        (Errno::EROFS, C::Denied),
        (Errno::ENOENT, C::NotFound),
        (Errno::ENOTDIR, C::Invalid),
        (Errno::EIO, C::Unavailable),
        (Errno::ESTALE, C::Unavailable),
        (Errno::ENAMETOOLONG, C::Invalid),
        (Errno::EXDEV, C::Invalid),
    ];
    for (errno, class) in cases {
        assert_eq!(failed("write", Path::new("/x"), errno.into()).class(), class, "{errno}");
    }
}
