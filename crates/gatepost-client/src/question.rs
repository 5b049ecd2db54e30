//! What is asked, and what the platform then did.

use serde::Serialize;
use serde_json::{Map, Value};

/// A question to the hooks of a point or an operation. Members as in `docs/blocking-hooks.md`.
#[derive(Clone, Default, Serialize)]
pub struct Question {
    #[serde(flatten)]
    members: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    secrets: Map<String, Value>,
}

impl std::fmt::Debug for Question {
    /// Without the secrets' values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secrets: Vec<_> = self.secrets.keys().collect();
        f.debug_struct("Question").field("members", &self.members).field("secrets", &secrets).finish()
    }
}

impl Question {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Whom it is about.
    #[must_use]
    pub fn subject(self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        self.with("subject", who(kind.into(), id.into()))
    }

    /// Who asks for the action.
    #[must_use]
    pub fn actor(self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        self.with("actor", who(kind.into(), id.into()))
    }

    /// What answers may change, such as `{"user": {…}}`.
    #[must_use]
    pub fn object(self, object: impl Into<Value>) -> Self {
        self.with("object", object)
    }

    /// The object as it was, of an update.
    #[must_use]
    pub fn old_object(self, object: impl Into<Value>) -> Self {
        self.with("old_object", object)
    }

    /// What answers may read but not change.
    #[must_use]
    pub fn context(self, context: impl Into<Value>) -> Self {
        self.with("context", context)
    }

    /// What stands if nobody decides, such as `{"mappedValue": "…"}`. Also what a local
    /// [`Fallback::Default`](crate::Fallback::Default) answers.
    #[must_use]
    pub fn default_value(self, default: impl Into<Value>) -> Self {
        self.with("default", default)
    }

    /// The attributes of operation `provision`, each with its own default.
    #[must_use]
    pub fn attributes(self, attributes: impl Into<Value>) -> Self {
        self.with("attributes", attributes)
    }

    /// A secret, such as `passwordText`: only hooks that were granted secrets see it, and nothing keeps it.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secrets.insert(name.into(), Value::String(value.into()));
        self
    }

    /// Asks only hooks without side effects; nothing will be done.
    #[must_use]
    pub fn dry_run(self) -> Self {
        self.with("dry_run", true)
    }

    /// What stands if nobody decides.
    pub(crate) fn default_of(&self) -> Option<&Value> {
        self.members.get("default")
    }
}

fn who(kind: String, id: String) -> Value {
    let mut who = Map::new();
    who.insert("type".into(), kind.into());
    who.insert("id".into(), id.into());
    who.into()
}

/// What the platform did after an invocation.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outcome {
    committed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Value>,
    #[serde(rename = "isSuccess", skip_serializing_if = "Option::is_none")]
    is_success: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
}

impl Outcome {
    /// It did what it asked about.
    pub fn committed() -> Self {
        Outcome { committed: true, object: None, is_success: None, uid: None }
    }

    /// It did not.
    pub fn aborted() -> Self {
        Outcome { committed: false, object: None, is_success: None, uid: None }
    }

    /// The object as it was finally stored: what post events carry.
    #[must_use]
    pub fn object(mut self, object: impl Into<Value>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Whether it succeeded at the target application.
    #[must_use]
    pub fn success(mut self, success: bool) -> Self {
        self.is_success = Some(success);
        self
    }

    /// The id it got at the target application.
    #[must_use]
    pub fn uid(mut self, uid: impl Into<String>) -> Self {
        self.uid = Some(uid.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_question_is_written_as_gatepost_reads_it() {
        let question = Question::new()
            .subject("user", "u1")
            .actor("admin", "a1")
            .object(json!({"user": {"login": "x"}}))
            .context(json!({"applicationId": "app"}))
            .default_value(json!({"mappedValue": "d"}))
            .secret("passwordText", "hunter2")
            .dry_run();
        let written = serde_json::to_value(&question).unwrap();
        assert_eq!(
            written,
            json!({"subject": {"type": "user", "id": "u1"}, "actor": {"type": "admin", "id": "a1"},
                   "object": {"user": {"login": "x"}}, "context": {"applicationId": "app"},
                   "default": {"mappedValue": "d"}, "secrets": {"passwordText": "hunter2"}, "dry_run": true})
        );
        assert_eq!(serde_json::to_value(Question::new()).unwrap(), json!({}));
    }

    #[test]
    fn p7_a_question_does_not_print_its_secrets() {
        let printed = format!("{:?}", Question::new().secret("passwordText", "hunter2"));
        assert!(printed.contains("passwordText") && !printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn outcomes() {
        let aborted = serde_json::to_value(Outcome::aborted()).unwrap();
        assert_eq!(aborted, json!({"committed": false}));
        let committed = Outcome::committed().object(json!({"user": {}})).success(true).uid("77");
        assert_eq!(
            serde_json::to_value(committed).unwrap(),
            json!({"committed": true, "object": {"user": {}}, "isSuccess": true, "uid": "77"})
        );
    }
}
