//! The host beside a gate: its choices of cryptography and ours do not meet.

use std::process::Command;

/// Signs with jsonwebtoken, which has one backend here; verifies; and shakes hands with the issuer.
fn serves(way: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut host = Command::new(env!("CARGO_BIN_EXE_host-crypto"));
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        host.env_remove(name);
    }
    let roots = folder.path().join("roots.pem");
    let host = host.arg(way).arg(folder.path()).env("SSL_CERT_FILE", roots);
    let ended = host.output().expect("the host starts");
    let (said, errors) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    let expected = ["RS256", "ES256", "EdDSA"]
        .map(|algorithm| format!("{algorithm}: admitted\n{algorithm}, forged: refused\n"));
    assert_eq!(said, expected.concat(), "{errors}");
    assert!(ended.status.success(), "{errors}");
}

#[test]
fn a_host_that_installs_its_provider_keeps_it() {
    serves("installed");
}

#[test]
fn a_host_that_installs_none_is_asked_for_none() {
    serves("by-feature");
}
