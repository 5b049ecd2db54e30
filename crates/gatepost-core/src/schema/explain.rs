//! What about a value does not fit: told after it is known that something does not.

use std::collections::HashSet;

use super::check::{Check, Checked, Marks, leaves};
use super::compile::escaped;
use super::doc::{At, Node};
use super::rules::{Bound, Count, Id, Rule};
use super::{REPORTED, Violation};

/// Collects what does not fit.
pub(super) struct Explain<'a, 'c> {
    check: &'c mut Check<'a>,
    /// What was explained already.
    done: HashSet<(Id, At)>,
    pub(super) found: Vec<Violation>,
}

impl<'a, 'c> Explain<'a, 'c> {
    pub(super) fn new(check: &'c mut Check<'a>) -> Self {
        Explain { check, done: HashSet::new(), found: Vec::new() }
    }

    /// Everything that does not fit, up to [`REPORTED`]. What was found stays when it costs too much.
    pub(super) fn schema(&mut self, id: Id, at: At, place: &str) -> Checked<()> {
        let compiled = &self.check.schema.schemas[id as usize];
        if compiled.never {
            self.say(place, "is not allowed here");
            return Ok(());
        }
        self.check.work.spend(100)?;
        if self.found.len() >= REPORTED || self.check.depth >= 200 || !self.done.insert((id, at)) {
            return Ok(());
        }
        self.check.depth += 1;
        // What the last rules are about.
        let mut marks = leaves(&compiled.rules).then(Marks::default);
        for rule in &compiled.rules {
            if self.found.len() >= REPORTED {
                break;
            }
            if let (Some(marks), Rule::UnevaluatedItems(id) | Rule::UnevaluatedMembers(id)) = (&marks, rule) {
                self.left(rule, *id, marks, at, place)?;
            } else if !self.check.rule(rule, at, marks.as_mut())? {
                self.rule(rule, at, place)?;
            }
        }
        self.check.depth -= 1;
        Ok(())
    }

    fn say(&mut self, place: &str, what: impl std::fmt::Display) {
        if self.found.len() < REPORTED {
            let message = format!("breaks the schema of the event type: {what}");
            self.found.push(Violation { pointer: place.to_owned(), message });
        }
    }

    /// A rule that is known to be broken.
    fn rule(&mut self, rule: &Rule, at: At, place: &str) -> Checked<()> {
        let doc = self.check.doc;
        match rule {
            Rule::Ref(id) => self.schema(*id, at, place)?,
            Rule::All(ids) => ids.iter().try_for_each(|id| self.schema(*id, at, place))?,
            Rule::If { condition, then, otherwise } => {
                let next = if self.check.fits(*condition, at)? { then } else { otherwise };
                next.iter().try_for_each(|id| self.schema(*id, at, place))?;
            }
            Rule::DependentSchemas(schemas) => {
                let Node::Object(members) = doc.node(at) else { return Ok(()) };
                for (name, id) in schemas {
                    if doc.find(*members, name).is_some() {
                        self.schema(*id, at, place)?;
                    }
                }
            }
            Rule::Items { first, rest } => {
                let Node::Array(items) = doc.node(at) else { return Ok(()) };
                for (i, item) in doc.items(*items).iter().enumerate() {
                    let Some(id) = first.get(i).copied().or(*rest) else { break };
                    if !self.check.fits(id, *item)? {
                        self.schema(id, *item, &format!("{place}/{i}"))?;
                    }
                }
            }
            Rule::Members(rules) => {
                let Node::Object(members) = doc.node(at) else { return Ok(()) };
                for member in doc.members(*members) {
                    for id in self.check.asked_of(rules, member)? {
                        if !self.check.fits(id, member.value)? {
                            self.schema(id, member.value, &format!("{place}/{}", escaped(&member.name)))?;
                        }
                    }
                }
            }
            Rule::Required(names) => {
                for name in names {
                    if self.check.lacking(std::slice::from_ref(name), at)?.is_some() {
                        self.say(place, format_args!("the member {name:?} is required"));
                    }
                }
            }
            Rule::Names(_) => self.say(place, "a member's name is not one that may be here"),
            other => self.say(place, words(other)),
        }
        Ok(())
    }

    fn left(&mut self, rule: &Rule, id: Id, marks: &Marks, at: At, place: &str) -> Checked<()> {
        let doc = self.check.doc;
        match (rule, doc.node(at)) {
            (Rule::UnevaluatedItems(_), Node::Array(items)) => {
                for (i, item) in doc.items(*items).iter().enumerate() {
                    if !marks.has(i) && !self.check.fits(id, *item)? {
                        self.schema(id, *item, &format!("{place}/{i}"))?;
                    }
                }
            }
            (Rule::UnevaluatedMembers(_), Node::Object(members)) => {
                for (i, member) in doc.members(*members).iter().enumerate() {
                    if !marks.has(i) && !self.check.fits(id, member.value)? {
                        self.schema(id, member.value, &format!("{place}/{}", escaped(&member.name)))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a rule asks for, without the value that breaks it.
fn words(rule: &Rule) -> String {
    let many = |count: &Count| match count {
        Count::Chars => "characters",
        Count::Items => "items",
        Count::Members => "members",
    };
    match rule {
        Rule::Kinds(kinds) => format!("must be of type {}", kinds.words()),
        Rule::OneOfValues(values) if values.len() == 1 => "must be the one value the schema names".to_owned(),
        Rule::OneOfValues(_) => "must be one of the values the schema lists".to_owned(),
        Rule::Limit(bound, limit) => {
            let word = match bound {
                Bound::Least => "at least",
                Bound::Above => "more than",
                Bound::Most => "at most",
                Bound::Below => "less than",
            };
            format!("must be {word} {limit}")
        }
        Rule::MultipleOf(step) => format!("must be a multiple of {step}"),
        Rule::AtLeast(count, least) => format!("must have at least {least} {}", many(count)),
        Rule::AtMost(count, most) => format!("must have at most {most} {}", many(count)),
        Rule::Pattern(_) => "must match the pattern of the schema".to_owned(),
        Rule::Unique => "must not have the same item twice".to_owned(),
        Rule::Dependent(_) => "lacks a member that another one of it needs".to_owned(),
        Rule::Any(_) => "must fit at least one of the schemas under anyOf".to_owned(),
        Rule::ExactlyOne(_) => "must fit exactly one of the schemas under oneOf".to_owned(),
        Rule::Not(_) => "must not fit the schema under not".to_owned(),
        Rule::Contains { least, most: None, .. } => format!("must contain at least {least} item(s) that fit contains"),
        Rule::Contains { least, most: Some(most), .. } => {
            format!("must contain {least} to {most} items that fit contains")
        }
        _ => "does not fit".to_owned(),
    }
}
