//! HTTP form of decisions: status, header pairs and body bytes, independent of any framework, so
//! that every adapter sends the same.
//!
//! # Laws
//!
//! 1. A refusal that waiting cures is 429 or 503 and states the wait; one that waiting cannot cure
//!    is 402 or 403 and states none, because SDKs retry 429 by themselves.
//! 2. Every refusal is `Cache-Control: no-store` and an RFC 9457 problem. It names the plan and the
//!    limit, never a credential or a tenant.
//! 3. `Retry-After` is whole seconds, rounded up, at least 1: a client that obeys is never early.
//! 4. Header values are legal, whatever a plan file calls its limits.
//!
//! Header names are lower case, as `http::HeaderName::from_static` requires.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::amount::Amount;
use crate::decision::{LimitKind, LimitState, Payment, Reason, Refusal};

mod fields;
mod grpc;
mod policy_text;
mod text;

#[doc(hidden)]
pub use fields::LimitHeader;
pub(crate) use fields::{HeaderItem, HeaderText, in_line, nearest, write_item};
pub use fields::{HeaderStyle, LegacyReset};
pub(crate) use fields::{expose, limit_headers, soft_warnings};
#[cfg(test)]
pub(crate) use fields::{policy_header, write_ratelimit};
pub use grpc::GrpcStatus;
pub(crate) use grpc::grpc_refusal;
#[cfg(feature = "tower")]
pub(crate) use grpc::{grpc_as_http, is_grpc};
#[doc(hidden)]
pub use policy_text::PolicyText;
#[doc(hidden)]
pub(crate) use text::{base64, rfc3339};

/// The response headers that a script of another origin must be able to read, as a value of
/// `Access-Control-Expose-Headers`. [`Gate::expose_headers`](crate::Gate::expose_headers) adds the
/// missing ones to a response.
pub const EXPOSE: &str = "RateLimit, RateLimit-Policy, Retry-After";

/// The media type of a refusal's body.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// A response, independent of any framework: an adapter or a handler writes it in its framework's
/// types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Header names in lower case, and their values in visible ASCII.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// The host's settings for headers and problem bodies, passed to
/// [`GateBuilder::wire`](crate::GateBuilder::wire).
#[derive(Clone, Debug)]
pub struct WireOptions {
    /// Which limit headers are sent.
    pub style: HeaderStyle,
    /// Prefix of `/problems/..` in our own problem types: empty (the types are relative to the
    /// service), or where the host documents them (`https://docs.example.com`).
    pub problem_base: Arc<str>,
    /// The value of `WWW-Authenticate` on a 401 (required by RFC 9110, section 15.5.2); by default
    /// `Bearer`.
    pub authenticate: Arc<str>,
    /// Lower-case name of a header that lists the limits past their soft threshold, on admitted
    /// responses, while there are any. `None` (the default) sends none; handlers see those limits
    /// in [`Admitted::limits`](crate::Admitted::limits).
    pub warnings: Option<&'static str>,
}

impl Default for WireOptions {
    fn default() -> Self {
        Self {
            style: HeaderStyle::default(),
            problem_base: Arc::from(""),
            authenticate: Arc::from("Bearer"),
            warnings: None,
        }
    }
}

/// Per-call data beside the decision itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// The wall clock, Unix milliseconds.
    pub wall_ms: i64,
}

impl Call {
    /// A call at this time.
    pub(crate) fn at(wall_ms: i64) -> Self {
        Self { wall_ms }
    }
}

/// How a reason is sent: over HTTP, and over gRPC in adapters that support it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Mapping {
    /// The status.
    pub status: u16,
    /// The name of the `google.rpc.Code`.
    pub grpc: &'static str,
    /// The problem type: absolute, or `/problems/..`, prefixed with [`WireOptions::problem_base`].
    pub problem: Cow<'static, str>,
    /// The problem's title, the same for every occurrence.
    pub title: Cow<'static, str>,
    /// Whether waiting helps, and so whether there is a `Retry-After`.
    pub retry: bool,
}

/// The type that the draft registers for an exhausted quota.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// The type that the draft registers for a service short of capacity.
const REDUCED: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

impl Mapping {
    /// The default mapping of a reason.
    pub fn of(reason: &Reason) -> Self {
        let (status, grpc, problem, title, retry) = Self::parts(reason);
        Self { status, grpc, problem: problem.into(), title: title.into(), retry }
    }

    /// Status, code, problem type and title, and whether waiting helps.
    fn parts(reason: &Reason) -> (u16, &'static str, &'static str, &'static str, bool) {
        match reason {
            Reason::Unidentified => (401, "UNAUTHENTICATED", "about:blank", "Unauthorized", false),
            Reason::Exhausted => {
                (429, "RESOURCE_EXHAUSTED", QUOTA_EXCEEDED, "Quota exceeded", true)
            }
            Reason::Concurrency => (
                429,
                "RESOURCE_EXHAUSTED",
                "/problems/concurrency-exceeded",
                "Too many requests in flight",
                true,
            ),
            Reason::PaymentRequired(_) => (
                402,
                "FAILED_PRECONDITION",
                "/problems/payment-required",
                "Payment required",
                false,
            ),
            Reason::FeatureMissing(_) => (
                403,
                "PERMISSION_DENIED",
                "/problems/feature-not-in-plan",
                "Feature not in plan",
                false,
            ),
            Reason::PermissionMissing(_) => (
                403,
                "PERMISSION_DENIED",
                "/problems/permission-missing",
                "Permission missing",
                false,
            ),
            Reason::ScopeMissing(_) => (
                403,
                "PERMISSION_DENIED",
                "/problems/scope-missing",
                "Caller cannot be distinguished from others",
                false,
            ),
            Reason::Suspended => {
                (403, "PERMISSION_DENIED", "/problems/suspended", "Suspended", false)
            }
            Reason::Unavailable => {
                (503, "UNAVAILABLE", REDUCED, "Temporarily unable to decide", true)
            }
            Reason::Overloaded => (503, "UNAVAILABLE", REDUCED, "Service at capacity", true),
            Reason::LengthRequired => {
                (411, "FAILED_PRECONDITION", "/problems/length-required", "Length required", false)
            }
            Reason::IdempotencyConflict => (
                409,
                "ALREADY_EXISTS",
                "/problems/idempotency-conflict",
                "Idempotency key used for another request",
                false,
            ),
            Reason::NotMetered(_) => {
                (500, "INTERNAL", "/problems/not-metered", "Misconfigured meter", false)
            }
        }
    }
}

/// A reason's word in logs and metrics: the last part of its problem's type.
pub(crate) fn reason_word(reason: &Reason) -> &'static str {
    match Mapping::parts(reason).2 {
        "about:blank" => "unidentified", // its problem has no type of its own
        problem => problem.rsplit(['/', '#']).next().unwrap_or(problem),
    }
}

/// A refusal as a response.
pub(crate) fn refusal(refusal: &Refusal, options: &WireOptions, call: Call) -> Reply {
    refusal_as(refusal, Mapping::of(&refusal.reason), options, call)
}

/// A refusal as a response with the host's own mapping.
pub(crate) fn refusal_as(
    refusal: &Refusal,
    how: Mapping,
    options: &WireOptions,
    call: Call,
) -> Reply {
    let mut headers =
        vec![("content-type", PROBLEM_JSON.to_owned()), ("cache-control", "no-store".to_owned())];
    if how.status == 401 && !options.authenticate.is_empty() {
        headers.push(("www-authenticate", options.authenticate.to_string()));
    }
    if how.retry {
        headers.push(("retry-after", retry_after(refusal).to_string()));
    }
    if let Some(limit) = &refusal.limit {
        fields::limit_headers(std::slice::from_ref(limit), options.style, call, &mut headers);
    }
    let problem = Problem { refusal, how: &how, options, wall_ms: call.wall_ms, has_header: true };
    let body = serde_json::to_vec(&problem).expect("a map of strings and numbers is JSON");
    Reply { status: how.status, headers, body }
}

/// A refusal's problem where there is no response with headers: the same body, with the seconds of
/// `Retry-After` as a member.
pub(crate) fn problem(refusal: &Refusal, options: &WireOptions, call: Call) -> serde_json::Value {
    let how = Mapping::of(&refusal.reason);
    let wall_ms = call.wall_ms;
    let problem = Problem { refusal, how: &how, options, wall_ms, has_header: false };
    serde_json::to_value(problem).expect("a map of strings and numbers is JSON")
}

/// Seconds to wait, at least 1: the refusal's own, else the time until the limit resets.
pub(crate) fn retry_after(refusal: &Refusal) -> u64 {
    let wait = refusal.retry_after.or_else(|| refusal.limit.as_ref()?.resets_in);
    fields::seconds_up(wait.unwrap_or(Duration::ZERO)).max(1)
}

/// A problem unrelated to any limit, such as a bad report query.
pub(crate) fn plain_problem(status: u16, title: &str, detail: &str) -> Reply {
    let body = serde_json::json!({
        "type": "about:blank", "title": title, "status": status, "detail": detail,
    });
    Reply {
        status,
        headers: vec![
            ("content-type", PROBLEM_JSON.to_owned()),
            ("cache-control", "no-store".to_owned()),
        ],
        body: body.to_string().into_bytes(),
    }
}

/// The body of a refusal.
struct Problem<'a> {
    refusal: &'a Refusal,
    how: &'a Mapping,
    options: &'a WireOptions,
    wall_ms: i64,
    /// `Retry-After` says when to come again.
    has_header: bool,
}

impl Serialize for Problem<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { refusal, how, options, wall_ms, has_header } = self;
        let mut map = serializer.serialize_map(None)?;
        let base = if how.problem.starts_with('/') { &*options.problem_base } else { "" };
        map.serialize_entry(
            "type",
            &format_args!("{}{}", base.trim_end_matches('/'), how.problem),
        )?;
        map.serialize_entry("title", &how.title)?;
        map.serialize_entry("status", &how.status)?;
        map.serialize_entry("detail", &detail(refusal))?;
        if how.retry && !has_header {
            map.serialize_entry("retry-after", &retry_after(refusal))?;
        }
        if let Some(limit) = &refusal.limit {
            map.serialize_entry("violated-policies", &[&limit.name])?;
        }
        match &refusal.reason {
            Reason::PaymentRequired(payment) => {
                map.serialize_entry("reason", payment_word(*payment))?;
            }
            Reason::FeatureMissing(feature) => map.serialize_entry("feature", feature)?,
            Reason::PermissionMissing(permission) => {
                map.serialize_entry("permission", permission)?;
            }
            _ => {}
        }
        if let Some(plan) = &refusal.plan {
            map.serialize_entry("plan", plan)?;
        }
        if let Some(limit) = &refusal.limit {
            map.serialize_entry("limit", &LimitBody { limit, wall_ms: *wall_ms })?;
        }
        if let Some(url) = &refusal.billing_url {
            map.serialize_entry("billing-url", url)?;
        }
        map.end()
    }
}

/// The member `limit`.
struct LimitBody<'a> {
    limit: &'a LimitState,
    wall_ms: i64,
}

impl Serialize for LimitBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let LimitState { name, limit, remaining, used, .. } = self.limit;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", name)?;
        limit.entry(&mut map, "limit", "limit-text")?;
        used.entry(&mut map, "used", "used-text")?;
        remaining.entry(&mut map, "remaining", "remaining-text")?;
        if let Some(at_ms) = fields::resets_at(self.limit, self.wall_ms) {
            map.serialize_entry("resets-at", &rfc3339(at_ms))?;
        }
        map.end()
    }
}

/// The sentence sent to the client, for logs.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&detail(self))
    }
}

/// For `?` outside of HTTP requests ([`Gate::admit`](crate::Gate::admit)).
impl std::error::Error for Refusal {}

/// One sentence for readers of the client's log.
pub(crate) fn detail(refusal: &Refusal) -> String {
    let limit = refusal.limit.as_ref().map(|limit| &*limit.name);
    let of_plan = refusal.plan.as_ref().map(|plan| format!(" (plan {plan})")).unwrap_or_default();
    match (&refusal.reason, limit) {
        (Reason::Unidentified, _) => match &refusal.keys_go_in {
            Some(headers) => {
                format!("Missing or unknown API credential. A key goes into {headers}.")
            }
            None => "Missing or unknown API credential.".into(),
        },
        (Reason::Exhausted, limit) => exhausted(refusal, limit, &of_plan),
        (Reason::Concurrency, _) => match &refusal.plan {
            Some(plan) => format!("Too many concurrent requests for plan {plan}."),
            None => "Too many concurrent requests.".into(),
        },
        (Reason::PaymentRequired(payment), _) => payment_detail(refusal, *payment),
        (Reason::FeatureMissing(feature), _) => match &refusal.plan {
            Some(plan) => format!("Plan {plan} does not include {feature}."),
            None => format!("The plan does not include {feature}."),
        },
        (Reason::PermissionMissing(permission), _) => {
            format!("The credential lacks the permission {permission}, which this call needs.")
        }
        (Reason::ScopeMissing(scope), _) => {
            format!("Requests are limited per {scope}, and this one has none.")
        }
        (Reason::Suspended, _) => "Access is suspended by the operator of this service.".into(),
        (Reason::Unavailable, _) => {
            "Usage cannot be checked at the moment. The request was not counted; retry.".into()
        }
        (Reason::Overloaded, _) => {
            "The service is at capacity. The request was not counted; retry.".into()
        }
        (Reason::LengthRequired, _) => {
            "Request bytes are metered. Send a Content-Length header.".into()
        }
        (Reason::IdempotencyConflict, _) => "This idempotency key was used with another request. \
             Use a new key for a new request."
            .into(),
        (Reason::NotMetered(meter), _) => {
            format!("The service cannot count {meter} here. Retrying does not help.")
        }
    }
}

/// Says that a limit has too little left, and when to come back.
fn exhausted(refusal: &Refusal, limit: Option<&str>, of_plan: &str) -> String {
    let kind = refusal.limit.as_ref().map(|limit| limit.kind);
    let wait = retry_after(refusal);
    let what = match (limit, kind, left(refusal)) {
        (None, ..) => "Limit exceeded".to_owned(),
        (Some(name), Some(LimitKind::Rate), _) => format!("Rate limit `{name}` exceeded"),
        (Some(name), ..) if is_held(refusal) => {
            format!("The rest of quota `{name}` is held by requests in progress")
        }
        (Some(name), _, None) => format!("Quota `{name}` used up"),
        (Some(name), _, Some(left)) => format!("Quota `{name}` has {left} left, less than asked"),
    };
    format!("{what}{of_plan}. Retry in {wait} s.")
}

/// Whether requests in progress hold what the quota lacks: it is worth asking again before it
/// resets.
fn is_held(refusal: &Refusal) -> bool {
    let (Some(limit), Some(wait)) = (&refusal.limit, refusal.retry_after) else { return false };
    limit.resets_in.is_none_or(|resets| wait < resets)
}

/// The remainder of the limit that refused, if any. Not for calls, which are asked for one at a
/// time.
fn left(refusal: &Refusal) -> Option<Amount> {
    let limit =
        refusal.limit.as_ref().filter(|it| it.meter.is_some() && !it.remaining.is_zero())?;
    Some(limit.remaining)
}

fn payment_detail(refusal: &Refusal, payment: Payment) -> String {
    let of_plan = refusal.plan.as_ref().map(|plan| format!(" of plan {plan}")).unwrap_or_default();
    let limit = refusal.limit.as_ref();
    let meter = limit.map_or("units", |limit| limit.meter.as_deref().unwrap_or("requests"));
    let units = match limit {
        Some(limit) if !limit.of_plan => format!("prepaid {meter}"),
        _ => format!("one-time {meter}{of_plan}"),
    };
    match (payment, left(refusal)) {
        (Payment::TrialOver, _) => format!("The trial{of_plan} has ended."),
        (Payment::Unpaid, _) => "An invoice is unpaid.".into(),
        (Payment::GrantUsedUp, Some(left)) => {
            format!("{left} left of the {units}, less than asked.")
        }
        (Payment::GrantUsedUp, None) if limit.is_some_and(|limit| limit.limit.is_zero()) => {
            format!("There are no {units}.")
        }
        (Payment::GrantUsedUp, None) => format!("The {units} are used up."),
    }
}

pub(crate) fn payment_word(payment: Payment) -> &'static str {
    match payment {
        Payment::TrialOver => "trial-over",
        Payment::Unpaid => "unpaid",
        Payment::GrantUsedUp => "grant-used-up",
    }
}

#[cfg(test)]
mod tests;
