//! Names of things, as types: an id of one kind can never be passed where another is meant.
//!
//! Random ids are made here and nowhere else but in `seal`, so that every use of chance has two places to look at.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length of the id in bytes.
            pub const LEN: usize = $len;

            /// The id as lower-case hexadecimal.
            pub fn hex(&self) -> String {
                to_hex(&self.0)
            }

            /// Reads exactly `2 * LEN` hexadecimal digits of lower case.
            pub fn from_hex(text: &str) -> Option<Self> {
                let bytes = from_hex(text)?;
                Some(Self(bytes.try_into().ok()?))
            }

            /// Takes the id from a slice of exactly `LEN` bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(bytes.try_into().ok()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.hex())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.hex())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let wrong = || serde::de::Error::custom(concat!("not the hexadecimal digits of ", stringify!($name)));
                Self::from_hex(&String::deserialize(deserializer)?).ok_or_else(wrong)
            }
        }
    };
}

id!(
    /// Keyed BLAKE3 of a chunk's type and plaintext (`docs/format.md`, section 9).
    ChunkId,
    32
);
id!(
    /// BLAKE3 of all bytes of a pack.
    PackId,
    32
);
id!(
    /// BLAKE3 of all bytes of an index object.
    IndexId,
    32
);
id!(
    /// BLAKE3 of all bytes of a recovery point's object, as `previous` and witnesses carry it.
    ObjectHash,
    32
);
id!(
    /// Identity of a store and all its vaults.
    VaultId,
    16
);
id!(
    /// The random id in an object's header; binds its sealed blocks to it.
    ObjectId,
    16
);
id!(
    /// Identity of a recovery point and of the session that makes it.
    RecoveryPointId,
    16
);
id!(
    /// Keyed name of a data source (host, group, source), the same in all its points.
    SourceTag,
    16
);
id!(
    /// Identity of a key slot.
    SlotId,
    16
);
id!(
    /// Identity of a writer: a machine's public key, hashed.
    WriterId,
    16
);
id!(
    /// Identity of an annex: a further directory in which staging keeps packs.
    AnnexId,
    16
);
id!(
    /// Identity of a directory of a store: a copy of the store that was recovered from a vault has the same [`VaultId`] and another one of these.
    StagingId,
    16
);

impl RecoveryPointId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        to_hex(&self.0[..4])
    }
}

/// An attempt to bring a recovery point into a vault. The first has the number 0; a further one begins when all before it were revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The point.
    pub point: RecoveryPointId,
    /// Which attempt, of 256.
    pub number: u8,
}

impl Attempt {
    /// The first one for a point.
    pub fn first(point: RecoveryPointId) -> Self {
        Self { point, number: 0 }
    }

    /// All of a point, in the order in which they are made.
    pub fn all(point: RecoveryPointId) -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(move |number| Self { point, number })
    }

    /// The one that begins when this one and all before it were revoked, if there may be one.
    pub fn next(&self) -> Option<Self> {
        Some(Self { number: self.number.checked_add(1)?, ..*self })
    }

    /// Reads exactly what its text is: the id of the point, and `.` with the number unless that is 0.
    pub fn from_text(text: &str) -> Option<Self> {
        let (id, number) = text.split_once('.').unwrap_or((text, "0"));
        let attempt = Self { point: RecoveryPointId::from_hex(id)?, number: number.parse().ok()? };
        (attempt.to_string() == text).then_some(attempt)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "{}", self.point),
            number => write!(f, "{}.{number}", self.point),
        }
    }
}

impl ObjectId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

impl VaultId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

impl WriterId {
    /// The first eight digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..8].to_owned()
    }
}

impl SlotId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

impl AnnexId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

impl StagingId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

/// Bytes from the system's random source.
///
/// # Panics
/// When the system has no random source: nothing can be sealed without one.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}

/// As many bytes as are asked for, by the same promise.
pub(crate) fn random_vec(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}

/// Lower-case hexadecimal of `bytes`.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        text.push(char::from(DIGITS[usize::from(b >> 4)]));
        text.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    text
}

/// Bytes of lower-case hexadecimal, or nothing if `text` is anything else.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    fn digit(c: u8) -> Option<u8> {
        match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        }
    }
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_survives_a_round_trip_and_refuses_what_is_not_lower_case_hex() {
        let id = RecoveryPointId::random();
        assert_eq!(RecoveryPointId::from_hex(&id.hex()), Some(id));
        for bad in ["", "0", "zz", "AA", "00", &"0".repeat(33)] {
            assert_eq!(RecoveryPointId::from_hex(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_attempt_is_read_from_its_own_text_and_from_no_other() {
        let point = RecoveryPointId([0xab; 16]);
        let hex = point.hex();
        assert_eq!(Attempt::first(point).to_string(), hex);
        assert_eq!(Attempt { point, number: 10 }.to_string(), format!("{hex}.10"));
        for attempt in Attempt::all(point) {
            assert_eq!(Attempt::from_text(&attempt.to_string()), Some(attempt));
        }
        assert_eq!(Attempt::all(point).count(), 256);
        for end in [".0", ".01", ".256", ".", ".+1", ".1.", ".1.2", ".a", "-1", ".-1", "..1"] {
            assert_eq!(Attempt::from_text(&format!("{hex}{end}")), None, "{end}");
        }
        assert_eq!(Attempt::from_text(&hex[2..]), None);
    }
}
