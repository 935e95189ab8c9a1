//! What is wrong with a gate at the moment, for a readiness check and for people.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::Gate;
use crate::clock::unix_ms;
use crate::wire::rfc3339;

/// The state of a gate at one moment. [`Gate::health`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Everything that is wrong at the moment; empty where nothing is.
    pub troubles: Vec<Trouble>,
}

impl Health {
    /// Whether this process is to be sent requests: `false` from the moment at which the gate
    /// begins to [`close`](Gate::close).
    ///
    /// No other trouble makes a process unready: it serves from its leases while the store is
    /// away, and the processes beside it have the same store.
    pub fn is_ready(&self) -> bool {
        !self.troubles.contains(&Trouble::Closing)
    }
}

/// `healthy`, or a line for each trouble.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.troubles.is_empty() {
            return f.write_str("healthy");
        }
        for (n, trouble) in self.troubles.iter().enumerate() {
            let break_ = if n > 0 { "\n" } else { "" };
            write!(f, "{break_}{trouble}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a gate. In [`Health`]; as text it says what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// The gate closes, or has closed.
    Closing,
    /// The store does not answer.
    StoreAway,
    /// Usage cannot be written, or waits for longer than it should. It is kept in memory, and in
    /// the journal where there is one.
    NotWritten {
        /// Age of the oldest usage that waits.
        oldest: Duration,
        /// The error of the last write, if it failed.
        error: Option<String>,
    },
    /// The plan file is broken or cannot be read: the previous plans are in force.
    PlanFile {
        /// The mistakes, as [`Gate::reload`] reports them.
        error: String,
    },
    /// The last report to Stripe failed. The next one sends what this one did not.
    NotReported {
        /// The cause.
        error: String,
        /// The last report of this process that succeeded.
        succeeded: Option<SystemTime>,
    },
    /// Usage that an operator has to decide about before it is billed: see the
    /// [audit](Gate::audit).
    BillingWaits {
        /// Number of entries and items.
        items: usize,
    },
    /// Entries for Stripe that reports leave without an outcome, although they succeed: for longer
    /// than Stripe's sums take to decide about one.
    OutboxOld {
        /// How long ago the minute of the oldest is.
        oldest: Duration,
        /// Number of entries without an outcome.
        entries: u64,
    },
    /// The wall clock is behind: windows turn and grants end by it.
    Clock {
        /// What it says.
        says: SystemTime,
        /// What is past for certain: when this release was made, or the plans in force were
        /// published.
        not_before: SystemTime,
    },
    /// A destination of alerts fails, as far as this process is the one that sends to it. What
    /// waits is sent once it takes them again.
    AlertsWait {
        /// Its name.
        destination: String,
        /// Number of alerts that wait for it.
        waiting: usize,
        /// Age of the oldest.
        oldest: Duration,
        /// Why the last delivery failed.
        error: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closing => f.write_str("the gate is closing"),
            Self::StoreAway => f.write_str(
                "the store does not answer: leases are served to their end, new callers get 503",
            ),
            Self::NotWritten { oldest, error } => {
                write!(f, "usage has not been written for {} s", oldest.as_secs())?;
                error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
            }
            Self::PlanFile { error } => {
                write!(f, "the plan file is not in force, the previous one is: {error}")
            }
            Self::NotReported { error, .. } => write!(f, "usage was not reported: {error}"),
            Self::BillingWaits { items } => {
                write!(f, "{items} billed items wait for an operator: read the audit")
            }
            Self::OutboxOld { oldest, entries } => {
                let hours = oldest.as_secs() / 3_600;
                write!(
                    f,
                    "{entries} entries for Stripe are without an outcome, the oldest for {hours} h"
                )
            }
            Self::Clock { says, not_before } => {
                let (says, not_before) = (text_of(*says), text_of(*not_before));
                write!(f, "the clock is wrong: it says {says}, and {not_before} is past")
            }
            Self::AlertsWait { destination, waiting, oldest, error } => {
                let seconds = oldest.as_secs();
                write!(f, "{waiting} alerts wait for {destination}, for {seconds} s: {error}")
            }
        }
    }
}

fn text_of(at: SystemTime) -> String {
    rfc3339(unix_ms(at))
}

impl Gate {
    /// What is wrong with this gate at the moment. It reads memory only, so that a readiness check
    /// may call it as often as it likes.
    ///
    /// ```
    /// # use tallygate::Gate;
    /// /// For `GET /readyz`: the status, and a text for people.
    /// fn ready(gate: &Gate) -> (u16, String) {
    ///     let health = gate.health();
    ///     (if health.is_ready() { 200 } else { 503 }, health.to_string())
    /// }
    /// ```
    pub fn health(&self) -> Health {
        let inner = &self.inner;
        let mut troubles = Vec::new();
        inner.troubles(&mut troubles);
        inner.outbound.alerts.troubles(&mut troubles);
        Health { troubles }
    }
}
