//! `import`: what comes into the store, what is refused and why, and that a second run changes
//! nothing.

use serde_json::{Value, json};

use crate::home::{Home, Ran};

/// A key of another system, and one of which the system had the hash alone.
const KEY: &str = "apikey1234abcdefghij0123456789";
const OTHER: &str = "otherkey5678abcdefghij0123456789";
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Tenants with plans, an account, and keys; one of them twice.
fn tenants() -> String {
    format!(
        "tenant,plan,account,key,key_sha256,key_name\n\
         acme,pro,cus_1,{KEY},,ci\n\
         acme,,,,{HASH},\n\
         globex,,,{OTHER},,laptop\n\
         \"a,b\",free,,,,\n"
    )
}

fn home() -> Home {
    let home = Home::empty();
    home.run(&["init"]).ok();
    home.write("tenants.csv", &tenants());
    home
}

#[track_caller]
fn has_no_key(ran: &Ran) {
    for secret in [KEY, OTHER] {
        let is_there = ran.stdout.contains(secret) || ran.stderr.contains(secret);
        assert!(!is_there, "{}{}", ran.stdout, ran.stderr);
    }
}

/// All that the store says of its tenants.
fn listing(home: &Home) -> String {
    let mut all = home.run(&["tenant", "list", "--all", "--json"]).ok();
    let ids: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for id in ids.iter().map(|it| it["id"].as_str().unwrap()) {
        all += &home.run(&["key", "list", id, "--json"]).ok();
        all += &home.run(&["tenant", "history", id, "--json"]).ok();
    }
    all
}

#[test]
fn tenants_come_with_plan_account_and_keys_and_once() {
    let home = home();
    let import = ["import", "csv", "tenants.csv"];
    let dry = home.run(&[&import[..], &["--dry-run"]].concat());
    assert!(!home.path("tallygate.redb").exists(), "a dry run makes no store");
    let ran = home.run(&[&import[..], &["--reason", "from the old system"]].concat());
    assert_eq!((ran.code, dry.code), (0, 0), "{}{}", ran.stderr, dry.stderr);
    assert_eq!(ran.stdout, dry.stdout);
    assert_eq!(
        ran.stdout,
        "acme: created; plan pro; account cus_1; key \"ci\"; key \"imported\"\n\
         globex: created; key \"laptop\"\n\
         a,b: created; plan free\n"
    );
    assert!(
        ran.stderr.ends_with("3 tenants changed, 0 as in the file already\n"),
        "{}",
        ran.stderr
    );
    assert!(
        dry.stderr.contains("dry run: nothing was written\n3 tenants would be"),
        "{}",
        dry.stderr
    );

    let acme = home.run(&["tenant", "show", "acme", "--json"]).json();
    assert_eq!((&acme["plan"], &acme["account"]), (&json!("pro"), &json!("cus_1")));
    let keys = home.run(&["key", "list", "acme", "--json"]).ok();
    let keys: Vec<Value> = keys.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut names: Vec<_> = keys.iter().map(|key| key["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ci", "imported"]);
    assert!(keys.iter().all(|key| key["state"] == "active" && key["scheme"] == "sha256"));
    let history = home.run(&["tenant", "history", "globex"]).ok();
    assert!(history.contains("kim") && history.contains("from the old system"), "{history}");

    let before = listing(&home);
    for again in
        [&import[..], &[&import[..], &["--json"]].concat(), &[&import[..], &["--dry-run"]].concat()]
    {
        let ran = home.run(again);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
        let said = "nothing changed: 3 tenants as in the file already\n";
        assert!(ran.stderr.ends_with(said), "{}", ran.stderr);
        has_no_key(&ran);
    }
    assert_eq!(listing(&home), before);
    for ran in [ran, dry] {
        has_no_key(&ran);
    }
}

/// One that was cut off, or whose file has grown.
#[test]
fn what_is_there_stays_and_the_rest_is_added() {
    let home = home();
    home.run(&["tenant", "create", "acme", "--plan", "free"]).ok();
    home.write("part.csv", &format!("tenant,key\nglobex,{OTHER}\n"));
    home.run(&["import", "csv", "part.csv"]).ok();
    let ran = home.run(&["import", "csv", "tenants.csv", "--json"]);
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines,
        [
            json!({ "tenant": "acme", "dry_run": false, "changes":
                ["plan pro", "account cus_1", "key \"ci\"", "key \"imported\""] }),
            json!({ "tenant": "a,b", "dry_run": false, "changes": ["created", "plan free"] }),
        ]
    );
    assert!(
        ran.stderr.ends_with("2 tenants changed, 1 as in the file already\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn every_wrong_row_is_named_and_nothing_is_written_unless_it_is_left_out() {
    let home = home();
    home.run(&["import", "csv", "tenants.csv"]).ok();
    let id = home.run(&["key", "list", "globex", "--json"]).json();
    home.run(&["key", "revoke", "globex", id["id"].as_str().unwrap(), "--yes"]).ok();
    let file = format!(
        "tenant,plan,account,key,key_sha256,key_name\n\
         initech,gold,,,,\n\
         initech2,,,short,,\n\
         a\u{1b}[2J,,,,,\n\
         ,pro,,,,\n\
         hooli,,,{KEY},,\n\
         globex,,,{OTHER},,\n\
         umbrella,,cus_1,,,\n\
         acme,,cus_2,,,\n\
         acme,free,,,,\n\
         acme,pro,,,,\n\
         {},,,,,\n\
         good,,,,,\n\
         tg,,,tg_0123456789abcdefghij,,\n\
         cells,,\n\
         named,,,,{HASH},{}\n\
         twice,,,,,\n\
         twice,gold,,,,\n",
        "x".repeat(300),
        "n".repeat(65),
    );
    home.write("wrong.csv", &file);
    let before = listing(&home);
    let ran = home.run(&["import", "csv", "wrong.csv"]);
    has_no_key(&ran);
    let said = ran.fails(2);
    for wanted in [
        "wrong.csv: line 2: there is no plan \"gold\" in the plan file",
        "wrong.csv: line 3: its key has fewer than 20 characters",
        "wrong.csv: line 4: it has a control character",
        "wrong.csv: line 5: it names no tenant",
        "wrong.csv: line 6: its key is another tenant's",
        "wrong.csv: line 7: its key was revoked, or has expired",
        "wrong.csv: line 8: the account \"cus_1\" is another tenant's",
        "wrong.csv: line 9: \"acme\" has the account \"cus_1\" already",
        "wrong.csv: line 11: \"acme\" has the plan \"free\" on line 10",
        "wrong.csv: line 12: a tenant id has 1 to 256 characters",
        "wrong.csv: line 14: its key begins with \"tg_\" as keys that are made here do",
        "wrong.csv: line 15: it has 3 cells, and there are 6 columns",
        "wrong.csv: line 16: a key's name must have 1 to 64 characters",
        "wrong.csv: line 18: there is no plan \"gold\" in the plan file; the tenant's other rows",
        "error: 14 of the rows are wrong: nothing was imported",
    ] {
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
    assert!(!said.contains("line 13:"), "{said}");
    assert_eq!(listing(&home), before);

    let ran = home.run(&["import", "csv", "wrong.csv", "--skip-wrong"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "good: created\n"), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("14 rows were left out\n"), "{}", ran.stderr);
    let list = home.run(&["tenant", "list"]).ok();
    assert!(list.contains("good") && !list.contains("initech"), "{list}");
}

/// An account is one tenant's, as a key is: of two rows, and of a row and the store.
#[test]
fn an_account_of_two_tenants_is_found_before_anything_is_written() {
    let home = home();
    home.write("two.csv", "tenant,account\nt8,cus_zz\nt9,cus_zz\nt10,cus_yy\nt10,cus_yy\n");
    let wanted = "two.csv: line 3: its account is on line 2 another tenant's\nerror: 1 of the rows";
    for more in [&["--dry-run"][..], &[]] {
        let said = home.run(&[&["import", "csv", "two.csv"], more].concat()).fails(2);
        assert!(said.starts_with(wanted), "{said}");
    }
    assert!(!home.path("tallygate.redb").exists(), "nothing was written");
    let ran = home.run(&["import", "csv", "two.csv", "--skip-wrong"]);
    let made = "t8: created; account cus_zz\nt10: created; account cus_yy\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (7, made), "{}", ran.stderr);
    home.write("stored.csv", "tenant,account\nt9,cus_zz\nt11,cus_yy\nt12,cus_xx\n");
    let before = listing(&home);
    let said = home.run(&["import", "csv", "stored.csv"]).fails(2);
    for line in [2, 3] {
        let wanted = format!("stored.csv: line {line}: the account \"cus_");
        assert!(said.contains(&wanted), "{said}");
    }
    assert_eq!(listing(&home), before);
}

/// Of two cells for one thing it is not known which is meant.
#[test]
fn a_heading_that_names_a_column_twice_is_refused() {
    let home = gateway();
    home.write("twice.csv", "tenant,plan,Tenant\nacme,,globex\n");
    let said = home.run(&["import", "csv", "twice.csv"]).fails(2);
    assert!(said.contains("twice.csv: the heading names the column \"tenant\" twice"), "{said}");
    home.write("keys.csv", &format!("name,key,x,x,Key\nacme,{KEY},1,2,{OTHER}\n"));
    let keys = ["import", "api-gateway", "--usage-plans", "plans.json", "--keys", "keys.csv"];
    let ran = home.run(&[&keys[..], &["--plan", "basic"]].concat());
    has_no_key(&ran);
    let said = ran.fails(2);
    assert!(said.contains("keys.csv: the heading names the column \"key\" twice"), "{said}");
    home.write("keys.csv", &format!("name,key,x,x\nacme,{KEY},1,2\n"));
    let ran = home.run(&[&keys[..], &["--plan", "basic", "--dry-run"]].concat());
    assert_eq!(ran.ok(), "acme: created; plan basic; key \"acme\"\n", "others are passed over");
}

#[test]
fn a_file_that_is_none_makes_no_store() {
    let home = home();
    for (code, name, text) in [
        (2, "empty", String::new()),
        (2, "heading", "plan\npro\n".to_owned()),
        (2, "column", "tenant,colour\nacme,red\n".to_owned()),
        (2, "rows", format!("tenant\n{}", "a\n".repeat(100_001))),
        (2, "bytes", "x".repeat((32 << 20) + 1)),
        (2, "wrong", "tenant,plan\nacme,gold\n".to_owned()),
    ] {
        home.write(name, &text);
        home.run(&["import", "csv", name]).fails(code);
    }
    home.run(&["import", "csv", "missing"]).fails(4);
    home.write("none", "tenant\n");
    assert!(home.run(&["import", "csv", "none"]).stderr.contains("names no tenant"));
    assert!(!home.path("tallygate.redb").exists());
}

/// What `aws apigateway get-usage-plans` prints, with what has no equivalent.
const USAGE_PLANS: &str = r#"{ "items": [
  { "id": "c7y23b", "name": "basic",
    "apiStages": [{ "apiId": "a1b2", "stage": "prod",
        "throttle": { "/pets/GET": { "burstLimit": 20, "rateLimit": 10.0 } } }],
    "throttle": { "burstLimit": 100, "rateLimit": 50.0 },
    "quota": { "limit": 1000000, "offset": 0, "period": "MONTH" } },
  { "id": "glvrsr", "name": "Gold plan!", "productCode": "p1", "tags": { "team": "x" },
    "throttle": { "burstLimit": 5, "rateLimit": 0.5 },
    "quota": { "limit": 70, "offset": 2, "period": "WEEK" } },
  { "id": "d4", "name": "closed", "throttle": { "burstLimit": 0, "rateLimit": 0.0 },
    "quota": { "limit": 5, "offset": 0, "period": "DAY" } },
  { "id": "e5", "name": "basic", "quota": { "limit": 5, "offset": 0, "period": "DAY" } },
  { "id": "f6", "name": "odd", "throttle": { "burstLimit": 1, "rateLimit": 0.142857 } }
] }"#;

fn gateway() -> Home {
    let home = Home::empty();
    home.run(&["init"]).ok();
    home.write("plans.json", USAGE_PLANS);
    std::fs::remove_file(home.path("plans.toml")).unwrap();
    let plans = ["import", "api-gateway", "--usage-plans", "plans.json"];
    let ran = home.run(&[&plans[..], &["--output", "plans.toml"]].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "plans.toml\n"), "{}", ran.stderr);
    home
}

#[test]
fn usage_plans_are_a_plan_file_and_what_is_none_is_named() {
    let home = gateway();
    assert!(
        home.run(&["plans", "check"])
            .ok()
            .contains("the plans basic, Gold-plan-, closed, e5-basic")
    );
    let shown = home.run(&["plans", "show"]).ok();
    let lines: Vec<String> =
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for wanted in [
        "basic quota requests/month 1000000",
        "basic rate default/s 50 / 1 s, burst 100",
        "Gold-plan- quota requests/week 70",
        "Gold-plan- rate default/min 30 / 60 s, burst 5",
        "closed once requests 0 once",
        "e5-basic quota requests/day 5",
        "odd rate default/h 514 / 3600 s, burst 1",
    ] {
        assert!(lines.iter().any(|line| line == wanted), "{wanted}\n{shown}");
    }
    let plans = ["import", "api-gateway", "--usage-plans", "plans.json"];
    let printed = home.run(&plans);
    assert_eq!(printed.stdout, std::fs::read_to_string(home.path("plans.toml")).unwrap());
    for wanted in [
        "basic: it was for a1b2/prod; a plan here is for the whole service",
        "basic: a1b2/prod throttles GET /pets to 10/s burst 20: write a [route.x]",
        "the usage plan \"Gold plan!\" (glvrsr) is the plan Gold-plan-",
        "Gold-plan-: the offset of its quota has no equivalent",
        "Gold-plan-: its product of AWS Marketplace (productCode) has no equivalent",
        "Gold-plan-: its tags (tags) have no equivalent",
        "closed: its throttle admits nothing",
        "odd: its throttle of 0.142857/s: 514/h is slower by less than one request an hour",
    ] {
        assert!(printed.stderr.contains(wanted), "{wanted}\n{}", printed.stderr);
    }
    let json = home.run(&[&plans[..], &["--json"]].concat()).json();
    assert_eq!(json["toml"], printed.stdout);
    assert_eq!(json["notes"].as_array().unwrap().len(), printed.stderr.lines().count());
    home.run(&[&plans[..], &["--output", "plans.toml"]].concat()).fails(6);
    for broken in ["no", "{}", "{\"items\":[{}]}", "{\"items\":[{\"id\":\"a\",\"quota\":{}}]}"] {
        home.write("broken.json", broken);
        home.run(&["import", "api-gateway", "--usage-plans", "broken.json"]).fails(2);
    }
}

/// What a file has instead of what is expected is said, with its place, and no value of a key is.
#[test]
fn json_of_another_shape_is_refused_with_what_is_expected() {
    let home = gateway();
    let plans = ["import", "api-gateway", "--usage-plans", "shape.json"];
    for (plan, wanted) in [
        (
            "[]",
            "it is a list, where an object with \"items\" is expected, as get-usage-plans prints",
        ),
        ("5", "it is a number, where an object with \"items\" is expected"),
        ("{}", "it has no \"items\", as get-usage-plans prints them"),
        (r#"{"items":{}}"#, "its \"items\" is an object, where a list is expected"),
        (r#"{"items":[]}"#, "there is no usage plan in it"),
        (r#"{"items":[5]}"#, "usage plan 1: it is a number, where an object is expected"),
        (r#"{"items":[{"id":5}]}"#, "usage plan 1: its \"id\" is a number, where text is expected"),
        (r#"{"items":[{"id":"a","name":[]}]}"#, "usage plan 1: its \"name\" is a list, where text"),
        (r#"{"items":[{"id":"a","throttle":5}]}"#, "its \"throttle\" is a number, where an object"),
        (
            r#"{"items":[{"id":"a","throttle":{"rateLimit":"1","burstLimit":1}}]}"#,
            "usage plan 1: its throttle: its \"rateLimit\" is text, where a number of at least 0",
        ),
        (
            r#"{"items":[{"id":"a","throttle":{"rateLimit":1,"burstLimit":-1}}]}"#,
            "its \"burstLimit\" is -1, where a whole number of at least 0 is expected",
        ),
        (
            r#"{"items":[{"id":"a","quota":{"limit":1.5,"period":"DAY"}}]}"#,
            "its quota: its \"limit\" is 1.5, where a whole number of at least 0 is expected",
        ),
        (
            r#"{"items":[{"id":"a","quota":{"limit":1,"period":"YEAR"}}]}"#,
            "its quota: its \"period\" is none of DAY, WEEK, MONTH",
        ),
        (r#"{"items":[{"id":"a","apiStages":[1]}]}"#, "stage 1: it is a number, where an object"),
    ] {
        home.write("shape.json", plan);
        let said = home.run(&plans).fails(2);
        assert!(said.starts_with("error: shape.json: "), "{said}");
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
    let keys = ["import", "api-gateway", "--usage-plans", "plans.json", "--keys", "keys.json"];
    let import = |keys_: &str, in_plan: &str| {
        home.write("keys.json", keys_);
        home.write("in.json", in_plan);
        let ran = home.run(&[&keys[..], &["--plan-keys", "c7y23b=in.json", "--dry-run"]].concat());
        has_no_key(&ran);
        ran.fails(2)
    };
    let none = r#"{"items":[]}"#;
    for (key, wanted) in [
        ("[]".to_owned(), "error: keys.json: it is a list, where an object with \"items\""),
        (r#"{"items":[1]}"#.to_owned(), "keys.json: key 1: it is a number, where an object is"),
        (
            format!(r#"{{"items":[{{"id":"k","name":"a","value":["{KEY}"]}}]}}"#),
            "keys.json: key 1: its \"value\" is a list, where text is expected",
        ),
        (
            format!(r#"{{"items":[{{"id":"k","name":"a","value":"{KEY}","enabled":"false"}}]}}"#),
            "keys.json: key 1: its \"enabled\" is text, where true or false is expected",
        ),
    ] {
        let said = import(&key, none);
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
    for (in_plan, wanted) in [
        ("[]", "error: in.json: it is a list, where an object with \"items\" is expected"),
        (r#"{"items":["k1"]}"#, "error: in.json: key 1: it is text, where an object is expected"),
        (r#"{"items":[{}]}"#, "error: in.json: key 1: it has no \"id\""),
    ] {
        let said = import(none, in_plan);
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
}

/// What a plan file cannot say is said otherwise, and never faster: with a note, or not at all.
#[test]
fn what_a_plan_file_cannot_say_is_slower_and_named() {
    let home = home();
    let plan = |name: &str, rate: &str, burst: u64, limit: u64| {
        format!(
            r#"{{"id":"{name}","throttle":{{"rateLimit":{rate},"burstLimit":{burst}}},
            "quota":{{"limit":{limit},"period":"MONTH"}}}}"#
        )
    };
    let plans = [
        plan("slow", "0.0001", 3, 10),
        plan("near", "0.00027777777", 3, 10),
        plan("fast", "1e12", 3, 10),
        plan("burst", "0.001", 4_294_967_295, 10),
        plan("none", "1", 3, 0),
        plan("great", "1", 3, 9_223_372_036_854_775_807),
        plan("full", "1", 3, 10),
    ];
    home.write("plans.json", &format!("{{\"items\":[{}]}}", plans.join(",")));
    let ran = home.run(&["import", "api-gateway", "--usage-plans", "plans.json"]);
    home.write("plans.toml", &ran.stdout);
    for wanted in [
        "slow: its throttle of 0.0001/s is slower than one request an hour, the slowest rate",
        "near: its throttle of 0.00027777777/s is slower than one request an hour, the slowest",
        "fast: its throttle of 1000000000000.0/s: 1000000000/s is slower",
        "burst: its throttle of 0.001/s: 3/h is slower by less than one request an hour",
        "burst: its throttle of 0.001/s: burst 15372286 is less than the burst of 4294967295",
        "none: its quota admits nothing: its requests are prepaid, by grants alone",
        "great: 999999999999999999/month is less than its quota of 9223372036854775807",
        "the usage plan \"full\" (full) is the plan full-full",
    ] {
        assert!(ran.stderr.contains(wanted), "{wanted}\n{}", ran.stderr);
    }
    assert_eq!(ran.code, 0);
    home.run(&["plans", "check"]).ok();
    let shown = home.run(&["plans", "show"]).ok();
    assert_eq!(shown.lines().filter(|line| line.contains("0 once")).count(), 3, "{shown}");
    let governor = ["import", "tower-governor", "--burst-size", "1"];
    for n in ["3601", "7200", "1000000", "18446744073709551615"] {
        let said = home.run(&[&governor[..], &["--per-second", n]].concat()).fails(2);
        let wanted = "slower than one request an hour, the slowest rate of a plan file";
        assert!(said.contains(wanted) && said.contains("quota.requests = \""), "{said}");
    }
    let said = home.run(&[&governor[..], &["--per-second", "1", "--plan", "full"]].concat());
    assert!(said.fails(2).contains("`full` is a word of the plan language"));
}

#[test]
fn keys_of_api_gateway_come_from_both_of_its_forms() {
    let keys = ["import", "api-gateway", "--usage-plans", "plans.json", "--keys"];
    let csv = gateway();
    csv.write(
        "keys.csv",
        &format!(
            "Enabled,Name,key,description,UsageplanIds\n\
             true,acme,{KEY},ours,c7y23b\n\
             ,globex,{OTHER},,glvrsr\n\
             FALSE,off,{KEY}off,,c7y23b\n"
        ),
    );
    let ran = csv.run(&[&keys[..], &["keys.csv"]].concat());
    has_no_key(&ran);
    assert!(ran.stderr.contains("line 4: \"off\" is disabled, and left out"), "{}", ran.stderr);
    let wanted = "acme: created; plan basic; key \"acme\"\n\
                  globex: created; plan Gold-plan-; key \"globex\"\n";
    assert_eq!(ran.ok(), wanted);
    let again = csv.run(&[&keys[..], &["keys.csv"]].concat());
    assert!(
        again.stdout.is_empty() && again.stderr.contains("nothing changed"),
        "{}",
        again.stderr
    );

    let of_json = gateway();
    let key = |(id, name, value)| json!({ "id": id, "name": name, "value": value, "tags": {} });
    let items = [("k1", "acme", KEY), ("k2", "globex", OTHER)].map(key);
    let items = json!({ "items": items });
    of_json.write("keys.json", &items.to_string());
    of_json.write("basic.json", r#"{ "items": [{ "id": "k1", "type": "API_KEY" }] }"#);
    let how = ["keys.json", "--plan-keys", "c7y23b=basic.json"];
    let said = of_json.run(&[&keys[..], &how].concat()).fails(2);
    assert!(said.contains("keys.json: key 2: it is in no usage plan that is known"), "{said}");
    let ran = of_json.run(&[&keys[..], &how, &["--plan", "Gold-plan-"]].concat());
    has_no_key(&ran);
    assert_eq!(ran.ok(), wanted, "the same tenants");
}

#[test]
fn keys_that_cannot_be_a_tenants_are_named() {
    let home = gateway();
    let import = |text: &str, more: &[&str]| {
        home.write("keys", text);
        let keys = ["import", "api-gateway", "--usage-plans", "plans.json", "--keys", "keys"];
        let ran = home.run(&[&keys[..], &["--dry-run"], more].concat());
        has_no_key(&ran);
        ran
    };
    let csv = format!(
        "name,key,usageplanids\nacme,{KEY},\"c7y23b,glvrsr\"\n\
         globex,{OTHER},zz\nacme,{KEY}2,c7y23b\n,{KEY}3,c7y23b\n"
    );
    let said = import(&csv, &[]).fails(2);
    for wanted in [
        "line 2: it is in 2 usage plans (basic, Gold-plan-), and a tenant has one plan",
        "line 3: there is no usage plan \"zz\"",
        "line 4: \"acme\" is the name of another key, on line 2",
        "line 5: it has no name",
    ] {
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
    let json = format!(
        r#"{{"items":[{{"id":"k1","name":"a","customerId":"c1","value":"{KEY}"}},
        {{"id":"k2","name":"b","customerId":"c1","value":"{OTHER}"}},{{"id":"k3","name":"c"}}]}}"#
    );
    let by_customer = import(&json, &["--plan", "basic", "--tenant-from", "customer-id"]).fails(2);
    assert!(by_customer.contains("key 3: it has no customerId"), "{by_customer}");
    let by_id = import(&json, &["--plan", "basic", "--tenant-from", "id"]).fails(2);
    assert!(by_id.contains("key 3: it has no value"), "{by_id}");
    let two = ["--plan", "basic", "--tenant-from", "customer-id", "--skip-wrong"];
    let two = import(&json, &two);
    assert_eq!(two.stdout, "c1: created; plan basic; key \"a\"; key \"b\"\n", "{}", two.stderr);
    assert!(import("name\nx\n", &[]).fails(2).contains("no column \"key\""));
}

#[test]
fn the_numbers_of_tower_governor_are_a_plan_file() {
    let home = Home::empty();
    home.run(&["init"]).ok();
    std::fs::remove_file(home.path("plans.toml")).unwrap();
    let governor = ["import", "tower-governor", "--burst-size", "5"];
    let ran = |more: &[&str]| home.run(&[&governor[..], more].concat());
    let to_file = ran(&["--per-second", "2", "--output", "plans.toml"]);
    assert_eq!((to_file.code, to_file.stdout.as_str()), (0, "plans.toml\n"), "{}", to_file.stderr);
    assert_eq!(
        std::fs::read_to_string(home.path("plans.toml")).unwrap(),
        "default-plan = \"anyone\"\n\n[plan.anyone]\nrate.default = \"30/min burst 5 per ip\"\n"
    );
    home.run(&["plans", "check"]).ok();
    let rate = |more: &[&str]| {
        let toml = ran(&[more, &["--per", "key", "--json"]].concat()).json();
        let toml: toml::Table = toml["toml"].as_str().unwrap().parse().unwrap();
        toml["plan"]["anyone"]["rate"]["default"].as_str().unwrap().to_owned()
    };
    assert_eq!(rate(&["--per-millisecond", "500"]), "2/s burst 5 per key");
    assert_eq!(rate(&["--per-nanosecond", "1000"]), "1000000/s burst 5 per key");
    let odd = ran(&["--per-second", "7"]);
    assert!(odd.stderr.contains("note: 514/h is slower by less than"), "{}", odd.stderr);
    for wrong in [&["--per-second", "0"][..], &[], &["--per-second", "1", "--plan", "a b"]] {
        ran(wrong).fails(2);
    }
    ran(&["--per-second", "2", "--output", "plans.toml"]).fails(6);
}
