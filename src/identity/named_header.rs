//! The name of an identifying header, parsed once: a look-up by text parses it every time.

use crate::own_type::OwnType;

/// A header's name, lower case, as configured in a source.
#[derive(Clone)]
pub struct NamedHeader {
    name: Box<str>,
    /// `None` for an invalid header name: such a header never arrives.
    #[cfg(feature = "tower")]
    parsed: Option<http::HeaderName>,
    /// The same in the type of a framework with its own.
    own: OwnType,
}

impl NamedHeader {
    /// The header of this name, in any case.
    pub fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase().into_boxed_str();
        Self {
            #[cfg(feature = "tower")]
            parsed: http::HeaderName::from_bytes(name.as_bytes()).ok(),
            name,
            own: OwnType::default(),
        }
    }

    /// The name, lower case.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name as the `http` crate's type.
    #[cfg(feature = "tower")]
    pub fn parsed(&self) -> Option<&http::HeaderName> {
        self.parsed.as_ref()
    }

    /// The name in a framework's own type, created by the first call and kept. `None` after a first
    /// call with another framework's type: one program rarely serves through two.
    pub fn own<T: Send + Sync + 'static>(&self, parse: impl FnOnce(&str) -> T) -> Option<&T> {
        self.own.get(|| parse(&self.name))
    }
}

impl PartialEq for NamedHeader {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for NamedHeader {}

impl From<&str> for NamedHeader {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl std::fmt::Debug for NamedHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framework_parses_a_name_once_and_another_one_gets_nothing() {
        let name = NamedHeader::new("X-Tenant");
        assert_eq!(name.own(|name| name.len()), Some(&8));
        assert_eq!(name.own(|_| -> usize { panic!("it has been parsed") }), Some(&8));
        assert_eq!(name.own(|name| name.to_owned()), None);
        assert_eq!(name, NamedHeader::new("x-tenant"));
    }
}
