//! `POST /v1/chat`: an answer as server-sent events, of which each token is taken before it is sent
//! and charged as it is.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tallygate_axum::tallygate::{self, Gate, MeterName, Reason, Refusal};
use tallygate_axum::{Refused, Usage};

use crate::provider::{self, Broken, Completion, Model, Piece};

/// Most tokens of an answer whose tokens are counted at its end, if the client names no number.
const MAX_TOKENS: u64 = 256;

/// What the handlers need.
#[derive(Clone)]
pub(crate) struct Chat {
    pub(crate) gate: Gate,
    pub(crate) input: MeterName,
    pub(crate) output: MeterName,
}

impl Chat {
    pub(crate) fn new(gate: &Gate) -> Result<Self, tallygate::Error> {
        let (input, output) = (gate.meter("input-tokens")?, gate.meter("output-tokens")?);
        Ok(Self { gate: gate.clone(), input, output })
    }
}

#[derive(Deserialize)]
pub(crate) struct Request {
    pub(crate) prompt: String,
    pub(crate) max_tokens: Option<u64>,
    #[serde(default)]
    pub(crate) model: Model,
}

pub(crate) async fn chat(
    State(chat): State<Chat>,
    usage: Usage,
    Json(request): Json<Request>,
) -> Result<Response, Refused> {
    let model = request.model;
    let input = provider::tokens(&request.prompt);
    usage.take(&chat.input, input).await?;
    // All that the answer may cost, if the client states a maximum or the provider counts only at
    // the end. Otherwise units are taken piece by piece.
    let at_its_end = (model == Model::CountsAtTheEnd).then_some(MAX_TOKENS);
    let max_tokens = request.max_tokens.or(at_its_end);
    if let Some(max_tokens) = max_tokens {
        usage.take(&chat.output, max_tokens).await?; // a refusal is the response, with its status
    }
    usage.add(&chat.input, input);
    let completion = Completion::begin(model, &request.prompt, max_tokens);
    let answer = Answer {
        completion,
        input,
        output: Output { usage, meter: chat.output, ahead: max_tokens.unwrap_or(0), charged: 0 },
        gate: chat.gate,
        is_over: false,
    };
    let events = stream::unfold(answer, async |mut answer| Some((answer.next().await?, answer)));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// An answer that is being sent. When the client hangs up it is dropped where it is: what it has
/// charged stays, and what it has taken beyond that goes back.
struct Answer {
    completion: Completion,
    input: u64,
    output: Output,
    gate: Gate,
    is_over: bool,
}

impl Answer {
    async fn next(&mut self) -> Option<Result<Event, Infallible>> {
        if self.is_over {
            return None;
        }
        let event = match self.completion.next().await {
            Ok(Piece::Text(text, counted)) => {
                // Less than it will turn out to be: what is charged too much is not given back.
                let tokens = counted.unwrap_or_else(|| (text.len() as u64 / 5).max(1));
                match self.output.charge(tokens).await {
                    Ok(()) => Event::default().data(json!({ "text": text }).to_string()),
                    Err(refusal) => self.end(why(&refusal), Some(&refusal)),
                }
            }
            Ok(Piece::End { tokens, is_cut }) => {
                self.output.charge_up_to(tokens);
                self.end(if is_cut { "max-tokens" } else { "complete" }, None)
            }
            Err(Broken) => self.end("provider-failed", None),
        };
        Some(Ok(event))
    }

    /// The last event: why it is the last, what was charged, and when and how the client can go on
    /// after a refusal.
    fn end(&mut self, why: &str, refusal: Option<&Refusal>) -> Event {
        self.is_over = true;
        let usage = json!({ "input_tokens": self.input, "output_tokens": self.output.charged });
        let mut end = json!({ "why": why, "usage": usage });
        if let Some(refusal) = refusal {
            // The body of the 429 or 402 that it would have been at the start, with `retry-after`.
            end["problem"] = self.gate.refusal_problem(refusal);
        }
        Event::default().event("end").data(end.to_string())
    }
}

/// Why a stream is cut, in a word; its problem says more.
fn why(refusal: &Refusal) -> &'static str {
    match refusal.reason {
        Reason::Exhausted | Reason::PaymentRequired(_) => "out-of-units",
        _ => "refused", // suspended meanwhile, or the store is away
    }
}

/// The output tokens of one answer.
struct Output {
    usage: Usage,
    meter: MeterName,
    /// Taken, and not charged yet.
    ahead: u64,
    charged: u64,
}

impl Output {
    /// Charges tokens that are sent next, or refuses to send them.
    async fn charge(&mut self, tokens: u64) -> Result<(), Refusal> {
        let missing = tokens.saturating_sub(self.ahead);
        if missing > 0 {
            self.usage.take(&self.meter, missing).await?;
        }
        self.add(tokens);
        Ok(())
    }

    /// Charges what the whole answer has turned out to be beyond what was charged so far.
    fn charge_up_to(&mut self, tokens: u64) {
        self.add(tokens.saturating_sub(self.charged));
    }

    fn add(&mut self, tokens: u64) {
        self.usage.add(&self.meter, tokens);
        self.ahead = self.ahead.saturating_sub(tokens);
        self.charged += tokens;
    }
}
