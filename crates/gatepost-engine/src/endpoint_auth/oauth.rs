//! OAuth 2.0 client credentials on the wire (RFC 6749 sections 2.3.1, 4.4, 5.1 and 5.2).

use std::time::Duration;

use bytes::Bytes;
use gatepost_core::delivery::{Outcome, Timings};
use gatepost_core::hashing::sha256;
use gatepost_core::json::without_bom;
use gatepost_core::secret::Secret;
use gatepost_core::{TenantKey, Timestamp};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use serde::Deserialize;

use crate::net::{Exchange, Headers, Target};

/// How long a fetch may take, whatever the request that wants it allows.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a token is used that does not say when it expires.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);
/// No token is used longer, whatever it says.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// How much of an answer is read. Tokens that carry claims, beside an identity's, come to tens of KiB.
pub(super) const ANSWER_MAX: usize = 64 * 1024;

/// Names a grant without telling its secret to whoever looks at memory's maps.
pub(super) type GrantId = [u8; 32];

/// What a token is asked with.
pub(super) struct Grant {
    pub(super) id: GrantId,
    pub(super) target: Target,
    /// The endpoint for texts: a query may hold what is not to be shown.
    shown: String,
    client_id: String,
    secret: Secret,
    scope: Option<String>,
    audience: Option<String>,
}

/// Where the client's id and secret stand in a token request. The first is what every server must
/// understand, and is tried first; some understand only the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum ClientAuth {
    /// `authorization: Basic`.
    #[default]
    Header,
    /// Members of the form.
    Form,
}

/// A token as granted.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) header: HeaderValue,
    pub(super) lifetime: Duration,
}

/// Why there is no token. The text names the endpoint and no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NoToken {
    pub(super) outcome: Outcome,
    pub(super) error: String,
    pub(super) local_fault: bool,
    /// The server may not have understood how the client proved itself.
    pub(super) other_way: bool,
}

impl NoToken {
    /// As the exchange it prevented.
    pub(super) fn exchange(&self, started_at: Timestamp) -> Exchange {
        Exchange {
            started_at,
            outcome: self.outcome,
            status: None,
            error: Some(self.error.clone()),
            timings: Timings::default(),
            response: None,
            local_fault: self.local_fault,
            unusable: false,
            resend: Default::default(),
        }
    }
}

impl Grant {
    pub(super) fn new(
        tenant: TenantKey,
        token_url: &str,
        client_id: &str,
        secret: Secret,
        scope: Option<String>,
        audience: Option<String>,
    ) -> Result<Self, String> {
        let target = Target::parse(token_url).map_err(|e| format!("the token endpoint's URL cannot be called: {e}"))?;
        let shown = token_url.split(['?', '#']).next().unwrap_or_default().to_owned();
        let mut named = Vec::new();
        named.extend_from_slice(&tenant.0.to_be_bytes());
        for part in [Some(token_url), Some(client_id), Some(secret.expose()), scope.as_deref(), audience.as_deref()] {
            // Each part hashed by itself: no two lists of parts run together to the same name.
            named.extend_from_slice(&part.map_or([0; 32], |part| sha256(part.as_bytes())));
        }
        let client_id = client_id.to_owned();
        Ok(Grant { id: sha256(&named), target, shown, client_id, secret, scope, audience })
    }

    /// The token request.
    pub(super) fn request(&self, way: ClientAuth) -> (Method, Headers, Bytes) {
        let mut headers = Headers::from([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        let mut form = form_urlencoded::Serializer::new(String::from("grant_type=client_credentials"));
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        if let Some(audience) = &self.audience {
            form.append_pair("audience", audience);
        }
        match way {
            ClientAuth::Header => {
                // Both are form-encoded before they are joined by the colon (section 2.3.1).
                let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let value = super::basic(&encoded(&self.client_id), &encoded(self.secret.expose()));
                headers.extend(value.map(|value| (AUTHORIZATION, value)));
            }
            ClientAuth::Form => {
                form.append_pair("client_id", &self.client_id).append_pair("client_secret", self.secret.expose());
            }
        }
        (Method::POST, headers, Bytes::from(form.finish()))
    }

    /// What the endpoint's answer comes to.
    pub(super) fn read(&self, answer: &Exchange) -> Result<Granted, NoToken> {
        let Some(status) = answer.status else {
            // The texts of failed calls speak of "the receiver": here that is the token endpoint.
            let error = answer.error.as_deref().unwrap_or("no answer").replace("the receiver", "it");
            return Err(self.failed(answer.outcome, &error, answer.local_fault));
        };
        let response = answer.response.as_ref();
        let body = response.map(|response| without_bom(&response.body)).unwrap_or_default();
        let unreadable = response.and_then(|response| response.unreadable(ANSWER_MAX));
        if !(200..300).contains(&status) {
            return Err(self.refused(status, if unreadable.is_some() { &[] } else { body }));
        }
        if let Some(why) = unreadable {
            return Err(self.failed(Outcome::Connect, &why.replace("the answer", "its answer"), false));
        }
        read_granted(body).map_err(|why| self.failed(Outcome::Connect, &why, false))
    }

    fn refused(&self, status: u16, body: &[u8]) -> NoToken {
        let code = serde_json::from_slice::<Refusal>(body).ok().and_then(|refusal| known_code(&refusal.error));
        let more = code.map(|code| format!(" ({code})")).unwrap_or_default();
        let other_way = match code {
            Some(code) => matches!(code, "invalid_client" | "invalid_request"),
            None => status == 401,
        };
        NoToken { other_way, ..self.failed(Outcome::Connect, &format!("it answered {status}{more}"), false) }
    }

    /// A failure to get a token is no answer of the endpoint itself: what `outcome` says of a call
    /// that never came to an answer is said of this one.
    pub(super) fn failed(&self, outcome: Outcome, why: &str, local_fault: bool) -> NoToken {
        let error = format!("no token from the token endpoint {}: {why}", self.shown);
        NoToken { outcome, error, local_fault, other_way: false }
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// The codes of RFC 6749 section 5.2. Nothing else of a refusal is repeated: it may repeat what was sent.
fn known_code(code: &str) -> Option<&'static str> {
    const CODES: [&str; 7] = [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "access_denied",
    ];
    CODES.into_iter().find(|known| *known == code)
}

#[derive(Deserialize)]
struct GrantForm {
    access_token: Secretive,
    /// Of any shape: its only use is to be compared.
    #[serde(default)]
    token_type: serde_json::Value,
    #[serde(default)]
    expires_in: Option<Seconds>,
}

/// Never printed by a derive.
#[derive(Deserialize)]
#[serde(transparent)]
struct Secretive(String);

/// Some servers write the number as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn duration(&self) -> Option<Duration> {
        let seconds = match self {
            Seconds::Number(number) => *number,
            Seconds::Text(text) => text.trim().parse().ok()?,
        };
        // A token that expires at once, or did, is used this one time.
        Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LIFETIME_MAX))
    }
}

/// Types of tokens that prove nothing by themselves: each request needs a signature or a proof as well.
const NEED_MORE: [&str; 4] = ["mac", "DPoP", "PoP", "hawk"];

fn read_granted(body: &[u8]) -> Result<Granted, String> {
    let form: GrantForm =
        serde_json::from_slice(body).map_err(|_| "its answer is not JSON with a text access_token")?;
    let named = form.token_type.as_str().map(str::trim).unwrap_or_default();
    if let Some(kind) = NEED_MORE.into_iter().find(|kind| kind.eq_ignore_ascii_case(named)) {
        return Err(format!(
            "its token is of the type {kind}, which needs more than Bearer: have it grant bearer tokens"
        ));
    }
    let token = form.access_token.0;
    let header = Some(&token)
        .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
        .and_then(|token| super::bearer(token))
        .ok_or("its access_token cannot be written as a header")?;
    let lifetime = form.expires_in.and_then(|seconds| seconds.duration()).unwrap_or(LIFETIME_DEFAULT);
    Ok(Granted { header, lifetime: lifetime.min(LIFETIME_MAX) })
}

#[cfg(test)]
mod tests {
    use gatepost_core::delivery::Response;

    use super::*;

    fn grant(url: &str, client_id: &str, secret: &str, scope: Option<&str>) -> Grant {
        let scope = scope.map(str::to_owned);
        Grant::new(TenantKey(1), url, client_id, Secret::new(secret), scope, None).unwrap()
    }

    fn answer(status: u16, body: &str) -> Exchange {
        Exchange {
            started_at: Timestamp::EPOCH,
            outcome: Outcome::of_status(status),
            status: Some(status),
            error: None,
            timings: Timings::default(),
            response: Some(Response {
                headers: Vec::new(),
                body: Bytes::copy_from_slice(body.as_bytes()),
                truncated: false,
            }),
            local_fault: false,
            unusable: false,
            resend: Default::default(),
        }
    }

    #[test]
    fn the_request_is_that_of_the_rfc() {
        let grant = grant("https://idp.test/token", "s6BhdRkqt3:1", "7Fjfp0ZBr1Kt DRbnfVdmIw%", Some("a b"));
        let (method, headers, body) = grant.request(ClientAuth::Header);
        assert_eq!((method, &body[..]), (Method::POST, &b"grant_type=client_credentials&scope=a+b"[..]));
        let header = &headers.iter().find(|(name, _)| *name == AUTHORIZATION).unwrap().1;
        assert!(header.is_sensitive());
        // base64("s6BhdRkqt3%3A1:7Fjfp0ZBr1Kt+DRbnfVdmIw%25")
        assert_eq!(*header, "Basic czZCaGRSa3F0MyUzQTE6N0ZqZnAwWkJyMUt0K0RSYm5mVmRtSXclMjU=");
        let (_, headers, body) = grant.request(ClientAuth::Form);
        assert!(!headers.iter().any(|(name, _)| *name == AUTHORIZATION));
        let expected = "grant_type=client_credentials&scope=a+b&client_id=s6BhdRkqt3%3A1&\
                        client_secret=7Fjfp0ZBr1Kt+DRbnfVdmIw%25";
        assert_eq!(body, expected);
    }

    #[test]
    fn answers_are_read_as_servers_write_them() {
        let cases = [
            (r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#, Ok(3_600)),
            (r#"{"access_token":"t","token_type":"bearer","expires_in":"60","x":1}"#, Ok(60)),
            (r#"{"access_token":"t"}"#, Ok(300)),
            (r#"{"access_token":"t","expires_in":-5}"#, Ok(0)),
            (r#"{"access_token":"t","expires_in":1e300}"#, Ok(86_400)),
            // Types nobody heard of are the one everybody means.
            (r#"{"access_token":"t","token_type":"BearerToken","expires_in":"3599"}"#, Ok(3_599)),
            (r#"{"access_token":"t","token_type":"N_A"}"#, Ok(300)),
            (r#"{"access_token":"t","token_type":""}"#, Ok(300)),
            (r#"{"access_token":"t","token_type":null}"#, Ok(300)),
            (r#"{"access_token":"t","token_type":["bearer"]}"#, Ok(300)),
            ("\u{feff}{\"access_token\":\"t\"}", Ok(300)),
            (r#"{"access_token":"t","token_type":"mac"}"#, Err("type mac, which needs more")),
            (r#"{"access_token":"t","token_type":"dpop"}"#, Err("type DPoP")),
            (r#"{"access_token":"t","token_type":" pop"}"#, Err("type PoP")),
            ("\u{1f}\u{8b}\u{8}", Err("not JSON")),
            (r#"{"access_token":"a b"}"#, Err("header")),
            (r#"{"access_token":""}"#, Err("header")),
            (r#"{"access_token":"a\nb"}"#, Err("header")),
            (r#"{"access_token":7}"#, Err("not JSON")),
            (r#"{"token":"t"}"#, Err("not JSON")),
            ("<html>", Err("not JSON")),
        ];
        let grant = grant("https://idp.test/token?key=hidden", "c", "hunter2", None);
        for (body, expected) in cases {
            match (grant.read(&answer(200, body)), expected) {
                (Ok(granted), Ok(seconds)) => assert_eq!(granted.lifetime.as_secs(), seconds, "{body}"),
                (Err(none), Err(word)) => {
                    assert!(none.error.contains(word) && none.error.contains("https://idp.test/token: "), "{none:?}");
                    assert_eq!((none.outcome, none.local_fault), (Outcome::Connect, false), "{body}");
                }
                (got, _) => panic!("{body}: {got:?}"),
            }
        }
    }

    #[test]
    fn an_answer_that_is_not_whole_is_told_as_that() {
        let grant = grant("https://idp.test/token", "c", "hunter2", None);
        let whole = answer(200, r#"{"access_token":"t"}"#);
        let changed = |change: fn(&mut Response)| {
            let mut response = whole.response.clone().unwrap();
            change(&mut response);
            grant.read(&Exchange { response: Some(response), ..answer(200, "") })
        };
        type Change = fn(&mut Response);
        let cases: [(Change, &str); 4] = [
            (
                |r| (r.body, r.truncated) = (Bytes::from(vec![b'{'; ANSWER_MAX]), true),
                ": its answer is too large: at most 64 KiB",
            ),
            // Whatever is there of it would read well.
            (|r| r.truncated = true, ": its answer broke off"),
            (|r| r.headers.push(("Content-Encoding".into(), "br".into())), ": its answer is compressed (br)"),
            (|r| r.body = Bytes::from_static(b"\x1f\x8b\x08"), ": its answer is compressed (gzip)"),
        ];
        for (change, words) in cases {
            let none = changed(change).unwrap_err();
            assert!(none.error.contains(words), "{none:?}");
        }
        assert!(changed(|r| r.headers.push(("content-encoding".into(), "identity".into()))).is_ok());
    }

    #[test]
    fn p7_refusals_repeat_nothing_but_the_code() {
        let grant = grant("https://idp.test/token?key=hidden", "c", "hunter2", None);
        let cases = [
            (401, r#"{"error":"invalid_client","error_description":"hunter2 is wrong"}"#, " (invalid_client)", true),
            (400, r#"{"error":"invalid_request"}"#, " (invalid_request)", true),
            (400, r#"{"error":"invalid_scope"}"#, " (invalid_scope)", false),
            (400, r#"{"error":"hunter2"}"#, "", false),
            (401, "hunter2", "", true),
            (500, "hunter2", "", false),
            (302, "", "", false),
        ];
        for (status, body, code, other_way) in cases {
            let none = grant.read(&answer(status, body)).unwrap_err();
            let text = format!("no token from the token endpoint https://idp.test/token: it answered {status}{code}");
            assert_eq!((none.error, none.other_way), (text, other_way), "{body}");
        }
    }

    #[test]
    fn p5_a_grant_is_one_tenants_one_clients() {
        let of = |tenant, url: &str, client: &str, secret: &str, scope: Option<&str>, audience: Option<&str>| {
            let (scope, audience) = (scope.map(str::to_owned), audience.map(str::to_owned));
            Grant::new(TenantKey(tenant), url, client, Secret::new(secret), scope, audience).unwrap().id
        };
        let ids = [
            of(1, "https://a.test/", "c", "s", None, None),
            of(2, "https://a.test/", "c", "s", None, None),
            of(1, "https://a.test/t", "c", "s", None, None),
            of(1, "https://a.test/", "d", "s", None, None),
            of(1, "https://a.test/", "c", "t", None, None),
            of(1, "https://a.test/", "c", "s", Some("x"), None),
            of(1, "https://a.test/", "c", "s", None, Some("x")),
            of(1, "https://a.test/", "c", "s", Some(""), None),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(ids[0], of(1, "https://a.test/", "c", "s", None, None));
    }
}
