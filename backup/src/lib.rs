//! Data sources and the recovery points made of them: what to protect, how it is named, how long it is kept.
//!
//! Knows the store below and neither a kernel nor a terminal.

pub mod retention;
pub mod source_name;
