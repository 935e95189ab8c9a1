//! A decision on its way from the layer that reads bodies to the layer that serves the request.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// The gate's decision on a request, made before its body was read
/// ([`Gate::ask_ahead`](crate::Gate::ask_ahead)). Put it into the request's extensions, where
/// [`RequestView::decided`](super::RequestView::decided) finds it. Only the gate can read the
/// contents.
#[derive(Clone, Debug)]
pub struct Decided(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Decided {
    /// Carries this answer, for one use.
    pub(crate) fn of(answer: Option<Box<dyn Any + Send>>) -> Self {
        Self(Arc::new(Mutex::new(answer)))
    }

    /// The answer, for the first call only.
    pub(crate) fn take<T: Any>(&self) -> Option<Box<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?.downcast().ok()
    }
}
