//! Pages of a directory as bytes (`docs/format.md`, section 9.2): leaves with entries, inner pages with pages.
//!
//! [`Page::parse`] is on the path of every look at a mounted directory, so it walks the bytes once, copies
//! names and nothing else twice, and bounds what it allocates by what the bytes can hold.

#[cfg(test)]
mod tests;

use crate::error::StoreError;
use crate::format::{FormatError, Parser, Put};
use crate::id::ChunkId;
use crate::tree::node::{ITEM_MIN, OwnerTable, ParsedOwners, check_name, parse_node, put_node};
use crate::tree::{Content, Extent, Node};

/// Version of pages written and read.
const PAGE_VERSION: u8 = 1;
/// Most entries in a page.
pub const MAX_ITEMS: usize = 65_536;
/// Most levels of pages; the highest level is one less.
pub const MAX_LEVELS: u8 = 8;
/// Shortest inner item: name of one byte, page, count.
const INNER_MIN: usize = 2 + 1 + 32 + 8;

/// A page below an inner page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerItem {
    /// First name below it.
    pub first: Vec<u8>,
    /// The page, a chunk of type `Tree`.
    pub page: ChunkId,
    /// Number of entries below it; at least 1.
    pub entries: u64,
}

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// Entries, ascending by name.
    Leaf(Vec<Node>),
    /// Pages of the level below, ascending by first name.
    Inner {
        /// 1 to 7.
        level: u8,
        /// At least one.
        items: Vec<InnerItem>,
    },
}

impl Page {
    /// Reads a page and checks every rule that can be checked without other pages.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut p = Parser::new(bytes);
        let [version, level] = p.array()?;
        if version != PAGE_VERSION {
            return Err(FormatError::TooNew(format!("page version {version}")));
        }
        if p.u16()? != 0 {
            return Err(FormatError::damaged("reserved bytes of a page are not zero"));
        }
        let page = match level {
            0 => Self::Leaf(parse_leaf(&mut p)?),
            1..MAX_LEVELS => Self::Inner { level, items: parse_inner(&mut p)? },
            _ => return Err(FormatError::damaged(format!("page of level {level}"))),
        };
        p.end()?;
        Ok(page)
    }

    /// The page's bytes; `Invalid` if a rule is broken. Of several names for one owner the first counts.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Leaf(nodes) => {
                let mut leaf = LeafWriter::default();
                nodes.iter().try_for_each(|node| leaf.push(node))?;
                leaf.take()
            }
            Self::Inner { level, items } => encode_inner(*level, items),
        }
    }

    /// 0 of a leaf.
    pub fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner { level, .. } => *level,
        }
    }

    /// Number of entries in or below it.
    pub fn entries(&self) -> u64 {
        match self {
            Self::Leaf(nodes) => nodes.len() as u64,
            Self::Inner { items, .. } => items.iter().map(|item| item.entries).sum(),
        }
    }

    /// First name in or below it; `None` in an empty leaf.
    pub fn first_name(&self) -> Option<&[u8]> {
        match self {
            Self::Leaf(nodes) => nodes.first().map(|node| &node.name[..]),
            Self::Inner { items, .. } => items.first().map(|item| &item.first[..]),
        }
    }

    /// Last name in a leaf, last first name of a page below in an inner page; `None` in an empty leaf.
    pub fn last_name(&self) -> Option<&[u8]> {
        match self {
            Self::Leaf(nodes) => nodes.last().map(|node| &node.name[..]),
            Self::Inner { items, .. } => items.last().map(|item| &item.first[..]),
        }
    }

    /// About how many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        match self {
            Self::Leaf(nodes) => nodes.iter().map(node_memory).sum(),
            Self::Inner { items, .. } => items.iter().map(|i| size_of::<InnerItem>() + i.first.len()).sum(),
        }
    }
}

fn node_memory(node: &Node) -> usize {
    let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let content = match &node.content {
        None => 0,
        Some(Content::Inline(extents)) => extents.len() * size_of::<Extent>(),
        Some(Content::Paged { pages, .. }) => pages.len() * size_of::<(ChunkId, u64)>(),
    };
    let xattrs: usize = node.xattrs.iter().map(|x| 64 + x.name.len() + x.value.len()).sum();
    let extensions: usize = node.extensions.iter().map(|(_, value)| 40 + value.len()).sum();
    size_of::<Node>()
        + node.name.len()
        + len(&node.user)
        + len(&node.group)
        + len(&node.target)
        + content
        + xattrs
        + extensions
}

fn parse_leaf(p: &mut Parser<'_>) -> Result<Vec<Node>, FormatError> {
    let owners = ParsedOwners::take(p)?;
    let n = p.count("entries", ITEM_MIN, MAX_ITEMS)?;
    let mut nodes: Vec<Node> = Vec::with_capacity(n);
    for _ in 0..n {
        let node = parse_node(p, &owners)?;
        ascending(nodes.last().map(|last| &last.name[..]), &node.name)?;
        nodes.push(node);
    }
    Ok(nodes)
}

fn ascending(last: Option<&[u8]>, name: &[u8]) -> Result<(), FormatError> {
    if last.is_none_or(|last| last < name) {
        return Ok(());
    }
    Err(FormatError::damaged(format!("{}: names are not ascending", name.escape_ascii())))
}

fn parse_inner(p: &mut Parser<'_>) -> Result<Vec<InnerItem>, FormatError> {
    let n = p.count("pages", INNER_MIN, MAX_ITEMS)?;
    let mut items = Vec::with_capacity(n);
    for _ in 0..n {
        let first = p.bytes16()?.to_vec();
        items.push(InnerItem { first, page: ChunkId(p.array()?), entries: p.u64()? });
    }
    check_inner(&items)?;
    Ok(items)
}

fn check_inner(items: &[InnerItem]) -> Result<(), FormatError> {
    if items.is_empty() || items.len() > MAX_ITEMS {
        return Err(FormatError::damaged(format!("inner page of {} pages", items.len())));
    }
    let (mut total, mut last) = (0u64, None);
    for item in items {
        check_name(&item.first)?;
        ascending(last, &item.first)?;
        last = Some(&item.first);
        total = total
            .checked_add(item.entries)
            .filter(|_| item.entries > 0)
            .ok_or_else(|| FormatError::damaged("counts of an inner page cannot be"))?;
    }
    Ok(())
}

/// Turns a broken rule of something to be written into an error about the request.
pub(super) fn refused(error: FormatError) -> StoreError {
    StoreError::invalid(error.to_string())
}

/// The bytes of an inner page.
pub(super) fn encode_inner(level: u8, items: &[InnerItem]) -> Result<Vec<u8>, StoreError> {
    if !(1..MAX_LEVELS).contains(&level) {
        return Err(StoreError::invalid(format!("inner page of level {level}")));
    }
    check_inner(items).map_err(refused)?;
    let mut out = Vec::with_capacity(8 + items.len() * (INNER_MIN + 16));
    out.raw(&[PAGE_VERSION, level, 0, 0]);
    out.u32(items.len() as u32);
    for item in items {
        out.bytes16(&item.first);
        out.raw(&item.page.0);
        out.u64(item.entries);
    }
    Ok(out)
}

/// A leaf that grows entry by entry, already as bytes.
#[derive(Debug, Default)]
pub(super) struct LeafWriter {
    owners: OwnerTable,
    items: Vec<u8>,
    first: Vec<u8>,
    last: Vec<u8>,
    count: usize,
}

impl LeafWriter {
    /// Appends an entry; `Invalid` if it breaks a rule or is not after the one before.
    pub(super) fn push(&mut self, node: &Node) -> Result<(), StoreError> {
        let last = (self.count > 0).then_some(&self.last[..]);
        ascending(last, &node.name).map_err(refused)?;
        if self.count == MAX_ITEMS {
            return Err(StoreError::invalid("more than 65536 entries in a page"));
        }
        put_node(&mut self.items, &mut self.owners, node).map_err(refused)?;
        if self.count == 0 {
            self.first.clone_from(&node.name);
        }
        self.last.clone_from(&node.name);
        self.count += 1;
        Ok(())
    }

    /// Bytes of the items, without the page's head and owner table.
    pub(super) fn item_bytes(&self) -> usize {
        self.items.len()
    }

    /// Entries so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Name of the first entry; empty before there is one.
    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    /// The page's bytes; the writer is empty then.
    pub(super) fn take(&mut self) -> Result<Vec<u8>, StoreError> {
        let done = std::mem::take(self);
        let mut out = Vec::with_capacity(done.items.len() + 256);
        out.raw(&[PAGE_VERSION, 0, 0, 0]);
        done.owners.put(&mut out).map_err(refused)?;
        out.u32(done.count as u32);
        out.raw(&done.items);
        Ok(out)
    }
}
