//! Something the gate keeps as text, in a framework's own type: made by the first who asks for it.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// Room for one value, of whatever type a framework has for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnType(OnceLock<Arc<dyn Any + Send + Sync>>);

impl OwnType {
    /// What the first call made. `None` where a framework with another type was here before: one
    /// program rarely serves through two.
    pub(crate) fn get<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.0.get_or_init(|| Arc::new(make())).downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_framework_makes_it_once_and_another_one_gets_nothing() {
        let kept = OwnType::default();
        assert_eq!(kept.get(|| 8_usize), Some(&8));
        assert_eq!(kept.get(|| -> usize { panic!("it has been made") }), Some(&8));
        assert_eq!(kept.get(|| "eight"), None);
    }
}
