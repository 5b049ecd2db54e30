//! The part of Okta's expression language its event hooks' filters have, compiled to our filters' CEL.
//!
//! ```text
//! expr       = and ("||" and)*            and = unary ("&&" unary)*
//! unary      = "!" unary | "(" expr ")" | comparison
//! comparison = field ("eq" | "ne" | "==" | "!=") (text | "null")
//!            | "event.target.?[" expr "]" ".size()" ("==" | "!=" | ">" | ">=" | "<" | "<=") number
//! ```
//! Only the fields Okta documents can be asked. What is missing in an event equals null.

use std::fmt::Write as _;

/// Nesting an expression may have.
const DEPTH_MAX: usize = 32;

/// Fields of an event, and where they are in its `data`.
const FIELDS: [(&str, &[&str]); 7] = [
    ("event.outcome.reason", &["outcome", "reason"]),
    ("event.outcome.result", &["outcome", "result"]),
    ("event.actor.id", &["actor", "id"]),
    ("event.actor.type", &["actor", "type"]),
    ("event.actor.alternateId", &["actor", "alternateId"]),
    ("event.actor.displayName", &["actor", "displayName"]),
    ("event.debugData.changedAttributes", &["debugContext", "debugData", "changedAttributes"]),
];
/// Fields of a target.
const TARGET_FIELDS: [&str; 4] = ["id", "type", "alternateId", "displayName"];

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at character {at})")]
pub struct ElError {
    /// What is wrong, and what can be written.
    pub message: String,
    /// Where, from 1.
    pub at: usize,
}

/// Compiles a filter to CEL over `type` and `data`.
///
/// # Errors
/// When it is none, or is not a yes or a no.
pub fn compile(source: &str) -> Result<String, ElError> {
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0, end: source.chars().count() + 1 };
    let cel = parser.either(Scope::Event)?;
    match parser.peek() {
        None => Ok(cel),
        Some(_) => Err(parser.error("does not belong here; expressions are joined by && and ||")),
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    /// A name with its dots.
    Name(String),
    Text(String),
    Number(String),
    Sign(&'static str),
}

/// Signs, the longer ones first.
const SIGNS: [&str; 15] = [".?[", "&&", "||", "==", "!=", ">=", "<=", "]", "(", ")", ">", "<", "!", ".", "["];

fn tokens(source: &str) -> Result<Vec<(Token, usize)>, ElError> {
    let mut tokens = Vec::new();
    let mut rest = source;
    loop {
        rest = rest.trim_start();
        let at = source[..source.len() - rest.len()].chars().count() + 1;
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        if first == '\'' || first == '"' {
            let (text, after) = text(rest, first).ok_or(ElError { message: "a text does not end".into(), at })?;
            tokens.push((Token::Text(text), at));
            rest = after;
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            tokens.push((Token::Number(rest[..end].to_owned()), at));
            rest = &rest[end..];
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = name_end(rest);
            tokens.push((Token::Name(rest[..end].to_owned()), at));
            rest = &rest[end..];
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            tokens.push((Token::Sign(sign), at));
            rest = &rest[sign.len()..];
        } else {
            return Err(ElError { message: format!("{first:?} cannot stand here"), at });
        }
    }
}

/// Where a name ends: a dot belongs to it if another name follows.
fn name_end(text: &str) -> usize {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut end = 0;
    loop {
        end += text[end..].find(|c: char| !part(c)).unwrap_or(text.len() - end);
        let mut after = text[end..].chars();
        match (after.next(), after.next()) {
            (Some('.'), Some(c)) if c.is_ascii_alphabetic() => end += 1,
            _ => return end,
        }
    }
}

/// The text that begins here, and what follows it. A backslash takes the next character as it is.
fn text(source: &str, quote: char) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = source.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => text.push(characters.next()?.1),
            c if c == quote => return Some((text, &source[at + c.len_utf8()..])),
            c => text.push(c),
        }
    }
    None
}

/// What names stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Event,
    Target,
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn error(&self, message: impl Into<String>) -> ElError {
        let at = self.tokens.get(self.next).map_or(self.end, |(_, at)| *at);
        ElError { message: message.into(), at }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ElError> {
        if self.take(sign) { Ok(()) } else { Err(self.error(format!("wanted here is {sign:?}"))) }
    }

    fn either(&mut self, scope: Scope) -> Result<String, ElError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("is nested too deep"));
        }
        let mut cel = self.both(scope)?;
        while self.take("||") {
            cel = format!("({cel} || {})", self.both(scope)?);
        }
        self.depth -= 1;
        Ok(cel)
    }

    fn both(&mut self, scope: Scope) -> Result<String, ElError> {
        let mut cel = self.unary(scope)?;
        while self.take("&&") {
            cel = format!("({cel} && {})", self.unary(scope)?);
        }
        Ok(cel)
    }

    fn unary(&mut self, scope: Scope) -> Result<String, ElError> {
        let mut denied = false;
        while self.take("!") {
            denied = !denied;
        }
        let cel = if self.take("(") {
            let inner = self.either(scope)?;
            self.expect(")")?;
            inner
        } else {
            self.comparison(scope)?
        };
        Ok(if denied { format!("!({cel})") } else { cel })
    }

    fn comparison(&mut self, scope: Scope) -> Result<String, ElError> {
        let Some(Token::Name(name)) = self.peek().cloned() else {
            return Err(self.error("wanted here is a field, such as event.outcome.result"));
        };
        if scope == Scope::Event && name == "event.target" {
            self.next += 1;
            return self.selection();
        }
        let field = match scope {
            Scope::Event => event_field(&name),
            Scope::Target => target_field(&name),
        };
        let field = field.ok_or_else(|| self.error(format!("{name:?} is no field filters can ask")))?;
        self.next += 1;
        let equal = match self.peek() {
            Some(Token::Name(word)) if word == "eq" => true,
            Some(Token::Name(word)) if word == "ne" => false,
            Some(Token::Sign("==")) => true,
            Some(Token::Sign("!=")) => false,
            _ => return Err(self.error("wanted here is eq or ne: a field alone is neither true nor false")),
        };
        self.next += 1;
        let same = match self.peek() {
            Some(Token::Text(text)) => field.equals(text),
            Some(Token::Name(word)) if word == "null" => field.is_null(),
            _ => return Err(self.error("wanted here is a text in quotes, or null")),
        };
        self.next += 1;
        Ok(if equal { same } else { format!("!({same})") })
    }

    /// After `event.target`.
    fn selection(&mut self) -> Result<String, ElError> {
        if !self.take(".?[") {
            return Err(self.error("wanted here is .?[…].size() > 0: targets are a list"));
        }
        let chosen = self.either(Scope::Target)?;
        self.expect("]")?;
        self.expect(".")?;
        let is_size = matches!(self.peek(), Some(Token::Name(name)) if name == "size");
        self.next += usize::from(is_size);
        if !is_size {
            return Err(self.error("wanted here is size(): a selection alone is neither true nor false"));
        }
        self.expect("(")?;
        self.expect(")")?;
        let signs = ["==", "!=", ">=", "<=", ">", "<"];
        let sign = signs.into_iter().find(|sign| self.take(sign));
        let sign = sign.ok_or_else(|| self.error("wanted here is a comparison, such as > 0"))?;
        let Some(Token::Number(number)) = self.peek().cloned() else {
            return Err(self.error("wanted here is a number"));
        };
        let number: u32 = number.parse().map_err(|_| self.error("is too large"))?;
        self.next += 1;
        Ok(format!("((has(data.target) ? size(data.target.filter(t, {chosen})) : 0) {sign} {number})"))
    }
}

/// A field in CEL, with what has to be there for it to be asked.
enum Field {
    /// The type: always there.
    Type,
    /// Members of `data`, one below the other; or at the top, where `debugData` is gathered from.
    Data(&'static [&'static str]),
    /// A member of a target.
    Target(String),
}

fn event_field(name: &str) -> Option<Field> {
    if name == "event.eventType" {
        return Some(Field::Type);
    }
    FIELDS.iter().find(|(known, _)| *known == name).map(|(_, path)| Field::Data(path))
}

fn target_field(name: &str) -> Option<Field> {
    TARGET_FIELDS.contains(&name).then(|| Field::Target(name.to_owned()))
}

impl Field {
    /// Each place the field may be at: what must be there, and the value.
    fn places(&self) -> Vec<(String, String)> {
        let guarded = |path: &[&str]| {
            let (mut guard, mut value) = (String::new(), String::from("data"));
            for member in path {
                let _ = write!(value, ".{member}");
                let _ = write!(guard, "{}has({value})", if guard.is_empty() { "" } else { " && " });
            }
            (guard, value)
        };
        match self {
            Field::Type => vec![("true".into(), "type".into())],
            Field::Target(member) => vec![(format!("has(t.{member})"), format!("t.{member}"))],
            // Members of the data that are none of a LogEvent's are its debug data.
            Field::Data(path @ ["debugContext", "debugData", member]) => vec![guarded(path), guarded(&[member])],
            Field::Data(path) => vec![guarded(path)],
        }
    }

    fn equals(&self, text: &str) -> String {
        let quoted = quoted(text);
        let each: Vec<_> =
            self.places().into_iter().map(|(guard, value)| format!("({guard} && {value} == {quoted})")).collect();
        format!("({})", each.join(" || "))
    }

    fn is_null(&self) -> String {
        let each: Vec<_> =
            self.places().into_iter().map(|(guard, value)| format!("!({guard} && {value} != null)")).collect();
        format!("({})", each.join(" && "))
    }
}

/// A CEL text.
fn quoted(text: &str) -> String {
    // JSON's escapes are CEL's.
    serde_json::to_string(text).unwrap_or_default()
}

/// The filter of several event types, each with an expression of its own: types without one pass.
pub fn join(conditions: &[(String, String)]) -> String {
    let each: Vec<_> = conditions.iter().map(|(name, cel)| format!("(type != {} || {cel})", quoted(name))).collect();
    each.join(" && ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;
    use crate::filter::{Filter, FilterResult};
    use crate::matching::MatchFacts;
    use serde_json::{Value, json};

    fn passes(cel: &str, event_type: &str, data: &Value) -> bool {
        let filter = Filter::compile(cel).unwrap_or_else(|e| panic!("{cel}: {e}"));
        let event_type: EventType = event_type.parse().unwrap();
        let data = data.to_string();
        let facts = MatchFacts { event_type: &event_type, subject: None, data: data.as_bytes(), attributes: None };
        filter.evaluate(&facts) == FilterResult::True
    }

    fn sample() -> Value {
        json!({
            "outcome": {"result": "SUCCESS"},
            "actor": {"id": "00u1", "type": "User", "alternateId": "a@b", "displayName": "Ada \"A\""},
            "target": [{"id": "1", "type": "User", "displayName": "Ada"}, {"id": "2", "type": "UserGroup", "displayName": "Sales"}],
            "debugContext": {"debugData": {"changedAttributes": "login"}},
        })
    }

    #[test]
    fn expressions_on_a_sample() {
        for (source, expected) in [
            ("event.outcome.result eq 'SUCCESS'", true),
            ("event.outcome.result == \"SUCCESS\"", true),
            ("event.outcome.result ne 'SUCCESS'", false),
            ("event.outcome.reason eq null", true),
            ("event.outcome.reason ne null", false),
            ("event.actor.displayName eq 'Ada \"A\"'", true),
            ("event.eventType eq 'user.session.start'", true),
            ("event.debugData.changedAttributes eq 'login'", true),
            ("event.actor.type eq 'User' && event.actor.id eq '00u1'", true),
            ("event.actor.type eq 'X' || event.actor.id eq '00u1'", true),
            ("event.actor.type eq 'X' || event.actor.id eq '00u1' && event.actor.id eq 'no'", false),
            ("(event.actor.type eq 'X' || event.actor.id eq '00u1') && !(event.actor.id eq 'no')", true),
            ("event.target.?[type eq 'UserGroup'].size() > 0", true),
            ("event.target.?[type eq 'UserGroup'].size()>0", true),
            ("event.target.?[type eq 'App'].size() == 0", true),
            ("event.target.?[type ne null].size() >= 2", true),
            // Both of one target, and each of any target: the trap of the documented sample.
            ("event.target.?[type eq 'User' && displayName eq 'Sales'].size() > 0", false),
            ("event.target.?[type eq 'User'].size() > 0 && event.target.?[displayName eq 'Sales'].size() > 0", true),
        ] {
            let cel = compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
            assert_eq!(passes(&cel, "user.session.start", &sample()), expected, "{source}\n{cel}");
        }
    }

    #[test]
    fn what_is_missing_is_null_and_never_an_error() {
        for (source, expected) in [
            ("event.outcome.result eq 'SUCCESS'", false),
            ("event.outcome.result ne 'SUCCESS'", true),
            ("event.outcome.result eq null", true),
            ("event.target.?[type eq 'User'].size() == 0", true),
            ("event.debugData.changedAttributes eq null", true),
        ] {
            assert_eq!(passes(&compile(source).unwrap(), "a.b", &json!({})), expected, "{source}");
        }
        let cel = compile("event.debugData.changedAttributes eq 'x'").unwrap();
        assert!(passes(&cel, "a.b", &json!({"changedAttributes": "x"})), "what becomes debug data can be asked");
    }

    #[test]
    fn what_is_no_yes_or_no_is_refused() {
        for source in [
            "",
            "event.outcome.result",
            "'SUCCESS'",
            "event.target.?[type eq 'User']",
            "event.target.?[type eq 'User'].size()",
            "event.target eq 'x'",
            "event.client.ipAddress eq '1'",
            "event.outcome.result eq",
            "event.outcome.result eq SUCCESS",
            "event.outcome.result eq 'SUCCESS",
            "event.outcome.result eq 'a' event.actor.id eq 'b'",
            "(event.outcome.result eq 'a'",
            "type eq 'User'",
            "event.outcome.result eq 'a' &&",
            "event.outcome.result; drop",
            &"(".repeat(40),
        ] {
            assert!(compile(source).is_err(), "{source}");
        }
        let error = compile("event.outcome.result eq SUCCESS").unwrap_err();
        assert_eq!(error.at, 25, "{error}");
    }

    #[test]
    fn conditions_of_several_types() {
        let conditions = [
            ("user.session.start".to_owned(), compile("event.outcome.result eq 'FAILURE'").unwrap()),
            ("user.lifecycle.create".to_owned(), compile("event.actor.id eq '00u1'").unwrap()),
        ];
        let cel = join(&conditions);
        for (event_type, expected) in
            [("user.session.start", false), ("user.lifecycle.create", true), ("group.lifecycle.create", true)]
        {
            assert_eq!(passes(&cel, event_type, &sample()), expected, "{event_type}");
        }
    }
}
