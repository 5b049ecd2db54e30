//! The head of an HTTP/1.1 answer, judged and mended before it is parsed.
//!
//! A parser may be told to skip lines it cannot read, but skips those that frame the body as well, and
//! takes what follows for something else. So it is told nothing, and gets heads it can read: a line
//! nobody needs that is malformed is left out here, one that frames the body and is malformed ends the
//! answer (RFC 9112 sections 5 and 6). Whoever mends a head must not use the connection again.

use super::fault::{Fault, Framing};

/// The largest head that is read.
pub(in crate::net) const MAX_HEAD: usize = 64 * 1024;
/// Header lines of a head; the parser's own limit.
pub(super) const MAX_LINES: usize = 100;

/// What some bytes begin with.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// Not yet a whole head.
    Incomplete,
    /// Nothing like an answer of HTTP/1: the parser will say so.
    Foreign,
    Whole {
        len: usize,
        status: u16,
        /// What to read in its place, if some lines are left out or joined.
        mended: Option<Vec<u8>>,
    },
}

/// Reads the head that `bytes` begin with, in one pass.
pub(super) fn read(bytes: &[u8]) -> Result<Head, Fault> {
    let Some(start) = after_blank_lines(bytes) else { return Ok(Head::Incomplete) };
    let (status, old, mut at) = match status_line(&bytes[start..])? {
        StatusLine::Partial => return Ok(Head::Incomplete),
        StatusLine::Foreign => return Ok(Head::Foreign),
        StatusLine::Read { status, old, len } => (status, old, start + len),
    };
    let mut mended: Option<Vec<u8>> = None;
    let mut framed = Framed::default();
    let mut kept = 0;
    loop {
        let Some((line, next)) = line_at(bytes, at) else { return Ok(Head::Incomplete) };
        if line.is_empty() {
            framed.judge(old)?;
            if let Some(mended) = &mut mended {
                mended.extend_from_slice(b"\r\n");
            }
            return Ok(Head::Whole { len: next, status, mended });
        }
        let Some(end) = after_folds(bytes, next) else { return Ok(Head::Incomplete) };
        let field = Field { first: line, more: &bytes[next..end] };
        match field.judge(&mut framed)? {
            Judged::Good => {
                if let Some(mended) = &mut mended {
                    mended.extend_from_slice(&bytes[at..end]);
                }
            }
            Judged::Joined(joined) => mended.get_or_insert_with(|| bytes[..at].to_vec()).extend_from_slice(&joined),
            Judged::Bad => {
                mended.get_or_insert_with(|| bytes[..at].to_vec());
                at = end;
                continue;
            }
        }
        kept += 1;
        if kept > MAX_LINES {
            return Err(Fault::ManyLines);
        }
        at = end;
    }
}

/// Where the empty lines before a status line end, which a client skips. `None`: that cannot be told yet.
fn after_blank_lines(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [] | [b'\r'] => return None,
            [b'\n', ..] => at += 1,
            [b'\r', b'\n', ..] => at += 2,
            _ => return Some(at),
        }
    }
}

/// The line at `at` without its end, and where the next one begins. `None`: it has no end yet.
fn line_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = bytes[at..].iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[at..at + length];
    Some((line.strip_suffix(b"\r").unwrap_or(line), at + length + 1))
}

/// Where the lines end that continue the one before `at`: those that begin with a blank.
fn after_folds(bytes: &[u8], mut at: usize) -> Option<usize> {
    while matches!(bytes.get(at)?, b' ' | b'\t') {
        (_, at) = line_at(bytes, at)?;
    }
    Some(at)
}

enum StatusLine {
    Partial,
    Foreign,
    Read { status: u16, old: bool, len: usize },
}

fn status_line(bytes: &[u8]) -> Result<StatusLine, Fault> {
    const FORM: &[u8] = b"HTTP/1.v ddd";
    let fits = FORM.iter().zip(bytes).all(|(form, byte)| match form {
        b'v' => matches!(byte, b'0' | b'1'),
        b'd' => byte.is_ascii_digit(),
        form => form == byte,
    });
    if !fits {
        return Ok(StatusLine::Foreign);
    }
    let Some(after) = bytes.get(FORM.len()) else { return Ok(StatusLine::Partial) };
    if !matches!(after, b' ' | b'\r' | b'\n') {
        return Ok(StatusLine::Foreign);
    }
    let Some((line, len)) = line_at(bytes, 0) else { return Ok(StatusLine::Partial) };
    let reason = &line[FORM.len()..];
    if reason.contains(&0) {
        return Err(Fault::Nul);
    }
    if !is_value(reason) {
        return Err(Fault::StatusLine);
    }
    let status = line[9..12].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    Ok(StatusLine::Read { status, old: line[7] == b'0', len })
}

/// A header line with those that continue it.
struct Field<'a> {
    first: &'a [u8],
    more: &'a [u8],
}

enum Judged {
    Good,
    /// It went over several lines: this is it on one.
    Joined(Vec<u8>),
    /// It is left out.
    Bad,
}

impl Field<'_> {
    fn judge(&self, framed: &mut Framed) -> Result<Judged, Fault> {
        let colon = self.first.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(colon) => (&self.first[..colon], &self.first[colon + 1..]),
            None => (self.first, &[][..]),
        };
        let is_named = colon.is_some() && is_token(name);
        let is_clean = is_named && is_value(value);
        if (!is_clean && self.first.contains(&0)) || self.more.contains(&0) {
            return Err(Fault::Nul);
        }
        let framing = if is_named { framing_called(name) } else { framing_in(name) };
        if let Some(framing) = framing {
            if !is_clean {
                return Err(Fault::Malformed(framing));
            }
            if !self.more.is_empty() {
                return Err(Fault::Folded(framing));
            }
            framed.note(framing, value)?;
            return Ok(Judged::Good);
        }
        if is_clean && self.more.is_empty() {
            return Ok(Judged::Good);
        }
        let joined = if is_clean { self.joined() } else { None };
        Ok(joined.map_or(Judged::Bad, Judged::Joined))
    }

    /// On one line, with a blank for each break (RFC 9112 section 5.2), if that is a header line.
    fn joined(&self) -> Option<Vec<u8>> {
        let mut joined = self.first.trim_ascii_end().to_vec();
        let mut at = 0;
        while let Some((line, next)) = line_at(self.more, at) {
            if !is_value(line) {
                return None;
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                joined.push(b' ');
                joined.extend_from_slice(line);
            }
            at = next;
        }
        joined.extend_from_slice(b"\r\n");
        Some(joined)
    }
}

/// What the lines seen say about where the body ends.
#[derive(Default)]
struct Framed {
    length: Option<u64>,
    encoded: bool,
    chunked: bool,
}

impl Framed {
    /// Notes a line that is well-formed as a header.
    fn note(&mut self, framing: Framing, value: &[u8]) -> Result<(), Fault> {
        for item in value.split(|byte| *byte == b',') {
            let item = item.trim_ascii();
            match framing {
                Framing::Length => {
                    let length = number(item).ok_or(Fault::Malformed(framing))?;
                    if *self.length.get_or_insert(length) != length {
                        return Err(Fault::LengthsDiffer);
                    }
                }
                Framing::Encoding => {
                    self.encoded = true;
                    let name = item.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                    let is_chunked = name.eq_ignore_ascii_case(b"chunked");
                    // Chunks come last, and once: otherwise readers differ about where they end.
                    if self.chunked || !is_token(name) || (is_chunked && name.len() < item.len()) {
                        return Err(Fault::Malformed(framing));
                    }
                    self.chunked = is_chunked;
                }
            }
        }
        Ok(())
    }

    fn judge(&self, old: bool) -> Result<(), Fault> {
        match (self.encoded, self.length) {
            (true, Some(_)) => Err(Fault::LengthAndEncoding),
            (true, None) if old => Err(Fault::EncodingInOld),
            _ => Ok(()),
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn framing_called(name: &[u8]) -> Option<Framing> {
    const NAMES: [(&[u8], Framing); 2] =
        [(b"content-length", Framing::Length), (b"transfer-encoding", Framing::Encoding)];
    NAMES.iter().find(|(framing, _)| framing.eq_ignore_ascii_case(name)).map(|(_, framing)| *framing)
}

/// Whether somebody might read what is no name as that of a line that frames the body.
fn framing_in(no_name: &[u8]) -> Option<Framing> {
    let word = no_name.split(|byte| !is_tchar(*byte)).find_map(framing_called);
    word.or_else(|| framing_called(&no_name.iter().copied().filter(|byte| is_tchar(*byte)).collect::<Vec<_>>()))
}

/// RFC 9110 section 5.6.2.
const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

fn is_token(name: &[u8]) -> bool {
    const TCHAR: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = is_tchar(byte as u8);
            byte += 1;
        }
        table
    };
    !name.is_empty() && name.iter().all(|byte| TCHAR[usize::from(*byte)])
}

/// RFC 9110 section 5.5: no control characters but the tab.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}
