//! A refusal that a handler can return.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use tallygate::Refusal;
use tallygate::wire::{Mapping, Reply};

/// A [`Refusal`] that a handler returns with `?`: the middleware around it writes the response,
/// with headers, problem body and the host's own format (`on_refusal`), as for its own refusals.
///
/// ```
/// use tallygate_actix_web::{Refused, Usage};
///
/// async fn chat(usage: Usage) -> Result<&'static str, Refused> {
///     usage.take("output-tokens", 500).await?;
///     Ok("hello")
/// }
/// ```
///
/// Outside any middleware, the response carries only the status.
#[derive(Clone, Debug)]
pub struct Refused(Box<Refusal>);

impl Refused {
    /// The refusal itself, with its reason and the limit concerned.
    pub fn refusal(&self) -> &Refusal {
        &self.0
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(Box::new(refusal))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Mapping::of(&self.0.reason).title)
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        let status = Mapping::of(&self.0.reason).status;
        StatusCode::from_u16(status).unwrap_or(StatusCode::TOO_MANY_REQUESTS)
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

/// A [`Refused`] returned as an error by an inner middleware: still an error, carrying the complete
/// reply.
#[derive(Debug)]
pub(crate) struct RefusedReply(pub(crate) Reply);

impl fmt::Display for RefusedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused with {}", self.0.status)
    }
}

impl ResponseError for RefusedReply {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS)
    }

    fn error_response(&self) -> HttpResponse {
        crate::reply::response(self.0.clone())
    }
}
