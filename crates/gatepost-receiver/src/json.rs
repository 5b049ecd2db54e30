//! Objects, and nothing that merely could be read as one.

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny};

/// An object, read as a type. (A derived reader takes a list of the members' values for one, too.)
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        serde_json::from_slice::<IgnoredAny>(text)?;
        return Err(serde_json::Error::custom("not an object"));
    }
    serde_json::from_slice(text)
}
