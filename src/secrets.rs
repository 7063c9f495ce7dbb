//! Where a passphrase or recovery key comes from, and that it goes nowhere else.
//!
//! A secret is never taken from the command line, where every process could read it. It comes from the environment, a
//! file, a command's first line or a terminal, is wiped from memory when it is no longer needed, and has a `Debug` that
//! shows nothing. Machine keys come before any passphrase: they open a store in milliseconds and nobody has to be there.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use holdfast_store::StoreError;
use holdfast_store::id::VaultId;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::{WORDS, rows_of_words};
use zeroize::Zeroizing;

use crate::args::GlobalArgs;
use crate::outcome::{Failure, Kind};
use crate::settings::Environment;
use crate::terminal::Terminal;

/// Shortest passphrase that a new slot takes, in characters.
const PASSPHRASE_CHARS_MIN: usize = 8;
/// Below this a new passphrase gets a warning: Argon2id slows guessing down, it does not stop it.
const PASSPHRASE_CHARS_ADVISED: usize = 16;
/// Name of the credential with a machine key, where a service has one store.
pub const CREDENTIAL: &str = "holdfast.key";
/// Longest secret in bytes, so that a wrong file name does not fill the memory.
const SECRET_LEN_MAX: u64 = 64 * 1024;

/// Variables that hold a secret itself. A child that has no use for them is started without.
pub const PLAIN_SECRETS: [&str; 3] = ["HOLDFAST_PASSWORD", "HOLDFAST_RECOVERY_KEY", "HOLDFAST_NEW_PASSWORD"];

/// A secret text: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text. Whoever asks must not keep it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One way to a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// It stands in the environment.
    Plain(Secret),
    /// First line of a file.
    File(PathBuf),
    /// First line that `sh -c` prints.
    Command(String),
}

/// The ways that the command line and the environment name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretSources {
    /// To the passphrase.
    pub passphrase: Option<SecretSource>,
    /// Whether the command line named it, which another process does not see.
    pub is_typed: bool,
    /// To the recovery key's words.
    pub recovery_key: Option<SecretSource>,
    /// To the passphrase of a slot that is added to an existing store, which another passphrase may open.
    pub added_passphrase: Option<SecretSource>,
}

impl SecretSources {
    /// Looks at the command line, then at the environment. Two ways of the same rank are refused: one of them would be
    /// ignored, and it may be the one that was meant.
    pub fn gather(args: &GlobalArgs, env: &Environment) -> Result<Self, Failure> {
        let from_args = match (&args.password_file, &args.password_command) {
            (Some(file), _) => Some(SecretSource::File(file.clone())),
            (None, Some(command)) => Some(SecretSource::Command(command.clone())),
            (None, None) => None,
        };
        let is_typed = from_args.is_some();
        let passphrase = match from_args {
            Some(source) => Some(source),
            None => from_environment("HOLDFAST_PASSWORD", env)?,
        };
        Ok(Self {
            passphrase,
            is_typed,
            recovery_key: from_environment("HOLDFAST_RECOVERY_KEY", env)?,
            added_passphrase: from_environment("HOLDFAST_NEW_PASSWORD", env)?,
        })
    }
}

fn from_environment(name: &str, env: &Environment) -> Result<Option<SecretSource>, Failure> {
    let (file_name, command_name) = (format!("{name}_FILE"), format!("{name}_COMMAND"));
    let text = |name: &str, value: OsString| {
        value.into_string().map_err(|_| Failure::usage(format!("{name} is not UTF-8 text")))
    };
    match (env(name), env(&file_name), env(&command_name)) {
        (None, None, None) => Ok(None),
        (Some(plain), None, None) => Ok(Some(SecretSource::Plain(Secret::new(text(name, plain)?)))),
        (None, Some(file), None) => Ok(Some(SecretSource::File(file.into()))),
        (None, None, Some(command)) => Ok(Some(SecretSource::Command(text(&command_name, command)?))),
        _ => Err(Failure::usage(format!("more than one of {name}, {file_name} and {command_name} is set"))
            .hint("keep the one that is meant")),
    }
}

/// Asks a person for a secret.
pub trait Prompt: fmt::Debug {
    /// Shows `question` and takes a line without showing it. An error when nobody is there to ask.
    fn ask(&self, question: &str) -> io::Result<Secret>;
}

/// The terminal this process was started from.
#[derive(Debug)]
pub struct TerminalPrompt;

impl Prompt for TerminalPrompt {
    fn ask(&self, question: &str) -> io::Result<Secret> {
        if !io::stdin().is_terminal() {
            return Err(io::Error::other("there is no terminal to ask at"));
        }
        rpassword::prompt_password(question).map(Secret::new)
    }
}

/// A key of this machine, or why it cannot be read.
#[derive(Debug)]
pub struct FoundKey {
    /// Where it lies.
    pub path: PathBuf,
    /// The key.
    pub key: Result<MachineKey, StoreError>,
    /// Whether that is a file of ours, and not what a service manager decrypted.
    pub is_file: bool,
}

/// All ways to open a store.
#[derive(Clone, Debug)]
pub struct Secrets {
    sources: SecretSources,
    key_dir: PathBuf,
    credential_dir: Option<PathBuf>,
    prompt: Rc<dyn Prompt>,
}

impl Secrets {
    /// The named ways, then the terminal. A service manager that decrypted credentials for this process says in which directory.
    pub fn new(sources: SecretSources, key_dir: PathBuf, credential_dir: Option<PathBuf>) -> Self {
        Self { sources, key_dir, credential_dir, prompt: Rc::new(TerminalPrompt) }
    }

    /// This machine's keys to a store: what the service manager decrypted, then the file. A credential of another store is none.
    pub fn machine_keys(&self, store: &VaultId) -> Vec<FoundKey> {
        let named = [format!("{store}.key"), CREDENTIAL.to_owned()];
        let dir = self.credential_dir.iter();
        let credentials = dir.flat_map(|dir| named.iter().map(|name| dir.join(name))).filter(|p| p.exists());
        let read = |path: PathBuf| FoundKey { key: MachineKey::read_credential(&path), path, is_file: false };
        let is_ours = |found: &FoundKey| found.key.as_ref().map_or(true, |key| key.vault == *store);
        let mut found: Vec<FoundKey> = credentials.map(read).filter(is_ours).collect();
        let path = self.machine_key_file(store);
        if path.exists() {
            found.push(FoundKey { key: MachineKey::read(&path), path, is_file: true });
        }
        found
    }

    /// Directory of machine keys.
    pub fn key_dir(&self) -> &Path {
        &self.key_dir
    }

    /// Whether the environment names a secret, so that a process started from here finds it, too.
    pub fn are_inherited(&self) -> bool {
        self.sources.passphrase.is_some() && !self.sources.is_typed || self.sources.recovery_key.is_some()
    }

    /// Where this machine's key to a store is kept, whether or not there is one.
    pub fn machine_key_file(&self, store: &VaultId) -> PathBuf {
        self.key_dir.join(format!("{store}.key"))
    }

    /// The passphrase of an existing store, asked for if nothing names it.
    pub fn passphrase(&self, terminal: &Terminal) -> Result<Secret, Failure> {
        match &self.sources.passphrase {
            Some(source) => read(source, terminal),
            None => self.ask_with_words("passphrase: ", "HOLDFAST_PASSWORD"),
        }
    }

    /// The passphrase, if it is named or somebody is there who types it; nothing if he types nothing.
    pub fn passphrase_at_hand(&self, terminal: &Terminal) -> Result<Option<Secret>, Failure> {
        match &self.sources.passphrase {
            Some(source) => read(source, terminal).map(Some),
            None => self.offered("passphrase, or Enter if it is not at hand: ", "HOLDFAST_PASSWORD"),
        }
    }

    /// The same of the words of the recovery key.
    pub fn words_at_hand(&self, terminal: &Terminal) -> Result<Option<Secret>, Failure> {
        match self.recovery_key(terminal)? {
            Some(words) => Ok(Some(words)),
            None => self.offered("the 24 words, or Enter if they are not at hand: ", "HOLDFAST_RECOVERY_KEY"),
        }
    }

    fn offered(&self, question: &str, name: &str) -> Result<Option<Secret>, Failure> {
        match self.ask_with_words(question, name) {
            Ok(text) => Ok(Some(text).filter(|text| !text.reveal().trim().is_empty())),
            Err(failure) if failure.kind == Kind::WrongKey => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The words of the recovery key, if the environment names them, with all that stands below: words may be in several lines.
    pub fn recovery_key(&self, terminal: &Terminal) -> Result<Option<Secret>, Failure> {
        self.sources.recovery_key.as_ref().map(|source| read_all(source, terminal)).transpose()
    }

    /// A passphrase for a new slot: named by the environment, or typed twice.
    pub fn new_passphrase(&self, terminal: &Terminal) -> Result<Secret, Failure> {
        self.new_from(self.sources.passphrase.as_ref(), "HOLDFAST_PASSWORD", terminal)
    }

    /// A passphrase for a slot that is added to an existing store. `HOLDFAST_PASSWORD` and its forms name the one that opens
    /// it and never this one.
    pub fn added_passphrase(&self, terminal: &Terminal) -> Result<Secret, Failure> {
        self.new_from(self.sources.added_passphrase.as_ref(), "HOLDFAST_NEW_PASSWORD", terminal)
    }

    fn new_from(
        &self,
        source: Option<&SecretSource>,
        name: &str,
        terminal: &Terminal,
    ) -> Result<Secret, Failure> {
        let secret = match source {
            Some(source) => read(source, terminal)?,
            None => self.typed_twice(name)?,
        };
        let chars = long_enough(&secret)?;
        if chars < PASSPHRASE_CHARS_ADVISED {
            terminal.warn(&format!(
                "the passphrase has {chars} characters; whoever copies the vault can guess for ever, \
                 so {PASSPHRASE_CHARS_ADVISED} or more are advised"
            ));
        }
        Ok(secret)
    }

    fn typed_twice(&self, name: &str) -> Result<Secret, Failure> {
        let first = self.ask("new passphrase: ", name)?;
        // Before it is typed in vain once more.
        long_enough(&first)?;
        let second = self.ask("the same again: ", name)?;
        if first == second { Ok(first) } else { Err(Failure::failed("the two passphrases differ")) }
    }

    /// Passphrase or recovery key where the second is not named, as in a recovery.
    pub fn passphrase_or_words(&self, terminal: &Terminal) -> Result<Secret, Failure> {
        match &self.sources.passphrase {
            Some(source) => read(source, terminal),
            None => self.ask_with_words(
                "passphrase, or the 24 words of the recovery sheet: ",
                "HOLDFAST_RECOVERY_KEY",
            ),
        }
    }

    /// Takes words row by row as well, as they stand on the sheet.
    fn ask_with_words(&self, question: &str, name: &str) -> Result<Secret, Failure> {
        let mut text = self.ask(question, name)?;
        while let Some(count) = rows_of_words(text.reveal()) {
            let more = format!("{count} of {WORDS} words; the next ones, or Enter if that is all: ");
            let more = self.ask(&more, name)?;
            if more.reveal().trim().is_empty() {
                break;
            }
            text = Secret::new([text.reveal(), " ", more.reveal()].concat());
        }
        Ok(text)
    }

    fn ask(&self, question: &str, name: &str) -> Result<Secret, Failure> {
        self.prompt.ask(question).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => Failure::new(Kind::Interrupted, "interrupted"),
            _ => Failure::new(Kind::WrongKey, format!("no passphrase or key was given and {error}"))
                .hint(format!("set {name}_FILE, {name}_COMMAND or {name}")),
        })
    }
}

/// How many characters a new passphrase has, if these are enough.
fn long_enough(secret: &Secret) -> Result<usize, Failure> {
    let chars = secret.reveal().chars().count();
    if chars < PASSPHRASE_CHARS_MIN {
        let what = format!("the passphrase has {chars} characters; {PASSPHRASE_CHARS_MIN} are the least");
        return Err(Failure::failed(what).hint("five random words make a good one"));
    }
    Ok(chars)
}

/// The first line of what a source gives. What follows is ignored, as password managers put notes there.
fn read(source: &SecretSource, terminal: &Terminal) -> Result<Secret, Failure> {
    match source {
        SecretSource::Plain(secret) => Ok(secret.clone()),
        _ => Ok(first_line(&read_all(source, terminal)?)),
    }
}

fn read_all(source: &SecretSource, terminal: &Terminal) -> Result<Secret, Failure> {
    match source {
        SecretSource::Plain(secret) => Ok(secret.clone()),
        SecretSource::File(path) => read_file(path, terminal),
        SecretSource::Command(command) => run_command(command),
    }
}

fn read_file(path: &Path, terminal: &Terminal) -> Result<Secret, Failure> {
    let failed = |error: io::Error| Failure::io("read the secret in", path, &error);
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o004 != 0 {
        terminal.warn(&format!("everybody on this machine can read {}: `chmod 600` it", path.display()));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(SECRET_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    text_of(&bytes, &path.display().to_string())
}

fn run_command(command: &str) -> Result<Secret, Failure> {
    let mut shell = Command::new("sh");
    PLAIN_SECRETS.iter().for_each(|name| {
        shell.env_remove(name);
    });
    let child = shell.arg("-c").arg(command).stdout(Stdio::piped()).spawn();
    let failed = |error: io::Error| Failure::failed(format!("cannot run the passphrase command: {error}"));
    let mut child = child.map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::new());
    if let Some(out) = child.stdout.take() {
        out.take(SECRET_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(Failure::failed(format!("the passphrase command failed: {status}")));
    }
    text_of(&bytes, "the passphrase command")
}

fn text_of(bytes: &[u8], origin: &str) -> Result<Secret, Failure> {
    if bytes.len() as u64 > SECRET_LEN_MAX {
        return Err(Failure::failed(format!(
            "{origin} gave more than {SECRET_LEN_MAX} bytes, which is no secret"
        )));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Failure::failed(format!("{origin} gave something that is not UTF-8 text")))?;
    let secret = Secret::new(text.to_owned());
    if first_line(&secret).reveal().is_empty() {
        return Err(Failure::failed(format!("{origin} gave an empty first line")));
    }
    Ok(secret)
}

/// Without its end.
fn first_line(text: &Secret) -> Secret {
    Secret::new(text.reveal().lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests;
