//! docs/deploy.md: its files parse, leave enough time to end, and hold what the page says of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tallygate::{CLOSE_WITHIN, GateBuilder};

const PAGE: &str = include_str!("../../../../docs/deploy.md");
const DYNAMODB: &str = include_str!("../../../../examples/deploy/kubernetes-dynamodb.yaml");
const REDB: &str = include_str!("../../../../examples/deploy/kubernetes-redb.yaml");
const ECS: &str = include_str!("../../../../examples/deploy/ecs-task.json");
const UNIT: &str = include_str!("../../../../examples/deploy/acme-api.service");

/// What `tallygate_axum::serve` gives requests in flight.
fn drain() -> Duration {
    const SERVE: &str = include_str!("../../../../integrations/axum/src/serve.rs");
    let (_, after) = SERVE.split_once("DRAIN_WITHIN: Duration = Duration::from_secs(").unwrap();
    Duration::from_secs(after.split_once(')').unwrap().0.parse().unwrap())
}

/// What a platform has to wait for after its signal.
fn needed() -> Duration {
    drain() + CLOSE_WITHIN
}

fn resources(yaml: &str) -> Vec<Value> {
    yaml.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect()
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    all.iter().find(|it| it["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn pods_have_time_to_end_and_are_asked_what_they_answer() {
    for (yaml, kind) in [(DYNAMODB, "Deployment"), (REDB, "StatefulSet")] {
        let all = resources(yaml);
        let workload = of_kind(&all, kind);
        let pod = &workload["spec"]["template"]["spec"];
        let api = &pod["containers"][0];
        let before =
            Duration::from_secs(api["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap());
        let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
        assert!(
            grace > before + needed(),
            "{kind}: {grace:?} is not {before:?} and {:?}",
            needed()
        );
        assert_eq!(api["readinessProbe"]["httpGet"]["path"], "/readyz");
        for probe in ["startupProbe", "livenessProbe"] {
            assert_eq!(api[probe]["httpGet"]["path"], "/livez", "asks for no store");
        }
        let start = &api["startupProbe"];
        let opens =
            start["periodSeconds"].as_u64().unwrap() * start["failureThreshold"].as_u64().unwrap();
        assert!(opens >= 40, "an opening gate waits 20 s for each step of the store");
        for variable in api["env"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            let is_secret = ["PEPPER", "KEY", "SECRET"].iter().any(|it| name.contains(it));
            let from = variable["valueFrom"]["secretKeyRef"].is_object();
            assert_eq!(from, is_secret, "{name}");
        }
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels);
    }
}

#[test]
fn one_process_has_the_file_and_its_volume() {
    let all = resources(REDB);
    let set = of_kind(&all, "StatefulSet");
    assert_eq!(set["spec"]["replicas"], 1);
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["spec"]["accessModes"][0], "ReadWriteOncePod");
    let mounts = &set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"];
    let mounts = mounts.as_array().unwrap();
    let mount = mounts.iter().find(|it| it["name"] == claim["metadata"]["name"]).unwrap();
    let config: toml::Table = config(&all, "tallygate.toml").parse().unwrap();
    let path = config["store"]["path"].as_str().unwrap();
    assert!(path.starts_with(mount["mountPath"].as_str().unwrap()), "{path}");
    for mount in mounts {
        assert!(mount.get("subPath").is_none(), "such a file is never updated");
    }
}

fn config<'a>(all: &'a [Value], file: &str) -> &'a str {
    of_kind(all, "ConfigMap")["data"][file].as_str().unwrap()
}

/// A gate opens from each ConfigMap, in memory: the tables and files are elsewhere.
#[tokio::test]
async fn gates_open_from_what_is_mounted() {
    for yaml in [DYNAMODB, REDB] {
        let all = resources(yaml);
        let mut service: toml::Table = config(&all, "tallygate.toml").parse().unwrap();
        // As written it is a legal file, and its store is not here.
        let written = GateBuilder::from_text(&toml::to_string(&service).unwrap());
        written.dynamodb_table().unwrap();
        service.insert("store".into(), toml::toml! { kind = "memory" }.into());
        service.remove("flush");
        let builder = GateBuilder::from_text(&toml::to_string(&service).unwrap()).work_only();
        let gate = builder.plans(config(&all, "plans.toml")).open().await.unwrap();
        gate.close().await.unwrap();
    }
}

#[test]
fn the_task_has_time_to_end_and_no_secret_in_it() {
    let task: Value = serde_json::from_str(ECS).unwrap();
    let api = &task["containerDefinitions"][0];
    let stop = Duration::from_secs(api["stopTimeout"].as_u64().unwrap());
    assert!(stop > needed() && stop <= Duration::from_secs(120), "Fargate waits for 2 minutes");
    for variable in api["environment"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        assert!(name.starts_with("TALLYGATE__"), "{name}");
    }
    for secret in api["secrets"].as_array().unwrap() {
        assert!(secret["valueFrom"].as_str().unwrap().starts_with("arn:aws:secretsmanager:"));
    }
}

#[test]
fn the_unit_has_time_to_end_and_is_one_of_systemd() {
    let value = |key: &str| {
        UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap()
    };
    let stop = Duration::from_secs(value("TimeoutStopSec").parse().unwrap());
    assert!(stop > needed(), "{stop:?}");
    assert_eq!(value("EnvironmentFile"), "/etc/acme-api/secrets.env");
    for key in ["NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "DynamicUser"] {
        assert_eq!(value(key), "yes", "{key}");
    }
    assert_eq!(value("ProtectSystem"), "strict");
    assert!(!UNIT.contains("TALLYGATE_PEPPER="), "a unit is for all to read");
    for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let keys = line.split('`').skip(1).step_by(2).filter_map(|it| it.strip_suffix('='));
        keys.for_each(|key| assert!(UNIT.contains(&format!("\n{key}=")), "no {key}="));
    }
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("acme-api.service");
    let runs = UNIT.replace("ExecStart=/usr/local/bin/acme-api", "ExecStart=/bin/true");
    std::fs::write(&path, runs).unwrap();
    // A machine without systemd has read the file above all the same.
    if let Some(said) = verified(&path) {
        assert_eq!(said, "");
    }
}

/// What `systemd-analyze verify` says of a unit; `None` where it is not there.
fn verified(unit: &Path) -> Option<String> {
    let ran = Command::new("systemd-analyze").arg("verify").arg(unit).output().ok()?;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    // Complaints about units of this machine are not ours.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("acme-api")).collect();
    Some(ours.join("\n"))
}
