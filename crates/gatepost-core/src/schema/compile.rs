//! From the text of a schema to its rules, within bounds: whatever passes here takes bounded time and memory
//! to have, and is ended by [`super::work`] when it takes too long to use.

use std::collections::HashMap;

use super::doc::{At, Doc, Node, Span, Unread};
use super::number::Num;
use super::pattern::Pattern;
use super::rules::{Bound, Compiled, Count, Id, Kinds, Literal, Members, Named, Rule};
use super::work::Work;

/// Bytes of a schema's text.
pub(super) const TEXT_MAX: usize = 64 << 10;
/// How deep it may be nested.
const DEPTH_MAX: usize = 64;
/// Schemas in it, itself included.
const SCHEMAS_MAX: usize = 4_000;
/// References in it.
const REFERENCES_MAX: usize = 1_000;
/// Patterns in it, and their bytes once compiled.
const PATTERNS_MAX: usize = 200;
const PATTERN_BYTES_MAX: usize = 512 << 10;
/// Ways by which one value can come to be asked about by the schemas of one place.
const PATHS_MAX: u64 = 10_000;
/// The longest of these ways.
const CHAIN_MAX: u32 = 64;

/// A draft of JSON Schema, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Draft {
    D4,
    D6,
    D7,
    D2019,
    D2020,
}

/// What came of compiling.
#[derive(Debug, Default)]
pub(super) struct Compiler<'d> {
    doc: Doc<'d>,
    pub(super) schemas: Vec<Compiled>,
    pub(super) patterns: Vec<Pattern>,
    pattern_bytes: usize,
    /// Whether patterns are compiled, and not only counted.
    with_patterns: bool,
    known: HashMap<At, Id>,
    /// Schemas seen and not yet read, with their places.
    ahead: Vec<(At, Id, String)>,
    anchors: HashMap<String, Id>,
    /// References to anchors: where from, which rule, to what, and the place.
    unresolved: Vec<(Id, usize, String, String)>,
    references: usize,
    own_id: Option<String>,
    draft: Option<Draft>,
}

type Read<T> = Result<T, String>;

/// Compiles a text; its root is schema 0.
pub(super) fn compile(text: &str, with_patterns: bool) -> Read<Compiler<'_>> {
    if text.len() > TEXT_MAX {
        return Err(format!("is {} bytes long; at most {TEXT_MAX} are taken", text.len()));
    }
    let doc = Doc::read(text.as_bytes(), &mut Work::of(u64::MAX)).map_err(|error| match error {
        Unread::Bad(why) => why.to_owned(),
        Unread::TooCostly => "is too large".to_owned(),
    })?;
    let mut compiler = Compiler { doc, with_patterns, ..Compiler::default() };
    compiler.run()?;
    compiler.judge_shape()?;
    Ok(compiler)
}

fn wrong(place: &str, message: &str) -> String {
    format!("is not a JSON Schema that can be enforced: {message} (at {place:?})")
}

impl<'d> Compiler<'d> {
    fn run(&mut self) -> Read<()> {
        let root = self.doc.root();
        self.draft = Some(self.draft_of(root)?);
        self.schema(root, "")?;
        loop {
            while let Some((at, id, place)) = self.ahead.pop() {
                self.read(at, id, &place)?;
            }
            // What an anchor names may lie where nothing else leads to.
            let Some((from, rule, anchor, place)) = self.unresolved.pop() else { return Ok(()) };
            let Some(id) = self.anchors.get(&anchor) else {
                return Err(wrong(&place, &format!("nothing in the schema has the anchor {anchor:?}")));
            };
            self.schemas[from as usize].rules[rule] = Rule::Ref(*id);
        }
    }

    fn draft_of(&self, root: At) -> Read<Draft> {
        let Node::Object(members) = self.doc.node(root) else { return Ok(Draft::D2020) };
        let Some(named) = self.doc.member(*members, "$schema") else { return Ok(Draft::D2020) };
        let Node::Text(named) = self.doc.node(named) else { return Err(wrong("/$schema", "must be a text")) };
        let known = [
            ("draft-04/schema", Draft::D4),
            ("draft-06/schema", Draft::D6),
            ("draft-07/schema", Draft::D7),
            ("draft/2019-09/schema", Draft::D2019),
            ("draft/2020-12/schema", Draft::D2020),
        ];
        let name = named.trim_end_matches('#');
        let found = known.iter().find(|(end, _)| name.ends_with(end) && name.contains("json-schema.org/"));
        found.map(|(_, draft)| *draft).ok_or_else(|| {
            wrong(
                "/$schema",
                "must be https://json-schema.org/draft/2020-12/schema or that of draft 4, 6, 7 or 2019-09",
            )
        })
    }

    fn is_at_least(&self, draft: Draft) -> bool {
        self.draft.is_none_or(|own| own >= draft)
    }

    /// The schema at a place of the text; read later.
    fn schema(&mut self, at: At, place: &str) -> Read<Id> {
        if let Some(id) = self.known.get(&at) {
            self.schemas[*id as usize].shared = true;
            return Ok(*id);
        }
        if self.schemas.len() >= SCHEMAS_MAX {
            return Err(format!("has more than {SCHEMAS_MAX} schemas in it"));
        }
        if place.split('/').count() > DEPTH_MAX {
            return Err(format!("is nested more than {DEPTH_MAX} levels deep"));
        }
        // Bounded by the line above.
        let id = self.schemas.len() as Id;
        self.schemas.push(Compiled::default());
        self.known.insert(at, id);
        self.ahead.push((at, id, place.to_owned()));
        Ok(id)
    }

    fn read(&mut self, at: At, id: Id, place: &str) -> Read<()> {
        let members = match self.doc.node(at) {
            Node::Bool(fits) => {
                self.schemas[id as usize].never = !fits;
                return Ok(());
            }
            Node::Object(members) => *members,
            _ => return Err(wrong(place, "must be an object or a boolean")),
        };
        let mut keywords = Keywords { members, id, place, rules: Vec::new() };
        let alone = !self.is_at_least(Draft::D2019) && self.doc.member(members, "$ref").is_some();
        if !alone {
            self.identity(&keywords)?;
        }
        self.reference(&mut keywords)?;
        if !alone {
            self.values(&mut keywords)?;
            self.applied(&mut keywords)?;
            self.arrays(&mut keywords)?;
            self.objects(&mut keywords)?;
            self.unevaluated(&mut keywords)?;
        }
        for name in ["$defs", "definitions"] {
            self.map(&keywords, name)?;
        }
        self.schemas[id as usize].rules.extend(keywords.rules);
        Ok(())
    }

    /// What gives a schema a name.
    fn identity(&mut self, k: &Keywords<'_>) -> Read<()> {
        for name in ["$anchor", "$dynamicAnchor"] {
            if let Some(anchor) = self.text(k, name)? {
                self.anchors.insert(anchor, k.id);
            }
        }
        let name = if self.is_at_least(Draft::D6) { "$id" } else { "id" };
        match self.text(k, name)? {
            Some(id) if id.starts_with('#') && !self.is_at_least(Draft::D2019) => {
                self.anchors.insert(id[1..].to_owned(), k.id);
            }
            Some(id) if k.place.is_empty() => self.own_id = Some(id.trim_end_matches('#').to_owned()),
            Some(_) => {
                let message = format!(
                    "a schema within the schema has an {name} of its own: leave it out, and refer to it by its place, \
                     such as #/$defs/name"
                );
                return Err(wrong(k.place, &message));
            }
            None => {}
        }
        Ok(())
    }

    /// `$ref` and its like: each leads to a place of the same text.
    fn reference(&mut self, k: &mut Keywords<'_>) -> Read<()> {
        // With one schema resource, the dynamic ones lead where the plain one does.
        for name in ["$ref", "$dynamicRef", "$recursiveRef"] {
            let Some(target) = self.text(k, name)? else { continue };
            self.references += 1;
            if self.references > REFERENCES_MAX {
                return Err(format!("has more than {REFERENCES_MAX} references"));
            }
            let target = match &self.own_id {
                Some(own) if !own.is_empty() => target.strip_prefix(own.as_str()).unwrap_or(&target).to_owned(),
                _ => target,
            };
            let fragment = match target.strip_prefix('#') {
                Some(fragment) => percent_decoded(fragment),
                None if target.is_empty() => Some(String::new()),
                None => return Err(wrong(&k.at(name), "nothing is fetched: refer to #/$defs/… in the schema itself")),
            };
            let fragment = fragment.ok_or_else(|| wrong(&k.at(name), "is no reference"))?;
            if !fragment.is_empty() && !fragment.starts_with('/') {
                self.unresolved.push((k.id, k.rules.len(), fragment, k.at(name)));
                k.rules.push(Rule::Ref(0));
                continue;
            }
            let Some(at) = self.doc.at_pointer(&fragment) else {
                return Err(wrong(&k.at(name), &format!("there is nothing at {fragment:?}")));
            };
            let id = self.schema(at, &fragment)?;
            k.rules.push(Rule::Ref(id));
        }
        Ok(())
    }

    /// What is asked of single values.
    fn values(&mut self, k: &mut Keywords<'_>) -> Read<()> {
        if let Some(at) = self.member(k, "type") {
            let names = match self.doc.node(at) {
                Node::Text(name) => vec![name.to_string()],
                Node::Array(items) => self.texts_of(*items).ok_or_else(|| wrong(&k.at("type"), TYPE))?,
                _ => return Err(wrong(&k.at("type"), TYPE)),
            };
            let kinds = names.iter().map(|name| Kinds::named(name));
            let kinds = kinds.reduce(|a, b| Some(a?.and(b?))).flatten();
            k.rules.push(Rule::Kinds(kinds.ok_or_else(|| wrong(&k.at("type"), TYPE))?));
        }
        if let Some(at) = self.member(k, "enum") {
            let Node::Array(items) = self.doc.node(at) else {
                return Err(wrong(&k.at("enum"), "must be an array of values"));
            };
            let values = self.doc.items(*items).iter().map(|at| Literal::of(&self.doc, *at)).collect();
            k.rules.push(Rule::OneOfValues(values));
        }
        if let Some(at) = self.member(k, "const").filter(|_| self.is_at_least(Draft::D6)) {
            k.rules.push(Rule::OneOfValues([Literal::of(&self.doc, at)].into()));
        }
        self.limits(k)?;
        if let Some(pattern) = self.text(k, "pattern")? {
            let pattern = self.pattern(&pattern, &k.at("pattern"))?;
            k.rules.push(Rule::Pattern(pattern));
        }
        Ok(())
    }

    fn limits(&mut self, k: &mut Keywords<'_>) -> Read<()> {
        let bounds = [
            ("minimum", "exclusiveMinimum", Bound::Least, Bound::Above),
            ("maximum", "exclusiveMaximum", Bound::Most, Bound::Below),
        ];
        for (name, excluding, bound, beyond) in bounds {
            // Draft 4 says with a boolean that the bound itself is outside.
            let excluded = match self.member(k, excluding).map(|at| self.doc.node(at)) {
                Some(Node::Bool(excluded)) if !self.is_at_least(Draft::D6) => *excluded,
                Some(_) => {
                    let number = self.number(k, excluding)?;
                    k.rules.extend(number.map(|number| Rule::Limit(beyond, number)));
                    false
                }
                None => false,
            };
            let number = self.number(k, name)?;
            k.rules.extend(number.map(|number| Rule::Limit(if excluded { beyond } else { bound }, number)));
        }
        if let Some(step) = self.number(k, "multipleOf")? {
            if step.compare(Num::parse("0")) != std::cmp::Ordering::Greater {
                return Err(wrong(&k.at("multipleOf"), "must be above zero"));
            }
            k.rules.push(Rule::MultipleOf(step));
        }
        let counts = [
            ("minLength", "maxLength", Count::Chars),
            ("minItems", "maxItems", Count::Items),
            ("minProperties", "maxProperties", Count::Members),
        ];
        for (least, most, what) in counts {
            let (least, most) = (self.count(k, least)?, self.count(k, most)?);
            k.rules.extend(least.map(|least| Rule::AtLeast(what, least)));
            k.rules.extend(most.map(|most| Rule::AtMost(what, most)));
        }
        Ok(())
    }

    /// What is asked of the same value by other schemas.
    fn applied(&mut self, k: &mut Keywords<'_>) -> Read<()> {
        type OfMany = fn(Box<[Id]>) -> Rule;
        let lists: [(&str, OfMany); 3] = [("allOf", Rule::All), ("anyOf", Rule::Any), ("oneOf", Rule::ExactlyOne)];
        for (name, rule) in lists {
            if let Some(ids) = self.list(k, name)? {
                if ids.is_empty() {
                    return Err(wrong(&k.at(name), "must have at least one schema"));
                }
                k.rules.push(rule(ids));
            }
        }
        let not = self.one(k, "not")?;
        k.rules.extend(not.map(Rule::Not));
        if self.is_at_least(Draft::D7) {
            let (condition, then, otherwise) = (self.one(k, "if")?, self.one(k, "then")?, self.one(k, "else")?);
            k.rules.extend(condition.map(|condition| Rule::If { condition, then, otherwise }));
        }
        if let Some(schemas) = self.map(k, "dependentSchemas")?.filter(|_| self.is_at_least(Draft::D2019)) {
            k.rules.push(Rule::DependentSchemas(schemas.into()));
        }
        self.dependent(k, "dependentRequired", Draft::D2019)?;
        self.dependent(k, "dependencies", Draft::D4)
    }

    /// Members that need others: by name, and in older drafts by schema too.
    fn dependent(&mut self, k: &mut Keywords<'_>, name: &str, since: Draft) -> Read<()> {
        let Some(at) = self.member(k, name).filter(|_| self.is_at_least(since)) else { return Ok(()) };
        let Node::Object(entries) = self.doc.node(at) else {
            return Err(wrong(&k.at(name), "must be an object"));
        };
        let entries: Vec<_> = self.doc.members(*entries).iter().map(|m| (Box::from(&*m.name), m.value)).collect();
        let (mut needed, mut schemas) = (Vec::new(), Vec::new());
        for (member, value) in entries {
            let place = format!("{}/{}", k.at(name), escaped(&member));
            match self.doc.node(value) {
                Node::Array(items) => {
                    let names = self.texts_of(*items).ok_or_else(|| wrong(&place, "must be a list of names"))?;
                    needed.push((member, names.into_iter().map(Into::into).collect()));
                }
                _ if name == "dependencies" => schemas.push((member, self.schema(value, &place)?)),
                _ => return Err(wrong(&place, "must be a list of names")),
            }
        }
        k.rules.push(Rule::Dependent(needed.into()));
        k.rules.push(Rule::DependentSchemas(schemas.into()));
        Ok(())
    }

    fn arrays(&mut self, k: &mut Keywords<'_>) -> Read<()> {
        let listed = matches!(self.member(k, "items").map(|at| self.doc.node(at)), Some(Node::Array(_)));
        let (first, rest) = if self.is_at_least(Draft::D2020) {
            if listed {
                return Err(wrong(&k.at("items"), "must be a schema; a list of schemas is prefixItems since 2020-12"));
            }
            (self.list(k, "prefixItems")?, self.one(k, "items")?)
        } else if listed {
            (self.list(k, "items")?, self.one(k, "additionalItems")?)
        } else {
            (None, self.one(k, "items")?)
        };
        if first.is_some() || rest.is_some() {
            k.rules.push(Rule::Items { first: first.unwrap_or_default(), rest });
        }
        if let Some(item) = self.one(k, "contains")?.filter(|_| self.is_at_least(Draft::D6)) {
            let counted = self.is_at_least(Draft::D2019);
            let (least, most) = (self.count(k, "minContains")?, self.count(k, "maxContains")?);
            let (least, most) = (least.filter(|_| counted).unwrap_or(1), most.filter(|_| counted));
            k.rules.push(Rule::Contains { item, least, most, marks: self.is_at_least(Draft::D2020) });
        }
        match self.member(k, "uniqueItems").map(|at| self.doc.node(at)) {
            Some(Node::Bool(true)) => k.rules.push(Rule::Unique),
            Some(Node::Bool(false)) | None => {}
            Some(_) => return Err(wrong(&k.at("uniqueItems"), "must be a boolean")),
        }
        Ok(())
    }

    fn objects(&mut self, k: &mut Keywords<'_>) -> Read<()> {
        match self.member(k, "required").map(|at| self.doc.node(at)) {
            Some(Node::Array(items)) => {
                let names = self.texts_of(*items).ok_or_else(|| wrong(&k.at("required"), "must be a list of names"))?;
                k.rules.push(Rule::Required(names.into_iter().map(Into::into).collect()));
            }
            Some(_) => return Err(wrong(&k.at("required"), "must be a list of names")),
            None => {}
        }
        let named = self.map(k, "properties")?;
        let patterns = self.map(k, "patternProperties")?;
        let rest = self.one(k, "additionalProperties")?;
        if named.is_some() || patterns.is_some() || rest.is_some() {
            let mut members = Members { named: named.into_iter().flatten().collect(), patterns: Vec::new(), rest };
            for (pattern, id) in patterns.into_iter().flatten() {
                let place = format!("{}/{}", k.at("patternProperties"), escaped(&pattern));
                members.patterns.push((self.pattern(&pattern, &place)?, id));
            }
            k.rules.push(Rule::Members(Box::new(members)));
        }
        let names = self.one(k, "propertyNames")?.filter(|_| self.is_at_least(Draft::D6));
        k.rules.extend(names.map(Rule::Names));
        Ok(())
    }

    fn unevaluated(&mut self, k: &mut Keywords<'_>) -> Read<()> {
        if self.is_at_least(Draft::D2019) {
            let (items, members) = (self.one(k, "unevaluatedItems")?, self.one(k, "unevaluatedProperties")?);
            // Last: they are about what all others left.
            k.rules.extend(items.map(Rule::UnevaluatedItems));
            k.rules.extend(members.map(Rule::UnevaluatedMembers));
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str, place: &str) -> Read<usize> {
        if self.patterns.len() >= PATTERNS_MAX {
            return Err(format!("has more than {PATTERNS_MAX} patterns"));
        }
        let text = if self.with_patterns { pattern } else { "" };
        if pattern.len() > super::pattern::LENGTH_MAX {
            let most = super::pattern::LENGTH_MAX;
            return Err(wrong(place, &format!("is a pattern of {} bytes; at most {most} are taken", pattern.len())));
        }
        let compiled = Pattern::compile(text).map_err(|error| wrong(place, &error))?;
        self.pattern_bytes += compiled.weight();
        if self.pattern_bytes > PATTERN_BYTES_MAX {
            let most = PATTERN_BYTES_MAX >> 10;
            return Err(format!("has patterns that take more than {most} KiB together once compiled"));
        }
        self.patterns.push(compiled);
        Ok(self.patterns.len() - 1)
    }

    fn member(&self, k: &Keywords<'_>, name: &str) -> Option<At> {
        self.doc.member(k.members, name)
    }

    fn text(&self, k: &Keywords<'_>, name: &str) -> Read<Option<String>> {
        match self.member(k, name).map(|at| self.doc.node(at)) {
            Some(Node::Text(text)) => Ok(Some(text.to_string())),
            Some(_) => Err(wrong(&k.at(name), "must be a text")),
            None => Ok(None),
        }
    }

    fn texts_of(&self, items: Span) -> Option<Vec<String>> {
        let texts = self.doc.items(items).iter().map(|at| match self.doc.node(*at) {
            Node::Text(text) => Some(text.to_string()),
            _ => None,
        });
        texts.collect()
    }

    fn number(&self, k: &Keywords<'_>, name: &str) -> Read<Option<Num>> {
        match self.member(k, name).map(|at| self.doc.node(at)) {
            Some(Node::Number(text)) => Ok(Some(Num::parse(text))),
            Some(_) => Err(wrong(&k.at(name), "must be a number")),
            None => Ok(None),
        }
    }

    fn count(&self, k: &Keywords<'_>, name: &str) -> Read<Option<u64>> {
        let Some(number) = self.number(k, name)? else { return Ok(None) };
        match number {
            Num::Exact { digits, exponent } if digits >= 0 && exponent >= 0 => {
                let scale = u32::try_from(exponent).ok().and_then(|exponent| 10i128.checked_pow(exponent));
                let count = scale.and_then(|scale| digits.checked_mul(scale)).and_then(|n| u64::try_from(n).ok());
                Ok(Some(count.unwrap_or(u64::MAX)))
            }
            _ => Err(wrong(&k.at(name), "must be a whole number, zero or more")),
        }
    }

    fn one(&mut self, k: &Keywords<'_>, name: &str) -> Read<Option<Id>> {
        self.member(k, name).map(|at| self.schema(at, &k.at(name))).transpose()
    }

    fn list(&mut self, k: &Keywords<'_>, name: &str) -> Read<Option<Box<[Id]>>> {
        let Some(at) = self.member(k, name) else { return Ok(None) };
        let Node::Array(items) = self.doc.node(at) else {
            return Err(wrong(&k.at(name), "must be a list of schemas"));
        };
        let items = self.doc.items(*items).to_vec();
        let ids = items.into_iter().enumerate().map(|(i, at)| self.schema(at, &format!("{}/{i}", k.at(name))));
        ids.collect::<Read<Box<[Id]>>>().map(Some)
    }

    fn map(&mut self, k: &Keywords<'_>, name: &str) -> Read<Option<Vec<Named<Id>>>> {
        let Some(at) = self.member(k, name) else { return Ok(None) };
        let Node::Object(members) = self.doc.node(at) else {
            return Err(wrong(&k.at(name), "must be an object of schemas"));
        };
        let members: Vec<_> =
            self.doc.members(*members).iter().map(|m| (Box::<str>::from(&*m.name), m.value)).collect();
        let schemas = members.into_iter().map(|(member, at)| {
            let place = format!("{}/{}", k.at(name), escaped(&member));
            Ok((member, self.schema(at, &place)?))
        });
        schemas.collect::<Read<Vec<_>>>().map(Some)
    }

    /// Refuses what comes back to itself on one value, and what is asked about one value in too many ways.
    fn judge_shape(&self) -> Read<()> {
        let mut known: HashMap<Id, (u64, u32)> = HashMap::new();
        for root in 0..self.schemas.len() as Id {
            // (schema, whether its own are done)
            let mut stack = vec![(root, false)];
            let mut open: std::collections::HashSet<Id> = std::collections::HashSet::new();
            while let Some((id, done)) = stack.pop() {
                let next = || self.schemas[id as usize].rules.iter().flat_map(Rule::in_place);
                if done {
                    open.remove(&id);
                    let of = |id: Id| known.get(&id).copied().unwrap_or_default();
                    let paths = next().fold(1u64, |sum, id| sum.saturating_add(of(id).0));
                    let chain = 1 + next().map(|id| of(id).1).max().unwrap_or(0);
                    if paths > PATHS_MAX {
                        return Err(format!(
                            "asks about one value in more than {PATHS_MAX} ways (allOf, anyOf, oneOf, if and $ref \
                             multiply): refer to each schema once"
                        ));
                    }
                    if chain > CHAIN_MAX {
                        return Err(format!("leads from schema to schema more than {CHAIN_MAX} times for one value"));
                    }
                    known.insert(id, (paths, chain));
                } else if !known.contains_key(&id) {
                    if !open.insert(id) {
                        return Err("has a $ref that comes back to itself on the same value".to_owned());
                    }
                    stack.push((id, true));
                    stack.extend(next().map(|id| (id, false)));
                }
            }
        }
        Ok(())
    }
}

const TYPE: &str = "type must be one or more of null, boolean, object, array, number, string, integer";

/// The keywords of one schema.
struct Keywords<'a> {
    members: Span,
    id: Id,
    place: &'a str,
    rules: Vec<Rule>,
}

impl Keywords<'_> {
    fn at(&self, name: &str) -> String {
        format!("{}/{}", self.place, escaped(name))
    }
}

/// A name as a step of a JSON pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
