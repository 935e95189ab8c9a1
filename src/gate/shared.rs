//! State shared by an admitted request and its handler: one allocation, which the thread keeps for
//! the next request once both have dropped it.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use super::Gate;
use crate::admission::permit::{Hold, Spares};
use crate::catalog::Plan;
use crate::holders::is_shared;

/// The content, and a handle on it. The last one that is dropped settles the hold.
#[derive(Clone, Debug)]
pub(super) struct SharedSpare(Option<Arc<SpareSlot>>);

/// Empty while it is a spare.
type SpareSlot = Option<Content>;

#[derive(Debug)]
pub(super) struct Content {
    pub(super) gate: Gate,
    pub(super) tenant: Arc<str>,
    pub(super) plan: Arc<Plan>,
    pub(super) hold: Mutex<Hold>,
}

thread_local! {
    static PLACES: Spares<Arc<SpareSlot>> = const { Spares::new() };
}

impl SharedSpare {
    pub(super) fn new(gate: Gate, hold: Hold) -> Self {
        let (tenant, plan) = (hold.of.sheet.tenant.id.clone(), hold.of.sheet.policy.plan.clone());
        let content = Content { gate, tenant, plan, hold: Mutex::new(hold) };
        let mut place = Spares::take(&PLACES).unwrap_or_default();
        match Arc::get_mut(&mut place) {
            Some(place) => *place = Some(content),
            // A spare has one owner; were there another, it would be the other's.
            None => place = Arc::new(Some(content)),
        }
        Self(Some(place))
    }
}

impl SharedSpare {
    /// The address of the shared state, which distinguishes requests that exist at the same time.
    pub(super) fn address(&self) -> usize {
        self.0.as_ref().map_or(0, |place| Arc::as_ptr(place).addr())
    }

    /// Whether there is another handle.
    pub(super) fn is_shared(&self) -> bool {
        self.0.as_ref().is_some_and(is_shared)
    }
}

impl Deref for SharedSpare {
    type Target = Content;

    #[inline]
    fn deref(&self) -> &Content {
        let content = self.0.as_deref().and_then(Option::as_ref);
        content.expect("a place is empty only as a spare, which no handle has")
    }
}

impl Drop for SharedSpare {
    fn drop(&mut self) {
        let Some(mut place) = self.0.take() else { return };
        // Two that let go at the same moment both see the other: then it is freed, not kept.
        if !is_shared(&place)
            && let Some(content) = Arc::get_mut(&mut place)
        {
            *content = None; // here the hold is settled, unless it was
            Spares::keep(&PLACES, place);
        }
    }
}
