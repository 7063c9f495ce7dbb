//! What a kernel can ask for, as a list that can be shortened and still makes sense: whatever an operation is about, it names
//! by a number that is taken modulo what there is.

use holdfast_fs::recovery::Seek;
use holdfast_fs::view::Detail;

use crate::chance::Chance;

/// A name to look up.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// That of one of the entries.
    Entry(u64),
    /// One that is like it, and that nothing has.
    Absent(u64),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// One of 256 bytes.
    TooLong,
}

/// An attribute to ask for.
#[derive(Clone, Copy, Debug)]
pub enum Attribute {
    /// One of those it has.
    Own(u64),
    /// One that nothing has.
    Absent,
    /// The one in which a view names the point.
    Point,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    Lookup(Name),
    Getattr,
    /// Entries after a position, with an answer that has room for `room` of them.
    List {
        position: u64,
        most: usize,
        detail: Detail,
        room: usize,
    },
    /// All of a directory, piece by piece.
    ListAll {
        most: usize,
        detail: Detail,
    },
    Read {
        offset: u64,
        len: u32,
    },
    Readlink,
    Xattr {
        attribute: Attribute,
        size: u32,
    },
    XattrNames {
        size: u32,
    },
    Seek {
        offset: u64,
        seek: Seek,
    },
    Statfs,
    /// So many of the lookups; all of them if there are fewer.
    Forget {
        lookups: u64,
    },
    /// Attributes of something that was forgotten, as a file handle outside asks for them.
    AskForgotten,
    /// A new view, of the same recovery or of a new one; in it, numbers of the last one mean nothing until they are met.
    Remount {
        anew: bool,
    },
    /// Deeper by one entry at a time, as far as it goes.
    Descend {
        steps: u64,
    },
}

/// Something asked of one of the nodes that are held.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub of: u64,
    pub what: What,
    /// Asked with patience at once, instead of trying first what is in memory.
    pub patient: bool,
}

/// Operations by chance.
pub fn operations(chance: &mut Chance, number: usize) -> Vec<Op> {
    (0..number).map(|_| Op { of: chance.next(), what: what(chance), patient: chance.one_in(3) }).collect()
}

fn what(chance: &mut Chance) -> What {
    let detail = if chance.one_in(3) { Detail::Names } else { Detail::All };
    let seek = if chance.one_in(2) { Seek::Data } else { Seek::Hole };
    match chance.below(40) {
        0..6 => What::Lookup(name(chance)),
        6..9 => What::Getattr,
        9..13 => What::List {
            position: if chance.one_in(3) { chance.near(1200) } else { chance.near(12) },
            most: 1 + chance.index(60),
            detail,
            room: chance.index(70),
        },
        13 => What::ListAll { most: 1 + chance.index(1100), detail },
        14..20 => What::Read { offset: offset(chance), len: chance.near(40_000).min(1 << 20) as u32 },
        20..22 => What::Readlink,
        22..25 => What::Xattr { attribute: attribute(chance), size: size(chance) },
        25..28 => What::XattrNames { size: size(chance) },
        28..32 => What::Seek { offset: offset(chance), seek },
        32 => What::Statfs,
        33..35 => What::Forget { lookups: 1 + chance.below(4) },
        35 => What::AskForgotten,
        36 if chance.one_in(6) => What::Remount { anew: chance.one_in(2) },
        _ => What::Descend { steps: 1 + chance.below(6) },
    }
}

fn name(chance: &mut Chance) -> Name {
    match chance.below(10) {
        0 => Name::Dot,
        1 => Name::DotDot,
        2 => Name::TooLong,
        3 => Name::Absent(chance.next()),
        _ => Name::Entry(chance.next()),
    }
}

fn attribute(chance: &mut Chance) -> Attribute {
    match chance.below(5) {
        0 => Attribute::Absent,
        1 => Attribute::Point,
        _ => Attribute::Own(chance.next()),
    }
}

fn offset(chance: &mut Chance) -> u64 {
    let around = chance.pick(&[100, 4096, 16 << 10, 64 << 10, 400_000]);
    chance.near(around)
}

fn size(chance: &mut Chance) -> u32 {
    let around = chance.pick(&[4, 20, 33, 3000]);
    if chance.one_in(4) { 0 } else { chance.near(around).min(70_000) as u32 }
}
