//! The example with a Stripe beside it: what `axum-api` is held to, over HTTP on both sides.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

#[path = "../../axum-api/tests/billing.rs"]
mod as_axum_api;

use as_axum_api::support::Home;

#[test]
fn without_a_key_nothing_of_stripe_is_there() {
    let home = Home::new();
    let api = home.start();
    assert_eq!(api.raw("POST", "/webhooks/stripe", &[], "{}").status, 401);
    assert_eq!(api.send("POST", "/webhooks/stripe", "tg_demo_acme").status, 404);
    assert_eq!(api.send("POST", "/demo/report", "tg_demo_acme").status, 404);
}
