//! The same commands on a DynamoDB table, which other processes may have open.

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;
use tallygate::store::DynamoDb;
use test_support::skips::needed;

use crate::home::Home;

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_usage_are_in_the_table() {
    let here = dynamodb_local::shared();
    let test = "dynamodb::tenants_and_usage_are_in_the_table";
    let Some(server) = needed(test, here) else { return };
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .endpoint_url(server.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("x", "y", None, None, "test"));
    let client = Client::new(&config.load().await);
    DynamoDb::create_table(&client, "cli", None).await.unwrap();

    let mut home = Home::empty();
    home.set("AWS_ENDPOINT_URL_DYNAMODB", server.endpoint());
    home.set("AWS_REGION", "us-east-1");
    home.set("AWS_ACCESS_KEY_ID", "x");
    home.set("AWS_SECRET_ACCESS_KEY", "x");
    home.set("TALLYGATE_PEPPER", &"ab".repeat(32));
    home.run(&["init"]).ok();
    home.write("tallygate.toml", "[store]\nkind = \"dynamodb\"\ntable = \"cli\"\n");
    home.run(&["tenant", "create", "acme", "--plan", "pro"]).ok();
    home.run(&["key", "create", "acme"]).ok();
    let long = "p".repeat(64);
    let two = ["--permission", "items:write", "--permission", &long];
    home.run(&[&["key", "create", "acme", "--name", "ci"][..], &two].concat()).ok();
    // Another process reads them.
    let keys = home.run(&["key", "list", "acme", "--json"]).ok();
    let keys: Vec<serde_json::Value> =
        keys.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let may = |name: &str| &keys.iter().find(|it| it["name"] == name).unwrap()["permissions"];
    assert_eq!(may("ci"), &serde_json::json!(["items:write", long]));
    assert_eq!(keys.iter().filter(|it| it["permissions"] == serde_json::json!([])).count(), 1);
    home.run(&["usage", "record", "acme", "requests", "5", "--id", "e1"]).ok();
    let usage = home.run(&["usage", "show", "acme", "--json"]).json();
    assert_eq!(usage["meters"][0]["used"], 5, "{usage}");
    assert!(home.run(&["tenant", "list"]).ok().contains("acme"));
    let csv = home.run(&["usage", "export", "--raw"]).ok();
    assert!(csv.contains("\"acme\",\"requests\""), "{csv}");
    let key = "apikey1234abcdefghij0123456789";
    home.write("tenants.csv", &format!("tenant,plan,account,key\nacme,free,cus_1,{key}\nnew,,,\n"));
    let imported = home.run(&["import", "csv", "tenants.csv"]).ok();
    let wanted = "acme: plan free; account cus_1; key \"imported\"\nnew: created\n";
    assert_eq!(imported, wanted);
    let again = home.run(&["import", "csv", "tenants.csv"]);
    assert!(
        again.stdout.is_empty() && again.stderr.contains("nothing changed"),
        "{}",
        again.stderr
    );
    home.write("taken.csv", &format!("tenant,key\nnew,{key}\n"));
    assert!(home.run(&["import", "csv", "taken.csv"]).fails(2).contains("another tenant's"));
    assert!(home.run(&["doctor"]).ok().contains("the DynamoDB table cli"));
    let status = home.run(&["infra", "status"]);
    assert!(status.stdout.contains("a gate opens on cli"), "{}{}", status.stdout, status.stderr);
    assert!(status.stdout.contains("by the attribute ttl"), "{}", status.stdout);
    let erased =
        home.run(&["tenant", "erase", "acme", "--reason", "request 4711", "--yes", "--json"]);
    let erased = erased.json();
    let own = erased["id"].as_str().unwrap();
    assert!(own.starts_with("~erased-") && erased["erased"].is_string(), "{erased}");
    home.run(&["tenant", "show", "acme"]).fails(4);
    let usage = home.run(&["usage", "show", own, "--json"]).json();
    assert_eq!(usage["meters"][0]["used"], 5, "{usage}");
    assert!(home.run(&["key", "list", own]).ok().contains("revoked"));
    home.run(&["tenant", "create", "acme"]).ok();

    let refused = home.run(&["backup", "b.redb"]).fails(1);
    assert!(refused.contains("point-in-time recovery"), "{refused}");
    let refused = home.run(&["restore", "b.redb"]).fails(2);
    assert!(refused.contains("tallygate restore --yes"), "{refused}");
    let done = home.run(&["restore", "--yes", "--json"]).json();
    assert!(done["pools"] == 1 && done["file"].is_null(), "each log had its end already: {done}");
    home.set("TALLYGATE__STORE__TABLE", "missing");
    let missing = home.run(&["infra", "status"]);
    assert_eq!(missing.code, 4, "{}{}", missing.stdout, missing.stderr);
}
