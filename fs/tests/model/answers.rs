//! Answers of both sides in the same words, and how they are compared.

use std::collections::BTreeMap;

use holdfast_fs::FsError;
use holdfast_fs::view::XattrAnswer;

use crate::real::{Below, Sameness};

/// What differs; nothing if nothing does.
pub type Outcome = Result<(), String>;

/// Equal, or a sentence.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, view: T, real: T) -> Outcome {
    if view == real { Ok(()) } else { Err(format!("{what}: the view says {view:?}, the folder {real:?}")) }
}

/// An answer as data, or as the number that a caller would get.
pub fn number<T>(answer: Result<T, FsError>) -> Result<T, i32> {
    answer.map_err(|error| error.errno() as i32)
}

/// Which number a thing has, and which thing a number: the same in all views.
#[derive(Default)]
pub struct Numbers {
    of: BTreeMap<Sameness, u64>,
    stands_for: BTreeMap<u64, Sameness>,
}

impl Numbers {
    pub fn note(&mut self, ino: u64, sameness: Sameness, is_root: bool) -> Outcome {
        if is_root {
            return Ok(());
        }
        let before = self.of.entry(sameness.clone()).or_insert(ino);
        same(&format!("number of {sameness:?}"), ino, *before)?;
        let other = self.stands_for.entry(ino).or_insert_with(|| sameness.clone());
        same(&format!("what has the number {ino}"), sameness, other.clone())
    }
}

/// The path of a name in a directory; none above the root.
pub fn joined(below: &[u8], name: &[u8]) -> Option<Below> {
    let above = || below.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &below[..at]).to_vec();
    match name {
        b"." => Some(below.to_vec()),
        b".." if below.is_empty() => None,
        b".." => Some(above()),
        _ if below.is_empty() => Some(name.to_vec()),
        _ => Some([below, b"/", name].concat()),
    }
}

/// Length and bytes, as a system call gives them.
pub fn spoken(answer: XattrAnswer) -> (usize, Vec<u8>) {
    match answer {
        XattrAnswer::Size(size) => (size as usize, Vec::new()),
        XattrAnswer::Data(data) => (data.len(), data),
    }
}

/// Names have no order.
pub fn sorted((len, names): (usize, Vec<u8>)) -> (usize, Vec<Vec<u8>>) {
    let mut names: Vec<_> = names.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    names.sort();
    (len, names)
}

/// Where bytes differ, without printing all of them.
pub fn differing(found: Result<Vec<u8>, i32>, expected: Result<Vec<u8>, i32>) -> String {
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            let at = found.iter().zip(&expected).position(|(one, other)| one != other);
            format!(
                "read: {} bytes, expected {}, the first that differs is {at:?}",
                found.len(),
                expected.len()
            )
        }
        (found, expected) => {
            format!("read: {:?} bytes, expected {:?}", found.map(|b| b.len()), expected.map(|b| b.len()))
        }
    }
}
