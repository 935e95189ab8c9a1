//! Opens the store that the service file names, or reports what to write if the program has to make
//! it.

use std::sync::Arc;

use crate::config::StoreKind;
use crate::error::Error;
use crate::store::{Memory, Store};

/// Opens the store of the service file, where the host has handed in none.
pub(super) async fn open(kind: &StoreKind) -> Result<Arc<dyn Store>, Error> {
    match kind {
        StoreKind::Memory => Ok(Arc::new(Memory::new())),
        #[cfg(feature = "redb")]
        StoreKind::Redb { path } => {
            let path = path.clone();
            // Opening may repair a file after a crash, which takes as long as the file is large.
            let opened = tokio::task::spawn_blocking(move || crate::store::Redb::open(path)).await;
            let opened = opened.map_err(|e| Error::Config(format!("opening the store: {e}")))?;
            Ok(Arc::new(opened?))
        }
        #[cfg(not(feature = "redb"))]
        StoreKind::Redb { .. } => Err(Error::Config(
            "store.kind = \"redb\" needs the feature `redb` of tallygate, which is off".into(),
        )),
        StoreKind::Dynamodb { table } => Err(Error::Config(no_client(table))),
    }
}

/// The error for a store that is a table, with what to write: the host makes its client.
fn no_client(table: &str) -> String {
    let feature = match cfg!(feature = "dynamodb") {
        true => "",
        false => " (feature `dynamodb` of tallygate, which is off in this program)",
    };
    format!(
        "store.kind = \"dynamodb\" needs a client of the program's own{feature}: instead of \
         `Gate::open(file)`, write\n  \
         Gate::builder(file).store(DynamoDb::new(client, {table:?})).open().await\n\
         where `client` is the AWS SDK's for DynamoDB"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_table_without_a_client_says_what_to_write() {
        let kind = StoreKind::Dynamodb { table: "acme-quotas".into() };
        let Err(error) = open(&kind).await else { panic!("there is no client") };
        assert!(error.to_string().contains("DynamoDb::new(client, \"acme-quotas\")"), "{error}");
    }
}
