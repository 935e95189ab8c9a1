//! Tenants and their callers in memory: looked up by each request, and packed into a few bytes
//! while they are idle.

use std::time::Duration;

pub(crate) mod caller;
pub(crate) mod compact;
pub(crate) mod tenant;

/// How long what the directory said is believed: every change is seen within it.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(30);

/// From this age on a tenant is read again in the background, ahead of need.
pub(crate) const REFRESH_AGE: Duration = Duration::from_secs(15);

/// A tenant that could not be read again is asked for no sooner than after this.
pub(crate) const RETRY: Duration = Duration::from_secs(5);
