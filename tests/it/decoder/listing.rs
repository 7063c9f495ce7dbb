//! The text that says what a recovery point contains: one line per entry, everything a restore would bring back.

use std::fmt::{self, Display, Formatter};

use super::fields::{Time, hex};

/// One entry as the listing shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Relative to the root, `.` for the root itself.
    pub path: Vec<u8>,
    pub kind: &'static str,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<Vec<u8>>,
    pub group: Option<Vec<u8>>,
    pub mtime: Time,
    pub ctime: Time,
    pub size: u64,
    /// Inode, file system, link count.
    pub identity: (u64, u32, u32),
    pub flags: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub target: Option<Vec<u8>>,
    pub device: Option<(u32, u32)>,
    pub content: Option<Bytes>,
}

/// What a listing says of a file's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Bytes {
    /// BLAKE3 of the whole content, holes being zeros.
    pub hash: [u8; 32],
    /// Offset and length of each hole.
    pub holes: Vec<(u64, u64)>,
}

/// The words for the kinds 1 to 7.
pub const KINDS: [&str; 7] = ["file", "directory", "link", "fifo", "socket", "character", "block"];

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name =
            |name: &Option<Vec<u8>>| name.as_ref().map_or("-".into(), |n| n.escape_ascii().to_string());
        write!(f, "{} {} {:04o} ", self.path.escape_ascii(), self.kind, self.mode)?;
        write!(f, "{}({}):{}({})", self.uid, name(&self.user), self.gid, name(&self.group))?;
        write!(f, " m={},{} c={},{}", self.mtime.0, self.mtime.1, self.ctime.0, self.ctime.1)?;
        let (inode, file_system, links) = self.identity;
        write!(f, " size={} inode={inode}/{file_system} links={links}", self.size)?;
        if self.flags != 0 {
            write!(f, " flags={:#x}", self.flags)?;
        }
        if let Some(target) = &self.target {
            write!(f, " -> {}", target.escape_ascii())?;
        }
        if let Some((major, minor)) = self.device {
            write!(f, " device={major}:{minor}")?;
        }
        for (name, value) in &self.xattrs {
            write!(f, " {}={}", name.escape_ascii(), hex(value))?;
        }
        if let Some(content) = &self.content {
            content.holes.iter().try_for_each(|(at, len)| write!(f, " hole={at}+{len}"))?;
            write!(f, " blake3={}", hex(&content.hash))?;
        }
        Ok(())
    }
}

/// The lines as text.
pub fn text<'a>(lines: impl IntoIterator<Item = &'a Line>) -> String {
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}
