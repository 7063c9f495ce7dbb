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

use crate::outcome::Failure;
use crate::patience;
use crate::point_spec::{Candidate, PointName, PointSpec, Scope};
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

    /// The points in scope, in the order given.
    pub fn select(&self, points: Vec<StoredPoint>) -> Vec<StoredPoint> {
        let scope = self.scope();
        points.into_iter().filter(|point| scope.holds(&Candidate::from(point))).collect()
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

/// The point that a name means.
pub fn find_point(store: &Store, spec: &PointSpec, scope: &Scope) -> Result<StoredPoint, Failure> {
    let (points, mut doubtful) = store.points_and_doubtful()?;
    let candidates: Vec<Candidate> = points.iter().map(Candidate::from).collect();
    let id = spec.point.resolve(&candidates, scope)?;
    refuse_doubt(spec, &points, &mut doubtful, id)?;
    Ok(store.point(&id)?)
}

/// Which point is the newest, or was at a time, is not to be told where one of the same source cannot be read. By its id each is found.
pub fn refuse_doubt(
    spec: &PointSpec,
    points: &[StoredPoint],
    doubtful: &mut Vec<DoubtfulPoint>,
    found: RecoveryPointId,
) -> Result<(), Failure> {
    if matches!(spec.point, PointName::Id(_)) {
        return Ok(());
    }
    // `latest` without a source is the newest of several.
    let of_one = |tag| points.iter().any(|point| point.point.id == found && point.point.source_tag == tag);
    let any = matches!(spec.point, PointName::Latest { .. });
    match doubtful.iter().position(|doubt| any || doubt.tag.is_none_or(of_one)) {
        None => Ok(()),
        Some(at) => {
            let hint = "`holdfast snapshots` lists the others: name one by its id";
            Err(Failure::from(doubtful.swap_remove(at).error).hint(hint))
        }
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
