//! A run: machines are given work, are let on one at a time, crash, sleep and come back; then all is well again, and everything must come to
//! its end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_backup::config::TierName;
use holdfast_store::clock::{ManualClock, Timestamp};
use holdfast_store::copy;
use holdfast_store::format::config::{ChunkerParams, StoreConfig};
use holdfast_store::id::VaultId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::names::{self, Named};
use holdfast_store::reclaim::{Place, Terms, Verdict, plan};
use holdfast_store::scrub::rotation::Wanted;
use holdfast_store::seal::Sealer;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::slots::{KdfParams, KeySlot, Secret};
use holdfast_store::store::{Store, StoreOptions};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::Vault;
use holdfast_store::vault::memory::MemoryVault;

use crate::doors::Dice;
use crate::expiry::Expiry;
use crate::life::{Image, Life, PROCESSES, Process, copy as copy_dir};
use crate::machine::{Blocks, Came, Protected, Work, Worker, terms};
use crate::policy::Policy;
use crate::rot::Rot;
use crate::swarm::Swarm;
use crate::truth::{ON_ITS_WAY_OUT, OTHER, Truth, recover};
use crate::world::{BEGINNING, World};

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// A number that stands for all that happened.
    pub trace: String,
    /// All that happened, if it was to be kept.
    pub told: Vec<String>,
    /// What must not be.
    pub wrong: Vec<String>,
    /// Requests and waits.
    pub steps: u64,
    /// Points that were taken and not removed: on machines, and in the vault.
    pub points: (usize, usize),
    /// What failed, as it was told.
    pub failures: usize,
    /// Something rotted, and later went where it was whole.
    pub lost: bool,
}

impl Run {
    /// One that panicked.
    pub fn broken() -> Self {
        let wrong = vec!["it panicked".into()];
        Self {
            trace: String::new(),
            told: Vec::new(),
            wrong,
            steps: 0,
            points: (0, 0),
            failures: 0,
            lost: false,
        }
    }
}

/// A machine between its lives.
struct Machine {
    life: Arc<Life>,
    lives: u64,
    skew: i64,
    sources: Vec<Protected>,
    /// It has no store: it is to be made from the vault.
    is_bare: bool,
}

/// A process that works.
struct Running {
    process: Arc<Process>,
    came: Arc<Mutex<Option<Came>>>,
    thread: JoinHandle<()>,
    beaten: Duration,
}

struct Director<'a> {
    seed: u64,
    random: TestRandom,
    room: &'a Path,
    world: Arc<World>,
    vault: Arc<MemoryVault>,
    ring: Arc<KeyRing>,
    truth: Arc<Mutex<Truth>>,
    blocks: Blocks,
    policies: Vec<Policy>,
    machines: Vec<Machine>,
    rot: Rot,
    lost: bool,
    torn: BTreeSet<usize>,
    told_torn: BTreeSet<usize>,
    running: BTreeMap<usize, Running>,
    wrong: Vec<String>,
    failures: usize,
    last: Option<Came>,
    is_healthy: bool,
}

/// Between two signs of life of a session.
const BEAT_EVERY: Duration = Duration::from_secs(600);
/// After so many steps the truth is looked at.
const LOOK_EVERY: u64 = 400;
/// So often all machines look for what rotted, when all is well again.
const ROUNDS: usize = 5;
/// A world that does not come to its end within so many steps hangs.
const STEPS_MAX: u64 = 200_000;

/// Runs the world that follows from a seed.
pub fn run(seed: u64, tell: bool) -> Run {
    let mut random = TestRandom::new(seed);
    let swarm = Swarm::draw(&mut random);
    let room = tempfile::tempdir_in(room()).expect("there is room");
    let mut director = Director::new(seed, random, swarm, room.path(), tell);
    director.trouble();
    director.healthy();
    let (trace, told) = director.world.trace();
    let points = director.truth().counts();
    Run {
        trace,
        told,
        wrong: director.wrong,
        steps: director.world.steps(),
        points,
        failures: director.failures,
        lost: director.lost,
    }
}

/// A directory in memory, where there is one: catalogs are synced often.
fn room() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

impl<'a> Director<'a> {
    fn new(seed: u64, mut random: TestRandom, swarm: Swarm, room: &'a Path, tell: bool) -> Self {
        let vault = Arc::new(MemoryVault::with_page_len(50));
        let machines = swarm.machines;
        let world = World::new(seed, swarm, machines * PROCESSES, vault.clone(), tell);
        let ring = Arc::new(KeyRing::fixed(seeded(seed, "key")));
        let id = VaultId(seeded(seed, "vault")[..16].try_into().expect("16 bytes"));
        create(&room.join("first"), id, &ring, seed);
        let blocks = Blocks::new(&mut random);
        let policies = (0..1 + random.below(3)).map(|_| Policy::draw(&mut random)).collect();
        let mut director = Self {
            seed,
            random,
            room,
            world,
            vault,
            ring,
            truth: Arc::default(),
            blocks,
            policies,
            machines: Vec::new(),
            rot: Rot::default(),
            lost: false,
            torn: BTreeSet::new(),
            told_torn: BTreeSet::new(),
            running: BTreeMap::new(),
            wrong: Vec::new(),
            failures: 0,
            last: None,
            is_healthy: false,
        };
        director.prepare_vault();
        for machine in 0..machines {
            director.settle(machine);
        }
        director
    }

    /// The vault gets what makes it one, before anything goes wrong.
    fn prepare_vault(&self) {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(BEGINNING)));
        let transfer =
            Transfer::new(self.vault.clone(), clock.clone(), TransferPolicy::default()).expect("a way");
        let store =
            Store::open(&self.room.join("first/store"), &self.ring, StoreOptions::local(clock), &VoidMonitor)
                .expect("a new store opens");
        let slots = Store::head(store.dir()).expect("its slots are there").slots;
        copy::prepare_vault(&store, &slots, &transfer).expect("a vault in memory is made ready");
    }

    /// A machine of the same store, each with a staging directory of its own.
    fn settle(&mut self, machine: usize) {
        let dir = self.room.join(format!("m{machine}-0"));
        copy_dir(&self.room.join("first"), &dir).expect("a directory in memory can be copied");
        let skew = draw_skew(&mut self.random, self.world.swarm());
        let life = Life::new(self.world.clone(), machine, skew, dir, Image::new());
        let sources = if self.world.swarm().expire > 0 { 1 } else { 1 + self.random.below(2) };
        let sources = (0..sources).map(|n| Protected::new(format!("s{n}"))).collect();
        self.machines.push(Machine { life, lives: 0, skew, sources, is_bare: false });
    }

    fn truth(&self) -> std::sync::MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- while things go wrong ----------------------------------------------------------------------

    fn trouble(&mut self) {
        let mut left = self.world.swarm().operations;
        let mut looked = 0;
        while self.wrong.is_empty() {
            let idle: Vec<_> = self.parties().filter(|party| self.may_begin(*party)).collect();
            let ready = self.world.ready();
            let choices = if left > 0 { idle.len() } else { 0 } + ready.len();
            if choices == 0 {
                let Some(time) = self.world.until_ready() else { break };
                self.pass(time);
                continue;
            }
            let chosen = self.random.below(choices as u64) as usize;
            match ready.get(chosen) {
                Some(party) => self.go_on(*party),
                None => {
                    left -= 1;
                    self.give_work(idle[chosen - ready.len()]);
                }
            }
            if self.world.steps() >= looked + LOOK_EVERY {
                looked = self.world.steps();
                self.look_at_vault();
            }
            if self.world.steps() > STEPS_MAX {
                self.wrong.push("it does not come to an end".into());
            }
        }
        self.look_at_vault();
    }

    fn pass(&mut self, time: Duration) {
        self.world.pass(time);
        self.beat();
    }

    /// Sessions of machines that are awake give signs of life.
    fn beat(&mut self) {
        let now = self.world.now();
        for (party, running) in &mut self.running {
            if self.world.is_suspended(*party) || now < running.beaten + BEAT_EVERY {
                continue;
            }
            running.beaten = now;
            for attempt in running.process.sessions() {
                let name = Named::Heartbeat(attempt, now.as_secs()).name();
                drop(futures::executor::block_on(self.vault.put_new(&name, bytes::Bytes::new())));
            }
        }
    }

    fn parties(&self) -> Range<usize> {
        0..self.machines.len() * PROCESSES
    }

    /// Those of the machine of a party.
    fn beside(party: usize) -> Range<usize> {
        let first = party - party % PROCESSES;
        first..first + PROCESSES
    }

    /// Whether a party has nothing to do, and its machine is no bare one that another one makes a store of.
    fn may_begin(&self, party: usize) -> bool {
        let is_bare = self.machines[party / PROCESSES].is_bare;
        self.world.is_idle(party) && (!is_bare || party.is_multiple_of(PROCESSES))
    }

    fn go_on(&mut self, party: usize) {
        let latency = match self.is_healthy {
            true => Duration::from_millis(50),
            false => self.world.swarm().clone().latency(&mut |limit| self.random.below(limit)),
        };
        self.pass(latency);
        if self.world.happens(self.world.swarm().suspend) {
            let time = Duration::from_secs(self.random.below(3600 * 80));
            return Self::beside(party).for_each(|party| self.world.suspend(party, time));
        }
        if self.world.happens(self.world.swarm().crash) {
            self.machines[party / PROCESSES].life.crash();
        } else {
            self.world.let_on(party);
        }
        self.see(party);
    }

    /// What a party did, if it is at its end. If its machine crashed, so are all of its processes.
    fn see(&mut self, party: usize) {
        let crashed = self.machines[party / PROCESSES].life.is_over();
        for other in Self::beside(party).filter(|_| crashed) {
            self.world.see_end(other);
            self.join(other);
        }
        if crashed {
            return self.boot(party / PROCESSES);
        }
        if !self.world.is_idle(party) {
            return;
        }
        let Some(came) = self.join(party) else { return };
        self.world.tell(|| format!("{party} ends: {}", brief(&came)));
        match &came {
            Came::Failed(why) => {
                self.failures += 1;
                if why.contains("catalog") {
                    self.told_torn.insert(party / PROCESSES);
                }
            }
            Came::Done | Came::Collected(_) | Came::Checked(_) => {}
        }
        let lives = self.lives();
        self.rot.note_healed(&self.vault, &lives);
        let done_wrong = self.truth().take_wrong();
        self.wrong.extend(done_wrong);
        self.machines[party / PROCESSES].is_bare &= !self.has_store(party / PROCESSES);
        self.last = Some(came);
    }

    fn join(&mut self, party: usize) -> Option<Came> {
        let running = self.running.remove(&party)?;
        if running.thread.join().is_err() {
            self.wrong.push(format!("process {party} panicked"));
        }
        running.came.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A machine that crashed is switched on again.
    fn boot(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        let Some(wreck) = machine.life.wreck() else { return };
        machine.lives += 1;
        let dir = self.room.join(format!("m{number}-{}", machine.lives));
        std::fs::rename(&wreck.dir, &dir).expect("a directory in memory can be renamed");
        let _ = std::fs::remove_dir_all(machine.life.dir());
        if self.world.happens(self.world.swarm().clock_set) {
            machine.skew = draw_skew(&mut self.random, self.world.swarm());
        }
        if self.world.happens(self.world.swarm().catalog_torn) {
            self.torn.insert(number);
            let how = tear(&mut self.random, &dir.join("store"));
            self.world.tell(|| format!("the catalog of machine {number} {how}"));
        }
        let machine = &mut self.machines[number];
        machine.life = Life::new(self.world.clone(), number, machine.skew, dir, wreck.image);
        self.machines[number].is_bare &= !self.has_store(number);
    }

    /// What recovery goes on with, if it was cut off.
    fn has_store(&self, number: usize) -> bool {
        self.machines[number].life.dir().join("store/config").exists()
    }

    fn give_work(&mut self, party: usize) {
        let number = party / PROCESSES;
        if self.world.happens(self.world.swarm().nights) {
            let hours = 1 + self.random.below(30);
            self.pass(Duration::from_secs(3600 * hours));
        }
        if self.world.happens(self.world.swarm().rot) {
            self.rots();
        }
        let rests = Self::beside(party).all(|party| self.world.is_idle(party));
        if rests && self.told_torn.remove(&number) && self.torn.contains(&number) {
            self.world.tell(|| format!("machine {number} is told of its catalog, and removes it"));
            self.remove_catalog(number);
        }
        if rests && self.world.happens(self.world.swarm().machine_lost) {
            self.lose(number);
        } else if rests && self.world.happens(self.world.swarm().catalog_lost) {
            if self.random.below(2) == 0 {
                self.world.tell(|| format!("machine {number} loses its catalog"));
                self.remove_catalog(number);
            } else {
                self.torn.insert(number);
                let how = tear(&mut self.random, &self.machines[number].life.dir().join("store"));
                self.world.tell(|| format!("the catalog of machine {number} {how}"));
            }
        }
        if self.may_begin(party) {
            let is_bare = self.machines[number].is_bare;
            let work = if is_bare { Work::Recover } else { self.choose(number) };
            self.begin(party, work);
        }
    }

    fn choose(&mut self, number: usize) -> Work {
        let swarm = self.world.swarm();
        if self.world.happens(swarm.expire) {
            let tier = if self.random.below(2) == 0 { TierName::Local } else { TierName::Online };
            // People have few sets of rules, and change them now and then.
            let n = self.random.below(self.policies.len() as u64) as usize;
            let agrees = self.random.below(2) == 0;
            return Work::Expire(Box::new(Expiry { tier, policy: self.policies[n].clone(), agrees }));
        }
        if self.world.happens(swarm.scrub) {
            let some = Wanted::Bytes(self.random.below(3 << 20));
            return Work::Scrub(if self.random.below(2) == 0 { Wanted::All } else { some });
        }
        if self.world.happens(swarm.hold) {
            return Work::Hold(self.random.below(100));
        }
        match self.random.below(20) {
            0..8 => {
                let lasts = self.world.happens(swarm.expires);
                let lasts = lasts.then(|| self.random.below(72 * 3600).cast_signed());
                let is_forged = self.world.happens(swarm.forged);
                let sources = &mut self.machines[number].sources;
                let n = self.random.below(sources.len() as u64) as usize;
                sources[n].change(&mut self.random, &self.blocks);
                let (source, online) = (Box::new(sources[n].clone()), self.random.below(2) == 0);
                Work::Backup { source, online, lasts, is_forged }
            }
            8..11 => Work::Push { all: self.random.below(3) == 0 },
            11 => Work::ForgetHere(self.random.below(3) as usize),
            12..14 => Work::ForgetInVault(self.random.below(100)),
            14 => Work::Prune,
            15..18 => Work::Collect(terms(&mut self.random)),
            18 => Work::Check,
            _ => Work::Learn,
        }
    }

    fn remove_catalog(&self, number: usize) {
        for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
            let _ = std::fs::remove_file(self.machines[number].life.dir().join("store").join(name));
        }
    }

    fn lives(&self) -> Vec<Arc<Life>> {
        self.machines.iter().map(|machine| machine.life.clone()).collect()
    }

    fn rots(&mut self) {
        let (lives, truth) = (self.lives(), self.truth.clone());
        let truth = truth.lock().unwrap_or_else(PoisonError::into_inner);
        let struck = self.rot.strike(&mut self.random, &self.vault, &lives, |id| truth.is_going(id));
        if let Some((what, name)) = struck {
            self.world.tell(|| what);
            self.world.has_rotted(name);
        }
    }

    /// A machine burns down; another one takes its place, and has nothing.
    fn lose(&mut self, number: usize) {
        self.world.tell(|| format!("machine {number} is lost"));
        self.truth().is_lost(number);
        self.rot.forget(number);
        let machine = &mut self.machines[number];
        let _ = std::fs::remove_dir_all(machine.life.dir());
        machine.lives += 1;
        let dir = self.room.join(format!("m{number}-{}", machine.lives));
        std::fs::create_dir_all(&dir).expect("there is room");
        machine.life = Life::new(self.world.clone(), number, machine.skew, dir, Image::new());
        machine.is_bare = true;
    }

    fn begin(&mut self, party: usize, work: Work) {
        self.world.tell(|| format!("{party} begins {}", brief_work(&work)));
        let machine = &mut self.machines[party / PROCESSES];
        machine.lives += 1;
        let process = Process::new(machine.life.clone(), party);
        let worker = Worker {
            process: process.clone(),
            machine: party / PROCESSES,
            dice: Arc::new(Dice::new(self.seed, party, machine.lives)),
            vault: self.vault.clone(),
            ring: self.ring.clone(),
            truth: self.truth.clone(),
        };
        let came = Arc::new(Mutex::default());
        let (kept, world) = (came.clone(), self.world.clone());
        let work = move || {
            let _rest = Rest(world, party);
            let done = worker.work(work);
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        };
        let name = format!("process {party}");
        let mut thread = None;
        self.world.begin(party, || thread = std::thread::Builder::new().name(name).spawn(work).ok());
        let (thread, beaten) = (thread.expect("a thread can be started"), self.world.now());
        self.running.insert(party, Running { process, came, thread, beaten });
        self.see(party);
    }

    /// While something that rotted there is not put right, the vault may give less; never anything else.
    fn look_at_vault(&mut self) {
        let mut wrong = self.truth().wrong_in_vault(&self.vault, &self.ring, &self.world, self.room);
        if !self.is_healthy && self.rot.is_in_vault(&self.vault) {
            wrong.retain(|why| why.contains(OTHER));
        }
        self.wrong.extend(wrong);
    }

    // --- when all is well again ---------------------------------------------------------------------

    /// Does something to its end; nothing goes wrong any more, so it must succeed.
    fn must(&mut self, number: usize, work: Work) -> Option<Came> {
        let what = brief_work(&work);
        let came = self.run_to_its_end(number, work);
        if let Some(Came::Failed(why)) = &came {
            self.wrong.push(format!("all is well, and machine {number} cannot {what}: {why}"));
        }
        came
    }

    fn run_to_its_end(&mut self, number: usize, work: Work) -> Option<Came> {
        let party = number * PROCESSES;
        self.begin(party, work);
        while !self.world.is_idle(party) {
            match self.world.ready().contains(&party) {
                true => self.go_on(party),
                false => {
                    let time = self.world.until_ready().unwrap_or_default();
                    self.pass(time);
                }
            }
        }
        self.last.take()
    }

    /// Scrubs and checks run, as the daemon has them, until they find nothing, or nothing else than before: a damaged pack of which the vault
    /// lacks nothing stays until space is freed there (`docs/operations.md`).
    fn put_right(&mut self) {
        let mut before = Vec::new();
        for _ in 0..ROUNDS {
            let mut found = Vec::new();
            for number in 0..self.machines.len() {
                for work in [Work::Scrub(Wanted::All), Work::Check] {
                    match self.run_to_its_end(number, work) {
                        Some(Came::Failed(why)) => found.push(format!("{number}: {why}")),
                        Some(Came::Checked(told)) => found.extend(told),
                        _ => {}
                    }
                }
            }
            if found.is_empty() || found == before {
                return;
            }
            before = found;
        }
    }

    /// Where something rotted that is whole nowhere any more, points may be lost; no other bytes are ever given. Nobody sends anything for a
    /// point again of which a removal was cut off after its word, and what is damaged of it stays until somebody removes it once more. Whether
    /// it is so.
    fn is_lost(&mut self) -> bool {
        let lost = self.rot.lost(&self.vault, &self.lives());
        let mut wrong = self.truth().wrong_in_vault(&self.vault, &self.ring, &self.world, self.room);
        let is_left = wrong.iter().any(|why| why.starts_with(ON_ITS_WAY_OUT));
        if lost.is_empty() && !is_left {
            self.wrong.extend(wrong);
            return false;
        }
        for number in 0..self.machines.len() {
            if let Ok(store) = self.store_of(number) {
                wrong.extend(self.truth().wrong_locally(number, &store));
            }
        }
        // Nothing is lost, and all else must be whole.
        if lost.is_empty() {
            wrong.retain(|why| !why.starts_with(ON_ITS_WAY_OUT) || why.contains(OTHER));
            self.lost = true;
            self.wrong.extend(wrong);
            return true;
        }
        // A damaged point that no machine has whole keeps all space from being freed until a person removes it.
        self.lost = !wrong.is_empty() || lost.iter().any(|name| name.starts_with(names::POINTS));
        if self.lost {
            self.world.tell(|| format!("lost is {lost:?}"));
        }
        wrong.retain(|why| why.contains(OTHER));
        self.wrong.extend(wrong);
        self.lost
    }

    fn healthy(&mut self) {
        if !self.wrong.is_empty() {
            return;
        }
        self.world.heal();
        self.is_healthy = true;
        // As people do who are told of it (`docs/operations.md`).
        for number in std::mem::take(&mut self.torn) {
            self.remove_catalog(number);
        }
        self.world.tell(|| "all is well again".into());
        for number in 0..self.machines.len() {
            if self.machines[number].is_bare {
                self.must(number, Work::Recover);
            }
        }
        // Rules let it go again, and so do people.
        for number in 0..self.machines.len() {
            self.must(number, Work::ForgetAgain);
        }
        if self.rot.has_struck() {
            self.put_right();
            if self.is_lost() {
                return;
            }
        }
        for number in 0..self.machines.len() {
            self.must(number, Work::Push { all: true });
        }
        self.look_at_vault();
        (0..self.machines.len()).for_each(|number| drop(self.must(number, Work::Release)));
        for number in 0..self.machines.len() {
            self.look_at_machine(number);
            // What machines have besides may rely on what the vault has; without that, the vault holds what its own points need.
            self.must(number, Work::ForgetHere(0));
            self.must(number, Work::Prune);
        }
        let check_all = |director: &mut Self| {
            (0..director.machines.len()).for_each(|number| drop(director.must(number, Work::Check)));
        };
        if self.rot.has_struck() {
            // What another machine put right is damaged for this one until it reads it again.
            check_all(self);
        }
        self.collect_all();
        if self.rot.has_struck() && !Rot::damaged(&self.vault, &self.lives()).is_empty() {
            // What is damaged goes when all that points need was read elsewhere since.
            check_all(self);
            self.collect_all();
        }
        // One that is whole nowhere stays, and is told, while points need what can still be read of it.
        let lost = self.rot.lost(&self.vault, &self.lives());
        let is_kept = |told: &String| lost.iter().any(|name| told.starts_with(name.as_str()));
        for number in 0..self.machines.len() {
            if let Some(Came::Checked(mut found)) = self.must(number, Work::Check) {
                found.retain(|found| !is_kept(found));
                let told =
                    found.into_iter().map(|found| format!("all is well, and machine {number} finds {found}"));
                self.wrong.extend(told);
            }
        }
        let mut damaged = Rot::damaged(&self.vault, &self.lives());
        damaged.retain(|name| !is_kept(name));
        if !lost.is_empty() {
            // Nor does one that does not open go then: not all that points need was proven elsewhere.
            damaged.retain(|told| !told.ends_with("in Vault"));
        }
        self.wrong.extend(damaged);
        if !self.rot.was_in_points() {
            (0..self.machines.len()).for_each(|number| self.look_at_alarms(number));
        }
        self.look_at_vault();
    }

    /// Everything that no point needs goes from the vault.
    fn collect_all(&mut self) {
        let patient = Terms { grace: Duration::from_secs(48 * 3600), ..Terms::AT_ONCE };
        for round in 0..12 {
            self.pass(Duration::from_secs(49 * 3600));
            let party = round % self.machines.len();
            let Some(Came::Collected(progress)) = self.must(party, Work::Collect(patient)) else { return };
            if progress.awaited.is_empty() && progress.to_go.0 == 0 && progress.condemned.0 == 0 {
                return self.look_for_garbage();
            }
        }
        self.wrong.push("all is well, and the vault is not freed within twelve runs".into());
    }

    fn look_for_garbage(&mut self) {
        if !self.rot.lost(&self.vault, &self.lives()).is_empty() {
            // Who knows nothing of the damage takes such a pack for a home.
            return;
        }
        let dir = tempfile::tempdir_in(self.room).expect("there is room");
        let judged = recover(&self.vault, &self.ring, &self.world, dir.path())
            .and_then(|store| plan(&store, Place::Vault(store.vaults()[0].0), &VoidMonitor));
        match judged {
            Ok(plan) => {
                let dead = plan.with(Verdict::Delete).count();
                if dead > 0 {
                    self.wrong.push(format!("{dead} packs stay in the vault that no point needs"));
                }
            }
            Err(e) => self.wrong.push(format!("the vault cannot be judged: {e}")),
        }
    }

    fn store_of(&self, number: usize) -> Result<Store, String> {
        let machine = &self.machines[number];
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(BEGINNING)));
        let transfer =
            Transfer::new(self.vault.clone(), clock.clone(), TransferPolicy::default()).expect("a way");
        let options =
            StoreOptions { vaults: vec![("memory".into(), transfer)], ..StoreOptions::local(clock) };
        let dir = machine.life.dir().join("store");
        Store::open_on(machine.life.clone(), &dir, &self.ring, options, &VoidMonitor)
            .map_err(|e| format!("the store of machine {number} does not open: {e}"))
    }

    fn look_at_machine(&mut self, number: usize) {
        let wrong = match self.store_of(number) {
            Ok(store) => self.truth().wrong_locally(number, &store),
            Err(why) => vec![why],
        };
        self.wrong.extend(wrong);
    }

    /// Nobody did anything to the vault that its machines did not: whoever looked at it has nothing to tell of it.
    fn look_at_alarms(&mut self, number: usize) {
        let alarms = self
            .store_of(number)
            .and_then(|store| store.alarms(store.vaults()[0].0).map_err(|e| e.to_string()));
        match alarms {
            Ok(alarms) => self.wrong.extend(alarms.iter().map(|alarm| {
                format!("all is well, and machine {number} is alarmed: {} {}", alarm.key(), alarm.detail)
            })),
            Err(why) => self.wrong.push(why),
        }
    }
}

/// By how many seconds a machine's clock is another one.
fn draw_skew(random: &mut TestRandom, swarm: &Swarm) -> i64 {
    random.below(2 * swarm.skew + 1).cast_signed() - swarm.skew.cast_signed()
}

/// Cuts a catalog or its log, or changes a bit of it. How.
fn tear(random: &mut TestRandom, store: &Path) -> String {
    let name = ["catalog.db", "catalog.db-wal"][random.below(2) as usize];
    let Ok(mut bytes) = std::fs::read(store.join(name)) else { return format!("has no {name}") };
    let at = random.below(bytes.len().max(1) as u64) as usize;
    let how = match random.below(2) {
        0 => {
            bytes.truncate(at);
            "cut"
        }
        _ => {
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8));
            "spoilt"
        }
    };
    std::fs::write(store.join(name), bytes).expect("there is room");
    format!("is {how} at {at} of {name}")
}

/// Says that a party is at its end, also if it panics.
struct Rest(Arc<World>, usize);

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.rest(self.1);
    }
}

fn seeded(seed: u64, purpose: &str) -> [u8; 32] {
    *blake3::hash(format!("{purpose} {seed}").as_bytes()).as_bytes()
}

fn create(dir: &Path, vault: VaultId, ring: &KeyRing, seed: u64) {
    let chunker = ChunkerParams {
        normalization: 2,
        min: 4096,
        average: 16 << 10,
        max: 64 << 10,
        ..ChunkerParams::default()
    };
    let config =
        StoreConfig { chunker, frame_len: 16 << 10, pack_len: 1 << 20, ..StoreConfig::new(vault, BEGINNING) };
    let dice = Arc::new(Dice::new(seed, usize::MAX, 0));
    let sealer = Sealer::new(vault, ring, 1).expect("a ring has its first key").with_chance(dice);
    std::fs::create_dir_all(dir).expect("there is room");
    let secret = Secret::new_recovery();
    let slot =
        KeySlot::create(&vault, ring, &secret, "", &KdfParams::floor(), BEGINNING).expect("a slot is made");
    let id = KeySlot::read(&slot, &vault).expect("a slot reads").id;
    Store::create(&dir.join("store"), &sealer, &config, &[(id, slot)]).expect("a store is made");
}

fn brief(came: &Came) -> String {
    match came {
        Came::Done => "done".into(),
        Came::Failed(why) => why.clone(),
        Came::Checked(found) => format!("finds {found:?}"),
        Came::Collected(progress) => format!(
            "condemned {:?}, awaits {}, revoked {}, to go {:?}, removed {}",
            progress.condemned,
            progress.awaited.len(),
            progress.revoked.len(),
            progress.to_go,
            progress.removed.packs
        ),
    }
}

fn brief_work(work: &Work) -> String {
    match work {
        Work::Backup { source, online, .. } => format!("Backup of {}, online {online}", source.name),
        work => format!("{work:?}"),
    }
}
