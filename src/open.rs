//! Opening a store from the program: which directory, which secret.

use holdfast_store::StoreError;
use holdfast_store::store::Store;

use crate::commands::Context;
use crate::outcome::Failure;

/// Opens the store that the settings name: by this machine's key, else by the passphrase.
pub fn open_store(context: &Context<'_>) -> Result<Store, Failure> {
    let path = context.settings.store()?;
    if !path.is_dir() {
        return Err(StoreError::NoStore { path: path.to_path_buf() }.into());
    }
    Err(Failure::failed("this build cannot open stores yet"))
}
