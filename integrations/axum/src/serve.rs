//! Serves an app behind a gate, from its first request to the last record of usage. A program that
//! ends otherwise, or has TLS, calls `axum::serve` and [`Gate::close`] itself.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tallygate::Gate;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Time for requests in flight after a signal: less than the 30 s that platforms grant.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// Why [`serve`] has ended otherwise than by a signal.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The signals cannot be waited for, or the listener failed.
    Io(io::Error),
    /// The app was served to its end, and the gate could not be closed.
    Close(tallygate::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "serving failed: {error}"),
            Self::Close(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Close(error) => Some(error),
        }
    }
}

/// Serves the app until ctrl-c or SIGTERM, as docker and Kubernetes send it. Then no connection is
/// accepted any more, requests in flight have 20 s to end, and the gate is closed: usage is
/// written, leases are given back. A client that has sent only a part of a request does not prevent
/// that.
///
/// Callers have an address, for limits `per ip` (axum's `ConnectInfo`), and small answers are sent
/// at once (`TCP_NODELAY`).
///
/// ```no_run
/// # use axum::Router;
/// # use tallygate::Gate;
/// # async fn example(app: Router, gate: Gate) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// tallygate_axum::serve(listener, app, &gate).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// See [`ServeError`]. The gate is closed, or as far as it can be, in either case.
pub async fn serve(listener: TcpListener, app: Router, gate: &Gate) -> Result<(), ServeError> {
    let served = until_stopped(listener, app).await.map_err(ServeError::Io);
    let closed = gate.close().await.map_err(ServeError::Close);
    served.and(closed)
}

async fn until_stopped(listener: TcpListener, app: Router) -> io::Result<()> {
    let stop = stop_signal()?;
    let (stopping, stopped) = oneshot::channel();
    // A socket that has been closed meanwhile ends by itself.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop.await;
        tracing::info!("draining");
        let _ = stopping.send(()); // the other side waits for it as long as the server runs
    });
    let late = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(DRAIN_WITHIN).await,
            // The server has ended before any signal.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = server => served,
        () = late => {
            tracing::warn!("some requests took longer than {DRAIN_WITHIN:?} and were cut");
            Ok(())
        }
    }
}

/// Ends at ctrl-c or SIGTERM.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends at ctrl-c.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    // Without a handler ctrl-c ends the process at once.
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}
