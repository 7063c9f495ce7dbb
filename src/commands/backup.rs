//! `holdfast backup`: a recovery point of each path.

mod choice;
mod shown;

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_backup::agenda::{Task, Work};
use holdfast_backup::bandwidth::Rate;
use holdfast_backup::config::Group;
use holdfast_backup::protect::{Protected, Request, protect};
use holdfast_backup::source::exclude::Exclude;
use holdfast_backup::source::{DirectorySource, WalkOptions};
use holdfast_backup::source_name::{KnownSource, choose_name};
use holdfast_store::point::SourceName;
use holdfast_store::seal::Compression;
use holdfast_store::store::{Store, StoredPoint};
use jiff::tz::TimeZone;

use self::choice::{ChoiceArgs, KeepArgs};
use self::shown::{Taken, show};
use super::Context;
use super::configured::{self, NamedSource};
use super::upload::{Upload, Wanted};
use crate::args::values;
use crate::daemon::through_daemon;
use crate::hooks::{self, Manner};
use crate::open::{cache_dir, open_store_to_write};
use crate::outcome::{Done, Failure, Failures, Outcome};
use crate::terminal::WorkMonitor;

/// Take a recovery point of each path, or of all that the configuration protects
///
/// Without a PATH the groups of the configuration are taken (--group: one of them), as they are described there. Each PATH
/// becomes a data source with a recovery point of its own. A source's name is made from its path
/// (/home/me/Documents is home-me-Documents) and stays the same from point to point; --as gives another. Files that did
/// not change since the point before are not read again. A file that cannot be read is reported, the rest is kept, the
/// point is marked partial, and the exit code is 3.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast backup ~/Documents
  holdfast backup --group web --online      what the configuration says of this group
  holdfast backup /etc /srv/www --group web --online
  holdfast backup / --as root-disk --one-file-system --exclude-caches
  holdfast backup /home --exclude '*.tmp' --exclude-larger-than 2G --tag before-upgrade
  holdfast backup --group web --keep-for 30d    kept for so long, whatever the rules say")]
pub struct BackupArgs {
    /// Directories or files to protect
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Name of the data source, for a single PATH
    #[arg(long = "as", value_name = "NAME", value_parser = values::name, requires = "paths")]
    name: Option<String>,
    /// Protection group that the source belongs to; "default" for a PATH, without one all of the configuration
    #[arg(long, value_name = "GROUP", value_parser = values::name)]
    group: Option<String>,
    /// Put the point into the vaults too, and wait until it is there; of groups of the configuration also what a vault
    /// missed that was away
    #[arg(long)]
    online: bool,
    /// Send at most so many bytes a second to all vaults together (K, M, G), or "unlimited", whatever the configuration says
    #[arg(long, value_name = "BYTES", requires = "online")]
    limit_upload: Option<Rate>,
    /// A word to find the point by; may be repeated
    #[arg(long = "tag", value_name = "TAG", value_parser = values::tag)]
    tags: Vec<String>,
    #[command(flatten)]
    keep: KeepArgs,
    /// Machine the source belongs to, if not this one
    #[arg(long, value_name = "HOST", value_parser = values::name)]
    host: Option<String>,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Read every file again, changed or not
    #[arg(long)]
    force: bool,
    /// off, auto, max, or a zstd level from 1 to 19
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = values::compression)]
    compression: Compression,
}

/// The group of what is protected by its path, where no other is named.
pub const DEFAULT_GROUP: &str = "default";

/// What one point is to be taken of.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    group: String,
    name: String,
    /// Rules that it has already; those of the command line are added.
    exclude: Exclude,
    /// What the point is by what ran before it.
    manner: Manner,
    /// Vaults on which it may rely, for it goes there: none, or all where no address is given.
    relies_on: Option<Vec<String>>,
    /// From when on the point may expire, if it has a time of its own.
    expires: Option<i64>,
}

/// Takes the points, one source after the other.
pub fn run(context: &Context<'_>, args: &BackupArgs) -> Outcome {
    if args.name.is_some() && args.paths.len() > 1 {
        return Err(Failure::usage("--as names one data source, and there are several paths"));
    }
    let expires = expires(context, args)?;
    if args.paths.is_empty() {
        let all = configured::groups(context, args.group.as_deref(), "name a PATH")?;
        let mut groups = all.clone();
        if args.group.is_none() {
            // All that goes on.
            groups.retain(|group| group.stopped.is_none());
            if groups.is_empty() {
                return all_stopped(context, &all);
            }
        }
        groups.iter().try_for_each(|group| refuse_stopped(group))?;
        if args.is_as_configured()
            && let Some(done) = through_daemon(context, &args.tasks(&groups))?
        {
            return Ok(done);
        }
        let store = open_store_to_write(context, host(context, args))?;
        let (points, host) = (store.points()?, host(context, args));
        let mut taken = hooks::Taken::default();
        for group in &groups {
            hooks::around(context, &store, group, &mut taken, |manner, taken| {
                let targets = targets_of_group(&points, host, group).into_iter();
                take_all(
                    context,
                    &store,
                    targets.map(|target| Target { manner, expires, ..target }),
                    args,
                    taken,
                )
            })?;
        }
        return push_and_end(context, &store, taken, groups, args);
    }
    if let (Some(name), Ok(Some(config))) = (&args.group, context.settings.config_if_any()) {
        config.groups.iter().filter(|group| group.name == *name).try_for_each(refuse_stopped)?;
    }
    let paths = args.paths.iter().map(|path| existing(path)).collect::<Result<Vec<_>, _>>()?;
    let store = open_store_to_write(context, host(context, args))?;
    let mut targets = targets_of_paths(context, &store, paths, args)?;
    targets.iter_mut().for_each(|target| target.expires = expires);
    take_and_push(context, &store, targets, args)
}

/// All is as the configuration has it, so it is no failure, and nothing was taken, so it is told.
fn all_stopped(context: &Context<'_>, groups: &[&Group]) -> Outcome {
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let names = names.join(", ");
    context.terminal.warn(&format!(
        "protection of all groups is stopped ({names}): nothing is taken. `holdfast protect resume GROUP` has one go on"
    ));
    Ok(Done::Whole)
}

/// Of a group that takes no more points.
fn refuse_stopped(group: &Group) -> Result<(), Failure> {
    if group.stopped.is_none() {
        return Ok(());
    }
    let failure =
        Failure::failed(format!("protection of {} is stopped: it takes no more points", group.name));
    Err(failure.hint(format!("`holdfast protect resume {}` has it go on", group.name)))
}

/// By the calendar of the configuration, where there is one.
fn expires(context: &Context<'_>, args: &BackupArgs) -> Result<Option<i64>, Failure> {
    if args.keep.is_empty() {
        return Ok(None);
    }
    let zone = context.settings.config_if_any()?.map_or_else(TimeZone::system, configured::zone_of);
    args.keep.expires(context.terminal.clock().now(), &zone)
}

/// A point of one directory with everything as usual, put into the vaults.
pub fn usual(context: &Context<'_>, store: &Store, dir: &Path) -> Outcome {
    let args = BackupArgs::usual();
    let targets = targets_of_paths(context, store, vec![existing(dir)?], &args)?;
    take_and_push(context, store, targets, &args)
}

fn targets_of_group(points: &[StoredPoint], host: &str, group: &Group) -> Vec<Target> {
    let online = group.online.as_ref().filter(|_| group.local.is_none());
    let of_source = |NamedSource { source, path, name }: NamedSource<'_>| {
        let relies_on = online.map(|tier| tier.vaults.clone());
        Target { exclude: source.exclude.clone(), relies_on, ..Target::of(path, &group.name, name) }
    };
    configured::named_sources(points, host, group).into_iter().map(of_source).collect()
}

fn targets_of_paths(
    context: &Context<'_>,
    store: &Store,
    paths: Vec<PathBuf>,
    args: &BackupArgs,
) -> Result<Vec<Target>, Failure> {
    let group = args.group.as_deref().unwrap_or(DEFAULT_GROUP);
    let mut known = configured::known_sources(&store.points()?, host(context, args), group);
    let relies_on = args.online.then(Vec::new);
    let of_path = |path| {
        let relies_on = relies_on.clone();
        Target { relies_on, ..target(path, group, args.name.as_deref(), &mut known) }
    };
    Ok(paths.into_iter().map(of_path).collect())
}

fn host<'a>(context: &'a Context<'_>, args: &'a BackupArgs) -> &'a str {
    args.host.as_deref().unwrap_or(&context.settings.host)
}

/// Takes a point of each target and tells of it, and only then puts them into the vaults: nothing that is to be protected waits
/// for a vault. What fails keeps nothing else from being done.
fn take_and_push(context: &Context<'_>, store: &Store, targets: Vec<Target>, args: &BackupArgs) -> Outcome {
    let mut taken = hooks::Taken::default();
    take_all(context, store, targets.into_iter(), args, &mut taken)?;
    push_and_end(context, store, taken, Vec::new(), args)
}

fn take_all(
    context: &Context<'_>,
    store: &Store,
    targets: impl Iterator<Item = Target>,
    args: &BackupArgs,
    taken: &mut hooks::Taken,
) -> Result<(), Failure> {
    for target in targets {
        taken.points.extend(taken.failures.note(take_and_show(context, store, target, args))?);
    }
    Ok(())
}

/// What is pending of these groups goes into the vaults with what was taken.
fn push_and_end(
    context: &Context<'_>,
    store: &Store,
    taken: hooks::Taken,
    pending: Vec<&Group>,
    args: &BackupArgs,
) -> Outcome {
    let hooks::Taken { points: also, mut failures } = taken;
    let partial = also.iter().any(|stored| stored.point.errors_total > 0);
    if args.online && !(also.is_empty() && pending.is_empty()) {
        let wanted = Wanted { pending, also, all: false, limit: args.limit_upload };
        push_everywhere(context, store, &wanted, &mut failures)?;
    }
    failures.or(if partial { Done::Partial } else { Done::Whole })
}

fn take_and_show(
    context: &Context<'_>,
    store: &Store,
    target: Target,
    args: &BackupArgs,
) -> Result<StoredPoint, Failure> {
    let monitor = context.terminal.monitor();
    let taken = take_point(context, store, target, args, &monitor)?;
    drop(monitor);
    show(context.terminal, &taken)?;
    Ok(taken.stored)
}

impl BackupArgs {
    /// Whether it is what a daemon does when it is time.
    fn is_as_configured(&self) -> bool {
        let usual = Self::usual();
        let same = (self.force, self.compression) == (usual.force, usual.compression);
        let same = same && self.tags.is_empty() && self.host.is_none() && self.choice.is_empty();
        same && self.limit_upload.is_none() && self.keep.is_empty()
    }

    fn tasks(&self, groups: &[&Group]) -> Vec<Task> {
        let all = |work| groups.iter().map(move |group| Task { work, group: Some(group.name.clone()) });
        all(Work::Take).chain(all(Work::Push).filter(|_| self.online)).collect()
    }

    fn usual() -> Self {
        Self {
            paths: Vec::new(),
            name: None,
            group: None,
            online: true,
            limit_upload: None,
            tags: Vec::new(),
            keep: KeepArgs::default(),
            host: None,
            choice: ChoiceArgs::default(),
            force: false,
            compression: Compression::Zstd(3),
        }
    }
}

/// The absolute path without symbolic links, so that one directory is one source however it was named.
fn existing(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|error| Failure::io("find", path, &error))
}

fn target(path: PathBuf, group: &str, given: Option<&str>, known: &mut Vec<KnownSource>) -> Target {
    let raw = path.as_os_str().as_bytes().to_vec();
    let name = given.map_or_else(|| choose_name(&raw, known), str::to_owned);
    known.push(KnownSource { name: name.clone(), path: raw });
    Target::of(path, group, name)
}

impl Target {
    fn of(path: PathBuf, group: &str, name: String) -> Self {
        let (exclude, manner) = (Exclude::default(), Manner::default());
        Self { path, group: group.to_owned(), name, exclude, manner, relies_on: None, expires: None }
    }
}

fn take_point(
    context: &Context<'_>,
    store: &Store,
    mut target: Target,
    args: &BackupArgs,
    monitor: &WorkMonitor,
) -> Result<Taken, Failure> {
    args.choice.add_rules(&mut target.exclude)?;
    let options = WalkOptions {
        exclude: target.exclude,
        never_enter: own_directories(context, store),
        ..WalkOptions::default()
    };
    let request = Request {
        source: SourceName { host: host(context, args).to_owned(), group: target.group, source: target.name },
        path: target.path.as_os_str().as_bytes().to_vec(),
        tags: args.tags.iter().cloned().chain(target.manner.tag.map(str::to_owned)).collect(),
        read_all: args.force,
        consistency: target.manner.consistency,
        expires: target.expires,
        readers: 0,
        tool: concat!("holdfast ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let session = match target.relies_on {
        None => store.begin(args.compression, monitor)?,
        Some(vaults) => {
            let source = &request.source;
            let tag = store.sealer().source_tag(&source.host, &source.group, &source.source);
            let goes_into = |vault: &str| vaults.is_empty() || vaults.iter().any(|named| named == vault);
            store.begin_online(&tag, &goes_into, args.compression, monitor)?
        }
    };
    let protected = protect(session, &DirectorySource::new(&target.path, options), &request, monitor)?;
    let Protected { stored, files_new, files_changed } = protected;
    Ok(Taken { stored, files_new, files_changed })
}

/// Puts points into every vault of the store; without a vault that is a failure.
fn push_everywhere(
    context: &Context<'_>,
    store: &Store,
    wanted: &Wanted<'_>,
    failures: &mut Failures,
) -> Result<(), Failure> {
    if store.vaults().is_empty() {
        let failure = Failure::failed("the store has no vault").hint("`holdfast vault add URL` adds one");
        return failures.note(Err(failure)).map(|_: Option<()>| ());
    }
    let monitor = context.terminal.monitor_after_result();
    let mut upload = Upload::new(context, store, &monitor);
    upload.push(wanted)?;
    let arrived = upload.arrived()?;
    for failure in upload.failures {
        failures.note(Err(failure)).map(|_: Option<()>| ())?;
    }
    drop(monitor);
    arrived.iter().try_for_each(|id| context.terminal.say(&format!("recovery point {} vaulted", id.short())))
}

/// The store's own directories: its staging with its annexes, its cache and its vaults on this machine are never taken into it. Mounts
/// of ours are recognised by the walk.
pub fn own_directories(context: &Context<'_>, store: &Store) -> HashSet<(u64, u64)> {
    let vaults =
        store.vaults().iter().filter(|(_, address, _)| address.starts_with('/')).map(|v| PathBuf::from(&v.1));
    let annexes = store.staging().annexes();
    let annexes = annexes.iter().map(|annex| annex.path.clone());
    let own =
        [store.dir().to_path_buf(), cache_dir(context, store.id())].into_iter().chain(annexes).chain(vaults);
    own.filter_map(|dir| std::fs::metadata(dir).ok()).map(|meta| (meta.dev(), meta.ino())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::commands::testing::stored_point;

    #[test]
    fn two_paths_of_one_run_never_share_a_name() {
        let mut known = Vec::new();
        let names = ["/a/b", "/a-b"].map(|path| target(path.into(), "g", None, &mut known).name);
        assert_eq!(names, ["a-b", "a-b-2"]);
    }

    #[test]
    fn a_source_keeps_its_name_and_only_its_own_group_counts() {
        let points = [stored_point(1, "docs", 1)];
        let mut known = configured::known_sources(&points, "host", "group");
        assert_eq!(configured::known_sources(&points, "host", "other"), []);
        assert_eq!(target("/srv/docs".into(), "group", None, &mut known).name, "docs");
        assert_eq!(target("/x".into(), "group", Some("given"), &mut known).name, "given");
    }
}
