//! Tests of points that lack something in a vault: they are told and sent again, and nothing goes from another place meanwhile that only that has.

use super::hostile::{data_packs, delete_catalog, push, recovered};
use super::*;
use crate::catalog::{Mark, PointRow, VaultNo};
use crate::check::{self, Depth, Turn, scrub};
use crate::fence::{Generation, Step};
use crate::id::{PackId, RecoveryPointId};
use crate::reclaim;
use crate::scrub::ciphertext::Part;

/// A store with a point that is in a vault, too, which lost a pack: a look at it told.
struct Doubted {
    home: Home,
    vault: Arc<MemoryVault>,
    store: Store,
    one: StoredPoint,
    lost: ObjectName,
}

fn doubted() -> Doubted {
    let (home, vault, store, one, lost) = super::heal::vaulted();
    vault.lose(&lost);
    let doubted = Doubted { home, vault, store, one, lost };
    doubted.look();
    doubted
}

impl Doubted {
    fn no(&self) -> VaultNo {
        self.store.vaults()[0].0
    }

    fn look(&self) {
        let (no, _, way) = self.store.vaults()[0].clone();
        copy::refresh_vault(&self.store, no, &way, &VoidMonitor).unwrap();
    }

    fn row(&self) -> PointRow {
        self.store.catalog().point(&self.one.point.id).unwrap().unwrap()
    }

    /// Whether it is here, in how many vaults, and in how many of them it is said to lack something.
    fn told(&self) -> (bool, usize, usize) {
        let point = self.store.point(&self.one.point.id).unwrap();
        let of_list = self.store.points().unwrap().into_iter().find(|one| one.point.id == point.point.id);
        assert_eq!(of_list.unwrap().incomplete, point.incomplete);
        (point.local, point.vaults.len(), point.incomplete.len())
    }

    fn goes_from_here(&self) {
        self.store.remove_staged_point(&self.row()).unwrap();
    }

    fn name_in_vault(&self) -> ObjectName {
        names::point(&self.one.point.source_tag, &self.one.point.id)
    }

    fn scrubbed(&self) -> Vec<String> {
        let turn = Turn { place: Some(self.no()), packs: Vec::new() };
        let found = scrub(&self.store, &[turn], Part::WHOLE, &VoidMonitor).unwrap().findings;
        found.into_iter().filter(|f| f.object.starts_with("rp/")).map(|f| f.detail).collect()
    }

    fn assert_whole_in_vault(&self) {
        let (_dir, there) = recovered(&self.home, &self.vault);
        assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
    }
}

#[test]
fn it_counts_as_there_only_while_no_other_place_has_it_and_is_whole_when_it_was_sent() {
    let it = doubted();
    assert_eq!(it.told(), (true, 0, 1));
    it.look();
    it.store.mend_packs(&VoidMonitor).unwrap();
    assert_eq!(it.told(), (true, 0, 1), "a look that misses nothing new takes no doubt back");
    it.goes_from_here();
    assert_eq!(it.told(), (false, 1, 1), "the only place that is left");
    push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
    assert_eq!(it.told(), (false, 1, 0));
    it.assert_whole_in_vault();
    it.store.remove_point_from_vault(it.no(), &it.row()).unwrap();
    assert!(it.store.points().unwrap().is_empty());
}

#[test]
fn what_only_staging_has_of_it_stays_there_until_the_vault_has_it_again() {
    let it = doubted();
    it.goes_from_here();
    let here = it.home.path().join(it.lost.as_str());
    let freed = reclaim::free_staging(&it.store, &VoidMonitor).unwrap().1;
    assert!(freed.packs > 0 && here.exists(), "what the vault has as well may go, and nothing else");
    push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
    it.assert_whole_in_vault();
    reclaim::free_staging(&it.store, &VoidMonitor).unwrap();
    assert!(!here.exists(), "now the vault has all of it");
    it.assert_whole_in_vault();
}

#[test]
fn when_it_is_forgotten_there_by_another_machine_nobody_is_to_send_it() {
    let it = doubted();
    let (_dir, other) = recovered(&it.home, &it.vault);
    let row = other.catalog().point(&it.one.point.id).unwrap().unwrap();
    other.remove_point_from_vault(other.vaults()[0].0, &row).unwrap();
    assert_eq!(it.told(), (true, 0, 1));
    it.look();
    assert_eq!(it.told(), (true, 0, 0));
    assert!(restore(&it.store, &it.one).unwrap() == sample(1));
}

#[test]
fn one_that_is_on_its_way_out_of_the_vault_is_not_to_come_back() {
    let it = doubted();
    push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
    it.store.catalog().set_mark(Mark::Going(Some(it.no()), it.one.point.id), true).unwrap();
    it.store.doubt_points(it.no(), &[it.one.point.id]).unwrap();
    assert_eq!(it.told(), (true, 0, 0));
}

#[test]
fn of_a_point_that_nobody_knows_nothing_is_missed() {
    let it = doubted();
    it.store.doubt_points(it.no(), &[RecoveryPointId([9; 16])]).unwrap();
    assert_eq!(it.store.incomplete_in(it.no()).unwrap(), [it.one.point.id].into());
}

#[test]
fn a_scrub_tells_what_a_look_learned_until_it_was_sent() {
    let it = doubted();
    for _ in 0..2 {
        let told = it.scrubbed();
        assert!(told.len() == 1 && told[0].contains("are not whole in this vault"), "{told:?}");
    }
    push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
    assert_eq!(it.scrubbed(), [""; 0]);
    it.vault.lose(&it.name_in_vault());
    it.look();
    let told = it.scrubbed();
    assert!(told.len() == 1 && told[0].ends_with("the recovery point is missing"), "{told:?}");
    push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
    assert_eq!(it.scrubbed(), [""; 0]);
    it.assert_whole_in_vault();
}

#[test]
fn what_a_vault_is_about_to_let_go_is_no_reason_to_free_it_here() {
    let (home, vault, store, one, _) = super::heal::vaulted();
    store.remove_staged_point(&store.catalog().point(&one.point.id).unwrap().unwrap()).unwrap();
    let packs = data_packs(&store).into_iter().map(|row| (row.entry.id, row.entry.len)).collect();
    let condemned = Generation { number: 1, step: Step::Condemned, packs };
    vault.replace(&condemned.name().name(), condemned.seal(store.sealer()).into());
    reclaim::free_staging(&store, &VoidMonitor).unwrap();
    for (id, _) in &condemned.packs {
        assert!(home.path().join(names::pack(id).as_str()).exists(), "{id}");
    }
}

#[test]
fn one_that_no_other_place_has_any_more_counts_as_there_also_when_another_vault_is_forgotten() {
    let it = doubted();
    let other = it.store.catalog().vault_no("memory:w").unwrap();
    it.store.catalog().add_point(&PointRow { staged: false, vaults: vec![other], ..it.row() }).unwrap();
    it.goes_from_here();
    assert_eq!(it.told(), (false, 1, 1));
    it.store.catalog().forget_vault(other).unwrap();
    assert_eq!((it.row().vaults, it.told()), (vec![it.no()], (false, 1, 1)));
}

#[test]
fn what_is_lost_everywhere_is_told_from_what_can_be_sent() {
    let it = doubted();
    let two = take_point(&it.store, &sample(2)).unwrap();
    let ids = [it.one.point.id, two.point.id];
    assert_eq!(it.store.not_lost(&ids).unwrap(), ids.into());
    let pack =
        it.store.catalog().packs().unwrap().into_iter().find(|row| names::pack(&row.entry.id) == it.lost);
    std::fs::remove_file(it.home.path().join(it.lost.as_str())).unwrap();
    it.store.catalog().miss_staged(pack.unwrap().no).unwrap();
    let left = it.store.not_lost(&ids).unwrap();
    assert!(!left.contains(&it.one.point.id), "{left:?}");
    let three = take_point(&it.store, &fenced::files("of its own")).unwrap();
    assert_eq!(it.store.not_lost(&[ids[0], three.point.id]).unwrap(), [three.point.id].into());
}

#[test]
fn one_that_a_look_back_misses_is_sent_again_also_when_the_catalog_does_not_know_that_it_was_there() {
    let it = doubted();
    it.vault.lose(&it.name_in_vault());
    it.look();
    // As one that was made anew.
    it.store.catalog().set_mark(Mark::Incomplete(it.no(), it.one.point.id), false).unwrap();
    assert_eq!(it.told(), (true, 0, 0));
    it.look();
    assert_eq!(it.told(), (true, 0, 1));
    push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
    it.look();
    assert_eq!(it.told(), (true, 1, 0));
    it.assert_whole_in_vault();
}

#[test]
fn what_a_point_of_another_machine_needs_of_a_damaged_pack_is_kept_and_sent_by_who_has_it_whole() {
    let (home, vault, _, one, name) = super::heal::vaulted();
    // It looks at the vault now, and knows what is there.
    let store = home.open_with(&vault);
    let (_dir, other) = recovered(&home, &vault);
    let session = other.begin(Compression::None, &VoidMonitor).unwrap();
    let two = take_point_of(["there", "group", "source"], session, &sample(1)).unwrap();
    push(&other, &two, &RecordingMonitor::default()).unwrap();
    let row = store.catalog().point(&one.point.id).unwrap().unwrap();
    store.remove_point_from_vault(store.vaults()[0].0, &row).unwrap();
    store.remove_staged_point(&row).unwrap();
    assert!(store.points().unwrap().is_empty(), "this one does not know the other's");
    let mut bytes = vault.object(&name).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    vault.replace(&name, bytes.into());
    check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
    reclaim::free_staging(&store, &VoidMonitor).unwrap();
    assert!(home.path().join(name.as_str()).exists(), "it is the last whole copy");
    let (no, _, way) = store.vaults()[0].clone();
    copy::refresh_vault(&store, no, &way, &VoidMonitor).unwrap();
    assert_eq!(store.incomplete_in(no).unwrap(), [two.point.id].into());
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    let (_dir, there) = recovered(&home, &vault);
    assert!(restore(&there, &two).unwrap() == sample(1));
}

#[test]
fn one_that_the_vault_lost_itself_does_not_come_back_when_it_was_removed_from_there() {
    let it = doubted();
    it.vault.lose(&it.name_in_vault());
    it.look();
    assert_eq!(it.store.vaults_of(&it.row()).unwrap(), [it.no()]);
    it.store.remove_point_from_vault(it.no(), &it.row()).unwrap();
    it.goes_from_here();
    assert!(it.store.points().unwrap().is_empty());
    let (_dir, there) = recovered(&it.home, &it.vault);
    assert!(there.points().unwrap().is_empty());
}

/// A point that is whole in a vault.
fn vaulted() -> Doubted {
    let it = doubted();
    push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
    assert_eq!(it.told(), (true, 1, 0));
    it
}

#[test]
fn a_check_that_misses_it_there_notes_that() {
    let it = vaulted();
    it.vault.lose(&it.name_in_vault());
    for _ in 0..2 {
        let found = check::check(&it.store, Depth::Structure, &VoidMonitor).unwrap().findings;
        let is_it = |f: &&check::Finding| f.detail.ends_with("the recovery point is missing");
        assert_eq!(found.iter().filter(is_it).count(), 1, "{found:?}");
        assert_eq!(it.told(), (true, 0, 1));
    }
}

#[test]
fn a_check_notes_also_of_what_no_place_has_any_more_that_the_vault_lacks_it() {
    for kind in [PackKind::Data, PackKind::Tree] {
        let it = vaulted();
        let packs = it.store.catalog().packs().unwrap();
        for name in packs.iter().filter(|row| row.entry.kind == kind).map(|row| names::pack(&row.entry.id)) {
            it.vault.lose(&name);
            std::fs::remove_file(it.home.path().join(name.as_str())).unwrap();
        }
        let store = it.home.open_with(&it.vault);
        drop(store.begin(Compression::None, &VoidMonitor).unwrap());
        let found = check::check(&store, Depth::Structure, &VoidMonitor).unwrap().findings;
        assert!(!found.is_empty());
        assert_eq!(store.points().unwrap()[0].incomplete.len(), 1, "{kind:?}");
    }
}

#[test]
fn what_an_upload_put_there_and_did_not_live_to_note_is_missed_when_it_is_not_whole() {
    let (damaged, lacking) = (vaulted(), vaulted());
    let mut object = damaged.vault.object(&damaged.name_in_vault()).unwrap().to_vec();
    object.truncate(object.len() - 8);
    damaged.vault.replace(&damaged.name_in_vault(), object.into());
    lacking.vault.lose(&lacking.lost);
    for it in [damaged, lacking] {
        it.store.catalog().remove_point(&it.one.point.id, Some(it.no())).unwrap();
        assert_eq!(it.told(), (true, 0, 0));
        check::check(&it.store, Depth::Structure, &VoidMonitor).unwrap();
        assert_eq!(it.told(), (true, 0, 1));
        push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
        assert_eq!(it.told(), (true, 1, 0));
        it.assert_whole_in_vault();
    }
}

#[test]
fn what_a_vault_that_is_an_older_one_does_not_show_is_not_there() {
    let it = vaulted();
    let packs = vec![(PackId([7; 32]), 1)];
    let condemned = Generation { number: 1, step: Step::Condemned, packs };
    let name = condemned.name().name();
    it.vault.replace(&name, condemned.seal(it.store.sealer()).into());
    it.look();
    it.vault.lose(&name);
    it.vault.lose(&it.name_in_vault());
    let (no, _, way) = it.store.vaults()[0].clone();
    copy::refresh_vault(&it.store, no, &way, &VoidMonitor).unwrap_err();
    assert_eq!(it.told(), (true, 0, 1));
}

#[test]
fn one_that_was_to_go_from_a_vault_that_is_an_older_one_is_forgotten_there() {
    let it = vaulted();
    let condemned = Generation { number: 1, step: Step::Condemned, packs: vec![(PackId([7; 32]), 1)] };
    let name = condemned.name().name();
    it.vault.replace(&name, condemned.seal(it.store.sealer()).into());
    it.look();
    it.store.catalog().set_mark(Mark::Going(Some(it.no()), it.one.point.id), true).unwrap();
    it.vault.lose(&name);
    it.vault.lose(&it.name_in_vault());
    let (no, _, way) = it.store.vaults()[0].clone();
    copy::refresh_vault(&it.store, no, &way, &VoidMonitor).unwrap_err();
    assert_eq!(it.told(), (true, 0, 0));
    assert!(it.vault.object(&it.name_in_vault()).is_some(), "the word that it is forgotten");
}

#[test]
fn a_damaged_pack_puts_in_doubt_what_may_rely_on_it_also_when_it_is_to_go() {
    for is_condemned in [false, true] {
        let it = vaulted();
        // Staging has it whole, and no other pack of the vault has what is in it.
        let row = data_packs(&it.store).remove(0);
        it.store.catalog().set_mark(Mark::BadIn(it.no(), row.entry.id), true).unwrap();
        if is_condemned {
            let packs = vec![(row.entry.id, row.entry.len)];
            let condemned = Generation { number: 1, step: Step::Condemned, packs };
            it.vault.replace(&condemned.name().name(), condemned.seal(it.store.sealer()).into());
        }
        it.look();
        assert_eq!(it.told(), (true, 0, 1), "{is_condemned}");
    }
}

#[test]
fn what_is_missing_in_a_vault_that_is_taken_as_it_is_is_sent_again() {
    let it = vaulted();
    it.look();
    it.vault.lose(&it.name_in_vault());
    let accepted = it.store.accept_vault(it.no(), &VoidMonitor).unwrap();
    assert!(accepted.lost.iter().map(|lost| (lost.id, lost.is_elsewhere)).eq([(it.one.point.id, true)]));
    assert_eq!(it.told(), (true, 0, 1));
    push(&it.store, &it.one, &RecordingMonitor::default()).unwrap();
    it.assert_whole_in_vault();
}

#[test]
fn a_vault_to_which_there_is_no_way_lacks_it_still() {
    let it = doubted();
    let Doubted { home, store, one, .. } = it;
    let no = store.vaults()[0].0;
    drop(store);
    let store = home.open();
    assert_eq!(store.vaults_of(&store.catalog().point(&one.point.id).unwrap().unwrap()).unwrap(), [no]);
    assert_eq!(store.point(&one.point.id).unwrap().incomplete, ["memory:v"]);
}

#[test]
fn a_catalog_that_is_made_anew_has_it_from_the_memory_of_the_vault() {
    let it = vaulted();
    it.vault.lose(&it.name_in_vault());
    it.look();
    let Doubted { home, vault, store, one, .. } = it;
    drop(store);
    delete_catalog(&home.path());
    let store = home.open_with(&vault);
    let (no, _, way) = store.vaults()[0].clone();
    copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
    let point = store.point(&one.point.id).unwrap();
    assert_eq!((point.local, point.vaults.len(), point.incomplete.len()), (true, 0, 1));
}

#[test]
fn what_one_vault_lost_comes_out_of_another_one_where_staging_has_it_damaged() {
    let home = Home::new();
    let vaults = [Arc::new(MemoryVault::new()), Arc::new(MemoryVault::new())];
    let ways = ["memory:v", "memory:w"].iter().zip(&vaults);
    let ways = ways.map(|(address, vault)| ((*address).to_owned(), transfer(vault))).collect();
    let store = Store::open(&home.path(), &home.ring, Home::options(ways), &VoidMonitor).unwrap();
    let slots = Store::head(&home.path()).unwrap().slots;
    let one = take_point(&store, &sample(1)).unwrap();
    for (no, _, way) in store.vaults() {
        copy::prepare_vault(&store, &slots, way).unwrap();
        copy::refresh_vault(&store, *no, way, &VoidMonitor).unwrap();
        copy::push_point(&store, *no, way, &one.point.id, &VoidMonitor).unwrap();
    }
    let lost = names::pack(&data_packs(&store).remove(0).entry.id);
    let here = home.path().join(lost.as_str());
    let whole = std::fs::read(&here).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&here, damaged).unwrap();
    vaults[0].lose(&lost);
    let (no, _, way) = &store.vaults()[0];
    copy::refresh_vault(&store, *no, way, &VoidMonitor).unwrap();
    assert_eq!(store.point(&one.point.id).unwrap().incomplete, ["memory:v"]);
    copy::push_point(&store, *no, way, &one.point.id, &VoidMonitor).unwrap();
    assert_eq!(vaults[0].object(&lost).unwrap(), whole);
    assert_eq!(store.point(&one.point.id).unwrap().incomplete, [""; 0]);
}
