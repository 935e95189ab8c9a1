//! The operator's routes on a unix socket: for the command `tallygate` on the same machine, while
//! the service has its store.
//!
//! The file's rights are the permission: this process's user alone opens it, and root. The kernel
//! says who has connected, and another user is refused even where the rights were widened later.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::serve::{IncomingStream, Listener};
use axum_core::response::{IntoResponse, Response};
use http::{StatusCode, header};
use tallygate::Gate;
use tallygate::admin::Admin;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::routes::{by_token, by_user, operate_as, response};
use crate::socket_file::SocketFile;

/// Connections at once: one operator has one.
const CONNECTIONS: usize = 16;
/// Longest life of a connection. A command has done with one in seconds, and `top` makes another.
const LIFE: Duration = Duration::from_secs(120);
/// Time for its first byte: a command sends its request at once, and one that sends nothing would
/// keep its place from others.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
/// Time for requests in flight when it is closed.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether the gate is closing.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Pause after a connection that could not be taken: there are no descriptors, for example.
const PAUSE: Duration = Duration::from_millis(100);
/// Root may do all that this process's user may.
const ROOT: u32 = 0;

/// The operator's routes on a unix socket. [`admin_socket`] returns it. It is served until this is
/// [closed](Self::close) or dropped, or the gate is closed: then no connection is taken any more,
/// the file goes, and requests in flight have 5 s to end.
#[derive(Debug)]
#[must_use = "the socket is served until this is dropped"]
pub struct AdminSocket {
    path: PathBuf,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl AdminSocket {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends it: returns once requests in flight are answered, after 5 s at most, and the file is
    /// gone.
    pub async fn close(self) {
        let _ = self.stop.send(()); // it may have ended with the gate
        let _ = self.serving.await;
    }
}

/// Serves the [operator's routes](tallygate::admin) on a unix socket at this path, for the command
/// `tallygate` on the same machine: `tallygate tenant list --url unix:/run/acme/tallygate.sock`.
///
/// Its owner, the user of this process, opens it, and root: they need no token, may change
/// everything, and are in histories as `uid 1000`. A request with a token is its operator's.
/// The socket is never there with wider rights. One that a process which has ended has left behind
/// is replaced; one of a process that runs, and any other file, is an error. Beside it stays a
/// file `.lock`.
///
/// ```no_run
/// # use axum::Router;
/// # use tallygate::Gate;
/// # async fn example(app: Router, gate: Gate) -> Result<(), Box<dyn std::error::Error>> {
/// let socket = tallygate_axum::admin_socket(&gate, "/run/acme/tallygate.sock").await?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// tallygate_axum::serve(listener, app, &gate).await?; // which closes the gate, and so the socket
/// socket.close().await;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// The socket cannot be made there, or something else is there.
pub async fn admin_socket(gate: &Gate, path: impl AsRef<Path>) -> io::Result<AdminSocket> {
    let (listener, file) = SocketFile::listen(path.as_ref()).await?;
    let listener =
        OwnersAlone { listener, owner: file.owner(), room: Semaphore::new(CONNECTIONS).into() };
    let path = file.path().to_owned();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(serve(gate.admin(), listener, file, stopped));
    Ok(AdminSocket { path, stop, serving })
}

async fn serve(
    admin: Admin,
    listener: OwnersAlone,
    file: SocketFile,
    stopped: oneshot::Receiver<()>,
) {
    let (ending, ended) = oneshot::channel();
    let gate = admin.clone();
    let stop = async move {
        tokio::select! {
            _ = stopped => {} // dropped, or closed
            () = closing(&gate) => {}
        }
        drop(file); // no client connects to what is about to end
        let _ = ending.send(());
    };
    let app: Router = Router::new().fallback(move |request| operate(admin, request));
    let app = app.into_make_service_with_connect_info::<Peer>();
    let late = async {
        match ended.await {
            Ok(()) => tokio::time::sleep(DRAIN_WITHIN).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = axum::serve(listener, app).with_graceful_shutdown(stop) => {
            if let Err(error) = served {
                tracing::warn!(%error, "the admin socket has ended");
            }
        }
        () = late => {
            tracing::warn!("requests at the admin socket took longer than {DRAIN_WITHIN:?}");
        }
    }
}

/// Ends once the gate is closing.
async fn closing(gate: &Admin) {
    while !gate.is_closing() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn operate(admin: Admin, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<Peer>>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let operator = match parts.headers.contains_key(header::AUTHORIZATION) {
        true => by_token(&admin, &parts).await,
        false => by_user(&admin, format!("uid {}", peer.0), &parts),
    };
    match operator {
        Ok(operator) => operate_as(&admin, &operator, parts, body).await,
        Err(refused) => response(refused),
    }
}

/// The user at the other end.
#[derive(Clone, Copy, Debug)]
struct Peer(u32);

impl Connected<IncomingStream<'_, OwnersAlone>> for Peer {
    fn connect_info(stream: IncomingStream<'_, OwnersAlone>) -> Self {
        *stream.remote_addr()
    }
}

/// Takes connections of the socket's owner, and of root.
struct OwnersAlone {
    listener: UnixListener,
    owner: u32,
    room: Arc<Semaphore>,
}

impl OwnersAlone {
    async fn next(&mut self) -> io::Result<(Connection, Peer)> {
        let place = self.room.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        if uid != self.owner && uid != ROOT {
            let text = format!("the user {uid} is neither its owner nor root");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let ends = Box::pin(tokio::time::sleep(BEGIN_WITHIN));
        Ok((Connection { stream, ends, has_begun: false, _place: place }, Peer(uid)))
    }
}

impl Listener for OwnersAlone {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        loop {
            match self.next().await {
                Ok(next) => return next,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin socket was not taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer(self.owner))
    }
}

/// A connection with its place among those at once, for as long as it may live.
struct Connection {
    stream: UnixStream,
    ends: Pin<Box<Sleep>>,
    has_begun: bool,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(())); // as if the other side had closed it
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if !self.has_begun && read.is_ready() {
            self.has_begun = true;
            let life = self.ends.deadline() + LIFE;
            self.ends.as_mut().reset(life);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
