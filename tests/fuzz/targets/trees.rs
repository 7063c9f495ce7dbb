//! Pages of directories and of content lists, alone and put together by somebody who means harm.

use std::sync::Arc;

use holdfast_store::clock::Deadline;
use holdfast_store::id::ChunkId;
use holdfast_store::seal::ChunkType;
use holdfast_store::tree::page::Page;
use holdfast_store::tree::testing::MemoryChunks;
use holdfast_store::tree::walk::{Directory, PageCache, Pages, Visit, compare, lookup_path, visit};
use holdfast_store::tree::{Content, content::ContentReader};

use super::forge::Input;

/// One page: what is taken can be written, and that is read as the same and written as the same.
pub fn page(data: &[u8]) {
    let Ok(page) = Page::parse(data) else { return };
    let _ = (page.entries(), page.first_name(), page.last_name(), page.memory());
    let bytes = page.encode().expect("what was read can be written");
    assert_eq!(Page::parse(&bytes).as_ref(), Ok(&page));
    assert_eq!(Page::parse(&bytes).expect("read before").encode().expect("written before"), bytes);
}

/// One list page: there is one way to write it.
pub fn list(data: &[u8]) {
    let Ok(content) = Content::parse(data) else { return };
    assert_eq!(content.encode(), data);
    assert!(!content.is_empty() && content.items() <= 4096);
    follow(&content, &MemoryChunks::new());
}

/// Most entries and extents that are looked at.
const ENOUGH: usize = 200;

/// Up to eight pages: page n lies under the id of 32 times n, so that the input can point from any to any. The root is page 0.
pub fn tree(data: &[u8]) {
    let mut input = Input(data);
    let goal = input.u64();
    let chunks = MemoryChunks::new();
    for n in 0..8 {
        let plain = input.part();
        chunks.replace(ChunkType::Tree, &ChunkId([n; 32]), plain);
        chunks.replace(ChunkType::List, &ChunkId([n; 32]), plain);
    }
    let name = input.0;
    let pages = Pages::cached(Arc::new(chunks.clone()), Arc::new(PageCache::new(1 << 20)));
    let root = ChunkId([0; 32]);
    let Ok(directory) = Directory::open(&pages, &root, Deadline::NEVER) else { return };
    let _ = (directory.len(), directory.position(name, Deadline::NEVER));
    if let Ok(Some(node)) = directory.lookup(name, Deadline::NEVER) {
        assert_eq!(node.name, name);
    }
    let _ = lookup_path(&pages, &root, name, Deadline::NEVER);
    let _ = directory.at(goal, Deadline::NEVER);
    for from in [0, goal] {
        let Ok(entries) = directory.entries_at(from, Deadline::NEVER) else { continue };
        let mut last: Option<Vec<u8>> = None;
        for node in entries.take(ENOUGH).map_while(Result::ok) {
            assert!(last.as_ref().is_none_or(|last| *last < node.name), "a listing ascends");
            last = Some(node.name.clone());
            if let Some(content) = &node.content {
                follow(content, &chunks);
            }
        }
    }
    if let Ok(entries) = directory.entries_from(name, Deadline::NEVER) {
        assert!(entries.take(ENOUGH).map_while(Result::ok).all(|node| node.name[..] >= *name));
    }
    let mut seen = 0;
    let visited = visit(&pages, &root, ENOUGH as u64, Deadline::NEVER, &mut |_, _| {
        seen += 1;
        Ok(Visit::Continue)
    });
    assert!(seen <= ENOUGH && visited.ok().is_none_or(|visited| visited == seen as u64));
    let other = ChunkId([1; 32]);
    let _ = compare((&pages, &root), (&pages, &other), Deadline::NEVER)
        .map(|changes| changes.take(ENOUGH).count());
}

/// The extents of a list, from several offsets.
fn follow(content: &Content, chunks: &MemoryChunks) {
    let mut reader = ContentReader::new(content.clone());
    let len = reader.len();
    for offset in [0, len / 2, len.saturating_sub(1), len] {
        let at = reader.extent_at(chunks, offset, Deadline::NEVER);
        if let Ok(Some((start, extent))) = at {
            assert!(start <= offset && offset - start < extent.len(), "the extent holds the offset");
        }
        let mut next = None;
        for (start, extent) in
            reader.extents(chunks, offset, Deadline::NEVER).take(ENOUGH).map_while(Result::ok)
        {
            assert!(next.is_none_or(|next| next == start), "extents follow each other");
            next = start.checked_add(extent.len());
        }
        if let Ok(Some(found)) = reader.seek_data(chunks, offset, Deadline::NEVER) {
            assert!((offset..=len).contains(&found));
        }
        if let Ok(Some(found)) = reader.seek_hole(chunks, offset, Deadline::NEVER) {
            assert!((offset..=len).contains(&found));
        }
    }
}
