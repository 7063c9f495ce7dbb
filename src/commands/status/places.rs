//! The places that keep packs: how long ago their bytes were last proven, and what this machine may do there.

use holdfast_backup::agenda::{Task, Work};
use holdfast_backup::alert::Alert;
use holdfast_backup::config::{Config, ScrubTerms};
use holdfast_backup::ledger::Ledger;
use holdfast_store::catalog::{Proof, VaultNo};
use holdfast_store::clock::Timestamp;
use holdfast_store::store::Store;
use holdfast_store::vault::address::{Credentials, VaultAddress};
use holdfast_store::vault::rights::{May, Rights};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::troubles::alert;
use super::vaults::Answered;
use crate::commands::scrub::terms_of;
use crate::outcome::Failure;
use crate::terminal::text::{self, Table};

/// A proof may be so many days older than it should be, for a machine that is off for a weekend.
const LATE_DAYS: u64 = 3;
/// So many seconds before a credential ends somebody is told.
const ENDS_SOON: i64 = 14 * 86_400;

/// The store's directory, or a vault.
#[derive(Debug, Serialize)]
pub struct PlaceLine {
    /// `local`, or the vault's address.
    pub place: String,
    pub packs: u64,
    /// Packs that were never read back since they came there, and their bytes.
    pub packs_never_proven: u64,
    bytes_never_proven: u64,
    /// Since when every byte was read back and proven at least once; missing if some never was, or nothing is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    proven_since: Option<String>,
    /// With which credential a vault is opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'static str>,
    /// What that may do there: `writer`, `maintainer`, `reader`, `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    may: Option<&'static str>,
    /// When the credential ends, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_until: Option<String>,
    #[serde(skip)]
    until: Option<Timestamp>,
    /// Whether a vault answers; missing if nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    #[serde(skip)]
    oldest: Oldest,
    /// Of the packs that were ever proven.
    #[serde(skip)]
    oldest_proof: Option<Timestamp>,
    #[serde(skip)]
    bytes: u64,
}

/// The proof that is the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oldest {
    /// There is nothing to prove.
    Nothing,
    /// Some pack was never proven.
    Never,
    /// Of this moment.
    At(Timestamp),
}

impl Oldest {
    fn of(proof: &Proof) -> Self {
        match (proof.packs_never, proof.oldest) {
            (0, Some(at)) => Self::At(at),
            (0, None) => Self::Nothing,
            _ => Self::Never,
        }
    }
}

impl PlaceLine {
    /// `rights` are those in a vault.
    pub fn new(place: String, proof: &Proof, rights: Option<Rights>) -> Self {
        let oldest = Oldest::of(proof);
        let until = rights.and_then(|rights| rights.until);
        Self {
            place,
            packs: proof.packs,
            packs_never_proven: proof.packs_never,
            bytes_never_proven: proof.bytes_never,
            proven_since: if let Oldest::At(at) = oldest { Some(text::rfc3339(at)) } else { None },
            credential: rights.map(|rights| rights.credential),
            may: rights.map(|rights| rights.may.as_str()),
            credential_until: until.map(text::rfc3339),
            until,
            up: None,
            trouble: None,
            oldest,
            oldest_proof: proof.oldest,
            bytes: proof.bytes,
        }
    }

    /// With what the vault said.
    pub fn answering(self, answered: &[Answered]) -> Self {
        match answered.iter().find(|answered| answered.place == self.place) {
            Some(said) => Self { up: Some(said.trouble.is_none()), trouble: said.trouble.clone(), ..self },
            None => self,
        }
    }

    /// How old the oldest proof is; `None` if there is nothing to prove, endless if something never was.
    pub fn unproven_seconds(&self, now: Timestamp) -> Option<f64> {
        match self.oldest {
            Oldest::Nothing => None,
            Oldest::Never => Some(f64::INFINITY),
            Oldest::At(at) => Some(age(at, now) as f64),
        }
    }

    fn by(&self, zone: &TimeZone) -> String {
        let until =
            self.until.map_or_else(String::new, |at| format!(", until {}", text::local_time(at, zone)));
        self.credential.unwrap_or_default().to_owned() + &until
    }

    /// That its bytes were not read for longer than they should have been.
    fn is_late(&self, now: Timestamp, scrubs: &Scrubs) -> Option<Alert> {
        let days = terms_of(&self.place, &scrubs.terms).days_for(self.bytes)?;
        let patience = days.saturating_add((days / 10).max(LATE_DAYS));
        // Also where something new is there, as it always is where more comes than may be read.
        let what = match (self.oldest, self.oldest_proof) {
            (_, Some(at)) if age(at, now) / 86_400 > patience => format!(
                "some of what is there was last read and proven {} ago, and all of it should be in {days}",
                text::count(age(at, now) / 86_400, "day")
            ),
            (Oldest::Never, _) if age(scrubs.good?, now) / 86_400 > LATE_DAYS => format!(
                "{} there were never read back, and no `holdfast scrub` was done for {}",
                text::count(self.packs_never_proven, "pack"),
                text::count(age(scrubs.good?, now) / 86_400, "day")
            ),
            _ => return None,
        };
        let next_step = "`holdfast scrub` reads what is due; `holdfast jobs --failed` shows why the daemon did not, and `days` and `vault-bytes` in \
                         [scrub] how much is to be read";
        Some(alert("proof-late", &self.place, what, next_step))
    }

    /// That its credential ends soon, or has ended: then nothing goes there any more, and nothing comes from there.
    fn ends_soon(&self, now: Timestamp, zone: &TimeZone) -> Option<Alert> {
        let (until, credential) = (self.until?, self.credential?);
        let left = until.seconds.saturating_sub(now.seconds);
        if left > ENDS_SOON {
            return None;
        }
        let verb = if left > 0 { "ends" } else { "ended" };
        let ends = text::local_time(until, zone);
        let what = format!("the {credential} with which it is opened {verb} at {ends}");
        let next_step = "put a new one in its place, where the daemon has it from, and restart that";
        Some(alert("credential-ends", &self.place, what, next_step))
    }

    /// Since when all of it is proven, for people.
    pub fn proof(&self, now: Timestamp, zone: &TimeZone) -> String {
        match self.oldest {
            Oldest::Nothing => "nothing is there".to_owned(),
            Oldest::Never => {
                let packs = text::count(self.packs_never_proven, "pack");
                format!("never: {packs} ({})", text::size(self.bytes_never_proven))
            }
            Oldest::At(at) => {
                let days = text::count(age(at, now) / 86_400, "day");
                format!("{}, {days} ago", text::local_time(at, zone))
            }
        }
    }
}

/// How what is stored is read again.
#[derive(Clone, Copy, Debug)]
pub struct Scrubs {
    /// How much of it in a day.
    pub terms: ScrubTerms,
    /// When that was last done.
    pub good: Option<Timestamp>,
}

impl Scrubs {
    /// Nothing, if the configuration has it never done.
    pub fn of(config: &Config, ledger: Option<&Ledger>) -> Option<Self> {
        config.scrub.as_ref()?;
        let past = ledger.and_then(|ledger| ledger.past(&Task { work: Work::Scrub, group: None }).ok());
        Some(Self { terms: config.scrub_terms, good: past.and_then(|past| past.good) })
    }
}

/// What somebody has to see to.
pub fn alerts(
    places: &[PlaceLine],
    scrubs: Option<&Scrubs>,
    now: Timestamp,
    zone: &TimeZone,
) -> impl Iterator<Item = Alert> {
    places.iter().flat_map(move |place| {
        let late = scrubs.and_then(|scrubs| place.is_late(now, scrubs));
        place.ends_soon(now, zone).into_iter().chain(late)
    })
}

/// Seconds; none where the clock went back.
fn age(at: Timestamp, now: Timestamp) -> u64 {
    now.seconds.saturating_sub(at.seconds).max(0).cast_unsigned()
}

/// All of them, the store's directory first.
pub fn places(
    store: &Store,
    credentials: &Credentials,
    answered: &[Answered],
) -> Result<Vec<PlaceLine>, Failure> {
    let proof = |vault: Option<VaultNo>| store.catalog().proof_of(vault);
    let mut lines = vec![PlaceLine::new("local".to_owned(), &proof(None)?, None)];
    for (no, address, _) in store.vaults() {
        let rights = address.parse::<VaultAddress>().map(|address| Rights::of(&address, credentials));
        // It cannot even be addressed.
        let rights = rights.unwrap_or(Rights::new("none", May::Unknown));
        let line = PlaceLine::new(address.clone(), &proof(Some(*no))?, Some(rights));
        lines.push(line.answering(answered));
    }
    Ok(lines)
}

/// As a table.
pub fn render(places: &[PlaceLine], now: Timestamp, zone: &TimeZone) -> String {
    let mut table = Table::new(&["Place", ">Packs", "All proven since", "May", "By", "State"]);
    for line in places {
        table.row([
            line.place.clone(),
            line.packs.to_string(),
            line.proof(now, zone),
            line.may.unwrap_or_default().to_owned(),
            line.by(zone),
            line.up.map_or("", |up| if up { "answers" } else { "away" }).to_owned(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: i64 = 1_795_176_000;

    fn proof(packs_never: u64, oldest: Option<i64>) -> Proof {
        let oldest = oldest.map(Timestamp::from_seconds);
        let packs = packs_never + u64::from(oldest.is_some());
        Proof { packs, bytes: packs * 1024, packs_never, bytes_never: 2048, oldest }
    }

    #[test]
    fn a_place_says_since_when_all_of_it_is_proven_and_what_may_be_done_there() {
        let rights = Rights::new("account key", May::Maintain);
        let answered = [("/b", Some("it is gone")), ("/a", None)];
        let answered = answered
            .map(|(place, trouble)| Answered { place: place.into(), trouble: trouble.map(str::to_owned) });
        let lines = [
            PlaceLine::new("local".into(), &proof(0, Some(NOW - 3 * 86_400)), None),
            PlaceLine::new("/a".into(), &proof(2, Some(NOW - 60)), Some(rights)).answering(&answered),
            PlaceLine::new("/b".into(), &proof(0, None), Some(rights)).answering(&answered),
            PlaceLine::new("/c".into(), &proof(0, Some(NOW + 60)), Some(rights)),
        ];
        let now = Timestamp::from_seconds(NOW);
        let text = render(&lines, now, &TimeZone::UTC);
        let rows: Vec<String> =
            text.lines().skip(2).map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            rows,
            [
                "local 1 2026-11-17 12:00:00, 3 days ago",
                "/a 3 never: 2 packs (2.000 KiB) maintainer account key answers",
                "/b 0 nothing is there maintainer account key away",
                "/c 1 2026-11-20 12:01:00, 0 days ago maintainer account key",
            ]
        );
        let ages = lines.each_ref().map(|line| line.unproven_seconds(now));
        assert_eq!(ages, [Some(3.0 * 86_400.0), Some(f64::INFINITY), None, Some(0.0)]);
    }

    #[test]
    fn bytes_that_were_not_read_for_longer_than_they_should_be_are_told_of() {
        const DAY: i64 = 86_400;
        let terms = ScrubTerms { days: 30, vault_bytes: 1024 };
        let now = Timestamp::from_seconds(NOW);
        let told = |place: &str, packs_never, days_ago: Option<i64>, done_days_ago: Option<i64>| {
            let ago = |days: i64| Timestamp::from_seconds(NOW - days * DAY);
            let line = PlaceLine::new(
                place.into(),
                &proof(packs_never, days_ago.map(|days| NOW - days * DAY)),
                None,
            );
            let scrubs = Scrubs { terms, good: done_days_ago.map(ago) };
            let told: Vec<Alert> = alerts(&[line], Some(&scrubs), now, &TimeZone::UTC).collect();
            assert!(told.iter().all(|alert| alert.name == "proof-late" && alert.subject == place));
            told.into_iter().map(|alert| alert.what).next()
        };
        assert_eq!(told("local", 0, Some(33), Some(0)), None);
        assert!(told("local", 0, Some(34), Some(0)).unwrap().contains("34 days ago"));
        assert!(told("/v", 0, Some(34), None).is_some());
        assert_eq!(told("/v", 0, Some(-5), None), None, "the clock went back");
        // New packs are read the next night, unless nothing is done at night.
        assert_eq!(told("local", 2, Some(1), Some(3)), None);
        assert_eq!(told("local", 2, None, None), None, "it has just begun");
        assert!(told("local", 2, None, Some(4)).unwrap().contains("2 packs there were never read"));
        // A hundred packs of 1 KiB at 1 KiB a day.
        // Half of that is for what waits longest.
        assert_eq!(told("azure://a/b", 99, Some(220), Some(0)), None);
        assert!(told("azure://a/b", 99, Some(221), Some(0)).unwrap().contains("in 200"));
        assert!(told("azure://a/b", 0, Some(34), Some(0)).is_some(), "one pack is read in a day");
        let off = Scrubs { terms: ScrubTerms { vault_bytes: 0, ..terms }, good: None };
        let line = PlaceLine::new("azure://a/b".into(), &proof(0, Some(NOW - 900 * DAY)), None);
        assert_eq!(alerts(&[line], Some(&off), now, &TimeZone::UTC).count(), 0, "nobody wants it read");
    }

    #[test]
    fn a_credential_that_ends_within_a_fortnight_or_has_ended_is_told_of() {
        let of = |days: i64| {
            let until = Some(Timestamp::from_seconds(NOW + days * 86_400));
            let rights = Rights { until, ..Rights::new("shared access signature", May::Write) };
            PlaceLine::new(format!("/{days}"), &proof(0, None), Some(rights))
        };
        let lines = [of(15), of(14), of(0), of(-1), PlaceLine::new("local".into(), &proof(0, None), None)];
        let told: Vec<_> = alerts(&lines, None, Timestamp::from_seconds(NOW), &TimeZone::UTC)
            .map(|alert| (alert.subject, alert.what))
            .collect();
        let what = |verb, day| {
            format!("the shared access signature with which it is opened {verb} at 2026-{day} 12:00:00")
        };
        let expected =
            [("/14", what("ends", "12-04")), ("/0", what("ended", "11-20")), ("/-1", what("ended", "11-19"))];
        assert_eq!(told, expected.map(|(place, what)| (place.to_owned(), what)));
        assert_eq!(lines[1].by(&TimeZone::UTC), "shared access signature, until 2026-12-04 12:00:00");
    }
}
