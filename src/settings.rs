//! What a run works with: the command line first, then the environment, then the place the system has for it.

use std::ffi::{CStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_backup::config::{Config, ConfigError, files_of};
use holdfast_store::clock::{Clock, HurriedClock, SystemClock};
use holdfast_store::vault::address::Credentials;

use crate::accepted;
use crate::args::GlobalArgs;
use crate::outcome::{Failure, Kind};
use crate::secrets::{SecretSources, Secrets};

/// Looks up an environment variable; a function, so that tests have an environment of their own.
pub type Environment = dyn Fn(&str) -> Option<OsString>;

/// The environment of this process. A variable set to nothing counts as not set.
pub fn process_environment() -> Box<Environment> {
    Box::new(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

/// `HOLDFAST_LOG`, in the syntax of `tracing`'s filters.
pub fn log_filter() -> Option<String> {
    process_environment()("HOLDFAST_LOG").and_then(|value| value.into_string().ok())
}

/// Where the journal reads, as systemd.exec(5) has it: device and inode.
pub fn journal_stream() -> Option<OsString> {
    process_environment()("JOURNAL_STREAM")
}

/// Has this process shown under a name. The kernel takes the last word of the way to a program, and of `/proc/self/exe` that is `exe`.
pub fn name_process(name: &CStr) {
    // Nothing depends on it.
    let _ = nix::sys::prctl::set_name(name);
}

/// Whether a unit of systemd started this process, or whatever started it.
pub fn is_in_unit() -> bool {
    process_environment()("INVOCATION_ID").is_some()
}

/// Whether this process is a job of the daemon.
pub fn is_job() -> bool {
    process_environment()(crate::daemon::MARK).is_some()
}

/// What the daemon was told by the vaults a while ago, if this is a look of it that is not to ask them again.
pub fn known_vaults() -> Option<String> {
    let known = process_environment()(crate::daemon::VAULTS).filter(|_| is_job());
    known.and_then(|text| text.into_string().ok())
}

/// The system's clock, or the one that `HOLDFAST_CLOCK` describes: for rehearsals and tests, with a store of their own.
pub fn clock() -> Result<Arc<dyn Clock>, Failure> {
    let Some(text) = process_environment()("HOLDFAST_CLOCK") else { return Ok(Arc::new(SystemClock)) };
    let clock = text.to_string_lossy().parse::<HurriedClock>();
    clock
        .map(|clock| Arc::new(clock) as _)
        .map_err(|error| Failure::usage(format!("HOLDFAST_CLOCK: {error}")))
}

/// Everything a verb may need to know about where it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    store: Option<PathBuf>,
    /// Where the ways to get secrets are kept.
    pub secrets: Secrets,
    /// What opens vaults.
    pub credentials: Credentials,
    /// Cache of vault ranges.
    pub cache_dir: PathBuf,
    /// Where stores live that nobody gave a place; a system service has no home and no such place.
    pub data_dir: Option<PathBuf>,
    /// Name of this machine.
    pub host: String,
    /// Where the configuration is, or would be; who has no home has no place for one.
    config_file: Option<PathBuf>,
    /// What it says; nothing where there is none and nobody named one. Of a job: what its daemon accepted.
    config: Result<Option<Config>, Failure>,
    /// Whether that is not what stands in the file now, or need not be.
    by_copy: bool,
}

impl Settings {
    /// Puts the settings together.
    pub fn gather(args: &GlobalArgs, env: &Environment) -> Result<Self, Failure> {
        let root = nix::unistd::geteuid().is_root();
        let places = Places { root, env };
        let key_dir = path_from(env, "HOLDFAST_KEY_DIR").map_or_else(|| places.keys(), Ok)?;
        let named = args.config.clone().or_else(|| path_from(env, "HOLDFAST_CONFIG"));
        let config_file = named.clone().or_else(|| places.config().ok());
        let store = args.store.clone().or_else(|| path_from(env, "HOLDFAST_STORE"));
        let is_job = env(crate::daemon::MARK).is_some();
        let accepted = match (&store, &config_file) {
            (Some(store), Some(path)) if is_job => accepted::read(store, path),
            _ => None,
        };
        Ok(Self {
            store,
            secrets: Secrets::new(
                SecretSources::gather(args, env)?,
                key_dir,
                path_from(env, "CREDENTIALS_DIRECTORY"),
            ),
            credentials: crate::credentials::gather(env)?,
            cache_dir: path_from(env, "HOLDFAST_CACHE_DIR").map_or_else(|| places.cache(), Ok)?,
            data_dir: places.data().ok(),
            host: host_name(),
            by_copy: accepted.is_some(),
            config: match (accepted, config_file.as_deref()) {
                (Some(texts), _) => Config::parse(&texts).map(Some).map_err(Failure::from),
                (None, Some(path)) => read_config(path, named.is_some()),
                (None, None) => Ok(None),
            },
            config_file,
        })
    }

    /// The store's directory.
    pub fn store(&self) -> Result<&Path, Failure> {
        if let Some(store) = &self.store {
            return Ok(store);
        }
        let without = |failure: &Failure| {
            let hint = failure.hint.as_ref().map_or_else(String::new, |hint| format!("{hint}; "));
            failure.clone().hint(format!("{hint}--store DIR names the store without it"))
        };
        let config = self.config.as_ref().map_err(without)?;
        config.as_ref().and_then(|config| config.store.as_deref()).ok_or_else(|| {
            Failure::new(Kind::NoStore, "no store was named")
                .hint("give --store DIR or set HOLDFAST_STORE; `holdfast init --store DIR` makes a new one")
        })
    }

    /// The place of the configuration.
    pub fn config_file(&self) -> Result<&Path, Failure> {
        let nowhere = || {
            Failure::failed("no configuration was named").hint("give --config FILE or set HOLDFAST_CONFIG")
        };
        self.config_file.as_deref().ok_or_else(nowhere)
    }

    /// What the configuration says.
    pub fn config(&self) -> Result<&Config, Failure> {
        let path = self.config_file()?;
        self.config.as_ref().map_err(Clone::clone)?.as_ref().ok_or_else(|| {
            Failure::failed(format!("there is no configuration {}", path.display()))
                .hint("give --config FILE or set HOLDFAST_CONFIG")
        })
    }

    /// The same, if there is one; what is wrong with it is an error all the same.
    pub fn config_if_any(&self) -> Result<Option<&Config>, Failure> {
        self.config.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }

    /// What is wrong with the configuration as it lies there now, whatever this process goes by.
    pub fn mistakes(&self) -> Option<Failure> {
        match (&self.config, &self.config_file) {
            (Err(mistakes), _) => Some(mistakes.clone()),
            (Ok(_), Some(path)) if self.by_copy => read_config(path, true).err(),
            _ => None,
        }
    }

    /// The store's directory, also where it is named by a configuration that has mistakes elsewhere: for whoever tells of these.
    pub fn store_despite_mistakes(&self) -> Result<PathBuf, Failure> {
        let failure = match self.store() {
            Ok(store) => return Ok(store.to_path_buf()),
            Err(failure) => failure,
        };
        let files = self.config_file.as_deref().and_then(|path| files_of(path).ok());
        files.and_then(|files| Config::store_despite_mistakes(&files)).ok_or(failure)
    }

    /// What the daemon of a store accepted last of this configuration.
    pub fn accepted(&self, store: &Path) -> Option<Config> {
        let path = std::path::absolute(self.config_file.as_deref()?).ok()?;
        Config::parse(&accepted::read(store, &path)?).ok()
    }

    /// The same settings for another store.
    pub fn at_store(&self, store: PathBuf) -> Self {
        Self { store: Some(store), ..self.clone() }
    }

    /// The store's directory, if the command line or the environment names one.
    pub fn named_store(&self) -> Option<&Path> {
        self.store.as_deref()
    }
}

/// The directories that the system has for us: its own for root, the user's (XDG base directories) for others.
struct Places<'a> {
    root: bool,
    env: &'a Environment,
}

impl Places<'_> {
    fn keys(&self) -> Result<PathBuf, Failure> {
        self.choose("/etc/holdfast/keys", "XDG_CONFIG_HOME", ".config", "holdfast/keys", "HOLDFAST_KEY_DIR")
    }

    fn config(&self) -> Result<PathBuf, Failure> {
        let ours = "HOLDFAST_CONFIG";
        self.choose(
            "/etc/holdfast/holdfast.toml",
            "XDG_CONFIG_HOME",
            ".config",
            "holdfast/holdfast.toml",
            ours,
        )
    }

    fn cache(&self) -> Result<PathBuf, Failure> {
        self.choose("/var/cache/holdfast", "XDG_CACHE_HOME", ".cache", "holdfast", "HOLDFAST_CACHE_DIR")
    }

    /// Root's too is in its home: what nobody gave a place is a trial.
    fn data(&self) -> Result<PathBuf, Failure> {
        self.of_user("XDG_DATA_HOME", ".local/share", "holdfast", "HOME")
    }

    fn choose(
        &self,
        system: &str,
        xdg: &str,
        in_home: &str,
        below: &str,
        ours: &str,
    ) -> Result<PathBuf, Failure> {
        if self.root { Ok(PathBuf::from(system)) } else { self.of_user(xdg, in_home, below, ours) }
    }

    fn of_user(&self, xdg: &str, in_home: &str, below: &str, ours: &str) -> Result<PathBuf, Failure> {
        // The XDG specification: a path that is not absolute is to be ignored.
        let base = path_from(self.env, xdg).filter(|path| path.is_absolute());
        let base = base.or_else(|| path_from(self.env, "HOME").map(|home| home.join(in_home)));
        match base {
            Some(base) => Ok(base.join(below)),
            None => {
                Err(Failure::failed("neither HOME nor XDG directories are set").hint(format!("set {ours}")))
            }
        }
    }
}

fn read_config(path: &Path, was_named: bool) -> Result<Option<Config>, Failure> {
    match Config::load(path) {
        Err(ConfigError::Io { source, .. }) if source.kind() == ErrorKind::NotFound && !was_named => Ok(None),
        read => Ok(Some(read?)),
    }
}

fn path_from(env: &Environment, name: &str) -> Option<PathBuf> {
    env(name).map(PathBuf::from)
}

fn host_name() -> String {
    let name = nix::sys::utsname::uname().map(|names| names.nodename().to_string_lossy().into_owned());
    name.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn env_of(pairs: &'static [(&'static str, &'static str)]) -> Box<Environment> {
        Box::new(move |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn users_have_their_own_places_and_root_those_of_the_system() {
        let env =
            env_of(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/fast/cache"), ("XDG_DATA_HOME", "relative")]);
        let user = Places { root: false, env: &*env };
        assert_eq!(user.keys().unwrap(), Path::new("/home/me/.config/holdfast/keys"));
        assert_eq!(user.cache().unwrap(), Path::new("/fast/cache/holdfast"));
        assert_eq!(user.data().unwrap(), Path::new("/home/me/.local/share/holdfast"));
        let root = Places { root: true, env: &*env };
        assert_eq!(root.keys().unwrap(), Path::new("/etc/holdfast/keys"));
        assert_eq!(root.cache().unwrap(), Path::new("/var/cache/holdfast"));
        assert_eq!(root.data().unwrap(), Path::new("/home/me/.local/share/holdfast"));
    }

    #[test]
    fn a_process_without_a_home_is_told_what_to_set() {
        let env = env_of(&[]);
        let failure = Places { root: false, env: &*env }.keys().unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("set HOLDFAST_KEY_DIR"));
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let env = env_of(&[("HOME", "/home/me"), ("HOLDFAST_STORE", "/env"), ("HOLDFAST_KEY_DIR", "/keys")]);
        let from_env = Settings::gather(&GlobalArgs::default(), &*env).unwrap();
        assert_eq!(from_env.store().unwrap(), Path::new("/env"));
        let args = GlobalArgs { store: Some("/arg".into()), ..GlobalArgs::default() };
        assert_eq!(Settings::gather(&args, &*env).unwrap().store().unwrap(), Path::new("/arg"));
    }

    #[test]
    fn a_missing_store_ends_with_its_own_exit_code() {
        let settings = Settings::gather(&GlobalArgs::default(), &*env_of(&[("HOME", "/home/me")])).unwrap();
        assert_eq!(settings.store().unwrap_err().exit_code(), 10);
    }
}
