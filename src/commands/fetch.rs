//! `holdfast fetch`: a part of a point brought from a vault into the local cache, before somebody needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use holdfast_store::StoreError;
use holdfast_store::catalog::PackNo;
use holdfast_store::error::ErrorClass;
use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::reader::{BlockNo, Brought, Damaged, Frames, Reader, Request};
use serde::Serialize;

use super::Context;
use super::estimate::Needs;
use super::place::parse_place;
use super::scope::{ScopeArgs, find_node, find_point};
use crate::args::values;
use crate::json::seconds_between;
use crate::open::{Bounds, open_store_with};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::{WorkMonitor, text};

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
    /// Bytes that are wanted, however they came into the cache, and are not in it any more; none of packs that `errors` counts.
    bytes_gone: u64,
    /// Files that are not whole anywhere, requests that brought nothing, and packs of which something does not open.
    errors: u64,
    /// Seconds it took.
    seconds_elapsed: f64,
}

/// Fetches.
pub fn run(context: &Context<'_>, args: &FetchArgs) -> Outcome {
    let spec = parse_place(&args.point)?;
    let began = context.terminal.clock().now();
    let store = open_store_with(context, Bounds { cache: args.cache_size, ..Bounds::default() })?;
    let point = find_point(context, &store, &spec, &args.scope.scope())?;
    let node = find_node(&store, &point, &spec.path)?;
    let mut needs = Needs::gather(context, &store, &node, &spec.path)?;
    let all = needs.all();
    if !all.is_empty() && !store.reader().is_cache_shared() {
        return Err(StoreError::NotKept.into());
    }
    check_limit(store.reader(), all.iter().map(Request::cache_len).sum())?;
    needs.touch();
    warn_of_room(context, store.reader(), needs.requests().iter().map(Request::cache_len).sum());
    let Came { errors, incomplete, brought } = fetch_all(context, store.reader(), &needs)?;
    let absent = all.iter().filter(|request| !store.reader().is_fetched(request).unwrap_or(false));
    let fetched = Fetched {
        message_type: "summary",
        snapshot_id: point.point.id.hex(),
        total_files: needs.sums.files,
        total_bytes: needs.sums.bytes,
        requests: brought.requests,
        bytes_fetched: brought.bytes,
        bytes_gone: bytes_gone(absent.map(|request| (request.pack(), request.len())), &incomplete),
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

/// What went from the cache, of what is absent: what never came, or did not open, is told already.
fn bytes_gone(absent: impl Iterator<Item = (PackNo, u64)>, incomplete: &BTreeSet<PackNo>) -> u64 {
    absent.filter(|(pack, _)| !incomplete.contains(pack)).map(|(_, len)| len).sum()
}

/// What came.
struct Came {
    /// How many requests and packs failed because of the object that they wanted.
    errors: u64,
    /// The packs of these.
    incomplete: BTreeSet<PackNo>,
    brought: Brought,
}

/// What several threads do: requests, and what they brought opened.
struct Work<'a> {
    reader: &'a Reader,
    monitor: &'a WorkMonitor,
    requests: Vec<Request>,
    /// Files that each completes.
    files: Vec<u64>,
    packs: Vec<Pack>,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
    incomplete: Mutex<BTreeSet<PackNo>>,
    brought: Mutex<Brought>,
}

/// A pack of which something is wanted.
struct Pack {
    frames: Frames,
    /// Requests that are not done with.
    left: AtomicUsize,
    /// Bytes that are wanted, and were in the cache before.
    here: u64,
}

impl<'a> Work<'a> {
    fn of(reader: &'a Reader, monitor: &'a WorkMonitor, needs: &Needs<'_>) -> Self {
        let requests = needs.requests();
        let files = files_by_request(&requests, &needs.last_blocks);
        let (mut bytes, mut left) = (BTreeMap::<PackNo, u64>::new(), BTreeMap::<PackNo, usize>::new());
        needs.all().iter().for_each(|part| *bytes.entry(part.pack()).or_default() += part.len());
        for request in &requests {
            bytes.entry(request.pack()).and_modify(|bytes| *bytes = bytes.saturating_sub(request.len()));
            *left.entry(request.pack()).or_default() += 1;
        }
        let pack = |frames: Frames| Pack {
            left: AtomicUsize::new(left.get(&frames.pack()).copied().unwrap_or_default()),
            here: bytes.get(&frames.pack()).copied().unwrap_or_default(),
            frames,
        };
        Self {
            reader,
            monitor,
            requests,
            files,
            packs: needs.frames().into_iter().map(pack).collect(),
            stop: AtomicBool::new(false),
            failure: Mutex::default(),
            incomplete: Mutex::default(),
            brought: Mutex::default(),
        }
    }

    /// Does all of it: requests first, in their order, each pack opened by whoever ends its last one; then the packs that need none.
    fn run(&self) {
        let here: Vec<_> = self.packs.iter().filter(|pack| pack.left.load(Ordering::Relaxed) == 0).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while self.goes_on() {
                let n = next.fetch_add(1, Ordering::Relaxed);
                match (
                    self.requests.get(n),
                    self.files.get(n),
                    here.get(n.saturating_sub(self.requests.len())),
                ) {
                    (Some(request), Some(files), _) => self.fetch(request, *files),
                    (_, _, Some(pack)) => self.open(pack),
                    _ => return,
                }
            }
        };
        std::thread::scope(|scope| {
            (0..FETCHING.min(self.requests.len() + here.len())).for_each(|_| drop(scope.spawn(work)));
        });
    }

    fn goes_on(&self) -> bool {
        !self.monitor.cancelled() && !self.stop.load(Ordering::Relaxed)
    }

    fn fetch(&self, request: &Request, files: u64) {
        let mut brought = Brought::default();
        let done = self.reader.fetch(request, &mut brought);
        self.add(brought);
        match done.and_then(|()| self.reader.is_fetched(request)) {
            Ok(true) => self.monitor.event(Event::Done { files, bytes: request.len() }),
            Err(error) if is_of_object(&error) => self.tell(request.pack(), error.to_string()),
            other => self.fail(other.err().unwrap_or(StoreError::NotKept).into()),
        }
        let pack = self.packs.binary_search_by_key(&request.pack(), |pack| pack.frames.pack());
        if let Some(pack) = pack.ok().and_then(|n| self.packs.get(n))
            && pack.left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            self.open(pack);
        }
    }

    fn open(&self, pack: &Pack) {
        let mut brought = Brought::default();
        let no = pack.frames.pack();
        let opened = self.reader.open_fetched(&pack.frames, &mut brought, || self.goes_on());
        self.add(brought);
        match opened {
            Ok(None) => {}
            Ok(Some(Damaged { first, frames: 1 })) => self.tell(no, first.to_string()),
            Ok(Some(Damaged { first, frames })) => {
                self.tell(no, format!("{first}; and {} more of it", frames - 1))
            }
            Err(error) if is_of_object(&error) => self.tell(no, error.to_string()),
            Err(error) => self.fail(error.into()),
        }
        self.monitor.event(Event::Done { files: 0, bytes: pack.here });
    }

    fn add(&self, brought: Brought) {
        *self.brought.lock().unwrap_or_else(PoisonError::into_inner) += brought;
    }

    fn tell(&self, pack: PackNo, reason: String) {
        self.incomplete.lock().unwrap_or_else(PoisonError::into_inner).insert(pack);
        self.monitor.event(Event::Problem { path: Vec::new(), reason });
    }

    fn fail(&self, why: Failure) {
        self.stop.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}

/// Fetches and opens all.
fn fetch_all(context: &Context<'_>, reader: &Reader, needs: &Needs<'_>) -> Result<Came, Failure> {
    let monitor = context.terminal.monitor();
    let bytes_total = needs.all().iter().map(Request::len).sum();
    monitor.event(Event::Stage { name: "fetch", files_total: needs.sums.files, bytes_total });
    let work = Work::of(reader, &monitor, needs);
    let here = needs.sums.files - needs.sums.lost - work.files.iter().sum::<u64>();
    monitor.event(Event::Done { files: here, bytes: 0 });
    work.run();
    if let Some(error) = work.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    if monitor.cancelled() {
        return Err(
            Failure::interrupted().hint("what was fetched stays; the same command goes on from there")
        );
    }
    Ok(Came {
        errors: monitor.problems(),
        incomplete: work.incomplete.into_inner().unwrap_or_else(PoisonError::into_inner),
        brought: work.brought.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
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
    let errors = match fetched.errors {
        0 => String::new(),
        n => format!("; {}, told above", text::count(n, "error")),
    };
    match (fetched.requests, fetched.errors) {
        (0, 0) => return format!("nothing to fetch: no vault is needed for {files}"),
        (0, _) => return format!("nothing was fetched for {files}{errors}"),
        _ => {}
    }
    let (bytes, requests) = (text::size(fetched.bytes_fetched), text::count(fetched.requests, "request"));
    let time = text::duration(fetched.seconds_elapsed as u64);
    format!("fetched {bytes} in {requests} for {files}, in {time}{errors}")
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
        let damaged = Fetched { errors: 2, ..some };
        assert!(render(&damaged).ends_with("for 1 file (5 B), in 1:05; 2 errors, told above"));
        let lost = Fetched { errors: 1, requests: 0, ..damaged };
        assert_eq!(render(&lost), "nothing was fetched for 1 file (5 B); 1 error, told above");
    }

    #[test]
    fn what_went_from_the_cache_is_told_also_where_something_else_never_came() {
        let absent = [(PackNo(1), 5), (PackNo(2), 7)];
        assert_eq!(bytes_gone(absent.into_iter(), &BTreeSet::new()), 12);
        assert_eq!(bytes_gone(absent.into_iter(), &BTreeSet::from([PackNo(1)])), 7);
    }
}
