//! A stand-in for a provider of completions: what it answers follows from the prompt alone.

use std::time::Duration;

use serde::Deserialize;

/// Longest answer, in words.
const MOST_WORDS: usize = 10_000;
/// Words of an answer to a prompt that names no number.
const WORDS: usize = 20;
/// Pieces that the model `breaks` sends before it fails.
const BEFORE_IT_BREAKS: usize = 10;

/// How the provider behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Model {
    /// Counts the tokens of each piece.
    #[default]
    Steady,
    /// The same, with 20 ms before each piece.
    Slow,
    /// As `slow`, and says how many tokens it were only at the end, as many real providers do.
    CountsAtTheEnd,
    /// Fails in the middle of its answer.
    Breaks,
}

/// What a provider sends.
pub(crate) enum Piece {
    /// Some text, and its tokens if it says so.
    Text(String, Option<u64>),
    /// The end, with the tokens of the whole answer, and whether `max_tokens` has ended it.
    End { tokens: u64, is_cut: bool },
}

/// The provider has failed.
pub(crate) struct Broken;

/// An answer on its way.
pub(crate) struct Completion {
    model: Model,
    words: Vec<String>,
    at: usize,
    sent: u64,
    max_tokens: u64,
}

/// Tokens of a text: of four bytes each.
pub(crate) fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

impl Completion {
    /// Repeats the words of the prompt, as many as the first number in it says.
    pub(crate) fn begin(model: Model, prompt: &str, max_tokens: Option<u64>) -> Self {
        let number = prompt.split_whitespace().find_map(|word| word.parse().ok());
        let n = number.unwrap_or(WORDS).min(MOST_WORDS);
        let words = prompt.split_whitespace().cycle().take(n).map(|word| format!("{word} "));
        let max_tokens = max_tokens.unwrap_or(u64::MAX);
        Self { model, words: words.collect(), at: 0, sent: 0, max_tokens }
    }

    /// The next piece.
    pub(crate) async fn next(&mut self) -> Result<Piece, Broken> {
        if matches!(self.model, Model::Slow | Model::CountsAtTheEnd) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.model == Model::Breaks && self.at == BEFORE_IT_BREAKS {
            return Err(Broken);
        }
        let Some(word) = self.words.get(self.at).cloned() else {
            return Ok(Piece::End { tokens: self.sent, is_cut: false });
        };
        let n = tokens(&word);
        if self.sent + n > self.max_tokens {
            return Ok(Piece::End { tokens: self.sent, is_cut: true });
        }
        (self.at, self.sent) = (self.at + 1, self.sent + n);
        let counted = (self.model != Model::CountsAtTheEnd).then_some(n);
        Ok(Piece::Text(word, counted))
    }
}
