//! `plans explain` on what no command makes: addons.

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
