//! What makes tests about [`Value`] read like those about any other value.

use super::*;

impl Value {
    pub(crate) fn as_object_mut(&mut self) -> Option<&mut Map> {
        if let Value::Object(it) = self { Some(it) } else { None }
    }
}

impl std::ops::Index<&str> for Value {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

impl std::ops::IndexMut<&str> for Value {
    fn index_mut(&mut self, name: &str) -> &mut Value {
        let Value::Object(members) = self else { panic!("no object") };
        members.entry(name.to_owned()).or_default()
    }
}

impl PartialEq<&str> for Value {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == Some(text)
    }
}

impl PartialEq<bool> for Value {
    fn eq(&self, it: &bool) -> bool {
        self.as_bool() == Some(*it)
    }
}

impl PartialEq<Value> for serde_json::Value {
    fn eq(&self, other: &Value) -> bool {
        let this = Value::from(self.clone());
        this.eq(other)
    }
}

impl From<i64> for Value {
    fn from(it: i64) -> Self {
        Value::Number(it.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Value::Array(items)
    }
}

impl PartialEq<str> for Value {
    fn eq(&self, text: &str) -> bool {
        self.as_str() == Some(text)
    }
}
