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
/// Room for that many words with what stands between them; none has more than eight letters. Growing would leave pieces of them in memory.
const WORDS_ROOM: usize = WORDS * 9;
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
        let mut page = Zeroizing::new(String::with_capacity(self.page_room()));
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

    /// Room for the whole page at once: growing would leave pieces of it in memory.
    fn page_room(&self) -> usize {
        4096 + self.addresses.iter().map(|a| 2 * a.len() + 8).sum::<usize>()
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
    secret_of(words_in(typed))
}

/// What was typed, word by word.
fn words_in(typed: &str) -> impl Iterator<Item = &str> {
    typed.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty())
}

fn secret_of<'a>(words: impl Iterator<Item = &'a str>) -> Result<Secret, WordsError> {
    let phrase = phrase_of(words)?;
    let mnemonic =
        Mnemonic::parse_in_normalized(Language::English, &phrase).map_err(|_| WordsError::Checksum)?;
    let (entropy, _) = mnemonic.to_entropy_array();
    let entropy = Zeroizing::new(entropy);
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&entropy[..32]);
    Ok(Secret::Recovery(key))
}

/// The words of the list that were meant, with a blank between two.
fn phrase_of<'a>(words: impl Iterator<Item = &'a str>) -> Result<Zeroizing<String>, WordsError> {
    let mut phrase = Zeroizing::new(String::with_capacity(WORDS_ROOM));
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
    if found == WORDS { Ok(phrase) } else { Err(WordsError::Count { found }) }
}

/// How many words this is, if it is one or more rows of the sheet, and not yet all of them.
pub fn rows_of_words(typed: &str) -> Option<usize> {
    let mut words = words_in(typed).map(|word| complete(word, 0));
    let count = words.try_fold(0, |count, word| word.map(|_| count + 1)).ok()?;
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
mod tests;
