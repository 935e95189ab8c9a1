//! One delivery of one job: admitted, done, charged by its id, and taken out of the queue.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use tallygate::ingest::{NotCounted, UsageEvent};
use tallygate::{Ask, Error, Gate, MeterName};

use crate::queue::{Job, Out, Queue};

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
        let ask = Ask::new(&tenant, "deliver").cost(&self.messages, job.messages);
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
        tracing::info!(id, "begun");
        if !self.queue.deliver(&job).await? {
            permit.cancel(); // nothing is charged
            return self.out(id, Out::Failed, &"there is no such place").await;
        }

        // Charged once for this id, and only then out of the queue: whatever dies in between, the
        // next delivery finds it charged. What the permit holds goes back first, so that it pays
        // for the event, and no overage does.
        permit.cancel();
        match self.charge(&job).await {
            Ok(()) => self.out(id, Out::Done, &"done").await,
            Err(error) => self.out(id, Out::Failed, &error).await,
        }
    }

    /// Returns when the job is charged, by this delivery or an earlier one.
    async fn charge(&self, job: &Job) -> Result<(), NotCounted> {
        let event = UsageEvent::new(&job.id, &job.tenant, self.messages.as_ref(), job.messages);
        loop {
            match self.gate.ingest().events(vec![event.clone()]).await.pop() {
                Some(Err(error)) if !error.is_retryable() => return Err(error),
                Some(Ok(_)) => return Ok(()),
                _ => tokio::time::sleep(STORE_AGAIN).await,
            }
        }
    }

    async fn out(&self, id: &str, out: Out, why: &(dyn Display + Sync)) -> io::Result<Next> {
        tracing::info!(id, "{out:?}: {why}");
        self.queue.take_out(id, out).await?;
        Ok(Next::Out)
    }
}
