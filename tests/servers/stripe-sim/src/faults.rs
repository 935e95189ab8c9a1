//! The script of faults: which call or webhook fails, how, and how often.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Limit on waiting faults: a script, not a store.
const MAX_FAULTS: usize = 100_000;

/// One line of the script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The calls or webhooks to fail, by the beginning of `POST /v1/billing/meter_events`, or of
    /// `webhook customer.subscription.updated`. Empty matches every call and no webhook.
    #[serde(default)]
    pub on: String,
    /// Number of matches that pass first.
    #[serde(default)]
    pub skip: u32,
    /// Number of matches to fail; 0 for all that follow.
    #[serde(default = "once")]
    pub times: u32,
    /// The fault.
    #[serde(rename = "do")]
    pub kind: FaultKind,
}

/// A kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// Answered with an error. `applied`: the call took effect all the same, and its idempotency
    /// key remembers the error, as Stripe does with a 500.
    Status {
        /// The status, 400 to 599.
        code: u16,
        /// Whether the call took effect.
        #[serde(default)]
        applied: bool,
        /// `Stripe-Should-Retry`.
        #[serde(default)]
        should_retry: Option<bool>,
        /// `Retry-After`, in seconds.
        #[serde(default)]
        retry_after: Option<u32>,
    },
    /// Delayed before it takes effect; a webhook before it is sent.
    Delay {
        /// Real milliseconds.
        ms: u64,
    },
    /// The connection is closed before the call took effect.
    Cut,
    /// The call takes effect and the connection is closed without an answer.
    Lose,
    /// The call takes effect; the answer's head and half of its body arrive.
    Truncate,
    /// The connection stays open, and is never answered.
    Hang {
        /// Whether the call takes effect.
        #[serde(default)]
        applied: bool,
    },
    /// The call takes effect; its answer comes byte by byte.
    Drip {
        /// Real milliseconds between bytes.
        ms: u64,
    },
    /// The call takes effect; its answer is followed by this many blanks.
    Flood {
        /// Number of blanks.
        bytes: u64,
    },
    /// A meter event is accepted, and rejected later for this reason.
    Reject {
        /// A code of Stripe's error report, such as `meter_event_customer_not_found`.
        code: String,
    },
    /// A webhook is sent this many additional times.
    Duplicate {
        /// Number of additional copies.
        copies: u32,
    },
    /// This and the next webhooks are held back and sent in another order.
    Shuffle {
        /// Number of webhooks; fewer, if no more come within 300 ms.
        of: usize,
        /// Selects the order.
        seed: u64,
    },
    /// A webhook is never sent.
    Drop,
}

/// The current script.
#[derive(Debug, Default)]
pub(crate) struct Script(VecDeque<Fault>);

impl Script {
    /// Returns false if there is no room.
    pub(crate) fn push(&mut self, fault: Fault) -> bool {
        let room = self.0.len() < MAX_FAULTS;
        if room {
            self.0.push_back(fault);
        }
        room
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The waiting faults.
    pub(crate) fn waiting(&self) -> Vec<Fault> {
        self.0.iter().cloned().collect()
    }

    /// The fault for this call or webhook: the first line that is due.
    pub(crate) fn meet(&mut self, what: &str) -> Option<FaultKind> {
        let mut met = None;
        for (at, fault) in self.0.iter_mut().enumerate() {
            let whom = if fault.on.is_empty() {
                !what.starts_with("webhook ")
            } else {
                what.starts_with(&fault.on)
            };
            if !whom {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            met = Some(at);
            break;
        }
        let at = met?;
        let fault = self.0.get_mut(at)?;
        let kind = fault.kind.clone();
        if fault.times == 1 {
            self.0.remove(at);
        } else if fault.times > 1 {
            fault.times -= 1;
        }
        Some(kind)
    }
}

fn once() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> Fault {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_line_skips_meets_and_ends() {
        let mut script = Script::default();
        script.push(fault(r#"{"on": "POST /v1/billing", "skip": 1, "times": 2, "do": "cut"}"#));
        let call = "POST /v1/billing/meter_events";
        let met: Vec<bool> = (0..5).map(|_| script.meet(call).is_some()).collect();
        assert_eq!(met, [false, true, true, false, false]);
    }

    #[test]
    fn times_0_never_ends_and_an_empty_line_spares_webhooks() {
        let mut script = Script::default();
        script.push(fault(r#"{"times": 0, "do": {"status": {"code": 503}}}"#));
        assert_eq!(script.meet("webhook invoice.paid"), None);
        for _ in 0..3 {
            assert!(matches!(script.meet("GET /v1/x"), Some(FaultKind::Status { code: 503, .. })));
        }
    }

    #[test]
    fn unknown_words_are_refused() {
        assert!(serde_json::from_str::<Fault>(r#"{"do": "explode"}"#).is_err());
        assert!(serde_json::from_str::<Fault>(r#"{"do": "cut", "time": 2}"#).is_err());
    }
}
