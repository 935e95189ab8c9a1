//! What a caller may do, by names of the host's own: `read`, `invoices:write`. A route of the plan
//! file asks for one with `needs-permission`.

use std::sync::Arc;

/// Most permissions of a key: a request compares its route's with each.
pub(crate) const MAX_PERMISSIONS: usize = 32;

/// The permissions of a caller, which one text holds: in order, each once, with a space between. It
/// is one word in the memory of each caller, of which most have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permissions(Option<Arc<Box<str>>>);

impl Permissions {
    /// Those of a text with spaces between them, as in the claim `scope` of a token.
    pub(crate) fn of(text: &str) -> Self {
        Self::from_names(text.split_ascii_whitespace())
    }

    fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names.dedup();
        Self((!names.is_empty()).then(|| Arc::new(names.join(" ").into())))
    }

    /// The same and those of another text.
    #[must_use]
    pub(crate) fn and(&self, text: &str) -> Self {
        Self::from_names(self.iter().chain(text.split_ascii_whitespace()))
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.as_str().split_ascii_whitespace()
    }

    /// Whether this is among them.
    #[inline]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.iter().any(|held| held == name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// All of them in one text; empty for none.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_ref().map(|names| &***names).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_a_set_of_whole_names() {
        let some = Permissions::of("write  read\tread");
        assert_eq!(some.as_str(), "read write");
        assert_eq!(some, Permissions::of("read").and("write read"));
        assert!(some.has("read") && some.has("write"));
        for other in ["", "rea", "reads", "read write", "Read"] {
            assert!(!some.has(other), "{other:?}");
        }
        assert!(Permissions::of(" ").is_empty() && !Permissions::default().has(""));
    }
}
