//! `infra alarms`: a CloudFormation template of [`ALARMS`], for metrics that are in CloudWatch.

use serde_json::{Map, Value, json};

use super::dashboard::query;
use super::print_document;
use super::watched::{ALARMS, Alarm, Over};
use crate::commands::Ran;
use crate::output::Output;

pub(super) fn run(out: Output, namespace: &str) -> Ran {
    super::check_namespace(namespace)?;
    let alarms = ALARMS.iter().map(|alarm| (alarm.id.to_owned(), resource(alarm, namespace)));
    print_document(
        out,
        &json!({
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": "Alarms on the metrics of tallygate",
            "Parameters": {
                "AlarmTopicArn": {
                    "Type": "String",
                    "Default": "",
                    "Description": "The SNS topic of alarms; empty for alarms without one",
                },
            },
            "Conditions": {
                "HasTopic": { "Fn::Not": [{ "Fn::Equals": [{ "Ref": "AlarmTopicArn" }, ""] }] },
            },
            "Resources": Map::from_iter(alarms),
        }),
    )
}

fn resource(alarm: &Alarm, namespace: &str) -> Value {
    let over = match alarm.over {
        Over::Max => "MAX",
        Over::Sum => "SUM",
    };
    json!({
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmDescription": format!("{}. See docs/runbook.md#{}", alarm.says, alarm.symptom),
            "Metrics": [{
                "Id": "q1",
                "Expression": query(over, alarm.metric, namespace, alarm.only),
                "Period": alarm.period_s,
                "ReturnData": true,
            }],
            "EvaluationPeriods": alarm.periods,
            "Threshold": alarm.above,
            "ComparisonOperator": "GreaterThanThreshold",
            // A process that says nothing is the business of what restarts it.
            "TreatMissingData": "notBreaching",
            "AlarmActions": {
                "Fn::If": ["HasTopic", [{ "Ref": "AlarmTopicArn" }], { "Ref": "AWS::NoValue" }],
            },
        },
    })
}
