//! Patterns: ECMA 262, as far as it has no lookaround and no back references, on an engine whose time is
//! bounded by what the pattern weighs times the length of the text.

use regex_automata::Input;
use regex_automata::meta::{Cache, Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;

use super::work::{TooCostly, Work};

/// Characters of a pattern.
pub(super) const LENGTH_MAX: usize = 1_024;
/// Bytes of one compiled pattern.
const BYTES_MAX: usize = 256 << 10;
/// How deep groups may lie in each other.
const NEST_MAX: u32 = 50;
/// Beginning a search, and one step of it: a byte of the text in one state of the pattern.
const SEARCH: u64 = 500;
const STEP: u64 = 4;
/// Bytes of a state, about.
const STATE: usize = 24;
/// Making the room a pattern searches in, per state.
const ROOM: u64 = 8;

/// A pattern, ready to be searched for.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    states: usize,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn compile(pattern: &str) -> Result<Self, String> {
        let translated = translate(pattern)?;
        // No automaton is made while searching: its size would be up to the text.
        let config = Config::new()
            .hybrid(false)
            .dfa(false)
            .onepass_size_limit(Some(16 << 10))
            .nfa_size_limit(Some(BYTES_MAX))
            .which_captures(WhichCaptures::Implicit)
            .utf8_empty(false);
        let built = Regex::builder()
            .configure(config)
            .syntax(syntax::Config::new().utf8(false).nest_limit(NEST_MAX))
            .build(&translated);
        match built {
            Ok(regex) => {
                let states = regex.memory_usage() / STATE + pattern.len();
                Ok(Pattern { regex, states })
            }
            Err(error) if error.size_limit().is_some() => Err(format!(
                "is a pattern too large once compiled: use fewer or smaller counted repetitions and Unicode classes \
                 (at most {} KiB; a length is better bounded by maxLength)",
                BYTES_MAX >> 10
            )),
            Err(_) => Err("is not a pattern that can be used here".to_owned()),
        }
    }

    /// What it takes in memory, about.
    pub(super) fn weight(&self) -> usize {
        self.regex.memory_usage() + 512
    }

    /// Whether the text has the pattern somewhere. `cache`: the room for it, made at the first use.
    pub(super) fn is_in(&self, text: &str, cache: &mut Option<Cache>, work: &mut Work) -> Result<bool, TooCostly> {
        if cache.is_none() {
            work.spend_on(self.states, ROOM)?;
        }
        work.spend(SEARCH)?;
        work.spend_on(self.states.saturating_mul(text.len() + 1), STEP)?;
        let cache = cache.get_or_insert_with(|| self.regex.create_cache());
        Ok(self.regex.search_half_with(cache, &Input::new(text).earliest(true)).is_some())
    }
}

const SPACE: &str = r"\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}";
const WORD: &str = "0-9A-Za-z_";
const DIGIT: &str = "0-9";

/// A pattern of ECMA 262 as one of the engine's.
fn translate(pattern: &str) -> Result<String, String> {
    if pattern.len() > LENGTH_MAX {
        return Err(format!("is a pattern of {} bytes; at most {LENGTH_MAX} are taken", pattern.len()));
    }
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut rest = Chars { chars: pattern.char_indices().peekable(), pattern };
    while let Some(char) = rest.next() {
        match char {
            '\\' => match rest.escape()? {
                Escape::Class(set, negated) => class(&mut out, set, negated),
                Escape::Char(char) => literal(&mut out, char),
                Escape::Property(text) => out.push_str(&text),
                Escape::Boundary(true) => out.push_str(r"(?-u:\b)"),
                Escape::Boundary(false) => out.push_str(r"(?-u:\B)"),
            },
            '[' => set(&mut rest, &mut out)?,
            '(' => group(&mut rest, &mut out)?,
            '.' => out.push_str(r"[^\n\r\x{2028}\x{2029}]"),
            '{' => match rest.repetition() {
                Some(counts) => out.push_str(&counts),
                None => literal(&mut out, '{'),
            },
            '|' | ')' | '*' | '+' | '?' | '^' | '$' => out.push(char),
            other => literal(&mut out, other),
        }
    }
    Ok(out)
}

fn class(out: &mut String, set: &str, negated: bool) {
    out.push_str(if negated { "[^" } else { "[" });
    out.push_str(set);
    out.push(']');
}

fn literal(out: &mut String, char: char) {
    if char.is_ascii_alphanumeric() || char == '_' || !char.is_ascii() {
        out.push(char);
    } else {
        out.push_str(&format!(r"\x{{{:x}}}", u32::from(char)));
    }
}

enum Escape {
    /// A set of characters, and whether it is all others.
    Class(&'static str, bool),
    Char(char),
    /// A Unicode property, as written.
    Property(String),
    /// Of a word, or none.
    Boundary(bool),
}

struct Chars<'a> {
    chars: std::iter::Peekable<std::str::CharIndices<'a>>,
    pattern: &'a str,
}

impl Chars<'_> {
    fn next(&mut self) -> Option<char> {
        self.chars.next().map(|(_, char)| char)
    }

    fn rest(&mut self) -> &str {
        let at = self.chars.peek().map_or(self.pattern.len(), |(at, _)| *at);
        &self.pattern[at..]
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.chars.next();
        }
    }

    /// A counted repetition whose brace was just read, whole; without counts the brace is itself.
    fn repetition(&mut self) -> Option<String> {
        let inside = self.rest().split_once('}')?.0;
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
        let (text, length) = (format!("{{{inside}}}"), inside.len() + 1);
        if least.is_empty() || !number(least) || !number(most) {
            return None;
        }
        self.skip(length);
        Some(text)
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text = self.rest().get(..digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let value = u32::from_str_radix(text, 16).ok();
        self.skip(digits);
        value
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<Escape, String> {
        let char = self.next().ok_or("is a pattern that ends in a backslash")?;
        Ok(match char {
            'd' => Escape::Class(DIGIT, false),
            'D' => Escape::Class(DIGIT, true),
            'w' => Escape::Class(WORD, false),
            'W' => Escape::Class(WORD, true),
            's' => Escape::Class(SPACE, false),
            'S' => Escape::Class(SPACE, true),
            'b' => Escape::Boundary(true),
            'B' => Escape::Boundary(false),
            'p' | 'P' => Escape::Property(self.property(char)?),
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            't' => Escape::Char('\t'),
            'f' => Escape::Char('\u{c}'),
            'v' => Escape::Char('\u{b}'),
            '0' => Escape::Char('\0'),
            'x' => Escape::Char(self.hex(2).and_then(char::from_u32).ok_or("has a \\x without two digits")?),
            'c' => match self.next() {
                Some(letter) if letter.is_ascii_alphabetic() => Escape::Char(char::from(letter as u8 % 32)),
                _ => return Err("has a \\c without a letter".to_owned()),
            },
            'u' => Escape::Char(self.code_point().ok_or("has a \\u that names no character")?),
            '1'..='9' | 'k' => return Err("has a back reference, which patterns here cannot have".to_owned()),
            other if other.is_ascii_alphanumeric() => return Err(format!("has the unknown escape \\{other}")),
            other => Escape::Char(other),
        })
    }

    fn property(&mut self, letter: char) -> Result<String, String> {
        let rest = self.rest();
        let name = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(name, _)| name);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '=';
        let Some(name) = name.filter(|name| !name.is_empty() && name.chars().all(plain)) else {
            return Err(format!("has a \\{letter} without a property such as {{Letter}}"));
        };
        let (text, length) = (format!("\\{letter}{{{name}}}"), name.len() + 2);
        self.skip(length);
        Ok(text)
    }

    fn code_point(&mut self) -> Option<char> {
        if let Some(inside) = self.rest().strip_prefix('{') {
            let digits = inside.split_once('}')?.0.to_owned();
            self.skip(digits.chars().count() + 2);
            return char::from_u32(u32::from_str_radix(&digits, 16).ok()?);
        }
        let first = self.hex(4)?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first);
        }
        self.rest().strip_prefix("\\u")?;
        self.skip(2);
        let second = self.hex(4)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + ((first - 0xD800) << 10) + second)
    }
}

fn group(rest: &mut Chars<'_>, out: &mut String) -> Result<(), String> {
    let ahead = rest.rest();
    if ["?=", "?!", "?<=", "?<!"].iter().any(|look| ahead.starts_with(look)) {
        return Err(
            "looks ahead or behind, which patterns here cannot: say it with allOf, not and several patterns".into()
        );
    }
    if ahead.starts_with("?<") {
        // A name says nothing where nothing refers to it.
        let length = ahead.find('>').ok_or("has a group name that does not end")?;
        let count = ahead[..=length].chars().count();
        rest.skip(count);
        out.push_str("(?:");
    } else if let Some(flags) = ahead.strip_prefix('?') {
        let flags = flags.find([':', ')']).filter(|end| flags[..*end].chars().all(|c| "ims-".contains(c)));
        let length = flags.ok_or("has a group that is unknown here")? + 2;
        out.push('(');
        out.push_str(&ahead[..length]);
        rest.skip(length);
    } else {
        out.push_str("(?:");
    }
    Ok(())
}

/// What is written in brackets: hyphens that are no range and signs that mean something to the engine alone
/// are themselves.
fn set(rest: &mut Chars<'_>, out: &mut String) -> Result<(), String> {
    let negated = rest.rest().starts_with('^');
    rest.skip(usize::from(negated));
    if rest.rest().starts_with(']') {
        rest.skip(1);
        out.push_str(if negated { "(?s:.)" } else { r"[^\x{0}-\x{10ffff}]" });
        return Ok(());
    }
    out.push_str(if negated { "[^" } else { "[" });
    // Whether the last was a character that may begin a range.
    let mut begins = false;
    loop {
        let char = rest.next().ok_or("has a bracket that is not closed")?;
        begins = match char {
            ']' => break,
            '-' if begins && ends_range(rest.rest()) => {
                out.push('-');
                let end = rest.next().unwrap_or('-');
                let end = if end == '\\' { in_set(rest.escape()?, out) } else { Some(end) };
                literal(out, end.unwrap_or('-'));
                false
            }
            '\\' => match in_set(rest.escape()?, out) {
                Some(char) => {
                    literal(out, char);
                    true
                }
                None => false,
            },
            other => {
                literal(out, other);
                true
            }
        };
    }
    out.push(']');
    Ok(())
}

/// Whether what follows a hyphen is the end of a range.
fn ends_range(rest: &str) -> bool {
    let mut chars = rest.chars();
    match chars.next() {
        None | Some(']') => false,
        Some('\\') => !chars.next().is_some_and(|c| "dDwWsSpP".contains(c)),
        Some(_) => true,
    }
}

/// An escape inside brackets: the character it is, or nothing after writing the set it is.
fn in_set(escape: Escape, out: &mut String) -> Option<char> {
    match escape {
        Escape::Char(char) => Some(char),
        Escape::Boundary(true) => Some('\u{8}'),
        Escape::Boundary(false) => Some('B'),
        Escape::Class(set, true) => {
            class(out, set, true);
            None
        }
        Escape::Class(set, false) => {
            out.push_str(set);
            None
        }
        Escape::Property(text) => {
            out.push_str(&text);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(pattern: &str, text: &str) -> bool {
        let pattern = Pattern::compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        pattern.is_in(text, &mut None, &mut Work::of(u64::MAX)).unwrap()
    }

    #[test]
    fn patterns_mean_what_ecma_262_says() {
        for (pattern, yes, no) in [
            (r"^\d+$", "12", "٣"),
            (r"^\w-\S$", "a-b", "é-b"),
            (r"^[\w-z]+$", "a-z", "a=z"),
            (r"^[a-\d]$", "-", "b"),
            (r"^[[&&]$", "[", "]"),
            (r"^[^\s]+$", "ab", "a b"),
            (r"^{a}$", "{a}", "a"),
            (r"^a{2,3}$", "aaa", "aaaa"),
            (r"^\u00e9\/\x41$", "é/A", "e/A"),
            (r"^\ud83d\ude00$", "😀", "x"),
            (r"^\u{1F600}$", "😀", "x"),
            (r"^(?<year>[0-9]{4})-(?:x|y)$", "2026-x", "26-x"),
            (r"^\p{Lu}\cA?.$", "Éa", "éa"),
            (r"^[+--]$", ",", "."),
            (r"^a.c$", "abc", "a\nc"),
            (r"\bfoo\b", "a foo b", "afoo"),
            (r"^[^]$", "\n", ""),
            (r"^(?i:abc)$", "aBC", "ab"),
            (r"^[\]\\^-]$", "^", "a"),
        ] {
            assert!(has(pattern, yes), "{pattern} {yes}");
            assert!(!has(pattern, no), "{pattern} {no}");
        }
    }

    #[test]
    fn what_cannot_be_bounded_is_refused() {
        let long = "a".repeat(LENGTH_MAX + 1);
        for bad in
            ["(", "[a", r"(a)\1", "(?=a)", "(?<!a)b", r"\q", r"(\p{L}{100}){100}", "a{9999}{9999}", "(?x: a)", &long]
        {
            assert!(Pattern::compile(bad).is_err(), "{bad}");
        }
        assert!(Pattern::compile(&"(".repeat(400)).is_err());
    }

    #[test]
    fn a_search_is_paid_for_before_it_is_made() {
        let pattern = Pattern::compile("(a?){60}a{60}").unwrap();
        let text = "a".repeat(1 << 20);
        assert_eq!(pattern.is_in(&text, &mut None, &mut Work::of(50_000_000)), Err(TooCostly));
    }
}
