//! JSON Schemas of event types, enforced when an event is published.
//!
//! Drafts 4 to 2020-12 (the crate `jsonschema`; `$schema` says which, 2020-12 when it does not).
//! Nothing is fetched: a reference outside the schema itself is an error at write. Patterns run on
//! an engine whose time grows linearly with the text, so no schema can make publishing hang.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// Violations reported for one event, at most.
const REPORTED: usize = 20;

/// A schema, compiled once.
pub struct Schema(Validator);

/// One member of `data` that the schema refuses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// A JSON pointer into `data`.
    pub pointer: String,
    /// What the schema asks for.
    pub message: String,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn compile(text: &str) -> Result<Schema, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
        jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(&value)
            .map(Schema)
            .map_err(|error| format!("is not a JSON Schema: {error} (at {:?})", error.instance_path().to_string()))
    }

    /// What the schema refuses about `data`; nothing when it holds.
    pub fn violations(&self, data: &[u8]) -> Vec<Violation> {
        let value: Value = match serde_json::from_slice(data) {
            Ok(value) => value,
            Err(error) => {
                let message = format!("cannot be checked against the type's schema: {error}");
                return vec![Violation { pointer: String::new(), message }];
            }
        };
        let found = self.0.iter_errors(&value).take(REPORTED);
        found
            .map(|error| Violation {
                pointer: error.instance_path().to_string(),
                message: format!("breaks the schema of the event type: {}", error.masked()),
            })
            .collect()
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_name_the_member_and_not_its_value() {
        let schema = Schema::compile(
            r#"{"type":"object","required":["id"],"properties":{"id":{"type":"string"},"age":{"minimum":0}}}"#,
        )
        .unwrap();
        assert_eq!(schema.violations(br#"{"id":"u1","age":3}"#), []);
        let bad = schema.violations(br#"{"id":"u1","age":-5432}"#);
        assert_eq!(bad[0].pointer, "/age");
        assert!(!bad[0].message.contains("5432"), "{bad:?}");
        assert_eq!(schema.violations(b"{}")[0].pointer, "");
        assert_eq!(schema.violations(b"[]").len(), 1);
    }

    #[test]
    fn schemas_that_cannot_be_used_are_refused_at_write() {
        for bad in [r#"{"type":"strin"}"#, r#"{"$ref":"https://example.com/schema.json"}"#, r#"{"pattern":"("}"#, "7"] {
            assert!(Schema::compile(bad).is_err(), "{bad}");
        }
        assert!(Schema::compile("true").is_ok());
    }

    #[test]
    fn deep_data_is_a_violation_and_no_crash() {
        let deep = [vec![b'['; 5_000], vec![b']'; 5_000]].concat();
        assert_eq!(Schema::compile("{}").unwrap().violations(&deep).len(), 1);
    }
}
