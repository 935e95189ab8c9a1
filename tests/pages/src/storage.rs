//! docs/storage.md.

use tallygate::{Error, GateBuilder, Restored, SinceCopy};

async fn from_a_backup(builder: GateBuilder) -> Result<Restored, Error> {
    let restored = builder.restore(SinceCopy::Spent).await?;
    Ok(restored)
}
