//! One entry of a directory as bytes (`docs/format.md`, section 9.2, leaf item), with every rule it must obey.
//!
//! Writing and reading share [`check`]: what a reader would refuse is never written, and there is one list of
//! rules to compare with the document. It is apart from pages because a recovery point carries one entry too.

use std::collections::BTreeMap;

use crate::format::{FormatError, Parser, Put};
use crate::id::ChunkId;
use crate::tree::content::{self, MAX_INLINE};
use crate::tree::{Content, KEPT_FLAGS, Node, NodeKind, Subtree, Xattr};

/// Length of the shortest item: all fixed fields and a name of one byte.
pub(super) const ITEM_MIN: usize = 69;
/// Longest name of an entry.
pub(super) const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;
const MAX_XATTRS: usize = 1024;
const MAX_XATTR_VALUE: usize = 64 * 1024;
const MAX_EXTENSIONS: usize = 1024;
/// Limit of all xattrs (names and values) and, separately, of all extensions of one entry.
const MAX_EXTRA_BYTES: usize = 1024 * 1024;
/// Extension tags from here on must be understood. This version understands none.
const MANDATORY_TAG: u16 = 0x8000;

const HAS_CONTENT: u8 = 1;
const HAS_TREE: u8 = 2;
const HAS_TARGET: u8 = 4;
const HAS_DEVICE: u8 = 8;
const HAS_XATTRS: u8 = 16;
const HAS_EXTENSIONS: u8 = 32;

type Parsed<T> = Result<T, FormatError>;

fn rule(holds: bool, broken: &str) -> Parsed<()> {
    if holds { Ok(()) } else { Err(FormatError::damaged(broken)) }
}

/// Says where in a structure an error lies.
pub(crate) fn within(error: FormatError, place: impl std::fmt::Display) -> FormatError {
    match error {
        FormatError::Damaged(m) => FormatError::Damaged(format!("{place}: {m}")),
        FormatError::TooNew(m) => FormatError::TooNew(format!("{place}: {m}")),
        FormatError::NotOurs(m) => FormatError::NotOurs(format!("{place}: {m}")),
        e @ FormatError::NoKey(_) => e,
    }
}

/// A `u16` count of items of at least `item_len` bytes each, 1 to `limit`, and no more than can be left.
fn count16(p: &mut Parser<'_>, what: &str, item_len: usize, limit: usize) -> Parsed<usize> {
    let n = usize::from(p.u16()?);
    if n == 0 || n > limit || n * item_len > p.left() {
        return Err(FormatError::damaged(format!("{n} {what} cannot be")));
    }
    Ok(n)
}

/// The rule for names of entries.
pub(super) fn check_name(name: &[u8]) -> Parsed<()> {
    rule((1..=MAX_NAME).contains(&name.len()), "a name is not 1 to 255 bytes long")?;
    rule(!matches!(name, b"." | b".."), "a name is . or ..")?;
    rule(!name.iter().any(|c| matches!(c, b'/' | 0)), "a name has a slash or a NUL in it")
}

/// Every rule of a leaf item that does not show in how it is written.
pub(super) fn check(node: &Node) -> Parsed<()> {
    check_name(&node.name)?;
    rule(node.mode <= 0o7777, "the mode has bits above 0o7777")?;
    check_kind(node)?;
    check_owner(node.user.as_deref())?;
    check_owner(node.group.as_deref())?;
    check_xattrs(&node.xattrs)?;
    check_extensions(&node.extensions)
}

fn check_kind(node: &Node) -> Parsed<()> {
    use NodeKind as K;
    rule(
        node.content.is_some() == (node.kind == K::File),
        "a content list belongs to files, and to every file",
    )?;
    rule(
        node.subtree.is_some() == (node.kind == K::Directory),
        "a tree id belongs to directories, and to every directory",
    )?;
    rule(node.target.is_some() == (node.kind == K::Symlink), "a target belongs to links, and to every link")?;
    rule(
        node.device.is_some() == matches!(node.kind, K::CharDevice | K::BlockDevice),
        "a device number belongs to devices, and to every device",
    )?;
    let size = match (&node.content, &node.target) {
        (Some(content), _) => check_content(content)?,
        (None, Some(target)) => check_target(target)?,
        (None, None) => 0,
    };
    if node.size == size {
        return Ok(());
    }
    Err(FormatError::damaged(format!("the size is {} where it must be {size}", node.size)))
}

fn check_content(content: &Content) -> Parsed<u64> {
    content::check(content, MAX_INLINE)
}

fn check_target(target: &[u8]) -> Parsed<u64> {
    rule((1..=MAX_TARGET).contains(&target.len()), "the target of a link is not 1 to 4095 bytes long")?;
    rule(!target.contains(&0), "the target of a link has a NUL in it")?;
    Ok(target.len() as u64)
}

fn check_owner(name: Option<&[u8]>) -> Parsed<()> {
    rule(name.is_none_or(|n| (1..=255).contains(&n.len())), "the name of an owner is not 1 to 255 bytes long")
}

fn check_xattrs(xattrs: &[Xattr]) -> Parsed<()> {
    rule(xattrs.len() <= MAX_XATTRS, "more than 1024 extended attributes")?;
    rule(xattrs.is_sorted_by(|a, b| a.name < b.name), "extended attributes are not ascending by name")?;
    let mut total = 0;
    for xattr in xattrs {
        rule(
            (1..=255).contains(&xattr.name.len()) && !xattr.name.contains(&0),
            "the name of an extended attribute is not 1 to 255 bytes without NUL",
        )?;
        rule(xattr.value.len() <= MAX_XATTR_VALUE, "an extended attribute is longer than 64 KiB")?;
        total += xattr.name.len() + xattr.value.len();
    }
    rule(total <= MAX_EXTRA_BYTES, "extended attributes of more than 1 MiB")
}

/// The rules for extensions, of entries and of recovery points.
pub(crate) fn check_extensions(extensions: &[(u16, Vec<u8>)]) -> Parsed<()> {
    rule(extensions.len() <= MAX_EXTENSIONS, "more than 1024 extensions")?;
    rule(extensions.is_sorted_by(|a, b| a.0 < b.0), "extensions are not ascending by tag")?;
    if let Some((tag, _)) = extensions.iter().find(|(tag, _)| *tag >= MANDATORY_TAG) {
        return Err(FormatError::TooNew(format!("extension {tag:#06x}")));
    }
    let total: usize = extensions.iter().map(|(_, value)| value.len()).sum();
    rule(total <= MAX_EXTRA_BYTES, "extensions of more than 1 MiB")
}

/// Appends an entry to the items of a leaf and its owners' names to the owner table. Nothing is appended on error.
pub(crate) fn put_node(out: &mut Vec<u8>, owners: &mut OwnerTable, node: &Node) -> Parsed<()> {
    check(node).map_err(|e| within(e, node.name.escape_ascii()))?;
    owners.add(0, node.uid, node.user.as_deref());
    owners.add(1, node.gid, node.group.as_deref());
    out.bytes16(&node.name);
    out.u8(node.kind as u8);
    out.u8(present(node));
    out.u16(node.mode);
    out.u16(0);
    out.u32(node.uid);
    out.u32(node.gid);
    out.time(node.mtime);
    out.time(node.ctime);
    out.u64(node.size);
    out.u64(node.inode);
    out.u32(node.filesystem);
    out.u32(node.links);
    out.u32(node.flags & KEPT_FLAGS);
    put_optional(out, node);
    Ok(())
}

impl Node {
    /// What names of one file have in common: nothing of one that has no other name. The inode alone does not tell: while a tree is read a file
    /// changes between its names, and another one gets the number of one that went. So it is all that a point keeps, but for the name itself, the
    /// number of names and ctime, which moves when a name is made or removed.
    pub fn file_behind(&self) -> Option<[u8; 32]> {
        if self.links < 2 || self.kind == NodeKind::Directory {
            return None;
        }
        let mut out = Vec::new();
        out.u32(self.filesystem);
        out.u64(self.inode);
        out.u8(self.kind as u8);
        out.u16(self.mode);
        out.u32(self.uid);
        out.u32(self.gid);
        for owner in [&self.user, &self.group] {
            out.bytes16(owner.as_deref().unwrap_or_default());
        }
        out.time(self.mtime);
        out.u64(self.size);
        out.u32(self.flags);
        out.u8(present(self));
        put_optional(&mut out, self);
        Some(*blake3::hash(&out).as_bytes())
    }
}

fn present(node: &Node) -> u8 {
    let bit = |present: bool, bit: u8| if present { bit } else { 0 };
    bit(node.content.is_some(), HAS_CONTENT)
        | bit(node.subtree.is_some(), HAS_TREE)
        | bit(node.target.is_some(), HAS_TARGET)
        | bit(node.device.is_some(), HAS_DEVICE)
        | bit(!node.xattrs.is_empty(), HAS_XATTRS)
        | bit(!node.extensions.is_empty(), HAS_EXTENSIONS)
}

fn put_optional(out: &mut Vec<u8>, node: &Node) {
    if let Some(content) = &node.content {
        content::put(out, content);
    }
    if let Some(subtree) = &node.subtree {
        out.raw(&subtree.tree.0);
        out.u64(subtree.entries);
        out.u64(subtree.bytes);
    }
    if let Some(target) = &node.target {
        out.bytes16(target);
    }
    if let Some((major, minor)) = node.device {
        out.u32(major);
        out.u32(minor);
    }
    if !node.xattrs.is_empty() {
        out.u16(node.xattrs.len() as u16);
        for xattr in &node.xattrs {
            out.bytes8(&xattr.name);
            out.bytes32(&xattr.value);
        }
    }
    if !node.extensions.is_empty() {
        put_extensions(out, &node.extensions);
    }
}

/// A `u16` count, then tag and value of each; the caller has checked them.
pub(crate) fn put_extensions(out: &mut Vec<u8>, extensions: &[(u16, Vec<u8>)]) {
    out.u16(extensions.len() as u16);
    for (tag, value) in extensions {
        out.u16(*tag);
        out.bytes32(value);
    }
}

/// Takes one entry.
pub(crate) fn parse_node(p: &mut Parser<'_>, owners: &ParsedOwners<'_>) -> Parsed<Node> {
    let name = p.bytes16()?;
    let node = parse_named(p, owners, name).and_then(|node| check(&node).map(|()| node));
    node.map_err(|e| within(e, name.escape_ascii()))
}

fn parse_named(p: &mut Parser<'_>, owners: &ParsedOwners<'_>, name: &[u8]) -> Parsed<Node> {
    check_name(name)?;
    let kind = parse_kind(p.u8()?)?;
    let present = p.u8()?;
    rule(present < 0x40, "present bits 6 and 7 are not zero")?;
    let mode = p.u16()?;
    p.u16()?;
    let (uid, gid) = (p.u32()?, p.u32()?);
    let mut node = Node {
        name: name.to_vec(),
        kind,
        mode,
        uid,
        gid,
        user: owners.name(0, uid),
        group: owners.name(1, gid),
        mtime: p.time()?,
        ctime: p.time()?,
        size: p.u64()?,
        inode: p.u64()?,
        filesystem: p.u32()?,
        links: p.u32()?,
        flags: p.u32()? & KEPT_FLAGS,
        content: None,
        subtree: None,
        target: None,
        device: None,
        xattrs: Vec::new(),
        extensions: Vec::new(),
    };
    parse_optional(p, present, &mut node)?;
    Ok(node)
}

fn parse_kind(byte: u8) -> Parsed<NodeKind> {
    Ok(match byte {
        1 => NodeKind::File,
        2 => NodeKind::Directory,
        3 => NodeKind::Symlink,
        4 => NodeKind::Fifo,
        5 => NodeKind::Socket,
        6 => NodeKind::CharDevice,
        7 => NodeKind::BlockDevice,
        other => return Err(FormatError::damaged(format!("no kind of entry is {other}"))),
    })
}

fn parse_optional(p: &mut Parser<'_>, present: u8, node: &mut Node) -> Parsed<()> {
    let has = |bit| present & bit != 0;
    if has(HAS_CONTENT) {
        node.content = Some(content::take(p, MAX_INLINE)?);
    }
    if has(HAS_TREE) {
        node.subtree = Some(Subtree { tree: ChunkId(p.array()?), entries: p.u64()?, bytes: p.u64()? });
    }
    if has(HAS_TARGET) {
        node.target = Some(p.bytes16()?.to_vec());
    }
    if has(HAS_DEVICE) {
        node.device = Some((p.u32()?, p.u32()?));
    }
    if has(HAS_XATTRS) {
        let n = count16(p, "extended attributes", 6, MAX_XATTRS)?;
        node.xattrs.reserve_exact(n);
        for _ in 0..n {
            node.xattrs.push(Xattr { name: p.bytes8()?.to_vec(), value: p.bytes32()?.to_vec() });
        }
    }
    if has(HAS_EXTENSIONS) {
        let n = count16(p, "extensions", 6, MAX_EXTENSIONS)?;
        node.extensions = parse_extensions(p, n)?;
    }
    Ok(())
}

/// Takes `n` extensions; the rules are [`check_extensions`]'.
pub(crate) fn parse_extensions(p: &mut Parser<'_>, n: usize) -> Parsed<Vec<(u16, Vec<u8>)>> {
    let mut extensions = Vec::with_capacity(n.min(p.left() / 6));
    for _ in 0..n {
        extensions.push((p.u16()?, p.bytes32()?.to_vec()));
    }
    Ok(extensions)
}

/// Names of owners while a page is written. The first name that an id is given with stays.
#[derive(Debug, Default)]
pub(crate) struct OwnerTable {
    names: BTreeMap<(u8, u32), Vec<u8>>,
}

impl OwnerTable {
    fn add(&mut self, kind: u8, id: u32, name: Option<&[u8]>) {
        if let Some(name) = name
            && !self.names.contains_key(&(kind, id))
        {
            self.names.insert((kind, id), name.to_vec());
        }
    }

    /// Appends the table.
    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Parsed<()> {
        let n =
            u16::try_from(self.names.len()).map_err(|_| FormatError::damaged("more than 65535 owners"))?;
        out.u16(n);
        for ((kind, id), name) in &self.names {
            out.u8(*kind);
            out.u32(*id);
            out.bytes8(name);
        }
        Ok(())
    }
}

/// An owner table as read, ascending.
#[derive(Debug, Default)]
pub(crate) struct ParsedOwners<'a> {
    names: Vec<((u8, u32), &'a [u8])>,
}

impl<'a> ParsedOwners<'a> {
    /// Takes a table.
    pub(crate) fn take(p: &mut Parser<'a>) -> Parsed<Self> {
        let n = usize::from(p.u16()?);
        // 7 bytes at least: kind, id, length and one byte of name.
        rule(n * 7 <= p.left(), "more owners than there are bytes")?;
        let mut names = Vec::with_capacity(n);
        for _ in 0..n {
            let key = (p.u8()?, p.u32()?);
            let name = p.bytes8()?;
            rule(key.0 < 2, "an owner is neither user nor group")?;
            rule(!name.is_empty(), "an owner has an empty name")?;
            names.push((key, name));
        }
        rule(names.is_sorted_by(|a, b| a.0 < b.0), "owners are not ascending")?;
        Ok(Self { names })
    }

    fn name(&self, kind: u8, id: u32) -> Option<Vec<u8>> {
        let at = self.names.binary_search_by_key(&(kind, id), |(key, _)| *key).ok()?;
        self.names.get(at).map(|(_, name)| name.to_vec())
    }
}
