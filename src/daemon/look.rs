//! A look: `holdfast status` as a process of this program, for what somebody has to see to.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use holdfast_backup::alert::Alert;
use holdfast_backup::alert::telling::Found;
use holdfast_store::clock::{Clock, Timestamp};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::mpsc::Sender;

use super::job::{self, Caller};
use super::{Happened, job::trouble_in};
use crate::commands::status::{Answered, metrics_fail};

/// A look that takes longer is ended.
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes that are taken of what it says.
const SAID_MAX: u64 = 16 << 20;
/// Most characters of a reason that are told.
const REASON_MAX: usize = 1000;

/// What vaults said before, for a look that is not to ask them again.
pub const VAULTS: &str = "HOLDFAST_JOB_VAULTS";

/// What a look has seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// What somebody has to see to.
    pub found: Found,
    /// What the vaults said.
    pub vaults: Vec<Answered>,
}

/// Starts the process of a look. What vaults said is `known`, or they are asked.
pub fn start(
    caller: &Caller,
    metrics_file: Option<&Path>,
    known: Option<&[Answered]>,
) -> std::io::Result<Child> {
    let mut words: Vec<OsString> = vec!["status".into()];
    if let Some(path) = metrics_file {
        words.extend(["--metrics-file".into(), path.into()]);
    }
    let known = known.map(serde_json::to_string).transpose()?;
    caller.spawn_with(words, known.map(|known| (VAULTS, known)))
}

/// Sees the look to its end. One that does not end in time is killed, which is told at once; that it has ended is told when it has, for
/// until then there is no other one.
pub async fn see(mut child: Child, clock: Arc<dyn Clock>, to_loop: Sender<Happened>) {
    let process = child.id().unwrap_or(0);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    // The loop is there as long as there are looks.
    tokio::select! {
        (out, err, status) = async { tokio::join!(all_of(out), all_of(err), child.wait()) } => {
            let found = match status {
                Ok(status) => seen(&out, &err, status),
                Err(error) => Seen { found: failed(&error.to_string()), vaults: Vec::new() },
            };
            let _ = to_loop.send(Happened::Looked(found)).await;
        }
        () = clock.sleep(LIMIT) => {
            job::signal(process, Signal::SIGKILL);
            let _ = to_loop.send(Happened::LookOverdue).await;
            let _ = child.wait().await;
            let _ = to_loop.send(Happened::OverdueLookEnded).await;
        }
    }
}

async fn all_of(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(from) = from {
        // What was said until it failed.
        let _ = from.take(SAID_MAX).read_to_end(&mut said).await;
    }
    said
}

/// What a look that is overdue has found.
pub fn overdue() -> Found {
    failed(&format!("it did not end within {} s", LIMIT.as_secs()))
}

/// A look that could not be had is something to see to.
pub fn failed(why: &str) -> Found {
    let why: String = why.trim().chars().take(REASON_MAX).collect();
    let alert = Alert {
        name: "status-fails".to_owned(),
        subject: "status".to_owned(),
        since: None,
        what: format!("`holdfast status` fails, so nobody knows whether all is well: {why}"),
        next_step: "`holdfast status` says the same; as the user of the daemon, with its environment"
            .to_owned(),
    };
    Found { alerts: vec![alert], ..Found::default() }
}

/// The page of `status`, as far as it matters here.
#[derive(Deserialize)]
struct Page {
    alerts: Vec<Line>,
    #[serde(default)]
    places: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    place: String,
    up: Option<bool>,
    trouble: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    name: String,
    subject: String,
    since: Option<String>,
    what: String,
    next_step: String,
}

impl From<Line> for Alert {
    fn from(Line { name, subject, since, what, next_step }: Line) -> Self {
        let moment = |text: String| {
            let at: jiff::Timestamp = text.parse().ok()?;
            Some(Timestamp::from_seconds(at.as_second()))
        };
        Self { name, subject, since: since.and_then(moment), what, next_step }
    }
}

fn seen(out: &[u8], err: &[u8], status: ExitStatus) -> Seen {
    let page = serde_json::from_slice::<Page>(out);
    let troubles: Vec<String> = String::from_utf8_lossy(err).lines().map(trouble_in).collect();
    let mut found = match (&page, status.success()) {
        (Ok(_), true) => Found::default(),
        (Err(error), true) => failed(&format!("its page cannot be read: {error}")),
        // The file of figures is all that comes after the page.
        (Ok(_), false) => {
            let why = troubles.last().cloned().unwrap_or_else(|| status.to_string());
            Found { alerts: vec![metrics_fail(&why)], ..Found::default() }
        }
        (_, false) if troubles.is_empty() => failed(&status.to_string()),
        (_, false) => failed(&troubles.join("\n")),
    };
    let mut vaults = Vec::new();
    if let Ok(page) = page {
        found.whole = true;
        found.alerts.extend(page.alerts.into_iter().map(Alert::from));
        let asked = page.places.into_iter().filter(|place| place.up.is_some());
        vaults.extend(asked.map(|Place { place, trouble, .. }| Answered { place, trouble }));
    }
    Seen { found, vaults }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::process::ExitStatusExt;

    use holdfast_store::clock::{ManualClock, SystemClock};
    use tokio::sync::mpsc::channel;

    use super::*;

    const PAGE: &str = r#"{"message_type":"status","alerts":[
        {"name":"job-fails","subject":"push web","since":"2026-11-20T12:00:00.000000000Z","what":"w","next_step":"n"}],
        "places":[{"place":"local"},{"place":"/a","up":true},{"place":"/b","up":false,"trouble":"it is gone"}]}"#;

    fn status(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn names(found: &Found) -> Vec<&str> {
        found.alerts.iter().map(|alert| alert.name.as_str()).collect()
    }

    #[test]
    fn what_status_says_is_found() {
        let Seen { found, vaults } = seen(PAGE.as_bytes(), b"", status(0));
        let since = Some(Timestamp::from_seconds(1_795_176_000));
        let alert = Alert {
            name: "job-fails".into(),
            subject: "push web".into(),
            since,
            what: "w".into(),
            next_step: "n".into(),
        };
        assert_eq!(found, Found { alerts: vec![alert], whole: true, passed_over: None });
        let trouble = Some("it is gone".to_owned());
        assert_eq!(
            vaults,
            [Answered { place: "/a".into(), trouble: None }, Answered { place: "/b".into(), trouble }]
        );
    }

    #[test]
    fn that_status_fails_is_found_with_what_it_said() {
        let error = br#"{"message_type":"exit_error","code":12,"message":"wrong passphrase"}"#;
        let found = |out: &[u8], err: &[u8], code| seen(out, err, status(code)).found;
        let none = found(b"", error, 12);
        assert!(!none.whole && names(&none) == ["status-fails"], "{none:?}");
        assert!(none.alerts[0].what.ends_with(": wrong passphrase"), "{none:?}");
        assert!(found(b"", b"", 9).alerts[0].what.contains("exit status: 9"));
        assert!(found(b"{}", b"", 0).alerts[0].what.contains("cannot be read"));
        // What fails after its page is the file of figures.
        let both = found(PAGE.as_bytes(), b"it is slow\nno room", 1);
        assert!(both.whole && names(&both) == ["metrics-fail", "job-fails"], "{both:?}");
        assert!(both.alerts[0].what.ends_with(": no room"), "{both:?}");
    }

    fn caller(script: &str) -> Caller {
        let common = vec!["-c".into(), script.into()];
        Caller { program: "/bin/sh".into(), common, nice: 0 }
    }

    /// What the loop is told of a look with this script in the place of the program.
    fn told(script: &str, known: Option<&[Answered]>, clock: Arc<dyn Clock>) -> Vec<Happened> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (to_loop, mut happened) = channel(9);
            see(start(&caller(script), None, known).unwrap(), clock, to_loop).await;
            let mut all = Vec::new();
            while let Some(what) = happened.recv().await {
                all.push(what);
            }
            all
        })
    }

    #[test]
    fn a_look_that_does_not_end_is_killed_and_that_is_found() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(0)));
        let told = told("sleep 1000 & wait", None, clock);
        assert!(matches!(told[..], [Happened::LookOverdue, Happened::OverdueLookEnded]), "{told:?}");
        assert!(overdue().alerts[0].what.ends_with("it did not end within 60 s"));
    }

    #[test]
    fn a_look_is_marked_as_what_the_daemon_asks_for() {
        let vaults = [Answered { place: "/a".into(), trouble: None }];
        for (known, said) in [(None, ""), (Some(&vaults[..]), "[{\"place\":\"/a\",\"trouble\":null}]")] {
            let script = "echo \"$HOLDFAST_JOB $0 $* $HOLDFAST_JOB_VAULTS\" >&2; exit 4";
            let told = told(script, known, Arc::new(SystemClock));
            let [Happened::Looked(seen)] = &told[..] else { panic!("{told:?}") };
            let what = &seen.found.alerts[0].what;
            assert!(what.trim_end().ends_with(format!(": 1 --json status {said}").trim_end()), "{what}");
        }
    }
}
