//! `holdfast estimate`: what reading a part of a point would cost, before anything is read.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::Args;
use holdfast_store::StoreError;
use holdfast_store::error::ErrorClass;
use holdfast_store::reader::{BlockNo, Frames, Request, Tier, Wanted};
use holdfast_store::store::{Store, StoredPoint};
use holdfast_store::tree::content::ContentReader;
use holdfast_store::tree::walk::Visit;
use holdfast_store::tree::{Extent, Node, NodeKind};
use serde::Serialize;

use super::Context;
use super::place::parse_place;
use super::scope::{ScopeArgs, find_node, find_point, join, walk};
use crate::json::PathText;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::patience;
use crate::terminal::text;

/// Tell what reading a part of a point would cost
///
/// Adds up where the bytes of all files below a path are: in staging, in the local cache, or in a vault only, and how many
/// requests and bytes it would take to fetch those. Contents are not read; directories are, from a vault if need be.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast estimate latest:photos           before copying it out of the mount
  holdfast estimate /mnt/recovery/by-group/default/docs/latest/photos
  holdfast estimate latest --json")]
pub struct EstimateArgs {
    /// POINT, POINT:PATH, or a path in a mount
    #[arg(value_name = "POINT[:PATH]")]
    point: OsString,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Estimates.
pub fn run(context: &Context<'_>, args: &EstimateArgs) -> Outcome {
    let spec = parse_place(&args.point)?;
    let store = open_store(context)?;
    let point = find_point(context, &store, &spec, &args.scope.scope())?;
    let node = find_node(&store, &point, &spec.path)?;
    let needs = Needs::gather(context, &store, &node, &spec.path)?;
    let line = EstimateLine::of(&point, &spec.path, &needs);
    if context.terminal.json() {
        context.terminal.json_line(&line)?;
    } else {
        context.terminal.line(&render(&line))?;
    }
    Ok(needs.outcome())
}

/// What reading everything below a path needs.
#[derive(Debug)]
pub struct Needs<'a> {
    wanted: Wanted<'a>,
    /// What it comes to.
    pub sums: Sums,
    /// How many files are complete with a block, by their last one.
    pub last_blocks: BTreeMap<BlockNo, u64>,
}

/// Files, and their bytes by where they are. A chunk that is in several files counts for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Files.
    pub files: u64,
    /// Lengths of all files, with holes.
    pub bytes: u64,
    /// Decoded in the memory of this process.
    pub memory: u64,
    /// In packs of the staging directory.
    pub staging: u64,
    /// In the local cache of vault ranges.
    pub cache: u64,
    /// In vaults only.
    pub vault: u64,
    /// Files that are not whole anywhere.
    pub lost: u64,
}

impl<'a> Needs<'a> {
    /// Walks everything below a node at `path`, and tells of each file that is not whole anywhere.
    pub fn gather(
        context: &Context<'_>,
        store: &'a Store,
        node: &Node,
        path: &[u8],
    ) -> Result<Self, Failure> {
        let mut needs =
            Self { wanted: store.reader().wanted(), sums: Sums::default(), last_blocks: BTreeMap::new() };
        needs.file(context, store, node, path)?;
        walk(context.terminal, store, node, &mut |below, node| {
            needs.file(context, store, node, &join(path, below)).map(|()| Visit::Continue)
        })?;
        Ok(needs)
    }

    fn file(
        &mut self,
        context: &Context<'_>,
        store: &Store,
        node: &Node,
        path: &[u8],
    ) -> Result<(), Failure> {
        if node.kind != NodeKind::File {
            return Ok(());
        }
        self.sums.files += 1;
        self.sums.bytes += node.size;
        match self.content(context, store, node) {
            Ok(last) => last.iter().for_each(|block| *self.last_blocks.entry(*block).or_default() += 1),
            Err(error) if matches!(error.class(), ErrorClass::NotFound | ErrorClass::Corrupt) => {
                self.sums.lost += 1;
                context.terminal.warn(&format!("{}: {error}", text::printable(path)));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Adds the chunks of a file; the last block that must be fetched for it.
    fn content(
        &mut self,
        context: &Context<'_>,
        store: &Store,
        node: &Node,
    ) -> Result<Option<BlockNo>, StoreError> {
        let content =
            node.content.clone().ok_or_else(|| StoreError::NotFound { what: "its content".into() })?;
        let mut list = ContentReader::new(content);
        let mut last = None;
        for extent in list.extents(store.reader().as_ref(), 0, patience::FOR_A_VAULT) {
            if context.terminal.cancelled() {
                return Err(StoreError::Cancelled);
            }
            if let Extent::Data { id, len } = extent?.1 {
                let (tier, block) = self.wanted.add(&id)?;
                *self.sums.of(tier) += u64::from(len);
                last = last.max(block);
            }
        }
        Ok(last)
    }

    /// The requests that bring what only vaults have.
    pub fn requests(&self) -> Vec<Request> {
        self.wanted.requests()
    }

    /// All that is wanted and not in staging, in the cache or not.
    pub fn all(&self) -> Vec<Request> {
        self.wanted.all()
    }

    /// The frames of it, by pack.
    pub fn frames(&self) -> Vec<Frames> {
        self.wanted.frames()
    }

    /// Has what is in the cache stay there while the rest is fetched.
    pub fn touch(&mut self) {
        self.wanted.touch();
    }

    /// Partial if a file is not whole anywhere.
    pub fn outcome(&self) -> Done {
        if self.sums.lost > 0 { Done::Partial } else { Done::Whole }
    }
}

impl Sums {
    fn of(&mut self, tier: Tier) -> &mut u64 {
        match tier {
            Tier::Memory => &mut self.memory,
            Tier::Staging => &mut self.staging,
            Tier::Cache => &mut self.cache,
            Tier::Vault => &mut self.vault,
        }
    }
}

/// The line of `estimate --json`.
#[derive(Debug, Serialize)]
struct EstimateLine {
    /// Always `estimate`.
    message_type: &'static str,
    /// Full id of the point.
    snapshot_id: String,
    #[serde(flatten)]
    path: PathText,
    total_files: u64,
    /// Lengths of all files, with holes.
    total_bytes: u64,
    bytes_memory: u64,
    bytes_staging: u64,
    bytes_cache: u64,
    bytes_vault: u64,
    /// Requests to a vault that would bring the last.
    vault_requests: u64,
    /// Bytes that these would bring, on the grid and as they are stored.
    vault_request_bytes: u64,
    /// Files that are not whole anywhere.
    files_lost: u64,
}

impl EstimateLine {
    fn of(point: &StoredPoint, path: &[u8], needs: &Needs<'_>) -> Self {
        let (sums, requests) = (needs.sums, needs.requests());
        Self {
            message_type: "estimate",
            snapshot_id: point.point.id.hex(),
            path: PathText::of(path),
            total_files: sums.files,
            total_bytes: sums.bytes,
            bytes_memory: sums.memory,
            bytes_staging: sums.staging,
            bytes_cache: sums.cache,
            bytes_vault: sums.vault,
            vault_requests: requests.len() as u64,
            vault_request_bytes: requests.iter().map(Request::len).sum(),
            files_lost: sums.lost,
        }
    }
}

fn render(line: &EstimateLine) -> String {
    let fetch = match line.vault_requests {
        0 => "nothing has to be fetched".to_owned(),
        n => format!("{} of {} in all", text::count(n, "request"), text::size(line.vault_request_bytes)),
    };
    let mut lines = vec![
        format!("files        {} ({})", line.total_files, text::size(line.total_bytes)),
        format!("in staging   {}", text::size(line.bytes_staging + line.bytes_memory)),
        format!("in cache     {}", text::size(line.bytes_cache)),
        format!("in a vault   {}", text::size(line.bytes_vault)),
        format!("to fetch     {fetch}"),
    ];
    lines.extend(
        (line.files_lost > 0).then(|| format!("not whole    {}", text::count(line.files_lost, "file"))),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::stored_point;

    #[test]
    fn a_person_reads_where_the_bytes_are_and_what_it_takes() {
        let point = stored_point(7, "docs", 1);
        let mut line = EstimateLine {
            message_type: "estimate",
            snapshot_id: point.point.id.hex(),
            path: PathText::of(b"a"),
            total_files: 3,
            total_bytes: 3 << 20,
            bytes_memory: 1 << 10,
            bytes_staging: 1 << 20,
            bytes_cache: 0,
            bytes_vault: 1 << 20,
            vault_requests: 2,
            vault_request_bytes: 768 << 10,
            files_lost: 0,
        };
        assert_eq!(
            render(&line),
            "files        3 (3.000 MiB)\nin staging   1.001 MiB\nin cache     0 B\nin a vault   1.000 MiB\n\
             to fetch     2 requests of 768.000 KiB in all"
        );
        (line.vault_requests, line.files_lost) = (0, 1);
        assert!(render(&line).ends_with("to fetch     nothing has to be fetched\nnot whole    1 file"));
    }
}
