//! Turns of the requests that make keys of one tenant, within this process: what one reads before
//! it writes, no other changes meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Surrogate, Tenant};

/// The tenants whose keys are being made, each with its lock and how many want it.
#[derive(Debug, Default)]
pub(super) struct KeyTurns(Mutex<HashMap<Surrogate, (Lock, usize)>>);

type Lock = Arc<tokio::sync::Mutex<()>>;

impl KeyTurns {
    fn change(&self, tenant: Surrogate, by: impl FnOnce(&mut usize)) -> Lock {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (lock, wanted) = all.entry(tenant).or_default();
        by(wanted);
        let (lock, is_unused) = (lock.clone(), *wanted == 0);
        if is_unused {
            all.remove(&tenant);
        }
        lock
    }
}

/// A request that wants its turn, or has it: a wait that is dropped leaves nothing behind.
#[derive(Debug)]
struct Wanting {
    turns: Arc<KeyTurns>,
    tenant: Surrogate,
}

impl Drop for Wanting {
    fn drop(&mut self) {
        self.turns.change(self.tenant, |wanted| *wanted = wanted.saturating_sub(1));
    }
}

/// The turn of a request. The next one comes once it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct KeyTurn {
    _locked: tokio::sync::OwnedMutexGuard<()>,
    _wanting: Wanting,
}

impl Tenant {
    /// The turn of a request of this tenant that makes or ends a key, in the order of their coming.
    pub(crate) async fn turn_at_keys(&self) -> KeyTurn {
        let (turns, tenant) = (self.directory.inner.key_turns.clone(), self.record.surrogate);
        let lock = turns.change(tenant, |wanted| *wanted += 1);
        let wanting = Wanting { turns, tenant };
        KeyTurn { _locked: lock.lock_owned().await, _wanting: wanting }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_tenant_is_forgotten_once_no_request_wants_its_turn() {
        let turns = Arc::new(KeyTurns::default());
        let tenant = Surrogate::test(7);
        let want = || {
            let lock = turns.change(tenant, |wanted| *wanted += 1);
            (lock, Wanting { turns: turns.clone(), tenant })
        };
        let (lock, first) = want();
        let held = lock.try_lock_owned().unwrap();
        let (lock, second) = want();
        let mut waits = Box::pin(lock.lock());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        drop(waits); // its request went away
        drop(second);
        assert_eq!(turns.0.lock().unwrap().len(), 1);
        drop((held, first));
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
