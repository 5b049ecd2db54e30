//! How long a receiver lets a connection lie idle, where it says so.

use std::time::Duration;

use http::HeaderName;
use http::header::HeaderMap;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// What is left of the time said when a connection is last used: the request must arrive before its end.
const MARGIN: Duration = Duration::from_secs(1);

/// The idle time an answer announces (`Keep-Alive: timeout=5, max=100`), less a margin; `None`: it says
/// nothing that can be understood.
pub(super) fn announced(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.parse::<u32>().ok()).flatten()
    })?;
    let said = Duration::from_secs(u64::from(seconds));
    Some(said.saturating_sub(MARGIN.min(said / 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_used_up_to_a_margin() {
        let cases = [
            (None, None),
            (Some("timeout=5"), Some(4_000)),
            (Some("max=100, Timeout = 60"), Some(59_000)),
            (Some("timeout=\"2\""), Some(1_000)),
            (Some("timeout=1, max=3"), Some(500)),
            (Some("timeout=0"), Some(0)),
            (Some("timeout=-1"), None),
            (Some("timeout"), None),
            (Some("300"), None),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.extend(value.map(|value| (KEEP_ALIVE, value.parse().expect("a value"))));
            assert_eq!(announced(&headers), expected.map(Duration::from_millis), "{value:?}");
        }
    }
}
