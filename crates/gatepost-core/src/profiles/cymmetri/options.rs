//! The profile's options: how long a token lives, and whether a credential for calls back goes along.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::super::unknown_options;

const EXPIRY: &str = "token_expiry_minutes";
const CALLBACK: &str = "callback";
const SCOPES: &str = "scopes";
const TTL: &str = "ttl_minutes";
/// Up to a day.
const MINUTES: RangeInclusive<u64> = 1..=1_440;

/// Minutes a token is valid.
pub(super) fn expiry_minutes(options: &Map<String, Value>) -> i64 {
    // Checked when the webhook was written; the default is the product's.
    options.get(EXPIRY).and_then(Value::as_i64).unwrap_or(1)
}

/// Minutes a callback token lives; `None`: none is sent.
pub(super) fn callback_minutes(options: &Map<String, Value>) -> Option<u32> {
    let callback = options.get(CALLBACK)?.as_object()?;
    let minutes = callback.get(TTL).and_then(Value::as_u64).unwrap_or(1);
    u32::try_from(minutes).ok()
}

/// Everything wrong with the options.
pub(super) fn check(options: &Map<String, Value>) -> Vec<(String, String)> {
    let mut errors = unknown_options(options, &[EXPIRY, CALLBACK]);
    check_minutes(options, EXPIRY, "", &mut errors);
    match options.get(CALLBACK) {
        None | Some(Value::Null) => {}
        Some(Value::Object(callback)) => {
            let unknown = unknown_options(callback, &[SCOPES, TTL]);
            errors.extend(unknown.into_iter().map(|(at, message)| (format!("/{CALLBACK}{at}"), message)));
            check_minutes(callback, TTL, "/callback", &mut errors);
            let read_only = |scopes: &Vec<Value>| !scopes.is_empty() && scopes.iter().all(|scope| scope == "read");
            if !callback.get(SCOPES).and_then(Value::as_array).is_some_and(read_only) {
                errors.push(("/callback/scopes".into(), "must be [\"read\"]: a receiver is given nothing more".into()));
            }
        }
        Some(_) => {
            errors.push((format!("/{CALLBACK}"), "must be an object with scopes and ttl_minutes, or null".into()))
        }
    }
    errors
}

fn check_minutes(members: &Map<String, Value>, name: &str, at: &str, errors: &mut Vec<(String, String)>) {
    let fits = |value: &Value| value.as_u64().is_some_and(|minutes| MINUTES.contains(&minutes));
    if members.get(name).is_some_and(|value| !fits(value)) {
        errors.push((format!("{at}/{name}"), "must be a whole number from 1 to 1440".into()));
    }
}
