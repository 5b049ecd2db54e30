//! Moments in time, as Gatepost stores and prints them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in whole microseconds since the Unix epoch (UTC).
///
/// Displayed as RFC 3339 with `Z` and only as many fractional digits as are needed; serialised (as text) with
/// exactly six, so that texts sort as the moments do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text is not a [`Timestamp`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTimestamp {
    /// It is no time at all.
    #[error("not an RFC 3339 time, such as 2026-01-31T12:00:00Z")]
    Form,
    /// It is a time, but later than [`Timestamp::MAX`].
    #[error("a time that is too far away: the last one there is room for is 9999-12-30T22:00:00Z")]
    Range,
}

/// A time that something is compared with ("later than this"): one beyond [`Timestamp::MAX`] is that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Timestamp);

impl FromStr for Limit {
    type Err = BadTimestamp;

    fn from_str(s: &str) -> Result<Self, BadTimestamp> {
        match s.parse() {
            Ok(at) => Ok(Limit(at)),
            Err(BadTimestamp::Range) => Ok(Limit(Timestamp::MAX)),
            Err(BadTimestamp::Form) => Err(BadTimestamp::Form),
        }
    }
}

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);
    /// The last moment: 9999-12-30T22:00:00Z.
    pub const MAX: Timestamp = Timestamp(MAX_MICROS);

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

    /// `self` moved by so many microseconds, back if negative, stopping at the ends of representable time.
    pub fn shifted(self, micros: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(micros).clamp(MIN_MICROS, MAX_MICROS))
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

impl Timestamp {
    fn civil(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0.clamp(MIN_MICROS, MAX_MICROS)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl Timestamp {
    /// As RFC 3339 with exactly six digits of its second: such texts sort as the moments do.
    pub fn fixed(self) -> impl fmt::Display {
        struct Fixed(jiff::Timestamp);
        impl fmt::Display for Fixed {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:.6}", self.0)
            }
        }
        Fixed(self.civil())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.civil(), f)
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
    /// microsecond are cut, however many there are.
    fn from_str(s: &str) -> Result<Self, BadTimestamp> {
        // jiff also reads forms RFC 3339 does not have (a bare date, a zone in brackets).
        let digits = s.bytes().take_while(u8::is_ascii_digit).count();
        if digits < 4 || !s.is_ascii() || s.contains('[') {
            return Err(BadTimestamp::Form);
        }
        // The year 10000 has no place in RFC 3339; its next neighbour tells whether the rest is a time.
        let (years, rest) = s.split_at(digits);
        let rest = without_long_fraction(rest);
        let looks_right = rest.len() >= 16 && matches!(rest.as_bytes()[6], b'T' | b't' | b' ');
        if !looks_right {
            return Err(BadTimestamp::Form);
        }
        if let Ok(t) = format!("{years}{rest}").parse::<jiff::Timestamp>()
            && digits == 4
        {
            return Ok(Timestamp(t.as_microsecond()));
        }
        // 2000 is a leap year: the 29th of February of any year that has one stays a day.
        let far = (digits > 4 || years == "9999") && format!("2000{rest}").parse::<jiff::Timestamp>().is_ok();
        Err(if far { BadTimestamp::Range } else { BadTimestamp::Form })
    }
}

/// The text with at most six digits after the point of its seconds.
fn without_long_fraction(s: &str) -> std::borrow::Cow<'_, str> {
    let Some(point) = s.find(['.', ',']) else { return s.into() };
    let fraction = s[point + 1..].bytes().take_while(u8::is_ascii_digit).count();
    if fraction <= 6 {
        return s.into();
    }
    format!("{}{}", &s[..point + 7], &s[point + 1 + fraction..]).into()
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(&self.fixed()) } else { s.serialize_i64(self.0) }
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
    fn serialised_times_sort_as_texts() {
        let texts = |micros: i64| serde_json::to_string(&Timestamp::from_micros(micros)).unwrap();
        assert_eq!(texts(0), "\"1970-01-01T00:00:00.000000Z\"");
        assert_eq!(texts(1_686_041_373_500_000), "\"2023-06-06T08:49:33.500000Z\"");
        assert!(texts(1_940_000) < texts(1_949_000));
    }

    #[test]
    fn reads_rfc3339_only() {
        assert_eq!("2023-06-06T10:49:33.075265999+02:00".parse(), Ok(Timestamp(1_686_041_373_075_265)));
        let long = format!("2023-06-06T08:49:33.{}Z", "0752659".repeat(20));
        assert_eq!(long.parse(), Ok(Timestamp(1_686_041_373_075_265)));
        let malformed = [
            "",
            "2023-06-06",
            "yesterday",
            "2023-06-06T08:49:33",
            "2023-13-06T08:49:33Z",
            "1686041373",
            "9999-13-31T23:59:59Z",
        ];
        for bad in malformed {
            assert_eq!(bad.parse::<Timestamp>(), Err(BadTimestamp::Form), "{bad}");
            assert_eq!(bad.parse::<Limit>(), Err(BadTimestamp::Form), "{bad}");
        }
    }

    #[test]
    fn a_time_too_far_away_is_told_apart_and_is_the_last_one_where_only_later_than_matters() {
        for far in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.123456789012+02:00", "10000-02-29T00:00:00Z"] {
            assert_eq!(far.parse::<Timestamp>(), Err(BadTimestamp::Range), "{far}");
            assert_eq!(far.parse(), Ok(Limit(Timestamp::MAX)), "{far}");
        }
        assert_eq!("9999-12-30T22:00:00Z".parse(), Ok(Timestamp::MAX));
    }
}
