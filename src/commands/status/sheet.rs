//! When somebody last proved that a recovery sheet opens what it should: a sheet that nobody ever tried is a hope.

use std::path::Path;

use holdfast_store::clock::Timestamp;
use holdfast_store::seal::slots::{KeySlot, SlotKind};
use holdfast_store::store::Store;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::outcome::Failure;
use crate::proven;
use crate::terminal::text;

/// The newest proof of a recovery sheet whose slot is there.
#[derive(Debug, Default, Serialize)]
pub struct SheetLine {
    /// When; nothing if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    proven: Option<String>,
    /// The vault whose own slot it opened; nothing of the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    vault: Option<String>,
    #[serde(skip)]
    at: Option<Timestamp>,
}

impl SheetLine {
    /// Of the store in a directory.
    pub fn of(store: &Path) -> Result<Self, Failure> {
        let head = Store::head(store)?;
        let is_of_sheet = |bytes: &[u8]| {
            KeySlot::read(bytes, &head.vault).is_ok_and(|slot| slot.kind == SlotKind::Recovery)
        };
        let proofs = proven::load(store);
        let sheets = head.slots.iter().filter(|(_, bytes)| is_of_sheet(bytes));
        let newest = sheets.filter_map(|(id, _)| proven::newest(&proofs, id)).max_by_key(|proof| proof.at);
        let at = newest.map(|proof| Timestamp::from_seconds(proof.at));
        Ok(Self { proven: at.map(text::rfc3339), vault: newest.and_then(|proof| proof.vault.clone()), at })
    }

    /// For people.
    pub fn render(&self, zone: &TimeZone) -> String {
        match (self.at, &self.vault) {
            (None, _) => {
                "recovery sheet never proven: `holdfast key verify --vault all` tries its words".into()
            }
            (Some(at), None) => format!("recovery sheet last proven {}", text::local_time(at, zone)),
            (Some(at), Some(vault)) => {
                format!("recovery sheet last proven {} in vault {vault}", text::local_time(at, zone))
            }
        }
    }
}
