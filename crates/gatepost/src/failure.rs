//! How a command fails: an exit code, and one line for a person.

use std::fmt;

/// Why a command failed. Its text says what to do about it, if there is something.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
    problem: Option<Box<serde_json::Value>>,
}

impl Failure {
    /// The work failed: exit code 1.
    pub fn failed(text: impl Into<String>) -> Self {
        Failure { code: 1, text: text.into(), problem: None }
    }

    /// What was asked for makes no sense: exit code 2.
    pub fn usage(text: impl Into<String>) -> Self {
        Failure { code: 2, text: text.into(), problem: None }
    }

    /// Something would change, and only that was asked: exit code 3, and nothing more to say.
    pub fn changes() -> Self {
        Failure { code: 3, text: String::new(), problem: None }
    }

    /// With what the server said.
    pub fn with_problem(mut self, problem: serde_json::Value) -> Self {
        self.problem = Some(Box::new(problem));
        self
    }

    /// For programs: the text, the exit code, and what the server said, if it did.
    pub fn to_json(&self) -> String {
        let mut error = serde_json::json!({ "error": self.text, "exit_code": self.code });
        if let Some(problem) = &self.problem {
            error["problem"] = (**problem).clone();
        }
        error.to_string()
    }

    /// 1, 2 or 3.
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
