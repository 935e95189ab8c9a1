//! Values packed into bytes that never leave this process: what is seldom looked at takes a
//! fraction of the memory.

use serde::{Deserialize, Serialize};

use crate::directory::{PackedRecord, TenantRecord};

/// Packs parts behind a head.
pub(super) fn packed(head: &[u8], parts: &impl Serialize) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(head);
    let bytes = postcard::to_extend(parts, bytes).expect("plain values always encode");
    bytes.into_boxed_slice()
}

pub(super) fn unpacked<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> T {
    postcard::from_bytes(bytes).expect("bytes packed by this process")
}

/// The directory's record of a tenant in memory. No decision looks at it: its sheet is made from it
/// at an edge or a change.
#[derive(Debug)]
pub(super) struct KeptRecord(Box<[u8]>);

impl KeptRecord {
    pub(super) fn of(record: &TenantRecord) -> Self {
        Self(packed(&[], &record.pack()))
    }

    pub(super) fn unpack(&self) -> TenantRecord {
        unpacked::<PackedRecord<'_>>(&self.0).unpack()
    }
}
