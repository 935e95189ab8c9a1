//! `/_sim/..`: endpoints to control the simulator by hand.
//!
//! | call | does |
//! |---|---|
//! | `GET /_sim/totals` | everything counted, by event name, customer and period |
//! | `GET /_sim/calls` | every call with its answer |
//! | `GET /_sim/deliveries` | every attempt to send a webhook |
//! | `GET`, `POST`, `DELETE /_sim/faults` | the script: show, add one line or a list, clear |
//! | `GET`, `POST /_sim/clock` | the time: show, `{"now": s}`, `{"advance": s}`, `{"run": bool}` |
//! | `GET`, `POST /_sim/settings` | the settings: show, change some |
//! | `POST /_sim/events` | makes an event: see [`Sent`] |

use std::sync::Arc;

use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::server::Shared;
use crate::webhook;

/// An event to be made by hand.
///
/// Without `raw` it takes the usual way: kept, signed, sent to the webhook URL, subject to the
/// script. With `raw` it is sent at once and unchanged, and the answer reports the result: for
/// webhooks that must be refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sent {
    #[serde(rename = "type")]
    kind: String,
    /// `data.object` of a snapshot; `related_object` of a thin event.
    object: Value,
    previous_attributes: Option<Value>,
    /// The connected account that it belongs to.
    account: Option<String>,
    /// Set for a thin event: the data that is fetched from `/v2`.
    thin: Option<Value>,
    raw: Option<Raw>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    /// The body; by default the event as JSON.
    body: Option<String>,
    /// The complete `Stripe-Signature` header.
    signature: Option<String>,
    /// Otherwise, the secret to sign with instead of the configured ones,
    secret: Option<String>,
    /// and the second to sign as of instead of now.
    at: Option<i64>,
}

pub(crate) async fn answer(
    shared: &Arc<Shared>,
    method: &str,
    path: &str,
    body: &Bytes,
) -> (u16, Value) {
    let answered = match (method, path) {
        ("GET", "totals") => Ok(json!(shared.with(|world| {
            world.turn();
            world.totals()
        }))),
        ("GET", "calls") => Ok(json!(shared.calls())),
        ("GET", "deliveries") => Ok(json!(shared.deliveries())),
        ("GET", "faults") => Ok(json!(shared.with(|world| world.script.waiting()))),
        ("POST", "faults") => faults(shared, body),
        ("DELETE", "faults") => {
            shared.with(|world| world.script.clear());
            Ok(json!([]))
        }
        ("GET", "clock") => Ok(json!({ "now": shared.with(|world| world.now()) })),
        ("POST", "clock") => clock(shared, body),
        ("GET", "settings") => Ok(json!(shared.with(|world| world.settings.clone()))),
        ("POST", "settings") => settings(shared, body),
        ("POST", "events") => events(shared, body).await,
        _ => return (404, json!({ "error": format!("no such call: {method} /_sim/{path}") })),
    };
    match answered {
        Ok(body) => (200, body),
        Err(error) => (400, json!({ "error": error })),
    }
}

fn faults(shared: &Shared, body: &Bytes) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Many(Vec<Fault>),
        One(Fault),
    }
    let value: Value = read(body)?;
    let faults = match serde_json::from_value(value).map_err(|e| e.to_string())? {
        Given::Many(faults) => faults,
        Given::One(fault) => vec![fault],
    };
    shared.with(|world| {
        for fault in faults {
            if !world.script.push(fault) {
                return Err("the script is full".to_owned());
            }
        }
        Ok(json!(world.script.waiting()))
    })
}

fn clock(shared: &Shared, body: &Bytes) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    enum Given {
        Now(i64),
        Advance(u32),
        Run(bool),
    }
    let given: Given = read(body)?;
    shared.with(|world| {
        match given {
            Given::Now(at) if !world.clock.stand_at(at) => {
                return Err(format!("the clock never goes back: it is {}", world.now()));
            }
            Given::Now(_) => {}
            Given::Advance(seconds) => world.clock.advance(seconds),
            Given::Run(true) => world.clock.run(),
            Given::Run(false) => {
                let now = world.now();
                world.clock.stand_at(now);
            }
        }
        world.turn();
        Ok(json!({ "now": world.now() }))
    })
}

fn settings(shared: &Shared, body: &Bytes) -> Result<Value, String> {
    let changes: serde_json::Map<String, Value> = read(body)?;
    shared.with(|world| {
        let mut all = json!(world.settings);
        for (name, value) in changes {
            all[name] = value;
        }
        world.settings = serde_json::from_value(all).map_err(|error| error.to_string())?;
        Ok(json!(world.settings))
    })
}

async fn events(shared: &Shared, body: &Bytes) -> Result<Value, String> {
    let sent: Sent = read(body)?;
    let Some(raw) = sent.raw else {
        return Ok(shared.with(|world| {
            world.acting_as(sent.account, |world| match sent.thin {
                Some(data) => world.emit_thin(&sent.kind, sent.object, data),
                None => world.emit(&sent.kind, &sent.object, sent.previous_attributes),
            })
        }));
    };
    let (url, secrets, now, event) = shared.with(|world| {
        let event = json!({
            "id": format!("evt_raw{}", world.now()),
            "object": "event",
            "created": world.now(),
            "data": { "object": sent.object },
            "livemode": false,
            "type": sent.kind,
        });
        let settings = &world.settings;
        (settings.webhook_url.clone(), settings.webhook_secrets.clone(), world.now(), event)
    });
    let url = url.ok_or("no webhook_url is set")?;
    let body = raw.body.unwrap_or_else(|| event.to_string());
    let secrets = raw.secret.map_or(secrets, |secret| vec![secret]);
    let signature = raw
        .signature
        .unwrap_or_else(|| webhook::signature(&secrets, raw.at.unwrap_or(now), body.as_bytes()));
    let status = webhook::post(&webhook::sender(), &url, &signature, body.into()).await;
    Ok(json!({ "event": event, "status": status }))
}

fn read<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}
