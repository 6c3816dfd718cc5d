//! The addresses at which a node was seen.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::error::{Error, Result};

/// An address and port at which a node was seen, and when that was last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address and port, in serde as text, such as `192.0.2.1:41641`.
    #[serde(with = "addr_text")]
    pub addr: SocketAddr,
    /// When it was last seen there.
    pub seen_at: Timestamp,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} at {})", self.addr, self.seen_at)
    }
}

/// Text in every format; what the standard implementation writes depends on the format.
mod addr_text {
    use std::fmt;
    use std::net::SocketAddr;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    use crate::domain::short_text::ShortText;

    pub(super) fn serialize<S: Serializer>(addr: &SocketAddr, to: S) -> Result<S::Ok, S::Error> {
        match addr {
            SocketAddr::V4(v4) => to.serialize_str(ShortText::of_socket(*v4).as_str()),
            SocketAddr::V6(v6) => to.collect_str(v6),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
        struct AddrVisitor;

        impl Visitor<'_> for AddrVisitor {
            type Value = SocketAddr;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address and port, such as 192.0.2.1:41641 or [2001:db8::1]:41641")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<SocketAddr, E> {
                text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        from.deserialize_str(AddrVisitor)
    }
}

/// At most 64 endpoints, sorted by address, each address once. In serde a list; a clone shares them.
///
/// ```
/// use ghostwire_store::domain::{Endpoint, EndpointList, Timestamp};
///
/// let seen = |secs| -> Result<_, ghostwire_store::Error> {
///     let addr = "192.0.2.1:41641".parse().unwrap();
///     Ok(Endpoint { addr, seen_at: Timestamp::from_secs(secs)? })
/// };
/// let list = EndpointList::new([seen(7)?, seen(5)?])?;
/// assert_eq!(list.as_slice(), [seen(7)?]);
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Endpoint>")]
pub struct EndpointList(Arc<[Endpoint]>);

impl EndpointList {
    /// The greatest number of endpoints.
    pub const MAX_ENDPOINTS: usize = 64;

    /// The list of these endpoints. Of several with one address the latest counts. The flow label
    /// of an IPv6 address, which has no text form, is set to zero.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there are more than [`EndpointList::MAX_ENDPOINTS`] addresses.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self> {
        let mut latest = BTreeMap::new();
        for Endpoint { mut addr, seen_at } in endpoints {
            if let SocketAddr::V6(v6) = &mut addr {
                v6.set_flowinfo(0);
            }
            let known = latest.entry(addr).or_insert(seen_at);
            *known = seen_at.max(*known);
            if latest.len() > Self::MAX_ENDPOINTS {
                return Err(Error::invalid("there must be at most 64 endpoints"));
            }
        }
        if latest.is_empty() {
            return Ok(Self::empty());
        }
        Ok(Self(latest.into_iter().map(|(addr, seen_at)| Endpoint { addr, seen_at }).collect()))
    }

    /// The list without endpoints.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The endpoints, ordered by address: IPv4 first, then bytewise, then by port.
    pub fn iter(&self) -> std::slice::Iter<'_, Endpoint> {
        self.0.iter()
    }

    /// The endpoints, ordered by address.
    #[must_use]
    pub fn as_slice(&self) -> &[Endpoint] {
        &self.0
    }

    /// Whether both are the same but for when each endpoint was seen.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&Endpoint, &Endpoint)| *a == Endpoint { seen_at: a.seen_at, ..*b };
        self.len() == other.len() && self.iter().zip(other).all(same)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl TryFrom<Vec<Endpoint>> for EndpointList {
    type Error = Error;

    fn try_from(endpoints: Vec<Endpoint>) -> Result<Self> {
        Self::new(endpoints)
    }
}

impl<'a> IntoIterator for &'a EndpointList {
    type Item = &'a Endpoint;
    type IntoIter = std::slice::Iter<'a, Endpoint>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv6Addr, SocketAddrV6};

    use super::*;

    fn endpoint(addr: &str, secs: i64) -> Endpoint {
        Endpoint { addr: addr.parse().unwrap(), seen_at: Timestamp::from_secs(secs).unwrap() }
    }

    #[test]
    fn is_sorted_and_keeps_the_latest() {
        let list = EndpointList::new([
            endpoint("[2001:db8::1]:1", 1),
            endpoint("192.0.2.1:2", 3),
            endpoint("192.0.2.1:1", 1),
            endpoint("192.0.2.1:2", 2),
            endpoint("9.0.0.1:9", 1),
        ])
        .unwrap();
        let expected = [
            endpoint("9.0.0.1:9", 1),
            endpoint("192.0.2.1:1", 1),
            endpoint("192.0.2.1:2", 3),
            endpoint("[2001:db8::1]:1", 1),
        ];
        assert_eq!(list.as_slice(), expected);
        assert_eq!(list, EndpointList::new(expected.into_iter().rev()).unwrap());
        assert_eq!(list.len(), 4);
        assert!(list.iter().eq(&list));
    }

    #[test]
    fn is_limited() {
        let many = |count: u16| (0..count).map(|port| endpoint(&format!("192.0.2.1:{port}"), 0));
        assert_eq!(EndpointList::new(many(64).chain(many(64))).unwrap().len(), 64);
        assert!(EndpointList::new(many(65)).is_err());
        assert!(EndpointList::empty().is_empty());
        assert_eq!(EndpointList::new([]).unwrap(), EndpointList::default());
    }

    #[test]
    fn serde_is_a_list_with_text_addresses() {
        let text = r#"[{"addr":"[fe80::1%2]:7","seen_at":"1970-01-01T00:00:01.000000Z"}]"#;
        let list: EndpointList = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&list).unwrap(), text);
        assert_eq!(serde_json::to_string(&EndpointList::empty()).unwrap(), "[]");
        let without_port = text.replace("]:7", "]");
        assert!(serde_json::from_str::<EndpointList>(&without_port).is_err());
    }

    #[test]
    fn equals_what_its_text_gives() {
        let addr = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 5, 0).into();
        let list = EndpointList::new([Endpoint { addr, seen_at: Timestamp::EPOCH }]).unwrap();
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<EndpointList>(&text).unwrap(), list);
    }
}
