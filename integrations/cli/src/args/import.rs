//! `import`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Write;

/// `import`.
#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Tenants from a CSV file, with their plans, accounts and existing API keys
    Csv {
        /// The file, with a heading: tenant, plan, account, key, key_sha256, key_name
        file: PathBuf,
        #[command(flatten)]
        how: ImportHow,
    },
    /// API Gateway's usage plans as a plan file; with --keys tenants and their API keys
    ApiGateway(ApiGateway),
    /// The numbers of a `GovernorConfigBuilder` as a plan file
    TowerGovernor(Governor),
}

/// What an import of tenants takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct ImportHow {
    /// Leave rows out that are wrong, and import the others; exits with 7 if there are any
    #[arg(long)]
    pub(crate) skip_wrong: bool,
    #[command(flatten)]
    pub(crate) write: Write,
}

/// `import api-gateway`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ApiGateway {
    /// What `aws apigateway get-usage-plans` prints
    #[arg(long, value_name = "FILE")]
    pub(crate) usage_plans: PathBuf,
    /// Write the plan file here, where none is yet, instead of to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "keys")]
    pub(crate) output: Option<PathBuf>,
    /// Import these keys: what `aws apigateway get-api-keys --include-values` prints, or a file in
    /// the form `name,key,description,enabled,usageplanIds`
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// The keys of a usage plan, for which `get-api-keys` has no place: its id, and what
    /// `get-usage-plan-keys` prints; several times for several
    #[arg(long, value_name = "ID=FILE", requires = "keys", value_parser = plan_keys)]
    pub(crate) plan_keys: Vec<(String, PathBuf)>,
    /// The plan of keys that are in no usage plan
    #[arg(long, value_name = "NAME", requires = "keys")]
    pub(crate) plan: Option<String>,
    /// Whose a key is
    #[arg(long, value_enum, requires = "keys", default_value_t = TenantFrom::Name)]
    pub(crate) tenant_from: TenantFrom,
    #[command(flatten)]
    pub(crate) how: ImportHow,
}

/// Whose a key of API Gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TenantFrom {
    /// The tenant with the key's name, which no other key has
    Name,
    /// The tenant with the key's `customerId`, which may have several
    CustomerId,
    /// The tenant with the key's `id`
    Id,
}

/// `import tower-governor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Governor {
    /// The number in `.per_second(..)`: seconds for one request
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(required_unless_present_any = ["per_millisecond", "per_nanosecond"])]
    pub(crate) per_second: Option<u64>,
    /// The number in `.per_millisecond(..)`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(conflicts_with = "per_second")]
    pub(crate) per_millisecond: Option<u64>,
    /// The number in `.per_nanosecond(..)`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(conflicts_with_all = ["per_second", "per_millisecond"])]
    pub(crate) per_nanosecond: Option<u64>,
    /// The number in `.burst_size(..)`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) burst_size: u32,
    /// The plan's name
    #[arg(long, value_name = "NAME", default_value = "anyone")]
    pub(crate) plan: String,
    /// Whose limit it is
    #[arg(long, value_enum, default_value_t = Per::Ip)]
    pub(crate) per: Per,
    /// Write the plan file here, where none is yet, instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// The scope of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Per {
    /// Each address: `PeerIpKeyExtractor`, `SmartIpKeyExtractor`
    Ip,
    /// Each API key
    Key,
    /// Each user
    User,
    /// All callers of a tenant together: `GlobalKeyExtractor`
    Tenant,
}

impl Per {
    /// Its words behind a rate.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Ip => " per ip",
            Self::Key => " per key",
            Self::User => " per user",
            Self::Tenant => "",
        }
    }
}

fn plan_keys(text: &str) -> Result<(String, PathBuf), String> {
    let parts = text.split_once('=').filter(|(id, file)| !id.is_empty() && !file.is_empty());
    let (id, file) = parts.ok_or("write the usage plan's id and a file: c7y23b=keys.json")?;
    Ok((id.to_owned(), file.into()))
}
