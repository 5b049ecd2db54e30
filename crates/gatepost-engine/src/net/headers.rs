//! The headers of an outgoing request.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Header names and values in the order sent. `host` comes first, and like whatever frames the message
/// it is the client's to write: those given here are left out.
#[derive(Clone, Debug)]
pub struct Headers(HeaderMap);

impl Headers {
    /// None yet, with room for so many.
    pub fn with_capacity(count: usize) -> Self {
        // Two more: the host and a user agent.
        let mut map = HeaderMap::with_capacity(count + 2);
        // Its place is the first; its value comes with the target.
        map.insert(header::HOST, HeaderValue::from_static(""));
        Headers(map)
    }

    /// Adds a header, behind those of the same name.
    pub fn push(&mut self, name: HeaderName, value: HeaderValue) {
        if name == header::ACCEPT {
            // What is said last counts: a tenant's own in place of a profile's.
            self.0.insert(name, value);
        } else if !is_ours(&name) {
            self.0.append(name, value);
        }
    }

    /// What was added, in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().filter(|(name, _)| **name != header::HOST)
    }

    /// As they go out to `host`.
    pub(super) fn to(self, host: &HeaderValue) -> HeaderMap {
        let mut map = self.0;
        map.insert(header::HOST, host.clone());
        map
    }
}

impl Extend<(HeaderName, HeaderValue)> for Headers {
    fn extend<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(&mut self, headers: I) {
        for (name, value) in headers {
            self.push(name, value);
        }
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(headers: I) -> Self {
        let headers = headers.into_iter();
        let mut made = Headers::with_capacity(headers.size_hint().0);
        made.extend(headers);
        made
    }
}

impl<const N: usize> From<[(HeaderName, HeaderValue); N]> for Headers {
    fn from(headers: [(HeaderName, HeaderValue); N]) -> Self {
        headers.into_iter().collect()
    }
}

/// Header names that say how a message is framed or whom it is for. Two of them disagreeing is how
/// requests are smuggled.
fn is_ours(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::CONNECTION
            | header::UPGRADE
            | header::TE
            | header::TRAILER
            | header::EXPECT
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}
