//! How a command fails: an exit code, and one line for a person.

use std::fmt;

/// Why a command failed. Its text says what to do about it, if there is something.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The work failed: exit code 1.
    pub fn failed(text: impl Into<String>) -> Self {
        Failure { code: 1, text: text.into() }
    }

    /// What was asked for makes no sense: exit code 2.
    pub fn usage(text: impl Into<String>) -> Self {
        Failure { code: 2, text: text.into() }
    }

    /// 1 or 2 (DESIGN 3.1).
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Failure::failed(format!("{error:#}")),
        }
    }
}

/// Writing the output failed. Where nobody reads it any more (a closed pipe, as of `… | head`) there
/// is nobody to tell either.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::failed(""),
            _ => Failure::failed(format!("the output cannot be written: {error}")),
        }
    }
}

/// What a command answers.
pub type Outcome<T = ()> = Result<T, Failure>;
