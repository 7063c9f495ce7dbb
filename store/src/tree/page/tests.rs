//! What pages must survive and what must be refused.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use super::*;
use crate::clock::Timestamp;
use crate::tree::testing::{TestRandom, sample_node};
use crate::tree::{NodeKind, Subtree, Xattr};

fn node(name: &str, kind: NodeKind) -> Node {
    sample_node(name.as_bytes(), kind)
}

/// One entry of every kind with every optional field somewhere.
fn rich_leaf() -> Page {
    let mut file = node("b-file", NodeKind::File);
    file.content = Some(Content::Inline(vec![
        Extent::Data { id: ChunkId([3; 32]), len: 5 },
        Extent::Hole { len: 1 << 40 },
    ]));
    file.size = (1 << 40) + 5;
    file.user = Some(b"karin".to_vec());
    file.group = Some(b"staff".to_vec());
    file.xattrs = vec![
        Xattr { name: b"security.capability".to_vec(), value: vec![1, 0, 2] },
        Xattr { name: b"user.a".to_vec(), value: vec![] },
    ];
    file.extensions = vec![(0x0100, vec![1]), (0x7fff, vec![])];
    let mut long = node("c-long", NodeKind::File);
    long.content =
        Some(Content::Paged { depth: 2, pages: vec![(ChunkId([4; 32]), 10), (ChunkId([5; 32]), 11)] });
    long.size = 21;
    long.mtime = Timestamp { seconds: -1, nanos: 999_999_999 };
    let mut link = node("d-link", NodeKind::Symlink);
    link.target = Some(b"../\xff".to_vec());
    link.size = 4;
    let mut device = node("e-dev", NodeKind::CharDevice);
    device.device = Some((1, 3));
    device.flags = 0x10;
    let mut dir = node("f-dir", NodeKind::Directory);
    dir.subtree = Some(Subtree { tree: ChunkId([6; 32]), entries: 7, bytes: 8 });
    let fifo = node("g", NodeKind::Fifo);
    Page::Leaf(vec![node("a-empty", NodeKind::File), file, long, link, device, dir, fifo])
}

fn inner() -> Page {
    let item = |first: &str, n: u8| InnerItem {
        first: first.as_bytes().to_vec(),
        page: ChunkId([n; 32]),
        entries: u64::from(n),
    };
    Page::Inner { level: 1, items: vec![item("a", 1), item("b", 2), item("ba", 3)] }
}

#[test]
fn pages_survive_a_round_trip() {
    for page in [rich_leaf(), inner(), Page::Leaf(vec![])] {
        let bytes = page.encode().unwrap();
        // Owners' names are per page: give every entry of the sample's owners the names it gets back.
        let back = Page::parse(&bytes).unwrap();
        assert_eq!(back.encode().unwrap(), bytes);
        assert_eq!(back.entries(), page.entries());
        assert_eq!(back.first_name(), page.first_name());
    }
    assert_eq!(Page::parse(&inner().encode().unwrap()).unwrap(), inner());
}

#[test]
fn every_field_of_an_entry_survives() {
    let (Page::Leaf(sent), Page::Leaf(got)) =
        (rich_leaf(), Page::parse(&rich_leaf().encode().unwrap()).unwrap())
    else {
        panic!("leaves stay leaves");
    };
    for (mut sent, got) in sent.into_iter().zip(got) {
        // The page's table names the owners 1000 and 100 for all its entries.
        (sent.user, sent.group) = (Some(b"karin".to_vec()), Some(b"staff".to_vec()));
        assert_eq!(sent, got);
    }
}

#[test]
fn a_leaf_lies_in_bytes_as_the_document_says() {
    let mut fifo = node("p", NodeKind::Fifo);
    fifo.user = Some(b"u".to_vec());
    let bytes = Page::Leaf(vec![fifo.clone()]).encode().unwrap();
    let mut want = vec![1, 0, 0, 0];
    want.extend([1, 0, 0]);
    want.extend(fifo.uid.to_le_bytes());
    want.extend([1, b'u']);
    want.extend([1, 0, 0, 0]);
    want.extend([1, 0, b'p', 4, 0]);
    want.extend(fifo.mode.to_le_bytes());
    want.extend([0, 0]);
    want.extend(fifo.uid.to_le_bytes());
    want.extend(fifo.gid.to_le_bytes());
    for time in [fifo.mtime, fifo.ctime] {
        want.extend(time.seconds.to_le_bytes());
        want.extend(time.nanos.to_le_bytes());
    }
    want.extend(fifo.size.to_le_bytes());
    want.extend(fifo.inode.to_le_bytes());
    want.extend(fifo.filesystem.to_le_bytes());
    want.extend(fifo.links.to_le_bytes());
    want.extend(fifo.flags.to_le_bytes());
    assert_eq!(bytes, want);
}

#[test]
fn entries_that_break_a_rule_are_not_written() {
    type Case = (&'static str, NodeKind, fn(&mut Node));
    use NodeKind as K;
    let cases: [Case; 27] = [
        ("1 to 255", K::Fifo, |n| n.name.clear()),
        ("1 to 255", K::Fifo, |n| n.name = vec![b'x'; 256]),
        (". or ..", K::Fifo, |n| n.name = b".".to_vec()),
        (". or ..", K::Fifo, |n| n.name = b"..".to_vec()),
        ("slash", K::Fifo, |n| n.name = b"a/b".to_vec()),
        ("NUL", K::Fifo, |n| n.name = b"a\0".to_vec()),
        ("0o7777", K::Fifo, |n| n.mode = 0o10000),
        ("content list", K::File, |n| n.content = None),
        ("content list", K::Fifo, |n| n.content = Some(Content::default())),
        ("tree id", K::Directory, |n| n.subtree = None),
        ("tree id", K::File, |n| n.subtree = Some(Subtree { tree: ChunkId([0; 32]), entries: 0, bytes: 0 })),
        ("target", K::Symlink, |n| n.target = None),
        ("target", K::File, |n| n.target = Some(b"x".to_vec())),
        ("4095", K::Symlink, |n| n.target = Some(vec![])),
        ("4095", K::Symlink, |n| n.target = Some(vec![b'x'; 4096])),
        ("NUL", K::Symlink, |n| n.target = Some(b"a\0".to_vec())),
        ("device", K::BlockDevice, |n| n.device = None),
        ("device", K::Socket, |n| n.device = Some((1, 1))),
        ("size", K::File, |n| n.size = 1),
        ("size", K::Symlink, |n| n.size = 2),
        ("size", K::Directory, |n| n.size = 4096),
        ("owner", K::File, |n| n.user = Some(vec![])),
        ("owner", K::File, |n| n.group = Some(vec![b'g'; 256])),
        ("ascending", K::File, |n| {
            n.xattrs = vec![xattr("b", 1), xattr("a", 1)];
        }),
        ("64 KiB", K::File, |n| n.xattrs = vec![xattr("a", 65_537)]),
        ("1 MiB", K::File, |n| n.xattrs = (0..17).map(|i| xattr(&format!("{i:02}"), 65_000)).collect()),
        ("64", K::File, |n| {
            n.content = Some(Content::Inline(vec![Extent::Hole { len: 1 }; 65]));
            n.size = 65;
        }),
    ];
    for (word, kind, break_it) in cases {
        let mut bad = node("x", kind);
        break_it(&mut bad);
        let error = Page::Leaf(vec![bad]).encode().unwrap_err();
        assert!(matches!(&error, StoreError::Invalid { detail } if detail.contains(word)), "{word}: {error}");
    }
}

fn xattr(name: &str, len: usize) -> Xattr {
    Xattr { name: name.as_bytes().to_vec(), value: vec![0; len] }
}

#[test]
fn entries_out_of_order_are_refused_both_ways() {
    let two = |a: &str, b: &str| Page::Leaf(vec![node(a, NodeKind::Fifo), node(b, NodeKind::Fifo)]);
    for (a, b) in [("a", "a"), ("b", "a"), ("ab", "a")] {
        assert!(two(a, b).encode().is_err(), "{a} {b}");
    }
    let mut bytes = two("a", "b").encode().unwrap();
    let at = bytes.iter().rposition(|c| *c == b'b').unwrap();
    bytes[at] = b'a';
    assert!(matches!(Page::parse(&bytes), Err(FormatError::Damaged(m)) if m.contains("ascending")));
    let mut bytes = inner().encode().unwrap();
    bytes[10] = b'z';
    assert!(matches!(Page::parse(&bytes), Err(FormatError::Damaged(m)) if m.contains("ascending")));
}

#[test]
fn flags_that_a_copy_cannot_keep_are_dropped() {
    let mut file = node("x", NodeKind::File);
    file.flags = u32::MAX;
    let Page::Leaf(nodes) = Page::parse(&Page::Leaf(vec![file]).encode().unwrap()).unwrap() else {
        panic!("a leaf")
    };
    assert_eq!(nodes[0].flags, crate::tree::KEPT_FLAGS);
}

#[test]
fn what_is_newer_is_told_apart_from_damage() {
    let mut bytes = rich_leaf().encode().unwrap();
    bytes[0] = 2;
    assert!(matches!(Page::parse(&bytes), Err(FormatError::TooNew(_))));
    let mut bytes = rich_leaf().encode().unwrap();
    let at = bytes.windows(2).rposition(|w| w == [0xff, 0x7f]).unwrap();
    bytes[at + 1] = 0x80;
    let error = Page::parse(&bytes).unwrap_err();
    assert!(
        matches!(&error, FormatError::TooNew(m) if m.contains("0x80ff") && m.contains("b-file")),
        "{error}"
    );
    for (at, name) in [(1, "level"), (2, "reserved")] {
        let mut bytes = rich_leaf().encode().unwrap();
        bytes[at] = 8;
        assert!(matches!(Page::parse(&bytes), Err(FormatError::Damaged(m)) if m.contains(name)), "{name}");
    }
}

#[test]
fn no_truncation_parses_and_what_a_flip_leaves_readable_obeys_the_rules() {
    for page in [rich_leaf(), inner(), Page::Leaf(vec![])] {
        let bytes = page.encode().unwrap();
        for len in 0..bytes.len() {
            assert!(Page::parse(&bytes[..len]).is_err(), "length {len}");
        }
        assert!(Page::parse(&[&bytes[..], &[0]].concat()).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(page) = Page::parse(&bad) {
                page.encode().unwrap_or_else(|e| panic!("bit {bit}: read but not writable: {e}"));
            }
        }
    }
}

#[test]
fn random_damage_never_panics() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let mut random = TestRandom::new(seed);
    let sample = rich_leaf().encode().unwrap();
    for _ in 0..20_000 {
        let mut bad = sample.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bad.len() as u64) as usize;
            let n = (random.below(5) as usize).min(bad.len() - at);
            bad[at..at + n].fill([0, 0xff, 0x7f, 1][random.below(4) as usize]);
        }
        let _ = Page::parse(&bad);
    }
    for _ in 0..5_000 {
        let n = random.below(200) as usize;
        let mut noise = random.bytes(n);
        noise.splice(0..0, [1, random.below(2) as u8, 0, 0]);
        let _ = Page::parse(&noise);
    }
}

#[test]
fn hostile_counts_are_refused_before_anything_is_allocated() {
    let owners = [&[1, 0, 0, 0, 0xff, 0xff][..], &[0; 100]].concat();
    assert!(matches!(Page::parse(&owners), Err(FormatError::Damaged(m)) if m.contains("owners")));
    for n in [2u32, 65_537, u32::MAX] {
        let leaf = [&[1, 0, 0, 0, 0, 0][..], &n.to_le_bytes(), &[0; 100]].concat();
        assert!(matches!(Page::parse(&leaf), Err(FormatError::Damaged(m)) if m.contains("entries")));
        let inner = [&[1, 1, 0, 0][..], &n.to_le_bytes(), &[0; 80]].concat();
        assert!(matches!(Page::parse(&inner), Err(FormatError::Damaged(m)) if m.contains("pages")));
    }
    let none = [1, 1, 0, 0, 0, 0, 0, 0];
    assert!(Page::parse(&none).is_err(), "an inner page without pages");
}

#[test]
fn counts_of_inner_pages_must_be_possible() {
    let with = |a: u64, b: u64| {
        let item = |first: &str, entries| InnerItem { first: first.into(), page: ChunkId([1; 32]), entries };
        Page::Inner { level: 7, items: vec![item("a", a), item("b", b)] }.encode()
    };
    assert!(with(1, u64::MAX - 1).is_ok());
    assert!(with(1, u64::MAX).is_err());
    assert!(with(0, 1).is_err());
    assert!(Page::Inner { level: 0, items: vec![] }.encode().is_err());
    assert!(Page::Inner { level: 8, items: vec![] }.encode().is_err());
}
