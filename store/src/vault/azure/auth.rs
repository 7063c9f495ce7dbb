//! How requests to Azure prove who sends them.
//!
//! The SDK knows only Entra tokens; shared access signatures go into the URL, and shared keys are signed here
//! ("Authorize with Shared Key", Microsoft's REST reference for Storage). No secret is ever in a `Debug` output or an error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{ClientOptions, Context, Request, Transport};
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use url::Url;
use zeroize::Zeroizing;

use super::address::AzureAddress;
use crate::clock::{Clock, SystemClock};
use crate::vault::VaultError;
use crate::vault::address::Secret;

/// What lets a vault in Azure be used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AzureCredential {
    /// A key of the storage account, in base64 as the portal shows it.
    SharedKey(Secret),
    /// A shared access signature of the account, with or without a `?` at its front.
    Sas(Secret),
    /// One shared access signature for each container: so a writer can be kept from writing to the second.
    SasPair {
        /// For `NAME-data`.
        data: Secret,
        /// For `NAME-control`.
        control: Secret,
    },
    /// A connection string of the account, with a key or a signature in it.
    ConnectionString(Secret),
    /// An application with a client secret.
    ClientSecret {
        /// The tenant's id.
        tenant: String,
        /// The application's id.
        client: String,
        /// Its secret.
        secret: Secret,
    },
    /// The identity of the virtual machine or service this runs on; of several, the one with this client id.
    ManagedIdentity {
        /// Client id of a user-assigned identity.
        client: Option<String>,
    },
    /// The identity of a Kubernetes workload.
    WorkloadIdentity {
        /// The tenant's id.
        tenant: String,
        /// The application's id.
        client: String,
        /// Where the service account's token lies.
        token_file: PathBuf,
    },
    /// Whoever is logged in to the `az` command.
    AzureCli,
}

/// A credential made ready for the two containers.
pub(super) struct Access {
    pub(super) endpoint: Url,
    pub(super) sas_data: Option<Secret>,
    pub(super) sas_control: Option<Secret>,
    pub(super) token: Option<Arc<dyn TokenCredential>>,
    pub(super) signer: Option<Arc<dyn Policy>>,
}

impl Access {
    pub(super) fn new(address: &AzureAddress, credential: &AzureCredential) -> Result<Self, VaultError> {
        let mut access = Self {
            endpoint: address.endpoint().clone(),
            sas_data: None,
            sas_control: None,
            token: None,
            signer: None,
        };
        match credential {
            AzureCredential::SharedKey(key) => access.sign_with(address, key)?,
            AzureCredential::Sas(sas) => access.use_sas(sas, sas),
            AzureCredential::SasPair { data, control } => access.use_sas(data, control),
            AzureCredential::ConnectionString(text) => access.use_connection_string(address, text)?,
            entra => {
                if access.endpoint.scheme() != "https" {
                    return Err(VaultError::invalid("Entra identities are used over https only"));
                }
                let http = super::http_client(&access.endpoint, None)?;
                let by = ClientOptions { transport: Some(Transport::new(http)), ..Default::default() };
                access.token = Some(token_credential(entra, by).map_err(|e| denied(&e))?);
            }
        }
        Ok(access)
    }

    fn sign_with(&mut self, address: &AzureAddress, key: &Secret) -> Result<(), VaultError> {
        self.signer = Some(Arc::new(SharedKeySigner::new(address.account(), key)?));
        Ok(())
    }

    fn use_sas(&mut self, data: &Secret, control: &Secret) {
        (self.sas_data, self.sas_control) = (Some(data.clone()), Some(control.clone()));
    }

    fn use_connection_string(&mut self, address: &AzureAddress, text: &Secret) -> Result<(), VaultError> {
        let field = |name: &str| connection_field(text, name);
        if field("AccountName").is_some_and(|account| account != address.account()) {
            return Err(VaultError::invalid(format!(
                "the connection string is not for account {}",
                address.account()
            )));
        }
        if let Some(endpoint) = field("BlobEndpoint") {
            let with_slash = format!("{}/", endpoint.trim_end_matches('/'));
            self.endpoint = Url::parse(&with_slash)
                .map_err(|_| VaultError::invalid("BlobEndpoint of the connection string is no URL"))?;
        }
        match (field("AccountKey"), field("SharedAccessSignature")) {
            (Some(key), _) => self.sign_with(address, &Secret::new(key)),
            (None, Some(sas)) => {
                let sas = Secret::new(sas);
                self.use_sas(&sas, &sas);
                Ok(())
            }
            (None, None) => Err(VaultError::invalid(
                "the connection string has neither AccountKey nor SharedAccessSignature",
            )),
        }
    }
}

/// A part of a connection string.
pub(super) fn connection_field<'a>(text: &'a Secret, name: &str) -> Option<&'a str> {
    let mut pairs = text.reveal().split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// An identity whose tokens are asked for by our HTTP client.
fn token_credential(
    credential: &AzureCredential,
    client_options: ClientOptions,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    Ok(match credential {
        AzureCredential::ClientSecret { tenant, client, secret } => {
            let options = ClientSecretCredentialOptions { client_options };
            ClientSecretCredential::new(
                tenant,
                client.clone(),
                secret.reveal().to_owned().into(),
                Some(options),
            )?
        }
        AzureCredential::ManagedIdentity { client } => {
            ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                user_assigned_id: client.clone().map(UserAssignedId::ClientId),
                client_options,
            }))?
        }
        AzureCredential::WorkloadIdentity { tenant, client, token_file } => {
            WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                tenant_id: Some(tenant.clone()),
                client_id: Some(client.clone()),
                token_file_path: Some(token_file.clone()),
                credential_options: ClientAssertionCredentialOptions { client_options },
            }))?
        }
        _ => AzureCliCredential::new(None)?,
    })
}

fn denied(e: &azure_core::Error) -> VaultError {
    VaultError::Denied { detail: format!("this identity cannot be used: {e}") }
}

/// Signs each try of a request with the account's key. Must be the last policy that changes anything.
struct SharedKeySigner {
    account: String,
    key: Zeroizing<Vec<u8>>,
}

impl SharedKeySigner {
    fn new(account: &str, key: &Secret) -> Result<Self, VaultError> {
        let key =
            BASE64.decode(key.reveal()).map_err(|_| VaultError::invalid("the account key is not base64"))?;
        Ok(Self { account: account.into(), key: Zeroizing::new(key) })
    }

    fn signature(&self, text: &str) -> azure_core::Result<String> {
        let bad_key =
            |_| azure_core::Error::with_message(azure_core::error::ErrorKind::Credential, "unusable key");
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(bad_key)?;
        mac.update(text.as_bytes());
        Ok(BASE64.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SharedKeySigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKeySigner").field("account", &self.account).finish_non_exhaustive()
    }
}

#[async_trait]
impl Policy for SharedKeySigner {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", http_date(SystemClock.now().seconds)?);
        let text = string_to_sign(&self.account, request);
        request
            .insert_header("authorization", format!("SharedKey {}:{}", self.account, self.signature(&text)?));
        super::policy::pass_on(ctx, request, next).await
    }
}

fn http_date(seconds: i64) -> azure_core::Result<String> {
    let out_of_range = |e| azure_core::Error::new(azure_core::error::ErrorKind::DataConversion, e);
    let time = jiff::Timestamp::from_second(seconds).map_err(out_of_range)?;
    Ok(time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

/// The text whose keyed hash authorizes a request, for service versions from 2015-02-21.
fn string_to_sign(account: &str, request: &Request) -> String {
    const SIGNED: [&str; 11] = [
        "content-encoding",
        "content-language",
        "content-length",
        "content-md5",
        "content-type",
        "date",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ];
    let mut text = format!("{}\n", request.method());
    for name in SIGNED {
        let value = request.headers().get_optional_str(&HeaderName::from_static(name)).unwrap_or_default();
        // An empty body is signed as if its length were not said.
        text += if name == "content-length" && value == "0" { "" } else { value };
        text.push('\n');
    }
    text + &canonical_headers(request.headers()) + &canonical_resource(account, request.url())
}

fn canonical_headers(headers: &Headers) -> String {
    let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_str().trim()));
    // In the order of names, which is not that of the lines: `x-ms-range:` comes before `x-ms-range-get:`.
    let ours: BTreeMap<_, _> = all.filter(|(name, _)| name.starts_with("x-ms-")).collect();
    ours.into_iter().map(|(name, value)| format!("{name}:{value}\n")).collect()
}

fn canonical_resource(account: &str, url: &Url) -> String {
    let mut pairs: Vec<_> = url.query_pairs().map(|(name, value)| (name.to_lowercase(), value)).collect();
    pairs.sort();
    let query: String = pairs.into_iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
    format!("/{account}{}{query}", url.path())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use azure_core::http::Method;

    const KEY: &str = "a2V5IG9mIG5vIGFjY291bnQ=";

    fn address() -> AzureAddress {
        "azure+http://127.0.0.1:10000/account1/b".parse().unwrap()
    }

    #[test]
    fn the_signed_text_has_every_field_in_its_place() {
        let url = "http://127.0.0.1:1/acc/b-data/a%2Fb?restype=container&Comp=list".parse().unwrap();
        let mut request = Request::new(url, Method::Put);
        request.insert_header("content-length", "0");
        request.insert_header("x-ms-version", "2025-11-05");
        request.insert_header("x-ms-date", "Sat, 21 Nov 2026 00:00:00 GMT");
        request.insert_header("x-ms-date-of-nothing", "1");
        request.insert_header("if-none-match", "*");
        assert_eq!(
            string_to_sign("acc", &request),
            "PUT\n\n\n\n\n\n\n\n\n*\n\n\nx-ms-date:Sat, 21 Nov 2026 00:00:00 GMT\nx-ms-date-of-nothing:1\nx-ms-version:2025-11-05\n\
             /acc/acc/b-data/a%2Fb\ncomp:list\nrestype:container"
        );
    }

    #[test]
    fn dates_are_written_as_http_wants_them() {
        assert_eq!(http_date(0).unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(1_795_219_200).unwrap(), "Sat, 21 Nov 2026 00:00:00 GMT");
    }

    #[test]
    fn a_signature_is_the_keyed_hash_in_base64() {
        // RFC 4231, test case 2.
        let signer = SharedKeySigner::new("a", &Secret::new(BASE64.encode("Jefe"))).unwrap();
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(
            signer.signature("what do ya want for nothing?").unwrap(),
            BASE64.encode(crate::id::from_hex(wanted).unwrap())
        );
    }

    #[test]
    fn connection_strings_give_key_signature_and_endpoint() {
        let with =
            |text: &str| Access::new(&address(), &AzureCredential::ConnectionString(Secret::new(text)));
        let access =
            with(&format!("AccountName=account1;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:9/account1;"))
                .unwrap();
        assert_eq!(access.endpoint.as_str(), "http://127.0.0.1:9/account1/");
        assert!(access.signer.is_some());
        let access = with("SharedAccessSignature=sv=1&sig=abc").unwrap();
        assert_eq!(access.sas_data, Some(Secret::new("sv=1&sig=abc")));
        for bad in ["", "AccountName=other;AccountKey=a2V5", "AccountKey=!geheim!", "AccountName=account1"] {
            let error = with(bad).err().unwrap();
            assert!(matches!(error, VaultError::Invalid { .. }), "{bad}");
            assert!(!error.to_string().contains("geheim"));
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let signer = SharedKeySigner::new("account1", &Secret::new(KEY)).unwrap();
        let credential = AzureCredential::ClientSecret {
            tenant: "t".into(),
            client: "c".into(),
            secret: Secret::new("geheim"),
        };
        let shown =
            format!("{signer:?} {credential:?} {:?}", AzureCredential::Sas(Secret::new("sig=geheim")));
        assert!(!shown.contains("geheim") && !shown.contains(KEY) && !shown.contains("107"), "{shown}");
    }

    #[test]
    fn every_identity_of_entra_can_be_set_up_without_asking_anybody() {
        let (tenant, client) = ("t".to_owned(), "c".to_owned());
        let token = tempfile::NamedTempFile::new().unwrap();
        for credential in [
            AzureCredential::ClientSecret {
                tenant: tenant.clone(),
                client: client.clone(),
                secret: Secret::new("s"),
            },
            AzureCredential::ManagedIdentity { client: None },
            AzureCredential::ManagedIdentity { client: Some(client.clone()) },
            AzureCredential::WorkloadIdentity { tenant, client, token_file: token.path().into() },
            AzureCredential::AzureCli,
        ] {
            let access = Access::new(&"azure://account1/b".parse().unwrap(), &credential).unwrap();
            assert!(access.token.is_some() && access.signer.is_none());
        }
        let bad = AzureCredential::ClientSecret {
            tenant: "?".into(),
            client: "c".into(),
            secret: Secret::new("geheim"),
        };
        let error = Access::new(&"azure://account1/b".parse().unwrap(), &bad).err().unwrap();
        assert!(matches!(error, VaultError::Denied { .. }) && !error.to_string().contains("geheim"));
    }

    #[test]
    fn tokens_are_not_sent_in_the_clear() {
        let managed = AzureCredential::ManagedIdentity { client: None };
        assert!(matches!(Access::new(&address(), &managed), Err(VaultError::Invalid { .. })));
    }
}
