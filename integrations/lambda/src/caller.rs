//! The caller as the function's front door reports it: the claims its authorizer has verified, and
//! the source address.
//!
//! | front door | claims | address |
//! |---|---|---|
//! | REST API, Cognito user pool | `authorizer.claims` | `identity.sourceIp` |
//! | REST API, Lambda authorizer | `authorizer`, flat | `identity.sourceIp` |
//! | HTTP API, JWT | `authorizer.jwt.claims` | `http.sourceIp` |
//! | HTTP API, Lambda authorizer | `authorizer.lambda` | `http.sourceIp` |
//! | HTTP API or function URL, IAM | ids in `authorizer.iam` | `http.sourceIp` |
//! | load balancer | none | the last hop of `X-Forwarded-For`, which it adds itself |
//!
//! (All but that header are in the event's `requestContext`. The IAM ids become the claims
//! `accountId`, `callerId`, `userArn` and `userId`.)
//!
//! Only the event is trusted, never a header: behind a load balancer or an open function URL the
//! tenant comes from an API key or a token, or from a header set by a trusted proxy in front
//! (`[[identify]] header`, accepted if the address here is in `[proxy] trust`).
//!
//! Values are text. Numbers and booleans are written as JSON writes them; anything else (lists,
//! objects, null) is not a claim. A custom Cognito attribute keeps its prefix: `custom:tenant`.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Request};
use lambda_http::aws_lambda_events::apigw::ApiGatewayRequestAuthorizer;
use lambda_http::request::RequestContext;
use serde_json::Value;
use tallygate::middleware::{Claims, Peer};

/// The front door's view of this request's caller. [`run`](crate::run) puts both values into the
/// request's extensions, where the layer finds them.
pub fn caller_of<B>(request: &Request<B>) -> (Claims, Option<Peer>) {
    let Some(context) = request.extensions().get::<RequestContext>() else {
        return (Claims::default(), None);
    };
    let (claims, address) = match context {
        RequestContext::ApiGatewayV1(rest) => {
            (claims_of(&rest.authorizer), rest.identity.source_ip.as_deref())
        }
        RequestContext::ApiGatewayV2(api) => (
            api.authorizer.as_ref().map(claims_of).unwrap_or_default(),
            api.http.source_ip.as_deref(),
        ),
        RequestContext::Alb(_) => (Claims::default(), last_hop(request.headers())),
        _ => (Claims::default(), None),
    };
    // No front door reports a port, and nothing needs one.
    let peer = address.and_then(|address| address.trim().parse::<IpAddr>().ok());
    (claims, peer.map(|address| Peer(SocketAddr::new(address, 0))))
}

/// Puts the front door's view of the caller into the request's extensions.
pub(crate) fn name_caller<B>(request: &mut Request<B>) {
    let (claims, peer) = caller_of(request);
    request.extensions_mut().insert(claims);
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
}

/// Reads the claims from whichever of these shapes the authorizer has.
fn claims_of(authorizer: &ApiGatewayRequestAuthorizer) -> Claims {
    if let Some(jwt) = &authorizer.jwt {
        return jwt.claims.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    }
    if let Some(iam) = &authorizer.iam {
        let named = [
            ("accountId", &iam.account_id),
            ("callerId", &iam.caller_id),
            ("userArn", &iam.user_arn),
            ("userId", &iam.user_id),
        ];
        let there = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        return there.collect();
    }
    // Cognito's claims are an object among the fields; other authorizers have flat fields.
    match authorizer.fields.get("claims") {
        Some(Value::Object(claims)) => claims.iter().filter_map(text).collect(),
        _ => authorizer.fields.iter().filter_map(text).collect(),
    }
}

fn text<'a>((name, value): (&'a String, &Value)) -> Option<(&'a str, String)> {
    let value = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(yes) => yes.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some((name, value))
}

fn last_hop(headers: &HeaderMap) -> Option<&str> {
    let line = headers.get_all("x-forwarded-for").iter().next_back()?;
    line.to_str().ok()?.rsplit(',').next()
}

#[cfg(test)]
mod tests {
    use lambda_http::request::from_str;

    use super::*;

    /// An event with this request context, in the form of a REST API (1) or HTTP API (2).
    fn event(version: u8, context: &str) -> String {
        match version {
            1 => format!(
                r#"{{"resource":"/","path":"/v1/search","httpMethod":"GET","headers":{{}},
                "multiValueHeaders":{{}},"requestContext":{{"stage":"$default","httpMethod":"GET",
                "identity":{{"sourceIp":"203.0.113.9"}}{context}}},"body":null,
                "isBase64Encoded":false}}"#
            ),
            _ => format!(
                r#"{{"version":"2.0","routeKey":"$default","rawPath":"/v1/search",
                "rawQueryString":"","headers":{{}},"requestContext":{{"stage":"$default",
                "http":{{"method":"GET","path":"/v1/search","sourceIp":"203.0.113.9"}}{context}}},
                "isBase64Encoded":false}}"#
            ),
        }
    }

    fn claim(version: u8, authorizer: &str, name: &str) -> Option<String> {
        let context = format!(r#","authorizer":{authorizer}"#);
        let request = from_str(&event(version, &context)).unwrap();
        caller_of(&request).0.get(name).map(str::to_owned)
    }

    #[test]
    fn reads_the_claims_of_every_authorizer() {
        let shapes = [
            (1, r#"{"claims":{"custom:tenant":"acme","sub":"7"}}"#, "custom:tenant"),
            (1, r#"{"principalId":"7","tenant":"acme"}"#, "tenant"),
            (2, r#"{"jwt":{"claims":{"tenant":"acme","sub":"7"},"scopes":null}}"#, "tenant"),
            (2, r#"{"lambda":{"tenant":"acme"}}"#, "tenant"),
            (2, r#"{"iam":{"accessKey":"AK","accountId":"acme","userArn":"arn"}}"#, "accountId"),
        ];
        for (version, authorizer, name) in shapes {
            assert_eq!(claim(version, authorizer, name).as_deref(), Some("acme"), "{authorizer}");
        }
    }

    #[test]
    fn numbers_are_text_and_what_has_parts_is_no_claim() {
        let authorizer =
            r#"{"tenant":42,"admin":true,"groups":["a"],"of":{"tenant":"x"},"no":null}"#;
        let value = |name| claim(1, authorizer, name);
        assert_eq!(value("tenant").as_deref(), Some("42"));
        assert_eq!(value("admin").as_deref(), Some("true"));
        for name in ["groups", "of", "no", "else"] {
            assert_eq!(value(name), None, "{name}");
        }
    }

    #[test]
    fn no_authorizer_claims_nothing_and_the_address_is_known() {
        for event in [event(1, ""), event(2, ""), event(1, r#","authorizer":null"#)] {
            let (claims, peer) = caller_of(&from_str(&event).unwrap());
            assert!(claims.is_empty());
            assert_eq!(peer.unwrap().0.ip().to_string(), "203.0.113.9");
        }
    }

    #[test]
    fn a_load_balancer_tells_an_address_and_nothing_else() {
        let event = r#"{"requestContext":{"elb":{"targetGroupArn":"arn:t"}},"httpMethod":"GET",
            "path":"/v1/search","queryStringParameters":{},"headers":{"x-tenant":"acme",
            "x-forwarded-for":"198.51.100.1, 203.0.113.9"},"body":"","isBase64Encoded":false}"#;
        let (claims, peer) = caller_of(&from_str(event).unwrap());
        assert!(claims.is_empty());
        assert_eq!(peer.unwrap().0.ip().to_string(), "203.0.113.9");
    }

    #[test]
    fn debug_shows_names_and_no_values() {
        let context = r#","authorizer":{"tenant":"acme"}"#;
        let (claims, _) = caller_of(&from_str(&event(1, context)).unwrap());
        assert_eq!(format!("{claims:?}"), r#"{"tenant"}"#);
    }
}
