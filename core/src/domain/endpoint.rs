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
    /// How it was found. (Schema version 4.)
    #[serde(default, skip_serializing_if = "EndpointKind::is_unknown")]
    pub kind: EndpointKind,
    /// Which one to try first: the one with the highest; 0 if nobody said. (Schema version 4.)
    #[serde(default, skip_serializing_if = "is_zero")]
    pub preference: u16,
}

// The signature is what serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(preference: &u16) -> bool {
    *preference == 0
}

impl Endpoint {
    /// An address and port of which nothing more is known.
    #[must_use]
    pub fn new(addr: SocketAddr, seen_at: Timestamp) -> Self {
        Self { addr, seen_at, kind: EndpointKind::Unknown, preference: 0 }
    }
}

/// How an endpoint was found. In serde and as text the word that Tailscale's clients use, and `relay`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// Nobody said.
    #[default]
    Unknown,
    /// An address of one of its interfaces.
    Local,
    /// What a STUN server saw.
    Stun,
    /// What its router opened on request (NAT-PMP, PCP, UPnP).
    Portmap,
    /// The address that a STUN server saw with the local port, for a NAT that gives each peer another one.
    Stun4LocalPort,
    /// What an administrator wrote down.
    ExplicitConf,
    /// A relay that passes its traffic on.
    Relay,
}

impl EndpointKind {
    const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Local,
        Self::Stun,
        Self::Portmap,
        Self::Stun4LocalPort,
        Self::ExplicitConf,
        Self::Relay,
    ];

    /// The kind with this name. A word that is not known says nothing, and costs no endpoint:
    /// `Unknown`.
    ///
    /// ```
    /// use ghostwire_store::domain::EndpointKind;
    ///
    /// assert_eq!(EndpointKind::from_outside("stun"), EndpointKind::Stun);
    /// assert_eq!(EndpointKind::from_outside("by pigeon"), EndpointKind::Unknown);
    /// ```
    #[must_use]
    pub fn from_outside(word: &str) -> Self {
        let named = |kind: &Self| kind.name().eq_ignore_ascii_case(word);
        Self::ALL.into_iter().find(named).unwrap_or_default()
    }

    /// Its name, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Local => "local",
            Self::Stun => "stun",
            Self::Portmap => "portmap",
            Self::Stun4LocalPort => "stun4localport",
            Self::ExplicitConf => "explicitconf",
            Self::Relay => "relay",
        }
    }

    /// Whether nobody said how the endpoint was found.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

impl fmt::Display for EndpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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
///     Ok(Endpoint::new(addr, Timestamp::from_secs(secs)?))
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

    /// The list of these endpoints. Of several with one address the one that was seen last counts, and
    /// of those the last one given. The flow label of an IPv6 address, which has no text form, is set
    /// to zero.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there are more than [`EndpointList::MAX_ENDPOINTS`] addresses.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self> {
        let mut latest = BTreeMap::new();
        for endpoint in endpoints {
            let addr = without_flow(endpoint.addr);
            let endpoint = Endpoint { addr, ..endpoint };
            let known = latest.entry(addr).or_insert(endpoint);
            if known.seen_at <= endpoint.seen_at {
                *known = endpoint;
            }
            if latest.len() > Self::MAX_ENDPOINTS {
                return Err(Error::invalid("there must be at most 64 endpoints"));
            }
        }
        Ok(Self::of(latest))
    }

    fn of(endpoints: BTreeMap<SocketAddr, Endpoint>) -> Self {
        if endpoints.is_empty() { Self::empty() } else { Self(endpoints.into_values().collect()) }
    }

    fn by_address(&self) -> BTreeMap<SocketAddr, Endpoint> {
        self.iter().map(|endpoint| (endpoint.addr, *endpoint)).collect()
    }

    /// The list with one endpoint more, or in the place of that with its address unless that was seen
    /// later. Beyond [`EndpointList::MAX_ENDPOINTS`] the one that was seen longest ago gives way.
    #[must_use]
    pub fn with(&self, endpoint: Endpoint) -> Self {
        let addr = without_flow(endpoint.addr);
        let mut all = self.by_address();
        match all.get(&addr) {
            Some(known) if known.seen_at > endpoint.seen_at => return self.clone(),
            _ => all.insert(addr, Endpoint { addr, ..endpoint }),
        };
        if all.len() > Self::MAX_ENDPOINTS
            && let Some(oldest) = all.values().min_by_key(|it| (it.seen_at, it.addr)).copied()
        {
            all.remove(&oldest.addr);
        }
        Self::of(all)
    }

    /// The list without the endpoint that has this address, if it has one.
    #[must_use]
    pub fn without(&self, addr: SocketAddr) -> Self {
        let mut all = self.by_address();
        match all.remove(&without_flow(addr)) {
            Some(_) => Self::of(all),
            None => self.clone(),
        }
    }

    /// The list with none seen later than `now`.
    pub(crate) fn seen_by(&self, now: Timestamp) -> Self {
        match self.iter().any(|endpoint| endpoint.seen_at > now) {
            true => self.redated(|at| at.min(now)),
            false => self.clone(),
        }
    }

    /// The list with other times at which its endpoints were seen.
    pub(crate) fn redated(&self, time: impl Fn(Timestamp) -> Timestamp) -> Self {
        let endpoints = self.iter();
        Self(endpoints.map(|it| Endpoint { seen_at: time(it.seen_at), ..*it }).collect())
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

/// The address as its text gives it: a flow label has none.
fn without_flow(mut addr: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut addr {
        v6.set_flowinfo(0);
    }
    addr
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
        Endpoint::new(addr.parse().unwrap(), Timestamp::from_secs(secs).unwrap())
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
    fn one_is_put_in_or_taken_out() {
        let list = EndpointList::new([endpoint("192.0.2.1:1", 5), endpoint("192.0.2.2:1", 5)]);
        let list = list.unwrap();
        let stun =
            Endpoint { kind: EndpointKind::Stun, preference: 3, ..endpoint("192.0.2.1:1", 5) };
        assert_eq!(list.with(stun).as_slice(), [stun, endpoint("192.0.2.2:1", 5)]);
        assert_eq!(list.with(Endpoint { seen_at: Timestamp::EPOCH, ..stun }), list);
        assert_eq!(list.without(stun.addr).as_slice(), [endpoint("192.0.2.2:1", 5)]);
        assert_eq!(list.without("192.0.2.3:1".parse().unwrap()), list);
        assert_eq!(EndpointList::empty().with(stun).without(stun.addr), EndpointList::empty());
        // The one that was seen longest ago gives way, and that can be the new one.
        let full = (1..=64).map(|port: i64| endpoint(&format!("192.0.2.1:{port}"), port));
        let full = EndpointList::new(full).unwrap();
        let newer = full.with(endpoint("192.0.2.9:9", 9));
        assert_eq!(
            newer,
            full.without("192.0.2.1:1".parse().unwrap()).with(endpoint("192.0.2.9:9", 9))
        );
        assert_eq!(full.with(endpoint("192.0.2.9:9", 0)), full);
    }

    #[test]
    fn kind_and_preference_are_written_if_they_say_something() {
        let text = r#"[{"addr":"192.0.2.1:7","seen_at":"1970-01-01T00:00:01.000000Z","kind":"stun4localport","preference":9}]"#;
        let list: EndpointList = serde_json::from_str(text).unwrap();
        assert_eq!(list.as_slice().first().unwrap().kind, EndpointKind::Stun4LocalPort);
        assert_eq!(serde_json::to_string(&list).unwrap(), text);
        for kind in EndpointKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
            assert_eq!(EndpointKind::from_outside(&kind.name().to_uppercase()), kind);
        }
    }

    #[test]
    fn equals_what_its_text_gives() {
        let addr = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 5, 0).into();
        let list = EndpointList::new([Endpoint::new(addr, Timestamp::EPOCH)]).unwrap();
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<EndpointList>(&text).unwrap(), list);
    }
}
