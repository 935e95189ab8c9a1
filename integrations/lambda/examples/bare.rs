//! A function without a gate, as small as `lambda_http` makes one: what `benches/lambda/run` holds
//! the size and the cold start of `examples/lambda-http` against.

use lambda_http::{Body, Error, Request, Response, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    lambda_http::run(service_fn(answer)).await
}

async fn answer(_: Request) -> Result<Response<Body>, Error> {
    Ok(Response::new("found".into()))
}
