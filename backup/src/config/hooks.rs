//! What is to be run around the points of a group, as the configuration says it. Running it is the program's business.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_store::point::Consistency;

use super::table::{Table, TextOrTexts};
use crate::schedule::seconds_of;

/// How long one may take of which nobody says it: a dump of a database takes minutes, and one that hangs is seen the same hour.
const USUAL_LIMIT: Duration = Duration::from_secs(600);

/// What runs before the first source of a group is read, and after the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// What runs before.
    pub before: Option<HookCommand>,
    /// What runs after, whatever became of the points.
    pub after: Option<HookCommand>,
    /// How long each may take.
    pub limit: Duration,
    /// What becomes of the points when the one before fails.
    pub on_failure: OnFailure,
    /// What the points are when it does not.
    pub consistency: Consistency,
    /// The file that says so, and its line: whoever may write there says what is run.
    pub place: (PathBuf, usize),
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookCommand {
    /// A program and its arguments; never empty.
    Words(Vec<String>),
    /// A text for the shell.
    Shell(String),
}

/// What becomes of points when what runs before them fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// None is taken.
    Fail,
    /// They are taken and carry a mark.
    Mark,
}

impl Hooks {
    pub(super) fn read(table: Table<'_>) -> Option<Self> {
        let (before, after) = (HookCommand::read(&table, "before"), HookCommand::read(&table, "after"));
        if !table.has("before") && !table.has("after") {
            table.note("it needs `before` or `after`");
        }
        let limit = table.parsed("timeout", length_of_time).unwrap_or(USUAL_LIMIT);
        let on_failure = table.parsed("on-failure", on_failure).unwrap_or(OnFailure::Fail);
        let said = table.parsed("consistency", consistency);
        if said.is_some() && !table.has("before") {
            table.note_at("consistency", "without `before` nothing makes it true");
        }
        let place = table.place_in_file();
        table.end();
        let consistency = said.unwrap_or(Consistency::Fuzzy);
        Some(Self { before, after, limit, on_failure, consistency, place })
    }
}

impl HookCommand {
    fn read(table: &Table<'_>, key: &'static str) -> Option<Self> {
        let read = match table.text_or_texts(key)? {
            TextOrTexts::Text(text) => Self::Shell(text.to_owned()),
            TextOrTexts::Texts(words) => Self::Words(words.into_iter().map(str::to_owned).collect()),
        };
        let program = match &read {
            Self::Shell(text) => Some(text.as_str()),
            Self::Words(words) => words.first().map(String::as_str),
        };
        if program.is_none_or(|program| program.trim().is_empty()) {
            table.note_at(key, "there is nothing to run; it is a list of words, or a text for the shell");
        }
        Some(read)
    }
}

/// A length of time, down to seconds.
pub(super) fn length_of_time(text: &str) -> Result<Duration, String> {
    let seconds = match text.trim().trim_end_matches('s').strip_suffix(" second") {
        Some(number) => number.parse::<u32>().map_err(|_| format!("{number:?} is not a number"))?.into(),
        None => {
            seconds_of(text).map_err(|_| format!("{text:?} is no length of time; one is \"10 minutes\""))?
        }
    };
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err("a second is the least".to_owned()),
    }
}

fn on_failure(text: &str) -> Result<OnFailure, String> {
    match text {
        "fail" => Ok(OnFailure::Fail),
        "mark" => Ok(OnFailure::Mark),
        _ => Err(format!("{text:?} is neither \"fail\" nor \"mark\"")),
    }
}

fn consistency(text: &str) -> Result<Consistency, String> {
    match text {
        "fuzzy" => Ok(Consistency::Fuzzy),
        "snapshot" => Ok(Consistency::Snapshot),
        "application" => Ok(Consistency::Application),
        _ => Err(format!("{text:?} is none of \"fuzzy\", \"snapshot\", \"application\"")),
    }
}
