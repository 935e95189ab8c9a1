//! Readings of a service that runs, by the operator's routes.

use serde_json::Value;

use super::Reading;
use super::outbox::{self, Seldom};
use crate::args::Top;
use crate::client::Client;
use crate::failure::Failure;

/// Refusals of a reading.
const REFUSALS: usize = 50;
/// Items of the outbox of a reading: each is a read of the store.
const ITEMS: usize = 200;

/// A reader of the routes at one place.
#[derive(Clone)]
pub(super) struct ServiceReader {
    client: Client,
    limit: u64,
    outbox: Seldom,
}

impl ServiceReader {
    pub(super) fn new(client: Client, what: &Top) -> Self {
        Self { client, limit: what.limit, outbox: Seldom::default() }
    }

    /// Asks three routes, one after the other, on one connection; and that of the outbox, which may
    /// take longer, beside them.
    pub(super) async fn read(&self) -> Result<Reading, Failure> {
        let billing = async {
            let page = self.client.get(&format!("/billing?limit={ITEMS}")).await?;
            Ok(outbox::of_page(&page))
        };
        let (read, outbox) = tokio::join!(self.routes(), self.outbox.read(billing));
        let (health, top, refusals) = read?;
        Ok(Reading::of_service(self.client.shown(), health, top, refusals, outbox))
    }

    async fn routes(&self) -> Result<(Value, Value, Value), Failure> {
        let health = self.client.get("/health").await?;
        let top = self.client.get(&format!("/top?limit={}", self.limit)).await?;
        let refusals = self.client.get(&format!("/refusals?limit={REFUSALS}")).await?;
        Ok((health, top, refusals))
    }
}
