//! Write-only values and the places they are sent to. Whoever may change a registration must not come to
//! see its secrets by it: a value that is kept goes where it went, or has to be given again.
//!
//! A place is an origin: scheme, host and port. The header values of a tenant's own and the secret part of
//! `auth` go to the registration's `url`; the secret of an OAuth 2.0 client goes to its `token_url`, and the
//! tokens made of it to the `url`. The value of an `auth` of type `header` belongs to its header's name too.
//! A private key is never sent (and what is proved with it holds for one connection), nor is a signing
//! secret: both may stay.

use gatepost_core::auth::EndpointAuth as Registered;

use crate::error::FieldError;
use crate::net::Target;

/// Where a registration's secrets go.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    /// The receiver.
    pub(crate) url: &'a str,
    /// How Gatepost proves itself there.
    pub(crate) auth: Option<&'a Registered>,
}

/// What of a registration's secrets a change would send elsewhere, if it kept them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moved {
    headers: bool,
    auth: bool,
}

impl Moved {
    /// Compares a registration with what is to become of it.
    pub(crate) fn between(before: Places<'_>, after: Places<'_>) -> Moved {
        let url = other_origin(before.url, after.url);
        let auth = match (before.auth, after.auth) {
            (Some(Registered::Mtls { .. }), Some(Registered::Mtls { .. })) => false,
            (Some(Registered::Header { name: was }), Some(Registered::Header { name: is })) => {
                url || !was.eq_ignore_ascii_case(is)
            }
            (Some(Registered::Oauth2 { token_url: was, .. }), Some(Registered::Oauth2 { token_url: is, .. })) => {
                url || other_origin(was, is)
            }
            (Some(_), Some(_)) => url,
            (None, _) | (_, None) => false,
        };
        Moved { headers: url, auth }
    }

    /// What is wrong with keeping these values: own headers, by name, and the secret part of `auth`.
    /// Pointers are those of the registration.
    pub(crate) fn refuse<'n>(
        self,
        kept_headers: impl Iterator<Item = &'n str>,
        kept_auth: Option<&Registered>,
    ) -> Vec<FieldError> {
        let headers = kept_headers.filter(|_| self.headers).map(header_pointer);
        let auth = kept_auth.filter(|_| self.auth).map(auth_pointer);
        headers.chain(auth).map(|pointer| FieldError::new(pointer, AGAIN)).collect()
    }

    /// The same values where they are given: whoever compares by value must know that they are needed, as
    /// they are too.
    pub(crate) fn needed<'n>(
        self,
        headers: impl Iterator<Item = &'n str>,
        auth: Option<&Registered>,
    ) -> impl Iterator<Item = String> {
        let headers = headers.filter(move |_| self.headers).map(header_pointer);
        headers.chain(auth.filter(|_| self.auth).map(auth_pointer))
    }
}

const AGAIN: &str = "was given for another address or header name, and a value that cannot be read is not sent \
                     elsewhere: give the value again, or take it away with null";

fn header_pointer(name: &str) -> String {
    format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn auth_pointer(auth: &Registered) -> String {
    format!("/auth/{}", auth.secret_member())
}

/// Whether two URLs have different origins. One that cannot be called is a fault of its own, told elsewhere.
fn other_origin(before: &str, after: &str) -> bool {
    if before == after {
        return false;
    }
    match (Target::parse(before), Target::parse(after)) {
        (Ok(before), Ok(after)) => before.key() != after.key(),
        (Err(_), Ok(_)) => true,
        (_, Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oauth2(token_url: &str, client_id: &str) -> Registered {
        let (token_url, client_id) = (token_url.to_owned(), client_id.to_owned());
        Registered::Oauth2 { token_url, client_id, scope: None, audience: None }
    }

    #[test]
    fn p7_a_kept_value_stays_where_it_was_sent() {
        let (a, b) = ("https://a.test/x", "https://b.test/x");
        let header = |name: &str| Registered::Header { name: name.into() };
        let basic = |username: &str| Registered::Basic { username: username.into() };
        let mtls = |certificate: &str| Registered::Mtls { certificate: certificate.into() };
        let idp = || oauth2("https://idp.test/token", "c");
        type At = (&'static str, Registered);
        // (before, after) → (own headers, the secret of auth)
        let cases: [(At, At, (bool, bool)); 20] = [
            ((a, Registered::Bearer), (a, Registered::Bearer), (false, false)),
            ((a, Registered::Bearer), ("HTTPS://A.test:443/other?q", Registered::Bearer), (false, false)),
            ((a, Registered::Bearer), (b, Registered::Bearer), (true, true)),
            ((a, Registered::Bearer), ("https://a.test:8443/x", Registered::Bearer), (true, true)),
            ((a, Registered::Bearer), ("http://a.test/x", Registered::Bearer), (true, true)),
            ((a, Registered::Bearer), ("https://a.test.b.test/x", Registered::Bearer), (true, true)),
            ((a, Registered::Bearer), ("https://sub.a.test/x", Registered::Bearer), (true, true)),
            ((a, Registered::Bearer), ("no url", Registered::Bearer), (false, false)),
            (("no url", Registered::Bearer), (a, Registered::Bearer), (true, true)),
            ((a, basic("u")), (a, basic("v")), (false, false)),
            ((a, basic("u")), (b, basic("u")), (true, true)),
            ((a, header("x-key")), (a, header("X-Key")), (false, false)),
            ((a, header("x-key")), (a, header("x-other")), (false, true)),
            ((a, idp()), (a, oauth2("https://idp.test/other", "d")), (false, false)),
            ((a, idp()), (a, oauth2("https://idp2.test/token", "c")), (false, true)),
            ((a, idp()), (a, oauth2("https://idp.test:444/token", "c")), (false, true)),
            // Tokens go where the requests go.
            ((a, idp()), (b, idp()), (true, true)),
            ((a, mtls("C")), (b, mtls("C")), (true, false)),
            // Another type keeps nothing.
            ((a, Registered::Bearer), (a, basic("u")), (false, false)),
            ((a, header("x-key")), (b, idp()), (true, true)),
        ];
        for ((url, auth), (new_url, new_auth), (headers, secret)) in cases {
            let before = Places { url, auth: Some(&auth) };
            let after = Places { url: new_url, auth: Some(&new_auth) };
            let moved = Moved::between(before, after);
            assert_eq!(moved, Moved { headers, auth: secret }, "{url} {auth:?} -> {new_url} {new_auth:?}");
            let pointers: Vec<_> =
                moved.refuse(["X/y"].into_iter(), Some(&new_auth)).into_iter().map(|error| error.pointer).collect();
            let mut expected = Vec::new();
            expected.extend(headers.then(|| "/headers/X~1y".to_owned()));
            expected.extend(secret.then(|| format!("/auth/{}", new_auth.secret_member())));
            assert_eq!(pointers, expected);
        }
        let none = Places { url: a, auth: None };
        assert_eq!(Moved::between(none, Places { url: b, auth: None }), Moved { headers: true, auth: false });
    }
}
