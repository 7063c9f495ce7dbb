//! provisional
use crate::format::FormatError;
use crate::id::VaultId;
use crate::seal::Sealer;
use crate::seal::keys::KeyRing;
/// c
#[derive(Clone, Copy, Debug)]
pub struct ChunkerParams {
    /// k
    pub kind: u8,
    /// n
    pub normalization: u8,
    /// m
    pub min: u32,
    /// a
    pub average: u32,
    /// m
    pub max: u32,
}
/// s
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// c
    pub chunker: ChunkerParams,
    /// f
    pub frame_len: u32,
    /// p
    pub pack_len: u32,
}
impl StoreConfig {
    /// e
    pub fn encode(&self, _s: &Sealer) -> Vec<u8> {
        todo!()
    }
    /// p
    pub fn peek_vault_id(_b: &[u8]) -> Result<VaultId, FormatError> {
        todo!()
    }
    /// o
    pub fn open(_b: &[u8], _ring: &KeyRing) -> Result<(Self, Sealer), FormatError> {
        todo!()
    }
}
