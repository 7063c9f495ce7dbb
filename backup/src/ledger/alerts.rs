//! Which alerts are open and were, and what each way of telling has still to tell of them.
//!
//! `told` has a row for each alert and each way that is to tell of it, with what is still to be told. So a way that is added later is seen
//! by its missing row, and is told of what is open.

use std::str::FromStr;

use holdfast_store::clock::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{Ledger, LedgerError, shortened, version};
use crate::alert::Alert;
use crate::alert::telling::{Event, Known, pending};

/// Alerts that are gone are remembered up to this number.
const CLOSED_MAX: i64 = 1000;

pub(super) const TABLES: &str = "
CREATE TABLE alert(no INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, subject TEXT NOT NULL, since INTEGER, opened INTEGER NOT NULL,
    looks INTEGER NOT NULL, told INTEGER, closed INTEGER, what TEXT NOT NULL, next_step TEXT NOT NULL);
CREATE UNIQUE INDEX alert_open ON alert(name, subject) WHERE closed IS NULL;
CREATE TABLE told(alert INTEGER NOT NULL, way TEXT NOT NULL, pending TEXT NOT NULL, PRIMARY KEY(alert, way)) WITHOUT ROWID;
";

const COLUMNS: &str = "no, name, subject, since, opened, looks, told, closed, what, next_step";

/// What is still to be told of an alert by a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// Of which.
    pub alert: Known,
    /// What, in this order; never empty.
    pub events: Vec<Event>,
}

impl Ledger {
    /// The alerts that are open, in the order in which they came.
    pub fn open_alerts(&self) -> Result<Vec<Known>, LedgerError> {
        self.alerts_where("closed IS NULL ORDER BY no", u32::MAX)
    }

    /// The last ones that are gone, the newest first.
    pub fn closed_alerts(&self, most: u32) -> Result<Vec<Known>, LedgerError> {
        self.alerts_where("closed IS NOT NULL ORDER BY closed DESC, no DESC", most)
    }

    fn alerts_where(&self, which: &str, most: u32) -> Result<Vec<Known>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM alert WHERE {which} LIMIT ?1");
        self.read(|c| match version(c)? {
            // Of a daemon that is older than this program.
            1 => Ok(Vec::new()),
            _ => c.prepare_cached(&sql)?.query_map([most], known)?.collect(),
        })
    }

    /// Puts down what a look found, with what is to be told, by each of these ways.
    pub fn follow(&self, followed: &[(Known, Option<Event>)], ways: &[&str]) -> Result<(), LedgerError> {
        self.write(|c| {
            for (known, event) in followed {
                let no = put(c, known)?;
                for way in event.iter().flat_map(|_| ways) {
                    let before = waiting(c, no, way)?;
                    set_waiting(c, no, way, &event.map_or(Vec::new(), |event| pending(before, event)))?;
                }
            }
            c.execute(
                "DELETE FROM alert WHERE closed IS NOT NULL AND no NOT IN
                     (SELECT no FROM alert WHERE closed IS NOT NULL ORDER BY closed DESC, no DESC LIMIT ?1)",
                [CLOSED_MAX],
            )?;
            c.execute("DELETE FROM told WHERE alert NOT IN (SELECT no FROM alert)", []).map(drop)
        })
    }

    /// These are the ways now: one that is new is to tell what is open and was told before, and what waits for others is forgotten.
    pub fn set_ways(&self, ways: &[&str]) -> Result<(), LedgerError> {
        self.write(|c| {
            let mut known: Vec<String> = c
                .prepare_cached("SELECT DISTINCT way FROM told")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            known.retain(|way| !ways.contains(&way.as_str()));
            for way in known {
                c.execute("DELETE FROM told WHERE way = ?1", [way])?;
            }
            for way in ways {
                c.execute(
                    "INSERT OR IGNORE INTO told(alert, way, pending)
                     SELECT no, ?1, ?2 FROM alert WHERE closed IS NULL AND told IS NOT NULL",
                    (way, Event::Opened.to_string()),
                )?;
            }
            Ok(())
        })
    }

    /// What a way has still to tell, the oldest alert first.
    pub fn untold(&self, way: &str) -> Result<Vec<Untold>, LedgerError> {
        let sql = format!(
            "SELECT {COLUMNS}, pending FROM alert JOIN told ON told.alert = alert.no AND way = ?1
             WHERE pending <> '' ORDER BY no"
        );
        self.read(|c| {
            let untold =
                |row: &Row<'_>| Ok(Untold { alert: known(row)?, events: words(&row.get::<_, String>(10)?)? });
            match version(c)? {
                1 => Ok(Vec::new()),
                _ => c.prepare_cached(&sql)?.query_map([way], untold)?.collect(),
            }
        })
    }

    /// A way has told an event of an alert.
    pub fn told(&self, alert: i64, way: &str, event: Event) -> Result<(), LedgerError> {
        self.write(|c| {
            let mut waits = waiting(c, alert, way)?;
            if let Some(at) = waits.iter().position(|waiting| *waiting == event) {
                waits.remove(at);
                set_waiting(c, alert, way, &waits)?;
            }
            Ok(())
        })
    }
}

fn put(c: &Connection, known: &Known) -> rusqlite::Result<i64> {
    let Known { no, alert, opened, looks, told, closed } = known;
    c.execute(
        "INSERT OR REPLACE INTO alert(no, name, subject, since, opened, looks, told, closed, what, next_step)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        (
            no,
            &alert.name,
            &alert.subject,
            alert.since.map(|at| at.seconds),
            opened.seconds,
            looks,
            told.map(|at| at.seconds),
            closed.map(|at| at.seconds),
            shortened(&alert.what),
            &alert.next_step,
        ),
    )?;
    Ok(c.last_insert_rowid())
}

fn waiting(c: &Connection, alert: i64, way: &str) -> rusqlite::Result<Vec<Event>> {
    let sql = "SELECT pending FROM told WHERE alert = ?1 AND way = ?2";
    let found: Option<String> = c.query_row(sql, (alert, way), |row| row.get(0)).optional()?;
    words(&found.unwrap_or_default())
}

fn set_waiting(c: &Connection, alert: i64, way: &str, events: &[Event]) -> rusqlite::Result<()> {
    let words: Vec<String> = events.iter().map(ToString::to_string).collect();
    let sql = "INSERT OR REPLACE INTO told(alert, way, pending) VALUES (?1, ?2, ?3)";
    c.execute(sql, (alert, way, words.join(" "))).map(drop)
}

fn words(text: &str) -> rusqlite::Result<Vec<Event>> {
    let wrong =
        |what: String| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, what.into());
    text.split_whitespace().map(|word| Event::from_str(word).map_err(wrong)).collect()
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let at = |index: usize| row.get::<_, Option<i64>>(index).map(|at| at.map(Timestamp::from_seconds));
    Ok(Known {
        no: Some(row.get(0)?),
        alert: Alert {
            name: row.get(1)?,
            subject: row.get(2)?,
            since: at(3)?,
            what: row.get(8)?,
            next_step: row.get(9)?,
        },
        opened: Timestamp::from_seconds(row.get(4)?),
        looks: row.get(5)?,
        told: at(6)?,
        closed: at(7)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{NAME, TABLES as FIRST_TABLES, VERSION};
    use super::*;
    use crate::agenda::{Task, Work};
    use crate::alert::telling::{Found, follow};

    fn alert(name: &str) -> Alert {
        let since = Some(Timestamp::from_seconds(7));
        Alert { name: name.into(), subject: "s".into(), since, what: "w".into(), next_step: "n".into() }
    }

    fn look(ledger: &Ledger, second: i64, names: &[&str], ways: &[&str]) {
        let found =
            Found { alerts: names.iter().map(|name| alert(name)).collect(), whole: true, passed_over: None };
        let followed = follow(ledger.open_alerts().unwrap(), &found, Timestamp::from_seconds(second));
        ledger.follow(&followed, ways).unwrap();
    }

    fn waits(ledger: &Ledger, way: &str) -> Vec<(i64, Vec<Event>)> {
        ledger.untold(way).unwrap().into_iter().map(|u| (u.alert.no.unwrap(), u.events)).collect()
    }

    #[test]
    fn an_alert_is_remembered_as_it_was_and_opens_anew_when_it_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        look(&ledger, 10, &["a"], &[]);
        look(&ledger, 20, &["a"], &[]);
        let (opened, told) = (Timestamp::from_seconds(10), Some(Timestamp::from_seconds(20)));
        let expected = Known { no: Some(1), alert: alert("a"), opened, looks: 2, told, closed: None };
        assert_eq!(ledger.open_alerts().unwrap(), std::slice::from_ref(&expected));
        look(&ledger, 30, &[], &[]);
        look(&ledger, 40, &["a"], &[]);
        let closed = Known { closed: Some(Timestamp::from_seconds(30)), ..expected };
        assert_eq!(ledger.closed_alerts(5).unwrap(), [closed]);
        let open = ledger.open_alerts().unwrap();
        assert_eq!((open.len(), open[0].no, open[0].looks, open[0].told), (1, Some(2), 1, None));
        let reader = Ledger::look(dir.path()).unwrap().unwrap();
        assert_eq!(reader.open_alerts().unwrap(), open);
    }

    #[test]
    fn what_a_way_did_not_tell_stays_until_it_did_and_the_other_way_is_not_concerned() {
        use Event::{Closed, Opened};
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let ways = ["mail", "webhook"];
        (0..2).for_each(|second| look(&ledger, second, &["a"], &ways));
        ledger.told(1, "mail", Opened).unwrap();
        assert_eq!((waits(&ledger, "mail"), waits(&ledger, "webhook")), (vec![], vec![(1, vec![Opened])]));
        look(&ledger, 3, &[], &ways);
        assert_eq!(waits(&ledger, "mail"), [(1, vec![Closed])]);
        assert_eq!(waits(&ledger, "webhook"), [(1, vec![Opened, Closed])]);
        ledger.told(1, "webhook", Opened).unwrap();
        ledger.told(1, "webhook", Opened).unwrap();
        assert_eq!(waits(&ledger, "webhook"), [(1, vec![Closed])]);
    }

    #[test]
    fn a_way_that_is_new_tells_what_is_open_and_one_that_is_gone_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        (0..2).for_each(|second| look(&ledger, second, &["a", "gone"], &["mail"]));
        look(&ledger, 2, &["a", "young"], &["mail"]);
        ledger.set_ways(&["webhook"]).unwrap();
        assert_eq!(
            (waits(&ledger, "mail"), waits(&ledger, "webhook")),
            (vec![], vec![(1, vec![Event::Opened])])
        );
        ledger.told(1, "webhook", Event::Opened).unwrap();
        ledger.set_ways(&["webhook"]).unwrap();
        assert_eq!(waits(&ledger, "webhook"), []);
    }

    #[test]
    fn a_ledger_of_the_first_version_keeps_its_jobs_and_learns_of_alerts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let old = Connection::open(&path).unwrap();
        old.execute_batch(FIRST_TABLES).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let reader = Ledger::look(dir.path()).unwrap().unwrap();
        assert_eq!((reader.open_alerts().unwrap(), reader.jobs(9).unwrap()), (vec![], vec![]));
        assert_eq!((reader.closed_alerts(9).unwrap(), reader.untold("mail").unwrap()), (vec![], vec![]));
        reader.connection().pragma_update(None, "query_only", "OFF").unwrap();
        let web = Task { work: Work::Take, group: Some("web".into()) };
        reader.begin(&web, false, Timestamp::from_seconds(1)).unwrap();
        drop(reader);
        let (ledger, aside) = Ledger::open(dir.path()).unwrap();
        assert_eq!((aside, ledger.jobs(9).unwrap().len()), (None, 1));
        look(&ledger, 1, &["a"], &[]);
        assert_eq!(ledger.open_alerts().unwrap().len(), 1);
        assert_eq!(version(&ledger.connection()).unwrap(), VERSION);
    }

    #[test]
    fn of_those_that_are_gone_only_the_last_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let gone = |n: i64| Known {
            no: None,
            alert: alert(&n.to_string()),
            opened: Timestamp::from_seconds(n),
            looks: 2,
            told: None,
            closed: Some(Timestamp::from_seconds(n)),
        };
        let many: Vec<_> = (0..CLOSED_MAX + 5).map(|n| (gone(n), Some(Event::Closed))).collect();
        ledger.follow(&many, &["mail"]).unwrap();
        assert_eq!(ledger.closed_alerts(u32::MAX).unwrap().len(), 1000);
        assert_eq!(waits(&ledger, "mail").len(), 1000);
        assert_eq!(ledger.closed_alerts(1).unwrap()[0].opened.seconds, CLOSED_MAX + 4);
    }
}
