//! Streams that end well, that the client leaves, and that the provider breaks off: each costs what
//! it delivered.

use std::io::BufRead;

use serde_json::json;
use test_support::http;
use test_support::waits;

use crate::support::{App, Delivered, home, program, with, words};

#[test]
fn a_whole_answer_is_charged_exactly_whenever_its_provider_counts() {
    let home = home();
    let app = App::start(&home);
    let (mut input, mut output) = (0, 0);
    for more in [
        json!({}),
        json!({ "max_tokens": 100 }),
        json!({ "model": "counts-at-the-end" }),
        json!({ "model": "counts-at-the-end", "max_tokens": 100 }),
    ] {
        let answer = app.whole("free", &with(words(30), more));
        assert_eq!((answer.why(), answer.charged()), ("complete", (3, answer.tokens)));
        (input, output) = (input + 3, output + answer.tokens);
        waits::until("the rest is given back", || app.used("free", "credits").1 == 0);
        assert_eq!(app.used("free", "input-tokens").0, input);
        assert_eq!(app.used("free", "output-tokens").0, output);
        assert_eq!(app.credits("free"), input + 4 * output);
    }
    assert_eq!(app.used("free", "requests"), (4, 0));
    assert_eq!(app.used("pro", "output-tokens"), (0, 0), "another tenant");

    assert!(app.ends_well());
    let app = App::start(&home);
    assert_eq!(app.credits("free"), input + 4 * output, "a restart keeps it");
}

#[test]
fn an_answer_ends_at_the_tokens_that_its_client_allows() {
    let home = home();
    let app = App::start(&home);
    for model in ["steady", "counts-at-the-end"] {
        let request = with(words(100), json!({ "max_tokens": 13, "model": model }));
        let answer = app.whole("pro", &request);
        assert_eq!(answer.why(), "max-tokens");
        assert_eq!(answer.charged(), (4, answer.tokens));
        assert!((12..=13).contains(&answer.tokens), "{answer:?}");
    }
}

#[test]
fn a_client_that_hangs_up_pays_for_what_it_received() {
    let home = home();
    let app = App::start(&home);
    let mut used_before = 0;
    for (model, n) in [("slow", 5), ("counts-at-the-end", 20)] {
        let request = with(words(10_000), json!({ "model": model, "max_tokens": 20_000 }));
        let (answer, mut socket) = app.chat("pro", &request);
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut delivered = Delivered::default();
        for _ in 0..n {
            delivered.read(&mut socket);
        }
        assert!(app.used("pro", "credits").1 > 70, "all that it may cost is held");
        drop(socket);
        waits::until("the rest is given back", || app.used("pro", "credits").1 == 0);
        let used = app.used("pro", "output-tokens").0 - used_before;
        // Where the pieces have no count it is at least one token a piece.
        let least = if model == "slow" { delivered.tokens } else { n };
        assert!((least..10_000).contains(&used), "{model}: {used} of {delivered:?}");
        used_before += used;
    }
}

#[test]
fn what_is_charged_at_the_end_alone_is_given_away_to_clients_that_hang_up() {
    let home = home();
    home.edit_plans("concurrency   = 100", "concurrency   = 1");
    let app = App::start(&home);
    let mut delivered = 0;
    {
        let request = with(words(10_000), json!({ "model": "slow" }));
        let mut socket = app.open("/demo/at-the-end", "pro", &request);
        assert_eq!(http::head(&mut socket).unwrap().status, 200);
        while delivered < 10 {
            let mut line = String::new();
            socket.read_line(&mut line).unwrap();
            delivered += u64::from(line.starts_with("data: "));
        }
    }
    waits::until("it has ended", || app.chat("pro", &words(1)).0.status == 200);
    waits::until("both have", || app.used("pro", "output-tokens") == (1, 0));
}

#[test]
fn a_provider_that_fails_is_paid_for_what_it_delivered() {
    let home = home();
    let app = App::start(&home);
    let request = with(words(100), json!({ "model": "breaks", "max_tokens": 200 }));
    let answer = app.whole("free", &request);
    assert_eq!((answer.why(), answer.charged()), ("provider-failed", (4, answer.tokens)));
    assert!(answer.tokens >= 10, "{answer:?}");
    waits::until("the rest is given back", || app.used("free", "credits").1 == 0);
    assert_eq!(app.used("free", "output-tokens").0, answer.tokens);
    assert_eq!(app.credits("free"), 4 + 4 * answer.tokens);
}

#[test]
fn an_answer_on_its_way_at_sigterm_is_sent_to_its_end() {
    let home = home();
    let app = App::start(&home);
    let request = with(words(30), json!({ "model": "slow" }));
    let (answer, mut socket) = app.chat("free", &request);
    let mut first = Delivered::default();
    first.read(&mut socket);
    app.signal("-TERM");
    let rest = Delivered::whole(answer, socket);
    assert_eq!((rest.why(), rest.charged()), ("complete", (3, first.tokens + rest.tokens)));
    assert!(app.ends_well());

    let app = App::start(&home);
    assert_eq!(app.used("free", "output-tokens"), (first.tokens + rest.tokens, 0));
}

#[test]
fn it_does_not_start_with_a_plan_file_of_another_app() {
    for (from, to, help) in [
        ("POST /v1/chat", "POST /v1/chats", "did you mean `POST /v1/chat`?"),
        ("output-tokens", "tokens-out", "the plan file has no meter `output-tokens`"),
    ] {
        let home = home();
        home.edit_plans(from, to);
        let ended = program(&home).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success() && said.contains(help), "{said}");
    }
}
