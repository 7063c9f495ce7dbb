//! A hold: somebody asked that a point stays whatever happens (`docs/format.md`, section 11).

use crate::error::StoreError;
use crate::format::{FormatError, Parser, Put};
use crate::id::RecoveryPointId;

const HOLD_VERSION: u16 = 1;
/// Longest reason that is written, in bytes.
pub const REASON_LEN_MAX: usize = 1000;

/// A hold of a point, as long as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The point.
    pub point: RecoveryPointId,
    /// When it was placed, in seconds since 1970, by the clock of whoever did.
    pub placed: i64,
    /// Why, in words of a person's; may be empty.
    pub reason: String,
}

impl Hold {
    /// The content of the hold's block; `Invalid` if the reason is above 1,000 bytes.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        if self.reason.len() > REASON_LEN_MAX {
            let len = self.reason.len();
            return Err(StoreError::invalid(format!("a reason of {len} bytes, above {REASON_LEN_MAX}")));
        }
        let mut out = Vec::with_capacity(32 + self.reason.len());
        out.u16(HOLD_VERSION);
        out.raw(&self.point.0);
        out.i64(self.placed);
        out.bytes16(self.reason.as_bytes());
        Ok(out)
    }

    /// Reads the content of a hold's block.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut p = Parser::new(bytes);
        let version = p.u16()?;
        if version != HOLD_VERSION {
            return Err(FormatError::TooNew(format!("hold of version {version}")));
        }
        let hold = Self { point: RecoveryPointId(p.array()?), placed: p.i64()?, reason: p.text16()? };
        p.end()?;
        Ok(hold)
    }
}
