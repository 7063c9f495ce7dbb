//! How a run ends: done, partly done, or a failure with an exit code, its causes and a way out.
//!
//! Engine errors carry what happened and where; here they gain what a person can do about it. The exit codes are
//! restic's, so that scripts and units written for it keep working.

use std::error::Error;

use holdfast_backup::config::ConfigError;
use holdfast_backup::error::{SourceError, TargetError};
use holdfast_backup::protect::ProtectError;
use holdfast_backup::restore::RestoreError;
use holdfast_fs::mount::MountError;
use holdfast_store::StoreError;
use holdfast_store::error::ErrorClass;
use holdfast_store::vault::VaultError;

use crate::settings;
use crate::terminal::text;

/// A verb came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All of it was done.
    Whole,
    /// It was done, but some data of the source or of the store could not be read; a line told of each.
    Partial,
}

impl Done {
    /// 0 or 3.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Whole => 0,
            Self::Partial => 3,
        }
    }
}

/// Of a restore that ended early.
const GOES_ON: &str = "the same command goes on where this one ended";

/// What every verb returns.
pub type Outcome = Result<Done, Failure>;

/// Kind of a failure, as far as scripts can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work could not be done.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// There is no store.
    NoStore,
    /// Another process holds the store.
    Locked,
    /// Wrong passphrase or key.
    WrongKey,
    /// A person or a service manager asked to stop.
    Interrupted,
    /// Whoever read our output has gone.
    PipeClosed,
}

impl Kind {
    /// The process's exit code; 141 is what a shell shows for a program that SIGPIPE ended.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoStore => 10,
            Self::Locked => 11,
            Self::WrongKey => 12,
            Self::Interrupted => 130,
            Self::PipeClosed => 141,
        }
    }
}

/// Why a verb could not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What happened, in one sentence.
    pub message: String,
    /// What caused it, outermost first, without what `message` already says.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of a kind, without causes or hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// The work could not be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A person asked to stop.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A file operation of the program itself that the system refused.
    pub fn io(action: &str, path: &std::path::Path, source: &std::io::Error) -> Self {
        let failure = Self::failed(format!("cannot {action} {}: {source}", path.display()));
        match hint_for_io(source.kind()) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// Adds the way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the chain of sources below `error`, leaving out what the sentence above already says.
    pub fn caused_by(mut self, error: &dyn Error) -> Self {
        let mut said = self.message.clone();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.contains(&text) {
                said.clone_from(&text);
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Adds a cause that is no source of an error.
    pub fn caused_by_text(mut self, cause: String) -> Self {
        self.causes.push(cause);
        self
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }
}

/// What failed of several things that are done whatever becomes of the others.
#[derive(Debug, Default)]
pub struct Failures(Vec<Failure>);

impl Failures {
    /// What was done, or nothing and the failure is kept; one that ends everything is returned.
    pub fn note<T>(&mut self, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(failure) if matches!(failure.kind, Kind::Interrupted | Kind::PipeClosed) => Err(failure),
            Err(failure) => {
                if !self.0.contains(&failure) {
                    self.0.push(failure);
                }
                Ok(None)
            }
        }
    }

    /// How many were kept.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// `done`, unless something failed. Of several failures each is named as a cause, and the first one's hint is given.
    pub fn or(mut self, done: Done) -> Outcome {
        if self.0.len() < 2 {
            return self.0.pop().map_or(Ok(done), Err);
        }
        let kind = if self.0.iter().all(|other| other.kind == self.0[0].kind) {
            self.0[0].kind
        } else {
            Kind::Failed
        };
        let hint = self.0.iter().find_map(|failure| failure.hint.clone());
        let causes = self.0.iter().map(|failure| failure.message.clone()).collect();
        Err(Failure { kind, message: format!("{} things failed", self.0.len()), causes, hint })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.class() == ErrorClass::Cancelled {
            return Self::interrupted();
        }
        let failure = Self::new(kind_of(error.class(), &error), error.to_string()).caused_by(&error);
        match hint_for_store(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Self::failed(error.to_string());
        match &error {
            ConfigError::Io { .. } => failure,
            ConfigError::Wrong { .. } => {
                failure.hint("`holdfast config check` names the line of each mistake")
            }
        }
    }
}

impl From<ProtectError> for Failure {
    fn from(error: ProtectError) -> Self {
        match error {
            ProtectError::Store(error) => error.into(),
            ProtectError::Source(error) => error.into(),
            ProtectError::Cancelled => Self::new(Kind::Interrupted, error.to_string()),
        }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        // Rules come from the command line.
        let kind = if matches!(error, SourceError::Rule { .. }) { Kind::Usage } else { Kind::Failed };
        let failure = Self::new(kind, error.to_string()).caused_by(&error);
        if error.denied() { failure.hint("run as the owner of the data, or as root") } else { failure }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Store(error) => error.into(),
            RestoreError::Target(TargetError::Cancelled) => Self::interrupted().hint(GOES_ON),
            RestoreError::Away(waiting) => {
                let entries = text::count(waiting.entries, "entry");
                Self::failed(format!("{}; without it {entries} could not be had", waiting.source))
                    .caused_by(&waiting.source)
                    .hint(format!("see that the vault can be reached; {GOES_ON}"))
            }
            other => Self::failed(other.to_string()).caused_by(&other),
        }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::failed(error.to_string()).caused_by(&error)
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        match error {
            MountError::Store(error) => error.into(),
            other => Self::failed(other.to_string()).caused_by(&other),
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        if matches!(error, VaultError::Cancelled) {
            return Self::interrupted();
        }
        let failure = Self::failed(error.to_string()).caused_by(&error);
        match hint_for_vault(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn kind_of(class: ErrorClass, error: &StoreError) -> Kind {
    match (class, error) {
        (_, StoreError::NoStore { .. }) => Kind::NoStore,
        (ErrorClass::Locked, _) => Kind::Locked,
        (ErrorClass::WrongKey, _) => Kind::WrongKey,
        _ => Kind::Failed,
    }
}

fn hint_for_store(error: &StoreError) -> Option<String> {
    let text = match error {
        StoreError::NoStore { .. } => {
            "make one with `holdfast init`, name another with --store DIR or HOLDFAST_STORE, \
             or bring one back from a vault with `holdfast recover URL --store DIR`"
        }
        StoreError::AlreadyThere { .. } => "choose another place, or use what is there",
        StoreError::Locked { holder: Some(pid), .. } => {
            return Some(format!("wait for process {pid} to end (`ps -p {pid}` shows what it is)"));
        }
        StoreError::Locked { holder: None, .. } => "wait for the other process to end",
        StoreError::NotFound { what }
            if ["chunk ", "pack ", "a whole pack"].iter().any(|p| what.starts_with(p)) =>
        {
            "`holdfast check` says what is missing and which files that touches; a vault that was away may have it: \
             `holdfast vault push` looks"
        }
        StoreError::AnnexAway { .. } => {
            "mount its disk, then again; `holdfast staging list` shows the annexes"
        }
        StoreError::NotFound { what } if what.starts_with("a store in vault") => NO_VAULT,
        StoreError::NotFound { .. } => "`holdfast snapshots` lists the recovery points there are",
        StoreError::NotKept => {
            "see whether its disk is full, fails or takes no writes; HOLDFAST_CACHE_DIR names another place"
        }
        StoreError::NoWay { address } => {
            return Some(format!(
                "name it again with `holdfast vault add {address}`; if it is gone for good, `holdfast vault remove {address}` forgets it"
            ));
        }
        StoreError::WrongKey { .. } => {
            "check HOLDFAST_PASSWORD and its _FILE and _COMMAND forms, or use the recovery sheet's words with \
             HOLDFAST_RECOVERY_KEY_FILE; `holdfast key list` shows the slots"
        }
        StoreError::Corrupt { object, .. } if object.contains("slot") || object.starts_with("keys/") => {
            "this key slot is damaged, the data is not: open the store with another secret \
             (HOLDFAST_RECOVERY_KEY takes the words of the recovery sheet) and add a new slot with `holdfast key add`"
        }
        StoreError::Corrupt { object, .. } if object.ends_with("settings.json") => {
            "it holds the addresses of the vaults and the annexes, and nothing else: move it away and name them again with \
             `holdfast vault add` and `holdfast staging add --take-over`"
        }
        StoreError::Corrupt { object, .. } if object.starts_with("the catalog's row") => {
            "see to the vaults that may have the point; it is looked for again by each command"
        }
        StoreError::Corrupt { .. } => {
            "`holdfast check --read-data` finds all damage and the points it touches"
        }
        StoreError::TooNew { .. } => "it was written by a newer holdfast: use that version or a later one",
        StoreError::NoKey { .. } => {
            "the keys were rotated on another machine, or just now on this one: `holdfast key refresh` brings the new ring here, with \
             the passphrase or the recovery sheet's words; what runs already begins anew"
        }
        StoreError::OfCopy { annex } => {
            return Some(format!(
                "name another directory; if that copy is no more, or is to do without this annex and what only it has of it: \
                 `holdfast staging add --take-over {}`",
                annex.display()
            ));
        }
        StoreError::NotOurs { .. } => "check the address: these are the bytes of something else",
        StoreError::Io { .. } if error.class() == ErrorClass::Full => {
            "the disk is full: free some room, or `holdfast prune` unused data; `holdfast staging add DIR` lets the store use another disk as well"
        }
        StoreError::Io { source, .. } => return hint_for_io(source.kind()).map(str::to_owned),
        StoreError::Catalog { class: ErrorClass::Corrupt, .. } => {
            "the catalog is only a cache: move it away and it is made anew from the store"
        }
        StoreError::Vault { vault, source: VaultError::Denied { detail } }
            if vault.starts_with('/') && !says_read_only(detail) =>
        {
            "run as the owner of the vault's directory, or as root, or name a directory that this user can write to"
        }
        StoreError::Vault { source, .. } => return hint_for_vault(source).map(str::to_owned),
        StoreError::Timeout { .. } => "try again; -v shows what is slow",
        _ => return None,
    };
    Some(text.to_owned())
}

const NO_VAULT: &str =
    "check the vault's address, and that its disk is mounted; `holdfast vault add URL` prepares a new one";

fn hint_for_vault(error: &VaultError) -> Option<&'static str> {
    match error {
        VaultError::NotFound { .. } => Some(NO_VAULT),
        VaultError::Conflict { .. } => Some(
            "remove this object in the vault by hand, with rights that allow it, then `holdfast vault push`: it is sent again",
        ),
        VaultError::Denied { detail } if says_read_only(detail) => Some(read_only(settings::is_in_unit())),
        VaultError::Locked { .. } => Some("it goes when its lock has run out; nobody can remove it before"),
        VaultError::Denied { .. } => Some(
            "check the vault's credentials (for Azure AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or `az login`): \
             they must allow reading, listing and creating objects",
        ),
        VaultError::Unavailable { .. } | VaultError::WrongAnswer { .. } | VaultError::Timeout => {
            Some("see that the vault can be reached, then run the same command again")
        }
        VaultError::Archived { .. } => {
            Some("the object must be brought back from the archive tier before it can be read")
        }
        VaultError::Full { .. } => {
            Some("make room in the vault, or expire points with `holdfast forget --prune`")
        }
        _ => None,
    }
}

fn hint_for_io(kind: std::io::ErrorKind) -> Option<&'static str> {
    use std::io::ErrorKind as K;
    match kind {
        K::StorageFull | K::QuotaExceeded => {
            Some("the disk is full: free some room, or `holdfast prune` unused data")
        }
        K::FileTooLarge => Some(
            "files may not grow that far here: lift the limit (`ulimit -f unlimited`, `LimitFSIZE=infinity` of a unit), \
             or use a file system that takes larger ones",
        ),
        K::PermissionDenied => Some("run as the owner of these files, or as root"),
        K::ReadOnlyFilesystem => Some(read_only(settings::is_in_unit())),
        K::NotADirectory => {
            Some("a file stands where a directory should be: move it away or name another path")
        }
        K::IsADirectory => {
            Some("a directory stands where a file should be: move it away or name another path")
        }
        _ => None,
    }
}

/// Whether a vault in a directory refused something because its file system takes no writes, and not for want of rights.
fn says_read_only(detail: &str) -> bool {
    detail.contains(&std::io::Error::from(nix::errno::Errno::EROFS).to_string())
}

/// What a unit may not write to is read-only for it alone.
fn read_only(in_unit: bool) -> &'static str {
    if in_unit {
        "a unit with ProtectSystem= may write only where its ReadWritePaths= say: name the directory there \
         (`systemctl edit holdfast`); if it is named, the disk became read-only, as one does that fails (`dmesg` tells)"
    } else {
        "the file system is read-only, as one becomes whose disk fails (`dmesg` tells): what is stored can be listed, \
         mounted and restored; to write, mount it writable again or `holdfast recover` from a vault to another disk"
    }
}

#[cfg(test)]
mod tests;
