use std::sync::Arc;

use crate::hooks::json::json;
use aws_lc_rs::hmac;

use super::*;
use crate::hooks::json::Pointer;
use crate::hooks::points::{PointKind, builtin};
use crate::hooks::secrets::SecretJson;
use crate::webhook::SigningKey;

const ID: &str = "inv_1";

fn point(name: &str) -> &'static Arc<PointDef> {
    builtin(name).unwrap()
}

fn read_with(profile: &str, at: &str, status: u16, body: &[u8], status_deny: bool) -> Result<Answer, FailureClass> {
    let expected = Expected { id: ID, point: point(at), status_deny };
    let received = Received { status, encoding: None, body };
    read_answer(codec(profile).unwrap(), &expected, &received).map_err(|failure| failure.class)
}

/// What an answer means, in one line.
fn said(answer: &Answer) -> String {
    if answer.denies {
        let codes: Vec<_> = answer.messages.iter().map(|m| m.code.as_str()).collect();
        return format!("deny {}", codes.join(","));
    }
    let mut out = "allow".to_owned();
    if let Some(proposal) = &answer.proposal {
        out += &format!(" {}={}", proposal.at, proposal.value);
    }
    if !answer.value.is_null() {
        out += &format!(" value={}", answer.value);
    }
    out
}

fn table(profile: &str, rows: &[(&str, u16, &str, &str)]) {
    for (at, status, body, expected) in rows {
        let seen = match read_with(profile, at, *status, body.as_bytes(), false) {
            Ok(answer) => said(&answer),
            Err(class) => class.to_string(),
        };
        assert_eq!(seen, *expected, "{at} {status} {body}");
    }
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../hooks/fixtures/", $name))
    };
}

/// The table: every documented form of answer, and what it means.
#[test]
fn every_cymmetri_answer() {
    let user = r#"{"assignedGroups":[],"country":"India","firstName":"Shreyash2","lastName":"Pande2","login":"shreyash2","provisionedApps":{},"securityQuestion":{},"userType":"Employee"}"#;
    let whole = format!("allow /user={user}");
    table(
        "cymmetri",
        &[
            // The document's own answers.
            ("preCreateUser", 200, fixture!("resp_preCreateUser.json"), &whole),
            ("preUpdateUser", 200, fixture!("resp_preUpdateUser.json"), &whole),
            ("validateUser", 200, fixture!("resp_validateUser.json"), "deny MobileAlreadyExist"),
            ("validateUpdateUser", 200, fixture!("resp_validateUpdateUser.json"), "deny EmailAlreadyExist"),
            ("policyMap", 200, fixture!("resp_policyMap.json"), r#"allow value="valid""#),
            ("runDeprovision", 200, fixture!("resp_runDeprovision.json"), "allow value=true"),
            ("test", 200, fixture!("resp_test.json"), "allow"),
            // Saying nothing, in every way.
            ("preCreateUser", 200, "{}", "allow"),
            ("preCreateUser", 204, "", "allow"),
            ("preCreateUser", 200, " \n", "allow"),
            ("preCreateUser", 200, r#"{"response":{}}"#, "allow"),
            ("preCreateUser", 200, r#"{"response":null}"#, "allow"),
            ("preCreateUser", 200, r#"{"response":{"data":null}}"#, "allow"),
            ("validateUser", 200, "{}", "allow"),
            ("validateUser", 204, "", "allow"),
            ("validateUser", 202, "", "allow"),
            ("validateUser", 200, r#"{"response":{}}"#, "allow"),
            ("validateUser", 200, r#"{"response":{"error":null}}"#, "allow"),
            ("policyMap", 200, "{}", "allow"),
            ("policyMap", 204, "", "allow"),
            ("policyMap", 200, r#"{"response":{}}"#, "allow"),
            ("policyMap", 200, r#"{"response":{"mappedValue":null}}"#, "allow"),
            // A number is its own text, to the last digit.
            ("policyMap", 200, r#"{"response":{"mappedValue": 7.50 }}"#, r#"allow value="7.50""#),
            (
                "policyMap",
                200,
                r#"{"mappedValue":12345678901234567890123}"#,
                r#"allow value="12345678901234567890123""#,
            ),
            ("runDeprovision", 200, "{}", "bad_shape"),
            ("runDeprovision", 204, "", "bad_shape"),
            ("runDeprovision", 200, r#"{"response":{}}"#, "bad_shape"),
            // Validators.
            ("validateUser", 200, r#"{"response":{"error":false}}"#, "allow"),
            ("validateUser", 200, r#"{"response":{"error":false,"message":"fine"}}"#, "allow"),
            ("validateUser", 200, r#"{"response":{"error":true}}"#, "deny UNKNOWN"),
            ("validateUser", 200, r#"{"response":{"error":true,"message":""}}"#, "deny UNKNOWN"),
            ("validateUser", 200, r#"{"response":{"error":true,"message":7}}"#, "deny 7"),
            ("validateUser", 200, r#"{"response":{"error":true,"message":"X","data":{"a":1}}}"#, "deny X"),
            ("validateUser", 200, r#"{"response":{"error":true,"data":"junk"}}"#, "deny UNKNOWN"),
            ("validateUser", 200, r#"{"response":{"error":"true"}}"#, "bad_shape"),
            ("validateUser", 200, r#"{"response":{"error":1,"message":"X"}}"#, "bad_shape"),
            ("validateUser", 200, r#"{"response":{"data":{"city":"x"}}}"#, r#"allow /user={"city":"x"}"#),
            ("validateUser", 200, r#"{"request":{"user":{"city":"x"}}}"#, r#"allow /user={"city":"x"}"#),
            ("validateUser", 200, r#"{"response":{"request":{"user":{"city":"x"}}}}"#, r#"allow /user={"city":"x"}"#),
            ("validateUser", 200, r#"{"user":{"city":"x"}}"#, r#"allow /user={"city":"x"}"#),
            ("validateUser", 200, r#"{"user":"x"}"#, "bad_shape"),
            ("validateUser", 200, r#"{"request":7}"#, "bad_shape"),
            ("validateUser", 200, r#"{"response":{"data":true}}"#, "bad_shape"),
            // Without the wrapper, a refusal is still one; what is none of it is not guessed at.
            ("validateUser", 200, r#"{"error":true,"message":"X"}"#, "deny X"),
            ("validateUser", 200, r#"{"status":"error"}"#, "bad_shape"),
            // Mutators may refuse too.
            ("preCreateUser", 200, r#"{"response":{"error":true,"message":"NoMore"}}"#, "deny NoMore"),
            ("preCreateUser", 200, r#"{"response":{"data":"x"}}"#, "bad_shape"),
            ("preCreateUser", 200, r#"{"response":{"data":[]}}"#, "bad_shape"),
            // Values.
            ("policyMap", 200, r#"{"response":{"mappedValue":""}}"#, r#"allow value="""#),
            ("policyMap", 200, r#"{"response":{"mappedValue":7}}"#, r#"allow value="7""#),
            ("policyMap", 200, r#"{"response":{"mappedValue":1.5}}"#, r#"allow value="1.5""#),
            ("policyMap", 200, r#"{"response":{"mappedValue":true}}"#, r#"allow value="true""#),
            ("policyMap", 200, r#"{"response":{"mappedValue":{}}}"#, "bad_shape"),
            ("policyMap", 200, r#"{"response":{"mappedValue":[]}}"#, "bad_shape"),
            ("policyMap", 200, r#"{"mappedValue":"v"}"#, r#"allow value="v""#),
            ("policyMap", 200, r#"{"response":{"error":true,"message":"X"}}"#, "deny X"),
            // Gates.
            ("runDeprovision", 200, r#"{"response":{"data":false}}"#, "allow value=false"),
            ("runDeprovision", 200, r#"{"response":{"data":"true"}}"#, "bad_shape"),
            ("runDeprovision", 200, r#"{"response":{"data":1}}"#, "bad_shape"),
            ("runDeprovision", 200, r#"{"response":{"error":true,"message":"X"}}"#, "deny X"),
            // "NA": any 2xx will do, and an answer is read where there is one.
            ("preProvision", 200, "OK", "allow"),
            ("preProvision", 204, "", "allow"),
            ("preProvision", 200, r#"{"status":"ok"}"#, "allow"),
            ("preProvision", 200, r#"{"response":{"error":true,"message":"NoSeat"}}"#, "deny NoSeat"),
            ("preProvision", 200, r#"{"response":{"data":{"a":1}}}"#, r#"allow /user={"a":1}"#),
            ("changePassword", 200, "<html>", "allow"),
            ("changePassword", 200, r#"{"response":{"error":true}}"#, "allow"),
            ("changePassword", 500, "", "status_5xx"),
            // No answer at all.
            ("validateUser", 200, "[]", "bad_shape"),
            ("validateUser", 200, r#"{"response":[]}"#, "bad_shape"),
            ("validateUser", 200, r#"{"response":"ok"}"#, "bad_shape"),
            ("validateUser", 200, "<html>ok</html>", "bad_json"),
            ("validateUser", 200, r#"{"response":{"error":tr"#, "bad_json"),
            ("validateUser", 200, r#"{"response":{"error":true,"error":false}}"#, "bad_json"),
            // A byte order mark says nothing.
            ("validateUser", 200, "\u{feff}{}", "allow"),
            ("validateUser", 200, "\u{feff}", "allow"),
            ("validateUser", 200, "\u{feff}{\"response\":{\"error\":true,\"message\":\"NO\"}}", "deny NO"),
            ("validateUser", 200, "\u{feff}\u{feff}{}", "bad_json"),
            ("changePassword", 200, "\u{feff}{\"response\":{\"error\":true}}", "allow"),
            ("validateUser", 301, "", "redirect"),
            ("validateUser", 308, "{}", "redirect"),
            ("validateUser", 400, r#"{"response":{"error":true}}"#, "status_4xx"),
            ("validateUser", 403, "", "status_4xx"),
            ("validateUser", 429, "", "status_429"),
            ("validateUser", 503, "", "status_5xx"),
            ("validateUser", 199, "", "status_5xx"),
        ],
    );
}

#[test]
fn every_native_answer() {
    table(
        "gatepost",
        &[
            ("validateUser", 200, r#"{"id":"inv_1","decision":"allow"}"#, "allow"),
            ("validateUser", 200, r#"{"id":"inv_1","decision":"deny"}"#, "deny denied"),
            ("validateUser", 200, "\u{feff}{\"id\":\"inv_1\",\"decision\":\"deny\"}", "deny denied"),
            ("validateUser", 200, "\u{feff}{\"id\":\"inv_1\",\"decision\":\"allow\"}", "allow"),
            (
                "validateUser",
                200,
                r#"{"id":"inv_1","decision":"deny","messages":[{"code":"a","text":"t","path":"/user/x"},"b"]}"#,
                "deny a,denied",
            ),
            ("validateUser", 200, r#"{"id":"inv_1","decision":"deny","object":7}"#, "deny denied"),
            ("validateUser", 200, r#"{"id":"inv_1"}"#, "bad_shape"),
            ("validateUser", 200, r#"{"id":"inv_1","decision":"maybe"}"#, "bad_shape"),
            ("validateUser", 200, r#"{"id":"inv_1","decision":true}"#, "bad_shape"),
            ("validateUser", 200, r#"{"id":"inv_1","decision":"allow","messages":{}}"#, "bad_shape"),
            ("validateUser", 200, r#"{"id":"inv_1","decision":"allow","messages":[{"code":1}]}"#, "bad_shape"),
            ("validateUser", 200, r#"{"id":"inv_1","decision":"allow","object":[]}"#, "bad_shape"),
            (
                "validateUser",
                200,
                r#"{"id":"inv_1","decision":"allow","object":{"user":{"a":1}},"more":1}"#,
                r#"allow ={"user":{"a":1}}"#,
            ),
            ("validateUser", 200, r#"{"id":"inv_2","decision":"allow"}"#, "id_mismatch"),
            ("validateUser", 200, r#"{"decision":"allow"}"#, "id_mismatch"),
            ("validateUser", 200, "{}", "id_mismatch"),
            ("validateUser", 204, "", "bad_shape"),
            ("validateUser", 200, "ok", "bad_json"),
            ("validateUser", 200, "[]", "bad_shape"),
            ("preCreateUser", 200, r#"{"id":"inv_1","object":{"user":{"a":1}}}"#, r#"allow ={"user":{"a":1}}"#),
            ("preCreateUser", 200, r#"{"id":"inv_1"}"#, "bad_shape"),
            ("policyMap", 200, r#"{"id":"inv_1","value":"v"}"#, r#"allow value="v""#),
            ("policyMap", 200, r#"{"id":"inv_1","decision":"allow","value":7}"#, "allow value=7"),
            ("policyMap", 200, r#"{"id":"inv_1","value":null}"#, "allow"),
            ("policyMap", 200, r#"{"id":"inv_1"}"#, "allow"),
            ("policyMap", 200, r#"{"id":"inv_1","decision":"deny"}"#, "deny denied"),
            ("runDeprovision", 200, r#"{"id":"inv_1","value":true}"#, "allow value=true"),
            ("runDeprovision", 200, r#"{"id":"inv_1","decision":"allow","value":"true"}"#, "bad_shape"),
            ("runDeprovision", 200, r#"{"id":"inv_1","decision":"allow"}"#, "bad_shape"),
            ("preProvision", 204, "", "allow"),
            ("preProvision", 200, r#"{"id":"inv_1","decision":"deny"}"#, "deny denied"),
            ("preProvision", 200, r#"{"decision":"allow"}"#, "id_mismatch"),
            ("changePassword", 200, "", "allow"),
            ("test", 200, "", "allow"),
        ],
    );
}

#[test]
fn refusals_by_status_only_where_the_hook_says_so() {
    for (profile, body, codes) in [
        ("cymmetri", r#"{"response":{"error":true,"message":"Taken"}}"#, "deny Taken"),
        ("cymmetri", "no", "deny status_409"),
        ("cymmetri", r#"{"response":{}}"#, "deny status_409"),
        ("gatepost", r#"{"id":"inv_1","decision":"deny","messages":[{"code":"taken"}]}"#, "deny taken"),
        ("gatepost", r#"{"decision":"allow"}"#, "deny status_409"),
    ] {
        let answer = read_with(profile, "validateUser", 409, body.as_bytes(), true).unwrap();
        assert_eq!(said(&answer), codes, "{profile} {body}");
        assert_eq!(
            read_with(profile, "validateUser", 409, body.as_bytes(), false),
            Err(FailureClass::Status4xx),
            "{profile} {body}"
        );
    }
    for (status, class) in
        [(400, FailureClass::Status4xx), (429, FailureClass::Status429), (500, FailureClass::Status5xx)]
    {
        assert_eq!(read_with("cymmetri", "validateUser", status, b"", true), Err(class));
    }
}

#[test]
fn a_refusal_carries_the_platforms_code() {
    let answer =
        read_with("cymmetri", "validateUser", 200, fixture!("resp_validateUser.json").as_bytes(), false).unwrap();
    assert_eq!(
        answer.messages,
        [AnswerMessage {
            code: "MobileAlreadyExist".into(),
            text: Some("MobileAlreadyExist".into()),
            path: None,
            platform_code: Some("UTILSRVC.SCRIPT_CUSTOM_ERROR-MOBILEALREADYEXIST".into()),
        }]
    );
    let unknown = read_with("cymmetri", "validateUser", 200, br#"{"response":{"error":true}}"#, false).unwrap();
    assert_eq!(unknown.messages[0].platform_code.as_deref(), Some("UTILSRVC.SCRIPT_CUSTOM_ERROR-UNKNOWN"));
}

#[test]
fn p10_hostile_answers_are_classified() {
    let large = vec![b' '; limits::ANSWER_MAX + 1];
    assert_eq!(read_with("cymmetri", "validateUser", 200, &large, false), Err(FailureClass::TooLarge));
    let deep = "[".repeat(100_000);
    assert_eq!(read_with("cymmetri", "validateUser", 200, deep.as_bytes(), false), Err(FailureClass::BadJson));
    assert_eq!(read_with("gatepost", "validateUser", 200, b"\xff\xfe", false), Err(FailureClass::BadJson));
    let expected = Expected { id: ID, point: point("validateUser"), status_deny: false };
    let bomb = Received { status: 200, encoding: Some("gzip"), body: b"{}" };
    let refused = |received| read_answer(codec("cymmetri").unwrap(), &expected, &received).unwrap_err();
    let told = refused(bomb);
    assert_eq!(told.class, FailureClass::ContentType);
    assert!(told.detail.unwrap().contains("compressed (gzip)"));
    // So is one that does not say so.
    let told = refused(Received { encoding: None, body: b"\x1f\x8b\x08\x00", ..bomb });
    assert!(told.detail.unwrap().contains("compressed (gzip)"));
    let plain = Received { encoding: Some("Identity"), ..bomb };
    assert!(read_answer(codec("cymmetri").unwrap(), &expected, &plain).is_ok());
    let long = format!(r#"{{"response":{{"error":true,"message":"{}"}}}}"#, "x".repeat(100_000));
    let answer = read_with("cymmetri", "validateUser", 200, long.as_bytes(), false).unwrap();
    assert_eq!(answer.messages[0].code.len(), CODE_MAX);
}

struct Asked {
    object: Value,
    lifted: Lifted,
    named: std::collections::BTreeMap<String, SecretJson>,
    context: Map,
    default: Value,
}

impl Asked {
    fn of(body: &str, at: &str) -> Self {
        let read = crate::hooks::invocation::read(body.as_bytes(), crate::hooks::invocation::Target::Point(point(at)))
            .unwrap();
        let Value::Object(context) = read.context else { panic!("context is an object") };
        Asked {
            object: read.object,
            lifted: read.secrets.object,
            named: read.secrets.named,
            context,
            default: read.default,
        }
    }

    fn body(&self, profile: &str, at: &str, shown: bool) -> Value {
        let none = Lifted::default();
        let tenant: TenantId = "acme".parse().unwrap();
        let bytes = codec(profile).unwrap().request_body(&Question {
            id: ID,
            point: point(at),
            time: Timestamp::from_secs(1_700_000_000),
            tenant: &tenant,
            subject: &json!({"type":"user","id":"u"}),
            actor: &Value::Null,
            object: &self.object,
            old_object: &Value::Null,
            context: &self.context,
            default: &self.default,
            dry_run: false,
            secrets: shown.then_some(SecretFacts {
                named: &self.named,
                object: &self.lifted,
                old_object: &none,
                context: &none,
            }),
        });
        serde_json::from_slice(&bytes).unwrap()
    }
}

#[test]
fn what_a_cymmetri_receiver_gets_is_what_its_document_shows() {
    for (at, body) in [
        ("preCreateUser", fixture!("req_preCreateUser.json")),
        ("preUpdateUser", fixture!("req_preUpdateUser.json")),
        ("validateUser", fixture!("req_validateUser.json")),
        ("validateUpdateUser", fixture!("req_validateUpdateUser.json")),
        ("changePassword", fixture!("req_changePassword.json")),
        ("preProvision", fixture!("req_preProvision.json")),
        ("policyMap", fixture!("req_policyMap.json")),
        ("runDeprovision", fixture!("req_runDeprovision.json")),
        ("test", fixture!("req_test.json")),
    ] {
        let whole: Value = serde_json::from_str(body).unwrap();
        let asked = Asked::of(body, at);
        assert_eq!(asked.body("cymmetri", at, true), whole, "{at}");
        // Without the grant, everything but the secrets.
        let mut rest = whole;
        if let Some(Value::Object(request)) = rest.get_mut("request") {
            request.remove("passwordText");
            request.get_mut("user").and_then(Value::as_object_mut).unwrap().remove("securityQuestion");
        }
        assert_eq!(asked.body("cymmetri", at, false), rest, "{at}");
    }
}

#[test]
fn what_a_native_receiver_gets() {
    let asked = Asked::of(fixture!("req_changePassword.json"), "changePassword");
    let user = json!({"assignedGroups":[],"country":"India","firstName":"Shreyash2","lastName":"Pande2",
        "login":"shreyash2","provisionedApps":{},"userType":"Employee"});
    let body = json!({"id":ID,"type":"hook.changePassword","time":"2023-11-14T22:13:20Z","tenant":"acme","dry_run":false,
        "subject":{"type":"user","id":"u"},"object":{"user":user},"context":{}});
    assert_eq!(asked.body("gatepost", "changePassword", false), body);
    let mut with = body;
    with["secrets"] = json!({"passwordText":"Welcome@123"});
    with["object"]["user"]["securityQuestion"] = json!({});
    assert_eq!(asked.body("gatepost", "changePassword", true), with);
}

#[test]
fn addresses() {
    let rows = [
        ("gatepost", "https://x/h?a=1", None, "validateUser", "https://x/h?a=1", "https://x/h?a=1"),
        ("gatepost", "https://x/h", Some("/v"), "validateUser", "https://x/h/v", "https://x/h/v"),
        ("cymmetri", "https://x", None, "validateUser", "https://x/validateUser", "https://x/test"),
        (
            "cymmetri",
            "https://x:8080/webhook/",
            None,
            "policyMap",
            "https://x:8080/webhook/policyMap",
            "https://x:8080/webhook/test",
        ),
        ("cymmetri", "https://x/w?k=1", None, "policyMap", "https://x/w/policyMap?k=1", "https://x/w/test?k=1"),
        ("cymmetri", "https://x/w", Some("/policymap"), "policyMap", "https://x/w/policymap", "https://x/w/test"),
        ("cymmetri", "https://x/w/any", Some(""), "policyMap", "https://x/w/any", "https://x/w/any/test"),
        ("cymmetri", "https://[::1]:1/w", Some("p"), "policyMap", "https://[::1]:1/w/p", "https://[::1]:1/w/test"),
        // The whole address was given.
        ("cymmetri", "https://x/w/policymap", None, "policyMap", "https://x/w/policymap", "https://x/w/test"),
        ("cymmetri", "https://x/policyMap/", None, "policyMap", "https://x/policyMap/", "https://x/test"),
        (
            "cymmetri",
            "https://x/w/POLICYMAP?k=1",
            None,
            "policyMap",
            "https://x/w/POLICYMAP?k=1",
            "https://x/w/test?k=1",
        ),
        (
            "cymmetri",
            "https://x/w?k=/policyMap",
            None,
            "policyMap",
            "https://x/w/policyMap?k=/policyMap",
            "https://x/w/test?k=/policyMap",
        ),
        ("cymmetri", "https://policyMap", None, "policyMap", "https://policyMap/policyMap", "https://policyMap/test"),
    ];
    for (profile, url, path, at, endpoint, probe) in rows {
        let codec = codec(profile).unwrap();
        assert_eq!(codec.endpoint(url, path, point(at)), endpoint);
        assert_eq!(codec.probe_endpoint(url, path, point(at)), probe, "{url}");
    }
}

fn keys(scheme: KeyScheme, texts: &[&str]) -> HookKeys {
    let key = |text: &&str| SigningKey { text: Secret::new(*text), created_at: Timestamp::EPOCH, expires_at: None };
    HookKeys::new(scheme, &texts.iter().map(key).collect::<Vec<_>>()).unwrap()
}

const TEXT: &str = "a shared text of 24 bytes or more";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn signed(profile: &str, keys: &HookKeys, body: &[u8]) -> Vec<(&'static str, String)> {
    let tenant: TenantId = "acme".parse().unwrap();
    let mut headers = Vec::new();
    codec(profile).unwrap().sign(
        &Envelope {
            message_id: "inv_1:hook_2",
            sending: (1, false),
            point: "validateUser",
            tenant: &tenant,
            endpoint: "https://x/w/validateUser",
            issuer: "https://gatepost.example.com",
            keys,
            body,
            now: Timestamp::from_secs(1_700_000_000),
        },
        &mut headers,
    );
    headers
}

#[test]
fn a_cymmetri_token_is_narrow_and_bound_to_its_body() {
    let keys = keys(KeyScheme::Text, &[TEXT]);
    let headers = signed("cymmetri", &keys, b"{\"request\":{}}");
    let [("authorization", value)] = headers.as_slice() else { panic!("{headers:?}") };
    let token = value.strip_prefix("Bearer ").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, TEXT.as_bytes());
    assert_eq!(
        jwt::verify_hs256(&key, token).unwrap(),
        json!({
            "iss":"https://gatepost.example.com","aud":"https://x/w/validateUser","sub":"acme","tenantId":"acme",
            "point":"validateUser","jti":"inv_1:hook_2","iat":1_700_000_000,"exp":1_700_000_060,
            "request_body_sha256":"36e410e5b54fc8b5f4f9f72c1d1de01a0e565fb1afcc890306d4d008a8d9eb9d",
        })
    );
    let other = hmac::Key::new(hmac::HMAC_SHA256, b"another key");
    assert_eq!(jwt::verify_hs256(&other, token), None);
    // Neither no algorithm nor another one is believed.
    let (_, rest) = token.split_once('.').unwrap();
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"RS256"}"#] {
        let forged = format!("{}.{rest}", crate::hashing::base64url(header.as_bytes()));
        assert_eq!(jwt::verify_hs256(&key, &forged), None);
    }
    assert_eq!(jwt::verify_hs256(&key, "x"), None);
}

#[test]
fn native_questions_are_standard_webhooks() {
    let keys = keys(KeyScheme::Standard, &[WHSEC]);
    let body = b"{\"test\": 2432232314}";
    let headers = signed("gatepost", &keys, body);
    let find = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
    let now = Timestamp::from_secs(1_700_000_010);
    assert_eq!(crate::signing::verify(&[WHSEC], find, body, now, crate::signing::TOLERANCE), Ok(0));
}

#[test]
fn signed_answers() {
    let now = Timestamp::from_secs(1_700_000_100);
    let sent = Timestamp::from_secs(1_700_000_000);
    let body = br#"{"id":"inv_1","decision":"allow"}"#;
    for (scheme, text, other) in [
        (KeyScheme::Standard, WHSEC, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        (KeyScheme::Text, TEXT, "another shared text of its own"),
    ] {
        let (ours, theirs) = (keys(scheme, &[text]), keys(scheme, &[other]));
        let sign = |keys: &HookKeys, id: &str, at: i64, body: &[u8]| keys.sign(id, at, body, now);
        let judge = |signature: Option<String>, own_time: Option<&str>| {
            ours.verify_answer(signature.as_deref(), own_time, &["inv_1", "inv_1:hook_2"], sent, body, now).is_ok()
        };
        assert!(judge(Some(sign(&ours, "inv_1", 1_700_000_000, body)), None));
        assert!(judge(Some(sign(&ours, "inv_1:hook_2", 1_700_000_000, body)), None));
        assert!(judge(Some(format!("v1,AAAA {}", sign(&ours, "inv_1", 1_700_000_000, body))), None));
        assert!(judge(Some(sign(&ours, "inv_1", 1_700_000_099, body)), Some("1700000099")));
        assert!(!judge(None, None), "missing");
        assert!(!judge(Some(sign(&theirs, "inv_1", 1_700_000_000, body)), None), "wrong key");
        assert!(!judge(Some(sign(&ours, "inv_9", 1_700_000_000, body)), None), "another id");
        assert!(!judge(Some(sign(&ours, "inv_1", 1_700_000_000, b"{}")), None), "another body");
        assert!(!judge(Some(sign(&ours, "inv_1", 1_699_999_000, body)), None), "another time");
        assert!(!judge(Some(sign(&ours, "inv_1", 1_699_999_799, body)), Some("1699999799")), "stale");
        assert!(!judge(Some(sign(&ours, "inv_1", 1_700_000_000, body)), Some("now")), "no time");
        // During a rotation either key signs.
        let both = keys(scheme, &[other, text]);
        let old = Some(sign(&ours, "inv_1", 1_700_000_000, body));
        assert!(both.verify_answer(old.as_deref(), None, &["inv_1"], sent, body, now).is_ok());
    }
}

#[test]
fn secrets_are_judged_and_made() {
    struct Sevens;
    impl Entropy for Sevens {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }
    for codec in all() {
        let scheme = codec.key_scheme();
        let made = generate_secret(*codec, &Sevens);
        assert_eq!(scheme.check(made.expose()), Ok(()));
        assert!(scheme.check("short").is_err());
    }
    assert_eq!(
        KeyScheme::Standard
            .check("whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="),
        Err(BadKeys::Asymmetric)
    );
}

#[test]
fn probes() {
    let read = |profile: &str, body: &str| {
        codec(profile).unwrap().read_probe(body.as_bytes()).map(|warning| warning.is_some()).map_err(|f| f.class)
    };
    for (profile, body, expected) in [
        ("cymmetri", r#"{"response":{}}"#, Ok(false)),
        ("cymmetri", r#"{"response":{"data":1}}"#, Ok(false)),
        ("cymmetri", "{}", Ok(true)),
        ("cymmetri", "", Ok(true)),
        ("cymmetri", r#"{"response":7}"#, Err(FailureClass::BadShape)),
        ("cymmetri", r#"{"response":{"error":true}}"#, Ok(true)),
        ("cymmetri", r#"{"x":1}"#, Err(FailureClass::BadShape)),
        ("cymmetri", "hello", Err(FailureClass::BadJson)),
        ("gatepost", "", Ok(false)),
        ("gatepost", r#"{"decision":"allow"}"#, Ok(false)),
        ("gatepost", r#"{"decision":"deny"}"#, Ok(true)),
        ("gatepost", "hello", Err(FailureClass::BadJson)),
    ] {
        assert_eq!(read(profile, body), expected, "{profile} {body}");
    }
    let tenant: TenantId = "acme".parse().unwrap();
    assert_eq!(&codec("cymmetri").unwrap().probe_body(ID, &tenant, Timestamp::EPOCH)[..], b"{}");
}

#[test]
fn a_point_of_ones_own_without_user_proposes_at_the_root() {
    let mut own = PointDef::new("beforeOrder", PointKind::Mutate);
    own.object_members = vec!["order".into(), "lines".into()];
    let expected = Expected { id: ID, point: &own, status_deny: false };
    let body = br#"{"response":{"data":{"order":{"a":1}}}}"#;
    let answer = codec("cymmetri").unwrap().read_body(&expected, body).unwrap();
    assert_eq!(answer.proposal.unwrap().at, Pointer::root());
}
