//! Meter events: what is refused, what counts, what the summaries show, what is rejected later.

use serde_json::{Value, json};

use crate::client::{NOW, fault, next_event, start, total};

const DAY: u32 = 86_400;

#[tokio::test]
async fn an_identifier_counts_once_until_its_window_has_passed() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    assert_eq!(client.send(&customer, 5, "identifier=one").await.unwrap().status, 200);
    sim.advance(DAY - 1);
    let again = client.send(&customer, 5, "identifier=one").await.unwrap();
    assert_eq!(again.status, 400);
    assert_eq!(again.message(), "An event already exists with identifier one.");
    assert_eq!(again.body["error"]["type"], "invalid_request_error");
    assert_eq!(again.header("stripe-should-retry"), "false");
    assert_eq!(total(&sim), (5, 1));
    sim.advance(1);
    // Stripe promises no more than 24 h: here the second one bills twice.
    assert_eq!(client.send(&customer, 5, "identifier=one").await.unwrap().status, 200);
    assert_eq!(total(&sim), (10, 2));
}

#[tokio::test]
async fn timestamps_lie_between_35_days_back_and_5_minutes_ahead() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    let cases = [
        (NOW - 35 * 86_400 - 1, "timestamp_too_far_in_past"),
        (NOW - 35 * 86_400, ""),
        (NOW + 300, ""),
        (NOW + 301, "timestamp_in_future"),
    ];
    for (timestamp, code) in cases {
        let answer = client.send(&customer, 1, &format!("timestamp={timestamp}")).await.unwrap();
        assert_eq!(answer.status == 200, code.is_empty(), "{timestamp}");
        assert_eq!(answer.code(), code, "{timestamp}");
    }
    let counted: u64 = sim.totals().iter().map(|total| total.events).sum();
    assert_eq!(counted, 2);
}

#[tokio::test]
async fn values_are_whole_numbers_and_negative_ones_net_off() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    let send = async |value: &str| {
        let form =
            format!("event_name=api&payload[stripe_customer_id]={customer}&payload[value]={value}");
        client.post("/v1/billing/meter_events", &form).await
    };
    for bad in ["1.5", "1e3", "many", "99999999999999999999"] {
        assert_eq!(send(bad).await.code(), "meter_event_invalid_value", "{bad}");
    }
    assert_eq!(send("").await.status, 400);
    assert_eq!(send("9").await.status, 200);
    assert_eq!(send("-4").await.status, 200);
    assert_eq!(total(&sim), (5, 2));
}

#[tokio::test]
async fn an_unknown_event_name_or_parameter_is_refused() {
    let (_sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    let form = format!("event_name=nope&payload[stripe_customer_id]={customer}&payload[value]=1");
    let unknown = client.post("/v1/billing/meter_events", &form).await;
    assert_eq!((unknown.status, unknown.code()), (400, "resource_missing"));
    let extra = client.send(&customer, 1, "amount=3").await.unwrap();
    assert_eq!(extra.code(), "parameter_unknown");
    let long = format!("identifier={}", "x".repeat(101));
    assert_eq!(client.send(&customer, 1, &long).await.unwrap().status, 400);
}

#[tokio::test]
async fn one_call_at_a_time_per_customer_and_meter() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let (one, two) = (client.customer("").await, client.customer("").await);
    sim.set(|settings| settings.latency_ms = 100);
    let (a, b, c) =
        tokio::join!(client.send(&one, 1, ""), client.send(&one, 1, ""), client.send(&two, 1, ""));
    let mut of_one = [a.unwrap(), b.unwrap()];
    of_one.sort_by_key(|answer| answer.status);
    assert_eq!(of_one.each_ref().map(|answer| answer.status), [200, 429]);
    assert_eq!(of_one[1].code(), "lock_timeout");
    assert_eq!(of_one[1].header("stripe-should-retry"), "true");
    assert_eq!(c.unwrap().status, 200);
    // The lock is let go.
    assert_eq!(client.send(&one, 1, "").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_missing_customer_is_found_out_later_and_reported_in_a_thin_event() {
    let (sim, client) = start().await;
    let meter = client.meter("api").await;
    let taken = client.send("cus_nobody", 7, "identifier=lost").await.unwrap();
    assert_eq!(taken.status, 200);
    assert_eq!(total(&sim), (0, 0));
    sim.advance(60);
    let thin = client.get("/v2/core/events/evt_sim0000000002", "").await.ok();
    assert_eq!(thin["type"], "v1.billing.meter.error_report_triggered");
    assert_eq!(thin["object"], "v2.core.event");
    assert_eq!(thin["related_object"]["id"], meter.as_str());
    let reason = &thin["data"]["reason"];
    assert_eq!(reason["error_count"], 1);
    assert_eq!(reason["error_types"][0]["code"], "meter_event_customer_not_found");
    let sample = &reason["error_types"][0]["sample_errors"][0]["request"]["identifier"];
    assert_eq!(sample, "lost");
}

#[tokio::test]
async fn the_script_rejects_what_was_accepted() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    fault(&sim, next_event(json!({ "reject": { "code": "archived_meter" } })));
    assert_eq!(client.send(&customer, 7, "").await.unwrap().status, 200);
    assert_eq!(client.send(&customer, 1, "").await.unwrap().status, 200);
    assert_eq!(total(&sim), (1, 1));
}

#[tokio::test]
async fn summaries_lag_and_totals_do_not() {
    let (sim, client) = start().await;
    let meter = client.meter("api").await;
    let customer = client.customer("").await;
    sim.set(|settings| settings.summary_lag_s = 3_600);
    client.send(&customer, 5, &format!("timestamp={}", NOW - 120)).await.unwrap();
    client.send(&customer, 8, &format!("timestamp={}", NOW - 60)).await.unwrap();
    let path = format!("/v1/billing/meters/{meter}/event_summaries");
    let seen = async |from: i64, until: i64| {
        let query = format!("customer={customer}&start_time={from}&end_time={until}");
        let body = client.get(&path, &query).await.ok();
        let data = body["data"].as_array().unwrap().clone();
        assert_eq!(data.len(), 1, "one summary for the range, also of nothing");
        data[0]["aggregated_value"].clone()
    };
    assert_eq!(seen(NOW - 120, NOW).await, 0);
    sim.advance(3_600);
    assert_eq!(seen(NOW - 120, NOW).await, 13);
    assert_eq!(seen(NOW - 120, NOW - 60).await, 5);
    assert_eq!(seen(NOW - 60, NOW).await, 8);
    let askew = format!("customer={customer}&start_time={}&end_time={NOW}", NOW - 61);
    assert_eq!(client.get(&path, &askew).await.status, 400);
    let days = format!(
        "customer={customer}&start_time={}&end_time={}&value_grouping_window=day",
        NOW - 43_200,
        NOW + 43_200
    );
    let by_day = client.get(&path, &days).await.ok();
    assert_eq!(by_day["data"][0]["aggregated_value"], 13);
}

#[tokio::test]
async fn an_adjustment_cancels_within_24_hours() {
    let (sim, client) = start().await;
    client.meter("api").await;
    let customer = client.customer("").await;
    client.send(&customer, 5, "identifier=a").await.unwrap();
    client.send(&customer, 6, "identifier=b").await.unwrap();
    let cancel = async |identifier: &str| {
        let form = format!("event_name=api&type=cancel&cancel[identifier]={identifier}");
        client.post("/v1/billing/meter_event_adjustments", &form).await.status
    };
    assert_eq!(cancel("a").await, 200);
    assert_eq!(total(&sim), (6, 1));
    sim.advance(DAY);
    assert_eq!(cancel("b").await, 400);
    assert_eq!(total(&sim), (6, 1));
}

#[tokio::test]
async fn totals_are_cut_at_the_subscriptions_periods() {
    let (_sim, client) = start().await;
    let meter = client.meter("api").await;
    let customer = client.customer("").await;
    let price = client
        .post(
            "/v1/prices",
            &format!(
                "currency=usd&unit_amount=2&product_data[name]=x&recurring[interval]=month\
                 &recurring[usage_type]=metered&recurring[meter]={meter}"
            ),
        )
        .await
        .ok();
    let form = format!("customer={customer}&items[0][price]={}", price["id"].as_str().unwrap());
    client.post("/v1/subscriptions", &form).await.ok();
    client.send(&customer, 3, "").await.unwrap();
    client.send(&customer, 4, &format!("timestamp={}", NOW - 1)).await.unwrap();
    let totals: Vec<Value> = client.get("/_sim/totals", "").await.body.as_array().unwrap().clone();
    let seen: Vec<_> = totals.iter().map(|t| (&t["period_start"], &t["total"])).collect();
    // One month before the anchor is 17 February 2026, 12:00.
    assert_eq!(seen, [(&json!(NOW - 28 * 86_400), &json!(4)), (&json!(NOW), &json!(3))]);
}
