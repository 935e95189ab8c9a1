//! axum's router as a Lambda function: each request as an event of an HTTP API, through the types
//! of `lambda_http`, and each answer out of what the function would post. The process around it,
//! with its flush and freeze, is tested in `examples/lambda-http`.
//!
//! A function answers whole or not at all: where a stream breaks off in the plain trace (cut by the
//! gate, or a handler's panic in mid-stream) there is a 502 or an error here, and where a client
//! goes away the invocation is dropped. What is recorded is the same.

use std::time::Duration;

use axum::Router;
use equality::answer::Answer;
use equality::front::Front;
use equality::trace::{Act, Body, Request, Step};
use lambda_http::lambda_runtime::{Context, LambdaEvent};
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Service};
use serde_json::{Value, json};
use tallygate::{Gate, testing};
use tallygate_lambda::Function;
use tokio::runtime::{Handle, Runtime};

/// How long an answer that never ends is waited for, once leases are at rest. What it has to count
/// it has counted without a wait.
const A_WHILE: Duration = Duration::from_millis(100);

/// See the [module](self).
pub(crate) struct Lambda {
    app: Router,
    gate: Gate,
    handle: Handle,
}

impl Lambda {
    pub(crate) fn new(gate: &Gate, runtime: &Runtime) -> Self {
        let app = super::axum::app(gate);
        Self { app, gate: gate.clone(), handle: runtime.handle().clone() }
    }

    /// One invocation, on a task of its own: a panic ends it, as it ends the invocation.
    fn invoke(&self, request: &Request) -> tokio::task::JoinHandle<Value> {
        let event: LambdaRequest = serde_json::from_value(event(request)).unwrap();
        let mut function = Adapter::from(Function::new(self.app.clone()));
        self.handle.spawn(async move {
            let posted = function.call(LambdaEvent::new(event, Context::default())).await;
            serde_json::to_value(posted.unwrap()).unwrap()
        })
    }
}

/// One that has not ended: dropped, it ends as one that Lambda stops.
pub(crate) struct Invocation(tokio::task::JoinHandle<Value>);

impl Drop for Invocation {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Front for Lambda {
    type Open = Option<Invocation>;

    fn send(&mut self, request: &Request) -> Answer {
        let invocation = self.invoke(request);
        match self.handle.block_on(invocation) {
            Ok(posted) => answer(&posted, request),
            Err(_) => Answer::default(),
        }
    }

    fn open(&mut self, request: &Request, bytes: usize) -> (Answer, Self::Open) {
        let mut invocation = self.invoke(request);
        let posted = self.handle.block_on(async {
            testing::leases_at_rest(&self.gate).await;
            tokio::time::timeout(A_WHILE, &mut invocation).await.ok()
        });
        match posted {
            // A client that reads no further has not seen the end, where there was one.
            Some(posted) => match answer(&posted.unwrap(), request) {
                answer if answer.body.len() >= bytes => (Answer::default(), None),
                answer => (answer, None),
            },
            None => (Answer::default(), Some(Invocation(invocation))),
        }
    }
}

/// What the plain trace's answer comes to where only whole ones are answered.
pub(crate) fn whole_or_none(answer: &Answer) -> Answer {
    if answer.is_whole {
        answer.clone()
    } else {
        Answer { asked: answer.asked.clone(), ..Answer::default() }
    }
}

/// The trace, with bodies as an event has them: of known length.
pub(crate) fn announced(trace: &[Step]) -> Vec<Step> {
    let known = |request: &Request| match request.body {
        Body::Chunked(n) => Request { body: Body::Sized(n), ..request.clone() },
        _ => request.clone(),
    };
    let act = |act: &Act| match act {
        Act::Send(request) => Act::Send(known(request)),
        other => other.clone(),
    };
    trace.iter().map(|step| Step { wait: step.wait, act: act(&step.act) }).collect()
}

fn event(request: &Request) -> Value {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let body = match request.body {
        Body::None => Value::Null,
        Body::Sized(n) | Body::Chunked(n) => "y".repeat(n).into(),
    };
    let mut headers = json!({});
    if let Some(tenant) = request.tenant {
        headers["x-tenant"] = tenant.into();
    }
    if let Some(permission) = request.permission() {
        headers["x-permission"] = permission.into();
    }
    if let Some(origin) = request.origin() {
        headers["origin"] = origin.into();
    }
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "stage": "$default",
            "http": { "method": request.method, "path": path, "sourceIp": "203.0.113.9" },
        },
        "body": body,
        "isBase64Encoded": false,
    })
}

fn answer(posted: &Value, request: &Request) -> Answer {
    let status = u16::try_from(posted["statusCode"].as_u64().unwrap()).unwrap();
    if status == 502 {
        return Answer::default();
    }
    let text =
        |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().to_owned());
    let headers = posted["headers"].as_object().unwrap().iter().map(text);
    let body = posted["body"].as_str().unwrap_or_default().to_owned();
    assert!(posted["isBase64Encoded"] != true, "{posted}");
    assert!(request.method != "HEAD" || body.is_empty(), "{posted}");
    Answer { body, is_whole: true, ..Answer::head(status, headers) }
}
