//! Cryptr: its API, and a receiver written from its document.

use gatepost_testkit::{Received, Script};
use serde_json::{Value, json};

use super::hmac_hex;
use crate::harness::{Client, Options, Server, receiver, text, wait_until};

const API: &str = "/compat/cryptr/api/v2/webhooks";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A server with a sandbox tenant, and a client with a key of it.
fn started() -> (Server, Client) {
    let server = Server::start();
    server.put("/v1/tenants/acme", json!({"environment": "sandbox"})).expect(201);
    let client = client(&server, "acme");
    (server, client)
}

fn client(server: &Server, tenant: &str) -> Client {
    let key = server.create_key(&["manage", "publish"], Some(tenant));
    server.client_with(&key)
}

fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect::<Vec<_>>().join("&")
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[track_caller]
fn registered(client: &mut Client, url: &str, codes: &[&str]) -> Value {
    let mut fields = vec![("name", "a webhook"), ("target_url", url)];
    fields.extend(codes.iter().map(|code| ("event_codes[]", *code)));
    client.send("POST", API, &[FORM], form(&fields)).expect(201).json()
}

/// What the document tells a receiver to do: take the header apart, and compare.
#[track_caller]
fn signed_by(request: &Received, key: &str) {
    let header = request.header("cryptr-signature").expect("a signature");
    let mut parts = header.split(',').map(|part| part.split_once('=').expect("name=value"));
    let (Some(("t", t)), Some(("v1", v1))) = (parts.next(), parts.next()) else { panic!("{header}") };
    let v1 = v1.strip_prefix("sha256.").unwrap_or(v1);
    assert_eq!(v1, hmac_hex(key, &[t.as_bytes(), b".", &request.body]), "{header}");
}

#[test]
fn a_webhooks_life_as_the_document_has_it() {
    let (server, mut client) = started();
    let to = receiver();
    let made = registered(&mut client, &to.url("/in"), &["all"]);
    let members: Vec<_> = made.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        members,
        [
            "__environment__",
            "__type__",
            "active",
            "event_codes",
            "id",
            "inserted_at",
            "name",
            "signature_key",
            "target_url",
            "updated_at",
        ]
    );
    assert_eq!(
        (&made["__type__"], &made["__environment__"], &made["active"], &made["event_codes"]),
        (&json!("Webhook"), &json!("sandbox"), &json!(true), &json!(["all"]))
    );
    let (id, key) = (text(&made, "id"), text(&made, "signature_key"));
    assert!(id.len() == 35 && id.starts_with("webhook_"), "{id}");
    assert_eq!(key.len(), 128);
    let time = text(&made, "inserted_at");
    assert!(time.len() == 19 && time.as_bytes()[10] == b'T', "{time}");

    let path = format!("{API}/{id}");
    let shown = client.get(&path).expect(200).json();
    assert!(shown.get("signature_key").is_none(), "{shown}");
    let changed = client.send("PUT", &path, &[FORM], form(&[("event_codes[]", "dir_sync.all"), ("name", "b")]));
    let changed = changed.expect(200).json();
    assert_eq!(
        (&changed["name"], &changed["event_codes"], &changed["target_url"], &changed["signature_key"]),
        (&json!("b"), &json!(["dir_sync.all"]), &json!(to.url("/in")), &json!(key)),
        "partial, and the key is shown again"
    );
    let list = client.get(API).expect(200).json();
    assert_eq!((&list["__type__"], &list["total"]), (&json!("List"), &json!(1)));
    assert_eq!(list["data"][0]["id"], json!(id));
    assert!(list["data"][0].get("signature_key").is_none());
    let deleted = client.delete(&path).expect(200).json();
    assert_eq!((&deleted["deleted"], &deleted["resource"]["id"]), (&json!(true), &json!(id)));
    let gone = client.get(&path).expect(404).json();
    assert_eq!(gone["error"]["type"], "not_found");
    assert_eq!(gone["error"]["doc_urls"], json!([]));
    drop(server);
}

#[test]
fn registrations_in_every_encoding() {
    let (_server, mut client) = started();
    let url = "http://127.0.0.1:9/in";
    let escaped_url = escaped(url);
    for (name, body, query) in [
        ("brackets as they are", format!("name=w&target_url={url}&event_codes[]=all"), String::new()),
        ("brackets escaped", format!("name=w&target_url={escaped_url}&event_codes%5B%5D=all"), String::new()),
        ("a scalar", format!("name=w&target_url={url}&event_codes=all"), String::new()),
        ("an index", format!("name=w&target_url={url}&event_codes[0]=all"), String::new()),
        ("the query alone", String::new(), format!("?name=a%20b&target_url={escaped_url}&event_codes[]=all")),
        (
            "both, the body wins",
            "event_codes[]=all&name=w".into(),
            format!("?target_url={escaped_url}&event_codes[]=no.x"),
        ),
    ] {
        let made = client.send("POST", &format!("{API}{query}"), &[FORM], body).expect(201).json();
        assert_eq!((&made["event_codes"], &made["target_url"]), (&json!(["all"]), &json!(url)), "{name}");
    }
    let several = format!("name=w&target_url={url}&event_codes[]=dir_sync.all&event_codes[]=sso_saml.all");
    let made = client.send("POST", API, &[FORM], several).expect(201).json();
    assert_eq!(made["event_codes"], json!(["dir_sync.all", "sso_saml.all"]));
    let body = json!({"name": "w é", "target_url": url, "event_codes": ["all"]});
    assert_eq!(client.post(API, body).expect(201).json()["name"], "w é");
}

#[test]
fn what_is_wrong_is_told_in_cryptrs_words() {
    let (server, mut client) = started();
    let url = "http://127.0.0.1:9/in";
    for (body, field) in [
        (form(&[("target_url", url), ("event_codes[]", "all")]), "name"),
        (form(&[("name", "w"), ("event_codes[]", "all")]), "target_url"),
        (form(&[("name", "w"), ("target_url", url)]), "event_codes"),
        (form(&[("name", "w"), ("target_url", url), ("event_codes[]", "")]), "event_codes"),
        (form(&[("name", "w"), ("target_url", "ftp://x"), ("event_codes[]", "all")]), "target_url"),
        (form(&[("name", "w"), ("target_url", url), ("event_codes[]", "user.created")]), "event_codes[0]"),
    ] {
        let refused = client.send("POST", API, &[FORM], body).expect(422).json();
        assert_eq!(refused["error"]["type"], "validation_error", "{refused}");
        assert!(text(&refused["error"], "message").contains(field), "{field}: {refused}");
    }
    // Its public list is not whole: unknown codes of its families are taken.
    registered(&mut client, url, &["dir_sync.user.deprovision.success", "sso_saml.user.login.fail"]);
    let unreadable = client.post(API, "{").expect(400).json();
    assert!(text(&unreadable["error"], "message").contains("line 1"), "{unreadable}");
    let nobody = server.client_with("gp_nobody").get(API).expect(401).json();
    assert_eq!(nobody["error"]["type"], "unauthorized");
    let reader = server.create_key(&["read"], Some("acme"));
    let mut reader = server.client_with(&reader);
    reader.get(API).expect(200);
    assert_eq!(reader.send("POST", API, &[FORM], "name=w").expect(403).json()["error"]["type"], "forbidden");
    assert_eq!(server.get(API).expect(403).json()["error"]["type"], "forbidden", "a key bound to no tenant");
}

#[test]
fn p5_another_tenants_webhook_is_not_there() {
    let (server, mut client) = started();
    server.create_tenant("other");
    let mut other = self::client(&server, "other");
    let made = registered(&mut client, "http://127.0.0.1:9/in", &["all"]);
    let path = format!("{API}/{}", text(&made, "id"));
    let foreign = other.get(&path).expect(404);
    let missing = other.get(&format!("{API}/webhook_2QauvX3scYnpadurUTdjrd59QrE")).expect(404);
    let shape = |reply: &crate::harness::Reply, id: &str| reply.text().replace(id, "ID");
    assert_eq!(shape(&foreign, &text(&made, "id")), shape(&missing, "webhook_2QauvX3scYnpadurUTdjrd59QrE"));
    other.send("PUT", &path, &[FORM], "name=mine").expect(404);
    other.delete(&path).expect(404);
    assert_eq!(other.get(API).expect(200).json()["total"], 0);
}

#[test]
fn lists_are_paged_as_cryptr_pages_them() {
    let (_server, mut client) = started();
    let names: Vec<_> =
        (0..5).map(|_| text(&registered(&mut client, "http://127.0.0.1:9/in", &["all"]), "id")).collect();
    let mut seen = Vec::new();
    for page in 1..=3 {
        let list = client.get(&format!("{API}?per_page=2&current_page={page}")).expect(200).json();
        let (next, prev) = (
            if page < 3 { json!(page + 1) } else { Value::Null },
            if page > 1 { json!(page - 1) } else { Value::Null },
        );
        assert_eq!(
            list["pagination"],
            json!({"current_page": page, "next_page": next, "per_page": 2, "prev_page": prev, "total_pages": 3})
        );
        assert_eq!(list["total"], 5);
        seen.extend(list["data"].as_array().unwrap().iter().map(|webhook| text(webhook, "id")));
    }
    seen.reverse();
    assert_eq!(seen, names, "newest first, each once");
    client.get(&format!("{API}?per_page=0")).expect(422);
}

#[test]
fn a_token_is_had_for_a_key() {
    let server = Server::start();
    server.create_tenant("acme");
    let made = server.post("/v1/keys", json!({"name": "k", "scopes": ["manage"], "tenant": "acme"})).expect(201).json();
    let (id, key) = (text(&made, "id"), text(&made, "key"));
    let path = "/compat/cryptr/api/v2/oauth/token";
    let fields = |id: &str, key: &str, tenant: &str| {
        form(&[
            ("client_id", id),
            ("client_secret", key),
            ("tenant_domain", tenant),
            ("grant_type", "client_credentials"),
        ])
    };
    let nobody = ("authorization", "");
    let token = server.send("POST", path, &[FORM, nobody], fields(&id, &key, "acme")).expect(200).json();
    server.client_with(&text(&token, "access_token")).get(API).expect(200);
    for (id, key, tenant) in [(&*id, "gp_x", "acme"), ("key_1", &key, "acme"), (&id, &key, "other")] {
        let refused = server.send("POST", path, &[FORM, nobody], fields(id, key, tenant)).expect(401).json();
        assert_eq!(refused["error"]["type"], "unauthorized");
    }
    server.send("POST", path, &[FORM, nobody], "client_id=x").expect(422);
}

#[test]
fn the_sample_event_arrives_as_the_document_shows_it() {
    let (server, mut client) = started();
    let to = receiver();
    let made = registered(&mut client, &to.url("/in"), &["dir_sync.all"]);
    let sample: Value = serde_json::from_str(gatepost_core::catalogue::CRYPTR_SAMPLE_EVENT).unwrap();
    let event = json!({
        "type": sample["code"], "timestamp": sample["issued_at"], "data": sample["data"],
        "attributes": {"domain": sample["__domain__"], "params": sample["params"], "errors": sample["errors"]},
    });
    server.publish_event("acme", event);
    server.publish("acme", "user.created", json!({}));
    let request = to.wait_for_blocking(1).remove(0);
    let mut expected = sample.clone();
    (expected["webhook_id"], expected["__environment__"]) = (made["id"].clone(), json!("sandbox"));
    assert_eq!(request.json(), expected);
    signed_by(&request, &text(&made, "signature_key"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    server.wait_settled("acme");
    assert_eq!(to.count(), 1, "what is of another family does not come");
    // The text as the document prints it is not JSON, and is told so with its place.
    let broken = gatepost_core::catalogue::CRYPTR_SAMPLE_EVENT_BROKEN;
    let body = format!("{{\"type\":\"dir_sync.user.update.success\",\"data\":{broken}}}");
    let refused = server.post("/v1/tenants/acme/events", body).expect_problem(400, "malformed_json").json();
    assert!(refused["line"].as_u64().is_some_and(|line| line > 1) && refused["column"].is_u64(), "{refused}");
}

#[test]
fn all_means_every_type_but_gateposts_own() {
    let (server, mut client) = started();
    let to = receiver();
    registered(&mut client, &to.url("/in"), &["all", "dir_sync.user.update.success"]);
    for name in ["dir_sync.user.update.success", "user.created", "anything.else"] {
        server.publish("acme", name, json!({}));
    }
    server.webhook("acme", &receiver().url("/other"), json!({}));
    server.wait_settled("acme");
    let mut codes: Vec<_> = to.received().iter().map(|request| text(&request.json(), "code")).collect();
    codes.sort();
    assert_eq!(codes, ["anything.else", "dir_sync.user.update.success", "user.created"], "and each once");
}

#[test]
fn a_rotated_key_signs_beside_the_old_one_as_v0() {
    let (server, mut client) = started();
    let to = receiver();
    let made = registered(&mut client, &to.url("/in"), &["all"]);
    let path = format!("{API}/{}", text(&made, "id"));
    let rotated = client.post(&format!("{path}/rotate"), ()).expect(200).json();
    let (old, new) = (text(&made, "signature_key"), text(&rotated, "signature_key"));
    assert_ne!(old, new);
    server.publish("acme", "user.created", json!({}));
    let request = to.wait_for_blocking(1).remove(0);
    signed_by(&request, &new);
    let header = request.header("cryptr-signature").unwrap();
    let t = header.strip_prefix("t=").unwrap().split(',').next().unwrap();
    let v0 = format!(",v0=sha256.{}", hmac_hex(&old, &[t.as_bytes(), b".", &request.body]));
    assert!(header.ends_with(&v0), "{header}");
}

#[test]
fn false_events_for_a_test() {
    let (server, mut client) = started();
    let to = receiver();
    let made = registered(&mut client, &to.url("/in"), &["dir_sync.all"]);
    let path = format!("{API}/{}/test", text(&made, "id"));
    let told = client.send("POST", &path, &[FORM], "event_code=dir_sync.user.update.success").expect(200).json();
    assert_eq!(
        (&told["delivered"], &told["status"], &told["error"], &told["event_code"]),
        (&json!(true), &json!(204), &Value::Null, &json!("dir_sync.user.update.success"))
    );
    assert!(told["duration_ms"].is_u64() && told["delivery_id"].is_string(), "{told}");
    let request = to.received()[0].clone();
    assert_eq!(request.json()["code"], "dir_sync.user.update.success");
    assert_eq!(request.header("gatepost-test"), Some("true"));
    let sample: Value = serde_json::from_str(gatepost_core::catalogue::CRYPTR_SAMPLE_EVENT).unwrap();
    assert_eq!((&request.json()["params"], &request.json()["errors"]), (&sample["params"], &Value::Null));
    signed_by(&request, &text(&made, "signature_key"));
    // Without a code: the first it listens to. A failure is told, not tried again.
    to.script(Script::status(500));
    let told = client.post(&path, ()).expect(200).json();
    assert_eq!((&told["delivered"], &told["status"]), (&json!(false), &json!(500)));
    assert_eq!(told["event_code"], "dir_sync.user.provision.success");
    client.send("POST", &path, &[FORM], "event_code=sso_saml.user.login.success").expect(422);
    client.send("POST", &path, &[FORM], "event_code=dir_sync.no.such.code").expect(422);
    assert_eq!(to.count(), 2);
    assert_eq!(server.all("/v1/tenants/acme/deliveries"), Vec::<Value>::new());
}

#[test]
fn every_false_event_has_params_and_a_failure_its_errors() {
    let (server, mut client) = started();
    let to = receiver();
    let made = registered(&mut client, &to.url("/in"), &["all"]);
    let path = format!("{API}/{}/test", text(&made, "id"));
    assert_eq!(client.post(&path, ()).expect(200).json()["event_code"], "dir_sync.user.provision.success");
    to.forget();
    let codes: Vec<_> = gatepost_core::catalogue::of_system("cryptr").map(|known| known.name.to_string()).collect();
    assert!(codes.len() > 15, "{codes:?}");
    for code in &codes {
        client.send("POST", &path, &[FORM], format!("event_code={code}")).expect(200);
    }
    for (code, request) in codes.iter().zip(to.received()) {
        let event = request.json();
        let resource = event["data"].get("resource");
        assert_eq!(event["code"], **code);
        assert!(event["params"].as_object().is_some_and(|params| !params.is_empty()), "{code}: {event}");
        assert_eq!(code.ends_with(".fail"), event["errors"][0]["message"].is_string(), "{code}: {event}");
        let named = resource.is_some_and(|resource| resource.get("id").is_some());
        assert_eq!(named, code.starts_with("dir_sync.") && code.ends_with(".success"), "{code}: {event}");
    }
    // Through /v1 it is the same event.
    let row = server.all("/v1/tenants/acme/webhooks")[0].clone();
    to.forget();
    let body = json!({"event_type": "dir_sync.user.provision.fail"});
    server.post(&format!("/v1/tenants/acme/webhooks/{}/test", text(&row, "id")), body).expect(200);
    assert!(to.received()[0].json()["errors"].is_array());
    // Of one family: its own first.
    let saml = registered(&mut client, &to.url("/in"), &["sso_saml.all"]);
    let told = client.post(&format!("{API}/{}/test", text(&saml, "id")), ()).expect(200).json();
    assert_eq!(told["event_code"], "sso_saml.user.login.success");
}

#[test]
fn answers_mean_what_the_document_says() {
    let (server, mut client) = started();
    let to = receiver();
    registered(&mut client, &to.url("/in"), &["all"]);
    for (script, state, reason) in [
        (Script::status(204), "delivered", None),
        (Script::status(410), "cancelled", Some("gone")),
        (Script::Close, "failed", Some("no_answer")),
        (Script::status(404), "pending", None),
        (Script::redirect("http://127.0.0.1:9/"), "pending", None),
        (Script::status(503).header("retry-after", 120), "pending", None),
    ] {
        // A request cut on a connection that served before is sent again: it is cut as well.
        to.script(script);
        let event = server.publish("acme", "user.created", json!({}));
        let delivery = wait_until("the attempt", || {
            let rows = server.deliveries_of("acme", &event);
            rows.into_iter().find(|row| row["attempts"] == 1)
        });
        assert_eq!((&delivery["state"], &delivery["reason"]), (&json!(state), &json!(reason)), "{delivery}");
    }
    let shown = server.get("/v1/tenants/acme/webhooks").expect(200).json();
    assert_eq!(shown["data"][0]["enabled"], true, "410 cancels one delivery, no more");
}

#[test]
fn what_is_made_here_is_seen_through_v1_and_the_reverse() {
    let (server, mut client) = started();
    let url = "http://127.0.0.1:9/in";
    let made = registered(&mut client, url, &["dir_sync.all"]);
    let all = server.get("/v1/tenants/acme/webhooks").expect(200).json();
    let row = &all["data"][0];
    assert_eq!(
        (&row["profile"], &row["events"], &row["url"]),
        (&json!("cryptr"), &json!(["dir_sync.all"]), &json!(url))
    );
    let path = format!("/v1/tenants/acme/webhooks/{}", text(row, "id"));
    server.patch(&path, json!({"filter": "has(data.a)", "headers": {"X-A": "1"}, "timeout_ms": 5000})).expect(200);
    // A change through the other API keeps what it has no word for.
    client.send("PUT", &format!("{API}/{}", text(&made, "id")), &[FORM], "name=new").expect(200);
    let kept = server.get(&path).expect(200).json();
    assert_eq!(
        (&kept["name"], &kept["filter"], &kept["headers"], &kept["timeout_ms"]),
        (&json!("new"), &json!("has(data.a)"), &json!({"X-A": "***"}), &json!(5000))
    );
    let through_v1 = server.create_webhook("acme", url, json!({"profile": "cryptr", "name": "v1"}));
    server.create_webhook("acme", url, json!({"name": "another profile"}));
    let list = client.get(API).expect(200).json();
    assert_eq!(list["total"], 2, "only webhooks of its own profile: {list}");
    let shown = &list["data"][0];
    assert_eq!((&shown["name"], through_v1["secret"].as_str().map(str::len)), (&json!("v1"), Some(128)));
    assert_eq!(shown["active"], true);
    server
        .patch(&format!("/v1/tenants/acme/webhooks/{}", text(&through_v1, "id")), json!({"enabled": false}))
        .expect(200);
    let shown = client.get(&format!("{API}/{}", text(shown, "id"))).expect(200).json();
    assert_eq!(shown["active"], false);
}

#[test]
fn p7_the_signature_key_is_in_no_log() {
    let server = Server::with(Options::default().env("GATEPOST_LOG", "trace"));
    server.put("/v1/tenants/acme", json!({"environment": "sandbox"})).expect(201);
    let mut client = client(&server, "acme");
    let made = registered(&mut client, "http://127.0.0.1:9/in", &["all"]);
    client.send("PUT", &format!("{API}/{}", text(&made, "id")), &[FORM], "name=x").expect(200);
    assert!(!server.said().contains(&text(&made, "signature_key")));
}
