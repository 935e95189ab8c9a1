//! `[[notify]]`: the destinations of alerts.

use super::SecretRef;
#[cfg(feature = "notify")]
use super::{Secret, SecretError};

/// The kinds of alerts, as `events` names them; `docs/alerts.md` has them with `tallygate.` before.
pub(crate) const ALERT_KINDS: &[&str] = &[
    "quota.threshold",
    "quota.exhausted",
    "plan.changed",
    "payment.trouble",
    "key.expiring",
    "usage.late",
    "billing.late",
    "billing.waits",
    "billing.drift",
];

/// Most destinations: each has a task and a queue of its own.
pub(crate) const MAX_DESTINATIONS: usize = 16;

/// Longest name of a destination.
pub(crate) const MAX_DESTINATION_CHARS: usize = 64;

/// One `[[notify]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "notify"),
    allow(dead_code, reason = "read and checked, and used where alerts are sent")
)]
pub(crate) struct NotifyConfig {
    /// `name`: by which its queue is found. 1 to 64 characters of `a-z0-9-`, unlike any other's.
    pub name: String,
    /// `webhook` or `slack`.
    pub to: NotifyTarget,
    /// `events`: the kinds that it takes; empty: all.
    pub events: Vec<String>,
}

impl NotifyConfig {
    /// Whether it takes alerts of the kind of this name.
    pub(crate) fn wants(&self, word: &str) -> bool {
        self.events.is_empty() || self.events.iter().any(|it| it == word)
    }
}

/// The kind of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "notify"),
    allow(dead_code, reason = "read and checked, and used where alerts are sent")
)]
pub(crate) enum NotifyTarget {
    /// `webhook`, with `secret`, the key of its signatures.
    Webhook {
        /// Where it is.
        url: NotifyUrl,
        /// The key, or several while one is rolled: separated by spaces.
        secret: SecretRef,
    },
    /// `slack`: an incoming webhook, whose URL is a secret.
    Slack {
        /// Where it is.
        url: SecretRef,
    },
}

/// A URL: some are secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum NotifyUrl {
    /// In the file.
    Written(String),
    /// Elsewhere.
    Kept(SecretRef),
}

impl NotifyUrl {
    /// Reads the URL.
    ///
    /// # Errors
    ///
    /// As [`SecretRef::resolve`].
    #[cfg(feature = "notify")]
    pub(crate) fn resolve(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secret, SecretError> {
        match self {
            Self::Written(url) => Ok(Secret::new(url.clone())),
            Self::Kept(reference) => reference.resolve(env),
        }
    }
}

/// A path or a query may be a secret.
impl std::fmt::Debug for NotifyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Written(_) => f.write_str("Written(..)"),
            Self::Kept(reference) => f.debug_tuple("Kept").field(reference).finish(),
        }
    }
}
