//! A refusal as what a handler returns.

use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use tallygate::Refusal;
use tallygate::wire::Mapping;

/// A [`Refusal`] that a handler passes on with `?`: the layer around it writes the response, with
/// headers, problem body and the host's own form (`on_refusal`), as it writes its own.
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
/// Of a response outside of any layer, only the status is told.
#[derive(Clone, Debug)]
pub struct Refused(Box<Refusal>);

impl Refused {
    /// Why, and which limit.
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
