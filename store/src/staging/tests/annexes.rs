//! Tests of staging with annexes: a pack is somewhere, or the caller was told that it is not, wherever a disk fails, is full, or goes away.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::id::{AnnexId, StagingId, VaultId};

mod safety;

const STORE: VaultId = VaultId([1; 16]);
const HOLDER: Holder = Holder { store: STORE, staging: Some(StagingId([3; 16])) };

/// A main directory and annexes in memory; the first annex has the id 0.
struct Disks {
    main: Arc<MemoryFiles>,
    annexes: Vec<Arc<MemoryFiles>>,
}

fn annex(n: usize, files: Arc<dyn Files>, leaving: bool) -> Annex {
    let path = PathBuf::from(format!("/annex{n}"));
    Annex::new(AnnexId([n as u8; 16]), HOLDER, &path, leaving, files)
}

fn pack_name(bytes: &[u8]) -> ObjectName {
    names::pack(&crate::id::PackId(*blake3::hash(bytes).as_bytes()))
}

impl Disks {
    fn new(annexes: usize) -> Self {
        let disks = Self { main: Arc::default(), annexes: vec![Arc::default(); annexes] };
        let disks = Self { annexes: disks.annexes.iter().map(|_| Arc::default()).collect(), ..disks };
        for (n, files) in disks.annexes.iter().enumerate() {
            annex(n, files.clone(), false).make().unwrap();
        }
        Staging::new(disks.main.clone()).prepare().unwrap();
        disks
    }

    /// With what each disk is wrapped into, and the annexes that are leaving.
    fn staging_on(&self, wrap: impl Fn(Arc<dyn Files>) -> Arc<dyn Files>, leaving: &[usize]) -> Staging {
        let annexes = self.annexes.iter().enumerate();
        let annexes = annexes.map(|(n, files)| annex(n, wrap(files.clone()), leaving.contains(&n))).collect();
        let mut looks = VecDeque::from([annexes]);
        Staging::with_annexes(wrap(self.main.clone()), Box::new(move || looks.pop_front()))
    }

    fn staging(&self) -> Staging {
        self.staging_on(|files| files, &[])
    }

    fn faulty(&self, leaving: &[usize]) -> (Staging, FaultyFiles) {
        let faulty = FaultyFiles::new(self.main.clone());
        let staging = self.staging_on(|files| Arc::new(faulty.beside(files)), leaving);
        (staging, faulty)
    }

    /// How many directories have a pack: none of them half of it.
    fn copies(&self, bytes: &[u8]) -> usize {
        let name = pack_name(bytes);
        let all = std::iter::once(&self.main).chain(&self.annexes);
        let copies = all.filter_map(|files| files.read_small(name.as_str(), 1 << 20).unwrap());
        copies.inspect(|copy| assert_eq!(copy, bytes)).count()
    }

    /// Takes a disk away, leaving its empty mount point.
    fn unmount(&mut self, n: usize) -> Arc<MemoryFiles> {
        std::mem::take(&mut self.annexes[n])
    }
}

#[test]
fn a_pack_goes_where_most_room_is_and_where_that_is_full_into_the_next() {
    let disks = Disks::new(2);
    let (ballast, marker) = (BALLAST_LEN as u64, 200);
    disks.main.limit(ballast + 1000);
    disks.annexes[0].limit(marker + 5000);
    disks.annexes[1].limit(marker + 3000);
    let staging = disks.staging();
    let packs: Vec<Vec<u8>> = (0..9).map(|n| vec![n; 1000]).collect();
    let put: Vec<_> = packs.iter().map(|pack| staging.put_somewhere(&pack_name(pack), pack)).collect();
    let put: Vec<_> = put.into_iter().map(|put| put.map(|annex| annex.map(|id| id.0[0])).ok()).collect();
    assert_eq!(put[..3], [Some(Some(0)); 3], "the most room first: {put:?}");
    assert_eq!(put.iter().filter(|put| **put == Some(Some(1))).count(), 3, "{put:?}");
    // What is left in the main directory is for what only it can take, as long as an annex has room.
    assert_eq!(put.iter().position(|put| *put == Some(None)), Some(8), "{put:?}");
    for pack in &packs {
        assert_eq!(staging.read_all(&pack_name(pack), 1 << 20).unwrap().as_ref(), Some(pack));
    }
    let listed = staging.list("pack").unwrap();
    assert_eq!(listed.len(), 9);
    assert!(listed.is_sorted_by(|a, b| a.name < b.name));
    let full = staging.put(&pack_name(b"one more"), &[9; 1000]).unwrap_err();
    assert_eq!(full.class(), ErrorClass::Full);
    assert_eq!(disks.main.len(BALLAST).unwrap(), None, "its reserve is given up only now");
}

#[test]
fn whatever_fails_on_one_disk_the_pack_comes_to_another() {
    use std::io::ErrorKind as K;
    for kind in [K::StorageFull, K::QuotaExceeded, K::ReadOnlyFilesystem, K::Other, K::PermissionDenied] {
        let disks = Disks::new(1);
        let dead = FaultyFiles::new(disks.annexes[0].clone());
        dead.fail_at(0, Fault::ForEver(kind));
        let mut looks = VecDeque::from([vec![annex(0, Arc::new(dead), false)]]);
        disks.main.limit(100 << 20);
        let staging = Staging::with_annexes(disks.main.clone(), Box::new(move || looks.pop_front()));
        assert_eq!(staging.put_somewhere(&pack_name(b"p"), b"p").unwrap(), None, "{kind}");
        // Of a disk that is full, which is asked first, and one that is dead the latter is told.
        disks.main.limit(0);
        disks.annexes[0].limit(0);
        let class = staging.put(&pack_name(b"q"), b"q").unwrap_err().class();
        let full = matches!(kind, K::StorageFull | K::QuotaExceeded);
        assert_eq!(class == ErrorClass::Full, full, "{kind}: {class:?}");
    }
}

#[test]
fn an_annex_that_cannot_be_written_says_so_is_read_and_gets_nothing() {
    use std::io::ErrorKind as K;
    let disks = Disks::new(1);
    disks.main.limit(5 << 20);
    let staging = disks.staging();
    assert!(staging.put_somewhere(&pack_name(b"p"), b"p").unwrap().is_some());
    disks.annexes[0].refuse(K::ReadOnlyFilesystem);
    assert_eq!(Staging::room_in(&staging.annexes()[0]).refuses, Some(K::ReadOnlyFilesystem));
    assert_eq!(staging.put_somewhere(&pack_name(b"q"), b"q").unwrap(), None);
    assert_eq!(staging.read(&pack_name(b"p"), 0, 1).unwrap(), b"p");
    // It is not even asked: what has no room is what can be written.
    disks.main.limit(0);
    assert_eq!(staging.put(&pack_name(b"r"), b"r").unwrap_err().class(), ErrorClass::Full);
}

#[test]
fn no_fault_at_any_operation_of_a_put_leaves_a_torn_pack_in_any_directory() {
    let faults = [
        Fault::Once(std::io::ErrorKind::Other),
        Fault::Once(std::io::ErrorKind::StorageFull),
        Fault::ForEver(std::io::ErrorKind::StorageFull),
        Fault::Crash,
    ];
    for fault in faults {
        for n in 0.. {
            let disks = Disks::new(2);
            let (staging, faulty) = disks.faulty(&[]);
            faulty.fail_at(n, fault);
            let put = staging.put(&pack_name(b"all or nothing"), b"all or nothing");
            let copies = disks.copies(b"all or nothing");
            assert!(put.is_err() || copies > 0, "{fault:?} at {n}");
            assert!(
                put.is_ok() || !matches!(fault, Fault::Once(_)),
                "one fault does not end it: {put:?} at {n}"
            );
            let after = disks.staging();
            after.clear_temp().unwrap();
            for files in &disks.annexes {
                assert!(files.list(TEMP_DIR).unwrap().is_empty());
            }
            assert_eq!(after.list("pack").unwrap().len(), copies.min(1), "{fault:?} at {n}");
            if !faulty.struck() {
                break;
            }
        }
    }
}

#[test]
fn the_same_pack_in_two_directories_is_one_and_goes_from_both() {
    let disks = Disks::new(1);
    let (name, staging) = (pack_name(b"twice"), disks.staging());
    for files in [&disks.main, &disks.annexes[0]] {
        files.write_synced(name.as_str(), b"twice").unwrap();
    }
    assert_eq!(staging.list("pack").unwrap().len(), 1);
    // One copy that cannot be read is not the only one.
    disks.main.damage(name.as_str(), Vec::clear);
    assert_eq!(staging.read(&name, 0, 5).unwrap(), b"twice");
    assert!(staging.remove(&name).unwrap());
    assert_eq!(disks.copies(b"twice"), 0);
    assert!(!staging.remove(&name).unwrap());
    for files in [&disks.main, &disks.annexes[0]] {
        files.write_synced(name.as_str(), b"wrong").unwrap();
    }
    staging.move_to(&name, &names::bad(&name, &[1; 32])).unwrap();
    assert!(staging.list("pack").unwrap().is_empty());
    assert!(staging.move_to(&name, &names::bad(&name, &[1; 32])).is_err());
}

#[test]
fn an_annex_that_is_away_is_neither_written_nor_read_nor_cleared_and_is_as_it_was_when_it_is_back() {
    let mut disks = Disks::new(1);
    disks.main.limit(5 << 20);
    let there = b"in the annex".to_vec();
    assert!(disks.staging().put_somewhere(&pack_name(&there), &there).unwrap().is_some());
    let (away, half) = (disks.unmount(0), format!("{TEMP_DIR}/{}", "ab".repeat(16)));
    away.write_synced(&half, b"half").unwrap();
    let copy = Holder { staging: Some(StagingId([4; 16])), ..HOLDER };
    let others: [(Arc<MemoryFiles>, &str); 4] = [
        (Arc::default(), "mounted"),
        (foreign(Holder { store: VaultId([2; 16]), ..HOLDER }, AnnexId([0; 16])), "another store"),
        (foreign(HOLDER, AnnexId([9; 16])), "another annex"),
        (foreign(copy, AnnexId([0; 16])), "another copy of this store"),
    ];
    for (files, why) in others {
        files.write_synced("tmp/theirs", b"x").unwrap();
        let before = tree(&files);
        disks.annexes[0] = files.clone();
        let staging = disks.staging();
        staging.prepare().unwrap();
        staging.clear_temp().unwrap();
        assert_eq!(staging.put_somewhere(&pack_name(b"new"), b"new").unwrap(), None, "{why}");
        staging.remove(&pack_name(&there)).unwrap();
        assert_eq!(tree(&files), before, "{why}: nothing is done there");
        let survey = staging.survey().unwrap();
        let reason = survey.annexes[0].packs.as_ref().unwrap_err().to_string();
        assert!(reason.contains(why), "{reason}");
        assert_eq!(staging.len(&pack_name(&there)).unwrap(), None);
        let missing = staging.read(&pack_name(&there), 0, 1).unwrap_err();
        assert!(missing.to_string().contains("annex /annex0"), "{missing}");
        assert_eq!(missing.class(), ErrorClass::NotFound);
    }
    disks.annexes[0] = away;
    let staging = disks.staging();
    assert_eq!(staging.read_all(&pack_name(&there), 100).unwrap(), Some(there));
    staging.clear_temp().unwrap();
    assert_eq!(disks.annexes[0].len(&half).unwrap(), None);
}

fn foreign(holder: Holder, id: AnnexId) -> Arc<MemoryFiles> {
    let files: Arc<MemoryFiles> = Arc::default();
    Annex::new(id, holder, Path::new("/x"), false, files.clone()).make().unwrap();
    files
}

/// All files with their bytes.
fn tree(files: &MemoryFiles) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        for entry in files.list(&dir).unwrap() {
            let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
            match entry.len {
                None => dirs.push(path),
                Some(_) => drop(all.insert(path.clone(), files.read_small(&path, 1 << 23).unwrap().unwrap())),
            }
        }
    }
    all
}

#[test]
fn a_marker_that_is_damaged_or_endless_belongs_to_nobody_and_the_annex_is_away() {
    let ids =
        "{\"store\":\"01010101010101010101010101010101\",\"annex\":\"00000000000000000000000000000000\"";
    let (short, more) = (format!("{ids},\"staging\":\"03\"}}"), format!("{ids},\"other\":1}}"));
    for bytes in [
        &b""[..],
        b"{}",
        b"[]",
        b"{\"store\":\"00\",\"annex\":\"00\"}",
        short.as_bytes(),
        more.as_bytes(),
        &[b' '; 100_000],
    ] {
        let files: Arc<MemoryFiles> = Arc::default();
        files.write_synced(MARKER, bytes).unwrap();
        assert!(owner(&*files, &HOLDER).is_err(), "{bytes:?}");
        assert!(annex(0, files, false).presence().is_err());
    }
}

#[test]
fn a_marker_says_of_which_copy_of_the_store_it_is_and_one_of_before_of_none() {
    let id = AnnexId([0; 16]);
    let of = |staging: Option<u8>| Holder { staging: staging.map(|n| StagingId([n; 16])), ..HOLDER };
    let cases = [
        (Some(3), Some(3), Owner::Ours(id)),
        (Some(3), Some(4), Owner::OfCopy(id)),
        (Some(3), None, Owner::OfCopy(id)),
        (None, Some(3), Owner::Unsaid(id)),
        (None, None, Owner::Unsaid(id)),
    ];
    for (marked, asks, is) in cases {
        let files = foreign(of(marked), id);
        assert_eq!(owner(&*files, &of(asks)).unwrap(), is, "{marked:?} {asks:?}");
        let there = Annex::new(id, of(asks), Path::new("/x"), false, files).presence().is_ok();
        assert_eq!(there, !matches!(is, Owner::OfCopy(_)), "{marked:?} {asks:?}");
    }
}

#[test]
fn who_misses_a_pack_looks_whether_annexes_were_added_since() {
    let disks = Disks::new(1);
    let (name, files) = (pack_name(b"p"), disks.annexes[0].clone());
    files.write_synced(name.as_str(), b"p").unwrap();
    let (added, asked) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(0)));
    let (seen, count) = (added.clone(), asked.clone());
    let look = move || {
        *count.lock().unwrap() += 1;
        std::mem::take(&mut *seen.lock().unwrap()).then(|| vec![annex(0, files.clone(), false)])
    };
    let staging = Staging::with_annexes(disks.main.clone(), Box::new(look));
    assert!(staging.read(&name, 0, 1).is_err());
    *added.lock().unwrap() = true;
    assert_eq!(staging.read(&name, 0, 1).unwrap(), b"p");
    let before = *asked.lock().unwrap();
    for _ in 0..10 {
        staging.read(&name, 0, 1).unwrap();
    }
    assert_eq!(*asked.lock().unwrap(), before, "nobody looks who finds what he wants");
}

/// A disk of which every read fails, and counts.
#[derive(Debug)]
struct Dying(MemoryFiles, Mutex<usize>);

impl Files for Dying {
    fn write_synced(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.write_synced(path, bytes)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn sync_file(&self, path: &str) -> io::Result<()> {
        self.0.sync_file(path)
    }
    fn make_dir(&self, dir: &str) -> io::Result<bool> {
        self.0.make_dir(dir)
    }
    fn read_exact_at(&self, _: &str, _: u64, _: &mut [u8]) -> io::Result<()> {
        *self.1.lock().unwrap() += 1;
        Err(io::Error::other("a sector cannot be read"))
    }
    fn read_small(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        self.0.read_small(path, limit)
    }
    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        self.0.len(path)
    }
    fn list(&self, _: &str) -> io::Result<Vec<FileEntry>> {
        Err(io::Error::other("a sector cannot be read"))
    }
    fn refuse_links(&self, dir: &str) -> io::Result<()> {
        self.0.refuse_links(dir)
    }
    fn identity(&self, path: &str) -> io::Result<Option<files::Identity>> {
        self.0.identity(path)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }
    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.0.remove_dir(dir)
    }
    fn room(&self) -> io::Result<Room> {
        self.0.room()
    }
    fn describe(&self, path: &str) -> PathBuf {
        self.0.describe(path)
    }
}

#[test]
fn who_reads_from_one_disk_does_not_ask_another_that_fails() {
    let dying = Arc::new(Dying(MemoryFiles::default(), Mutex::default()));
    let disks = Disks::new(1);
    let name = pack_name(b"p");
    disks.annexes[0].write_synced(name.as_str(), b"p").unwrap();
    let mut looks = VecDeque::from([vec![annex(0, disks.annexes[0].clone(), false)]]);
    let staging = Staging::with_annexes(dying.clone(), Box::new(move || looks.pop_front()));
    for _ in 0..5 {
        assert_eq!(staging.read(&name, 0, 1).unwrap(), b"p");
    }
    assert_eq!(*dying.1.lock().unwrap(), 1, "from then on it is known where it lies");
    // What is nowhere else is not said to be missing: it may be on the disk that fails.
    let error = staging.read(&pack_name(b"q"), 0, 1).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
}

#[test]
fn an_annex_that_cannot_be_listed_is_away() {
    let dying = Arc::new(Dying(MemoryFiles::default(), Mutex::default()));
    annex(0, dying.clone(), false).make().unwrap();
    let mut looks = VecDeque::from([vec![annex(0, dying, false)]]);
    let staging = Staging::with_annexes(Arc::<MemoryFiles>::default(), Box::new(move || looks.pop_front()));
    let survey = staging.survey().unwrap();
    assert!(survey.annexes[0].packs.as_ref().unwrap_err().to_string().contains("sector"));
}

/// Moves all out of the annex 0.
fn leave(staging: &Staging) -> Result<Vec<Went>, StoreError> {
    let annexes = staging.annexes();
    let needs = staging.needs_of_leaving(&annexes[0])?;
    let went = needs.objects.iter().map(|object| staging.move_out(&annexes[0], &object.name, |_| Ok(())));
    let went = went.collect::<Result<Vec<_>, _>>()?;
    annexes[0].unmake()?;
    Ok(went)
}

#[test]
fn wherever_leaving_an_annex_is_cut_off_nothing_is_lost_and_the_same_again_goes_on() {
    let packs: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 100]).collect();
    let wrong = pack_name(b"what it should be");
    for fault in [Fault::Once(std::io::ErrorKind::Other), Fault::Crash] {
        for n in 0.. {
            let disks = Disks::new(2);
            for pack in &packs {
                disks.annexes[0].write_synced(pack_name(pack).as_str(), pack).unwrap();
            }
            disks.annexes[0].write_synced(wrong.as_str(), b"what it is").unwrap();
            disks.annexes[0].write_synced("bad/pack/old.0011", b"older damage").unwrap();
            let (staging, faulty) = disks.faulty(&[0]);
            faulty.fail_at(n, fault);
            let first = leave(&staging);
            for pack in &packs {
                assert!(disks.copies(pack) > 0, "{fault:?} at {n}");
            }
            if first.is_err() {
                let again = disks.staging_on(|files| files, &[0]);
                again.clear_temp().unwrap();
                leave(&again).unwrap();
            }
            let after = Disks { main: disks.main.clone(), annexes: vec![disks.annexes[1].clone()] };
            for pack in &packs {
                // A name that may not be durable in one directory is put into another as well.
                assert!(after.copies(pack) > 0, "{fault:?} at {n}");
            }
            assert!(tree(&disks.annexes[0]).is_empty(), "{:?} {fault:?} at {n}", tree(&disks.annexes[0]));
            let aside = names::bad(&wrong, blake3::hash(b"what it is").as_bytes());
            let kept = [(aside.as_str(), &b"what it is"[..]), ("bad/pack/old.0011", b"older damage")];
            for (path, bytes) in kept {
                assert_eq!(disks.main.read_small(path, 100).unwrap().as_deref(), Some(bytes), "{path}");
            }
            if !faulty.struck() {
                assert_eq!(first.unwrap().iter().filter(|went| matches!(went, Went::Over(_))).count(), 3);
                break;
            }
        }
    }
}

#[test]
fn a_copy_elsewhere_counts_only_when_its_bytes_are_right() {
    let disks = Disks::new(1);
    let name = pack_name(b"right");
    disks.annexes[0].write_synced(name.as_str(), b"right").unwrap();
    disks.main.write_synced(name.as_str(), b"wrong").unwrap();
    let staging = disks.staging_on(|files| files, &[0]);
    assert_eq!(staging.needs_of_leaving(&staging.annexes()[0]).unwrap().objects.len(), 1);
    leave(&staging).unwrap();
    assert_eq!(disks.copies(b"right"), 1);
    let aside = names::bad(&name, blake3::hash(b"wrong").as_bytes());
    assert_eq!(disks.main.read_small(aside.as_str(), 100).unwrap().as_deref(), Some(&b"wrong"[..]));
}

#[test]
fn what_leaving_needs_counts_each_disk_once_and_what_lies_elsewhere_not() {
    let disks = Disks::new(3);
    for (n, len) in [(0u8, 100), (1, 50)] {
        let pack = vec![n; len];
        disks.annexes[0].write_synced(pack_name(&pack).as_str(), &pack).unwrap();
    }
    disks.annexes[1].write_synced(pack_name(&[1; 50]).as_str(), &[1; 50]).unwrap();
    let limits = [&disks.main, &disks.annexes[1], &disks.annexes[2]];
    let used = limits.map(|files| tree(files).values().map(|bytes| bytes.len() as u64).sum::<u64>());
    for (files, used) in limits.iter().zip(used) {
        files.limit(used + 1600);
    }
    let staging = disks.staging_on(|files| files, &[0, 2]);
    let needs = staging.needs_of_leaving(&staging.annexes()[0]).unwrap();
    assert_eq!((needs.objects.len(), needs.bytes), (2, 100));
    // The main directory, with what it keeps for itself, and one annex: the other one is leaving, too.
    let kept = |used: u64| (used + 1600) / 16;
    let expected = 1600u64.saturating_sub(kept(used[0])) + 1600 - kept(used[1]);
    assert_eq!(needs.room, expected);
    // Two directories of one disk.
    let files = disks.annexes[0].clone();
    let mut looks = VecDeque::from([vec![annex(0, files.clone(), true)]]);
    let same = Staging::with_annexes(files, Box::new(move || looks.pop_front()));
    assert_eq!(same.needs_of_leaving(&same.annexes()[0]).unwrap().room, u64::MAX);
}

#[test]
fn a_full_main_directory_is_eased_by_annexes_on_other_disks() {
    let disks = Disks::new(1);
    let packs: Vec<Vec<u8>> = (0..20).map(|n| vec![n; 100_000]).collect();
    for pack in &packs {
        disks.main.write_synced(pack_name(pack).as_str(), pack).unwrap();
    }
    let used = disks.main.room().unwrap();
    disks.main.limit(u64::MAX - used.free);
    let staging = disks.staging();
    let mut went = 0;
    let mut count = |_: &ObjectInfo, _: &Went| {
        went += 1;
        Ok(())
    };
    staging.ease_main(&mut count).unwrap();
    staging.ease_main(&mut count).unwrap();
    let total = u64::MAX - used.free;
    assert_eq!(went, (total / 16).div_ceil(100_000), "no more than are needed, and once");
    assert!(packs.iter().all(|pack| disks.copies(pack) == 1));
    // Within one disk nothing is gained.
    annex(0, disks.main.clone(), false).make().unwrap();
    let used: usize = tree(&disks.main).values().map(Vec::len).sum();
    disks.main.limit(used as u64 + 1000);
    let mut looks = VecDeque::from([vec![annex(0, disks.main.clone(), false)]]);
    let same = Staging::with_annexes(disks.main.clone(), Box::new(move || looks.pop_front()));
    same.ease_main(|_, _| panic!("it moves within a disk")).unwrap();
}
