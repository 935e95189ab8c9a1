//! Handshakes on loopback with an authority of the test's own, and what is refused before any.

use std::time::Duration;

use self::tls::{Authority, Proxy};
use super::environment::Environment;
use super::*;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use rustls::crypto::{CryptoProvider, ring};

// By its file, which the package carries: the crate that it is of is not published.
#[path = "../../tests/support/src/tls.rs"]
#[allow(unreachable_pub, reason = "it is the file of a crate, where they are reachable")]
mod tls;

const WITHIN: Duration = Duration::from_secs(10);

fn authority() -> Authority {
    Authority::new(ring::default_provider().into())
}

/// An environment with these variables alone.
fn environment(set: &[(&str, &str)]) -> Result<Environment, HttpsError> {
    let get =
        |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Environment::read(&get)
}

fn answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Asks a server on this port, by the name of its certificate.
async fn ask(set: &[(&str, &str)], port: u16) -> Result<String, String> {
    let client = HttpsClient::with(&environment(set).unwrap(), 0).map_err(|e| e.to_string())?;
    let to: Uri = format!("https://localhost:{port}/").parse().unwrap();
    let request = Request::get(to).body(Full::new(Bytes::new())).unwrap();
    let answer = client.send(request, WITHIN, 100).await?;
    Ok(String::from_utf8(answer.into_body().to_vec()).unwrap())
}

/// The authority's certificate in a file.
fn roots(authority: &Authority) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &authority.pem).unwrap();
    file
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_the_environment_names_it() {
    let authority = authority();
    let port = authority.serve(answer("hello")).await.port();
    let file = roots(&authority);
    let set = [("SSL_CERT_FILE", file.path().to_str().unwrap())];
    assert_eq!(ask(&set, port).await.unwrap(), "hello");
    let unknown = ask(&[], port).await.unwrap_err();
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    let other = roots(&self::authority());
    let set = [("SSL_CERT_FILE", other.path().to_str().unwrap())];
    assert!(ask(&set, port).await.unwrap_err().contains("certificate"));
}

#[tokio::test]
async fn a_name_that_the_certificate_lacks_is_refused() {
    let authority = authority();
    let port = authority.serve(answer("hello")).await.port();
    let file = roots(&authority);
    let set = [("SSL_CERT_FILE", file.path().to_str().unwrap())];
    let client = HttpsClient::with(&environment(&set).unwrap(), 0).unwrap();
    let to: Uri = format!("https://127.0.0.1:{port}/").parse().unwrap();
    let request = Request::get(to).body(Full::new(Bytes::new())).unwrap();
    let error = client.send(request, WITHIN, 100).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_proxy_tunnels_all_but_the_hosts_named_beside_it() {
    let authority = authority();
    let port = authority.serve(answer("hello")).await.port();
    let file = roots(&authority);
    let roots = ("SSL_CERT_FILE", file.path().to_str().unwrap());
    let proxy = Proxy::start("200 Connected").await;
    let address = format!("http://ann:hush@{}", proxy.address);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        assert_eq!(ask(&[roots, (name, &address)], port).await.unwrap(), "hello", "{name}");
    }
    let asked = proxy.asked();
    assert_eq!(asked.len(), 4);
    for head in asked {
        assert!(head.starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")), "{head}");
        // ann:hush
        assert!(head.contains("Proxy-Authorization: Basic YW5uOmh1c2g=\r\n"), "{head}");
    }
    let set = [roots, ("HTTPS_PROXY", &*address), ("NO_PROXY", "example.com, localhost")];
    assert_eq!(ask(&set, port).await.unwrap(), "hello");
    let empty = [roots, ("HTTPS_PROXY", ""), ("HTTP_PROXY", &*address)];
    assert_eq!(ask(&empty, port).await.unwrap(), "hello");
    assert_eq!(proxy.asked().len(), 4, "past it");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    for (status, expected) in [
        ("407 Proxy Authentication Required", "authorization required"),
        ("403 No", "unsuccessful"),
    ] {
        let proxy = Proxy::start(status).await;
        let address = format!("http://ann:hush@{}", proxy.address);
        let error = ask(&[("HTTPS_PROXY", &address)], 1).await.unwrap_err();
        assert!(error.contains(expected) && !error.contains("hush"), "{error}");
        let environment = environment(&[("HTTPS_PROXY", &address)]).unwrap();
        let client = HttpsClient::with(&environment, 0).unwrap();
        assert!(!format!("{environment:?} {client:?}").contains("hush"));
    }
}

#[test]
fn a_proxy_that_cannot_be_used_is_an_error_and_not_passed_by() {
    for address in
        ["socks5://127.0.0.1:1", "https://proxy.example:3129", "not an address", "ftp://x"]
    {
        let with_password = address.replace("://", "://ann:hush@");
        let error = environment(&[("HTTPS_PROXY", &with_password)]).unwrap_err().to_string();
        assert!(error.contains("HTTPS_PROXY") && !error.contains("hush"), "{error}");
    }
    assert!(environment(&[("HTTPS_PROXY", "proxy.internal:3128")]).unwrap().proxy.is_some());
}

#[test]
fn roots_that_cannot_be_read_are_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let with = |path: &str| {
        let environment = environment(&[("SSL_CERT_FILE", path)]).unwrap();
        HttpsClient::with(&environment, 0).unwrap_err().to_string()
    };
    assert!(with("/not/there.pem").contains("SSL_CERT_FILE (/not/there.pem)"));
    assert!(with(path).contains("no certificate"));
    std::fs::write(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(with(path).contains("no certificate"));
    std::fs::write(path, vec![b'\n'; (4 << 20) + 1]).unwrap();
    assert!(with(path).contains(path));
}

#[tokio::test]
async fn an_answer_is_bounded_in_size() {
    let authority = authority();
    let file = roots(&authority);
    let set = [("SSL_CERT_FILE", file.path().to_str().unwrap())];
    let fits = authority.serve(answer(&"x".repeat(100))).await.port();
    assert!(ask(&set, fits).await.is_ok());
    let large = authority.serve(answer(&"x".repeat(101))).await.port();
    assert!(ask(&set, large).await.unwrap_err().contains("limit"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_ends_the_wait() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = ask(&[], silent.local_addr().unwrap().port()).await.unwrap_err();
    assert_eq!(error, "no answer within 10s");
}

#[test]
fn the_hosts_own_cryptography_wins() {
    let mut own: CryptoProvider = ring::default_provider();
    own.cipher_suites.truncate(1);
    let chosen = provider::chosen(Some(&own.into())).unwrap();
    assert_eq!(chosen.cipher_suites.len(), 1);
    let ours = provider::chosen(None).unwrap();
    assert!(ours.cipher_suites.len() > 1);
    assert!(CryptoProvider::get_default().is_none(), "none is installed by us");
}
