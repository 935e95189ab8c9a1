//! The page of the command, and the sessions that pin what every command prints.

use std::path::Path;

use crate::far::Service;
use crate::home::Home;
use crate::session::{plays, plays_with};

pub(crate) fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions").join(name)
}

#[test]
fn the_page_says_what_comes() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let (home, mut service) = (Home::empty(), None);
    // While the service runs, which is where a line asks it.
    plays_with(&home, &page, |line| match line.contains("unix:admin.sock") {
        true => {
            service.get_or_insert_with(|| Service::begin(&home));
        }
        false => service.take().into_iter().for_each(Service::end),
    });
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
