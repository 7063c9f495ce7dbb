//! `estimate` and `fetch`, on a store recovered from a vault: all it knows is far away.

use crate::testkit::{Machine, Ran, can_mount, noise};

/// A machine with a store that has nothing in staging, and the id of the one point in its vault.
fn far_away() -> (Machine, String) {
    let machine = Machine::with_store();
    let source = machine.path("src");
    std::fs::create_dir_all(source.join("photos")).unwrap();
    for n in 0..6 {
        std::fs::write(source.join(format!("photos/{n}.raw")), noise(n, 1_500_000)).unwrap();
    }
    std::fs::write(source.join("letter"), "dear").unwrap();
    std::fs::write(source.join("fab"), "fab").unwrap();
    std::fs::write(source.join("twin"), noise(3, 1_500_000)).unwrap();
    machine.run(["vault", "add", "vault"]).expect_code(0);
    let id =
        machine.back_up(&source, &["--as", "docs", "--online"])["snapshot_id"].as_str().unwrap().to_owned();
    std::fs::rename(machine.store(), machine.path("old")).unwrap();
    let mut recover = machine.command(["recover", "vault", "--store"]);
    Ran::of(recover.arg(machine.store()).env("HOLDFAST_RECOVERY_KEY", Machine::words())).expect_code(0);
    (machine, id)
}

fn json(machine: &Machine, args: &[&str]) -> serde_json::Value {
    machine.run(args.iter().chain(&["--json"])).expect_code(0).json()
}

fn number(value: &serde_json::Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value:#}"))
}

#[test]
fn an_estimate_is_what_a_fetch_then_takes_and_after_it_no_vault_is_needed() {
    let (machine, id) = far_away();
    let before = json(&machine, &["estimate", "latest:photos"]);
    assert_eq!((&before["snapshot_id"], &before["path"]), (&id.as_str().into(), &"photos".into()));
    assert_eq!((number(&before, "total_files"), number(&before, "bytes_vault")), (6, 9_000_000));
    assert_eq!(number(&before, "bytes_staging") + number(&before, "bytes_cache"), 0);
    let (requests, bytes) = (number(&before, "vault_requests"), number(&before, "vault_request_bytes"));
    assert!((3..=4).contains(&requests) && (9_000_000..10_500_000).contains(&bytes), "{before:#}");
    assert_eq!(json(&machine, &["estimate", "latest:photos"]), before, "an estimate fetches nothing");
    let text = machine.run(["estimate", "latest:photos"]).expect_code(0).out();
    assert!(text.contains(&format!("to fetch     {requests} requests of ")), "{text}");
    let small = machine.run(["fetch", "latest:photos", "--cache-size", "4M"]).expect_code(1);
    small.expect_err(&["the cache is too small", "4.000 MiB", "--cache-size"]);
    let fetched = json(&machine, &["fetch", "latest:photos", "--cache-size", "64M"]);
    assert_eq!((number(&fetched, "requests"), number(&fetched, "bytes_fetched")), (requests, bytes));
    assert_eq!((number(&fetched, "errors"), number(&fetched, "bytes_gone")), (0, 0));
    let after = json(&machine, &["estimate", "latest:photos"]);
    assert_eq!((number(&after, "bytes_cache"), number(&after, "vault_requests")), (9_000_000, 0));
    let again = machine.run(["fetch", "latest:photos"]).expect_code(0).out();
    assert!(again.starts_with("nothing to fetch: no vault is needed for 6 files"), "{again}");
    // What is in the cache needs no vault.
    std::fs::rename(machine.path("vault/pack"), machine.path("away")).unwrap();
    let dumped = machine.run(["dump", "latest:photos/3.raw"]).expect_code(0);
    assert!(dumped.stdout() == noise(3, 1_500_000));
    let twin = json(&machine, &["estimate", "latest:twin"]);
    assert_eq!(number(&twin, "vault_requests"), 0, "its chunks are those of a photo");
}

#[test]
fn what_is_in_the_cache_already_counts_against_its_bound() {
    let (machine, _) = far_away();
    for n in 0..4 {
        machine.run(["fetch", &format!("latest:photos/{n}.raw"), "--cache-size", "8M"]).expect_code(0);
    }
    let small = machine.run(["fetch", "latest:photos"]).expect_code(1);
    small.expect_err(&["the cache is too small: it holds 8.000 MiB", "--cache-size"]);
    machine.run(["fetch", "latest:photos", "--cache-size", "16M"]).expect_code(0);
    assert_eq!(number(&json(&machine, &["estimate", "latest:photos"]), "vault_requests"), 0);
}

#[test]
fn what_is_damaged_everywhere_ends_a_fetch_with_3_and_what_only_the_cache_has_damaged_is_mended() {
    let (machine, _) = far_away();
    machine.run(["fetch", "latest:photos"]).expect_code(0);
    let blocks = || files_below(&machine.root().join("cache"));
    let of_data = |path: &&std::path::PathBuf| path.metadata().unwrap().len() > 256 << 10;
    let block = blocks().into_iter().rfind(|path| of_data(&path)).unwrap();
    let whole = std::fs::read(&block).unwrap();
    std::fs::write(&block, &whole[..5000]).unwrap();
    let mended = machine.run(["fetch", "latest:photos"]).expect_code(0).out();
    assert!(mended.starts_with("fetched") && mended.contains("in 1 request"), "{mended}");
    assert!(std::fs::read(&block).unwrap() == whole);
    // A pack of the vault with a flipped bit in each 100 KB.
    let packs = files_below(&machine.path("vault/pack"));
    let pack = packs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(pack).unwrap();
    bytes.iter_mut().step_by(100_000).skip(1).for_each(|byte| *byte ^= 1);
    std::fs::write(pack, bytes).unwrap();
    machine.run(["fetch", "latest:photos"]).expect_code(0);
    blocks().iter().filter(of_data).for_each(|path| std::fs::remove_file(path).unwrap());
    let ran = machine.run(["fetch", "latest:photos"]).expect_code(3);
    let said = ran.expect_err(&["pack", "frame", "more of it"]).out();
    assert!(said.starts_with("fetched") && said.ends_with("told above\n"), "{said}");
}

fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn a_fetch_that_cannot_reach_what_it_wants_says_so_and_goes_on_later() {
    let (machine, _) = far_away();
    machine.run(["ls", "latest"]).expect_code(0);
    std::fs::rename(machine.path("vault/pack"), machine.path("away")).unwrap();
    let ran = machine.run(["fetch", "latest"]);
    assert!([1, 3].contains(&ran.code()), "{}", ran.err());
    assert!(ran.err().contains("pack"), "{}", ran.err());
    std::fs::rename(machine.path("away"), machine.path("vault/pack")).unwrap();
    machine.run(["fetch", "latest"]).expect_code(0);
    assert_eq!(number(&json(&machine, &["estimate", "latest"]), "vault_requests"), 0);
    for wrong in ["/etc", "no point"] {
        machine.run(["estimate", wrong]).expect_code(2);
        machine.run(["fetch", wrong]).expect_code(2);
    }
    machine.run(["fetch", "latest:nothing"]).expect_code(1).expect_err(&["has no nothing"]);
}

#[test]
fn a_cache_that_cannot_keep_anything_ends_a_fetch_at_once() {
    let (machine, _) = far_away();
    machine.run(["ls", "latest"]).expect_code(0);
    // Files where directories would be: root may write anywhere else.
    let cache = machine.root().join("cache").read_dir().unwrap().next().unwrap().unwrap().path();
    for shard in 0..=255 {
        let shard = cache.join(format!("{shard:02x}"));
        let _ = std::fs::remove_dir_all(&shard);
        std::fs::write(shard, "").unwrap();
    }
    machine.run(["fetch", "latest"]).expect_code(1).expect_err(&["does not keep what is fetched", "disk"]);
}

#[test]
fn a_mount_that_runs_finds_what_was_fetched_beside_it() {
    if !can_mount("a_mount_that_runs_finds_what_was_fetched_beside_it") {
        return;
    }
    let (machine, id) = far_away();
    let mount = machine.mount("recovery", &[]);
    let photos = mount.path().join("by-group/default/docs/latest/photos");
    let tier = |name: &str| {
        let mut value = [0; 16];
        let len = rustix::fs::getxattr(photos.join(name), "user.holdfast.tier", &mut value).unwrap();
        String::from_utf8_lossy(&value[..len]).into_owned()
    };
    assert_eq!(tier("5.raw"), "vault");
    let of_path = |verb: &str| json(&machine, &[verb, photos.to_str().unwrap()]);
    let estimate = of_path("estimate");
    assert_eq!((&estimate["snapshot_id"], &estimate["path"]), (&id.as_str().into(), &"photos".into()));
    // Who stands in a mount means what is there, also if it looks like the id of a point.
    let mut inside = machine.command(["estimate", "fab", "--json"]);
    let fab = Ran::of(inside.current_dir(photos.parent().unwrap())).expect_code(0).json();
    assert_eq!((&fab["path"], number(&fab, "total_bytes")), (&"fab".into(), 3));
    assert_eq!(number(&of_path("fetch"), "total_files"), 6);
    assert_eq!(tier("5.raw"), "cache");
    std::fs::rename(machine.path("vault/pack"), machine.path("away")).unwrap();
    assert!(std::fs::read(photos.join("5.raw")).unwrap() == noise(5, 1_500_000));
}
