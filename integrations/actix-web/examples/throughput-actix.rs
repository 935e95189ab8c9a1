//! A server that says one word, `bare`, `gated`, or behind a gate that is `silent` (it writes no
//! limit headers): what `benches/throughput/run` measures. Runs where `tallygate.toml` is, on one
//! worker, and prints its address.

use actix_web::{App, HttpServer, web};
use tallygate::Gate;
use tallygate::wire::{HeaderStyle, WireOptions};
use tallygate_actix_web::GateMiddleware;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let how = std::env::args().nth(1).unwrap_or_default();
    let style = if how == "silent" { HeaderStyle::Off } else { HeaderStyle::Draft11 };
    let wire = WireOptions { style, ..WireOptions::default() };
    let gate = Gate::builder("tallygate.toml").wire(wire).open().await?;
    let word = || web::get().to(async || "found");
    let serving = if how == "bare" {
        let app = move || App::new().route("/", word());
        let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0))?;
        println!("{}", server.addrs()[0]);
        server.run()
    } else {
        let app = move || App::new().wrap(GateMiddleware::new(&gate)).route("/", word());
        let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0))?;
        println!("{}", server.addrs()[0]);
        server.run()
    };
    Ok(serving.await?)
}
