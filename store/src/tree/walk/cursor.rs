//! A place in one directory: what listing, lookup, comparison and walk have in common.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::tree::Node;
use crate::tree::page::{InnerItem, Page};
use crate::tree::walk::Pages;

/// An entry in its page: no copy, the page stays as long as this does.
#[derive(Clone)]
pub struct NodeRef {
    page: Arc<Page>,
    at: usize,
}

impl NodeRef {
    fn new(page: &Arc<Page>, at: usize) -> Option<Self> {
        let Page::Leaf(nodes) = &**page else { return None };
        (at < nodes.len()).then(|| Self { page: page.clone(), at })
    }

    /// A copy that does not hold the page.
    pub fn to_node(&self) -> Node {
        self.deref().clone()
    }
}

impl Deref for NodeRef {
    type Target = Node;

    fn deref(&self) -> &Node {
        match &*self.page {
            Page::Leaf(nodes) => &nodes[self.at],
            Page::Inner { .. } => unreachable!("`new` takes places in leaves only"),
        }
    }
}

impl fmt::Debug for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

impl PartialEq for NodeRef {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// Where to go in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal<'a> {
    /// The first entry not before this name.
    Name(&'a [u8]),
    /// The entry with so many before it.
    Ordinal(u64),
}

/// What comes next: an entry, or a page of which nothing is known but its name and its first entry's.
#[derive(Debug)]
pub(super) enum Head {
    Node(NodeRef),
    Page { level: u8, id: ChunkId, first: Vec<u8> },
}

/// A place in a directory: the pages from the root down, each with the next item to look at.
#[derive(Debug)]
pub(super) struct Cursor {
    pages: Pages,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    page: Arc<Page>,
    /// Next item; those before it are done or on the steps below.
    at: usize,
    /// All names in the page must be below this.
    bound: Option<Vec<u8>>,
}

impl Step {
    fn is_done(&self) -> bool {
        match &*self.page {
            Page::Leaf(nodes) => self.at >= nodes.len(),
            Page::Inner { items, .. } => self.at >= items.len(),
        }
    }

    /// Moves to the item that leads to the goal; returns the number of entries passed.
    fn seek(&mut self, goal: Goal<'_>) -> u64 {
        match (&*self.page, goal) {
            (Page::Leaf(nodes), Goal::Name(name)) => {
                self.at = nodes.partition_point(|node| &node.name[..] < name);
                self.at as u64
            }
            (Page::Leaf(nodes), Goal::Ordinal(n)) => {
                self.at = usize::try_from(n).unwrap_or(usize::MAX).min(nodes.len());
                self.at as u64
            }
            (Page::Inner { items, .. }, Goal::Name(name)) => {
                self.at = items.partition_point(|item| &item.first[..] <= name).saturating_sub(1);
                items.iter().take(self.at).map(|item| item.entries).sum()
            }
            (Page::Inner { items, .. }, Goal::Ordinal(n)) => {
                let mut passed = 0;
                self.at = 0;
                while let Some(item) = items.get(self.at)
                    && n - passed >= item.entries
                {
                    passed += item.entries;
                    self.at += 1;
                }
                passed
            }
        }
    }
}

impl Cursor {
    /// At the front of the directory with this root page.
    pub(super) fn new(pages: Pages, root: Arc<Page>) -> Self {
        Self { pages, steps: vec![Step { page: root, at: 0, bound: None }] }
    }

    /// From the front of the directory to the goal; returns the number of entries before it.
    pub(super) fn seek(&mut self, mut goal: Goal<'_>, deadline: Deadline) -> Result<u64, StoreError> {
        let mut before = 0;
        while let Some(step) = self.steps.last_mut() {
            let passed = step.seek(goal);
            before += passed;
            if let Goal::Ordinal(n) = &mut goal {
                *n -= passed;
            }
            if step.is_done() || step.page.level() == 0 {
                break;
            }
            self.expand(deadline)?;
        }
        Ok(before)
    }

    /// What comes next, without loading anything; `None` at the end.
    pub(super) fn head(&mut self) -> Option<Head> {
        while self.steps.last()?.is_done() {
            self.steps.pop();
        }
        let step = self.steps.last()?;
        match &*step.page {
            Page::Leaf(_) => NodeRef::new(&step.page, step.at).map(Head::Node),
            Page::Inner { level, items } => {
                let item = items.get(step.at)?;
                Some(Head::Page { level: level - 1, id: item.page, first: item.first.clone() })
            }
        }
    }

    /// Passes what comes next, with all below it.
    pub(super) fn skip(&mut self) {
        if let Some(step) = self.steps.last_mut() {
            step.at += 1;
        }
    }

    /// Loads the page that comes next, so that its items come next.
    pub(super) fn expand(&mut self, deadline: Deadline) -> Result<(), StoreError> {
        let Some(step) = self.steps.last_mut() else { return Ok(()) };
        let Page::Inner { level, items } = &*step.page else { return Ok(()) };
        let Some(item) = items.get(step.at) else { return Ok(()) };
        let bound = items.get(step.at + 1).map(|next| next.first.clone()).or_else(|| step.bound.clone());
        let page = self.pages.page(&item.page, deadline)?;
        check_child(&page, *level, item, bound.as_deref())?;
        step.at += 1;
        self.steps.push(Step { page, at: 0, bound });
        Ok(())
    }

    /// The entry here, if the cursor stands in a leaf (as after [`Cursor::seek`]). The first entry of the next leaf is
    /// not looked for.
    pub(super) fn node(&self) -> Option<NodeRef> {
        self.steps.last().and_then(|step| NodeRef::new(&step.page, step.at))
    }

    /// Takes the next entry, loading pages as needed.
    pub(super) fn next_node(&mut self, deadline: Deadline) -> Result<Option<NodeRef>, StoreError> {
        loop {
            match self.steps.last() {
                None => return Ok(None),
                Some(step) if step.is_done() => {
                    self.steps.pop();
                }
                Some(step) => {
                    if let Some(node) = NodeRef::new(&step.page, step.at) {
                        self.skip();
                        return Ok(Some(node));
                    }
                    self.expand(deadline)?;
                }
            }
        }
    }
}

/// Holds a page against what the item above says of it.
fn check_child(page: &Page, parent: u8, item: &InnerItem, bound: Option<&[u8]>) -> Result<(), StoreError> {
    let wrong = |what: &str| {
        let detail = format!("its {what} is not what the page above says");
        Err(StoreError::corrupt(format!("directory page {}", item.page), detail))
    };
    if page.level() + 1 != parent {
        return wrong("level");
    }
    if page.first_name() != Some(&item.first[..]) {
        return wrong("first name");
    }
    if page.entries() != item.entries {
        return wrong("number of entries");
    }
    if bound.is_some_and(|bound| page.last_name().is_none_or(|last| last >= bound)) {
        return wrong("last name");
    }
    Ok(())
}
