//! Tests of listings: that each ends, whatever pages a vault makes up.

use std::sync::Weak;

use super::*;
use crate::names;
use crate::vault::{ListPage, PutNew};

type Pages = Box<dyn Fn(u64) -> ListPage + Send + Sync>;

/// A vault that makes up its listing: a page for each request, counted from 0.
struct MadeUp {
    pages: Pages,
    asked: AtomicU64,
}

impl std::fmt::Debug for MadeUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MadeUp")
    }
}

fn nothing_else<T>() -> Result<T, VaultError> {
    Err(VaultError::invalid("it does nothing but list"))
}

#[async_trait::async_trait]
impl Vault for MadeUp {
    fn address(&self) -> String {
        "made up".into()
    }
    async fn prepare(&self) -> Result<(), VaultError> {
        nothing_else()
    }
    async fn put_new(&self, _: &ObjectName, _: Bytes) -> Result<PutNew, VaultError> {
        nothing_else()
    }
    async fn get_range(&self, _: &ObjectName, _: Range<u64>) -> Result<Bytes, VaultError> {
        nothing_else()
    }
    async fn stat(&self, _: &ObjectName) -> Result<Option<u64>, VaultError> {
        nothing_else()
    }
    async fn list(&self, _: &str, _: Option<&str>) -> Result<ListPage, VaultError> {
        Ok((self.pages)(self.asked.fetch_add(1, Ordering::Relaxed)))
    }
    async fn delete(&self, _: &ObjectName) -> Result<bool, VaultError> {
        nothing_else()
    }
    async fn delete_exactly(&self, _: &ObjectName, _: &Bytes) -> Result<bool, VaultError> {
        nothing_else()
    }
}

fn listing(pages: impl Fn(u64) -> ListPage + Send + Sync + 'static) -> (Arc<MadeUp>, Arc<Transfer>) {
    let vault = Arc::new(MadeUp { pages: Box::new(pages), asked: AtomicU64::new(0) });
    let clock = Arc::new(ManualClock::default());
    let transfer = Transfer::new(vault.clone(), clock, TransferPolicy::default()).unwrap();
    (vault, transfer)
}

fn page(names: impl IntoIterator<Item = String>, next: String) -> ListPage {
    let object = |text: String| ObjectInfo { name: name(&text), len: 1, put_at: None };
    ListPage { objects: names.into_iter().map(object).collect(), next: Some(next) }
}

/// A page of names that go on and on.
fn numbered(nth: u64) -> ListPage {
    page((0..5000).map(|i| format!("pack/{:012}", nth * 5000 + i)), nth.to_string())
}

#[test]
fn a_listing_that_does_not_end_fails_after_few_pages_whatever_it_shows() {
    type Case = (&'static str, fn(u64) -> ListPage, u64);
    let cases: [Case; 7] = [
        ("one page leads to itself", |_| page(["pack/a".into()], "m".into()), 2),
        ("the same again under other marks", |nth| page(["pack/a".into()], nth.to_string()), 2),
        ("two in turns", |nth| page([format!("pack/{}", nth % 2)], (nth % 2).to_string()), 3),
        ("backwards", |nth| page([format!("pack/{:04}", 9999 - nth)], nth.to_string()), 2),
        ("nothing", |nth| page([], nth.to_string()), 1_001),
        ("of another prefix", |nth| page([format!("idx/{nth:09}")], nth.to_string()), 1_001),
        ("ever more", numbered, 201),
    ];
    for (what, pages, most) in cases {
        let (vault, transfer) = listing(pages);
        let error = transfer.list_all("pack/").unwrap_err();
        assert!(matches!(error, VaultError::WrongAnswer { .. }), "{what}: {error}");
        assert_eq!(vault.asked.load(Ordering::Relaxed), most, "{what}");
        if what == "ever more" {
            let told = error.to_string();
            assert!(["\"pack/\"", "1005000", "remove"].iter().all(|part| told.contains(part)), "{told}");
        }
    }
}

#[test]
fn names_that_are_no_points_fill_no_memory_and_keep_nobody_from_listing_points() {
    let mixed = |nth: u64| {
        let junk = (0..4999).map(|i| format!("rp/{nth:032x}/none{i}"));
        page(junk.chain([format!("rp/{nth:032x}/{nth:032x}")]), nth.to_string())
    };
    let (_, transfer) =
        listing(move |nth| ListPage { next: (nth < 299).then(|| nth.to_string()), ..mixed(nth) });
    let listed = names::list(&transfer, names::POINTS, Deadline::NEVER).unwrap();
    let points = listed.iter().filter(|object| names::outcome_of(&object.name).is_some()).count();
    assert_eq!(points, 300, "one of 5,000 each");
    // Who takes offence at a name hears of some.
    assert_eq!(listed.len(), 400);
    let (_, transfer) =
        listing(move |nth| ListPage { next: (nth < 299).then(|| nth.to_string()), ..mixed(nth) });
    transfer.list_all(names::POINTS).unwrap_err();
}

#[test]
fn what_is_not_ours_is_not_kept_and_does_not_make_a_listing_longer() {
    let (vault, transfer) = listing(numbered);
    let packs = transfer.list_as(names::PACKS, Deadline::NEVER, |object| names::pack_of(&object.name));
    assert!(matches!(packs, Err(VaultError::WrongAnswer { .. })));
    assert_eq!(vault.asked.load(Ordering::Relaxed), 1_001);
}

#[test]
fn pages_may_be_empty_and_out_of_order_in_themselves() {
    let (_, transfer) = listing(|nth| match nth {
        0 => page(["pack/c".into(), "pack/a".into(), "pack/c".into()], "0".into()),
        1..1_000 => page([], nth.to_string()),
        _ => ListPage { next: None, ..page(["pack/d".into()], String::new()) },
    });
    let listed: Vec<_> =
        transfer.list_all("pack/").unwrap().into_iter().map(|o| o.name.to_string()).collect();
    assert_eq!(listed, ["pack/a", "pack/c", "pack/d"]);
}

#[test]
fn who_is_told_to_stop_or_has_no_time_left_stops_at_the_next_page() {
    let told: Arc<OnceLock<Weak<Transfer>>> = Arc::default();
    let teller = told.clone();
    let (vault, transfer) = listing(move |nth| {
        if nth == 10 {
            teller.get().and_then(Weak::upgrade).unwrap().cancel();
        }
        numbered(nth)
    });
    told.set(Arc::downgrade(&transfer)).unwrap();
    assert!(matches!(transfer.list_all("pack/"), Err(VaultError::Cancelled)));
    assert_eq!(vault.asked.load(Ordering::Relaxed), 11);

    let clock = Arc::new(ManualClock::default());
    let slow = clock.clone();
    let pages: Pages = Box::new(move |nth| {
        slow.advance(Duration::from_secs(1));
        numbered(nth)
    });
    let vault = Arc::new(MadeUp { pages, asked: AtomicU64::new(0) });
    let transfer = Transfer::new(vault, clock.clone(), TransferPolicy::default()).unwrap();
    let soon = Deadline::after(clock.as_ref(), Duration::from_secs(30));
    assert!(matches!(transfer.list_some("pack/", soon, |_| true), Err(VaultError::Timeout)));
}
