//! `infra`: what stands around a service in production.

use clap::{Args, Subcommand, ValueEnum};

/// `infra`.
#[derive(Debug, Subcommand)]
pub(crate) enum Infra {
    /// Print a template of the table, the schedule of reports to Stripe, and alarms on both
    Template {
        /// The tool that reads it
        #[arg(long, value_enum)]
        format: TemplateFormat,
        #[command(flatten)]
        of: OfTable,
    },
    /// Print the IAM policy of a role, with the rights that it uses and no others
    Iam(Iam),
    /// Check that the table is as the template makes it; exits with 7 on differences
    Status,
    /// Print a dashboard of the metrics
    Dashboard(Dashboard),
    /// Print alarms on metrics that are in CloudWatch, for CloudFormation
    Alarms {
        /// The namespace that the metrics are in
        #[arg(long, default_value = "tallygate")]
        namespace: String,
    },
}

/// `infra dashboard`.
#[derive(Debug, Args)]
pub(crate) struct Dashboard {
    /// The tool that shows it
    #[arg(long, value_enum)]
    pub(crate) format: DashboardFormat,
    /// The namespace that the metrics are in, in CloudWatch
    #[arg(long, default_value = "tallygate")]
    pub(crate) namespace: String,
    /// The region of CloudWatch
    #[arg(long, value_parser = region, required_if_eq("format", "cloudwatch"))]
    pub(crate) region: Option<String>,
}

fn region(text: &str) -> Result<String, &'static str> {
    let is_one = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_region = !text.is_empty() && text.chars().all(is_one);
    is_region.then(|| text.to_owned()).ok_or("as in eu-central-1")
}

/// The format of a dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DashboardFormat {
    /// Grafana, over Prometheus
    Grafana,
    /// CloudWatch, as `put-dashboard` takes it
    Cloudwatch,
}

/// The table that a template or a policy is about.
#[derive(Clone, Debug, Args)]
pub(crate) struct OfTable {
    /// The table; the one of the service file if it is left out
    #[arg(long, value_name = "NAME")]
    pub(crate) table: Option<String>,
}

/// The format of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TemplateFormat {
    /// AWS CloudFormation
    Cloudformation,
    /// Terraform, with the provider `hashicorp/aws`
    Terraform,
    /// AWS SAM, with the function that reports
    Sam,
}

/// `infra iam`.
#[derive(Debug, Args)]
pub(crate) struct Iam {
    /// The role
    #[arg(long, value_enum)]
    pub(crate) role: IamRole,
    #[command(flatten)]
    pub(crate) of: OfTable,
    /// The table's region
    #[arg(long, default_value = "*")]
    pub(crate) region: String,
    /// The table's account, 12 digits
    #[arg(long, default_value = "*")]
    pub(crate) account: String,
    /// The partition of AWS: aws-cn, aws-us-gov
    #[arg(long, default_value = "aws")]
    pub(crate) partition: String,
    /// Your key that encrypts the table
    #[arg(long, value_name = "ARN")]
    pub(crate) kms_key: Option<String>,
    /// The function that reports, for the role `schedule`
    #[arg(long, value_name = "ARN", required_if_eq("role", "schedule"))]
    pub(crate) function: Option<String>,
    /// The queue of invocations that were not delivered, for the role `schedule`
    #[arg(long, value_name = "ARN", required_if_eq("role", "schedule"))]
    pub(crate) queue: Option<String>,
}

/// Who has the rights of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IamRole {
    /// Each process with a gate: a server, a function, a reporter, the commands on tenants
    Service,
    /// The schedule that invokes the function which reports
    Schedule,
    /// A program that makes the table with `DynamoDb::create_table`
    Setup,
    /// `infra status`: reads no item
    Status,
}
