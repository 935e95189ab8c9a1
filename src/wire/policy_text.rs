//! The value of `RateLimit-Policy`, made and checked once for all requests of a route: it is the
//! longest of the limit headers, and to check each byte of it again would cost more than the rest.

use crate::own_type::OwnType;

/// The value of `RateLimit-Policy`.
#[derive(Debug)]
pub struct PolicyText {
    text: Box<str>,
    /// `None` for what can be no header's value, which no list of limits is.
    #[cfg(feature = "tower")]
    value: Option<http::HeaderValue>,
    /// The same in the type of a framework that has one of its own.
    own: OwnType,
}

impl PolicyText {
    pub(crate) fn new(text: String) -> Self {
        Self {
            #[cfg(feature = "tower")]
            value: http::HeaderValue::from_str(&text).ok(),
            text: text.into(),
            own: OwnType::default(),
        }
    }

    /// The value as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value as the `http` crate has it.
    #[cfg(feature = "tower")]
    pub fn value(&self) -> Option<&http::HeaderValue> {
        self.value.as_ref()
    }

    /// The value in a framework's own type, made by the first call and kept. `None` where a
    /// framework with another type was here before: one program rarely serves through two.
    pub fn own<T: Send + Sync + 'static>(&self, make: impl FnOnce(&str) -> T) -> Option<&T> {
        self.own.get(|| make(&self.text))
    }
}

#[cfg(all(test, feature = "tower"))]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_the_same_text() {
        let policy = PolicyText::new("\"day\";q=1, \"50 % off\";q=2;w=60".to_owned());
        let value = policy.value().and_then(|value| value.to_str().ok());
        assert_eq!(value, Some(policy.as_str()));
        assert_eq!(policy.own(str::to_owned).map(String::as_str), Some(policy.as_str()));
    }
}
