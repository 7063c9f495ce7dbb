//! Fills packs one after the other so that their lengths tell how much there is, and nothing else.
//!
//! Each pack but the last has exactly the length that the store gives packs. Chunks are of about a megabyte and cannot be
//! cut between packs, so the last few are held back, and when a pack is nearly full those of them go into it that fill it
//! best; the others come first in the next one. What is missing then is fill: a quarter of a percent of data that does not
//! compress, less of all other (`docs/decisions/size-privacy.md`). The last pack is as long as it takes to bring the sum
//! of all to a Padmé length: so what a session puts shows no more of its length than one object of that length would.

use std::collections::VecDeque;

use crate::padding::{PACK_FLOOR, padded};
use crate::seal::Sealer;

use super::{FinishedPack, FrameGroup, PackBuilder, PackKind};

/// Parts of groups that are held back: with four, 1.6 % of a pack are fill, with eight 0.3 %. All sums of them are tried.
const HELD_BACK: usize = 8;
/// One in so many bytes is taken to be fill of full packs where a sum is chosen: three times what usually is.
const USUAL_FILL: u64 = 128;

/// Makes packs of one kind out of groups of frames, in the order in which these come, but for what is held back.
#[derive(Debug)]
pub struct PackFiller<'a> {
    sealer: &'a Sealer,
    kind: PackKind,
    pack_len: usize,
    pack: PackBuilder,
    held: VecDeque<FrameGroup>,
    /// Bytes of the packs before, and how many they would have without fill.
    len_before: u64,
    content_before: u64,
}

impl<'a> PackFiller<'a> {
    /// Begins; packs get a length of `pack_len` bytes, but for the last one, and one with a chunk for which that is too short.
    pub fn new(sealer: &'a Sealer, kind: PackKind, pack_len: usize) -> Self {
        let pack = new_pack(sealer, kind, pack_len);
        Self { sealer, kind, pack_len, pack, held: VecDeque::new(), len_before: 0, content_before: 0 }
    }

    /// Adds a group, and hands out each pack that is full.
    pub fn push<E>(
        &mut self,
        group: FrameGroup,
        send: &mut impl FnMut(FinishedPack) -> Result<(), E>,
    ) -> Result<(), E> {
        for part in group.into_parts() {
            self.held.push_back(part);
            while self.held.len() >= HELD_BACK {
                self.advance(send)?;
            }
        }
        Ok(())
    }

    /// Hands out what is left.
    pub fn finish<E>(mut self, send: &mut impl FnMut(FinishedPack) -> Result<(), E>) -> Result<(), E> {
        while !self.held.is_empty() {
            self.advance(send)?;
        }
        if self.pack.is_empty() {
            return Ok(());
        }
        let len = self.last_len();
        self.send(len, send)
    }

    /// Puts the first part into the pack, or ends the pack with those that fill it best.
    fn advance<E>(&mut self, send: &mut impl FnMut(FinishedPack) -> Result<(), E>) -> Result<(), E> {
        let room = self.pack.room(self.pack_len);
        let lens: Vec<usize> = self.held.iter().map(FrameGroup::packed_len).collect();
        let first = lens.first().copied().unwrap_or_default();
        let is_near_its_end = lens.iter().sum::<usize>() > room.saturating_mul(2);
        if first <= room && !is_near_its_end {
            if !self.held.front().is_none_or(|part| self.pack.may_hold(part)) {
                // It has as much content as a pack may have, of which little is left: its length is no matter of room.
                let len = self.last_len();
                self.send(len, send)?;
            }
            self.add(1);
            return Ok(());
        }
        let best = match fullest(&lens, room) {
            // What is longer than a pack gets one of its own.
            0 if self.pack.is_empty() => 1,
            best => best,
        };
        self.add(best);
        let len =
            if self.pack.finished_len() > self.pack_len { self.last_len() } else { self.pack_len as u64 };
        self.send(len, send)
    }

    /// Adds those held parts whose bits are set, as far as the pack may hold them.
    fn add(&mut self, chosen: u32) {
        for (i, part) in std::mem::take(&mut self.held).into_iter().enumerate() {
            if chosen >> i & 1 == 1 && self.pack.may_hold(&part) {
                self.pack.push(self.sealer, part);
            } else {
                self.held.push_back(part);
            }
        }
    }

    /// Length that brings the sum of all packs to a Padmé length, and is none that a pack cannot have. The sum is chosen by
    /// what there is to store and not by how well the packs before could be filled, which the lengths of chunks decide.
    fn last_len(&self) -> u64 {
        let least = (self.pack.finished_len() as u64).max(PACK_FLOOR);
        let content = self.content_before + least;
        let usual = if self.len_before > 0 { content / USUAL_FILL } else { 0 };
        let fitting = padded(content + usual).max(padded(self.len_before + least)) - self.len_before;
        // One that is longer than a pack should be is padded by itself.
        if least > self.pack_len as u64 { padded(least) } else { fitting.min(self.pack_len as u64) }
    }

    fn send<E>(&mut self, len: u64, send: &mut impl FnMut(FinishedPack) -> Result<(), E>) -> Result<(), E> {
        let next = new_pack(self.sealer, self.kind, self.pack_len);
        let pack = std::mem::replace(&mut self.pack, next);
        self.content_before += pack.finished_len() as u64;
        let pack = pack.finish_at(self.sealer, len);
        self.len_before += pack.entry.len;
        send(pack)
    }
}

/// An empty pack. Data packs are filled: room for one at once instead of doubling up to it. Tree packs are often small.
fn new_pack(sealer: &Sealer, kind: PackKind, pack_len: usize) -> PackBuilder {
    PackBuilder::new(sealer, kind, if kind == PackKind::Data { pack_len } else { 0 })
}

/// Which of these lengths have the greatest sum that is not above `room`, as bits.
fn fullest(lens: &[usize], room: usize) -> u32 {
    let sum =
        |chosen: u32| lens.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1).map(|(_, len)| len).sum();
    let fitting =
        (0..1 << lens.len()).map(|chosen| (sum(chosen), chosen)).filter(|(sum, _): &(usize, _)| *sum <= room);
    fitting.max_by_key(|(sum, _)| *sum).map_or(0, |(_, chosen)| chosen)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::{ChunkId, VaultId};
    use crate::pack::{Frame, FrameBuilder, verify};
    use crate::seal::keys::KeyRing;
    use crate::seal::{ChunkType, Compression};

    const PACK: usize = 1 << 20;

    fn sealer() -> Sealer {
        Sealer::new(VaultId([1; 16]), &KeyRing::generate(0), 1).unwrap()
    }

    /// Content of these lengths that does not compress, and what its chunks are called.
    fn chunks(sealer: &Sealer, seed: &str, lens: &[usize]) -> Vec<(ChunkId, Vec<u8>)> {
        let mut noise = blake3::Hasher::new_derive_key(seed).finalize_xof();
        let mut chunk = |len: &usize| {
            let mut plain = vec![0; *len];
            noise.fill(&mut plain);
            (sealer.chunk_id(ChunkType::Data, &plain), plain)
        };
        lens.iter().map(&mut chunk).collect()
    }

    fn fill(sealer: &Sealer, pack_len: usize, chunks: &[(ChunkId, Vec<u8>)]) -> Vec<FinishedPack> {
        let (mut packs, mut frames) = (Vec::new(), FrameBuilder::new(8 << 10, Compression::Zstd(3)));
        let mut send = |pack| {
            packs.push(pack);
            Ok::<_, ()>(())
        };
        let mut filler = PackFiller::new(sealer, PackKind::Data, pack_len);
        for (id, plain) in chunks {
            frames.push(*id, plain);
            if frames.raw_len() >= 64 << 10 {
                filler.push(frames.take(), &mut send).unwrap();
            }
        }
        filler.push(frames.take(), &mut send).unwrap();
        filler.finish(&mut send).unwrap();
        packs
    }

    /// Lengths as a chunker makes them, a sixteenth as long: most are of 64 to 80 KiB, some of 16 to 64.
    fn lens(n: u64) -> Vec<usize> {
        let draw =
            |i: u64| u64::from_le_bytes(*blake3::hash(&i.to_le_bytes()).as_bytes().first_chunk().unwrap());
        let len = |i| match draw(i) % 5 {
            0 => (16 << 10) + (draw(i + n) % (48 << 10)) as usize,
            _ => (64 << 10) + (draw(i + n) % (16 << 10)) as usize,
        };
        (0..n).map(len).collect()
    }

    fn fill_of(pack: &FinishedPack) -> Frame {
        *pack.entry.frames.last().filter(|frame| frame.raw_len == 0).unwrap()
    }

    #[test]
    fn every_pack_but_the_last_is_full_the_sum_is_a_padded_length_and_each_chunk_is_there_once() {
        let sealer = sealer();
        for n in [1, 2, 17, 40, 200] {
            let put = chunks(&sealer, "sums", &lens(n));
            let packs = fill(&sealer, PACK, &put);
            let (last, full) = packs.split_last().unwrap();
            assert!(full.iter().all(|pack| pack.bytes.len() == PACK), "{n} chunks");
            let sum: u64 = packs.iter().map(|pack| pack.entry.len).sum();
            assert!(padded(sum) == sum || last.bytes.len() == PACK, "{n} chunks: {sum}");
            let mut found = Vec::new();
            for pack in &packs {
                let (entry, chunks) = verify(&sealer, pack.entry.id, &pack.bytes).unwrap();
                assert_eq!((&entry, &chunks), (&pack.entry, &pack.chunks));
                found.extend(chunks.iter().map(|chunk| chunk.id));
            }
            let (mut found, mut put): (Vec<_>, Vec<_>) = (found, put.iter().map(|(id, _)| *id).collect());
            found.sort_unstable();
            put.sort_unstable();
            assert_eq!(found, put, "{n} chunks");
        }
    }

    #[test]
    fn little_of_a_full_pack_is_fill() {
        let sealer = sealer();
        let packs = fill(&sealer, PACK, &chunks(&sealer, "little", &lens(1000)));
        let full = &packs[..packs.len() - 1];
        let fill: usize = full.iter().map(|pack| fill_of(pack).units as usize * 64).sum();
        assert!(full.len() > 50 && fill * 100 < full.len() * PACK, "{fill} of {}", full.len() * PACK);
    }

    #[test]
    fn small_packs_have_one_length_and_a_chunk_that_is_longer_than_a_pack_has_one_of_its_own() {
        let sealer = sealer();
        for len in [1, 500, 20_000, 30_000] {
            let packs = fill(&sealer, PACK, &chunks(&sealer, "small", &[len]));
            assert_eq!(packs.iter().map(|pack| pack.entry.len).collect::<Vec<_>>(), [PACK_FLOOR], "{len}");
        }
        let packs = fill(&sealer, 64 << 10, &chunks(&sealer, "long", &[200_000, 100, 300_000]));
        let lens: Vec<u64> = packs.iter().map(|pack| pack.entry.len).collect();
        assert_eq!(packs.iter().map(|pack| pack.chunks.len()).sum::<usize>(), 3);
        assert!(lens.iter().all(|len| padded(*len) == *len), "{lens:?}");
    }

    #[test]
    fn the_fill_looks_like_everything_else_and_is_sealed() {
        let sealer = sealer();
        let pack = fill(&sealer, PACK, &chunks(&sealer, "noise", &[100])).pop().unwrap();
        let frame = fill_of(&pack);
        let len = frame.units as usize * 64;
        let at: usize = 64 + pack.entry.frames.iter().map(|f| f.units as usize * 64).sum::<usize>() - len;
        assert!(len > 30_000, "{len}");
        let mut counts = [0_u32; 256];
        pack.bytes[at..at + len].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        // 128 of each are expected; six deviations.
        assert!(counts.iter().all(|n| (60..196).contains(n)), "{counts:?}");
        for at in [at, at + len / 2, at + len - 1] {
            let mut bad = pack.bytes.to_vec();
            bad[at] ^= 1;
            let name = crate::id::PackId(*blake3::hash(&bad).as_bytes());
            assert!(verify(&sealer, name, &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_greatest_sum_that_fits_is_found() {
        assert_eq!(fullest(&[5, 3, 4], 7), 0b110);
        assert_eq!(fullest(&[5, 3, 4], 12), 0b111);
        assert_eq!(fullest(&[5, 3, 4], 2), 0);
        assert_eq!(fullest(&[], 2), 0);
    }
}
