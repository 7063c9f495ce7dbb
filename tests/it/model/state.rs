//! What is in the vault, and what each writer and collector has in mind. Sets are bits.

/// A set of packs, sessions or chunks.
pub type Set = u8;

/// Chunks: `a` and `b`.
pub const CHUNKS: u8 = 2;
/// Names of packs that there may be.
pub const PACKS: usize = 8;
/// Points that there are.
pub const POINTS: u8 = 2;
/// What each point needs.
const NEEDS: [Set; POINTS as usize] = [0b01, 0b11];
/// Attempts for which there is room.
const ATTEMPTS: u8 = 3;
const WRITERS: usize = 3;
const COLLECTORS: usize = 2;

/// The number of a session: an attempt at a point.
pub fn session(point: u8, attempt: u8) -> u8 {
    point * ATTEMPTS + attempt
}

/// What the point needs that a session would bring in.
pub fn needs(session: u8) -> Set {
    NEEDS[usize::from(session / ATTEMPTS)]
}

/// The set of one.
pub fn one(member: u8) -> Set {
    1 << member
}

/// The members of a set.
pub fn members(set: Set) -> impl Iterator<Item = u8> {
    (0..8).filter(move |member| set & one(*member) != 0)
}

/// Where a writer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Writing {
    /// Not running: not begun, cut off, or done.
    #[default]
    Away,
    /// Has chosen an attempt; so many of its three looks at the vault are done.
    Opening(u8),
    /// Has chunks to send.
    Sending,
    /// Its pack is there, without an index object.
    Sent,
    /// All is there.
    Ready,
    /// The point is there; the session is to be looked for.
    Committed,
}

/// A writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    pub at: Writing,
    pub attempt: u8,
    /// Packs not to rely on.
    pub known: Set,
    /// Packs that it listed.
    pub listed: Set,
    /// Chunks that the vault lacks.
    pub lacks: Set,
    /// The pack in staging, from this run or an earlier one.
    pub sealed: Option<u8>,
}

/// Where a collector is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collecting {
    #[default]
    Away,
    /// Knows the number of the generation that it is to make.
    Marking,
    /// Wrote a pack anew that has no index object yet.
    Copied,
    /// Has a set to condemn.
    Condemning,
    /// Is to list the sessions.
    Listing,
    /// Waits for outcomes.
    Awaiting,
    /// Has listed the points anew.
    Sparing,
    /// Has the set that may be deleted.
    Finishing,
    /// Deletes.
    Deleting,
}

/// A collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collector {
    pub at: Collecting,
    pub generation: u8,
    /// Packs, sessions or chunks: what its place in the protocol is about.
    pub set: Set,
    /// The pack that it wrote anew.
    pub copy: Option<u8>,
    /// Packs that had index objects when it began; only where the second mark relies on them.
    pub indexed: Set,
}

/// All there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub packs: Set,
    pub indexed: Set,
    /// Chunks of each pack, by its name.
    pub holds: [Set; PACKS],
    /// Names given so far.
    pub named: u8,
    /// Packs made from thin ones.
    pub copies: Set,
    pub sessions: Set,
    /// Outcomes: points.
    pub points: Set,
    /// Outcomes: markers.
    pub markers: Set,
    /// Commits that may arrive at any time, again or for the first time.
    pub late: Set,
    /// Points that a writer called vaulted and nobody purged.
    pub vaulted: Set,
    /// Sessions whose point was purged once.
    pub purged: Set,
    pub purges: u8,
    /// Sessions that are over for good, since their marker was removed: a point under that name is nobody's promise.
    pub void: Set,
    /// Generations so far.
    pub generation: u8,
    /// What the newest one condemned, if it is not finished.
    pub condemned: Option<Set>,
    /// What the finished ones left to be deleted.
    pub dead: Set,
    pub writers: [Writer; WRITERS],
    pub collectors: [Collector; COLLECTORS],
}

impl State {
    /// A vault with one pack that has both chunks, and one point that needs them; the other is only here.
    pub fn first() -> Self {
        let vaulted = one(session(1, 0));
        let mut holds = [0; PACKS];
        holds[0] = 0b11;
        Self {
            packs: 1,
            indexed: 1,
            holds,
            named: 1,
            copies: 0,
            sessions: vaulted,
            points: vaulted,
            markers: 0,
            late: vaulted,
            vaulted,
            purged: 0,
            purges: 0,
            void: 0,
            generation: 0,
            condemned: None,
            dead: 0,
            writers: Default::default(),
            collectors: Default::default(),
        }
    }

    /// Packs not to rely on: of an unfinished generation what it condemned, of finished ones what they left.
    pub fn known(&self) -> Set {
        self.dead | self.condemned.unwrap_or_default()
    }

    /// Chunks that the points that are there need.
    pub fn live(&self) -> Set {
        members(self.points).fold(0, |live, session| live | needs(session))
    }

    /// Chunks that some of these packs has.
    pub fn chunks(&self, packs: Set) -> Set {
        members(packs).fold(0, |chunks, pack| chunks | self.holds[usize::from(pack)])
    }

    /// Packs that are there and have an index object.
    pub fn readable(&self) -> Set {
        self.packs & self.indexed
    }

    /// Whether each of these points finds its chunks.
    pub fn whole(&self, points: Set) -> bool {
        let there = self.chunks(self.readable());
        members(points).all(|session| needs(session) & !there == 0)
    }

    /// A new name with these chunks, if there is one left.
    pub fn name(&mut self, chunks: Set) -> Option<u8> {
        let name = self.named;
        *self.holds.get_mut(usize::from(name))? = chunks;
        self.named += 1;
        Some(name)
    }

    /// Puts a point if its session has no outcome. Whether the point is there now.
    pub fn commit(&mut self, session: u8) -> bool {
        if self.markers & one(session) == 0 {
            self.points |= one(session);
        }
        self.points & one(session) != 0
    }
}
