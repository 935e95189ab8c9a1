//! Names of meters that are checked once: [`tallygate::Gate::meter`].

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use http::{Request, Response};
use tallygate::middleware::GateLayer;
use tallygate::{Admitted, Ask, Error, Gate, ManualClock, Reason, Usage, testing};
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.output-tokens]
    count = "reported"
    [meter.credits]
    sum = { output-tokens = "1/1000" }
    [plan.free]
    quota.output-tokens = "100/day"
"#;

/// A handle on the usage of a request that has been answered.
async fn usage_of(gate: &Gate) -> Usage {
    let kept = Mutex::new(None);
    let inner = tower::service_fn(|request: Request<String>| {
        let admitted = request.extensions().get::<Admitted>().unwrap();
        *kept.lock().unwrap() = Some(admitted.usage());
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    });
    let request = Request::get("/").header("x-tenant", "acme").body(String::new()).unwrap();
    GateLayer::new(gate).layer(inner).oneshot(request).await.unwrap();
    kept.into_inner().unwrap().unwrap()
}

/// Output tokens that acme has used.
async fn used(gate: &Gate) -> u64 {
    let report = gate.usage_report(&testing::identified(gate, "acme").await).await.unwrap();
    report.meters.iter().find(|it| &*it.name == "output-tokens").unwrap().used.whole()
}

#[tokio::test]
async fn a_mistyped_name_is_an_error_that_names_the_one_that_was_meant() {
    let (gate, _clock) = testing::gate(PLANS);
    for (name, why) in [
        ("output-tokns", "no meter `output-tokns`: did you mean `output-tokens`?"),
        ("bananas", "no meter `bananas`: write one of `requests`, `output-tokens`"),
        ("credits", "`credits` is a sum"),
    ] {
        let error = gate.meter(name).unwrap_err();
        assert!(matches!(error, Error::NoMeter(_)), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_checked_name_goes_where_a_name_goes() {
    let (gate, _clock) = testing::gate(PLANS);
    let tokens = gate.meter("output-tokens").unwrap();
    assert_eq!((tokens.to_string(), tokens.as_ref()), ("output-tokens".into(), "output-tokens"));
    let usage = usage_of(&gate).await;
    usage.take(&tokens, 5).await.unwrap();
    usage.add(&tokens, 3);
    // Names of every other type still go there.
    usage.add(String::from("output-tokens"), 4);
    drop(usage);
    let acme = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&acme, "work").cost(&tokens, 20)).await.unwrap().settle();
    assert_eq!(used(&gate).await, 27);
}

#[tokio::test]
async fn a_checked_name_follows_the_plan_file() {
    let plans = testing::Plans::new(PLANS);
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = plans.read_by(testing::builder("")).clock(clock.clone()).open().await.unwrap();
    let later = async || {
        gate.flush_now().await.unwrap();
        clock.advance(Duration::from_secs(31)); // what was recorded is read again
        used(&gate).await
    };
    let tokens = gate.meter("output-tokens").unwrap();
    let acme = gate.tenant("acme").await.unwrap();
    let ask = |n| gate.admit(Ask::new(&acme, "work").cost(&tokens, n));
    ask(40).await.unwrap().settle();

    // Another place in the file.
    let other = PLANS.replacen("[meter.output", "[meter.first]\n[meter.output", 1);
    plans.set(&other);
    assert!(gate.reload().await.unwrap());
    ask(2).await.unwrap().settle();
    usage_of(&gate).await.add(&tokens, 1);
    assert_eq!(later().await, 43);

    // Gone: as an unknown name is.
    plans.set(&PLANS.replace("output-tokens", "words"));
    assert!(gate.reload().await.unwrap());
    let refusal = ask(1).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NotMetered("output-tokens".into()));
    let usage = usage_of(&gate).await;
    usage.add(&tokens, 1);
    let refusal = usage.take(&tokens, 1).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NotMetered("output-tokens".into()));
    assert!(gate.meter("output-tokens").is_err());

    // And back.
    plans.set(PLANS);
    assert!(gate.reload().await.unwrap());
    ask(2).await.unwrap().settle();
    assert_eq!(later().await, 45);
    gate.close().await.unwrap();
}
