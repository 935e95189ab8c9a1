//! Rates over several processes: small ones, many under pressure, a slow store, unbounded costs.

use std::sync::Arc;
use std::time::Duration;

use tallygate::store::Memory;
use tallygate::{Ask, Gate, testing};
use test_support::clocks::Paused;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::support::{Troubled, call, of};

struct Fleet {
    store: Troubled,
    clock: Paused,
    plans: String,
    gates: Vec<Gate>,
}

impl Fleet {
    async fn new(rates: &str, nodes: usize, call: Duration) -> Self {
        let plans = format!("default-plan = \"free\"\n[meter.jobs]\n[plan.free]\n{rates}\n");
        let store = Troubled::new(Memory::new(), call, true);
        let mut fleet = Self { store, clock: Paused::now(), plans, gates: Vec::new() };
        for _ in 0..nodes {
            fleet.join().await;
        }
        // One heartbeat of each: then all know their number.
        tokio::time::sleep(Duration::from_secs(6)).await;
        fleet
    }

    async fn join(&mut self) {
        let builder = testing::builder(&self.plans).store(self.store.clone());
        self.gates.push(builder.clock(self.clock).open().await.unwrap());
    }

    /// This many concurrent asks at each. Returns how many were admitted.
    async fn ask(&self, times: usize, jobs: u64) -> usize {
        let mut admitted = 0;
        for gate in &self.gates {
            let acme = gate.tenant("acme").await.unwrap();
            for _ in 0..times {
                let ask = Ask::new(&acme, "job").cost("jobs", jobs);
                admitted += usize::from(gate.admit(ask).await.is_ok_and(|permit| {
                    permit.settle();
                    true
                }));
            }
        }
        admitted
    }
}

#[tokio::test(start_paused = true)]
async fn three_an_hour_over_sixteen_processes_are_three() {
    let fleet = Fleet::new("rate.default = \"3/h\"", 16, Duration::ZERO).await;
    for hour in 0..3 {
        assert_eq!(fleet.ask(2, 1).await, 3, "hour {hour}");
        tokio::time::sleep(Duration::from_secs(1_800)).await;
        assert_eq!(fleet.ask(1, 1).await, 0, "hour {hour}");
        tokio::time::sleep(Duration::from_secs(1_800)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_a_minute_over_eight_processes_is_one() {
    let fleet = Fleet::new("rate.default = \"1/min\"", 8, Duration::ZERO).await;
    for minute in 0..5 {
        assert_eq!(fleet.ask(2, 1).await, 1, "minute {minute}");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_large_beside_a_rate_do_not_pass_it_at_once() {
    let route = "[route.job]\nmatch = \"POST /jobs\"\ncost = { jobs = 60 }\n";
    let plans = format!("rate.default = \"100 jobs/min\"\n{route}");
    let fleet = Fleet::new(&plans, 4, Duration::ZERO).await;
    for minute in 0..3 {
        assert_eq!(fleet.ask(1, 60).await, 1, "minute {minute}: 60 of 100");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_grows_past_the_burst_of_a_rate_admits_it_twice_at_most() {
    let mut fleet = Fleet::new("rate.default = \"3/h\"", 2, Duration::ZERO).await;
    let mut admitted = fleet.ask(2, 1).await;
    for _ in 0..8 {
        fleet.join().await;
        admitted += fleet.ask(2, 1).await;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    admitted += fleet.ask(2, 1).await;
    assert!((3..=6).contains(&admitted), "{admitted} in the hour in which the fleet grew");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(fleet.ask(2, 1).await, 3);
    // And it shrinks again.
    for gate in fleet.gates.split_off(2) {
        gate.close().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let again = fleet.ask(2, 1).await;
    assert!(again <= 3, "{again} more in the same hour");
    tokio::time::sleep(Duration::from_secs(7_200)).await;
    assert_eq!(fleet.ask(4, 1).await, 2, "each has a whole unit of its part");
}

/// Whole gates: every user of one tenant is over its rate, and a call of the store takes 20 ms.
#[tokio::test(start_paused = true)]
async fn two_processes_keep_the_bound_with_700_users_under_pressure() {
    const USERS: usize = 700;
    const RATE: u32 = 4;
    const SECONDS: usize = 50;
    /// Calls a second, of each user at each process.
    const TICKS: usize = 3;
    let rate = format!("rate.default = \"{RATE}/s per user\"");
    let fleet = Fleet::new(&rate, 2, Duration::from_millis(20)).await;
    let names: Arc<[String]> = (0..USERS).map(|n| format!("u{n}")).collect();
    let mut admitted = vec![[0u32; SECONDS]; USERS];
    let mut calls = JoinSet::new();
    let begun = Instant::now();
    for tick in 0..SECONDS * TICKS {
        // One and a half times the rate, all alike; none waits for another.
        for (gate, user) in fleet.gates.iter().flat_map(|gate| (0..USERS).map(move |n| (gate, n))) {
            let (gate, names) = (gate.clone(), names.clone());
            calls.spawn(async move {
                let is_admitted = call(&gate, of("acme", &names[user])).await.is_ok();
                (user, begun.elapsed().as_secs() as usize, is_admitted)
            });
        }
        tokio::time::sleep_until(
            begun + Duration::from_millis(1_000 * (tick as u64 + 1) / TICKS as u64),
        )
        .await;
        while let Some(ended) = calls.try_join_next() {
            let (user, second, is_admitted) = ended.unwrap();
            if second < SECONDS {
                admitted[user][second] += u32::from(is_admitted);
            }
        }
    }
    let ten = |by_second: &[u32; SECONDS]| {
        let windows = by_second[15..].windows(10).map(|ten| ten.iter().sum::<u32>());
        windows.max().unwrap()
    };
    let most = admitted.iter().map(ten).max().unwrap();
    let all: u32 = admitted.iter().map(|by_second| by_second[15..].iter().sum::<u32>()).sum();
    let used = f64::from(all) / (USERS * (SECONDS - 15)) as f64 / f64::from(RATE);
    let worst = f64::from(most) / f64::from(10 * RATE);
    println!("700 users, 2 gates, 20 ms a call: worst ten seconds {worst:.3} R, used {used:.3}");
    assert!(worst <= 1.06, "{worst}");
    assert!(used >= 0.9, "{used}");
}

#[tokio::test]
async fn a_cost_beyond_all_bounds_is_refused_by_a_rate() {
    let plans = "default-plan = \"free\"\n[meter.jobs]\n[plan.free]\nrate.all = \"10 jobs/min\"\n";
    let (gate, _clock) = testing::gate(plans);
    let acme = gate.tenant("acme").await.unwrap();
    for cost in [3_074_457_347, u64::from(u32::MAX), 1 << 62, u64::MAX] {
        let ask = Ask::new(&acme, "job").cost("jobs", cost);
        assert!(gate.admit(ask).await.is_err(), "{cost}");
    }
    let ask = Ask::new(&acme, "job").cost("jobs", 10);
    gate.admit(ask).await.unwrap().settle();
}
