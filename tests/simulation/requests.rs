//! Client behaviour: requests of several kinds, each a task on the node that serves it. Each unit
//! is reported to the world in the same step in which it is handed out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tallygate::testing::{Drawn, OpenRequest};
use tallygate::{Gate, Outcome};

use crate::node::Call;
use crate::world::World;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// One unit, or five, for a response that takes this long.
    Job { five: bool, ms: u64 },
    /// The same, and the client waits until it is on record.
    Recorded,
    /// Fails: nothing is charged.
    Fails { ms: u64 },
    /// Takes units one by one before it passes them on, and ends when there are none.
    Stream { units: u64, ms: u64 },
    /// Passes units on freely; the cost is known at its end.
    Late { units: u64, ms: u64 },
    /// One unit, counted once with all others of its key.
    Once { key: u64, ms: u64, fails: bool },
}

pub(crate) async fn run(gate: Gate, world: Arc<Mutex<World>>, tenant: String, kind: Kind) {
    let path = match kind {
        Kind::Job { five: true, .. } => "/five",
        Kind::Stream { .. } | Kind::Late { .. } => "/stream",
        Kind::Once { .. } => "/once",
        _ => "/one",
    };
    let key = match kind {
        Kind::Once { key, .. } => Some(format!("{tenant} {key}")),
        _ => None,
    };
    let call = Call { tenant, path, once: key.clone() };
    let open = match OpenRequest::admit(&gate, &call).await {
        Ok(open) => open,
        Err(refusal) => {
            let reason = refusal.map(|refusal| refusal.reason);
            let unavailable = matches!(reason, Some(tallygate::Reason::Unavailable));
            lock(&world).count(if unavailable { "unavailable" } else { "refused" });
            return;
        }
    };
    lock(&world).admitted(&open.drawn());
    match kind {
        Kind::Job { ms, .. } => {
            pause(ms).await;
            end(open, &world);
        }
        Kind::Recorded => {
            let drawn = open.drawn();
            end(open, &world);
            recorded(&gate, &world, &drawn).await;
        }
        Kind::Fails { ms } => {
            pause(ms).await;
            open.end(Outcome::Failed);
        }
        Kind::Stream { units, ms } => stream(open, &world, units, ms).await,
        Kind::Late { units, ms } => {
            pause(ms).await;
            report(&open, &world, units);
            end(open, &world);
        }
        Kind::Once { ms, fails, .. } => {
            let key = key.unwrap_or_default();
            let claim = open.claim();
            if let Some((item, name)) = claim.clone() {
                let drawn = open.drawn();
                let jobs = drawn.iter().find(|drawn| is_of(drawn, "jobs"));
                let mut world = lock(&world);
                world.keys.insert(key.clone(), item);
                world.claims(name, jobs);
            }
            pause(ms).await;
            if let Some((_, name)) = claim {
                lock(&world).has_ended(name);
            }
            if fails { open.end(Outcome::Failed) } else { once(open, &world, &key).await }
        }
    }
}

/// It counts once: its use counts when its claim records it, whichever node learns of that.
async fn once(open: OpenRequest, world: &Mutex<World>, key: &str) {
    let done = Outcome::Complete { status: 200 };
    if open.is_replay() {
        lock(world).answered(key, None);
        return open.end(done);
    }
    let Some((_, name)) = open.claim() else {
        return end(open, world); // the key has been used up
    };
    let drawn = open.drawn();
    let jobs = drawn.iter().find(|drawn| is_of(drawn, "jobs") && drawn.atoms > 0);
    lock(world).settles(name, jobs);
    if open.answered(done).await {
        lock(world).answered(key, Some(name));
    }
}

/// It has been answered in full: what it holds of `jobs` is used.
fn end(open: OpenRequest, world: &Mutex<World>) {
    let mut at = lock(world);
    for drawn in open.drawn().iter().filter(|drawn| is_of(drawn, "jobs")) {
        at.serve(drawn.writer, &drawn.pool.pk, drawn.atoms, 0);
    }
    drop(at);
    open.end(Outcome::Complete { status: 200 });
}

/// `n` tokens have been passed on, whether there was room or not.
fn report(open: &OpenRequest, world: &Mutex<World>, n: u64) {
    // What it holds is used in turn; the rest belongs to the current window.
    let all = open.drawn();
    let all: Vec<_> = all.iter().filter(|drawn| is_of(drawn, "tokens")).collect();
    let mut rest = n;
    for (i, drawn) in all.iter().enumerate() {
        let held = rest.min(drawn.atoms);
        let here = if i + 1 == all.len() { rest } else { held };
        let over = (here - held).saturating_sub(u64::try_from(drawn.left).unwrap_or(0));
        if here > 0 {
            lock(world).serve(drawn.writer, &drawn.pool.pk, here, over);
        }
        rest -= here;
    }
    if n > 0 {
        open.usage().add("tokens", n);
    }
}

async fn stream(open: OpenRequest, world: &Mutex<World>, units: u64, ms: u64) {
    for _ in 0..units {
        pause(ms).await;
        let held = open.drawn().iter().filter(|drawn| is_of(drawn, "tokens")).any(|d| d.atoms > 0);
        if !held && open.usage().take("tokens", 1).await.is_err() {
            lock(world).count("streams cut");
            break;
        }
        report(&open, world, 1);
    }
    end(open, world);
}

/// Waits for the record of what this request drew.
async fn recorded(gate: &Gate, world: &Mutex<World>, drawn: &[Drawn]) {
    let totals: Vec<_> = {
        let world = lock(world);
        let share = |drawn: &Drawn| (drawn.writer, drawn.pool.pk.clone());
        drawn.iter().map(share).map(|share| (share.clone(), world.known(&share))).collect()
    };
    if gate.flush_now().await.is_ok() {
        for (share, total) in totals {
            lock(world).acknowledged(&share, total);
        }
    }
}

fn is_of(drawn: &Drawn, meter: &str) -> bool {
    crate::world::parts_of(&drawn.pool.pk).1.starts_with(meter)
}

async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
