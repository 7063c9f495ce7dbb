//! The configuration: what is protected, when, where to, and how long it is kept, as text that people write.
//!
//! One file in TOML, and beside it a directory of more (`holdfast.toml` and `holdfast.toml.d/*.toml`, in the order of their names).
//! Reading it asks nothing but these files: whether a source exists is no mistake of the configuration.

mod alerts;
pub mod edit;
mod hooks;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use holdfast_store::reclaim::Terms;
use holdfast_store::vault::address::VaultAddress;
use jiff::tz::TimeZone;

use crate::bandwidth::{Bandwidth, During};
use crate::error::SourceError;
use crate::retention::Retention;
use crate::schedule::{self, Schedule};
use crate::source::exclude::Exclude;
use crate::values;
pub use alerts::{Alerts, Mail, Security, Server};
pub use hooks::{HookCommand, Hooks, OnFailure};
pub use table::Text;
use table::{Heard, Notes, Table, TextOrTable};

/// Most bytes of a file.
const LEN_MAX: u64 = 1 << 20;
/// How often a shorter beginning of a file is tried.
const BEGINNINGS_MAX: usize = 100;
/// Most files of the directory beside it.
const FILES_MAX: usize = 1000;
/// When space is freed, when it is looked whether everything is there, and when some of it is read, if nothing else is said.
const RECLAIM: &str = "04:30";
const CHECK: &str = "05:30";
const SCRUB: &str = "01:30";
/// When it is tried whether files can be had back from a vault alone.
const DRILL: &str = "Sun 06:30";
/// Most days in which all is to be read: ten years.
const SCRUB_DAYS_MAX: u16 = 3650;
const SOFT_DELETE_DAYS_MAX: u16 = 3650;

/// What jobs are that nobody says more of: as nice as what runs in the background usually is.
const NICE: u8 = 10;
/// The least time after which an upload is given up for dead.
const SILENCE_MIN: Duration = Duration::from_secs(3600);
/// As nice as can be.
const NICE_MAX: u8 = 19;

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The store's directory.
    pub store: Option<PathBuf>,
    /// The zone in which schedules and retention count days; the machine's if none is named.
    pub zone: Option<TimeZone>,
    /// When space is freed; never, if nothing is said here.
    pub reclaim: Option<Schedule>,
    /// Whether space is freed in vaults as well, by this machine.
    pub reclaim_vaults: bool,
    /// How patiently.
    pub reclaim_terms: Terms,
    /// When it is looked whether everything is there.
    pub check: Option<Schedule>,
    /// When some of it is read again.
    pub scrub: Option<Schedule>,
    /// When it is tried whether files can be had back from a vault alone.
    pub drill: Option<Schedule>,
    /// How much is read again.
    pub scrub_terms: ScrubTerms,
    /// How often it is looked what somebody has to see to, and how he is told.
    pub alerts: Alerts,
    /// How many days points that a person deletes can be brought back; 0 is not at all.
    pub soft_delete_days: u16,
    /// Where figures are written for whoever collects them.
    pub metrics_file: Option<PathBuf>,
    /// How fast uploads may go.
    pub bandwidth: Bandwidth,
    /// How nice the jobs of a daemon are to other programs, from 0 to 19.
    pub nice: u8,
    /// The groups, in the order of their names.
    pub groups: Vec<Group>,
}

/// How much of what is stored is read again in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubTerms {
    /// All of a place is read in so many days.
    pub days: u16,
    /// No more than so many bytes a day are read from a vault where reading costs something, however long all of it takes then.
    pub vault_bytes: u64,
}

impl Default for ScrubTerms {
    /// A GiB a day costs about as much as keeping 100 GiB.
    fn default() -> Self {
        Self { days: 30, vault_bytes: 1 << 30 }
    }
}

/// Data sources that share schedules and retention.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Never empty.
    pub sources: Vec<Source>,
    /// Points on the staging disk.
    pub local: Option<Tier>,
    /// Points in vaults.
    pub online: Option<Tier>,
    /// What runs before and after its points are taken.
    pub hooks: Option<Hooks>,
    /// What becomes of the points that there are, if it takes no more.
    pub stopped: Option<Stopped>,
}

/// The end of a protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All points stay.
    Keep,
    /// They expire by the rules of their tiers as time goes by.
    UntilExpiry,
}

impl Stopped {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Keep, Self::UntilExpiry];

    /// As the configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::UntilExpiry => "until-expiry",
        }
    }
}

impl FromStr for Stopped {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is neither \"keep\" nor \"until-expiry\""))
    }
}

/// Where copies of points lie, each with rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierName {
    /// Staging.
    Local,
    /// The vaults.
    Online,
}

impl TierName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Local, Self::Online];

    /// As the configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Online => "online",
        }
    }
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a data source is made of.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its absolute path.
    pub path: PathBuf,
    /// The name that was given to it; else one is made from the path.
    pub name: Option<String>,
    /// What is left out of it: by its own rules and by those of its group.
    pub exclude: Exclude,
}

/// When points of a tier are taken, and which of them are kept.
#[derive(Clone, Debug)]
pub struct Tier {
    /// When.
    pub schedule: Schedule,
    /// Up to so many seconds later, each machine at its own time.
    pub jitter: u32,
    /// What is kept; everything, if it is empty.
    pub keep: Retention,
    /// The vaults that are given its points, by their addresses; all of the store, if none is named. Of the local tier always empty.
    pub vaults: Vec<String>,
}

impl Tier {
    /// Whether a vault is to have points of the tier.
    pub fn is_for(&self, vault: &str) -> bool {
        self.vaults.is_empty() || self.vaults.iter().any(|address| address == vault)
    }
}

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Mistakes, all of them; never empty.
    #[error("{}", counted(problems))]
    Wrong {
        /// In the order of files and lines.
        problems: Vec<Problem>,
    },
}

fn counted(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => format!(
            "{} mistakes in the configuration, the first: {}",
            many.len(),
            many.first().map_or_else(String::new, ToString::to_string)
        ),
    }
}

impl Config {
    /// Reads the file at `path` and those in the directory beside it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&files_of(path)?)
    }

    /// The same from contents, for whoever has not written them yet.
    pub fn parse(files: &[Text]) -> Result<Self, ConfigError> {
        match Self::parse_what_can_be(files) {
            (config, none) if none.is_empty() => Ok(config),
            (_, problems) => Err(ConfigError::Wrong { problems }),
        }
    }

    /// The store's directory by files that have mistakes elsewhere, for whoever tells of these. Of a file that is no TOML counts what stands
    /// before that.
    pub fn store_despite_mistakes(files: &[Text]) -> Option<PathBuf> {
        let readable = |(path, text): &Text| (path.clone(), beginning(text).to_owned());
        Self::parse_what_can_be(&files.iter().map(readable).collect::<Vec<_>>()).0.store
    }

    fn parse_what_can_be(files: &[Text]) -> (Self, Vec<Problem>) {
        let heard = Heard::default();
        let (mut config, mut groups) = (Self::default(), BTreeMap::new());
        (config.reclaim, config.check) = (Schedule::from_str(RECLAIM).ok(), Schedule::from_str(CHECK).ok());
        (config.scrub, config.drill) = (Schedule::from_str(SCRUB).ok(), Schedule::from_str(DRILL).ok());
        (config.nice, config.reclaim_vaults) = (NICE, true);
        for (path, text) in files {
            let notes = Notes::about(path, text, &heard);
            match toml_edit::Document::parse(text.as_str()) {
                Ok(document) => config.read(Table::whole(document.as_table(), &notes), &mut groups),
                Err(error) => notes.add(error.span(), error.message()),
            }
        }
        config.groups = groups.into_values().collect();
        (config, heard.problems.into_inner())
    }
}

/// Lines from the beginning of a text that are TOML; none, if that is not soon found out.
fn beginning(text: &str) -> &str {
    let mut lines = text;
    for _ in 0..BEGINNINGS_MAX {
        let Err(error) = toml_edit::Document::parse(lines) else { return lines };
        let end = error.span().map_or(lines.len(), |at| at.start.min(lines.len()));
        let good = lines.get(..end).unwrap_or_default().trim_end_matches('\n');
        lines = good.rsplit_once('\n').map_or("", |(before, _)| before);
    }
    ""
}

/// The contents of the file at `path` and of those in the directory beside it.
pub fn files_of(path: &Path) -> Result<Vec<Text>, ConfigError> {
    let own = (path.to_path_buf(), content(path.to_path_buf())?);
    Ok([own].into_iter().chain(files_beside(path)?).collect())
}

/// The contents of those in the directory beside it alone.
pub fn files_beside(path: &Path) -> Result<Vec<Text>, ConfigError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".d");
    let beside = PathBuf::from(beside);
    let entries = match fs::read_dir(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Io { path: beside, source }),
        Ok(entries) => entries,
    };
    let paths: Result<Vec<_>, _> = entries.take(FILES_MAX).map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|source| ConfigError::Io { path: beside, source })?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), content(path)?))).collect()
}

fn content(path: PathBuf) -> Result<String, ConfigError> {
    let read = || {
        let meta = fs::metadata(&path)?;
        // A pipe would wait for a writer.
        if !meta.is_file() || meta.len() > LEN_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is no file of at most {LEN_MAX} bytes"),
            ));
        }
        fs::read_to_string(&path)
    };
    read().map_err(|source| ConfigError::Io { path: path.clone(), source })
}

impl Config {
    fn read(&mut self, file: Table<'_>, groups: &mut BTreeMap<String, Group>) {
        ["store", "time-zone", "bandwidth"].iter().for_each(|key| file.say_once(key));
        self.store = self.store.take().or(file.parsed("store", absolute));
        self.zone = self.zone.take().or(file.parsed("time-zone", zone));
        if let Some(table) = file.shared_table("reclaim") {
            let vaults = table.flag("vaults");
            self.reclaim_vaults = if table.has("vaults") { vaults } else { self.reclaim_vaults };
            let terms = &mut self.reclaim_terms;
            terms.silence = table.parsed("silence", silence).unwrap_or(terms.silence);
            terms.grace = table.parsed("grace", hooks::length_of_time).unwrap_or(terms.grace);
            terms.daily_percent =
                table.number("daily-percent", 100_u8).map_or(terms.daily_percent, u64::from);
            read_upkeep(table, &mut self.reclaim);
        }
        if let Some(table) = file.shared_table("check") {
            read_upkeep(table, &mut self.check);
        }
        if let Some(table) = file.shared_table("drill") {
            read_upkeep(table, &mut self.drill);
        }
        if let Some(table) = file.shared_table("scrub") {
            let terms = &mut self.scrub_terms;
            terms.days = table.number("days", SCRUB_DAYS_MAX).unwrap_or(terms.days);
            if terms.days == 0 {
                table.note_at("days", "a day is the least; schedule = \"never\" ends it");
            }
            terms.vault_bytes = table.parsed("vault-bytes", values::size).unwrap_or(terms.vault_bytes);
            read_upkeep(table, &mut self.scrub);
        }
        if let Some(table) = file.shared_table("soft-delete") {
            self.soft_delete_days =
                table.number("days", SOFT_DELETE_DAYS_MAX).unwrap_or(self.soft_delete_days);
            table.end();
        }
        if let Some(table) = file.shared_table("alerts") {
            self.alerts.read(table);
        }
        if let Some(table) = file.shared_table("metrics") {
            if !table.has("file") {
                table.note("it needs a file, such as \"/var/lib/prometheus/node-exporter/holdfast.prom\"");
            }
            self.metrics_file = table.parsed("file", absolute).or(self.metrics_file.take());
            table.end();
        }
        if let Some(table) = file.shared_table("jobs") {
            self.nice = table.number("nice", NICE_MAX).unwrap_or(self.nice);
            table.end();
        }
        if let Some(table) = file.table("bandwidth") {
            self.bandwidth = read_bandwidth(table);
        }
        for (name, table) in file.table("group").iter().flat_map(Table::tables) {
            match values::name(name) {
                Err(error) => table.note(format!("the group {name:?}: {error}")),
                Ok(_) if groups.contains_key(name) => {
                    table.note(format!("there is a group {name} in another file already"))
                }
                Ok(name) => groups.extend(Group::read(&name, table).map(|group| (name, group))),
            }
        }
        file.end();
    }
}

impl Group {
    /// One of its tiers, if it has that.
    pub fn tier(&self, name: TierName) -> Option<&Tier> {
        match name {
            TierName::Local => self.local.as_ref(),
            TierName::Online => self.online.as_ref(),
        }
    }

    fn read(name: &str, table: Table<'_>) -> Option<Self> {
        let sources = Source::read_all(&table);
        let read = |key: &'static str, name| table.table(key).map(|tier| Tier::read(tier, name));
        let (local, online) = (read("local", TierName::Local), read("online", TierName::Online));
        if local.is_none() && online.is_none() {
            table.note(format!(
                "the group {name} has no schedule: it needs a table group.{name}.local or group.{name}.online"
            ));
        }
        let hooks = table.table("hooks").and_then(Hooks::read);
        let stopped = table.parsed("stopped", Stopped::from_str);
        table.end();
        let name = name.to_owned();
        Some(Self {
            name,
            sources: sources?,
            local: transpose(local)?,
            online: transpose(online)?,
            hooks,
            stopped,
        })
    }
}

/// What is missing is well; what is wrong is not.
fn transpose(tier: Option<Option<Tier>>) -> Option<Option<Tier>> {
    tier.map_or(Some(None), |read| read.map(Some))
}

impl Source {
    fn read_all(group: &Table<'_>) -> Option<Vec<Self>> {
        let mut shared = Exclude::default();
        add_rules(group, &mut shared);
        let listed = group.texts_and_tables("sources")?;
        if listed.is_empty() {
            group.note_at("sources", "it is empty; it is a list of absolute paths");
        }
        let mut sources: Vec<Self> = Vec::new();
        for entry in listed {
            let (read, place) = match entry {
                TextOrTable::Text(path, place) => {
                    let read = absolute(path).map_err(|error| group.note_in("sources", place.clone(), error));
                    (read.ok().map(|path| Self { path, name: None, exclude: shared.clone() }), place)
                }
                TextOrTable::Table(table) => (Self::read(&table, shared.clone()), table.end()),
            };
            let Some(source) = read else { continue };
            match sources.iter().find(|other| other.is_twin_of(&source)) {
                Some(_) => {
                    group.note_in("sources", place, "another source of the group has this path, or this name")
                }
                None => sources.push(source),
            }
        }
        Some(sources)
    }

    fn read(table: &Table<'_>, mut exclude: Exclude) -> Option<Self> {
        add_rules(table, &mut exclude);
        let name = table.parsed("name", values::name);
        if !table.has("path") {
            table.note("a source needs a path");
        }
        Some(Self { path: table.parsed("path", absolute)?, name, exclude })
    }

    fn is_twin_of(&self, other: &Self) -> bool {
        self.path == other.path || (self.name.is_some() && self.name == other.name)
    }
}

/// What is left out, as the options of `backup` say it.
fn add_rules(table: &Table<'_>, exclude: &mut Exclude) {
    let mut each = |key, add: fn(&mut Exclude, &[u8]) -> Result<(), SourceError>| {
        for text in table.texts(key) {
            if let Err(error) = add(exclude, text.as_bytes()) {
                table.note_at(key, error);
            }
        }
    };
    each("exclude", Exclude::pattern);
    each("exclude-any-case", Exclude::pattern_any_case);
    each("exclude-if-present", Exclude::if_present);
    if table.flag("exclude-caches") {
        exclude.caches();
    }
    if let Some(bytes) = table.parsed("exclude-larger-than", values::size) {
        exclude.larger_than(bytes);
    }
    if table.flag("one-file-system") {
        exclude.one_file_system(true);
    }
}

impl Tier {
    fn read(table: Table<'_>, name: TierName) -> Option<Self> {
        if !table.has("schedule") {
            table.note("it needs a schedule, such as \"every 15 minutes\" or \"22:00\"");
        }
        let schedule = table.parsed("schedule", Schedule::from_str);
        let jitter = table.parsed("jitter", |text| jitter(text, schedule.as_ref())).unwrap_or(0);
        let keep = table.table("keep").map(read_keep).unwrap_or_default();
        let vaults = if name == TierName::Online { read_vaults(&table) } else { Vec::new() };
        table.end();
        Some(Self { schedule: schedule?, jitter, keep, vaults })
    }
}

/// Addresses in the one form in which the store keeps them.
fn read_vaults(tier: &Table<'_>) -> Vec<String> {
    let read = |text: &str| match VaultAddress::from_str(text) {
        Ok(address) => Some(address.to_string()),
        Err(error) => {
            tier.note_at("vaults", format_args!("{text:?}: {error}"));
            None
        }
    };
    tier.texts("vaults").into_iter().filter_map(read).collect()
}

/// Less than a few signs of life would revoke uploads that are well.
fn silence(text: &str) -> Result<Duration, String> {
    match hooks::length_of_time(text)? {
        short if short < SILENCE_MIN => {
            Err("an hour is the least: an upload gives a sign of life every ten minutes".to_owned())
        }
        silence => Ok(silence),
    }
}

/// `never` is a schedule here.
fn read_upkeep(table: Table<'_>, schedule: &mut Option<Schedule>) {
    let parse = |text: &str| if text == "never" { Ok(None) } else { Schedule::from_str(text).map(Some) };
    if let Some(said) = table.parsed("schedule", parse) {
        *schedule = said;
    }
    table.end();
}

fn read_bandwidth(table: Table<'_>) -> Bandwidth {
    let read = |table: Table<'_>| {
        for key in ["when", "upload"] {
            if !table.has(key) {
                table.note(format!(
                    "it needs `{key}`, as in when = \"Mon..Fri 08:00-18:00\" and upload = \"1M\""
                ));
            }
        }
        let (when, upload) = (table.parsed("when", str::parse), table.parsed("upload", str::parse));
        table.end();
        Some(During { when: when?, upload: upload? })
    };
    let upload = table.parsed("upload", str::parse).unwrap_or_default();
    let during = table.tables_of("during").into_iter().filter_map(read).collect();
    table.end();
    Bandwidth { upload, during }
}

/// More than half of the time between two moments would make one of them meet the next.
fn jitter(text: &str, schedule: Option<&Schedule>) -> Result<u32, String> {
    let seconds = schedule::seconds_of(text)?;
    let most = schedule.and_then(Schedule::shortest).map_or(i64::MAX, |shortest| shortest / 2);
    match u32::try_from(seconds) {
        Ok(jitter) if seconds <= most => Ok(jitter),
        _ => Err(format!("{text:?} is more than half of the time between two moments of the schedule")),
    }
}

fn read_keep(table: Table<'_>) -> Retention {
    let keep = Retention {
        last: table.count("last"),
        hourly: table.count("hourly"),
        daily: table.count("daily"),
        weekly: table.count("weekly"),
        monthly: table.count("monthly"),
        yearly: table.count("yearly"),
        within: table.parsed("within", values::span),
        ends: false,
    };
    table.end();
    keep
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    match Path::new(path) {
        path if path.is_absolute() => Ok(path.to_path_buf()),
        _ => Err(format!("{path:?} is no absolute path")),
    }
}

fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("this machine knows no time zone {name:?}; one is \"Europe/Berlin\""))
}

#[cfg(test)]
mod tests;
