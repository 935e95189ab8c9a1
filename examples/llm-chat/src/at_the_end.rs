//! `POST /demo/at-the-end`: what not to do. It charges an answer once it is complete, so a client
//! that hangs up before its last event has it for nothing. A test shows it.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures_util::stream;
use tallygate_axum::Usage;

use crate::chat::{Chat, Request};
use crate::provider::{Completion, Piece};

pub(crate) async fn chat(
    State(chat): State<Chat>,
    usage: Usage,
    Json(request): Json<Request>,
) -> impl IntoResponse {
    let completion = Completion::begin(request.model, &request.prompt, request.max_tokens);
    let state = (completion, usage, chat);
    Sse::new(stream::unfold(state, async |(mut completion, usage, chat)| {
        match completion.next().await {
            Ok(Piece::Text(text, _)) => {
                let event = Ok::<_, Infallible>(Event::default().data(text));
                Some((event, (completion, usage, chat)))
            }
            Ok(Piece::End { tokens, .. }) => {
                usage.add(&chat.output, tokens); // too late
                None
            }
            Err(_) => None,
        }
    }))
}
