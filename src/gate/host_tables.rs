//! Tenants as the host's own tables have them, asked beside the directory: see
//! [`TenantSource`](crate::directory::TenantSource).

use std::sync::Arc;

use super::callers::LOOK_UP_WAIT;
use super::tenants::Tenants;
use crate::directory::{DirectoryError, HostTenant, TenantRecord};
use crate::identity::is_own_id;
use crate::patience;
use crate::repeated::repeated;
use crate::store::{StoreError, StoreErrorKind};

/// What the host's tables say of a tenant.
pub(super) enum FromHost {
    /// There are none, or it is none of the host's tenants: the directory alone decides.
    Unasked,
    /// The host has no such tenant.
    Missing,
    Says(HostTenant),
}

impl Tenants {
    /// Asks the host's tables, within bounds.
    pub(super) async fn ask_host(&self, id: &str) -> Result<FromHost, StoreError> {
        let Some(source) = self.source.as_ref().filter(|_| !is_own_id(id)) else {
            return Ok(FromHost::Unasked);
        };
        let Some(answer) = patience::within(LOOK_UP_WAIT, source.tenant(id)).await else {
            let message = "the host's tables do not answer";
            return Err(StoreError::new(StoreErrorKind::Unavailable, message));
        };
        Ok(answer?.map_or(FromHost::Missing, FromHost::Says))
    }

    /// A record as the directory has it, brought to what the host's tables say; `None`: the host
    /// has no such tenant any more.
    pub(super) async fn as_host_says(
        &self,
        record: Arc<TenantRecord>,
    ) -> Result<Option<Arc<TenantRecord>>, StoreError> {
        let host = match self.ask_host(&record.id).await? {
            FromHost::Unasked => return Ok(Some(record)),
            FromHost::Missing => return Ok(None),
            FromHost::Says(host) => host,
        };
        match self.directory.take_over(&record.id, &host, Some(&record)).await {
            Ok(None) => Ok(Some(record)),
            Ok(Some(saved)) => {
                // What is no part of the record's versions.
                let mut saved = (**saved.record()).clone();
                saved.first_request_ms = saved.first_request_ms.or(record.first_request_ms);
                Ok(Some(Arc::new(saved)))
            }
            Err(DirectoryError::Store(error)) => Err(error),
            Err(error) => {
                let now_ms = self.clock.now().wall_ms;
                const TEXT: &str = "what the host's tables say of a tenant cannot be: it stays as \
                                    the directory has it";
                repeated!(error, now_ms, TEXT; tenant = %record.id, %error);
                Ok(Some(record))
            }
        }
    }
}
