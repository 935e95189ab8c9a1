//! Use on record, and the terms on which it is owed.

use std::sync::Arc;

use super::item::ItemId;
use crate::amount::Atoms;
use crate::ids::Surrogate;
use crate::ledger::totals::PeriodUse;
use crate::sheets::use_row::RowAtoms;

/// Use of one item, and the terms it is billed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DueUse {
    /// The item.
    pub id: ItemId,
    /// Atoms used in the period so far.
    pub used: Atoms,
    /// Of these: used beyond a quota that bills.
    pub over: Atoms,
    /// The terms they are billed under.
    pub terms: BillingTerms,
}

impl DueUse {
    /// Atoms owed.
    pub(crate) fn owed(&self) -> Atoms {
        if self.terms.overage { self.over } else { self.used }
    }
}

/// Billing terms of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BillingTerms {
    /// The customer at the service.
    pub customer: String,
    /// The event name of the meter at the service.
    pub event: String,
    /// Atoms to one unit of the service; at least 1.
    pub atoms_per_unit: u64,
    /// Whether only use beyond a quota that bills is owed (`send = "overage"`).
    pub overage: bool,
    /// When the billing period ends, Unix milliseconds.
    pub ends_ms: i64,
    /// Units used after that, if its end was learned of late.
    pub overrun: Option<Overrun>,
    /// Whether use too old to be dated into its period is dated into the open one, rather than
    /// never sent.
    pub carry: bool,
}

/// Units recorded in a period after its end, before that was learned of. Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overrun {
    /// The periods into which they are dated, each from its begin to its end, in order; at least
    /// one. They are the units recorded from a begin to the next.
    pub parts: Vec<(i64, i64)>,
    /// When every process had learned of the end.
    pub known_ms: i64,
    /// Atoms owed that were recorded by the begin of each part, and by the time at which the end
    /// was known; empty if that was not looked up, because nothing waits to be sent.
    pub owed: Vec<Atoms>,
}

impl Overrun {
    /// The instants by which recorded units are looked up.
    pub(super) fn instants(&self) -> Vec<i64> {
        let begins = self.parts.iter().map(|(from_ms, _)| *from_ms);
        begins.chain([self.known_ms]).collect()
    }
}

/// Use on record in the ledger, before its terms are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedUse {
    /// The item; `None` for use without an account, which is never billed later.
    pub id: Option<ItemId>,
    /// The tenant.
    pub tenant: Surrogate,
    /// The meter.
    pub meter: Arc<str>,
    /// Atoms.
    pub atoms: Atoms,
    /// Of these: used beyond a quota that bills.
    pub over: Atoms,
    /// Atoms to the meter's unit when it was counted.
    pub scale: u64,
    /// When the billing period began, Unix milliseconds.
    pub period_ms: i64,
}

impl From<PeriodUse> for RecordedUse {
    fn from(row: PeriodUse) -> Self {
        let PeriodUse { account, tenant, meter, scale, period_ms, atoms } = row;
        let (RowAtoms { used: atoms, over }, name) = (atoms, meter.clone());
        let id = account.map(|account| ItemId { account, tenant, meter: name, scale, period_ms });
        Self { id, tenant, meter, atoms, over, scale, period_ms }
    }
}
