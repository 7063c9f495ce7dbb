//! Every way to a secret, with nobody at the terminal but a script.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use holdfast_store::clock::ManualClock;

use super::*;
use crate::terminal::Show;

#[derive(Debug)]
struct Script(Mutex<VecDeque<&'static str>>);

impl Prompt for Script {
    fn ask(&self, _: &str) -> io::Result<Secret> {
        let answer = self.0.lock().unwrap().pop_front();
        answer.map(|text| Secret::new(text.to_owned())).ok_or_else(|| io::Error::other("nobody is there"))
    }
}

fn secrets(passphrase: Option<SecretSource>, answers: &[&'static str]) -> Secrets {
    let sources = SecretSources { passphrase, ..SecretSources::default() };
    let prompt = Rc::new(Script(Mutex::new(answers.iter().copied().collect())));
    Secrets { sources, key_dir: PathBuf::from("/keys"), credential_dir: None, prompt }
}

fn quiet() -> Terminal {
    let show = Show { quiet: true, ..Show::default() };
    Terminal::new(show, Arc::new(ManualClock::default()), Arc::default())
}

fn plain(text: &str) -> Option<SecretSource> {
    Some(SecretSource::Plain(Secret::new(text.to_owned())))
}

fn command(text: &str) -> Option<SecretSource> {
    Some(SecretSource::Command(text.to_owned()))
}

fn env_of(pairs: &'static [(&'static str, &'static str)]) -> Box<Environment> {
    Box::new(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)))
}

#[test]
fn a_secret_is_the_first_line_of_a_file_without_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    for (content, secret) in [("word", "word"), ("word\n", "word"), ("two words \r\nnote\n", "two words ")] {
        std::fs::write(&path, content).unwrap();
        let secrets = secrets(Some(SecretSource::File(path.clone())), &[]);
        assert_eq!(secrets.passphrase(&quiet()).unwrap().reveal(), secret);
    }
    for (content, complaint) in
        [(&b""[..], "empty"), (b"\nword", "empty"), (b"\xff", "UTF-8"), (&[b'a'; 70_000], "more than")]
    {
        std::fs::write(&path, content).unwrap();
        let failure = secrets(Some(SecretSource::File(path.clone())), &[]).passphrase(&quiet()).unwrap_err();
        assert!(failure.message.contains(complaint), "{failure:?}");
    }
}

#[test]
fn a_secret_may_come_from_a_command() {
    assert_eq!(secrets(command("echo one; echo two"), &[]).passphrase(&quiet()).unwrap().reveal(), "one");
    let failure = secrets(command("echo one; exit 4"), &[]).passphrase(&quiet()).unwrap_err();
    assert!(failure.message.contains("exit status: 4"), "{failure:?}");
}

#[test]
fn the_environment_may_name_one_way_only() {
    let gather = |pairs| SecretSources::gather(&GlobalArgs::default(), &*env_of(pairs));
    assert_eq!(gather(&[]).unwrap(), SecretSources::default());
    assert_eq!(gather(&[("HOLDFAST_PASSWORD", "x")]).unwrap().passphrase, plain("x"));
    assert_eq!(
        gather(&[("HOLDFAST_RECOVERY_KEY_FILE", "/f")]).unwrap().recovery_key,
        Some(SecretSource::File("/f".into()))
    );
    let failure = gather(&[("HOLDFAST_PASSWORD", "x"), ("HOLDFAST_PASSWORD_COMMAND", "y")]).unwrap_err();
    assert_eq!(failure.kind, Kind::Usage);
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let args = GlobalArgs { password_command: Some("pass show".into()), ..GlobalArgs::default() };
    let sources = SecretSources::gather(&args, &*env_of(&[("HOLDFAST_PASSWORD", "x")])).unwrap();
    assert_eq!(sources.passphrase, command("pass show"));
}

#[test]
fn a_new_passphrase_is_typed_twice_and_not_too_short() {
    let typed = secrets(None, &["long enough", "long enough"]).new_passphrase(&quiet()).unwrap();
    assert_eq!(typed.reveal(), "long enough");
    let table = [(["long enough", "long enoug"], "differ"), (["seven77", "seven77"], "7 characters")];
    for (answers, complaint) in table {
        let failure = secrets(None, &answers).new_passphrase(&quiet()).unwrap_err();
        assert!(failure.message.contains(complaint), "{failure:?}");
    }
    let once = secrets(None, &["seven77"]).new_passphrase(&quiet()).unwrap_err();
    assert!(once.message.contains("7 characters"), "it is not asked for again: {once:?}");
    assert!(secrets(plain("short"), &[]).new_passphrase(&quiet()).is_err());
    // Characters count, not bytes.
    assert!(secrets(plain("\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}"), &[]).new_passphrase(&quiet()).is_err());
}

#[test]
fn nobody_at_the_terminal_means_no_key_and_says_what_to_set() {
    let failure = secrets(None, &[]).passphrase(&quiet()).unwrap_err();
    assert_eq!(failure.exit_code(), 12);
    assert!(failure.hint.unwrap().contains("HOLDFAST_PASSWORD_FILE"));
}

#[test]
fn words_are_typed_row_by_row_and_a_passphrase_of_such_words_is_one_all_the_same() {
    let typed = |answers: &[&'static str]| {
        let secrets = secrets(None, answers);
        let [first, second] = [secrets.passphrase_or_words(&quiet()), secrets.passphrase(&quiet())];
        (first.unwrap().reveal().to_owned(), second.is_ok())
    };
    let row = "1 abandon 2 Abandon 3 aban 4 abandon";
    let last = "21 abandon 22 abandon 23 abandon 24 art";
    let (words, more) = typed(&[row, row, row, row, row, last]);
    assert_eq!(
        (words, more),
        (format!("{row} {row} {row} {row} {row} {last}"), false),
        "nothing more is asked"
    );
    assert_eq!(typed(&["abandon art abandon art", ""]).0, "abandon art abandon art");
    assert_eq!(typed(&["abandon art abandon"]).0, "abandon art abandon", "no whole row");
    assert_eq!(typed(&["typed"]).0, "typed");
}

#[test]
fn of_words_that_are_named_all_lines_count() {
    let mut both = secrets(plain("passphrase"), &[]);
    assert_eq!(both.passphrase_or_words(&quiet()).unwrap().reveal(), "passphrase");
    assert_eq!(both.recovery_key(&quiet()).unwrap(), None);
    both.sources.recovery_key = command("echo abandon; echo art");
    assert_eq!(both.recovery_key(&quiet()).unwrap().unwrap().reveal(), "abandon\nart\n");
    assert_eq!(
        secrets(command("echo abandon; echo art"), &[]).passphrase(&quiet()).unwrap().reveal(),
        "abandon"
    );
}

#[test]
fn a_secret_is_never_shown() {
    let secrets = secrets(plain("hunter2-hunter2"), &[]);
    assert!(!format!("{secrets:?}").contains("hunter2"));
}

#[test]
fn each_store_has_a_machine_key_file_of_its_own() {
    let file = secrets(None, &[]).machine_key_file(&VaultId([0xab; 16]));
    assert_eq!(file, Path::new(&format!("/keys/{}.key", "ab".repeat(16))));
}

#[test]
fn the_passphrase_that_opens_a_store_is_never_taken_for_a_new_one() {
    let mut named = secrets(plain("the one that opens"), &[]);
    let failure = named.added_passphrase(&quiet()).unwrap_err();
    assert!(failure.hint.unwrap().contains("HOLDFAST_NEW_PASSWORD_FILE"));
    named.sources.added_passphrase = plain("the new one is long");
    assert_eq!(named.added_passphrase(&quiet()).unwrap().reveal(), "the new one is long");
}
