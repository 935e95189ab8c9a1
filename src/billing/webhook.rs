//! Webhooks: authenticity and content. Uses no framework's types: an adapter passes the header's
//! bytes and the raw body, and answers with `WebhookError::status`.
//!
//! The signature is `Stripe-Signature: t=SECONDS,v1=HEX[,v1=HEX..]`, each `v1` an HMAC-SHA256 of
//! `SECONDS.BODY` under one of the endpoint's secrets (two while a secret is rolled). It is
//! compared in constant time, over the body as received: parsing and reserialising it would change
//! the signature.
//!
//! A genuine webhook may still be outdated, and may come again: its effect must be idempotent and
//! independent of order, as in `billing/reducer.rs`. Replays beyond the tolerance are refused here;
//! within it, they are duplicates like Stripe's own.

use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::config::Secret;

/// Largest body accepted. Stripe's events are a few kilobytes; a subscription with hundreds of
/// items is below this.
#[doc(hidden)]
pub const MAX_BODY: usize = 1 << 20;

/// How far a signature's time may differ from ours, in seconds, either way. Stripe's libraries use
/// the same.
pub(crate) const TOLERANCE_S: i64 = 300;

/// Longest header read.
const MAX_HEADER: usize = 4_096;

/// Most signatures compared: Stripe sends one for each secret, at most two.
const MAX_SIGNATURES: usize = 8;

/// Bytes of a signature.
const SIGNATURE: usize = 32;

/// Reasons for refusing a webhook. Reveals nothing of any secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WebhookError {
    /// There is no signature, or it is not in Stripe's form.
    #[error("no signature in the form t=..,v1=..")]
    Malformed,
    /// No signature matches this body under any of our secrets.
    #[error("no signature matches")]
    Foreign,
    /// Genuine, but signed too long ago, or in the future.
    #[error("signed {0} s away from now")]
    Stale(i64),
    /// More than [`MAX_BODY`] bytes.
    #[error("larger than {MAX_BODY} bytes")]
    TooLarge,
    /// Genuine, but not an event.
    #[error("not an event")]
    NotAnEvent,
}

impl WebhookError {
    /// The HTTP status to answer with.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            _ => 400,
        }
    }
}

/// The content of a webhook.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WebhookEvent {
    /// Its id, the same in every redelivery.
    pub id: String,
    /// Its type, such as `customer.subscription.updated`.
    pub kind: String,
    /// Creation time, Unix seconds. Two events may share it.
    pub created_s: i64,
    /// Whether real money is involved.
    pub live: bool,
    /// The object at the time of the event or, for a thin event, a reference to it
    /// ([`WebhookEvent::thin`]).
    pub object: Value,
    /// Previous values of the changed fields, if the event is about a change.
    pub previous: Option<Value>,
    /// Its connected account; `None` for the account's own.
    pub account: Option<String>,
    /// The API version of the object's shape, if given.
    pub version: Option<String>,
    /// A thin event only names its object: its details are fetched from `/v2/core/events/ID`.
    pub thin: bool,
}

/// Checks a webhook and reads it.
///
/// `header` is the value of `Stripe-Signature`, `body` the raw body, `secrets` all that are
/// currently valid (an empty list accepts nothing), `now_s` the time in Unix seconds.
///
/// # Errors
///
/// [`WebhookError`], to be answered with its status. Nothing was changed.
pub(crate) fn receive(
    header: &[u8],
    body: &[u8],
    secrets: &[Secret],
    now_s: i64,
) -> Result<WebhookEvent, WebhookError> {
    verify(header, body, secrets, now_s, TOLERANCE_S)?;
    WebhookEvent::parse(body).ok_or(WebhookError::NotAnEvent)
}

/// Checks that a webhook is genuine and fresh.
///
/// # Errors
///
/// All of [`WebhookError`] but [`WebhookError::NotAnEvent`].
pub(crate) fn verify(
    header: &[u8],
    body: &[u8],
    secrets: &[Secret],
    now_s: i64,
    tolerance_s: i64,
) -> Result<(), WebhookError> {
    if body.len() > MAX_BODY {
        return Err(WebhookError::TooLarge);
    }
    let header = SignatureHeader::parse(header).ok_or(WebhookError::Malformed)?;
    // No break at the first match, so that timing does not reveal which secret it was.
    let mut genuine = false;
    for secret in secrets {
        genuine |= header.is_signed(secret, body);
    }
    if !genuine {
        return Err(WebhookError::Foreign);
    }
    let away_s = now_s.saturating_sub(header.at_s);
    if away_s.unsigned_abs() > tolerance_s.unsigned_abs() {
        return Err(WebhookError::Stale(away_s));
    }
    Ok(())
}

struct SignatureHeader<'a> {
    /// As written: this text is what is signed.
    at: &'a str,
    at_s: i64,
    signatures: Vec<[u8; SIGNATURE]>,
}

impl<'a> SignatureHeader<'a> {
    /// Other schemes (`v0`) are skipped, as Stripe asks.
    fn parse(header: &'a [u8]) -> Option<Self> {
        let header = std::str::from_utf8(header).ok().filter(|h| h.len() <= MAX_HEADER)?;
        let mut at = None;
        let mut signatures = Vec::new();
        for part in header.split(',') {
            match part.trim().split_once('=')? {
                ("t", time) if at.is_none() => at = Some(time),
                // Two times: it is unclear which one was signed.
                ("t", _) => return None,
                ("v1", hex) if signatures.len() < MAX_SIGNATURES => signatures.push(unhex(hex)?),
                _ => {}
            }
        }
        let at = at?;
        // `parse` would accept a sign.
        let digits = !at.is_empty() && at.bytes().all(|byte| byte.is_ascii_digit());
        let at_s = at.parse().ok().filter(|_| digits)?;
        (!signatures.is_empty()).then_some(Self { at, at_s, signatures })
    }

    /// Whether one of the signatures is this secret's. The body, which may be long and untrusted,
    /// is read once for all of them.
    fn is_signed(&self, secret: &Secret, body: &[u8]) -> bool {
        // Anyone could make the signature of an empty secret.
        let key = secret.expose().as_bytes();
        let Some(mut mac) =
            (!key.is_empty()).then(|| Hmac::<Sha256>::new_from_slice(key).ok()).flatten()
        else {
            return false;
        };
        mac.update(self.at.as_bytes());
        mac.update(b".");
        mac.update(body);
        let computed = mac.finalize();
        // Compared in constant time, which is the purpose of this type.
        let is = |signature: &[u8; SIGNATURE]| {
            computed == CtOutput::<Hmac<Sha256>>::new((*signature).into())
        };
        self.signatures.iter().fold(false, |any, signature| any | is(signature))
    }
}

fn unhex(text: &str) -> Option<[u8; SIGNATURE]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let text = text.as_bytes();
    let mut bytes = [0; SIGNATURE];
    if text.len() != 2 * SIGNATURE {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl WebhookEvent {
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let mut event: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let (id, kind) = (text("id")?, text("type")?);
        let live = event["livemode"].as_bool().unwrap_or(false);
        let thin = event["object"] == "v2.core.event";
        let account = text("account").or(text("context").filter(|_| thin));
        let version = text("api_version");
        let created_s = match &event["created"] {
            Value::String(rfc3339) => rfc3339.parse::<jiff::Timestamp>().ok()?.as_second(),
            seconds => seconds.as_i64()?,
        };
        // By pointers: indexing `event["data"]["object"]` mutably panics where `data` is not an
        // object.
        let mut take = |pointer: &str| event.pointer_mut(pointer).map(Value::take);
        let object = if thin {
            take("/related_object").unwrap_or_default()
        } else {
            take("/data/object").filter(Value::is_object)?
        };
        let previous = take("/data/previous_attributes").filter(Value::is_object);
        Some(Self { id, kind, created_s, live, object, previous, account, version, thin })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_773_748_800;

    fn sign(secret: &str, at: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(at.as_bytes());
        mac.update(b".");
        mac.update(body);
        crate::identity::hex(&mac.finalize().into_bytes())
    }

    fn header(secret: &str, at_s: i64, body: &[u8]) -> Vec<u8> {
        format!("t={at_s},v1={}", sign(secret, &at_s.to_string(), body)).into_bytes()
    }

    fn secrets() -> Vec<Secret> {
        vec![Secret::new("whsec_old"), Secret::new("whsec_new")]
    }

    fn body() -> Vec<u8> {
        let object = json!({ "id": "sub_1", "object": "subscription" });
        json!({
            "id": "evt_1", "object": "event", "type": "customer.subscription.updated",
            "created": NOW, "livemode": false, "data": { "object": object },
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_signature_of_any_secret_is_taken_among_others() {
        for secret in ["whsec_old", "whsec_new"] {
            let event = receive(&header(secret, NOW, &body()), &body(), &secrets(), NOW).unwrap();
            assert_eq!((event.id.as_str(), event.created_s, event.thin), ("evt_1", NOW, false));
            assert_eq!(event.object["id"], "sub_1");
        }
        let foreign = "0".repeat(64);
        let good = sign("whsec_new", &NOW.to_string(), &body());
        let among = format!("t={NOW}, v1={foreign},v0=abc,v1={good},v2=x");
        assert!(receive(among.as_bytes(), &body(), &secrets(), NOW).is_ok());
    }

    #[test]
    fn a_known_signature_is_computed() {
        // By `printf '%s' '12345.{}' | openssl dgst -sha256 -hmac whsec_test`.
        let known = "f7d0d6f2476273381fa231a8ba13a821a0c87029e7b1bfae51e93d0240fb7c32";
        let header = format!("t=12345,v1={known}");
        let secrets = [Secret::new("whsec_test")];
        assert_eq!(verify(header.as_bytes(), b"{}", &secrets, 12_345, 0), Ok(()));
    }

    #[test]
    fn what_is_not_genuine_is_refused() {
        let (body, secrets) = (body(), secrets());
        let good = header("whsec_new", NOW, &body);
        let verify = |header: &[u8], body: &[u8]| verify(header, body, &secrets, NOW, TOLERANCE_S);
        assert_eq!(verify(&header("whsec_x", NOW, &body), &body), Err(WebhookError::Foreign));
        assert_eq!(verify(&header("", NOW, &body), &body), Err(WebhookError::Foreign));
        let cut = &body[..body.len() - 1];
        assert_eq!(verify(&good, cut), Err(WebhookError::Foreign));
        assert_eq!(verify(&good, b""), Err(WebhookError::Foreign));
        let other_time = String::from_utf8(good.clone()).unwrap();
        let other_time = other_time.replace(&NOW.to_string(), &(NOW + 1).to_string());
        assert_eq!(verify(other_time.as_bytes(), &body), Err(WebhookError::Foreign));
        let large = vec![b' '; 5 << 20];
        let refused = verify(&header("whsec_new", NOW, &large), &large);
        assert_eq!(refused, Err(WebhookError::TooLarge));
        assert_eq!(refused.unwrap_err().status(), 413);
        assert_eq!(super::verify(&good, &body, &[], NOW, 300), Err(WebhookError::Foreign));
        let empty = [Secret::new("")];
        let signed = header("", NOW, &body);
        assert_eq!(super::verify(&signed, &body, &empty, NOW, 300), Err(WebhookError::Foreign));
    }

    #[test]
    fn a_genuine_one_is_fresh_for_five_minutes_either_way() {
        for (away_s, fresh) in [(0, true), (300, true), (301, false), (-300, true), (-301, false)] {
            let signed = header("whsec_new", NOW - away_s, &body());
            let verified = verify(&signed, &body(), &secrets(), NOW, TOLERANCE_S);
            let expected = if fresh { Ok(()) } else { Err(WebhookError::Stale(away_s)) };
            assert_eq!(verified, expected);
        }
        // The extremes.
        for at in ["0", "9223372036854775807"] {
            let signed = format!("t={at},v1={}", sign("whsec_new", at, b"{}"));
            let verified = verify(signed.as_bytes(), b"{}", &secrets(), NOW, TOLERANCE_S);
            assert!(matches!(verified, Err(WebhookError::Stale(_))), "{at}");
        }
    }

    #[test]
    fn headers_in_another_form_are_refused() {
        let good = sign("whsec_new", &NOW.to_string(), &body());
        let short = &good[1..];
        for header in [
            String::new(),
            format!("v1={good}"),
            format!("t={NOW}"),
            format!("t=,v1={good}"),
            format!("t=+{NOW},v1={good}"),
            format!("t=-1,v1={good}"),
            format!("t={NOW},t={NOW},v1={good}"),
            format!("t={NOW},v1={short}"),
            format!("t={NOW},v1={short}g"),
            format!("t={NOW};v1={good}"),
            format!("t={NOW},v1={good},"),
            format!("t=99999999999999999999,v1={good}"),
            format!("t={NOW},v1={good},{}", "x=y,".repeat(2_000)),
        ] {
            let refused = verify(header.as_bytes(), &body(), &secrets(), NOW, TOLERANCE_S);
            assert_eq!(refused, Err(WebhookError::Malformed), "{header}");
        }
    }

    #[test]
    fn a_genuine_body_that_is_no_event_is_refused() {
        let mut nested = "[".repeat(100_000);
        nested.push_str(&"]".repeat(100_000));
        let head = r#""id":"evt_1","type":"x","created":1"#;
        let shapes = ["", r#","data":7"#, r#","data":[]"#, r#","data":"x""#, r#","data":null"#]
            .map(|data| format!("{{{head}{data}}}"));
        let others = ["", "null", "7", "[]", "{}", r#"{"id": 1, "type": "x", "created": 1}"#];
        for body in others.into_iter().chain(shapes.iter().map(|s| &**s)).chain([&*nested]) {
            let signed = header("whsec_new", NOW, body.as_bytes());
            let refused = receive(&signed, body.as_bytes(), &secrets(), NOW);
            assert_eq!(refused, Err(WebhookError::NotAnEvent));
        }
    }

    #[test]
    fn a_genuine_event_whose_parts_have_other_types_does_not_panic() {
        let odd = ["7", "true", "null", "[]", "[{}]", "\"x\"", "{}", r#"{"object":[]}"#];
        for (data, related) in odd.into_iter().flat_map(|data| odd.map(|r| (data, r))) {
            for object in ["event", "v2.core.event"] {
                let body = format!(
                    r#"{{"id":"e","type":"customer.subscription.updated","created":{NOW},
                    "object":"{object}","data":{data},"related_object":{related}}}"#
                );
                let signed = header("whsec_new", NOW, body.as_bytes());
                let read = receive(&signed, body.as_bytes(), &secrets(), NOW);
                assert_eq!(read.is_ok(), object == "v2.core.event", "{body}");
            }
        }
    }

    /// The body is untrusted and up to 1 MiB long: it is hashed once for each secret, however many
    /// signatures accompany it.
    #[test]
    fn eight_signatures_cost_no_more_than_one() {
        let body = vec![b' '; MAX_BODY];
        #[expect(clippy::disallowed_methods, reason = "a test that measures")]
        let least = |signatures: usize| {
            let all = vec![format!("v1={}", "0".repeat(64)); signatures].join(",");
            let header = format!("t={NOW},{all}");
            let one = |_| {
                let begun = std::time::Instant::now();
                let refused = verify(header.as_bytes(), &body, &secrets(), NOW, TOLERANCE_S);
                assert_eq!(refused, Err(WebhookError::Foreign));
                begun.elapsed()
            };
            (0..5).map(one).min().unwrap_or_default()
        };
        let (one, eight) = (least(1), least(MAX_SIGNATURES));
        assert!(eight < one * 3, "{eight:?} against {one:?}");
    }

    #[test]
    fn a_thin_event_names_its_object() {
        let body = json!({
            "id": "evt_2", "object": "v2.core.event", "livemode": false,
            "type": "v1.billing.meter.error_report_triggered",
            "created": "2026-03-17T12:00:00.330Z",
            "related_object": { "id": "mtr_1", "type": "billing.meter", "url": "/v1/x" },
        })
        .to_string();
        let signed = header("whsec_new", NOW, body.as_bytes());
        let event = receive(&signed, body.as_bytes(), &secrets(), NOW).unwrap();
        assert!(event.thin);
        assert_eq!((event.created_s, &event.object["id"]), (NOW, &json!("mtr_1")));
    }

    proptest! {
        #[test]
        fn nothing_hostile_is_taken_and_nothing_panics(
            header in proptest::collection::vec(any::<u8>(), 0..300),
            text in "(t|v1|v0|x)?=?[0-9a-f]{0,70}(,(t|v1)=[0-9a-f]{0,66}){0,4}",
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            prop_assert!(receive(&header, &body, &secrets(), NOW).is_err());
            prop_assert!(receive(text.as_bytes(), &body, &secrets(), NOW).is_err());
        }

        #[test]
        fn one_bit_anywhere_undoes_a_signature(
            body in proptest::collection::vec(any::<u8>(), 1..200),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let signed = header("whsec_new", NOW, &body);
            prop_assert!(verify(&signed, &body, &secrets(), NOW, 300).is_ok());
            let mut turned = body.clone();
            turned[at.index(body.len())] ^= 1 << bit;
            prop_assert!(verify(&signed, &turned, &secrets(), NOW, 300).is_err());
            let mut turned = signed.clone();
            let place = at.index(signed.len());
            turned[place] ^= 1 << bit;
            // Hexadecimal in the other case is the same signature.
            if !turned.eq_ignore_ascii_case(&signed) {
                prop_assert!(verify(&turned, &body, &secrets(), NOW, 300).is_err());
            }
        }

        #[test]
        fn any_genuine_json_is_read_or_refused(text in "\\PC{0,80}") {
            let body = json!({ "id": text, "type": text, "created": text, "data": text });
            let body = body.to_string();
            let signed = header("whsec_new", NOW, body.as_bytes());
            let refused = receive(&signed, body.as_bytes(), &secrets(), NOW);
            prop_assert_eq!(refused, Err(WebhookError::NotAnEvent));
        }
    }
}
