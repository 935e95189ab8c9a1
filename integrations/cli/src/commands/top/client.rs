//! The operator's routes of a running service.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tallygate::adapter::HttpsConnector;

use super::Reading;
use super::outbox::{self, Seldom};
use crate::args::Top;
use crate::failure::{Failure, code};

/// The variable with the token.
const VARIABLE: &str = "TALLYGATE_OPERATOR_TOKEN";
/// Longest wait for an answer: the routes wait shorter for the store.
const WITHIN: Duration = Duration::from_secs(40);
/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of an answer: some hundred tenants or refusals, with room to spare.
const MOST: usize = 4 << 20;
/// Refusals of a reading.
const REFUSALS: usize = 50;
/// Items of the outbox of a reading: each is a read of the store.
const ITEMS: usize = 200;
/// Most bytes of a file with a token.
const MOST_TOKEN: u64 = 4 << 10;

/// A client of the routes at one place. Its token is in no `Debug`.
#[derive(Clone)]
pub(super) struct Client {
    http: legacy::Client<HttpsConnector, Empty<Bytes>>,
    base: String,
    limit: u64,
    token: HeaderValue,
    outbox: Seldom,
}

impl Client {
    pub(super) fn new(url: &str, what: &Top) -> Result<Self, Failure> {
        let base = base(url, what.insecure_http)?;
        let connector = HttpsConnector::new(Some(CONNECT_WITHIN))
            .map_err(|error| Failure::new(code::FAILURE, error.to_string()))?;
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, base, limit: what.limit, token: token(what)?, outbox: Seldom::default() })
    }

    /// Asks three routes, one after the other, on one connection; and that of the outbox, which may
    /// take longer, beside them.
    pub(super) async fn read(&self) -> Result<Reading, Failure> {
        let billing = async {
            let page = self.get(&format!("/billing?limit={ITEMS}")).await?;
            Ok(outbox::of_page(&page))
        };
        let (read, outbox) = tokio::join!(self.routes(), self.outbox.read(billing));
        let (health, top, refusals) = read?;
        Ok(Reading::of_service(&self.base, health, top, refusals, outbox))
    }

    async fn routes(&self) -> Result<(Value, Value, Value), Failure> {
        let health = self.get("/health").await?;
        let top = self.get(&format!("/top?limit={}", self.limit)).await?;
        let refusals = self.get(&format!("/refusals?limit={REFUSALS}")).await?;
        Ok((health, top, refusals))
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        let place = format!("{}{path}", self.base);
        let failed = |text: String| Failure::new(code::FAILURE, format!("{place}: {text}"));
        let request = Request::get(&place).header(AUTHORIZATION, self.token.clone());
        let request = request.body(Empty::new()).map_err(|error| failed(error.to_string()))?;
        let answered = async {
            let answer = self.http.request(request).await.map_err(|error| chain(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MOST).collect().await.map_err(|it| it.to_string())?;
            Ok::<_, String>((head.status, body.to_bytes()))
        };
        let (status, body) = match tokio::time::timeout(WITHIN, answered).await {
            Ok(answered) => answered.map_err(failed)?,
            Err(_) => return Err(failed(format!("no answer within {} s", WITHIN.as_secs()))),
        };
        let body = serde_json::from_slice::<Value>(&body).ok();
        match (status, body) {
            (StatusCode::OK, Some(body)) if body.is_object() => Ok(body),
            (StatusCode::UNAUTHORIZED, _) => Err(Failure::new(
                code::NOT_PERMITTED,
                format!(
                    "{place}: the token is no operator's, or has ended\nhelp: `tallygate operator \
                     create` makes one"
                ),
            )),
            (StatusCode::SERVICE_UNAVAILABLE, _) => {
                Err(failed("the service's store does not answer".to_owned()))
            }
            (status, _) => Err(failed(format!(
                "{status}: the operator's routes are not here\nhelp: --url has the place at which \
                 they are mounted, such as https://api.example.com/admin"
            ))),
        }
    }
}

/// The place of the routes, without a slash at its end.
fn base(url: &str, insecure: bool) -> Result<String, Failure> {
    let help = "help: write it like https://api.example.com/admin";
    let uri = url.parse::<Uri>().ok().filter(|uri| uri.query().is_none());
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
    let Some((scheme, place)) = parts else {
        return Err(Failure::usage(format!("--url is not the address of a service\n{help}")));
    };
    if place.as_str().contains('@') {
        let text = "--url has a name or a password in it: the routes take a token alone";
        return Err(Failure::usage(format!("{text}\n{help}")));
    }
    match scheme {
        "https" => {}
        "http" if insecure || is_this_machine(place.host()) => {}
        "http" => {
            let text = "the token would be sent to another host unencrypted";
            let help = "write https://, or --insecure-http where the network is yours alone";
            return Err(Failure::usage(format!("{text}\nhelp: {help}")));
        }
        _ => return Err(Failure::usage(format!("--url is neither https nor http\n{help}"))),
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn is_this_machine(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The header with the token.
fn token(what: &Top) -> Result<HeaderValue, Failure> {
    let token = match &what.token_file {
        Some(path) => {
            let of_file = |error: std::io::Error| Failure::of_file(path, &error);
            let mut text = String::new();
            let from = std::fs::File::open(path).map_err(of_file)?;
            std::io::Read::read_to_string(&mut std::io::Read::take(from, MOST_TOKEN), &mut text)
                .map_err(of_file)?;
            text
        }
        None => std::env::var(VARIABLE).unwrap_or_default(),
    };
    let help = format!("help: set {VARIABLE}, or name a file that has it with --token-file");
    let token = token.trim();
    if token.is_empty() {
        let text = "there is no operator's token";
        return Err(Failure::new(code::NOT_PERMITTED, format!("{text}\n{help}")));
    }
    let header = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut header = header.map_err(|_| {
        Failure::usage(format!("the operator's token has characters that none has\n{help}"))
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// An error with its causes: the client's own message is just "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_this_machine_or_encrypted() {
        for url in [
            "http://localhost:3000/admin",
            "http://127.0.0.1:3000/",
            "http://[::1]:3000",
            "https://api.example.com/admin",
        ] {
            assert_eq!(base(url, false).unwrap(), url.trim_end_matches('/'));
        }
        for url in [
            "http://10.0.0.1/admin",
            "http://localhost.example.com/admin",
            "http://127.0.0.1.example.com",
            "https://kim:secret@example.com/admin",
            "https://example.com/admin?token=secret",
            "ftp://example.com",
            "/admin",
            "",
        ] {
            let failure = base(url, false).unwrap_err();
            assert_eq!(failure.code, code::USAGE);
            assert!(!failure.text.contains("secret"), "{}", failure.text);
        }
        assert!(base("http://10.0.0.1/admin", true).is_ok());
    }
}
