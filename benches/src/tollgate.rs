//! MorphIQ-Labs' `tollgate-admission` and `tollgate-axum`, the nearest peer: leases of units and a
//! rate in memory, usage written by a task of its own.
//!
//! Its decision is given the time and its usage goes nowhere; ours reads the clock and counts. Its
//! route is measured with all that it needs: a bearer credential known to the connection's cache,
//! its clock, request ids, and the writer of usage into its store in memory. It sends no limit
//! headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Runtime;
use tollgate_admission::{
    AdmissionEngine, ArcSwapSnapshotMap, LeaseSlot, NoGate, Principal, SnapshotMap,
};
use tollgate_auth::{CredentialVerifier, Verified};
use tollgate_axum::{
    AdapterConfig, BearerAuth, BufferedResponse, RequestIdSource, RequestIdUnavailable, Tollgate,
    TollgateConnection, Validated,
};
use tollgate_client::{
    AccountLeaseConfig, InstanceRuntime, InstanceRuntimeConfig, SnapshotManagerConfig, SystemClock,
    TrackedPrincipals, UsageWriterConfig,
};
use tollgate_core::{
    AccountId, AccountSnapshot, AccountStatus, CapacityClass, CostTable, CostUnits, FencingToken,
    Generation, LeaseGrant, LeaseId, LocalLease, LocalSharding, OpIndex, PermissionBits,
    PublishableSnapshot, RequestId, ResolvedLimits, UsageEvent, UsageSlot,
};
use tollgate_store::{AccountConfig, GrantPolicy, MemoryStore};

use crate::setup::Nothing;

/// The credential of its one caller, as long as one of ours.
pub const CREDENTIAL: &str = "tg_bench_0123456789abcdefghijklmnopqrstuvwxyzABCDEF";

const ACCOUNT: AccountId = AccountId(1);
const CALLER: Principal = Principal(1);

#[derive(Clone, Copy)]
struct Call;

impl OpIndex for Call {
    fn index(&self) -> usize {
        0
    }
}

/// Takes a usage event and keeps it nowhere.
struct Nowhere;

impl UsageSlot for Nowhere {
    fn record(self, event: UsageEvent) {
        std::hint::black_box(event);
    }
}

/// 2100: nothing here expires.
fn never() -> Timestamp {
    Timestamp::from_second(4_102_444_800).expect("a time")
}

fn snapshot() -> PublishableSnapshot {
    let limits = ResolvedLimits::new(4_096);
    let limits = limits.with_weighted_rate(u64::from(u32::MAX), u64::from(u32::MAX));
    let cost = CostTable::builder(CostUnits(1), CostUnits(1)).weight(&Call, CostUnits(0)).build();
    let snapshot = AccountSnapshot::builder(
        ACCOUNT,
        Generation(1),
        AccountStatus::Active,
        never(),
        PermissionBits::bit(0),
        limits,
        Arc::new(cost),
    );
    PublishableSnapshot::try_new(Arc::new(snapshot.build())).expect("a snapshot")
}

/// One admitted and committed request of a known account, out of reach of its rate and its lease.
pub fn decision() -> impl Fn() {
    let engine = AdmissionEngine::new(ArcSwapSnapshotMap::new());
    let slot = LeaseSlot::for_account(ACCOUNT);
    let grant = LeaseGrant {
        lease_id: LeaseId(1),
        account_id: ACCOUNT,
        fencing_token: FencingToken(1),
        units: CostUnits(u64::MAX / 2),
        expires_at: never(),
    };
    drop(slot.replace(Arc::new(LocalLease::new(grant, CostUnits::ZERO))));
    engine.map().install_publishable(CALLER, snapshot(), slot).expect("an account");
    let now = Timestamp::from_second(1_755_600_000).expect("a time");
    move || {
        let context = engine.begin(CALLER, PermissionBits::bit(0), now).expect("a known caller");
        let pending = context.admit(&[(Call, 1)], Nowhere, now).expect("room");
        let ready = pending.acquire_capacity(&NoGate).ok().expect("no gate");
        drop(ready.commit(RequestId(1), now).ok().expect("a lease that lasts"));
    }
}

struct Verifier;

impl CredentialVerifier for Verifier {
    fn verify(&self, credential: &[u8]) -> Option<Verified> {
        (credential == CREDENTIAL.as_bytes()).then(|| Verified::until(CALLER, never()))
    }
}

#[derive(Default)]
struct Ids(AtomicU64);

impl RequestIdSource for Ids {
    fn next_id(&self) -> Result<RequestId, RequestIdUnavailable> {
        Ok(RequestId(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1))
    }
}

/// Its route, and what runs behind it.
pub struct Route {
    pub router: Router,
    runtime: InstanceRuntime,
}

impl Route {
    /// A route that answers one word to a funded account.
    pub fn start(rt: &Runtime) -> Self {
        rt.block_on(async {
            let store = MemoryStore::new(GrantPolicy::default()).expect("a store");
            store.create_account(AccountConfig {
                account_id: ACCOUNT,
                initial_balance: CostUnits(u64::MAX / 4),
                status: AccountStatus::Active,
                capacity_class: CapacityClass::Assured,
            });
            store.publish_snapshot(CALLER, snapshot()).expect("an account");
            let clock = Arc::new(SystemClock);
            let parts = (store.clone(), store.clone(), store.clone(), clock.clone());
            let spawned = InstanceRuntime::spawn(parts.0, parts.1, parts.2, parts.3, config());
            let (runtime, handle) = spawned.expect("its tasks");
            while !handle.readiness(Timestamp::now()).is_ready() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let adapter = Tollgate::new(AdapterConfig {
                runtime: handle,
                authenticator: BearerAuth::new(Arc::new(Verifier)),
                clock,
                request_ids: Ids::default(),
                capacity: NoGate,
            });
            let route = adapter.post(
                Call,
                PermissionBits::bit(0),
                || Ok(Validated::new((), 1)),
                |(), _| async { BufferedResponse::bytes(StatusCode::OK, "found") },
            );
            Self { router: Router::new().route("/v1/search", route), runtime }
        })
    }

    /// Ends its tasks.
    pub fn stop(self, rt: &Runtime) {
        drop(self.router);
        rt.block_on(self.runtime.shutdown()).expect("its usage is written");
    }
}

/// A request of its caller over a connection that has shown the credential before.
pub fn request(connection: &TollgateConnection) -> Request<Nothing> {
    let mut request = crate::setup::request("authorization", &format!("Bearer {CREDENTIAL}"));
    *request.method_mut() = http::Method::POST;
    request.extensions_mut().insert(ConnectInfo(connection.clone()));
    request
}

/// As its guide has it, with room for what a measurement leaves in its queue.
fn config() -> InstanceRuntimeConfig {
    InstanceRuntimeConfig {
        snapshots: SnapshotManagerConfig {
            principals: TrackedPrincipals::Fixed(vec![CALLER]),
            refresh_interval: Duration::from_secs(1),
            unknown_ttl: SignedDuration::from_secs(1),
            revoked_ttl: SignedDuration::from_secs(1),
            retry_backoff: Duration::from_millis(50),
            max_concurrent_fetches: 1,
            fetch_timeout: Duration::from_secs(1),
            enumeration_timeout: Duration::from_secs(1),
        },
        leases: AccountLeaseConfig {
            target_grant: CostUnits(1_000_000_000),
            low_water: CostUnits(100_000_000),
            lease_ttl: SignedDuration::from_secs(300),
            expiry_safety_margin: SignedDuration::from_secs(2),
            poll_interval: Duration::from_millis(50),
            store_call_timeout: Duration::from_secs(1),
            shutdown_release_deadline: Duration::from_secs(1),
        },
        usage: UsageWriterConfig {
            queue_capacity: QUEUE,
            max_batch: 1_000,
            flush_interval: Duration::from_millis(5),
            retry_backoff: Duration::from_millis(50),
            shutdown_drain_deadline: Duration::from_secs(5),
            ingest_timeout: Duration::from_secs(1),
        },
        sharding: LocalSharding::SINGLE,
        snapshot_history_capacity: ArcSwapSnapshotMap::DEFAULT_GENERATION_CAPACITY,
        idle_account_linger: Duration::from_secs(30),
        manager_restart_backoff: Duration::from_millis(50),
        shutdown_deadline: Duration::from_secs(10),
    }
}

/// Usage events that wait for its writer.
const QUEUE: usize = 65_536;
