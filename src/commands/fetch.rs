//! `holdfast fetch`: a part of a point brought from a vault into the local cache, before somebody needs it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use holdfast_store::StoreError;
use holdfast_store::error::ErrorClass;
use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::reader::{BlockNo, Brought, Reader, Request};
use serde::Serialize;

use super::Context;
use super::estimate::Needs;
use super::place::parse_place;
use super::scope::{ScopeArgs, find_node, find_point};
use crate::args::values;
use crate::json::seconds_between;
use crate::open::{Bounds, open_store_with};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// Bring a part of a point from a vault into the local cache
///
/// Fetches what only a vault has of everything below a path, in few large requests of which several are under way at a time,
/// in the order in which it is stored. A mount that runs finds it at once. Ctrl-C stops it; what was fetched stays, and
/// the same command goes on from there. The --cache-size that was said last holds for later commands, too.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast fetch latest:photos              before copying it out of the mount
  holdfast fetch /mnt/recovery/by-group/default/docs/latest
  holdfast fetch latest --cache-size 200G")]
pub struct FetchArgs {
    /// POINT, POINT:PATH, or a path in a mount
    #[arg(value_name = "POINT[:PATH]")]
    point: OsString,
    /// Most that the cache of vault data may take on disk [default: as said last, at first 10G]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    cache_size: Option<u64>,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Requests under way at a time: 70 ms each way are then worth half a gigabyte a second.
const FETCHING: usize = 8;

/// The last line of `fetch --json`.
#[derive(Debug, Default, Serialize)]
struct Fetched {
    /// Always `summary`.
    message_type: &'static str,
    /// Full id of the point.
    snapshot_id: String,
    /// Files below the path.
    total_files: u64,
    /// Their lengths, with holes.
    total_bytes: u64,
    /// Requests that vaults answered: fewer than were planned, where another program brought some of it meanwhile.
    requests: u64,
    /// Bytes that these brought, as they are stored.
    bytes_fetched: u64,
    /// Bytes that are wanted, however they came into the cache, and are not in it any more.
    bytes_gone: u64,
    /// Files that are not whole anywhere, and packs that could not be fetched.
    errors: u64,
    /// Seconds it took.
    seconds_elapsed: f64,
}

/// Fetches.
pub fn run(context: &Context<'_>, args: &FetchArgs) -> Outcome {
    let spec = parse_place(&args.point)?;
    let began = context.terminal.clock().now();
    let store = open_store_with(context, Bounds { cache: args.cache_size, ..Bounds::default() })?;
    let point = find_point(&store, &spec, &args.scope.scope())?;
    let node = find_node(&store, &point, &spec.path)?;
    let mut needs = Needs::gather(context, &store, &node, &spec.path)?;
    let all = needs.all();
    check_limit(store.reader(), all.iter().map(Request::cache_len).sum())?;
    needs.touch();
    let requests = needs.requests();
    warn_of_room(context, store.reader(), requests.iter().map(Request::cache_len).sum());
    let (errors, brought) = fetch_all(context, store.reader(), &requests, &needs)?;
    let gone = all.iter().filter(|request| !store.reader().is_fetched(request).unwrap_or(false));
    let fetched = Fetched {
        message_type: "summary",
        snapshot_id: point.point.id.hex(),
        total_files: needs.sums.files,
        total_bytes: needs.sums.bytes,
        requests: brought.requests,
        bytes_fetched: brought.bytes,
        bytes_gone: if errors > 0 { 0 } else { gone.map(Request::len).sum() },
        errors: errors + needs.sums.lost,
        seconds_elapsed: seconds_between(began, context.terminal.clock().now()),
    };
    tell(context, &fetched)?;
    let whole = fetched.errors == 0 && fetched.bytes_gone == 0;
    Ok(if whole { Done::Whole } else { Done::Partial })
}

/// Of more than fits, what comes last would push out what came before it.
fn check_limit(reader: &Reader, wanted: u64) -> Result<(), Failure> {
    let limit = reader.cache_limit();
    if wanted <= limit {
        return Ok(());
    }
    let (wanted, limit) = (text::size(wanted), text::size(limit));
    Err(Failure::failed(format!("the cache is too small: it holds {limit}, and {wanted} shall be in it"))
        .hint("give more with --cache-size, here and to the mount, or fetch a smaller part"))
}

fn warn_of_room(context: &Context<'_>, reader: &Reader, to_come: u64) {
    let over = (reader.cache_bytes() + to_come).saturating_sub(reader.cache_limit());
    if over > 0 {
        let over = text::size(over);
        context
            .terminal
            .warn(&format!("the cache is nearly full: {over} of what was used longest ago go from it"));
    }
}

/// Carries out all requests, several at a time; how many failed because of the object that they wanted, and what the others brought.
fn fetch_all(
    context: &Context<'_>,
    reader: &Reader,
    requests: &[Request],
    needs: &Needs<'_>,
) -> Result<(u64, Brought), Failure> {
    let monitor = context.terminal.monitor();
    let bytes_total = requests.iter().map(Request::len).sum();
    monitor.event(Event::Stage { name: "fetch", files_total: needs.sums.files, bytes_total });
    let files = files_by_request(requests, &needs.last_blocks);
    let here = needs.sums.files - needs.sums.lost - files.iter().sum::<u64>();
    monitor.event(Event::Done { files: here, bytes: 0 });
    let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let all = Mutex::new(Brought::default());
    let work = || {
        while !monitor.cancelled() && !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let (Some(request), Some(files)) = (requests.get(n), files.get(n)) else { return };
            let mut brought = Brought::default();
            let done = reader.fetch(request, &mut brought);
            *all.lock().unwrap_or_else(PoisonError::into_inner) += brought;
            match done.and_then(|()| reader.is_fetched(request)) {
                Ok(true) => monitor.event(Event::Done { files: *files, bytes: request.len() }),
                Err(error) if is_of_object(&error) => {
                    monitor.event(Event::Problem { path: Vec::new(), reason: error.to_string() });
                }
                other => {
                    stop.store(true, Ordering::Relaxed);
                    let why = other.map_or_else(Failure::from, |_| not_kept());
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..FETCHING.min(requests.len())).for_each(|_| drop(scope.spawn(work)));
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    if monitor.cancelled() {
        return Err(
            Failure::interrupted().hint("what was fetched stays; the same command goes on from there")
        );
    }
    Ok((monitor.problems(), all.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

fn not_kept() -> Failure {
    Failure::failed("the cache does not keep what is fetched")
        .hint("see whether its disk is full (HOLDFAST_CACHE_DIR)")
}

/// Whether other objects may well be fetched.
fn is_of_object(error: &StoreError) -> bool {
    matches!(error.class(), ErrorClass::NotFound | ErrorClass::Corrupt)
}

/// How many files each request completes: those whose last block it brings.
fn files_by_request(requests: &[Request], last_blocks: &BTreeMap<BlockNo, u64>) -> Vec<u64> {
    let mut files = vec![0; requests.len()];
    for (block, count) in last_blocks {
        let n = requests.partition_point(|request| request.end() <= *block);
        files.get_mut(n).into_iter().for_each(|files| *files += count);
    }
    files
}

fn tell(context: &Context<'_>, fetched: &Fetched) -> Result<(), Failure> {
    if fetched.bytes_gone > 0 {
        let gone = text::size(fetched.bytes_gone);
        context.terminal.warn(&format!("{gone} did not stay in the cache: another program let go of it"));
    }
    if context.terminal.json() {
        return context.terminal.json_line(fetched);
    }
    context.terminal.say(&render(fetched))
}

fn render(fetched: &Fetched) -> String {
    let files = format!("{} ({})", text::count(fetched.total_files, "file"), text::size(fetched.total_bytes));
    if fetched.requests == 0 {
        return format!("nothing to fetch: no vault is needed for {files}");
    }
    let (bytes, requests) = (text::size(fetched.bytes_fetched), text::count(fetched.requests, "request"));
    let time = text::duration(fetched.seconds_elapsed as u64);
    format!("fetched {bytes} in {requests} for {files}, in {time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_was_fetched_and_for_what() {
        let nothing = Fetched { total_files: 1, total_bytes: 5, ..Fetched::default() };
        assert_eq!(render(&nothing), "nothing to fetch: no vault is needed for 1 file (5 B)");
        let some = Fetched { requests: 2, bytes_fetched: 5 << 20, seconds_elapsed: 65.9, ..nothing };
        assert_eq!(render(&some), "fetched 5.000 MiB in 2 requests for 1 file (5 B), in 1:05");
    }
}
