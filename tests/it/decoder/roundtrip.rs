//! A store of all that the format can say is made by the engine and read by the decoder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use holdfast_store::clock::Timestamp;
use holdfast_store::fence::{Revocation, Why};
use holdfast_store::id::{Attempt, ObjectHash, RecoveryPointId};
use holdfast_store::names;
use holdfast_store::point::object::seal_session;
use holdfast_store::point::{Head, Sight, VaultSession};
use holdfast_store::seal::Compression;
use holdfast_store::seal::writer::OwnerKey;
use holdfast_store::tree::{NodeKind, Xattr};

use super::fields::Read;
use super::golden::copy_objects;
use super::listing::{Line, text};
use super::make::{Made, PASSPHRASE, Piece, Planned, engine_lines, take_point};
use super::point::check_session;
use super::slot::Secret;
use super::store::{Store, open_ring};
use super::writer::Writer;
use super::writing::{Seen, border, check_pack_lengths, check_store, padme};
use crate::testkit::noise;

/// A store with two points and what was put into them.
struct Sample {
    _dir: tempfile::TempDir,
    made: Made,
    plans: [Planned; 2],
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let made = Made::create(&dir.path().join("store"));
    let plans = [plan(1), plan(2)];
    let store = made.open();
    take_point(&store, &plans[0], Compression::Zstd(3));
    take_point(&store, &plans[1], Compression::None);
    Sample { _dir: dir, made, plans }
});

impl Sample {
    fn decode(&self) -> Store {
        Store::read(&self.made.dir, &Secret::MachineKeyFile(self.made.machine_key_file.clone())).unwrap()
    }
}

fn plan(version: u32) -> Planned {
    let files = vec![
        Planned::file("empty", Vec::new()),
        Planned::file("only a hole", vec![Piece::Hole(10 << 20)]),
        Planned::file("holes", holes()),
        Planned::file("long", vec![Piece::Bytes(noise("long", 1_500_000))]),
        Planned::file("text", vec![Piece::Bytes(b"holdfast ".repeat(20_000))]),
        Planned::file("own", vec![Piece::Bytes(noise(format!("own {version}"), 100_000))]),
        Planned::file("many extents and holes", many_holes()),
    ];
    Planned::directory(
        "root",
        vec![
            Planned::directory("files", files),
            Planned::directory("kinds", kinds()),
            Planned::directory("names", names()),
            Planned::directory("metadata", metadata()),
            Planned::directory("large", (0..3200 + version).map(numbered).collect()),
            Planned::directory("three levels", three_levels()),
            Planned::directory("empty", Vec::new()),
            Planned::directory("deep", vec![deep(60)]),
        ],
    )
    .with(|root| (root.mode, root.user) = (0o1777, Some(b"me".to_vec())))
}

fn holes() -> Vec<Piece> {
    let bytes = |n: usize| Piece::Bytes(noise("holes", n));
    vec![Piece::Hole(4096), bytes(20_000), Piece::Hole(1 << 20), bytes(1), Piece::Hole(1)]
}

/// So many short stretches that their list pages (each ends at the first hole after 64 items) are more than 64 too.
fn many_holes() -> Vec<Piece> {
    let pair = |n: u32| [Piece::Bytes(n.to_le_bytes().to_vec()), Piece::Hole(1 + u64::from(n % 7))];
    (0..6000).flat_map(pair).collect()
}

fn kinds() -> Vec<Planned> {
    vec![
        Planned::link("link", b"../nowhere/\xff"),
        Planned::link("longest link", &[b'x'; 4095]),
        Planned::new("fifo", NodeKind::Fifo),
        Planned::new("socket", NodeKind::Socket),
        Planned::new("null", NodeKind::CharDevice).with(|node| node.device = Some((1, 3))),
        Planned::new("disk", NodeKind::BlockDevice).with(|node| node.device = Some((u32::MAX, u32::MAX))),
    ]
}

fn names() -> Vec<Planned> {
    let longest = [b'n'; 255];
    let names: [&[u8]; 9] =
        [b"\xff\xfe", b"\x01", b" ", b"...", b"\\", b"line\nbreak", "ünï".as_bytes(), &longest, b"-rf"];
    names.map(|name| Planned::new(name, NodeKind::Fifo)).into()
}

fn metadata() -> Vec<Planned> {
    let at = |seconds, nanos| Timestamp { seconds, nanos };
    let xattr = |name: &[u8], value: Vec<u8>| Xattr { name: name.to_vec(), value };
    let file = |name: &str| Planned::file(name, vec![Piece::Bytes(b"same".to_vec())]);
    vec![
        file("before 1970").with(|node| (node.mtime, node.ctime) = (at(-1, 999_999_999), at(i64::MIN, 0))),
        file("far").with(|node| node.mtime = at(i64::MAX, 1)),
        file("flags").with(|node| node.flags = 0x10 | 0x40 | 0x80_0000),
        file("modes").with(|node| node.mode = 0o7777),
        file("linked a").with(|node| (node.inode, node.links, node.filesystem) = (7, 2, 9)),
        file("linked b").with(|node| (node.inode, node.links, node.filesystem) = (7, 2, 9)),
        file("owners").with(|node| {
            (node.uid, node.gid) = (0, 77);
            (node.user, node.group) = (Some(b"root".to_vec()), Some("größe".into()));
        }),
        file("numbers").with(|node| (node.uid, node.gid, node.inode) = (u32::MAX, u32::MAX, u64::MAX)),
        file("xattrs").with(|node| {
            node.xattrs = vec![
                xattr(b"security.capability", vec![0, 1, 255]),
                xattr(b"user.empty", Vec::new()),
                xattr(b"user.long", noise("xattr", 64 << 10)),
            ];
        }),
        file("extended").with(|node| node.extensions = vec![(1, b"one".to_vec()), (0x7fff, Vec::new())]),
    ]
}

fn numbered(n: u32) -> Planned {
    Planned::file(format!("entry {n:05}"), vec![Piece::Bytes(vec![b'x'; (n % 3) as usize])])
}

/// Entries of which each ends its leaf, and the last ends the inner page too, so that there are inner pages on two
/// levels. The names are found by the rule of the format.
fn three_levels() -> Vec<Planned> {
    let ends_leaf: Vec<String> =
        (0..5000).map(|n| format!("border {n:04}")).filter(|n| border(0, n.as_bytes())).collect();
    let large = |name: &String| {
        let xattr = Xattr { name: b"user.filler".to_vec(), value: noise(name, 8 << 10) };
        Planned::new(name, NodeKind::Fifo).with(|node| node.xattrs = vec![xattr])
    };
    let ends_page = (0..)
        .map(|n| format!("border 2 {n:05}"))
        .find(|n| border(0, n.as_bytes()) && border(1, n.as_bytes()))
        .unwrap();
    let mut all: Vec<String> = ends_leaf.into_iter().take(12).chain([ends_page]).collect();
    all.extend((0..3).map(|n| format!("later {n}")));
    all.iter().map(large).collect()
}

fn deep(levels: u32) -> Planned {
    let below = if levels == 0 { Vec::new() } else { vec![deep(levels - 1)] };
    Planned::directory(format!("level {levels}"), below)
}

fn planned_lines(plan: &Planned) -> Vec<Line> {
    let mut lines = Vec::new();
    plan.lines(b"", &mut lines);
    lines
}

/// Compares line by line, so that a failure shows the one line.
fn assert_same(found: &[Line], wanted: &[Line]) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found.to_string(), wanted.to_string());
    }
    assert_eq!(found.len(), wanted.len());
    assert!(text(found) == text(wanted));
}

#[test]
fn the_decoder_lists_what_was_put_in() {
    let mut decoded = SAMPLE.decode();
    let points = std::mem::take(&mut decoded.points);
    assert_eq!(points.len(), 2);
    assert!(decoded.packs.len() > 3 && decoded.indexes >= 2);
    for (n, (point, plan)) in points.into_iter().zip(&SAMPLE.plans).enumerate() {
        assert_eq!(
            (point.sequence, &point.source[..]),
            (n as u64 + 1, &["höst", "group", "source"].map(String::from)[..])
        );
        assert_eq!((&point.path[..], point.errors_total, point.errors.len()), (&b"/source\xff"[..], 2, 1));
        let root = point.root.subtree.as_ref().map(|subtree| subtree.tree);
        assert_eq!(point.summary.first().map(|place| place.chunk), root, "the root's page lies in one frame");
        assert_same(&decoded.listing(point).unwrap(), &planned_lines(plan));
    }
}

#[test]
fn decoder_and_engine_list_the_same() {
    let mut decoded = SAMPLE.decode();
    let store = SAMPLE.made.open();
    let points = std::mem::take(&mut decoded.points);
    for (point, engine) in points.into_iter().zip(store.points().unwrap()) {
        assert_eq!((point.id, point.hash), (engine.point.id.0, engine.hash));
        assert_same(&decoded.listing(point).unwrap(), &engine_lines(&store, &engine));
    }
}

#[test]
fn the_engine_cuts_chunks_pages_and_lists_where_the_format_says() {
    let decoded = SAMPLE.decode();
    let mut seen = Seen::default();
    for point in &decoded.points {
        check_store(&decoded, &point.root.subtree.as_ref().unwrap().tree, &mut seen);
    }
    assert!(seen.chunks > 10_000);
    assert_eq!((seen.page_levels, seen.list_levels), (3, 2));
}

#[test]
fn the_engine_gives_objects_the_lengths_that_the_format_says() {
    let decoded = SAMPLE.decode();
    let most = decoded.points.iter().map(|point| point.packs.len()).max();
    assert!(most >= Some(2), "one has a full pack: {most:?}");
    for point in &decoded.points {
        assert!(!point.packs.is_empty());
        check_pack_lengths(&decoded, &point.packs);
    }
    let mut objects = 0;
    for below in ["rp", "idx"] {
        for entry in walk(&SAMPLE.made.dir.join(below)) {
            let len = fs::metadata(&entry).unwrap().len();
            assert!(len >= 4 << 10 && len == padme(len), "{}: {len}", entry.display());
            objects += 1;
        }
    }
    assert!(objects >= 4);
}

/// All files below a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn every_kind_of_secret_opens_the_store_and_no_other_does() {
    let open = |secret| -> Read<_> { Ok(open_ring(&SAMPLE.made.dir, &secret)?.keys) };
    let keys = open(Secret::Passphrase(PASSPHRASE.into())).unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(open(Secret::Words(SAMPLE.made.words.clone())).unwrap(), keys);
    assert_eq!(open(Secret::MachineKeyFile(SAMPLE.made.machine_key_file.clone())).unwrap(), keys);
    let wrong = open(Secret::Words(["abandon"; 23].join(" ") + " art")).unwrap_err();
    assert!(wrong.to_string().contains("opens no key slot"), "{wrong}");
}

#[test]
fn a_session_of_the_engine_is_read_under_its_own_id_only() {
    let store = SAMPLE.made.open();
    let (id, source_tag) = (RecoveryPointId([7; 16]), store.sealer().source_tag("host", "group", "source"));
    let ring = SAMPLE.decode().ring;
    let head = Head { source: source_tag, point: id, sequence: 1, hash: ObjectHash([9; 32]) };
    for sight in [None, Some(Sight { attempt: 3, heads: vec![head; 2] })] {
        let (writer, signature) = (b"writer".to_vec(), Vec::new());
        let session = VaultSession { id, source_tag, started: -1, writer, sight, signature };
        let bytes = seal_session(&session, store.sealer()).unwrap();
        check_session(id.0, &bytes, &ring).unwrap();
        assert!(check_session([8; 16], &bytes, &ring).is_err());
    }
}

#[test]
fn who_made_a_point_of_the_engine_stands_in_it_as_the_format_says() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("store");
    copy_objects(&SAMPLE.made.dir, &copy);
    let (owner, hosts) = (OwnerKey::generate(), ["höst".to_owned(), "other".to_owned()]);
    let writer = owner.admit(SAMPLE.made.open().id(), "machine", &hosts, -3);
    let expected = Writer {
        id: writer.admission().id().0,
        owner: owner.public(),
        admitted: -3,
        machine: "machine".into(),
        hosts: hosts.to_vec(),
    };
    fs::create_dir_all(copy.join("tmp")).unwrap();
    take_point(&SAMPLE.made.open_signing(&copy, writer), &SAMPLE.plans[0], Compression::None);
    let read = Store::read(&copy, &Secret::Words(SAMPLE.made.words.clone())).unwrap();
    let mut writers: Vec<_> = read.points.into_iter().map(|point| point.writer).collect();
    assert_eq!((writers.pop().unwrap(), writers), (Some(expected), vec![None, None]));
}

#[test]
fn points_of_further_attempts_and_revocations_are_read_under_their_own_names_only() {
    let dir = tempfile::tempdir().unwrap();
    copy_objects(&SAMPLE.made.dir, dir.path());
    let read = || {
        Store::read(dir.path(), &Secret::MachineKeyFile(SAMPLE.made.machine_key_file.clone()))
            .map(|s| s.points.len())
    };
    assert_eq!(read().unwrap(), 2);
    let store = SAMPLE.made.open();
    let point = store.points().unwrap().remove(0).point;
    let (id, tag) = (point.id, point.source_tag);
    let at = |number| dir.path().join(names::outcome(&tag, &Attempt { point: id, number }).as_str());
    let revocation = |number, why| {
        Revocation { attempt: Attempt { point: id, number }, tag, why, at: -1 }.seal(store.sealer())
    };
    fs::rename(at(0), at(2)).unwrap();
    fs::write(at(0), revocation(0, Why::Silent)).unwrap();
    fs::write(at(1), revocation(1, Why::Forgotten)).unwrap();
    let (writer, signature) = (Vec::new(), Vec::new());
    let session = VaultSession { id, source_tag: tag, started: 0, writer, sight: None, signature };
    let name = names::session(&Attempt { point: id, number: 2 });
    fs::create_dir_all(dir.path().join("sess")).unwrap();
    fs::write(dir.path().join(name.as_str()), seal_session(&session, store.sealer()).unwrap()).unwrap();
    assert_eq!(read().unwrap(), 2);
    // The same at two attempts is one point.
    fs::copy(at(2), at(200)).unwrap();
    assert_eq!(read().unwrap(), 2);
    for (number, of) in [(0, 1), (1, 0), (2, 1)] {
        let before = fs::read(at(number)).unwrap();
        fs::write(at(number), revocation(of, Why::Silent)).unwrap();
        assert!(read().is_err(), "{of} as {number}");
        fs::write(at(number), before).unwrap();
    }
    fs::rename(at(200), at(200).with_extension("0200")).unwrap();
    assert!(read().is_err());
}
