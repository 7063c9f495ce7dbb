//! Content lists against a plain vector of extents.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use super::*;
use crate::clock::Deadline;
use crate::tree::ChunkSink;
use crate::tree::testing::{MemoryChunks, TestRandom};

fn data(n: u64, len: u32) -> Extent {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Extent::Data { id: ChunkId(*blake3::hash(&id).as_bytes()), len }
}

fn build(extents: &[Extent], sink: &mut MemoryChunks) -> Content {
    let mut builder = ContentBuilder::new();
    for extent in extents {
        builder.push(*extent, sink).unwrap();
    }
    builder.finish(sink).unwrap()
}

fn read(content: &Content, source: &MemoryChunks, from: u64) -> Vec<(u64, Extent)> {
    let mut reader = ContentReader::new(content.clone());
    let all: Result<Vec<_>, _> = reader.extents(source, from, Deadline::NEVER).collect();
    all.unwrap()
}

#[test]
fn short_lists_are_inline_and_the_65th_extent_makes_pages() {
    for n in [0usize, 1, 63, 64, 65, 66, 5000] {
        let mut chunks = MemoryChunks::new();
        let extents: Vec<Extent> = (0..n as u64).map(|i| data(i, 10)).collect();
        let content = build(&extents, &mut chunks);
        assert_eq!(content.depth() == 0, n <= 64, "{n}");
        assert_eq!(content.len(), 10 * n as u64);
        assert_eq!(chunks.is_empty(), n <= 64);
        let got: Vec<Extent> = read(&content, &chunks, 0).into_iter().map(|(_, e)| e).collect();
        assert_eq!(got, extents, "{n}");
    }
}

#[test]
fn sixty_four_extents_are_inline_even_if_the_last_is_a_border() {
    let border = Extent::Data { id: ChunkId([0; 32]), len: 1 };
    let mut chunks = MemoryChunks::new();
    assert_eq!(build(&[border; 64], &mut chunks).depth(), 0);
    assert!(chunks.is_empty());
    let content = build(&[border; 130], &mut chunks);
    let Content::Paged { depth: 1, pages } = content else { panic!("one level of pages") };
    assert_eq!(pages.iter().map(|p| p.1).collect::<Vec<_>>(), [64, 64, 2]);
}

#[test]
fn a_page_without_borders_ends_at_4096_items() {
    let never = Extent::Data { id: ChunkId([0xff; 32]), len: 1 };
    let mut chunks = MemoryChunks::new();
    let Content::Paged { depth: 1, pages } = build(&[never; 9000], &mut chunks) else {
        panic!("one level of pages")
    };
    assert_eq!(pages.iter().map(|p| p.1).collect::<Vec<_>>(), [4096, 4096, 808]);
}

#[test]
fn adjacent_holes_become_one_and_empty_extents_are_refused() {
    let mut chunks = MemoryChunks::new();
    let hole = |len| Extent::Hole { len };
    let content = build(&[hole(1), hole(2), data(1, 4), hole(8), hole(16)], &mut chunks);
    assert_eq!(content, Content::Inline(vec![hole(3), data(1, 4), hole(24)]));
    let mut builder = ContentBuilder::new();
    assert!(builder.push(hole(0), &mut chunks).is_err());
    assert!(builder.push(data(1, 0), &mut chunks).is_err());
    assert!(builder.push(data(1, MAX_CHUNK + 1), &mut chunks).is_err());
    builder.push(hole(u64::MAX), &mut chunks).unwrap();
    assert!(builder.push(data(1, 1), &mut chunks).is_err());
    assert_eq!(builder.finish(&mut chunks).unwrap(), Content::Inline(vec![hole(u64::MAX)]));
}

#[test]
fn one_changed_extent_of_a_million_rewrites_one_page_per_level() {
    let mut extents: Vec<Extent> = (0..1_000_000).map(|i| data(i, 1 << 20)).collect();
    let mut chunks = MemoryChunks::new();
    let content = build(&extents, &mut chunks);
    assert!(content.depth() >= 2 && content.items() <= MAX_INLINE, "depth {}", content.depth());
    assert_eq!(content.len(), 1_000_000 << 20);
    let pages = chunks.len();
    assert!((1000..4000).contains(&pages), "{pages} pages");
    assert!(chunks.counts().longest <= 5 + MAX_PAGE_ITEMS * 41);

    // The builder is the only way to such a list, so rebuilding it must cost only what changed.
    for at in [0, 499_999, 999_999] {
        let old = std::mem::replace(&mut extents[at], data(at as u64 + (1 << 40), 1 << 20));
        chunks.reset_counts();
        let edited = build(&extents, &mut chunks);
        let new = chunks.counts().new;
        // A border that appears or vanishes costs one page more per level; none of these three does more.
        assert!(new <= 2 * u64::from(content.depth()), "{new} new pages after editing {at}");
        assert_ne!(edited, content);
        extents[at] = old;
    }
    chunks.reset_counts();
    assert_eq!(build(&extents, &mut chunks), content);
    assert_eq!(chunks.counts().new, 0);

    // Any place is found by loading one page per level, and reading on loads each page once.
    let mut reader = ContentReader::new(content.clone());
    chunks.reset_counts();
    let offset = (777_777u64 << 20) + 5;
    let found = reader.extent_at(&chunks, offset, Deadline::NEVER).unwrap();
    assert_eq!(found, Some((777_777 << 20, extents[777_777])));
    assert_eq!(chunks.counts().gets, u64::from(content.depth()));
    chunks.reset_counts();
    let count = reader.extents(&chunks, 0, Deadline::NEVER).filter(|e| e.is_ok()).count();
    assert_eq!(count, 1_000_000);
    assert!(chunks.counts().gets <= pages as u64 + 1, "{} pages loaded of {pages}", chunks.counts().gets);
}

#[test]
fn insertion_and_removal_rewrite_few_pages() {
    let mut extents: Vec<Extent> = (0..200_000).map(|i| data(i, 7)).collect();
    let mut chunks = MemoryChunks::new();
    let content = build(&extents, &mut chunks);
    for at in [1usize, 100_000, 199_000] {
        extents.insert(at, data(1 << 50, 9));
        chunks.reset_counts();
        build(&extents, &mut chunks);
        assert!(chunks.counts().new <= 4 * u64::from(content.depth()), "{:?}", chunks.counts());
        extents.remove(at);
    }
}

/// Reads and seeks against a vector, for many random lists.
#[test]
fn random_lists_read_and_seek_as_their_model() {
    let seed = 0x5eed_0002;
    println!("seed {seed:#x}");
    let mut random = TestRandom::new(seed);
    for round in 0..60 {
        let n = if round % 3 == 0 { random.below(3000) } else { random.below(80) };
        let mut model: Vec<Extent> = Vec::new();
        let mut chunks = MemoryChunks::new();
        let mut builder = ContentBuilder::new();
        for i in 0..n {
            let hole = random.below(4) == 0;
            let len = 1 + random.below(50);
            let extent = if hole { Extent::Hole { len } } else { data(i, len as u32) };
            builder.push(extent, &mut chunks).unwrap();
            match (model.last_mut(), extent) {
                (Some(Extent::Hole { len: last }), Extent::Hole { len }) => *last += len,
                _ => model.push(extent),
            }
        }
        let len: u64 = model.iter().map(Extent::len).sum();
        assert_eq!(builder.len(), len);
        let content = builder.finish(&mut chunks).unwrap();
        let got: Vec<Extent> = read(&content, &chunks, 0).into_iter().map(|(_, e)| e).collect();
        assert_eq!(got, model, "round {round}");
        check_seeks(&model, &content, &chunks, &mut random);
    }
}

fn check_seeks(model: &[Extent], content: &Content, chunks: &MemoryChunks, random: &mut TestRandom) {
    let len = content.len();
    let mut spans = Vec::new();
    let mut at = 0;
    for extent in model {
        spans.push((at, at + extent.len(), *extent));
        at += extent.len();
    }
    let is_data = |e: &Extent| matches!(e, Extent::Data { .. });
    let mut reader = ContentReader::new(content.clone());
    for _ in 0..50 {
        let offset = random.below(len + 3);
        let from = |s: &(u64, u64, Extent)| s.0.max(offset);
        let after: Vec<_> = spans.iter().filter(|s| s.1 > offset).collect();
        let want_data = after.iter().find(|s| is_data(&s.2)).map(|s| from(s));
        let want_hole =
            (offset < len).then(|| after.iter().find(|s| !is_data(&s.2)).map_or(len, |s| from(s)));
        let want_at = after.first().map(|s| (s.0, s.2));
        assert_eq!(
            reader.seek_data(chunks, offset, Deadline::NEVER).unwrap(),
            want_data,
            "data from {offset}"
        );
        assert_eq!(
            reader.seek_hole(chunks, offset, Deadline::NEVER).unwrap(),
            want_hole,
            "hole from {offset}"
        );
        assert_eq!(reader.extent_at(chunks, offset, Deadline::NEVER).unwrap(), want_at, "at {offset}");
        assert_eq!(extent_at(chunks, content, offset, Deadline::NEVER).unwrap(), want_at);
    }
}

#[test]
fn list_pages_survive_and_no_truncation_or_flip_does_harm() {
    let inline = Content::Inline(vec![data(1, 2), Extent::Hole { len: 3 }, data(4, 5)]);
    let paged = Content::Paged { depth: 3, pages: vec![(ChunkId([1; 32]), 2), (ChunkId([3; 32]), 4)] };
    for content in [inline, paged] {
        let bytes = content.encode();
        assert_eq!(Content::parse(&bytes).unwrap(), content);
        for len in 0..bytes.len() {
            assert!(Content::parse(&bytes[..len]).is_err(), "length {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(content) = Content::parse(&bad) {
                assert_eq!(content.encode(), bad, "bit {bit}");
            }
        }
    }
}

#[test]
fn lists_that_break_a_rule_are_refused() {
    let page = |depth: u8, pages: Vec<(ChunkId, u64)>| Content::Paged { depth, pages }.encode();
    let id = ChunkId([1; 32]);
    let bad = [
        Content::Inline(vec![]).encode(),
        Content::Inline(vec![Extent::Hole { len: 0 }]).encode(),
        Content::Inline(vec![data(1, 0)]).encode(),
        Content::Inline(vec![data(1, MAX_CHUNK + 1)]).encode(),
        Content::Inline(vec![Extent::Hole { len: u64::MAX }, data(1, 1)]).encode(),
        Content::Inline(vec![data(1, 1); 4097]).encode(),
        page(1, vec![]),
        page(9, vec![(id, 1)]),
        page(1, vec![(id, 0)]),
        page(1, vec![(id, u64::MAX), (id, 1)]),
        [&[0][..], &u32::MAX.to_le_bytes(), &[0; 64]].concat(),
        [&[1][..], &u32::MAX.to_le_bytes(), &[0; 64]].concat(),
    ];
    for (n, bytes) in bad.iter().enumerate() {
        assert!(matches!(Content::parse(bytes), Err(FormatError::Damaged(_))), "case {n}");
    }
}

#[test]
fn a_list_page_that_is_not_what_the_page_above_says_is_named() {
    let mut chunks = MemoryChunks::new();
    let extents: Vec<Extent> = (0..1000).map(|i| data(i, 10)).collect();
    let content = build(&extents, &mut chunks);
    let Content::Paged { pages, .. } = &content else { panic!("pages") };
    let (id, len) = pages[0];
    let other = Content::Inline(vec![Extent::Hole { len: len + 1 }]).encode();
    let deeper = Content::Paged { depth: 1, pages: vec![(id, len)] }.encode();
    for bytes in [other, deeper, vec![9; 100], vec![]] {
        chunks.replace(crate::seal::ChunkType::List, &id, &bytes);
        let error = extent_at(&chunks, &content, 0, Deadline::NEVER).unwrap_err();
        assert!(error.to_string().contains(&id.hex()), "{error}");
    }
    chunks.forget(crate::seal::ChunkType::List, &id);
    let mut reader = ContentReader::new(content.clone());
    let got: Vec<_> = reader.extents(&chunks, 0, Deadline::NEVER).collect();
    assert!(got.len() == 1 && got[0].is_err(), "the first error ends the iterator");
}

/// Pages that each name the page below 4,096 times: 2^60 extents in a few chunks.
#[test]
fn a_seek_in_a_list_without_end_ends() {
    let mut chunks = MemoryChunks::new();
    let mut put = |content: &Content| chunks.put(crate::seal::ChunkType::List, &content.encode()).unwrap();
    let mut page = Content::Inline(vec![data(1, 1); 4096]);
    for depth in 1..=4 {
        let item = (put(&page), page.len());
        page = Content::Paged { depth, pages: vec![item; 4096] };
    }
    let mut reader = ContentReader::new(page.clone());
    assert_eq!(reader.len(), 1 << 60);
    assert_eq!(reader.seek_hole(&chunks, 5, Deadline::NEVER).unwrap(), Some(1 << 60));
    assert_eq!(reader.seek_data(&chunks, 1 << 59, Deadline::NEVER).unwrap(), Some(1 << 59));
    assert_eq!(
        reader.extent_at(&chunks, (1 << 60) - 1, Deadline::NEVER).unwrap(),
        Some(((1 << 60) - 1, data(1, 1)))
    );
}
