//! Texts that stay for as long as the process lives, so that nobody counts references to them:
//! every response of a route has the same policy, and one counter for all of them would pass from
//! processor to processor with each.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Most texts: a plan file has some dozens. Of those that come with its changes, or with limits of
/// a tenant's own, later ones are shared by counting.
const TEXTS: usize = 1_024;

/// Longest of them, in bytes: all together take at most 1 MiB.
const LENGTH: usize = 1_024;

static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The same text, kept; `None` where there is no room for it.
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
