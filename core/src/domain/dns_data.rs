//! Data of DNS records that has several parts.

use std::fmt;
use std::str::FromStr;

use super::{DnsName, serde_as_text, shown, text_newtype};
use crate::error::{Error, Result};

fn dns_target(text: &str) -> Result<Box<str>> {
    if text == "." {
        return Ok(text.into());
    }
    let name = DnsName::new(text)?;
    if name.is_wildcard() {
        return Err(Error::invalid("a record leads to one host, not to a wildcard")
            .with("name", shown(text)));
    }
    Ok(name.as_str().into())
}

text_newtype! {
    /// The host to which a record leads: a [`DnsName`] without a wildcard, or `.` for none, as in
    /// RFC 2782 and RFC 7505.
    ///
    /// ```
    /// use ghostwire_store::domain::DnsTarget;
    ///
    /// assert_eq!(DnsTarget::new("Mail.Example.COM.")?.as_str(), "mail.example.com");
    /// assert!(DnsTarget::new(".")?.is_none());
    /// assert!(DnsTarget::new("*.example.com").is_err());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    DnsTarget, dns_target
}

impl DnsTarget {
    /// Whether it says that there is no such host.
    #[must_use]
    pub fn is_none(&self) -> bool {
        &*self.0 == "."
    }
}

/// Where the mail for a name goes (RFC 1035, 3.3.9). As text `preference exchange`.
///
/// ```
/// use ghostwire_store::domain::Mx;
///
/// let mx: Mx = "010  Mail.Example.COM.".parse()?;
/// assert_eq!(mx.to_string(), "10 mail.example.com");
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mx {
    /// The lowest is tried first.
    pub preference: u16,
    /// Who takes the mail; `.` takes none (RFC 7505).
    pub exchange: DnsTarget,
}

/// Where a service is offered (RFC 2782). As text `priority weight port target`.
///
/// ```
/// use ghostwire_store::domain::Srv;
///
/// let srv: Srv = "0 5 389 LDAP.example.com".parse()?;
/// assert_eq!((srv.port, srv.target.as_str()), (389, "ldap.example.com"));
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Srv {
    /// The lowest is tried first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// Where the host listens.
    pub port: u16,
    /// The host; `.` says that the service is not offered here.
    pub target: DnsTarget,
}

/// Takes `N` numbers and a host, with blanks between them.
fn numbers_and_target<const N: usize>(text: &str) -> Option<([u16; N], DnsTarget)> {
    let mut parts = text.split_ascii_whitespace();
    let mut numbers = [0; N];
    for number in &mut numbers {
        // A sign is not part of a number here.
        let digits = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = digits.parse().ok()?;
    }
    let target = DnsTarget::new(parts.next()?).ok()?;
    parts.next().is_none().then_some((numbers, target))
}

impl FromStr for Mx {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let ([preference], exchange) = numbers_and_target(text).ok_or_else(|| {
            Error::invalid("an MX record holds a preference (0 to 65535) and a host")
                .with("value", shown(text))
        })?;
        Ok(Self { preference, exchange })
    }
}

impl FromStr for Srv {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let ([priority, weight, port], target) = numbers_and_target(text).ok_or_else(|| {
            Error::invalid("an SRV record holds priority, weight, port (0 to 65535) and a host")
                .with("value", shown(text))
        })?;
        Ok(Self { priority, weight, port, target })
    }
}

impl fmt::Display for Mx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.preference, self.exchange)
    }
}

impl fmt::Display for Srv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.priority, self.weight, self.port, self.target)
    }
}

serde_as_text!(Mx);
serde_as_text!(Srv);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn mail_exchanges() {
        for (text, canonical) in [
            ("10 mail.example.com", "10 mail.example.com"),
            (" 65535\tMAIL.example.com. ", "65535 mail.example.com"),
            ("00 .", "0 ."),
        ] {
            let mx: Mx = text.parse().unwrap();
            assert_eq!(mx.to_string(), canonical);
            assert_eq!(canonical.parse::<Mx>().unwrap(), mx);
        }
        for bad in [
            "",
            "10",
            "mail.example.com",
            "mail.example.com 10",
            "10 a b",
            "-1 a",
            "+1 a",
            "65536 a",
            "10 *.example.com",
            "10 a..b",
            "1.0 a",
        ] {
            assert!(bad.parse::<Mx>().is_err(), "{bad}");
        }
    }

    #[test]
    fn services() {
        for (text, canonical) in [
            ("0 5 389 ldap.example.com", "0 5 389 ldap.example.com"),
            ("01 02 03 A.example.", "1 2 3 a.example"),
            ("0 0 0 .", "0 0 0 ."),
        ] {
            let srv: Srv = text.parse().unwrap();
            assert_eq!(srv.to_string(), canonical);
            let json = serde_json::to_string(&srv).unwrap();
            assert_eq!(json, format!("\"{canonical}\""));
            assert_eq!(serde_json::from_str::<Srv>(&json).unwrap(), srv);
        }
        for bad in ["", "0 5 389", "0 5 a.example", "0 5 65536 a", "0 5 389 a b", "0 5 389 -a"] {
            let error = bad.parse::<Srv>().unwrap_err();
            assert!(error.to_string().contains("SRV"), "{bad}");
        }
    }
}
