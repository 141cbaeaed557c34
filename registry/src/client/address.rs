//! Which addresses a registry may lead to.
//!
//! Names are looked up here, and what is connected to is exactly what was looked at, so a name that
//! means one thing when it is checked and another when it is used gains nothing.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use url::{Host, Url};

/// Whom an address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The same machine to everybody.
    Public,
    /// A machine of whatever network one is in.
    Private,
    /// This machine.
    Loopback,
    /// A neighbour on the wire, a cloud's metadata service, or nobody at all: never a registry.
    Local,
}

/// Whom the address means.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => embedded(address).map_or_else(|| reach_v6(address), reach_v4),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [127, ..] => Reach::Loopback,
        // Beside RFC 1918: carriers' shared space, and the one for measuring networks.
        [100, 64..=127, ..] | [198, 18..=19, ..] => Reach::Private,
        _ if address.is_private() => Reach::Private,
        [0, ..] | [169, 254, ..] | [192, 0, 0, _] | [224..=255, ..] => Reach::Local,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    match address.segments()[0] {
        _ if address.is_loopback() => Reach::Loopback,
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Reach::Private,
        0xfe80..=0xfebf | 0xff00..=0xffff => Reach::Local,
        _ if address.is_unspecified() => Reach::Local,
        _ => Reach::Public,
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., g, h] = address.segments();
    let low = || Some(Ipv4Addr::from(u32::from(g) << 16 | u32::from(h)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => low(),
        [0, 0, 0, 0, 0, 0, g, _] if g != 0 => low(),
        [0x2002, a, b, ..] => Some(Ipv4Addr::from(u32::from(a) << 16 | u32::from(b))),
        _ => None,
    }
}

/// Whom the address means that a URL states; None for a name, which has yet to be looked up.
pub(super) fn stated(url: &Url) -> Option<Reach> {
    match url.host()? {
        Host::Domain("localhost") => Some(Reach::Loopback),
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(reach(address.into())),
        Host::Ipv6(address) => Some(reach(address.into())),
    }
}

/// Looks names up, and gives only addresses that may be connected to.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// The hosts that may be inside this network, without their ports and in lower case.
    inside: Arc<BTreeSet<String>>,
}

impl Guard {
    pub(super) fn new(inside: impl IntoIterator<Item = String>) -> Guard {
        Guard { inside: Arc::new(inside.into_iter().collect()) }
    }

    /// Whether the host may be inside this network.
    pub(super) fn allows(&self, host: &str) -> bool {
        self.inside.contains(&host.trim_end_matches('.').to_ascii_lowercase())
    }

    /// Of the addresses that a host has, those that may be connected to.
    fn permitted(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        if self.allows(host) {
            return Ok(found);
        }
        let (public, other): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| reach(address.ip()) == Reach::Public);
        match other.first() {
            Some(address) if public.is_empty() => {
                Err(Refused { host: host.to_owned(), address: address.ip() })
            }
            _ => Ok(public),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let permitted = guard.permitted(host, lookup(host).await?)?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

async fn lookup(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    // A name that no DNS has (RFC 6761), for tests of names that mean this machine and do not say so.
    #[cfg(test)]
    if host.ends_with(".test") {
        return Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]);
    }
    Ok(tokio::net::lookup_host((host, 0)).await?.collect())
}

/// A host is inside this network, and nobody has said that it may be.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) host: String,
    pub(super) address: IpAddr,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, an address inside this network", self.host, self.address)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_by_whom_they_mean() {
        let all = [
            (
                Reach::Public,
                "1.1.1.1 8.8.8.8 172.32.0.1 100.128.0.1 2606:4700::1111 2002:808:808::",
            ),
            (
                Reach::Private,
                "10.0.0.1 172.16.9.9 192.168.1.1 100.64.0.1 100.100.100.200 198.18.0.1",
            ),
            (Reach::Private, "fd00:ec2::254 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::"),
            (Reach::Loopback, "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1"),
            (Reach::Local, "169.254.169.254 0.0.0.0 0.1.2.3 192.0.0.192 224.0.0.1 255.255.255.255"),
            (
                Reach::Local,
                "fe80::1 ff02::1 :: ::ffff:169.254.169.254 ::a9fe:a9fe 64:ff9b::a9fe:a9fe",
            ),
        ];
        for (expected, addresses) in all {
            for address in addresses.split(' ') {
                assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
            }
        }
    }

    #[test]
    fn a_host_inside_must_be_allowed_by_name() {
        let guard = Guard::new(["lan.example".to_owned()]);
        let ask = |host: &str, addresses: &[&str]| {
            let found = addresses.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0));
            let permitted = guard.permitted(host, found.collect());
            permitted.map(|found| found.len()).map_err(|refused| refused.to_string())
        };
        assert_eq!(ask("x.example", &["1.1.1.1", "2606:4700::1111"]), Ok(2));
        assert_eq!(ask("LAN.example.", &["10.0.0.1"]), Ok(1));
        // One good address is no excuse for the others.
        assert_eq!(ask("x.example", &["10.0.0.1", "1.1.1.1"]), Ok(1));
        for address in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1"] {
            let expected = format!("x.example is {address}, an address inside this network");
            assert_eq!(ask("x.example", &[address]), Err(expected));
        }
        assert_eq!(ask("x.example", &[]), Ok(0));
    }
}
