//! What went wrong with which node: told to the log once, and not asked for again for a moment.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_store::clock::Clock;
use holdfast_store::error::StoreError;
use lru::LruCache;

use super::{TRIPPED_FOR, lock};
use crate::error::FsError;
use crate::recovery::Reach;

/// How long the same trouble with the same node is not told again.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// Troubles of a kind told in that time: a walk through a tree must not fill the disk with them.
const TOLD_MAX: u64 = 20;

/// Nodes that were late, and troubles that were told, at most.
const NODES_KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

pub(super) struct Trouble {
    clock: Arc<dyn Clock>,
    /// Until when what of a node lies here, or far away, is refused, as it was late there: each place for itself.
    tripped: Mutex<LruCache<(u64, bool), Duration>>,
    /// What the log was told of a node, and until when it is not told again.
    told: Mutex<LruCache<(u64, String), Duration>>,
    /// Of what could not be had, and of all else, such as damage: an outage has many lines, and none of them may be in its place.
    lines: Mutex<[Lines; 2]>,
}

/// What the log was told lately of one kind of trouble.
#[derive(Debug, Default)]
struct Lines {
    since: Duration,
    told: u64,
    /// Requests of which it was told nothing since its last line.
    unsaid: u64,
}

impl Lines {
    /// Whether a minute has passed since they began.
    fn is_over(&self, now: Duration) -> bool {
        self.since.saturating_add(TOLD_FOR) <= now
    }
}

impl Trouble {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let (tripped, told) = (LruCache::new(NODES_KEPT), LruCache::new(NODES_KEPT));
        Self { clock, tripped: Mutex::new(tripped), told: Mutex::new(told), lines: Mutex::default() }
    }

    /// Tells the log, and remembers a node whose answer could not be had, or for which a vault was waited for long, whatever it was: the
    /// kernel will repeat the question.
    pub(super) fn note(&self, ino: u64, reach: Reach, error: &FsError, waited: bool) {
        self.tell(ino, error);
        if waited || would_wait_again(error) {
            let until = self.clock.monotonic().saturating_add(TRIPPED_FOR);
            lock(&self.tripped).put((ino, reach.is_far()), until);
        }
    }

    /// Whether a node was late a moment ago, so far away or nearer.
    pub(super) fn is_tripped(&self, ino: u64, reach: Reach) -> bool {
        let now = self.clock.monotonic();
        let tripped = lock(&self.tripped);
        let mut nearer = [false, true].into_iter().filter(|far| *far <= reach.is_far());
        nearer.any(|far| tripped.peek(&(ino, far)).is_some_and(|until| now < *until))
    }

    /// The kernel has room for a number only, so the cause goes to the log: once, and not for each page that it asks for again.
    pub(super) fn tell(&self, ino: u64, error: &FsError) {
        if !error.is_trouble() {
            return;
        }
        let is_echo = matches!(error, FsError::Tripped | FsError::Ending);
        match (!is_echo).then(|| self.line(ino, error)).flatten() {
            None => tracing::debug!(ino, %error, "a request was refused"),
            Some(0) => tracing::warn!(ino, %error, "a request was answered with an I/O error"),
            Some(more) => tracing::warn!(ino, %error, more, "requests were answered with an I/O error"),
        }
    }

    /// Whether the log is to have a line about it; with how many there were since the last that had none.
    fn line(&self, ino: u64, error: &FsError) -> Option<u64> {
        let now = self.clock.monotonic();
        let mut kinds = lock(&self.lines);
        let lines = &mut kinds[usize::from(error.is_unavailable())];
        if lines.is_over(now) {
            (lines.since, lines.told) = (now, 0);
        }
        // What there is no room for now is still news when there is.
        if lines.told < TOLD_MAX && self.is_news(ino, error) {
            lines.told += 1;
            return Some(std::mem::take(&mut lines.unsaid));
        }
        lines.unsaid += 1;
        None
    }

    /// Tells the log how much it was not told of in a minute that is over and had more trouble than lines.
    pub(super) fn tell_rest(&self) {
        for more in self.rest() {
            tracing::warn!(more, "further requests were answered with an I/O error");
        }
    }

    fn rest(&self) -> Vec<u64> {
        let now = self.clock.monotonic();
        let mut kinds = lock(&self.lines);
        let full = kinds.iter_mut().filter(|lines| lines.is_over(now) && lines.told == TOLD_MAX);
        // Once: the next line begins another minute.
        let rest = full.map(|lines| {
            lines.told = 0;
            std::mem::take(&mut lines.unsaid)
        });
        rest.filter(|unsaid| *unsaid > 0).collect()
    }

    /// Whether the log does not know this of a node. What could not be had has a cause, whatever words it has for each page.
    fn is_news(&self, ino: u64, error: &FsError) -> bool {
        let key = (ino, if error.is_unavailable() { String::new() } else { error.to_string() });
        let now = self.clock.monotonic();
        let mut told = lock(&self.told);
        let is_news = told.get(&key).is_none_or(|until| *until <= now);
        if is_news {
            told.put(key, now.saturating_add(TOLD_FOR));
        }
        is_news
    }
}

#[cfg(test)]
impl Trouble {
    /// Requests of which the log was told nothing yet.
    pub(super) fn unsaid(&self) -> u64 {
        lock(&self.lines).iter().map(|lines| lines.unsaid).sum()
    }
}

/// Whether who asks again waits again. A disk that cannot read a sector says so, and the rest of a file may be well: `ddrescue` wants all of it.
fn would_wait_again(error: &FsError) -> bool {
    error.is_unavailable() && !matches!(error, FsError::Store(StoreError::Io { .. }))
}

#[cfg(test)]
mod tests {
    use holdfast_store::clock::ManualClock;
    use holdfast_store::vault::VaultError;

    use super::*;

    fn trouble() -> (ManualClock, Trouble) {
        let clock = ManualClock::default();
        (clock.clone(), Trouble::new(Arc::new(clock)))
    }

    #[test]
    fn a_node_is_troubled_for_the_log_once_however_often_its_pages_are_asked_for() {
        let (clock, trouble) = trouble();
        let away = |n: u32| FsError::Store(StoreError::Timeout { what: format!("block {n}") });
        let damage = |n: u32| FsError::Store(StoreError::corrupt(format!("frame {n}"), "seal"));
        let news = |ino, error: &FsError| trouble.is_news(ino, error);
        assert!(news(1, &away(1)) && !news(1, &away(2)) && !news(1, &FsError::Late), "one outage");
        assert!(news(2, &away(1)), "of another node");
        assert!(news(1, &damage(1)) && news(1, &damage(2)) && !news(1, &damage(1)), "each damage");
        clock.advance(TOLD_FOR);
        assert!(news(1, &away(3)));
    }

    #[test]
    fn a_walk_through_what_cannot_be_read_does_not_fill_the_log() {
        let (clock, trouble) = trouble();
        let denied = |n: u64| FsError::Store(StoreError::corrupt(format!("pack {n}"), "no right to read it"));
        let told =
            |of: std::ops::Range<u64>| of.filter_map(|n| trouble.line(n, &denied(n))).collect::<Vec<_>>();
        assert_eq!(told(0..5000), [0; TOLD_MAX as usize]);
        clock.advance(TOLD_FOR);
        let later = told(5000..5100);
        assert_eq!((later.len(), later[0], later[1]), (TOLD_MAX as usize, 5000 - TOLD_MAX, 0));
    }

    #[test]
    fn damage_is_told_beside_an_outage_and_what_there_was_no_room_for_is_told_when_there_is() {
        let (clock, trouble) = trouble();
        let away = FsError::Store(StoreError::Timeout { what: "vault".into() });
        let damage = |n: u64| FsError::Store(StoreError::corrupt(format!("pack {n}"), "seal"));
        let outage = (0..100).filter(|n| trouble.line(*n, &away).is_some()).count();
        assert_eq!(outage as u64, TOLD_MAX);
        assert_eq!(trouble.line(7, &damage(7)), Some(0), "amid an outage");
        assert_eq!((1..TOLD_MAX).filter(|n| trouble.line(100 + n, &damage(*n)).is_some()).count(), 19);
        assert_eq!(trouble.line(8, &damage(8)), None, "no room");
        clock.advance(TOLD_FOR / 2);
        assert_eq!((trouble.line(8, &damage(8)), trouble.rest()), (None, vec![]), "the minute is not over");
        clock.advance(TOLD_FOR / 2);
        assert_eq!(trouble.line(8, &damage(8)), Some(2), "with those before it");
    }

    #[test]
    fn what_a_minute_had_no_room_for_is_counted_for_the_log_when_it_is_over() {
        let (clock, trouble) = trouble();
        let damage = |n: u64| FsError::Store(StoreError::corrupt(format!("pack {n}"), "seal"));
        let told = (0..5).filter_map(|_| trouble.line(1, &FsError::Late)).count();
        let of_more = (0..TOLD_MAX + 3).filter_map(|n| trouble.line(n, &damage(n))).count();
        assert_eq!((told, of_more as u64), (1, TOLD_MAX));
        assert!(trouble.rest().is_empty());
        clock.advance(TOLD_FOR);
        assert_eq!(trouble.rest(), [3], "and not what was asked again for each page");
        assert!(trouble.rest().is_empty(), "once");
        assert_eq!(trouble.line(1, &damage(1)), Some(0));
    }

    #[test]
    fn a_bad_sector_keeps_nobody_from_the_rest_of_a_file() {
        let (_, trouble) = trouble();
        let sector = std::io::Error::from_raw_os_error(nix::errno::Errno::EIO as i32);
        let io = StoreError::io("read", std::path::Path::new("pack"))(sector);
        trouble.note(1, Reach::Local, &FsError::Store(io), false);
        assert!(!trouble.is_tripped(1, Reach::VAULT));
        trouble.note(
            1,
            Reach::Local,
            &FsError::Store(StoreError::Timeout { what: "the disk".into() }),
            false,
        );
        assert!(trouble.is_tripped(1, Reach::Local));
    }

    #[test]
    fn a_vault_that_gives_wrong_answers_is_an_outage_for_the_log_and_not_waited_for_again() {
        let (_, trouble) = trouble();
        let wrong = |n: u32| {
            let source = VaultError::WrongAnswer { detail: format!("{n} bytes") };
            FsError::Store(StoreError::Vault { vault: "v".into(), source })
        };
        trouble.note(1, Reach::VAULT, &wrong(1), false);
        assert!(trouble.is_tripped(1, Reach::VAULT) && !trouble.is_tripped(1, Reach::Local));
        assert!(!trouble.is_news(1, &wrong(2)), "it was told");
    }

    #[test]
    fn a_node_is_refused_from_the_nearest_place_on_where_it_was_late_whichever_was_late_last() {
        for (first, second) in [(Reach::Local, Reach::VAULT), (Reach::VAULT, Reach::Local)] {
            let (clock, trouble) = trouble();
            trouble.note(1, first, &FsError::Late, true);
            assert!(trouble.is_tripped(1, Reach::VAULT) && !trouble.is_tripped(2, Reach::VAULT));
            assert_eq!(trouble.is_tripped(1, Reach::Local), first == Reach::Local);
            clock.advance(TRIPPED_FOR / 2);
            trouble.note(1, second, &FsError::Late, true);
            assert!(trouble.is_tripped(1, Reach::Local) && trouble.is_tripped(1, Reach::VAULT));
            clock.advance(TRIPPED_FOR / 2);
            assert_eq!(trouble.is_tripped(1, Reach::Local), second == Reach::Local, "each for its own time");
            assert!(trouble.is_tripped(1, Reach::VAULT));
            clock.advance(TRIPPED_FOR / 2);
            assert!(!trouble.is_tripped(1, Reach::VAULT));
        }
    }
}
