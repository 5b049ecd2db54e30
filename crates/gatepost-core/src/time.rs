//! Moments in time, as Gatepost stores and prints them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in whole microseconds since the Unix epoch (UTC).
///
/// Printed as RFC 3339 with `Z` and only as many fractional digits as are needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text is not a [`Timestamp`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time, such as 2026-01-31T12:00:00Z")]
pub struct BadTimestamp;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros)
    }

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis * 1_000)
    }

    /// From seconds since the Unix epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp(secs * 1_000_000)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `self` moved forward, stopping at the end of representable time.
    pub fn saturating_add(self, by: Duration) -> Timestamp {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(micros).min(MAX_MICROS))
    }

    /// `self` moved back, stopping at the start of representable time.
    pub fn saturating_sub(self, by: Duration) -> Timestamp {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_sub(micros).max(MIN_MICROS))
    }
}

/// 9999-12-30T22:00:00Z, the last moment jiff prints.
const MAX_MICROS: i64 = 253_402_207_200_000_000;
/// The year -9999, the first one.
const MIN_MICROS: i64 = -377_705_023_201_000_000;

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.clamp(MIN_MICROS, MAX_MICROS);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(t) => fmt::Display::fmt(&t, f),
            Err(_) => f.write_str("1970-01-01T00:00:00Z"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = BadTimestamp;

    /// Reads RFC 3339; any offset is accepted and converted to UTC, digits past the
    /// microsecond are cut.
    fn from_str(s: &str) -> Result<Self, BadTimestamp> {
        // jiff also reads forms RFC 3339 does not have (a bare date, a zone in brackets).
        let looks_right =
            s.len() >= 20 && s.is_ascii() && matches!(s.as_bytes()[10], b'T' | b't' | b' ') && !s.contains('[');
        if !looks_right {
            return Err(BadTimestamp);
        }
        let t: jiff::Timestamp = s.parse().map_err(|_| BadTimestamp)?;
        Ok(Timestamp(t.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            i64::deserialize(d).map(Timestamp)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_shortest_rfc3339_form() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_686_041_373_075_265, "2023-06-06T08:49:33.075265Z"),
            (1_686_041_373_500_000, "2023-06-06T08:49:33.5Z"),
            (i64::MAX, "9999-12-30T22:00:00Z"),
        ];
        for (micros, text) in cases {
            assert_eq!(Timestamp::from_micros(micros).to_string(), text);
        }
    }

    #[test]
    fn reads_rfc3339_only() {
        assert_eq!("2023-06-06T10:49:33.075265999+02:00".parse(), Ok(Timestamp(1_686_041_373_075_265)));
        for bad in ["", "2023-06-06", "yesterday", "2023-06-06T08:49:33", "2023-13-06T08:49:33Z", "1686041373"] {
            assert_eq!(bad.parse::<Timestamp>(), Err(BadTimestamp), "{bad}");
        }
    }
}
