//! The layer, knowing what axum leaves in a request: the peer, the path before `nest`, and which
//! route its router has matched.

use std::net::IpAddr;

use axum::extract::{MatchedPath, OriginalUri};
use http::{Extensions, Request, Uri};
use tollgate::Gate;
use tollgate::middleware::HttpView;
use tower_layer::Layer;

use crate::service::{Counted, Tollgate};

/// Puts a [`Gate`] in front of the routes that were added before it. It has no type parameters, so
/// it can be named, kept and returned.
///
/// It is [`tollgate::middleware::TollgateLayer`] with axum's `ConnectInfo`, `OriginalUri`,
/// `MatchedPath` and `Body`.
#[derive(Clone, Debug)]
pub struct TollgateLayer(tollgate::middleware::TollgateLayer);

impl TollgateLayer {
    /// A layer over this gate.
    pub fn new(gate: &Gate) -> Self {
        let layer = tollgate::middleware::TollgateLayer::new(gate);
        let layer = layer.peer_from(peer).original_path_from(original);
        Self(layer.matched_pattern_from(matched).counting_reads())
    }

    /// A request as the gate sees it.
    pub(crate) fn view<'a>(&self, request: &'a Request<axum::body::Body>) -> HttpView<'a> {
        self.0.view(request)
    }

    /// Without handles for handlers: the extractors of this crate do not work. What an admitted
    /// request allocates then: [`tollgate::middleware::TollgateLayer::without_extensions`].
    #[must_use]
    pub fn without_extensions(self) -> Self {
        Self(self.0.without_extensions())
    }
}

impl<S> Layer<S> for TollgateLayer {
    type Service = Tollgate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Tollgate(self.0.layer(Counted(inner)))
    }
}

/// The connection's other end, where the host serves with connect info.
#[cfg(feature = "tokio")]
pub(crate) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use tollgate::middleware::Peer;

    let info = extensions.get::<ConnectInfo<SocketAddr>>();
    let address = info.map(|ConnectInfo(address)| address.ip());
    address.or_else(|| Some(extensions.get::<Peer>()?.0.ip()))
}

/// Without tokio there is no listener of axum's: the host says who the peer is.
#[cfg(not(feature = "tokio"))]
pub(crate) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    Some(extensions.get::<tollgate::middleware::Peer>()?.0.ip())
}

fn original(extensions: &Extensions) -> Option<&Uri> {
    Some(&extensions.get::<OriginalUri>()?.0)
}

/// Also inside `nest` it is the whole pattern, as [`original`] is the whole path.
fn matched(extensions: &Extensions) -> Option<&str> {
    Some(extensions.get::<MatchedPath>()?.as_str())
}
