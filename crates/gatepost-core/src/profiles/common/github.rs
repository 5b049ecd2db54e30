//! Scheme `github`: `x-hub-signature-256: sha256=<hex>` over the body, as GitHub signs its webhooks.
//! It holds one signature only: a rotation ends the old secret at once.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::super::facts::SignFacts;
use super::super::scheme::{KeyForm, Scheme, SchemeHeader, SignedHeaders, Signer};
use crate::signing::{BadSecret, TextKey};
use crate::webhook::SigningKey;

const HEADER: &str = "x-hub-signature-256";

pub(super) struct GitHub;

impl Scheme for GitHub {
    fn name(&self) -> &'static str {
        "github"
    }

    fn key(&self) -> KeyForm {
        KeyForm::Text
    }

    fn takes_header(&self) -> bool {
        true
    }

    fn headers(&self, header: Option<&str>) -> Vec<SchemeHeader> {
        vec![SchemeHeader::own(name(header))]
    }

    fn signer(
        &self,
        keys: &[&SigningKey],
        header: Option<&str>,
        _: &Map<String, Value>,
    ) -> Result<Box<dyn Signer>, BadSecret> {
        let key = keys.first().ok_or(BadSecret::Empty)?;
        Ok(Box::new(GitHubSigner { key: TextKey::new(key.text.expose()), header: name(header) }))
    }
}

fn name(header: Option<&str>) -> Cow<'static, str> {
    header.map_or(Cow::Borrowed(HEADER), |name| Cow::Owned(name.to_owned()))
}

struct GitHubSigner {
    key: TextKey,
    header: Cow<'static, str>,
}

impl Signer for GitHubSigner {
    fn sign(&self, facts: &SignFacts<'_>, headers: &mut SignedHeaders) {
        headers.put(self.header.clone(), format!("sha256={}", self.key.hex(&[facts.body])));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{keys, sign};

    #[test]
    fn the_published_vector() {
        let sent = sign(&["github"], None, &keys(&[("It's a Secret to Everybody", None)]), 1, b"Hello, World!");
        let mac = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(sent, [("x-hub-signature-256".to_owned(), mac.to_owned())]);
    }
}
