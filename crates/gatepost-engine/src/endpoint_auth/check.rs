//! What makes an endpoint auth valid at write. Pointers are relative to the member `auth`.

use gatepost_core::auth::EndpointAuth as Registered;
use gatepost_core::secret::Secret;

use crate::error::FieldError;
use crate::net::{BadIdentity, ClientIdentity};

/// Bytes of any secret text but a private key.
const SECRET_MAX: usize = 8_192;
/// Characters of a user's name, a client's id and the like.
const NAME_MAX: usize = 1_024;
const AUDIENCE_MAX: usize = 2_048;

/// Everything wrong with an auth, with its secret member as given now or kept (`None`: it is missing,
/// which is told too). `may_call` judges a token URL as the registration's own URL is judged.
pub(crate) fn check(
    auth: &Registered,
    secret: Option<&Secret>,
    may_call: impl Fn(&str) -> Result<(), String>,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bad = |member: &str, message: &str| errors.push(FieldError::new(format!("/{member}"), message));
    if secret.is_none_or(|secret| secret.expose().is_empty()) {
        bad(auth.secret_member(), "is required");
    }
    let secret = secret.map(Secret::expose).unwrap_or_default();
    match auth {
        Registered::Bearer => {
            if secret.len() > SECRET_MAX || !secret.bytes().all(|b| b.is_ascii_graphic()) {
                bad("token", "must be at most 8192 visible ASCII characters without spaces");
            }
        }
        Registered::Basic { username } => {
            if username.chars().count() > NAME_MAX || username.contains(':') || has_control(username) {
                bad("username", "must have at most 1024 characters, no colon and no control characters (RFC 7617)");
            }
            if secret.len() > SECRET_MAX || has_control(secret) {
                bad("password", "must have at most 8192 bytes and no control characters (RFC 7617)");
            }
        }
        Registered::Header { .. } => {
            // The name is judged as that of a header of the tenant's own.
            let visible = secret.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
            if secret.len() > SECRET_MAX || !visible || secret.trim_matches([' ', '\t']) != secret {
                bad("value", "must be at most 8192 visible ASCII characters, with no space at either end");
            }
        }
        Registered::Oauth2 { token_url, client_id, scope, audience } => {
            if let Err(message) = may_call(token_url) {
                bad("token_url", &message);
            }
            if client_id.is_empty() || client_id.chars().count() > NAME_MAX || has_control(client_id) {
                bad("client_id", "must have 1 to 1024 characters and no control characters");
            }
            if secret.len() > SECRET_MAX || has_control(secret) {
                bad("client_secret", "must have at most 8192 bytes and no control characters");
            }
            if scope.as_ref().is_some_and(|scope| !is_scope(scope)) {
                bad("scope", "must be scopes of visible ASCII characters (no \" and \\), with single spaces between");
            }
            if audience.as_ref().is_some_and(|a| a.is_empty() || a.chars().count() > AUDIENCE_MAX || has_control(a)) {
                bad("audience", "must have 1 to 2048 characters and no control characters");
            }
        }
        Registered::Mtls { certificate } => match ClientIdentity::from_pem(certificate, secret) {
            Err(error @ BadIdentity::Certificate(_)) => bad("certificate", &error.to_string()),
            Err(error @ BadIdentity::PrivateKey(_)) if !secret.is_empty() => bad("private_key", &error.to_string()),
            _ => {}
        },
    }
    errors
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// RFC 6749 section 3.3.
fn is_scope(scope: &str) -> bool {
    let token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    scope.len() <= 2_048 && scope.split(' ').all(token)
}

#[cfg(test)]
mod tests {
    use gatepost_testkit::TestCa;

    use super::*;

    fn oauth2(token_url: &str, client_id: &str, scope: Option<&str>, audience: Option<&str>) -> Registered {
        Registered::Oauth2 {
            token_url: token_url.to_owned(),
            client_id: client_id.to_owned(),
            scope: scope.map(str::to_owned),
            audience: audience.map(str::to_owned),
        }
    }

    #[test]
    fn every_member_is_judged_and_no_secret_is_repeated() {
        let (basic, header) =
            (|u: &str| Registered::Basic { username: u.into() }, Registered::Header { name: "x-a".into() });
        let good = "https://idp.test/token";
        let long = "s".repeat(SECRET_MAX + 1);
        let cases: [(Registered, Option<&str>, &[&str]); 24] = [
            (Registered::Bearer, Some("t0k-en"), &[]),
            (Registered::Bearer, None, &["/token"]),
            (Registered::Bearer, Some(""), &["/token"]),
            (Registered::Bearer, Some("hush hush"), &["/token"]),
            (Registered::Bearer, Some("hush\r\nx: y"), &["/token"]),
            (Registered::Bearer, Some(&long), &["/token"]),
            (basic("me"), Some("päss wörd"), &[]),
            (basic(""), Some("p"), &[]),
            (basic("a:b"), Some("hush\n"), &["/username", "/password"]),
            (header.clone(), Some("hush hush"), &[]),
            (header.clone(), Some(" hush"), &["/value"]),
            (header.clone(), Some("hu\nsh"), &["/value"]),
            (header, Some("hüsh"), &["/value"]),
            (oauth2(good, "c", Some("a b:c/d"), Some("https://api.test/")), Some("hush"), &[]),
            (oauth2("http://idp.test/", "", None, None), None, &["/client_secret", "/token_url", "/client_id"]),
            (
                oauth2(good, "c\n", Some("a  b"), Some("")),
                Some("hu\u{0}sh"),
                &["/client_id", "/client_secret", "/scope", "/audience"],
            ),
            (oauth2(good, "c", Some(""), None), Some("hush"), &["/scope"]),
            (oauth2(good, "c", Some("a\"b"), None), Some("hush"), &["/scope"]),
            (oauth2(good, "c", Some("a "), None), Some("hush"), &["/scope"]),
            (oauth2(good, "c", None, None), Some(&long), &["/client_secret"]),
            (Registered::Mtls { certificate: "hush".into() }, Some("hush"), &["/certificate"]),
            (Registered::Mtls { certificate: "hush".into() }, None, &["/private_key", "/certificate"]),
            (Registered::Mtls { certificate: TestCa::new().client("a").certificate }, None, &["/private_key"]),
            (Registered::Mtls { certificate: TestCa::new().client("a").certificate }, Some("hush"), &["/private_key"]),
        ];
        let may_call = |url: &str| if url.starts_with("https:") { Ok(()) } else { Err("must be https".to_owned()) };
        for (auth, secret, expected) in cases {
            let errors = check(&auth, secret.map(Secret::new).as_ref(), may_call);
            let pointers: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
            assert_eq!(pointers, expected, "{auth:?}");
            assert!(errors.iter().all(|e| !e.message.contains("hush")), "{errors:?}");
        }
        let (one, two) = (TestCa::new().client("one"), TestCa::new().client("two"));
        let auth = Registered::Mtls { certificate: one.certificate };
        assert!(check(&auth, Some(&Secret::new(one.private_key)), may_call).is_empty());
        let errors = check(&auth, Some(&Secret::new(two.private_key)), may_call);
        assert_eq!((errors.len(), errors[0].pointer.as_str()), (1, "/private_key"), "a key of another certificate");
    }
}
