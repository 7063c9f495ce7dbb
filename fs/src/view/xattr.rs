//! Extended attributes: those of the source, and ours by name.
//!
//! Ours are answered when asked for and never listed, so that a copy of a tree is a copy of the source and not of them.

use holdfast_store::id::to_hex;
use holdfast_store::reader::Tier;
use holdfast_store::tree::Node;

use super::{Inside, View};
use crate::error::FsError;
use crate::layout::{Stands, rfc3339};
use crate::recovery::Patience;

/// The recovery point a node belongs to, as 32 digits.
const POINT: &[u8] = b"user.holdfast.point";

/// The name of its data source, in UTF-8.
const SOURCE: &[u8] = b"user.holdfast.source";

/// A name of a file's content, as 64 digits: equal within a store where bytes and holes are, and known without reading.
const CONTENT: &[u8] = b"user.holdfast.content";

/// Where the bytes of a file are: `memory`, `staging`, `cache` or `vault`, the farthest of them.
const TIER: &[u8] = b"user.holdfast.tier";

/// When every byte of a file was last read and proven, as `2026-11-20T12:00:00Z`; the oldest of its parts decides. Not there if one never was.
const VERIFIED: &[u8] = b"user.holdfast.verified";

/// Attributes that the kernel lets only the administrator read, and each file system has to hide from others.
const TRUSTED: &[u8] = b"trusted.";

/// Answer to a question about attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XattrAnswer {
    /// How many bytes there would be.
    Size(u32),
    /// The bytes.
    Data(Vec<u8>),
}

/// The protocol of buffers: one of 0 bytes asks for the size, one that is too small is an error.
pub fn sized(value: Vec<u8>, buffer: u32) -> Result<XattrAnswer, FsError> {
    let len = u32::try_from(value.len()).map_err(|_| FsError::Range)?;
    match buffer {
        0 => Ok(XattrAnswer::Size(len)),
        _ if len > buffer => Err(FsError::Range),
        _ => Ok(XattrAnswer::Data(value)),
    }
}

impl View {
    /// The value of an extended attribute.
    pub fn xattr(&self, ino: u64, name: &[u8], patience: Patience) -> Result<Vec<u8>, FsError> {
        if self.has_no_xattrs(ino) {
            return Err(FsError::NoAttribute);
        }
        let inside = self.inside(ino, patience)?;
        if let Some(xattr) = inside.node.xattrs.iter().find(|xattr| xattr.name == name) {
            return Ok(xattr.value.clone());
        }
        self.own_xattr(&inside, name, patience)
    }

    /// Names of the source's extended attributes, each ended by a NUL; `trusted.*` only for the `privileged`, who alone
    /// can read them.
    pub fn xattr_names(&self, ino: u64, privileged: bool, patience: Patience) -> Result<Vec<u8>, FsError> {
        if self.has_no_xattrs(ino) {
            return Ok(Vec::new());
        }
        let node = self.inside(ino, patience)?.node;
        let names = node.xattrs.iter().map(|xattr| &xattr.name);
        let shown = names.filter(|name| privileged || !name.starts_with(TRUSTED));
        Ok(shown.flat_map(|name| name.iter().copied().chain([0])).collect())
    }

    fn has_no_xattrs(&self, ino: u64) -> bool {
        matches!(self.layout().get(ino), Some(Stands::Folder(_) | Stands::Link(_)))
    }

    fn own_xattr(&self, inside: &Inside, name: &[u8], patience: Patience) -> Result<Vec<u8>, FsError> {
        match name {
            POINT => Ok(inside.root.point.hex().into_bytes()),
            SOURCE => Ok(inside.root.source.source.clone().into_bytes()),
            CONTENT => content_of(&inside.node),
            TIER => self.tier_of(&inside.node, patience),
            VERIFIED => self.verified_of(&inside.node, patience),
            _ => Err(FsError::NoAttribute),
        }
    }

    fn verified_of(&self, node: &Node, patience: Patience) -> Result<Vec<u8>, FsError> {
        let content = node.content.as_ref().ok_or(FsError::NoAttribute)?;
        let at = self.recovery.verified(content, patience)?.ok_or(FsError::NoAttribute)?;
        Ok(rfc3339(at).into_bytes())
    }

    fn tier_of(&self, node: &Node, patience: Patience) -> Result<Vec<u8>, FsError> {
        let content = node.content.as_ref().ok_or(FsError::NoAttribute)?;
        let tier = self.recovery.tier(content, patience)?.ok_or(FsError::NoAttribute)?;
        let word: &[u8] = match tier {
            Tier::Memory => b"memory",
            Tier::Staging => b"staging",
            Tier::Cache => b"cache",
            Tier::Vault => b"vault",
        };
        Ok(word.to_vec())
    }
}

fn content_of(node: &Node) -> Result<Vec<u8>, FsError> {
    let content = node.content.as_ref().ok_or(FsError::NoAttribute)?;
    Ok(to_hex(&content.fingerprint()).into_bytes())
}
