//! Arguments shared by verbs that name points: which machine, group and source they mean.

use std::ffi::OsStr;

use clap::Args;
use holdfast_store::store::{Store, StoredPoint};
use jiff::tz::TimeZone;

use crate::outcome::Failure;
use crate::point_spec::{Candidate, PointSpec, Scope};

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

    /// The points in scope, in the order given.
    pub fn select(&self, points: Vec<StoredPoint>) -> Vec<StoredPoint> {
        let scope = self.scope();
        points.into_iter().filter(|point| scope.holds(&Candidate::from(point))).collect()
    }
}

/// A name as typed, checked before the store is opened, so that a typing error does not cost a passphrase.
pub fn parse_spec(text: &OsStr) -> Result<PointSpec, Failure> {
    Ok(PointSpec::parse(text, &TimeZone::system())?)
}

/// The point that a name means.
pub fn find_point(store: &Store, spec: &PointSpec, scope: &Scope) -> Result<StoredPoint, Failure> {
    let candidates: Vec<Candidate> = store.points()?.iter().map(Candidate::from).collect();
    Ok(store.point(&spec.point.resolve(&candidates, scope)?)?)
}
