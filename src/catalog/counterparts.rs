//! Whether an app has the routes that the plan file names. A mistyped `match` fits no request, so
//! that nothing is charged or limited by its route, and nothing else says so.

use super::model::RouteId;
use super::pattern::Pattern;
use super::router::{ANY, Routes, split};
use crate::toml_file::did_you_mean;

/// A pattern as the plan file has it.
#[derive(Clone)]
pub(crate) struct WrittenPattern {
    pub(super) route: RouteId,
    pub(super) text: Box<str>,
    /// Its line in the file, from 1.
    pub(super) line: u32,
}

/// A route of the app: `"POST /v1/chat/{id}"`, with the pattern in the syntax of its router.
struct AppRoute<'a> {
    text: &'a str,
    method: &'a str,
    pattern: Pattern,
    /// Without the names of parameters, which play no part.
    shape: String,
}

impl<'a> AppRoute<'a> {
    /// `None`: not a method and a path.
    fn of(text: &'a str) -> Option<Self> {
        let (method, path) = text.split_once(' ')?;
        let pattern = Pattern::of_host_or_wider(path.trim_start())?;
        let shape = format!("{method} {}", pattern.shape());
        (!method.is_empty()).then_some(Self { text, method, pattern, shape })
    }

    /// Whether some request may fit both.
    fn meets(&self, method: &str, pattern: &Pattern) -> bool {
        let is_method = match self.method {
            ANY => true,
            "HEAD" => matches!(method, "GET" | ANY), // as for requests
            own => own == method || method == ANY,
        };
        is_method && self.pattern.meets(pattern)
    }
}

impl Routes {
    /// Patterns that no route of the app can answer, and those whose demand another method of the
    /// same handler leaves out, each with its line in the file and a message; without a line, what
    /// is wrong is in `app`: methods and paths in the syntax of its router.
    pub(crate) fn without_counterpart(&self, app: &[String]) -> Vec<(Option<u32>, String)> {
        let (mut found, mut routes) = (Vec::new(), Vec::with_capacity(app.len()));
        for text in app {
            let route = AppRoute::of(text);
            if route.is_none() {
                let message =
                    format!("the app's `{text}` is neither \"METHOD /path\" nor \"ANY /path\"");
                found.push((None, message));
            }
            routes.extend(route);
        }
        for written in &self.written {
            // They were read before, when the file was.
            let Ok((method, path)) = split(&written.text) else { continue };
            let Ok(pattern) = Pattern::of_plan(path) else { continue };
            if !routes.iter().any(|route| route.meets(method, &pattern)) {
                let shape = format!("{method} {}", pattern.shape());
                found.push((Some(written.line), self.lacks(written, &shape, &routes)));
            }
            if self.demands(written.route) && method != ANY && !self.has_any(&pattern) {
                let shape = format!("{ANY} {}", pattern.shape());
                let open = routes.iter().find(|route| route.shape == shape);
                found
                    .extend(open.map(|open| (Some(written.line), self.leaves_open(written, open))));
            }
        }
        found
    }

    /// Whether a route asks more of its callers than a request on none.
    fn demands(&self, route: RouteId) -> bool {
        self[route].needs.is_some() || self[route].needs_permission.is_some()
    }

    /// A handler of the app takes every method, and the plan file's demand holds for some.
    fn leaves_open(&self, written: &WrittenPattern, open: &AppRoute<'_>) -> String {
        let path = written.text.split_once(' ').map_or("", |(_, path)| path.trim_start());
        format!(
            "[route.{}] the app serves `{}` by every method, and `{}` holds for one: \
             write \"{ANY} {path}\"",
            self[written.route].name, open.text, written.text
        )
    }

    fn lacks(&self, written: &WrittenPattern, shape: &str, app: &[AppRoute<'_>]) -> String {
        let nearest = did_you_mean(shape, app.iter().map(|route| &*route.shape));
        let nearest = nearest.and_then(|shape| app.iter().find(|route| route.shape == shape));
        let help = nearest.map(|route| format!(": did you mean `{}`?", route.text));
        format!(
            "[route.{}] no route of the app has `{}`{}",
            self[written.route].name,
            written.text,
            help.unwrap_or_default()
        )
    }
}
