//! Alerts that arrive: what an operator must hear of is written to the store, and kept there until
//! each destination has it. `docs/alerts.md` lists the kinds, and says how to set it up.
//!
//! # Laws
//!
//! 1. An alert has an id that follows from what it is about and when (kind, tenant, limit, use,
//!    period): whichever processes find it, and however often, it is one alert.
//! 2. An alert is written before its effect is (a plan's change, a key's end), or before it is
//!    noted that it was found (a limit's use), so that a crash in between leaves at worst one to be
//!    examined, never one that is lost. What was written in advance is sent once its effect has
//!    happened, and dropped once that never will.
//! 3. Each destination has its own queue, ordered by time. One process sends from it, an alert at a
//!    time, the oldest first; while that fails, those behind it wait. One that the destination
//!    itself refuses is set aside, and those behind it go on.
//! 4. An alert leaves the queue after it was noted as sent. If the process dies in between, or does
//!    not run for longer than it holds the queue's lock, another sends the alert once more under
//!    the same id, by which a receiver can tell; nothing else sends one twice.
//! 5. Everything is bounded: an alert waits for `KEEP_MS`, a queue holds `MAX_WAITING`, a delivery
//!    takes `SEND_WITHIN`. What is given up is logged and kept for inspection.
//!
//! Not promised: an order between alerts of several processes that is better than their clocks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

mod delivery;
pub(crate) mod kinds;
pub(crate) mod queue;
mod set_aside;
#[cfg(feature = "notify")]
mod signature;
#[cfg(feature = "notify")]
pub(crate) mod web;

pub(crate) use delivery::AlertDelivery;
pub(crate) use queue::{About, AlertQueue, Destination, Judge, Verdict, VerdictFuture};

/// How long an alert is tried: a week, in which someone looks at a receiver that is down.
pub(crate) const KEEP_MS: i64 = 7 * 86_400_000;

/// Most alerts that wait for one destination: some 10 MB. Past it the oldest are given up.
pub(crate) const MAX_WAITING: usize = 10_000;

/// Longest that one delivery takes: a receiver is to answer and then to work.
pub(crate) const SEND_WITHIN: Duration = Duration::from_secs(10);

/// An alert on its way to a destination. The argument of [`Notifier::deliver`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// Its id, the same whenever it is sent: a receiver that has seen it may drop it.
    pub id: String,
    /// Its kind: `tallygate.quota.exhausted`. `docs/alerts.md` lists them.
    pub kind: String,
    /// When it was found.
    pub at: SystemTime,
    /// A sentence for people.
    pub text: String,
    /// The JSON document that a webhook carries: `type`, `timestamp`, `data`.
    pub payload: String,
}

/// Why a notification was not delivered. The text is logged, and shown by `tallygate alerts test`:
/// it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotDelivered {
    /// The destination does not take any now. It is sent again later.
    Later(String),
    /// The same, and it has said for how long. At most an hour of that is waited out.
    NotBefore(Duration, String),
    /// The destination does not want this one. Those behind it go on; it is offered again, after
    /// pauses of 5 min to 6 h, for a week, in case that was a mistake. A destination that refuses
    /// three one after another is taken to refuse everything, and is offered few until it takes
    /// one.
    Refused(String),
}

impl fmt::Display for NotDelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(text) | Self::NotBefore(_, text) | Self::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for NotDelivered {}

/// The future of a [`Notifier`].
pub type NotifierFuture = Pin<Box<dyn Future<Output = Result<(), NotDelivered>> + Send + 'static>>;

/// A destination of alerts, for [`GateBuilder::notifier`](crate::GateBuilder::notifier). Webhooks
/// and Slack are ready to use from the service file, SNS and EventBridge with
/// `tallygate-notify-aws`.
///
/// One process at a time calls it, with one alert at a time, the oldest first; what it does not
/// take is offered again, after pauses of 5 s to 5 min. An alert comes twice only if a process ends
/// before it could note that the first delivery was made. For a broker of
/// your own:
///
/// ```
/// use tallygate::notify::{NotDelivered, Notification, Notifier, NotifierFuture};
/// # #[derive(Clone)] struct Client;
/// # impl Client {
/// #     async fn publish(&self, _: String, _: &str) -> Result<(), String> { Ok(()) }
/// # }
///
/// struct Topic(Client);
///
/// impl Notifier for Topic {
///     fn name(&self) -> &str {
///         "topic"
///     }
///
///     fn deliver(&self, alert: Notification) -> NotifierFuture {
///         let client = self.0.clone();
///         Box::pin(async move {
///             // The id is the same at each try: by it the broker can drop a repetition.
///             let sent = client.publish(alert.payload, &alert.id).await;
///             sent.map_err(|error| NotDelivered::Later(error.to_string()))
///         })
///     }
/// }
/// ```
pub trait Notifier: Send + Sync + 'static {
    /// Its name, the same at every start and in every process: the alerts that wait for it are
    /// found by it. 1 to 64 characters of `a-z0-9-`.
    fn name(&self) -> &str;

    /// Whether it takes alerts of this kind; all of them by default. Others are not written for
    /// it.
    fn wants(&self, kind: &str) -> bool {
        let _ = kind;
        true
    }

    /// Delivers one. A delivery that takes more than 10 s has failed.
    fn deliver(&self, notification: Notification) -> NotifierFuture;
}
