//! The last refusals, in memory. A tenant that is refused a thousand times a second displaces its
//! own, and callers without a tenant theirs; no one else's until all places are taken.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::DecisionRecord;

/// Refusals of all tenants together: about 2 MB.
pub(super) const MOST: usize = 4_096;

/// Refusals of one tenant, and of all callers whose tenant is not known: more than a person reads.
pub(super) const MOST_EACH: usize = 256;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct RecentDecisions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    so_far: u64,
    /// By number, the oldest first.
    all: BTreeMap<u64, Arc<DecisionRecord>>,
    /// The numbers of each tenant's, the oldest first. None is empty.
    each: HashMap<Option<Arc<str>>, VecDeque<u64>>,
}

impl RecentDecisions {
    pub(super) fn note(&self, record: Arc<DecisionRecord>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.so_far += 1;
        let n = kept.so_far;
        let of = kept.each.entry(record.tenant.clone()).or_default();
        of.push_back(n);
        let own = if of.len() > MOST_EACH { of.pop_front() } else { None };
        if let Some(own) = own {
            kept.all.remove(&own);
        }
        kept.all.insert(n, record);
        if kept.all.len() > MOST {
            kept.forget_oldest();
        }
    }

    /// Forgets those of a tenant that was erased: another one may have its id next.
    pub(super) fn forget(&self, tenant: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for n in kept.each.remove(&Some(tenant.into())).unwrap_or_default() {
            kept.all.remove(&n);
        }
    }

    /// The last ones, newest first: of one tenant, of those without one, or of all.
    pub(super) fn last(&self, of: Option<Option<&str>>, most: usize) -> Vec<Arc<DecisionRecord>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tenant) = of else { return kept.all.values().rev().take(most).cloned().collect() };
        let key: Option<Arc<str>> = tenant.map(Arc::from);
        let numbers = kept.each.get(&key).into_iter().flatten().rev();
        numbers.filter_map(|n| kept.all.get(n).cloned()).take(most).collect()
    }
}

impl Kept {
    fn forget_oldest(&mut self) {
        let Some((_, oldest)) = self.all.pop_first() else { return };
        // The oldest of all is the oldest of its tenant.
        let Some(of) = self.each.get_mut(&oldest.tenant) else { return };
        of.pop_front();
        if of.is_empty() {
            self.each.remove(&oldest.tenant);
        }
    }
}
