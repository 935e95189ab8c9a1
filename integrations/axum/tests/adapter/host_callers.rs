//! An app with its own users: its authentication, in a layer around the gate, says who calls and on
//! which plan. Over axum's own server.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::routing::{get, post};
use tallygate::wire::Reply;
use tallygate::{Gate, GateBuilder, Refusal};
use tallygate_axum::{Caller, DigestBodies, GateLayer, Tenant, usage_router};
use test_support::http::send;
use tokio::net::TcpListener;

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

#[derive(Clone)]
struct User {
    org: String,
    id: String,
    plan: String,
}

/// The app's own authentication: a session is `org/user/plan` here.
async fn authenticate(mut request: Request, next: Next) -> axum::response::Response {
    let session = request.headers().get("x-session").and_then(|it| it.to_str().ok());
    let parts: Vec<_> = session.unwrap_or_default().split('/').map(str::to_owned).collect();
    if let [org, id, plan] = &parts[..] {
        let (org, id, plan) = (org.clone(), id.clone(), plan.clone());
        request.extensions_mut().insert(User { org, id, plan });
    }
    next.run(request).await
}

fn app(gate: &Gate) -> Router {
    let find = |extensions: &http::Extensions| {
        let user = extensions.get::<User>()?;
        Some(Caller::new(&user.org).user(&user.id).plan(&user.plan))
    };
    let layer = GateLayer::new(gate).caller(find);
    Router::new()
        .route("/me", get(async |tenant: Tenant| tenant.to_string()))
        .route("/pay", post(async || "paid"))
        .layer(layer.clone())
        .layer(DigestBodies::new(gate).caller(find))
        .merge(usage_router(&layer))
        .layer(axum::middleware::from_fn(authenticate))
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// A request with this session, sent from a thread of its own.
async fn ask(
    at: SocketAddr,
    method: &'static str,
    path: &'static str,
    session: &str,
) -> (u16, String) {
    let session = session.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let key = ("idempotency-key", "\"k1\"");
        send(at, method, path, &[("x-session", &session), key, ("accept-language", "de")], "")
            .unwrap()
    });
    let answer = asked.await.unwrap();
    (answer.status, answer.body)
}

#[tokio::test]
async fn an_app_with_its_own_users_is_behind_limits() {
    let gate =
        GateBuilder::from_text(SERVICE).plans(PLANS).on_refusal(own_refusal).open().await.unwrap();
    let at = serve(app(&gate)).await;
    assert_eq!(ask(at, "GET", "/me", "").await.0, 401);
    assert_eq!(ask(at, "GET", "/me", "acme/1/free").await, (200, "acme".to_owned()));
    assert_eq!(ask(at, "GET", "/me", "acme/1/free").await.0, 429, "one a user");
    assert_eq!(ask(at, "GET", "/me", "acme/2/free").await.0, 200);
    let refused = ask(at, "GET", "/me", "acme/3/free").await;
    assert_eq!(refused, (429, "de: no more of me for 3".to_owned()), "two a tenant");
    assert_eq!(ask(at, "GET", "/me", "acme/3/pro").await.0, 200, "upgraded");
    // The routes beside the layer, and the layer around it, know the same callers.
    let (status, usage) = ask(at, "GET", "/usage", "acme/3/pro").await;
    assert!(status == 200 && usage.contains("\"plan\":\"pro\""), "{usage}");
    assert_eq!(ask(at, "GET", "/usage", "").await.0, 401);
    assert_eq!(ask(at, "POST", "/pay", "acme/3/pro").await, (200, "paid".to_owned()));
    assert_eq!(ask(at, "POST", "/pay", "").await.0, 401);
    assert_eq!(ask(at, "GET", "/nowhere", "acme/3/pro").await.0, 404, "a fallback behind the gate");
    assert_eq!(ask(at, "GET", "/nowhere", "acme/3/pro").await.0, 429);
}
