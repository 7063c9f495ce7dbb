//! `holdfast scrub` of a store that this machine has the key of: some packs of each place, the oldest proof first.

use std::collections::HashSet;

use holdfast_backup::agenda::Work;
use holdfast_backup::config::ScrubTerms;
use holdfast_store::catalog::VaultNo;
use holdfast_store::check::{self, Turn};
use holdfast_store::clock::Timestamp;
use holdfast_store::scrub::ciphertext::Part;
use holdfast_store::scrub::rotation::{Terms, Wanted, choose};
use holdfast_store::store::Store;
use holdfast_store::vault::address::VaultAddress;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::ScrubArgs;
use super::heal::{self, Healed, heal};
use crate::commands::Context;
use crate::commands::check::{Report, failure, name_files, note};
use crate::commands::status::PlaceLine;
use crate::json::BrokenFile;
use crate::open::{open_store, parse_address};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// What stands for the store's directory.
pub(super) const LOCAL: &str = "local";

/// A place that is read from.
pub(super) struct Place {
    /// `local`, or the vault's address.
    pub name: String,
    pub vault: Option<VaultNo>,
}

/// What was read of a place.
#[derive(Debug, Serialize)]
struct PlaceRead {
    /// Packs that were to be read.
    packs_chosen: u64,
    /// How far it is proven now.
    #[serde(flatten)]
    now: PlaceLine,
}

/// The last line of `scrub --json`.
#[derive(Debug, Serialize)]
struct Summary {
    /// Always `summary`.
    message_type: &'static str,
    /// Number of damages, and of what could not be looked at.
    num_errors: u64,
    /// Packs that are damaged or missing.
    broken_packs: Vec<String>,
    /// Files that cannot be restored whole.
    broken_files: Vec<BrokenFile>,
    /// Packs that were to be read.
    packs: u64,
    /// Bytes that were read back and proven.
    bytes_read: u64,
    /// What was damaged and is right again.
    healed: Vec<Healed>,
    places: Vec<PlaceRead>,
}

/// How much of a place is to be read in a day. Reading a directory costs nothing.
pub fn terms_of(address: &str, terms: &ScrubTerms) -> Terms {
    let is_free = address == LOCAL || matches!(address.parse(), Ok(VaultAddress::Directory(_)));
    Terms { days: u32::from(terms.days), bytes_a_day: (!is_free).then_some(terms.vault_bytes) }
}

/// Reads them.
pub fn run(context: &Context<'_>, args: &ScrubArgs) -> Outcome {
    let terms =
        context.settings.config_if_any()?.map_or_else(ScrubTerms::default, |config| config.scrub_terms);
    let store = open_store(context)?;
    let begun = context.terminal.clock().now();
    let places = places(&store, &args.places)?;
    let turns = turns(&store, &places, args, &terms, begun)?;
    let monitor = context.terminal.monitor();
    let part = if args.full { Part::WHOLE } else { part_of(begun, &terms) };
    let found = check::scrub(&store, &turns, part, &*monitor)?;
    let mut report = Report::of(found);
    report.problems = report.problems.max(monitor.problems());
    drop(monitor);
    // Of some places it takes nothing back of what was found in others.
    if args.places.is_empty() || report.problems > 0 {
        note(context, &store, Work::Scrub, begun, &report);
    }
    let is_damaged = report.problems > 0 && !report.only_unseen();
    let of_places: Vec<Option<VaultNo>> = places.iter().map(|place| place.vault).collect();
    let healed = if !args.no_heal && (is_damaged || store.lacks_something_in(&of_places)?) {
        put_right(context, &store, &of_places)?
    } else {
        heal::Done::default()
    };
    show(context, &store, &places, &turns, &report, &healed)?;
    if report.problems > 0 {
        return Err(failure_with(&report, &healed));
    }
    // What a look found before may wait still.
    healed.failures.into_iter().next().map_or(Ok(Done::Whole), Err)
}

fn put_right(
    context: &Context<'_>,
    store: &Store,
    places: &[Option<VaultNo>],
) -> Result<heal::Done, Failure> {
    let monitor = context.terminal.monitor();
    let done = heal(context, store, places, &monitor)?;
    drop(monitor);
    for failure in &done.failures {
        context.terminal.warn(&format!("not all that is damaged could be put right: {}", failure.message));
    }
    Ok(done)
}

/// That there was damage, and what became of it.
fn failure_with(report: &Report, healed: &heal::Done) -> Failure {
    let failure = failure(report);
    if healed.healed.is_empty() {
        return failure;
    }
    let copies = text::count(healed.healed.len() as u64, "damaged pack");
    let hint = match healed.left {
        0 => "the next `holdfast scrub` sees whether all is well",
        _ => "for the others see the lines above, and `holdfast backup` where the source is unchanged",
    };
    let message = format!("{}; {copies} put right", failure.message);
    Failure { message, ..failure }.hint(hint)
}

/// Points of vaults are read in turn, as packs are.
fn part_of(now: Timestamp, terms: &ScrubTerms) -> Part {
    Part::of_day(now.seconds.div_euclid(86_400).max(0).unsigned_abs(), u32::from(terms.days))
}

/// Those that were named, or all; each once.
pub(super) fn places(store: &Store, named: &[String]) -> Result<Vec<Place>, Failure> {
    let vaults = store.vaults().iter().map(|(no, name, _)| Place { name: name.clone(), vault: Some(*no) });
    let all = std::iter::once(Place { name: LOCAL.to_owned(), vault: None }).chain(vaults);
    let all: Vec<Place> = all.collect();
    if named.is_empty() {
        return Ok(all);
    }
    let mut wanted = HashSet::new();
    for name in named {
        let is_it = |place: &&Place| {
            place.name == *name || parse_address(name).is_ok_and(|address| address.to_string() == place.name)
        };
        let Some(place) = all.iter().find(is_it) else {
            let known: Vec<&str> = all.iter().map(|place| place.name.as_str()).collect();
            let failure = Failure::usage(format!("{name} is neither {LOCAL} nor a vault of this store"));
            return Err(failure.hint(format!("there are {}", known.join(", "))));
        };
        wanted.insert(place.vault);
    }
    Ok(all.into_iter().filter(|place| wanted.contains(&place.vault)).collect())
}

fn turns(
    store: &Store,
    places: &[Place],
    args: &ScrubArgs,
    terms: &ScrubTerms,
    now: Timestamp,
) -> Result<Vec<Turn>, Failure> {
    let turn = |place: &Place| {
        let wanted = match args.max_bytes {
            _ if args.full => Wanted::All,
            Some(bytes) => Wanted::Bytes(bytes),
            None => Wanted::Due(terms_of(&place.name, terms)),
        };
        let copies = store.catalog().copies_in(place.vault)?;
        Ok(Turn { place: place.vault, packs: choose(copies, wanted, now) })
    };
    places.iter().map(turn).collect()
}

fn show(
    context: &Context<'_>,
    store: &Store,
    places: &[Place],
    turns: &[Turn],
    report: &Report,
    healed: &heal::Done,
) -> Result<(), Failure> {
    let terminal = context.terminal;
    let mut read = Vec::new();
    for (place, turn) in places.iter().zip(turns) {
        let now = PlaceLine::new(place.name.clone(), &store.catalog().proof_of(place.vault)?, None);
        read.push(PlaceRead { packs_chosen: turn.packs.len() as u64, now });
    }
    if terminal.json() {
        return terminal.json_line(&Summary {
            message_type: "summary",
            num_errors: report.problems,
            broken_packs: report.broken_packs.clone(),
            broken_files: report.files.iter().map(|file| BrokenFile::new(&file.point, &file.path)).collect(),
            packs: report.packs,
            bytes_read: report.bytes_read,
            healed: healed.healed.clone(),
            places: read,
        });
    }
    name_files(terminal, report)?;
    for healed in &healed.healed {
        terminal.say(&told(healed))?;
    }
    let now = terminal.clock().now();
    for place in &read {
        terminal.say(&line(place, now, &TimeZone::system()))?;
    }
    let size = text::size(report.bytes_read);
    terminal.say(&format!("read {} ({size}): {}", text::count(report.packs, "pack"), report.verdict()))
}

/// What was put right.
fn told(healed: &Healed) -> String {
    let from =
        healed.from.as_ref().map_or_else(|| "new packs".to_owned(), |from| format!("the copy of {from}"));
    format!("put right in {}: {}, by {from}", healed.place, healed.object)
}

/// What is to be said of a place.
fn line(place: &PlaceRead, now: Timestamp, zone: &TimeZone) -> String {
    let due = match place.packs_chosen {
        0 => "nothing was due".to_owned(),
        packs => format!("{} of {}", packs, text::count(place.now.packs, "pack")),
    };
    format!("{}: {due}; all proven since: {}", place.now.place, place.now.proof(now, zone))
}

#[cfg(test)]
mod tests {
    use holdfast_store::catalog::Proof;

    use super::*;

    #[test]
    fn reading_a_directory_costs_nothing_and_any_other_vault_has_a_bound() {
        let terms = ScrubTerms { days: 7, vault_bytes: 5 };
        for (address, bytes_a_day) in
            [("local", None), ("/mnt/v", None), ("azure://account/name", Some(5)), ("no address", Some(5))]
        {
            assert_eq!(terms_of(address, &terms), Terms { days: 7, bytes_a_day }, "{address}");
        }
    }

    #[test]
    fn a_place_says_what_was_due_and_how_old_its_oldest_proof_is() {
        let now = Timestamp::from_seconds(1_795_176_000);
        let oldest = Some(Timestamp::from_seconds(1_795_176_000 - 12 * 86_400));
        let proof = Proof { packs: 40, bytes: 1 << 20, oldest, ..Proof::default() };
        let read = |packs_chosen| PlaceRead { packs_chosen, now: PlaceLine::new("/v".into(), &proof, None) };
        let since = "all proven since: 2026-11-08 12:00:00, 12 days ago";
        assert_eq!(line(&read(2), now, &TimeZone::UTC), format!("/v: 2 of 40 packs; {since}"));
        assert_eq!(line(&read(0), now, &TimeZone::UTC), format!("/v: nothing was due; {since}"));
    }

    #[test]
    fn each_day_has_its_part_of_the_points() {
        let part = |day: i64| part_of(Timestamp::from_seconds(day * 86_400 + 5), &ScrubTerms::default());
        assert_eq!((part(0).to_string(), part(31).to_string()), ("1/30".to_owned(), "2/30".to_owned()));
        assert_eq!(part(-1).to_string(), "1/30");
    }
}
