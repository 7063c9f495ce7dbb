//! Telling people and other machines of an alert: the words, and the ways.
//!
//! What is told names files and holds what jobs said. Each text is made harmless before it goes anywhere: control characters are
//! shown and not sent, so that no name ends a header or makes a line of its own.

mod mail;
mod webhook;

use std::error::Error;

use holdfast_backup::alert::Alert;
use holdfast_backup::alert::telling::Event;
use holdfast_backup::config::{Alerts, Mail};
use holdfast_store::clock::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use url::Url;

use crate::terminal::text;

/// Most characters of a subject line.
const TITLE_MAX: usize = 250;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `opened`, `still`, `closed`; `test`, if somebody tries whether he is told.
    event: String,
    /// The machine.
    host: String,
    /// The directory of the store.
    store: String,
    /// As `status` has it.
    name: String,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip)]
    since_at: Option<Timestamp>,
    /// What that is, for people.
    #[serde(skip)]
    since_word: &'static str,
    what: String,
    next_step: String,
}

/// Where it is told from.
#[derive(Clone, Debug)]
pub struct From {
    /// The machine.
    pub host: String,
    /// The directory of the store.
    pub store: String,
    /// Whose times people read.
    pub zone: TimeZone,
}

impl Message {
    /// That something became of an alert.
    pub fn about(event: Event, alert: &Alert, from: &From) -> Self {
        Self::new(&event.to_string(), alert, from)
    }

    /// That there is nothing to tell.
    pub fn test(from: &From) -> Self {
        let alert = Alert {
            name: "test".to_owned(),
            subject: "alerts".to_owned(),
            since: None,
            what: "somebody tries whether alerts arrive; nothing is wrong".to_owned(),
            next_step: "there is nothing to do".to_owned(),
        };
        Self::new("test", &alert, from)
    }

    fn new(event: &str, alert: &Alert, from: &From) -> Self {
        let line = |text: &str| text::printable(text.as_bytes());
        Self {
            event: event.to_owned(),
            host: line(&from.host),
            store: line(&from.store),
            name: line(&alert.name),
            subject: line(&alert.subject),
            since: alert.since.map(text::rfc3339_short),
            since_at: alert.since,
            since_word: alert.word_for_since(),
            what: text::printable_text(&alert.what),
            next_step: text::printable_text(&alert.next_step),
        }
    }

    /// The event, where it is not that an alert has come.
    fn prefix(&self) -> String {
        match self.event.as_str() {
            "opened" | "test" => String::new(),
            other => format!("{other}: "),
        }
    }

    /// All of it in a line.
    fn title(&self) -> String {
        let title = format!("holdfast {}: {}{} {}", self.host, self.prefix(), self.name, self.subject);
        title.chars().take(TITLE_MAX).collect()
    }

    /// All of it for a person.
    fn body(&self, zone: &TimeZone) -> String {
        let state = match self.event.as_str() {
            "still" => "This is as it was:\n\n",
            "closed" => "This is over:\n\n",
            _ => "",
        };
        let since = self.since_at.map_or_else(String::new, |at| {
            let zone_name = zone.iana_name().map_or_else(String::new, |name| format!(" ({name})"));
            let label = format!("{}:", self.since_word);
            format!(
                "{label:<9}{}{}{zone_name}\n",
                if label.len() < 9 { "" } else { " " },
                text::local_time(at, zone)
            )
        });
        let to_do =
            if self.event == "closed" { String::new() } else { format!("to do:   {}\n", self.next_step) };
        format!(
            "{state}{} ({})\n\nwhat:    {}\n{since}{to_do}\nmachine: {}\nstore:   {}\n\n`holdfast status` shows all of it.\n",
            self.name, self.subject, self.what, self.host, self.store
        )
    }
}

/// A way to somebody.
#[derive(Clone, Debug)]
pub enum Way {
    /// By mail.
    Mail(Box<Mail>),
    /// By a request.
    Webhook(Url),
}

impl Way {
    /// The names of all that there can be.
    pub const NAMES: [&'static str; 2] = ["mail", "webhook"];

    /// Those that a configuration names.
    pub fn all(alerts: &Alerts) -> Vec<Self> {
        let mail = alerts.mail.clone().map(|mail| Self::Mail(Box::new(mail)));
        mail.into_iter().chain(alerts.webhook.clone().map(Self::Webhook)).collect()
    }

    /// A word that stays, also when its address is another one.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mail(_) => "mail",
            Self::Webhook(_) => "webhook",
        }
    }

    /// Tells it; or why it could not be told, without a secret.
    pub async fn tell(&self, message: Message, zone: &TimeZone) -> Result<(), String> {
        let told = match self {
            Self::Mail(mail) => {
                let (mail, zone) = (mail.clone(), zone.clone());
                let sent = tokio::task::spawn_blocking(move || mail::send(&mail, &message, &zone)).await;
                sent.unwrap_or_else(|error| Err(error.to_string()))
            }
            Self::Webhook(url) => webhook::post(url, &message).await,
        };
        told.map_err(|error| text::printable(error.as_bytes()))
    }
}

/// An error and its causes in one line.
fn in_a_line(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> From {
        From { host: "box".into(), store: "/srv/h\x07".into(), zone: TimeZone::UTC }
    }

    fn alert(subject: &str) -> Alert {
        Alert {
            name: "no-good-point".into(),
            subject: subject.into(),
            since: Some(Timestamp::from_seconds(1_795_176_000)),
            what: "there is none: \x1b[2J".into(),
            next_step: "`holdfast jobs`".into(),
        }
    }

    #[test]
    fn a_message_says_what_since_when_and_what_to_do() {
        let message = Message::about(Event::Opened, &alert("web online docs"), &from());
        assert_eq!(message.title(), "holdfast box: no-good-point web online docs");
        assert_eq!(
            message.body(&TimeZone::UTC),
            "no-good-point (web online docs)\n\nwhat:    there is none: \\x1b[2J\nsince:   2026-11-20 12:00:00 (UTC)\n\
             to do:   `holdfast jobs`\n\nmachine: box\nstore:   /srv/h\\x07\n\n`holdfast status` shows all of it.\n"
        );
        let still = Message::about(Event::Still, &alert("web"), &from());
        assert_eq!(still.title(), "holdfast box: still: no-good-point web");
        let closed = Message::about(Event::Closed, &alert("web"), &from());
        assert_eq!(closed.title(), "holdfast box: closed: no-good-point web");
        let body = closed.body(&TimeZone::UTC);
        assert!(body.starts_with("This is over:") && !body.contains("to do"), "{body}");
    }

    #[test]
    fn no_name_ends_a_line_and_none_makes_a_subject_endless() {
        let message = Message::about(Event::Opened, &alert("a\r\nBcc: x@y\u{2028}"), &from());
        assert_eq!(message.title(), "holdfast box: no-good-point a\\x0d\\x0aBcc: x@y\\u{2028}");
        let long = Message::about(Event::Opened, &alert(&"\u{e4}".repeat(5000)), &from());
        assert_eq!(long.title().chars().count(), TITLE_MAX);
    }

    #[test]
    fn machines_are_told_the_same_as_an_object() {
        let message = Message::about(Event::Closed, &alert("web"), &from());
        let expected = serde_json::json!({
            "event": "closed", "host": "box", "store": "/srv/h\\x07", "name": "no-good-point", "subject": "web",
            "since": "2026-11-20T12:00:00Z", "what": "there is none: \\x1b[2J", "next_step": "`holdfast jobs`",
        });
        assert_eq!(serde_json::to_value(&message).ok(), Some(expected));
    }
}
