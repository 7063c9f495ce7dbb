//! The recovery sheet: the printed page with which a stranger's machine can recover everything.
//!
//! Plain text of at most 72 columns, so that any printer and any typewriter can make it. It says what it opens, where
//! the bytes are, and the one command to type; it holds nothing that needs another file.

use std::fmt::Write as _;

use crate::secrets::Secret;

/// What a sheet says.
#[derive(Debug)]
pub struct RecoverySheet {
    /// Identity of the store, in hexadecimal.
    pub store_id: String,
    /// Machine that made the store.
    pub host: String,
    /// Day it was made, for people.
    pub made: String,
    /// The 24 words of the recovery key.
    pub words: Secret,
    /// Addresses of the vaults.
    pub vaults: Vec<String>,
    /// Path of the staging directory on `host`.
    pub store: String,
}

impl RecoverySheet {
    /// Words in a row of the sheet.
    const WORDS_A_ROW: usize = 4;

    /// The page.
    pub fn render(&self) -> String {
        let mut page = String::from("HOLDFAST RECOVERY SHEET\n=======================\n\n");
        let mut say = |line: &str| {
            page.push_str(line);
            page.push('\n');
        };
        say("With this page and any machine that reaches one of the places below,");
        say("everything in the store can be recovered. So can anybody who finds it:");
        say("print it, keep it where you keep passports, and delete the file.");
        say("");
        say(&format!("Store      {}", self.store_id));
        say(&format!("Made       {} on {}", self.made, self.host));
        self.places().iter().for_each(|line| say(line));
        say("");
        say("Recovery key");
        say("");
        self.word_rows().iter().for_each(|row| say(row));
        say("");
        say("To recover: install holdfast, give the machine access to the vault");
        say("(for Azure: AZURE_STORAGE_KEY or `az login`), then type");
        say("");
        self.commands().iter().for_each(|line| say(line));
        say("");
        say("It asks for the words above, in order, and then shows every recovery");
        say("point as a directory below the place that --mount names. Copy out of");
        say("it with cp. Without holdfast, docs/format.md of its source describes");
        say("every byte.");
        page
    }

    fn places(&self) -> Vec<String> {
        let staging = format!("{} on {}", self.store, self.host);
        let places = self.vaults.iter().chain(std::iter::once(&staging));
        places
            .enumerate()
            .map(|(n, place)| format!("{:<10} {place}", if n == 0 { "Kept in" } else { "" }))
            .collect()
    }

    fn word_rows(&self) -> Vec<String> {
        let words: Vec<&str> = self.words.reveal().split_whitespace().collect();
        let rows = words.chunks(Self::WORDS_A_ROW).enumerate();
        rows.map(|(row, words)| {
            words.iter().enumerate().fold(String::from("  "), |mut line, (column, word)| {
                let number = row * Self::WORDS_A_ROW + column + 1;
                // Writing to a String cannot fail.
                let _ = write!(line, "{number:>4} {word:<10}");
                line
            })
        })
        .map(|line| line.trim_end().to_owned())
        .collect()
    }

    fn commands(&self) -> Vec<String> {
        let from = self.vaults.first().unwrap_or(&self.store);
        vec![format!("  holdfast recover {from} \\"), "      --store DIR --mount MOUNTPOINT".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(vaults: &[&str]) -> String {
        let words: Vec<String> = (1..=24).map(|n| format!("word{n}")).collect();
        let sheet = RecoverySheet {
            store_id: "ab".repeat(16),
            host: "db1".into(),
            made: "2026-11-20".into(),
            words: Secret::new(words.join(" ")),
            vaults: vaults.iter().map(|&vault| vault.to_owned()).collect(),
            store: "/srv/holdfast".into(),
        };
        sheet.render()
    }

    #[test]
    fn a_sheet_holds_every_word_with_its_number_every_place_and_the_command() {
        let page = sheet(&["azure://account/name", "/mnt/usb/vault"]);
        for n in 1..=24 {
            assert!(page.contains(&format!("{n:>4} word{n}")), "{page}");
        }
        for place in ["azure://account/name", "/mnt/usb/vault", "/srv/holdfast on db1"] {
            assert!(page.contains(place), "{page}");
        }
        assert!(page.contains("holdfast recover azure://account/name"), "{page}");
    }

    #[test]
    fn a_sheet_fits_on_paper() {
        let page = sheet(&["azure://account/name"]);
        assert!(page.lines().count() < 60);
        assert!(page.lines().all(|line| line.len() <= 72), "{page}");
    }

    #[test]
    fn without_a_vault_the_sheet_leads_to_the_staging_directory() {
        assert!(sheet(&[]).contains("holdfast recover /srv/holdfast"));
    }
}
