//! Answers, and refusals in the shape of Stripe's errors.

use serde_json::{Value, json};

/// The answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    /// `Stripe-Should-Retry`, if Stripe sends it.
    pub(crate) should_retry: Option<bool>,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u32>,
}

impl Answer {
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: 200, body, should_retry: None, retry_after: None }
    }
}

/// Why a call was refused: one of Stripe's errors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    status: u16,
    kind: &'static str,
    code: Option<String>,
    message: String,
    param: Option<String>,
    should_retry: Option<bool>,
    retry_after: Option<u32>,
}

impl Refusal {
    /// 400 `invalid_request_error`.
    pub(crate) fn invalid(code: Option<&str>, param: Option<&str>, message: String) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error",
            code: code.map(str::to_owned),
            message,
            param: param.map(str::to_owned),
            should_retry: None,
            retry_after: None,
        }
    }

    pub(crate) fn missing(param: &str) -> Self {
        let message = format!("Missing required param: {param}.");
        Self::invalid(Some("parameter_missing"), Some(param), message)
    }

    pub(crate) fn unknown_parameter(param: &str) -> Self {
        let message = format!("Received unknown parameter: {param}");
        Self::invalid(Some("parameter_unknown"), Some(param), message)
    }

    /// 404 in the path, 400 in a parameter, as at Stripe.
    pub(crate) fn no_such(what: &str, id: &str, param: &str) -> Self {
        let message = format!("No such {what}: '{id}'");
        let mut refusal = Self::invalid(Some("resource_missing"), Some(param), message);
        if param == "id" {
            refusal.status = 404;
        }
        refusal
    }

    /// Marks the refusal as pointless to retry.
    pub(crate) fn final_(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }

    pub(crate) fn unauthorized(message: &str) -> Self {
        let mut refusal = Self::invalid(None, None, message.to_owned());
        refusal.status = 401;
        refusal
    }

    pub(crate) fn no_route(method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        let mut refusal = Self::invalid(None, None, message);
        refusal.status = 404;
        refusal
    }

    /// An idempotency key that was used with other parameters.
    pub(crate) fn other_parameters(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were \
             first used with. Try using a key other than '{key}' if you meant to execute a \
             different request."
        );
        let mut refusal = Self::invalid(None, None, message);
        refusal.kind = "idempotency_error";
        refusal
    }

    /// An idempotency key whose first call has not ended.
    pub(crate) fn key_in_use() -> Self {
        let message = "There is currently another in-progress request using this Idempotent Key.";
        let mut refusal = Self::invalid(Some("idempotency_key_in_use"), None, message.to_owned());
        refusal.status = 409;
        refusal.kind = "idempotency_error";
        refusal.should_retry = Some(true);
        refusal
    }

    /// Another call holds the object.
    pub(crate) fn locked() -> Self {
        let message = "This object cannot be accessed right now because another API request or \
                       Stripe process is currently accessing it.";
        let mut refusal = Self::invalid(Some("lock_timeout"), None, message.to_owned());
        refusal.status = 429;
        refusal.should_retry = Some(true);
        refusal
    }

    pub(crate) fn too_fast() -> Self {
        let message = "Request rate limit exceeded.".to_owned();
        let mut refusal = Self::invalid(Some("rate_limit"), None, message);
        refusal.status = 429;
        refusal.should_retry = Some(true);
        refusal.retry_after = Some(1);
        refusal
    }

    /// A failure requested by the script.
    pub(crate) fn scripted(
        status: u16,
        should_retry: Option<bool>,
        retry_after: Option<u32>,
    ) -> Self {
        let message = format!("A scripted answer with status {status}.");
        let mut refusal = Self::invalid(None, None, message);
        refusal.status = status;
        refusal.kind = if status < 500 { "invalid_request_error" } else { "api_error" };
        refusal.should_retry = should_retry;
        refusal.retry_after = retry_after;
        refusal
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut error = json!({ "message": refusal.message, "type": refusal.kind });
        if let Some(code) = &refusal.code {
            error["code"] = json!(code);
            error["doc_url"] = json!(format!("https://stripe.com/docs/error-codes/{code}"));
        }
        if let Some(param) = &refusal.param {
            error["param"] = json!(param);
        }
        Self {
            status: refusal.status,
            body: json!({ "error": error }),
            should_retry: refusal.should_retry,
            retry_after: refusal.retry_after,
        }
    }
}
