//! An API Gateway's Lambda authorizer: says which tenant a credential belongs to, for functions
//! behind it that read no credentials, whatever they are written in.
//!
//! # Laws
//!
//! 1. Nothing is charged and no limit is asked: the gateway keeps an answer for its TTL, so most
//!    requests never come here. Limits are held by the gate in the function behind.
//! 2. What is unknown is refused; what cannot be looked up is an error, which a gateway answers
//!    with 500. It never lets a caller through that it could not name.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use lambda_http::Error;
use lambda_http::lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::{Value, json};
use tallygate::adapter::{IdentifyStep, Waited};
use tallygate::middleware::HttpView;
use tallygate::{Entitlements, Gate, Reason, TenantHandle};

use crate::cognito::claims;

/// Longest wait for the tables: a gateway waits for its authorizer, and a client for both.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The error for which a REST API answers 401. Any other is a 500.
const UNAUTHORIZED: &str = "Unauthorized";

/// Serves an API Gateway's Lambda authorizer until the process ends.
///
/// | gateway | its authorizer | answers |
/// |---|---|---|
/// | REST API | `TOKEN` or `REQUEST` | a policy for the whole stage; `Unauthorized` (401) |
/// | HTTP API | `REQUEST`, format 2.0, simple responses enabled | `isAuthorized`; false is a 403 |
///
/// A caller is known by what `[[identify]]` and the API keys of the service file say, as in the
/// gate itself. The context has `tenant`, `plan`, `status` and `features`, as the triggers of
/// [`Cognito`](crate::Cognito) write them; a gate behind it reads the first
/// (`[[identify]] claim = "tenant"`). It names no user and no key: where limits hold for these, let
/// the function read the credential itself. A suspended tenant is refused, and stays refused, or
/// admitted, for the TTL that the gateway keeps answers.
///
/// ```no_run
/// #[tokio::main]
/// async fn main() -> Result<(), lambda_http::Error> {
///     let gate = tallygate_lambda::builder("tallygate.toml").open().await?;
///     tallygate_lambda::run_authorizer(&gate).await
/// }
/// ```
///
/// Source: API Gateway's developer guide, "Use API Gateway Lambda authorizers" (REST APIs) and
/// "Control access to HTTP APIs with AWS Lambda authorizers".
///
/// # Errors
///
/// The runtime API cannot be reached.
///
/// # Panics
///
/// As [`run`](crate::run).
pub async fn run_authorizer(gate: &Gate) -> Result<(), Error> {
    let gate = gate.clone();
    let handler = service_fn(move |event: LambdaEvent<Value>| {
        let gate = gate.clone();
        async move { authorize(&gate, &event.payload).await }
    });
    Runtime::new(handler).run_concurrent().await
}

/// Answers one event of an authorizer; for a handler of your own.
///
/// # Errors
///
/// `Unauthorized` for a REST API, if the caller is unknown. Otherwise the caller could not be
/// looked up within 3 seconds, or the event is not an authorizer's.
pub async fn authorize(gate: &Gate, event: &Value) -> Result<Value, Error> {
    let Some(asked) = Asked::of(event) else {
        return Err("the event is not that of an API Gateway's authorizer".into());
    };
    let found = tokio::time::timeout(ANSWER_WITHIN, named(gate, &asked)).await;
    let found = found.map_err(|_| format!("no caller within {ANSWER_WITHIN:?}"))??;
    match (found, asked.stage) {
        (Some((tenant, has)), stage) => {
            let is_served = &*has.status != "suspended";
            let mut context = json!({ "tenant": &**tenant.id() });
            for (name, value) in claims(&has) {
                context[name] = value.into();
            }
            Ok(answer(&tenant, stage.as_deref(), is_served, &context))
        }
        (None, Some(_)) => Err(UNAUTHORIZED.into()),
        (None, None) => Ok(json!({ "isAuthorized": false })),
    }
}

/// A gateway's answer: a policy where it asks for a stage, else the simple one.
fn answer(tenant: &TenantHandle, stage: Option<&str>, is_served: bool, context: &Value) -> Value {
    let Some(stage) = stage else {
        return json!({ "isAuthorized": is_served, "context": context });
    };
    json!({
        "principalId": &**tenant.id(),
        "policyDocument": { "Version": "2012-10-17", "Statement": [{
            "Action": "execute-api:Invoke",
            "Effect": if is_served { "Allow" } else { "Deny" },
            "Resource": stage,
        }] },
        "context": context,
    })
}

/// The caller's tenant and what it has; `None` if the caller is unknown.
async fn named(gate: &Gate, asked: &Asked) -> Result<Option<(TenantHandle, Entitlements)>, Error> {
    let view = HttpView::new(&asked.method, &asked.uri, &asked.headers, asked.peer);
    let mut waited = Waited::default();
    let tenant = loop {
        match gate.identify_request(&view, waited) {
            IdentifyStep::Done(identified) => break identified.tenant().clone(),
            IdentifyStep::Wait(pending) => waited = pending.await,
            IdentifyStep::Refused(refusal) if refusal.reason == Reason::Unidentified => {
                return Ok(None);
            }
            IdentifyStep::Refused(refusal) => return Err(refusal.to_string().into()),
        }
    };
    let has = gate.entitlements(tenant.id()).await?;
    Ok(has.map(|has| (tenant, has)))
}

/// An authorizer's event, as far as it names a caller.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    peer: Option<IpAddr>,
    /// The ARN of everything in a REST API's stage; `None`: an HTTP API, which is answered simply.
    stage: Option<String>,
}

impl Asked {
    fn of(event: &Value) -> Option<Self> {
        let context = &event["requestContext"];
        let mut headers = HeaderMap::new();
        let is_simple = event["version"] == "2.0";
        let method_arn = if is_simple { None } else { Some(event["methodArn"].as_str()?) };
        match event["type"].as_str()? {
            "TOKEN" => {
                let token = event["authorizationToken"].as_str()?;
                headers.insert(http::header::AUTHORIZATION, token.parse().ok()?);
            }
            "REQUEST" => headers = headers_of(event),
            _ => return None,
        }
        let (method, path, address) = if is_simple {
            let http = &context["http"];
            (&http["method"], &event["rawPath"], &http["sourceIp"])
        } else {
            (&event["httpMethod"], &event["path"], &context["identity"]["sourceIp"])
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            method: text(method).and_then(|it| it.parse().ok()).unwrap_or_default(),
            // Nothing is routed here, so a path that forms no URI hides no caller.
            uri: text(path).and_then(|it| it.parse().ok()).unwrap_or_default(),
            headers,
            peer: text(address).and_then(|it| it.trim().parse().ok()),
            stage: method_arn.map(whole_stage),
        })
    }
}

/// Every value of every header: two credentials of one kind must be seen to be two.
fn headers_of(event: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &Value| {
        let name = name.parse::<HeaderName>().ok();
        let value = value.as_str().and_then(|value| value.parse::<HeaderValue>().ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.append(name, value);
        }
    };
    if let Some(several) = event["multiValueHeaders"].as_object() {
        for (name, values) in several {
            values.as_array().into_iter().flatten().for_each(|value| add(name, value));
        }
    } else {
        let single = event["headers"].as_object();
        single.into_iter().flatten().for_each(|(name, value)| add(name, value));
    }
    headers
}

/// The stage of a method's ARN, with all of its methods: the gateway keeps one answer for all
/// requests with the same credential. `arn:aws:execute-api:eu-west-1:1:api/prod/GET/v1/search`.
fn whole_stage(method_arn: &str) -> String {
    let parts: Vec<&str> = method_arn.splitn(3, '/').take(2).collect();
    format!("{}/*", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use tallygate::store::Memory;
    use tallygate::testing::Faulty;

    use super::*;

    const PLANS: &str = r#"
        default-plan = "free"
        [plan.free]
        quota.requests = "1/day"
        feature.export = true
    "#;

    fn fine() -> Faulty {
        Faulty::scripted(Memory::new(), [])
    }

    /// A gate that takes API keys.
    async fn open(store: Faulty) -> Gate {
        let folder = tempfile::tempdir().unwrap();
        let pepper = folder.path().join("pepper");
        std::fs::write(&pepper, "a pepper of at least thirty-two bytes, for tests").unwrap();
        let service = format!(
            r#"
            [[identify]]
            api-key = ["authorization"]
            pepper  = [{{ id = "1", file = "{}" }}]
            [flush]
            mode = "fast"
            "#,
            pepper.display()
        );
        tallygate::GateBuilder::from_text(&service).plans(PLANS).store(store).open().await.unwrap()
    }

    const METHOD: &str = "arn:aws:execute-api:eu-west-1:1:a1/prod/GET/v1/search";

    fn rest(key: &str) -> Value {
        json!({
            "type": "REQUEST", "methodArn": METHOD, "httpMethod": "GET", "path": "/v1/search",
            "headers": { "Authorization": format!("Bearer {key}") },
            "multiValueHeaders": { "Authorization": [format!("Bearer {key}")] },
            "requestContext": { "identity": { "sourceIp": "203.0.113.9" } },
        })
    }

    fn token(key: &str) -> Value {
        let token = format!("Bearer {key}");
        json!({ "type": "TOKEN", "methodArn": METHOD, "authorizationToken": token })
    }

    fn simple(key: &str) -> Value {
        json!({
            "version": "2.0", "type": "REQUEST", "routeArn": METHOD, "rawPath": "/v1/search",
            "headers": { "authorization": format!("Bearer {key}") },
            "requestContext": { "http": { "method": "GET", "sourceIp": "203.0.113.9" } },
        })
    }

    #[tokio::test]
    async fn a_known_key_names_its_tenant_and_costs_nothing() {
        let gate = open(fine()).await;
        let acme = gate.directory().tenant("acme").save().await.unwrap();
        let key = acme.new_key("laptop").await.unwrap();
        let key = key.expose();
        for _ in 0..3 {
            for event in [rest(key), token(key)] {
                let answer = authorize(&gate, &event).await.unwrap();
                assert_eq!(answer["principalId"], "acme");
                let statement = &answer["policyDocument"]["Statement"][0];
                assert_eq!(statement["Effect"], "Allow");
                assert_eq!(statement["Resource"], "arn:aws:execute-api:eu-west-1:1:a1/prod/*");
                assert_eq!(answer["context"]["tenant"], "acme");
                assert_eq!(answer["context"]["plan"], "free");
                assert_eq!(answer["context"]["features"], r#"{"export":true}"#);
            }
            let answer = authorize(&gate, &simple(key)).await.unwrap();
            assert_eq!(answer["isAuthorized"], true);
            assert_eq!(answer["context"]["tenant"], "acme");
        }
        acme.suspend("abuse").await.unwrap();
        let answer = authorize(&gate, &rest(key)).await.unwrap();
        assert_eq!(answer["policyDocument"]["Statement"][0]["Effect"], "Deny");
        assert_eq!(authorize(&gate, &simple(key)).await.unwrap()["isAuthorized"], false);
    }

    #[tokio::test]
    async fn an_unknown_caller_is_refused_as_each_gateway_takes_it() {
        let gate = open(fine()).await;
        for key in ["", "tg_unknown"] {
            for event in [rest(key), token(key)] {
                assert_eq!(authorize(&gate, &event).await.unwrap_err().to_string(), UNAUTHORIZED);
            }
            let answer = authorize(&gate, &simple(key)).await.unwrap();
            assert_eq!(answer, json!({ "isAuthorized": false }));
        }
    }

    #[tokio::test]
    async fn what_is_no_authorizers_event_or_cannot_be_looked_up_lets_no_caller_through() {
        let store = fine();
        let gate = open(store.clone()).await;
        for event in [json!({}), json!({ "type": "REQUEST" }), json!({ "type": "OTHER" }), json!(7)]
        {
            let error = authorize(&gate, &event).await.unwrap_err().to_string();
            assert!(error.contains("not that of an API Gateway's authorizer"), "{error}");
        }
        let key = gate.directory().tenant("acme").save().await.unwrap().new_key("k").await.unwrap();
        store.outage(true);
        for event in [rest(key.expose()), simple(key.expose())] {
            let error = authorize(&gate, &event).await.unwrap_err().to_string();
            assert_ne!(error, UNAUTHORIZED, "the caller may be a good one");
        }
    }
}
