//! Values as people type them.

use std::net::IpAddr;
use std::str::FromStr;

use ghostwire_store::domain::{DnsRecordKind, Timestamp};
use ghostwire_store::{Error, Result};
use jiff::civil::DateTime;
use jiff::{SignedDuration, Span, SpanFieldwise};
use serde::de::DeserializeOwned;
use serde_json::Value;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// A moment: `now`, a date, a time, or so long from now, as in `24h`, `90d` or `1y`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Moment {
    At(Timestamp),
    /// How long from now, in which direction the context says.
    Away(SpanFieldwise),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Away(Span::new().fieldwise()));
        }
        let midnight = format!("{text}T00:00:00Z");
        if let Ok(at) = text.parse().or_else(|_| midnight.parse()) {
            return Ok(Self::At(at));
        }
        match text.parse::<Span>() {
            Ok(span) if !span.is_negative() => Ok(Self::Away(span.fieldwise())),
            _ => Err(
                "write how long (24h, 90d, 1y), a date (2030-01-31), a time in RFC 3339 form, or \
                      now"
                .to_owned(),
            ),
        }
    }
}

impl Moment {
    /// So long after now, unless it is a time by itself.
    pub(crate) fn ahead(self, now: Timestamp) -> Result<Timestamp> {
        self.counted(now, 1)
    }

    /// So long before now, unless it is a time by itself.
    pub(crate) fn back(self, now: Timestamp) -> Result<Timestamp> {
        self.counted(now, -1)
    }

    fn counted(self, now: Timestamp, direction: i64) -> Result<Timestamp> {
        let span = match self {
            Self::At(at) => return Ok(at),
            Self::Away(span) => span.0,
        };
        let far = |error| Error::invalid("that is too long a time").because(error);
        let there = span
            .checked_mul(direction)
            .and_then(|span| {
                EPOCH.checked_add(SignedDuration::from_micros(now.as_micros()))?.checked_add(span)
            })
            .map_err(far)?;
        let micros = i64::try_from(there.duration_since(EPOCH).as_micros());
        // Nothing is older than what the store calls its beginning.
        Timestamp::from_micros(micros.unwrap_or(i64::MAX).max(Timestamp::EPOCH.as_micros()))
    }
}

/// When something ends: a moment, or `never`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ends {
    Never,
    Then(Moment),
}

impl FromStr for Ends {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        text.parse().map(Self::Then).map_err(|error| format!("{error}, or never"))
    }
}

impl Ends {
    pub(crate) fn at(self, now: Timestamp) -> Result<Option<Timestamp>> {
        match self {
            Self::Never => Ok(None),
            Self::Then(moment) => moment.ahead(now).map(Some),
        }
    }
}

/// One of the words of an enumeration, in whatever case, with `-` or `_`.
pub(crate) fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let snake = text.to_ascii_lowercase().replace('-', "_");
    let read = |text: String| serde_json::from_value(Value::String(text));
    let error = match read(snake.to_ascii_uppercase()).or_else(|_| read(snake)) {
        Ok(word) => return Ok(word),
        Err(error) => error.to_string(),
    };
    // "unknown variant `king`, expected one of `owner`, `network_admin`"
    let known = error.split_once("expected").map_or("", |(_, known)| known);
    let known: Vec<_> =
        known.split('`').skip(1).step_by(2).map(|word| word.replace('_', "-")).collect();
    Err(format!("write one of {}", known.join(", ")))
}

/// The kind of DNS records. Whoever leaves it out is told where it belongs.
pub(crate) fn record_kind(text: &str) -> Result<DnsRecordKind, String> {
    let kind = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => "A",
        Ok(IpAddr::V6(_)) => "AAAA",
        Err(_) => return word(text),
    };
    Err(format!("the kind comes before the value: write {kind} {text}"))
}

/// A text that is not empty.
pub(crate) fn given<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    if text.is_empty() {
        return Err("it must not be empty".to_owned());
    }
    text.parse().map_err(|error: Error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ghostwire_store::domain::UserRole;

    use super::*;

    #[test]
    fn moments_are_counted_from_now() {
        let now: Timestamp = "2026-03-31T12:00:00Z".parse().unwrap();
        for (text, ahead, back) in [
            ("24h", "2026-04-01T12:00:00Z", "2026-03-30T12:00:00Z"),
            ("1d12h", "2026-04-02T00:00:00Z", "2026-03-30T00:00:00Z"),
            ("90d", "2026-06-29T12:00:00Z", "2025-12-31T12:00:00Z"),
            ("1mo", "2026-04-30T12:00:00Z", "2026-02-28T12:00:00Z"),
            ("1y", "2027-03-31T12:00:00Z", "2025-03-31T12:00:00Z"),
            ("now", "2026-03-31T12:00:00Z", "2026-03-31T12:00:00Z"),
            ("2030-01-31", "2030-01-31T00:00:00Z", "2030-01-31T00:00:00Z"),
            ("2030-01-31T01:00:00+01:00", "2030-01-31T00:00:00Z", "2030-01-31T00:00:00Z"),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.ahead(now).unwrap(), ahead.parse().unwrap(), "{text}");
            assert_eq!(moment.back(now).unwrap(), back.parse().unwrap(), "{text}");
        }
        for bad in ["", "never", "-1d", "1d ago", "soon", "24", "2030-13-01"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
        assert!("9999y".parse::<Moment>().unwrap().ahead(now).is_err());
        assert_eq!("never".parse::<Ends>().unwrap().at(now).unwrap(), None);
    }

    #[test]
    fn words_are_those_of_the_enumeration() {
        assert_eq!(word("network-admin"), Ok(UserRole::NetworkAdmin));
        assert_eq!(word("aaaa"), Ok(DnsRecordKind::Aaaa));
        assert_eq!(
            word::<UserRole>("king").unwrap_err(),
            "write one of owner, admin, network-admin, it-admin, billing-admin, auditor, member"
        );
        let error = record_kind("100.64.0.9").unwrap_err();
        assert_eq!(error, "the kind comes before the value: write A 100.64.0.9");
        assert_eq!(record_kind("mx"), Ok(DnsRecordKind::Mx));
    }
}
