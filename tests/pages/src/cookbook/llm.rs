//! A chat that costs tokens, of which only the end knows how many.

use axum::Json;
use serde::Deserialize;
use tallygate_axum::{Refused, Usage};

use crate::model;

#[derive(Deserialize)]
pub struct Prompt {
    pub prompt: String,
    pub max_tokens: u64,
}

pub async fn chat(usage: Usage, Json(ask): Json<Prompt>) -> Result<String, Refused> {
    usage.take("output-tokens", ask.max_tokens).await?; // the most it may become
    let answer = model::complete(&ask.prompt, ask.max_tokens).await;
    usage.add("input-tokens", answer.input_tokens);
    usage.add("output-tokens", answer.output_tokens); // what was taken and not used goes back
    Ok(answer.text)
}
