//! Which calls of a run change something, and what may come of each.

use std::collections::{BTreeMap, BTreeSet};

/// What changes files, or makes changes durable.
pub const OF_FILES: [&str; 27] = [
    "openat",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "copy_file_range",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "chmod",
    "fchmod",
    "fchown",
    "utimensat",
];

/// What sends something.
pub const OF_SOCKETS: [&str; 4] = ["write", "writev", "sendto", "sendmsg"];

/// Both calls that make a file durable, as one.
const SYNCS: &str = "fsync,fdatasync";

/// What comes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program is killed there.
    Kill,
    /// The disk is full at this call, and has room again.
    Full,
    /// The disk fails this call alone.
    Broken,
    /// The disk is full from this call on.
    StaysFull,
    /// The disk fails from this call on.
    StaysBroken,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Kill, Self::Full, Self::Broken, Self::StaysFull, Self::StaysBroken];

    /// Those that may come of a call. Files are opened for reading by the call that makes them, and in every place that it has in a run:
    /// from some of them on nothing would be read any more, either.
    fn of(call: &str) -> &'static [Self] {
        match call {
            "openat" => &[Self::Kill, Self::Full, Self::Broken],
            SYNCS => &[Self::Broken, Self::StaysBroken],
            _ => &Self::ALL,
        }
    }

    /// What says so in a message about it. SQLite has one word for all that a sync says, and reads on in a file that it cannot open to write.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Kill => &[],
            Self::Full | Self::StaysFull => &["No space left", " full", "I/O error", "readonly database"],
            Self::Broken | Self::StaysBroken => &["Input/output error", "I/O error", "readonly database"],
        }
    }
}

/// The n-th call of this name of each thread comes to this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub call: String,
    pub nth: usize,
    pub fault: Fault,
}

impl Cell {
    /// Nothing is ever durable.
    pub fn no_sync() -> Self {
        Self { call: SYNCS.to_owned(), nth: 1, fault: Fault::StaysBroken }
    }

    /// As `strace` wants it.
    pub fn injection(&self) -> String {
        let (what, on) = match self.fault {
            Fault::Kill => ("signal=KILL", ""),
            Fault::Full => ("error=ENOSPC", ""),
            Fault::Broken => ("error=EIO", ""),
            Fault::StaysFull => ("error=ENOSPC", "+"),
            Fault::StaysBroken => ("error=EIO", "+"),
        };
        format!("inject={}:{what}:when={}{on}", self.call, self.nth)
    }

    /// All of a run that nobody disturbed: each place in a thread at which one of them had a call that does something, with what may come of it.
    pub fn all(calls: &[String]) -> Vec<Self> {
        let mut places = places(calls, changes_a_file);
        let syncs = SYNCS.split(',').filter_map(|call| places.get(call)).flatten().copied();
        let syncs = syncs.collect();
        places.insert(SYNCS, syncs);
        let places = places.into_iter().flat_map(|(call, nths)| nths.into_iter().map(move |nth| (call, nth)));
        let cell = |call: &str, nth, fault| Self { call: call.to_owned(), nth, fault };
        places
            .flat_map(|(call, nth)| Fault::of(call).iter().map(move |fault| cell(call, nth, *fault)))
            .collect()
    }

    /// Each place at which something was sent over the network; there is no more to it than being killed.
    pub fn of_sending(calls: &[String]) -> Vec<Self> {
        let places = places(calls, |line| line.contains("<TCP"));
        let cell = |call: &str, nth| Self { call: call.to_owned(), nth, fault: Fault::Kill };
        let places = places.into_iter().flat_map(|(call, nths)| nths.into_iter().map(move |nth| (call, nth)));
        places.map(|(call, nth)| cell(call, nth)).collect()
    }
}

/// By call, the numbers in their threads of those that are meant.
fn places(calls: &[String], is_meant: impl Fn(&str) -> bool) -> BTreeMap<&str, BTreeSet<usize>> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut places: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for line in calls {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        // The second half of a call that another thread came between has no bracket, or none behind a name.
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if !call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let count = counts.entry((thread, call)).or_default();
        *count += 1;
        if is_meant(line) {
            places.entry(call).or_default().insert(*count);
        }
    }
    places
}

/// Whether a call does something to a file: threads wake each other by calls that never fail, and most files are opened to be read. What the
/// second half of a call was about it does not say.
pub fn changes_a_file(line: &str) -> bool {
    let writes = ["O_CREAT", "O_WRONLY", "O_RDWR"].iter().any(|flag| line.contains(flag));
    is_of_a_file(line) && !line.contains(" resumed>") && (writes || !line.contains(" openat("))
}

/// Whether a call was of a file.
fn is_of_a_file(call: &str) -> bool {
    let others =
        ["anon_inode:", "pipe:", "socket:", "<TCP", "<UNIX", "<char ", "\"/dev/null\"", "\"/dev/tty\""];
    !others.iter().any(|what| call.contains(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn places_are_those_of_calls_that_change_a_file_counted_by_thread_over_all_of_the_name() {
        let calls = lines(concat!(
            "7 openat(AT_FDCWD</a>, \"/lib/libc.so\", O_RDONLY|O_CLOEXEC) = 3</lib/libc.so>\n",
            "7 openat(AT_FDCWD</a>, \"/a/new\", O_WRONLY|O_CREAT|O_CLOEXEC, 0666 <unfinished ...>\n",
            "8 write(4<anon_inode:[eventfd]>, \"\\1\", 8) = 8\n",
            "8 write(5</a/new>, \"x\", 1) = 1\n",
            "7 <... openat resumed>) = 5</a/new>\n",
            "7 fsync(5</a/new>) = 0\n",
            "8 fdatasync(6</a/db>) = 0\n",
            "8 fdatasync(6</a/db>) = 0\n",
            "8 sendto(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, \"PUT (x)\", 7, 0, NULL, 0) = 7\n",
        ));
        let cells = Cell::all(&calls);
        let of = |call: &str| -> Vec<_> {
            cells.iter().filter(|cell| cell.call == call).map(|cell| (cell.nth, cell.fault)).collect()
        };
        assert_eq!(of("openat"), [(2, Fault::Kill), (2, Fault::Full), (2, Fault::Broken)]);
        assert_eq!(of("write").len(), Fault::ALL.len());
        assert!(of("write").iter().all(|(nth, _)| *nth == 2));
        assert_eq!(of("fdatasync").len(), 2 * Fault::ALL.len());
        assert_eq!(of(SYNCS).iter().map(|(nth, _)| *nth).collect::<Vec<_>>(), [1, 1, 2, 2]);
        assert!(cells.contains(&Cell::no_sync()));
        assert_eq!(of("sendto"), []);
        assert!(changes_a_file("8 write(5</a/new>, \"x\", 1) = -1 EIO (Input/output error) (INJECTED)"));
        assert!(!changes_a_file("8 <... write resumed>) = -1 EIO (Input/output error) (INJECTED)"));
        assert_eq!(Cell::of_sending(&calls), [Cell { call: "sendto".into(), nth: 1, fault: Fault::Kill }]);
    }
}
