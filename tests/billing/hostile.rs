//! Forged and damaged webhooks.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use stripe_sim::signature;

use crate::bench::{Bench, NOW, SECRET, event, subscription};

/// The damage done to a genuine webhook.
#[derive(Clone, Debug)]
enum Harm {
    Secret(String),
    At(i64),
    Truncate(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Foreign(Vec<u8>),
    Header(Vec<u8>),
    NoHeader,
    Long,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        100 => "[ -~]{0,40}".prop_map(Harm::Secret),
        100 => prop_oneof![
            i64::MIN..NOW - 300,
            NOW + 301..i64::MAX,
            NOW - 1_000_000..NOW - 300,
            NOW + 301..NOW + 1_000_000,
        ]
        .prop_map(Harm::At),
        100 => any::<prop::sample::Index>().prop_map(Harm::Truncate),
        100 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        100 => proptest::collection::vec(any::<u8>(), 0..400).prop_map(Harm::Foreign),
        100 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Harm::Header),
        20 => Just(Harm::NoHeader),
        // Signing five megabytes takes time.
        1 => Just(Harm::Long),
    ]
}

/// The header and body that arrive.
fn harmed(harm: &Harm, body: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let sign =
        |secret: &str, at: i64, body: &[u8]| signature(&[secret.to_owned()], at, body).into_bytes();
    let good = sign(SECRET, NOW, body);
    match harm {
        Harm::Secret(secret) => (sign(secret, NOW, body), body.to_vec()),
        // Stripe's own form has no sign before its time: that is refused as malformed.
        Harm::At(at) => (sign(SECRET, *at, body), body.to_vec()),
        Harm::Truncate(at) => (good, body[..at.index(body.len())].to_vec()),
        Harm::Flip(at, bit) => {
            let mut turned = body.to_vec();
            turned[at.index(body.len())] ^= 1 << bit;
            (good, turned)
        }
        Harm::Foreign(other) => (good, other.clone()),
        Harm::Header(header) => (header.clone(), body.to_vec()),
        Harm::NoHeader => (Vec::new(), body.to_vec()),
        Harm::Long => {
            let long = vec![b' '; 5 << 20];
            (sign(SECRET, NOW, &long), long)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_other_mode_opens_no_gate() {
    let bench = Bench::new().await;
    let calls = bench.sim.calls().len();
    for (key, mode, opens) in [
        ("sk_live_neverseen", "test", false),
        ("rk_live_neverseen", "test", false),
        ("sk_test_neverseen", "live", false),
        ("pk_live_neverseen", "live", false),
        ("sk_live_neverseen", "live", true),
        ("rk_test_neverseen", "test", true),
    ] {
        match bench.try_key(key, mode).await {
            Ok(gate) => {
                assert!(opens, "{key} in mode {mode}");
                assert!(!format!("{gate:?}").contains("neverseen"));
            }
            Err(error) => {
                assert!(!opens, "{key} in mode {mode}: {error}");
                assert!(!format!("{error} {error:?}").contains("neverseen"));
            }
        }
    }
    assert_eq!(bench.sim.calls().len(), calls, "nothing was asked with them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_not_genuine_is_taken_or_changes_anything() {
    let bench = Bench::new().await;
    let customer = bench.customer("acme").await;
    let object = subscription("sub_1", &customer, "active", "team_monthly");
    let body = event("evt_1", "customer.subscription.created", NOW, &object).to_string();
    let before = bench.store.changes();
    let mut refused = std::collections::BTreeMap::<u16, u32>::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..3_000 {
        let harm = harm().new_tree(&mut runner).unwrap().current();
        let (header, arrived) = harmed(&harm, body.as_bytes());
        let status = bench.gate.stripe_webhook(&header, &arrived).await.status;
        assert!(matches!(status, 400 | 413), "{status}: {harm:?}");
        *refused.entry(status).or_default() += 1;
    }
    println!("3,000 bad webhooks, by status: {refused:?}");
    assert!(refused.len() == 2, "both kinds were met");
    assert_eq!(bench.store.changes(), before, "nothing was written");
    assert_eq!(bench.plan("acme").await, "free");
    // The genuine one is accepted, and its replay ignored.
    let good = signature(&[SECRET.to_owned()], NOW, body.as_bytes());
    let take = async || bench.gate.stripe_webhook(good.as_bytes(), body.as_bytes()).await.status;
    assert_eq!(take().await, 200);
    assert_eq!(bench.plan("acme").await, "team");
    let before = bench.store.changes();
    assert_eq!(take().await, 200);
    assert_eq!(bench.store.changes(), before, "a replay within the tolerance");
    bench.pass(301);
    assert_eq!(take().await, 400, "and one after it");
}
