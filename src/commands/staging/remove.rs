//! `holdfast staging remove`: an annex that is no longer one.

use std::path::Path;

use holdfast_store::StoreError;
use holdfast_store::staging::{self, Annex, DiskFiles, Owner};
use holdfast_store::store::{Settings, Store, Turns};
use serde::Serialize;

use super::{absolute, is_same};
use crate::commands::Context;
use crate::commands::key::owner::{self, Act};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// What was done.
#[derive(Debug, Serialize)]
struct Removed {
    /// Always `summary`.
    message_type: &'static str,
    directory: String,
    /// Packs that were in it, and their bytes.
    packs: u64,
    bytes: u64,
    /// Whether they are gone with it.
    lost: bool,
}

/// Moves what is in an annex elsewhere, or does without it, and takes it from the settings.
pub fn remove(context: &Context<'_>, dir: &Path, lost: bool) -> Outcome {
    let (store, path) = (open_store(context)?, absolute(dir)?);
    if lost {
        owner::agrees(context, store.dir(), Act::LoseAnnex)?;
    }
    let mut turns = Turns::begin(&store)?;
    let annexes = store.staging().annexes();
    let Some(annex) = annexes.iter().find(|annex| is_same(&annex.path, &path)) else {
        return take_away_what_is_left(context, &store, &path);
    };
    let done = match (annex.presence(), lost) {
        (Ok(()), false) => leave(context, &store, annex, &mut turns)?,
        (Err(_), true) => lose(context, &store, annex)?,
        (Ok(()), true) => {
            return Err(Failure::failed(format!("annex {} is there", annex.path.display()))
                .hint("without --lost its packs move into the other directories"));
        }
        (Err(absence), false) => {
            let dir = annex.path.display();
            return Err(Failure::failed(format!("annex {dir} is away: {absence}")).hint(format!(
                "mount its disk first; if it will not come back, `holdfast staging remove --lost {dir}` does without it"
            )));
        }
    };
    tell(context, &done)?;
    Ok(Done::Whole)
}

fn leave(
    context: &Context<'_>,
    store: &Store,
    annex: &Annex,
    turns: &mut Turns<'_>,
) -> Result<Removed, Failure> {
    let needs = store.needs_of_leaving(annex)?;
    if needs.bytes > needs.room {
        return Err(Failure::failed(format!(
            "{} have to move out of {}, and the other directories have room for {}",
            text::size(needs.bytes),
            annex.path.display(),
            text::size(needs.room)
        ))
        .hint("nothing was moved; make room there (`holdfast prune`), or add another annex first"));
    }
    store.begin_leaving(annex.id)?;
    let monitor = context.terminal.monitor();
    store.leave_annex(annex, turns, &*monitor).map_err(|error| goes_on(error, annex))?;
    Ok(Removed {
        message_type: "summary",
        directory: annex.path.display().to_string(),
        packs: needs.objects.len() as u64,
        bytes: needs.objects.iter().map(|object| object.len).sum(),
        lost: false,
    })
}

fn goes_on(error: StoreError, annex: &Annex) -> Failure {
    let (failure, dir) = (Failure::from(error), annex.path.display());
    let hint =
        format!("nothing is lost; the same command goes on, `holdfast staging add {dir}` keeps the annex");
    match failure.hint.clone() {
        Some(first) => failure.hint(format!("{first}; {hint}")),
        None => failure.hint(hint),
    }
}

fn lose(context: &Context<'_>, store: &Store, annex: &Annex) -> Result<Removed, Failure> {
    let known = store.catalog().packs_in_annex(&annex.id)?;
    store.lose_annex(annex.id, &*context.terminal.monitor_of_opening())?;
    Ok(Removed {
        message_type: "summary",
        directory: annex.path.display().to_string(),
        packs: known.len() as u64,
        bytes: known.values().sum(),
        lost: true,
    })
}

/// A run may have been cut off when the directory was an annex no more, and its marker was still there.
fn take_away_what_is_left(context: &Context<'_>, store: &Store, path: &Path) -> Outcome {
    let none = || {
        Failure::failed(format!("the store has no annex {}", path.display()))
            .hint("`holdfast staging list` shows the directories there are")
    };
    let (files, holder) = (DiskFiles::new(path), Settings::load(store.dir())?.holder(*store.id()));
    let Ok(Owner::Ours(id) | Owner::Unsaid(id)) = staging::owner(&files, &holder) else { return Err(none()) };
    let annex = Annex::new(id, holder, path, true, std::sync::Arc::new(files));
    if !store.needs_of_leaving(&annex)?.objects.is_empty() {
        let hint =
            format!("it was one, and has packs: `holdfast staging add {}` brings them back", path.display());
        return Err(none().hint(hint));
    }
    store.unmake_annex(&annex)?;
    tell(
        context,
        &Removed {
            message_type: "summary",
            directory: path.display().to_string(),
            packs: 0,
            bytes: 0,
            lost: false,
        },
    )?;
    Ok(Done::Whole)
}

fn tell(context: &Context<'_>, done: &Removed) -> Result<(), Failure> {
    if context.terminal.json() {
        return context.terminal.json_line(done);
    }
    let packs = format!("{} ({})", text::count(done.packs, "pack"), text::size(done.bytes));
    let dir = &done.directory;
    context.terminal.say(&match done.lost {
        false => format!("{packs} moved; {dir} is no annex any more, and may be used for something else"),
        true => format!(
            "{dir} is no annex any more, and {packs} are given up with it; what vaults have is read from there, `holdfast backup` stores \
             anew what the sources still have, and `holdfast check` names what is lost"
        ),
    })
}
