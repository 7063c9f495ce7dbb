//! What Azure's answers mean to a vault. Status and error code are the stable part of an answer; texts are not, and some repeat what was signed.

use std::error::Error as _;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use azure_core::time::parse_rfc7231;

use super::transport::CUT;
use crate::vault::VaultError;
use crate::vault::keeper::Lock;

/// An answer that is not a success, taken apart.
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    pub(super) code: &'a str,
    response: Option<&'a RawResponse>,
}

impl<'a> Refusal<'a> {
    /// Nothing if there was no answer at all.
    pub(super) fn of(e: &'a azure_core::Error) -> Option<Self> {
        let ErrorKind::HttpResponse { status, error_code, raw_response } = e.kind() else { return None };
        // Of a page without one the SDK makes the status its code.
        let code = error_code.as_deref().filter(|code| code.parse::<u16>().is_err()).unwrap_or_default();
        Some(Self { status: u16::from(*status), code, response: raw_response.as_deref() })
    }

    /// Put-if-absent found something. A signature that may create but not write gets the last form.
    pub(super) fn is_already_there(&self) -> bool {
        matches!(
            (self.status, self.code),
            (409, "BlobAlreadyExists") | (412, "ConditionNotMet") | (403, "UnauthorizedBlobOverwrite")
        )
    }

    /// The object is missing, not its container, and it is the service that says so. Pages of others have this status, too.
    pub(super) fn is_no_object(&self) -> bool {
        self.status == 404 && matches!(self.code, "BlobNotFound" | "ResourceNotFound")
    }

    /// The object has not the tag that was asked for: it was replaced.
    pub(super) fn is_another(&self) -> bool {
        (self.status, self.code) == (412, "ConditionNotMet")
    }

    /// The service keeps the object. Both codes come with status 409 ("Status and error codes" of the Blob service names the first; the second is that
    /// of a legal hold).
    pub(super) fn is_locked(&self) -> bool {
        matches!(self.code, "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold")
    }

    fn header(&self, name: &'static str) -> Option<&str> {
        self.response?.headers().get_optional_str(&HeaderName::from_static(name))
    }

    fn retry_after(&self) -> Option<Duration> {
        let millis =
            self.header("x-ms-retry-after-ms").and_then(|text| text.parse().ok()).map(Duration::from_millis);
        let seconds = || self.header("retry-after")?.parse().ok().map(Duration::from_secs);
        millis.or_else(seconds).or_else(|| self.retry_at())
    }

    /// A moment instead of seconds (RFC 9110, section 10.2.3), by the clock of whoever named it.
    fn retry_at(&self) -> Option<Duration> {
        let moment = |name| parse_rfc7231(self.header(name)?).ok();
        (moment("retry-after")? - moment("date")?).try_into().ok()
    }

    fn detail(&self) -> String {
        let code = if self.code.is_empty() { "no error code" } else { self.code };
        let request = self.header("x-ms-request-id").map(|id| format!(", request {id}")).unwrap_or_default();
        let cut = if self.header(CUT).is_some() { ", with a text that does not end" } else { "" };
        format!("status {} ({code}){request}{cut}", self.status)
    }
}

/// The error for a request about `what`, an object or a container.
pub(super) fn error(e: &azure_core::Error, what: &str) -> VaultError {
    match Refusal::of(e) {
        Some(refusal) => refused(&refusal, what),
        None => unanswered(e),
    }
}

fn refused(refusal: &Refusal<'_>, what: &str) -> VaultError {
    let detail = refusal.detail();
    match (refusal.status, refusal.code) {
        (_, "BlobArchived" | "BlobBeingRehydrated") => VaultError::Archived { what: what.into() },
        (_, "ContainerNotFound") => VaultError::NotFound { what: format!("container of {what}") },
        // The second is what the emulator says of a wrong checksum.
        (400, "Md5Mismatch" | "InvalidOperation") => {
            VaultError::WrongAnswer { detail: format!("{what} changed on its way: {detail}") }
        }
        _ if refusal.is_no_object() => VaultError::NotFound { what: what.into() },
        _ if refusal.is_locked() => VaultError::Locked { what: what.into(), lock: Lock::Unknown },
        (401 | 403, _) => VaultError::Denied { detail },
        (416, "InvalidRange") => {
            VaultError::TooShort { what: what.into(), detail: "it ends before the range begins".into() }
        }
        (507, _) => VaultError::Full { detail },
        // The emulator's word for what it has not.
        (501, "APINotImplemented") => VaultError::Invalid { detail: format!("{what}: {detail}") },
        (_, "ContainerBeingDeleted" | "AccountBeingCreated" | "OperationTimedOut" | "ServerBusy") => {
            VaultError::Unavailable { detail, retry_after: refusal.retry_after() }
        }
        (status, _) if is_outage(status) => {
            VaultError::Unavailable { detail, retry_after: refusal.retry_after() }
        }
        // The object changed between two requests of one read: it is not one of ours, or the answer is not.
        (412, _) => VaultError::WrongAnswer { detail: format!("{what}: {detail}") },
        // None of these is the service's: it names what is missing, has one status for each success, and has a code for
        // each refusal.
        (200..=299 | 404, _) | (_, "") => VaultError::WrongAnswer { detail: format!("{what}: {detail}") },
        _ => VaultError::Invalid { detail: format!("{what}: {detail}") },
    }
}

/// Whether a status tells of trouble in the service, or of somebody on the way to it who wants a login first, as a captive
/// portal does. Redirects are his, and are not followed: nobody else shall see what proves who asks.
fn is_outage(status: u16) -> bool {
    matches!(status, 300..=399 | 407 | 408 | 429 | 500..)
}

fn unanswered(e: &azure_core::Error) -> VaultError {
    let detail = root_cause(e);
    match e.kind() {
        ErrorKind::Connection | ErrorKind::Io => VaultError::unavailable(detail),
        ErrorKind::Credential if is_passing(e) => VaultError::unavailable(format!("no token: {detail}")),
        ErrorKind::Credential => VaultError::Denied { detail: format!("no token: {detail}") },
        _ => VaultError::WrongAnswer { detail },
    }
}

/// Whether the reason for an error, somewhere below it, is one that passes.
fn is_passing(e: &azure_core::Error) -> bool {
    let mut source = e.source();
    while let Some(cause) = source {
        if let Some(e) = cause.downcast_ref::<azure_core::Error>() {
            match Refusal::of(e) {
                Some(refusal) if is_outage(refusal.status) => return true,
                None if matches!(e.kind(), ErrorKind::Connection | ErrorKind::Io) => return true,
                _ => {}
            }
        }
        source = cause.source();
    }
    false
}

/// The innermost text only: those around it repeat the URL, and a signature may be in it.
fn root_cause(e: &azure_core::Error) -> String {
    let mut cause: &dyn std::error::Error = e;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    if text.contains("://") { "the request failed".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::http::StatusCode;
    use azure_core::http::headers::Headers;

    use crate::error::ErrorClass as C;

    fn answer(status: u16, code: &str, headers: &[(&'static str, &'static str)]) -> azure_core::Error {
        let mut all = Headers::new();
        headers.iter().for_each(|(name, value)| all.insert(*name, *value));
        let status = StatusCode::from(status);
        let raw_response = Some(Box::new(RawResponse::from_bytes(status, all, "secret text")));
        let kind = ErrorKind::HttpResponse { status, error_code: Some(code.into()), raw_response };
        azure_core::Error::with_message(kind, "secret text")
    }

    #[test]
    fn answers_are_classified_by_what_can_be_done() {
        for (status, code, class) in [
            (404, "BlobNotFound", C::NotFound),
            (404, "ResourceNotFound", C::NotFound),
            (404, "ContainerNotFound", C::NotFound),
            (404, "", C::Unavailable),
            (404, "404", C::Unavailable),
            (404, "ShareNotFound", C::Unavailable),
            (403, "AuthenticationFailed", C::Denied),
            (401, "NoAuthenticationInformation", C::Denied),
            (409, "BlobArchived", C::Unavailable),
            (409, "ContainerBeingDeleted", C::Unavailable),
            (409, "LeaseIdMissing", C::Invalid),
            (409, "BlobImmutableDueToPolicy", C::Denied),
            (409, "BlobImmutableDueToLegalHold", C::Denied),
            (403, "BlobImmutableDueToPolicy", C::Denied),
            (400, "Md5Mismatch", C::Unavailable),
            (400, "InvalidHeaderValue", C::Invalid),
            (400, "", C::Unavailable),
            (416, "InvalidRange", C::Corrupt),
            (416, "416", C::Unavailable),
            (429, "", C::Unavailable),
            (500, "InternalError", C::Unavailable),
            (503, "ServerBusy", C::Unavailable),
            (507, "", C::Full),
            (200, "200", C::Unavailable),
            (302, "", C::Unavailable),
            (407, "", C::Unavailable),
            (501, "", C::Unavailable),
            (501, "APINotImplemented", C::Invalid),
            (511, "", C::Unavailable),
            (530, "", C::Unavailable),
        ] {
            let error = error(&answer(status, code, &[]), "x");
            assert_eq!(error.class(), class, "{status} {code}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(matches!(error(&answer(409, "BlobArchived", &[]), "x"), VaultError::Archived { .. }));
        for status in [409, 412, 403] {
            let locked = error(&answer(status, "BlobImmutableDueToPolicy", &[]), "x");
            assert!(matches!(locked, VaultError::Locked { .. }), "{status}: {locked}");
        }
    }

    #[test]
    fn the_wait_that_the_service_asks_for_is_kept() {
        let wait = |headers: &[_]| match error(&answer(503, "ServerBusy", headers), "x") {
            VaultError::Unavailable { retry_after, .. } => retry_after,
            _ => None,
        };
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(
            wait(&[("retry-after", "7"), ("x-ms-retry-after-ms", "50")]),
            Some(Duration::from_millis(50))
        );
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        let until = |moment| wait(&[date, ("retry-after", moment)]);
        assert_eq!(until("Wed, 21 Oct 2015 07:28:07 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(until("Wed, 21 Oct 2015 07:27:00 GMT"), None, "it has passed");
        assert_eq!(wait(&[("retry-after", date.1)]), None, "by an unknown clock");
    }

    #[test]
    fn an_error_without_an_answer_does_not_repeat_the_url() {
        let inner = std::io::Error::other("https://a.example/?sig=geheim");
        let error = error(&azure_core::Error::new(ErrorKind::Io, inner), "x");
        assert!(
            matches!(error, VaultError::Unavailable { .. }) && !error.to_string().contains("geheim"),
            "{error}"
        );
    }

    #[test]
    fn no_token_is_unavailable_if_the_way_to_it_is() {
        let source = azure_core::Error::with_message(ErrorKind::Connection, "no route");
        let e = azure_core::Error::new(ErrorKind::Credential, source);
        assert_eq!(error(&e, "x").class(), C::Unavailable);
        let e = azure_core::Error::new(ErrorKind::Credential, answer(302, "", &[]));
        assert_eq!(error(&e, "x").class(), C::Unavailable);
        let e = azure_core::Error::with_message(ErrorKind::Credential, "wrong secret");
        assert_eq!(error(&e, "x").class(), C::Denied);
    }
}
