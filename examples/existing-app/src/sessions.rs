//! The app's own authentication: a login that sets a cookie, and a layer that lets only its bearers
//! pass, with the [`User`] among the request's extensions.

use axum::extract::{Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tables::{Tables, User};

#[derive(Deserialize)]
pub(crate) struct Login {
    user: String,
    password: String,
}

/// `POST /login`: begins a session.
pub(crate) async fn log_in(State(tables): State<Tables>, Json(login): Json<Login>) -> Response {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let session = format!("{:032x}", u128::from_be_bytes(random));
    // And `Secure`, where it is served over TLS.
    let cookie = format!("session={session}; Path=/; HttpOnly; SameSite=Lax");
    if !tables.sign_in(&login.user, &login.password, session) {
        return unauthorized("unknown user, or another password");
    }
    ([(SET_COOKIE, cookie)], Json(json!({ "user": login.user }))).into_response()
}

/// Lets requests of a session pass.
pub(crate) async fn require(
    State(tables): State<Tables>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(user) = session(request.headers()).and_then(|session| tables.user(session)) else {
        return unauthorized("sign in first");
    };
    request.extensions_mut().insert(user);
    next.run(request).await
}

/// `GET /api/me`: who is signed in.
pub(crate) async fn me(Extension(user): Extension<User>) -> Json<Value> {
    Json(json!({ "user": user.name, "organisation": user.organisation, "plan": user.plan }))
}

/// `POST /api/upgrade`: puts the user's organisation on the plan `pro`. A real one comes after a
/// payment.
pub(crate) async fn upgrade(
    State(tables): State<Tables>,
    Extension(user): Extension<User>,
) -> Json<Value> {
    tables.set_plan(&user.organisation, "pro");
    Json(json!({ "organisation": user.organisation, "plan": "pro" }))
}

fn unauthorized(why: &str) -> Response {
    (StatusCode::UNAUTHORIZED, Json(json!({ "error": why }))).into_response()
}

/// The session's cookie.
fn session(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split("; "));
    cookies.find_map(|cookie| cookie.strip_prefix("session="))
}
