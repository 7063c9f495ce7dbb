//! What a path meant once it means as long as a mount runs, or nothing, whatever comes, goes, and comes to be in doubt.

use std::collections::{BTreeSet, HashMap};

use holdfast_store::id::SourceTag;
use holdfast_store::point::SourceName;
use holdfast_store::store::StoredPoint;

use super::*;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Point(RecoveryPointId),
    /// Of a directory, and of `latest`, which moves within it.
    Source(SourceName),
}

/// A point that may be there, and how it is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Gone,
    Well,
    /// In doubt, after it was shown well.
    InDoubt,
    /// In doubt since it came: where it belongs was not known yet.
    NeverWell,
}

/// Points of machines, groups and sources whose names come near to one another, four of each in two seconds.
fn points() -> Vec<StoredPoint> {
    let long = ["1", "2"].map(|end| format!("{}{end}", "n".repeat(110)));
    let mut all = Vec::new();
    for host in ["a", "b"] {
        for group in ["g", "h", "g/x", "g-x"] {
            for source in ["s", "s@a", &long[0], &long[1]] {
                let second = |sequence: u64| NOON + (sequence as i64 - 1) / 2;
                all.extend((1..=4).map(|n| point(host, group, source, second(n), n)));
            }
        }
    }
    all
}

/// The same point with a damaged row of which, by chance, not even the source is known.
fn in_doubt(stored: &StoredPoint, chance: &mut Chance) -> StoredPoint {
    let mut stored = stored.clone();
    let doubtful = Arc::make_mut(&mut stored.point);
    (doubtful.sequence, doubtful.started.seconds) = (u64::MAX, 0);
    if chance.below(2) == 0 {
        doubtful.source_tag = SourceTag(doubtful.id.0);
        (doubtful.source.host, doubtful.source.group) = ("unknown".into(), "unknown".into());
        doubtful.source.source = doubtful.id.hex();
    }
    stored
}

/// What every path of a layout leads to, but for those by id.
fn paths(view: &View) -> HashMap<String, Meaning> {
    let (layout, mut found) = (view.layout(), HashMap::new());
    let mut to_see: Vec<_> = ["by-group", "by-time"].map(|top| (top.to_owned(), 0)).into();
    while let Some((path, depth)) = to_see.pop() {
        let ino = walk(view, &path).unwrap();
        match layout.get(ino).unwrap() {
            Stands::Folder(folder) => {
                let names = folder.listed.values().chain(folder.hidden.values()).map(|item| &item.name);
                to_see.extend(names.map(|name| (format!("{path}/{name}"), depth + 1)));
            }
            Stands::Root(root) => {
                let (source, _) = path.rsplit_once('/').unwrap();
                let is = Meaning::Source((*root.source).clone());
                assert_eq!(*found.entry(source.to_owned()).or_insert(is.clone()), is, "{source}");
                found.insert(path, Meaning::Point(root.point));
            }
            Stands::Link(link) => {
                let (folder, name) = path.rsplit_once('/').unwrap();
                let target = link.target.trim_start_matches("../../").to_owned();
                let target = if name == "latest" { format!("{folder}/{target}") } else { target };
                let Some(Stands::Root(root)) = layout.get(walk(view, &target).unwrap()) else {
                    panic!("{path} leads to {target}")
                };
                let source = Meaning::Source((*root.source).clone());
                found
                    .insert(path.clone(), if name == "latest" { source } else { Meaning::Point(root.point) });
            }
        }
    }
    found
}

#[test]
fn a_path_never_comes_to_mean_anything_else_and_what_stays_keeps_all_its_paths() {
    let all = points();
    for seed in 1..=40 {
        let mut chance = Chance(seed);
        let recovery = MemoryRecovery::new();
        let view = View::new(recovery.clone(), 0, 0).unwrap();
        let mut told = vec![Told::Gone; all.len()];
        let mut meant: HashMap<String, Meaning> = HashMap::new();
        let mut kept: HashMap<RecoveryPointId, BTreeSet<String>> = HashMap::new();
        // Few of all at a time, so that they often meet those that went.
        let few: Vec<_> = (0..12).map(|_| chance.below(all.len() as u64) as usize).collect();
        for step in 0..60 {
            let changing: BTreeSet<_> =
                (0..=chance.below(3)).map(|_| few[chance.below(12) as usize]).collect();
            for n in changing {
                let doubtful = chance.below(3) == 0;
                told[n] = match told[n] {
                    Told::Gone if doubtful => Told::NeverWell,
                    Told::Gone | Told::NeverWell => Told::Well,
                    Told::Well if doubtful => Told::InDoubt,
                    Told::InDoubt if doubtful => Told::Well,
                    Told::Well | Told::InDoubt => Told::Gone,
                };
                recovery.remove(&all[n].point.id);
                let is_there = match told[n] {
                    Told::Gone => None,
                    Told::Well => Some(all[n].clone()),
                    Told::InDoubt | Told::NeverWell => Some(in_doubt(&all[n], &mut chance)),
                };
                is_there.into_iter().for_each(|p| recovery.add(p, recovery.directory("root", vec![])));
            }
            view.refresh().unwrap();
            let now = paths(&view);
            for (path, is) in &now {
                let before = meant.entry(path.clone()).or_insert_with(|| is.clone());
                assert_eq!(before, is, "{path} in step {step} of seed {seed}");
            }
            for (n, stored) in all.iter().enumerate() {
                let id = stored.point.id;
                let paths = now.iter().filter(|(_, is)| **is == Meaning::Point(id)).map(|(path, _)| path);
                let paths: BTreeSet<_> = paths.cloned().collect();
                match told[n] {
                    Told::Gone | Told::NeverWell => drop(kept.remove(&id)),
                    Told::Well | Told::InDoubt => {
                        assert!(paths.len() >= 2, "{paths:?} in step {step} of seed {seed}");
                        let before = kept.entry(id).or_insert_with(|| paths.clone());
                        assert!(
                            before.is_subset(&paths),
                            "{before:?} became {paths:?}: {step} of seed {seed}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_point_in_doubt_keeps_a_directory_that_carries_its_tag() {
    let long = "n".repeat(110);
    let [one, other] = ["1", "2"].map(|end| point("h", "g", &format!("{long}{end}"), NOON, 1));
    let third = point("h", "g", "s", NOON, 1);
    let recovery = MemoryRecovery::new();
    let add = |stored: &StoredPoint| recovery.add(stored.clone(), recovery.directory("root", vec![]));
    [&one, &other, &third].into_iter().for_each(add);
    let view = View::new(recovery.clone(), 0, 0).unwrap();
    let before = paths(&view);
    assert_eq!(before.keys().filter(|path| path.contains('~')).count(), 10, "{before:?}");
    recovery.remove(&one.point.id);
    add(&in_doubt(&one, &mut Chance(1)));
    view.refresh().unwrap();
    recovery.remove(&third.point.id);
    view.refresh().unwrap();
    let left = |paths: HashMap<String, Meaning>| -> BTreeSet<_> {
        paths.into_keys().filter(|path| path.contains('~')).collect()
    };
    let all = left(before);
    assert_eq!(left(paths(&view)), all);
    recovery.remove(&one.point.id);
    add(&one);
    view.refresh().unwrap();
    assert_eq!(left(paths(&view)), all);
}
