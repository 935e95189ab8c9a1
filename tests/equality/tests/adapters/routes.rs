//! Random routes and random spellings of paths through axum's and actix-web's own routers: the
//! route that the gate decides by is the one whose handler runs.
//!
//! `TALLYGATE_ROUTE_SETS` and `TALLYGATE_ROUTE_PATHS` (of each set) make it longer,
//! `TALLYGATE_ROUTE_SEED` another.

use actix_web::HttpMessage as _;
use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::{MethodRouter, on};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tallygate::{Admitted, Gate, testing};
use tallygate_actix_web::GateMiddleware;
use tallygate_axum::GateLayer;
use tower::util::BoxCloneService;
use tower::{Layer as _, Service as _, ServiceExt as _};

mod sets;

use sets::{Dice, Route, Set};

/// What a handler and the gate around it say: which is the handler, and on which route it is.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    handler: usize,
    route: Option<usize>,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Walks through random sets; `host` makes a set's host, and `ask` asks it.
async fn walk<H>(
    name: &str,
    host: impl AsyncFn(&Set, &Gate, &mut Dice) -> H,
    ask: impl AsyncFn(&mut H, &str, &str) -> Option<Told>,
) {
    let (sets, paths) = (number("TALLYGATE_ROUTE_SETS", 200), number("TALLYGATE_ROUTE_PATHS", 60));
    let seed = number("TALLYGATE_ROUTE_SEED", 1);
    let (mut asked, mut handled, mut differ) = (0_u64, 0_u64, 0_u64);
    for nth in 0..sets {
        let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(nth) << 20);
        // In every second set routes are worth walking around.
        let priced = nth % 2 == 1;
        let set = Set::new(&mut dice, priced);
        let (gate, _clock) = testing::gate(&set.plans);
        let mut host = host(&set, &gate, &mut dice).await;
        for _ in 0..paths {
            let (method, path) = set.request(&mut dice);
            if path.parse::<http::Uri>().is_err() {
                continue;
            }
            asked += 1;
            let Some(told) = ask(&mut host, method, &path).await else { continue };
            handled += 1;
            let costs = |route: usize| set.routes[route].cost;
            let is_right = match told.route {
                // Another reading of the path may be dearer, and then holds.
                Some(route) if priced => costs(route) >= costs(told.handler),
                route => route == Some(told.handler),
            };
            if !is_right {
                differ += 1;
                let route = |nth: usize| set.routes[nth].axum();
                eprintln!(
                    "{name}, set {nth}: {method} {path} is {} to its host, {:?} to the gate\n{}",
                    route(told.handler),
                    told.route.map(route),
                    set.plans
                );
                assert!(differ < 5, "{differ} differences");
            }
        }
    }
    println!("{name}: {asked} paths over {sets} sets, {handled} handled, {differ} differences");
    assert!(handled * 3 > asked, "most paths should reach a handler");
    assert_eq!(differ, 0);
}

fn told(handler: usize, admitted: Option<&Admitted>) -> String {
    let route = admitted.expect("the gate is in front").route();
    format!("{handler} {}", route.as_deref().unwrap_or("none"))
}

fn read(text: &str) -> Told {
    let (handler, route) = text.split_once(' ').unwrap();
    Told {
        handler: handler.parse().unwrap(),
        route: route.strip_prefix('r').and_then(|nth| nth.parse().ok()),
    }
}

fn methods(nth: usize, route: &Route) -> MethodRouter {
    let handler = async move |admitted: Option<Extension<Admitted>>| {
        told(nth, admitted.as_ref().map(|Extension(admitted)| admitted))
    };
    route.methods.iter().fold(MethodRouter::new(), |methods, method| {
        let method = http::Method::from_bytes(method.as_bytes()).unwrap();
        methods.merge(on(method.try_into().unwrap(), handler))
    })
}

type Front = BoxCloneService<Request<Body>, Response<Body>, std::convert::Infallible>;

async fn ask_tower(front: &mut Front, method: &str, path: &str) -> Option<Told> {
    let request = Request::builder().method(method).uri(path).header("x-tenant", "acme");
    let request = request.body(Body::empty()).unwrap();
    let response = front.ready().await.unwrap().call(request).await.unwrap();
    if response.status() != 200 {
        return None;
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Some(read(std::str::from_utf8(&body).unwrap()))
}

/// Routes with a first segment of their own, so that they can be nested below it.
fn nested(router: Router, set: &Set, layer: Option<&GateLayer>) -> Router {
    let mut router = router;
    for (nth, route) in set.routes.iter().enumerate() {
        let path = route.axum();
        let inner = path[1..].find('/').map(|at| path.split_at(at + 1));
        let can_nest = |prefix: &str, inner: &str| {
            prefix.len() > 1 && inner != "/" && !prefix.contains("{*") && !inner.starts_with("//")
        };
        let inner = inner.filter(|(prefix, inner)| nth % 2 == 0 && can_nest(prefix, inner));
        router = match inner {
            Some((prefix, inner)) => {
                let within = Router::new().route(inner, methods(nth, route));
                router.nest(prefix, layered(within, layer))
            }
            None => router.merge(layered(Router::new().route(&path, methods(nth, route)), layer)),
        };
    }
    router
}

fn layered(router: Router, layer: Option<&GateLayer>) -> Router {
    match layer {
        Some(layer) => router.layer(layer.clone()),
        None => router,
    }
}

async fn axum_host(set: &Set, gate: &Gate, dice: &mut Dice) -> Front {
    let layer = GateLayer::new(gate);
    // Around all routes, around each, or around each where it is nested.
    let app = match dice.below(3) {
        0 => set.routes.iter().enumerate().fold(Router::new(), |router, (nth, route)| {
            router.route(&route.axum(), methods(nth, route))
        }),
        1 => nested(Router::new(), set, None),
        _ => return BoxCloneService::new(nested(Router::new(), set, Some(&layer)).into_service()),
    };
    BoxCloneService::new(app.layer(layer).into_service())
}

#[tokio::test]
async fn axums_handler_is_on_the_gates_route() {
    walk("axum", axum_host, ask_tower).await;
}

#[tokio::test]
async fn axums_handler_is_on_the_gates_route_around_the_whole_router() {
    let host = async |set: &Set, gate: &Gate, _: &mut Dice| {
        let app = nested(Router::new(), set, None);
        BoxCloneService::new(GateLayer::new(gate).layer(app.into_service()))
    };
    walk("tower around axum", host, ask_tower).await;
}

#[tokio::test]
async fn a_functions_handler_is_on_the_gates_route() {
    let ask = async |front: &mut Front, method: &str, path: &str| {
        let event = serde_json::json!({
            "version": "2.0", "rawPath": path, "rawQueryString": "",
            "headers": { "x-tenant": "acme" }, "isBase64Encoded": false,
            "requestContext": {
                "stage": "$default",
                "http": { "method": method, "path": path, "sourceIp": "203.0.113.9" },
            },
        });
        let request = lambda_http::request::from_str(&event.to_string()).ok()?;
        let app = front
            .clone()
            .map_request(|request: Request<lambda_http::Body>| request.map(|_| Body::empty()));
        let response = tallygate_lambda::Function::new(app).call(request).await.unwrap();
        if response.status() != 200 {
            return None;
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Some(read(std::str::from_utf8(&body).unwrap()))
    };
    walk("lambda", axum_host, ask).await;
}

#[test]
fn actix_webs_handler_is_on_the_gates_route() {
    actix_web::rt::System::new().block_on(walk_actix());
}

async fn walk_actix() {
    let host = async |set: &Set, gate: &Gate, _: &mut Dice| {
        let mut app = actix_web::App::new();
        for (nth, route) in set.routes.iter().enumerate() {
            let handler = move |request: actix_web::HttpRequest| {
                let told = told(nth, request.extensions().get::<Admitted>());
                std::future::ready(told)
            };
            for method in &route.methods {
                let method = actix_web::http::Method::from_bytes(method.as_bytes()).unwrap();
                let handler = actix_web::web::method(method).to(handler);
                app = app.route(&route.actix(nth, set.priced), handler);
            }
        }
        actix_web::test::init_service(app.wrap(GateMiddleware::new(gate))).await
    };
    let ask = async |app: &mut _, method: &str, path: &str| {
        let method = actix_web::http::Method::from_bytes(method.as_bytes()).unwrap();
        let request = actix_web::test::TestRequest::with_uri(path).method(method);
        let request = request.insert_header(("x-tenant", "acme")).to_request();
        let response = ask_actix(app, request).await?;
        Some(read(&response))
    };
    walk("actix-web", host, ask).await;
}

async fn ask_actix<S, R, B>(app: &S, request: R) -> Option<String>
where
    S: actix_web::dev::Service<
            R,
            Response = actix_web::dev::ServiceResponse<B>,
            Error = actix_web::Error,
        >,
    B: actix_web::body::MessageBody,
{
    let response = app.call(request).await.unwrap();
    if response.status() != 200 {
        return None;
    }
    let body = actix_web::test::read_body(response).await;
    Some(String::from_utf8(body.to_vec()).unwrap())
}
