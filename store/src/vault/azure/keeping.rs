//! What a storage account keeps: soft delete, versions, and immutability policies of single blobs. Against Microsoft's pages "Soft delete for blobs", "Blob
//! versioning", "Version-level WORM policies for immutable blob data", and of the REST reference "Get Blob Service Properties", "Get Container
//! Properties", "List Blobs", "Undelete Blob" and "Set Blob Immutability Policy".
//!
//! Whether the account keeps versions no request of this API tells; an object that was put since it does has a version id.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use azure_core::time::{OffsetDateTime, parse_rfc7231};
use azure_storage_blob::BlobClient;
use azure_storage_blob::models::{
    BlobClientGetPropertiesResultHeaders, BlobClientSetImmutabilityPolicyOptions,
    BlobContainerClientGetPropertiesResultHeaders, BlobContainerClientListBlobsOptions, BlobItem,
    BlockBlobClientUploadOptions, ImmutabilityPolicyMode, ListBlobsIncludeItem,
};
use bytes::Bytes;
use futures::TryStreamExt;

use super::error::{Refusal, error};
use super::{AzureVault, policy};
use crate::clock::{Clock, SystemClock};
use crate::vault::keeper::{DAY, Former, Keeper, Keeps, Lock, LockTerms, Locked, Page};
use crate::vault::{ObjectName, VaultError};

/// Most pages, of 5,000 each, of what is kept under one name.
const PAGES_MAX: usize = 20;
/// An object that every vault has.
const EVERYWHERE: &str = "config";
/// In the head of an answer about a blob that is a version.
const VERSION_ID: HeaderName = HeaderName::from_static("x-ms-version-id");

/// When the service answered last, by its own clock: a lock that this machine's clock would set may hold for years.
#[derive(Debug, Default)]
pub(super) struct ServiceTime(AtomicI64);

impl ServiceTime {
    /// This machine's clock counts until the service has answered for the first time.
    fn now(&self) -> i64 {
        match self.0.load(Ordering::Relaxed) {
            0 => SystemClock.now().seconds,
            seen => seen,
        }
    }
}

/// Takes note of the time in each answer.
#[derive(Debug)]
pub(super) struct Watch(pub(super) Arc<ServiceTime>);

#[async_trait]
impl Policy for Watch {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let answer = policy::pass_on(ctx, request, next).await?;
        let date = answer.headers().get_optional_str(&HeaderName::from_static("date"));
        if let Some(date) = date.and_then(|date| parse_rfc7231(date).ok())
            && answer.status().is_success()
        {
            self.0.0.store(date.unix_timestamp(), Ordering::Relaxed);
        }
        Ok(answer)
    }
}

impl AzureVault {
    /// What a put of this object has to say so that it is locked.
    pub(super) fn lock_put(
        &self,
        name: &ObjectName,
        options: BlockBlobClientUploadOptions<'static>,
    ) -> Result<BlockBlobClientUploadOptions<'static>, VaultError> {
        let Some(terms) = self.locks(name) else { return Ok(options) };
        Ok(BlockBlobClientUploadOptions {
            immutability_policy_expiry: Some(self.until(terms)?),
            immutability_policy_mode: Some(mode(terms.for_good)),
            ..options
        })
    }

    /// How an object is locked when it is put.
    pub(super) fn locks(&self, name: &ObjectName) -> Option<LockTerms> {
        self.lock.filter(|_| name.is_lasting())
    }

    /// Says of a put that was refused that a lock was asked for, which may be why.
    pub(super) fn with_lock_named(&self, name: &ObjectName, error: VaultError) -> VaultError {
        let Some(terms) = self.locks(name) else { return error };
        let why = |detail: String| {
            let container = self.address.container(false);
            format!(
                "{detail}; it was to be locked for {} days, for which {container} needs version-level immutability and the credential the right to set \
                 immutability policies",
                terms.days
            )
        };
        match error {
            VaultError::Invalid { detail } => VaultError::Invalid { detail: why(detail) },
            VaultError::Denied { detail } => VaultError::Denied { detail: why(detail) },
            error => error,
        }
    }

    fn until(&self, terms: LockTerms) -> Result<OffsetDateTime, VaultError> {
        let until = self.seen.now().saturating_add(i64::from(terms.days) * DAY);
        OffsetDateTime::from_unix_timestamp(until)
            .map_err(|_| VaultError::invalid("the clock shows no time that a lock can be reckoned from"))
    }

    async fn page_of(
        &self,
        prefix: &str,
        from: Option<&str>,
        include: &[ListBlobsIncludeItem],
    ) -> Result<Page<BlobItem>, VaultError> {
        let control =
            prefix.split('/').next().and_then(ObjectName::new).is_some_and(|name| name.is_control());
        let what = self.address.container(control);
        let options = BlobContainerClientListBlobsOptions {
            include: Some(include.to_vec()),
            prefix: Some(prefix.to_owned()),
            marker: from.map(str::to_owned),
            maxresults: self.page_len,
            ..Default::default()
        };
        let failed = |e| error(&e, &what);
        let mut pages = self.container_of(control).list_blobs(Some(options)).map_err(failed)?.into_pages();
        let none = || VaultError::WrongAnswer { detail: format!("no page of a listing of {what}") };
        let page = pages.try_next().await.map_err(failed)?.ok_or_else(none)?;
        let page = page.into_model().map_err(failed)?;
        if page.container_name.as_deref() != Some(what.as_str()) {
            return Err(none());
        }
        Ok(Page { items: page.blob_items, next: page.next_marker.filter(|next| !next.is_empty()) })
    }

    /// Everything that is kept under a name, what is there now with it.
    async fn all_of(&self, name: &ObjectName) -> Result<Vec<BlobItem>, VaultError> {
        let (mut all, mut from) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let page = self.page_of(name.as_str(), from.as_deref(), &kept_too()).await?;
            all.extend(page.items.into_iter().filter(|item| item.name.as_deref() == Some(name.as_str())));
            if page.next.is_none() || page.next == from {
                break;
            }
            from = page.next;
        }
        // Of more than that those that were listed first are looked at.
        Ok(all)
    }

    fn former_client(&self, name: &ObjectName, former: &Former) -> Result<BlobClient, VaultError> {
        let blob = self.blob(name);
        let client = match former.mark.split_once(':') {
            Some(("v", version)) => blob.with_version(version),
            Some(("s", snapshot)) => blob.with_snapshot(snapshot),
            _ => return Err(VaultError::invalid("no such former object")),
        };
        client.map_err(|e| error(&e, name.as_str()))
    }

    /// What the account says of soft delete. 0 where it says that there is none.
    async fn removed_days(&self) -> Option<u16> {
        let properties = self.service.get_properties(None).await.ok()?.into_model().ok()?;
        // Somebody else's page has nothing of it, either.
        let policy = properties.delete_retention_policy?;
        match policy.enabled? {
            true => u16::try_from(policy.days?).ok(),
            false => Some(0),
        }
    }

    /// Whether an object that every vault has is a version.
    async fn versions(&self) -> Option<bool> {
        let answer = self.blob(&ObjectName::new(EVERYWHERE)?).get_properties(None).await.ok()?;
        answer.headers().get_optional_str(&VERSION_ID).map(|_| true)
    }
}

#[async_trait]
impl Keeper for AzureVault {
    async fn keeps(&self) -> Result<Keeps, VaultError> {
        let data = self.data.get_properties(None).await.ok();
        let locks = data.and_then(|answer| answer.is_immutable_storage_with_versioning_enabled().ok()?);
        let versions = match locks {
            // They need versions.
            Some(true) => Some(true),
            _ => self.versions().await,
        };
        Ok(Keeps { removed_days: self.removed_days().await, versions, locks })
    }

    fn terms(&self) -> Option<LockTerms> {
        self.lock
    }

    async fn lock_of(&self, name: &ObjectName) -> Result<Option<Lock>, VaultError> {
        let answer = match self.blob(name).get_properties(None).await {
            Err(e) if Refusal::of(&e).is_some_and(|r| r.is_no_object()) => return Ok(None),
            answer => answer.map_err(|e| error(&e, name.as_str()))?,
        };
        if answer.legal_hold().ok().flatten() == Some(true) {
            return Ok(Some(Lock::Held));
        }
        let until = answer.immutability_policy_expires_on().ok().flatten();
        let lock = until.map(|until| Lock::Until(until.unix_timestamp()));
        Ok(lock.filter(|lock| lock.holds_at(self.seen.now())))
    }

    async fn locked(&self, prefix: &str, from: Option<&str>) -> Result<Page<Locked>, VaultError> {
        let include = [ListBlobsIncludeItem::ImmutabilityPolicy, ListBlobsIncludeItem::LegalHold];
        let page = self.page_of(prefix, from, &include).await?;
        Ok(Page { items: page.items.into_iter().filter_map(locked).collect(), next: page.next })
    }

    async fn lock(&self, name: &ObjectName, for_good: bool) -> Result<(), VaultError> {
        let Some(terms) = self.lock else { return Ok(()) };
        let options = BlobClientSetImmutabilityPolicyOptions {
            immutability_policy_mode: Some(mode(for_good || terms.for_good)),
            ..Default::default()
        };
        let set = self.blob(name).set_immutability_policy(&self.until(terms)?, Some(options)).await;
        set.map(drop).map_err(|e| self.with_lock_named(name, error(&e, name.as_str())))
    }

    async fn kept(&self, prefix: &str, from: Option<&str>) -> Result<Page<ObjectName>, VaultError> {
        let page = self.page_of(prefix, from, &kept_too()).await?;
        let is_former = |item: &BlobItem| item.deleted == Some(true) || mark(item).is_some();
        let names = page.items.into_iter().filter(is_former).filter_map(|item| ObjectName::new(item.name?));
        Ok(Page { items: names.collect(), next: page.next })
    }

    async fn formers(&self, name: &ObjectName) -> Result<Vec<Former>, VaultError> {
        let mut all = self.all_of(name).await?;
        if all.iter().any(|item| item.deleted == Some(true)) {
            match self.blob(name).undelete(None).await.map_err(|e| error(&e, name.as_str())) {
                Ok(_) => all = self.all_of(name).await?,
                // What was not removed as well can be read all the same.
                Err(VaultError::Denied { .. }) if all.iter().any(|item| item.deleted != Some(true)) => {}
                Err(e) => return Err(e),
            }
        }
        all.retain(|item| item.deleted != Some(true));
        let mut formers: Vec<Former> = all
            .into_iter()
            .filter_map(|item| Some(Former { mark: mark(&item)?, len: item.properties?.content_length? }))
            .collect();
        // Their names are moments.
        formers.sort_unstable_by(|a, b| a.mark[2..].cmp(&b.mark[2..]));
        Ok(formers)
    }

    async fn get_former(&self, name: &ObjectName, former: &Former) -> Result<Bytes, VaultError> {
        match former.len {
            0 => Ok(Bytes::new()),
            len => self.read_from(&self.former_client(name, former)?, name, &(0..len)).await,
        }
    }
}

fn mode(for_good: bool) -> ImmutabilityPolicyMode {
    if for_good { ImmutabilityPolicyMode::Locked } else { ImmutabilityPolicyMode::Unlocked }
}

/// What a listing is to show besides what is there.
fn kept_too() -> [ListBlobsIncludeItem; 3] {
    [ListBlobsIncludeItem::Deleted, ListBlobsIncludeItem::Snapshots, ListBlobsIncludeItem::Versions]
}

/// How a former is asked for; nothing for what is there now.
fn mark(item: &BlobItem) -> Option<String> {
    let snapshot = item.snapshot.as_ref().filter(|id| !id.is_empty()).map(|id| format!("s:{id}"));
    let version =
        item.version_id.as_ref().filter(|id| !id.is_empty() && item.is_current_version != Some(true));
    snapshot.or_else(|| version.map(|id| format!("v:{id}")))
}

fn locked(item: BlobItem) -> Option<Locked> {
    let (name, properties) = (ObjectName::new(item.name?)?, item.properties?);
    let until = properties.immutability_policy_expires_on.map(|at| Lock::Until(at.unix_timestamp()));
    let lock = if properties.legal_hold == Some(true) { Some(Lock::Held) } else { until }?;
    let for_good = matches!(properties.immutability_policy_mode, Some(ImmutabilityPolicyMode::Locked));
    Some(Locked { name, lock, for_good })
}
