//! Several vaults of one store: what one lost comes back from another, and a group goes into those that it names.

use super::*;

#[test]
fn what_one_vault_lost_comes_back_from_another_though_it_is_nowhere_here() {
    let tiers = Tiers::new("schedule = \"daily\", keep = { last = 1 }", "schedule = \"daily\"");
    let second = tiers.machine.path("second");
    tiers.run(&["vault", "add", second.to_str().unwrap()]).expect_code(0);
    let points = tiers.take(&[0, 24, 48, 72]);
    tiers.run(&["vault", "push"]).expect_code(0);
    tiers.run(&["forget", "--tier", "local", "--yes"]).expect_code(0);
    tiers.run(&["prune", "--local"]).expect_code(0);
    std::fs::remove_dir_all(tiers.vault().join("pack")).unwrap();
    let said = tiers.run(&["vault", "push"]).expect_code(3);
    assert!(said.out().contains("4 recovery points vaulted"), "{}", said.out());
    tiers.run(&["check", "--read-data"]).expect_code(0);
    let stranger = Machine::recovered_from(tiers.vault());
    let back = stranger.restore(&points[0], "back");
    assert!(std::fs::read(back.join("page")).unwrap() == noise("web 0", 50_000));
}

#[test]
fn a_group_goes_into_the_vaults_that_it_names_and_into_no_other() {
    let tiers = Tiers::new("schedule = \"daily\"", "schedule = \"daily\"");
    let second = tiers.machine.path("second");
    let named = format!(
        "[group.web]\nsources = [{:?}]\nonline = {{ schedule = \"daily\", vaults = [\"file://{}\"] }}\n",
        tiers.machine.path("www"),
        second.display()
    );
    std::fs::write(&tiers.config, named).unwrap();
    tiers.take(&[0]);
    let refused = tiers.run(&["vault", "push", "--pending"]).expect_code(1);
    refused.expect_err(&["group web is to go into", second.to_str().unwrap(), "holdfast vault add"]);
    tiers.run(&["vault", "add", second.to_str().unwrap()]).expect_code(0);
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    tiers.run(&["backup", "--online"]).expect_code(0);
    let points = tiers.run(&["snapshots", "--json"]).expect_code(0).json();
    let places: Vec<_> = points.as_array().unwrap().iter().map(|point| point["vaults"].clone()).collect();
    assert_eq!(places, vec![serde_json::json!([second.to_str().unwrap()]); 2]);
    // Nor does it wait for the other one, or keep a local copy for it.
    std::fs::rename(tiers.vault(), tiers.away()).unwrap();
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
}
