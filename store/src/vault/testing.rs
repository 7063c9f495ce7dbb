//! What tests of this and other crates break vaults with: a vault that fails by script, an HTTP proxy that spoils
//! answers, an emulator of Azure, and a storage account with what that lacks. None of it is used by the program.

mod account;
mod azurite;
mod faulty;
mod http;
mod listener;
mod proxy;

pub use account::{Features, StorageAccount};
pub use azurite::Azurite;
pub use faulty::{Fault, FaultyVault, Request};
pub use proxy::{HttpFault, HttpProxy};

pub use super::Verb;
