//! docs/existing-app.md: work that is no request.

use std::time::Duration;

use tallygate::{Ask, Error, Gate};

pub struct Job {
    pub tenant: String,
    pub fails: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Ran {
    Done,
    Failed,
    /// Refused: again after this, or not before something is bought.
    Later(Option<Duration>),
}

async fn render(job: &Job) -> Result<(), ()> {
    if job.fails { Err(()) } else { Ok(()) }
}

pub async fn run(gate: &Gate, job: &Job) -> Result<Ran, Error> {
    let tenant = gate.tenant(&job.tenant).await?;
    let permit = match gate.admit(Ask::new(&tenant, "render").cost("renders", 1)).await {
        Ok(permit) => permit,
        Err(refusal) => return Ok(Ran::Later(refusal.retry_after)), // `None`: waiting does not help
    };
    Ok(match render(job).await {
        Ok(()) => {
            permit.settle();
            Ran::Done
        }
        Err(()) => {
            permit.cancel(); // the unit goes back
            Ran::Failed
        }
    })
}
