//! What admission answers: allowed, or refused with the reason, the limit and when to come back.
//! Never a bool. [`crate::wire`] turns it into a response.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What kind of limit a [`LimitState`] describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// A rate, held by a token bucket.
    Rate,
    /// A quota over a window, or a grant.
    Quota,
    /// Requests in flight.
    Concurrency,
}

/// Where the number in a [`LimitState`] came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This process alone.
    Process,
    /// Units leased from the shared pool: exact for this process, and as old as the last lease for
    /// the others.
    Lease,
}

/// What one unit of a limit is, where HTTP has a word for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Calls, or the built-in meter `requests`.
    #[default]
    Calls,
    /// Bytes of bodies.
    Bytes,
    /// A meter of the plan file: its name is the unit.
    Other,
}

/// How one limit stands at the moment of a decision. Amounts are atoms; divide by `scale` to show.
#[derive(Clone, Debug)]
pub struct LimitState {
    /// Its name in headers and reports: `search`, `requests/month`.
    pub name: Arc<str>,
    /// Rate, quota or concurrency.
    pub kind: LimitKind,
    /// The meter it counts; `None` counts calls.
    pub meter: Option<Arc<str>>,
    /// What one unit of it is.
    pub unit: Unit,
    /// Atoms to the unit.
    pub scale: u64,
    /// Most in a window (rate: in `window`, which is the time in which the full burst comes back).
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// What was used of it, and of a quota what was used beyond it (learned late, let through by
    /// `over`): as far as this process knows.
    pub used: u64,
    /// Length of the window, at least a second; `None` for a grant and for concurrency.
    pub window: Option<Duration>,
    /// When it starts anew (quota), or when the full burst is back (rate), from now.
    pub resets_in: Option<Duration>,
    /// The same as Unix milliseconds, for quotas.
    pub resets_at_ms: Option<i64>,
    /// Where the numbers came from.
    pub source: Source,
    /// Past a soft limit (`over = "allow"` or `"bill"`): no header item, a warning instead.
    pub past_soft: bool,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No credential, or an unknown one.
    Unidentified,
    /// A rate, or a quota that resets by itself.
    Exhausted,
    /// Too many requests of this tenant in flight.
    Concurrency,
    /// Waiting will not help: trial over, unpaid, a grant used up.
    PaymentRequired(Payment),
    /// The plan lacks this feature.
    FeatureMissing(Arc<str>),
    /// A limit goes by this scope, and the caller has no value of it (`no-scope = "refuse"`).
    ScopeMissing(Arc<str>),
    /// An operator suspended the tenant.
    Suspended,
    /// The gate cannot decide and fails closed.
    Unavailable,
    /// The request does not say how long it is, and its bytes are counted.
    LengthRequired,
    /// The same idempotency key came with another request.
    IdempotencyConflict,
}

impl Reason {
    /// Whether shadow mode lets through what was refused for this: everything but callers that are
    /// not known, and tenants that an operator has suspended.
    pub(crate) fn yields_to_shadow(&self) -> bool {
        !matches!(self, Self::Unidentified | Self::Suspended)
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response was sent to its end.
    Complete {
        /// Its status.
        status: u16,
    },
    /// The client went away, or the request was dropped before there was a response.
    Aborted,
    /// The handler panicked or returned an error.
    Failed,
}

/// What has to be paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payment {
    /// The trial is over.
    TrialOver,
    /// An invoice was not paid.
    Unpaid,
    /// Units granted once are used up.
    GrantUsedUp,
}

/// A refusal. It is a response, never an error of the service.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The limit that refused, where it was one.
    pub limit: Option<LimitState>,
    /// When to come back, where waiting helps.
    pub retry_after: Option<Duration>,
    /// The tenant's plan, where it is known.
    pub plan: Option<Arc<str>>,
    /// Where a person can pay or upgrade, as configured.
    pub billing_url: Option<Arc<str>>,
    /// The tenant's outer id, where the caller is known. For the host: no answer shows it.
    pub tenant: Option<Arc<str>>,
    /// The request that was refused, for the host's own form of refusals
    /// ([`GateBuilder::on_refusal`](crate::GateBuilder::on_refusal)); `None` where there is no such
    /// hook, and for what a handler asked for itself.
    pub call: Option<Box<RefusedCall>>,
}

/// A request that was refused before its handler ran.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedCall {
    /// The method, upper case.
    pub method: String,
    /// The path as it came, without the query; the first 2,048 bytes of it.
    pub path: String,
    /// The route's name in the plan file, where it is on one.
    pub route: Option<Arc<str>>,
    /// The caller's address, seen through the trusted proxies.
    pub peer: Option<IpAddr>,
}
