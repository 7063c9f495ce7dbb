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
    let stored = stored(&store)?;
    let line = sum(&points, &stored, &traffic(&store));
    if context.terminal.json() {
        context.terminal.json_line(&line)?;
    } else {
        context.terminal.line(&render(&line))?;
    }
    Ok(Done::Whole)
}

/// What this process asked of vaults and decoded, up to now.
#[derive(Debug, Default)]
struct Traffic {
    vault_requests: u64,
    vault_bytes: u64,
    frames_decoded: u64,
    failovers: u64,
}

/// Sums over all packs, one at a time: a chunk that lies in two packs counts twice, because it takes room twice.
fn stored(store: &Store) -> Result<Stored, Failure> {
    let mut sum = Stored::default();
    for pack in store.catalog().packs()? {
        sum.chunks += store.catalog().chunks_of(pack.no)?.len() as u64;
        sum.packs += 1;
        sum.bytes_plain += pack.entry.raw_len();
        sum.bytes_stored += pack.entry.len;
    }
    Ok(sum)
}

/// The reader's requests are among those of the ways to the vaults, so only the latter are added up.
fn traffic(store: &Store) -> Traffic {
    let reader = store.reader().stats();
    let mut sum =
        Traffic { frames_decoded: reader.frames_decoded, failovers: reader.failovers, ..Traffic::default() };
    for (_, _, transfer) in store.vaults() {
        let of = transfer.stats();
        sum.vault_requests += of.puts + of.gets + of.stats + of.lists + of.deletes + of.prepares;
        sum.vault_bytes += of.bytes_up + of.bytes_down;
    }
    sum
}

fn sum(points: &[StoredPoint], stored: &Stored, traffic: &Traffic) -> StatsLine {
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
        vault_requests: traffic.vault_requests,
        vault_bytes: traffic.vault_bytes,
        frames_decoded: traffic.frames_decoded,
        failovers: traffic.failovers,
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
        let text = render(&sum(&points, &stored, &Traffic::default()));
        assert!(text.contains("bytes in them     4.000 KiB\n"), "{text}");
        assert!(
            text.ends_with("stored            1.000 KiB in 1 pack\nsaving            4.0 times"),
            "{text}"
        );
        assert!(
            render(&sum(&[], &Stored::default(), &Traffic::default()))
                .ends_with("saving            0.0 times")
        );
    }
}
