//! How much goes in a day, and what moments of a vault's clock are worth.

use super::*;

#[test]
fn what_a_clock_that_was_set_back_puts_ahead_is_not_waited_for() {
    let now = Some(1_795_176_000);
    let since = |seconds: i64| silence(now, now.map(|now| now - seconds));
    assert_eq!(since(60), Some(Duration::from_secs(60)));
    assert_eq!(since(-60), Some(Duration::ZERO));
    assert!(since(-2 * 3600) > Some(Terms::default().silence + Terms::default().grace));
    assert_eq!(silence(now, None), None);
    assert_eq!(silence(None, now), None);
}

#[test]
fn moments_as_far_ahead_as_clocks_may_differ_are_now_and_those_beyond_are_long_ago() {
    let since = |seconds: i64| silence(Some(0), Some(-seconds));
    assert_eq!(since(-3600), Some(Duration::ZERO));
    assert_eq!(since(-3601), Some(Duration::from_secs(365 * 24 * 3600)));
}

#[test]
fn who_frees_at_once_is_as_patient_with_uploads_as_anybody() {
    let usual = Terms::default();
    assert_eq!([usual.silence, Terms::AT_ONCE.silence], [Duration::from_secs(86_400); 2]);
    assert_eq!(Terms::AT_ONCE.room(None, 0, 0), u64::MAX);
}

/// What of a vault may go when a generation has stood for so many seconds, and so much of it went.
fn room(terms: &Terms, seconds: u64, of: u64, gone: u64) -> u64 {
    terms.room(Some(Duration::from_secs(seconds)), of, gone)
}

#[test]
fn each_day_from_when_it_is_ripe_a_twentieth_of_a_vault_goes_of_a_generation_and_what_went_counts() {
    const VAULT: u64 = 40_000_000_000_000;
    const DAILY: u64 = 2_000_000_000_000;
    let usual = Terms::default();
    let days = |days: u64| days * 86_400;
    for (seconds, may_go) in [
        (0, 0),
        (days(2) - 1, 0),
        (days(2), DAILY),
        (days(3) - 1, DAILY),
        (days(3), 2 * DAILY),
        (days(12), 11 * DAILY),
    ] {
        assert_eq!(room(&usual, seconds, VAULT, 0), may_go, "{seconds} s");
    }
    assert_eq!(room(&usual, days(3), VAULT, DAILY + 1), DAILY - 1);
    assert_eq!(room(&usual, days(3), VAULT, 5 * DAILY), 0);
    // Nobody knows for how long it has stood.
    assert_eq!(usual.room(None, VAULT, 0), 0);
    assert_eq!(room(&usual, u64::MAX, u64::MAX, 0), u64::MAX);
}

#[test]
fn all_goes_without_a_wait_only_if_neither_a_time_nor_a_part_was_asked_for() {
    const VAULT: u64 = 1_000_000_000_000;
    let part = Terms { daily_percent: 60, ..Terms::AT_ONCE };
    assert_eq!(room(&part, 0, VAULT, 0), 600_000_000_000);
    let later = Terms { grace: Duration::from_secs(100), ..Terms::AT_ONCE };
    assert_eq!([99, 100].map(|seconds| room(&later, seconds, VAULT, 0)), [0, VAULT]);
}

#[test]
fn of_a_small_vault_a_pack_goes_each_day() {
    let usual = Terms::default();
    let longest = 32 << 20;
    assert_eq!([2, 3, 4].map(|days| room(&usual, days * 86_400, 1000, 0)), [1, 2, 3].map(|n| n * longest));
    assert_eq!(room(&usual, 3 * 86_400, 1000, longest), longest);
}
