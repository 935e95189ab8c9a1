//! Notes of an organisation: read, added, exported, and streamed as they come.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

use crate::tables::{Tables, User};

/// Most bytes of a note.
const LONGEST: usize = 1000;

/// The routes below `/api/notes`.
pub(crate) fn routes() -> Router<Tables> {
    Router::new().route("/", get(list).post(add)).route("/export", get(export))
}

async fn list(State(tables): State<Tables>, Extension(user): Extension<User>) -> Json<Vec<String>> {
    Json(tables.notes(&user.organisation))
}

async fn add(
    State(tables): State<Tables>,
    Extension(user): Extension<User>,
    note: String,
) -> (StatusCode, &'static str) {
    if note.len() > LONGEST {
        return (StatusCode::UNPROCESSABLE_ENTITY, "a note has at most 1000 bytes\n");
    }
    tables.add_note(&user.organisation, note);
    (StatusCode::CREATED, "added\n")
}

async fn export(State(tables): State<Tables>, Extension(user): Extension<User>) -> String {
    tables.notes(&user.organisation).into_iter().map(|note| note + "\n").collect()
}

/// `GET /api/events`: the organisation's notes as server-sent events, from now on. A stream that is
/// too far behind misses some.
pub(crate) async fn events(
    State(tables): State<Tables>,
    Extension(user): Extension<User>,
) -> Response {
    let Some(news) = tables.news(&user.organisation) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let notes = BroadcastStream::new(news).filter_map(Result::ok);
    // A line end would end the field; `json_data` cannot fail for text.
    let events = notes.filter_map(|note| Event::default().event("note").json_data(note).ok());
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::default()).into_response()
}
