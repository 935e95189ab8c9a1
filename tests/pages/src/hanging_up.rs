//! docs/hanging-up.md: handlers whose clients may leave early.

use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tallygate_axum::{Refused, Usage};
use tokio_stream::StreamExt;

use crate::cookbook::llm::Prompt;
use crate::model;

pub async fn at_its_end(usage: Usage, Json(ask): Json<Prompt>) -> Result<String, Refused> {
    usage.take("output-tokens", ask.max_tokens).await?;
    let answer = model::complete(&ask.prompt, ask.max_tokens).await; // the client leaves here
    usage.add("output-tokens", answer.output_tokens); // never reached
    Ok(answer.text)
}

pub async fn as_it_goes(usage: Usage, Json(ask): Json<Prompt>) -> Result<Body, Refused> {
    usage.take("output-tokens", ask.max_tokens).await?;
    let tokens = model::stream(&ask.prompt, ask.max_tokens).map(move |token| {
        usage.add("output-tokens", 1); // each as it is made
        Ok::<_, Infallible>(token.0)
    });
    Ok(Body::from_stream(tokens))
}

pub async fn detached(usage: Usage, Json(ask): Json<Prompt>) -> Result<Response, Refused> {
    usage.take("output-tokens", ask.max_tokens).await?;
    let answering = tokio::spawn(async move {
        let answer = model::complete(&ask.prompt, ask.max_tokens).await;
        usage.add("output-tokens", answer.output_tokens); // with or without a client
        answer.text
    });
    Ok(match answering.await {
        Ok(text) => text.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    })
}

/// Reports what was spent when it is dropped, however that comes about.
struct Spent {
    usage: Usage,
    tokens: u64,
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.usage.add("output-tokens", self.tokens);
    }
}

pub async fn guarded(usage: Usage, Json(ask): Json<Prompt>) -> Result<String, Refused> {
    usage.take("output-tokens", ask.max_tokens).await?;
    let mut spent = Spent { usage, tokens: ask.max_tokens }; // the most, until it is known
    let answer = model::complete(&ask.prompt, ask.max_tokens).await;
    spent.tokens = answer.output_tokens;
    Ok(answer.text)
}
