//! The tower layer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::{Extensions, Request, Uri};
use http_body::Body;
use tower_layer::Layer;

use super::service::GateService;
use super::shared::{FindCaller, LayerShared};
use super::view::{HttpView, Peer};
use crate::error::Error;
use crate::gate::Gate;
use crate::identity::Caller;

/// The tower layer that puts a [`Gate`] in front of a service. A handler finds an
/// [`Admitted`](crate::Admitted) in the extensions of its request.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # async fn example() {
/// use tallygate::middleware::GateLayer;
/// use tower_layer::Layer;
///
/// let (gate, _clock) = tallygate::testing::gate(r#"
///     default-plan = "free"
///     [plan.free]
///     quota.requests = "10k/month"
/// "#);
/// # struct MyService;
/// let service = GateLayer::new(&gate).layer(MyService);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GateLayer {
    pub(super) shared: Arc<LayerShared>,
}

impl GateLayer {
    /// A layer over this gate. It leaves handles for handlers in each admitted request, and writes
    /// limit headers into each response.
    pub fn new(gate: &Gate) -> Self {
        let shared = LayerShared {
            gate: gate.clone(),
            extensions: true,
            peer: |extensions| Some(extensions.get::<Peer>()?.0.ip()),
            original: None,
            said_unheld: AtomicBool::new(false),
            matched: None,
            caller: None,
            route: None,
            reads: false,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets how the caller is found in the request's extensions, where the host's own
    /// authentication
    /// in front has left what it knows. `None`: the caller is identified as without this, by
    /// [`GateBuilder::identify`](crate::GateBuilder::identify) and the `[[identify]]` tables. It is
    /// called once for each request, before the gate is asked, and must not block.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # async fn example() {
    /// use tallygate::identity::Caller;
    /// use tallygate::middleware::GateLayer;
    ///
    /// /// What the authentication in front has put into the extensions.
    /// #[derive(Clone)]
    /// struct User {
    ///     org: String,
    ///     id: String,
    ///     plan: String,
    /// }
    ///
    /// # let (gate, _clock) = tallygate::testing::gate("default-plan = \"free\"\n[plan.free]");
    /// let layer = GateLayer::new(&gate).caller(|extensions| {
    ///     let user = extensions.get::<User>()?;
    ///     Some(Caller::new(&user.org).user(&user.id).plan(&user.plan))
    /// });
    /// # drop(layer);
    /// # }
    /// ```
    ///
    /// The layer leaves the caller in the extensions, so that the adapters' usage routes within it
    /// know it too. A host may also put a [`Caller`] there by itself, without this.
    #[must_use]
    pub fn caller(
        self,
        find: impl Fn(&Extensions) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.caller = Some(FindCaller(Arc::new(find))))
    }

    /// Decides every request by this route of the plan file, whatever its `match`, which may then
    /// be `[]`. For the layer of one route in the host's router, in place of a layer around all of
    /// them: a request that passes both is charged by both, which is logged as an error.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # async fn example() -> Result<(), tallygate::Error> {
    /// use tallygate::middleware::GateLayer;
    ///
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [route.chat]
    ///     match = []
    ///     cost  = { requests = 5 }
    ///     [plan.free]
    ///     quota.requests = "10k/month"
    /// "#);
    /// let layer = GateLayer::new(&gate).route("chat")?;
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It follows the plan file by the route's name. Where a later file has no such route, patterns
    /// decide, and an error is logged.
    ///
    /// # Errors
    ///
    /// [`Error::Routes`], with the nearest name, if the plan file in force has no such route.
    pub fn route(self, name: &str) -> Result<Self, Error> {
        let name = checked_route(&self.shared.gate, name)?;
        Ok(self.with(|shared| shared.route = Some(name)))
    }

    /// Puts the caller into the request's extensions, if the layer finds one. For adapters whose
    /// other layers ask the gate before this one does.
    #[doc(hidden)]
    pub fn name_caller<B>(&self, request: &mut Request<B>) {
        self.shared.name_caller(request);
    }

    /// Omits the handles for handlers: no [`Admitted`](crate::Admitted) in the request's
    /// extensions, so the adapters' extractors do not work. An admitted request then allocates only
    /// the value of `RateLimit` and room for it among the response's headers, or nothing where the
    /// gate sends no limit headers (`tests/cost/allocations.rs`).
    #[must_use]
    pub fn without_extensions(self) -> Self {
        self.with(|shared| shared.extensions = false)
    }

    /// Charges request bytes as they are read; the inner service must be a
    /// [`CountReads`](super::CountReads). Otherwise the length that the body reports is charged.
    /// That is right for bodies in memory; a server's body reports what its client has stated.
    ///
    /// ```
    /// # use tallygate::middleware::{CountReads, ReadBody, GateLayer};
    /// # use tower_layer::Layer;
    /// # fn example<S>(gate: &tallygate::Gate, service: S) {
    /// let gated = GateLayer::new(gate).counting_reads().layer(CountReads(service));
    /// # }
    /// ```
    #[must_use]
    pub fn counting_reads(self) -> Self {
        self.with(|shared| shared.reads = true)
    }

    /// Sets how the connection's peer is found in the request's extensions. For adapters.
    #[must_use]
    pub fn peer_from(self, find: fn(&Extensions) -> Option<IpAddr>) -> Self {
        self.with(|shared| shared.peer = find)
    }

    /// Sets how the requested path is found after a router has stripped a prefix. For adapters.
    #[must_use]
    pub fn original_path_from(self, find: for<'a> fn(&'a Extensions) -> Option<&'a Uri>) -> Self {
        self.with(|shared| shared.original = Some(find))
    }

    /// This layer's view of a request for the gate. For adapters.
    pub fn view<'a, B: Body>(&'a self, request: &'a Request<B>) -> HttpView<'a> {
        self.shared.view_of(request)
    }

    /// Sets how the pattern matched by a router is found, for the whole of that path. For adapters.
    #[must_use]
    pub fn matched_pattern_from(self, find: for<'a> fn(&'a Extensions) -> Option<&'a str>) -> Self {
        self.with(|shared| shared.matched = Some(find))
    }

    fn with(self, change: impl FnOnce(&mut LayerShared)) -> Self {
        let mut shared = LayerShared {
            gate: self.shared.gate.clone(),
            said_unheld: AtomicBool::new(false),
            caller: self.shared.caller.clone(),
            route: self.shared.route.clone(),
            ..*self.shared
        };
        change(&mut shared);
        Self { shared: Arc::new(shared) }
    }
}

/// The name of a route of the plan file in force.
fn checked_route(gate: &Gate, name: &str) -> Result<Arc<str>, Error> {
    let catalog = gate.catalog();
    let known = catalog.routes.named(name).map(|id| catalog.routes[id].name.clone());
    known.ok_or_else(|| Error::Routes(catalog.no_route(name)))
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService::new(inner, self.shared.clone())
    }
}
