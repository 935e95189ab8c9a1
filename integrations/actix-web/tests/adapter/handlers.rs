//! What handlers see, and the routes that show a tenant its own use, over real sockets.

use actix_web::{App, web};
use tallygate_actix_web::{GateMiddleware, Plan, Refused, Tenant, Usage, usage_routes};

use test_support::plans::ADAPTER as PLANS;

use crate::support::{ACME, Gated, Server};

#[test]
fn extractors_say_who_and_what() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let who = async |tenant: Tenant, plan: Plan, usage: Usage| {
        assert_eq!((&*tenant, tenant.id()), ("acme", usage.tenant()));
        format!("{tenant} on {}", plan.name)
    };
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", web::get().to(who))
    });
    assert_eq!(server.send("GET", "/a").body, "acme on free");
}

#[test]
fn without_the_middleware_a_sentence_names_what_is_missing() {
    let server = Server::start(|| {
        App::new()
            .route("/a", web::get().to(async |_: Tenant| "never"))
            .route("/b", web::get().to(async |_: Usage| "never"))
            .route("/c", web::get().to(async |tenant: Option<Tenant>| tenant.is_none().to_string()))
    });
    for (path, wanted) in [("/a", "Tenant"), ("/b", "Usage")] {
        let answer = server.send("GET", path);
        assert_eq!(answer.status, 500);
        let sentence = answer.body;
        for word in [wanted, ".wrap(GateMiddleware::new(&gate))", "auth = \"none\""] {
            assert!(sentence.contains(word), "{sentence}");
        }
    }
    assert_eq!(server.send("GET", "/c").body, "true");
}

#[test]
fn an_optional_extractor_is_none_where_nobody_is_identified() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let name = async |tenant: Option<Tenant>| tenant.map_or("nobody".into(), |t| t.to_string());
    let server = Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/healthz", web::get().to(name))
            .route("/a", web::get().to(name))
    });
    assert_eq!(server.send("GET", "/healthz").body, "nobody");
    assert_eq!(server.send("GET", "/a").body, "acme");
}

/// Takes what the body asks for, reports 7 of it.
async fn chat(usage: Usage, most: String) -> Result<&'static str, Refused> {
    usage.take("tokens", most.parse().unwrap()).await?;
    usage.add("tokens", 7);
    Ok("hello")
}

#[test]
fn a_handler_takes_before_it_spends_and_its_refusal_is_the_gates() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&gate)).route("/chat", web::post().to(chat))
    });
    let ask = |most| server.raw("POST", "/chat", &[ACME], most).unwrap();
    assert_eq!(ask("50").body, "hello");
    gated.settled();
    assert_eq!(gated.meter("tokens"), (7, 0), "the rest went back");

    let refused = ask("500");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_ne!(refused.header("retry-after"), "");
    assert!(refused.body.contains("\"violated-policies\":[\"tokens/day\"]"), "{refused:?}");
    gated.settled();
    assert_eq!(gated.meter("tokens"), (7, 0));
}

#[test]
fn a_feature_is_required_within_a_handler() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let deep = async |plan: Plan| -> Result<&'static str, Refused> {
        plan.require("seats")?;
        plan.require("deep-search")?;
        Ok("found")
    };
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", web::get().to(deep))
    });
    let refused = server.send("GET", "/a");
    assert_eq!(refused.status, 403);
    let body = refused.body;
    assert!(body.contains("\"feature\":\"deep-search\"") && body.contains("free"), "{body}");
}

const SPENT: &str = r#"
    default-plan = "free"
    [route.mine]
    match = ["GET /mine/usage", "GET /mine/usage/history"]
    free = true
    [plan.free]
    concurrency = 100
    quota.requests = "1/day"
"#;

#[test]
fn usage_is_shown_to_who_is_over_its_limit_wherever_the_routes_stand() {
    let gated = Gated::new(SPENT);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .configure(usage_routes(&gate))
            .service(web::scope("/mine").configure(usage_routes(&gate)))
            .route("/a", web::get().to(async || "ok"))
    });
    assert_eq!(server.send("GET", "/a").status, 200);
    assert_eq!(server.send("GET", "/a").status, 429);
    for prefix in ["", "/mine"] {
        let answer = server.send("GET", &format!("{prefix}/usage"));
        assert_eq!(answer.status, 200, "{prefix}: {answer:?}");
        assert!(answer.body.contains("\"used\":1,"), "{answer:?}");
        let history = format!("{prefix}/usage/history?meter=requests");
        assert_eq!(server.send("GET", &history).status, 200);
        let unknown = format!("{prefix}/usage/history?meter=nothing");
        assert_eq!(server.send("GET", &unknown).status, 404);
    }
    let page = server.raw("GET", "/usage-page", &[], "").unwrap();
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_ne!(page.header("content-security-policy"), "");
    assert_eq!(server.raw("HEAD", "/usage-page", &[], "").unwrap().status, 200);
    // Only what the usage routes answer is let through.
    assert_eq!(server.send("POST", "/usage").status, 429);
    assert_eq!(server.send("GET", "/%75sage").status, 429);
    gated.settled();
    assert_eq!(gated.meter("requests"), (1, 0));
}

#[test]
fn a_path_of_the_host_is_not_let_through_for_its_name() {
    let gated = Gated::new(SPENT);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let own = web::get().to(async || "mine");
        App::new().wrap(GateMiddleware::new(&gate)).route("/usage", own)
    });
    assert_eq!(server.send("GET", "/usage").body, "mine");
    assert_eq!(server.send("GET", "/usage").status, 429);
}

#[test]
fn usage_is_shown_to_nobody_without_a_credential() {
    let gated = Gated::new(SPENT);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&gate)).configure(usage_routes(&gate))
    });
    for path in ["/usage", "/usage/history?meter=requests"] {
        let answer = server.raw("GET", path, &[], "").unwrap();
        assert_eq!(answer.status, 401);
        assert_ne!(answer.header("www-authenticate"), "");
    }
}

#[test]
fn usage_that_is_known_already_is_not_sent_again() {
    let gated = Gated::new(SPENT);
    let gate = gated.gate.clone();
    let server = Server::start(move || App::new().configure(usage_routes(&gate)));
    let first = server.send("GET", "/usage");
    let known = [ACME, ("if-none-match", first.header("etag"))];
    let again = server.raw("GET", "/usage", &known, "").unwrap();
    assert_eq!((again.status, &*again.body), (304, ""));
}

#[test]
fn a_history_of_any_dates_is_answered_in_any_zone() {
    for zone in ["UTC", "America/New_York", "Asia/Tokyo", "Pacific/Kiritimati"] {
        let gated = Gated::new(&format!("timezone = {zone:?}\n{PLANS}"));
        let gate = gated.gate.clone();
        let server = Server::start(move || App::new().configure(usage_routes(&gate)));
        for (from, to) in [
            ("9998-12-01", "9999-01-02"),
            ("9998-12-29", "9998-12-30"),
            ("9999-12-29", "9999-12-30"),
            ("-009999-01-03", "-009999-02-02"),
            ("0000-12-20", "0001-01-10"),
            ("1969-12-01", "1969-12-31"),
        ] {
            for granularity in ["day", "month"] {
                let query = format!("meter=requests&from={from}&to={to}&granularity={granularity}");
                let answer = server.send("GET", &format!("/usage/history?{query}"));
                assert_eq!(answer.status, 400, "{zone} {query}");
                assert!(answer.body.contains("Write "), "{}", answer.body);
            }
        }
    }
}
