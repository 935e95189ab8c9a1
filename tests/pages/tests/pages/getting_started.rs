//! docs/getting-started.md: its program, with its files, against the simulator.

use std::process::Command;

use serde_json::json;
use stripe_sim::{Settings, Sim};
use test_support::http;
use test_support::processes::Process;

use crate::support::{blocks, page};

#[tokio::test(flavor = "multi_thread")]
async fn three_requests_are_a_meter_event_and_a_subscription_is_a_plan() {
    let port = http::free_port();
    let webhook_url = Some(format!("http://127.0.0.1:{port}/webhooks/stripe"));
    let sim = Sim::start(Settings { webhook_url, ..Settings::default() }).await.unwrap();
    sim.create_meter("api_requests").unwrap();
    let home = tempfile::tempdir().unwrap();
    let files = blocks(&page("docs/getting-started.md"), "toml");
    let [(_, plans), (_, service)] = &files[..] else { panic!("{files:?}") };
    let service = service.replace("http://127.0.0.1:4242", &sim.url());
    std::fs::write(home.path().join("plans.toml"), plans).unwrap();
    std::fs::write(home.path().join("tallygate.toml"), service).unwrap();
    let start = || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_getting-started"));
        program.current_dir(home.path()).env_remove("TALLYGATE_PEPPER");
        program.env("PORT", port.to_string()).env("STRIPE_SECRET_KEY", "sk_test_x");
        Process::start(program.env("STRIPE_WEBHOOK_SECRET", "whsec_sim"))
    };
    let hello = |key: &str| {
        let headers = [("x-api-key", key)];
        test_support::waits::found("it listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
            http::send(("127.0.0.1", port), "GET", "/v1/hello", &headers, "")
        })
    };

    test_support::waits::past_a_minutes_end();
    let mut program = start();
    let key = program.first_line();
    for _ in 0..3 {
        assert_eq!(hello(&key).body, "hello acme\n");
    }
    program.signal("-TERM");
    assert!(program.ends_well());
    let totals = sim.totals();
    assert_eq!(totals.len(), 1);
    let total = serde_json::to_value(&totals[0]).unwrap();
    assert_eq!((&total["events"], &total["total"]), (&json!(1), &json!(3)), "{total}");

    let program = start();
    let before = hello(&key);
    assert!(before.header("ratelimit-policy").contains("q=5;"), "{before:?}");
    let price = json!({ "id": "price_1", "lookup_key": "pro_monthly" });
    let subscription = json!({
        "id": "sub_1", "object": "subscription", "customer": total["customer"], "status": "active",
        "items": { "data": [{ "quantity": 1, "price": price }] },
    });
    sim.emit("customer.subscription.created", &subscription);
    test_support::waits::until("the plan is `pro`", || {
        hello(&key).header("ratelimit-policy").contains("\"requests/cycle\";q=1000000")
    });
    drop(program);
    sim.stop().await;
}
