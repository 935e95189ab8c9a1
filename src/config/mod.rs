//! The service file, `tallygate.toml`: where things run, and how callers are known. What is sold
//! stands in the plan file. `docs/service-file.md` describes every key.
//!
//! A [`Config`] that exists is legal: it was parsed and checked, and all that was wrong was
//! reported at once, with line, column and what to write instead. It is plain data. Nothing
//! here opens a file, a store or a connection; only [`SecretRef::resolve`] reads, when it is asked
//! to.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

mod error;
mod identify;
mod reader;
mod references;
mod secret;
#[cfg_attr(
    not(feature = "stripe"),
    allow(dead_code, unreachable_pub, reason = "read and checked, and used by billing alone")
)]
mod stripe;
mod tables;
mod tree;

pub(crate) use error::{ConfigError, ConfigErrors};
pub(crate) use secret::{Secret, SecretRef, SecretSource};
#[cfg(feature = "stripe")]
pub use stripe::StripeConfig;
#[cfg(not(feature = "stripe"))]
pub(crate) use stripe::StripeConfig;
pub(crate) use stripe::{
    DEFAULT_REPORT_EVERY, DEFAULT_STRIPE_ACCOUNT, DEFAULT_STRIPE_API_BASE, MAX_REPORT_EVERY,
    MIN_REPORT_EVERY, StripeMode, TooOld,
};

/// `store.path` unless the file says otherwise.
pub(crate) const DEFAULT_STORE_PATH: &str = "tallygate.redb";

/// `store.table` unless the file says otherwise.
pub(crate) const DEFAULT_TABLE: &str = "tallygate";

/// `store.space` unless the file says otherwise.
pub(crate) const DEFAULT_SPACE: &str = "default";

/// `plans.file` unless the file says otherwise.
pub(crate) const DEFAULT_PLANS: &str = "plans.toml";

/// `api-key` where the file has no `[[identify]]`: headers that are looked at, in order.
pub(crate) const DEFAULT_API_KEY_HEADERS: [&str; 2] = ["authorization", "x-api-key"];

/// The environment variable of the pepper where `api-key` stands without `pepper`.
pub(crate) const DEFAULT_PEPPER_ENV: &str = "TALLYGATE_PEPPER";

/// The id of that pepper.
pub(crate) const DEFAULT_PEPPER_ID: &str = "1";

/// `flush.every` unless the file says otherwise.
pub(crate) const DEFAULT_FLUSH_EVERY: Duration = Duration::from_secs(1);

/// `flush.every` is at least this: below it, more is written than is learned.
pub(crate) const MIN_FLUSH_EVERY: Duration = Duration::from_millis(50);

/// `flush.every` is at most this: a writer that holds units writes every 5 s, since its records are
/// its heartbeat.
pub(crate) const MAX_FLUSH_EVERY: Duration = Duration::from_secs(5);

/// `flush.max-write-units` unless the file says otherwise.
pub(crate) const DEFAULT_MAX_WRITE_UNITS: u32 = 50;

/// `flush.journal-path` where the store is no local file and the file does not say otherwise.
pub(crate) const DEFAULT_JOURNAL_PATH: &str = "tallygate.journal";

/// Longest name of a space, in characters.
pub(crate) const MAX_SPACE_CHARS: usize = 64;

/// A service file. Paths are as written: a relative one counts from where the service runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// `[store]`: where tenants, quotas and usage are kept.
    pub store: StoreConfig,
    /// `[plans]`: where the plan file is.
    pub plans: PlansConfig,
    /// `[[identify]]`: how callers are known, tried in this order. Never empty.
    pub identify: Vec<IdentifyTable>,
    /// `[identity]`: what becomes of those who are not known.
    pub identity: IdentityConfig,
    /// `[proxy]`: whose word about a caller's address counts.
    pub proxy: ProxyConfig,
    /// `[http]`: what surrounds the API.
    pub http: HttpConfig,
    /// `[stripe]`; without it nothing is billed.
    pub stripe: Option<StripeConfig>,
    /// `[flush]`: how usage reaches the store.
    pub flush: FlushConfig,
    /// `[ingest]`: usage that other services report.
    pub ingest: IngestConfig,
}

impl Config {
    /// Parses the text of a service file. `file_name` appears in errors; `env` is the environment,
    /// of which the variables that begin with `TALLYGATE__` override the file.
    ///
    /// # Errors
    ///
    /// All that is wrong, in the order of the file; mistakes of TOML itself come alone.
    pub(crate) fn parse(
        file_name: &str,
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let mut root = tree::parse(file_name, text)?;
        let errors = tree::lay_over(&mut root, env);
        let reader = reader::Reader::new(file_name, errors);
        let config = tables::config(&reader, &root);
        match (config, reader.into_errors()) {
            (Some(config), errors) if errors.is_empty() => Ok(config),
            (_, errors) => Err(ConfigErrors(errors)),
        }
    }
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreConfig {
    /// `kind`, with what this kind needs.
    pub kind: StoreKind,
    /// `space`: this service's part of the table. 1 to 64 characters of `a-z0-9-`.
    pub space: String,
}

/// What kind of store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// `"memory"`: gone with the process.
    Memory,
    /// `"redb"`: a file, for one process.
    Redb {
        /// `path`: the file.
        path: PathBuf,
    },
    /// `"dynamodb"`: shared by all processes. Region and endpoint come from where every AWS tool
    /// takes them.
    Dynamodb {
        /// `table`: the table's name.
        table: String,
    },
}

/// `[plans]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlansConfig {
    /// `file`: the plan file.
    pub file: PathBuf,
}

/// One `[[identify]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdentifyTable {
    /// API keys, looked up by their hash.
    ApiKey {
        /// `api-key`: header names, lower case, in the order in which they are looked at.
        headers: Vec<String>,
        /// `pepper`: keys of the hash, newest first. Never empty.
        peppers: Vec<PepperConfig>,
    },
    /// Signed tokens.
    Jwt(JwtConfig),
    /// A header that a gateway in front has set, believed only from a peer in `[proxy] trust`,
    /// which is not empty then.
    Header {
        /// `header`: the name of the header with the tenant, lower case.
        tenant: String,
        /// `user-header`: the name of the header with the user, lower case.
        user: Option<String>,
    },
    /// A claim that the host, or the gateway that calls a Lambda function, has verified.
    Claim {
        /// `claim`: the name of the claim with the tenant.
        tenant: String,
        /// `user-claim`: the name of the claim with the user.
        user: Option<String>,
    },
}

/// A key of the credential hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PepperConfig {
    /// `id`: stored beside each hash that was made with it. 1 to 16 characters of `a-z0-9`.
    pub id: String,
    /// Where the key is.
    pub secret: SecretRef,
}

/// `jwt = { .. }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JwtConfig {
    /// `jwks` or `secret`: what tokens are verified with.
    pub keys: JwtKeys,
    /// `issuer`: what `iss` must be.
    pub issuer: String,
    /// `audience`: one of these must be in `aud`. Never empty.
    pub audience: Vec<String>,
    /// `tenant`: the claim that holds the tenant.
    pub tenant: String,
    /// `user`: the claim that holds the user, for limits `per user`.
    pub user: Option<String>,
}

/// What tokens are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwtKeys {
    /// `jwks`: public keys (RFC 7517), at an `https` URL (or `http` on this machine) or in a file.
    Jwks(String),
    /// `secret`: a secret that is shared with the issuer, for HS256. It has at least 32 bytes (RFC
    /// 7518, section 3.2), which is seen when it is read.
    Secret(SecretRef),
}

/// `[identity]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdentityConfig {
    /// `unknown`: what becomes of a caller that is not known.
    pub unknown: OnUnknown,
    /// `no-scope`: what becomes of a limit whose scope a caller has no value of.
    pub no_scope: NoScope,
}

/// What becomes of a limit by a scope (`per user`) of which a caller has no value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NoScope {
    /// `"tenant"`: it holds for all such callers of the tenant together.
    #[default]
    Tenant,
    /// `"refuse"`: the caller is refused with 403.
    Refuse,
    /// `"skip"`: it does not hold for them.
    Skip,
}

/// What becomes of a caller that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnUnknown {
    /// `"reject"`: 401.
    Reject,
    /// `"create"`: a verified tenant that was never seen is made, on the default plan.
    Create,
    /// `"anonymous"`: it is the anonymous tenant.
    Anonymous,
}

/// `[proxy]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyConfig {
    /// `trust`: whose `X-Forwarded-For` counts.
    pub trust: Vec<Network>,
}

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(ipnet::IpNet);

/// With its prefix, also for one address: `10.0.0.0/8`, `192.0.2.7/32` (CIDR, RFC 4632).
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `[http]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HttpConfig {
    /// `billing-url`: where a person can pay or upgrade; shown in refusals with 402.
    pub billing_url: Option<String>,
    /// `strip-prefix`: taken off each path before routes are matched, as `/prod` where a gateway
    /// puts its stage there. Begins with `/` and does not end with it.
    pub strip_prefix: Option<String>,
}

/// `[flush]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushConfig {
    /// `every`: how long a record waits for others.
    pub every: Duration,
    /// `mode`: what an abrupt death may lose.
    pub mode: FlushMode,
    /// `journal-path`: the local journal, used in mode `journal`.
    pub journal_path: PathBuf,
    /// `max-write-units`: DynamoDB write units a second of this process's records.
    pub max_write_units: u32,
}

/// `[ingest]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IngestConfig {
    /// `token`: what callers of `POST /usage` present as a bearer's token. Without it the route
    /// answers nobody.
    pub token: Option<SecretRef>,
    /// `products`: the meter of each product code that events may name instead.
    pub products: std::collections::BTreeMap<String, String>,
}

/// What an abrupt death of the process may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushMode {
    /// `"fast"`: one flush interval.
    Fast,
    /// `"journal"`: what the local journal had not been given, at most 50 ms.
    Journal,
    /// `"durable"`: nothing; the answer waits for the record.
    Durable,
}

#[cfg(test)]
mod tests;
