//! Amazon's DynamoDB Local, and a client without TLS.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
pub use dynamodb_local::Server;

use crate::rights::InPolicies;

/// A client of the DynamoDB at this endpoint, with the rights of our policies and no others.
pub fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .interceptor(InPolicies)
        .credentials_provider(Credentials::new("x", "y", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

/// What programs are told of the DynamoDB at this endpoint, as every AWS tool is.
pub fn env(endpoint: &str) -> [(&str, &str); 4] {
    [
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
    ]
}
