//! The directory: tenants, their plans, exceptions and credentials. Written with history, read
//! through a cache that the gate owns. Begin with [`Gate::directory`](crate::Gate::directory) and
//! [`Directory::tenant`].
//!
//! # Laws
//!
//! 1. Stored keys hold a tenant's [`Surrogate`], never its outer id: erasing a person touches this
//!    directory alone (`erase`), and no outer id can forge the key of another tenant's counters.
//!    Only the list of tenants, which is the directory's too, is in the order of the ids.
//! 2. An outer id has one surrogate until its tenant is erased: the name is claimed first, if it is
//!    free, then it is listed, and the record is made last. A creation that died in between is
//!    completed by the next.
//! 3. A record is written whole and only over the version it was made from, so concurrent changes
//!    do not lose each other.
//! 4. Every change is in the history before it is made; announced changes that never happened are
//!    distinguished by the chain of the records' changes. No entry goes; an erasure takes the texts
//!    out of those before it.
//! 5. A credential is listed before it can be used and revoked before it is listed as revoked: no
//!    working credential is missing from the list.
//! 6. After a lost reply the identical write is repeated, and the item shows the outcome.
//! 7. A change is reported to the gate of this process before it is answered, and announced to the
//!    others (`feed`), which look once a second.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{Clock, unix_ms};
use crate::identity::{CredentialHash, KeyForm, Peppers, Permissions};
use crate::notify::AlertQueue;
use crate::store::layout::Space;
use crate::store::{Item, Key, Page, Query, Store, StoreError, StoreErrorKind};

mod alerts;
mod bought;
mod customers;
mod edit;
mod ensured;
mod eras;
mod erase;
#[cfg(test)]
mod erase_tests;
mod error;
mod feed;
mod given;
mod history;
mod key_reads;
mod key_turns;
mod keys;
mod listing;
#[cfg(test)]
mod listing_tests;
mod made_once;
mod names;
mod new_key;
mod once;
mod operators;
mod record;
mod role;
mod source;
#[cfg(test)]
mod tests;
mod write;

pub use crate::ids::Surrogate;
#[doc(hidden)]
pub use bought::{SoldAddon, Subscribed};
use write::Made;

#[cfg(feature = "stripe")]
pub(crate) use customers::{CUSTOMER_FORMAT, tenant_of};
pub(crate) use edit::check_plan_name;
pub use edit::{Edit, TenantEdit};
#[doc(hidden)]
pub use eras::{EraEdge, SubscriptionSpan};
pub use error::DirectoryError;
pub(crate) use feed::{Feed, FeedLook, FeedPosition, Hears, News, credential_tag, name_tag};
pub use history::{ChangeOutcome, HistoryEntry};
pub use keys::{KeyInfo, KeyState};
pub use new_key::{KeyOptions, NewKey};
pub use operators::Operator;
pub(crate) use record::PackedRecord;
pub use record::{Grant, Override, PaymentState, TenantRecord};
pub use role::Role;
pub use source::{HostTenant, TenantSource};

/// Most keys or history entries read for a list. Counted by item, because pages may be short.
const MAX_LISTED: usize = 100_000;

/// Validation of the names in a change against the catalog.
///
/// A closure from a plan's name to whether it exists will do where nothing else is checked.
pub(crate) trait PlanCheck: Send + Sync + 'static {
    /// Whether there is such a plan.
    fn has_plan(&self, name: &str) -> bool;
    /// Whether there is such a meter.
    fn has_meter(&self, _name: &str) -> bool {
        true
    }
    /// Whether a tenant with this record could spend this grant at `now_ms`, Unix milliseconds; the
    /// error is the reason why not.
    fn can_spend(
        &self,
        _grant: &Grant,
        _record: &TenantRecord,
        _now_ms: i64,
    ) -> Result<(), DirectoryError> {
        Ok(())
    }
    /// Whether this TOML is valid in a `[tenant.x]` table; the error is the reason why not.
    fn changes(&self, _toml: &str) -> Result<(), String> {
        Ok(())
    }
}

impl<F: Fn(&str) -> bool + Send + Sync + 'static> PlanCheck for F {
    fn has_plan(&self, name: &str) -> bool {
        self(name)
    }
}

/// The tenants of one service, to find, create and change.
/// [`Gate::directory`](crate::Gate::directory) returns it. Clones are handles on the same
/// directory.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
    /// Who makes the changes of this handle, for the history.
    actor: Option<Arc<str>>,
}

struct Inner {
    store: Arc<dyn Store>,
    space: Space,
    clock: Arc<dyn Clock>,
    peppers: Peppers,
    key_form: KeyForm,
    check: Box<dyn PlanCheck>,
    alerts: Arc<AlertQueue>,
    feed: Feed,
    /// Changes that begin.
    beginnings: Feed,
    /// Held while a key is made that may be there already.
    ensuring: tokio::sync::Mutex<()>,
    key_turns: Arc<key_turns::KeyTurns>,
}

/// The owner of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The tenant.
    pub surrogate: Surrogate,
    /// The key's id, which is the caller's scope `key`.
    pub key_id: Arc<str>,
    /// What it may do.
    pub permissions: Permissions,
    /// First instant at which it no longer works, Unix milliseconds.
    pub expires_ms: i64,
    /// The credential, if no use of it within this hour is on record.
    pub unnoted: Option<CredentialHash>,
}

impl Directory {
    /// The directory in this space of the store. The peppers, and the form of keys, are those of
    /// the identifier. Changes write their alerts to the queue.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        space: Space,
        clock: Arc<dyn Clock>,
        (peppers, key_form): (Peppers, KeyForm),
        check: impl PlanCheck,
        alerts: Arc<AlertQueue>,
    ) -> Self {
        let check = Box::new(check);
        let feed = Feed::new(store.clone(), space.clone());
        let beginnings = Feed::of_beginnings(store.clone(), space.clone());
        let ensuring = tokio::sync::Mutex::new(());
        let key_turns = Arc::default();
        let inner = Inner {
            store,
            space,
            clock,
            peppers,
            key_form,
            check,
            alerts,
            feed,
            beginnings,
            ensuring,
            key_turns,
        };
        Self { inner: Arc::new(inner), actor: None }
    }

    /// Recent changes, here and in other processes.
    pub(crate) fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    /// Changes that have recently begun, here and in other processes.
    pub(crate) fn beginnings(&self) -> &Feed {
        &self.inner.beginnings
    }

    /// The same directory, with whose changes the history records this actor: an operator's name,
    /// a job's. 1 to 64 characters. It covers everything that is reached through the handle:
    /// tenants, their edits, their keys.
    ///
    /// ```no_run
    /// # async fn example(directory: tallygate::directory::Directory)
    /// # -> Result<(), tallygate::directory::DirectoryError> {
    /// let acme = directory.by("kim@example.com").tenant("acme").suspend().note("abuse");
    /// let history = acme.save().await?.history().await?;
    /// assert_eq!(history.last().unwrap().actor.as_deref(), Some("kim@example.com"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn by(&self, actor: impl Into<Arc<str>>) -> Self {
        Self { inner: self.inner.clone(), actor: Some(actor.into()) }
    }

    /// Begins changes of the tenant with this outer id. [`save`](TenantEdit::save) applies them,
    /// and creates the tenant if it is missing.
    ///
    /// ```no_run
    /// # async fn example(directory: tallygate::directory::Directory)
    /// # -> Result<(), tallygate::directory::DirectoryError> {
    /// let tenant = directory.tenant("acme").plan("pro").note("signed up").save().await?;
    /// let key = tenant.new_key("ci").await?;
    /// println!("your key, shown once: {}", key.expose());
    /// # Ok(()) }
    /// ```
    pub fn tenant(&self, id: &str) -> TenantEdit {
        TenantEdit::of_id(self.clone(), id)
    }

    /// The tenant with this outer id; `None` if it does not exist. It is read from the store.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn find(&self, id: &str) -> Result<Option<Tenant>, DirectoryError> {
        let Some(surrogate) = self.read_name(id).await? else {
            return Ok(None);
        };
        Ok(self.read_record(surrogate).await?.map(|record| self.handle(record)))
    }

    /// The tenant with this surrogate; `None` if it does not exist. It is read from the store.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn get(&self, surrogate: Surrogate) -> Result<Option<Tenant>, DirectoryError> {
        Ok(self.read_record(surrogate).await?.map(|record| self.handle(record)))
    }

    /// Tenants by the bytes of their ids, ascending: those whose id begins with `prefix` and comes
    /// after `after`, at most `most` of them (1 to 1,000). Fewer than `most` mean that there are no
    /// more; the next page begins after the last id of this one. A page is no snapshot: tenants
    /// that are made meanwhile may be missing.
    ///
    /// Besides the tenants' records it reads about as many entries of the list as it returns,
    /// whatever number of tenants there is. Tenants that only the host's own tables know
    /// ([`TenantSource`]) are listed once something was changed for them here.
    ///
    /// ```no_run
    /// # async fn example(directory: tallygate::directory::Directory)
    /// # -> Result<(), tallygate::directory::DirectoryError> {
    /// let mut after = String::new();
    /// loop {
    ///     let page = directory.list("", &after, 100).await?;
    ///     for tenant in &page {
    ///         println!("{}: {:?}", tenant.record().id, tenant.record().plan);
    ///     }
    ///     match page.last() {
    ///         Some(last) if page.len() == 100 => after = last.record().id.clone(),
    ///         _ => break,
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn list(
        &self,
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<Tenant>, DirectoryError> {
        self.read_list(prefix, after, most.clamp(1, Page::MAX_ITEMS)).await
    }

    /// The owner of a credential, by all its possible stored hashes; `None` if it is unknown or
    /// revoked. One read of the store for each hash up to the matching one.
    pub(crate) fn lookup_credential(
        &self,
        hashes: Vec<CredentialHash>,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send + use<> {
        let this = self.clone();
        async move { this.find_credential(&hashes).await }
    }

    /// Records that a credential is in use within this hour.
    pub(crate) fn note_use(
        &self,
        hash: CredentialHash,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let this = self.clone();
        async move { this.write_use(&hash).await }
    }

    /// A tenant's record. `None` if its creation was cut short.
    pub(crate) fn lookup_tenant(
        &self,
        surrogate: Surrogate,
    ) -> impl Future<Output = Result<Option<Arc<TenantRecord>>, StoreError>> + Send + use<> {
        let this = self.clone();
        async move { this.read_record(surrogate).await }
    }

    /// The surrogate of an outer id, if it has one.
    pub(crate) fn lookup_name(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<Surrogate>, StoreError>> + Send + use<> {
        let (this, id) = (self.clone(), id.to_owned());
        async move { this.read_name(&id).await }
    }

    /// Records a tenant's first request, once: later calls change nothing. Returns its time; `None`
    /// if there is no such tenant.
    pub(crate) fn first_request(
        &self,
        surrogate: Surrogate,
        now_ms: i64,
    ) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send + use<> {
        let this = self.clone();
        async move {
            let write = TenantRecord::write_first(this.tenant_key(surrogate), now_ms);
            let item = match write::make(&*this.inner.store, write).await? {
                Made::Yes(item) => Some(item),
                Made::No(item) | Made::Perhaps(item) => item,
            };
            let record = item.map(|item| TenantRecord::read(surrogate, &item)).transpose()?;
            Ok(record.and_then(|record| record.first_request_ms))
        }
    }

    async fn read_record(
        &self,
        surrogate: Surrogate,
    ) -> Result<Option<Arc<TenantRecord>>, StoreError> {
        let item = self.inner.store.read(self.tenant_key(surrogate)).await?;
        item.map(|item| TenantRecord::read(surrogate, &item).map(Arc::new)).transpose()
    }

    async fn query_all(&self, pk: String) -> Result<Vec<(String, Item)>, StoreError> {
        let mut query = Query { pk, from: String::new(), until: None, limit: Page::MAX_ITEMS };
        let mut all = Vec::new();
        while all.len() < MAX_LISTED {
            let page = self.inner.store.query(query.clone()).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => query.from = next,
                None => return Ok(all),
            }
        }
        let message = format!("a tenant's list has more than {} items", all.len());
        Err(StoreError::new(StoreErrorKind::Invalid, message))
    }

    fn handle(&self, record: Arc<TenantRecord>) -> Tenant {
        Tenant { directory: self.clone(), record }
    }

    fn tenant_key(&self, surrogate: Surrogate) -> Key {
        self.inner.space.tenant(surrogate)
    }

    fn actor(&self) -> Option<String> {
        self.actor.as_deref().map(str::to_owned)
    }

    fn now_ms(&self) -> i64 {
        self.inner.clock.now().wall_ms
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("space", &self.inner.space).finish_non_exhaustive()
    }
}

/// A tenant as it was when it was read or saved, and the operations on it. [`Directory::find`] and
/// [`TenantEdit::save`] return it.
#[derive(Clone, Debug)]
pub struct Tenant {
    directory: Directory,
    record: Arc<TenantRecord>,
}

impl Tenant {
    /// Its record as of that time: plan, grants, payment state and so on.
    pub fn record(&self) -> &Arc<TenantRecord> {
        &self.record
    }

    /// Begins changes of this tenant; [`save`](TenantEdit::save) applies them.
    pub fn edit(&self) -> TenantEdit {
        TenantEdit::of(self.directory.clone(), self.record.surrogate)
    }

    /// Suspends the tenant: every request is refused with 403 until it is resumed. `note` is the
    /// reason, for the history.
    ///
    /// # Errors
    ///
    /// As [`TenantEdit::save`].
    pub async fn suspend(&self, note: &str) -> Result<Self, DirectoryError> {
        self.edit().suspend().note(note).save().await
    }

    /// Resumes a suspended tenant. `note` is the reason, for the history.
    ///
    /// # Errors
    ///
    /// As [`TenantEdit::save`].
    pub async fn resume(&self, note: &str) -> Result<Self, DirectoryError> {
        self.edit().resume().note(note).save().await
    }

    /// Creates an API key, returned in plain text only this once: of a name, or of
    /// [`KeyOptions`]. This process accepts the key at once, others within two seconds.
    ///
    /// # Errors
    ///
    /// The name is empty or too long, the end is past, the tenant has too many keys, the service
    /// file has no pepper, or the store fails.
    pub async fn new_key(&self, key: impl Into<KeyOptions>) -> Result<NewKey, DirectoryError> {
        self.directory.make_key(self.record.surrogate, key.into()).await
    }

    /// Whether [`new_key`](Self::new_key) would make this key now; nothing is written. For the
    /// operator's routes and command.
    ///
    /// # Errors
    ///
    /// As [`new_key`](Self::new_key).
    #[doc(hidden)]
    pub async fn rehearse_key(&self, key: &KeyOptions) -> Result<(), DirectoryError> {
        self.directory.could_make_key(self.record.surrogate, key).await
    }

    /// Creates an API key unless the tenant has a working one of this name: for a program that runs
    /// this at every start. `None`: it has one, which was shown when it was made.
    ///
    /// Of calls at once, here and in other processes on the same store, one returns the key. A
    /// process that dies before it has shown the key leaves one that works and is lost: revoke it,
    /// and the next call makes another. A [`new_key`](Self::new_key) at the same time is not waited
    /// for: it makes a key in any case.
    ///
    /// ```no_run
    /// # async fn example(acme: tallygate::directory::Tenant)
    /// # -> Result<(), tallygate::directory::DirectoryError> {
    /// if let Some(key) = acme.ensure_key("laptop").await? {
    ///     println!("your key, shown once: {}", key.expose());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`new_key`](Self::new_key), and [`DirectoryError::Busy`] if other processes kept making
    /// and revoking keys of this name meanwhile.
    pub async fn ensure_key(
        &self,
        key: impl Into<KeyOptions>,
    ) -> Result<Option<NewKey>, DirectoryError> {
        self.directory.ensure_key(self.record.surrogate, &key.into()).await
    }

    /// Imports a key from a system that stored its plain SHA-256, and returns its id. The same
    /// import twice is one key.
    ///
    /// # Errors
    ///
    /// As [`new_key`](Self::new_key), and [`DirectoryError::CredentialTaken`] if the key belongs to
    /// another tenant or was revoked.
    pub async fn import_key_sha256(
        &self,
        key: impl Into<KeyOptions>,
        hash: [u8; 32],
    ) -> Result<String, DirectoryError> {
        let hash = CredentialHash::sha256(hash);
        let id = self.directory.add_key(self.record.surrogate, &key.into(), &hash).await?;
        // Unlike a fresh key, it may have been tried before.
        self.directory.inner.feed.tell(News::Made(credential_tag(&hash)));
        self.directory.inner.feed.announced().await;
        Ok(id)
    }

    /// Replaces a key: makes another of the same name, and has the old one work for `overlap` more,
    /// while its users change over. The new key may do the same, and has the end that the old one
    /// had. A process that dies in between leaves the old key as it was.
    ///
    /// ```no_run
    /// # async fn example(acme: tallygate::directory::Tenant)
    /// # -> Result<(), tallygate::directory::DirectoryError> {
    /// let a_day = std::time::Duration::from_secs(24 * 3600);
    /// let key = acme.rotate_key("k0123456789abcdef", a_day).await?;
    /// println!("your new key, shown once: {}", key.expose());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::NoKey`] if the tenant has no such key, or none that works; otherwise as
    /// [`new_key`](Self::new_key). If ending the old key fails, the new one is not returned: it is
    /// in the list, and another call makes another.
    pub async fn rotate_key(&self, id: &str, overlap: Duration) -> Result<NewKey, DirectoryError> {
        self.directory.rotate_key(self.record.surrogate, id, overlap, None).await
    }

    /// The same for a request with this idempotency key, if it has one.
    pub(crate) async fn rotate_key_once(
        &self,
        id: &str,
        overlap: Duration,
        once: Option<&str>,
    ) -> Result<NewKey, DirectoryError> {
        self.directory.rotate_key(self.record.surrogate, id, overlap, once).await
    }

    /// What stands for a request of an operator with this idempotency key, in the id of what it
    /// gives.
    pub(crate) fn id_of_reset(&self, once: &str) -> Result<String, DirectoryError> {
        let once = once::Once::of_reset(once);
        once.check()?;
        Ok(once.id(self.record.surrogate))
    }

    /// The grant with this id; `Some(None)`: it was given, and has left the tenant's record.
    pub(crate) async fn grant_given(
        &self,
        id: &str,
    ) -> Result<Option<Option<Grant>>, DirectoryError> {
        let record = self.directory.lookup_tenant(self.record.surrogate).await?;
        let grants = record.iter().flat_map(|record| &record.grants);
        if let Some(grant) = grants.clone().find(|grant| grant.id == id) {
            return Ok(Some(Some(grant.clone())));
        }
        let is_past = self.directory.has_past_grant(self.record.surrogate, id).await?;
        Ok(is_past.then_some(None))
    }

    /// Has the grant with this id be one that was given and has ended: its request found nothing to
    /// give, and a repetition of it gives nothing either.
    pub(crate) async fn note_nothing_given(
        &self,
        id: &str,
        meter: &str,
    ) -> Result<(), DirectoryError> {
        let nothing = Grant::new(id, meter, 0);
        self.directory.note_past_grant(self.record.surrogate, &nothing).await
    }

    /// Has a key end at this instant; one that ends before that stays so. For an end at once use
    /// [`revoke_key`](Self::revoke_key).
    ///
    /// # Errors
    ///
    /// [`DirectoryError::NoKey`] if the tenant has no such key, or the store's error.
    pub async fn expire_key(&self, id: &str, at: SystemTime) -> Result<(), DirectoryError> {
        self.directory.end_key(self.record.surrogate, id, unix_ms(at)).await
    }

    /// Its keys, including revoked and expired ones.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>, DirectoryError> {
        Ok(self.directory.list_keys(self.record.surrogate).await?)
    }

    /// Revokes a key by its id. This process refuses it at once, others within two seconds.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::NoKey`] if the tenant has no such key, or the store's error.
    pub async fn revoke_key(&self, id: &str) -> Result<(), DirectoryError> {
        self.directory.revoke(self.record.surrogate, id).await
    }

    /// Every change that was announced, oldest first, and whether it happened.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>, DirectoryError> {
        Ok(self.directory.read_history(self.record.surrogate).await?)
    }
}
