//! A client of the operator's routes of a service that runs, with what their answers mean for a
//! command. Law: a route's refusal ends a command as the same refusal of the store's would: the
//! same text, the same exit code. The token is in no argument, no output and no `Debug`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::args::Far;
use crate::failure::{Failure, code};

mod address;
mod connect;

pub(crate) use address::URL;
use address::{Address, no_token, token};
use connect::Wire;

/// Longest wait for an answer: the routes wait shorter for the store.
const WITHIN: Duration = Duration::from_secs(40);
/// Most bytes of an answer: a thousand tenants with their exceptions, or a long history.
const MOST: usize = 64 << 20;

/// The header that the operator's routes have in every answer.
const ROUTES: &str = "tallygate-routes";

/// All but what RFC 3986 (section 2.3) leaves as it is.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A client of the routes at one place.
#[derive(Clone)]
pub(crate) struct Client {
    wire: Wire,
    base: String,
    /// The place as the command line has it.
    shown: String,
    token: Option<HeaderValue>,
}

impl Client {
    /// For the routes at this address.
    pub(crate) fn new(url: &str, far: &Far) -> Result<Self, Failure> {
        let address = Address::of(url, far.insecure_http)?;
        let token = token(far)?;
        let (base, shown) = match &address {
            Address::Web { base } if token.is_some() => (base.clone(), base.clone()),
            Address::Web { .. } => return Err(no_token()),
            #[cfg(unix)]
            Address::Socket { base, .. } => (base.clone(), url.trim_end_matches('/').to_owned()),
        };
        Ok(Self { wire: Wire::to(&address)?, base, shown, token })
    }

    /// The place, without a slash at its end.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// What a route shows.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// What a route of a tenant shows: `/keys`.
    pub(crate) async fn get_of(&self, tenant: &str, path: &str) -> Result<Value, Failure> {
        self.ask_of(Method::GET, tenant, path, None).await
    }

    /// Makes a change, or in a dry run has it checked.
    pub(crate) async fn change(
        &self,
        (method, path): (Method, &str),
        body: &Value,
        dry_run: bool,
    ) -> Result<Value, Failure> {
        self.ask(method, &changing(path, dry_run), Some(body)).await
    }

    /// The same for a change of a tenant.
    pub(crate) async fn change_of(
        &self,
        tenant: &str,
        (method, path): (Method, &str),
        body: &Value,
        dry_run: bool,
    ) -> Result<Value, Failure> {
        self.ask_of(method, tenant, &changing(path, dry_run), Some(body)).await
    }

    async fn ask_of(
        &self,
        method: Method,
        tenant: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        if tenant.is_empty() {
            return Err(Failure::no_tenant(tenant)); // there is no path of it
        }
        let path = format!("/tenants/{}{path}", encoded(tenant));
        let (place, status, body) = self.answer(method, &path, body).await?;
        match status {
            StatusCode::NOT_FOUND if body["title"] == "No such tenant" => {
                Err(Failure::no_tenant(tenant))
            }
            _ => of_answer(&place, status, body),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let (place, status, body) = self.answer(method, path, body).await?;
        of_answer(&place, status, body)
    }

    /// The place that was asked, its status, and its body: `null` if that is no JSON, or a success
    /// that is not of the operator's routes.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(String, StatusCode, Value), Failure> {
        let place = format!("{}{}", self.shown, path.split('?').next().unwrap_or(path));
        let is_change = method != Method::GET;
        let failed = |text: String| Failure::new(code::FAILURE, format!("{place}: {text}"));
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(body)).map_err(|error| failed(error.to_string()))?;
        let answered = async {
            let sent = self.wire.send(request).await;
            let answer = sent.map_err(|error| (code_of(&error), chain(&error)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MOST).collect().await;
            let body = body.map_err(|error| (code::FAILURE, error.to_string()))?;
            let is_ours = head.headers.contains_key(ROUTES);
            Ok::<_, (u8, String)>((head.status, body.to_bytes(), is_ours))
        };
        let unsure = if is_change { "\nhelp: look whether the change was made" } else { "" };
        let (status, body, is_ours) = match tokio::time::timeout(WITHIN, answered).await {
            Ok(answered) => answered
                .map_err(|(code, text)| Failure::new(code, format!("{place}: {text}{unsure}")))?,
            Err(_) => {
                let text = format!("no answer within {} s{unsure}", WITHIN.as_secs());
                return Err(failed(text));
            }
        };
        // Whatever else answers a request well has not done what was asked.
        let body = if is_ours || !status.is_success() { &*body } else { &[] };
        Ok((place, status, serde_json::from_slice(body).unwrap_or_default()))
    }
}

fn changing(path: &str, dry_run: bool) -> String {
    if dry_run { format!("{path}?dry-run=true") } else { path.to_owned() }
}

/// What an answer says, or how the command fails by it.
fn of_answer(place: &str, status: StatusCode, body: Value) -> Result<Value, Failure> {
    if status.is_success() && body.is_object() {
        return Ok(body);
    }
    let detail = body["detail"].as_str().map(plain);
    let failed = |code: u8| {
        let text = detail.clone().unwrap_or_else(|| format!("{place}: {status}"));
        Failure::new(code, text)
    };
    let not_here = || {
        Failure::new(
            code::FAILURE,
            format!(
                "{place}: {status}: the operator's routes are not here\nhelp: --url has the place \
                 at which they are mounted, such as https://api.example.com/admin; a service of an \
                 older version may lack this one"
            ),
        )
    };
    Err(match (status, body["code"].as_str()) {
        (_, Some("unknown-plan" | "unknown-meter")) => failed(code::NOT_FOUND),
        (_, Some("not-limited")) => failed(code::CONFLICT),
        (_, Some("no-pepper")) => failed(code::FILE),
        (StatusCode::UNAUTHORIZED, _) if body["title"] != "Operators only" => Failure::new(
            code::NOT_PERMITTED,
            format!(
                "{place}: {status}: the operator's routes are not here, or something in front of \
                 them refuses\nhelp: --url has the place at which they are mounted, such as \
                 https://api.example.com/admin"
            ),
        ),
        (StatusCode::UNAUTHORIZED, _) => Failure::new(
            code::NOT_PERMITTED,
            format!(
                "{place}: the token is no operator's, or has ended\nhelp: `tallygate operator \
                 create` makes one"
            ),
        ),
        (StatusCode::FORBIDDEN, _) => failed(code::NOT_PERMITTED),
        _ if detail.is_none() || body["title"] == "No such route" => not_here(),
        (StatusCode::NOT_FOUND, _) => failed(code::NOT_FOUND),
        (StatusCode::CONFLICT, _) => failed(code::CONFLICT),
        (StatusCode::METHOD_NOT_ALLOWED, _) => not_here(),
        (StatusCode::SERVICE_UNAVAILABLE, _) => {
            Failure::new(code::FAILURE, format!("{place}: the service's store does not answer"))
        }
        (status, _) if status.is_client_error() => failed(code::USAGE),
        _ => failed(code::FAILURE),
    })
}

/// A problem's sentence as an error of the command: those begin with a small letter, and end
/// without a full stop.
pub(crate) fn plain(sentence: &str) -> String {
    let text = sentence.strip_suffix('.').unwrap_or(sentence);
    let mut letters = text.chars();
    let (first, second) = (letters.next(), letters.clone().next());
    match (first, second) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => {
            first.to_lowercase().collect::<String>() + letters.as_str()
        }
        _ => text.to_owned(),
    }
}

/// A part of a path, or a value of a query, percent-encoded.
pub(crate) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, &RESERVED).to_string()
}

/// The exit code of a request that was not answered: a socket may be another user's.
fn code_of(error: &(dyn std::error::Error + 'static)) -> u8 {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let denied = |it: &std::io::Error| it.kind() == std::io::ErrorKind::PermissionDenied;
    match causes.filter_map(|it| it.downcast_ref()).any(denied) {
        true => code::NOT_PERMITTED,
        false => code::FAILURE,
    }
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_of_a_query_stays_one() {
        assert_eq!(encoded("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }

    #[test]
    fn a_refusal_has_the_exit_code_that_the_store_would_give_it() {
        let of = |status: u16, body: Value| {
            of_answer("x", StatusCode::from_u16(status).unwrap(), body).unwrap_err()
        };
        let problem = |title: &str, code: &str| {
            let detail = "Say \"a\". Or b.";
            json!({ "title": title, "detail": detail, "code": code })
        };
        for (status, title, word, wanted) in [
            (401, "Operators only", "", code::NOT_PERMITTED),
            (403, "Read-only token", "", code::NOT_PERMITTED),
            (404, "No such key", "", code::NOT_FOUND),
            (404, "No such route", "", code::FAILURE),
            (405, "Method not allowed", "", code::FAILURE),
            (409, "Conflict", "", code::CONFLICT),
            (409, "Conflict", "no-pepper", code::FILE),
            (413, "Body too long", "", code::USAGE),
            (422, "Not accepted", "", code::USAGE),
            (422, "Not accepted", "unknown-plan", code::NOT_FOUND),
            (422, "Not accepted", "unknown-meter", code::NOT_FOUND),
            (422, "Not accepted", "not-limited", code::CONFLICT),
            (503, "Store unavailable", "", code::FAILURE),
        ] {
            let failure = of(status, problem(title, word));
            assert_eq!(failure.code, wanted, "{status} {title} {word}");
        }
        assert_eq!(of(422, problem("Not accepted", "")).text, "say \"a\". Or b");
        for status in [200, 404, 500] {
            let failure = of(status, Value::Null);
            assert!(failure.code == code::FAILURE && failure.text.contains("are not here"));
        }
    }

    #[test]
    fn an_acronym_stays_one() {
        assert_eq!(plain("TOML is wanted."), "TOML is wanted");
        assert_eq!(plain("\"acme\" is no key."), "\"acme\" is no key");
        assert_eq!(plain(""), "");
    }
}
