//! A minimal DynamoDB client for Lambda, configured from the environment that Lambda sets.
//!
//! `aws-config` looks in more places (profiles, web identities, instance metadata), none of which
//! exist in a function, and the SDK's own HTTP client brings HTTP/2, which DynamoDB does not speak,
//! and reads the system's certificates before its first call. This client is 2 MB smaller and ready
//! at once: HTTP/1.1 over the core's connections, which bring TLS by rustls with Mozilla's roots
//! compiled in (or those in `SSL_CERT_FILE`), and go by the proxy in `HTTPS_PROXY`.
//!
//! Deliberately left out: credentials from other sources that need renewal (a sandbox has its own
//! in its environment; those of a Managed Instance were not tried on AWS).
//! [`DynamoDb`](tallygate::store::DynamoDb) takes any client.

use std::time::Duration;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::{Client, Config};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lambda_http::Error;
use tallygate::adapter::HttpsConnector;

/// Timeout for opening a connection: a third of the store's total time for a call, so that a read
/// has time for two more attempts.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// A client with the function's region and its role's credentials, both from the environment that
/// Lambda sets (`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`).
/// `AWS_ENDPOINT_URL_DYNAMODB` or `AWS_ENDPOINT_URL` overrides the endpoint, and
/// `AWS_USE_FIPS_ENDPOINT` and `AWS_USE_DUALSTACK_ENDPOINT` are honored.
///
/// To run a program that shares its `main` with a function on your own machine:
/// `eval "$(aws configure export-credentials --format env)"`.
///
/// # Errors
///
/// The region or the credentials are missing. TLS cannot be set up: no feature for it (`tls-ring`
/// is on by default), or what the environment names as roots or proxy is of no use.
pub fn dynamodb_client() -> Result<Client, Error> {
    client(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn client(env: impl Fn(&str) -> Option<String>) -> Result<Client, Error> {
    let needed = |name: &str| {
        env(name).ok_or_else(|| {
            format!(
                "{name} is not set: where credentials come another way than in the environment \
                 (AWS_CONTAINER_CREDENTIALS_FULL_URI, a profile), make the client with aws-config"
            )
        })
    };
    let is_on = |name: &str| env(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let region = env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION"));
    let credentials = Credentials::new(
        needed("AWS_ACCESS_KEY_ID")?,
        needed("AWS_SECRET_ACCESS_KEY")?,
        env("AWS_SESSION_TOKEN"),
        None,
        "environment",
    );
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http()?)
        .region(Region::new(region.ok_or("AWS_REGION is not set")?))
        .credentials_provider(credentials)
        .use_fips(is_on("AWS_USE_FIPS_ENDPOINT"))
        .use_dual_stack(is_on("AWS_USE_DUALSTACK_ENDPOINT"));
    config.set_endpoint_url(env("AWS_ENDPOINT_URL_DYNAMODB").or_else(|| env("AWS_ENDPOINT_URL")));
    Ok(Client::from_conf(config.build()))
}

/// Connection pool behind the SDK's connector interface.
#[derive(Clone, Debug)]
struct Connections {
    client: legacy::Client<HttpsConnector, SdkBody>,
    read_within: Option<Duration>,
}

fn http() -> Result<SharedHttpClient, Error> {
    let connector = HttpsConnector::new(Some(CONNECT_WITHIN))?;
    let client = legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new()) // without it, idle connections stay open forever
        .build(connector);
    Ok(http_client_fn(move |settings, _| {
        let read_within = settings.read_timeout();
        SharedHttpConnector::new(Connections { client: client.clone(), read_within })
    }))
}

impl HttpConnector for Connections {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => {
                return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into())));
            }
        };
        let (answer, read_within) = (self.client.request(request), self.read_within);
        HttpConnectorFuture::new(async move {
            let answer = match read_within {
                Some(within) => tokio::time::timeout(within, answer)
                    .await
                    .map_err(|late| ConnectorError::timeout(late.into()))?,
                None => answer.await,
            };
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use tallygate::store::{
        Change, DynamoDb, Key, Store, StoreErrorKind, Value, When, Write as Put,
    };

    use super::*;

    fn with(pairs: &[(&'static str, &str)]) -> Result<Client, Error> {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name);
        client(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    fn at(endpoint: &str) -> Client {
        let client = with(&[
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("AWS_SESSION_TOKEN", "of a role"),
            ("AWS_ENDPOINT_URL_DYNAMODB", endpoint),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1/of/all/services"),
        ]);
        client.unwrap()
    }

    fn put() -> Put {
        let key = Key { pk: "1#test#a".into(), sk: "b".into() };
        let change = vec![Change::Set("n".into(), Value::Int(1))];
        Put { key, when: vec![When::Absent], change }
    }

    #[test]
    fn what_is_missing_is_named() {
        let region = ("AWS_REGION", "eu-central-1");
        let id = ("AWS_ACCESS_KEY_ID", "x");
        let secret = ("AWS_SECRET_ACCESS_KEY", "x");
        for (pairs, missing) in [
            (&[id, secret][..], "AWS_REGION"),
            (&[region, secret], "AWS_ACCESS_KEY_ID"),
            (&[region, id], "AWS_SECRET_ACCESS_KEY"),
        ] {
            assert!(with(pairs).unwrap_err().to_string().contains(missing));
        }
        assert!(with(&[region, id, secret]).is_ok());
    }

    #[tokio::test]
    async fn it_signs_for_the_role_in_its_region_over_connections_that_stay() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = at(&format!("http://{}", listener.local_addr().unwrap()));
        // One connection, two calls: a second connection would wait forever.
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut heard = [String::new(), String::new()];
            for heard in &mut heard {
                let mut bytes = [0; 4096];
                while !heard.contains("tablename") {
                    let n = socket.read(&mut bytes).unwrap();
                    heard.push_str(&String::from_utf8_lossy(&bytes[..n]).to_lowercase());
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n\
                    content-length: 2\r\n\r\n{}";
                socket.write_all(answer.as_bytes()).unwrap();
            }
            heard
        });
        for _ in 0..2 {
            client.describe_table().table_name("tallygate").send().await.unwrap();
        }
        for heard in server.join().unwrap() {
            assert!(heard.starts_with("post / http/1.1\r\n"), "{heard}");
            assert!(heard.contains("credential=akidexample/"), "{heard}");
            assert!(heard.contains("/eu-central-1/dynamodb/aws4_request"), "{heard}");
            assert!(heard.contains("x-amz-security-token: of a role\r\n"), "{heard}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_refused_has_certainly_written_nothing() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let store = DynamoDb::new(at(&endpoint), "tallygate");
        let error = store.write(put()).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    }

    #[tokio::test]
    async fn a_write_whose_answer_is_cut_off_is_unknown() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let _ = (&socket).read(&mut [0; 64]);
            }
        });
        let store = DynamoDb::new(at(&endpoint), "tallygate");
        let error = store.write(put()).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unknown, "{error}");
    }
}
