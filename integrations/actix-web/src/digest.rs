//! Bodies of requests that count once: read before the gate is asked, so that another body under
//! the same idempotency key is another request.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::rc::Rc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::http::header;
use actix_web::web::{self, Bytes};
use actix_web::{Error, HttpMessage};
use tollgate::Gate;
use tollgate::identity::BodyDigest;

use crate::reply::response;
use crate::view::View;

/// Most bytes of a body that is read ahead, unless [`DigestBodies::at_most`] says otherwise.
const AT_MOST: usize = 2 * 1024 * 1024;

/// Reads the bodies of requests that bring an idempotency key to a route with `once-by`, and leaves
/// their digest for the gate: the same key with another body is then refused with 409. Without it
/// method, path and query alone tell requests apart. Other requests pass untouched.
///
/// It belongs **outside** of the gate: in actix-web, in a later `.wrap(..)`.
///
/// ```
/// use actix_web::{App, web};
/// use tollgate::Gate;
/// use tollgate_actix_web::{DigestBodies, Tollgate};
///
/// # fn app(gate: &Gate) {
/// let app = App::new()
///     .wrap(Tollgate::new(gate))
///     .wrap(DigestBodies::new(gate))
///     .route("/v1/pay", web::post().to(async || "paid"));
/// # drop(app);
/// # }
/// ```
///
/// A body is held in memory, at most 2 MiB of it ([`at_most`](Self::at_most)): a longer one is
/// refused with 413. A body that is being read does not count as in flight yet.
#[derive(Clone, Debug)]
pub struct DigestBodies {
    gate: Gate,
    at_most: usize,
}

/// A service behind [`DigestBodies`].
#[derive(Debug)]
pub struct Digested<S> {
    inner: Rc<S>,
    by: DigestBodies,
}

impl DigestBodies {
    /// For the routes of this gate's plan file.
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone(), at_most: AT_MOST }
    }

    /// Reads at most so many bytes of a body; a longer one is refused with 413.
    #[must_use]
    pub fn at_most(self, bytes: usize) -> Self {
        Self { at_most: bytes, ..self }
    }

    /// All of a request's body; none if it is too long, or broken off, where nobody hears the
    /// answer.
    async fn read(&self, request: &mut ServiceRequest) -> Option<Bytes> {
        let stated = request.headers().get(header::CONTENT_LENGTH);
        let stated = stated.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if stated.is_some_and(|length| length > self.at_most as u64) {
            return None;
        }
        let payload = request.extract::<web::Payload>().await.ok()?;
        payload.to_bytes_limited(self.at_most).await.ok()?.ok()
    }
}

impl<S, B> Transform<S, ServiceRequest> for DigestBodies
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = Digested<S>;
    type InitError = ();
    type Future = Ready<Result<Digested<S>, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(Digested { inner: Rc::new(inner), by: self.clone() }))
    }
}

impl<S, B> Service<ServiceRequest> for Digested<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    forward_ready!(inner);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        if !self.by.gate.counts_once(&View::of(&request)) {
            let served = self.inner.call(request);
            return Box::pin(async move { Ok(served.await?.map_into_left_body()) });
        }
        let (inner, by) = (self.inner.clone(), self.by.clone());
        Box::pin(async move {
            let Some(body) = by.read(&mut request).await else {
                let refused = response(by.gate.body_too_long_reply(by.at_most));
                return Ok(request.into_response(refused).map_into_right_body());
            };
            request.extensions_mut().insert(BodyDigest::of(&body));
            request.set_payload(Payload::from(body));
            Ok(inner.call(request).await?.map_into_left_body())
        })
    }
}
