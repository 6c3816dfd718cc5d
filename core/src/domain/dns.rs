//! Extra DNS records that the mesh serves.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    DnsName, DnsRecordId, Fingerprint, Mx, Patch, Revision, Srv, Text, Timestamp, Update, shown,
};
use crate::error::{Error, Result};

/// One DNS record; (name, kind, value) is unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsRecord {
    /// Time-ordered identifier.
    pub id: DnsRecordId,
    /// The name it answers for.
    pub name: DnsName,
    /// Its type.
    pub kind: DnsRecordKind,
    /// Its data in presentation form, as [`DnsRecordKind::canonical`] has it.
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

/// The type of a DNS record. (The last three since schema version 4.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// The name that this one stands for.
    Cname,
    /// Any text.
    Txt,
    /// [`Mx`].
    Mx,
    /// A name, for an address that is written as a name (`7.0.20.10.in-addr.arpa`).
    Ptr,
    /// [`Srv`], for the name of a service (`_ldap._tcp.example.com`).
    Srv,
}

/// What is needed to create a DNS record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDnsRecord {
    /// The name it answers for.
    pub name: DnsName,
    /// Its type.
    pub kind: DnsRecordKind,
    /// Its data, as [`DnsRecordKind::canonical`] takes it.
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

/// What a name shall have of one kind, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDnsRecordSet {
    /// The name they answer for.
    pub name: DnsName,
    /// Their type.
    pub kind: DnsRecordKind,
    /// The data of each, at most 1,024. None takes the set away; twice is as good as once.
    pub values: Vec<Text<1024>>,
    /// Seconds a resolver may keep them.
    pub ttl: Option<u32>,
}

/// The records that a name has of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRecordSet {
    /// The name they answer for.
    pub name: DnsName,
    /// Their type.
    pub kind: DnsRecordKind,
    /// By value; empty if there are none.
    pub records: Vec<Arc<DnsRecord>>,
    /// What a write takes as `expected`, to be refused if somebody else changed the set meanwhile.
    pub fingerprint: Fingerprint,
}

impl DnsRecordSet {
    pub(crate) fn new(name: DnsName, kind: DnsRecordKind, records: Vec<Arc<DnsRecord>>) -> Self {
        let fingerprint = Fingerprint::of(records.iter().map(|it| (it.id, it.revision)));
        Self { name, kind, records, fingerprint }
    }
}

impl DnsRecordKind {
    /// The first in order.
    pub(crate) const FIRST: Self = Self::A;

    /// As zone files have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Txt => "TXT",
            Self::Mx => "MX",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
        }
    }

    /// Checks that `value` is data of this type, and gives it as it is kept: in the one form that it has;
    /// that of TXT records as it is.
    ///
    /// ```
    /// use ghostwire_store::domain::DnsRecordKind;
    ///
    /// let value = DnsRecordKind::Mx.canonical(&"10  Mail.Example.COM.".parse()?)?;
    /// assert_eq!(value.as_str(), "10 mail.example.com");
    /// assert!(DnsRecordKind::A.canonical(&"fd00::1".parse()?).is_err());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` naming the kind and the value.
    pub fn canonical(self, value: &Text<1024>) -> Result<Text<1024>> {
        let text = value.as_str();
        let name = || text.parse::<DnsName>().ok();
        let kept = match self {
            Self::A => text.parse::<std::net::Ipv4Addr>().ok().map(|address| address.to_string()),
            Self::Aaaa => {
                text.parse::<std::net::Ipv6Addr>().ok().map(|address| address.to_string())
            }
            Self::Cname => name().map(|name| name.to_string()),
            Self::Txt => return Ok(value.clone()),
            Self::Mx => Some(text.parse::<Mx>()?.to_string()),
            Self::Srv => Some(text.parse::<Srv>()?.to_string()),
            Self::Ptr => name().filter(|name| !name.is_wildcard()).map(|name| name.to_string()),
        };
        if let Some(kept) = kept {
            return Text::new(kept);
        }
        let wanted = match self {
            Self::A => "an A record holds an IPv4 address",
            Self::Aaaa => "an AAAA record holds an IPv6 address",
            Self::Cname => "a CNAME record holds a DNS name",
            _ => "a PTR record holds a DNS name without a wildcard",
        };
        Err(Error::invalid(wanted).with("value", shown(text)))
    }
}

impl fmt::Display for DnsRecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn values_have_one_form() {
        use DnsRecordKind::{A, Aaaa, Cname, Mx, Ptr, Srv, Txt};
        for (kind, value, kept) in [
            (A, "10.0.0.1", Some("10.0.0.1")),
            (A, "fd00::1", None),
            (Aaaa, "FD00:0:0::1", Some("fd00::1")),
            (Cname, "A.example.", Some("a.example")),
            (Txt, " any\ttext ", Some(" any\ttext ")),
            (Mx, "010 A.example.", Some("10 a.example")),
            (Mx, "10.0.0.1", None),
            (Ptr, "Web.Example.COM.", Some("web.example.com")),
            (Ptr, "*.example.com", None),
            (Ptr, ".", None),
            (Srv, "0 5 5060 SIP.example.", Some("0 5 5060 sip.example")),
            (Srv, "5060 sip.example", None),
        ] {
            let canonical = kind.canonical(&value.parse().unwrap());
            assert_eq!(canonical.ok().as_ref().map(Text::as_str), kept, "{kind} {value}");
        }
    }

    #[test]
    fn names_of_kinds_are_those_of_serde() {
        use DnsRecordKind::{A, Aaaa, Cname, Mx, Ptr, Srv, Txt};
        for kind in [A, Aaaa, Cname, Txt, Mx, Ptr, Srv] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
            assert!(kind >= DnsRecordKind::FIRST);
        }
    }
}
