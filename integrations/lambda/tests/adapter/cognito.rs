//! A user pool's triggers, with events as Cognito sends them: who confirms becomes a tenant, tokens
//! say what it has, and nothing that fails keeps anybody from logging in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::{Value, json};
use tallygate::directory::Tenant;
use tallygate::store::{
    Item, Key, Memory, Page, Promise, Query, Store, StoreFuture, Write, Written,
};
use tallygate::testing::{self, Faulty};
use tallygate::{Gate, ManualClock};
use tallygate_lambda::{CONFIRM_WITHIN, Cognito, LOGIN_WITHIN};

const CONFIRMED: &str = include_str!("events/post-confirmation.json");
const TOKEN_V1: &str = include_str!("events/pre-token-v1.json");
const TOKEN_V2: &str = include_str!("events/pre-token-v2.json");
const SUB: &str = "3f1c0d5e-1111-4222-8333-444444444444";

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "10/day"
    [plan.team]
    quota.requests  = "1k/day"
    feature.export  = true
    feature.seats   = 5
    feature.storage = "unlimited"
"#;

fn event(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Triggers over a gate that is open already.
fn over(gate: &Gate) -> Cognito {
    let gate = gate.clone();
    Cognito::new(move || {
        let gate = gate.clone();
        async move { Ok::<_, tallygate::Error>(gate) }
    })
}

fn bench() -> (Gate, Cognito, ManualClock) {
    let (gate, clock) = testing::gate(PLANS);
    let triggers = over(&gate).tenant_attribute("custom:tenant");
    (gate, triggers, clock)
}

async fn tenant(gate: &Gate, id: &str) -> Option<Tenant> {
    gate.directory().find(id).await.unwrap()
}

#[tokio::test]
async fn who_confirms_is_a_tenant_once() {
    let (gate, triggers, _clock) = bench();
    let all = (0..8).map(|_| {
        let triggers = triggers.clone();
        tokio::spawn(async move { triggers.answer(event(CONFIRMED)).await.unwrap() })
    });
    for answered in all.collect::<Vec<_>>() {
        assert_eq!(answered.await.unwrap(), event(CONFIRMED), "the event goes back as it came");
    }
    let made = tenant(&gate, "acme").await.unwrap();
    assert_eq!(made.record().version, 1, "{:?}", made.record());
    assert_eq!(made.record().plan, None, "the default plan");

    // What an operator did to it meanwhile stays.
    made.edit().plan("team").save().await.unwrap();
    let mut forgotten = event(CONFIRMED);
    forgotten["triggerSource"] = json!("PostConfirmation_ConfirmForgotPassword");
    triggers.answer(forgotten).await.unwrap();
    let now = tenant(&gate, "acme").await.unwrap();
    assert_eq!(now.record().plan.as_deref(), Some("team"));
    assert_eq!(now.record().surrogate, made.record().surrogate);
    // By default each user is a tenant of its own.
    over(&gate).answer(event(CONFIRMED)).await.unwrap();
    assert!(tenant(&gate, SUB).await.is_some());
}

#[tokio::test]
async fn a_token_says_what_its_tenant_has_and_loses_nothing() {
    let (gate, triggers, _clock) = bench();
    let acme = gate.directory().tenant("acme").plan("team").save().await.unwrap();
    let claims = json!({
        "plan": "team", "status": "active",
        "features": r#"{"export":true,"seats":5,"storage":"unlimited"}"#,
    });

    let told = triggers.answer(event(TOKEN_V1)).await.unwrap();
    let mut wanted = event(TOKEN_V1);
    wanted["response"] = json!({ "claimsOverrideDetails": {
        "claimsToAddOrOverride": claims,
        // Without it Cognito would take the user out of its groups.
        "groupOverrideDetails": event(TOKEN_V1)["request"]["groupConfiguration"],
    } });
    assert_eq!(told, wanted);

    for version in ["2", "3"] {
        let mut asked = event(TOKEN_V2);
        asked["version"] = json!(version);
        let mut wanted = asked.clone();
        wanted["response"] = json!({ "claimsAndScopeOverrideDetails": {
            "idTokenGeneration": { "claimsToAddOrOverride": claims },
            "accessTokenGeneration": { "claimsToAddOrOverride": claims },
            "groupOverrideDetails": event(TOKEN_V2)["request"]["groupConfiguration"],
        } });
        assert_eq!(triggers.answer(asked).await.unwrap(), wanted);
    }

    acme.suspend("abuse").await.unwrap();
    let told = triggers.answer(event(TOKEN_V1)).await.unwrap();
    let added = &told["response"]["claimsOverrideDetails"]["claimsToAddOrOverride"];
    assert_eq!(added["status"], "suspended", "and the login goes on");
}

#[tokio::test]
async fn what_another_trigger_has_said_stays() {
    let (gate, triggers, _clock) = bench();
    gate.directory().tenant("acme").save().await.unwrap();
    let mut asked = event(TOKEN_V1);
    asked["response"] = json!({ "claimsOverrideDetails": {
        "claimsToAddOrOverride": { "color": "green" },
        "claimsToSuppress": ["email"],
        "groupOverrideDetails": { "groupsToOverride": ["readers"] },
    } });
    let told = triggers.answer(asked.clone()).await.unwrap();
    let mut wanted = asked;
    let added = &mut wanted["response"]["claimsOverrideDetails"]["claimsToAddOrOverride"];
    *added = json!({ "color": "green", "plan": "free", "status": "active", "features": "{}" });
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn features_that_are_too_long_for_a_token_are_left_out() {
    let mut plans = PLANS.to_owned();
    for n in 0..60 {
        plans += &format!("    feature.a-feature-with-a-long-name-of-its-own-{n} = true\n");
    }
    let (gate, _clock) = testing::gate(&plans);
    gate.directory().tenant("acme").plan("team").save().await.unwrap();
    let told = over(&gate).tenant_attribute("custom:tenant").answer(event(TOKEN_V1)).await;
    let told = told.unwrap();
    let added = &told["response"]["claimsOverrideDetails"]["claimsToAddOrOverride"];
    assert_eq!(added, &json!({ "plan": "team", "status": "active" }));
}

#[tokio::test]
async fn events_of_no_known_tenant_or_trigger_go_back_as_they_came() {
    let (_gate, triggers, _clock) = bench();
    let strange = |change: fn(&mut Value)| {
        let mut asked = event(TOKEN_V2);
        change(&mut asked);
        asked
    };
    for asked in [
        event(TOKEN_V1), // nobody has made `acme`
        strange(|asked| asked["version"] = json!("4")),
        strange(|asked| asked["version"] = Value::Null),
        strange(|asked| asked["request"] = json!({})),
        // Machines have no attributes.
        strange(|asked| {
            asked["triggerSource"] = json!("TokenGeneration_ClientCredentials");
            asked["request"]["userAttributes"] = json!({});
        }),
        strange(|asked| asked["triggerSource"] = json!("PreSignUp_SignUp")),
        json!({ "triggerSource": "TokenGeneration_Authentication" }),
        json!({}),
        json!([]),
        Value::Null,
    ] {
        assert_eq!(triggers.answer(asked.clone()).await.unwrap(), asked);
    }
}

#[tokio::test]
async fn with_the_store_away_a_login_goes_on_and_a_confirmation_says_so() {
    let store = Faulty::scripted(Memory::new(), []);
    let (gate, _clock) = testing::gate_with(PLANS, store.clone());
    let triggers = over(&gate).tenant_attribute("custom:tenant");
    gate.directory().tenant("acme").plan("team").save().await.unwrap();
    store.outage(true);
    for text in [TOKEN_V1, TOKEN_V2] {
        assert_eq!(triggers.answer(event(text)).await.unwrap(), event(text));
    }
    assert!(triggers.answer(event(CONFIRMED)).await.is_err());
    store.outage(false);
    assert_ne!(triggers.answer(event(TOKEN_V1)).await.unwrap(), event(TOKEN_V1));
}

/// A store that, once it is silent, never answers anything.
struct Silent {
    memory: Memory,
    silent: Arc<AtomicBool>,
}

impl Silent {
    fn or<T: Send + 'static>(&self, answer: StoreFuture<T>) -> StoreFuture<T> {
        if self.silent.load(Ordering::SeqCst) { Box::pin(std::future::pending()) } else { answer }
    }
}

impl Store for Silent {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.or(self.memory.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.or(self.memory.write(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.or(self.memory.query(query))
    }

    fn promise(&self) -> Promise {
        self.memory.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.memory.close()
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_delays_a_login_by_a_second_and_no_more() {
    let silent = Arc::new(AtomicBool::new(false));
    let store = Silent { memory: Memory::new(), silent: silent.clone() };
    let (gate, _clock) = testing::gate_with(PLANS, store);
    let triggers = over(&gate).tenant_attribute("custom:tenant");
    gate.directory().tenant("acme").plan("team").save().await.unwrap();
    silent.store(true, Ordering::SeqCst);

    let begun = tokio::time::Instant::now();
    assert_eq!(triggers.answer(event(TOKEN_V2)).await.unwrap(), event(TOKEN_V2));
    assert_eq!(begun.elapsed(), LOGIN_WITHIN);
    let begun = tokio::time::Instant::now();
    let late = triggers.answer(event(CONFIRMED)).await.unwrap_err();
    assert!(late.to_string().contains("no answer within"), "{late}");
    assert_eq!(begun.elapsed(), CONFIRM_WITHIN);
}

#[tokio::test]
async fn a_gate_that_cannot_be_opened_or_panics_blocks_nobody_and_is_tried_again() {
    let (gate, _clock) = testing::gate(PLANS);
    gate.directory().tenant("acme").plan("team").save().await.unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let triggers = Cognito::new(move || {
        let (gate, at) = (gate.clone(), counted.fetch_add(1, Ordering::SeqCst));
        async move {
            match at {
                0 => Err("the table is missing"),
                1 => panic!("a host's own code"),
                _ => Ok(gate),
            }
        }
    })
    .tenant_attribute("custom:tenant");
    for _ in 0..2 {
        assert_eq!(triggers.answer(event(TOKEN_V1)).await.unwrap(), event(TOKEN_V1));
    }
    for _ in 0..2 {
        assert_ne!(triggers.answer(event(TOKEN_V1)).await.unwrap(), event(TOKEN_V1));
    }
    assert_eq!(tries.load(Ordering::SeqCst), 3, "opened once");
}
