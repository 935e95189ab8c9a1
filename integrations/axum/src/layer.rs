//! The layer, aware of what axum stores in a request: the peer, the path before `nest`, and the
//! route its router matched.

use std::net::IpAddr;

use axum::extract::{MatchedPath, OriginalUri};
use http::{Extensions, Request, Uri};
use tallygate::identity::Caller;
use tallygate::middleware::HttpView;
use tallygate::{Error, Gate};
use tower_layer::Layer;

use crate::service::{Counted, GateService};

/// Puts a [`Gate`] in front of the routes that were added before it. It has no type parameters, so
/// it can be named, kept and returned.
///
/// It is [`tallygate::middleware::GateLayer`] with axum's `ConnectInfo`, `OriginalUri`,
/// `MatchedPath` and `Body`.
#[derive(Clone, Debug)]
pub struct GateLayer {
    gate: Gate,
    layer: tallygate::middleware::GateLayer,
}

/// A layer over this gate, for the routers that take either.
impl From<&Gate> for GateLayer {
    fn from(gate: &Gate) -> Self {
        Self::new(gate)
    }
}

impl From<&Self> for GateLayer {
    fn from(layer: &Self) -> Self {
        layer.clone()
    }
}

impl GateLayer {
    /// A layer over this gate. Add it with `.layer(..)` after the routes that it is for.
    pub fn new(gate: &Gate) -> Self {
        let layer = tallygate::middleware::GateLayer::new(gate);
        let layer = layer.peer_from(peer).original_path_from(original);
        let layer = layer.matched_pattern_from(matched).counting_reads();
        Self { gate: gate.clone(), layer }
    }

    /// Sets how the caller is found in the request's extensions, where the host's own
    /// authentication, in a layer around this one, has left what it knows: see
    /// [`tallygate::middleware::GateLayer::caller`].
    ///
    /// ```
    /// use axum::Router;
    /// use tallygate_axum::{Caller, GateLayer};
    ///
    /// #[derive(Clone)]
    /// struct User {
    ///     org: String,
    ///     id: String,
    ///     plan: String,
    /// }
    ///
    /// # fn example(gate: &tallygate::Gate, routes: Router, authenticate: GateLayer) -> Router {
    /// let gated = GateLayer::new(gate).caller(|extensions| {
    ///     let user = extensions.get::<User>()?;
    ///     Some(Caller::new(&user.org).user(&user.id).plan(&user.plan))
    /// });
    /// routes.layer(gated).layer(authenticate) // the one added last is outermost
    /// # }
    /// ```
    #[must_use]
    pub fn caller(
        self,
        find: impl Fn(&Extensions) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self { layer: self.layer.caller(find), ..self }
    }

    /// Decides every request by this route of the plan file, whatever its `match`, which may then
    /// be `[]`: a route is named once, at the router. Such a layer belongs to the method router,
    /// and its route to a router without a layer around it; merge both. A layer around a router
    /// runs before those of its routes, so it cannot know their names, and a request that passes
    /// two layers is charged by both, which is logged as an error.
    ///
    /// ```
    /// use axum::Router;
    /// use axum::routing::{get, post};
    /// use tallygate::{Error, Gate};
    /// use tallygate_axum::GateLayer;
    ///
    /// fn app(gate: &Gate) -> Result<Router, Error> {
    ///     let chat = post(async || "hello").layer(GateLayer::new(gate).route("chat")?);
    ///     Ok(Router::new()
    ///         .route("/v1/search", get(async || "found"))
    ///         .layer(GateLayer::new(gate)) // for the routes before it
    ///         .route("/v1/chat", chat))
    /// }
    /// ```
    ///
    /// An authentication of the host around the whole router still runs first. Requests with
    /// another method are gated too, and answered with 405; `route_layer` leaves those out.
    /// [`DigestBodies`](crate::DigestBodies) finds routes by pattern: for `once-by` with bodies,
    /// keep the `match`.
    ///
    /// # Errors
    ///
    /// [`Error::Routes`], with the nearest name, if the plan file in force has no such route.
    pub fn route(self, name: &str) -> Result<Self, Error> {
        Ok(Self { layer: self.layer.route(name)?, ..self })
    }

    /// Puts the caller into the request's extensions, if it finds one.
    pub(crate) fn name_caller<B>(&self, request: &mut Request<B>) {
        self.layer.name_caller(request);
    }

    /// The gate's view of a request.
    pub(crate) fn view<'a>(&'a self, request: &'a Request<axum::body::Body>) -> HttpView<'a> {
        self.layer.view(request)
    }

    /// The gate.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Omits the handles for handlers, so this crate's extractors do not work. For what an admitted
    /// request then allocates, see [`tallygate::middleware::GateLayer::without_extensions`].
    #[must_use]
    pub fn without_extensions(self) -> Self {
        Self { layer: self.layer.without_extensions(), ..self }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService(self.layer.layer(Counted(inner)))
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
