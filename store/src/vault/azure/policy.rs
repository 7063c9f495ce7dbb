//! What we add to the SDK's requests, each try anew, because its defaults are not safe for us:
//! bodies go out with a checksum that the service verifies, and ranged answers are compared with what was asked.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::Error;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Body, Context, Method, Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};

/// Adds `Content-MD5` to bodies, before the signer sees them: the service refuses what changed on its way.
#[derive(Debug)]
pub(super) struct Checksum;

#[async_trait]
impl Policy for Checksum {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        if let (Method::Put, Body::Bytes(body)) = (request.method(), request.body())
            && !body.is_empty()
        {
            let md5 = BASE64.encode(Md5::digest(body));
            request.insert_header("content-md5", md5);
        }
        pass_on(ctx, request, next).await
    }
}

/// Refuses an answer to a ranged request that does not say it begins where it was asked to, does not end later,
/// and is not as long as it says. Middleboxes have answered so, and the SDK believes them.
#[derive(Debug)]
pub(super) struct RangeCheck;

#[async_trait]
impl Policy for RangeCheck {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let asked = header(request.headers(), "range").map(str::to_owned);
        let response = pass_on(ctx, request, next).await?;
        match asked {
            Some(asked) if ends_before(&asked, response.headers()) => Err(out_of_range()),
            Some(asked) if response.status().is_success() => {
                match wrong_range(&asked, u16::from(response.status()), response.headers()) {
                    Some(wrong) => Err(Error::with_message(ErrorKind::Other, wrong)),
                    None => Ok(response),
                }
            }
            _ => Ok(response),
        }
    }
}

/// Whether an answer says that the object has no byte of what was asked for. The emulator answers so, with success
/// and a range that ends before it starts, when the range begins just at the object's end.
fn ends_before(asked: &str, headers: &Headers) -> bool {
    let first = asked.strip_prefix("bytes=").and_then(numbers).map(|(first, _)| first);
    let total = header(headers, "content-range").and_then(|said| said.rsplit_once('/')?.1.parse().ok());
    first.zip(total).is_some_and(|(first, total): (u64, u64)| total <= first)
}

/// What the service itself answers to such a range.
fn out_of_range() -> Error {
    let status = StatusCode::RequestedRangeNotSatisfiable;
    let kind =
        ErrorKind::HttpResponse { status, error_code: Some("InvalidRange".into()), raw_response: None };
    Error::with_message(kind, "the object ends before the range")
}

fn wrong_range(asked: &str, status: u16, headers: &Headers) -> Option<String> {
    let said = header(headers, "content-range").unwrap_or_default();
    let long = header(headers, "content-length");
    let wrong = || {
        let len = long.map_or_else(|| "an unknown number of".to_owned(), str::to_owned);
        Some(format!("asked for {asked:?}, the answer has status {status}, range {said:?} and {len} bytes"))
    };
    let (Some((first, last)), Some((start, end))) = (
        asked.strip_prefix("bytes=").and_then(numbers),
        said.strip_prefix("bytes ").and_then(|said| numbers(said.split('/').next()?)),
    ) else {
        return wrong();
    };
    let len = long.map(str::parse::<u64>);
    let len_is_right = len.is_none_or(|len| len.ok() == end.checked_sub(start).map(|n| n.saturating_add(1)));
    if status == 206 && start == first && end <= last && len_is_right { None } else { wrong() }
}

/// First and last of a range of bytes.
pub(super) fn numbers(range: &str) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn header<'a>(headers: &'a Headers, name: &'static str) -> Option<&'a str> {
    headers.get_optional_str(&HeaderName::from_static(name))
}

/// Hands the request to the policy after this one.
pub(super) async fn pass_on(
    ctx: &Context<'_>,
    request: &mut Request,
    next: &[Arc<dyn Policy>],
) -> PolicyResult {
    match next.split_first() {
        Some((first, rest)) => first.send(ctx, request, rest).await,
        None => Err(Error::with_message(ErrorKind::Other, "no transport")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_ends_before_the_range_is_told_from_a_wrong_answer() {
        let check = |range: &'static str| {
            let mut headers = Headers::new();
            headers.insert("content-range", range);
            ends_before("bytes=10-19", &headers)
        };
        assert!(check("bytes 10-9/10") && check("bytes */3"));
        assert!(!check("bytes 10-10/11") && !check("bytes 10-19/*") && !check(""));
    }

    #[test]
    fn only_the_range_that_was_asked_for_passes() {
        let check = |status, range: &'static str, len: &'static str| {
            let mut headers = Headers::new();
            headers.insert("content-range", range);
            headers.insert("content-length", len);
            wrong_range("bytes=10-19", status, &headers).is_none()
        };
        assert!(check(206, "bytes 10-19/100", "10"));
        assert!(check(206, "bytes 10-14/100", "5"), "short but honest: the rest is asked for");
        assert!(!check(200, "bytes 10-19/100", "10"));
        assert!(!check(206, "bytes 11-19/100", "9"));
        assert!(!check(206, "bytes 10-20/100", "11"));
        assert!(!check(206, "bytes 10-19/100", "5"));
        assert!(!check(206, "bytes 19-10/100", "5"));
        assert!(!check(206, "", "10"));
        assert!(!check(206, "bytes */100", "10"));
    }
}
