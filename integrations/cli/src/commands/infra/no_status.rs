//! `infra status` of a build without DynamoDB. Tests compile it in every build.

use crate::failure::Failure;
use crate::service::no_dynamodb;
use crate::settings::{Settings, StoreAt};

/// What is said instead.
pub(super) fn why(settings: &Settings) -> Failure {
    match settings.store() {
        StoreAt::Dynamodb(_) => no_dynamodb(),
        _ => super::no_table(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::code;

    #[test]
    fn it_says_which_build_has_it_or_that_there_is_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tallygate.toml");
        let why_of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            why(&Settings::read(&path).unwrap())
        };
        let table = why_of("[store]\nkind = \"dynamodb\"\ntable = \"t\"\n");
        assert_eq!(table.code, code::FILE);
        assert!(table.text.contains("cargo install tallygate-cli --features dynamodb"));
        let file = why_of("[store]\nkind = \"redb\"\n");
        assert_eq!(file.code, code::FILE);
        assert!(file.text.contains("the service file has no table"), "{}", file.text);
    }
}
