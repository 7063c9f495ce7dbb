//! What every vault promises, as one suite that all of them pass: `docs/architecture.md` names it beside the trait.
//!
//! It is public and returns the first broken promise by name, so that other crates' tests, and a program that meets an
//! unknown service, can run it. It works below names of its own and leaves nothing behind if it may delete.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::{ObjectInfo, ObjectName, PutNew, Vault, VaultError};
use crate::id;

/// A promise that was not kept.
#[derive(Debug, thiserror::Error)]
#[error("the promise '{promise}' is broken: {detail}")]
pub struct BrokenPromise {
    /// The promise, as a sentence.
    pub promise: &'static str,
    /// What happened instead.
    pub detail: String,
}

type Kept = Result<(), BrokenPromise>;

/// How many put the same object at once.
const RACERS: usize = 8;
/// Above every limit at which a client might split a body.
const LARGE: usize = 20 << 20;

/// Checks every promise in the documentation of [`Vault`]. Needs a vault that may be written and deleted from; other objects in it do not disturb.
pub async fn conformance(vault: Arc<dyn Vault>) -> Kept {
    let suite = Suite { vault, dir: format!("hb/conformance-{}", id::to_hex(&id::random_bytes::<8>())) };
    suite.vault.prepare().await.or_broken("prepare makes the vault")?;
    suite.vault.prepare().await.or_broken("prepare may be repeated")?;
    suite.missing_objects().await?;
    suite.put_and_read().await?;
    suite.put_never_replaces().await?;
    suite.one_racer_wins().await?;
    suite.ranges_are_exact().await?;
    suite.large_and_empty().await?;
    suite.names().await?;
    suite.listing().await?;
    suite.control_objects().await?;
    suite.deleting().await
}

struct Suite {
    vault: Arc<dyn Vault>,
    dir: String,
}

impl Suite {
    fn name(&self, rest: &str) -> ObjectName {
        // The parts are literals of this file; a wrong one shows as a failed promise about `config`.
        ObjectName::new(format!("{}/{rest}", self.dir)).unwrap_or_else(|| control_name("config-wrong-name"))
    }

    async fn put(&self, name: &ObjectName, body: impl Into<Bytes>, promise: &'static str) -> Kept {
        match self.vault.put_new(name, body.into()).await.or_broken(promise)? {
            PutNew::Created => Ok(()),
            PutNew::AlreadyThere => broken(promise, format!("{name} is said to exist already")),
        }
    }

    async fn expect(
        &self,
        name: &ObjectName,
        range: Range<u64>,
        wanted: &[u8],
        promise: &'static str,
    ) -> Kept {
        let bytes = self.vault.get_range(name, range.clone()).await.or_broken(promise)?;
        let equal = bytes == wanted;
        ensure(equal, promise, || {
            format!("{name} {range:?}: {} bytes, not the {} that are there", bytes.len(), wanted.len())
        })
    }

    async fn missing_objects(&self) -> Kept {
        let name = self.name("missing");
        let promise = "stat of a missing object is None";
        let stat = self.vault.stat(&name).await.or_broken(promise)?;
        ensure(stat.is_none(), promise, || format!("{stat:?}"))?;
        let promise = "reading a missing object is NotFound";
        let read = self.vault.get_range(&name, 0..1).await;
        ensure(matches!(read, Err(VaultError::NotFound { .. })), promise, || format!("{read:?}"))?;
        let promise = "deleting a missing object is false";
        let deleted = self.vault.delete(&name).await.or_broken(promise)?;
        ensure(!deleted, promise, || "true".into())
    }

    async fn put_and_read(&self) -> Kept {
        let name = self.name("first");
        self.put(&name, &b"some bytes"[..], "an object can be put").await?;
        let promise = "stat shows an object's length once it was put";
        let stat = self.vault.stat(&name).await.or_broken(promise)?;
        ensure(stat == Some(10), promise, || format!("{stat:?}"))?;
        self.expect(&name, 0..10, b"some bytes", "an object can be read once it was put").await
    }

    async fn put_never_replaces(&self) -> Kept {
        let promise = "a put of a name that exists changes nothing and says so";
        let name = self.name("first");
        for body in [&b"some bytes"[..], b"other", b"longer than the first body was", b""] {
            let put = self.vault.put_new(&name, body.into()).await.or_broken(promise)?;
            ensure(put == PutNew::AlreadyThere, promise, || format!("{put:?}"))?;
        }
        self.expect(&name, 0..10, b"some bytes", promise).await
    }

    async fn one_racer_wins(&self) -> Kept {
        let promise = "of many puts at once exactly one creates the object, and its bytes are there";
        for round in 0..3 {
            let name = self.name(&format!("race/{round}"));
            let body = |racer: usize| Bytes::from(vec![racer as u8; 10_000 + racer]);
            let puts = join_all((0..RACERS).map(|racer| self.vault.put_new(&name, body(racer)))).await;
            let mut winners = Vec::new();
            for (racer, put) in puts.into_iter().enumerate() {
                if put.or_broken(promise)? == PutNew::Created {
                    winners.push(racer);
                }
            }
            let [winner] = winners[..] else { return broken(promise, format!("created by {winners:?}")) };
            self.expect(&name, 0..(10_000 + winner) as u64, &body(winner), promise).await?;
        }
        Ok(())
    }

    async fn ranges_are_exact(&self) -> Kept {
        let name = self.name("ranges");
        let body = pattern(3_000);
        self.put(&name, body.clone(), "an object can be put").await?;
        for (start, end) in
            [(0, 1), (0, 3_000), (1, 3_000), (2_999, 3_000), (511, 1_025), (1_500, 1_500), (0, 0)]
        {
            let wanted = &body[start..end];
            self.expect(&name, start as u64..end as u64, wanted, "a range is exactly the bytes asked for")
                .await?;
        }
        let promise = "a range beyond the end is TooShort";
        for (start, end) in
            [(0, 3_001), (2_999, 3_001), (3_000, 3_001), (5_000, 6_000), (5_000, 5_000), (0, 1 << 40)]
        {
            let read = self.vault.get_range(&name, start..end).await;
            ensure(matches!(read, Err(VaultError::TooShort { .. })), promise, || {
                format!("{start}..{end}: {read:?}")
            })?;
        }
        let promise = "a range that ends before it starts is Invalid";
        let (start, end) = (2, 1);
        let read = self.vault.get_range(&name, start..end).await;
        ensure(matches!(read, Err(VaultError::Invalid { .. })), promise, || format!("{read:?}"))
    }

    async fn large_and_empty(&self) -> Kept {
        let promise = "a large object is put whole and read whole";
        let name = self.name("large");
        let body = pattern(LARGE);
        self.put(&name, body.clone(), promise).await?;
        self.expect(&name, 0..LARGE as u64, &body, promise).await?;
        let (start, end) = (LARGE / 2 - 7, LARGE / 2 + 262_137);
        self.expect(&name, start as u64..end as u64, &body[start..end], promise).await?;
        let again = self.vault.put_new(&name, body).await.or_broken(promise)?;
        ensure(again == PutNew::AlreadyThere, promise, || "it was created twice".into())?;

        let promise = "an empty object exists";
        let name = self.name("empty");
        self.put(&name, Bytes::new(), promise).await?;
        let stat = self.vault.stat(&name).await.or_broken(promise)?;
        ensure(stat == Some(0), promise, || format!("{stat:?}"))?;
        self.expect(&name, 0..0, b"", promise).await?;
        let again = self.vault.put_new(&name, Bytes::new()).await.or_broken(promise)?;
        ensure(again == PutNew::AlreadyThere, promise, || "it was created twice".into())
    }

    async fn names(&self) -> Kept {
        let promise = "every object name can be put, listed and read";
        let longest = "x".repeat(ObjectName::MAX_LEN - self.dir.len() - "/n/".len());
        let rests =
            ["n/a", "n/a-b", "n/a.b", "n/a_b", "n/a0", "n/0/1/2/3/4/5/6/7/8/9", "n/...", "n/-", "n/_"];
        for rest in rests.into_iter().chain([format!("n/{longest}").as_str()]) {
            let name = self.name(rest);
            self.put(&name, name.to_string(), promise).await?;
            self.expect(&name, 0..name.as_str().len() as u64, name.as_str().as_bytes(), promise).await?;
        }
        let listed = self.list("n/").await?;
        ensure(listed.len() == rests.len() + 1, promise, || format!("listed {listed:?}"))
    }

    async fn listing(&self) -> Kept {
        let promise = "a listing shows all objects below its prefix, once, with their lengths, and no others";
        let mut wanted = Vec::new();
        for number in 0..25 {
            let name = self.name(&format!("list/{}/{number}", number % 3));
            self.put(&name, vec![0; number], promise).await?;
            wanted.push((name, number as u64));
        }
        self.put(&self.name("list-neighbour"), &b"n"[..], promise).await?;
        wanted.sort();
        let listed = self.list("list/").await?;
        ensure(listed == wanted, promise, || format!("{listed:?}"))?;
        let one: Vec<_> =
            wanted.iter().filter(|(name, _)| name.as_str().contains("list/1/")).cloned().collect();
        let listed = self.list("list/1/").await?;
        ensure(listed == one, promise, || format!("{listed:?}"))?;
        let listed = self.list("list/none/").await?;
        ensure(listed.is_empty(), "a prefix that nothing has lists nothing", || format!("{listed:?}"))?;
        let everything = self.list_at("").await?;
        ensure(wanted.iter().all(|object| everything.contains(object)), promise, || {
            "the empty prefix misses some".into()
        })
    }

    async fn control_objects(&self) -> Kept {
        let promise = "objects of the control part are put, read, listed and deleted as others";
        let random = id::to_hex(&id::random_bytes::<8>());
        let name = control_name(&format!("gen/conformance-{random}"));
        self.put(&name, &b"control"[..], promise).await?;
        self.expect(&name, 0..7, b"control", promise).await?;
        for prefix in ["gen/", ""] {
            let listed = self.list_at(prefix).await?;
            ensure(listed.contains(&(name.clone(), 7)), promise, || format!("not listed below {prefix:?}"))?;
        }
        let deleted = self.vault.delete(&name).await.or_broken(promise)?;
        ensure(deleted, promise, || "not deleted".into())
    }

    async fn deleting(&self) -> Kept {
        let promise = "an object of other bytes than those that are to be removed stays";
        let name = self.name("first");
        let len = self.vault.stat(&name).await.or_broken(promise)?.unwrap_or_default();
        let bytes = self.vault.get_range(&name, 0..len).await.or_broken(promise)?;
        let mut flipped = bytes.to_vec();
        flipped[0] ^= 1;
        for other in [flipped.into(), bytes.slice(1..), Bytes::new()] {
            let deleted = self.vault.delete_exactly(&name, &other).await.or_broken(promise)?;
            ensure(!deleted, promise, || format!("{} bytes of {name} are said to be gone", other.len()))?;
        }
        self.expect(&name, 0..len, &bytes, promise).await?;
        let promise = "an object of exactly these bytes is removed";
        let deleted = self.vault.delete_exactly(&name, &bytes).await.or_broken(promise)?;
        ensure(deleted, promise, || "it is said not to exist, or to be another".into())?;
        let deleted = self.vault.delete_exactly(&name, &bytes).await.or_broken(promise)?;
        ensure(!deleted, promise, || "it is removed twice".into())?;
        self.put(&name, bytes, promise).await?;
        let promise = "a deleted object is gone, from listings too, and its name is free again";
        let deleted = self.vault.delete(&name).await.or_broken(promise)?;
        ensure(deleted, promise, || "it is said not to exist".into())?;
        let stat = self.vault.stat(&name).await.or_broken(promise)?;
        let listed = self.list("").await?;
        ensure(stat.is_none() && listed.iter().all(|(n, _)| *n != name), promise, || {
            "it is still there".into()
        })?;
        self.put(&name, &b"again"[..], promise).await?;
        self.expect(&name, 0..5, b"again", promise).await?;
        for (name, _) in self.list("").await? {
            self.vault.delete(&name).await.or_broken(promise)?;
        }
        let left = self.list("").await?;
        ensure(left.is_empty(), promise, || format!("left: {left:?}"))
    }

    async fn list(&self, rest: &str) -> Result<Vec<(ObjectName, u64)>, BrokenPromise> {
        self.list_at(&format!("{}/{rest}", self.dir)).await
    }

    async fn list_at(&self, prefix: &str) -> Result<Vec<(ObjectName, u64)>, BrokenPromise> {
        let promise = "a listing goes from page to page and ends";
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let page = self.vault.list(prefix, from.as_deref()).await.or_broken(promise)?;
            let last = all.iter().map(|(name, _)| name).max().filter(|_| !prefix.is_empty());
            let goes_on = |object: &ObjectInfo| last.is_none_or(|last| *last < object.name);
            let ascends = page.objects.iter().all(goes_on);
            ensure(ascends, "names ascend from page to page", || format!("not after {last:?}"))?;
            all.extend(page.objects.into_iter().map(|object| (object.name, object.len)));
            if page.next.is_none() {
                break;
            }
            ensure(page.next != from, promise, || format!("{from:?} leads to itself"))?;
            from = page.next;
        }
        all.sort();
        Ok(all)
    }
}

trait OrBroken<T> {
    fn or_broken(self, promise: &'static str) -> Result<T, BrokenPromise>;
}

impl<T> OrBroken<T> for Result<T, VaultError> {
    fn or_broken(self, promise: &'static str) -> Result<T, BrokenPromise> {
        self.map_err(|e| BrokenPromise { promise, detail: format!("{:?}: {e}", e.class()) })
    }
}

fn ensure(kept: bool, promise: &'static str, detail: impl FnOnce() -> String) -> Kept {
    if kept { Ok(()) } else { broken(promise, detail()) }
}

fn broken(promise: &'static str, detail: String) -> Kept {
    Err(BrokenPromise { promise, detail })
}

fn control_name(text: &str) -> ObjectName {
    ObjectName::new(text)
        .or_else(|| ObjectName::new("config"))
        .unwrap_or_else(|| unreachable!("`config` is a name"))
}

/// Bytes of which no two ranges look alike for long.
fn pattern(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}
