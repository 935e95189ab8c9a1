//! README.md: work that is no HTTP request.

use tallygate::{Ask, Error, Gate};

async fn deliver() {}

async fn work(gate: Gate) -> Result<(), Error> {
    let acme = gate.tenant("acme").await?;
    match gate.admit(Ask::new(&acme, "deliver").cost("deliveries", 1)).await {
        Ok(permit) => {
            deliver().await;
            permit.settle();
        }
        Err(refusal) => tracing::info!("not delivered: {refusal}"),
    }
    Ok(())
}
