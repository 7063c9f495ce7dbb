//! `holdfast quickstart`: everything once, so that the first recovery happens in the first minute.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use crate::outcome::{Failure, Outcome};

/// Try everything at once: store, vault, recovery point, mount
///
/// Makes a store and a vault in your data directory (the vault is a directory here; a real one is elsewhere), takes a
/// recovery point of DIR, puts it into the vault, mounts all points and prints where to `cd`. Run again, it takes another
/// point. A passphrase is made for you and kept beside the store, which is right for a trial and for nothing else.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast quickstart ~/Documents
  holdfast quickstart ~/Documents --store /tmp/try/store --mount /tmp/try/recovery")]
pub struct QuickstartArgs {
    /// What to protect
    dir: PathBuf,
    /// Where to mount; by default `recovery` beside the store
    #[arg(long, value_name = "MNT")]
    mount: Option<PathBuf>,
    /// The vault; by default `vault` beside the store
    #[arg(long, value_name = "URL")]
    vault: Option<String>,
}

/// Where a trial puts things.
#[derive(Debug, PartialEq, Eq)]
pub struct Places {
    /// The store.
    pub store: PathBuf,
    /// The vault's address.
    pub vault: String,
    /// The mount point.
    pub mount: PathBuf,
}

fn places(store: PathBuf, args: &QuickstartArgs) -> Places {
    let beside = |name: &str| store.with_file_name(name);
    Places {
        vault: args.vault.clone().unwrap_or_else(|| beside("vault").display().to_string()),
        mount: args.mount.clone().unwrap_or_else(|| beside("recovery")),
        store,
    }
}

/// Does it all.
pub fn run(context: &Context<'_>, args: &QuickstartArgs) -> Outcome {
    if !args.dir.is_dir() {
        return Err(Failure::failed(format!("{} is no directory", args.dir.display())));
    }
    let store = context.settings.named_store().map(Path::to_path_buf);
    let store = store.or_else(|| context.settings.data_dir.as_ref().map(|dir| dir.join("store")));
    let places = places(store.map_or_else(|| context.settings.store().map(Path::to_path_buf), Ok)?, args);
    context.terminal.say(&format!(
        "store {}\nvault {}\nmount {}",
        places.store.display(),
        places.vault,
        places.mount.display()
    ))?;
    Err(Failure::not_built("quickstart"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_stands_beside_the_store() {
        let args = QuickstartArgs { dir: "/d".into(), mount: None, vault: None };
        let places = places("/tmp/try/store".into(), &args);
        assert_eq!(places.mount, Path::new("/tmp/try/recovery"));
        assert_eq!(places.vault, "/tmp/try/vault");
    }
}
