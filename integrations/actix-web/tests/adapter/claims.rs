//! Who calls by what a middleware further out has verified; and answers that are errors of a
//! middleware within, which wait for what any answer waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::error::ErrorNotFound;
use actix_web::middleware::Next;
use actix_web::{App, Error, HttpMessage, middleware, test, web};
use tallygate::store::{
    Item, Key, Memory, Page, Promise, Query, Store, StoreFuture, Write, Written,
};
use tallygate::{Gate, GateBuilder};
use tallygate_actix_web::{Claims, GateMiddleware, Tenant, usage_routes};
use tokio::sync::Notify;

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "2/day"
    [route.pay]
    match   = "POST /pay"
    once-by = "idempotency-key"
"#;

const SERVICE: &str = r#"
    [store]
    kind = "memory"
    [[identify]]
    claim = "org"
    [identity]
    unknown = "create"
    [flush]
    mode = "fast"
"#;

async fn gate(store: impl Store) -> Gate {
    GateBuilder::from_text(SERVICE).plans(PLANS).store(store).open().await.unwrap()
}

/// Verifies tokens, which are names here.
async fn verify(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let token = request.headers().get("x-token").and_then(|token| token.to_str().ok());
    if let Some(name) = token {
        let claims: Claims = [("org", name)].into_iter().collect();
        request.extensions_mut().insert(claims);
    }
    next.call(request).await
}

#[actix_web::test]
async fn a_caller_is_who_the_middleware_further_out_says() {
    let gate = gate(Memory::new()).await;
    let app = App::new()
        .wrap(GateMiddleware::new(&gate))
        .wrap(middleware::from_fn(verify)) // wrapped last: outermost
        .configure(usage_routes(&gate))
        .route("/a", web::get().to(async |tenant: Tenant| tenant.to_string()));
    let app = test::init_service(app).await;
    let ask = |path: &str| test::TestRequest::get().uri(path);
    let of = |path: &str, token: &str| ask(path).insert_header(("x-token", token)).to_request();
    for tenant in ["acme", "globex"] {
        assert_eq!(test::call_and_read_body(&app, of("/a", tenant)).await, tenant);
    }
    assert_eq!(test::call_service(&app, ask("/a").to_request()).await.status(), 401);
    // A header is no claim.
    let forged = ask("/a").insert_header(("org", "acme")).to_request();
    assert_eq!(test::call_service(&app, forged).await.status(), 401);

    assert_eq!(test::call_service(&app, of("/a", "acme")).await.status(), 200);
    assert_eq!(test::call_service(&app, of("/a", "acme")).await.status(), 429);
    assert_eq!(test::call_service(&app, of("/a", "globex")).await.status(), 200);
    // The usage route identifies by itself, by the same.
    let usage = test::call_and_read_body_json::<_, _, serde_json::Value>;
    let usage = usage(&app, of("/usage", "acme")).await;
    assert_eq!(usage["meters"][0]["used"], 2, "{usage}");
}

/// A store that holds back the second write of a claim, which settles it.
#[derive(Clone)]
struct Slow(Arc<Inner>);

struct Inner {
    memory: Memory,
    claims: AtomicUsize,
    settling: Notify,
    go_on: Notify,
}

impl Store for Slow {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.0.memory.read(key)
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        let is_claim = write.key.pk.strip_prefix("1#default#K#").is_some_and(|of| !of.is_empty());
        let settles = is_claim && self.0.claims.fetch_add(1, Ordering::SeqCst) == 1;
        let inner = self.0.clone();
        Box::pin(async move {
            if settles {
                inner.settling.notify_one();
                inner.go_on.notified().await;
            }
            inner.memory.write(write).await
        })
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.0.memory.query(query)
    }

    fn promise(&self) -> Promise {
        self.0.memory.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.0.memory.close()
    }
}

#[actix_web::test]
async fn an_error_of_a_middleware_within_waits_for_its_claim_to_be_settled() {
    let store = Slow(Arc::new(Inner {
        memory: Memory::new(),
        claims: AtomicUsize::new(0),
        settling: Notify::new(),
        go_on: Notify::new(),
    }));
    let gate = gate(store.clone()).await;
    let fails = async |_: ServiceRequest, _: Next<_>| {
        Err::<ServiceResponse, _>(ErrorNotFound("no such account"))
    };
    let app = App::new()
        .wrap(middleware::from_fn(fails))
        .wrap(GateMiddleware::new(&gate))
        .wrap(middleware::from_fn(verify))
        .route("/pay", web::post().to(async || "paid"));
    let app = test::init_service(app).await;
    let pay = test::TestRequest::post().uri("/pay").insert_header(("x-token", "acme"));
    let pay = pay.insert_header(("idempotency-key", "\"k1\"")).to_request();

    let mut answer = Box::pin(app.call(pay));
    tokio::select! {
        biased;
        early = &mut answer => panic!("answered before it was settled: {:?}", early.is_ok()),
        () = store.0.settling.notified() => {}
    }
    store.0.go_on.notify_one();
    let error = answer.await.err().unwrap();
    assert_eq!(error.as_response_error().status_code(), 404);
    assert_eq!(store.0.claims.load(Ordering::SeqCst), 2, "claimed, and settled");
}
