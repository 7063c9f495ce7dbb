//! The one border between the blocking engine and asynchronous vaults (see `docs/architecture.md`).
