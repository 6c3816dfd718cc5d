//! DERP regions: groups of relays.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{shown, text_newtype};
use crate::error::{Error, Result};

/// The number of a DERP region, 1 to 65535. In serde a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct DerpRegionId(NonZeroU16);

impl DerpRegionId {
    /// The region of this number.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for 0.
    pub fn new(number: u16) -> Result<Self> {
        NonZeroU16::new(number)
            .map(Self)
            .ok_or_else(|| Error::invalid("the number of a DERP region must be 1 to 65535"))
    }

    /// As a plain integer.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u16> for DerpRegionId {
    type Error = Error;

    fn try_from(number: u16) -> Result<Self> {
        Self::new(number)
    }
}

impl From<DerpRegionId> for u16 {
    fn from(id: DerpRegionId) -> Self {
        id.get()
    }
}

impl fmt::Display for DerpRegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DerpRegionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| {
            Error::invalid("the number of a DERP region must be 1 to 65535")
                .with("number", shown(text))
        })
    }
}

fn region_code(text: &str) -> Result<Box<str>> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=16).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(Error::invalid(
        "the code of a DERP region must be 1 to 16 lower-case letters, digits and hyphens",
    )
    .with("code", shown(text)))
}

text_newtype! {
    /// The short name of a DERP region, such as `fra`: 1 to 16 bytes of `[a-z0-9-]`.
    DerpRegionCode, region_code
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn numbers() {
        let id = DerpRegionId::new(999).unwrap();
        assert_eq!((id.get(), id.to_string()), (999, "999".to_owned()));
        assert_eq!("999".parse::<DerpRegionId>().unwrap(), id);
        assert_eq!(serde_json::to_string(&id).unwrap(), "999");
        assert_eq!(serde_json::from_str::<DerpRegionId>("65535").unwrap().get(), u16::MAX);
        assert!(DerpRegionId::new(0).is_err());
        for bad in ["0", "65536", "-1", "\"1\""] {
            assert!(serde_json::from_str::<DerpRegionId>(bad).is_err());
            assert!(bad.parse::<DerpRegionId>().is_err());
        }
    }

    #[test]
    fn codes() {
        assert_eq!(DerpRegionCode::new("fra-2").unwrap().as_str(), "fra-2");
        assert!(DerpRegionCode::new("x".repeat(16)).is_ok());
        for bad in ["", "FRA", "a b", "a_b", &"x".repeat(17)] {
            assert!(DerpRegionCode::new(bad).is_err());
        }
    }
}
