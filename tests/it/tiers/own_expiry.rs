//! Points with an expiry of their own.

use super::expiry::{foreseen, of, planned};
use super::{HOUR, NOON, Tiers, set, shown_in};

#[test]
fn a_point_with_an_expiry_of_its_own_stays_till_then_in_both_tiers_and_then_goes_from_both() {
    // Rules keep everything.
    let tiers = Tiers::new("schedule = \"every 12 hours\"", "schedule = \"12:00\"");
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let over = tiers.take_one("web", 0, Some(NOON + HOUR));
    let ids = tiers.take(&[12, 24, 36]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let taken = tiers.run(&["backup", "--group", "web", "--online", "--keep-for", "30d", "--json"]);
    let taken = taken.expect_code(0).json();
    let text = |name: &str| taken[name].as_str().unwrap().to_owned();
    let kept = text("snapshot_id");
    assert!(text("expires") > text("backup_end"), "{taken}");
    let all = [&[over.clone(), kept.clone()][..], &ids].concat();
    assert_eq!((shown_in(&store), shown_in(&vault)), (set(&all), set(&all)));

    let goes = &of("local", &[&over]) | &of("online", &[&over]);
    assert_eq!(foreseen(&tiers), goes);
    let (_, reasons) = planned(&tiers);
    for tier in ["local", "online"] {
        let said = |id: &str, why: &str| {
            let of = format!("{tier:?} {id} ");
            reasons.iter().any(|reason| reason.starts_with(&of) && reason.contains(why))
        };
        assert!(said(&over, "was kept until 2025-03-01 13:00:00 UTC"), "{reasons:?}");
        assert!(said(&kept, ", kept until "), "{reasons:?}");
    }
    let by_rules = tiers.run(&["forget", "--keep-last", "4", "--dry-run"]).expect_code(0).out();
    assert!(by_rules.contains("was kept until") && by_rules.contains("keep 4, remove 1"), "{by_rules}");

    tiers.run(&["forget"]).expect_code(0);
    let left = [&[kept.clone()][..], &ids].concat();
    assert_eq!((shown_in(&store), shown_in(&vault)), (set(&left), set(&left)));
    // The point itself says it, to whoever has it.
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(store.join(name));
    }
    let snapshots = tiers.run(&["snapshots", "--json"]).expect_code(0).json();
    let shown: Vec<_> = snapshots.as_array().unwrap().iter().filter(|s| s.get("expires").is_some()).collect();
    assert_eq!(shown.len(), 1, "{snapshots}");
    assert_eq!((&shown[0]["id"], &shown[0]["expires"]), (&taken["snapshot_id"], &taken["expires"]));
    tiers.run(&["check"]).expect_code(0);
}
