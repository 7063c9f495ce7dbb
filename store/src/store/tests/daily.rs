//! Tests of what a generation lets go: a part of a vault each day, and what went before counts as what goes now.

use super::fenced::{HOUR, advance, assert_recovers, files, forget, push_all};
use super::hostile::prepared;
use super::*;
use crate::fence::{Generation, Step};
use crate::id::PackId;
use crate::reclaim::Terms;

/// Nearly as long as the longest pack, of which one may go each day of however small a vault.
const LONG: u64 = 28 << 20;

/// A vault whose first generation, put at its first moment, lets go all packs of a few points. It says that those with data are long: they
/// take no time in a test then.
struct LetGo {
    home: Home,
    vault: Arc<MemoryVault>,
    store: Store,
    kept: StoredPoint,
    long: usize,
    short: usize,
}

impl LetGo {
    fn new() -> Self {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        for word in ["one", "two", "three"] {
            let point = take_point(&store, &files(word)).unwrap();
            push_all(&store, &point);
            forget(&store, &point);
        }
        let rows = store.catalog().packs().unwrap();
        let is_long = |row: &&PackRow| row.entry.kind == PackKind::Data;
        let len = |row: &PackRow| if is_long(&row) { LONG } else { row.entry.len };
        let mut packs: Vec<(PackId, u64)> = rows.iter().map(|row| (row.entry.id, len(row))).collect();
        packs.sort_unstable();
        for step in [Step::Condemned, Step::Final] {
            let generation = Generation { number: 1, step, packs: packs.clone() };
            vault.replace(&generation.name().name(), generation.seal(store.sealer()).into());
        }
        let kept = take_point(&store, &files("kept")).unwrap();
        push_all(&store, &kept);
        let long = rows.iter().filter(is_long).count();
        Self { home, vault, store, kept, long, short: rows.len() - long }
    }

    /// Packs that go now, and what is left of them, at so many hours.
    fn at(&self, hours: i64) -> (usize, (usize, u64), Option<Duration>) {
        self.vault.set_now(hours * HOUR);
        let progress = advance(&self.store, &Terms::default());
        assert!(progress.awaited.is_empty() && progress.condemned == (0, 0));
        let (packs, bytes) = progress.to_go;
        (progress.removed.packs as usize, (packs as usize, bytes), progress.ripe_in)
    }
}

#[test]
fn a_long_pack_goes_each_day_and_none_more_however_often_somebody_frees_space() {
    let there = LetGo::new();
    assert_eq!(there.long, 3);
    let all = there.long + there.short;
    let (gone, (left, _), ripe_in) = there.at(47);
    assert_eq!((gone, left, ripe_in), (0, all, Some(Duration::from_secs(3600))));
    // The short ones go with the first.
    assert_eq!(there.at(48), (there.short + 1, (2, 2 * LONG), Some(Duration::ZERO)));
    assert_eq!(there.at(48), (0, (2, 2 * LONG), Some(Duration::ZERO)));
    assert_eq!(there.at(71), (0, (2, 2 * LONG), Some(Duration::ZERO)));
    assert_eq!(there.at(72), (1, (1, LONG), Some(Duration::ZERO)));
    assert_eq!(there.at(73), (0, (1, LONG), Some(Duration::ZERO)));
    assert_eq!(there.at(96), (1, (0, 0), None));
    assert_eq!(there.at(97), (0, (0, 0), None), "and nobody waits for anything");
    assert_recovers(&there.home, &there.vault, &[(&there.kept, &files("kept"))]);
}
