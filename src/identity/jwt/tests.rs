//! Real tokens of each algorithm, and every kind of invalid one. The keys in `testdata` were made
//! for these tests and sign nothing else.

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
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
        plan: Some("plan".into()),
        permissions: None,
    }
}

fn payload() -> Value {
    json!({
        "iss": "https://id.example.com", "aud": "api", "exp": NOW_S + 60,
        "org_id": "acme", "sub": "7",
    })
}

/// What signs a token, regardless of its header.
enum Signer {
    Hmac(&'static [u8]),
    Rsa(&'static dyn RsaEncoding),
    Curve(&'static EcdsaSigningAlgorithm, Vec<u8>),
    Ed25519,
}

impl Signer {
    fn es256() -> Self {
        Signer::Curve(&ECDSA_P256_SHA256_FIXED_SIGNING, EC.into())
    }

    fn sign(&self, signed: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Hmac(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, signed).as_ref().to_vec()
            }
            Signer::Rsa(padding) => {
                let key = RsaKeyPair::from_der(RSA).unwrap();
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*padding, &random, signed, &mut signature).unwrap();
                signature
            }
            Signer::Curve(curve, pkcs8) => {
                let key = EcdsaKeyPair::from_pkcs8(curve, pkcs8, &random).unwrap();
                key.sign(&random, signed).unwrap().as_ref().to_vec()
            }
            Signer::Ed25519 => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(ED).unwrap();
                key.sign(signed).as_ref().to_vec()
            }
        }
    }
}

fn sign(header: &Value, payload: &Value, signer: &Signer) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(payload));
    let signature = signer.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn rs256(header: Value, payload: Value) -> String {
    sign(&header, &payload, &Signer::Rsa(&RSA_PKCS1_SHA256))
}

fn hs256(payload: &Value) -> String {
    sign(&json!({"alg": "HS256"}), payload, &Signer::Hmac(SECRET))
}

fn shared() -> Verifier {
    Verifier::hs256(claims(), SECRET).unwrap()
}

async fn public() -> Verifier {
    with_jwks(JWKS).await
}

async fn with_jwks(jwks: &[u8]) -> Verifier {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwks).unwrap();
    let jwks = Arc::new(Jwks::new(file.path().to_str().unwrap()).unwrap());
    assert!(jwks.refresh(AT).await.unwrap());
    Verifier::jwks(claims(), jwks)
}

/// A verifier with these keys alone.
async fn with_keys(keys: &[Value]) -> Verifier {
    with_jwks(json!({"keys": keys}).to_string().as_bytes()).await
}

/// One of the keys in `testdata`, with another `alg` (null: none) and `kid`.
fn jwk(of: &str, alg: Value, kid: &str) -> Value {
    let jwks: Value = serde_json::from_slice(JWKS).unwrap();
    let mut all = jwks["keys"].as_array().unwrap().iter();
    let mut key = all.find(|key| key["kid"] == of).unwrap().clone();
    (key["alg"], key["kid"]) = (alg, json!(kid));
    key
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
        plan: None,
        permissions: Permissions::default(),
        until_ms: (NOW_S + 60 + 30) * 1_000,
    };
    for (alg, kid, signer) in [
        ("RS256", "rsa", Signer::Rsa(&RSA_PKCS1_SHA256)),
        ("ES256", "ec", Signer::es256()),
        ("EdDSA", "ed", Signer::Ed25519),
    ] {
        for header in [json!({"alg": alg, "kid": kid}), json!({"alg": alg})] {
            let token = sign(&header, &payload(), &signer);
            assert_eq!(verifier.verify(&token, NOW_MS), Ok(acme.clone()), "{header}");
        }
    }
    assert_eq!(shared().verify(&hs256(&payload()), NOW_MS), Ok(acme));
}

#[tokio::test]
async fn the_token_chooses_no_algorithm() {
    let verifier = public().await;
    // The classic: HMAC under the text of the public key.
    let public_key = Signer::Hmac(RSA_PUBLIC);
    let confused = sign(&json!({"alg": "HS256", "kid": "rsa"}), &payload(), &public_key);
    assert_eq!(refused(&verifier, &confused), JwtError::Algorithm);
    let confused = sign(&json!({"alg": "HS256"}), &payload(), &public_key);
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

/// The padding and the hash of an RSA key are those that its JWK names, and no other.
#[tokio::test]
async fn an_rsa_key_verifies_the_algorithm_it_names_alone() {
    let all: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    for (named, _) in all {
        let verifier = with_keys(&[jwk("rsa", json!(named), "k")]).await;
        for (signed, padding) in all {
            let by =
                |alg| sign(&json!({"alg": alg, "kid": "k"}), &payload(), &Signer::Rsa(padding));
            match named == signed {
                true => assert!(verifier.verify(&by(named), NOW_MS).is_ok(), "{named}"),
                false => {
                    let (honest, forged) = (by(signed), by(named));
                    assert_eq!(refused(&verifier, &honest), JwtError::Algorithm, "{named}");
                    assert_eq!(refused(&verifier, &forged), JwtError::Signature, "{named}");
                }
            }
        }
    }
    // Without a name it is for RS256.
    let unnamed = with_keys(&[jwk("rsa", json!(null), "k")]).await;
    assert!(unnamed.verify(&rs256(json!({"alg": "RS256"}), payload()), NOW_MS).is_ok());
    let ps = sign(&json!({"alg": "PS256"}), &payload(), &Signer::Rsa(&RSA_PSS_SHA256));
    assert_eq!(refused(&unnamed, &ps), JwtError::Algorithm);
}

#[tokio::test]
async fn a_key_on_p384_is_for_es384() {
    let (curve, random) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap().as_ref().to_vec();
    let pair = EcdsaKeyPair::from_pkcs8(curve, &pkcs8, &random).unwrap();
    let point = pair.public_key().as_ref();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let key =
        json!({"kty": "EC", "crv": "P-384", "x": part(&point[1..49]), "y": part(&point[49..])});
    let verifier = with_keys(&[key]).await;
    let by = |alg| sign(&json!({"alg": alg}), &payload(), &Signer::Curve(curve, pkcs8.clone()));
    assert!(verifier.verify(&by("ES384"), NOW_MS).is_ok());
    assert_eq!(refused(&verifier, &by("ES256")), JwtError::Algorithm);
    // The same length, another curve.
    let short = sign(&json!({"alg": "ES384"}), &payload(), &Signer::es256());
    assert_eq!(refused(&verifier, &short), JwtError::Signature);
}

/// What a JWKS may list beside usable keys; alone, none of it is a key.
#[test]
fn keys_that_are_weak_torn_or_for_something_else_are_skipped() {
    let text = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
    let rsa = |change: &dyn Fn(&mut Value)| {
        let mut key = jwk("rsa", json!("RS256"), "k");
        change(&mut key);
        key
    };
    let ec = |change: &dyn Fn(&mut Value)| {
        let mut key = jwk("ec", json!("ES256"), "k");
        change(&mut key);
        key
    };
    let skipped = [
        rsa(&|key| key["n"] = text(&[0xC1; 128])), // 1,024 bits
        rsa(&|key| key["n"] = text(&[vec![0; 128], vec![0xC1; 128]].concat())),
        rsa(&|key| key["n"] = text(&[0xC1; 255])),
        rsa(&|key| key["n"] = text(&[0xC1; 1_025])),
        rsa(&|key| key["e"] = text(&[1; 6])),
        rsa(&|key| key["n"] = json!(format!("{}=", key["n"].as_str().unwrap()))),
        rsa(&|key| key["n"] = json!(format!("{}.", key["n"].as_str().unwrap()))),
        rsa(&|key| key["n"] = json!(7)),
        rsa(&|key| key["e"] = json!(null)),
        rsa(&|key| key["use"] = json!("enc")),
        rsa(&|key| key["key_ops"] = json!(["encrypt"])),
        rsa(&|key| key["alg"] = json!("HS256")),
        rsa(&|key| key["alg"] = json!("ES256")),
        rsa(&|key| key["alg"] = json!("RSA-OAEP")),
        rsa(&|key| key["alg"] = json!("none")),
        ec(&|key| key["x"] = text(&[4; 31])),
        ec(&|key| key["y"] = text(&[4; 48])),
        ec(&|key| key["crv"] = json!("P-384")),
        ec(&|key| key["crv"] = json!("secp256k1")),
        ec(&|key| key["alg"] = json!("RS256")),
        ec(&|key| key["kty"] = json!("RSA")),
        jwk("ed", json!("ES256"), "k"),
        json!({"kty": "oct", "k": text(SECRET), "alg": "HS256"}),
        json!({"kty": "OKP", "crv": "X25519", "x": text(&[9; 32])}),
    ];
    for key in skipped {
        let jwks = json!({"keys": [key]}).to_string();
        let read = KeySet::parse(jwks.as_bytes()).map(|_| ());
        assert!(read.is_err_and(|error| error.contains("none of its 1 keys")), "{jwks}");
    }
    let odd = [
        rsa(&|key| key["key_ops"] = json!(["verify"])),
        rsa(&|key| key["e"] = text(&[0, 1, 0, 1])),
        json!({"kty": "RSA"}),
        json!("a key"),
    ];
    assert!(KeySet::parse(json!({"keys": odd}).to_string().as_bytes()).is_ok());
}

/// A point that is on no curve, an exponent of 1: keys that were read, and verify nothing.
#[tokio::test]
async fn keys_that_are_no_keys_verify_nothing() {
    let text = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
    let mut off = jwk("ec", json!("ES256"), "k");
    off["y"] = off["x"].clone();
    let mut one = jwk("rsa", json!("RS256"), "k");
    one["e"] = text(&[1]);
    let es256 = sign(&json!({"alg": "ES256"}), &payload(), &Signer::es256());
    let rs256 = rs256(json!({"alg": "RS256"}), payload());
    let verifier = with_keys(&[off, one]).await;
    assert_eq!(refused(&verifier, &es256), JwtError::Signature);
    assert_eq!(refused(&verifier, &rs256), JwtError::Signature);
    // With an exponent of 1, the padded digest itself would be its signature.
    let (signed, signature) = rs256.rsplit_once('.').unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([0; 256]);
    assert_eq!(refused(&verifier, &format!("{signed}.{zeros}")), JwtError::Signature);
    assert_eq!(refused(&verifier, &format!("{signed}.{signature}{zeros}")), JwtError::Signature);
}

/// An issuer may give two keys one `kid`, as while it changes algorithms: each is tried, and not
/// more of them than without a `kid`.
#[tokio::test]
async fn keys_with_one_kid_are_each_tried_up_to_a_bound() {
    let token = rs256(json!({"alg": "RS256", "kid": "k"}), payload());
    let mut other = jwk("rsa", json!("RS256"), "k");
    let mut n = URL_SAFE_NO_PAD.decode(other["n"].as_str().unwrap()).unwrap();
    n[40] ^= 1;
    other["n"] = json!(URL_SAFE_NO_PAD.encode(n));
    let ours = jwk("rsa", json!("RS256"), "k");
    let ec = jwk("ec", json!("ES256"), "k");
    let verifier = with_keys(&[ec.clone(), other.clone(), ours.clone()]).await;
    assert!(verifier.verify(&token, NOW_MS).is_ok());
    let es256 = sign(&json!({"alg": "ES256", "kid": "k"}), &payload(), &Signer::es256());
    assert!(verifier.verify(&es256, NOW_MS).is_ok());
    let fifth = with_keys(&[other.clone(), other.clone(), other.clone(), other, ours]).await;
    assert_eq!(refused(&fifth, &token), JwtError::Signature);
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
    let caller = shared().verify(&with("plan", json!("pro")), NOW_MS).unwrap().caller();
    assert_eq!(caller, Caller::new("acme").user("7").plan("pro"));
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
    let token = hs256(&payload());
    assert!(shared().verify(&token, NOW_MS).is_ok());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, body) = signed.split_once('.').unwrap();
    let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","alg":"HS256"}"#);
    for torn in [
        format!("{token}."),
        format!("{token}.."),
        format!(".{token}"),
        format!("{token}="),
        format!("{token}\n"),
        format!("{signed}.{signature} "),
        format!("{signed}.{}+/", &signature[2..]),
        format!("{header}=.{body}.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}.{signature}"),
        format!("{twice}.{body}.{signature}"),
    ] {
        let error = refused(&shared(), &torn);
        let is_other = format!("{header}..{signature}") == torn;
        let expected = if is_other { JwtError::Signature } else { JwtError::Malformed };
        assert_eq!(error, expected, "{torn}");
    }
    let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    let token = sign(&header, &payload(), &Signer::Hmac(SECRET));
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
    assert_eq!(presented, Presented::Jwt { source: 1, token: token.as_bytes() });
    assert_eq!(
        identifier.verify(token.as_bytes(), NOW_MS).unwrap().caller().tenant.as_ref(),
        "acme"
    );
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
    assert!(identifier.verify(hs256(&payload()).as_bytes(), NOW_MS).is_ok());
    let late = NOW_MS + 1_000_000;
    assert_eq!(identifier.verify(hs256(&payload()).as_bytes(), late), Err(JwtError::Expired));
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

#[test]
fn a_token_says_what_its_caller_may_do() {
    let of = |rules: TokenRules, claim: &str, value: Value| {
        let mut payload = payload();
        payload[claim] = value;
        let verifier = Verifier::hs256(rules, SECRET).unwrap();
        verifier.verify(&hs256(&payload), NOW_MS).unwrap().permissions
    };
    let both = || Permissions::of("read write");
    assert_eq!(of(claims(), "scope", json!("write read")), both());
    assert_eq!(of(claims(), "scp", json!("write read")), both());
    assert_eq!(of(claims(), "scp", json!(["write", "read", 7])), both());
    assert_eq!(of(claims(), "scp", json!(["write read"])), Permissions::default(), "one name");
    assert_eq!(of(claims(), "permissions", json!(["write"])), Permissions::default());
    let own = TokenRules { permissions: Some("permissions".into()), ..claims() };
    assert_eq!(of(own.clone(), "permissions", json!(["read", "write"])), both());
    assert_eq!(of(own, "scope", json!("read write")), Permissions::default());
}
