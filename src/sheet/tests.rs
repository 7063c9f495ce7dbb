//! The page is read by programs of others: one for PDF, one for square codes.
#![allow(clippy::unwrap_used)]

use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::sheet::{parse_code, words_of};
use holdfast_store::seal::slots::Secret;
use lopdf::content::Operation;
use lopdf::{Document, Object};

use super::*;

/// Pixels for a point of the page.
const SCALE: f32 = 4.0;

fn sheet(addresses: &[String]) -> RecoverySheet {
    RecoverySheet {
        vault: VaultId([7; 16]),
        addresses: addresses.to_vec(),
        key: Zeroizing::new([0x5a; 32]),
        created: 1_795_176_000,
        slot: SlotId([9; 16]),
    }
}

fn operations(pdf: &[u8]) -> Vec<Operation> {
    let document = Document::load_mem(pdf).unwrap();
    let pages = document.get_pages();
    assert_eq!(pages.len(), 1);
    document.get_and_decode_page_content(pages[&1]).unwrap().operations
}

/// What is painted on the page, in grey.
fn painted(operations: &[Operation]) -> (usize, usize, Vec<u8>) {
    let (width, height) = ((595.0 * SCALE) as usize, (842.0 * SCALE) as usize);
    let mut pixels = vec![255; width * height];
    for operation in operations.iter().filter(|operation| operation.operator == "re") {
        let number = |at: usize| operation.operands[at].as_float().unwrap() * SCALE;
        let (x, y, w, h) = (number(0), number(1), number(2), number(3));
        assert!(x >= 0.0 && y >= 0.0, "it is off the page");
        let top = height as f32 - y - h;
        for row in top.round() as usize..(top + h).round() as usize {
            for column in x.round() as usize..(x + w).round() as usize {
                pixels[row * width + column] = 0;
            }
        }
    }
    (width, height, pixels)
}

fn code_on(pdf: &[u8]) -> String {
    let (width, height, pixels) = painted(&operations(pdf));
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * width + x]);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1);
    grids[0].decode().unwrap().1
}

#[test]
fn the_code_on_the_page_says_all_that_a_recovery_needs() {
    let addresses = ["azure://account/name".to_owned(), "/mnt/my disk/vault".to_owned()];
    for addresses in [&addresses[..], &[]] {
        let sheet = sheet(addresses);
        let code = parse_code(&code_on(&page::pdf(&sheet).unwrap())).unwrap().unwrap();
        assert_eq!((code.vault, code.addresses.as_slice()), (sheet.vault, addresses));
        assert!(matches!(code.secret, Secret::Recovery(key) if *key == *sheet.key));
    }
}

#[test]
fn the_page_has_every_line_of_the_text() {
    let sheet = sheet(&["azure://account/name".to_owned()]);
    let shown = operations(&page::pdf(&sheet).unwrap()).into_iter().filter(|o| o.operator == "Tj");
    let line = |operation: Operation| match &operation.operands[0] {
        Object::String(bytes, _) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let shown: Vec<String> = shown.map(line).collect();
    assert_eq!(shown[..shown.len() - 2].join("\n"), sheet.render().trim_end_matches('\n'));
    assert!(words_of(&sheet.key).iter().all(|word| shown.iter().any(|line| line.contains(word))));
}

#[test]
fn long_addresses_are_broken_and_too_long_ones_refused_with_the_way_out() {
    let long = format!("/mnt/{}", "long-".repeat(60));
    let pdf = page::pdf(&sheet(std::slice::from_ref(&long))).unwrap();
    assert_eq!(parse_code(&code_on(&pdf)).unwrap().unwrap().addresses, [long]);
    let failure = page::pdf(&sheet(&["/x".repeat(3000)])).unwrap_err();
    assert!(failure.message.contains("too long") && failure.hint.unwrap().contains(".pdf"));
}

#[test]
fn a_sheet_is_for_its_owner_and_never_replaces_a_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, begins) in [("sheet.txt", &b"HOLDFAST RECOVERY SHEET"[..]), ("sheet.PDF", b"%PDF-1.")] {
        let path = dir.path().join(name);
        let file = SheetFile::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        file.write(&sheet(&[])).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(begins), "{name}");
        let failure = SheetFile::create(&path).err().unwrap();
        assert!(failure.message.contains("exists"), "{failure:?}");
    }
}

#[test]
fn the_empty_file_of_a_run_that_was_killed_is_taken_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("sheet.txt"), dir.path().join("link"));
    std::mem::forget(SheetFile::create(&path).unwrap());
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(SheetFile::create(&link).is_err());
    SheetFile::create(&path).unwrap().write(&sheet(&[])).unwrap();
    assert!(std::fs::read(&path).unwrap().len() > 1000);
    let shared = dir.path().join("shared");
    std::fs::write(&shared, "").unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(SheetFile::create(&shared).is_err(), "others could read it");
}

#[test]
fn a_sheet_that_was_never_written_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sheet.txt");
    drop(SheetFile::create(&path).unwrap());
    assert!(!path.exists());
}
