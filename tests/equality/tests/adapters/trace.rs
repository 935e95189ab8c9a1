//! One recorded trace through every adapter: the same status, headers and body for each of its
//! steps, and the same ledger afterwards.

mod actix;
mod axum;
mod lambda;
mod plain;

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use equality::answer::Answer;
use equality::front::{self, Outcome};
use equality::trace::{Act, Body, Request, SEED, STEPS, Step, trace};

static TRACE: LazyLock<Vec<Step>> = LazyLock::new(|| trace(SEED));

/// What the others are compared with: the tower layer around a plain service.
static PLAIN: LazyLock<Outcome> = LazyLock::new(|| front::run(plain::Plain::new, &TRACE));

#[track_caller]
fn same(theirs: &Outcome) {
    equal(&PLAIN, theirs);
}

#[track_caller]
fn equal(plain: &Outcome, theirs: &Outcome) {
    assert_eq!(plain.answers.len(), theirs.answers.len());
    let differ = plain.answers.iter().zip(&theirs.answers).position(|(a, b)| a != b);
    if let Some(nth) = differ {
        let (ours, theirs) = (&plain.answers[nth], &theirs.answers[nth]);
        panic!("answer {nth} differs:\nplain {ours:#?}\nother {theirs:#?}");
    }
    for (ours, theirs) in plain.ledger.iter().zip(&theirs.ledger) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(plain.ledger.len(), theirs.ledger.len());
}

#[test]
fn axum_answers_and_records_the_same() {
    same(&front::run(axum::Axum::new, &TRACE));
}

#[test]
fn actix_answers_and_records_the_same() {
    same(&front::run(actix::Actix::new, &TRACE));
}

#[test]
fn a_lambda_function_answers_whole_or_not_and_records_the_same() {
    let trace = lambda::announced(&TRACE);
    let mut plain = front::run(plain::Plain::new, &trace);
    plain.answers = plain.answers.iter().map(lambda::whole_or_none).collect();
    equal(&plain, &front::run(lambda::Lambda::new, &trace));
}

/// Who has routes of its own, the gate's beside them, and asks for what neither has.
#[test]
fn a_path_that_no_route_has_is_gated_alike() {
    let callers = [Some("acme"), None];
    let paths = ["/v1/search", "/nowhere", "/", "/v1", "/usage/nowhere", "/v1/search/more"];
    let steps: Vec<Step> = paths
        .iter()
        .flat_map(|path| callers.map(|tenant| (path, tenant)))
        .map(|(path, tenant)| {
            let target = (*path).to_owned();
            let request = Request { method: "GET", target, tenant, body: Body::None };
            Step { wait: Duration::from_secs(1), act: Act::Send(request) }
        })
        .collect();
    let axum = front::run(axum::Axum::routed, &steps);
    equal(&axum, &front::run(actix::Actix::routed, &steps));
    for (n, answer) in axum.answers.iter().enumerate() {
        let expected = if n == 0 { 200 } else { [404, 401][n % 2] };
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    assert!(axum.ledger[1].contains("\"used\":6"), "{:?}", &axum.ledger[..2]);
}

/// No adapter serves it: who gets past the gate gets a 404.
#[test]
fn a_permission_is_asked_for_alike() {
    let steps: Vec<Step> = [Some("acme"), Some("solo"), None]
        .into_iter()
        .map(|tenant| Request { method: "GET", target: "/sealed".into(), tenant, body: Body::None })
        .map(|request| Step { wait: Duration::from_secs(1), act: Act::Send(request) })
        .collect();
    let plain = front::run(plain::Plain::new, &steps);
    let statuses: Vec<u16> = plain.answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [403, 404, 401]);
    assert!(plain.answers[0].body.contains("\"permission\":\"unseal\""), "{:?}", plain.answers);
    let all = [
        front::run(axum::Axum::new, &steps),
        front::run(actix::Actix::new, &steps),
        front::run(lambda::Lambda::new, &steps),
    ];
    for theirs in all {
        let others: Vec<u16> = theirs.answers.iter().map(|answer| answer.status).collect();
        assert_eq!(others, statuses);
        // The 404 is the framework's own.
        for refused in [0, 2] {
            let ours = &plain.answers[refused];
            assert_eq!(
                (&theirs.answers[refused].body, theirs.answers[refused].headers.len()),
                (&ours.body, ours.headers.len())
            );
        }
        assert_eq!(theirs.ledger, plain.ledger);
    }
}

#[test]
fn the_same_trace_twice_is_the_same() {
    same(&front::run(plain::Plain::new, &TRACE));
}

#[test]
fn the_trace_has_every_refusal_and_every_end_in_it() {
    assert_eq!(TRACE.len(), STEPS);
    let refusals: BTreeSet<_> = PLAIN.answers.iter().filter_map(Answer::refusal).collect();
    let problems = "https://iana.org/assignments/http-problem-types#";
    let all = [
        "401 about:blank".to_owned(),
        "402 /problems/payment-required".to_owned(),
        "403 /problems/feature-not-in-plan".to_owned(),
        "403 /problems/suspended".to_owned(),
        "411 /problems/length-required".to_owned(),
        "429 /problems/concurrency-exceeded".to_owned(),
        format!("429 {problems}quota-exceeded"),
        format!("503 {problems}temporary-reduced-capacity"),
    ];
    assert_eq!(refusals.into_iter().collect::<Vec<_>>(), all);
    let says = |words: &str| PLAIN.answers.iter().any(|answer| answer.body.contains(words));
    let words = ["trial-over", "unpaid", "grant-used-up", "Rate limit `search`", "Quota `tokens"];
    for words in words {
        assert!(says(words), "nothing says {words}");
    }
    let ended = |path: &str, is: fn(&Answer) -> bool| {
        PLAIN.answers.iter().any(|answer| answer.asked.contains(path) && is(answer))
    };
    let is_broken: fn(&Answer) -> bool = |a| a.status == 200 && !a.is_whole && !a.body.is_empty();
    assert!(ended("/v1/stream", |answer| answer.status == 200 && answer.is_whole));
    assert!(ended("/v1/stream", is_broken), "the gate cuts a stream");
    assert!(ended("/v1/wait", is_broken), "a client goes away");
    assert!(ended("/v1/stumble", is_broken), "a handler panics in mid-stream");
    assert!(ended("/v1/panic", |answer| answer.status == 0), "a handler panics");
    assert!(ended("/v1/error", |a| a.status == 500) && ended("/v1/error", |a| a.status == 418));
    assert!(ended("/v1/%73earch", |answer| answer.body == "found"), "encoded paths");
    let exposes =
        |a: &&Answer| a.header("access-control-expose-headers") == tallygate::wire::EXPOSE;
    let exposed: BTreeSet<_> = PLAIN.answers.iter().filter(exposes).map(|a| a.status).collect();
    assert!([200, 402, 429].iter().all(|status| exposed.contains(status)), "{exposed:?}");
    for row in &PLAIN.ledger {
        assert!(!row.contains("\"held\":") || row.contains("\"held\":0"), "{row}");
    }
}
