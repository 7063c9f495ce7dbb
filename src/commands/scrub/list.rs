//! `holdfast scrub --list`: of each copy of each pack, when it was last proven, or what is wrong with it.

use std::collections::{HashMap, HashSet};

use holdfast_store::catalog::{KnownCopy, PackNo};
use holdfast_store::clock::Timestamp;
use holdfast_store::id::PackId;
use holdfast_store::names;
use holdfast_store::store::Store;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::rotation::{LOCAL, Place, places};
use crate::commands::Context;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text::{self, Table};

/// What is known of a copy. What is to be seen to comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It should be there, and whoever looked last did not find it.
    Missing,
    /// It was read, its bytes are others, and nothing was put in its place since.
    Damaged,
    /// Nobody read it since it came there.
    Unproven,
    /// Every byte was read back and hashed.
    Proven,
}

/// A copy of a pack in a place.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line<'a> {
    /// Always `pack`.
    message_type: &'static str,
    /// `local`, or the vault's address.
    place: &'a str,
    /// The name of the object.
    object: String,
    bytes: u64,
    state: State,
    /// When its bytes were last proven there; missing if they never were, or were found to be others since.
    #[serde(skip_serializing_if = "Option::is_none")]
    proven: Option<String>,
    #[serde(skip)]
    at: Option<Timestamp>,
}

impl<'a> Line<'a> {
    fn new(place: &'a str, id: &PackId, bytes: u64, state: State, at: Option<Timestamp>) -> Self {
        let object = names::pack(id).as_str().to_owned();
        Self { message_type: "pack", place, object, bytes, state, proven: at.map(text::rfc3339_short), at }
    }

    fn of(place: &'a str, id: &PackId, copy: &KnownCopy, is_missing: bool) -> Self {
        let state = match copy.proven {
            _ if is_missing => State::Missing,
            _ if copy.bad => State::Damaged,
            None => State::Unproven,
            Some(_) => State::Proven,
        };
        let at = copy.proven.filter(|_| state == State::Proven);
        Self::new(place, id, copy.len, state, at)
    }

    fn cells(&self, zone: &TimeZone) -> [String; 4] {
        let state = match (self.state, self.at) {
            (State::Missing, _) => "missing".to_owned(),
            (State::Damaged, _) => "damaged".to_owned(),
            (_, None) => "never proven".to_owned(),
            (_, Some(at)) => format!("proven {}", text::local_time(at, zone)),
        };
        [self.place.to_owned(), text::size(self.bytes), state, self.object.clone()]
    }
}

/// Lists what the catalog knows. No pack is read and no vault asked; the store's directory is listed.
pub fn run(context: &Context<'_>, named: &[String]) -> Outcome {
    let store = open_store(context)?;
    let places = places(&store, named)?;
    // A row that is not what was written has no name; a check tells of it.
    let all = store.catalog().pack_list()?;
    let ids: HashMap<PackNo, PackId> = all.into_iter().map(|(no, id, ..)| (no, id)).collect();
    let (terminal, zone) = (context.terminal, TimeZone::system());
    let mut table = Table::new(&["Place", ">Size", "State", "Pack"]);
    for place in &places {
        for line in lines(&store, place, &ids)? {
            match terminal.json() {
                true => terminal.json_line(&line)?,
                false => table.row(line.cells(&zone)),
            }
        }
    }
    if !terminal.json() {
        terminal.say(&table.render())?;
    }
    Ok(Done::Whole)
}

/// The copies in a place: those first that are to be seen to, then those that wait longest.
fn lines<'a>(
    store: &Store,
    place: &'a Place,
    ids: &HashMap<PackNo, PackId>,
) -> Result<Vec<Line<'a>>, Failure> {
    let catalog = store.catalog();
    let (mut missing, mut lines): (HashSet<PackId>, _) = (HashSet::new(), Vec::new());
    match place.vault {
        Some(no) => missing.extend(catalog.not_shown_in(no)?),
        None => {
            let bad = catalog.bad_packs()?;
            for row in store.wrong_here()?.into_iter().filter(|row| !bad.contains(&row.no)) {
                missing.insert(row.entry.id);
                if !row.staged {
                    lines.push(Line::new(LOCAL, &row.entry.id, row.entry.len, State::Missing, None));
                }
            }
        }
    }
    for copy in catalog.copies_in(place.vault)? {
        let Some(id) = ids.get(&copy.pack) else { continue };
        lines.push(Line::of(&place.name, id, &copy, missing.contains(id)));
    }
    lines.sort_by(|a, b| (a.state, a.at, &a.object).cmp(&(b.state, b.at, &b.object)));
    Ok(lines)
}
