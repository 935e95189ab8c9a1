//! The plan files of `docs/plans.md`, lowered, and a corpus of broken ones with the place, the
//! words and the fix of each.

use std::time::Duration;

use tollgate::catalog::*;

const FIRST: &str = include_str!("plans/first.toml");
const SAAS: &str = include_str!("plans/saas.toml");
const LLM: &str = include_str!("plans/llm.toml");

/// 2026-11-21T00:00:00Z
const NOW_MS: i64 = 1_795_219_200_000;

#[track_caller]
fn load(text: &str) -> Catalog {
    match Catalog::parse("plans.toml", text, NOW_MS) {
        Ok(catalog) => catalog,
        Err(errors) => panic!("{errors}"),
    }
}

fn plan<'c>(catalog: &'c Catalog, name: &str) -> &'c Plan {
    &catalog.plans[usize::from(catalog.plan(name).unwrap().0)]
}

#[test]
fn three_load() {
    for t in [FIRST, SAAS, LLM] {
        println!("{:#?}", load(t).warnings);
    }
}
