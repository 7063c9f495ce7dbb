//! What somebody sees who has a copy of a vault, or the disk of a store, and no key: every byte of every file and object is searched for what
//! people named and wrote.

use super::hostile::push;
use super::*;
use crate::check::{self, Depth};
use crate::clock::SystemClock;
use crate::point::PointError;
use crate::seal::slots::{KdfParams, KeySlot, Secret};
use crate::seal::writer::OwnerKey;
use crate::tree::Xattr;

/// It is in all that is to be seen by nobody: long enough to be met by chance in no test that anybody runs.
const WORD: &str = "heronsea";
/// The address of the vault, which the catalog says in clear: so what is searched is what is there.
const ADDRESS: &str = "memory:grebe";

fn word(of: &str) -> String {
    format!("{WORD} {of}")
}

fn content() -> Vec<u8> {
    word("content, ").repeat(20_000).into_bytes()
}

/// A file and a link, with all the names that they can have.
fn entries(session: &Session<'_>) -> [Node; 2] {
    let mut frames = session.ingest().frames();
    let named = |node: Node| Node {
        user: Some(word("user").into()),
        group: Some(word("group").into()),
        xattrs: vec![Xattr { name: format!("user.{WORD}").into(), value: word("value").into() }],
        ..node
    };
    let file = ingest_file(session, &mut frames, &word("file"), &content()).unwrap();
    session.ingest().deliver(PackKind::Data, frames.take()).unwrap();
    let target = word("target").into_bytes();
    let link = sample_node(word("link").as_bytes(), NodeKind::Symlink);
    let link = Node { size: target.len() as u64, target: Some(target), ..link };
    [file, link].map(named)
}

/// A point of which all that is words has that one. Nothing is compressed: what is not sealed shows.
fn take_named(store: &Store) -> (StoredPoint, Node) {
    let session = store.begin(Compression::None, &VoidMonitor).unwrap();
    let entries = entries(&session);
    let mut sink = TreeSink::new(session.ingest());
    let built = crate::tree::testing::build_directory(&entries, &mut sink).unwrap();
    sink.finish().unwrap();
    let mut root = sample_node(b"root", NodeKind::Directory);
    root.subtree = Some(built.subtree());
    let (id, [host, group, source]) = (session.id(), ["host", "group", "source"].map(word));
    let point = session.commit(|_| RecoveryPoint {
        id,
        source_tag: store.sealer().source_tag(&host, &group, &source),
        path: word("/path").into(),
        errors_total: 1,
        errors: vec![PointError { path: word("trouble").into(), reason: word("reason") }],
        tags: vec![word("tag")],
        tool: word("tool"),
        ..bare_point([&host, &group, &source], 1, root)
    });
    let [file, _] = entries;
    (point.unwrap(), file)
}

fn open(home: &Home, path: &Path, vault: &Arc<MemoryVault>) -> Store {
    let owner = OwnerKey::from_seed([3; 32]);
    let writer = owner.admit(&Store::head(path).unwrap().vault, &word("machine"), &[word("host")], 9);
    // Whoever closes a cache waits until all is on the disk, by a clock that goes.
    let options = StoreOptions {
        writer: Some(Arc::new(writer)),
        cache_dir: Some(home.dir.path().join("cache")),
        cache_limit: 64 << 20,
        clock: Arc::new(SystemClock),
        ..Home::options(vec![(ADDRESS.into(), transfer(vault))])
    };
    Store::open(path, &home.ring, options, &VoidMonitor).unwrap()
}

/// All files below a directory, by their paths in it.
fn files_below(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = files_below(&entry.path()).into_iter();
            files.extend(below.map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

fn showing<'a>(files: &'a BTreeMap<String, Vec<u8>>, word: &str) -> Vec<&'a str> {
    let has = |bytes: &[u8]| bytes.windows(word.len()).any(|at| at == word.as_bytes());
    let shown = files.iter().filter(|(name, bytes)| has(name.as_bytes()) || has(bytes));
    shown.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn no_name_no_content_and_no_word_of_a_person_is_seen_in_a_vault_a_store_or_a_cache() {
    let (home, vault) = (Home::new(), Arc::new(MemoryVault::new()));
    let store = open(&home, &home.path(), &vault);
    let (secret, floor) = (Secret::new_recovery(), KdfParams::floor());
    let slot = KeySlot::create(store.id(), &home.ring, &secret, &word("label"), &floor, 0).unwrap();
    let slot_id = KeySlot::read(&slot, store.id()).unwrap().id;
    store.staging().put(&names::slot(&slot_id), &slot).unwrap();
    let (no, _, way) = store.vaults()[0].clone();
    copy::prepare_vault(&store, &Store::head(&home.path()).unwrap().slots, &way).unwrap();
    let (point, file) = take_named(&store);
    store.place_hold(&point.point.id, &word("hold")).unwrap();
    push(&store, &point, &RecordingMonitor::default()).unwrap();
    assert_eq!(store.bring_holds(no).unwrap(), 1);
    check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
    // Another machine reads it from the vault, through a cache on its disk.
    let new = home.dir.path().join("new");
    Store::adopt(&new, &copy::vault_head(&way).unwrap()).unwrap();
    let there = open(&home, &new, &vault);
    assert_eq!(there.points().unwrap().len(), 1);
    let Some(Content::Inline(extents)) = &file.content else { panic!("a small file") };
    let read = extents.iter().map(|extent| {
        let Extent::Data { id, len } = extent else { panic!("no holes") };
        there.reader().chunk_range(id, 0..*len, Deadline::NEVER).unwrap()
    });
    assert!(read.collect::<Vec<_>>().concat() == content());
    drop(there);

    let files = files_below(home.dir.path());
    let looked_at = ["store/catalog.db", "store/catalog.db-wal", "store/witness.json", "new/catalog.db"];
    for name in looked_at {
        assert!(files.contains_key(name), "{name} is not there: {:?}", files.keys());
    }
    for below in ["store/pack/", "store/idx/", "store/rp/", "store/hold/", "store/keys/", "cache/"] {
        assert!(files.keys().any(|name| name.starts_with(below)), "nothing in {below}: {:?}", files.keys());
    }
    assert!(showing(&files, ADDRESS).iter().any(|name| name.starts_with("store/catalog.db")));
    assert_eq!(showing(&files, WORD), [] as [&str; 0]);
    let objects =
        vault.names().into_iter().map(|name| (name.to_string(), vault.object(&name).unwrap().to_vec()));
    let objects: BTreeMap<String, Vec<u8>> = objects.collect();
    for below in [names::PACKS, names::INDEXES, names::POINTS, names::SLOTS, names::SESSIONS, names::HOLDS] {
        assert!(objects.keys().any(|name| name.starts_with(below)), "nothing in {below}");
    }
    assert_eq!(showing(&objects, WORD), [] as [&str; 0]);
}
