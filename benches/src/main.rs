//! What the gate costs, beside what others cost, in one run. Figures, method and what they mean:
//! `README.md` beside this package. Run by `cargo bench` at the root of the repository.
//!
//! Figures of one machine at one hour are worth nothing; ratios of figures taken side by side are.
//! So each bench stands next to what it is compared with, the whole run is made in rounds, and a
//! ratio is taken round by round.
#![forbid(unsafe_code)]

mod decide;
mod identify;
mod layer;
mod setup;
mod table;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use criterion::Criterion;

/// Rounds of a whole run; `--quick` makes one.
const ROUNDS: usize = 3;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let dir = target.join("criterion");
    std::fs::create_dir_all(&dir).expect("the target directory is ours to write");
    let marker = dir.join(".begun");
    std::fs::write(&marker, "").expect("the target directory is ours to write");

    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let rt = rt.expect("a runtime");
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(&dir)
        .sample_size(40)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_000))
        .configure_from_args();
    for round in 0..if quick { 1 } else { ROUNDS } {
        decide::run(&mut criterion, &rt, round);
        decide::by_store(&mut criterion, &rt, round);
        identify::run(&mut criterion, &rt, round);
        layer::run(&mut criterion, &rt, round);
        usage::run(&mut criterion, &rt, round);
    }
    criterion.final_summary();

    let ratios = table::table(&table::figures(&dir, &marker));
    let file = target.join("bench-ratios.json");
    std::fs::write(&file, format!("{ratios:#}\n")).expect("the target directory is ours to write");
    println!("\nwritten to {}", file.display());
}
