//! JSON as one flat list of values, read with counted work.
//!
//! Every member is taken as it is written: numbers keep their digits, and half a surrogate pair in one text
//! (U+FFFD here) spoils neither that text nor its neighbours.

use std::borrow::Cow;

use super::number::Num;
use super::work::{TooCostly, Work};

/// How deep values may lie in each other.
pub(super) const DEPTH_MAX: usize = 128;
/// Reading a byte, and keeping a value.
const BYTE: u64 = 4;
const VALUE: u64 = 150;
/// Putting a member in order.
const SORT: u64 = 60;

/// A value's place in the list.
pub(super) type At = u32;

/// A value.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    /// As written.
    Number(&'a str),
    Text(Cow<'a, str>),
    /// Its items, in `Doc::items`.
    Array(Span),
    /// Its members, in `Doc::members`, by name.
    Object(Span),
}

/// So many, from here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    from: u32,
    count: u32,
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        self.from as usize..(self.from + self.count) as usize
    }

    /// How many.
    pub(super) fn len(self) -> usize {
        self.count as usize
    }
}

/// A member of an object.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) value: At,
}

/// A whole text of JSON.
#[derive(Debug, Default)]
pub(super) struct Doc<'a> {
    nodes: Vec<Node<'a>>,
    items: Vec<At>,
    members: Vec<Member<'a>>,
    root: At,
}

/// Why a text was not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    /// It costs too much.
    TooCostly,
    /// It is no JSON, or lies too deep.
    Bad(&'static str),
}

impl From<TooCostly> for Unread {
    fn from(_: TooCostly) -> Self {
        Unread::TooCostly
    }
}

impl<'a> Doc<'a> {
    /// Reads a text.
    pub(super) fn read(text: &'a [u8], work: &mut Work) -> Result<Self, Unread> {
        work.spend_on(text.len(), BYTE)?;
        let text = std::str::from_utf8(text).map_err(|_| Unread::Bad("is not UTF-8"))?;
        let mut reader = Reader { text, at: 0, doc: Doc::default(), work };
        let root = reader.value(0)?;
        reader.space();
        if reader.at < text.len() {
            return Err(NOT_JSON);
        }
        Ok(Doc { root, ..reader.doc })
    }

    /// One text, as a whole.
    pub(super) fn of_text(text: &'a str) -> Self {
        Doc { nodes: vec![Node::Text(Cow::Borrowed(text))], ..Doc::default() }
    }

    pub(super) fn root(&self) -> At {
        self.root
    }

    pub(super) fn node(&self, at: At) -> &Node<'a> {
        &self.nodes[at as usize]
    }

    pub(super) fn items(&self, span: Span) -> &[At] {
        &self.items[span.range()]
    }

    pub(super) fn members(&self, span: Span) -> &[Member<'a>] {
        &self.members[span.range()]
    }

    /// The place of a member among its object's.
    pub(super) fn find(&self, object: Span, name: &str) -> Option<usize> {
        self.members(object).binary_search_by(|member| member.name.as_ref().cmp(name)).ok()
    }

    /// A member of an object.
    pub(super) fn member(&self, object: Span, name: &str) -> Option<At> {
        self.find(object, name).map(|i| self.members(object)[i].value)
    }

    /// The value at a JSON pointer, percent-decoded already.
    pub(super) fn at_pointer(&self, pointer: &str) -> Option<At> {
        let mut at = self.root;
        for step in pointer.split('/').skip(1) {
            let name = step.replace("~1", "/").replace("~0", "~");
            at = match self.node(at) {
                Node::Object(members) => self.member(*members, &name)?,
                Node::Array(items) => *self.items(*items).get(name.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// Whether two values are the same to JSON Schema: numbers by what they are worth.
    pub(super) fn same(&self, a: At, other: &Doc<'_>, b: At, work: &mut Work) -> Result<bool, TooCostly> {
        work.spend(20)?;
        Ok(match (self.node(a), other.node(b)) {
            (Node::Null, Node::Null) => true,
            (Node::Bool(a), Node::Bool(b)) => a == b,
            (Node::Number(a), Node::Number(b)) => {
                work.spend_on(a.len() + b.len(), 8)?;
                Num::parse(a) == Num::parse(b)
            }
            (Node::Text(a), Node::Text(b)) => {
                work.spend_on(a.len().min(b.len()) / 16, 1)?;
                a == b
            }
            (Node::Array(a), Node::Array(b)) if a.len() == b.len() => {
                for (a, b) in self.items(*a).iter().zip(other.items(*b)) {
                    if !self.same(*a, other, *b, work)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Node::Object(a), Node::Object(b)) if a.len() == b.len() => {
                for (a, b) in self.members(*a).iter().zip(other.members(*b)) {
                    if a.name != b.name || !self.same(a.value, other, b.value, work)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }
}

const NOT_JSON: Unread = Unread::Bad("is not JSON");

struct Reader<'a, 'w> {
    text: &'a str,
    at: usize,
    doc: Doc<'a>,
    work: &'w mut Work,
}

impl<'a> Reader<'a, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes `byte` if it is next.
    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unread> {
        if self.eat(byte) { Ok(()) } else { Err(NOT_JSON) }
    }

    fn keep(&mut self, node: Node<'a>) -> At {
        self.doc.nodes.push(node);
        // Bounded by the bytes that were paid for: far below.
        (self.doc.nodes.len() - 1) as At
    }

    fn value(&mut self, depth: usize) -> Result<At, Unread> {
        if depth > DEPTH_MAX {
            return Err(Unread::Bad("is nested more than 128 levels deep"));
        }
        self.work.spend(VALUE)?;
        self.space();
        let node = match self.peek() {
            Some(b'{') => return self.object(depth),
            Some(b'[') => return self.array(depth),
            Some(b'"') => Node::Text(self.string()?),
            Some(b't') => self.word("true", Node::Bool(true))?,
            Some(b'f') => self.word("false", Node::Bool(false))?,
            Some(b'n') => self.word("null", Node::Null)?,
            _ => self.number()?,
        };
        Ok(self.keep(node))
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Result<Node<'a>, Unread> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(NOT_JSON);
        }
        self.at += word.len();
        Ok(node)
    }

    fn number(&mut self) -> Result<Node<'a>, Unread> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let number = &rest[..end];
        if !number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) || number.parse::<f64>().is_err() {
            return Err(NOT_JSON);
        }
        self.at += end;
        Ok(Node::Number(number))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Unread> {
        self.expect(b'"')?;
        let from = self.at;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(_) => self.at += 1,
                None => return Err(NOT_JSON),
            }
        }
        let raw = self.text.get(from..self.at).ok_or(NOT_JSON)?;
        self.at += 1;
        if !escaped {
            return Ok(Cow::Borrowed(raw));
        }
        self.work.spend_on(raw.len(), BYTE)?;
        unescape(raw).map(Cow::Owned).ok_or(NOT_JSON)
    }

    fn array(&mut self, depth: usize) -> Result<At, Unread> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        self.space();
        if !self.eat(b']') {
            loop {
                items.push(self.value(depth + 1)?);
                self.space();
                if self.eat(b']') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        let span = Span { from: self.doc.items.len() as u32, count: items.len() as u32 };
        self.doc.items.append(&mut items);
        Ok(self.keep(Node::Array(span)))
    }

    fn object(&mut self, depth: usize) -> Result<At, Unread> {
        self.expect(b'{')?;
        let mut members: Vec<Member<'a>> = Vec::new();
        self.space();
        if !self.eat(b'}') {
            loop {
                self.space();
                let name = self.string()?;
                self.space();
                self.expect(b':')?;
                let value = self.value(depth + 1)?;
                members.push(Member { name, value });
                self.space();
                if self.eat(b'}') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        self.work.spend_on(members.len(), SORT)?;
        // Of members with one name the last counts, as for most readers.
        members.reverse();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members.dedup_by(|later, kept| later.name == kept.name);
        let span = Span { from: self.doc.members.len() as u32, count: members.len() as u32 };
        self.doc.members.append(&mut members);
        Ok(self.keep(Node::Object(span)))
    }
}

fn unescape(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        text.push(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => unicode(&mut rest)?,
            _ => return None,
        });
    }
    text.push_str(rest);
    Some(text)
}

/// The character of an escape after its `\u`, of both halves of a pair if there are two.
fn unicode(rest: &mut &str) -> Option<char> {
    let unit = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    let first = unit(rest)?;
    *rest = &rest[4..];
    let second = rest.strip_prefix("\\u").and_then(unit).filter(|second| (0xDC00..0xE000).contains(second));
    if let (0xD800..0xDC00, Some(second)) = (first, second) {
        *rest = &rest[6..];
        return char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00));
    }
    Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Doc<'_>, Unread> {
        Doc::read(text.as_bytes(), &mut Work::of(10_000_000))
    }

    #[test]
    fn an_odd_member_spoils_nothing() {
        let doc =
            read(r#"{"n":1e400,"t":"Ana \ud83d","pair":"\ud83d\ude00","b":[true,null, -1.5],"b2":{},"n":2}"#).unwrap();
        let Node::Object(root) = doc.node(doc.root()) else { panic!() };
        assert_eq!(root.len(), 5);
        let text = |name| match doc.node(doc.member(*root, name).unwrap()) {
            Node::Text(text) => text.to_string(),
            Node::Number(text) => (*text).to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!((text("t"), text("pair"), text("n")), ("Ana \u{fffd}".into(), "😀".into(), "2".into()));
        assert!(matches!(doc.node(doc.at_pointer("/b/2").unwrap()), Node::Number("-1.5")));
        assert_eq!(doc.at_pointer("/b/3"), None);
    }

    #[test]
    fn what_is_no_json_is_told_and_never_a_crash() {
        for bad in
            ["", "{", "[1,]", "{\"a\"}", "tru", "1 2", "\"\\x\"", "\"\\", "\"\\ud83", "[", "--1", "{\"a\":1,}", "+1"]
        {
            assert_eq!(read(bad).unwrap_err(), NOT_JSON, "{bad}");
        }
        let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(matches!(Doc::read(&deep(5_000), &mut Work::of(10_000_000)), Err(Unread::Bad(_))));
        assert!(Doc::read(&deep(DEPTH_MAX), &mut Work::of(10_000_000)).is_ok());
    }

    #[test]
    fn reading_is_paid_for() {
        let wide = format!("[{}0]", "0,".repeat(1 << 20));
        assert_eq!(Doc::read(wide.as_bytes(), &mut Work::of(50_000_000)).unwrap_err(), Unread::TooCostly);
    }
}
