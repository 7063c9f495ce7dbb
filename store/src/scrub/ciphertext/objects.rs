//! One object: is it what its name says, as far as bytes alone tell?

use std::ops::Range;

use bytes::Bytes;

use super::look::Item;
use super::{Seen, Verify};
use crate::cache::GRID;
use crate::clock::Deadline;
use crate::fence::{Step, generation_id};
use crate::format::config::{self, StoreConfig};
use crate::format::{HEADER_LEN, Header, ObjectKind, STEP};
use crate::id::{ObjectId, SlotId};
use crate::index::INDEX_LIMIT;
use crate::monitor::Event;
use crate::names::{self, Named};
use crate::pack::PACK_LIMIT;
use crate::seal::slots::{self, KeySlot};
use crate::staging::{MARKER, store_of};
use crate::store::{POINT_LIMIT, SMALL_OBJECT};
use crate::vault::{ObjectName, VaultError};

/// Bytes of one request.
const REQUEST: u64 = 4 << 20;
/// Bytes that are asked for at once, and so in memory: a usual pack. A block of the grid where somebody wants it slow.
const WINDOW: u64 = 16 << 20;
/// What stands for an object that is not there any more.
const GONE: Result<Seen, VaultError> = Ok(Seen::Gone);

impl Verify<'_> {
    /// Learns whose objects they are: from the config, or in an annex, which has none, from its marker. Both of them missing is told.
    pub(super) fn learn_vault(&mut self) -> Result<(), VaultError> {
        let (name, marker) = (
            names::config(),
            ObjectName::new(MARKER).ok_or_else(|| VaultError::invalid("no name of a marker"))?,
        );
        if self.transfer.stat(&name)?.is_some() {
            let config = self.transfer.get(&name, SMALL_OBJECT);
            // What is wrong with it is told when its turn comes.
            self.vault = config.ok().and_then(|bytes| StoreConfig::peek_vault_id(&bytes).ok());
            return Ok(());
        }
        match self.transfer.get(&marker, SMALL_OBJECT) {
            Ok(bytes) => match store_of(&bytes) {
                Some(id) => self.vault = Some(id),
                None => self.find(marker.as_str(), "the marker of the annex cannot be read".into(), false),
            },
            Err(VaultError::NotFound { .. }) => {
                self.find(
                    name.as_str(),
                    "the config is missing: this is no store and no vault, or it lost it".into(),
                    false,
                );
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn config(&mut self, item: &Item) -> Result<Seen, VaultError> {
        if let Some(wrong) = wrong_length(item, config::BLOCK_AT) {
            return Ok(wrong);
        }
        let Some(bytes) = self.small(&item.name())? else { return GONE };
        Ok(StoreConfig::peek(&bytes).map_or_else(|e| Seen::Wrong(e.to_string()), |_| Seen::Formed))
    }

    pub(super) fn slot(&mut self, item: &Item, id: &SlotId) -> Result<Seen, VaultError> {
        if let Some(wrong) = wrong_length(item, slots::BLOCK_AT) {
            return Ok(wrong);
        }
        let Some(bytes) = self.small(&item.name())? else { return GONE };
        let Some(vault) = &self.vault else {
            let read = Header::decode(&bytes, ObjectKind::KeySlot, None);
            return Ok(read.map_or_else(|e| Seen::Wrong(e.to_string()), |_| Seen::Formed));
        };
        Ok(match KeySlot::read(&bytes, vault) {
            Err(e) => Seen::Wrong(e.to_string()),
            Ok(slot) if slot.id != *id => Seen::Wrong(format!("it is slot {}", slot.id)),
            Ok(_) => Seen::Formed,
        })
    }

    /// A small object; `None` if it went meanwhile.
    fn small(&mut self, name: &ObjectName) -> Result<Option<Bytes>, VaultError> {
        match self.transfer.get(name, SMALL_OBJECT) {
            Ok(bytes) => {
                self.report.bytes_read += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Err(VaultError::NotFound { .. }) => self.gone(name).map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// An object that was listed and is not found: it went, unless all of the vault did, or it is listed still.
    fn gone(&self, name: &ObjectName) -> Result<(), VaultError> {
        match self.transfer.stat(name)? {
            None => Ok(()),
            Some(_) => Err(VaultError::NotFound { what: name.to_string() }),
        }
    }

    /// A pack or an index object. Read twice if need be: the way from the vault may have flipped a bit.
    pub(super) fn named_by_hash(&mut self, item: &Item, hash: &[u8; 32]) -> Result<Seen, VaultError> {
        let (kind, most) = match item.named {
            Named::Index(_) => (ObjectKind::Index, INDEX_LIMIT),
            _ => (ObjectKind::Pack, PACK_LIMIT),
        };
        if item.len < HEADER_LEN as u64 || item.len > most {
            return Ok(none_can_have(item.len));
        }
        let name = item.name();
        let Some(mut read) = self.hash(&name, item.len)? else { return GONE };
        if read.hash != *hash {
            let Some(again) = self.hash(&name, item.len)? else { return GONE };
            if again.hash == *hash {
                self.monitor.event(Event::Note(format!(
                    "{name} was read wrong once and is right: the way from {} changed bytes",
                    self.transfer.address()
                )));
            }
            read = again;
        }
        if read.hash != *hash {
            return Ok(Seen::Wrong("its bytes are not those that its name is the hash of".into()));
        }
        let header = Header::decode(&read.head, kind, self.vault.as_ref());
        Ok(header.map_or_else(|e| Seen::Wrong(e.to_string()), |_| Seen::Proven))
    }

    /// The hash of an object of `len` bytes, and its first ones; `None` if it went meanwhile.
    fn hash(&mut self, name: &ObjectName, len: u64) -> Result<Option<Hashed>, VaultError> {
        let window = self.rate.map_or(WINDOW, |rate| (rate / GRID * GRID).clamp(GRID, WINDOW));
        let (mut hasher, mut head, mut at) = (blake3::Hasher::new(), Vec::new(), 0);
        while at < len {
            let end = len.min(at + window);
            if let Some(pacer) = &self.pacer {
                self.transfer.keep_pace(pacer, (end - at) as usize)?;
            }
            let ranges = cut(at..end).map(|range| (name.clone(), range)).collect();
            for bytes in self.transfer.get_many(ranges, Deadline::NEVER) {
                let bytes = match bytes {
                    Err(VaultError::NotFound { .. }) => return self.gone(name).map(|()| None),
                    other => other?,
                };
                self.report.bytes_read += bytes.len() as u64;
                hasher.update(&bytes);
                head.extend(bytes.iter().take(HEADER_LEN - head.len()));
            }
            at = end;
        }
        Ok(Some(Hashed { hash: *hasher.finalize().as_bytes(), head }))
    }

    /// Objects of which all but the header is sealed.
    pub(super) fn headers(&mut self, items: &[Item]) -> Vec<Result<Seen, VaultError>> {
        let range = |item: &Item| (item.name(), 0..item.len.min(HEADER_LEN as u64));
        let heads = self.transfer.get_many(items.iter().map(range).collect(), Deadline::NEVER);
        let mut seen = Vec::with_capacity(items.len());
        for (item, head) in items.iter().zip(heads) {
            seen.push(match head {
                Ok(head) => {
                    self.report.bytes_read += head.len() as u64;
                    Ok(self.header(item, &head).map_or_else(Seen::Wrong, |()| Seen::Formed))
                }
                Err(VaultError::NotFound { .. }) => self.gone(&item.name()).map(|()| Seen::Gone),
                Err(error) => Err(error),
            });
        }
        seen
    }

    fn header(&self, item: &Item, head: &[u8]) -> Result<(), String> {
        let (kinds, id) = expected(&item.named).ok_or("this is no object with a header")?;
        let vault = self.vault.as_ref();
        let mut read = kinds.iter().map(|kind| Header::decode(head, *kind, vault));
        let first = read.next().ok_or("no kind of object bears such a name")?;
        let header = first.or_else(|e| read.find_map(Result::ok).ok_or(e)).map_err(|e| e.to_string())?;
        if header.object_id != id {
            return Err("it is another object than its name says".into());
        }
        let sealed = item.len - HEADER_LEN as u64;
        if sealed == 0 || !sealed.is_multiple_of(STEP as u64) || item.len > POINT_LIMIT {
            return Err(format!("it has {} bytes, which none can have", item.len));
        }
        Ok(())
    }
}

/// Of a small object, whose sealed block begins at `block_at`.
fn wrong_length(item: &Item, block_at: usize) -> Option<Seen> {
    let sealed =
        item.len.checked_sub(block_at as u64).filter(|len| *len > 0 && len.is_multiple_of(STEP as u64));
    (sealed.is_none() || item.len > SMALL_OBJECT).then(|| none_can_have(item.len))
}

fn none_can_have(len: u64) -> Seen {
    Seen::Wrong(format!("it has {len} bytes, which none can have"))
}

struct Hashed {
    hash: [u8; 32],
    head: Vec<u8>,
}

/// The kinds that an object of this name may have, and the id in its header.
fn expected(named: &Named) -> Option<(&'static [ObjectKind], ObjectId)> {
    const POINT: &[ObjectKind] = &[ObjectKind::Point, ObjectKind::Revocation];
    Some(match named {
        Named::Point(_, attempt) => (POINT, ObjectId(attempt.point.0)),
        Named::Session(attempt) => (&[ObjectKind::Session], ObjectId(attempt.point.0)),
        Named::Hold(_, id) => (&[ObjectKind::Hold], ObjectId(id.0)),
        Named::Condemned(number) => (&[ObjectKind::Generation], generation_id(*number, Step::Condemned)),
        Named::Final(number) => (&[ObjectKind::Generation], generation_id(*number, Step::Final)),
        _ => return None,
    })
}

fn cut(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(REQUEST as usize).map(move |at| at..end.min(at + REQUEST))
}
