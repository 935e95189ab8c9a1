//! `[stripe]`: the connection of billing to Stripe.

use std::time::Duration;

use super::{Secret, SecretError, SecretRef, SecretSource};

/// Default of `stripe.account`.
pub(crate) const DEFAULT_STRIPE_ACCOUNT: &str = "main";

/// Default of `stripe.api-base`: Stripe's own.
pub(crate) const DEFAULT_STRIPE_API_BASE: &str = "https://api.stripe.com";

/// Default of `stripe.report-every`.
pub(crate) const DEFAULT_REPORT_EVERY: Duration = Duration::from_secs(15 * 60);

/// Minimum of `stripe.report-every`: each report takes a minute of its own at Stripe.
pub(crate) const MIN_REPORT_EVERY: Duration = Duration::from_secs(60);

/// Maximum of `stripe.report-every`: Stripe closes an invoice hours after its period.
pub(crate) const MAX_REPORT_EVERY: Duration = Duration::from_secs(86_400);

/// The settings of `[stripe]` in the service file: the keys, the mode, and when to report. From
/// code, pass it to `GateBuilder::stripe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeConfig {
    /// `key`: the API key.
    pub(crate) key: SecretRef,
    /// `webhook-secret`; without it no webhooks are accepted. While one is rolled, the text holds
    /// several secrets, separated by commas.
    pub(crate) webhook_secret: Option<SecretRef>,
    /// `mode`: the mode of the accepted keys.
    pub(crate) mode: StripeMode,
    /// `account`: the Stripe account's name in the identifiers of sent events. Never to be changed:
    /// another name makes other identifiers, so that events under way might be sent twice.
    pub(crate) account: String,
    /// `api-base`: Stripe's base URL.
    pub(crate) api_base: String,
    /// `report-every`: the interval of reports.
    pub(crate) report_every: Duration,
    /// `too-old`: treatment of usage that Stripe no longer accepts under its own date.
    pub(crate) too_old: TooOld,
}

impl StripeConfig {
    /// Settings from the variables of Stripe's own documentation: the key in `STRIPE_SECRET_KEY`,
    /// the signing secret in `STRIPE_WEBHOOK_SECRET` if set, a base other than Stripe's in
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

    /// Reads the signing secrets of webhooks; empty if none are configured.
    ///
    /// # Errors
    ///
    /// As [`SecretRef::resolve`].
    pub(crate) fn resolve_webhook_secrets(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<Secret>, SecretError> {
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
    ) -> Result<Secret, SecretError> {
        let key = self.key.resolve(env)?;
        let is = |mode: &str| {
            ["sk", "rk"].iter().any(|kind| {
                key.expose().strip_prefix(kind).is_some_and(|rest| rest.starts_with(mode))
            })
        };
        match self.mode {
            StripeMode::Test if is("_live_") => Err(self.key.error(
                "this is a live key, but stripe.mode is \"test\"".into(),
                "use a test key, or write mode = \"live\"",
            )),
            StripeMode::Live if is("_test_") => Err(self.key.error(
                "this is a test key, but stripe.mode is \"live\"".into(),
                "use a live key, or write mode = \"test\"",
            )),
            _ => Ok(key),
        }
    }
}

/// Treatment of usage that was not sent within 33 days after its period, because Stripe was down or
/// no reporter ran: Stripe refuses anything dated 35 days back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooOld {
    /// `"carry"`: dated into the open period, and billed with it.
    Carry,
    /// `"name"`: never billed; reports and the audit list it.
    Name,
}

/// Stripe's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StripeMode {
    /// `"test"`: no money moves.
    Test,
    /// `"live"`: money moves.
    Live,
}
