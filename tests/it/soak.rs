//! Many readers of every kind on one mount of two tiers, for a long time: the vault's way fails again and again, points come, expire and
//! are freed beside them. Every byte is compared. Errors are allowed while something is wrong and a moment after; wrong bytes never; and the
//! mount's memory, threads and descriptors must not grow once it is warm.
//!
//! A minute by default; `HOLDFAST_SOAK=3600` for an hour. `HOLDFAST_SEED` repeats a run's choices, as far as clocks let it.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::testing::{HttpFault, Verb};
use nix::errno::Errno;

use crate::cloud::{Cloud, Way};
use crate::testkit::{
    Machine, Mounted, PASSPHRASE, Ran, can_mount, descriptors, drop_pages, figure, noise, number,
};

/// Seconds without a wish. Readers then pause between two reads, for other tests run beside them.
const SECONDS: u64 = 45;
const PAUSE: Duration = Duration::from_millis(20);
/// Longest time to an answer on the mount, in seconds.
const BOUND: u64 = 3;
/// An error may come so long after a fault: what began to wait then, what is refused for a moment, what is tried again.
const AFTERMATH: Duration = Duration::from_secs(2 * BOUND + 6);
/// Files of a source.
const FILES: u64 = 30;
/// Samples of the mount's size are so far apart.
const SAMPLE: Duration = Duration::from_millis(500);

/// A file says in its first line what it holds, so that any version of it can be checked.
fn content(name: &str, version: u64) -> Vec<u8> {
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

fn name_of(n: u64) -> String {
    format!("d{}/f{n:02}", n % 4)
}

/// Takes a point of `source` with a new version of each file in `changed`.
fn back_up(machine: &Machine, source: &str, version: u64, changed: &[u64], options: &[&str]) -> Ran {
    let dir = machine.path(source);
    for n in changed {
        let path = dir.join(name_of(*n));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content(&format!("{source}/{}", name_of(*n)), version)).unwrap();
    }
    let mut command = machine.online(["backup", "--as", source]);
    Ran::of(command.args(options).arg(&dir))
}

/// What is wrong now, and when something was last.
struct Weather {
    trouble: Mutex<(bool, Instant)>,
    over: AtomicBool,
}

impl Weather {
    fn lock(&self) -> MutexGuard<'_, (bool, Instant)> {
        self.trouble.lock().unwrap()
    }

    fn set(&self, on: bool) {
        *self.lock() = (on, Instant::now());
    }

    /// Whether what began at `begin` may have met trouble.
    fn excuses(&self, begin: Instant) -> bool {
        let (on, at) = *self.lock();
        on || begin < at + AFTERMATH
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// What readers share.
struct Bed<'a> {
    root: &'a Path,
    weather: &'a Weather,
    pause: Duration,
    reads: AtomicU64,
    errors: AtomicU64,
}

/// One way to read a file; the bytes it saw and where they begin.
type HowToRead = fn(&Path, &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)>;

fn sequential(path: &Path, _: &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)> {
    drop_pages(&std::fs::File::open(path)?)?;
    Ok((0, std::fs::read(path)?))
}

fn random(path: &Path, random: &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)> {
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
fn mapped(path: &Path, _: &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)> {
    let script = "import mmap, sys; f = open(sys.argv[1], 'rb'); \
                  m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sys.stdout.buffer.write(m[:])";
    piped(Command::new("python3").args(["-c", script]).arg(path))
}

fn direct(path: &Path, _: &mut TestRandom) -> std::io::Result<(u64, Vec<u8>)> {
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
    /// Reads at random until the weather is over. What expires meanwhile may be gone.
    fn read_on(&self, seed: u64, way: HowToRead) {
        let mut chance = TestRandom::new(seed);
        while !self.weather.is_over() {
            let source = ["far", "near", "churn"][chance.below(3) as usize];
            let n = chance.below(FILES);
            self.read(source, n, way, &mut chance);
            std::thread::sleep(self.pause);
        }
    }

    fn read(&self, source: &str, n: u64, way: HowToRead, chance: &mut TestRandom) {
        let begin = Instant::now();
        let name = format!("{source}/{}", name_of(n));
        // One path for all that this look does: `latest` moves.
        let at = self.root.join("by-group/default").join(source);
        let seen = std::fs::canonicalize(at.join("latest"))
            .map(|point| point.join(name_of(n)))
            .and_then(|path| Ok((way(&path, chance)?, path)));
        match seen {
            Ok(((at, bytes), path)) => {
                let title = if at == 0 { Ok(bytes.clone()) } else { first_bytes(&path) };
                let Ok(title) = title else { return };
                let whole = expected(&name, &title);
                let end = (at as usize + bytes.len()).min(whole.len());
                assert!(bytes == whole[at as usize..end], "other bytes in {name} at {at}");
                assert!(
                    at > 0 || bytes.len() == whole.len(),
                    "{name} ends after {} of {} bytes",
                    bytes.len(),
                    whole.len()
                );
                self.reads.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.judge(&name, source == "churn", begin, &error),
        }
    }

    fn walk_on(&self) {
        while !self.weather.is_over() {
            for source in ["far", "near", "churn"] {
                let (begin, mut seen) = (Instant::now(), 0);
                let at = self.root.join("by-group/default").join(source).join("latest");
                match std::fs::canonicalize(at).and_then(|point| walk(&point, &mut seen)) {
                    Ok(()) => assert_eq!(seen, FILES, "{source}"),
                    Err(error) => self.judge(source, source == "churn", begin, &error),
                }
                self.reads.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(self.pause);
            }
        }
    }

    fn judge(&self, what: &str, may_be_gone: bool, begin: Instant, error: &std::io::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let errno = error.raw_os_error().map(Errno::from_raw);
        let gone = matches!(errno, Some(Errno::ENOENT | Errno::ESTALE | Errno::EIO)) && may_be_gone;
        let excused = errno == Some(Errno::EIO) && what.starts_with("far") && self.weather.excuses(begin);
        assert!(gone || excused, "{what}: {error} after {:?}, and nothing was wrong", begin.elapsed());
    }
}

fn first_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 100];
    let len = std::fs::File::open(path)?.read_at(&mut bytes, 0)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Makes the vault's way fail in turns until the end.
fn rain(cloud: &Cloud, weather: &Weather, seed: u64, until: Instant) {
    let mut chance = TestRandom::new(seed);
    while Instant::now() < until {
        weather.set(true);
        let spoil = |fault| cloud.proxy.spoil(Verb::Get, 20, fault);
        match chance.below(8) {
            0 => cloud.gate.set(Way::Silent),
            1 => cloud.gate.set(Way::Shut),
            2 => cloud.gate.set(Way::Slow(Duration::from_millis(200))),
            3 => spoil(HttpFault::Refuse(500, "InternalError", 0)),
            4 => spoil(HttpFault::CutAnswer),
            5 => spoil(HttpFault::ShortLying),
            6 => spoil(HttpFault::FlipAnswer),
            _ => spoil(HttpFault::LoseAnswer),
        }
        std::thread::sleep(Duration::from_millis(500 + chance.below(3500)));
        cloud.gate.set(Way::Open);
        cloud.proxy.forgive();
        weather.set(false);
        std::thread::sleep(Duration::from_millis(500 + chance.below(4000)));
    }
}

/// Takes points, expires them and frees their packs, until the end; how many of each.
fn churn(machine: &Machine, seed: u64, until: Instant) -> (u64, u64) {
    let mut chance = TestRandom::new(seed);
    let (mut points, mut prunes) = (0, 0);
    for version in 2.. {
        if Instant::now() >= until {
            break;
        }
        let changed: Vec<u64> = (0..FILES).filter(|_| chance.below(3) == 0).collect();
        points += u64::from(back_up(machine, "churn", version, &changed, &[]).code() == 0);
        if chance.below(3) == 0 {
            let forget = ["forget", "--source", "churn", "--keep-last", "3", "--yes"];
            assert!([0, 1].contains(&Ran::of(&mut machine.online(forget)).code()));
            prunes += u64::from(Ran::of(&mut machine.online(["prune"])).code() == 0);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    (points, prunes)
}

/// Memory in KiB, threads, descriptors.
fn size_of(pid: i32) -> [u64; 3] {
    let of = |name| figure(pid, "status", name);
    [of("VmRSS:"), of("Threads:"), descriptors(pid) as u64]
}

/// The most of each size in some samples.
fn most(samples: &[[u64; 3]]) -> [u64; 3] {
    samples.iter().fold([0; 3], |most, sample| std::array::from_fn(|i| most[i].max(sample[i])))
}

/// A machine with a point of `far` that only the vault has, and points of `near` and `churn` that only it has.
fn two_tiers(url: &str) -> Machine {
    let first = Machine::with_store();
    let all: Vec<u64> = (0..FILES).collect();
    Ran::of(&mut first.online(["vault", "add", url])).expect_code(0);
    back_up(&first, "far", 1, &all, &["--online"]).expect_code(0);
    let machine = Machine::recovering();
    let mut command = machine.online(["recover", "--machine-key", url]);
    Ran::of(command.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    for source in ["near", "churn"] {
        back_up(&machine, source, 1, &all, &[]).expect_code(0);
    }
    machine
}

/// Says how it goes, also when the test succeeds.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

#[test]
fn a_mount_serves_everybody_for_a_long_time_whatever_its_vault_does() {
    let test = "a_mount_serves_everybody_for_a_long_time_whatever_its_vault_does";
    let Some(cloud) = Cloud::start("soak").filter(|_| can_mount(test)) else { return };
    let (seconds, seed) = (number("HOLDFAST_SOAK", SECONDS), number("HOLDFAST_SEED", 20_261_121));
    tell(&format!("soak of {seconds} s, seed {seed}"));
    let machine = two_tiers(&cloud.url());
    // A cache that holds half of it, so that the vault is asked again and again.
    let options = ["--read-timeout", &BOUND.to_string(), "--cache-size", "6M"];
    let mount = machine.mount_online("recovery", &options);
    let weather = Weather { trouble: Mutex::new((false, Instant::now())), over: AtomicBool::new(false) };
    let bed = Bed {
        root: mount.path(),
        weather: &weather,
        pause: if seconds == SECONDS { PAUSE } else { Duration::ZERO },
        reads: AtomicU64::new(0),
        errors: AtomicU64::new(0),
    };
    let (samples, churned) = serve(&machine, &mount, &cloud, &bed, (seconds, seed));
    let warm = samples.len() / 2;
    let (first, second) = (most(&samples[..warm]), most(&samples[warm..]));
    let (reads, errors) = (bed.reads.load(Ordering::SeqCst), bed.errors.load(Ordering::SeqCst));
    tell(&format!("soak: {reads} reads, {errors} errors, (points, prunes) {churned:?}"));
    tell(&format!(
        "soak: [KiB, threads, descriptors] at most {first:?} in the first half, {second:?} in the second"
    ));
    assert!(reads > 10 * seconds, "{reads} reads prove little");
    assert!(second[0] < first[0] * 5 / 4 + (16 << 10), "memory grows");
    assert!(second[1] <= first[1] + 4, "threads grow");
    // 64 packs in staging are kept open, and some connections.
    assert!(second[2] <= first[2].max(112) + 16, "descriptors grow");
    mount.umount();
    Ran::of(&mut machine.online(["check"])).expect_code(0);
}

type Samples = Vec<[u64; 3]>;

fn serve(
    machine: &Machine,
    mount: &Mounted<'_>,
    cloud: &Cloud,
    bed: &Bed<'_>,
    (seconds, seed): (u64, u64),
) -> (Samples, (u64, u64)) {
    let pid = mount.processes()[0];
    let until = Instant::now() + Duration::from_secs(seconds);
    let ways: [HowToRead; 7] = [sequential, sequential, sequential, random, random, mapped, direct];
    std::thread::scope(|scope| {
        let readers: Vec<_> = ways
            .into_iter()
            .zip(1..)
            .map(|(way, n)| scope.spawn(move || bed.read_on(seed + n, way)))
            .chain([scope.spawn(|| bed.walk_on())])
            .collect();
        let churning = scope.spawn(|| churn(machine, seed + 100, until));
        let raining = scope.spawn(|| rain(cloud, bed.weather, seed + 200, until));
        let mut samples = Vec::new();
        while Instant::now() < until && !readers.iter().any(|reader| reader.is_finished()) {
            samples.push(size_of(pid));
            std::thread::sleep(SAMPLE);
        }
        raining.join().unwrap();
        let churned = churning.join().unwrap();
        // After the last fault all is well again, and stays so.
        std::thread::sleep(AFTERMATH + Duration::from_secs(2));
        bed.weather.over.store(true, Ordering::SeqCst);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        let mut chance = TestRandom::new(seed);
        for (source, n) in ["far", "near", "churn"].iter().flat_map(|s| (0..FILES).map(move |n| (s, n))) {
            let before = bed.errors.load(Ordering::SeqCst);
            bed.read(source, n, sequential, &mut chance);
            assert_eq!(
                bed.errors.load(Ordering::SeqCst),
                before,
                "{source} {n} after the end of all trouble"
            );
        }
        (samples, churned)
    })
}
