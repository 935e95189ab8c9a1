//! Credits that are paid in advance.

use tallygate::Gate;
use tallygate::directory::{DirectoryError, Grant};

pub async fn paid(gate: &Gate, tenant: &str, order: &str) -> Result<(), DirectoryError> {
    let pack = Grant::new(order, "credits", 500);
    gate.directory().tenant(tenant).grant(pack).note("paid by wire").save().await?;
    Ok(())
}
