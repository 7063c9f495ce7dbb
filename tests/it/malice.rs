//! A store that somebody wrote who has its key and means harm, or that was damaged so well that every seal holds: names that lead
//! elsewhere, sizes that no kernel takes, lists without end, directories that are not what they claim. Whoever looks is told, in
//! time and within bounded memory, and what is sound beside it reads right.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_fs::testing::{link, node, point};
use holdfast_store::chunk_store::TreeSink;
use holdfast_store::clock::{SystemClock, Timestamp};
use holdfast_store::id::ChunkId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::pack::PackKind;
use holdfast_store::point::{Counts, RecoveryPoint, SourceName};
use holdfast_store::seal::{ChunkType, Compression};
use holdfast_store::store::{Session, Store, StoreOptions};
use holdfast_store::tree::page::{InnerItem, Page};
use holdfast_store::tree::{ChunkSink, Content, Extent, Node, NodeKind, Subtree, Xattr};
use nix::errno::Errno;

use crate::testkit::{Machine, Ran, can_mount, figure, wait_for};
use crate::trouble::{SmallStore, command};

/// What stands in a page where something else is put afterwards.
const MARK: &[u8] = b"something innocent";
/// Nothing that a mount does for one question may take longer.
const BOUND: Duration = Duration::from_secs(20);
/// Nor may all of it take more memory than this, in KiB: a mount of honest points stays below 100 MiB.
const MEMORY: u64 = 300 << 10;

/// Writes pages of any bytes.
struct Forge<'a> {
    sink: TreeSink<'a>,
    /// A chunk of 64 KiB of the letter A.
    data: Extent,
}

impl<'a> Forge<'a> {
    fn new(session: &'a Session<'_>) -> Self {
        let plain = vec![b'A'; 64 << 10];
        let id = session.ingest().name(ChunkType::Data, &plain);
        assert!(session.ingest().claim(&id).unwrap());
        let mut frames = session.ingest().frames();
        frames.push(id, &plain);
        session.ingest().deliver(PackKind::Data, frames.take()).unwrap();
        Self { sink: TreeSink::new(session.ingest()), data: Extent::Data { id, len: plain.len() as u32 } }
    }

    fn page(&mut self, bytes: &[u8]) -> ChunkId {
        self.sink.put(ChunkType::Tree, bytes).unwrap()
    }

    fn leaf(&mut self, mut nodes: Vec<Node>) -> ChunkId {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.page(&Page::Leaf(nodes).encode().unwrap())
    }

    fn inner(&mut self, level: u8, items: &[(&str, ChunkId, u64)]) -> ChunkId {
        let item = |(first, page, entries): &(&str, ChunkId, u64)| InnerItem {
            first: first.as_bytes().to_vec(),
            page: *page,
            entries: *entries,
        };
        let items = items.iter().map(item).collect();
        self.page(&Page::Inner { level, items }.encode().unwrap())
    }

    /// A leaf of one entry, in which the mark after its `u16` length is other bytes with theirs.
    fn forged(&mut self, entry: Node, instead: &[u8]) -> ChunkId {
        let bytes = Page::Leaf(vec![entry]).encode().unwrap();
        let mark = [&(MARK.len() as u16).to_le_bytes(), MARK].concat();
        let at = bytes.windows(mark.len()).position(|window| window == mark).unwrap();
        let len = (instead.len() as u16).to_le_bytes();
        let forged = [&bytes[..at], &len, instead, &bytes[at + mark.len()..]].concat();
        self.page(&forged)
    }

    /// A list of 4,096 items over and over, `depth` pages high: 2^28 bytes at 0, 2^12 times as much for each level.
    fn endless(&mut self, depth: u8) -> (Content, u64) {
        let mut list = Content::Inline(vec![self.data; 4096]);
        for level in 1..=depth {
            let (id, len) = (self.sink.put(ChunkType::List, &list.encode()).unwrap(), list.len());
            let items = if level == depth { 64 } else { 4096 };
            list = Content::Paged { depth: level, pages: vec![(id, len); items] };
        }
        let len = list.len();
        (list, len)
    }
}

fn file(name: &str, extents: Vec<Extent>) -> Node {
    let size = extents.iter().map(Extent::len).sum();
    Node { size, content: Some(Content::Inline(extents)), ..node(name, NodeKind::File) }
}

fn directory(name: &str, tree: ChunkId, entries: u64) -> Node {
    let subtree = Some(Subtree { tree, entries, bytes: 0 });
    Node { subtree, links: 2, mode: 0o755, ..node(name, NodeKind::Directory) }
}

/// Entries of a root that each do harm of a kind of their own; those whose names begin with `refused` cannot be listed at all.
fn evil(forge: &mut Forge<'_>) -> Vec<Node> {
    let mark = std::str::from_utf8(MARK).unwrap();
    let plain = |name: &str| file(name, Vec::new());
    let long = vec![b'n'; 10_000];
    let names: [&[u8]; 7] = [b"a/b", b"../../etc/passwd", b"a\0b", b".", b"..", b"", &long];
    let mut root: Vec<Node> = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let page = forge.forged(plain(mark), name);
        root.push(directory(&format!("refused-name-{n}"), page, 1));
    }
    let target = forge.forged(link("link", mark), &vec![b't'; 65_000]);
    root.push(directory("refused-target", target, 1));
    let leaf = forge.leaf(vec![plain("a")]);
    let pages = [
        ("refused-claim", forge.inner(1, &[("a", leaf, 1 << 40)])),
        ("refused-first", forge.inner(1, &[("b", leaf, 1)])),
        ("refused-level", forge.inner(5, &[("a", leaf, 1)])),
        ("refused-missing", forge.inner(1, &[("a", ChunkId([7; 32]), 1)])),
        ("refused-bomb", forge.page(&vec![0; 15 << 20])),
        ("refused-count", forge.page(&[&[1, 0, 0, 0, 0, 0][..], &u32::MAX.to_le_bytes()].concat())),
    ];
    root.extend(pages.into_iter().map(|(name, page)| directory(name, page, 1 << 40)));
    let (list, len) = forge.endless(3);
    let endless = Node { size: len, content: Some(list), ..node("endless", NodeKind::File) };
    let half = 1 << 63;
    let xattrs = (0..1024)
        .map(|n| Xattr {
            name: format!("user.{n:04}{}", "x".repeat(246)).into_bytes(),
            value: vec![b'v'; 300],
        })
        .collect();
    let heavy = Xattr { name: b"user.heavy".to_vec(), value: vec![b'h'; 64 << 10] };
    let sizes = forge.leaf(vec![
        endless,
        file("half", vec![Extent::Hole { len: half }]),
        file("most", vec![Extent::Hole { len: half }, Extent::Hole { len: half - 1 }]),
        file("sparse", vec![Extent::Hole { len: (1 << 62) - 65_536 }, forge.data]),
        Node { xattrs, ..file("many-attributes", Vec::new()) },
        Node { xattrs: vec![heavy], ..file("heavy-attribute", Vec::new()) },
        Node {
            mtime: Timestamp { seconds: i64::MAX, nanos: 999_999_999 },
            ctime: Timestamp { seconds: i64::MIN, nanos: 0 },
            inode: u64::MAX,
            links: u32::MAX,
            uid: u32::MAX,
            gid: u32::MAX,
            ..file("numbers", Vec::new())
        },
    ]);
    root.push(directory("sizes", sizes, u64::MAX));
    let deep = (0..5000).fold(leaf, |below, _| forge.leaf(vec![directory("d", below, 1)]));
    root.push(directory("deep", deep, 5000));
    root.push(file("sound", vec![forge.data; 3]));
    root
}

/// A machine with a store that the forger wrote; the id of its point.
fn forged() -> (Machine, SmallStore, String) {
    let machine = Machine::new();
    let made = SmallStore::make(&machine, machine.path("store"));
    let options = StoreOptions { memory: 16 << 20, ..StoreOptions::local(Arc::new(SystemClock)) };
    let store = Store::open(&made.dir, &made.ring, options, &VoidMonitor).unwrap();
    let session = store.begin(Compression::Zstd(3), &VoidMonitor).unwrap();
    let mut forge = Forge::new(&session);
    let mut root = evil(&mut forge);
    root.sort_by(|a, b| a.name.cmp(&b.name));
    let tree = forge.leaf(root);
    forge.sink.finish().unwrap();
    let most = u64::MAX;
    let counts = Counts {
        files: most,
        directories: most,
        others: most,
        bytes: most,
        files_read: most,
        ..Counts::default()
    };
    let (host, group, source) = ("ho/st\n".to_owned(), "../..".to_owned(), "@GMT\0/".repeat(5000));
    let stored = session.commit(|_| RecoveryPoint {
        root: directory("root", tree, most),
        counts,
        source_tag: store.sealer().source_tag(&host, &group, &source),
        source: SourceName { host, group, source },
        started: Timestamp { seconds: i64::MAX, nanos: 0 },
        ended: Timestamp { seconds: i64::MIN, nanos: 0 },
        ..(*point("h", "g", "s", 0, 1).point).clone()
    });
    let id = stored.unwrap().point.id.hex();
    (machine, made, id)
}

/// Peak memory of a process, in KiB.
fn peak(pid: i32) -> u64 {
    figure(pid, "status", "VmHWM:")
}

/// Runs a shell command in a directory, which must end in time.
fn shell(script: &str, at: &Path) -> (bool, String) {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", &BOUND.as_secs().to_string(), "sh", "-c", script]).current_dir(at);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let killed = output.status.code().is_none_or(|code| code == 137);
    assert!(!killed, "{script} did not end in time");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_mount_of_a_forged_store_refuses_what_is_forged_and_shows_the_rest() {
    if !can_mount("a_mount_of_a_forged_store_refuses_what_is_forged_and_shows_the_rest") {
        return;
    }
    let (machine, made, id) = forged();
    let place = machine.path("recovery");
    std::fs::create_dir(&place).unwrap();
    let log = machine.path("log");
    let mut serve = command(&machine, &made.dir, &["mount", "--read-timeout", "10"]);
    let errors = std::fs::File::create(&log).unwrap();
    let mut serve = serve.arg(&place).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
    let pid = serve.id().cast_signed();
    let at = place.join("by-id").join(&id);
    wait_for("the mount", 20, || at.is_dir());
    let (ok, tree) = shell("find by-group by-time -maxdepth 2", &place);
    assert!(ok && tree.lines().count() == 6 && tree.contains("by-group/-.-../-GMT-"), "{tree}");
    assert!(tree.lines().all(|line| !line.contains("/../") && line.len() < 600), "{tree}");
    // What is forged is an error, and is named.
    let entries: Vec<_> = at.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let is_refused = |name: &&std::ffi::OsString| name.as_encoded_bytes().starts_with(b"refused");
    assert!(entries.iter().filter(is_refused).count() >= 14 && entries.contains(&"sound".into()));
    for name in entries.iter().filter(is_refused) {
        let begin = Instant::now();
        let listed = at.join(name).read_dir().and_then(|dir| dir.collect::<Result<Vec<_>, _>>());
        let error = listed.expect_err(&format!("{} was listed", name.display()));
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32), "{}", name.display());
        assert!(begin.elapsed() < BOUND);
    }
    // What is only strange is bounded.
    let sizes = at.join("sizes");
    let (_, listed) = shell("stat -c '%n %s %h %U' * 2> /dev/null", &sizes);
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        [
            "endless 288230376151711744 1 root",
            "heavy-attribute 0 1 root",
            "many-attributes 0 1 root",
            "numbers 0 4294967295 nobody",
            "sparse 4611686018427387904 1 root",
        ]
    );
    shell("du -s .", &sizes);
    let (_, heavy) = shell("getfattr --only-values -n user.heavy heavy-attribute | wc -c", &sizes);
    assert_eq!(heavy, "65536\n");
    for name in ["half", "most"] {
        let error = sizes.join(name).metadata().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32), "{name} is longer than files can be");
    }
    let listed = rustix::fs::listxattr(sizes.join("many-attributes"), &mut [0u8; 1 << 16][..]);
    assert_eq!(listed, Err(rustix::io::Errno::TOOBIG));
    // All of its bytes are here, but a list without end is not looked through.
    let begin = Instant::now();
    let (ok, tier) = shell("getfattr --only-values -n user.holdfast.tier endless", &sizes);
    assert!(ok && ["memory", "staging"].contains(&tier.as_str()), "{tier}");
    assert!(begin.elapsed() < BOUND);
    for (name, offset) in
        [("endless", 1 << 40), ("endless", (1 << 45) + 12_345), ("sparse", (1 << 62) - 1000)]
    {
        let file = std::fs::File::open(sizes.join(name)).unwrap();
        let mut bytes = [0; 1000];
        let read = file.read_exact_at(&mut bytes, offset);
        read.unwrap_or_else(|error| panic!("{name}: {error}\n{}", std::fs::read_to_string(&log).unwrap()));
        assert!(bytes.iter().all(|byte| *byte == b'A'), "{name}");
    }
    let (_, read) = shell("head -q -c 1000000 half most sparse endless 2> /dev/null | wc -c", &sizes);
    assert_eq!(read, "2000000\n", "of the two that can be");
    let seek = "import os; f = os.open('endless', 0); print(os.lseek(f, 0, os.SEEK_HOLE), os.lseek(f, 5, os.SEEK_DATA))";
    assert_eq!(shell(&format!("python3 -c \"{seek}\""), &sizes).1, "288230376151711744 5\n");
    let (_, depth) = shell("find deep -maxdepth 60 | wc -l", &at);
    assert_eq!(depth, "61\n");
    assert_eq!(shell("cd deep/d/d/d/d && ls", &at), (true, "d\n".to_owned()));
    // What is sound reads on, the process lives, and took little.
    let sound = std::fs::read(at.join("sound")).unwrap();
    assert!(sound.len() == 3 << 16 && sound.iter().all(|byte| *byte == b'A'));
    assert!(serve.try_wait().unwrap().is_none(), "the mount has ended");
    assert!(peak(pid) < MEMORY, "{} KiB", peak(pid));
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("panic") && !said.contains("a fault of this program"), "{said}");
    for words in [
        "a slash or a NUL",
        "1 to 255 bytes",
        "a name is . or ..",
        "number of entries",
        "level",
        "first name",
    ] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    Ran::of(machine.command([OsStr::new("umount"), place.as_os_str()]).current_dir("/")).expect_code(0);
    wait_for("the end of the mount", 10, || serve.try_wait().unwrap().is_some());
}

#[test]
fn verbs_that_meet_a_forged_store_end_with_an_error_and_write_nothing_elsewhere() {
    let (machine, made, id) = forged();
    let target = machine.path("target");
    let restore =
        ["restore", &id, "--target", target.to_str().unwrap(), "--exclude", "sizes", "--exclude", "deep"];
    let damaged = "is damaged";
    let table: [(&[&str], i32, &str); 7] = [
        (&["check"], 1, damaged),
        (&["ls", &id], 1, damaged),
        (&["find", "sound"], 1, damaged),
        (&["stats"], 0, ""),
        (&["snapshots", "--json"], 0, ""),
        (&["prune"], 1, damaged),
        (&restore, 3, damaged),
    ];
    for (args, expected, said) in table {
        let verb = command(&machine, &made.dir, args);
        let mut bounded = Command::new("timeout");
        bounded.args(["-s", "KILL", "60"]).arg(verb.get_program()).args(verb.get_args());
        for (name, value) in verb.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            bounded.env(name, value);
        }
        let ran = Ran::of(bounded.current_dir(machine.path("")));
        assert!(!ran.err().contains("panicked"), "{args:?}: {}", ran.err());
        ran.expect_code(expected).expect_err(&[said]);
    }
    // What is sound is there, and of what is refused the directory alone.
    let mut restored: Vec<_> = target.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    restored.sort();
    let sound = restored.pop().unwrap();
    assert!(sound.ends_with("sound") && std::fs::read(sound).unwrap() == [b'A'; 3 << 16]);
    assert_eq!(restored.len(), 14);
    assert!(restored.iter().all(|path| path.read_dir().unwrap().next().is_none()), "{restored:?}");
    assert!(!machine.path("etc").exists() && !machine.root().join("etc").exists());
}
