//! Protection and recovery: what reads sources, what writes restored trees, and the policies between.

pub mod agenda;
pub mod alert;
pub mod bandwidth;
pub mod config;
pub mod descent;
pub mod error;
pub mod expire;
pub mod ledger;
pub mod online;
pub mod pattern;
pub mod protect;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod source;
pub mod source_name;
#[cfg(test)]
mod testing;
pub mod values;
