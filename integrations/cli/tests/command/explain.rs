//! `plans explain` on what no command makes (addons), and on permissions.

use tallygate::GateBuilder;

use crate::home::Home;

const PLANS: &str = "default-plan = \"free\"\n\
                     [meter.gifts]\n\
                     [addon.pack]\n\
                     adds = { quota.requests = \"100/month\" }\n\
                     [plan.free]\n\
                     quota.requests = \"10k/month\"\n\
                     quota.gifts = \"5\"\n\
                     [route.gift]\nmatch = \"POST /gift\"\ncost = { requests = 1, gifts = 1 }\n";

#[tokio::test]
async fn what_enlarges_a_limit_is_named_beside_it() {
    let home = Home::empty();
    home.write("plans.toml", PLANS);
    let store = home.path("tallygate.redb");
    let text = format!("identify = []\n[store]\npath = {:?}\n", store.to_str().unwrap());
    let gate = GateBuilder::from_text(&text).plans(PLANS).open().await.unwrap();
    let acme = gate.directory().tenant("acme").addons([("pack".into(), 2)].into());
    acme.save().await.unwrap();
    gate.close().await.unwrap();
    home.run(&["tenant", "grant", "acme", "gifts", "7", "--id", "welcome"]).ok();

    let explained = home.run(&["plans", "explain", "--tenant", "acme", "POST /gift", "--json"]);
    let explained = explained.json();
    let limits = explained["limits"].as_array().unwrap();
    let of = |name: &str| limits.iter().find(|it| it["name"] == name).unwrap();
    assert_eq!(of("requests/month")["limit"], 10_200, "{explained}");
    assert_eq!(of("requests/month")["at"], "plans.toml:6 + addon pack x 2 (plans.toml:3)");
    assert_eq!(of("gifts/once")["limit"], 12, "{explained}");
    assert_eq!(of("gifts/once")["at"], "plans.toml:7 + grant welcome");
    home.run(&["tenant", "override", "acme", "quota.requests = \"7/month\"", "--reason", "x"]).ok();
    let explained = home.run(&["plans", "explain", "--tenant", "acme", "POST /gift"]).ok();
    assert!(explained.contains(" by kim + addon pack x 2 (plans.toml:3)"), "{explained}");
}

/// The permission comes before all limits, and `shadow` admits none without it, as in the gate.
#[test]
fn a_permission_that_the_route_asks_for_is_in_the_verdict() {
    let home = Home::empty();
    let route = "[route.gift]\nmatch = \"POST /gift\"\n";
    let asks = format!("{route}needs-permission = \"items:write\"\nenforce = \"shadow\"\n");
    home.write("plans.toml", &PLANS.replace(route, &asks));
    let service = "[[identify]]\napi-key = \"x-api-key\"\npermissions = [\"items:read\"]\n";
    home.write("tallygate.toml", service);
    home.run(&["tenant", "create", "acme"]).ok();
    let explain = |more: &[&str]| {
        let args = ["plans", "explain", "--tenant", "acme", "POST /gift"];
        let said = home.run(&[&args[..], more].concat()).ok();
        let json = home.run(&[&args[..], more, &["--json"]].concat()).json();
        (said, json)
    };
    let is_refused = |(said, json): (String, serde_json::Value)| {
        assert_eq!(json["verdict"], "refused", "{json}");
        assert_eq!((&json["reason"], &json["limit"]), (&"permission-missing".into(), &().into()));
        assert_eq!(json["http_status"], 403, "{json}");
        assert_eq!(json["permission"]["held"], false, "{json}");
        assert!(said.contains("items:write, which the caller lacks"), "{said}");
        assert!(said.contains("refused: permission-missing\n"), "{said}");
    };
    let is_admitted = |(said, json): (String, serde_json::Value)| {
        assert_eq!((&json["verdict"], &json["reason"]), (&"admitted".into(), &().into()), "{json}");
        assert_eq!(json["permission"]["held"], true, "{json}");
        assert!(said.contains("items:write, which the caller has"), "{said}");
    };

    // Not said: the verdict is for a caller that has it, and says so.
    let (said, json) = explain(&[]);
    assert_eq!(json["permission"], serde_json::json!({ "needed": "items:write", "held": null }));
    assert_eq!(json["verdict"], "admitted", "{json}");
    assert!(said.contains("items:write, which the verdict takes the caller to have"), "{said}");
    is_refused(explain(&["--permission", "items:read", "--permission", "items"]));
    is_admitted(explain(&["--permission", "items:read", "--permission", "items:write"]));

    // By a key: what it was made with, else what the service file gives to keys made without.
    let make = |args: &[&str]| {
        let made = home.run(&[&["key", "create", "acme", "--json"], args].concat()).json();
        made["id"].as_str().unwrap().to_owned()
    };
    let (plain, may) = (make(&[]), make(&["--permission", "items:write"]));
    is_refused(explain(&["--key", &plain]));
    is_admitted(explain(&["--key", &may]));
    home.write("tallygate.toml", &service.replace("items:read", "items:write"));
    is_admitted(explain(&["--key", &plain]));
    home.run(&["key", "revoke", "acme", &may, "--yes"]).ok();
    let with =
        |key: &str| home.run(&["plans", "explain", "--tenant", "acme", "POST /gift", "--key", key]);
    assert!(with(&may).fails(6).contains("revoked"));
    with("k0").fails(4);
}
