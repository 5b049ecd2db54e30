//! Query parameters, as strict as bodies: unknown, repeated or wrong ones are errors, all at once.
//! Their pointers are `?name`.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::Query;
use gatepost_core::Timestamp;
use gatepost_core::time::Limit;
use gatepost_engine::store::PageRequest;
use http::Uri;

use super::Errors;
use super::cursor::{self, List};
use crate::problem::{ErrorCode, Problem};

/// Rows of a page when not asked otherwise.
const LIMIT_DEFAULT: usize = 50;
/// Rows of a page at most.
const LIMIT_MAX: usize = 250;

/// The parameters of a request.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query of `uri`, which may have the parameters `allowed`, each once.
    pub(crate) fn open(uri: &Uri, allowed: &[&str], errors: &mut Errors) -> Params {
        let pairs = match uri.query() {
            None | Some("") => return Params(Vec::new()),
            Some(_) => Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(pairs)| pairs),
        };
        let Ok(pairs) = pairs else {
            errors.push("?", "the query cannot be read");
            return Params(Vec::new());
        };
        for (index, (name, _)) in pairs.iter().enumerate() {
            let shown: String = name.chars().take(64).collect();
            if !allowed.contains(&name.as_str()) {
                let remedy = if allowed.is_empty() {
                    "this call has none".into()
                } else {
                    format!("allowed: {}", allowed.join(", "))
                };
                errors.push(format_args!("?{shown}"), format!("unknown parameter; {remedy}"));
            } else if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                errors.push(format_args!("?{shown}"), "is given more than once");
            }
        }
        Params(pairs)
    }

    /// Refuses every parameter.
    pub(crate) fn none(uri: &Uri) -> Result<(), Problem> {
        let mut errors = Errors::default();
        Params::open(uri, &[], &mut errors);
        errors.check()
    }

    /// A parameter as given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A text of 1 to 256 characters.
    pub(crate) fn text(&self, name: &str, errors: &mut Errors) -> Option<String> {
        let value = self.get(name)?;
        if !(1..=256).contains(&value.chars().count()) {
            errors.push(format_args!("?{name}"), "must have 1 to 256 characters");
            return None;
        }
        Some(value.to_owned())
    }

    /// A value with a grammar, whose error says what it must be.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, name: &str, errors: &mut Errors) -> Option<T> {
        self.get(name)?.parse().map_err(|error: T::Err| errors.push(format_args!("?{name}"), error.to_string())).ok()
    }

    /// A time that rows are compared with: one too far away for us is the last one there is.
    pub(crate) fn time(&self, name: &str, errors: &mut Errors) -> Option<Timestamp> {
        self.parsed::<Limit>(name, errors).map(|limit| limit.0)
    }

    /// One of a list of words.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)], errors: &mut Errors) -> Option<T> {
        let value = self.get(name)?;
        let found = words.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let list: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            errors.push(format_args!("?{name}"), format!("must be one of {}", list.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// `limit`.
    pub(crate) fn limit(&self, errors: &mut Errors) -> usize {
        let Some(value) = self.get("limit") else { return LIMIT_DEFAULT };
        // Digits only: `parse` would take "+5" too.
        let number = if value.bytes().all(|b| b.is_ascii_digit()) { value.parse().ok() } else { None };
        number.filter(|n| (1..=LIMIT_MAX).contains(n)).unwrap_or_else(|| {
            errors.push("?limit", format!("must be a whole number, 1 to {LIMIT_MAX}"));
            LIMIT_DEFAULT
        })
    }

    /// `cursor`, as bytes.
    pub(crate) fn cursor(&self, list: List, owner: i64, errors: &mut Errors) -> Option<Vec<u8>> {
        let position = cursor::decode(self.get("cursor").filter(|text| !text.is_empty())?, list, owner);
        if position.is_none() {
            bad_cursor(errors);
        }
        position
    }

    /// `limit` and `cursor` of a list with numbered positions.
    pub(crate) fn page(&self, list: List, owner: i64, errors: &mut Errors) -> PageRequest {
        let limit = self.limit(errors);
        // An empty cursor is none: a poller may begin with one.
        let after = self.get("cursor").filter(|text| !text.is_empty()).and_then(|text| {
            let position = cursor::decode_number(text, list, owner);
            if position.is_none() {
                bad_cursor(errors);
            }
            position
        });
        PageRequest { limit, after }
    }
}

fn bad_cursor(errors: &mut Errors) {
    errors.push_as(
        ErrorCode::InvalidCursor,
        "?cursor",
        "is not a cursor of this list; use next_cursor as it was answered, or begin without one",
    );
}
