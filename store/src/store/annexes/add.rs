//! Making a directory an annex: all of it under the lock of the settings, the marker first, so that whoever is cut off goes on with the same again.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::super::Settings;
use super::super::place::names_in;
use super::super::settings::AnnexSetting;
use super::ANNEXES_MAX;
use crate::error::StoreError;
use crate::id::{AnnexId, VaultId};
use crate::staging::{self, Annex, DiskFiles, Files, Holder, Owner, is_temp};

/// Makes the directory `path` an annex of the store in `dir`, whose id is `store`. Works while others use the store: they see it when they next
/// look. One that was to be left stays, and one that moved to another path is found there. With `take_over` also one that is an annex of another
/// copy of the store, to which it is away from then on.
pub fn add_annex(dir: &Path, store: &VaultId, path: &Path, take_over: bool) -> Result<AnnexId, StoreError> {
    // Known before a marker says it: who is cut off after that is known by it when he comes again.
    Settings::identify(dir)?;
    Settings::change(dir, |settings| {
        let (holder, files) = (settings.holder(*store), Arc::new(DiskFiles::new(path)));
        let owner = staging::owner(&*files, &holder)?;
        let id = may_be_had(owner, settings, path, take_over)?;
        // Nothing is made that would be refused.
        enter(settings, &holder, id, path)?;
        let others = settings.staging.iter().filter(|set| set.id != id).map(|set| &*set.path);
        let others = others.chain([dir]).map(|other| Arc::new(DiskFiles::new(other)) as Arc<dyn Files>);
        make(&Annex::new(id, holder, path, false, files).beside(others.collect()), owner)?;
        Ok(id)
    })
}

/// The id of the annex that a directory is or becomes.
fn may_be_had(
    owner: Owner,
    settings: &Settings,
    path: &Path,
    take_over: bool,
) -> Result<AnnexId, StoreError> {
    let is_known = |id| settings.staging.iter().any(|set| set.id == id);
    match owner {
        Owner::Nobody => Ok(AnnexId::random()),
        Owner::Ours(id) => Ok(id),
        Owner::Unsaid(id) if is_known(id) || has_no_packs(path) => Ok(id),
        Owner::Unsaid(id) | Owner::OfCopy(id) if take_over => Ok(id),
        Owner::Unsaid(_) | Owner::OfCopy(_) => Err(StoreError::OfCopy { annex: path.to_path_buf() }),
        Owner::Other => {
            let (object, detail) = (path.display().to_string(), "it is an annex of another store".to_owned());
            Err(StoreError::NotOurs { object, detail })
        }
    }
}

/// What somebody relies on are packs; the directories around them stay when they go.
fn has_no_packs(annex: &Path) -> bool {
    let packs = annex.join("pack");
    let is_empty = |name: &String| names_in(&packs.join(name)).is_ok_and(|names| names.is_empty());
    names_in(&packs).is_ok_and(|names| names.iter().all(is_empty))
}

fn make(annex: &Annex, owner: Owner) -> Result<(), StoreError> {
    let path = &*annex.path;
    if let Err(why) = annex.own_directories() {
        return Err(StoreError::invalid(format!("{} cannot be an annex: {why}", path.display())));
    }
    match owner {
        Owner::Nobody => {}
        Owner::Ours(_) => return Ok(()),
        // The marker alone, in one step: whoever reads it knows one of the two.
        _ => return annex.make(),
    }
    if !names_in(path)?.iter().all(|name| is_left_over(path, name)) {
        return Err(StoreError::AlreadyThere { what: format!("something else in {}", path.display()) });
    }
    if !path.is_dir() {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(StoreError::io("make directory", path))?;
    }
    let private = Permissions::from_mode(0o700);
    std::fs::set_permissions(path, private).map_err(StoreError::io("close to others", path))?;
    annex.make()?;
    // The directory itself, where it is new.
    let above = path.parent().unwrap_or(path);
    std::fs::File::open(above).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", above))
}

/// Whether this is what lies in a file system that is new, or what a run left that was cut off.
fn is_left_over(dir: &Path, name: &str) -> bool {
    let holds = |is_ours: fn(&str) -> bool| {
        names_in(&dir.join(name)).is_ok_and(|names| names.iter().all(|name| is_ours(name)))
    };
    match name {
        "lost+found" => true,
        "pack" => holds(|_| false),
        "tmp" => holds(is_temp),
        _ => false,
    }
}

fn enter(settings: &mut Settings, holder: &Holder, id: AnnexId, path: &Path) -> Result<(), StoreError> {
    if let Some(other) = settings.staging.iter().find(|set| set.path == path && set.id != id) {
        let detail = format!("annex {} belongs there, and is away", other.path.display());
        return Err(StoreError::AlreadyThere { what: detail });
    }
    let count = settings.staging.len();
    let is_at = |path: &Path| {
        let owner = staging::owner(&DiskFiles::new(path), holder);
        matches!(owner, Ok(Owner::Ours(there) | Owner::Unsaid(there)) if there == id)
    };
    match settings.staging.iter_mut().find(|set| set.id == id) {
        Some(set) if set.path != path && is_at(&set.path) => {
            Err(StoreError::AlreadyThere { what: format!("the same annex, in {},", set.path.display()) })
        }
        Some(set) => {
            (set.path, set.leaving) = (path.to_path_buf(), false);
            Ok(())
        }
        None if count >= ANNEXES_MAX => {
            Err(StoreError::invalid(format!("a store has {ANNEXES_MAX} annexes at most")))
        }
        None => {
            settings.staging.push(AnnexSetting { path: path.to_path_buf(), id, leaving: false });
            Ok(())
        }
    }
}
