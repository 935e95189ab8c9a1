//! The usage page: one HTML file that fetches `usage` and `usage/history` from its own origin and
//! shows them.
//!
//! It must be served beside `usage` (`/usage-page` next to `/usage`), because its requests are
//! relative to its own address. Laws: it loads nothing but those two, and `usage/keys` where that
//! is served; its policy allows only its one style and its one script, by their hashes; a pasted
//! key is kept in `sessionStorage` only, until the tab is closed.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::wire::{Reply, base64};

const HTML: &str = include_str!("page.html");

/// Where the page says what is served beside it. Neither its style nor its script is touched.
const PLAIN: &str = "<html lang=\"en\">";
const WITH_KEYS: &str = "<html lang=\"en\" data-keys>";

static POLICY: LazyLock<String> =
    LazyLock::new(|| format!("{}; frame-ancestors 'self'", policy_of(HTML)));

/// The page, and the `Content-Security-Policy` that it must be sent with.
pub fn page() -> (&'static [u8], &'static str) {
    (HTML.as_bytes(), &POLICY)
}

/// The page as a response.
pub fn page_reply() -> Reply {
    html_reply(HTML, &POLICY)
}

/// The same with its tab for keys, where `usage/keys` is served beside it.
#[doc(hidden)]
pub fn page_with_keys_reply() -> Reply {
    html_reply(&HTML.replacen(PLAIN, WITH_KEYS, 1), &POLICY)
}

/// A page as a response, with this `Content-Security-Policy`.
pub(crate) fn html_reply(html: &str, policy: &str) -> Reply {
    let headers = vec![
        ("content-type", "text/html; charset=utf-8".to_owned()),
        ("content-security-policy", policy.to_owned()),
        ("cache-control", "no-cache".to_owned()),
        ("referrer-policy", "no-referrer".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ];
    Reply { status: 200, headers, body: html.as_bytes().to_vec() }
}

/// A policy that allows a page its one style, its one script and requests to its own origin.
pub(crate) fn policy_of(html: &str) -> String {
    format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'",
        source(html, "style"),
        source(html, "script")
    )
}

/// A policy that allows a page without a script its one style, and nothing else. For the page of
/// the operator's command, which carries it in itself.
#[doc(hidden)]
pub fn still_policy(html: &str) -> String {
    let style = source(html, "style");
    format!("default-src 'none'; style-src '{style}'; base-uri 'none'; form-action 'none'")
}

/// The hash of a page's only element of this name, as a CSP source (CSP 3, section 2.3.1).
fn source(html: &str, element: &str) -> String {
    let text = between(html, &format!("<{element}>"), &format!("</{element}>"));
    let mut out = String::from("sha256-");
    base64(&Sha256::digest(text), &mut out).expect("writing to a String does not fail");
    out
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    let inner = text.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    inner.map(|(inner, _)| inner).expect("the page has such an element: see its test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_style_one_script_and_nothing_that_its_policy_forbids() {
        for element in ["<style", "</style>", "<script", "</script>"] {
            assert_eq!(HTML.matches(element).count(), 1, "{element}");
        }
        for banned in ["style=", "onclick=", "http://", "https://", "src=", "innerHTML", "eval("] {
            // The SVG namespace is a name, not an address to load.
            let text = HTML.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(banned), "{banned}");
        }
    }

    #[test]
    fn allows_nothing_by_default() {
        let (_, policy) = page();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2);
    }
}
