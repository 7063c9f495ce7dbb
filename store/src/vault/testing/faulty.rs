//! A vault that fails by script and remembers what was asked of it.

mod changes;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::changes::Changes;
use super::Verb;
use crate::clock::Clock;
use crate::pace::Pacer;
use crate::vault::keeper::Keeper;
use crate::vault::{ListPage, ObjectName, PutNew, Vault, VaultError};

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `Unavailable`, and nothing has happened.
    FailBefore,
    /// `Unavailable`, and it has happened: the answer was lost.
    FailAfter,
    /// `Unavailable`, asking to be left alone so long.
    Busy(Duration),
    /// `Denied`.
    Deny,
    /// `NotFound`: nothing is there, not even the vault.
    Gone,
    /// `Full`.
    Full,
    /// Half of it, and no error: half a body is stored or answered, half a length, half a page without a next one.
    Short,
    /// A byte too many, and no error: of a body that is stored or answered, of a length, and of each length in a listing.
    Long,
    /// The lowest bit of the middle byte is another, on the way to the vault or back. Nothing on other verbs.
    Flip,
    /// As many bytes, all of them others. Nothing on other verbs than `Get` and `Put`.
    Lie,
    /// A listing is as it was so many changes ago, of those that went through here and that it would show; `usize::MAX` for all of them.
    Stale(usize),
    /// It is said to be done, and nothing has happened. Nothing on other verbs than `Put` and `Delete`.
    Ignore,
    /// A put is told that something of this name was there, and nothing has happened. Nothing on other verbs.
    Taken,
    /// It arrives twice, and what is answered the second time is the answer. Nothing on other verbs than `Put` and `Delete`.
    Twice,
    /// A listing always has the same page, and says each time that there is another.
    Endless,
    /// No answer ever. A manual clock is moved by so much first, so that limits pass without waiting.
    Hang(Duration),
}

/// A request that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its kind.
    pub verb: Verb,
    /// The object, or the prefix of a listing; empty for `Prepare`.
    pub name: String,
    /// The bytes of an object that were asked for or sent; empty for other verbs.
    pub range: Range<u64>,
}

/// Passes requests to another vault, but for those that a script says shall fail. Requests are counted from 1.
pub struct FaultyVault {
    inner: Arc<dyn Vault>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    watch: OnceLock<Watch>,
}

type Watch = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    changes: Changes,
    requests: Vec<Request>,
    running: usize,
    most_at_once: usize,
}

struct Rule {
    verb: Option<Verb>,
    name: Option<String>,
    numbers: Range<u64>,
    fault: Fault,
}

impl Rule {
    fn new(verb: Option<Verb>, numbers: Range<u64>, fault: Fault) -> Self {
        Self { verb, name: None, numbers, fault }
    }
}

impl FaultyVault {
    /// A vault that does not fail yet. The clock is for `Hang`.
    pub fn new(inner: Arc<dyn Vault>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, state: Mutex::default(), watch: OnceLock::new() }
    }

    /// Something is to be done whenever something is asked.
    pub fn watch(&self, watch: impl Fn() + Send + Sync + 'static) {
        let _ = self.watch.set(Box::new(watch));
    }

    /// The `nth` request of a kind fails.
    pub fn fail(&self, verb: Verb, nth: u64, fault: Fault) {
        self.state().rules.push(Rule::new(Some(verb), nth..nth + 1, fault));
    }

    /// All requests of a kind fail, from the `nth` until `heal`.
    pub fn fail_from(&self, verb: Verb, nth: u64, fault: Fault) {
        self.state().rules.push(Rule::new(Some(verb), nth..u64::MAX, fault));
    }

    /// The `nth` request of any kind fails: for "fail the n-th, for every n until it gets through".
    pub fn fail_any(&self, nth: u64, fault: Fault) {
        self.state().rules.push(Rule::new(None, nth..nth + 1, fault));
    }

    /// All requests fail, from the `nth` until `heal`: the vault is away.
    pub fn fail_any_from(&self, nth: u64, fault: Fault) {
        self.state().rules.push(Rule::new(None, nth..u64::MAX, fault));
    }

    /// All requests for one object fail until `heal`: the disk does not give it.
    pub fn fail_object(&self, name: &ObjectName, fault: Fault) {
        let rule = Rule { name: Some(name.to_string()), ..Rule::new(None, 1..u64::MAX, fault) };
        self.state().rules.push(rule);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.state().rules.clear();
    }

    /// What was asked so far, in order, failed requests among it.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// How many requests of a kind there were.
    pub fn count(&self, verb: Verb) -> u64 {
        self.state().requests.iter().filter(|request| request.verb == verb).count() as u64
    }

    /// Bytes of bodies that requests of a kind carried or asked for.
    pub fn bytes(&self, verb: Verb) -> u64 {
        let state = self.state();
        state
            .requests
            .iter()
            .filter(|r| r.verb == verb)
            .map(|r| r.range.end.saturating_sub(r.range.start))
            .sum()
    }

    /// Most requests that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    /// Forgets what was asked; counting starts at 1 again.
    pub fn forget(&self) {
        self.state().requests.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Running<'_> {
        if let Some(watch) = self.watch.get() {
            watch();
        }
        let mut state = self.state();
        state.running += 1;
        state.most_at_once = state.most_at_once.max(state.running);
        Running(self)
    }

    /// Takes note of a request and finds its fault. Those that need no vault are dealt with here.
    async fn begin(&self, verb: Verb, name: &str, range: Range<u64>) -> Result<Option<Fault>, VaultError> {
        let fault = self.note(Request { verb, name: name.into(), range });
        let scripted = || format!("scripted fault of {verb:?} {name}");
        match fault {
            Some(Fault::FailBefore) => Err(VaultError::unavailable(scripted())),
            Some(Fault::Busy(wait)) => {
                Err(VaultError::Unavailable { detail: scripted(), retry_after: Some(wait) })
            }
            Some(Fault::Deny) => Err(VaultError::Denied { detail: scripted() }),
            Some(Fault::Gone) => Err(VaultError::NotFound { what: scripted() }),
            Some(Fault::Full) => Err(VaultError::Full { detail: scripted() }),
            Some(Fault::Hang(time)) => {
                self.clock.sleep(time).await;
                std::future::pending().await
            }
            other => Ok(other),
        }
    }

    async fn put(
        &self,
        fault: Option<Fault>,
        name: &ObjectName,
        body: Bytes,
        pacer: Option<&Arc<Pacer>>,
    ) -> Result<PutNew, VaultError> {
        match fault {
            Some(Fault::Ignore) => return Ok(PutNew::Created),
            Some(Fault::Taken) => return Ok(PutNew::AlreadyThere),
            _ => {}
        }
        let body = spoilt(fault, body);
        let mut put = match pacer {
            Some(pacer) => self.inner.put_paced(name, body.clone(), pacer).await?,
            None => self.inner.put_new(name, body.clone()).await?,
        };
        if put == PutNew::Created {
            self.state().changes.put(name);
        }
        if fault == Some(Fault::Twice) {
            put = self.inner.put_new(name, body).await?;
        }
        end(fault, put)
    }

    fn note(&self, request: Request) -> Option<Fault> {
        let mut state = self.state();
        let (verb, name) = (request.verb, request.name.clone());
        state.requests.push(request);
        let of_any = state.requests.len() as u64;
        let of_verb = state.requests.iter().filter(|r| r.verb == verb).count() as u64;
        let meant = |rule: &&Rule| {
            rule.name.as_ref().is_none_or(|wanted| *wanted == name)
                && match rule.verb {
                    Some(wanted) => wanted == verb && rule.numbers.contains(&of_verb),
                    None => rule.numbers.contains(&of_any),
                }
        };
        state.rules.iter().find(meant).map(|rule| rule.fault)
    }
}

/// A request under way, until dropped.
struct Running<'a>(&'a FaultyVault);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
    }
}

fn end<T>(fault: Option<Fault>, answer: T) -> Result<T, VaultError> {
    match fault {
        Some(Fault::FailAfter) => Err(VaultError::unavailable("scripted loss of an answer")),
        _ => Ok(answer),
    }
}

fn spoilt_len(fault: Option<Fault>, len: u64) -> u64 {
    match fault {
        Some(Fault::Short) => len / 2,
        Some(Fault::Long) => len + 1,
        _ => len,
    }
}

fn spoilt(fault: Option<Fault>, body: Bytes) -> Bytes {
    match fault {
        Some(Fault::Short) => body.slice(..body.len() / 2),
        Some(Fault::Flip) => {
            let mut bytes = body.to_vec();
            let middle = bytes.len() / 2;
            bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
            bytes.into()
        }
        Some(Fault::Long) => body.iter().copied().chain([0]).collect(),
        Some(Fault::Lie) => body.iter().map(|byte| byte ^ 1).collect(),
        _ => body,
    }
}

#[async_trait]
impl Vault for FaultyVault {
    fn address(&self) -> String {
        self.inner.address()
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        let _running = self.enter();
        let fault = self.begin(Verb::Prepare, "", 0..0).await?;
        end(fault, self.inner.prepare().await?)
    }

    async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError> {
        let _running = self.enter();
        let fault = self.begin(Verb::Put, name.as_str(), 0..body.len() as u64).await?;
        self.put(fault, name, body, None).await
    }

    async fn put_paced(
        &self,
        name: &ObjectName,
        body: Bytes,
        pacer: &Arc<Pacer>,
    ) -> Result<PutNew, VaultError> {
        let _running = self.enter();
        let fault = self.begin(Verb::Put, name.as_str(), 0..body.len() as u64).await?;
        self.put(fault, name, body, Some(pacer)).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError> {
        let _running = self.enter();
        let fault = self.begin(Verb::Get, name.as_str(), range.clone()).await?;
        end(fault, spoilt(fault, self.inner.get_range(name, range).await?))
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        let _running = self.enter();
        let fault = self.begin(Verb::Stat, name.as_str(), 0..0).await?;
        let len = self.inner.stat(name).await?;
        end(fault, len.map(|len| spoilt_len(fault, len)))
    }

    async fn list(&self, prefix: &str, from: Option<&str>) -> Result<ListPage, VaultError> {
        let _running = self.enter();
        let fault = self.begin(Verb::List, prefix, 0..0).await?;
        let is_endless = fault == Some(Fault::Endless);
        let mut page = self.inner.list(prefix, from.filter(|_| !is_endless)).await?;
        if is_endless {
            page.next = Some(self.count(Verb::List).to_string());
        }
        match fault {
            Some(Fault::Short) => {
                page.objects.truncate(page.objects.len() / 2);
                page.next = None;
            }
            Some(Fault::Long) => page.objects.iter_mut().for_each(|object| object.len += 1),
            Some(Fault::Stale(changes)) => {
                self.state().changes.undo(changes, prefix, from.is_none(), &mut page.objects);
            }
            _ => {}
        }
        end(fault, page)
    }

    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        let _running = self.enter();
        let fault = self.begin(Verb::Delete, name.as_str(), 0..0).await?;
        if fault == Some(Fault::Ignore) {
            return Ok(true);
        }
        let len = self.inner.stat(name).await?;
        let mut gone = self.inner.delete(name).await?;
        if let Some(len) = len.filter(|_| gone) {
            self.state().changes.removed(name, len);
        }
        if fault == Some(Fault::Twice) {
            gone = self.inner.delete(name).await?;
        }
        end(fault, gone)
    }

    async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError> {
        let _running = self.enter();
        let fault = self.begin(Verb::Delete, name.as_str(), 0..0).await?;
        if fault == Some(Fault::Ignore) {
            return Ok(true);
        }
        let mut gone = self.inner.delete_exactly(name, bytes).await?;
        if gone {
            self.state().changes.removed(name, bytes.len() as u64);
        }
        if fault == Some(Fault::Twice) {
            gone = self.inner.delete_exactly(name, bytes).await?;
        }
        end(fault, gone)
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        self.inner.keeper()
    }
}

impl fmt::Debug for FaultyVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyVault").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use crate::vault::conformance::conformance;
    use crate::vault::memory::MemoryVault;

    fn faulty() -> (Arc<MemoryVault>, Arc<FaultyVault>) {
        let memory = Arc::new(MemoryVault::new());
        let clock = Arc::new(ManualClock::at(Timestamp::default()));
        (Arc::clone(&memory), Arc::new(FaultyVault::new(memory, clock)))
    }

    #[tokio::test]
    async fn without_a_script_every_promise_is_kept_and_with_one_the_suite_says_which_is_not() {
        conformance(faulty().1).await.unwrap();
        for (verb, nth, fault) in [
            (Verb::Put, 1, Fault::Short),
            (Verb::Put, 1, Fault::Flip),
            (Verb::Get, 2, Fault::Short),
            (Verb::Get, 2, Fault::Flip),
            (Verb::Stat, 2, Fault::Short),
            (Verb::List, 1, Fault::Short),
            (Verb::Get, 2, Fault::Lie),
            (Verb::Delete, 2, Fault::FailAfter),
        ] {
            let (_, vault) = faulty();
            vault.fail(verb, nth, fault);
            let broken = conformance(vault).await.unwrap_err();
            assert!(!broken.promise.is_empty() && !broken.detail.is_empty(), "{verb:?} {nth} {fault:?}");
        }
        for (verb, fault) in [
            (Verb::Put, Fault::Long),
            (Verb::Get, Fault::Long),
            (Verb::Stat, Fault::Long),
            (Verb::List, Fault::Long),
            (Verb::List, Fault::Stale(usize::MAX)),
            (Verb::Put, Fault::Ignore),
            (Verb::Delete, Fault::Ignore),
            (Verb::Put, Fault::Taken),
            (Verb::Put, Fault::Twice),
            (Verb::Delete, Fault::Twice),
        ] {
            let mut is_told = false;
            // In some requests the fault is none.
            for nth in 1..60 {
                let (_, vault) = faulty();
                vault.fail(verb, nth, fault);
                is_told = conformance(vault).await.is_err();
                if is_told {
                    break;
                }
            }
            assert!(is_told, "{verb:?} {fault:?}");
        }
        let (_, vault) = faulty();
        vault.fail(Verb::List, 1, Fault::Endless);
        assert_eq!(conformance(vault).await.unwrap_err().promise, "names ascend from page to page");
    }

    #[tokio::test]
    async fn a_lost_answer_has_had_its_effect_and_a_failure_before_has_not() {
        let name = ObjectName::new("pack/x").unwrap();
        let (memory, vault) = faulty();
        vault.fail(Verb::Put, 1, Fault::FailBefore);
        vault.fail(Verb::Put, 2, Fault::FailAfter);
        assert!(vault.put_new(&name, Bytes::from_static(b"x")).await.is_err());
        assert_eq!(memory.object(&name), None);
        assert!(vault.put_new(&name, Bytes::from_static(b"x")).await.is_err());
        assert!(memory.object(&name).is_some());
        assert_eq!((vault.count(Verb::Put), vault.bytes(Verb::Put)), (2, 2));
        vault.forget();
        assert!(vault.requests().is_empty());
    }

    #[tokio::test]
    async fn a_stale_listing_shows_what_was_there_before_the_last_changes_below_its_prefix() {
        let (_, vault) = faulty();
        let name = |name: &str| ObjectName::new(name).unwrap();
        for (at, body) in [("a/1", "x"), ("a/2", "yy"), ("b/1", "z")] {
            vault.put_new(&name(at), Bytes::from(body)).await.unwrap();
        }
        assert!(vault.delete(&name("a/1")).await.unwrap());
        for (changes, shown) in [
            (0, vec![("a/2", 2)]),
            (1, vec![("a/1", 1), ("a/2", 2)]),
            (2, vec![("a/1", 1)]),
            (usize::MAX, vec![]),
        ] {
            vault.fail_from(Verb::List, 1, Fault::Stale(changes));
            let page = vault.list("a/", None).await.unwrap();
            let listed: Vec<_> = page.objects.iter().map(|o| (o.name.as_str(), o.len)).collect();
            assert_eq!(listed, shown, "{changes}");
            vault.heal();
        }
    }
}
