//! The operators' own tokens: who has one, and the end of one that has leaked.
//!
//! None is made here: a token that was stolen could outlive its revocation by another one.

use serde_json::json;

use super::change::How;
use super::{Admin, written};
use crate::directory::{Directory, DirectoryError};
use crate::wire::Reply;

impl Admin {
    pub(super) async fn operators(&self) -> Result<Reply, Reply> {
        let operators = self.gate.directory().operators().await;
        let operators = operators.map_err(|error| self.refused(&error.into()))?;
        let operators: Vec<_> = operators.iter().map(written::operator).collect();
        Ok(written::json(200, &json!({ "operators": operators })))
    }

    pub(super) async fn operators_history(&self) -> Result<Reply, Reply> {
        let history = self.gate.directory().operators_history().await;
        let history = history.map_err(|error| self.refused(&error.into()))?;
        let entries: Vec<_> = history.iter().map(written::entry).collect();
        Ok(written::json(200, &json!({ "history": entries })))
    }

    pub(super) async fn revoke_operator(
        &self,
        directory: &Directory,
        id: &str,
        how: How<'_>,
    ) -> Result<Reply, Reply> {
        let refused = |error: DirectoryError| self.refused(&error.into());
        if how.dry {
            let operators = directory.operators().await.map_err(refused)?;
            let found = operators.iter().find(|it| it.token.id == id);
            let found = found.ok_or_else(|| refused(DirectoryError::NoKey(id.to_owned())))?;
            let shown = json!({ "dry-run": true, "operator": written::operator(found) });
            return Ok(written::json(200, &shown));
        }
        directory.revoke_operator(id).await.map_err(refused)?;
        Ok(written::json(200, &json!({ "id": id, "state": "revoked" })))
    }
}
