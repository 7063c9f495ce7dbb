//! Those who read: they compare every byte, and know which errors they may be told.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use holdfast_store::tree::testing::TestRandom;
use nix::errno::Errno;

use super::{AFTERMATH, FILES, LONGEST, SAMPLE, SLOW};
use crate::testkit::{Machine, drop_pages, noise};

/// A file says in its first line what it holds, so that any version of it can be checked.
pub fn content(name: &str, version: u64) -> Vec<u8> {
    let title = format!("{name} {version}\n");
    let len = 4000 + blake3::hash(title.as_bytes()).as_bytes()[0] as usize * 3000;
    let mut bytes = noise(&title, len);
    bytes[..title.len()].copy_from_slice(title.as_bytes());
    bytes
}

/// What the first line of a file says that it holds.
fn expected(name: &str, bytes: &[u8]) -> Vec<u8> {
    let title = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let title = std::str::from_utf8(title).unwrap_or_else(|_| panic!("{name} has no title"));
    let (said, version) = title.split_once(' ').unwrap_or_else(|| panic!("{name} says {title:?}"));
    assert_eq!(said, name, "a file with another's content");
    content(name, version.parse().unwrap())
}

/// Where a file of a source lies in it.
pub fn name_of(n: u64) -> String {
    format!("d{}/f{n:02}", n % 4)
}

/// What is wrong now, and when something was last.
pub struct Weather {
    trouble: Mutex<(bool, Instant)>,
    standstill: Mutex<Option<Instant>>,
    over: AtomicBool,
}

impl Weather {
    pub fn fine() -> Self {
        let trouble = Mutex::new((false, Instant::now()));
        Self { trouble, standstill: Mutex::new(None), over: AtomicBool::new(false) }
    }

    /// Says whether the way to the vault fails from now on.
    pub fn set(&self, on: bool) {
        *self.trouble.lock().unwrap() = (on, Instant::now());
    }

    /// Says that the whole machine did not run until now.
    pub fn stood_still(&self) {
        *self.standstill.lock().unwrap() = Some(Instant::now());
    }

    /// Says that all readers are to end.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether what began at `begin` may have met trouble with the vault.
    fn excuses(&self, begin: Instant) -> bool {
        let (on, at) = *self.trouble.lock().unwrap();
        on || begin < at + AFTERMATH
    }

    /// Whether time ran out for what began at `begin` while nobody could work.
    fn stood_still_since(&self, begin: Instant) -> bool {
        // Who was late is refused for a second more.
        self.standstill.lock().unwrap().is_some_and(|at| begin < at + Duration::from_secs(2))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// The points of the source that comes and goes, by their ids.
#[derive(Default)]
pub struct Churned {
    /// Those that nobody has begun to remove.
    pub there: Vec<String>,
    /// Those that somebody has.
    pub gone: Vec<String>,
}

/// What readers share.
pub struct Bed<'a> {
    pub machine: &'a Machine,
    pub root: &'a Path,
    pub weather: Weather,
    pub pause: Duration,
    pub churned: Mutex<Churned>,
    pub reads: AtomicU64,
    pub errors: AtomicU64,
    /// Of these, those of points that went.
    pub of_gone: AtomicU64,
    /// The longest look at what lies here, and at what a vault has, in milliseconds.
    pub longest: [AtomicU64; 2],
    /// Slow looks at what lies here.
    pub slow: AtomicU64,
}

/// A point that somebody looks at.
struct Seen {
    at: PathBuf,
    id: Option<String>,
}

/// One way to read a file; the bytes it saw and where they begin.
pub type HowToRead = fn(&Path, &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)>;

pub fn sequential(path: &Path, _: &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)> {
    drop_pages(&std::fs::File::open(path)?)?;
    Ok((0, std::fs::read(path)?))
}

pub fn random(path: &Path, random: &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)> {
    let file = std::fs::File::open(path)?;
    drop_pages(&file)?;
    // Not at the beginning: what begins there must be whole.
    let at = 1 + random.below(file.metadata()?.len() - 1);
    let mut bytes = vec![0; 4096];
    let len = file.read_at(&mut bytes, at)?;
    bytes.truncate(len);
    Ok((at, bytes))
}

/// By `mmap`, in another process: a page that cannot be had kills whoever touches it.
pub fn mapped(path: &Path, _: &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)> {
    let script = "import mmap, sys; f = open(sys.argv[1], 'rb'); \
                  m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sys.stdout.buffer.write(m[:])";
    piped(Command::new("python3").args(["-c", script]).arg(path))
}

pub fn direct(path: &Path, _: &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)> {
    let mut input = std::ffi::OsString::from("if=");
    input.push(path);
    piped(Command::new("dd").args(["iflag=direct", "bs=1M", "status=none"]).arg(input))
}

fn piped(command: &mut Command) -> std::io::Result<(u64, Vec<u8>)> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    if output.status.success() { Ok((0, output.stdout)) } else { Err(Errno::EIO.into()) }
}

/// Lists a tree and asks for attributes of both kinds; every name must be one that was stored.
fn walk(dir: &Path, seen: &mut u64) -> std::io::Result<()> {
    for entry in dir.read_dir()? {
        let path = entry?.path();
        let meta = path.symlink_metadata()?;
        let mut value = [0; 64];
        rustix::fs::lgetxattr(&path, "user.holdfast.source", &mut value[..])?;
        if meta.is_dir() {
            walk(&path, seen)?;
        } else {
            *seen += 1;
        }
    }
    Ok(())
}

impl Bed<'_> {
    pub fn churned(&self) -> MutexGuard<'_, Churned> {
        self.churned.lock().unwrap()
    }

    /// Reads at random until the weather is over.
    pub fn read_on(&self, seed: u64, way: HowToRead) {
        let mut chance = TestRandom::new(seed);
        while !self.weather.is_over() {
            let source = ["far", "near", "churn"][chance.below(3) as usize];
            let n = chance.below(FILES);
            self.read(source, n, way, &mut chance);
            std::thread::sleep(self.pause);
        }
    }

    /// The newest point of a source, or any of the one that comes and goes: by one path for all that a look does, since `latest` moves.
    fn point_of(&self, source: &str, chance: &mut TestRandom) -> std::io::Result<Seen> {
        if source == "churn" {
            let churned = self.churned();
            // Those that went, too: whoever looks at them is told so, or still sees all of it.
            let ids: Vec<_> = churned.there.iter().chain(churned.gone.iter().rev().take(2)).collect();
            let id = ids[chance.below(ids.len() as u64) as usize].clone();
            return Ok(Seen { at: self.root.join("by-id").join(&id), id: Some(id) });
        }
        let at = std::fs::canonicalize(self.root.join("by-group/default").join(source).join("latest"))?;
        Ok(Seen { at, id: None })
    }

    /// Looks at a point of a source; what it saw, unless there was an error that may be.
    fn look<T>(
        &self,
        source: &str,
        chance: &mut TestRandom,
        way: impl FnOnce(&Path, &mut TestRandom) -> std::io::Result<T>,
    ) -> Option<T> {
        let (begin, mut id) = (Instant::now(), None);
        let looked = self.point_of(source, chance).and_then(|seen| {
            id = seen.id;
            way(&seen.at, chance)
        });
        self.time(source, begin);
        looked.map_err(|error| self.judge(source, id.as_deref(), begin, &error)).ok()
    }

    /// Notes how long a look took that ends now, and fails if it was too long; unless nobody could work meanwhile, which may be known a
    /// moment later.
    fn time(&self, source: &str, begin: Instant) {
        let (is_far, took) = (source == "far", begin.elapsed());
        self.slow.fetch_add(u64::from(!is_far && took > SLOW), Ordering::Relaxed);
        if took > LONGEST[usize::from(is_far)] {
            std::thread::sleep(4 * SAMPLE);
            assert!(self.weather.stood_still_since(begin), "a look at {source} took {took:?}");
        } else {
            self.longest[usize::from(is_far)].fetch_max(took.as_millis() as u64, Ordering::Relaxed);
        }
    }

    pub fn read(&self, source: &str, n: u64, way: HowToRead, chance: &mut TestRandom) {
        let name = format!("{source}/{}", name_of(n));
        let looked = self.look(source, chance, |point, chance| {
            let path = point.join(name_of(n));
            let (at, bytes) = way(&path, chance)?;
            let title = if at == 0 { bytes.clone() } else { first_bytes(&path)? };
            Ok((at as usize, bytes, title))
        });
        let Some((at, bytes, title)) = looked else { return };
        let whole = expected(&name, &title);
        let end = (at + bytes.len()).min(whole.len());
        assert!(bytes == whole[at..end], "other bytes in {name} at {at}");
        let len = bytes.len();
        assert!(at > 0 || len == whole.len(), "{name} ends after {len} of {} bytes", whole.len());
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub fn walk_on(&self, seed: u64) {
        let mut chance = TestRandom::new(seed);
        while !self.weather.is_over() {
            for source in ["far", "near", "churn"] {
                let mut seen = 0;
                if self.look(source, &mut chance, |point, _| walk(point, &mut seen)).is_some() {
                    assert_eq!(seen, FILES, "{source}");
                    self.reads.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(self.pause);
            }
        }
    }

    /// Fails for an error that nothing explains. Why a thing may be an error is known a moment later at the latest.
    fn judge(&self, source: &str, id: Option<&str>, begin: Instant, error: &std::io::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let (errno, took) = (error.raw_os_error().map(Errno::from_raw), begin.elapsed());
        let is_gone = || id.is_some_and(|id| self.churned().gone.iter().any(|gone| gone == id));
        let explained = || match (source, errno) {
            ("churn", Some(Errno::ENOENT | Errno::ESTALE | Errno::EIO)) if is_gone() => true,
            ("far", Some(Errno::EIO)) if self.weather.excuses(begin) => true,
            _ => errno == Some(Errno::EIO) && self.weather.stood_still_since(begin),
        };
        if !explained() {
            std::thread::sleep(4 * SAMPLE);
            let log = self.machine.log().lines().rev().take(20).collect::<Vec<_>>().join("\n");
            assert!(explained(), "{source} {id:?}: {error} after {took:?}, and nothing was wrong:\n{log}");
        }
        self.of_gone.fetch_add(u64::from(is_gone()), Ordering::Relaxed);
    }
}

fn first_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 100];
    let len = std::fs::File::open(path)?.read_at(&mut bytes, 0)?;
    bytes.truncate(len);
    Ok(bytes)
}
