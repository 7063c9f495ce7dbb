//! A vault whose service gives one answer to everything: for tests of this and other crates that throw any answers at the client. None of it is used
//! by the program.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, HttpClient, Request, StatusCode};

use super::transport::Bounded;
use super::{Access, AzureCredential, AzureVault};
use crate::vault::VaultError;
use crate::vault::address::Secret;

/// The container of the vault's data, as a listing of it has to say; that of its control part is beside it.
pub const CONTAINER: &str = "fuzz-data";

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status of HTTP.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// What follows.
    pub body: Vec<u8>,
}

#[async_trait]
impl HttpClient for Answer {
    async fn execute_request(&self, _request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let mut headers = Headers::new();
        self.headers.iter().for_each(|(name, value)| headers.insert(name.clone(), value.clone()));
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(self.status), headers, self.body.clone()))
    }
}

/// A vault to which all is answered so.
///
/// # Errors
/// None, with this address and signature.
pub fn answering(answer: Answer) -> Result<AzureVault, VaultError> {
    let address = "azure://account1/fuzz".parse()?;
    let access = Access::new(&address, &AzureCredential::Sas(Secret::new("sv=1&sig=none")))?;
    AzureVault::over(&address, &access, &Arc::new(Bounded(Arc::new(answer))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vault::Vault;

    #[tokio::test]
    async fn a_listing_that_is_made_by_hand_reads_as_what_it_says() {
        let blob =
            "<Blob><Name>rp/00</Name><Properties><Content-Length>7</Content-Length></Properties></Blob>";
        let body = format!(
            "<?xml version=\"1.0\"?><EnumerationResults ServiceEndpoint=\"https://a/\" ContainerName=\"{CONTAINER}\">\
             <Blobs>{blob}</Blobs><NextMarker/></EnumerationResults>"
        );
        let headers = vec![("content-type".to_owned(), "application/xml".to_owned())];
        let vault = answering(Answer { status: 200, headers, body: body.into() }).unwrap();
        let page = vault.list("rp/", None).await.unwrap();
        assert_eq!((page.objects[0].name.as_str(), page.objects[0].len), ("rp/00", 7));
        assert!(matches!(vault.list("keys/", None).await, Err(VaultError::WrongAnswer { .. })));
    }
}
