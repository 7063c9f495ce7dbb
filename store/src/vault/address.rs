//! Where a vault is, as people write it, and the way from there to an open vault.
//!
//! An address never holds a secret: it is shown in logs and kept in settings. What opens the vault comes beside
//! it, from whoever may read files and environment.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use url::Url;
use zeroize::Zeroizing;

use super::azure::{AzureAddress, AzureCredential, AzureVault};
use super::directory::DirectoryVault;
use super::keeper::LockTerms;
use super::{Vault, VaultError};

/// The address of a vault: `/absolute/path`, `file:///path`, or a form of [`AzureAddress`]. `Display` gives what `parse` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultAddress {
    /// A directory, by its absolute path.
    Directory(PathBuf),
    /// Two containers of an Azure storage account.
    Azure(AzureAddress),
}

impl FromStr for VaultAddress {
    type Err = VaultError;

    /// # Errors
    /// `Invalid` says why; it does not repeat what might be a secret.
    fn from_str(text: &str) -> Result<Self, VaultError> {
        // First: what begins so is a path whatever comes after, as what `Display` gives may.
        if text.starts_with('/') {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        match text.split_once("://") {
            None => Err(VaultError::invalid("the address of a vault is an absolute path or a URL")),
            Some(("file", _)) => file_path(text).map(Self::Directory),
            Some((scheme, _)) if AzureAddress::knows(scheme) => text.parse().map(Self::Azure),
            Some((scheme, _)) => Err(VaultError::invalid(format!("no kind of vault is called {scheme:?}"))),
        }
    }
}

impl fmt::Display for VaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Azure(address) => address.fmt(f),
        }
    }
}

fn file_path(text: &str) -> Result<PathBuf, VaultError> {
    let url = Url::parse(text).map_err(|e| VaultError::invalid(format!("not a file address: {e}")))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(VaultError::invalid("a file address has neither ? nor #; write them as %3F and %23"));
    }
    let path =
        url.to_file_path().map_err(|()| VaultError::invalid("a file address is file:///absolute/path"))?;
    // An address is kept as text: another path would come back.
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(VaultError::invalid("the path of a file address is not UTF-8")),
    }
}

/// A secret text: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret, for the one place that uses it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What opens vaults, by kind of vault. A directory needs nothing.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// For Azure.
    pub azure: Option<AzureCredential>,
}

/// The vault at an address. Nothing is asked of it yet.
///
/// # Errors
/// `Denied` if the credentials for its kind are missing, `Invalid` if they make no sense.
pub fn open(address: &VaultAddress, credentials: &Credentials) -> Result<Arc<dyn Vault>, VaultError> {
    open_locking(address, credentials, None)
}

/// The same, locking what stays when it is put.
///
/// # Errors
/// `Invalid` if nothing can be locked in a vault of its kind, too.
pub fn open_locking(
    address: &VaultAddress,
    credentials: &Credentials,
    lock: Option<LockTerms>,
) -> Result<Arc<dyn Vault>, VaultError> {
    match address {
        VaultAddress::Directory(_) if lock.is_some() => {
            Err(VaultError::invalid("nothing can be locked in a directory"))
        }
        VaultAddress::Directory(path) => Ok(Arc::new(DirectoryVault::new(path))),
        VaultAddress::Azure(address) => match &credentials.azure {
            Some(credential) => Ok(Arc::new(AzureVault::new(address, credential)?.with_lock(lock))),
            None => Err(VaultError::Denied { detail: format!("no credentials for {address}") }),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in [
            "/mnt/usb/backup",
            "/mnt/a://b",
            "azure://account1/backups",
            "azure+http://127.0.0.1:10000/devstoreaccount1/backups",
            "azure+https://blob.example.org/account1/backups",
        ] {
            assert_eq!(text.parse::<VaultAddress>().unwrap().to_string(), text);
        }
        let file: VaultAddress = "file:///mnt/usb%20disk/b".parse().unwrap();
        assert_eq!(file, VaultAddress::Directory("/mnt/usb disk/b".into()));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_secrets() {
        for text in [
            "",
            "relative/path",
            "file://host/path",
            "file:///path?query",
            "file:///not/utf-8/%ff",
            "s3://bucket",
            "azure://",
            "azure://account1",
            "azure://account1/backups/more",
            "azure://UPPER/backups",
            "azure://account1/Upper",
            "azure://account1/two--hyphens",
            "azure://account1/-first",
            "azure://account1/last-",
            "azure://account1/backups?sv=1&sig=geheim",
            "azure://user:geheim@account1/backups",
            "azure://account1/backups#geheim",
            "azure+http://127.0.0.1:10000/backups/x/y/z",
            "azure+ftp://host/account1/backups",
            &format!("azure://account1/{}", "x".repeat(56)),
        ] {
            let error = text.parse::<VaultAddress>().unwrap_err();
            assert!(matches!(error, VaultError::Invalid { .. }), "{text:?}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_vault_that_needs_credentials_is_denied_without() {
        let address = "azure://account1/backups".parse().unwrap();
        assert!(matches!(open(&address, &Credentials::default()), Err(VaultError::Denied { .. })));
        assert_eq!(open(&"/x".parse().unwrap(), &Credentials::default()).unwrap().address(), "/x");
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("geheim")), "Secret(…)");
    }
}
