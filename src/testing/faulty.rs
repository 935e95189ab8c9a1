//! A store with deliberate faults: any store, behind a network that loses, delays and repeats.
//!
//! Faults follow from a script or a seed and are drawn when a call is first polled, so a run that
//! polls its tasks in the same order fails in the same way. Delays are tokio timers: with tokio's
//! paused time they cost nothing.
//!
//! It keeps the three outcomes of [`crate::store`]: a write reported as unavailable or throttled
//! was not applied, one reported as unknown may have been. It does not break the store behind it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::{
    Item, Key, Page, Promise, Query, Store, StoreError, StoreErrorKind, StoreFuture, Units, Write,
    Written,
};

/// The fate of one write. The argument of [`Faulty::scripted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it reaches the store and its answer comes back.
    Pass,
    /// It never reaches the store, and the answer says so: unavailable.
    Unavailable,
    /// It never reaches the store, and the answer says so: throttled.
    Throttled,
    /// It never reaches the store; the answer is unknown.
    LoseRequest,
    /// It is applied; the answer is unknown.
    LoseReply,
    /// It reaches the store after this long.
    Delay(Duration),
    /// It is applied and answered, and reaches the store again before the n-th write after it.
    RepeatAfter(u32),
}

/// Frequency of each fault, per thousand calls. The rest passes. The argument of
/// [`Faulty::seeded`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// [`Fault::Unavailable`]; for reads and queries too.
    pub unavailable: u16,
    /// [`Fault::Throttled`]; for reads and queries too.
    pub throttled: u16,
    /// [`Fault::LoseRequest`].
    pub lose_request: u16,
    /// [`Fault::LoseReply`].
    pub lose_reply: u16,
    /// [`Fault::Delay`] of 1 to 200 ms; for reads and queries too.
    pub delay: u16,
    /// [`Fault::RepeatAfter`] 1 to 8 writes.
    pub repeat: u16,
}

/// A store with faults in front of another. Clones share the faults.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tallygate::store::{Change, Key, Memory, Store, StoreErrorKind, Value, Write};
/// use tallygate::testing::{Fault, Faulty};
///
/// let store = Faulty::scripted(Memory::new(), [Fault::LoseReply]);
/// let key = Key { pk: "p".into(), sk: "s".into() };
/// let change = vec![Change::Set("n".into(), Value::Int(1))];
/// let write = Write { key: key.clone(), when: vec![], change };
/// assert_eq!(store.write(write).await.unwrap_err().kind, StoreErrorKind::Unknown);
/// assert_eq!(store.read(key).await.unwrap().unwrap().int("n"), Some(1));
/// # });
/// ```
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    script: VecDeque<Fault>,
    odds: Odds,
    random: u64,
    outage: bool,
    /// Limit on a page's items, if pages are cut.
    most: Option<usize>,
    /// Calls of every kind but `expire` so far.
    calls: u64,
    /// Writes to be repeated, and how many writes come before each.
    repeats: Vec<(u32, Write)>,
}

impl Faulty {
    /// Faults for the first writes, one each, in this order; later ones pass.
    pub fn scripted(inner: impl Store, script: impl IntoIterator<Item = Fault>) -> Self {
        Self::new(inner, script.into_iter().collect(), Odds::default(), 0)
    }

    /// Faults by chance, the same for the same seed.
    pub fn seeded(inner: impl Store, seed: u64, odds: Odds) -> Self {
        Self::new(inner, VecDeque::new(), odds, seed)
    }

    fn new(inner: impl Store, script: VecDeque<Fault>, odds: Odds, random: u64) -> Self {
        let (outage, most, calls, repeats) = (false, None, 0, Vec::new());
        let state = State { script, odds, random, outage, most, calls, repeats };
        Self { inner: Arc::new(inner), state: Arc::new(Mutex::new(state)) }
    }

    /// While on, every call is answered as unavailable and none reaches the store. The script is
    /// suspended meanwhile.
    pub fn outage(&self, on: bool) {
        self.state().outage = on;
    }

    /// Changes the frequency of faults.
    pub fn odds(&self, odds: Odds) {
        self.state().odds = odds;
    }

    /// Ends pages after 1 to `most` items, at random, and says that there is more, like a service
    /// that cuts pages by size.
    pub fn cut_pages(&self, most: usize) {
        self.state().most = Some(most.max(1));
    }

    /// Appends to the script, for the next writes.
    pub fn then(&self, script: impl IntoIterator<Item = Fault>) {
        self.state().script.extend(script);
    }

    /// Calls of every kind but `expire` so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on a read or a query, or fails it.
    async fn look<T>(
        self,
        call: impl FnOnce(&dyn Store) -> StoreFuture<T>,
    ) -> Result<T, StoreError> {
        let fault = self.state().next(false);
        match fault {
            Fault::Unavailable => return Err(refused(StoreErrorKind::Unavailable)),
            Fault::Throttled => return Err(refused(StoreErrorKind::Throttled)),
            Fault::Delay(long) => tokio::time::sleep(long).await,
            _ => {}
        }
        call(&*self.inner).await
    }

    /// The page, or a prefix of it.
    fn cut(&self, mut page: Page) -> Page {
        let mut state = self.state();
        if let Some(most) = state.most {
            let keep = 1 + (state.random() % most as u64) as usize;
            if keep < page.items.len() {
                page.next = Some(page.items.swap_remove(keep).0);
                page.items.truncate(keep);
            }
        }
        page
    }

    async fn pass(self, write: Write) -> Result<Written, StoreError> {
        let (fault, due) = {
            let mut state = self.state();
            (state.next(true), state.due())
        };
        for repeat in due {
            // The outcome of a copy is ignored.
            let _ = self.inner.write(repeat).await;
        }
        match fault {
            Fault::Pass => self.inner.write(write).await,
            Fault::Unavailable => Err(refused(StoreErrorKind::Unavailable)),
            Fault::Throttled => Err(refused(StoreErrorKind::Throttled)),
            Fault::LoseRequest => Err(refused(StoreErrorKind::Unknown)),
            Fault::LoseReply => {
                self.inner.write(write).await?;
                Err(refused(StoreErrorKind::Unknown))
            }
            Fault::Delay(long) => {
                tokio::time::sleep(long).await;
                self.inner.write(write).await
            }
            Fault::RepeatAfter(writes) => {
                self.state().repeats.push((writes.max(1), write.clone()));
                self.inner.write(write).await
            }
        }
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner.promise().kind).finish_non_exhaustive()
    }
}

impl Store for Faulty {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        Box::pin(self.clone().look(move |inner| inner.read(key)))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        Box::pin(self.clone().pass(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        let this = self.clone();
        Box::pin(async move {
            let page = this.clone().look(move |inner| inner.query(query)).await?;
            Ok(this.cut(page))
        })
    }

    /// Passed on, except during an outage. It draws no fault and is not counted: it comes from the
    /// gate's upkeep, on its own schedule, and would shift the faults that a test's calls meet.
    fn expire(&self, now_ms: i64) -> StoreFuture<usize> {
        let this = self.clone();
        Box::pin(async move {
            if this.state().outage {
                return Err(refused(StoreErrorKind::Unavailable));
            }
            this.inner.expire(now_ms).await
        })
    }

    /// Passed on, and not counted.
    fn check(&self) -> StoreFuture<()> {
        self.inner.check()
    }

    fn units(&self) -> Option<Units> {
        self.inner.units()
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn promise(&self) -> Promise {
        self.inner.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.inner.close()
    }
}

impl State {
    /// Draws the fault of the call that begins now.
    fn next(&mut self, is_write: bool) -> Fault {
        self.calls = self.calls.saturating_add(1);
        if self.outage {
            return Fault::Unavailable;
        }
        if is_write && let Some(fault) = self.script.pop_front() {
            return fault;
        }
        self.draw()
    }

    fn draw(&mut self) -> Fault {
        let Odds { unavailable, throttled, lose_request, lose_reply, delay, repeat } = self.odds;
        let drawn = self.random();
        let (mut roll, more) = (drawn % 1_000, drawn >> 32);
        for (odds, fault) in [
            (unavailable, Fault::Unavailable),
            (throttled, Fault::Throttled),
            (lose_request, Fault::LoseRequest),
            (lose_reply, Fault::LoseReply),
            (delay, Fault::Delay(Duration::from_millis(1 + more % 200))),
            (repeat, Fault::RepeatAfter(1 + (more % 8) as u32)),
        ] {
            match roll.checked_sub(u64::from(odds)) {
                Some(rest) => roll = rest,
                None => return fault,
            }
        }
        Fault::Pass
    }

    /// The copies due before the write that begins now.
    fn due(&mut self) -> Vec<Write> {
        if self.outage {
            return Vec::new();
        }
        let mut due = Vec::new();
        self.repeats.retain_mut(|(writes, write)| {
            *writes -= 1;
            if *writes == 0 {
                due.push(write.clone());
            }
            *writes > 0
        });
        due
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn refused(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, "a fault was injected")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Memory, Value};

    fn key() -> Key {
        Key { pk: "p".into(), sk: "s".into() }
    }

    fn add() -> Write {
        Write { key: key(), when: vec![], change: vec![Change::Add("n".into(), 1)] }
    }

    async fn sum(store: &impl Store) -> i64 {
        store.read(key()).await.unwrap().map_or(0, |item| item.int("n").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_is_applied_as_often_as_it_says() {
        let long = Duration::from_secs(3);
        for (fault, kind, applied) in [
            (Fault::Pass, None, 1),
            (Fault::Unavailable, Some(StoreErrorKind::Unavailable), 0),
            (Fault::Throttled, Some(StoreErrorKind::Throttled), 0),
            (Fault::LoseRequest, Some(StoreErrorKind::Unknown), 0),
            (Fault::LoseReply, Some(StoreErrorKind::Unknown), 1),
            (Fault::Delay(long), None, 1),
            (Fault::RepeatAfter(2), None, 1),
        ] {
            let store = Faulty::scripted(Memory::new(), [fault]);
            assert_eq!(store.write(add()).await.err().map(|e| e.kind), kind, "{fault:?}");
            assert_eq!(sum(&store).await, applied, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_copy_comes_before_the_nth_write_after_it() {
        let store = Faulty::scripted(Memory::new(), [Fault::RepeatAfter(2)]);
        let mut sums = Vec::new();
        for _ in 0..3 {
            store.write(add()).await.unwrap();
            sums.push(sum(&store).await);
        }
        assert_eq!(sums, [1, 2, 4]);
    }

    #[tokio::test]
    async fn an_outage_lets_nothing_through_and_keeps_the_script() {
        let store = Faulty::scripted(Memory::new(), [Fault::LoseReply]);
        store.outage(true);
        assert_eq!(store.write(add()).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(store.read(key()).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        store.outage(false);
        assert_eq!(store.write(add()).await.unwrap_err().kind, StoreErrorKind::Unknown);
        assert_eq!((sum(&store).await, store.calls()), (1, 4));
    }

    #[tokio::test]
    async fn expiry_is_passed_on_and_meets_nothing_but_an_outage() {
        let store = Faulty::scripted(Memory::new(), [Fault::Pass, Fault::LoseRequest]);
        let mut expiring = add();
        expiring.change.push(Change::Set("ttl".into(), Value::Int(1)));
        store.write(expiring).await.unwrap();
        store.outage(true);
        let refused = store.expire(1_000).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable);
        store.outage(false);
        assert_eq!(store.expire(1_000).await.unwrap(), 1);
        assert_eq!((sum(&store).await, store.calls()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn one_seed_is_one_run() {
        let odds = Odds {
            unavailable: 100,
            throttled: 100,
            lose_request: 100,
            lose_reply: 100,
            delay: 100,
            repeat: 100,
        };
        let mut runs = Vec::new();
        for seed in [7, 7, 8] {
            let store = Faulty::seeded(Memory::new(), seed, odds);
            let mut seen = Vec::new();
            for _ in 0..60 {
                seen.push(store.write(add()).await.map_err(|error| error.kind));
            }
            runs.push(format!("{seen:?}"));
        }
        assert_eq!(runs[0], runs[1]);
        assert_ne!(runs[0], runs[2]);
    }
}
