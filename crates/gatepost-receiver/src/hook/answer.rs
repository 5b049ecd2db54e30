//! Answers: what can be said at which point, and how each dialect writes it.

use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Dialect, Question, TEST};
use crate::reply::Reply;

/// Why an answer cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The point takes other answers.
    #[error("{point} takes {takes}")]
    NotHere {
        /// Where.
        point: String,
        /// What can be said there.
        takes: &'static str,
    },
    /// The dialect has no words for it.
    #[error("profile cymmetri cannot say it: {0}")]
    NoForm(&'static str),
}

/// A reason for a no, or a remark beside a yes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Note {
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

impl Note {
    /// With a code for software.
    pub fn new(code: impl Into<String>) -> Note {
        Note { code: code.into(), text: None, path: None }
    }

    /// With a text for people.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Note {
        self.text = Some(text.into());
        self
    }

    /// With the member it is about: a JSON pointer into the object.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Note {
        self.path = Some(path.into());
        self
    }
}

impl From<&str> for Note {
    fn from(code: &str) -> Note {
        Note::new(code)
    }
}

/// A JSON Patch (RFC 6902) on the object.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Patch(Vec<Value>);

impl Patch {
    /// Without a change yet.
    pub fn new() -> Patch {
        Patch::default()
    }

    fn with(mut self, operation: Value) -> Patch {
        self.0.push(operation);
        self
    }

    /// Puts a value at a path that may be new.
    #[must_use]
    pub fn add(self, path: &str, value: impl Into<Value>) -> Patch {
        self.with(json!({"op": "add", "path": path, "value": value.into()}))
    }

    /// Puts a value at a path that is there.
    #[must_use]
    pub fn replace(self, path: &str, value: impl Into<Value>) -> Patch {
        self.with(json!({"op": "replace", "path": path, "value": value.into()}))
    }

    /// Takes away what is at a path.
    #[must_use]
    pub fn remove(self, path: &str) -> Patch {
        self.with(json!({"op": "remove", "path": path}))
    }

    /// Moves what is at one path to another.
    #[must_use]
    pub fn relocate(self, from: &str, path: &str) -> Patch {
        self.with(json!({"op": "move", "from": from, "path": path}))
    }

    /// Copies what is at one path to another.
    #[must_use]
    pub fn copy(self, from: &str, path: &str) -> Patch {
        self.with(json!({"op": "copy", "from": from, "path": path}))
    }

    /// Lets the whole patch fail unless this value is at the path.
    #[must_use]
    pub fn test(self, path: &str, value: impl Into<Value>) -> Patch {
        self.with(json!({"op": "test", "path": path, "value": value.into()}))
    }
}

/// What a receiver says.
#[derive(Clone, PartialEq, Debug)]
#[must_use]
pub struct Answer {
    said: Said,
    notes: Vec<Note>,
}

#[derive(Clone, PartialEq, Debug)]
enum Said {
    Allow,
    Deny,
    Object(Value),
    Patch(Patch),
    Value(Value),
}

impl Answer {
    fn say(said: Said) -> Answer {
        Answer { said, notes: Vec::new() }
    }

    /// Yes, and nothing changes; where a value is asked for: no value.
    pub fn allow() -> Answer {
        Answer::say(Said::Allow)
    }

    /// No, with a reason (a code alone is one).
    pub fn deny(why: impl Into<Note>) -> Answer {
        Answer::say(Said::Deny).note(why)
    }

    /// Yes, with this object instead: `{"user": {…}}`. Members left out stay, unless the hook says
    /// `replace_mode: replace`.
    pub fn object(object: Map<String, Value>) -> Answer {
        Answer::say(Said::Object(Value::Object(object)))
    }

    /// Yes, with these changes (`gatepost` only).
    pub fn patch(patch: Patch) -> Answer {
        Answer::say(Said::Patch(patch))
    }

    /// This value.
    pub fn value(value: impl Into<Value>) -> Answer {
        Answer::say(Said::Value(value.into()))
    }

    /// Yes or no, where a gate asks.
    pub fn gate(open: bool) -> Answer {
        Answer::value(open)
    }

    /// One more reason for a no, or a remark beside a yes.
    pub fn note(mut self, note: impl Into<Note>) -> Answer {
        self.notes.push(note.into());
        self
    }

    /// What is wrong with saying this at a point, as far as Gatepost's own points are concerned; what a
    /// tenant's own take is not known here.
    fn fits(&self, point: &str) -> Result<(), AnswerError> {
        let takes = match (point, &self.said) {
            ("preCreateUser" | "preUpdateUser", Said::Value(_)) => "allow, deny, an object or a patch",
            ("validateUser" | "validateUpdateUser", Said::Value(_) | Said::Patch(_)) => "allow, deny or an object",
            ("policyMap", Said::Object(_) | Said::Patch(_)) => "a value, allow (no value) or deny",
            ("runDeprovision", Said::Value(Value::Bool(_)) | Said::Deny) => return Ok(()),
            ("runDeprovision", _) => "true, false or deny",
            ("preProvision", Said::Object(_) | Said::Patch(_) | Said::Value(_)) => "allow or deny",
            ("changePassword", Said::Allow) => return Ok(()),
            ("changePassword", _) => "allow alone: answers are not read there",
            _ => return Ok(()),
        };
        Err(AnswerError::NotHere { point: point.to_owned(), takes })
    }
}

impl Question {
    /// The answer as it goes out, signed where answers are. A test is passed whatever the answer.
    ///
    /// # Errors
    /// The point takes other answers, or the dialect has no words for this one: Gatepost would take it
    /// for a failure.
    pub fn reply(&self, answer: Answer) -> Result<Reply, AnswerError> {
        let answer = if self.point == TEST { Answer::allow() } else { answer };
        answer.fits(&self.point)?;
        let body = match self.receipt.dialect {
            Dialect::Gatepost => gatepost(&self.id, answer),
            Dialect::Cymmetri => cymmetri(&self.point, answer)?,
        };
        let mut reply = Reply::json(StatusCode::OK, &body);
        let key = self.receipt.keys.as_ref().and_then(|keys| keys.get(self.receipt.key));
        let signature = key.map(|key| key.sign(&self.id, self.receipt.signed_at, &reply.body));
        // Base64 is always a header's value.
        if let Some(value) = signature.and_then(|text| HeaderValue::try_from(text).ok()) {
            reply.headers.insert("gatepost-answer-signature", value);
        }
        Ok(reply)
    }
}

fn gatepost(id: &str, answer: Answer) -> Value {
    let mut body = json!({ "id": id });
    let decision = if matches!(answer.said, Said::Deny) { "deny" } else { "allow" };
    body["decision"] = decision.into();
    match answer.said {
        Said::Allow | Said::Deny => {}
        Said::Object(object) => body["object"] = object,
        Said::Patch(patch) => body["patch"] = Value::Array(patch.0),
        Said::Value(value) => body["value"] = value,
    }
    if !answer.notes.is_empty() {
        body["messages"] = json!(answer.notes);
    }
    body
}

fn cymmetri(point: &str, answer: Answer) -> Result<Value, AnswerError> {
    let response = match answer.said {
        Said::Deny => {
            let code = answer.notes.into_iter().next().map(|note| note.code);
            return Ok(json!({"response": {"error": true, "message": code}}));
        }
        _ if !answer.notes.is_empty() => return Err(AnswerError::NoForm("a remark beside a yes")),
        Said::Allow => json!({}),
        Said::Object(mut object) => match point {
            // The document's form; elsewhere the object's own members say what they are.
            "preCreateUser" | "preUpdateUser" | "validateUser" | "validateUpdateUser" => {
                json!({ "data": object["user"].take() })
            }
            _ => object,
        },
        Said::Patch(_) => return Err(AnswerError::NoForm("a patch; give the object")),
        Said::Value(Value::Bool(open)) if point != "policyMap" => json!({ "data": open }),
        Said::Value(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => json!({ "mappedValue": value }),
        Said::Value(Value::Null) => json!({}),
        Said::Value(_) => return Err(AnswerError::NoForm("a value that is a list or an object")),
    };
    Ok(json!({ "response": response }))
}
