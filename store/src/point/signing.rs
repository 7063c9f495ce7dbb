//! Signing of recovery points and sessions (`docs/format.md`, section 14): over what stands before the signature, as it stands in the object.

use super::{RecoveryPoint, VaultSession};
use crate::error::StoreError;
use crate::seal::writer::{Signed, WriterKey};

impl RecoveryPoint {
    /// Signs it with the key of this machine, unless there is none or it may not write sources of this host: then nobody did.
    pub fn sign(&mut self, writer: Option<&WriterKey>) -> Result<(), StoreError> {
        (self.writer, self.signature) = (Vec::new(), Vec::new());
        let Some(writer) = writer.filter(|key| key.admission().may_write(&self.source.host)) else {
            return Ok(());
        };
        self.writer = writer.encoded().to_vec();
        self.signature = writer.sign(Signed::Point, &self.encode_unsigned()?);
        Ok(())
    }
}

impl VaultSession {
    /// Signs it with the key of this machine, if there is one.
    pub fn sign(&mut self, writer: Option<&WriterKey>) -> Result<(), StoreError> {
        (self.writer, self.signature) = (Vec::new(), Vec::new());
        if let Some(writer) = writer {
            self.writer = writer.encoded().to_vec();
            let content = self.encode()?;
            self.signature = writer.sign(Signed::Session, before_signature(&content, &[]));
        }
        Ok(())
    }
}

/// The part of a content that a signature at its end is over.
pub(super) fn before_signature<'a>(content: &'a [u8], signature: &[u8]) -> &'a [u8] {
    &content[..content.len().saturating_sub(2 + signature.len())]
}
