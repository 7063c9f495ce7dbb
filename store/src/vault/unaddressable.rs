//! A vault to which no way leads: its address makes no sense here, or its credentials are missing or malformed.
//!
//! It stands in the place of the real one, so that a store knows all its vaults: whoever asks it for something hears why that
//! cannot be, and nobody takes a store with such a vault for one without.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use super::{ListPage, ObjectName, PutNew, Vault, VaultError};

/// A vault of which only the address is known. Every request ends with `Invalid` and the reason, and is not tried again.
#[derive(Clone, Debug)]
pub struct UnaddressableVault {
    address: String,
    reason: String,
}

impl UnaddressableVault {
    /// The vault at `address` (without secrets), which cannot be reached for `reason`.
    pub fn new(address: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { address: address.into(), reason: reason.into() }
    }

    fn refuse<T>(&self) -> Result<T, VaultError> {
        Err(VaultError::invalid(format!("it cannot be addressed: {}", self.reason)))
    }
}

#[async_trait]
impl Vault for UnaddressableVault {
    fn address(&self) -> String {
        self.address.clone()
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        self.refuse()
    }

    async fn put_new(&self, _: &ObjectName, _: Bytes) -> Result<PutNew, VaultError> {
        self.refuse()
    }

    async fn get_range(&self, _: &ObjectName, _: Range<u64>) -> Result<Bytes, VaultError> {
        self.refuse()
    }

    async fn stat(&self, _: &ObjectName) -> Result<Option<u64>, VaultError> {
        self.refuse()
    }

    async fn list(&self, _: &str, _: Option<&str>) -> Result<ListPage, VaultError> {
        self.refuse()
    }

    async fn delete(&self, _: &ObjectName) -> Result<bool, VaultError> {
        self.refuse()
    }

    async fn delete_exactly(&self, _: &ObjectName, _: &Bytes) -> Result<bool, VaultError> {
        self.refuse()
    }
}
