//! `holdfast drill`: a recovery from a vault alone, rehearsed with some files, so that the day on which it is needed is not the first.

mod known;
mod place;
mod prove;
mod sample;
mod totals;

use std::collections::BTreeSet;

use clap::Args;
use holdfast_backup::agenda::Work;
use holdfast_backup::ledger::{Ended, JobState, Ledger};
use holdfast_store::StoreError;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::store::{Settings as StoreSettings, StoredPoint};
use serde::Serialize;

use super::Context;
use super::scope::ScopeArgs;
use crate::args::values::some_size;
use crate::json::PathText;
use crate::outcome::{Done, Failure, Outcome};
use crate::settings::is_job;
use crate::terminal::text;
use place::Recovered;
use prove::{Against, Seen, Verdict, prove};
use sample::{Chosen, Numbers, choose};
use totals::{Totals, sentence};

/// Files that are read if nobody says how many.
const FILES: u32 = 200;
/// Bytes of them.
const BYTES: u64 = 256 << 20;

/// Rehearse a recovery with some files
///
/// Does what a machine would do that has nothing but the address of a vault and a key: reads the config and a key slot there, makes a
/// catalog from the vault in a temporary directory, mounts that, and reads some files of some points, chosen by chance, from the vault alone. Every
/// byte is compared with the ids of its chunks, with what the mount shows, and with the file at its source where that is here and unchanged. Every few drills the
/// newest point of a small source is read whole. Points that this machine knows to be in the vault and that did not come fail it. Nothing is written but the catalog, which is removed again. The daemon does it once a
/// week with each vault. Exit code 1 means that something could not be had back, was not the same, or that there was nothing to read.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast drill                                        200 files, from each vault of the store
  holdfast drill --from-vault azure://ACCOUNT/NAME --files 1000 --max-bytes 2G
  holdfast drill --source docs --seed 7                 the same files again")]
pub struct DrillArgs {
    /// The vault to recover from; else each vault of the store in turn
    #[arg(long, value_name = "ADDRESS")]
    from_vault: Option<String>,
    /// How many files are read
    #[arg(long, value_name = "N", default_value_t = FILES, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    files: u32,
    /// Stop before more than so many bytes of files are read (K, M, G)
    #[arg(long, value_name = "BYTES", default_value_t = BYTES, value_parser = some_size)]
    max_bytes: u64,
    /// Which files chance chooses; told by each drill
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// A file that did not come back as it should.
#[derive(Debug, Serialize)]
struct WrongFile {
    snapshot_id: String,
    #[serde(flatten)]
    path: PathText,
    reason: String,
}

/// A point that did not come from a vault in which it is known to be.
#[derive(Clone, Debug, Serialize)]
struct MissingPoint {
    vault: String,
    snapshot_id: String,
}

/// A point of which all that was read was right.
#[derive(Debug, Serialize)]
struct PointLine {
    /// Always `drilled`.
    message_type: &'static str,
    snapshot_id: String,
}

/// The last line of `drill --json`.
#[derive(Debug, Serialize)]
struct Summary {
    /// Always `summary`.
    message_type: &'static str,
    num_errors: u64,
    seed: u64,
    vaults: Vec<String>,
    /// Points of which files were read.
    points: u64,
    files: u64,
    bytes: u64,
    /// Files that were compared with the ones at their source.
    files_like_source: u64,
    /// Files that were also read through a mount.
    files_mounted: u64,
    /// Vaults of which nothing could be mounted, so that nothing was read through a mount.
    vaults_unmounted: Vec<String>,
    /// Points that were read whole, and of which all came back right.
    points_whole: u64,
    files_wrong: Vec<WrongFile>,
    /// Points that did not come from a vault in which this machine knows them to be.
    points_missing: Vec<MissingPoint>,
    /// Vaults that have no point in scope, and in which none is known to be.
    vaults_without_points: Vec<String>,
    /// Vaults that have points, and of which no file was read: none that was met is short enough.
    vaults_unread: Vec<String>,
}

/// Rehearses.
pub fn run(context: &Context<'_>, args: &DrillArgs) -> Outcome {
    let begun = context.terminal.clock().now();
    let seed = args.seed.unwrap_or_else(|| begun.seconds.unsigned_abs());
    let vaults = match &args.from_vault {
        Some(address) => vec![address.clone()],
        None => StoreSettings::load(context.settings.store()?)?.vaults.into_iter().map(|v| v.url).collect(),
    };
    if vaults.is_empty() {
        if is_job() {
            return Ok(Done::Whole);
        }
        let failure = Failure::failed("the store has no vault: there is nothing to recover from");
        return Err(failure.hint("`holdfast vault add ADDRESS` makes one, --from-vault ADDRESS names one"));
    }
    let mut totals = Totals::default();
    for (nth, address) in vaults.iter().enumerate() {
        let numbers = Numbers::new(seed.wrapping_add(nth as u64));
        match drill(context, args, address, numbers, &mut totals) {
            Err(failure) if context.terminal.cancelled() => return Err(failure),
            Err(failure) => totals.fail(address, failure),
            Ok(()) => {}
        }
    }
    let nothing = totals.nothing(args, &vaults);
    // Nothing was rehearsed then: what the last drill found stands.
    if nothing.is_none() {
        note(context, begun, &totals);
    }
    show(context, seed, &vaults, &totals)?;
    match nothing {
        // A store from which nothing was sent yet is no alert; a line says that nothing was read.
        Some(failure) if is_job() => {
            context.terminal.warn(&failure.message);
            Ok(Done::Whole)
        }
        Some(failure) => Err(failure),
        None => totals.outcome(),
    }
}

/// Recovers from one vault and reads files.
fn drill(
    context: &Context<'_>,
    args: &DrillArgs,
    address: &str,
    mut numbers: Numbers,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let monitor = context.terminal.monitor();
    let mut recovered = Recovered::from(context, address, &*monitor)?;
    // Where nothing can be mounted, in a container say, files can be had back by `restore`.
    if let Err(failure) = recovered.mount(context) {
        let told = format!("files are not read through a mount, which cannot be had: {}", failure.message);
        context.terminal.warn(&told);
        totals.said += &format!("{told}\n");
        totals.unmounted.push(address.to_owned());
    }
    let all = recovered.store().points()?;
    let lost = recovered.lost(&args.scope, &all)?;
    let is_compared = lost.is_some();
    let lost = lost.unwrap_or_default();
    lost.iter().for_each(|id| totals.miss(address, id, &*monitor));
    let points = args.scope.select(all);
    if points.is_empty() && lost.is_empty() {
        if !is_compared && args.scope.is_empty() {
            return Err(recovered.shows_no_point());
        }
        totals.without.push(address.to_owned());
    }
    let store = recovered.store();
    let chosen = choose(store, &points, args.files, args.max_bytes, &mut numbers)?;
    let bytes_total = chosen.iter().map(|chosen| chosen.node.size).sum();
    monitor.event(Event::Stage { name: "read files", files_total: chosen.len() as u64, bytes_total });
    if chosen.is_empty() && !points.is_empty() {
        let most = text::size(args.max_bytes);
        let told = format!(
            "no file of vault {address} was read: of the entries that were met none is a file of at most {most} (--max-bytes)"
        );
        context.terminal.warn(&told);
        totals.said += &format!("{told}\n");
        totals.unread.push(address.to_owned());
    }
    let mut wrong = BTreeSet::new();
    for chosen in &chosen {
        if monitor.cancelled() {
            return Err(Failure::interrupted());
        }
        let point = &points[chosen.point];
        if !read(context, &recovered, point, chosen, totals, &*monitor)? {
            wrong.insert(chosen.point);
        }
        monitor.event(Event::Done { files: 1, bytes: chosen.node.size });
    }
    totals.whole += whole(&chosen, &wrong);
    Ok(())
}

/// How many points came back whole, where those are known of which something did not come back right.
fn whole(chosen: &[Chosen], wrong: &BTreeSet<usize>) -> u64 {
    chosen.iter().filter(|chosen| chosen.ends_whole && !wrong.contains(&chosen.point)).count() as u64
}

/// Whether the file came back right.
fn read(
    context: &Context<'_>,
    recovered: &Recovered,
    stored: &StoredPoint,
    chosen: &Chosen,
    totals: &mut Totals,
    monitor: &dyn Monitor,
) -> Result<bool, Failure> {
    let id = stored.point.id;
    let is_ours = stored.point.source.host == context.settings.host;
    let against = is_ours.then(|| Against::source(&stored.point.path, &chosen.path, &chosen.node)).flatten();
    totals.points.insert(id);
    let seen = recovered.seen(&id).map(|point| Seen::open(&point, &chosen.path, &chosen.node)).transpose();
    let is_seen = matches!(seen, Ok(Some(_)));
    // What the vault has tells more of a file that is damaged than the mount's error.
    let (seen, unseen) = seen.map_or_else(|why| (None, Some(why)), |seen| (seen, None));
    let verdict = prove(recovered.store(), &stored.point.root, &chosen.node, seen, against)?;
    let wrong = match (verdict, unseen) {
        (Verdict::Right { .. }, Some(why)) => why,
        (Verdict::Right { like_source }, None) => {
            totals.files += 1;
            totals.mounted += u64::from(is_seen);
            totals.bytes += chosen.node.size;
            totals.like_source += u64::from(like_source);
            return Ok(true);
        }
        (Verdict::Wrong(reason), _) => reason,
    };
    let shown = text::printable(&chosen.path);
    totals.bad.insert(id);
    totals.said += &format!("point {}: {shown}: {wrong}\n", id.short());
    monitor.event(Event::Problem {
        path: chosen.path.clone(),
        reason: format!("point {}: {wrong}", id.short()),
    });
    let (snapshot_id, path) = (id.hex(), PathText::of(&chosen.path));
    totals.wrong.push(WrongFile { snapshot_id, path, reason: wrong });
    Ok(false)
}

/// Puts down what a person's drill came to, so that `status` knows. Of its own jobs the daemon does it.
fn note(context: &Context<'_>, begun: holdfast_store::clock::Timestamp, totals: &Totals) {
    let Ok(store) = context.settings.store() else { return };
    if is_job() {
        return;
    }
    let state = if totals.problems() == 0 { JobState::Done } else { JobState::Failed };
    let points = totals.points.difference(&totals.bad).map(RecoveryPointId::hex).collect();
    let said = totals.said.clone();
    let ended = Ended { at: context.terminal.clock().now(), state, said, points, sent: None };
    if let Err(error) = Ledger::note_run(store, Work::Drill, begun, &ended) {
        context.terminal.warn(&format!("the drill is not put down for `holdfast status`: {error}"));
    }
}

fn show(context: &Context<'_>, seed: u64, vaults: &[String], totals: &Totals) -> Result<(), Failure> {
    let terminal = context.terminal;
    if !terminal.json() {
        return terminal.say(&sentence(seed, vaults, totals));
    }
    for id in totals.points.difference(&totals.bad) {
        terminal.json_line(&PointLine { message_type: "drilled", snapshot_id: id.hex() })?;
    }
    let wrong = totals.wrong.iter().map(|wrong| WrongFile {
        snapshot_id: wrong.snapshot_id.clone(),
        path: wrong.path.clone(),
        reason: wrong.reason.clone(),
    });
    terminal.json_line(&Summary {
        message_type: "summary",
        num_errors: totals.problems(),
        seed,
        vaults: vaults.to_vec(),
        points: totals.points.len() as u64,
        files: totals.files,
        bytes: totals.bytes,
        files_like_source: totals.like_source,
        files_mounted: totals.mounted,
        vaults_unmounted: totals.unmounted.clone(),
        points_whole: totals.whole,
        files_wrong: wrong.collect(),
        points_missing: totals.missing.clone(),
        vaults_without_points: totals.without.clone(),
        vaults_unread: totals.unread.clone(),
    })
}

/// An error of the store that tells of one file and not of the way to the vault.
fn is_of_file(error: &StoreError) -> bool {
    use holdfast_store::ErrorClass;
    matches!(error.class(), ErrorClass::Corrupt | ErrorClass::NotFound | ErrorClass::Unsupported)
}

#[cfg(test)]
mod tests {
    use holdfast_store::tree::NodeKind;

    use super::*;
    use crate::commands::testing::node;

    #[test]
    fn a_point_of_which_a_file_did_not_come_back_right_is_not_whole() {
        let chosen = |point, ends_whole| Chosen {
            point,
            path: b"file".to_vec(),
            node: node(b"file", NodeKind::File),
            ends_whole,
        };
        let read = [chosen(1, false), chosen(1, true), chosen(0, false), chosen(1, false)];
        assert_eq!(whole(&read, &BTreeSet::new()), 1);
        assert_eq!(whole(&read, &BTreeSet::from([0])), 1, "that is another one");
        assert_eq!(whole(&read, &BTreeSet::from([1])), 0);
        assert_eq!(whole(&read[..1], &BTreeSet::new()), 0);
    }
}
