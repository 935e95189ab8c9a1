//! What `infra` prints, as the tools read it that it is for.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tallygate::telemetry::Metric;
use test_support::skips::needed;

use crate::home::Home;

/// AWS's own linter, from `tests/servers/get-cfn-lint`.
pub(crate) fn linter() -> Result<std::path::PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers/cfn-lint");
    root.canonicalize().map_err(|_| "run tests/servers/get-cfn-lint".to_owned())
}

#[test]
fn templates_pass_the_linter_of_aws() {
    let test = "infra::templates_pass_the_linter_of_aws";
    let Some(linter) = needed(test, linter()) else { return };
    let home = Home::empty();
    for of in [
        &["template", "--format", "cloudformation"][..],
        &["template", "--format", "sam"],
        &["alarms", "--namespace", "acme/api"],
    ] {
        let text = home.run(&[&["infra"], of].concat()).ok();
        home.write("template.yaml", &text);
        let mut lint = Command::new("python3");
        lint.arg(linter.join("bin/cfn-lint")).arg(home.path("template.yaml"));
        let ran = lint.env("PYTHONPATH", &linter).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{of:?}: {said}");
    }
}

const GRAFANA: [&str; 4] = ["infra", "dashboard", "--format", "grafana"];
const CLOUDWATCH: [&str; 6] =
    ["infra", "dashboard", "--format", "cloudwatch", "--region", "eu-central-1"];

#[test]
fn dashboards_and_alarms_name_metrics_of_the_code() {
    let home = Home::empty();
    let name = regex::Regex::new("tallygate_[a-z_]+").unwrap();
    for (args, all) in [(&GRAFANA[..], true), (&CLOUDWATCH, true), (&["infra", "alarms"], false)] {
        let text = home.run(args).ok();
        let named: BTreeSet<&str> = name
            .find_iter(&text)
            .map(|it| it.as_str())
            .map(|it| it.strip_suffix("_bucket").unwrap_or(it))
            .collect();
        let known: BTreeSet<&str> = Metric::ALL.iter().map(|it| it.name).collect();
        assert!(named.is_subset(&known), "{args:?}: {:?}", named.difference(&known));
        assert!(!named.is_empty());
        assert!(!all || named == known, "{args:?} lacks {:?}", known.difference(&named));
    }
}

/// It can be imported anywhere: nothing in it is of one installation.
#[test]
fn the_dashboard_of_grafana_can_be_imported() {
    let board = Home::empty().run(&[&GRAFANA[..], &["--json"]].concat()).json();
    assert!(board.get("uid").is_none() && board.get("id").is_none(), "it would replace another");
    let panels = board["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "twice: {panel}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|it| panel["gridPos"][it].as_u64().unwrap());
        assert!(x + w <= 24, "{panel}");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(place), "one panel over another: {panel}");
        }
        if panel["type"] != "row" {
            let expression = panel["targets"][0]["expr"].as_str().unwrap();
            let is_closed =
                |open, close| expression.matches(open).count() == expression.matches(close).count();
            assert!(is_closed('(', ')') && is_closed('{', '}'), "{expression}");
            assert!(expression.contains("{job=~\"$job\""), "{expression}");
        }
    }
    each_uid(&board, &mut |uid| assert_eq!(uid, "${datasource}"));
    let variables = board["templating"]["list"].as_array().unwrap();
    let source = variables.iter().find(|it| it["name"] == "datasource").unwrap();
    assert_eq!((&source["type"], &source["query"]), (&"datasource".into(), &"prometheus".into()));
}

/// Calls `see` with each `uid` in a document.
fn each_uid(of: &Value, see: &mut impl FnMut(&Value)) {
    match of {
        Value::Object(members) => members.iter().for_each(|(name, value)| match &**name {
            "uid" => see(value),
            _ => each_uid(value, see),
        }),
        Value::Array(all) => all.iter().for_each(|it| each_uid(it, see)),
        _ => {}
    }
}

#[test]
fn the_dashboard_of_cloudwatch_is_of_one_region_and_namespace() {
    let home = Home::empty();
    let board = home.run(&[&CLOUDWATCH[..], &["--namespace", "acme/api"]].concat()).json();
    for widget in board["widgets"].as_array().unwrap() {
        if widget["type"] == "metric" {
            assert_eq!(widget["properties"]["region"], "eu-central-1");
            let query = widget["properties"]["metrics"][0][0]["expression"].as_str().unwrap();
            assert!(query.contains(" FROM \"acme/api\""), "{query}");
        }
    }
    home.run(&CLOUDWATCH[..4]).fails(2);
    for namespace in ["", "a\"b", "AWS/Lambda"] {
        let says = home.run(&["infra", "alarms", "--namespace", namespace]).fails(2);
        assert!(says.contains("help: 1 to 255 characters"), "{says}");
    }
}
