//! The doors of a machine in a simulation: its clock, its chance and its way to the vault.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_store::cache::GRID;
use holdfast_store::chance::Chance;
use holdfast_store::clock::{Clock, Timestamp};
use holdfast_store::vault::memory::MemoryVault;
use holdfast_store::vault::{ListPage, ObjectName, PutNew, Vault, VaultError, Verb};

use crate::life::Process;
use crate::world::{BEGINNING, Fate};

/// A machine's clock: the world's time, and by so much another one.
#[derive(Debug)]
pub struct Time(pub Arc<Process>);

impl Clock for Time {
    fn now(&self) -> Timestamp {
        let now = self.0.life().world().now();
        let seconds = BEGINNING + now.as_secs().cast_signed() + self.0.life().skew();
        Timestamp { seconds, nanos: now.subsec_nanos() }
    }

    fn monotonic(&self) -> Duration {
        self.0.life().world().now() + self.0.wasted()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move { self.pause(duration) })
    }

    fn pause(&self, duration: Duration) {
        self.0.sleep(duration);
    }

    fn limit(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // The world says what takes too long, and gives signs of life for those who are alive.
        Box::pin(std::future::pending())
    }
}

/// What a machine cannot foresee, and its seed can.
#[derive(Debug)]
pub struct Dice {
    key: [u8; 32],
    drawn: AtomicU64,
}

impl Dice {
    /// Those of one life of a machine.
    pub fn new(seed: u64, machine: usize, life: u64) -> Self {
        let of = format!("dice {seed} {machine} {life}");
        Self { key: *blake3::hash(of.as_bytes()).as_bytes(), drawn: AtomicU64::new(0) }
    }

    fn draw(&self, purpose: &str) -> [u8; 32] {
        let number = self.drawn.fetch_add(1, Ordering::SeqCst);
        *blake3::keyed_hash(&self.key, format!("{purpose} {number}").as_bytes()).as_bytes()
    }
}

impl Chance for Dice {
    fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.draw("id")[..16]);
        id
    }

    fn hedge(&self) -> [u8; 32] {
        // The same each time, since threads draw it in any order: what is sealed makes nonces differ.
        self.key
    }

    fn part(&self) -> f64 {
        f64::from(self.draw("part")[0]) / 255.0
    }
}

/// A machine's way to the vault.
#[derive(Debug)]
pub struct Way {
    /// Whose it is.
    pub process: Arc<Process>,
    /// Where it leads.
    pub vault: Arc<MemoryVault>,
}

impl Way {
    /// What comes of a request, and whether it has its effect now.
    fn ask(&self, verb: Verb, name: &str) -> Result<Fate, VaultError> {
        match self.process.ask(verb, name) {
            Fate::Over => Err(VaultError::Cancelled),
            Fate::LostBefore => Err(VaultError::unavailable("lost on the way")),
            Fate::Denied => Err(VaultError::Denied { detail: "the credential was refused".into() }),
            Fate::Busy(wait) => {
                Err(VaultError::Unavailable { detail: "busy".into(), retry_after: Some(wait) })
            }
            fate => Ok(fate),
        }
    }
}

fn answered<T>(fate: Fate, answer: T) -> Result<T, VaultError> {
    match fate {
        Fate::LostAfter => Err(VaultError::unavailable("the answer was lost")),
        _ => Ok(answer),
    }
}

#[async_trait]
impl Vault for Way {
    fn address(&self) -> String {
        "memory".into()
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        let fate = self.ask(Verb::Prepare, "")?;
        answered(fate, ())
    }

    async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError> {
        let fate = self.ask(Verb::Put, name.as_str())?;
        if let Fate::Late(after) = fate {
            let (vault, name) = (self.vault.clone(), name.clone());
            let arrives = move || drop(futures::executor::block_on(vault.put_new(&name, body)));
            self.process.life().world().later(after, Box::new(arrives));
            return Err(VaultError::Timeout);
        }
        let put = self.vault.put_new(name, body).await?;
        self.process.has_put(name);
        answered(fate, put)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError> {
        let fate = self.ask(Verb::Get, name.as_str())?;
        let asked = range.clone();
        let bytes = self.vault.get_range(name, range).await?;
        if !self.process.life().world().was_rotten(name) {
            assert_on_grid(name, &asked, self.vault.stat(name).await?);
        }
        match fate {
            Fate::Short => Ok(bytes.slice(..bytes.len() / 2)),
            Fate::Flipped if !bytes.is_empty() => {
                let mut bytes = bytes.to_vec();
                let at = self.process.life().world().below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.process.life().world().below(8);
                Ok(bytes.into())
            }
            _ => answered(fate, bytes),
        }
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        let fate = self.ask(Verb::Stat, name.as_str())?;
        answered(fate, self.vault.stat(name).await?)
    }

    async fn list(&self, prefix: &str, from: Option<&str>) -> Result<ListPage, VaultError> {
        let fate = self.ask(Verb::List, prefix)?;
        answered(fate, self.vault.list(prefix, from).await?)
    }

    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        let fate = self.ask(Verb::Delete, name.as_str())?;
        answered(fate, self.vault.delete(name).await?)
    }

    async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError> {
        let fate = self.ask(Verb::Delete, name.as_str())?;
        answered(fate, self.vault.delete_exactly(name, bytes).await?)
    }
}

/// Requests for parts of packs are on the grid, whatever happens in a world.
fn assert_on_grid(name: &ObjectName, asked: &Range<u64>, len: Option<u64>) {
    let is_end = |at: u64| at.is_multiple_of(GRID) || len == Some(at);
    let is_on = asked.start.is_multiple_of(GRID) && is_end(asked.end);
    assert!(is_on || !name.as_str().starts_with("pack/"), "{name}: {asked:?} of {len:?}");
}
