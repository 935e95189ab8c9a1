//! The middleware passed to `wrap`, and the service it builds.

use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{
    Extensions, Service, ServiceRequest, ServiceResponse, Transform, forward_ready,
};
use actix_web::{Error, HttpMessage};
use tallygate::Gate;
use tallygate::identity::Caller;

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
    caller: Option<FindCaller>,
}

impl GateMiddleware {
    /// A middleware over this gate. All workers share it: open the gate once, outside the closure
    /// that builds the `App`.
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone(), caller: None }
    }

    /// Sets how the caller is found in the request's extensions, where the host's own
    /// authentication, in a middleware around this one, has left what it knows. `None`: the caller
    /// is identified as without this, by `GateBuilder::identify` and the `[[identify]]` tables. It
    /// is called once for each request, before the gate is asked, and must not block.
    ///
    /// ```
    /// use tallygate_actix_web::{Caller, GateMiddleware};
    ///
    /// struct User {
    ///     org: String,
    ///     id: String,
    ///     plan: String,
    /// }
    ///
    /// # fn example(gate: &tallygate::Gate) -> GateMiddleware {
    /// GateMiddleware::new(gate).caller(|extensions| {
    ///     let user = extensions.get::<User>()?;
    ///     Some(Caller::new(&user.org).user(&user.id).plan(&user.plan))
    /// })
    /// # }
    /// ```
    ///
    /// The middleware leaves the caller in the extensions, so that [`usage_routes`] within it know
    /// it too. A host may also put a [`Caller`] there by itself, without this.
    ///
    /// [`usage_routes`]: crate::usage_routes
    #[must_use]
    pub fn caller(
        self,
        find: impl Fn(&Extensions) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self { caller: Some(FindCaller(Arc::new(find))), ..self }
    }
}

/// The host's function from a request's extensions to its caller.
type CallerFn = dyn Fn(&Extensions) -> Option<Caller> + Send + Sync;

/// Finds the caller in a request's extensions.
#[derive(Clone)]
pub(crate) struct FindCaller(pub(crate) Arc<CallerFn>);

impl FindCaller {
    /// Puts the caller into the request's extensions, where every view of it finds it.
    pub(crate) fn name(&self, request: &ServiceRequest) {
        let caller = (self.0)(&request.extensions());
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
    }
}

impl std::fmt::Debug for FindCaller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FindCaller(..)")
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
        ready(Ok(Gated { inner: Rc::new(inner), by: self.clone() }))
    }
}

/// A service behind a gate. Made by [`GateMiddleware`].
#[derive(Debug)]
pub struct Gated<S> {
    inner: Rc<S>,
    by: GateMiddleware,
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
        if let Some(caller) = &self.by.caller {
            caller.name(&request);
        }
        ResponseFuture::new(self.inner.clone(), request, self.by.gate.clone())
    }
}
