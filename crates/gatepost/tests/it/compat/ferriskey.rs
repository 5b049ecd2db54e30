//! FerrisKey: its API, and a receiver written from its document.

use gatepost_testkit::{Received, Script};
use serde_json::{Value, json};

use super::hmac_hex;
use crate::harness::{Client, Server, receiver, text, wait_until};

const API: &str = "/compat/ferriskey/realms/acme/webhooks";

fn started() -> (Server, Client) {
    let server = Server::start();
    server.create_tenant("acme");
    let key = server.create_key(&["manage"], Some("acme"));
    let client = server.client_with(&key);
    (server, client)
}

#[track_caller]
fn registered(client: &mut Client, url: &str, subscribers: &[&str]) -> Value {
    let body = json!({"name": "w", "endpoint": url, "subscribers": subscribers});
    client.post(API, body).expect(200).json()["data"].clone()
}

#[track_caller]
fn signed_by(request: &Received, secret: &str) {
    let timestamp = request.header("x-ferriskey-timestamp").expect("a timestamp");
    let signature = hmac_hex(secret, &[timestamp.as_bytes(), b".", &request.body]);
    assert_eq!(request.header("x-ferriskey-signature"), Some(&*signature));
}

fn is_uuid(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| {
            if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() && !b.is_ascii_uppercase() }
        })
}

#[test]
fn the_exact_wrappers_and_codes() {
    let (server, mut client) = started();
    let url = "http://127.0.0.1:9/in";
    let body = json!({
        "name": "w", "description": "d", "endpoint": url, "headers": {"X-Api-Key": "s3cr3t"},
        "subscribers": ["user.created", "user.deleted", "user.created"],
    });
    let made = client.post(API, body).expect(200).json();
    assert_eq!(made.as_object().unwrap().len(), 1, "wrapped in data");
    let webhook = &made["data"];
    let mut members: Vec<_> = webhook.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort();
    assert_eq!(
        members,
        [
            "created_at",
            "description",
            "endpoint",
            "headers",
            "id",
            "name",
            "retry_policy",
            "subscribers",
            "triggered_at",
            "updated_at"
        ]
    );
    assert!(is_uuid(&webhook["id"]), "{webhook}");
    assert_eq!(webhook["headers"], json!({"X-Api-Key": "***"}));
    let subscribers = webhook["subscribers"].as_array().unwrap();
    assert_eq!(subscribers.len(), 2, "one named twice is named");
    assert_eq!((&subscribers[1]["name"], &subscribers[1]["webhook_id"]), (&json!("user.deleted"), &webhook["id"]));
    assert!(is_uuid(&subscribers[0]["id"]));
    let path = format!("{API}/{}", text(webhook, "id"));

    let metadata = json!({"page": 1, "limit": 20, "total": 1, "total_pages": 1, "first_page": 1, "last_page": 1,
        "next_page": null, "prev_page": null});
    assert_eq!(client.get(API).expect(200).json(), json!({"data": [webhook], "metadata": metadata}));
    assert_eq!(client.get(&path).expect(200).json(), *webhook, "bare");
    let unknown = format!("{API}/01992f00-7c4e-7aaa-8000-00000000abcd");
    assert_eq!(client.get(&unknown).expect(200).json(), Value::Null);
    for reply in [client.put(&unknown, json!({"endpoint": url})), client.delete(&unknown)] {
        let told = reply.expect(404).json();
        assert_eq!((&told["code"], &told["status"]), (&json!("E_NOT_FOUND"), &json!(404)));
    }
    // A PUT is whole; headers alone are kept when they are absent.
    let changed = client.put(&path, json!({"endpoint": url, "subscribers": ["role.created"]})).expect(200).json();
    let changed = &changed["data"];
    assert_eq!(
        (&changed["name"], &changed["description"], &changed["headers"], &changed["subscribers"][0]["name"]),
        (&Value::Null, &Value::Null, &json!({"X-Api-Key": "***"}), &json!("role.created"))
    );
    let cleared = client.put(&path, json!({"endpoint": url, "headers": {}})).expect(200).json();
    assert_eq!((&cleared["data"]["headers"], &cleared["data"]["subscribers"]), (&json!({}), &json!([])));
    assert_eq!(client.delete(&path).expect(200).json(), json!({"message": "", "realm_name": "acme"}));
    assert_eq!(client.get(&path).expect(200).json(), Value::Null);
    drop(server);
}

#[test]
fn errors_have_ferriskeys_shapes() {
    let (server, mut client) = started();
    let url = "http://127.0.0.1:9/in";
    for body in [json!({"subscribers": ["user.created"]}), json!({"endpoint": ""})] {
        let told = client.post(API, body).expect(422).json();
        assert_eq!(told["errors"][0]["field"], "endpoint", "{told}");
        assert!(told["errors"][0]["message"].is_string());
    }
    for (body, says) in [
        (json!({"endpoint": url, "subscribers": ["no.such"]}), "Unexpected payload"),
        (json!({"endpoint": url, "subscribers": "user.created"}), "Unexpected payload"),
        (json!({"endpoint": "ftp://x", "subscribers": []}), "Invalid resource"),
        (json!({"endpoint": url, "headers": {"Content-Type": "x"}}), "Invalid resource"),
        (json!({"endpoint": url, "headers": {"x-ferriskey-signature": "x"}}), "Invalid resource"),
    ] {
        let told = client.post(API, body.clone()).expect(400).json();
        assert_eq!((&told["code"], &told["status"]), (&json!("E_BAD_REQUEST"), &json!(400)));
        assert!(told["reason"].is_string(), "{told}");
        let message = text(&told, "message");
        assert!(message.starts_with(says) && message.matches(says).count() == 1, "{body}: {told}");
    }
    let told = client.post(API, "{").expect(400).json();
    assert!(text(&told, "message").starts_with("Unexpected payload"), "{told}");
    // Subscribed to nothing is allowed; `url` is an old spelling of `endpoint`.
    let made = client.post(API, json!({"url": url, "subscribers": []})).expect(200).json();
    assert_eq!((&made["data"]["endpoint"], &made["data"]["subscribers"]), (&json!(url), &json!([])));
    let told = server.client_with("gp_nobody").get(API).expect(401).json();
    assert_eq!((&told["code"], &told["status"]), (&json!("E_UNAUTHORIZED"), &json!(401)));
    let reader = server.create_key(&["read"], Some("acme"));
    let mut reader = server.client_with(&reader);
    reader.get(API).expect(200);
    assert_eq!(reader.post(API, json!({"endpoint": url})).expect(403).json()["code"], "E_FORBIDDEN");
}

#[test]
fn p5_a_realm_that_is_not_the_keys_looks_like_none() {
    let (server, mut client) = started();
    server.create_tenant("other");
    let foreign = client.get("/compat/ferriskey/realms/other/webhooks").expect(401).text();
    assert_eq!(foreign, client.get("/compat/ferriskey/realms/nowhere/webhooks").expect(401).text());
    // A webhook of another realm is none of this one's, whoever asks.
    let made = registered(&mut client, "http://127.0.0.1:9/in", &["user.created"]);
    let path = format!("/compat/ferriskey/realms/other/webhooks/{}", text(&made, "id"));
    assert_eq!(server.get(&path).expect(200).json(), Value::Null);
    server.delete(&path).expect(404);
}

#[test]
fn events_arrive_in_the_four_members() {
    let (server, mut client) = started();
    let to = receiver();
    let made = registered(&mut client, &to.url("/webhook"), &["user.created", "auth.reset_password"]);
    let rotate = format!("{API}/{}/secret/rotate", text(&made, "id"));
    let secret = text(&client.post(&rotate, ()).expect(200).json(), "secret");
    assert!(secret.len() == 64 && secret.bytes().all(|b| b.is_ascii_hexdigit()), "{secret}");
    let user = "01992f00-7c4e-7aaa-8000-00000000abcd";
    let event = json!({"type": "user.created", "timestamp": "2026-11-22T10:00:00Z",
                       "subject": {"type": "user", "id": user}, "data": {"username": "ada"}});
    server.publish_event("acme", event);
    server.publish("acme", "user.deleted", json!({}));
    let request = to.wait_for_blocking(1).remove(0);
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        format!(
            r#"{{"event":"user.created","timestamp":"2026-11-22T10:00:00.000000Z","resource_id":"{user}","data":{{"username":"ada"}}}}"#
        )
    );
    signed_by(&request, &secret);
    assert!(is_uuid(&json!(request.header("x-ferriskey-delivery-id"))));
    server.publish("acme", "auth.reset_password", Value::Null);
    let request = to.wait_for_blocking(2).remove(1);
    assert_eq!(request.json()["data"], Value::Null);
    assert!(is_uuid(&request.json()["resource_id"]), "without a subject the realm's");
    // A rotation ends the old secret at once.
    let newer = text(&client.post(&rotate, ()).expect(200).json(), "secret");
    server.publish("acme", "user.created", json!({}));
    signed_by(&to.wait_for_blocking(3)[2], &newer);
}

#[test]
fn a_webhook_hears_of_webhooks_its_own_end_included() {
    let (_server, mut client) = started();
    let to = receiver();
    let watching = registered(&mut client, &to.url("/webhook"), &["webhook.created", "webhook.deleted"]);
    to.wait_for_blocking(1);
    let body = json!({"name": "n", "endpoint": "http://127.0.0.1:9/in", "headers": {"X-Key": "s3cr3t"}, "subscribers": ["user.created"]});
    let made = client.post(API, body).expect(200).json()["data"].clone();
    let requests = to.wait_for_blocking(2);
    let told = requests.iter().map(Received::json).find(|body| body["data"]["id"] == made["id"]).expect("it is told");
    assert_eq!((&told["event"], &told["resource_id"]), (&json!("webhook.created"), &made["id"]));
    let data = told["data"].as_object().unwrap();
    assert!(!data.contains_key("headers") && !data.contains_key("secret"), "{told}");
    assert_eq!((&data["endpoint"], &data["subscribers"]), (&made["endpoint"], &made["subscribers"]));
    client.delete(&format!("{API}/{}", text(&watching, "id"))).expect(200);
    let last = to.wait_for_blocking(3)[2].json();
    assert_eq!((&last["event"], &last["data"]["id"]), (&json!("webhook.deleted"), &watching["id"]));
}

#[test]
fn answers_mean_what_ferriskey_does() {
    let (server, mut client) = started();
    let to = receiver();
    registered(&mut client, &to.url("/in"), &["user.created"]);
    for (script, state, reason) in [
        (Script::status(201), "delivered", None),
        (Script::status(404), "failed", Some("rejected")),
        (Script::status(410), "failed", Some("gone")),
        (Script::redirect("http://127.0.0.1:9/"), "failed", Some("rejected")),
    ] {
        to.next([script]);
        let event = server.publish("acme", "user.created", json!({}));
        let delivery = server.delivery_of("acme", &event);
        let shown = server.wait_delivery("acme", &delivery, state);
        assert_eq!((&shown["reason"], &shown["attempts"]), (&json!(reason), &json!(1)), "{shown}");
    }
    // Tried again, the same bytes under one delivery id, each attempt signed anew.
    to.forget();
    to.next([Script::status(503), Script::status(408), Script::status(200)]);
    let event = server.publish("acme", "user.created", json!({}));
    let requests = to.wait_for_blocking(3);
    server.wait_event("acme", &event, "delivered");
    assert!(requests.windows(2).all(|two| two[0].body == two[1].body));
    let ids: Vec<_> = requests.iter().map(|request| request.header("x-ferriskey-delivery-id")).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

#[test]
fn deliveries_are_listed_shown_and_retried() {
    let (server, mut client) = started();
    let to = receiver();
    let made = registered(&mut client, &to.url("/in"), &["user.created", "user.deleted"]);
    to.next([Script::status(200), Script::status(400).body("no")]);
    let first = server.publish("acme", "user.created", json!({"n": 1}));
    server.wait_event("acme", &first, "delivered");
    let second = server.publish("acme", "user.deleted", json!({"n": 2}));
    server.wait_event("acme", &second, "failed");
    let path = format!("{API}/{}/deliveries", text(&made, "id"));
    let list = client.get(&path).expect(200).json();
    assert_eq!(list["metadata"]["total"], 2);
    assert_eq!(list.as_object().unwrap().len(), 2, "{list}");
    let failed = &list["data"][0];
    assert_eq!(
        (&failed["event"], &failed["status"], &failed["last_status_code"], &failed["last_error_code"]),
        (&json!("user.deleted"), &json!("failed"), &json!(400), &json!("http_400"))
    );
    assert_eq!((&failed["webhook_id"], &failed["attempt_count"]), (&made["id"], &json!(1)));
    assert_eq!(list["data"][1]["status"], "succeeded");
    let id = text(failed, "id");
    assert_eq!(to.received()[1].header("x-ferriskey-delivery-id"), Some(&*id));
    let shown = client.get(&format!("{path}/{id}")).expect(200).json();
    assert_eq!(shown.as_object().unwrap().len(), 1, "wrapped in data");
    let shown = &shown["data"];
    assert_eq!((&shown["id"], &shown["webhook_id"]), (&failed["id"], &made["id"]));
    assert_eq!((&shown["payload"]["event"], &shown["payload"]["data"]), (&json!("user.deleted"), &json!({"n": 2})));
    for (query, total) in [
        ("event=user.created", 1),
        ("status=failed", 1),
        ("status=pending", 0),
        ("created_from=2001-01-01T00:00:00Z&created_to=2001-01-02T00:00:00Z", 0),
        ("per_page=1&page=2&order=asc", 2),
        ("limit=100&order_by=last_attempt_at&status=", 2),
        ("search=nowhere", 0),
    ] {
        let list = client.get(&format!("{path}?{query}")).expect(200).json();
        assert_eq!(list["metadata"]["total"], total, "{query}: {list}");
    }
    let resource = text(failed, "resource_id");
    for part in [resource.clone(), resource[4..20].to_uppercase()] {
        let list = client.get(&format!("{path}?search={part}&event=user.deleted")).expect(200).json();
        assert_eq!(list["data"], json!([failed]), "{part}");
    }
    let page = client.get(&format!("{path}?limit=1&page=2&order=asc")).expect(200).json();
    assert_eq!(page["data"], json!([failed]));
    assert_eq!((&page["metadata"]["limit"], &page["metadata"]["prev_page"]), (&json!(1), &json!(1)));
    for bad in [
        "nonsense=1",
        "status=nonsense",
        "limit=101",
        "limit=0",
        "page=0",
        "order=up",
        "order_by=payload",
        "event=user.exploded",
        "event=%25",
        "resource_id=nope",
        "created_from=2026-10-05",
        "search=a&search=b",
    ] {
        let told = client.get(&format!("{path}?{bad}")).expect(400).json();
        assert_eq!(
            (&told["code"], &told["reason"]),
            (&json!("E_BAD_REQUEST"), &json!("invalid_query")),
            "{bad}: {told}"
        );
        let name = bad.split('=').next().unwrap();
        assert!(text(&told, "message").starts_with(&format!("Invalid query parameter `{name}`")), "{told}");
    }
    client.get(&format!("{API}/01992f00-7c4e-7aaa-8000-00000000abcd/deliveries")).expect(404);
    // When it was last sent to is shown, here and in the list.
    let webhook = client.get(&format!("{API}/{}", text(&made, "id"))).expect(200).json();
    assert!(webhook["triggered_at"].is_string(), "{webhook}");
    let list = client.get(&format!("{API}?triggered=true")).expect(200).json();
    assert_eq!(list["data"][0]["triggered_at"], webhook["triggered_at"]);
    assert_eq!(client.get(&format!("{API}?triggered=false")).expect(200).json()["metadata"]["total"], 0);
    let requeued = client.post(&format!("{path}/{id}/retry"), ()).expect(202).json();
    assert_eq!(requeued, json!({"delivery_id": id, "requeued": true}));
    wait_until("the retry", || (to.count() == 3).then_some(()));
    server.wait_event("acme", &second, "delivered");
    // A delivery is its webhook's alone.
    let other = registered(&mut client, &to.url("/in"), &[]);
    let elsewhere = format!("{API}/{}/deliveries/{id}", text(&other, "id"));
    client.get(&elsewhere).expect(404);
    client.post(&format!("{elsewhere}/retry"), ()).expect(404);
    // One that is still being made is not made twice.
    to.script(Script::status(503));
    let third = server.publish("acme", "user.created", json!({}));
    let delivery = wait_until("a first attempt", || {
        let rows = server.deliveries_of("acme", &third);
        rows.into_iter().find(|row| row["attempts"].as_u64() > Some(0))
    });
    assert_eq!(delivery["state"], "pending");
    let pending = client.get(&format!("{path}?status=pending")).expect(200).json();
    let retry = format!("{path}/{}/retry", text(&pending["data"][0], "id"));
    assert_eq!(client.post(&retry, ()).expect(409).json()["code"], "E_CONFLICT");
}

#[test]
fn webhooks_are_searched_sorted_and_paged() {
    let (server, mut client) = started();
    let make = |client: &mut Client, name: Value, url: &str, subscribers: Value| {
        let body = json!({"name": name, "endpoint": url, "subscribers": subscribers});
        text(&client.post(API, body).expect(200).json()["data"], "id")
    };
    let first = make(&mut client, json!("Alpha"), "https://example.com/one", json!(["user.created"]));
    let second = make(&mut client, json!("beta"), "http://127.0.0.1:9/ALPHA", json!([]));
    let third = make(&mut client, Value::Null, "https://example.org/three", json!(["user.created"]));
    let ids = |client: &mut Client, query: &str| {
        let list = client.get(&format!("{API}?{query}")).expect(200).json();
        let rows = list["data"].as_array().unwrap().iter().map(|row| text(row, "id")).collect::<Vec<_>>();
        (rows, list["metadata"]["total"].as_u64().unwrap())
    };
    let all = [&third, &second, &first].map(Clone::clone).to_vec();
    for (query, wanted) in [
        ("", all.clone()),
        ("order=asc", all.iter().rev().cloned().collect()),
        ("search=alpha", vec![second.clone(), first.clone()]),
        ("search=example", vec![third.clone(), first.clone()]),
        ("name=ALPHA", vec![first.clone()]),
        ("endpoint=alpha", vec![second.clone()]),
        ("has_subscribers=false", vec![second.clone()]),
        ("secure_endpoint=false", vec![second.clone()]),
        ("secure_endpoint=true&search=one", vec![first.clone()]),
        ("triggered=true", vec![]),
        ("triggered=false&name=beta", vec![second.clone()]),
        ("created_from=2001-01-01T00:00:00%2B02:00&created_to=2001-01-02T00:00:00Z", vec![]),
        // Without a name: last, and first in the other direction.
        ("order_by=name&order=asc", vec![first.clone(), second.clone(), third.clone()]),
        ("order_by=name", vec![third.clone(), second.clone(), first.clone()]),
        ("order_by=endpoint&order=asc", vec![second.clone(), first.clone(), third.clone()]),
    ] {
        assert_eq!(ids(&mut client, query), (wanted.clone(), wanted.len() as u64), "{query}");
    }
    assert_eq!(ids(&mut client, "limit=1&page=2"), (vec![second], 3));
    for bad in
        ["limit=101", "order_by=secret", "triggered=maybe", "secret=x", "created_to=2026-10-05", "search=a&search=b"]
    {
        assert_eq!(client.get(&format!("{API}?{bad}")).expect(400).json()["reason"], "invalid_query", "{bad}");
    }
    drop(server);
}

#[test]
fn a_retry_policy_is_taken_answered_and_followed() {
    let (server, mut client) = started();
    let to = receiver();
    let body =
        |policy: Value| json!({"endpoint": to.url("/in"), "subscribers": ["user.created"], "retry_policy": policy});
    let policy = json!({"max_attempts": 3, "base_delay_ms": 100});
    let made = client.post(API, body(policy)).expect(200).json()["data"].clone();
    let whole = json!({"max_attempts": 3, "base_delay_ms": 100, "max_delay_ms": null, "max_total_delay_ms": null});
    assert_eq!(made["retry_policy"], whole);
    let path = format!("{API}/{}", text(&made, "id"));
    let shown = client.get(&path).expect(200).json();
    let effective =
        json!({"max_attempts": 3, "base_delay_ms": 100, "max_delay_ms": 30_000, "max_total_delay_ms": 120_000});
    assert_eq!((&shown["retry_policy"], &shown["effective_retry_policy"]), (&whole, &effective));
    let ours = || server.all("/v1/tenants/acme/webhooks")[0].clone();
    assert_eq!(ours()["retry"], json!({"waits": [0.1, 0.2], "jitter": 1.0}));
    to.script(Script::status(503));
    let event = server.publish("acme", "user.created", json!({}));
    let view = server.wait_event("acme", &event, "failed");
    assert_eq!((&view["attempts"], &view["reason"]), (&json!(3), &json!("exhausted")));
    // Absent or null keeps it, an empty one takes it away.
    for kept in [json!({"endpoint": to.url("/in"), "subscribers": ["user.created"]}), body(Value::Null)] {
        assert_eq!(client.put(&path, kept).expect(200).json()["data"]["retry_policy"], whole);
    }
    let cleared = client.put(&path, body(json!({}))).expect(200).json()["data"]["retry_policy"].clone();
    assert!(cleared.as_object().unwrap().values().all(Value::is_null), "{cleared}");
    assert_eq!(
        (client.get(&path).expect(200).json().get("effective_retry_policy"), &ours()["retry"]),
        (None, &Value::Null)
    );
    // Another schedule set elsewhere is not shown as this one.
    client.put(&path, body(json!({"max_attempts": 2}))).expect(200);
    let row = ours();
    server
        .patch(&format!("/v1/tenants/acme/webhooks/{}", text(&row, "id")), json!({"retry": {"waits": [9]}}))
        .expect(200);
    assert_eq!(client.get(&path).expect(200).json()["retry_policy"]["max_attempts"], Value::Null);
    for bad in [
        json!({"max_attempts": 0}),
        json!({"base_delay_ms": 99}),
        json!({"max_delay_ms": 400}),
        json!({"max_total_delay_ms": 1}),
    ] {
        let told = client.post(API, body(bad.clone())).expect(400).json();
        assert_eq!(told["reason"], "invalid_webhook_retry_policy", "{bad}: {told}");
    }
    client.post(API, body(json!("often"))).expect(400);
}

#[test]
fn a_list_looks_at_the_newest_ten_thousand_of_its_realm() {
    let (server, mut client) = started();
    let silent = receiver();
    silent.script(Script::Hang);
    let quiet = registered(&mut client, &silent.url("/quiet"), &["user.deleted"]);
    server.publish("acme", "user.deleted", json!({}));
    let total = |client: &mut Client, webhook: &Value| {
        client.get(&format!("{API}/{}/deliveries", text(webhook, "id"))).expect(200).json()["metadata"]["total"].clone()
    };
    assert_eq!(total(&mut client, &quiet), 1);
    let busy = registered(&mut client, &silent.url("/busy"), &["user.created"]);
    let events = json!({"events": vec![json!({"type": "user.created"}); 500]});
    for _ in 0..21 {
        server.post("/v1/tenants/acme/events/batch", events.clone()).expect(202);
    }
    assert_eq!(total(&mut client, &busy), 10_000, "of 10,500");
    // Other webhooks' deliveries count: what is older is found by /v1, page by page.
    assert_eq!(total(&mut client, &quiet), 0);
    let webhooks = server.all("/v1/tenants/acme/webhooks");
    let native = webhooks.iter().find(|webhook| text(webhook, "url").ends_with("/quiet")).expect("it is there");
    assert_eq!(server.all(&format!("/v1/tenants/acme/deliveries?webhook_id={}", text(native, "id"))).len(), 1);
}

#[test]
fn what_is_made_here_is_seen_through_v1_and_the_reverse() {
    let (server, mut client) = started();
    let url = "http://127.0.0.1:9/in";
    let made = registered(&mut client, url, &["user.created"]);
    let row = server.get("/v1/tenants/acme/webhooks").expect(200).json()["data"][0].clone();
    assert_eq!((&row["profile"], &row["events"]), (&json!("ferriskey"), &json!(["user.created"])));
    let path = format!("/v1/tenants/acme/webhooks/{}", text(&row, "id"));
    server
        .patch(&path, json!({"events": ["user.*"], "options": {"legacy_realm_resource_id": true}, "timeout_ms": 900}))
        .expect(200);
    let shown = client.get(&format!("{API}/{}", text(&made, "id"))).expect(200).json();
    assert_eq!(shown["subscribers"][0]["name"], "user.*");
    client
        .put(&format!("{API}/{}", text(&made, "id")), json!({"endpoint": url, "subscribers": ["user.deleted"]}))
        .expect(200);
    let kept = server.get(&path).expect(200).json();
    assert_eq!(
        (&kept["options"], &kept["timeout_ms"], &kept["events"]),
        (&json!({"legacy_realm_resource_id": true}), &json!(900), &json!(["user.deleted"]))
    );
    server.create_webhook("acme", url, json!({"profile": "ferriskey", "name": "v1"}));
    server.create_webhook("acme", url, json!({}));
    let list = client.get(API).expect(200).json();
    assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["name"]), (2, &json!("v1")));
}
