//! Changes of a tenant: collected, checked, announced in the history, and written over the version
//! they were made for.
//!
//! Each change is idempotent (a plan is the plan, a grant has an id, an override equal to one in
//! force is that one), so a caller that is unsure whether a save went through saves again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::bought::{SoldAddon, Subscribed};
use super::eras::SubscriptionSpan;
use super::error::{MAX_NAME, check_lines, check_text};
#[cfg(feature = "stripe")]
use super::record::MAX_ADDONS;
use super::record::{Grant, Override, PaymentState, TenantRecord};
use super::write::{Made, make};
use super::{Directory, DirectoryError, HistoryEntry, News, Surrogate, Tenant, name_tag};
use crate::clock::unix_ms;
use crate::identity::{ANONYMOUS, is_tenant_id};
use crate::store::StoreErrorKind;

/// Attempts at a save that meets concurrent ones.
const ATTEMPTS: usize = 8;
/// Most changes of one save: they share one history entry.
pub(super) const MAX_EDITS: usize = 32;
/// A grant's id in errors. It is a part of stored keys.
const GRANT_ID: &str = "a grant's id, of letters of ASCII, digits, `_`, `-` and `.` alone,";
/// Most characters of a note.
pub(super) const MAX_NOTE: usize = 512;
/// Most characters of an override's TOML: a record full of the widest characters fits an item.
const MAX_CHANGES: usize = 1_024;

/// One change of a tenant, as recorded in the history. In [`HistoryEntry`](super::HistoryEntry);
/// [`TenantEdit`] makes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Edit {
    /// The tenant was created.
    Created,
    /// The tenant was assigned this plan; `None`: the default plan.
    Plan(Option<String>),
    /// An operator suspended (`true`) or resumed (`false`) the tenant.
    Suspended(bool),
    /// The payment state changed.
    Payment(PaymentState),
    /// The payment state changed at this instant, Unix milliseconds.
    PaymentSince(PaymentState, i64),
    /// An exception was added.
    Override(Override),
    /// The exception with this [id](Override::id) was ended.
    OverrideEnded(String),
    /// All exceptions were ended.
    OverridesEnded,
    /// Units were granted once.
    Grant(Grant),
    /// The grant with this id was ended: its remainder can no longer be spent.
    GrantEnded(String),
    /// The addons were set to exactly these, by name, with their quantities.
    Addons(BTreeMap<String, u64>),
    /// The addons were set to exactly these, as they were sold.
    SoldAddons(Vec<SoldAddon>),
    /// The anchor of the billing cycles was set, Unix milliseconds.
    Anchor(i64),
    /// The subscription changed to this state.
    Subscribed(Subscribed),
    /// The subscription means no plan any more: the assignments are in force.
    Unsubscribed,
    /// Begin, end and anchor of the customer's subscriptions were recorded.
    Subscriptions(Vec<SubscriptionSpan>),
    /// The tenant was moved to this billing account; `None`: to none.
    Account(Option<String>),
    /// The tenant was erased.
    Erased,
    /// A key was made or imported: its id and name.
    KeyMade {
        /// The key's id.
        id: String,
        /// The key's name.
        name: String,
        /// The first instant at which it no longer works, Unix milliseconds; `None`: no end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<i64>,
        /// What it may do, with spaces between; `None`: as the service file says of such keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        permissions: Option<String>,
    },
    /// A key was given an end.
    KeyEnds {
        /// The key's id.
        id: String,
        /// The first instant at which it no longer works, Unix milliseconds.
        at: i64,
    },
    /// A key was revoked.
    KeyRevoked {
        /// The key's id.
        id: String,
    },
}

/// An entry of a tenant's history as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Announced {
    pub(super) at_ms: i64,
    /// The version it makes; 0 for a change of a key.
    pub(super) version: u64,
    /// The entry that made the version before; 0 if there was none.
    pub(super) parent: u64,
    pub(super) note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) actor: Option<String>,
    pub(super) edits: Vec<Edit>,
}

impl Edit {
    /// Applies the change; an already applied one has no effect.
    fn apply(&self, record: &mut TenantRecord, now_ms: i64) -> Result<(), DirectoryError> {
        match self {
            Edit::Plan(plan) => {
                record.assign(now_ms, true, |assigned| assigned.plan.clone_from(plan));
            }
            Edit::Suspended(suspended) => record.suspended = *suspended,
            Edit::Payment(payment) => record.assign(now_ms, true, |assigned| {
                if assigned.payment != *payment {
                    (assigned.payment, assigned.payment_since_ms) = (*payment, now_ms);
                }
            }),
            Edit::PaymentSince(payment, since_ms) => record.assign(now_ms, true, |assigned| {
                (assigned.payment, assigned.payment_since_ms) = (*payment, *since_ms);
            }),
            Edit::Override(new) => {
                // The last one wins, even if an equal one existed before.
                record.overrides.retain(|held| !held.is_same(new));
                record.overrides.push(new.clone());
            }
            Edit::OverrideEnded(id) => record.overrides.retain(|held| held.id() != *id),
            Edit::OverridesEnded => record.overrides.clear(),
            Edit::Grant(new) => match record.grants.iter().find(|held| held.id == new.id) {
                None => record.grants.push(new.clone()),
                Some(held) if held == new => {}
                Some(_) => return Err(DirectoryError::GrantDiffers(new.id.clone())),
            },
            Edit::GrantEnded(id) => record.grants.retain(|held| held.id != *id),
            Edit::Addons(addons) => {
                record.addons.clone_from(addons);
                record.sold_addons.clear();
            }
            Edit::SoldAddons(sold) => record.sell_addons(sold),
            Edit::Anchor(at_ms) => {
                record.set_anchor(*at_ms, now_ms);
                record.assign(now_ms, false, |assigned| assigned.anchor_ms = *at_ms);
            }
            Edit::Subscribed(says) => record.follow(says, now_ms),
            Edit::Unsubscribed => record.unsubscribe(now_ms),
            Edit::Subscriptions(spans) => record.enter_spans(spans),
            Edit::Account(account) => record.belong(account.as_ref(), now_ms),
            Edit::Erased => record.erase(now_ms)?,
            // Not part of the record.
            Edit::Created
            | Edit::KeyMade { .. }
            | Edit::KeyEnds { .. }
            | Edit::KeyRevoked { .. } => {}
        }
        Ok(())
    }

    fn check(&self, directory: &Directory) -> Result<(), DirectoryError> {
        let check = &directory.inner.check;
        match self {
            Edit::Plan(Some(plan)) if !check.has_plan(plan) => {
                Err(DirectoryError::UnknownPlan(plan.clone()))
            }
            Edit::Subscribed(says) => {
                check_text(&says.id, "a subscription's id", MAX_NOTE)?;
                match check.has_plan(&says.plan) {
                    true => Ok(()),
                    false => Err(DirectoryError::UnknownPlan(says.plan.clone())),
                }
            }
            Edit::Override(new) if new.note.trim().is_empty() => Err(DirectoryError::NoteNeeded),
            Edit::Override(new) => {
                check_lines(&new.note, "a note", MAX_NOTE)?;
                directory.check_changes(&new.changes)
            }
            Edit::Grant(new) => {
                let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
                if !new.id.chars().all(legal) {
                    return Err(DirectoryError::Text { what: GRANT_ID, most: MAX_NAME });
                }
                check_text(&new.id, GRANT_ID, MAX_NAME)?;
                check_text(&new.source, "a grant's source", MAX_NAME)?;
                if new.units == 0 {
                    return Err(DirectoryError::NoUnits);
                }
                new.note.as_ref().map_or(Ok(()), |note| check_lines(note, "a note", MAX_NOTE))?;
                if check.has_meter(&new.meter) {
                    return Ok(());
                }
                Err(DirectoryError::UnknownMeter(new.meter.clone()))
            }
            Edit::Account(Some(account)) => check_text(account, "an account", MAX_NAME),
            _ => Ok(()),
        }
    }
}

/// Changes of one tenant, at most 32, applied together by [`save`](Self::save).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # #[cfg(feature = "testing")] {
/// use tallygate::directory::Grant;
///
/// # let (gate, _clock) = tallygate::testing::gate(r#"
/// #     default-plan = "free"
/// #     [meter.credits]
/// #     [plan.free]
/// #     quota.credits = "100/month"
/// #     [plan.pro]
/// #     quota.credits = "1000/month"
/// # "#);
/// let welcome = Grant::new("welcome", "credits", 500);
/// let acme = gate.directory().tenant("acme").plan("pro").grant(welcome).note("signed up");
/// let acme = acme.save().await?;
/// assert_eq!(acme.record().plan.as_deref(), Some("pro"));
/// assert_eq!(acme.record().grants.len(), 1);
/// # }
/// # Ok::<(), tallygate::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing changes before `save`"]
pub struct TenantEdit {
    directory: Directory,
    target: EditedTenant,
    edits: Vec<Edit>,
    note: Option<String>,
    /// Its grants are paid.
    is_paid: bool,
    /// Its plan is named by the host, and may be one that the plan file lacks.
    is_named: bool,
    /// Nothing is changed on any other account.
    only_on: Option<String>,
    /// Nothing is changed in any other version.
    only_of: Option<u64>,
}

#[derive(Clone, Debug)]
enum EditedTenant {
    /// Created if missing.
    Id(String),
    /// Must exist.
    Known(Surrogate),
}

impl TenantEdit {
    pub(super) fn of_id(directory: Directory, id: &str) -> Self {
        Self::of_target(directory, EditedTenant::Id(id.to_owned()))
    }

    pub(super) fn of(directory: Directory, surrogate: Surrogate) -> Self {
        Self::of_target(directory, EditedTenant::Known(surrogate))
    }

    fn of_target(directory: Directory, target: EditedTenant) -> Self {
        Self {
            directory,
            target,
            edits: Vec::new(),
            note: None,
            is_paid: false,
            is_named: false,
            only_on: None,
            only_of: None,
        }
    }

    /// Assigns this plan. A live subscription takes precedence: then the plan waits for its end.
    pub fn plan(self, name: impl Into<String>) -> Self {
        self.with(Edit::Plan(Some(name.into())))
    }

    /// Assigns the plan that the host names, whether the plan file has it now or not: until it
    /// does, the default plan applies. `None`: the default plan.
    pub(crate) fn named_plan(mut self, name: Option<&str>) -> Self {
        self.is_named = true;
        self.with(Edit::Plan(name.map(str::to_owned)))
    }

    /// Goes back to the default plan.
    pub fn default_plan(self) -> Self {
        self.with(Edit::Plan(None))
    }

    /// Suspends the tenant: every request is refused with 403 until it is resumed.
    pub fn suspend(self) -> Self {
        self.with(Edit::Suspended(true))
    }

    /// Resumes a suspended tenant.
    pub fn resume(self) -> Self {
        self.with(Edit::Suspended(false))
    }

    /// Sets the payment state, for tenants without a live subscription.
    pub fn payment(self, state: PaymentState) -> Self {
        self.with(Edit::Payment(state))
    }

    /// Sets the payment state as of an instant: grace is counted from there, whenever this is
    /// saved. Otherwise like [`payment`](Self::payment).
    pub fn payment_since(self, state: PaymentState, since: SystemTime) -> Self {
        self.with(Edit::PaymentSince(state, unix_ms(since)))
    }

    /// Adds an exception: `changes` are TOML in the words of a `[tenant.x]` table, `until` the
    /// first instant at which it no longer holds (`None`: it has no end), `note` the reason.
    pub fn override_(
        self,
        changes: impl Into<String>,
        until: Option<SystemTime>,
        note: impl Into<String>,
    ) -> Self {
        self.override_until(changes, until.map(unix_ms), note)
    }

    /// The same with its end in Unix milliseconds.
    pub(crate) fn override_until(
        self,
        changes: impl Into<String>,
        until_ms: Option<i64>,
        note: impl Into<String>,
    ) -> Self {
        let at_ms = self.directory.now_ms();
        let (changes, note) = (changes.into(), note.into());
        self.with(Edit::Override(Override { changes, until_ms, note, at_ms }))
    }

    /// Ends the exception with this [id](Override::id), and leaves the others. One that is not in
    /// force changes nothing.
    pub fn end_override(self, id: impl Into<String>) -> Self {
        self.with(Edit::OverrideEnded(id.into()))
    }

    /// Ends all exceptions.
    pub fn end_overrides(self) -> Self {
        self.with(Edit::OverridesEnded)
    }

    /// Gives units once. The same grant given twice is given once, even after its end. Fails if the
    /// tenant's plan does not limit the grant's meter: none of it would be spent.
    pub fn grant(self, grant: Grant) -> Self {
        self.with(Edit::Grant(grant))
    }

    /// Ends a grant: its remainder can no longer be spent, and there is room for another. It stays
    /// on record as given, and cannot be given again.
    pub fn end_grant(self, id: impl Into<String>) -> Self {
        self.with(Edit::GrantEnded(id.into()))
    }

    /// Gives paid units: kept even while the tenant's plan does not limit them.
    #[cfg(feature = "stripe")]
    pub(crate) fn paid_grant(mut self, grant: Grant) -> Self {
        self.is_paid = true;
        self.with(Edit::Grant(grant))
    }

    /// Sets its addons on top of its plan, by name, with their quantities; no others remain.
    pub fn addons(self, addons: BTreeMap<String, u64>) -> Self {
        self.with(Edit::Addons(addons))
    }

    /// The same with the addons that were sold: at most as many as a record holds, those that are
    /// paid for first.
    #[cfg(feature = "stripe")]
    pub(crate) fn sold_addons(self, mut sold: Vec<SoldAddon>) -> Self {
        sold.sort_by_key(|addon| addon.past_due_ms.map(std::cmp::Reverse));
        sold.truncate(MAX_ADDONS);
        self.with(Edit::SoldAddons(sold))
    }

    /// Sets the anchor of the billing cycles, from which they are counted month by month. A live
    /// subscription's anchor takes precedence.
    pub fn anchor(self, at: SystemTime) -> Self {
        self.with(Edit::Anchor(unix_ms(at)))
    }

    /// Applies the state of its subscription.
    #[cfg(feature = "stripe")]
    pub(crate) fn subscribed(self, says: Subscribed) -> Self {
        self.with(Edit::Subscribed(says))
    }

    /// Enters its customer's subscriptions into its history.
    #[cfg(feature = "stripe")]
    pub(crate) fn subscriptions(self, spans: Vec<SubscriptionSpan>) -> Self {
        if spans.is_empty() { self } else { self.with(Edit::Subscriptions(spans)) }
    }

    /// Its subscription means no plan any more.
    #[cfg(feature = "stripe")]
    pub(crate) fn unsubscribed(self) -> Self {
        self.with(Edit::Unsubscribed)
    }

    /// Changes nothing if its billing account is another one when this is saved.
    #[cfg(feature = "stripe")]
    pub(crate) fn only_on(mut self, account: &str) -> Self {
        self.only_on = Some(account.to_owned());
        self
    }

    /// Fails with [`Busy`](DirectoryError::Busy) if the tenant has another version when this is
    /// saved, unless that has the change already.
    pub(crate) fn only_of(mut self, version: u64) -> Self {
        self.only_of = Some(version);
        self
    }

    /// Sets or clears the billing account. What was bought on the previous account ends. To link a
    /// Stripe customer use `Gate::link_customer`, which also applies its earlier events.
    pub fn account(self, account: Option<String>) -> Self {
        self.with(Edit::Account(account))
    }

    /// Sets the reason, recorded in the history beside the changes; at most 512 characters.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Applies the changes, and creates the tenant if it is missing. If nothing would change,
    /// nothing is written, not even the note.
    ///
    /// # Errors
    ///
    /// See [`DirectoryError`]: nothing was changed, except perhaps where the store's error has the
    /// kind `Unknown`. Then, and after [`Busy`](DirectoryError::Busy), save the same changes again:
    /// nothing is done twice.
    pub async fn save(self) -> Result<Tenant, DirectoryError> {
        self.check()?;
        let surrogate = match &self.target {
            EditedTenant::Id(id) => self.directory.claim_name(id).await?,
            EditedTenant::Known(surrogate) => *surrogate,
        };
        for _ in 0..ATTEMPTS {
            let before = self.directory.read_record(surrogate).await?;
            if before.as_ref().is_some_and(|it| it.erased_ms.is_some()) && !self.is_erasure() {
                let id = if let EditedTenant::Id(id) = &self.target { Some(&**id) } else { None };
                self.directory.forget_overtaken(surrogate, id).await?;
                return Err(DirectoryError::Erased);
            }
            if let (Some(account), Some(before)) = (&self.only_on, &before)
                && before.account.as_ref() != Some(account)
            {
                return Ok(self.directory.handle(before.clone()));
            }
            let edits = self.still_to_make(surrogate, before.as_deref()).await?;
            let Some((after, announced)) = self.next(surrogate, before.as_deref(), edits)? else {
                // `next` is without changes only where there is a tenant.
                return before.map(|it| self.directory.handle(it)).ok_or(DirectoryError::NoTenant);
            };
            if self.only_of.is_some_and(|of| before.as_ref().is_some_and(|it| it.version != of)) {
                return Err(DirectoryError::Busy);
            }
            if before.is_none() {
                self.directory.enlist(surrogate, &after.id).await?;
            }
            let held = before.iter().flat_map(|before| &before.grants);
            self.directory.note_leaving(&after, held.chain(grants_in(&announced.edits))).await?;
            let untold = self.directory.inner.feed.tell_in_any_case(News::Tenant(surrogate));
            let made = self.directory.commit(before.as_deref(), &after, announced).await;
            untold.known();
            if let Some(record) = self.directory.told(before.is_none(), surrogate, made).await? {
                return Ok(self.directory.handle(record));
            }
        }
        Err(DirectoryError::Busy)
    }

    /// Checks the changes as [`save`](Self::save) does, and writes nothing. Returns the entry that
    /// would be in the history; `None`: nothing would change. For the operator's routes and
    /// command.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    #[doc(hidden)]
    pub async fn rehearse(self) -> Result<Option<HistoryEntry>, DirectoryError> {
        self.check()?;
        self.directory.check_actor()?;
        let surrogate = match &self.target {
            EditedTenant::Known(surrogate) => *surrogate,
            // Under the surrogate of no tenant there is no record, as of one that is to be made.
            EditedTenant::Id(id) => {
                self.directory.read_name(id).await?.unwrap_or_else(|| Surrogate::new(0))
            }
        };
        let before = self.directory.read_record(surrogate).await?;
        if before.as_ref().is_some_and(|it| it.erased_ms.is_some()) && !self.is_erasure() {
            return Err(DirectoryError::Erased);
        }
        let edits = self.still_to_make(surrogate, before.as_deref()).await?;
        let next = self.next(surrogate, before.as_deref(), edits)?;
        Ok(next.map(|(_, announced)| HistoryEntry::would_be(announced)))
    }

    /// The changes, except for grants that were given and have ended.
    async fn still_to_make(
        &self,
        surrogate: Surrogate,
        before: Option<&TenantRecord>,
    ) -> Result<Vec<Edit>, DirectoryError> {
        let mut edits = Vec::with_capacity(self.edits.len());
        for edit in &self.edits {
            // A tenant being created has no grants yet.
            if let (Edit::Grant(grant), Some(before)) = (edit, before)
                && !before.grants.iter().any(|held| held.id == grant.id)
                && self.directory.was_given(surrogate, grant).await?
            {
                continue;
            }
            edits.push(edit.clone());
        }
        Ok(edits)
    }

    /// The next version and its history entry; `None` if nothing changes.
    fn next(
        &self,
        surrogate: Surrogate,
        before: Option<&TenantRecord>,
        mut edits: Vec<Edit>,
    ) -> Result<Option<(TenantRecord, Announced)>, DirectoryError> {
        let now_ms = self.directory.now_ms();
        let mut after = match (before, &self.target) {
            (Some(before), _) => before.clone(),
            (None, EditedTenant::Known(_)) => return Err(DirectoryError::NoTenant),
            (None, EditedTenant::Id(id)) => {
                edits.insert(0, Edit::Created);
                TenantRecord::begin(surrogate, id, now_ms)
            }
        };
        for edit in &edits {
            edit.apply(&mut after, now_ms)?;
        }
        if before == Some(&after) {
            return Ok(None);
        }
        let is_new = |grant: &&Grant| before.is_none_or(|before| !before.grants.contains(grant));
        if !self.is_paid {
            let mut new = grants_in(&edits).filter(is_new);
            new.try_for_each(|it| self.directory.inner.check.can_spend(it, &after, now_ms))?;
        }
        after.prune(now_ms)?;
        after.version = after.version.saturating_add(1);
        let announced = Announced {
            at_ms: now_ms,
            version: after.version,
            parent: before.map_or(0, |before| before.change),
            note: self.note.clone(),
            actor: self.directory.actor(),
            edits,
        };
        Ok(Some((after, announced)))
    }

    fn check(&self) -> Result<(), DirectoryError> {
        if let EditedTenant::Id(id) = &self.target
            && !is_tenant_id(id)
            && id != ANONYMOUS
        {
            return Err(DirectoryError::TenantId);
        }
        if self.edits.len() > MAX_EDITS {
            return Err(DirectoryError::TooMany { what: "changes in one save", most: MAX_EDITS });
        }
        if let Some(note) = &self.note {
            check_lines(note, "a note", MAX_NOTE)?;
        }
        self.edits.iter().try_for_each(|edit| match edit {
            Edit::Plan(Some(plan)) if self.is_named => check_plan_name(plan),
            edit => edit.check(&self.directory),
        })
    }

    fn is_erasure(&self) -> bool {
        self.edits == [Edit::Erased]
    }

    pub(super) fn with(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }
}

/// Accepts what may be kept as the name of a plan, whether the plan file has that or not.
pub(crate) fn check_plan_name(name: &str) -> Result<(), DirectoryError> {
    check_text(name, "a plan's name", MAX_NAME)
}

fn grants_in(edits: &[Edit]) -> impl Iterator<Item = &Grant> {
    edits.iter().filter_map(|edit| if let Edit::Grant(grant) = edit { Some(grant) } else { None })
}

impl Directory {
    /// Accepts the TOML of an override.
    pub(super) fn check_changes(&self, toml: &str) -> Result<(), DirectoryError> {
        check_lines(toml, "an override", MAX_CHANGES)?;
        self.inner.check.changes(toml).map_err(DirectoryError::Changes)
    }

    /// Publishes the outcome of a change: to this process at once, and to the others.
    async fn told(
        &self,
        is_new: bool,
        surrogate: Surrogate,
        made: Result<Option<Arc<TenantRecord>>, DirectoryError>,
    ) -> Result<Option<Arc<TenantRecord>>, DirectoryError> {
        let feed = &self.inner.feed;
        match &made {
            Ok(Some(record)) => {
                feed.changed(record);
                match is_new {
                    // No cache holds it yet, but its name may be cached as one without a tenant.
                    true => feed.tell(News::Made(name_tag(&record.id))),
                    false => feed.announce(News::Tenant(surrogate)),
                }
                feed.announced().await;
            }
            Ok(None) => {}
            // It may have been made anyway. The caller is not kept waiting.
            Err(DirectoryError::Store(error)) if error.kind == StoreErrorKind::Unknown => {
                feed.tell(News::Tenant(surrogate));
            }
            Err(_) => {}
        }
        made
    }

    /// Announces a version and writes it over the previous one; `None` if that is no longer
    /// current.
    async fn commit(
        &self,
        before: Option<&TenantRecord>,
        after: &TenantRecord,
        announced: Announced,
    ) -> Result<Option<Arc<TenantRecord>>, DirectoryError> {
        let surrogate = after.surrogate;
        // Side by side: both are to be on record before the change is made. One that is being made
        // is in no memory yet.
        let begins = async {
            match before {
                Some(_) => self.inner.beginnings.begins(News::Tenant(surrogate)).await,
                None => Ok(()),
            }
        };
        let (change, begun) = tokio::join!(self.announce(surrogate, &announced), begins);
        begun?;
        let change = change?;
        self.raise_change(before, after, change).await?;
        let write = after.write(self.tenant_key(surrogate), before, change)?;
        match make(&*self.inner.store, write).await? {
            Made::Yes(item) => Ok(Some(Arc::new(TenantRecord::read(surrogate, &item)?))),
            Made::No(_) | Made::Perhaps(None) => Ok(None),
            Made::Perhaps(Some(item)) => {
                let stands = TenantRecord::read(surrogate, &item)?;
                let made = self.has_happened(&stands, change).await?;
                Ok(made.then(|| Arc::new(stands)))
            }
        }
    }
}
