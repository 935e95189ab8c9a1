//! TLS on this machine: an authority of a test's own, a server with its certificate, and a proxy
//! that tunnels to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Longest head of a request that is read.
const MAX_HEAD: usize = 16 * 1024;

/// A certificate authority that no list of roots has, and a certificate of it for `localhost`.
#[derive(Debug)]
pub struct Authority {
    /// The authority's own certificate, as PEM.
    pub pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    /// Makes both. Its servers shake hands by this provider.
    #[must_use]
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = server.signed_by(&server_key, &issuer).unwrap();
        let private = PrivatePkcs8KeyDer::from(server_key.serialize_der());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private.into())
            .unwrap();
        Self { pem, server: server.into() }
    }

    /// Answers each connection with these bytes, once it has sent the head of a request.
    pub async fn serve(&self, answer: Vec<u8>) -> SocketAddr {
        let (listener, address) = listen().await;
        let (acceptor, answer) = (TlsAcceptor::from(self.server.clone()), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    head(&mut tls).await;
                    let _ = tls.write_all(&answer).await;
                    let _ = tls.shutdown().await;
                });
            }
        });
        address
    }
}

/// A proxy that tunnels, and keeps the heads of what it was asked.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Answers `CONNECT` with this status, and tunnels if that is 200.
    pub async fn start(status: &'static str) -> Self {
        let (listener, address) = listen().await;
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let heads = asked.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tunnel(client, status, heads.clone()));
            }
        });
        Self { address, asked }
    }

    /// The heads of the requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn tunnel(mut client: TcpStream, status: &str, asked: Arc<Mutex<Vec<String>>>) {
    let request = head(&mut client).await;
    let to = request.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(request);
    let answer = format!("HTTP/1.1 {status}\r\n\r\n");
    if client.write_all(answer.as_bytes()).await.is_err() || !status.starts_with("200") {
        return;
    }
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// Reads up to the empty line.
async fn head(from: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") && read.len() < MAX_HEAD {
        match from.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
