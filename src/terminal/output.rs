//! Standard output for results that come in great numbers: gathered, and written when there are many or at the end.
//!
//! A listing of a million names would otherwise be a million system calls.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use super::{output_failure, text};
use crate::outcome::Failure;

/// What is gathered before it is written, in bytes.
const GATHERED: usize = 64 << 10;

/// Gathers results; [`Output::finish`] must end it, or a full disk would go unseen.
pub struct Output {
    out: BufWriter<Stdout>,
    is_terminal: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        Self { is_terminal: out.is_terminal(), out: BufWriter::with_capacity(GATHERED, out) }
    }

    /// Adds raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| output_failure(&error))
    }

    /// Adds a value as one line of JSON.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value)
            .map_err(|error| Failure::failed("cannot write the result as JSON").caused_by(&error))?;
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Adds a name: escaped for a terminal, as it is for a pipe.
    pub fn name(&mut self, raw: &[u8]) -> Result<(), Failure> {
        if self.is_terminal { self.bytes(text::printable(raw).as_bytes()) } else { self.bytes(raw) }
    }

    /// Adds zeros.
    pub fn zeros(&mut self, len: u64) -> Result<(), Failure> {
        io::copy(&mut io::Read::take(io::repeat(0), len), &mut self.out)
            .map(drop)
            .map_err(|error| output_failure(&error))
    }

    /// Writes what is gathered.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| output_failure(&error))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("is_terminal", &self.is_terminal).finish_non_exhaustive()
    }
}
