//! Memory of a tenant, and that unknown callers take none.
//!
//! CI counts over few; the complete runs are
//! `TALLYGATE_TENANTS=1000000 TALLYGATE_STRANGERS=10000000 cargo test --release --features testing
//! --test cost memory`. Everything runs on the test's own thread, on which the allocator counts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tallygate::adapter::{Answer, Step, Waited};
use tallygate::middleware::HttpView;
use tallygate::store::Memory;
use tallygate::testing::{START_MS, doze};
use tallygate::{Gate, GateBuilder, ManualClock};
use tokio::runtime::{Builder, Runtime};

const PLANS: &str = r#"
    default-plan = "team"
    [plan.team]
    rate.default   = "50/s burst 100"
    quota.requests = "1M/month"
"#;

const SERVICE: &str = r#"
    [store]
    kind = "memory"
    [[identify]]
    api-key = "x-api-key"
    pepper = [{ id = "1", file = "PEPPER" }]
    [[identify]]
    header = "x-tenant"
    [identity]
    unknown = "UNKNOWN"
    [proxy]
    trust = ["127.0.0.0/8"]
    [flush]
    mode = "fast"
"#;

/// Bytes of a tenant that has called once, with its lease and its caller: after a minute without a
/// call, and before.
const MOST_ASLEEP: i64 = 512;
const MOST_AWAKE: i64 = 1_888;

/// More unknown callers than their table has slots. Memory that more of them add is memory that
/// each of them takes; CI counts three times as many.
const STRANGERS: u64 = 70_000;

/// Calls of the known caller, for any number of unknown ones: each is recorded in the store, which
/// is in memory here.
const KNOWN_CALLS: u64 = 70;

/// Bytes that any number of additional unknown callers may add: chance adds some thousand; a byte
/// for each of CI's would be 140,000.
const MOST_OF_MORE: u64 = 64 << 10;

/// Memory released by one test is freed later while another runs, and would be counted there.
static TURN: Mutex<()> = Mutex::new(());

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn clock() -> ManualClock {
    ManualClock::at_unix_ms(START_MS)
}

fn count(name: &str, few: u64) -> u64 {
    std::env::var(name).map_or(few, |n| n.parse().unwrap())
}

async fn gate(store: Memory, unknown: &str, clock: ManualClock) -> Gate {
    let dir = tempfile::tempdir().unwrap();
    let pepper = dir.path().join("pepper");
    std::fs::write(&pepper, "no secret in a test, but 32 bytes").unwrap();
    let service =
        SERVICE.replace("UNKNOWN", unknown).replace("PEPPER", &pepper.display().to_string());
    let builder = GateBuilder::from_text(&service).plans(PLANS).store(store).clock(clock);
    builder.open().await.unwrap()
}

/// One request to its end. Returns whether it was admitted.
async fn ask(gate: &Gate, header: &'static str, value: &str) -> bool {
    let request = http::Request::get("/").header(header, value).body(()).unwrap();
    let mut waited = Waited::default();
    loop {
        let peer = Some([127, 0, 0, 1].into());
        let view = HttpView::new(request.method(), request.uri(), request.headers(), peer);
        match gate.admit_request(&view, waited) {
            Step::Done(answer) => return matches!(answer, Answer::Admit(_)),
            Step::Wait(pending) => waited = pending.await,
        }
    }
}

#[test]
fn an_idle_tenant_weighs_what_it_may() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let tenants = count("TALLYGATE_TENANTS", 5_000);
    for (asleep, most) in [(true, MOST_ASLEEP), (false, MOST_AWAKE)] {
        let each = (weight(tenants, asleep) - weight(1, asleep)) / i64::try_from(tenants).unwrap();
        let how = if asleep { "asleep" } else { "awake" };
        println!("{tenants} tenants {how}: {each} bytes each");
        assert!(each > 100, "{each} bytes: the gate has not gone");
        assert!(each <= most, "{each} bytes for each tenant {how}");
    }
}

/// Bytes of a gate with tenants that called a minute ago. Its store is in memory, too: memory that
/// is freed with the gate is the gate's.
fn weight(tenants: u64, asleep: bool) -> i64 {
    let (rt, store, clock) = (runtime(), Memory::new(), clock());
    let gate = rt.block_on(gate(store.clone(), "create", clock.clone()));
    rt.block_on(async {
        for i in 0..tenants {
            assert!(ask(&gate, "x-tenant", &format!("tenant-{i}")).await);
        }
        gate.flush_now().await.unwrap();
        clock.advance(Duration::from_secs(60));
        if asleep {
            assert_eq!(doze(&gate).await, (usize::try_from(tenants).unwrap(), 0));
            // The recorder releases the leases with a record a minute later.
            clock.advance(Duration::from_secs(60));
            assert!(ask(&gate, "x-tenant", "tenant-0").await);
            gate.flush_now().await.unwrap();
        }
    });
    let freed = allocation_counter::measure(|| {
        drop(gate);
        rt.block_on(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
    });
    -freed.bytes_current
}

#[test]
fn strangers_leave_nothing_behind_and_hinder_nobody() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let many = count("TALLYGATE_STRANGERS", 3 * STRANGERS);
    // One-time allocations of the process come before the count.
    strangers(1);
    let (of_few, of_many) = (strangers(STRANGERS), strangers(many));
    println!("{STRANGERS} strangers: {of_few} bytes at most; {many}: {of_many}");
    assert!(of_many < of_few + MOST_OF_MORE, "{of_few} and {of_many} bytes");
}

/// Peak bytes of a gate while this many unknown callers call, and one known caller.
fn strangers(strangers: u64) -> u64 {
    // Timers stand still: otherwise a sweep's memory would depend on the test's duration.
    let rt = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let grown = allocation_counter::measure(|| {
        rt.block_on(async {
            let clock = clock();
            let gate = gate(Memory::new(), "reject", clock.clone()).await;
            let acme = gate.directory().tenant("acme").save().await.unwrap();
            let key = acme.new_key("ci").await.unwrap();
            for i in 0..strangers {
                let forged = format!("sk-forged-{:032x}", u128::from(i) * 0x9e37_79b9_7f4a_7c15);
                assert!(!ask(&gate, "x-api-key", &forged).await);
                if i % strangers.div_ceil(KNOWN_CALLS) == 0 {
                    clock.advance(Duration::from_millis(100)); // within its own rate
                    assert!(ask(&gate, "x-api-key", key.expose()).await, "after {i} strangers");
                }
            }
        });
    });
    grown.bytes_max
}
