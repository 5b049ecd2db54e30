//! Moments on the command line: times, or how long ago.

use std::time::Duration;

use gatepost_core::Timestamp;
use gatepost_core::time::Limit;

/// A moment as it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    /// A time.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl When {
    /// When that is.
    pub(super) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            When::At(at) => at,
            When::Ago(ago) => {
                let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
                Timestamp::from_micros(now.as_micros().saturating_sub(ago))
            }
        }
    }
}

/// Reads one.
///
/// # Errors
/// Says what it is to be.
pub(super) fn when(text: &str) -> Result<When, String> {
    if let Ok(Limit(at)) = text.parse() {
        return Ok(When::At(at));
    }
    let unit = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let seconds = number.and_then(|digits| digits.parse::<u64>().ok()).and_then(|number| number.checked_mul(unit));
    match seconds {
        Some(seconds) if unit > 0 => Ok(When::Ago(Duration::from_secs(seconds))),
        _ => Err("not a time: give one like 2026-03-01T00:00:00Z, or how long ago: 90s, 30m, 24h, 7d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_how_long_ago() {
        let now = Timestamp::from_secs(1_000_000);
        for (text, seconds) in [
            ("90s", 999_910),
            ("30m", 998_200),
            ("2h", 992_800),
            ("7d", 395_200),
            ("0s", 1_000_000),
            ("1970-01-01T00:00:07Z", 7),
        ] {
            assert_eq!(when(text).map(|when| when.at(now)), Ok(Timestamp::from_secs(seconds)), "{text}");
        }
        for bad in ["", "h", "1", "1w", "-1h", "+1h", "1.5h", "yesterday", "é", "99999999999999999999d"] {
            assert!(when(bad).is_err(), "{bad}");
        }
        assert!(when("18446744073709551615d").is_err(), "more than there is");
    }
}
