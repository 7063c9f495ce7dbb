//! `holdfast stats`: how much is stored, and what deduplication and compression save.

use clap::Args;
use holdfast_store::store::{Store, StoredPoint};

use super::Context;
use super::scope::ScopeArgs;
use crate::json::StatsLine;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// Show how much is stored and what deduplication saves
///
/// Compares what the recovery points would take if each were a full copy with what the store really takes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast stats
  holdfast stats --json | jq .saving_ratio")]
pub struct StatsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Figures of the whole store.
#[derive(Debug, Default)]
struct Stored {
    chunks: u64,
    packs: u64,
    bytes_plain: u64,
    bytes_stored: u64,
}

/// Counts.
pub fn run(context: &Context<'_>, args: &StatsArgs) -> Outcome {
    let store = open_store(context)?;
    let points = args.scope.select(store.points()?);
    let line = sum(&points, &stored(&store)?);
    if context.terminal.json() {
        context.terminal.json_line(&line)?;
    } else {
        context.terminal.line(&render(&line))?;
    }
    Ok(Done::Whole)
}

fn stored(_store: &Store) -> Result<Stored, Failure> {
    Err(Failure::not_built("stats"))
}

fn sum(points: &[StoredPoint], stored: &Stored) -> StatsLine {
    let total_size: u64 = points.iter().map(|stored| stored.point.counts.bytes).sum();
    StatsLine {
        total_size,
        total_file_count: points.iter().map(|stored| stored.point.counts.files).sum(),
        snapshots_count: points.len() as u64,
        total_uncompressed_size: stored.bytes_plain,
        total_stored_size: stored.bytes_stored,
        total_blob_count: stored.chunks,
        total_pack_count: stored.packs,
        saving_ratio: if stored.bytes_stored == 0 {
            0.0
        } else {
            total_size as f64 / stored.bytes_stored as f64
        },
    }
}

fn render(line: &StatsLine) -> String {
    format!(
        "recovery points   {}\nfiles in them     {}\nbytes in them     {}\nwithout doubles   {} in {}\n\
         stored            {} in {}\nsaving            {:.1} times",
        line.snapshots_count,
        line.total_file_count,
        text::size(line.total_size),
        text::size(line.total_uncompressed_size),
        text::count(line.total_blob_count, "chunk"),
        text::size(line.total_stored_size),
        text::count(line.total_pack_count, "pack"),
        line.saving_ratio
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::stored_point;

    #[test]
    fn the_saving_is_what_full_copies_would_take_by_what_is_taken() {
        let points = [stored_point(1, "a", 1), stored_point(2, "a", 2)];
        let stored = Stored { chunks: 3, packs: 1, bytes_plain: 2048, bytes_stored: 1024 };
        let text = render(&sum(&points, &stored));
        assert!(text.contains("bytes in them     4.000 KiB\n"), "{text}");
        assert!(
            text.ends_with("stored            1.000 KiB in 1 pack\nsaving            4.0 times"),
            "{text}"
        );
        assert!(render(&sum(&[], &Stored::default())).ends_with("saving            0.0 times"));
    }
}
