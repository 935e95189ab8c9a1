//! Settings of the simulated Stripe, changeable while it runs.

use serde::{Deserialize, Serialize};

/// Durations, delays and rates. The defaults are Stripe's published limits where there are any.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The only secret key accepted; `None` accepts every `sk_test_..` and `rk_test_..`, or, with
    /// [`livemode`](Self::livemode), every live one.
    pub key: Option<String>,
    /// Whether this is a live account: its objects and events say so, and it accepts live keys
    /// only.
    pub livemode: bool,
    /// The account's API version, for webhooks, and for answers to calls that name none. Before
    /// `2025-03-31` invoices and subscriptions have their older shape.
    pub api_version: String,
    /// Endpoint of the signed webhooks; `None` keeps events without sending them.
    pub webhook_url: Option<String>,
    /// Secrets to sign the webhooks with, each giving a `v1` of its own, as while Stripe rolls a
    /// secret.
    pub webhook_secrets: Vec<String>,
    /// Attempts for a webhook that is not answered with 2xx.
    pub webhook_attempts: u32,
    /// Pause before the second attempt, in real milliseconds; doubled before each further one.
    pub webhook_retry_ms: u64,
    /// How long a meter event's identifier stays taken, in seconds. Stripe: at least 24 h.
    pub identifier_window_s: i64,
    /// Maximum age of a meter event's timestamp, in seconds. Stripe: 35 days.
    pub timestamp_back_s: i64,
    /// Maximum lead of a meter event's timestamp, in seconds. Stripe: 5 min.
    pub timestamp_ahead_s: i64,
    /// Delay until a received event shows in summaries, in seconds.
    pub summary_lag_s: i64,
    /// Delay until a late rejection of a received event is reported, in seconds.
    pub report_after_s: i64,
    /// How long idempotency keys are remembered, in seconds. Stripe: at least 24 h.
    pub idempotency_window_s: i64,
    /// Duration of a call, in real milliseconds. Meanwhile a second one for the same customer and
    /// meter is refused.
    pub latency_ms: u64,
    /// Limit on calls per second of real time; `None` for no limit.
    pub calls_per_s: Option<u32>,
    /// Failed payments before an invoice is given up, three days apart.
    pub payment_attempts: u32,
    /// State of a subscription whose invoice was given up: `canceled`, `unpaid` or `past_due`.
    pub after_dunning: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            key: None,
            livemode: false,
            api_version: "2026-08-26.dahlia".to_owned(),
            webhook_url: None,
            webhook_secrets: vec!["whsec_sim".to_owned()],
            webhook_attempts: 8,
            webhook_retry_ms: 50,
            identifier_window_s: 24 * 3_600,
            timestamp_back_s: 35 * 86_400,
            timestamp_ahead_s: 300,
            summary_lag_s: 0,
            report_after_s: 60,
            idempotency_window_s: 24 * 3_600,
            latency_ms: 0,
            calls_per_s: None,
            payment_attempts: 4,
            after_dunning: "canceled".to_owned(),
        }
    }
}
