//! Which versions of HTTP an endpoint is spoken to in: `options.http` of webhooks, `http` of hooks.

use serde::{Deserialize, Serialize};

/// What an endpoint may choose from when TLS is agreed on. Plain http is always HTTP/1.1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum HttpVersions {
    /// HTTP/2 and HTTP/1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// HTTP/1.1 alone.
    #[serde(rename = "1.1")]
    Http1,
}

impl HttpVersions {
    /// Every word and what it stands for.
    pub const WORDS: [(&'static str, HttpVersions); 2] = [("auto", HttpVersions::Auto), ("1.1", HttpVersions::Http1)];

    /// What a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|(known, _)| *known == word).map(|(_, versions)| versions)
    }
}
