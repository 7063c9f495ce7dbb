//! What fuzzing throws bytes at: every parser of what others may have written, one target per format. A target panics if a parser does, or breaks
//! what it promises: that what it takes is written back as it was, that it gives only what was put.
//!
//! What is sealed is reached in two ways: the bytes as they are, as somebody without a key would change them, and the bytes sealed with the right key
//! ([`forge`]), as somebody would who has it.

mod control;
mod databases;
mod forge;
mod local;
mod objects;
mod packs;
pub mod program;
pub mod seeds;
mod slots;
mod trees;
mod vaults;
mod view;
mod words;

/// A parser, or several of one format.
pub struct Target {
    /// Its name, that of its folder in `corpus/`, and of its row in `docs/testing.md`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "block", run: objects::block },
    Target { name: "catalog", run: databases::catalog },
    Target { name: "config", run: slots::config },
    Target { name: "control", run: control::question },
    Target { name: "directory", run: packs::directory },
    Target { name: "generation", run: objects::generation },
    Target { name: "header", run: objects::header },
    Target { name: "hold", run: objects::hold },
    Target { name: "index", run: packs::index },
    Target { name: "ledger", run: databases::ledger },
    Target { name: "list", run: trees::list },
    Target { name: "listing", run: vaults::listing },
    Target { name: "machine", run: slots::machine },
    Target { name: "names", run: vaults::names },
    Target { name: "pack", run: packs::pack },
    Target { name: "page", run: trees::page },
    Target { name: "point", run: objects::point },
    Target { name: "revocation", run: objects::revocation },
    Target { name: "session", run: objects::session },
    Target { name: "settings", run: local::settings },
    Target { name: "sheet", run: slots::sheet },
    Target { name: "slot", run: slots::slot },
    Target { name: "spec", run: words::spec },
    Target { name: "toml", run: words::toml },
    Target { name: "tree", run: trees::tree },
    Target { name: "view", run: view::view },
    Target { name: "witness", run: local::witness },
    Target { name: "words", run: words::words },
];
