//! A key of another system: only long ones, that callers can present, and that are not taken for
//! keys of this library's own form.

use sha2::{Digest as _, Sha256};
use toml::Value;

use crate::commands::key::sha256;
use crate::settings::Settings;

/// Least characters of a key: what API Gateway asks for. The SHA-256 of a short one is guessed.
const LEAST: usize = 20;
/// Most bytes of one: longer ones are refused unread.
const MOST: usize = 4 * 1024;

/// The prefixes of keys that the library makes for this service.
pub(super) fn prefixes(settings: &Settings) -> Vec<String> {
    let ways = settings.table.get("identify").and_then(Value::as_array);
    let own = ways.into_iter().flatten().filter_map(|way| way.get("prefix")?.as_str());
    own.map(str::to_owned).chain(["tg_".to_owned()]).collect()
}

/// The hash of a key in plain text. The error does not repeat it.
pub(super) fn hash(key: &str, prefixes: &[String]) -> Result<[u8; 32], String> {
    if key.len() < LEAST {
        return Err(format!(
            "its key has fewer than {LEAST} characters, so its SHA-256 could be guessed: leave it \
             out, and make a new one"
        ));
    }
    if key.len() > MOST || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("its key is not {LEAST} to {MOST} visible characters of ASCII"));
    }
    let is_ours = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if let Some(prefix) = prefixes.iter().find(|it| key.strip_prefix(*it).is_some_and(is_ours)) {
        return Err(format!(
            "its key begins with {prefix:?} as keys that are made here do, and would be refused \
             for its checksum: make a new one"
        ));
    }
    Ok(Sha256::digest(key).into())
}

/// A hash in hexadecimal digits.
pub(super) fn hashed(text: &str) -> Result<[u8; 32], String> {
    sha256(text).map_err(|_| "its key_sha256 is not 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_that_can_be_presented_and_no_error_has_it() {
        let prefixes = ["acme_live_".to_owned(), "tg_".to_owned()];
        assert!(hash("apikey1234abcdefghij0123456789", &prefixes).is_ok());
        assert!(hash("tg_demo_1234567890123456", &prefixes).is_ok(), "no key of ours");
        for wrong in [
            "short",
            "with a space 1234567890",
            "tab\t234567890123456789",
            "ümlaut4567890123456789",
            "tg_4567890123456789abcdef",
            "acme_live_4567890123456789abcdef",
            &"x".repeat(MOST + 1),
        ] {
            let why = hash(wrong, &prefixes).unwrap_err();
            assert!(!why.contains(wrong), "{why}");
        }
        assert!(hashed("12ab").is_err() && hashed(&"0".repeat(64)).is_ok());
    }
}
