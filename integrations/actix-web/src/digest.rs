//! Digests of request bodies on idempotent routes. The body is read after the gate has admitted the
//! request and before its key is claimed, so that another request with the same idempotency key is
//! recognized by its body and refused.

use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{
    Extensions, Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready,
};
use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage};
use futures_core::Stream;
use tallygate::Gate;
use tallygate::adapter::Waited;
use tallygate::adapter::{AskedAhead, Reading};
use tallygate::identity::{BodyDigest, Caller};
use tallygate::wire::Reply;

use crate::middleware::FindCaller;
use crate::reply::response;
use crate::routes::is_own;
use crate::view::{View, settle_length};

/// Limit on a body that is read ahead, in bytes, unless [`DigestBodies::at_most`] changes it.
const AT_MOST: usize = 2 * 1024 * 1024;

/// Reads the body of requests that carry an idempotency key on a route with `once-by`, so that the
/// same key with another body is refused with 409. Without it, only method, path and query
/// distinguish requests. Other requests pass untouched.
///
/// Put it next to the gate, **outside** of it: in actix-web, in the `.wrap(..)` after it.
/// Authentication middleware belongs outside of both.
///
/// ```
/// use actix_web::{App, web};
/// use tallygate::Gate;
/// use tallygate_actix_web::{DigestBodies, GateMiddleware};
///
/// # fn app(gate: &Gate) {
/// let app = App::new()
///     .wrap(GateMiddleware::new(gate))
///     .wrap(DigestBodies::new(gate))
///     .route("/v1/pay", web::post().to(async || "paid"));
/// # drop(app);
/// # }
/// ```
///
/// The gate decides first: only the body of an admitted request is read. The request counts as in
/// flight meanwhile (`concurrency`), and is charged as if it had no key if its body does not arrive
/// complete. The body is held in memory, up to 2 MiB ([`at_most`](Self::at_most)); a longer one is
/// answered with 413 and charged by that status.
#[derive(Clone, Debug)]
pub struct DigestBodies {
    gate: Gate,
    caller: Option<FindCaller>,
    at_most: usize,
}

/// A service behind [`DigestBodies`].
#[derive(Debug)]
pub struct Digested<S> {
    inner: Rc<S>,
    by: DigestBodies,
}

impl DigestBodies {
    /// Reads bodies on the routes with `once-by` in this gate's plan file.
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone(), caller: None, at_most: AT_MOST }
    }

    /// Reads at most this many bytes of a body, instead of 2 MiB; a longer one is answered with
    /// 413.
    #[must_use]
    pub fn at_most(self, bytes: usize) -> Self {
        Self { at_most: bytes, ..self }
    }

    /// Sets how the caller is found, as [`GateMiddleware::caller`](crate::GateMiddleware::caller)
    /// does: this middleware asks the gate first.
    #[must_use]
    pub fn caller(
        self,
        find: impl Fn(&Extensions) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self { caller: Some(FindCaller(Arc::new(find))), ..self }
    }

    /// Attaches the gate's decision to the request, or returns the reply to send instead.
    async fn decide(&self, request: &mut ServiceRequest) -> Result<(), Reply> {
        if let Some(caller) = &self.caller {
            caller.name(request);
        }
        let mut waited = Waited::default();
        let mut reading = loop {
            let ahead = self.gate.ask_ahead(&View::of(request), self.at_most, waited);
            match ahead {
                AskedAhead::Untouched => return Ok(()),
                AskedAhead::Refused(decided) => {
                    request.extensions_mut().insert(decided);
                    return Ok(());
                }
                AskedAhead::Wait(pending) => waited = pending.await,
                AskedAhead::Read(reading) => break reading,
            }
        };
        match self.read(request, &mut reading).await {
            Read::Whole => {}
            Read::TooLong => return Err(reading.too_long(&self.gate).await),
            // The client has disconnected and will not see this reply.
            Read::BrokenOff => return Err(self.gate.body_too_long_reply(self.at_most)),
        }
        let body = reading.take_body();
        request.extensions_mut().insert(BodyDigest::of(&body));
        request.set_payload(Payload::from(Bytes::from(body)));
        let claim = reading.claim(&self.gate, &View::of(request));
        let decided = claim.await;
        request.extensions_mut().insert(decided);
        Ok(())
    }

    async fn read(&self, request: &mut ServiceRequest, into: &mut Reading) -> Read {
        let stated = request.headers().get(header::CONTENT_LENGTH);
        let stated = stated.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if stated.is_some_and(|length| length > self.at_most as u64) {
            return Read::TooLong;
        }
        let mut payload = request.take_payload();
        while let Some(chunk) = poll_fn(|cx| Pin::new(&mut payload).poll_next(cx)).await {
            match chunk {
                Ok(chunk) if !into.push(&chunk) => return Read::TooLong,
                Ok(_) => {}
                Err(_) => return Read::BrokenOff,
            }
        }
        Read::Whole
    }
}

/// Outcome of reading a body.
enum Read {
    Whole,
    TooLong,
    BrokenOff,
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
        if is_own(&request) || !self.by.gate.counts_once(&View::of(&request)) {
            let served = self.inner.call(request);
            return Box::pin(async move { Ok(served.await?.map_into_left_body()) });
        }
        settle_length(&mut request);
        let (inner, by) = (self.inner.clone(), self.by.clone());
        Box::pin(async move {
            match by.decide(&mut request).await {
                Ok(()) => Ok(inner.call(request).await?.map_into_left_body()),
                Err(reply) => Ok(request.into_response(response(reply)).map_into_right_body()),
            }
        })
    }
}
