//! What tests of this and other crates break vaults with: a vault that fails by script, an HTTP proxy that spoils
//! answers, and an emulator of Azure. None of it is used by the program.

mod azurite;
mod faulty;
mod http;
mod proxy;

pub use azurite::Azurite;
pub use faulty::{Fault, FaultyVault, Request};
pub use proxy::{HttpFault, HttpProxy};

pub use super::Verb;
