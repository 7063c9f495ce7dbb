//! A real store behind a view: what was put in comes out, at first with patience and then at once.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use holdfast_fs::pool::{Caller, Pool, PoolOptions, Reply};
use holdfast_fs::recovery::{Line, Patience, Reach, Refusal, Seek, StoreRecovery, Totals};
use holdfast_fs::testing::{can_mount, node};
use holdfast_fs::view::{Detail, Lifetime, View};
use holdfast_fs::{FsError, Mount, MountOptions, Recovery, Unmounted};
use holdfast_store::catalog::{PointRow, VaultNo};
use holdfast_store::chunk_store::TreeSink;
use holdfast_store::clock::{Deadline, SystemClock};
use holdfast_store::format::config::{ChunkerParams, StoreConfig};
use holdfast_store::id::{ChunkId, SlotId, VaultId};
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::names;
use holdfast_store::pack::PackKind;
use holdfast_store::point::RecoveryPoint;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::{ChunkType, Compression, Sealer};
use holdfast_store::store::{Session, Store, StoreOptions};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::tree::build::DirectoryBuilder;
use holdfast_store::tree::content::ContentBuilder;
use holdfast_store::tree::{Content, Extent, Node, NodeKind};
use holdfast_store::vault::memory::MemoryVault;
use holdfast_store::vault::testing::{Fault, FaultyVault};

const LATER: Patience = Patience::Until(Deadline::NEVER);

/// A file: `None` for stretches of 64 KiB that are holes.
type Stretches = Vec<Option<Vec<u8>>>;

const STRETCH: usize = 64 << 10;

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut out);
    out
}

/// Small files, an empty one, and two long ones that begin alike and are equally long, with lists of their own.
fn sample() -> Vec<(String, Stretches)> {
    let mut files: Vec<_> =
        (0..20).map(|n| (format!("f{n:02}"), vec![Some(noise(&n.to_string(), 100 * n))])).collect();
    files[0].1.clear();
    for version in 1..3 {
        let stretches = (0..1000).map(|n| match n {
            n if n % 5 == 4 => None,
            n if n < 900 => Some(noise(&format!("same {}", n % 50), STRETCH)),
            n => Some(noise(&format!("{version} {}", n % 50), STRETCH)),
        });
        files.push((format!("long{version}"), stretches.collect()));
    }
    files.sort();
    files
}

fn plain(stretches: &Stretches) -> Vec<u8> {
    stretches.iter().flat_map(|s| s.clone().unwrap_or_else(|| vec![0; STRETCH])).collect()
}

fn ingest(session: &Session<'_>, files: &[(String, Stretches)]) -> Node {
    let mut frames = session.ingest().frames();
    let mut sink = TreeSink::new(session.ingest());
    let mut directory = DirectoryBuilder::new();
    for (name, stretches) in files {
        let mut content = ContentBuilder::new();
        for stretch in stretches {
            let extent = match stretch {
                None => Extent::Hole { len: STRETCH as u64 },
                Some(bytes) => {
                    let id = session.ingest().name(ChunkType::Data, bytes);
                    if session.ingest().claim(&id).unwrap() {
                        frames.push(id, bytes);
                    }
                    Extent::Data { id, len: bytes.len() as u32 }
                }
            };
            content.push(extent, &mut sink).unwrap();
        }
        session.ingest().deliver(PackKind::Data, frames.take()).unwrap();
        let size = plain(stretches).len() as u64;
        let content = Some(content.finish(&mut sink).unwrap());
        directory.push(&Node { size, content, ..node(name, NodeKind::File) }, &mut sink).unwrap();
    }
    let built = directory.finish(&mut sink).unwrap();
    sink.finish().unwrap();
    Node { subtree: Some(built.subtree()), links: 2, mode: 0o755, ..node("root", NodeKind::Directory) }
}

/// A store with one point of the sample in `dir`, opened again so that nothing is in memory.
fn store(dir: &Path) -> Arc<Store> {
    store_with(dir, 256 << 20)
}

/// As [`store`], with so much memory for what is decoded.
fn store_with(dir: &Path, memory: usize) -> Arc<Store> {
    store_of(dir, StoreOptions { memory, ..StoreOptions::local(Arc::new(SystemClock)) })
}

/// As [`store`], opened again in this way.
fn store_of(dir: &Path, options: StoreOptions) -> Arc<Store> {
    let (dir, ring, vault) = (dir.join("store"), KeyRing::generate(0), VaultId::random());
    let chunker = ChunkerParams {
        normalization: 2,
        min: 4096,
        average: 16 << 10,
        max: 64 << 10,
        ..ChunkerParams::default()
    };
    let config =
        StoreConfig { chunker, frame_len: 64 << 10, pack_len: 4 << 20, ..StoreConfig::new(vault, 0) };
    let sealer = Sealer::new(vault, &ring, 1).unwrap();
    Store::create(&dir, &sealer, &config, &[(SlotId::random(), vec![1])]).unwrap();
    let open = |options| Store::open(&dir, &ring, options, &VoidMonitor).unwrap();
    let writer = open(StoreOptions::local(Arc::new(SystemClock)));
    let session = writer.begin(Compression::Zstd(1), &VoidMonitor).unwrap();
    let root = ingest(&session, &sample());
    let template = holdfast_fs::testing::point("h", "g", "s", 1_795_176_000, 1);
    let source_tag = writer.sealer().source_tag("h", "g", "s");
    session.commit(|_| RecoveryPoint { root, source_tag, ..(*template.point).clone() }).unwrap();
    drop(writer);
    Arc::new(open(options))
}

fn walk(view: &View, path: &str) -> u64 {
    path.split('/').fold(1, |at, name| {
        let entry = view.lookup(at, name.as_bytes(), LATER).unwrap();
        view.accept(&entry);
        entry.attr.ino
    })
}

#[test]
fn a_view_of_a_store_gives_back_what_was_put_in() {
    let dir = tempfile::tempdir().unwrap();
    let recovery = Arc::new(StoreRecovery::new(store(dir.path()), 16 << 20));
    let view = View::new(recovery.clone(), 0, 0).unwrap();
    let root = walk(&view, "by-group/g/s/2026-11-20T12.00.00Z");
    assert!(matches!(
        view.list(root, 0, 100, Detail::Names, Patience::Now),
        Err(FsError::Later(Reach::Local))
    ));
    let listed = view.list(root, 0, 100, Detail::All, LATER).unwrap();
    let names: Vec<_> =
        listed.iter().skip(2).map(|item| String::from_utf8(item.name.clone()).unwrap()).collect();
    assert_eq!(names, sample().into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    assert_eq!(view.list(root, 0, 100, Detail::All, Patience::Now).unwrap().len(), listed.len());
    for (name, stretches) in sample() {
        let (plain, ino) = (
            plain(&stretches),
            walk(&view, &format!("by-group/g/s/latest/{name}").replace("latest", "2026-11-20T12.00.00Z")),
        );
        for at in (0..plain.len().max(1)).step_by(1 << 20) {
            let expected = plain.get(at..(at + (1 << 20)).min(plain.len())).unwrap_or_default();
            assert!(view.read(ino, at as u64, 1 << 20, LATER).unwrap() == expected, "{name} at {at}");
            assert!(
                view.read(ino, at as u64, 1 << 20, Patience::Now).unwrap() == expected,
                "{name} at once at {at}"
            );
        }
        let odd = view.read(ino, 65_000, 1_000, LATER).unwrap();
        assert_eq!(odd, plain.get(65_000..66_000.min(plain.len())).unwrap_or_default());
        let stored: usize = stretches.iter().flatten().map(Vec::len).sum();
        assert_eq!(view.attr(ino, LATER).unwrap().0.blocks, (stored as u64).div_ceil(4096) * 8, "{name}");
    }
}

#[test]
fn long_files_that_begin_alike_are_not_taken_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let recovery = StoreRecovery::new(store(dir.path()), 16 << 20);
    let root = recovery.root(&recovery.points().unwrap()[0].id, LATER).unwrap().subtree.unwrap().tree;
    let long = |name: &str| recovery.find(&root, name.as_bytes(), LATER).unwrap().unwrap().1;
    let (one, two) = (long("long1"), long("long2"));
    assert!(matches!(one.content, Some(Content::Paged { .. })), "the sample must need list pages");
    assert_eq!(one.size, two.size);
    let read = |node: &Node, at: u64| {
        let at = at * STRETCH as u64;
        recovery.read(node.content.as_ref().unwrap(), at..at + 100, LATER).unwrap()
    };
    assert_eq!(read(&one, 0), read(&two, 0));
    assert_eq!(read(&one, 951), noise("1 1", STRETCH)[..100]);
    assert_eq!(read(&two, 951), noise("2 1", STRETCH)[..100]);
    let seek = |from: usize, seek| {
        let found =
            recovery.seek(one.content.as_ref().unwrap(), (from * STRETCH) as u64, seek, LATER).unwrap();
        found.map(|at| at / STRETCH as u64)
    };
    assert_eq!(
        (seek(0, Seek::Hole), seek(4, Seek::Data), seek(998, Seek::Hole)),
        (Some(4), Some(5), Some(999))
    );
    assert_eq!(seek(999, Seek::Data), None);
}

/// A vault that has all packs, and to which there is no way; and no pack in staging, where the catalog says they are.
fn lose_staging(store: &Store) {
    let vault = store.catalog().vault_no("elsewhere").unwrap();
    for pack in store.catalog().packs().unwrap() {
        store.catalog().set_confirmed(pack.no, vault, true).unwrap();
        assert!(store.staging().remove(&holdfast_store::names::pack(&pack.entry.id)).unwrap());
    }
    store.reader().forget_places();
}

/// Bytes of all packs in staging are others from now on.
fn damage_staging(store: &Store) {
    for pack in store.catalog().packs().unwrap() {
        let path = store.dir().join(holdfast_store::names::pack(&pack.entry.id).as_str());
        let bytes: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| byte ^ 0x55).collect();
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn points_are_counted_until_the_time_is_up_and_not_twice() {
    let dir = tempfile::tempdir().unwrap();
    let recovery = StoreRecovery::new(store(dir.path()), 1 << 20);
    let clock = SystemClock;
    let passed = Deadline::after(&clock, Duration::ZERO);
    assert!(matches!(recovery.totals(Patience::Now), Err(Refusal::Later(Reach::Local))));
    assert!(matches!(recovery.totals(Patience::Local(passed)), Err(Refusal::Failed(_))));
    assert_eq!(recovery.totals(LATER).unwrap().entries, 4);
    assert_eq!(recovery.totals(Patience::Local(Deadline::NEVER)).unwrap().entries, 4);
}

#[test]
fn a_long_file_whose_list_cannot_be_had_is_listed_with_the_others() {
    for spoil in [lose_staging, damage_staging] {
        let dir = tempfile::tempdir().unwrap();
        // Little is kept of what is decoded, and nothing of it once another file was read.
        let store = store_with(dir.path(), 0);
        let view = View::new(Arc::new(StoreRecovery::new(store.clone(), 16 << 20)), 0, 0).unwrap();
        let root = walk(&view, "by-group/g/s/2026-11-20T12.00.00Z");
        view.list(root, 0, 100, Detail::Names, LATER).unwrap();
        let long = walk(&view, "by-group/g/s/2026-11-20T12.00.00Z/long2");
        (0..62).for_each(|n| drop(view.read(long, n << 20, 1 << 20, LATER).unwrap()));
        spoil(&store);
        let listed = view.list(root, 0, 100, Detail::All, LATER).unwrap();
        let long = listed.iter().find(|item| item.name == b"long1").unwrap();
        assert_eq!(listed.len(), sample().len() + 2);
        assert_eq!(long.entry.attr.blocks, (64_000 << 10) / 512 - 8, "a hole somewhere");
        assert_eq!(long.entry.attr_lifetime, Lifetime::Brief, "the truth may come later");
        view.accept(&long.entry);
        assert_eq!(view.attr(long.entry.attr.ino, LATER).unwrap(), (long.entry.attr, Lifetime::Brief));
        assert!(view.read(long.entry.attr.ino, 0, 9, LATER).is_err(), "who reads it hears of it");
    }
}

#[test]
fn what_staging_lost_is_asked_of_a_vault_only_by_who_may_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let recovery = StoreRecovery::new(store.clone(), 16 << 20);
    let root = recovery.root(&recovery.points().unwrap()[0].id, LATER).unwrap().subtree.unwrap().tree;
    let file = recovery.find(&root, b"f19", LATER).unwrap().unwrap().1;
    let here = Patience::Local(Deadline::NEVER);
    let read = |patience| recovery.read(file.content.as_ref().unwrap(), 0..100, patience);
    lose_staging(&store);
    assert!(matches!(read(Patience::Now), Err(Refusal::Later(Reach::Local))), "it cannot know");
    assert!(matches!(read(here), Err(Refusal::Later(Reach::Vault(Line { vault: Some(_), is_page: false })))));
    assert!(matches!(recovery.find(&root, b"f18", here), Ok(Some(_))), "the page is in memory");
    assert!(matches!(read(LATER), Err(Refusal::Failed(_))));
}

/// A store that lost its staged packs. Vault `b` has the one with the content of `f19`, and `a` all others; every request hangs in `a`.
struct Lost {
    store: Arc<Store>,
    a: VaultNo,
    b: VaultNo,
}

impl Lost {
    fn new(dir: &Path) -> Self {
        let clock = Arc::new(SystemClock);
        let memory = Arc::new(MemoryVault::new());
        let hanging = Arc::new(FaultyVault::new(memory.clone(), clock.clone()));
        let way = |vault| Transfer::new(vault, clock.clone(), TransferPolicy::default()).unwrap();
        let vaults = vec![("a".to_owned(), way(hanging.clone())), ("b".to_owned(), way(memory.clone()))];
        let store = store_of(dir, StoreOptions { vaults, ..StoreOptions::local(clock.clone()) });
        let [a, b] = ["a", "b"].map(|address| store.catalog().vault_no(address).unwrap());
        let lost = Self { store, a, b };
        let of_b = lost.store.reader().pack_of(&lost.chunk("19", 1900)).unwrap();
        for pack in lost.store.catalog().packs().unwrap() {
            let name = holdfast_store::names::pack(&pack.entry.id);
            memory.replace(&name, lost.store.staging().read_all(&name, 1 << 30).unwrap().unwrap().into());
            let vault = if pack.no == of_b { b } else { a };
            lost.store.catalog().set_confirmed(pack.no, vault, true).unwrap();
            assert!(lost.store.staging().remove(&name).unwrap());
        }
        lost.store.reader().forget_places();
        hanging.fail_any_from(1, Fault::Hang(Duration::ZERO));
        assert_ne!(lost.store.reader().pack_of(&lost.chunk("2 48", STRETCH)).unwrap(), of_b);
        lost
    }

    fn chunk(&self, seed: &str, len: usize) -> ChunkId {
        self.store.sealer().chunk_id(ChunkType::Data, &noise(seed, len))
    }

    fn recovery(&self) -> StoreRecovery {
        StoreRecovery::new(self.store.clone(), 16 << 20)
    }

    fn content(&self, seed: &str, len: usize) -> Content {
        Content::Inline(vec![Extent::Data { id: self.chunk(seed, len), len: len as u32 }])
    }
}

#[test]
fn what_staging_lost_is_as_far_as_the_vault_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let lost = Lost::new(dir.path());
    let recovery = lost.recovery();
    let root = recovery.root(&recovery.points().unwrap()[0].id, LATER).unwrap().subtree.unwrap().tree;
    let (of_a, of_b) = (lost.content("2 48", STRETCH), lost.content("19", 1900));
    let line = |vault, is_page| Reach::Vault(Line { vault: Some(vault), is_page });
    let refused = |result: Result<(), Refusal>| match result {
        Err(Refusal::Later(reach)) => reach,
        other => panic!("{other:?}"),
    };
    let read = |content, patience| refused(recovery.read(content, 0..100, patience).map(drop));
    // None of them waits for a vault: `a` never answers.
    for patience in [Patience::Local(Deadline::NEVER), Patience::Of(lost.b, Deadline::NEVER)] {
        assert_eq!(refused(recovery.find(&root, b"f19", patience).map(drop)), line(lost.a, true));
        assert_eq!(read(&of_a, patience), line(lost.a, false));
    }
    for patience in [Patience::Local(Deadline::NEVER), Patience::Of(lost.a, Deadline::NEVER)] {
        assert_eq!(read(&of_b, patience), line(lost.b, false));
    }
    let in_its_lane = recovery.read(&of_b, 0..1900, Patience::Of(lost.b, Deadline::NEVER));
    assert!(in_its_lane.unwrap() == noise("19", 1900));
}

struct Probe(mpsc::Sender<Result<Bytes, FsError>>);

impl Reply for Probe {
    fn refuse(self, error: FsError) {
        self.0.send(Err(error)).unwrap();
    }
}

#[test]
fn who_waits_for_what_staging_lost_and_a_hanging_vault_has_does_not_hold_up_another_vault() {
    let dir = tempfile::tempdir().unwrap();
    let lost = Lost::new(dir.path());
    let recovery = Arc::new(lost.recovery());
    let options =
        PoolOptions { in_place: 0, local_threads: 1, vault_threads: 4, timeout: Duration::from_secs(3600) };
    let pool = Pool::start(options, Arc::new(SystemClock)).unwrap();
    let read = |ino, content: Content| {
        let (sender, receiver) = mpsc::channel();
        let recovery = recovery.clone();
        let work = move |patience| Ok(recovery.read(&content, 0..100, patience)?);
        let answer = |probe: Probe, bytes| probe.0.send(Ok(bytes)).unwrap();
        pool.submit(Reach::Local, Caller { pid: 0, ino }, Probe(sender), work, answer);
        receiver
    };
    let waiting: Vec<_> = (0..24).map(|ino| read(ino, lost.content("2 48", STRETCH))).collect();
    let other = read(99, lost.content("19", 1900)).recv_timeout(Duration::from_secs(20));
    pool.end();
    assert!(other.unwrap().unwrap() == noise("19", 1900)[..100]);
    assert!(waiting.iter().all(|one| matches!(one.recv().unwrap(), Err(FsError::Ending))));
}

#[test]
fn a_mounted_store_is_copied_with_its_holes() {
    if !can_mount() {
        return;
    }
    let (dir, at, copy) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recovery = Arc::new(StoreRecovery::new(store(dir.path()), 16 << 20));
    let options =
        MountOptions { read_timeout: Duration::from_secs(60), ..MountOptions::new(at.path(), "test") };
    let mount = Mount::spawn(recovery, &options, Arc::new(SystemClock)).unwrap();
    let source = at.path().join("by-group/g/s/latest/.");
    let copied = std::process::Command::new("cp").arg("-a").arg(&source).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    for (name, stretches) in sample() {
        let path = copy.path().join(&name);
        assert!(std::fs::read(&path).unwrap() == plain(&stretches), "{name}");
        let stored: u64 = stretches.iter().flatten().map(|bytes| bytes.len() as u64).sum();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap());
        assert!(blocks * 512 <= stored + (1 << 20), "{name} lost its holes");
    }
    assert_eq!(mount.unmount().unwrap(), Unmounted::Cleanly);
}

#[test]
fn a_point_that_could_not_be_decoded_counts_when_it_can_be_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let row = store.catalog().points().unwrap().remove(0);
    let object = dir.path().join("store").join(names::point(&row.tag, &row.id).as_str());
    let whole = std::fs::read(&object).unwrap();
    std::fs::write(&object, "damaged").unwrap();
    store.catalog().mend_point(&PointRow { object: b"damaged".to_vec(), ..row.clone() }).unwrap();
    let recovery = StoreRecovery::new(store.clone(), 1 << 20);
    assert_eq!(recovery.totals(LATER).unwrap(), Totals::default());
    std::fs::write(&object, whole).unwrap();
    let counts = store.decode_point(&row.id).unwrap().counts;
    assert!(counts.bytes > 0);
    assert_eq!(recovery.totals(LATER).unwrap(), Totals::of(&counts));
}
