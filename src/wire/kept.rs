//! Interned texts that live as long as the process, so that they need no reference count: every
//! response of a route has the same policy, and a shared counter would move from processor to
//! processor with each response.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Limit on the number of texts: a plan file has a few dozen. Beyond it, texts from later plan
/// files or a tenant's own limits are reference-counted.
const TEXTS: usize = 1_024;

/// Limit on the length of a text, in bytes: all together take at most 1 MiB.
const LENGTH: usize = 1_024;

static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The interned text; `None` if there is no room for it.
pub(super) fn keep(text: &str) -> Option<&'static str> {
    keep_in(&mut KEPT.lock().unwrap_or_else(PoisonError::into_inner), text)
}

fn keep_in(kept: &mut BTreeSet<&'static str>, text: &str) -> Option<&'static str> {
    if let Some(known) = kept.get(text) {
        return Some(known);
    }
    let has_room = kept.len() < TEXTS && text.len() <= LENGTH;
    has_room.then(|| {
        let text: &'static str = Box::leak(text.into());
        kept.insert(text);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once() {
        let (mut kept, text) = (BTreeSet::new(), String::from("\"day\";q=1"));
        let one = keep_in(&mut kept, &text).unwrap();
        let two = keep_in(&mut kept, &text.clone()).unwrap();
        assert!(std::ptr::eq(one, two));
        assert_eq!(kept.len(), 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = BTreeSet::new();
        assert_eq!(keep_in(&mut kept, &"x".repeat(LENGTH + 1)), None);
        for i in 0..TEXTS {
            assert!(keep_in(&mut kept, &i.to_string()).is_some());
        }
        assert_eq!(keep_in(&mut kept, "one more"), None);
        assert_eq!(keep_in(&mut kept, "7"), Some("7"));
        assert_eq!(kept.len(), TEXTS);
    }
}
