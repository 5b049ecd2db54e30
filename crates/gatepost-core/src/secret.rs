//! Secret text: no `Display`, no `Serialize`, wiped on drop (P7).

use std::fmt;

use zeroize::Zeroizing;

/// A text that must never be printed, logged or serialised.
///
/// There is one way to the text, [`Secret::expose`], so that every use can be found by its name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(Zeroizing::new(text.into()))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is shown in place of a secret.
pub const MASK: &str = "***";
