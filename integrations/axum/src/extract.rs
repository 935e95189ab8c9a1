//! Extractors for handlers: the calling tenant, its plan, and the request's usage.
//!
//! All three read what the layer stores in an admitted request, and cost a clone of an `Arc`. They
//! work on every identified request, including routes that are `free` or `auth = "optional"` (where
//! a caller without a credential is the tenant `~anonymous`). On routes with `auth = "none"`, or
//! without the layer, they fail with [`NotAdmitted`], and `Option<..>` of them is `None`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use tallygate::Admitted;

/// Extractor of the calling tenant: its outer id, which it derefs to as a `str`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant(Arc<str>);

/// Extractor of the plan that this request was decided under. Derefs to [`tallygate::Plan`], whose
/// [`require`](tallygate::Plan::require) refuses within a handler:
///
/// ```
/// use tallygate_axum::{Plan, Refused};
///
/// async fn search(plan: Plan) -> Result<String, Refused> {
///     plan.require("deep-search")?;
///     Ok("found deep down".to_owned())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Plan(Arc<tallygate::Plan>);

/// Extractor of the handle that reports and takes units for this request. Derefs to
/// [`tallygate::Usage`]; it is `Clone + 'static` and may outlive the response.
///
/// A WebSocket's handler moves it into the connection's task. The connection is in flight
/// (`concurrency`) until the task drops it; one that is refused is not upgraded.
///
/// ```
/// use axum::extract::ws::{WebSocket, WebSocketUpgrade};
/// use axum::response::Response;
/// use tallygate_axum::Usage;
///
/// async fn ws(usage: Usage, upgrade: WebSocketUpgrade) -> Response {
///     upgrade.on_upgrade(|socket| echo(socket, usage))
/// }
///
/// async fn echo(mut socket: WebSocket, usage: Usage) {
///     while let Some(Ok(message)) = socket.recv().await {
///         if usage.take("messages", 1).await.is_err() {
///             return; // used up, or suspended: the connection is closed
///         }
///         usage.add("messages", 1);
///         if socket.send(message).await.is_err() {
///             return;
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Usage(tallygate::Usage);

/// Rejection for a handler that extracts something only an admitted request has: 500, with a
/// sentence that names what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    wanted: &'static str,
}

impl Tenant {
    /// The tenant's outer id.
    pub fn id(&self) -> &Arc<str> {
        &self.0
    }
}

impl Deref for Tenant {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Deref for Plan {
    type Target = tallygate::Plan;

    fn deref(&self) -> &tallygate::Plan {
        &self.0
    }
}

impl Deref for Usage {
    type Target = tallygate::Usage;

    fn deref(&self) -> &tallygate::Usage {
        &self.0
    }
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{wanted}` is not here: put this route behind `.layer(GateLayer::new(&gate))`; \
             where the plan file gives it `auth = \"none\"`, take `Option<{wanted}>`",
            wanted = self.wanted
        )
    }
}

impl std::error::Error for NotAdmitted {}

impl IntoResponse for NotAdmitted {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

/// Implements both kinds of extraction, from what the layer stored.
macro_rules! extract {
    ($($name:ident: $from:expr;)+) => { $(
        impl<S: Sync> FromRequestParts<S> for $name {
            type Rejection = NotAdmitted;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotAdmitted> {
                let found = parts.extensions.get::<Admitted>().map($from);
                found.ok_or(NotAdmitted { wanted: stringify!($name) })
            }
        }

        impl<S: Sync> OptionalFromRequestParts<S> for $name {
            type Rejection = std::convert::Infallible;

            async fn from_request_parts(
                parts: &mut Parts,
                _: &S,
            ) -> Result<Option<Self>, Self::Rejection> {
                Ok(parts.extensions.get::<Admitted>().map($from))
            }
        }
    )+ };
}

extract! {
    Tenant: |admitted| Tenant(admitted.tenant().clone());
    Plan: |admitted| Plan(admitted.plan().clone());
    Usage: |admitted| Usage(admitted.usage());
}
