//! Validates front-door events before `lambda_http` converts them. An event that does not form a
//! URI, or whose body claims to be base64 and is not, is answered with 400: host, query and body
//! are under the client's control, and `lambda_http` panics on such input.

use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Body, LambdaEvent, TransformResponse};
use tower_service::Service;
use url::Url;

/// Adapts a request service to a service of Lambda events.
#[derive(Clone)]
pub(crate) struct Events<S>(Adapted<S>);

type Adapted<S> = Adapter<'static, Response<Full<Bytes>>, S>;

impl<S> Events<S>
where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>>,
    S::Future: Send + 'static,
{
    pub(crate) fn new(app: S) -> Self {
        Self(Adapter::from(app))
    }
}

impl<S> Service<LambdaEvent<LambdaRequest>> for Events<S>
where
    S: Service<Request<Body>, Response = Response<Full<Bytes>>>,
    S::Future: Send + 'static,
{
    type Response = <Adapted<S> as Service<LambdaEvent<LambdaRequest>>>::Response;
    type Error = S::Error;
    type Future = TransformResponse<'static, Response<Full<Bytes>>, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, event: LambdaEvent<LambdaRequest>) -> Self::Future {
        if makes_a_request(&event.payload) {
            return self.0.call(event);
        }
        let refused = async {
            let mut refused = Response::new(Full::default());
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            Ok(refused)
        };
        TransformResponse::Request(event.payload.request_origin(), Box::pin(refused))
    }
}

/// Limit of `http` on a URI, in bytes.
const MAX_URI: usize = 65_534;

/// Growth of a percent-encoded query that `lambda_http` decodes and encodes again, as it does with
/// a load balancer's.
const ENCODED_AGAIN: usize = 3;

/// Whether `lambda_http` can build a request from this event.
pub(crate) fn makes_a_request(event: &LambdaRequest) -> bool {
    let (is_base64, body) = match event {
        LambdaRequest::ApiGatewayV2(event) => (event.is_base64_encoded, &event.body),
        LambdaRequest::ApiGatewayV1(event) => (event.is_base64_encoded, &event.body),
        LambdaRequest::Alb(event) => (event.is_base64_encoded, &event.body),
        _ => return true,
    };
    let body = body.as_deref().filter(|_| is_base64);
    body.is_none_or(|body| STANDARD.decode(body).is_ok()) && makes_a_uri(event)
}

/// Whether `lambda_http` can build a URI from this event. Does the same steps: scheme, host and
/// path as a URL, then a query that it does not encode, or parameters that it does.
fn makes_a_uri(event: &LambdaRequest) -> bool {
    let longest = |one: String, other: String| one.len().max(other.len());
    let (headers, domain, stage, path, query, parameters) = match event {
        LambdaRequest::ApiGatewayV2(event) => {
            let of = &event.request_context;
            let (domain, stage) = (&of.domain_name, &of.stage);
            (&event.headers, domain, stage, &event.raw_path, &event.raw_query_string, 0)
        }
        LambdaRequest::ApiGatewayV1(event) => {
            let of = &event.request_context;
            let one = event.query_string_parameters.to_query_string();
            let several = event.multi_value_query_string_parameters.to_query_string();
            let parameters = longest(one, several);
            (&event.headers, &of.domain_name, &of.stage, &event.path, &None, parameters)
        }
        LambdaRequest::Alb(event) => {
            let one = event.query_string_parameters.to_query_string();
            let several = event.multi_value_query_string_parameters.to_query_string();
            let parameters = longest(one, several).saturating_mul(ENCODED_AGAIN);
            (&event.headers, &None, &None, &event.path, &None, parameters)
        }
        _ => return true,
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST.as_str()).or(domain.as_deref());
    let scheme = host.and_then(|_| text("x-forwarded-proto")).unwrap_or("https");
    let path = path.as_deref().unwrap_or_default();
    // `lambda_http` may prepend a stage to the path: if there is one, both forms must be valid.
    let staged = stage.iter().filter(|stage| *stage != "$default").map(|stage| format!("/{stage}"));
    std::iter::once(String::new()).chain(staged).all(|stage| {
        let url = format!("{scheme}://{}{stage}{path}", host.unwrap_or("localhost"));
        let Ok(url) = Url::parse(&url) else { return false };
        let query = query.as_deref().filter(|query| !query.is_empty());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let uri = format!("{url}{query}");
        uri.len() + 1 + parameters <= MAX_URI && uri.parse::<Uri>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use lambda_http::service_fn;
    use serde_json::{Value, json};

    use super::*;

    /// The function's response to a request through an HTTP API with this change.
    async fn answered(change: impl FnOnce(&mut Value)) -> Value {
        let mut event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": "/a", "rawQueryString": "b=c",
            "headers": { "host": "api.example.com" }, "isBase64Encoded": false,
            "requestContext": {
                "accountId": "1", "apiId": "a", "requestId": "r", "routeKey": "$default",
                "domainName": "api.example.com", "stage": "$default", "timeEpoch": 0,
                "http": {
                    "method": "GET", "path": "/a", "protocol": "HTTP/1.1", "sourceIp": "::1"
                }
            }
        });
        change(&mut event);
        let payload: LambdaRequest = serde_json::from_value(event).unwrap();
        let app = service_fn(|request: Request<Body>| async move {
            let uri = request.uri().to_string();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(uri))))
        });
        let event = LambdaEvent::new(payload, lambda_http::Context::default());
        let answer = Events::new(app).call(event).await.unwrap();
        serde_json::to_value(&answer).unwrap()
    }

    #[tokio::test]
    async fn a_request_has_its_hosts_uri() {
        let answer = answered(|_| {}).await;
        assert_eq!(answer["body"], "https://api.example.com/a?b=c");
        let answer = answered(|event| event["rawPath"] = json!("/a b/<c>")).await;
        assert_eq!(answer["body"], "https://api.example.com/a%20b/%3Cc%3E?b=c");
    }

    #[tokio::test]
    async fn a_request_of_which_no_uri_can_be_made_is_a_400_and_no_panic() {
        for host in ["`", "a b", "1.2.3.400", "a:99999", "["] {
            let answer = answered(|event| event["headers"]["host"] = json!(host)).await;
            assert_eq!(answer["statusCode"], 400, "{host}");
        }
        for query in ["a=<b>", "a b"] {
            let answer = answered(|event| event["rawQueryString"] = json!(query)).await;
            assert_eq!(answer["statusCode"], 400, "{query}");
        }
        let scheme = |event: &mut Value| event["headers"]["x-forwarded-proto"] = json!("no scheme");
        assert_eq!(answered(scheme).await["statusCode"], 400);
        let stage = |event: &mut Value| event["requestContext"]["stage"] = json!("prod");
        assert_eq!(answered(stage).await["body"], "https://api.example.com/prod/a?b=c");
    }

    #[tokio::test]
    async fn a_body_that_is_no_base64_is_a_400_and_no_panic() {
        for (body, status) in [("YWJj", 200), ("", 200), ("@@@", 400), ("YWJ", 400), ("-_-_", 400)]
        {
            let change = |event: &mut Value| {
                event["isBase64Encoded"] = json!(true);
                event["body"] = json!(body);
            };
            assert_eq!(answered(change).await["statusCode"], status, "{body}");
        }
    }

    #[test]
    fn parameters_that_make_too_long_a_uri_are_refused() {
        let of_a_load_balancer = |length: usize| {
            let event = json!({
                "httpMethod": "GET", "path": "/a", "headers": { "host": "api.example.com" },
                "multiValueHeaders": {}, "isBase64Encoded": false,
                "queryStringParameters": { "a": "b".repeat(length) },
                "requestContext": { "elb": { "targetGroupArn": "arn:aws:1" } }
            });
            serde_json::from_value::<LambdaRequest>(event).unwrap()
        };
        let of_a_rest_api = |length: usize| {
            let event = json!({
                "resource": "/a", "httpMethod": "GET", "path": "/a",
                "headers": { "host": "api.example.com" }, "multiValueHeaders": {},
                "queryStringParameters": { "a": "b".repeat(length) },
                "multiValueQueryStringParameters": { "a": ["b".repeat(length)] },
                "isBase64Encoded": false,
                "requestContext": {
                    "accountId": "1", "apiId": "a", "requestId": "r", "resourceId": "a",
                    "stage": "prod", "httpMethod": "GET", "identity": {}
                }
            });
            serde_json::from_value::<LambdaRequest>(event).unwrap()
        };
        // Accepted events really do form a request: `lambda_http` would panic here.
        for (event, makes) in [
            (of_a_load_balancer(16_000), true),
            (of_a_load_balancer(66_000), false),
            (of_a_rest_api(65_000), true),
            (of_a_rest_api(66_000), false),
        ] {
            assert_eq!(makes_a_request(&event), makes);
            if makes {
                let _ = Request::<Body>::from(event);
            }
        }
    }
}
