//! `holdfast alerts`: what the daemon told people of, and whether it can.

use clap::Args;
use holdfast_backup::alert::telling::Known;
use holdfast_backup::ledger::{Ledger, LedgerError};
use holdfast_store::store::Store;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use crate::outcome::{Done, Failure, Outcome};
use crate::telling::{From, Message, Way};
use crate::terminal::text;

/// Show what the daemon told people of
///
/// Those that are open, and the last ones that are gone. The daemon looks every few minutes, tells what it found two times in a row, again each
/// day as long as it is there, and when it is gone: in its log, and by the ways that the configuration names in [alerts].
/// What is wrong at this moment is shown by `status`, also without a daemon.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast alerts
  holdfast alerts --json -n 100 | jq 'select(.closed == null)'
  holdfast alerts --test                    whether mail and webhook work

A configuration of ways:
  [alerts]
  every = \"5 minutes\"
  mail = { to = [\"ops@example.org\"], from = \"holdfast@example.org\", server = \"smtp://localhost:25\" }
  webhook = \"https://hooks.example.org/holdfast\"")]
pub struct AlertsArgs {
    /// How many of those that are gone
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    number: u32,
    /// Send a test by each way that the configuration names; exit code 1 if one does not work
    #[arg(long)]
    test: bool,
}

/// An alert as programs see it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Always `alert`.
    message_type: &'static str,
    name: &'a str,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// When it was found first.
    opened: String,
    /// When people were last told that it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    told: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<String>,
    what: &'a str,
    next_step: &'a str,
    /// Ways that have still something to tell of it.
    untold: Vec<&'static str>,
}

/// Whether a way works, as programs see it.
#[derive(Debug, Serialize)]
struct Tested<'a> {
    /// Always `alert_test`.
    message_type: &'static str,
    way: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// An alert, and the ways that have still something to tell of it.
type Shown = (Known, Vec<&'static str>);

/// Shows them.
pub fn run(context: &Context<'_>, args: &AlertsArgs) -> Outcome {
    if args.test {
        return test(context);
    }
    let dir = context.settings.store()?;
    // Whether there is a store at all.
    Store::head(dir)?;
    let failed = |error: LedgerError| Failure::failed(error.to_string());
    let shown = match Ledger::look(dir).map_err(failed)? {
        Some(ledger) => read(&ledger, args.number).map_err(failed)?,
        None => Vec::new(),
    };
    if context.terminal.json() {
        shown.iter().try_for_each(|shown| context.terminal.json_line(&as_json(shown)))?;
    } else {
        context.terminal.line(&render(&shown, &zone(context)))?;
    }
    Ok(Done::Whole)
}

fn zone(context: &Context<'_>) -> TimeZone {
    let config = context.settings.config().ok();
    config.and_then(|config| config.zone.clone()).unwrap_or_else(TimeZone::system)
}

fn read(ledger: &Ledger, number: u32) -> Result<Vec<Shown>, LedgerError> {
    let mut all = ledger.open_alerts()?;
    all.extend(ledger.closed_alerts(number)?);
    let mut waiting = Vec::new();
    for way in Way::NAMES {
        let untold = ledger.untold(way)?;
        waiting.extend(untold.into_iter().map(|untold| (untold.alert.no, way)));
    }
    let ways =
        |known: &Known| waiting.iter().filter(|(no, _)| *no == known.no).map(|(_, way)| *way).collect();
    Ok(all.into_iter().map(|known| (known.clone(), ways(&known))).collect())
}

fn as_json((known, untold): &Shown) -> Line<'_> {
    Line {
        message_type: "alert",
        name: &known.alert.name,
        subject: &known.alert.subject,
        since: known.alert.since.map(text::rfc3339),
        opened: text::rfc3339(known.opened),
        told: known.told.map(text::rfc3339),
        closed: known.closed.map(text::rfc3339),
        what: &known.alert.what,
        next_step: &known.alert.next_step,
        untold: untold.clone(),
    }
}

fn render(shown: &[Shown], zone: &TimeZone) -> String {
    if shown.is_empty() {
        return "no alerts yet".to_owned();
    }
    let mut lines = Vec::new();
    for (known, untold) in shown {
        let at = |at| text::local_time(at, zone);
        let alert = &known.alert;
        let mut times = vec![format!("found {}", at(known.opened))];
        times.push(known.told.map_or_else(|| "not told".to_owned(), |told| format!("told {}", at(told))));
        times.extend(known.closed.map(|closed| format!("gone {}", at(closed))));
        times.extend((!untold.is_empty()).then(|| format!("still to be told by {}", untold.join(", "))));
        let state = if known.closed.is_some() { "closed" } else { "OPEN  " };
        let what = text::printable_text(&alert.what);
        let subject = text::printable(alert.subject.as_bytes());
        lines.push(format!("{state} {} ({subject}): {}\n       {what}", alert.name, times.join(", ")));
        if known.closed.is_none() {
            lines.push(format!("       {}", text::printable_text(&alert.next_step)));
        }
    }
    lines.join("\n")
}

// --- trying ---

fn test(context: &Context<'_>) -> Outcome {
    let config = context.settings.config()?;
    let ways = Way::all(&config.alerts);
    if ways.is_empty() {
        let failure = Failure::failed("the configuration names no way to tell anybody but the log");
        return Err(
            failure.hint("`mail` or `webhook` in [alerts] is one; `holdfast alerts --help` shows them")
        );
    }
    let store = context.settings.store().map_or_else(|_| String::new(), |dir| dir.display().to_string());
    let from = From { host: context.settings.host.clone(), store, zone: zone(context) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::failed("cannot begin to tell anything").caused_by(&error))?;
    let mut failed = Vec::new();
    for way in &ways {
        let told = runtime.block_on(way.tell(Message::test(&from), &from.zone));
        say(context, way.name(), told.as_ref().err())?;
        failed.extend(told.err().map(|_| way.name()));
    }
    match failed.is_empty() {
        true => Ok(Done::Whole),
        false => Err(Failure::failed(format!("not told by {}", failed.join(", ")))),
    }
}

fn say(context: &Context<'_>, way: &'static str, error: Option<&String>) -> Result<(), Failure> {
    if context.terminal.json() {
        let error = error.map(String::as_str);
        return context.terminal.json_line(&Tested {
            message_type: "alert_test",
            way,
            ok: error.is_none(),
            error,
        });
    }
    let result = error.map_or_else(|| "sent".to_owned(), |error| format!("FAILED: {error}"));
    context.terminal.line(&format!("{way}: {result}"))
}

#[cfg(test)]
mod tests {
    use holdfast_backup::alert::Alert;
    use holdfast_store::clock::Timestamp;

    use super::*;

    #[test]
    fn an_alert_is_shown_with_its_times_and_with_who_was_not_told() {
        let alert = Alert {
            name: "job-fails".into(),
            subject: "push \x1b[2J".into(),
            since: None,
            what: "no\x07 room".into(),
            next_step: "`holdfast jobs`".into(),
        };
        let at = |seconds: i64| Timestamp::from_seconds(1_795_176_000 + seconds);
        let open = Known { no: Some(2), alert, opened: at(0), looks: 2, told: Some(at(60)), closed: None };
        let closed = Known { no: Some(1), told: None, closed: Some(at(120)), ..open.clone() };
        assert_eq!(
            render(&[(open, vec!["mail"]), (closed, vec![])], &TimeZone::UTC),
            "OPEN   job-fails (push \\x1b[2J): found 2026-11-20 12:00:00, told 2026-11-20 12:01:00, still to be told by mail\n\
             \x20      no\\x07 room\n\
             \x20      `holdfast jobs`\n\
             closed job-fails (push \\x1b[2J): found 2026-11-20 12:00:00, not told, gone 2026-11-20 12:02:00\n\
             \x20      no\\x07 room"
        );
        assert_eq!(render(&[], &TimeZone::UTC), "no alerts yet");
    }
}
