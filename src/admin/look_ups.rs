//! Places for the look-ups of operators' tokens. A forged one of the right form costs a read of the
//! store, so few are looked up at once; and those that were good lately have places of their own,
//! so that a flood of forged ones keeps no operator at work from revoking a token that has leaked.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::patience;

/// Most tokens that are looked up at once, of those that are not known here and of those that are:
/// there are few operators.
const AT_ONCE: usize = 16;

/// How long a request waits for its turn to be looked up.
const WAIT: Duration = Duration::from_secs(2);

/// Most tokens that are remembered: more than there are operators.
const LATELY: usize = 64;

/// The SHA-256 of a token.
type Hash = [u8; 32];

/// See the [module](self).
#[derive(Debug)]
pub(super) struct LookUps {
    any: Semaphore,
    known: Semaphore,
    /// Tokens that were good when they were looked up last, that of the longest ago first.
    lately: Mutex<VecDeque<Hash>>,
}

/// The turn of a look-up.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    of: &'a LookUps,
    token: Hash,
    _place: SemaphorePermit<'a>,
}

impl LookUps {
    pub(super) fn new() -> Self {
        let [any, known] = [(); 2].map(|()| Semaphore::new(AT_ONCE));
        Self { any, known, lately: Mutex::default() }
    }

    /// The turn of this token; `None`: it does not come in time.
    pub(super) async fn turn(&self, token: &[u8]) -> Option<Turn<'_>> {
        let hash: Hash = Sha256::digest(token).into();
        let is_known = self.lately().contains(&hash);
        let places = if is_known { &self.known } else { &self.any };
        let place = patience::within(WAIT, places.acquire()).await?;
        Some(Turn { of: self, token: hash, _place: place.ok()? })
    }

    fn lately(&self) -> MutexGuard<'_, VecDeque<Hash>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether the store says that the token is an operator's.
    pub(super) fn is_good(&self, is_good: bool) {
        let mut lately = self.of.lately();
        lately.retain(|known| *known != self.token);
        if is_good {
            if lately.len() >= LATELY {
                lately.pop_front();
            }
            lately.push_back(self.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_good_lately_does_not_wait_behind_forged_ones() {
        let look_ups = LookUps::new();
        look_ups.turn(b"kim").await.unwrap().is_good(true);
        look_ups.turn(b"gone").await.unwrap().is_good(true);
        look_ups.turn(b"gone").await.unwrap().is_good(false);
        let mut forged = Vec::new();
        for n in 0..AT_ONCE {
            forged.push(look_ups.turn(format!("forged {n}").as_bytes()).await.unwrap());
        }
        assert!(look_ups.turn(b"gone").await.is_none(), "it is revoked");
        look_ups.turn(b"kim").await.unwrap().is_good(true);
        drop(forged);
        for n in 0..2 * LATELY {
            look_ups.turn(&n.to_le_bytes()).await.unwrap().is_good(true);
        }
        assert_eq!(look_ups.lately().len(), LATELY);
    }
}
