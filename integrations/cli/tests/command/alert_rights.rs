//! The rights that a service needs to send alerts to SNS and EventBridge.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use test_support::skips::needed;

use crate::home::Home;
use crate::infra::linter;

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:alerts";

/// With a topic in a variable, and a bus.
const SERVICE: &str = "[[notify]]\nname = \"topic\"\nsns = { env = \"ALERTS_TOPIC\" }\n\
                       [[notify]]\neventbridge = \"ops\"\n";

fn statements(policy: &Value) -> Vec<(String, Value)> {
    let all = policy["Statement"].as_array().unwrap().iter();
    let of_alerts = all.filter(|it| !it["Action"].to_string().contains("dynamodb:"));
    of_alerts
        .map(|it| (it["Action"].as_str().unwrap().to_owned(), it["Resource"].clone()))
        .collect()
}

#[test]
fn the_policy_of_a_service_lets_it_send_to_what_its_file_names_and_no_more() {
    let mut home = Home::empty();
    let iam = |home: &Home, role: &str| {
        let of = ["--region", "eu-west-1", "--account", "123456789012", "--json"];
        statements(&home.run(&[&["infra", "iam", "--role", role][..], &of].concat()).json())
    };
    assert!(iam(&home, "service").is_empty());
    home.write("tallygate.toml", SERVICE);
    let said = home.run(&["infra", "iam", "--role", "service"]).fails(3);
    assert!(said.contains("ALERTS_TOPIC is not set"), "{said}");
    home.set("ALERTS_TOPIC", TOPIC);
    let bus = "arn:aws:events:eu-west-1:123456789012:event-bus/ops";
    let both =
        [("sns:Publish".to_owned(), json!([TOPIC])), ("events:PutEvents".to_owned(), json!([bus]))];
    assert_eq!(iam(&home, "service"), both);
    assert!(iam(&home, "status").is_empty() && iam(&home, "setup").is_empty());
    home.write("tallygate.toml", &format!("[[notify]]\neventbridge = \"{bus}\"\n"));
    assert_eq!(iam(&home, "service"), both[1..]);
}

#[test]
fn the_function_of_a_template_has_these_rights_too() {
    let mut home = Home::empty();
    home.set("ALERTS_TOPIC", TOPIC);
    let sam = ["infra", "template", "--format", "sam"];
    let plain = home.run(&sam).ok();
    home.write("tallygate.toml", SERVICE);
    let text = home.run(&sam).ok();
    let before: BTreeSet<_> = plain.lines().collect();
    let added: Vec<_> = text.lines().filter(|line| !before.contains(line)).map(str::trim).collect();
    let bus = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/ops";
    let expected = [
        "- Sid: Publish".to_owned(),
        "Action: sns:Publish".to_owned(),
        "Resource:".to_owned(),
        format!("- {TOPIC}"),
        "- Sid: PutEvents".to_owned(),
        "Action: events:PutEvents".to_owned(),
        "Resource:".to_owned(),
        format!("- !Sub {bus}"),
    ];
    assert_eq!(added, expected);
    assert!(!plain.contains('%') && !text.contains('%'), "a name that was not filled in");

    let test = "alert_rights::the_function_of_a_template_has_these_rights_too";
    let Some(linter) = needed(test, linter()) else { return };
    home.write("template.yaml", &text);
    let mut lint = std::process::Command::new("python3");
    lint.arg(linter.join("bin/cfn-lint")).arg(home.path("template.yaml"));
    let ran = lint.env("PYTHONPATH", &linter).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}
