//! The recovery sheet: one page of paper from which a stranger can get everything back on the worst day.

mod code;

use std::fmt::Write;

use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

use super::slots::Secret;
use crate::id::{SlotId, VaultId};

pub use code::{CodeError, SheetCode, parse_code};

/// Words of a recovery key: 256 bits and 8 bits of checksum, 11 bits a word (BIP-39).
pub const WORDS: usize = 24;
/// Words in a printed row.
const WORDS_PER_ROW: usize = 4;
/// In the English list the first four letters of a word are those of no other.
const PREFIX_LEN: usize = 4;

/// What is printed when a recovery key is made.
pub struct RecoverySheet {
    /// The store.
    pub vault: VaultId,
    /// Where its vaults lie, as the user would type them; without secrets. May be empty when there is no vault yet.
    pub addresses: Vec<String>,
    /// The recovery key.
    pub key: Zeroizing<[u8; 32]>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// The slot that it opens.
    pub slot: SlotId,
}

impl std::fmt::Debug for RecoverySheet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecoverySheet(vault {}, slot {})", self.vault, self.slot)
    }
}

impl RecoverySheet {
    /// The page: plain text, at most 78 columns but for long addresses.
    pub fn render(&self) -> Zeroizing<String> {
        // Room for the whole page at once: growing would leave pieces of it in memory.
        let room = 4096 + self.addresses.iter().map(|a| 2 * a.len() + 8).sum::<usize>();
        let mut page = Zeroizing::new(String::with_capacity(room));
        page.push_str(TITLE);
        let _ = writeln!(page, "    Store       {}", self.vault);
        let _ = writeln!(page, "    Key slot    {}", self.slot);
        let _ = writeln!(page, "    Made on     {}", date(self.created));
        page.push_str("\nWHERE THE BACKUP LIES\n\n");
        self.render_addresses(&mut page);
        page.push_str("\nTHE 24 WORDS\n\n");
        self.render_words(&mut page);
        let first = self.addresses.first().map_or_else(|| "URL".to_owned(), |a| shown(a));
        page.push_str(STEPS_BEFORE_COMMAND);
        let _ = writeln!(page, "         holdfast recover {first} --store DIR");
        page.push_str(STEPS_AFTER_COMMAND);
        page
    }

    fn render_addresses(&self, page: &mut String) {
        for address in &self.addresses {
            let _ = writeln!(page, "    {}", shown(address));
        }
        if self.addresses.is_empty() {
            page.push_str("    (write the address here)  URL = ______________________________________\n");
        }
    }

    fn render_words(&self, page: &mut String) {
        let words = words_of(&self.key);
        for (row, of_row) in words.chunks(WORDS_PER_ROW).enumerate() {
            page.push_str("   ");
            for (column, word) in of_row.iter().enumerate() {
                let number = row * WORDS_PER_ROW + column + 1;
                let _ = write!(page, " {number:2} {word:<12}");
            }
            page.truncate(page.trim_end().len());
            page.push('\n');
        }
    }
}

const TITLE: &str = "\
HOLDFAST RECOVERY SHEET
=======================

Print this page or copy it by hand, and keep it away from the computer that it
protects. Whoever has it can read everything in the backup. Without it and
without a passphrase nobody can, not even those who made the program.

";

const STEPS_BEFORE_COMMAND: &str = "
ON THE WORST DAY

    1. Take any Linux computer and install holdfast on it.
    2. Make sure that it can reach the address above: plug in the disk, or
       sign in to the storage account.
    3. Type this command. DIR is a new directory of your choice, on a disk
       with some free space. If the backup has moved, type its new address.

";

const STEPS_AFTER_COMMAND: &str = "
    4. When it asks for the recovery key, type the 24 words in their order.
       Capital letters, numbers and line breaks do not matter, and the first
       four letters of a word are enough. A mistyped word is named.
    5. It then says how many recovery points there are, and the commands that
       list them, show them as directories, and copy files out. Nothing that
       these do changes the backup.
";

/// The words of a key, in order.
pub fn words_of(key: &[u8; 32]) -> Vec<&'static str> {
    Mnemonic::from_entropy(key).map(|m| m.words().collect()).unwrap_or_default()
}

/// A day as people write it.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|t| t.strftime("%-d %B %Y (%Y-%m-%d)").to_string())
        .unwrap_or_else(|_| format!("second {seconds} since 1970"))
}

/// An address that cannot break the page's lines.
fn shown(address: &str) -> String {
    address.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Why typed words are not a recovery key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A word is not on the list.
    #[error("word {position} ({word:?}) is not a recovery word{}", hint(.close))]
    Unknown {
        /// Which word, counted from 1.
        position: usize,
        /// As typed.
        word: String,
        /// Words that begin alike, at most three.
        close: Vec<&'static str>,
    },
    /// Too few or too many.
    #[error("a recovery key has {WORDS} words, but {found} were typed")]
    Count {
        /// How many.
        found: usize,
    },
    /// All words exist, but they are not what was printed.
    #[error(
        "these are all recovery words, but they do not belong together: one is wrong, or two are in each other's place"
    )]
    Checksum,
}

fn hint(close: &[&'static str]) -> String {
    if close.is_empty() { String::new() } else { format!("; did you mean {}?", close.join(" or ")) }
}

/// Reads 24 words as people type them: with numbers and punctuation, in capitals, over several lines, and cut short
/// to four letters or more.
pub fn parse_words(typed: &str) -> Result<Secret, WordsError> {
    let words = typed.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let mut phrase = Zeroizing::new(String::with_capacity(WORDS * 9));
    let mut found = 0;
    for word in words {
        found += 1;
        // Beyond the last word there is nothing to keep, only to count.
        let word = complete(word, found)?;
        if found <= WORDS {
            phrase.push_str(if found > 1 { " " } else { "" });
            phrase.push_str(word);
        }
    }
    if found != WORDS {
        return Err(WordsError::Count { found });
    }
    let mnemonic =
        Mnemonic::parse_in_normalized(Language::English, &phrase).map_err(|_| WordsError::Checksum)?;
    let (entropy, _) = mnemonic.to_entropy_array();
    let entropy = Zeroizing::new(entropy);
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&entropy[..32]);
    Ok(Secret::Recovery(key))
}

/// How many words this is, if it is one or more rows of the sheet, and not yet all of them.
pub fn rows_of_words(typed: &str) -> Option<usize> {
    let words = typed.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let count =
        words.map(|word| complete(word, 0)).try_fold(0, |count, word| word.map(|_| count + 1)).ok()?;
    (count > 0 && count < WORDS && count % WORDS_PER_ROW == 0).then_some(count)
}

/// The word of the list that was meant.
fn complete(typed: &str, position: usize) -> Result<&'static str, WordsError> {
    let lower = Zeroizing::new(typed.to_lowercase());
    let list = Language::English;
    let mut candidates = list.words_by_prefix_iter(&lower);
    // The list is sorted: a word comes before those that it begins.
    match (candidates.next(), candidates.next()) {
        (Some(first), _) if first == lower.as_str() => Ok(first),
        (Some(only), None) if lower.len() >= PREFIX_LEN => Ok(only),
        _ => {
            let start: String = lower.chars().take(PREFIX_LEN - 1).collect();
            let close = list.words_by_prefix_iter(&start).take(3).collect();
            Err(WordsError::Unknown { position, word: typed.chars().take(40).collect(), close })
        }
    }
}

#[cfg(test)]
mod tests {
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
}
