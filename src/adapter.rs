//! For authors of adapters to other frameworks: what the tower layer, the actix-web middleware and
//! the Lambda adapter are written with. A host needs none of it.
//!
//! 1. Write a [`RequestView`](crate::identity::RequestView) over the framework's request.
//! 2. Call [`Gate::admit_request`](crate::Gate::admit_request) with a fresh [`Waited`]; while it
//!    returns [`Step::Wait`], await that and call again with its result.
//! 3. [`Answer::Refuse`] is written with [`wire`](crate::wire); [`Answer::Pass`] goes on
//!    without a gate.
//! 4. [`Answer::Admit`] is served through [`Serving`]: the head, each chunk of the body before it
//!    passes, and the end. Its page lists the steps in order.

pub use crate::gate::{Answer, IdentifyStep, Pending, Running, Step, Waited};
pub use crate::serving::{
    Ahead, AskedAhead, BytesRead, Counting, Decided, Head, Reading, Serving, StreamCut, Upgraded,
    is_upgrade, stated_length, wait_for_both,
};
