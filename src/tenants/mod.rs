//! Tenants and their callers in memory: looked up by each request, and packed into a few bytes
//! while they are idle.

use std::time::Duration;

pub(crate) mod caller;
pub(crate) mod compact;
pub(crate) mod tenant;

/// How long what the directory said is believed, unless the feed of changes vouches for it: every
/// change is seen within it.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(30);

/// How long it is believed at most, whatever vouches for it: somebody may have written to the table
/// by hand.
pub(crate) const MAX_VOUCHED: Duration = Duration::from_secs(600);

/// From this age on a tenant is read again in the background, ahead of need.
pub(crate) const REFRESH_AGE: Duration = Duration::from_secs(15);

/// A tenant that could not be read again is asked for no sooner than after this.
pub(crate) const RETRY: Duration = Duration::from_secs(5);
