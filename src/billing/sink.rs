//! The billing service as billing sees it: it takes meter events, tells sums, and has a clock.
//!
//! A sink makes one attempt per call, or repeats it itself within [`SEND_WITHIN`]; what it answers
//! must be true. [`Delivery::Delivered`] and [`Delivery::Refused`] are definite. Whatever is not
//! certain is [`Delivery::Unknown`]: the outbox decides what then.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Longest that [`BillingSink::send`] may take, repeats included. The outbox reckons that a send
/// takes effect within [`super::outbox::EFFECT_S`] of its mark, twice as long.
pub(crate) const SEND_WITHIN: Duration = Duration::from_secs(60);

/// The future of a sink's call. It owns what it needs.
pub(crate) type SinkFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// A meter event to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeterEvent {
    /// Names it for good: below 100 characters, the same in every repeat.
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

/// What became of a [`MeterEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It was accepted, now or before under the same identifier.
    Delivered,
    /// It was refused, by this attempt, and would be again. With the service's words.
    Refused(String),
    /// Nobody knows, or it was not taken for now. With the reason, without any secret.
    Unknown(String),
}

impl Delivery {
    /// As metrics name it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Refused(_) => "refused",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Which sum is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    /// The customer at the service.
    pub customer: String,
    /// The event name of the meter at the service.
    pub event: String,
    /// First second, at a full minute.
    pub from_s: i64,
    /// First second after it, at a full minute.
    pub until_s: i64,
}

/// The service did not answer a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the billing service: {0}")]
pub struct SinkError(pub String);

/// A billing service with meters.
pub(crate) trait BillingSink: Send + Sync + 'static {
    /// Whose account this is and in which mode: part of every identifier, so that test and live
    /// never share one.
    fn account(&self) -> String;

    /// How many events it takes at once, each of another customer and meter.
    fn at_once(&self) -> usize {
        32
    }

    /// The service's clock, in Unix seconds.
    fn time(&self) -> SinkFuture<Result<i64, SinkError>>;

    /// Sends an event.
    fn send(&self, event: MeterEvent) -> SinkFuture<Delivery>;

    /// What the service counted for a customer and meter in a span.
    fn sum(&self, sum: Sum) -> SinkFuture<Result<i64, SinkError>>;
}
