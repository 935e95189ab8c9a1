//! Tenants and their callers in memory: looked up by each request, and packed into a few bytes
//! while they are idle.

use std::time::Duration;

pub(crate) mod caller;
pub(crate) mod compact;
mod packed;
pub(crate) mod tenant;

/// How long what the directory said is believed, unless the feed of changes vouches for it: every
/// change is seen within it.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(30);

/// How long it is believed at most, whatever vouches for it: a table may have been edited by hand,
/// which no feed announces.
pub(crate) const MAX_VOUCHED: Duration = Duration::from_secs(600);

/// From this age on a tenant is read again in the background, ahead of need.
pub(crate) const REFRESH_AGE: Duration = Duration::from_secs(15);

/// A tenant that could not be read again is asked for no sooner than after this.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::caller::KnownCaller;
    use super::tenant::LiveTenant;
    use crate::directory::TenantRecord;
    use crate::policy::bucket::Bucket;
    use crate::quota::lease::Lease;
    use crate::sheets::sheet::Sheet;
    use crate::sheets::tenant_core::TenantCore;
    use crate::sheets::use_row::UseRow;

    /// What each part of a tenant in memory may take: `tests/cost/memory.rs` counts the whole.
    #[test]
    fn the_parts_of_a_tenant_weigh_what_they_may() {
        let parts = [
            ("its entry and callers", size_of::<LiveTenant>(), 72),
            ("what outlives its sheets", size_of::<TenantCore>(), 112),
            ("sheet", size_of::<Sheet>(), 240),
            ("lease", size_of::<Lease>(), 576),
            ("bucket", size_of::<Bucket>(), 24),
            ("use row", size_of::<UseRow>(), 48),
            ("record", size_of::<TenantRecord>(), 288),
            ("caller", size_of::<KnownCaller>(), 176),
        ];
        for (part, bytes, most) in parts {
            println!("{part}: {bytes} bytes");
            assert!(bytes <= most, "{part}: {bytes} bytes of {most}");
        }
    }
}
