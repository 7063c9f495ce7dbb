//! What vaults answer: names of objects, listings of directories, and the answers of Azure, a client with its whole parsing behind a transport that
//! answers with the input.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use holdfast_store::id::Attempt;
use holdfast_store::names::Named;
use holdfast_store::vault::azure::testing::{Answer, CONTAINER, answering};
use holdfast_store::vault::directory::DirectoryVault;
use holdfast_store::vault::{ObjectName, Vault};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::forge::Input;
use super::local::temporary;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    static DIR: RefCell<TempDir> = RefCell::new(temporary());
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// A name, as text and as that of a file in a directory vault. Names after each other are parted by NUL.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(attempt) = Attempt::from_text(&text) {
        assert_eq!(attempt.to_string(), text);
    }
    let object = ObjectName::new(text.as_ref());
    if let Some(named) = Named::parse(&text) {
        assert_eq!(Some(named.name()), object, "a name that is ours is the one that we would give");
    }
    if let Some(object) = &object {
        let parts: Vec<&str> = object.as_str().split('/').collect();
        assert!(parts.iter().all(|part| !matches!(*part, "" | "." | "..")), "{object}");
    }
    DIR.with_borrow(|dir| {
        let root = dir.path().join("vault");
        fs::create_dir_all(root.join("sess")).expect("a temporary directory");
        let mut there = Vec::new();
        for name in data.split(|byte| *byte == 0).take(4) {
            let usable =
                (1..=255).contains(&name.len()) && !name.contains(&b'/') && !matches!(name, b"." | b"..");
            for parent in ["", "sess"].into_iter().filter(|_| usable) {
                let path = root.join(parent).join(OsStr::from_bytes(name));
                if fs::write(&path, b"x").is_ok() {
                    there.push(path);
                }
            }
        }
        let vault = DirectoryVault::new(&root);
        for prefix in ["", "sess/"] {
            let Ok(page) = wait(vault.list(prefix, None)) else { continue };
            assert!(page.objects.is_sorted_by(|a, b| a.name < b.name));
            for object in page.objects {
                assert!(
                    there.contains(&root.join(object.name.as_str()))
                        && object.name.as_str().starts_with(prefix)
                );
            }
        }
        let _ = fs::remove_dir_all(&root);
    });
}

const STATUSES: [u16; 12] = [200, 200, 206, 201, 404, 403, 409, 412, 416, 503, 302, 599];

/// An answer of Azure: its status, headers, and body, to every request that a vault makes.
pub fn listing(data: &[u8]) {
    let mut input = Input(data);
    let status = STATUSES[usize::from(input.u8()) % STATUSES.len()];
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut headers = Vec::new();
    for _ in 0..input.u8() % 5 {
        let (name, value) = (input.u8(), input.part());
        headers.push((HEADERS[usize::from(name) % HEADERS.len()].to_owned(), text(value)));
    }
    let answer = Answer { status, headers, body: input.0.to_vec() };
    let vault = answering(answer).expect("a vault of nobody");
    let name = ObjectName::new("pack/00/00").expect("a name");
    for prefix in ["", "rp/", "keys/"] {
        let Ok(page) = wait(vault.list(prefix, None)) else { continue };
        assert_eq!(status / 100, 2, "a listing by a refusal");
        let control = prefix != "rp/";
        assert!(page.objects.iter().all(|object| object.name.is_control() == control));
        assert!(text(data).contains(CONTAINER), "a listing of another container");
    }
    if let Ok(bytes) = wait(vault.get_range(&name, 3..9)) {
        assert_eq!(bytes.len(), 6, "never fewer bytes, never more");
    }
    let _ = (wait(vault.stat(&name)), wait(vault.delete(&name)));
    let _ = (wait(vault.put_new(&name, b"x".as_slice().into())), wait(vault.prepare()));
}

const HEADERS: [&str; 10] = [
    "content-type",
    "content-length",
    "content-range",
    "x-ms-error-code",
    "x-ms-blob-type",
    "retry-after",
    "x-ms-retry-after-ms",
    "date",
    "etag",
    "last-modified",
];
