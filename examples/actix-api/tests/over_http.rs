//! The example as a program, over real HTTP: what the README of `axum-api` promises, held to by the
//! tests of `axum-api`, word for word.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

#[path = "../../axum-api/tests/over_http.rs"]
mod as_axum_api;

#[test]
fn it_sells_what_axum_api_sells() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(here.join(path)).unwrap();
    assert_eq!(read("plans.toml"), read("../axum-api/plans.toml"));
    let theirs = read("../axum-api/tallygate.toml").replace("axum-api", "actix-api");
    assert_eq!(read("tallygate.toml"), theirs);
}
