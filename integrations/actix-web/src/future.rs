//! Response future: waits if the decision is not in memory, calls the service, settles what the
//! head decides, and leaves the rest to the body.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::{Error, HttpMessage};
use pin_project_lite::pin_project;
use tallygate::adapter::{Answer, Pending, Running, Step, Waited};
use tallygate::adapter::{Serving, is_upgrade, stated_length, wait_for_both};
use tallygate::{Gate, Refusal, RefusedCall};

use crate::body::GateBody;
use crate::refused::{Refused, RefusedReply};
use crate::reply;
use crate::routes::is_own;
use crate::view::{View, count_reads, settle_length};

pin_project! {
    /// Response future of [`Gated`](crate::Gated): waits if the decision is not in memory, calls
    /// the service, and settles what the head of the response determines.
    pub struct ResponseFuture<S, B>
    where
        S: Service<ServiceRequest>,
    {
        #[pin]
        state: State<S::Future, B>,
        service: Rc<S>,
        gate: Gate,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        // Asking the gate; `pending` is what it said to wait for.
        Asking { request: Option<ServiceRequest>, pending: Option<Pending>, waited: Waited },
        // The service is running.
        Serving {
            #[pin]
            future: F,
            serving: Option<Serving>,
            asked: Asked,
            // The request for a refusal that its handler may return, if the host asks for it.
            call: Option<Box<RefusedCall>>,
        },
        // The response waits for a record (`durable`) or for the claim on its key.
        Recording {
            pending: Pending,
            answer: Option<Result<ServiceResponse<GateBody<B>>, Error>>,
        },
        Done,
    }
}

/// What the response needs to know about its request.
#[derive(Clone, Copy)]
struct Asked {
    is_head: bool,
    is_connect: bool,
    /// Has an `Origin` header: the caller may be a page of another origin.
    has_origin: bool,
}

impl Asked {
    fn by(request: &ServiceRequest) -> Self {
        Self {
            is_head: request.method() == Method::HEAD,
            is_connect: request.method() == Method::CONNECT,
            has_origin: request.headers().contains_key(header::ORIGIN),
        }
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<ServiceRequest>,
{
    pub(crate) fn new(service: Rc<S>, mut request: ServiceRequest, gate: Gate) -> Self {
        settle_length(&mut request);
        let request = Some(request);
        let state = State::Asking { request, pending: None, waited: Waited::default() };
        Self { state, service, gate }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    type Output = Result<ServiceResponse<GateBody<B>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let gate = &*this.gate;
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Asking { request, pending, waited } => {
                    if let Some(wait) = pending {
                        *waited = ready!(wait.as_mut().poll(cx));
                        *pending = None;
                    }
                    let asked = request.as_ref().map(|r| ask(gate, r, std::mem::take(waited)));
                    match (asked, request.take()) {
                        (Some(Step::Wait(wait)), same) => {
                            (*pending, *request) = (Some(wait), same);
                            continue;
                        }
                        (Some(Step::Done(Answer::Refuse(refusal))), Some(request)) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Ok(refuse(gate, request, &refusal)));
                        }
                        (Some(Step::Done(Answer::Admit(running))), Some(request)) => {
                            Some(serve(gate, this.service, request, Some(running)))
                        }
                        (Some(Step::Done(Answer::Pass)), Some(request)) => {
                            Some(serve(gate, this.service, request, None))
                        }
                        _ => None,
                    }
                }
                StateProj::Serving { future, serving, asked, call } => {
                    let answer = ready!(Serving::guard(serving, gate, || future.poll(cx)));
                    let (serving, asked, call) = (serving.take(), *asked, call.take());
                    let (answer, wait) = match answer {
                        Ok(response) => {
                            let (response, wait) = finish(gate, response, serving, (asked, call));
                            (Ok(response), wait)
                        }
                        Err(error) => {
                            let (error, wait) = failed(gate, error, serving, (asked, call));
                            (Err(error), wait)
                        }
                    };
                    match wait {
                        None => {
                            this.state.set(State::Done);
                            return Poll::Ready(answer);
                        }
                        Some(pending) => Some(State::Recording { pending, answer: Some(answer) }),
                    }
                }
                StateProj::Recording { pending, answer } => {
                    ready!(pending.as_mut().poll(cx));
                    let answer = answer.take();
                    this.state.set(State::Done);
                    match answer {
                        Some(answer) => return Poll::Ready(answer),
                        None => None,
                    }
                }
                StateProj::Done => None,
            };
            match next {
                Some(next) => this.state.set(next),
                // Reached only if the future is polled after completion, as with any other future.
                None => panic!("`ResponseFuture` polled after it was ready"),
            }
        }
    }
}

/// Asks the gate about a request. Requests for [`crate::usage_routes`] and [`crate::ingest_routes`]
/// of this app pass: those routes ask the gate themselves.
fn ask(gate: &Gate, request: &ServiceRequest, waited: Waited) -> Step {
    if is_own(request) {
        return Step::Done(Answer::Pass);
    }
    gate.admit_request(&View::of(request), waited)
}

fn refuse<B>(
    gate: &Gate,
    request: ServiceRequest,
    refusal: &Refusal,
) -> ServiceResponse<GateBody<B>> {
    let told = reply::refusal(gate, refusal, Asked::by(&request).has_origin);
    let (request, _) = request.into_parts();
    let response = reply::with_body(told, GateBody::full);
    ServiceResponse::new(request, response)
}

/// Calls the service, with the gate's handles in the request's extensions.
fn serve<S: Service<ServiceRequest>, B>(
    gate: &Gate,
    service: &S,
    mut request: ServiceRequest,
    running: Option<Running>,
) -> State<S::Future, B> {
    let serving = running.map(|running| {
        if let Some(read) = running.reads() {
            count_reads(&mut request, read);
        }
        let (serving, admitted) = Serving::share(gate, running);
        let before = request.extensions_mut().insert(admitted);
        gate.note_passed_twice(before.as_ref(), None);
        serving
    });
    let asked = Asked::by(&request);
    let call = serving.as_ref().and_then(|_| gate.describe(&View::of(&request)));
    State::Serving { future: service.call(request), serving, asked, call }
}

/// Settles what the head decides, writes the headers, and leaves the rest to the body.
fn finish<B: MessageBody>(
    gate: &Gate,
    mut response: ServiceResponse<B>,
    serving: Option<Serving>,
    (asked, call): (Asked, Option<Box<RefusedCall>>),
) -> (ServiceResponse<GateBody<B>>, Option<Pending>) {
    let Some(mut serving) = serving else {
        return (response.map_body(|_, body| GateBody::plain(body)), None);
    };
    let refused = response.response().error().and_then(|error| error.as_error::<Refused>());
    if let Some(refused) = refused {
        // The handler returned a refusal it got from the gate: write it like any other refusal.
        let mut refusal = refused.refusal().clone();
        serving.complete(&mut refusal, call);
        let told = reply::refusal(gate, &refusal, asked.has_origin);
        let wait = serving.answer(gate, told.status);
        let (request, _) = response.into_parts();
        let response = reply::with_body(told, GateBody::full);
        return (ServiceResponse::new(request, response), wait);
    }
    reply::limits(gate, &mut serving, response.headers_mut());
    if asked.has_origin {
        reply::expose(gate, response.headers_mut());
    }
    let status = response.status();
    // actix-web sends the body of a 2xx to `CONNECT` like any other, unless the handler upgrades.
    let is_tunnel = asked.is_connect && response.response().head().upgrade();
    if is_upgrade(status.as_u16(), is_tunnel) {
        let (upgraded, wait) = serving.upgrade(gate, status.as_u16());
        let response = response.map_body(|_, body| GateBody::upgraded(body, upgraded));
        return (response, wait);
    }
    let (is_empty, length) = match response.response().body().size() {
        BodySize::None | BodySize::Sized(0) => (true, None),
        BodySize::Sized(length) => (false, Some(length)),
        // Without chunked encoding the `Content-Length` header is sent, and marks the end of the
        // body.
        BodySize::Stream if !response.response().head().chunked() => {
            let stated = response.headers().get_all(header::CONTENT_LENGTH);
            (false, stated_length(stated.map(|value| value.as_bytes())))
        }
        BodySize::Stream => (false, None),
    };
    let is_empty = is_empty
        || asked.is_head
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let head = serving.into_body(gate, status.as_u16(), is_empty, || length);
    let mut more = None;
    let response = response.map_body(|_, body| match head.body {
        Some(count) if count.ends_late() => {
            let (body, wait) = GateBody::counted_ahead(body, count);
            more = wait;
            body
        }
        Some(count) => GateBody::counted(body, count),
        None => GateBody::plain(body),
    });
    (response, wait_for_both(head.wait, more))
}

/// Settles a request that ended with an error, by the error's status; like any other response, it
/// may have to wait.
fn failed(
    gate: &Gate,
    error: Error,
    serving: Option<Serving>,
    (asked, call): (Asked, Option<Box<RefusedCall>>),
) -> (Error, Option<Pending>) {
    let Some(mut serving) = serving else { return (error, None) };
    let Some(refused) = error.as_error::<Refused>() else {
        let status = error.as_response_error().status_code().as_u16();
        return (error, serving.answer(gate, status));
    };
    let mut refusal = refused.refusal().clone();
    serving.complete(&mut refusal, call);
    let told = reply::refusal(gate, &refusal, asked.has_origin);
    let wait = serving.answer(gate, told.status);
    (RefusedReply(told).into(), wait)
}

impl<S, B> std::fmt::Debug for ResponseFuture<S, B>
where
    S: Service<ServiceRequest>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
