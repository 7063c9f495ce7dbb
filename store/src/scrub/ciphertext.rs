//! Proving the objects of a place by their bytes alone, with no key and no catalog: whoever may read a vault may prove it, also on a
//! machine beside it that must never see what it holds.
//!
//! The name of a pack and of an index object is the hash of its bytes, so all of these are proven. Of the others a reader without a key
//! can prove less: config and key slots have checksums of what is plain in them, all have a header with a checksum, of this store and
//! under the right name, and a length that sealed blocks can have. What is *missing* only those can tell who know what the points need
//! (`holdfast check`).

mod look;
mod objects;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::check::Finding;
use crate::clock::Clock;
use crate::monitor::{Event, Monitor};
use crate::names::Named;
use crate::pace::{Limit, Pace, Pacer};
use crate::transfer::Transfer;
use crate::vault::{ObjectName, VaultError};

use look::Item;

/// Findings that are listed in a report; all are counted.
pub const FINDINGS_LISTED: usize = 10_000;
/// A vault that does not give so many objects, one after the other, is not asked for more: each is tried for minutes.
const NOT_GIVEN_MAX: u32 = 3;

/// One of several parts of equal size into which all names fall, whatever machine looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 1 to `of`.
    number: u32,
    /// Not 0.
    of: u32,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// The one whose turn it is on a day, if `of` of them take turns.
    pub fn of_day(day: u64, of: u32) -> Self {
        let of = of.max(1);
        // Less than `of`, and so a `u32`.
        Self { number: (day % u64::from(of)) as u32 + 1, of }
    }

    /// Whether an object belongs to it.
    pub fn has(self, name: &str) -> bool {
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..8]);
        self.of == 1 || u64::from_le_bytes(first) % u64::from(self.of) == u64::from(self.number) - 1
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse::<u32>().ok();
        let read =
            text.split_once('/').and_then(|(n, of)| Some(Self { number: number(n)?, of: number(of)? }));
        let right = read.filter(|part| (1..=part.of).contains(&part.number));
        right.ok_or_else(|| format!("{text:?} is no part; the seventh of thirty is 7/30"))
    }
}

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Objects whose names fall into it. Config and key slots are looked at every time.
    pub part: Part,
    /// Only objects that order after this one.
    pub after: Option<ObjectName>,
    /// Stops before an object with which more bytes than this would be read, but reads one in any case.
    pub bytes_max: Option<u64>,
    /// Bytes a second, at most.
    pub rate: Option<u64>,
}

impl Default for Scope {
    fn default() -> Self {
        Self { part: Part::WHOLE, after: None, bytes_max: None, rate: None }
    }
}

/// What was proven, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects whose every byte is what its name says: packs and index objects.
    pub proven: u64,
    /// Their bytes.
    pub bytes_proven: u64,
    /// Objects whose plain part and form are right, and of which only a key can prove more.
    pub formed: u64,
    /// Objects in `bad/`, which were found wrong before and moved there. They are not looked at.
    pub aside: u64,
    /// Objects that went while this looked.
    pub gone: u64,
    /// Bytes that were asked for, also of what is wrong and of what was read twice.
    pub bytes_read: u64,
    /// What is wrong, and what could not be looked at; the first [`FINDINGS_LISTED`].
    pub findings: Vec<Finding>,
    /// How many there are.
    pub problems: u64,
    /// Of these, how many could not be looked at.
    pub unseen: u64,
    /// It ended before all were looked at: by its bound of bytes, or because the vault gave nothing more.
    pub is_cut_short: bool,
    /// Then the object after which to go on, if there is one.
    pub goes_on_after: Option<ObjectName>,
}

/// Looks at the objects of the place behind `transfer`.
///
/// # Errors
/// What the vault said when it was listed; `Cancelled`. What goes wrong with a single object is in the report.
pub fn verify(
    transfer: &Transfer,
    clock: &Arc<dyn Clock>,
    scope: &Scope,
    monitor: &dyn Monitor,
) -> Result<Report, VaultError> {
    let pacer = scope.rate.map(|rate| {
        let limit = Limit { bytes_per_second: Some(rate), until: None };
        Pacer::new(&Pace::new(Arc::clone(clock), move |_| limit))
    });
    let mut verify = Verify {
        transfer,
        monitor,
        rate: scope.rate,
        pacer,
        vault: None,
        report: Report::default(),
        not_given: 0,
    };
    verify.learn_vault()?;
    let items = verify.look(scope)?;
    verify.all(&items, scope)?;
    Ok(verify.report)
}

struct Verify<'a> {
    transfer: &'a Transfer,
    monitor: &'a dyn Monitor,
    rate: Option<u64>,
    pacer: Option<Arc<Pacer>>,
    /// Whose objects they must be, if that can be told.
    vault: Option<crate::id::VaultId>,
    report: Report,
    /// Objects that were not given, one after the other.
    not_given: u32,
}

/// What became of looking at one object.
enum Seen {
    /// Every byte is right.
    Proven,
    /// What can be told without a key is right.
    Formed,
    /// It went meanwhile.
    Gone,
    /// It is wrong, and how.
    Wrong(String),
}

impl Verify<'_> {
    fn all(&mut self, items: &[Item], scope: &Scope) -> Result<(), VaultError> {
        let bytes_total = items.iter().map(|item| item.bytes_wanted()).sum();
        let (files_total, name) = (items.len() as u64, "prove objects");
        self.monitor.event(Event::Stage { name, files_total, bytes_total });
        let mut last = scope.after.clone();
        for batch in look::batches(items) {
            let wanted: u64 = batch.iter().map(Item::bytes_wanted).sum();
            let read = self.report.bytes_read;
            let is_more = scope.bytes_max.is_some_and(|most| read.saturating_add(wanted) > most);
            // One that is longer than the bound would never be read else.
            let is_more = is_more && last != scope.after;
            if is_more || self.not_given >= NOT_GIVEN_MAX {
                (self.report.is_cut_short, self.report.goes_on_after) = (true, last);
                return Ok(());
            }
            if self.monitor.cancelled() {
                return Err(VaultError::Cancelled);
            }
            self.batch(batch)?;
            last = batch.last().filter(|item| !look::is_always_seen(&item.named)).map(Item::name).or(last);
            self.monitor.event(Event::Done { files: batch.len() as u64, bytes: wanted });
        }
        Ok(())
    }

    /// One object, or several small ones of which headers are asked for together.
    fn batch(&mut self, batch: &[Item]) -> Result<(), VaultError> {
        let seen = match batch {
            [item] => vec![self.one(item)],
            many => self.headers(many),
        };
        for (item, seen) in batch.iter().zip(seen) {
            self.note(item, seen)?;
        }
        Ok(())
    }

    fn note(&mut self, item: &Item, seen: Result<Seen, VaultError>) -> Result<(), VaultError> {
        let is_given = seen.is_ok();
        match seen {
            Ok(Seen::Proven) => {
                self.report.proven += 1;
                self.report.bytes_proven += item.len;
            }
            Ok(Seen::Formed) => self.report.formed += 1,
            Ok(Seen::Gone) => self.report.gone += 1,
            Ok(Seen::Wrong(detail)) => self.find(item.name().as_str(), detail, false),
            Err(VaultError::Cancelled) => return Err(VaultError::Cancelled),
            // It is another one than the listing showed, and none of ours changes.
            Err(error @ VaultError::TooShort { .. }) => {
                self.find(item.name().as_str(), error.to_string(), false)
            }
            Err(error) => self.find(item.name().as_str(), format!("it cannot be read: {error}"), true),
        }
        self.not_given = if is_given { 0 } else { self.not_given + 1 };
        Ok(())
    }

    fn find(&mut self, object: &str, detail: String, unseen: bool) {
        self.report.problems += 1;
        self.report.unseen += u64::from(unseen);
        self.monitor.event(Event::Problem { path: object.as_bytes().to_vec(), reason: detail.clone() });
        if self.report.findings.len() < FINDINGS_LISTED {
            self.report.findings.push(Finding { object: object.to_owned(), detail, unseen });
        }
    }

    fn one(&mut self, item: &Item) -> Result<Seen, VaultError> {
        match item.named {
            Named::Config => self.config(item),
            Named::Slot(id) => self.slot(item, &id),
            Named::Pack(id) => self.named_by_hash(item, &id.0),
            Named::Index(id) => self.named_by_hash(item, &id.0),
            Named::Heartbeat(..) if item.len == 0 => Ok(Seen::Formed),
            Named::Heartbeat(..) => Ok(Seen::Wrong(format!("{} bytes where none should be", item.len))),
            _ => self.headers(std::slice::from_ref(item)).pop().unwrap_or(Ok(Seen::Gone)),
        }
    }
}
