//! Routing of requests: finds a request's route.
//!
//! Patterns in a tree for each method: the most specific one wins, a trailing slash makes another
//! pattern, and HEAD counts as GET. Most paths have only one reading, and are found in place,
//! without allocating. Four kinds have several: with escapes, with an empty segment, with a slash
//! at the end, with a dot segment. There the host's own match decides the route, and where hosts
//! might read a path as either of two routes of the plan, the stricter one holds:
//!
//! - *as it came*: with only those escapes decoded that every client must write (`/f%C3%BCr`): how
//!   axum looks for its routes;
//! - *as the host says*: the pattern that its router has matched, identified by its shape;
//! - *without empty segments*: how a service sees it that axum nests under a prefix;
//! - *as it is meant*: with all escapes decoded, segment by segment (an encoded slash stays within
//!   its segment): how handlers see their parameters, and how actix-web looks for its routes.
//!   Undecodable escapes stay as they came (a byte that is not UTF-8 as U+FFFD);
//! - *as a rest reads*, unless the host's match has none: with encoded slashes decoded too, and
//!   without empty and dot segments: how a handler sees the text of its `{*rest}`, and the file
//!   that it may name.
//!
//! So no spelling of a path that reaches a handler escapes its route, or makes it cheaper.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Index;

use super::counterparts::WrittenPattern;
use super::escapes::{decode, decode_if, decode_needed};
use super::model::{Auth, MeterId, Route, RouteId};
use super::pattern::{Affix, Pattern, Segment, Wrong, cut, order};
use crate::toml_file::did_you_mean;

/// The routes of a catalog.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    /// Those with a rate of their own in some plan or exception.
    rated: Vec<bool>,
    /// Whether callers are identified where no route matches.
    pub(crate) default_auth: Auth,
    /// GET first, where there is one; a handful at most. Once the file is read, each has the
    /// patterns of `ANY` as well, where it has none of the same shape.
    methods: Vec<(Box<str>, Tree)>,
    /// The patterns of `ANY`: those of every method that the file does not name.
    any: Tree,
    /// The patterns as the file has them, in its order.
    pub(super) written: Vec<WrittenPattern>,
}

/// Path decoding of a host's router. [`RequestView::reads`](crate::identity::RequestView::reads)
/// returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// The router matches the path undecoded, as axum does; the default. A parameter within the
    /// path may be empty, but neither a parameter at its end nor a rest.
    AsItCame,
    /// The router matches the path decoded except for `%25`, `%2F` and `%2B`, as actix-web does. A
    /// rest may be empty, a parameter may not.
    Decoded,
}

/// Permitted empty values: parameters within a path, and rests.
#[derive(Clone, Copy)]
struct Empty {
    params: bool,
    rests: bool,
}

impl Reads {
    fn empty(self) -> Empty {
        let is_raw = self == Self::AsItCame;
        Empty { params: is_raw, rests: !is_raw }
    }
}

/// The patterns of one method.
#[derive(Clone, Default)]
struct Tree {
    root: RouteNode,
    patterns: Vec<(Pattern, RouteId)>,
}

/// The continuations after one slash.
#[derive(Clone, Default)]
struct RouteNode {
    /// The pattern that ends before the slash, by its index in the tree's list.
    end: Option<usize>,
    /// In alphabetical order.
    literals: Vec<(Box<str>, RouteNode)>,
    /// Most specific first.
    wild: Vec<(Segment, RouteNode)>,
}

impl Routes {
    /// The route of a request, by its method and raw path: still percent-encoded, and without the
    /// query. For a request whose host has no router, or does not report its match.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<RouteId> {
        self.find_at(method, path, Reads::AsItCame, || None)
    }

    /// The same for a host whose router reads paths as `reads`, and may report its matched pattern.
    /// It is asked only about paths with more than one reading.
    #[inline]
    pub(crate) fn find_at<'p>(
        &self,
        method: &str,
        path: &str,
        reads: Reads,
        matched: impl FnOnce() -> Option<Cow<'p, str>>,
    ) -> Option<RouteId> {
        let method = if method == "HEAD" { "GET" } else { method };
        let tree = self.methods.iter().find(|(known, _)| **known == *method);
        let tree = match tree {
            Some((_, tree)) => tree,
            None if self.any.patterns.is_empty() => return None,
            None => &self.any,
        };
        let found = match can_be_read_twice(path) {
            false => tree.find(path, reads.empty()),
            true => self.weigh(tree, path, reads, matched().as_deref()),
        };
        Some(tree.patterns[found?].1)
    }

    /// Whether any route is one of `POST`, as calls of gRPC are.
    #[inline]
    pub(crate) fn has_calls(&self) -> bool {
        let is_post = |(method, _): &(Box<str>, Tree)| **method == *"POST";
        !self.any.patterns.is_empty() || self.methods.iter().any(is_post)
    }

    /// The pattern of a path with more than one reading.
    #[cold]
    fn weigh(&self, tree: &Tree, path: &str, reads: Reads, matched: Option<&str>) -> Option<usize> {
        let meant = decode(path);
        let as_meant = tree.find(&meant, reads.empty());
        // A pattern that the path cannot have matched belongs to a nested router.
        let host = matched.and_then(Pattern::of_host).filter(|host| host.covers(&meant));
        let as_host = host.as_ref().and_then(|host| tree.named(host));
        let read = match reads {
            Reads::AsItCame => decode_needed(path),
            Reads::Decoded => decode_if(path, |byte| !b"%/+".contains(&byte)),
        };
        let as_came = tree.find(&read, reads.empty());
        let of = |at: Option<usize>| at.map(|at| tree.patterns[at].1);
        let mut found = as_host.or(as_came);
        if as_host.is_none() && reads == Reads::Decoded {
            // Its rests may have to be non-empty: `{tail:.+}`.
            let filled = tree.find(&read, Empty { params: false, rests: false });
            if filled.is_some() && !self.holds_against(of(found), of(filled)) {
                found = filled;
            }
        }
        let other = tree.finer(found, tree.finer(as_came, as_meant));
        let fewer = fewer_slashes(&meant).map(|path| tree.find(&path, reads.empty()));
        let has_rest = match &host {
            Some(host) => host.ends_with_rest(),
            // The plan file's own pattern of this very path is of no rest.
            None => found.is_none_or(|at| !tree.patterns[at].0.ends_with_text()),
        };
        let any = Empty { rests: true, ..reads.empty() };
        let as_rest = (has_rest && path.starts_with('/')).then(|| as_rest_reads(path));
        let as_rest = as_rest.into_iter().flatten().map(|path| tree.find(&path, any));
        let others = fewer.chain(as_rest).filter(Option::is_some);
        let others = std::iter::once(other).chain(others);
        others.fold(found, |found, other| match found == other {
            true => found,
            false if self.holds_against(of(found), of(other)) => found,
            false => other,
        })
    }

    /// The stricter of two routes that a request may be on.
    pub(crate) fn stricter(&self, one: Option<RouteId>, other: Option<RouteId>) -> Option<RouteId> {
        if self.holds_against(one, other) { one } else { other }
    }

    /// Whether a route is at least as strict as another, so that it can stand for both. Whom it
    /// lets in goes before what they pay.
    fn holds_against(&self, found: Option<RouteId>, other: Option<RouteId>) -> bool {
        let has_rate = |id: RouteId| self.rated.get(usize::from(id.0)).copied().unwrap_or(false);
        let is_rated = [found, other].into_iter().flatten().any(has_rate);
        let rules = |id: Option<RouteId>| id.map(|id| &self[id]);
        let (found, other) = (rules(found), rules(other));
        let permission = |of: Option<&Route>| of.and_then(|route| route.needs_permission.clone());
        let needs = |of: Option<&Route>| of.and_then(|route| route.needs.clone());
        let is_free = |of: Option<&Route>| of.is_some_and(|route| route.free);
        // A permission first: only identified callers have one.
        let strictness = demand(&permission(found), &permission(other))
            .then_with(|| self.open(other).cmp(&self.open(found)))
            .then_with(|| demand(&needs(found), &needs(other)))
            .then_with(|| is_free(other).cmp(&is_free(found)));
        match strictness {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => {
                !is_rated && costs_as_much(found, other) && counts_alike(found, other)
            }
        }
    }

    /// Openness of a route, or of a path that is on none: the lower, the stricter.
    fn open(&self, route: Option<&Route>) -> u8 {
        match route.map_or(self.default_auth, |route| route.auth) {
            Auth::Required => 0,
            Auth::Optional => 1,
            Auth::None => 2,
        }
    }

    /// Whether every method has a route for this very pattern.
    pub(super) fn has_any(&self, pattern: &Pattern) -> bool {
        self.any.named(pattern).is_some()
    }

    /// Marks the routes that have a rate of their own.
    pub(super) fn mark_rated(&mut self, rated: impl IntoIterator<Item = RouteId>) {
        self.rated = vec![false; self.routes.len()];
        for route in rated {
            if let Some(has) = self.rated.get_mut(usize::from(route.0)) {
                *has = true;
            }
        }
    }

    /// The route with this name in the file.
    pub(crate) fn named(&self, name: &str) -> Option<RouteId> {
        self.iter().find(|(_, route)| *route.name == *name).map(|(id, _)| id)
    }

    /// All routes, in the order of the file.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RouteId, &Route)> {
        self.routes.iter().enumerate().map(|(n, route)| (RouteId(n as u16), route))
    }

    /// All routes, by [`RouteId`].
    pub(crate) fn as_slice(&self) -> &[Route] {
        &self.routes
    }

    /// Adds a route; its patterns follow with [`Routes::insert`].
    pub(super) fn push(&mut self, route: Route) -> RouteId {
        let id = RouteId(self.routes.len() as u16);
        self.routes.push(route);
        id
    }

    /// Adds a pattern of a route; the error has the fault and what to write instead.
    pub(super) fn insert(&mut self, route: RouteId, text: &str) -> Result<(), Wrong> {
        let (method, path) = split(text)?;
        let pattern = Pattern::of_plan(path)?;
        let tree = self.tree_of(method);
        if let Some(twice) = tree.named(&pattern) {
            let with = tree.patterns[twice].1;
            let name = &self.routes[usize::from(with.0)].name;
            return Err((
                format!("the pattern `{text}` matches the same requests as one of [route.{name}]"),
                "leave one of them out: each request has one route".to_owned(),
            ));
        }
        tree.insert(pattern, route);
        Ok(())
    }

    fn tree_of(&mut self, method: &str) -> &mut Tree {
        if method == ANY {
            return &mut self.any;
        }
        let at = match self.methods.iter().position(|(known, _)| **known == *method) {
            Some(at) => at,
            None => {
                let at = if method == "GET" { 0 } else { self.methods.len() };
                self.methods.insert(at, (method.into(), Tree::default()));
                at
            }
        };
        &mut self.methods[at].1
    }

    /// Gives the patterns of `ANY` to each method, once all are inserted. A pattern of its own of
    /// the same shape goes before; otherwise the finer path does, whatever its method.
    pub(super) fn spread_any(&mut self) {
        for (_, tree) in &mut self.methods {
            for (pattern, route) in &self.any.patterns {
                if tree.named(pattern).is_none() {
                    tree.insert(pattern.clone(), *route);
                }
            }
        }
    }
}

/// Whether one route demands more of its callers than another: less where the other demands what
/// this one does not.
fn demand<T: PartialEq>(found: &Option<T>, other: &Option<T>) -> Ordering {
    match (found, other) {
        _ if found == other => Ordering::Equal,
        (_, Some(_)) => Ordering::Less,
        (_, None) => Ordering::Greater,
    }
}

/// Whether a request on the first route costs at least as much as on the second, of every meter.
fn costs_as_much(found: Option<&Route>, other: Option<&Route>) -> bool {
    let costs = |of: Option<&Route>| of.map(|route| route.cost.clone()).unwrap_or_default();
    let (found, other) = (costs(found), costs(other));
    // An unlisted meter costs what its own setting says, which is known only for `requests`.
    let of = |costs: &[(MeterId, u64)], meter: MeterId| {
        let named = costs.iter().find(|(m, _)| *m == meter).map(|(_, n)| *n);
        named.or((meter.0 == 0).then_some(1))
    };
    let mut meters = found.iter().chain(&other).map(|(meter, _)| *meter);
    meters.all(|meter| match (of(&found, meter), of(&other, meter)) {
        (Some(found), Some(other)) => found >= other,
        (Some(found), None) => found > 0,
        (None, other) => other.is_none(),
    })
}

/// Whether two routes agree on meters, outcomes, idempotency and shadow mode.
fn counts_alike(found: Option<&Route>, other: Option<&Route>) -> bool {
    let words = |of: Option<&Route>| {
        let words = |route: &Route| {
            (route.meters.clone(), route.once_by.clone(), route.charge_on, route.enforce)
        };
        of.map(words).unwrap_or_default()
    };
    words(found) == words(other)
}

impl Tree {
    /// The most specific pattern that a path fits, by its index.
    #[inline]
    fn find(&self, path: &str, empty: Empty) -> Option<usize> {
        self.root.find(path.strip_prefix('/')?, empty)
    }

    /// The pattern of this shape.
    fn named(&self, pattern: &Pattern) -> Option<usize> {
        self.root.named(&pattern.0)
    }

    /// The finer of two patterns that one path fits.
    fn finer(&self, one: Option<usize>, other: Option<usize>) -> Option<usize> {
        match (one, other) {
            (Some(a), Some(b)) => {
                let is_finer = self.patterns[b].0.finer(&self.patterns[a].0) == Ordering::Less;
                Some(if is_finer { b } else { a })
            }
            (one, other) => one.or(other),
        }
    }

    fn insert(&mut self, pattern: Pattern, route: RouteId) {
        let mut node = &mut self.root;
        for segment in &pattern.0 {
            node = match segment {
                Segment::Literal(text) => {
                    let at = node.literals.binary_search_by(|(known, _)| known.cmp(text));
                    let at = at.unwrap_or_else(|at| {
                        node.literals.insert(at, (text.clone(), RouteNode::default()));
                        at
                    });
                    &mut node.literals[at].1
                }
                wild => {
                    let at = node.wild.iter().position(|(known, _)| known == wild);
                    let at = at.unwrap_or_else(|| {
                        let at =
                            node.wild.partition_point(|(known, _)| order(known) <= order(wild));
                        node.wild.insert(at, (wild.clone(), RouteNode::default()));
                        at
                    });
                    &mut node.wild[at].1
                }
            };
        }
        node.end = Some(self.patterns.len());
        self.patterns.push((pattern, route));
    }
}

impl RouteNode {
    /// Matches the text after the slash. Each node is visited at most once, so that no path takes
    /// longer than the plan file has patterns.
    fn find(&self, rest: &str, empty: Empty) -> Option<usize> {
        let (segment, after) = cut(rest);
        let down = |node: &Self| match after {
            None => node.end,
            Some(after) => node.find(after, empty),
        };
        if let Ok(at) = self.literals.binary_search_by(|(known, _)| (**known).cmp(segment))
            && let Some(found) = down(&self.literals[at].1)
        {
            return Some(found);
        }
        let fits = |affix: &Affix| affix.takes(segment, empty.params && after.is_some());
        self.wild.iter().find_map(|(wild, node)| match wild {
            Segment::Param(affix) if fits(affix) => down(node),
            Segment::Rest(affix) if affix.takes(rest, empty.rests) => node.end,
            _ => None,
        })
    }

    fn named(&self, segments: &[Segment]) -> Option<usize> {
        let Some((first, after)) = segments.split_first() else { return self.end };
        let node = match first {
            Segment::Literal(text) => {
                let at = self.literals.binary_search_by(|(known, _)| known.cmp(text)).ok()?;
                &self.literals[at].1
            }
            wild => &self.wild.iter().find(|(known, _)| known == wild)?.1,
        };
        node.named(after)
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
        f.debug_list().entries(&self.routes).finish()
    }
}

/// Methods of HTTP (IANA's registry), and one that caches use.
const METHODS: [&str; 40] = [
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "QUERY",
    "PURGE",
    "SEARCH",
    "REPORT",
    "LINK",
    "UNLINK",
    "LOCK",
    "UNLOCK",
    "COPY",
    "MOVE",
    "MKCOL",
    "PROPFIND",
    "PROPPATCH",
    "ACL",
    "BIND",
    "UNBIND",
    "REBIND",
    "MERGE",
    "LABEL",
    "UPDATE",
    "CHECKIN",
    "CHECKOUT",
    "UNCHECKOUT",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKWORKSPACE",
    "MKREDIRECTREF",
    "UPDATEREDIRECTREF",
    "ORDERPATCH",
    "BASELINE-CONTROL",
    "VERSION-CONTROL",
    "PRI",
];

/// In place of a method: every one, those that HTTP does not have as well.
pub(super) const ANY: &str = "ANY";

/// The pattern's method, if it is not in HTTP: it may be the host's own, or a mistake.
pub(super) fn own_method(text: &str) -> Option<&str> {
    let (method, _) = text.split_once(' ')?;
    (method != ANY && !METHODS.contains(&method)).then_some(method)
}

/// `GET /v1/search` as method and path.
pub(super) fn split(text: &str) -> Result<(&str, &str), Wrong> {
    let wrong = |message: String, help: String| Err((message, help));
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (method, path.trim_start()),
        None if text.starts_with('/') => {
            let help = format!("write \"GET {text}\", or \"{ANY} {text}\" for every method");
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
            _ => "write the path alone: queries are ignored",
        };
        let found = &path[at..=at];
        return wrong(format!("`{found}` cannot be used in a pattern"), help.to_owned());
    }
    match method {
        "HEAD" => wrong("HEAD counts as GET".to_owned(), format!("write \"GET {path}\"")),
        ANY => Ok((method, path)),
        "*" => {
            let help = format!("write \"{ANY} {path}\" for every method");
            wrong(format!("`{method}` is not a method"), help)
        }
        _ if METHODS.contains(&method) => Ok((method, path)),
        _ if !is_method(method) => {
            let help = format!("write \"{} {path}\"", method.to_ascii_uppercase());
            wrong(format!("`{method}` is not a method: methods are upper case"), help)
        }
        _ => match did_you_mean(method, METHODS) {
            Some(known) => {
                wrong(format!("`{method}` is not a method"), format!("did you mean `{known}`?"))
            }
            None => Ok((method, path)),
        },
    }
}

fn is_method(method: &str) -> bool {
    let token =
        |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || b"-_.!$&'+^`|~".contains(&c);
    !method.is_empty() && method.bytes().all(token)
}

/// Most empty segments that are left out of a path one after the other.
const MOST_EMPTY: usize = 8;

/// A path without its first empty segment, without its first two, and so on, and without any: where
/// axum nests a service it leaves out one slash more than the prefix has.
fn fewer_slashes(path: &str) -> impl Iterator<Item = String> {
    let cut = |path: &str| path.find("//").map(|at| [&path[..at], &path[at + 1..]].concat());
    let one_by_one = std::iter::successors(cut(path), move |path| cut(path)).take(MOST_EMPTY);
    let filled = path.split('/').filter(|segment| !segment.is_empty());
    let none = filled.fold(String::new(), |path, segment| path + "/" + segment);
    one_by_one.chain(path.contains("//").then_some(none))
}

/// A path decoded to the last escape, without empty and dot segments; with a slash at its end and
/// without: to a handler of files it is the same name.
fn as_rest_reads(path: &str) -> [String; 2] {
    let decoded = decode_if(path, |_| true);
    let mut segments = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let path = segments.iter().fold(String::new(), |path, segment| path + "/" + segment);
    [format!("{path}/"), path]
}

/// Whether hosts may read a path differently: it has escapes, an empty or a dot segment, or a slash
/// at its end.
#[inline]
fn can_be_read_twice(path: &str) -> bool {
    let (mut last, mut has_dot) = (0, false);
    for byte in path.bytes() {
        if byte == b'%' || byte == b'/' && last == b'/' {
            return true;
        }
        has_dot |= byte == b'.' && last == b'/';
        last = byte;
    }
    last == b'/' && path.len() > 1 || has_dot && has_dot_segment(path)
}

/// Whether some segment is `.` or `..`, and not only begins with a dot.
#[cold]
fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| segment == "." || segment == "..")
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
            meters: Vec::new(),
            needs: None,
            needs_permission: None,
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
        routes.spread_any();
        routes
    }

    /// Searches are expensive.
    fn sample() -> Routes {
        let mut routes = routes(&[
            ("search", "GET /v1/search"),
            ("search", "POST /v1/search"),
            ("any", "GET /v1/{x}"),
            ("export", "POST /v1/accounts/{account}/exports"),
            ("files", "GET /files/{*path}"),
            ("purge", "PURGE /v1/search"),
            ("slash", "GET /v1/search/"),
            ("umlaut", "GET /für"),
        ]);
        routes.routes[0].cost = vec![(MeterId(0), 5)];
        routes
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
    fn any_is_every_method_and_the_finer_path_wins() {
        let mut routes = routes(&[
            ("secret", "ANY /v1/secret"),
            ("read", "GET /v1/{x}"),
            ("all", "ANY /{*rest}"),
            ("own", "GET /v1/own"),
            ("other", "ANY /v1/own"),
        ]);
        routes.routes[0].needs = Some("secret".into());
        for method in ["GET", "HEAD", "POST", "PROPFIND", "FOO", "get"] {
            assert_eq!(name(&routes, method, "/v1/secret"), Some("secret"), "{method}");
            assert_eq!(name(&routes, method, "/v1/%73ecret"), Some("secret"), "{method}");
        }
        assert_eq!(name(&routes, "GET", "/v1/x"), Some("read"));
        assert_eq!(name(&routes, "FOO", "/v1/x"), Some("all"));
        // Of the same shape, the pattern of the method itself.
        assert_eq!(name(&routes, "GET", "/v1/own"), Some("own"));
        assert_eq!(name(&routes, "PUT", "/v1/own"), Some("other"));
        let mut twice = routes.clone();
        let id = twice.push(route("x"));
        assert!(twice.insert(id, "ANY /v1/secret").unwrap_err().0.contains("same requests"));
    }

    #[test]
    fn head_counts_as_get() {
        assert_eq!(name(&sample(), "HEAD", "/v1/search"), Some("search"));
    }

    #[test]
    fn a_trailing_slash_is_another_pattern() {
        let routes = sample();
        assert_eq!(name(&routes, "GET", "/v1/search/"), Some("slash"));
        assert_eq!(at(&routes, "/v1/search/", "/v1/{x}/"), Some("slash"));
        let find = |path: &str| routes.find("POST", path).map(|id| &*routes[id].name);
        assert_eq!(find("/v1/search/"), Some("search"), "on no route, it may be of a rest");
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
    fn an_empty_segment_does_not_leave_the_route() {
        let routes = sample();
        assert_eq!(name(&routes, "POST", "/v1/accounts//exports"), Some("export"));
        assert_eq!(name(&routes, "GET", "/v1/"), None);
        assert_eq!(name(&routes, "GET", "/files/"), None);
        assert_eq!(name(&routes, "GET", "/files//"), Some("files"));
    }

    /// The route of a request for which the host's router has matched this.
    fn at<'r>(routes: &'r Routes, path: &str, host: &str) -> Option<&'r str> {
        let found = routes.find_at("GET", path, Reads::AsItCame, || Some(host.into()));
        found.map(|id| &*routes[id].name)
    }

    #[test]
    fn the_hosts_own_match_says_which_of_two_alike_a_spelling_is() {
        let routes = routes(&[
            ("two", "GET /{a}/{b}"),
            ("under-a", "GET /a/{*r}"),
            ("rest", "GET /files/{*r}"),
            ("slash", "GET /{x}/"),
        ]);
        assert_eq!(at(&routes, "/%61/a", "/{x}/{y}"), Some("two"));
        assert_eq!(at(&routes, "/%61/a", "/a/{tail:.*}"), Some("under-a"));
        // An empty rest does not match in axum, but does in actix-web.
        assert_eq!(at(&routes, "/files/", "/files/{tail}*"), Some("rest"));
        assert_eq!(at(&routes, "/files/", "/{dir}/"), Some("slash"));
        // A pattern that the path cannot have matched belongs to another router.
        assert_eq!(at(&routes, "/files/", "/a/{*r}"), Some("slash"));
    }

    #[test]
    fn a_router_that_decodes_has_empty_rests_and_no_empty_parameters() {
        let routes = sample();
        let name = |path: &str| {
            let method = if path.contains("accounts") { "POST" } else { "GET" };
            let found = routes.find_at(method, path, Reads::Decoded, || None);
            found.map(|id| &*routes[id].name)
        };
        assert_eq!(name("/files/"), Some("files"));
        assert_eq!(name("/%66iles/"), Some("files"));
        assert_eq!(name("/v1/accounts//exports"), None);
        assert_eq!(name("/v1/accounts/%20/exports"), Some("export"));
        assert_eq!(name("/v1/%73earch"), Some("search"));

        // Unless its pattern forbids them, which a guard may hide: then the stricter one holds.
        let mut routes = self::routes(&[("rest", "GET /v1/{*rest}"), ("all", "GET /{*all}")]);
        let find = |routes: &Routes| routes.find_at("GET", "/v1/", Reads::Decoded, || None);
        assert_eq!(find(&routes), Some(RouteId(0)));
        routes.routes[1].cost = vec![(MeterId(0), 3)];
        assert_eq!(find(&routes), Some(RouteId(1)));
    }

    #[test]
    fn of_two_readings_the_stricter_holds() {
        let strict = |change: fn(&mut Route)| {
            let mut routes = routes(&[("any", "GET /{x}"), ("literal", "GET /search")]);
            change(&mut routes.routes[1]);
            at(&routes, "/%73earch", "/{x}").map(str::to_owned)
        };
        let literal = || Some("literal".to_owned());
        assert_eq!(strict(|route| route.cost = vec![(MeterId(0), 25)]), literal());
        assert_eq!(strict(|route| route.needs = Some("search".into())), literal());
        let asks = |route: &mut Route| route.needs_permission = Some("write".into());
        assert_eq!(strict(asks), literal());
        assert_eq!(strict(|route| route.once_by = Some("key".into())), literal());
        let any = || Some("any".to_owned());
        assert_eq!(strict(|_| ()), any());
        assert_eq!(strict(|route| route.auth = Auth::None), any());
        assert_eq!(strict(|route| route.free = true), any());

        let mut rated = routes(&[("any", "GET /{x}"), ("literal", "GET /search")]);
        rated.mark_rated([RouteId(1)]);
        assert_eq!(at(&rated, "/%73earch", "/{x}"), Some("literal"));
        // A request on no route is identified and costs one.
        let mut open = routes(&[("open", "GET /healthz")]);
        open.routes[0].auth = Auth::None;
        assert_eq!(at(&open, "/%68ealthz", "/{page}"), None);
        assert_eq!(at(&open, "/%68ealthz", "/healthz"), Some("open"));
    }

    #[test]
    fn an_empty_segment_that_a_nested_service_does_not_see_makes_nothing_cheaper() {
        let mut routes = routes(&[
            ("items", "GET /api/items"),
            ("any", "GET /api/{x}/items"),
            ("one", "GET /api/v1/{id}/items"),
        ]);
        routes.routes[0].cost = vec![(MeterId(0), 25)];
        routes.routes[2].cost = vec![(MeterId(0), 9)];
        let find = |path: &str| routes.find("GET", path).map(|id| &*routes[id].name);
        for path in ["/api/items", "//api/items", "/api//items", "/api///items", "///api////items"]
        {
            assert_eq!(find(path), Some("items"), "{path}");
        }
        assert_eq!(at(&routes, "/api/%2Fitems", "/api/{x}"), None, "an escaped slash is none");
        assert_eq!(find("/api/%2Fitems"), Some("items"), "unless the host has a rest there");
        assert_eq!(find("/api//v1//items"), Some("one"), "one is a prefix, one a parameter");
        assert_eq!(find(&format!("/api{}items", "/".repeat(5_000))), Some("items"));
        let nested = at(&routes, "/api//items", "/api/{*rest}");
        assert_eq!(nested, Some("items"), "whatever the host has matched");
    }

    #[test]
    fn no_spelling_lets_a_caller_in_whom_the_route_turns_away() {
        let at = |default: Auth, change: &dyn Fn(&mut Route)| {
            let mut routes = routes(&[("literal", "GET /v1/search")]);
            routes.default_auth = default;
            change(&mut routes.routes[0]);
            at(&routes, "/v1/%73earch", "/v1/{kind}").map(str::to_owned)
        };
        let literal = || Some("literal".to_owned());
        let asks = |route: &mut Route| route.needs_permission = Some("write".into());
        let needs = |route: &mut Route| route.needs = Some("search".into());
        for default in [Auth::Required, Auth::Optional, Auth::None] {
            for auth in [Auth::Required, Auth::Optional] {
                for free in [false, true] {
                    let with = |route: &mut Route| (route.auth, route.free) = (auth, free);
                    let asks = |route: &mut Route| (with(route), asks(route)).1;
                    assert_eq!(at(default, &asks), literal(), "{default:?} {auth:?} {free}");
                    if auth == default {
                        let needs = |route: &mut Route| (with(route), needs(route)).1;
                        assert_eq!(at(default, &needs), literal(), "{default:?} {free}");
                    }
                }
            }
        }
        // A path on no route that anyone may call is no stricter than one.
        assert_eq!(at(Auth::None, &|_| ()), literal());
        assert_eq!(at(Auth::Optional, &|_| ()), literal());
        assert_eq!(at(Auth::Required, &|route| route.auth = Auth::Optional), None);
    }

    #[test]
    fn no_spelling_of_a_rest_leaves_a_narrower_route() {
        let mut routes = routes(&[
            ("all", "GET /v1/files/{*rest}"),
            ("secret", "GET /v1/files/secret/{*rest}"),
            ("own", "GET /v1/items/{id}"),
            ("part", "GET /v1/items/{id}/part"),
        ]);
        for (of, feature) in [(1, "files"), (3, "parts")] {
            routes.routes[of].needs = Some(feature.into());
        }
        let spellings = ["secret/a", "secret%2fa", "secret%2Fa", "%2fsecret/a", "/secret/a"];
        let dotted = ["./secret/a", "x/../secret/a", "%2e/secret/a", "x%2f..%2fsecret%2fa"];
        for spelling in spellings.iter().chain(&dotted) {
            let path = format!("/v1/files/{spelling}");
            assert_eq!(name(&routes, "GET", &path), Some("secret"), "{path}");
            assert_eq!(at(&routes, &path, "/v1/files/{*rest}"), Some("secret"), "{path}");
        }
        let ended = ["secret/a/", "secret/a%2f", "secret/a/./", "secret/", "secret/.", "./secret"];
        for spelling in ended {
            let path = format!("/v1/files/{spelling}");
            assert_eq!(at(&routes, &path, "/v1/files/{*rest}"), Some("secret"), "{path}");
        }
        for other in [".secret/a", "secret.", "..a/secret/b", "x/secret/a", "a/."] {
            assert_eq!(name(&routes, "GET", &format!("/v1/files/{other}")), Some("all"), "{other}");
        }
        // The host's match has no rest: an encoded slash is text of its parameter.
        assert_eq!(at(&routes, "/v1/items/7%2fpart", "/v1/items/{id}"), Some("own"));
    }

    #[test]
    fn an_encoded_slash_stays_within_its_segment() {
        let routes = sample();
        assert_eq!(name(&routes, "POST", "/v1/accounts/a%2Fb/exports"), Some("export"));
        assert_eq!(at(&routes, "/v1%2Fsearch", "/{x}"), None);
        assert_eq!(name(&routes, "GET", "/v1%2Fsearch"), Some("search"), "it may be of a rest");
        assert_eq!(at(&routes, "/v1/search%2f", "/v1/{x}"), Some("any"));
        assert_eq!(name(&routes, "GET", "/v1/search%2f"), Some("search"), "the same");
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
        assert!(wrong("* /x").contains("not a method"));
        assert!(wrong("GET /x?y").contains("cannot be used"));
        assert!(wrong("GET /%73").contains("cannot be used"));
        assert!(wrong("GET /{a}-{b}").contains("two parameters"));
        assert!(wrong("GET /{*a}/b").contains("not at the end"));
        assert!(wrong("GET /{id:[0-9]+}").contains("regular expression"));
        assert!(wrong("GET /v1/*").contains("alone"));
        assert!(wrong("GET /users/:id").contains("alone"));
        assert!(wrong("GET /{}").contains("no name"));
        assert!(wrong("GET /{a").contains("does not end"));
        assert!(wrong("GTE /a").contains("not a method"));
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
