//! Mutations: known mistakes in lease protocols, and in what a tenant may use and owes, planted on
//! purpose. Each has been made before, here or elsewhere, and the simulation (`simulation.rs`), the
//! plain model (`model.rs`) or a test of whole gates (`gate.rs`) must catch every one by name.
//!
//! This is a module of the copy that `run` makes of the crate; the patches beside it plant the
//! mistakes there.

use std::cell::Cell;

/// Whether to make this mistake.
macro_rules! planted {
    ($mistake:ident) => {
        $crate::planted::is_planted($crate::planted::Plant::$mistake)
    };
}

/// A planted mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Lease operations do not name the entry they replace.
    UnchainedOperations,
    /// A grant without an answer is assumed applied.
    AssumedGrants,
    /// A lease ends by time: units that a silent writer has not recorded are handed out again.
    ExpiryByTime,
    /// Units above the ceiling are taken back without ending the log first.
    MissingSeal,
    /// An entry's pre-authorised units are not left to it.
    PreauthorisedIgnored,
    /// A sealed writer restarts without what it had not recorded.
    MissingCarry,
    /// Records hold increments, and are written again after a lost reply.
    IncrementsWithRetry,
    /// A log slot is overwritten.
    UnconditionalRecords,
    /// A process that lost its disk reuses its writer id.
    ReusedIncarnations,
    /// After a restart, the recorded usage is taken for all usage served.
    RestartTrustsJournal,
    /// Each node adds the difference between its old and its new limit.
    LimitChangePerNode,
    /// A limit is written regardless of its revision.
    LimitsWithoutOrder,
    /// A sealed writer lowers its entry while permits are open.
    FenceIgnoresOpenPermits,
    /// A first grant does not name a generation.
    FoldWithoutGeneration,
    /// A debt is forgotten at the next grant.
    DebtNotRepaid,
    /// Pools are deleted soon after their window.
    EarlyExpiry,
    /// A ceiling is in force once proposed.
    CeilingBeforeRecord,
    /// A key counts as charged once claimed, and its usage goes through the log later.
    ClaimThenLog,
    /// Units fed to a sub-pool are added again after a lost reply.
    FedByIncrement,
    /// A log page with fewer slots than requested is taken for the last.
    ShortPageIsTheEnd,
    /// Late usage is not paid by grants.
    LateUseLeavesGrants,
    /// A cost is paid by included units or by grants, never by both.
    NoCostIsSplit,
    /// The grant that expires last is drawn first.
    LastExpiryFirst,
    /// A stream stays in the window and plan it began in.
    StreamsStayInTheirWindow,
    /// A suspended tenant's streams draw more units.
    SuspendedStreamsDraw,
    /// Units that plans grant once belong to the plan.
    OnceByPlan,
    /// Unpaid usage is not owed.
    NothingIsOwed,
    /// A debt waits for open requests to end, even if a grant could pay it.
    DebtsWaitForStreams,
    /// A change takes effect only when it is read again.
    ChangesActLate,
    /// A tenant that returns to a plan starts with new leases.
    PlansForgetLeases,
    /// A lease that has not read its pool assumes it unused.
    UnseenIsUnused,
    /// Raising a limit does not reduce a debt.
    RaisedLimitsPayNothing,
    /// Of two costs of one meter the first stands alone.
    FirstCostStands,
    /// An upgraded connection is no longer in flight.
    UpgradesAreOver,
    /// Work that settles has used nothing of a reported meter, whatever it stated.
    StatedCostsAreForgotten,
    /// A handler draws all it takes, beside what its request holds.
    HoldsAreNotTaken,
    /// Use beyond a quota that denies is not reported.
    UseBeyondIsHidden,
    /// Overage is recorded for quotas of the billing cycle alone.
    OnlyCyclesAreBilled,
    /// Ingested usage is not paid by grants.
    IngestLeavesGrants,
    /// Units held of a sum are held for none of its parts.
    SumsHoldForNoPart,
    /// A stated `Content-Length` is charged, whatever is read.
    StatedLengthsAreCharged,
    /// The ids of work have as many free repeats as a client's keys.
    IdsAreKeys,
    /// A charged id is forgotten as one is that is only held.
    ChargedIdsExpire,
}

impl Plant {
    /// Mistakes in lease protocols.
    pub const ALL: [Self; 20] = [
        Self::UnchainedOperations,
        Self::AssumedGrants,
        Self::ExpiryByTime,
        Self::MissingSeal,
        Self::PreauthorisedIgnored,
        Self::MissingCarry,
        Self::IncrementsWithRetry,
        Self::UnconditionalRecords,
        Self::ReusedIncarnations,
        Self::RestartTrustsJournal,
        Self::LimitChangePerNode,
        Self::LimitsWithoutOrder,
        Self::FenceIgnoresOpenPermits,
        Self::FoldWithoutGeneration,
        Self::DebtNotRepaid,
        Self::EarlyExpiry,
        Self::CeilingBeforeRecord,
        Self::ClaimThenLog,
        Self::FedByIncrement,
        Self::ShortPageIsTheEnd,
    ];

    /// Mistakes in what a tenant may use and owes, which need one process only: the plain model
    /// (`tests/model/`) catches them.
    pub const OF_THE_BOOK: [Self; 19] = [
        Self::LateUseLeavesGrants,
        Self::NoCostIsSplit,
        Self::LastExpiryFirst,
        Self::StreamsStayInTheirWindow,
        Self::SuspendedStreamsDraw,
        Self::OnceByPlan,
        Self::NothingIsOwed,
        Self::DebtsWaitForStreams,
        Self::ChangesActLate,
        Self::PlansForgetLeases,
        Self::UnseenIsUnused,
        Self::RaisedLimitsPayNothing,
        Self::FirstCostStands,
        Self::UpgradesAreOver,
        Self::StatedCostsAreForgotten,
        Self::HoldsAreNotTaken,
        Self::UseBeyondIsHidden,
        Self::OnlyCyclesAreBilled,
        Self::IngestLeavesGrants,
    ];
}

thread_local! {
    static PLANT: Cell<Option<Plant>> = const { Cell::new(None) };
    static WRITER: Cell<u128> = const { Cell::new(1) };
}

/// Makes gates on this thread commit this mistake. `writer` is the next writer's id, for
/// [`Plant::ReusedIncarnations`].
pub fn plant(mistake: Option<Plant>, writer: u128) {
    PLANT.set(mistake);
    WRITER.set(writer);
}

pub(crate) fn is_planted(mistake: Plant) -> bool {
    PLANT.get() == Some(mistake)
}

/// Does this with another mistake where `mistake` is planted.
pub(crate) fn as_if<T>(mistake: Plant, other: Plant, work: impl FnOnce() -> T) -> T {
    let planted = is_planted(mistake);
    PLANT.with(|it| planted.then(|| it.set(Some(other))));
    let done = work();
    PLANT.with(|it| planted.then(|| it.set(Some(mistake))));
    done
}

/// The id of the next writer.
pub(crate) fn writer() -> crate::ids::WriterId {
    crate::ids::WriterId::from_stored_bytes(WRITER.get().to_le_bytes())
}
