//! Caches one value as a web framework's header type.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// A slot for one value, in any framework's type.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnType(OnceLock<Arc<dyn Any + Send + Sync>>);

impl OwnType {
    /// The cached value, made by the first call. The first framework to ask wins; others get
    /// `None`: one program rarely serves through two.
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
