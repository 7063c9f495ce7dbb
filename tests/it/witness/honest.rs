//! A long honest life: everything that removes something on purpose, by one machine or another, and everything that fails and comes back.

use super::*;

/// Each machine looks in every way, and has nothing to tell.
fn all_is_well(machines: &[&Machine], after: &str) {
    for machine in machines {
        for verb in [&["vault", "push"][..], &["check"], &["prune"]] {
            let ran = machine.run(verb);
            assert_eq!(said(&ran), none(), "after {after}: {verb:?}: {}", ran.err());
            ran.expect_code(0);
        }
        assert_eq!(alerts(machine), none(), "after {after}");
    }
}

fn forget(machine: &Machine, id: &str) {
    machine.run(["forget", id, "--yes", "--allow-newest"]).expect_code(0);
}

#[test]
fn a_life_of_several_machines_raises_nothing() {
    let (bed, ids) = Bed::with_points(4);
    let other = bed.recovered();
    let on_other = |content: &str| {
        let path = other.path("o");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("file"), content).unwrap();
        let point = other.back_up(&path, &["--host", "other"]);
        point["snapshot_id"].as_str().unwrap().to_owned()
    };
    let theirs = [on_other("1"), on_other("2")];
    all_is_well(&[&other, &bed.machine], "points of two machines");
    forget(&other, &ids[3]);
    all_is_well(&[&bed.machine, &other], "the newest point was forgotten by the other machine");
    forget(&bed.machine, &ids[1]);
    all_is_well(&[&other, &bed.machine], "one in the middle was forgotten");
    let again = bed.take("s", "after the newest was forgotten");
    all_is_well(&[&bed.machine, &other], "a point after one that was forgotten");
    // Somebody wants it after all.
    let kept = bed.take("s", "kept here");
    bed.push(0);
    // It learns of it there.
    other.run(["prune"]).expect_code(0);
    forget(&other, &kept);
    bed.machine.run(["vault", "push", &kept]).expect_code(0);
    all_is_well(&[&bed.machine, &other, &bed.recovered()], "a second attempt");
    bed.machine.run(["hold", &again]).expect_code(0);
    bed.machine.run(["release", &again]).expect_code(0);
    // It was never pushed.
    let local = bed.take("s", "never pushed");
    forget(&bed.machine, &local);
    bed.take("s", "and the next");
    bed.machine.run(["prune", "--now"]).expect_code(0);
    all_is_well(&[&bed.machine, &other], "freeing");
    theirs.iter().for_each(|id| forget(&other, id));
    other.run(["prune", "--now"]).expect_code(0);
    all_is_well(&[&bed.machine, &other, &bed.recovered()], "the end of a source");
}

#[test]
fn a_machine_that_was_away_while_all_its_points_went_and_two_vaults_of_a_store_raise_nothing() {
    let (bed, ids) = Bed::with_points(3);
    let second = bed.machine.path("second");
    bed.machine.run(["vault", "add", second.to_str().unwrap()]).expect_code(0);
    let other = bed.recovered();
    // Into the second alone goes what the first does not have.
    for id in &ids {
        forget(&other, id);
    }
    other.run(["prune", "--now"]).expect_code(0);
    all_is_well(&[&bed.machine, &other], "a year away");
    bed.take("s", "back");
    all_is_well(&[&bed.machine], "both vaults have it");
    // A vault that is not mounted shows nothing, and is not told to be another.
    let away = bed.machine.path("away");
    std::fs::rename(&second, &away).unwrap();
    std::fs::create_dir(&second).unwrap();
    let ran = bed.machine.run(["vault", "push"]);
    assert_eq!(said(&ran), none(), "{}", ran.err());
    assert_eq!(alerts(&bed.machine), none());
    std::fs::remove_dir(&second).unwrap();
    std::fs::rename(&away, &second).unwrap();
    all_is_well(&[&bed.machine], "it is back");
    // One that is given up and made anew under the same address is another one.
    bed.machine.run(["vault", "remove", "--force", second.to_str().unwrap()]).expect_code(0);
    std::fs::remove_dir_all(&second).unwrap();
    bed.machine.run(["vault", "add", second.to_str().unwrap()]).expect_code(0);
    all_is_well(&[&bed.machine], "a new vault under an old address");
}
