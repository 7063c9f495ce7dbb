//! `key rotate` and `key refresh`: what a new master key seals, who opens it, and what becomes of it when it is cut off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::sheet::words_in;
use super::{PASSPHRASE, Stored};
use crate::testkit::{Machine, Ran};

/// Runs with the words of the sheet as well as the passphrase.
fn with_words(stored: &Stored, args: &[&str]) -> std::process::Command {
    let mut command = stored.command(args);
    command.env("HOLDFAST_RECOVERY_KEY", words_in(&stored.path("sheet.txt")));
    command
}

fn rotate(stored: &Stored) -> Vec<Value> {
    let ran = Ran::of(&mut with_words(stored, &["key", "rotate", "--json"])).expect_code(0).out();
    ran.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Files with their bytes.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Names and bytes of all files below a directory.
fn files_in(dir: &Path) -> Files {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_in(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

fn put_back(dir: &Path, files: &Files) {
    for path in files_in(dir).into_keys().filter(|path| !files.contains_key(path)) {
        std::fs::remove_file(path).unwrap();
    }
    for (path, bytes) in files {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn key_dir(stored: &Stored) -> PathBuf {
    stored.machine.root().join("keys")
}

/// How many files there are with machine keys, those before and after among them.
fn machine_keys(dir: &Path) -> usize {
    files_in(dir).keys().filter(|path| path.to_str().unwrap().contains(".key")).count()
}

/// Key generations in the headers of packs.
fn generations(dir: &Path) -> Vec<u32> {
    let packs = files_in(&dir.join("pack")).into_values();
    let mut all: Vec<u32> = packs.map(|b| u32::from_le_bytes(b[48..52].try_into().unwrap())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn slots(stored: &Stored) -> Vec<Value> {
    stored.json(&["key", "list"]).remove(0).as_array().unwrap().clone()
}

fn read(stored: &Stored, file: &str) -> Ran {
    stored.run(["dump", &format!("latest:{file}")])
}

fn write_and_push(stored: &Stored, name: &str) {
    std::fs::write(stored.path("src").join(name), name.repeat(1000)).unwrap();
    stored.backup();
    stored.run(["vault", "push"]).expect_code(0);
}

#[test]
fn a_new_key_seals_what_is_new_and_nothing_is_sent_again() {
    let stored = Stored::with_vault();
    write_and_push(&stored, "before");
    let vault = stored.path("vault");
    let data = |dir: &Path| {
        let mut files = files_in(dir);
        files.retain(|path, _| !path.starts_with(dir.join("keys")));
        files
    };
    let (packs_before, keys_before) = (data(&vault), files_in(&key_dir(&stored)));
    let vault_slots = files_in(&vault.join("keys"));
    let slots_before = files_in(&stored.path("store/keys"));
    let done = rotate(&stored).remove(0);
    assert_eq!((&done["message_type"], &done["new_generation"]), (&"key_rotated".into(), &true.into()));
    assert_eq!(done["slots"].as_array().unwrap().len(), 3);
    assert_eq!(data(&vault), packs_before, "nothing but slots changed");
    let generation = u32::try_from(done["generation"].as_u64().unwrap()).unwrap();
    assert!(slots(&stored).iter().all(|slot| slot["generation"] == generation && slot["older"] == false));
    assert_eq!(files_in(&vault.join("keys")).len(), 3);
    let names =
        |dir: &Path| files_in(dir).into_keys().map(|p| p.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&vault.join("keys")), names(&stored.path("store/keys")));
    assert_ne!(files_in(&key_dir(&stored)), keys_before, "the machine's key is another one");
    assert_eq!(machine_keys(&key_dir(&stored)), 1);

    write_and_push(&stored, "after");
    assert_eq!(generations(&vault), [1, generation]);
    assert!(packs_before.iter().all(|(path, bytes)| data(&vault).get(path) == Some(bytes)));
    for file in ["before", "after"] {
        assert_eq!(read(&stored, file).expect_code(0).out(), file.repeat(1000));
    }
    stored.run(["check", "--read-data"]).expect_code(0);
    Ran::of(&mut with_words(&stored, &["key", "verify", "--vault", "all"])).expect_code(0);

    // Who took the ring of before reads what was there, and nothing of what came after.
    let thief = Machine::new();
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a").arg(stored.path("store")).arg(thief.path("store"));
    assert!(copy.status().unwrap().success());
    std::fs::remove_dir_all(thief.path("store/keys")).unwrap();
    std::fs::create_dir(thief.path("store/keys")).unwrap();
    for (path, bytes) in &slots_before {
        std::fs::write(thief.path("store/keys").join(path.file_name().unwrap()), bytes).unwrap();
    }
    let _ = std::fs::remove_file(thief.path("store/settings.json"));
    let steal = |args: &[&str]| {
        let mut command = thief.command(args);
        Ran::of(command.env("HOLDFAST_STORE", thief.path("store")).env("HOLDFAST_PASSWORD", PASSPHRASE))
    };
    let refused = steal(&["dump", "latest:after"]);
    assert_ne!(refused.code(), 0);
    assert!(refused.err().contains(&format!("key generation {generation}")), "{}", refused.err());
    let points: Vec<String> = stored.points();
    assert_eq!(
        steal(&["dump", &format!("{}:before", points[0])]).expect_code(0).out(),
        "before".repeat(1000)
    );
    let refused = steal(&["dump", &format!("{}:after", points[1])]).expect_code(12).err();
    assert!(refused.contains("key refresh") && !refused.contains("damaged"), "{refused}");

    // Who shows the slots of before gives nobody the new points, and a machine that has nothing says so of the words.
    let bare = Machine::new();
    let verify = || {
        let mut command = bare.command(["key", "verify", "--vault"]);
        Ran::of(command.arg(&vault).env("HOLDFAST_RECOVERY_KEY", words_in(&stored.path("sheet.txt"))))
    };
    verify().expect_code(0);
    let new = files_in(&vault.join("keys"));
    put_back(&vault.join("keys"), &vault_slots);
    let refused = verify().expect_code(12).err();
    assert!(refused.contains(&format!("key generation {generation}")), "{refused}");
    put_back(&vault.join("keys"), &new);

    // A second rotation is another one.
    let again = rotate(&stored).remove(0);
    assert!(again["generation"].as_u64().unwrap() > u64::from(generation));
    stored.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn slots_that_are_not_at_hand_go_only_if_somebody_agrees_and_the_sheet_is_new() {
    let stored = Stored::with_vault();
    let before = (files_in(&stored.path("store/keys")), files_in(&stored.path("vault/keys")));
    let refused = stored.run(["key", "rotate"]).expect_code(1).err();
    assert!(refused.contains("(recovery, made") && refused.contains("--drop-others"), "{refused}");
    let mut wrong = stored.command(["key", "rotate", "--drop-others"]);
    Ran::of(wrong.env("HOLDFAST_PASSWORD", "not the passphrase")).expect_code(12);
    std::fs::rename(stored.path("vault"), stored.path("away")).unwrap();
    stored.run(["key", "rotate", "--drop-others"]).expect_code(1);
    std::fs::rename(stored.path("away"), stored.path("vault")).unwrap();
    assert_eq!((files_in(&stored.path("store/keys")), files_in(&stored.path("vault/keys"))), before);

    let lines = stored.json(&["key", "rotate", "--drop-others"]);
    assert_eq!(lines[0]["message_type"], "recovery_sheet");
    let words = lines[0]["recovery_key"].as_str().unwrap().to_owned();
    assert_eq!(lines[1]["removed"].as_array().unwrap().len(), 3);
    let verify = |words: &str| Ran::of(stored.command(["key", "verify"]).env("HOLDFAST_RECOVERY_KEY", words));
    verify(&words).expect_code(0);
    verify(&words_in(&stored.path("sheet.txt"))).expect_code(12);
    // With a file for it the words are nowhere else.
    let mut again = stored.command(["key", "rotate", "--drop-others", "--json", "--sheet", "new.txt"]);
    assert!(!Ran::of(&mut again).expect_code(0).out().contains("recovery_key"));
    verify(&words).expect_code(12);
    verify(&words_in(&stored.path("new.txt"))).expect_code(0);
}

#[test]
fn a_new_sheet_whose_words_nobody_saw_is_no_dead_end() {
    let stored = Stored::with_vault();
    let before = [stored.path("vault/keys"), stored.path("store/keys"), key_dir(&stored)];
    let files = before.clone().map(|dir| files_in(&dir));
    let made = stored.json(&["key", "rotate", "--drop-others"]);
    let sheet = made[0]["id"].as_str().unwrap().to_owned();
    // Killed when the slot of the sheet was in its places, and nothing else was made.
    let slot = std::fs::read(stored.path("vault/keys").join(&sheet)).unwrap();
    before.iter().zip(&files).for_each(|(dir, files)| put_back(dir, files));
    std::fs::write(before[0].join(&sheet), &slot).unwrap();
    std::fs::write(before[1].join(&sheet), &slot).unwrap();
    write_and_push(&stored, "meanwhile");
    let refused = Ran::of(&mut with_words(&stored, &["key", "rotate"])).expect_code(12).err();
    assert!(refused.contains("--lost") && refused.contains(&sheet), "{refused}");
    let refused = stored.run(["key", "remove", &sheet]).expect_code(1).err();
    assert!(refused.contains("nothing was removed"), "{refused}");
    stored.run(["key", "remove", &sheet, "--lost"]).expect_code(0);
    rotate(&stored);
    assert_eq!(read(&stored, "meanwhile").expect_code(0).out(), "meanwhile".repeat(1000));
}

#[test]
fn a_new_slot_that_one_vault_took_stays_when_the_next_one_fails() {
    let stored = Stored::init(&["--vault", "vault", "--vault", "second"]);
    write_and_push(&stored, "before");
    let (tmp, aside) = (stored.path("second/.tmp"), stored.path("tmp"));
    std::fs::rename(&tmp, &aside).unwrap();
    std::fs::write(&tmp, "no directory: whatever is put here fails").unwrap();
    let before = files_in(&stored.path("vault/keys"));
    let failed = Ran::of(&mut with_words(&stored, &["key", "rotate"]));
    assert!(![0, 12].contains(&failed.code()), "{}", failed.err());
    let mut new = files_in(&stored.path("vault/keys"));
    new.retain(|path, _| !before.contains_key(path));
    let [slot] = new.values().collect::<Vec<_>>()[..] else { panic!("{} new slots", new.len()) };
    let generation = u32::from_le_bytes(slot[136..140].try_into().unwrap());
    assert!(generation > 1);
    assert_eq!(files_in(&stored.path("store/keys")).len(), 3);
    assert_eq!(read(&stored, "before").expect_code(0).out(), "before".repeat(1000));

    std::fs::remove_file(&tmp).unwrap();
    std::fs::rename(&aside, &tmp).unwrap();
    let done = rotate(&stored).remove(0);
    assert_eq!((&done["generation"], &done["new_generation"]), (&generation.into(), &false.into()));
    for place in ["vault", "second", "store"] {
        assert_eq!(files_in(&stored.path(place).join("keys")).len(), 3, "{place}");
    }
    write_and_push(&stored, "after");
    stored.run(["check", "--read-data"]).expect_code(0);
}

/// A verb on the store that a machine recovered, ready to run.
fn on(other: &Machine, args: &[&str]) -> Command {
    let mut command = other.command(args);
    command.env("HOLDFAST_STORE", other.path("store"));
    command
}

/// Another machine that has everything from the vault, and a machine key.
fn recovered_from(stored: &Stored) -> Machine {
    let other = Machine::new();
    let mut recover = on(&other, &["recover", "--machine-key"]);
    Ran::of(recover.arg(stored.path("vault")).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    other
}

#[test]
fn what_a_machine_seals_with_a_new_key_in_a_vault_of_its_own_people_can_open_there() {
    let stored = Stored::with_vault();
    write_and_push(&stored, "before");
    let other = recovered_from(&stored);
    let on_other = |args: &[&str]| Ran::of(on(&other, args).env("HOLDFAST_PASSWORD", PASSPHRASE));
    let own = other.path("own");
    on_other(&["vault", "add", own.to_str().unwrap()]).expect_code(0);
    rotate(&stored);
    on_other(&["key", "refresh"]).expect_code(0);
    std::fs::create_dir(other.path("src")).unwrap();
    std::fs::write(other.path("src/mine"), "mine".repeat(1000)).unwrap();
    on_other(&["backup", other.path("src").to_str().unwrap(), "--as", "own"]).expect_code(0);
    let pushed = on_other(&["vault", "push"]);
    assert!([0, 3].contains(&pushed.code()), "{}", pushed.err());
    let third = Machine::new();
    let words = words_in(&stored.path("sheet.txt"));
    let on_third = |args: &[&str]| Ran::of(on(&third, args).env("HOLDFAST_RECOVERY_KEY", &words));
    on_third(&["recover", own.to_str().unwrap()]).expect_code(0);
    assert_eq!(on_third(&["dump", "latest:mine"]).expect_code(0).out(), "mine".repeat(1000));
}

#[test]
fn another_machine_goes_on_with_the_old_ring_and_is_told_how_to_have_the_new_one() {
    let stored = Stored::with_vault();
    write_and_push(&stored, "before");
    let other = recovered_from(&stored);
    let on_other = |args: &[&str]| Ran::of(&mut on(&other, args));
    rotate(&stored);
    write_and_push(&stored, "gone");
    // What says in the vault that a point was forgotten is sealed with the new key, too.
    stored.run(["forget", &stored.points()[1], "--allow-newest"]).expect_code(0);
    write_and_push(&stored, "after");
    assert_eq!(stored.points().len(), 2);
    let vault_before = files_in(&stored.path("vault"));

    // It reads what it could, takes points and sends them; what it cannot open it leaves alone and names.
    std::fs::create_dir(other.path("own")).unwrap();
    std::fs::write(other.path("own/mine"), "mine".repeat(1000)).unwrap();
    assert_eq!(on_other(&["dump", "latest:before"]).expect_code(0).out(), "before".repeat(1000));
    let own = other.path("own");
    let sent = on_other(&["backup", own.to_str().unwrap(), "--as", "own", "--online"]);
    assert!([0, 3].contains(&sent.code()), "{}", sent.err());
    assert!(sent.err().contains("key refresh") && !sent.err().contains("damaged"), "{}", sent.err());
    let checked = on_other(&["check", "--read-data"]).expect_code(1);
    assert!(checked.out().contains("NOT ALL COULD BE LOOKED AT"), "{} {}", checked.out(), checked.err());
    let pruned = on_other(&["prune", "--now"]);
    assert_eq!(pruned.code(), 12, "{}", pruned.err());
    on_other(&["key", "add", "--kind", "recovery"]).expect_code(12);
    // Without something that opens the new ring there is no way to it.
    let refused = on_other(&["key", "refresh"]).expect_code(12).err();
    assert!(refused.contains("nothing at hand opens"), "{refused}");
    // A vault that it makes ready again does not get the old slots back, and that is no vault that what is here opens.
    let added = Ran::of(on(&other, &["vault", "add"]).arg(stored.path("vault"))).expect_code(3);
    let added = added.expect_err(&["a key slot of generation", "`holdfast key refresh`", "--lost"]);
    assert!(!added.out().contains("is ready"), "{}", added.out());
    let vault_after = files_in(&stored.path("vault"));
    assert!(vault_before.iter().all(|(path, bytes)| vault_after.get(path) == Some(bytes)), "something went");
    assert_eq!(files_in(&stored.path("vault/keys")).len(), 3);

    Ran::of(on(&other, &["key", "refresh"]).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    assert_eq!(files_in(&stored.path("vault/keys")).len(), 3, "the vault is only read");
    on_other(&["vault", "push"]).expect_code(0);
    let checked = on_other(&["check", "--read-data"]).expect_code(0);
    assert!(checked.out().contains("no damage found"), "{}", checked.out());
    let points = on_other(&["snapshots", "--json"]).expect_code(0).json();
    assert_eq!(points.as_array().unwrap().len(), 3);
    assert!(on_other(&["key", "refresh"]).expect_code(0).out().contains("up to date"));
    // And the first machine reads what the other one sealed with the old key.
    stored.run(["prune"]).expect_code(0);
    assert_eq!(stored.points().len(), 3);
    stored.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_machine_with_the_old_ring_takes_points_and_brings_them_once_it_has_the_new_one() {
    let stored = Stored::with_vault();
    write_and_push(&stored, "going");
    std::fs::remove_file(stored.path("src/going")).unwrap();
    write_and_push(&stored, "staying");
    let other = recovered_from(&stored);
    let on_other = |args: &[&str]| Ran::of(&mut on(&other, args));
    rotate(&stored);
    // The other machine knows the point, and cannot read why it is not there any more.
    stored.run(["forget", &stored.points()[0], "--allow-newest"]).expect_code(0);
    std::fs::create_dir(other.path("own")).unwrap();
    std::fs::write(other.path("own/mine"), "mine".repeat(1000)).unwrap();
    let own = other.path("own");
    let backup = || on_other(&["backup", own.to_str().unwrap(), "--as", "own", "--online"]);
    let sent = backup();
    assert!([0, 3].contains(&sent.code()), "{}", sent.err());
    assert!(sent.err().contains("key refresh") && !sent.err().contains("damaged"), "{}", sent.err());
    let checked = on_other(&["check", "--read-data"]).expect_code(1);
    assert!(checked.out().contains("NOT ALL COULD BE LOOKED AT"), "{} {}", checked.out(), checked.err());

    // Which packs went is said with the new key, too: from then on it cannot tell what it may rely on there.
    stored.run(["prune", "--now"]).expect_code(0);
    assert_eq!(stored.points().len(), 2, "what it sent came there");
    std::fs::write(other.path("own/mine"), "more".repeat(1000)).unwrap();
    let waits = backup();
    assert_ne!(waits.code(), 0, "{}", waits.err());
    assert!(waits.err().contains("key refresh") && !waits.err().contains("damaged"), "{}", waits.err());
    assert_eq!(on_other(&["dump", "latest:mine"]).expect_code(0).out(), "more".repeat(1000));
    let checked = on_other(&["check", "--read-data"]).expect_code(1);
    assert!(checked.out().contains("NOT ALL COULD BE LOOKED AT"), "{} {}", checked.out(), checked.err());

    Ran::of(on(&other, &["key", "refresh"]).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    on_other(&["vault", "push"]).expect_code(0);
    assert_eq!(
        on_other(&["snapshots", "--json"]).expect_code(0).json().as_array().unwrap().len(),
        3,
        "staying, and two of its own"
    );
    on_other(&["check", "--read-data"]).expect_code(0);
    stored.run(["prune"]).expect_code(0);
    assert_eq!(stored.points().len(), 3);
    stored.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_rotation_that_was_cut_off_anywhere_goes_on_with_the_key_that_it_began_with() {
    let stored = Stored::with_vault();
    write_and_push(&stored, "before");
    let dirs = [stored.path("vault/keys"), stored.path("store/keys"), key_dir(&stored)];
    let before = dirs.clone().map(|dir| files_in(&dir));
    let generation = rotate(&stored)[0]["generation"].clone();
    let after = dirs.clone().map(|dir| files_in(&dir));
    let [_, _, keys] = &dirs;
    let file = before[2].keys().next().unwrap().clone();
    let both =
        |at: usize| before[at].clone().into_iter().chain(after[at].clone()).collect::<BTreeMap<_, _>>();
    let of = |id: &str, files: &Files| {
        files
            .iter()
            .find(|(path, _)| path.ends_with(id))
            .map(|(path, bytes)| (path.clone(), bytes.clone()))
            .unwrap()
    };
    let new_people = slots(&stored).into_iter().find(|slot| slot["kind"] == "passphrase").unwrap();
    let id = new_people["id"].as_str().unwrap();
    let (old_key, new_key) = (before[2][&file].clone(), after[2][&file].clone());
    let beside = |name: &str, bytes: &Vec<u8>| (file.with_extension(name), bytes.clone());
    let steps: [(&str, [Files; 3]); 5] = [
        (
            "one new slot is in the vault",
            [
                before[0].clone().into_iter().chain([of(id, &after[0])]).collect(),
                before[1].clone(),
                before[2].clone(),
            ],
        ),
        (
            "it is here as well",
            [
                before[0].clone().into_iter().chain([of(id, &after[0])]).collect(),
                before[1].clone().into_iter().chain([of(id, &after[1])]).collect(),
                before[2].clone(),
            ],
        ),
        (
            "all slots are there, and the next key",
            [
                both(0),
                both(1),
                BTreeMap::from([(file.clone(), old_key.clone()), beside("key.next", &new_key)]),
            ],
        ),
        (
            "the next key is the machine's",
            [
                both(0),
                both(1),
                BTreeMap::from([(file.clone(), new_key.clone()), beside("key.old", &old_key)]),
            ],
        ),
        (
            "the old slots went from the vault",
            [
                after[0].clone(),
                both(1),
                BTreeMap::from([(file.clone(), new_key.clone()), beside("key.old", &old_key)]),
            ],
        ),
    ];
    for (step, state) in steps {
        dirs.iter().zip(&state).for_each(|(dir, files)| put_back(dir, files));
        assert_eq!(stored.json(&["snapshots"]).remove(0).as_array().unwrap().len(), 1, "{step}");
        stored.run(["backup", "src", "--as", "more", "--online"]).expect_code(0);
        let done = rotate(&stored).remove(0);
        assert_eq!((&done["generation"], &done["new_generation"]), (&generation, &false.into()), "{step}");
        assert_eq!(slots(&stored).len(), 3, "{step}");
        assert_eq!(files_in(&dirs[0]).len(), 3, "{step}");
        assert_eq!(machine_keys(keys), 1, "{step}");
        assert!(slots(&stored).iter().all(|slot| slot["generation"] == generation), "{step}");
        stored.run(["check", "--read-data"]).expect_code(0);
        let all: Vec<String> = stored.points();
        for point in all.iter().skip(1) {
            stored.run(["forget", point, "--allow-newest"]).expect_code(0);
        }
    }
}

#[test]
fn a_rotation_that_is_killed_at_any_moment_leaves_a_store_that_opens_and_can_be_rotated() {
    let stored = Stored::with_vault();
    write_and_push(&stored, "before");
    // Argon2 would take most of the time.
    let list = slots(&stored);
    let passphrase = list.iter().find(|slot| slot["kind"] == "passphrase").unwrap();
    stored.run(["key", "remove", passphrase["id"].as_str().unwrap()]).expect_code(0);
    let words = words_in(&stored.path("sheet.txt"));
    let command = |args: &[&str]| {
        let mut command = stored.command(args);
        command.env_remove("HOLDFAST_PASSWORD").env("HOLDFAST_RECOVERY_KEY", &words);
        command
    };
    let begun = std::time::Instant::now();
    Ran::of(&mut command(&["key", "rotate"])).expect_code(0);
    let whole = begun.elapsed();
    for step in 0..24_u32 {
        let mut child =
            command(&["key", "rotate", "-q"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * step / 20 + Duration::from_micros(u64::from(step) * 137));
        let _ = child.kill();
        child.wait().unwrap();
        std::fs::write(stored.path("src/again"), format!("{step}").repeat(500)).unwrap();
        // By the machine's key, whatever it is just now; and with the words, by what lies in the vault.
        Ran::of(
            stored.command(["backup", "src", "--as", "docs", "--online"]).env_remove("HOLDFAST_PASSWORD"),
        )
        .expect_code(0);
        assert_eq!(read(&stored, "again").expect_code(0).out(), format!("{step}").repeat(500));
        let other = Machine::new();
        let mut recover = other.command(["recover"]);
        recover.arg(stored.path("vault")).env("HOLDFAST_STORE", other.path("store"));
        Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &words)).expect_code(0);
        let mut dump = other.command(["dump", "latest:again"]);
        dump.env("HOLDFAST_STORE", other.path("store")).env("HOLDFAST_RECOVERY_KEY", &words);
        assert_eq!(
            Ran::of(&mut dump).expect_code(0).out(),
            format!("{step}").repeat(500),
            "after {step} steps"
        );
    }
    Ran::of(&mut command(&["key", "rotate"])).expect_code(0);
    assert_eq!(slots(&stored).len(), 2);
    stored.run(["check", "--read-data"]).expect_code(0);
}
