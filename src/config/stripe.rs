//! `[stripe]`: how billing reaches Stripe.

use std::time::Duration;

use super::{ConfigError, Secret, SecretRef, SecretSource};

/// `stripe.account` unless the file says otherwise.
pub(crate) const DEFAULT_STRIPE_ACCOUNT: &str = "main";

/// `stripe.api-base` unless the file says otherwise: Stripe's own.
pub(crate) const DEFAULT_STRIPE_API_BASE: &str = "https://api.stripe.com";

/// `stripe.report-every` unless the file says otherwise.
pub(crate) const DEFAULT_REPORT_EVERY: Duration = Duration::from_secs(15 * 60);

/// `stripe.report-every` is at least this: each report takes a minute of its own at Stripe.
pub(crate) const MIN_REPORT_EVERY: Duration = Duration::from_secs(60);

/// `stripe.report-every` is at most this: Stripe closes an invoice hours after its period.
pub(crate) const MAX_REPORT_EVERY: Duration = Duration::from_secs(86_400);

/// `[stripe]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeConfig {
    /// `key`: the API key.
    pub(crate) key: SecretRef,
    /// `webhook-secret`; without it no webhooks are taken. Several secrets stand in one text,
    /// with a comma between them, while one is rolled.
    pub(crate) webhook_secret: Option<SecretRef>,
    /// `mode`: which keys are taken.
    pub(crate) mode: StripeMode,
    /// `account`: names the Stripe account in the identifiers of what is sent. Another name makes
    /// other identifiers, so that what is under way might be sent twice: to be kept for good.
    pub(crate) account: String,
    /// `api-base`: where Stripe is.
    pub(crate) api_base: String,
    /// `report-every`: how often usage is sent.
    pub(crate) report_every: Duration,
    /// `too-old`: what becomes of usage that Stripe takes no more under its own date.
    pub(crate) too_old: TooOld,
}

impl StripeConfig {
    /// From the variables that Stripe's own documentation uses: the key in `STRIPE_SECRET_KEY`, the
    /// signing secret in `STRIPE_WEBHOOK_SECRET` if it is set, another base than Stripe's in
    /// `STRIPE_API_BASE`; in mode `test`. `None` without a key.
    ///
    /// ```
    /// let env = |name: &str| (name == "STRIPE_SECRET_KEY").then(|| "sk_test_x".to_owned());
    /// assert!(tallygate::billing::StripeConfig::from_env(&env).is_some());
    /// assert!(tallygate::billing::StripeConfig::from_env(&|_| None).is_none());
    /// ```
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let reference = |field: &str, name: &str| {
            let source = SecretSource::Env(name.to_owned());
            env(name).map(|_| SecretRef { field: format!("stripe.{field}"), source })
        };
        Some(Self {
            key: reference("key", "STRIPE_SECRET_KEY")?,
            webhook_secret: reference("webhook-secret", "STRIPE_WEBHOOK_SECRET"),
            mode: StripeMode::Test,
            account: DEFAULT_STRIPE_ACCOUNT.to_owned(),
            api_base: env("STRIPE_API_BASE").unwrap_or_else(|| DEFAULT_STRIPE_API_BASE.to_owned()),
            report_every: DEFAULT_REPORT_EVERY,
            too_old: TooOld::Carry,
        })
    }

    /// Reads the signing secrets of webhooks; none if there is no reference to them.
    ///
    /// # Errors
    ///
    /// As [`SecretRef::resolve`].
    pub(crate) fn resolve_webhook_secrets(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<Secret>, ConfigError> {
        let Some(reference) = &self.webhook_secret else { return Ok(Vec::new()) };
        let text = reference.resolve(env)?;
        let secrets = text.expose().split(',').map(str::trim).filter(|secret| !secret.is_empty());
        Ok(secrets.map(Secret::new).collect())
    }

    /// Reads the API key.
    ///
    /// # Errors
    ///
    /// As [`SecretRef::resolve`], and if the key is of the other mode: real money does not move by
    /// mistake, and a live service does not bill into a test account.
    pub(crate) fn resolve_key(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secret, ConfigError> {
        let key = self.key.resolve(env)?;
        let is = |mode: &str| {
            ["sk", "rk"].iter().any(|kind| {
                key.expose().strip_prefix(kind).is_some_and(|rest| rest.starts_with(mode))
            })
        };
        match self.mode {
            StripeMode::Test if is("_live_") => Err(self.key.error(
                "this is a live key, and stripe.mode is \"test\"".into(),
                "use a test key, or write mode = \"live\"",
            )),
            StripeMode::Live if is("_test_") => Err(self.key.error(
                "this is a test key, and stripe.mode is \"live\"".into(),
                "use a live key, or write mode = \"test\"",
            )),
            _ => Ok(key),
        }
    }
}

/// What becomes of usage that was not sent within 33 days after its period, because Stripe was away
/// or nobody reported: Stripe takes nothing that is dated 35 days back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooOld {
    /// `"carry"`: it is dated into the period that is open, and billed with that.
    Carry,
    /// `"name"`: it is never billed; reports and the audit name it.
    Name,
}

/// Which of Stripe's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StripeMode {
    /// `"test"`: no money moves.
    Test,
    /// `"live"`: money moves.
    Live,
}
