//! Holds that outlive their sheet, because a window turned, the tenant was changed, or there is a
//! new plan file. What such a hold took stays with its own sheet, to be settled or given back
//! there; what it draws and reports beyond that belongs to the sheet in force, in a hold of its
//! own.

use std::sync::Arc;

use super::{FORGIVEN, Hold, HoldContext, HoldState};
use crate::catalog::MeterId;
use crate::clock::Now;
use crate::payers::purse;
use crate::policy::taken::{DrawnFrom, PaysFor, Taken, TakenList};
use crate::policy::{AmountSource, AskIndex, CounterIndex};
use crate::quota::lease::Lease;
use crate::repeated::repeated;

/// Most sheets that one request holds unused units of at a time, besides the one it was admitted
/// under: past that it takes no more, because none that it holds may go back. It bounds the memory
/// of a request that takes something under one sheet after the other and reports nothing.
const MOST: usize = 64;

impl Hold {
    /// The hold that new draws are made for: itself, or the one that continues it.
    pub(crate) fn latest(&mut self) -> &mut Self {
        match self.list.get().map_or(0, |listed| listed.going_on.len()) {
            0 => self,
            n => &mut self.list.open().going_on[n - 1],
        }
    }

    /// The same, to look at.
    pub(crate) fn latest_seen(&self) -> &Self {
        self.list.get().and_then(|listed| listed.going_on.last()).unwrap_or(self)
    }

    /// Units of a lease that it holds under any of its sheets, as far as they are listed: those of
    /// a plain request are not.
    pub(crate) fn holds_of(&self, lease: &Arc<Lease>) -> u64 {
        let of_lease = |took: &&Taken| match &took.from {
            DrawnFrom::Pool(pool) => Arc::ptr_eq(purse::lease_of(&self.of.sheet, *pool), lease),
            DrawnFrom::ScopedPool(_, of) => Arc::ptr_eq(of, lease),
            DrawnFrom::Bucket(_) | DrawnFrom::ScopedBucket(..) => false,
        };
        let here = self.taken().iter().filter(of_lease).map(|took| took.n);
        let later = self.list.get().map_or(&[][..], |listed| &listed.going_on);
        let later = later.iter().map(|hold| hold.holds_of(lease));
        here.chain(later).fold(0, u64::saturating_add)
    }

    /// The context whose sheet must still be valid.
    pub(crate) fn latest_of(&self) -> &HoldContext {
        &self.latest_seen().of
    }

    /// The same ask of the same meter, under the present rules; `None`: they have none.
    pub(crate) fn latest_ask(&self, ask: AskIndex, n: u64) -> Option<(AskIndex, u64)> {
        let latest = self.latest_of();
        if std::ptr::eq(latest, &self.of) {
            return Some((ask, n));
        }
        let meter = self.of.rules().meters.get(ask)?.meter;
        let meter = &self.of.sheet.catalog.meters[usize::from(meter.0)];
        let catalog = &latest.sheet.catalog;
        let id = catalog.meter(&meter.name)?;
        let ask = latest.rules().meters.find(|ask| ask.meter == id)?;
        Some((ask, rescaled(n, meter.scale, catalog.meters[usize::from(id.0)].scale)))
    }

    /// Whether it goes on under no further sheet, until some of what it holds is used.
    pub(crate) fn goes_on_no_more(&self) -> bool {
        let list = self.list.get();
        list.is_some_and(|listed| {
            listed.going_on.iter().filter(|it| it.has_units()).count() >= MOST
        })
    }

    /// Whether units that it took are neither used nor given back.
    fn has_units(&self) -> bool {
        self.taken().iter().any(|took| took.is_units() && took.n > 0)
    }

    /// From now on it draws under these rules. Not for one that
    /// [goes on no more](Self::goes_on_no_more).
    pub(crate) fn go_on(&mut self, of: HoldContext, now: Now) {
        self.write_down();
        self.has_used = self.take_used(); // holds that end below report nothing any more
        let mut next = Self::new(of, now, self.length);
        // It is not admitted again: no place in flight, and no cost is due.
        next.state = HoldState::Over;
        let rules = next.of.rules();
        let is_reported = |known: &AmountSource| {
            matches!(known, AmountSource::Reported(_) | AmountSource::Sum(_))
        };
        let recorded =
            rules.meters.iter().map(|ask| if is_reported(&ask.known) { 0 } else { FORGIVEN });
        let recorded = recorded.collect();
        next.list.open().recorded = recorded;
        next.list.open().taken = metered_rates(&next.of, now);
        let going_on = &mut self.list.open().going_on;
        going_on.retain(Self::has_units);
        going_on.push(next);
    }

    /// How much of `n` of an ask the handler may take without a draw, under any of its sheets.
    pub(crate) fn covered(&mut self, ask: AskIndex, n: u64) -> u64 {
        let mut covered = self.free(ask).min(n);
        let meter = self.of.rules().meters[ask].meter;
        self.each_later_of(meter, |later, ask| {
            covered = covered.saturating_add(later.free(ask)).min(n);
        });
        covered
    }

    /// The handler has taken `n` of an ask: first out of what was set aside, in its order.
    pub(crate) fn promise(&mut self, ask: AskIndex, n: u64) {
        let here = self.free(ask).min(n);
        self.promise_here(ask, here);
        let mut rest = n - here;
        let meter = self.of.rules().meters[ask].meter;
        self.each_later_of(meter, |later, ask| {
            let here = later.free(ask).min(rest);
            later.promise_here(ask, here);
            rest -= here;
        });
    }

    /// Held and unused units of a meter, under all its sheets.
    pub(crate) fn held_of(&mut self, counter: CounterIndex) -> u64 {
        let mut held = self.held(counter);
        self.each_later(counter, |later, counter| {
            held = held.saturating_add(later.held(counter));
        });
        held
    }

    /// Reports use of a meter: held units are used first, in the order they were taken, and the
    /// rest is charged to the sheet in force.
    pub(crate) fn report_in_turn(&mut self, counter: CounterIndex, n: u64, now: Now) {
        let is_alone = self.list.get().is_none_or(|listed| listed.going_on.is_empty());
        if is_alone {
            return self.report(counter, n, now);
        }
        let here = self.held(counter).min(n);
        if here > 0 {
            self.report(counter, here, now);
        }
        let mut rest = n - here;
        self.each_later(counter, |later, counter| {
            let here = later.held(counter).min(rest);
            if here > 0 {
                later.report(counter, here, now);
            }
            rest -= here;
        });
        if rest == 0 {
            return;
        }
        let Some((meter, scale)) = self.meter_of(counter) else { return };
        let latest = self.latest();
        let catalog = latest.of.sheet.catalog.clone();
        let Some(id) = catalog.meter(&meter) else {
            const TEXT: &str = "the meter is gone from the plan file: its use is not counted";
            repeated!(error, now.wall_ms, TEXT; meter = %meter);
            return;
        };
        let rest = rescaled(rest, scale, catalog.meters[usize::from(id.0)].scale);
        match counter_of(&latest.of, id) {
            Some(counter) => latest.report(counter, rest, now),
            None => {
                for (meter, n) in catalog.with_sums(id, rest) {
                    latest.report_cost(meter, n);
                }
            }
        }
    }

    /// Visits the holds that continue it and have a counter of the same meter.
    pub(super) fn each_later(
        &mut self,
        counter: CounterIndex,
        mut with: impl FnMut(&mut Self, CounterIndex),
    ) {
        let known = AmountSource::Reported(counter);
        let asks = &self.of.rules().meters;
        let Some(ask) = asks.iter().find(|ask| ask.known == known) else { return };
        self.each_later_of(ask.meter, |later, ask| {
            if let AmountSource::Reported(counter) = later.of.rules().meters[ask].known {
                with(later, counter);
            }
        });
    }

    /// Visits the holds that continue it and ask for the same meter.
    fn each_later_of(&mut self, meter: MeterId, mut with: impl FnMut(&mut Self, AskIndex)) {
        let Some(listed) = self.list.get_mut() else { return };
        let own = &self.of.sheet.catalog.meters[usize::from(meter.0)];
        for later in &mut listed.going_on {
            let catalog = &later.of.sheet.catalog;
            let same = catalog.meter(&own.name);
            let same = same.filter(|id| catalog.meters[usize::from(id.0)].scale == own.scale);
            let asks = &later.of.rules().meters;
            let ask = same.and_then(|id| asks.find(|ask| ask.meter == id));
            if let Some(ask) = ask {
                with(later, ask);
            }
        }
    }

    /// The meter of a counter, by name and scale.
    fn meter_of(&self, counter: CounterIndex) -> Option<(std::sync::Arc<str>, u64)> {
        let known = AmountSource::Reported(counter);
        let ask = self.of.rules().meters.iter().find(|ask| ask.known == known)?;
        let meter = &self.of.sheet.catalog.meters[usize::from(ask.meter.0)];
        Some((meter.name.clone(), meter.scale))
    }
}

/// The metered rates of the route, with nothing held of them: use that is reported charges them.
fn metered_rates(of: &HoldContext, now: Now) -> TakenList {
    let rules = of.rules();
    let rates = rules.rates.iter().filter_map(|&rate| {
        let meter = of.sheet.policy.rates[rate].meter?;
        let ask = rules.meters.find(|ask| ask.meter == meter)?;
        let from = purse::rate_of(&of.sheet, of.hub(), of.scopes(), rate, now)?;
        Some(Taken { from, n: 0, pays: PaysFor::Ask(ask), draw: 0 })
    });
    rates.collect()
}

/// The counter of a reported meter under these rules.
fn counter_of(of: &HoldContext, meter: MeterId) -> Option<CounterIndex> {
    of.rules().meters.iter().find_map(|ask| match ask.known {
        AmountSource::Reported(counter) if ask.meter == meter => Some(counter),
        _ => None,
    })
}

fn rescaled(atoms: u64, from: u64, to: u64) -> u64 {
    if from == to {
        return atoms;
    }
    let atoms = u128::from(atoms) * u128::from(to) / u128::from(from.max(1));
    u64::try_from(atoms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use crate::gate::{Admitted, Answer, Gate, Step, Waited};
    use crate::identity::RequestView;
    use crate::table::Index;
    use crate::testing;

    const PLANS: &str = r#"
        default-plan = "free"
        [meter.tokens]
        count = "reported"
        hold  = "10"
        [meter.pages]
        [plan.free]
        quota.tokens = "100/day"
        quota.pages  = "100/day"
    "#;

    /// A request of acme.
    struct Chat;

    impl RequestView for Chat {
        fn method(&self) -> &str {
            "GET"
        }

        fn path(&self) -> &str {
            "/chat"
        }

        fn header(&self, name: &str) -> Option<&[u8]> {
            (name == "x-tenant").then_some(b"acme")
        }

        fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
            self.header(name).into_iter().collect()
        }

        fn peer(&self) -> Option<IpAddr> {
            None
        }
    }

    async fn admit(gate: &Gate) -> Admitted {
        let mut waited = Waited::default();
        loop {
            match gate.admit_request(&Chat, waited) {
                Step::Wait(pending) => waited = pending.await,
                Step::Done(Answer::Admit(running)) => {
                    return Admitted::new(gate.clone(), running);
                }
                Step::Done(_) => panic!("refused"),
            }
        }
    }

    #[tokio::test]
    async fn use_of_a_meter_that_is_gone_is_one_line_a_second_whatever_the_chunks() {
        let plans = testing::Plans::new(PLANS);
        let (gate, _clock) = testing::gate_reading(&plans, crate::store::Memory::new());
        gate.reload().await.unwrap();
        let admitted = admit(&gate).await;
        plans.set(&PLANS.replace("tokens", "words"));
        gate.reload().await.unwrap();
        admitted.usage().add("pages", 1);
        let mut hold = admitted.hold();
        let lines = testing::heard::lines(|| {
            for _ in 0..1_000 {
                let now = hold.now();
                hold.report_in_turn(Index::test(0), 20, now); // as each chunk of a body does
            }
        });
        drop(hold);
        let named = lines.iter().filter(|line| line.contains("gone from the plan file"));
        assert_eq!(named.count(), 1, "{lines:?}");
    }

    #[tokio::test]
    async fn an_answer_waits_for_the_record_of_what_was_used_whichever_day_pays_for_it() {
        let day = Duration::from_secs(86_400);
        let (gate, clock) = testing::gate(PLANS);
        let admitted = admit(&gate).await;
        let usage = admitted.usage();
        let waits = |meter: &str, n| {
            usage.add(meter, n);
            let waits = admitted.hold().take_used();
            assert!(!admitted.hold().take_used(), "once");
            waits
        };
        for meter in ["tokens", "pages"] {
            assert!(!waits(meter, 0), "nothing was used");
            assert!(waits(meter, 1));
        }
        clock.advance(day);
        assert!(waits("tokens", 12), "9 of the first day, and 3 of this");
        assert!(waits("tokens", 1), "of this day alone");
        usage.take("tokens", 10).await.unwrap();
        clock.advance(day);
        assert!(waits("tokens", 15), "10 of the second day, and 5 of the third");
        usage.add("pages", 1);
        clock.advance(day);
        assert!(waits("tokens", 0), "what was used the day before has not been waited for");
    }
}
