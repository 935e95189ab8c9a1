//! The table of production: what its templates make is what the library makes, what asks for rights
//! has them in a policy, and `infra status` says what differs.
//!
//! The tests' own clients also put foreign items, delete tables and look at them: rights of the
//! operator's hand, in no policy.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, ProvisionedThroughput, TableDescription,
    TimeToLiveSpecification,
};
use serde_json::Value;
use tallygate::store::{self, Change, DynamoDb, Key, Store, When, Write};
use test_support::skips::needed;

use crate::home::Home;
use crate::infra::linter;
use crate::recorder::Recorder;

pub(crate) async fn client(endpoint: &str) -> Client {
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("x", "y", None, None, "test"));
    Client::new(&config.load().await)
}

/// A folder with the service of a table at this endpoint.
fn home(endpoint: &str, table: &str) -> Home {
    let mut home = Home::empty();
    home.set("AWS_ENDPOINT_URL_DYNAMODB", endpoint);
    home.set("AWS_REGION", "us-east-1");
    home.set("AWS_ACCESS_KEY_ID", "x");
    home.set("AWS_SECRET_ACCESS_KEY", "x");
    home.set("TALLYGATE_PEPPER", &"ab".repeat(32));
    home.run(&["init"]).ok();
    home.write("tallygate.toml", &format!("[store]\nkind = \"dynamodb\"\ntable = \"{table}\"\n"));
    home
}

/// The actions of a role's policy.
fn rights(role: &str) -> BTreeSet<String> {
    let mut args = vec!["infra", "iam", "--role", role, "--json"];
    if role == "schedule" {
        args.extend(["--function", "arn:aws:lambda:us-east-1:123456789012:function:report"]);
        args.extend(["--queue", "arn:aws:sqs:us-east-1:123456789012:undelivered"]);
    }
    let policy = Home::empty().run(&args).json();
    let actions = |statement: &Value| match &statement["Action"] {
        Value::Array(all) => all.iter().map(|it| it.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    };
    policy["Statement"].as_array().unwrap().iter().flat_map(actions).collect()
}

/// Each role does all that it can do, and nothing that its policy lacks is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn each_role_uses_the_rights_of_its_policy_and_no_others() {
    let test = "table::each_role_uses_the_rights_of_its_policy_and_no_others";
    let Some(server) = needed(test, dynamodb_local::shared()) else { return };
    let wire = Recorder::before(server.endpoint()).await;
    let sdk = client(wire.endpoint()).await;

    DynamoDb::create_table(&sdk, "rights", None).await.unwrap();
    assert_eq!(wire.take_operations(), rights("setup"));

    let home = home(wire.endpoint(), "rights");
    for args in [
        &["tenant", "create", "acme", "--plan", "pro"][..],
        &["key", "create", "acme"],
        &["usage", "record", "acme", "requests", "5", "--id", "e1"],
        &["usage", "show", "acme"],
        &["tenant", "history", "acme"],
        &["doctor"],
    ] {
        home.run(args).ok();
    }
    // What a gate removes: other stores' items that have expired, and here by hand.
    let store = DynamoDb::new(sdk.clone(), "rights");
    let key = Key { pk: "1#default#x".into(), sk: "-".into() };
    for (when, change) in [
        (When::Absent, Change::Set("n".into(), store::Value::Int(1))),
        (When::Exists, Change::Delete),
    ] {
        store
            .write(Write { key: key.clone(), when: vec![when], change: vec![change] })
            .await
            .unwrap();
    }
    assert_eq!(wire.take_operations(), rights("service"));
    let foreign: Vec<_> =
        wire.keys().into_iter().filter(|key| !key.starts_with("1#default#")).collect();
    assert!(foreign.is_empty(), "outside of dynamodb:LeadingKeys: {foreign:?}");

    home.run(&["infra", "status"]);
    assert_eq!(wire.take_operations(), rights("status"));
}

/// What `.ci/run` does with the calls of all tests: what is missing in a policy, what is not used
/// of one, and what is outside of `dynamodb:LeadingKeys`.
#[test]
fn calls_are_held_against_the_policies_both_ways() {
    use dynamodb_local::rights::faults;
    use dynamodb_local::wire::Call;
    let call = |by: &str, operation: &str| Call {
        by: by.to_owned(),
        operation: operation.trim_start_matches("dynamodb:").to_owned(),
        is_foreign: false,
    };
    let roles = ["service", "setup", "status"];
    let of = |role: &str| rights(role).iter().map(|it| call(role, it)).collect::<Vec<_>>();
    let all: BTreeSet<Call> = roles.into_iter().flat_map(of).collect();
    assert_eq!(faults(&all), [""; 0]);

    let with = |more: Call| faults(&all.iter().cloned().chain([more]).collect());
    assert!(with(call("service", "Scan"))[0].contains("dynamodb:Scan is used by service"));
    assert!(with(call("x", "BatchGetItem"))[0].contains("no right of any"));
    assert_eq!(with(call("x", "Scan")), [""; 0], "by a test's hand");
    let foreign = Call { is_foreign: true, ..call("service", "GetItem") };
    assert!(with(foreign.clone())[0].contains("outside of LeadingKeys"));
    assert_eq!(with(Call { by: "x".to_owned(), ..foreign }), [""; 0], "a law of stores");
    for unused in &all {
        let rest: BTreeSet<_> = all.iter().filter(|it| *it != unused).cloned().collect();
        let is_shared = rest.iter().any(|it| it.operation == unused.operation);
        let found = faults(&rest);
        let says = |it: &String| it.contains(&*unused.operation) && it.contains("not used");
        assert!(found.iter().any(says) || is_shared, "{unused:?}: {found:?}");
    }
}

/// The schedule's rights are AWS's to use: nothing of ours calls them. Each template gives them,
/// and SAM's function those of the service.
#[test]
fn templates_give_the_rights_of_the_policies() {
    let home = Home::empty();
    let named = |format: &str, of: &str| -> BTreeSet<String> {
        let text = home.run(&["infra", "template", "--format", format]).ok();
        let action = regex::Regex::new(&format!("\\b({of}):[A-Z][A-Za-z]+")).unwrap();
        let named = action.find_iter(&text).map(|it| it.as_str().to_owned());
        named.filter(|it| it != "dynamodb:LeadingKeys").collect() // a condition
    };
    for format in ["cloudformation", "terraform"] {
        assert_eq!(named(format, "lambda|sqs"), rights("schedule"), "{format}");
    }
    let of_service: BTreeSet<_> = rights("service");
    assert_eq!(named("sam", "dynamodb"), of_service);
}

/// What ships names these operations of the SDK, and each is in a policy: also those that no
/// session above comes to.
#[test]
fn no_operation_of_the_sdk_is_without_a_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let call = regex::Regex::new(r"client\.([a-z_]+)\(\)").unwrap();
    let mut called = BTreeSet::new();
    for folder in ["src/store/dynamodb", "integrations/cli/src", "integrations/lambda/src"] {
        each_source(&root.join(folder), &mut |text| {
            let flat: String = text.split_whitespace().collect();
            called.extend(call.captures_iter(&flat).map(|it| it[1].to_owned()));
        });
    }
    let snake = |action: &String| {
        let name = action.trim_start_matches("dynamodb:");
        let words = name.chars().flat_map(|c| {
            let before = if c.is_ascii_uppercase() { "_" } else { "" };
            before.chars().chain([c.to_ascii_lowercase()])
        });
        String::from_iter(words).trim_start_matches('_').to_owned()
    };
    let allowed: BTreeSet<_> = ["service", "setup", "status"]
        .iter()
        .flat_map(|role| rights(role).iter().map(snake).collect::<Vec<_>>())
        .collect();
    called.retain(|it| !["clone", "config"].contains(&it.as_str())); // they ask for nothing
    assert_eq!(called, allowed);
}

fn each_source(folder: &Path, see: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_source(&path, see);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            if !text.contains("aws_sdk_dynamodb") {
                continue; // its client is a service's, and not a table's
            }
            see(text.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
}

/// A table as a hand makes it that knows its keys alone.
async fn bare(client: &Client, table: &str, props: &Value, mode: BillingMode) {
    let mut call = client.create_table().table_name(table).billing_mode(mode.clone());
    for key in props["KeySchema"].as_array().unwrap() {
        let element = KeySchemaElement::builder().attribute_name(text(&key["AttributeName"]));
        call = call.key_schema(element.key_type(text(&key["KeyType"]).into()).build().unwrap());
    }
    for attribute in props["AttributeDefinitions"].as_array().unwrap() {
        let name = AttributeDefinition::builder().attribute_name(text(&attribute["AttributeName"]));
        let of = text(&attribute["AttributeType"]).into();
        call = call.attribute_definitions(name.attribute_type(of).build().unwrap());
    }
    if mode == BillingMode::Provisioned {
        let units = ProvisionedThroughput::builder().read_capacity_units(1).write_capacity_units(1);
        call = call.provisioned_throughput(units.build().unwrap());
    }
    if let Some(protected) = props["DeletionProtectionEnabled"].as_bool() {
        call = call.deletion_protection_enabled(protected);
    }
    call.send().await.unwrap();
}

fn text(of: &Value) -> &str {
    of.as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_how_a_table_differs_and_how_to_change_it() {
    let test = "table::status_says_how_a_table_differs_and_how_to_change_it";
    let Some(server) = needed(test, dynamodb_local::shared()) else { return };
    let sdk = client(server.endpoint()).await;
    let keys = serde_json::json!({
        "KeySchema": [
            { "AttributeName": "pk", "KeyType": "HASH" },
            { "AttributeName": "sk", "KeyType": "RANGE" },
        ],
        "AttributeDefinitions": [
            { "AttributeName": "pk", "AttributeType": "S" },
            { "AttributeName": "sk", "AttributeType": "S" },
        ],
    });
    bare(&sdk, "differs", &keys, BillingMode::Provisioned).await;
    let home = home(server.endpoint(), "differs");
    let states = || -> Vec<(String, String)> {
        let ran = home.run(&["infra", "status", "--json"]);
        assert_eq!(ran.code, 7, "{}{}", ran.stdout, ran.stderr);
        let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|it| (text(&it["check"]).to_owned(), text(&it["state"]).to_owned())).collect()
    };
    let troubles = || -> Vec<String> {
        states().into_iter().filter(|it| it.1 == "trouble").map(|it| it.0).collect()
    };
    let before = troubles();
    for check in ["expiry", "protection", "billing"] {
        assert!(before.iter().any(|it| it == check), "{check}: {before:?}");
    }
    // A server that knows of recovery says that it is off; one that does not, nothing.
    let recovery = states().into_iter().find(|it| it.0 == "recovery").unwrap().1;
    assert!(recovery == "trouble" || recovery == "left out", "{recovery}");

    let said = home.run(&["infra", "status"]).stdout;
    assert!(said.contains("aws dynamodb update-time-to-live --table-name differs"), "{said}");
    let by = TimeToLiveSpecification::builder().enabled(true).attribute_name("ttl");
    let by = by.build().unwrap();
    sdk.update_time_to_live()
        .table_name("differs")
        .time_to_live_specification(by)
        .send()
        .await
        .unwrap();
    assert!(!troubles().contains(&"expiry".to_owned()), "what it says was done");

    let keys = serde_json::json!({
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
    });
    bare(&sdk, "foreign", &keys, BillingMode::PayPerRequest).await;
    let foreign = crate::table::home(server.endpoint(), "foreign").run(&["infra", "status"]);
    assert_eq!(foreign.code, 7);
    assert!(
        foreign.stdout.contains("a table of other keys cannot be changed"),
        "{}",
        foreign.stdout
    );
}

/// A template as a document, by the parsers of the linter's folder. References stay as they are.
fn document(linter: &Path, format: &str) -> Value {
    const READ: &str = "
import json, sys
if sys.argv[1] == 'terraform':
    import hcl2
    print(json.dumps(hcl2.load(open(sys.argv[2]))))
else:
    from cfnlint.decode import cfn_yaml
    print(json.dumps(cfn_yaml.load(sys.argv[2])))
";
    let home = Home::empty();
    let text = home.run(&["infra", "template", "--format", format]).ok();
    home.write("template", &text);
    let mut python = Command::new("python3");
    python.args(["-c", READ, format]).arg(home.path("template")).env("PYTHONPATH", linter);
    let ran = python.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// What of a table's description is the template's to say.
fn said(table: &TableDescription) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut attributes: Vec<_> = table.attribute_definitions().to_vec();
    attributes.sort_by(|a, b| a.attribute_name.cmp(&b.attribute_name));
    let billing = table.billing_mode_summary().and_then(|it| it.billing_mode.clone());
    (table.key_schema().to_vec(), attributes, billing, table.deletion_protection_enabled)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_templates_table_is_the_one_that_the_library_makes() {
    let test = "table::the_templates_table_is_the_one_that_the_library_makes";
    let Some(linter) = needed(test, linter()) else { return };
    let Some(server) = needed(test, dynamodb_local::shared()) else { return };
    let wire = Recorder::before(server.endpoint()).await;
    let sdk = client(wire.endpoint()).await;
    DynamoDb::create_table(&sdk, "ours", None).await.unwrap();
    let backs_up = wire.take_operations().contains("dynamodb:UpdateContinuousBackups");
    let describe = async |table: &str| {
        let table = sdk.describe_table().table_name(table).send().await.unwrap().table.unwrap();
        said(&table)
    };
    for format in ["cloudformation", "sam"] {
        let template = document(&linter, format);
        let props = &template["Resources"]["Table"]["Properties"];
        assert_eq!(props["BillingMode"], "PAY_PER_REQUEST");
        bare(&sdk, format, props, BillingMode::PayPerRequest).await;
        assert_eq!(describe(format).await, describe("ours").await, "{format}");
        let expiry = sdk.describe_time_to_live().table_name("ours").send().await.unwrap();
        let by = expiry.time_to_live_description.unwrap().attribute_name.unwrap();
        assert_eq!(props["TimeToLiveSpecification"]["AttributeName"], by);
        assert_eq!(props["TimeToLiveSpecification"]["Enabled"], true);
        let recovery = &props["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
        assert_eq!(*recovery, backs_up);
    }
}

/// Terraform's words for CloudFormation's, and values as both write them.
#[test]
fn terraform_makes_what_cloudformation_makes() {
    let test = "table::terraform_makes_what_cloudformation_makes";
    let Some(linter) = needed(test, linter()) else { return };
    let (cfn, tf) = (document(&linter, "cloudformation"), document(&linter, "terraform"));
    let ours = |kind: &str, name: &str| -> Value {
        let all = tf["resource"].as_array().unwrap();
        let is_it = |it: &&Value| plain(&it[quoted(it, kind)]).get(name).is_some();
        let found = all.iter().find(|it| it.get(quoted(it, kind)).is_some() && is_it(it));
        let found = found.unwrap_or_else(|| panic!("no {kind} {name}"));
        plain(&found[quoted(found, kind)])[name].clone()
    };
    let props = |name: &str| &cfn["Resources"][name]["Properties"];

    let (table, theirs) = (ours("aws_dynamodb_table", "table"), props("Table"));
    assert_eq!(table["billing_mode"], theirs["BillingMode"]);
    assert_eq!(table["deletion_protection_enabled"], theirs["DeletionProtectionEnabled"]);
    assert_eq!(table["hash_key"], theirs["KeySchema"][0]["AttributeName"]);
    assert_eq!(table["range_key"], theirs["KeySchema"][1]["AttributeName"]);
    for n in 0..2 {
        let theirs = &theirs["AttributeDefinitions"][n];
        assert_eq!(table["attribute"][n]["name"], theirs["AttributeName"]);
        assert_eq!(table["attribute"][n]["type"], theirs["AttributeType"]);
    }
    assert_eq!(table["attribute"].as_array().unwrap().len(), 2);
    assert_eq!(
        table["ttl"][0]["attribute_name"],
        theirs["TimeToLiveSpecification"]["AttributeName"]
    );
    assert_eq!(table["ttl"][0]["enabled"], theirs["TimeToLiveSpecification"]["Enabled"]);
    let recovery = &theirs["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
    assert_eq!(&table["point_in_time_recovery"][0]["enabled"], recovery);

    for (id, name) in [
        ("TableThrottles", "table_throttles"),
        ("ReporterUndelivered", "reporter_undelivered"),
        ("ReporterFails", "reporter_fails"),
    ] {
        let (alarm, theirs) = (ours("aws_cloudwatch_metric_alarm", name), props(id));
        for (word, of) in [
            ("alarm_description", "AlarmDescription"),
            ("namespace", "Namespace"),
            ("metric_name", "MetricName"),
            ("statistic", "Statistic"),
            ("period", "Period"),
            ("evaluation_periods", "EvaluationPeriods"),
            ("threshold", "Threshold"),
            ("comparison_operator", "ComparisonOperator"),
            ("treat_missing_data", "TreatMissingData"),
        ] {
            assert_eq!(alarm[word], theirs[of], "{name}.{word}");
        }
    }

    let (queue, theirs) = (ours("aws_sqs_queue", "reporter"), props("ReporterQueue"));
    assert_eq!(queue["sqs_managed_sse_enabled"], theirs["SqsManagedSseEnabled"]);
    assert_eq!(queue["message_retention_seconds"], theirs["MessageRetentionPeriod"]);

    let (schedule, theirs) =
        (ours("aws_scheduler_schedule", "reporter"), &props("ReporterSchedule")["Target"]);
    let retry = &schedule["target"][0]["retry_policy"][0];
    let policy = &theirs["RetryPolicy"];
    assert_eq!(retry["maximum_event_age_in_seconds"], policy["MaximumEventAgeInSeconds"]);
    assert_eq!(retry["maximum_retry_attempts"], policy["MaximumRetryAttempts"]);
    assert_eq!(schedule["target"][0]["input"], theirs["Input"]);
    let default = &cfn["Parameters"]["ReportEvery"]["Default"];
    let variables = plain(&tf["variable"]);
    let every = variables.as_array().unwrap().iter().find_map(|it| it.get("report_every"));
    assert_eq!(&every.unwrap()["default"], default);
}

/// A name of the document: the parser leaves it in quotes.
fn quoted<'a>(of: &'a Value, name: &str) -> &'a str {
    let mut names = of.as_object().unwrap().keys();
    names.find(|it| it.trim_matches('"') == name).map_or("", String::as_str)
}

/// A document without the quotes that the parser leaves around its texts.
fn plain(of: &Value) -> Value {
    match of {
        Value::String(text) => Value::from(text.trim_matches('"')),
        Value::Array(all) => all.iter().map(plain).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, it)| (name.trim_matches('"').to_owned(), plain(it)))
            .collect(),
        other => other.clone(),
    }
}

/// A server with another clock, which has no such table.
async fn of_another_time(date: &'static str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}"#;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ndate: {date}\r\nconnection: close\r\n\
         content-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut read = [0; 64 * 1024];
                let _ = client.read(&mut read).await;
                let _ = client.write_all(answer.as_bytes()).await;
            });
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_apart_from_the_tables_is_found() {
    let endpoint = of_another_time("Thu, 01 Jan 2026 00:00:00 GMT").await;
    let (state, detail) = crate::doctor::check(&home(&endpoint, "none"), "clock", &[]);
    assert!(state == "trouble" && detail.contains(" s from the table's\n"), "{detail}");
}
