//! `holdfast dump`: a file's bytes, or a directory as a tar archive, on standard output.

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use holdfast_store::store::{Store, StoredPoint};

use super::Context;
use super::scope::{ScopeArgs, find_point, parse_spec};
use crate::open::open_store;
use crate::outcome::{Failure, Outcome};

/// Write a file's content, or a directory as tar, to standard output
///
/// For pipes: the bytes of one file of a recovery point, or a whole directory as a tar archive with owners, permissions,
/// extended attributes and hard links.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast dump latest:db.sql > db.sql
  holdfast dump latest:photos --archive tar | tar tv
  holdfast dump latest --archive tar > everything.tar")]
pub struct DumpArgs {
    /// POINT:PATH of a file or directory
    #[arg(value_name = "POINT[:PATH]")]
    point: OsString,
    /// Write an archive; needed for a directory
    #[arg(long, value_name = "KIND")]
    archive: Option<ArchiveKind>,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Kinds of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArchiveKind {
    /// POSIX tar (pax) with long names, nanosecond times and extended attributes
    Tar,
}

/// Writes it.
pub fn run(context: &Context<'_>, args: &DumpArgs) -> Outcome {
    let spec = parse_spec(&args.point)?;
    if args.archive.is_some() && std::io::stdout().is_terminal() {
        return Err(Failure::usage("an archive is nothing for a terminal")
            .hint("redirect it: > FILE, or pipe it into tar"));
    }
    let store = open_store(context)?;
    let point = find_point(&store, &spec, &args.scope.scope())?;
    write_out(&store, &point, &spec.path, args.archive)
}

fn write_out(_store: &Store, _point: &StoredPoint, _path: &[u8], _archive: Option<ArchiveKind>) -> Outcome {
    Err(Failure::not_built("dump"))
}
