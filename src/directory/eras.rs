//! The eras of a tenant: which customer its usage belonged to, and which cycle counted it, at any
//! instant.
//!
//! # Laws
//!
//! 1. An instant keeps its customer: a link is entered at the time at which it is made.
//! 2. A subscription counts from the instant at which it began at the billing service to the one at
//!    which it ended there, whenever and in whatever order its events come. The time at which an
//!    edge was entered is kept beside it: usage recorded before that went by the era before.
//! 3. Where no subscription counts, the directory's own anchor of that time does.
//! 4. A billing period ends where its cycle does: periods tile time, and none has usage of two
//!    cycles.
//! 5. The history is bounded: the oldest entries are dropped first.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::record::TenantRecord;
use crate::catalog::{Anchors, Every, Term, Window, Zone};

/// Most entries of each kind. Usage is accepted for 72 h after its period and dated for 33 days:
/// few tenants change this often within that time.
const MAX_ENTRIES: usize = 16;

/// A subscription that means a plan, or its part with one anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionSpan {
    /// Its id at the billing service.
    pub id: String,
    /// Its customer there.
    pub account: String,
    /// Anchor of its periods, Unix milliseconds.
    pub(crate) anchor_ms: i64,
    /// Its begin.
    pub from: EraEdge,
    /// Its end, if it has ended.
    pub until: Option<EraEdge>,
}

/// A change at the billing service. Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EraEdge {
    /// The time of the change.
    pub(crate) at_ms: i64,
    /// The time at which it was first entered here.
    pub(crate) seen_ms: i64,
}

/// A tenant's past and present eras.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Eras {
    /// Customers, each from the time of its link.
    accounts: Vec<(i64, Option<String>)>,
    /// The directory's own anchors, each from the time at which it was set; the first since ever.
    anchors: Vec<(i64, i64)>,
    /// Subscriptions, ordered by their begin.
    spans: Vec<SubscriptionSpan>,
}

/// The history of a tenant without one.
static NO_ERAS: Eras = Eras { accounts: Vec::new(), anchors: Vec::new(), spans: Vec::new() };

/// The state of a tenant's billing at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Era {
    /// The customer.
    pub(crate) account: Option<String>,
    anchor_ms: i64,
    is_subscription: bool,
    /// The next change of customer or cycle; `i64::MAX` if none is known.
    pub(crate) until_ms: i64,
    /// The last change of the cycle.
    begins_ms: i64,
    /// The next change of the cycle.
    pub(crate) ends: Option<EraEdge>,
}

/// A cycle: its anchor, and the subscription it belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cycle<'a> {
    anchor_ms: i64,
    subscription: Option<&'a str>,
}

impl SubscriptionSpan {
    /// A subscription as it is learned of at `seen_ms`.
    #[cfg(feature = "stripe")]
    pub(crate) fn new(
        (id, account): (&str, &str),
        anchor_ms: i64,
        (from_ms, until_ms): (i64, Option<i64>),
        seen_ms: i64,
    ) -> Self {
        let edge = |at_ms| EraEdge { at_ms, seen_ms };
        let (id, account) = (id.to_owned(), account.to_owned());
        let (from, until) = (edge(from_ms), until_ms.map(edge));
        Self { id, account, anchor_ms, from, until }
    }

    fn has(&self, at_ms: i64) -> bool {
        self.from.at_ms <= at_ms && self.until.is_none_or(|until| at_ms < until.at_ms)
    }

    fn ends(&mut self, end: EraEdge) {
        // What is known of the same change keeps its time of entry.
        let seen_ms = self.until.map_or(end.seen_ms, |known| known.seen_ms);
        self.until = Some(EraEdge { seen_ms, ..end });
    }
}

impl Era {
    /// The anchors in force.
    pub(crate) fn anchors(&self, term: Option<Term>) -> Anchors {
        Anchors { cycle_ms: self.anchor_ms, in_utc: self.is_subscription, term }
    }

    /// The billing period of an instant of it.
    pub(crate) fn period(&self, at_ms: i64, zone: &Zone) -> Window {
        let window = Every::Cycle.window(at_ms, zone, &self.anchors(None));
        Window {
            start_ms: window.start_ms.max(self.begins_ms),
            end_ms: self.ends.map_or(window.end_ms, |ends| window.end_ms.min(ends.at_ms)),
        }
    }
}

impl TenantRecord {
    /// The era of an instant.
    pub(crate) fn era(&self, at_ms: i64) -> Era {
        let Cycle { anchor_ms, subscription } = self.cycle(at_ms);
        let mut era = Era {
            account: self.account_at(at_ms).map(str::to_owned),
            anchor_ms,
            is_subscription: subscription.is_some(),
            until_ms: i64::MAX,
            begins_ms: i64::MIN,
            ends: None,
        };
        for edge in self.edges() {
            let last_ms = edge.at_ms.saturating_sub(1);
            let turns = self.cycle(last_ms) != self.cycle(edge.at_ms);
            if !turns && self.account_at(last_ms) == self.account_at(edge.at_ms) {
                continue;
            }
            if edge.at_ms <= at_ms {
                era.begins_ms = if turns { edge.at_ms } else { era.begins_ms };
                continue;
            }
            era.until_ms = era.until_ms.min(edge.at_ms);
            if turns {
                era.ends = Some(edge);
                break;
            }
        }
        era
    }

    /// The last instant before `until_ms` at which this was its customer, plus one; `until_ms` if
    /// that is not known.
    #[cfg(feature = "stripe")]
    pub(crate) fn left_ms(&self, account: &str, until_ms: i64) -> i64 {
        let accounts = &self.eras().accounts;
        let is_it = |(from_ms, of): &(i64, Option<String>)| {
            *from_ms < until_ms && of.as_deref() == Some(account)
        };
        let last = accounts.iter().rposition(is_it);
        let left = last.and_then(|at| accounts.get(at + 1));
        left.map_or(until_ms, |(left_ms, _)| until_ms.min(*left_ms))
    }

    /// The first instant from `from_ms` on at which this was its customer; `from_ms` if that is not
    /// known.
    #[cfg(feature = "stripe")]
    pub(crate) fn came_ms(&self, account: &str, from_ms: i64) -> i64 {
        let is_its = |of: Option<&str>| of == Some(account);
        let later = self
            .eras()
            .accounts
            .iter()
            .find(|(at_ms, of)| *at_ms > from_ms && is_its(of.as_deref()));
        let came = later.filter(|_| !is_its(self.account_at(from_ms)));
        came.map_or(from_ms, |(at_ms, _)| *at_ms)
    }

    /// Whether a subscription is in its history.
    #[cfg(feature = "stripe")]
    pub(crate) fn has_span(&self, id: &str) -> bool {
        self.eras().spans.iter().any(|span| span.id == id)
    }

    /// Whether this has been its customer, as far as is known.
    #[cfg(feature = "stripe")]
    pub(crate) fn has_had(&self, account: &str) -> bool {
        let mut accounts = self.eras().accounts.iter();
        accounts.any(|(_, of)| of.as_deref() == Some(account))
    }

    /// Those of a customer's subscriptions that this record does not have as they are.
    #[cfg(feature = "stripe")]
    pub(crate) fn lacks(&self, mut spans: Vec<SubscriptionSpan>) -> Vec<SubscriptionSpan> {
        // Older ones would be dropped again.
        spans.sort_by_key(|span| (span.until.is_none(), span.from.at_ms));
        spans.drain(..spans.len().saturating_sub(MAX_ENTRIES));
        spans.retain(|span| {
            let mut eras = self.eras().clone();
            eras.take(span);
            eras != *self.eras()
        });
        spans
    }

    /// Enters a customer from now on.
    pub(super) fn link(&mut self, account: Option<&String>, now_ms: i64) {
        if self.account.as_ref() != account {
            let before = self.account.take().map(|before| (i64::MIN, Some(before)));
            enter(&mut self.eras_mut().accounts, before, (now_ms, account.cloned()));
            self.account = account.cloned();
        }
    }

    /// Enters an anchor of the directory's own from now on. A tenant that is being made has had it
    /// since ever.
    pub(super) fn set_anchor(&mut self, at_ms: i64, now_ms: i64) {
        let before_ms = self.own_anchor_ms();
        if self.version > 0 && before_ms != at_ms {
            enter(&mut self.eras_mut().anchors, Some((i64::MIN, before_ms)), (now_ms, at_ms));
        }
    }

    /// Enters subscriptions.
    pub(super) fn enter_spans(&mut self, spans: &[SubscriptionSpan]) {
        spans.iter().for_each(|span| self.eras_mut().take(span));
    }

    fn eras(&self) -> &Eras {
        self.eras.as_deref().unwrap_or(&NO_ERAS)
    }

    fn eras_mut(&mut self) -> &mut Eras {
        self.eras.get_or_insert_default()
    }

    /// The customer that pays for what is used now.
    pub(crate) fn payer(&self) -> Option<&str> {
        match self.erased_ms {
            Some(_) => self.account_at(i64::MAX),
            None => self.account.as_deref(),
        }
    }

    /// The customer of an instant. What requests that were admitted before an erasure report after
    /// it is owed by the last one.
    fn account_at(&self, at_ms: i64) -> Option<&str> {
        let last_ms = self.erased_ms.map_or(i64::MAX, |erased_ms| erased_ms.saturating_sub(1));
        let at_ms = at_ms.min(last_ms);
        let accounts = &self.eras().accounts;
        if accounts.is_empty() {
            return self.account.as_deref(); // since ever, as far as is known
        }
        let last = accounts.iter().rfind(|(from_ms, _)| *from_ms <= at_ms);
        last.and_then(|(_, account)| account.as_deref())
    }

    fn cycle(&self, at_ms: i64) -> Cycle<'_> {
        let (account, spans) = (self.account_at(at_ms), &self.eras().spans);
        let living = self.bought.as_deref().and_then(|bought| bought.living());
        let is_it = |span: &&SubscriptionSpan| living.is_some_and(|says| says.id == span.id);
        if let Some(says) = living.filter(|_| !spans.iter().any(|span| is_it(&span))) {
            // From before there was a history.
            return Cycle { anchor_ms: says.anchor_ms, subscription: Some(&says.id) };
        }
        let of_then = |span: &&SubscriptionSpan| span.has(at_ms) && account == Some(&*span.account);
        let counts = spans.iter().filter(of_then);
        let counts = counts.max_by_key(|span| (is_it(span), span.from.at_ms, &span.id));
        match counts {
            Some(span) => Cycle { anchor_ms: span.anchor_ms, subscription: Some(&span.id) },
            None => Cycle { anchor_ms: self.own_anchor_at(at_ms), subscription: None },
        }
    }

    fn own_anchor_at(&self, at_ms: i64) -> i64 {
        let anchors = &self.eras().anchors;
        let last = anchors.iter().rfind(|(from_ms, _)| *from_ms <= at_ms).or(anchors.first());
        last.map_or(self.own_anchor_ms(), |(_, anchor_ms)| *anchor_ms)
    }

    /// All that may change something, ordered by time; of one time, the last that was entered.
    fn edges(&self) -> Vec<EraEdge> {
        let Eras { accounts, anchors, spans } = self.eras();
        let own = |at_ms| EraEdge { at_ms, seen_ms: at_ms };
        let mut edges: Vec<EraEdge> = accounts.iter().map(|(at_ms, _)| own(*at_ms)).collect();
        edges.extend(anchors.iter().map(|(at_ms, _)| own(*at_ms)));
        edges.extend(spans.iter().flat_map(|span| [Some(span.from), span.until]).flatten());
        edges.sort_by_key(|edge| (edge.at_ms, Reverse(edge.seen_ms)));
        edges.dedup_by_key(|edge| edge.at_ms);
        edges
    }
}

impl Eras {
    /// Takes a subscription as it is now. The same again changes nothing.
    fn take(&mut self, says: &SubscriptionSpan) {
        let Some(known) = self.spans.iter_mut().rfind(|known| known.id == says.id) else {
            return self.add(says.clone());
        };
        let (anchor_ms, seen_ms) = (says.anchor_ms, says.from.seen_ms);
        if known.anchor_ms == anchor_ms {
            if let Some(end) = says.until.filter(|end| Some(end.at_ms) != known.until_ms()) {
                known.ends(end);
            }
            return;
        }
        // Its anchor was moved: to the time at which that was done, or to one to come.
        let is_past = known.from.at_ms < anchor_ms && anchor_ms <= seen_ms;
        let at_ms = if is_past { anchor_ms } else { seen_ms };
        if says.until.is_some_and(|end| end.at_ms <= at_ms) || known.until.is_some() {
            says.until.into_iter().for_each(|end| known.ends(end));
            return;
        }
        let moved = EraEdge { at_ms: at_ms.max(known.from.at_ms), seen_ms };
        known.ends(moved);
        self.add(SubscriptionSpan { from: moved, ..says.clone() });
    }

    fn add(&mut self, span: SubscriptionSpan) {
        let at = self.spans.partition_point(|known| known.from.at_ms <= span.from.at_ms);
        self.spans.insert(at, span);
        if self.spans.len() > MAX_ENTRIES {
            // One that goes on counts now.
            let ended = self.spans.iter().position(|span| span.until.is_some());
            self.spans.remove(ended.unwrap_or(0));
        }
    }
}

impl SubscriptionSpan {
    fn until_ms(&self) -> Option<i64> {
        self.until.map(|until| until.at_ms)
    }
}

/// Adds an entry, after that of before if there is none. A clock that was set back enters nothing
/// before what is known.
fn enter<T>(entries: &mut Vec<(i64, T)>, before: Option<(i64, T)>, (at_ms, new): (i64, T)) {
    if entries.is_empty() {
        entries.extend(before);
    }
    let at_ms = entries.last().map_or(at_ms, |(last_ms, _)| at_ms.max(*last_ms));
    entries.retain(|(known_ms, _)| *known_ms < at_ms);
    entries.push((at_ms, new));
    if entries.len() > MAX_ENTRIES {
        entries.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Surrogate;

    const DAY: i64 = 86_400_000;
    /// 2026-03-17.
    const START: i64 = 1_773_705_600_000;

    fn tenant() -> TenantRecord {
        TenantRecord { version: 1, ..TenantRecord::begin(Surrogate::test(1), "acme", START) }
    }

    fn span(id: &str, (from, until): (i64, Option<i64>), anchor: i64) -> SubscriptionSpan {
        let edge = |at: i64| EraEdge { at_ms: START + at * DAY, seen_ms: START + 400 * DAY };
        SubscriptionSpan {
            id: id.to_owned(),
            account: "cus_1".to_owned(),
            anchor_ms: START + anchor * DAY,
            from: edge(from),
            until: until.map(edge),
        }
    }

    /// The anchors in force on each day, as days.
    fn anchors(record: &TenantRecord, days: std::ops::Range<i64>) -> Vec<i64> {
        days.map(|day| (record.era(START + day * DAY).anchor_ms - START) / DAY).collect()
    }

    fn linked() -> TenantRecord {
        let mut record = tenant();
        record.link(Some(&"cus_1".to_owned()), START);
        record
    }

    #[test]
    fn subscriptions_count_in_their_time_in_whatever_order_they_are_learned_of() {
        let says = [
            span("a", (10, None), 10),
            span("a", (10, Some(20)), 10),
            span("b", (15, None), 14),
            span("b", (15, Some(17)), 14),
        ];
        for order in [[0, 1, 2, 3], [2, 3, 0, 1], [0, 2, 1, 3], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let mut record = linked();
            order.iter().for_each(|n| record.enter_spans(&says[*n..=*n]));
            let own_and_two = [0, 0, 10, 10, 10, 10, 10, 14, 14, 10, 10, 10, 0, 0];
            assert_eq!(anchors(&record, 8..22), own_and_two, "{order:?}");
            assert!(record.era(START + 12 * DAY).is_subscription);
        }
    }

    #[test]
    fn a_moved_anchor_of_a_subscription_counts_from_its_move() {
        let mut record = linked();
        record.enter_spans(&[span("a", (10, None), 10)]);
        for _ in 0..2 {
            record.enter_spans(&[span("a", (10, None), 15)]);
        }
        assert_eq!(anchors(&record, 9..18), [0, 10, 10, 10, 10, 10, 15, 15, 15]);
        record.enter_spans(&[span("a", (10, Some(17)), 15)]);
        assert_eq!(anchors(&record, 14..19), [10, 15, 15, 0, 0]);
    }

    #[test]
    fn usage_is_of_the_customer_of_its_time_and_of_none_before_the_first() {
        let mut record = tenant();
        for (day, account) in [(2, Some("cus_1")), (4, Some("cus_2")), (6, None)] {
            record.link(account.map(str::to_owned).as_ref(), START + day * DAY);
        }
        let accounts: Vec<_> = (1..8).map(|day| record.era(START + day * DAY).account).collect();
        let accounts: Vec<_> = accounts.iter().map(Option::as_deref).collect();
        let (one, two) = (Some("cus_1"), Some("cus_2"));
        assert_eq!(accounts, [None, one, one, two, two, None, None]);
        // From before there was a history: since ever.
        let record = TenantRecord { account: Some("cus_1".to_owned()), ..tenant() };
        assert_eq!(record.era(START - DAY).account.as_deref(), one);
    }

    #[test]
    fn a_history_stays_short_and_keeps_its_newest_entries() {
        let mut record = tenant();
        for n in 0..100 {
            record.link(Some(&format!("cus_{n}")), START + n * DAY);
            record.set_anchor(START + (n % 2) * DAY, START + n * DAY);
            record.assign(START, false, |assigned| assigned.anchor_ms = START + (n % 2) * DAY);
            record.enter_spans(&[span(&format!("sub_{n}"), (n, Some(n + 1)), 0)]);
        }
        let Eras { accounts, anchors, spans } = record.eras();
        assert_eq!([accounts.len(), anchors.len(), spans.len()], [MAX_ENTRIES; 3]);
        assert_eq!(record.era(START + 99 * DAY).account.as_deref(), Some("cus_99"));
    }

    #[test]
    fn a_subscription_that_goes_on_stays_in_the_history_behind_many_short_ones() {
        let mut record = linked();
        record.enter_spans(&[span("long", (1, None), 1)]);
        for n in 2..30 {
            let short = span(&format!("sub_{n}"), (n, Some(n + 1)), n);
            assert_eq!(record.lacks(vec![short.clone(), span("long", (1, None), 1)]).len(), 1);
            record.enter_spans(&[short]);
        }
        assert_eq!(anchors(&record, 29..33), [29, 1, 1, 1]);
        record.enter_spans(&[span("long", (1, Some(31)), 1)]);
        assert_eq!(anchors(&record, 29..33), [29, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn periods_tile_time_and_each_has_one_cycle(
            lives in prop::collection::vec((0i64..200, 0i64..60, 0i64..40, any::<bool>()), 0..6),
            links in prop::collection::vec((0i64..200, 0..3_usize), 0..4),
            moves in prop::collection::vec((0i64..200, 0i64..60), 0..3),
        ) {
            let mut record = tenant();
            let mut links = links;
            links.sort_unstable();
            for (day, to) in links {
                let account = ["cus_1", "cus_2"].get(to).map(|it| (*it).to_owned());
                record.link(account.as_ref(), START + day * DAY);
            }
            let mut moves = moves;
            moves.sort_unstable();
            for (day, anchor) in moves {
                record.set_anchor(START - anchor * DAY, START + day * DAY);
                record.assign(START, false, |own| own.anchor_ms = START - anchor * DAY);
            }
            for (n, (from, lasts, before, lives)) in lives.into_iter().enumerate() {
                let until = (!lives).then_some(from + lasts);
                record.enter_spans(&[span(&format!("sub_{n}"), (from, until), from - before)]);
            }
            let zone = Zone::new("America/New_York").unwrap();
            let mut at_ms = START - 40 * DAY;
            for _ in 0..40 {
                let period = record.era(at_ms).period(at_ms, &zone);
                prop_assert_eq!(period.start_ms.max(at_ms), at_ms);
                prop_assert!(at_ms < period.end_ms);
                for inside_ms in [period.start_ms, period.end_ms - 1] {
                    let same = record.era(inside_ms);
                    prop_assert_eq!(same.period(inside_ms, &zone), period);
                    prop_assert_eq!(same.anchors(None), record.era(at_ms).anchors(None));
                }
                at_ms = period.end_ms;
            }
        }
    }
}
