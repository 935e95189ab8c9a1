//! A language model: it says `tide`, a token at a time, as often as it may.

use tokio_stream::{Stream, StreamExt};

/// How often the model lets others run before it answers.
pub const STEPS: usize = 1_000;

pub struct Answer {
    pub text: String,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// A token for each word of the prompt, and half as many tokens as the answer may have. It takes
/// a while.
pub async fn complete(prompt: &str, max_tokens: u64) -> Answer {
    for _ in 0..STEPS {
        tokio::task::yield_now().await;
    }
    let output_tokens = max_tokens / 2;
    let text = "tide ".repeat(usize::try_from(output_tokens).unwrap_or(0));
    Answer { text, input_tokens: prompt.split_whitespace().count() as u64, output_tokens }
}

pub struct Token(pub String);

/// As many tokens as the answer may have.
pub fn stream(_prompt: &str, max_tokens: u64) -> impl Stream<Item = Token> + use<> {
    tokio_stream::iter(0..max_tokens).map(|_| Token("tide ".to_owned()))
}
