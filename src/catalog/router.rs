//! Which route a request is on.
//!
//! `matchit` patterns, one router per method: the most specific pattern wins, a trailing slash
//! makes another pattern, and HEAD counts as GET. A path is percent-decoded before it is matched,
//! segment by segment: an encoded slash stays within its segment. What cannot be decoded stays as
//! it came (a byte that is no UTF-8 as U+FFFD), so that no spelling of a path that still reaches a
//! handler leaves its route.
//!
//! A path without `%` is matched in place, without allocating (up to four parameters).

use std::borrow::Cow;
use std::fmt;
use std::ops::Index;

use super::model::{Route, RouteId};

/// The routes of a catalog.
#[derive(Clone, Default)]
pub struct Routes {
    routes: Vec<Route>,
    patterns: Vec<Vec<String>>,
    /// GET first, where there is one; a handful at most.
    methods: Vec<(Box<str>, matchit::Router<RouteId>)>,
}

impl Routes {
    /// The route of a request, by its method and its path as it came: still percent-encoded, and
    /// without the query.
    pub fn find(&self, method: &str, path: &str) -> Option<RouteId> {
        let method = if method == "HEAD" { "GET" } else { method };
        let (_, router) = self.methods.iter().find(|(known, _)| **known == *method)?;
        router.at(&decode(path)).ok().map(|found| *found.value)
    }

    /// The route with this name in the file.
    pub fn named(&self, name: &str) -> Option<RouteId> {
        self.iter().find(|(_, route)| *route.name == *name).map(|(id, _)| id)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (RouteId, &Route)> {
        self.routes.iter().enumerate().map(|(n, route)| (RouteId(n as u16), route))
    }

    /// All of them, by [`RouteId`].
    pub fn as_slice(&self) -> &[Route] {
        &self.routes
    }

    /// What a route matches, as in the file: `GET /v1/search`.
    pub fn patterns(&self, route: RouteId) -> &[String] {
        self.patterns.get(usize::from(route.0)).map_or(&[], Vec::as_slice)
    }

    /// Adds a route; its patterns follow with [`Routes::insert`].
    pub(super) fn push(&mut self, route: Route) -> RouteId {
        let id = RouteId(self.routes.len() as u16);
        self.routes.push(route);
        self.patterns.push(Vec::new());
        id
    }

    /// Adds a pattern of a route; fails with what is wrong and what to write instead.
    pub(super) fn insert(&mut self, route: RouteId, text: &str) -> Result<(), (String, String)> {
        let (method, path) = split(text)?;
        let at = match self.methods.iter().position(|(known, _)| **known == *method) {
            Some(at) => at,
            None => {
                let at = if method == "GET" { 0 } else { self.methods.len() };
                self.methods.insert(at, (method.into(), matchit::Router::new()));
                at
            }
        };
        self.methods[at].1.insert(path, route).map_err(|error| match error {
            matchit::InsertError::Conflict { with } => (
                format!("the pattern `{text}` matches the same requests as `{method} {with}`"),
                "leave one of them out: each request has one route".to_owned(),
            ),
            error => (
                format!("`{path}` is not a pattern: {error}"),
                "write parameters as `{name}`, one to a segment, and `{*rest}` at the end"
                    .to_owned(),
            ),
        })?;
        if let Some(patterns) = self.patterns.get_mut(usize::from(route.0)) {
            patterns.push(format!("{method} {path}"));
        }
        Ok(())
    }
}

impl Index<RouteId> for Routes {
    type Output = Route;

    /// Ids come from the same catalog; another catalog's panic or name another route.
    fn index(&self, id: RouteId) -> &Route {
        &self.routes[usize::from(id.0)]
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes.iter().zip(&self.patterns)).finish()
    }
}

/// `GET /v1/search` as method and path.
fn split(text: &str) -> Result<(&str, &str), (String, String)> {
    let wrong = |message: String, help: String| Err((message, help));
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (method, path.trim_start()),
        None if text.starts_with('/') => {
            let help = format!("write \"GET {text}\", and one more for each other method");
            return wrong(format!("`{text}` has no method"), help);
        }
        None => {
            let help = "write a method and a path, as in \"GET /v1/search\"";
            return wrong(format!("`{text}` has no path"), help.to_owned());
        }
    };
    if !path.starts_with('/') {
        let help = format!("write \"{method} /{}\"", path.trim_start_matches('/'));
        return wrong(format!("the path `{path}` does not begin with `/`"), help);
    }
    if let Some(at) = path.find(['%', '?', '#', ' ']) {
        let help = match path.as_bytes()[at] {
            b'%' => "write the path as it reads when decoded",
            _ => "write the path alone: queries play no part",
        };
        let found = &path[at..=at];
        return wrong(format!("`{found}` cannot stand in a pattern"), help.to_owned());
    }
    match method {
        "HEAD" => wrong("HEAD counts as GET".to_owned(), format!("write \"GET {path}\"")),
        "ANY" | "*" => {
            let help = format!("write each: [\"GET {path}\", \"POST {path}\"]");
            wrong(format!("`{method}` is no method"), help)
        }
        _ if !is_method(method) => {
            let help = format!("write \"{} {path}\"", method.to_ascii_uppercase());
            wrong(format!("`{method}` is no method: methods are upper case"), help)
        }
        _ => Ok((method, path)),
    }
}

fn is_method(method: &str) -> bool {
    let token =
        |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || b"-_.!$&'+^`|~".contains(&c);
    !method.is_empty() && method.bytes().all(token)
}

/// The path with its escapes decoded, but for `%2F`.
fn decode(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut rest = path.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        match escape(rest) {
            Some(byte) if byte != b'/' => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// The byte of the escape that `bytes` begins with.
fn escape(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(*high)? * 16 + digit(*low)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::Auth;

    fn route(name: &str) -> Route {
        Route {
            name: name.into(),
            cost: Vec::new(),
            needs: None,
            free: false,
            auth: Auth::Required,
            once_by: None,
            charge_on: None,
            enforce: None,
        }
    }

    fn routes(patterns: &[(&str, &str)]) -> Routes {
        let mut routes = Routes::default();
        for (name, pattern) in patterns {
            let id = routes.named(name).unwrap_or_else(|| routes.push(route(name)));
            routes.insert(id, pattern).unwrap();
        }
        routes
    }

    fn sample() -> Routes {
        routes(&[
            ("search", "GET /v1/search"),
            ("search", "POST /v1/search"),
            ("any", "GET /v1/{x}"),
            ("export", "POST /v1/accounts/{account}/exports"),
            ("files", "GET /files/{*path}"),
            ("purge", "PURGE /v1/search"),
            ("slash", "GET /v1/search/"),
            ("umlaut", "GET /für"),
        ])
    }

    fn name<'r>(routes: &'r Routes, method: &str, path: &str) -> Option<&'r str> {
        routes.find(method, path).map(|id| &*routes[id].name)
    }

    #[test]
    fn the_most_specific_pattern_of_the_method_wins() {
        let routes = sample();
        assert_eq!(name(&routes, "GET", "/v1/search"), Some("search"));
        assert_eq!(name(&routes, "GET", "/v1/other"), Some("any"));
        assert_eq!(name(&routes, "POST", "/v1/other"), None);
        assert_eq!(name(&routes, "POST", "/v1/accounts/7/exports"), Some("export"));
        assert_eq!(name(&routes, "PURGE", "/v1/search"), Some("purge"));
        assert_eq!(name(&routes, "GET", "/files/a/b"), Some("files"));
        assert_eq!(name(&routes, "get", "/v1/search"), None);
    }

    #[test]
    fn head_counts_as_get() {
        assert_eq!(name(&sample(), "HEAD", "/v1/search"), Some("search"));
    }

    #[test]
    fn a_trailing_slash_is_another_pattern() {
        let routes = sample();
        assert_eq!(name(&routes, "GET", "/v1/search/"), Some("slash"));
        assert_eq!(name(&routes, "POST", "/v1/search/"), None);
    }

    #[test]
    fn no_spelling_leaves_the_route() {
        let routes = sample();
        for path in ["/v1/%73earch", "/v1/%73%65%61rch", "/%761/search", "%2fv1/search"] {
            let found = name(&routes, "GET", path);
            assert_eq!(found, (!path.starts_with('%')).then_some("search"), "{path}");
        }
        for path in
            ["/v1/accounts/%FF/exports", "/v1/accounts/%zz/exports", "/v1/accounts/%/exports"]
        {
            assert_eq!(name(&routes, "POST", path), Some("export"), "{path}");
        }
        assert_eq!(name(&routes, "GET", "/f%C3%BCr"), Some("umlaut"));
    }

    #[test]
    fn an_encoded_slash_stays_within_its_segment() {
        let routes = sample();
        assert_eq!(name(&routes, "POST", "/v1/accounts/a%2Fb/exports"), Some("export"));
        assert_eq!(name(&routes, "GET", "/v1%2Fsearch"), None);
        assert_eq!(name(&routes, "GET", "/v1/search%2f"), Some("any"));
    }

    #[test]
    fn a_path_without_escapes_is_not_copied() {
        assert!(matches!(decode("/v1/search"), Cow::Borrowed(_)));
    }

    #[test]
    fn refuses_patterns_that_cannot_match() {
        let wrong = |pattern: &str| {
            let mut routes = sample();
            let id = routes.push(route("x"));
            routes.insert(id, pattern).unwrap_err().0
        };
        assert!(wrong("/v1/x").contains("no method"));
        assert!(wrong("GET").contains("no path"));
        assert!(wrong("GET v1").contains("begin with"));
        assert!(wrong("get /x").contains("upper case"));
        assert!(wrong("HEAD /x").contains("GET"));
        assert!(wrong("ANY /x").contains("no method"));
        assert!(wrong("GET /x?y").contains("cannot stand"));
        assert!(wrong("GET /%73").contains("cannot stand"));
        assert!(wrong("GET /{a}-{b}").contains("not a pattern"));
        assert!(wrong("GET /v1/search").contains("same requests"));
        assert!(wrong("GET /v1/{y}").contains("same requests"));
    }

    proptest! {
        #[test]
        fn no_path_panics(method in ".{0,8}", path in "(/|%|[0-9a-fA-F]|\\PC){0,24}") {
            let routes = sample();
            routes.find(&method, &path);
            routes.find("GET", &path);
        }

        #[test]
        fn any_escape_of_a_literal_is_the_literal(mask in any::<u16>()) {
            let mut path = String::new();
            for (n, c) in "/v1/search".chars().enumerate() {
                match c != '/' && mask >> n & 1 == 1 {
                    true => path.push_str(&format!("%{:02x}", c as u32)),
                    false => path.push(c),
                }
            }
            let routes = sample();
            prop_assert_eq!(name(&routes, "GET", &path), Some("search"));
        }
    }
}
