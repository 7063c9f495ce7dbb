//! Who made a recovery point, seen from outside: what a machine makes up that has the ring and was never given a passphrase or the words is told by
//! the machine whose source it is, and by who recovers; a stolen machine key lets nobody write; a store of before becomes signed.
//!
//! A *thief* is a copy of the store's directory and of the machine key: all that lies on a machine but its key to sign with. Every machine of these
//! tests has the same host name, that of where they run.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use holdfast_store::id::SlotId;
use holdfast_store::seal::sheet::parse_words;
use holdfast_store::seal::slots::{KdfParams, KeySlot, Secret};
use holdfast_store::store::Store;
use serde_json::Value;

use crate::testkit::{Machine, PASSPHRASE, Ran};

fn keys(machine: &Machine) -> PathBuf {
    machine.root().join("keys")
}

/// The file of a machine's key (`key`), or of its key to sign with (`writer`).
fn key_file(machine: &Machine, extension: &str) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(keys(machine)).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|found| found == extension))
}

fn copy_all(from: &Path, to: &Path) {
    let ran = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(ran.success());
}

fn take(machine: &Machine, source: &Path, content: &str) -> String {
    std::fs::create_dir_all(source).unwrap();
    std::fs::write(source.join("file"), content).unwrap();
    machine.back_up(source, &[])["snapshot_id"].as_str().unwrap().to_owned()
}

/// A machine with a point in a vault, and its source.
struct Bed {
    machine: Machine,
    vault: PathBuf,
    source: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let machine = Machine::with_store();
        let (vault, source) = (machine.path("vault"), machine.path("source"));
        Self { machine, vault, source }.with_a_point()
    }

    /// The same with a store as programs of before made them: nobody owns it.
    fn of_before() -> Self {
        let machine = Machine::with_store();
        disown(&machine);
        let (vault, source) = (machine.path("vault"), machine.path("source"));
        Self { machine, vault, source }.with_a_point()
    }

    fn with_a_point(self) -> Self {
        self.machine.run(["vault", "add", self.vault.to_str().unwrap()]).expect_code(0);
        take(&self.machine, &self.source, "first");
        self.push(0);
        self
    }

    fn push(&self, code: i32) -> Ran {
        self.machine.run(["vault", "push"]).expect_code(code)
    }

    /// Somebody with the store and the machine key, and nothing that a person knows.
    fn thief(&self) -> Machine {
        let thief = Machine::recovering();
        copy_all(&self.machine.store(), &thief.store());
        std::fs::copy(key_file(&self.machine, "key").unwrap(), keys(&thief).join(self.key_name())).unwrap();
        thief
    }

    fn key_name(&self) -> String {
        let file = key_file(&self.machine, "key").unwrap();
        file.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// A machine that had nothing, by the words of the sheet; and what it was told.
    fn recovered_by_words(&self) -> (Machine, Ran) {
        let machine = Machine::recovering();
        let mut recover = machine.command(["recover", "--machine-key"]);
        let ran = Ran::of(recover.arg(&self.vault).env("HOLDFAST_RECOVERY_KEY", Machine::words()));
        (machine, ran)
    }
}

/// Replaces the slots of people by such without the owner's key, and takes the key to sign with away.
fn disown(machine: &Machine) {
    let dir = machine.store();
    let head = Store::head(&dir).unwrap();
    let secrets = [Secret::Passphrase(PASSPHRASE.to_owned().into()), parse_words(Machine::words()).unwrap()];
    for secret in secrets {
        let opened =
            |(id, bytes): &(SlotId, Vec<u8>)| Some((*id, KeySlot::open(bytes, &head.vault, &secret).ok()?));
        let (old, (ring, label)) = head.slots.iter().find_map(opened).unwrap();
        let slot =
            |ring| KeySlot::create(&head.vault, ring, &secret, &label, &KdfParams::floor(), 5).unwrap();
        assert!(ring.owner().is_some());
        let machine_key = holdfast_store::seal::machine::MachineKey::read(&key_file(machine, "key").unwrap());
        let own = machine_key.unwrap().secret();
        let bare = head.slots.iter().find_map(|(_, bytes)| KeySlot::open(bytes, &head.vault, &own).ok());
        let bytes = slot(&bare.unwrap().0);
        let id = KeySlot::read(&bytes, &head.vault).unwrap().id;
        std::fs::write(dir.join(format!("keys/{id}")), bytes).unwrap();
        std::fs::remove_file(dir.join(format!("keys/{old}"))).unwrap();
    }
    std::fs::remove_file(key_file(machine, "writer").unwrap()).unwrap();
}

/// Whose each point is, by its id.
fn signatures(machine: &Machine) -> std::collections::BTreeMap<String, String> {
    let listed = machine.run(["snapshots", "--json"]).expect_code(0).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let points = listed.as_array().unwrap().iter();
    points.map(|point| (text(&point["id"]), text(&point["signature"]))).collect()
}

/// Names of the alerts of `status` that are about writers.
fn alerts(machine: &Machine) -> Vec<String> {
    let config = machine.path("nothing.toml");
    std::fs::write(&config, "").unwrap();
    let mut status = machine.command(["status", "--json"]);
    let page = Ran::of(status.env("HOLDFAST_CONFIG", config)).expect_code(0).json();
    let names = page["alerts"].as_array().unwrap().iter().map(|alert| alert["name"].as_str().unwrap());
    names.filter(|name| name.starts_with("writer-")).map(str::to_owned).collect()
}

/// A verb with the passphrase.
fn with_passphrase(machine: &Machine, passphrase: &str, args: &[&str]) -> Ran {
    Ran::of(machine.command(args).env("HOLDFAST_PASSWORD", passphrase))
}

#[test]
fn a_point_that_another_machine_makes_up_is_told_by_the_first_and_by_who_recovers_with_the_words() {
    let bed = Bed::new();
    assert!(signatures(&bed.machine).values().all(|signature| signature == "holds"));
    let thief = bed.thief();
    let forged = take(&thief, &bed.source, "made up");
    thief.run(["vault", "push"]);
    let told = [forged[..8].to_owned(), "writer-forged:".to_owned()];
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    bed.push(3).expect_err(&told);
    assert_eq!(alerts(&bed.machine), ["writer-forged"]);
    bed.machine.run(["check"]).expect_code(1).expect_err(&told);
    assert_eq!(signatures(&bed.machine)[&forged], "forged");
    let list = bed.machine.run(["snapshots"]).expect_code(0);
    assert!(list.out().contains("FORGED"), "{}", list.out());
    let (other, ran) = bed.recovered_by_words();
    ran.expect_err(&told);
    assert_eq!(signatures(&other)[&forged], "forged");
    other.run(["check"]).expect_code(1).expect_err(&told);
    // Nothing is kept from being read, and whoever reads it hears of it.
    assert_eq!(std::fs::read(other.restore(&forged, "back").join("file")).unwrap(), b"made up");
    for verb in [&["ls", &forged][..], &["dump", &format!("{forged}:file")], &["diff", &forged, &forged]] {
        other.run(verb.iter()).expect_code(0).expect_err(&told);
    }
    // Who knows what it is takes it as it is.
    bed.machine.run(["vault", "accept", bed.vault.to_str().unwrap()]).expect_code(0);
    bed.push(0);
    assert_eq!(alerts(&bed.machine), [""; 0]);
}

#[test]
fn a_machine_that_was_recovered_with_a_secret_of_a_person_signs_and_nobody_is_alarmed() {
    let bed = Bed::new();
    let (other, ran) = bed.recovered_by_words();
    assert!(ran.expect_code(0).out().contains("signs its recovery points"));
    let by_words = take(&other, &bed.source, "second");
    other.run(["vault", "push"]).expect_code(0);
    bed.push(0);
    bed.machine.run(["check"]).expect_code(0);
    assert_eq!(signatures(&bed.machine)[&by_words], "holds");
    let listed = bed.machine.run(["snapshots", "--json"]).expect_code(0).json();
    let writers: std::collections::BTreeSet<_> =
        listed.as_array().unwrap().iter().map(|point| point["writer"]["id"].as_str().unwrap()).collect();
    assert_eq!(writers.len(), 2, "{listed}");
    // Without a key of its own it has one to sign with from the first point on that a person takes.
    let keyless = Machine::recovering();
    let mut recover = keyless.command(["recover"]);
    Ran::of(recover.arg(&bed.vault).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    assert_eq!(key_file(&keyless, "writer"), None);
    std::fs::write(bed.source.join("file"), "third").unwrap();
    with_passphrase(&keyless, PASSPHRASE, &["backup", bed.source.to_str().unwrap()]).expect_code(0);
    with_passphrase(&keyless, PASSPHRASE, &["vault", "push"]).expect_code(0);
    bed.push(0);
    assert!(signatures(&bed.machine).values().all(|signature| signature == "holds"));
}

#[test]
fn a_stolen_machine_key_admits_no_writer_and_replaces_no_owner() {
    let bed = Bed::new();
    let thief = bed.thief();
    thief.run(["key", "own"]).expect_code(12).expect_err(&["passphrase or the words"]);
    // A slot for a passphrase of his own has no owner's key in it; he makes himself another owner.
    let mut add = thief.command(["key", "add"]);
    let added = Ran::of(add.env("HOLDFAST_NEW_PASSWORD", "a passphrase of the thief")).expect_code(0);
    added.expect_err(&["admits no machine"]);
    with_passphrase(&thief, "a passphrase of the thief", &["key", "own"])
        .expect_code(12)
        .expect_err(&["the store has an owner"]);
    with_passphrase(&thief, "a passphrase of the thief", &["key", "own", "--new"]).expect_code(0);
    let forged = take(&thief, &bed.source, "made up");
    thief.run(["vault", "push"]);
    let told = [&forged[..8], "writer-unknown:"];
    bed.push(3).expect_err(&told);
    assert_eq!(signatures(&bed.machine)[&forged], "unknown");
    let (other, ran) = bed.recovered_by_words();
    ran.expect_err(&told);
    assert_eq!(signatures(&other)[&forged], "unknown");
    // The passphrase and the words of the owner's people still have their owner.
    let still = with_passphrase(&bed.machine, PASSPHRASE, &["key", "own"]).expect_code(0);
    assert!(still.out().contains("the store's owner is"), "{}", still.out());
}

#[test]
fn a_store_of_before_becomes_signed_when_a_person_says_so_and_its_old_points_stay_fine() {
    let bed = Bed::of_before();
    let old = signatures(&bed.machine);
    assert!(old.values().all(|signature| signature == "unsigned"), "{old:?}");
    let mut own = bed.machine.command(["key", "own", "--json"]);
    own.env("HOLDFAST_PASSWORD", PASSPHRASE).env("HOLDFAST_RECOVERY_KEY", Machine::words());
    let owned = Ran::of(&mut own).expect_code(0).json();
    assert_eq!((owned["new_owner"] == true, owned["slots"].as_array().unwrap().len()), (true, 2), "{owned}");
    assert_eq!(owned["without"], Value::Array(Vec::new()));
    let again = Ran::of(&mut own).expect_code(0).json();
    assert_eq!((&again["owner"], &again["writer"]), (&owned["owner"], &owned["writer"]));
    assert_eq!((again["new_owner"] == false, again["slots"].as_array().unwrap().len()), (true, 0), "{again}");
    let new = take(&bed.machine, &bed.source, "signed");
    bed.push(0);
    bed.machine.run(["check"]).expect_code(0);
    let (other, ran) = bed.recovered_by_words();
    ran.expect_code(0);
    for machine in [&bed.machine, &other] {
        let now = signatures(machine);
        assert_eq!(now[&new], "holds");
        assert!(old.keys().all(|id| now[id] == "unsigned"), "{now:?}");
        assert_eq!(alerts(machine), [""; 0]);
    }
    // From now on what nobody signed is forged.
    let thief = bed.thief();
    let forged = take(&thief, &bed.source, "made up");
    thief.run(["vault", "push"]);
    bed.push(3).expect_err(&[&forged[..8], "writer-forged:"]);
    assert_eq!(signatures(&bed.machine)[&forged], "forged");
}

#[test]
fn a_machine_that_does_not_sign_says_so_and_one_whose_key_cannot_be_read_makes_no_other() {
    let bed = Bed::new();
    let file = key_file(&bed.machine, "writer").unwrap();
    let good = std::fs::read(&file).unwrap();
    // Another host by the machine's own key: nobody admitted it for that.
    let source = bed.source.to_str().unwrap();
    let told = ["not signed", "key own"];
    bed.machine.run(["backup", source, "--host", "elsewhere"]).expect_code(0).expect_err(&told);
    assert_eq!(std::fs::read(&file).unwrap(), good);
    // A damaged file says nothing of whom this machine believes: nothing takes its place.
    std::fs::write(&file, "damaged").unwrap();
    let own = with_passphrase(&bed.machine, PASSPHRASE, &["key", "own", "--new"]);
    assert_ne!(own.expect_err(&["writer", "move it away"]).code(), 0);
    assert_eq!(std::fs::read(&file).unwrap(), b"damaged");
    std::fs::remove_file(&file).unwrap();
    bed.machine.run(["backup", source]).expect_code(0).expect_err(&told);
    with_passphrase(&bed.machine, PASSPHRASE, &["key", "own"]).expect_code(0);
    let quiet = bed.machine.run(["backup", source]).expect_code(0);
    assert!(!quiet.err().contains("not signed"), "{}", quiet.err());
}

#[test]
fn a_rotation_keeps_the_owner_and_gives_one_to_a_store_of_before() {
    for bed in [Bed::new(), Bed::of_before()] {
        let writer = key_file(&bed.machine, "writer").map(|file| std::fs::read(file).unwrap());
        let mut rotate = bed.machine.command(["key", "rotate"]);
        rotate.env("HOLDFAST_PASSWORD", PASSPHRASE).env("HOLDFAST_RECOVERY_KEY", Machine::words());
        Ran::of(&mut rotate).expect_code(0);
        let after = std::fs::read(key_file(&bed.machine, "writer").unwrap()).unwrap();
        assert!(writer.is_none_or(|before| before == after));
        let new = take(&bed.machine, &bed.source, "signed");
        bed.push(0);
        let (other, ran) = bed.recovered_by_words();
        ran.expect_code(0);
        assert_eq!(signatures(&other)[&new], "holds");
        let slots = bed.machine.run(["key", "list", "--json"]).expect_code(0).json();
        let of_people = slots.as_array().unwrap().iter().filter(|slot| slot["kind"] != "machine");
        assert_eq!(of_people.filter(|slot| slot["owner"] == true).count(), 2, "{slots}");
    }
}

#[test]
fn the_last_slot_with_the_owners_key_stays_and_another_owner_is_believed_where_a_person_says_so() {
    let bed = Bed::new();
    let (other, _) = bed.recovered_by_words();
    let mut own = bed.machine.command(["key", "own", "--new", "--json"]);
    let made = Ran::of(own.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0).json();
    assert_eq!(made["new_owner"], true);
    // The sheet still has the old one, until both are given.
    let mut both = bed.machine.command(["key", "own", "--json"]);
    both.env("HOLDFAST_PASSWORD", PASSPHRASE).env("HOLDFAST_RECOVERY_KEY", Machine::words());
    let both = Ran::of(&mut both).expect_code(0).json();
    assert_eq!((&both["owner"], both["slots"].as_array().unwrap().len()), (&made["owner"], 1), "{both}");
    let old = signatures(&bed.machine);
    assert_eq!(old.values().collect::<Vec<_>>(), ["unknown"]);
    let new = take(&bed.machine, &bed.source, "by the new owner");
    bed.push(0);
    bed.machine
        .run(["check"])
        .expect_code(1)
        .expect_err(&["writer-unknown:", old.keys().next().unwrap().get(..8).unwrap()]);
    bed.machine.run(["vault", "accept", bed.vault.to_str().unwrap()]).expect_code(0);
    bed.machine.run(["check"]).expect_code(0);
    // The other machine believes the old one, until a person says otherwise there.
    take(&other, &bed.source, "by the old owner");
    other.run(["vault", "push"]).expect_code(0);
    other.run(["vault", "push"]).expect_code(3).expect_err(&[&new[..8], "writer-unknown:", "key own"]);
    let refused = with_passphrase(&other, PASSPHRASE, &["key", "own"]).expect_code(12);
    let owner = made["owner"].as_str().unwrap();
    refused.expect_err(&[owner, "--believe", "nothing was changed"]);
    with_passphrase(&other, PASSPHRASE, &["key", "own", "--believe", "0123456789abcdef"]).expect_code(12);
    assert_eq!(signatures(&other)[&new], "unknown");
    with_passphrase(&other, PASSPHRASE, &["key", "own", "--believe", owner])
        .expect_code(0)
        .expect_err(&["another owner until now"]);
    assert_eq!(signatures(&other)[&new], "holds");
    // What has the owner's key goes last.
    let slots = bed.machine.run(["key", "list", "--json"]).expect_code(0).json();
    let owned = slots.as_array().unwrap().iter().filter(|slot| slot["owner"] == true);
    let owned: Vec<&str> = owned.map(|slot| slot["id"].as_str().unwrap()).collect();
    assert_eq!(owned.len(), 2, "{slots}");
    let mut add = bed.machine.command(["key", "add"]);
    Ran::of(add.env("HOLDFAST_NEW_PASSWORD", "another passphrase")).expect_code(0);
    bed.machine.run(["key", "remove", owned[0]]).expect_code(0);
    bed.machine.run(["key", "remove", owned[1]]).expect_code(1).expect_err(&["the key of the store's owner"]);
    bed.machine.run(["key", "remove", owned[1], "--lost"]).expect_code(0);
}

/// Ids of all points that a store shows.
fn ids(machine: &Machine) -> std::collections::BTreeSet<String> {
    signatures(machine).into_keys().collect()
}

#[test]
fn the_points_of_a_thief_push_no_honest_one_out_by_the_rules() {
    let bed = Bed::new();
    let mut honest: Vec<String> = ids(&bed.machine).into_iter().collect();
    honest.extend((0..7).map(|n| take(&bed.machine, &bed.source, &format!("honest {n}"))));
    bed.push(0);
    let thief = bed.thief();
    let forged: Vec<String> = (0..5).map(|n| take(&thief, &bed.source, &format!("made up {n}"))).collect();
    thief.run(["vault", "push"]);
    bed.push(3).expect_err(&["writer-forged:"]);
    // By the configuration, as `plan` shows it beforehand.
    let config = bed.machine.path("holdfast.toml");
    let text = "online = { schedule = \"daily\", keep = { last = 4 } }";
    std::fs::write(&config, format!("[group.default]\nsources = [{:?}]\n{text}\n", bed.source)).unwrap();
    let shown =
        |verb: &[&str]| Ran::of(bed.machine.command(verb).env("HOLDFAST_CONFIG", &config)).expect_code(0);
    let plan = shown(&["plan", "--json"]).json();
    assert_eq!(plan["tier"], "online", "{plan}");
    let of = |id: &String| {
        let point = plan["points"].as_array().unwrap().iter().find(|point| point["id"] == id.as_str());
        let text = |key: &str| point.unwrap()[key].as_str().unwrap().to_owned();
        (text("action"), text("reason"))
    };
    for id in &forged {
        assert!(of(id).0 == "keep" && of(id).1.starts_with("not by whom it says"), "{plan}");
    }
    let actions: Vec<String> = honest.iter().map(|id| of(id).0).collect();
    assert_eq!(actions, [["expire"; 4], ["keep"; 4]].concat(), "{plan}");
    assert!(shown(&["forget", "--dry-run"]).out().contains("not by whom it says"));
    // By rules that somebody types, and then by name.
    bed.machine.run(["forget", "--keep-last", "4", "--yes"]);
    let stays = honest[4..].iter().chain(&forged).cloned().collect();
    assert_eq!(ids(&bed.machine), stays);
    let newest = bed.machine.run(["forget", &honest[7]]).expect_code(1);
    newest.expect_err(&["the newest complete point", "--allow-newest"]);
    for id in &forged {
        bed.machine.run(["forget", id, "--yes"]);
    }
    assert_eq!(ids(&bed.machine), honest[4..].iter().cloned().collect());
}

#[test]
fn nothing_of_a_source_goes_by_the_rules_while_somebody_else_takes_points_of_it() {
    let bed = Bed::new();
    let mut honest: Vec<String> = ids(&bed.machine).into_iter().collect();
    honest.extend((0..6).map(|n| take(&bed.machine, &bed.source, &format!("honest {n}"))));
    bed.push(0);
    let thief = bed.thief();
    honest.push(take(&bed.machine, &bed.source, "the last one"));
    bed.push(0);
    let twin = take(&thief, &bed.source, "its twin");
    thief.run(["vault", "push"]);
    bed.push(3).expect_err(&["chain-forked:", "writer-forged:"]);
    let all = ids(&bed.machine);
    assert_eq!(all.len(), 9);
    let ran = bed.machine.run(["forget", "--keep-last", "4", "--yes"]);
    assert!(ran.out().contains("chain-forked, nothing of its source goes"), "{}", ran.out());
    assert_eq!(ids(&bed.machine), all);
    // Whoever knows what it is says so; the twin still counts for nothing.
    bed.machine.run(["vault", "accept", bed.vault.to_str().unwrap()]).expect_code(0);
    bed.machine.run(["forget", "--keep-last", "4", "--yes"]);
    assert_eq!(ids(&bed.machine), honest[4..].iter().chain([&twin]).cloned().collect());
}
