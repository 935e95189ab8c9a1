//! How the app listens and logs, and which pages of other origins may use it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tower_http::cors::CorsLayer;
use tracing_subscriber::EnvFilter;

/// The front end, where it is not served from here.
const FRONT_END: HeaderValue = HeaderValue::from_static("https://notes.example.com");
/// Time for requests in flight after a signal. Streams that are open then are cut.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// Logs to stderr; `RUST_LOG` sets the level.
pub(crate) fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
}

/// Lets the front end send its cookie.
pub(crate) fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(FRONT_END)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE])
}

/// Listens on `PORT` (3000), and prints where.
pub(crate) async fn listen() -> io::Result<TcpListener> {
    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse::<u16>());
    let port = port.map_err(|_| io::Error::other("PORT is no port"))?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(listener)
}

/// Serves until ctrl-c or SIGTERM; then requests in flight have some seconds to end.
pub(crate) async fn run(listener: TcpListener, app: Router) -> io::Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, mut stopping) = watch::channel(());
    let mut late = stop.subscribe();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let _ = stop.send(()); // both wait for it as long as the server runs
    });
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = stopping.changed().await;
    });
    tokio::select! {
        served = server => served,
        () = async {
            let _ = late.changed().await;
            tokio::time::sleep(DRAIN_WITHIN).await;
        } => Ok(()),
    }
}
