//! A body that goes out no faster than it may. It takes the place of the bytes of a request last of all, when these have their
//! checksum and the request is signed, so that the other side sees one `Put Blob` as ever that takes its time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Waking, Poll, ready};

use async_trait::async_trait;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Body, Context, Request};
use azure_core::stream::SeekableStream;
use bytes::Bytes;
use futures::AsyncRead;
use futures::future::BoxFuture;

use super::policy::pass_on;
use crate::pace::{PIECE_MAX, Pacer};

/// Has the body of a request keep to the pace that is in its context.
#[derive(Debug)]
pub(super) struct Paced;

#[async_trait]
impl Policy for Paced {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        if let (Some(pacer), Body::Bytes(bytes)) = (ctx.value::<Arc<Pacer>>(), request.body())
            && !bytes.is_empty()
        {
            let body = PacedBody::new(bytes.clone(), Arc::clone(pacer));
            request.set_body(Body::SeekableStream(Box::new(body)));
        }
        pass_on(ctx, request, next).await
    }
}

/// Bytes that are handed out as the pacer lets them pass.
struct PacedBody {
    bytes: Bytes,
    at: usize,
    pacer: Arc<Pacer>,
    /// The wait for the next piece. The lock is never taken: it makes of a future what threads may share.
    taking: Mutex<Option<BoxFuture<'static, usize>>>,
}

impl PacedBody {
    fn new(bytes: Bytes, pacer: Arc<Pacer>) -> Self {
        Self { bytes, at: 0, pacer, taking: Mutex::default() }
    }
}

/// The client sends a clone, from its beginning.
impl Clone for PacedBody {
    fn clone(&self) -> Self {
        Self::new(self.bytes.clone(), Arc::clone(&self.pacer))
    }
}

impl fmt::Debug for PacedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacedBody")
            .field("at", &self.at)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl AsyncRead for PacedBody {
    fn poll_read(
        mut self: Pin<&mut Self>,
        waking: &mut Waking<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let left = this.bytes.slice(this.at..);
        let most = left.len().min(buffer.len());
        if most == 0 {
            return Poll::Ready(Ok(0));
        }
        let pacer = &this.pacer;
        let taking = this.taking.get_mut().unwrap_or_else(PoisonError::into_inner);
        let take = taking.get_or_insert_with(|| {
            let pacer = Arc::clone(pacer);
            Box::pin(async move { pacer.take(most).await })
        });
        let piece = ready!(take.as_mut().poll(waking)).min(most);
        *taking = None;
        let (to, from) = (buffer.iter_mut(), left.iter());
        to.zip(from).take(piece).for_each(|(to, from)| *to = *from);
        this.at += piece;
        Poll::Ready(Ok(piece))
    }
}

#[async_trait]
impl SeekableStream for PacedBody {
    async fn reset(&mut self) -> azure_core::Result<()> {
        *self = self.clone();
        Ok(())
    }

    fn len(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn buffer_size(&self) -> usize {
        PIECE_MAX
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use futures::AsyncReadExt;

    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::pace::{Limit, Pace};

    #[tokio::test]
    async fn a_body_is_whole_as_often_as_it_is_sent_and_takes_its_time() {
        let clock = ManualClock::at(Timestamp::default());
        let pace =
            Pace::new(Arc::new(clock.clone()), |_| Limit { bytes_per_second: Some(20_000), until: None });
        let bytes: Bytes = (0..100_000u32).map(|n| n as u8).collect();
        let mut body = PacedBody::new(bytes.clone(), Pacer::new(&pace));
        for round in 1..=3 {
            let mut sent = Vec::new();
            body.read_to_end(&mut sent).await.unwrap();
            assert!(sent == bytes, "round {round}");
            let (took, due) = (clock.monotonic(), Duration::from_secs(5 * round));
            assert!(took.abs_diff(due) < Duration::from_millis(250), "round {round}: {took:?}");
            if round == 1 { body = body.clone() } else { body.reset().await.unwrap() }
        }
        assert_eq!(body.len(), Some(100_000));
    }
}
