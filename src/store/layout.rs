//! Layout of the table's keys. Every partition begins with the layout's version and the space, so
//! that several services, or test and live, share one table without meeting.
//!
//! | partition | sort key | holds |
//! |---|---|---|
//! | `N#name hash` | | outer tenant id to surrogate |
//! | `I#shard` | outer tenant id | the same, in the order of the ids, for lists of tenants |
//! | `T#tenant` | | directory record: plan, status, overrides |
//! | `T#tenant#C` | credential | credentials of a tenant, for listing and revoking |
//! | `T#tenant#G` | grant | ended grants, moved out of the record, as they were given |
//! | `C#scheme#hash` | | credential to tenant |
//! | `H#tenant` | time, nonce | history of changes |
//! | `P#` | revision | catalog revisions |
//! | `Q#pool` | | units of one limit in one window, or of one grant |
//! | `Q#pool#s` shard | | a sub-pool: the part of those units that many writers lease from |
//! | `L#incarnation` | n | usage log, write-once slots |
//! | `F#incarnation` | run of slots, part | a fold: the summary that replaces a run of log slots |
//! | `R#yyyymm` | day, incarnation | registry of writers by the day of their registration |
//! | `R#` | yyyymm | a month of the registry, and who registered in it last |
//! | `K#` | tenant | tenants that have used idempotency keys |
//! | `K#tenant#shard` | key hash | claims on idempotency keys |
//! | `B#account hash#tenant#meter@scale#period` | | outbox: amounts owed, and the outcome of each |
//! | `U#customer and event hash` | minute | the entry that occupies this minute |
//! | `E#identifier` | | a meter event that the billing service reported as rejected |
//! | `S#customer hash` | | the tenant a customer belongs to, and what its events say |
//! | `Y#price hash` | | a price's name at the billing service |
//! | `W#event hash` | | a webhook that was accepted |
//! | `X#reporter` | | the process that reports to the billing service |
//! | `K#tenant#e` shard | `e#` hash of an event's id | the log slot that carries its units |
//! | `D#` | hash of a message | a message that is no usage event, kept for inspection |
//! | `V#nodes` | | nodes that share rates, by their heartbeats |
//! | `V#pressure` | | rates under pressure |
//! | `V#tenant#scope#rate` | | shares of a rate under pressure, by node |
//! | `M#` | | id and generation of the ledger |
//! | `M#` | `store` | the id of this part of the store |
//! | `A#` | shard | recently announced changes of the directory |
//! | `J#`destination hash | time, id | alerts that wait to be sent there, the oldest first |
//! | `J#`destination hash`#x` | time, id | alerts that were given up |
//! | `J#`destination hash`#`alert's id | | an alert that was sent there |
//! | `J#later` | time, id | alerts that are due at that time |
//! | `X#notify#`destination hash | | the process that sends alerts there |
//!
//! A tenant is always its [`Surrogate`], 32 hex digits: no part of an outer id's choosing stands in
//! a key, so it cannot forge one. Only in the list of tenants is it a sort key, and there it is the
//! whole of it.

use super::{Item, Key, Name, StoreError, StoreErrorKind, Value};
use sha2::{Digest, Sha256};

use crate::identity::hex;
use crate::ids::{LimitId, NodeId, SubPoolNumber, Surrogate, WriterId};

/// Version of the layout, the first thing in every partition key.
const LAYOUT: &str = "1";

/// Attribute that holds an item's format version.
pub(crate) const FORMAT: &str = "v";

/// Shards of a tenant's claims, by the first digit of a key's hash: a partition takes 1,000 writes
/// a second, and a keyed request makes two or three.
pub(crate) const CLAIM_SHARDS: u8 = 16;

/// Partitions of the list of tenants, by the first digit of an id's hash: so that an import of
/// tenants is not held to the 1,000 writes a second of one partition.
pub(crate) const LIST_SHARDS: u8 = 16;

/// One service's part of a table.
#[derive(Clone, Debug)]
pub(crate) struct Space(std::sync::Arc<str>);

impl Space {
    /// `name` has been checked by the configuration: no `#`, not empty.
    pub(crate) fn new(name: &str) -> Self {
        Self(format!("{LAYOUT}#{name}#").into())
    }

    fn key(&self, pk: std::fmt::Arguments<'_>, sk: impl Into<String>) -> Key {
        Key { pk: format!("{}{pk}", self.0), sk: sk.into() }
    }

    pub(crate) fn name(&self, hash_hex: &str) -> Key {
        self.key(format_args!("N#{hash_hex}"), "-")
    }

    /// `id` is an outer id, or empty for the start of the partition.
    pub(crate) fn listed(&self, shard: u8, id: &str) -> Key {
        self.key(format_args!("I#{shard:x}"), id)
    }

    pub(crate) fn tenant(&self, tenant: Surrogate) -> Key {
        self.key(format_args!("T#{tenant}"), "-")
    }

    pub(crate) fn tenant_credential(&self, tenant: Surrogate, credential: &str) -> Key {
        self.key(format_args!("T#{tenant}#C"), credential)
    }

    /// `id` is empty for the start of the partition.
    pub(crate) fn past_grant(&self, tenant: Surrogate, id: &str) -> Key {
        self.key(format_args!("T#{tenant}#G"), id)
    }

    pub(crate) fn credential(&self, scheme: &str, hash_hex: &str) -> Key {
        self.key(format_args!("C#{scheme}#{hash_hex}"), "-")
    }

    /// A constant hashed with the pepper, to detect a changed pepper.
    pub(crate) fn pepper(&self, scheme: &str) -> Key {
        self.key(format_args!("Y#{scheme}"), "-")
    }

    pub(crate) fn history(&self, tenant: Surrogate, at_ms: i64, nonce: u64) -> Key {
        self.key(format_args!("H#{tenant}"), format!("{at_ms:016}#{nonce:016x}"))
    }

    pub(crate) fn catalog(&self, revision: u64) -> Key {
        self.key(format_args!("P#"), format!("{revision:020}"))
    }

    /// `scope` is a hash, or 0 for the whole tenant: no caller-chosen text enters a key unhashed.
    pub(crate) fn pool(&self, tenant: Surrogate, limit: &str, scope: u128, start_ms: i64) -> Key {
        self.key(format_args!("Q#{tenant}#{limit}#{scope:032x}#{start_ms}"), "-")
    }

    /// One of the sub-pools of a pool: a partition of its own, for its own writes.
    pub(crate) fn sub_pool(&self, root: Key, shard: SubPoolNumber) -> Key {
        Key { pk: format!("{}#s{shard}", root.pk), sk: root.sk }
    }

    pub(crate) fn log(&self, incarnation: WriterId, n: u64) -> Key {
        self.key(format_args!("L#{incarnation}"), format!("{n:020}"))
    }

    /// Part `part` of the fold of the `range`-th run of slots.
    pub(crate) fn fold(&self, incarnation: WriterId, range: u64, part: usize) -> Key {
        let pk = format_args!("F#{incarnation}");
        self.key(pk, format!("{range:020}#{part:06}"))
    }

    /// Marks this tenant as a user of idempotency keys.
    pub(crate) fn claimant(&self, tenant: Surrogate) -> Key {
        self.key(format_args!("K#"), tenant.to_string())
    }

    /// The partition of all claimants.
    pub(crate) fn claimants_pk(&self) -> String {
        self.key(format_args!("K#"), "").pk
    }

    /// `hash` is of the client-chosen key, which could hold anything.
    pub(crate) fn claim(&self, tenant: Surrogate, hash: u128) -> Key {
        let key = self.claims(tenant, (hash >> 124) as u8);
        Key { sk: format!("{hash:032x}"), ..key }
    }

    /// The `shard`-th part of a tenant's claims, of [`CLAIM_SHARDS`].
    pub(crate) fn claims(&self, tenant: Surrogate, shard: u8) -> Key {
        self.key(format_args!("K#{tenant}#{shard:x}"), "")
    }

    /// `account` is hashed: it is an outside name and could hold anything.
    pub(crate) fn outbox(
        &self,
        account: &str,
        tenant: Surrogate,
        meter: &str,
        scale: u64,
        period_ms: i64,
    ) -> Key {
        let account = name_hash(&[account]);
        self.key(format_args!("B#{account}#{tenant}#{meter}@{scale}#{period_ms}"), "-")
    }

    /// `customer` is the billing service's name, so hashed.
    pub(crate) fn customer(&self, customer: &str) -> Key {
        self.key(format_args!("S#{}", name_hash(&[customer])), "-")
    }

    /// `price` is the billing service's name, so hashed.
    #[cfg(feature = "stripe")]
    pub(crate) fn price(&self, price: &str) -> Key {
        self.key(format_args!("Y#{}", name_hash(&[price])), "-")
    }

    #[cfg(feature = "stripe")]
    pub(crate) fn webhook(&self, event: &str) -> Key {
        self.key(format_args!("W#{}", name_hash(&[event])), "-")
    }

    pub(crate) fn minute(&self, customer: &str, event: &str, minute_s: i64) -> Key {
        let hash = name_hash(&[customer, event]);
        self.key(format_args!("U#{hash}"), format!("{minute_s:012}"))
    }

    /// `identifier` is one of ours, hexadecimal; anything else finds nothing.
    pub(crate) fn rejected(&self, identifier: &str) -> Key {
        self.key(format_args!("E#{}", name_hash(&[identifier])), "-")
    }

    pub(crate) fn rate_nodes(&self) -> Key {
        self.key(format_args!("V#nodes"), "-")
    }

    pub(crate) fn rate_pressure(&self) -> Key {
        self.key(format_args!("V#pressure"), "-")
    }

    pub(crate) fn rate_shares(&self, id: &LimitId) -> Key {
        let LimitId { tenant, scope, rate } = id;
        self.key(format_args!("V#{tenant}#{scope:032x}#{rate}"), "-")
    }

    #[cfg(feature = "stripe")]
    pub(crate) fn reporter(&self) -> Key {
        self.key(format_args!("X#reporter"), "-")
    }

    /// An alert that waits for a destination; `id` is empty for the start of the partition. The
    /// destination is a name in the service file, so hashed.
    pub(crate) fn waiting_alert(&self, to: &str, at_ms: i64, id: &str) -> Key {
        self.key(format_args!("J#{}", name_hash(&[to])), alert_place(at_ms, id))
    }

    /// The same alert, once it was given up.
    pub(crate) fn dead_alert(&self, to: &str, at_ms: i64, id: &str) -> Key {
        self.key(format_args!("J#{}#x", name_hash(&[to])), alert_place(at_ms, id))
    }

    /// That an alert was sent to a destination. `id` is one of ours: a hash in hexadecimal.
    pub(crate) fn sent_alert(&self, to: &str, id: &str) -> Key {
        self.key(format_args!("J#{}#{id}", name_hash(&[to])), "-")
    }

    /// An alert that is due at this time; `id` is empty for the start of that time.
    pub(crate) fn later_alert(&self, at_ms: i64, id: &str) -> Key {
        self.key(format_args!("J#later"), alert_place(at_ms, id))
    }

    /// Which process sends alerts to a destination.
    pub(crate) fn notifier(&self, to: &str) -> Key {
        self.key(format_args!("X#notify#{}", name_hash(&[to])), "-")
    }

    /// `id` is a hash in hexadecimal; its first digit spreads a busy tenant over 16 partitions.
    pub(crate) fn event_claim(&self, tenant: Surrogate, id: &str) -> Key {
        let shard = id.get(..1).unwrap_or("0");
        self.key(format_args!("K#{tenant}#e{shard}"), format!("e#{id}"))
    }

    /// `id` is a hash in hexadecimal, or empty for the start of the partition.
    pub(crate) fn dead_letter(&self, id: &str) -> Key {
        self.key(format_args!("D#"), id)
    }

    /// The id of this part of the store.
    pub(crate) fn store_id(&self) -> Key {
        self.key(format_args!("M#"), "store")
    }

    pub(crate) fn ledger(&self) -> Key {
        self.key(format_args!("M#"), "-")
    }

    /// One part of the feed of changes.
    pub(crate) fn changes(&self, shard: u8) -> Key {
        self.key(format_args!("A#"), shard.to_string())
    }

    /// `day` is yyyymmdd.
    pub(crate) fn registry(&self, day: u32, incarnation: WriterId) -> Key {
        let Key { pk, sk: day } = self.registry_day(day);
        Key { pk, sk: format!("{day}{incarnation}") }
    }

    /// A month of the registry: days are numbers, yyyymmdd, and months yyyymm.
    pub(crate) fn registry_month(&self, month: u32) -> Key {
        self.key(format_args!("R#"), format!("{month:06}"))
    }

    /// The first writer of this day; those of later days of the month follow.
    pub(crate) fn registry_day(&self, day: u32) -> Key {
        self.key(format_args!("R#{:06}", day / 100), format!("{:02}#", day % 100))
    }
}

/// The writer that a sort key of the registry names.
pub(crate) fn registered(sk: &str) -> Option<WriterId> {
    let (_day, id) = sk.split_once('#')?;
    writer(id)
}

/// The writer that this text names in a key, an attribute's name or a value.
pub(crate) fn writer(text: &str) -> Option<WriterId> {
    WriterId::from_stored_text(text)
}

/// The node that this text names in an attribute's name.
pub(crate) fn node(text: &str) -> Option<NodeId> {
    NodeId::from_stored_text(text)
}

/// A place in the order of alerts. Before 1970 is no time of an alert.
fn alert_place(at_ms: i64, id: &str) -> String {
    format!("{:016}#{id}", at_ms.max(0))
}

/// 128 bits of the names' hash, in hexadecimal. Lengths delimit the names.
pub(crate) fn name_hash(names: &[&str]) -> String {
    let mut hash = Sha256::new();
    for name in names {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
    }
    hex(&hash.finalize()[..16])
}

/// Fails if an item was written in a format this binary does not know: it must not be partly read.
pub(crate) fn check_format(item: &Item, known: i64, what: &str) -> Result<(), StoreError> {
    match item.int(FORMAT) {
        Some(v) if v == known => Ok(()),
        found => Err(StoreError::new(
            StoreErrorKind::Corrupt,
            format!(
                "{what} has format {}, this binary reads {known}: run a binary that is at least as \
                 new as the one that wrote it",
                found.map_or("none".to_owned(), |v| v.to_string()),
            ),
        )),
    }
}

/// The format attribute, set when an item is created.
pub(crate) fn format(version: i64) -> (Name, Value) {
    (Name::Borrowed(FORMAT), Value::Int(version))
}
