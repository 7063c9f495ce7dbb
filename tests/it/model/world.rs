//! How big a world is looked at, and which rule of the protocol is another one in it.

/// The protocol, or what it would be with another rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// As they are.
    AsTheyAre,
    /// Markers go, too, sessions before them. No name of a session is put a second time, and a point counts only while its
    /// session is there.
    NamesOnce,
    /// A collector waits for no session.
    NoWaiting,
    /// A session that was seen with an outcome is not asked for it again when the points are listed for the second mark.
    OutcomeSeenOnce,
    /// A session whose point was purged is not waited for.
    PurgedNotAwaited,
    /// One point that was not there when the sessions were listed is enough, whosever it is.
    OneNewPoint,
    /// What was condemned is what is deleted.
    NoSecondMark,
    /// The second mark relies on the index objects of the first.
    IndexOfFirstMark,
    /// A writer reads the generations, then puts its session.
    GenerationsBeforeSession,
    /// A writer lists the packs, then puts its session and reads the generations.
    PacksBeforeSession,
    /// A writer puts its session, lists the packs, then reads the generations.
    PacksBeforeGenerations,
    /// A writer takes for present what condemned packs have.
    CondemnedIgnored,
    /// A sealed pack is offered again, whatever the generations say of its name.
    BlindOffer,
    /// A commit replaces a marker.
    CommitOverwrites,
    /// A collector marks, then looks which generation is the newest.
    NumberAfterMark,
    /// Copies are condemned along with what they are copies of.
    HomesCondemned,
    /// The same, and the second mark counts copies in packs that are condemned.
    CondemnedCounted,
    /// Packs that a finished generation names count as copies until they are deleted.
    DeadCounted,
    /// What a finished generation names is deleted without a mark of that moment.
    NoLastMark,
    /// Markers go, sessions before them, and a writer looks after its commit whether its session is there.
    MarkersTidied,
    /// The same, and a writer that finds its point there looks for the session, too.
    MarkersTidiedSessionAsked,
    /// Markers go, sessions before them, and nobody looks.
    MarkersTidiedUnseen,
    /// Markers go, before sessions; a writer looks after its commit.
    MarkersTidiedFirst,
}

/// Bounds of a world.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub rules: Rules,
    /// The point that each writer pushes: 0 or 1.
    pub writers: &'static [u8],
    pub collectors: usize,
    /// Generations that there may be.
    pub generations: u8,
    /// Attempts that a point may take.
    pub attempts: u8,
    /// How often a point may be purged, all in all.
    pub purges: u8,
    /// How many packs made from thin ones there may be at a time.
    pub copies: u8,
}

impl World {
    /// Whether these are the rules.
    pub fn is(&self, rules: Rules) -> bool {
        self.rules == rules
    }

    /// Whether markers are removed in the end.
    pub fn tidies_markers(&self) -> bool {
        use Rules::*;
        matches!(
            self.rules,
            NamesOnce | MarkersTidied | MarkersTidiedSessionAsked | MarkersTidiedUnseen | MarkersTidiedFirst
        )
    }

    /// Whether a writer looks for its session after the commit. While markers stay this tells it nothing.
    pub fn looks_after_commit(&self) -> bool {
        self.tidies_markers() && !self.is(Rules::MarkersTidiedUnseen)
    }

    /// Whether a point that is there says nothing to a writer without its session.
    pub fn asks_for_session(&self) -> bool {
        self.is(Rules::NamesOnce) || self.is(Rules::MarkersTidiedSessionAsked)
    }
}
