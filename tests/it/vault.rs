//! Points far away: what is sent, what comes back without a local store, how much reading a little costs, and what is
//! said and shown while parts are damaged or out of reach.
//!
//! A vault is a directory where damage is made by hand, and the emulator of Azure where requests are counted.
#![allow(clippy::unwrap_used)]

mod loss;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_store::vault::testing::Verb;

use crate::cloud::Cloud;
use crate::compare::{Class, compare};
use crate::nasty;
use crate::testkit::{Machine, PASSPHRASE, Ran, can_mount, drop_pages, noise, wait_for};

/// A tree of some 24 MB that cannot be compressed, with small files among it.
fn build(source: &Path) {
    std::fs::create_dir_all(source.join("small")).unwrap();
    for n in 0..20 {
        std::fs::write(source.join(format!("small/{n:02}")), noise(format!("small {n}"), 2000 + n)).unwrap();
    }
    for n in 0..3 {
        std::fs::write(source.join(format!("big-{n}")), noise(format!("big {n}"), 8 << 20)).unwrap();
    }
}

/// A machine that recovered everything from a vault, by the passphrase.
fn recovered(url: &str) -> Machine {
    let machine = Machine::recovering();
    let mut command = machine.online(["recover", "--machine-key", "--json"]);
    let ran = Ran::of(command.arg(url).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    assert!(ran.json()["points"].as_u64().unwrap() > 0, "{}", ran.out());
    machine
}

fn latest_id(machine: &Machine) -> String {
    let list = machine.run(["snapshots", "--json"]).expect_code(0).json();
    list.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned()
}

/// Files of packs below a store or vault, with their lengths, the longest first.
pub fn packs(dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    for folder in dir.join("pack").read_dir().unwrap() {
        for pack in folder.unwrap().path().read_dir().unwrap() {
            let pack = pack.unwrap().path();
            found.push((pack.metadata().unwrap().len(), pack));
        }
    }
    found.sort();
    found.reverse();
    found
}

/// Changes a bit in a byte.
pub fn flip(path: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn name_of(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// A machine with a point of [`build`]'s tree in its staging and in a vault that is a directory beside it.
fn with_directory_vault() -> (Machine, PathBuf, PathBuf) {
    let machine = Machine::with_store();
    let (source, vault) = (machine.path("source"), machine.path("vault"));
    build(&source);
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    machine.back_up(&source, &["--online"]);
    (machine, source, vault)
}

fn is_eio<T: std::fmt::Debug>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(nix::errno::Errno::EIO as i32))
}

#[test]
fn a_point_goes_to_azure_a_second_one_sends_what_changed_and_a_bare_machine_gets_all_of_it_back() {
    let Some(cloud) = Cloud::start("azure-round-trip") else { return };
    let machine = Machine::with_store();
    let source = machine.path("source");
    nasty::build(&source);
    let url = cloud.url();
    Ran::of(&mut machine.online(["vault", "add", &url])).expect_code(0);
    let put = |options: &[&str]| {
        let (before, mut command) = (cloud.proxy.count(Verb::Put), machine.online(["backup", "--online"]));
        let ran = Ran::of(command.args(options).arg(&source)).expect_code(0);
        (cloud.proxy.count(Verb::Put) - before, ran.out() + &ran.err())
    };
    let (_, said) = put(&[]);
    assert!(said.contains(" saved\n") && said.ends_with(" vaulted\n"), "{said}");
    std::fs::write(source.join("sizes/new"), "new").unwrap();
    let (puts, _) = put(&[]);
    // Session, a data pack, a tree pack, the index and the point.
    assert!((4..=6).contains(&puts), "{puts} objects for one small file");
    let (puts, _) = put(&[]);
    assert!(puts <= 4, "{puts} objects for nothing");
    let list = Ran::of(&mut machine.online(["vault", "list", "--json"])).expect_code(0).json();
    assert_eq!((&list[0]["points"], &list[0]["points_missing"]), (&3.into(), &0.into()), "{list}");

    let stranger = recovered(&url);
    if can_mount("the mount of a recovered store") {
        let mount = stranger.mount_online("recovery", &[]);
        compare(&source, &mount.point(&latest_id(&stranger))).without(&[Class::Flags]).assert_none();
    }
    let back = stranger.path("back");
    Ran::of(stranger.online(["restore", "latest", "--target"]).arg(&back)).expect_code(0);
    compare(&source, &back).assert_none();
}

/// Mounts with what opens vaults of the emulator.
#[test]
fn the_recovery_words_bring_a_store_back_and_a_wrong_secret_makes_nothing() {
    let (machine, source, vault) = with_directory_vault();
    let stranger = Machine::recovering();
    let recover =
        |name: &str, secret: &str| Ran::of(stranger.command(["recover"]).arg(&vault).env(name, secret));
    recover("HOLDFAST_PASSWORD", "not the passphrase").expect_code(12);
    recover("HOLDFAST_RECOVERY_KEY", "twenty-four other words").expect_code(12);
    assert!(!stranger.store().exists());
    // The machine that has gone need not be there.
    drop(std::fs::rename(machine.store(), machine.path("lost")));
    recover("HOLDFAST_PASSWORD", Machine::words()).expect_code(0);
    let mut restore = stranger.command(["restore", "latest", "--target"]);
    restore.arg(stranger.path("back")).env("HOLDFAST_RECOVERY_KEY", Machine::words());
    Ran::of(&mut restore).expect_code(0);
    compare(&source, &stranger.path("back")).assert_none();
}

/// A machine that recovered from a vault in `cloud` what another, which is gone, had put there.
fn stranger_to(cloud: &Cloud) -> Machine {
    let machine = Machine::with_store();
    let source = machine.path("source");
    build(&source);
    let url = cloud.url();
    Ran::of(&mut machine.online(["vault", "add", &url])).expect_code(0);
    Ran::of(machine.online(["backup", "--online"]).arg(&source)).expect_code(0);
    recovered(&url)
}

#[test]
fn a_small_file_of_a_big_point_costs_a_few_ranges_and_a_second_look_costs_nothing() {
    let test = "a_small_file_of_a_big_point_costs_a_few_ranges_and_a_second_look_costs_nothing";
    if !can_mount(test) {
        return;
    }
    let Some(cloud) = Cloud::start("ranges") else { return };
    let stranger = stranger_to(&cloud);
    let id = latest_id(&stranger);
    let asked = || {
        let requests = || [Verb::Get, Verb::Stat].iter().map(|verb| cloud.proxy.count(*verb)).sum::<usize>();
        // What is fetched ahead is on its way when the reader has his bytes.
        let (mut before, mut now) = (usize::MAX, requests());
        while before != now {
            std::thread::sleep(Duration::from_millis(300));
            (before, now) = (now, requests());
        }
        (now, cloud.gate.bytes())
    };
    // Each look has a mount of its own. Where the two files lie in the packs is chance, and whoever reads one a little behind the other
    // is taken for a reader of all of it.
    let look = |name: &str, at: u64, expected: &[u8]| {
        let mount = stranger.mount_online("recovery", &[]);
        let before = asked();
        let file = std::fs::File::open(mount.point(&id).join(name)).unwrap();
        // To the kernel, who reads a place for the second time reads on, and it fetches more of what follows than the first time.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        // Once more past what the kernel keeps.
        let costs = [(); 2].map(|()| {
            let mut part = vec![0; expected.len()];
            file.read_exact_at(&mut part, at).unwrap();
            assert!(part == expected, "{name}");
            drop_pages(&file).unwrap();
            (asked().0 - before.0, asked().1 - before.1)
        });
        drop(file);
        mount.umount();
        assert_eq!(costs[0].0, costs[1].0, "a second look asked the vault");
        costs[0]
    };
    let (small, big) = (noise("small 7", 2007), noise("big 1", 8 << 20));
    let (requests, bytes) = look("small/07", 0, &small);
    assert!((1..=4).contains(&requests), "{requests} requests for one small file");
    assert!(bytes < 2 << 20, "{bytes} bytes for one small file");
    let middle = &big[4 << 20..][..100];
    let (requests, bytes) = look("big-1", 4 << 20, middle);
    // All of their chunk, which has 4 MiB at most: no byte of it is shown before it was compared with its id.
    assert!(requests <= 4, "{requests} requests for 100 bytes");
    assert!(bytes < 6 << 20, "{bytes} bytes for 100 bytes");
    assert_eq!(look("small/07", 0, &small).0, 0, "another process asked the vault again");
    assert_eq!(look("big-1", 4 << 20, middle).0, 0, "another process asked the vault again");
}

#[test]
fn without_its_vault_a_store_reads_what_is_local_and_asks_again_when_the_vault_is_back() {
    let test = "without_its_vault_a_store_reads_what_is_local_and_asks_again_when_the_vault_is_back";
    if !can_mount(test) {
        return;
    }
    let Some(cloud) = Cloud::start("outage") else { return };
    let stranger = stranger_to(&cloud);
    let far = latest_id(&stranger);
    let mine = stranger.path("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("file"), noise("local", 300_000)).unwrap();
    let ran = Ran::of(stranger.online(["backup", "--json"]).arg(&mine)).expect_code(0);
    let near = ran.json()["snapshot_id"].as_str().unwrap().to_owned();
    let mount = stranger.mount_online("recovery", &["--read-timeout", "2"]);
    assert!(std::fs::read(mount.point(&far).join("small/03")).unwrap() == noise("small 3", 2003));
    cloud.gate.shut(true);
    assert!(std::fs::read(mount.point(&near).join("file")).unwrap() == noise("local", 300_000));
    let before = Instant::now();
    assert!(is_eio(std::fs::read(mount.point(&far).join("big-2"))));
    assert!(before.elapsed().as_secs() < 6, "it took {:?} to say so", before.elapsed());
    // What was fetched is still there, and a list of points needs no vault.
    assert!(std::fs::read(mount.point(&far).join("small/03")).unwrap() == noise("small 3", 2003));
    Ran::of(&mut stranger.online(["snapshots"])).expect_code(0);
    let list = Ran::of(&mut stranger.online(["snapshots", "--json"])).expect_code(0).json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    cloud.gate.shut(false);
    wait_for("the vault to be asked again", 20, || {
        std::fs::read(mount.point(&far).join("big-2")).is_ok_and(|read| read == noise("big 2", 8 << 20))
    });
}

#[test]
fn a_pack_that_staging_lost_is_read_from_the_vault_and_named_by_check() {
    let (machine, source, _) = with_directory_vault();
    machine.run(["check", "--read-data"]).expect_code(0);
    let staged = packs(&machine.store());
    assert!(staged.len() >= 3, "{staged:?}");
    let (len, damaged) = &staged[0];
    let (_, lost) = &staged[1];
    flip(damaged, len / 2);
    std::fs::remove_file(lost).unwrap();
    let back = machine.restore("latest", "back");
    compare(&source, &back).assert_none();
    if can_mount("the mount of a damaged store") {
        let mount = machine.mount("recovery", &[]);
        compare(&source, &mount.point(&latest_id(&machine))).without(&[Class::Flags]).assert_none();
        wait_for("what the log says", 10, || machine.log().matches("read from another tier").count() >= 2);
        let log = machine.log();
        assert_eq!(log.matches("read from another tier").count(), 2, "once for each pack: {log}");
    }
    let ran = machine.run(["check", "--read-data"]).expect_code(1);
    let ran = ran.expect_err(&[name_of(damaged), name_of(lost), "the store is damaged"]);
    assert!(!ran.out().contains("damaged in point"), "no file is lost: {}", ran.out());
}

#[test]
fn a_flipped_byte_is_an_error_and_never_other_bytes() {
    let (_machine, source, vault) = with_directory_vault();
    let (len, damaged) = packs(&vault)[0].clone();
    flip(&damaged, len / 2);
    let stranger = recovered(vault.to_str().unwrap());
    let mut wrong = Vec::new();
    if can_mount("the mount of a damaged vault") {
        let mount = stranger.mount("recovery", &[]);
        let point = mount.point(&latest_id(&stranger));
        for n in 0..3 {
            let file = std::fs::File::open(point.join(format!("big-{n}"))).unwrap();
            let whole = std::fs::read(source.join(format!("big-{n}"))).unwrap();
            let mut buffer = vec![0; 65_536];
            for at in (0..whole.len()).step_by(65_536) {
                match file.read_exact_at(&mut buffer, at as u64) {
                    Ok(()) => assert!(buffer == whole[at..at + 65_536], "other bytes in big-{n} at {at}"),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EIO as i32));
                        wrong.push((n, at));
                    }
                }
            }
        }
        // A chunk of 4 MiB at most, and what the kernel asked for together with its ends.
        assert!(!wrong.is_empty() && wrong.len() <= 80, "{wrong:?}");
        assert!(wrong.iter().all(|(n, _)| *n == wrong[0].0), "one byte is in one file: {wrong:?}");
    }
    let back = stranger.path("back");
    let ran = Ran::of(stranger.command(["restore", "latest", "--target"]).arg(&back)).expect_code(3);
    let lost: Vec<_> = (0..3).filter(|n| ran.err().contains(&format!("big-{n}"))).collect();
    assert_eq!(lost.len(), 1, "{}", ran.err());
    assert!(wrong.is_empty() || wrong[0].0 == lost[0]);
    // What is there is right; what is not whole is not there under its name, or ends early.
    for n in (0..3).filter(|n| *n != lost[0]) {
        let name = format!("big-{n}");
        assert!(std::fs::read(back.join(&name)).unwrap() == std::fs::read(source.join(&name)).unwrap());
    }
    let ran = stranger.run(["check", "--read-data"]).expect_code(1);
    assert!((ran.out() + &ran.err()).contains(name_of(&damaged)), "{}{}", ran.out(), ran.err());
    assert!(ran.out().contains(&format!("big-{}", lost[0])), "{}", ran.out());
}

#[test]
fn push_sends_what_is_missing_and_nothing_twice() {
    let machine = Machine::with_store();
    let source = machine.path("source");
    build(&source);
    machine.back_up(&source, &[]);
    machine.run(["vault", "push"]).expect_code(1).expect_err(&["no vault", "vault add"]);
    let vault = machine.path("vault");
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    let push = || machine.run(["vault", "push", "--json"]).expect_code(0).json();
    let first = push();
    assert_eq!(first["points"], 1);
    assert!(first["bytes"].as_u64().unwrap() > 24 << 20, "{first}");
    let again = push();
    assert_eq!((&again["points"], &again["packs"], &again["bytes"]), (&0.into(), &0.into(), &0.into()));
    std::fs::write(source.join("small/07"), "changed").unwrap();
    machine.back_up(&source, &[]);
    let second = push();
    assert_eq!(second["points"], 1);
    assert!(second["bytes"].as_u64().unwrap() < 1 << 20, "{second}");
    let list = machine.run(["snapshots"]).expect_code(0).out();
    assert_eq!(list.matches("local, 1 vault").count(), 2, "{list}");
}
