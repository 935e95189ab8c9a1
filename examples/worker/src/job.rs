//! One delivery of one job: admitted under its id, done, charged, and taken out of the queue.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use tallygate::{Ask, Error, Gate, MeterName};

use crate::queue::{Out, Queue};

/// The operation of a job: `[route.deliver]` of the plan file.
pub(crate) const DELIVER: &str = "deliver";

/// Before another try of what the store could not answer or record.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// What jobs are done with.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) gate: Gate,
    pub(crate) queue: Queue,
    pub(crate) messages: MeterName,
}

/// What becomes of a job.
#[derive(Debug)]
pub(crate) enum Next {
    /// It is out of the queue.
    Out,
    /// It stays there, and is delivered again after this time.
    After(Duration),
}

impl Work {
    /// Does one delivery of a job.
    pub(crate) async fn on(&self, id: &str) -> io::Result<Next> {
        let job = match self.queue.read(id).await {
            Ok(job) => job,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Next::Out),
            Err(error) => return self.out(id, Out::Failed, &error).await,
        };
        let tenant = match self.gate.tenant(&job.tenant).await {
            Ok(tenant) => tenant,
            Err(error @ Error::NoTenant(_)) => return self.out(id, Out::Failed, &error).await,
            Err(_) => return Ok(Next::After(STORE_AGAIN)),
        };

        // All of its units, or none. Under a rate or `concurrency` it waits as well.
        let ask = Ask::new(&tenant, DELIVER).cost(&self.messages, job.messages).once(id);
        let permit = match self.gate.admit(ask).await {
            Ok(permit) => permit,
            Err(refusal) => match refusal.retry_after {
                Some(wait) => {
                    tracing::info!(id, ?wait, "refused for now: {refusal}");
                    return Ok(Next::After(wait));
                }
                None => return self.out(id, Out::Refused, &refusal).await,
            },
        };
        if permit.is_repeat() {
            permit.settle(); // charges nothing
            return self.out(id, Out::Done, &"was charged before").await;
        }
        tracing::info!(id, "begun");
        if !self.queue.deliver(&job).await? {
            permit.cancel(); // nothing is charged
            return self.out(id, Out::Failed, &"there is no such place").await;
        }

        // Charged once for this id, and only then out of the queue: whatever dies in between, the
        // next delivery is charged, or finds it charged.
        permit.settle();
        while let Err(error) = self.gate.flush_now().await {
            tracing::warn!(id, "not on record yet: {error}");
            tokio::time::sleep(STORE_AGAIN).await;
        }
        self.out(id, Out::Done, &"done").await
    }

    async fn out(&self, id: &str, out: Out, why: &(dyn Display + Sync)) -> io::Result<Next> {
        tracing::info!(id, "{out:?}: {why}");
        self.queue.take_out(id, out).await?;
        Ok(Next::Out)
    }
}
