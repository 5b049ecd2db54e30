//! Whether a value fits, with counted work.
//!
//! What a schema that is asked about from several places said of a value is kept, so that no schema is asked
//! about one value more than once: without that, a few references would multiply by every level of the data.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::rc::Rc;

use regex_automata::meta::Cache;

use super::Schema;
use super::doc::{At, Doc, Member, Node};
use super::number::Num;
use super::rules::{Bound, Count, Id, Members, Rule};
use super::work::{TooCostly, Work};

/// How deep schemas and values may go together: bounds the stack.
const DEPTH_MAX: u32 = 320;
/// Asking a schema, asking one rule of it, and looking a name up.
const ASK: u64 = 60;
const RULE: u64 = 20;
const NAME: u64 = 60;
/// Reading a byte of a number.
const NUMBER: u64 = 8;
/// Keeping what was said.
const KEEP: u64 = 250;
/// Comparing and hashing a value.
const SAME: u64 = 60;

pub(super) type Checked<T> = Result<T, TooCostly>;

/// Which items or members of one value some schema was asked about.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    bits: Vec<u64>,
    all: bool,
}

impl Marks {
    fn set(&mut self, place: usize) {
        if self.bits.len() <= place / 64 {
            self.bits.resize(place / 64 + 1, 0);
        }
        self.bits[place / 64] |= 1 << (place % 64);
    }

    pub(super) fn has(&self, place: usize) -> bool {
        self.all || self.bits.get(place / 64).is_some_and(|bits| bits & (1 << (place % 64)) != 0)
    }

    fn join(&mut self, other: &Marks) {
        self.all |= other.all;
        if self.bits.len() < other.bits.len() {
            self.bits.resize(other.bits.len(), 0);
        }
        self.bits.iter_mut().zip(&other.bits).for_each(|(own, other)| *own |= other);
    }
}

/// What a schema said of a value: whether it fits, and, where that was asked, what it was about.
type Said = (bool, Option<Rc<Marks>>);

/// One validation.
pub(super) struct Check<'a> {
    pub(super) schema: &'a Schema,
    pub(super) doc: &'a Doc<'a>,
    pub(super) work: &'a mut Work,
    caches: Vec<Option<Cache>>,
    kept: HashMap<(Id, At, bool), Said>,
    hasher: RandomState,
    pub(super) depth: u32,
}

impl<'a> Check<'a> {
    pub(super) fn new(schema: &'a Schema, doc: &'a Doc<'a>, work: &'a mut Work) -> Self {
        Check { schema, doc, work, caches: Vec::new(), kept: HashMap::new(), hasher: RandomState::new(), depth: 0 }
    }

    /// Whether a value fits a schema.
    pub(super) fn fits(&mut self, id: Id, at: At) -> Checked<bool> {
        self.ask(id, at, None)
    }

    /// The same; with `marks`, notes what the schema was about if the value fits.
    pub(super) fn ask(&mut self, id: Id, at: At, marks: Option<&mut Marks>) -> Checked<bool> {
        self.work.spend(ASK)?;
        let compiled = &self.schema.schemas[id as usize];
        if compiled.never {
            return Ok(false);
        }
        let key = (id, at, marks.is_some());
        let keeps = compiled.shared && !compiled.rules.is_empty();
        if let Some((fits, said)) = self.kept.get(&key).filter(|_| keeps) {
            if let (Some(marks), Some(said)) = (marks, said) {
                self.work.spend_on(said.bits.len(), RULE)?;
                marks.join(said);
            }
            return Ok(*fits);
        }
        if self.depth >= DEPTH_MAX {
            return Err(TooCostly);
        }
        self.depth += 1;
        let mut own = marks.is_some().then(Marks::default);
        let fits = self.rules(id, at, own.as_mut())?;
        self.depth -= 1;
        let own = own.filter(|_| fits);
        if let (Some(marks), Some(own)) = (marks, &own) {
            self.work.spend_on(own.bits.len(), RULE)?;
            marks.join(own);
        }
        if keeps {
            self.work.spend(KEEP)?;
            self.work.spend_on(own.as_ref().map_or(0, |own| own.bits.len()), RULE)?;
            self.kept.insert(key, (fits, own.map(Rc::new)));
        }
        Ok(fits)
    }

    /// Whether a value fits all rules of a schema; ends at the first that it does not fit.
    fn rules(&mut self, id: Id, at: At, marks: Option<&mut Marks>) -> Checked<bool> {
        let rules = &self.schema.schemas[id as usize].rules;
        let mut inner;
        let mut marks = match marks {
            Some(marks) => Some(marks),
            // The last rules are about what the others left.
            None if leaves(rules) => {
                inner = Marks::default();
                Some(&mut inner)
            }
            None => None,
        };
        for rule in rules {
            self.work.spend(RULE)?;
            if !self.rule(rule, at, marks.as_deref_mut())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One rule.
    pub(super) fn rule(&mut self, rule: &Rule, at: At, marks: Option<&mut Marks>) -> Checked<bool> {
        match rule {
            Rule::Kinds(_)
            | Rule::OneOfValues(_)
            | Rule::Limit(..)
            | Rule::MultipleOf(_)
            | Rule::AtLeast(..)
            | Rule::AtMost(..)
            | Rule::Pattern(_)
            | Rule::Unique
            | Rule::Required(_)
            | Rule::Dependent(_) => self.plain(rule, at),
            Rule::Ref(_)
            | Rule::All(_)
            | Rule::Any(_)
            | Rule::ExactlyOne(_)
            | Rule::Not(_)
            | Rule::If { .. }
            | Rule::DependentSchemas(_) => self.in_place(rule, at, marks),
            Rule::Items { first, rest } => self.items(first, *rest, at, marks),
            Rule::Contains { item, least, most, marks: marked } => {
                self.contains(*item, (*least, *most), at, marks.filter(|_| *marked))
            }
            Rule::Members(members) => self.members(members, at, marks),
            Rule::Names(id) => self.names(*id, at),
            Rule::UnevaluatedItems(id) | Rule::UnevaluatedMembers(id) => self.left(rule, *id, at, marks),
        }
    }

    /// A rule about the value by itself.
    fn plain(&mut self, rule: &Rule, at: At) -> Checked<bool> {
        let node = self.doc.node(at);
        Ok(match (rule, node) {
            (Rule::Kinds(kinds), _) => {
                if let Node::Number(text) = node {
                    self.work.spend_on(text.len(), NUMBER)?;
                }
                kinds.take(node)
            }
            (Rule::OneOfValues(values), _) => {
                for value in values {
                    if value.is(self.doc, at, self.work)? {
                        return Ok(true);
                    }
                }
                false
            }
            (Rule::Limit(bound, limit), Node::Number(text)) => {
                self.work.spend_on(text.len(), NUMBER)?;
                let order = Num::parse(text).compare(*limit);
                match bound {
                    Bound::Least => order.is_ge(),
                    Bound::Above => order.is_gt(),
                    Bound::Most => order.is_le(),
                    Bound::Below => order.is_lt(),
                }
            }
            (Rule::MultipleOf(step), Node::Number(text)) => {
                self.work.spend_on(text.len(), NUMBER)?;
                self.work.spend(2_000)?;
                Num::parse(text).is_multiple_of(*step)
            }
            (Rule::AtLeast(what, least), _) => self.count(*what, at)?.is_none_or(|count| count >= *least),
            (Rule::AtMost(what, most), _) => self.count(*what, at)?.is_none_or(|count| count <= *most),
            (Rule::Pattern(pattern), Node::Text(text)) => self.matches(*pattern, text)?,
            (Rule::Unique, Node::Array(items)) => {
                let items = self.doc.items(*items);
                self.are_unique(items)?
            }
            (Rule::Required(names), Node::Object(_)) => self.lacking(names, at)?.is_none(),
            (Rule::Dependent(all), Node::Object(members)) => {
                for (name, needed) in all {
                    self.work.spend(NAME)?;
                    if self.doc.find(*members, name).is_some() && self.lacking(needed, at)?.is_some() {
                        return Ok(false);
                    }
                }
                true
            }
            _ => true,
        })
    }

    /// The first of these names the object does not have.
    pub(super) fn lacking<'n>(&mut self, names: &'n [Box<str>], at: At) -> Checked<Option<&'n str>> {
        let Node::Object(members) = self.doc.node(at) else { return Ok(None) };
        for name in names {
            self.work.spend(NAME + name.len() as u64 / 8)?;
            if self.doc.find(*members, name).is_none() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn count(&mut self, what: Count, at: At) -> Checked<Option<u64>> {
        Ok(match (what, self.doc.node(at)) {
            (Count::Chars, Node::Text(text)) => {
                self.work.spend_on(text.len(), 1)?;
                Some(text.chars().count() as u64)
            }
            (Count::Items, Node::Array(span)) | (Count::Members, Node::Object(span)) => Some(span.len() as u64),
            _ => None,
        })
    }

    pub(super) fn matches(&mut self, pattern: usize, text: &str) -> Checked<bool> {
        if self.caches.len() <= pattern {
            self.caches.resize_with(self.schema.patterns.len(), || None);
        }
        self.schema.patterns[pattern].is_in(text, &mut self.caches[pattern], self.work)
    }

    fn are_unique(&mut self, items: &[At]) -> Checked<bool> {
        let mut seen: HashMap<u64, Vec<At>> = HashMap::new();
        for at in items {
            let hash = self.hash(*at)?;
            self.work.spend(KEEP)?;
            let alike = seen.entry(hash).or_default();
            for other in alike.iter() {
                if self.doc.same(*at, self.doc, *other, self.work)? {
                    return Ok(false);
                }
            }
            alike.push(*at);
        }
        Ok(true)
    }

    /// The same for values that are the same.
    fn hash(&mut self, at: At) -> Checked<u64> {
        self.work.spend(SAME)?;
        let mut hasher = self.hasher.build_hasher();
        match self.doc.node(at) {
            Node::Null => 0u8.hash(&mut hasher),
            Node::Bool(value) => (1u8, value).hash(&mut hasher),
            Node::Number(text) => {
                self.work.spend_on(text.len(), NUMBER)?;
                match Num::parse(text) {
                    Num::Exact { digits, exponent } => (2u8, digits, exponent).hash(&mut hasher),
                    Num::Rough(_) => 3u8.hash(&mut hasher),
                }
            }
            Node::Text(text) => {
                self.work.spend_on(text.len(), 2)?;
                (4u8, text).hash(&mut hasher);
            }
            Node::Array(items) => {
                5u8.hash(&mut hasher);
                for item in self.doc.items(*items) {
                    self.hash(*item)?.hash(&mut hasher);
                }
            }
            Node::Object(members) => {
                6u8.hash(&mut hasher);
                for member in self.doc.members(*members) {
                    self.work.spend_on(member.name.len(), 2)?;
                    (&member.name, self.hash(member.value)?).hash(&mut hasher);
                }
            }
        }
        Ok(hasher.finish())
    }

    /// A rule that asks other schemas about the same value.
    fn in_place(&mut self, rule: &Rule, at: At, mut marks: Option<&mut Marks>) -> Checked<bool> {
        match rule {
            Rule::Ref(id) => self.ask(*id, at, marks),
            Rule::All(ids) => {
                for id in ids {
                    if !self.ask(*id, at, marks.as_deref_mut())? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Rule::Any(ids) => {
                let mut any = false;
                for id in ids {
                    any |= self.ask(*id, at, marks.as_deref_mut())?;
                    // What the others are about counts too.
                    if any && marks.is_none() {
                        break;
                    }
                }
                Ok(any)
            }
            Rule::ExactlyOne(ids) => {
                let mut fitting = 0;
                for id in ids {
                    fitting += u32::from(self.ask(*id, at, marks.as_deref_mut())?);
                    if fitting > 1 {
                        break;
                    }
                }
                Ok(fitting == 1)
            }
            Rule::Not(id) => Ok(!self.fits(*id, at)?),
            Rule::If { condition, then, otherwise } => {
                let next = if self.ask(*condition, at, marks.as_deref_mut())? { then } else { otherwise };
                next.map_or(Ok(true), |id| self.ask(id, at, marks))
            }
            Rule::DependentSchemas(schemas) => {
                let Node::Object(members) = self.doc.node(at) else { return Ok(true) };
                for (name, id) in schemas {
                    self.work.spend(NAME)?;
                    if self.doc.find(*members, name).is_some() && !self.ask(*id, at, marks.as_deref_mut())? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    fn items(&mut self, first: &[Id], rest: Option<Id>, at: At, marks: Option<&mut Marks>) -> Checked<bool> {
        let Node::Array(items) = self.doc.node(at) else { return Ok(true) };
        let items = self.doc.items(*items);
        for (place, item) in items.iter().enumerate() {
            let Some(id) = first.get(place).copied().or(rest) else { break };
            if !self.fits(id, *item)? {
                return Ok(false);
            }
        }
        if let Some(marks) = marks {
            (0..first.len().min(items.len())).for_each(|place| marks.set(place));
            marks.all |= rest.is_some();
        }
        Ok(true)
    }

    fn contains(
        &mut self,
        id: Id,
        (least, most): (u64, Option<u64>),
        at: At,
        mut marks: Option<&mut Marks>,
    ) -> Checked<bool> {
        let Node::Array(items) = self.doc.node(at) else { return Ok(true) };
        let mut found = 0u64;
        for (place, item) in self.doc.items(*items).iter().enumerate() {
            if self.fits(id, *item)? {
                found += 1;
                if let Some(marks) = marks.as_deref_mut() {
                    self.work.spend(RULE)?;
                    marks.set(place);
                } else if most.is_none() && found >= least {
                    break;
                }
            }
        }
        Ok(found >= least && most.is_none_or(|most| found <= most))
    }

    /// Which schemas a member is asked of: by its name, by patterns, else what is for the rest.
    pub(super) fn asked_of(&mut self, rules: &Members, member: &Member<'_>) -> Checked<Vec<Id>> {
        self.work.spend(NAME + member.name.len() as u64)?;
        let mut ids: Vec<Id> = rules.named.get(member.name.as_ref()).copied().into_iter().collect();
        for (pattern, id) in &rules.patterns {
            if self.matches(*pattern, &member.name)? {
                ids.push(*id);
            }
        }
        if ids.is_empty() {
            ids.extend(rules.rest);
        }
        Ok(ids)
    }

    fn members(&mut self, rules: &Members, at: At, mut marks: Option<&mut Marks>) -> Checked<bool> {
        let Node::Object(members) = self.doc.node(at) else { return Ok(true) };
        let doc = self.doc;
        for (place, member) in doc.members(*members).iter().enumerate() {
            let ids = self.asked_of(rules, member)?;
            for id in &ids {
                if !self.fits(*id, member.value)? {
                    return Ok(false);
                }
            }
            if let Some(marks) = marks.as_deref_mut().filter(|_| !ids.is_empty()) {
                self.work.spend(RULE)?;
                marks.set(place);
            }
        }
        Ok(true)
    }

    fn names(&mut self, id: Id, at: At) -> Checked<bool> {
        let Node::Object(members) = self.doc.node(at) else { return Ok(true) };
        let doc = self.doc;
        for member in doc.members(*members) {
            if !self.name_fits(id, &member.name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a name, as a text, fits a schema.
    pub(super) fn name_fits(&mut self, id: Id, name: &str) -> Checked<bool> {
        self.work.spend_on(name.len() + 100, 8)?;
        let doc = Doc::of_text(name);
        let mut inner = Check::new(self.schema, &doc, self.work);
        inner.depth = self.depth;
        inner.fits(id, doc.root())
    }

    /// A rule about what all others left.
    fn left(&mut self, rule: &Rule, id: Id, at: At, marks: Option<&mut Marks>) -> Checked<bool> {
        let Some(marks) = marks else { return Ok(true) };
        let doc = self.doc;
        match (rule, doc.node(at)) {
            (Rule::UnevaluatedItems(_), Node::Array(items)) => {
                for (place, item) in doc.items(*items).iter().enumerate() {
                    self.work.spend(RULE)?;
                    if !marks.has(place) && !self.fits(id, *item)? {
                        return Ok(false);
                    }
                }
            }
            (Rule::UnevaluatedMembers(_), Node::Object(members)) => {
                for (place, member) in doc.members(*members).iter().enumerate() {
                    self.work.spend(RULE)?;
                    if !marks.has(place) && !self.fits(id, member.value)? {
                        return Ok(false);
                    }
                }
            }
            _ => return Ok(true),
        }
        marks.all = true;
        Ok(true)
    }
}

/// Whether a schema has rules about what its other rules left.
pub(super) fn leaves(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| matches!(rule, Rule::UnevaluatedItems(_) | Rule::UnevaluatedMembers(_)))
}
