//! Directories: their pages and the entries in them (section 9.2 of the format).

use std::collections::BTreeMap;

use super::content::Content;
use super::fields::{Fields, Read, Refused, Time, hex, must};
use super::pack::{Id, Type};

const LEVELS: u8 = 8;
const ITEMS_LIMIT: usize = 65_536;
const XATTRS_LIMIT: u16 = 1024;
const VALUE_LIMIT: usize = 64 << 10;
const TOGETHER_LIMIT: usize = 1 << 20;
const KEPT_FLAGS: u32 = 0x20
    | 0x10
    | 0x40
    | 0x80
    | 0x08
    | 0x01
    | 0x02
    | 0x04
    | 0x10000
    | 0x8000
    | 0x20000
    | 0x80_0000
    | 0x6000_0000;

pub const FILE: u8 = 1;
pub const DIRECTORY: u8 = 2;
pub const LINK: u8 = 3;
pub const FIFO: u8 = 4;
pub const SOCKET: u8 = 5;
pub const CHARACTER_DEVICE: u8 = 6;
pub const BLOCK_DEVICE: u8 = 7;

/// Names of owners: kind (0 user, 1 group) and id to name.
pub type Owners = BTreeMap<(u8, u32), Vec<u8>>;

/// One entry of a directory.
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<Vec<u8>>,
    pub group: Option<Vec<u8>>,
    pub mtime: Time,
    pub ctime: Time,
    pub size: u64,
    pub inode: u64,
    pub file_system: u32,
    pub links: u32,
    pub flags: u32,
    pub content: Option<Content>,
    pub subtree: Option<Subtree>,
    pub target: Option<Vec<u8>>,
    pub device: Option<(u32, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What lies below a directory.
pub struct Subtree {
    pub tree: Id,
    pub entries: u64,
    pub bytes: u64,
}

impl Entry {
    pub fn read(fields: &mut Fields<'_>, owners: &Owners) -> Read<Self> {
        let name = fields.bytes16()?.to_vec();
        check_name(&name)?;
        Self::read_named(fields, owners, name.clone()).map_err(|e| e.of(name.escape_ascii()))
    }

    fn read_named(fields: &mut Fields<'_>, owners: &Owners, name: Vec<u8>) -> Read<Self> {
        let (kind, present, mode) = (fields.u8()?, fields.u8()?, fields.u16()?);
        check_present(kind, present)?;
        must(mode <= 0o7777, "a mode has no bits above 0o7777")?;
        let _reserved = fields.u16()?;
        let (uid, gid) = (fields.u32()?, fields.u32()?);
        let mut entry = Self {
            name,
            kind,
            mode,
            uid,
            gid,
            user: owners.get(&(0, uid)).cloned(),
            group: owners.get(&(1, gid)).cloned(),
            mtime: fields.time()?,
            ctime: fields.time()?,
            size: fields.u64()?,
            inode: fields.u64()?,
            file_system: fields.u32()?,
            links: fields.u32()?,
            flags: fields.u32()? & KEPT_FLAGS,
            content: None,
            subtree: None,
            target: None,
            device: None,
            xattrs: Vec::new(),
        };
        entry.read_present(fields, present)?;
        entry.check_size()?;
        Ok(entry)
    }

    fn read_present(&mut self, fields: &mut Fields<'_>, present: u8) -> Read<()> {
        if present & 1 != 0 {
            self.content = Some(Content::read_inline(fields)?);
        }
        if present & 2 != 0 {
            self.subtree =
                Some(Subtree { tree: fields.array()?, entries: fields.u64()?, bytes: fields.u64()? });
        }
        if present & 4 != 0 {
            let target = fields.bytes16()?;
            must((1..=4095).contains(&target.len()), "a target has 1 to 4,095 bytes")?;
            must(!target.contains(&0), "a target has no NUL")?;
            self.target = Some(target.to_vec());
        }
        if present & 8 != 0 {
            self.device = Some((fields.u32()?, fields.u32()?));
        }
        if present & 16 != 0 {
            self.xattrs = read_xattrs(fields)?;
        }
        if present & 32 != 0 {
            must(read_extensions(fields)? > 0, "extensions are present only where there are some")?;
        }
        Ok(())
    }

    fn check_size(&self) -> Read<()> {
        let size = match (&self.content, &self.target) {
            (Some(content), _) => content.len()?,
            (_, Some(target)) => target.len() as u64,
            _ => 0,
        };
        must(self.size == size, "a size agrees with content and target")
    }
}

fn check_name(name: &[u8]) -> Read<()> {
    must((1..=255).contains(&name.len()), "a name has 1 to 255 bytes")?;
    must(!name.contains(&b'/') && !name.contains(&0), "a name has no slash and no NUL")?;
    must(name != b"." && name != b"..", "a name is not that of a directory itself or above")
}

fn check_present(kind: u8, present: u8) -> Read<()> {
    let needed = match kind {
        FILE => 1,
        DIRECTORY => 2,
        LINK => 4,
        FIFO | SOCKET => 0,
        CHARACTER_DEVICE | BLOCK_DEVICE => 8,
        _ => return Err(Refused::new(format!("unknown kind of entry {kind}"))),
    };
    must(present & 0b1100_1111 == needed, "an entry has what its kind needs and nothing else")
}

fn read_xattrs(fields: &mut Fields<'_>) -> Read<Vec<(Vec<u8>, Vec<u8>)>> {
    let count = fields.u16()?;
    must((1..=XATTRS_LIMIT).contains(&count), "there are 1 to 1,024 extended attributes")?;
    let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut together = 0;
    for _ in 0..count {
        let (name, value) = (fields.bytes8()?, fields.bytes32()?);
        must(!name.is_empty() && !name.contains(&0), "an attribute's name has 1 to 255 bytes and no NUL")?;
        must(value.len() <= VALUE_LIMIT, "an attribute's value is at most 64 KiB")?;
        must(xattrs.last().is_none_or(|(before, _)| &before[..] < name), "attributes ascend by name")?;
        together += name.len() + value.len();
        xattrs.push((name.to_vec(), value.to_vec()));
    }
    must(together <= TOGETHER_LIMIT, "attributes have at most 1 MiB together")?;
    Ok(xattrs)
}

/// Reads over extensions and says how many there are. This reader understands none.
pub fn read_extensions(fields: &mut Fields<'_>) -> Read<u16> {
    let count = fields.u16()?;
    must(count <= XATTRS_LIMIT, "there are at most 1,024 extensions")?;
    let (mut last, mut together) = (None, 0);
    for _ in 0..count {
        let (tag, value) = (fields.u16()?, fields.bytes32()?);
        must(last < Some(tag), "extensions ascend by tag")?;
        must(tag < 0x8000, "extensions that must be understood are understood")?;
        last = Some(tag);
        together += value.len();
    }
    must(together <= TOGETHER_LIMIT, "extensions have at most 1 MiB together")?;
    Ok(count)
}

pub fn read_owners(fields: &mut Fields<'_>) -> Read<Owners> {
    let mut owners = Owners::new();
    for _ in 0..fields.u16()? {
        let key = (fields.u8()?, fields.u32()?);
        must(key.0 <= 1, "an owner is a user or a group")?;
        must(
            owners.last_key_value().is_none_or(|(before, _)| *before < key),
            "owners ascend by kind and id",
        )?;
        let name = fields.bytes8()?;
        must(!name.is_empty(), "an owner's name has 1 to 255 bytes")?;
        owners.insert(key, name.to_vec());
    }
    Ok(owners)
}

/// One page with the items in it.
pub enum Page {
    Leaf(Vec<Entry>),
    Inner { level: u8, items: Vec<Inner> },
}

/// What an inner page says of a page below it.
pub struct Inner {
    pub first: Vec<u8>,
    pub page: Id,
    pub entries: u64,
}

impl Page {
    pub fn read(bytes: &[u8]) -> Read<Self> {
        let mut fields = Fields::new(bytes);
        must(fields.u8()? == 1, "the page version is 1")?;
        let level = fields.u8()?;
        must(level < LEVELS, "pages have levels 0 to 7")?;
        must(fields.u16()? == 0, "the reserved field of a page is zero")?;
        let page =
            if level == 0 { Self::read_leaf(&mut fields)? } else { Self::read_inner(&mut fields, level)? };
        fields.end()?;
        Ok(page)
    }

    fn read_leaf(fields: &mut Fields<'_>) -> Read<Self> {
        let owners = read_owners(fields)?;
        let count = fields.count(69, ITEMS_LIMIT)?;
        let entries: Vec<Entry> = (0..count).map(|_| Entry::read(fields, &owners)).collect::<Read<_>>()?;
        must(entries.is_sorted_by(|a, b| a.name < b.name), "entries ascend by name")?;
        Ok(Self::Leaf(entries))
    }

    fn read_inner(fields: &mut Fields<'_>, level: u8) -> Read<Self> {
        let count = fields.count(43, ITEMS_LIMIT)?;
        must(count > 0, "an inner page has items")?;
        let mut items = Vec::new();
        for _ in 0..count {
            let first = fields.bytes16()?.to_vec();
            check_name(&first)?;
            let item = Inner { first, page: fields.array()?, entries: fields.u64()? };
            must(item.entries > 0, "there are entries below an inner item")?;
            items.push(item);
        }
        must(items.is_sorted_by(|a, b| a.first < b.first), "inner items ascend by name")?;
        Ok(Self::Inner { level, items })
    }

    pub fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner { level, .. } => *level,
        }
    }

    /// The number of entries in and below it.
    pub fn entries(&self) -> Read<u64> {
        let count = match self {
            Self::Leaf(entries) => Some(entries.len() as u64),
            Self::Inner { items, .. } => {
                items.iter().try_fold(0u64, |sum, item| sum.checked_add(item.entries))
            }
        };
        count.ok_or_else(|| Refused::new("entries beyond 2^64"))
    }

    fn first(&self) -> Option<&[u8]> {
        match self {
            Self::Leaf(entries) => entries.first().map(|entry| &entry.name[..]),
            Self::Inner { items, .. } => items.first().map(|item| &item.first[..]),
        }
    }
}

/// All entries of the directory with the root page `tree`, in order.
pub fn read_directory<'a>(tree: &Id, chunk: &dyn Fn(Type, &Id) -> Read<&'a [u8]>) -> Read<Vec<Entry>> {
    let page = read_page(tree, chunk)?;
    let mut entries = Vec::new();
    collect(page, chunk, &mut entries)?;
    must(entries.is_sorted_by(|a, b| a.name < b.name), "no page has names of the next")?;
    Ok(entries)
}

pub fn read_page<'a>(id: &Id, chunk: &dyn Fn(Type, &Id) -> Read<&'a [u8]>) -> Read<Page> {
    Page::read(chunk(Type::Page, id)?).map_err(|e| e.of(format!("page {}", hex(id))))
}

fn collect<'a>(page: Page, chunk: &dyn Fn(Type, &Id) -> Read<&'a [u8]>, all: &mut Vec<Entry>) -> Read<()> {
    match page {
        Page::Leaf(entries) => all.extend(entries),
        Page::Inner { level, items } => {
            for item in items {
                let child = read_page(&item.page, chunk)?;
                must(child.level() == level - 1, "a child is one level lower")?;
                must(child.first() == Some(&item.first[..]), "a child's first name is that of its item")?;
                must(child.entries()? == item.entries, "a child has the entries of its item")?;
                collect(child, chunk, all)?;
            }
        }
    }
    Ok(())
}
