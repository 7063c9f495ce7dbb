//! When people are told of an alert: a pure function from what is known of alerts, from what a look has found, and from a moment.
//!
//! An alert is told when two looks in a row found it, so that what passes by itself is not; again each day as long as it is there; and when
//! it is gone, if it was told before. What a way of telling could not take stays *pending* for that way, and is told later.

use std::fmt;
use std::str::FromStr;

use holdfast_store::clock::Timestamp;

use super::Alert;

/// So many looks in a row must have found an alert before somebody is told.
const LOOKS: u32 = 2;
/// As long as it is there, it is told again after so many seconds.
const STILL_EVERY: i64 = 24 * 3600;

/// What is told of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has come.
    Opened,
    /// It is there as before.
    Still,
    /// It is gone.
    Closed,
}

const WORDS: [(Event, &str); 3] =
    [(Event::Opened, "opened"), (Event::Still, "still"), (Event::Closed, "closed")];

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS.iter().find(|(event, _)| event == self).map_or("", |(_, word)| word))
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = WORDS.iter().find(|(_, known)| *known == word);
        found.map(|(event, _)| *event).ok_or_else(|| format!("{word:?} is nothing that is told of an alert"))
    }
}

/// An alert and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number in the ledger; `None`, if it is not there yet.
    pub no: Option<i64>,
    /// As the last look found it.
    pub alert: Alert,
    /// When a look found it first.
    pub opened: Timestamp,
    /// How many looks in a row found it.
    pub looks: u32,
    /// When people were last to be told.
    pub told: Option<Timestamp>,
    /// When a look found that it is gone.
    pub closed: Option<Timestamp>,
}

/// What a look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The alerts.
    pub alerts: Vec<Alert>,
    /// Whether these are all of them. If not, what is not among them may be there all the same.
    pub whole: bool,
    /// Alerts of this name were not looked for: what is known of them stays as it is.
    pub passed_over: Option<&'static str>,
}

impl Found {
    /// The same of a look that did not look for alerts of this name.
    pub fn passing_over(mut self, name: &'static str) -> Self {
        self.alerts.retain(|alert| alert.name != name);
        Self { passed_over: Some(name), ..self }
    }
}

/// What is known of alerts after a look, and what is to be told of each; `open` are those that were there before. What a look that did not
/// find everything says nothing about stays as it is.
pub fn follow(open: Vec<Known>, found: &Found, now: Timestamp) -> Vec<(Known, Option<Event>)> {
    let is = |known: &Known, alert: &Alert| {
        (known.alert.name.as_str(), &known.alert.subject) == (&alert.name, &alert.subject)
    };
    let mut followed: Vec<(Known, Option<Event>)> = Vec::new();
    for alert in &found.alerts {
        // Two of one name and subject are one.
        if !followed.iter().any(|(known, _)| is(known, alert)) {
            let known = open.iter().find(|known| is(known, alert));
            followed.push(known.map_or_else(|| (begin(alert, now), None), |known| stay(known, alert, now)));
        }
    }
    let looked_for = |known: &Known| found.whole && found.passed_over != Some(known.alert.name.as_str());
    let gone = |known: &Known| looked_for(known) && !found.alerts.iter().any(|alert| is(known, alert));
    followed.extend(open.into_iter().filter(gone).map(|known| close(known, now)));
    followed
}

fn begin(alert: &Alert, now: Timestamp) -> Known {
    Known { no: None, alert: alert.clone(), opened: now, looks: 1, told: None, closed: None }
}

fn stay(known: &Known, alert: &Alert, now: Timestamp) -> (Known, Option<Event>) {
    let looks = known.looks.saturating_add(1);
    let (told, event) = match known.told {
        None if looks >= LOOKS => (Some(now), Some(Event::Opened)),
        None => (None, None),
        Some(told) if told.seconds.saturating_add(STILL_EVERY) <= now.seconds => {
            (Some(now), Some(Event::Still))
        }
        // The clock was set back: the day is counted from now on, and not from a moment that may be years ahead.
        Some(told) => (Some(told.min(now)), None),
    };
    (Known { alert: alert.clone(), looks, told, ..known.clone() }, event)
}

fn close(known: Known, now: Timestamp) -> (Known, Option<Event>) {
    let event = known.told.map(|_| Event::Closed);
    (Known { closed: Some(now), ..known }, event)
}

/// What is still to be told by a way, after something more is.
pub fn pending(mut before: Vec<Event>, event: Event) -> Vec<Event> {
    match event {
        // Whatever waits tells it as well.
        Event::Still if !before.is_empty() => return before,
        Event::Closed => before.retain(|waiting| *waiting != Event::Still),
        _ => {}
    }
    before.push(event);
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = STILL_EVERY;

    fn alert(name: &str) -> Alert {
        let (subject, what, next_step) = ("web".to_owned(), "it is".to_owned(), "see to it".to_owned());
        Alert { name: name.to_owned(), subject, since: None, what, next_step }
    }

    /// A person's view of one alert: at each look, whether it is there, and what is told.
    #[derive(Default)]
    struct Watched(Vec<Known>);

    impl Watched {
        fn look(&mut self, second: i64, names: &[&str]) -> Vec<(String, Event)> {
            self.found(second, &all(names))
        }

        fn found(&mut self, second: i64, found: &Found) -> Vec<(String, Event)> {
            let before = self.0.clone();
            let after = follow(std::mem::take(&mut self.0), found, Timestamp::from_seconds(second));
            let untouched = |known: &&Known| !after.iter().any(|(new, _)| new.alert.name == known.alert.name);
            self.0 = before.iter().filter(untouched).cloned().collect();
            self.0.extend(
                after.iter().filter(|(known, _)| known.closed.is_none()).map(|(known, _)| known.clone()),
            );
            after.into_iter().filter_map(|(known, event)| Some((known.alert.name, event?))).collect()
        }
    }

    fn all(names: &[&str]) -> Found {
        Found { alerts: names.iter().map(|name| alert(name)).collect(), whole: true, passed_over: None }
    }

    fn told(name: &str, event: Event) -> Vec<(String, Event)> {
        vec![(name.to_owned(), event)]
    }

    #[test]
    fn it_is_told_once_when_two_looks_in_a_row_found_it_and_when_it_is_gone() {
        let mut watched = Watched::default();
        assert_eq!(watched.look(100, &["a"]), []);
        assert_eq!(watched.look(400, &["a"]), told("a", Event::Opened));
        assert_eq!(watched.look(700, &["a", "b"]), []);
        assert_eq!(watched.look(1000, &["a", "b"]), told("b", Event::Opened));
        assert_eq!(watched.look(1300, &["b", "b"]), told("a", Event::Closed));
        assert_eq!(watched.look(1600, &[]), told("b", Event::Closed));
        assert_eq!(watched.look(1900, &[]), []);
    }

    #[test]
    fn what_passes_by_itself_is_never_told_however_often_it_comes() {
        let mut watched = Watched::default();
        for second in 0..50 {
            let names: &[&str] = if second % 2 == 0 { &["a"] } else { &[] };
            assert_eq!(watched.look(second * 300, names), []);
        }
    }

    #[test]
    fn it_is_told_again_each_day() {
        let mut watched = Watched::default();
        watched.look(0, &["a"]);
        watched.look(1, &["a"]);
        assert_eq!(watched.look(DAY, &["a"]), []);
        assert_eq!(watched.look(DAY + 1, &["a"]), told("a", Event::Still));
        assert_eq!(watched.look(DAY + 2, &["a"]), []);
        // Looks that did not take place are not made up for.
        assert_eq!(watched.look(5 * DAY, &["a"]), told("a", Event::Still));
        assert_eq!(watched.look(5 * DAY + 300, &["a"]), []);
    }

    #[test]
    fn a_clock_that_is_set_back_neither_repeats_it_nor_silences_it_for_years() {
        let mut watched = Watched::default();
        watched.look(1000 * DAY, &["a"]);
        watched.look(1000 * DAY + 1, &["a"]);
        assert_eq!(watched.look(10 * DAY, &["a"]), []);
        assert_eq!(watched.look(11 * DAY - 1, &["a"]), []);
        assert_eq!(watched.look(11 * DAY, &["a"]), told("a", Event::Still));
        assert_eq!(watched.look(9 * DAY, &[]), told("a", Event::Closed));
    }

    #[test]
    fn a_look_that_did_not_find_everything_closes_nothing() {
        let mut watched = Watched::default();
        watched.look(0, &["a"]);
        let part = Found { whole: false, ..all(&["status-fails"]) };
        assert_eq!(watched.found(1, &part), []);
        assert_eq!(watched.found(2, &part), told("status-fails", Event::Opened));
        assert_eq!(watched.look(3, &["a"]).len(), 2, "one is told and the other one is gone");
    }

    #[test]
    fn what_was_not_looked_for_is_neither_found_again_nor_gone() {
        let mut watched = Watched::default();
        watched.look(0, &["a", "b"]);
        assert_eq!(watched.found(1, &all(&["a", "b"]).passing_over("a")), told("b", Event::Opened));
        assert_eq!(watched.found(2, &all(&["b"]).passing_over("a")), []);
        assert_eq!(watched.look(3, &["a", "b"]), told("a", Event::Opened));
        assert_eq!(watched.found(4, &all(&["a"]).passing_over("a")), told("b", Event::Closed));
        assert_eq!(watched.look(5, &[]), told("a", Event::Closed));
    }

    #[test]
    fn an_alert_is_told_with_the_words_of_the_last_look() {
        let first = follow(Vec::new(), &all(&["a"]), Timestamp::from_seconds(1));
        let newer = Alert { what: "it is worse".to_owned(), ..alert("a") };
        let open = first.into_iter().map(|(known, _)| known).collect();
        let found = Found { alerts: vec![newer], ..all(&[]) };
        let second = follow(open, &found, Timestamp::from_seconds(2));
        assert_eq!(
            (second[0].0.alert.what.as_str(), second[0].0.opened.seconds, second.len()),
            ("it is worse", 1, 1)
        );
    }

    #[test]
    fn what_a_way_could_not_take_waits_and_is_told_no_more_often_than_needed() {
        use Event::{Closed, Opened, Still};
        let waits =
            |events: &[Event]| events.iter().fold(Vec::new(), |before, event| pending(before, *event));
        assert_eq!(waits(&[Opened, Still, Still]), [Opened]);
        assert_eq!(waits(&[Still, Still]), [Still]);
        assert_eq!(waits(&[Still, Closed]), [Closed]);
        assert_eq!(waits(&[Opened, Still, Closed]), [Opened, Closed]);
    }
}
