//! Blocks of pages, and requests to routers.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

/// The text of a page of the repository.
pub(crate) fn page(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// The blocks of a page in this language, each with its first line and without its indent.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let (mut found, mut open) = (Vec::new(), None::<(usize, bool, String)>);
    for (at, line) in page.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(says), None) => open = Some((at + 2, says == language, String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((.., text))) => text.extend([line.trim_start(), "\n"]),
            (None, None) => {}
        }
    }
    let of_language = found.into_iter().filter(|(_, is_it, _)| *is_it);
    of_language.map(|(at, _, text)| (at, text)).collect()
}

/// The blocks of TOML of a section of a page.
pub(crate) fn toml_of(path: &str, heading: &str) -> Vec<String> {
    let page = page(path);
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let section = section.split("\n## ").next().unwrap();
    blocks(section, "toml").into_iter().map(|(_, text)| text).collect()
}

/// The plan file of a recipe.
pub(crate) fn plans(path: &str, heading: &str) -> String {
    let blocks = toml_of(path, heading);
    blocks.into_iter().find(|it| it.contains("default-plan")).expect("it has a plan file")
}

/// A request of this tenant.
pub(crate) fn request(
    method: &str,
    path: &str,
    tenant: &str,
    body: Option<Value>,
) -> Request<Body> {
    let builder = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
    let builder = builder.header("x-tenant", tenant).header("content-type", "application/json");
    builder.body(body.map_or(Body::empty(), |it| Body::from(it.to_string()))).unwrap()
}

/// What a client sees: the status, the limit header, and the body.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) limits: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) async fn send(app: &Router, request: Request<Body>) -> Seen {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
    let (limits, retry_after) = (header("ratelimit").unwrap_or_default(), header("retry-after"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Seen { status, limits, retry_after, body: String::from_utf8(body.to_vec()).unwrap() }
}

/// The same without a body.
pub(crate) async fn get(app: &Router, path: &str, tenant: &str) -> Seen {
    send(app, request("GET", path, tenant, None)).await
}

/// The same with one.
pub(crate) async fn post(app: &Router, path: &str, body: Value) -> Seen {
    send(app, request("POST", path, "acme", Some(body))).await
}
