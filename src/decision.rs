//! Decisions on admission: allowed, or refused with the reason, the limit and when to retry.
//! [`wire`](crate::wire) turns them into responses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::amount::Amount;
use crate::clock::time_at;

/// The kind of limit a [`LimitState`] describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitKind {
    /// A rate, held by a token bucket.
    Rate,
    /// A quota over a window, or a grant.
    Quota,
    /// Requests in flight.
    Concurrency,
}

/// Origin of the numbers in a [`LimitState`]. In [`LimitState::source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// This process only.
    Process,
    /// Units leased from the shared pool: exact for this process, and as old as the last lease for
    /// other processes.
    Lease,
}

/// The unit of a limit, where HTTP has a word for it. In [`LimitState::unit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Calls, or the built-in meter `requests`.
    #[default]
    Calls,
    /// Bytes of bodies.
    Bytes,
    /// A meter of the plan file: its name is the unit.
    Other,
}

/// Where one limit stands for one caller, in atoms: the source of headers, refusals and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitReading {
    /// Limit per window, or the burst of a rate.
    pub(crate) limit: u64,
    /// What the caller could use next; what the request at hand holds and has not used is still
    /// left to it.
    pub(crate) remaining: u64,
    /// Time until it resets (quota), or until the full burst is back (rate).
    pub(crate) resets_in: Option<Duration>,
    /// Whether a soft limit is exceeded.
    pub(crate) past_soft: bool,
}

/// State of one limit at the moment of a decision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LimitState {
    /// Its name in headers and reports: `search`, `requests/month`.
    pub name: Arc<str>,
    /// The kind: rate, quota or concurrency.
    pub kind: LimitKind,
    /// The meter it counts; `None` counts calls.
    pub meter: Option<Arc<str>>,
    /// Its unit.
    pub unit: Unit,
    /// Limit per window (for a rate, per `window`, the time in which the full burst comes back).
    pub limit: Amount,
    /// What is left of it.
    pub remaining: Amount,
    /// Amount used, as far as this process knows; for a quota including any overage (reported late,
    /// or admitted by `over`).
    pub used: Amount,
    /// Length of the window, at least a second; `None` for a grant and for concurrency.
    pub window: Option<Duration>,
    /// Time until it resets (quota), or until the full burst is back (rate).
    pub resets_in: Option<Duration>,
    /// The same as Unix milliseconds, for quotas.
    pub(crate) resets_at_ms: Option<i64>,
    /// Origin of the numbers.
    pub source: Source,
    /// Whether a soft limit (`over = "allow"` or `"bill"`) is exceeded. It has no item in the limit
    /// headers then, but one in the header of warnings
    /// ([`warnings`](crate::wire::WireOptions::warnings)).
    pub past_soft: bool,
    /// Its units come from the plan; false: given to the tenant by themselves, or bought.
    pub(crate) of_plan: bool,
}

impl LimitState {
    /// Where it stands, in atoms.
    pub(crate) fn reading(&self) -> LimitReading {
        let Self { limit, remaining, resets_in, past_soft, .. } = *self;
        let (limit, remaining) = (limit.atoms(), remaining.atoms());
        LimitReading { limit, remaining, resets_in, past_soft }
    }

    /// When it resets, for quotas.
    pub fn resets_at(&self) -> Option<SystemTime> {
        self.resets_at_ms.map(time_at)
    }
}

/// Why a request was refused, with the HTTP status of each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No credential, or an unknown one (401).
    Unidentified,
    /// A rate is exceeded, or a quota that resets by itself is used up (429).
    Exhausted,
    /// Too many requests of this tenant are in flight (429).
    Concurrency,
    /// Waiting does not help: the trial is over, an invoice is unpaid, or a grant is used up (402).
    PaymentRequired(Payment),
    /// The plan lacks this feature (403).
    FeatureMissing(Arc<str>),
    /// The caller lacks this permission, which the route asks for with `needs-permission` (403).
    PermissionMissing(Arc<str>),
    /// A limit uses this scope and the caller has no value for it, with `no-scope = "refuse"` in
    /// the service file (403).
    ScopeMissing(Arc<str>),
    /// An operator suspended the tenant (403).
    Suspended,
    /// The gate cannot decide and fails closed (503).
    Unavailable,
    /// This process has as much in progress as `[capacity]` of the service file allows (503).
    Overloaded,
    /// The request states no length, and its bytes are counted (411).
    LengthRequired,
    /// The same idempotency key was used for another request (409).
    IdempotencyConflict,
    /// The program asks for units of this meter, which the plan file lacks, or has as a sum of
    /// others: a mistake of the program or of the plan file, which waiting does not cure.
    NotMetered(Arc<str>),
}

impl Reason {
    /// Whether shadow mode admits requests refused for this reason: all but those of unknown
    /// callers, of callers without a permission, and of tenants that an operator has suspended.
    pub(crate) fn yields_to_shadow(&self) -> bool {
        !matches!(self, Self::Unidentified | Self::PermissionMissing(_) | Self::Suspended)
    }
}

/// How a request ended. Adapters pass it to [`Serving::end`](crate::adapter::Serving::end); the
/// plan file's `charge-on` says which outcomes cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response was sent to its end.
    Complete {
        /// Its status.
        status: u16,
    },
    /// The client disconnected, or the request was dropped before there was a response.
    Aborted,
    /// The handler panicked or returned an error.
    Failed,
}

/// Why a payment is required. In [`Reason::PaymentRequired`].
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

/// The gate's decision not to admit a request or a piece of work. For a request it becomes a
/// response ([`Gate::refusal_reply`](crate::Gate::refusal_reply)), never an error of the service.
/// Work without a response gets it as an [`Error`](std::error::Error), which gives the reason in
/// one sentence.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The limit that refused; `None` if the reason is not a limit.
    pub limit: Option<LimitState>,
    /// Time to wait before a retry; `None` if waiting does not help.
    pub retry_after: Option<Duration>,
    /// The tenant's plan, if known.
    pub plan: Option<Arc<str>>,
    /// Where a person can pay or upgrade, as configured.
    pub billing_url: Option<Arc<str>>,
    /// The tenant's outer id, if the caller is known. For the host: it is in no response.
    pub tenant: Option<Arc<str>>,
    /// The user within the tenant, if the caller has one. For the host: it is in no response.
    pub user: Option<Arc<str>>,
    /// The id of the caller's API key, if it has presented one. For the host: it is in no response.
    pub key: Option<Arc<str>>,
    /// The refused request, for the host's own refusal format
    /// ([`GateBuilder::on_refusal`](crate::GateBuilder::on_refusal)); `None` without such a hook.
    /// A refusal that a handler returns gets it from the layer around it.
    pub call: Option<Box<RefusedCall>>,
    /// Where an API key goes, for a caller that has presented none that is known.
    pub(crate) keys_go_in: Option<Arc<str>>,
}

impl Refusal {
    /// A refusal of the host's own, for this reason. The layer adds the tenant and the request to
    /// one that a handler returns.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            limit: None,
            retry_after: None,
            plan: None,
            billing_url: None,
            tenant: None,
            user: None,
            key: None,
            call: None,
            keys_go_in: None,
        }
    }
}

/// A request that was refused, before its handler ran or by it. In [`Refusal::call`], for the hook
/// of [`GateBuilder::on_refusal`](crate::GateBuilder::on_refusal).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedCall {
    /// The method, upper case.
    pub method: String,
    /// The path as received, without the query; at most its first 2,048 bytes.
    pub path: String,
    /// The query as received, without the `?`; at most its first 2,048 bytes.
    pub query: Option<String>,
    /// The route's name in the plan file, if it matches one.
    pub route: Option<Arc<str>>,
    /// The caller's address, seen through the trusted proxies.
    pub peer: Option<IpAddr>,
    /// Its headers.
    pub(crate) headers: KeptHeaders,
}

impl RefusedCall {
    /// The first value of a header, by its lower-case name, such as `accept-language`: the language
    /// and the form of a host's own refusal. Headers that hold credentials are not kept
    /// (`authorization`, `proxy-authorization`, `cookie`, and those of API keys), nor are any after
    /// the first 8 KiB of names and values.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name)
    }
}

/// The headers of a refused request, one after the other in one text.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct KeptHeaders {
    text: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(u16, u16)>,
}

impl KeptHeaders {
    /// Most bytes of names and values: more than browsers send, and what most servers accept.
    const MOST: usize = 8 * 1_024;

    /// Keeps a header, if there is room.
    pub(crate) fn push(&mut self, name: &str, value: &[u8]) {
        if self.text.len() + name.len() + value.len() > Self::MOST {
            return;
        }
        self.text.extend_from_slice(name.as_bytes());
        let name_end = self.text.len() as u16;
        self.text.extend_from_slice(value);
        self.ends.push((name_end, self.text.len() as u16));
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.each().find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value)
    }

    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut from = 0;
        self.ends.iter().map(move |(name_end, end)| {
            let (name_end, end) = (usize::from(*name_end), usize::from(*end));
            let pair = (&self.text[from..name_end], &self.text[name_end..end]);
            from = end;
            pair
        })
    }
}

/// Names only: a value may be personal data.
impl std::fmt::Debug for KeptHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.each().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_set().entries(names).finish()
    }
}
