//! `key credential`: this machine's key, sealed by systemd for a unit (`systemd-creds`, with the machine's TPM or its own secret), so that it
//! lies on no disk in clear. The file that was sealed is opened again before anything relies on it.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::store::Store;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::commands::Context;
use crate::open::open_slots;
use crate::outcome::Failure;
use crate::secrets::{CREDENTIAL, PLAIN_SECRETS};

/// The program of systemd that seals.
const PROGRAM: &str = "systemd-creds";

/// Where the sealed key goes.
#[derive(Debug, Args)]
pub struct CredentialArgs {
    /// A new file for the sealed key
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What seals it, as systemd-creds has it: host, tpm2, host+tpm2, auto
    #[arg(long, value_name = "KEY", default_value = "auto")]
    with_key: String,
    /// Remove the key's own file once the sealed one was opened: from then on only units that load the credential have it
    #[arg(long)]
    remove_file: bool,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct SealedLine {
    message_type: &'static str,
    file: String,
    credential: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<String>,
}

/// Seals it.
pub fn run(context: &Context<'_>, args: &CredentialArgs) -> Result<(), Failure> {
    let head = Store::head(context.settings.store()?)?;
    let plain = context.settings.secrets.machine_key_file(&head.vault);
    let key = MachineKey::read(&plain).map_err(|error| {
        Failure::from(error).hint("`holdfast key add --kind machine` makes a key of this machine")
    })?;
    open_slots(&head, &key.secret())?;
    let file = std::path::absolute(&args.file).map_err(|e| Failure::io("find", &args.file, &e))?;
    if std::fs::symlink_metadata(&file).is_ok() {
        return Err(Failure::failed(format!("{} already exists", file.display())).hint("name a new file"));
    }
    seal(&key, &args.with_key, &file).inspect_err(|_| drop(std::fs::remove_file(&file)))?;
    if args.remove_file {
        std::fs::remove_file(&plain).map_err(|error| Failure::io("remove", &plain, &error))?;
    }
    tell(context, args, &file, &plain)
}

/// Seals the key, opens what came of it, and makes that durable.
fn seal(key: &MachineKey, with_key: &str, file: &Path) -> Result<(), Failure> {
    let (name, with) = (format!("--name={CREDENTIAL}"), format!("--with-key={with_key}"));
    let path = file.as_os_str();
    ask(&[name.as_ref(), with.as_ref(), "encrypt".as_ref(), "-".as_ref(), path], Some(&key.encode()))?;
    let back = ask(&[name.as_ref(), "decrypt".as_ref(), path, "-".as_ref()], None)?;
    let same =
        std::str::from_utf8(&back).ok().and_then(|text| MachineKey::parse(text).ok()).as_ref() == Some(key);
    if !same {
        return Err(Failure::failed(format!("{} opens to something else than the key", file.display())));
    }
    // Its name, too: the plain file may go next.
    [file, file.parent().unwrap_or(Path::new("/"))].into_iter().try_for_each(|path| {
        let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|error| Failure::io("sync", path, &error))
    })
}

/// Runs systemd's program; what it printed.
fn ask(args: &[&std::ffi::OsStr], input: Option<&str>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut command = Command::new(PROGRAM);
    PLAIN_SECRETS.iter().for_each(|name| {
        command.env_remove(name);
    });
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let child = command.args(args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::failed(format!("there is no {PROGRAM} on this machine"))
            .hint("it is part of systemd 250 and later; without it the key stays in its file"),
        _ => Failure::failed(format!("cannot run {PROGRAM}: {error}")),
    })?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // If it has ended already, what it says tells why.
        let _ = pipe.write_all(text.as_bytes());
    }
    let output =
        child.wait_with_output().map_err(|e| Failure::failed(format!("cannot run {PROGRAM}: {e}")))?;
    let said = Zeroizing::new(output.stdout);
    if output.status.success() {
        return Ok(said);
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::failed(format!("{PROGRAM} failed: {}", output.status)).caused_by_text(why))
}

fn tell(context: &Context<'_>, args: &CredentialArgs, file: &Path, plain: &Path) -> Result<(), Failure> {
    let terminal = context.terminal;
    if terminal.json() {
        return terminal.json_line(&SealedLine {
            message_type: "credential_sealed",
            file: file.display().to_string(),
            credential: CREDENTIAL,
            removed: args.remove_file.then(|| plain.display().to_string()),
        });
    }
    terminal.say(&format!("this machine's key is sealed in {}; a unit has it by", file.display()))?;
    terminal.line(&format!("LoadCredentialEncrypted={CREDENTIAL}:{}", file.display()))?;
    match args.remove_file {
        true => terminal
            .say(&format!("{} removed: elsewhere a passphrase or the words are needed", plain.display())),
        false => terminal.say(&format!("{} is still there; --remove-file removes it", plain.display())),
    }
}
