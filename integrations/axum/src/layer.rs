//! The layer, aware of what axum stores in a request: the peer, the path before `nest`, and the
//! route its router matched.

use std::net::IpAddr;

use axum::extract::{MatchedPath, OriginalUri};
use http::{Extensions, Request, Uri};
use tallygate::Gate;
use tallygate::middleware::HttpView;
use tower_layer::Layer;

use crate::service::{Counted, GateService};

/// Puts a [`Gate`] in front of the routes that were added before it. It has no type parameters, so
/// it can be named, kept and returned.
///
/// It is [`tallygate::middleware::GateLayer`] with axum's `ConnectInfo`, `OriginalUri`,
/// `MatchedPath` and `Body`.
#[derive(Clone, Debug)]
pub struct GateLayer(tallygate::middleware::GateLayer);

impl GateLayer {
    /// A layer over this gate. Add it with `.layer(..)` after the routes that it is for.
    pub fn new(gate: &Gate) -> Self {
        let layer = tallygate::middleware::GateLayer::new(gate);
        let layer = layer.peer_from(peer).original_path_from(original);
        Self(layer.matched_pattern_from(matched).counting_reads())
    }

    /// The gate's view of a request.
    pub(crate) fn view<'a>(&self, request: &'a Request<axum::body::Body>) -> HttpView<'a> {
        self.0.view(request)
    }

    /// Omits the handles for handlers, so this crate's extractors do not work. For what an admitted
    /// request then allocates, see [`tallygate::middleware::GateLayer::without_extensions`].
    #[must_use]
    pub fn without_extensions(self) -> Self {
        Self(self.0.without_extensions())
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService(self.0.layer(Counted(inner)))
    }
}

/// The connection's peer, if the host serves with connect info.
#[cfg(feature = "tokio")]
pub(crate) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use tallygate::middleware::Peer;

    let info = extensions.get::<ConnectInfo<SocketAddr>>();
    let address = info.map(|ConnectInfo(address)| address.ip());
    address.or_else(|| Some(extensions.get::<Peer>()?.0.ip()))
}

/// Without tokio there is no axum listener: the host supplies the peer.
#[cfg(not(feature = "tokio"))]
pub(crate) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    Some(extensions.get::<tallygate::middleware::Peer>()?.0.ip())
}

fn original(extensions: &Extensions) -> Option<&Uri> {
    Some(&extensions.get::<OriginalUri>()?.0)
}

/// The whole pattern even inside `nest`, as [`original`] is the whole path.
fn matched(extensions: &Extensions) -> Option<&str> {
    Some(extensions.get::<MatchedPath>()?.as_str())
}
