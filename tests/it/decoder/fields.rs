//! Reading fields out of bytes (section 1 of the format): every length is checked against what is left before
//! anything is allocated, and nothing may be left over at the end of a structure.

use std::fmt;

/// Why an object is refused: a sentence, preceded by where it was found.
#[derive(Debug)]
pub struct Refused(String);

impl Refused {
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// The same refusal, said of the object or entry `place`.
    pub fn of(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub type Read<T> = Result<T, Refused>;

/// What the format calls a *must*.
pub fn must(holds: bool, what: &str) -> Read<()> {
    if holds { Ok(()) } else { Err(Refused::new(format!("not so: {what}"))) }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn from_hex(text: &str) -> Read<Vec<u8>> {
    must(
        text.len().is_multiple_of(2) && !text.bytes().any(|b| b.is_ascii_uppercase()),
        "lower-case hexadecimal",
    )?;
    let digit =
        |b: u8| (b as char).to_digit(16).map(|d| d as u8).ok_or_else(|| Refused::new("no hexadecimal"));
    text.as_bytes().chunks(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// A time: seconds since 1970 and nanoseconds.
pub type Time = (i64, u32);

/// What is left of a structure.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(Refused::new(format!("{len} bytes are said to follow, {} do", self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Read<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub fn time(&mut self) -> Read<Time> {
        let (seconds, nanos) = (self.i64()?, self.u32()?);
        must(nanos < 1_000_000_000, "nanoseconds are below 10^9")?;
        Ok((seconds, nanos))
    }

    pub fn bytes8(&mut self) -> Read<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    pub fn bytes16(&mut self) -> Read<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }

    pub fn bytes32(&mut self) -> Read<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// `bytes16` that is UTF-8.
    pub fn text16(&mut self) -> Read<String> {
        let bytes = self.bytes16()?.to_vec();
        String::from_utf8(bytes).map_err(|_| Refused::new("text that is not UTF-8"))
    }

    /// A `u32` count of items that take at least `least` bytes each, at most `limit`.
    pub fn count(&mut self, least: usize, limit: usize) -> Read<usize> {
        let count = self.u32()? as usize;
        must(count <= limit, "a count is within its limit")?;
        must(count.saturating_mul(least) <= self.rest.len(), "as many items follow as are counted")?;
        Ok(count)
    }

    /// The number of bytes that are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The end of the structure.
    pub fn end(self) -> Read<()> {
        must(self.rest.is_empty(), "nothing is left over at the end of a structure")
    }
}
