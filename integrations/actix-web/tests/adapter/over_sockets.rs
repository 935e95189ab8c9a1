//! The middleware in actix-web's own servers, over real sockets: where it stands, every way in
//! which a request can end, and that each is settled exactly once.

use std::convert::Infallible;
use std::future::ready;
use std::io::{Read, Write};
use std::time::Duration;

use actix_web::body::BodyStream;
use actix_web::dev::Service;
use actix_web::error::{ErrorImATeapot, ErrorInternalServerError, ErrorNotFound};
use actix_web::http::header;
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpResponse};
use tallygate::GateBuilder;
use tallygate::directory::PaymentState;
use tallygate::store::Memory;
use tallygate::testing::{self, Faulty};
use tallygate_actix_web::{GateMiddleware, Usage};
use test_support::gates::{self, Acme};
use test_support::http;
use test_support::plans::ADAPTER as PLANS;
use tokio_stream::StreamExt;

use crate::support::{ACME, Gated, Server};

#[test]
fn an_admitted_response_has_limits_and_is_counted() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", web::get().to(async || "four"))
    });
    let answer = server.send("GET", "/a");
    assert_eq!((answer.status, &*answer.body), (200, "four"));
    assert!(answer.header("ratelimit").contains("\"requests/day\";r=99;"), "{answer:?}");
    assert!(answer.header("ratelimit-policy").contains("\"requests/day\";q=100;w=86400"));
    gated.settled();
    assert_eq!(gated.meter("requests"), (1, 0));
    assert_eq!(gated.meter("egress"), (4, 0));
}

#[test]
fn it_stands_before_routing_and_no_spelling_of_a_path_is_cheaper() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/api/search", web::get().to(async || "found"))
    });
    assert_eq!(server.send("GET", "/api/search?q=1").status, 200);
    assert_eq!(gated.meter("requests").0, 5);
    server.send("GET", "/api/%73earch");
    assert_eq!(gated.meter("requests").0, 10);
    assert_eq!(server.raw("GET", "/nowhere", &[], "").unwrap().status, 401);
    assert_eq!(server.send("GET", "/nowhere").status, 404);
    assert_eq!(gated.meter("requests").0, 11);
}

#[test]
fn a_scope_behind_it_is_gated_and_what_is_beside_is_not() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let api = web::scope("/api")
            .wrap(GateMiddleware::new(&gate))
            .route("/search", web::get().to(async || "found"));
        App::new().service(api).route("/about", web::get().to(async || "us"))
    });
    assert_eq!(server.send("GET", "/api/search").body, "found");
    let beside = server.raw("GET", "/about", &[], "").unwrap();
    assert_eq!((&*beside.body, beside.header("ratelimit")), ("us", ""));
    assert_eq!(gated.meter("requests"), (5, 0), "the cost of /api/search");
}

#[test]
fn routes_without_identity_pass() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&gate)).route("/healthz", web::get().to(async || "ok"))
    });
    let answer = server.raw("GET", "/healthz", &[], "").unwrap();
    assert_eq!((answer.status, answer.header("ratelimit")), (200, ""));
}

#[test]
fn workers_share_one_gate() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", web::get().to(async || "four"))
    });
    let admitted = std::thread::scope(|threads| {
        let run = || (0..30).filter(|_| server.send("GET", "/a").status == 200).count();
        let runs: Vec<_> = (0..4).map(|_| threads.spawn(run)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum::<usize>()
    });
    assert_eq!(admitted, 100, "of 120, by two workers");
    gated.settled();
    assert_eq!(gated.meter("requests"), (100, 0));
}

#[test]
fn head_and_204_are_complete_without_a_poll_of_their_body() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/a", web::head().to(async || "four"))
            .route("/b", web::get().to(async || HttpResponse::NoContent().finish()))
    });
    let head = server.send("HEAD", "/a");
    assert_eq!((head.status, &*head.body, head.header("content-length")), (200, "", "4"));
    assert_eq!(server.send("GET", "/b").status, 204);
    gated.settled();
    assert_eq!(gated.meter("requests"), (2, 0));
    assert_eq!(gated.meter("egress"), (0, 0));
}

/// `n` chunks of 700 bytes and then, if so wanted, nothing for ever.
fn chunks(n: usize, then_waits: bool) -> HttpResponse {
    let chunk = Bytes::from_static(&[b'x'; 700]);
    let some = tokio_stream::iter(std::iter::repeat_n(Ok::<_, Infallible>(chunk), n));
    match then_waits {
        false => HttpResponse::Ok().streaming(some),
        true => HttpResponse::Ok().streaming(some.chain(tokio_stream::pending())),
    }
}

#[test]
fn a_stream_of_many_draws_is_counted_to_the_byte() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let stream = web::get().to(async || chunks(1_000, false));
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", stream)
    });
    let answer = server.send("GET", "/a");
    assert_eq!((answer.body.len(), answer.is_whole), (700_000, true));
    gated.settled();
    assert_eq!(gated.meter("egress"), (700_000, 0));
}

#[test]
fn a_client_that_goes_away_in_mid_stream_pays_once_for_what_passed() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let stream = web::get().to(async || chunks(4, true));
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", stream)
    });
    let mut socket = server.open("GET", "/a");
    let mut read = String::new();
    while read.matches('x').count() < 2_800 {
        let mut some = [0; 512];
        let n = socket.read(&mut some).unwrap();
        read.push_str(std::str::from_utf8(&some[..n]).unwrap());
    }
    let (used, held) = gated.meter("egress");
    assert_eq!((used, gated.in_flight()), (2_800, 1));
    assert!(held > 0, "{held}");
    drop(socket);
    gated.settled();
    assert_eq!(gated.meter("egress"), (2_800, 0));
    assert_eq!(gated.meter("requests"), (1, 0));
}

/// Four bytes, and then nothing for ever.
fn four_then_waits() -> impl tokio_stream::Stream<Item = Result<Bytes, Infallible>> {
    tokio_stream::once(Ok(Bytes::from_static(b"four"))).chain(tokio_stream::pending())
}

#[test]
fn a_client_that_has_read_all_of_a_stated_length_has_not_gone_away() {
    let gated = Gated::new(&PLANS.replace("concurrency", "charge-on = [\"2xx\"]\nconcurrency"));
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let by_size = async || HttpResponse::Ok().no_chunking(4).streaming(four_then_waits());
        let by_header =
            async || HttpResponse::Ok().no_chunking(4).body(BodyStream::new(four_then_waits()));
        let unsent = async || {
            let mut response = HttpResponse::Ok().streaming(four_then_waits());
            let stated = header::HeaderValue::from_static("4");
            response.headers_mut().insert(header::CONTENT_LENGTH, stated);
            response
        };
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/size", web::get().to(by_size))
            .route("/header", web::get().to(by_header))
            .route("/unsent", web::get().to(unsent))
    });
    for (path, used) in [("/size", 1), ("/header", 2), ("/unsent", 2)] {
        let mut socket = server.open("GET", path);
        let mut read = Vec::new();
        while !read.windows(4).any(|some| some == b"four") {
            let mut some = [0; 512];
            let n = socket.read(&mut some).unwrap();
            read.extend_from_slice(&some[..n]);
        }
        drop(socket);
        gated.settled();
        assert_eq!(gated.meter("requests"), (used, 0), "{path}");
    }
}

#[test]
fn a_server_that_allows_half_closed_clients_notices_at_the_next_write() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let app = move || {
        let stream = web::get().to(async || chunks(usize::MAX, false));
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", stream)
    };
    let server = Server::start_with(app, true);
    let mut socket = server.open("GET", "/a");
    socket.read_exact(&mut [0; 5_000]).unwrap();
    drop(socket);
    gated.settled();
    let (used, held) = gated.meter("egress");
    assert!(used > 4_000, "{used}");
    assert_eq!((held, gated.meter("requests")), (0, (1, 0)));
    assert_eq!(gated.meter("egress"), (used, 0), "settled once");
}

#[test]
fn a_client_that_goes_away_before_its_answer_holds_nothing_back() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let never = web::get().to(async || std::future::pending::<&'static str>().await);
        let now = web::get().to(async || "now");
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", never).route("/b", now)
    });
    // With a lease at hand a request that is in flight is with its handler.
    assert_eq!(server.send("GET", "/b").body, "now");
    gated.settled();
    let socket = server.open("GET", "/a");
    gated.until_in_flight(1);
    drop(socket);
    gated.settled();
    assert_eq!(gated.meter("requests"), (2, 0), "aborted, and charged");
}

#[test]
fn a_body_is_charged_as_it_is_read_whatever_length_is_stated() {
    let plans = r#"
        default-plan = "free"
        [meter.ingress]
        count = "request-bytes"
        hold = "1KB"
        [plan.free]
        concurrency = 100
        quota.ingress = "2KB/day"
    "#;
    let gated = Gated::new(plans);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let half = async |mut body: web::Payload| {
            let mut read = 0;
            while read < 500 {
                read += body.next().await.unwrap().unwrap().len();
            }
            read.to_string()
        };
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/unread", web::post().to(async || "not read"))
            .route("/half", web::post().to(half))
            .route("/read", web::post().to(async |body: Bytes| body.len().to_string()))
    });
    let send = |path: &str, stated: u64, sent: usize| {
        let body = "x".repeat(sent);
        let rest = format!(
            "x-tenant: acme\r\nconnection: close\r\ncontent-length: {stated}\r\n\r\n{body}"
        );
        let answer = http::read(&mut server.open_raw("POST", path, &rest), "POST").unwrap();
        gated.settled();
        (answer.status, answer.body)
    };
    for (stated, sent) in [(1 << 59, 0), (1 << 59, 4), (1_000, 1_000)] {
        let answer = send("/unread", stated, sent);
        assert_eq!(answer, (200, "not read".to_owned()), "{stated} stated");
        assert_eq!(gated.meter("ingress"), (0, 0), "{stated} stated, {sent} sent, none read");
    }
    assert_eq!(send("/half", 1_000, 500), (200, "500".to_owned()));
    assert_eq!(gated.meter("ingress"), (500, 0), "half of it came and was read");
    assert_eq!(send("/read", 1_500, 1_500), (200, "1500".to_owned()));
    assert_eq!(gated.meter("ingress"), (2_000, 0));
    assert_eq!(send("/read", 1, 1).0, 429);
}

#[test]
fn a_stream_is_cut_where_its_units_end_and_what_was_counted_arrives() {
    let plans = PLANS.replace("hold = \"1KB\"", "hold = \"700B\"\n    cut = true");
    let gated = Gated::new(&plans.replace("1MB/day", "2100B/day"));
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let stream = web::get().to(async || chunks(9, false));
        App::new().wrap(GateMiddleware::new(&gate)).route("/a", stream)
    });
    let answer = server.send("GET", "/a");
    assert_eq!((answer.body.len(), answer.is_whole), (2_100, false));
    gated.settled();
    assert_eq!(gated.meter("egress"), (2_100, 0));
}

#[test]
fn an_error_of_the_handler_is_charged_by_its_status() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let broken = async || Err::<&'static str, _>(ErrorInternalServerError("it broke"));
        let missing = async || Err::<&'static str, _>(ErrorNotFound("it is not here"));
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/broken", web::get().to(broken))
            .route("/missing", web::get().to(missing))
    });
    let broken = server.send("GET", "/broken");
    assert_eq!((broken.status, &*broken.body), (500, "it broke"));
    assert!(broken.header("ratelimit").contains("requests/day"), "{broken:?}");
    assert_eq!(gated.meter("requests"), (0, 0), "`charge-on` leaves 5xx out");
    assert_eq!(server.send("GET", "/missing").status, 404);
    assert_eq!(gated.meter("requests"), (1, 0));
    gated.settled();
    assert_eq!(gated.meter("egress"), (22, 0), "what was sent was sent");
}

#[test]
fn an_error_of_a_middleware_within_passes_and_is_charged_by_its_status() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new()
            .wrap_fn(|request, service| {
                let is_pot = request.path() == "/pot";
                let served = service.call(request);
                async move {
                    let served = served.await?;
                    match (is_pot, served.status().as_u16()) {
                        (true, _) => Err(ErrorImATeapot("short and stout")),
                        (false, 200) => Err(ErrorInternalServerError("it broke")),
                        _ => Ok(served),
                    }
                }
            })
            .wrap(GateMiddleware::new(&gate))
            .route("/a", web::get().to(async || "never seen"))
    });
    let broken = server.send("GET", "/a");
    assert_eq!((broken.status, &*broken.body), (500, "it broke"));
    assert_eq!(gated.meter("requests"), (0, 0));
    assert_eq!(server.send("GET", "/pot").status, 418);
    assert_eq!(gated.meter("requests"), (1, 0));
    gated.settled();
}

#[test]
fn a_panic_is_a_failure_and_holds_nothing_back() {
    let gated = Gated::new(PLANS);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let panics = async || -> &'static str { panic!("on purpose") };
        let later = async || {
            let chunk = Ok::<_, Infallible>(Bytes::from_static(b"four"));
            let rest = tokio_stream::once(()).map(|()| panic!("on purpose, later"));
            HttpResponse::Ok().streaming(tokio_stream::once(chunk).chain(rest))
        };
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/a", web::get().to(panics))
            .route("/b", web::get().to(later))
            .route("/c", web::get().to(async || "fine"))
    });
    assert!(server.raw("GET", "/a", &[ACME], "").is_none(), "the connection is closed");
    gated.settled();
    assert_eq!(gated.meter("requests"), (0, 0), "`charge-on` leaves 5xx out");
    assert_eq!(gated.meter("egress"), (0, 0));

    // With its head the request was charged; the bytes that passed before the panic count.
    assert!(server.raw("GET", "/b", &[ACME], "").is_none_or(|answer| !answer.is_whole));
    gated.settled();
    assert_eq!(gated.meter("requests"), (1, 0));
    assert_eq!(gated.meter("egress"), (4, 0));
    assert_eq!(server.send("GET", "/c").body, "fine", "and the worker goes on");
}

fn durable(plans: &str) -> GateBuilder {
    GateBuilder::from_text(&gates::service("durable")).plans(plans)
}

#[test]
fn in_mode_durable_an_answer_that_has_come_is_recorded() {
    let table = Memory::new();
    let gated = Gated::new(PLANS);
    let builder = durable(PLANS).store(table.clone());
    let gate = gated.run(builder.open()).unwrap();
    let served = gate.clone();
    let server = Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&served))
            .route("/a", web::get().to(async || chunks(3, false)))
            .route("/b", web::get().to(async || "four"))
    });
    for (path, used) in [("/a", 2_100), ("/b", 2_104)] {
        assert!(server.send("GET", path).is_whole);
        // A gate that knows nothing but the store.
        let other = gated.run(async {
            let other = durable(PLANS).store(table.clone()).identify(Acme).open().await.unwrap();
            gates::meter(&other, "egress").await
        });
        assert_eq!(other.0, used, "{path}");
    }
}

/// The request costs if the client does not go away, or what its handler reports does.
const LATE: [&str; 2] = [
    r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "100/day"
    charge-on = ["2xx"]
    "#,
    r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold = "10"
    [plan.free]
    quota.tokens = "1M/day"
    "#,
];

#[test]
fn in_mode_durable_the_end_waits_for_the_record_of_what_is_known_by_then() {
    for plans in LATE {
        let store = Faulty::scripted(Memory::new(), []);
        let gated = Gated::new(plans);
        let builder = durable(plans).store(store.clone());
        let (gate, away) = (gated.run(builder.open()).unwrap(), store.clone());
        let server = Server::start(move || {
            let (away, reports) = (away.clone(), plans.contains("tokens"));
            let stream = move |usage: Usage| {
                let away = away.clone();
                let chunks = tokio_stream::iter(0..3).map(move |_| {
                    away.outage(true); // the head has been recorded
                    if reports {
                        usage.add("tokens", 7);
                    }
                    Ok::<_, Infallible>(Bytes::from_static(b"four"))
                });
                ready(HttpResponse::Ok().streaming(chunks))
            };
            App::new().wrap(GateMiddleware::new(&gate)).route("/a", web::get().to(stream))
        });
        std::thread::scope(|threads| {
            let answer = threads.spawn(|| server.send("GET", "/a"));
            gated.run(async { tokio::time::sleep(Duration::from_millis(200)).await });
            assert!(!answer.is_finished(), "{plans}");
            store.outage(false);
            assert!(answer.join().unwrap().is_whole);
        });
    }
}

const EVERY_REFUSAL: &str = r#"
    default-plan = "free"
    [meter.ingress]
    count = "request-bytes"
    hold = "1B"
    [route.export]
    match = "POST /export"
    needs = "exports"
    [route.search]
    match = "GET /search"
    [plan.free]
    concurrency = 100
    rate.search = "1/min"
    quota.requests = "5/day"
    quota.ingress = "10B/day"
    [plan.pro]
    feature.exports = true
"#;

#[test]
fn refusals_are_problems_and_never_reach_the_handler() {
    let store = Faulty::scripted(Memory::new(), []);
    let gated = Gated::with(|| testing::gate_with(EVERY_REFUSAL, store.clone()));
    let tenant = |id: &str| gated.gate.directory().tenant(id).note("test");
    gated.run(tenant("late").payment(PaymentState::Unpaid).save()).unwrap();
    gated.run(tenant("gone").suspend().save()).unwrap();
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let once = web::get().to(async |_: Bytes| "found");
        let never = web::route().to(async || -> &'static str { panic!("the handler was called") });
        App::new().wrap(GateMiddleware::new(&gate)).route("/search", once).default_service(never)
    });
    // It is read, and then there is room for no more bytes.
    assert_eq!(server.raw("GET", "/search", &[ACME], "ten bytes!").unwrap().status, 200);

    let anonymous = server.raw("GET", "/", &[], "").unwrap();
    assert_eq!((anonymous.status, anonymous.header("www-authenticate")), (401, "Bearer"));
    let rate = server.send("GET", "/search");
    assert_eq!((rate.status, rate.header("retry-after")), (429, "60"));
    assert_eq!(rate.header("ratelimit"), "\"search\";r=0;t=60");
    assert_eq!(rate.header("ratelimit-policy"), "\"search\";q=1;w=60");
    assert!(rate.body.contains("\"violated-policies\":[\"search\"],\"plan\":\"free\""));
    let feature = server.send("POST", "/export");
    assert_eq!((feature.status, feature.header("retry-after")), (403, ""));
    assert!(feature.body.contains("\"type\":\"/problems/feature-not-in-plan\""), "{feature:?}");
    let long = server.raw("PUT", "/", &[ACME], "eleven byte").unwrap();
    assert_eq!(long.status, 429);
    assert!(long.body.contains("\"violated-policies\":[\"ingress/day\"]"), "{long:?}");
    let chunked = [ACME, ("transfer-encoding", "chunked")];
    let unknown = server.raw("PUT", "/", &chunked, "3\r\nabc\r\n0\r\n\r\n").unwrap();
    assert_eq!(unknown.status, 411);
    let late = server.raw("GET", "/", &[("x-tenant", "late")], "").unwrap();
    assert_eq!((late.status, late.header("retry-after")), (402, ""));
    let gone = server.raw("GET", "/", &[("x-tenant", "gone")], "").unwrap();
    assert_eq!(gone.status, 403);
    store.outage(true);
    let away = server.raw("GET", "/", &[("x-tenant", "new")], "").unwrap();
    assert_eq!((away.status, away.header("retry-after")), (503, "1"));
    store.outage(false);

    for refused in [anonymous, rate, feature, long, unknown, late, gone, away] {
        assert_eq!(refused.header("content-type"), "application/problem+json", "{refused:?}");
        assert_eq!(refused.header("cache-control"), "no-store", "{refused:?}");
        assert!(refused.body.contains(&format!("\"status\":{}", refused.status)), "{refused:?}");
    }
    gated.settled();
    assert_eq!(gated.meter("requests"), (1, 0));
}

/// What is owed for a request whose client went away is owed as well where the server goes away:
/// with its server stopped first, or not.
#[test]
fn unfinished_uploads_are_recorded_when_the_gate_is_closed() {
    const UPLOADS: usize = 200;
    let plans = r#"
        default-plan = "free"
        [plan.free]
        concurrency = 1000
        quota.requests = "1000/day"
    "#;
    for is_stopped in [true, false] {
        let table = Memory::new();
        let gated = Gated::with(|| testing::gate_with(plans, table.clone()));
        let gate = gated.gate.clone();
        let server = Server::start(move || {
            let upload = web::post().to(async |body: Bytes| body.len().to_string());
            App::new().wrap(GateMiddleware::new(&gate)).route("/up", upload)
        });
        let begun = "x-tenant: acme\r\ncontent-length: 1000\r\n\r\nfour";
        let begin = |_| server.open_raw("POST", "/up", begun);
        let sockets: Vec<_> = (0..UPLOADS).map(begin).collect();
        gated.until_in_flight(UPLOADS as u32);
        let kept = if is_stopped {
            drop(server);
            None
        } else {
            Some(server)
        };
        gated.run(gated.gate.close()).unwrap();
        let after = Gated::with(|| testing::gate_with(plans, table));
        assert_eq!(after.meter("requests").0, UPLOADS as u64, "stopped first: {is_stopped}");
        drop((sockets, kept));
    }
}

/// A client that delays its acknowledgements lets a server wait 40 ms between two small writes.
#[test]
fn in_mode_durable_an_answer_that_is_ready_comes_in_one_write() {
    let gated = Gated::new(PLANS);
    let builder = durable(PLANS);
    let gate = gated.run(builder.open()).unwrap();
    let served = gate.clone();
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&served)).route("/a", web::get().to(async || "four"))
    });
    let mut socket = server.open_raw("GET", "/a", "x-tenant: acme\r\n\r\n").into_inner();
    for n in 1..=10 {
        let mut read = [0; 4_096];
        let first = socket.read(&mut read).unwrap();
        let first = String::from_utf8_lossy(&read[..first]);
        assert!(first.starts_with("HTTP/1.1 200") && first.ends_with("four"), "{n}: {first}");
        socket.write_all(b"GET /a HTTP/1.1\r\nhost: test\r\nx-tenant: acme\r\n\r\n").unwrap();
    }
}
