//! docs/admin.md: its `curl` lines, in order, and its table of routes.

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;
use pages::admin::with_admin;
use tallygate::directory::Role;
use tallygate::{Ask, Gate, GateBuilder};
use tower::ServiceExt;

const PAGE: &str = include_str!("../../../../docs/admin.md");
const PLANS: &str = r#"
    default-plan = "free"
    [meter.credits]
    [plan.free]
    quota.credits = "100/month"
    [plan.pro]
    quota.credits = "1000/month"
"#;

/// What a `curl` line sends.
struct Line {
    method: String,
    path: String,
    token: String,
    body: String,
}

impl Line {
    /// Reads one as a shell does, as far as the page goes: words, quotes, variables.
    fn read(line: &str, variable: &dyn Fn(&str) -> String) -> Self {
        let (mut words, mut rest) = (Vec::new(), line.trim());
        while !rest.is_empty() {
            let (word, after) = match rest.chars().next() {
                Some(quote @ ('"' | '\'')) => rest[1..].split_once(quote).unwrap(),
                _ => rest.split_once(' ').unwrap_or((rest, "")),
            };
            words.push(word.to_owned());
            rest = after.trim_start();
        }
        let after = |flag: &str| {
            let at = words.iter().position(|word| word == flag)?;
            Some(words[at + 1].clone())
        };
        let expanded = |text: &str| {
            ["TOKEN", "LEAKED", "KEY"].iter().fold(text.to_owned(), |text, name| {
                text.replace(&format!("${name}"), &variable(name))
            })
        };
        let body = after("-d").unwrap_or_default();
        let by_default = if body.is_empty() { "GET" } else { "POST" };
        let url = words.iter().find_map(|word| word.strip_prefix("localhost:3000")).unwrap();
        Self {
            method: after("-X").unwrap_or(by_default.to_owned()),
            path: expanded(url),
            token: expanded(after("-H").unwrap().strip_prefix("authorization: ").unwrap()),
            body,
        }
    }

    async fn send(&self, app: &Router) -> (u16, serde_json::Value) {
        let request = axum::http::Request::builder().method(&*self.method).uri(&*self.path);
        let request = request.header("authorization", &self.token);
        let request = request.body(Body::from(self.body.clone())).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

/// Uses all of the month's credits; how many those were.
async fn use_up(gate: &Gate) -> u64 {
    let acme = gate.tenant("acme").await.unwrap();
    let mut used = 0;
    while let Ok(permit) = gate.admit(Ask::new(&acme, "work").cost("credits", 100)).await {
        permit.settle();
        used += 100;
    }
    used
}

#[tokio::test]
async fn the_support_case_goes_as_the_page_says() {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\"";
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    let acme = gate.directory().tenant("acme").save().await.unwrap();
    gate.directory().tenant("ann@example.com").save().await.unwrap();
    let (leaked, key) = (acme.new_key("a").await.unwrap(), acme.new_key("b").await.unwrap());
    let token = gate.directory().new_operator("kim@example.com", Role::Write).await.unwrap();
    let app = with_admin(&gate, Router::new());
    let variable = |name: &str| match name {
        "TOKEN" => token.expose().to_owned(),
        "LEAKED" => leaked.id.clone(),
        _ => key.id.clone(),
    };
    assert_eq!(use_up(&gate).await, 100);
    let page = PAGE.replace("\\\n", "");
    let lines = page.lines().filter(|line| line.trim_start().starts_with("curl "));
    let mut answers = Vec::new();
    for line in lines {
        let line = Line::read(line, &variable);
        let (status, body) = line.send(&app).await;
        assert!((200..=201).contains(&status), "{} {}: {body}", line.method, line.path);
        answers.push((status, body));
        if line.path.ends_with("/grants") {
            assert_eq!(use_up(&gate).await, 1_000, "its next request passes");
        }
    }
    assert_eq!(answers.len(), 11);
    assert_eq!(answers[1].1["stripe"], false, "this service bills nothing");
    assert_eq!(answers[0].1["by_reason"]["quota-exceeded"], 1);
    let history = answers[5].1["history"].as_array().unwrap();
    let of_operator: Vec<_> =
        history.iter().filter(|entry| entry["actor"] == "kim@example.com").collect();
    assert_eq!(of_operator.len(), 2, "{history:?}");
    assert_eq!(answers.last().unwrap().1["status"], "suspended");
    gate.close().await.unwrap();
}

#[test]
fn the_table_of_routes_is_that_of_the_library() {
    let source = include_str!("../../../../src/admin/mod.rs");
    let routes = |text: &'static str| {
        let rows = text.lines().filter_map(|line| line.split_once("| `")?.1.split_once("` |"));
        let is_route = |word: &&str| {
            ["GET ", "POST ", "PATCH ", "DELETE "].iter().any(|it| word.starts_with(it))
        };
        rows.map(|(route, _)| route).filter(is_route).collect::<Vec<_>>()
    };
    assert_eq!(routes(PAGE), routes(source));
    assert_eq!(routes(PAGE).len(), 31);
}
