//! What fuzzing begins with: for each target a few inputs that are sound, made by the engine where it can make them, and some that go one step beyond.

use holdfast_store::fence::{Generation, Revocation, Step, Why};
use holdfast_store::format::config::StoreConfig;
use holdfast_store::format::{HEADER_LEN, ObjectKind};
use holdfast_store::id::{
    Attempt, ChunkId, ObjectHash, ObjectId, PackId, RecoveryPointId, SlotId, SourceTag,
};
use holdfast_store::pack::PagePlace;
use holdfast_store::point::hold::Hold;
use holdfast_store::point::testing::bare_point;
use holdfast_store::point::{Head, PointError, RecoveryPoint, Sight, VaultSession, Witness};
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::{RecoverySheet, words_of};
use holdfast_store::seal::{BlockKind, BlockPlace};
use holdfast_store::tree::page::{InnerItem, Page};
use holdfast_store::tree::testing::sample_node;
use holdfast_store::tree::{Content, Extent, Node, NodeKind, Subtree, Xattr};
use zeroize::Zeroizing;

use super::forge::{GENERATION, OBJECT, SEALER, VAULT, header, put_part};

/// Target, name, bytes.
pub type Seed = (&'static str, &'static str, Vec<u8>);

const TAG: SourceTag = SourceTag([3; 16]);
const POINT: RecoveryPointId = RecoveryPointId(OBJECT.0);

/// All of them.
pub fn all() -> Vec<Seed> {
    [blocks(), objects(), packs(), trees(), slots(), local(), words(), vaults(), view()].concat()
}

fn way(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first], rest].concat()
}

fn blocks() -> Vec<Seed> {
    let len = |n: usize| (n as u32).to_le_bytes();
    let content = b"what is in a block, and once more what is in a block".to_vec();
    let squeezed = {
        let mut out = Vec::with_capacity(200);
        let mut compressor = zstd::bulk::Compressor::new(3).expect("a compressor");
        compressor.include_contentsize(true).expect("a switch");
        compressor.compress_to_buffer(&content, &mut out).expect("room");
        out
    };
    let raw = [&[0; 4][..], &len(content.len()), &len(content.len()), &content].concat();
    let zstd = [&[1, 0, 0, 0][..], &len(squeezed.len()), &len(content.len()), &squeezed].concat();
    let with = |inner: &[u8]| [&[0][..], &1000u16.to_le_bytes(), inner].concat();
    let heads =
        [ObjectKind::Config, ObjectKind::Pack, ObjectKind::Revocation].map(|kind| header(kind, OBJECT));
    let [config, pack, revocation] = heads;
    vec![
        ("block", "raw", with(&raw)),
        ("block", "zstd", with(&zstd)),
        ("header", "config", config),
        ("header", "pack", pack),
        ("header", "revocation", revocation),
    ]
}

fn full_point() -> RecoveryPoint {
    let root = Node {
        xattrs: vec![Xattr { name: b"user.a".to_vec(), value: b"b".to_vec() }],
        ..directory("root", 1)
    };
    let mut point = bare_point(["host", "group", "docs"], 1_700_000_000, root);
    (point.id, point.source_tag, point.sequence) = (POINT, TAG, 7);
    point.summary = vec![PagePlace {
        chunk: ChunkId([1; 32]),
        pack: PackId([2; 32]),
        object_id: ObjectId([3; 16]),
        generation: 1,
        offset: 64,
        block_len: 192,
        start: 0,
        len: 100,
    }];
    point.packs = vec![PackId([2; 32]), PackId([4; 32])];
    (point.errors_total, point.errors) =
        (2, vec![PointError { path: b"a/b".to_vec(), reason: "denied".into() }]);
    point.witness = vec![Witness { source: SourceTag([8; 16]), sequence: 4, hash: [9; 32] }];
    point.tags = vec!["before".into(), "größe".into()];
    point.set_expires(1_800_000_000);
    point
}

fn objects() -> Vec<Seed> {
    let (full, bare) = (full_point(), bare_point(["h", "g", "s"], 0, directory("root", 0)));
    let session = |sight| VaultSession {
        id: POINT,
        source_tag: TAG,
        started: 1_700_000_000,
        writer: b"w".to_vec(),
        sight,
        signature: Vec::new(),
    };
    let head = Head { source: TAG, point: POINT, sequence: 3, hash: ObjectHash([6; 32]) };
    let sight = session(Some(Sight { attempt: 1, heads: vec![head] })).encode().expect("a sound session");
    let hold = Hold { point: POINT, placed: 1_700_000_000, reason: "a case in court".into() };
    let packs = vec![(PackId([1; 32]), 500), (PackId([2; 32]), 600)];
    let generation = Generation { number: 5, step: Step::Final, packs }.seal(&SEALER);
    let revocation = |number| {
        let attempt = Attempt { point: POINT, number };
        let revocation = Revocation { attempt, tag: TAG, why: Why::Forgotten, at: 1_700_000_000 };
        let bytes = revocation.seal(&SEALER);
        way(number, &opened(&bytes, BlockKind::Revocation, ObjectId(POINT.0)))
    };
    let id = holdfast_store::fence::generation_id(5, Step::Final);
    let generation = opened(&generation, BlockKind::Generation, id);
    vec![
        ("point", "full", full.encode().expect("a sound point")),
        ("point", "bare", bare.encode().expect("a sound point")),
        ("session", "before", session(None).encode().expect("a sound session")),
        ("session", "sight", sight),
        ("hold", "reason", hold.encode().expect("a sound hold")),
        ("generation", "final", [&[1][..], &5u64.to_le_bytes(), &generation].concat()),
        ("revocation", "first", revocation(0)),
        ("revocation", "second", revocation(2)),
    ]
}

/// The content of the one block of an object.
fn opened(bytes: &[u8], kind: BlockKind, object_id: ObjectId) -> Vec<u8> {
    let place = BlockPlace { kind, object_id, generation: GENERATION, position: HEADER_LEN as u64 };
    SEALER.open(&place, &bytes[HEADER_LEN..], 1 << 20).expect("what was sealed opens")
}

fn packs() -> Vec<Seed> {
    let mut frames = vec![2];
    put_part(&mut frames, b"first frame, first frame");
    put_part(&mut frames, b"second");
    frames.extend([1, 10, 0]);
    let entry = |frames: &[(u32, u32)]| {
        let mut out = [[1; 32], [2; 32]].concat()[..48].to_vec();
        out.extend([1u32.to_le_bytes(), 1u32.to_le_bytes()].concat());
        out.extend(1000u64.to_le_bytes());
        out.extend((frames.len() as u32).to_le_bytes());
        frames.iter().for_each(|(units, len)| out.extend([units.to_le_bytes(), len.to_le_bytes()].concat()));
        out
    };
    let chunk = |n: u8, start: u32| {
        [&[n; 32][..], &0u32.to_le_bytes(), &start.to_le_bytes(), &5u32.to_le_bytes()].concat()
    };
    let page = [&2u32.to_le_bytes()[..], &chunk(1, 0), &chunk(2, 5)].concat();
    let pack_page = [&1u32.to_le_bytes()[..], &entry(&[(2, 10)])].concat();
    let mut index = vec![0, 1];
    put_part(&mut index, &page);
    index.push(1);
    put_part(&mut index, &pack_page);
    index.extend([1, 9]);
    let directory = [
        &1u32.to_le_bytes()[..],
        &[2u32.to_le_bytes(), 10u32.to_le_bytes()].concat(),
        &1u32.to_le_bytes(),
        &[7; 32],
        &10u32.to_le_bytes(),
    ]
    .concat();
    vec![
        ("pack", "data", way(3, &frames)),
        ("pack", "tree", way(7, &frames)),
        ("pack", "wrong ids", way(1, &frames)),
        ("index", "one page", index),
        ("directory", "one frame", directory),
    ]
}

fn directory(name: &str, page: u8) -> Node {
    let subtree = Some(Subtree { tree: ChunkId([page; 32]), entries: 1, bytes: 10 });
    Node { subtree, ..sample_node(name.as_bytes(), NodeKind::Directory) }
}

fn file(name: &str, content: Content) -> Node {
    Node { size: content.len(), content: Some(content), ..sample_node(name.as_bytes(), NodeKind::File) }
}

fn trees() -> Vec<Seed> {
    let inline =
        Content::Inline(vec![Extent::Data { id: ChunkId([1; 32]), len: 10 }, Extent::Hole { len: 99 }]);
    let paged = Content::Paged { depth: 1, pages: vec![(ChunkId([3; 32]), 109)] };
    let owned = Node { user: Some(b"www".to_vec()), group: Some(b"g".to_vec()), ..file("c", paged.clone()) };
    let kinds = [NodeKind::Symlink, NodeKind::Fifo, NodeKind::BlockDevice];
    let mut nodes = vec![directory("a", 2), file("b", inline.clone()), owned];
    nodes.extend(["d", "e", "f"].iter().zip(kinds).map(|(name, kind)| sample_node(name.as_bytes(), kind)));
    let leaf = Page::Leaf(nodes).encode().expect("a sound leaf");
    let item = |first: &str, page: u8, entries| InnerItem {
        first: first.into(),
        page: ChunkId([page; 32]),
        entries,
    };
    let inner = Page::Inner { level: 1, items: vec![item("a", 1, 6), item("x", 2, 1)] }
        .encode()
        .expect("a sound page");
    let last = Page::Leaf(vec![file("x", inline.clone())]).encode().expect("a sound leaf");
    let mut tree = 3u64.to_le_bytes().to_vec();
    for page in [&inner, &leaf, &last, &inline.encode()] {
        put_part(&mut tree, page);
    }
    (0..4).for_each(|_| put_part(&mut tree, b""));
    tree.extend(b"b");
    vec![
        ("page", "leaf", leaf),
        ("page", "inner", inner),
        ("page", "empty", Page::Leaf(Vec::new()).encode().expect("a sound leaf")),
        ("list", "extents", inline.encode()),
        ("list", "pages", paged.encode()),
        ("tree", "two leaves", tree),
    ]
}

fn slots() -> Vec<Seed> {
    let config = StoreConfig::new(VAULT, 1_700_000_000).encode(&SEALER).expect("a sound config");
    let place =
        BlockPlace { kind: BlockKind::Config, object_id: OBJECT, generation: GENERATION, position: 192 };
    let content = SEALER.open(&place, &config[192..], 1 << 16).expect("what was sealed opens");
    let forged = [&[0], &config[64..188], &content[..34]].concat();
    let mut ring = 2u16.to_le_bytes().to_vec();
    for generation in [1u32, 900] {
        ring.extend([&generation.to_le_bytes()[..], &[7; 32], &5i64.to_le_bytes()].concat());
    }
    ring.extend([&3u16.to_le_bytes()[..], b"day", &[0, 0]].concat());
    let mut fields = [0; 80];
    fields[72..76].copy_from_slice(&900u32.to_le_bytes());
    let machine = MachineKey { vault: VAULT, key: Zeroizing::new([0xab; 32]) };
    let addresses = vec!["/mnt/my disk/100%".to_owned(), "azure://account1/name".to_owned()];
    let key = Zeroizing::new([0x5a; 32]);
    let words = words_of(&key).join(" ");
    let sheet = RecoverySheet { vault: VAULT, addresses, key, created: 1_700_000_000, slot: SlotId([9; 16]) };
    vec![
        ("config", "object", config),
        ("config", "forged", forged),
        ("slot", "recovery", [&[0], &fields[..], &ring].concat()),
        ("slot", "machine", [&[1], &fields[..], &ring].concat()),
        ("machine", "line", machine.encode().as_bytes().to_vec()),
        ("sheet", "code", sheet.code().as_bytes().to_vec()),
        ("sheet", "words", words.into_bytes()),
        ("sheet", "rows", b"abandon abandon abandon\nzoo".to_vec()),
    ]
}

fn local() -> Vec<Seed> {
    let id = "07".repeat(16);
    let known = format!(
        "{{\"id\":\"{id}\",\"tag\":\"{id}\",\"sequence\":3,\"hash\":\"{}\",\"attempt\":1}}",
        "06".repeat(32)
    );
    let memory = format!(
        "{{\"store\":\"{id}\",\"vaults\":{{\"/vault\":{{\"heads\":{{\"{id}\":{known}}},\"own\":[\"{id}\"],\"missing\":{{}},\
         \"revoked\":[\"a\"],\"slots\":{{\"{id}\":true}},\"generation\":2,\"accepted\":[\"b\"],\"alarms\":[]}}}},\"taken\":{{\"{id}\":{known}}}}}"
    );
    let settings = format!(
        "{{\"vaults\":[{{\"url\":\"/mnt/v\"}}],\"staging\":[{{\"path\":\"/mnt/a\",\"id\":\"{id}\",\"leaving\":true}}],\"staging_id\":\"{id}\"}}"
    );
    let marker = format!("{{\"store\":\"{id}\",\"annex\":\"{id}\",\"staging\":\"{id}\"}}");
    let accepted = r#"{"of":"/etc/holdfast.toml","files":[["/etc/holdfast.toml","store = \"/x\""]]}"#;
    vec![
        ("settings", "settings", settings.into_bytes()),
        ("settings", "marker", marker.into_bytes()),
        ("settings", "accepted", accepted.into()),
        ("settings", "proven", br#"{"proven":[{"slot":"aa","vault":"/v","at":5}]}"#.to_vec()),
        ("witness", "file", way(0, memory.as_bytes())),
        ("witness", "empty", way(0, format!("{{\"store\":\"{id}\",\"vaults\":{{}}}}").as_bytes())),
        ("catalog", "sound", Vec::new()),
        ("catalog", "version", vec![96, 0, 0, 4, 1, 2, 3, 4]),
        ("ledger", "sound", Vec::new()),
        ("ledger", "cut", vec![0, 16, 0, 255]),
    ]
}

fn words() -> Vec<Seed> {
    let toml = include_bytes!("seed.toml").to_vec();
    let values: [(&str, u8, &str); 12] = [
        ("size", 0, "1.5GiB"),
        ("count", 1, "unlimited"),
        ("span", 2, "1y6m2w3d12h"),
        ("rate", 3, "10M"),
        ("hours", 4, "Mon..Fri 08:00-18:00"),
        ("schedule", 5, "Mon..Fri 02:30"),
        ("keep", 6, "within=7d,daily=14,yearly=all"),
        ("clock", 7, "1767225600@1795899600x1000"),
        ("part", 8, "7/30"),
        ("file", 9, "file:///mnt/usb%20disk/b"),
        ("azure", 9, "azure+https://blob.example.org/account1/backups"),
        ("event", 10, "opened"),
    ];
    let mut seeds: Vec<Seed> = vec![
        ("spec", "latest", b"latest~2:/a/b".to_vec()),
        ("spec", "time", b"docs@2026-11-20T12.00.00Z:a".to_vec()),
        ("spec", "ago", b"docs@yesterday".to_vec()),
        ("spec", "id", b"0123abcd".to_vec()),
        ("toml", "full", toml),
        ("toml", "nothing", Vec::new()),
        ("control", "run", br#"{"ask":"run","work":"backup","group":"docs","points":["aa"]}"#.to_vec()),
        ("control", "cancel", br#"{"ask":"cancel","job":3}"#.to_vec()),
        ("control", "begun", br#"{"answer":"begun","job":3}"#.to_vec()),
        ("words", "patterns", way(11, b"\x01\x04\x00name*.tmp\n!/srv/**/keep\n[a-c]?\n")),
    ];
    seeds.extend(values.map(|(name, which, text)| ("words", name, way(which, text.as_bytes()))));
    seeds
}

fn vaults() -> Vec<Seed> {
    let id = "0a".repeat(16);
    let name = "0a".repeat(32);
    let names = [
        "config".to_owned(),
        format!("keys/{id}"),
        format!("pack/0a/{name}"),
        format!("rp/{id}/{id}.3"),
        format!("hb/{id}-0000000000000001"),
        "gen/0000000000000001.final".to_owned(),
        format!("hold/{id}/{id}"),
    ];
    let mut seeds: Vec<Seed> = ["config", "slot", "pack", "point", "beat", "final", "hold"]
        .into_iter()
        .zip(names)
        .map(|(what, name)| ("names", what, name.into_bytes()))
        .collect();
    seeds.push(("names", "files", format!("{id}\0lost+found\0.hidden\0{id}.1").into_bytes()));
    let blob = "<Blob><Name>rp/00</Name><Properties><Last-Modified>Wed, 21 Oct 2015 07:28:00 GMT</Last-Modified>\
                <Content-Length>7</Content-Length></Properties></Blob>";
    let page = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"https://a/\" ContainerName=\"fuzz-data\">\
         <Blobs>{blob}</Blobs><NextMarker>more</NextMarker></EnumerationResults>"
    );
    let mut listing = vec![0, 1, 0];
    put_part(&mut listing, b"application/xml");
    listing.extend(page.as_bytes());
    let mut refused = vec![4, 2, 3];
    put_part(&mut refused, b"BlobNotFound");
    refused.push(5);
    put_part(&mut refused, b"7");
    refused.extend(b"<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code><Message>none</Message></Error>");
    let mut range = vec![2, 3, 4];
    put_part(&mut range, b"BlockBlob");
    range.push(2);
    put_part(&mut range, b"bytes 3-8/100");
    range.push(1);
    put_part(&mut range, b"6");
    range.extend(b"sixsix");
    seeds.extend([
        ("listing", "page", listing),
        ("listing", "refused", refused),
        ("listing", "range", range),
    ]);
    seeds
}

fn view() -> Vec<Seed> {
    let mut walk = Vec::new();
    for (parent, name) in [(0, "host"), (1, "group"), (2, "docs"), (3, "latest")] {
        walk.extend([0, parent]);
        put_part(&mut walk, name.as_bytes());
    }
    let mut lists = Vec::new();
    for of in 0..12 {
        lists.extend([6, of]);
        lists.extend(0u64.to_le_bytes());
        lists.push(50);
    }
    lists.extend([3, 9, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0]);
    lists.extend([7, 8]);
    put_part(&mut lists, b"user.holdfast.point");
    vec![("view", "walk", walk), ("view", "lists", lists)]
}
