//! `holdfast vault remove`: a vault that is no longer one of this store's.
//!
//! Nothing in the vault is touched. The settings change first and the catalog after: whatever comes between, the verb can be
//! given again, and until then points that the vault holds are shown as in it.

use holdfast_store::catalog::VaultNo;
use holdfast_store::store::{Settings as StoreSettings, Store};

use crate::commands::Context;
use crate::commands::key::owner::{self, Act};
use crate::open::{connect, open_store};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// What only the vault holds.
#[derive(Debug, Default)]
struct Alone {
    points: u64,
    packs: u64,
}

/// What a vault holds, as far as the store knows.
#[derive(Debug, Default)]
struct Held {
    anything: bool,
    alone: Alone,
}

/// Removes a vault from the settings and from what the store knows.
pub fn remove(context: &Context<'_>, url: &str, force: bool) -> Outcome {
    let store = open_store(context)?;
    // Also of one that alone holds nothing: what this machine remembers of it goes, by which it tells what is wrong there.
    owner::agrees(context, store.dir(), Act::RemoveVault)?;
    let _lock = store.lock()?;
    let dir = context.settings.store()?;
    let settings = StoreSettings::load(dir)?;
    let address = match connect(context, url) {
        Ok((address, _)) => address,
        // One that cannot be addressed any more is still in the settings as it was typed then.
        Err(_) => url.to_owned(),
    };
    let no = store.catalog().vaults()?.into_iter().find(|vault| vault.1 == address).map(|vault| vault.0);
    let is_set = settings.vaults.iter().any(|vault| vault.url == address);
    let held = no.map(|no| held(&store, no)).transpose()?.unwrap_or_default();
    if !is_set && !held.anything {
        return Err(Failure::failed(format!("the store has no vault {address}"))
            .hint("`holdfast vault list` shows the vaults there are"));
    }
    let alone = held.alone;
    if (alone.points > 0 || alone.packs > 0) && !force {
        return Err(refusal(&address, &alone));
    }
    StoreSettings::change(dir, |settings| {
        settings.vaults.retain(|vault| vault.url != address);
        Ok(())
    })?;
    store.forget_memory_of(&address)?;
    if let Some(no) = no {
        store.catalog().forget_vault(no)?;
    }
    context.terminal.say(&format!(
        "vault {address} is no longer one of this store's; what is in it stays, and `holdfast vault add {address}` brings it back"
    ))?;
    Ok(Done::Whole)
}

fn held(store: &Store, no: VaultNo) -> Result<Held, Failure> {
    let (points, packs) = (store.catalog().points()?, store.catalog().packs()?);
    let anything =
        points.iter().any(|row| row.vaults.contains(&no)) || packs.iter().any(|row| row.vaults.contains(&no));
    let alone = Alone {
        points: points.iter().filter(|row| !row.staged && row.vaults == [no]).count() as u64,
        packs: store.catalog().packs_alone_in(no)?,
    };
    Ok(Held { anything, alone })
}

fn refusal(address: &str, alone: &Alone) -> Failure {
    Failure::failed(format!(
        "vault {address} alone holds {} and {}",
        text::count(alone.points, "recovery point"),
        text::count(alone.packs, "pack")
    ))
    .hint("copy them to another vault first (`holdfast copy --all --to VAULT`), or give --force: the vault keeps them, but nobody lists them here")
}
