//! Slots: round trips, every wrong secret, every flipped bit, hostile fields.
#![allow(clippy::unwrap_used)]

use super::*;

const VAULT: VaultId = VaultId([7; 16]);

fn passphrase(text: &str) -> Secret {
    Secret::Passphrase(Zeroizing::new(text.to_owned()))
}

fn slot(secret: &Secret) -> Vec<u8> {
    KeySlot::create(
        &VAULT,
        &KeyRing::fixed([0x42; 32]),
        secret,
        "on paper",
        &KdfParams::floor(),
        1_700_000_000,
    )
    .unwrap()
}

fn error(bytes: &[u8], secret: &Secret) -> SlotError {
    KeySlot::open(bytes, &VAULT, secret).unwrap_err()
}

/// Sets a byte before the checksum and makes the checksum right again, as an attacker would.
fn forged(bytes: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    let header_crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&header_crc);
    let crc = crc32c::crc32c(&bytes[..CHECKED_LEN]).to_le_bytes();
    bytes[CHECKED_LEN..BLOCK_AT].copy_from_slice(&crc);
    bytes
}

#[test]
fn every_kind_of_slot_opens_to_its_ring_and_label() {
    for secret in [passphrase("pässword 1"), Secret::new_recovery(), Secret::new_machine()] {
        let bytes = slot(&secret);
        let told = KeySlot::read(&bytes, &VAULT).unwrap();
        assert_eq!((told.kind, told.created), (secret.kind(), 1_700_000_000));
        assert_eq!(told.params.is_some(), told.kind == SlotKind::Passphrase);
        let (ring, label) = KeySlot::open(&bytes, &VAULT, &secret).unwrap();
        assert_eq!((ring.key(1), ring.newest(), label.as_str()), (Some(&[0x42; 32]), 1, "on paper"));
    }
}

#[test]
fn a_slot_carries_all_generations() {
    let mut ring = KeyRing::generate(1);
    for now in 2..=40 {
        ring.add_generation(now).unwrap();
    }
    let secret = Secret::new_machine();
    let bytes = KeySlot::create(&VAULT, &ring, &secret, "", &KdfParams::floor(), 0).unwrap();
    let (back, label) = KeySlot::open(&bytes, &VAULT, &secret).unwrap();
    assert_eq!((back.newest(), back.generations().count(), label.as_str()), (ring.newest(), 40, ""));
    assert!(ring.generations().all(|g| back.key(g) == ring.key(g) && back.created(g) == ring.created(g)));
    assert_eq!(KeySlot::read(&bytes, &VAULT).unwrap().newest(), ring.newest());
}

#[test]
fn a_slot_tells_everybody_its_newest_generation_and_what_opens_it_proves_that() {
    let mut ring = KeyRing::generate(1);
    ring.add_generation(2).unwrap();
    let secret = Secret::new_machine();
    let bytes = KeySlot::create(&VAULT, &ring, &secret, "", &KdfParams::floor(), 0).unwrap();
    assert_eq!(KeySlot::read(&bytes, &VAULT).unwrap().newest(), ring.newest());
    // Whoever writes another number and a right checksum is found out by who has the secret.
    let mut forged = bytes.clone();
    forged[136..140].copy_from_slice(&1_u32.to_le_bytes());
    let crc = crc32c::crc32c(&forged[..CHECKED_LEN]);
    forged[CHECKED_LEN..BLOCK_AT].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(KeySlot::read(&forged, &VAULT).unwrap().newest(), 1);
    assert_eq!(error(&forged, &secret), SlotError::WrongKey(SlotKind::Machine));
}

#[test]
fn a_slot_that_was_cut_reads_as_damaged_unless_whole_steps_of_its_block_are_left() {
    let bytes = slot(&Secret::new_recovery());
    let reads = (0..bytes.len()).filter(|len| KeySlot::read(&bytes[..*len], &VAULT).is_ok());
    assert_eq!(reads.collect::<Vec<_>>(), [BLOCK_AT + BLOCK_STEP]);
}

#[test]
fn a_wrong_secret_is_a_wrong_key_and_another_kind_is_named() {
    let bytes = slot(&passphrase("right"));
    assert_eq!(error(&bytes, &passphrase("wrong")), SlotError::WrongKey(SlotKind::Passphrase));
    assert_eq!(error(&bytes, &passphrase("")), SlotError::WrongKey(SlotKind::Passphrase));
    let bytes = slot(&Secret::new_recovery());
    assert_eq!(error(&bytes, &Secret::new_recovery()), SlotError::WrongKey(SlotKind::Recovery));
    let given = SlotKind::Machine;
    let slot = SlotKind::Recovery;
    assert_eq!(error(&bytes, &Secret::new_machine()), SlotError::WrongKind { slot, given });
}

#[test]
fn a_recovery_key_and_a_machine_key_of_equal_bytes_are_different_keys() {
    let (salt, same) = ([1; 32], [5; 32]);
    let recovery = Secret::Recovery(Zeroizing::new(same)).slot_key(&salt, None).unwrap();
    let machine = Secret::Machine(Zeroizing::new(same)).slot_key(&salt, None).unwrap();
    assert_ne!(recovery, machine);
}

fn is_damage(error: &SlotError) -> bool {
    matches!(error, SlotError::Damaged(_) | SlotError::NotOurs(_) | SlotError::TooNew(_))
}

#[test]
fn every_flipped_bit_of_a_slot_is_damage_and_never_a_wrong_key() {
    let secret = Secret::new_recovery();
    let bytes = slot(&secret);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = error(&bad, &secret);
        assert!(is_damage(&error), "bit {bit}: {error:?}");
    }
    for len in (0..bytes.len()).chain([bytes.len() + 1, bytes.len() + 64, SLOT_MAX + 52]) {
        let mut bad = bytes.clone();
        bad.resize(len, 0);
        let error = error(&bad, &secret);
        assert!(is_damage(&error), "length {len}: {error:?}");
    }
}

#[test]
fn a_damaged_passphrase_slot_is_seen_before_any_work_or_by_its_seal() {
    let secret = passphrase("right");
    let bytes = slot(&secret);
    for bit in (0..BLOCK_AT * 8).chain([BLOCK_AT * 8, bytes.len() * 8 - 1]) {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = error(&bad, &secret);
        assert!(is_damage(&error), "bit {bit}: {error:?}");
    }
}

#[test]
fn forged_fields_are_refused_before_any_work() {
    let bytes = slot(&passphrase("right"));
    let secret = passphrase("right");
    let cases: [(&str, usize, &[u8], &str); 6] = [
        ("4 TiB of memory", 68, &u32::MAX.to_le_bytes(), "Damaged"),
        ("no passes", 72, &[0, 0, 0, 0], "Damaged"),
        ("2^24 lanes", 76, &[0, 0, 0, 1], "Damaged"),
        ("a kind of tomorrow", 64, &[9], "TooNew"),
        ("a derivation of tomorrow", 65, &[9], "TooNew"),
        ("another store", 120, &[8; 16], "NotOurs"),
    ];
    for (what, at, value, wanted) in cases {
        let error = error(&forged(&bytes, at, value), &secret);
        assert!(format!("{error:?}").starts_with(wanted), "{what}: {error:?}");
    }
}

#[test]
fn a_forged_field_that_stays_in_bounds_breaks_the_commitment() {
    let secret = Secret::new_machine();
    let bytes = slot(&secret);
    for at in [66, 80, 88, 119, 136, 144] {
        let value = [bytes[at] ^ 1];
        assert_eq!(
            error(&forged(&bytes, at, &value), &secret),
            SlotError::WrongKey(SlotKind::Machine),
            "byte {at}"
        );
    }
}

#[test]
fn a_slot_of_another_store_is_not_ours() {
    let bytes = slot(&Secret::new_machine());
    let result = KeySlot::open(&bytes, &VaultId([8; 16]), &Secret::new_machine());
    assert!(matches!(result, Err(SlotError::NotOurs(_))));
}

#[test]
fn two_slots_of_one_secret_share_nothing() {
    let secret = Secret::new_machine();
    let (a, b) = (slot(&secret), slot(&secret));
    assert_ne!(KeySlot::read(&a, &VAULT).unwrap().id, KeySlot::read(&b, &VAULT).unwrap().id);
    assert_ne!(a[88..120], b[88..120], "salts");
    assert_ne!(a[144..176], b[144..176], "commitments");
    assert!(!a.windows(32).any(|w| w == [0x42; 32]), "the master key lies open");
}

#[test]
fn errors_keep_their_class_on_the_way_up() {
    use crate::error::ErrorClass as C;
    let cases = [
        (SlotError::WrongKey(SlotKind::Recovery), C::WrongKey),
        (SlotError::WrongKind { slot: SlotKind::Recovery, given: SlotKind::Machine }, C::WrongKey),
        (SlotError::Damaged("x".into()), C::Corrupt),
        (SlotError::TooNew("x".into()), C::Unsupported),
        (SlotError::NotOurs("x".into()), C::Unsupported),
        (SlotError::LabelTooLong, C::Invalid),
    ];
    for (error, class) in cases {
        assert_eq!(error.clone().of("keys/00").class(), class, "{error:?}");
    }
}

#[test]
fn a_label_that_is_too_long_is_refused() {
    let made = KeySlot::create(
        &VAULT,
        &KeyRing::fixed([1; 32]),
        &Secret::new_machine(),
        &"x".repeat(LABEL_MAX + 1),
        &KdfParams::floor(),
        0,
    );
    assert_eq!(made, Err(SlotError::LabelTooLong));
}

#[test]
fn a_printed_secret_shows_nothing() {
    assert_eq!(format!("{:?}", passphrase("hunter2")), "Secret(passphrase)");
    assert_eq!(format!("{:?}", Secret::new_recovery()), "Secret(recovery key)");
}

/// Slots that another program made from `docs/format.md`, with other libraries.
const PASSPHRASE_SLOT: &str = concat!(
    "484f4c444641535402010100000000001660d5d54bd39c5892a4b685bb60606b09090909090909090909090909090909",
    "00000000000000000000000005a6200c0101000000000100030000000400000000f15365000000000001020304050607",
    "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f070707070707070707070707070707070000000000000000",
    "a1b1ca7a6001b9c9b5bf4864a94c2c54abdc81a470a6b00cc0141e8a105ea7a462084b5b000102030405060708090a0b",
    "0c0d0e0f1011121314151617ad02cae289106db757b777dded5ad077de2320f950f122c5c341660201a49c8d3390e93d",
    "c45dfed1aaef90433e550ad5e3dce8e57a2502856ca256c1692a427e81a47867a5c0e5734b169d3c363251e310b4e03d",
    "664fbd9f68961a94b6e88b5fc41982c48ab54f43",
);
const RECOVERY_SLOT: &str = concat!(
    "484f4c444641535402010100000000001660d5d54bd39c5892a4b685bb60606b09090909090909090909090909090909",
    "00000000000000000000000005a6200c0202000000000000000000000000000000f15365000000000001020304050607",
    "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f070707070707070707070707070707070000000000000000",
    "eebccc8e70c0d4fb60e65107bc0c81758cd38c194d27a97048879b2864a46f7712465201000102030405060708090a0b",
    "0c0d0e0f1011121314151617ee0be74a2e99782866da633ef57333144fed9198026d564123557cbec61749a51b0f2b17",
    "fdfd1e496bbeade3ae037ee83d88d94fe32969223a3153774ed9d783634f72525a627de5f63ca3586e8d80d7acf865a8",
    "c8e1f759866d7b94bc1e40d330cbadc7a814e006",
);
const MACHINE_SLOT: &str = concat!(
    "484f4c444641535402010100000000001660d5d54bd39c5892a4b685bb60606b09090909090909090909090909090909",
    "00000000000000000000000005a6200c0302000000000000000000000000000000f15365000000000001020304050607",
    "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f070707070707070707070707070707070000000000000000",
    "6de88d09f39b468d28bf6fccea5a7736fb3f45cf5e9cf3951f42a5bf7af006e76cab95d1000102030405060708090a0b",
    "0c0d0e0f10111213141516171d0f607ffea4469e791d604704d0453e16c158332292bd070f0acea0b52ba41f1644840b",
    "b927b3bd86af96f0575ec178f35060af7553365a981927f3b287e03f5158b446209370f9b6078982e885b3bc222ae06a",
    "224eef960c5ce9682a475068e6223bda0a240db1",
);

#[test]
fn slots_that_another_implementation_made_open() {
    let key = || Zeroizing::new([0x5a; 32]);
    let slots = [
        (PASSPHRASE_SLOT, passphrase("correct horse")),
        (RECOVERY_SLOT, Secret::Recovery(key())),
        (MACHINE_SLOT, Secret::Machine(key())),
    ];
    for (hex, secret) in slots {
        let bytes = crate::id::from_hex(hex).unwrap();
        let (ring, label) = KeySlot::open(&bytes, &VAULT, &secret).unwrap();
        assert_eq!((ring.key(1), label.as_str()), (Some(&[0x42; 32]), "golden"), "{secret:?}");
    }
}

#[test]
fn slots_of_people_have_the_owners_key_and_say_so_and_no_slot_of_a_machine_has_it() {
    let owner = OwnerKey::generate();
    let ring = KeyRing::generate(1).owned_by(owner.clone());
    for secret in [passphrase("a passphrase"), Secret::new_recovery()] {
        for (ring, has_it) in [(&ring, true), (&KeyRing::generate(1), false)] {
            let bytes = KeySlot::create(&VAULT, ring, &secret, "label", &KdfParams::floor(), 5).unwrap();
            assert_eq!(KeySlot::read(&bytes, &VAULT).unwrap().has_owner, has_it);
            let (back, label) = KeySlot::open(&bytes, &VAULT, &secret).unwrap();
            assert_eq!((back.owner(), label.as_str()), (has_it.then_some(&owner), "label"));
        }
    }
    let machine = Secret::new_machine();
    let bytes = KeySlot::create(&VAULT, &ring, &machine, "label", &KdfParams::floor(), 5).unwrap();
    assert!(!KeySlot::read(&bytes, &VAULT).unwrap().has_owner);
    let (back, _) = KeySlot::open(&bytes, &VAULT, &machine).unwrap();
    assert_eq!((back.owner(), back.key(1)), (None, ring.key(1)));
    // Rings that come together have the owner of the first that has one.
    let mut merged = back;
    merged.merge(&ring).unwrap();
    assert_eq!(merged.owner(), Some(&owner));
    let other = KeyRing::fixed(*ring.key(1).unwrap()).owned_by(OwnerKey::generate());
    merged.merge(&other).unwrap();
    assert_eq!(merged.owner(), Some(&owner));
}

#[test]
fn what_is_sealed_into_a_slot_fills_the_room_that_was_made_for_it_and_leaves_nothing_elsewhere_in_memory() {
    let mut ring = KeyRing::generate(1).owned_by(OwnerKey::generate());
    for now in 2..=9 {
        ring.add_generation(now).unwrap();
        for label in ["", "on paper", &"x".repeat(LABEL_MAX)] {
            let content = encode_content(&ring, label, SlotKind::Recovery);
            assert_eq!(content.capacity(), content.len(), "{now} generations, label {label:?}");
            let (back, read) = decode_content(&content, SlotKind::Recovery).unwrap();
            assert_eq!((back.owner(), back.newest(), read.as_str()), (ring.owner(), ring.newest(), label));
        }
    }
    // The key of an owner is all that may be missing in it.
    let of_machine = encode_content(&ring, "", SlotKind::Machine);
    assert_eq!(of_machine.capacity() - of_machine.len(), SEED_LEN);
}

#[test]
fn the_longest_label_comes_back() {
    let label = "x".repeat(LABEL_MAX);
    let (secret, ring) = (Secret::new_machine(), KeyRing::fixed([1; 32]));
    let made = KeySlot::create(&VAULT, &ring, &secret, &label, &KdfParams::floor(), 0).unwrap();
    assert_eq!(KeySlot::open(&made, &VAULT, &secret).unwrap().1, label);
}
