//! The size of packets.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest packet that an interface of the mesh carries, in bytes: 576 (what every IPv4 host takes)
/// to 65,535. An interface with IPv6 needs 1,280. In serde a number.
///
/// ```
/// use ghostwire_store::domain::Mtu;
///
/// assert_eq!(Mtu::new(1280)?.get(), 1280);
/// assert!(Mtu::new(128).is_err());
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Mtu(u16);

impl Mtu {
    /// The smallest, in bytes.
    pub const MIN: u16 = 576;

    /// This many bytes.
    ///
    /// # Errors
    /// `InvalidArgument` below 576.
    pub fn new(bytes: u16) -> Result<Self> {
        if bytes < Self::MIN {
            return Err(Error::invalid("an MTU is 576 to 65535 bytes").with("mtu", bytes));
        }
        Ok(Self(bytes))
    }

    /// As a plain integer.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Mtu {
    type Error = Error;

    fn try_from(bytes: u16) -> Result<Self> {
        Self::new(bytes)
    }
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_mtu_has_bounds() {
        for good in [576, 1280, 1420, u16::MAX] {
            assert_eq!(Mtu::new(good).unwrap().get(), good);
            let json = serde_json::to_string(&Mtu::new(good).unwrap()).unwrap();
            assert_eq!(json, good.to_string());
            assert_eq!(serde_json::from_str::<Mtu>(&json).unwrap().to_string(), json);
        }
        for bad in ["0", "575", "65536", "-1", "1280.5", "\"1280\""] {
            assert!(serde_json::from_str::<Mtu>(bad).is_err(), "{bad}");
        }
    }
}
