//! What may happen next in a world, and what must never be, or be possible.

use stateright::{Model, Property};

use super::state::{Collecting, Collector, PACKS, POINTS, Set, State, members, needs, one, session};
use super::world::{Rules, World};
use super::writer::away;

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Writer(usize),
    /// The commit is on its way.
    CommitSent(usize),
    WriterCutOff(usize),
    /// A collector goes on, in one of the ways there are.
    Collector(usize, usize),
    CollectorCutOff(usize),
    /// A commit arrives, again or for the first time.
    CommitArrives(u8),
    PointPurged(u8),
    /// By a collector of whatever generation, which has lost patience, or because the point was forgotten.
    SessionRevoked(u8),
    SessionTidied(u8),
    MarkerTidied(u8),
}

/// What must hold in every state.
pub const NEVER_BROKEN: [&str; 3] = [WHOLE, VAULTED, NAMES];
const WHOLE: &str = "each point finds its chunks";
const VAULTED: &str = "each point that was called vaulted is there and finds its chunks";
const NAMES: &str = "the world has names for all packs";

/// What must happen somewhere, or the rest says little.
pub const SOMEWHERE: [&str; 6] = [DELETED, REVOKED, LATER, BACK, SPARED, COPY];
const DELETED: &str = "a pack is deleted";
const REVOKED: &str = "a session is revoked";
const LATER: &str = "a point is vaulted after an attempt that was revoked";
const BACK: &str = "a late commit brings a purged point back";
const SPARED: &str = "the second mark spares a pack";
const COPY: &str = "a vaulted point lives in a pack alone that was made from a thin one";

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for writer in 0..self.writers.len() {
            steps.extend([Step::Writer(writer), Step::CommitSent(writer), Step::WriterCutOff(writer)]);
        }
        for collector in 0..self.collectors {
            steps.extend((0..self.ways(state, collector)).map(|way| Step::Collector(collector, way)));
            steps.push(Step::CollectorCutOff(collector));
        }
        let without = |sessions: Set| members(sessions & !state.points & !state.markers);
        steps.extend(without(state.late).map(Step::CommitArrives));
        steps.extend(members(state.points).map(Step::PointPurged));
        steps.extend(without(self.revocable(state)).map(Step::SessionRevoked));
        if self.tidies_markers() {
            steps.extend(members(state.sessions).map(Step::SessionTidied));
            steps.extend(members(state.markers).map(Step::MarkerTidied));
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Writer(writer) => self.write(&mut next, writer)?,
            Step::CommitSent(writer) => self.commit_slowly(&mut next, writer)?,
            Step::WriterCutOff(writer) => next.writers[writer] = away(next.writers[writer]),
            Step::Collector(collector, way) => self.collect(&mut next, collector, way)?,
            Step::CollectorCutOff(collector) => next.collectors[collector] = Collector::default(),
            Step::CommitArrives(session) => _ = next.commit(session),
            Step::PointPurged(session) => self.purge(&mut next, session)?,
            Step::SessionRevoked(session) => next.markers |= one(session),
            Step::SessionTidied(session) => self.tidy_session(&mut next, session)?,
            Step::MarkerTidied(session) => self.tidy_marker(&mut next, session)?,
        }
        self.normalize(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(WHOLE, |_, state: &State| state.whole(state.points & !state.void)),
            Property::always(VAULTED, |_, state: &State| {
                state.vaulted & !state.points == 0 && state.whole(state.vaulted)
            }),
            Property::always(NAMES, |_, state: &State| usize::from(state.named) < PACKS),
            Property::sometimes(DELETED, |_, state: &State| {
                state.collectors.iter().any(|it| it.at == Collecting::Deleting && it.set == 0)
            }),
            Property::sometimes(REVOKED, |_, state: &State| state.markers != 0),
            Property::sometimes(LATER, |_, state: &State| {
                let later = one(session(0, 1)) | one(session(1, 1));
                state.vaulted & later != 0
            }),
            Property::sometimes(BACK, |_, state: &State| state.points & state.purged & !state.vaulted != 0),
            Property::sometimes(SPARED, |_, state: &State| {
                let spares = |it: &Collector| state.condemned.is_some_and(|condemned| condemned != it.set);
                state.collectors.iter().any(|it| it.at == Collecting::Finishing && spares(it))
            }),
            Property::sometimes(COPY, |_, state: &State| lives_in_copies(state)),
        ]
    }
}

impl World {
    /// Sessions that may be revoked now. Where markers stay, whoever forgets a point puts one also before there is any generation, where nobody
    /// has begun, and behind a point before it goes.
    fn revocable(&self, state: &State) -> Set {
        match (self.tidies_markers(), state.generation) {
            (true, 0) => 0,
            (true, _) => state.sessions,
            (false, _) => (0..POINTS).fold(state.sessions, |set, point| set | self.next(state, point)),
        }
    }

    /// The first session of a point that has no outcome, if there is one.
    fn next(&self, state: &State, point: u8) -> Set {
        let mut sessions = (0..self.attempts).map(|attempt| one(session(point, attempt)));
        sessions.find(|session| (state.markers | state.points) & session == 0).unwrap_or_default()
    }

    fn purge(&self, state: &mut State, session: u8) -> Option<()> {
        (state.purges < self.purges).then_some(())?;
        state.purges += 1;
        state.points &= !one(session);
        state.vaulted &= !one(session);
        state.purged |= one(session);
        Some(())
    }

    /// C8, first half. Not while markers stay: nobody asks then whether the session of a marker is there.
    fn tidy_session(&self, state: &mut State, session: u8) -> Option<()> {
        let first = !self.is(Rules::MarkersTidiedFirst);
        let over = if first { state.markers } else { state.void };
        (over & one(session) != 0).then_some(())?;
        state.sessions &= !one(session);
        if self.is(Rules::NamesOnce) {
            state.void |= one(session);
        }
        Some(())
    }

    /// C8, second half.
    fn tidy_marker(&self, state: &mut State, session: u8) -> Option<()> {
        let first = self.is(Rules::MarkersTidiedFirst);
        (first || state.sessions & one(session) == 0).then_some(())?;
        state.markers &= !one(session);
        state.void |= one(session);
        Some(())
    }
}

/// Whether a vaulted point needs a chunk that only packs have which were made from thin ones.
fn lives_in_copies(state: &State) -> bool {
    let copies = state.chunks(state.readable() & state.copies);
    let others = state.chunks(state.readable() & !state.copies);
    members(state.vaulted).any(|session| needs(session) & copies & !others != 0)
}
