//! A server that says one word, bare or behind a gate: what `benches/throughput/run` measures.
//! Runs where `tollgate.toml` is, on one worker, and prints its address.

use actix_web::{App, HttpServer, web};
use tollgate::Gate;
use tollgate_actix_web::Tollgate;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_gated = std::env::args().nth(1).is_some_and(|word| word == "gated");
    let gate = Gate::open("tollgate.toml").await?;
    let word = || web::get().to(async || "found");
    let serving = if is_gated {
        let app = move || App::new().wrap(Tollgate::new(&gate)).route("/", word());
        let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0))?;
        println!("{}", server.addrs()[0]);
        server.run()
    } else {
        let app = move || App::new().route("/", word());
        let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0))?;
        println!("{}", server.addrs()[0]);
        server.run()
    };
    Ok(serving.await?)
}
