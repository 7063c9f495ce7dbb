//! `holdfast init`: a new store, its keys, its vaults, and the page that can bring all of it back.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use holdfast_store::seal::sheet::words_of;

use super::Context;
use crate::create::{Made, NewStore, make_store};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::Terminal;

/// Make a new store and its recovery sheet
///
/// Makes a store in the directory of --store, secured by a passphrase, and prints the recovery sheet: the page with 24
/// words that opens the store when passphrase and machine are lost. Print it; it is shown once. This machine gets a key
/// of its own outside the store (mode 0600), so that unattended backups ask for nothing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast init --store /srv/holdfast
  holdfast init --vault azure://ACCOUNT/NAME --sheet sheet.txt
  holdfast init --vault file:///mnt/usb/vault --no-machine-key")]
pub struct InitArgs {
    /// A vault that keeps copies far away; may be repeated
    #[arg(long = "vault", value_name = "URL")]
    vaults: Vec<String>,
    /// Write the recovery sheet to a new file instead of the terminal
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Make no key for this machine
    #[arg(long)]
    no_machine_key: bool,
}

/// What `init --json` prints, with restic's names.
#[derive(Serialize)]
struct Initialized<'a> {
    message_type: &'static str,
    id: String,
    repository: String,
    vaults: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<String>,
}

/// Makes it. The file of the sheet is opened first: a store whose sheet cannot be written would be worth less.
pub fn run(context: &Context<'_>, args: &InitArgs) -> Outcome {
    let path = context.settings.store()?;
    let mut sheet_file = args.sheet.as_deref().map(create_sheet_file).transpose()?;
    let passphrase = context.settings.secrets.new_passphrase(context.terminal)?;
    let new = NewStore {
        dir: path,
        passphrase: Some(&passphrase),
        machine_key: !args.no_machine_key,
        vaults: &args.vaults,
    };
    let made = make_store(context, &new)?;
    if let (Some(file), Some(path)) = (&mut sheet_file, &args.sheet) {
        let page = made.sheet.render();
        let written = file.write_all(page.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|error| Failure::io("write the recovery sheet to", path, &error))?;
    }
    show(context.terminal, &made, path, args)?;
    made.vault_failure.map_or(Ok(Done::Whole), Err)
}

fn create_sheet_file(path: &Path) -> Result<std::fs::File, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| Failure::io("create the recovery sheet", path, &error))
}

fn show(terminal: &Terminal, made: &Made, path: &Path, args: &InitArgs) -> Result<(), Failure> {
    let on_paper = args.sheet.as_ref();
    if terminal.json() {
        return terminal.json_line(&Initialized {
            message_type: "initialized",
            id: made.id.hex(),
            repository: path.display().to_string(),
            vaults: &made.vaults,
            machine_key: made.machine_key.as_ref().map(|file| file.display().to_string()),
            recovery_key: on_paper.is_none().then(|| words_of(&made.sheet.key).join(" ")),
        });
    }
    match on_paper {
        Some(file) => terminal
            .say(&format!("recovery sheet written to {}: print it, then delete it", file.display()))?,
        None => terminal.line(&made.sheet.render())?,
    }
    terminal.say(&format!("store {} made in {}", made.id, path.display()))?;
    match &made.machine_key {
        Some(file) => terminal.say(&format!("this machine's key is {}", file.display())),
        None => terminal.say("this machine has no key of its own: every command needs the passphrase"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_sheet_is_for_its_owner_and_never_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet.txt");
        let file = create_sheet_file(&path).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let failure = create_sheet_file(&path).unwrap_err();
        assert!(failure.message.contains("exists"), "{failure:?}");
    }
}
