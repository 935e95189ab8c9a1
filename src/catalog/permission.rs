//! The names of permissions, for which a route asks with `needs-permission`.
//!
//! OAuth calls them scopes. Here a scope says whose a limit is (`per user`), so these have the
//! other name that authorization servers use.

/// Most characters of a permission's name.
const MAX_PERMISSION: usize = 64;

/// What a file says that has another text in its place.
pub(crate) const NOT_A_PERMISSION: &str =
    "a permission is 1 to 64 visible characters of ASCII, without a space, `\"` and `\\`";

/// Whether this is the name of a permission: what RFC 6749 (section 3.3) takes for a scope, so that
/// those of a token can be asked for.
pub(crate) fn is_permission(name: &str) -> bool {
    let legal = |byte: u8| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    (1..=MAX_PERMISSION).contains(&name.len()) && name.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_token_can_carry() {
        let longest = "p".repeat(MAX_PERMISSION);
        for name in ["write", "invoices:write", "https://example.com/a", &longest] {
            assert!(is_permission(name), "{name:?}");
        }
        let longer = longest.clone() + "p";
        for name in ["", "a b", "a\"", "a\\", "a\n", "für", &longer] {
            assert!(!is_permission(name), "{name:?}");
        }
    }
}
