//! A store of format version 1 that was made once and is kept: every later version must read the same out of it.
//! Beside the store lie what opens it and the listing it must give.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_store::clock::Timestamp;
use holdfast_store::format::config::StoreConfig;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::sheet::parse_words;
use holdfast_store::seal::slots::KeySlot;
use holdfast_store::seal::{Compression, Sealer};
use holdfast_store::store::Store as Engine;
use holdfast_store::tree::{NodeKind, Xattr};

use super::fields::hex;
use super::listing::text;
use super::make::{Made, PASSPHRASE, Piece, Planned, engine_lines, open, take_point};
use super::point::Point;
use super::slot::Secret;
use super::store::Store;
use super::writing::{Seen, border, check_store};
use crate::testkit::noise;

/// The folder of the golden store.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1")
}

fn kept(name: &str) -> String {
    fs::read_to_string(golden().join(name)).unwrap()
}

/// The machine key that opens the golden store.
pub fn machine_key() -> Secret {
    Secret::MachineKeyFile(kept("machine.key"))
}

/// Copies the objects of a store, and nothing else that lies beside them.
pub fn copy_objects(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["config", "keys", "pack", "idx", "sess", "rp"] {
        copy(&from.join(name), &to.join(name));
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if from.exists() {
        fs::copy(from, to).unwrap();
    }
}

/// One line on a point, above those of its entries.
fn head(point: &Point) -> String {
    let Point { id, source, path, sequence, started, ended, state, consistency, tags, tool, .. } = point;
    format!(
        "point {} {} {} sequence={sequence} previous={} started={},{} ended={},{} state={state} \
         consistency={consistency} counts={:?} tags={} tool={tool}\n",
        hex(id),
        source.join("/"),
        path.escape_ascii(),
        hex(&point.previous),
        started.0,
        started.1,
        ended.0,
        ended.1,
        point.counts,
        tags.join(","),
    )
}

fn full_listing(mut store: Store) -> String {
    let points = std::mem::take(&mut store.points);
    let one = |point: Point| head(&point) + &text(&store.listing(point).unwrap());
    points.into_iter().map(one).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_decoder_reads_the_golden_store() {
    assert_eq!(kept("passphrase.txt"), PASSPHRASE);
    let store = Store::read(&golden().join("store"), &Secret::Passphrase(kept("passphrase.txt"))).unwrap();
    let mut seen = Seen::default();
    store
        .points
        .iter()
        .for_each(|point| check_store(&store, &point.root.subtree.as_ref().unwrap().tree, &mut seen));
    assert_eq!((seen.page_levels, seen.list_levels), (2, 1));
    assert_eq!(full_listing(store), kept("listing.txt"));
}

/// Opens a copy of the golden store with the engine (which needs a place for temporary files beside the objects), by the words of its recovery sheet.
fn open_with_engine(dir: &Path) -> Engine {
    copy_objects(&golden().join("store"), dir);
    fs::create_dir(dir.join("tmp")).unwrap();
    let head = Engine::head(dir).unwrap();
    let secret = parse_words(&kept("words.txt")).unwrap();
    let opened = |(_, slot): &(_, Vec<u8>)| KeySlot::open(slot, &head.vault, &secret).ok();
    let (ring, _label): (KeyRing, String) = head.slots.iter().find_map(opened).unwrap();
    let plain = StoreConfig::peek(&head.config).unwrap();
    let sealer = Sealer::new(head.vault, &ring, plain.identity_generation).unwrap();
    StoreConfig::decode(&head.config, &sealer).unwrap();
    open(dir, &ring)
}

#[test]
fn the_engine_reads_the_golden_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_engine(&dir.path().join("store"));
    let listing = kept("listing.txt");
    let wanted: Vec<&str> = listing.split("\n\n").collect();
    let points = store.points().unwrap();
    assert_eq!(points.len(), wanted.len());
    for (point, wanted) in points.iter().zip(wanted) {
        let (head, lines) = wanted.split_once('\n').unwrap();
        assert!(head.starts_with(&format!("point {}", point.point.id.hex())), "{head}");
        assert!(head.contains(&format!("sequence={} ", point.point.sequence)), "{head}");
        assert_eq!(text(&engine_lines(&store, point)).trim_end(), lines.trim_end());
    }
}

#[test]
fn the_engine_can_add_a_point_to_the_golden_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open_with_engine(&path);
    let taken = take_point(&store, &plan(2), Compression::Zstd(3));
    assert_eq!(taken.point.sequence, 3);
    assert_eq!(taken.point.counts.bytes, store.points().unwrap()[1].point.counts.bytes);
    assert!(taken.point.packs.is_empty(), "all of it was there");
    let decoded = Store::read(&path, &machine_key()).unwrap();
    assert_eq!(decoded.points.len(), 3);
}

fn plan(version: i64) -> Planned {
    let at = |seconds| Timestamp { seconds, nanos: 5 };
    let mixed = vec![Piece::Bytes(noise("mixed", 9000)), Piece::Hole(1 << 20), Piece::Bytes(b"end".to_vec())];
    let short = |n: u8| [Piece::Bytes(vec![n]), Piece::Hole(100)];
    let kinds = vec![
        Planned::file("empty", Vec::new()),
        Planned::file("file", vec![Piece::Bytes(b"the quick brown fox\n".repeat(1500))]),
        Planned::file("holes", mixed),
        Planned::file("listed", (0..50).flat_map(short).collect()),
        Planned::file("version", vec![Piece::Bytes(version.to_string().into_bytes())])
            .with(|node| node.mtime = at(version)),
        Planned::link("link", b"file"),
        Planned::new("fifo", NodeKind::Fifo),
        Planned::new("socket", NodeKind::Socket),
        Planned::new("character", NodeKind::CharDevice).with(|node| node.device = Some((5, 1))),
        Planned::new("block", NodeKind::BlockDevice).with(|node| node.device = Some((259, 70_000))),
    ];
    let attributes = Planned::file("attributes", vec![Piece::Bytes(b"x".to_vec())]).with(|node| {
        let xattr = |name: &str, value: &[u8]| Xattr { name: name.into(), value: value.to_vec() };
        node.xattrs = vec![xattr("security.capability", &[1, 0, 0, 2]), xattr("user.empty", b"")];
        (node.mtime, node.ctime, node.mode) = (at(-2_208_988_800), at(-1), 0o6755);
        (node.uid, node.gid, node.user, node.group) = (33, 34, Some("www".into()), Some("größe".into()));
        (node.flags, node.inode, node.filesystem, node.links) = (0x50, 99, 0x0102_0304, 2);
        node.extensions = vec![(0x0100, b"kept".to_vec())];
    });
    // Enough for a leaf that may end, a name at which it does, and some more: two leaves below an inner page.
    let mut large: Vec<String> = (0..110).map(|n| format!("entry {n}")).collect();
    large.extend((0..).map(|n| format!("leaf's end {n}")).find(|name| border(0, name.as_bytes())));
    large.extend((0..5).map(|n| format!("next leaf {n}")));
    let large = large.iter().map(|name| Planned::link(name, b"../kinds/file"));
    Planned::directory(
        "root",
        vec![
            Planned::directory("kinds", kinds),
            Planned::directory("large", large.collect()),
            Planned::directory(b"raw \xff\n", vec![attributes]),
        ],
    )
}

/// Makes the golden store anew. It was run once for format version 1; a store of a later version gets its own folder.
#[test]
#[ignore = "the golden store is kept, not made"]
fn make_golden() {
    assert!(!golden().exists(), "a golden store is never replaced");
    let dir = tempfile::tempdir().unwrap();
    let made = Made::create(&dir.path().join("store"));
    let store = made.open();
    take_point(&store, &plan(1), Compression::Zstd(3));
    take_point(&store, &plan(2), Compression::None);
    drop(store);
    copy_objects(&made.dir, &golden().join("store"));
    let decoded = Store::read(&made.dir, &Secret::MachineKeyFile(made.machine_key_file.clone())).unwrap();
    for (name, text) in [
        ("passphrase.txt", PASSPHRASE.to_string()),
        ("words.txt", made.words),
        ("machine.key", made.machine_key_file),
        ("listing.txt", full_listing(decoded)),
    ] {
        fs::write(golden().join(name), text).unwrap();
    }
}
