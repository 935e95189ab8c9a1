//! actix-web's app, served by actix-web over a socket, with two workers.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

use actix_web::dev::ServerHandle;
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, ServiceConfig};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, rt};
use equality::answer::Answer;
use equality::api::{self, Api, Failed, Said};
use equality::client;
use equality::front::Front;
use equality::trace::Request;
use tallygate::Gate;
use tallygate_actix_web::{GateMiddleware, Refused, Usage, usage_routes};
use tokio::runtime::Runtime;

/// See the [module](self).
pub(crate) struct Actix {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Actix {
    pub(crate) fn new(gate: &Gate, _: &Runtime) -> Self {
        Self::serve(gate, |_, app| {
            app.default_service(web::to(handle));
        })
    }

    /// A host with a route of its own, the gate's beside it, and none for the rest.
    pub(crate) fn routed(gate: &Gate, _: &Runtime) -> Self {
        Self::serve(gate, |gate, app| {
            app.route("/v1/search", web::get().to(handle)).configure(usage_routes(gate));
        })
    }

    fn serve(gate: &Gate, routes: fn(&Gate, &mut ServiceConfig)) -> Self {
        let gate = gate.clone();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            rt::System::new().block_on(async move {
                let app = move || {
                    App::new()
                        .wrap(GateMiddleware::new(&gate))
                        .app_data(Data::new(Api::new(&gate)))
                        .configure(|app| routes(&gate, app))
                };
                let server = HttpServer::new(app)
                    .workers(2)
                    .disable_signals()
                    // As hyper does by itself: a client that went away is noticed at once.
                    .h1_allow_half_closed(false)
                    .bind(("127.0.0.1", 0))
                    .unwrap();
                let address = server.addrs()[0];
                let running = server.run();
                tell.send((address, running.handle())).unwrap();
                running.await.unwrap();
            });
        });
        let (address, handle) = told.recv().unwrap();
        Self { address, handle, thread: Some(thread) }
    }
}

impl Front for Actix {
    type Open = TcpStream;

    fn send(&mut self, request: &Request) -> Answer {
        client::send(self.address, request)
    }

    fn open(&mut self, request: &Request, bytes: usize) -> (Answer, TcpStream) {
        client::open(self.address, request, bytes)
    }
}

impl Drop for Actix {
    fn drop(&mut self) {
        // The command goes through a channel; what it answers is of no interest.
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn handle(
    api: Data<Api>,
    usage: Option<Usage>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Error> {
    let usage = usage.map(|usage| (*usage).clone());
    match api.respond(&request.uri().to_string(), body.len(), usage).await {
        Ok(Said::Text(204, _)) => Ok(HttpResponse::NoContent().finish()),
        Ok(Said::Text(status, text)) => {
            let status = StatusCode::from_u16(status).unwrap();
            Ok(HttpResponse::build(status).content_type(api::TEXT).body(text))
        }
        Ok(Said::Stream(chunks)) => {
            Ok(HttpResponse::Ok().content_type(api::TEXT).streaming(chunks))
        }
        Err(Failed::Error(status, text)) => {
            Err(InternalError::new(text, StatusCode::from_u16(status).unwrap()).into())
        }
        Err(Failed::Refused(refusal)) => Err(Refused::from(*refusal).into()),
    }
}
