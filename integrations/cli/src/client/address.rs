//! Where a service is, as `--url` says it, and the token that is sent there.

use std::net::IpAddr;
#[cfg(unix)]
use std::path::PathBuf;

use http::Uri;
use http::header::HeaderValue;

use crate::args::Far;
use crate::failure::{Failure, code};

/// The variable with the place.
pub(crate) const URL: &str = "TALLYGATE_URL";
/// The variable with the token.
const TOKEN: &str = "TALLYGATE_OPERATOR_TOKEN";
/// Most bytes of a file with a token.
const MOST_TOKEN: u64 = 4 << 10;
/// The beginning of the address of a socket.
const UNIX: &str = "unix:";
/// What stands for the host in requests to a socket.
#[cfg(unix)]
const SOCKET_HOST: &str = "http://localhost";

/// The place of the operator's routes. `base` is without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Web {
        base: String,
    },
    #[cfg(unix)]
    Socket {
        path: PathBuf,
        base: String,
    },
}

impl Address {
    /// Reads `https://..`, `http://..`, `unix:PATH` or `unix:PATH:/PREFIX`.
    pub(super) fn of(url: &str, insecure: bool) -> Result<Self, Failure> {
        match url.strip_prefix(UNIX) {
            Some(rest) => Self::of_socket(rest),
            None => Ok(Self::Web { base: base(url, insecure)? }),
        }
    }

    #[cfg(unix)]
    fn of_socket(rest: &str) -> Result<Self, Failure> {
        // As an address with an empty host is also written.
        let rest = if rest.starts_with("///") { &rest[2..] } else { rest };
        let (path, prefix) = match rest.split_once(":/") {
            Some((path, prefix)) => (path, prefix.trim_end_matches('/')),
            None => (rest, ""),
        };
        if path.is_empty() || path.starts_with("//") {
            let help = "help: write it like unix:/run/acme/tallygate.sock";
            return Err(Failure::usage(format!("--url names no socket\n{help}")));
        }
        let slash = if prefix.is_empty() { "" } else { "/" };
        Ok(Self::Socket { path: path.into(), base: format!("{SOCKET_HOST}{slash}{prefix}") })
    }

    #[cfg(not(unix))]
    fn of_socket(_: &str) -> Result<Self, Failure> {
        Err(Failure::usage("this system has no unix sockets: write https://.."))
    }
}

/// The place of the routes over HTTP.
fn base(url: &str, insecure: bool) -> Result<String, Failure> {
    let help =
        "help: write it like https://api.example.com/admin, or unix:/run/acme/tallygate.sock";
    let uri = url.parse::<Uri>().ok().filter(|uri| uri.query().is_none());
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
    let Some((scheme, place)) = parts else {
        return Err(Failure::usage(format!("--url is not the address of a service\n{help}")));
    };
    if place.as_str().contains('@') {
        let text = "--url has a name or a password in it: the routes take a token alone";
        return Err(Failure::usage(format!("{text}\n{help}")));
    }
    match scheme {
        "https" => {}
        "http" if insecure || is_this_machine(place.host()) => {}
        "http" => {
            let text = "the token would be sent to another host unencrypted";
            let help = "write https://, or --insecure-http where the network is yours alone";
            return Err(Failure::usage(format!("{text}\nhelp: {help}")));
        }
        _ => return Err(Failure::usage(format!("--url is neither https nor http\n{help}"))),
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn is_this_machine(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The header with the token; `None`: there is none, which an admin socket allows.
pub(super) fn token(far: &Far) -> Result<Option<HeaderValue>, Failure> {
    let token = match &far.token_file {
        Some(path) => {
            let of_file = |error: std::io::Error| Failure::of_file(path, &error);
            let mut text = String::new();
            let from = std::fs::File::open(path).map_err(of_file)?;
            std::io::Read::read_to_string(&mut std::io::Read::take(from, MOST_TOKEN), &mut text)
                .map_err(of_file)?;
            text
        }
        None => std::env::var(TOKEN).unwrap_or_default(),
    };
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    let header = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut header = header.map_err(|_| {
        Failure::usage(format!("the operator's token has characters that none has\n{}", help()))
    })?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// A place over HTTP answers nothing without a token.
pub(super) fn no_token() -> Failure {
    let text = "there is no operator's token";
    Failure::new(code::NOT_PERMITTED, format!("{text}\n{}", help()))
}

fn help() -> String {
    format!("help: set {TOKEN}, or name a file that has it with --token-file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_this_machine_or_encrypted() {
        for url in [
            "http://localhost:3000/admin",
            "HTTP://LOCALHOST:3000/admin",
            "http://127.0.0.1:3000/",
            "http://[::1]:3000",
            "https://api.example.com/admin",
        ] {
            assert_eq!(base(url, false).unwrap(), url.trim_end_matches('/'));
        }
        for url in [
            "http://10.0.0.1/admin",
            "http://localhost.example.com/admin",
            "http://127.0.0.1.example.com",
            "https://kim:secret@example.com/admin",
            "https://example.com/admin?token=secret",
            "ftp://example.com",
            "/admin",
            "",
        ] {
            let failure = base(url, false).unwrap_err();
            assert_eq!(failure.code, code::USAGE);
            assert!(!failure.text.contains("secret"), "{}", failure.text);
        }
        assert!(base("http://10.0.0.1/admin", true).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_has_a_path_and_perhaps_a_prefix() {
        let of = |url: &str| match Address::of(url, false) {
            Ok(Address::Socket { path, base }) => (path.display().to_string(), base),
            other => panic!("{url}: {other:?}"),
        };
        let pair = |path: &str, base: &str| (path.to_owned(), base.to_owned());
        assert_eq!(of("unix:/run/a.sock"), pair("/run/a.sock", "http://localhost"));
        assert_eq!(of("unix:a.sock"), pair("a.sock", "http://localhost"));
        assert_eq!(of("unix:/run/a.sock:/admin/"), pair("/run/a.sock", "http://localhost/admin"));
        assert_eq!(of("unix:///run/a.sock"), pair("/run/a.sock", "http://localhost"));
        for url in ["unix:", "unix::/admin", "unix://run/a.sock"] {
            assert_eq!(Address::of(url, false).unwrap_err().code, code::USAGE, "{url}");
        }
    }
}
