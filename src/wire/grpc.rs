//! Refusals over gRPC: a status with the standard details of `google.rpc`, sent as a trailers-only
//! response.
//!
//! # Laws
//!
//! 1. The code is that of the table in `docs/http.md`. Codes that clients retry by themselves
//!    (`UNAVAILABLE`) and codes that they may retry (`RESOURCE_EXHAUSTED`) come with a `RetryInfo`;
//!    no others do.
//! 2. The details name plan and limit, never a credential or a tenant.
//! 3. gRPC-Web is not gRPC: its calls are answered over HTTP like any other.
//!
//! Sources: "gRPC over HTTP2" (statuses, percent-encoding, `-bin` metadata) and
//! `google/rpc/{code,status,error_details}.proto`. The few messages are encoded by hand: eleven
//! fields do not justify a code generator.

use std::fmt::Write;

use super::{Call, Mapping, Reply, WireOptions, detail, fields, payment_word, retry_after, text};
use crate::decision::{LimitState, Reason, Refusal};

/// The media type of gRPC requests and responses.
const GRPC: &str = "application/grpc";

/// What is said of a call where request bytes are metered: its client can do nothing about it.
const NO_LENGTH: &str = "Request bytes are metered, and gRPC calls do not state their length. The \
                         operator of this service can leave the method out: a route with \
                         `cost = { METER = 0 }` in its plan file.";

/// The `domain` of an `ErrorInfo`.
const DOMAIN: &str = "tallygate";

/// Whether a request with this `content-type` is a gRPC call (`application/grpc`, perhaps with
/// `+proto` or parameters).
#[cfg(feature = "tower")]
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    let Some((media, rest)) = content_type.split_at_checked(GRPC.len()) else { return false };
    media.eq_ignore_ascii_case(GRPC.as_bytes()) && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// What a call that ended with this `grpc-status` is as an HTTP status, by `google/rpc/code.proto`;
/// 500 for what is no code, which clients take as `UNKNOWN`.
#[cfg(feature = "tower")]
pub(crate) fn grpc_as_http(status: &[u8]) -> u16 {
    match status {
        b"0" => 200,
        b"1" => 499,                // CANCELLED
        b"3" | b"9" | b"11" => 400, // INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE
        b"4" => 504,                // DEADLINE_EXCEEDED
        b"5" => 404,                // NOT_FOUND
        b"6" | b"10" => 409,        // ALREADY_EXISTS, ABORTED
        b"7" => 403,                // PERMISSION_DENIED
        b"8" => 429,                // RESOURCE_EXHAUSTED
        b"12" => 501,               // UNIMPLEMENTED
        b"14" => 503,               // UNAVAILABLE
        b"16" => 401,               // UNAUTHENTICATED
        _ => 500,                   // UNKNOWN, INTERNAL, DATA_LOSS
    }
}

/// A refusal as a gRPC status. A handler that passes on a refusal of
/// [`Usage::take`](crate::Usage::take) converts it to its framework's status, from code, message
/// and details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// The numeric `google.rpc.Code`.
    pub code: i32,
    /// One human-readable sentence.
    pub message: String,
    /// A protobuf `google.rpc.Status` with code, message and details.
    pub details: Vec<u8>,
}

impl GrpcStatus {
    /// The status for this refusal.
    ///
    /// Details: `RetryInfo` where waiting helps, `QuotaFailure` with the limit that refused,
    /// `ErrorInfo` where paying or another plan would help, `Help` with the billing page.
    pub fn of(refusal: &Refusal) -> Self {
        let how = Mapping::of(&refusal.reason);
        let message = match refusal.reason {
            // No client of gRPC can send it.
            Reason::LengthRequired => NO_LENGTH.to_owned(),
            _ => detail(refusal),
        };
        let code = code(how.grpc);
        let mut status = Message::default();
        status.number(1, code.unsigned_abs().into());
        status.text(2, &message);
        if how.retry {
            let mut delay = Message::default();
            delay.number(1, retry_after(refusal));
            let mut info = Message::default();
            info.message(1, &delay);
            status.any(3, "RetryInfo", &info);
        }
        if let Some(limit) = &refusal.limit {
            let mut failure = Message::default();
            failure.message(1, &violation(refusal, limit, &message));
            status.any(3, "QuotaFailure", &failure);
        }
        if let Some(info) = error_info(refusal) {
            status.any(3, "ErrorInfo", &info);
        }
        if let Some(url) = &refusal.billing_url {
            let mut link = Message::default();
            link.text(1, "Billing");
            link.text(2, url);
            let mut help = Message::default();
            help.message(1, &link);
            status.any(3, "Help", &help);
        }
        Self { code, message, details: status.0 }
    }
}

/// A refusal as the response to a gRPC call: HTTP 200, the status among the headers, no body.
pub(crate) fn grpc_refusal(refusal: &Refusal, options: &WireOptions, call: Call) -> Reply {
    let status = GrpcStatus::of(refusal);
    let mut details = String::new();
    // Unpadded, as the protocol requires of writers.
    text::base64(&status.details, &mut details).expect("writing to a String does not fail");
    details.truncate(details.trim_end_matches('=').len());
    let mut headers = vec![
        ("content-type", GRPC.to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("grpc-status", status.code.to_string()),
        ("grpc-message", percent_encoded(&status.message)),
        ("grpc-status-details-bin", details),
    ];
    if let Some(limit) = &refusal.limit {
        fields::limit_headers(std::slice::from_ref(limit), options.style, call, &mut headers);
    }
    Reply { status: 200, headers, body: Vec::new() }
}

/// The number of a code, by its name in a [`Mapping`].
fn code(name: &str) -> i32 {
    match name {
        "ALREADY_EXISTS" => 6,
        "PERMISSION_DENIED" => 7,
        "RESOURCE_EXHAUSTED" => 8,
        "FAILED_PRECONDITION" => 9,
        "INTERNAL" => 13,
        "UNAVAILABLE" => 14,
        "UNAUTHENTICATED" => 16,
        _ => 2, // UNKNOWN
    }
}

/// `QuotaFailure.Violation`: subject, description, metric, id, dimensions and value.
fn violation(refusal: &Refusal, limit: &LimitState, message: &str) -> Message {
    let mut violation = Message::default();
    if let Some(plan) = &refusal.plan {
        violation.text(1, &format!("plan:{plan}"));
    }
    violation.text(2, message);
    violation.text(4, limit.meter.as_deref().unwrap_or("requests"));
    violation.text(5, &limit.name);
    if let Some(plan) = &refusal.plan {
        violation.pair(6, "plan", plan);
    }
    violation.number(7, limit.limit.whole().min(i64::MAX.unsigned_abs()));
    violation
}

/// `ErrorInfo` for refusals that waiting does not cure: reason, domain, metadata.
fn error_info(refusal: &Refusal) -> Option<Message> {
    let reason = match &refusal.reason {
        Reason::PaymentRequired(payment) => {
            payment_word(*payment).to_ascii_uppercase().replace('-', "_")
        }
        Reason::FeatureMissing(_) => "FEATURE_NOT_IN_PLAN".to_owned(),
        Reason::PermissionMissing(_) => "PERMISSION_MISSING".to_owned(),
        Reason::ScopeMissing(_) => "SCOPE_MISSING".to_owned(),
        Reason::Suspended => "SUSPENDED".to_owned(),
        Reason::LengthRequired => "LENGTH_REQUIRED".to_owned(),
        _ => return None,
    };
    let mut info = Message::default();
    info.text(1, &reason);
    info.text(2, DOMAIN);
    if let Reason::FeatureMissing(feature) = &refusal.reason {
        info.pair(3, "feature", feature);
    }
    if let Reason::PermissionMissing(permission) = &refusal.reason {
        info.pair(3, "permission", permission);
    }
    if let Some(plan) = &refusal.plan {
        info.pair(3, "plan", plan);
    }
    Some(info)
}

/// Encodes `grpc-message`: everything but printable ASCII, and `%`, byte by byte.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                write!(out, "%{byte:02X}").expect("writing to a String does not fail");
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// A protobuf message under construction. Fields that are empty or 0 are omitted, as in proto3.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, field: u8, n: u64) {
        if n > 0 {
            self.varint(u64::from(field) << 3);
            self.varint(n);
        }
    }

    fn text(&mut self, field: u8, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn message(&mut self, field: u8, message: &Message) {
        self.bytes(field, &message.0);
    }

    /// One entry of a `map<string, string>`.
    fn pair(&mut self, field: u8, key: &str, value: &str) {
        let mut entry = Message::default();
        entry.text(1, key);
        entry.text(2, value);
        self.message(field, &entry);
    }

    /// A `google.protobuf.Any` around a message of `google.rpc`.
    fn any(&mut self, field: u8, name: &str, message: &Message) {
        let mut any = Message::default();
        any.text(1, &format!("type.googleapis.com/google.rpc.{name}"));
        any.message(2, message);
        self.message(field, &any);
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_is_grpc() {
        for grpc in ["application/grpc", "application/grpc+proto", "Application/GRPC;x=y"] {
            assert!(is_grpc(grpc.as_bytes()), "{grpc}");
        }
        for other in ["", "application/grp", "application/grpc-web", "application/json"] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }

    /// A handler that passes on a refusal is charged as over HTTP.
    #[test]
    #[cfg(feature = "tower")]
    fn a_refusal_costs_the_same_over_grpc() {
        for reason in [
            Reason::Unidentified,
            Reason::Exhausted,
            Reason::PaymentRequired(crate::decision::Payment::Unpaid),
            Reason::Suspended,
            Reason::Unavailable,
            Reason::Overloaded,
            Reason::LengthRequired,
            Reason::IdempotencyConflict,
            Reason::NotMetered("x".into()),
        ] {
            let how = Mapping::of(&reason);
            let status = grpc_as_http(code(how.grpc).to_string().as_bytes());
            assert_eq!(status / 100, how.status / 100, "{reason:?}");
        }
        let classes: Vec<_> =
            (0..18).map(|code| grpc_as_http(code.to_string().as_bytes()) / 100).collect();
        assert_eq!(classes, [2, 4, 5, 4, 5, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 4, 5]);
        assert_eq!([grpc_as_http(b""), grpc_as_http(b"ok")], [500, 500]);
    }

    #[test]
    fn a_message_survives_whatever_a_plan_is_called() {
        assert_eq!(percent_encoded("50 % of Größe\n~"), "50 %25 of Gr%C3%B6%C3%9Fe%0A~");
    }

    #[test]
    fn numbers_are_varints() {
        let mut message = Message::default();
        message.number(1, 150);
        message.number(2, 0);
        message.text(3, "");
        message.number(15, u64::MAX);
        assert_eq!(message.0[..3], [0x08, 0x96, 0x01]);
        assert_eq!(message.0[3..].len(), 1 + 10);
    }

    #[test]
    fn every_code_of_a_mapping_has_its_number() {
        let reasons = [
            Reason::Unidentified,
            Reason::Exhausted,
            Reason::Concurrency,
            Reason::PaymentRequired(crate::decision::Payment::Unpaid),
            Reason::FeatureMissing("x".into()),
            Reason::PermissionMissing("x".into()),
            Reason::Suspended,
            Reason::Unavailable,
            Reason::LengthRequired,
            Reason::IdempotencyConflict,
            Reason::NotMetered("x".into()),
        ];
        let codes = reasons.map(|reason| code(Mapping::of(&reason).grpc));
        assert_eq!(codes, [16, 8, 8, 9, 7, 7, 7, 14, 9, 6, 13]);
    }
}
