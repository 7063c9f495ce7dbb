//! `holdfast vault accept`: a vault that is not what it was, for a reason that somebody knows.

use std::collections::HashMap;

use holdfast_store::id::RecoveryPointId;
use holdfast_store::store::{Accepted, Lost, Store, StoredPoint};
use serde::Serialize;

use crate::commands::Context;
use crate::commands::key::owner::{self, Act};
use crate::open::{connect, open_store};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// What `vault accept --json` prints.
#[derive(Debug, Serialize)]
struct AcceptedLine {
    /// Always `accepted`.
    message_type: &'static str,
    vault: String,
    alarms: Vec<AlarmLine>,
    /// What cannot be accepted.
    stays: Vec<AlarmLine>,
    lost: Vec<LostLine>,
}

#[derive(Debug, Serialize)]
struct AlarmLine {
    name: &'static str,
    what: String,
}

#[derive(Debug, Serialize)]
struct LostLine {
    id: String,
    /// Whether this machine or another vault has it.
    elsewhere: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
}

/// Accepts.
pub fn accept(context: &Context<'_>, url: &str) -> Outcome {
    let store = open_store(context)?;
    let address = connect(context, url).map_or_else(|_| url.to_owned(), |(address, _)| address);
    let vault = store.vaults().iter().find(|vault| vault.1 == address);
    let Some((no, address, _)) = vault else {
        return Err(Failure::failed(format!("the store has no vault {address}"))
            .hint("`holdfast vault list` shows the vaults there are"));
    };
    owner::agrees(context, store.dir(), Act::AcceptVault)?;
    let lock = store.lock()?;
    // Before any of them is forgotten.
    let points: HashMap<RecoveryPointId, StoredPoint> =
        store.points()?.into_iter().map(|stored| (stored.point.id, stored)).collect();
    let monitor = context.terminal.monitor();
    let accepted = store.accept_vault(*no, &*monitor)?;
    drop(monitor);
    drop(lock);
    show(context, &store, address, &line_of(address, &accepted, &points))
}

fn line_of(
    address: &str,
    accepted: &Accepted,
    points: &HashMap<RecoveryPointId, StoredPoint>,
) -> AcceptedLine {
    let alarm = |alarm: &holdfast_store::store::Alarm| AlarmLine {
        name: alarm.kind.word(),
        what: alarm.detail.clone(),
    };
    let lost = |lost: &Lost| {
        let stored = points.get(&lost.id);
        LostLine {
            id: lost.id.hex(),
            elsewhere: lost.is_elsewhere,
            source: stored.map(|stored| {
                let name = &stored.point.source;
                format!("{} {} {}", name.host, name.group, name.source)
            }),
            time: stored.map(|stored| text::rfc3339(stored.point.started)),
        }
    };
    AcceptedLine {
        message_type: "accepted",
        vault: address.to_owned(),
        alarms: accepted.alarms.iter().map(alarm).collect(),
        stays: accepted.stays.iter().map(alarm).collect(),
        lost: accepted.lost.iter().map(lost).collect(),
    }
}

fn show(context: &Context<'_>, store: &Store, address: &str, line: &AcceptedLine) -> Outcome {
    let terminal = context.terminal;
    if terminal.json() {
        terminal.json_line(line)?;
    } else {
        for lost in &line.lost {
            let what = match (&lost.source, &lost.time) {
                (Some(source), Some(time)) => format!(" ({}, {time})", text::printable_text(source)),
                _ => String::new(),
            };
            let so = match lost.elsewhere {
                true => "not in this vault any more; `holdfast vault push` sends it again",
                false => "LOST: no place that this machine knows has it",
            };
            terminal.line(&format!("recovery point {}{what}: {so}", &lost.id[..8]))?;
        }
        for alarm in &line.alarms {
            terminal.say(&format!("accepted: {}: {}", alarm.name, alarm.what))?;
        }
        if line.alarms.is_empty() && line.stays.is_empty() && line.lost.is_empty() {
            terminal.say(&format!("vault {address} is what it was: there is nothing to accept"))?;
        }
    }
    let Some(stays) = line.stays.first() else { return Ok(Done::Whole) };
    let failure = Failure::failed(format!("{}: {}", stays.name, stays.what));
    let ways = store.vaults().iter().find(|vault| vault.1 == address);
    let ways =
        ways.and_then(|(no, _, _)| store.alarms(*no).ok()).and_then(|alarms| alarms.into_iter().next());
    Err(match ways {
        Some(alarm) => failure.hint(alarm.kind.way_out(address)),
        None => failure,
    })
}
