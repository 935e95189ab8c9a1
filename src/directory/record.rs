//! The directory's record of a tenant: one item, written whole over the version it was made from.
//!
//! The item has the attributes `v` (format), `version`, `change` (the history entry that made it),
//! `record` (JSON, because people read it in a table browser and it is rarely written) and `first`
//! (the first request, set once and separately, because it is not an operator's change).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bought::{Bought, SoldAddon};
use super::eras::Eras;
use super::{DirectoryError, Surrogate};
use crate::clock::{time_at, unix_ms};
use crate::identity::hex;
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, Key, Name, StoreError, StoreErrorKind, Value, When, Write};

/// Most overrides of a tenant in force at once.
const MAX_OVERRIDES: usize = 32;
/// Most grants of a tenant.
const MAX_GRANTS: usize = 64;
/// Most addons of a tenant.
pub(super) const MAX_ADDONS: usize = 64;
/// Retention of a grant in the record after its end: as long as its pool can be asked for.
const KEEP_GRANT_MS: i64 = 40 * 24 * 60 * 60 * 1000;

/// Bytes of an override's id: it is one of at most [`MAX_OVERRIDES`].
const ID_BYTES: usize = 6;

/// Source of a grant that names none.
const OPERATOR: &str = "operator";

const FORMAT: i64 = 1;
const VERSION: &str = "version";
const CHANGE: &str = "change";
const RECORD: &str = "record";
const FIRST: &str = "first";

/// The directory's record of a tenant. [`Tenant::record`](super::Tenant::record) returns it;
/// [`Tenant::edit`](super::Tenant::edit) changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TenantRecord {
    /// Its id in the ledger and in stored keys.
    #[serde(skip, default = "no_tenant")]
    pub surrogate: Surrogate,
    /// Its outer id.
    pub id: String,
    /// The name of its plan: its live subscription's, else the assigned one. `None`: the default
    /// plan.
    pub plan: Option<String>,
    /// Start of this plan.
    pub(crate) plan_since_ms: i64,
    /// Anchor of its cycles: its creation, unless a live subscription, or the directory, sets
    /// another.
    pub(crate) anchor_ms: i64,
    /// Time of its first request: a trial's life begins here.
    #[serde(skip)]
    pub(crate) first_request_ms: Option<i64>,
    /// Suspended by an operator. Separate from payment, so that a paid invoice does not undo it.
    pub suspended: bool,
    /// Its payment state.
    pub payment: PaymentState,
    /// Start of that state: grace periods are counted from here.
    pub(crate) payment_since_ms: i64,
    /// Exceptions made by operators; a later one wins.
    pub overrides: Vec<Override>,
    /// Units granted once.
    pub grants: Vec<Grant>,
    /// Addons on top of its plan, by name, with their quantities. A bought one whose payment is
    /// past due is not among them; it counts until its grace is over.
    #[serde(default)]
    pub addons: BTreeMap<String, u64>,
    /// The same as they were sold, with those past due; none where an operator has set them.
    #[serde(default)]
    pub(crate) sold_addons: Vec<SoldAddon>,
    /// Its billing account, the customer at Stripe; `None` if it has none.
    pub account: Option<String>,
    /// Its last subscription, and the assignments beneath it.
    #[serde(default)]
    pub(super) bought: Option<Box<Bought>>,
    /// Its customers, anchors and subscriptions of earlier times, and of now.
    #[serde(default)]
    pub(super) eras: Option<Box<Eras>>,
    /// When it was erased.
    #[serde(default)]
    pub(super) erased_ms: Option<i64>,
    /// Number of changes, from 1.
    #[serde(skip)]
    pub version: u64,
    /// The history entry that made this version.
    #[serde(skip)]
    pub(super) change: u64,
}

/// Payment state of a tenant; `[billing]` defines the effect of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PaymentState {
    /// Nothing is owed, or nothing is sold.
    #[default]
    Good,
    /// In a trial.
    Trialing,
    /// A payment failed and is being retried.
    PastDue,
    /// Retries have ended.
    Unpaid,
    /// The subscription has ended.
    Canceled,
}

/// An exception made by an operator, on top of the tenant's plan.
/// [`TenantEdit::override_`](super::TenantEdit::override_) makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Override {
    /// Its changes, in the words of a `[tenant.x]` table (TOML).
    pub changes: String,
    /// First instant at which it no longer holds.
    pub(crate) until_ms: Option<i64>,
    /// The reason.
    pub note: String,
    /// Creation time.
    pub(crate) at_ms: i64,
}

impl Override {
    /// What distinguishes it from the tenant's others, for
    /// [`end_override`](super::TenantEdit::end_override): 12 hexadecimal digits, made from what it
    /// changes, its end and its reason. The same exception made again has the same id.
    pub fn id(&self) -> String {
        let (changes, until, note) = (&self.changes, self.until_ms.unwrap_or(i64::MAX), &self.note);
        let digest = Sha256::digest(format!("{} {changes} {until} {note}", changes.len()));
        hex(&digest[..ID_BYTES])
    }

    /// Whether the other changes the same, until then, for the same reason.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.changes, self.until_ms, &self.note) == (&other.changes, other.until_ms, &other.note)
    }

    /// When it was made.
    pub fn at(&self) -> SystemTime {
        time_at(self.at_ms)
    }

    /// First instant at which it no longer holds, if it has an end.
    pub fn until(&self) -> Option<SystemTime> {
        self.until_ms.map(time_at)
    }
}

/// Units granted once, beside the quotas of the plan.
/// [`TenantEdit::grant`](super::TenantEdit::grant) gives them.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tallygate::directory::Grant;
///
/// # fn launch(today: SystemTime) -> Grant {
/// let launch = Grant::new("launch", "credits", 500)
///     .expires(today + Duration::from_secs(90 * 24 * 3600))
///     .source("promotion")
///     .note("for the first hundred");
/// # launch }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Grant {
    /// Its id, unique within the tenant: the same grant given twice is given once. 1 to 64 of
    /// letters, digits, `_`, `-` and `.`, because it is part of a table key.
    pub id: String,
    /// The meter, by name.
    pub meter: String,
    /// Number of whole units of the meter, or bytes for one that counts bytes: at least one. Kept
    /// as units, so that it is worth the same under every plan file.
    pub units: u64,
    /// Its source: `operator`, `topup`, or a word of the host's.
    pub source: String,
    /// First instant at which it can no longer be spent.
    pub(crate) expires_ms: Option<i64>,
    /// The reason.
    pub note: Option<String>,
}

impl Grant {
    /// A grant of whole units of a meter, without an end, from the source `operator`.
    pub fn new(id: impl Into<String>, meter: impl Into<String>, units: u64) -> Self {
        let (id, meter, source) = (id.into(), meter.into(), OPERATOR.to_owned());
        Self { id, meter, units, source, expires_ms: None, note: None }
    }

    /// Sets the end: from this instant the remainder can no longer be spent.
    #[must_use]
    pub fn expires(mut self, at: SystemTime) -> Self {
        self.expires_ms = Some(unix_ms(at));
        self
    }

    /// Sets the source.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets the reason.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// First instant at which it can no longer be spent, if it has an end.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_ms.map(time_at)
    }
}

/// A record as cached in this process: with its item's attributes outside the JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct PackedRecord<'a> {
    record: Cow<'a, TenantRecord>,
    surrogate: Surrogate,
    first_request_ms: Option<i64>,
    version: u64,
    change: u64,
}

impl PackedRecord<'_> {
    pub(crate) fn unpack(self) -> TenantRecord {
        let Self { record, surrogate, first_request_ms, version, change } = self;
        TenantRecord { surrogate, first_request_ms, version, change, ..record.into_owned() }
    }
}

impl TenantRecord {
    pub(crate) fn pack(&self) -> PackedRecord<'_> {
        PackedRecord {
            record: Cow::Borrowed(self),
            surrogate: self.surrogate,
            first_request_ms: self.first_request_ms,
            version: self.version,
            change: self.change,
        }
    }

    /// When its plan began.
    pub fn plan_since(&self) -> SystemTime {
        time_at(self.plan_since_ms)
    }

    /// The instant from which its billing cycles are counted, month by month.
    pub fn anchor(&self) -> SystemTime {
        time_at(self.anchor_ms)
    }

    /// Time of its first request, if there was one.
    pub fn first_request(&self) -> Option<SystemTime> {
        self.first_request_ms.map(time_at)
    }

    /// When it was erased, if it was: its id is then made from its surrogate, and it is suspended
    /// for good.
    pub fn erased(&self) -> Option<SystemTime> {
        self.erased_ms.map(time_at)
    }

    /// When its payment state began: grace periods are counted from here.
    pub fn payment_since(&self) -> SystemTime {
        time_at(self.payment_since_ms)
    }

    /// A new tenant, before its first version is written.
    pub(crate) fn begin(surrogate: Surrogate, id: &str, now_ms: i64) -> Self {
        Self {
            surrogate,
            id: id.to_owned(),
            plan: None,
            plan_since_ms: now_ms,
            anchor_ms: now_ms,
            first_request_ms: None,
            suspended: false,
            payment: PaymentState::Good,
            payment_since_ms: now_ms,
            overrides: Vec::new(),
            grants: Vec::new(),
            addons: BTreeMap::new(),
            sold_addons: Vec::new(),
            account: None,
            bought: None,
            eras: None,
            erased_ms: None,
            version: 0,
            change: 0,
        }
    }

    /// Drops ended entries, which stay in the history, and fails if the rest is too much.
    pub(super) fn prune(&mut self, now_ms: i64) -> Result<(), DirectoryError> {
        self.overrides.retain(|it| it.until_ms.is_none_or(|until| until > now_ms));
        let grant_ends = |it: &Grant| it.expires_ms.map(|end| end.saturating_add(KEEP_GRANT_MS));
        self.grants.retain(|it| grant_ends(it).is_none_or(|end| end > now_ms));
        if self.overrides.len() > MAX_OVERRIDES {
            return Err(DirectoryError::TooMany { what: "overrides", most: MAX_OVERRIDES });
        }
        if self.addons.len().max(self.sold_addons.len()) > MAX_ADDONS {
            return Err(DirectoryError::TooMany { what: "addons", most: MAX_ADDONS });
        }
        if self.grants.len() > MAX_GRANTS {
            return Err(DirectoryError::TooMany { what: "grants", most: MAX_GRANTS });
        }
        Ok(())
    }

    /// The write that makes this the version after `before`, by this change.
    pub(super) fn write(
        &self,
        key: Key,
        before: Option<&Self>,
        change: u64,
    ) -> Result<Write, StoreError> {
        let json = serde_json::to_vec(self)
            .map_err(|e| StoreError::new(StoreErrorKind::Invalid, format!("tenant: {e}")))?;
        let (format_name, format_value) = format(FORMAT);
        let when = match before {
            None => When::Absent,
            Some(before) => When::Equals(VERSION.into(), int(before.version)),
        };
        let set = |name: &'static str, value| Change::Set(Name::Borrowed(name), value);
        Ok(Write {
            key,
            when: vec![when],
            change: vec![
                Change::Set(format_name, format_value),
                set(VERSION, int(self.version)),
                set(CHANGE, int(change)),
                set(RECORD, Value::Bytes(json)),
            ],
        })
    }

    /// The write that records the first request, once.
    pub(super) fn write_first(key: Key, now_ms: i64) -> Write {
        Write {
            key,
            when: vec![When::Exists, When::Missing(FIRST.into())],
            change: vec![Change::Set(FIRST.into(), Value::Int(now_ms))],
        }
    }

    /// Reads a tenant's item.
    pub(super) fn read(surrogate: Surrogate, item: &Item) -> Result<Self, StoreError> {
        check_format(item, FORMAT, "a tenant's record")?;
        let damaged = |what: &str| {
            let message = format!("tenant {surrogate}: {what} cannot be read");
            StoreError::new(StoreErrorKind::Corrupt, message)
        };
        let json = item.bytes(RECORD).ok_or_else(|| damaged(RECORD))?;
        let body: Self = serde_json::from_slice(json).map_err(|_| damaged(RECORD))?;
        let number = |name| item.int(name).map(i64::cast_unsigned).ok_or_else(|| damaged(name));
        Ok(Self {
            surrogate,
            version: number(VERSION)?,
            change: number(CHANGE)?,
            first_request_ms: item.int(FIRST),
            ..body
        })
    }
}

/// Attributes are signed; a version never gets that high, a change is 64 random bits.
fn int(n: u64) -> Value {
    Value::Int(n.cast_signed())
}

fn no_tenant() -> Surrogate {
    Surrogate::new(0)
}
