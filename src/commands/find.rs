//! `holdfast find`: in which recovery points a name exists.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use holdfast_backup::pattern::{Patterns, Verdict};
use holdfast_store::store::{Store, StoredPoint};
use holdfast_store::tree::walk::Visit;
use holdfast_store::tree::{Node, NodeKind};

use super::Context;
use super::scope::{Points, ScopeArgs, find_points, parse_spec, walk};
use crate::json::{FindLine, NodeLine};
use crate::open::open_store;
use crate::outcome::{Failure, Outcome};

/// Search recovery points for names
///
/// Shows every file and directory whose name matches a pattern, in all recovery points or in those asked for. A pattern
/// without `/` is compared with the name alone; one with `/` with the whole path within the point.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast find report.txt                  in which points is there a report.txt?
  holdfast find -i '*.JPG' --source photos  in one data source, whatever the case
  holdfast find 'projects/*/Cargo.toml' --point latest")]
pub struct FindArgs {
    /// Shell patterns; one match is enough
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<OsString>,
    /// Only in these points
    #[arg(long = "point", value_name = "POINT")]
    points: Vec<OsString>,
    /// Upper and lower case are the same
    #[arg(short, long)]
    ignore_case: bool,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Something that was found.
#[derive(Debug)]
struct Match {
    /// Path within the point, raw bytes.
    path: Vec<u8>,
    node: Node,
}

/// What was found in one point.
#[derive(Debug)]
struct Found {
    point: StoredPoint,
    matches: Vec<Match>,
}

/// Searches, and shows the matches of each point when it is through with it.
pub fn run(context: &Context<'_>, args: &FindArgs) -> Outcome {
    let patterns = patterns(args)?;
    let specs = args.points.iter().map(|point| parse_spec(point)).collect::<Result<Vec<_>, _>>()?;
    if specs.iter().any(|spec| !spec.path.is_empty()) {
        return Err(Failure::usage("--point names a whole recovery point, without :PATH"));
    }
    let store = open_store(context)?;
    let points = match specs.as_slice() {
        [] => args.scope.select_points(Points::of(&store)?),
        _ => {
            let readable = find_points(context, &store, &specs, &args.scope.scope())?;
            Points { readable, ..Points::default() }
        }
    };
    let done = points.done();
    let mut lines = Vec::new();
    for point in points.readable {
        let found = search(context, &store, point, &patterns)?;
        if context.terminal.json() {
            lines.extend((!found.matches.is_empty()).then(|| as_json(&found)));
        } else {
            show(context, &found)?;
        }
    }
    if context.terminal.json() {
        context.terminal.json_line(&lines)?;
    }
    Ok(done)
}

/// A pattern with a `/` in it is of the whole path, so it begins at the root whether or not it is written so.
fn patterns(args: &FindArgs) -> Result<Patterns, Failure> {
    let mut patterns = Patterns::default();
    for given in &args.patterns {
        let given = given.as_bytes();
        let anchored = if given.contains(&b'/') && !given.starts_with(b"/") {
            [b"/", given].concat()
        } else {
            given.to_vec()
        };
        let added = patterns.add(&anchored, args.ignore_case);
        added.map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(patterns)
}

fn search(
    context: &Context<'_>,
    store: &Store,
    point: StoredPoint,
    patterns: &Patterns,
) -> Result<Found, Failure> {
    let mut matches = Vec::new();
    let root = point.point.root.clone();
    if root.kind == NodeKind::Directory {
        walk(context.terminal, store, &root, &mut |path, node| {
            if is_match(patterns, path) {
                matches.push(Match { path: path.to_vec(), node: node.to_node() });
            }
            Ok(Visit::Continue)
        })?;
    } else if is_match(patterns, &root.name) {
        matches.push(Match { path: root.name.clone(), node: root });
    }
    Ok(Found { point, matches })
}

/// Whether the patterns say so of this path itself; that they say so of a directory above says nothing of it.
fn is_match(patterns: &Patterns, path: &[u8]) -> bool {
    let mut above: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    let name = above.pop().unwrap_or_default();
    patterns.judge(Verdict::default(), &above, &name).chosen()
}

fn show(context: &Context<'_>, found: &Found) -> Result<(), Failure> {
    let mut output = context.terminal.output();
    let id = found.point.point.id.short();
    for entry in &found.matches {
        output.bytes(id.as_bytes())?;
        output.bytes(b":")?;
        output.name(&entry.path)?;
        output.bytes(b"\n")?;
    }
    output.finish()
}

fn as_json(found: &Found) -> FindLine {
    FindLine {
        matches: found.matches.iter().map(|entry| NodeLine::of(&entry.path, &entry.node)).collect(),
        hits: found.matches.len() as u64,
        snapshot: found.point.point.id.hex(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: FindArgs,
    }

    fn matches(line: &[&str], path: &[u8]) -> bool {
        let args = Line::try_parse_from(std::iter::once(&"find").chain(line)).unwrap().args;
        is_match(&patterns(&args).unwrap(), path)
    }

    #[test]
    fn a_name_is_found_anywhere_and_a_path_only_where_it_is() {
        assert!(matches(&["report.txt"], b"a/b/report.txt"));
        assert!(matches(&["*.txt"], b"report.txt"));
        assert!(!matches(&["report.txt"], b"report.txt/inside"));
        assert!(matches(&["projects/*/Cargo.toml"], b"projects/x/Cargo.toml"));
        assert!(!matches(&["projects/*/Cargo.toml"], b"old/projects/x/Cargo.toml"));
        assert!(matches(&["/projects"], b"projects"));
        assert!(!matches(&["/projects"], b"old/projects"));
    }

    #[test]
    fn case_counts_unless_told_otherwise_and_one_match_is_enough() {
        assert!(!matches(&["*.JPG"], b"a.jpg"));
        assert!(matches(&["-i", "*.JPG"], b"a.jpg"));
        assert!(matches(&["x", "*.jpg"], b"a.jpg"));
        assert!(matches(&["?.bin"], b"\xff.bin"));
    }

    #[test]
    fn a_pattern_that_cannot_be_understood_is_wrong_usage() {
        let args = Line::try_parse_from(["find", "[a"]).unwrap().args;
        assert_eq!(patterns(&args).unwrap_err().exit_code(), 2);
    }
}
