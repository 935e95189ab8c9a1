//! The items of a split pool, as read: its root, and a sub-pool.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{SubPoolNumber, WriterId};
use crate::quota::demand::{LEASES_AHEAD, RootSeen, Want};
use crate::quota::pool::{self, OWED, Terms, View};
use crate::store::{Item, Name, StoreError, Value};

/// In a sub-pool: what the root has credited and taken back.
pub(super) const CREDITED: &str = "credited";
pub(super) const RETURNED: &str = "returned";

/// The root's record of a sub-pool: totals that never fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fed {
    pub(crate) credited: u64,
    pub(crate) returned: u64,
    /// Stored in an attribute of its own.
    #[serde(skip)]
    pub(crate) owed: u64,
}

/// A pool that may have sub-pools, as last seen.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) view: View,
    pub(crate) feeds: BTreeMap<SubPoolNumber, Fed>,
    pub(super) ttl: Option<i64>,
}

/// A sub-pool as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sub {
    pub(crate) free: i64,
    pub(crate) credited: u64,
    pub(crate) returned: u64,
    pub(crate) owed: u64,
    /// The root's limit, as last seen.
    pub(super) of: Terms,
}

impl Fed {
    /// Atoms credited and not given back: held, spent, free there or in transit.
    pub(crate) fn out(self) -> u64 {
        self.credited.saturating_sub(self.returned)
    }

    /// The same with what the root owes for it. That can come back, too.
    pub(crate) fn taken(self) -> u64 {
        self.credited.saturating_add(self.owed).saturating_sub(self.returned)
    }
}

impl Root {
    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        Ok(Self {
            view: View::read(item, WriterId::NONE)?,
            feeds: feeds(item)?,
            ttl: item.int(Item::TTL),
        })
    }

    pub(crate) fn seen(&self) -> RootSeen {
        RootSeen::of(&self.view)
    }
}

impl Sub {
    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let view = View::read(item, WriterId::NONE)?;
        let total = |name: &str| {
            let total = item.int(name).and_then(|total| u64::try_from(total).ok());
            total.ok_or_else(|| pool::damaged(name))
        };
        let (credited, returned) = (total(CREDITED)?, total(RETURNED)?);
        let owed = item.int(OWED).map_or(Ok(0), |_| total(OWED))?;
        Ok(Self { free: view.free, credited, returned, owed, of: view.terms })
    }

    /// Whether the root knows all its movements. It always does, except in a copied table whose
    /// items are not of one instant.
    pub(crate) fn is_known_to(self, root: &Root, shard: SubPoolNumber) -> bool {
        let fed = root.feeds.get(&shard).copied().unwrap_or_default();
        let of_units = self.credited <= fed.credited && self.returned >= fed.returned;
        of_units && self.owed >= fed.owed
    }

    /// Whether it has what is wanted, with room for some more leases, and knows the limit.
    pub(crate) fn has(self, want: &Want) -> bool {
        let enough = pool::atoms(want.wish).saturating_mul(LEASES_AHEAD / 2);
        let knows = self.of.rev >= want.terms.rev || self.of.limit == want.terms.limit;
        knows && !want.of_root && self.free >= enough.max(pool::atoms(want.need))
    }

    /// Atoms in transit to it and from it.
    pub(crate) fn under_way(self, fed: Fed) -> (u64, u64) {
        let down = fed.credited.saturating_sub(self.credited);
        (down, self.returned.saturating_sub(fed.returned))
    }
}

/// Sub-pools of a pool, by number.
pub(crate) fn feeds(item: &Item) -> Result<BTreeMap<SubPoolNumber, Fed>, StoreError> {
    let fed = |(name, value): (&str, &Value)| {
        let Value::Bytes(bytes) = value else { return Err(pool::damaged("a sub-pool")) };
        let shard = SubPoolNumber::read(name).ok_or_else(|| pool::damaged("a sub-pool"))?;
        Ok((shard, postcard::from_bytes(bytes).map_err(|_| pool::damaged("a sub-pool"))?))
    };
    let mut feeds: BTreeMap<SubPoolNumber, Fed> =
        pool::sub_pools(item).map(fed).collect::<Result<_, StoreError>>()?;
    for (shard, fed) in &mut feeds {
        let owed = item.int(&debt_name(*shard)).unwrap_or(0);
        fed.owed = u64::try_from(owed).map_err(|_| pool::damaged("a sub-pool's debt"))?;
    }
    Ok(feeds)
}

pub(super) fn name(shard: SubPoolNumber) -> Name {
    format!("s#{shard}").into()
}

pub(super) fn debt_name(shard: SubPoolNumber) -> Name {
    format!("d#{shard}").into()
}

pub(super) fn value(fed: Fed) -> Value {
    Value::Bytes(postcard::to_stdvec(&fed).expect("two integers always encode"))
}
