//! The middleware passed to `wrap`, and the service it builds.

use std::future::{Ready, ready};
use std::rc::Rc;

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use tallygate::Gate;

use crate::body::GateBody;
use crate::future::ResponseFuture;

/// Puts a [`Gate`] in front of an `App` or a `web::Scope`.
///
/// ```
/// # #[actix_web::main]
/// # async fn main() {
/// use actix_web::{App, test, web};
/// use tallygate_actix_web::{Tenant, GateMiddleware};
///
/// let (gate, _clock) = tallygate::testing::gate(r#"
///     default-plan = "free"
///     [plan.free]
///     quota.requests = "1/day"
/// "#);
/// let api = web::scope("/v1")
///     .wrap(GateMiddleware::new(&gate))
///     .route("/me", web::get().to(async |tenant: Tenant| tenant.to_string()));
/// let app = test::init_service(App::new().service(api)).await;
///
/// let ask = || test::TestRequest::get().uri("/v1/me").insert_header(("x-tenant", "acme"));
/// assert_eq!(test::call_and_read_body(&app, ask().to_request()).await, "acme");
/// let refused = test::call_service(&app, ask().to_request()).await;
/// assert_eq!(refused.status(), 429);
/// # }
/// ```
///
/// Middlewares that answer by themselves without charging the tenant belong outside of it: in
/// actix-web, the one wrapped last is outermost. CORS belongs there too: it then answers preflights
/// and lets pages of other origins read refusals.
#[derive(Clone, Debug)]
pub struct GateMiddleware {
    gate: Gate,
}

impl GateMiddleware {
    /// A middleware over this gate. All workers share it: open the gate once, outside the closure
    /// that builds the `App`.
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone() }
    }
}

impl<S, B> Transform<S, ServiceRequest> for GateMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    type Response = ServiceResponse<GateBody<B>>;
    type Error = Error;
    type Transform = Gated<S>;
    type InitError = ();
    type Future = Ready<Result<Gated<S>, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(Gated { inner: Rc::new(inner), gate: self.gate.clone() }))
    }
}

/// A service behind a gate. Made by [`GateMiddleware`].
#[derive(Debug)]
pub struct Gated<S> {
    inner: Rc<S>,
    gate: Gate,
}

impl<S, B> Service<ServiceRequest> for Gated<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    type Response = ServiceResponse<GateBody<B>>;
    type Error = Error;
    type Future = ResponseFuture<S, B>;

    forward_ready!(inner);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        ResponseFuture::new(self.inner.clone(), request, self.gate.clone())
    }
}
