//! Since when every byte of each place was read back, as `status` says it.

use super::*;

#[test]
fn status_says_since_when_each_place_is_proven_and_what_may_be_done_there() {
    let tiers = Tiers::new(LOCAL, ONLINE);
    tiers.take(&[0]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let places = || tiers.run(&["status", "--json"]).expect_code(0).json()["places"].clone();
    let vault = tiers.vault().display().to_string();
    let before = places();
    assert_eq!((&before[0]["place"], &before[1]["place"]), (&"local".into(), &vault.as_str().into()));
    for place in before.as_array().unwrap() {
        assert!(place["proven_since"].is_null() && place["packs"] == place["packs_never_proven"], "{place}");
        assert!(place["packs"].as_u64().unwrap() > 0 && place["bytes_never_proven"].as_u64().unwrap() > 0);
    }
    assert_eq!((&before[0]["may"], &before[1]["may"]), (&serde_json::Value::Null, &"maintainer".into()));
    let page = tiers.run(&["status"]).expect_code(0).out();
    assert!(page.contains("never: ") && page.contains("to write is to delete"), "{page}");

    tiers.run(&["check", "--read-data"]).expect_code(0);
    let after = places();
    for place in after.as_array().unwrap() {
        assert!(place["proven_since"].is_string() && place["packs_never_proven"] == 0, "{place}");
    }
    // What comes after is not proven by it.
    tiers.take(&[24]);
    let later = places();
    assert!(later[0]["proven_since"].is_null() && later[0]["packs_never_proven"].as_u64().unwrap() > 0);
    assert_eq!(later[1], after[1]);
    let figures = tiers.run(&["status", "--metrics"]).expect_code(0).out();
    let of = |place: &str| format!("holdfast_oldest_unproven_age_seconds{{place=\"{place}\"}} ");
    let age = |place: &str| figures.lines().find_map(|line| line.strip_prefix(&of(place))).unwrap();
    assert_eq!(age("local"), "+Inf");
    assert!(age(&vault).parse::<u64>().unwrap() < 600, "{figures}");
}
