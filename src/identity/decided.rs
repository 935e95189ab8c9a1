//! A decision on its way from the layer that reads bodies to the layer that serves the request.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// What the gate has said of a request before its layer is asked: for the request's extensions,
/// where [`RequestView::decided`](super::RequestView::decided) finds it. What it is the gate alone
/// can read.
#[derive(Clone, Debug)]
pub struct Decided(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Decided {
    /// Carries this answer, once.
    pub(crate) fn of(answer: Option<Box<dyn Any + Send>>) -> Self {
        Self(Arc::new(Mutex::new(answer)))
    }

    /// The answer, for the first who asks.
    pub(crate) fn take<T: Any>(&self) -> Option<Box<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?.downcast().ok()
    }
}
