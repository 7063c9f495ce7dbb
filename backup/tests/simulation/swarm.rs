//! How often what goes wrong: drawn anew for each seed, so that some worlds know one kind of trouble alone and others all of them
//! (swarm testing: Groce and others, ISSTA 2012).

use std::time::Duration;

use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::Verb;

use crate::world::Fate;

/// Rates, of a thousand times that it could happen.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// A request does not arrive, or is refused for the moment.
    lost: u64,
    /// A request has its effect, and its answer is lost.
    lost_after: u64,
    /// A put arrives long after it was given up.
    late: u64,
    /// An answer has another bit, or is cut off.
    spoilt: u64,
    /// The credential is refused.
    denied: u64,
    /// A request takes hours.
    slow: u64,
    /// A machine ends at a request.
    pub crash: u64,
    /// It ends at a change of a file.
    pub crash_at_file: u64,
    /// When it ends, the power is gone, and with it names that were not synced.
    pub power_cut: u64,
    /// A change of a file fails.
    pub file_error: u64,
    /// A machine sleeps for hours or days.
    pub suspend: u64,
    /// A catalog is lost between two runs, or another one.
    pub catalog_lost: u64,
    /// A machine is lost, and another one is made from the vault.
    pub machine_lost: u64,
    /// A catalog is cut, or has another bit, after a crash.
    pub catalog_torn: u64,
    /// A clock shows something else after a crash.
    pub clock_set: u64,
    /// How far clocks of machines are from the vault's, in seconds at most.
    pub skew: u64,
    /// Points go by rules.
    pub expire: u64,
    /// Somebody holds a point.
    pub hold: u64,
    /// A point has a time of its own.
    pub expires: u64,
    /// A point is said not to be by whom it says.
    pub forged: u64,
    /// Hours pass before something is begun.
    pub nights: u64,
    /// Something rots in the vault or in a staging directory.
    pub rot: u64,
    /// Something is read again, and put right.
    pub scrub: u64,
    /// How many things are begun.
    pub operations: u64,
    /// How many machines there are.
    pub machines: usize,
}

impl Swarm {
    /// Rates for a seed.
    pub fn draw(random: &mut TestRandom) -> Self {
        let mut rate = |most: u64| match random.below(3) {
            0 => 0,
            1 => random.below(most + 1) / 8,
            _ => random.below(most + 1),
        };
        let expire = rate(400);
        Self {
            lost: rate(200),
            lost_after: rate(50),
            late: rate(50),
            spoilt: rate(40),
            denied: rate(4),
            slow: rate(20),
            crash: rate(10),
            crash_at_file: rate(40),
            power_cut: rate(1000),
            file_error: rate(30),
            suspend: rate(20),
            catalog_lost: rate(100),
            catalog_torn: rate(1000),
            clock_set: rate(1000),
            machine_lost: rate(30),
            skew: rate(2) * 43_200,
            expire,
            hold: rate(60),
            expires: rate(200),
            forged: rate(150),
            rot: rate(300),
            scrub: rate(150),
            nights: rate(500),
            operations: if expire > 0 { 30 } else { 20 } + random.below(50),
            // Rules let go where a source has many points.
            machines: 1 + random.below(if expire > 0 { 2 } else { 4 }) as usize,
        }
    }

    /// What comes of a request.
    pub fn fate(&self, random: &mut TestRandom, verb: Verb, name: &str) -> Fate {
        let mut happens = |per_mille| per_mille > 0 && random.below(1000) < per_mille;
        if happens(self.lost) {
            return match random.below(3) {
                0 => Fate::Busy(Duration::from_secs(1 + random.below(90))),
                _ => Fate::LostBefore,
            };
        }
        if happens(self.lost_after) {
            return Fate::LostAfter;
        }
        if verb == Verb::Put && happens(self.late) {
            return Fate::Late(Duration::from_secs(random.below(3600 * 60)));
        }
        // What vaults list and count is exact, as all that frees space there rests on (`docs/decisions/fenced-generations.md`); bytes have their seals.
        if verb == Verb::Get && happens(self.spoilt) {
            return if random.below(2) == 0 { Fate::Flipped } else { Fate::Short };
        }
        if happens(self.denied) && !name.is_empty() {
            return Fate::Denied;
        }
        Fate::Done
    }

    /// How long a request takes.
    pub fn latency(&self, random: &mut impl FnMut(u64) -> u64) -> Duration {
        if self.slow > 0 && random(1000) < self.slow {
            return Duration::from_secs(random(3600 * 8));
        }
        Duration::from_millis(1 + random(200))
    }
}
