//! Alerts of several processes on one store, which die and are followed by others, to a receiver
//! that fails in every way: each arrives once, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use tokio::time::sleep;

use super::super::queue::About;
use super::super::{Notification, Notifier, NotifierFuture, VerdictFuture, kinds};
use super::*;
use crate::clock::{Clock, Now};
use crate::ids::Surrogate;
use crate::store::layout::Space;
use crate::store::{Memory, Store};
use crate::testing::{Faulty, Odds};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const START_MS: i64 = 1_773_748_800_000;

/// Both clocks go with tokio's, which is paused.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Now {
        let start = Now { mono_ns: 1 << 40, wall_ms: START_MS };
        start.after(self.0.elapsed())
    }
}

/// What a receiver does with the next delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Takes,
    Later,
    Refuses,
    /// It takes none for so many seconds, and says so.
    NotBefore(u64),
    Hangs,
    Panics,
    /// It takes the alert, and answers after so many seconds.
    TakesAfter(u64),
}

#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Seen>>);

struct Seen {
    answer: Answer,
    /// What was taken, in order, with when.
    taken: Vec<(String, Instant)>,
    tries: usize,
    /// Alerts that it refuses whatever it does with the others.
    refuses: BTreeSet<String>,
    /// All that it has refused.
    refused: BTreeSet<String>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            answer: Answer::Takes,
            taken: Vec::new(),
            tries: 0,
            refuses: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }
}

impl Receiver {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self, answer: Answer) {
        self.seen().answer = answer;
    }

    fn taken(&self) -> Vec<String> {
        self.seen().taken.iter().map(|(id, _)| id.clone()).collect()
    }
}

/// The receiver under a name.
struct At(&'static str, Receiver);

impl Notifier for At {
    fn name(&self) -> &str {
        self.0
    }

    fn deliver(&self, of: Notification) -> NotifierFuture {
        let receiver = self.1.clone();
        Box::pin(async move {
            let answer = {
                let mut seen = receiver.seen();
                seen.tries += 1;
                let answer = match seen.refuses.contains(&of.id) {
                    true => Answer::Refuses,
                    false => seen.answer,
                };
                match answer {
                    Answer::Takes | Answer::TakesAfter(_) => {
                        seen.taken.push((of.id, Instant::now()));
                    }
                    Answer::Refuses => _ = seen.refused.insert(of.id),
                    _ => {}
                }
                answer
            };
            match answer {
                Answer::Takes => Ok(()),
                Answer::Later => Err(NotDelivered::Later("503".into())),
                Answer::NotBefore(seconds) => {
                    Err(NotDelivered::NotBefore(Duration::from_secs(seconds), "429".into()))
                }
                Answer::Refuses => Err(NotDelivered::Refused("400".into())),
                Answer::Hangs => std::future::pending().await,
                Answer::Panics => panic!("the host's own code"),
                Answer::TakesAfter(seconds) => {
                    sleep(Duration::from_secs(seconds)).await;
                    Ok(())
                }
            }
        })
    }
}

/// What of the world has happened, and how often that was asked.
#[derive(Default)]
struct World(Mutex<BTreeMap<u64, Verdict>>, AtomicUsize);

impl Judge for World {
    fn judge<'a>(&'a self, about: &'a About) -> VerdictFuture<'a> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let verdict = match about {
            About::Change { change, .. } => self.0.lock().unwrap()[change],
            _ => Verdict::Happened,
        };
        Box::pin(async move { Ok(verdict) })
    }
}

/// A process: its queue, and the task that sends.
struct Node {
    queue: Arc<AlertQueue>,
    world: Arc<World>,
    senders: Vec<AlertDelivery>,
}

impl Node {
    fn start(
        store: &Arc<dyn Store>,
        clock: &Arc<Paused>,
        to: &[(&'static str, &Receiver)],
    ) -> Self {
        let destination = |(name, receiver): &(&'static str, &Receiver)| {
            Destination::new(Arc::new(At(name, (*receiver).clone())), true)
        };
        let destinations = to.iter().map(destination).collect();
        let space = Space::new("test");
        let queue = Arc::new(AlertQueue::new(store.clone(), space, clock.clone(), destinations));
        let world = Arc::<World>::default();
        let mut node = Self { queue, world, senders: Vec::new() };
        node.send();
        node
    }

    fn send(&mut self) {
        self.senders = (self.queue.destinations.iter())
            .map(|to| AlertDelivery::start(self.queue.clone(), to.clone(), self.world.clone()))
            .collect::<Result<_, _>>()
            .unwrap();
    }

    async fn raise(&self, n: u64) -> String {
        let entry = kinds::test(self.queue.stamp(), n);
        while self.queue.raise(&entry).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        entry.notification.id
    }
}

async fn close(node: &Node, within: Duration) {
    let deadline = Instant::now() + within;
    node.senders.iter().for_each(|sender| sender.stop(deadline));
    for sender in &node.senders {
        sender.ended_by(deadline).await;
    }
}

/// Alerts of this destination that were given up.
async fn dead(node: &Node, store: &Arc<dyn Store>) -> usize {
    let pk = node.queue.space.dead_alert("ops", 0, "").pk;
    let query = crate::store::Query { pk, from: String::new(), until: None, limit: 99 };
    store.query(query).await.unwrap().items.len()
}

fn clock() -> Arc<Paused> {
    Arc::new(Paused(Instant::now()))
}

fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

/// A receiver of several services drops what it has seen of one of them.
#[tokio::test(start_paused = true)]
async fn the_same_trouble_of_two_services_is_two_alerts_and_of_one_service_one() {
    let (clock, receiver) = (clock(), Receiver::default());
    let (table, other) = (memory(), memory());
    let mut ids = Vec::new();
    for (store, space) in [(&table, "live"), (&table, "test"), (&other, "live"), (&table, "live")] {
        let to = Destination::new(Arc::new(At("ops", receiver.clone())), true);
        let space = Space::new(space);
        let queue = AlertQueue::new(store.clone(), space.clone(), clock.clone(), vec![to]);
        let (kind, text) = (kinds::BILLING_DRIFT, "differences".to_owned());
        let drift = kinds::service_trouble(kind, queue.stamp(), 0, text, serde_json::json!({}));
        queue.raise_of_service(&drift).await.unwrap();
        let pk = space.waiting_alert("ops", 0, "").pk;
        let query = crate::store::Query { pk, from: String::new(), until: None, limit: 9 };
        let items = store.query(query).await.unwrap().items;
        ids.push(super::super::queue::read(&items.last().unwrap().1).unwrap().notification.id);
    }
    assert_eq!(ids[0], ids[3], "another process of the first");
    assert_eq!(BTreeSet::from_iter(&ids).len(), 3, "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_for_an_hour_gets_each_once_afterwards_in_order() {
    let kinds = [Answer::Later, Answer::Hangs, Answer::Panics, Answer::Refuses];
    for failure in kinds {
        let (store, clock, receiver) = (memory(), clock(), Receiver::default());
        let node = Node::start(&store, &clock, &[("ops", &receiver)]);
        receiver.answers(failure);
        let mut raised = Vec::new();
        for n in 0..60 {
            raised.push(node.raise(n).await);
            sleep(MINUTE).await;
        }
        assert!(receiver.taken().is_empty());
        let tries = receiver.seen().tries;
        let most = if failure == Answer::Refuses { 60 } else { 30 };
        assert!((12..most).contains(&tries), "{tries} tries in an hour");
        let state = node.queue.destinations[0].state();
        assert!(state.error.is_some() && state.waiting > 50, "{state:?}");
        assert!(state.oldest >= HOUR - 6 * MINUTE, "{state:?}");
        receiver.answers(Answer::Takes);
        sleep(6 * MINUTE).await;
        assert_eq!(receiver.taken(), raised, "{failure:?}");
        assert_eq!(node.queue.destinations[0].state(), QueueState::default());
        sleep(HOUR).await;
        assert_eq!(receiver.taken().len(), 60, "once");
        assert!(node.queue.waiting("ops", 9).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_holds_up_no_other() {
    let (store, clock) = (memory(), clock());
    let (slow, fast) = (Receiver::default(), Receiver::default());
    let node = Node::start(&store, &clock, &[("slow", &slow), ("fast", &fast)]);
    slow.answers(Answer::Hangs);
    for n in 0..100 {
        node.raise(n).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fast.taken().len(), 100);
    assert!(slow.taken().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_waits_for_the_delivery_under_way_and_sends_nothing_twice() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::TakesAfter(1));
    for n in 0..5 {
        node.raise(n).await;
    }
    sleep(Duration::from_millis(2_500)).await;
    close(&node, Duration::from_secs(2)).await;
    let before = receiver.taken().len();
    assert_eq!(before, 3);
    // The lock was released: another goes on at once.
    let _next = Node::start(&store, &clock, &[("ops", &receiver)]);
    sleep(Duration::from_secs(10)).await;
    let taken = receiver.taken();
    assert_eq!(taken.len(), 5, "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn one_process_sends_and_another_follows_within_a_minute_and_a_half() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let one = Node::start(&store, &clock, &[("ops", &receiver)]);
    sleep(Duration::from_secs(1)).await;
    let two = Node::start(&store, &clock, &[("ops", &receiver)]);
    two.raise(1).await;
    sleep(LOOK).await;
    assert_eq!(receiver.seen().tries, 1, "what another has written is sent within 5 s");
    drop(one); // cut off
    two.raise(2).await;
    sleep(HOLD + STAND_BY).await;
    assert_eq!(receiver.seen().tries, 2);
}

#[tokio::test(start_paused = true)]
async fn a_close_lets_every_slow_destination_finish_and_gives_all_locks_back() {
    let (store, clock) = (memory(), clock());
    let (one, two) = (Receiver::default(), Receiver::default());
    let to = [("one", &one), ("two", &two)];
    let node = Node::start(&store, &clock, &to);
    one.answers(Answer::TakesAfter(8));
    two.answers(Answer::TakesAfter(8));
    node.raise(1).await;
    sleep(Duration::from_secs(1)).await;
    close(&node, Duration::from_secs(9)).await;
    let _next = Node::start(&store, &clock, &to);
    sleep(MINUTE).await;
    assert_eq!((one.taken().len(), two.taken().len()), (1, 1), "each once");
}

/// It is not known whether it was taken, so it comes again; but at once.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_outlasts_the_close_keeps_no_lock() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::Hangs);
    let id = node.raise(1).await;
    sleep(Duration::from_secs(1)).await;
    close(&node, Duration::from_secs(2)).await;
    receiver.answers(Answer::Takes);
    let _next = Node::start(&store, &clock, &[("ops", &receiver)]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.taken(), [id]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_set_aside_and_lets_the_others_pass() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    let refused = kinds::test(0, 1).notification.id;
    receiver.seen().refuses.insert(refused.clone());
    assert_eq!(node.raise(1).await, refused);
    let others = [node.raise(2).await, node.raise(3).await];
    sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.taken(), others, "at once, in order");
    let waiting = node.queue.waiting("ops", 9).await.unwrap();
    assert_eq!(waiting[0].1.refused.as_deref(), Some("400"), "listed as refused");
    sleep(10 * MINUTE).await;
    let state = node.queue.destinations[0].state();
    assert_eq!((state.waiting, state.error.as_deref()), (1, Some("refused: 400")));
    assert!(state.oldest >= 9 * MINUTE, "{state:?}");
    sleep(24 * HOUR).await;
    let tries = receiver.seen().tries;
    assert!((8..16).contains(&tries), "{tries}: at growing intervals");
    // Another process knows it as refused.
    drop(node);
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.seen().refuses.clear();
    sleep(3 * MINUTE).await;
    assert_eq!(receiver.taken().len(), 2);
    sleep(10 * MINUTE).await;
    assert_eq!(receiver.taken().last(), Some(&refused), "it takes it after all");
    assert_eq!(node.queue.destinations[0].state(), QueueState::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_a_week_is_given_up() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::Refuses);
    node.raise(1).await;
    sleep(7 * 24 * HOUR - MINUTE).await;
    assert_eq!(
        (dead(&node, &store).await, node.queue.waiting("ops", 9).await.unwrap().len()),
        (0, 1)
    );
    sleep(7 * HOUR).await;
    assert_eq!(dead(&node, &store).await, 1, "kept for inspection");
    assert!(node.queue.waiting("ops", 9).await.unwrap().is_empty());
}

/// Four bad alerts in a row hold those behind them for some pauses, and not for good.
#[tokio::test(start_paused = true)]
async fn several_refused_in_a_row_do_not_hold_the_queue() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.seen().refuses.extend((0..6).map(|n| kinds::test(0, n).notification.id));
    let mut good = Vec::new();
    for n in 0..9 {
        let id = node.raise(n).await;
        good.extend((n >= 6).then_some(id));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.seen().tries, 3, "it is taken to refuse everything");
    sleep(10 * MINUTE).await;
    assert_eq!(receiver.taken(), good);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_refuses_everything_burns_no_queue() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::Refuses);
    let mut raised = Vec::new();
    for n in 0..200 {
        raised.push(node.raise(n).await);
    }
    sleep(3 * 24 * HOUR).await;
    assert_eq!(dead(&node, &store).await, 0);
    let refused = receiver.seen().refused.len();
    assert!(refused <= super::super::set_aside::MAX_REFUSED + 1, "{refused}");
    let state = node.queue.destinations[0].state();
    assert!(state.waiting == 200 && state.error.unwrap().contains("refuses every alert"));
    receiver.answers(Answer::Takes);
    sleep(6 * MINUTE).await;
    assert_eq!(receiver.taken(), raised, "all of them, in order");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_a_pause_has_it_within_an_hour() {
    for (asked, pause) in [(1_200, 1_200), (90_000, 3_600)] {
        let (store, clock, receiver) = (memory(), clock(), Receiver::default());
        let node = Node::start(&store, &clock, &[("ops", &receiver)]);
        receiver.answers(Answer::NotBefore(asked));
        node.raise(1).await;
        sleep(Duration::from_secs(pause - 5)).await;
        assert_eq!(receiver.seen().tries, 1, "{asked} s");
        sleep(Duration::from_secs(10)).await;
        assert_eq!(receiver.seen().tries, 2, "{asked} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_sent_slowly_is_seen_and_bounded() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::TakesAfter(9));
    for n in 0..MAX_WAITING as u64 + 100 {
        node.raise(n).await;
    }
    sleep(5 * MINUTE).await;
    let state = node.queue.destinations[0].state();
    assert!((MAX_WAITING - 50..=MAX_WAITING).contains(&state.waiting), "{state:?}");
    assert_eq!(state.error, None, "nothing fails");
    assert!(state.oldest >= 2 * MINUTE, "{:?}", state.oldest);
    assert!(dead(&node, &store).await > 0, "the oldest are given up");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_serve_is_said_in_words_of_ours() {
    let faulty = Faulty::seeded(Memory::new(), 1, Odds::default());
    let (store, receiver): (Arc<dyn Store>, _) = (Arc::new(faulty.clone()), Receiver::default());
    let node = Node::start(&store, &clock(), &[("ops", &receiver)]);
    sleep(LOOK).await;
    faulty.odds(Odds { unavailable: 1_000, ..Odds::default() });
    sleep(3 * LOOK).await;
    let state = node.queue.destinations[0].state();
    let error = "the store does not serve its queue: unavailable";
    assert_eq!(state.error.as_deref(), Some(error));
    faulty.odds(Odds::default());
    sleep(3 * LOOK).await;
    assert_eq!(node.queue.destinations[0].state(), QueueState::default());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_cut_off_is_dropped_and_not_given_up() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    node.world.0.lock().unwrap().insert(1, Verdict::Pending);
    let of = kinds::ChangeAhead { surrogate: Surrogate::test(1), tenant: "acme", change: 1 };
    let entry = kinds::plan_changed(node.queue.stamp(), of, (None, Some("pro")));
    node.queue.raise(&entry).await.unwrap();
    sleep(HOUR).await;
    let judged = node.world.1.load(Ordering::Relaxed);
    assert!((60..90).contains(&judged), "{judged} in an hour");
    sleep(7 * 24 * HOUR).await;
    assert!(node.queue.waiting("ops", 9).await.unwrap().is_empty());
    assert_eq!(dead(&node, &store).await, 0);
}

/// Its note failed, say, so that it is found once more.
#[tokio::test(start_paused = true)]
async fn an_alert_that_is_raised_again_is_the_same_entry() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::Later);
    for _ in 0..3 {
        node.raise(1).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(node.queue.waiting("ops", 9).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_tried_for_a_week() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::Later);
    node.raise(1).await;
    sleep(7 * 24 * HOUR - 10 * MINUTE).await;
    assert_eq!(node.queue.waiting("ops", 9).await.unwrap().len(), 1);
    sleep(20 * MINUTE).await;
    receiver.answers(Answer::Takes);
    sleep(HOUR).await;
    assert!(receiver.taken().is_empty());
    assert!(node.queue.waiting("ops", 9).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_bounded_and_gives_up_its_oldest() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::Later);
    let mut raised = Vec::new();
    for n in 0..MAX_WAITING as u64 + 20 {
        raised.push(node.raise(n).await);
    }
    sleep(HOUR).await;
    assert_eq!(node.queue.destinations[0].state().waiting, MAX_WAITING);
    receiver.answers(Answer::Takes);
    sleep(HOUR).await;
    assert!(receiver.taken() == raised[20..], "{}", receiver.taken().len());
}

/// A change that is announced and not made is neither sent nor in the way.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_effect_is_sent_after_it_or_never() {
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    let mut ids = Vec::new();
    for change in 1..=2 {
        node.world.0.lock().unwrap().insert(change, Verdict::Pending);
        let of = kinds::ChangeAhead { surrogate: Surrogate::test(1), tenant: "acme", change };
        let entry = kinds::plan_changed(node.queue.stamp(), of, (None, Some("pro")));
        node.queue.raise(&entry).await.unwrap();
        ids.push(entry.notification.id);
    }
    let fact = node.raise(1).await;
    sleep(HOUR).await;
    assert_eq!(receiver.taken(), [&*fact]);
    node.world.0.lock().unwrap().extend([(1, Verdict::Never), (2, Verdict::Happened)]);
    sleep(MINUTE + LOOK).await;
    assert_eq!(receiver.taken(), [&*fact, &*ids[1]]);
    assert!(node.queue.waiting("ops", 9).await.unwrap().is_empty());
}

/// An entry in a format of a later version.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_left_for_a_newer_binary_and_is_not_in_the_way() {
    use crate::store::{Change, Value, Write};
    let (store, clock, receiver) = (memory(), clock(), Receiver::default());
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    let key = node.queue.space.waiting_alert("ops", 5, "al_x");
    let change = vec![Change::Set("v".into(), Value::Int(9))];
    store.write(Write { key: key.clone(), when: vec![], change }).await.unwrap();
    let id = node.raise(1).await;
    sleep(2 * LOOK).await;
    assert_eq!(receiver.taken(), [id]);
    assert!(store.read(key).await.unwrap().is_some());
}

/// A step of a history of three processes.
/// It was refused before, and is in the queue as such.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_could_not_be_noted_is_noted_before_any_other() {
    let faulty = Faulty::seeded(Memory::new(), 1, Odds::default());
    let (store, clock): (Arc<dyn Store>, _) = (Arc::new(faulty.clone()), clock());
    let receiver = Receiver::default();
    let node = Node::start(&store, &clock, &[("ops", &receiver)]);
    receiver.answers(Answer::Refuses);
    for n in 0..3 {
        node.raise(n).await;
    }
    sleep(MINUTE).await;
    receiver.answers(Answer::TakesAfter(1));
    while receiver.taken().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    faulty.odds(Odds { unavailable: 1_000, ..Odds::default() });
    sleep(Duration::from_secs(2)).await;
    faulty.odds(Odds::default());
    receiver.answers(Answer::Takes);
    node.raise(3).await;
    sleep(7 * HOUR).await;
    let taken = receiver.taken();
    assert_eq!((taken.len(), BTreeSet::from_iter(&taken).len()), (4, 4), "{taken:?}");
}

#[derive(Clone, Debug)]
enum Step {
    /// These processes find the alert of this number, one after the other.
    Raise(u8, Vec<usize>),
    Answers(Answer),
    /// This process dies at once, and another is started.
    Kill(usize),
    Sleep(u64),
}

fn step() -> impl Strategy<Value = Step> {
    use Answer::*;
    let answer = prop_oneof![
        3 => Just(Takes),
        1 => Just(Later),
        1 => Just(Refuses),
        1 => Just(Hangs),
        1 => Just(Panics),
        2 => (1..9_u64).prop_map(TakesAfter),
    ];
    prop_oneof![
        4 => (0..40_u8, proptest::collection::vec(0..3_usize, 1..4))
            .prop_map(|(n, nodes)| Step::Raise(n, nodes)),
        2 => answer.prop_map(Step::Answers),
        1 => (0..3_usize).prop_map(Step::Kill),
        2 => (1..400_u64).prop_map(Step::Sleep),
    ]
}

async fn history(steps: Vec<Step>, seed: u64) {
    let odds = Odds {
        unavailable: 30,
        throttled: 20,
        lose_request: 20,
        lose_reply: 30,
        delay: 100,
        repeat: 0,
    };
    let faulty = Faulty::seeded(Memory::new(), seed, odds);
    let (store, clock): (Arc<dyn Store>, _) = (Arc::new(faulty.clone()), clock());
    let receiver = Receiver::default();
    let start = || Node::start(&store, &clock, &[("ops", &receiver)]);
    let mut nodes = [start(), start(), start()];
    let (mut raised, mut kills) = (Vec::<String>::new(), 0);
    for step in steps {
        match step {
            Step::Raise(n, finders) => {
                for finder in finders {
                    let id = nodes[finder].raise(n.into()).await;
                    if !raised.contains(&id) {
                        raised.push(id);
                    }
                    // Their clocks agree, and stamps are not ahead of them.
                    sleep(Duration::from_millis(5)).await;
                }
            }
            Step::Answers(answer) => receiver.answers(answer),
            Step::Kill(node) => {
                nodes[node] = start();
                kills += 1;
            }
            Step::Sleep(seconds) => sleep(Duration::from_secs(seconds)).await,
        }
    }
    receiver.answers(Answer::Takes);
    faulty.odds(Odds::default());
    sleep(7 * HOUR).await; // the longest pause of what was refused
    let taken = receiver.taken();
    let mut once = Vec::new();
    for id in &taken {
        if !once.contains(id) {
            once.push(id.clone());
        }
    }
    assert_eq!(BTreeSet::from_iter(&once), BTreeSet::from_iter(&raised), "each arrives");
    let was_refused = receiver.seen().refused.clone();
    let in_order = |ids: &[String]| {
        Vec::from_iter(ids.iter().filter(|id| !was_refused.contains(*id)).cloned())
    };
    assert_eq!(in_order(&once), in_order(&raised), "in order, but for what was refused");
    let twice = taken.len() - once.len();
    assert!(twice <= kills, "{twice} came twice after {kills} deaths");
    for node in &nodes {
        assert!(node.queue.waiting("ops", 9).await.unwrap().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_each_arrives_in_order(
        steps in proptest::collection::vec(step(), 1..60),
        seed in 0..u64::MAX,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(history(steps, seed));
    }
}
