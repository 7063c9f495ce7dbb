//! Somebody has root on a machine that is backed up: its keys, its store, and the credential with which it writes to the vault. The attack is
//! in earnest, by this program, by plain requests, and by objects that only who has the keys can make. What was there before it began
//! comes back byte for byte, from the vault alone.
//!
//! It is done to the emulator of Azure, with a signature that may create, read and list in the data container and read and list in the
//! control container, as `docs/operations.md` says that writers should have.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use holdfast_fs::testing::{node, point};
use holdfast_store::chunk_store::TreeSink;
use holdfast_store::clock::{Clock, SystemClock, Timestamp};
use holdfast_store::copy;
use holdfast_store::fence::{Revocation, Why};
use holdfast_store::id::{Attempt, ChunkId, VaultId};
use holdfast_store::index::Index;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::names;
use holdfast_store::pack::{FrameBuilder, PackBuilder, PackEntry, PackKind, PackedChunk};
use holdfast_store::point::{RecoveryPoint, SourceName};
use holdfast_store::seal::{ChunkType, Compression};
use holdfast_store::store::{Store, StoreOptions};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::tree::page::Page;
use holdfast_store::tree::{ChunkSink, Content, Extent, Node, NodeKind, Subtree};
use holdfast_store::vault::address::{Credentials, Secret, VaultAddress, open};
use holdfast_store::vault::azure::AzureCredential;
use holdfast_store::vault::testing::Azurite;
use holdfast_store::vault::{ObjectName, VaultError};

use crate::testkit::{Machine, Mounted, Ran, can_mount, noise};
use crate::trouble::{
    SmallStore, Tree, assert_restores, assert_same, azurite, command, copy_dir, points, read_tree,
    summary_id, write_tree,
};

/// Files of less than a chunk, so that each is one …
const FILES: usize = 12;
/// … and one of several chunks, each of several frames.
const LARGE: usize = 300_000;

/// A store whose points lie in a vault, and the machine on which somebody has root.
struct Scene {
    azurite: Arc<Azurite>,
    machine: Machine,
    store: SmallStore,
    name: String,
    url: String,
    /// What the points from before restore to.
    before: BTreeMap<String, Tree>,
}

/// What is in a vault, as its owner sees it.
type Objects = BTreeMap<ObjectName, Vec<u8>>;

impl Scene {
    fn new(azurite: Arc<Azurite>) -> Self {
        let machine = Machine::new();
        let store = SmallStore::make(&machine, machine.path("store"));
        let name = format!("intruder{}", &VaultId::random().hex()[..16]);
        let url = Azurite::address(&name, azurite.port()).unwrap().to_string();
        let mut scene = Self { azurite, machine, store, name, url, before: BTreeMap::new() };
        scene.owner(&["vault", "add", &scene.url]).expect_code(0);
        let mut own = command(&scene.machine, &scene.store.dir, &["key", "own"]);
        Ran::of(own.env("HOLDFAST_RECOVERY_KEY", &scene.store.words)).expect_code(0);
        let mut tree: Tree = (0..FILES).map(|n| (format!("file{n}"), Arc::new(noise(n, 2000 + n)))).collect();
        tree.insert("large".into(), Arc::new(noise("large", LARGE)));
        for round in 0..2 {
            tree.insert("file0".into(), Arc::new(noise(format!("round {round}"), 3000)));
            let source = scene.machine.path("source");
            write_tree(&source, &tree);
            let ran =
                scene.intruder(&["backup", "--json", "--online", source.to_str().unwrap()]).expect_code(0);
            scene.before.insert(summary_id(&ran.out()).unwrap(), tree.clone());
        }
        scene
    }

    /// A verb on that machine, with the account's key.
    fn owner(&self, args: &[&str]) -> Ran {
        Ran::of(&mut command(&self.machine, &self.store.dir, args))
    }

    /// The same with what is on it.
    fn intruder(&self, args: &[&str]) -> Ran {
        let mut verb = command(&self.machine, &self.store.dir, args);
        verb.env_remove("AZURE_STORAGE_KEY");
        verb.env("HOLDFAST_AZURE_SAS_DATA", Azurite::sas("rcl"));
        Ran::of(verb.env("HOLDFAST_AZURE_SAS_CONTROL", Azurite::sas("rl")))
    }

    fn way(&self, credential: AzureCredential) -> Arc<Transfer> {
        let address: VaultAddress = self.url.parse().unwrap();
        let vault = open(&address, &Credentials { azure: Some(credential) }).unwrap();
        Transfer::new(vault, Arc::new(SystemClock), TransferPolicy::default()).unwrap()
    }

    fn way_of_intruder(&self) -> Arc<Transfer> {
        let [data, control] = ["rcl", "rl"].map(|rights| Secret::new(Azurite::sas(rights)));
        self.way(AzureCredential::SasPair { data, control })
    }

    fn objects(&self) -> Objects {
        let way = self.way(Azurite::credential());
        let listed = way.list_all("").unwrap();
        listed.into_iter().map(|o| (o.name.clone(), way.get(&o.name, o.len).unwrap().to_vec())).collect()
    }

    /// A request as nobody's client sends it; what is answered.
    fn request(&self, verb: &str, path: &str, headers: &str, body: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.azurite.port())).unwrap();
        let (account, len) = (Azurite::ACCOUNT, body.len());
        let head = format!(
            "{verb} /{account}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-ms-version: 2022-11-02\r\nContent-Length: {len}\r\n\
             Connection: close\r\n{headers}\r\n{body}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
    }

    /// On a machine that has nothing, from the vault alone: all that was there before.
    fn all_comes_back(&self, after: &str) {
        let bare = Machine::new();
        let dir = bare.path("recovered");
        let mut recover = command(&bare, &dir, &["recover", &self.url, "--machine-key"]);
        let ran = Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &self.store.words));
        assert!(matches!(ran.code(), 0 | 3), "after {after}: {}", ran.err());
        let shown = points(&bare, &dir);
        for (id, tree) in &self.before {
            assert!(shown.contains(id), "after {after}: {id} is not shown");
            assert_restores(&bare, &dir, id, tree);
        }
        self.all_is_shown(after);
    }

    /// The same through a mount, of another machine that has nothing: what one has in its memory or its cache tells nothing of the other.
    fn all_is_shown(&self, after: &str) {
        if !can_mount("what a mount shows of a vault that somebody attacked") {
            return;
        }
        let bare = Machine::new();
        let (dir, at) = (bare.path("recovered"), bare.path("mount"));
        let mut recover = command(&bare, &dir, &["recover", &self.url, "--machine-key"]);
        Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &self.store.words));
        std::fs::create_dir(&at).unwrap();
        Ran::of(&mut command(&bare, &dir, &["mount", "--background", at.to_str().unwrap()])).expect_code(0);
        let mount = Mounted::at(&bare, at);
        for (id, tree) in &self.before {
            let point = mount.point(id);
            // Here and there first: a part of a chunk is to be right, too, of which nobody read the rest.
            for (name, bytes) in tree {
                let file = std::fs::File::open(point.join(name)).unwrap();
                let (at, mut part) = (bytes.len() / 2, [0; 100]);
                file.read_exact_at(&mut part, at as u64).unwrap();
                assert!(part == bytes[at..at + 100], "after {after}: {name} of {id} at {at}");
            }
            assert_same(&read_tree(&point), tree);
        }
    }
}

/// Everything that may be asked of a blob that is there, except for reading it.
const REQUESTS: [(&str, &str, &str, &str); 12] = [
    ("DELETE", "", "", ""),
    ("DELETE", "", "x-ms-delete-snapshots: include\r\n", ""),
    ("PUT", "", "x-ms-blob-type: BlockBlob\r\n", "other bytes"),
    ("PUT", "", "x-ms-blob-type: AppendBlob\r\n", ""),
    ("PUT", "", "x-ms-blob-type: PageBlob\r\nx-ms-blob-content-length: 512\r\n", ""),
    ("PUT", "comp=blocklist", "", "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList></BlockList>"),
    ("PUT", "comp=metadata", "x-ms-meta-a: b\r\n", ""),
    ("PUT", "comp=properties", "x-ms-blob-content-type: text/html\r\n", ""),
    ("PUT", "comp=tier", "x-ms-access-tier: Archive\r\n", ""),
    ("PUT", "comp=lease", "x-ms-lease-action: acquire\r\nx-ms-lease-duration: -1\r\n", ""),
    ("PUT", "comp=expiry", "x-ms-expiry-option: RelativeToNow\r\nx-ms-expiry-time: 1\r\n", ""),
    ("PUT", "comp=appendblock", "", "more"),
];

#[test]
fn who_has_root_on_a_writer_changes_no_object_that_is_there() {
    let Some(azurite) = azurite() else { return };
    let scene = Scene::new(azurite);
    let before = scene.objects();
    assert!(before.keys().any(|name| name.is_control()) && before.len() > 6, "{:?}", before.keys());
    let ids: Vec<&String> = scene.before.keys().collect();
    // By this program, as it is.
    let keys: Vec<String> =
        before.keys().filter_map(|n| n.as_str().strip_prefix("keys/")).map(str::to_owned).collect();
    let mut verbs: Vec<Vec<&str>> = vec![
        vec!["forget", ids[0], "--yes"],
        vec!["forget", ids[1], "--yes", "--allow-newest"],
        vec!["prune", "--now"],
    ];
    verbs.extend(keys.iter().map(|id| vec!["key", "remove", id]));
    for args in verbs {
        let ran = scene.intruder(&args);
        assert!(ran.code() != 0, "{args:?}: {}", ran.out());
    }
    // By plain requests.
    let (data, control) = (Azurite::sas("rcl"), Azurite::sas("rl"));
    let [data, control] = [&data, &control].map(|sas| sas.trim_start_matches('?'));
    for name in before.keys() {
        let (container, sas) = if name.is_control() { ("control", control) } else { ("data", data) };
        for (verb, query, headers, body) in REQUESTS {
            let path = format!("{}-{container}/{name}?{query}&{sas}", scene.name);
            let status = scene.request(verb, &path, headers, body);
            assert!(!(200..300).contains(&status), "{verb} {query} of {name}: {status}");
        }
    }
    for container in ["data", "control"] {
        let sas = if container == "data" { data } else { control };
        for (verb, query) in
            [("DELETE", ""), ("PUT", "&comp=acl"), ("PUT", "&comp=metadata"), ("PUT", "&comp=lease")]
        {
            let path = format!("{}-{container}?restype=container{query}&{sas}", scene.name);
            let headers =
                "x-ms-lease-action: acquire\r\nx-ms-lease-duration: -1\r\nx-ms-blob-public-access: blob\r\n";
            let status = scene.request(verb, &path, headers, "");
            assert!(!(200..300).contains(&status), "{verb}{query} of {container}: {status}");
        }
    }
    let after = scene.objects();
    for (name, bytes) in &before {
        assert!(after.get(name) == Some(bytes), "{name} is another");
    }
    scene.all_comes_back("what could be asked");
}

/// Nodes of a directory that claims to be a newer state of the source.
fn forged_root(sink: &mut TreeSink<'_>, files: Vec<Node>) -> Node {
    let entries = files.len() as u64;
    let tree = sink.put(ChunkType::Tree, &Page::Leaf(files).encode().unwrap()).unwrap();
    let subtree = Some(Subtree { tree, entries, bytes: 0 });
    Node { subtree, links: 2, mode: 0o755, ..node("root", NodeKind::Directory) }
}

/// The chunks of a file, with their lengths.
fn chunks_of(store: &Store, bytes: &[u8]) -> impl Iterator<Item = (ChunkId, usize)> {
    let (chunker, mut left, mut chunks) = (store.chunker(), bytes, Vec::new());
    while !left.is_empty() {
        let (plain, rest) = left.split_at(chunker.cut(left));
        chunks.push((store.sealer().chunk_id(ChunkType::Data, plain), plain.len()));
        left = rest;
    }
    chunks.into_iter()
}

/// Puts an index object of these packs that claims to replace all others.
fn put_index(store: &Store, way: &Transfer, packs: &[(&PackEntry, Vec<PackedChunk>)]) {
    let others = way.list_all("idx/").unwrap();
    let supersedes = others.iter().filter_map(|object| names::index_of(&object.name)).collect();
    let mut index = Index { supersedes, ..Index::default() };
    assert!(!index.supersedes.is_empty());
    packs.iter().for_each(|(entry, chunks)| index.add((*entry).clone(), chunks));
    let (id, bytes) = index.seal(store.sealer());
    way.put_new(&names::index(&id), bytes).unwrap();
}

#[test]
fn who_has_the_keys_of_a_writer_poisons_no_older_point() {
    let Some(azurite) = azurite() else { return };
    let scene = Scene::new(azurite);
    let newest = scene.before.values().next_back().unwrap().clone();
    // A second store of the same keys that knows of nothing: it takes every chunk for new, whatever its bytes are.
    let dir = scene.machine.path("evil");
    copy_dir(&scene.store.dir, &dir);
    for file in read_tree(&dir).keys().filter(|name| !(name.starts_with("keys/") || *name == "config")) {
        std::fs::remove_file(dir.join(file)).unwrap();
    }
    let way = scene.way_of_intruder();
    let options = StoreOptions {
        memory: 16 << 20,
        vaults: vec![(scene.url.clone(), way.clone())],
        ..StoreOptions::local(Arc::new(SystemClock))
    };
    let evil = Store::open(&dir, &scene.store.ring, options, &VoidMonitor).unwrap();
    let honest = &scene.owner(&["snapshots", "--json"]).expect_code(0).out();
    let honest: serde_json::Value = serde_json::from_str(honest).unwrap();
    let text = |field: &str| honest[0][field].as_str().unwrap().to_owned();
    let (host, group, source) = (text("hostname"), text("group"), text("source"));
    let no = evil.vaults()[0].0;
    let mut files = Vec::new();
    for (name, bytes) in &newest {
        let extents = chunks_of(&evil, bytes).map(|(id, len)| Extent::Data { id, len: len as u32 });
        let content = Some(Content::Inline(extents.collect()));
        files.push(Node { size: bytes.len() as u64, content, ..node(name, NodeKind::File) });
    }
    // Packs in which each chunk of the newest point has its name and other bytes, with index objects that say that they replace all others. Of
    // many, one is read before what is honest, and found there first.
    let mut forged = Vec::new();
    for filler in *b"!?#~" {
        let mut frames = FrameBuilder::new(16 << 10, Compression::None);
        for (id, len) in newest.values().flat_map(|bytes| chunks_of(&evil, bytes)) {
            frames.push(id, &vec![filler; len]);
        }
        let mut pack = PackBuilder::new(evil.sealer(), PackKind::Data, 0);
        pack.push(evil.sealer(), frames.take());
        let pack = pack.finish(evil.sealer());
        way.put_new(&names::pack(&pack.entry.id), pack.bytes.clone()).unwrap();
        put_index(&evil, &way, &[(&pack.entry, pack.chunks.clone())]);
        forged.push(pack.entry.id);
    }
    copy::load_catalog(&evil, no, &way, &VoidMonitor).unwrap();
    // And index objects that give the chunks of each honest pack other places in it.
    let honest = evil.catalog().packs().unwrap().into_iter().filter(|row| !forged.contains(&row.entry.id));
    let turned = honest.map(|row| {
        let chunks = evil.catalog().chunks_of(row.no).unwrap();
        (row.entry, chunks.into_iter().rev().collect::<Vec<_>>())
    });
    let turned: Vec<_> = turned.collect();
    assert!(turned.iter().any(|(_, chunks)| chunks.len() > FILES));
    for _ in 0..4 {
        let packs: Vec<_> = turned.iter().map(|(entry, chunks)| (entry, chunks.clone())).collect();
        put_index(&evil, &way, &packs);
    }
    // Points of the same source that rely on them, also from the future. Who has another machine of the store has its ring, and not the key with
    // which the machine signs whose source it is.
    let mut made_up = Vec::new();
    for (round, seconds) in [SystemClock.now().seconds + 60, i64::MAX / 2].into_iter().enumerate() {
        let session = evil.begin(Compression::None, &VoidMonitor).unwrap();
        let mut sink = TreeSink::new(session.ingest());
        let root = forged_root(&mut sink, files.clone());
        sink.finish().unwrap();
        let when = Timestamp { seconds, nanos: 0 };
        let stored = session
            .commit(|_| RecoveryPoint {
                root,
                sequence: 1000 + round as u64,
                source_tag: evil.sealer().source_tag(&host, &group, &source),
                source: SourceName { host: host.clone(), group: group.clone(), source: source.clone() },
                started: when,
                ended: when,
                ..(*point("h", "g", "s", 0, 1).point).clone()
            })
            .unwrap();
        copy::push_point(&evil, no, &way, &stored.point.id, &VoidMonitor).unwrap();
        made_up.push(stored.point.id.short());
    }
    // Words that all points are forgotten, at every attempt that is free.
    let tag = evil.sealer().source_tag(&host, &group, &source);
    for id in scene.before.keys() {
        let id = holdfast_store::id::RecoveryPointId::from_hex(id).unwrap();
        for attempt in Attempt::all(id).take(4) {
            let word = Revocation { attempt, tag, why: Why::Forgotten, at: 0 };
            let put = way.put_new(&names::outcome(&tag, &attempt), word.seal(evil.sealer()).into());
            assert!(put.is_ok() || matches!(put, Err(VaultError::Conflict { .. })), "{put:?}");
        }
    }
    // That packs may go can only be said in the control container.
    let generation = ObjectName::new("gen/0000000000000001").unwrap();
    assert!(matches!(way.put_new(&generation, "x".into()), Err(VaultError::Denied { .. })));
    scene.all_comes_back("forged points, chunks and words");
    // Who may remove is told of what is wrong, and removes nothing that older points need.
    let owner = Machine::new();
    let dir = owner.path("recovered");
    let verb = |args: &[&str]| {
        let mut verb = command(&owner, &dir, args);
        Ran::of(verb.env("HOLDFAST_RECOVERY_KEY", &scene.store.words))
    };
    let told_first = verb(&["recover", &scene.url, "--machine-key"]);
    let told = verb(&["check", "--read-data"]).expect_code(1);
    assert!(told.err().contains("pack"), "{}", told.err());
    // Each point that he made up is told by name: by a recovery, by a check, and by the machine whose source it is.
    for ran in [told_first, told, scene.owner(&["vault", "push"])] {
        for id in &made_up {
            let is_told = ran.err().lines().any(|line| line.contains("writer-forged") && line.contains(id));
            assert!(is_told, "{id}: {}", ran.err());
        }
    }
    verb(&["prune", "--now"]);
    scene.all_comes_back("freeing by the owner");
    // A backup of the same files, which finds their chunks there, relies on none that are wrong.
    let source = owner.path("source");
    write_tree(&source, &newest);
    let taken = verb(&["backup", "--json", "--online", source.to_str().unwrap()]);
    let id = summary_id(&taken.out()).unwrap_or_else(|| panic!("{}", taken.err()));
    let bare = Machine::new();
    let dir = bare.path("recovered");
    let mut recover = command(&bare, &dir, &["recover", &scene.url, "--machine-key"]);
    Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &scene.store.words));
    assert_restores(&bare, &dir, &id, &newest);
}
