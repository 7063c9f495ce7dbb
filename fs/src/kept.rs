//! Nodes that were asked for lately, up to so many bytes of them: an attribute by name may have 64 KB, and a node many of these.

use std::hash::Hash;
use std::mem::size_of;
use std::sync::Arc;

use holdfast_store::id::ChunkId;
use holdfast_store::tree::{Content, Extent, Node, Xattr};
use lru::LruCache;

/// What a node takes besides what it holds: key, links of the list, counters.
const OVERHEAD: usize = 160;

/// A node with more bytes than this part of the limit is not kept: it would drive out too many others.
const LARGEST: usize = 64;

/// Nodes by key; those unused for longest go first.
pub(crate) struct Kept<K: Hash + Eq> {
    nodes: LruCache<K, Arc<Node>>,
    bytes: usize,
    limit: usize,
}

impl<K: Hash + Eq> Kept<K> {
    /// Keeps nodes of about `limit` bytes together.
    pub(crate) fn new(limit: usize) -> Self {
        Self { nodes: LruCache::unbounded(), bytes: 0, limit }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<Arc<Node>> {
        self.nodes.get(key).cloned()
    }

    /// Keeps a node, unless it is very large.
    pub(crate) fn put(&mut self, key: K, node: Arc<Node>) {
        let size = memory(&node);
        if size > self.limit / LARGEST {
            return;
        }
        self.bytes += size;
        if let Some(before) = self.nodes.put(key, node) {
            self.bytes -= memory(&before);
        }
        while self.bytes > self.limit {
            let Some((_, node)) = self.nodes.pop_lru() else { break };
            self.bytes -= memory(&node);
        }
    }
}

/// Bytes of memory that a node takes in such a list, about.
pub(crate) fn memory(node: &Node) -> usize {
    let names = [Some(&node.name), node.user.as_ref(), node.group.as_ref(), node.target.as_ref()];
    let names: usize = names.into_iter().flatten().map(Vec::len).sum();
    let xattr = |xattr: &Xattr| size_of::<Xattr>() + xattr.name.len() + xattr.value.len();
    let extension = |(_, value): &(u16, Vec<u8>)| size_of::<(u16, Vec<u8>)>() + value.len();
    let content = match &node.content {
        Some(Content::Inline(extents)) => extents.len() * size_of::<Extent>(),
        Some(Content::Paged { pages, .. }) => pages.len() * size_of::<(ChunkId, u64)>(),
        None => 0,
    };
    let long: usize = node.xattrs.iter().map(xattr).chain(node.extensions.iter().map(extension)).sum();
    OVERHEAD + size_of::<Node>() + names + content + long
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{file, link};

    fn large(bytes: usize) -> Node {
        let xattrs = vec![Xattr { name: b"user.a".to_vec(), value: vec![0; bytes] }];
        Node { xattrs, ..file("f", b"") }
    }

    #[test]
    fn nodes_are_kept_by_their_bytes_and_the_longest_unused_go_first() {
        let mut kept = Kept::new(64 << 10);
        (0..1000).for_each(|n| kept.put(n, Arc::new(file("f", b""))));
        let many = kept.nodes.len();
        assert!((64..500).contains(&many) && kept.bytes <= 64 << 10, "{many} nodes, {} bytes", kept.bytes);
        assert!(kept.get(&0).is_none() && kept.get(&999).is_some());
        let oldest = 1000 - many;
        kept.get(&oldest);
        (0..10).for_each(|n| kept.put(1000 + n, Arc::new(large(300))));
        assert!(kept.get(&oldest).is_some() && kept.get(&(oldest + 1)).is_none());
        assert!(kept.nodes.len() < many && kept.bytes <= 64 << 10);
    }

    #[test]
    fn a_node_in_place_of_another_counts_once_and_a_very_large_one_is_not_kept() {
        let mut kept = Kept::new(64 << 10);
        (0..100).for_each(|n| kept.put(7, Arc::new(large(n))));
        assert_eq!((kept.nodes.len(), kept.bytes), (1, memory(&large(99))));
        kept.put(8, Arc::new(large(1 << 10)));
        assert!(kept.get(&8).is_none() && kept.get(&7).is_some());
    }

    #[test]
    fn all_that_a_node_holds_weighs() {
        let plain = memory(&file("f", b""));
        assert!(plain > size_of::<Node>());
        assert_eq!(memory(&file("f", b"x")), plain + size_of::<Extent>());
        assert!(memory(&link("l", &"x".repeat(1000))) >= plain + 1000 && memory(&large(5000)) > plain + 5000);
        let pages = vec![(ChunkId([0; 32]), 1); 10];
        let paged = Node { content: Some(Content::Paged { depth: 1, pages }), ..file("f", b"") };
        let later = Node { extensions: vec![(9, vec![0; 50])], ..file("f", b"") };
        assert!(memory(&paged) >= plain + 400 && memory(&later) > plain + 50);
    }
}
