//! The world of a simulation: its time, whose turn it is, what goes wrong, and the trace of all that.
//!
//! Machines are threads of which one runs at a time. Whoever comes to a door (a request to the vault, a wait) stops there, and the seed decides
//! who goes on, how long that took, and what came of the request. So a seed is a run, and its trace is the same each time.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_store::names::SLOTS;
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::memory::MemoryVault;
use holdfast_store::vault::{ObjectName, Verb};

use crate::swarm::Swarm;

/// When the world begins, in seconds since 1970.
pub const BEGINNING: i64 = 1_790_000_000;

/// What comes of a request, or of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// What was asked for.
    Done,
    /// The request is lost on the way there.
    LostBefore,
    /// It has its effect, and the answer is lost.
    LostAfter,
    /// It is held up somewhere, has its effect so much later, and whoever asked gives it up.
    Late(Duration),
    /// The service asks to be left alone so long.
    Busy(Duration),
    /// The credential is refused.
    Denied,
    /// A bit of what is answered is another.
    Flipped,
    /// Half of it is answered.
    Short,
    /// The machine is no more.
    Over,
}

/// Nobody works for so long between two doors, however busy the processors are.
const HANGS: Duration = Duration::from_secs(60);

/// Why a party stands still.
#[derive(Clone, Debug)]
enum Standing {
    /// It has nothing to do.
    Idle,
    /// It asks for something.
    At(Verb, String),
    /// It waits until a moment.
    Asleep(Duration),
    /// It works.
    Running,
}

#[derive(Debug)]
struct Party {
    standing: Standing,
    fate: Option<Fate>,
    /// It is not let on before that: its machine sleeps.
    suspended: Duration,
}

/// Something that happens to the vault later.
pub type Effect = Box<dyn FnOnce() + Send>;

struct State {
    now: Duration,
    random: TestRandom,
    parties: Vec<Party>,
    late: Vec<(Duration, u64, Effect)>,
    trace: blake3::Hasher,
    told: Option<Vec<String>>,
    steps: u64,
    healthy: bool,
}

/// What all machines of a simulation share.
pub struct World {
    state: Mutex<State>,
    /// Of each party, to whom its fate is told, and last that of the director, to whom is told that a party stands still.
    called: Vec<Condvar>,
    swarm: Swarm,
    vault: Arc<MemoryVault>,
    /// Names of which the length was another one for a while.
    rotted: Mutex<BTreeSet<ObjectName>>,
}

impl World {
    /// A world that follows from a seed. Its trace is kept in words if somebody wants to read it.
    pub fn new(seed: u64, swarm: Swarm, machines: usize, vault: Arc<MemoryVault>, tell: bool) -> Arc<Self> {
        let party = |_| Party { standing: Standing::Idle, fate: None, suspended: Duration::ZERO };
        let state = State {
            now: Duration::ZERO,
            random: TestRandom::new(seed ^ 0x5eed),
            parties: (0..machines).map(party).collect(),
            late: Vec::new(),
            trace: blake3::Hasher::new(),
            told: tell.then(Vec::new),
            steps: 0,
            healthy: false,
        };
        let called = (0..=machines).map(|_| Condvar::new()).collect();
        let world =
            Arc::new(Self { state: Mutex::new(state), called, swarm, vault, rotted: Mutex::default() });
        world.pass(Duration::ZERO);
        world
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// From now on nothing goes wrong any more.
    pub fn heal(&self) {
        let mut state = self.state();
        state.healthy = true;
        state.parties.iter_mut().for_each(|party| party.suspended = Duration::ZERO);
        let late = std::mem::take(&mut state.late);
        drop(state);
        late.into_iter().for_each(|(_, _, effect)| effect());
    }

    /// A number below `limit`, of the world's own chance: for who runs, and for nobody beside him.
    pub fn below(&self, limit: u64) -> u64 {
        self.state().random.below(limit)
    }

    /// Whether something happens that does so many times in a thousand; nothing does in a world that is healthy.
    pub fn happens(&self, per_mille: u64) -> bool {
        let mut state = self.state();
        !state.healthy && per_mille > 0 && state.random.below(1000) < per_mille
    }

    /// The rates of this world.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Adds a line to the trace.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        self.state().tell(line());
    }

    /// What happened so far, as a number, and in words if they are kept.
    pub fn trace(&self) -> (String, Vec<String>) {
        let state = self.state();
        (state.trace.finalize().to_hex()[..16].to_owned(), state.told.clone().unwrap_or_default())
    }

    /// How often somebody was let on.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// An object of the vault is another one from now on.
    pub fn has_rotted(&self, name: ObjectName) {
        self.rotted.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// Whether an object of the vault was another one once, so that who listed it then may ask for other parts.
    pub fn was_rotten(&self, name: &ObjectName) -> bool {
        self.rotted.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Lets time pass, and what was held up arrive.
    pub fn pass(&self, time: Duration) {
        let mut state = self.state();
        state.now += time;
        let now = state.now;
        self.vault.set_now(BEGINNING + now.as_secs().cast_signed());
        let mut due: Vec<_> = Vec::new();
        let mut n = 0;
        while n < state.late.len() {
            if state.late[n].0 <= now { due.push(state.late.remove(n)) } else { n += 1 }
        }
        due.sort_by_key(|(at, number, _)| (*at, *number));
        for (_, number, _) in &due {
            let line = format!("what was held up as {number} arrives");
            state.tell(line);
        }
        drop(state);
        due.into_iter().for_each(|(_, _, effect)| effect());
    }

    /// Has something happen later.
    pub fn later(&self, after: Duration, effect: Effect) {
        let mut state = self.state();
        let (at, number) = (state.now + after, state.steps);
        state.late.push((at, number, effect));
    }

    // --- the side of the machines -------------------------------------------------------------------

    /// A party comes to a door and is told what came of it. Nobody else runs meanwhile but who is let on.
    pub fn ask(&self, party: usize, verb: Verb, name: &str) -> Fate {
        self.stand(party, Standing::At(verb, name.to_owned()))
    }

    /// A party waits.
    pub fn sleep(&self, party: usize, time: Duration) -> Fate {
        let until = self.now() + time;
        self.stand(party, Standing::Asleep(until))
    }

    fn stand(&self, party: usize, standing: Standing) -> Fate {
        let mut state = self.state();
        state.parties[party].standing = standing;
        self.director().notify_one();
        loop {
            if let Some(fate) = state.parties[party].fate.take() {
                state.parties[party].standing = Standing::Running;
                return fate;
            }
            state = self.called[party].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn director(&self) -> &Condvar {
        &self.called[self.called.len() - 1]
    }

    /// A party has done what it had to do.
    pub fn rest(&self, party: usize) {
        self.state().parties[party].standing = Standing::Idle;
        self.director().notify_one();
    }

    // --- the side of the director -------------------------------------------------------------------

    /// Whether a party has nothing to do.
    pub fn is_idle(&self, party: usize) -> bool {
        matches!(self.state().parties[party].standing, Standing::Idle)
    }

    /// Says that a party has begun something; it does so in `begin`, and this returns when it stands still.
    pub fn begin(&self, party: usize, begin: impl FnOnce()) {
        self.state().parties[party].standing = Standing::Running;
        begin();
        self.wait_for(party);
    }

    fn wait_for(&self, party: usize) {
        let mut state = self.state();
        while matches!(state.parties[party].standing, Standing::Running)
            || state.parties[party].fate.is_some()
        {
            let waited = self.director().wait_timeout(state, HANGS);
            let timeout;
            (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            assert!(
                !timeout.timed_out(),
                "machine {party} hangs: {:?}",
                state.told.as_ref().map(|t| &t[t.len() - 9..])
            );
        }
    }

    /// Its machine sleeps for so long.
    pub fn suspend(&self, party: usize, time: Duration) {
        let mut state = self.state();
        let until = state.now + time;
        state.tell(format!("{party} sleeps for {} s", time.as_secs()));
        state.parties[party].suspended = until;
    }

    /// Whether its machine sleeps.
    pub fn is_suspended(&self, party: usize) -> bool {
        let state = self.state();
        state.parties[party].suspended > state.now
    }

    /// Parties that could go on now.
    pub fn ready(&self) -> Vec<usize> {
        let state = self.state();
        let is_ready = |party: &Party| {
            party.suspended <= state.now
                && match party.standing {
                    Standing::At(..) => true,
                    Standing::Asleep(until) => until <= state.now,
                    Standing::Idle | Standing::Running => false,
                }
        };
        (0..state.parties.len()).filter(|n| is_ready(&state.parties[*n])).collect()
    }

    /// How long until somebody who waits could go on.
    pub fn until_ready(&self) -> Option<Duration> {
        let state = self.state();
        let when = |party: &Party| match party.standing {
            Standing::At(..) => Some(party.suspended),
            Standing::Asleep(until) => Some(until.max(party.suspended)),
            Standing::Idle | Standing::Running => None,
        };
        Some(state.parties.iter().filter_map(when).min()?.saturating_sub(state.now))
    }

    /// Lets a party on, with what came of what it asked for, and returns when it stands still again.
    pub fn let_on(&self, party: usize) {
        let mut state = self.state();
        state.steps += 1;
        let fate = match state.parties[party].standing.clone() {
            Standing::At(verb, name) => {
                let fate =
                    if state.healthy { Fate::Done } else { self.swarm.fate(&mut state.random, verb, &name) };
                // Slots have salts and ids that no seed knows.
                let name = name.strip_prefix(SLOTS).map_or(&*name, |_| SLOTS);
                let line = format!("{party} {verb:?} {name} {fate:?}");
                state.tell(line);
                fate
            }
            _ => Fate::Done,
        };
        drop(state);
        self.decide(party, fate);
    }

    /// Lets parties on whose machine is no more, all at once, for one may wait for what another one has: they find all doors shut.
    pub fn shut(&self, parties: Range<usize>) {
        let mut state = self.state();
        for party in parties {
            let it = &mut state.parties[party];
            if matches!(it.standing, Standing::At(..) | Standing::Asleep(_)) {
                it.fate = Some(Fate::Over);
                self.called[party].notify_one();
            }
        }
    }

    /// Waits until a party whose machine is no more has noticed.
    pub fn see_end(&self, party: usize) {
        self.wait_for(party);
    }

    fn decide(&self, party: usize, fate: Fate) {
        self.state().parties[party].fate = Some(fate);
        self.called[party].notify_one();
        self.wait_for(party);
    }
}

impl State {
    fn tell(&mut self, line: String) {
        let mut text = String::new();
        let _ = writeln!(text, "{:>14.3} {line}", self.now.as_secs_f64());
        self.trace.update(text.as_bytes());
        if let Some(told) = &mut self.told {
            text.truncate(text.len() - 1);
            told.push(text);
        }
    }
}
