//! Does an operation on both sides, and says how the answers differ.

use std::collections::HashSet;
use std::sync::Arc;

use holdfast_fs::layout::Door;
use holdfast_fs::recovery::{Patience, Seek, StoreRecovery};
use holdfast_fs::view::{Detail, Entry, Listed, View, sized};
use holdfast_fs::{FsError, Recovery};
use holdfast_store::clock::Deadline;
use holdfast_store::tree::NodeKind;

use crate::answers::{Numbers, Outcome, differing, joined, number, same, sorted, spoken};
use crate::home::Home;
use crate::ops::{Attribute, Name, Op, What};
use crate::real::{Below, Sameness};

const POSITION_OF_FIRST: u64 = 3;

/// A node that the kernel holds, and the first path on which it was met.
struct Held {
    ino: u64,
    below: Below,
    lookups: u64,
}

/// Whether it is the number of a file with several names.
fn is_linked(ino: u64) -> bool {
    ino & (1 << 60) != 0
}

/// The directory that a path lies in.
fn above(below: &[u8]) -> Below {
    joined(below, b"..").unwrap_or_default()
}

pub struct Driver<'a> {
    home: &'a Home,
    recovery: Arc<StoreRecovery>,
    view: View,
    held: Vec<Held>,
    /// Directories in which names of files with several names were told.
    linked_in: HashSet<Below>,
    forgotten: Vec<(u64, Below)>,
    numbers: Numbers,
}

impl<'a> Driver<'a> {
    pub fn new(home: &'a Home) -> Self {
        let recovery = home.recovery();
        let view = View::new(recovery.clone(), 0, 0).unwrap();
        let mut driver = Self {
            home,
            recovery,
            view,
            held: Vec::new(),
            linked_in: HashSet::new(),
            forgotten: Vec::new(),
            numbers: Numbers::default(),
        };
        driver.begin();
        driver
    }

    /// What a mount begins with: the root of the point, which is never forgotten.
    fn begin(&mut self) {
        let layout = self.view.layout();
        let mut roots = layout.roots();
        let root = roots.find(|root| root.door == Door::Group && root.point == self.home.point).unwrap();
        self.held = vec![Held { ino: root.ino, below: Below::new(), lookups: 0 }];
        self.linked_in.clear();
        self.forgotten.clear();
    }

    pub fn apply(&mut self, op: &Op) -> Outcome {
        let at = (op.of % self.held.len() as u64) as usize;
        let (ino, below) = (self.held[at].ino, self.held[at].below.clone());
        let shown = || String::from_utf8_lossy(&below).into_owned();
        let done = match op.what {
            What::Statfs => {
                let totals = self.view.totals(Patience::Until(Deadline::NEVER)).map_err(drop);
                same("totals", totals, Ok(self.home.totals))
            }
            What::Forget { lookups } => self.forget(at, lookups),
            What::AskForgotten => self.ask_forgotten(op),
            What::Remount { anew } => self.remount(anew),
            What::Lookup(name) => self.lookup((ino, &below), name, op.patient),
            What::Descend { steps } => self.descend((ino, &below), op.of, steps),
            What::List { position, most, detail, room } => {
                self.list((ino, &below), (position, most, room), detail, op.patient).map(drop)
            }
            What::ListAll { most, detail } => self.list_all((ino, &below), most, detail, op.patient),
            _ => self.ask((ino, &below), op),
        };
        done.and_then(|()| self.counts()).map_err(|why| format!("{why}\n  at {:?}", shown()))
    }

    /// Tries what is in memory first, unless it is to be patient.
    fn patiently<T>(
        &self,
        patient: bool,
        ask: impl Fn(&View, Patience) -> Result<T, FsError>,
    ) -> Result<T, i32> {
        let later = || ask(&self.view, Patience::Until(Deadline::NEVER));
        number(match patient {
            true => later(),
            false => match ask(&self.view, Patience::Now) {
                Err(FsError::Later(_)) => later(),
                answer => answer,
            },
        })
    }

    /// Questions that change nothing.
    fn ask(&self, (ino, below): (u64, &[u8]), op: &Op) -> Outcome {
        let real = &self.home.real;
        match op.what {
            What::Getattr => {
                let found = self.patiently(op.patient, |view, patience| view.attr(ino, patience));
                let found = found.map(|(attr, _)| attr);
                same("attributes", found, Ok(real.attr(below, ino).unwrap()))
            }
            What::Readlink => {
                let found = self.patiently(op.patient, |view, patience| view.readlink(ino, patience));
                let expected = real.readlink(below).map_err(|error| error.raw_os_error());
                same("readlink", found.map(|target| target.to_vec()), expected)
            }
            What::Read { offset, len } => {
                let found =
                    self.patiently(op.patient, |view, patience| view.read(ino, offset, len, patience));
                let expected = self.file(below, |path| Ok(real.read(path, offset, len as usize)));
                let equal = found.as_ref().map(|bytes| &bytes[..]) == expected.as_deref();
                if equal { Ok(()) } else { Err(differing(found.map(|bytes| bytes.to_vec()), expected)) }
            }
            What::Seek { offset, seek } => {
                let found =
                    self.patiently(op.patient, |view, patience| view.seek(ino, offset, seek, patience));
                let expected = self
                    .file(below, |path| real.seek(path, offset, seek).map_err(|error| error.raw_os_error()));
                same(if seek == Seek::Data { "seek data" } else { "seek hole" }, found, expected)
            }
            What::Xattr { attribute, size } => self.xattr((ino, below), attribute, size, op.patient),
            What::XattrNames { size } => {
                let is_root = nix::unistd::geteuid().is_root();
                let found = self.patiently(op.patient, |view, patience| {
                    sized(view.xattr_names(ino, is_root, patience)?, size)
                });
                let expected = real.xattr_names(below, size as usize).map_err(|error| error.raw_os_error());
                same("names of attributes", found.map(|answer| sorted(spoken(answer))), expected.map(sorted))
            }
            _ => Ok(()),
        }
    }

    /// What only a regular file can be asked for; of others, the kernel never asks.
    fn file<T>(&self, below: &[u8], ask: impl Fn(&[u8]) -> Result<T, i32>) -> Result<T, i32> {
        match self.home.real.kind(below) {
            NodeKind::File => ask(below),
            NodeKind::Directory => Err(rustix::io::Errno::ISDIR.raw_os_error()),
            _ => Err(rustix::io::Errno::INVAL.raw_os_error()),
        }
    }

    fn xattr(&self, (ino, below): (u64, &[u8]), of: Attribute, size: u32, patient: bool) -> Outcome {
        let real = &self.home.real;
        let names = real.xattr_names(below, 1 << 16).map(|(_, names)| names).unwrap_or_default();
        let names: Vec<_> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        let name = match of {
            Attribute::Own(n) if !names.is_empty() => names[(n % names.len() as u64) as usize],
            Attribute::Point => b"user.holdfast.point",
            _ => b"user.absent",
        };
        let found = self.patiently(patient, |view, patience| sized(view.xattr(ino, name, patience)?, size));
        let found = found.map(spoken);
        if name == b"user.holdfast.point" {
            let id = self.home.point.hex().into_bytes();
            return same("the point", found, number(sized(id, size)).map(spoken));
        }
        let expected = real.xattr(below, name, size as usize).map_err(|error| error.raw_os_error());
        same(&format!("attribute {:?}", String::from_utf8_lossy(name)), found, expected)
    }

    fn lookup(&mut self, (ino, below): (u64, &[u8]), name: Name, patient: bool) -> Outcome {
        let directory = self.home.real.kind(below) == NodeKind::Directory;
        if !directory {
            let found = self.patiently(patient, |view, patience| view.lookup(ino, b"x", patience));
            let expected = rustix::io::Errno::NOTDIR.raw_os_error();
            return same("lookup below what is no directory", found.map(|entry| entry.attr), Err(expected));
        }
        let names = self.home.real.names(below);
        let name = match name {
            Name::Entry(n) | Name::Absent(n) if !names.is_empty() => {
                let mut found = names[(n % names.len() as u64) as usize].clone();
                if matches!(name, Name::Absent(_)) {
                    found.truncate(200);
                    found.push(0x80 | n as u8);
                }
                found
            }
            Name::Entry(_) | Name::Absent(_) => b"absent".to_vec(),
            Name::Dot => b".".to_vec(),
            Name::DotDot => b"..".to_vec(),
            Name::TooLong => vec![b'n'; 256],
        };
        let found = self.patiently(patient, |view, patience| view.lookup(ino, &name, patience));
        let Some(path) = joined(below, &name) else {
            // The directory above the root is none of the source's.
            return found.map(drop).map_err(|error| format!("{error} for the directory above the root"));
        };
        let expected = self.home.real.attr(&path, 0).map_err(|error| error.raw_os_error());
        match (found, expected) {
            (Ok(entry), Ok(_)) => self.met(&entry, path, Detail::All, true),
            (found, expected) => same("lookup", found.map(|entry| entry.attr), expected),
        }
    }

    fn descend(&mut self, (ino, below): (u64, &[u8]), by: u64, steps: u64) -> Outcome {
        let (mut ino, mut below) = (ino, below.to_vec());
        for step in 0..steps {
            if self.home.real.kind(&below) != NodeKind::Directory {
                break;
            }
            let names = self.home.real.names(&below);
            let Some(name) = names.get((by >> step) as usize % names.len().max(1)) else { break };
            let found = self.patiently(false, |view, patience| view.lookup(ino, name, patience));
            let entry =
                found.map_err(|error| format!("lookup of {:?}: {error}", String::from_utf8_lossy(name)))?;
            below = joined(&below, name).unwrap_or_default();
            ino = entry.attr.ino;
            self.met(&entry, below.clone(), Detail::All, true)?;
        }
        Ok(())
    }

    /// An entry that the view handed out, which the kernel then has or has not `taken`.
    fn met(&mut self, entry: &Entry, below: Below, detail: Detail, taken: bool) -> Outcome {
        let (ino, real) = (entry.attr.ino, &self.home.real);
        let expected = real.attr(&below, ino).unwrap();
        let shown = String::from_utf8_lossy(&below);
        match detail {
            Detail::All => same(&shown, entry.attr, expected)?,
            Detail::Names => same(&shown, entry.attr.kind, expected.kind)?,
        }
        self.numbers.note(ino, real.sameness(&below), below.is_empty())?;
        if taken && !below.is_empty() {
            self.view.accept(entry);
            self.forgotten.retain(|(gone, _)| *gone != ino);
            if is_linked(ino) {
                self.linked_in.insert(above(&below));
            }
            match self.held.iter_mut().find(|held| held.ino == ino) {
                Some(held) => held.lookups += 1,
                None => self.held.push(Held { ino, below, lookups: 1 }),
            }
        }
        Ok(())
    }

    /// One answer of a listing, compared as far as it goes; what fits is taken. Returns the positions of what came.
    fn list(
        &mut self,
        (ino, below): (u64, &[u8]),
        (position, most, room): (u64, usize, usize),
        detail: Detail,
        patient: bool,
    ) -> Result<Vec<u64>, String> {
        let found =
            self.patiently(patient, |view, patience| view.list(ino, position, most, detail, patience));
        if self.home.real.kind(below) != NodeKind::Directory {
            let expected = Err(rustix::io::Errno::NOTDIR.raw_os_error());
            return same("listing", found.map(|listed| listed.len()), expected).map(|()| Vec::new());
        }
        let listed = found.map_err(|error| format!("listing: {error}"))?;
        let mut names = vec![b".".to_vec(), b"..".to_vec()];
        names.extend(self.home.real.names(below));
        let left: Vec<_> = (1..).zip(names).skip_while(|(at, _)| *at <= position).collect();
        let came: Vec<_> = listed.iter().map(|item| (item.position, item.name.clone())).collect();
        if !left.starts_with(&came) || came.is_empty() != left.is_empty() || came.len() > most + 2 {
            let names = |of: &[(u64, Vec<u8>)]| {
                format!(
                    "{:?}",
                    of.iter()
                        .take(5)
                        .map(|(at, name)| (at, String::from_utf8_lossy(name)))
                        .collect::<Vec<_>>()
                )
            };
            return Err(format!(
                "listing after {position}, {most} at most: {} entries {}, but of the folder {} are left, {}",
                came.len(),
                names(&came),
                left.len(),
                names(&left)
            ));
        }
        self.ascending(below, &listed)?;
        for (n, item) in listed.iter().enumerate() {
            let taken = detail == Detail::All && n < room;
            self.entry((ino, below), item, detail, taken)?;
        }
        Ok(came.into_iter().map(|(at, _)| at).collect())
    }

    fn entry(&mut self, (ino, below): (u64, &[u8]), item: &Listed, detail: Detail, taken: bool) -> Outcome {
        let number = item.entry.attr.ino;
        match (&item.name[..], joined(below, &item.name)) {
            (b".", _) => same("number of `.`", number, ino),
            (b"..", Some(above)) => {
                let sameness = self.home.real.sameness(&above);
                self.numbers.note(number, sameness, above.is_empty())
            }
            (b"..", None) => Ok(()),
            (_, path) => self.met(&item.entry, path.unwrap_or_default(), detail, taken),
        }
    }

    /// Numbers of what has one name ascend with the names, so that what sorts by number reads in the store's order.
    fn ascending(&self, below: &[u8], listed: &[Listed]) -> Outcome {
        let mut last = 0;
        for item in listed.iter().filter(|item| item.position >= POSITION_OF_FIRST) {
            let path = joined(below, &item.name).unwrap_or_default();
            let segment = (item.position - POSITION_OF_FIRST) % 4096;
            if matches!(self.home.real.sameness(&path), Sameness::Links(..)) {
                continue;
            }
            if segment > 0 && item.entry.attr.ino <= last {
                return Err(format!(
                    "{:?} has a lower number than what comes before",
                    String::from_utf8_lossy(&path)
                ));
            }
            last = item.entry.attr.ino;
        }
        Ok(())
    }

    fn list_all(&mut self, at: (u64, &[u8]), most: usize, detail: Detail, patient: bool) -> Outcome {
        let mut position = 0;
        while let Some(last) = self.list(at, (position, most, most), detail, patient)?.last() {
            position = *last;
        }
        if self.home.real.kind(at.1) == NodeKind::Directory {
            same("entries", position, self.home.real.names(at.1).len() as u64 + 2)?;
        }
        Ok(())
    }

    fn forget(&mut self, at: usize, lookups: u64) -> Outcome {
        let held = &mut self.held[at];
        let gone = lookups.min(held.lookups);
        self.view.forget(held.ino, gone);
        held.lookups -= gone;
        if held.lookups == 0 && !held.below.is_empty() {
            let held = self.held.swap_remove(at);
            self.forgotten.push((held.ino, held.below));
        }
        Ok(())
    }

    fn ask_forgotten(&self, op: &Op) -> Outcome {
        let Some((ino, below)) = self.forgotten.get(op.of as usize % self.forgotten.len().max(1)) else {
            return Ok(());
        };
        self.ask((*ino, below), &Op { what: What::Getattr, ..*op })
    }

    /// What the view counts is what the kernel holds.
    fn counts(&self) -> Outcome {
        // One record for a directory, which has fewer than 4,096 entries, and one for a file with several names: whose directories have theirs
        // until they are named to the kernel, which here they never are.
        let (linked, single): (Vec<_>, Vec<_>) =
            self.held.iter().skip(1).partition(|held| is_linked(held.ino));
        let directories =
            single.into_iter().map(|held| above(&held.below)).chain(self.linked_in.iter().cloned());
        let directories: HashSet<Below> = directories.collect();
        same("records of nodes that are held", self.view.held(), linked.len() + directories.len())
    }

    fn remount(&mut self, anew: bool) -> Outcome {
        if anew {
            self.recovery = self.home.recovery();
        }
        let recovery: Arc<dyn Recovery> = self.recovery.clone();
        self.view = View::new(recovery, 0, 0).unwrap();
        let stale = self.held.iter().skip(1).find(|held| {
            let answer = self.view.attr(held.ino, Patience::Until(Deadline::NEVER));
            !matches!(answer, Err(FsError::Stale))
        });
        if let Some(held) = stale {
            return Err(format!("{} is known before it was met", held.ino));
        }
        self.begin();
        Ok(())
    }
}
