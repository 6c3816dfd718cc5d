//! The forms in which Headscale's database driver has written times.

use ghostwire_store_core::domain::Timestamp;
use rusqlite::types::ValueRef;

/// Times before this year are Go's zero time, or damage that Headscale itself takes for it.
const FIRST_YEAR: i64 = 1900;

/// 1900-01-01 in seconds since 1970.
const FIRST_SECOND: i64 = -2_208_988_800;

/// Above this an integer counts milliseconds; as seconds it would lie in the year 5138.
const LAST_SECOND: i64 = 100_000_000_000;

/// The time in a column; `None` for NULL, for empty text, for Go's zero time in any form, and for
/// the first moment of 1970, which is what a zero time becomes on the way through an integer.
pub(super) fn parse(value: ValueRef<'_>) -> Result<Option<Timestamp>, String> {
    let at = match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(number) if number < FIRST_SECOND => return Ok(None),
        ValueRef::Integer(number) if number > LAST_SECOND => Timestamp::from_millis(number),
        ValueRef::Integer(number) => Timestamp::from_secs(number),
        ValueRef::Real(_) => return Err("a time cannot be a fractional number".into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| MALFORMED)?.trim();
            if text.is_empty() {
                return Ok(None);
            }
            match rfc3339(text).ok_or(MALFORMED)? {
                None => return Ok(None),
                Some(text) => text.parse(),
            }
        }
    };
    // The error is not passed on, since it repeats the text.
    let at = at.map_err(|_| MALFORMED)?;
    Ok(Some(at).filter(|at| *at != Timestamp::EPOCH))
}

const MALFORMED: &str = "not a time that Headscale writes, such as 2024-01-31 12:00:00.5+00:00";

/// Brings `2024-01-31 12:00:00.5 +0100 CET m=+0.1` and its relatives to RFC 3339. `Some(None)` is a
/// zero time.
fn rfc3339(text: &str) -> Option<Option<String>> {
    let text = text.split(" m=").next()?;
    let (date, rest) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00:00"));
    let year: i64 = date.split('-').next()?.parse().ok()?;
    if year < FIRST_YEAR {
        return Some(None);
    }
    let zone_at = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at_checked(zone_at)?;
    // What stands behind an offset is the name of the zone, which says nothing more.
    let zone = zone.split_whitespace().next().unwrap_or("Z");
    let offset = match zone {
        "Z" | "z" | "UTC" | "GMT" => "+00:00".to_owned(),
        _ => {
            let (sign, digits) = zone.split_at_checked(1)?;
            let digits = digits.replace(':', "");
            let (hours, minutes) = digits.split_at_checked(2)?;
            if !matches!(sign, "+" | "-") || minutes.len() != 2 {
                return None;
            }
            format!("{sign}{hours}:{minutes}")
        }
    };
    Some(Some(format!("{date}T{time}{offset}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<Option<String>, String> {
        parse(ValueRef::Text(text.as_bytes())).map(|at| at.map(|at| at.to_string()))
    }

    #[test]
    fn every_form_that_was_ever_written() {
        for form in [
            "2024-01-31 12:00:00.123456789+00:00",
            "2024-01-31 12:00:00.123456+00:00",
            "2024-01-31T12:00:00.123456Z",
            "2024-01-31T12:00:00.123456789Z",
            "2024-01-31 12:00:00.123456789 +0000 UTC",
            "2024-01-31 13:00:00.123456789 +0100 CET m=+0.100000001",
            "2024-01-31 06:30:00.123456789 -0530 -0530",
            "2024-01-31 12:00:00.123456",
            "2024-01-31 12:00:00.123456 UTC",
            " 2024-01-31 14:00:00.123456+02:00 ",
        ] {
            assert_eq!(text(form).unwrap().unwrap(), "2024-01-31T12:00:00.123456Z", "{form}");
        }
        assert_eq!(text("2024-01-31").unwrap().unwrap(), "2024-01-31T00:00:00.000000Z");
        assert_eq!(
            text("2024-01-31 12:00:00+00:00").unwrap().unwrap(),
            "2024-01-31T12:00:00.000000Z"
        );
    }

    #[test]
    fn zero_times_are_none() {
        for form in [
            "",
            "0001-01-01 00:00:00+00:00",
            "0001-01-01T00:00:00Z",
            "0001-01-01 00:00:00 +0000 UTC",
            "0001-01-01 00:53:28+00:53",
            "0000-00-00 00:00:00",
            "1970-01-01 00:00:00+00:00",
        ] {
            assert_eq!(text(form), Ok(None), "{form}");
        }
        for number in [0, -62_135_596_800, i64::MIN] {
            assert_eq!(parse(ValueRef::Integer(number)), Ok(None));
        }
        assert_eq!(parse(ValueRef::Null), Ok(None));
    }

    #[test]
    fn numbers_are_seconds_or_milliseconds() {
        let of = |number| parse(ValueRef::Integer(number)).unwrap().unwrap().as_millis();
        assert_eq!(of(1_700_000_000), 1_700_000_000_000);
        assert_eq!(of(1_700_000_000_123), 1_700_000_000_123);
    }

    #[test]
    fn other_text_is_refused_and_not_repeated() {
        for bad in ["soon", "2024-13-01 00:00:00Z", "2024-01-01 00:00:00+1", "1950-01-01 00:00:00Z"]
        {
            let error = text(bad).unwrap_err();
            assert!(!error.contains(bad), "{error}");
        }
        assert!(parse(ValueRef::Real(1.5)).is_err());
        assert!(parse(ValueRef::Integer(i64::MAX)).is_err());
        assert!(parse(ValueRef::Blob(&[0xff])).is_err());
    }
}
