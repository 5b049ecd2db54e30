//! Texts for a terminal.

use std::fmt::Write as _;

use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width};

/// A line under the header and nothing else: easy to read, easy to cut.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Characters of the longest word that is never broken: ids are shorter.
const WORD: usize = 48;

/// A table with a header, for people.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    table_within(None, header, rows)
}

/// The same within so many columns; `None`: those of the terminal, if there is one. A word is broken only if it is
/// very long: what is to be copied stays whole, even if lines become longer than the terminal is wide.
fn table_within<const N: usize>(
    width: Option<u16>,
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    if let Some(width) = width {
        table.set_width(width);
    }
    let mut longest = header.map(longest_word);
    for row in rows {
        let row = row.map(|cell| printable(&cell));
        for (longest, cell) in longest.iter_mut().zip(&row) {
            *longest = (*longest).max(longest_word(cell));
        }
        table.add_row(row);
    }
    // Some terminals say that they have no width at all.
    let is_plain = table.width().is_none_or(|width| width == 0);
    table.set_content_arrangement(if is_plain { ContentArrangement::Disabled } else { ContentArrangement::Dynamic });
    if !is_plain {
        // Two blanks around each.
        let least = longest.map(|word| u16::try_from(word.min(WORD) + 2).unwrap_or(u16::MAX));
        table.set_constraints(least.map(|least| ColumnConstraint::LowerBoundary(Width::Fixed(least))));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn longest_word(text: &str) -> usize {
    text.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0)
}

/// A text that cannot steer the terminal: what others send must not move the cursor or hide itself.
/// Line breaks and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            // Marks that turn the direction of text around.
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON with line breaks and indentation, and nothing else changed: numbers, escapes and the order of
/// members stay as they are. `json` must be JSON.
pub(crate) fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let (mut in_text, mut escaped) = (false, false);
    let mut chars = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if in_text {
            out.push(c);
            (in_text, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '"' => {
                in_text = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

/// `text` with every line moved to the right.
pub(crate) fn shifted(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}\n")).collect()
}

/// "1 event", "2 events".
pub(crate) fn count(number: u64, word: &str) -> String {
    let many = match word.strip_suffix('y') {
        _ if number == 1 => word.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{word}s"),
    };
    format!("{number} {many}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_left_alone() {
        let json = r#" {"b":1.50,"a" : [ 1e3,{ },[],"x,y:{\"\\"],"n":null} "#;
        let lines = [
            "{",
            r#"  "b": 1.50,"#,
            r#"  "a": ["#,
            "    1e3,",
            "    {},",
            "    [],",
            r#"    "x,y:{\"\\""#,
            "  ],",
            r#"  "n": null"#,
            "}",
        ];
        assert_eq!(indented(json), lines.join("\n"));
        assert_eq!(indented("null"), "null");
    }

    #[test]
    fn what_steers_a_terminal_is_shown_instead() {
        assert_eq!(printable("a\u{1b}[2J\tb\n\u{9b}c\u{202e}"), "a\\u{1b}[2J\tb\n\\u{9b}c\\u{202e}");
        assert_eq!(printable("héllo ✓"), "héllo ✓");
    }

    #[test]
    fn tables_break_no_id_however_narrow_the_terminal_is() {
        let id = "key_01m81h90qvenkc0mt9zpercv26";
        let row = || [id.to_owned(), "a name of several words".to_owned(), "manage, read".to_owned()];
        for width in [0, 1, 20, 40, 80, 200] {
            let shown = table_within(Some(width), ["id", "name", "scopes"], [row(), row()]);
            assert_eq!(shown.matches(id).count(), 2, "{width}:\n{shown}");
            assert!(shown.contains("manage,"), "{width}:\n{shown}");
        }
        let plain = table_within(Some(0), ["id", "name", "scopes"], [row()]);
        assert_eq!(plain.lines().count(), 3, "{plain}");
        let wrapped = table_within(Some(60), ["id", "name", "scopes"], [row()]);
        assert!(wrapped.lines().count() > 3, "{wrapped}");
    }

    #[test]
    fn numbers_have_their_words() {
        assert_eq!(count(1, "delivery"), "1 delivery");
        assert_eq!(count(0, "delivery"), "0 deliveries");
        assert_eq!(count(2, "event"), "2 events");
    }

    proptest::proptest! {
        #[test]
        fn indenting_never_changes_the_value(text in "\\PC{0,20}", number in proptest::num::f64::NORMAL) {
            let json = serde_json::json!({ "a": [text, { text.clone(): number }, [], {}, null], text.clone(): true }).to_string();
            let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
            proptest::prop_assert_eq!(read(&indented(&json)), read(&json));
        }
    }
}
