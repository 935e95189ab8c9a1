//! The console: one HTML page at the root of the operator's routes, which asks for a token and
//! shows what they answer.
//!
//! Laws: it loads nothing but the routes beside it; its policy allows only its one style and its
//! one script, by their hashes, no markup made of text, and no frame around it; a token is kept in
//! the page's memory alone, so that no other page of the origin finds it, and a reload forgets it.

use std::sync::LazyLock;

use super::Admin;
use crate::report::{html_reply, policy_of};
use crate::wire::Reply;

pub(super) const HTML: &str = include_str!("console.html");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let own = policy_of(HTML);
    format!(
        "{own}; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
});

impl Admin {
    /// The console, if this is a request for it: a `GET` of the root. An adapter asks this before
    /// it asks for a token, which the page needs none of. For adapters.
    #[doc(hidden)]
    pub fn console(&self, method: &str, path: &str) -> Option<Reply> {
        let is_root = matches!(path, "" | "/") && matches!(method, "GET" | "HEAD");
        is_root.then(|| {
            let mut reply = html_reply(HTML, &POLICY);
            reply.headers.push(("cross-origin-opener-policy", "same-origin".to_owned()));
            reply
        })
    }
}
