//! A vault in Azure Blob Storage, by Microsoft's SDK, whose words stay in this file and its folder.
//!
//! Two containers, because writers need no right to create in the second (`docs/format.md`, section 2). Each
//! method is one request as far as the service lets it be. Against the SDK's defaults:
//!
//! - an object goes up as one `Put Blob` with `If-None-Match: *` and a checksum, never in blocks, so that it is
//!   there whole or not at all;
//! - ranges are read by `download_into` with one part, never by `download`, which fills a short answer with zeros;
//! - the HTTP client is ours: no limit on the whole request (slow uplinks finish), no redirects, no decompression;
//! - what it takes of an answer is bounded, by that client: the SDK collects whatever comes;
//! - it does not retry: `transfer` does, and alone knows what a retry may mean.

use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::{ClientMethodOptions, ClientOptions, Context, Etag, RetryOptions, Transport};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientDownloadOptions, BlobContainerClientListBlobsOptions, BlobItem,
    BlockBlobClientUploadOptions,
};
use azure_storage_blob::{
    BlobClient, BlobContainerClient, BlobContainerClientOptions, BlobServiceClient, BlobServiceClientOptions,
};
use bytes::Bytes;
use futures::TryStreamExt;
use url::{Host, Url};

mod address;
mod auth;
mod error;
mod keeping;
mod paced;
mod policy;
mod rights;
pub mod testing;
mod transport;

pub use address::AzureAddress;
pub use auth::AzureCredential;

use super::address::Secret;
use super::keeper::{Keeper, Lock, LockTerms};
use super::{ListPage, ObjectInfo, ObjectName, PutNew, Vault, VaultError};
use crate::pace::Pacer;
use auth::Access;
use error::{Refusal, error};
use keeping::{ServiceTime, Watch};
use transport::Bounded;

/// The newest version of the service that the emulator knows, too.
const SERVICE_VERSION: &str = "2025-11-05";
/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// How long nothing may come of an answer to a read. A way that was cut for a while often leaves its connections dead: the
/// next try, on a new one, finds out whether it is back.
const STALLED_MAX: Duration = Duration::from_secs(10);
/// How long the other side may leave sent bytes unacknowledged: a dead way is noticed in the middle of a body that may take an hour.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);
/// Ranges above this are read only after the object's length was asked for, so that memory is not taken on anybody's word.
const UNCHECKED_RANGE_MAX: u64 = 64 << 20;
/// In the head of each answer that tells of a blob.
const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
/// Marks of pages in listings of both containers.
const CONTROL_PAGE: &str = "control:";
const DATA_PAGE: &str = "data:";

/// Objects as blobs in two containers.
pub struct AzureVault {
    address: AzureAddress,
    data: BlobContainerClient,
    control: BlobContainerClient,
    /// The first container, by the way that is given up when it stalls. What is sent may take long before it is answered.
    reading: BlobContainerClient,
    /// What is asked of the account and not of a container.
    service: BlobServiceClient,
    page_len: Option<i32>,
    /// How what stays is locked when it is put.
    lock: Option<LockTerms>,
    /// When the service answered last.
    seen: Arc<ServiceTime>,
}

impl AzureVault {
    /// The vault at `address`. Nothing is asked of the service yet.
    ///
    /// # Errors
    /// `Invalid` or `Denied` if the credential makes no sense.
    pub fn new(address: &AzureAddress, credential: &AzureCredential) -> Result<Self, VaultError> {
        let access = Access::new(address, credential)?;
        let vault = Self::over(address, &access, &http_client(&access.endpoint, None)?)?;
        let http = http_client(&access.endpoint, Some(STALLED_MAX))?;
        Ok(Self { reading: container(address, &access, (&http, &vault.seen), false)?, ..vault })
    }

    /// The same, by one way for everything.
    fn over(address: &AzureAddress, access: &Access, http: &Arc<Bounded>) -> Result<Self, VaultError> {
        let seen = Arc::default();
        let of = |control| container(address, access, (http, &seen), control);
        Ok(Self {
            address: address.clone(),
            data: of(false)?,
            control: of(true)?,
            reading: of(false)?,
            service: service(address, access, (http, &seen))?,
            page_len: None,
            lock: None,
            seen,
        })
    }

    /// The same, listing at most `page_len` objects at a time instead of as many as the service gives.
    pub fn with_page_len(mut self, page_len: u16) -> Self {
        self.page_len = Some(i32::from(page_len.max(1)));
        self
    }

    /// The same, locking what stays when it is put.
    pub fn with_lock(mut self, terms: Option<LockTerms>) -> Self {
        self.lock = terms;
        self
    }

    fn container_of(&self, control: bool) -> &BlobContainerClient {
        if control { &self.control } else { &self.data }
    }

    fn blob(&self, name: &ObjectName) -> BlobClient {
        self.container_of(name.is_control()).blob_client(name.as_str())
    }

    async fn prepare_container(&self, control: bool) -> Result<(), VaultError> {
        let client = self.container_of(control);
        let Err(e) = client.create(None).await else { return Ok(()) };
        if Refusal::of(&e).is_some_and(|r| r.code == "ContainerAlreadyExists") {
            return Ok(());
        }
        let error = error(&e, &self.address.container(control));
        if matches!(error, VaultError::Denied { .. }) {
            // Whoever may not make containers may have been given them.
            return self.list_container(control, "hb/", None).await.map(drop).map_err(|_| error);
        }
        Err(error)
    }

    async fn list_container(
        &self,
        control: bool,
        prefix: &str,
        marker: Option<&str>,
    ) -> Result<ListPage, VaultError> {
        let options = BlobContainerClientListBlobsOptions {
            prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            marker: marker.filter(|marker| !marker.is_empty()).map(str::to_owned),
            maxresults: self.page_len,
            ..Default::default()
        };
        let what = self.address.container(control);
        let failed = |e| error(&e, &what);
        let mut pages = self.container_of(control).list_blobs(Some(options)).map_err(failed)?.into_pages();
        let Some(page) = pages.try_next().await.map_err(failed)? else { return Ok(ListPage::default()) };
        let page = page.into_model().map_err(failed)?;
        // Whatever has a root reads as a listing of nothing: the page of a captive portal, say.
        if page.container_name.as_deref() != Some(what.as_str()) {
            let detail = format!("what was asked for is a listing of {what}, and this is none");
            return Err(VaultError::WrongAnswer { detail });
        }
        let objects = page
            .blob_items
            .into_iter()
            .filter_map(object)
            .filter(|object| object.name.is_control() == control);
        Ok(ListPage {
            objects: objects.collect(),
            next: page.next_marker.filter(|marker| !marker.is_empty()),
        })
    }

    /// Reads a range that is not empty.
    async fn read(&self, name: &ObjectName, range: &Range<u64>) -> Result<Bytes, VaultError> {
        let container = if name.is_control() { &self.control } else { &self.reading };
        self.read_from(&container.blob_client(name.as_str()), name, range).await
    }

    async fn read_from(
        &self,
        blob: &BlobClient,
        name: &ObjectName,
        range: &Range<u64>,
    ) -> Result<Bytes, VaultError> {
        let too_large = || VaultError::invalid(format!("the range of {name} does not fit in memory"));
        let len = usize::try_from(range.end - range.start).map_err(|_| too_large())?;
        let mut bytes = vec![0; len];
        let options = BlobClientDownloadOptions {
            range: Some(range.clone().into()),
            parallel: NonZero::new(1),
            partition_size: NonZero::new(len),
            ..Default::default()
        };
        let read = blob.download_into(&mut bytes, Some(options)).await;
        let read = read.map_err(|e| error(&e, name.as_str()))?;
        if read.len == len {
            return Ok(bytes.into());
        }
        let said =
            read.headers.get_optional_str(&HeaderName::from_static("content-range")).unwrap_or_default();
        // Without a range in the answer the SDK has asked for all of an empty object.
        match said.rsplit_once('/').map_or(Ok(read.len as u64), |(_, total)| total.parse()) {
            Ok(total) if total < range.end => Err(VaultError::too_short(name, total, range)),
            _ => Err(VaultError::WrongAnswer {
                detail: format!("{} bytes of {name} instead of {len}", read.len),
            }),
        }
    }

    async fn put(
        &self,
        name: &ObjectName,
        body: Bytes,
        context: Context<'static>,
    ) -> Result<PutNew, VaultError> {
        let options = BlockBlobClientUploadOptions {
            parallel: NonZero::new(1),
            partition_size: NonZero::new((body.len() as u64).max(1)),
            method_options: ClientMethodOptions { context },
            ..Default::default()
        };
        let options = self.lock_put(name, options)?;
        let put = self.blob(name).upload(body.into(), Some(options.if_not_exists())).await;
        match put {
            Ok(_) => Ok(PutNew::Created),
            Err(e) if Refusal::of(&e).is_some_and(|r| r.is_already_there()) => Ok(PutNew::AlreadyThere),
            Err(e) => {
                let put = self.is_there_though_denied(name, error(&e, name.as_str())).await;
                put.map_err(|e| self.with_lock_named(name, e))
            }
        }
    }

    /// A signature that may create but not replace is told of an object that exists in more than one way, the emulator's
    /// being that it is not allowed to put at all. So may be who puts where an object is locked.
    async fn is_there_though_denied(
        &self,
        name: &ObjectName,
        error: VaultError,
    ) -> Result<PutNew, VaultError> {
        match error {
            VaultError::Denied { .. } | VaultError::Locked { .. }
                if matches!(self.stat(name).await, Ok(Some(_))) =>
            {
                Ok(PutNew::AlreadyThere)
            }
            error => Err(error),
        }
    }

    /// Length and entity tag of an object.
    async fn properties(&self, name: &ObjectName) -> Result<Option<(u64, Option<Etag>)>, VaultError> {
        let wrong =
            |e: azure_core::Error| VaultError::WrongAnswer { detail: format!("{name} has no length: {e}") };
        match self.blob(name).get_properties(None).await {
            // A captive portal's page has a length, too.
            Ok(answer) if answer.headers().get_optional_str(&BLOB_TYPE).is_none() => {
                Err(VaultError::WrongAnswer { detail: format!("what answers for {name} is no blob") })
            }
            Ok(answer) => {
                let headers = answer.headers();
                let len = headers.get_as(&HeaderName::from_static("content-length")).map_err(wrong)?;
                Ok(Some((len, headers.get_optional_as(&HeaderName::from_static("etag")).map_err(wrong)?)))
            }
            Err(e) if Refusal::of(&e).is_some_and(|r| r.is_no_object()) => Ok(None),
            Err(e) => Err(error(&e, name.as_str())),
        }
    }

    /// Removes an object, or only the state of it that has this tag.
    async fn remove(&self, name: &ObjectName, tag: Option<Etag>) -> Result<bool, VaultError> {
        let options = BlobClientDeleteOptions { if_match: tag, ..Default::default() };
        match self.blob(name).delete(Some(options)).await {
            Ok(_) => Ok(true),
            Err(e) if Refusal::of(&e).is_some_and(|r| r.is_no_object() || r.is_another()) => Ok(false),
            Err(e) if Refusal::of(&e).is_some_and(|r| r.is_locked()) => {
                // The refusal does not say until when.
                let lock = self.lock_of(name).await.ok().flatten().unwrap_or(Lock::Unknown);
                Err(VaultError::Locked { what: name.to_string(), lock })
            }
            Err(e) => Err(error(&e, name.as_str())),
        }
    }

    async fn check_length(&self, name: &ObjectName, range: &Range<u64>) -> Result<(), VaultError> {
        let len = self.stat(name).await?.ok_or_else(|| VaultError::NotFound { what: name.to_string() })?;
        super::memory::check_range(name, len, range)
    }
}

#[async_trait]
impl Vault for AzureVault {
    fn address(&self) -> String {
        self.address.to_string()
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        self.prepare_container(true).await?;
        self.prepare_container(false).await
    }

    async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError> {
        self.put(name, body, Context::new()).await
    }

    async fn put_paced(
        &self,
        name: &ObjectName,
        body: Bytes,
        pacer: &Arc<Pacer>,
    ) -> Result<PutNew, VaultError> {
        self.put(name, body, Context::new().with_value(Arc::clone(pacer))).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError> {
        let len = range.end.saturating_sub(range.start);
        if len == 0 || len > UNCHECKED_RANGE_MAX {
            self.check_length(name, &range).await?;
        }
        if range.is_empty() { Ok(Bytes::new()) } else { self.read(name, &range).await }
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        Ok(self.properties(name).await?.map(|(len, _)| len))
    }

    async fn list(&self, prefix: &str, from: Option<&str>) -> Result<ListPage, VaultError> {
        if let Some(first) = prefix.split('/').next().filter(|first| !first.is_empty()) {
            let control = ObjectName::new(first).is_some_and(|name| name.is_control());
            return self.list_container(control, prefix, from).await;
        }
        let bad = || VaultError::invalid("no such page of a listing");
        match from.unwrap_or(CONTROL_PAGE) {
            from if from.starts_with(CONTROL_PAGE) => {
                let mut page = self.list_container(true, "", from.strip_prefix(CONTROL_PAGE)).await?;
                page.next = Some(page.next.map_or(DATA_PAGE.into(), |next| format!("{CONTROL_PAGE}{next}")));
                Ok(page)
            }
            from => {
                let marker = from.strip_prefix(DATA_PAGE).ok_or_else(bad)?;
                let mut page = self.list_container(false, "", Some(marker)).await?;
                page.next = page.next.map(|next| format!("{DATA_PAGE}{next}"));
                Ok(page)
            }
        }
    }

    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        self.remove(name, None).await
    }

    async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError> {
        // The tag is older than the bytes that are compared: whatever comes between has another one.
        let Some((len, tag)) = self.properties(name).await? else { return Ok(false) };
        if len != bytes.len() as u64 || self.get_range(name, 0..len).await? != *bytes {
            return Ok(false);
        }
        let no_tag = || VaultError::WrongAnswer { detail: format!("{name} has no entity tag") };
        self.remove(name, Some(tag.ok_or_else(no_tag)?)).await
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        Some(self)
    }
}

impl fmt::Debug for AzureVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureVault").field("address", &self.address).finish_non_exhaustive()
    }
}

fn container(
    address: &AzureAddress,
    access: &Access,
    by: (&Arc<Bounded>, &Arc<ServiceTime>),
    control: bool,
) -> Result<BlobContainerClient, VaultError> {
    let sas = if control { &access.sas_control } else { &access.sas_data };
    let mut url = access.endpoint.clone();
    url.set_path(&format!("{}{}", url.path(), address.container(control)));
    url.set_query(sas.as_ref().map(Secret::reveal).map(|sas| sas.trim_start_matches('?')));
    let options =
        BlobContainerClientOptions { client_options: options(access, by), version: SERVICE_VERSION.into() };
    BlobContainerClient::new(url, access.token.clone(), Some(options))
        .map_err(|_| VaultError::invalid(format!("no client can be made for {address}")))
}

fn service(
    address: &AzureAddress,
    access: &Access,
    by: (&Arc<Bounded>, &Arc<ServiceTime>),
) -> Result<BlobServiceClient, VaultError> {
    let mut url = access.endpoint.clone();
    url.set_query(access.sas_data.as_ref().map(Secret::reveal).map(|sas| sas.trim_start_matches('?')));
    let options =
        BlobServiceClientOptions { client_options: options(access, by), version: SERVICE_VERSION.into() };
    BlobServiceClient::new(url, access.token.clone(), Some(options))
        .map_err(|_| VaultError::invalid(format!("no client can be made for {address}")))
}

fn options(access: &Access, (http, seen): (&Arc<Bounded>, &Arc<ServiceTime>)) -> ClientOptions {
    let mut per_try: Vec<Arc<dyn azure_core::http::policies::Policy>> =
        vec![Arc::new(Watch(Arc::clone(seen))), Arc::new(policy::Checksum), Arc::new(policy::RangeCheck)];
    per_try.extend(access.signer.clone());
    per_try.push(Arc::new(paced::Paced));
    ClientOptions {
        per_try_policies: per_try,
        retry: RetryOptions::none(),
        transport: Some(Transport::new(http.clone())),
        ..Default::default()
    }
}

fn http_client(endpoint: &Url, stalled_max: Option<Duration>) -> Result<Arc<Bounded>, VaultError> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd();
    if let Some(stalled_max) = stalled_max {
        builder = builder.read_timeout(stalled_max);
    }
    if is_this_machine(endpoint) {
        builder = builder.no_proxy();
    }
    let http =
        builder.build().map_err(|e| VaultError::invalid(format!("no HTTP client can be made: {e}")))?;
    Ok(Arc::new(Bounded(Arc::new(http))))
}

fn is_this_machine(endpoint: &Url) -> bool {
    match endpoint.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// An object of ours; blobs of other names, and the directory marks of hierarchical accounts, are somebody else's.
fn object(item: BlobItem) -> Option<ObjectInfo> {
    let properties = item.properties?;
    let put_at = properties.last_modified.map(|at| at.unix_timestamp());
    Some(ObjectInfo { name: ObjectName::new(item.name?)?, len: properties.content_length?, put_at })
}
