//! The audit's findings: differences, each with its reason.

use std::fmt;

use crate::amount::Amount;
use crate::billing::outbox::Stopped;

/// A difference, with its reason: amounts of the meter, and whole units of the service. `Display`
/// says in a sentence what it is.
/// [`Audit::gaps`](super::Audit::gaps) lists them; `docs/billing.md` says what to do about each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gap {
    /// Used while the tenant had no account: never sent.
    NoAccount {
        /// How much.
        amount: Amount,
    },
    /// Used on an account, but without terms: the meter has no `stripe` in the plan file (any
    /// more), or the tenant is gone.
    NoTerms {
        /// How much.
        amount: Amount,
    },
    /// Owed, and sent with the next report.
    Waiting {
        /// Whole units of the service.
        units: u64,
    },
    /// Owed, too old to be sent, and not carried (`stripe.too-old = "name"`): never billed.
    TooOld {
        /// Whole units of the service.
        units: u64,
    },
    /// Less than a unit of the service: carried to the next entry of the period, or never sent.
    Remainder {
        /// How much.
        amount: Amount,
    },
    /// Sent without an answer, or about to be: the outbox will resolve it.
    Open {
        /// The entry's number.
        k: u64,
        /// Whole units of the service.
        units: u64,
    },
    /// An entry waits for an operator.
    Stopped {
        /// The entry's number.
        k: u64,
        /// Whole units of the service.
        units: u64,
        /// Why it waits.
        why: Stopped,
    },
    /// An entry was accepted, but the service's sum does not show it.
    Doubtful {
        /// The entry's number.
        k: u64,
        /// Whole units of the service.
        units: u64,
        /// The sum of its minute.
        sum: i64,
    },
    /// More was frozen than is owed: the recorded or owed amount has shrunk.
    Shrunk {
        /// Frozen beyond what is owed.
        amount: Amount,
    },
    /// The item's own books do not add up: its entries do not match the frozen amount.
    Books {
        /// Frozen.
        frozen: Amount,
        /// In its entries.
        entries: Amount,
    },
    /// The service counts a different amount for this customer and event.
    Counted {
        /// Whole units that were accepted, over all of its periods.
        sent: u64,
        /// Whole units counted there.
        counted: i64,
    },
}

impl Gap {
    /// Whether it resolves with the next reports, without any action.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Remainder { .. } | Self::Open { .. })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAccount { amount } => {
                write!(f, "{amount} units used before a customer was linked")
            }
            Self::NoTerms { amount } => {
                write!(f, "{amount} units of a meter that is no longer billed")
            }
            Self::Waiting { units } => write!(f, "{units} units wait for the next report"),
            Self::TooOld { units } => write!(f, "{units} units are too old to be sent"),
            Self::Remainder { amount } => {
                write!(f, "{amount} units are less than one of the service")
            }
            Self::Open { k, units } => write!(f, "entry {k} of {units} units has no answer yet"),
            Self::Stopped { k, units, why: Stopped::Refused(words) } => {
                write!(f, "entry {k} of {units} units was refused: {words}")
            }
            Self::Stopped { k, units, why: Stopped::Sum(sum) } => {
                write!(f, "entry {k} of {units} units: its minute's sum is {sum}")
            }
            Self::Doubtful { k, units, sum } => {
                write!(f, "entry {k} of {units} units was accepted, and its sum is {sum}")
            }
            Self::Shrunk { amount } => write!(f, "{amount} units were sent that are not owed now"),
            Self::Books { frozen, entries } => {
                write!(f, "{frozen} units are frozen, but the entries amount to {entries}")
            }
            Self::Counted { sent, counted } => {
                write!(f, "{sent} units were sent, the service counts {counted}")
            }
        }
    }
}
