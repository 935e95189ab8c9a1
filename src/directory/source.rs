//! Tenants as the host's own tables have them.
//!
//! The directory asks a source beside its own record, and writes what differs into that: leases,
//! reports and bills of all processes go by one record with one order of versions.

use std::time::SystemTime;

use super::edit::{MAX_EDITS, check_plan_name};
use super::record::{Override, PaymentState, TenantRecord};
use super::{Directory, DirectoryError, Tenant, TenantEdit};
use crate::clock::unix_ms;
use crate::repeated::repeated;
use crate::store::StoreFuture;

/// Note in the history of what the host's tables have changed.
const NOTE: &str = "from the host's tables";

/// Most exceptions of a row: the other changes of one save are plan, payment state and the end of
/// the exceptions before.
const MOST_OVERRIDES: usize = MAX_EDITS - 3;

/// The host's own tables of tenants. Pass it to
/// [`GateBuilder::tenants`](crate::GateBuilder::tenants).
///
/// It is asked where the directory reads a tenant's record: at the first request of a tenant in
/// this process, and then while it calls, in the background from 15 s on and before a request from
/// 30 s on. One question at a time is asked about a tenant, and waited for at most 2 s.
///
/// ```
/// use tallygate::directory::{HostTenant, TenantSource};
/// use tallygate::store::{StoreError, StoreErrorKind, StoreFuture};
///
/// struct Organisations(/* a pool of connections */);
///
/// impl TenantSource for Organisations {
///     fn tenant(&self, id: &str) -> StoreFuture<Option<HostTenant>> {
///         let id = id.to_owned();
///         Box::pin(async move {
///             // SELECT plan FROM organisations WHERE id = $1
///             let row: Result<_, std::io::Error> = Ok((id == "acme").then_some("pro"));
///             let away = |e| StoreError::new(StoreErrorKind::Unavailable, format!("{e}"));
///             let row = row.map_err(away)?;
///             Ok(row.map(|plan| HostTenant::new().plan(plan)))
///         })
///     }
/// }
/// ```
pub trait TenantSource: Send + Sync + 'static {
    /// The tenant with this outer id; `None` if there is none. The future must not borrow, as a
    /// store's.
    ///
    /// # Errors
    ///
    /// A tenant in memory stays as last known, and another is refused with 503, as while the store
    /// is away.
    fn tenant(&self, id: &str) -> StoreFuture<Option<HostTenant>>;
}

/// What the host's tables say of a tenant: [`TenantSource::tenant`] returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTenant {
    plan: Option<String>,
    payment: PaymentState,
    overrides: Vec<(String, Option<i64>)>,
}

impl HostTenant {
    /// A tenant on the default plan, that owes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets its plan. A name that the plan file lacks means the default plan, with an error in the
    /// log, until the file has it; so does a name that no plan can have.
    #[must_use]
    pub fn plan(mut self, name: impl Into<String>) -> Self {
        self.plan = Some(name.into());
        self
    }

    /// Sets its payment state; `[billing]` of the plan file says what it does. Grace is counted
    /// from the reading that finds the state changed.
    #[must_use]
    pub fn payment(mut self, state: PaymentState) -> Self {
        self.payment = state;
        self
    }

    /// Adds an exception: `changes` are TOML in the words of a `[tenant.x]` table, `until` the
    /// first instant at which it no longer holds. At most 29 at once: of more, the last 29 count,
    /// as a later one wins. One that cannot be is left out, with an error in the log; the rest of
    /// the row counts without it.
    #[must_use]
    pub fn override_(mut self, changes: impl Into<String>, until: Option<SystemTime>) -> Self {
        self.overrides.push((changes.into(), until.map(unix_ms)));
        self
    }

    /// Whether the record says the same at this time, Unix milliseconds.
    fn is_in(&self, record: &TenantRecord, now_ms: i64) -> bool {
        let held = record.overrides.iter().filter(|it| holds(it.until_ms, now_ms));
        let held = held.map(|it: &Override| (it.changes.as_str(), it.until_ms));
        let own = self.overrides.iter().filter(|it| holds(it.1, now_ms));
        self.plan.as_deref() == record.assigned_plan()
            && self.payment == record.assigned_payment()
            && held.eq(own.map(|it| (it.0.as_str(), it.1)))
    }

    /// What of it can be, as a record would have it after it was written; the rest is logged.
    ///
    /// A row is never refused whole: its payment state counts, whatever else is wrong in it.
    fn sound(&self, id: &str, directory: &Directory) -> Self {
        let now_ms = directory.now_ms();
        let plan = self.plan.clone().filter(|name| match check_plan_name(name) {
            Ok(()) => true,
            Err(error) => {
                const TEXT: &str = "the host's tables name a plan that cannot be: the default \
                                    plan applies. Write the name of a plan in the plan file";
                repeated!(error, now_ms, TEXT; tenant = %id, %error);
                false
            }
        });
        let mut overrides = Vec::<(String, Option<i64>)>::new();
        // From the last, which wins: of equal ones it is the one that counts, and so of too many.
        for one in self.overrides.iter().rev().filter(|it| holds(it.1, now_ms)) {
            if overrides.contains(one) {
                continue;
            }
            if overrides.len() == MOST_OVERRIDES {
                const TEXT: &str = "the host's tables have too many exceptions for a tenant: only \
                                    the last ones count. Write fewer, each with several changes";
                repeated!(error, now_ms, TEXT; tenant = %id, most = MOST_OVERRIDES);
                break;
            }
            match directory.check_changes(&one.0) {
                Ok(()) => overrides.push(one.clone()),
                Err(error) => {
                    const TEXT: &str = "an exception in the host's tables cannot be: it is left \
                                        out. Write what a [tenant.x] table of the plan file may \
                                        have";
                    repeated!(error, now_ms, TEXT; tenant = %id, %error);
                }
            }
        }
        overrides.reverse();
        Self { plan, payment: self.payment, overrides }
    }

    /// The changes that make a tenant's record say the same.
    fn onto(&self, edit: TenantEdit) -> TenantEdit {
        let edit = edit.named_plan(self.plan.as_deref());
        let edit = edit.payment(self.payment).end_overrides().note(NOTE);
        self.overrides
            .iter()
            .fold(edit, |edit, (changes, until_ms)| edit.override_until(changes, *until_ms, NOTE))
    }
}

/// Whether an exception still holds at this time, both in Unix milliseconds.
fn holds(until_ms: Option<i64>, now_ms: i64) -> bool {
    until_ms.is_none_or(|until| until > now_ms)
}

impl Directory {
    /// Makes the tenant with this outer id what the host's tables say, or makes it anew; what they
    /// say that cannot be is left out.
    pub(crate) async fn take_over(
        &self,
        id: &str,
        host: &HostTenant,
        known: Option<&TenantRecord>,
    ) -> Result<Option<Tenant>, DirectoryError> {
        let is_known = |host: &HostTenant| known.is_some_and(|it| host.is_in(it, self.now_ms()));
        // As it is first: then nothing in it is parsed, at every reading but those of a change.
        if is_known(host) {
            return Ok(None);
        }
        let host = host.sound(id, self);
        if is_known(&host) {
            return Ok(None);
        }
        host.onto(self.tenant(id)).save().await.map(Some)
    }
}
