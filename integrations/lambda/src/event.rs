//! Requests as a front door hands them over. One that makes no URI is answered with a 400: what a
//! host or a query holds is up to the client, and `lambda_http` panics there.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Body, LambdaEvent, TransformResponse};
use tower_service::Service;
use url::Url;

/// An application of requests, as a service of events.
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
        if makes_a_uri(&event.payload) {
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

/// Whether `lambda_http` can make a URI of it, which it does in this way: of the scheme, the host
/// and the path as a URL, then of a query that it does not encode.
pub(crate) fn makes_a_uri(event: &LambdaRequest) -> bool {
    let (headers, domain, stage, path, query) = match event {
        LambdaRequest::ApiGatewayV2(event) => {
            let of = &event.request_context;
            (&event.headers, &of.domain_name, &of.stage, &event.raw_path, &event.raw_query_string)
        }
        LambdaRequest::ApiGatewayV1(event) => {
            let of = &event.request_context;
            (&event.headers, &of.domain_name, &of.stage, &event.path, &None)
        }
        LambdaRequest::Alb(event) => (&event.headers, &None, &None, &event.path, &None),
        _ => return true,
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST.as_str()).or(domain.as_deref());
    let scheme = host.and_then(|_| text("x-forwarded-proto")).unwrap_or("https");
    let path = path.as_deref().unwrap_or_default();
    // A stage of its own may be put before the path: where there is one, both have to do.
    let staged = stage.iter().filter(|stage| *stage != "$default").map(|stage| format!("/{stage}"));
    std::iter::once(String::new()).chain(staged).all(|stage| {
        let url = format!("{scheme}://{}{stage}{path}", host.unwrap_or("localhost"));
        let Ok(url) = Url::parse(&url) else { return false };
        let query = query.as_deref().filter(|query| !query.is_empty());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{url}{query}").parse::<Uri>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use lambda_http::service_fn;
    use serde_json::{Value, json};

    use super::*;

    /// What the function answers, to a request through an HTTP API with this.
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
}
