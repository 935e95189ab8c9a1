//! `[[notify]]`: the destinations of alerts.

use super::{Secret, SecretError, SecretRef};

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
    "billing.old",
    "billing.drift",
];

/// Most destinations: each has a task and a queue of its own.
pub(crate) const MAX_DESTINATIONS: usize = 16;

/// Longest name of a destination.
pub(crate) const MAX_DESTINATION_CHARS: usize = 64;

/// One `[[notify]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotifyConfig {
    /// `name`: by which its queue is found. 1 to 64 characters of `a-z0-9-`, unlike any other's.
    pub name: String,
    /// `webhook`, `slack`, `sns` or `eventbridge`.
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

/// What a destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotifyTarget {
    /// `webhook` or `slack`: over a client of this crate.
    Http(HttpTarget),
    /// `sns` or `eventbridge`: over a client of the AWS SDK that the program hands in.
    Aws {
        /// Which of the two.
        service: AwsService,
        /// Where it is.
        address: NotifyAddress,
    },
}

/// A destination over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "notify"),
    allow(dead_code, reason = "read and checked, and used where alerts are sent")
)]
pub(crate) enum HttpTarget {
    /// `webhook`, with `secret`, the key of its signatures.
    Webhook {
        /// Where it is.
        url: NotifyAddress,
        /// The key, or several while one is rolled: separated by spaces.
        secret: SecretRef,
    },
    /// `slack`: an incoming webhook, whose URL is a secret.
    Slack {
        /// Where it is.
        url: SecretRef,
    },
}

/// A service of AWS that takes alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AwsService {
    /// Topics, by their ARN.
    Sns,
    /// Event buses, by their name or their ARN.
    EventBridge,
}

impl AwsService {
    pub(crate) const ALL: [Self; 2] = [Self::Sns, Self::EventBridge];

    /// Its key in `[[notify]]`, and the feature of `tallygate-notify-aws` that sends there.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Sns => "sns",
            Self::EventBridge => "eventbridge",
        }
    }

    /// What alerts go to, in sentences.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Self::Sns => "a topic of SNS",
            Self::EventBridge => "an event bus of EventBridge",
        }
    }

    /// Whether one of its places has this address.
    pub(crate) fn has(self, address: &str) -> bool {
        match self {
            Self::Sns => of_arn(address, "sns").is_some_and(is_topic),
            Self::EventBridge if address.starts_with("arn:") => of_arn(address, "events")
                .and_then(|it| it.strip_prefix("event-bus/"))
                .is_some_and(is_bus),
            Self::EventBridge => is_bus(address),
        }
    }

    /// What is said of an address that it has not: the mistake, and what to write.
    pub(crate) fn mistake(self) -> (&'static str, &'static str) {
        match self {
            Self::Sns => (
                "a topic of SNS is named by its ARN",
                "as in \"arn:aws:sns:eu-west-1:123456789012:alerts\"",
            ),
            Self::EventBridge => (
                "an event bus is named by its name or its ARN",
                "as in \"default\" or \"arn:aws:events:eu-west-1:123456789012:event-bus/ops\"",
            ),
        }
    }
}

/// What stands behind the account in an ARN of this service.
fn of_arn<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let is_word = |text: &str| {
        text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
    };
    let (prefix, partition, of, region, account) = (next()?, next()?, next()?, next()?, next()?);
    let is_account = account.len() == 12 && account.bytes().all(|it| it.is_ascii_digit());
    let fits = prefix == "arn" && of == service && is_word(partition) && is_word(region);
    next().filter(|_| fits && is_account)
}

fn is_topic(name: &str) -> bool {
    is_of(name.strip_suffix(".fifo").unwrap_or(name), "-_")
}

/// A partner's bus has slashes in its name.
fn is_bus(name: &str) -> bool {
    is_of(name, "-_./")
}

fn is_of(name: &str, also: &str) -> bool {
    let may = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    (1..=256).contains(&name.len()) && name.chars().all(may)
}

/// An address: some are secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum NotifyAddress {
    /// In the file.
    Written(String),
    /// Elsewhere.
    Kept(SecretRef),
}

impl NotifyAddress {
    /// Reads the address.
    ///
    /// # Errors
    ///
    /// As [`SecretRef::resolve`].
    pub(crate) fn resolve(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secret, SecretError> {
        match self {
            Self::Written(address) => Ok(Secret::new(address.clone())),
            Self::Kept(reference) => reference.resolve(env),
        }
    }
}

/// A path or a query of a URL may be a secret.
impl std::fmt::Debug for NotifyAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Written(_) => f.write_str("Written(..)"),
            Self::Kept(reference) => f.debug_tuple("Kept").field(reference).finish(),
        }
    }
}
