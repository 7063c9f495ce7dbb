//! Which paths of a point are meant.

use super::RestoreOptions;
use crate::pattern::{Patterns, Verdict};

/// What the patterns say of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Choice {
    included: Verdict,
    excluded: Verdict,
    /// Whether it is meant itself.
    pub(super) chosen: bool,
    /// Whether something below it may be.
    pub(super) leads: bool,
}

impl Choice {
    /// Of `name` in a directory of which this was said; `trail` are the names that lead to that.
    pub(super) fn below(self, options: &RestoreOptions, trail: &[Vec<u8>], name: &[u8]) -> Self {
        let (include, exclude): (&Patterns, &Patterns) = (&options.include, &options.exclude);
        let excluded = exclude.judge(self.excluded, trail, name);
        let included = include.judge(self.included, trail, name);
        let chosen = !excluded.chosen() && (include.is_empty() || included.chosen());
        let leads = chosen || (!excluded.chosen() && include.may_lead(trail, name));
        Self { included, excluded, chosen, leads }
    }
}
