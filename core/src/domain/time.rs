//! Instants and the clocks that give them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::short_text::ShortText;
use super::{deserialize_text, shown};
use crate::error::{Error, Result};

/// An instant: whole microseconds since 1970-01-01T00:00:00Z, up to the end of the year 9999.
///
/// The text form is RFC 3339 in UTC with six fractional digits. Reading accepts any offset and
/// truncates finer digits; a leap second counts as the second before it. The default is the epoch.
///
/// ```
/// use ghostwire_store::domain::Timestamp;
///
/// let at: Timestamp = "2024-02-29T13:00:00.1234567+01:00".parse()?;
/// assert_eq!(at.to_string(), "2024-02-29T12:00:00.123456Z");
/// assert_eq!(at.as_micros(), 1_709_208_000_123_456);
/// assert!("1969-12-31T23:59:59Z".parse::<Timestamp>().is_err());
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00.000000Z, the earliest instant.
    pub const EPOCH: Self = Self(0);

    /// 9999-12-31T23:59:59.999999Z, the latest instant.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// The instant this many microseconds after the epoch.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` before 1970 and after the year 9999.
    pub fn from_micros(micros: i64) -> Result<Self> {
        if (Self::EPOCH.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(Error::invalid("a time must lie in the years 1970 to 9999").with("micros", micros))
        }
    }

    /// The instant this many milliseconds after the epoch.
    ///
    /// # Errors
    ///
    /// As for [`Timestamp::from_micros`].
    pub fn from_millis(millis: i64) -> Result<Self> {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// The instant this many seconds after the epoch.
    ///
    /// # Errors
    ///
    /// As for [`Timestamp::from_micros`].
    pub fn from_secs(secs: i64) -> Result<Self> {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the epoch, truncated.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0 / 1_000
    }

    /// The instant that much later, truncated to microseconds, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_micros(duration)).min(Self::MAX.0))
    }

    /// The instant that much earlier, at least [`Timestamp::EPOCH`].
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(whole_micros(duration)).max(Self::EPOCH.0))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn whole_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Timestamp {
    fn text(self) -> ShortText {
        let (secs, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let (days, second) = (secs / 86_400, secs % 86_400);
        // Days to a civil date, after Hinnant: years begin in March, eras have 400 years. Written
        // out because jiff's own timestamps end a day before ours.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let mut text = ShortText::new();
        let mut put = |separator, number: i64, digits| {
            text.byte(separator).digits(number.unsigned_abs(), digits);
        };
        put(b'Z', micros, 6);
        put(b'.', second, 2);
        put(b':', minute, 2);
        put(b':', hour, 2);
        put(b'T', day, 2);
        put(b'-', month, 2);
        put(b'-', year, 4);
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            Error::invalid(
                "a time must be in RFC 3339 form with an offset, such as 2024-02-29T12:00:00.000000Z",
            )
            .with("time", shown(text))
        };
        let pieces = Pieces::parse(text).map_err(|_| malformed())?;
        let (Some(time), Some(offset), None) =
            (pieces.time(), pieces.to_numeric_offset(), pieces.time_zone_annotation())
        else {
            return Err(malformed());
        };
        let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
        let local = pieces.date().to_datetime(time).duration_since(epoch).as_nanos();
        let nanos = local - i128::from(offset.seconds()) * 1_000_000_000;
        // Floored, so that the last fraction of 1969 is not taken for the epoch.
        let micros = i64::try_from(nanos.div_euclid(1_000)).map_err(|_| malformed())?;
        Self::from_micros(micros).map_err(|error| error.with("time", shown(text)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

/// Whether something with this expiry has expired: it has when `expires_at` is `now` or earlier.
/// `None` never expires.
#[must_use]
pub fn expired(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|at| at <= now)
}

/// Where the store takes the time from; inject a [`ManualClock`] in tests.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// The time that has passed since some moment, by a monotonic clock that goes on while
    /// the machine sleeps. It tells whether [`Clock::now`] jumped.
    fn elapsed(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn elapsed(&self) -> Duration {
        (**self).elapsed()
    }
}

/// The clock of the operating system. A clock set before 1970 reads as [`Timestamp::EPOCH`]. Time
/// passes by `CLOCK_BOOTTIME` on Linux, which counts a machine's sleep, and by `CLOCK_MONOTONIC` on
/// other Unix systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.saturating_add(elapsed)
    }

    #[cfg(unix)]
    fn elapsed(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const STEADY: ClockId = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const STEADY: ClockId = ClockId::Monotonic;
        let since = clock_gettime(STEADY);
        let secs = u64::try_from(since.tv_sec).unwrap_or(0);
        Duration::new(secs, u32::try_from(since.tv_nsec).unwrap_or(0))
    }

    #[cfg(not(unix))]
    fn elapsed(&self) -> Duration {
        // There is no absolute reading; the first one is as good a beginning as any.
        static FIRST: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        FIRST.elapsed()
    }
}

/// A clock that moves only when told to. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use ghostwire_store::domain::{Clock, ManualClock, Timestamp};
///
/// let clock = ManualClock::new(Timestamp::EPOCH);
/// clock.clone().advance(Duration::from_secs(1));
/// assert_eq!(clock.now().as_micros(), 1_000_000);
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    wall: AtomicI64,
    elapsed: AtomicI64,
}

impl ManualClock {
    /// A clock that shows this time.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(Arc::new(Hands { wall: AtomicI64::new(at.0), elapsed: AtomicI64::new(0) }))
    }

    /// Lets time pass; the clock goes at most to [`Timestamp::MAX`].
    pub fn advance(&self, duration: Duration) {
        let forward = |micros| Some(Timestamp(micros).saturating_add(duration).0);
        // The closures always give a value, so this cannot fail. Whoever reads the clock first and
        // then how much time has passed never sees it ahead of that.
        let pass = |micros: i64| Some(micros.saturating_add(whole_micros(duration)));
        let _ = self.0.elapsed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, pass);
        let _ = self.0.wall.fetch_update(Ordering::SeqCst, Ordering::SeqCst, forward);
    }

    /// Lets time pass until the clock shows this; if it shows more, sets it back.
    pub fn set(&self, at: Timestamp) {
        match at.since(self.now()) {
            Duration::ZERO => self.step(at),
            duration => self.advance(duration),
        }
    }

    /// Sets what the clock shows, forward or back, as if it had been wrong; no time passes.
    pub fn step(&self, at: Timestamp) {
        self.0.wall.store(at.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.wall.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.elapsed.load(Ordering::SeqCst).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn micros(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_micros()
    }

    #[test]
    fn has_bounds() {
        assert_eq!(Timestamp::from_micros(0).unwrap(), Timestamp::EPOCH);
        assert_eq!(Timestamp::from_micros(253_402_300_799_999_999).unwrap(), Timestamp::MAX);
        for bad in [-1, 253_402_300_800_000_000, i64::MIN, i64::MAX] {
            assert!(Timestamp::from_micros(bad).is_err());
            assert!(Timestamp::from_millis(bad).is_err());
        }
        assert_eq!(Timestamp::from_secs(1).unwrap(), Timestamp::from_millis(1_000).unwrap());
    }

    #[test]
    fn text_at_the_bounds() {
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::MAX.to_string().parse::<Timestamp>().unwrap(), Timestamp::MAX);
        for bad in [
            "1969-12-31T23:59:59.999999Z",
            "1969-12-31T23:59:59.9999999Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59.999999-00:01",
            "0000-01-01T00:00:00Z",
        ] {
            let error = bad.parse::<Timestamp>().unwrap_err().to_string();
            assert!(error.contains("years 1970 to 9999"), "{error}");
        }
    }

    #[test]
    fn reads_any_offset_and_truncates() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), 0);
        assert_eq!(micros("1970-01-01t01:00:00.0000019+01:00"), 1);
        assert_eq!(micros("1969-12-31T23:00:00.5-01:00"), 500_000);
        assert_eq!(micros("1970-01-01 05:30:00+05:30"), 0);
        assert_eq!(micros("2016-12-31T23:59:60Z"), micros("2016-12-31T23:59:59Z"));
    }

    #[test]
    fn refuses_other_text() {
        for bad in [
            "",
            "now",
            "0",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-02-30T00:00:00Z",
            "2024-01-01T25:00:00Z",
            "2024-01-01T00:00:00Z[Europe/Berlin]",
            "2024-01-01T00:00:00Z ",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn text_agrees_with_jiff() {
        let mut at = 0;
        while at < jiff::Timestamp::MAX.as_microsecond() {
            let ours = Timestamp(at);
            let theirs = jiff::Timestamp::from_microsecond(at).unwrap();
            assert_eq!(ours.to_string(), format!("{theirs:.6}"));
            assert_eq!(ours.to_string().parse::<Timestamp>().unwrap(), ours);
            at += 86_399_999_999 * 13;
        }
    }

    #[test]
    fn serde_is_the_text() {
        let text = "\"2024-02-29T12:00:00.000001Z\"";
        let at: Timestamp = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&at).unwrap(), text);
        assert!(serde_json::from_str::<Timestamp>("1").is_err());
    }

    #[test]
    fn arithmetic_saturates() {
        let at = Timestamp::from_micros(5).unwrap();
        assert_eq!(at.saturating_add(Duration::from_nanos(1_999)).as_micros(), 6);
        assert_eq!(at.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(at.saturating_sub(Duration::from_micros(6)), Timestamp::EPOCH);
        assert_eq!(at.saturating_sub(Duration::MAX), Timestamp::EPOCH);
        assert_eq!(at.since(Timestamp::EPOCH), Duration::from_micros(5));
        assert_eq!(Timestamp::EPOCH.since(at), Duration::ZERO);
    }

    #[test]
    fn expires_at_the_instant_itself() {
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        assert!(!expired(Some(at(10)), at(9)));
        assert!(expired(Some(at(10)), at(10)));
        assert!(expired(Some(at(10)), at(11)));
        assert!(!expired(None, Timestamp::MAX));
    }

    #[test]
    fn clocks() {
        let start = Timestamp::from_secs(10).unwrap();
        let clock = ManualClock::new(start);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
        let clock = ManualClock::new(start);
        let passed = clock.elapsed();
        clock.step(Timestamp::MAX);
        clock.set(start);
        assert_eq!((clock.now(), clock.elapsed()), (start, passed));
        clock.set(start.saturating_add(Duration::from_secs(7)));
        clock.advance(Duration::from_secs(2));
        let shared: Arc<dyn Clock> = Arc::new(clock);
        assert_eq!(shared.now(), start.saturating_add(Duration::from_secs(9)));
        assert_eq!(shared.elapsed(), passed + Duration::from_secs(9));
        assert!(SystemClock.now() > "2024-01-01T00:00:00Z".parse().unwrap());
        let before = SystemClock.elapsed();
        assert!(before > Duration::ZERO && SystemClock.elapsed() >= before);
    }
}
