//! Which objects there are, by listings, and in which order they are looked at.

use std::cell::{Cell, RefCell};

use super::{Scope, Verify};
use crate::clock::Deadline;
use crate::names::{self, Named};
use crate::vault::{NoObject, ObjectName, VaultError};

/// What lies below these is looked at, in this order, which is that of names.
const PREFIXES: [&str; 8] = [
    names::GENERATIONS,
    names::HEARTBEATS,
    names::HOLDS,
    names::INDEXES,
    names::SLOTS,
    names::PACKS,
    names::POINTS,
    names::SESSIONS,
];
/// Names that are no object's and are kept to be told; more are counted.
const STRANGE_KEPT: usize = 1_000;
/// Headers that are asked for together.
const HEADERS_TOGETHER: usize = 16;

/// An object that was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub named: Named,
    pub len: u64,
}

impl Item {
    pub(super) fn name(&self) -> ObjectName {
        self.named.name()
    }

    /// How many of its bytes are to be read.
    pub(super) fn bytes_wanted(&self) -> u64 {
        match self.named {
            Named::Heartbeat(..) => 0,
            _ if self.has_header_alone() => self.len.min(crate::format::HEADER_LEN as u64),
            _ => self.len,
        }
    }

    /// Whether no more than its header says anything without a key.
    fn has_header_alone(&self) -> bool {
        use Named::{Config, Heartbeat, Index, Pack, Slot};
        !matches!(self.named, Config | Slot(_) | Pack(_) | Index(_) | Heartbeat(..))
    }
}

/// Without them nothing in the place can be read, and there are few: they belong to every part.
pub(super) fn is_always_seen(named: &Named) -> bool {
    matches!(named, Named::Config | Named::Slot(_))
}

/// What is read together: single objects, and of those of which the header alone is read some at once.
pub(super) fn batches(items: &[Item]) -> impl Iterator<Item = &[Item]> {
    items
        .chunk_by(|one, next| one.has_header_alone() && next.has_header_alone())
        .flat_map(|run| run.chunks(HEADERS_TOGETHER))
}

impl Verify<'_> {
    /// The objects to look at: those that every part has, then the others in the order of their names. What has no name of ours is told.
    pub(super) fn look(&mut self, scope: &Scope) -> Result<Vec<Item>, VaultError> {
        let (mut always, mut others) = (Vec::new(), Vec::new());
        if let Some(len) = self.transfer.stat(&names::config())? {
            always.push(Item { named: Named::Config, len });
        }
        for prefix in PREFIXES {
            let listed = self.list(prefix, scope)?;
            if prefix == names::SLOTS { always.extend(listed) } else { others.extend(listed) }
        }
        let aside = Cell::new(0);
        self.transfer.list_as(names::BAD, Deadline::NEVER, |_| {
            aside.set(aside.get() + 1);
            None::<()>
        })?;
        self.report.aside = aside.get();
        always.append(&mut others);
        Ok(always)
    }

    fn list(&mut self, prefix: &'static str, scope: &Scope) -> Result<Vec<Item>, VaultError> {
        let (strange, more) = (RefCell::new(Vec::new()), Cell::new(0_u64));
        let kept = self.transfer.list_as(prefix, Deadline::NEVER, |object| {
            let is_wanted = prefix == names::SLOTS || is_in(scope, &object.name);
            let named = Named::parse(object.name.as_str());
            let mut strange = strange.borrow_mut();
            match named {
                Some(named) => is_wanted.then_some(Item { named, len: object.len }),
                None if is_wanted && strange.len() < STRANGE_KEPT => {
                    strange.push(object.name.clone());
                    None
                }
                None => {
                    more.set(more.get() + u64::from(is_wanted));
                    None
                }
            }
        })?;
        for name in strange.into_inner() {
            self.find(name.as_str(), "this is no name of an object of a store".into(), false);
        }
        if more.get() > 0 {
            self.find(prefix, format!("{} more names that are no object's", more.get()), false);
        }
        let is_object = |name: &ObjectName| Named::parse(name.as_str()).is_some();
        for NoObject { name, what } in self.transfer.no_objects(prefix, is_object)? {
            if prefix == names::SLOTS || is_in(scope, &name) {
                self.find(name.as_str(), format!("{what} lies here, which is no object"), false);
            }
        }
        Ok(kept)
    }
}

fn is_in(scope: &Scope, name: &ObjectName) -> bool {
    let is_after = scope.after.as_ref().is_none_or(|after| name > after);
    is_after && scope.part.has(name.as_str())
}
