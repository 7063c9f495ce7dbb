//! Signs of life: small objects that are put from time to time, as long as somebody works.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Transfer, put};
use crate::clock::Deadline;
use crate::vault::ObjectName;

/// Puts objects until it is dropped.
#[derive(Debug)]
pub struct Beating(tokio::task::JoinHandle<()>);

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Transfer {
    /// Puts the empty objects that `next` names, each time `every` has passed on the wall clock. One that cannot be put is left out: whoever
    /// misses it is told elsewhere that the vault is away.
    pub fn beat(
        &self,
        every: Duration,
        next: impl Fn() -> Vec<ObjectName> + Send + Sync + 'static,
    ) -> Beating {
        let inner = Arc::clone(&self.inner);
        Beating(self.runtime.spawn(async move {
            loop {
                inner.clock.limit(inner.clock.until_passed(every)).await;
                for name in next() {
                    let _ = put::put_new(&inner, &name, Bytes::new(), Deadline::NEVER).await;
                }
            }
        }))
    }
}
