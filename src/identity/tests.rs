//! A request made by hand.

use super::*;

#[derive(Default)]
pub(crate) struct View {
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    pub(crate) claims: Vec<(&'static str, &'static str)>,
    pub(crate) peer: Option<IpAddr>,
}

impl View {
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn peered(mut self, peer: &str) -> Self {
        self.peer = Some(peer.parse().unwrap());
        self
    }

    pub(crate) fn claiming(mut self, name: &'static str, value: &'static str) -> Self {
        self.claims.push((name, value));
        self
    }
}

impl RequestView for View {
    fn method(&self) -> &str {
        "GET"
    }
    fn path(&self) -> &str {
        "/"
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_slice())
    }
    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        let same = self.headers.iter().filter(|(n, _)| *n == name);
        same.map(|(_, v)| v.as_slice()).collect()
    }
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        self.claims.iter().find(|(n, _)| *n == name).map(|(_, v)| Cow::Borrowed(*v))
    }
    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }
}

#[test]
fn a_tenant_id_is_1_to_256_characters_without_controls() {
    assert!(is_tenant_id("acme") && is_tenant_id("Ägypten/株式会社 #1"));
    assert!(is_tenant_id(&"ü".repeat(256)) && !is_tenant_id(&"ü".repeat(257)));
    assert!(!is_tenant_id("~anonymous") && !is_tenant_id("~") && is_tenant_id("a~"));
    assert!(!is_tenant_id("") && !is_tenant_id("a\nb") && !is_tenant_id("a\u{85}b"));
}
