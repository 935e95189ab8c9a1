//! Known mistakes of lease protocols, and of what a tenant may use and owes, planted on purpose:
//! each is one that was made before, here or elsewhere, and the simulation (`tests/simulation/`) or
//! the plain model (`tests/model/`) must catch every one by name.
//!
//! Only cold code asks for them, and only under the feature `testing`: in any other build the
//! answer is a constant.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Lease operations do not name the entry that they replace.
    UnchainedOperations,
    /// A grant without an answer is taken for applied.
    AssumedGrants,
    /// A lease ends by time: what a silent writer has not recorded is handed out again.
    ExpiryByTime,
    /// Units above the ceiling are taken back without ending the log first.
    MissingSeal,
    /// What an entry pre-authorised is not left to it.
    PreauthorisedIgnored,
    /// A writer that was sealed begins anew without what it had not recorded.
    MissingCarry,
    /// Records say how much came to it, and are written again after a lost reply.
    IncrementsWithRetry,
    /// A slot of the log is written over.
    UnconditionalRecords,
    /// A process that lost its disk is the same writer again.
    ReusedIncarnations,
    /// After a restart what was recorded is taken for all that was served.
    RestartTrustsJournal,
    /// Each node adds the difference between its old limit and its new one.
    LimitChangePerNode,
    /// A limit is written whatever its revision.
    LimitsWithoutOrder,
    /// A sealed writer lowers its entry while permits are open.
    FenceIgnoresOpenPermits,
    /// A first grant names no generation.
    FoldWithoutGeneration,
    /// A debt is forgotten with the next grant.
    DebtNotRepaid,
    /// Pools are forgotten soon after their window.
    EarlyExpiry,
    /// A ceiling holds as soon as it is proposed.
    CeilingBeforeRecord,
    /// A key counts as charged once it is claimed, and its use goes through the log later.
    ClaimThenLog,
    /// What a sub-pool is fed is added to it again when the reply was lost.
    FedByIncrement,
    /// A page of a log with fewer slots than were asked for is taken for its last.
    ShortPageIsTheEnd,
    /// Late use is not paid by grants.
    LateUseLeavesGrants,
    /// A cost is paid by one number or by none.
    NoCostIsSplit,
    /// The grant that expires last is drawn first.
    LastExpiryFirst,
    /// A stream goes on in the window and plan that it began in.
    StreamsStayInTheirWindow,
    /// A suspended tenant's streams get more.
    SuspendedStreamsDraw,
    /// Units that plans grant once belong to the plan.
    OnceByPlan,
    /// What nothing pays for is not owed.
    NothingIsOwed,
    /// A debt waits for the end of open requests, also where a grant could pay it.
    DebtsWaitForStreams,
    /// A change acts once it is read again.
    ChangesActLate,
    /// Who comes back to a plan begins with new leases.
    PlansForgetLeases,
    /// A lease that has not seen its pool takes it for unused.
    UnseenIsUnused,
    /// A debt is not told less by a limit that was raised.
    RaisedLimitsPayNothing,
}

impl Plant {
    /// Those of lease protocols.
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

    /// Those of what a tenant may use and owes, which one process makes alone: the plain model
    /// catches them (`tests/model/`).
    pub const OF_THE_BOOK: [Self; 12] = [
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
    ];
}

/// Whether this mistake is to be made.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn planted(plant: Plant) -> bool {
    in_thread::PLANT.get() == Some(plant)
}

/// Whether this mistake is to be made: no.
#[cfg(not(any(test, feature = "testing")))]
pub(crate) const fn planted(_: Plant) -> bool {
    false
}

/// After which silence a writer is sealed: no rule of safety depends on it, and a simulation has
/// the living sealed more often than they would be.
pub(crate) fn patience(usual: std::time::Duration) -> std::time::Duration {
    #[cfg(any(test, feature = "testing"))]
    if let Some(ms) = in_thread::PATIENCE.get() {
        return std::time::Duration::from_millis(ms);
    }
    usual
}

/// With how many writers a pool is split, and into how many sub-pools: a test has few writers.
pub(crate) fn split_at(usual: usize) -> usize {
    #[cfg(any(test, feature = "testing"))]
    if let Some((at, _)) = in_thread::SPLIT.get() {
        return at;
    }
    usual
}

/// See [`split_at`].
pub(crate) fn shards(usual: u16) -> u16 {
    #[cfg(any(test, feature = "testing"))]
    if let Some((_, shards)) = in_thread::SPLIT.get() {
        return shards;
    }
    usual
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod in_thread {
    use std::cell::Cell;

    use super::Plant;

    thread_local! {
        pub(crate) static PLANT: Cell<Option<Plant>> = const { Cell::new(None) };
        /// After which silence a writer is sealed, in milliseconds, instead of the usual one.
        pub(crate) static PATIENCE: Cell<Option<u64>> = const { Cell::new(None) };
        /// Beyond how many writers a pool is split, and into how many sub-pools.
        pub(crate) static SPLIT: Cell<Option<(usize, u16)>> = const { Cell::new(None) };
        /// Who the next writer is to be, under [`Plant::ReusedIncarnations`].
        pub(crate) static WRITER: Cell<u128> = const { Cell::new(1) };
    }
}
