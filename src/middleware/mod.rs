//! The tower layer: a [`Gate`](crate::Gate) in front of any HTTP service. Begin with [`GateLayer`];
//! for axum use the one of `tallygate-axum`, which knows its router.
//!
//! A request passes when its route needs no identification (`auth = "none"`) or when the gate
//! admits it; any other is answered here and never reaches the service. A refusal is a response,
//! never the service's error.
//!
//! - The service that was polled ready is the one called; a clone takes its place.
//! - The admitted path neither boxes nor waits: the answer comes from memory. Only a request that
//!   memory cannot answer (a tenant's first, an empty lease) waits.
//! - Usage is settled when the response body ends, by the table in `docs/http.md`. A body passes
//!   untouched where the head has settled everything: no units are held, and no numbers are
//!   expected.
//!
//! Deployment: put it outside of layers that answer by themselves (compression, caching) if bytes
//! are to be counted as they leave, and inside of layers whose responses must not be billed. A CORS
//! layer belongs outside: there it answers preflights and lets pages of other origins read refusals
//! (`docs/http.md`).

mod body;
mod future;
mod headers;
mod layer;
mod reads;
mod service;
mod shared;
mod view;

pub use body::GateBody;
pub use future::ResponseFuture;
pub use headers::Refused;
pub use layer::GateLayer;
pub use reads::CountReads;
#[doc(hidden)]
pub use reads::ReadBody;
pub use service::GateService;
pub use view::Peer;
#[doc(hidden)]
pub use view::{AnyMethod, HttpView};

#[doc(hidden)]
pub use crate::identity::Claims;
#[doc(hidden)]
pub use crate::serving::StreamCut;
