//! W3C Trace Context (Recommendation of 2021-11-23): the header `traceparent`.

use std::fmt;

/// Where in the publisher's trace an event was published. Kept with the event, so that every delivery
/// of it belongs to the same trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceContext {
    /// The trace; not all zero.
    pub trace_id: [u8; 16],
    /// The publisher's span; not all zero.
    pub span_id: [u8; 8],
    /// Whether the publisher records its trace.
    pub sampled: bool,
}

/// Bytes of a context as kept.
const LEN: usize = 25;

impl TraceContext {
    /// Reads a header's value. What is not valid is none: a trace is never a reason to refuse an event
    /// (section 3.2.2: a receiver that cannot parse it starts a new trace).
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex::<1>(version)?;
        // Later versions may append members; version 00 has none, and ff is forbidden.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id, [flags]) = (hex::<16>(trace)?, hex::<8>(span)?, hex::<1>(flags)?);
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(TraceContext {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// As kept.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.span_id);
        bytes[24] = u8::from(self.sampled);
        bytes
    }

    /// From [`TraceContext::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&bytes[..16]);
        span_id.copy_from_slice(&bytes[16..24]);
        Some(TraceContext { trace_id, span_id, sampled: bytes[24] != 0 })
    }
}

impl fmt::Display for TraceContext {
    /// The header's value, version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written by hand: every delivery carries one, and the formatter of wide numbers is slow.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&self.trace_id, &mut text[3..35]);
        put_hex(&self.span_id, &mut text[36..52]);
        text[54] += u8::from(self.sampled);
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

fn put_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Lower-case hexadecimal of exactly `N` bytes.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_kept_and_written_again() {
        let read = TraceContext::parse(GOOD).unwrap();
        assert!(read.sampled);
        assert_eq!(read.to_string(), GOOD);
        assert_eq!(TraceContext::from_bytes(&read.to_bytes()), Some(read));
        let unsampled = TraceContext::parse(&GOOD.replace("-01", "-00")).unwrap();
        assert!(!unsampled.sampled);
        // Unknown flags are not passed on; a later version may say more than we understand.
        assert_eq!(TraceContext::parse(&GOOD.replace("-01", "-03")).unwrap().to_string(), GOOD);
        assert_eq!(TraceContext::parse(&format!("{}-more", GOOD.replacen("00", "01", 1))), Some(read));
    }

    #[test]
    fn what_is_no_context_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e47é6-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
        assert_eq!(TraceContext::from_bytes(&[1; 24]), None);
    }
}
