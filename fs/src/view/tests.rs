//! The view against a plain model, and the cases that the model does not know.
#![allow(clippy::unwrap_used)]

mod names;

use std::collections::BTreeMap;

use holdfast_store::clock::{Clock, Deadline, ManualClock, Timestamp};
use holdfast_store::tree::{Node, Xattr};

use super::*;
use crate::inode::ROOT;
use crate::recovery::{Reach, Totals};
use crate::testing::{Behaviour, MemoryRecovery, Part, link, node, point};

const NOW: Patience = Patience::Now;
const LATER: Patience = Patience::Until(Deadline::NEVER);

/// 2026-11-20T12:00:00Z
const NOON: i64 = 1_795_176_000;

struct Fixture {
    recovery: Arc<MemoryRecovery>,
    view: View,
    root: u64,
}

/// A view of one point whose root has these entries.
fn fixture(make: impl FnOnce(&MemoryRecovery) -> Vec<Node>) -> Fixture {
    let recovery = MemoryRecovery::new();
    let root = recovery.directory("root", make(&recovery));
    recovery.add(point("h", "g", "s", NOON, 1), root);
    let view = View::new(recovery.clone(), 5, 6).unwrap();
    let root = walk(&view, "by-group/g/s/2026-11-20T12.00.00Z").unwrap();
    Fixture { recovery, view, root }
}

/// Looks a path up as the kernel would.
fn walk(view: &View, path: &str) -> Result<u64, FsError> {
    path.split('/').try_fold(ROOT, |at, name| find(view, at, name))
}

fn find(view: &View, parent: u64, name: &str) -> Result<u64, FsError> {
    let entry = view.lookup(parent, name.as_bytes(), NOW)?;
    view.accept(&entry);
    Ok(entry.attr.ino)
}

/// A whole listing in pieces of `most`.
fn list(view: &View, ino: u64, most: usize) -> Vec<Listed> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let position = all.last().map_or(0, |last| last.position);
        let piece = view.list(ino, position, most, Detail::All, NOW).unwrap();
        if piece.is_empty() {
            return all;
        }
        all.extend(piece);
    }
}

/// Numbers by chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

/// What the model knows of a tree: content by path for files, nothing for directories.
type Model = BTreeMap<String, Option<Vec<u8>>>;

fn random_directory(
    chance: &mut Chance,
    recovery: &MemoryRecovery,
    model: &mut Model,
    path: &str,
    depth: u32,
) -> Node {
    let entries = (0..chance.below(12))
        .map(|n| {
            let name = format!("{}{n}", ["a", "B", "_", "ü", "\u{1}"][chance.below(5) as usize]);
            let below = format!("{path}/{name}");
            if depth > 0 && chance.below(3) == 0 {
                model.insert(below.clone(), None);
                return random_directory(chance, recovery, model, &below, depth - 1);
            }
            let parts: Vec<_> = (0..chance.below(4))
                .map(|_| match chance.below(2) {
                    0 => Part::Hole(chance.below(5000) + 1),
                    _ => Part::Data((0..chance.below(5000) + 1).map(|_| chance.below(256) as u8).collect()),
                })
                .collect();
            let plain = parts.iter().flat_map(|part| match part {
                Part::Hole(len) => vec![0; *len as usize],
                Part::Data(bytes) => bytes.clone(),
            });
            model.insert(below, Some(plain.collect()));
            recovery.file(&name, &parts)
        })
        .collect();
    recovery.directory(path.rsplit('/').next().unwrap_or_default(), entries)
}

#[test]
fn a_view_shows_what_a_plain_model_of_the_tree_shows() {
    for seed in 1..30 {
        let mut chance = Chance(seed);
        let mut model = Model::new();
        let f = fixture(|recovery| {
            let root = random_directory(&mut chance, recovery, &mut model, "", 3);
            vec![Node { name: b"top".to_vec(), ..root }]
        });
        let top = find(&f.view, f.root, "top").unwrap();
        let mut seen = Model::new();
        let mut open = vec![(String::new(), top)];
        while let Some((path, ino)) = open.pop() {
            let most = chance.below(7) as usize + 1;
            for item in list(&f.view, ino, most).into_iter().filter(|item| !item.is_dots()) {
                let below = format!("{path}/{}", String::from_utf8(item.name.clone()).unwrap());
                f.view.accept(&item.entry);
                let looked_up = f.view.lookup(ino, &item.name, NOW).unwrap();
                assert_eq!(looked_up.attr, item.entry.attr, "seed {seed}, {below}");
                let (ino, size) = (item.entry.attr.ino, item.entry.attr.size);
                if item.entry.attr.kind == NodeKind::Directory {
                    open.push((below.clone(), ino));
                    seen.insert(below, None);
                    continue;
                }
                let whole = f.view.read(ino, 0, u32::MAX, NOW).unwrap();
                for _ in 0..5 {
                    let (at, len) = (chance.below(size + 10), chance.below(6000) as u32);
                    let part = f.view.read(ino, at, len, NOW).unwrap();
                    let end = (at as usize + len as usize).min(whole.len());
                    assert_eq!(part, whole.get(at as usize..end).unwrap_or_default(), "seed {seed}, {below}");
                }
                seen.insert(below, Some(whole.to_vec()));
            }
        }
        assert_eq!(seen, model, "seed {seed}");
    }
}

#[test]
fn numbers_are_the_same_after_a_remount_and_after_forgetting() {
    let f = fixture(|r| vec![r.directory("d", vec![r.file("f", &[Part::Data(vec![1])])])]);
    let d = find(&f.view, f.root, "d").unwrap();
    let ino = find(&f.view, d, "f").unwrap();
    f.view.forget(ino, 1);
    f.view.forget(d, 1);
    assert_eq!(f.view.held(), 0);
    // A file handle of NFS asks by number alone.
    assert_eq!(f.view.attr(ino, NOW).unwrap().0.size, 1);
    assert_eq!(f.view.lookup(ino, b".", NOW).unwrap().attr.ino, ino);
    assert_eq!(f.view.lookup(d, b"..", NOW).unwrap().attr.ino, f.root);
    let again = View::new(f.recovery.clone(), 5, 6).unwrap();
    assert_eq!(walk(&again, "by-group/g/s/2026-11-20T12.00.00Z/d/f").unwrap(), ino);
    assert!(matches!(View::new(f.recovery, 5, 6).unwrap().attr(ino, NOW), Err(FsError::Stale)));
}

#[test]
fn memory_follows_what_the_kernel_holds() {
    let f = fixture(|r| (0..100).map(|n| r.file(&format!("f{n}"), &[])).collect());
    let listed = list(&f.view, f.root, 10);
    assert_eq!(f.view.held(), 0, "a listing alone holds nothing");
    listed.iter().for_each(|item| f.view.accept(&item.entry));
    assert_eq!(f.view.held(), 1, "one record for them all");
    listed.iter().for_each(|item| f.view.forget(item.entry.attr.ino, 1));
    assert_eq!(f.view.held(), 0);
}

/// What is named to be let go of, as long as more than `most` records are held: directories with names in them.
fn let_go(view: &View, most: usize) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    view.let_go_above(most, |change| {
        all.push((change.folder, String::from_utf8(change.names.join(&b' ')).unwrap()));
    });
    all
}

#[test]
fn what_the_kernel_might_forget_first_is_files_and_not_where_somebody_may_stand() {
    let f = fixture(|r| vec![r.file("a", &[]), r.directory("d", vec![r.file("f", &[])]), r.file("z", &[])]);
    find(&f.view, f.root, "a").unwrap();
    let d = find(&f.view, f.root, "d").unwrap();
    find(&f.view, d, "f").unwrap();
    assert_eq!(let_go(&f.view, 2), [], "no more than that are held");
    assert_eq!(let_go(&f.view, 0), [(f.root, "a z".into()), (d, "f".into())]);
    assert_eq!(let_go(&f.view, 0), [], "it was named, and nothing was told since");
    find(&f.view, f.root, "z").unwrap();
    f.recovery.directories(Behaviour::Cold(Reach::VAULT));
    assert_eq!(let_go(&f.view, 0), [], "nobody waits for a vault to forget");
    f.recovery.directories(Behaviour::Warm);
    assert_eq!(let_go(&f.view, 0), [(f.root, "a z".into())], "it comes again");
}

#[test]
fn all_of_a_segment_is_named_also_where_listings_pause() {
    let f = fixture(|r| ["a", "b", "c", "d", "e"].map(|name| r.file(name, &[])).to_vec());
    f.recovery.pause_after(2);
    find(&f.view, f.root, "e").unwrap();
    assert_eq!(let_go(&f.view, 0), [(f.root, "a b c d e".into())]);
}

#[test]
fn a_file_of_two_names_can_be_forgotten_only_by_both() {
    let f = fixture(|r| {
        let file = |name: &str| Node { links: 2, inode: 77, ..r.file(name, &[]) };
        vec![r.directory("d", vec![file("a"), file("b")]), r.directory("e", vec![file("c")]), file("f")]
    });
    let [d, e] = ["d", "e"].map(|name| find(&f.view, f.root, name).unwrap());
    let told: Vec<u64> =
        [(d, "b"), (e, "c"), (d, "a")].map(|(at, name)| find(&f.view, at, name).unwrap()).to_vec();
    assert_eq!((f.view.held(), told[0], told[1]), (4, told[2], told[2]));
    assert_eq!(let_go(&f.view, 0), [(f.root, "f".into()), (d, "a b".into()), (e, "c".into())]);
    f.view.forget(told[0], 3);
    assert_eq!(f.view.held(), 1, "the directories");
}

#[test]
fn a_round_of_forgetting_ends_whatever_is_told_meanwhile() {
    let f = fixture(|r| (0..9).map(|n| r.directory(&format!("d{n}"), vec![r.file("f", &[])])).collect());
    let enter = |n: u64| find(&f.view, find(&f.view, f.root, &format!("d{n}")).unwrap(), "f").unwrap();
    (0..9).for_each(|n| _ = enter(n));
    let mut rounds = 0;
    f.view.let_go_above(0, |_| {
        rounds += 1;
        (0..9).for_each(|n| _ = enter(n));
    });
    assert_eq!(rounds, 10, "one for each, and the root");
}

#[test]
fn hard_links_share_a_number_and_say_how_many_they_are() {
    let f = fixture(|r| {
        let a = Node { links: 2, inode: 77, ..r.file("a", &[Part::Data(b"x".to_vec())]) };
        let b = Node { name: b"b".to_vec(), ..a.clone() };
        vec![a, b, r.file("c", &[Part::Data(b"x".to_vec())])]
    });
    let [a, b, c] = ["a", "b", "c"].map(|name| find(&f.view, f.root, name).unwrap());
    assert_eq!(a, b);
    assert_ne!(a, c);
    assert_eq!(f.view.attr(a, NOW).unwrap().0.links, 2);
}

#[test]
fn dots_lead_to_the_directory_and_the_one_above() {
    let f = fixture(|r| vec![r.directory("d", vec![]), r.file("f", &[])]);
    let d = find(&f.view, f.root, "d").unwrap();
    let dots =
        |ino: u64| list(&f.view, ino, 9).iter().map(|item| item.entry.attr.ino).take(2).collect::<Vec<_>>();
    let source = walk(&f.view, "by-group/g/s").unwrap();
    assert_eq!(dots(d), [d, f.root]);
    assert_eq!(dots(f.root), [f.root, source]);
    assert_eq!(dots(ROOT), [ROOT, ROOT]);
    assert_eq!(f.view.lookup(f.root, b"..", NOW).unwrap().attr.ino, source);
    // Of any node, and by the name that the kernel gives to what it found by a handle.
    let file = find(&f.view, f.root, "f").unwrap();
    for (ino, name) in [(file, &b"."[..]), (file, b"/"), (d, b"."), (d, b"/"), (ROOT, b"/")] {
        assert_eq!(f.view.lookup(ino, name, NOW).unwrap().attr.ino, ino);
    }
    assert_eq!(f.view.lookup(file, b"..", NOW).unwrap().attr.ino, f.root);
    assert_eq!(f.view.lookup(ROOT, b"..", NOW).unwrap().attr.ino, ROOT);
}

#[test]
fn attributes_are_those_of_the_source() {
    let times = (Timestamp { seconds: -5, nanos: 999_999_999 }, Timestamp { seconds: 1 << 33, nanos: 1 });
    let f = fixture(|r| {
        let device =
            Node { device: Some((8, 300)), mode: 0o6755, uid: 70_000, ..node("dev", NodeKind::BlockDevice) };
        let sparse = r.file("sparse", &[Part::Hole(1 << 40), Part::Data(vec![7; 513])]);
        vec![Node { mtime: times.0, ctime: times.1, ..device }, sparse, link("link", "to/there")]
    });
    let attr = |name| f.view.attr(find(&f.view, f.root, name).unwrap(), NOW).unwrap().0;
    let device = attr("dev");
    assert_eq!((device.mode, device.uid, device.device), (0o6755, 70_000, (8, 300)));
    assert_eq!((device.mtime, device.ctime), times);
    assert_eq!((attr("sparse").size, attr("sparse").blocks), ((1 << 40) + 513, 8));
    assert_eq!((attr("link").kind, attr("link").size), (NodeKind::Symlink, 8));
    let folder = f.view.attr(ROOT, NOW).unwrap();
    assert_eq!((folder.0.uid, folder.0.gid, folder.0.mode, folder.0.links), (5, 6, 0o555, 5));
    assert_eq!(folder.1, Lifetime::Brief);
}

#[test]
fn flags_are_those_of_files_and_directories() {
    let f = fixture(|r| {
        let immutable = Node { flags: 0x10, ..r.file("f", &[]) };
        let append_only = Node { flags: 0x20, ..r.directory("d", vec![]) };
        vec![append_only, immutable, link("l", "f")]
    });
    let flags = |name| f.view.flags(find(&f.view, f.root, name).unwrap(), NOW);
    assert_eq!((flags("f").unwrap(), flags("d").unwrap(), f.view.flags(ROOT, NOW).unwrap()), (0x10, 0x20, 0));
    assert!(matches!(flags("l"), Err(FsError::WrongKind)));
}

#[test]
fn data_and_holes_are_found_by_seeking() {
    let f = fixture(|r| {
        let parts = [Part::Hole(100), Part::Data(vec![1; 50]), Part::Hole(10)];
        vec![r.file("f", &parts), r.file("full", &[Part::Data(vec![1; 9])])]
    });
    let [ino, full] = ["f", "full"].map(|name| find(&f.view, f.root, name).unwrap());
    let table = [
        (ino, 0, Seek::Data, Some(100)),
        (ino, 120, Seek::Data, Some(120)),
        (ino, 150, Seek::Data, None),
        (ino, 0, Seek::Hole, Some(0)),
        (ino, 100, Seek::Hole, Some(150)),
        (ino, 160, Seek::Hole, None),
        (full, 3, Seek::Hole, Some(9)),
        (full, 9, Seek::Hole, None),
    ];
    for (ino, from, seek, found) in table {
        match f.view.seek(ino, from, seek, NOW) {
            Ok(at) => assert_eq!(Some(at), found, "{seek:?} from {from}"),
            Err(error) => {
                assert!(matches!(error, FsError::NothingThere) && found.is_none(), "{seek:?} from {from}")
            }
        }
    }
}

#[test]
fn attributes_of_ours_answer_by_name_and_are_not_listed() {
    let f = fixture(|r| {
        let xattrs = [("security.x", "1"), ("trusted.z", "2"), ("user.y", "")];
        let xattrs = xattrs.map(|(n, v)| Xattr { name: n.into(), value: v.into() }).to_vec();
        vec![
            r.file("empty", &[]),
            Node { xattrs, ..r.file("f", &[Part::Data(vec![1])]) },
            node("lost", NodeKind::File),
            r.file("twin", &[Part::Data(vec![1])]),
        ]
    });
    let [ino, empty, lost, twin] =
        ["f", "empty", "lost", "twin"].map(|name| find(&f.view, f.root, name).unwrap());
    let get = |ino, name: &str| f.view.xattr(ino, name.as_bytes(), NOW);
    assert_eq!(f.view.xattr_names(ino, true, NOW).unwrap(), b"security.x\0trusted.z\0user.y\0");
    assert_eq!(f.view.xattr_names(ino, false, NOW).unwrap(), b"security.x\0user.y\0");
    assert_eq!(get(ino, "security.x").unwrap(), b"1");
    assert_eq!(get(ino, "user.y").unwrap(), b"");
    let id = point("h", "g", "s", NOON, 1).point.id.hex();
    assert_eq!(get(ino, "user.holdfast.point").unwrap(), id.as_bytes());
    assert_eq!(get(f.root, "user.holdfast.point").unwrap(), id.as_bytes());
    assert_eq!(get(ino, "user.holdfast.tier").unwrap(), b"memory");
    assert_eq!(get(ino, "user.holdfast.verified").unwrap(), b"2023-11-14T22:13:20Z");
    assert_eq!(get(ino, "user.holdfast.source").unwrap(), b"s");
    let content = get(ino, "user.holdfast.content").unwrap();
    assert_eq!(content, get(twin, "user.holdfast.content").unwrap(), "the same bytes");
    assert_ne!(content, get(empty, "user.holdfast.content").unwrap());
    assert!(content.len() == 64 && content.iter().all(u8::is_ascii_hexdigit));
    let missing = [
        (ino, "user.none"),
        (ino, "user.holdfast."),
        (empty, "user.holdfast.tier"),
        (lost, "user.holdfast.tier"),
        (empty, "user.holdfast.verified"),
        (lost, "user.holdfast.content"),
        (f.root, "user.holdfast.content"),
        (ROOT, "user.holdfast.point"),
        (ROOT, "user.holdfast.source"),
    ];
    for (ino, name) in missing {
        assert!(matches!(get(ino, name), Err(FsError::NoAttribute)), "{name}");
    }
    assert!(f.view.xattr_names(ROOT, true, NOW).unwrap().is_empty());
}

#[test]
fn buffers_are_probed_and_refused_when_too_small() {
    assert_eq!(sized(vec![1, 2, 3], 0).unwrap(), XattrAnswer::Size(3));
    assert_eq!(sized(vec![1, 2, 3], 3).unwrap(), XattrAnswer::Data(vec![1, 2, 3]));
    assert!(matches!(sized(vec![1, 2, 3], 2), Err(FsError::Range)));
    assert_eq!(sized(vec![], 5).unwrap(), XattrAnswer::Data(vec![]));
}

#[test]
fn what_makes_no_sense_gets_the_number_programs_expect() {
    let f = fixture(|r| {
        vec![r.file("f", &[]), r.directory("d", vec![]), link("l", "x"), node("lost", NodeKind::File)]
    });
    let [file, dir, link] = ["f", "d", "l"].map(|name| find(&f.view, f.root, name).unwrap());
    let refusals = [
        (f.view.lookup(file, b"x", NOW).map(|_| ()), "ENOTDIR"),
        (f.view.lookup(dir, b"x", NOW).map(|_| ()), "ENOENT"),
        (f.view.lookup(dir, &[b'x'; 256], NOW).map(|_| ()), "ENAMETOOLONG"),
        (f.view.read(dir, 0, 1, NOW).map(|_| ()), "EISDIR"),
        (f.view.read(ROOT, 0, 1, NOW).map(|_| ()), "EISDIR"),
        (f.view.read(link, 0, 1, NOW).map(|_| ()), "EINVAL"),
        (f.view.readlink(file, NOW).map(|_| ()), "EINVAL"),
        (f.view.list(file, 0, 9, Detail::All, NOW).map(|_| ()), "ENOTDIR"),
        (f.view.list(link, 0, 9, Detail::All, NOW).map(|_| ()), "ENOTDIR"),
        (f.view.attr(12345, NOW).map(|_| ()), "ESTALE"),
        (f.view.attr((1 << 61) + 12345, NOW).map(|_| ()), "ESTALE"),
    ];
    for (n, (refusal, errno)) in refusals.into_iter().enumerate() {
        assert_eq!(format!("{:?}", refusal.unwrap_err().errno()), errno, "case {n}");
    }
}

#[test]
fn a_file_that_was_not_captured_is_an_error_and_not_empty() {
    let f = fixture(|_| vec![Node { size: 10, ..node("lost", NodeKind::File) }]);
    let ino = find(&f.view, f.root, "lost").unwrap();
    assert!(matches!(f.view.read(ino, 0, 5, NOW), Err(FsError::NotCaptured)));
}

#[test]
fn new_points_appear_and_vanished_ones_go_while_open_files_stay() {
    let f = fixture(|r| vec![r.file("f", &[Part::Data(b"kept".to_vec())])]);
    let ino = find(&f.view, f.root, "f").unwrap();
    assert!(f.view.refresh().unwrap().is_empty());
    let root = f.recovery.directory("root", vec![]);
    f.recovery.add(point("h", "g", "s", NOON + 60, 2), root);
    let changes = f.view.refresh().unwrap();
    let source = walk(&f.view, "by-group/g/s").unwrap();
    let change = changes.iter().find(|change| change.folder == source).unwrap();
    assert!(
        change.names.contains(&b"2026-11-20T12.01.00Z".to_vec())
            && change.names.contains(&b"latest".to_vec())
    );
    assert!(walk(&f.view, "by-group/g/s/2026-11-20T12.01.00Z").is_ok());
    f.recovery.remove(&point("h", "g", "s", NOON, 1).point.id);
    assert!(!f.view.refresh().unwrap().is_empty());
    assert!(matches!(walk(&f.view, "by-group/g/s/2026-11-20T12.00.00Z"), Err(FsError::NotFound)));
    assert!(matches!(f.view.attr(f.root, NOW), Err(FsError::Stale)));
    assert_eq!(f.view.read(ino, 0, 9, NOW).unwrap(), "kept");
}

#[test]
fn a_point_whose_time_and_number_become_known_takes_its_place() {
    let f = fixture(|_| vec![]);
    let latest = || f.view.readlink(walk(&f.view, "by-group/g/s/latest").unwrap(), LATER).unwrap();
    let mut stored = point("h", "g", "s", 0, u64::MAX);
    f.recovery.add(stored.clone(), f.recovery.directory("root", vec![]));
    f.view.refresh().unwrap();
    assert_eq!(latest(), "1970-01-01T00.00.00Z");
    f.recovery.remove(&stored.point.id);
    let known = Arc::make_mut(&mut stored.point);
    (known.sequence, known.started.seconds) = (0, NOON - 60);
    f.recovery.add(stored, f.recovery.directory("root", vec![]));
    assert!(!f.view.refresh().unwrap().is_empty());
    assert_eq!(latest(), "2026-11-20T12.00.00Z");
}

#[test]
fn a_point_that_comes_into_doubt_stays_where_it_was_shown() {
    let f = fixture(|_| vec![]);
    let place = "by-group/g/s/2026-11-20T12.00.00Z";
    let ino = walk(&f.view, place).unwrap();
    let mut stored = point("h", "g", "s", NOON, 1);
    f.recovery.remove(&stored.point.id);
    let doubtful = Arc::make_mut(&mut stored.point);
    (doubtful.sequence, doubtful.started.seconds) = (u64::MAX, 0);
    (doubtful.source.group, doubtful.source.source) = ("unknown".into(), "of its own".into());
    f.recovery.add(stored, f.recovery.directory("root", vec![]));
    f.view.refresh().unwrap();
    assert_eq!(walk(&f.view, place).unwrap(), ino);
    assert!(matches!(walk(&f.view, "by-group/unknown"), Err(FsError::NotFound)));
}

#[test]
fn a_listing_goes_on_behind_points_that_went_however_many() {
    let f = fixture(|_| vec![]);
    for n in 2..=40 {
        f.recovery.add(point("h", "g", "s", NOON + 60 * n, n as u64), f.recovery.directory("root", vec![]));
    }
    let names = |view: &View| -> Vec<_> {
        let listed = list(view, walk(view, "by-id").unwrap(), 5);
        listed.into_iter().skip(2).map(|entry| String::from_utf8(entry.name).unwrap()).collect()
    };
    let (one, other) = [(); 2].map(|()| View::new(f.recovery.clone(), 0, 0).unwrap()).into();
    let all = names(&one);
    assert_eq!(all.len(), 40);
    let (gone, left) = all.split_at(37);
    let ids = (1..=40).map(|n| point("h", "g", "s", NOON, n).point.id);
    ids.filter(|id| gone.contains(&id.hex())).for_each(|id| f.recovery.remove(&id));
    assert_eq!(names(&other), left);
}

#[test]
fn what_is_not_in_memory_is_left_for_later_and_then_answered() {
    let f = fixture(|r| vec![r.file("f", &[Part::Data(b"cold".to_vec())])]);
    let ino = find(&f.view, f.root, "f").unwrap();
    let later =
        Patience::Until(Deadline::after(&ManualClock::default() as &dyn Clock, std::time::Duration::MAX));
    for reach in [Reach::Local, Reach::VAULT] {
        f.recovery.contents(Behaviour::Cold(reach));
        assert!(matches!(f.view.read(ino, 0, 9, NOW), Err(FsError::Later(far)) if far == reach));
        assert_eq!(f.view.read(ino, 0, 9, later).unwrap(), "cold");
    }
    f.recovery.directories(Behaviour::Cold(Reach::Local));
    assert!(matches!(f.view.lookup(f.root, b"f", NOW), Err(FsError::Later(Reach::Local))));
    assert!(matches!(f.view.list(f.root, 0, 9, Detail::All, NOW), Err(FsError::Later(_))));
    f.recovery.directories(Behaviour::Failing);
    assert_eq!(f.view.lookup(f.root, b"f", later).unwrap_err().errno(), nix::errno::Errno::EIO);
}

#[test]
fn totals_count_every_point() {
    let f = fixture(|_| vec![]);
    assert_eq!(f.view.totals(LATER).unwrap(), Totals { bytes: 4096, entries: 4 });
}

#[test]
fn a_look_for_new_points_that_takes_long_keeps_nobody_from_an_answer() {
    let f = fixture(|_| vec![]);
    let root = f.recovery.directory("root", vec![]);
    f.recovery.add(point("h", "g", "s", NOON + 60, 2), root);
    f.recovery.lists(Behaviour::Hanging);
    let asks = f.recovery.asks();
    let (sender, receiver) = std::sync::mpsc::channel();
    let answered = std::thread::scope(|scope| {
        scope.spawn(|| f.view.refresh().unwrap());
        while f.recovery.asks() == asks {
            std::thread::yield_now();
        }
        scope.spawn(|| sender.send(f.view.totals(NOW)));
        let answered = receiver.recv_timeout(std::time::Duration::from_secs(10));
        f.recovery.lists(Behaviour::Warm);
        answered
    });
    assert!(matches!(answered, Ok(Ok(_))), "{answered:?}");
    assert!(walk(&f.view, "by-group/g/s/2026-11-20T12.01.00Z").is_ok());
}

#[test]
fn absence_inside_a_point_lasts_and_above_it_does_not() {
    let f = fixture(|r| vec![r.directory("d", vec![])]);
    let d = find(&f.view, f.root, "d").unwrap();
    assert_eq!(
        [ROOT, f.root, d].map(|ino| f.view.lifetime_below(ino)),
        [Lifetime::Brief, Lifetime::Forever, Lifetime::Forever]
    );
}

#[test]
fn files_that_come_next_can_be_given_only_if_the_kernel_has_heard_of_their_directory() {
    let f = fixture(|r| {
        let file = |name: &str| r.file(name, &[Part::Data(name.as_bytes().repeat(9))]);
        vec![file("a"), r.directory("b", vec![]), file("c"), file("d"), link("e", "a")]
    });
    let (a, d) = (find(&f.view, f.root, "a").unwrap(), find(&f.view, f.root, "d").unwrap());
    assert_eq!((f.view.standing(a), f.view.standing(d)), (Some((f.root, 0)), Some((f.root, 3))));
    let coming = f.view.coming(f.root, 1, 9).unwrap();
    assert_eq!(
        coming.iter().map(|c| (c.ordinal, c.ino)).collect::<Vec<_>>(),
        [(1, Some(a + 1)), (2, Some(a + 2)), (3, Some(d)), (4, Some(a + 4))]
    );
    assert_eq!(coming.iter().map(Coming::room).collect::<Vec<_>>(), [0, 9, 9, 0]);
    assert_eq!(f.view.content_here(&coming[2]).unwrap(), "ddddddddd");
    f.view.forget(d, 1);
    f.view.forget(a, 1);
    assert_eq!(f.view.coming(f.root, 3, 1).unwrap()[0].room(), 0, "it has forgotten");
    assert!(f.view.coming(f.root, 5, 9).unwrap().is_empty());
    f.recovery.contents(Behaviour::Cold(Reach::VAULT));
    assert!(f.view.content_here(&coming[2]).is_err(), "nobody waits for what nobody asked for");
}

#[test]
fn beside_a_read_lie_whole_pages_of_what_was_decoded_for_it() {
    // Chunks begin at 0, 10,000, 20,000 and 30,000; the last one ends at 33,000.
    let bytes: Vec<u8> = (0..33_000).map(|n| (n / 3) as u8).collect();
    let f = fixture(|r| {
        let parts: Vec<_> = bytes.chunks(10_000).map(|part| Part::Data(part.to_vec())).collect();
        vec![r.file("f", &parts), r.file("hole", &[Part::Hole(50_000)])]
    });
    let ino = find(&f.view, f.root, "f").unwrap();
    let beside = |offset: u64, len: u64| -> Vec<(u64, u64)> {
        let pieces = f.view.decoded_beside(ino, offset, len).unwrap();
        pieces.iter().for_each(|(at, piece)| assert!(piece == &bytes[*at as usize..][..piece.len()]));
        pieces.iter().map(|(at, piece)| (*at, piece.len() as u64)).collect()
    };
    assert_eq!(beside(12_288, 4096), [], "one page of the chunk is whole, and it was read");
    assert_eq!(beside(0, 4096), [(4096, 4096)]);
    assert_eq!(beside(4096, 4096), [(0, 4096)]);
    assert_eq!(beside(30_000, 100), [(32_768, 232)], "the end of the file counts as a page");
    assert_eq!(beside(24_576, 4096), [(20_480, 4096)]);
    assert_eq!(beside(8192, 20_480), [(0, 8192)], "several chunks: what is left of the first and the last");
    assert_eq!((beside(33_000, 5), beside(99_000, 5)), (vec![], vec![]));
    let hole = find(&f.view, f.root, "hole").unwrap();
    assert!(f.view.decoded_beside(hole, 8192, 4096).unwrap().is_empty());
}
