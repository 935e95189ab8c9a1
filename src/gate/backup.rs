//! A backup of the store's file while the gate serves.

use std::path::PathBuf;

use super::Gate;
use crate::error::Error;

impl Gate {
    /// Writes all that the store holds into a new file, while requests go on: usage so far, in this
    /// process, is flushed first. The file appears under its name once it was written, synced, and
    /// read again. Returns the number of items. `tallygate restore` puts it in the store's place;
    /// the pepper is not in it.
    ///
    /// ```no_run
    /// # async fn example(gate: tallygate::Gate) -> Result<(), tallygate::Error> {
    /// let items = gate.backup("/backup/tallygate-2026-11-27.redb").await?;
    /// println!("{items} items");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The store is not a redb file, a file of this name is there, an item is damaged, or the disk
    /// fails: then there is no file of this name.
    pub async fn backup(&self, file: impl Into<PathBuf>) -> Result<u64, Error> {
        let inner = &self.inner;
        inner.recording.flusher.flush_now().await?;
        Ok(inner.leasing.ctx.store.back_up(file.into()).await?.items)
    }
}
