//! A writer's steps, W1 to W7.

use super::state::{State, Writer, Writing, needs, one, session};
use super::world::{Rules, World};

/// One of a writer's looks at the vault before it knows what to send.
#[derive(Clone, Copy)]
enum Look {
    Session,
    Generations,
    Packs,
}

impl World {
    fn looks(&self) -> [Look; 3] {
        match self.rules {
            Rules::GenerationsBeforeSession => [Look::Generations, Look::Session, Look::Packs],
            Rules::PacksBeforeSession => [Look::Packs, Look::Session, Look::Generations],
            Rules::PacksBeforeGenerations => [Look::Session, Look::Packs, Look::Generations],
            _ => [Look::Session, Look::Generations, Look::Packs],
        }
    }

    /// The next step of a writer.
    pub fn write(&self, state: &mut State, number: usize) -> Option<()> {
        let mut writer = state.writers[number];
        let session = session(self.writers[number], writer.attempt);
        match writer.at {
            Writing::Away => self.choose(state, number, &mut writer)?,
            Writing::Opening(done) => self.look(state, &mut writer, session, done),
            Writing::Sending => self.send(state, &mut writer)?,
            Writing::Sent => {
                state.indexed |= one(writer.sealed?);
                writer.at = Writing::Ready;
            }
            Writing::Ready => self.commit(state, &mut writer, session),
            Writing::Committed => {
                if state.sessions & one(session) != 0 {
                    state.vaulted |= state.points & one(session);
                }
                writer = away(writer);
            }
        }
        state.writers[number] = writer;
        Some(())
    }

    /// W1: the first attempt without a marker. A point that is there is done.
    fn choose(&self, state: &mut State, number: usize, writer: &mut Writer) -> Option<()> {
        let sessions = (0..self.attempts).map(|attempt| session(self.writers[number], attempt));
        let (attempt, session) = (0..).zip(sessions).find(|(_, session)| !self.is_over(state, *session))?;
        if state.points & one(session) == 0 {
            *writer = Writer { at: Writing::Opening(0), attempt, ..*writer };
            return Some(());
        }
        (state.vaulted & one(session) == 0).then_some(())?;
        state.vaulted |= one(session);
        Some(())
    }

    /// Whether an attempt is over without success, as far as the vault tells.
    fn is_over(&self, state: &State, session: u8) -> bool {
        let unsaid = self.asks_for_session() && state.points & !state.sessions & one(session) != 0;
        state.markers & one(session) != 0 || unsaid || self.is_spent(state, session)
    }

    /// Whether this is a name that was put once and is gone. Names are drawn by chance then, so nobody has to remember it.
    fn is_spent(&self, state: &State, session: u8) -> bool {
        self.is(Rules::NamesOnce) && state.void & one(session) != 0
    }

    /// One of W1 to W3; after the last it is known what lacks.
    fn look(&self, state: &mut State, writer: &mut Writer, session: u8, done: u8) {
        match self.looks()[usize::from(done)] {
            Look::Session if self.is_spent(state, session) => {
                *writer = away(*writer);
                return;
            }
            Look::Session => state.sessions |= one(session),
            Look::Generations if self.is(Rules::CondemnedIgnored) => {}
            Look::Generations => writer.known = state.known(),
            Look::Packs => writer.listed = state.readable(),
        }
        writer.at = Writing::Opening(done + 1);
        if done == 2 {
            writer.lacks = needs(session) & !state.chunks(writer.listed & !writer.known);
            writer.listed = 0;
            writer.at = if writer.lacks == 0 { Writing::Ready } else { Writing::Sending };
            if writer.lacks == 0 {
                writer.known = 0;
            }
        }
    }

    /// W4: the sealed pack if it has what lacks and may be offered, or a new one.
    fn send(&self, state: &mut State, writer: &mut Writer) -> Option<()> {
        let offered = |pack: &u8| {
            let known = writer.known & one(*pack) != 0 && !self.is(Rules::BlindOffer);
            writer.lacks & !state.holds[usize::from(*pack)] == 0 && !known
        };
        let pack = match writer.sealed.filter(offered) {
            Some(pack) => pack,
            None => state.name(writer.lacks)?,
        };
        state.packs |= one(pack);
        *writer = Writer { at: Writing::Sent, known: 0, lacks: 0, sealed: Some(pack), ..*writer };
        Some(())
    }

    /// A commit that is on its way when the writer is cut off, or waits.
    pub fn commit_slowly(&self, state: &mut State, number: usize) -> Option<()> {
        let writer = state.writers[number];
        (writer.at == Writing::Ready).then_some(())?;
        state.late |= one(session(self.writers[number], writer.attempt));
        Some(())
    }

    /// W6. An answer may be lost, so that the put is tried again, and both may arrive late.
    fn commit(&self, state: &mut State, writer: &mut Writer, session: u8) {
        state.late |= one(session);
        if self.is(Rules::CommitOverwrites) {
            state.markers &= !one(session);
        }
        let there = state.commit(session);
        if there && self.looks_after_commit() {
            writer.at = Writing::Committed;
            return;
        }
        state.vaulted |= state.points & one(session);
        *writer = away(*writer);
    }
}

/// What is left of a writer that ends, well or not: what is in staging.
pub fn away(writer: Writer) -> Writer {
    Writer { sealed: writer.sealed, ..Writer::default() }
}
