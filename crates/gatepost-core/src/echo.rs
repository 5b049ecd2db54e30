//! What an endpoint repeats. Whoever is called knows the secrets it was called with, and may say them
//! again: in an error page, a debug header, a refusal. What is kept or shown of an answer must not hold
//! them (P7).
//!
//! A secret is looked for as it is, as it was sent, and as texts write it: in base64 with a user's name
//! (RFC 7617), inside a JSON text, in a form. Shorter ones than [`SHORTEST`] are not looked for: they occur
//! by chance in everything. What an answer *does* is never touched: only what is kept of it.

use std::borrow::Cow;

use crate::hooks::json::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memmem;
use zeroize::Zeroizing;

use crate::auth::EndpointAuth;
use crate::delivery::Response;
use crate::secret::{MASK, Secret};
use crate::webhook::SigningKey;

/// Bytes of the shortest secret that is masked in texts, headers and bodies for people.
pub const SHORTEST: usize = 6;
/// Bytes of the shortest secret that is masked in data that goes on (an object a hook changed): a word in
/// a header's value is no reason to take that word out of people's data.
pub const SHORTEST_IN_DATA: usize = 16;
/// Of a text that was cut, an end that is this much of a secret's beginning is masked.
const SHORTEST_CUT: usize = 4;

/// The secrets one endpoint knows, in the forms it may repeat them in.
#[derive(Clone, Default)]
pub struct Known {
    /// Longest first: a form that holds another is taken out whole.
    forms: Vec<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

impl Known {
    /// What the endpoint of a registration knows. A client certificate's key is not among it: it never
    /// leaves this server.
    pub fn of<'s>(
        signing: &[SigningKey],
        headers: impl Iterator<Item = &'s Secret>,
        auth: Option<(&EndpointAuth, &Secret)>,
    ) -> Known {
        let mut known = Known::default();
        for key in signing {
            known.add(key.text.expose());
        }
        for value in headers {
            known.add_header(value.expose());
        }
        match auth {
            None | Some((EndpointAuth::Mtls { .. }, _)) => {}
            Some((EndpointAuth::Basic { username }, password)) => {
                known.add(password.expose());
                let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
                known.add(&Zeroizing::new(STANDARD.encode(pair.as_bytes())));
            }
            Some((EndpointAuth::Header { .. }, value)) => known.add_header(value.expose()),
            Some((EndpointAuth::Bearer | EndpointAuth::Oauth2 { .. }, secret)) => known.add(secret.expose()),
        }
        known.forms.sort_unstable_by_key(|form| std::cmp::Reverse(form.len()));
        known
    }

    /// What was sent besides, with one request: tokens made for it.
    pub fn of_values<'v>(values: impl Iterator<Item = &'v str>) -> Known {
        let mut known = Known::default();
        values.for_each(|value| known.add_header(value));
        known.forms.sort_unstable_by_key(|form| std::cmp::Reverse(form.len()));
        known
    }

    /// A header's value, and what stands behind the name of its scheme (`Bearer …`).
    fn add_header(&mut self, value: &str) {
        self.add(value);
        let Some((scheme, rest)) = value.split_once(' ') else { return };
        self.add(rest.trim());
        if scheme.eq_ignore_ascii_case("basic")
            && let Ok(pair) = STANDARD.decode(rest.trim()).map(Zeroizing::new)
            && let Some((_, password)) = std::str::from_utf8(&pair).ok().and_then(|pair| pair.split_once(':'))
        {
            self.add(password);
        }
    }

    fn add(&mut self, secret: &str) {
        let bare = ["whsec_", "whsk_"].iter().find_map(|prefix| secret.strip_prefix(prefix));
        for secret in [Some(secret), bare].into_iter().flatten() {
            let json = Zeroizing::new(Value::from(secret).to_string());
            let json = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
            let form = Zeroizing::new(percent(secret));
            for text in [secret, json, &json.replace('/', "\\/"), &form] {
                let text = text.as_bytes();
                if text.len() >= SHORTEST && !self.forms.iter().any(|known| known[..] == *text) {
                    self.forms.push(Zeroizing::new(text.to_vec()));
                }
            }
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Whether data hold a secret, as they are written.
    pub fn occur_in_data(&self, bytes: &[u8]) -> bool {
        self.in_data().any(|form| memmem::find(bytes, form).is_some())
    }

    /// A text with every secret in it masked.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.masked(text.as_bytes(), false) {
            Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
            None => Cow::Borrowed(text),
        }
    }

    /// Masks what is kept of an answer.
    pub fn response(&self, response: &mut Response) {
        if let Some(masked) = self.masked(&response.body, response.truncated) {
            response.body = Bytes::from(masked);
        }
        for (_, value) in &mut response.headers {
            if let Cow::Owned(masked) = self.text(value) {
                *value = masked;
            }
        }
    }

    /// Masks the texts of data.
    pub fn data(&self, data: &mut Value) {
        match data {
            Value::String(text) => {
                for form in self.in_data() {
                    // Forms are made of texts.
                    if let Ok(form) = std::str::from_utf8(form)
                        && text.contains(form)
                    {
                        *text = text.replace(form, MASK);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.data(item)),
            Value::Object(members) => members.values_mut().for_each(|member| self.data(member)),
            Value::Raw(raw) => {
                let found = |form: &[u8]| raw.as_written().as_bytes().windows(form.len()).any(|part| part == form);
                if self.in_data().any(found) {
                    *data = MASK.into();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn in_data(&self) -> impl Iterator<Item = &[u8]> {
        self.forms.iter().map(|form| &form[..]).take_while(|form| form.len() >= SHORTEST_IN_DATA)
    }

    /// The bytes with every secret masked; `None`: there is none in them. `cut`: they end before their end,
    /// where a secret may have been cut through.
    fn masked(&self, bytes: &[u8], cut: bool) -> Option<Vec<u8>> {
        let mut out: Option<Vec<u8>> = None;
        for form in &self.forms {
            let now = out.as_deref().unwrap_or(bytes);
            if form.len() <= now.len()
                && let Some(replaced) = replaced(now, form)
            {
                out = Some(replaced);
            }
        }
        if cut {
            let now = out.as_deref().unwrap_or(bytes);
            let begun = self.forms.iter().filter_map(|form| begun_at_end(now, form)).max();
            if let Some(begun) = begun {
                let mut rest = now[..now.len() - begun].to_vec();
                rest.extend_from_slice(MASK.as_bytes());
                out = Some(rest);
            }
        }
        out
    }
}

/// Whether data hold a token as it was sent (`Bearer …`).
pub fn repeats(data: &[u8], token: &Secret) -> bool {
    let token = token.expose();
    let bare = token.split_once(' ').map_or(token, |(_, bare)| bare);
    bare.len() >= SHORTEST_IN_DATA && memmem::find(data, bare.as_bytes()).is_some()
}

/// The bytes with each `form` in them masked; `None`: there is none.
fn replaced(bytes: &[u8], form: &[u8]) -> Option<Vec<u8>> {
    let mut found = memmem::find_iter(bytes, form).peekable();
    found.peek()?;
    let (mut out, mut from) = (Vec::with_capacity(bytes.len()), 0);
    for at in found {
        out.extend_from_slice(&bytes[from..at]);
        out.extend_from_slice(MASK.as_bytes());
        from = at + form.len();
    }
    out.extend_from_slice(&bytes[from..]);
    Some(out)
}

/// How many bytes at the end are the beginning of `form`.
fn begun_at_end(bytes: &[u8], form: &[u8]) -> Option<usize> {
    let most = bytes.len().min(form.len().saturating_sub(1));
    (SHORTEST_CUT..=most).rev().find(|length| bytes.ends_with(&form[..*length]))
}

/// As a form writes it (RFC 3986 percent-encoding, all but unreserved characters).
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::hooks::json::json;

    use super::*;
    use crate::Timestamp;

    fn key(text: &str) -> SigningKey {
        SigningKey { text: Secret::new(text), created_at: Timestamp::from_secs(0), expires_at: None }
    }

    #[test]
    fn p7_every_form_of_a_secret_is_masked() {
        let headers = [
            Secret::new("Bearer own-token/12+3"),
            Secret::new("Basic dXNlcjpwYXNzLXdvcmQ="),
            Secret::new("quoted\"secret"),
            Secret::new("short"),
        ];
        let basic = EndpointAuth::Basic { username: "gate".into() };
        let secret = Secret::new("auth-password");
        let signing = [key("whsec_c2lnbmluZy9zZWNyZXQrYnl0ZXM=")];
        let known = Known::of(&signing, headers.iter(), Some((&basic, &secret)));
        let cases = [
            ("got Bearer own-token/12+3.", "got ***."),
            ("got own-token/12+3 only", "got *** only"),
            (r#"{"a":"own-token\/12+3"}"#, r#"{"a":"***"}"#),
            ("token=own-token%2F12%2B3&x", "token=***&x"),
            ("authorization: Basic dXNlcjpwYXNzLXdvcmQ=", "authorization: ***"),
            ("dXNlcjpwYXNzLXdvcmQ=", "***"),
            ("user:pass-word", "user:***"),
            (r#"{"h":"quoted\"secret"}"#, r#"{"h":"***"}"#),
            ("quoted\"secret", "***"),
            ("whsec_c2lnbmluZy9zZWNyZXQrYnl0ZXM=", "***"),
            ("c2lnbmluZy9zZWNyZXQrYnl0ZXM=", "***"),
            ("auth-password, auth-password", "***, ***"),
            ("Z2F0ZTphdXRoLXBhc3N3b3Jk", "***"),
            // By chance in everything.
            ("short of time", "short of time"),
            ("nothing", "nothing"),
        ];
        for (text, masked) in cases {
            assert_eq!(known.text(text), masked, "{text}");
        }
        assert_eq!(format!("{known:?}"), "***");
    }

    #[test]
    fn p7_what_was_cut_through_a_secret_shows_no_part_of_it() {
        let known = Known::of_values(["Bearer a-long-token-of-one-request"].into_iter());
        let body = |body: &str, truncated| {
            let mut response =
                Response { body: Bytes::copy_from_slice(body.as_bytes()), truncated, ..Response::default() };
            known.response(&mut response);
            String::from_utf8(response.body.to_vec()).unwrap()
        };
        assert_eq!(body("said a-long-token-of-one-reques", true), "said ***");
        assert_eq!(body("said Bearer a-lon", true), "said ***");
        assert_eq!(body("said a-l", true), "said a-l");
        assert_eq!(body("said a-long-token-of-one-reques", false), "said a-long-token-of-one-reques");
        assert_eq!(body("a-long-token-of-one-request a-long", true), "*** ***");
        let mut response =
            Response { headers: vec![("x-echo".into(), "a-long-token-of-one-request".into())], ..Response::default() };
        known.response(&mut response);
        assert_eq!(response.headers[0].1, "***");
    }

    #[test]
    fn p7_data_lose_credentials_and_no_words() {
        let known = Known::of_values(["production", "a-long-token-of-one-request"].into_iter());
        let mut data = json!({"env": "production", "list": ["x a-long-token-of-one-request y", 7, null]});
        assert!(known.occur_in_data(data.to_string().as_bytes()));
        known.data(&mut data);
        assert_eq!(data, json!({"env": "production", "list": ["x *** y", 7, null]}));
        assert!(!known.occur_in_data(data.to_string().as_bytes()));
    }

    #[test]
    fn a_certificate_s_key_is_not_looked_for() {
        let mtls = EndpointAuth::Mtls { certificate: "C".into() };
        assert!(Known::of(&[], std::iter::empty(), Some((&mtls, &Secret::new("a private key")))).is_empty());
    }
}
