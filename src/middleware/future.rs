//! The future of a response: wait if memory had no answer, call the service, settle what the head
//! tells, and let the body settle the rest.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::GateBody;
use super::headers::{self, Refused};
use super::layer::Shared;
use super::service::ask;
use crate::Outcome;
use crate::gate::{Answer, Pending, Running, Step, Waited};
use crate::serving::Serving;
use crate::wire::Mapping;

pin_project! {
    /// The response on its way: waits if memory had no answer, serves, settles what the head tells.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R, S::Future>,
        shared: Arc<Shared>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwn]
    enum State<S, B, R, F> {
        /// Asks the gate; `pending` is what it said to wait for.
        Asking { call: Option<(S, Request<B>)>, pending: Option<Pending>, waited: Waited },
        /// The service is at work.
        Serving { #[pin] future: F, serving: Option<Serving>, asked: Asked },
        /// The record of what the head tells is on its way (`durable`).
        Recording { pending: Pending, response: Option<Response<GateBody<R>>> },
        Done,
    }
}

/// What the response depends on, of a request that is with the service.
#[derive(Clone, Copy)]
struct Asked {
    is_head: bool,
    is_grpc: bool,
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    pub(super) fn new(ready: S, request: Request<B>, shared: Arc<Shared>) -> Self {
        let call = Some((ready, request));
        let state = State::Asking { call, pending: None, waited: Waited::default() };
        Self { state, shared }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Body,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<GateBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Asking { call, pending, waited } => {
                    if let Some(wait) = pending {
                        *waited = ready!(wait.as_mut().poll(cx));
                        *pending = None;
                    }
                    let asked = call
                        .as_ref()
                        .map(|(_, request)| ask(this.shared, request, std::mem::take(waited)));
                    match asked {
                        Some(Step::Wait(wait)) => {
                            *pending = Some(wait);
                            continue;
                        }
                        Some(Step::Done(Answer::Refuse(refusal))) => {
                            let is_grpc = call.as_ref().is_some_and(|(_, r)| headers::is_grpc(r));
                            this.state.set(State::Done);
                            let refused = headers::refusal(this.shared, &refusal, is_grpc);
                            return Poll::Ready(Ok(refused));
                        }
                        Some(Step::Done(Answer::Admit(running))) => {
                            serve(this.shared, call.take(), Some(running))
                        }
                        Some(Step::Done(Answer::Pass)) => serve(this.shared, call.take(), None),
                        None => None,
                    }
                }
                StateProj::Serving { future, serving, asked } => {
                    let answer = ready!(Serving::guard(serving, || future.poll(cx)));
                    let (serving, asked) = (serving.take(), *asked);
                    match answer {
                        Ok(response) => {
                            let (response, wait) = finish(this.shared, response, serving, asked);
                            match wait {
                                None => {
                                    this.state.set(State::Done);
                                    return Poll::Ready(Ok(response));
                                }
                                Some(pending) => {
                                    Some(State::Recording { pending, response: Some(response) })
                                }
                            }
                        }
                        Err(error) => {
                            if let Some(serving) = serving {
                                serving.end(Outcome::Failed);
                            }
                            this.state.set(State::Done);
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                StateProj::Recording { pending, response } => {
                    ready!(pending.as_mut().poll(cx));
                    let response = response.take();
                    this.state.set(State::Done);
                    match response {
                        Some(response) => return Poll::Ready(Ok(response)),
                        None => None,
                    }
                }
                StateProj::Done => None,
            };
            match next {
                Some(next) => this.state.set(next),
                // Only a future polled after its end gets here, as with any other future.
                None => panic!("`ResponseFuture` polled after it was ready"),
            }
        }
    }
}

/// Calls the service with what it may need to know.
fn serve<S, B, R>(
    shared: &Shared,
    call: Option<(S, Request<B>)>,
    running: Option<Running>,
) -> Option<State<S, B, R, S::Future>>
where
    S: Service<Request<B>>,
{
    let (mut service, mut request) = call?;
    let serving = running.map(|running| {
        if !shared.extensions {
            return Serving::own(running);
        }
        let (serving, admitted) = Serving::share(&shared.gate, running);
        request.extensions_mut().insert(admitted);
        serving
    });
    let asked =
        Asked { is_head: request.method() == Method::HEAD, is_grpc: headers::is_grpc(&request) };
    Some(State::Serving { future: service.call(request), serving, asked })
}

/// Settles what the head tells, writes the headers, and hands the rest to the body.
fn finish<R: Body<Data = Bytes>>(
    shared: &Shared,
    response: Response<R>,
    serving: Option<Serving>,
    asked: Asked,
) -> (Response<GateBody<R>>, Option<Pending>) {
    let Some(mut serving) = serving else {
        return (response.map(GateBody::plain), None);
    };
    let gate = &shared.gate;
    let (mut parts, body) = response.into_parts();
    if let Some(Refused(refusal)) = parts.extensions.remove() {
        // The handler passes on what the gate refused while it ran: told as any other refusal.
        let refused = headers::refusal(shared, &refusal, asked.is_grpc);
        // gRPC tells every refusal with HTTP 200; what it costs is the same in both.
        let status = match asked.is_grpc {
            true => Mapping::of(&refusal.reason).status,
            false => refused.status().as_u16(),
        };
        serving.end(Outcome::Complete { status });
        return (refused, gate.head_recorded());
    }
    headers::limits(gate, &mut serving, &mut parts.headers);
    let is_empty = asked.is_head
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || body.is_end_stream();
    let length = body.size_hint().exact();
    let body = match serving.into_body(gate, parts.status.as_u16(), is_empty, length) {
        Some(count) => GateBody::counted(body, count),
        None => GateBody::plain(body),
    };
    (Response::from_parts(parts, body), gate.head_recorded())
}

impl<S, B, R> std::fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
