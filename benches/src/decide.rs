//! A decision for a known tenant, beside the least that any limiter does.

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use dashmap::DashMap;
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use limitador::limit::{Context, Limit};
use tallygate::Gate;
use tallygate::testing::Drill;
use tallygate::wire::HeaderStyle;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::redis::Redis;
use crate::setup::{self, BURST, PER_SECOND};
use crate::tollgate;

/// Tenants of the shuffled benches.
const MANY: usize = 10_000;

/// The same decision with the store on a disk, and in a table over the network: neither is asked.
pub fn by_store(c: &mut Criterion, rt: &Runtime, round: usize) {
    let dir = tempfile::tempdir().expect("a directory for a file");
    let path = dir.path().join("bench.redb");
    let redb = format!("[store]\nkind = \"redb\"\npath = \"{}\"", path.display());
    let mut gates = vec![("redb", setup::open(rt, &redb, HeaderStyle::Off))];
    match setup::on_dynamodb(rt) {
        Ok(gate) => gates.push(("dynamodb", gate)),
        Err(why) => println!("skipped: the decision on DynamoDB Local ({why})"),
    }
    let mut group = c.benchmark_group("decide");
    for (store, gate) in &gates {
        let drills = setup::drills(rt, gate, 1, 500_000);
        group.bench_function(BenchmarkId::new(format!("tallygate-{store}"), round), |b| {
            b.iter(|| setup::admit(black_box(&drills[0])));
        });
    }
    group.finish();
    for (_, gate) in gates {
        rt.block_on(gate.close()).expect("everything counted is written");
    }
}

/// The same decision with a log of decisions, which has one in a hundred of such.
pub fn logged(c: &mut Criterion, rt: &Runtime, round: usize) {
    let dir = tempfile::tempdir().expect("a directory for a file");
    let gates = [("unlogged", setup::gate(rt, HeaderStyle::Off)), ("logged", log_gate(rt, &dir))];
    let drills = gates.each_ref().map(|(_, gate)| setup::drills(rt, gate, 1, 500_000).remove(0));
    let mut group = c.benchmark_group("decide");
    for ((name, _), drill) in gates.iter().zip(&drills) {
        group.bench_function(BenchmarkId::new(format!("tallygate-{name}"), round), |b| {
            b.iter(|| setup::admit(black_box(drill)));
        });
    }
    group.finish();
    for (_, gate) in gates {
        rt.block_on(gate.close()).expect("everything counted is written");
    }
}

/// A gate with a log of decisions in this folder.
pub fn log_gate(rt: &Runtime, dir: &TempDir) -> Gate {
    let path = dir.path().join("decisions.ndjson");
    let store = format!("[store]\nkind = \"memory\"\n[decisions]\nfile = \"{}\"", path.display());
    setup::open(rt, &store, HeaderStyle::Off)
}

pub fn run(c: &mut Criterion, rt: &Runtime, round: usize) {
    let gate = setup::gate(rt, HeaderStyle::Off);
    let one = setup::drills(rt, &gate, 2, 500_000);
    let floor = floor_map(MANY);
    let names: Vec<String> = (0..2).map(setup::name).collect();
    let keyed = keyed();
    let limitador = limitador_memory();

    let mut group = c.benchmark_group("decide");
    group.bench_function(BenchmarkId::new("floor", round), |b| {
        b.iter(|| check(&floor, black_box(&names[0])));
    });
    group.bench_function(BenchmarkId::new("tallygate", round), |b| {
        b.iter(|| setup::admit(black_box(&one[0])));
    });
    group.bench_function(BenchmarkId::new("governor-keyed", round), |b| {
        b.iter(|| keyed.check_key(black_box(&names[0])).is_ok());
    });
    group.bench_function(BenchmarkId::new("limitador", round), |b| {
        b.iter(|| limitador(black_box(&names[0])));
    });

    let tollgate = tollgate::decision();
    group.bench_function(BenchmarkId::new("tollgate-admission", round), |b| b.iter(&tollgate));
    match Redis::start() {
        Ok(mut redis) => {
            let most = u64::from(PER_SECOND);
            group.bench_function(BenchmarkId::new("redis", round), |b| {
                b.iter(|| redis.admits(black_box(&names[0]), most));
            });
        }
        Err(why) => println!("skipped: Redis ({why})"),
    }

    for (what, which) in [("same", [0, 0]), ("distinct", [0, 1])] {
        let names = which.map(|i| names[i].clone());
        let drills: [Drill; 2] = which.map(|i| one[i].clone());
        group.bench_function(BenchmarkId::new(format!("floor-2-threads-{what}"), round), |b| {
            b.iter_custom(|n| {
                on_two_threads(n, |i| {
                    check(&floor, black_box(&names[i]));
                })
            });
        });
        group.bench_function(BenchmarkId::new(format!("tallygate-2-threads-{what}"), round), |b| {
            b.iter_custom(|n| on_two_threads(n, |i| setup::admit(black_box(&drills[i]))));
        });
    }

    let drills = setup::drills(rt, &gate, MANY, 600);
    let mut names: Vec<String> = (0..MANY).map(setup::name).collect();
    setup::shuffle(&mut names);
    let mut at = 0;
    group.bench_function(BenchmarkId::new("floor-10k", round), |b| {
        b.iter(|| {
            at = (at + 1) % MANY;
            check(&floor, &names[at])
        });
    });
    group.bench_function(BenchmarkId::new("tallygate-10k", round), |b| {
        b.iter(|| {
            at = (at + 1) % MANY;
            setup::admit(&drills[at]);
        });
    });
    group.finish();
    rt.block_on(gate.close()).expect("everything counted is written");
}

/// The floor, once a call.
pub fn floor_once() -> Box<dyn FnMut()> {
    let (floor, name) = (floor_map(MANY), setup::name(0));
    Box::new(move || {
        black_box(check(&floor, black_box(&name)));
    })
}

type Floor = DashMap<String, Arc<DefaultDirectRateLimiter>>;

fn quota() -> Quota {
    let per_second = NonZeroU32::new(PER_SECOND).expect("not 0");
    Quota::per_second(per_second).allow_burst(NonZeroU32::new(BURST).expect("not 0"))
}

/// The floor: whose limiter, by name, and is there room.
fn floor_map(tenants: usize) -> Floor {
    (0..tenants).map(|i| (setup::name(i), Arc::new(RateLimiter::direct(quota())))).collect()
}

fn check(floor: &Floor, name: &str) -> bool {
    floor.get(name).is_some_and(|limiter| limiter.check().is_ok())
}

fn keyed() -> DefaultKeyedRateLimiter<String> {
    RateLimiter::keyed(quota())
}

/// limitador's check and update of one limit in memory, with the context that it needs of a
/// request.
fn limitador_memory() -> impl Fn(&str) -> bool {
    let limiter = limitador::RateLimiter::new(100_000);
    let by = ["tenant".try_into().expect("a variable")];
    limiter.add_limit(Limit::new("bench", u64::MAX / 2, 60, [], by));
    let namespace = "bench".into();
    move |tenant| {
        let values = HashMap::from([("tenant".to_owned(), tenant.to_owned())]);
        let context: Context<'_> = values.into();
        let checked = limiter.check_rate_limited_and_update(&namespace, &context, 1);
        !checked.expect("a store in memory answers").limited
    }
}

/// How long `n` rounds take on two threads at once, until the slower is done.
#[expect(clippy::disallowed_methods, reason = "a bench measures the time of this machine")]
fn on_two_threads(n: u64, job: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(2);
    let work = |i| {
        barrier.wait();
        let start = Instant::now();
        (0..n).for_each(|_| job(i));
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| work(1));
        let own = work(0);
        own.max(other.join().expect("no bench panics"))
    })
}
