//! `holdfast dump`: a file's bytes, or a directory as a tar archive, on standard output.

mod tar;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::reader::Reader;
use holdfast_store::seal::ChunkType;
use holdfast_store::store::Store;
use holdfast_store::tree::content::ContentReader;
use holdfast_store::tree::walk::Visit;
use holdfast_store::tree::{ChunkSource, Extent, Node, NodeKind};

use super::Context;
use super::scope::{ScopeArgs, find_node, find_point, follow_reclaim, parse_spec, walk};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::patience;
use crate::terminal::{Output, text};

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
    let point = find_point(context, &store, &spec, &args.scope.scope())?;
    follow_reclaim(context, &store, &point)?;
    let node = find_node(&store, &point, &spec.path)?;
    match (args.archive, node.kind) {
        (Some(ArchiveKind::Tar), _) => archive(context, &store, &node),
        (None, NodeKind::File) => {
            let mut output = context.terminal.output();
            content(context, &store, &node, &mut output)?;
            output.finish()?;
            Ok(Done::Whole)
        }
        (None, kind) => Err(refuse(kind)),
    }
}

fn refuse(kind: NodeKind) -> Failure {
    match kind {
        NodeKind::Directory => {
            Failure::usage("that is a directory").hint("--archive tar writes it as a tar archive")
        }
        _ => {
            Failure::usage("that is no file: it has no content").hint("--archive tar writes it as what it is")
        }
    }
}

/// The bytes of a file in order, holes as zeros.
fn content(context: &Context<'_>, store: &Store, node: &Node, output: &mut Output) -> Result<(), Failure> {
    let reader = store.reader().as_ref();
    let mut list = ContentReader::new(node.content.clone().unwrap_or_default());
    for extent in list.extents(reader, 0, patience::FOR_A_VAULT) {
        if context.terminal.cancelled() {
            return Err(StoreError::Cancelled.into());
        }
        match extent?.1 {
            Extent::Data { id, len } => output.bytes(&data(reader, &id, len)?)?,
            Extent::Hole { len } => output.zeros(len)?,
        }
    }
    Ok(())
}

/// A chunk of exactly the length that the file's list says: an archive whose headers and bodies disagree is lost from there on.
fn data(reader: &Reader, id: &ChunkId, len: u32) -> Result<bytes::Bytes, Failure> {
    let bytes = reader.chunk(ChunkType::Data, id, patience::FOR_A_VAULT)?;
    if bytes.len() == len as usize {
        return Ok(bytes);
    }
    let detail = format!("it has {} bytes where a file's list says {len}", bytes.len());
    Err(StoreError::corrupt(format!("chunk {id}"), detail).into())
}

/// The directory as `.` and what is below it by its path from there, so that unpacking fills the directory one is in; a
/// single file by its name.
fn archive(context: &Context<'_>, store: &Store, node: &Node) -> Outcome {
    let mut tar = Archive { context, store, output: context.terminal.output(), links: HashMap::new() };
    if node.kind == NodeKind::Directory {
        tar.entry(b".", node)?;
        walk(context.terminal, store, node, &mut |path, node| {
            tar.entry(path, node).map(|()| Visit::Continue)
        })?;
    } else {
        tar.entry(&node.name, node)?;
    }
    tar.output.zeros(tar::END_LEN)?;
    tar.output.finish()?;
    Ok(Done::Whole)
}

struct Archive<'a> {
    context: &'a Context<'a>,
    store: &'a Store,
    output: Output,
    /// First path of each file with several.
    links: HashMap<[u8; 32], Vec<u8>>,
}

impl Archive<'_> {
    fn entry(&mut self, path: &[u8], node: &Node) -> Result<(), Failure> {
        if node.kind == NodeKind::Socket {
            let path = text::printable(path);
            self.context.terminal.warn(&format!("{path} is a socket, which tar cannot hold; it is left out"));
            return Ok(());
        }
        if let Some(first) = self.first_name(path, node) {
            return self.output.bytes(&tar::hard_link(path, node, &first));
        }
        let len = match node.kind {
            NodeKind::File => ContentReader::new(node.content.clone().unwrap_or_default()).len(),
            _ => 0,
        };
        self.output.bytes(&tar::header(path, node, len))?;
        if node.kind == NodeKind::File {
            content(self.context, self.store, node, &mut self.output)?;
            self.output.zeros(tar::padding(len))?;
        }
        Ok(())
    }

    /// The path under which this file is in the archive already.
    fn first_name(&mut self, path: &[u8], node: &Node) -> Option<Vec<u8>> {
        match self.links.entry(node.file_behind()?) {
            Entry::Occupied(first) => Some(first.get().clone()),
            Entry::Vacant(vacant) => {
                vacant.insert(path.to_vec());
                None
            }
        }
    }
}
