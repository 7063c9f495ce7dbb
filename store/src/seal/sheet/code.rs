//! The line of text in the square code of a recovery sheet: what a camera reads and nobody has to type (`docs/format.md`, section 6).

use zeroize::Zeroizing;

use super::{RecoverySheet, WORDS, WordsError, secret_of, words_in, words_of};
use crate::id::VaultId;
use crate::seal::slots::Secret;

/// First word of the line.
const INTRODUCTION: &str = "holdfast-recovery-1";
/// What a program that reads square codes writes before the text.
const READER: &str = "QR-Code:";
/// Addresses that are taken out of a code, at most.
const ADDRESSES_MAX: usize = 64;

/// What a code says.
#[derive(Debug)]
pub struct SheetCode {
    /// The store.
    pub vault: VaultId,
    /// The recovery key.
    pub secret: Secret,
    /// Where its vaults were when the sheet was made.
    pub addresses: Vec<String>,
}

/// Why a text that begins as a code does is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The id of the store.
    #[error("the code of the sheet is cut off: it has no store's id of 32 hexadecimal digits")]
    Vault,
    /// The words.
    #[error("the code of the sheet: {0}")]
    Words(WordsError),
}

impl RecoverySheet {
    /// The line, without its end: introduction, store, words, addresses, with a blank between them.
    pub fn code(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(self.code_room()));
        line.push_str(INTRODUCTION);
        line.push(' ');
        line.push_str(&self.vault.hex());
        for word in words_of(&self.key) {
            line.push(' ');
            line.push_str(word);
        }
        for address in &self.addresses {
            line.push(' ');
            line.push_str(&escape(address));
        }
        line
    }

    /// Room for the whole line at once: growing would leave pieces of it in memory.
    pub(super) fn code_room(&self) -> usize {
        512 + self.addresses.iter().map(|address| 3 * address.len() + 1).sum::<usize>()
    }
}

/// Reads the line, also with what a reader of codes wrote before it; nothing if it does not begin as one.
pub fn parse_code(text: &str) -> Option<Result<SheetCode, CodeError>> {
    let text = text.trim_start();
    let text = text.strip_prefix(READER).unwrap_or(text);
    let mut parts = text.lines().next()?.split_ascii_whitespace();
    if parts.next()? != INTRODUCTION {
        return None;
    }
    Some(parse_rest(parts))
}

fn parse_rest<'a>(mut parts: impl Iterator<Item = &'a str>) -> Result<SheetCode, CodeError> {
    let vault = parts.next().and_then(VaultId::from_hex).ok_or(CodeError::Vault)?;
    let words = parts.by_ref().take(WORDS).flat_map(words_in);
    let secret = secret_of(words).map_err(CodeError::Words)?;
    let addresses = parts.take(ADDRESSES_MAX).map(unescape).collect();
    Ok(SheetCode { vault, secret, addresses })
}

/// An address without blanks: bytes that are no visible ASCII, and `%`, as `%` and two hexadecimal digits.
fn escape(address: &str) -> String {
    let mut out = String::with_capacity(address.len());
    for byte in address.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The other way. What is no escape stands for itself.
fn unescape(text: &str) -> String {
    let (bytes, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| *byte == b'%');
        // A sign is none, though a number may have one.
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => {
                out.push(escaped);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::id::SlotId;

    fn sheet(addresses: &[&str]) -> RecoverySheet {
        RecoverySheet {
            vault: VaultId([7; 16]),
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            key: Zeroizing::new([0x5a; 32]),
            created: 1_795_176_000,
            slot: SlotId([9; 16]),
        }
    }

    fn read(text: &str) -> SheetCode {
        parse_code(text).unwrap().unwrap()
    }

    #[test]
    fn a_code_gives_back_the_key_the_store_and_every_address() {
        let addresses = ["/mnt/my disk/100% vault", "azure://account/name", "/mnt/žluť\n2", "/%41"];
        let sheet = sheet(&addresses);
        let line = sheet.code();
        assert!(line.is_ascii() && !line.contains('\n'));
        for text in [line.to_string(), format!("QR-Code:{}\n", *line), format!("  {}\r\nmore", *line)] {
            let code = read(&text);
            assert_eq!(code.vault, sheet.vault);
            assert!(matches!(code.secret, Secret::Recovery(key) if *key == [0x5a; 32]));
            assert_eq!(code.addresses, addresses);
        }
    }

    #[test]
    fn the_line_is_as_documented() {
        let words = words_of(&[0x5a; 32]).join(" ");
        let line = format!("holdfast-recovery-1 {} {words} /a%20b", "07".repeat(16));
        assert_eq!(*sheet(&["/a b"]).code(), line);
        assert!(read(&sheet(&[]).code()).addresses.is_empty());
    }

    #[test]
    fn a_code_that_is_cut_off_anywhere_is_told_or_gives_the_same_key_and_store() {
        let addresses = ["/mnt/my disk/100% vault", "/mnt/žluť", "azure://account/name"];
        let line = sheet(&addresses).code();
        let words_end = sheet(&[]).code().len();
        for len in 0..line.len() {
            match parse_code(&line[..len]) {
                None => assert!(len < INTRODUCTION.len(), "{len}"),
                Some(Err(_)) => assert!(len < words_end, "{len}"),
                Some(Ok(code)) => {
                    assert_eq!(code.vault, VaultId([7; 16]), "{len}");
                    assert!(matches!(code.secret, Secret::Recovery(key) if *key == [0x5a; 32]), "{len}");
                    // The last one may be short.
                    let whole = code.addresses.len().saturating_sub(1);
                    assert_eq!(code.addresses[..whole], addresses[..whole], "{len}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_code_is_left_to_others_and_what_is_cut_off_is_told() {
        for text in ["", "\n", "a passphrase", "holdfast-recovery-2 x", "abandon abandon"] {
            assert!(parse_code(text).is_none(), "{text:?}");
        }
        let line = sheet(&["/v"]).code();
        let error = |text: &str| parse_code(text).unwrap().unwrap_err();
        assert_eq!(error("holdfast-recovery-1 07"), CodeError::Vault);
        assert!(matches!(error(&line[..150]), CodeError::Words(_)));
        let wrong = line.replacen("holdfast-recovery-1 07", "holdfast-recovery-1 zz", 1);
        assert_eq!(error(&wrong), CodeError::Vault);
    }

    #[test]
    fn escapes_that_are_none_stand_for_themselves_and_addresses_are_bounded() {
        let line = sheet(&[]).code();
        let code = read(&format!("{} /a%zz%+5% %C5 {}", *line, "/x ".repeat(1000)));
        assert_eq!(code.addresses[0], "/a%zz%+5%");
        assert_eq!(code.addresses.len(), ADDRESSES_MAX);
    }
}
