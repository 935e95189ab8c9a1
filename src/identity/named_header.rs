//! The name of a header that identifies, parsed once: a look-up by text parses it every time.

/// A header's name, lower case, as a source has it.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedHeader {
    name: Box<str>,
    /// `None` for what can be no header's name: such a header never comes.
    #[cfg(feature = "tower")]
    parsed: Option<http::HeaderName>,
}

impl NamedHeader {
    /// The header of this name, in any case.
    pub fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase().into_boxed_str();
        Self {
            #[cfg(feature = "tower")]
            parsed: http::HeaderName::from_bytes(name.as_bytes()).ok(),
            name,
        }
    }

    /// The name, lower case.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name as the `http` crate has it.
    #[cfg(feature = "tower")]
    pub fn parsed(&self) -> Option<&http::HeaderName> {
        self.parsed.as_ref()
    }
}

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
