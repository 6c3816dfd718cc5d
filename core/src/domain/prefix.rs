//! Address prefixes.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::{serde_as_text, shown};
use crate::error::{Error, Result};

/// A range of addresses, such as `10.0.0.0/8` or `fd7a::/48`; the host bits are zero.
///
/// Ordered by family (IPv4 first), address, then length. IPv4-mapped IPv6 addresses are refused:
/// one network has one form.
///
/// ```
/// use ghostwire_store::domain::Prefix;
///
/// let prefix: Prefix = "10.1.0.0/16".parse()?;
/// assert!(prefix.contains("10.1.2.3".parse().unwrap()));
/// let error = "10.1.2.3/16".parse::<Prefix>().unwrap_err();
/// assert!(error.to_string().contains("10.1.0.0/16"));
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(IpNet);

impl Prefix {
    /// The prefix of this many bits of an address.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when `len` exceeds 32 (IPv4) or 128 (IPv6), when a bit after it is set,
    /// or when the address is an IPv4-mapped IPv6 address.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self> {
        if let IpAddr::V6(v6) = addr
            && let Some(mapped) = v6.to_ipv4_mapped()
        {
            return Err(Error::invalid(
                "a prefix must not be of an IPv4-mapped IPv6 address; give the IPv4 prefix",
            )
            .with("prefix", format_args!("{addr}/{len}"))
            .with("ipv4", mapped));
        }
        let net = IpNet::new(addr, len).map_err(|_| {
            Error::invalid("the length of a prefix must be at most 32 (IPv4) or 128 (IPv6)")
                .with("prefix", format_args!("{addr}/{len}"))
        })?;
        let canonical = net.trunc();
        if canonical != net {
            return Err(Error::invalid("a prefix must have no host bits set")
                .with("prefix", net)
                .with("canonical", canonical));
        }
        Ok(Self(net))
    }

    /// The prefix of one address: `/32` or `/128`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an IPv4-mapped IPv6 address.
    pub fn host(addr: IpAddr) -> Result<Self> {
        Self::new(addr, if addr.is_ipv4() { 32 } else { 128 })
    }

    /// The address, which is the first of the range.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.0.addr()
    }

    /// How many bits of the address count.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// The prefix of this length that contains `addr`; `None` if its family has no such length.
    #[must_use]
    pub fn containing(addr: IpAddr, len: u8) -> Option<Self> {
        IpNet::new(addr, len).ok().map(|net| Self(net.trunc()))
    }

    /// Whether the address lies in the range; never for one of the other family.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(&addr)
    }

    /// Whether all of `other` lies in this range.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// The first address, network address included.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.0.network()
    }

    /// The last address, broadcast address included.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// Whether it is all of a family, `0.0.0.0/0` or `::/0`: the route of an exit node.
    #[must_use]
    pub fn is_exit(&self) -> bool {
        self.0.prefix_len() == 0
    }

    /// Whether it is an IPv4 prefix.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.0.addr().is_ipv4()
    }

    /// Both routes of an exit node, `0.0.0.0/0` and `::/0`.
    #[must_use]
    pub fn exits() -> [Self; 2] {
        let all = |addr| Self(IpNet::new_assert(addr, 0));
        [all(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), all(IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    }
}

impl Ord for Prefix {
    fn cmp(&self, other: &Self) -> Ordering {
        // `IpAddr` orders IPv4 first, then bytewise.
        (self.addr(), self.prefix_len()).cmp(&(other.addr(), other.prefix_len()))
    }
}

impl PartialOrd for Prefix {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(addr, len)| {
            let plain = len == "0" || (!len.starts_with(['0', '+']));
            Some((addr.parse().ok()?, len.parse().ok().filter(|_| plain)?))
        });
        let Some((addr, len)) = parts else {
            return Err(Error::invalid(
                "a prefix must be an address, `/` and a length, such as 10.0.0.0/8 or fd7a::/48",
            )
            .with("prefix", shown(text)));
        };
        Self::new(addr, len)
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl TryFrom<IpNet> for Prefix {
    type Error = Error;

    fn try_from(net: IpNet) -> Result<Self> {
        Self::new(net.addr(), net.prefix_len())
    }
}

serde_as_text!(Prefix);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_writes_the_canonical_form() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd7a:115c::/48", "100.64.0.1/32"] {
            assert_eq!(prefix(text).to_string(), text);
            let json = format!("\"{text}\"");
            assert_eq!(serde_json::to_string(&prefix(text)).unwrap(), json);
            assert_eq!(serde_json::from_str::<Prefix>(&json).unwrap(), prefix(text));
        }
        assert_eq!(prefix("FD7A:0::/48").to_string(), "fd7a::/48");
    }

    #[test]
    fn refuses_other_text() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "::/256",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0 /8",
            "10.0.0/8",
            "fe80::%1/64",
            "::ffff:10.0.0.0/104",
            "::ffff:0:0/96",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        let error = "10.1.2.3/8".parse::<Prefix>().unwrap_err().to_string();
        assert!(error.contains("canonical=10.0.0.0/8"), "{error}");
    }

    #[test]
    fn is_ordered_by_family_address_and_length() {
        let sorted = ["0.0.0.0/0", "9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9", "::/0", "fd00::/8"];
        let mut prefixes: Vec<_> = sorted.iter().rev().map(|text| prefix(text)).collect();
        prefixes.sort();
        assert_eq!(prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(), sorted);
    }

    #[test]
    fn ranges() {
        let net = prefix("10.1.0.0/30");
        assert_eq!(net.first(), IpAddr::from([10, 1, 0, 0]));
        assert_eq!(net.last(), IpAddr::from([10, 1, 0, 3]));
        assert!(net.contains(net.first()) && net.contains(net.last()));
        assert!(!net.contains(IpAddr::from([10, 1, 0, 4])));
        assert!(!prefix("::/0").contains(net.first()));
        assert!(prefix("10.0.0.0/8").covers(&net) && !net.covers(&prefix("10.0.0.0/8")));
        assert_eq!((net.addr(), net.prefix_len(), net.is_ipv4()), (net.first(), 30, true));
        assert_eq!(prefix("0.0.0.0/0").last(), IpAddr::from([255; 4]));
        assert_eq!(prefix("::/0").last(), IpAddr::from([255; 16]));
    }

    #[test]
    fn hosts_and_exits() {
        assert_eq!(Prefix::host(IpAddr::from([10, 0, 0, 1])).unwrap(), prefix("10.0.0.1/32"));
        assert_eq!(Prefix::host("fd7a::1".parse().unwrap()).unwrap(), prefix("fd7a::1/128"));
        assert!(Prefix::host("::ffff:10.0.0.1".parse().unwrap()).is_err());
        assert_eq!(Prefix::exits(), [prefix("0.0.0.0/0"), prefix("::/0")]);
        assert!(Prefix::exits().iter().all(Prefix::is_exit));
        assert!(!prefix("0.0.0.0/1").is_exit());
    }
}
