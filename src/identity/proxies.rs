//! Trusted proxies, and the caller's address behind them.
//!
//! The peer is the other end of the connection. If that is a trusted proxy, it is the right-most
//! untrusted hop of `X-Forwarded-For`: everything to its left is unverified. Garbage stops the walk
//! at the last good hop. IPv4-mapped IPv6 addresses count as IPv4.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};

use super::RequestView;

/// Most hops walked: no chain of proxies is longer, and a longer header is an attack.
const MAX_HOPS: usize = 64;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The networks of the proxies in front (`[proxy] trust`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    /// The first and the last address of each, as numbers: compared for each request whose caller a
    /// gateway has named.
    v4: Vec<RangeInclusive<u32>>,
    v6: Vec<RangeInclusive<u128>>,
}

impl Proxies {
    /// Proxies within these networks, written as `10.0.0.0/8` or as one address. The error names
    /// the invalid one.
    pub(crate) fn new<S: AsRef<str>>(
        networks: impl IntoIterator<Item = S>,
    ) -> Result<Self, String> {
        let mut proxies = Self::default();
        for text in networks {
            let text = text.as_ref().trim();
            let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let net = net.map_err(|_| {
                format!("{text:?} is neither a network like 10.0.0.0/8 nor an address")
            })?;
            match canonical(net) {
                IpNet::V4(net) => proxies.v4.push(net.network().into()..=net.broadcast().into()),
                IpNet::V6(net) => proxies.v6.push(net.network().into()..=net.broadcast().into()),
            }
        }
        Ok(proxies)
    }

    /// Whether no proxy is trusted at all.
    pub(crate) fn trusts_nobody(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether this address is a trusted proxy.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        match peer.to_canonical() {
            IpAddr::V4(peer) => self.v4.iter().any(|network| network.contains(&peer.into())),
            IpAddr::V6(peer) => self.v6.iter().any(|network| network.contains(&peer.into())),
        }
    }

    /// The caller's address; `None` if the connection has none (a Unix socket).
    pub(crate) fn peer(&self, view: &dyn RequestView) -> Option<IpAddr> {
        let peer = view.peer()?.to_canonical();
        if !self.trusts(peer) {
            return Some(peer);
        }
        if view.is_repeated(FORWARDED_FOR) {
            let lines = view.headers(FORWARDED_FOR);
            return Some(self.walk(peer, lines.iter().rev().copied()));
        }
        Some(self.walk(peer, view.header(FORWARDED_FOR).into_iter()))
    }

    /// The right-most untrusted hop, from header lines right to left.
    fn walk<'a>(&self, peer: IpAddr, lines: impl Iterator<Item = &'a [u8]>) -> IpAddr {
        let mut last = peer;
        let hops = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
        for hop in hops.take(MAX_HOPS) {
            let Some(hop) = parse_hop(hop) else {
                return last;
            };
            last = hop;
            if !self.trusts(hop) {
                return hop;
            }
        }
        last
    }
}

/// An address, with or without port, with or without brackets.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let ip: Option<IpAddr> = hop.parse().ok();
    let ip = ip.or_else(|| hop.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    ip.or_else(bracketed).map(|ip| ip.to_canonical())
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`: peers are compared in their IPv4 form.
fn canonical(net: IpNet) -> IpNet {
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(v4), Some(len)) if net.addr().is_ipv6() => {
            Ipv4Net::new(v4, len).map_or(net, IpNet::V4)
        }
        _ => net,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::tests::View;

    fn peer(view: &View) -> String {
        let proxies = Proxies::new(["10.0.0.0/8", "::ffff:192.168.0.0/112", "fd00::/8"]).unwrap();
        proxies.peer(view).unwrap().to_string()
    }

    fn via(forwarded: &str) -> String {
        peer(&View::default().peered("10.0.0.1").with(FORWARDED_FOR, forwarded))
    }

    #[test]
    fn an_untrusted_peer_speaks_for_itself() {
        let view = View::default().peered("203.0.113.9").with(FORWARDED_FOR, "1.1.1.1");
        assert_eq!(peer(&view), "203.0.113.9");
        assert_eq!(peer(&View::default().peered("::ffff:203.0.113.9")), "203.0.113.9");
        assert!(Proxies::default().peer(&View::default()).is_none());
    }

    #[test]
    fn takes_the_right_most_hop_that_is_not_trusted() {
        assert_eq!(via("6.6.6.6, 203.0.113.9, 10.2.2.2"), "203.0.113.9");
        assert_eq!(via("203.0.113.9,192.168.0.7,10.2.2.2"), "203.0.113.9");
        assert_eq!(via("::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(via("10.3.3.3, 10.2.2.2"), "10.3.3.3");
    }

    #[test]
    fn reads_ports_brackets_and_ipv6() {
        assert_eq!(via("203.0.113.9:4711"), "203.0.113.9");
        assert_eq!(via("[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(via("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(via("2001:db8::1, fd00::2"), "2001:db8::1");
    }

    #[test]
    fn garbage_stops_at_the_last_good_hop() {
        assert_eq!(via("203.0.113.9, unknown, 10.2.2.2"), "10.2.2.2");
        assert_eq!(via("203.0.113.9, , 10.2.2.2"), "10.2.2.2");
        assert_eq!(via("_hidden"), "10.0.0.1");
        assert_eq!(via(""), "10.0.0.1");
    }

    #[test]
    fn several_lines_are_one_list() {
        let view = View::default()
            .peered("10.0.0.1")
            .with(FORWARDED_FOR, "6.6.6.6, 203.0.113.9")
            .with(FORWARDED_FOR, "10.2.2.2");
        assert_eq!(peer(&view), "203.0.113.9");
    }

    #[test]
    fn a_chain_without_end_is_cut() {
        let hops = vec!["10.2.2.2"; 1_000].join(",");
        assert_eq!(via(&format!("203.0.113.9,{hops}")), "10.2.2.2");
    }

    #[test]
    fn names_the_network_that_is_none() {
        assert!(Proxies::new(["10.0.0.0/8", "10.0.0.0/33"]).unwrap_err().contains("10.0.0.0/33"));
        assert!(Proxies::new(["127.0.0.1"]).unwrap().trusts("127.0.0.1".parse().unwrap()));
        assert!(!Proxies::new(["127.0.0.1"]).unwrap().trusts("127.0.0.2".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn what_a_client_writes_never_moves_its_address(forged in "[ -~]{0,80}") {
            prop_assert_eq!(via(&format!("{forged},203.0.113.9, 10.2.2.2")), "203.0.113.9");
        }
    }
}
