//! A refusal that a handler can return.

use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use tallygate::Refusal;
use tallygate::wire::Mapping;

/// A [`Refusal`] that a handler returns with `?`: the layer around it writes the response, with
/// headers, problem body and the host's own format (`on_refusal`), as for its own refusals.
///
/// ```
/// use tallygate_axum::{Refused, Usage};
///
/// async fn chat(usage: Usage) -> Result<&'static str, Refused> {
///     usage.take("output-tokens", 500).await?;
///     Ok("hello")
/// }
/// ```
///
/// Outside any layer, the response carries only the status.
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

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(Mapping::of(&self.0.reason).status);
        let mut response = status.unwrap_or(StatusCode::TOO_MANY_REQUESTS).into_response();
        let refused = tallygate::middleware::Refused(*self.0);
        response.extensions_mut().insert(refused);
        response
    }
}
