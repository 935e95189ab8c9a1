//! An example's files in a folder of a test's own.

use std::path::{Path, PathBuf};

/// A folder with the plan file of an example, and its service file if it has one, which a test may
/// edit.
#[derive(Debug)]
pub struct Home(tempfile::TempDir);

impl Home {
    /// Of the example in this folder: `env!("CARGO_MANIFEST_DIR")`.
    pub fn of(example: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::copy(Path::new(example).join("plans.toml"), home.path().join("plans.toml"))
            .unwrap();
        // Not every example has one.
        let service = Path::new(example).join("tallygate.toml");
        if service.exists() {
            std::fs::copy(service, home.path().join("tallygate.toml")).unwrap();
        }
        Self(home)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// A file in it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder().join(file)
    }

    /// The text of a file in it.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }

    /// Replaces words of the plan file.
    #[track_caller]
    pub fn edit_plans(&self, from: &str, to: &str) {
        let text = self.read("plans.toml");
        assert!(text.contains(from), "the plan file has no `{from}`");
        std::fs::write(self.path("plans.toml"), text.replace(from, to)).unwrap();
    }
}
