//! Every kind of slot in every place, without a program around it.
#![allow(clippy::unwrap_used)]

use holdfast_store::seal::slots::{KdfParams, Secret};

use super::*;

const VAULT: VaultId = VaultId([7; 16]);

/// Two rings of one store: before and after a rotation.
fn rings() -> (KeyRing, KeyRing) {
    let old = KeyRing::generate(1);
    let mut new = old.clone();
    new.add_generation(2).unwrap();
    (old, new)
}

fn slot(ring: &KeyRing, secret: &Secret) -> (SlotId, Vec<u8>) {
    let bytes = KeySlot::create(&VAULT, ring, secret, "label", &KdfParams::floor(), 5).unwrap();
    (KeySlot::read(&bytes, &VAULT).unwrap().id, bytes)
}

fn head(slots: &[&(SlotId, Vec<u8>)]) -> (String, StoreHead) {
    let slots = slots.iter().map(|slot| (*slot).clone()).collect();
    ("a place".to_owned(), StoreHead { vault: VAULT, config: Vec::new(), slots })
}

fn at_hand(secrets: Vec<Secret>) -> Vec<AtHand> {
    secrets.into_iter().map(|secret| AtHand { secret, in_file: false, typed: true }).collect()
}

/// What becomes of slots, by their ids, in the order keep, remake, replaced, others, gone.
fn sorted(survey: &Survey, plan: &Plan) -> [Vec<SlotId>; 5] {
    let ids = |of: &[usize]| of.iter().map(|at| survey.slots[*at].id).collect();
    [ids(&plan.keep), ids(&plan.remake), ids(&plan.replaced), ids(&plan.others), ids(&plan.gone)]
}

fn plan(heads: &[(String, StoreHead)], secrets: Vec<Secret>, target: Target) -> (Survey, Plan) {
    let survey = Survey::of(heads, &VAULT, &at_hand(secrets)).unwrap();
    let plan = survey.plan(target, 9).unwrap();
    (survey, plan)
}

#[test]
fn a_new_generation_remakes_what_is_at_hand_and_lists_the_rest() {
    let (old, _) = rings();
    let (words, machine) = (Secret::new_recovery(), Secret::new_machine());
    let (one, two, other) = (slot(&old, &words), slot(&old, &machine), slot(&old, &Secret::new_machine()));
    let damaged = (SlotId([1; 16]), b"nothing".to_vec());
    let heads = [head(&[&one, &two, &other, &damaged]), head(&[&one, &other])];
    let (survey, plan) = plan(&heads, vec![words, machine], Target::Rotate);
    assert!(plan.is_new && plan.ring.has_all_of(&old) && plan.ring.newest() > old.newest());
    let [keep, mut remake, mut replaced, mut others, gone] = sorted(&survey, &plan);
    let (mut ours, mut theirs) = (vec![one.0, two.0], vec![other.0, damaged.0]);
    for list in [&mut remake, &mut replaced, &mut others, &mut ours, &mut theirs] {
        list.sort();
    }
    assert_eq!((keep, remake, replaced, others, gone), (vec![], ours.clone(), ours, theirs, vec![]));
}

#[test]
fn a_rotation_that_was_cut_off_goes_on_with_its_generation() {
    let (old, new) = rings();
    let (words, machine) = (Secret::new_recovery(), Secret::new_machine());
    let (before, after, left) = (slot(&old, &words), slot(&new, &words), slot(&old, &machine));
    let heads = [head(&[&before, &left]), head(&[&before, &after, &left])];
    let (survey, plan) = plan(&heads, vec![words, machine], Target::Rotate);
    assert!(!plan.is_new && plan.ring.newest() == new.newest());
    let [keep, remake, mut replaced, others, gone] = sorted(&survey, &plan);
    replaced.sort();
    let mut old_ones = vec![before.0, left.0];
    old_ones.sort();
    assert_eq!((keep, remake, replaced), (vec![after.0], vec![left.0], old_ones));
    assert_eq!((others, gone), (vec![], vec![]));
}

#[test]
fn slots_that_other_machines_removed_from_the_vaults_go_from_here_unasked() {
    let (old, new) = rings();
    let (words, machine) = (Secret::new_recovery(), Secret::new_machine());
    let (ours, theirs) = (slot(&old, &machine), slot(&new, &words));
    let (lost_words, elsewhere) = (slot(&old, &Secret::new_recovery()), slot(&new, &Secret::new_machine()));
    let heads = [head(&[&ours, &lost_words]), head(&[&theirs, &elsewhere])];
    let (survey, plan) = plan(&heads, vec![machine, words], Target::Refresh);
    let [mut keep, remake, replaced, others, gone] = sorted(&survey, &plan);
    keep.sort();
    let mut kept = vec![theirs.0, elsewhere.0];
    kept.sort();
    assert_eq!((keep, remake, replaced), (kept, vec![ours.0], vec![ours.0]));
    assert_eq!((others, gone), (vec![], vec![lost_words.0]));
    assert!(!plan.is_new);
}

#[test]
fn two_machines_that_rotated_at_once_come_together() {
    let (old, one) = rings();
    let mut two = old.clone();
    two.add_generation(3).unwrap();
    let (words, machine) = (Secret::new_recovery(), Secret::new_machine());
    let slots = [slot(&one, &words), slot(&two, &words), slot(&two, &machine)];
    // Of this one nobody can tell what it lacks: by its newest key it is as good as any.
    let unopened = slot(if one.newest() > two.newest() { &one } else { &two }, &Secret::new_recovery());
    let heads = [head(&slots.iter().chain([&unopened]).collect::<Vec<_>>())];
    let (survey, plan) = plan(&heads, vec![words, machine], Target::Rotate);
    assert!(plan.ring.has_all_of(&one) && plan.ring.has_all_of(&two) && plan.is_new);
    assert!(plan.ring.newest() > one.newest().max(two.newest()));
    assert_eq!((plan.keep.len(), plan.remake.len(), plan.replaced.len()), (0, 2, 3));
    assert_eq!(sorted(&survey, &plan)[3], [unopened.0]);
}

#[test]
fn a_generation_that_nothing_at_hand_opens_stops_it() {
    let (old, new) = rings();
    let machine = Secret::new_machine();
    let heads = [head(&[&slot(&old, &machine)]), head(&[&slot(&new, &Secret::new_recovery())])];
    let survey = Survey::of(&heads, &VAULT, &at_hand(vec![machine])).unwrap();
    for target in [Target::Rotate, Target::Refresh] {
        let failure = survey.plan(target, 9).err().unwrap();
        assert_eq!(failure.kind, Kind::WrongKey);
        assert!(failure.message.contains("nothing at hand opens"), "{failure:?}");
    }
    assert!(Survey::of(&heads, &VAULT, &at_hand(vec![Secret::new_machine()])).is_err());
}

#[test]
fn nothing_is_to_be_done_where_all_is_up_to_date() {
    let (_, new) = rings();
    let words = Secret::new_recovery();
    let heads = [head(&[&slot(&new, &words)])];
    let (_, plan) = plan(&heads, vec![words], Target::Refresh);
    assert!(!plan.is_new && plan.keep.len() == 1 && plan.remake.is_empty() && plan.replaced.is_empty());
}

#[test]
fn of_two_owners_the_one_who_is_believed_stays_and_nobody_chooses_among_strangers() {
    let (old, _) = rings();
    let owners = [1, 2].map(|seed| OwnerKey::from_seed([seed; 32]));
    let secret = |n: usize| Secret::Passphrase(format!("passphrase {n}").into());
    let slots = [0, 1].map(|n| slot(&old.clone().owned_by(owners[n].clone()), &secret(n)));
    let heads = [head(&[&slots[0], &slots[1]])];
    let survey = || Survey::of(&heads, &VAULT, &at_hand(vec![secret(0), secret(1)])).unwrap();
    for owner in &owners {
        let mut survey = survey();
        survey.settle_owner(Some(&owner.public())).unwrap();
        assert_eq!(survey.plan(Target::Rotate, 9).unwrap().ring.owner(), Some(owner));
    }
    let stranger = OwnerKey::from_seed([3; 32]).public();
    for pinned in [None, Some(&stranger)] {
        let hint = survey().settle_owner(pinned).unwrap_err().hint.unwrap();
        assert!(hint.contains("key own"), "{hint}");
    }
    // One owner is nobody's choice, whoever is believed.
    let mut one = Survey::of(&heads, &VAULT, &at_hand(vec![secret(0)])).unwrap();
    one.settle_owner(Some(&stranger)).unwrap();
    assert_eq!(one.ring.owner(), Some(&owners[0]));
}
