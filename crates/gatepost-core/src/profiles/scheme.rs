//! Signing schemes: the headers by which a receiver knows that a request is ours.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::facts::SignFacts;
use crate::Entropy;
use crate::secret::Secret;
use crate::signing::{self, BadSecret};
use crate::webhook::SigningKey;

/// What kind of key a scheme takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyForm {
    /// None.
    Nothing,
    /// `whsec_` and base64.
    Standard,
    /// Any text; its UTF-8 bytes are the key. A `whsec_…` text is one too.
    Text,
    /// `whsk_` and base64: a key pair whose public half is shown.
    Ed25519,
}

/// One way to sign.
pub trait Scheme: Send + Sync {
    /// Its name, as in a webhook's `signing`.
    fn name(&self) -> &'static str;

    /// The kind of key it takes.
    fn key(&self) -> KeyForm;

    /// A new key of the scheme's own shape.
    fn generate(&self, entropy: &dyn Entropy) -> Secret {
        match self.key() {
            KeyForm::Nothing | KeyForm::Standard | KeyForm::Ed25519 => signing::generate_secret(entropy),
            KeyForm::Text => signing::generate_text(entropy),
        }
    }

    /// Whether an older key can sign beside the present one.
    fn overlaps(&self) -> bool {
        false
    }

    /// Whether a webhook may name the header that carries the signature.
    fn takes_header(&self) -> bool {
        false
    }

    /// The headers it sends, in order. `header` is the webhook's choice, lower-case.
    fn headers(&self, header: Option<&str>) -> Vec<SchemeHeader>;

    /// What signs, ready for use; `keys` are those of its kind, the present one first, older ones that
    /// may still sign after it.
    ///
    /// # Errors
    /// When a key is none of this scheme's.
    fn signer(
        &self,
        keys: &[&SigningKey],
        header: Option<&str>,
        options: &Map<String, Value>,
    ) -> Result<Box<dyn Signer>, BadSecret>;
}

/// A header a scheme sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchemeHeader {
    /// Its name, lower-case.
    pub name: Cow<'static, str>,
    /// Whether another scheme may write it too: the values are the same, or are joined by a space.
    pub shared: bool,
}

impl SchemeHeader {
    /// A header of one scheme alone.
    pub fn own(name: impl Into<Cow<'static, str>>) -> Self {
        SchemeHeader { name: name.into(), shared: false }
    }

    /// A header several schemes share.
    pub const fn shared(name: &'static str) -> Self {
        SchemeHeader { name: Cow::Borrowed(name), shared: true }
    }
}

/// Signs attempts. Made once, used for every attempt.
pub trait Signer: Send + Sync {
    /// Adds the headers named by [`Scheme::headers`].
    fn sign(&self, facts: &SignFacts<'_>, headers: &mut SignedHeaders);
}

/// A header that carries id, time or signature of one attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedHeader {
    /// Its name, lower-case.
    pub name: Cow<'static, str>,
    /// Its value.
    pub value: String,
    /// Whether the value opens something (a token): then it is kept and shown as `***`.
    pub secret: bool,
}

/// The headers that carry id, time and signature of one attempt, in the order sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SignedHeaders {
    list: Vec<SignedHeader>,
}

impl SignedHeaders {
    /// None yet; room for the three of the usual scheme.
    pub fn new() -> Self {
        SignedHeaders { list: Vec::with_capacity(3) }
    }

    /// Adds a header. One that another scheme set already keeps its value: both mean the same.
    pub fn put(&mut self, name: impl Into<Cow<'static, str>>, value: String) {
        let name = name.into();
        if !self.list.iter().any(|header| header.name == name) {
            self.list.push(SignedHeader { name, value, secret: false });
        }
    }

    /// Adds a header whose value opens something.
    pub fn put_secret(&mut self, name: impl Into<Cow<'static, str>>, value: String) {
        self.list.push(SignedHeader { name: name.into(), value, secret: true });
    }

    /// Adds an item to a header that is a list separated by single spaces.
    pub fn join(&mut self, name: impl Into<Cow<'static, str>>, value: String) {
        let name = name.into();
        match self.list.iter_mut().find(|header| header.name == name) {
            Some(header) => {
                header.value.push(' ');
                header.value.push_str(&value);
            }
            None => self.list.push(SignedHeader { name, value, secret: false }),
        }
    }

    /// The headers, in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = &SignedHeader> {
        self.list.iter()
    }
}

impl IntoIterator for SignedHeaders {
    type Item = SignedHeader;
    type IntoIter = std::vec::IntoIter<SignedHeader>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}
