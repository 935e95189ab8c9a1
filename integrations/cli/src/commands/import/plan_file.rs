//! The plan file that an import makes of limits elsewhere. Law: the library reads what is printed.

use std::path::Path;
use std::time::SystemTime;

use tallygate::catalog::{Catalog, PlanErrors};

use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::new_file::NewFile;
use crate::output::{Output, say};

/// A plan file, and what of its source it does not have.
pub(super) struct PlanText {
    pub(super) toml: String,
    pub(super) notes: Vec<String>,
}

/// Whether the library reads this plan file. It names no instant.
pub(super) fn legal(toml: &str) -> Result<Catalog, PlanErrors> {
    Catalog::parse("the plan file", toml, SystemTime::UNIX_EPOCH)
}

impl PlanText {
    /// Prints it, or writes it into a new file.
    pub(super) fn print(&self, out: Output, file: Option<&Path>) -> Ran {
        legal(&self.toml).map_err(|errors| {
            Failure::usage(format!("it makes no legal plan file, so none is written: {errors}"))
        })?;
        let document = || serde_json::json!({ "toml": self.toml, "notes": self.notes });
        match file {
            Some(path) => {
                let file = NewFile::begin(path)?;
                let written = std::io::Write::write_all(&mut file.writer()?, self.toml.as_bytes());
                written.map_err(|error| Failure::of_file(path, &error))?;
                file.finish()?;
                match out.json {
                    true => out.document(&document())?,
                    false => out.line(&path.display().to_string())?,
                }
            }
            None if out.json => out.document(&document())?,
            None => out.whole(&self.toml)?,
        }
        self.notes.iter().for_each(|note| say(&format!("note: {note}")));
        Ok(code::OK)
    }
}
