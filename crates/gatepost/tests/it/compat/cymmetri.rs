//! Cymmetri's notify hooks: a receiver written from its document. (Cymmetri has no API of its own.)

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gatepost_testkit::{Received, Script};
use serde_json::{Value, json};

use super::hmac_hex;
use crate::harness::{Server, receiver, text};

const SECRET: &str = "a-shared-secret-of-thirty-characters";

/// The claims of the request's token, its signature checked with the shared secret.
#[track_caller]
fn claims(request: &Received) -> Value {
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).expect("a token");
    let (signed, tag) = token.rsplit_once('.').expect("three parts");
    let (header, claims) = signed.split_once('.').expect("three parts");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!(header["alg"], "HS256");
    let hex: String = decode(tag).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, hmac_hex(SECRET, &[signed.as_bytes()]));
    serde_json::from_slice(&decode(claims)).unwrap()
}

fn webhook(server: &Server, url: &str, more: Value) -> Value {
    let mut overrides = json!({"profile": "cymmetri", "secret": SECRET, "events": ["*"]});
    overrides.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    server.create_webhook("acme", url, overrides)
}

#[test]
fn every_event_has_its_own_path_and_a_token_of_its_own() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    webhook(
        &server,
        &to.url("/hooks"),
        json!({"paths": {"user.deleted": "/gone"}, "options": {"token_expiry_minutes": 5}}),
    );
    let user = json!({"user": {"login": "asha", "assignedGroups": [], "provisionedApps": {}}});
    for (event_type, path) in [
        ("cymmetri.postCreateUser", "/hooks/postCreateUser"),
        ("cymmetri.postProvision", "/hooks/postProvision"),
        ("user.deleted", "/hooks/gone"),
    ] {
        to.forget();
        let event = server.publish("acme", event_type, user.clone());
        server.wait_event("acme", &event, "delivered");
        let request = to.received().remove(0);
        assert_eq!((request.path.as_str(), request.json()), (path, json!({ "request": user })));
        let claims = claims(&request);
        assert_eq!((&claims["tenantId"], &claims["aud"]), (&json!("acme"), &json!(to.url(path))));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &request.body);
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(claims["request_body_sha256"], json!(hash));
        assert!(claims.get("roles").is_none(), "{claims}");
        // It opens nothing here.
        let token = request.header("authorization").unwrap();
        server.send("GET", "/v1/tenants/acme", &[("authorization", token)], ()).expect_problem(401, "unauthorized");
    }
    let nowhere = server.publish("acme", "user.created", json!({}));
    assert_eq!(server.event("acme", &nowhere)["matching"][0]["reason"], "no_path");
    // The token is shown nowhere.
    let row = server.get("/v1/tenants/acme/deliveries").expect(200).json()["data"][0].clone();
    let shown = server.delivery("acme", &text(&row, "id"));
    assert_eq!(shown["attempt_list"][0]["request"]["headers"]["authorization"], "***");
}

#[test]
fn save_and_test_posts_an_empty_object() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let made = webhook(&server, &to.url("/hooks"), json!({}));
    let verify = format!("/v1/tenants/acme/webhooks/{}/verify", text(&made, "id"));
    to.script(Script::status(200).body(r#"{"response":{}}"#));
    let result = server.post(&verify, ()).expect(200).json();
    assert_eq!(result["verified"], true, "{result}");
    let request = to.received().remove(0);
    assert_eq!((request.path.as_str(), &request.body[..]), ("/hooks/test", &b"{}"[..]));
    claims(&request);
    for script in
        [Script::status(200).body("<html>"), Script::status(500), Script::status(200).body(r#"{"response":null}"#)]
    {
        to.script(script);
        assert_eq!(server.post(&verify, ()).expect(200).json()["verified"], false);
    }
    // The test button without a type asks the same.
    to.forget();
    to.script(Script::status(200).body(r#"{"response":{}}"#));
    let test = format!("/v1/tenants/acme/webhooks/{}/test", text(&made, "id"));
    assert_eq!(server.post(&test, ()).expect(200).json()["delivered"], true);
    assert_eq!(to.received()[0].path, "/hooks/test");
}

/// The document's own requests of the events it tells: published as it has them, told as it has them.
#[test]
fn the_documents_own_requests_arrive_as_it_shows_them() {
    macro_rules! sample {
        ($name:literal) => {
            ($name, include_str!(concat!("../../../../gatepost-core/hooks/fixtures/req_", $name, ".json")))
        };
    }
    const USER: &[&str] = &[
        "assignedGroups",
        "country",
        "firstName",
        "lastName",
        "login",
        "provisionedApps",
        "securityQuestion",
        "userType",
    ];
    const APPLICATION: &[&str] = &["action", "applicationId", "form", "policyMap", "roleList", "user"];
    const PROVISIONED: &[&str] =
        &["action", "applicationId", "form", "isSuccess", "policyMap", "roleList", "uid", "user"];
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    webhook(&server, &to.url("/webhook/"), json!({"verification": {"mode": "none"}}));
    for ((name, sample), members) in [
        (sample!("postCreateUser"), &["user"][..]),
        (sample!("postUpdateUser"), &["user"]),
        (sample!("preProvision"), APPLICATION),
        (sample!("postProvision"), PROVISIONED),
    ] {
        to.forget();
        let sample: Value = serde_json::from_str(sample).unwrap();
        let event = server.publish("acme", &format!("cymmetri.{name}"), sample["request"].clone());
        server.wait_event("acme", &event, "delivered");
        let request = to.received().remove(0);
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", &*format!("/webhook/{name}")));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.json(), sample, "{name}");
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let (mut seen, mut user) = (names(&request.json()["request"]), names(&request.json()["request"]["user"]));
        seen.sort();
        user.sort();
        assert_eq!(
            (seen, user),
            (members.iter().map(|m| (*m).to_owned()).collect(), USER.iter().map(|m| (*m).to_owned()).collect())
        );
    }
}

#[test]
fn a_password_is_never_a_queued_event() {
    let server = Server::start();
    server.create_tenant("acme");
    let event = json!({"type": "cymmetri.changePassword", "data": {"passwordText": "Welcome@123"}});
    let refused = server.post("/v1/tenants/acme/events", event).expect(422);
    assert_eq!(refused.pointers(), ["/type"]);
}

#[test]
fn a_retry_has_the_same_bytes_and_a_token_of_its_own() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.next([Script::status(500), Script::status(204)]);
    webhook(&server, &to.url("/hooks"), json!({"retry": {"waits": [0.0], "jitter": 0}}));
    let event = server.publish("acme", "cymmetri.postUpdateUser", json!({"user": {}}));
    server.wait_event("acme", &event, "delivered");
    let sent = to.received();
    assert_eq!(sent[0].body, sent[1].body);
    assert_ne!(claims(&sent[0])["jti"], claims(&sent[1])["jti"]);
}

#[test]
fn a_token_for_calls_back_reads_its_own_tenant_and_nothing_more() {
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    let to = receiver();
    let options = json!({"callback": {"scopes": ["read"], "ttl_minutes": 5}});
    let made = webhook(&server, &to.url("/hooks"), json!({ "options": options }));
    assert_eq!(made["options"], options);
    let event = server.publish("acme", "cymmetri.postCreateUser", json!({"user": {}}));
    server.wait_event("acme", &event, "delivered");
    let request = to.received().remove(0);
    let token = request.header("gatepost-callback-token").expect("a token").to_owned();
    assert_ne!(request.header("authorization"), Some(&*format!("Bearer {token}")), "another credential");
    let mut back = server.client_with(&token);
    back.get(&format!("/v1/tenants/acme/events/{event}")).expect(200);
    back.get("/v1/tenants/other/events").expect_problem(404, "tenant_not_found");
    back.post("/v1/tenants/acme/events", json!({"type": "a.b"})).expect_problem(403, "forbidden");
    back.delete(&format!("/v1/tenants/acme/webhooks/{}", text(&made, "id"))).expect_problem(403, "forbidden");
    back.get("/v1/keys").expect_problem(403, "forbidden");
    let mut forged = token.clone();
    forged.pop();
    server.client_with(&forged).get("/v1/tenants/acme/events").expect_problem(401, "unauthorized");
    // Shown nowhere, and it opens no later tenant of the same id.
    let row = server.get("/v1/tenants/acme/deliveries").expect(200).json()["data"][0].clone();
    let shown = server.delivery("acme", &text(&row, "id"));
    assert_eq!(shown["attempt_list"][0]["request"]["headers"]["gatepost-callback-token"], "***");
    server.delete("/v1/tenants/acme").expect(204);
    server.create_tenant("acme");
    back.get("/v1/tenants/acme/events").expect_problem(404, "tenant_not_found");
    // Off unless asked for.
    let quiet = receiver();
    webhook(&server, &quiet.url("/hooks"), json!({}));
    server.publish("acme", "cymmetri.postCreateUser", json!({}));
    assert_eq!(quiet.wait_for_blocking(1)[0].header("gatepost-callback-token"), None);
}
