//! The guard of a mount: this program once more, called by itself with words that nobody types.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use holdfast_fs::mount::stand_guard;

/// What stands before the arguments of the guard.
const WORD: &str = "guard-mount";

/// How this program is called to stand guard.
pub fn command() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), WORD.into()]
}

/// Stands guard if the command line says so: `guard-mount MNT NUMBER PARENT`.
pub fn run(args: &[OsString]) -> Option<ExitCode> {
    let [_, word, mountpoint, id, parent] = args else { return None };
    if word.as_os_str() != OsStr::new(WORD) {
        return None;
    }
    // Whoever kills all of a name should not mean the guard, which sees to the readers then.
    crate::settings::name_process(c"holdfast-guard");
    let (id, parent) = (number(id)?, u32::try_from(number(parent)?).ok()?);
    let stood = stand_guard(Path::new(mountpoint), id, parent);
    Some(if stood.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn number(text: &OsStr) -> Option<u64> {
    text.to_str()?.parse().ok()
}
