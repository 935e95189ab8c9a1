//! Tenants as the host's own tables have them.
//!
//! The directory asks a source beside its own record, and writes what differs into that: leases,
//! reports and bills of all processes go by one record with one order of versions.

use std::time::SystemTime;

use super::record::{Override, PaymentState, TenantRecord};
use super::{Directory, DirectoryError, Tenant, TenantEdit};
use crate::clock::unix_ms;
use crate::store::StoreFuture;

/// Note in the history of what the host's tables have changed.
const NOTE: &str = "from the host's tables";

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
    /// log, until the file has it.
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
    /// first instant at which it no longer holds. At most 29 at once.
    #[must_use]
    pub fn override_(mut self, changes: impl Into<String>, until: Option<SystemTime>) -> Self {
        self.overrides.push((changes.into(), until.map(unix_ms)));
        self
    }

    /// Whether the record says the same at this time, Unix milliseconds.
    fn is_in(&self, record: &TenantRecord, now_ms: i64) -> bool {
        let holds = |until_ms: Option<i64>| until_ms.is_none_or(|until| until > now_ms);
        let held = record.overrides.iter().filter(|it| holds(it.until_ms));
        let held = held.map(|it: &Override| (it.changes.as_str(), it.until_ms));
        let own = self.overrides.iter().filter(|it| holds(it.1));
        self.plan.as_deref() == record.assigned_plan()
            && self.payment == record.assigned_payment()
            && held.eq(own.map(|it| (it.0.as_str(), it.1)))
    }

    /// The changes that make a tenant's record say the same.
    fn onto(&self, edit: TenantEdit) -> TenantEdit {
        let edit = match &self.plan {
            Some(plan) => edit.named_plan(plan),
            None => edit.default_plan(),
        };
        let edit = edit.payment(self.payment).end_overrides().note(NOTE);
        self.overrides
            .iter()
            .fold(edit, |edit, (changes, until_ms)| edit.override_until(changes, *until_ms, NOTE))
    }
}

impl Directory {
    /// Makes the tenant with this outer id what the host's tables say, or makes it anew.
    pub(crate) async fn take_over(
        &self,
        id: &str,
        host: &HostTenant,
        known: Option<&TenantRecord>,
    ) -> Result<Option<Tenant>, DirectoryError> {
        if known.is_some_and(|known| host.is_in(known, self.now_ms())) {
            return Ok(None);
        }
        host.onto(self.tenant(id)).save().await.map(Some)
    }
}
