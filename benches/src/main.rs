//! What the gate costs, beside what others cost, in one run. Figures, method and what they mean:
//! `README.md` beside this package. Run by `cargo bench` at the root of the repository.
//!
//! Figures of one machine at one hour are worth nothing; ratios of figures taken side by side are.
//! So each bench stands next to what it is compared with, the whole run is made in rounds, and a
//! ratio is taken round by round. Each part of a round is a process of its own: the memory that
//! 10,000 tenants have left behind is not what a layer is to be measured in.
#![forbid(unsafe_code)]

mod chart;
mod count;
mod decide;
mod identify;
mod layer;
mod redis;
mod route;
mod setup;
mod table;
mod tollgate;
mod usage;

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::time::Duration;

use criterion::Criterion;
use tokio::runtime::Runtime;

/// Rounds of a whole run; `--quick` makes one. Many and short: what the machine does beside them
/// changes within seconds, and then weighs on both sides of a ratio.
const ROUNDS: usize = 7;

type Part = fn(&mut Criterion, &Runtime, usize);

/// The parts of a round, with the group that their benches are in.
const PARTS: &[(&str, Part)] = &[
    ("decide", decide::run),
    ("decide", decide::by_store),
    ("decide", decide::logged),
    ("identify", identify::run),
    ("layer", layer::run),
    ("route", route::run),
    ("usage", usage::run),
];

/// Say to a process which part it is, by its place above, and of which round.
const PART: &str = "TALLYGATE_BENCH_PART";
const ROUND: &str = "TALLYGATE_BENCH_ROUND";

/// Says which path to walk alone, and how often: see `count`.
const COUNT: &str = "TALLYGATE_BENCH_COUNT";

fn main() {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let dir = target.join("criterion");
    std::fs::create_dir_all(&dir).expect("the target directory is ours to write");
    if let Ok(what) = std::env::var(COUNT) {
        return count::run(&runtime(), &what);
    }
    match (std::env::var(PART), std::env::var(ROUND)) {
        (Ok(part), Ok(round)) => run(number(&part), number(&round), &dir),
        _ => run_all(&target, &dir),
    }
}

/// All rounds, and the table at the end.
fn run_all(target: &Path, dir: &Path) {
    let marker = dir.join(".begun");
    std::fs::write(&marker, "").expect("the target directory is ours to write");
    let quick = std::env::args().any(|arg| arg == "--quick");
    for round in 0..if quick { 1 } else { ROUNDS } {
        for (part, _) in PARTS.iter().enumerate().filter(|(_, (group, _))| is_asked_for(group)) {
            let mut bench = Command::new(std::env::current_exe().expect("our own program"));
            bench.args(std::env::args_os().skip(1));
            bench.env(PART, part.to_string()).env(ROUND, round.to_string());
            let status = bench.status().expect("our own program starts");
            if !status.success() {
                exit(status.code().unwrap_or(1));
            }
        }
    }
    let ratios = table::table(&table::figures(dir, &marker));
    let file = target.join("bench-ratios.json");
    std::fs::write(&file, format!("{ratios:#}\n")).expect("the target directory is ours to write");
    chart::write(&ratios, target).expect("the target directory is ours to write");
    println!("\nwritten to {}, and beside it as pictures", file.display());
}

/// Whether the filter on the command line, which is criterion's, leaves anything of a group: where
/// it begins with the name of one, nothing of the others.
fn is_asked_for(group: &str) -> bool {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let asked = filter.split('/').next();
    let names_a_group = PARTS.iter().any(|(group, _)| asked == Some(group));
    !names_a_group || asked == Some(group)
}

fn number(text: &str) -> usize {
    text.parse().expect("what `run_all` has written")
}

fn runtime() -> Runtime {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    rt.expect("a runtime")
}

/// One part of one round.
fn run(part: usize, round: usize, dir: &Path) {
    let rt = runtime();
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(dir)
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    let (_, run) = PARTS[part];
    run(&mut criterion, &rt, round);
    criterion.final_summary();
}
