//! An app with its own users: its authentication, in a middleware around the gate, says who calls
//! and on which plan. Over actix-web's own server.

use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpMessage, web};
use tallygate::wire::Reply;
use tallygate::{GateBuilder, ManualClock, Refusal};
use tallygate_actix_web::{Caller, DigestBodies, GateMiddleware, Tenant, usage_routes};

use crate::support::{Gated, Server};

const PLANS: &str = r#"
    default-plan = "free"
    [route.me]
    match   = "GET /me"
    [route.pay]
    match   = "POST /pay"
    once-by = "idempotency-key"
    [plan.free]
    quota.requests = ["2/day", "1/day per user"]
    [plan.pro]
    quota.requests = "5/day"
"#;

const SERVICE: &str = r#"
    identify = []
    [store]
    kind = "memory"
"#;

/// The app's own refusal, in the language that the caller asks for.
fn own_refusal(refusal: &Refusal) -> Option<Reply> {
    let call = refusal.call.as_ref()?;
    let language = call.header("accept-language").map(String::from_utf8_lossy)?;
    let user = refusal.user.as_deref()?;
    let body = format!("{language}: no more of {} for {user}", call.route.as_deref()?);
    Some(Reply { status: 429, headers: vec![], body: body.into_bytes() })
}

struct User {
    org: String,
    id: String,
    plan: String,
}

/// The app's own authentication: a session is `org/user/plan` here.
async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let session = request.headers().get("x-session").and_then(|it| it.to_str().ok());
    let parts: Vec<_> = session.unwrap_or_default().split('/').map(str::to_owned).collect();
    if let [org, id, plan] = &parts[..] {
        let (org, id, plan) = (org.clone(), id.clone(), plan.clone());
        request.extensions_mut().insert(User { org, id, plan });
    }
    next.call(request).await
}

fn find(extensions: &Extensions) -> Option<Caller> {
    let user = extensions.get::<User>()?;
    Some(Caller::new(&user.org).user(&user.id).plan(&user.plan))
}

#[test]
fn an_app_with_its_own_users_is_behind_limits() {
    let gated = Gated::with_opened(async {
        let clock = ManualClock::at_unix_ms(tallygate::testing::START_MS);
        let builder =
            GateBuilder::from_text(SERVICE).plans(PLANS).on_refusal(own_refusal).clock(clock);
        builder.open().await.unwrap()
    });
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&gate).caller(find))
            .wrap(DigestBodies::new(&gate).caller(find))
            .wrap(from_fn(authenticate)) // wrapped last: outermost
            .configure(usage_routes(&gate))
            .route("/me", web::get().to(async |tenant: Tenant| tenant.to_string()))
            .route("/pay", web::post().to(async || "paid"))
    });
    let ask = |method: &str, path: &str, session: &str| {
        let headers =
            [("x-session", session), ("idempotency-key", "\"k1\""), ("accept-language", "de")];
        let answer = server.raw(method, path, &headers, "").unwrap();
        (answer.status, answer.body)
    };
    assert_eq!(ask("GET", "/me", "").0, 401);
    assert_eq!(ask("GET", "/me", "acme/1/free"), (200, "acme".to_owned()));
    assert_eq!(ask("GET", "/me", "acme/1/free").0, 429, "one a user");
    assert_eq!(ask("GET", "/me", "acme/2/free").0, 200);
    let refused = ask("GET", "/me", "acme/3/free");
    assert_eq!(refused, (429, "de: no more of me for 3".to_owned()), "two a tenant");
    assert_eq!(ask("GET", "/me", "acme/3/pro").0, 200, "upgraded");
    // The usage routes, and the middleware further out, know the same callers.
    let (status, usage) = ask("GET", "/usage", "acme/3/pro");
    assert!(status == 200 && usage.contains("\"plan\":\"pro\""), "{usage}");
    assert_eq!(ask("GET", "/usage", "").0, 401);
    assert_eq!(ask("POST", "/pay", "acme/3/pro"), (200, "paid".to_owned()));
    assert_eq!(ask("POST", "/pay", "").0, 401);
    assert_eq!(ask("GET", "/nowhere", "acme/3/pro").0, 404);
    assert_eq!(ask("GET", "/nowhere", "acme/3/pro").0, 429);
}
