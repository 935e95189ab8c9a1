//! Building blocks for adapters to other web frameworks. The tower layer, the actix-web middleware
//! and the Lambda adapter are written with them; a host needs none of them.
//!
//! 1. Write a [`RequestView`](crate::identity::RequestView) over the framework's request.
//! 2. Call [`Gate::admit_request`](crate::Gate::admit_request) with a fresh [`Waited`]; while it
//!    returns [`Step::Wait`], await that and call again with its result.
//! 3. Write an [`Answer::Refuse`] with [`Gate::refusal_reply`](crate::Gate::refusal_reply); call
//!    the handler of an [`Answer::Pass`] without further steps.
//! 4. Serve an [`Answer::Admit`] with [`Serving`], which lists the further steps in order: the
//!    head, each chunk of the body before it passes, and the end.

pub use crate::gate::{Answer, IdentifyStep, Pending, Running, Step, Waited};
#[cfg(feature = "https")]
#[doc(hidden)]
pub use crate::https::{HttpsConnector, HttpsError};
pub use crate::serving::{
    Ahead, AskedAhead, BytesRead, Counting, Decided, Head, Reading, Serving, StreamCut, Upgraded,
    is_upgrade, stated_length, wait_for_both,
};
