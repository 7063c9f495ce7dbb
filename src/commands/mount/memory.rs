//! What a mount may keep in memory, and how that is shared out.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::outcome::Failure;

/// What `--memory` says unless somebody says otherwise.
pub const DEFAULT: u64 = 128 << 20;
/// Below this too little would be left to keep anything.
const LEAST: u64 = 64 << 20;
/// The program itself, its threads, what is being answered, the catalog's connections, and the small tables that
/// `docs/architecture.md` lists.
const FIXED: u64 = 48 << 20;
/// Less is not given to what is on its way from vaults: a few requests of 1 MiB.
const IN_FLIGHT_MIN: u64 = 4 << 20;
/// A record of nodes that the kernel has in use, with its directory and its share of the tables; as measured.
const RECORD: u64 = 208;

/// How glibc is told the number of arenas of its allocator, and what is enough.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// Starts this process again with few arenas, unless somebody has said how many. By default glibc has eight for each processor, and
/// what one thread gives back another does not get: twelve readers of a vault took 139 MB instead of 107.
pub fn keep_arenas_few() {
    let mut words = std::env::args_os();
    if let (None, Ok(program), Some(called)) =
        (std::env::var_os(ARENAS.0), std::env::current_exe(), words.next())
    {
        // If that cannot be done, it goes on with more memory.
        let _ = with_few_arenas(Command::new(program).arg0(called).args(words)).exec();
    }
}

/// So that a process need not start again for it.
pub fn with_few_arenas(command: &mut Command) -> &mut Command {
    let (name, few) = ARENAS;
    if std::env::var_os(name).is_none() { command.env(name, few) } else { command }
}

/// Bounds of what grows with use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Bytes of decoded frames.
    pub frames: usize,
    /// Bytes of parsed pages of directories.
    pub pages: usize,
    /// Records of nodes that the kernel has in use.
    pub records: usize,
    /// Bytes on their way from vaults.
    pub in_flight: u64,
}

/// Shares `memory` bytes out: of what is above the fixed part two tenths, and at least 4 MiB, for what is on its way from
/// vaults, three for records, two for pages, and the rest, some three, for frames. What an allocator cannot give back has the room
/// of what is not full.
pub fn shares(memory: u64) -> Result<Shares, Failure> {
    if memory < LEAST {
        let message = format!("--memory {memory}: a mount needs {} MiB", LEAST >> 20);
        return Err(Failure::usage(message).hint("most of that is the program itself; the default is 128M"));
    }
    let tenths = |n: u64| (memory - FIXED) / 10 * n;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let in_flight = tenths(2).max(IN_FLIGHT_MIN);
    let frames = tenths(5) - in_flight;
    Ok(Shares { frames: size(frames), pages: size(tenths(2)), records: size(tenths(3) / RECORD), in_flight })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_shares_stay_within_the_whole_at_any_size() {
        for memory in [LEAST, DEFAULT, 1 << 30, 1 << 40] {
            let shares = shares(memory).unwrap();
            let sum =
                shares.frames + shares.pages + shares.records * RECORD as usize + shares.in_flight as usize;
            assert!(sum as u64 + FIXED <= memory && sum as u64 >= (memory - FIXED) / 10 * 9, "{memory}");
        }
        let usual = shares(DEFAULT).unwrap();
        assert_eq!((usual.frames >> 20, usual.pages >> 20, usual.records / 1000), (24, 16, 120));
        assert_eq!(usual.in_flight, 16 << 20);
        let least = shares(LEAST).unwrap();
        assert!(least.in_flight == 4 << 20 && least.frames >= 3 << 20, "{least:?}");
    }

    #[test]
    fn too_little_is_refused_with_what_it_takes() {
        let failure = shares(LEAST - 1).unwrap_err();
        assert!(failure.message.contains("64 MiB"), "{}", failure.message);
    }
}
