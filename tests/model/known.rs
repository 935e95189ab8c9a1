//! Known gaps between the gate and the book. Events that lead to one are left out of the histories,
//! under one constant each: remove it when the gap is closed. docs/accuracy.md lists them.

/// What a handler takes of an unlimited meter belongs to the billing period in which it is taken.
pub(crate) const TAKES_WHAT_IS_UNLIMITED: bool = false;

/// A process that has run for more than 400 days is still found after its end.
pub(crate) const OUTLIVES_400_DAYS: bool = false;

/// A debt beyond a limit of 0 is billed when it is paid by units that a request gives back.
pub(crate) const BILLS_WHAT_COMES_BACK: bool = false;

/// Each change of plans, limits and windows decides by itself what pays a debt, not all changes
/// together since the tenant last asked: in the histories a debtor asks between them.
pub(crate) const PAYS_BY_EACH_CHANGE: bool = false;

/// What was carried into a later period is still known to the audit after 400 days.
pub(crate) const AUDITS_OLD_CARRIES: bool = false;
