//! The tower layer: a [`Gate`](crate::Gate) in front of any HTTP service.
//!
//! A request passes when its route asks nobody who they are (`auth = "none"`), or when the gate
//! admits it; anything else is answered here and never reaches the service. A refusal is a
//! response, never the service's error.
//!
//! - The service that was made ready is the one that is called; its clone takes its place.
//! - The admitted path does not box and does not wait: the answer comes from memory. Only a request
//!   that memory cannot answer (the first of a tenant, an empty lease) waits.
//! - What a request used is settled when its response body ends, by the table in `docs/http.md`. A
//!   body passes as it is where the head has settled all: nothing is held, no number is expected.
//!
//! Deployment: put it outside of everything that answers by itself (compression, caching) if bytes
//! are counted as they leave, and inside of what must not be billed. A CORS layer belongs outside:
//! there it answers preflights, and lets pages of other origins read refusals (`docs/http.md`).

mod body;
mod future;
mod headers;
mod layer;
mod reads;
mod service;
mod view;

pub use body::GateBody;
pub use future::ResponseFuture;
pub use headers::Refused;
pub use layer::GateLayer;
pub use reads::{CountReads, ReadBody};
pub use service::GateService;
pub use view::{HttpView, Peer};

pub use crate::identity::Claims;
pub use crate::serving::StreamCut;
