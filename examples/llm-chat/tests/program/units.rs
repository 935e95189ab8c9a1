//! Tenants that run out of units, before an answer and in the middle of it.

use std::thread;

use serde_json::{Value, json};
use test_support::waits;

use crate::support::{App, Delivered, home, with, words};

/// Clients that call at once.
const CLIENTS: usize = 8;
/// Thousandths of a credit that a day of the plan free has.
const OF_FREE: u64 = 2_000;
/// The dearest piece of these answers: two tokens.
const PIECE: u64 = 8;

#[test]
fn streams_are_cut_where_the_units_end_and_deliver_no_token_more() {
    let home = home();
    let app = App::start(&home);
    let request = with(words(400), json!({ "model": "slow" }));
    let streams: Vec<_> = (0..CLIENTS).map(|_| app.chat("free", &request)).collect();
    let answers: Vec<_> = thread::scope(|scope| {
        let read = |(answer, socket)| scope.spawn(|| Delivered::whole(answer, socket));
        let all: Vec<_> = streams.into_iter().map(read).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!(answer.why(), "out-of-units");
        assert_eq!(answer.charged(), (4, answer.tokens));
        let problem = &answer.end["problem"];
        assert_eq!((&problem["status"], &problem["plan"]), (&json!(429), &json!("free")));
        assert_eq!(problem["violated-policies"], json!(["credits/day"]));
        assert!(problem["retry-after"].as_u64().unwrap() > 0);
    }
    let tokens: u64 = answers.iter().map(|answer| answer.tokens).sum();
    let cost = CLIENTS as u64 * 4 + 4 * tokens;
    assert!(cost <= OF_FREE, "{cost}");
    assert!(cost > OF_FREE - PIECE, "the last unit that a piece fits in is served: {cost}");
    waits::until("all have ended", || app.used("free", "output-tokens") == (tokens, 0));
    assert_eq!(app.credits("free"), cost);
}

#[test]
fn with_a_number_of_tokens_an_answer_is_refused_at_its_start_or_comes_whole() {
    let home = home();
    let app = App::start(&home);
    let request = with(words(100), json!({ "max_tokens": 150 }));
    let answers: Vec<_> = thread::scope(|scope| {
        let one = || {
            let (answer, socket) = app.chat("free", &request);
            if answer.status == 200 { Ok(Delivered::whole(answer, socket)) } else { Err(answer) }
        };
        let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut cost = 0;
    for answer in &answers {
        match answer {
            Ok(delivered) => {
                assert_eq!(delivered.why(), "complete");
                cost += 4 + 4 * delivered.tokens;
            }
            Err(refused) => {
                assert_eq!(refused.status, 429, "{refused:?}");
                assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
            }
        }
    }
    let whole = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((3..CLIENTS).contains(&whole), "three have 604 of 2,000 each: {whole}");
    assert!(cost <= OF_FREE);
    waits::until("all have ended", || app.used("free", "credits").1 == 0);
    assert_eq!(app.credits("free"), cost, "what a refused one took is given back");
}

#[test]
fn clients_that_hang_up_leave_the_rest_to_the_others_and_no_more() {
    let home = home();
    let app = App::start(&home);
    let least: u64 = thread::scope(|scope| {
        let one = |n: usize| {
            // Half of them hold 50 tokens, half take them one by one; each leaves after some.
            let most = if n.is_multiple_of(2) { json!(50) } else { Value::Null };
            let request = with(words(400), json!({ "model": "slow", "max_tokens": most }));
            let (answer, mut socket) = app.chat("free", &request);
            assert_eq!(answer.status, 200, "{answer:?}");
            let mut delivered = Delivered::default();
            for _ in 0..=n {
                delivered.read(&mut socket);
            }
            4 + 4 * delivered.tokens
        };
        let all: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || one(n))).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    // All are cut by then, and what they held is given back: the rest serves one more.
    waits::until("nothing is held", || app.used("free", "credits").1 == 0);
    let answer = app.whole("free", &words(400));
    let last = 4 + 4 * answer.tokens;
    assert_eq!(answer.why(), "out-of-units", "{answer:?}");
    waits::until("all have ended", || app.credits("free") > OF_FREE - PIECE);
    assert!(app.credits("free") <= OF_FREE);
    assert!(least + last <= OF_FREE, "{least} and {last}");
}

#[test]
fn prepaid_credits_are_spent_and_then_there_is_a_bill_to_pay() {
    let home = home();
    let app = App::start(&home);
    let answer = app.whole("prepaid", &words(2_000));
    assert_eq!(answer.why(), "out-of-units");
    let problem = &answer.end["problem"];
    assert_eq!((&problem["status"], &problem["retry-after"]), (&json!(402), &Value::Null));
    assert_eq!(problem["billing-url"], "https://example.com/billing");
    assert_eq!(app.credits("prepaid"), 4 + 4 * answer.tokens);
    assert!((4_000 - PIECE..=4_000).contains(&app.credits("prepaid")));
    let (refused, _) = app.chat("prepaid", &words(10));
    assert_eq!((refused.status, refused.header("retry-after")), (402, ""), "{refused:?}");
    assert_eq!(app.chat("pro", &words(10)).0.status, 200, "another tenant");
}
