//! State machine of one node for rates shared with others, without I/O. The same code runs under
//! tokio and under the simulation in its tests.
//!
//! Once a slot it writes its heartbeat (and learns which nodes live), reads the list of limits
//! under pressure, and for each of those that it serves reads the shares and moves its own. Limits
//! without pressure cost nothing but the two calls: every node has an equal part of them.

use std::collections::{BTreeMap, BTreeSet};

use super::nodes::Nodes;
use super::pressure::{self, Noted};
use super::shares::{self, SharesView, WHOLE, fair};
use super::{LAPSE_SLOTS, SLOT_NS};
use crate::clock::Now;
use crate::ids::{LimitId, NodeId};
use crate::store::layout::Space;
use crate::store::{Item, Key, StoreError, Write, Written};

/// Demand is capped slightly above the whole rate: more does not matter, and would take long to
/// decay.
const MOST: u64 = WHOLE as u64 * 5 / 4;

/// Tries to move a share in one slot: the second after a concurrent write.
const TRIES: u8 = 2;

/// A node opens the shares of a limit when its demand exceeds its part by this factor, in percent.
const PRESSED_ABOVE: u64 = 105;

/// Units asked of a limit since the last slot, and the time per unit at the whole rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) units: u64,
    pub(crate) interval_ns: u64,
}

/// Inputs of the machine.
#[derive(Debug)]
pub(crate) enum RateEvent {
    /// A slot begins. For a limit with a share, everything that was asked for; for any other, only
    /// what was refused.
    Slot(BTreeMap<LimitId, Asked>),
    /// The answer to a heartbeat.
    Beaten(Result<Written, StoreError>),
    /// The answer to a read of the list.
    Listed(Result<Option<Item>, StoreError>),
    /// Those limits of [`Effect::Find`] that this node serves.
    Here(BTreeSet<LimitId>),
    /// The answer to a read of shares.
    Seen(LimitId, Result<Option<Item>, StoreError>),
    /// The answer to a write of shares.
    Moved(LimitId, Result<Written, StoreError>),
}

/// Outputs of the machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Write, and answer with [`RateEvent::Beaten`].
    Beat(Write),
    /// Read, and answer with [`RateEvent::Listed`].
    List(Key),
    /// Find out which of these this node serves, and answer with [`RateEvent::Here`].
    Find(BTreeSet<LimitId>),
    /// Write; nothing depends on the answer.
    Note(Write),
    /// Read, and answer with [`RateEvent::Seen`].
    See(LimitId, Key),
    /// Write, and answer with [`RateEvent::Moved`].
    Move(LimitId, Write),
    /// This many nodes share every rate from now on.
    Nodes(usize),
    /// This node serves this many millionths of the rate; `None`: an equal part.
    Share(LimitId, Option<u32>),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Machine {
    space: Space,
    me: NodeId,
    nodes: Nodes,
    told_nodes: usize,
    slot_ns: u64,
    /// Demand of limits without a share, in this slot.
    refused: BTreeMap<LimitId, u64>,
    limits: BTreeMap<LimitId, PressedLimit>,
    op: u64,
}

/// A limit under pressure.
#[derive(Debug)]
struct PressedLimit {
    /// Whether this node serves it. A node that does not gives its share to the others, once.
    is_here: bool,
    is_left: bool,
    /// Millionths of the rate; `None` before the first fully counted slot.
    demand: Option<u64>,
    serves: u32,
    view: Option<SharesView>,
    read_ns: u64,
    /// When it was listed. Not every node knows before two slots have passed, and until then it has
    /// at most an equal part.
    listed_ns: u64,
    /// When it was removed from the list. It keeps to an equal part until all nodes know.
    gone_ns: Option<u64>,
    /// The share requested by the write in flight, and the tries left in this slot.
    asks: Option<u32>,
    tries: u8,
}

impl PressedLimit {
    /// A newly listed limit: it continues with an equal part.
    fn new(fair: u32, now: Now) -> Self {
        Self {
            is_here: false,
            is_left: false,
            demand: None,
            serves: fair,
            view: None,
            read_ns: now.mono_ns,
            listed_ns: now.mono_ns,
            gone_ns: None,
            asks: None,
            tries: TRIES,
        }
    }

    /// The most that it may serve now, whatever share it holds.
    fn most(&self, fair: u32, now: Now) -> u32 {
        match now.mono_ns.saturating_sub(self.listed_ns) > LAPSE_SLOTS * SLOT_NS {
            true => WHOLE,
            false => fair,
        }
    }
}

impl Machine {
    pub(crate) fn new(space: Space, me: NodeId) -> Self {
        Self {
            space,
            me,
            nodes: Nodes::new(me),
            told_nodes: 1,
            slot_ns: 0,
            refused: BTreeMap::new(),
            limits: BTreeMap::new(),
            op: 0,
        }
    }

    /// One step.
    pub(crate) fn step(&mut self, now: Now, event: RateEvent) -> Vec<Effect> {
        match event {
            RateEvent::Slot(asked) => self.slot(now, asked),
            RateEvent::Beaten(answer) => self.beaten(now, answer),
            RateEvent::Listed(answer) => self.listed(now, answer),
            RateEvent::Here(here) => self.here(now, &here),
            RateEvent::Seen(id, answer) => self.seen(now, id, answer),
            RateEvent::Moved(id, answer) => self.moved(now, id, answer),
        }
    }

    /// The limits with a share at this node.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &LimitId> {
        self.limits.iter().filter(|(_, shared)| shared.is_here).map(|(id, _)| id)
    }

    /// The write that removes this node.
    pub(crate) fn leave(&self) -> Write {
        self.nodes.leave(self.space.rate_nodes())
    }

    fn slot(&mut self, now: Now, asked: BTreeMap<LimitId, Asked>) -> Vec<Effect> {
        let long_ns = now.mono_ns.saturating_sub(self.slot_ns).max(SLOT_NS / 2);
        self.slot_ns = now.mono_ns;
        let fair = u64::from(self.fair());
        let part = |asked: Asked| {
            let part = u128::from(asked.units) * u128::from(asked.interval_ns) * u128::from(WHOLE);
            u64::try_from(part / u128::from(long_ns)).unwrap_or(MOST).min(MOST)
        };
        for (id, shared) in self.limits.iter_mut().filter(|(_, shared)| shared.is_here) {
            let part = asked.get(id).copied().map_or(0, part);
            shared.demand = Some(shared.demand.map_or(part, |demand| demand.midpoint(part)));
        }
        let is_new = |id: &LimitId| self.limits.get(id).is_none_or(|shared| !shared.is_here);
        let new = asked.into_iter().filter(|(id, _)| is_new(id));
        self.refused = new.map(|(id, asked)| (id, fair.saturating_add(part(asked)))).collect();
        let mut effects = vec![
            Effect::Beat(self.nodes.beat(self.space.rate_nodes())),
            Effect::List(self.space.rate_pressure()),
        ];
        // A node that could not read for two slots falls back to an equal part.
        let late = |shared: &PressedLimit| {
            shared.is_here
                && now.mono_ns.saturating_sub(shared.read_ns) > LAPSE_SLOTS * SLOT_NS
                && u64::from(shared.serves) > fair
        };
        for (id, shared) in self.limits.iter_mut().filter(|(_, shared)| late(shared)) {
            shared.serves = u32::try_from(fair).unwrap_or(WHOLE);
            effects.push(Effect::Share(id.clone(), Some(shared.serves)));
        }
        effects
    }

    fn beaten(&mut self, now: Now, answer: Result<Written, StoreError>) -> Vec<Effect> {
        if let Ok(Written::Applied(Some(item))) = answer
            && let Err(error) = self.nodes.learn(&item, now.mono_ns)
        {
            tracing::error!(%error, "cannot read the list of nodes that share rates");
        }
        let nodes = self.live().len();
        if nodes == self.told_nodes {
            return vec![];
        }
        self.told_nodes = nodes;
        vec![Effect::Nodes(nodes)]
    }

    fn listed(&mut self, now: Now, answer: Result<Option<Item>, StoreError>) -> Vec<Effect> {
        let Ok(item) = answer else { return vec![] };
        let rows = match pressure::read(item.as_ref()) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "rates under pressure cannot be read");
                return vec![];
            }
        };
        let fair = self.fair();
        let mut effects = vec![];
        let pressed: Vec<LimitId> = self.pressed(fair);
        let Noted { write, listed } =
            pressure::note(self.space.rate_pressure(), &rows, &pressed, now.wall_ms);
        effects.extend(write.map(Effect::Note));
        let off = self.limits.iter_mut().filter(|(id, _)| !listed.contains(id));
        for (id, shared) in off {
            if shared.gone_ns.is_none() {
                shared.gone_ns = Some(now.mono_ns);
                shared.serves = shared.serves.min(fair);
                effects.push(Effect::Share(id.clone(), Some(shared.serves)));
            }
        }
        let long_gone = |shared: &PressedLimit| {
            shared.gone_ns.is_some_and(|at| now.mono_ns.saturating_sub(at) > LAPSE_SLOTS * SLOT_NS)
        };
        self.limits.retain(|id, shared| {
            let stays = listed.contains(id) || !long_gone(shared);
            if !stays {
                effects.push(Effect::Share(id.clone(), None));
            }
            stays
        });
        for id in &listed {
            let shared =
                self.limits.entry(id.clone()).or_insert_with(|| PressedLimit::new(fair, now));
            if shared.gone_ns.take().is_some() {
                shared.listed_ns = now.mono_ns;
            }
        }
        effects.push(Effect::Find(listed));
        effects
    }

    fn here(&mut self, now: Now, found: &BTreeSet<LimitId>) -> Vec<Effect> {
        let fair = self.fair();
        let mut effects = vec![];
        for id in found {
            let shared =
                self.limits.entry(id.clone()).or_insert_with(|| PressedLimit::new(fair, now));
            if !shared.is_here {
                // Its demand is not yet known.
                shared.is_here = true;
                shared.demand = self.refused.get(id).copied();
            }
        }
        for (id, shared) in self.limits.iter_mut().filter(|(_, shared)| shared.gone_ns.is_none()) {
            shared.tries = TRIES;
            if !found.contains(id) {
                shared.is_left &= !std::mem::replace(&mut shared.is_here, false);
                shared.demand = Some(0);
                if shared.is_left {
                    continue;
                }
            } else {
                shared.is_left = false;
                // Needed even if its bucket was recreated since the last slot.
                effects.push(Effect::Share(id.clone(), Some(shared.serves)));
            }
            effects.push(Effect::See(id.clone(), self.space.rate_shares(id)));
        }
        effects
    }

    /// The limits for which demand is well beyond this node's part.
    fn pressed(&self, fair: u32) -> Vec<LimitId> {
        let beyond = |demand: u64| demand * 100 > u64::from(fair) * PRESSED_ABOVE;
        let new = self.refused.iter().filter(|(_, demand)| beyond(**demand)).map(|(id, _)| id);
        let beyond_share = |shared: &PressedLimit| {
            shared.demand.is_some_and(|demand| demand > u64::from(shared.serves.max(fair)))
        };
        let known = self.limits.iter().filter(|(_, shared)| beyond_share(shared)).map(|(id, _)| id);
        new.chain(known).cloned().collect()
    }

    fn seen(
        &mut self,
        now: Now,
        id: LimitId,
        answer: Result<Option<Item>, StoreError>,
    ) -> Vec<Effect> {
        let live = self.live();
        let key = self.space.rate_shares(&id);
        let Some(shared) = self.limits.get_mut(&id) else { return vec![] };
        let Ok(item) = answer else { return vec![] };
        let Some(item) = item else {
            // Not opened yet, or lapsed: a fair share for each node.
            shared.tries = shared.tries.saturating_sub(1);
            shared.asks = Some(fair(live.len()));
            return vec![Effect::Move(id, shares::open(&key, &live, now.wall_ms))];
        };
        match SharesView::read(&item) {
            Ok(view) => {
                (shared.view, shared.read_ns) = (Some(view), now.mono_ns);
                self.adjust(now, id)
            }
            Err(error) => {
                tracing::error!(%error, "shares of a rate cannot be read");
                vec![]
            }
        }
    }

    /// Moves this node's share towards its demand.
    fn adjust(&mut self, now: Now, id: LimitId) -> Vec<Effect> {
        let (live, fair) = (self.live(), self.fair());
        let key = self.space.rate_shares(&id);
        let Some(shared) = self.limits.get_mut(&id).filter(|shared| shared.gone_ns.is_none())
        else {
            return vec![];
        };
        let most = shared.most(fair, now);
        let (Some(view), Some(demand)) = (&shared.view, shared.demand) else { return vec![] };
        let before = shared.serves;
        let decision = view.decide(self.me, &live, demand);
        shared.is_left = !shared.is_here && decision.goal.is_none();
        let mut effects = vec![];
        let write = decision.goal.filter(|_| shared.tries > 0).and_then(|goal| {
            self.op += 1;
            view.take(&key, self.me, &live, goal, self.op, now.wall_ms)
        });
        shared.serves = match (decision.goal, view.entries.get(&self.me)) {
            (None, _) => decision.at_most,
            // A cut takes effect at once; a raise when it is written.
            (Some(goal), Some(mine)) => mine.share.min(goal),
            (Some(goal), None) => before.min(goal),
        }
        .min(most);
        if shared.serves != before {
            effects.push(Effect::Share(id.clone(), Some(shared.serves)));
        }
        if let Some((write, share)) = write {
            shared.tries -= 1;
            shared.asks = Some(share);
            effects.push(Effect::Move(id, write));
        }
        effects
    }

    fn moved(&mut self, now: Now, id: LimitId, answer: Result<Written, StoreError>) -> Vec<Effect> {
        let fair = self.fair();
        let Some(shared) = self.limits.get_mut(&id) else { return vec![] };
        let asked = shared.asks.take();
        let most = if shared.gone_ns.is_some() { fair } else { shared.most(fair, now) };
        match answer {
            Ok(Written::Applied(Some(item))) => {
                shared.view = SharesView::read(&item).ok();
                shared.read_ns = now.mono_ns;
                let before = shared.serves;
                let own = shared.view.as_ref().and_then(|view| view.entries.get(&self.me));
                shared.serves = own.map(|own| own.share).or(asked).unwrap_or(before).min(most);
                let news = shared.serves != before;
                let share = Effect::Share(id, Some(shared.serves));
                if news { vec![share] } else { vec![] }
            }
            // A concurrent write was faster: decide again from the current item.
            Ok(Written::Refused(item)) if shared.tries > 0 => self.seen(now, id, Ok(item)),
            // It is read again in the next slot, whether applied or not.
            _ => vec![],
        }
    }

    fn live(&self) -> BTreeSet<NodeId> {
        self.nodes.live()
    }

    fn fair(&self) -> u32 {
        fair(self.live().len())
    }
}
