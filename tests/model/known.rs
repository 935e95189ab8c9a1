//! Where the gate is known not to do yet what the book says. What leads there is left out of the
//! histories, one word for each: take it away when that is repaired. docs/accuracy.md names them.

/// What a handler takes of a meter without a limit is of the billing period in which it takes it.
pub(crate) const TAKES_WHAT_IS_UNLIMITED: bool = false;

/// A process that has run for more than 400 days is found again after its end.
pub(crate) const OUTLIVES_400_DAYS: bool = false;

/// What is owed beyond a limit of 0 is billed when units that a request gives back pay it.
pub(crate) const BILLS_WHAT_COMES_BACK: bool = false;

/// What pays a debt is decided by each change of plans, limits and windows, and not by those
/// together that came since its tenant last asked: here who owes asks between them.
pub(crate) const PAYS_BY_EACH_CHANGE: bool = false;
