//! `infra iam`. The files in `policies/` are what each role uses.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{AlertTargets, Names, alert_targets, check_arn, check_name, names, print_document};
use crate::args::{Iam, IamRole};
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::Output;
use crate::settings::Settings;

pub(super) fn run(out: Output, settings: &Settings, how: &Iam) -> Ran {
    let names = names(settings, &how.of);
    let text = match how.role {
        IamRole::Service => include_str!("policies/service.json"),
        IamRole::Schedule => include_str!("policies/schedule.json"),
        IamRole::Setup => include_str!("policies/setup.json"),
        IamRole::Status => include_str!("policies/status.json"),
    };
    let arns = [how.function.as_ref(), how.queue.as_ref(), how.kms_key.as_ref()];
    arns.into_iter().flatten().try_for_each(|arn| check_arn(arn))?;
    let text = text
        .replace("%TABLE_ARN%", &table_arn(&names, how)?)
        .replace("%SPACE%", &names.space)
        .replace("%FUNCTION_ARN%", how.function.as_deref().unwrap_or_default())
        .replace("%QUEUE_ARN%", how.queue.as_deref().unwrap_or_default());
    let broken = |error: serde_json::Error| Failure::new(code::FAILURE, error.to_string());
    let mut policy: Value = serde_json::from_str(&text).map_err(broken)?;
    if how.role == IamRole::Service
        && let Some(statements) = policy["Statement"].as_array_mut()
    {
        let AlertTargets { topics, buses } = alert_targets(settings)?;
        let buses = buses.iter().map(|bus| bus_arn(bus, how)).collect::<Result<_, _>>()?;
        statements.extend(alert_statement("Publish", "sns:Publish", topics));
        statements.extend(alert_statement("PutEvents", "events:PutEvents", buses));
    }
    // Who looks at the table alone reads nothing that is encrypted.
    let uses_key = matches!(how.role, IamRole::Service | IamRole::Setup);
    if let (Some(key), true) = (&how.kms_key, uses_key)
        && let Some(statements) = policy["Statement"].as_array_mut()
    {
        statements.push(key_statement(key));
    }
    print_document(out, &policy)
}

/// The table, in the region and the account that were said.
fn table_arn(names: &Names, how: &Iam) -> Result<String, Failure> {
    if names.table.starts_with("arn:") {
        check_arn(&names.table)?;
        return Ok(names.table.clone());
    }
    check_name(&names.table)?;
    arn(how, "dynamodb", &format!("table/{}", names.table))
}

/// An event bus there.
fn bus_arn(bus: &str, how: &Iam) -> Result<String, Failure> {
    if bus.starts_with("arn:") {
        return Ok(bus.to_owned());
    }
    arn(how, "events", &format!("event-bus/{bus}"))
}

fn arn(how: &Iam, service: &str, what: &str) -> Result<String, Failure> {
    let Iam { region, account, partition, .. } = how;
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if region != "*" && !is_word(region) || !is_word(partition) {
        return Err(Failure::usage("a region is one of AWS: --region eu-central-1"));
    }
    if account != "*" && !(account.len() == 12 && account.bytes().all(|it| it.is_ascii_digit())) {
        return Err(Failure::usage("an account has 12 digits: --account 123456789012"));
    }
    Ok(format!("arn:{partition}:{service}:{region}:{account}:{what}"))
}

/// What sending alerts there needs; `None`: none goes there.
fn alert_statement(sid: &str, action: &str, to: BTreeSet<String>) -> Option<Value> {
    let statement = json!({ "Sid": sid, "Effect": "Allow", "Action": action, "Resource": to });
    (!to.is_empty()).then_some(statement)
}

/// What DynamoDB needs of a key of one's own, in the name of its caller: the least that its
/// documentation names.
fn key_statement(key: &str) -> Value {
    json!({
        "Sid": "Key",
        "Effect": "Allow",
        "Action": [
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:Encrypt",
            "kms:GenerateDataKey*",
            "kms:ReEncrypt*"
        ],
        "Resource": key,
        "Condition": { "StringLike": { "kms:ViaService": "dynamodb.*.amazonaws.com" } }
    })
}
