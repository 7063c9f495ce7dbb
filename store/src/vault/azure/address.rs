//! Addresses of vaults in Azure.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::vault::VaultError;

/// Where the two containers `NAME-data` and `NAME-control` are:
///
/// - `azure://ACCOUNT/NAME`: in the public cloud, `https://ACCOUNT.blob.core.windows.net/`;
/// - `azure+https://HOST/ACCOUNT/NAME`, `azure+http://HOST:PORT/ACCOUNT/NAME`: at an endpoint with the account in its path, as emulators have it;
/// - `azure+https://ACCOUNT.HOST/NAME`: at an endpoint with the account in its host name, as other clouds have it.
#[derive(Clone, PartialEq, Eq)]
pub struct AzureAddress {
    written: String,
    endpoint: Url,
    account: String,
    name: String,
}

/// Longest name of a container, and what is left of it before `-control`.
const CONTAINER_LEN_MAX: usize = 63;
const NAME_LEN_MAX: usize = CONTAINER_LEN_MAX - "-control".len();

impl AzureAddress {
    /// Whether a scheme is one of ours.
    pub(in crate::vault) fn knows(scheme: &str) -> bool {
        scheme == "azure" || scheme.starts_with("azure+")
    }

    /// The storage account.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The endpoint, ending at a `/`.
    pub(super) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Name of one of the two containers.
    pub(super) fn container(&self, control: bool) -> String {
        format!("{}-{}", self.name, if control { "control" } else { "data" })
    }
}

impl FromStr for AzureAddress {
    type Err = VaultError;

    fn from_str(text: &str) -> Result<Self, VaultError> {
        let bad = || {
            VaultError::invalid(
                "an Azure address is azure://ACCOUNT/NAME, azure+https://HOST/ACCOUNT/NAME or azure+http://HOST:PORT/ACCOUNT/NAME",
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        if rest.contains(['@', '?', '#']) {
            return Err(VaultError::invalid("the address of a vault has no credentials, ? or # in it"));
        }
        let (place, name) = rest.rsplit_once('/').ok_or_else(bad)?;
        let (base, account) = match (scheme, place.split_once('/')) {
            ("azure", None) => (format!("https://{place}.blob.core.windows.net/"), place),
            ("azure+https", None) => {
                (format!("https://{place}/"), place.split('.').next().unwrap_or_default())
            }
            ("azure+https", Some((host, account))) => (format!("https://{host}/{account}/"), account),
            ("azure+http", Some((host, account))) => (format!("http://{host}/{account}/"), account),
            _ => return Err(bad()),
        };
        if !is_account(account) {
            return Err(VaultError::invalid("the name of a storage account is 3 to 24 of a-z 0-9"));
        }
        if !is_name(name) {
            return Err(VaultError::invalid(format!(
                "the name of a vault in Azure is 1 to {NAME_LEN_MAX} of a-z 0-9 and single hyphens between them"
            )));
        }
        let endpoint = Url::parse(&base).map_err(|_| bad())?;
        Ok(Self { written: text.into(), endpoint, account: account.into(), name: name.into() })
    }
}

fn is_account(text: &str) -> bool {
    (3..=24).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn is_name(text: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= NAME_LEN_MAX && text.split('-').all(part)
}

impl fmt::Display for AzureAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for AzureAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.written)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_form_leads_to_its_endpoint() {
        for (text, endpoint, account) in [
            ("azure://account1/b-1", "https://account1.blob.core.windows.net/", "account1"),
            (
                "azure+https://account1.blob.core.usgovcloudapi.net/b-1",
                "https://account1.blob.core.usgovcloudapi.net/",
                "account1",
            ),
            (
                "azure+http://127.0.0.1:10000/devstoreaccount1/b-1",
                "http://127.0.0.1:10000/devstoreaccount1/",
                "devstoreaccount1",
            ),
            ("azure+https://[::1]:1/acc/b-1", "https://[::1]:1/acc/", "acc"),
        ] {
            let address: AzureAddress = text.parse().unwrap();
            assert_eq!((address.endpoint().as_str(), address.account()), (endpoint, account));
            assert_eq!(
                (address.container(false), address.container(true)),
                ("b-1-data".into(), "b-1-control".into())
            );
        }
    }
}
