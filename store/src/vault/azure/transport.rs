//! The HTTP client, whose answers end. The SDK collects whatever comes of a refusal, a listing and most other answers before
//! anybody sees it, and a server, or what sits on the way to it, may send without end.
//!
//! What comes is cut at what such an answer may be long. An answer that promised success is then an error; a refusal
//! keeps its status and its headers, which say all that we believe of it, and loses its text.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Error;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::response::{AsyncResponseBody, PinnedStream};
use azure_core::http::{AsyncRawResponse, HttpClient, Method, Request, StatusCode};
use futures::{StreamExt, TryStreamExt};

use crate::clock::{Clock, SystemClock};

/// Most bytes of a refusal, and of any answer that is neither bytes of an object nor a listing. The service's own have less than
/// 1 KiB, tokens a few; pages of proxies in between are longer, and of no use.
const LITTLE_MAX: u64 = 64 << 10;
/// How long such an answer may take from its head to its end.
const LITTLE_LIMIT: Duration = Duration::from_secs(10);
/// Most objects in a page of a listing, which is the service's own bound.
const PAGE_MAX: usize = 5000;
/// Most bytes of a page: 3 KiB for each object. One of ours takes about 1 KiB; the rest is for longer names and more properties of
/// somebody else's blobs.
const LISTING_MAX: u64 = PAGE_MAX as u64 * (3 << 10);

/// In the headers of a refusal: its text was not believed to end.
pub(super) const CUT: &str = "x-holdfast-cut";

/// A client that takes no more of an answer than it may have.
#[derive(Debug)]
pub(super) struct Bounded(pub(super) Arc<dyn HttpClient>);

#[async_trait]
impl HttpClient for Bounded {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = self.0.execute_request(request).await?;
        bounded(answer, Expected::by(request), &SystemClock).await
    }
}

/// What an answer with success consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// So many bytes of an object at most.
    Range(u64),
    /// A page of a listing.
    Listing,
    /// Hardly anything.
    Little,
}

impl Expected {
    fn by(request: &Request) -> Self {
        let range = request.headers().get_optional_str(&HeaderName::from_static("range"));
        let numbers = range.and_then(|range| range.strip_prefix("bytes=")).and_then(super::policy::numbers);
        match (request.method(), numbers) {
            (Method::Get, Some((first, last))) => Self::Range(last.saturating_sub(first).saturating_add(1)),
            (Method::Get, None)
                if request.url().query_pairs().any(|(key, value)| key == "comp" && value == "list") =>
            {
                Self::Listing
            }
            _ => Self::Little,
        }
    }
}

async fn bounded(
    answer: AsyncRawResponse,
    expected: Expected,
    clock: &dyn Clock,
) -> azure_core::Result<AsyncRawResponse> {
    let (status, headers, body) = answer.deconstruct();
    if !status.is_success() {
        return refusal(status, headers, body, clock).await;
    }
    let bytes = match expected {
        Expected::Range(len) => return Ok(AsyncRawResponse::new(status, headers, ends_within(body, len))),
        Expected::Listing => page(body).await?,
        Expected::Little => little(body, clock).await?,
    };
    Ok(AsyncRawResponse::from_bytes(status, headers, bytes))
}

async fn refusal(
    status: StatusCode,
    mut headers: Headers,
    body: AsyncResponseBody,
    clock: &dyn Clock,
) -> azure_core::Result<AsyncRawResponse> {
    let text = match little(body, clock).await {
        Err(e) if *e.kind() == ErrorKind::Other => {
            headers.insert(CUT, "");
            Vec::new()
        }
        text => text?,
    };
    Ok(AsyncRawResponse::from_bytes(status, headers, text))
}

async fn little(body: AsyncResponseBody, clock: &dyn Clock) -> azure_core::Result<Vec<u8>> {
    tokio::select! {
        biased;
        () = clock.limit(LITTLE_LIMIT) => {
            Err(endless(&format!("did not end within {} s", LITTLE_LIMIT.as_secs())))
        }
        bytes = collect(body, LITTLE_MAX) => bytes,
    }
}

/// The SDK makes something for each object that a page names, however short the name.
async fn page(body: AsyncResponseBody) -> azure_core::Result<Vec<u8>> {
    let page = collect(body, LISTING_MAX).await?;
    match objects(&page) {
        0..=PAGE_MAX => Ok(page),
        more => Err(endless(&format!("has {more} objects in one page of a listing"))),
    }
}

/// How many objects a listing names, from above: places where an element of that name may begin.
fn objects(page: &[u8]) -> usize {
    let begins = |place: &&[u8]| matches!(place, [b'<' | b':', b'B', b'l', b'o', b'b', after] if !after.is_ascii_alphanumeric());
    page.windows(6).filter(begins).count()
}

async fn collect(body: AsyncResponseBody, max: u64) -> azure_core::Result<Vec<u8>> {
    let append = |mut all: Vec<u8>, bytes: bytes::Bytes| {
        all.extend_from_slice(&bytes);
        ready(Ok(all))
    };
    ends_within(body, max).try_fold(Vec::new(), append).await
}

/// A body that is an error as soon as it is longer than `max` bytes.
fn ends_within(body: AsyncResponseBody, max: u64) -> PinnedStream {
    let mut left = max;
    let check = move |bytes: bytes::Bytes| match left.checked_sub(bytes.len() as u64) {
        Some(less) => {
            left = less;
            ready(Ok(bytes))
        }
        None => ready(Err(endless(&format!("goes on after the {max} bytes that it may have")))),
    };
    body.and_then(check).boxed()
}

fn endless(how: &str) -> Error {
    Error::with_message(ErrorKind::Other, format!("the vault's answer {how}"))
}

#[cfg(test)]
mod tests;
