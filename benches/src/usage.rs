//! From a settled request to the redb file: a thousand tenants that each used one unit, flushed.

use criterion::{BenchmarkId, Criterion, Throughput};
use tallygate::wire::HeaderStyle;
use tokio::runtime::Runtime;

use crate::setup;

/// Tenants with something to record in one flush.
const TENANTS: usize = 1_000;

pub fn run(c: &mut Criterion, rt: &Runtime, round: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let store =
        format!("[store]\nkind = \"redb\"\npath = \"{}\"", dir.path().join("t.redb").display());
    let gate = setup::open(rt, &store, HeaderStyle::Off);
    let drills = setup::drills(rt, &gate, TENANTS, 4);
    let mut group = c.benchmark_group("usage");
    group.throughput(Throughput::Elements(TENANTS as u64)).sample_size(20);
    group.bench_function(BenchmarkId::new("record-and-flush-1000", round), |b| {
        b.iter(|| {
            drills.iter().for_each(setup::admit);
            rt.block_on(gate.flush_now()).expect("redb takes it");
        });
    });
    group.finish();
    rt.block_on(gate.close()).expect("everything counted is written");
}
