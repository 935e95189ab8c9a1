//! Tenants as the host's own tables have them, asked beside the directory: see
//! [`TenantSource`](crate::directory::TenantSource).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::callers::LOOK_UP_WAIT;
use super::tenants::{ByTenant, FromHost, Tenants};
use crate::directory::{DirectoryError, TenantRecord, name_tag};
use crate::identity::is_own_id;
use crate::ids::Surrogate;
use crate::patience;
use crate::repeated::repeated;
use crate::store::{StoreError, StoreErrorKind};

fn silent() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "the host's tables do not answer")
}

/// Does `work` for a tenant once for all who ask for it at the same time, and waits no longer for
/// the task that does it.
///
/// Where that one has left in vain and the next is late itself, this does not begin anew: each who
/// waits would ask tables that are silent once more, just before it leaves, too.
///
/// `work` is boxed: each future around it would hold it twice.
async fn once<T: Clone>(
    under_way: &ByTenant<T>,
    id: &str,
    wait: Duration,
    work: Pin<Box<impl Future<Output = Result<T, StoreError>>>>,
) -> Result<T, StoreError> {
    let begun = patience::begun_within(LOOK_UP_WAIT / 2, work);
    let work = async { begun.await.ok_or_else(silent)? };
    let done = patience::within(wait, under_way.once(&name_tag(id), work)).await;
    done.ok_or_else(silent)?
}

impl Tenants {
    /// Whether the host's tables decide about the tenant of this name.
    pub(super) fn is_hosts(&self, id: &str) -> bool {
        self.source.is_some() && !is_own_id(id)
    }

    /// Asks the host's tables, within bounds: one question at a time about a tenant.
    pub(super) async fn ask_host(&self, id: &str) -> Result<FromHost, StoreError> {
        let Some(source) = self.source.as_ref().filter(|_| self.is_hosts(id)) else {
            return Ok(FromHost::Unasked);
        };
        let asks = Box::pin(async {
            let answer = patience::within(LOOK_UP_WAIT, source.tenant(id)).await;
            Ok(answer.ok_or_else(silent)??.map_or(FromHost::Missing, FromHost::Says))
        });
        once(&self.asks, id, LOOK_UP_WAIT, asks).await
    }

    /// Makes a tenant of the host's in the directory; `None`: the host has none of this name. Once
    /// for all who wait for it: each of a tenant's callers is looked up by itself, and a new
    /// tenant's come together.
    pub(super) async fn made_as_host_says(
        &self,
        id: &str,
    ) -> Result<Option<Surrogate>, StoreError> {
        let makes = Box::pin(async {
            let FromHost::Says(host) = self.ask_host(id).await? else { return Ok(None) };
            let made = self.directory.take_over(id, &host, None).await;
            Ok(self.made(made)?.map(|tenant| tenant.record().surrogate))
        });
        // The answer, and what is written of it.
        once(&self.makes, id, LOOK_UP_WAIT * 2, makes).await
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
                const TEXT: &str = "what the host's tables say of a tenant could not be written: \
                                    it stays as the directory has it until they are asked again";
                repeated!(error, now_ms, TEXT; tenant = %record.id, %error);
                Ok(Some(record))
            }
        }
    }
}
