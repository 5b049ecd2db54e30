//! Measuring a filter's source before anything recursive touches it.
//!
//! Parser, checker and interpreter all recurse as deep as the tree is. Here, without recursion, the
//! depth of the tree a text *can* make is bounded from its tokens: brackets nest, and within one
//! pair every operator, dot or call can put one more level on top. `,`, `&&` and `||` start anew
//! (argument lists are flat, and the parser balances the two operators).

use super::FilterError;

/// The deepest tree accepted.
pub(super) const DEPTH_MAX: usize = 64;
/// The deepest nesting of brackets accepted: each level costs the parser a dozen calls.
const NESTING_MAX: usize = 24;

/// What is known of one pair of brackets that is still open.
#[derive(Default)]
struct Level {
    /// Operators since the last separator.
    chain: usize,
    /// The deepest bracket pair since the last separator.
    inner: usize,
    /// The deepest stretch between separators so far.
    deepest: usize,
    close: u8,
}

impl Level {
    fn separate(&mut self) {
        self.deepest = self.deepest.max(self.chain + self.inner);
        self.chain = 0;
        self.inner = 0;
    }
}

/// Refuses a source that could make a tree deeper than [`DEPTH_MAX`], has unbalanced brackets, or
/// holds a string the lexer would not read as one.
pub(super) fn measure(source: &str) -> Result<(), FilterError> {
    let bytes = source.as_bytes();
    let mut levels = vec![Level::default()];
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let start = i;
        i += 1;
        let nesting = levels.len();
        // There is always the outermost level: closing it is refused below.
        let Some(level) = levels.last_mut() else { break };
        match byte {
            b'\'' | b'"' => i = string_end(source, start)?,
            b'/' if bytes.get(i) == Some(&b'/') => {
                i = source[start..].find('\n').map_or(bytes.len(), |n| start + n);
            }
            b'(' | b'[' | b'{' => {
                level.chain += 1;
                if nesting > NESTING_MAX {
                    return Err(FilterError::at(source, start, format!("nests brackets deeper than {NESTING_MAX}")));
                }
                let close = match byte {
                    b'(' => b')',
                    b'[' => b']',
                    _ => b'}',
                };
                levels.push(Level { close, ..Level::default() });
            }
            b')' | b']' | b'}' => {
                if level.close != byte {
                    return Err(FilterError::at(source, start, format!("has a stray {:?}", byte as char)));
                }
                level.separate();
                let depth = level.deepest + 1;
                levels.pop();
                if let Some(outer) = levels.last_mut() {
                    outer.inner = outer.inner.max(depth);
                }
            }
            b',' => level.separate(),
            b'&' | b'|' if bytes.get(i) == Some(&byte) => {
                i += 1;
                level.separate();
            }
            b'.' | b'?' | b':' | b'!' | b'-' | b'+' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' => level.chain += 1,
            _ if byte.is_ascii_alphabetic() || byte == b'_' => {
                i = word_end(bytes, i);
                if &source[start..i] == "in" {
                    level.chain += 1;
                }
            }
            _ => {}
        }
        let Some(level) = levels.last() else { break };
        if level.chain + level.inner > DEPTH_MAX {
            return Err(FilterError::at(
                source,
                start,
                format!("is nested deeper than {DEPTH_MAX}; split it with && or ||"),
            ));
        }
    }
    if levels.len() > 1 {
        return Err(FilterError::new("has a bracket that is never closed"));
    }
    Ok(())
}

fn word_end(bytes: &[u8], mut i: usize) -> usize {
    while bytes.get(i).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        i += 1;
    }
    i
}

/// Where the string that begins at `start` ends. Strings the lexer would give up on are refused
/// here, because it would go on and read their inside as operators and brackets.
fn string_end(source: &str, start: usize) -> Result<usize, FilterError> {
    let bytes = source.as_bytes();
    let quote = bytes[start];
    let triple = bytes.get(start..start + 3) == Some(&[quote; 3]);
    let raw = is_raw(bytes, start);
    let mut i = start + if triple { 3 } else { 1 };
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'\\' if !raw => i = escape_end(source, i)?,
            b'\n' | b'\r' if !triple => break,
            _ if byte == quote && !triple => return Ok(i + 1),
            _ if triple && bytes.get(i..i + 3) == Some(&[quote; 3]) => return Ok(i + 3),
            _ => i += 1,
        }
    }
    Err(FilterError::at(source, start, "has a string that is never closed"))
}

/// Whether the word right before the quote is one of CEL's raw prefixes.
fn is_raw(bytes: &[u8], quote: usize) -> bool {
    let mut begin = quote;
    while begin > 0 && (bytes[begin - 1].is_ascii_alphanumeric() || bytes[begin - 1] == b'_') {
        begin -= 1;
    }
    let prefix = bytes[begin..quote].to_ascii_lowercase();
    matches!(&prefix[..], b"r" | b"br" | b"rb")
}

fn escape_end(source: &str, backslash: usize) -> Result<usize, FilterError> {
    let bytes = source.as_bytes();
    let digits = |n: usize, ok: fn(&u8) -> bool| {
        let from = backslash + 2;
        bytes.get(from..from + n).is_some_and(|d| d.iter().all(ok)).then_some(from + n)
    };
    let end = match bytes.get(backslash + 1) {
        Some(b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`') => {
            Some(backslash + 2)
        }
        Some(b'x' | b'X') => digits(2, u8::is_ascii_hexdigit),
        Some(b'u') => digits(4, u8::is_ascii_hexdigit),
        Some(b'U') => digits(8, u8::is_ascii_hexdigit),
        Some(b'0'..=b'3') => digits(2, |d| matches!(d, b'0'..=b'7')),
        _ => None,
    };
    end.ok_or_else(|| {
        FilterError::at(source, backslash, "has an unknown escape in a string; write \\\\ for a backslash, or r'…'")
    })
}
