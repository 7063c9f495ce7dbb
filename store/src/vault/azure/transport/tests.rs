//! Tests of what is taken of an answer, with bodies that are made here and never end.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream;

use super::*;
use crate::clock::{ManualClock, Timestamp};

const STEP: usize = 10_000;

/// An answer whose body does not end, and the count of bytes that were taken of it.
fn endless_answer(status: u16, text: &'static [u8]) -> (AsyncRawResponse, Arc<AtomicU64>) {
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let step = Bytes::from(text.repeat(STEP.div_ceil(text.len())));
    let body = stream::repeat_with(move || {
        counter.fetch_add(step.len() as u64, Ordering::Relaxed);
        Ok(step.clone())
    });
    let mut headers = Headers::new();
    headers.insert("retry-after", "7");
    (AsyncRawResponse::new(status.into(), headers, body.boxed()), taken)
}

fn answer(status: u16, body: impl Into<Bytes>) -> AsyncRawResponse {
    AsyncRawResponse::from_bytes(status.into(), Headers::new(), body)
}

async fn whole(answer: AsyncRawResponse, expected: Expected) -> azure_core::Result<Bytes> {
    let clock = ManualClock::at(Timestamp::default());
    bounded(answer, expected, &clock).await?.into_body().collect().await
}

#[tokio::test]
async fn an_answer_with_success_that_does_not_end_is_an_error_at_its_bound() {
    for (expected, max) in [
        (Expected::Range(100_000), 100_000),
        (Expected::Range(1), 1),
        (Expected::Listing, LISTING_MAX),
        (Expected::Little, LITTLE_MAX),
    ] {
        let (answer, taken) = endless_answer(200, b"x");
        let error = whole(answer, expected).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the vault's answer goes on after the {max} bytes that it may have")
        );
        assert!(taken.load(Ordering::Relaxed) <= max + STEP as u64, "{expected:?}");
    }
}

#[tokio::test]
async fn a_refusal_that_does_not_end_is_what_its_head_says() {
    for expected in [Expected::Range(1 << 40), Expected::Listing, Expected::Little] {
        let (answer, taken) = endless_answer(503, b"x");
        let clock = ManualClock::at(Timestamp::default());
        let (status, headers, body) = bounded(answer, expected, &clock).await.unwrap().deconstruct();
        assert_eq!(u16::from(status), 503);
        assert_eq!(headers.get_optional_str(&HeaderName::from_static("retry-after")), Some("7"));
        assert!(headers.get_optional_str(&HeaderName::from_static(CUT)).is_some());
        assert!(body.collect().await.unwrap().is_empty());
        assert!(taken.load(Ordering::Relaxed) <= LITTLE_MAX + STEP as u64);
    }
}

#[tokio::test]
async fn what_is_as_long_as_it_may_be_passes_whole() {
    let text = |len: u64| Bytes::from(vec![b'x'; len as usize]);
    for (status, expected, len) in [
        (206, Expected::Range(5), 5),
        (206, Expected::Range(5), 3),
        (200, Expected::Listing, LISTING_MAX),
        (201, Expected::Little, LITTLE_MAX),
        (404, Expected::Range(5), LITTLE_MAX),
        (404, Expected::Listing, 0),
    ] {
        let got = whole(answer(status, text(len)), expected).await.unwrap();
        assert_eq!(got.len() as u64, len, "{status} {expected:?}");
    }
}

/// Of the service a byte a second, say.
fn trickle(clock: &ManualClock, status: u16) -> AsyncRawResponse {
    let clock = clock.clone();
    let body = stream::repeat_with(move || clock.advance(Duration::from_secs(1)))
        .then(|()| async {
            tokio::task::yield_now().await;
            Ok(Bytes::from_static(b"x"))
        })
        .take(100);
    AsyncRawResponse::new(status.into(), Headers::new(), body.boxed())
}

#[tokio::test]
async fn a_little_answer_that_trickles_is_given_up_and_a_range_is_not() {
    let clock = ManualClock::at(Timestamp::default());
    let refused = bounded(trickle(&clock, 500), Expected::Range(100), &clock).await.unwrap();
    assert!(refused.headers().get_optional_str(&HeaderName::from_static(CUT)).is_some());
    assert!(clock.now().seconds <= 11, "{:?}", clock.now());
    let error = bounded(trickle(&clock, 201), Expected::Little, &clock).await.unwrap_err();
    assert_eq!(error.to_string(), "the vault's answer did not end within 10 s");
    let range = bounded(trickle(&clock, 206), Expected::Range(100), &clock).await.unwrap();
    assert_eq!(range.into_body().collect().await.unwrap().len(), 100, "the transfer limits requests");
}

#[tokio::test]
async fn a_page_names_no_more_objects_than_a_page_has() {
    let honest = b"<Blob><Name>x:Blobs</Name><BlobType/></Blob>".repeat(PAGE_MAX);
    assert_eq!(whole(answer(200, honest.clone()), Expected::Listing).await.unwrap(), honest);
    for object in ["<Blob/>", "<Blob></Blob>", "<Blob a=''/>", "<x:Blob/>", "<Blob\n/>"] {
        let error = whole(answer(200, object.repeat(PAGE_MAX + 1)), Expected::Listing).await.unwrap_err();
        assert!(error.to_string().contains("5001 objects in one page"), "{object:?}: {error}");
    }
}

#[test]
fn what_is_expected_is_read_off_the_request() {
    let expected = |method, query: &str, range: Option<&'static str>| {
        let mut request = Request::new(format!("http://a.example/c{query}").parse().unwrap(), method);
        range.into_iter().for_each(|range| request.insert_header("range", range));
        Expected::by(&request)
    };
    assert_eq!(expected(Method::Get, "/o", Some("bytes=10-19")), Expected::Range(10));
    assert_eq!(expected(Method::Get, "/o", Some("bytes=0-18446744073709551615")), Expected::Range(u64::MAX));
    assert_eq!(expected(Method::Get, "?comp=list&restype=container", None), Expected::Listing);
    for (method, query) in [
        (Method::Get, "/o"),
        (Method::Get, "?comp=lists"),
        (Method::Put, "?restype=container"),
        (Method::Put, "/o?comp=list"),
        (Method::Head, "/o"),
        (Method::Delete, "/o"),
        (Method::Post, "/token"),
    ] {
        assert_eq!(expected(method, query, None), Expected::Little, "{query}");
    }
}
