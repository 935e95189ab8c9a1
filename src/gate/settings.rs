//! Settings of the service file and of the host that are used as long as the gate is open.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::sources::WORK_ONLY;
use crate::config::{
    Config, FlushMode, IdentityConfig, IngestConfig, LimitHeaders, OnUnknown, Secret,
};
use crate::decision::Refusal;
use crate::error::Error;
use crate::ledger::Mode;
use crate::wire::{HeaderStyle, LegacyReset, Reply, WireOptions};

/// The host's own form of refusals ([`GateBuilder::on_refusal`](super::GateBuilder::on_refusal)):
/// returns the reply to send, or `None` for the default one.
pub type OnRefusal = Arc<dyn Fn(&Refusal) -> Option<Reply> + Send + Sync>;

/// See the [module](self).
pub(crate) struct Settings {
    pub(crate) identity: IdentityConfig,
    pub(crate) billing_url: Option<String>,
    pub(crate) strip_prefix: Option<String>,
    pub(crate) mode: Mode,
    /// So many tenants are labels of a metric.
    pub(crate) top_tenants: Option<usize>,
    pub(crate) ingest: IngestConfig,
    /// Hash of the token that callers of `POST /usage` present.
    pub(crate) ingest_token: Option<[u8; 32]>,
    pub(crate) wire: WireOptions,
    pub(crate) on_refusal: Option<OnRefusal>,
}

/// Fewest bytes of the token of `POST /usage`, because any client may try to guess it.
const MIN_INGEST_TOKEN: usize = 16;

impl Settings {
    /// The settings of a service file, with the secrets that are needed as long as the gate is
    /// open.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let env = |name: &str| std::env::var(name).ok();
        let token = config.ingest.token.as_ref().map(|token| token.resolve(&env)).transpose();
        let token = token.map_err(|mut error| {
            error.help += WORK_ONLY;
            Error::Config(error.to_string())
        })?;
        if let Some(token) = &token
            && token.expose().len() < MIN_INGEST_TOKEN
        {
            return Err(Error::Config(format!(
                "ingest.token has {} bytes and needs at least {MIN_INGEST_TOKEN}: make one with \
                 `openssl rand -hex 32`",
                token.expose().len()
            )));
        }
        let hash = |token: Secret| Sha256::digest(token.expose()).into();
        Ok(Self {
            ingest: config.ingest.clone(),
            ingest_token: token.map(hash),
            identity: config.identity,
            billing_url: config.http.billing_url.clone(),
            strip_prefix: config.http.strip_prefix.clone(),
            mode: match config.flush.mode {
                FlushMode::Fast => Mode::Fast,
                FlushMode::Journal => Mode::Journal,
                FlushMode::Durable => Mode::Durable,
            },
            top_tenants: config.metrics.map(|metrics| metrics.top_tenants as usize),
            wire: WireOptions { style: style(config.http.limit_headers), ..WireOptions::default() },
            on_refusal: None,
        })
    }

    /// With the host's own settings for headers and problems, if it has any.
    pub(super) fn with_wire(self, wire: Option<WireOptions>) -> Self {
        match wire {
            Some(wire) => Self { wire, ..self },
            None => self,
        }
    }

    /// Whether tenants are made on first sight.
    pub(crate) fn creates(&self) -> bool {
        self.identity.unknown == OnUnknown::Create
    }
}

fn style(named: LimitHeaders) -> HeaderStyle {
    let legacy = |reset| HeaderStyle::Legacy { reset };
    match named {
        LimitHeaders::All => HeaderStyle::Draft11,
        LimitHeaders::Nearest => HeaderStyle::Nearest,
        LimitHeaders::Epoch => legacy(LegacyReset::Epoch),
        LimitHeaders::Delta => legacy(LegacyReset::Delta),
        LimitHeaders::Rfc3339 => legacy(LegacyReset::Rfc3339),
        LimitHeaders::Off => HeaderStyle::Off,
    }
}
