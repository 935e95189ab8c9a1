//! What is refused while open requests hold the rest of a limit: it is worth asking again soon.

use std::time::Duration;

use tallygate::directory::Grant;
use tallygate::{Ask, Gate, Permit, Reason, Refusal, testing};

const SOON: Option<Duration> = Some(Duration::from_secs(1));
const TONIGHT: Option<Duration> = Some(Duration::from_secs(12 * 3_600));

const PLANS: &str = r#"
    default-plan = "team"
    [meter.tokens]
    count = "reported"
    [meter.pages]
    [meter.credits]
    [plan.team]
    quota.tokens  = "1000/day"
    quota.pages   = { limit = "10/day", over = "allow", stop = 20 }
    quota.credits = "prepaid"
"#;

async fn ask(gate: &Gate, meter: &str, n: u64) -> Result<Permit, Refusal> {
    let acme = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&acme, "work").cost(meter, n)).await
}

fn body(gate: &Gate, refusal: &Refusal) -> serde_json::Value {
    serde_json::from_slice(&gate.refusal_reply(refusal).body).unwrap()
}

#[tokio::test]
async fn what_others_hold_may_come_back_before_the_quota_resets() {
    let (gate, _clock) = testing::gate(PLANS);
    let long = ask(&gate, "tokens", 600).await.unwrap();
    let refusal = ask(&gate, "tokens", 500).await.unwrap_err();
    assert_eq!((&refusal.reason, refusal.retry_after), (&Reason::Exhausted, SOON));
    let reply = gate.refusal_reply(&refusal);
    assert_eq!(reply.status, 429);
    assert!(reply.headers.iter().any(|it| *it == ("retry-after", "1".to_owned())), "{reply:?}");
    let text = "The rest of quota `tokens/day` is held by requests in progress (plan team). \
                Retry in 1 s.";
    assert_eq!(body(&gate, &refusal)["detail"], text);

    // More than would be there in any case.
    assert_eq!(ask(&gate, "tokens", 1_001).await.unwrap_err().retry_after, TONIGHT);

    // What was held is used.
    long.settle();
    let refusal = ask(&gate, "tokens", 500).await.unwrap_err();
    assert_eq!((&refusal.reason, refusal.retry_after), (&Reason::Exhausted, TONIGHT));
    ask(&gate, "tokens", 400).await.unwrap().settle();
    assert_eq!(ask(&gate, "tokens", 1).await.unwrap_err().retry_after, TONIGHT);
}

#[tokio::test]
async fn prepaid_units_that_others_hold_are_not_used_up() {
    let (gate, _clock) = testing::gate(PLANS);
    let bought = |id, units| Grant::new(id, "credits", units);
    let edit = gate.directory().tenant("acme").grant(bought("first", 700));
    edit.grant(bought("second", 300)).save().await.unwrap();
    let long = ask(&gate, "credits", 800).await.unwrap();
    let refusal = ask(&gate, "credits", 300).await.unwrap_err();
    assert_eq!((&refusal.reason, refusal.retry_after), (&Reason::Exhausted, SOON));
    assert!(refusal.billing_url.is_none());
    long.settle();
    let refusal = ask(&gate, "credits", 300).await.unwrap_err();
    assert!(matches!(refusal.reason, Reason::PaymentRequired(_)), "{refusal:?}");
    assert_eq!(refusal.retry_after, None);
}

#[tokio::test]
async fn a_stop_waits_for_what_is_held_below_it() {
    let (gate, _clock) = testing::gate(PLANS);
    let long = ask(&gate, "pages", 15).await.unwrap();
    assert_eq!(ask(&gate, "pages", 6).await.unwrap_err().retry_after, SOON);
    assert_eq!(ask(&gate, "pages", 21).await.unwrap_err().retry_after, TONIGHT);
    long.settle();
    assert_eq!(ask(&gate, "pages", 6).await.unwrap_err().retry_after, TONIGHT);
}

#[tokio::test]
async fn a_request_does_not_wait_for_what_it_holds_itself() {
    let (gate, _clock) = testing::gate(PLANS);
    let own = ask(&gate, "tokens", 600).await.unwrap();
    let refusal = own.usage().take("tokens", 1_500).await.unwrap_err();
    assert_eq!(refusal.retry_after, TONIGHT);
    let other = ask(&gate, "tokens", 300).await.unwrap();
    let refusal = own.usage().take("tokens", 1_000).await.unwrap_err();
    assert_eq!(refusal.retry_after, SOON);
    other.settle();
    let refusal = own.usage().take("tokens", 1_000).await.unwrap_err();
    assert_eq!(refusal.retry_after, TONIGHT);
}

/// More was used than a lowered limit has. Grants are beside it: what is held of them comes back.
#[tokio::test]
async fn a_lowered_limit_takes_nothing_from_what_grants_have() {
    for (before, after) in
        [("\"5/day\"", "\"3/day\""), ("[\"6\", \"5/day\"]", "[\"6\", \"3/day\"]")]
    {
        let (gate, _clock) = testing::gate(&format!(
            "default-plan = \"big\"\n[meter.pages]\n[plan.big]\nquota.pages = {before}\n\
             [plan.small]\nquota.pages = {after}\n"
        ));
        let acme = gate.directory().tenant("acme").save().await.unwrap();
        if !before.starts_with('[') {
            acme.edit().grant(Grant::new("gift", "pages", 6)).save().await.unwrap();
        }
        ask(&gate, "pages", 5).await.unwrap().settle();
        acme.edit().plan("small").save().await.unwrap();
        let held = ask(&gate, "pages", 3).await.unwrap();
        let refusal = ask(&gate, "pages", 5).await.unwrap_err();
        assert_eq!((&refusal.reason, refusal.retry_after), (&Reason::Exhausted, SOON), "{before}");
        held.cancel();
        ask(&gate, "pages", 5).await.unwrap().settle();
    }
}
