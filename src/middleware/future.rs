//! Response future: waits if the decision is not in memory, calls the service, settles what the
//! head decides, and leaves the rest to the body.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::{BoxError, GateBody};
use super::headers::{self, Refused, RequestFacts, StatusIn};
use super::shared::LayerShared;
use crate::decision::{Refusal, RefusedCall};
use crate::gate::{Answer, Pending, Running, Step, Waited};
use crate::serving::{Serving, is_upgrade, wait_for_both};
use crate::wire::Mapping;

pin_project! {
    /// Response future of [`GateService`](super::GateService): waits if the decision is not in
    /// memory, calls the service, and settles what the head of the response determines.
    ///
    /// # Panics
    ///
    /// If it is polled after it was ready.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: CallState<S, B, R, S::Future, S::Error>,
        shared: Arc<LayerShared>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwn]
    enum CallState<S, B, R, F, E> {
        /// Waiting as the gate asked; then the gate is asked again.
        Waiting { waiting: Box<WaitingCall<S, B>> },
        Refused { refusal: Option<Box<Refusal>>, asked: RequestFacts },
        /// The service is running.
        Serving {
            #[pin]
            future: F,
            serving: Option<Serving>,
            asked: RequestFacts,
            call: Described,
        },
        /// The response waits for a record (`durable`) or for the claim on its key.
        Recording { pending: Pending, answer: Option<AnsweredCall<R, E>> },
        Done,
    }
}

/// The service's result. Boxed, as `Waiting` is.
type AnsweredCall<R, E> = Box<Result<Response<GateBody<R>>, E>>;

/// The request, for a refusal that its handler may return; `None` where the host does not ask for
/// it.
type Described = Option<Box<RefusedCall>>;

/// A waiting request. Boxed, like every rare state: the future is moved several times, and its size
/// is paid for each time.
struct WaitingCall<S, B> {
    call: Option<(S, Request<B>)>,
    pending: Pending,
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>> + Clone,
    B: Body,
{
    /// Asks the gate at once: nearly always memory has the answer, and the service is called as
    /// soon as it would be without the gate. Otherwise the service that was polled ready goes with
    /// the request, and a fresh clone takes its place: a clone is an allocation where a router has
    /// boxed its services.
    // Inlined, like its callees: otherwise the request is moved once for each.
    #[inline(always)]
    pub(super) fn ask(service: &mut S, mut request: Request<B>, shared: &Arc<LayerShared>) -> Self {
        shared.name_caller(&mut request);
        let running = match shared.ask(&request, Waited::default()) {
            Step::Done(Answer::Admit(running)) => Some(running),
            Step::Done(Answer::Pass) => None,
            Step::Done(Answer::Refuse(refusal)) => {
                // The reservation made by `poll_ready` is released for another request.
                *service = service.clone();
                let state = CallState::refused(refusal, &request);
                return Self { state, shared: shared.clone() };
            }
            Step::Wait(pending) => {
                let clone = service.clone();
                let service = std::mem::replace(service, clone);
                let state = CallState::waiting(service, request, pending);
                return Self { state, shared: shared.clone() };
            }
        };
        let shared = shared.clone();
        let (serving, asked, call) = begin(&shared, &mut request, running);
        // Built in place, in the caller's return slot.
        Self {
            state: CallState::Serving { future: service.call(request), serving, asked, call },
            shared,
        }
    }
}

impl<S, B, R> CallState<S, B, R, S::Future, S::Error>
where
    S: Service<Request<B>>,
    B: Body,
{
    /// Continues with the gate's decision on a request that has waited.
    fn answered(
        shared: &LayerShared,
        service: &mut S,
        mut request: Request<B>,
        answer: Answer,
    ) -> Self {
        let running = match answer {
            Answer::Admit(running) => Some(running),
            Answer::Pass => None,
            Answer::Refuse(refusal) => return Self::refused(refusal, &request),
        };
        let (serving, asked, call) = begin(shared, &mut request, running);
        Self::Serving { future: service.call(request), serving, asked, call }
    }

    fn refused(refusal: Box<Refusal>, request: &Request<B>) -> Self {
        Self::Refused { refusal: Some(refusal), asked: RequestFacts::by(request) }
    }

    #[cold]
    fn waiting(service: S, request: Request<B>, pending: Pending) -> Self {
        Self::Waiting { waiting: Box::new(WaitingCall { call: Some((service, request)), pending }) }
    }

    #[cold]
    fn recording(pending: Pending, answer: Result<Response<GateBody<R>>, S::Error>) -> Self {
        Self::Recording { pending, answer: Some(Box::new(answer)) }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Body,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<GateBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Waiting { waiting } => {
                    let waited = ready!(waiting.pending.as_mut().poll(cx));
                    let call = waiting.call.take();
                    call.map(|(mut service, request)| match this.shared.ask(&request, waited) {
                        Step::Done(answer) => {
                            CallState::answered(this.shared, &mut service, request, answer)
                        }
                        Step::Wait(pending) => CallState::waiting(service, request, pending),
                    })
                }
                StateProj::Refused { refusal, asked } => {
                    let (refusal, asked) = (refusal.take(), *asked);
                    this.state.set(CallState::Done);
                    match refusal {
                        Some(refusal) => {
                            let refused = headers::refusal(this.shared, &refusal, asked);
                            return Poll::Ready(Ok(refused));
                        }
                        None => None,
                    }
                }
                StateProj::Serving { future, serving, asked, call } => {
                    let answer =
                        ready!(Serving::guard(serving, &this.shared.gate, || { future.poll(cx) }));
                    let (serving, asked, call) = (serving.take(), *asked, call.take());
                    match answer {
                        Ok(response) => {
                            let (response, wait) =
                                finish(this.shared, response, serving, (asked, call), cx);
                            match wait {
                                None => {
                                    this.state.set(CallState::Done);
                                    return Poll::Ready(Ok(response));
                                }
                                Some(pending) => Some(CallState::recording(pending, Ok(response))),
                            }
                        }
                        // An outer layer may turn it into a response.
                        Err(error) => {
                            match serving.and_then(|it| it.answer(&this.shared.gate, 500)) {
                                None => {
                                    this.state.set(CallState::Done);
                                    return Poll::Ready(Err(error));
                                }
                                Some(pending) => Some(CallState::recording(pending, Err(error))),
                            }
                        }
                    }
                }
                StateProj::Recording { pending, answer } => {
                    ready!(pending.as_mut().poll(cx));
                    let answer = answer.take();
                    this.state.set(CallState::Done);
                    match answer {
                        Some(answer) => return Poll::Ready(*answer),
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

/// Attaches the gate's handles for the handler to the request.
#[inline(always)]
fn begin<B: Body>(
    shared: &LayerShared,
    request: &mut Request<B>,
    running: Option<Running>,
) -> (Option<Serving>, RequestFacts, Described) {
    // Asked first: a view of the request is work, and most hosts have no use for it.
    let call = match running.is_some() && shared.gate.describes() {
        true => shared.gate.describe(&shared.view_of(request)),
        false => None,
    };
    let serving = running.map(|running| {
        if let Some(read) = running.reads() {
            request.extensions_mut().insert(read);
        }
        if !shared.extensions {
            return Serving::own(running);
        }
        let (serving, admitted) = Serving::share(&shared.gate, running);
        let before = request.extensions_mut().insert(admitted);
        shared.gate.note_passed_twice(before.as_ref(), shared.route.as_deref());
        serving
    });
    (serving, RequestFacts::by(request), call)
}

/// Settles what the head decides, writes the headers, and leaves the rest to the body.
fn finish<R>(
    shared: &LayerShared,
    mut response: Response<R>,
    serving: Option<Serving>,
    (asked, call): (RequestFacts, Described),
    cx: &mut Context<'_>,
) -> (Response<GateBody<R>>, Option<Pending>)
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let Some(mut serving) = serving else {
        return (response.map(GateBody::plain), None);
    };
    let gate = &shared.gate;
    if let Some(Refused(mut refusal)) = response.extensions_mut().remove() {
        // The handler returned a refusal it got from the gate: write it like any other refusal.
        serving.complete(&mut refusal, call);
        let refused = headers::refusal(shared, &refusal, asked);
        // gRPC sends every refusal with HTTP 200, but it costs the same as over HTTP.
        let status = match asked.is_grpc {
            true => Mapping::of(&refusal.reason).status,
            false => refused.status().as_u16(),
        };
        return (refused, serving.answer(gate, status));
    }
    headers::limits(gate, &mut serving, asked, response.headers_mut());
    let status = response.status();
    if is_upgrade(status.as_u16(), asked.is_connect) {
        let (upgraded, wait) = serving.upgrade(gate, status.as_u16());
        if upgraded.is_alone() {
            shared.note_unheld_upgrade();
        }
        return (response.map(|body| GateBody::upgraded(body, upgraded)), wait);
    }
    let is_empty = asked.is_head
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || response.body().is_end_stream();
    let length = || response.body().size_hint().exact().or_else(|| headers::length(&response));
    let head = match headers::status_in(asked, &response) {
        StatusIn::Head(status) => serving.into_body(gate, status.as_u16(), is_empty, length),
        StatusIn::Trailers => serving.into_trailed_body(gate),
    };
    let mut more = None;
    let response = response.map(|body| match head.body {
        Some(count) if count.ends_late() => {
            let (body, wait) = GateBody::counted_ahead(body, count, cx);
            more = wait;
            body
        }
        Some(count) => GateBody::counted(body, count),
        None => GateBody::plain(body),
    });
    (response, wait_for_both(head.wait, more))
}

impl<S, B, R> std::fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
