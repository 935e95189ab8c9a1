//! The plan file's routes against those of the app: [`tallygate::Gate::check_routes`].

use tallygate::{Ask, Error, Gate, testing};

const PLANS: &str = r#"default-plan = "free"
[plan.free]
[route.chat]
match = [
  "POST /v1/chat",
  "POST /v1/chats/{chat}/messages",
]
cost = { requests = 5 }
[route.files]
match = "GET /files/{*path}"
[route.costly]
match = "GET /v1/models/costly"
[route.rest]
match = "GET /v2/{*rest}"
"#;

/// The app's routes, as axum has them.
const APP: [&str; 6] = [
    "POST /v1/chat",
    "POST /v1/chats/{id}/messages",
    "GET /files/{*rest}",
    "GET /v1/models/{model}",
    "GET /v2/users",
    "GET /health",
];

/// The lines of the error.
fn lacking(gate: &Gate, app: &[&str]) -> Vec<String> {
    match gate.check_routes(app) {
        Ok(()) => Vec::new(),
        Err(error @ Error::Routes(_)) => error.to_string().lines().map(str::to_owned).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_app_with_all_routes_of_the_plan_file_passes() {
    let (gate, _clock) = testing::gate(PLANS);
    assert_eq!(lacking(&gate, &APP), [""; 0]);
    // In the syntax of actix-web.
    let actix = [
        "POST /v1/chat",
        r"POST /v1/chats/{id:\d+}/messages",
        "GET /files/{tail:.*}",
        "ANY /v1/models/{model}",
        "HEAD /v2/{a}/{b}",
    ];
    assert_eq!(lacking(&gate, &actix), [""; 0]);
    // What cannot be compared fits.
    assert_eq!(lacking(&gate, &["ANY /{url:.+}/raw"]), [""; 0]);
}

#[tokio::test]
async fn a_pattern_that_no_route_of_the_app_has_is_named_with_its_line_and_the_nearest() {
    let (gate, _clock) = testing::gate(PLANS);
    let mut app = APP.to_vec();
    app[0] = "POST /v1/chat/";
    app[2] = "POST /files/{*rest}";
    app[3] = "GET /v1/models";
    app[4] = "GET /users";
    assert_eq!(
        lacking(&gate, &app),
        [
            "plans:5: [route.chat] no route of the app has `POST /v1/chat`: \
             did you mean `POST /v1/chat/`?",
            "plans:10: [route.files] no route of the app has `GET /files/{*path}`: \
             did you mean `POST /files/{*rest}`?",
            "plans:12: [route.costly] no route of the app has `GET /v1/models/costly`",
            "plans:14: [route.rest] no route of the app has `GET /v2/{*rest}`",
        ],
    );
    assert_eq!(lacking(&gate, &[]).len(), 5);
}

#[tokio::test]
async fn a_demand_that_holds_for_some_methods_of_a_handler_is_named() {
    let plans = "default-plan = \"free\"\n[plan.free]\nfeature.secret = true\n[route.secret]\n\
                 match = \"GET /v1/secret/{id}\"\nneeds = \"secret\"\n";
    let (gate, _clock) = testing::gate(plans);
    assert_eq!(
        lacking(&gate, &["ANY /v1/secret/{name}"]),
        ["plans:5: [route.secret] the app serves `ANY /v1/secret/{name}` by every method, and \
          `GET /v1/secret/{id}` holds for one: write \"ANY /v1/secret/{id}\""]
    );
    assert_eq!(lacking(&gate, &["GET /v1/secret/{name}"]), [""; 0]);
    let (gate, _clock) = testing::gate(&plans.replace("GET", "ANY"));
    for app in ["ANY /v1/secret/{name}", "GET /v1/secret/{name}"] {
        assert_eq!(lacking(&gate, &[app]), [""; 0]);
    }
}

#[tokio::test]
async fn what_is_no_route_of_an_app_is_named() {
    let (gate, _clock) = testing::gate("default-plan = \"free\"\n[plan.free]");
    assert_eq!(
        lacking(&gate, &["/v1/chat", "POST v1/chat", "post /v1/chat"]),
        [
            "the app's `/v1/chat` is neither \"METHOD /path\" nor \"ANY /path\"",
            "the app's `POST v1/chat` is neither \"METHOD /path\" nor \"ANY /path\"",
        ],
    );
}

#[tokio::test]
async fn routes_are_checked_against_the_plan_file_in_force() {
    let plans = testing::Plans::new(PLANS);
    let gate = plans.read_by(testing::builder("")).open().await.unwrap();
    assert_eq!(lacking(&gate, &APP), [""; 0]);
    plans.set(&PLANS.replace("POST /v1/chat\"", "POST /v1/caht\""));
    assert!(gate.reload().await.unwrap());
    assert_eq!(lacking(&gate, &APP).len(), 1);
    gate.close().await.unwrap();
}

#[tokio::test]
async fn a_gateways_prefix_is_left_out() {
    let service = "[store]\nkind = \"memory\"\n[[identify]]\nheader = \"x-tenant\"\n\
                   [proxy]\ntrust = [\"127.0.0.0/8\"]\n[http]\nstrip-prefix = \"/api\"\n";
    let gate = tallygate::GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    let app = APP.map(|route| route.replacen(" /", " /api/", 1));
    gate.check_routes(&app).unwrap();
    gate.close().await.unwrap();
}

#[tokio::test]
async fn operations_without_a_route_are_named_each_with_the_nearest() {
    let (gate, clock) = testing::gate(PLANS);
    gate.check_operations(["chat", "rest"]).unwrap();
    gate.check_operations([""; 0]).unwrap();
    let error = gate.check_operations(["chatt", "files", "Rest"]).unwrap_err();
    assert!(matches!(error, Error::Routes(_)));
    let expected = "the plan file has no route `chatt`: did you mean `chat`?\n\
                    the plan file has no route `Rest`: did you mean `rest`?";
    assert_eq!(error.to_string(), expected);
    // What it is for: such work is admitted, at no cost.
    let acme = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&acme, "chat")).await.unwrap().settle();
    gate.admit(Ask::new(&acme, "chatt")).await.unwrap().settle();
    clock.advance(std::time::Duration::from_secs(2)); // past the age of a cached reading
    let report = gate.usage_report(&testing::identified(&gate, "acme").await).await.unwrap();
    assert_eq!(report.meters[0].used, 5);
}
