//! What the directory holds of a tenant: one item, written whole over the version it was made from.
//!
//! The item has the attributes `v` (format), `version`, `change` (which history entry made it),
//! `record` (JSON: it is read by people in a table browser, and rarely written) and `first` (the
//! first request, set once and beside the rest, because it is no change anybody makes).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bought::Bought;
use super::{DirectoryError, Surrogate};
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, Key, Name, StoreError, StoreErrorKind, Value, When, Write};

/// Most overrides of a tenant that hold at once.
const MAX_OVERRIDES: usize = 32;
/// Most grants of a tenant.
const MAX_GRANTS: usize = 64;
/// Most addons of a tenant.
const MAX_ADDONS: usize = 64;
/// How long a grant stays in the record after its end: as long as its pool can be asked for.
const KEEP_GRANT_MS: i64 = 40 * 24 * 60 * 60 * 1000;

const FORMAT: i64 = 1;
const VERSION: &str = "version";
const CHANGE: &str = "change";
const RECORD: &str = "record";
const FIRST: &str = "first";

/// A tenant, as the directory holds it. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TenantRecord {
    /// Its name in the ledger.
    #[serde(skip, default = "nobody")]
    pub surrogate: Surrogate,
    /// Its outer id.
    pub id: String,
    /// The plan that it is on, by name: its live subscription's, else the one assigned to it.
    /// `None`: the default plan.
    pub plan: Option<String>,
    /// Since when it has this plan.
    pub plan_since_ms: i64,
    /// From where its cycles are counted: when it was made, unless a live subscription, or the
    /// directory, says another instant.
    pub anchor_ms: i64,
    /// When its first request came: a trial's life begins here.
    #[serde(skip)]
    pub first_request_ms: Option<i64>,
    /// An operator has suspended it. Apart from payment, so that a paid invoice does not undo it.
    pub suspended: bool,
    /// How it stands with payment.
    pub payment: PaymentState,
    /// Since when it stands so: periods of grace are counted from here.
    pub payment_since_ms: i64,
    /// Exceptions made by operators; a later one wins.
    pub overrides: Vec<Override>,
    /// Units given once.
    pub grants: Vec<Grant>,
    /// Addons bought on top of its plan, by name, and how many of each.
    #[serde(default)]
    pub addons: BTreeMap<String, u64>,
    /// The billing account it belongs to, if billing knows it.
    pub account: Option<String>,
    /// Its last subscription, and what it stands before.
    #[serde(default)]
    pub(super) bought: Option<Box<Bought>>,
    /// Counts the changes, from 1.
    #[serde(skip)]
    pub version: u64,
    /// Which history entry made this version.
    #[serde(skip)]
    pub(super) change: u64,
}

/// How a tenant stands with payment; what each state means is in `[billing]`.
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

/// An exception made by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// What it changes, in the words of a `[tenant.x]` table (TOML).
    pub changes: String,
    /// First instant at which it no longer holds.
    pub until_ms: Option<i64>,
    /// Why it is there.
    pub note: String,
    /// When it was made.
    pub at_ms: i64,
}

/// Units given once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id, unique within the tenant: the same grant given twice is given once. 1 to 64 of
    /// letters, digits, `_`, `-` and `.`, because it stands in a key of the table.
    pub id: String,
    /// The meter, by name.
    pub meter: String,
    /// How many whole units of the meter, bytes of one that counts bytes: at least one. Kept as
    /// units, so that it is worth the same under every plan file.
    pub units: u64,
    /// Where it came from: `plan`, `topup`, `operator`, ..
    pub source: String,
    /// First instant at which it can no longer be spent.
    pub expires_ms: Option<i64>,
    /// Why it was given.
    pub note: Option<String>,
}

/// A record as it is kept in this process's memory: with what its item has beside the JSON.
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

    /// A tenant as it begins, before its first version is written.
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
            account: None,
            bought: None,
            version: 0,
            change: 0,
        }
    }

    /// Drops what has ended, which stays in the history, and refuses what does not fit then.
    pub(super) fn prune(&mut self, now_ms: i64) -> Result<(), DirectoryError> {
        self.overrides.retain(|it| it.until_ms.is_none_or(|until| until > now_ms));
        let grant_ends = |it: &Grant| it.expires_ms.map(|end| end.saturating_add(KEEP_GRANT_MS));
        self.grants.retain(|it| grant_ends(it).is_none_or(|end| end > now_ms));
        if self.overrides.len() > MAX_OVERRIDES {
            return Err(DirectoryError::TooMany { what: "overrides", most: MAX_OVERRIDES });
        }
        if self.addons.len() > MAX_ADDONS {
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

    /// The write that notes the first request, once.
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

/// Attributes are signed; a version never gets there, a change is 64 random bits.
fn int(n: u64) -> Value {
    Value::Int(n.cast_signed())
}

fn nobody() -> Surrogate {
    Surrogate::new(0)
}
