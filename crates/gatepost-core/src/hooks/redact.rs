//! Members a point keeps nothing of (`redact`): receivers are asked with them, and what is stored is without.

use super::change::PatchOp;
use super::json::{Pointer, Value, index};
use super::secrets::wipe;
use crate::secret::MASK;

/// Parts of a kept question that `redact` speaks about, each by itself.
const PARTS: [&str; 3] = ["object", "old_object", "context"];

/// Takes the members at `places` out of a document; an item of a list becomes null.
pub fn strip(document: &mut Value, places: &[Pointer]) {
    for place in places {
        let Some((last, parent)) = place.split() else { continue };
        match parent.get_mut(document) {
            Some(Value::Object(members)) => {
                if let Some(mut gone) = members.remove(last) {
                    wipe(&mut gone);
                }
            }
            Some(Value::Array(items)) => {
                if let Some(item) = index(last).and_then(|at| items.get_mut(at)) {
                    wipe(item);
                    *item = Value::Null;
                }
            }
            _ => {}
        }
    }
}

/// Takes them out of a question in the native form; whether there were any.
pub fn strip_question(question: &mut Value, places: &[Pointer]) -> bool {
    let mut found = false;
    let mut one = |part: &mut Value| {
        found |= places.iter().any(|place| place.get(part).is_some());
        strip(part, places);
    };
    PARTS.iter().filter_map(|name| question.get_mut(name).map(&mut one)).for_each(drop);
    if let Some(Value::Array(attributes)) = question.get_mut("attributes") {
        attributes.iter_mut().for_each(one);
    }
    found
}

/// Takes their values out of a patch. That they changed is told.
pub fn strip_patch(patch: &mut [PatchOp], places: &[Pointer]) {
    for op in patch {
        let path = op.path().clone();
        let Some(value) = op.value_mut() else { continue };
        if places.iter().any(|place| place.covers(&path)) {
            wipe(value);
            *value = MASK.into();
        } else {
            let inside: Vec<_> = places.iter().filter_map(|place| place.below(&path)).collect();
            strip(value, &inside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::change::patch;
    use crate::hooks::json::json;

    #[test]
    fn nothing_of_a_redacted_member_is_left() {
        let places: Vec<Pointer> =
            ["/user/password", "/user/phones/0", "/user/none/x"].iter().map(|text| text.parse().unwrap()).collect();
        let user = || json!({"user": {"login": "a", "password": "secret!", "phones": ["secret!", "2"]}});
        let mut question = json!({"object": user(), "old_object": user(), "context": user(), "subject": {"id": "a"},
            "attributes": [{"targetAttribute": "x", "user": {"password": "secret!"}}]});
        assert!(strip_question(&mut question, &places));
        assert!(!question.to_string().contains("secret!"), "{question}");
        assert_eq!(question["object"], json!({"user": {"login": "a", "phones": [null, "2"]}}));
        assert!(!strip_question(&mut json!({"object": {"user": {}}, "default": 1}), &places));
        for (before, after, left) in [
            (json!({}), user(), json!({"op": "add", "path": "/user", "value": {"login": "a", "phones": [null, "2"]}})),
            (
                json!({"user": {"password": "old"}}),
                json!({"user": {"password": "secret!"}}),
                json!({"op": "replace", "path": "/user/password", "value": "***"}),
            ),
            (
                user(),
                json!({"user": {"login": "a", "phones": ["secret!", "2"]}}),
                json!({"op": "remove", "path": "/user/password"}),
            ),
        ] {
            let mut ops = patch(&before, &after);
            strip_patch(&mut ops, &places);
            assert_eq!(json!(ops), json!([left]));
        }
    }
}
