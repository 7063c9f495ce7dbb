//! Queues, and the threads that work them off.
//!
//! What waits for a vault has a lane for each vault, so that one that hangs holds up nothing from another. In it pages of directories go
//! before contents, and a quarter of the threads is for them alone: a listing does not stand behind bulk reads.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use holdfast_store::catalog::VaultNo;

use super::Work;
use crate::lock::lock;
use crate::recovery::Line;

/// Threads that do one thing after the other.
pub(super) fn lane(name: &str, threads: usize) -> std::io::Result<Sender<Work>> {
    let (sender, receiver) = unbounded::<Work>();
    for n in 0..threads.max(1) {
        let receiver: Receiver<Work> = receiver.clone();
        let run = move || receiver.iter().for_each(|work| work());
        thread::Builder::new().name(format!("{name}-{n}")).spawn(run)?;
    }
    Ok(sender)
}

/// The lanes of vaults; each begins when it is first needed.
pub(super) struct VaultLanes {
    threads: usize,
    queues: Mutex<HashMap<Option<VaultNo>, Queue>>,
}

#[derive(Clone)]
struct Queue {
    pages: Sender<Work>,
    contents: Sender<Work>,
}

impl VaultLanes {
    /// So many threads for each vault.
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), queues: Mutex::default() }
    }

    /// Has work done by a thread of its lane. Without one the watchman answers.
    pub(super) fn send(&self, line: Line, work: Work) {
        let queue = lock(&self.queues).entry(line.vault).or_insert_with(|| start(self.threads)).clone();
        let _ = if line.is_page { queue.pages.send(work) } else { queue.contents.send(work) };
    }
}

fn start(threads: usize) -> Queue {
    let ((pages, of_pages), (contents, of_contents)) = (unbounded::<Work>(), unbounded::<Work>());
    for n in 0..threads {
        let (pages, contents) = (of_pages.clone(), of_contents.clone());
        let run = move || match n < threads / 4 {
            true => pages.iter().for_each(|work| work()),
            false => std::iter::from_fn(|| next(&pages, &contents)).for_each(|work| work()),
        };
        if let Err(error) = thread::Builder::new().name(format!("holdfast-vault-{n}")).spawn(run) {
            tracing::warn!(%error, "a thread less that waits for vaults");
        }
    }
    Queue { pages, contents }
}

/// What is to be done next; nothing after the end.
fn next(pages: &Receiver<Work>, contents: &Receiver<Work>) -> Option<Work> {
    pages.try_recv().ok().or_else(|| {
        select! {
            recv(pages) -> work => work.ok(),
            recv(contents) -> work => work.ok(),
        }
    })
}
