//! Vaults that are not mounted, that lost something or hold what is damaged, that are one of several, or that are given up:
//! what the program says, and what comes back.

use std::path::{Path, PathBuf};

use super::{build, flip, latest_id, name_of, packs, recovered, with_directory_vault};
use crate::compare::compare;
use crate::testkit::{Machine, PASSPHRASE, Ran, noise};

/// Puts an empty directory in the place of a vault, as a mount point without its disk is.
fn unmount(vault: &Path) -> PathBuf {
    let away = vault.with_extension("away");
    std::fs::rename(vault, &away).unwrap();
    std::fs::create_dir(vault).unwrap();
    away
}

fn mount_again(vault: &Path, away: &Path) {
    std::fs::remove_dir(vault).unwrap();
    std::fs::rename(away, vault).unwrap();
}

#[test]
fn a_backup_while_the_vault_is_not_mounted_forgets_nothing_of_it() {
    let (_machine, source, vault) = with_directory_vault();
    let stranger = recovered(vault.to_str().unwrap());
    let point = latest_id(&stranger);
    let away = unmount(&vault);
    let mine = stranger.path("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("file"), "mine").unwrap();
    stranger.back_up(&mine, &[]);
    for verb in [&["vault", "push"][..], &["prune"]] {
        stranger.run(verb).expect_code(1).expect_err(&["the store's config not found", "mounted"]);
    }
    let ran = stranger.run(["check"]).expect_code(1);
    let ran = ran.expect_err(&["it cannot be looked at", "not all could be looked at"]);
    assert!(!ran.err().contains("damaged"), "{}", ran.err());
    mount_again(&vault, &away);
    compare(&source, &stranger.restore(&point, "back")).assert_none();
    stranger.run(["check"]).expect_code(0);
}

#[test]
fn a_push_repairs_what_the_vault_lost_at_once() {
    let (machine, source, vault) = with_directory_vault();
    std::fs::remove_file(&packs(&vault)[0].1).unwrap();
    let pushed = machine.run(["vault", "push", "--json"]).expect_code(3).json();
    assert_eq!((&pushed["points"], &pushed["packs"]), (&1.into(), &1.into()), "{pushed}");
    let stranger = recovered(vault.to_str().unwrap());
    compare(&source, &stranger.restore("latest", "back")).assert_none();
}

#[test]
fn a_point_of_which_staging_lost_something_keeps_no_other_from_the_vault() {
    for n in 0..2 {
        let (machine, _, vault) = with_directory_vault();
        let before = packs(&machine.store());
        let (mut ids, mut new) = (Vec::new(), Vec::new());
        for name in ["one", "two"] {
            let source = machine.path(name);
            std::fs::create_dir(&source).unwrap();
            std::fs::write(source.join("file"), noise(name, 100_000)).unwrap();
            machine.back_up(&source, &[]);
            ids.push(latest_id(&machine));
            new.extend(packs(&machine.store()).into_iter().filter(|pack| !before.contains(pack)));
        }
        // Its directories, or its data.
        std::fs::remove_file(&new[n].1).unwrap();
        let ran = machine.run(["vault", "push"]).expect_code(1);
        ran.expect_err(&[&ids[0][..8], "pack/", "not found"]);
        let stranger = recovered(vault.to_str().unwrap());
        let back = stranger.restore(&ids[1], "back");
        assert_eq!(std::fs::read(back.join("file")).unwrap(), noise("two", 100_000));
        assert!(!stranger.run(["snapshots"]).out().contains(&ids[0][..8]));
    }
}

#[test]
fn what_is_in_the_way_of_one_point_in_a_vault_keeps_no_other_from_it() {
    let (machine, _, vault) = with_directory_vault();
    let source = machine.path("more");
    std::fs::create_dir(&source).unwrap();
    for n in ["1", "2"] {
        std::fs::write(source.join(n), noise(n, 50_000)).unwrap();
        machine.back_up(&source, &["--online"]);
    }
    let list = machine.run(["snapshots", "--json"]).json();
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap()).collect();
    let object = |id: &str| {
        let sources = std::fs::read_dir(vault.join("rp")).unwrap();
        sources.map(|source| source.unwrap().path().join(id)).find(|path| path.exists()).unwrap()
    };
    let objects: Vec<_> = ids.iter().map(|id| object(id)).collect();
    objects.iter().for_each(|object| std::fs::remove_file(object).unwrap());
    std::fs::create_dir(&objects[0]).unwrap();
    machine.run(["vault", "push"]).expect_code(1).expect_err(&[&ids[0][..8]]);
    assert!(objects[1..].iter().all(|object| object.is_file()));
}

#[test]
fn a_pack_that_is_damaged_in_the_vault_is_found_and_sent_again() {
    let (machine, source, vault) = with_directory_vault();
    let damaged = packs(&vault);
    let (len, cut) = &damaged[0];
    std::fs::File::options().write(true).open(cut).unwrap().set_len(1000).unwrap();
    let said = format!("1000 bytes instead of {len}");
    machine.run(["check"]).expect_code(1).expect_err(&[name_of(cut), &said]);
    machine.run(["vault", "push"]).expect_code(3).expect_err(&[name_of(cut), &said, "bad/"]);
    assert_eq!(cut.metadata().unwrap().len(), *len);
    machine.run(["check"]).expect_code(0);
    // Of the right length, only reading tells.
    let (len, flipped) = &damaged[1];
    flip(flipped, len / 2);
    machine.run(["check", "--read-data"]).expect_code(1).expect_err(&[name_of(flipped)]);
    machine.run(["vault", "push"]).expect_code(3).expect_err(&[name_of(flipped), "bad/"]);
    machine.run(["check", "--read-data"]).expect_code(0);
    let stranger = recovered(vault.to_str().unwrap());
    compare(&source, &stranger.restore("latest", "back")).assert_none();
}

#[test]
fn a_pack_that_was_cut_is_sent_again_by_a_backup_that_needs_a_part_of_it() {
    let machine = Machine::with_store();
    let (source, vault) = (machine.path("src"), machine.path("vault"));
    std::fs::create_dir(&source).unwrap();
    machine.run(["vault", "add", vault.to_str().unwrap()]).expect_code(0);
    let write = |name: &str, what: &str, len| std::fs::write(source.join(name), noise(what, len)).unwrap();
    let back_up = || {
        let mut backup = machine.command(["backup", "--online"]);
        Ran::of(backup.arg(&source))
    };
    write("stays", "stays", 900_000);
    write("changes", "one", 100_000);
    back_up().expect_code(0);
    let (len, cut) = packs(&vault).into_iter().max().unwrap();
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(len / 2).unwrap();
    write("changes", "two", 100_000);
    back_up().expect_code(3).expect_err(&[name_of(&cut), "sent again"]);
    assert_eq!(cut.metadata().unwrap().len(), len);
    machine.run(["check", "--read-data"]).expect_code(0);
    let stranger = recovered(vault.to_str().unwrap());
    compare(&source, &stranger.restore("latest", "back")).assert_none();
}

#[test]
fn a_prune_leaves_a_damaged_pack_whose_replacement_the_vault_lost() {
    let (machine, source, vault) = with_directory_vault();
    let before = packs(&vault);
    for dir in [&vault, &machine.store()] {
        let (len, damaged) = &packs(dir)[0];
        flip(damaged, len / 2);
    }
    machine.run(["check", "--read-data"]).expect_code(1);
    machine.back_up(&source, &["--online"]);
    let stranger = recovered(vault.to_str().unwrap());
    compare(&source, &stranger.restore("latest", "back")).assert_none();
    stranger.run(["check", "--read-data"]).expect_code(1).expect_err(&[name_of(&before[0].1)]);
    let lost = packs(&vault).into_iter().find(|pack| !before.contains(pack)).unwrap().1;
    let away = machine.path("lost");
    std::fs::rename(&lost, &away).unwrap();
    stranger.run(["prune", "--now"]).expect_code(3).expect_err(&[name_of(&lost), "is missing"]);
    assert!(before.iter().all(|(len, path)| path.metadata().is_ok_and(|meta| meta.len() == *len)));
    std::fs::rename(&away, &lost).unwrap();
    let pruned = stranger.run(["prune", "--now", "--json"]).expect_code(0).json();
    assert_eq!(pruned["packs_removed"], 1, "{pruned}");
    assert!(!before[0].1.exists());
    compare(&source, &stranger.restore("latest", "again")).assert_none();
}

#[test]
fn a_vault_that_is_away_keeps_nothing_from_the_others() {
    let machine = Machine::with_store();
    let source = machine.path("source");
    build(&source);
    machine.back_up(&source, &[]);
    let [one, two] = ["one", "two"].map(|name| machine.path(name));
    for vault in [&one, &two] {
        Ran::of(machine.command(["vault", "add"]).arg(vault)).expect_code(0);
    }
    std::fs::rename(&one, machine.path("elsewhere")).unwrap();
    let ran = machine.run(["vault", "push"]).expect_code(1).expect_err(&[one.to_str().unwrap(), "mounted"]);
    assert!(ran.out().contains("1 recovery point vaulted"), "{}", ran.out());
    let stranger = recovered(two.to_str().unwrap());
    compare(&source, &stranger.restore("latest", "back")).assert_none();
    // A check tells of it and of nothing else.
    let ran = machine.run(["check", "--read-data", "--json"]).expect_code(1);
    assert_eq!((&ran.json()["num_errors"], &ran.json()["points"]), (&1.into(), &1.into()), "{}", ran.out());
}

#[test]
fn a_vault_that_is_not_in_the_settings_is_named_with_the_way_out_and_can_be_given_up() {
    let (machine, source, vault) = with_directory_vault();
    let stranger = recovered(vault.to_str().unwrap());
    let (point, address) = (latest_id(&stranger), vault.to_str().unwrap());
    stranger
        .run(["vault", "remove", "file:///nowhere/at/all"])
        .expect_code(1)
        .expect_err(&["no vault", "vault list"]);
    stranger
        .run(["vault", "remove", address])
        .expect_code(1)
        .expect_err(&["alone holds 1 recovery point", "--force"]);
    // Settings that were lost, or edited.
    std::fs::write(stranger.store().join("settings.json"), "{}").unwrap();
    let mut restore = stranger.command(["restore", &point, "--target"]);
    Ran::of(restore.arg(stranger.path("none"))).expect_err(&["no way to vault", address]);
    let out = ["no way to vault", address, "vault add", "vault remove"];
    stranger.run(["forget", &point, "--allow-newest"]).expect_code(1).expect_err(&out);
    stranger.run(["vault", "remove", address, "--force"]).expect_code(0);
    let list = stranger.run(["snapshots", "--json"]).expect_code(0).json();
    assert_eq!(list.as_array().unwrap().len(), 0, "{list}");
    stranger.run(["check"]).expect_code(0);
    // Nothing in the vault was touched, and it can be met again.
    stranger.run(["vault", "add", address]).expect_code(0);
    compare(&source, &stranger.restore(&point, "back")).assert_none();
    // Where all is here as well, nothing needs to be forced.
    machine.run(["vault", "remove", address]).expect_code(0);
    compare(&source, &machine.restore(&point, "back")).assert_none();
    machine.run(["prune", "--now"]).expect_code(0);
    machine.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn damage_in_the_local_store_is_moved_aside_and_keeps_prune_from_nothing() {
    let machine = Machine::with_store();
    let source = machine.path("source");
    build(&source);
    machine.back_up(&source, &[]);
    let cut = packs(&machine.store())[0].1.clone();
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(1000).unwrap();
    machine.run(["backup", source.to_str().unwrap()]).expect_err(&[name_of(&cut), "bad/pack/"]);
    let again = machine.run(["backup", source.to_str().unwrap()]).expect_code(0);
    assert!(!again.err().contains(name_of(&cut)), "{}", again.err());
    compare(&source, &machine.restore("latest", "back")).assert_none();
    machine.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_machine_that_recovers_once_more_keeps_the_key_that_opens_and_puts_aside_one_that_does_not() {
    let (machine, _, vault) = with_directory_vault();
    let recover = |of: &Machine, store: &str| {
        let mut command = of.command(["recover", "--machine-key"]);
        command.arg(&vault).env("HOLDFAST_STORE", of.path(store)).env("HOLDFAST_PASSWORD", PASSPHRASE);
        Ran::of(&mut command).expect_code(0)
    };
    let opens = |of: &Machine, store: &str| {
        Ran::of(of.command(["snapshots"]).env("HOLDFAST_STORE", of.path(store))).expect_code(0);
    };
    let keys = |of: &Machine| {
        let files = std::fs::read_dir(of.root().join("keys")).unwrap();
        files.filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().contains(".key")).count()
    };
    recover(&machine, "again");
    opens(&machine, "again");
    opens(&machine, "store");
    assert_eq!(keys(&machine), 1);
    // Its slot was in the staging alone that is lost here.
    let other = Machine::recovering();
    recover(&other, "first");
    std::fs::remove_dir_all(other.path("first")).unwrap();
    let ran = recover(&other, "second");
    assert!(ran.err().contains(".unused-"), "{}", ran.err());
    opens(&other, "second");
    assert_eq!(keys(&other), 2);
}

#[test]
fn a_vault_that_is_away_does_not_keep_prune_from_the_next_one() {
    let (machine, _, vault) = with_directory_vault();
    let other = machine.path("other");
    Ran::of(machine.command(["vault", "add"]).arg(&other)).expect_code(0);
    machine.run(["vault", "push"]).expect_code(0);
    let useless = packs(&other)[0].1.clone();
    machine.run(["forget", &latest_id(&machine), "--yes", "--allow-newest"]).expect_code(0);
    let away = unmount(&vault);
    let ran =
        machine.run(["prune", "--now"]).expect_code(1).expect_err(&[vault.to_str().unwrap(), "not found"]);
    assert!(ran.out().contains("removed"), "{}", ran.out());
    assert!(!useless.exists());
    mount_again(&vault, &away);
    machine.run(["prune", "--now"]).expect_code(0);
    assert_eq!(packs(&vault), []);
}

#[test]
fn a_backup_stores_what_it_has_in_its_hands_and_a_vault_is_known_to_hold_damaged() {
    for all in [false, true] {
        let (machine, source, vault) = with_directory_vault();
        let stranger = recovered(vault.to_str().unwrap());
        let mut rotten = packs(&vault);
        rotten.truncate(if all { rotten.len() } else { 1 });
        rotten.iter().for_each(|(len, pack)| flip(pack, len / 2));
        let named: Vec<&str> = rotten.iter().map(|(_, pack)| name_of(pack)).collect();
        stranger.run(["check", "--read-data"]).expect_code(1).expect_err(&named);
        // It is told until it is put right, also by who reads nothing.
        stranger.run(["check"]).expect_code(1).expect_err(&named);
        stranger.back_up(&source, &["--online"]);
        let kept = machine.path("kept");
        std::fs::rename(&source, &kept).unwrap();
        compare(&kept, &stranger.restore("latest", "back")).assert_none();
        let third = recovered(vault.to_str().unwrap());
        compare(&kept, &third.restore("latest", "back")).assert_none();
        // Nobody needs what is damaged any more.
        stranger.run(["prune", "--now"]).expect_code(0);
        stranger.run(["check", "--read-data"]).expect_code(0);
    }
}

#[test]
fn a_vault_whose_other_copies_are_damaged_is_not_given_up_without_a_word() {
    let (machine, source, one) = with_directory_vault();
    let two = machine.path("two");
    Ran::of(machine.command(["vault", "add"]).arg(&two)).expect_code(0);
    machine.run(["vault", "push"]).expect_code(0);
    let stranger = recovered(one.to_str().unwrap());
    Ran::of(stranger.command(["vault", "add"]).arg(&two)).expect_code(0);
    let (len, rotten) = &packs(&two)[0];
    flip(rotten, len / 2);
    stranger.run(["check", "--read-data"]).expect_code(1).expect_err(&[name_of(rotten)]);
    let remove = ["vault", "remove", one.to_str().unwrap()];
    stranger.run(remove).expect_code(1).expect_err(&["alone holds", "1 pack", "--force"]);
    stranger.run(["vault", "remove", two.to_str().unwrap()]).expect_code(0);
    compare(&source, &stranger.restore("latest", "back")).assert_none();
}

#[test]
fn a_recovery_from_a_listing_that_was_short_is_made_whole_by_the_same_command() {
    let (machine, source, vault) = with_directory_vault();
    let first = latest_id(&machine);
    std::fs::write(source.join("more"), "more").unwrap();
    machine.back_up(&source, &["--online"]);
    // The point that was there first, and its biggest pack.
    let folder = vault.join("rp").read_dir().unwrap().next().unwrap().unwrap().path();
    let hidden = [folder.join(&first), packs(&vault)[0].1.clone()];
    let aside = |path: &Path| machine.path(name_of(path));
    hidden.iter().for_each(|path| std::fs::rename(path, aside(path)).unwrap());
    let stranger = Machine::recovering();
    let recover = |args: &[&str]| {
        let mut recover = stranger.command(args);
        Ran::of(recover.arg(&vault).env("HOLDFAST_PASSWORD", PASSPHRASE))
    };
    // The session of the other point says that it was there.
    recover(&["recover", "--machine-key"]).expect_code(3).expect_err(&["point-removed"]);
    hidden.iter().for_each(|path| std::fs::rename(aside(path), path).unwrap());
    let ran = recover(&["recover"]).expect_code(0);
    assert!(ran.out().contains("2 recovery points"), "{}", ran.out());
    stranger.restore(&first, "back");
    compare(&source, &stranger.restore("latest", "now")).assert_none();
}

#[test]
fn what_has_the_name_of_a_pack_and_is_no_file_is_named_by_a_check() {
    let (machine, _, vault) = with_directory_vault();
    let pack = packs(&vault)[0].1.clone();
    std::fs::remove_file(&pack).unwrap();
    std::os::unix::fs::symlink("/nowhere", &pack).unwrap();
    let named = [name_of(&pack), "symbolic link", "remove it by hand"];
    machine.run(["check"]).expect_code(1).expect_err(&named);
    machine.run(["vault", "push"]).expect_code(1);
    // It is not believed to be there any more.
    machine.run(["check"]).expect_code(1).expect_err(&named);
    std::fs::remove_file(&pack).unwrap();
    machine.run(["vault", "push"]).expect_code(0);
    machine.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_pack_stays_in_one_vault_whose_copy_in_another_does_not_open() {
    let (machine, source, one) = with_directory_vault();
    let other = machine.path("other");
    Ran::of(machine.command(["vault", "add"]).arg(&other)).expect_code(0);
    machine.run(["vault", "push"]).expect_code(0);
    // A machine that knew of the first vault alone forgot the point; in the second one bytes of the same length rotted, and what tells of them is lost.
    std::fs::remove_dir_all(one.join("rp")).unwrap();
    std::fs::remove_dir_all(other.join("idx")).unwrap();
    let (len, rotten) = packs(&other)[0].clone();
    std::fs::write(&rotten, noise("rot", len as usize)).unwrap();
    let stranger = Machine::recovering();
    let mut recover = stranger.command(["recover", "--machine-key"]);
    Ran::of(recover.arg(&one).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    Ran::of(stranger.command(["vault", "add"]).arg(&other)).code();
    stranger.run(["prune", "--now"]).expect_code(3).expect_err(&[name_of(&rotten), "does not"]);
    assert!(one.join("pack").join(&name_of(&rotten)[..2]).join(name_of(&rotten)).exists());
    compare(&source, &stranger.restore("latest", "back")).assert_none();
    // What is known of the copy is not forgotten.
    stranger.run(["check"]).expect_code(1).expect_err(&[name_of(&rotten)]);
}
