//! The service file, `tallygate.toml`: where things run, and how callers are identified. Products
//! are in the plan file. `docs/service-file.md` describes every key.
//!
//! A [`Config`] that exists is legal: it was parsed and checked, and all errors were reported at
//! once, with line, column and what to write instead. It is plain data. Nothing here opens a file,
//! a store or a connection; only [`SecretRef::resolve`] reads, on request.
//!
//! The stages: `keys` defines the keys and their types, `overrides` lays the environment over the
//! file, [`toml_file`] checks both against the keys, `tables` and `identify` lower them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

mod identify;
mod keys;
mod notify;
mod overrides;
mod secret;
#[cfg_attr(
    not(feature = "stripe"),
    allow(dead_code, unreachable_pub, reason = "read and checked, and used by billing alone")
)]
mod stripe;
mod tables;

#[cfg(feature = "notify")]
pub(crate) use identify::has_no_such_port;
#[cfg(test)]
pub(crate) use notify::ALERT_KINDS;
pub(crate) use notify::{
    AwsService, HttpTarget, MAX_DESTINATION_CHARS, MAX_DESTINATIONS, NotifyAddress, NotifyConfig,
    NotifyTarget,
};
pub(crate) use secret::{Secret, SecretError, SecretRef, SecretSource};
#[cfg(feature = "stripe")]
pub use stripe::StripeConfig;
#[cfg(not(feature = "stripe"))]
pub(crate) use stripe::StripeConfig;
pub(crate) use stripe::{
    DEFAULT_REPORT_EVERY, DEFAULT_STRIPE_ACCOUNT, DEFAULT_STRIPE_API_BASE, MAX_REPORT_EVERY,
    MIN_REPORT_EVERY, StripeMode, TooOld,
};

use crate::toml_file::{self, FileErrors, Findings, TomlTable};

/// Default of `store.path`.
pub(crate) const DEFAULT_STORE_PATH: &str = "tallygate.redb";

/// Default of `store.table`.
pub(crate) const DEFAULT_TABLE: &str = "tallygate";

/// Default of `store.space`.
pub(crate) const DEFAULT_SPACE: &str = "default";

/// Default of `plans.file`.
pub(crate) const DEFAULT_PLANS: &str = "plans.toml";

/// Default of `api-key` in a file without `[[identify]]`: the headers examined, in order.
pub(crate) const DEFAULT_API_KEY_HEADERS: [&str; 2] = ["authorization", "x-api-key"];

/// The environment variable of the pepper for an `api-key` without `pepper`.
pub(crate) const DEFAULT_PEPPER_ENV: &str = "TALLYGATE_PEPPER";

/// The id of that pepper.
pub(crate) const DEFAULT_PEPPER_ID: &str = "1";

/// Default of `flush.every`.
pub(crate) const DEFAULT_FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Minimum of `flush.every`: below it, the extra writes bring no benefit.
pub(crate) const MIN_FLUSH_EVERY: Duration = Duration::from_millis(50);

/// Maximum of `flush.every`: a writer that holds units writes every 5 s, since its records are its
/// heartbeat.
pub(crate) const MAX_FLUSH_EVERY: Duration = Duration::from_secs(5);

/// Default of `flush.max-write-units`.
pub(crate) const DEFAULT_MAX_WRITE_UNITS: u32 = 50;

/// Default of `flush.journal-path` where the store is not a local file.
pub(crate) const DEFAULT_JOURNAL_PATH: &str = "tallygate.journal";

/// Default of `decisions.file`.
pub(crate) const DEFAULT_DECISIONS: &str = "decisions.ndjson";

/// Default of `decisions.admissions`: one in so many is logged.
pub(crate) const DEFAULT_ADMISSIONS: u32 = 100;

/// Default of `decisions.max-bytes`: some hundred thousand lines.
pub(crate) const DEFAULT_DECISIONS_BYTES: u64 = 64_000_000;

/// Least of `decisions.max-bytes`: a quarter of it, which is one file, has some hundred lines.
pub(crate) const MIN_DECISIONS_BYTES: u64 = 1_000_000;

/// Most of `metrics.top-tenants`: a series each, in every scrape.
pub(crate) const MAX_TOP_TENANTS: u32 = 100;

/// Longest name of a space, in characters.
pub(crate) const MAX_SPACE_CHARS: usize = 64;

/// A service file. Paths are as written: a relative one is resolved from the service's working
/// directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// `[store]`: the storage of tenants, quotas and usage.
    pub store: StoreConfig,
    /// `[plans]`: the location of the plan file.
    pub plans: PlansConfig,
    /// `[[identify]]`: how callers are identified, tried in this order. Empty where the program
    /// alone names them.
    pub identify: Vec<IdentifyTable>,
    /// `[identity]`: treatment of unknown callers.
    pub identity: IdentityConfig,
    /// `[proxy]`: the proxies trusted for a caller's address.
    pub proxy: ProxyConfig,
    /// `[http]`: the environment of the API.
    pub http: HttpConfig,
    /// `[stripe]`; without it nothing is billed.
    pub stripe: Option<StripeConfig>,
    /// `[capacity]`: how much a process does at once; without it as much as comes.
    pub capacity: Option<CapacityConfig>,
    /// `[metrics]`: what is measured beyond the bounded rest.
    pub metrics: Option<MetricsConfig>,
    /// `[flush]`: how usage reaches the store.
    pub flush: FlushConfig,
    /// `[ingest]`: usage that other services report.
    pub ingest: IngestConfig,
    /// `[decisions]`: the log of decisions; without it there is none.
    pub decisions: Option<DecisionsConfig>,
    /// `[[notify]]`: the destinations of alerts.
    pub notify: Vec<NotifyConfig>,
}

impl Config {
    /// Parses the text of a service file. `file_name` appears in errors; `env` is the environment,
    /// whose variables that begin with `TALLYGATE__` override the file.
    ///
    /// # Errors
    ///
    /// All errors, in the order of the file, the environment last; TOML syntax errors come alone.
    pub(crate) fn parse(
        file_name: &str,
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FileErrors> {
        let ours = overrides::ours(env);
        let mut report = Findings::masked(file_name, text, &keys::TOP);
        let mut file = toml_file::read(&mut report, text)?.into_inner();
        overrides::lay_over(&mut report, &mut file, &ours);
        toml_file::check_table(&mut report, &keys::TOP, TomlTable(&file), 0..0);
        let config = tables::config(&mut report, TomlTable(&file));
        report.finish().map(|_| config)
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

/// The kind of store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// `"memory"`: gone with the process.
    Memory,
    /// `"redb"`: a file, for one process.
    Redb {
        /// `path`: the file.
        path: PathBuf,
    },
    /// `"dynamodb"`: shared by all processes. Region and endpoint come from the usual AWS sources.
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
        /// `api-key`: header names, lower case, in the order in which they are examined.
        headers: Vec<String>,
        /// `pepper`: keys of the hash, newest first. Never empty.
        peppers: Vec<PepperConfig>,
        /// `prefix`: the beginning of the keys that the service makes.
        prefix: Option<String>,
        /// `permissions`: what a key may do that was made without any of its own.
        permissions: Vec<String>,
        /// Whether the file names no way of identifying callers: this is the default one.
        is_default: bool,
    },
    /// Signed tokens.
    Jwt(JwtConfig),
    /// A header set by a gateway in front, trusted only from a peer in `[proxy] trust`, which is
    /// not empty then.
    Header {
        /// `header`: the name of the header with the tenant, lower case.
        tenant: String,
        /// `user-header`: the name of the header with the user, lower case.
        user: Option<String>,
    },
    /// The address, without a credential.
    Network {
        /// `network`: the ranges.
        networks: Vec<Network>,
        /// `tenant`: whose callers they are.
        tenant: String,
    },
    /// A claim verified by the host, or by the gateway that calls a Lambda function.
    Claim {
        /// `claim`: the name of the claim with the tenant.
        tenant: String,
        /// `user-claim`: the name of the claim with the user.
        user: Option<String>,
        /// `plan-claim`: the name of the claim with the tenant's plan.
        plan: Option<String>,
        /// `permissions-claim`: the name of the claim with what the caller may do.
        permissions: Option<String>,
    },
}

/// A key of the credential hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PepperConfig {
    /// `id`: stored beside each hash that was made with it. 1 to 16 characters of `a-z0-9`.
    pub id: String,
    /// The location of the key.
    pub secret: SecretRef,
    /// Whether the file names no `pepper`: this is the default one, which may be made.
    pub is_default: bool,
}

/// `jwt = { .. }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JwtConfig {
    /// `jwks` or `secret`: the verification keys.
    pub keys: JwtKeys,
    /// `issuer`: the required `iss`.
    pub issuer: String,
    /// `audience`: one of these must be in `aud`. Never empty.
    pub audience: Vec<String>,
    /// `tenant`: the claim that holds the tenant.
    pub tenant: String,
    /// `user`: the claim that holds the user, for limits `per user`.
    pub user: Option<String>,
    /// `plan`: the claim that holds the tenant's plan.
    pub plan: Option<String>,
    /// `permissions`: the claim that holds what the caller may do; `None`: `scope`, else `scp`.
    pub permissions: Option<String>,
}

/// The verification keys of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwtKeys {
    /// `jwks`: public keys (RFC 7517), at an `https` URL (or `http` on this machine) or in a file.
    Jwks(String),
    /// `secret`: a secret shared with the issuer, for HS256. At least 32 bytes (RFC 7518, section
    /// 3.2), which is checked when it is read.
    Secret(SecretRef),
}

/// `[identity]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdentityConfig {
    /// `unknown`: treatment of an unknown caller.
    pub unknown: OnUnknown,
    /// `no-scope`: treatment of a limit whose scope a caller lacks.
    pub no_scope: NoScope,
}

/// Treatment of a limit by a scope (`per user`) that a caller lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NoScope {
    /// `"tenant"`: it applies to all such callers of the tenant together.
    #[default]
    Tenant,
    /// `"refuse"`: the caller is refused with 403.
    Refuse,
    /// `"skip"`: it does not apply to them.
    Skip,
}

/// Treatment of an unknown caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnUnknown {
    /// `"reject"`: 401.
    Reject,
    /// `"create"`: a verified tenant that is new is created, on the default plan.
    Create,
    /// `"anonymous"`: it counts as the anonymous tenant.
    Anonymous,
}

/// `[proxy]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyConfig {
    /// `trust`: the proxies whose `X-Forwarded-For` counts.
    pub trust: Vec<Network>,
}

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(ipnet::IpNet);

/// With its prefix, even for one address: `10.0.0.0/8`, `192.0.2.7/32` (CIDR, RFC 4632).
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `[http]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HttpConfig {
    /// `billing-url`: the page for paying or upgrading; shown in refusals with 402.
    pub billing_url: Option<String>,
    /// `strip-prefix`: removed from each path before routes are matched, such as `/prod` where a
    /// gateway puts its stage there. Begins with `/` and does not end with it.
    pub strip_prefix: Option<String>,
    /// `limit-headers`: which limits responses name, and how.
    pub limit_headers: LimitHeaders,
}

/// `http.limit-headers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LimitHeaders {
    /// All that the request may meet.
    #[default]
    All,
    /// The nearest to its end alone.
    Nearest,
    /// The nearest as `X-RateLimit-*`, which resets at Unix seconds.
    Epoch,
    /// The same, in seconds from now.
    Delta,
    /// The same, at an RFC 3339 instant.
    Rfc3339,
    /// None.
    Off,
}

/// `[capacity]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapacityConfig {
    /// `requests`: most requests and other work in progress in a process.
    pub requests: u32,
    /// `kept`: the part of these that is kept for plans that pay.
    pub kept: u32,
}

/// `[metrics]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetricsConfig {
    /// `top-tenants`: so many tenants, those nearest to a limit, are labels of a metric.
    pub top_tenants: u32,
}

/// `[flush]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushConfig {
    /// `every`: how long a record waits for others.
    pub every: Duration,
    /// `mode`: the largest loss from a crash.
    pub mode: FlushMode,
    /// `journal-path`: the local journal, used in mode `journal`.
    pub journal_path: PathBuf,
    /// `max-write-units`: DynamoDB write units a second for this process's records.
    pub max_write_units: u32,
}

/// `[ingest]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IngestConfig {
    /// `token`: the bearer token for callers of `POST /usage`. Without it the route refuses all
    /// requests.
    pub token: Option<SecretRef>,
    /// `products`: the meter of each product code that events may name instead.
    pub products: std::collections::BTreeMap<String, String>,
}

/// `[decisions]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DecisionsConfig {
    /// `file`: the file that is written, of the newest lines.
    pub file: PathBuf,
    /// `admissions`: one in so many is logged; 0: none. Refusals all are.
    pub admissions: u32,
    /// `max-bytes`: of all files together.
    pub max_bytes: u64,
}

/// The largest loss from a crash of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushMode {
    /// `"fast"`: one flush interval.
    Fast,
    /// `"journal"`: records not yet in the local journal, at most 50 ms.
    Journal,
    /// `"durable"`: nothing; the answer waits for the record.
    Durable,
}

/// Whether it may name a destination of alerts.
pub(crate) fn is_destination(name: &str) -> bool {
    is_name(name, MAX_DESTINATION_CHARS, "-")
}

/// Whether it is 1 to `most` characters of `a-z0-9` and those in `also`.
fn is_name(name: &str, most: usize, also: &str) -> bool {
    let may = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c);
    (1..=most).contains(&name.len()) && name.chars().all(may)
}

#[cfg(test)]
mod tests;
