//! `holdfast mount`: all recovery points as directories.

mod follow;
pub mod guard;
pub mod log;
mod memory;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use clap::Args;
use holdfast_fs::mount::{Mount, MountOptions};
use holdfast_fs::recovery::StoreRecovery;
use holdfast_store::clock::Clock;
use holdfast_store::store::{Store, StoreHead};

use super::Context;
use super::status::vaults_changed;
use crate::args::values;
use crate::notify;
use crate::open::{Bounds, by_machine_key, cache_dir, open_slots, open_store_with, secret_of};
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::secrets::{PLAIN_SECRETS, Secret};
use crate::settings::process_environment;
use crate::terminal::Show;
use memory::Shares;

/// Show all recovery points as directories
///
/// Below MNT stand by-group/GROUP/SOURCE/TIME, by-id/ID and by-time/DATE, read-only, with owners, permissions and times
/// of the source. Copy out of it with cp, rsync or a file manager. New points appear while it is mounted. It runs until
/// it is unmounted or interrupted.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast mount /mnt/recovery
  holdfast mount /mnt/recovery --background
  holdfast mount ~/recovery --cache-size 50G --read-timeout 2m
  holdfast mount ~/recovery --memory 1G")]
pub struct MountArgs {
    /// An empty directory
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,
    /// Return when it is mounted
    #[arg(long)]
    background: bool,
    /// Let other users in; each file's own permissions still hold
    #[arg(long)]
    allow_other: bool,
    /// Started by --background
    #[arg(long, hide = true, conflicts_with = "background")]
    detached: bool,
    /// How long a reader waits for the vault before it gets an error
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = values::seconds)]
    read_timeout: Duration,
    /// Most that the cache of vault data may take on disk [default: as said last, at first 10G]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    cache_size: Option<u64>,
    /// Most memory that the mount may take [default: 128M]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    memory: Option<u64>,
    /// Let nobody execute a program on it
    #[arg(long)]
    no_exec: bool,
}

/// What a mount in the background says when it is there.
const READY: &str = "mounted";
/// Between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long threads may take to notice that the kernel has ended the mount.
const STUCK: Duration = Duration::from_secs(5);
/// How long a mount that was begun may take to end, before it is left alone.
const ENDS: Duration = Duration::from_secs(10);

impl MountArgs {
    /// The usual way to mount at a place.
    pub fn at(mountpoint: PathBuf) -> Self {
        let read_timeout = Duration::from_secs(60);
        Self {
            mountpoint,
            background: false,
            allow_other: false,
            detached: false,
            read_timeout,
            cache_size: None,
            memory: None,
            no_exec: false,
        }
    }

    /// How much the store of a mount may keep, in a process with few arenas: it is started again for that, so this comes first.
    pub fn prepare(&self) -> Result<Bounds, Failure> {
        let bounds = self.bounds()?;
        memory::keep_arenas_few();
        Ok(bounds)
    }

    fn bounds(&self) -> Result<Bounds, Failure> {
        let shares = self.shares()?;
        Ok(Bounds { cache: self.cache_size, memory: shares.frames, in_flight: shares.in_flight })
    }

    fn shares(&self) -> Result<Shares, Failure> {
        memory::shares(self.memory.unwrap_or(memory::DEFAULT))
    }
}

/// Mounts.
pub fn run(context: &Context<'_>, args: &MountArgs) -> Outcome {
    if args.background {
        args.shares()?;
        return in_background(context, args);
    }
    let bounds = args.prepare()?;
    // What detaches the process is done first: there is no terminal to be told anything from then on.
    if args.detached {
        nix::unistd::setsid().map_err(|e| Failure::failed(format!("cannot leave the terminal: {e}")))?;
    }
    let store = open_store_with(context, bounds)?;
    if context.terminal.cancelled() {
        return Err(Failure::interrupted());
    }
    for alert in vaults_changed(&store)? {
        context.terminal.warn(&format!("{} ({}): {}", alert.name, alert.subject, alert.what));
    }
    let mut mount = mount_store(context, Arc::new(store), args)?;
    if args.detached {
        context.terminal.line(READY)?;
    } else {
        context.terminal.say(&format!("mounted at {}; Ctrl-C unmounts", mount.mountpoint().display()))?;
    }
    serve(context, &mut mount)
}

/// Mounts an open store.
pub fn mount_store(context: &Context<'_>, store: Arc<Store>, args: &MountArgs) -> Result<Mount, Failure> {
    let shares = args.shares()?;
    let name = store.id().hex().chars().take(8).collect::<String>();
    let mut options = MountOptions::new(&args.mountpoint, name);
    options.allow_other = args.allow_other;
    options.no_exec = args.no_exec;
    options.read_timeout = args.read_timeout;
    options.records_max = shares.records;
    options.guard = guard::command();
    options.keep_clear = vec![store.dir().to_path_buf(), cache_dir(context, store.id())];
    let recovery = Arc::new(StoreRecovery::new(Arc::clone(&store), shares.pages));
    let mount = Mount::spawn(recovery, &options, Arc::clone(context.terminal.clock()))?;
    follow::reclaim(&store);
    Ok(mount)
}

/// Waits until somebody unmounts it or this process is asked to stop.
pub fn serve(context: &Context<'_>, mount: &mut Mount) -> Outcome {
    let manager = notify::Manager::named(process_environment()(notify::SOCKET));
    manager.ready(&format!("mounted at {}", mount.mountpoint().display()));
    let asked = lasts(context, mount);
    manager.stopping();
    match asked {
        true => drop(mount.unmount()?),
        false => drop(mount.wait()?),
    }
    Ok(Done::Whole)
}

/// Whether it ends because this process is asked to stop.
fn lasts(context: &Context<'_>, mount: &mut Mount) -> bool {
    let mut cut_off = None;
    while !mount.has_ended() {
        let now = context.terminal.clock().monotonic();
        if mount.is_cut_off() && now.saturating_sub(*cut_off.get_or_insert(now)) > STUCK {
            // Dropping the mount could wait for them.
            tracing::error!("it was unmounted, and threads of it are stuck; leaving them");
            // Another thread writes that.
            context.terminal.clock().pause(LOOK);
            std::process::exit(Kind::Failed.exit_code().into());
        }
        if context.terminal.cancelled() {
            return true;
        }
        mount.keep_guard();
        context.terminal.clock().pause(LOOK);
    }
    false
}

/// Starts this program again without a terminal and returns when that one has mounted.
pub fn in_background(context: &Context<'_>, args: &MountArgs) -> Outcome {
    let store = context.settings.store()?;
    let head = Store::head(store)?;
    let typed = passphrase_to_hand_on(context, &head)?;
    let log_path = context.settings.cache_dir.join(format!("mount-{}.log", &head.vault.hex()[..8]));
    let (clock, stopped) = (&**context.terminal.clock(), || context.terminal.cancelled());
    let log = log::open(&log_path, clock, &stopped);
    if stopped() {
        return Err(Failure::interrupted());
    }
    // It is the mount that is wanted, and what keeps the log from being had may be why.
    let told = |error: &std::io::Error| {
        let path = log_path.display();
        context.terminal.warn(&format!("cannot open the log {path}: {error}; the mount goes without it"));
    };
    let log = log.inspect_err(told).ok();
    let log_began = log.as_ref().and_then(|log| log.metadata().ok()).map_or(0, |meta| meta.len());
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("where is this program? {error}")))?;
    let mut command = Command::new(program);
    memory::with_few_arenas(&mut command);
    // Whoever starts this one waits for it to return.
    command.env_remove(notify::SOCKET);
    command.arg("--store").arg(store).args(["mount", "--detached", "--read-timeout"]);
    command.arg(args.read_timeout.as_secs().to_string());
    if let Some(size) = args.cache_size {
        command.arg("--cache-size").arg(size.to_string());
    }
    if let Some(size) = args.memory {
        command.arg("--memory").arg(size.to_string());
    }
    command.args(args.allow_other.then_some("--allow-other")).args(args.no_exec.then_some("--no-exec"));
    command.args(show_to_hand_on(context.terminal.show()));
    command.arg("--").arg(&args.mountpoint).stdout(Stdio::piped());
    command.stderr(log.map_or_else(Stdio::null, Stdio::from));
    if by_machine_key(context, &head).is_some() {
        // The mount may run for months; what it does not need it should not carry in its environment.
        for name in PLAIN_SECRETS {
            command.env_remove(name);
        }
    }
    match &typed {
        Some(_) => {
            for other in ["HOLDFAST_PASSWORD", "HOLDFAST_PASSWORD_COMMAND"] {
                command.env_remove(other);
            }
            command.env("HOLDFAST_PASSWORD_FILE", "/dev/stdin").stdin(Stdio::piped())
        }
        None => command.stdin(Stdio::null()),
    };
    let mut child =
        command.spawn().map_err(|error| Failure::failed(format!("cannot start the mount: {error}")))?;
    if let (Some(mut input), Some(typed)) = (child.stdin.take(), typed) {
        // If it has ended already, the log says why.
        let _ = writeln!(input, "{}", typed.reveal());
    }
    wait_until_ready(context, child, args, || log::text_after(&log_path, log_began))
}

/// `-q` or `-v`, as this process was told.
fn show_to_hand_on(show: Show) -> Vec<&'static str> {
    let quiet = show.quiet.then_some("--quiet");
    let verbose = std::iter::repeat_n("--verbose", usize::from(show.verbose));
    quiet.into_iter().chain(verbose).collect()
}

/// A secret that a person must type is asked for here, where there is a terminal; one that the command line names is read.
fn passphrase_to_hand_on(context: &Context<'_>, head: &StoreHead) -> Result<Option<Secret>, Failure> {
    let secrets = &context.settings.secrets;
    if !secrets.machine_keys(&head.vault).is_empty() || secrets.are_inherited() {
        return Ok(None);
    }
    let typed = secrets.passphrase(context.terminal)?;
    open_slots(head, &secret_of(&typed)?)?;
    Ok(Some(typed))
}

fn wait_until_ready(
    context: &Context<'_>,
    mut child: Child,
    args: &MountArgs,
    log: impl FnOnce() -> String,
) -> Outcome {
    let Some(said) = first_line(child.stdout.take(), &|| context.terminal.cancelled()) else {
        end(&mut child, &**context.terminal.clock());
        return Err(Failure::interrupted());
    };
    if said.trim_end() == READY {
        context
            .terminal
            .say(&format!("mounted at {0}; `holdfast umount {0}` ends it", args.mountpoint.display()))?;
        return Ok(Done::Whole);
    }
    // It has, or its end waits for a disk.
    let _ = log::ends(&mut child, &**context.terminal.clock(), ENDS, &|| context.terminal.cancelled());
    let status =
        child.try_wait().map_err(|error| Failure::failed(format!("lost sight of the mount: {error}")))?;
    let failure = Failure::failed(format!("the mount did not come up: {}", log().trim()));
    let kind = match status.and_then(|status| status.code()) {
        Some(10) => Kind::NoStore,
        Some(12) => Kind::WrongKey,
        _ => failure.kind,
    };
    Err(Failure { kind, ..failure })
}

/// What a child says first, empty if it ends without a word; `None` if before that somebody asks to stop. A read alone would go on
/// after a signal.
fn first_line(out: Option<ChildStdout>, stopped: &dyn Fn() -> bool) -> Option<String> {
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if let Some(out) = out {
            // Whatever goes wrong here shows as a line that is missing.
            let _ = BufReader::new(out).read_line(&mut line);
        }
        said.send(line)
    });
    loop {
        match heard.recv_timeout(LOOK) {
            Ok(line) => return Some(line),
            Err(RecvTimeoutError::Disconnected) => return Some(String::new()),
            Err(RecvTimeoutError::Timeout) if stopped() => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Asks a mount that was begun to end, and waits until it has, but not for one that hangs: it left the terminal, and hears of no Ctrl-C.
fn end(child: &mut Child, clock: &dyn Clock) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // If it has ended already, that is what was wanted.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let _ = log::ends(child, clock, ENDS, &|| false);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_store::clock::SystemClock;

    use super::*;

    #[test]
    fn a_mount_in_the_background_shows_as_much_as_this_one_was_told_to() {
        let show = |quiet, verbose| show_to_hand_on(Show { quiet, verbose, ..Show::default() });
        assert_eq!(show(false, 0), [""; 0]);
        assert_eq!(show(true, 0), ["--quiet"]);
        assert_eq!(show(false, 2), ["--verbose", "--verbose"]);
    }

    #[test]
    fn who_asks_to_stop_while_a_mount_in_the_background_comes_up_ends_both() {
        let mut child = Command::new("sleep").arg("600").stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(first_line(child.stdout.take(), &|| true), None);
        end(&mut child, &SystemClock);
        assert!(child.try_wait().unwrap().is_some());
        let says = |what| {
            let child = Command::new("echo").arg(what).stdout(Stdio::piped()).spawn().unwrap();
            let mut child = child;
            let line = first_line(child.stdout.take(), &|| false);
            child.wait().unwrap();
            line
        };
        assert_eq!((says(READY), says("").as_deref()), (Some(format!("{READY}\n")), Some("\n")));
        assert_eq!(first_line(None, &|| false).as_deref(), Some(""));
    }

    #[test]
    fn a_mount_keeps_within_its_shares_whoever_begins_it() {
        let bounds = MountArgs::at("/mnt".into()).bounds().unwrap();
        assert_eq!((bounds.memory >> 20, bounds.in_flight >> 20), (24, 16));
    }
}
