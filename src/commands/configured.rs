//! What verbs take from the configuration: its groups, and how it sees the points that there are.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_backup::bandwidth::{Bandwidth, Rate};
use holdfast_backup::config::{Config, Group, Source};
use holdfast_backup::expire::{JudgedPoints, KnownVault, Tiers};
use holdfast_backup::source_name::{KnownSource, choose_name};
use holdfast_store::StoreError;
use holdfast_store::catalog::VaultNo;
use holdfast_store::pace::Pace;
use holdfast_store::store::{Store, StoredPoint};
use jiff::tz::TimeZone;

use super::Context;
use crate::outcome::{Failure, Kind};

/// The groups of the configuration, or the one that was named. `otherwise` says what to give in the place of a configuration.
pub fn groups<'a>(
    context: &'a Context<'_>,
    name: Option<&str>,
    otherwise: &str,
) -> Result<Vec<&'a Group>, Failure> {
    let look = "look at `holdfast config check`";
    let hint = if otherwise.is_empty() { look.to_owned() } else { format!("{otherwise}, or {look}") };
    let config = context.settings.config();
    let config = config.map_err(|failure| Failure { kind: Kind::Usage, ..failure }.hint(hint.clone()))?;
    let groups: Vec<&Group> =
        config.groups.iter().filter(|group| name.is_none_or(|name| group.name == name)).collect();
    match (groups.is_empty(), name) {
        (false, _) => Ok(groups),
        (true, Some(name)) => {
            let known: Vec<&str> = config.groups.iter().map(|group| group.name.as_str()).collect();
            let failure = Failure::usage(format!("the configuration has no group {name}"));
            Err(failure.hint(format!("it has {}", known.join(", "))))
        }
        (true, None) => Err(Failure::usage("the configuration has no group").hint(hint)),
    }
}

/// The zone in which days are counted.
pub fn zone_of(config: &Config) -> TimeZone {
    config.zone.clone().unwrap_or_else(TimeZone::system)
}

/// How fast uploads may go: as was said now, or as the configuration has it, by its clock.
pub fn pace(context: &Context<'_>, said: Option<Rate>) -> Result<Option<Arc<Pace>>, Failure> {
    let (bandwidth, zone) = match (said, context.settings.config_if_any()) {
        (Some(rate), _) => (Bandwidth::always(rate), TimeZone::UTC),
        // To send as fast as it goes would be the opposite of what somebody wanted.
        (None, config) => match config? {
            Some(config) => (config.bandwidth.clone(), zone_of(config)),
            None => return Ok(None),
        },
    };
    if !bandwidth.is_limited() {
        return Ok(None);
    }
    let pace = Pace::new(Arc::clone(context.terminal.clock()), move |now| bandwidth.at(now, &zone));
    Ok(Some(pace))
}

/// The sources of a group on a machine by the points that there are: each name and path once, that of the newest point last.
pub fn known_sources(points: &[StoredPoint], host: &str, group: &str) -> Vec<KnownSource> {
    let here = |stored: &&StoredPoint| stored.point.source.host == host && stored.point.source.group == group;
    let mut seen = HashSet::new();
    let newest_first = points.iter().rev().filter(here).map(|stored| &*stored.point);
    let mut known: Vec<KnownSource> = newest_first
        .filter(|point| seen.insert((&point.source.source, &point.path)))
        .map(|point| KnownSource { name: point.source.source.clone(), path: point.path.clone() })
        .collect();
    known.reverse();
    known
}

/// A source of a group as its points name it, or will.
pub struct NamedSource<'a> {
    /// As the configuration has it.
    pub source: &'a Source,
    /// Its path without symbolic links, if it is there.
    pub path: PathBuf,
    /// The name.
    pub name: String,
}

/// All sources of a group on a machine, in their order.
pub fn named_sources<'a>(points: &[StoredPoint], host: &str, group: &'a Group) -> Vec<NamedSource<'a>> {
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let mut known = known_sources(points, host, &group.name);
    // Names that were given are nobody else's.
    known.extend(
        group
            .sources
            .iter()
            .filter_map(|source| Some(KnownSource { name: source.name.clone()?, path: bytes(&source.path) })),
    );
    let named = |source: &'a Source| {
        // What is not there is told when its turn comes.
        let path = std::fs::canonicalize(&source.path).unwrap_or_else(|_| source.path.clone());
        let name = source.name.clone().unwrap_or_else(|| choose_name(&bytes(&path), &known));
        known.push(KnownSource { name: name.clone(), path: bytes(&path) });
        NamedSource { source, path, name }
    };
    group.sources.iter().map(named).collect()
}

/// These points as the configuration sees them, whoever made them.
pub fn tiers<'a>(
    context: &'a Context<'_>,
    store: &'a Store,
    points: &'a [StoredPoint],
) -> Result<Tiers<'a>, Failure> {
    let known = |(no, address, _): &'a (VaultNo, String, _)| {
        Ok(KnownVault { address, is_known: store.catalog().knows_all_in(*no)? })
    };
    let vaults = store.vaults().iter().map(known).collect::<Result<_, StoreError>>()?;
    let zone = zone_of(context.settings.config()?);
    let (host, now) = (&*context.settings.host, context.terminal.clock().now());
    let (judged, absent) = (JudgedPoints::default(), HashSet::new());
    Ok(Tiers { points, vaults, host, zone, now, judged, absent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::stored_point;

    #[test]
    fn a_source_is_known_once_under_each_name_that_a_path_had_and_the_newest_comes_last() {
        let point = |n: u8, name: &str, path: &[u8]| {
            let mut stored = stored_point(n, name, n.into());
            Arc::make_mut(&mut stored.point).path = path.to_vec();
            stored
        };
        let (here, elsewhere): (&[u8], &[u8]) = (b"/here", b"/elsewhere");
        let mut points: Vec<_> =
            (1..=5).map(|n| point(n, ["old", "new"][usize::from(n) % 2], here)).collect();
        points.push(point(6, "old", elsewhere));
        let known = known_sources(&points, "host", "group");
        let known: Vec<_> = known.iter().map(|one| (&*one.name, &*one.path)).collect();
        assert_eq!(known, [("old", here), ("new", here), ("old", elsewhere)]);
        assert_eq!(known_sources(&points, "box", "group"), []);
    }
}
