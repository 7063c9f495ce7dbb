//! `holdfast diff`: what changed between two recovery points.

use std::ffi::OsString;

use clap::Args;
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::store::Store;
use holdfast_store::tree::walk::{self, Differences, NodeRef, Pages, compare};
use holdfast_store::tree::{Node, NodeKind};
use serde::Serialize;

use super::Context;
use super::scope::{ScopeArgs, find_node, find_point, parse_spec};
use crate::json::{ChangeLine, PathText};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::patience;
use crate::terminal::{Output, Terminal, text};

/// Show what changed between two recovery points
///
/// Lists every path that was added (+), removed (-) or changed (M content, T type, U attributes such as owner, mode or
/// extended attributes). Directories that are the same in both are not even read, so this is fast for big trees.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast diff latest~1 latest             what the newest point brought
  holdfast diff docs@2026-11-01 docs@latest
  holdfast diff latest~1:etc latest:etc     below one directory")]
pub struct DiffArgs {
    /// The older point
    #[arg(value_name = "POINT[:PATH]")]
    from: OsString,
    /// The younger point
    #[arg(value_name = "POINT[:PATH]")]
    to: OsString,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// How a path changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is only in the younger point.
    Added,
    /// It is only in the older point.
    Removed,
    /// Its content differs.
    Content,
    /// It is another kind of thing.
    Type,
    /// Only its attributes differ.
    Attributes,
}

impl ChangeKind {
    /// restic's letter for it.
    fn modifier(self) -> &'static str {
        match self {
            Self::Added => "+",
            Self::Removed => "-",
            Self::Content => "M",
            Self::Type => "T",
            Self::Attributes => "U",
        }
    }
}

/// A path that changed.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    path: Vec<u8>,
    kind: ChangeKind,
    /// Bytes of the file after and before, if it is one.
    bytes_after: u64,
    bytes_before: u64,
}

/// Compares, and shows each change when it is found.
pub fn run(context: &Context<'_>, args: &DiffArgs) -> Outcome {
    let (from, to) = (parse_spec(&args.from)?, parse_spec(&args.to)?);
    let store = open_store(context)?;
    let scope = args.scope.scope();
    let older = find_node(&store, &find_point(context, &store, &from, &scope)?, &from.path)?;
    let younger = find_node(&store, &find_point(context, &store, &to, &scope)?, &to.path)?;
    let mut report = Report {
        output: context.terminal.output(),
        json: context.terminal.json(),
        sum: Statistics { message_type: "statistics", ..Statistics::default() },
    };
    for change in changes(&store, &older, &younger)? {
        if context.terminal.cancelled() {
            return Err(StoreError::Cancelled.into());
        }
        report.change(&change?)?;
    }
    report.finish(context.terminal)?;
    Ok(Done::Whole)
}

type Changes<'a> = Box<dyn Iterator<Item = Result<Change, Failure>> + 'a>;

/// What led from one tree, or one file, to another.
fn changes<'a>(store: &'a Store, older: &'a Node, younger: &'a Node) -> Result<Changes<'a>, Failure> {
    let (Some(old), Some(new)) = (&older.subtree, &younger.subtree) else {
        return Ok(Box::new(of_one(older, younger).into_iter().map(Ok)));
    };
    let pages = store.pages();
    let comparison = compare((pages, &old.tree), (pages, &new.tree), patience::FOR_A_VAULT)?;
    let mut replaced = Replaced { pages, new: &new.tree, type_changes: Vec::new() };
    Ok(Box::new(comparison.filter_map(move |found| match found {
        Ok(found) => replaced.change(found).transpose(),
        Err(error) => Some(Err(error.into())),
    })))
}

/// The change of two nodes that are not both directories.
fn of_one(older: &Node, younger: &Node) -> Option<Change> {
    let differs = Differences::between(older, younger);
    let kind = if older.kind == younger.kind { kind_of(&differs)? } else { ChangeKind::Type };
    let (bytes_before, bytes_after) = (bytes_of(older), bytes_of(younger));
    Some(Change { path: younger.name.clone(), kind, bytes_after, bytes_before })
}

fn kind_of(differs: &Differences) -> Option<ChangeKind> {
    match differs {
        Differences { content: true, .. } => Some(ChangeKind::Content),
        _ => differs.any().then_some(ChangeKind::Attributes),
    }
}

fn bytes_of(node: &Node) -> u64 {
    if node.kind == NodeKind::File { node.size } else { 0 }
}

/// Tells removal and addition of one name, which the engine reports when the kind of a thing changed, as one change of type.
struct Replaced<'a> {
    pages: &'a Pages,
    new: &'a ChunkId,
    /// Paths whose addition is told already, innermost last.
    type_changes: Vec<Vec<u8>>,
}

impl Replaced<'_> {
    fn change(&mut self, found: walk::Change) -> Result<Option<Change>, Failure> {
        let path = found.path;
        let change = match found.kind {
            walk::ChangeKind::Removed(old) => match self.successor(&path)? {
                Some(new) => {
                    let (bytes_before, bytes_after) = (bytes_of(&old), bytes_of(&new));
                    self.type_changes.push(path.clone());
                    Change { path, kind: ChangeKind::Type, bytes_after, bytes_before }
                }
                None => {
                    Change { path, kind: ChangeKind::Removed, bytes_after: 0, bytes_before: bytes_of(&old) }
                }
            },
            walk::ChangeKind::Added(_) if self.type_changes.last() == Some(&path) => {
                self.type_changes.pop();
                return Ok(None);
            }
            walk::ChangeKind::Added(new) => {
                Change { path, kind: ChangeKind::Added, bytes_after: bytes_of(&new), bytes_before: 0 }
            }
            walk::ChangeKind::Changed { old, new, differs } => {
                let Some(kind) = kind_of(&differs) else { return Ok(None) };
                let content = kind == ChangeKind::Content;
                let bytes = |node: &Node| if content { bytes_of(node) } else { 0 };
                Change { path, kind, bytes_after: bytes(&new), bytes_before: bytes(&old) }
            }
        };
        Ok(Some(change))
    }

    /// What stands in the younger tree where something was removed. Below what is gone itself there is nothing to look for.
    fn successor(&self, path: &[u8]) -> Result<Option<NodeRef>, Failure> {
        let inside =
            |outer: &Vec<u8>| path.strip_prefix(outer.as_slice()).is_some_and(|p| p.starts_with(b"/"));
        if self.type_changes.last().is_some_and(inside) {
            return Ok(None);
        }
        Ok(walk::lookup_path(self.pages, self.new, path, patience::FOR_A_VAULT)?)
    }
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Statistics {
    message_type: &'static str,
    changed_files: u64,
    added: Side,
    removed: Side,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Side {
    paths: u64,
    bytes: u64,
}

impl Statistics {
    fn add(&mut self, change: &Change) {
        match change.kind {
            ChangeKind::Added => self.added.paths += 1,
            ChangeKind::Removed => self.removed.paths += 1,
            ChangeKind::Content | ChangeKind::Type => self.changed_files += 1,
            ChangeKind::Attributes => return,
        }
        self.added.bytes += change.bytes_after;
        self.removed.bytes += change.bytes_before;
    }
}

/// Where changes go, and what they come to.
struct Report {
    output: Output,
    json: bool,
    sum: Statistics,
}

impl Report {
    fn change(&mut self, change: &Change) -> Result<(), Failure> {
        self.sum.add(change);
        let modifier = change.kind.modifier();
        if self.json {
            let path = PathText::of(&change.path);
            return self.output.json_line(&ChangeLine { message_type: "change", path, modifier });
        }
        self.output.bytes(format!("{modifier}    ").as_bytes())?;
        self.output.name(&change.path)?;
        self.output.bytes(b"\n")
    }

    fn finish(mut self, terminal: &Terminal) -> Result<(), Failure> {
        if self.json {
            self.output.json_line(&self.sum)?;
        }
        self.output.finish()?;
        let sum = self.sum;
        terminal.say(&format!(
            "\n{} new ({}), {} removed ({}), {} changed",
            sum.added.paths,
            text::size(sum.added.bytes),
            sum.removed.paths,
            text::size(sum.removed.bytes),
            sum.changed_files
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::node;

    #[test]
    fn bytes_count_where_content_came_or_went() {
        let change =
            |kind, bytes_before, bytes_after| Change { path: b"a".to_vec(), kind, bytes_after, bytes_before };
        let mut sum = Statistics::default();
        sum.add(&change(ChangeKind::Added, 0, 10));
        sum.add(&change(ChangeKind::Removed, 20, 0));
        sum.add(&change(ChangeKind::Content, 5, 7));
        sum.add(&change(ChangeKind::Attributes, 100, 100));
        assert_eq!(sum.added, Side { paths: 1, bytes: 17 });
        assert_eq!(sum.removed, Side { paths: 1, bytes: 25 });
        assert_eq!(sum.changed_files, 1);
    }

    #[test]
    fn two_files_are_compared_like_two_trees() {
        let file = node(b"a", NodeKind::File);
        assert_eq!(of_one(&file, &file), None);
        let other = Node { mode: 0o600, ..file.clone() };
        assert_eq!(of_one(&file, &other).map(|change| change.kind), Some(ChangeKind::Attributes));
        let link = node(b"a", NodeKind::Symlink);
        assert_eq!(
            of_one(&file, &link).map(|change| (change.kind, change.bytes_before)),
            Some((ChangeKind::Type, 5))
        );
    }
}
