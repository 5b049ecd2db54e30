//! Headers, however the program at hand keeps them: names count in any case, and one that decides
//! something may be there once only.

use crate::error::Error;

/// What is found under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'h> {
    /// Nothing.
    Missing,
    /// One value.
    One(&'h [u8]),
    /// More than one.
    Several,
}

/// A request's headers. Implemented for [`http::HeaderMap`] and for lists of names and values.
pub trait Headers {
    /// What there is under a name, which is given in lower case and has to be found in any.
    fn find(&self, name: &str) -> Found<'_>;
}

impl Headers for http::HeaderMap {
    fn find(&self, name: &str) -> Found<'_> {
        let mut values = self.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Found::Missing,
            (Some(value), None) => Found::One(value.as_bytes()),
            _ => Found::Several,
        }
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn find(&self, name: &str) -> Found<'_> {
        let mut values = self.iter().filter(|(own, _)| own.as_ref().eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (None, _) => Found::Missing,
            (Some((_, value)), None) => Found::One(value.as_ref()),
            _ => Found::Several,
        }
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn find(&self, name: &str) -> Found<'_> {
        self.as_slice().find(name)
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const LEN: usize> Headers for [(N, V); LEN] {
    fn find(&self, name: &str) -> Found<'_> {
        self.as_slice().find(name)
    }
}

/// The one value of a header that decides something, without blanks around it.
pub(crate) fn need<'h>(headers: &'h dyn Headers, name: &str) -> Result<&'h str, Error> {
    match headers.find(name) {
        Found::Missing => Err(Error::MissingHeader(name.to_owned())),
        Found::Several => Err(Error::DuplicateHeader(name.to_owned())),
        Found::One(value) => match std::str::from_utf8(value) {
            Ok(text) => Ok(text.trim_matches([' ', '\t'])),
            Err(_) => Err(Error::malformed(name, "text")),
        },
    }
}

/// A header that decides something where it is there.
pub(crate) fn may<'h>(headers: &'h dyn Headers, name: &str) -> Result<Option<&'h str>, Error> {
    match need(headers, name) {
        Ok(text) => Ok(Some(text)),
        Err(Error::MissingHeader(_)) => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// A header that decides nothing: unreadable and repeated ones are as if they were not there.
pub(crate) fn hint<'h>(headers: &'h dyn Headers, name: &str) -> Option<&'h str> {
    need(headers, name).ok().filter(|text| !text.is_empty())
}

/// Whole seconds, in digits alone.
pub(crate) fn seconds(name: &str, text: &str) -> Result<i64, Error> {
    let digits = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| Error::malformed(name, "whole Unix seconds"))
}
