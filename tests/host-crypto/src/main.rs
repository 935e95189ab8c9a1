//! A host with cryptography of its own: jsonwebtoken and rustls over aws-lc-rs, beside a gate with
//! every feature. It is the issuer of its tokens, too: it signs them, and serves their keys by TLS.
//!
//! `host-crypto installed|by-feature FOLDER`: whether it installs its provider of TLS; and where to
//! write the certificate of its authority (`roots.pem`). `SSL_CERT_FILE`, which is read when the
//! gate opens, must name that.

use std::error::Error;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use serde_json::json;
use tallygate::adapter::Answer;
use tallygate::{Gate, GateBuilder};
use test_support::requests::{Call, asked};
use test_support::tls::Authority;

// Keys of the unit tests of tokens: they sign nothing else.
const JWKS: &str = include_str!("../../../src/identity/jwt/testdata/jwks.json");
const RSA: &[u8] = include_bytes!("../../../src/identity/jwt/testdata/rsa.pkcs1.der");
const EC: &[u8] = include_bytes!("../../../src/identity/jwt/testdata/ec.pkcs8.der");
const ED: &[u8] = include_bytes!("../../../src/identity/jwt/testdata/ed.pkcs8.der");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (way, folder) = args.next().zip(args.next()).ok_or("installed|by-feature FOLDER")?;
    let own: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
    if way == "installed" {
        aws_lc_rs::default_provider().install_default().map_err(|_| "one is installed")?;
        // What a host's other clients do: it panics where two providers are compiled in and none is
        // installed.
        let _ = rustls::ClientConfig::builder();
    }
    let authority = Authority::new(own);
    std::fs::write(format!("{folder}/roots.pem"), &authority.pem)?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", JWKS.len());
    let issuer = authority.serve(format!("{head}{JWKS}").into_bytes()).await;
    let gate = open(issuer.port()).await?;
    for (algorithm, key) in [
        (Algorithm::RS256, EncodingKey::from_rsa_der(RSA)),
        (Algorithm::ES256, EncodingKey::from_ec_der(EC)),
        (Algorithm::EdDSA, EncodingKey::from_ed_der(ED)),
    ] {
        let token = token(algorithm, &key)?;
        println!("{algorithm:?}: {}", answered(&gate, &token).await);
        let (signed, _) = token.rsplit_once('.').ok_or("not a token")?;
        println!("{algorithm:?}, forged: {}", answered(&gate, &format!("{signed}.AAAA")).await);
    }
    gate.close().await?;
    Ok(())
}

async fn open(port: u16) -> Result<Gate, tallygate::Error> {
    let service = format!(
        r#"
        [store]
        kind = "memory"
        [[identify]]
        [identify.jwt]
        jwks     = "https://localhost:{port}/jwks.json"
        issuer   = "host"
        audience = "api"
        tenant   = "org"
        [identity]
        unknown = "create"
        [flush]
        mode = "fast"
        "#
    );
    let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"1000/day\"";
    GateBuilder::from_text(&service).plans(plans).open().await
}

fn token(algorithm: Algorithm, key: &EncodingKey) -> jsonwebtoken::errors::Result<String> {
    let expires = 4_102_444_800_u64; // the year 2100
    let claims = json!({ "iss": "host", "aud": "api", "org": "acme", "exp": expires });
    jsonwebtoken::encode(&Header::new(algorithm), &claims, key)
}

async fn answered(gate: &Gate, token: &str) -> &'static str {
    let bearer = format!("Bearer {token}");
    match asked(gate, &Call::new("GET", "/", [("authorization", &bearer)])).await {
        Answer::Admit(_) => "admitted",
        Answer::Pass => "passed",
        Answer::Refuse(..) => "refused",
    }
}
