//! Arguments shared by verbs that name points: which machine, group and source they mean.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;

use clap::Args;
use holdfast_store::StoreError;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::{RecoveryPoint, SourceName};
use holdfast_store::store::{DoubtfulPoint, Store, StoredPoint};
use holdfast_store::tree::Node;
use holdfast_store::tree::walk::{NodeRef, Visit, lookup_path, visit};
use jiff::tz::TimeZone;

use super::Context;
use crate::deleted::Deleted;
use crate::outcome::{Done, Failure};
use crate::patience;
use crate::point_spec::{Candidate, PointName, PointSpec, PointSpecError, Scope};
use crate::terminal::{Terminal, text};

/// Narrows down which points are meant.
#[derive(Clone, Debug, Default, Args)]
pub struct ScopeArgs {
    /// Only points of this data source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Only points of this protection group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Only points of this machine
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

impl ScopeArgs {
    /// As the resolver wants it.
    pub fn scope(&self) -> Scope {
        Scope { host: self.host.clone(), group: self.group.clone(), source: self.source.clone() }
    }

    /// Whether nothing was narrowed down.
    pub fn is_empty(&self) -> bool {
        self.scope() == Scope::default()
    }

    /// What was narrowed down, for people; empty if nothing was.
    pub fn words(&self) -> String {
        let said = [("source", &self.source), ("group", &self.group), ("host", &self.host)];
        let said = said.into_iter().filter_map(|(what, name)| Some(format!("{what} {:?}", name.as_ref()?)));
        said.collect::<Vec<_>>().join(", ")
    }

    /// The points in scope, in the order given.
    pub fn select(&self, points: Vec<StoredPoint>) -> Vec<StoredPoint> {
        let scope = self.scope();
        points.into_iter().filter(|point| scope.holds(&Candidate::from(point))).collect()
    }

    /// The same with those in doubt that may be in scope.
    pub fn select_points(&self, mut points: Points) -> Points {
        let scope = self.scope();
        let doubtful = std::mem::take(&mut points.doubtful);
        let doubtful = doubtful.into_iter().filter(|doubt| points.may_be_in(doubt, &scope)).collect();
        Points { readable: self.select(points.readable), doubtful, deleted: self.select(points.deleted) }
    }
}

/// The newest `n` points of each source, by sequence as `latest` everywhere: a clock may have gone back.
pub fn newest(points: &[StoredPoint], n: usize) -> HashSet<RecoveryPointId> {
    let mut sources: HashMap<&SourceName, Vec<&RecoveryPoint>> = HashMap::new();
    for stored in points {
        sources.entry(&stored.point.source).or_default().push(&stored.point);
    }
    let mut newest = HashSet::new();
    for mut of_one in sources.into_values() {
        of_one.sort_by_key(|point| Reverse((point.sequence, point.started, point.id)));
        newest.extend(of_one.into_iter().take(n).map(|point| point.id));
    }
    newest
}

/// A name as typed, checked before the store is opened, so that a typing error does not cost a passphrase.
pub fn parse_spec(text: &OsStr) -> Result<PointSpec, Failure> {
    Ok(PointSpec::parse(text, &TimeZone::system())?)
}

/// All points of a store.
#[derive(Debug, Default)]
pub struct Points {
    /// Those that can be read, ascending by start.
    pub readable: Vec<StoredPoint>,
    /// Those that cannot be had now; the log has a line for each.
    pub doubtful: Vec<DoubtfulPoint>,
    /// Those that a person deleted and that have not gone yet: only an id means one of them.
    pub deleted: Vec<StoredPoint>,
}

impl Points {
    /// Of this store.
    pub fn of(store: &Store) -> Result<Self, Failure> {
        let (all, doubtful) = store.points_and_doubtful()?;
        let known = Deleted::load(store.dir());
        let (deleted, readable) = all.into_iter().partition(|stored| known.goes(&stored.point.id).is_some());
        Ok(Self { readable, doubtful, deleted })
    }

    /// How a verb ends that did what it could with the points that can be read.
    pub fn done(&self) -> Done {
        if self.doubtful.is_empty() { Done::Whole } else { Done::Partial }
    }

    /// The source of a point in doubt, if another point tells it.
    pub fn source_of(&self, doubt: &DoubtfulPoint) -> Option<&SourceName> {
        let of_same = |stored: &&StoredPoint| Some(stored.point.source_tag) == doubt.tag;
        self.readable.iter().find(of_same).map(|stored| &stored.point.source)
    }

    fn may_be_in(&self, doubt: &DoubtfulPoint, scope: &Scope) -> bool {
        self.source_of(doubt).is_none_or(|source| scope.holds_source(source))
    }

    /// The point that a name means. Which one is the newest, or was at a time, is not to be told where one that may be of the same source is
    /// in doubt.
    pub fn find(&self, name: &PointName, scope: &Scope) -> Result<RecoveryPointId, Failure> {
        let deleted = self.deleted.iter().filter(|_| matches!(name, PointName::Id(_)));
        let candidates: Vec<Candidate> = self.readable.iter().chain(deleted).map(Candidate::from).collect();
        let doubtful: Vec<RecoveryPointId> = self.doubtful.iter().map(|doubt| doubt.id).collect();
        let found = name.resolve(&candidates, &doubtful, scope);
        let is_to_tell =
            matches!(name, PointName::Id(_)) || matches!(found, Err(PointSpecError::SeveralSources { .. }));
        let id = found.as_ref().ok();
        match self.doubtful.iter().find(|doubt| !is_to_tell && self.may_change(doubt, name, id, scope)) {
            Some(doubt) => Err(Failure::failed(format!(
                "which recovery point is meant is not to be told as long as one is in doubt: {}",
                doubt.error
            ))
            .hint("`holdfast snapshots` lists the others: name one by its id")),
            None => found.map_err(|error| self.why(error)),
        }
    }

    /// A point that only a newer key opens is in no doubt: its way out is another one.
    fn why(&self, error: PointSpecError) -> Failure {
        let PointSpecError::InDoubt(id) = &error else { return error.into() };
        let doubt = self.doubtful.iter().find(|doubt| doubt.id == *id);
        match doubt.map(|doubt| &doubt.error) {
            Some(StoreError::NoKey { object, generation }) => {
                StoreError::NoKey { object: object.clone(), generation: *generation }.into()
            }
            _ => error.into(),
        }
    }

    /// Whether a name may mean another point if that in doubt could be read.
    fn may_change(
        &self,
        doubt: &DoubtfulPoint,
        name: &PointName,
        found: Option<&RecoveryPointId>,
        scope: &Scope,
    ) -> bool {
        let PointName::OfSource { source, .. } = name else { return self.may_be_in(doubt, scope) };
        let found = self.readable.iter().find(|stored| Some(&stored.point.id) == found);
        match (found, self.source_of(doubt)) {
            (Some(found), Some(_)) => Some(found.point.source_tag) == doubt.tag,
            // A tag that no other point has may be that of a further source of this name.
            _ => self.may_be_in(doubt, &Scope { source: Some(source.clone()), ..scope.clone() }),
        }
    }
}

/// The point that a name means. One that is not by whom it says is told and given all the same.
pub fn find_point(
    context: &Context<'_>,
    store: &Store,
    spec: &PointSpec,
    scope: &Scope,
) -> Result<StoredPoint, Failure> {
    let id = Points::of(store)?.find(&spec.point, scope)?;
    tell_writers(context, store, &[id])?;
    Ok(store.point(&id)?)
}

/// The points that several names mean, in their order; nothing is looked at if there are none.
pub fn find_points(
    context: &Context<'_>,
    store: &Store,
    specs: &[PointSpec],
    scope: &Scope,
) -> Result<Vec<StoredPoint>, Failure> {
    if specs.is_empty() {
        return Ok(Vec::new());
    }
    let points = Points::of(store)?;
    let ids = specs.iter().map(|spec| points.find(&spec.point, scope)).collect::<Result<Vec<_>, _>>()?;
    tell_writers(context, store, &ids)?;
    ids.iter().map(|id| Ok(store.point(id)?)).collect()
}

fn tell_writers(context: &Context<'_>, store: &Store, ids: &[RecoveryPointId]) -> Result<(), Failure> {
    let judged = store.judge(|id| ids.contains(id))?;
    for judged in ids.iter().filter_map(|id| judged.get(id)) {
        if let Some(alarm) = judged.trust.alarm() {
            context.terminal.warn(&format!("{}: {}", alarm.word(), judged.why));
        }
    }
    Ok(())
}

/// Learns what was freed in vaults since somebody looked there, if a point is to be read that is not kept here.
pub fn follow_reclaim(context: &Context<'_>, store: &Store, point: &StoredPoint) -> Result<(), Failure> {
    match point.local {
        true => Ok(()),
        false => Ok(store.follow_reclaim(&*context.terminal.monitor_of_opening())?),
    }
}

/// What stands at a path within a point: raw bytes, the whole point if there are none.
pub fn find_node(store: &Store, point: &StoredPoint, path: &[u8]) -> Result<Node, Failure> {
    let root = &point.point.root;
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(root.clone());
    }
    let path = names.join(&b'/');
    let found = match &root.subtree {
        Some(below) => lookup_path(store.pages(), &below.tree, &path, patience::FOR_A_VAULT)?,
        None => None,
    };
    found.map(|node| node.to_node()).ok_or_else(|| {
        let point = point.point.id.short();
        Failure::failed(format!("recovery point {point} has no {}", text::printable(&path)))
            .hint(format!("`holdfast ls {point}` lists what it has"))
    })
}

/// What is told of a walk: path and entry.
pub type Walker<'a> = dyn FnMut(&[u8], &NodeRef) -> Result<Visit, Failure> + 'a;

/// Tells `f` of everything below a directory, with the path below it, until `f` or a person says stop. Holds a page per
/// level, however many entries there are.
pub fn walk(terminal: &Terminal, store: &Store, directory: &Node, f: &mut Walker<'_>) -> Result<(), Failure> {
    let Some(below) = &directory.subtree else { return Ok(()) };
    let mut failure = None;
    visit(store.pages(), &below.tree, below.entries, patience::FOR_A_VAULT, &mut |path, node| {
        if terminal.cancelled() {
            return Err(StoreError::Cancelled);
        }
        Ok(f(path, node).unwrap_or_else(|failed| {
            failure = Some(failed);
            Visit::Stop
        }))
    })?;
    failure.map_or(Ok(()), Err)
}

/// The path of something below `directory`, both raw bytes without `/` at their ends.
pub fn join(directory: &[u8], below: &[u8]) -> Vec<u8> {
    if directory.is_empty() { below.to_vec() } else { [directory, b"/", below].concat() }
}

#[cfg(test)]
mod tests;
