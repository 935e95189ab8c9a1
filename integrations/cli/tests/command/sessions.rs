//! The page of the command, and the sessions that pin what every command prints.

use std::path::Path;

use crate::home::Home;
use crate::session::plays;

pub(crate) fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions").join(name)
}

#[test]
fn the_page_says_what_comes() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    plays(&Home::empty(), &page);
}

#[test]
fn plans() {
    plays(&Home::empty(), &file("plans.txt"));
}

/// Where each number in force was written.
#[test]
fn explain() {
    plays(&Home::empty(), &file("explain.txt"));
}

#[test]
fn tenants() {
    plays(&Home::empty(), &file("tenants.txt"));
}

#[test]
fn keys() {
    plays(&Home::empty(), &file("keys.txt"));
}

#[test]
fn operators() {
    plays(&Home::empty(), &file("operators.txt"));
}

#[test]
fn usage() {
    plays(&Home::empty(), &file("usage.txt"));
}

#[test]
fn the_service() {
    plays(&Home::empty(), &file("service.txt"));
}

/// What commands that change print with `--json`.
#[test]
fn changes_in_json() {
    plays(&Home::empty(), &file("json.txt"));
}

#[test]
fn copies() {
    plays(&Home::with_tenants(), &file("copies.txt"));
}
