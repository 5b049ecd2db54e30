//! FerrisKey's retry policy: how often, and how long between. What a webhook does not say is FerrisKey's
//! default, once it says anything; a webhook that says nothing keeps Gatepost's own schedule.
//!
//! Its waits are random, from nothing to a ceiling that doubles up to `max_delay_ms`: half the ceiling with
//! a jitter of all of it. It stops early once `max_total_delay_ms` is over, which waits as they are on
//! average are held against.

use serde_json::{Map, Value, json};

use crate::problem::{ErrorCode, Problem};

/// The members, with their defaults.
const MEMBERS: [(&str, u32); 4] =
    [("max_attempts", 5), ("base_delay_ms", 500), ("max_delay_ms", 30_000), ("max_total_delay_ms", 120_000)];
const ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=20;
const BASE_DELAY_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// How the text of a policy that is refused begins.
pub(super) const BAD_POLICY: &str = "Invalid retry policy";

/// What a webhook says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Policy([Option<u32>; 4]);

impl Policy {
    /// Reads the member `retry_policy`. Members it does not know are passed over, as there.
    pub(super) fn read(members: &Map<String, Value>) -> Result<Policy, Problem> {
        let mut policy = Policy::default();
        for ((name, _), place) in MEMBERS.iter().zip(&mut policy.0) {
            *place = match members.get(*name) {
                None | Some(Value::Null) => None,
                Some(value) => match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
                    Some(number) => Some(number),
                    None => {
                        let what = format!("retry_policy.{name} must be a whole number from 0");
                        return Err(Problem::new(ErrorCode::MalformedJson, what));
                    }
                },
            };
        }
        policy.check()?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), Problem> {
        if self.is_empty() {
            return Ok(());
        }
        let [attempts, base, max, total] = self.effective();
        let wrong = if !ATTEMPTS.contains(&attempts) {
            format!("max_attempts must be between 1 and 20, got {attempts}")
        } else if !BASE_DELAY_MS.contains(&base) {
            format!("base_delay_ms must be between 100 and 60000, got {base}")
        } else if max < base {
            format!("max_delay_ms ({max}) must be at least base_delay_ms ({base})")
        } else if total < max {
            format!("max_total_delay_ms ({total}) must be at least max_delay_ms ({max})")
        } else {
            return Ok(());
        };
        Err(Problem::new(ErrorCode::MalformedJson, format!("{BAD_POLICY}: {wrong}")))
    }

    /// Whether it says nothing: then it takes an earlier one away.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    fn effective(&self) -> [u32; 4] {
        std::array::from_fn(|i| self.0[i].unwrap_or(MEMBERS[i].1))
    }

    /// The same as `/v1` has it: the member `retry`.
    pub(super) fn retry(&self) -> Value {
        if self.is_empty() {
            return Value::Null;
        }
        let [attempts, base, max, total] = self.effective().map(u64::from);
        let (mut waits, mut waited) = (Vec::new(), 0);
        for made in 1..attempts {
            if waited >= total * 2 {
                break;
            }
            let ceiling = base.saturating_mul(1 << made).min(max);
            waited += ceiling;
            // Half a number of milliseconds, in seconds.
            waits.push(ceiling as f64 / 2_000.0);
        }
        json!({"waits": waits, "jitter": 1.0})
    }

    /// As it is shown: every member, null where it says nothing.
    pub(super) fn shown(&self) -> Value {
        MEMBERS
            .iter()
            .zip(self.0)
            .map(|((name, _), value)| ((*name).to_owned(), json!(value)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// What applies. Gatepost's own schedule cannot be said in these words.
    pub(super) fn shown_effective(&self) -> Option<Value> {
        let of =
            |policy: [u32; 4]| MEMBERS.iter().zip(policy).map(|((name, _), value)| ((*name).to_owned(), json!(value)));
        (!self.is_empty()).then(|| of(self.effective()).collect::<Map<_, _>>().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Option<Policy> {
        Policy::read(value.as_object().unwrap()).ok()
    }

    #[test]
    fn what_is_missing_is_ferriskeys_default() {
        let policy = read(json!({"max_attempts": 4, "unknown": true})).unwrap();
        assert_eq!(policy.retry(), json!({"waits": [0.5, 1.0, 2.0], "jitter": 1.0}));
        assert_eq!(policy.shown()["base_delay_ms"], Value::Null);
        assert_eq!(policy.shown_effective().unwrap()["max_total_delay_ms"], 120_000);
        assert_eq!(read(json!({"max_attempts": 1})).unwrap().retry(), json!({"waits": [], "jitter": 1.0}));
        // The ceiling holds, and the whole time there is.
        let short =
            read(json!({"max_attempts": 20, "base_delay_ms": 100, "max_delay_ms": 400, "max_total_delay_ms": 600}));
        assert_eq!(short.unwrap().retry(), json!({"waits": [0.1, 0.2, 0.2, 0.2], "jitter": 1.0}));
        let nothing = read(json!({"max_attempts": null})).unwrap();
        assert!(nothing.is_empty() && nothing.retry().is_null() && nothing.shown_effective().is_none());
    }

    #[test]
    fn policies_out_of_bounds_are_refused() {
        for bad in [
            json!({"max_attempts": 0}),
            json!({"max_attempts": 21}),
            json!({"base_delay_ms": 99}),
            json!({"base_delay_ms": 60_001, "max_delay_ms": 90_000}),
            json!({"base_delay_ms": 40_000}),
            json!({"max_delay_ms": 130_000}),
            json!({"max_attempts": "5"}),
            json!({"max_attempts": 1.5}),
            json!({"max_attempts": -1}),
        ] {
            assert!(read(bad.clone()).is_none(), "{bad}");
        }
        assert!(read(json!({"max_attempts": 20, "base_delay_ms": 100})).is_some());
    }
}
