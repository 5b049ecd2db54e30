//! `payload`: what of an event's `data` a receiver sees.
//!
//! Cutting works on the text as published: a value that is kept whole keeps its bytes, and where
//! nothing is cut the result *is* the text. Only a container that loses members is written anew, from
//! the unchanged texts of those it keeps.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;

use crate::json::{Scanner, text_of};
use crate::webhook::{Payload, PayloadMode};

/// The longest JSON pointer read, in bytes.
pub const POINTER_MAX: usize = 512;

/// Why a text is not a pointer to cut by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPointer {
    /// RFC 6901, section 3.
    #[error("must be a JSON pointer (RFC 6901): empty, or beginning with \"/\"")]
    Slash,
    /// RFC 6901, section 3.
    #[error("has a \"~\" that is followed by neither 0 nor 1 (RFC 6901)")]
    Tilde,
    /// Longer than [`POINTER_MAX`].
    #[error("must have at most 512 bytes")]
    Long,
}

/// The reference tokens of a JSON pointer (RFC 6901).
///
/// # Errors
/// When `text` is no pointer.
pub fn tokens(text: &str) -> Result<Vec<String>, BadPointer> {
    if text.len() > POINTER_MAX {
        return Err(BadPointer::Long);
    }
    let Some(rest) = text.strip_prefix('/') else {
        return if text.is_empty() { Ok(Vec::new()) } else { Err(BadPointer::Slash) };
    };
    rest.split('/').map(unescape).collect()
}

fn unescape(token: &str) -> Result<String, BadPointer> {
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(char) = chars.next() {
        match (char, char == '~') {
            (_, true) => match chars.next() {
                Some('0') => out.push('~'),
                Some('1') => out.push('/'),
                _ => return Err(BadPointer::Tilde),
            },
            (char, false) => out.push(char),
        }
    }
    Ok(out)
}

/// The rules of one webhook, compiled.
#[derive(Debug, Default)]
pub(super) struct Cut {
    thin: bool,
    /// Without rules of inclusion everything is included.
    all: bool,
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    include: bool,
    exclude: bool,
    below: HashMap<String, Node>,
}

impl Node {
    fn at(&mut self, pointer: &str) -> Result<&mut Node, BadPointer> {
        let mut node = self;
        for token in tokens(pointer)? {
            node = node.below.entry(token).or_default();
        }
        Ok(node)
    }
}

/// What becomes of a value.
enum Kept<'t> {
    No,
    Whole(&'t [u8]),
    Part(Vec<u8>),
}

impl Kept<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Kept::No => b"",
            Kept::Whole(text) => text,
            Kept::Part(text) => text,
        }
    }
}

impl Cut {
    /// From a webhook's `payload`; `None` when it cuts nothing.
    ///
    /// # Errors
    /// When a pointer is none.
    pub(super) fn compile(payload: &Payload) -> Result<Option<Self>, BadPointer> {
        let mut cut = Cut { thin: payload.mode == PayloadMode::Thin, all: payload.include.is_none(), ..Cut::default() };
        for pointer in payload.include.iter().flatten() {
            cut.root.at(pointer)?.include = true;
        }
        for pointer in payload.exclude.iter().flatten() {
            cut.root.at(pointer)?.exclude = true;
        }
        let idle = !cut.thin && cut.all && !cut.root.exclude && cut.root.below.is_empty();
        Ok((!idle).then_some(cut))
    }

    /// What of `data` (one JSON value) is sent; `None`: no `data` at all.
    pub(super) fn apply(&self, data: &Bytes) -> Option<Bytes> {
        if self.thin {
            return None;
        }
        let mut scanner = Scanner::new(data);
        // What cannot be read is kept back: it could hold what must not be seen.
        Some(match scanner.cut(&self.root, self.all) {
            Some(Kept::Whole(_)) => data.clone(),
            Some(Kept::Part(text)) => text.into(),
            Some(Kept::No) => Bytes::from_static(match data.get(first(data)) {
                Some(b'{') if !self.root.exclude => b"{}",
                Some(b'[') if !self.root.exclude => b"[]",
                _ => b"null",
            }),
            None => Bytes::from_static(b"null"),
        })
    }
}

fn first(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

impl<'t> Scanner<'t> {
    /// Passes over a value and answers what of it is kept; `included`: something above it is.
    fn cut(&mut self, node: &Node, included: bool) -> Option<Kept<'t>> {
        let included = included || node.include;
        let open = *self.text.get(self.at)?;
        if node.exclude || node.below.is_empty() || !matches!(open, b'{' | b'[') {
            let text = self.value()?;
            return Some(if included && !node.exclude { Kept::Whole(text) } else { Kept::No });
        }
        self.container(node, included, open)
    }

    fn container(&mut self, node: &Node, included: bool, open: u8) -> Option<Kept<'t>> {
        let (start, close) = (self.at, if open == b'{' { b'}' } else { b']' });
        let mut out = vec![open];
        let (mut whole, mut kept_any, mut index) = (true, false, 0usize);
        self.eat(open);
        while self.text.get(self.at) != Some(&close) {
            if index > 0 && !self.eat(b',') {
                return None;
            }
            let member = self.at;
            let name: Cow<'_, str> = if open == b'{' {
                let name = name_of(self.string()?);
                self.space();
                if !self.eat(b':') {
                    return None;
                }
                name
            } else {
                index.to_string().into()
            };
            let value_at = self.at;
            let kept = match node.below.get(&*name) {
                Some(below) => self.cut(below, included)?,
                None => {
                    let text = self.value()?;
                    if included { Kept::Whole(text) } else { Kept::No }
                }
            };
            self.space();
            index += 1;
            whole &= matches!(kept, Kept::Whole(_));
            if !matches!(kept, Kept::No) {
                if kept_any {
                    out.push(b',');
                }
                kept_any = true;
                out.extend_from_slice(&self.text[member..value_at]);
                out.extend_from_slice(kept.bytes());
            }
        }
        self.at += 1;
        let text = self.text.get(start..self.at)?;
        out.push(close);
        Some(match (included, kept_any) {
            (true, _) if whole => Kept::Whole(text),
            (true, _) | (_, true) => Kept::Part(out),
            (false, false) => Kept::No,
        })
    }
}

/// The name between two quotes. One that is no text (half a surrogate pair) is equal to no pointer's.
fn name_of(quoted: &[u8]) -> Cow<'_, str> {
    text_of(quoted).unwrap_or(Cow::Borrowed("\u{fffd}"))
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
