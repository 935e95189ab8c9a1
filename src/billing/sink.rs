//! The billing service as an interface: it takes meter events, returns sums, and has a clock.
//!
//! A sink makes one attempt per call, or repeats it itself within [`SEND_WITHIN`]; its answers must
//! be true. [`Delivery::Delivered`] and [`Delivery::Refused`] are definite. Any uncertain outcome
//! is [`Delivery::Unknown`]: the outbox decides how to go on.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Longest that [`BillingSink::send`] may take, repeats included. The outbox assumes that a send
/// takes effect within [`super::outbox::EFFECT_S`] of its mark, twice as long.
pub(crate) const SEND_WITHIN: Duration = Duration::from_secs(60);

/// The future of a sink's call. It owns its data.
pub(crate) type SinkFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// A meter event to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeterEvent {
    /// Its permanent name: below 100 characters, the same in every repeat.
    pub identifier: String,
    /// The customer at the service.
    pub customer: String,
    /// The event name of the meter at the service.
    pub event: String,
    /// Whole units of the service.
    pub value: u64,
    /// Unix seconds.
    pub timestamp_s: i64,
}

/// The outcome of a [`MeterEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Accepted, now or before under the same identifier.
    Delivered,
    /// Refused, and would be again; no attempt of this send can have taken effect. With the
    /// service's words.
    Refused(String),
    /// Uncertain, or not accepted for now. With the reason, without any secret.
    Unknown(String),
}

impl Delivery {
    /// The name in metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Refused(_) => "refused",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// The range of a sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    /// The customer at the service.
    pub customer: String,
    /// The event name of the meter at the service.
    pub event: String,
    /// First second, on a full minute.
    pub from_s: i64,
    /// End (exclusive), on a full minute.
    pub until_s: i64,
}

/// A question that the service did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the billing service: {0}")]
pub struct SinkError(pub String);

/// A billing service with meters.
pub(crate) trait BillingSink: Send + Sync + 'static {
    /// The account and its mode: part of every identifier, so that test and live never share one.
    fn account(&self) -> String;

    /// Most concurrent events that it takes, each of another customer and meter.
    fn at_once(&self) -> usize {
        32
    }

    /// The service's clock, in Unix seconds.
    fn time(&self) -> SinkFuture<Result<i64, SinkError>>;

    /// Sends an event.
    fn send(&self, event: MeterEvent) -> SinkFuture<Delivery>;

    /// The service's count for a customer and meter in a time span.
    fn sum(&self, sum: Sum) -> SinkFuture<Result<i64, SinkError>>;
}
