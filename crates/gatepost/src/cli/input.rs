//! Events from a file: one, a list, `{"events": […]}`, or NDJSON. Each event stays the bytes it is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::value::RawValue;

use crate::failure::{Failure, Outcome};

/// A file to read events from.
pub(super) struct Source {
    /// How to name it to people.
    pub(super) name: String,
    /// Its bytes, if that is known.
    pub(super) size: Option<u64>,
    reader: Box<dyn BufRead>,
}

/// How a path is named to people.
pub(super) fn shown_name(path: &str) -> &str {
    if path == "-" { "stdin" } else { path }
}

/// A text without the byte order mark that some editors put before it.
pub(super) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

impl Source {
    /// Opens a file, or stdin for `-`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(path: &str) -> Outcome<Source> {
        let name = shown_name(path).to_owned();
        if path == "-" {
            return Ok(Source { name, size: None, reader: Box::new(BufReader::new(io::stdin())) });
        }
        let file = File::open(Path::new(path))
            .map_err(|error| Failure::failed(format!("{path} cannot be opened: {error}")))?;
        let size = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
        Ok(Source { name, size, reader: Box::new(BufReader::with_capacity(1 << 18, file)) })
    }

    #[cfg(test)]
    fn of(text: &'static str) -> Source {
        Source { name: "test".to_owned(), size: None, reader: Box::new(text.as_bytes()) }
    }

    fn fail(&self, reason: impl fmt::Display) -> Failure {
        Failure::failed(format!("{}: {reason}", self.name))
    }

    /// The whole file as one JSON value.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn value(mut self) -> Outcome<Box<RawValue>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).map_err(|error| self.fail(error))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| self.fail(format!("is not UTF-8: {error}")))?;
        serde_json::from_str(without_bom(text)).map_err(|error| self.fail(format!("is not JSON: {error}")))
    }

    /// The file's events. NDJSON is read as it is needed, so that its size does not matter.
    ///
    /// # Errors
    /// The file has no events, or is no JSON.
    pub(super) fn events(self) -> Outcome<Events> {
        let mut lines = Lines { source: self, number: 0 };
        let Some(first) = lines.next_line()? else { return Err(lines.source.fail("has no events")) };
        let Ok(value) = serde_json::from_str::<Box<RawValue>>(&first.text) else {
            // More than one line, or no JSON at all.
            let whole = lines.rest(first)?;
            let value = serde_json::from_str(&whole).map_err(|error| {
                lines.source.fail(format!("is neither JSON nor NDJSON (one event a line): {error}"))
            })?;
            return Events::of_document(&lines.source, value);
        };
        let Some(second) = lines.next_line()? else { return Events::of_document(&lines.source, value) };
        Ok(Events::Lines { first: Some((first.number, value)), second: Some(second), lines })
    }
}

/// A line that is not empty.
pub(super) struct Line {
    number: u64,
    text: String,
}

/// Lines that are not empty, with their numbers, from 1.
pub(super) struct Lines {
    source: Source,
    number: u64,
}

impl Lines {
    fn next_line(&mut self) -> Outcome<Option<Line>> {
        loop {
            let mut bytes = Vec::new();
            let read = self.source.reader.read_until(b'\n', &mut bytes).map_err(|error| self.source.fail(error))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            let text =
                String::from_utf8(bytes).map_err(|_| self.source.fail(format!("line {} is not UTF-8", self.number)))?;
            let text = if self.number == 1 { without_bom(&text).to_owned() } else { text };
            if !text.trim_ascii().is_empty() {
                return Ok(Some(Line { number: self.number, text }));
            }
        }
    }

    /// Everything from `first` on; the empty lines before it are put back, so that positions are the
    /// file's.
    fn rest(&mut self, first: Line) -> Outcome<String> {
        let blank = usize::try_from(first.number - 1).unwrap_or_default();
        let mut text = "\n".repeat(blank) + &first.text;
        let mut bytes = Vec::new();
        self.source.reader.read_to_end(&mut bytes).map_err(|error| self.source.fail(error))?;
        text.push_str(std::str::from_utf8(&bytes).map_err(|_| self.source.fail("is not UTF-8"))?);
        Ok(text)
    }
}

/// Where in its file an event stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// On this line, from 1.
    Line(u64),
    /// At this position of the list, from 1.
    Item(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(number) => write!(f, "line {number}"),
            Place::Item(number) => write!(f, "event {number}"),
        }
    }
}

/// An event as it stands in the file.
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) json: Box<RawValue>,
}

/// Events, one after the other.
pub(super) enum Events {
    /// Of one JSON document.
    List { items: std::vec::IntoIter<Box<RawValue>>, given: u64 },
    /// Of NDJSON. Two lines had to be read to know that it is.
    Lines { first: Option<(u64, Box<RawValue>)>, second: Option<Line>, lines: Lines },
}

impl Events {
    /// A single event.
    pub(super) fn one(json: Box<RawValue>) -> Events {
        Events::List { items: vec![json].into_iter(), given: 0 }
    }

    fn of_document(source: &Source, value: Box<RawValue>) -> Outcome<Events> {
        let items = match value.get().as_bytes().first() {
            Some(b'[') => serde_json::from_str(value.get()).map_err(|error| source.fail(error))?,
            Some(b'{') => {
                let members: BTreeMap<String, Box<RawValue>> =
                    serde_json::from_str(value.get()).map_err(|error| source.fail(error))?;
                match members.get("events") {
                    Some(_) if members.len() > 1 => {
                        return Err(source.fail("has members beside \"events\", which have no meaning"));
                    }
                    Some(events) => serde_json::from_str(events.get())
                        .map_err(|_| source.fail("\"events\" must be a list of events"))?,
                    None => vec![value],
                }
            }
            _ => return Err(source.fail("an event is a JSON object; to publish this as data, name a --type")),
        };
        if items.is_empty() {
            return Err(source.fail("has no events"));
        }
        Ok(Events::List { items: items.into_iter(), given: 0 })
    }

    /// The next event.
    ///
    /// # Errors
    /// A line that is no JSON, or cannot be read.
    pub(super) fn next(&mut self) -> Outcome<Option<Item>> {
        match self {
            Events::List { items, given } => {
                *given += 1;
                let place = Place::Item(*given);
                Ok(items.next().map(|json| Item { place, json }))
            }
            Events::Lines { first, second, lines } => {
                if let Some((number, json)) = first.take() {
                    return Ok(Some(Item { place: Place::Line(number), json }));
                }
                let line = match second.take() {
                    Some(line) => Some(line),
                    None => lines.next_line()?,
                };
                let Some(line) = line else { return Ok(None) };
                let json = serde_json::from_str(&line.text).map_err(|error| {
                    let text = error.to_string();
                    let reason = text.split(" at line ").next().unwrap_or(&text);
                    lines.source.fail(format!(
                        "line {} is not JSON: {reason} at column {}",
                        line.number,
                        error.column()
                    ))
                })?;
                Ok(Some(Item { place: Place::Line(line.number), json }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &'static str) -> Outcome<Vec<(Place, String)>> {
        let mut events = Source::of(text).events()?;
        let mut found = Vec::new();
        while let Some(item) = events.next()? {
            found.push((item.place, item.json.get().to_owned()));
        }
        Ok(found)
    }

    #[test]
    fn p3_every_form_of_file_gives_events_byte_for_byte() {
        let (a, b) = ("{\"type\": \"a\",\"data\":1.00}", "{ \"type\":\"b\" }");
        let item = |n, text: &str| (Place::Item(n), text.to_owned());
        let line = |n, text: &str| (Place::Line(n), text.to_owned());
        let cases: [(&'static str, Vec<_>); 11] = [
            ("\u{feff}{\"type\": \"a\",\"data\":1.00}", vec![item(1, a)]),
            ("\u{feff}{\"type\": \"a\",\"data\":1.00}\n{ \"type\":\"b\" }", vec![line(1, a), line(2, b)]),
            ("{\"type\": \"a\",\"data\":1.00}", vec![item(1, a)]),
            ("\n  {\"type\": \"a\",\"data\":1.00}\n\n", vec![item(1, a)]),
            ("{\n\"type\":\n\"a\"}", vec![item(1, "{\n\"type\":\n\"a\"}")]),
            ("[{\"type\": \"a\",\"data\":1.00},{ \"type\":\"b\" }]", vec![item(1, a), item(2, b)]),
            ("[\n{\"type\": \"a\",\"data\":1.00},\n{ \"type\":\"b\" }\n]\n", vec![item(1, a), item(2, b)]),
            ("{\"events\":[{\"type\": \"a\",\"data\":1.00},{ \"type\":\"b\" }]}", vec![item(1, a), item(2, b)]),
            ("{\"type\": \"a\",\"data\":1.00}\n{ \"type\":\"b\" }", vec![line(1, a), line(2, b)]),
            ("\n{\"type\": \"a\",\"data\":1.00}\r\n\n \n{ \"type\":\"b\" }\n\n", vec![line(2, a), line(5, b)]),
            ("{ \"type\":\"b\" }\n{ \"type\":\"b\" }\n{ \"type\":\"b\" }\n", vec![line(1, b), line(2, b), line(3, b)]),
        ];
        for (text, expected) in cases {
            assert_eq!(all(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_events_is_told_with_its_place() {
        let cases = [
            ("", "has no events"),
            (" \n\n", "has no events"),
            ("[]", "has no events"),
            ("{\"events\":[]}", "has no events"),
            ("{\"events\":3}", "must be a list"),
            ("{\"events\":[],\"tenant\":\"x\"}", "beside \"events\""),
            ("3", "name a --type"),
            ("\n{\"a\":1,\n}", "line 3 column 1"),
            ("{\"a\":1}\n{\"b\":}\n", "line 2 is not JSON: expected value at column 6"),
            ("{\"a\":1}\n\nnonsense\n", "line 3 is not JSON"),
        ];
        for (text, part) in cases {
            let failure = all(text).expect_err(text).to_string();
            assert!(failure.starts_with("test: ") && failure.contains(part), "{failure}: no {part}");
        }
    }

    #[test]
    fn a_whole_file_as_data_keeps_its_bytes() {
        assert_eq!(Source::of(" { \"a\" : 1.0,\n\"b\":[ ] }\n").value().unwrap().get(), "{ \"a\" : 1.0,\n\"b\":[ ] }");
        assert_eq!(Source::of("\u{feff}{ }").value().unwrap().get(), "{ }");
        let broken = Source::of("{\"a\":1,\n}").value().unwrap_err().to_string();
        assert!(broken.contains("line 2 column 1"), "{broken}");
    }
}
