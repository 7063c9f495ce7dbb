//! The page and its words: what is printed is read back however it is typed, and what is wrong is named.
#![allow(clippy::unwrap_used)]

use super::*;

fn sheet() -> RecoverySheet {
    RecoverySheet {
        vault: VaultId([7; 16]),
        addresses: vec!["/mnt/disk/vault".into(), "azure://account/vault".into()],
        key: Zeroizing::new([0x5a; 32]),
        created: 1_795_219_200,
        slot: SlotId([9; 16]),
    }
}

fn key(typed: &str) -> Result<[u8; 32], WordsError> {
    match parse_words(typed)? {
        Secret::Recovery(key) => Ok(*key),
        other => panic!("{other:?}"),
    }
}

fn phrase() -> String {
    words_of(&[0x5a; 32]).join(" ")
}

#[test]
fn words_are_those_of_bip_39() {
    // The vectors that come with BIP-39: 32 bytes of 0 and of 0xff.
    assert_eq!(words_of(&[0; 32]).join(" "), "abandon ".repeat(23) + "art");
    assert_eq!(words_of(&[0xff; 32]).join(" "), "zoo ".repeat(23) + "vote");
    assert_eq!(key(&("abandon ".repeat(23) + "art")), Ok([0; 32]));
}

#[test]
fn each_word_has_its_number_before_it() {
    let page = sheet().render();
    let rows = page.split("THE 24 WORDS").nth(1).unwrap().split("ON THE WORST DAY").next().unwrap();
    let found: Vec<&str> = rows.split_whitespace().collect();
    for (n, word) in (1..).zip(words_of(&[0x5a; 32])) {
        let number = n.to_string();
        assert!(found.windows(2).any(|pair| pair == [number.as_str(), word]), "{n} {word}: {rows}");
    }
}

#[test]
fn the_words_survive_the_page_and_every_way_of_typing() {
    let page = sheet().render();
    let rows = page.split("THE 24 WORDS").nth(1).unwrap().split("ON THE WORST DAY").next().unwrap();
    let short: Vec<String> = words_of(&[0x5a; 32]).iter().map(|w| w.chars().take(4).collect()).collect();
    let glued: Vec<String> = short.iter().enumerate().map(|(i, w)| format!("{}.{w}", i + 1)).collect();
    let typed =
        [rows.to_owned(), phrase(), phrase().to_uppercase(), short.join(",\n\t "), glued.join("\r\n")];
    for text in typed {
        assert_eq!(key(&text), Ok([0x5a; 32]), "{text:?}");
    }
}

#[test]
fn every_word_of_the_list_is_found_by_itself_and_by_four_letters() {
    for word in Language::English.word_list() {
        assert_eq!(complete(word, 1), Ok(*word));
        assert_eq!(complete(&word[..word.len().min(4)], 1), Ok(*word));
    }
}

#[test]
fn a_wrong_word_is_named_with_its_position() {
    let mut words = words_of(&[0x5a; 32]);
    words[6] = "abandoned";
    let error = key(&words.join(" ")).unwrap_err();
    assert!(matches!(&error, WordsError::Unknown { position: 7, .. }), "{error:?}");
    assert_eq!(error.to_string(), "word 7 (\"abandoned\") is not a recovery word; did you mean abandon?");
    words[6] = "xqz";
    assert_eq!(key(&words.join(" ")).unwrap_err().to_string(), "word 7 (\"xqz\") is not a recovery word");
    words[6] = "aba";
    assert!(matches!(key(&words.join(" ")), Err(WordsError::Unknown { position: 7, .. })));
    words[6] = "žluťoučký";
    assert!(matches!(key(&words.join(" ")), Err(WordsError::Unknown { position: 7, .. })));
}

#[test]
fn missing_surplus_and_swapped_words_are_told_apart() {
    let words = words_of(&[0x11; 32]);
    assert_eq!(key(&words[..23].join(" ")), Err(WordsError::Count { found: 23 }));
    assert_eq!(key(&format!("{} zoo", words.join(" "))), Err(WordsError::Count { found: 25 }));
    assert_eq!(key(""), Err(WordsError::Count { found: 0 }));
    let mut other = words.clone();
    other[3] = if words[3] == "zoo" { "zone" } else { "zoo" };
    assert_eq!(key(&other.join(" ")), Err(WordsError::Checksum));
}

#[test]
fn the_page_says_what_to_do_within_its_width() {
    let page = sheet().render();
    for needed in [
        "holdfast recover /mnt/disk/vault --store DIR",
        "azure://account/vault",
        &"07".repeat(16),
        &"09".repeat(16),
        "2026-11-21",
        "24 words",
        "\n\n    1. ",
        "\n    2. ",
        "\n    3. ",
        "\n\n    4. ",
        "\n    5. ",
    ] {
        assert!(page.contains(needed), "{needed:?} is missing in\n{}", *page);
    }
    assert!(page.is_ascii());
    for line in page.lines() {
        assert!(line.len() <= 78 && line.trim_end() == line, "{line:?}");
    }
}

#[test]
fn a_page_without_an_address_leaves_room_for_one_and_no_address_breaks_a_line() {
    let none = RecoverySheet { addresses: vec![], ..sheet() }.render();
    assert!(none.contains("URL = ___") && none.contains("holdfast recover URL --store DIR"));
    let hostile = RecoverySheet { addresses: vec!["/mnt\nTHE 24 WORDS".into()], ..sheet() }.render();
    assert!(hostile.contains("/mnt?THE 24 WORDS"));
}

#[test]
fn a_printed_sheet_shows_no_word() {
    let text = format!("{:?}", sheet());
    assert!(!words_of(&[0x5a; 32]).iter().any(|w| text.contains(w)) && !text.contains("5a"));
}

/// Addresses of all kinds: many that are short, one that is long, some that a code writes with three letters for each byte.
fn sheets_of_all_sizes() -> Vec<RecoverySheet> {
    let of = |addresses: Vec<String>| RecoverySheet { addresses, ..sheet() };
    vec![
        of(vec![]),
        of((0..2000).map(|_| "%".into()).collect()),
        of((0..1000).map(|n| format!("/{n:03}")).collect()),
        of(vec!["/far".repeat(5000)]),
        of(vec!["% ž".repeat(5000); 3]),
        of((0..400).map(|n| format!("azure://account/{}", "x".repeat(n))).collect()),
    ]
}

#[test]
fn a_page_has_room_for_all_of_it_from_the_beginning() {
    for sheet in sheets_of_all_sizes() {
        let page = sheet.render();
        assert!(sheet.addresses.iter().all(|address| page.contains(address)));
        assert_eq!(page.capacity(), sheet.page_room(), "{} bytes", page.len());
    }
}

#[test]
fn a_code_has_room_for_all_of_it_from_the_beginning() {
    for sheet in sheets_of_all_sizes() {
        let line = sheet.code();
        assert_eq!(line.capacity(), sheet.code_room(), "{} bytes", line.len());
    }
}

#[test]
fn words_that_are_read_have_room_from_the_beginning_however_long_they_are() {
    let longest: Vec<&str> = Language::English.word_list().iter().copied().filter(|w| w.len() == 8).collect();
    assert!(Language::English.word_list().iter().all(|word| word.len() <= 8));
    let phrase = phrase_of(longest.iter().take(WORDS).copied()).unwrap();
    assert_eq!(*phrase, longest[..WORDS].join(" "));
    assert_eq!(phrase.capacity(), WORDS_ROOM);
}

#[test]
fn whole_rows_of_words_are_counted_and_nothing_else() {
    let words = words_of(&[0x5a; 32]);
    let typed = |count: usize| -> String {
        words.iter().cycle().take(count).enumerate().map(|(n, word)| format!("{}. {word}\n", n + 1)).collect()
    };
    let counted: Vec<usize> = (0..40).filter_map(|count| rows_of_words(&typed(count))).collect();
    assert_eq!(counted, [4, 8, 12, 16, 20], "all of them are no rows any more, they are the key");
    let rows = (0..40).filter(|count| rows_of_words(&typed(*count)).is_some());
    assert_eq!(rows.collect::<Vec<_>>(), counted);
    assert_eq!(rows_of_words("ABAN ability, able\tabout"), Some(4));
    assert_eq!(rows_of_words("abandon ability able xqz"), None);
    assert_eq!(rows_of_words("abandon ability able aba"), None);
}
