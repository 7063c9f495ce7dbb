//! What a scrub found damaged is put right from where it is whole: packs of the store's directory from a vault, those of a vault by a push
//! of the points that it has. What nobody has whole the next backup stores again, if the source still has it.

use holdfast_store::catalog::VaultNo;
use holdfast_store::id::{PackId, RecoveryPointId};
use holdfast_store::names;
use holdfast_store::store::{Healed as HealedHere, Store};
use serde::Serialize;

use super::rotation::LOCAL;
use crate::commands::Context;
use crate::commands::upload::Upload;
use crate::outcome::Failure;
use crate::terminal::WorkMonitor;

/// A copy of a pack that was damaged and is right now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healed {
    /// The pack.
    pub object: String,
    /// `local`, or the vault's address.
    pub place: String,
    /// The place that gave its bytes; missing if what was needed of it was put into new packs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    /// What is right again.
    pub healed: Vec<Healed>,
    /// Copies that stay damaged.
    pub left: u64,
    /// What kept it from being done.
    pub failures: Vec<Failure>,
}

/// A damaged copy, and where it was whole before.
struct Damaged {
    place: Option<VaultNo>,
    pack: PackId,
    whole_in: Option<String>,
}

/// Puts right what it can in these places. Stops only when it is asked to.
pub fn heal(
    context: &Context<'_>,
    store: &Store,
    places: &[Option<VaultNo>],
    monitor: &WorkMonitor,
) -> Result<Done, Failure> {
    let before = damaged(store, places)?;
    let mut done = Done::default();
    if places.contains(&None) {
        match store.heal_staging(monitor) {
            Ok(healed) => {
                let was_missing = |healed: &HealedHere| {
                    !before.iter().any(|was| (was.place, was.pack) == (None, healed.pack))
                };
                done.healed.extend(healed.into_iter().filter(was_missing).map(|healed| Healed {
                    object: names::pack(&healed.pack).to_string(),
                    place: LOCAL.to_owned(),
                    from: Some(store.catalog().vault_address(healed.from)),
                }));
            }
            Err(error) => done.failures.push(error.into()),
        }
    }
    let mut upload = Upload::new(context, store, monitor);
    upload.pace(None)?;
    for (no, _, transfer) in store.vaults().iter().filter(|vault| places.contains(&Some(vault.0))) {
        let there = points_in(store, *no)?;
        upload.push_into(*no, transfer, |_| Ok(there))?;
    }
    done.failures.append(&mut upload.told().1);
    if context.terminal.cancelled() {
        return Err(Failure::interrupted());
    }
    let after = damaged(store, places)?;
    done.left = after.len() as u64;
    for was in before {
        if store.is_sound_in(was.place, &was.pack)? {
            done.healed.push(Healed {
                object: names::pack(&was.pack).to_string(),
                place: name_of(store, was.place),
                from: was.whole_in,
            });
        } else if !after.iter().any(|is| (is.place, is.pack) == (was.place, was.pack)) {
            // It went, and was not put right; one that space was freed of is not known any more.
            done.left += u64::from(store.catalog().pack_by_id(&was.pack)?.is_some());
        }
    }
    Ok(done)
}

fn name_of(store: &Store, place: Option<VaultNo>) -> String {
    place.map_or_else(|| LOCAL.to_owned(), |no| store.catalog().vault_address(no))
}

/// Points that a vault has, oldest first, also those of which it lacks something.
fn points_in(store: &Store, no: VaultNo) -> Result<Vec<RecoveryPointId>, Failure> {
    let (mut rows, incomplete) = (store.catalog().sound_points()?, store.incomplete_in(no)?);
    rows.retain(|row| row.vaults.contains(&no) || incomplete.contains(&row.id));
    rows.sort_by_key(|row| (row.started, row.id));
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Copies that were read and found damaged.
fn damaged(store: &Store, places: &[Option<VaultNo>]) -> Result<Vec<Damaged>, Failure> {
    let catalog = store.catalog();
    let bad_here = catalog.bad_packs()?;
    let mut found = Vec::new();
    for place in places {
        let ids: Vec<PackId> = match place {
            Some(no) => catalog.bad_in(*no)?.into_iter().collect(),
            None => {
                let rows = catalog.packs()?.into_iter();
                rows.filter(|row| row.staged && bad_here.contains(&row.no)).map(|row| row.entry.id).collect()
            }
        };
        for pack in ids {
            // A mark may outlive what it is of.
            let Some(row) = catalog.pack_by_id(&pack)? else { continue };
            let is_there = place.map_or(row.staged, |no| row.vaults.contains(&no));
            let mut whole_in = None;
            if row.staged && place.is_some() && !bad_here.contains(&row.no) {
                whole_in = Some(LOCAL.to_owned());
            }
            for no in row.vaults.iter().filter(|no| Some(**no) != *place) {
                if whole_in.is_none() && !catalog.bad_in(*no)?.contains(&pack) {
                    whole_in = Some(catalog.vault_address(*no));
                }
            }
            found.extend(is_there.then_some(Damaged { place: *place, pack, whole_in }));
        }
    }
    found.sort_by_key(|damaged| (damaged.place.map(|no| no.0), damaged.pack));
    Ok(found)
}
