//! Requests to the account, taken apart, with what the signature that came with them allows, and answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use url::Url;

use super::Features;
use crate::vault::testing::http::Head;

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) container: String,
    /// Name of a blob; empty where a container or the service is asked.
    pub(super) blob: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) head: Head,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn new(head: &Head, body: Bytes) -> io::Result<Self> {
        let mut words = head.first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let url = Url::parse(&format!("http://account{target}")).map_err(io::Error::other)?;
        // The account comes first.
        let path = url.path().trim_start_matches('/').split_once('/').map_or("", |(_, path)| path);
        let (container, blob) = path.split_once('/').unwrap_or((path, ""));
        Ok(Self {
            method: method.into(),
            container: container.into(),
            // Names of ours have nothing else that is written otherwise.
            blob: blob.replace("%2F", "/"),
            query: url.query_pairs().into_owned().collect(),
            head: head.clone(),
            body,
        })
    }

    /// What the request is in short.
    pub(super) fn line(&self) -> String {
        let comp = self.query.get("comp").map(|comp| format!(" {comp}")).unwrap_or_default();
        format!("{} {}/{}{comp}", self.method, self.container, self.blob)
    }

    pub(super) fn is(&self, key: &str, value: &str) -> bool {
        self.query.get(key).is_some_and(|found| found == value)
    }

    pub(super) fn includes(&self, what: &str) -> bool {
        self.query.get("include").is_some_and(|all| all.split(',').any(|one| one == what))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// A signature allows what its letters say, of the kinds of things that it names; a key of the account everything.
    pub(super) fn authorize(&self) -> Result<(), Answer> {
        if self.header("authorization").is_some_and(|it| it.starts_with("SharedKey ")) {
            return Ok(());
        }
        let Some(letters) = self.query.get("sp").filter(|_| self.query.contains_key("sig")) else {
            return Err(Answer::refusal(401, "NoAuthenticationInformation"));
        };
        let kind = match (self.container.is_empty(), self.blob.is_empty()) {
            (true, _) => 's',
            (false, true) => 'c',
            (false, false) => 'o',
        };
        if !self.query.get("srt").is_some_and(|kinds| kinds.contains(kind)) {
            return Err(Answer::refusal(403, "AuthorizationResourceTypeMismatch"));
        }
        let comp = self.query.get("comp").map_or("", String::as_str);
        let may = |wanted: &[char]| letters.contains(wanted);
        let allowed = match (self.method.as_str(), comp) {
            (_, "immutabilityPolicies") => may(&['i']),
            ("PUT", "undelete") => may(&['w']),
            // The lock of a blob is part of the put.
            ("PUT", _) if self.header("x-ms-immutability-policy-until-date").is_some() => {
                may(&['c', 'w']) && may(&['i'])
            }
            ("PUT", _) => may(&['c', 'w']),
            ("DELETE", _) if self.query.contains_key("versionid") => may(&['x']),
            ("DELETE", _) => may(&['d']),
            ("GET", "list") => may(&['l']),
            _ => may(&['r']),
        };
        if allowed { Ok(()) } else { Err(Answer::refusal(403, "AuthorizationPermissionMismatch")) }
    }

    /// Whether what is put may take the place of something.
    pub(super) fn may_replace(&self) -> bool {
        self.header("if-none-match").is_none() && self.query.get("sp").is_none_or(|it| it.contains('w'))
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn refusal(status: u16, code: &str) -> Self {
        let body =
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>");
        Self { body: body.into(), ..Self::new(status).with("x-ms-error-code", code) }
    }

    pub(super) fn xml(body: String) -> Self {
        Self { body: body.into(), ..Self::new(200).with("content-type", "application/xml") }
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub(super) fn service_properties(features: &Features) -> Self {
        let policy = match features.soft_delete_days {
            0 => "<Enabled>false</Enabled>".to_owned(),
            days => format!("<Enabled>true</Enabled><Days>{days}</Days>"),
        };
        Self::xml(format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><StorageServiceProperties><DeleteRetentionPolicy>{policy}</DeleteRetentionPolicy></StorageServiceProperties>"
        ))
    }

    pub(super) fn container_properties(features: &Features) -> Self {
        Self::new(200)
            .with("x-ms-has-immutability-policy", features.default_lock_days > 0)
            .with("x-ms-has-legal-hold", false)
            .with("x-ms-immutable-storage-with-versioning-enabled", features.immutability)
    }

    /// As it goes over the wire. A request for the head of something gets no more.
    pub(super) fn bytes(&self, asked: &Asked, now: i64) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.status);
        let _ = write!(head, "date: {}\r\nx-ms-request-id: stub\r\n", http_date(now));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let is_head = asked.method == "HEAD";
        if !self.headers.iter().any(|(name, _)| name == "content-length") {
            let _ = write!(head, "content-length: {}\r\n", if is_head { 0 } else { self.body.len() });
        }
        let body = if is_head { &[][..] } else { &self.body[..] };
        [head.as_bytes(), b"\r\n", body].concat()
    }
}

/// As the service writes a moment in its headers and listings.
pub(super) fn http_date(seconds: i64) -> String {
    let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
