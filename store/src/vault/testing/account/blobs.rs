//! Blobs of the account with their versions, their snapshots and their locks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use azure_core::time::parse_rfc7231;
use bytes::Bytes;

use super::Features;
use super::answer::{Answer, Asked, http_date};

/// Most items of a page.
const PAGE_LEN: usize = 5000;

/// What is in a container, by name.
#[derive(Debug, Default)]
pub(super) struct Container(BTreeMap<String, Blob>);

/// One name: what is there now, and what was, the oldest first.
#[derive(Debug, Default)]
struct Blob {
    current: Option<State>,
    former: Vec<State>,
}

#[derive(Clone, Debug)]
struct State {
    /// Name of the version or, of a former without one, of the snapshot.
    id: String,
    is_version: bool,
    body: Bytes,
    put_at: i64,
    lock: Option<PolicyOf>,
    held: bool,
    /// When it goes, if it was deleted softly.
    goes: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct PolicyOf {
    until: i64,
    locked: bool,
}

impl State {
    fn is_kept_at(&self, now: i64) -> bool {
        self.held || self.lock.is_some_and(|lock| lock.until > now)
    }

    fn refusal(&self) -> Answer {
        let why = if self.held { "BlobImmutableDueToLegalHold" } else { "BlobImmutableDueToPolicy" };
        Answer::refusal(409, why)
    }

    fn head(&self, answer: Answer) -> Answer {
        let mut answer = answer
            .with("x-ms-blob-type", "BlockBlob")
            .with("etag", format!("\"{}\"", self.id))
            .with("last-modified", http_date(self.put_at));
        if self.is_version {
            answer = answer.with("x-ms-version-id", &self.id);
        }
        if let Some(lock) = self.lock {
            answer = answer
                .with("x-ms-immutability-policy-until-date", http_date(lock.until))
                .with("x-ms-immutability-policy-mode", mode(lock));
        }
        if self.held { answer.with("x-ms-legal-hold", true) } else { answer }
    }
}

impl Container {
    pub(super) fn current(&self, name: &str) -> Option<Bytes> {
        Some(self.there(name)?.body.clone())
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().filter(|(name, _)| self.there(name).is_some()).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn locked_until(&self, name: &str) -> Option<i64> {
        Some(self.there(name)?.lock?.until)
    }

    pub(super) fn hold(&mut self, name: &str, held: bool) {
        if let Some(state) = self.0.get_mut(name).and_then(|blob| blob.current.as_mut()) {
            state.held = held;
        }
    }

    pub(super) fn unlock(&mut self, prefix: &str) {
        let blobs = self.0.iter_mut().filter(|(name, _)| name.starts_with(prefix));
        for state in blobs.filter_map(|(_, blob)| blob.current.as_mut()) {
            state.lock = state.lock.filter(|lock| lock.locked);
        }
    }

    fn there(&self, name: &str) -> Option<&State> {
        self.0.get(name)?.current.as_ref().filter(|state| state.goes.is_none())
    }

    pub(super) fn answer(&mut self, asked: &Asked, features: &Features, now: i64) -> Result<Answer, Answer> {
        self.expire(now);
        let (name, comp) = (asked.blob.as_str(), asked.query.get("comp").map_or("", String::as_str));
        match (asked.method.as_str(), comp) {
            ("PUT", "undelete") => self.undelete(name, features),
            ("PUT", "immutabilityPolicies") => self.set_policy(name, asked, features, now),
            ("PUT", "") => {
                if self.there(name).is_some() && !asked.may_replace() {
                    return Err(match asked.header("if-none-match") {
                        Some(_) => Answer::refusal(409, "BlobAlreadyExists"),
                        None => Answer::refusal(403, "UnauthorizedBlobOverwrite"),
                    });
                }
                let policy = policy_of(asked, features, now)?;
                self.put(name, asked.body.clone(), policy, features, now);
                self.there(name).map(|state| state.head(Answer::new(201))).ok_or_else(no_blob)
            }
            ("DELETE", "") => {
                self.delete(name, asked.query.get("versionid").map(String::as_str), features, now)
            }
            ("GET" | "HEAD", "") => self.get(name, asked),
            _ => Err(Answer::refusal(400, "UnsupportedHeader")),
        }
    }

    /// "Overwriting a blob": with versions the state before is one; with soft delete it is a snapshot that is deleted softly; else it is gone.
    pub(super) fn put(
        &mut self,
        name: &str,
        body: Bytes,
        policy: Option<PolicyOf>,
        features: &Features,
        now: i64,
    ) {
        let by_default = (features.immutability && features.default_lock_days > 0)
            .then(|| PolicyOf { until: now + i64::from(features.default_lock_days) * 86_400, locked: false });
        let blob = self.0.entry(name.into()).or_default();
        if let Some(before) = blob.current.take() {
            match features.versions {
                true => blob.former.push(State { goes: None, ..before }),
                false if features.soft_delete_days > 0 => blob.former.push(State {
                    is_version: false,
                    goes: Some(now + i64::from(features.soft_delete_days) * 86_400),
                    ..before
                }),
                false => {}
            }
        }
        blob.current = Some(State {
            id: version_id(now),
            is_version: features.versions,
            body,
            put_at: now,
            lock: policy.or(by_default),
            held: false,
            goes: None,
        });
    }

    /// "Deleting a blob or version".
    pub(super) fn delete(
        &mut self,
        name: &str,
        version: Option<&str>,
        features: &Features,
        now: i64,
    ) -> Result<Answer, Answer> {
        let goes = now + i64::from(features.soft_delete_days) * 86_400;
        let blob = self.0.get_mut(name).ok_or_else(no_blob)?;
        if let Some(version) = version {
            let of = |state: &State| state.is_version && state.id == version;
            let at = blob.former.iter().position(of).ok_or_else(no_blob)?;
            if blob.former[at].is_kept_at(now) {
                return Err(blob.former[at].refusal());
            }
            match features.soft_delete_days {
                0 => drop(blob.former.remove(at)),
                _ => blob.former[at].goes = Some(goes),
            }
            return Ok(Answer::new(202));
        }
        let Some(current) = blob.current.as_mut().filter(|state| state.goes.is_none()) else {
            return Err(no_blob());
        };
        if current.is_kept_at(now) {
            return Err(current.refusal());
        }
        match (features.versions, features.soft_delete_days) {
            (true, _) => blob.former.extend(blob.current.take()),
            (false, 0) => blob.current = None,
            (false, _) => current.goes = Some(goes),
        }
        Ok(Answer::new(202))
    }

    /// "Undelete Blob": all that was deleted softly, but with versions no current one.
    fn undelete(&mut self, name: &str, features: &Features) -> Result<Answer, Answer> {
        let blob = self.0.get_mut(name).ok_or_else(no_blob)?;
        if let Some(current) = blob.current.as_mut() {
            match features.versions && current.goes.is_some() {
                true => blob.former.extend(blob.current.take()),
                false => current.goes = None,
            }
        }
        blob.former.iter_mut().for_each(|state| state.goes = None);
        Ok(Answer::new(200))
    }

    fn set_policy(
        &mut self,
        name: &str,
        asked: &Asked,
        features: &Features,
        now: i64,
    ) -> Result<Answer, Answer> {
        let policy = policy_of(asked, features, now)?;
        let policy = policy.ok_or_else(|| Answer::refusal(400, "MissingRequiredHeader"))?;
        let current = self.0.get_mut(name).and_then(|blob| blob.current.as_mut());
        let current = current.filter(|state| state.goes.is_none()).ok_or_else(no_blob)?;
        let before = current.lock.filter(|lock| lock.locked && lock.until > now);
        if before.is_some_and(|before| !policy.locked || policy.until < before.until) {
            return Err(Answer::refusal(409, "BlobImmutableDueToPolicy"));
        }
        current.lock = Some(policy);
        Ok(Answer::new(200))
    }

    fn get(&self, name: &str, asked: &Asked) -> Result<Answer, Answer> {
        let by = |key: &str, is_version| {
            let id = asked.query.get(key)?;
            let blob = self.0.get(name)?;
            let all = blob.former.iter().chain(&blob.current);
            all.filter(|state| state.goes.is_none()).find(|s| s.is_version == is_version && s.id == *id)
        };
        let state = match (asked.query.contains_key("versionid"), asked.query.contains_key("snapshot")) {
            (true, _) => by("versionid", true),
            (_, true) => by("snapshot", false),
            _ => self.there(name),
        };
        let state = state.ok_or_else(no_blob)?;
        let len = state.body.len();
        if asked.method == "HEAD" {
            return Ok(state.head(Answer::new(200)).with("content-length", len));
        }
        let range = asked.header("x-ms-range").or_else(|| asked.header("range"));
        let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
        else {
            return Ok(Answer { body: state.body.clone(), ..state.head(Answer::new(200)) });
        };
        let (first, last): (usize, usize) = (first.parse().unwrap_or(0), last.parse().unwrap_or(usize::MAX));
        if first >= len {
            return Err(Answer::refusal(416, "InvalidRange"));
        }
        let end = last.saturating_add(1).min(len);
        let answer =
            state.head(Answer::new(206)).with("content-range", format!("bytes {first}-{}/{len}", end - 1));
        Ok(Answer { body: state.body.slice(first..end), ..answer })
    }

    pub(super) fn list(&self, asked: &Asked, now: i64) -> Answer {
        let prefix = asked.query.get("prefix").map_or("", String::as_str);
        let from = asked.query.get("marker").map_or("", String::as_str);
        let most = asked.query.get("maxresults").and_then(|n| n.parse().ok()).unwrap_or(PAGE_LEN);
        let (mut items, mut count, mut next) = (String::new(), 0, "");
        for (name, blob) in self.0.range(from.to_owned()..) {
            if !name.starts_with(prefix) {
                continue;
            }
            if count >= most {
                next = name;
                break;
            }
            count += blob.list(name, asked, now, &mut items);
        }
        Answer::xml(format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"http://stub/\" ContainerName=\"{}\"><Blobs>{items}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>",
            asked.container
        ))
    }

    fn expire(&mut self, now: i64) {
        for blob in self.0.values_mut() {
            let goes = |state: &State| state.goes.is_some_and(|goes| goes <= now);
            blob.former.retain(|state| !goes(state));
            if blob.current.as_ref().is_some_and(goes) {
                blob.current = None;
            }
        }
    }
}

impl Blob {
    fn list(&self, name: &str, asked: &Asked, now: i64, items: &mut String) -> usize {
        let mut count = 0;
        let former = self.former.iter().map(|state| (state, false));
        for (state, is_current) in former.chain(self.current.iter().map(|state| (state, true))) {
            let is_shown = match (is_current, state.is_version) {
                _ if state.goes.is_some_and(|goes| goes <= now) => false,
                _ if state.goes.is_some() && !asked.includes("deleted") => false,
                (true, _) => true,
                (false, true) => asked.includes("versions"),
                (false, false) => asked.includes("snapshots"),
            };
            if is_shown {
                count += 1;
                state.list(name, is_current, asked, items);
            }
        }
        count
    }
}

impl State {
    fn list(&self, name: &str, is_current: bool, asked: &Asked, items: &mut String) {
        let _ = write!(items, "<Blob><Name>{name}</Name>");
        match (self.is_version, is_current) {
            (true, _) if asked.includes("versions") => {
                let _ = write!(items, "<VersionId>{}</VersionId>", self.id);
                let _ = if is_current {
                    write!(items, "<IsCurrentVersion>true</IsCurrentVersion>")
                } else {
                    Ok(())
                };
            }
            (false, false) => drop(write!(items, "<Snapshot>{}</Snapshot>", self.id)),
            _ => {}
        }
        let _ = if self.goes.is_some() { write!(items, "<Deleted>true</Deleted>") } else { Ok(()) };
        let _ = write!(
            items,
            "<Properties><Last-Modified>{}</Last-Modified><Etag>{}</Etag><Content-Length>{}</Content-Length><BlobType>BlockBlob</BlobType>",
            http_date(self.put_at),
            self.id,
            self.body.len()
        );
        if let Some(lock) = self.lock.filter(|_| asked.includes("immutabilitypolicy")) {
            let _ = write!(
                items,
                "<ImmutabilityPolicyUntilDate>{}</ImmutabilityPolicyUntilDate><ImmutabilityPolicyMode>{}</ImmutabilityPolicyMode>",
                http_date(lock.until),
                mode(lock)
            );
        }
        if self.held && asked.includes("legalhold") {
            let _ = write!(items, "<LegalHold>true</LegalHold>");
        }
        let _ = write!(items, "</Properties></Blob>");
    }
}

fn no_blob() -> Answer {
    Answer::refusal(404, "BlobNotFound")
}

fn mode(lock: PolicyOf) -> &'static str {
    if lock.locked { "locked" } else { "unlocked" }
}

/// What a request asks for. "Past times are not valid", and the container must be enabled for it.
fn policy_of(asked: &Asked, features: &Features, now: i64) -> Result<Option<PolicyOf>, Answer> {
    let Some(until) = asked.header("x-ms-immutability-policy-until-date") else { return Ok(None) };
    if !features.immutability {
        return Err(Answer::refusal(409, "ImmutableStorageWithVersioningNotEnabled"));
    }
    let until =
        parse_rfc7231(until).map_err(|_| Answer::refusal(400, "InvalidHeaderValue"))?.unix_timestamp();
    if until <= now {
        return Err(Answer::refusal(400, "InvalidHeaderValue"));
    }
    let locked =
        asked.header("x-ms-immutability-policy-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("locked"));
    Ok(Some(PolicyOf { until, locked }))
}

/// "The value of the version ID is the timestamp at which the blob was updated."
fn version_id(now: i64) -> String {
    let at = jiff::Timestamp::from_second(now).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S.0000000Z").to_string()
}
