//! What was changed in a vault, so that a listing of it can be as it was before.

use crate::vault::{ObjectInfo, ObjectName};

/// Changes in the order in which they were made, each with the length of what was there before.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(ObjectName, Option<u64>)>);

impl Changes {
    pub(super) fn put(&mut self, name: &ObjectName) {
        self.0.push((name.clone(), None));
    }

    pub(super) fn removed(&mut self, name: &ObjectName, len: u64) {
        self.0.push((name.clone(), Some(len)));
    }

    /// Takes the last `count` changes below `prefix` back in one page of a listing; what was removed is shown again on the first one.
    pub(super) fn undo(&self, count: usize, prefix: &str, is_first: bool, page: &mut Vec<ObjectInfo>) {
        let below = self.0.iter().rev().filter(|(name, _)| name.as_str().starts_with(prefix));
        for (name, before) in below.take(count) {
            page.retain(|object| object.name != *name);
            let removed = before.filter(|_| is_first);
            page.extend(removed.map(|len| ObjectInfo { name: name.clone(), len, put_at: None }));
        }
        page.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
}
