//! The truth beside what the nodes believe: every unit served, every item as it changes. The
//! invariants of `docs/accuracy.md` are checked here, at every write and every unit.
//!
//! A violation is recorded, never a panic: the run ends at the next step and prints its seed.

use std::collections::{BTreeMap, BTreeSet};

use tallygate::store::{Item, Key, Value, Write};
use tallygate::testing::{
    ClaimItem, Drawn, LogItem, LogKeys, PoolEntry, PoolItem, WriterId, writer,
};

pub(crate) const SPACE: &str = "sim";

/// One incarnation's part in one pool.
pub(crate) type Share = (WriterId, String);

/// Its entry, the highest ceiling in its log, and the total of its folded entries.
type Bound = (Option<PoolEntry>, u64, u64);

#[derive(Debug, Default)]
pub(crate) struct World {
    /// For tracing a seed.
    pub(crate) now_us: u64,
    pub(crate) violation: Option<String>,
    pub(crate) stats: BTreeMap<&'static str, u64>,
    /// How often each fault met each kind of call, or each state of a node.
    pub(crate) met: BTreeMap<(&'static str, &'static str), u64>,
    /// Units served, by pool and by incarnation; and those that no lease covered.
    pub(crate) served: BTreeMap<String, u64>,
    pub(crate) served_by: BTreeMap<Share, u64>,
    pub(crate) over: BTreeMap<String, u64>,
    pub(crate) over_by: BTreeMap<Share, u64>,
    /// Units of a meter served by an incarnation for a tenant.
    used: BTreeMap<(WriterId, String, String), u64>,
    /// The highest total that the history of its limit allows a pool.
    pub(crate) cap: BTreeMap<String, i64>,
    limit_at: BTreeMap<(String, i64), i64>,
    /// Totals of an incarnation's folded entries.
    folded: BTreeMap<Share, u64>,
    pub(crate) pools: BTreeMap<String, PoolItem>,
    applied: BTreeSet<(WriterId, String, u64)>,
    logs: BTreeMap<WriterId, u64>,
    /// Their rows by number.
    log_keys: BTreeMap<WriterId, LogKeys>,
    sealed: BTreeSet<WriterId>,
    /// Totals and highest ceilings in an incarnation's own log.
    own: BTreeMap<Share, u64>,
    ceilings: BTreeMap<Share, u64>,
    pub(crate) recorded: BTreeMap<Share, u64>,
    recorded_uses: BTreeMap<(WriterId, String, String), u64>,
    /// The most that an incarnation may fail to record after a fault.
    pub(crate) loss: BTreeMap<Share, u64>,
    pub(crate) loss_uses: BTreeSet<WriterId>,
    /// The node of each incarnation, and whether it lives.
    pub(crate) nodes: BTreeMap<WriterId, usize>,
    pub(crate) dead: BTreeSet<WriterId>,
    /// Claims as they are now, the claim of each idempotency key, and the use that follows if an
    /// ended request settles its claim: by the name it came under.
    claims: BTreeMap<Key, ClaimItem>,
    pub(crate) keys: BTreeMap<String, Key>,
    settling: BTreeMap<u128, (Share, u64)>,
    /// Use being settled, by share: whether it counts is known once it is reported.
    in_doubt: BTreeMap<Share, u64>,
    /// Holds of requests that count once, from admission to end. One that has not ended when its
    /// gate closes keeps its units spent: it may still be charged.
    keyed: BTreeMap<u128, (Share, u64)>,
}

impl World {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.stats.entry(what).or_default() += 1;
    }

    pub(crate) fn met(&mut self, fault: &'static str, state: &'static str) {
        *self.met.entry((fault, state)).or_default() += 1;
    }

    pub(crate) fn need(&mut self, holds: bool, why: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(why());
        }
    }

    /// `n` units of a pool have been handed out by an incarnation, `over` of them uncovered.
    pub(crate) fn serve(&mut self, by: WriterId, pool: &str, n: u64, over: u64) {
        let share = (by, pool.to_owned());
        self.trace(&share, || format!("{n} served"));
        let (tenant, limit) = parts_of(pool);
        let meter = limit.split('/').next().unwrap_or_default().to_owned();
        *self.used.entry((by, tenant.to_owned(), meter)).or_default() += n;
        self.draw(share, n, over);
    }

    /// For tracing a seed.
    fn trace(&self, share: &Share, what: impl FnOnce() -> String) {
        if crate::run::traced().is_some_and(|part| share.1.contains(part)) {
            println!("{:.3} {} {}: {}", self.now_us as f64 / 1e6, share.0, share.1, what());
        }
    }

    /// The same for a pool alone: the record of use is elsewhere.
    fn draw(&mut self, share: Share, n: u64, over: u64) {
        let pool = share.1.clone();
        *self.served.entry(pool.clone()).or_default() += n;
        *self.served_by.entry(share.clone()).or_default() += n;
        *self.over.entry(pool.clone()).or_default() += over;
        *self.over_by.entry(share.clone()).or_default() += over;
        *self.stats.entry("units served").or_default() += n;
        *self.stats.entry("units over").or_default() += over;
        let (served, over) = (self.served[&pool], self.over[&pool]);
        let cap = self.cap.get(&pool).copied().unwrap_or(0);
        self.need(served as i64 <= cap + over as i64, || {
            format!("I2 {pool}: {served} served, {cap} allowed, {over} noted as over")
        });
        self.check_use(&share);
    }

    /// I2 for one incarnation, even a dead, frozen or sealed one.
    fn check_use(&mut self, share: &Share) {
        let used = self.served_by.get(share).copied().unwrap_or(0);
        let over = self.over_by.get(share).copied().unwrap_or(0);
        let (bound, told) = self.bound(share);
        self.need(used <= bound + over, || format!("I2 {share:x?}: served {used}, {told:x?}"));
    }

    /// What one incarnation may have served of a pool, and the figures behind it.
    fn bound(&self, share: &Share) -> (u64, Bound) {
        // In the pool itself or in one of its sub-pools, which follow it in order.
        let items = self.pools.range(share.1.clone()..).map(|(pk, pool)| (root_of(pk), pool));
        let items = items.take_while(|(root, _)| *root == share.1);
        let entry = items.filter_map(|(_, pool)| pool.entries.get(&share.0)).next().copied();
        let ceiling = self.ceilings.get(share).copied().unwrap_or(0);
        let bound = entry.map_or(0, |entry| entry.held.min(entry.preauthorised.max(ceiling)));
        let folded = self.folded.get(share).copied().unwrap_or(0);
        (bound + folded, (entry, ceiling, folded))
    }

    /// I13: a debtor admits nothing. What is admitted fits beside all that was served, with what no
    /// lease covered; so debts never add up.
    pub(crate) fn admitted(&mut self, drawn: &[Drawn]) {
        self.count("admitted");
        for drawn in drawn.iter().filter(|drawn| drawn.atoms > 0) {
            let share = (drawn.writer, drawn.pool.pk.clone());
            let served = self.served_by.get(&share).copied().unwrap_or(0);
            let ((bound, told), n) = (self.bound(&share), drawn.atoms);
            self.need(served + n <= bound, || {
                format!("I13 {share:x?}: {n} admitted beside {served} served, {told:x?}")
            });
        }
    }

    /// A request that counts once has been admitted.
    pub(crate) fn claims(&mut self, name: u128, drawn: Option<&Drawn>) {
        if let Some(drawn) = drawn {
            let share = (drawn.writer, drawn.pool.pk.clone());
            self.keyed.insert(name, (share, drawn.atoms));
        }
    }

    /// It has ended, in whatever way.
    pub(crate) fn has_ended(&mut self, name: u128) {
        self.keyed.remove(&name);
    }

    /// A request that counts once has ended: this much of the pool is used if its claim records it.
    pub(crate) fn settles(&mut self, name: u128, drawn: Option<&Drawn>) {
        if let Some(drawn) = drawn {
            let share = (drawn.writer, drawn.pool.pk.clone());
            *self.in_doubt.entry(share.clone()).or_default() += drawn.atoms;
            self.settling.insert(name, (share, drawn.atoms));
        }
    }

    /// I11: an answered request finds its key charged. `name`: the one that tried to settle it.
    pub(crate) fn answered(&mut self, key: &str, name: Option<u128>) {
        let claim = self.keys.get(key).and_then(|item| self.claims.get(item)).cloned();
        let is_charged = claim.as_ref().is_some_and(|claim| claim.by.is_some());
        self.need(is_charged, || format!("I11 {key}: answered and not charged: {claim:x?}"));
        self.count(if name.is_some() { "keys answered" } else { "keys served again" });
        let Some((claim, name)) = claim.zip(name) else { return };
        let Some((share, n)) = self.settling.remove(&name) else { return };
        if let Some(doubt) = self.in_doubt.get_mut(&share) {
            *doubt -= n;
        }
        // One arrival too many: it is charged as without a key.
        if claim.by != Some(name) && !claim.came.contains(&name) {
            self.serve(share.0, &share.1, n, 0);
        }
    }

    /// I11: a key is charged at most once. Use by a key counts when its claim says so.
    fn claim_changed(&mut self, key: &Key, old: Option<&Item>, new: Option<&Item>) {
        let (old, new) = (old.and_then(ClaimItem::read), new.and_then(ClaimItem::read));
        let Some(new) = new else { return };
        self.claims.insert(key.clone(), new.clone());
        let before = old.and_then(|old| Some((old.by?, old.used)));
        let Some(by) = new.by else {
            return self.need(before.is_none(), || format!("I11 {key:?}: charged no more"));
        };
        if let Some(before) = before {
            return self.need(before == (by, new.used), || format!("I11 {key:?}: charged twice"));
        }
        self.count("keys charged");
        if let Some((share, n)) = self.settling.get(&by).cloned() {
            self.trace(&share, || format!("{n} by a claim"));
            self.draw(share.clone(), n, 0);
            if self.dead.contains(&share.0) {
                *self.loss.entry(share).or_default() += n; // it arrived after its writer had died
            }
        }
    }

    /// After a write was applied: `old` became `new`.
    pub(crate) fn changed(
        &mut self,
        by: usize,
        write: &Write,
        old: Option<&Item>,
        new: Option<&Item>,
    ) {
        if crate::run::traced().is_some_and(|part| write.key.pk.contains(part)) {
            let shown = new.map(|item| PoolItem::read(item).map(|pool| format!("{pool:x?}")));
            println!(
                "{:.3} {} {:?} {shown:?}",
                self.now_us as f64 / 1e6,
                write.key.pk,
                kind_of(write)
            );
        }
        let kind = write.key.pk.split('#').nth(2).unwrap_or_default();
        match kind {
            "Q" => self.pool_changed(by, &write.key, old, new),
            "L" => self.log_changed(&write.key, old, new),
            "K" => self.claim_changed(&write.key, old, new),
            _ => {}
        }
    }

    fn pool_changed(&mut self, by: usize, key: &Key, old: Option<&Item>, new: Option<&Item>) {
        let pk = &key.pk;
        let (Some(new), old) = (new.and_then(PoolItem::read), old.and_then(PoolItem::read)) else {
            return self.need(false, || format!("{pk}: a pool vanished, or cannot be read"));
        };
        let known = self.pools.insert(pk.clone(), new.clone());
        self.need(known == old, || format!("{pk}: a pool was made twice"));
        let held: u64 = new.entries.values().map(|entry| entry.held).sum();
        let taken = |(credited, returned, owed): &(u64, u64, u64)| credited + owed - returned;
        let fed: u64 = new.feeds.values().map(taken).sum();
        let out = new.limit - new.free;
        self.need(out == (held + fed) as i64 + new.spent, || {
            let spent = new.spent;
            format!("I1 {pk}: limit - free = {out}, held, fed, spent = {held}, {fed}, {spent}")
        });
        match new.fed {
            Some(fed) => self.fed(pk, fed, new.limit),
            None => self.limit_changed(pk, old.as_ref(), &new),
        }
        let cap = self.cap[pk];
        // A debt is charged to its pool: never more than what no lease covered when it was served.
        let over = self.over.get(root_of(pk)).copied().unwrap_or(0);
        self.need(out <= cap + over as i64, || {
            format!("I1 {pk}: {out} given out, {cap} allowed, {over} noted as over")
        });
        let none = BTreeMap::new();
        let before = old.as_ref().map_or(&none, |old| &old.entries);
        let writers: BTreeSet<WriterId> =
            before.keys().chain(new.entries.keys()).copied().collect();
        let mut moved = 0;
        for writer in writers {
            let (was, is) = (before.get(&writer), new.entries.get(&writer));
            if was == is {
                continue;
            }
            moved += 1;
            let share = (writer, root_of(pk).to_owned());
            let spent = new.spent - old.as_ref().map_or(0, |old| old.spent);
            if let Some(was) = was {
                self.units_left(by, &share, was, is.map_or(Err(spent as u64), |is| Ok(*is)));
            }
            match is {
                Some(is) => {
                    if was.is_none() {
                        self.is_alone(&share);
                    }
                    let fresh = self.applied.insert((writer, pk.clone(), is.op));
                    self.need(fresh, || {
                        format!("I8 {share:x?}: operation {} changed the pool twice", is.op)
                    });
                }
                None => {
                    *self.folded.entry(share.clone()).or_default() += spent as u64;
                }
            }
            self.check_use(&share);
        }
        self.need(moved <= 1, || format!("{pk}: one write moved {moved} entries"));
    }

    /// I10: units leave an entry only by its owner, or after a seal and never below its ceilings.
    fn units_left(
        &mut self,
        by: usize,
        share: &Share,
        was: &PoolEntry,
        is: Result<PoolEntry, u64>,
    ) {
        let ceiling = self.ceilings.get(share).copied().unwrap_or(0);
        let floor = was.held.min(was.preauthorised.max(ceiling));
        let owns = self.nodes.get(&share.0) == Some(&by);
        let sealed = self.sealed.contains(&share.0);
        let kept = is.map_or_else(|spent| spent, |is| is.held);
        if is.is_ok_and(|is| is.closed) && !was.closed {
            self.count("entries closed");
            *self.stats.entry("units reclaimed").or_default() += was.held.saturating_sub(kept);
            self.need(sealed && kept >= floor, || {
                format!("I10 {share:x?}: closed with {kept}, sealed: {sealed}, floor {floor}")
            });
        } else if is.is_err() {
            self.count("entries folded");
            self.need(owns || sealed && kept >= floor, || {
                format!("I10 {share:x?}: folded with {kept}, sealed: {sealed}, floor {floor}")
            });
        } else if kept < was.held {
            self.need(owns, || format!("I10 {share:x?}: lowered by another"));
        }
    }

    /// A sub-pool has what its root has credited to it, less what it has given back, and owes what
    /// the root has taken over of it.
    fn fed(&mut self, pk: &str, (credited, returned, owed): (u64, u64, u64), limit: i64) {
        self.count("sub-pools changed");
        let shard = pk.rsplit("#s").next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let root = self.pools.get(root_of(pk)).and_then(|root| root.feeds.get(&shard?));
        let (sent, taken, known) = root.copied().unwrap_or_default();
        self.need(credited <= sent && returned >= taken && owed >= known, || {
            let units = format!("{credited} credited of {sent}, {taken} taken of {returned}");
            format!("I1 {pk}: {units} returned, {owed} owed, {known} known")
        });
        self.need(limit == (credited + owed) as i64 - returned as i64, || {
            format!("I1 {pk}: the limit is {limit}, {credited} + {owed} - {returned} credited")
        });
        self.cap.insert(pk.to_owned(), limit);
    }

    /// A writer has at most one entry in a pool and its sub-pools.
    fn is_alone(&mut self, (writer, root): &Share) {
        let items = self.pools.iter().filter(|(pk, _)| root_of(pk) == root);
        let entries = items.filter(|(_, pool)| pool.entries.contains_key(writer)).count();
        self.need(entries <= 1, || format!("{root}: {entries} entries of {writer}"));
    }

    fn limit_changed(&mut self, pk: &str, old: Option<&PoolItem>, new: &PoolItem) {
        let Some(old) = old else {
            self.cap.insert(pk.to_owned(), new.limit);
            self.limit_at.insert((pk.to_owned(), new.rev), new.limit);
            return;
        };
        if (old.limit, old.rev) == (new.limit, new.rev) {
            return;
        }
        self.count("limits changed");
        self.need(new.rev > old.rev, || {
            format!("I12 {pk}: revision {} after {}", new.rev, old.rev)
        });
        let known = *self.limit_at.entry((pk.to_owned(), new.rev)).or_insert(new.limit);
        self.need(known == new.limit, || {
            format!("I12 {pk}: revision {} says {known} and {}", new.rev, new.limit)
        });
        self.need(old.limit - old.free == new.limit - new.free, || {
            format!("I1 {pk}: a change of the limit moved units")
        });
        self.cap.insert(pk.to_owned(), new.limit.max(old.limit - old.free));
    }

    fn log_changed(&mut self, key: &Key, old: Option<&Item>, new: Option<&Item>) {
        let Some(writer) = incarnation_of(&key.pk) else {
            return self.need(false, || format!("{}: a log of no writer", key.pk));
        };
        let slot: u64 = key.sk.parse().unwrap_or(u64::MAX);
        self.need(old.is_none() && new.is_some(), || {
            format!("I9 {writer}: slot {slot} was written twice")
        });
        let end = self.logs.entry(writer).or_default();
        let next = *end;
        *end += 1;
        self.need(slot == next, || format!("I9 {writer}: slot {slot} after {next}"));
        let sealed = self.sealed.contains(&writer);
        self.need(!sealed, || format!("I9 {writer}: slot {slot} after a seal"));
        let keys = self.log_keys.entry(writer).or_default();
        let Some(record) = new.and_then(|item| LogItem::read(SPACE, item, keys)) else {
            return self.need(false, || format!("{writer}: slot {slot} cannot be read"));
        };
        if record.seal {
            self.sealed.insert(writer);
            self.count("logs sealed");
            if !self.dead.contains(&writer) {
                self.count("logs of the living sealed");
            }
        }
        self.take_record(writer, record);
    }

    fn take_record(&mut self, writer: WriterId, record: LogItem) {
        let of = record.of.unwrap_or(writer);
        for (pool, (total, ceiling)) in record.pools {
            let share = (of, pool.pk);
            if record.of.is_none() {
                let known = self.ceilings.entry(share.clone()).or_default();
                *known = ceiling.max(*known);
            } else {
                self.count("rows carried");
            }
            let served = self.served_by.get(&share).copied().unwrap_or(0);
            let doubt = self.in_doubt.get(&share).copied().unwrap_or(0);
            self.need(total <= served + doubt, || {
                format!("I3 {share:x?}: {total} recorded, {served} served")
            });
            if record.of.is_none() {
                // A lease that was dropped and is made again begins at nothing, and adds the
                // earlier use once it has seen its entry.
                let own = self.own.entry(share.clone()).or_default();
                let before = std::mem::replace(own, total.max(*own));
                let is_anew = before + total <= served + doubt;
                self.need(total >= before || is_anew, || {
                    format!("I4 {share:x?}: {before} recorded, then {total}")
                });
            }
            self.trace(&share, || format!("{total} recorded, ceiling {ceiling} (by {writer})"));
            let known = self.recorded.entry(share).or_default();
            *known = total.max(*known);
        }
        for ((meter, row), total) in record.uses {
            let known = self.recorded_uses.entry((of, meter.clone(), row.clone())).or_default();
            *known = total.max(*known);
            let tenant = row.split(' ').next().unwrap_or_default().to_owned();
            let recorded = self.use_of(of, &tenant, &meter);
            let used = self.used.get(&(of, tenant, meter.clone())).copied().unwrap_or(0);
            self.need(recorded <= used, || {
                format!("I3 {of}: {recorded} {meter} recorded, {used} used")
            });
        }
    }

    fn use_of(&self, of: WriterId, tenant: &str, meter: &str) -> u64 {
        let from = (of, meter.to_owned(), tenant.to_owned());
        let rows = self.recorded_uses.range(from..);
        let own = rows.take_while(|((by, of_meter, row), _)| {
            *by == of && of_meter == meter && row.starts_with(tenant)
        });
        own.map(|(_, total)| total).sum()
    }

    /// Units served that the node knows of: it learns later of a key that was charged.
    pub(crate) fn known(&self, share: &Share) -> u64 {
        let served = self.served_by.get(share).copied().unwrap_or(0);
        served.saturating_sub(self.in_doubt.get(share).copied().unwrap_or(0))
    }

    /// A durable request was acknowledged: this much is on record.
    pub(crate) fn acknowledged(&mut self, share: &Share, total: u64) {
        let recorded = self.recorded.get(share).copied().unwrap_or(0);
        self.count("records acknowledged");
        self.need(recorded >= total, || {
            format!("I4 {share:x?}: {total} acknowledged, {recorded} recorded")
        });
    }

    /// An incarnation died: use in neither the store nor its journal may be missing.
    pub(crate) fn died(&mut self, writer: WriterId, journal: Option<&LogItem>) {
        if crate::run::traced().is_some() {
            println!("{:.3} {writer} is dead", self.now_us as f64 / 1e6);
        }
        self.dead.insert(writer);
        self.loss_uses.insert(writer);
        let shares: Vec<(Share, u64)> =
            self.served_by.range((writer, String::new())..).map(|(s, n)| (s.clone(), *n)).collect();
        for (share, served) in shares.into_iter().take_while(|(share, _)| share.0 == writer) {
            let key = Key { pk: share.1.clone(), sk: "-".into() };
            let left = journal.and_then(|left| left.pools.get(&key));
            let kept = left.map_or(0, |(total, _)| *total);
            let recorded = self.recorded.get(&share).copied().unwrap_or(0);
            let loss = self.loss.entry(share).or_default();
            *loss = (*loss).max(served - kept.max(recorded).min(served));
        }
    }

    /// I7: faults are over and everything is drained: every number agrees.
    pub(crate) fn settle(&mut self) {
        let shares: Vec<(Share, u64)> =
            self.served_by.iter().map(|(share, n)| (share.clone(), *n)).collect();
        for (share, served) in shares {
            let recorded = self.recorded.get(&share).copied().unwrap_or(0);
            let loss = self.loss.get(&share).copied().unwrap_or(0);
            let doubt = self.in_doubt.get(&share).copied().unwrap_or(0);
            self.need(recorded <= served + doubt && served <= recorded + loss, || {
                format!("I7 {share:x?}: served {served}, recorded {recorded}, stated loss {loss}")
            });
            *self.stats.entry("units lost").or_default() += served.saturating_sub(recorded);
        }
        let uses: Vec<_> = self.used.iter().map(|(key, n)| (key.clone(), *n)).collect();
        for ((of, tenant, meter), used) in uses {
            let recorded = self.use_of(of, &tenant, &meter);
            let may_lack = self.loss_uses.contains(&of);
            self.need(recorded == used || may_lack && recorded < used, || {
                format!("I7 {of} {tenant}: {used} {meter} used, {recorded} recorded")
            });
        }
        let mut stranded = 0;
        let last = self.last_window();
        for (pk, pool) in self.pools.iter().filter(|(pk, _)| window_of(pk) == last) {
            if pool.fed.is_some() {
                continue;
            }
            let subs = self.pools.iter().filter(|(sub, _)| *sub != pk && root_of(sub) == pk);
            let subs: i64 = subs.map(|(_, sub)| sub.limit - sub.free).sum();
            let taken = |(credited, returned, owed): &(u64, u64, u64)| credited + owed - returned;
            let fed: u64 = pool.feeds.values().map(taken).sum();
            let out = (pool.limit - pool.free - fed as i64 + subs).max(0) as u64;
            let served = self.served.get(pk).copied().unwrap_or(0);
            stranded += out.saturating_sub(served);
            *self.stats.entry("units of all limits").or_default() += pool.limit as u64;
        }
        *self.stats.entry("units stranded").or_default() += stranded;
        let open: Vec<(String, WriterId, u64, u64)> = self.held_by_the_living();
        for (pk, writer, held, used) in open {
            self.need(held <= used, || {
                format!("I7 {pk}: {writer} has drained, used {used} and holds {held}")
            });
        }
    }

    /// The current window at the end. Units left in leases of earlier ones have no further use and
    /// stay there.
    fn last_window(&self) -> i64 {
        self.pools.keys().map(|pk| window_of(pk)).max().unwrap_or(0)
    }

    fn held_by_the_living(&self) -> Vec<(String, WriterId, u64, u64)> {
        let mut open = Vec::new();
        let last = self.last_window();
        for (pk, pool) in self.pools.iter().filter(|(pk, _)| window_of(pk) == last) {
            for (writer, entry) in &pool.entries {
                if !self.dead.contains(writer) {
                    let share = (*writer, root_of(pk).to_owned());
                    let used = self.served_by.get(&share).copied().unwrap_or(0);
                    let doubt = self.in_doubt.get(&share).copied().unwrap_or(0);
                    let keyed = self.keyed.values().filter(|(of, _)| *of == share);
                    let open_yet: u64 = keyed.map(|(_, n)| n).sum();
                    open.push((pk.clone(), *writer, entry.held, used + doubt + open_yet));
                }
            }
        }
        open
    }
}

/// The kind of call that a write is.
pub(crate) fn kind_of(write: &Write) -> &'static str {
    use tallygate::store::{Change, When};
    let sets = |name: &str| {
        write.change.iter().any(|change| matches!(change, Change::Set(n, _) if *n == name))
    };
    let absent = write.when.contains(&When::Absent);
    let sets_a_sub_pool = write
        .change
        .iter()
        .any(|change| matches!(change, Change::Set(name, _) if name.starts_with("s#")));
    let free = write.change.iter().find_map(|change| match change {
        Change::Add(name, n) if name == "free" => Some(*n),
        _ => None,
    });
    match write.key.pk.split('#').nth(2).unwrap_or_default() {
        "Q" if sets_a_sub_pool || ["credited", "returned", "owed", "of"].into_iter().any(sets) => {
            "sub-pool"
        }
        "Q" if absent => "first grant",
        "Q" if sets("limit") => "limit",
        "Q" if free.is_some_and(|n| n < 0) => "grant",
        "Q" if write.change.iter().any(|c| matches!(c, Change::Remove(_))) => "fold",
        "Q" if free.is_some_and(|n| n >= 0) && write.when.len() == 1 => "give back",
        "Q" if sets("alert") => "alert",
        "L" if sets("seal") => "seal",
        "L" => "record",
        "Q" => "pool, other",
        "R" => "registration",
        "K" if write.key.pk.ends_with("#K#") => "directory",
        "K" if sets("by") => "settle a claim",
        "K" => "claim",
        _ => "directory",
    }
}

/// The tenant and the limit of a pool's key.
pub(crate) fn parts_of(pool: &str) -> (&str, &str) {
    let mut parts = pool.split('#').skip(3);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// The pool of a sub-pool; of any other, itself.
pub(crate) fn root_of(pk: &str) -> &str {
    let (root, last) = pk.rsplit_once('#').unwrap_or((pk, ""));
    if last.starts_with('s') { root } else { pk }
}

fn window_of(pool: &str) -> i64 {
    root_of(pool).rsplit('#').next().and_then(|start| start.parse().ok()).unwrap_or(0)
}

fn incarnation_of(pk: &str) -> Option<WriterId> {
    writer(pk.rsplit('#').next()?)
}

/// Only for messages: an item without its bytes.
#[allow(dead_code, reason = "at hand for whoever follows a seed")]
pub(crate) fn brief(item: &Item) -> String {
    let shown = item.0.iter().map(|(name, value)| match value {
        Value::Bytes(bytes) => format!("{name}=[{}]", bytes.len()),
        other => format!("{name}={other:?}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}
