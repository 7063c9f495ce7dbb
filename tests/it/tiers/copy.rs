//! Chosen points into a vault that is named, from wherever they are.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::testkit::wait_for;

/// Four points in a vault, of which the oldest is nowhere else, and a second vault without any.
fn forgotten() -> (Tiers, PathBuf, Vec<String>) {
    let tiers = Tiers::new("schedule = \"daily\", keep = { last = 1 }", "schedule = \"daily\"");
    let points = tiers.take(&[0, 24, 48, 72]);
    tiers.run(&["vault", "push"]).expect_code(0);
    tiers.run(&["forget", "--tier", "local", "--yes"]).expect_code(0);
    tiers.run(&["prune", "--local"]).expect_code(0);
    assert!(!shown_in(&tiers.machine.store()).contains(&points[0]));
    let second = tiers.machine.path("second");
    tiers.run(&["vault", "add", second.to_str().unwrap()]).expect_code(0);
    (tiers, second, points)
}

/// What a machine that has nothing gets of a point out of a vault.
fn page_from(vault: &Path, point: &str) -> Vec<u8> {
    let stranger = Machine::recovered_from(vault);
    std::fs::read(stranger.restore(point, "back").join("page")).unwrap()
}

#[test]
fn a_point_that_only_one_vault_has_is_copied_to_another_which_alone_gives_it_back() {
    let (tiers, second, points) = forgotten();
    let to = second.to_str().unwrap();
    let said = tiers.run(&["copy", &points[0], "latest", "--to", to, "--dry-run"]).expect_code(0).out();
    assert!(said.contains("2 recovery points to copy") && said.contains(&points[0][..8]), "{said}");
    assert_eq!(shown_in(&second), BTreeSet::new(), "a dry run sends nothing");
    let copied = tiers.run(&["copy", &points[0], "latest", "--to", to, "--json"]).expect_code(0).json();
    assert_eq!((&copied["points"], &copied["points_there"]), (&2.into(), &0.into()), "{copied}");
    assert_eq!(shown_in(&second), set([&points[0], &points[3]]));
    let again = tiers.run(&["copy", &points[0], "latest", "--to", to, "--json"]).expect_code(0).json();
    let counts = ["points", "points_there", "packs"].map(|name| again[name].as_u64().unwrap());
    assert_eq!(counts, [0, 2, 0], "{again}");
    std::fs::remove_dir_all(second.join("keys")).unwrap();
    tiers.run(&["copy", "latest", "--to", to]).expect_code(3).expect_err(&["keys/"]);
    std::fs::remove_dir_all(tiers.vault()).unwrap();
    std::fs::remove_dir_all(tiers.machine.store()).unwrap();
    assert!(page_from(&second, &points[0]) == noise("web 0", 50_000));
}

#[test]
fn points_are_chosen_by_name_group_source_and_age_and_only_vaults_of_the_store_are_copied_to() {
    let (tiers, second, points) = forgotten();
    let to = second.to_str().unwrap();
    let other = tiers.take_of("other", &[1]);
    let chosen = |args: &[&str]| {
        let all = [&["copy", "--to", to, "-n", "--json"], args].concat();
        let out = tiers.run(&all).expect_code(0).out();
        let lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let ids = lines.filter(|line| line["message_type"] == "point");
        ids.map(|line| line["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["--latest", "1"]), [&other[0], &points[3]].map(String::clone));
    assert_eq!(chosen(&["--group", "web", "--latest", "2"]), points[2..]);
    assert_eq!(chosen(&["--group", "other"]), other);
    assert_eq!(chosen(&["--source", "www", "--all"]).len(), 5);
    assert_eq!(chosen(&["latest", &points[0], &points[3]]), [&points[0], &points[3]].map(String::clone));
    assert_eq!(chosen(&["--group", "nothing"]), [""; 0]);
    tiers.run(&["copy", "--to", to]).expect_code(2).expect_err(&["--all", "--latest"]);
    tiers.run(&["copy", "latest", "--all", "--to", to]).expect_code(2);
    tiers.run(&["copy", "latest:page", "--to", to]).expect_code(2).expect_err(&["whole recovery points"]);
    let third = tiers.machine.path("third");
    let refused = tiers.run(&["copy", "latest", "--to", third.to_str().unwrap()]).expect_code(1);
    refused.expect_err(&["is no vault of this store", "holdfast vault add", third.to_str().unwrap()]);
    std::fs::rename(&second, tiers.away()).unwrap();
    tiers.run(&["copy", "latest", "--to", to]).expect_code(1).expect_err(&[to]);
}

#[test]
fn what_another_vault_does_not_give_keeps_nothing_else_from_being_copied() {
    let (tiers, second, points) = forgotten();
    let to = second.to_str().unwrap();
    std::fs::rename(tiers.vault(), tiers.away()).unwrap();
    tiers.run(&["copy", "--all", "--to", to]).expect_code(1).expect_err(&[&points[0][..8]]);
    assert_eq!(shown_in(&second), set(&points[1..]));
    std::fs::rename(tiers.away(), tiers.vault()).unwrap();
    for pack in packs(&tiers.vault()).into_iter().filter(|pack| {
        let shard_and_name = pack.strip_prefix(tiers.vault()).unwrap();
        !tiers.machine.store().join(shard_and_name).exists()
    }) {
        std::fs::write(pack, "no pack").unwrap();
    }
    let more = tiers.take(&[96]);
    tiers.run(&["copy", "--all", "--to", to]).expect_code(1).expect_err(&[&points[0][..8]]);
    assert_eq!(shown_in(&second), set(points[1..].iter().chain(&more)));
}

#[test]
fn a_copy_that_was_cut_off_goes_on_with_what_is_missing() {
    let (tiers, second, points) = forgotten();
    let copy = ["copy", "--all", "--to", second.to_str().unwrap(), "--json", "--limit-upload"];
    let mut slow = tiers.machine.command(copy.iter().chain(&["16K"]));
    let mut slow = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the first point", 60, || !shown_in(&second).is_empty());
    kill(Pid::from_raw(slow.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(slow.wait().unwrap().code(), Some(130));
    let (there, sent) = (shown_in(&second), packs(&second));
    assert!(there.len() < 4 && there.contains(&points[0]), "oldest first: {there:?}");
    let rest = tiers.run(&[&copy[..], &["unlimited"]].concat()).expect_code(0).json();
    assert_eq!(rest["points"].as_u64().unwrap(), 4 - there.len() as u64, "{rest}");
    assert_eq!(rest["packs"].as_u64().unwrap(), (packs(&second).len() - sent.len()) as u64, "{rest}");
    assert_eq!(shown_in(&second), set(&points));
    std::fs::remove_dir_all(tiers.vault()).unwrap();
    assert!(page_from(&second, &points[1]) == noise("web 24", 50_000));
}
