//! Places on Earth.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A place on Earth, in degrees, to a millionth (about 10 cm).
///
/// ```
/// use ghostwire_store::domain::Location;
///
/// let frankfurt = Location::new(50.1109, 8.6821)?;
/// assert_eq!(frankfurt.latitude(), 50.1109);
/// assert!(Location::new(90.1, 0.0).is_err());
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Degrees", into = "Degrees")]
pub struct Location {
    /// In millionths of a degree.
    latitude: i32,
    longitude: i32,
}

/// The form in serde.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Degrees {
    latitude: f64,
    longitude: f64,
}

impl Location {
    /// The place at these degrees north and east; south and west are negative.
    ///
    /// # Errors
    /// `InvalidArgument` for a latitude beyond 90 degrees, a longitude beyond 180, or what is no number.
    pub fn new(latitude: f64, longitude: f64) -> Result<Self> {
        if !(latitude.abs() <= 90.0 && longitude.abs() <= 180.0) {
            return Err(Error::invalid(
                "a place has a latitude of -90 to 90 degrees and a longitude of -180 to 180",
            )
            .with("latitude", latitude)
            .with("longitude", longitude));
        }
        // At most 180 million, which fits.
        let millionths = |degrees: f64| (degrees * 1e6).round() as i32;
        Ok(Self { latitude: millionths(latitude), longitude: millionths(longitude) })
    }

    /// Degrees north of the equator.
    #[must_use]
    pub fn latitude(self) -> f64 {
        f64::from(self.latitude) / 1e6
    }

    /// Degrees east of Greenwich.
    #[must_use]
    pub fn longitude(self) -> f64 {
        f64::from(self.longitude) / 1e6
    }
}

impl TryFrom<Degrees> for Location {
    type Error = Error;

    fn try_from(degrees: Degrees) -> Result<Self> {
        Self::new(degrees.latitude, degrees.longitude)
    }
}

impl From<Location> for Degrees {
    fn from(location: Location) -> Self {
        Self { latitude: location.latitude(), longitude: location.longitude() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_on_earth() {
        for (latitude, longitude) in [(90.0, -180.0), (-90.0, 180.0), (-0.0, 0.0)] {
            let place = Location::new(latitude, longitude).unwrap();
            assert_eq!((place.latitude(), place.longitude()), (latitude, longitude));
        }
        for (latitude, longitude) in
            [(90.000_001, 0.0), (0.0, -180.5), (f64::NAN, 0.0), (0.0, f64::INFINITY)]
        {
            assert!(Location::new(latitude, longitude).is_err());
        }
        assert!(serde_json::from_str::<Location>(r#"{"latitude":1,"longitude":2,"x":3}"#).is_err());
    }

    proptest! {
        #[test]
        fn what_was_kept_comes_back(north in -90_000_000_i32..=90_000_000, east in -180_000_000_i32..=180_000_000) {
            let place = Location { latitude: north, longitude: east };
            prop_assert_eq!(Location::new(place.latitude(), place.longitude()).unwrap(), place);
            let json = serde_json::to_string(&place).unwrap();
            prop_assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), place);
        }
    }
}
