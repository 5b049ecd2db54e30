//! What the platform did after a decision, and the event it raises.

use serde::{Deserialize, Serialize};

use super::FieldError;
use super::json::{Map, Pointer, Value, same};
use super::points::Operation;
use super::reader::Reader;
use super::secrets::Lifted;

/// How long an outcome is waited for before it counts as unknown.
pub const UNKNOWN_AFTER: std::time::Duration = std::time::Duration::from_secs(60);
/// How long an outcome is accepted.
pub const ACCEPTED_FOR: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// What the platform did.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it went through with it.
    pub committed: bool,
    /// Why not, or whatever else there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The object as committed; the decision's when absent. Without its secret members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Value>,
    /// Whether provisioning succeeded (`provision`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_success: Option<bool>,
    /// The account's id at the target (`provision`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// Reads an outcome. Secret members of its object are dropped: what is kept is what events carry.
///
/// # Errors
/// Everything that is wrong.
pub fn read(value: Value, secret_pointers: &[Pointer]) -> Result<Outcome, Vec<FieldError>> {
    let Value::Object(members) = value else {
        return Err(vec![FieldError { pointer: String::new(), message: "must be an object".into() }]);
    };
    let mut errors = Vec::new();
    let mut reader = Reader::new(members, "", &mut errors);
    let committed = match reader.take("committed") {
        Some(Value::Bool(committed)) => committed,
        Some(_) => {
            reader.bad("committed", "must be true or false");
            false
        }
        None => {
            reader.bad("committed", "is required");
            false
        }
    };
    let reason = reader.text("reason");
    let mut object = reader.object("object").map(Value::Object);
    let is_success = match reader.take("isSuccess") {
        None => None,
        Some(Value::Bool(yes)) => Some(yes),
        Some(_) => {
            reader.bad("isSuccess", "must be true or false");
            None
        }
    };
    let uid = reader.text("uid");
    reader.finish();
    if !errors.is_empty() {
        return Err(errors);
    }
    if let Some(object) = &mut object {
        // Dropped, and wiped by that.
        let _ = Lifted::lift(object, secret_pointers);
    }
    Ok(Outcome { committed, reason, object, is_success, uid })
}

impl Outcome {
    /// Whether it says the same as one that was accepted before: then it is answered alike, else it
    /// is a contradiction (409).
    pub fn agrees_with(&self, earlier: &Outcome) -> bool {
        let object = match (&self.object, &earlier.object) {
            (None, None) => true,
            (Some(a), Some(b)) => same(a, b),
            _ => false,
        };
        let plain = |o: &Outcome| (o.committed, o.reason.clone(), o.is_success, o.uid.clone());
        object && plain(self) == plain(earlier)
    }
}

/// The event a committed operation raises: its type, and its data: the object's members, the
/// context's, and for a provision whether it succeeded and as what.
pub fn post_event(
    operation: &Operation,
    object: &Value,
    context: &Value,
    outcome: &Outcome,
) -> Option<(String, Value)> {
    if !outcome.committed {
        return None;
    }
    let mut data = Map::new();
    let object = outcome.object.as_ref().unwrap_or(object);
    if operation.takes_attributes()
        && let Value::Object(members) = context
    {
        data.absorb(members.clone());
    }
    if let Value::Object(members) = object {
        data.absorb(members.clone());
    }
    if operation.takes_attributes() {
        data.insert("isSuccess".into(), outcome.is_success.unwrap_or(true).into());
        data.insert("uid".into(), outcome.uid.clone().map_or(Value::Null, Value::String));
    } else {
        data.extend(outcome.is_success.map(|yes| ("isSuccess".to_owned(), yes.into())));
        data.extend(outcome.uid.clone().map(|uid| ("uid".to_owned(), uid.into())));
    }
    Some((operation.post_event.clone(), Value::Object(data)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::json::json;
    use crate::hooks::points::{builtin, operation};

    #[test]
    fn outcomes_are_read_strictly_and_compared_by_meaning() {
        let pointers = &builtin("preCreateUser").unwrap().secret_pointers;
        let good = read(
            json!({"committed":true,"object":{"user":{"login":"a","securityQuestion":{"pet":"Rex"},"n":1}},"uid":"u"}),
            pointers,
        )
        .unwrap();
        assert_eq!(good.object, Some(json!({"user":{"login":"a","n":1}})));
        let again =
            read(json!({"committed":true,"object":{"user":{"n":1.0,"login":"a"}},"uid":"u"}), pointers).unwrap();
        assert!(good.agrees_with(&again));
        assert!(!good.agrees_with(&read(json!({"committed":false}), pointers).unwrap()));
        let wrong = read(json!({"committed":"yes","isSuccess":1,"comitted":true}), pointers).unwrap_err();
        let places: Vec<_> = wrong.into_iter().map(|e| e.pointer).collect();
        assert_eq!(places, ["/committed", "/isSuccess", "/comitted"]);
        assert_eq!(read(json!({}), pointers).unwrap_err().len(), 1);
    }

    #[test]
    fn post_events_carry_what_was_committed() {
        let outcome = |value| read(value, &[]).unwrap();
        let object = json!({"user":{"login":"a"}});
        let provision = operation("provision").unwrap();
        let context = json!({"applicationId":"620231fee789224ec1cec3dd","action":"Application Create"});
        assert_eq!(
            post_event(provision, &object, &context, &outcome(json!({"committed":true,"isSuccess":false,"uid":"u1"}))),
            Some((
                "cymmetri.postProvision".into(),
                json!({"user":{"login":"a"},"applicationId":"620231fee789224ec1cec3dd","action":"Application Create",
                    "isSuccess":false,"uid":"u1"})
            ))
        );
        let create = operation("createUser").unwrap();
        assert_eq!(
            post_event(
                create,
                &object,
                &json!({}),
                &outcome(json!({"committed":true,"object":{"user":{"login":"b"}}}))
            ),
            Some(("cymmetri.postCreateUser".into(), json!({"user":{"login":"b"}})))
        );
        assert_eq!(post_event(create, &object, &json!({}), &outcome(json!({"committed":false}))), None);
    }
}
