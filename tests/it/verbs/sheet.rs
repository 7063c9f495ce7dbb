//! Recovery sheets as pages with a code, machine keys that a service manager decrypts, and proofs of what opens a vault.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lopdf::Document;

use super::{PASSPHRASE, Stored};
use crate::testkit::{Machine, Ran, skip};

/// What a camera would read from the page: painted by the rectangles on it, read by code of others.
fn code_on(pdf: &Path) -> String {
    const SCALE: f32 = 4.0;
    let document = Document::load(pdf).unwrap();
    let page = document.get_pages()[&1];
    let (width, height) = ((595.0 * SCALE) as usize, (842.0 * SCALE) as usize);
    let mut pixels = vec![255_u8; width * height];
    for operation in document.get_and_decode_page_content(page).unwrap().operations {
        if operation.operator != "re" {
            continue;
        }
        let number = |at: usize| operation.operands[at].as_float().unwrap() * SCALE;
        let (x, y, w, h) = (number(0), number(1), number(2), number(3));
        let top = height as f32 - y - h;
        for row in top.round() as usize..(top + h).round() as usize {
            pixels[row * width + x.round() as usize..row * width + (x + w).round() as usize].fill(0);
        }
    }
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * width + x]);
    image.detect_grids()[0].decode().unwrap().1
}

/// The 24 words of a sheet as text.
pub fn words_in(sheet: &Path) -> String {
    let sheet = std::fs::read_to_string(sheet).unwrap();
    let rows = sheet.split("THE 24 WORDS").nth(1).unwrap().split("ON THE WORST DAY").next().unwrap();
    rows.split_whitespace().filter(|word| word.parse::<u8>().is_err()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_code_of_a_printed_sheet_is_all_that_a_bare_machine_needs() {
    let stored = Stored::with_vault();
    std::fs::write(stored.path("src/a"), "kept").unwrap();
    stored.backup();
    stored.run(["vault", "push"]).expect_code(0);
    let pdf = stored.path("sheet.pdf");
    stored.run(["key", "add", "--kind", "recovery", "--sheet", "sheet.pdf"]).expect_code(0);
    assert_eq!(pdf.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    stored.run(["key", "add", "--kind", "recovery", "--sheet", "sheet.pdf"]).expect_code(1);
    stored.run(["key", "add", "--sheet", "other.pdf"]).expect_code(2);
    let code = code_on(&pdf);
    assert!(code.contains(stored.path("vault").to_str().unwrap()), "{code}");

    let other = Machine::new();
    let recover = |code: &str, args: &[&str]| {
        let mut command = other.command(["recover", "--store"]);
        Ran::of(command.arg(other.path("store")).args(args).env("HOLDFAST_RECOVERY_KEY", code))
    };
    let wrong = code.split(' ').enumerate().map(|(at, word)| if at == 5 { "qqqq" } else { word });
    let refused = recover(&wrong.collect::<Vec<_>>().join(" "), &[]).expect_code(12).err();
    assert!(refused.contains("word 4"), "{refused}");
    let words = code.split(' ').skip(2).take(24).collect::<Vec<_>>().join(" ");
    let refused = recover(&words, &[]).expect_code(2).err();
    assert!(refused.contains("no vault was named"), "{refused}");
    // As a reader of codes prints it.
    recover(&format!("QR-Code:{code}\n"), &[]).expect_code(0);
    let mut dump = other.command(["dump", "latest:a", "--store"]);
    dump.arg(other.path("store")).env("HOLDFAST_RECOVERY_KEY", &code);
    assert_eq!(Ran::of(&mut dump).expect_code(0).out(), "kept");
    // Typed where a passphrase is asked for, too.
    let mut verify = stored.command(["key", "verify"]);
    Ran::of(verify.env("HOLDFAST_PASSWORD", &code)).expect_code(0);
}

#[test]
fn of_the_vaults_on_a_sheet_all_that_open_are_recovered_from() {
    let stored = Stored::init(&["--vault", "vault", "--vault", "other"]);
    std::fs::write(stored.path("src/a"), "kept").unwrap();
    stored.backup();
    // The first one is away, and gets no points.
    let (first, away) = (stored.path("vault"), stored.path("away"));
    std::fs::rename(&first, &away).unwrap();
    stored.run(["vault", "push"]).expect_code(1);
    std::fs::rename(&away, &first).unwrap();
    stored.run(["key", "add", "--kind", "recovery", "--sheet", "sheet.pdf"]).expect_code(0);
    let code = code_on(&stored.path("sheet.pdf"));
    let recover = |expected: i32| {
        let other = Machine::new();
        let mut recover = other.command(["recover", "--store"]);
        let ran = Ran::of(recover.arg(other.path("store")).env("HOLDFAST_RECOVERY_KEY", &code));
        let ran = ran.expect_code(expected);
        if expected == 0 {
            let mut dump = other.command(["dump", "latest:a", "--store"]);
            dump.arg(other.path("store")).env("HOLDFAST_RECOVERY_KEY", &code);
            assert_eq!(Ran::of(&mut dump).expect_code(0).out(), "kept");
        }
        ran
    };
    let out = recover(0).out();
    assert!(["vault", "other"].iter().all(|name| out.contains(stored.path(name).to_str().unwrap())), "{out}");
    let hurt = |what: &str, file: &str| {
        let path = stored.path(what).join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, vec![7; whole.len()]).unwrap();
        (path, whole)
    };
    let slots: Vec<_> = std::fs::read_dir(stored.path("vault/keys")).unwrap().map(Result::unwrap).collect();
    let slots: Vec<_> = slots.iter().map(|slot| format!("keys/{}", slot.file_name().display())).collect();
    let whole: Vec<_> = slots.iter().map(|slot| hurt("vault", slot)).collect();
    recover(0).expect_err(&[stored.path("vault").to_str().unwrap()]);
    whole.iter().for_each(|(path, whole)| std::fs::write(path, whole).unwrap());
    hurt("vault", "config");
    recover(0).expect_err(&[stored.path("vault").to_str().unwrap()]);
    hurt("other", "config");
    assert_ne!(recover(1).err(), "");
}

#[test]
fn a_sheet_is_a_page_from_the_beginning_if_its_name_says_so() {
    let machine = Machine::new();
    let mut init = machine.command(["init", "--sheet", "sheet.pdf", "--store"]);
    init.arg(machine.path("store")).env("HOLDFAST_PASSWORD", PASSPHRASE);
    Ran::of(&mut init).expect_code(0);
    let mut verify = machine.command(["key", "verify", "--store"]);
    verify.arg(machine.path("store")).env("HOLDFAST_RECOVERY_KEY", code_on(&machine.path("sheet.pdf")));
    Ran::of(&mut verify).expect_code(0);
}

#[test]
fn words_are_proven_by_what_lies_in_the_vault_and_that_is_put_down() {
    let stored = Stored::with_vault();
    let words = words_in(&stored.path("sheet.txt"));
    let verify = |args: &[&str]| {
        let mut command = stored.command(["key", "verify"].iter().chain(args));
        Ran::of(command.env("HOLDFAST_RECOVERY_KEY", &words))
    };
    let proven = || {
        let slots = stored.json(&["key", "list"]).remove(0);
        let slots = slots.as_array().unwrap().clone();
        let sheet = slots.into_iter().find(|slot| slot["kind"] == "recovery").unwrap();
        (sheet["id"].as_str().unwrap().to_owned(), sheet["proven_in"].as_str().map(str::to_owned))
    };
    let config = format!("[group.docs]\nsources = [{:?}]\nlocal.schedule = \"daily\"\n", stored.path("src"));
    std::fs::write(stored.path("holdfast.toml"), config).unwrap();
    let status = || stored.run(["status", "--config", "holdfast.toml"]).expect_code(0).out();
    let (id, before) = proven();
    assert_eq!(before, None);
    assert!(status().contains("recovery sheet never proven"));
    let address = stored.path("vault").display().to_string();
    for vault in ["all", "vault"] {
        let said = verify(&["--vault", vault]).expect_code(0).out();
        assert!(said.contains(&format!("the recovery key opens vault {address}")), "{said}");
        assert!(!said.contains("the store"), "{said}");
    }
    assert_eq!(proven().1.unwrap(), address);
    let said = status();
    assert!(said.contains("recovery sheet last proven") && said.contains(&address), "{said}");

    // The copy in the store proves nothing of the vault's, and the other way round.
    let (here, there) = (stored.path("store/keys").join(&id), stored.path("vault/keys").join(&id));
    let whole = std::fs::read(&there).unwrap();
    std::fs::remove_file(&here).unwrap();
    verify(&["--vault", "all"]).expect_code(0);
    std::fs::write(&here, &whole).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&there, &damaged).unwrap();
    let refused = verify(&["--vault", "all"]).expect_code(12).err();
    assert!(refused.contains(&format!("vault {address}")), "{refused}");
    verify(&[]).expect_code(12);
    std::fs::write(&there, &whole).unwrap();
    let other = Stored::with_vault();
    let foreign = other.path("vault").display().to_string();
    verify(&["--vault", &foreign]).expect_code(1);
}

fn machine_key(stored: &Stored) -> PathBuf {
    let keys = stored.path("store").parent().unwrap().parent().unwrap().join("keys");
    let mut files = std::fs::read_dir(keys).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|e| e == "key")).unwrap()
}

/// Runs without a passphrase, in a unit that has credentials.
fn in_unit(stored: &Stored, credentials: &Path, args: &[&str]) -> Ran {
    let mut command = stored.command(args);
    Ran::of(command.env_remove("HOLDFAST_PASSWORD").env("CREDENTIALS_DIRECTORY", credentials))
}

#[test]
fn a_machine_key_that_a_service_manager_decrypted_opens_the_store() {
    let stored = Stored::new();
    let (key, credentials) = (machine_key(&stored), stored.path("credentials"));
    std::fs::create_dir(&credentials).unwrap();
    let line = std::fs::read_to_string(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    in_unit(&stored, &credentials, &["snapshots"]).expect_code(12);
    let own = key.file_name().unwrap().to_str().unwrap().to_owned();
    for name in ["holdfast.key", own.as_str()] {
        let path = credentials.join(name);
        std::fs::write(&path, &line).unwrap();
        // Rights are given by an access list there, whose mask shows as those of the group.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
        assert_eq!(in_unit(&stored, &credentials, &["snapshots"]).expect_code(0).err(), "");
        std::fs::remove_file(&path).unwrap();
    }
    // That of another store is none, and one that cannot be read is told.
    let path = credentials.join("holdfast.key");
    let other = line.replacen(&line[23..25], if &line[23..25] == "00" { "11" } else { "00" }, 1);
    std::fs::write(&path, other).unwrap();
    let refused = in_unit(&stored, &credentials, &["snapshots"]).expect_code(12).err();
    assert!(!refused.contains("warning"), "{refused}");
    std::fs::write(&path, "nonsense").unwrap();
    std::fs::write(&key, &line).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let told = in_unit(&stored, &credentials, &["snapshots"]).expect_code(0).err();
    assert!(told.contains("credentials/holdfast.key"), "{told}");
}

#[test]
fn a_machine_key_is_sealed_by_systemd_and_opened_by_it() {
    let stored = Stored::new();
    let (sealed, credentials) = (stored.path("key.cred"), stored.path("credentials"));
    // The key of a machine without a TPM: it needs no secret of the machine, and leaves none there.
    let seal = |with: &str| {
        let _ = std::fs::remove_file(&sealed);
        stored.run(["key", "credential", "key.cred", "--remove-file", "--with-key", with])
    };
    let Some(ran) = ["tpm2-absent", "null"].into_iter().map(seal).find(|ran| ran.code() == 0) else {
        return skip("a key sealed by systemd", "there is no systemd-creds that seals without a TPM");
    };
    assert!(ran.out().contains("LoadCredentialEncrypted=holdfast.key:"), "{}", ran.out());
    assert!(std::fs::read(&sealed).unwrap().len() > 100);
    std::fs::create_dir(&credentials).unwrap();
    in_unit(&stored, &credentials, &["snapshots"]).expect_code(12);
    let mut decrypt = Command::new("systemd-creds");
    let decrypt = decrypt.args(["--name=holdfast.key", "decrypt"]).arg(&sealed);
    assert!(decrypt.arg(credentials.join("holdfast.key")).status().unwrap().success());
    in_unit(&stored, &credentials, &["snapshots"]).expect_code(0);
    stored.run(["key", "credential", "other.cred"]).expect_code(1);
}
