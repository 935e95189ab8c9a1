//! Tenants and their callers: the directory, what of it is in memory, and the look-ups under way.
//! How they are looked up is in `callers.rs` and `lookup.rs`, how they are compacted in `idle.rs`.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::mpsc;

use super::callers::{LoadFailed, READS, READS_IN_HAND, Refresh};
use super::guests::Guests;
use super::idle::IdleTenants;
use super::news::Recent;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::flights::Flights;
use crate::ids::Surrogate;
use crate::patience::Progress;
use crate::places::Places;
use crate::tenants::caller::KnownCaller;
use crate::tenants::tenant::LiveTenant;

/// A credential's key is a keyed hash already: its low bits are its place in a map.
pub(crate) type ByCredential = std::hash::BuildHasherDefault<Low64>;

/// See [`ByCredential`].
#[derive(Debug, Default)]
pub(crate) struct Low64(u64);

impl std::hash::Hasher for Low64 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// See the [module](self).
pub(crate) struct Tenants {
    pub(crate) directory: Directory,
    /// By their credential's key.
    pub(crate) callers: DashMap<u128, Arc<KnownCaller>, ByCredential>,
    pub(crate) active: DashMap<Surrogate, Arc<LiveTenant>>,
    pub(crate) idle: IdleTenants,
    pub(super) guests: Guests,
    /// Changes that this process has heard of.
    pub(super) recent: Recent,
    /// Places for look-ups of callers, by tenant or address.
    pub(super) reads: Places,
    /// Look-ups under way, so that one serves all who wait for it.
    pub(super) loads: Flights<u128, Result<(), LoadFailed>>,
    pub(crate) refreshes: mpsc::Sender<Refresh>,
}

impl Tenants {
    /// None in memory yet.
    pub(super) fn new(
        directory: Directory,
        clock: Arc<dyn Clock>,
        refreshes: mpsc::Sender<Refresh>,
    ) -> Self {
        Self {
            directory,
            callers: DashMap::default(),
            active: DashMap::default(),
            idle: IdleTenants::default(),
            guests: Guests::new(clock),
            recent: Recent::default(),
            reads: Places::new(READS, READS_IN_HAND),
            loads: Flights::default(),
            refreshes,
        }
    }

    /// How far the line of look-ups has come.
    pub(super) fn line_of_reads(&self) -> Progress {
        Progress { is_in_line: true, of_line: self.reads.answered(), own: 0 }
    }
}
