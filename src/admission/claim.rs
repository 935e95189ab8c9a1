//! The claim on an idempotency key: one item per key of a tenant, which lists the requests with
//! that key and, once one has been charged, what was used.
//!
//! # Laws
//!
//! 1. An item is `held` and becomes `settled` at most once, and a settled one is never written
//!    again except for the list of arrivals. So a key is charged at most once.
//! 2. The settled claim **is** the record of use: the log does not repeat it, and folding the
//!    ledger counts it. No request is answered before it is settled, so that no answer is
//!    uncharged.
//! 3. A request that finds a `held` claim runs as well, and tries to settle it at its end: the
//!    first to settle is charged. So a process that dies midway leaves nothing to clear up and no
//!    timer.
//! 4. Every request that arrives is written into the item under its own nonce before it runs, at
//!    most [`FREE`] besides the first. A later one is charged as without a key, unless it settles
//!    the claim itself. Work ([`OnceKey::of_work`]) has its id from the program, which does not
//!    send new work under an old id to save its cost: its repeats are not counted, and all are
//!    free.
//! 5. Each write names what it replaces, so that a repeated or late copy of it changes nothing.
//!
//! Pure: makes writes and reads answers, and calls no store. Not promised: a key that was never
//! charged is forgotten after [`KEEP_HELD_MS`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identity::BodyDigest;
use crate::ids::Surrogate;
use crate::sheets::use_row::RowAtoms;
use crate::store::layout::{self, Space, check_format};
use crate::store::{Change, Item, Key, StoreError, StoreErrorKind, Value, When, Write, Written};

/// Format of a claim.
const FORMAT: i64 = 2;

const STATE: &str = "state";
const PRINT: &str = "print";
const CAME: &str = "came";
const BY: &str = "by";
const USE: &str = "use";

/// No request has been charged.
const HELD: i64 = 0;
/// A request has been charged.
const SETTLED: i64 = 1;

/// Retries served without a charge. A client with no answer by then sends new work under an old
/// key.
pub(crate) const FREE: usize = 5;

/// How long an uncharged key is kept: seven days more than is promised.
pub(crate) const KEEP_HELD_MS: i64 = 8 * 86_400_000;

/// Begins what is hashed for work: a request's key is hashed as one part, so that neither can be
/// the other.
const WORK: &[u8] = b"work";

const NONCE_BYTES: usize = 16;
type Nonce = [u8; NONCE_BYTES];

/// The key and fingerprint of a request to be counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OnceKey {
    /// Hash of the key, which may contain anything and is not stored as it came.
    hash: u128,
    print: [u8; 16],
    /// Its arrivals are counted, and few of them are free.
    is_clients: bool,
}

/// One request's part in a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    key: Key,
    print: [u8; 16],
    nonce: Nonce,
    is_clients: bool,
    /// Whether it is one of those not charged if another one is.
    is_free: bool,
    /// What was used by the request that was charged, once that is known.
    settled: Option<ClaimUse>,
}

/// The next step of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClaimStep {
    /// Make this write, repeated as it is until its outcome is known, and report the outcome.
    Write(Write),
    /// How the request runs is known.
    Run(KeyFound),
}

/// How a request with a key runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyFound {
    /// Not charged yet: at its end this request tries to be the one.
    Open,
    /// Another was charged: this one is served without a charge.
    Replay,
    /// Another was charged, and too many have come since: this one is charged as without a key.
    Spent,
    /// The key came with another request.
    Conflict,
}

/// The result of an attempt to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// The claim has our units and charges them.
    Claim,
    /// The claim has another request's units: nothing is charged.
    Nothing,
    /// The same, but this request was one too many: the log has our units.
    Log,
}

/// The next step of settling a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Make this write, repeated as it is until its outcome is known, and report the outcome.
    Write(Write),
    /// Which request is charged is known.
    Done(Charge),
}

/// The use recorded in a settled claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClaimUse {
    pub(crate) period_ms: i64,
    pub(crate) day: u32,
    pub(crate) account: Option<Arc<str>>,
    /// Meter, atoms per unit, atoms.
    pub(crate) rows: Vec<(Arc<str>, u64, RowAtoms)>,
}

impl OnceKey {
    /// `target` is path and query; `body` is the digest of the request's body, if it was already
    /// read.
    pub(crate) fn new(
        key: &[u8],
        method: &str,
        target: (&str, &str),
        body: Option<&BodyDigest>,
    ) -> Self {
        let hash = u128::from_be_bytes(digest(&[key]));
        let (path, query) = (target.0.as_bytes(), target.1.as_bytes());
        let body = body.map_or(&[][..], |body| body.hash());
        let print = digest(&[method.as_bytes(), path, query, body]);
        Self { hash, print, is_clients: true }
    }

    /// The key of work, which is no client's to choose: no request's key is equal to it, and ids of
    /// other operations are others.
    pub(crate) fn of_work(op: &str, id: &str) -> Self {
        let hash = u128::from_be_bytes(digest(&[WORK, op.as_bytes(), id.as_bytes()]));
        Self { hash, print: digest(&[WORK, op.as_bytes()]), is_clients: false }
    }
}

impl Claim {
    /// This tenant's claim on the key, for one request.
    pub(crate) fn new(
        space: &Space,
        tenant: Surrogate,
        once: OnceKey,
    ) -> Result<Self, crate::random::Error> {
        let mut nonce = [0; NONCE_BYTES];
        crate::random::fill(&mut nonce)?;
        let key = space.claim(tenant, once.hash);
        let OnceKey { print, is_clients, .. } = once;
        Ok(Self { key, print, nonce, is_clients, is_free: true, settled: None })
    }

    /// The nonce that names it in the item, and the item's key.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn names(&self) -> (u128, &Key) {
        (u128::from_be_bytes(self.nonce), &self.key)
    }

    /// The use of a meter according to the settled claim that was found.
    pub(crate) fn used_of(&self, meter: &str, scale: u64) -> u64 {
        let rows = self.settled.iter().flat_map(|settled| &settled.rows);
        let of_meter = rows.filter(|(name, of, _)| (&**name, *of) == (meter, scale));
        of_meter.fold(0, |sum, (.., atoms)| sum.saturating_add(atoms.used.0))
    }

    /// The first write: puts the claim if there is none.
    pub(crate) fn put(&self, now_ms: i64) -> Write {
        Write { key: self.key.clone(), when: vec![When::Absent], change: self.as_held(now_ms) }
    }

    /// Reads the outcome of an arrival's write.
    pub(crate) fn next(&mut self, written: Written, now_ms: i64) -> Result<ClaimStep, StoreError> {
        let (Written::Applied(item) | Written::Refused(item)) = written;
        // It was held too long without a charge, and has been forgotten.
        let Some(item) = item else { return Ok(ClaimStep::Write(self.put(now_ms))) };
        let stands = Stands::read(&item)?;
        if stands.print != self.print {
            return Ok(ClaimStep::Run(KeyFound::Conflict));
        }
        let is_written = stands.came.chunks(NONCE_BYTES).any(|nonce| nonce == self.nonce);
        let has_come = is_written || !self.is_clients;
        let is_full = stands.came.len() >= (1 + FREE) * NONCE_BYTES;
        if !has_come && !is_full {
            return Ok(ClaimStep::Write(self.come(stands.came)));
        }
        self.is_free = has_come;
        self.settled = used(&item)?;
        Ok(ClaimStep::Run(match (stands.is_settled, has_come) {
            (false, _) => KeyFound::Open,
            (true, true) => KeyFound::Replay,
            (true, false) => KeyFound::Spent,
        }))
    }

    /// Where it is stored.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Reads the item without arriving: whether another was charged.
    pub(crate) fn is_paid(&mut self, item: &Item) -> Result<bool, StoreError> {
        if Stands::read(item)?.print == self.print {
            self.settled = used(item)?;
        }
        Ok(self.settled.is_some())
    }

    /// The write that charges.
    pub(crate) fn settle(&self, used: &ClaimUse) -> Write {
        let mut change = self.as_settled(used);
        change.push(Change::Remove(Item::TTL.into()));
        let when = vec![When::Equals(STATE.into(), Value::Int(HELD))];
        Write { key: self.key.clone(), when, change }
    }

    /// Reads the outcome of that write.
    pub(crate) fn settled(&self, written: Written, used: &ClaimUse) -> Result<Settle, StoreError> {
        let item = match written {
            Written::Applied(_) => return Ok(Settle::Done(Charge::Claim)),
            Written::Refused(None) => return Ok(Settle::Write(self.settle_anew(used))),
            Written::Refused(Some(item)) => item,
        };
        if !Stands::read(&item)?.is_settled {
            return Ok(Settle::Write(self.settle(used)));
        }
        let is_ours = item.bytes(BY) == Some(&self.nonce[..]);
        Ok(Settle::Done(match is_ours {
            true => Charge::Claim,
            false if self.is_free => Charge::Nothing,
            false => Charge::Log,
        }))
    }

    /// The write that charges if the claim has been forgotten.
    fn settle_anew(&self, used: &ClaimUse) -> Write {
        let held = [STATE, Item::TTL];
        let is_held = |change: &Change| matches!(change, Change::Set(n, _) if held.contains(&&**n));
        let mut change = self.as_held(0);
        change.retain(|change| !is_held(change));
        change.extend(self.as_settled(used));
        Write { key: self.key.clone(), when: vec![When::Absent], change }
    }

    fn as_held(&self, now_ms: i64) -> Vec<Change> {
        let (format, version) = layout::format(FORMAT);
        let ttl = now_ms.saturating_add(KEEP_HELD_MS).div_euclid(1_000);
        vec![
            Change::Set(format, version),
            Change::Set(STATE.into(), Value::Int(HELD)),
            Change::Set(PRINT.into(), Value::Bytes(self.print.to_vec())),
            Change::Set(CAME.into(), Value::Bytes(self.nonce.to_vec())),
            Change::Set(Item::TTL.into(), Value::Int(ttl)),
        ]
    }

    fn as_settled(&self, used: &ClaimUse) -> Vec<Change> {
        let packed = postcard::to_stdvec(used).expect("numbers and text always encode");
        vec![
            Change::Set(STATE.into(), Value::Int(SETTLED)),
            Change::Set(BY.into(), Value::Bytes(self.nonce.to_vec())),
            Change::Set(USE.into(), Value::Bytes(packed)),
        ]
    }

    fn come(&self, came: Vec<u8>) -> Write {
        let mut all = came.clone();
        all.extend(self.nonce);
        Write {
            key: self.key.clone(),
            when: vec![When::Equals(CAME.into(), Value::Bytes(came))],
            change: vec![Change::Set(CAME.into(), Value::Bytes(all))],
        }
    }
}

/// The use recorded in a claim: none while it is only held.
pub(crate) fn used(item: &Item) -> Result<Option<ClaimUse>, StoreError> {
    if !Stands::read(item)?.is_settled {
        return Ok(None);
    }
    let bytes = item.bytes(USE).ok_or_else(|| damaged(USE))?;
    postcard::from_bytes(bytes).map(Some).map_err(|_| damaged(USE))
}

/// The present state of a claim.
struct Stands {
    is_settled: bool,
    print: [u8; 16],
    came: Vec<u8>,
}

impl Stands {
    fn read(item: &Item) -> Result<Self, StoreError> {
        check_format(item, FORMAT, "a claim")?;
        let print = item.bytes(PRINT).and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            is_settled: item.int(STATE).ok_or_else(|| damaged(STATE))? == SETTLED,
            print: print.ok_or_else(|| damaged(PRINT))?,
            came: item.bytes(CAME).ok_or_else(|| damaged(CAME))?.to_vec(),
        })
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("a claim without a readable `{what}`"))
}

/// 128 bits of the parts' hash. Each part is delimited by its length.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

/// A request's claim waiting to be settled, with everything that depends on it.
pub(crate) trait Unsettled: std::fmt::Debug + Send {
    fn claim(&self) -> &Claim;
    fn tenant(&self) -> Surrogate;
    /// The name of the plan that it was admitted under.
    fn plan(&self) -> &Arc<str>;
    /// The use to record in the claim.
    fn usage(&self) -> ClaimUse;
    /// Which request is charged is known. Passes on to the response whether this one has used
    /// anything.
    fn end(self: Box<Self>, charge: Charge);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::amount::Atoms;
    use crate::store::{Memory, Store};

    fn at_once<T>(mut call: crate::store::StoreFuture<T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match call.as_mut().poll(&mut context) {
            std::task::Poll::Ready(answer) => answer.unwrap(),
            std::task::Poll::Pending => unreachable!("a store in memory answers at once"),
        }
    }

    fn claim(path: &str) -> Claim {
        let once = OnceKey::new(b"k", "POST", (path, ""), None);
        Claim::new(&Space::new("test"), Surrogate::test(1), once).unwrap()
    }

    /// Runs the arrival to its end, on a store that does not fail.
    fn come(store: &Memory, claim: &mut Claim) -> KeyFound {
        let mut write = claim.put(0);
        loop {
            match claim.next(at_once(store.write(write)), 0).unwrap() {
                ClaimStep::Run(found) => return found,
                ClaimStep::Write(next) => write = next,
            }
        }
    }

    fn units(n: u64) -> ClaimUse {
        ClaimUse {
            period_ms: 0,
            day: 0,
            account: None,
            rows: vec![("requests".into(), 1, RowAtoms { used: Atoms(n), over: Atoms::NONE })],
        }
    }

    fn settle(store: &Memory, claim: &Claim, used: &ClaimUse) -> Charge {
        let mut write = claim.settle(used);
        loop {
            match claim.settled(at_once(store.write(write)), used).unwrap() {
                Settle::Done(charge) => return charge,
                Settle::Write(next) => write = next,
            }
        }
    }

    #[test]
    fn five_retries_are_free_and_the_next_is_charged_as_without_a_key() {
        let store = Memory::new();
        let mut first = claim("/chat");
        assert_eq!(come(&store, &mut first), KeyFound::Open);
        assert_eq!(settle(&store, &first, &units(3)), Charge::Claim);
        assert_eq!(settle(&store, &first, &units(3)), Charge::Claim, "repeated, it says the same");
        for _ in 0..FREE {
            let mut retry = claim("/chat");
            assert_eq!(come(&store, &mut retry), KeyFound::Replay);
            assert_eq!(come(&store, &mut retry), KeyFound::Replay, "repeated, it is counted once");
        }
        assert_eq!(come(&store, &mut claim("/chat")), KeyFound::Spent);
        let item = at_once(store.read(first.key.clone())).unwrap();
        assert_eq!(used(&item).unwrap(), Some(units(3)));
        assert_eq!(item.int(Item::TTL), None, "what was used is kept");
    }

    #[test]
    fn each_repeat_of_work_is_free_and_none_is_written_down() {
        let (store, space, tenant) = (Memory::new(), Space::new("test"), Surrogate::test(1));
        let work = |op| Claim::new(&space, tenant, OnceKey::of_work(op, "k")).unwrap();
        let stored = || at_once(store.read(work("a").key));
        let mut first = work("a");
        assert_eq!(come(&store, &mut first), KeyFound::Open);
        let held = stored();
        for _ in 0..3 * FREE {
            let mut attempt = work("a");
            assert_eq!(come(&store, &mut attempt), KeyFound::Open);
            assert!(!attempt.is_paid(&held.clone().unwrap()).unwrap());
        }
        assert_eq!(stored(), held);
        assert_eq!(settle(&store, &first, &units(3)), Charge::Claim);
        let settled = stored();
        for _ in 0..3 * FREE {
            let mut repeat = work("a");
            assert_eq!(come(&store, &mut repeat), KeyFound::Replay);
            assert!(repeat.is_paid(&settled.clone().unwrap()).unwrap());
            assert_eq!(settle(&store, &repeat, &units(1)), Charge::Nothing);
        }
        assert_eq!(stored(), settled);
        assert_eq!(come(&store, &mut work("b")), KeyFound::Open, "of another operation");
        assert_eq!(come(&store, &mut claim("/chat")), KeyFound::Open, "a request's `k`");
    }

    #[test]
    fn who_finds_a_claim_held_may_be_the_one_that_is_charged() {
        let store = Memory::new();
        let (mut dead, mut retry) = (claim("/chat"), claim("/chat"));
        assert_eq!(come(&store, &mut dead), KeyFound::Open);
        assert_eq!(come(&store, &mut retry), KeyFound::Open);
        let item = at_once(store.read(retry.key.clone())).unwrap();
        assert_eq!(used(&item).unwrap(), None, "held is not used");
        assert!(item.int(Item::TTL).is_some());
        assert_eq!(settle(&store, &retry, &units(2)), Charge::Claim);
        assert_eq!(settle(&store, &dead, &units(1)), Charge::Nothing);
    }

    #[test]
    fn another_request_with_the_key_is_a_conflict_and_leaves_no_trace() {
        let store = Memory::new();
        assert_eq!(come(&store, &mut claim("/chat")), KeyFound::Open);
        let before = at_once(store.read(claim("/chat").key));
        assert_eq!(come(&store, &mut claim("/other")), KeyFound::Conflict);
        let same = OnceKey::new(b"k", "POST", ("/chat", ""), Some(&BodyDigest::of(b"body")));
        let mut other = Claim::new(&Space::new("test"), Surrogate::test(1), same).unwrap();
        assert_eq!(come(&store, &mut other), KeyFound::Conflict);
        assert_eq!(at_once(store.read(claim("/chat").key)), before);
    }

    #[test]
    fn a_claim_that_was_forgotten_is_settled_all_the_same() {
        let store = Memory::new();
        let mut frozen = claim("/chat");
        come(&store, &mut frozen);
        at_once(store.expire(KEEP_HELD_MS + 1));
        assert_eq!(settle(&store, &frozen, &units(1)), Charge::Claim);
        let mut late = claim("/chat");
        assert_eq!(come(&store, &mut late), KeyFound::Replay);
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// This request's next write reaches the store; its reply is lost or not.
        Step { who: usize, lost: bool },
        /// A copy of an earlier write arrives.
        Late(usize),
        /// It dies at this point.
        Die(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            8 => (0usize..10, prop::bool::weighted(0.2))
                .prop_map(|(who, lost)| Event::Step { who, lost }),
            2 => any::<prop::sample::Index>().prop_map(|i| Event::Late(i.index(1_000))),
            1 => (0usize..10).prop_map(Event::Die),
        ];
        prop::collection::vec(event, 1..120)
    }

    /// One request with the key, on any node.
    struct Who {
        claim: Claim,
        next: Option<Write>,
        found: Option<KeyFound>,
        charge: Option<Charge>,
    }

    proptest! {
        /// Ten requests with one key on ten nodes, in any order, with lost replies, late copies and
        /// deaths: at most one is charged by the claim, and every answered one is charged or one of
        /// five besides the charged one; of work, each but the charged one is free.
        #[test]
        fn a_key_is_charged_at_most_once_and_an_answered_one_once(
            events in events(),
            is_work in any::<bool>(),
        ) {
            let store = Memory::new();
            let mut all: Vec<Who> = (0..10).map(|_| {
                let mut claim = claim("/chat");
                claim.is_clients = !is_work;
                Who { next: Some(claim.put(0)), claim, found: None, charge: None }
            }).collect();
            let mut sent: Vec<Write> = Vec::new();
            for event in events {
                match event {
                    Event::Step { who, lost } => {
                        let who = &mut all[who];
                        let Some(write) = who.next.clone() else { continue };
                        sent.push(write.clone());
                        let written = at_once(store.write(write));
                        if lost {
                            continue; // and the same write is made again
                        }
                        if who.found.is_none() {
                            match who.claim.next(written, 0).unwrap() {
                                ClaimStep::Write(next) => who.next = Some(next),
                                ClaimStep::Run(found) => {
                                    who.found = Some(found);
                                    let open = found == KeyFound::Open;
                                    who.next = open.then(|| who.claim.settle(&units(1)));
                                }
                            }
                        } else {
                            match who.claim.settled(written, &units(1)).unwrap() {
                                Settle::Write(next) => who.next = Some(next),
                                Settle::Done(charge) => {
                                    (who.charge, who.next) = (Some(charge), None);
                                }
                            }
                        }
                    }
                    Event::Late(i) if !sent.is_empty() => {
                        at_once(store.write(sent[i % sent.len()].clone()));
                    }
                    Event::Late(_) => {}
                    Event::Die(who) => all[who].next = None,
                }
                let item = at_once(store.read(all[0].claim.key.clone()));
                let settled = item.and_then(|item| used(&item).unwrap()).is_some();
                let by_claim = all.iter().filter(|who| who.charge == Some(Charge::Claim)).count();
                prop_assert!(by_claim <= 1, "{by_claim} were charged by one claim");
                let free = all.iter().filter(|who| {
                    who.charge == Some(Charge::Nothing) || who.found == Some(KeyFound::Replay)
                });
                prop_assert!(is_work || free.clone().count() <= FREE);
                let spent = all.iter().filter(|who| {
                    who.charge == Some(Charge::Log) || who.found == Some(KeyFound::Spent)
                });
                prop_assert!(!is_work || spent.count() == 0, "a repeat of work was charged");
                let nobody = by_claim == 0 && free.count() == 0;
                prop_assert!(settled || nobody, "answered, not charged");
            }
        }
    }
}
