//! What a host takes in with the crate: how many crates, and which compiler they ask for. As Cargo
//! resolves them here; in a checkout only, since a published crate has no lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Most crates of a normal build, our own and those that run in the compiler among them, by the
/// features beside the default ones. Each is read, audited and compiled by every host: before a
/// bound is raised, say in the change what the new crate does that twenty lines would not.
const MOST: [(&str, usize); 3] = [("", 90), ("jwt,stripe", 120), ("jwt,stripe,metrics", 124)];

/// Features whose crates keep to the `rust-version` of each package.
const FEATURES: [(&str, &str); 7] = [
    ("tallygate", "jwt,stripe,metrics,testing,tls-aws-lc-rs"),
    ("tallygate-axum", "jwt,stripe,metrics"),
    ("tallygate-actix-web", "jwt,stripe,metrics"),
    ("tallygate-tonic", "jwt,stripe,metrics"),
    ("tallygate-lambda", "dynamodb,stripe"),
    ("tallygate-notify-aws", "sns,eventbridge"),
    ("tallygate-cli", "dynamodb,notify-aws,parquet"),
];

/// The AWS SDK follows compilers closely, so `dynamodb` asks for its own; README.md says which.
const WITH_DYNAMODB: [u32; 3] = [1, 94, 1];

/// Crates that no build may have, whatever its features.
const NEVER: [&str; 2] = ["rsa", "openssl-sys"];

fn cargo(args: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let ran = Command::new(cargo).current_dir(root).args(args).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// The crates of a normal build, as `name version`.
fn crates(package: &str, features: &str) -> BTreeSet<String> {
    let tree = ["tree", "--locked", "-p", package, "--features", features, "-e", "normal"];
    let listed = cargo(&[&tree[..], &["--prefix", "none", "--no-dedupe", "-f", "{p}"]].concat());
    let name = |line: &str| {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?);
        Some(format!("{name} {}", version.trim_start_matches('v')))
    };
    listed.lines().filter_map(name).collect()
}

/// The `rust-version` of every crate in the lock file, as numbers.
fn rust_versions() -> BTreeMap<String, Vec<u32>> {
    let metadata = cargo(&["metadata", "--locked", "--all-features", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let version = |package: &Value| {
        let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let numbers = text("rust_version").split('.').filter_map(|it| it.parse().ok()).collect();
        (format!("{} {}", text("name"), text("version")), numbers)
    };
    packages.map(version).collect()
}

/// The published crate carries no lock file, and is tested beside the workspace's other packages.
fn is_checkout() -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock").exists()
}

#[test]
fn a_host_takes_in_few_crates() {
    if !is_checkout() {
        return println!("skipped: crates are counted in a checkout");
    }
    for (features, most) in MOST {
        let crates = crates("tallygate", features);
        let listed = Vec::from_iter(crates.iter().map(String::as_str)).join("\n");
        assert!(crates.len() <= most, "[{features}]: {} of {most}\n{listed}", crates.len());
        for name in NEVER {
            assert!(!crates.iter().any(|it| it.starts_with(&format!("{name} "))), "{name}");
        }
    }
}

/// By what each crate states: whether it builds with that compiler is for its own tests. What of
/// `std` we use ourselves is clippy's `incompatible_msrv`.
#[test]
fn no_crate_asks_for_a_newer_compiler_than_we_do() {
    if !is_checkout() {
        return println!("skipped: crates are read in a checkout");
    }
    let versions = rust_versions();
    for (package, features) in FEATURES {
        let crates = crates(package, features);
        let ours = crates.iter().find(|it| it.starts_with(&format!("{package} "))).unwrap();
        let ours = &versions[ours];
        assert!(!ours.is_empty(), "{package} states no rust-version");
        none_is_newer(&crates, &versions, ours);
    }
    none_is_newer(&crates("tallygate", "dynamodb"), &versions, &WITH_DYNAMODB);
    let stated = WITH_DYNAMODB.map(|it| it.to_string()).join(".");
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&format!("{stated} with `dynamodb`")), "README.md: {stated}");
}

#[track_caller]
fn none_is_newer(crates: &BTreeSet<String>, versions: &BTreeMap<String, Vec<u32>>, than: &[u32]) {
    let newer = crates.iter().map(|it| (it, &versions[it])).filter(|(_, it)| &it[..] > than);
    let newer: Vec<_> = newer.collect();
    assert!(newer.is_empty(), "{than:?} is stated: {newer:?}");
}
