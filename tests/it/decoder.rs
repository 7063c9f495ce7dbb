//! A second, independent reader of the store format: written from `docs/format.md` alone, with primitive crates and
//! nothing of the engine. What the engine writes, this must read, and both must say the same of it; where they
//! differ, one of the three (document, engine, decoder) is wrong. It favours plainness over speed and holds a whole
//! store in memory.
#![allow(clippy::unwrap_used)]

mod content;
mod fields;
mod listing;
mod pack;
mod point;
mod seal;
mod slot;
mod store;
mod tree;
mod writer;
mod writing;

mod damage;
mod golden;
mod make;
mod roundtrip;
