//! Okta: its API of event hooks, and a receiver written from its document.

use gatepost_testkit::{Received, Receiver, Script};
use serde_json::{Value, json};

use crate::harness::{Client, Server, receiver, text};

const API: &str = "/compat/okta/api/v1/eventHooks";
const SECRET: &str = "the-static-header-value";

fn started() -> (Server, Client) {
    let server = Server::start();
    server.create_tenant("acme");
    let key = server.create_key(&["manage"], Some("acme"));
    let client = server.client_with(&key);
    (server, client)
}

fn body(url: &str, items: &[&str]) -> Value {
    json!({
        "name": "hook",
        "events": {"type": "EVENT_TYPE", "items": items},
        "channel": {
            "type": "HTTP", "version": "1.0.0",
            "config": {
                "uri": url, "headers": [{"key": "X-Other-Header", "value": "other"}],
                "authScheme": {"type": "HEADER", "key": "Authorization", "value": SECRET},
            },
        },
    })
}

/// A receiver as Okta's guide writes it: it echoes the challenge, and takes events whose secret is right.
fn endpoint() -> Receiver {
    let to = receiver();
    to.script(Script::with(|request| {
        if request.header("authorization") != Some(SECRET) {
            return Script::status(401);
        }
        match request.header("x-okta-verification-challenge") {
            Some(challenge) if request.method == "GET" => {
                Script::status(200).body(json!({ "verification": challenge }).to_string())
            }
            _ => Script::status(204),
        }
    }));
    to
}

fn events(to: &Receiver) -> Vec<Received> {
    to.received().into_iter().filter(|request| request.method == "POST").collect()
}

#[test]
fn create_verify_deactivate_delete_with_the_exact_codes() {
    let (server, mut client) = started();
    let to = endpoint();
    let made = client.post(API, body(&to.url("/hook"), &["user.lifecycle.create"])).expect(200).json();
    let id = text(&made, "id");
    assert!(id.len() == 20 && id.starts_with("who"), "{id}");
    assert_eq!(
        (&made["status"], &made["verificationStatus"], &made["description"]),
        (&json!("ACTIVE"), &json!("UNVERIFIED"), &Value::Null)
    );
    assert_eq!(made["events"], json!({"type": "EVENT_TYPE", "items": ["user.lifecycle.create"], "filter": null}));
    assert_eq!(
        made["channel"],
        json!({"type": "HTTP", "version": "1.0.0", "config": {
            "uri": to.url("/hook"), "method": "POST", "headers": [{"key": "X-Other-Header", "value": "***"}],
            "authScheme": {"type": "HEADER", "key": "Authorization"}}})
    );
    assert!(!made.to_string().contains(SECRET));
    let href = text(&made["_links"]["self"], "href");
    assert!(href.ends_with(&format!("{API}/{id}")), "{href}");
    assert_eq!(made["_links"]["deactivate"]["hints"]["allow"], json!(["POST"]));
    for member in ["created", "lastUpdated", "createdBy"] {
        assert!(made[member].is_string(), "{member} in {made}");
    }
    assert_eq!(to.count(), 0, "creating never calls out");

    // Nothing is matched before it is verified.
    let early = server.publish("acme", "user.lifecycle.create", json!({}));
    assert_eq!(server.event("acme", &early)["matching"][0]["reason"], "unverified");
    let path = format!("{API}/{id}");
    let verified = client.post(&format!("{path}/lifecycle/verify"), ()).expect(200).json();
    assert_eq!(verified["verificationStatus"], "VERIFIED");
    let challenge = to.received()[0].clone();
    assert_eq!((challenge.method.as_str(), challenge.header("x-other-header")), ("GET", Some("other")));

    let event = server.publish("acme", "user.lifecycle.create", json!({"displayMessage": "Created"}));
    server.wait_event("acme", &event, "delivered");
    let request = events(&to).remove(0);
    assert_eq!((request.header("authorization"), request.header("x-other-header")), (Some(SECRET), Some("other")));
    let sent = request.json();
    assert_eq!((&sent["eventType"], &sent["source"]), (&json!("com.okta.event_hook"), &json!(href)));
    assert_eq!(sent["data"]["events"][0]["displayMessage"], "Created");

    let refused = client.delete(&path).expect(400).json();
    assert_eq!(refused["errorCode"], "E0000001", "an active hook is not deleted");
    let off = client.post(&format!("{path}/lifecycle/deactivate"), ()).expect(200).json();
    assert_eq!((&off["status"], off["_links"]["activate"].is_object()), (&json!("INACTIVE"), true));
    assert_eq!(off["verificationStatus"], "VERIFIED", "the two axes are apart");
    client.delete(&path).expect(204);
    let gone = client.get(&path).expect(404).json();
    assert_eq!(gone["errorCode"], "E0000007");
    for member in ["errorSummary", "errorLink", "errorId"] {
        assert!(gone[member].is_string(), "{gone}");
    }
    assert_eq!(client.get(API).expect(200).json(), json!([]), "a bare list");
}

#[test]
fn a_failed_verification_is_e0000001_with_its_cause() {
    let (_server, mut client) = started();
    let to = receiver();
    let made = client.post(API, body(&to.url("/hook"), &["user.lifecycle.create"])).expect(200).json();
    let verify = format!("{API}/{}/lifecycle/verify", text(&made, "id"));
    for script in [
        Script::status(500),
        Script::status(200).body(r#"{"verification":"wrong"}"#),
        Script::status(200).body("ok"),
        Script::Close,
    ] {
        to.script(script);
        let told = client.post(&verify, ()).expect(400).json();
        assert_eq!(
            (&told["errorCode"], &told["errorSummary"]),
            (&json!("E0000001"), &json!("Api validation failed: eventHook"))
        );
        assert!(!text(&told["errorCauses"][0], "errorSummary").is_empty(), "{told}");
    }
    let shown = client.get(&format!("{API}/{}", text(&made, "id"))).expect(200).json();
    assert_eq!(shown["verificationStatus"], "UNVERIFIED");
}

#[test]
fn put_keeps_the_secret_and_a_new_channel_is_unverified() {
    let (server, mut client) = started();
    let to = endpoint();
    let made = client.post(API, body(&to.url("/hook"), &["user.lifecycle.create"])).expect(200).json();
    let path = format!("{API}/{}", text(&made, "id"));
    client.post(&format!("{path}/lifecycle/verify"), ()).expect(200);
    // What was shown, sent back, with fewer and other events.
    let mut shown = client.get(&path).expect(200).json();
    shown["events"]["items"] = json!(["user.lifecycle.delete.initiated", "user.session.start"]);
    let changed = client.put(&path, shown.clone()).expect(200).json();
    assert_eq!(changed["verificationStatus"], "VERIFIED", "without authScheme.value it stays, and the proof too");
    let event = server.publish("acme", "user.session.start", json!({}));
    server.wait_event("acme", &event, "delivered");
    assert_eq!(events(&to)[0].header("authorization"), Some(SECRET));
    for change in [
        json!({"uri": to.url("/elsewhere")}),
        json!({"authScheme": {"type": "HEADER", "key": "Authorization", "value": "another value"}}),
        json!({"headers": [{"key": "X-New", "value": "1"}]}),
    ] {
        let mut body = body(&to.url("/hook"), &["user.session.start"]);
        client.put(&path, body.clone()).expect(200);
        client.post(&format!("{path}/lifecycle/verify"), ()).expect(200);
        for (name, value) in change.as_object().unwrap() {
            body["channel"]["config"][name] = value.clone();
        }
        let changed = client.put(&path, body).expect(200).json();
        assert_eq!(changed["verificationStatus"], "UNVERIFIED", "{change}");
    }
}

#[test]
fn what_is_wrong_is_told_in_oktas_words() {
    let (server, mut client) = started();
    let url = "http://127.0.0.1:9/hook";
    let with = |pointer: &str, value: Value| {
        let mut body = body(url, &["user.lifecycle.create"]);
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    for (body, cause) in [
        (with("/name", json!("")), "name"),
        (with("/events/items", json!([])), "events.items"),
        (with("/events/items", json!(["no.such.type"])), "no.such.type"),
        (with("/events/items", json!(["user.*"])), "events.items"),
        (with("/events/type", json!("OTHER")), "events.type"),
        (with("/channel/config/uri", json!("ftp://x")), "channel.config.uri"),
        (with("/channel/config/authScheme/key", json!("")), "authScheme.key"),
        (with("/channel", Value::Null), "channel"),
    ] {
        let told = client.post(API, body).expect(400).json();
        assert_eq!(told["errorCode"], "E0000001");
        assert!(told["errorCauses"].to_string().contains(cause), "{cause}: {told}");
    }
    assert_eq!(client.post(API, "{").expect(400).json()["errorCode"], "E0000003");
    assert_eq!(client.get(&format!("{API}/who00000000000000000")).expect(404).json()["errorCode"], "E0000007");
    let ssws = |key: &str| server.send("GET", API, &[("authorization", &format!("SSWS {key}"))], ());
    assert_eq!(ssws("nobody").expect(401).json()["errorCode"], "E0000011");
    let key = server.create_key(&["read"], Some("acme"));
    ssws(&key).expect(200);
    assert_eq!(
        server.client_with(&key).post(API, body(url, &["user.session.start"])).expect(403).json()["errorCode"],
        "E0000006"
    );
    assert_eq!(server.get(API).expect(403).json()["errorCode"], "E0000006", "a key bound to no tenant");
}

#[test]
fn filters_choose_events() {
    let (server, mut client) = started();
    let to = endpoint();
    let filter = |expression: &str| {
        json!({"type": "EXPRESSION_LANGUAGE", "eventFilterMap": [
            {"event": "user.session.start", "condition": {"expression": expression, "version": null}}]})
    };
    let mut hook = body(&to.url("/hook"), &["user.session.start", "user.session.end"]);
    hook["events"]["filter"] = filter("event.outcome.result eq 'FAILURE'");
    let made = client.post(API, hook.clone()).expect(200).json();
    assert_eq!(made["events"]["filter"], hook["events"]["filter"], "shown as it was written");
    let path = format!("{API}/{}", text(&made, "id"));
    client.post(&format!("{path}/lifecycle/verify"), ()).expect(200);
    let publish = |event_type: &str, data: Value| server.publish("acme", event_type, data);
    let wanted = [
        publish("user.session.start", json!({"outcome": {"result": "FAILURE"}})),
        publish("user.session.end", json!({"outcome": {"result": "SUCCESS"}})),
    ];
    let unwanted = publish("user.session.start", json!({"outcome": {"result": "SUCCESS"}}));
    for event in &wanted {
        server.wait_event("acme", event, "delivered");
    }
    let told = server.event("acme", &unwanted);
    assert_eq!((&told["deliveries"], &told["matching"][0]["reason"]), (&json!([]), &json!("filter_false")));
    // Both of one target, not each of any.
    hook["events"]["filter"] = filter("event.target.?[type eq 'UserGroup' && displayName eq 'Sales'].size() > 0");
    client.put(&path, hook.clone()).expect(200);
    let group = |kind: &str, name: &str| json!({"type": kind, "displayName": name});
    let one = publish("user.session.start", json!({"target": [group("User", "a"), group("UserGroup", "Sales")]}));
    let two = publish("user.session.start", json!({"target": [group("User", "Sales"), group("UserGroup", "b")]}));
    server.wait_event("acme", &one, "delivered");
    assert_eq!(server.event("acme", &two)["deliveries"], json!([]));
    for expression in ["event.outcome.result", "event.client.ipAddress eq '1'", "1", ""] {
        hook["events"]["filter"] = filter(expression);
        let told = client.put(&path, hook.clone()).expect(400).json();
        assert_eq!(told["errorCode"], "E0000001", "{expression}");
    }
    hook["events"]["filter"] = filter("event.outcome.result eq 'x'");
    hook["events"]["filter"]["eventFilterMap"][0]["event"] = json!("user.lifecycle.create");
    client.put(&path, hook).expect(400);
}

#[test]
fn batches_are_one_envelope_and_names_are_in_title_case() {
    let (server, mut client) = started();
    let to = endpoint();
    let made = client.post(API, body(&to.url("/hook"), &["user.session.start"])).expect(200).json();
    client.post(&format!("{API}/{}/lifecycle/verify", text(&made, "id")), ()).expect(200);
    let event = server.publish("acme", "user.session.start", json!({}));
    server.wait_event("acme", &event, "delivered");
    assert_eq!(events(&to)[0].json()["data"]["events"].as_array().unwrap().len(), 1, "one unless asked for more");
    let row = server.get("/v1/tenants/acme/webhooks").expect(200).json()["data"][0].clone();
    let path = format!("/v1/tenants/acme/webhooks/{}", text(&row, "id"));
    server.patch(&path, json!({"batch": {"max_events": 3, "max_wait_ms": 60_000}})).expect(200);
    let ids: Vec<_> = (0..3).map(|n| server.publish("acme", "user.session.start", json!({"n": n}))).collect();
    server.wait_event("acme", &ids[0], "delivered");
    let sent = events(&to)[1].json();
    let list = sent["data"]["events"].as_array().unwrap();
    assert_eq!(
        list.iter().map(|e| e["debugContext"]["debugData"]["n"].clone()).collect::<Vec<_>>(),
        [0, 1, 2].map(Value::from)
    );
    assert_eq!(server.deliveries_of("acme", &ids[0]), server.deliveries_of("acme", &ids[2]), "one delivery for all");
    let headers = &events(&to)[1].headers;
    let has = |name: &str| headers.iter().any(|(known, _)| known == name);
    assert!(has("Authorization") && has("Content-Type"), "{headers:?}");
    assert_eq!(events(&to)[0].header("accept"), Some("application/json"));
}

#[test]
fn what_is_made_here_is_seen_through_v1_and_the_reverse() {
    let (server, mut client) = started();
    let to = endpoint();
    let made = client.post(API, body(&to.url("/hook"), &["user.session.start"])).expect(200).json();
    let row = server.get("/v1/tenants/acme/webhooks").expect(200).json()["data"][0].clone();
    assert_eq!(
        (&row["profile"], &row["verified"], &row["events"]),
        (&json!("okta"), &json!(false), &json!(["user.session.start"]))
    );
    assert_eq!(row["auth"], json!({"type": "header", "name": "Authorization", "value": "***"}));
    let path = format!("/v1/tenants/acme/webhooks/{}", text(&row, "id"));
    let result = server.post(&format!("{path}/verify"), ()).expect(200).json();
    assert_eq!(result["verified"], true, "{result}");
    assert!(!result.to_string().contains(SECRET), "the transcript masks it");
    let okta = format!("{API}/{}", text(&made, "id"));
    assert_eq!(client.get(&okta).expect(200).json()["verificationStatus"], "VERIFIED");
    server.patch(&path, json!({"filter": "has(data.n)", "timeout_ms": 2000})).expect(200);
    let mut shown = client.get(&okta).expect(200).json();
    assert_eq!(shown["events"]["filter"], Value::Null, "a filter it has no words for");
    shown["name"] = json!("renamed");
    client.put(&okta, shown).expect(200);
    let kept = server.get(&path).expect(200).json();
    assert_eq!(
        (&kept["filter"], &kept["timeout_ms"], &kept["name"], &kept["verified"]),
        (&json!("has(data.n)"), &json!(2000), &json!("renamed"), &json!(true))
    );
    server.create_webhook("acme", &to.url("/hook"), json!({"profile": "okta", "name": "v1", "events": ["user.*"]}));
    server.create_webhook("acme", &to.url("/hook"), json!({}));
    let list = client.get(API).expect(200).json();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["events"]["items"]), (2, &json!(["user.*"])));
}

#[test]
fn answers_mean_what_okta_says() {
    let (server, mut client) = started();
    let to = endpoint();
    let made = client.post(API, body(&to.url("/hook"), &["user.session.start"])).expect(200).json();
    client.post(&format!("{API}/{}/lifecycle/verify", text(&made, "id")), ()).expect(200);
    for (script, state, reason) in [
        (Script::status(200), "delivered", None),
        (Script::status(400), "failed", Some("rejected")),
        (Script::status(410), "failed", Some("gone")),
        (Script::redirect("http://127.0.0.1:9/"), "failed", Some("rejected")),
    ] {
        to.next([script]);
        let event = server.publish("acme", "user.session.start", json!({}));
        let delivery = server.delivery_of("acme", &event);
        let shown = server.wait_delivery("acme", &delivery, state);
        assert_eq!((&shown["reason"], &shown["attempts"]), (&json!(reason), &json!(1)), "{shown}");
    }
    // One quick second try, under the same eventId.
    to.forget();
    to.next([Script::status(503), Script::status(200)]);
    let event = server.publish("acme", "user.session.start", json!({}));
    server.wait_event("acme", &event, "delivered");
    let sent = events(&to);
    assert_eq!((sent.len(), sent[0].json()["eventId"] == sent[1].json()["eventId"]), (2, true));
}

/// P6: an odd member takes nothing with it, and a filter sees what is sent.
#[test]
fn p6_what_no_value_holds_passes_by_its_bytes_and_is_filtered_as_it_is_sent() {
    let (server, mut client) = started();
    let to = endpoint();
    let mut hook = body(&to.url("/hook"), &["user.lifecycle.suspend"]);
    hook["events"]["filter"] = json!({"type": "EXPRESSION_LANGUAGE", "eventFilterMap": [
        {"event": "user.lifecycle.suspend", "condition": {"expression": "event.target.?[id eq '00uB'].size() > 0"}}]});
    let id = text(&client.post(API, hook).expect(200).json(), "id");
    client.post(&format!("{API}/{id}/lifecycle/verify"), json!({})).expect(200);
    let mut odd = Vec::new();
    for (index, value) in [r#""Ana \ud83d""#, "1e400", "123456789012345678901234567890"].into_iter().enumerate() {
        let event = format!(
            r#"{{"type":"user.lifecycle.suspend","id":"odd{index}","subject":{{"id":"00uB"}},"data":{{"actor":{{"id":"00uA","displayName":{value}}},"severity":"WARN","note":{value}}}}}"#
        );
        server.post("/v1/tenants/acme/events", event.as_str()).expect(202);
        odd.push(value);
    }
    let sent = crate::harness::wait_until("all three", || (events(&to).len() == 3).then(|| events(&to)));
    for value in odd {
        let found = sent.iter().map(|one| String::from_utf8_lossy(&one.body)).find(|body| body.contains(value));
        let found = found.expect(value);
        assert!(found.contains(&format!(r#""actor":{{"id":"00uA","displayName":{value}}}"#)), "{found}");
        assert!(found.contains(r#""severity":"WARN""#) && found.contains(&format!(r#""note":{value}"#)), "{found}");
    }
}

/// What Okta's SDK for Python sends, and what clients ask first.
#[test]
fn keys_with_and_without_a_blank_and_whom_they_stand_for() {
    let server = Server::start();
    server.create_tenant("acme");
    let key = server.create_key(&["manage"], Some("acme"));
    let mut stranger = server.client_with("none");
    for value in [
        format!("SSWS {key}"),
        format!("SSWS{key}"),
        format!("ssws{key}"),
        format!("SSWS  {key} "),
        format!("Bearer {key}"),
    ] {
        let reply = stranger.send("GET", API, &[("authorization", &value)], ());
        assert_eq!((reply.status, reply.json()), (200, json!([])), "{value}");
    }
    for value in ["SSWS", "SSWS ", "SSWSwrong", "SS", ""] {
        let reply = stranger.send("GET", API, &[("authorization", value)], ());
        assert_eq!((reply.status, &reply.json()["errorCode"]), (401, &json!("E0000011")), "{value}");
    }
    let to = endpoint();
    let made =
        server.client_with(&key).post(API, body(&to.url("/hook"), &["user.lifecycle.create"])).expect(200).json();
    let me = "/compat/okta/api/v1/users/me";
    let shown = server.client_with(&key).get(me).expect(200).json();
    assert_eq!((&shown["status"], &shown["id"]), (&json!("ACTIVE"), &made["createdBy"]));
    assert!(shown["profile"]["login"].as_str().is_some_and(|login| login.ends_with("@acme")), "{shown}");
    for member in ["created", "lastUpdated", "type", "credentials", "_links"] {
        assert!(!shown[member].is_null(), "{member}: {shown}");
    }
    // Whatever its scopes; not without a tenant, and not with another's.
    let publisher = server.create_key(&["publish"], Some("acme"));
    server.client_with(&publisher).get(me).expect(200);
    assert_eq!(server.get(me).expect(403).json()["errorCode"], "E0000006");
    assert_eq!(server.client_with("none").get(me).expect(401).json()["errorCode"], "E0000011");
}
