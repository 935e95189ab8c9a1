//! `cargo bench` at the root: starts `benches/`, which is a package of its own so that its peers
//! are in nobody's build. Arguments after `--` are passed on.

use std::process::{Command, exit};

fn main() {
    let root = env!("CARGO_MANIFEST_DIR");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // One target directory for both, so that what is the same is built once.
    let target =
        std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| format!("{root}/target").into());
    let mut bench = Command::new(cargo);
    bench
        .args(["run", "--release", "--locked", "--manifest-path"])
        .arg(format!("{root}/benches/Cargo.toml"))
        .arg("--")
        .args(std::env::args_os().skip(1))
        .env("CARGO_TARGET_DIR", target);
    match bench.status() {
        Ok(status) => exit(status.code().unwrap_or(1)),
        Err(error) => {
            eprintln!("cargo cannot be started: {error}");
            exit(1);
        }
    }
}
