//! JSON numbers, compared as the decimals they are written as.

use std::cmp::Ordering;

/// Digits that are kept exactly; beyond them a number is what the nearest double is.
const DIGITS: usize = 36;

/// A number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Num {
    /// `digits · 10^exponent`, without zeros at the end of `digits`.
    Exact {
        /// Signed.
        digits: i128,
        /// Of ten.
        exponent: i32,
    },
    /// More digits than we keep.
    Rough(f64),
}

impl Num {
    /// A number as JSON writes it.
    pub(super) fn parse(text: &str) -> Num {
        Self::exact(text).unwrap_or_else(|| Num::Rough(text.parse().unwrap_or(f64::NAN)))
    }

    fn exact(text: &str) -> Option<Num> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let part = part.trim_end_matches('0');
        if whole.len() + part.len() > DIGITS || exponent.unsigned_abs() > 1_000_000 {
            return None;
        }
        let mut digits: i128 = format!("{whole}{part}").parse().ok()?;
        let mut exponent = exponent - i32::try_from(part.len()).ok()?;
        if digits == 0 {
            return Some(Num::Exact { digits: 0, exponent: 0 });
        }
        while digits % 10 == 0 {
            digits /= 10;
            exponent += 1;
        }
        Some(Num::Exact { digits: if negative { -digits } else { digits }, exponent })
    }

    /// Whether it has no fraction.
    pub(super) fn is_integer(self) -> bool {
        match self {
            Num::Exact { exponent, .. } => exponent >= 0,
            Num::Rough(value) => value.is_infinite() || value.fract() == 0.0,
        }
    }

    fn rough(self) -> f64 {
        match self {
            Num::Exact { digits, exponent } => digits as f64 * 10f64.powi(exponent),
            Num::Rough(value) => value,
        }
    }

    /// Which is larger.
    pub(super) fn compare(self, other: Num) -> Ordering {
        let (Num::Exact { digits: a, exponent: e }, Num::Exact { digits: b, exponent: f }) = (self, other) else {
            return self.rough().partial_cmp(&other.rough()).unwrap_or(Ordering::Equal);
        };
        if a.signum() != b.signum() || a == 0 {
            return a.signum().cmp(&b.signum());
        }
        // The place of the first digit decides; where it is the same, both fit at the same scale.
        let (first, second) = (place(a, e), place(b, f));
        let magnitude = first.cmp(&second).then_with(|| {
            let least = e.min(f);
            let scaled = |digits: i128, exponent: i32| digits.abs().saturating_mul(power(exponent - least));
            scaled(a, e).cmp(&scaled(b, f))
        });
        if a < 0 { magnitude.reverse() } else { magnitude }
    }

    /// Whether it is a whole multiple of `step`, which is above zero.
    pub(super) fn is_multiple_of(self, step: Num) -> bool {
        let (Num::Exact { digits: a, exponent: e }, Num::Exact { digits: b, exponent: f }) = (self, step) else {
            let ratio = self.rough() / step.rough();
            return !ratio.is_finite() || ratio.fract() == 0.0;
        };
        if a == 0 || b == 0 {
            return true;
        }
        if e >= f {
            // A step has few digits: once a power of ten contains all its factors, all further do.
            (0..(e - f).min(256)).fold(a % b, |rest, _| rest * 10 % b) == 0
        } else {
            match 10i128.checked_pow((f - e).unsigned_abs()).and_then(|scale| b.checked_mul(scale)) {
                Some(step) => a % step == 0,
                None => false,
            }
        }
    }
}

fn place(digits: i128, exponent: i32) -> i64 {
    i64::from(digits.unsigned_abs().ilog10()) + i64::from(exponent)
}

fn power(exponent: i32) -> i128 {
    10i128.checked_pow(exponent.unsigned_abs()).unwrap_or(i128::MAX)
}

impl std::fmt::Display for Num {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Num::Exact { digits, exponent: 0 } => write!(f, "{digits}"),
            Num::Exact { digits, exponent: exponent @ 1..=18 } => {
                write!(f, "{}", digits.saturating_mul(power(*exponent)))
            }
            Num::Exact { .. } => write!(f, "{}", self.rough()),
            Num::Rough(value) => write!(f, "{value}"),
        }
    }
}

impl PartialEq for Num {
    fn eq(&self, other: &Self) -> bool {
        self.compare(*other) == Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_as_decimals() {
        let n = Num::parse;
        for (less, more) in [
            ("1", "2"),
            ("-2", "-1"),
            ("0.1", "0.11"),
            ("9007199254740992", "9007199254740993"),
            ("1e400", "1.1e400"),
            ("-1e400", "1e-400"),
            ("99", "1e2"),
            ("0", "1e-400"),
        ] {
            assert_eq!(n(less).compare(n(more)), Ordering::Less, "{less} {more}");
            assert_eq!(n(more).compare(n(less)), Ordering::Greater, "{less} {more}");
        }
        for (one, same) in [("1", "1.0"), ("100", "1e2"), ("0", "-0.0"), ("1e400", "10e399"), ("0.5", "5e-1")] {
            assert_eq!(n(one), n(same), "{one} {same}");
        }
    }

    #[test]
    fn multiples_are_exact() {
        let n = Num::parse;
        for (value, step) in [("19.99", "0.01"), ("1e400", "3.2"), ("9007199254740993", "3"), ("0", "7"), ("4.0", "2")]
        {
            assert!(n(value).is_multiple_of(n(step)), "{value}");
        }
        for (value, step) in [("19.999", "0.01"), ("7", "2"), ("1e-9", "0.1")] {
            assert!(!n(value).is_multiple_of(n(step)), "{value}");
        }
        assert!(n("1.0").is_integer() && n("1e3").is_integer() && !n("1.5").is_integer() && n("1e400").is_integer());
        let long = "1".repeat(60);
        assert!(n(&long).is_integer() && n(&long) == n(&long));
    }
}
