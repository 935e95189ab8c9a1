//! `event apply`: an event from a file does what its webhook does, and says it.

use std::time::Duration;

use serde_json::Value;
use stripe_sim::{Settings, Sim};

use crate::home::Home;

const PLANS: &str = "default-plan = \"free\"\n\
                     [plan.free]\nquota.requests = \"9/day\"\n\
                     [plan.pro]\nstripe = { price = \"pro_monthly\" }\n\
                     quota.requests = \"99/day\"\n";

fn home(sim: &Sim) -> Home {
    let mut home = Home::empty();
    let service = "[stripe]\nkey = { env = \"STRIPE_SECRET_KEY\" }\napi-base = \"BASE\"\n";
    home.write("plans.toml", PLANS);
    home.write("tallygate.toml", &service.replace("BASE", &sim.url()));
    home.set("STRIPE_SECRET_KEY", "sk_test_x");
    home.run(&["tenant", "create", "acme"]).ok();
    home
}

/// A customer with a subscription, and the event of that.
fn subscribed(sim: &Sim) -> (String, Value) {
    let id = |it: &Value| it["id"].as_str().unwrap().to_owned();
    let customer = id(&sim.call("POST", "/v1/customers", "name=acme"));
    sim.call(
        "POST",
        &format!("/v1/customers/{customer}"),
        "invoice_settings[default_payment_method]=pm_card_visa",
    );
    let price = "currency=usd&unit_amount=500&recurring[interval]=month&product_data[name]=x\
                 &lookup_key=pro_monthly";
    let price = id(&sim.call("POST", "/v1/prices", price));
    let form = format!("customer={customer}&items[0][price]={price}");
    let subscription = sim.call("POST", "/v1/subscriptions", &form);
    (customer, sim.emit("customer.subscription.created", &subscription))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_from_a_file_says_what_it_changes() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    let home = home(&sim);
    let (customer, event) = subscribed(&sim);
    home.write("event.json", &event.to_string());
    let session = serde_json::json!({
        "object": "checkout.session", "id": "cs_1", "customer": customer, "mode": "subscription",
        "metadata": { "tallygate_tenant": "acme" },
    });
    let checkout = sim.emit("checkout.session.completed", &session);
    home.write("checkout.json", &checkout.to_string());

    let apply =
        |file: &str, more: &[&str]| home.run(&[&["event", "apply", "--file", file], more].concat());
    // Whose it is is not known yet; the checkout says it, and what was said before is in force.
    let first = apply("event.json", &["--json"]).json();
    assert_eq!((&first["outcome"], &first["tenant"]), (&"applied".into(), &Value::Null), "{first}");
    let dry = apply("checkout.json", &["--dry-run"]);
    assert!(dry.stderr.contains("nothing was applied"), "{}", dry.stderr);
    assert!(dry.ok().contains("tenant    acme"));
    assert_eq!(home.run(&["tenant", "show", "acme", "--json"]).json()["account"], Value::Null);

    let linked = apply("checkout.json", &["--json"]).json();
    assert_eq!((&linked["outcome"], &linked["tenant"]), (&"applied".into(), &"acme".into()));
    let fields = linked["differences"].as_array().unwrap();
    let of = |name: &str| fields.iter().find(|it| it["field"] == name);
    assert_eq!(of("plan").map(|it| &it["new"]), Some(&"pro".into()), "{linked}");
    assert_eq!(of("account").unwrap()["new"], *customer, "{linked}");
    assert_eq!(home.run(&["tenant", "show", "acme", "--json"]).json()["plan"], "pro");

    // Once more it changes nothing.
    let again = apply("checkout.json", &["--json"]).json();
    assert_eq!(again["outcome"], "applied before");
    let none = serde_json::json!([]);
    assert_eq!((&again["differences"], &again["changes"]), (&none, &none), "{again}");
}

/// It is not lost: once the tenant is there, the same file links it, under the operator's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_of_a_tenant_that_is_not_there_can_be_applied_later() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    let home = home(&sim);
    let (customer, _) = subscribed(&sim);
    let session = |tenant: &str, mode: &str, customer: &str| {
        serde_json::json!({
            "object": "checkout.session", "id": "cs_1", "customer": customer, "mode": mode,
            "metadata": { "tallygate_tenant": tenant },
        })
    };
    let checkout = |file: &str, session: &Value| {
        home.write(file, &sim.emit("checkout.session.completed", session).to_string());
    };
    checkout("hooli.json", &session("hooli", "subscription", &customer));
    let apply =
        |file: &str| home.run(&["event", "apply", "--file", file, "--actor", "lee", "--json"]);
    let outcome = |ran: &str| serde_json::from_str::<Value>(ran).unwrap()["outcome"].clone();
    for _ in 0..2 {
        let none = apply("hooli.json");
        assert_eq!((none.code, outcome(&none.stdout)), (4, "no tenant".into()), "{}", none.stdout);
        assert!(none.stdout.contains("create it, and apply the event again"), "{}", none.stdout);
    }
    home.run(&["tenant", "create", "hooli"]).ok();
    let linked = apply("hooli.json").json();
    assert_eq!(linked["outcome"], "applied", "{linked}");
    assert_eq!(home.run(&["tenant", "show", "hooli", "--json"]).json()["account"], *customer);
    let history = home.run(&["tenant", "history", "hooli", "--json"]).ok();
    let last: Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    assert_eq!(last["actor"], "lee", "{history}");
    assert_eq!(apply("hooli.json").json()["outcome"], "applied before");

    // The same where the customer is another tenant's, and where the tenant has another customer.
    checkout("taken.json", &session("acme", "subscription", &customer));
    checkout("other.json", &session("hooli", "payment", "cus_other"));
    for (file, why) in [("taken.json", "belongs to another"), ("other.json", "another customer")] {
        for _ in 0..2 {
            let ran = apply(file);
            assert_eq!(
                (ran.code, outcome(&ran.stdout)),
                (6, "not linked".into()),
                "{}",
                ran.stdout
            );
            assert!(ran.stdout.contains(why), "{}", ran.stdout);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_of_this_account_changes_nothing() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    let home = home(&sim);
    let (_, mut event) = subscribed(&sim);
    home.write("none.json", "{\"hello\": 1}");
    let args = ["event", "apply", "--file", "none.json"];
    assert!(home.run(&args).fails(2).contains("stripe events retrieve"));
    home.run(&["event", "apply", "--file", "missing.json"]).fails(4);
    event["livemode"] = true.into();
    home.write("live.json", &event.to_string());
    for _ in 0..2 {
        let live = home.run(&["event", "apply", "--file", "live.json"]);
        assert!(live.code == 6 && live.stdout.contains("other mode"), "{}", live.stdout);
    }
}

/// Meters and prices of the plan file: missing, made, and as they should not be.
#[tokio::test(flavor = "multi_thread")]
async fn stripe_is_compared_with_the_plan_file_and_missing_meters_are_made() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    let home = home(&sim);
    let more = "[meter.calls]\nstripe = { event = \"calls\", send = \"all\" }\n\
                [meter.scans]\nstripe = { event = \"scans\", send = \"all\" }\n\
                [topup.pack]\nstripe = { price = \"pack\" }\nadds = { requests = \"5\" }\n";
    home.write("plans.toml", &format!("{PLANS}{more}"));
    let scans = "display_name=x&event_name=scans&default_aggregation[formula]=count";
    sim.call("POST", "/v1/billing/meters", scans);
    let price = "currency=usd&unit_amount=500&product_data[name]=x&recurring[interval]=month";
    sim.call("POST", "/v1/prices", &format!("{price}&lookup_key=pack"));

    let states = |args: &[&str], code: i32| {
        let ran = home.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
        let read = |line: &str| {
            let it: Value = serde_json::from_str(line).unwrap();
            format!("{} {}", it["name"].as_str().unwrap(), it["state"].as_str().unwrap())
        };
        ran.stdout.lines().map(read).collect::<Vec<_>>()
    };
    let before = ["calls missing", "scans differs", "pro_monthly missing", "pack differs"];
    assert_eq!(states(&["stripe", "verify"], 7), before);
    let table = home.run(&["stripe", "verify"]).stdout;
    for said in [
        "`tallygate stripe sync` makes it",
        "default_aggregation.formula is count, not sum",
        "make a price with this lookup key, recurring price",
        "type is recurring, not one_time",
    ] {
        assert!(table.contains(said), "{said}: {table}");
    }
    assert_eq!(states(&["stripe", "sync", "--dry-run"], 7), before);

    let made = home.run(&["stripe", "sync"]);
    assert!(made.stderr.contains("meter calls: was made") && !made.stderr.contains("scans"));
    // What is there stays as it is; a price has an amount that no plan file says.
    let after = ["calls ok", "scans differs", "pro_monthly missing", "pack differs"];
    assert_eq!(states(&["stripe", "verify"], 7), after);
    assert_eq!(sim.call("GET", "/v1/billing/meters", "")["data"].as_array().unwrap().len(), 2);
    home.run(&["stripe", "sync"]);
    assert_eq!(sim.call("GET", "/v1/billing/meters", "")["data"].as_array().unwrap().len(), 2);

    home.write("plans.toml", PLANS);
    sim.call("POST", "/v1/prices", &format!("{price}&lookup_key=pro_monthly"));
    assert_eq!(states(&["stripe", "verify"], 0), ["pro_monthly ok"]);
}

/// An invoice of a month in which Stripe counted less than is on record.
#[tokio::test(flavor = "multi_thread")]
async fn invoices_are_shown_beside_the_usage_of_their_period() {
    let sim = Sim::start(Settings::default()).await.unwrap();
    let home = home(&sim);
    let meter = "[meter.calls]\nstripe = { event = \"calls\", send = \"all\" }\n";
    home.write("plans.toml", &format!("{PLANS}{meter}"));
    let none = home.run(&["invoices", "acme"]);
    assert!(none.code == 0 && none.stderr.contains("no customer"), "{}", none.stderr);
    home.run(&["invoices", "hooli"]).fails(4);

    let id = |it: &Value| it["id"].as_str().unwrap().to_owned();
    let meter = id(&sim.create_meter("calls").unwrap());
    let customer = id(&sim.call("POST", "/v1/customers", "name=acme"));
    let pays = "invoice_settings[default_payment_method]=pm_card_visa";
    sim.call("POST", &format!("/v1/customers/{customer}"), pays);
    let price = format!(
        "currency=usd&unit_amount=5&product_data[name]=x&lookup_key=pro_monthly\
         &recurring[interval]=month&recurring[usage_type]=metered&recurring[meter]={meter}"
    );
    let price = id(&sim.call("POST", "/v1/prices", &price));
    let form = format!("customer={customer}&items[0][price]={price}");
    let subscription = sim.call("POST", "/v1/subscriptions", &form);
    let event = sim.emit("customer.subscription.created", &subscription);
    home.write("event.json", &event.to_string());
    home.run(&["event", "apply", "--file", "event.json"]).ok();
    // A customer is in its tenant's record some seconds after its subscription began.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let session = serde_json::json!({
        "object": "checkout.session", "id": "cs_1", "customer": customer, "mode": "subscription",
        "metadata": { "tallygate_tenant": "acme" },
    });
    let checkout = sim.emit("checkout.session.completed", &session);
    home.write("checkout.json", &checkout.to_string());
    home.run(&["event", "apply", "--file", "checkout.json"]).ok();

    home.run(&["usage", "record", "acme", "calls", "4", "--id", "e1"]).ok();
    let sent = format!(
        "event_name=calls&payload[stripe_customer_id]={customer}&payload[value]=3&timestamp={}",
        sim.now() + 1
    );
    sim.advance(2);
    sim.call("POST", "/v1/billing/meter_events", &sent);
    let before = home.run(&["invoices", "acme", "--json"]).json();
    assert_eq!(before["usage"][0]["invoiced"], Value::Null, "{before}");
    sim.advance(32 * 86_400);

    let after = home.run(&["invoices", "acme", "--json"]).json();
    assert_eq!(after["invoices"][0]["total"], 15, "{after}");
    let usage = &after["usage"][0];
    assert_eq!((&usage["meter"], &usage["recorded"]), (&"calls".into(), &"4".into()), "{after}");
    assert_eq!((&usage["sent"], &usage["invoiced"]), (&0.into(), &3.into()), "{after}");
    let table = home.run(&["invoices", "acme"]).ok();
    assert!(table.contains("15 usd") && table.contains("INVOICED"), "{table}");
}
