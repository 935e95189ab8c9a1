//! The plan file's routes against those of the app, and the app's operations against the plan file.

use std::sync::Arc;

use super::Gate;
use crate::error::Error;

impl Gate {
    /// Checks that the app has each route that the plan file in force names: a mistyped `match`
    /// fits no request, and its costs and limits hold for none. For a test of the app, and for a
    /// warning when it starts. The gate keeps the routes, and warns in the log if a later plan file
    /// names one that is not among them.
    ///
    /// `app` has all routes of the app as `"METHOD /path"`, with the whole path (that of outer
    /// routers too) in the syntax of axum or actix-web; `ANY` is every method. Order and names of
    /// parameters do not matter. A pattern of the plan file has a counterpart if some path fits
    /// both, so it may be wider or narrower than the app's. Where a regular expression of actix-web
    /// cannot be compared, it fits. Routes of a plan file that several services share are those of
    /// all of them.
    ///
    /// A route with `needs` or `needs-permission` must hold for each method of its handler: where
    /// the app serves the path by every method, the plan file's pattern is one of `ANY`.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # async fn example() {
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [plan.free]
    ///     [route.chat]
    ///     match = "POST /v1/chats"
    ///     cost  = { requests = 10 }
    /// "#);
    /// let app = ["GET /v1/search", "POST /v1/chat", "ANY /files/{*path}"];
    /// let error = gate.check_routes(app).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "plans:5: [route.chat] no route of the app has `POST /v1/chats`: \
    ///      did you mean `POST /v1/chat`?"
    /// );
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Routes`], with one line for each pattern that no route of the app has: its line in
    /// the plan file, and the nearest route. The same for each pattern that leaves methods of its
    /// handler out.
    pub fn check_routes(
        &self,
        app: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), Error> {
        let own = |route: &str| match route.trim().split_once(' ') {
            Some((method, path)) => {
                let path = self.inner.strip_prefix(path.trim_start());
                format!("{} {path}", method.to_ascii_uppercase())
            }
            None => route.trim().to_owned(),
        };
        let app: Vec<String> = app.into_iter().map(|route| own(route.as_ref())).collect();
        let found = self.catalog().routes.without_counterpart(&app);
        self.inner.catalogs.app_routes.store(Arc::new(app));
        if found.is_empty() {
            return Ok(());
        }
        let path = self.inner.catalogs.source.path();
        let file = path.map_or_else(|| "plans".to_owned(), |path| path.display().to_string());
        let lines: Vec<String> = found
            .into_iter()
            .map(|(line, message)| match line {
                None => message,
                Some(line) => format!("{file}:{line}: {message}"),
            })
            .collect();
        Err(Error::Routes(lines.join("\n")))
    }
    /// Checks that the plan file in force has a route for each of these operations of the program
    /// ([`Ask::new`](crate::Ask::new)). Call it when the program starts: work under a mistyped name
    /// has none of the route's costs, feature and rates, and is admitted. Leave out an operation
    /// that has no route on purpose.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # async fn example() {
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [plan.free]
    ///     rate.deliver = "2/s"
    ///     [route.deliver]
    ///     match = []
    /// "#);
    /// let error = gate.check_operations(["delivr"]).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the plan file has no route `delivr`: did you mean `deliver`?"
    /// );
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Routes`], with one line for each operation without a route, and the nearest name.
    pub fn check_operations(
        &self,
        operations: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), Error> {
        let catalog = self.catalog();
        let mut lines = Vec::new();
        for name in operations {
            let name = name.as_ref();
            if catalog.routes.named(name).is_none() {
                lines.push(catalog.no_route(name));
            }
        }
        if lines.is_empty() { Ok(()) } else { Err(Error::Routes(lines.join("\n"))) }
    }
}
