//! The program as people and scripts meet it: help, wrong usage, exit codes, completions, manual.
#![allow(clippy::unwrap_used)]

use crate::testkit::{Machine, PASSPHRASE, Ran, as_nobody, is_root};

const VERBS: [&str; 26] = [
    "quickstart",
    "init",
    "backup",
    "snapshots",
    "ls",
    "find",
    "history",
    "diff",
    "dump",
    "restore",
    "mount",
    "estimate",
    "fetch",
    "umount",
    "recover",
    "check",
    "config",
    "stats",
    "key",
    "vault",
    "forget",
    "undelete",
    "plan",
    "prune",
    "completions",
    "man",
];

#[test]
fn help_lists_every_verb_and_each_verb_teaches_itself() {
    let machine = Machine::new();
    let help = machine.run(["--help"]).expect_code(0).out();
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} is not in:\n{help}");
        let text = machine.run([verb, "--help"]).expect_code(0).out();
        assert!(text.contains("Usage:") && text.contains("Examples:"), "{text}");
        assert!(text.contains(&format!("  holdfast {verb}")), "{text}");
    }
    assert!(help.contains("Exit codes:"));
}

#[test]
fn points_is_another_name_of_snapshots() {
    let text = Machine::new().run(["points", "--help"]).expect_code(0).out();
    assert!(text.starts_with("List the recovery points"), "{text}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let machine = Machine::new();
    let table: [&[&str]; 12] = [
        &[],
        &["frobnicate"],
        &["backup"],
        &["restore", "latest"],
        &["ls"],
        &["snapshots", "--nonsense"],
        &["backup", "/etc", "--compression", "99"],
        &["backup", "/etc", "--as", "a/b"],
        &["backup", "/etc", "/usr", "--as", "one"],
        &["forget"],
        &["ls", "not-a-point"],
        &["vault", "push", "latest:etc"],
    ];
    for args in table {
        let ran = machine.run(args).expect_code(2);
        assert!(!ran.err().is_empty(), "{args:?}");
        assert_eq!(ran.out(), "", "{args:?}");
    }
}

#[test]
fn no_store_ends_with_10_and_names_the_way_out() {
    let machine = Machine::new();
    let ran = machine.run(["snapshots"]).expect_code(10);
    assert!(ran.err().contains("HOLDFAST_STORE"), "{}", ran.err());
    let nowhere = machine.path("nowhere");
    let ran = Ran::of(machine.command(["snapshots"]).env("HOLDFAST_STORE", &nowhere)).expect_code(10);
    assert!(ran.err().contains("holdfast init") && ran.err().contains("nowhere"), "{}", ran.err());
}

#[test]
fn with_json_an_error_is_one_object_on_standard_error() {
    let machine = Machine::new();
    for (args, code) in [(&["snapshots", "--json"][..], 10), (&["--json", "frobnicate"], 2)] {
        let ran = machine.run(args).expect_code(code);
        let error: serde_json::Value = serde_json::from_str(&ran.err()).unwrap();
        assert_eq!(error["message_type"], "exit_error");
        assert_eq!(error["code"], code);
        assert_eq!(ran.out(), "");
    }
}

#[test]
fn completions_exist_for_every_shell_and_know_the_verbs() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = machine.run(["completions", shell]).expect_code(0).out();
        assert!(VERBS.iter().all(|verb| script.contains(verb)), "{shell}");
    }
}

#[test]
fn the_bash_completion_script_is_accepted_by_bash() {
    let machine = Machine::new();
    let script = machine.path("completion");
    std::fs::write(&script, machine.run(["completions", "bash"]).out()).unwrap();
    let status = std::process::Command::new("bash").arg("-n").arg(&script).status().unwrap();
    assert!(status.success());
}

#[test]
fn the_manual_has_a_page_for_every_verb() {
    let machine = Machine::new();
    let dir = machine.path("man/man1");
    machine.run([std::ffi::OsStr::new("man"), dir.as_os_str()]).expect_code(0);
    assert!(dir.join("holdfast.1").is_file());
    for verb in VERBS {
        let page = std::fs::read_to_string(dir.join(format!("holdfast-{verb}.1"))).unwrap();
        assert!(page.contains("Examples:"), "{verb}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_news() {
    let machine = Machine::new();
    let mut child = machine.command(["completions", "bash"]);
    let mut child =
        child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141));
}

#[test]
fn secrets_that_contradict_each_other_are_refused() {
    let machine = Machine::new();
    let mut command = machine.command(["snapshots"]);
    command.env("HOLDFAST_PASSWORD", "one").env("HOLDFAST_PASSWORD_FILE", "two");
    let ran = Ran::of(&mut command).expect_code(2);
    assert!(ran.err().contains("HOLDFAST_PASSWORD_FILE"), "{}", ran.err());
    assert!(!ran.err().contains("one\n"), "{}", ran.err());
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    let ran = Machine::new().run(["backup", "/no/such/\x1b[2Jfile"]).expect_code(1);
    assert!(ran.err().contains("\\x1b[2J"), "{:?}", ran.err());
    assert!(!ran.err().contains('\x1b'), "{:?}", ran.err());
}

#[test]
fn completions_and_manual_need_no_home() {
    let machine = Machine::new();
    if is_root() {
        machine.give_to_nobody();
    }
    for args in [["completions", "bash"], ["man", "pages"]] {
        let mut command = machine.command(args);
        for name in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HOLDFAST_KEY_DIR", "HOLDFAST_CACHE_DIR"] {
            command.env_remove(name);
        }
        if is_root() {
            // Root's places do not hang on its home.
            as_nobody(&mut command);
        }
        Ran::of(&mut command).expect_code(0);
    }
}

#[test]
fn a_tag_too_long_for_a_point_is_wrong_usage() {
    let ran = Machine::new().run(["backup", "/etc", "--tag", &"a".repeat(1001)]).expect_code(2);
    ran.expect_err(&["at most 1000 bytes"]);
}

#[test]
fn a_store_whose_vault_is_not_there_still_has_its_sheet() {
    let machine = Machine::recovering();
    let sheet = machine.path("sheet.txt");
    let mut init = machine.command(["init", "--vault", "file:///proc/nope/v", "--sheet"]);
    let ran = Ran::of(init.arg(&sheet).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(1);
    let ran = ran.expect_err(&["/proc/nope", "the store exists", "holdfast vault add URL"]);
    assert!(ran.out().contains("made in"), "{}", ran.out());
    let page = std::fs::read_to_string(&sheet).unwrap();
    let is_word = |word: &&str| (3..=8).contains(&word.len()) && word.bytes().all(|c| c.is_ascii_lowercase());
    assert!(page.split_whitespace().filter(is_word).count() >= 24, "{page}");
    machine.run(["snapshots"]).expect_code(0);
    let vault = machine.path("vault");
    machine.run(["vault", "add", vault.to_str().unwrap()]).expect_code(0);
}

#[test]
fn a_passphrase_command_gets_no_secrets_and_leaves_no_core() {
    let machine = Machine::with_store();
    machine.forget_keys();
    let seen = machine.path("seen");
    let ask = format!("(ulimit -c; env) > seen; echo '{PASSPHRASE}'");
    let mut command = machine.command(["snapshots", "--password-command", &ask]);
    Ran::of(command.env("HOLDFAST_PASSWORD", "plain-secret")).expect_code(0);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.starts_with("0\n"), "{seen}");
    assert!(seen.contains("HOLDFAST_STORE") && !seen.contains("plain-secret"), "{seen}");
}
