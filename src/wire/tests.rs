//! Checks each row of the table of refusals, byte for byte.

use super::*;
use crate::decision::{Source, Unit};

fn search() -> LimitState {
    LimitState {
        name: "search".into(),
        kind: LimitKind::Rate,
        meter: None,
        unit: Unit::Calls,
        limit: Amount::units(30),
        remaining: Amount::units(0),
        used: Amount::units(30),
        window: Some(Duration::from_secs(60)),
        resets_in: Some(Duration::from_millis(20_001)),
        resets_at_ms: None,
        source: Source::Process,
        past_soft: false,
        of_plan: true,
    }
}

fn refused(reason: Reason) -> Refusal {
    Refusal {
        reason,
        limit: None,
        retry_after: None,
        plan: Some("free".into()),
        billing_url: None,
        tenant: None,
        user: None,
        key: None,
        call: None,
        keys_go_in: None,
    }
}

/// Status and headers as lines, then the body, as a snapshot would hold.
fn sent(refused: &Refusal) -> String {
    let (options, call) = (WireOptions::default(), Call::at(1_795_256_636_000));
    let reply = refusal(refused, &options, call);
    is_the_problem_without_a_response(&reply, problem(refused, &options, call));
    let mut out = format!("{}\n", reply.status);
    for (name, value) in &reply.headers {
        out.push_str(&format!("{name}: {value}\n"));
    }
    out + std::str::from_utf8(&reply.body).unwrap()
}

/// The body, and the header `Retry-After` as a member.
fn is_the_problem_without_a_response(reply: &Reply, problem: serde_json::Value) {
    let mut expected: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let header = reply.headers.iter().find(|(name, _)| *name == "retry-after");
    if let Some((_, seconds)) = header {
        expected["retry-after"] = seconds.parse::<u64>().unwrap().into();
    }
    assert_eq!(problem, expected);
}

#[test]
fn a_refusal_in_a_log_is_the_sentence_of_its_answer() {
    let refused = Refusal { limit: Some(search()), ..refused(Reason::Exhausted) };
    let said = refused.to_string();
    assert_eq!(said, "Rate limit `search` exceeded (plan free). Retry in 21 s.");
    assert!(sent(&refused).contains(&said));
}

#[test]
fn a_rate_is_429_with_the_wait() {
    let refused = Refusal {
        limit: Some(search()),
        retry_after: Some(Duration::from_millis(1_001)),
        ..refused(Reason::Exhausted)
    };
    assert_eq!(
        sent(&refused),
        r#"429
content-type: application/problem+json
cache-control: no-store
retry-after: 2
ratelimit: "search";r=0;t=21
ratelimit-policy: "search";q=30;w=60
{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","#
            .to_owned()
            + r#""title":"Quota exceeded","status":429,"#
            + r#""detail":"Rate limit `search` exceeded (plan free). Retry in 2 s.","#
            + r#""violated-policies":["search"],"plan":"free","#
            + r#""limit":{"name":"search","limit":30,"used":30,"remaining":0,"#
            + r#""resets-at":"2026-11-21T10:24:16.001Z"}}"#
    );
}

#[test]
fn a_quota_says_exactly_what_was_used() {
    let credits = LimitState {
        name: "credits/month".into(),
        kind: LimitKind::Quota,
        meter: Some("credits".into()),
        unit: Unit::Other,
        limit: Amount::new(500_000, 1000),
        remaining: Amount::new(1, 1000),
        used: Amount::new(499_999, 1000),
        resets_at_ms: Some(1_796_083_200_000),
        ..search()
    };
    let refused = Refusal { limit: Some(credits), ..refused(Reason::Exhausted) };
    let sent = sent(&refused);
    assert!(sent.contains("retry-after: 21\n"), "{sent}");
    assert!(
        sent.ends_with(
            r#""limit":{"name":"credits/month","limit":500,"used":499,"used-text":"499.999","remaining":0,"remaining-text":"0.001","resets-at":"2026-12-01T00:00:00Z"}}"#
        ),
        "{sent}"
    );
}

#[test]
fn a_quota_that_has_less_than_was_asked_for_is_not_called_used_up() {
    let tokens = LimitState {
        name: "tokens/day".into(),
        kind: LimitKind::Quota,
        meter: Some("tokens".into()),
        unit: Unit::Other,
        limit: Amount::new(200, 2),
        remaining: Amount::new(199, 2),
        used: Amount::new(1, 2),
        ..search()
    };
    let said = |reason| Refusal { limit: Some(tokens.clone()), ..refused(reason) }.to_string();
    assert_eq!(
        said(Reason::Exhausted),
        "Quota `tokens/day` has 99.5 left, less than asked (plan free). Retry in 21 s."
    );
    assert_eq!(
        said(Reason::PaymentRequired(Payment::GrantUsedUp)),
        "99.5 left of the one-time tokens of plan free, less than asked."
    );
}

#[test]
fn too_many_in_flight_is_429_and_one_second() {
    let flight = LimitState {
        name: "concurrency".into(),
        kind: LimitKind::Concurrency,
        limit: Amount::units(2),
        used: Amount::units(2),
        window: None,
        resets_in: None,
        ..search()
    };
    let refused = Refusal { limit: Some(flight), ..refused(Reason::Concurrency) };
    assert_eq!(
        sent(&refused),
        r#"429
content-type: application/problem+json
cache-control: no-store
retry-after: 1
ratelimit: "concurrency";r=0
ratelimit-policy: "concurrency";q=2;qu="concurrent-requests"
{"type":"/problems/concurrency-exceeded","title":"Too many requests in flight","status":429,"#
            .to_owned()
            + r#""detail":"Too many concurrent requests for plan free.","#
            + r#""violated-policies":["concurrency"],"plan":"free","#
            + r#""limit":{"name":"concurrency","limit":2,"used":2,"remaining":0}}"#
    );
}

#[test]
fn what_waiting_cannot_cure_is_402_without_a_wait() {
    let refused = Refusal {
        billing_url: Some("https://example.com/billing".into()),
        tenant: None,
        call: None,
        retry_after: Some(Duration::from_secs(9)),
        ..refused(Reason::PaymentRequired(Payment::TrialOver))
    };
    assert_eq!(
        sent(&refused),
        r#"402
content-type: application/problem+json
cache-control: no-store
{"type":"/problems/payment-required","title":"Payment required","status":402,"#
            .to_owned()
            + r#""detail":"The trial of plan free has ended.","reason":"trial-over","#
            + r#""plan":"free","billing-url":"https://example.com/billing"}"#
    );
}

#[test]
fn a_missing_feature_is_403() {
    assert_eq!(
        sent(&refused(Reason::FeatureMissing("exports".into()))),
        r#"403
content-type: application/problem+json
cache-control: no-store
{"type":"/problems/feature-not-in-plan","title":"Feature not in plan","status":403,"#
            .to_owned()
            + r#""detail":"Plan free does not include exports.","feature":"exports","#
            + r#""plan":"free"}"#
    );
}

#[test]
fn a_missing_permission_is_403_and_named() {
    let refused =
        Refusal { key: Some("k1".into()), ..refused(Reason::PermissionMissing("write".into())) };
    assert_eq!(
        sent(&refused),
        r#"403
content-type: application/problem+json
cache-control: no-store
{"type":"/problems/permission-missing","title":"Permission missing","status":403,"#
            .to_owned()
            + r#""detail":"The credential lacks the permission write, which this call needs.","#
            + r#""permission":"write","plan":"free"}"#
    );
}

#[test]
fn a_suspended_tenant_is_403() {
    assert_eq!(
        sent(&refused(Reason::Suspended)),
        r#"403
content-type: application/problem+json
cache-control: no-store
{"type":"/problems/suspended","title":"Suspended","status":403,"#
            .to_owned()
            + r#""detail":"Access is suspended by the operator of this service.","plan":"free"}"#
    );
}

#[test]
fn an_unknown_caller_is_401_and_told_how() {
    assert_eq!(
        sent(&Refusal { plan: None, ..refused(Reason::Unidentified) }),
        r#"401
content-type: application/problem+json
cache-control: no-store
www-authenticate: Bearer
{"type":"about:blank","title":"Unauthorized","status":401,"#
            .to_owned()
            + r#""detail":"Missing or unknown API credential."}"#
    );
}

#[test]
fn a_gate_that_fails_closed_is_503_with_a_wait() {
    assert_eq!(
        sent(&Refusal { plan: None, ..refused(Reason::Unavailable) }),
        r#"503
content-type: application/problem+json
cache-control: no-store
retry-after: 1
{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","#
            .to_owned()
            + r#""title":"Temporarily unable to decide","status":503,"#
            + r#""detail":"Usage cannot be checked at the moment. "#
            + r#"The request was not counted; retry."}"#
    );
}

#[test]
fn a_reused_idempotency_key_is_409() {
    assert_eq!(
        sent(&refused(Reason::IdempotencyConflict)),
        r#"409
content-type: application/problem+json
cache-control: no-store
{"type":"/problems/idempotency-conflict","#
            .to_owned()
            + r#""title":"Idempotency key used for another request","status":409,"#
            + r#""detail":"This idempotency key was used with another request. "#
            + r#"Use a new key for a new request.","plan":"free"}"#
    );
}

#[test]
fn every_payment_has_its_own_words() {
    let told = |payment| sent(&refused(Reason::PaymentRequired(payment)));
    assert!(told(Payment::Unpaid).contains(r#""reason":"unpaid""#));
    assert!(told(Payment::GrantUsedUp).contains(
        r#""detail":"The one-time units of plan free are used up.","reason":"grant-used-up""#
    ));
}

#[test]
fn the_host_can_move_types_and_statuses() {
    let options =
        WireOptions { problem_base: "https://docs.example.com/".into(), ..Default::default() };
    let refused = refused(Reason::PaymentRequired(Payment::GrantUsedUp));
    let how = Mapping { status: 429, retry: true, ..Mapping::of(&refused.reason) };
    let reply = refusal_as(&refused, how, &options, Call::default());
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(reply.status, 429);
    assert!(reply.headers.contains(&("retry-after", "1".to_owned())));
    assert_eq!(body["type"], "https://docs.example.com/problems/payment-required");
    assert_eq!(body["status"], 429);
}

#[test]
fn the_wait_is_rounded_up_and_at_least_a_second() {
    for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
        let wait = Some(Duration::from_millis(millis));
        let refused = Refusal { retry_after: wait, ..refused(Reason::Exhausted) };
        assert_eq!(retry_after(&refused), seconds, "{millis} ms");
    }
}
