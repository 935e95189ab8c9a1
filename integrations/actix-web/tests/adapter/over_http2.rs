//! Bodies over HTTP/2, where no header has to say that there is one: over a real socket, without
//! TLS (h2c).

use std::sync::mpsc;

use actix_web::web::{self, Bytes};
use actix_web::{App, HttpServer, rt};
use http::Method;
use tallygate_actix_web::GateMiddleware;
use tokio::net::TcpStream;

use crate::support::Gated;

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    concurrency = 100
    quota.requests = "100/day"
"#;

/// Request bodies are counted.
const METERED: &str = r#"
    default-plan = "free"
    [meter.ingress]
    count = "request-bytes"
    hold = "1B"
    [plan.free]
    concurrency = 100
    quota.requests = "100/day"
    quota.ingress = "1KB/day"
"#;

/// A server that answers with the length of what it got; this sends it requests with these bodies,
/// without a `content-length`, and returns status and body of each.
fn asked(plans: &str, requests: Vec<(Method, Option<&'static str>)>) -> Vec<(u16, String)> {
    let gated = Gated::new(plans);
    let gate = gated.gate.clone();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        rt::System::new().block_on(async move {
            let app = move || {
                let length = web::route().to(async |body: Bytes| body.len().to_string());
                App::new().wrap(GateMiddleware::new(&gate)).default_service(length)
            };
            let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(1);
            let server = server.bind_auto_h2c(("127.0.0.1", 0)).unwrap();
            let address = server.addrs()[0];
            let running = server.run();
            tell.send((address, running.handle())).unwrap();
            running.await.unwrap();
        });
    });
    let (address, handle) = told.recv().unwrap();
    let answers = gated.run(async {
        let socket = TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut answers = Vec::new();
        for (method, body) in requests {
            let mut client = client.clone().ready().await.unwrap();
            let request = http::Request::builder().method(method).uri("http://test/a");
            let request = request.header("x-tenant", "acme").body(()).unwrap();
            let (answer, mut sender) = client.send_request(request, body.is_none()).unwrap();
            if let Some(body) = body {
                // Late: the head is with the server alone.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                // It fails where the answer has come already.
                let _ = sender.send_data(Bytes::from_static(body.as_bytes()), true);
            }
            let mut answer = answer.await.unwrap();
            let mut text = Vec::new();
            while let Some(data) = answer.body_mut().data().await {
                text.extend_from_slice(&data.unwrap());
            }
            answers.push((answer.status().as_u16(), String::from_utf8(text).unwrap()));
        }
        connection.abort();
        answers
    });
    drop(handle.stop(false));
    thread.join().unwrap();
    answers
}

#[test]
fn a_handler_gets_the_body_of_a_get_over_http2() {
    let get = || Method::GET;
    let requests = vec![(get(), Some("seven b")), (get(), None), (Method::POST, Some("four"))];
    let answers = asked(PLANS, requests);
    assert_eq!(answers, [(200, "7".into()), (200, "0".into()), (200, "4".into())]);
}

#[test]
fn a_request_without_a_body_needs_no_length_over_http2() {
    let requests = vec![
        (Method::GET, None),
        (Method::POST, None),
        (Method::GET, Some("seven b")),
        (Method::POST, Some("four")),
    ];
    let statuses: Vec<u16> =
        asked(METERED, requests).into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses, [200, 200, 411, 411]);
}
