//! What keys come from: the config, key slots, the machine key file and credential, the recovery sheet's words and code.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;

use holdfast_store::format::ObjectKind;
use holdfast_store::format::config::StoreConfig;
use holdfast_store::id::{ObjectId, SlotId};
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::{RecoverySheet, parse_code, parse_words, rows_of_words, words_of};
use holdfast_store::seal::slots::{KeySlot, Secret, SlotKind};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::forge::{GENERATION, Input, OBJECT, SEALER, VAULT, header, seal, seal_inner};

const SECRET: [u8; 32] = [0x5a; 32];

/// A config: the bytes as they are; the plain part with its checksum made right, around a content that may repeat it.
pub fn config(data: &[u8]) {
    let _ = (StoreConfig::peek(data), StoreConfig::decode(data, &SEALER));
    let mut input = Input(data);
    let way = input.u8();
    let mut plain = input.take(124).to_vec();
    plain.resize(124, 0);
    if way & 1 == 0 {
        plain[..16].copy_from_slice(&VAULT.0);
        plain[16..20].fill(0);
    }
    let mut content = input.0.to_vec();
    if way & 2 == 0 {
        content.truncate(34);
        content.extend(&plain);
    }
    let mut bytes = header(ObjectKind::Config, OBJECT);
    bytes.extend(&plain);
    bytes.extend(crc32c::crc32c(&plain).to_le_bytes());
    seal(&mut bytes, holdfast_store::seal::BlockKind::Config, OBJECT, &content);
    let peeked = StoreConfig::peek(&bytes);
    let Ok(config) = StoreConfig::decode(&bytes, &SEALER) else { return };
    let peeked = peeked.expect("what is read with a key is read without one");
    assert_eq!((peeked.vault_id, peeked.created), (config.vault_id, config.created));
    let again = config.encode(&SEALER).expect("what was read can be written");
    assert_eq!(StoreConfig::decode(&again, &SEALER), Ok(config));
}

/// A key slot: the bytes as they are; and fields and ring of any kind behind the right commitment, for a secret that is known.
pub fn slot(data: &[u8]) {
    let _ = KeySlot::read(data, &VAULT);
    let mut input = Input(data);
    let way = input.u8();
    let kind = if way & 1 == 0 { 2 } else { 3 };
    let mut fields = input.take(80).to_vec();
    fields.resize(80, 0);
    if way & 2 == 0 {
        // Kind, derivation, costs and store as they must be: the ring decides.
        fields[..16].copy_from_slice(&[kind, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        fields[56..72].copy_from_slice(&VAULT.0);
    }
    let bytes = forged_slot(kind, &fields, input.0);
    let Ok(said) = KeySlot::read(&bytes, &VAULT) else { return };
    // Opening a passphrase slot takes a second by design.
    if said.kind == SlotKind::Passphrase {
        return assert!(said.params.is_some());
    }
    let key = Zeroizing::new(SECRET);
    let secret = if kind == 2 { Secret::Recovery(key) } else { Secret::Machine(key) };
    let Ok((ring, label)) = KeySlot::open(&bytes, &VAULT, &secret) else { return };
    assert!(ring.generations().is_sorted() && ring.newest() >= 1);
    assert!(said.newest() == ring.newest() || fields[72..76] == [0; 4]);
    if label.len() > 255 {
        return;
    }
    let params = holdfast_store::seal::slots::KdfParams::floor();
    let again =
        KeySlot::create(&VAULT, &ring, &secret, &label, &params, said.created).expect("a ring that was read");
    let (ring_again, label_again) = KeySlot::open(&again, &VAULT, &secret).expect("a slot that was made");
    assert_eq!((ring_again.newest(), label_again), (ring.newest(), label));
    assert!(ring_again.has_all_of(&ring) && ring.has_all_of(&ring_again));
}

fn forged_slot(kind: u8, fields: &[u8], content: &[u8]) -> Vec<u8> {
    let object =
        holdfast_store::format::Header { kind: ObjectKind::KeySlot, object_id: OBJECT, generation: 0 };
    let mut out = object.encode(&VAULT).to_vec();
    out.extend(fields);
    let word = if kind == 2 { "recovery" } else { "machine" };
    let salt = &out[88..120];
    let key = blake3::derive_key(&format!("holdfast v1 slot {word}"), &[&SECRET[..], salt].concat());
    let check = blake3::derive_key("holdfast v1 slot check", &key);
    let commitment = blake3::keyed_hash(&check, &out);
    out.extend(commitment.as_bytes());
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    let len = (content.len() as u32).to_le_bytes();
    let inner = [&[0; 4][..], &len, &len, content].concat();
    let sealing = blake3::derive_key("holdfast v1 slot seal", &key);
    let block = seal_inner(&sealing, ObjectId(OBJECT.0), 12, 0, out.len() as u64, &inner);
    out.extend(block);
    out
}

thread_local! {
    static CREDENTIAL: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new().expect("a temporary file"));
}

/// The machine key, as text and as what the service manager hands over.
pub fn machine(data: &[u8]) {
    let from_file = CREDENTIAL.with_borrow_mut(|file| {
        let mut there = File::create(file.path()).expect("the temporary file");
        there.write_all(data).expect("a short file");
        MachineKey::read_credential(file.path())
    });
    let text = std::str::from_utf8(data).ok();
    let Some(Ok(key)) = text.map(MachineKey::parse) else { return assert!(from_file.is_err()) };
    assert_eq!(from_file.is_ok(), data.len() <= 256);
    assert!(MachineKey::parse(&key.encode()).as_ref() == Ok(&key));
}

/// What a person types or a camera reads off the sheet.
pub fn sheet(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = rows_of_words(&text);
    if let Ok(Secret::Recovery(key)) = parse_words(&text) {
        let again = parse_words(&words_of(&key).join(" "));
        assert!(matches!(again, Ok(Secret::Recovery(again)) if again == key));
    }
    let Some(Ok(code)) = parse_code(&text) else { return };
    assert!(code.addresses.len() <= 64);
    let Secret::Recovery(key) = code.secret else { panic!("a sheet has a recovery key") };
    let sheet = RecoverySheet {
        vault: code.vault,
        addresses: code.addresses.clone(),
        key: key.clone(),
        created: GENERATION.into(),
        slot: SlotId([1; 16]),
    };
    let line = sheet.code();
    assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", *line);
    let again = parse_code(&line).expect("it begins as a code").expect("a code that was made");
    // An address that is empty has no place in a line of words.
    if code.addresses.iter().all(|address| !address.is_empty()) {
        assert_eq!(again.addresses, code.addresses);
    }
    assert_eq!(again.vault, code.vault);
    let _ = sheet.render();
}
