//! The `config` object: whose store it is and the parameters that all its writers share (`docs/format.md`, section 5).
//!
//! Its plain part can be read without a key, because finding the key needs the vault id. It stands once more in the
//! sealed part, so that what was read before there was a key is authenticated as soon as there is one.

use super::{FormatError, HEADER_LEN, Header, ObjectKind, Parser, Put};
use crate::id::VaultId;
use crate::seal::{BlockKind, BlockPlace, Compression, Sealer};

/// End of the plain part that is checked and repeated.
const PLAIN_END: usize = 188;
/// Where the sealed block begins.
pub(crate) const BLOCK_AT: usize = 192;
/// Longest config object, and so the limit of its content.
const CONFIG_MAX: usize = 64 << 10;
/// Most levels of normalization; FastCDC (Xia et al., 2016) uses 0 to 3.
const NORMALIZATION_MAX: u8 = 3;
const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// How cuts are found (`docs/format.md`, section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkerKind {
    /// FastCDC over a secret gear table.
    FastCdc = 1,
    /// Rabin's fingerprint over a secret polynomial, through AES-128.
    RabinAes = 2,
}

impl ChunkerKind {
    fn from_byte(kind: u8) -> Result<Self, FormatError> {
        let all = [Self::FastCdc, Self::RabinAes];
        let known = all.into_iter().find(|known| *known as u8 == kind);
        known.ok_or_else(|| FormatError::TooNew(format!("chunker kind {kind}")))
    }
}

/// How files are cut. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkerParams {
    /// How cuts are found.
    pub kind: ChunkerKind,
    /// 0 to 3: how strongly lengths keep to the average.
    pub normalization: u8,
    /// Shortest chunk, but for the last of a file. At least 4 KiB.
    pub min: u32,
    /// Wanted length.
    pub average: u32,
    /// Longest chunk. At most 16 MiB.
    pub max: u32,
}

impl Default for ChunkerParams {
    fn default() -> Self {
        Self { kind: ChunkerKind::FastCdc, normalization: 2, min: 256 * KIB, average: MIB, max: 4 * MIB }
    }
}

/// Parameters of a store, fixed when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The store's id.
    pub vault_id: VaultId,
    /// Generation whose master key makes chunk ids, gear table and source tags.
    pub identity_generation: u32,
    /// When the store was made, in seconds since 1970.
    pub created: i64,
    /// How files are cut.
    pub chunker: ChunkerParams,
    /// Content of a frame in bytes, 16 KiB to 4 MiB.
    pub frame_len: u32,
    /// Length of a pack that writers aim at in bytes, 1 MiB to 256 MiB.
    pub pack_len: u32,
    /// Features that a writer must know; version 1 knows none.
    pub write_features: u32,
    /// Features that must be known to whoever removes objects; version 1 knows none.
    pub reclaim_features: u32,
}

/// What a config says before there is a key. [`StoreConfig::decode`] authenticates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainConfig {
    /// The store's id.
    pub vault_id: VaultId,
    /// Generation that names things; [`Sealer::new`] needs it.
    pub identity_generation: u32,
    /// When the store was made, in seconds since 1970.
    pub created: i64,
    write_features: u32,
    reclaim_features: u32,
}

impl StoreConfig {
    /// A new store with the default parameters, made at `now` (seconds since 1970), named by generation 1.
    pub fn new(vault_id: VaultId, now: i64) -> Self {
        Self {
            vault_id,
            identity_generation: 1,
            created: now,
            chunker: ChunkerParams::default(),
            frame_len: 128 * KIB,
            pack_len: 16 * MIB,
            write_features: 0,
            reclaim_features: 0,
        }
    }

    /// The bytes of the object, sealed with the newest generation.
    ///
    /// # Errors
    /// When parameters are out of bounds: a config that no reader takes is not written.
    pub fn encode(&self, sealer: &Sealer) -> Result<Vec<u8>, FormatError> {
        self.check_bounds()?;
        Ok(self.assemble(sealer))
    }

    fn assemble(&self, sealer: &Sealer) -> Vec<u8> {
        let object_id = sealer.new_object();
        let header = Header { kind: ObjectKind::Config, object_id, generation: sealer.generation() };
        let mut out = header.encode(&self.vault_id).to_vec();
        let plain = self.encode_plain();
        out.raw(&plain);
        out.u32(crc32c::crc32c(&plain));
        let content = self.encode_content(&plain);
        sealer.seal(&block_place(&header), &content, Compression::None, 0, &mut out);
        out
    }

    /// The store's id, read without a key. Only the checksums vouch for it.
    pub fn peek_vault_id(bytes: &[u8]) -> Result<VaultId, FormatError> {
        Ok(Self::peek(bytes)?.vault_id)
    }

    /// What can be read without a key. Only the checksums vouch for it.
    pub fn peek(bytes: &[u8]) -> Result<PlainConfig, FormatError> {
        if bytes.len() <= BLOCK_AT || bytes.len() > CONFIG_MAX {
            // A foreign file is told from a damaged one by its first bytes, whatever its length.
            Header::decode(bytes, ObjectKind::Config, None)?;
            return Err(FormatError::damaged(format!("a config of {} bytes", bytes.len())));
        }
        Header::decode(bytes, ObjectKind::Config, None)?;
        let mut p = Parser::new(&bytes[HEADER_LEN..BLOCK_AT]);
        let plain = p.take(PLAIN_END - HEADER_LEN)?;
        if p.u32()? != crc32c::crc32c(plain) {
            return Err(FormatError::damaged("checksum of the config"));
        }
        let config = PlainConfig::decode(plain)?;
        Header::decode(bytes, ObjectKind::Config, Some(&config.vault_id))?;
        Ok(config)
    }

    /// Reads and authenticates a config.
    pub fn decode(bytes: &[u8], sealer: &Sealer) -> Result<Self, FormatError> {
        let plain = Self::peek(bytes)?;
        let header = Header::decode(bytes, ObjectKind::Config, Some(sealer.vault()))?;
        let content = sealer.open(&block_place(&header), &bytes[BLOCK_AT..], CONFIG_MAX)?;
        let config = plain.with_content(&content, &bytes[HEADER_LEN..PLAIN_END])?;
        config.check_bounds()?;
        Ok(config)
    }

    /// Bytes 64 to 187 of the object.
    fn encode_plain(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(PLAIN_END - HEADER_LEN);
        plain.raw(&self.vault_id.0);
        plain.u32(0);
        plain.u32(self.write_features);
        plain.u32(self.reclaim_features);
        plain.u32(self.identity_generation);
        plain.i64(self.created);
        plain.resize(PLAIN_END - HEADER_LEN, 0);
        plain
    }

    fn encode_content(&self, plain: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        content.raw(&[self.chunker.kind as u8, self.chunker.normalization, 0, 0]);
        content.u32(self.chunker.min);
        content.u32(self.chunker.average);
        content.u32(self.chunker.max);
        content.u32(self.frame_len);
        content.u32(self.pack_len);
        content.i64(self.created);
        content.bytes16(b"");
        content.raw(plain);
        content
    }

    /// Parameters that everything else relies on to bound its memory.
    fn check_bounds(&self) -> Result<(), FormatError> {
        let c = &self.chunker;
        let chunks = 4 * KIB <= c.min && c.min < c.average && c.average < c.max && c.max <= 16 * MIB;
        let within = |what: &str, ok: bool| {
            if ok { Ok(()) } else { Err(FormatError::damaged(format!("{what} is out of bounds"))) }
        };
        within(&format!("chunk length {} to {} around {}", c.min, c.max, c.average), chunks)?;
        within(&format!("normalization {}", c.normalization), c.normalization <= NORMALIZATION_MAX)?;
        within(&format!("frame length {}", self.frame_len), (16 * KIB..=4 * MIB).contains(&self.frame_len))?;
        within(&format!("pack length {}", self.pack_len), (MIB..=256 * MIB).contains(&self.pack_len))?;
        within(&format!("identity generation {}", self.identity_generation), self.identity_generation > 0)
    }
}

impl PlainConfig {
    fn decode(plain: &[u8]) -> Result<Self, FormatError> {
        let mut p = Parser::new(plain);
        let vault_id = VaultId(p.array()?);
        let read_features = p.u32()?;
        if read_features != 0 {
            return Err(FormatError::TooNew(format!(
                "feature bit {} to read",
                read_features.trailing_zeros()
            )));
        }
        let (write_features, reclaim_features) = (p.u32()?, p.u32()?);
        let (identity_generation, created) = (p.u32()?, p.i64()?);
        Ok(Self { vault_id, identity_generation, created, write_features, reclaim_features })
    }

    /// Joins the plain part, read from `plain`, with the content of the block, which must repeat it.
    fn with_content(self, content: &[u8], plain: &[u8]) -> Result<StoreConfig, FormatError> {
        let mut p = Parser::new(content);
        let [kind, normalization, ..] = p.array::<4>()?;
        let kind = ChunkerKind::from_byte(kind)?;
        let chunker = ChunkerParams { kind, normalization, min: p.u32()?, average: p.u32()?, max: p.u32()? };
        let (frame_len, pack_len, created) = (p.u32()?, p.u32()?, p.i64()?);
        p.bytes16()?;
        if p.take(plain.len())? != plain || created != self.created {
            return Err(FormatError::damaged("the plain part of the config is not the sealed one"));
        }
        p.end()?;
        Ok(StoreConfig {
            vault_id: self.vault_id,
            identity_generation: self.identity_generation,
            created,
            chunker,
            frame_len,
            pack_len,
            write_features: self.write_features,
            reclaim_features: self.reclaim_features,
        })
    }
}

fn block_place(header: &Header) -> BlockPlace {
    BlockPlace {
        kind: BlockKind::Config,
        object_id: header.object_id,
        generation: header.generation,
        position: BLOCK_AT as u64,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::seal::keys::KeyRing;

    fn sealer() -> Sealer {
        Sealer::new(VaultId([7; 16]), &KeyRing::fixed([0x42; 32]), 1).unwrap()
    }

    fn sample() -> StoreConfig {
        StoreConfig::new(VaultId([7; 16]), 1_700_000_000)
    }

    /// Changes the plain part and makes its checksum right again, as an attacker would.
    fn forged(bytes: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        let crc = crc32c::crc32c(&bytes[HEADER_LEN..PLAIN_END]).to_le_bytes();
        bytes[PLAIN_END..BLOCK_AT].copy_from_slice(&crc);
        bytes
    }

    #[test]
    fn a_config_survives_a_round_trip_and_tells_its_store_without_a_key() {
        let config = StoreConfig { write_features: 4, reclaim_features: 8, ..sample() };
        let bytes = config.encode(&sealer()).unwrap();
        assert_eq!(StoreConfig::peek_vault_id(&bytes), Ok(VaultId([7; 16])));
        let plain = StoreConfig::peek(&bytes).unwrap();
        assert_eq!((plain.identity_generation, plain.created), (1, 1_700_000_000));
        assert_eq!(StoreConfig::decode(&bytes, &sealer()), Ok(config));
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let c = sample();
        assert_eq!(
            c.chunker,
            ChunkerParams {
                kind: ChunkerKind::FastCdc,
                normalization: 2,
                min: 1 << 18,
                average: 1 << 20,
                max: 1 << 22
            }
        );
        assert_eq!((c.frame_len, c.pack_len), (131_072, 16_777_216));
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_seen() {
        let (bytes, sealer) = (sample().encode(&sealer()).unwrap(), sealer());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(StoreConfig::decode(&bad, &sealer).is_err(), "bit {bit}");
            assert!(bit >= BLOCK_AT * 8 || StoreConfig::peek(&bad).is_err(), "bit {bit}");
        }
        for len in (0..bytes.len()).chain([bytes.len() + 64, CONFIG_MAX + 64]) {
            let mut bad = bytes.clone();
            bad.resize(len, 0);
            assert!(StoreConfig::decode(&bad, &sealer).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_forged_plain_part_is_caught_by_the_sealed_copy() {
        let bytes = sample().encode(&sealer()).unwrap();
        for at in (84..PLAIN_END).step_by(4) {
            let forged = forged(&bytes, at, &[0x55]);
            assert!(StoreConfig::peek(&forged).is_ok(), "byte {at}");
            let error = StoreConfig::decode(&forged, &sealer()).unwrap_err();
            assert!(
                matches!(&error, FormatError::Damaged(d) if d.contains("plain part")),
                "byte {at}: {error}"
            );
        }
        assert!(matches!(StoreConfig::peek(&forged(&bytes, 64, &[1])), Err(FormatError::NotOurs(_))));
    }

    #[test]
    fn a_feature_that_reading_needs_is_named_and_others_are_not_in_the_way() {
        let bytes = sample().encode(&sealer()).unwrap();
        let error = StoreConfig::peek(&forged(&bytes, 80, &[0b100])).unwrap_err();
        assert_eq!(error, FormatError::TooNew("feature bit 2 to read".into()));
        assert!(StoreConfig::peek(&forged(&bytes, 84, &[1])).is_ok());
    }

    #[test]
    fn another_store_and_an_unknown_generation_are_told_apart() {
        let bytes = sample().encode(&sealer()).unwrap();
        let other = Sealer::new(VaultId([8; 16]), &KeyRing::fixed([0x42; 32]), 1).unwrap();
        assert!(matches!(StoreConfig::decode(&bytes, &other), Err(FormatError::NotOurs(_))));
        let mut ring = KeyRing::fixed([0x42; 32]);
        ring.add_generation(0).unwrap();
        let newer = Sealer::new(VaultId([7; 16]), &ring, 1).unwrap();
        let bytes = sample().encode(&newer).unwrap();
        assert!(matches!(StoreConfig::decode(&bytes, &sealer()), Err(FormatError::NoKey(_))));
        assert_eq!(StoreConfig::decode(&bytes, &newer), Ok(sample()));
    }

    #[test]
    fn parameters_out_of_bounds_are_neither_written_nor_read() {
        let chunker = |min, average, max| ChunkerParams { min, average, max, ..ChunkerParams::default() };
        let cases = [
            StoreConfig { chunker: chunker(4095, MIB, 4 * MIB), ..sample() },
            StoreConfig { chunker: chunker(MIB, MIB, 4 * MIB), ..sample() },
            StoreConfig { chunker: chunker(4096, 4 * MIB, 4 * MIB), ..sample() },
            StoreConfig { chunker: chunker(4096, MIB, 16 * MIB + 1), ..sample() },
            StoreConfig {
                chunker: ChunkerParams { normalization: 4, ..ChunkerParams::default() },
                ..sample()
            },
            StoreConfig { frame_len: 16 * KIB - 1, ..sample() },
            StoreConfig { frame_len: 4 * MIB + 1, ..sample() },
            StoreConfig { pack_len: MIB - 1, ..sample() },
            StoreConfig { pack_len: 256 * MIB + 1, ..sample() },
            StoreConfig { identity_generation: 0, ..sample() },
        ];
        for config in cases {
            assert!(config.encode(&sealer()).is_err(), "{config:?}");
            let error = StoreConfig::decode(&config.assemble(&sealer()), &sealer()).unwrap_err();
            assert!(error.to_string().contains("out of bounds"), "{config:?}: {error}");
        }
        let widest = StoreConfig { chunker: chunker(4096, 4097, 16 * MIB), frame_len: 4 * MIB, ..sample() };
        assert!(widest.encode(&sealer()).is_ok());
    }

    /// Made from `docs/format.md` by another program, with other libraries.
    const GOLDEN: &str = concat!(
        "484f4c444641535401010100000000001660d5d54bd39c5892a4b685bb60606b09090909090909090909090909090909",
        "0100000000000000000000003a190ed40707070707070707070707070707070700000000000000000000000001000000",
        "00f153650000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
        "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000008de7e013",
        "000102030405060708090a0b0c0d0e0f10111213141516178c0521f2770247ad78f6b0d0cc9de2b42666252124ce7752",
        "d79c5ea4a5af23e39cd0f9b65b639061a4b00bef1aaefbbbff838b8f515133f4bc5a10ab761a161afa4686171d0c5cf8",
        "a2de43a1fc56f2060a491a7e2d5e149501ee5bf50381d6206badb127e1ef0d5e50564ed8058961f0d1c503a30f43f61f",
        "e3b4a74e1d5bf003642abd2f81713ebc79d937397bf20dd81ee62676f67e281ce2565078fc051ad18a13e803bc65364d",
        "3dec163d67f22bab3ae26beb4d275bd2cd521e2761564ec676285468fdc500170a6b819a7024e446fb49b0f164d2d046",
        "90f581aaa2753285a6b41ed04aea8fe0",
    );

    #[test]
    fn a_config_that_another_implementation_made_is_read() {
        let bytes = crate::id::from_hex(GOLDEN).unwrap();
        let theirs = StoreConfig { pack_len: 24 * MIB, ..sample() };
        assert_eq!(StoreConfig::decode(&bytes, &sealer()), Ok(theirs));
    }
}
