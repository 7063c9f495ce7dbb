//! For how long what people delete can be brought back: for as long as the store ever had it, until its owner agrees to less. Who may write to the
//! configuration is not always he. What holds stands in a small file in the store's directory; that it is lost leaves what the configuration says.

use std::path::Path;
use std::time::Duration;

use holdfast_backup::config::Config;
use holdfast_store::reclaim::Terms;
use serde::{Deserialize, Serialize};

use crate::outcome::Failure;
use crate::small_file::SmallFile;

const FILE: SmallFile = SmallFile { name: "soft-delete.json", lock: "lock.soft-delete" };

/// How long things stay that are to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// Days in which what a person deletes can be brought back. 0: it goes at once, and nothing of this holds beyond the configuration.
    pub days: u16,
    /// Seconds for which what may go from vaults stays there.
    grace_seconds: u64,
    /// Percent of a vault's bytes that go from there in a day, at most.
    daily_percent: u64,
}

impl Delay {
    /// What a configuration says; where there is none nothing is said that would be noted.
    pub fn said(config: Option<&Config>) -> Self {
        config.map_or(Self { days: 0, grace_seconds: 0, daily_percent: 100 }, |config| Self {
            days: config.soft_delete_days,
            grace_seconds: config.reclaim_terms.grace.as_secs(),
            daily_percent: config.reclaim_terms.daily_percent,
        })
    }

    /// The longer of both in each, if anything was deleted softly before.
    fn or_longer(self, before: Self) -> Self {
        match before.days {
            0 => self,
            days => Self {
                days: self.days.max(days),
                grace_seconds: self.grace_seconds.max(before.grace_seconds),
                daily_percent: self.daily_percent.min(before.daily_percent),
            },
        }
    }

    /// How patient reclaim is, if the configuration has it so.
    pub fn terms(self, usual: Terms) -> Terms {
        Terms {
            silence: usual.silence,
            grace: usual.grace.max(Duration::from_secs(self.grace_seconds)),
            daily_percent: usual.daily_percent.min(self.daily_percent),
        }
    }
}

/// What holds in a store, of which the configuration says so much: that, or what held before. It holds from then on.
///
/// # Errors
/// If it cannot be read what held before. That it cannot be written is told, and no error: on a full disk things have to go.
pub fn holding(store: &Path, said: Delay) -> Result<Delay, Failure> {
    let before = before(store)?;
    let holds = said.or_longer(before);
    if holds.days > 0 && holds != before {
        let noted = FILE.change(store, |kept: &mut Delay| {
            *kept = holds.or_longer(*kept);
            Ok(())
        });
        if let Err(failure) = noted {
            tracing::warn!("{}: for how long what is deleted stays is not noted", failure.message);
        }
    }
    Ok(holds)
}

/// Whether something longer held until now than the configuration says, or it is not known.
pub fn is_longer(store: &Path, said: Delay) -> bool {
    before(store).map_or(true, |before| said.or_longer(before) != said)
}

/// What the configuration says holds, also if it is shorter.
pub fn accept(store: &Path, said: Delay) -> Result<(), Failure> {
    FILE.change(store, |kept: &mut Delay| {
        *kept = said;
        Ok(())
    })
}

fn before(store: &Path) -> Result<Delay, Failure> {
    let path = store.join(FILE.name);
    match FILE.load(store) {
        Some(kept) => Ok(kept),
        None if path.symlink_metadata().is_ok() => {
            let message =
                format!("{} cannot be read, which says for how long what is deleted stays", path.display());
            Err(Failure::failed(message).hint(
                "`holdfast config accept` makes it anew as the configuration says; it takes the owner's word",
            ))
        }
        None => Ok(Delay::default()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: u64 = 3600;

    fn of(days: u16, hours: u64, daily_percent: u64) -> Delay {
        Delay { days, grace_seconds: hours * HOUR, daily_percent }
    }

    #[test]
    fn the_longest_holds_until_somebody_accepts_less() {
        let dir = tempfile::tempdir().unwrap();
        let holds = |said| holding(dir.path(), said).unwrap();
        // Where nothing is deleted softly nothing is kept.
        for said in [of(0, 48, 5), of(0, 1, 100)] {
            assert_eq!(holds(said), said);
        }
        assert!(!dir.path().join(FILE.name).exists());
        for (said, expected) in [
            (of(7, 48, 5), of(7, 48, 5)),
            (of(14, 24, 50), of(14, 48, 5)),
            (of(0, 0, 100), of(14, 48, 5)),
            (of(3, 72, 2), of(14, 72, 2)),
            (Delay::said(None), of(14, 72, 2)),
            (of(14, 72, 2), of(14, 72, 2)),
        ] {
            assert_eq!(is_longer(dir.path(), said), said != expected, "{said:?}");
            assert_eq!(holds(said), expected, "{said:?}");
        }
        accept(dir.path(), of(3, 24, 10)).unwrap();
        assert_eq!(holds(of(2, 1, 10)), of(3, 24, 10));
        accept(dir.path(), of(0, 1, 100)).unwrap();
        assert_eq!(holds(of(0, 0, 100)), of(0, 0, 100));
        assert_eq!(
            holds(of(2, 1, 10)),
            of(2, 1, 10),
            "what held while nothing was deleted softly counts for nothing"
        );
    }

    #[test]
    fn reclaim_is_as_patient_as_it_was_and_no_less_than_the_configuration() {
        let usual = Terms { grace: Duration::from_millis(HOUR * 1500), ..Terms::default() };
        assert_eq!(of(0, 1, 5).terms(usual), usual);
        assert_eq!(
            of(7, 3, 2).terms(usual),
            Terms { grace: Duration::from_secs(3 * HOUR), daily_percent: 2, ..usual }
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_not_less() {
        let dir = tempfile::tempdir().unwrap();
        holding(dir.path(), of(7, 48, 5)).unwrap();
        std::fs::write(dir.path().join(FILE.name), "{\"days\": \"7\"}").unwrap();
        let failure = holding(dir.path(), of(7, 48, 5)).unwrap_err();
        assert!(failure.message.contains(FILE.name) && failure.hint.unwrap().contains("config accept"));
        assert!(is_longer(dir.path(), of(3650, 48, 5)));
        accept(dir.path(), of(7, 48, 5)).unwrap();
        assert_eq!(holding(dir.path(), of(0, 48, 5)).unwrap(), of(7, 48, 5));
    }
}
