//! One path of a request, as often as asked and with nothing beside it, for `benches/instructions`:
//! callgrind counts what [`walk_and_count`] executes.

use tallygate::middleware::GateLayer;
use tallygate::wire::HeaderStyle;
use tokio::runtime::Runtime;
use tower::Layer;

use crate::{decide, identify, layer, setup};

/// A path by name, ready to be walked once a call.
type Path = Box<dyn FnMut()>;

/// Walks a path so many times: `NAME:TIMES`.
pub fn run(rt: &Runtime, what: &str) {
    let _within = rt.enter();
    let (name, times) = what.split_once(':').expect("NAME:TIMES");
    let times: usize = times.parse().expect("a number");
    let mut path = path(rt, name);
    // Leases have grown, and every table that grows with use.
    for n in 0..WARM {
        path();
        if n % AT_ONCE == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    for _ in 0..times / AT_ONCE {
        walk_and_count(&mut path, AT_ONCE);
        // Valgrind runs one thread at a time: the runtime's renews the leases meanwhile. Without
        // this a walk that waits for one spins, and is counted doing so.
        std::thread::sleep(PAUSE);
    }
}

/// Walks between pauses: fewer than the leases last after the warm-up.
const AT_ONCE: usize = 500;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// What is counted, by this name.
#[inline(never)]
fn walk_and_count(path: &mut Path, times: usize) {
    (0..times).for_each(|_| path());
}

/// Walks before those that are counted.
const WARM: usize = 20_000;

fn path(rt: &Runtime, name: &str) -> Path {
    let by_header = || setup::request("x-tenant", &setup::name(0));
    let gate = |plans, style| setup::gate_by(rt, setup::BY_HEADER, plans, style);
    let through = |service: &mut dyn FnMut(http::Request<setup::Nothing>), request: &_| {
        service(http::Request::clone(request));
    };
    macro_rules! layered {
        ($service:expr, $request:expr) => {{
            let (mut service, request) = (layer::driven($service), $request);
            Box::new(move || through(&mut service, &request))
        }};
    }
    let bare = tower::service_fn(layer::bare);
    match name {
        "floor" => decide::floor_once(),
        "decide" => {
            let gate = setup::gate(rt, HeaderStyle::Off);
            let drill = setup::drills(rt, &gate, 1, 1).remove(0);
            Box::new(move || setup::admit(&drill))
        }
        "decide-logged" => {
            let dir = tempfile::tempdir().expect("a directory for a file");
            let gate = decide::log_gate(rt, &dir);
            let drill = setup::drills(rt, &gate, 1, 1).remove(0);
            Box::new(move || {
                let _as_long = &dir;
                setup::admit(&drill);
            })
        }
        "bare" => layered!(bare, by_header()),
        "tower-governor" => layered!(layer::governed().layer(bare), by_header()),
        "tower-governor-headers" => {
            layered!(layer::governed_with_headers().layer(bare), by_header())
        }
        "layer" => {
            let layer = GateLayer::new(&gate(setup::PLANS, HeaderStyle::Off));
            layered!(layer.without_extensions().layer(bare), by_header())
        }
        "layer-one-rate" => {
            let layer = GateLayer::new(&gate(setup::ONE_RATE, HeaderStyle::Off));
            layered!(layer.without_extensions().layer(bare), by_header())
        }
        "layer-headers-one-rate" => {
            let layer = GateLayer::new(&gate(setup::ONE_RATE, HeaderStyle::Draft11));
            layered!(layer.without_extensions().layer(bare), by_header())
        }
        "layer-headers" => {
            let layer = GateLayer::new(&gate(setup::PLANS, HeaderStyle::Draft11));
            layered!(layer.without_extensions().layer(bare), by_header())
        }
        "layer-headers-extractors" => {
            let layer = GateLayer::new(&gate(setup::PLANS, HeaderStyle::Draft11));
            layered!(layer.layer(bare), by_header())
        }
        _ => match name.strip_prefix("identify-") {
            Some(way) => identify::once(rt, way),
            None => panic!("no path `{name}`"),
        },
    }
}
