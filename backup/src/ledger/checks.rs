//! What checks of the store found, whoever began them: a person's stands among the jobs of the daemon like its own.
//!
//! Whether damage is still there is said by checks that saw everything. One that could not look at a vault, or was ended, takes nothing
//! back; one that reads all bytes sees what the others see, and more. A scrub tells each time of all damage that is known in the places
//! that it looked at, whatever it read itself, so it takes back what an earlier one told.

use std::collections::HashMap;
use std::path::Path;

use holdfast_store::clock::Timestamp;
use rusqlite::OptionalExtension;

use super::{Ended, Job, JobNo, JobState, Ledger, LedgerError, job};
use crate::agenda::{Task, Work};

/// What a check says that found damage, in the line that is its reason.
pub const DAMAGED: &str = "the store is damaged";

impl Ledger {
    /// Puts down a check that a person began, beside the daemon or without one. What is well, and nobody keeps a ledger of, makes none.
    pub fn note_check(dir: &Path, work: Work, begun: Timestamp, ended: &Ended) -> Result<(), LedgerError> {
        if ended.state == JobState::Done && Self::look(dir)?.is_none() {
            return Ok(());
        }
        Self::note_run(dir, work, begun, ended)
    }

    /// Puts down whatever a person ran, also where nobody keeps a ledger yet.
    pub fn note_run(dir: &Path, work: Work, begun: Timestamp, ended: &Ended) -> Result<(), LedgerError> {
        let ledger = Self::join(dir)?;
        let no = ledger.begin(&Task { work, group: None }, true, begun)?;
        ledger.end(no, ended)
    }

    /// The last drill that ended by itself, well or not.
    pub fn last_drill(&self) -> Result<Option<Job>, LedgerError> {
        let sql = format!(
            "SELECT {} FROM job WHERE work = ?1 AND state IN ('done', 'failed') ORDER BY no DESC LIMIT 1",
            self.columns
        );
        self.read(|c| c.prepare_cached(&sql)?.query_row([Work::Drill.to_string()], job).optional())
    }

    /// When files of a point last came back right in a drill, by ids in hexadecimal; as far back as jobs are kept.
    pub fn drilled(&self) -> Result<HashMap<String, Timestamp>, LedgerError> {
        self.read(|c| {
            // The later one of two stays.
            let sql =
                "SELECT ended, points FROM job WHERE work = ?1 AND state IN ('done', 'failed') ORDER BY no";
            let mut select = c.prepare_cached(sql)?;
            let mut rows = select.query([Work::Drill.to_string()])?;
            let mut drilled = HashMap::new();
            while let Some(row) = rows.next()? {
                let (at, points): (i64, String) = (row.get(0)?, row.get(1)?);
                let ids = points.split_whitespace().map(str::to_owned);
                drilled.extend(ids.map(|id| (id, Timestamp::from_seconds(at))));
            }
            Ok(drilled)
        })
    }

    /// The check that found the damage that is there, as far as is known: no later one of its kind found that there is none, nor one that
    /// reads all bytes.
    pub fn damage(&self) -> Result<Option<Job>, LedgerError> {
        let (structure, data) = (self.verdict(Work::Check)?, self.verdict(Work::CheckData)?);
        let scrub = self.verdict(Work::Scrub)?;
        let proven = data.as_ref().filter(|job| job.state == JobState::Done).map_or(JobNo(0), |job| job.no);
        let counts = |job: &Job| job.state == JobState::Failed && job.no > proven;
        Ok(data.filter(counts).or(scrub.filter(counts)).or(structure.filter(counts)))
    }

    /// The last check of a kind that tells whether there is damage.
    fn verdict(&self, work: Work) -> Result<Option<Job>, LedgerError> {
        let sql = format!(
            "SELECT {} FROM job WHERE work = ?1 AND (state = 'done' OR state = 'failed' AND instr(said, ?2))
             ORDER BY no DESC LIMIT 1",
            self.columns
        );
        self.read(|c| c.prepare_cached(&sql)?.query_row((work.to_string(), DAMAGED), job).optional())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_point_was_drilled_when_it_last_came_back_right() {
        let dir = tempfile::tempdir().unwrap();
        let note = |work, second, state, points: &[&str]| {
            let points = points.iter().map(|point| (*point).to_owned()).collect();
            let at = Timestamp::from_seconds(second);
            let ended = Ended { at, state, said: String::new(), points, sent: None };
            Ledger::note_run(dir.path(), work, at, &ended).unwrap();
        };
        note(Work::Drill, 10, JobState::Done, &["aa", "bb"]);
        note(Work::Drill, 20, JobState::Failed, &["bb"]);
        note(Work::Drill, 30, JobState::Cancelled, &["aa"]);
        note(Work::Take, 40, JobState::Done, &["aa"]);
        let drilled = Ledger::look(dir.path()).unwrap().unwrap().drilled().unwrap();
        let at = |id: &str| drilled.get(id).map(|at| at.seconds);
        assert_eq!((at("aa"), at("bb"), at("cc")), (Some(10), Some(20), None));
    }

    #[test]
    fn damage_is_there_until_a_check_that_sees_as_much_finds_none() {
        use JobState::{Cancelled, Done, Failed};
        let dir = tempfile::tempdir().unwrap();
        let (structure, data, scrub) = (Work::Check, Work::CheckData, Work::Scrub);
        let at = Timestamp::from_seconds(7);
        let note = |work, state, said: &str| {
            let ended = Ended { at, state, said: said.to_owned(), points: Vec::new(), sent: None };
            Ledger::note_check(dir.path(), work, at, &ended).unwrap();
            Ledger::look(dir.path()).unwrap().map(|ledger| ledger.damage().unwrap().map(|job| job.task.work))
        };
        let damaged = "pack/1: gone\nthe store is damaged: 1 problem hint: h\n";
        assert_eq!(note(structure, Done, ""), None, "a clean one makes no ledger");
        for (work, state, said, found) in [
            (structure, Failed, damaged, Some(structure)),
            (structure, Failed, "not all could be looked at", Some(structure)),
            (structure, Cancelled, "", Some(structure)),
            (structure, Done, "", None),
            (data, Failed, damaged, Some(data)),
            (structure, Done, "", Some(data)),
            (structure, Failed, damaged, Some(data)),
            (data, Done, "", None),
            (structure, Failed, damaged, Some(structure)),
            (data, Done, "", None),
            (scrub, Failed, damaged, Some(scrub)),
            (structure, Done, "", Some(scrub)),
            (scrub, Failed, "not all could be looked at", Some(scrub)),
            (scrub, Done, "", None),
            (scrub, Failed, damaged, Some(scrub)),
            (data, Done, "", None),
        ] {
            assert_eq!(note(work, state, said), Some(found), "{work} {state} {said}");
        }
        let ledger = Ledger::look(dir.path()).unwrap().unwrap();
        assert!(ledger.jobs(20).unwrap().iter().all(|job| job.person && job.begun == at));
    }
}
