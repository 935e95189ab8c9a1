//! Stripe's webhooks through actix-web: past the middleware, with the raw body, and no further than
//! the gate lets them.

use actix_web::{App, test};
use serde_json::json;
use stripe_sim::signature;
use tallygate::GateBuilder;
use tallygate::store::Memory;
use tallygate_actix_web::{GateMiddleware, stripe_routes};
use test_support::gates;

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"1/day\"\n";

#[actix_web::test]
async fn a_webhook_passes_the_middleware_and_is_judged_by_its_signature() {
    let home = tempfile::tempdir().unwrap();
    let service = gates::billed(home.path(), "sk_test_x", "whsec_x", "http://127.0.0.1:9");
    let builder = GateBuilder::from_text(&service).plans(PLANS).store(Memory::new());
    let gate = builder.open().await.unwrap();
    let app = App::new().wrap(GateMiddleware::new(&gate)).configure(stripe_routes(&gate));
    let app = test::init_service(app).await;
    let now = jiff::Timestamp::now().as_second();
    let event = json!({
        "id": "evt_1", "object": "event", "type": "charge.refunded", "created": now,
        "livemode": false, "data": { "object": { "id": "ch_1" } },
    })
    .to_string();
    let sign = |secret: &str, body: &str| signature(&[secret.to_owned()], now, body.as_bytes());
    let long = "x".repeat(5 << 20);
    for (path, body, signed, status) in [
        ("/webhooks/stripe", &event, sign("whsec_x", &event), 200),
        ("/webhooks/stripe", &event, sign("whsec_other", &event), 400),
        ("/webhooks/stripe", &event, String::new(), 400),
        ("/webhooks/stripe", &long, sign("whsec_x", &long), 413),
        // Another spelling is a request like any other.
        ("/webhooks/stripe/", &event, sign("whsec_x", &event), 401),
    ] {
        let ask = test::TestRequest::post().uri(path).set_payload(body.clone());
        let ask = ask.insert_header(("stripe-signature", signed)).to_request();
        assert_eq!(test::call_service(&app, ask).await.status(), status, "{path}");
    }
}
