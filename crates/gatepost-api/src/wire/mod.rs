//! The wire forms: JSON in, strictly; JSON out.
//!
//! Reading gives **all** errors at once. What is not JSON (or says one thing twice) is
//! [`Malformed`] and ends the reading; everything else that is wrong is collected in [`Errors`]
//! with its pointer while the reading goes on.

pub(crate) mod admin;
pub(crate) mod cloudevents;
pub(crate) mod cursor;
pub(crate) mod event;
pub(crate) mod hook_schema;
pub(crate) mod jobs;
pub(crate) mod object;
pub(crate) mod query;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod value;
pub(crate) mod webhook;
pub(crate) mod webhook_members;
pub(crate) mod webhook_schema;

use std::fmt;

use gatepost_engine::FieldError;

use crate::problem::{ErrorCode, Problem};

/// Errors listed in one answer; more are counted.
const ERRORS_MAX: usize = 1_000;

/// Where a value stands in the body. Costs nothing until an error needs it in writing.
#[derive(Clone, Copy)]
pub(crate) enum At<'p> {
    /// The body itself.
    Root,
    /// A member of an object.
    Member(&'p At<'p>, &'p str),
    /// An item of an array.
    Item(&'p At<'p>, usize),
}

impl<'p> At<'p> {
    /// The member `name` of what stands here.
    pub(crate) fn member(&'p self, name: &'p str) -> At<'p> {
        At::Member(self, name)
    }

    /// The item `index` of what stands here.
    pub(crate) fn item(&'p self, index: usize) -> At<'p> {
        At::Item(self, index)
    }
}

impl fmt::Display for At<'_> {
    /// A JSON pointer (RFC 6901): `~` is `~0` and `/` is `~1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Member(parent, name) => {
                write!(f, "{parent}/")?;
                for part in name.split_inclusive(['~', '/']) {
                    match part.as_bytes().last() {
                        Some(b'~') => write!(f, "{}~0", &part[..part.len() - 1])?,
                        Some(b'/') => write!(f, "{}~1", &part[..part.len() - 1])?,
                        _ => f.write_str(part)?,
                    }
                }
                Ok(())
            }
            At::Item(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// Everything wrong with a request that is well-formed.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    list: Vec<FieldError>,
    more: usize,
    /// A code more telling than `validation_failed`, used when nothing else is wrong.
    code: Option<ErrorCode>,
}

impl Errors {
    /// Notes an error.
    pub(crate) fn push(&mut self, at: impl fmt::Display, message: impl Into<String>) {
        if self.list.len() < ERRORS_MAX {
            self.list.push(FieldError::new(at.to_string(), message));
        } else {
            self.more += 1;
        }
    }

    /// Notes an error that has its own code when it is the only one.
    pub(crate) fn push_as(&mut self, code: ErrorCode, at: impl fmt::Display, message: impl Into<String>) {
        if self.is_empty() {
            self.code = Some(code);
        }
        self.push(at, message);
    }

    /// Adds what a later check found, except where an error is known already: of a member that
    /// could not be read (or of all of them) the later check knows only that it is not there.
    pub(crate) fn extend(&mut self, later: Vec<FieldError>) {
        let known = self.list.len();
        for error in later {
            let told = self.list[..known].iter().any(|mine| {
                let rest = mine.pointer.strip_prefix(error.pointer.as_str());
                mine.pointer.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if !told {
                self.push(error.pointer, error.message);
            }
        }
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many errors there are, listed or not.
    pub(crate) fn len(&self) -> usize {
        self.list.len() + self.more
    }

    /// The errors listed.
    pub(crate) fn into_list(self) -> Vec<FieldError> {
        self.list
    }

    /// The problem to answer, unless nothing is wrong.
    pub(crate) fn check(self) -> Result<(), Problem> {
        if self.is_empty() {
            return Ok(());
        }
        let code = self.code.filter(|_| self.list.len() == 1).unwrap_or(ErrorCode::ValidationFailed);
        Err(Problem::invalid(code, self.list, self.more))
    }
}

/// Not JSON, or ambiguous: where (a byte offset into the document) and what.
#[derive(Debug)]
pub(crate) struct Malformed {
    offset: usize,
    message: String,
}

/// What some editors put before a text (RFC 8259, 8.1: no JSON text begins with it).
pub(crate) const BOM: &[u8] = "\u{feff}".as_bytes();
/// Names it to who sent it.
pub(crate) const HAS_BOM: &str = gatepost_core::hooks::json::HAS_BOM;

/// A result of reading; `Err` ends it.
pub(crate) type Read<T> = Result<T, Malformed>;

impl Malformed {
    /// At a byte offset of the document.
    pub(crate) fn new(offset: usize, message: impl Into<String>) -> Self {
        Malformed { offset, message: message.into() }
    }

    /// The problem, once the document is known. Lines and columns count from 1, columns in
    /// characters.
    pub(crate) fn into_problem(self, document: &[u8]) -> Problem {
        let before = &document[..self.offset.min(document.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        // A character is the bytes that do not continue one.
        let column = 1 + before[line_start..].iter().filter(|b| (**b as i8) >= -0x40).count();
        Problem::malformed(&self.message, line, column)
    }
}

/// A body being read.
pub(crate) struct Reader<'a, 'e> {
    document: &'a str,
    /// What is wrong so far.
    pub(crate) errors: &'e mut Errors,
}

impl<'a, 'e> Reader<'a, 'e> {
    /// Reads `body`, which must be UTF-8.
    pub(crate) fn new(body: &'a [u8], errors: &'e mut Errors) -> Read<Self> {
        if body.starts_with(BOM) {
            return Err(Malformed::new(0, HAS_BOM));
        }
        match std::str::from_utf8(body) {
            Ok(document) => Ok(Reader { document, errors }),
            Err(error) => Err(Malformed::new(error.valid_up_to(), "the body is not UTF-8")),
        }
    }

    /// The whole body.
    pub(crate) fn document(&self) -> &'a str {
        self.document
    }

    /// Where `part`, a slice of the document, begins in it.
    pub(crate) fn offset_of(&self, part: &str) -> usize {
        (part.as_ptr() as usize).saturating_sub(self.document.as_ptr() as usize)
    }

    /// What serde_json found wrong with `part`, told in terms of the document.
    pub(crate) fn malformed(&self, part: &str, error: &serde_json::Error) -> Malformed {
        if part.trim_ascii().is_empty() {
            return Malformed::new(self.offset_of(part), "a JSON value is missing");
        }
        let line_start = part.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
        let offset = self.offset_of(part) + line_start + error.column().saturating_sub(1);
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        Malformed::new(offset, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped() {
        let events = At::Root.member("events");
        let item = events.item(3);
        assert_eq!(item.member("a/b~c").to_string(), "/events/3/a~1b~0c");
        assert_eq!(At::Root.to_string(), "");
        assert_eq!(At::Root.member("").to_string(), "/");
    }

    #[test]
    fn a_later_error_about_what_could_not_be_read_is_dropped() {
        let mut errors = Errors::default();
        errors.push("/events/0", "must be a string");
        errors.extend(vec![
            FieldError::new("/events", "is required"),
            FieldError::new("/event", "is required"),
            FieldError::new("/url", "is required"),
        ]);
        let pointers: Vec<_> = errors.list.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/events/0", "/event", "/url"]);
    }

    #[test]
    fn the_list_of_errors_is_bounded() {
        let mut errors = Errors::default();
        for index in 0..ERRORS_MAX + 5 {
            errors.push(format!("/{index}"), "wrong");
        }
        assert_eq!((errors.list.len(), errors.len()), (ERRORS_MAX, ERRORS_MAX + 5));
    }
}
