//! Extra DNS records that the mesh serves.

use serde::{Deserialize, Serialize};

use super::{DnsName, DnsRecordId, Patch, Revision, Text, Timestamp, Update};
use crate::error::{Error, Result};

/// One DNS record; (name, kind, value) is unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsRecord {
    /// Time-ordered identifier.
    pub id: DnsRecordId,
    /// The name it answers for.
    pub name: DnsName,
    /// A, AAAA, CNAME or TXT.
    pub kind: DnsRecordKind,
    /// Its data in presentation form.
    pub value: Text<1024>,
    /// Seconds a resolver may keep it; `None` leaves it to the server. (Schema version 2.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// When the record was created.
    pub created_at: Timestamp,
    /// When a field last changed.
    pub updated_at: Timestamp,
    /// Counts changes, from 1.
    pub revision: Revision,
}

/// The type of a DNS record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum DnsRecordKind {
    A,
    Aaaa,
    Cname,
    Txt,
}

/// What is needed to create a DNS record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDnsRecord {
    /// The name it answers for.
    pub name: DnsName,
    /// A, AAAA, CNAME or TXT.
    pub kind: DnsRecordKind,
    /// Its data; an address for `A` and `AAAA`, a DNS name for `CNAME`, any text for `TXT`.
    pub value: Text<1024>,
    /// Seconds a resolver may keep it.
    pub ttl: Option<u32>,
}

/// A change to a DNS record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsRecordPatch {
    /// New data; it has to fit the record's kind.
    pub value: Update<Text<1024>>,
    /// New time to live.
    pub ttl: Patch<u32>,
}

/// Which records to list; all of the given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsRecordFilter {
    /// For this name.
    pub name: Option<DnsName>,
    /// Of this type.
    pub kind: Option<DnsRecordKind>,
}

impl DnsRecordKind {
    /// Checks that `value` is data of this type.
    ///
    /// # Errors
    /// `InvalidArgument` naming the kind and the value.
    pub fn check(self, value: &str) -> Result<()> {
        let fits = match self {
            Self::A => value.parse::<std::net::Ipv4Addr>().is_ok(),
            Self::Aaaa => value.parse::<std::net::Ipv6Addr>().is_ok(),
            Self::Cname => value.parse::<DnsName>().is_ok(),
            Self::Txt => true,
        };
        if fits {
            return Ok(());
        }
        let wanted = match self {
            Self::A => "an A record holds an IPv4 address",
            Self::Aaaa => "an AAAA record holds an IPv6 address",
            Self::Cname => "a CNAME record holds a DNS name",
            Self::Txt => "a TXT record holds text",
        };
        Err(Error::invalid(wanted).with("value", value))
    }
}
