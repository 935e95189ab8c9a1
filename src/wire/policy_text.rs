//! The value of `RateLimit-Policy`, built and validated once per route: it is the longest of the
//! limit headers, and validating each byte of it per response would cost more than the rest.

use crate::own_type::OwnType;

/// The value of `RateLimit-Policy`.
#[derive(Debug)]
pub struct PolicyText {
    text: String,
    /// `None` if it is no legal header value, which a list of limits always is.
    #[cfg(feature = "tower")]
    value: Option<http::HeaderValue>,
    /// The same as a framework's own header type.
    own: OwnType,
}

impl PolicyText {
    pub(crate) fn new(text: String) -> Self {
        Self {
            #[cfg(feature = "tower")]
            value: http::HeaderValue::from_str(&text).ok(),
            text,
            own: OwnType::default(),
        }
    }

    /// The value as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value as the `http` crate's type.
    #[cfg(feature = "tower")]
    pub fn value(&self) -> Option<&http::HeaderValue> {
        self.value.as_ref()
    }

    /// The value as a framework's own type, built by the first call and cached. `None` if another
    /// framework's type is cached: one program rarely serves through two.
    pub fn own<T: Send + Sync + 'static>(&self, make: impl FnOnce(&str) -> T) -> Option<&T> {
        self.own.get(|| make(&self.text))
    }
}

#[cfg(all(test, feature = "tower"))]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_the_same_text() {
        let text = "\"day\";q=1, \"50 % off\";q=2;w=60";
        let policy = PolicyText::new(text.to_owned());
        assert_eq!(policy.as_str(), text);
        assert_eq!(policy.value().and_then(|value| value.to_str().ok()), Some(text));
        assert_eq!(policy.own(str::to_owned).map(String::as_str), Some(text));
    }

    #[test]
    fn what_can_be_no_header_has_no_value() {
        assert!(PolicyText::new("\n".to_owned()).value().is_none());
    }
}
