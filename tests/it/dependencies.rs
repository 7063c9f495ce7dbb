//! Which crates of others may be built in: `Cargo.lock` and the manifests, checked without a network.
//!
//! Held here: every package comes from the registry and has a checksum, banned crates are absent, versions that are too old
//! are refused, crates that must agree with themselves exist once, and `docs/decisions/dependencies.md` names each direct dependency.
//! Not held here: licences and advisories. Neither stands in the lock file, and both change without it: they need a network.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use crate::testkit::repository;

/// Where packages may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates that may not be there, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "TLS is rustls: no library of the system's that each distribution has in another version"),
    ("openssl-sys", "TLS is rustls"),
    ("native-tls", "TLS is rustls"),
    ("azure_storage_blobs", "the SDK's abandoned predecessor; `azure_storage_blob` is its successor"),
    ("azure_storage", "belongs to the abandoned SDK"),
    ("failure", "not kept any more; errors are `thiserror` enums"),
    ("libfuse-sys", "the mount talks to the kernel itself"),
    ("fuse", "not kept any more; `fuser` is its successor"),
    ("fuse3", "one library for the kernel's protocol is enough"),
];

/// Least versions: older ones are refused, and why.
const LEAST: &[(&str, [u64; 2], &str)] = &[
    ("quick-xml", [0, 38], "it reads the listings of a service, which are text from outside"),
    ("libsqlite3-sys", [0, 39], "the catalog needs SQLite 3.51.3 or later; this one bundles 3.54.1"),
    ("fuser", [0, 18], "the mount relies on sessions from a descriptor of ours"),
];

/// Crates of which two versions would be two protocols, two key types or two copies of C code in one program.
const ONCE: &[&str] = &[
    "aes",
    "aes-gcm",
    "argon2",
    "azure_core",
    "blake3",
    "bytes",
    "crc32c",
    "fuser",
    "hyper",
    "libsqlite3-sys",
    "quick-xml",
    "reqwest",
    "rusqlite",
    "rustix",
    "rustls",
    "tokio",
    "zstd",
    "zstd-sys",
];

/// A package of the lock file.
#[derive(Debug, Default)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// The packages of a lock file. Cargo writes it, one `key = "value"` a line, so no parser of all of TOML is needed.
fn packages(lock: &str) -> Vec<Package> {
    lock.split("[[package]]").skip(1).map(package).collect()
}

fn package(block: &str) -> Package {
    let mut package = Package::default();
    for (key, value) in block.lines().filter_map(|line| line.split_once(" = ")) {
        let value = value.trim_matches('"').to_owned();
        match key {
            "name" => package.name = value,
            "version" => package.version = value,
            "source" => package.source = Some(value),
            "checksum" => package.checksum = Some(value),
            _ => {}
        }
    }
    package
}

/// Major and minor number of a version.
fn version(text: &str) -> [u64; 2] {
    let mut numbers = text.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)]
}

fn broken_sources(packages: &[Package]) -> Vec<String> {
    let is_ours = |package: &Package| package.name == "holdfast" || package.name.starts_with("holdfast-");
    let from_registry = |package: &Package| {
        let checksum = package.checksum.as_deref().unwrap_or_default();
        package.source.as_deref() == Some(REGISTRY)
            && checksum.len() == 64
            && checksum.bytes().all(|c| c.is_ascii_hexdigit())
    };
    let wrong = packages.iter().filter(|p| match &p.source {
        None => !is_ours(p),
        Some(_) => is_ours(p) || !from_registry(p),
    });
    wrong
        .map(|p| format!("{} {} comes from {:?}, checksum {:?}", p.name, p.version, p.source, p.checksum))
        .collect()
}

fn banned(packages: &[Package]) -> Vec<String> {
    let why = |package: &Package| BANNED.iter().find(|(name, _)| *name == package.name);
    packages.iter().filter_map(|p| Some(format!("{} {}: {}", p.name, p.version, why(p)?.1))).collect()
}

fn too_old(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, least, why) in LEAST {
        let found: Vec<&Package> = packages.iter().filter(|package| package.name == *name).collect();
        if found.is_empty() {
            broken.push(format!("{name} is not there any more: take it off the list"));
        }
        let old = found.into_iter().filter(|package| version(&package.version) < *least);
        broken.extend(
            old.map(|p| format!("{name} {} is older than {}.{}: {why}", p.version, least[0], least[1])),
        );
    }
    broken
}

fn not_once(packages: &[Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let count = |name: &&&str| versions.get(**name).map_or(0, Vec::len);
    let wrong = ONCE.iter().filter(|name| count(name) != 1);
    wrong.map(|name| format!("{name} is there in versions {:?}", versions.get(name))).collect()
}

/// Names under `[workspace.dependencies]`, `[dependencies]` and `[dev-dependencies]`, without the crates of this house.
fn direct(manifest: &str) -> BTreeSet<String> {
    let (mut inside, mut names) = (false, BTreeSet::new());
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            names.extend(line.split(['=', '.', ' ']).next().map(str::to_owned));
        }
    }
    names.retain(|name| !name.is_empty() && !name.starts_with("holdfast-"));
    names
}

fn read(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap()
}

fn lock() -> Vec<Package> {
    let packages = packages(&read("Cargo.lock"));
    assert!(packages.len() > 100, "Cargo.lock was not understood: {} packages", packages.len());
    packages
}

#[track_caller]
fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_package_comes_from_the_registry_with_a_checksum() {
    assert_none(&broken_sources(&lock()));
}

#[test]
fn banned_crates_are_absent() {
    assert_none(&banned(&lock()));
}

#[test]
fn versions_that_are_too_old_are_refused() {
    assert_none(&too_old(&lock()));
}

#[test]
fn crates_that_must_agree_with_themselves_are_there_once() {
    assert_none(&not_once(&lock()));
}

#[test]
fn each_direct_dependency_is_explained_and_nothing_else_is() {
    let manifests = ["Cargo.toml", "store/Cargo.toml", "backup/Cargo.toml", "fs/Cargo.toml"];
    let used: BTreeSet<String> = manifests.iter().flat_map(|name| direct(&read(name))).collect();
    let page = read("docs/decisions/dependencies.md");
    // A line of the table begins with the crates it is about: | `aes`, `aes-gcm` | ...
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split(" | ").next());
    let explained: BTreeSet<String> = rows
        .flat_map(|cell| cell.split(['`', ',', ' ']))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    assert_eq!(used.difference(&explained).collect::<Vec<_>>(), [""; 0], "not explained");
    assert_eq!(explained.difference(&used).collect::<Vec<_>>(), [""; 0], "explained, but not used");
}

#[test]
fn a_lock_file_that_breaks_a_rule_is_noticed() {
    let bad = r#"
[[package]]
name = "openssl"
version = "0.10.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "0123456789012345678901234567890123456789012345678901234567890123"

[[package]]
name = "from-git"
version = "1.0.0"
source = "git+https://example.org/from-git#0123456"

[[package]]
name = "no-checksum"
version = "1.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"

[[package]]
name = "stranger-in-the-tree"
version = "1.0.0"

[[package]]
name = "quick-xml"
version = "0.37.5"

[[package]]
name = "rustls"
version = "0.22.0"

[[package]]
name = "rustls"
version = "0.23.0"
"#;
    let packages = packages(bad);
    assert_eq!(packages.len(), 7);
    let said = broken_sources(&packages).join("\n");
    for name in ["from-git", "no-checksum", "stranger-in-the-tree"] {
        assert!(said.contains(name), "{said}");
    }
    assert!(!said.contains("openssl"), "{said}");
    assert_eq!(banned(&packages).len(), 1);
    assert!(too_old(&packages)[0].contains("0.37.5"));
    assert!(not_once(&packages).iter().any(|line| line.contains(r#"["0.22.0", "0.23.0"]"#)));
}
