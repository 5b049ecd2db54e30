//! What a schema asks for, compiled.

use std::collections::HashMap;

use super::doc::{At, Doc, Node};
use super::number::Num;
use super::work::{TooCostly, Work};

/// A schema's place in the list.
pub(super) type Id = u32;

/// What stands under a member's name.
pub(super) type Named<T> = (Box<str>, T);
/// Names of members.
pub(super) type Names = Box<[Box<str>]>;

/// Kinds of values, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const NAMES: [&'static str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];
    const NUMBER: usize = 4;
    const INTEGER: usize = 6;

    /// The kind with this name; `None`: there is none.
    pub(super) fn named(name: &str) -> Option<Kinds> {
        Self::NAMES.iter().position(|known| *known == name).map(|bit| Kinds(1 << bit))
    }

    pub(super) fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Whether a value is of one of them.
    pub(super) fn take(self, node: &Node<'_>) -> bool {
        let has = |bit: usize| self.0 & (1 << bit) != 0;
        match node {
            Node::Null => has(0),
            Node::Bool(_) => has(1),
            Node::Object(_) => has(2),
            Node::Array(_) => has(3),
            Node::Text(_) => has(5),
            Node::Number(text) => has(Self::NUMBER) || (has(Self::INTEGER) && Num::parse(text).is_integer()),
        }
    }

    /// For people: "a string or null".
    pub(super) fn words(self) -> String {
        let names = Self::NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        names.map(|(_, name)| *name).collect::<Vec<_>>().join(" or ")
    }
}

/// A value a schema names.
#[derive(Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Number(Num),
    Text(Box<str>),
    Array(Box<[Literal]>),
    Object(Box<[Named<Literal>]>),
}

impl Literal {
    /// A value of the schema's own text.
    pub(super) fn of(doc: &Doc<'_>, at: At) -> Literal {
        match doc.node(at) {
            Node::Null => Literal::Null,
            Node::Bool(value) => Literal::Bool(*value),
            Node::Number(text) => Literal::Number(Num::parse(text)),
            Node::Text(text) => Literal::Text(text.as_ref().into()),
            Node::Array(items) => Literal::Array(doc.items(*items).iter().map(|at| Self::of(doc, *at)).collect()),
            Node::Object(members) => {
                let members = doc.members(*members).iter();
                Literal::Object(members.map(|m| (m.name.as_ref().into(), Self::of(doc, m.value))).collect())
            }
        }
    }

    /// Whether a value is this one.
    pub(super) fn is(&self, doc: &Doc<'_>, at: At, work: &mut Work) -> Result<bool, TooCostly> {
        work.spend(40)?;
        Ok(match (self, doc.node(at)) {
            (Literal::Null, Node::Null) => true,
            (Literal::Bool(a), Node::Bool(b)) => a == b,
            (Literal::Number(a), Node::Number(b)) => {
                work.spend_on(b.len(), 8)?;
                *a == Num::parse(b)
            }
            (Literal::Text(a), Node::Text(b)) => {
                work.spend_on(a.len().min(b.len()) / 16, 1)?;
                **a == **b
            }
            (Literal::Array(a), Node::Array(b)) if a.len() == b.len() => {
                for (a, b) in a.iter().zip(doc.items(*b)) {
                    if !a.is(doc, *b, work)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Literal::Object(a), Node::Object(b)) if a.len() == b.len() => {
                for ((name, a), b) in a.iter().zip(doc.members(*b)) {
                    if **name != *b.name || !a.is(doc, b.value, work)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }
}

/// A bound on a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    Least,
    Above,
    Most,
    Below,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Count {
    /// Characters of a text.
    Chars,
    /// Items of an array.
    Items,
    /// Members of an object.
    Members,
}

/// What an object's members are to be.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) named: HashMap<Box<str>, Id>,
    /// Patterns by place, and what members with such a name are to be.
    pub(super) patterns: Vec<(usize, Id)>,
    /// What all others are to be.
    pub(super) rest: Option<Id>,
}

/// One thing a schema asks for.
#[derive(Debug)]
pub(super) enum Rule {
    Kinds(Kinds),
    OneOfValues(Box<[Literal]>),
    Limit(Bound, Num),
    MultipleOf(Num),
    AtLeast(Count, u64),
    AtMost(Count, u64),
    Pattern(usize),
    Unique,
    Required(Names),
    /// Members that others need beside them.
    Dependent(Box<[Named<Names>]>),
    Ref(Id),
    All(Box<[Id]>),
    Any(Box<[Id]>),
    ExactlyOne(Box<[Id]>),
    Not(Id),
    If {
        condition: Id,
        then: Option<Id>,
        otherwise: Option<Id>,
    },
    DependentSchemas(Box<[Named<Id>]>),
    Items {
        first: Box<[Id]>,
        rest: Option<Id>,
    },
    Contains {
        item: Id,
        least: u64,
        most: Option<u64>,
        /// Whether what it found counts as evaluated.
        marks: bool,
    },
    Members(Box<Members>),
    Names(Id),
    UnevaluatedItems(Id),
    UnevaluatedMembers(Id),
}

impl Rule {
    /// The schemas it asks about the same value.
    pub(super) fn in_place(&self) -> Vec<Id> {
        match self {
            Rule::Ref(id) | Rule::Not(id) => vec![*id],
            Rule::All(ids) | Rule::Any(ids) | Rule::ExactlyOne(ids) => ids.to_vec(),
            Rule::If { condition, then, otherwise } => {
                [Some(*condition), *then, *otherwise].into_iter().flatten().collect()
            }
            Rule::DependentSchemas(schemas) => schemas.iter().map(|(_, id)| *id).collect(),
            _ => Vec::new(),
        }
    }
}

/// One schema.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) rules: Vec<Rule>,
    /// Whether nothing fits: the schema `false`.
    pub(super) never: bool,
    /// Whether it is asked about from more than one place, so that what it said of a value is kept.
    pub(super) shared: bool,
}
