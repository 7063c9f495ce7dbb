//! The engine room of Holdfast: what bytes mean, where they lie, and how they are read back.
//!
//! Five floors, each using only those below it (see `docs/architecture.md`):
//!
//! 5. `copy`, `check`, `scrub`, `reclaim`, `regain`: operations over a whole store
//! 4. `store`, `tree`, `point`: recovery points, directories, nodes
//! 3. `reader`, `chunk_store`, `catalog`, `staging`, `index`, `cache`: where a chunk is
//! 2. `pack`, `chunker`, `fence`, `seal`, `padding`, `names`, `format`: what bytes mean (`docs/format.md`)
//! 1. `vault`, `transfer`, `pace`, `clock`, `chance`, `monitor`, `id`, `error`: the outside, named
//!
//! Nothing here knows a schedule, a kernel, a terminal or a walk over source files.

pub mod cache;
pub mod catalog;
pub mod chance;
pub mod check;
pub mod chunk_store;
pub mod chunker;
pub mod clock;
pub mod copy;
pub mod error;
pub mod fence;
pub mod format;
pub mod id;
pub mod index;
pub mod monitor;
pub mod names;
pub mod pace;
pub mod pack;
pub mod padding;
pub mod point;
pub mod reader;
pub mod reclaim;
pub mod regain;
pub mod scrub;
pub mod seal;
pub mod staging;
pub mod store;
pub mod transfer;
pub mod tree;
pub mod vault;

pub use error::{ErrorClass, StoreError};
