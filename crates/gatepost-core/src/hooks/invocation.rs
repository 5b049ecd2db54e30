//! One question, as a platform asks it: native JSON, or the exact Cymmetri form.

use serde_json::json;

use super::FieldError;
use super::json::{Malformed, Map, Pointer, Value, held_by, parse_strict};
use super::points::{Operation, PointDef, PointKind, builtin};
use super::reader::Reader;
use super::secrets::{Lifted, SecretJson, Secrets};

/// Attributes of one `provision`.
pub const ATTRIBUTES_MAX: usize = 250;

/// The form of a question, or of its answer; one does not follow from the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Ours.
    Native,
    /// `{"request":{…}}`.
    Cymmetri,
}

impl Form {
    /// Every form, each at the place of its number.
    pub const ALL: [Form; 2] = [Form::Native, Form::Cymmetri];

    /// The form of the answer that a caller's `accept` asks for.
    pub fn of_accept(accept: Option<&str>) -> Self {
        let types = accept.unwrap_or_default().split(',').map(|item| item.split(';').next().unwrap_or_default().trim());
        let asked = types.into_iter().any(|media| media.eq_ignore_ascii_case(CYMMETRI_MEDIA_TYPE));
        if asked { Form::Cymmetri } else { Form::Native }
    }

    /// The media type of an answer in this form.
    pub fn media_type(self) -> &'static str {
        match self {
            Form::Native => "application/json",
            Form::Cymmetri => CYMMETRI_MEDIA_TYPE,
        }
    }
}

const CYMMETRI_MEDIA_TYPE: &str = "application/vnd.cymmetri+json";

/// Why a body is no invocation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadInvocation {
    /// Not JSON, or with a member twice: 400.
    #[error(transparent)]
    Malformed(Malformed),
    /// JSON, but no invocation: everything that is wrong, 422.
    #[error("{} of the members cannot be accepted", .0.len())]
    Invalid(Vec<FieldError>),
}

/// One target attribute of a `provision`.
#[derive(Clone, PartialEq, Debug)]
pub struct Attribute {
    /// Its name at the target.
    pub name: String,
    /// What goes to receivers beside the invocation's own context: `targetAttribute`,
    /// `cymmetrifield` and whatever else was given.
    pub context: Map,
    /// What stands if nobody decides.
    pub default: Value,
}

/// A question. Holds no secret but in [`Invocation::secrets`], so it may be printed.
#[derive(Clone, PartialEq, Debug)]
pub struct Invocation {
    /// Whom it is about: `{type?, id}`; null when not given.
    pub subject: Value,
    /// Who acts; null when not given.
    pub actor: Value,
    /// What answers may change: an object.
    pub object: Value,
    /// The object before the platform's change; null when not given.
    pub old_object: Value,
    /// What answers may not change: an object.
    pub context: Value,
    /// What stands if nobody decides: an object.
    pub default: Value,
    /// Target attributes (operation `provision`).
    pub attributes: Vec<Attribute>,
    /// Everything secret.
    pub secrets: Secrets,
    /// Ask only receivers without side effects, record nothing as real.
    pub dry_run: bool,
    /// Tell more in the decision.
    pub explain: bool,
    /// Which form it came in.
    pub form: Form,
}

impl Invocation {
    /// Bytes it holds in memory, about.
    pub fn held(&self) -> usize {
        let values = [&self.subject, &self.actor, &self.object, &self.old_object, &self.context, &self.default];
        let attributes = self.attributes.iter().map(|attribute| {
            let context = attribute.context.iter().map(|(name, value)| name.len() + held_by(value));
            held_by(&attribute.default) + context.sum::<usize>()
        });
        values.into_iter().map(held_by).sum::<usize>() + attributes.sum::<usize>()
    }
}

/// What is invoked.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// One point.
    Point(&'a PointDef),
    /// A few points in one round trip.
    Operation(&'a Operation),
}

impl Target<'_> {
    fn secret_pointers(&self) -> Vec<Pointer> {
        match self {
            Target::Point(point) => point.secret_pointers.clone(),
            Target::Operation(operation) => {
                let points = operation.phases.iter().filter_map(|name| builtin(name));
                let mut all: Vec<_> = points.flat_map(|point| point.secret_pointers.clone()).collect();
                all.sort_unstable();
                all.dedup();
                all
            }
        }
    }

    fn object_members(&self) -> Vec<String> {
        match self {
            Target::Point(point) => point.object_members.clone(),
            Target::Operation(operation) => operation
                .phases
                .first()
                .and_then(|name| builtin(name))
                .map(|p| p.object_members.clone())
                .unwrap_or_default(),
        }
    }

    fn takes_attributes(&self) -> bool {
        matches!(self, Target::Operation(operation) if operation.takes_attributes())
    }

    fn needs_object(&self) -> bool {
        match self {
            Target::Point(point) => point.kind == PointKind::Mutate,
            Target::Operation(operation) => !operation.takes_attributes(),
        }
    }
}

/// Reads an invocation of `target` from a request body. A body whose only member is `request` is
/// read as Cymmetri's; so is `{}` on a probe.
///
/// # Errors
/// Malformed JSON, or everything that is wrong with well-formed JSON.
pub fn read(bytes: &[u8], target: Target<'_>) -> Result<Invocation, BadInvocation> {
    let value = parse_strict(bytes).map_err(BadInvocation::Malformed)?;
    from_value(value, target).map_err(BadInvocation::Invalid)
}

/// As [`read`], from JSON that was parsed already.
///
/// # Errors
/// Everything that is wrong.
pub fn from_value(value: Value, target: Target<'_>) -> Result<Invocation, Vec<FieldError>> {
    let Value::Object(mut members) = value else {
        return Err(vec![FieldError { pointer: String::new(), message: "must be an object".into() }]);
    };
    let mut errors = Vec::new();
    let cymmetri = members.len() == 1 && members.contains_key("request");
    let mut invocation = if cymmetri {
        match members.remove("request") {
            Some(Value::Object(request)) => from_cymmetri(request, &target, &mut errors),
            _ => {
                let message = "must be an object".into();
                return Err(vec![FieldError { pointer: "/request".into(), message }]);
            }
        }
    } else {
        from_native(members, &target, &mut errors)
    };
    let empty = invocation.object.as_object().is_none_or(Map::holds_nothing);
    if errors.is_empty() && target.needs_object() && empty {
        let pointer = if cymmetri { "/request/user" } else { "/object" };
        errors.push(FieldError {
            pointer: pointer.into(),
            message: "is required here: it is what receivers change".into(),
        });
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let pointers = target.secret_pointers();
    invocation.secrets.object = Lifted::lift(&mut invocation.object, &pointers);
    invocation.secrets.old_object = Lifted::lift(&mut invocation.old_object, &pointers);
    invocation.secrets.context = Lifted::lift(&mut invocation.context, &pointers);
    Ok(invocation)
}

fn from_native(members: Map, target: &Target<'_>, errors: &mut Vec<FieldError>) -> Invocation {
    let mut reader = Reader::new(members, "", errors);
    let subject = reader.object("subject").map_or(Value::Null, |subject| read_subject(subject, reader.errors()));
    let part = |reader: &mut Reader<'_>, name| Value::Object(reader.object(name).unwrap_or_default());
    let actor = reader.object("actor").map_or(Value::Null, Value::Object);
    let object = part(&mut reader, "object");
    let old_object = reader.object("old_object").map_or(Value::Null, Value::Object);
    let context = part(&mut reader, "context");
    let default = part(&mut reader, "default");
    let mut secrets = Secrets::default();
    for (name, value) in reader.object("secrets").unwrap_or_default() {
        secrets.named.insert(name, SecretJson::new(value));
    }
    let attributes = if target.takes_attributes() { read_attributes(&mut reader, true) } else { Vec::new() };
    let dry_run = reader.flag("dry_run", false);
    let explain = reader.flag("explain", false);
    reader.finish();
    Invocation {
        subject,
        actor,
        object,
        old_object,
        context,
        default,
        attributes,
        secrets,
        dry_run,
        explain,
        form: Form::Native,
    }
}

fn read_subject(members: Map, errors: &mut Vec<FieldError>) -> Value {
    let mut reader = Reader::new(members, "/subject", errors);
    let kind = reader.text("type");
    let id = reader.need_text("id");
    reader.finish();
    match kind {
        Some(kind) => json!({"type": kind, "id": id}).into(),
        None => json!({"id": id}).into(),
    }
}

fn read_attributes(reader: &mut Reader<'_>, required: bool) -> Vec<Attribute> {
    let Some(items) = reader.list("attributes") else {
        if required {
            reader.bad("attributes", "is required: a list of {targetAttribute, cymmetrifield?, default?, …}");
        }
        return Vec::new();
    };
    if items.len() > ATTRIBUTES_MAX {
        reader.bad(
            "attributes",
            format!("holds {} attributes; at most {ATTRIBUTES_MAX} can be asked at once", items.len()),
        );
        return Vec::new();
    }
    let at = reader.pointer("attributes");
    let mut out = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let pointer = format!("{at}/{i}");
        let Value::Object(members) = item else {
            reader.errors().push(FieldError { pointer, message: "must be an object".into() });
            continue;
        };
        let mut inner = Reader::new(members, pointer, reader.errors());
        let name = inner.need_text("targetAttribute");
        let given = inner.take("default").or_else(|| inner.take("defaultValue")).unwrap_or(Value::Null);
        let default = match given {
            Value::Object(mut members) => members.remove("mappedValue").unwrap_or(Value::Null),
            other => other,
        };
        let mut context = wire_names(inner.rest());
        context.insert("targetAttribute".into(), Value::String(name.clone()));
        out.push(Attribute { name, context, default });
    }
    out
}

/// The documented spellings, from the ones people expect (spec B8-7).
fn wire_names(mut members: Map) -> Map {
    for (usual, documented) in [("formVariable", "formVeriable"), ("cymmetriField", "cymmetrifield")] {
        if !members.contains_key(documented)
            && let Some(value) = members.remove(usual)
        {
            members.insert(documented.to_owned(), value);
        }
    }
    members
}

fn from_cymmetri(request: Map, target: &Target<'_>, errors: &mut Vec<FieldError>) -> Invocation {
    let mut reader = Reader::new(request, "/request", errors);
    let mut object = Map::new();
    for name in target.object_members() {
        if let Some(members) = reader.object(&name) {
            object.insert(name, Value::Object(members));
        }
    }
    let mut secrets = Secrets::default();
    if let Some(password) = reader.text("passwordText") {
        secrets.named.insert("passwordText".into(), SecretJson::new(Value::String(password)));
    }
    let attributes = if target.takes_attributes() { read_attributes(&mut reader, false) } else { Vec::new() };
    let mut default = Map::new();
    if let Some(value) = reader.take("defaultValue") {
        default.insert("mappedValue".into(), value);
    }
    let context = wire_names(reader.rest());
    let user = object.get("user").or_else(|| context.get("user"));
    Invocation {
        subject: user.map_or(Value::Null, subject_of_user),
        actor: Value::Null,
        object: Value::Object(object),
        old_object: Value::Null,
        context: Value::Object(context),
        default: Value::Object(default),
        attributes,
        secrets,
        dry_run: false,
        explain: false,
        form: Form::Cymmetri,
    }
}

/// Whom a question in Cymmetri's form is about: the user, by its login, else by its id. Without it nobody
/// would find, and erase, the question again.
fn subject_of_user(user: &Value) -> Value {
    let named = |name: &str| match user.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        number => number.number_text(),
    };
    named("login").or_else(|| named("id")).map_or(Value::Null, |id| json!({"type": "user", "id": id}).into())
}

impl Invocation {
    /// What the caller gave as a value point's default: `default.mappedValue`, else `default.value`.
    pub fn default_value(&self) -> Value {
        let member = |name: &str| self.default.get(name).cloned();
        member("mappedValue").or_else(|| member("value")).unwrap_or(Value::Null)
    }

    /// What the caller gave as a gate's default: `default.value`, else `default.data`.
    pub fn default_gate(&self) -> Option<bool> {
        let member = |name: &str| self.default.get(name).and_then(Value::as_bool);
        member("value").or_else(|| member("data"))
    }

    /// Whether the caller's default is to refuse: `default.decision` is `"deny"`.
    pub fn default_denies(&self) -> bool {
        self.default.get("decision").and_then(Value::as_str) == Some("deny")
    }
}

/// A value point's last resort: the default, and where that is empty the field of the user that
/// `cymmetrifield` names (SETTLED, Blocking hooks).
pub fn value_or_field(default: Value, context: &Map, object: &Value) -> Value {
    let empty = default.is_null() || default.as_str() == Some("");
    if !empty {
        return default;
    }
    let field = context.get("cymmetrifield").and_then(Value::as_str);
    match field.and_then(|name| object.get("user")?.get(name)) {
        Some(value @ (Value::String(_) | Value::Number(_) | Value::Raw(_) | Value::Bool(_))) => value.clone(),
        _ => default,
    }
}

#[cfg(test)]
#[path = "invocation_tests.rs"]
mod tests;
