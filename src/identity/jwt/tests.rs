//! Real tokens of each algorithm, and every kind of invalid one. The keys in `testdata` were made
//! for these tests and sign nothing else.

use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::present::MAX_JWT;
use super::super::tests::View;
use super::super::{CredentialSource, Identifier, Malformed, Peppers, Presented, Proxies};
use super::*;
use crate::clock::Now;

const NOW_MS: i64 = 1_800_000_000_000;
const NOW_S: i64 = NOW_MS / 1_000;
const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const JWKS: &[u8] = include_bytes!("testdata/jwks.json");
const RSA: &[u8] = include_bytes!("testdata/rsa.pkcs1.der");
const RSA_PUBLIC: &[u8] = include_bytes!("testdata/rsa.pub.pem");
const EC: &[u8] = include_bytes!("testdata/ec.pkcs8.der");
const ED: &[u8] = include_bytes!("testdata/ed.pkcs8.der");
const AT: Now = Now { mono_ns: 1 << 62, wall_ms: NOW_MS };

fn claims() -> TokenRules {
    TokenRules {
        issuer: "https://id.example.com".into(),
        audience: vec!["api".into()],
        tenant: "org_id".into(),
        user: Some("sub".into()),
    }
}

fn payload() -> Value {
    json!({
        "iss": "https://id.example.com", "aud": "api", "exp": NOW_S + 60,
        "org_id": "acme", "sub": "7",
    })
}

/// Signs with a key, regardless of the header.
fn sign(header: &Value, payload: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(payload));
    let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm, key).unwrap();
    let signature = signer.try_sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn rs256(header: Value, payload: Value) -> String {
    sign(&header, &payload, Algorithm::RS256, &EncodingKey::from_rsa_der(RSA))
}

fn hs256(payload: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET);
    sign(&json!({"alg": "HS256"}), payload, Algorithm::HS256, &key)
}

fn shared() -> Verifier {
    Verifier::hs256(claims(), SECRET).unwrap()
}

async fn public() -> Verifier {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), JWKS).unwrap();
    let jwks = Arc::new(Jwks::new(file.path().to_str().unwrap()).unwrap());
    assert!(jwks.refresh(AT).await.unwrap());
    Verifier::jwks(claims(), jwks)
}

fn refused(verifier: &Verifier, token: &str) -> JwtError {
    verifier.verify(token, NOW_MS).unwrap_err()
}

#[tokio::test]
async fn verifies_each_algorithm_with_its_key() {
    let verifier = public().await;
    let acme = Verified {
        tenant: "acme".into(),
        user: Some("7".into()),
        until_ms: (NOW_S + 60 + 30) * 1_000,
    };
    for (alg, kid, algorithm, key) in [
        ("RS256", "rsa", Algorithm::RS256, EncodingKey::from_rsa_der(RSA)),
        ("ES256", "ec", Algorithm::ES256, EncodingKey::from_ec_der(EC)),
        ("EdDSA", "ed", Algorithm::EdDSA, EncodingKey::from_ed_der(ED)),
    ] {
        for header in [json!({"alg": alg, "kid": kid}), json!({"alg": alg})] {
            let token = sign(&header, &payload(), algorithm, &key);
            assert_eq!(verifier.verify(&token, NOW_MS), Ok(acme.clone()), "{header}");
        }
    }
    assert_eq!(shared().verify(&hs256(&payload()), NOW_MS), Ok(acme));
}

#[tokio::test]
async fn the_token_chooses_no_algorithm() {
    let verifier = public().await;
    // The classic: HMAC under the text of the public key.
    let public_key = EncodingKey::from_secret(RSA_PUBLIC);
    let hs = Algorithm::HS256;
    let confused = sign(&json!({"alg": "HS256", "kid": "rsa"}), &payload(), hs, &public_key);
    assert_eq!(refused(&verifier, &confused), JwtError::Algorithm);
    let confused = sign(&json!({"alg": "HS256"}), &payload(), hs, &public_key);
    assert_eq!(refused(&verifier, &confused), JwtError::Algorithm);
    for alg in ["none", "None", "NONE", ""] {
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let unsigned = format!("{}.{}.", part(json!({"alg": alg})), part(payload()));
        assert_eq!(refused(&verifier, &unsigned), JwtError::Algorithm, "{alg}");
        assert_eq!(refused(&shared(), &unsigned), JwtError::Algorithm, "{alg}");
    }
    // A key for encryption, or a shared secret from the network, is not accepted.
    for kid in ["enc", "oct", "new"] {
        let token = rs256(json!({"alg": "RS256", "kid": kid}), payload());
        assert_eq!(refused(&verifier, &token), JwtError::UnknownKey, "{kid}");
    }
    let ec_named_rsa = rs256(json!({"alg": "RS256", "kid": "ec"}), payload());
    assert_eq!(refused(&verifier, &ec_named_rsa), JwtError::Algorithm);
}

#[tokio::test]
async fn one_changed_bit_is_seen() {
    let token = rs256(json!({"alg": "RS256", "kid": "rsa"}), payload());
    let verifier = public().await;
    assert!(verifier.verify(&token, NOW_MS).is_ok());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let mut other = payload();
    other["org_id"] = json!("globex");
    let other = URL_SAFE_NO_PAD.encode(other.to_string());
    assert_eq!(refused(&verifier, &format!("{header}.{other}.{signature}")), JwtError::Signature);
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[100] ^= 1;
    let bent = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes));
    assert_eq!(refused(&verifier, &bent), JwtError::Signature);
    assert_eq!(refused(&verifier, &format!("{signed}.")), JwtError::Signature);
    assert_eq!(refused(&verifier, &format!("{signed}.AAAA")), JwtError::Signature);
}

#[test]
fn issuer_audience_and_tenant_must_be_there_and_right() {
    let with = |name: &str, value: Value| {
        let mut payload = payload();
        payload[name] = value;
        hs256(&payload)
    };
    let without = |name: &str| {
        let mut payload = payload();
        payload.as_object_mut().unwrap().remove(name);
        hs256(&payload)
    };
    for token in [with("iss", json!("https://evil.example")), without("iss")] {
        assert_eq!(refused(&shared(), &token), JwtError::Issuer);
    }
    for token in [with("aud", json!("web")), with("aud", json!(["web"])), without("aud")] {
        assert_eq!(refused(&shared(), &token), JwtError::Audience);
    }
    assert!(shared().verify(&with("aud", json!(["web", "api"])), NOW_MS).is_ok());
    for bad in [json!(""), json!("a\u{1}"), json!(null), json!(1.5), json!(["acme"])] {
        assert_eq!(refused(&shared(), &with("org_id", bad)), JwtError::NoTenant);
    }
    assert_eq!(refused(&shared(), &without("org_id")), JwtError::NoTenant);
    // Guests' own tenant is named by no token.
    assert_eq!(refused(&shared(), &with("org_id", json!("~anonymous"))), JwtError::NoTenant);
    assert_eq!(shared().verify(&with("org_id", json!(42)), NOW_MS).unwrap().tenant, "42");
    assert_eq!(shared().verify(&without("sub"), NOW_MS).unwrap().user, None);
}

#[test]
fn any_of_several_audiences_will_do() {
    let of = |audience: &[&str]| {
        let audience = audience.iter().map(|&name| name.to_owned()).collect();
        let claims = TokenRules { audience, ..claims() };
        Verifier::hs256(claims, SECRET).unwrap()
    };
    let both = of(&["api", "admin"]);
    let for_ = |aud: Value| {
        let mut payload = payload();
        payload["aud"] = aud;
        hs256(&payload)
    };
    for aud in [json!("api"), json!("admin"), json!(["web", "admin"])] {
        assert!(both.verify(&for_(aud), NOW_MS).is_ok());
    }
    for aud in [json!("web"), json!(["web"]), json!([]), json!("ap"), json!(null)] {
        assert_eq!(refused(&both, &for_(aud)), JwtError::Audience);
    }
    assert_eq!(refused(&of(&[]), &for_(json!("api"))), JwtError::Audience);
    assert_eq!(refused(&of(&[]), &for_(json!([]))), JwtError::Audience);
}

#[test]
fn holds_from_nbf_to_exp_and_30_seconds_beside() {
    let timed = |exp: Value, nbf: Value| {
        let mut payload = payload();
        (payload["exp"], payload["nbf"]) = (exp, nbf);
        hs256(&payload)
    };
    let token = timed(json!(NOW_S), json!(NOW_S - 60));
    let at = |seconds: i64| shared().verify(&token, NOW_MS + seconds * 1_000).map(|_| ());
    assert_eq!(at(29), Ok(()));
    assert_eq!(at(30), Err(JwtError::Expired));
    assert_eq!(at(-90), Ok(()));
    assert_eq!(at(-91), Err(JwtError::NotYet));
    assert!(shared().verify(&timed(json!(NOW_S as f64 + 0.5), json!(0)), NOW_MS).is_ok());
    assert_eq!(refused(&shared(), &timed(json!("never"), json!(0))), JwtError::Expired);
    assert_eq!(refused(&shared(), &timed(json!(null), json!(0))), JwtError::Expired);
    let endless = shared().verify(&timed(json!(i64::MAX), json!(i64::MIN)), NOW_MS).unwrap();
    assert_eq!(endless.until_ms, i64::MAX);
}

#[test]
fn refuses_garbage_and_critical_extensions() {
    for garbage in ["", ".", "..", "a.b.c", "eyJ.eyJ.eyJ", "e30.e30.e30", "ü.ü.ü"] {
        assert_eq!(refused(&shared(), garbage), JwtError::Malformed, "{garbage}");
    }
    let key = EncodingKey::from_secret(SECRET);
    let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    let token = sign(&header, &payload(), Algorithm::HS256, &key);
    assert_eq!(refused(&shared(), &token), JwtError::Malformed);
}

#[test]
fn a_weak_secret_is_refused_and_none_is_shown() {
    let error = Verifier::hs256(claims(), b"short-secret").unwrap_err();
    assert!(error.contains("12 bytes") && !error.contains("short-secret"));
    assert!(!format!("{:?}", shared()).contains("0123456789"));
}

#[test]
fn an_identifier_tells_a_jwt_from_an_api_key() {
    let keys = CredentialSource::ApiKey { headers: vec!["authorization".into()] };
    let pepper = super::super::Pepper::new("1", &[7; 32]).unwrap();
    let peppers = Peppers::new(vec![pepper]).unwrap();
    let sources = vec![keys, CredentialSource::Jwt(shared())];
    let identifier = Identifier::new(sources, peppers, Proxies::default()).unwrap();
    let token = hs256(&payload());
    let view = View::default().with("authorization", format!("Bearer {token}"));
    let presented = identifier.present(&view).unwrap();
    assert_eq!(presented, Presented::Jwt { source: 1, token: &token });
    assert_eq!(identifier.verify(&token, NOW_MS).unwrap().caller().tenant.as_ref(), "acme");
    let view = View::default().with("authorization", "Bearer SG.abc.def");
    assert_eq!(
        identifier.present(&view).unwrap(),
        Presented::ApiKey { source: 0, key: b"SG.abc.def" }
    );
    let long = format!("Bearer {token}{}", "A".repeat(MAX_JWT));
    let view = View::default().with("authorization", long);
    assert_eq!(identifier.present(&view).unwrap_err(), Malformed::TooLong);
}

#[test]
fn the_error_is_that_of_the_source_that_came_furthest() {
    let other = TokenRules { issuer: "https://other.example".into(), ..claims() };
    let other = CredentialSource::Jwt(Verifier::hs256(other, &[9; 32]).unwrap());
    let identify =
        |sources| Identifier::new(sources, Peppers::default(), Proxies::default()).unwrap();
    let identifier = identify(vec![other.clone(), CredentialSource::Jwt(shared()), other]);
    assert!(identifier.verify(&hs256(&payload()), NOW_MS).is_ok());
    let late = NOW_MS + 1_000_000;
    assert_eq!(identifier.verify(&hs256(&payload()), late), Err(JwtError::Expired));
}

/// Answers every connection with this response, and counts them.
async fn serve(response: Vec<u8>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&response).await;
        }
    });
    format!("http://{address}/jwks.json?secret=s3cret")
}

fn response(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn keys_come_from_a_url_when_an_unknown_one_is_wanted() {
    let jwks = Arc::new(Jwks::new(&serve(response("200 OK", JWKS)).await).unwrap());
    let verifier = Verifier::jwks(claims(), jwks.clone());
    let token = rs256(json!({"alg": "RS256", "kid": "rsa"}), payload());
    assert_eq!(refused(&verifier, &token), JwtError::UnknownKey);
    jwks.wanted().await;
    assert!(jwks.refresh(AT).await.unwrap());
    assert!(verifier.verify(&token, NOW_MS).is_ok());
    assert!(!jwks.refresh(AT.after(Duration::from_secs(59))).await.unwrap(), "too soon");
    assert!(jwks.refresh(AT.after(Duration::from_secs(60))).await.unwrap());
}

#[tokio::test]
async fn keys_stay_when_a_refresh_fails() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), JWKS).unwrap();
    let jwks = Arc::new(Jwks::new(file.path().to_str().unwrap()).unwrap());
    jwks.refresh(AT).await.unwrap();
    std::fs::write(file.path(), b"{\"keys\":[]}").unwrap();
    let error = jwks.refresh(AT.after(Duration::from_secs(60))).await.unwrap_err();
    assert!(error.to_string().contains("none of its 0 keys"), "{error}");
    let token = rs256(json!({"alg": "RS256", "kid": "rsa"}), payload());
    assert!(Verifier::jwks(claims(), jwks).verify(&token, NOW_MS).is_ok());
}

#[tokio::test]
async fn a_bad_answer_is_named_without_the_query() {
    let large = vec![b' '; 1024 * 1024 + 1];
    for (answer, expected) in [
        (response("302 Found", b""), "302"),
        (response("200 OK", b"<html>"), "not a JWKS"),
        (response("200 OK", &large), "limit"),
        (Vec::new(), "connection"),
    ] {
        let jwks = Jwks::new(&serve(answer).await).unwrap();
        let error = jwks.refresh(AT).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        assert!(!format!("{jwks:?}").contains("s3cret"));
    }
}

#[tokio::test]
async fn https_names_its_own_crypto_provider() {
    // The other end does not speak TLS: what matters is that the handshake begins and no
    // process-wide provider is asked for.
    let url = serve(b"no TLS here".to_vec()).await.replace("http://", "https://");
    let error = Jwks::new(&url).unwrap().refresh(AT).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1"), "{error}");
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}

#[test]
fn a_place_is_a_url_or_a_path() {
    assert!(Jwks::new("https://id.example.com/jwks.json").is_ok());
    assert!(Jwks::new("keys/jwks.json").is_ok());
    assert!(Jwks::new("ftp://id.example.com/jwks.json").is_err());
    assert!(Jwks::new("https://").is_err());
}
