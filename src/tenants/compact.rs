//! An idle tenant or caller, packed into a few bytes. Its leases keep what they hold, its use row
//! goes on where it stopped, and its directory record is there for as long as the store is away.
//! Nothing of it is in use, so packing loses nothing; the next request restores it.
//!
//! Why not forget a tenant after a minute instead: one that calls every two minutes would give its
//! lease back and take another for each call. That costs 3.2 times the written units and 1.4 times
//! the reads (docs/cost.md), and each of those calls would wait for the store.
//!
//! The bytes are this process's own and never leave it.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::directory::PackedRecord;
use crate::holders::{Holder, is_held_only_by};
use crate::identity::Permissions;
use crate::ids::{Surrogate, WriterId};
use crate::policy::resolve::LiveCatalog;
use crate::policy::scoped::ScopeValues;
use crate::quota::lease::Lease;
use crate::quota::lease::at_rest::LeaseAtRest;
use crate::sheets::hub::Hub;
use crate::sheets::sheet::Sheet;
use crate::sheets::tenant_core::TenantCore;
use crate::sheets::use_row::RowAtRest;
use crate::tenants::caller::KnownCaller;
use crate::tenants::packed::{packed, unpacked};
use crate::tenants::tenant::{LiveTenant, Woken};

/// Bytes before a tenant's parts: when the directory was read, until when units are held, and the
/// change that revoked a key of it last.
const HEAD: usize = 24;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct CompactTenant(Box<[u8]>);

/// The parts that are packed.
#[derive(Serialize, Deserialize)]
struct CompactParts<'a> {
    record: PackedRecord<'a>,
    incarnation: WriterId,
    epoch: u64,
    row: RowAtRest,
    leases: Vec<LeaseAtRest>,
}

impl CompactTenant {
    /// Packs a tenant that only its table holds. `None`: something of it is in use, or not recorded
    /// yet.
    ///
    /// The caller keeps others from getting at the table's entry meanwhile.
    pub(crate) fn of(tenant: &Arc<LiveTenant>, hub: &Hub, now: Now) -> Option<Self> {
        let sheet = tenant.last_sheet();
        let is_alone = is_held_only_by(tenant, [Holder::Table]) && sheet.is_ours_alone();
        let is_current =
            sheet.incarnation == hub.incarnation.current() && !hub.incarnation.is_sealed();
        if !is_alone || !is_current || !tenant.core.is_idle() || !sheet.is_at_rest(now) {
            return None;
        }
        let leases = tenant.core.leases_at_rest(&sheet)?;
        let until_ms = leases.iter().filter_map(LeaseAtRest::unused_until_ms).max();
        let row = sheet.row.at_rest()?;
        let record = tenant.record();
        let parts = CompactParts {
            record: record.pack(),
            incarnation: sheet.incarnation,
            epoch: sheet.epoch,
            row,
            leases,
        };
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&tenant.read_ns().to_le_bytes());
        head[8..16].copy_from_slice(&until_ms.unwrap_or(i64::MIN).to_le_bytes());
        head[16..].copy_from_slice(&tenant.keys_since().to_le_bytes());
        Some(Self(packed(&head, &parts)))
    }

    /// The tenant again, as it was.
    pub(crate) fn wake(self, live: &LiveCatalog, hub: &Arc<Hub>, now: Now) -> Arc<LiveTenant> {
        let CompactParts { record, incarnation, epoch, row, leases } = self.parts();
        let record = Arc::new(record.unpack());
        let read_ns = self.read_ns();
        let woken = Woken { record, read_ns, incarnation, epoch, row, leases };
        let tenant = LiveTenant::wake(woken, live, hub, now);
        tenant.revoked(self.keys_since());
        Arc::new(tenant)
    }

    /// A key of it was revoked, with the change of this number.
    pub(crate) fn revoked(&mut self, change: u64) {
        let change = change.max(self.keys_since());
        self.0[16..HEAD].copy_from_slice(&change.to_le_bytes());
    }

    fn keys_since(&self) -> u64 {
        u64::from_le_bytes(word(&self.0, 16))
    }

    /// When the directory was read, on the monotonic clock.
    pub(crate) fn read_ns(&self) -> u64 {
        u64::from_le_bytes(word(&self.0, 0))
    }

    /// Until when it holds unused units: the latest end of their windows.
    pub(crate) fn unused_until_ms(&self) -> i64 {
        i64::from_le_bytes(word(&self.0, 8))
    }

    /// Under which incarnation it leases.
    pub(crate) fn incarnation(&self) -> WriterId {
        self.parts().incarnation
    }

    /// Whether it has leases that are to be given back before it is forgotten.
    pub(crate) fn has_leases(&self) -> bool {
        !self.parts().leases.is_empty()
    }

    fn parts(&self) -> CompactParts<'_> {
        unpacked(&self.0[HEAD..])
    }
}

/// An idle caller, packed: when it was looked up, and then whose credential it is.
#[derive(Debug)]
pub(crate) struct CompactCaller(Box<[u8]>);

type CallerParts<'a> = (Surrogate, Cow<'a, ScopeValues>, i64, u64, &'a str);

impl CompactCaller {
    pub(crate) fn of(caller: &KnownCaller) -> Self {
        let (surrogate, values) = (caller.tenant.core.surrogate, Cow::Borrowed(&caller.values));
        let permissions = caller.permissions().map_or("", Permissions::as_str);
        let parts: CallerParts<'_> =
            (surrogate, values, caller.expires_ms, caller.as_of, permissions);
        Self(packed(&caller.looked_up_ns().to_le_bytes(), &parts))
    }

    /// Whose credential it is, in which scopes, when it ends by itself, how many changes had been
    /// heard of when it was looked up, and what it may do.
    pub(crate) fn wake(self) -> (Surrogate, ScopeValues, i64, u64, Permissions) {
        let parts: CallerParts<'_> = unpacked(&self.0[8..]);
        (parts.0, parts.1.into_owned(), parts.2, parts.3, Permissions::of(parts.4))
    }

    /// When it was looked up, on the monotonic clock.
    pub(crate) fn looked_up_ns(&self) -> u64 {
        u64::from_le_bytes(word(&self.0, 0))
    }
}

fn word(bytes: &[u8], at: usize) -> [u8; 8] {
    bytes[at..at + 8].try_into().expect("eight bytes")
}

impl TenantCore {
    fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0 && self.waiting.load(Ordering::Acquire) == 0
    }

    /// All leases that hold units or a debt, if each is here alone and at rest.
    fn leases_at_rest(&self, sheet: &Sheet) -> Option<Vec<LeaseAtRest>> {
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let at_rest = |lease: &Arc<Lease>| {
            let is_ours = match sheet.has(lease) {
                true => is_held_only_by(lease, [Holder::Tenant, Holder::Sheet]),
                false => is_held_only_by(lease, [Holder::Tenant]),
            };
            let is_current = lease.incarnation() == sheet.incarnation;
            if is_ours && is_current { lease.at_rest() } else { None }
        };
        leases.iter().map(at_rest).collect()
    }
}
