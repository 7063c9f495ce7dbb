//! Recovery points out of an open store.

/// Placeholder.
#[derive(Debug)]
pub struct StoreRecovery;
