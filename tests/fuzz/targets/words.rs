//! What people type and write: specs of points, the configuration and its changes by the program, and values of a word or two.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use holdfast_backup::alert::telling::Event;
use holdfast_backup::bandwidth::{Hours, Rate};
use holdfast_backup::config::edit::{self, Keep, Protection, SourceWish, TierWish};
use holdfast_backup::config::{Config, Stopped};
use holdfast_backup::pattern::{Patterns, Verdict};
use holdfast_backup::schedule::Schedule;
use holdfast_backup::values;
use holdfast_store::clock::{HurriedClock, Timestamp};
use holdfast_store::scrub::ciphertext::Part;
use holdfast_store::vault::address::VaultAddress;
use jiff::tz::TimeZone;

use super::forge::Input;
use super::program::source::point_spec::{PointSpec, parse_time};

/// A spec of a point, in two zones.
pub fn spec(data: &[u8]) {
    let text = OsStr::from_bytes(data);
    for zone in [TimeZone::UTC, TimeZone::get("Europe/Vienna").unwrap_or(TimeZone::UTC)] {
        if let Ok(spec) = PointSpec::parse(text, &zone) {
            assert!(!spec.path.starts_with(b"/") && !spec.path.ends_with(b"/"));
        }
        let _ = std::str::from_utf8(data).ok().and_then(|text| parse_time(text, &zone));
    }
}

/// A configuration, and changes to it: what is changed is a configuration still, and says what was wished.
pub fn toml(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let parse = |text: &str| Config::parse(&[(PathBuf::from("/etc/holdfast.toml"), text.to_owned())]);
    let files = [(PathBuf::from("/etc/holdfast.toml"), text.clone())];
    let _ = Config::store_despite_mistakes(&files);
    let before = parse(&text);
    let source = SourceWish { path: "/srv/new".into(), name: Some("new".into()), exclude: None };
    let local = TierWish { schedule: Some("daily".into()), keep: "daily=7".parse().ok() };
    let wish = Protection { group: "docs".into(), sources: vec![source], local, online: TierWish::default() };
    let Ok(edited) = edit::protect(&text, &wish) else { return };
    assert!(edit::has_group(&edited, "docs"), "{edited}");
    if before.is_err() {
        return;
    }
    let stopped = edit::stop(&edited, "docs", Some(Stopped::Keep)).expect("the group is there");
    assert!(edit::has_group(&stopped, "docs"));
    let back = edit::stop(&stopped, "docs", None).expect("the group is there");
    let (again, _) = edit::unprotect(&back, "docs", &["/srv/new"]).expect("the source is there");
    let _ = (parse(&edited), parse(&stopped), parse(&again));
}

/// Values. The first byte says of which kind.
pub fn words(data: &[u8]) {
    let mut input = Input(data);
    let which = input.u8();
    let text = &*String::from_utf8_lossy(input.0);
    match which % 12 {
        0 => drop(values::size(text)),
        1 => drop((values::keep_count(text), values::name(text))),
        2 => drop(values::span(text)),
        3 => {
            if let Ok(rate) = text.parse::<Rate>() {
                assert!(rate.to_string().parse::<Rate>().is_ok_and(|again| again == rate));
            }
        }
        4 => drop(text.parse::<Hours>()),
        5 => schedule(text),
        6 => {
            if let Ok(keep) = text.parse::<Keep>() {
                let _ = (keep.is_everything(), keep.rules().count());
            }
        }
        7 => drop(text.parse::<HurriedClock>()),
        8 => {
            if let Ok(part) = text.parse::<Part>() {
                assert!(part.to_string().parse::<Part>().is_ok());
            }
        }
        9 => {
            if let Ok(address) = text.parse::<VaultAddress>() {
                let shown = address.to_string();
                let again = shown.parse::<VaultAddress>();
                assert_eq!(again.ok(), Some(address), "{shown:?} is another vault");
            }
        }
        10 => drop(text.parse::<Event>()),
        _ => patterns(&mut input),
    }
}

fn schedule(text: &str) {
    let Ok(schedule) = text.parse::<Schedule>() else { return };
    let zone = TimeZone::get("Europe/Vienna").unwrap_or(TimeZone::UTC);
    for seconds in [0, 1_700_000_000, 1_711_846_800, 253_402_000_000] {
        let at = Timestamp::from_seconds(seconds);
        let next = schedule.next_after(at, &zone);
        assert!(next.is_none_or(|next| next > at), "{text:?} is due again at once");
    }
}

fn patterns(input: &mut Input<'_>) {
    let (fold, name) = (input.u8() & 1 == 1, input.part().to_vec());
    let mut patterns = Patterns::default();
    if patterns.add_lines(input.0, fold).is_err() {
        return;
    }
    let above = [b"srv".to_vec(), b"data".to_vec()];
    let verdict = patterns.judge(Verdict::default(), &above, &name);
    let _ = (verdict.chosen(), patterns.may_lead(&above, &name));
}
