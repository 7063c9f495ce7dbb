//! `holdfast scrub --ciphertext`: a place is proven by its bytes alone, without a key.

use holdfast_backup::ledger::DAMAGED;
use holdfast_store::StoreError;
use holdfast_store::check::Finding;
use holdfast_store::scrub::ciphertext::{Part, Report, Scope, verify};
use serde::Serialize;

use super::ScrubArgs;
use crate::commands::Context;
use crate::commands::check::verdict;
use crate::open::connect;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// The last line of `scrub --ciphertext --json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Summary {
    /// Always `summary`.
    message_type: &'static str,
    /// The place.
    place: String,
    /// `N/M`: which part of it was looked at.
    part: String,
    /// Number of damages, and of what could not be looked at.
    num_errors: u64,
    /// Of these, what could not be looked at.
    num_unseen: u64,
    /// Objects that are wrong or could not be looked at; of very many the first ones.
    objects_wrong: Vec<Wrong>,
    /// Packs and index objects of which every byte was proven.
    objects_proven: u64,
    /// Their bytes.
    bytes_proven: u64,
    /// Other objects, of which all that can be told without a key is right.
    objects_formed: u64,
    /// Objects that were found wrong before and moved to `bad/`.
    objects_aside: u64,
    /// Bytes that were read.
    bytes_read: u64,
    /// Whether all of the part was looked at.
    complete: bool,
    /// What `--after` takes to go on, if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    goes_on_after: Option<String>,
}

/// An object with what is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Wrong {
    object: String,
    detail: String,
    /// It could not be looked at: nothing is known to be damaged.
    unseen: bool,
}

/// Proves it.
pub fn run(context: &Context<'_>, args: &ScrubArgs, address: &str) -> Outcome {
    let (address, transfer) = connect(context, address)?;
    let part = args.part.unwrap_or(Part::WHOLE);
    let scope = Scope { part, after: args.after.clone(), bytes_max: args.max_bytes, rate: args.limit_rate };
    let monitor = context.terminal.monitor();
    let report = verify(&transfer, context.terminal.clock(), &scope, &*monitor);
    drop(monitor);
    let report = report.map_err(|source| StoreError::Vault { vault: address.clone(), source })?;
    let summary = Summary::of(&report, address, part);
    if context.terminal.json() {
        context.terminal.json_line(&summary)?;
    } else {
        context.terminal.say(&sentence(&summary))?;
    }
    if report.problems == 0 { Ok(Done::Whole) } else { Err(failure(&report)) }
}

impl Summary {
    fn of(report: &Report, place: String, part: Part) -> Self {
        let wrong =
            |f: &Finding| Wrong { object: f.object.clone(), detail: f.detail.clone(), unseen: f.unseen };
        Self {
            message_type: "summary",
            place,
            part: part.to_string(),
            num_errors: report.problems,
            num_unseen: report.unseen,
            objects_wrong: report.findings.iter().map(wrong).collect(),
            objects_proven: report.proven,
            bytes_proven: report.bytes_proven,
            objects_formed: report.formed,
            objects_aside: report.aside,
            bytes_read: report.bytes_read,
            complete: !report.is_cut_short,
            goes_on_after: report.goes_on_after.as_ref().map(ToString::to_string),
        }
    }
}

fn failure(report: &Report) -> Failure {
    let problems = text::count(report.problems, "problem");
    if report.problems == report.unseen {
        return Failure::failed(format!("not all could be looked at: {problems}"))
            .hint("see to the vault and its credentials, then run the same command again");
    }
    Failure::failed(format!("{DAMAGED}: {problems}")).hint(
        "the lines above name the objects; on a machine that has the store's key `holdfast check --read-data` says which files that \
         touches, and `holdfast vault push` sends again what another copy has whole",
    )
}

fn sentence(summary: &Summary) -> String {
    let part = if summary.part == Part::WHOLE.to_string() {
        String::new()
    } else {
        format!(", part {}", summary.part)
    };
    let mut said = format!(
        "{}{part}: {} proven to the last byte ({}), {} as far as bytes tell without a key",
        summary.place,
        text::count(summary.objects_proven, "object"),
        text::size(summary.bytes_proven),
        text::count(summary.objects_formed, "other"),
    );
    if summary.objects_aside > 0 {
        said += &format!("; {} in bad/, found wrong before", text::count(summary.objects_aside, "object"));
    }
    if !summary.complete {
        said += "\nnot all was looked at";
        if let Some(after) = &summary.goes_on_after {
            said += &format!("; the same with --after {after} goes on");
        }
    }
    format!("{said}\n{}", verdict(summary.num_errors, summary.num_unseen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_much_was_proven_and_where_to_go_on() {
        let mut report = Report { proven: 3, bytes_proven: 3 << 20, formed: 1, ..Report::default() };
        let said = |report: &Report, part: &str| {
            sentence(&Summary::of(report, "/v".into(), part.parse().unwrap_or(Part::WHOLE)))
        };
        assert_eq!(
            said(&report, "1/1"),
            "/v: 3 objects proven to the last byte (3.000 MiB), 1 other as far as bytes tell without a key\nno damage found"
        );
        (report.is_cut_short, report.goes_on_after, report.problems, report.aside) =
            (true, holdfast_store::vault::ObjectName::new("pack/00/aa"), 2, 1);
        let text = said(&report, "2/30");
        assert!(text.starts_with("/v, part 2/30: 3 objects"), "{text}");
        assert!(text.contains("1 object in bad/") && text.contains("--after pack/00/aa"), "{text}");
        assert!(text.ends_with("DAMAGE FOUND"), "{text}");
        assert!(failure(&report).message.starts_with(DAMAGED));
        report.unseen = 2;
        assert!(said(&report, "2/30").ends_with("NOT ALL COULD BE LOOKED AT"));
        assert!(!failure(&report).message.contains(DAMAGED));
    }
}
